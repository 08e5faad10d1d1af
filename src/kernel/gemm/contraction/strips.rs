//! Results that are sums over neighbouring columns.

use super::{M, N};
use crate::ir::{DType, Graph, ValueId};
use crate::tile::{Body, Extent, Index};

/// What is summed over neighbouring columns, where `output` is such sums, side by side where they are several:
/// each by row, strip and column.
pub fn summed_in_strips(graph: &Graph, output: ValueId) -> Option<Vec<ValueId>> {
    let (_, node) = graph.producer(output)?;
    if node.op == "concat" && node.attrs.int("axis") == Some(2) {
        let operands = node.operands.iter().flatten();
        return operands.map(|&operand| summed_in_strip(graph, operand)).collect();
    }
    Some(vec![summed_in_strip(graph, output)?])
}

fn summed_in_strip(graph: &Graph, sums: ValueId) -> Option<ValueId> {
    let (_, node) = graph.producer(sums)?;
    let is_sum = node.op == "reduce_sum" && node.attrs.ints("axes") == Some(&[2]);
    let summed = node.operands.first().copied().flatten()?;
    let fits = is_sum && graph.ty(summed).rank() == 3 && graph.ty(summed).dtype == DType::F32;
    fits.then_some(summed)
}

/// Columns of a strip, where elements at `at` are rows of strips as wide as `dims` says.
pub fn strip_columns(at: &[Index], dims: &[usize], body: &Body) -> Option<usize> {
    let columns = Extent::from(dims[2]);
    let column = Index::var(N);
    let wanted = [
        Index::var(M),
        column.div(&columns, &body.vars),
        column.modulo(&columns, &body.vars),
    ];
    (at == wanted).then_some(dims[2])
}
