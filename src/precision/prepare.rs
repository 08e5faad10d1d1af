//! Brings an imported model into the form that is quantised: weights are constants, and batch
//! normalisations are part of the convolutions before them.

use super::copy::Copy;
use crate::ir::{Graph, HostTensor, Node, ValueId};
use crate::ops::evaluate::{from_values, to_vec};
use crate::ops::{self, Datum, Lowering};
use crate::reference;

/// Constants larger than this are left to be computed where they are used.
const MOST_BYTES: usize = 256 << 20;

/// A constant may be at most this many times its operands.
const GROWTH: usize = 4;

/// `graph` with constants evaluated and batch normalisations folded. Names of what is left stay.
pub fn prepare(graph: &Graph) -> Graph {
    fold_batch_norms(&fold_constants(graph))
}

fn fold_constants(graph: &Graph) -> Graph {
    let mut copy = Copy::new(graph);
    for node in &graph.nodes {
        if let Some(data) = constant(&mut copy, node) {
            copy.set_weight(node.results[0], data);
        } else {
            let operands = copy.operands(node);
            copy.node(node, operands);
        }
    }
    copy.finish()
}

/// The result of a node over constants alone. Dequantised weights stay what they are: their model is
/// quantised already.
fn constant(copy: &mut Copy<'_>, node: &Node) -> Option<HostTensor> {
    let def = ops::lookup(node.op)?;
    let is_plain = !matches!(def.lower, Lowering::Host(_)) && node.results.len() == 1;
    if !is_plain
        || node.op == "DequantizeLinear"
        || node.bodies().next().is_some()
        || node.operands.is_empty()
    {
        return None;
    }
    let operands = copy.operands(node);
    let data: Vec<Option<Datum>> = operands
        .into_iter()
        .map(|operand| match operand {
            Some(value) => Some(Some(Datum::Tensor(copy.target.weight(value)?.clone()))),
            None => Some(None),
        })
        .collect::<Option<_>>()?;
    let n_bytes: usize = data
        .iter()
        .flatten()
        .filter_map(|datum| datum.tensor().ok())
        .map(HostTensor::n_bytes)
        .sum();
    let results = reference::eval_node(def, &node.attrs, &data, 1).ok()?;
    let result = results.first()?.tensor().ok()?;
    let most = (n_bytes * GROWTH).clamp(1 << 16, MOST_BYTES);
    let is_worth = result.n_bytes() <= most;
    is_worth.then(|| result.clone())
}

fn fold_batch_norms(graph: &Graph) -> Graph {
    let mut copy = Copy::new(graph);
    let n_readers = readers(graph);
    let folds: Vec<Option<Fold<'_>>> = graph
        .nodes
        .iter()
        .map(|node| Fold::of(graph, node, &n_readers))
        .collect();
    let folded: Vec<ValueId> = folds.iter().flatten().map(|fold| fold.conv.results[0]).collect();
    for (node, fold) in graph.nodes.iter().zip(&folds) {
        match fold {
            Some(fold) => fold.emit(&mut copy, node),
            // It is written where its batch normalisation stood.
            None if node.results.iter().any(|result| folded.contains(result)) => {}
            None => {
                let operands = copy.operands(node);
                copy.node(node, operands);
            }
        }
    }
    copy.finish()
}

/// How many operands and outputs each value is.
pub fn readers(graph: &Graph) -> Vec<usize> {
    let mut count = vec![0; graph.values.len()];
    let operands = graph.nodes.iter().flat_map(|node| node.operands.iter().flatten());
    for value in operands.chain(&graph.outputs) {
        count[value.0 as usize] += 1;
    }
    count
}

/// A batch normalisation and the convolution that only it reads.
struct Fold<'a> {
    conv: &'a Node,
    weight: &'a HostTensor,
    bias: Option<&'a HostTensor>,
    /// Per channel.
    gain: Vec<f64>,
    offset: Vec<f64>,
}

impl<'a> Fold<'a> {
    fn of(graph: &'a Graph, node: &Node, n_readers: &[usize]) -> Option<Self> {
        if node.op != "BatchNormalization"
            || node.results.len() != 1
            || node.attrs.int("training_mode") == Some(1)
        {
            return None;
        }
        let x = node.operands[0]?;
        let (_, conv) = graph.producer(x)?;
        if conv.op != "Conv" || n_readers[x.0 as usize] != 1 {
            return None;
        }
        let weight = graph.weight(conv.operands.get(1).copied()??)?;
        let bias = match conv.operands.get(2).copied().flatten() {
            Some(bias) => Some(graph.weight(bias)?),
            None => None,
        };
        let constant = |n: usize| -> Option<Vec<f64>> {
            let data = graph.weight(node.operands.get(n).copied()??)?;
            Some(to_vec(data))
        };
        let (gamma, beta, mean, variance) = (constant(1)?, constant(2)?, constant(3)?, constant(4)?);
        let epsilon = node.attrs.float("epsilon").unwrap_or(1e-5);
        let gain: Vec<f64> = gamma
            .iter()
            .zip(&variance)
            .map(|(gamma, variance)| gamma / (variance + epsilon).sqrt())
            .collect();
        let offset = beta
            .iter()
            .zip(mean.iter().zip(&gain))
            .map(|(beta, (mean, gain))| beta - mean * gain)
            .collect();
        (weight.dims().first() == Some(&gain.len())).then_some(Fold {
            conv,
            weight,
            bias,
            gain,
            offset,
        })
    }

    /// The convolution with scaled filters, under the name of the normalisation's result.
    fn emit(&self, copy: &mut Copy<'_>, norm: &Node) {
        let x = copy.value(self.conv.operands[0].expect("a convolution has an input"));
        let (weight, bias) = (self.filters(), self.offsets());
        let weight_name = copy
            .from
            .value(self.conv.operands[1].expect("it was looked up"))
            .name
            .clone();
        let weight = copy.target.add_weight(&weight_name, weight);
        let bias = copy.target.add_weight(&format!("{weight_name}.bias"), bias);
        let name = copy.from.value(norm.results[0]).name.clone();
        let origin = [self.conv.origin.clone(), norm.origin.clone()].concat();
        let operands = vec![Some(x), Some(weight), Some(bias)];
        let id = copy.target.add_node(
            "Conv",
            operands,
            self.conv.attrs.clone(),
            &[(&name, None)],
            origin,
        );
        let own = copy.target.node(id).results[0];
        copy.set(norm.results[0], own);
    }

    fn filters(&self) -> HostTensor {
        let mut values: Vec<f64> = to_vec(self.weight);
        let filter = values.len() / self.gain.len().max(1);
        for (own, gain) in values.chunks_mut(filter.max(1)).zip(&self.gain) {
            for value in own {
                *value *= gain;
            }
        }
        from_values(self.weight.dtype(), self.weight.dims(), &values)
    }

    fn offsets(&self) -> HostTensor {
        let own: Vec<f64> = self.bias.map_or_else(|| vec![0.0; self.gain.len()], to_vec);
        let values: Vec<f64> = own
            .iter()
            .zip(self.gain.iter().zip(&self.offset))
            .map(|(bias, (gain, offset))| bias * gain + offset)
            .collect();
        from_values(self.weight.dtype(), &[values.len()], &values)
    }
}
