//! Rebuilds a graph with what its outputs need: no dead nodes, no nodes that do nothing, no
//! weight twice, and of constants that repeat themselves no more than is read.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};

use rustc_hash::FxHasher;

use super::repeated::once;
use crate::ir::{Graph, HostTensor, Node, Operand, Source, ValueId};

/// The live part of a typed graph. All inputs stay, in order.
pub(super) fn tidy(graph: &Graph) -> Graph {
    let same = same_as(graph);
    let live = live(graph, &same);
    let mut rebuild = Rebuild {
        graph,
        target: Graph::new(&graph.name),
        renamed: vec![None; graph.values.len()],
        weights: HashMap::new(),
    };
    for &input in &graph.inputs {
        let value = graph.value(input);
        rebuild.renamed[input.0 as usize] = Some(rebuild.target.add_input(&value.name, value.ty.clone()));
    }
    for (node, _) in graph.nodes.iter().zip(live).filter(|(_, live)| *live) {
        rebuild.node(node, &same);
    }
    for (&output, name) in graph.outputs.iter().zip(&graph.output_names) {
        let value = rebuild.value(same[output.0 as usize]);
        rebuild.target.add_output(name, value);
    }
    rebuild.target.bounds.clone_from(&graph.bounds);
    rebuild.target.limits.clone_from(&graph.limits);
    rebuild.target
}

/// For each value the one it equals, seen through nodes that do nothing.
fn same_as(graph: &Graph) -> Vec<ValueId> {
    let mut same: Vec<ValueId> = (0..).map(ValueId).take(graph.values.len()).collect();
    for node in &graph.nodes {
        let ([Some(operand)], [result]) = (node.operands.as_slice(), node.results.as_slice()) else {
            continue;
        };
        if does_nothing(graph, node, *operand, *result) {
            same[result.0 as usize] = same[operand.0 as usize];
        }
    }
    same
}

/// Whether a node with one operand gives it back. The ops named keep the order of elements
/// where they keep the type.
fn does_nothing(graph: &Graph, node: &Node, operand: ValueId, result: ValueId) -> bool {
    if !matches!(graph.value(result).source, Source::Node(..)) || graph.ty(operand) != graph.ty(result) {
        return false;
    }
    match node.op {
        "identity" | "reshape" | "expand" | "cast" => true,
        "transpose" => {
            let perm = node.attrs.ints("perm").unwrap_or_default();
            perm.iter().copied().eq((0..).take(graph.ty(operand).rank()))
        }
        "slice" => {
            let steps = node.attrs.ints("steps").unwrap_or_default();
            steps.iter().all(|&step| step == 1)
        }
        _ => false,
    }
}

/// Which nodes the outputs depend on.
fn live(graph: &Graph, same: &[ValueId]) -> Vec<bool> {
    let mut needed = vec![false; graph.values.len()];
    for output in &graph.outputs {
        needed[same[output.0 as usize].0 as usize] = true;
    }
    let mut live = vec![false; graph.nodes.len()];
    for (node, live) in graph.nodes.iter().zip(&mut live).rev() {
        // A folded node's results are weights by now.
        *live = node.results.iter().any(|result| {
            needed[result.0 as usize] && matches!(graph.value(*result).source, Source::Node(..))
        });
        if *live {
            for operand in node.operands.iter().flatten() {
                needed[same[operand.0 as usize].0 as usize] = true;
            }
        }
    }
    live
}

struct Rebuild<'a> {
    graph: &'a Graph,
    target: Graph,
    renamed: Vec<Option<ValueId>>,
    /// Weights of the target by a digest of their data.
    weights: HashMap<u64, Vec<ValueId>>,
}

impl Rebuild<'_> {
    fn node(&mut self, node: &Node, same: &[ValueId]) {
        let operands: Vec<Operand> = node
            .operands
            .iter()
            .map(|operand| operand.map(|value| self.operand(node, same[value.0 as usize])))
            .collect();
        let id = self.target.copy_node(self.graph, node, operands);
        for (&old, &new) in node.results.iter().zip(&self.target.node(id).results) {
            self.renamed[old.0 as usize] = Some(new);
        }
    }

    /// What stands for `value` as an operand of `node`.
    fn operand(&mut self, node: &Node, value: ValueId) -> ValueId {
        match once(self.graph, node, value) {
            Some(shorter) => self.weight(&self.graph.value(value).name, &shorter),
            None => self.value(value),
        }
    }

    /// The target's value for one of the graph; adds it where it is a weight.
    fn value(&mut self, value: ValueId) -> ValueId {
        if let Some(renamed) = self.renamed[value.0 as usize] {
            return renamed;
        }
        let data = self
            .graph
            .weight(value)
            .expect("nodes are in topological order, so only weights can be new");
        let renamed = self.weight(&self.graph.value(value).name, data);
        self.renamed[value.0 as usize] = Some(renamed);
        renamed
    }

    fn weight(&mut self, name: &str, data: &HostTensor) -> ValueId {
        let candidates = self.weights.entry(digest(data)).or_default();
        let target = &self.target;
        let known = candidates
            .iter()
            .find(|&&known| target.weight(known).is_some_and(|other| same_data(other, data)));
        if let Some(&known) = known {
            return known;
        }
        let added = self.target.add_weight(name, data.clone());
        candidates.push(added);
        added
    }
}

fn same_data(a: &HostTensor, b: &HostTensor) -> bool {
    std::ptr::eq(a.bytes(), b.bytes()) && a.ty() == b.ty() || a == b
}

/// Digest of the type and of up to 64 words spread over the data: equal for equal weights,
/// and cheap for large ones.
fn digest(data: &HostTensor) -> u64 {
    let mut hasher = FxHasher::default();
    (data.dtype(), data.dims()).hash(&mut hasher);
    let bytes = data.bytes();
    let stride = (bytes.len() / 64).max(8);
    for start in (0..bytes.len()).step_by(stride) {
        bytes[start..(start + 8).min(bytes.len())].hash(&mut hasher);
    }
    hasher.finish()
}
