//! The comment above a kernel, for people: where it came from and how it was made.

use std::fmt::Write as _;

use super::source::{Arch, Variant};
use super::spec::KernelSpec;
use crate::ir::Graph;

/// Longest list of ONNX nodes that is printed whole.
const MAX_NODES: usize = 12;

/// Where a region is from: its ONNX nodes, each once, and rules as `name (file:line)`.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    pub nodes: &'a [String],
    pub rules: &'a [String],
}

/// Names of the ONNX nodes of a region's body, each once, in order.
pub fn onnx_nodes(body: &Graph) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in body.nodes.iter().flat_map(|node| &node.origin) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// Lines about the regions that share a kernel.
pub fn origins(regions: &[Origin<'_>]) -> String {
    let mut text = String::new();
    let many = regions.len() > 1;
    for (position, region) in regions.iter().enumerate() {
        let label = if many {
            format!("nodes {position}")
        } else {
            "nodes".to_owned()
        };
        let more = region.nodes.len().saturating_sub(MAX_NODES);
        let shown = &region.nodes[..region.nodes.len() - more];
        let mut line = one_line(&shown.join(" + "));
        if more > 0 {
            write!(line, " + {more} more").expect("writing to a string succeeds");
        }
        comment(&mut text, &label, &line);
    }
    let mut rules: Vec<&str> = Vec::new();
    for rule in regions.iter().flat_map(|region| region.rules) {
        if !rules.contains(&rule.as_str()) {
            rules.push(rule);
        }
    }
    if !rules.is_empty() {
        comment(&mut text, "rules", &one_line(&rules.join(", ")));
    }
    text
}

/// Lines about the problem, the variant and the template.
pub fn problem(spec: &KernelSpec, variant: &Variant, arch: Arch) -> String {
    let mut text = String::new();
    for (position, line) in spec.text().lines().enumerate() {
        comment(&mut text, if position == 0 { "region" } else { "" }, line);
    }
    let knobs: Vec<String> = variant
        .knobs
        .iter()
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    let specific = if arch.specific { "a" } else { "" };
    comment(
        &mut text,
        "variant",
        &format!("{}   arch sm_{}{specific}", knobs.join(", "), arch.sm),
    );
    comment(&mut text, "template", &format!("{}.cu.tera", variant.template));
    text
}

fn comment(text: &mut String, label: &str, line: &str) {
    writeln!(text, "{}", format!("// {label:<8} {line}").trim_end()).expect("writing to a string succeeds");
}

/// Names from a model may hold anything; a line break or a trailing backslash in one must
/// not end the comment.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() || c == '\\' { '?' } else { c })
        .collect()
}
