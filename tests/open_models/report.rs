//! What fusing makes of a model, and whether it still computes the same.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Instant;

use rtrt_codegen::engine::ALIGNMENT;
use rtrt_codegen::ir::{DType, Graph, HostTensor};
use rtrt_codegen::kernel::Arch;
use rtrt_codegen::ops::evaluate::to_vec;
use rtrt_codegen::plan::arena::{lower_bound, pack};
use rtrt_codegen::plan::lifetimes::{Lifetime, Storage};
use rtrt_codegen::rewrite::canonicalize::{canonicalize, canonicalize_counting};
use rtrt_codegen::rewrite::run_fused;
use rtrt_codegen::rewrite::{DeviceRates, FusedGraph, Region, RuleOptions, RuleSet, fuse};
use rtrt_codegen::specialize::{StagesError, lower_precision, run_in_stages};
use rtrt_codegen::testing::builder::drawn_graph;

use crate::case::{Case, Error};

/// Relative error that f16 may have, 2-norm.
const HALF_ERROR: f64 = 1e-2;
/// Seconds that fusing may take; tests run unoptimised, so this is no budget.
const MOST_SECONDS: f64 = 60.0;

/// How values are stored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Precision {
    Full,
    Half,
}

impl Precision {
    fn name(self) -> &'static str {
        match self {
            Precision::Full => "f32",
            Precision::Half => "f16",
        }
    }

    /// Ops are recognised before values are narrowed, since casts hide their spellings.
    fn apply(self, graph: &Graph) -> Graph {
        match self {
            Precision::Full => graph.clone(),
            Precision::Half => lower_precision(&canonicalize(graph, &RULES), DType::F16),
        }
    }
}

/// The embedded rules, and those of the folder that `RTRT_RULES` names.
static RULES: LazyLock<RuleSet> = LazyLock::new(|| {
    let options = RuleOptions {
        dir: std::env::var_os("RTRT_RULES").map(Into::into),
        ..RuleOptions::default()
    };
    RuleSet::load(&options).unwrap_or_else(|errors| panic!("{:?}", miette::Report::new(errors)))
});

fn fused(graph: &Graph, sm: u32) -> Result<(FusedGraph, f64), String> {
    let start = Instant::now();
    let fused = fuse(graph, &RULES, DeviceRates::for_sm(sm)).map_err(|error| error.to_string())?;
    Ok((fused, start.elapsed().as_secs_f64()))
}

fn kinds(fused: &FusedGraph) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for region in &fused.regions {
        *counts
            .entry(format!("{:?}", region.kind).to_lowercase())
            .or_default() += 1;
    }
    let counts: Vec<String> = counts
        .iter()
        .map(|(kind, count)| format!("{kind} {count}"))
        .collect();
    counts.join(", ")
}

fn show(graph: &Graph, fused: &FusedGraph) {
    let (canonical, fired) = canonicalize_counting(graph, &RULES);
    println!("{fired:?}\n{}", rtrt_codegen::ir::text::print_brief(&canonical));
    for (n, region) in fused.regions.iter().enumerate() {
        println!("-- {n}: {:?}, {:.2} us", region.kind, region.bound_us);
        println!("{}", rtrt_codegen::ir::text::print(&region.body));
    }
}

/// The arena is at most five per cent larger than what is alive at once.
fn packed_tightly(fused: &FusedGraph) -> Result<(), String> {
    let lifetimes: Vec<Lifetime> = Storage::of(fused)
        .lifetimes(fused)
        .into_iter()
        .map(|(_, own)| own)
        .collect();
    let (bytes, bound) = (pack(&lifetimes, ALIGNMENT).bytes, lower_bound(&lifetimes));
    println!("{:28} arena {bytes} bytes, at least {bound}", "");
    if bytes * 100 > bound * 105 {
        return Err(format!(
            "the arena takes {bytes} bytes, {bound} are alive at once"
        ));
    }
    Ok(())
}

/// Models of which no kernel joins what others could have written in place.
const JOINED_IN_PLACE: [&str; 4] = ["unet", "yolo_nano", "densenet121", "inception_v3"];

fn joined_in_place(case: &Case, fused: &FusedGraph) -> Result<(), String> {
    // A kernel that computes something may read its operands side by side.
    let joins = |region: &&Region| {
        let ops: Vec<&str> = region.body.nodes.iter().map(|node| node.op).collect();
        let moves = ["concat", "slice", "reshape", "transpose", "cast"];
        ops.contains(&"concat") && ops.iter().all(|op| moves.contains(op))
    };
    match fused.regions.iter().filter(joins).count() {
        0 => Ok(()),
        _ if !JOINED_IN_PLACE.contains(&case.name.as_str()) => Ok(()),
        n => Err(format!("{n} kernels join their operands")),
    }
}

/// Fuses for each data set's shapes, precision and arch, and prints one line for each.
pub fn structure(case: &Case) -> Result<(), String> {
    for set in 0..case.n_data_sets() {
        let graph = case.specialized(&case.inputs(set)?)?;
        for precision in [Precision::Full, Precision::Half] {
            let graph = precision.apply(&graph);
            for sm in [87, 90] {
                let (fused, seconds) = fused(&graph, sm)?;
                println!(
                    "{:28} data_{set} {} sm_{sm}: {:5} onnx, {:4} core, {:4} regions ({}), {seconds:.2} s",
                    case.name,
                    precision.name(),
                    case.n_nodes,
                    graph.nodes.len(),
                    fused.regions.len(),
                    kinds(&fused),
                );
                if std::env::var_os("RTRT_SHOW_REGIONS").is_some() && sm == 90 {
                    show(&graph, &fused);
                }
                packed_tightly(&fused)?;
                joined_in_place(case, &fused)?;
                if seconds > MOST_SECONDS {
                    return Err(format!("fusing took {seconds:.1} s"));
                }
            }
        }
    }
    Ok(())
}

/// Chooses kernels for each data set's shapes, in both precisions.
pub fn kernels(case: &Case) -> Result<(), String> {
    let mut slow = Vec::new();
    for set in 0..case.n_data_sets() {
        let graph = case.specialized(&case.inputs(set)?)?;
        for precision in [Precision::Full, Precision::Half] {
            let (fused, _) = fused(&precision.apply(&graph), 90)?;
            let title = format!("{:28} data_{set} {}", case.name, precision.name());
            slow.extend(
                crate::kernels::check(
                    &fused,
                    Arch {
                        sm: 90,
                        specific: true,
                    },
                    &title,
                )
                .err(),
            );
        }
    }
    if slow.is_empty() {
        Ok(())
    } else {
        Err(slow.join("\n"))
    }
}

/// Runs the regions of every stage on all data sets.
pub fn stages(case: &Case) -> Result<(), String> {
    for set in 0..case.n_data_sets() {
        let mut n_stages = 0;
        let found = run_in_stages(&case.graph, &case.inputs(set)?, |stage, data| {
            n_stages += 1;
            let (fused, _) = fused(stage, 90)?;
            run_fused(&fused, data).map_err(|error| error.to_string())
        });
        let found = found.map_err(|error| match error {
            StagesError::Specialize(error) => error.to_string(),
            StagesError::Stage(error) => error,
        })?;
        let error = worst(case, set, &found)?;
        println!(
            "{:28} data_{set}: {n_stages} stages, relative error {:.2e}, {:.3} of the tolerance",
            case.name, error.relative, error.of_tolerance
        );
        if error.of_tolerance > 1.0 {
            return Err(format!("data_{set}: {error:?}"));
        }
    }
    Ok(())
}

fn worst(case: &Case, set: usize, found: &[HostTensor]) -> Result<Error, String> {
    let mut worst = Error::default();
    for (expected, found) in case.expected(set)?.iter().zip(found) {
        let error = expected.error(found, case.tolerance())?;
        worst.relative = worst.relative.max(error.relative);
        worst.of_tolerance = worst.of_tolerance.max(error.of_tolerance);
    }
    Ok(worst)
}

/// Prints how far the result of each region is from that of the same region in another graph,
/// if both were cut alike.
fn show_errors(full: &FusedGraph, half: &FusedGraph, inputs: &[HostTensor]) -> Result<(), String> {
    let results = |fused: &FusedGraph| -> Result<Vec<Vec<f64>>, String> {
        let mut all = fused.clone();
        let outputs = fused.regions.iter().map(|region| region.outputs[0]);
        all.outputs = outputs.map(|id| (String::new(), id)).collect();
        let values = run_fused(&all, inputs).map_err(|error| error.to_string())?;
        Ok(values.iter().map(to_vec).collect())
    };
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    for (n, (expected, found)) in results(full)?.iter().zip(&results(half)?).enumerate() {
        if expected.len() != found.len() {
            println!("{n:4} the graphs are not cut alike");
            continue;
        }
        let off = norm(&mut found.iter().zip(expected).map(|(a, b)| a - b));
        let size = norm(&mut expected.iter().copied());
        let ops: Vec<&str> = half.regions[n].body.nodes.iter().map(|node| node.op).collect();
        println!("{n:4} {:.2e} {}", off / size.max(1e-300), ops.join(" "));
    }
    Ok(())
}

/// Runs the regions on the first data set.
pub fn meaning(case: &Case) -> Result<(), String> {
    let inputs = case.inputs(0)?;
    let graph = case.specialized(&inputs)?;
    let mut wrong = Vec::new();
    for precision in [Precision::Full, Precision::Half] {
        let (fused, _) = fused(&precision.apply(&graph), 90)?;
        let found = run_fused(&fused, &inputs).map_err(|error| error.to_string())?;
        let error = worst(case, 0, &found)?;
        println!(
            "{:28} {}: relative error {:.2e}, {:.3} of the f32 tolerance",
            case.name,
            precision.name(),
            error.relative,
            error.of_tolerance
        );
        if precision == Precision::Half && std::env::var_os("RTRT_SHOW_ERRORS").is_some() {
            show_errors(&self::fused(&graph, 90)?.0, &fused, &inputs)?;
        }
        let is_off = match precision {
            Precision::Full => error.of_tolerance > 1.0,
            Precision::Half => error.relative.is_nan() || error.relative > HALF_ERROR,
        };
        if is_off {
            wrong.push(format!("{}: {error:?}", precision.name()));
        }
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(wrong.join("; "))
    }
}

/// A graph of 5000 drawn nodes is fused, and says how long that took.
pub fn large_graph() -> Result<(), libtest_mimic::Failed> {
    let graph = drawn_graph(5000, 1).graph;
    let (fused, seconds) = fused(&graph, 90)?;
    println!(
        "{} nodes, {} regions ({}), {seconds:.2} s",
        graph.nodes.len(),
        fused.regions.len(),
        kinds(&fused)
    );
    Ok(())
}
