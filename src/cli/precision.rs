//! The precision of a model, from arguments.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::args::{BuildArgs, PrecisionArgs};
use super::failure::Failure;
use super::out;
use crate::io::samples::{Samples, read_labels};
use crate::ir::{DType, Graph};
use crate::kernel::Arch;
use crate::pipeline::precise::{self, Calibration, Precise, Request};
use crate::pipeline::{Observer, Settings};
use crate::precision::report::PrecisionReport;
use crate::precision::{self, Budget, Cache, Kind, Method, Plan};
use crate::rewrite::rules::error::closest;

/// Layers named where a budget is not kept.
const N_CULPRITS: usize = 12;

/// A model and settings that hold what was decided.
pub struct Decided {
    pub graph: Graph,
    pub settings: Settings,
    /// Where there was something to decide.
    pub report: Option<PrecisionReport>,
}

/// Says early what is wrong with the arguments.
pub fn check(args: &BuildArgs) -> Result<(), Failure> {
    let own = &args.precision;
    method(&own.calib_method)?;
    budget(own)?;
    if let Some(text) = &own.layer_precisions {
        layer_precisions(text)?;
    }
    let given = [&own.calib, &own.held].into_iter().flatten();
    for path in given {
        if !path.exists() {
            return Err(Failure::failed(format!(
                "cannot read `{}`: it does not exist",
                path.display()
            )));
        }
    }
    Ok(())
}

/// Decides what the arguments leave open; `arch` is what times are predicted for.
///
/// # Errors
/// If an argument does not fit the model, or the accuracy budget is not kept.
pub fn decide(
    graph: Graph,
    args: &BuildArgs,
    settings: Settings,
    arch: Option<Arch>,
    observer: &dyn Observer,
) -> Result<Decided, Failure> {
    if !is_asked(args) {
        return Ok(Decided {
            graph,
            settings,
            report: None,
        });
    }
    check(args)?;
    let (request, settings) = request(&graph, args, settings, arch, observer)?;
    let Precise {
        graph,
        settings,
        report,
    } = precise::decide(&graph, &settings, &request, observer)?;
    if let Some(path) = &args.precision.precision_report {
        write_report(path, &report)?;
    }
    if let Some(own) = report.budget.as_ref().filter(|own| !own.is_met) {
        return Err(Failure::failed(format!(
            "the accuracy budget {}={} is not kept: {:.6}\n{}",
            own.metric,
            own.limit,
            own.value,
            report.culprits(N_CULPRITS).trim_end()
        )));
    }
    Ok(Decided {
        graph,
        settings,
        report: Some(report),
    })
}

/// Prints what was decided.
pub fn print(report: &PrecisionReport) -> Result<(), Failure> {
    out::line(report.text().trim_end())
}

fn is_asked(args: &BuildArgs) -> bool {
    let own = &args.precision;
    own.int8
        || own.fp8
        || own.best
        || own.int8_weights
        || own.int4_weights.is_some()
        || own.layer_precisions.is_some()
        || own.accuracy_budget.is_some()
        || own.calib.is_some()
        || own.precision_report.is_some()
}

fn request(
    graph: &Graph,
    args: &BuildArgs,
    mut settings: Settings,
    arch: Option<Arch>,
    observer: &dyn Observer,
) -> Result<(Request, Settings), Failure> {
    let own = &args.precision;
    let calibration = calibration(graph, own, observer)?;
    let is_calibrated = !matches!(calibration, Calibration::None);
    if (own.int8 || own.fp8) && !is_calibrated && !is_quantised(graph) {
        return Err(Failure::usage(
            "`--int8` and `--fp8` need `--calib` with samples or a calibration cache",
        ));
    }
    if own.asymmetric && matches!(calibration, Calibration::Cache(_)) {
        return Err(Failure::usage(
            "`--asymmetric` needs samples: a calibration cache holds symmetric scales",
        ));
    }
    let fixed = fixed(graph, own, &mut settings)?;
    let needs_ranges = fixed
        .kinds
        .values()
        .any(|kind| matches!(kind, Kind::Int8 | Kind::Fp8));
    if needs_ranges && !is_calibrated {
        return Err(Failure::usage("layers in int8 or fp8 need `--calib`"));
    }
    let (held, labels) = held(graph, own)?;
    let budget = budget(own)?;
    if budget.is_some() && held.is_none() {
        return Err(Failure::usage(
            "`--accuracy-budget` needs `--held` samples, or those of `--calib`",
        ));
    }
    let request = Request {
        kinds: kinds(own, &settings, is_calibrated),
        fixed,
        asymmetric: own.asymmetric,
        method: method(&own.calib_method)?,
        calibration,
        budget,
        held,
        labels,
        arch,
    };
    Ok((request, settings))
}

/// Kinds that free layers may have, from the cheapest.
fn kinds(args: &PrecisionArgs, settings: &Settings, is_calibrated: bool) -> Vec<Kind> {
    let mut kinds = Vec::new();
    if (args.int8 || args.best) && is_calibrated {
        kinds.push(Kind::Int8);
    }
    if args.fp8 && is_calibrated {
        kinds.push(Kind::Fp8);
    }
    if args.int8_weights {
        kinds.push(Kind::Int8Weights);
    }
    if args.int4_weights.is_some() {
        kinds.extend([int4_weights(args), Kind::Int8Weights]);
    }
    kinds.push(Kind::Float);
    if settings.precision != DType::F32 {
        kinds.push(Kind::Fp32);
    }
    kinds
}

/// Weights in four bits, in groups as large as the arguments say.
fn int4_weights(args: &PrecisionArgs) -> Kind {
    const GROUP: u16 = 64;
    let asked = args.int4_weights.as_ref().and_then(|text| text.parse().ok());
    Kind::Int4Weights {
        group: asked.unwrap_or(GROUP),
    }
}

fn method(name: &str) -> Result<Method, Failure> {
    Method::from_name(name).ok_or_else(|| {
        let known = ["minmax", "entropy", "mse", "percentile"];
        let hint =
            closest(name, known).map_or_else(String::new, |known| format!(", did you mean `{known}`?"));
        Failure::usage(format!(
            "calibration method `{name}`: expected minmax, entropy, mse, percentile or percentile:99.9{hint}"
        ))
    })
}

/// The method that arguments name.
pub fn method_of(name: &str) -> Result<Method, Failure> {
    method(name)
}

fn budget(args: &PrecisionArgs) -> Result<Option<Budget>, Failure> {
    let Some(text) = &args.accuracy_budget else {
        return Ok(None);
    };
    Budget::from_text(text).map(Some).ok_or_else(|| {
        Failure::usage(format!(
            "`--accuracy-budget {text}`: expected top1=POINTS, cosine=LEAST, relative=MOST or cmd:PROGRAM=MOST"
        ))
    })
}

fn calibration(graph: &Graph, args: &PrecisionArgs, observer: &dyn Observer) -> Result<Calibration, Failure> {
    let Some(path) = &args.calib else {
        return Ok(Calibration::None);
    };
    if let Some(cache) = read_cache(path)? {
        return Ok(Calibration::Cache(cache));
    }
    let samples = Samples::open(path, &precise::declared(graph), precise::ROWS)?;
    let statistics = precise::statistics(graph, &samples, None, observer)?;
    Ok(Calibration::Statistics(statistics))
}

/// The cache at `path`, if it is one and no samples.
fn read_cache(path: &Path) -> Result<Option<Cache>, Failure> {
    if path.is_dir() {
        return Ok(None);
    }
    let failed = |reason: String| Failure::failed(format!("cannot read `{}`: {reason}", path.display()));
    let bytes = fs::read(path).map_err(|error| failed(error.to_string()))?;
    let is_npz = bytes.starts_with(b"PK");
    if is_npz && !Cache::is_like(&bytes) {
        return Ok(None);
    }
    let text = String::from_utf8(bytes).map_err(|_| failed("it is neither an npz nor a cache".to_owned()))?;
    let cache = Cache::parse(&text).map_err(|error| failed(error.to_string()))?;
    Ok(Some(cache))
}

/// Samples that losses are measured on, and their labels.
fn held(graph: &Graph, args: &PrecisionArgs) -> Result<(Option<Samples>, Option<Vec<i64>>), Failure> {
    let calib = args
        .calib
        .as_ref()
        .filter(|path| matches!(read_cache(path), Ok(None)));
    let Some(path) = args.held.as_ref().or(calib) else {
        return Ok((None, None));
    };
    let samples = Samples::open(path, &precise::declared(graph), precise::ROWS)?;
    let labels = if path.is_dir() { None } else { read_labels(path) };
    Ok((Some(samples), labels))
}

fn is_quantised(graph: &Graph) -> bool {
    graph.nodes.iter().any(|node| {
        matches!(
            node.op,
            "DequantizeLinear" | "QLinearConv" | "QLinearMatMul" | "QGemm"
        )
    })
}

/// A type that `--layerPrecisions` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Kind(Kind),
    Narrow(DType),
    /// Weights in four bits.
    Int4Weights,
}

/// Layers with their types, in the order of the text.
fn layer_precisions(text: &str) -> Result<Vec<(String, Asked)>, Failure> {
    let entries = text.split(',').filter(|entry| !entry.trim().is_empty());
    entries
        .map(|entry| {
            let (name, ty) = entry.trim().rsplit_once(':').ok_or_else(|| {
                Failure::usage(format!("`--layerPrecisions`: `{entry}` is not like `layer:int8`"))
            })?;
            Ok((name.to_owned(), asked(ty)?))
        })
        .collect()
}

fn asked(ty: &str) -> Result<Asked, Failure> {
    match ty {
        "fp32" => Ok(Asked::Kind(Kind::Fp32)),
        "fp16" => Ok(Asked::Narrow(DType::F16)),
        "bf16" => Ok(Asked::Narrow(DType::BF16)),
        "int8" => Ok(Asked::Kind(Kind::Int8)),
        "fp8" => Ok(Asked::Kind(Kind::Fp8)),
        "int8-weights" => Ok(Asked::Kind(Kind::Int8Weights)),
        "int4-weights" => Ok(Asked::Int4Weights),
        _ => Err(Failure::usage(format!(
            "`--layerPrecisions`: `{ty}` is not one of fp32, fp16, bf16, int8, fp8, int8-weights, \
             int4-weights"
        ))),
    }
}

/// Layers without a choice. Other nodes can only be kept in f32, which the settings note.
fn fixed(graph: &Graph, args: &PrecisionArgs, settings: &mut Settings) -> Result<Plan, Failure> {
    let mut plan = Plan::default();
    let Some(text) = &args.layer_precisions else {
        return Ok(plan);
    };
    let layers = precision::layers(&precision::prepare(graph));
    let known: BTreeSet<&str> = layers.iter().map(|layer| layer.name.as_str()).collect();
    let nodes: BTreeSet<&str> = graph
        .nodes
        .iter()
        .flat_map(|node| node.origin.iter().map(String::as_str))
        .collect();
    let entries = layer_precisions(text)?;
    for (name, asked) in &entries {
        let kind = kind_of(*asked, args, settings)?;
        if known.contains(name.as_str()) {
            plan.kinds.insert(name.clone(), kind);
        } else if nodes.contains(name.as_str()) && kind == Kind::Fp32 {
            settings.wide.insert(name.clone());
        } else if nodes.contains(name.as_str()) && kind != Kind::Float {
            return Err(Failure::refused(
                format!("`{name}` in {kind}: it is no product"),
                "name convolutions, matrix products and fully connected layers",
            ));
        } else if name != "*" && !nodes.contains(name.as_str()) {
            let hint = closest(name, nodes.iter().copied());
            let hint = hint.map_or_else(String::new, |near| format!(", did you mean `{near}`?"));
            return Err(Failure::usage(format!(
                "`--layerPrecisions`: no layer is named `{name}`{hint}"
            )));
        }
    }
    if let Some((_, asked)) = entries.iter().find(|(name, _)| name == "*") {
        let kind = kind_of(*asked, args, settings)?;
        for layer in &layers {
            plan.kinds.entry(layer.name.clone()).or_insert(kind);
        }
    }
    Ok(plan)
}

fn kind_of(asked: Asked, args: &PrecisionArgs, settings: &Settings) -> Result<Kind, Failure> {
    match asked {
        Asked::Kind(kind) => Ok(kind),
        Asked::Int4Weights => Ok(int4_weights(args)),
        Asked::Narrow(float) if float == settings.precision => Ok(Kind::Float),
        Asked::Narrow(float) => {
            let flag = if float == DType::F16 { "fp16" } else { "bf16" };
            Err(Failure::usage(format!("layers in {flag} need `--{flag}`")))
        }
    }
}

fn write_report(path: &Path, report: &PrecisionReport) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(report).expect("reports hold only what JSON has");
    fs::write(path, text + "\n")
        .map_err(|error| Failure::failed(format!("cannot write `{}`: {error}", path.display())))
}
