//! What conditions may ask about matched values, wherever they live.
//!
//! The canonicaliser answers over a graph, the e-graph side over its analysis. A fact that
//! is not known is `None`, and a condition over an unknown fact does not hold.

use crate::ir::{Attr, Attrs, HostTensor, TensorType};

/// A matched value: a value id of a graph, or a class id of an e-graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(pub u32);

/// Answers of a structure that patterns match in.
pub trait Facts {
    /// Type of a value; a tile expression has the type of the tensor it would store.
    fn ty(&self, value: Handle) -> Option<TensorType>;

    /// Whether the value is computed from weights alone.
    fn is_const(&self, value: Handle) -> bool;

    /// The value all elements of a constant equal.
    fn scalar(&self, value: Handle) -> Option<f64>;

    /// How many nodes read the value; being an output of the graph counts as one.
    fn consumers(&self, value: Handle) -> usize;

    /// Tile kind of the op that makes the value (`map`, `view`, `reduce`, `dot`, `window`, ..;
    /// in the tile sort `smap`, `sdot`, ..), `input` or `weight`.
    fn kind(&self, value: Handle) -> Option<&'static str>;

    /// Scalar operations per element to compute the value from what its expression loads.
    fn flops(&self, value: Handle) -> f64;

    /// The op that makes the value, its attributes and operands; in an e-graph one that
    /// is spelled `op`, if any does.
    fn made_by(&self, value: Handle, op: &str) -> Option<(Attrs, Vec<Option<Handle>>)>;

    /// The elements of a small integer constant.
    fn ints(&self, _value: Handle) -> Option<Vec<i64>> {
        None
    }

    /// The elements of a weight of any size.
    fn elements(&self, _value: Handle) -> Option<Vec<f64>> {
        None
    }

    /// The weight that the value is.
    fn weight_data(&self, _value: Handle) -> Option<&HostTensor> {
        None
    }
}

/// What a pattern's name stands for in a match.
#[derive(Clone, Debug, PartialEq)]
pub enum Binding {
    Value(Handle),
    /// `b?` where the operand is absent.
    Absent,
    /// `x..`
    Many(Vec<Handle>),
    /// `axis=a`
    Attr(Attr),
    /// `conv[a]`
    Attrs(Attrs),
    /// `map[f]`
    Op(&'static str, Attrs),
    /// A word of the tile sort: a load mode.
    Word(String),
}

impl Binding {
    /// The values that it stands for.
    pub fn values(&self) -> Vec<Handle> {
        match self {
            Binding::Value(handle) => vec![*handle],
            Binding::Many(handles) => handles.clone(),
            Binding::Absent | Binding::Attr(_) | Binding::Attrs(_) | Binding::Op(..) | Binding::Word(_) => {
                Vec::new()
            }
        }
    }
}

/// The names of a match.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bindings {
    entries: Vec<(String, Binding)>,
}

impl Bindings {
    pub fn get(&self, name: &str) -> Option<&Binding> {
        let found = self.entries.iter().rev().find(|(known, _)| known == name);
        found.map(|(_, binding)| binding)
    }

    pub fn value(&self, name: &str) -> Option<Handle> {
        match self.get(name)? {
            Binding::Value(handle) => Some(*handle),
            Binding::Absent
            | Binding::Many(_)
            | Binding::Attr(_)
            | Binding::Attrs(_)
            | Binding::Op(..)
            | Binding::Word(_) => None,
        }
    }

    /// Names and what they stand for; a later one hides an earlier one.
    pub fn iter(&self) -> impl Iterator<Item = &(String, Binding)> {
        self.entries.iter()
    }

    /// Adds a name, or checks that it already stands for the same.
    #[must_use]
    pub fn bind(&mut self, name: &str, binding: Binding) -> bool {
        if let Some(known) = self.get(name) {
            return *known == binding;
        }
        self.entries.push((name.to_owned(), binding));
        true
    }

    /// Adds a name that hides an earlier one.
    pub fn shadow(&mut self, name: &str, binding: Binding) {
        self.entries.push((name.to_owned(), binding));
    }

    /// Forgets the latest meaning of a name, and returns it.
    pub fn take(&mut self, name: &str) -> Option<Binding> {
        let position = self.entries.iter().rposition(|(known, _)| known == name)?;
        Some(self.entries.remove(position).1)
    }

    /// Number of names, to come back to with [`Bindings::truncate`].
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets names added since there were `len`.
    pub fn truncate(&mut self, len: usize) {
        self.entries.truncate(len);
    }
}
