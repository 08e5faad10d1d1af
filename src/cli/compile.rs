//! `compile`: a model in, an engine out.

use std::fs;
use std::path::{Path, PathBuf};

use super::args::CompileArgs;
use super::build;
use super::engine_report::EngineReport;
use super::failure::Failure;
use super::out;
use super::precision::{self, Decided};
use super::progress::Progress;
use crate::engine::{self, Engine};
use crate::ir::Graph;
use crate::kernel::Arch;
use crate::pipeline::{self, Observer, Selection, Settings};
use crate::specialize::Shapes;
use crate::{io, onnx};

pub fn run(args: &CompileArgs) -> Result<(), Failure> {
    let settings = Settings {
        n_contexts: args.inf_streams,
        ..build::settings(&args.build)?
    };
    let archs = build::archs(&args.arch)?;
    let portable = portable_arch(args, &archs)?;
    let output = args.output.clone().unwrap_or_else(|| engine_path(&args.model));
    // Building takes long; what can be known to fail is said first.
    io::check_writable(&output)?;
    let signer = args.signing.signer()?;
    build::check_rules(&settings)?;
    precision::check(&args.build)?;
    let selection = selection(args)?;
    selection.check(&archs)?;
    let progress = Progress::new(false);
    progress.stage("import", 0);
    let model = onnx::import_file(&args.model)?;
    let Decided {
        graph,
        settings,
        report: decided,
    } = precision::decide(
        model.graph,
        &args.build,
        settings,
        archs.first().copied(),
        &progress,
    )?;
    let profiles = build::profiles(&args.build, &graph)?;
    pipeline::check_nvrtc()?;
    let mut engine = if profiles.shared {
        pipeline::compile_range(&graph, &profiles.shapes, &archs, &settings, &selection, &progress)?
    } else {
        progress.stage("specialize", 0);
        let cores = cores(profiles.shapes, &graph, &settings)?;
        pipeline::compile(&cores, &archs, &settings, &selection, &progress)?
    };
    if let Some(arch) = portable {
        progress.stage("PTX", 0);
        pipeline::ptx::embed(&mut engine, arch)?;
    }
    if args.strip_weights {
        engine = engine::stripped::strip(&engine)?;
    }
    if let Some(folder) = &args.dump_kernels {
        dump_kernels(&engine, folder)?;
    }
    progress.stage("save", 0);
    engine::save_signed(&engine, signer.as_ref(), &output)?;
    drop(progress);
    if let Some(decided) = decided.filter(|_| !args.json) {
        precision::print(&decided)?;
    }
    report(args, &engine, &output)
}

/// The architecture that PTX is stored of.
fn portable_arch(args: &CompileArgs, archs: &[Arch]) -> Result<Option<Arch>, Failure> {
    if !args.ptx {
        return Ok(None);
    }
    match pipeline::ptx::portable(archs) {
        Some(arch) => Ok(Some(arch)),
        None => Err(Failure::usage(format!(
            "`--ptx`: newer devices do not execute code for {}; name an architecture without `a`, too",
            args.arch
        ))),
    }
}

/// The model once for each binding of its dims.
fn cores(profiles: Vec<Shapes>, graph: &Graph, settings: &Settings) -> Result<Vec<Graph>, Failure> {
    let bound = profiles.into_iter().map(|shapes| {
        let settings = Settings {
            shapes,
            ..settings.clone()
        };
        Ok(pipeline::lower(graph, &settings)?)
    });
    bound.collect()
}

fn selection(args: &CompileArgs) -> Result<Selection, Failure> {
    if args.tuning.build_budget.is_some() && !args.tune {
        return Err(Failure::usage(
            "`--build-budget` ends what `--tune` begins: give both",
        ));
    }
    let on_device = || args.tuning.on_device(0, args.tune);
    let needs_device = args.tune || args.verify_kernels;
    let chosen = args.tuning.recorded().or_else(|| needs_device.then(on_device));
    Ok(chosen.unwrap_or_default())
}

/// The model's path with another extension.
fn engine_path(model: &Path) -> PathBuf {
    model.with_extension("engine")
}

/// One file per kernel and architecture, in the order of the launches; those that shapes of a range share last.
/// Kernel names are made of letters, digits and underscores, so they are safe in paths.
fn dump_kernels(engine: &Engine, folder: &Path) -> Result<(), Failure> {
    let n_listed = engine.header.programs.len();
    for (position, (arch, kernels)) in engine.header.kernels().enumerate() {
        let own = folder.join(arch);
        let failed = |error| Failure::failed(format!("cannot write `{}`: {error}", own.display()));
        fs::create_dir_all(&own).map_err(failed)?;
        let prefix = if position < n_listed { "" } else { "shared_" };
        for (number, kernel) in kernels.iter().enumerate() {
            let path = own.join(format!("{prefix}{number:03}_{}.cu", kernel.name));
            fs::write(path, &*engine.blobs[kernel.source]).map_err(failed)?;
        }
    }
    Ok(())
}

fn report(args: &CompileArgs, engine: &Engine, output: &Path) -> Result<(), Failure> {
    let report = EngineReport::of(engine)?;
    if args.json {
        return out::json(&report);
    }
    report.print_summary()?;
    if args.explain {
        report.print_kernels(true)?;
    }
    out::line(&format!("saved     {}", output.display()))
}
