//! The regions of the small quantised models, with what they read when the model runs.

use rtrt_codegen::ir::{Graph, HostTensor};
use rtrt_codegen::kernel::{KernelOptions, KernelSpec};
use rtrt_codegen::rewrite::{DeviceRates, FusedGraph, RuleSet, TensorSource, fuse};
use rtrt_codegen::{reference, specialize};

#[path = "../quantized/fixture.rs"]
mod fixture;

use fixture::Fixture;
pub use fixture::NAMES;

use crate::regions::Problem;

/// A problem per region of model `name`.
pub fn regions(name: &str) -> Vec<Problem> {
    let fixture = Fixture::read(name);
    let fused = fuse(&core(&fixture), RuleSet::builtin(), DeviceRates::for_sm(90)).unwrap();
    let mut data: Vec<Option<HostTensor>> = fused
        .tensors
        .iter()
        .map(|tensor| match &tensor.source {
            TensorSource::Input(_) => Some(fixture.x.clone()),
            TensorSource::Weight(weight) => Some(weight.clone()),
            TensorSource::Region { .. } => None,
        })
        .collect();
    (0..fused.regions.len())
        .map(|region| problem(name, &fused, region, &mut data))
        .collect()
}

fn core(fixture: &Fixture) -> Graph {
    let bindings = specialize::bind_inputs(&fixture.graph, &[fixture.x.clone()]).unwrap();
    specialize::specialize(&fixture.graph, &bindings).unwrap()
}

/// Region number `number`, whose results are added to `data`.
fn problem(name: &str, fused: &FusedGraph, number: usize, data: &mut [Option<HostTensor>]) -> Problem {
    let region = &fused.regions[number];
    let read =
        |id: &rtrt_codegen::rewrite::TensorId| data[id.0 as usize].clone().expect("regions are in order");
    let inputs: Vec<HostTensor> = region.inputs.iter().map(read).collect();
    let results = reference::run(&region.body, &inputs).unwrap();
    for (output, result) in region.outputs.iter().zip(results) {
        data[output.0 as usize] = Some(result);
    }
    Problem {
        label: format!("{name}, region {number}"),
        spec: KernelSpec::of_region(region, KernelOptions::default()),
        inputs,
    }
}
