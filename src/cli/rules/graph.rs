//! `rules graph`: which rules make what others look for.
//!
//! There are thousands of pairs of rules, so the whole is shown file by file: what the rules of one
//! make for those of another. The pairs are shown for one rule, or where all are asked for.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{load, no_such_rule, rows};
use crate::cli::args::RulesGraphArgs;
use crate::cli::failure::Failure;
use crate::cli::out;
use crate::rewrite::canonicalize::enabling::{Edge, edges};

/// From rules to rules, or from files to files.
#[derive(Serialize)]
struct Arrow {
    from: String,
    to: String,
    /// Ops that the one makes and the other asks for.
    ops: Vec<String>,
    /// Pairs of rules behind it.
    pairs: usize,
}

pub fn run(args: &RulesGraphArgs) -> Result<(), Failure> {
    let set = load(&args.rules)?;
    let mut edges = edges(&set);
    if let Some(name) = &args.rule {
        if !set.headers().any(|header| header.name.text == *name) {
            return Err(no_such_rule(name, &set));
        }
        edges.retain(|edge| edge.from == *name || edge.to == *name);
    }
    let files: BTreeMap<String, String> = rows(&set)
        .into_iter()
        .map(|row| {
            let file = row.place.split(':').next().unwrap_or_default().to_owned();
            (row.name, file)
        })
        .collect();
    let arrows = if args.all || args.rule.is_some() {
        pairs(&edges)
    } else {
        between_files(&edges, &files)
    };
    match (args.json, args.dot) {
        (true, _) => out::json(&arrows),
        (_, true) => dot(&arrows, &files),
        _ => text(&arrows),
    }
}

fn pairs(edges: &[Edge]) -> Vec<Arrow> {
    let arrow = |edge: &Edge| Arrow {
        from: edge.from.clone(),
        to: edge.to.clone(),
        ops: edge.ops.clone(),
        pairs: 1,
    };
    edges.iter().map(arrow).collect()
}

fn between_files(edges: &[Edge], files: &BTreeMap<String, String>) -> Vec<Arrow> {
    let mut found: BTreeMap<(&str, &str), (BTreeSet<&str>, usize)> = BTreeMap::new();
    for edge in edges {
        let (ops, pairs) = found.entry((&files[&edge.from], &files[&edge.to])).or_default();
        ops.extend(edge.ops.iter().map(String::as_str));
        *pairs += 1;
    }
    let arrow = |((from, to), (ops, pairs)): ((&str, &str), (BTreeSet<&str>, usize))| Arrow {
        from: from.to_owned(),
        to: to.to_owned(),
        ops: ops.into_iter().map(str::to_owned).collect(),
        pairs,
    };
    found.into_iter().map(arrow).collect()
}

fn text(arrows: &[Arrow]) -> Result<(), Failure> {
    let mut last = "";
    for arrow in arrows {
        if arrow.from != last {
            out::line(&arrow.from)?;
            last = &arrow.from;
        }
        out::line(&format!("    {}  by {}", arrow.to, arrow.ops.join(", ")))?;
    }
    let pairs: usize = arrows.iter().map(|arrow| arrow.pairs).sum();
    out::line(&format!("{pairs} pairs"))
}

/// Rules lie in boxes, one for each file.
fn dot(arrows: &[Arrow], files: &BTreeMap<String, String>) -> Result<(), Failure> {
    out::line("digraph rules {")?;
    let shown: BTreeSet<&str> = arrows
        .iter()
        .flat_map(|arrow| [arrow.from.as_str(), arrow.to.as_str()])
        .collect();
    let mut boxes: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (rule, file) in files.iter().filter(|(rule, _)| shown.contains(rule.as_str())) {
        boxes.entry(file).or_default().push(rule);
    }
    for (number, (file, rules)) in boxes.iter().enumerate() {
        let rules: Vec<String> = rules.iter().map(|rule| format!("\"{rule}\"")).collect();
        out::line(&format!(
            "  subgraph cluster_{number} {{ label=\"{file}\"; {}; }}",
            rules.join("; ")
        ))?;
    }
    for arrow in arrows {
        out::line(&format!(
            "  \"{}\" -> \"{}\" [label=\"{}\"];",
            arrow.from,
            arrow.to,
            arrow.ops.join(", ")
        ))?;
    }
    out::line("}")
}
