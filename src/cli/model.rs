//! Files that commands accept: engines, ONNX models, and graphs in text form.

use std::fs;
use std::path::Path;

use super::args::TrustArgs;
use super::failure::Failure;
use crate::engine::{self, Engine, PublicKey};
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

/// Reads an engine, of the signer that is required.
pub fn engine(path: &Path, trust: &TrustArgs) -> Result<Engine, Failure> {
    let signer = trust
        .require_signature
        .as_deref()
        .map(PublicKey::load)
        .transpose()?;
    Ok(engine::load_signed(path, signer.as_ref())?)
}

/// Says where a signature is required of what cannot have one.
pub fn check_unsigned(path: &Path, trust: &TrustArgs) -> Result<(), Failure> {
    match &trust.require_signature {
        None => Ok(()),
        Some(_) => Err(Failure::usage(format!(
            "`--require-signature`: `{}` is no engine, and only engines are signed",
            path.display()
        ))),
    }
}
