//! Compiles ONNX models to self-contained CUDA engines, and runs them.

mod aside;
pub mod c_api;
pub mod cuda;
pub mod engine;
pub mod ir;
pub mod runtime;

#[cfg(feature = "builder")]
#[doc(hidden)]
pub mod cli;
#[cfg(feature = "builder")]
pub mod compile;
#[cfg(feature = "builder")]
pub mod io;
#[cfg(feature = "builder")]
pub mod kernel;
#[cfg(feature = "builder")]
pub mod onnx;
#[cfg(feature = "builder")]
pub mod ops;
#[cfg(feature = "builder")]
pub mod pipeline;
#[cfg(feature = "builder")]
pub mod plan;
#[cfg(feature = "builder")]
pub mod precision;
#[cfg(feature = "builder")]
pub mod reference;
#[cfg(feature = "builder")]
pub mod rewrite;
#[cfg(feature = "builder")]
pub mod specialize;
#[cfg(feature = "builder")]
#[doc(hidden)]
pub mod testing;
#[cfg(feature = "builder")]
pub mod tile;
#[cfg(feature = "builder")]
pub mod tune;
