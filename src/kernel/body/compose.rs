//! From a region's body graph to one expression per output element.
//!
//! Every op says its meaning as a function from output coordinates to an expression; the
//! operands it reads are replaced by their producers' expressions at the coordinates where
//! they are read. The result has no intermediate tensors: loads of region inputs, scalar
//! constants, maps and reductions only. Start reading at [`Composer::value`].

use std::collections::HashMap;

use crate::ir::{DType, Graph, HostTensor, NodeId, Source, TensorType, ValueId};
use crate::kernel::error::KernelError;
use crate::ops::evaluate::to_vec;
use crate::ops::{self, Lowering};
use crate::tile::{Body, Expr, ExprId, Index, Scalar, TileCtx};

/// Builds expressions of one graph's values; shares them per value and coordinates.
pub struct Composer<'g> {
    graph: &'g Graph,
    known: HashMap<(ValueId, Vec<Index>), ExprId>,
    /// Values that are not looked into: what reads them gets an accumulator.
    accumulators: HashMap<ValueId, u8>,
    error: Option<KernelError>,
}

impl<'g> Composer<'g> {
    pub fn new(graph: &'g Graph) -> Self {
        Composer {
            graph,
            known: HashMap::new(),
            accumulators: HashMap::new(),
            error: None,
        }
    }

    /// Makes every read of `value`, at any coordinates, accumulator number `slot`.
    #[must_use]
    pub fn stop_at(mut self, value: ValueId, slot: u8) -> Self {
        self.accumulators.insert(value, slot);
        self
    }

    /// The expression of the element of `value` at coordinates `at`, one per axis.
    ///
    /// # Errors
    /// If a node has no generated code.
    pub fn value(&mut self, body: &mut Body, value: ValueId, at: &[Index]) -> Result<ExprId, KernelError> {
        let id = self.read(body, value, at);
        match self.error.take() {
            None => Ok(id),
            Some(error) => Err(error),
        }
    }

    /// Tile functions cannot fail, so the first error is kept aside and a zero stands in.
    fn read(&mut self, body: &mut Body, value: ValueId, at: &[Index]) -> ExprId {
        let key = (value, at.to_vec());
        if let Some(&id) = self.known.get(&key) {
            return id;
        }
        let id = self.build(body, value, at).unwrap_or_else(|error| {
            self.error.get_or_insert(error);
            body.constant(self.graph.ty(value).dtype, 0.0)
        });
        self.known.insert(key, id);
        id
    }

    fn build(&mut self, body: &mut Body, value: ValueId, at: &[Index]) -> Result<ExprId, KernelError> {
        let graph = self.graph;
        let ty = graph.ty(value);
        if let Some(&slot) = self.accumulators.get(&value) {
            return Ok(body.add(Expr::Acc {
                slot,
                dtype: ty.dtype,
            }));
        }
        match &graph.value(value).source {
            Source::Input(input) => Ok(body.add(Expr::Load {
                input: u32::try_from(*input).expect("regions have under 2^32 inputs"),
                index: at.to_vec(),
                dtype: ty.dtype,
            })),
            Source::Weight(data) => {
                let scalar = scalar_of(data).ok_or_else(|| KernelError::WeightNotScalar {
                    name: graph.value(value).name.clone(),
                    found: data.n_elements(),
                })?;
                Ok(body.add(Expr::Const(scalar)))
            }
            Source::Node(node, result) => self.apply(body, *node, *result, at),
        }
    }

    fn apply(
        &mut self,
        body: &mut Body,
        id: NodeId,
        result_index: usize,
        at: &[Index],
    ) -> Result<ExprId, KernelError> {
        let graph = self.graph;
        let node = graph.node(id);
        let def = ops::lookup(node.op).ok_or_else(|| KernelError::UnknownOp {
            op: node.op.to_owned(),
        })?;
        let attrs = ops::with_defaults(def, node.attrs.clone())?;
        let operands: Vec<Option<TensorType>> = node
            .operands
            .iter()
            .map(|operand| operand.map(|value| graph.ty(value).clone()))
            .collect();
        let mut read = |body: &mut Body, n: usize, at: &[Index]| {
            let operand = node.operands[n].expect("tile functions read operands that are present");
            self.read(body, operand, at)
        };
        let mut ctx = TileCtx {
            attrs: &attrs,
            operands: &operands,
            result: graph.ty(node.results[result_index]),
            result_index,
            at,
            body,
            read: &mut read,
        };
        def.tile(&mut ctx).ok_or_else(|| KernelError::NoCode {
            node: id,
            op: node.op,
            reason: match &def.lower {
                Lowering::Host(reason) => (*reason).to_owned(),
                Lowering::Expand(_) | Lowering::Bounded(_) => {
                    "it is an ONNX form that must be expanded first".to_owned()
                }
                Lowering::Map(_) | Lowering::Tile(..) | Lowering::Loop => "it has no expression".to_owned(),
            },
        })
    }
}

/// The one element of a scalar constant.
fn scalar_of(data: &HostTensor) -> Option<Scalar> {
    if data.n_elements() != 1 {
        return None;
    }
    let dtype = data.dtype();
    Some(if dtype.is_float() {
        Scalar::float(dtype, to_vec::<f64>(data)[0])
    } else if dtype == DType::U64 {
        Scalar {
            dtype,
            bits: to_vec::<u64>(data)[0],
        }
    } else {
        Scalar::int(dtype, to_vec::<i64>(data)[0])
    })
}
