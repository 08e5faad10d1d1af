//! The stages in order: the facade that commands and tests call.

use crate::io::{IoError, Port};
use crate::ir::{Graph, HostTensor};
use crate::onnx::ImportError;
use crate::ops::OpError;
use crate::reference::{self, ReferenceError};

/// What any stage can report.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum PipelineError {
    #[error(transparent)]
    #[diagnostic(transparent)]
    Import(#[from] ImportError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Io(#[from] IoError),
    #[error(transparent)]
    #[diagnostic(code(reference::failed))]
    Reference(#[from] ReferenceError),
    #[error("input `{name}` is {found}, the model declares {declared}")]
    #[diagnostic(code(pipeline::input))]
    InputType {
        name: String,
        found: String,
        declared: String,
    },
}

impl PipelineError {
    /// Whether this is a clean refusal of what is not supported.
    pub fn is_refusal(&self) -> bool {
        match self {
            PipelineError::Import(error) => error.is_refusal(),
            PipelineError::Io(error) => error.is_refusal(),
            PipelineError::Reference(error) => matches!(
                error,
                ReferenceError::Node {
                    source: OpError::Unsupported(_),
                    ..
                }
            ),
            PipelineError::InputType { .. } => false,
        }
    }
}

/// What the inputs of a graph are called, and their kinds.
pub fn ports(graph: &Graph) -> Vec<Port> {
    let port = |value: &crate::ir::Value| Port {
        name: value.name.clone(),
        dtype: value.ty.as_ref().map(|ty| ty.dtype),
    };
    graph
        .inputs
        .iter()
        .map(|&input| port(graph.value(input)))
        .collect()
}

/// Runs a model on the reference interpreter.
///
/// # Errors
/// If inputs do not fit what the model declares, or a node fails.
pub fn run_reference(graph: &Graph, inputs: &[HostTensor]) -> Result<Vec<HostTensor>, PipelineError> {
    for (&input, data) in graph.inputs.iter().zip(inputs) {
        check_input(graph.value(input), data)?;
    }
    Ok(reference::run(graph, inputs)?)
}

/// Compares data with the declared type; symbolic dims fit any extent.
fn check_input(value: &crate::ir::Value, data: &HostTensor) -> Result<(), PipelineError> {
    let Some(declared) = &value.ty else { return Ok(()) };
    let dims = declared.shape.0.iter().map(crate::ir::Dim::known);
    let fits = declared.dtype == data.dtype()
        && declared.rank() == data.dims().len()
        && dims
            .zip(data.dims())
            .all(|(declared, &found)| declared.is_none_or(|declared| declared == found));
    if fits {
        return Ok(());
    }
    Err(PipelineError::InputType {
        name: value.name.clone(),
        found: data.ty().to_string(),
        declared: declared.to_string(),
    })
}
