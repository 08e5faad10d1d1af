//! Where one rule fires in a graph, and where and why it nearly does: the answers behind
//! `rules try`.
//!
//! Rules before the e-graph are watched while they run, and near-misses are looked for in the
//! graph as their phase leaves it. Rules of the e-graph are matched against the saturated one.

use std::collections::{BTreeMap, BTreeSet};

use egg::Id;

use super::canonicalize::match_graph::NearMiss;
use super::canonicalize::work_graph::WorkGraph;
use super::canonicalize::{Watch, canonicalize_watched, rewrite_model_watched};
use super::conditions::facts::{Binding, Bindings};
use super::conditions::unmet::Speaker;
use super::conditions::values::Value;
use super::conditions::{evaluate, holds};
use super::egraph::ematch::{self, Match};
use super::egraph::saturate::saturate;
use super::egraph::siblings;
use super::egraph::term_facts::{TermFacts, handle};
use super::egraph::term_graph::TermGraph;
use super::error::RewriteError;
use super::extraction::explain::once;
use super::rules::ast::{Arrow, Horizontal, Rule, Term};
use super::rules::set::RuleSet;
use crate::ir::{Graph, NodeId};

/// A place where a rule fired.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Firing {
    /// ONNX nodes that the left side describes.
    pub nodes: Vec<String>,
    /// What the names of the left side stand for.
    pub names: Vec<(String, String)>,
}

/// A place where a rule does not fire, but its outermost op is there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Miss {
    /// ONNX nodes that the left side describes as far as it fits.
    pub nodes: Vec<String>,
    /// Ops of the left side that fit.
    pub n_matched: usize,
    pub reason: String,
}

/// What one rule does in a graph.
#[derive(Clone, Debug, Default)]
pub struct Probe {
    pub firings: Vec<Firing>,
    /// By falling number of ops that fit.
    pub misses: Vec<Miss>,
    /// Ops of the left side.
    pub n_ops: usize,
}

impl Probe {
    fn finished(mut self) -> Self {
        let mut seen = BTreeSet::new();
        self.misses
            .retain(|miss| seen.insert((miss.nodes.clone(), miss.reason.clone())));
        self.misses.sort_by_key(|miss| std::cmp::Reverse(miss.n_matched));
        self
    }

    /// With what another pass over the graph saw.
    pub fn joined(mut self, other: Probe) -> Probe {
        self.firings.extend(other.firings);
        self.misses.extend(other.misses);
        self.n_ops = self.n_ops.max(other.n_ops);
        self.finished()
    }
}

/// Ops of a term.
fn n_ops(term: &Term) -> usize {
    let mut n_ops = 0;
    term.walk(&mut |term| n_ops += usize::from(matches!(term, Term::Op(_))));
    n_ops
}

/// What a rule that replaces does while `graph` is brought into canonical form, which is
/// returned too.
pub fn probe_canonical(graph: &Graph, rules: &RuleSet, rule: &Rule) -> (Graph, Probe) {
    let mut watcher = Watcher::new(rules, rule);
    let graph = canonicalize_watched(graph, rules, &mut watcher);
    (graph, watcher.probe.finished())
}

/// What a rule of the model phase does in an imported model.
pub fn probe_model(graph: &Graph, rules: &RuleSet, rule: &Rule) -> Probe {
    let mut watcher = Watcher::new(rules, rule);
    rewrite_model_watched(graph, rules, Some(&mut watcher));
    watcher.probe.finished()
}

struct Watcher<'a> {
    rules: &'a RuleSet,
    rule: &'a Rule,
    probe: Probe,
}

impl<'a> Watcher<'a> {
    fn new(rules: &'a RuleSet, rule: &'a Rule) -> Self {
        Watcher {
            rules,
            rule,
            probe: Probe {
                n_ops: n_ops(&rule.left),
                ..Probe::default()
            },
        }
    }
}

impl Watch for Watcher<'_> {
    fn rule(&self) -> &Rule {
        self.rule
    }

    fn fired(&mut self, work: &WorkGraph, nodes: &[NodeId], names: &Bindings) {
        let speaker = Speaker {
            rules: self.rules,
            facts: work,
        };
        self.probe.firings.push(Firing {
            nodes: origins(work, nodes),
            names: shown(&speaker, names),
        });
    }

    fn missed(&mut self, work: &WorkGraph, miss: NearMiss) {
        self.probe.misses.push(Miss {
            nodes: origins(work, &miss.nodes),
            n_matched: miss.nodes.len(),
            reason: miss.reason,
        });
    }

    fn rules(&self) -> &RuleSet {
        self.rules
    }
}

/// Names of the ONNX nodes behind nodes; of their results in a graph that has no such names.
fn origins(work: &WorkGraph, nodes: &[NodeId]) -> Vec<String> {
    let names = nodes.iter().flat_map(|&id| {
        let node = work.graph.node(id);
        if node.origin.is_empty() {
            let result = &work.graph.value(node.results[0]).name;
            vec![result.clone()]
        } else {
            node.origin.clone()
        }
    });
    once(names.filter(|name| !name.is_empty()))
}

fn shown(speaker: &Speaker<'_>, names: &Bindings) -> Vec<(String, String)> {
    let mut seen = BTreeSet::new();
    names
        .iter()
        .filter(|(name, _)| seen.insert(name.clone()))
        .map(|(name, binding)| (name.clone(), speaker.shown_binding(binding)))
        .collect()
}

/// What a rule of the e-graph does in a canonical graph.
///
/// # Errors
/// If a rule is wrong.
pub fn probe_terms(graph: &Graph, rules: &RuleSet, rule: &Rule) -> Result<Probe, RewriteError> {
    let mut terms = TermGraph::new(graph);
    saturate(&mut terms, rules)?;
    let sides = match rule.arrow {
        Arrow::Both => vec![&rule.left, &rule.right],
        Arrow::Rewrite | Arrow::Merge | Arrow::Replace => vec![&rule.left],
    };
    let places = Places::of(&terms, graph);
    let facts = TermFacts { terms: &terms.terms };
    let speaker = Speaker { rules, facts: &facts };
    let mut probe = Probe {
        n_ops: n_ops(&rule.left),
        ..Probe::default()
    };
    for found in sides
        .into_iter()
        .flat_map(|side| ematch::search(&terms.terms, side, false))
    {
        let mut names = found.names.clone();
        let unmet = speaker.unmet(&rule.lets, &rule.conditions, &mut names);
        probe.add(&places, &found, unmet, &speaker);
    }
    Ok(probe.finished())
}

impl Probe {
    fn add(&mut self, places: &Places, found: &Match, unmet: Option<String>, speaker: &Speaker<'_>) {
        let nodes = places.nodes(found);
        match unmet {
            None => self.firings.push(Firing {
                nodes,
                names: shown(speaker, &found.names),
            }),
            Some(reason) => self.misses.push(Miss {
                nodes,
                n_matched: found.from.len(),
                reason,
            }),
        }
    }
}

/// What a horizontal rule does in a canonical graph: a firing is a group of siblings.
///
/// # Errors
/// If a rule is wrong.
pub fn probe_siblings(graph: &Graph, rules: &RuleSet, rule: &Horizontal) -> Result<Probe, RewriteError> {
    let mut alone = rules.clone();
    // What other rules join is not there to be seen by this one.
    alone.horizontals.clear();
    let mut terms = TermGraph::new(graph);
    saturate(&mut terms, &alone)?;
    let places = Places::of(&terms, graph);
    let facts = TermFacts { terms: &terms.terms };
    let speaker = Speaker { rules, facts: &facts };
    let mut probe = Probe {
        n_ops: n_ops(&rule.pattern),
        ..Probe::default()
    };
    let mut joined: BTreeSet<Id> = BTreeSet::new();
    for (_, group) in siblings::groups(&terms, rule).0 {
        joined.extend(group.iter().map(|sibling| sibling.root));
        probe.firings.push(Firing {
            nodes: once(group.iter().flat_map(|sibling| places.nodes(sibling))),
            names: shown(&speaker, &group[0].names),
        });
    }
    for mut found in ematch::search(&terms.terms, &rule.pattern, false) {
        if joined.contains(&found.root) {
            continue;
        }
        found
            .names
            .shadow(&rule.sibling.text, Binding::Value(handle(found.root)));
        let unmet = sibling_unmet(&speaker, rule, &mut found.names);
        probe.misses.push(Miss {
            nodes: places.nodes(&found),
            n_matched: found.from.len(),
            reason: unmet.unwrap_or_else(|| "no other use of the pattern shares its operands".to_owned()),
        });
    }
    Ok(probe.finished())
}

/// What keeps one match of the pattern from being a sibling.
fn sibling_unmet(speaker: &Speaker<'_>, rule: &Horizontal, names: &mut Bindings) -> Option<String> {
    for entry in rule
        .lets
        .iter()
        .filter(|entry| !siblings::is_over_siblings(&entry.value))
    {
        match evaluate(&entry.value, names, speaker.facts) {
            Some(Value::Bound(binding)) => names.shadow(&entry.name.text, binding),
            Some(Value::Bool(_)) | None => return Some(format!("`{}` cannot be computed", entry.name.text)),
        }
    }
    let mut own = rule
        .conditions
        .iter()
        .filter(|condition| !siblings::is_over_siblings(condition));
    let failed = own.find(|condition| !holds(condition, names, speaker.facts))?;
    Some(speaker.failed(failed, names))
}

/// Names of the ONNX nodes behind classes of an e-graph.
struct Places {
    by_class: BTreeMap<Id, Vec<String>>,
}

impl Places {
    /// A class comes from the nodes imported into it; one that rules made, from where their
    /// left sides were.
    fn of(terms: &TermGraph, graph: &Graph) -> Self {
        let mut by_class: BTreeMap<Id, Vec<String>> = BTreeMap::new();
        let class_of = |enode: &super::egraph::language::Enode| {
            terms.terms.lookup(enode.clone()).map(|id| terms.terms.find(id))
        };
        for (enode, node) in &terms.imported {
            if let Some(class) = class_of(enode) {
                let names = graph.nodes[*node].origin.iter().cloned();
                by_class.entry(class).or_default().extend(names);
            }
        }
        for made in &terms.made {
            let Some(class) = class_of(&made.enode) else {
                continue;
            };
            if by_class.contains_key(&class) {
                continue;
            }
            let from = made
                .from
                .iter()
                .filter_map(|&id| by_class.get(&terms.terms.find(id)));
            let names = once(from.flatten().cloned());
            if !names.is_empty() {
                by_class.insert(class, names);
            }
        }
        for names in by_class.values_mut() {
            *names = once(std::mem::take(names).into_iter());
        }
        Places { by_class }
    }

    fn nodes(&self, found: &Match) -> Vec<String> {
        let classes = std::iter::once(&found.root).chain(&found.from);
        once(
            classes
                .filter_map(|class| self.by_class.get(class))
                .flatten()
                .cloned(),
        )
    }
}
