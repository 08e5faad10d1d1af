//! Evaluates conditions, lets and attribute expressions of a match.
//!
//! What cannot be known (a dim that is not bound, the value of something computed at run
//! time) is `None`, and a condition over it does not hold. The functions rules may call are
//! listed in [`self::functions::FUNCTIONS`].

pub mod facts;
pub mod functions;
pub mod ranges;
pub mod sinking;
pub mod unmet;
pub mod values;

use self::facts::{Binding, Bindings, Facts};
use self::values::{Value, equal};
use crate::ir::Attr;
use crate::rewrite::rules::ast::{BinaryOp, Expr, ExprKind, Let};

/// Whether `condition` is known to be true.
pub fn holds(condition: &Expr, names: &Bindings, facts: &dyn Facts) -> bool {
    evaluate(condition, names, facts) == Some(Value::Bool(true))
}

/// Adds the lets to `names` and asks every condition. A let that cannot be computed means
/// that the match does not hold.
pub fn admit(lets: &[Let], conditions: &[Expr], names: &mut Bindings, facts: &dyn Facts) -> bool {
    for entry in lets {
        match evaluate(&entry.value, names, facts) {
            Some(Value::Bound(binding)) => names.shadow(&entry.name.text, binding),
            Some(Value::Bool(_)) | None => return false,
        }
    }
    conditions.iter().all(|condition| holds(condition, names, facts))
}

/// The value of `expr`, where everything it depends on is known.
pub fn evaluate(expr: &Expr, names: &Bindings, facts: &dyn Facts) -> Option<Value> {
    match &expr.kind {
        ExprKind::Int(value) => Some(Value::int(*value)),
        ExprKind::Float(value) => Some(Value::float(*value)),
        ExprKind::Str(text) => Some(Value::Bound(Binding::Attr(Attr::Str(text.clone())))),
        ExprKind::DType(dtype) => Some(Value::Bound(Binding::Attr(Attr::DType(*dtype)))),
        ExprKind::List(items) => list(items, names, facts),
        ExprKind::Name(name) => Some(named(name, names)),
        ExprKind::Call { function, args } => {
            let args = all(args, names, facts)?;
            functions::lookup(&function.text)?.call(&args, facts)
        }
        ExprKind::Not(inner) => {
            let inner = evaluate(inner, names, facts)?.as_bool()?;
            Some(Value::Bool(!inner))
        }
        ExprKind::Negate(inner) => negate(&evaluate(inner, names, facts)?),
        ExprKind::Binary { op, left, right } => binary(*op, left, right, names, facts),
        ExprKind::In { value, set } => {
            let value = evaluate(value, names, facts)?;
            let set = all(set, names, facts)?;
            Some(Value::Bool(set.iter().any(|member| equal(&value, member))))
        }
    }
}

fn all(exprs: &[Expr], names: &Bindings, facts: &dyn Facts) -> Option<Vec<Value>> {
    exprs.iter().map(|expr| evaluate(expr, names, facts)).collect()
}

fn named(name: &str, names: &Bindings) -> Value {
    match (names.get(name), name) {
        (Some(binding), _) => Value::Bound(binding.clone()),
        (None, "true") => Value::Bool(true),
        (None, "false") => Value::Bool(false),
        (None, word) => Value::word(word),
    }
}

/// A list of integers, or of floats where one entry is.
fn list(items: &[Expr], names: &Bindings, facts: &dyn Facts) -> Option<Value> {
    let values = all(items, names, facts)?;
    let ints: Option<Vec<i64>> = values.iter().map(Value::as_int).collect();
    if let Some(ints) = ints {
        return Some(Value::ints(ints));
    }
    let floats: Option<Vec<f64>> = values.iter().map(Value::as_float).collect();
    floats.map(|floats| Value::Bound(Binding::Attr(Attr::Floats(floats))))
}

fn negate(value: &Value) -> Option<Value> {
    match value.as_int() {
        Some(value) => value.checked_neg().map(Value::int),
        None => value.as_float().map(|value| Value::float(-value)),
    }
}

fn binary(op: BinaryOp, left: &Expr, right: &Expr, names: &Bindings, facts: &dyn Facts) -> Option<Value> {
    let left = evaluate(left, names, facts)?;
    match (op, left.as_bool()) {
        (BinaryOp::And, Some(false)) => return Some(Value::Bool(false)),
        (BinaryOp::Or, Some(true)) => return Some(Value::Bool(true)),
        _ => {}
    }
    let right = evaluate(right, names, facts)?;
    match op {
        BinaryOp::Or | BinaryOp::And => right.as_bool().map(Value::Bool),
        BinaryOp::Equal => Some(Value::Bool(equal(&left, &right))),
        BinaryOp::NotEqual => Some(Value::Bool(!equal(&left, &right))),
        BinaryOp::Less => compare(&left, &right, |a, b| a < b),
        BinaryOp::LessEqual => compare(&left, &right, |a, b| a <= b),
        BinaryOp::Greater => compare(&left, &right, |a, b| a > b),
        BinaryOp::GreaterEqual => compare(&left, &right, |a, b| a >= b),
        BinaryOp::Add => arithmetic(&left, &right, i64::checked_add, |a, b| a + b),
        BinaryOp::Sub => arithmetic(&left, &right, i64::checked_sub, |a, b| a - b),
        BinaryOp::Mul => arithmetic(&left, &right, i64::checked_mul, |a, b| a * b),
        BinaryOp::Div => arithmetic(&left, &right, i64::checked_div, |a, b| a / b),
        BinaryOp::Rem => arithmetic(&left, &right, i64::checked_rem, |a, b| a % b),
    }
}

fn compare(left: &Value, right: &Value, test: fn(f64, f64) -> bool) -> Option<Value> {
    Some(Value::Bool(test(left.as_float()?, right.as_float()?)))
}

fn arithmetic(
    left: &Value,
    right: &Value,
    ints: fn(i64, i64) -> Option<i64>,
    floats: fn(f64, f64) -> f64,
) -> Option<Value> {
    match (left.as_int(), right.as_int()) {
        (Some(left), Some(right)) => ints(left, right).map(Value::int),
        _ => Some(Value::float(floats(left.as_float()?, right.as_float()?))),
    }
}
