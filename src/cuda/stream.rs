//! Stream and event.

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use cudarc::driver::sys;

use super::context::{Context, warn_on_drop};
use super::error::{CudaError, check};
use super::memory::{DeviceMemory, PinnedMemory, span};

/// A queue of device work, independent of the default stream.
#[derive(Debug)]
pub struct Stream {
    pub(super) context: Arc<Context>,
    pub(super) handle: sys::CUstream,
    is_own: bool,
}

// SAFETY: the driver locks streams itself; a handle is not bound to a thread.
unsafe impl Send for Stream {}

impl Stream {
    pub fn new(context: &Arc<Context>) -> Result<Self, CudaError> {
        context.bind()?;
        let mut handle: sys::CUstream = ptr::null_mut();
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the pointer is to a live handle; destroyed once, in `drop`.
        check("cuStreamCreate", unsafe {
            sys::cuStreamCreate(&raw mut handle, flags)
        })?;
        Ok(Stream {
            context: Arc::clone(context),
            handle,
            is_own: true,
        })
    }

    /// A stream that somebody else made; it is not destroyed here. Null is the default stream.
    ///
    /// # Safety
    /// `handle` is null or a stream of `context` (the primary context of its device), and stays so as
    /// long as the result lives.
    pub unsafe fn borrowed(context: &Arc<Context>, handle: *mut c_void) -> Self {
        Stream {
            context: Arc::clone(context),
            handle: handle.cast(),
            is_own: false,
        }
    }

    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Waits until everything queued so far is done; reports faults of kernels too.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        self.context.bind()?;
        // SAFETY: the stream is live.
        check("cuStreamSynchronize", unsafe {
            sys::cuStreamSynchronize(self.handle)
        })
    }

    /// Queues a copy of `len` bytes of `from` at `from_offset` to `to` at `to_offset`.
    ///
    /// `from` must stay unchanged until [`Stream::synchronize`].
    pub fn upload(
        &self,
        to: &DeviceMemory,
        to_offset: usize,
        from: &PinnedMemory,
        from_offset: usize,
        len: usize,
    ) -> Result<(), CudaError> {
        span("upload", to_offset, len, to.len())?;
        span("upload", from_offset, len, from.len())?;
        if len == 0 {
            return Ok(());
        }
        self.context.bind()?;
        // SAFETY: both ranges were checked against their buffers, which are live.
        check("cuMemcpyHtoDAsync", unsafe {
            sys::cuMemcpyHtoDAsync_v2(
                to.address() + to_offset as u64,
                from.pointer().add(from_offset).cast_const().cast(),
                len,
                self.handle,
            )
        })
    }

    /// Queues a copy from the device; `to` holds the bytes after [`Stream::synchronize`].
    pub fn download(
        &self,
        to: &mut PinnedMemory,
        to_offset: usize,
        from: &DeviceMemory,
        from_offset: usize,
        len: usize,
    ) -> Result<(), CudaError> {
        span("download", from_offset, len, from.len())?;
        span("download", to_offset, len, to.len())?;
        if len == 0 {
            return Ok(());
        }
        self.context.bind()?;
        // SAFETY: both ranges were checked against their buffers, which are live.
        check("cuMemcpyDtoHAsync", unsafe {
            sys::cuMemcpyDtoHAsync_v2(
                to.pointer().add(to_offset).cast(),
                from.address() + from_offset as u64,
                len,
                self.handle,
            )
        })
    }

    /// Queues a copy from device memory to device memory.
    pub fn copy(
        &self,
        to: &DeviceMemory,
        to_offset: usize,
        from: &DeviceMemory,
        from_offset: usize,
        len: usize,
    ) -> Result<(), CudaError> {
        span("copy", to_offset, len, to.len())?;
        span("copy", from_offset, len, from.len())?;
        if len == 0 {
            return Ok(());
        }
        self.context.bind()?;
        // SAFETY: both ranges were checked against their buffers, which are live.
        check("cuMemcpyDtoDAsync", unsafe {
            sys::cuMemcpyDtoDAsync_v2(
                to.address() + to_offset as u64,
                from.address() + from_offset as u64,
                len,
                self.handle,
            )
        })
    }

    /// What is queued from now on waits until `event` is reached.
    pub fn wait(&self, event: &Event) -> Result<(), CudaError> {
        self.context.bind()?;
        // SAFETY: both handles are live and of the same context.
        check("cuStreamWaitEvent", unsafe {
            sys::cuStreamWaitEvent(self.handle, event.handle, 0)
        })
    }

    /// Queues setting `len` bytes at `offset` to `byte`.
    pub fn fill(&self, memory: &DeviceMemory, offset: usize, len: usize, byte: u8) -> Result<(), CudaError> {
        span("fill", offset, len, memory.len())?;
        if len == 0 {
            return Ok(());
        }
        self.context.bind()?;
        // SAFETY: the range was checked against the buffer, which is live.
        check("cuMemsetD8Async", unsafe {
            sys::cuMemsetD8Async(memory.address() + offset as u64, byte, len, self.handle)
        })
    }

    /// Copies ordinary host bytes to the device and waits for it.
    pub fn upload_now(&self, to: &DeviceMemory, offset: usize, bytes: &[u8]) -> Result<(), CudaError> {
        span("upload", offset, bytes.len(), to.len())?;
        if bytes.is_empty() {
            return Ok(());
        }
        self.context.bind()?;
        // SAFETY: the range was checked; pageable memory is read before the call returns
        // or, at the latest, before the synchronisation below.
        check("cuMemcpyHtoDAsync", unsafe {
            sys::cuMemcpyHtoDAsync_v2(
                to.address() + offset as u64,
                bytes.as_ptr().cast(),
                bytes.len(),
                self.handle,
            )
        })?;
        self.synchronize()
    }

    /// Copies device bytes into ordinary host memory and waits for it.
    pub fn download_now(
        &self,
        bytes: &mut [u8],
        from: &DeviceMemory,
        offset: usize,
    ) -> Result<(), CudaError> {
        span("download", offset, bytes.len(), from.len())?;
        if bytes.is_empty() {
            return Ok(());
        }
        self.context.bind()?;
        // SAFETY: the range was checked, and `bytes` stays borrowed until the copy is done.
        check("cuMemcpyDtoHAsync", unsafe {
            sys::cuMemcpyDtoHAsync_v2(
                bytes.as_mut_ptr().cast(),
                from.address() + offset as u64,
                bytes.len(),
                self.handle,
            )
        })?;
        self.synchronize()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Work in flight may still use buffers that are dropped after us.
        warn_on_drop(self.synchronize());
        if self.is_own {
            // SAFETY: destroys the handle made in `new`, once.
            warn_on_drop(check("cuStreamDestroy", unsafe {
                sys::cuStreamDestroy_v2(self.handle)
            }));
        }
    }
}

/// A point in a stream whose time can be taken.
#[derive(Debug)]
pub struct Event {
    context: Arc<Context>,
    handle: sys::CUevent,
}

// SAFETY: event handles are not bound to a thread.
unsafe impl Send for Event {}
// SAFETY: `&self` reads the handle only, and the driver locks events itself.
unsafe impl Sync for Event {}

impl Event {
    pub fn new(context: &Arc<Context>) -> Result<Self, CudaError> {
        context.bind()?;
        let mut handle: sys::CUevent = ptr::null_mut();
        let flags = sys::CUevent_flags::CU_EVENT_DEFAULT as u32;
        // SAFETY: the pointer is to a live handle; destroyed once, in `drop`.
        check("cuEventCreate", unsafe {
            sys::cuEventCreate(&raw mut handle, flags)
        })?;
        Ok(Event {
            context: Arc::clone(context),
            handle,
        })
    }

    /// Marks the current end of `stream`.
    pub fn record(&self, stream: &Stream) -> Result<(), CudaError> {
        self.context.bind()?;
        // SAFETY: both handles are live and of the same context.
        check("cuEventRecord", unsafe {
            sys::cuEventRecord(self.handle, stream.handle)
        })
    }

    pub fn synchronize(&self) -> Result<(), CudaError> {
        self.context.bind()?;
        // SAFETY: the event is live.
        check("cuEventSynchronize", unsafe {
            sys::cuEventSynchronize(self.handle)
        })
    }

    /// Microseconds from `start` to `self`; both must have been reached.
    pub fn elapsed_us(&self, start: &Event) -> Result<f64, CudaError> {
        type Elapsed = unsafe extern "C" fn(*mut f32, sys::CUevent, sys::CUevent) -> sys::CUresult;
        self.context.bind()?;
        // The bindings of CUDA 13 only know `_v2`, which drivers before 12.8 lack; the
        // plain symbol is in every driver.
        // SAFETY: the signature is that of the driver's header.
        let elapsed = unsafe { sys::culib().get::<Elapsed>(b"cuEventElapsedTime\0") }.map_err(|_| {
            CudaError::MissingSymbol {
                name: "cuEventElapsedTime",
            }
        })?;
        let mut milliseconds = 0f32;
        // SAFETY: the pointer is to a live float and both events are live.
        check("cuEventElapsedTime", unsafe {
            elapsed(&raw mut milliseconds, start.handle, self.handle)
        })?;
        Ok(f64::from(milliseconds) * 1e3)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        warn_on_drop(self.context.bind());
        // SAFETY: destroys the handle made in `new`, once.
        warn_on_drop(check("cuEventDestroy", unsafe {
            sys::cuEventDestroy_v2(self.handle)
        }));
    }
}
