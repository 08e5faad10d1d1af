//! What conditions ask of an e-graph, remembered.

use std::cell::RefCell;

use super::language::Enode;
use super::term_facts::TermFacts;
use crate::ir::{Attrs, HostTensor, TensorType};
use crate::rewrite::conditions::facts::{Facts, Handle};

/// A question about a value, with the answer where that is the same in every shape.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    Type(Handle),
    /// The number of the constant that the value is, if it is one.
    Weight(Handle, Option<u32>),
    IsConst(Handle, bool),
    Consumers(Handle, usize),
    Kind(Handle, Option<&'static str>),
    Flops(Handle, f64),
    MadeBy(Handle, Option<Enode>),
}

/// Facts of an e-graph that remembers what it is asked.
pub struct Asking<'a> {
    facts: TermFacts<'a>,
    asked: RefCell<Vec<Asked>>,
}

impl<'a> Asking<'a> {
    pub fn new(facts: TermFacts<'a>) -> Self {
        Asking {
            facts,
            asked: RefCell::default(),
        }
    }

    pub fn asked(self) -> Vec<Asked> {
        self.asked.into_inner()
    }

    fn note(&self, asked: Asked) {
        self.asked.borrow_mut().push(asked);
    }

    fn note_weight(&self, value: Handle) {
        self.note(Asked::Weight(value, self.facts.weight_number(value)));
    }
}

impl Facts for Asking<'_> {
    fn ty(&self, value: Handle) -> Option<TensorType> {
        self.note(Asked::Type(value));
        self.facts.ty(value)
    }

    fn is_const(&self, value: Handle) -> bool {
        let answer = self.facts.is_const(value);
        self.note(Asked::IsConst(value, answer));
        answer
    }

    fn scalar(&self, value: Handle) -> Option<f64> {
        self.note_weight(value);
        self.facts.scalar(value)
    }

    fn consumers(&self, value: Handle) -> usize {
        let answer = self.facts.consumers(value);
        self.note(Asked::Consumers(value, answer));
        answer
    }

    fn kind(&self, value: Handle) -> Option<&'static str> {
        let answer = self.facts.kind(value);
        self.note(Asked::Kind(value, answer));
        answer
    }

    fn flops(&self, value: Handle) -> f64 {
        let answer = self.facts.flops(value);
        self.note(Asked::Flops(value, answer));
        answer
    }

    fn made_by(&self, value: Handle, op: &str) -> Option<(Attrs, Vec<Option<Handle>>)> {
        self.note(Asked::MadeBy(value, self.facts.maker(value, op).cloned()));
        self.facts.made_by(value, op)
    }

    fn ints(&self, value: Handle) -> Option<Vec<i64>> {
        self.note_weight(value);
        self.facts.ints(value)
    }

    fn weight_data(&self, value: Handle) -> Option<&HostTensor> {
        self.note_weight(value);
        self.facts.weight_data(value)
    }
}
