//! `inspect`: what is in a model or an engine.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use serde::Serialize;

use super::args::InspectArgs;
use super::engine_report::EngineReport;
use super::failure::Failure;
use super::precision::Decided;
use super::{build, model, out, precision, rank_report};
use crate::ir::text::print_brief;
use crate::ir::{Graph, Source};
use crate::kernel::Arch;
use crate::onnx::Model;
use crate::rewrite::Region;
use crate::{aside, engine, onnx, pipeline};

#[derive(Serialize)]
struct ModelReport {
    name: String,
    producer: String,
    ir_version: i64,
    /// By domain; the main one is spelled out.
    opsets: BTreeMap<String, i64>,
    n_nodes: usize,
    weights_bytes: usize,
    inputs: Vec<ValueReport>,
    outputs: Vec<String>,
    /// Uses of each op after import, most frequent first.
    ops: Vec<(String, usize)>,
}

#[derive(Serialize)]
struct ValueReport {
    name: String,
    /// As `f32[batch,3,224,224]`; none where the model does not say.
    r#type: Option<String>,
}

pub fn run(args: &InspectArgs) -> Result<(), Failure> {
    if is_engine(&args.file)? {
        if args.graph.is_some() {
            return Err(Failure::usage(
                "`--graph` is about models; an engine holds no graph",
            ));
        }
        if args.timing_cache_file.is_some() {
            return Err(Failure::usage(
                "`--timingCacheFile` is about models; an engine holds the variants that were chosen only",
            ));
        }
        return inspect_engine(args);
    }
    model::check_unsigned(&args.file, &args.trust)?;
    if args.explain || args.memory || args.report.is_some() {
        return Err(Failure::usage(
            "`--explain`, `--memory` and `--report` are about engines; `compile --explain` explains a model's",
        ));
    }
    if let Some(stage) = &args.graph {
        return print_graph(stage, args);
    }
    if let Some(timings) = &args.timing_cache_file {
        return rank_report::run(args, &decided(args)?, arch(args)?, timings);
    }
    let model = onnx::import_file(&args.file)?;
    let report = model_report(&model);
    if args.json {
        out::json(&report)
    } else {
        print_model(&report)
    }
}

/// Whether a file begins like an engine; everything else is taken for a model.
pub fn is_engine(path: &Path) -> Result<bool, Failure> {
    let mut head = Vec::new();
    File::open(path)
        .and_then(|file| file.take(64).read_to_end(&mut head))
        .map_err(|error| Failure::failed(format!("cannot read `{}`: {error}", path.display())))?;
    Ok(engine::format::is_engine(&head))
}

fn inspect_engine(args: &InspectArgs) -> Result<(), Failure> {
    let report = EngineReport::of(&model::engine(&args.file, &args.trust)?)?;
    if let Some(path) = &args.report {
        let page = report.memory_page();
        aside::write_aside(path, |into| into.write_all(page.as_bytes()))
            .map_err(|error| Failure::failed(format!("cannot write `{}`: {error}", path.display())))?;
    }
    if args.json {
        return out::json(&report);
    }
    report.print_summary()?;
    if args.memory {
        return report.print_memory();
    }
    report.print_kernels(args.explain)
}

/// The architecture that is chosen for.
fn arch(args: &InspectArgs) -> Result<Arch, Failure> {
    Ok(build::archs(&args.arch)?[0])
}

/// The model, and how it would be built.
fn decided(args: &InspectArgs) -> Result<Decided, Failure> {
    let settings = build::settings(&args.build)?;
    let graph = model::graph(&args.file)?;
    let arch = arch(args)?;
    precision::decide(graph, &args.build, settings, Some(arch), &pipeline::Silent)
}

/// The model in text form after a stage of compiling it; weights are abbreviated.
fn print_graph(stage: &str, args: &InspectArgs) -> Result<(), Failure> {
    let Decided { graph, settings, .. } = decided(args)?;
    if stage == "imported" {
        return out::line(&print_brief(&graph));
    }
    let arch = arch(args)?;
    let core = pipeline::lower(&graph, &settings)?;
    match stage {
        "core" => out::line(&print_brief(&core)),
        "canonical" => out::line(&print_brief(&pipeline::canonical(&core, &settings)?)),
        _ => {
            let fused = pipeline::regions(&core, arch, &settings)?;
            fused
                .regions
                .iter()
                .try_for_each(|region| out::line(&region_text(region)))
        }
    }
}

fn region_text(region: &Region) -> String {
    let rules: Vec<String> = region
        .rules
        .iter()
        .map(|rule| format!("{} ({})", rule.name, rule.place))
        .collect();
    format!(
        "; {:?}, {:.2} us at least, by {}\n{}",
        region.kind,
        region.bound_us,
        rules.join(", "),
        print_brief(&region.body)
    )
}

fn model_report(model: &Model) -> ModelReport {
    let graph = &model.graph;
    let opsets = model.opsets.iter().map(|(domain, &version)| {
        let domain = if domain.is_empty() { "ai.onnx" } else { domain };
        (domain.to_owned(), version)
    });
    let inputs = graph.inputs.iter().map(|&input| {
        let value = graph.value(input);
        ValueReport {
            name: value.name.clone(),
            r#type: value.ty.as_ref().map(ToString::to_string),
        }
    });
    ModelReport {
        name: graph.name.clone(),
        producer: model.producer.clone(),
        ir_version: model.ir_version,
        opsets: opsets.collect(),
        n_nodes: model.n_nodes,
        weights_bytes: weights_bytes(graph),
        inputs: inputs.collect(),
        outputs: graph.output_names.clone(),
        ops: op_counts(graph),
    }
}

fn weights_bytes(graph: &Graph) -> usize {
    let weights = graph.values.iter().filter_map(|value| match &value.source {
        Source::Weight(data) => Some(data.n_bytes()),
        Source::Input(_) | Source::Node(..) => None,
    });
    weights.sum()
}

fn op_counts(graph: &Graph) -> Vec<(String, usize)> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for node in &graph.nodes {
        *counts.entry(node.op).or_default() += 1;
    }
    let mut counts: Vec<(String, usize)> = counts.into_iter().map(|(op, n)| (op.to_owned(), n)).collect();
    counts.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    counts
}

fn print_model(report: &ModelReport) -> Result<(), Failure> {
    let opsets: Vec<String> = report
        .opsets
        .iter()
        .map(|(domain, version)| format!("{domain} {version}"))
        .collect();
    out::line(&format!(
        "model    {}, by {}, opsets {}",
        report.name,
        report.producer,
        opsets.join(", ")
    ))?;
    for input in &report.inputs {
        out::line(&format!(
            "input    {}: {}",
            input.name,
            input.r#type.as_deref().unwrap_or("unknown")
        ))?;
    }
    for output in &report.outputs {
        out::line(&format!("output   {output}"))?;
    }
    out::line(&format!(
        "nodes    {}, weights {} bytes",
        report.n_nodes, report.weights_bytes
    ))?;
    let ops: Vec<String> = report.ops.iter().map(|(op, n)| format!("{op} {n}")).collect();
    out::line(&format!("ops      {}", ops.join(", ")))
}
