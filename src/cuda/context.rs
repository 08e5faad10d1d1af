//! The context of a device.
//!
//! Every object keeps its [`Context`] alive and makes it current before it calls the
//! driver, so they may be used from any thread.

use std::ptr;
use std::sync::Arc;

use cudarc::driver::sys;

use super::error::{CudaError, check};
use super::probe::{self, DeviceInfo};

/// The primary context of one device.
#[derive(Debug)]
pub struct Context {
    handle: sys::CUcontext,
    device: sys::CUdevice,
    info: DeviceInfo,
}

// SAFETY: a context handle may be made current on any thread, and on several at once.
unsafe impl Send for Context {}
// SAFETY: as above; the fields never change after construction.
unsafe impl Sync for Context {}

impl Context {
    /// Opens device `ordinal`.
    ///
    /// # Errors
    /// Without a driver or such a device, and where the driver refuses.
    pub fn new(ordinal: usize) -> Result<Arc<Self>, CudaError> {
        probe::init()?;
        let device = probe::device_handle(ordinal)?;
        let info = probe::describe(ordinal)?;
        let mut handle: sys::CUcontext = ptr::null_mut();
        // SAFETY: the device handle comes from the driver; released once, in `drop`.
        check("cuDevicePrimaryCtxRetain", unsafe {
            sys::cuDevicePrimaryCtxRetain(&raw mut handle, device)
        })?;
        Ok(Arc::new(Context { handle, device, info }))
    }

    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// Makes this context current on the calling thread.
    pub(super) fn bind(&self) -> Result<(), CudaError> {
        // SAFETY: the context is retained for as long as `self` lives.
        check("cuCtxSetCurrent", unsafe { sys::cuCtxSetCurrent(self.handle) })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: undoes the one retain of `new`; every other object kept an `Arc` to us.
        let released = check("cuDevicePrimaryCtxRelease", unsafe {
            sys::cuDevicePrimaryCtxRelease_v2(self.device)
        });
        warn_on_drop(released);
    }
}

/// Destructors cannot return errors; after a kernel fault they all fail, so only log.
pub(super) fn warn_on_drop(result: Result<(), CudaError>) {
    if let Err(error) = result {
        tracing::debug!("while releasing CUDA objects: {error}");
    }
}
