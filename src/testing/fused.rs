//! Runs a fused graph on the CPU: every region through the reference interpreter, in order.

use crate::ir::HostTensor;
use crate::reference::{self, ReferenceError};
use crate::rewrite::{FusedGraph, TensorId, TensorSource};

/// The outputs of `fused` on one tensor per input, region by region.
///
/// # Errors
/// If a region's body cannot be run.
///
/// # Panics
/// If a region reads a tensor that no earlier region wrote.
pub fn run_fused(fused: &FusedGraph, inputs: &[HostTensor]) -> Result<Vec<HostTensor>, ReferenceError> {
    let mut data: Vec<Option<HostTensor>> = fused
        .tensors
        .iter()
        .map(|tensor| match &tensor.source {
            TensorSource::Input(position) => inputs.get(*position).cloned(),
            TensorSource::Weight(weight) => Some(weight.clone()),
            TensorSource::Region { .. } => None,
        })
        .collect();
    let read = |data: &[Option<HostTensor>], id: TensorId| {
        let own = data[id.0 as usize].clone();
        own.unwrap_or_else(|| panic!("t{} is read before it is written", id.0))
    };
    for region in &fused.regions {
        let operands: Vec<HostTensor> = region.inputs.iter().map(|&id| read(&data, id)).collect();
        let results = reference::run(&region.body, &operands)?;
        for (&output, result) in region.outputs.iter().zip(results) {
            data[output.0 as usize] = Some(result);
        }
    }
    Ok(fused.outputs.iter().map(|(_, id)| read(&data, *id)).collect())
}
