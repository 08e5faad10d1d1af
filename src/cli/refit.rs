//! `refit`: weights for an engine that was stripped of them.

use super::args::{BuildArgs, RefitArgs};
use super::failure::Failure;
use super::precision::{self, Decided};
use super::{build, model, out};
use crate::engine::{self, EngineError, Header, Profile};
use crate::kernel::Arch;
use crate::pipeline::{self, Settings, Silent};
use crate::specialize::Shapes;
use crate::{io, onnx};

pub fn run(args: &RefitArgs) -> Result<(), Failure> {
    check(&args.build)?;
    io::check_writable(&args.output)?;
    let signer = args.signing.signer()?;
    let engine = model::engine(&args.engine, &args.trust)?;
    let header = &engine.header;
    let archs: Vec<Arch> = build::archs(&header.archs().join(","))?;
    let profiles = (0..header.n_profiles()).map(|number| header.profile(number));
    let shapes = profiles.map(|profile| Ok(shapes(&*profile?)));
    let shapes: Vec<Shapes> = shapes.collect::<Result<_, EngineError>>()?;
    let build = stored_as(&args.build, header);
    let settings = Settings {
        shapes: shapes.first().cloned().unwrap_or_default(),
        n_contexts: header.n_contexts(),
        ..build::settings(&build)?
    };
    let graph = onnx::import_file(&args.model)?.graph;
    let Decided { graph, settings, .. } =
        precision::decide(graph, &build, settings, archs.first().copied(), &Silent)?;
    let refitted = pipeline::refit(&engine, &graph, &shapes, &archs, &settings)?;
    engine::save_signed(&refitted, signer.as_ref(), &args.output)?;
    out::line(&format!(
        "refitted  {} bytes of weights\nsaved     {}",
        refitted.weights().len(),
        args.output.display()
    ))
}

/// Shapes are in the engine.
fn check(build: &BuildArgs) -> Result<(), Failure> {
    let ranges = [&build.min_shapes, &build.opt_shapes, &build.max_shapes];
    if build.shapes.is_empty() && ranges.iter().all(|range| range.is_none()) {
        return precision::check(build);
    }
    Err(Failure::usage(
        "an engine is refitted for the shapes that it has; leave them out",
    ))
}

/// The settings, with the kind of floats that the engine stores.
fn stored_as(build: &BuildArgs, header: &Header) -> BuildArgs {
    BuildArgs {
        fp16: header.precision == "f16",
        bf16: header.precision == "bf16",
        ..build.clone()
    }
}

fn shapes(profile: &Profile) -> Shapes {
    let inputs = profile.inputs.iter();
    inputs
        .map(|input| (input.name.clone(), input.dims.clone()))
        .collect()
}
