//! What a chosen kernel saves, and how the candidates that lost differ from it.

use std::collections::BTreeMap;

use super::cones::Candidate;
use super::cost::{DeviceRates, work_of};
use super::net::{Net, NetExpr};
use super::regions::{Explanation, Rejected, RuleUse};
use crate::ir::Graph;

/// Candidates told of per kernel.
const MAX_REJECTED: usize = 3;

/// What regions are named and explained with.
pub struct Names<'a> {
    /// The imported graph: names of inputs, outputs and nodes.
    pub graph: &'a Graph,
    /// Rules of the e-graph, by number.
    pub rules: &'a [RuleUse],
    /// Rules that ran before the e-graph, by name.
    pub places: &'a BTreeMap<String, String>,
}

impl Names<'_> {
    /// Names of the ONNX nodes that an expression stands for.
    pub fn origin_of(&self, expr: &NetExpr) -> Vec<String> {
        let nodes = expr.nodes.iter().map(|&node| &self.graph.nodes[node]);
        once(nodes.flat_map(|node| node.origin.iter().cloned()))
    }

    /// Names of the rules that made an expression, those before the e-graph first.
    pub fn rules_of(&self, expr: &NetExpr) -> Vec<String> {
        let nodes = expr.nodes.iter().map(|&node| &self.graph.nodes[node]);
        let before = nodes.flat_map(|node| node.rules.iter().cloned());
        let here = expr.rules.iter().map(|&rule| self.rules[rule].name.clone());
        once(before.chain(here))
    }
}

/// A candidate of the plan, and the others with their losses, by rising loss.
pub struct Choice<'a> {
    pub candidate: &'a Candidate,
    pub rejected: Vec<(&'a Candidate, f64)>,
}

/// Why `choice` was made.
pub fn explained(net: &Net, choice: &Choice<'_>, names: &Names<'_>, device: &DeviceRates) -> Explanation {
    let own = choice.candidate;
    let single = |(&tensor, &expr): (&usize, &usize)| {
        let alone = BTreeMap::from([(tensor, expr)]);
        work_of(net, &net.exprs[expr].results, &alone, |_| true, device).bytes
    };
    let apart: f64 = own.inlined.iter().map(single).sum();
    let n_launches = own
        .inlined
        .values()
        .filter(|&&expr| net.exprs[expr].op != "reshape")
        .count();
    let rejected = choice.rejected.iter().take(MAX_REJECTED);
    Explanation {
        saved_launches: n_launches.saturating_sub(1),
        saved_bytes: whole(apart - own.bytes),
        rejected: rejected
            .map(|&(other, lost_us)| rejected_for(net, own, other, names, lost_us))
            .collect(),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "bytes are whole and few"
)]
fn whole(bytes: f64) -> u64 {
    bytes.max(0.0).round() as u64
}

fn rejected_for(net: &Net, own: &Candidate, other: &Candidate, names: &Names<'_>, lost_us: f64) -> Rejected {
    let only = |here: &Candidate, there: &Candidate| {
        let exprs = here
            .inlined
            .iter()
            .filter(|(tensor, _)| !there.inlined.contains_key(tensor));
        nodes(net, exprs.map(|(_, &expr)| expr), names)
    };
    let other_forms = other
        .inlined
        .iter()
        .filter(|(tensor, expr)| own.inlined.get(tensor).is_some_and(|taken| taken != *expr));
    Rejected {
        without: only(own, other),
        with: only(other, own),
        rules: once(other_forms.flat_map(|(_, &expr)| names.rules_of(&net.exprs[expr]))),
        lost_us,
    }
}

/// Names of the ONNX nodes behind expressions; their ops where they have none.
fn nodes(net: &Net, exprs: impl Iterator<Item = usize>, names: &Names<'_>) -> Vec<String> {
    once(exprs.flat_map(|expr| {
        let origin = names.origin_of(&net.exprs[expr]);
        if origin.is_empty() {
            vec![net.exprs[expr].op.to_owned()]
        } else {
            origin
        }
    }))
}

/// Each name once, in order of first appearance.
pub fn once(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for name in names {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}
