//! Instances as text, in the syntax of `test` lines: a counter-example can be pasted into its rule.

use crate::rewrite::rules::ast::{Expr, ExprKind, Name, Numbers, TestEntry, TestValue};

/// `x: f32[2,3], p = [1, 0]`
pub fn line(entries: &[TestEntry]) -> String {
    let entries: Vec<String> = entries
        .iter()
        .map(|entry| format!("{}{}", entry.name.text, value(&entry.value)))
        .collect();
    entries.join(", ")
}

fn word(numbers: Numbers) -> String {
    match numbers.word() {
        "" => String::new(),
        word => format!("{word} "),
    }
}

fn value(value: &TestValue) -> String {
    match value {
        TestValue::Input { ty, numbers } => format!(": {}{ty}", word(*numbers)),
        TestValue::Constant {
            ty,
            value: Some(value),
            ..
        } => format!(": {ty} = {}", expr(value)),
        TestValue::Constant { ty, numbers, .. } => format!(": const {}{ty}", word(*numbers)),
        TestValue::Inputs(types) => {
            let types: Vec<String> = types.iter().map(ToString::to_string).collect();
            format!(": {{{}}}", types.join(", "))
        }
        TestValue::Absent => ": none".to_owned(),
        TestValue::Attr(value) => format!(" = {}", expr(value)),
        TestValue::Attrs(attrs) => format!(" = {}", set(attrs)),
        TestValue::Op(op, attrs) if attrs.is_empty() => format!(" = {}", op.text),
        TestValue::Op(op, attrs) => format!(" = {}{}", op.text, set(attrs)),
    }
}

fn set(attrs: &[(Name, Expr)]) -> String {
    let attrs: Vec<String> = attrs
        .iter()
        .map(|(name, value)| format!("{}={}", name.text, expr(value)))
        .collect();
    format!("{{{}}}", attrs.join(", "))
}

fn expr(value: &Expr) -> String {
    match &value.kind {
        ExprKind::Int(value) => value.to_string(),
        ExprKind::Float(value) => format!("{value:?}"),
        ExprKind::Str(text) => format!("{text:?}"),
        ExprKind::DType(dtype) => dtype.name().to_owned(),
        ExprKind::List(items) => {
            let items: Vec<String> = items.iter().map(expr).collect();
            format!("[{}]", items.join(", "))
        }
        ExprKind::Name(name) => name.clone(),
        ExprKind::Negate(inner) => format!("-{}", expr(inner)),
        ExprKind::Call { function, .. } => format!("{}(..)", function.text),
        ExprKind::Not(_) | ExprKind::Binary { .. } | ExprKind::In { .. } => "..".to_owned(),
    }
}
