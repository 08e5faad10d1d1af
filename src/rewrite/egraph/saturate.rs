//! Running rules on the e-graph until nothing changes or a count runs out.
//!
//! Every round searches all rules first and applies their matches afterwards, in rule order,
//! so that a match does not depend on what its neighbours did. Limits are counts, never
//! clocks: the same graph gives the same plan on every machine.

use std::collections::BTreeSet;

use rayon::prelude::*;

use super::asking::{Asked, Asking};
use super::ebuild::Builder;
use super::ematch::{self, Match};
use super::language::Head as TermHead;
use super::siblings;
use super::term_facts::TermFacts;
use super::term_graph::TermGraph;
use super::unite::unite;
use crate::rewrite::conditions;
use crate::rewrite::error::RewriteError;
use crate::rewrite::rules::ast::{Arrow, Expr, Header, Let, Phase, Term};
use crate::rewrite::rules::set::RuleSet;
use crate::rewrite::rules::structure::is_free;

/// How far a phase may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fuel {
    pub rounds: usize,
    /// Distinct nodes of the e-graph at which no more matches are applied.
    pub nodes: usize,
}

/// What a run did, for reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// For each rule of the run's list: matches that changed the e-graph.
    pub fired: Vec<usize>,
    pub rounds: usize,
    /// Whether a limit stopped a phase before nothing was left to do.
    pub ran_out: bool,
}

/// A rule in one direction.
struct Directed<'a> {
    number: usize,
    header: &'a Header,
    left: &'a Term,
    right: &'a Term,
    lets: &'a [Let],
    conditions: &'a [Expr],
    is_forward: bool,
    /// Whether extents play no part in it.
    is_free: bool,
}

/// Headers of every rule and horizontal that the e-graph runs; their positions are the
/// numbers that provenance uses.
pub fn rule_list(rules: &RuleSet) -> Vec<&Header> {
    let plain = rules.of_terms().map(|rule| &rule.header);
    plain
        .chain(rules.horizontals.iter().map(|rule| &rule.header))
        .collect()
}

/// Runs algebra, then each horizontal once, then algebra again, lowering and fusing.
///
/// # Errors
/// If a rule equates values of different types.
pub fn saturate(graph: &mut TermGraph, rules: &RuleSet) -> Result<Tally, RewriteError> {
    let n_start = graph.n_nodes();
    let mut tally = Tally {
        fired: vec![0; rule_list(rules).len()],
        ..Tally::default()
    };
    let algebra = Fuel {
        rounds: 8,
        nodes: (30 * n_start).clamp(5_000, 50_000).max(2 * n_start),
    };
    run_phases(graph, rules, &[Phase::Algebra], algebra, &mut tally)?;
    run_horizontals(graph, rules, &mut tally)?;
    run_phases(graph, rules, &[Phase::Algebra], algebra, &mut tally)?;
    let tiles = Fuel {
        rounds: 8,
        nodes: 16 * graph.n_nodes() + 1_000,
    };
    run_phases(graph, rules, &[Phase::Lower], tiles, &mut tally)?;
    run_phases(graph, rules, &[Phase::Fuse, Phase::View], tiles, &mut tally)?;
    Ok(tally)
}

fn directed<'a>(rules: &'a RuleSet, phases: &[Phase]) -> Vec<Directed<'a>> {
    let mut list = Vec::new();
    for (number, rule) in rules
        .of_terms()
        .enumerate()
        .filter(|(_, rule)| phases.contains(&rule.header.phase))
    {
        let sides = [(true, &rule.left, &rule.right), (false, &rule.right, &rule.left)];
        let n_ways = if rule.arrow == Arrow::Both { 2 } else { 1 };
        for (is_forward, left, right) in sides.into_iter().take(n_ways) {
            list.push(Directed {
                number,
                header: &rule.header,
                left,
                right,
                lets: &rule.lets,
                conditions: &rule.conditions,
                is_forward,
                is_free: is_free(rule, left, right),
            });
        }
    }
    list
}

fn run_phases(
    graph: &mut TermGraph,
    rules: &RuleSet,
    phases: &[Phase],
    fuel: Fuel,
    tally: &mut Tally,
) -> Result<(), RewriteError> {
    let rules = directed(rules, phases);
    for _ in 0..fuel.rounds {
        let searched = &*graph;
        let found: Vec<(usize, Vec<Admitted>)> = rules
            .par_iter()
            .enumerate()
            .map(|(number, rule)| (number, admitted(searched, rule)))
            .collect();
        let mut changed = false;
        let most_made = graph.n_made() + fuel.nodes.saturating_sub(graph.n_nodes());
        for (number, matches) in found {
            for found in matches {
                if graph.n_made() > most_made {
                    tally.ran_out = true;
                    break;
                }
                if tried(graph, &rules[number], found)? {
                    tally.fired[rules[number].number] += 1;
                    changed = true;
                }
            }
        }
        graph.terms.rebuild();
        tally.rounds += 1;
        if !changed || tally.ran_out {
            return Ok(());
        }
    }
    tally.ran_out = true;
    Ok(())
}

/// A match, and whether lets can be computed and conditions hold there.
struct Admitted {
    found: Match,
    /// Where the graph is recorded, the match as it was found, and what was asked of it.
    recorded: Option<(Match, Vec<Asked>)>,
    holds: bool,
}

/// Matches for which lets can be computed and conditions hold; where the graph is recorded, the others of rules that
/// ask for extents, too.
fn admitted(graph: &TermGraph, rule: &Directed<'_>) -> Vec<Admitted> {
    let facts = TermFacts { terms: &graph.terms };
    let is_recorded = graph.record.is_some();
    let matches = ematch::search(&graph.terms, rule.left, is_recorded).into_iter();
    if !is_recorded || rule.is_free {
        let holds =
            |found: &mut Match| conditions::admit(rule.lets, rule.conditions, &mut found.names, &facts);
        return matches
            .filter_map(|mut found| {
                holds(&mut found).then_some(Admitted {
                    found,
                    recorded: None,
                    holds: true,
                })
            })
            .collect();
    }
    let asked = |mut found: Match| {
        let facts = Asking::new(TermFacts { terms: &graph.terms });
        let before = found.clone();
        let holds = conditions::admit(rule.lets, rule.conditions, &mut found.names, &facts);
        Admitted {
            found,
            recorded: Some((before, facts.asked())),
            holds,
        }
    };
    matches.map(asked).collect()
}

/// Applies a rule where it holds, and records that it was tried.
fn tried(graph: &mut TermGraph, rule: &Directed<'_>, own: Admitted) -> Result<bool, RewriteError> {
    let Admitted {
        found,
        recorded,
        holds,
    } = own;
    let nodes = found.nodes.clone();
    let changed = holds && apply(graph, rule, found)?;
    let Some(record) = &mut graph.record else {
        return Ok(changed);
    };
    match recorded {
        Some((before, asked)) => record.tried(rule.number, rule.is_forward, &before, asked, holds),
        None => record.copied(rule.left, &nodes),
    }
    Ok(changed)
}

fn apply(graph: &mut TermGraph, rule: &Directed<'_>, found: Match) -> Result<bool, RewriteError> {
    let n_made = graph.n_made();
    let mut builder = Builder {
        graph,
        names: found.names,
        rule: rule.number,
        from: found.from,
    };
    let Some(right) = builder.term(rule.right) else {
        return Ok(false);
    };
    if let Some(node) = found.node.filter(|node| node.head == TermHead::Load) {
        graph.fused.push((node.data, node.children[0], rule.number));
    }
    let merged = unite(graph, found.root, right, rule.header)?;
    if let Some(record) = &mut graph.record {
        record.is_built = true;
    }
    Ok(merged || graph.n_made() > n_made)
}

/// Groups of all rules are found before any is merged, so that a rule does not join what
/// another one has just joined; what an earlier rule joins, later ones leave alone.
fn run_horizontals(graph: &mut TermGraph, rules: &RuleSet, tally: &mut Tally) -> Result<(), RewriteError> {
    let first = rules.of_terms().count();
    let mut groups = Vec::new();
    for rule in &rules.horizontals {
        let (own, seen) = siblings::groups(graph, rule);
        if let Some(record) = &mut graph.record {
            record.seen(seen);
        }
        groups.push(own);
    }
    let mut joined: BTreeSet<egg::Id> = BTreeSet::new();
    for (offset, (rule, groups)) in rules.horizontals.iter().zip(groups).enumerate() {
        for (number, mut group) in groups {
            group.retain(|sibling| sibling.from.iter().all(|class| !joined.contains(class)));
            if group.len() < 2 {
                continue;
            }
            let merged = siblings::merge(graph, rule, first + offset, &group)?;
            if let Some(record) = &mut graph.record {
                record.joined(offset, number, &group);
            }
            if merged {
                tally.fired[first + offset] += 1;
                joined.extend(group.iter().flat_map(|sibling| &sibling.from));
            }
        }
        graph.terms.rebuild();
    }
    Ok(())
}
