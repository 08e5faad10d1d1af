//! Constants that say the same again along an axis say it once.
//!
//! An embedding of positions that are all alike, or a mask of zeros, is as large as the activations that it is added to,
//! in every shape of them. Where an op reads its operands as broadcast, one copy does, which shapes then have in
//! common. The last axis that is longer than one stays: a vector is a vector, whatever its values.

use crate::ir::{Graph, HostTensor, Node, ValueId};
use crate::ops::{Lowering, lookup};

/// The constant that `node` may read in the place of `value`, if that is a shorter one.
pub(super) fn once(graph: &Graph, node: &Node, value: ValueId) -> Option<HostTensor> {
    let data = graph.weight(value)?;
    let broadcasts = matches!(lookup(node.op)?.lower, Lowering::Map(_));
    let longest = data.dims().iter().rposition(|&extent| extent > 1)?;
    if !broadcasts || data.n_elements() == 0 {
        return None;
    }
    let is_long = |axis: &usize| data.dims()[*axis] > 1 && is_given(graph, node, data, *axis);
    let mut own = data.clone();
    for axis in (0..longest).filter(is_long) {
        own = first_of(&own, axis).unwrap_or(own);
    }
    (own.dims() != data.dims()).then_some(own)
}

/// Whether what is computed has the extent of `data` along `axis`, so that the result has it without `data`.
fn is_given(graph: &Graph, node: &Node, data: &HostTensor, axis: usize) -> bool {
    let from_end = data.dims().len() - axis;
    let computed = node.operands.iter().flatten();
    let mut computed = computed.filter(|&&other| graph.weight(other).is_none());
    computed.any(|&other| {
        let dims = graph.ty(other).dims();
        dims.len().checked_sub(from_end).map(|at| dims[at]) == Some(data.dims()[axis])
    })
}

/// What `data` holds at the first place along `axis`, if it holds that at all of them.
fn first_of(data: &HostTensor, axis: usize) -> Option<HostTensor> {
    let mut dims = data.dims().to_vec();
    let part = dims[axis + 1..].iter().product::<usize>() * data.dtype().size_bytes();
    let all = data.bytes().chunks_exact(part * dims[axis]);
    let is_one = |own: &[u8]| own.chunks_exact(part).skip(1).all(|other| *other == own[..part]);
    if !all.clone().all(is_one) {
        return None;
    }
    let bytes: Vec<u8> = all.flat_map(|own| &own[..part]).copied().collect();
    dims[axis] = 1;
    HostTensor::from_bytes(data.dtype(), &dims, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::DType;
    use crate::ops::evaluate::from_values;
    use crate::testing::builder::GraphBuilder;

    /// The dims of the constant that `op` reads beside a value of `dims`.
    fn read(op: &'static str, dims: &[usize], constant: &[usize], values: &[f64]) -> Option<Vec<usize>> {
        let mut g = GraphBuilder::new("g", 1);
        let x = g.input(dims);
        let data = from_values(DType::F32, constant, values);
        let c = g.graph.add_weight("", data);
        let y = g.plain(op, &[x, c]);
        g.output(y);
        once(&g.graph, &g.graph.nodes[0], c).map(|own| own.dims().to_vec())
    }

    #[test]
    fn what_is_the_same_along_an_axis_is_read_once() {
        let rows = [1.0, 2.0, 1.0, 2.0, 1.0, 2.0];
        assert_eq!(read("add", &[5, 3, 2], &[3, 2], &rows), Some(vec![1, 2]));
        assert_eq!(read("add", &[3, 2], &[1, 3, 2], &rows), Some(vec![1, 1, 2]));
        let twice: Vec<f64> = rows.iter().map(|_| 4.0).chain(rows).collect();
        assert_eq!(read("mul", &[2, 3, 2], &[2, 3, 2], &twice), Some(vec![2, 1, 2]));
        assert_eq!(
            read("mul", &[2, 3, 2], &[2, 3, 2], &[0.5; 12]),
            Some(vec![1, 1, 2])
        );
    }

    #[test]
    fn what_differs_or_decides_the_result_stays() {
        let rows = [1.0, 2.0, 1.0, 2.0, 1.0, 3.0];
        assert_eq!(read("add", &[5, 3, 2], &[3, 2], &rows), None);
        // Only the constant has three rows.
        assert_eq!(read("add", &[1, 2], &[3, 2], &[0.5; 6]), None);
        // A vector stays one, and other ops do not broadcast.
        assert_eq!(read("add", &[3, 2], &[2], &[0.5; 2]), None);
        assert_eq!(read("add", &[4, 3, 1], &[3, 1], &[0.5; 3]), None);
        assert_eq!(read("matmul", &[2, 3], &[3, 2], &[0.5; 6]), None);
    }
}
