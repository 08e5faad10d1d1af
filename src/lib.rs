//! Compiles ONNX models to self-contained CUDA engines, and runs them.
//!
//! A model is imported, bound to shapes and lowered to a static graph; the reference interpreter runs that on
//! the CPU, and [`pipeline::compile`] makes an engine of it, which any number of [`runtime::ExecutionContext`]s
//! execute. `ARCHITECTURE.md` follows the steps between.
//!
//! ```
//! # #[cfg(feature = "builder")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::path::Path;
//!
//! use rtrt_codegen::ir::DType;
//! use rtrt_codegen::pipeline::{self, Settings};
//! use rtrt_codegen::{io, onnx, reference};
//!
//! let graph = onnx::import_file(Path::new("tests/models/digits/model.onnx"))?.graph;
//! let inputs = io::read_inputs(Path::new("tests/models/digits/samples.npz"), &pipeline::ports(&graph))?;
//! let settings = Settings {
//!     shapes: vec![("image".to_owned(), inputs[0].dims().to_vec())],
//!     ..Settings::stored_in(DType::F32)
//! };
//! let core = pipeline::lower(&graph, &settings)?;
//! let outputs = reference::run(&core, &inputs)?;
//! assert_eq!(outputs[0].dims(), [16, 10]);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "builder"))]
//! # fn main() {}
//! ```
//!
//! The engine of the same model, saved, proven while it is read, and executed where there is a GPU:
//!
//! ```
//! # #[cfg(feature = "builder")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use std::path::Path;
//! use rtrt_codegen::cuda::{self, Context, Nvrtc};
//! use rtrt_codegen::engine;
//! use rtrt_codegen::kernel::Arch;
//! # use rtrt_codegen::ir::{DType, HostTensor};
//! # use rtrt_codegen::onnx;
//! use rtrt_codegen::pipeline::{self, Selection, Settings, Silent};
//! use rtrt_codegen::runtime::{DeviceEngine, ExecutionContext};
//!
//! # let graph = onnx::import_file(Path::new("tests/models/digits/model.onnx"))?.graph;
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("digits.engine");
//! # if Nvrtc::get().is_err() {
//! #     return Ok(());
//! # }
//! let settings = Settings::stored_in(DType::F16);
//! let core = pipeline::lower(&graph, &settings)?;
//! let orin = Arch { sm: 87, specific: false };
//! let hopper = Arch { sm: 90, specific: true };
//! let built = pipeline::compile(&[core], &[orin, hopper], &settings, &Selection::Predicted, &Silent)?;
//! engine::save(&built, &path)?;
//!
//! let read = engine::load(&path)?;
//! let input = &read.header.profiles[0].inputs[0];
//! let image = HostTensor::zeros(input.dtype, &input.dims);
//! if cuda::probe().is_some_and(|devices| devices.iter().any(|device| device.sm == 87 || device.sm == 90)) {
//!     let engine = DeviceEngine::load(&read, &Context::new(0)?)?;
//!     let outputs = ExecutionContext::new(&engine)?.run(&[image])?;
//!     assert_eq!(outputs[0].dims(), [1, 10]);
//! }
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "builder"))]
//! # fn main() {}
//! ```

mod aside;
pub mod c_api;
pub mod cuda;
pub mod engine;
mod hex;
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
