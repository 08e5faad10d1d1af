//! Executes an engine on a GPU; needs nothing but the driver.
//!
//! A [`DeviceEngine`] is an engine on a device: modules loaded, weights uploaded once, shared
//! by any number of [`ExecutionContext`]s. A context owns its stream, its arena and CUDA
//! graphs of all launches; everything is allocated when it is made, nothing per run. Only where there are more
//! profiles than [`MAX_GRAPHS`] are graphs recorded when a profile is used, and dropped for others. The engine
//! was validated when it was read, so addresses here are sums of proven offsets.

mod branches;
mod context;
mod device_engine;
mod error;
mod recent;
mod trace;

pub use context::{ExecutionContext, MAX_GRAPHS};
pub use device_engine::DeviceEngine;
pub use error::RuntimeError;
pub use trace::{Clock, Span, Trace, TraceOptions};
