//! What the text of a rule says of extents.

use super::ast::{Arrow, AttrItem, BinaryOp, Expr, ExprKind, Head, OpTerm, Rule, Term};
use super::set::RuleSet;

/// Functions of conditions whose answers are the same in every shape of a graph.
const FREE_FUNCTIONS: [&str; 4] = ["kind", "consumers", "flops", "const"];

/// Which op of a pattern, outermost first, binds a name.
pub fn place_of(pattern: &Term, name: &str) -> Option<usize> {
    ops_of(pattern)
        .iter()
        .position(|op| bound_by(op).any(|own| own == name))
}

/// The ops of a pattern in the order in which they are matched.
fn ops_of(pattern: &Term) -> Vec<&OpTerm> {
    let mut ops = Vec::new();
    pattern.walk(&mut |term| {
        if let Term::Op(op) = term {
            ops.push(op);
        }
    });
    ops
}

/// Names of a pattern's op that stand for attributes.
fn bound_by(op: &OpTerm) -> impl Iterator<Item = &str> {
    let family = match &op.head {
        Head::Family { binding, .. } => Some(binding.text.as_str()),
        Head::Op(_) | Head::Tile(_) => None,
    };
    let named = op.attrs.iter().filter_map(|item| match item {
        AttrItem::Bare(name) => Some(name.text.as_str()),
        AttrItem::Named { value, .. } => match &value.kind {
            ExprKind::Name(name) => Some(name.as_str()),
            _ => None,
        },
    });
    family.into_iter().chain(named)
}

/// Whether no pattern of the e-graph's rules compares attributes or constants: then where they match, but for
/// conditions, is told by the structure of a graph.
pub fn are_structural(rules: &RuleSet) -> bool {
    let sides = rules
        .of_terms()
        .flat_map(|rule| [&rule.left, &rule.right].into_iter().take(n_patterns(rule)));
    sides
        .chain(rules.horizontals.iter().map(|rule| &rule.pattern))
        .all(is_structural)
}

fn n_patterns(rule: &Rule) -> usize {
    if rule.arrow == Arrow::Both { 2 } else { 1 }
}

fn is_structural(pattern: &Term) -> bool {
    let ops = ops_of(pattern);
    let mut is_plain = true;
    pattern.walk(&mut |term| {
        is_plain &= !matches!(term, Term::Scalar { .. });
        is_plain &= !matches!(term, Term::Each(inner) if matches!(**inner, Term::Op(_)));
    });
    let is_load = |op: &OpTerm| matches!(&op.head, Head::Tile(name) if name.text == "load");
    let attributed = || ops.iter().filter(|op| !is_load(op));
    let is_name = |item: &AttrItem| match item {
        AttrItem::Bare(_) => true,
        AttrItem::Named { value, .. } => matches!(value.kind, ExprKind::Name(_)),
    };
    let mut names: Vec<&str> = attributed().flat_map(|op| bound_by(op)).collect();
    let n_names = names.len();
    names.sort_unstable();
    names.dedup();
    is_plain && names.len() == n_names && attributed().all(|op| op.attrs.iter().all(is_name))
}

/// Whether extents play no part in a rule: it copies attributes, and asks for nothing that shapes decide.
pub fn is_free(rule: &Rule, left: &Term, right: &Term) -> bool {
    let ops = ops_of(left);
    let is_bare = |op: &&OpTerm| op.attrs.iter().all(|item| matches!(item, AttrItem::Bare(_)));
    let bound: Vec<&str> = ops.iter().flat_map(|op| bound_by(op)).collect();
    rule.lets.is_empty()
        && ops.iter().all(is_bare)
        && rule
            .conditions
            .iter()
            .all(|condition| asks_nothing(condition, &bound))
        && copies(right)
}

fn asks_nothing(expr: &Expr, bound: &[&str]) -> bool {
    let is_bound = |expr: &Expr| matches!(&expr.kind, ExprKind::Name(name) if bound.contains(&name.as_str()));
    match &expr.kind {
        ExprKind::Call { function, args } => {
            FREE_FUNCTIONS.contains(&function.text.as_str())
                && args.iter().all(|own| asks_nothing(own, bound))
        }
        ExprKind::Not(inner) | ExprKind::Negate(inner) => asks_nothing(inner, bound),
        ExprKind::Binary { op, left, right } => {
            let compares = matches!(op, BinaryOp::Equal | BinaryOp::NotEqual);
            asks_nothing(left, bound)
                && asks_nothing(right, bound)
                && !(compares && is_bound(left) && is_bound(right))
        }
        ExprKind::In { value, set } => {
            asks_nothing(value, bound) && set.iter().all(|own| asks_nothing(own, bound) && !is_bound(own))
        }
        ExprKind::List(items) => items.iter().all(|own| asks_nothing(own, bound)),
        ExprKind::Int(_) | ExprKind::Float(_) | ExprKind::Str(_) | ExprKind::DType(_) | ExprKind::Name(_) => {
            true
        }
    }
}

/// Whether a right side is made of tile forms that take ops and attributes over.
fn copies(term: &Term) -> bool {
    match term {
        Term::Var(_) | Term::Optional { default: None, .. } => true,
        Term::Optional { .. } | Term::Scalar { .. } => false,
        Term::Each(inner) => copies(inner),
        Term::Op(op) => {
            let is_bare = |item: &AttrItem| matches!(item, AttrItem::Bare(_));
            matches!(op.head, Head::Tile(_)) && op.attrs.iter().all(is_bare) && op.operands.iter().all(copies)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_compare_attributes_are_told() {
        let rules = |pattern: &str| {
            let text = format!(
                "ruleset own : algebra, numerics(exact)
                 rule own {{ {pattern} => relu(x) }}"
            );
            RuleSet::from_text("own.rules", &text).unwrap()
        };
        assert!(are_structural(&rules("relu(reshape[shape=s](x))")));
        for pattern in [
            "relu(transpose[perm=[1, 0]](x))",
            "relu(x * 2)",
            "relu(add(reshape[shape=s](x), reshape[shape=s](y)))",
        ] {
            assert!(!are_structural(&rules(pattern)), "{pattern}");
        }
    }
}
