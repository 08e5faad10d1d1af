//! Statistics of tensors over samples, from the reference interpreter or a device.

use std::cell::Cell;

use super::super::{Observer, OnDevice, PipelineError, Settings};
use crate::io::samples::Samples;
use crate::ir::{DType, Graph, HostTensor};
use crate::precision::calibrate::{self, Aside, CalibrateError};
use crate::precision::{self, Statistics};

/// Statistics of the tensors that quantising `model` would ask about.
///
/// # Errors
/// If a sample cannot be read or run.
pub fn statistics(
    model: &Graph,
    samples: &Samples,
    aside: Option<&Aside>,
    observer: &dyn Observer,
) -> Result<Statistics, PipelineError> {
    let graph = precision::prepare(model);
    observer.stage("calibrate", samples.len());
    let is_first = Cell::new(true);
    let progress = |n_done, n_all| tell(observer, &is_first, n_done, n_all);
    Ok(calibrate::gather(&graph, samples, aside, &progress)?)
}

/// As [`statistics`], where `execute` computes the outputs of a graph for a batch: it is given one whose outputs
/// are all that the model's nodes compute. Batches that it fails on are left to the reference interpreter, as are
/// all after them.
///
/// # Errors
/// If a sample cannot be read, or the reference cannot run what `execute` could not.
pub fn statistics_by(
    model: &Graph,
    samples: &Samples,
    aside: Option<&Aside>,
    observer: &dyn Observer,
    execute: &mut dyn FnMut(&Graph, &[HostTensor]) -> Result<Vec<HostTensor>, PipelineError>,
) -> Result<Statistics, PipelineError> {
    let graph = precision::prepare(model);
    let observed = precision::observed(&graph);
    observer.stage("calibrate on the device", samples.len());
    let is_first = Cell::new(true);
    let progress = |n_done, n_all| tell(observer, &is_first, n_done, n_all);
    let mut fits = true;
    calibrate::gather_by(samples, aside, &progress, &mut |statistics, inputs| {
        if fits {
            match execute(&observed, inputs) {
                Ok(outputs) => {
                    statistics.add_outputs(&observed, inputs, &outputs);
                    return Ok(());
                }
                Err(error) => {
                    fits = false;
                    observer.stage(&format!("calibrate on the CPU, since {error}"), samples.len());
                }
            }
        }
        let batch = statistics.n_batches;
        let added = statistics.add_batch(&graph, inputs);
        Ok(added.map_err(|source| CalibrateError::Reference { batch, source })?)
    })
}

/// As [`statistics`], on device `ordinal`.
///
/// # Errors
/// As [`statistics_by`].
pub fn statistics_on_device(
    model: &Graph,
    samples: &Samples,
    aside: Option<&Aside>,
    ordinal: usize,
    observer: &dyn Observer,
) -> Result<Statistics, PipelineError> {
    let settings = Settings::stored_in(DType::F32);
    let mut device = OnDevice::new(ordinal, &settings);
    statistics_by(model, samples, aside, observer, &mut |graph, inputs| {
        device.run(graph, inputs)
    })
}

/// Tells of batches, first of those that were done earlier.
fn tell(observer: &dyn Observer, is_first: &Cell<bool>, n_done: usize, n_all: usize) {
    if is_first.replace(false) && n_done > 0 {
        observer.stage(&format!("going on after {n_done} batches"), n_all);
    }
    observer.step(n_done, n_all);
}
