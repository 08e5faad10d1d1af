//! Executes an engine on a GPU; needs nothing but the driver.
//!
//! A [`DeviceEngine`] is an engine on a device: modules loaded, weights uploaded once, shared
//! by any number of [`ExecutionContext`]s. A context owns its stream, its arena and a CUDA
//! graph of all launches; everything is allocated when it is made, nothing per run. The engine
//! was validated when it was read, so addresses here are sums of proven offsets.

mod branches;
mod context;
mod device_engine;
mod error;
mod trace;

pub use context::ExecutionContext;
pub use device_engine::DeviceEngine;
pub use error::RuntimeError;
pub use trace::{Clock, Span, Trace, TraceOptions};
