//! What commands that look at graphs accept: an ONNX model, or a graph in text form.

use std::fs;
use std::path::Path;

use super::failure::Failure;
use crate::ir::Graph;
use crate::{ir, onnx, ops};

/// Extension of graphs in text form.
const TEXT: &str = "rtrt";

/// Reads the graph of a file: text where it is named so, else ONNX.
pub fn graph(path: &Path) -> Result<Graph, Failure> {
    if path.extension().is_none_or(|extension| extension != TEXT) {
        return Ok(onnx::import_file(path)?.graph);
    }
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::failed(format!("cannot read `{}`: {error}", path.display())))?;
    let known = |name: &str| ops::lookup(name).map(|def| def.name);
    ir::text::parse(&text, &known).map_err(|error| {
        let source = miette::NamedSource::new(path.display().to_string(), text.clone());
        Failure::of(miette::Report::new(error).with_source_code(source))
    })
}
