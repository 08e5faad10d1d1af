//! Which rule makes what another one looks for.
//!
//! Rule A enables rule B where the right side of A holds an op that the left side of B asks
//! for, and B still runs after A has: rules of a phase run together, with those of the phases
//! before it. This is about spellings, so it says what may follow, not what will.

use std::collections::BTreeSet;

use super::work_graph::kind_name;
use crate::rewrite::rules::ast::{Arrow, Head, Header, Phase, Term};
use crate::rewrite::rules::set::RuleSet;

/// One rule enables another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    pub from: String,
    pub to: String,
    /// Ops that the one makes and the other asks for; families by their word.
    pub ops: Vec<String>,
}

/// All pairs of rules of which the first enables the second, by name.
pub fn edges(rules: &RuleSet) -> Vec<Edge> {
    let all = sides(rules);
    let mut edges = Vec::new();
    for from in &all {
        for to in all.iter().filter(|to| runs_after(from.header, to.header)) {
            let ops: BTreeSet<String> = from
                .makes
                .iter()
                .filter(|made| to.asks.iter().any(|asked| fits(made, asked)))
                .cloned()
                .collect();
            if !ops.is_empty() {
                edges.push(Edge {
                    from: from.header.name.text.clone(),
                    to: to.header.name.text.clone(),
                    ops: ops.into_iter().collect(),
                });
            }
        }
    }
    edges.sort();
    edges
}

/// What a rule asks for and makes.
struct Sides<'a> {
    header: &'a Header,
    asks: BTreeSet<String>,
    makes: BTreeSet<String>,
}

fn sides(rules: &RuleSet) -> Vec<Sides<'_>> {
    let plain = rules.rules.iter().map(|rule| {
        let (mut asks, mut makes) = (ops(&rule.left), ops(&rule.right));
        if rule.arrow == Arrow::Both {
            let both: BTreeSet<String> = asks.union(&makes).cloned().collect();
            (asks, makes) = (both.clone(), both);
        }
        Sides {
            header: &rule.header,
            asks,
            makes,
        }
    });
    let joined = rules.horizontals.iter().map(|rule| Sides {
        header: &rule.header,
        asks: ops(&rule.pattern),
        makes: rule.bindings.iter().flat_map(|(_, term)| ops(term)).collect(),
    });
    plain.chain(joined).collect()
}

fn ops(term: &Term) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    term.walk(&mut |term| {
        if let Term::Op(op) = term {
            names.insert(match &op.head {
                Head::Op(name) | Head::Tile(name) => name.text.clone(),
                Head::Family { kind, .. } => format!("{}[..]", kind.text),
            });
        }
    });
    names
}

/// Whether an op, or one of a family, may be what is asked for.
fn fits(made: &str, asked: &str) -> bool {
    let family = |name: &str| name.strip_suffix("[..]").map(str::to_owned);
    match (family(made), family(asked)) {
        (None, None) | (Some(_), Some(_)) => made == asked,
        (None, Some(kind)) => kind_name(made) == Some(&kind),
        (Some(kind), None) => kind_name(asked) == Some(&kind),
    }
}

/// Phases before the e-graph run again with every later one of them; those in it run once, and so
/// does that of the model.
fn runs_after(from: &Header, to: &Header) -> bool {
    from.phase <= to.phase
        || (from.phase <= Phase::Layout && (Phase::Canonical..=Phase::Layout).contains(&to.phase))
}
