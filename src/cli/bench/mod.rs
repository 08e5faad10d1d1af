//! `bench`: times an engine, or a model that it compiles first, on the GPU, with trtexec's flags
//! and in its words.

mod export;
mod profile;
mod summary;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::args::{BenchArgs, TimingArgs};
use super::failure::Failure;
use super::precision::{self, Decided};
use super::progress::Progress;
use super::{build, inspect, model, out};
use crate::engine::{Binding, MAX_CONTEXTS};
use crate::ir::HostTensor;
use crate::onnx;
use crate::ops::random::drawn;
use crate::pipeline::{self, Selection, Settings};
use crate::runtime::{Clock, DeviceEngine, ExecutionContext, RuntimeError, Trace, TraceOptions};
use profile::KernelTime;
use summary::Summary;

/// Executions before and during the replay of one graph after the other.
const REPLAY_WARM_UP: usize = 20;
const REPLAYS: usize = 200;

#[derive(Serialize)]
struct BenchReport {
    engine: String,
    arch: String,
    n_kernels: usize,
    streams: usize,
    /// Device time of one execution: from graph to graph, back to back on one stream, without
    /// the copies of inputs and outputs.
    median_us: f64,
    min_us: f64,
    max_us: f64,
    p99_us: f64,
    predicted_us: f64,
    summary: Summary,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kernels: Vec<KernelTime>,
}

pub fn run(args: &BenchArgs) -> Result<(), Failure> {
    check(&args.timing)?;
    let path = subject(args);
    let settings = Settings {
        n_contexts: args.timing.inf_streams.min(MAX_CONTEXTS),
        ..build::settings(&args.build)?
    };
    build::check_rules(&settings)?;
    let shapes = settings.shapes.clone();
    let engine = loaded(args, &path, settings)?;
    let number = super::shapes::profile(engine.header(), &shapes)?;
    let mut contexts = contexts(args, &engine, number)?;
    let replays = replays(&mut contexts[0])?;
    let traces = traces(&engine, &mut contexts, &args.timing)?;
    let reports = &args.reports;
    let kernels = if reports.dump_profile || reports.export_profile.is_some() {
        profile::profile(&mut contexts[0])?
    } else {
        Vec::new()
    };
    #[expect(clippy::cast_precision_loss, reason = "milliseconds")]
    let warm_up_ms = args.timing.warm_up as f64;
    let summary = Summary::of(&traces, warm_up_ms, &reports.percentile);
    let program = contexts[0].program();
    let report = BenchReport {
        engine: path.display().to_string(),
        arch: program.arch.clone(),
        n_kernels: program.launches.len(),
        streams: contexts.len(),
        median_us: replays[replays.len() / 2],
        min_us: replays[0],
        max_us: replays[replays.len() - 1],
        p99_us: replays[(replays.len() * 99).div_ceil(100) - 1],
        predicted_us: program.launches.iter().map(|launch| launch.predicted_us).sum(),
        summary,
        kernels,
    };
    write_files(args, &mut contexts[0], &traces, &report.kernels)?;
    if reports.json {
        out::json(&report)
    } else {
        print(args, &report, &traces, warm_up_ms)
    }
}

/// One context per stream, its inputs written.
fn contexts(
    args: &BenchArgs,
    engine: &Arc<DeviceEngine>,
    profile: usize,
) -> Result<Vec<ExecutionContext>, Failure> {
    let inputs = inputs(&engine.profile(profile)?.inputs, args.load_inputs.as_deref())?;
    let context = |_| {
        let mut context = ExecutionContext::new(engine)?;
        context.write_inputs(&inputs)?;
        Ok(context)
    };
    (0..args.timing.inf_streams).map(context).collect()
}

fn check(timing: &TimingArgs) -> Result<(), Failure> {
    if timing.inf_streams == 0 {
        return Err(Failure::usage("`--infStreams 0`: at least one stream executes"));
    }
    let is_time = |value: f64| value.is_finite() && value >= 0.0;
    if !is_time(timing.duration) || !is_time(timing.idle_time) {
        return Err(Failure::usage("`--duration` and `--idleTime` are times"));
    }
    Ok(())
}

/// The file that is timed.
fn subject(args: &BenchArgs) -> PathBuf {
    let given = args.engine.as_ref().or(args.load_engine.as_ref());
    given.or(args.onnx.as_ref()).cloned().unwrap_or_default()
}

/// The engine on its device; a model is compiled for that device first, and for as many streams.
fn loaded(args: &BenchArgs, path: &Path, settings: Settings) -> Result<Arc<DeviceEngine>, Failure> {
    if inspect::is_engine(path)? {
        return Ok(pipeline::on_device(
            &model::engine(path, &args.trust)?,
            args.device,
        )?);
    }
    model::check_unsigned(path, &args.trust)?;
    let arch = pipeline::arch_of_device(args.device)?;
    let progress = Progress::new(args.reports.json);
    let graph = onnx::import_file(path)?.graph;
    let Decided { graph, settings, .. } =
        precision::decide(graph, &args.build, settings, Some(arch), &progress)?;
    let core = pipeline::lower(&graph, &settings)?;
    let engine = pipeline::compile(&[core], &[arch], &settings, &Selection::Predicted, &progress)?;
    drop(progress);
    Ok(pipeline::on_device(&engine, args.device)?)
}

/// Inputs from the raw files of `spec`, and drawn ones for the others.
fn inputs(bindings: &[Binding], spec: Option<&str>) -> Result<Vec<HostTensor>, Failure> {
    let mut files: Vec<(&str, &str)> = Vec::new();
    for entry in spec.into_iter().flat_map(|spec| spec.split(',')) {
        let Some((name, file)) = entry.rsplit_once(':') else {
            return Err(Failure::usage(format!(
                "`--loadInputs`: `{entry}` is not `name:file`"
            )));
        };
        if !bindings.iter().any(|binding| binding.name == name) {
            return Err(Failure::usage(format!(
                "`--loadInputs`: the engine has no input `{name}`"
            )));
        }
        files.push((name, file));
    }
    let tensor = |(binding, seed): (&Binding, u64)| {
        let file = files.iter().find(|(name, _)| *name == binding.name);
        match file {
            Some((_, file)) => raw(binding, Path::new(file)),
            None => Ok(drawn(&binding.ty(), seed)),
        }
    };
    bindings.iter().zip(1..).map(tensor).collect()
}

fn raw(binding: &Binding, file: &Path) -> Result<HostTensor, Failure> {
    let bytes = std::fs::read(file)
        .map_err(|error| Failure::failed(format!("cannot read `{}`: {error}", file.display())))?;
    HostTensor::from_bytes(binding.dtype, &binding.dims, &bytes).ok_or_else(|| {
        Failure::failed(format!(
            "`{}` holds {} bytes, input `{}` is {}",
            file.display(),
            bytes.len(),
            binding.name,
            binding.ty()
        ))
    })
}

/// Sorted microseconds from graph to graph.
fn replays(context: &mut ExecutionContext) -> Result<Vec<f64>, Failure> {
    context.time_us(REPLAY_WARM_UP)?;
    let mut times = context.time_us(REPLAYS)?;
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// Executions of all contexts at once, one thread each, in the order of their starts.
fn traces(
    engine: &DeviceEngine,
    contexts: &mut [ExecutionContext],
    timing: &TimingArgs,
) -> Result<Vec<Trace>, Failure> {
    let options = TraceOptions {
        iterations: timing.iterations.max(1),
        until: Duration::from_millis(timing.warm_up) + Duration::from_secs_f64(timing.duration),
        transfers: timing.include_data_transfers,
        graph: !timing.no_cuda_graph,
        idle: Duration::from_secs_f64(timing.idle_time / 1e3),
    };
    let clock = Clock::start(engine.context())?;
    let (clock, options) = (&clock, &options);
    let collected: Result<Vec<Vec<Trace>>, RuntimeError> = std::thread::scope(|scope| {
        let threads: Vec<_> = contexts
            .iter_mut()
            .map(|context| scope.spawn(move || context.traces(clock, options)))
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect()
    });
    let mut traces = collected?.concat();
    traces.sort_by(|a, b| a.compute.start.total_cmp(&b.compute.start));
    Ok(traces)
}

fn write_files(
    args: &BenchArgs,
    context: &mut ExecutionContext,
    traces: &[Trace],
    kernels: &[KernelTime],
) -> Result<(), Failure> {
    let reports = &args.reports;
    if let Some(path) = &reports.export_times {
        export::write(path, &export::times(traces))?;
    }
    if let Some(path) = &reports.export_profile {
        export::write(path, &export::profile(kernels))?;
    }
    let layers = || export::layers(context.program(), context.profile());
    if let Some(path) = &reports.export_layer_info {
        export::write(path, &layers())?;
    }
    if reports.dump_layer_info && !reports.json {
        out::json(&layers())?;
    }
    if reports.export_output.is_none() && !reports.dump_output {
        return Ok(());
    }
    let tensors = context.read_outputs()?;
    let outputs = export::outputs(&context.profile().outputs, &tensors);
    if let Some(path) = &reports.export_output {
        export::write(path, &outputs)?;
    }
    if reports.dump_output && !reports.json {
        out::json(&outputs)?;
    }
    Ok(())
}

fn print(args: &BenchArgs, report: &BenchReport, traces: &[Trace], warm_up_ms: f64) -> Result<(), Failure> {
    let mut lines = report.summary.prolog();
    lines.push(String::new());
    lines.extend(summary::averages(
        traces,
        warm_up_ms,
        args.reports.avg_runs.max(1),
    ));
    lines.push(String::new());
    lines.extend(report.summary.lines());
    lines.push(format!(
        "Graph replay, back to back: median = {} ms; {} kernels for {}, predicted {} ms",
        summary::number(report.median_us / 1e3),
        report.n_kernels,
        report.arch,
        summary::number(report.predicted_us / 1e3)
    ));
    if args.reports.verbose {
        lines.push(String::new());
        lines.extend(summary::EXPLANATIONS.map(str::to_owned));
    }
    if args.reports.dump_profile {
        lines.push(String::new());
        lines.extend(profile::lines(&report.kernels));
    }
    for line in lines {
        out::line(&format!("[I] {line}"))?;
    }
    for warning in report.summary.warnings() {
        out::line(&format!("[W] {warning}"))?;
    }
    Ok(())
}
