//! The only module that speaks to CUDA, and the only one that may use `unsafe`.
//!
//! Two halves that do not know each other: the driver (`libcuda`, through cudarc's raw
//! bindings) executes cubins, and NVRTC makes them. Neither has ever heard of a graph.
//! Ask [`probe()`] before anything else of the driver half: cudarc panics where the driver
//! library is absent.
//!
//! Launching a kernel is a safe call here although device code can write anywhere in
//! device memory: it cannot reach ordinary host memory, so a wrong kernel gives wrong
//! numbers or a CUDA error, never undefined behaviour of the host program. Pinned host
//! memory is only handed out between a stream's synchronisations.

#![expect(unsafe_code, reason = "this is the module that calls C libraries")]

pub mod context;
pub mod error;
pub mod graph;
pub mod memory;
pub mod module;
#[cfg(feature = "builder")]
pub mod nvrtc;
#[cfg(feature = "builder")]
pub mod nvrtc_locate;
pub mod probe;
pub mod stream;
pub mod tensor_map;

pub use context::Context;
pub use error::CudaError;
pub use graph::GraphExec;
pub use memory::{DeviceMemory, PinnedMemory};
pub use module::{Begin, Function, KernelArg, LaunchGeometry, Module};
#[cfg(feature = "builder")]
pub use nvrtc::{Nvrtc, NvrtcFailure, NvrtcVersion};
#[cfg(feature = "builder")]
pub use nvrtc_locate::NvrtcMissing;
pub use probe::{DeviceInfo, probe};
pub use stream::{Event, Stream};
pub use tensor_map::{PixelCorners, Strided, TensorMap};
