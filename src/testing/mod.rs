//! What tests and benches share: drawn graphs, and tolerances. Hidden from the docs.

pub mod builder;
pub mod graphs;
pub mod tolerance;

use crate::ir::verify::{Violation, verify_typed};
use crate::ir::{Graph, Node, TensorType};
use crate::ops::{self, InferCtx};

/// Checks that `graph` is static, of ops with generated code alone, and typed as their
/// inference says.
///
/// # Errors
/// All violations found.
pub fn verify_core(graph: &Graph) -> Result<(), Vec<Violation>> {
    verify_typed(graph, &types_of)
}

/// Result types of a node as its op infers them.
///
/// # Errors
/// If the op is unknown, only expands, or does not fit.
pub fn types_of(node: &Node, operands: &[Option<TensorType>]) -> Result<Vec<TensorType>, String> {
    let def = ops::lookup(node.op).ok_or_else(|| "no such op".to_owned())?;
    match &def.lower {
        ops::Lowering::Map(_) | ops::Lowering::Tile(..) => {}
        ops::Lowering::Expand(_) => return Err("an op that only expands is left".to_owned()),
        ops::Lowering::Host(reason) => return Err(format!("an op of the host is left: {reason}")),
    }
    (def.infer)(&InferCtx {
        attrs: &node.attrs,
        operands,
    })
    .map_err(|error| error.to_string())
}
