//! The saturated e-graph as plain tables: tensors in rank order and the expressions that
//! compute them. Cones, costs and the frontier search read these, never the e-graph.

use crate::ir::{Attrs, TensorType};
use crate::ops::TileKind;

/// A set of weights, inputs and values that may be computed, and how.
#[derive(Clone, Debug, Default)]
pub struct Net {
    /// In rank order: everything can be computed from left to right.
    pub tensors: Vec<NetTensor>,
    pub exprs: Vec<NetExpr>,
    /// Values of the model's outputs, in order; one may be listed twice.
    pub outputs: Vec<usize>,
    /// Bytes of all weights of the model.
    pub weight_bytes: usize,
}

/// A value that may exist in memory.
#[derive(Clone, Debug)]
pub struct NetTensor {
    pub ty: TensorType,
    pub n_elements: usize,
    pub source: NetSource,
    /// Expressions that compute the value. Empty for inputs; for constants one that the
    /// host evaluates.
    pub exprs: Vec<usize>,
    /// Values that may be computed from this one, and 1 if it is an output.
    pub consumers: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetSource {
    /// Input number `i` of the model.
    Input(usize),
    /// Constant number `i` of the interner, if the value is not computed from others.
    Const(Option<u32>),
    /// Computed on the device.
    Device,
}

/// A use of an op over tensors.
#[derive(Clone, Debug)]
pub struct NetExpr {
    pub op: &'static str,
    pub kind: TileKind,
    pub attrs: Attrs,
    pub operands: Vec<Option<Use>>,
    /// All results; most ops have one.
    pub results: Vec<usize>,
    /// Scalar operations: per element for maps, of the whole op for others.
    pub flops: f64,
    /// Rules that made the expression, as numbers of the run's rule list.
    pub rules: Vec<usize>,
    /// Nodes of the imported graph that the expression stands for.
    pub nodes: Vec<usize>,
}

/// An operand of an expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Use {
    pub tensor: usize,
    /// Expressions of the operand that a fuse rule allows in the place of a load, and the rules.
    pub inline: Vec<usize>,
    pub rules: Vec<usize>,
}

impl NetTensor {
    pub fn is_device(&self) -> bool {
        self.source == NetSource::Device
    }

    pub fn n_bytes(&self) -> usize {
        self.n_elements * self.ty.dtype.size_bytes()
    }
}

impl NetExpr {
    pub fn uses(&self) -> impl Iterator<Item = &Use> {
        self.operands.iter().flatten()
    }
}

impl Net {
    /// Counts who reads each tensor, from the expressions and outputs.
    pub fn count_consumers(&mut self) {
        let mut readers: Vec<Vec<usize>> = vec![Vec::new(); self.tensors.len()];
        for expr in &self.exprs {
            for operand in expr.uses() {
                readers[operand.tensor].push(expr.results[0]);
            }
        }
        for (tensor, mut own) in self.tensors.iter_mut().zip(readers) {
            own.sort_unstable();
            own.dedup();
            tensor.consumers = own.len();
        }
        let mut outputs = self.outputs.clone();
        outputs.sort_unstable();
        outputs.dedup();
        for output in outputs {
            self.tensors[output].consumers += 1;
        }
    }
}
