//! `rules try`: where one rule fires in a model, and what keeps it from firing elsewhere.

use serde::Serialize;

use super::no_such_rule;
use crate::cli::args::RulesTryArgs;
use crate::cli::failure::Failure;
use crate::cli::{build, model, out};
use crate::ir::Graph;
use crate::pipeline;
use crate::reference::Constants;
use crate::rewrite::probe::{Probe, probe_canonical, probe_model, probe_siblings, probe_terms};
use crate::rewrite::rules::ast::{Arrow, Phase, Rule};
use crate::rewrite::rules::set::{RuleOptions, RuleSet};

#[derive(Serialize)]
struct Report {
    rule: String,
    place: String,
    /// Ops of the left side.
    ops: usize,
    matches: Vec<Firing>,
    near_misses: Vec<Miss>,
    /// Places where only the outermost op fits, which are listed with `--all`.
    others: usize,
}

#[derive(Serialize)]
struct Firing {
    nodes: Vec<String>,
    names: std::collections::BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Miss {
    nodes: Vec<String>,
    /// Ops of the left side that fit.
    matched: usize,
    reason: String,
}

pub fn run(args: &RulesTryArgs) -> Result<(), Failure> {
    let settings = build::settings(&args.build)?;
    let rules = RuleSet::load(&RuleOptions {
        all: true,
        ..settings.rules.clone()
    })?;
    let header = rules.headers().find(|header| header.name.text == args.rule);
    let header = header.ok_or_else(|| no_such_rule(&args.rule, &rules))?;
    let graph = model::graph(&args.model)?;
    let probe = probe(&graph, &settings, &rules, &args.rule)?;
    let report = report(&args.rule, rules.place(header.span), probe, args.all);
    if args.json {
        out::json(&report)
    } else {
        print(&report)
    }
}

fn probe(
    graph: &Graph,
    settings: &pipeline::Settings,
    rules: &RuleSet,
    name: &str,
) -> Result<Probe, Failure> {
    let rule = rules.rule(name);
    if let Some(rule) = rule.filter(|rule| rule.header.phase <= Phase::ModelRest) {
        return Ok(probe_model(graph, rules, rule));
    }
    let core = &pipeline::lower(graph, settings)?;
    if let Some(rule) = rule.filter(|rule| rule.arrow == Arrow::Replace) {
        return Ok(probe_passes(core, settings, rules, rule));
    }
    let canonical = pipeline::canonical(core, settings)?;
    if let Some(rule) = rule {
        return Ok(probe_terms(&canonical, rules, rule)?);
    }
    let mut horizontals = rules.horizontals.iter();
    let rule = horizontals.find(|rule| rule.header.name.text == name);
    let rule = rule.expect("a header of this name was found");
    Ok(probe_siblings(&canonical, rules, rule)?)
}

/// A rule that replaces is watched in every pass.
fn probe_passes(core: &Graph, settings: &pipeline::Settings, rules: &RuleSet, rule: &Rule) -> Probe {
    let mut seen = Probe::default();
    pipeline::canonical_by(core, settings, &Constants::default(), |graph| {
        let (graph, probe) = probe_canonical(graph, rules, rule);
        seen = std::mem::take(&mut seen).joined(probe);
        graph
    });
    seen
}

fn report(rule: &str, place: String, probe: Probe, all: bool) -> Report {
    // Where a pattern has several ops, its outermost op alone is not near.
    let least = if all { 1 } else { probe.n_ops.min(2) };
    let (near, far): (Vec<_>, Vec<_>) = probe.misses.into_iter().partition(|miss| miss.n_matched >= least);
    let firing = |firing: crate::rewrite::probe::Firing| Firing {
        nodes: firing.nodes,
        names: firing.names.into_iter().collect(),
    };
    Report {
        rule: rule.to_owned(),
        place,
        ops: probe.n_ops,
        matches: probe.firings.into_iter().map(firing).collect(),
        near_misses: near
            .into_iter()
            .map(|miss| Miss {
                nodes: miss.nodes,
                matched: miss.n_matched,
                reason: miss.reason,
            })
            .collect(),
        others: far.len(),
    }
}

fn print(report: &Report) -> Result<(), Failure> {
    for found in &report.matches {
        out::line(&format!("match      {}", listed(&found.nodes)))?;
        for (name, value) in &found.names {
            out::line(&format!("             {name} = {value}"))?;
        }
    }
    for miss in &report.near_misses {
        out::line(&format!(
            "near miss  {} ({} of {} ops)",
            listed(&miss.nodes),
            miss.matched,
            report.ops
        ))?;
        out::line(&format!("             {}", miss.reason))?;
    }
    let others = match report.others {
        0 => String::new(),
        n => format!(
            ", {} with only its outermost op (`--all` lists them)",
            counted(n, "place", "places")
        ),
    };
    out::line(&format!(
        "{} ({}): {}, {}{others}",
        report.rule,
        report.place,
        counted(report.matches.len(), "match", "matches"),
        counted(report.near_misses.len(), "near miss", "near misses")
    ))
}

fn counted(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

fn listed(nodes: &[String]) -> String {
    if nodes.is_empty() {
        "(no node of the model)".to_owned()
    } else {
        nodes.join(", ")
    }
}
