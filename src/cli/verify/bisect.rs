//! The first node of a model whose compiled result differs from the reference.

use super::super::failure::Failure;
use crate::ir::{Graph, HostTensor, NodeId, ValueId};

/// A node whose result differs though that of every node asked before it does not.
pub struct Culprit {
    pub op: &'static str,
    /// Its ONNX nodes.
    pub origin: Vec<String>,
    pub value: String,
    /// `|found - expected| / |expected|` in the 2-norm.
    pub relative_norm: f64,
    /// Models compiled to find it.
    pub n_tried: usize,
}

/// Looks for it by halves: a model that ends at a node is compiled and compared by `differs`,
/// which tells how far the result is off where it is too far. What comes after a wrong result is
/// taken to be wrong, too.
pub fn first_difference(
    graph: &Graph,
    mut differs: impl FnMut(&Graph) -> Result<Option<f64>, Failure>,
) -> Result<Option<Culprit>, Failure> {
    let ends: Vec<(usize, ValueId)> = graph
        .nodes
        .iter()
        .enumerate()
        .filter_map(|(number, node)| Some((number, *node.results.first()?)))
        .filter(|&(_, value)| {
            graph
                .value(value)
                .ty
                .as_ref()
                .is_none_or(|ty| ty.dtype.is_float())
        })
        .collect();
    let (mut right, mut wrong) = (0, ends.len());
    let mut culprit = None;
    let mut n_tried = 0;
    while right < wrong {
        let middle = usize::midpoint(right, wrong);
        let (number, value) = ends[middle];
        n_tried += 1;
        match differs(&ending_at(graph, number, value))? {
            Some(relative_norm) => {
                let node = graph.node(NodeId(u32::try_from(number).expect("node ids are u32")));
                culprit = Some(Culprit {
                    op: node.op,
                    origin: node.origin.clone(),
                    value: graph.value(value).name.clone(),
                    relative_norm,
                    n_tried,
                });
                wrong = middle;
            }
            None => right = middle + 1,
        }
    }
    Ok(culprit.map(|culprit| Culprit { n_tried, ..culprit }))
}

/// The part of `graph` up to node `number`, with `value` as its only output.
fn ending_at(graph: &Graph, number: usize, value: ValueId) -> Graph {
    let mut part = graph.clone();
    part.nodes.truncate(number + 1);
    part.outputs = vec![value];
    part.output_names = vec!["result".to_owned()];
    part
}

/// Whether any value of `tensors` is not a number or infinite.
pub fn any_not_finite(tensors: &[HostTensor]) -> bool {
    let finite = |tensor: &HostTensor| {
        crate::ops::evaluate::to_vec::<f64>(tensor)
            .iter()
            .all(|value| value.is_finite())
    };
    !tensors.iter().all(finite)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::builder::GraphBuilder;

    #[test]
    fn the_first_wrong_node_is_found_by_halves() {
        let mut builder = GraphBuilder::new("chain", 1);
        let mut value = builder.input(&[4]);
        for _ in 0..100 {
            value = builder.plain("neg", &[value]);
        }
        builder.output(value);
        let graph = builder.graph;
        for culprit in [0, 1, 50, 98, 99] {
            let found = first_difference(&graph, |part| Ok((part.nodes.len() > culprit).then_some(0.5)))
                .unwrap()
                .unwrap();
            assert!(found.n_tried <= 7, "{}", found.n_tried);
            let (_, node) = graph.producer(node_value(&graph, culprit)).unwrap();
            assert_eq!(found.value, graph.value(node.results[0]).name);
        }
        assert!(first_difference(&graph, |_| Ok(None)).unwrap().is_none());
    }

    fn node_value(graph: &Graph, number: usize) -> ValueId {
        graph.nodes[number].results[0]
    }
}
