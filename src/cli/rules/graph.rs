//! `rules graph`: which rules make what others look for.

use super::{load, no_such_rule};
use crate::cli::args::RulesGraphArgs;
use crate::cli::failure::Failure;
use crate::cli::out;
use crate::rewrite::enabling::{Edge, edges};

pub fn run(args: &RulesGraphArgs) -> Result<(), Failure> {
    let set = load(&args.rules)?;
    let mut edges = edges(&set);
    if let Some(name) = &args.rule {
        if !set.headers().any(|header| header.name.text == *name) {
            return Err(no_such_rule(name, &set));
        }
        edges.retain(|edge| edge.from == *name || edge.to == *name);
    }
    if args.dot { dot(&edges) } else { text(&edges) }
}

fn text(edges: &[Edge]) -> Result<(), Failure> {
    let mut last = "";
    for edge in edges {
        if edge.from != last {
            out::line(&edge.from)?;
            last = &edge.from;
        }
        out::line(&format!("    {}  by {}", edge.to, edge.ops.join(", ")))?;
    }
    out::line(&format!("{} pairs", edges.len()))
}

fn dot(edges: &[Edge]) -> Result<(), Failure> {
    out::line("digraph rules {")?;
    for edge in edges {
        out::line(&format!(
            "  {} -> {} [label=\"{}\"];",
            edge.from,
            edge.to,
            edge.ops.join(", ")
        ))?;
    }
    out::line("}")
}
