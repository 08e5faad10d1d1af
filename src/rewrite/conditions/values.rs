//! Values of conditions and attribute expressions.

use super::facts::{Binding, Handle};
use crate::ir::Attr;

/// What an expression yields.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Bool(bool),
    /// A number, list, string or kind; or what a name of the pattern stands for.
    Bound(Binding),
}

impl Value {
    pub fn int(value: i64) -> Value {
        Value::Bound(Binding::Attr(Attr::Int(value)))
    }

    pub fn float(value: f64) -> Value {
        Value::Bound(Binding::Attr(Attr::Float(value)))
    }

    pub fn ints(values: Vec<i64>) -> Value {
        Value::Bound(Binding::Attr(Attr::Ints(values)))
    }

    pub fn count(value: usize) -> Option<Value> {
        i64::try_from(value).ok().map(Value::int)
    }

    pub fn word(word: &str) -> Value {
        Value::Bound(Binding::Word(word.to_owned()))
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            Value::Bound(_) => None,
        }
    }

    pub fn attr(&self) -> Option<&Attr> {
        match self {
            Value::Bound(Binding::Attr(attr)) => Some(attr),
            Value::Bound(_) | Value::Bool(_) => None,
        }
    }

    pub fn as_int(&self) -> Option<i64> {
        match self.attr()? {
            Attr::Int(value) => Some(*value),
            _ => None,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "rules compute with small integers")]
    pub fn as_float(&self) -> Option<f64> {
        match self.attr()? {
            Attr::Int(value) => Some(*value as f64),
            Attr::Float(value) => Some(*value),
            _ => None,
        }
    }

    pub fn as_ints(&self) -> Option<&[i64]> {
        match self.attr()? {
            Attr::Ints(values) => Some(values),
            _ => None,
        }
    }

    pub fn as_handle(&self) -> Option<Handle> {
        match self {
            Value::Bound(Binding::Value(handle)) => Some(*handle),
            Value::Bound(_) | Value::Bool(_) => None,
        }
    }

    /// The values a name stands for: one, none where it is absent, or several.
    pub fn handles(&self) -> Option<Vec<Handle>> {
        match self {
            Value::Bound(Binding::Value(handle)) => Some(vec![*handle]),
            Value::Bound(Binding::Absent) => Some(Vec::new()),
            Value::Bound(Binding::Many(handles)) => Some(handles.clone()),
            Value::Bound(_) | Value::Bool(_) => None,
        }
    }
}

/// Equality; an integer equals the float of its value. A variable that stands for an op
/// equals the word that is the op's name.
pub fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Bound(Binding::Op(op, _)), Value::Bound(Binding::Word(word)))
        | (Value::Bound(Binding::Word(word)), Value::Bound(Binding::Op(op, _))) => op == word,
        _ => match (left.as_float(), right.as_float()) {
            #[expect(clippy::float_cmp, reason = "rules compare the constants they name")]
            (Some(left), Some(right)) => left == right,
            _ => left == right,
        },
    }
}
