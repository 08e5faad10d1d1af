//! The regions of the small quantised models, with what they read when the model runs.

use std::path::Path;

use rtrt_codegen::io::samples::Samples;
use rtrt_codegen::ir::{DType, Graph, HostTensor};
use rtrt_codegen::kernel::{KernelOptions, KernelSpec};
use rtrt_codegen::pipeline::precise::{self, Calibration, Precise, Request};
use rtrt_codegen::pipeline::{self, Settings, Silent};
use rtrt_codegen::precision::{Kind, Method, Plan};
use rtrt_codegen::rewrite::{DeviceRates, FusedGraph, RuleSet, TensorSource, fuse};
use rtrt_codegen::{onnx, reference, specialize};

#[path = "../quantized/fixture.rs"]
mod fixture;

use fixture::Fixture;
pub use fixture::NAMES;

use crate::SM_90;
use crate::regions::Problem;

/// A problem per region of model `name`.
pub fn regions(name: &str) -> Vec<Problem> {
    let fixture = Fixture::read(name);
    let fused = fuse(&core(&fixture), RuleSet::builtin(), DeviceRates::for_sm(90)).unwrap();
    problems(name, &fused, &[fixture.x])
}

/// A problem per region of a trained network of `tests/precision` whose layers are all of `kind`.
pub fn network(name: &str, kind: Kind, float: DType) -> Vec<Problem> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/precision");
    let model = onnx::import_file(&folder.join(format!("{name}.onnx")))
        .unwrap()
        .graph;
    let mut samples = Samples::open(&folder.join("calibration.npz"), &precise::declared(&model), 1).unwrap();
    samples.truncate(8);
    let statistics = precise::statistics(&model, &samples, None, &Silent).unwrap();
    let request = Request {
        kinds: vec![kind],
        fixed: Plan::default(),
        asymmetric: false,
        method: Method::MinMax,
        calibration: Calibration::Statistics(statistics),
        budget: None,
        held: None,
        labels: None,
        arch: None,
    };
    let settings = Settings::stored_in(float);
    let Precise { graph, settings, .. } = precise::decide(&model, &settings, &request, &Silent).unwrap();
    let core = pipeline::lower(&graph, &settings).unwrap();
    let fused = pipeline::regions(&core, SM_90, &settings).unwrap();
    problems(&format!("{name} in {kind}"), &fused, &samples.batch(0).unwrap())
}

/// A problem per region, with what it reads when the model runs on `inputs`.
pub fn problems(name: &str, fused: &FusedGraph, inputs: &[HostTensor]) -> Vec<Problem> {
    let mut data: Vec<Option<HostTensor>> = fused
        .tensors
        .iter()
        .map(|tensor| match &tensor.source {
            TensorSource::Input(input) => Some(inputs[*input].clone()),
            TensorSource::Weight(weight) => Some(weight.clone()),
            TensorSource::Regions => None,
        })
        .collect();
    (0..fused.regions.len())
        .map(|region| problem(name, fused, region, &mut data))
        .collect()
}

fn core(fixture: &Fixture) -> Graph {
    let bindings = specialize::bind_inputs(&fixture.graph, std::slice::from_ref(&fixture.x)).unwrap();
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
