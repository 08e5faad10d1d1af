//! What any stage can report.

use super::Untunable;
use crate::compile::CompileError;
use crate::cuda::CudaError;
use crate::engine::EngineError;
use crate::io::IoError;
use crate::onnx::ImportError;
use crate::ops::OpError;
use crate::precision::calibrate::CalibrateError;
use crate::precision::metric::MetricError;
use crate::reference::ReferenceError;
use crate::rewrite::{RewriteError, RuleErrors};
use crate::runtime::RuntimeError;
use crate::specialize::{BindError, SpecializeError, StagesError};
use crate::tune::TuneError;

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
    #[diagnostic(transparent)]
    Specialize(#[from] SpecializeError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Rules(#[from] RuleErrors),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Compile(#[from] CompileError),
    #[error(transparent)]
    #[diagnostic(code(rewrite::failed))]
    Rewrite(#[from] RewriteError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Calibrate(#[from] CalibrateError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Metric(#[from] MetricError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Tune(#[from] TuneError),
    #[error(transparent)]
    #[diagnostic(code(engine::file))]
    Engine(#[from] EngineError),
    #[error("the engine takes {least} bytes of device memory at least; `--max-memory` allows {most}")]
    #[diagnostic(
        code(plan::memory),
        help("allow {least}, or use `--fp16`, or smaller shapes; {kept} are weights, inputs and outputs")
    )]
    Memory {
        most: usize,
        least: usize,
        /// Of these, weights, inputs and outputs, which every plan keeps.
        kept: usize,
    },
    #[error("{0}")]
    #[diagnostic(code(tune::engine), help("{}", .0.help()))]
    Untunable(Untunable),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Cuda(#[from] CudaError),
}

impl PipelineError {
    /// Whether this is a clean refusal of what is not supported.
    pub fn is_refusal(&self) -> bool {
        match self {
            PipelineError::Import(error) => error.is_refusal(),
            PipelineError::Io(error) => error.is_refusal(),
            PipelineError::Reference(source) | PipelineError::Rewrite(RewriteError::Constant { source }) => {
                matches!(
                    source,
                    ReferenceError::Node {
                        source: OpError::Unsupported(_),
                        ..
                    }
                )
            }
            PipelineError::Specialize(error) => error.is_unsupported(),
            PipelineError::Untunable(_) => true,
            PipelineError::Rules(_)
            | PipelineError::Compile(_)
            | PipelineError::Rewrite(_)
            | PipelineError::Calibrate(_)
            | PipelineError::Metric(_)
            | PipelineError::Tune(_)
            | PipelineError::Engine(_)
            | PipelineError::Memory { .. }
            | PipelineError::Runtime(_)
            | PipelineError::Cuda(_) => false,
        }
    }
}

impl From<BindError> for PipelineError {
    fn from(error: BindError) -> Self {
        PipelineError::Specialize(error.into())
    }
}

impl From<StagesError<PipelineError>> for PipelineError {
    fn from(error: StagesError<PipelineError>) -> Self {
        match error {
            StagesError::Specialize(error) => error.into(),
            StagesError::Stage(error) => error,
        }
    }
}
