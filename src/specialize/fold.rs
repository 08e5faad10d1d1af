//! Evaluates nodes whose operands are all constants.

use crate::ir::{Graph, HostTensor, Node, Source};
use crate::ops::{self, Datum, Lowering, OpDef, OpError};
use crate::reference::{self, Constants};

/// Results up to this size are always worth folding.
const SMALL_BYTES: usize = 64 << 20;

/// A larger float result is folded only where it is at most this many times its operands:
/// otherwise storing it in the engine costs more than computing it there.
const GROWTH: usize = 8;

/// Folds the nodes from number `first` on that have constant operands alone: their results
/// become weights, and the nodes stay behind as dead ones. What `known` has seen is not evaluated again.
///
/// # Errors
/// If evaluating fails, or a node that only the host can execute is not constant.
pub(super) fn fold_from(graph: &mut Graph, first: usize, known: Option<&Constants>) -> Result<(), OpError> {
    for position in first..graph.nodes.len() {
        let node = &graph.nodes[position];
        let def = ops::lookup(node.op).expect("emit() added only ops of the table");
        match constant_operands(graph, node) {
            Some(data) if worth_folding(graph, node, &data) => {
                let results = evaluate(def, node, &data, known)?;
                let values = node.results.clone();
                for (value, tensor) in values.into_iter().zip(results) {
                    set_constant(graph, value, tensor)?;
                }
            }
            Some(_) | None => expect_compiled(def)?,
        }
    }
    Ok(())
}

fn constant_operands(graph: &Graph, node: &Node) -> Option<Vec<Option<Datum>>> {
    node.operands
        .iter()
        .map(|operand| match operand {
            Some(value) => Some(Some(Datum::Tensor(graph.weight(*value)?.clone()))),
            None => Some(None),
        })
        .collect()
}

fn worth_folding(graph: &Graph, node: &Node, operands: &[Option<Datum>]) -> bool {
    let operand_bytes: usize = operands
        .iter()
        .flatten()
        .filter_map(|datum| datum.tensor().ok())
        .map(HostTensor::n_bytes)
        .sum();
    node.results.iter().all(|&result| {
        let ty = graph.ty(result);
        let bytes = ty.n_bytes();
        bytes <= SMALL_BYTES || !ty.dtype.is_float() || bytes <= operand_bytes.saturating_mul(GROWTH)
    })
}

fn evaluate(
    def: &'static OpDef,
    node: &Node,
    data: &[Option<Datum>],
    known: Option<&Constants>,
) -> Result<Vec<HostTensor>, OpError> {
    let computed = || {
        let results = reference::eval_constant(def, &node.attrs, data, node.results.len())?;
        results.into_iter().map(|datum| datum.tensor().cloned()).collect()
    };
    let Some(known) = known else {
        return computed();
    };
    let operands = data
        .iter()
        .map(|datum| datum.as_ref().map(Datum::tensor).transpose())
        .collect::<Result<Vec<_>, _>>()?;
    known.results(node.op, &node.attrs, &operands, computed)
}

fn set_constant(graph: &mut Graph, value: crate::ir::ValueId, tensor: HostTensor) -> Result<(), OpError> {
    let expected = graph.ty(value);
    if *expected != tensor.ty() {
        let found = tensor.ty();
        return Err(OpError::invalid(format!(
            "inference says `{expected}`, evaluating a constant gives `{found}`"
        )));
    }
    graph.value_mut(value).source = Source::Weight(tensor);
    Ok(())
}

fn expect_compiled(def: &OpDef) -> Result<(), OpError> {
    match &def.lower {
        Lowering::Host(reason) => Err(OpError::HostOnly((*reason).to_owned())),
        Lowering::Bounded(form) => Err(OpError::HostOnly(form.reason.to_owned())),
        Lowering::Map(_) | Lowering::Tile(..) | Lowering::Loop | Lowering::Expand(_) => Ok(()),
    }
}
