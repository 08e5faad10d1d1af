//! What calibration knows of the tensors of a model: gathered by the reference interpreter, or from what else
//! executed [`observed`].

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::histogram::Histogram;
use super::method::Method;
use super::number::Number;
use crate::ir::{Graph, HostTensor, ValueId};
use crate::ops::evaluate::to_vec;
use crate::reference::{self, ReferenceError};

/// Counts of every float tensor by name, over the batches run so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// Batches that took part, which are the first of the samples.
    pub n_batches: usize,
    pub tensors: BTreeMap<String, Histogram>,
}

impl Statistics {
    /// Runs `graph` on one batch, and counts its inputs and all that it computes.
    ///
    /// # Errors
    /// If the graph cannot be run on it.
    pub fn add_batch(&mut self, graph: &Graph, inputs: &[HostTensor]) -> Result<(), ReferenceError> {
        for (&value, data) in graph.inputs.iter().zip(inputs) {
            self.count(graph, value, data);
        }
        let own = RefCell::new(&mut *self);
        reference::run_watched(graph, inputs, &|value, data| {
            own.borrow_mut().count(graph, value, data);
        })?;
        self.n_batches += 1;
        Ok(())
    }

    /// Counts one batch that [`observed`] was executed on.
    pub fn add_outputs(&mut self, observed: &Graph, inputs: &[HostTensor], outputs: &[HostTensor]) {
        for (&value, data) in observed.inputs.iter().zip(inputs) {
            self.count(observed, value, data);
        }
        for (name, data) in observed.output_names.iter().zip(outputs) {
            self.count_named(name, data);
        }
        self.n_batches += 1;
    }

    fn count(&mut self, graph: &Graph, value: ValueId, data: &HostTensor) {
        self.count_named(&graph.value(value).name, data);
    }

    fn count_named(&mut self, name: &str, data: &HostTensor) {
        if name.is_empty() || !data.dtype().is_float() {
            return;
        }
        let histogram = self.tensors.entry(name.to_owned()).or_default();
        histogram.add(&to_f32(data));
    }

    /// The range of every tensor by `method`, as `number` will represent it.
    pub fn ranges(&self, method: Method, number: Number) -> BTreeMap<String, (f64, f64)> {
        use rayon::prelude::*;
        let tensors: Vec<(&String, &Histogram)> = self.tensors.iter().collect();
        tensors
            .into_par_iter()
            .map(|(name, histogram)| (name.clone(), method.range(histogram, number)))
            .collect()
    }

    /// The greatest size of every tensor, saturated or not.
    pub fn largest(&self) -> BTreeMap<String, f64> {
        let largest = |histogram: &Histogram| match histogram.n_not_finite() {
            0 => histogram.largest(),
            _ => f64::INFINITY,
        };
        self.tensors
            .iter()
            .map(|(name, histogram)| (name.clone(), largest(histogram)))
            .collect()
    }
}

/// `graph` with all that its nodes compute as outputs, under their own names.
pub fn observed(graph: &Graph) -> Graph {
    let mut observed = graph.clone();
    observed.outputs.clear();
    observed.output_names.clear();
    for &value in graph.nodes.iter().flat_map(|node| &node.results) {
        let known = graph.value(value);
        let is_counted = known.ty.as_ref().is_none_or(|ty| ty.dtype.is_float());
        if !known.name.is_empty() && is_counted {
            observed.add_output(&known.name, value);
        }
    }
    observed
}

#[expect(clippy::cast_possible_truncation, reason = "ranges are kept as f32")]
fn to_f32(data: &HostTensor) -> Vec<f32> {
    match data.dtype() {
        crate::ir::DType::F32 => data.as_slice::<f32>().to_vec(),
        _ => to_vec::<f64>(data)
            .into_iter()
            .map(|value| value as f32)
            .collect(),
    }
}
