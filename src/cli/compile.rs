//! `compile`: a model in, an engine out.

use std::path::{Path, PathBuf};

use super::args::CompileArgs;
use super::build;
use super::failure::Failure;
use super::progress::Progress;
use crate::{io, onnx, pipeline};

pub fn run(args: &CompileArgs) -> Result<(), Failure> {
    let settings = build::settings(&args.build)?;
    let archs = build::archs(&args.arch)?;
    let output = args.output.clone().unwrap_or_else(|| engine_path(&args.model));
    // Building takes long; what can be known to fail is said first.
    io::check_writable(&output)?;
    let progress = Progress::new(false);
    progress.stage("import", 0);
    let model = onnx::import_file(&args.model)?;
    progress.stage("specialize", 0);
    let core = pipeline::lower(&model.graph, &settings)?;
    pipeline::check_nvrtc()?;
    let _ = (core, archs);
    Err(Failure::failed("the stages after specialisation are missing"))
}

/// The model's path with another extension.
fn engine_path(model: &Path) -> PathBuf {
    model.with_extension("engine")
}
