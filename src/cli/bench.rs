//! `bench`: times an engine, or a model that it compiles first, on the GPU.

use serde::Serialize;

use super::args::BenchArgs;
use super::failure::Failure;
use super::precision::{self, Decided};
use super::progress::Progress;
use super::{build, inspect, out};
use crate::ir::HostTensor;
use crate::onnx;
use crate::ops::random::drawn;
use crate::pipeline::{self, Selection};
use crate::runtime::ExecutionContext;

/// Executions before the timed ones.
const WARM_UP: usize = 20;
/// Launches of one kernel in a row when it is timed alone.
const REPEATS: usize = 50;

#[derive(Serialize)]
struct BenchReport {
    engine: String,
    arch: String,
    n_kernels: usize,
    iterations: usize,
    /// Device time of one execution: a CUDA graph without the copies of inputs and outputs.
    median_us: f64,
    min_us: f64,
    max_us: f64,
    p99_us: f64,
    predicted_us: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kernels: Vec<KernelTime>,
}

#[derive(Serialize)]
struct KernelTime {
    name: String,
    nodes: Vec<String>,
    predicted_us: f64,
    /// Mean over launches in a row, operands warm.
    alone_us: f64,
}

pub fn run(args: &BenchArgs) -> Result<(), Failure> {
    let mut context = loaded(args)?;
    let inputs: Vec<HostTensor> = context
        .engine()
        .inputs()
        .iter()
        .zip(1..)
        .map(|(binding, seed)| drawn(&binding.ty(), seed))
        .collect();
    context.write_inputs(&inputs)?;
    context.time_us(WARM_UP)?;
    let mut times = context.time_us(args.iterations.max(1))?;
    times.sort_by(f64::total_cmp);
    let kernels = if args.dump_profile {
        profile(&mut context)?
    } else {
        Vec::new()
    };
    let program = context.engine().program();
    let report = BenchReport {
        engine: args.engine.display().to_string(),
        arch: program.arch.clone(),
        n_kernels: program.launches.len(),
        iterations: times.len(),
        median_us: times[times.len() / 2],
        min_us: times[0],
        max_us: times[times.len() - 1],
        p99_us: times[(times.len() * 99).div_ceil(100) - 1],
        predicted_us: program.launches.iter().map(|launch| launch.predicted_us).sum(),
        kernels,
    };
    if args.json {
        out::json(&report)
    } else {
        print(&report)
    }
}

/// The engine on its device; a model is compiled for that device first.
fn loaded(args: &BenchArgs) -> Result<ExecutionContext, Failure> {
    let settings = build::settings(&args.build)?;
    build::check_rules(&settings)?;
    if inspect::is_engine(&args.engine)? {
        return Ok(pipeline::load_engine(&args.engine, args.device)?);
    }
    let archs = [pipeline::arch_of_device(args.device)?];
    let progress = Progress::new(args.json);
    let graph = onnx::import_file(&args.engine)?.graph;
    let arch = archs.first().copied();
    let Decided { graph, settings, .. } = precision::decide(graph, &args.build, settings, arch, &progress)?;
    let core = pipeline::lower(&graph, &settings)?;
    let engine = pipeline::compile(&core, &archs, &settings, &Selection::Predicted, &progress)?;
    drop(progress);
    Ok(pipeline::execution(&engine, args.device)?)
}

fn print(report: &BenchReport) -> Result<(), Failure> {
    out::line(&format!(
        "GPU Compute Time: min = {:.4} ms, max = {:.4} ms, median = {:.4} ms, percentile(99%) = {:.4} ms",
        report.min_us / 1e3,
        report.max_us / 1e3,
        report.median_us / 1e3,
        report.p99_us / 1e3
    ))?;
    out::line(&format!(
        "{} kernels for {}, predicted {:.4} ms, {} iterations",
        report.n_kernels,
        report.arch,
        report.predicted_us / 1e3,
        report.iterations
    ))?;
    for kernel in &report.kernels {
        out::line(&format!(
            "{:9.2} us alone {:9.2} us predicted  {}  {}",
            kernel.alone_us,
            kernel.predicted_us,
            kernel.name,
            kernel.nodes.join(", ")
        ))?;
    }
    Ok(())
}

fn profile(context: &mut ExecutionContext) -> Result<Vec<KernelTime>, Failure> {
    let program = context.engine().program().clone();
    let mut times = Vec::with_capacity(program.launches.len());
    for (number, launch) in program.launches.iter().enumerate() {
        times.push(KernelTime {
            name: program.kernels[launch.kernel].name.clone(),
            nodes: launch.nodes.clone(),
            predicted_us: launch.predicted_us,
            alone_us: context.time_launch_us(number, REPEATS)?,
        });
    }
    Ok(times)
}
