//! The comment above a kernel, for people: where it came from and how it was made.

use std::fmt::Write as _;

use super::source::{Arch, Variant};
use super::spec::KernelSpec;
use crate::rewrite::Region;

/// Longest list of ONNX nodes that is printed whole.
const MAX_NODES: usize = 12;

/// Lines about the regions that share a kernel: their ONNX nodes and rules.
pub fn origins(regions: &[&Region]) -> String {
    let mut text = String::new();
    let many = regions.len() > 1;
    for (position, region) in regions.iter().enumerate() {
        let mut nodes: Vec<&str> = Vec::new();
        for name in region.body.nodes.iter().flat_map(|node| &node.origin) {
            if !nodes.contains(&name.as_str()) {
                nodes.push(name);
            }
        }
        let label = if many {
            format!("nodes {position}")
        } else {
            "nodes".to_owned()
        };
        let more = nodes.len().saturating_sub(MAX_NODES);
        nodes.truncate(MAX_NODES);
        let mut line = one_line(&nodes.join(" + "));
        if more > 0 {
            write!(line, " + {more} more").expect("writing to a string succeeds");
        }
        comment(&mut text, &label, &line);
    }
    let mut rules: Vec<String> = Vec::new();
    for rule in regions.iter().flat_map(|region| &region.rules) {
        let line = format!("{} ({})", rule.name, rule.place);
        if !rules.contains(&line) {
            rules.push(line);
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
