//! Why an engine does not run.

use crate::cuda::CudaError;
use crate::engine::EngineError;
use crate::ir::TensorType;

/// What can go wrong between an engine and its results.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum RuntimeError {
    #[error("the engine has no program for {device} (sm_{sm}); it was compiled for {archs}")]
    #[diagnostic(code(runtime::arch), help("compile the model with `--arch sm_{sm}`"))]
    NoProgram { device: String, sm: u32, archs: String },
    #[error("the engine has no weights: they were stripped")]
    #[diagnostic(
        code(runtime::stripped),
        help("`rtrt-codegen refit ENGINE MODEL` gives them back")
    )]
    Stripped,
    #[error("the engine takes {wanted} inputs, {found} were given")]
    #[diagnostic(code(runtime::inputs))]
    InputCount { wanted: usize, found: usize },
    #[error("input `{name}` is {wanted} in the engine, {found} was given")]
    #[diagnostic(
        code(runtime::inputs),
        help(
            "compile the model for these shapes with `--shapes`, which may be given several times, or for a range with `--minShapes` and `--maxShapes`"
        )
    )]
    InputType {
        name: String,
        /// The types that it has in the profiles of the engine.
        wanted: String,
        found: TensorType,
    },
    #[error("there is no profile {profile}; the engine has {n_profiles}")]
    #[diagnostic(code(runtime::profile))]
    Profile { profile: usize, n_profiles: usize },
    #[error("{wanted} buffers are needed, {found} were given")]
    #[diagnostic(code(runtime::buffers))]
    BufferCount { wanted: usize, found: usize },
    #[error("`{name}` takes a buffer of {wanted} bytes, one of {found} was given")]
    #[diagnostic(code(runtime::buffers))]
    BufferSize {
        name: String,
        wanted: usize,
        found: usize,
    },
    #[error("axis {axis} of output `{name}` has {most} elements at most, but {count} are counted")]
    #[diagnostic(code(runtime::count))]
    Count {
        name: String,
        axis: usize,
        most: usize,
        count: i64,
    },
    #[error("data exceeds a limit of the engine, its outputs are wrong: {name} is {found}, {most} at most")]
    #[diagnostic(
        code(runtime::limit),
        help("where `--bound` stated the limit, compile the model with a higher one")
    )]
    Limit { name: String, most: i64, found: i64 },
    #[error(transparent)]
    #[diagnostic(code(runtime::engine))]
    Engine(#[from] EngineError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Cuda(#[from] CudaError),
}
