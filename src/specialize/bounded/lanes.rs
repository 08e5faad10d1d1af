//! Proofs that what an op computes of elements that are there does not depend on those that are not.

use super::amounts::Amounts;
use super::eval::Eval;
use super::formula::{Formula, Needs};
use super::masks::{self, Mask};
use super::{Lane, Span};
use crate::ir::{Graph, Node, ValueId};
use crate::tile::Scalar;

/// What is found of one node.
pub(super) struct Reading {
    /// Axes of the result of which element `i` needs element `i` of operands, and no other that may be missing.
    pub lanes: Vec<Lane>,
    pub masks: Vec<Mask>,
    /// Constants that the result is computed with.
    pub constants: Vec<Scalar>,
}

/// How result `number` of `node` depends on the axes in `operands`, one list for each of its operands.
///
/// # Errors
/// If it depends on them otherwise: why.
pub(super) fn read(
    graph: &Graph,
    amounts: &mut Amounts,
    node: &Node,
    number: usize,
    operands: &[Vec<Lane>],
) -> Result<Reading, String> {
    let mixes = |axis: usize| format!("`{}` mixes elements along axis {axis} of its operand", node.op);
    let is_empty = |&value: &ValueId| graph.ty(value).n_elements() == 0;
    if is_empty(&node.results[number]) || node.operands.iter().flatten().any(is_empty) {
        return Err(format!("`{}` has no elements", node.op));
    }
    let formula = Formula::of(graph, node, number).ok_or_else(|| {
        let axis = operands.iter().flatten().map(|lane| lane.axis).next();
        mixes(axis.unwrap_or(0))
    })?;
    let mut eval = Eval::new(amounts, graph, &node.operands, &formula.body);
    let needs = Needs::of(&formula.body, formula.root, &mut eval);
    let runs = formula.runs(&needs, operands).map_err(mixes)?;
    formula.expect_no_other(&needs, &runs.lanes, operands)?;
    let masks = masks::masks(&formula, amounts, &needs, &runs)
        .ok_or_else(|| mixes(runs.reduced.first().map_or(0, |run| run.lane.axis)))?;
    Ok(Reading {
        lanes: runs.lanes,
        masks,
        constants: needs.constants,
    })
}

/// Constants that result `number` of `node` is computed with.
pub(super) fn constants(graph: &Graph, amounts: &mut Amounts, node: &Node, number: usize) -> Vec<Scalar> {
    let Some(formula) = Formula::of(graph, node, number) else {
        return Vec::new();
    };
    let mut eval = Eval::new(amounts, graph, &node.operands, &formula.body);
    Needs::of(&formula.body, formula.root, &mut eval).constants
}

/// The values of a graph from number `first` on that are constants of a larger extent where an axis has one.
pub(super) fn constant_lanes(dims: &[usize], larger: &[usize]) -> Vec<Lane> {
    let lanes = dims.iter().enumerate().filter_map(|(axis, extent)| {
        let count = larger.iter().position(|own| own == extent)?;
        Some(Lane {
            axis,
            span: Span { count, factor: 1 },
        })
    });
    lanes.collect()
}

/// Names a value by its number.
pub(super) fn value(number: usize) -> ValueId {
    ValueId(u32::try_from(number).expect("graphs have under 2^32 values"))
}
