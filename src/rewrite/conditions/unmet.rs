//! Why a match does not hold, for people: the first let or condition in the way, with values.

use super::facts::{Binding, Bindings, Facts, Handle};
use super::values::Value;
use crate::ir::Attr;
use crate::rewrite::conditions::{evaluate, holds};
use crate::rewrite::rules::ast::{BinaryOp, Expr, ExprKind, Let};
use crate::rewrite::rules::set::RuleSet;

/// What is needed to write about a match.
pub struct Speaker<'a> {
    pub rules: &'a RuleSet,
    pub facts: &'a dyn Facts,
}

impl Speaker<'_> {
    /// The first let that cannot be computed, or condition that does not hold; adds the lets to
    /// `names`. `None` where all are met.
    pub fn unmet(&self, lets: &[Let], conditions: &[Expr], names: &mut Bindings) -> Option<String> {
        for entry in lets {
            match evaluate(&entry.value, names, self.facts) {
                Some(Value::Bound(binding)) => names.shadow(&entry.name.text, binding),
                Some(Value::Bool(_)) | None => {
                    let text = self.text(&entry.value);
                    let values = self.because(&entry.value, names);
                    return Some(format!(
                        "`{} = {text}` cannot be computed{values}",
                        entry.name.text
                    ));
                }
            }
        }
        let failed = conditions
            .iter()
            .find(|condition| !holds(condition, names, self.facts))?;
        Some(self.failed(failed, names))
    }

    /// `rank(x) == 4` does not hold: `rank(x)` is 3
    pub fn failed(&self, condition: &Expr, names: &Bindings) -> String {
        let culprit = self.culprit(condition, names);
        let verb = match evaluate(culprit, names, self.facts) {
            Some(_) => "does not hold",
            None => "is not known to hold",
        };
        format!("`{}` {verb}{}", self.text(culprit), self.because(culprit, names))
    }

    fn text(&self, expr: &Expr) -> String {
        let words: Vec<&str> = self.rules.text(expr.span).split_whitespace().collect();
        words.join(" ")
    }

    /// The half of a conjunction that fails.
    fn culprit<'e>(&self, condition: &'e Expr, names: &Bindings) -> &'e Expr {
        match &condition.kind {
            ExprKind::Binary {
                op: BinaryOp::And,
                left,
                right,
            } => {
                let fails = if holds(left, names, self.facts) {
                    right
                } else {
                    left
                };
                self.culprit(fails, names)
            }
            _ => condition,
        }
    }

    fn because(&self, expr: &Expr, names: &Bindings) -> String {
        let mut values: Vec<String> = Vec::new();
        self.values(expr, names, &mut values);
        values.dedup();
        if values.is_empty() {
            String::new()
        } else {
            format!(": {}", values.join(", "))
        }
    }

    /// Values of what an expression compares or asks about.
    fn values(&self, expr: &Expr, names: &Bindings, into: &mut Vec<String>) {
        match &expr.kind {
            ExprKind::Int(_) | ExprKind::Float(_) | ExprKind::Str(_) | ExprKind::DType(_) => {}
            ExprKind::Not(inner) | ExprKind::Negate(inner) => self.values(inner, names, into),
            ExprKind::Binary {
                op: BinaryOp::And | BinaryOp::Or,
                left,
                right,
            } => {
                self.values(left, names, into);
                self.values(right, names, into);
            }
            ExprKind::Binary { left, right, .. } => {
                self.value(left, names, into);
                self.value(right, names, into);
            }
            ExprKind::In { value, .. } => self.value(value, names, into),
            ExprKind::Call { args, .. } => {
                for arg in args {
                    self.value(arg, names, into);
                }
            }
            ExprKind::List(items) => items.iter().for_each(|item| self.value(item, names, into)),
            ExprKind::Name(_) => self.value(expr, names, into),
        }
    }

    fn value(&self, expr: &Expr, names: &Bindings, into: &mut Vec<String>) {
        let is_literal = match &expr.kind {
            ExprKind::Int(_) | ExprKind::Float(_) | ExprKind::Str(_) | ExprKind::DType(_) => true,
            ExprKind::List(items) => items.iter().all(|item| matches!(item.kind, ExprKind::Int(_))),
            ExprKind::Name(name) => names.get(name).is_none(),
            ExprKind::Call { .. }
            | ExprKind::Not(_)
            | ExprKind::Negate(_)
            | ExprKind::Binary { .. }
            | ExprKind::In { .. } => false,
        };
        if is_literal {
            return;
        }
        if let Some(value) = evaluate(expr, names, self.facts) {
            into.push(format!("`{}` is {}", self.text(expr), self.shown(&value)));
        } else {
            into.push(format!("`{}` is unknown", self.text(expr)));
            self.values(expr, names, into);
        }
    }

    /// A value as a rule would write it; tensors by their type and maker.
    pub fn shown(&self, value: &Value) -> String {
        match value {
            Value::Bool(value) => value.to_string(),
            Value::Bound(binding) => self.shown_binding(binding),
        }
    }

    pub fn shown_binding(&self, binding: &Binding) -> String {
        match binding {
            Binding::Value(handle) => self.tensor(*handle),
            Binding::Absent => "absent".to_owned(),
            Binding::Many(handles) => {
                let all: Vec<String> = handles.iter().map(|&handle| self.tensor(handle)).collect();
                format!("{{{}}}", all.join(", "))
            }
            Binding::Attr(attr) => shown_attr(attr),
            Binding::Attrs(attrs) => {
                let all: Vec<String> = attrs
                    .0
                    .iter()
                    .map(|(name, attr)| format!("{name}={}", shown_attr(attr)))
                    .collect();
                format!("{{{}}}", all.join(", "))
            }
            Binding::Op(op, _) => (*op).to_owned(),
            Binding::Word(word) => word.clone(),
        }
    }

    fn tensor(&self, handle: Handle) -> String {
        let ty = self.facts.ty(handle);
        let ty = ty.map_or_else(|| "a value of unknown type".to_owned(), |ty| ty.to_string());
        let number = self.facts.scalar(handle).map(|number| format!(" = {number}"));
        let constant = if self.facts.is_const(handle) { "const " } else { "" };
        format!("{constant}{ty}{}", number.unwrap_or_default())
    }
}

/// An attribute as a rule would write it.
pub fn shown_attr(attr: &Attr) -> String {
    match attr {
        Attr::Int(value) => value.to_string(),
        Attr::Float(value) => format!("{value:?}"),
        Attr::Str(text) => format!("{text:?}"),
        Attr::Ints(values) => format!("{values:?}"),
        Attr::Floats(values) => format!("{values:?}"),
        Attr::Strs(values) => format!("{values:?}"),
        Attr::DType(dtype) => dtype.name().to_owned(),
        Attr::Tensor(data) => format!("a tensor {}", data.ty()),
        Attr::Graph(_) => "a graph".to_owned(),
    }
}
