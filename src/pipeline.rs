//! The stages in order: the facade that commands and tests call.

use crate::compile::CompileError;
use crate::cuda::Nvrtc;
use crate::engine::EngineError;
use crate::io::{IoError, Port};
use crate::ir::{DType, Graph, HostTensor};
use crate::onnx::ImportError;
use crate::ops::OpError;
use crate::reference::{self, ReferenceError};
use crate::rewrite::rule_error::RuleErrors;
use crate::rewrite::rule_set::RuleOptions;
use crate::specialize::{self, BindError, SpecializeError};

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
    #[error(transparent)]
    #[diagnostic(code(specialize::failed))]
    Specialize(#[from] SpecializeError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Rules(#[from] RuleErrors),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Compile(#[from] CompileError),
    #[error(transparent)]
    #[diagnostic(code(engine::file))]
    Engine(#[from] EngineError),
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
            PipelineError::Specialize(error) => error.is_unsupported(),
            PipelineError::Rules(_) | PipelineError::Compile(_) | PipelineError::Engine(_) => false,
        }
    }
}

impl From<BindError> for PipelineError {
    fn from(error: BindError) -> Self {
        PipelineError::Specialize(error.into())
    }
}

/// How a model is built.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Dims of inputs by name; other symbols are 1.
    pub shapes: Vec<(String, Vec<usize>)>,
    /// Kind activations and weights are stored in: f32, f16 or bf16.
    pub precision: DType,
    /// Whether products of f32 may use TF32.
    pub tf32: bool,
    pub rules: RuleOptions,
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

/// The static graph of core ops for the shapes of `settings`.
///
/// # Errors
/// If the shapes do not fit the model, or nodes cannot be lowered.
pub fn lower(graph: &Graph, settings: &Settings) -> Result<Graph, PipelineError> {
    let bindings = specialize::bind(graph, &settings.shapes)?;
    Ok(specialize::specialize(graph, &bindings)?)
}

/// Says early whether there is an NVRTC to compile kernels with.
///
/// # Errors
/// If there is none: where it was looked for and how to get it.
pub fn check_nvrtc() -> Result<(), PipelineError> {
    match Nvrtc::get() {
        Ok(_) => Ok(()),
        Err(missing) => Err(CompileError::NoNvrtc(missing.clone()).into()),
    }
}

/// Runs a model on the reference interpreter.
///
/// # Errors
/// If inputs do not fit what the model declares, or a node fails.
pub fn run_reference(graph: &Graph, inputs: &[HostTensor]) -> Result<Vec<HostTensor>, PipelineError> {
    specialize::bind_inputs(graph, inputs)?;
    Ok(reference::run(graph, inputs)?)
}
