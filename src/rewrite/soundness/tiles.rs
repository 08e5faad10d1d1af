//! What rules over tile expressions say about tensors.
//!
//! A `load` and a `store` leave a value as it is, and `smap`, `sdot`, .. are the ops `map`,
//! `dot`, .. of one element. Without these words a tile rule is a rule over tensors, whose
//! meaning is known. Most are then `t = t`: they choose where a value lives, not what it is.

use crate::rewrite::rules::ast::{AttrItem, Expr, ExprKind, Head, Name, OpTerm, Rule, Span, Term};

/// Functions of conditions that ask about costs or forms, which the erased rule does not have.
const ABOUT_FORMS: [&str; 3] = ["kind", "flops", "consumers"];

/// `rule` without the words of the tile sort.
pub fn erased(rule: &Rule) -> Rule {
    let mut erased = rule.clone();
    erased.left = term(&rule.left);
    erased.right = term(&rule.right);
    erased.conditions.retain(|condition| !is_about_forms(condition));
    erased
}

/// Whether both sides are the same term, or the right one names the left one.
pub fn is_identity(rule: &Rule) -> bool {
    let named = match (&rule.left, &rule.right) {
        (Term::Op(op), Term::Var(name)) => op.label.as_ref() == Some(name),
        _ => false,
    };
    named || rule.left == rule.right
}

fn term(from: &Term) -> Term {
    match from {
        Term::Var(name) => Term::Var(placeless(name)),
        Term::Optional { name, default, .. } => Term::Optional {
            name: placeless(name),
            default: *default,
            span: Span::default(),
        },
        Term::Each(inner) => Term::Each(Box::new(term(inner))),
        Term::Scalar { .. } => from.clone(),
        Term::Op(op) => op_term(op),
    }
}

fn op_term(op: &OpTerm) -> Term {
    let operands: Vec<Term> = op.operands.iter().map(term).collect();
    let head = match &op.head {
        Head::Tile(form) if matches!(form.text.as_str(), "store" | "load") => {
            return operands
                .into_iter()
                .next()
                .unwrap_or_else(|| Term::Op(op.clone()));
        }
        Head::Tile(form) => family(form, &op.attrs),
        Head::Family { kind, binding } => Head::Family {
            kind: placeless(kind),
            binding: placeless(binding),
        },
        Head::Op(name) => Head::Op(placeless(name)),
    };
    let attrs = match head {
        Head::Family { .. } => Vec::new(),
        Head::Op(_) | Head::Tile(_) => op.attrs.clone(),
    };
    Term::Op(OpTerm {
        label: op.label.as_ref().map(placeless),
        head,
        attrs,
        operands,
        span: Span::default(),
    })
}

/// `smap[f]` as `map[f]`.
fn family(form: &Name, attrs: &[AttrItem]) -> Head {
    let binding = attrs.iter().find_map(|item| match item {
        AttrItem::Bare(name) => Some(placeless(name)),
        AttrItem::Named { .. } => None,
    });
    let kind = match form.text.as_str() {
        "sred" | "srow" => "reduce",
        "swin" => "window",
        other => other.trim_start_matches('s'),
    };
    let named = |text: &str| Name {
        text: text.to_owned(),
        span: Span::default(),
    };
    Head::Family {
        kind: named(kind),
        binding: binding.unwrap_or_else(|| named("_")),
    }
}

fn placeless(name: &Name) -> Name {
    Name {
        text: name.text.clone(),
        span: Span::default(),
    }
}

fn is_about_forms(condition: &Expr) -> bool {
    match &condition.kind {
        ExprKind::Call { function, args } => {
            ABOUT_FORMS.contains(&function.text.as_str()) || args.iter().any(is_about_forms)
        }
        ExprKind::Not(inner) | ExprKind::Negate(inner) => is_about_forms(inner),
        ExprKind::Binary { left, right, .. } => is_about_forms(left) || is_about_forms(right),
        ExprKind::In { value, set } => is_about_forms(value) || set.iter().any(is_about_forms),
        ExprKind::List(items) => items.iter().any(is_about_forms),
        ExprKind::Int(_) | ExprKind::Float(_) | ExprKind::Str(_) | ExprKind::DType(_) | ExprKind::Name(_) => {
            false
        }
    }
}
