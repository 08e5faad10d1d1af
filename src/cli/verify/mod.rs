//! `verify`: compares what is compiled with the reference, ONNX Runtime or known outputs, with
//! polygraphy's tolerances and report.

mod bisect;
mod compare;
mod onnxruntime;
mod rebuild;
mod report;

use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use super::args::VerifyArgs;
use super::device::Device;
use super::failure::Failure;
use super::precision::Decided;
use super::{build, model, out, precision};
use crate::engine::{Binding, Engine};
use crate::io::{self, Port};
use crate::ir::{Graph, HostTensor};
use crate::ops::random::drawn_within;
use crate::pipeline::{self, Settings};
use crate::runtime::ExecutionContext;
use crate::{onnx, specialize};
use compare::{Comparison, Statistic, Tolerance};
use report::Runners;

#[derive(Serialize)]
struct VerifyReport {
    subject: String,
    baseline: String,
    passed: bool,
    tolerance: Tolerance,
    outputs: Vec<Comparison>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_difference: Option<String>,
}

pub fn run(args: &VerifyArgs) -> Result<(), Failure> {
    let started = Instant::now();
    let engine = args
        .engine
        .as_deref()
        .map(|path| model::engine(path, &args.trust));
    let engine = engine.transpose()?;
    if let (true, Some(engine)) = (args.rebuild, &engine) {
        check_rebuilt(engine)?;
    }
    let Some(path) = &args.model else {
        return Ok(());
    };
    let settings = build::settings(&args.build)?;
    build::check_rules(&settings)?;
    let graph = onnx::import_file(path)?.graph;
    let inputs = inputs(args, &graph, &settings, engine.as_ref())?;
    let device = Device::of(args.device.as_deref())?;
    let decided = decided(args, &graph, &settings, device, engine.as_ref())?;
    let subject = Subject::of(&decided.settings, device, engine.as_ref())?;
    let found = subject.run(&decided.graph, &inputs)?;
    let expected = expected(args, path, &graph, &inputs, &settings)?;
    let (tolerance, statistic) = judged_by(args);
    let outputs: Vec<Comparison> = graph
        .output_names
        .iter()
        .zip(found.iter().zip(&expected))
        .map(|(name, (found, expected))| compare::compare(name, found, expected, tolerance, statistic))
        .collect();
    let passed = outputs.iter().all(|comparison| comparison.passed);
    let first_difference = if args.bisect && !passed {
        Some(bisected(args, subject, &decided, &inputs)?)
    } else {
        None
    };
    let report = VerifyReport {
        subject: subject.name(),
        baseline: args.against.clone(),
        passed,
        tolerance,
        outputs,
        first_difference,
    };
    print(args, &report, statistic, started)?;
    if passed {
        Ok(())
    } else {
        let names = report.outputs.iter().filter(|comparison| !comparison.passed);
        let names: Vec<String> = names
            .map(|comparison| format!("`{}`", comparison.output))
            .collect();
        Err(Failure::failed(format!("outputs differ: {}", names.join(", "))))
    }
}

fn judged_by(args: &VerifyArgs) -> (Tolerance, Statistic) {
    let tolerance = Tolerance {
        absolute: args.atol,
        relative: args.rtol,
    };
    (
        tolerance,
        Statistic::of(&args.check_error_stat, args.error_quantile),
    )
}

/// What is verified.
#[derive(Clone, Copy)]
enum Subject<'a> {
    Engine(&'a Engine, usize),
    /// The model, compiled for a device.
    Device(&'a Settings, usize),
    /// The regions of the model on the reference.
    Regions(&'a Settings),
}

impl<'a> Subject<'a> {
    fn of(settings: &'a Settings, device: Device, engine: Option<&'a Engine>) -> Result<Self, Failure> {
        Ok(match (engine, device) {
            (Some(engine), Device::Cuda(ordinal)) => Subject::Engine(engine, ordinal),
            (Some(_), Device::Cpu) => {
                return Err(Failure::refused(
                    "an engine on the CPU",
                    "leave `--engine` out to verify the fused regions on the CPU, or verify the engine on a GPU",
                ));
            }
            (None, Device::Cuda(ordinal)) => Subject::Device(settings, ordinal),
            (None, Device::Cpu) => Subject::Regions(settings),
        })
    }

    fn name(&self) -> String {
        match self {
            Subject::Engine(..) => "engine".to_owned(),
            Subject::Device(_, ordinal) => format!("cuda:{ordinal}"),
            Subject::Regions(_) => "regions on the CPU".to_owned(),
        }
    }

    fn run(&self, graph: &Graph, inputs: &[HostTensor]) -> Result<Vec<HostTensor>, Failure> {
        match self {
            Subject::Engine(engine, ordinal) => {
                let loaded = pipeline::on_device(engine, *ordinal)?;
                Ok(ExecutionContext::new(&loaded)?.run(inputs)?)
            }
            Subject::Device(settings, ordinal) => {
                Ok(pipeline::run_on_device(graph, inputs, settings, *ordinal)?)
            }
            Subject::Regions(settings) => Ok(pipeline::run_regions(graph, inputs, settings)?),
        }
    }
}

/// The model as it is compiled: in 8 bits where that is asked for. An engine was decided already.
fn decided(
    args: &VerifyArgs,
    graph: &Graph,
    settings: &Settings,
    device: Device,
    engine: Option<&Engine>,
) -> Result<Decided, Failure> {
    let (graph, settings) = (graph.clone(), settings.clone());
    if engine.is_some() {
        return Ok(Decided {
            graph,
            settings,
            report: None,
        });
    }
    let arch = match device {
        Device::Cpu => None,
        Device::Cuda(ordinal) => Some(pipeline::arch_of_device(ordinal)?),
    };
    precision::decide(graph, &args.build, settings, arch, &pipeline::Silent)
}

/// The inputs of a file, or drawn ones: of the engine's shapes where there is one.
fn inputs(
    args: &VerifyArgs,
    graph: &Graph,
    settings: &Settings,
    engine: Option<&Engine>,
) -> Result<Vec<HostTensor>, Failure> {
    if let Some(path) = &args.inputs {
        return Ok(io::read_inputs(path, &pipeline::ports(graph))?);
    }
    let types = match engine {
        Some(engine) => {
            let profile = super::shapes::profile(&engine.header, &settings.shapes)?;
            let profile = engine.header.profile(profile)?;
            profile.inputs.iter().map(Binding::ty).collect()
        }
        None => specialize::bind(graph, &settings.shapes)?.types().to_vec(),
    };
    let seeds = args.seed..;
    Ok(types
        .iter()
        .zip(seeds)
        .map(|(ty, seed)| drawn_within(ty, seed, 0.0..1.0))
        .collect())
}

fn expected(
    args: &VerifyArgs,
    model: &Path,
    graph: &Graph,
    inputs: &[HostTensor],
    settings: &Settings,
) -> Result<Vec<HostTensor>, Failure> {
    match args.against.as_str() {
        "reference" => Ok(pipeline::run_reference(graph, inputs, &settings.in_f32())?),
        "onnxruntime" => onnxruntime::run(model, graph, inputs),
        path => Ok(io::read_inputs(Path::new(path), &output_ports(graph))?),
    }
}

/// Outputs as a model declares them.
fn output_ports(graph: &Graph) -> Vec<Port> {
    let dtypes = graph
        .outputs
        .iter()
        .map(|&output| graph.value(output).ty.as_ref());
    let names = graph.output_names.iter();
    names
        .zip(dtypes)
        .map(|(name, ty)| Port {
            name: name.clone(),
            dtype: ty.map(|ty| ty.dtype),
        })
        .collect()
}

/// What is to be said of the first node that differs.
fn bisected(
    args: &VerifyArgs,
    subject: Subject<'_>,
    decided: &Decided,
    inputs: &[HostTensor],
) -> Result<String, Failure> {
    let (tolerance, statistic) = judged_by(args);
    // An engine shows its outputs only: the model is compiled anew, up to one node after the other.
    let compiled = match subject {
        Subject::Engine(_, ordinal) => Subject::Device(&decided.settings, ordinal),
        other => other,
    };
    let wide = decided.settings.in_f32();
    let culprit = bisect::first_difference(&decided.graph, |part| {
        let expected = pipeline::run_reference(part, inputs, &wide)?;
        if bisect::any_not_finite(&expected) {
            return Ok(None);
        }
        let found = compiled.run(part, inputs)?;
        let comparison = compare::compare("result", &found[0], &expected[0], tolerance, statistic);
        Ok((!comparison.passed).then_some(comparison.relative_norm))
    })?;
    Ok(match culprit {
        Some(culprit) => format!(
            "`{}` {}, result `{}`: relative error {:.3e} in the 2-norm ({} models compiled)",
            culprit.op,
            culprit.origin.join(", "),
            culprit.value,
            culprit.relative_norm,
            culprit.n_tried
        ),
        None => "no node differs when the model ends at it: the difference comes with what is fused after it"
            .to_owned(),
    })
}

fn print(
    args: &VerifyArgs,
    report: &VerifyReport,
    statistic: Statistic,
    started: Instant,
) -> Result<(), Failure> {
    if args.json {
        return out::json(report);
    }
    let runners = Runners {
        subject: &report.subject,
        baseline: &report.baseline,
    };
    for line in report::lines(&runners, &report.outputs, report.tolerance, statistic) {
        out::line(&line)?;
    }
    if let Some(first) = &report.first_difference {
        out::line(&format!("[E] First difference | {first}"))?;
    }
    let arguments: Vec<String> = std::env::args().collect();
    out::line(&format!(
        "[{}] {} | Runtime: {:.3}s | Command: {}",
        if report.passed { 'I' } else { 'E' },
        if report.passed { "PASSED" } else { "FAILED" },
        started.elapsed().as_secs_f64(),
        arguments.join(" ")
    ))
}

fn check_rebuilt(engine: &Engine) -> Result<(), Failure> {
    let rebuilt = rebuild::rebuild(engine)?;
    if rebuilt.different.is_empty() {
        return out::line(&format!(
            "[I] PASSED | Rebuild | {} kernels are what their sources compile to",
            rebuilt.n_kernels
        ));
    }
    for kernel in &rebuilt.different {
        out::line(&format!("[E] FAILED | Rebuild | {kernel}"))?;
    }
    let versions = rebuilt.versions.map_or_else(String::new, |(theirs, own)| {
        format!("; the engine was made by NVRTC {theirs}, this is NVRTC {own}, whose bytes may differ")
    });
    Err(Failure::failed(format!(
        "{} of {} kernels differ from their sources{versions}",
        rebuilt.different.len(),
        rebuilt.n_kernels
    )))
}
