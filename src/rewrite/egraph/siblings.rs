//! Horizontal fusion: all uses of a pattern that share operands become one larger use.
//!
//! The pattern is matched everywhere and matches are grouped by what the unsuffixed names
//! stand for; names ending in `_i` differ per sibling. A group is merged in one step,
//! whatever its size, and both forms stay in the e-graph.

use std::collections::BTreeMap;

use egg::Id;

use super::asking::Asking;
use super::ebuild::{Builder, Ground};
use super::ematch::{self, Match};
use super::record::{Sibling, Site};
use super::term_facts::{TermFacts, handle};
use super::term_graph::TermGraph;
use crate::ir::Attr;
use crate::rewrite::conditions;
use crate::rewrite::conditions::facts::{Binding, Bindings, Facts, Handle};
use crate::rewrite::conditions::values::Value;
use crate::rewrite::error::RewriteError;
use crate::rewrite::rules::ast::{Expr, ExprKind, Head, Horizontal, OpTerm, Term};

/// Functions over all siblings; see `condition_functions::SIBLING_FUNCTIONS`.
const OVER_SIBLINGS: [&str; 3] = ["prefix", "total", "siblings"];

/// Suffix of names that differ per sibling.
const SUFFIX: &str = "_i";

/// Siblings, and the number of the first match among them.
pub type Group = (usize, Vec<Match>);

/// The groups of two or more siblings, by their first match, and all matches.
pub fn groups(graph: &TermGraph, rule: &Horizontal) -> (Vec<Group>, Vec<Sibling>) {
    let mut by_shared: BTreeMap<String, Group> = BTreeMap::new();
    let mut seen = Vec::new();
    let found = ematch::search(&graph.terms, &rule.pattern, graph.record.is_some());
    for (order, mut own) in found.into_iter().enumerate() {
        let facts = Asking::new(TermFacts { terms: &graph.terms });
        let site = Site::of(&own);
        let group = admitted(rule, &mut own, &facts).map(|key| {
            let group = by_shared.entry(key).or_insert((order, Vec::new()));
            if group.1.iter().all(|sibling| sibling.root != own.root) {
                group.1.push(own);
            }
            group.0
        });
        seen.push(Sibling {
            site,
            asked: facts.asked(),
            group,
        });
    }
    let mut groups: Vec<Group> = by_shared.into_values().collect();
    groups.sort_by_key(|(order, _)| *order);
    groups.retain(|(_, group)| group.len() > 1);
    (groups, seen)
}

/// Adds what the rule computes for one sibling to its names, and tells what it shares with its like; `None` where it may
/// not be joined.
pub fn admitted(rule: &Horizontal, found: &mut Match, facts: &dyn Facts) -> Option<String> {
    let names = &mut found.names;
    names.shadow(&rule.sibling.text, Binding::Value(handle(found.root)));
    for entry in rule.lets.iter().filter(|entry| !is_over_siblings(&entry.value)) {
        match conditions::evaluate(&entry.value, names, facts)? {
            Value::Bound(binding) => names.shadow(&entry.name.text, binding),
            Value::Bool(_) => return None,
        }
    }
    let mut own = rule
        .conditions
        .iter()
        .filter(|condition| !is_over_siblings(condition));
    if !own.all(|condition| conditions::holds(condition, names, facts)) {
        return None;
    }
    let shared = shared_names(&rule.pattern);
    let key: Vec<_> = shared.iter().map(|name| names.get(name)).collect();
    Some(format!("{key:?}"))
}

/// Names of a pattern without the suffix.
fn shared_names(pattern: &Term) -> Vec<String> {
    let mut names = Vec::new();
    pattern.walk(&mut |term| {
        let own: Vec<&str> = match term {
            Term::Var(name) | Term::Optional { name, .. } => vec![&name.text],
            Term::Op(op) => family_name(op)
                .into_iter()
                .chain(op.attrs.iter().filter_map(attr_name))
                .collect(),
            Term::Each(_) | Term::Scalar { .. } => Vec::new(),
        };
        names.extend(
            own.into_iter()
                .filter(|name| !name.ends_with(SUFFIX))
                .map(str::to_owned),
        );
    });
    names
}

/// The name that stands for an op of a family.
fn family_name(op: &OpTerm) -> Option<&str> {
    match &op.head {
        Head::Family { binding, .. } => Some(&binding.text),
        Head::Op(_) | Head::Tile(_) => None,
    }
}

fn attr_name(item: &crate::rewrite::rules::ast::AttrItem) -> Option<&str> {
    match item {
        crate::rewrite::rules::ast::AttrItem::Bare(name) => Some(&name.text),
        crate::rewrite::rules::ast::AttrItem::Named { value, .. } => match &value.kind {
            ExprKind::Name(name) => Some(name),
            _ => None,
        },
    }
}

/// Whether an expression calls a function over all siblings.
pub fn is_over_siblings(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Call { function, args } => {
            OVER_SIBLINGS.contains(&function.text.as_str()) || args.iter().any(is_over_siblings)
        }
        ExprKind::Not(inner) | ExprKind::Negate(inner) => is_over_siblings(inner),
        ExprKind::Binary { left, right, .. } => is_over_siblings(left) || is_over_siblings(right),
        ExprKind::In { value, set } => is_over_siblings(value) || set.iter().any(is_over_siblings),
        ExprKind::List(items) => items.iter().any(is_over_siblings),
        ExprKind::Int(_) | ExprKind::Float(_) | ExprKind::Str(_) | ExprKind::DType(_) | ExprKind::Name(_) => {
            false
        }
    }
}

/// Adds the merged form of a group and makes each sibling equal to its part of it.
///
/// # Errors
/// If the parts have other types than the siblings.
pub fn merge<G: Ground>(
    graph: &mut G,
    rule: &Horizontal,
    number: usize,
    group: &[Match],
) -> Result<bool, RewriteError> {
    let Some((own, shared)) = rule.bindings.split_last() else {
        return Ok(false);
    };
    let mut names = shared_bindings(rule, group);
    let over = Over { rule, group };
    if !over.conditions_hold(graph, &names) {
        return Ok(false);
    }
    let from = group
        .iter()
        .flat_map(|sibling| sibling.from.iter().copied())
        .collect();
    let mut builder = Builder {
        graph,
        names: names.clone(),
        rule: number,
        from,
    };
    for (name, term) in shared {
        let term = over.resolved(builder.graph, term, None);
        let Some(id) = term.and_then(|term| builder.term(&term)) else {
            return Ok(false);
        };
        names.shadow(&name.text, Binding::Value(handle(id)));
        builder.names = names.clone();
    }
    let mut parts: Vec<(Id, Id)> = Vec::new();
    for (position, sibling) in group.iter().enumerate() {
        let names = sibling_bindings(&names, rule, sibling);
        let term = over.resolved(builder.graph, &own.1, Some(position));
        builder.names = names;
        let Some(part) = term.and_then(|term| builder.term(&term)) else {
            return Ok(false);
        };
        parts.push((sibling.root, part));
    }
    let mut merged = false;
    for (root, part) in parts {
        merged |= graph.unite(root, part, &rule.header)?;
    }
    Ok(merged)
}

/// Names with the suffix, which occur in the pattern or in lets.
fn suffixed(rule: &Horizontal) -> Vec<String> {
    let mut names = Vec::new();
    rule.pattern.walk(&mut |term| match term {
        Term::Var(name) | Term::Optional { name, .. } => names.push(name.text.clone()),
        Term::Op(op) => {
            names.extend(op.attrs.iter().filter_map(attr_name).map(str::to_owned));
            names.extend(op.label.iter().map(|label| label.text.clone()));
        }
        Term::Each(_) | Term::Scalar { .. } => {}
    });
    names.extend(rule.lets.iter().map(|entry| entry.name.text.clone()));
    names.push(rule.sibling.text.clone());
    names.retain(|name| name.ends_with(SUFFIX));
    names
}

/// The shared names, and the suffixed ones as lists over the siblings.
fn shared_bindings(rule: &Horizontal, group: &[Match]) -> Bindings {
    let mut names = group[0].names.clone();
    for name in suffixed(rule) {
        let values: Option<Vec<Handle>> = group.iter().map(|sibling| sibling.names.value(&name)).collect();
        if let Some(values) = values {
            names.shadow(&name, Binding::Many(values));
        }
    }
    names
}

fn sibling_bindings(shared: &Bindings, rule: &Horizontal, sibling: &Match) -> Bindings {
    let mut names = shared.clone();
    for name in suffixed(rule) {
        if let Some(binding) = sibling.names.get(&name) {
            names.shadow(&name, binding.clone());
        }
    }
    names
}

/// Evaluates what depends on all siblings.
struct Over<'a> {
    rule: &'a Horizontal,
    group: &'a [Match],
}

impl Over<'_> {
    fn conditions_hold(&self, graph: &mut impl Ground, names: &Bindings) -> bool {
        let over = self
            .rule
            .conditions
            .iter()
            .filter(|condition| is_over_siblings(condition));
        over.into_iter().all(|condition| {
            self.expr(graph, condition, None)
                .and_then(|condition| graph.evaluate(&condition, names))
                == Some(Value::Bool(true))
        })
    }

    /// `term` with sibling functions replaced by their values.
    fn resolved(&self, graph: &mut impl Ground, term: &Term, at: Option<usize>) -> Option<Term> {
        Some(match term {
            Term::Op(op) => {
                let mut op = op.clone();
                for item in &mut op.attrs {
                    if let crate::rewrite::rules::ast::AttrItem::Named { value, .. } = item {
                        *value = self.expr(graph, value, at)?;
                    }
                }
                op.operands = op
                    .operands
                    .iter()
                    .map(|operand| self.resolved(graph, operand, at))
                    .collect::<Option<_>>()?;
                Term::Op(op)
            }
            Term::Each(inner) => Term::Each(Box::new(self.resolved(graph, inner, at)?)),
            Term::Var(_) | Term::Optional { .. } | Term::Scalar { .. } => term.clone(),
        })
    }

    /// `expr` with sibling functions replaced by their values at sibling number `at`.
    fn expr<G: Ground>(&self, graph: &mut G, expr: &Expr, at: Option<usize>) -> Option<Expr> {
        let mut again = |inner: &Expr| self.expr(graph, inner, at);
        let kind = match &expr.kind {
            ExprKind::Call { function, args } => match function.text.as_str() {
                "prefix" => ExprKind::Int(self.sum(graph, args.first()?, at?)?),
                "total" => ExprKind::Int(self.sum(graph, args.first()?, self.group.len())?),
                "siblings" => ExprKind::Int(i64::try_from(self.group.len()).ok()?),
                _ => ExprKind::Call {
                    function: function.clone(),
                    args: args.iter().map(&mut again).collect::<Option<_>>()?,
                },
            },
            ExprKind::Not(inner) => ExprKind::Not(Box::new(again(inner)?)),
            ExprKind::Negate(inner) => ExprKind::Negate(Box::new(again(inner)?)),
            ExprKind::Binary { op, left, right } => ExprKind::Binary {
                op: *op,
                left: Box::new(again(left)?),
                right: Box::new(again(right)?),
            },
            ExprKind::In { value, set } => ExprKind::In {
                value: Box::new(again(value)?),
                set: set.iter().map(&mut again).collect::<Option<_>>()?,
            },
            ExprKind::List(items) => ExprKind::List(items.iter().map(&mut again).collect::<Option<_>>()?),
            ExprKind::Int(_)
            | ExprKind::Float(_)
            | ExprKind::Str(_)
            | ExprKind::DType(_)
            | ExprKind::Name(_) => expr.kind.clone(),
        };
        Some(Expr {
            kind,
            span: expr.span,
        })
    }

    /// Sum of an integer expression over the first `n` siblings.
    fn sum(&self, graph: &mut impl Ground, expr: &Expr, n: usize) -> Option<i64> {
        let mut sum = 0;
        for sibling in &self.group[..n] {
            match graph.evaluate(expr, &sibling.names)? {
                Value::Bound(Binding::Attr(Attr::Int(value))) => sum += value,
                Value::Bound(_) | Value::Bool(_) => return None,
            }
        }
        Some(sum)
    }
}
