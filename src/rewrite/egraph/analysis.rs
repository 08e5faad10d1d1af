//! What the e-graph knows of each class: types, constness, rank, consumers, cost.
//!
//! Two nodes may share a class only if they have the same type; a rule that merges others
//! is wrong, and `merge` records it, so that the run stops and names the rule.

use std::sync::Arc;

use egg::{Analysis, DidMerge, EGraph, Id};

use super::language::{Enode, Head, Interner, def_of};
use crate::ir::TensorType;
use crate::ops::InferCtx;
use crate::rewrite::extraction::cost::flops_per_element;

/// Position of a value in an order in which everything can be computed. Values of the
/// imported graph have their node's position and `minor == 0`; values that rules add lie
/// between their operands and the next imported node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank {
    pub major: u32,
    pub minor: u32,
}

impl Rank {
    /// Whether a rule added the value.
    pub fn is_made(self) -> bool {
        self.minor != 0
    }

    /// The lowest rank of what is computed from a value of this one.
    #[must_use]
    pub fn next(self) -> Rank {
        Rank {
            minor: self.minor + 1,
            ..self
        }
    }
}

/// Facts of a class.
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    /// Types of the results: one, or one per member of a tuple. A tile expression has the
    /// type of the tensor it would store. Empty where inference failed.
    pub types: Arc<[TensorType]>,
    /// Computed from weights alone.
    pub is_const: bool,
    /// Absent in the tile sort, whose terms have no place of their own.
    pub rank: Option<Rank>,
    /// How many nodes of the imported graph read the value, plus one if it is an output.
    pub consumers: u32,
    /// Scalar operations per element, from what the expression loads.
    pub flops: f64,
}

impl Data {
    pub fn ty(&self) -> Option<&TensorType> {
        match &*self.types {
            [ty] => Some(ty),
            _ => None,
        }
    }
}

/// The analysis: interned records, and the first merge of different types.
#[derive(Debug, Default)]
pub struct Meaning {
    pub interner: Interner,
    /// Types of the graph's inputs.
    pub inputs: Vec<TensorType>,
    /// Set by `merge`: a rule equated values of these types.
    pub mismatch: Option<(String, String)>,
}

/// An e-graph over the op table.
pub type Terms = EGraph<Enode, Meaning>;

impl Analysis<Enode> for Meaning {
    type Data = Data;

    fn make(egraph: &mut Terms, enode: &Enode, _id: Id) -> Data {
        let children = || enode.children.iter().map(|&child| &egraph[child].data);
        let below = children().filter_map(|data| data.rank).max().unwrap_or_default();
        Data {
            types: types_of(egraph, enode).unwrap_or_default().into(),
            is_const: match enode.head {
                Head::Weight | Head::Absent => true,
                Head::Input => false,
                Head::Op(_) | Head::Project | Head::Store | Head::Load | Head::Tile(_) => {
                    children().all(|data| data.is_const)
                }
            },
            rank: match enode.head {
                Head::Absent | Head::Input | Head::Weight => Some(Rank::default()),
                Head::Op(_) | Head::Project => Some(below.next()),
                Head::Store | Head::Load | Head::Tile(_) => None,
            },
            consumers: 0,
            flops: flops_of(egraph, enode),
        }
    }

    fn merge(&mut self, own: &mut Data, other: Data) -> DidMerge {
        let before = own.clone();
        if own.types.is_empty() {
            own.types = Arc::clone(&other.types);
        } else if !other.types.is_empty() && own.types != other.types && self.mismatch.is_none() {
            self.mismatch = Some((describe(&own.types), describe(&other.types)));
        }
        own.is_const |= other.is_const;
        own.rank = merged_rank(own.rank, other.rank);
        own.consumers = own.consumers.max(other.consumers);
        own.flops = own.flops.min(other.flops);
        DidMerge(*own != before, *own != other)
    }
}

/// The imported rank where there is one (`minor == 0`), so that a value keeps its place
/// whatever else is found equal to it. Ranks only fall, so cycles of equalities settle.
fn merged_rank(a: Option<Rank>, b: Option<Rank>) -> Option<Rank> {
    let (Some(first), Some(second)) = (a, b) else {
        return a.or(b);
    };
    Some(match (first.minor, second.minor) {
        (0, 0) => first.min(second),
        (0, _) => first,
        (_, 0) => second,
        (..) => first.min(second),
    })
}

fn describe(types: &[TensorType]) -> String {
    let names: Vec<String> = types.iter().map(TensorType::to_string).collect();
    names.join(", ")
}

fn types_of(egraph: &Terms, enode: &Enode) -> Option<Vec<TensorType>> {
    let meaning = &egraph.analysis;
    let single = |id: Id| egraph[id].data.ty().cloned();
    match enode.head {
        Head::Absent => None,
        Head::Input => Some(vec![meaning.inputs[enode.data as usize].clone()]),
        Head::Weight => Some(vec![meaning.interner.weights[enode.data as usize].ty()]),
        Head::Project => {
            let types = &egraph[enode.children[0]].data.types;
            Some(vec![types.get(enode.data as usize)?.clone()])
        }
        Head::Store | Head::Load => Some(egraph[enode.children[0]].data.types.to_vec()),
        Head::Op(name) | Head::Tile(name) => {
            let operands: Vec<Option<TensorType>> = enode.children.iter().map(|&id| single(id)).collect();
            infer(meaning, name, enode.data, &operands)
        }
    }
}

fn infer(
    meaning: &Meaning,
    op: &'static str,
    attrs: u32,
    operands: &[Option<TensorType>],
) -> Option<Vec<TensorType>> {
    let n_results = meaning.interner.n_results(attrs);
    let mut types = def_of(op)
        .result_types(&InferCtx {
            attrs: meaning.interner.attrs_of(attrs),
            operands,
        })
        .ok()?;
    types.truncate(n_results);
    (types.len() == n_results).then_some(types)
}

fn flops_of(egraph: &Terms, enode: &Enode) -> f64 {
    match enode.head {
        Head::Tile(name) => {
            let below: f64 = enode.children.iter().map(|&child| egraph[child].data.flops).sum();
            below + flops_per_element(name)
        }
        Head::Store => egraph[enode.children[0]].data.flops,
        Head::Absent | Head::Input | Head::Weight | Head::Op(_) | Head::Project | Head::Load => 0.0,
    }
}
