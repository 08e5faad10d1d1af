//! The products of a model, which are what can be quantised.

use crate::ir::{DType, Graph, Node, NodeId, ValueId};

/// A convolution, matrix product or fully connected layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    pub node: NodeId,
    /// Name of its ONNX node; its result's where that has none.
    pub name: String,
    pub op: &'static str,
    /// Operands that are computed, by position.
    pub computed: Vec<usize>,
    /// Its weight: position among the operands, and the axis of output channels, if it has one.
    pub weight: Option<(usize, Option<usize>)>,
    pub result: ValueId,
}

/// Terms that groups of four-bit weights have at least, and are a multiple of.
const LEAST_GROUP: usize = 8;
/// Terms of which kernels read that many at once, if groups do not end in between.
const READ_AT_ONCE: usize = 32;

impl Layer {
    /// The axis of its weight that products are summed along, and the largest group of at most `most` terms that
    /// divides it, as long as reads are if there is such a one. `None` where it is no product of matrices, or no
    /// group fits.
    pub fn groups(&self, graph: &Graph, most: usize) -> Option<(usize, usize)> {
        let (position, channels) = self.weight?;
        let weight = graph.weight(graph.node(self.node).operands[position]?)?;
        let rank = weight.dims().len();
        let terms = match (self.op, channels) {
            ("Gemm" | "MatMul", Some(channels)) if rank == 2 => 1 - channels,
            ("MatMul", None) => rank - 2,
            _ => return None,
        };
        let depth = weight.dims()[terms];
        let largest = |unit: usize| {
            let sizes = (1..=most / unit).rev().map(|count| count * unit);
            sizes
                .into_iter()
                .find(|&size| depth > 0 && depth.is_multiple_of(size))
        };
        let group = largest(READ_AT_ONCE).or_else(|| largest(LEAST_GROUP))?;
        Some((terms, group))
    }
}

/// The layers of a prepared model, in order.
pub fn layers(graph: &Graph) -> Vec<Layer> {
    (0..)
        .map(NodeId)
        .zip(&graph.nodes)
        .filter_map(|(id, node)| layer(graph, id, node))
        .collect()
}

fn layer(graph: &Graph, id: NodeId, node: &Node) -> Option<Layer> {
    let weight_of = |position: usize| graph.weight(node.operands.get(position).copied().flatten()?);
    let (first, second) = (weight_of(0), weight_of(1));
    if first.is_some() || node.results.len() != 1 {
        return None;
    }
    let rank = second.map_or(0, |weight| weight.dims().len());
    let axis = match node.op {
        "Conv" if second.is_some() => Some(0),
        "Gemm" if second.is_some() && is_plain_gemm(node) => {
            Some(usize::from(node.attrs.int("transB").unwrap_or(0) == 0))
        }
        "MatMul" => (rank == 2).then_some(1),
        _ => return None,
    };
    if second.is_some_and(|weight| weight.dtype() != DType::F32) || (second.is_some() && rank < 2) {
        return None;
    }
    // Operands that somebody quantised already say what their author wants.
    if node
        .operands
        .iter()
        .flatten()
        .any(|&value| is_dequantised(graph, value))
    {
        return None;
    }
    let value = graph.value(node.results[0]);
    let name = node.origin.first().filter(|name| !name.is_empty());
    Some(Layer {
        node: id,
        name: name.unwrap_or(&value.name).clone(),
        op: node.op,
        computed: if second.is_some() { vec![0] } else { vec![0, 1] },
        weight: second.map(|_| (1, axis)),
        result: node.results[0],
    })
}

/// Whether the rules know it in integers.
fn is_plain_gemm(node: &Node) -> bool {
    let beta = node.attrs.float("beta").unwrap_or(1.0);
    (beta - 1.0).abs() < f64::EPSILON
}

fn is_dequantised(graph: &Graph, value: ValueId) -> bool {
    graph
        .producer(value)
        .is_some_and(|(_, node)| node.op == "DequantizeLinear")
}
