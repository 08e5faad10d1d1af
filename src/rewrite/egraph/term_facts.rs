//! Facts of e-graph classes, for conditions of rules.

use egg::Id;

use super::analysis::Terms;
use super::language::{Enode, Head, kind_names, kind_of};
use crate::ir::{Attrs, DType, HostTensor, TensorType};
use crate::ops::evaluate;
use crate::rewrite::conditions::facts::{Facts, Handle};

/// Constants up to this many elements are asked for their elements.
const MAX_INTS: usize = 1 << 12;

/// Answers over an e-graph that is rebuilt.
pub struct TermFacts<'a> {
    pub terms: &'a Terms,
}

/// The handle of a class.
pub fn handle(id: Id) -> Handle {
    Handle(u32::try_from(usize::from(id)).expect("e-graphs have under 2^32 classes"))
}

/// The class of a handle.
pub fn class(handle: Handle) -> Id {
    Id::from(handle.0 as usize)
}

impl TermFacts<'_> {
    fn nodes(&self, value: Handle) -> impl Iterator<Item = &Enode> {
        self.terms[self.terms.find(class(value))].iter()
    }

    fn weight(&self, value: Handle) -> Option<&HostTensor> {
        let number = self.weight_number(value)?;
        Some(&self.terms.analysis.interner.weights[number as usize])
    }

    /// The number of the constant that a value is.
    pub fn weight_number(&self, value: Handle) -> Option<u32> {
        let leaf = self.nodes(value).find(|enode| enode.head == Head::Weight)?;
        Some(leaf.data)
    }

    /// A node spelled `op` of a value.
    pub fn maker(&self, value: Handle, op: &str) -> Option<&Enode> {
        self.nodes(value)
            .find(|enode| matches!(enode.head, Head::Op(name) if name == op))
    }
}

impl Facts for TermFacts<'_> {
    fn ty(&self, value: Handle) -> Option<TensorType> {
        self.terms[self.terms.find(class(value))].data.ty().cloned()
    }

    fn is_const(&self, value: Handle) -> bool {
        self.terms[self.terms.find(class(value))].data.is_const
    }

    fn scalar(&self, value: Handle) -> Option<f64> {
        uniform(self.weight(value)?)
    }

    fn consumers(&self, value: Handle) -> usize {
        let own = &self.terms[self.terms.find(class(value))];
        if own.data.consumers > 0 {
            return own.data.consumers as usize;
        }
        let is_op = |id: &Id| matches!(self.terms.id_to_node(*id).head, Head::Op(_));
        let mut readers: Vec<Id> = own
            .parents()
            .filter(is_op)
            .map(|id| self.terms.find(id))
            .collect();
        readers.sort_unstable();
        readers.dedup();
        readers.len()
    }

    fn kind(&self, value: Handle) -> Option<&'static str> {
        let names = self.nodes(value).filter_map(|enode| match enode.head {
            Head::Input => Some("input"),
            Head::Weight => Some("weight"),
            Head::Op(name) => Some(kind_names(kind_of(name)).0),
            Head::Tile(name) => Some(kind_names(kind_of(name)).1),
            Head::Absent | Head::Project | Head::Store | Head::Load => None,
        });
        names.min()
    }

    fn flops(&self, value: Handle) -> f64 {
        self.terms[self.terms.find(class(value))].data.flops
    }

    fn made_by(&self, value: Handle, op: &str) -> Option<(Attrs, Vec<Option<Handle>>)> {
        let enode = self.maker(value, op)?;
        let attrs = self.terms.analysis.interner.attrs_of(enode.data).clone();
        let operands = enode.children.iter().map(|&child| {
            let own = self.terms.find(child);
            let is_absent = self.terms[own].iter().any(|enode| enode.head == Head::Absent);
            (!is_absent).then(|| handle(own))
        });
        Some((attrs, operands.collect()))
    }

    fn ints(&self, value: Handle) -> Option<Vec<i64>> {
        small_ints(self.weight(value)?)
    }

    fn weight_data(&self, value: Handle) -> Option<&HostTensor> {
        self.weight(value)
    }
}

/// The elements of a constant of few integers.
pub fn small_ints(data: &HostTensor) -> Option<Vec<i64>> {
    let is_small = data.n_elements() <= MAX_INTS && data.dtype().is_int();
    is_small.then(|| evaluate::to_vec::<i64>(data))
}

/// The value that all elements of a constant equal; `None` for an empty one.
pub fn uniform(data: &HostTensor) -> Option<f64> {
    let size = data.dtype().size_bytes();
    let mut elements = data.bytes().chunks_exact(size);
    let first = elements.next()?;
    if !elements.all(|element| element == first) {
        return None;
    }
    let one = HostTensor::from_bytes(data.dtype(), &[], first)?;
    match data.dtype() {
        DType::Bool => Some(f64::from(first[0] != 0)),
        _ => evaluate::to_vec::<f64>(&one).first().copied(),
    }
}
