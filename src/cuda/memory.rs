//! Device memory and pinned host memory.

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;

use cudarc::driver::sys;

use super::context::{Context, warn_on_drop};
use super::error::{CudaError, check, check_room};

/// A block of device memory, at least 256-byte aligned. Its content starts undefined.
#[derive(Debug)]
pub struct DeviceMemory {
    context: Arc<Context>,
    address: sys::CUdeviceptr,
    len: usize,
    is_own: bool,
}

impl DeviceMemory {
    /// Allocates `len` bytes; an empty block still has an address.
    pub fn new(context: &Arc<Context>, len: usize) -> Result<Self, CudaError> {
        context.bind()?;
        let mut address: sys::CUdeviceptr = 0;
        // SAFETY: the pointer is to a live address; freed once, in `drop`.
        check_room("cuMemAlloc", len, unsafe {
            sys::cuMemAlloc_v2(&raw mut address, len.max(1))
        })?;
        Ok(DeviceMemory {
            context: Arc::clone(context),
            address,
            len,
            is_own: true,
        })
    }

    /// A block that somebody else allocated; it is not freed here.
    ///
    /// # Safety
    /// `len` bytes at `address` are memory of the device of `context` as long as the result lives, and
    /// whatever else uses them is ordered with the work that the result is used in.
    pub unsafe fn borrowed(context: &Arc<Context>, address: u64, len: usize) -> Self {
        DeviceMemory {
            context: Arc::clone(context),
            address,
            len,
            is_own: false,
        }
    }

    pub fn address(&self) -> u64 {
        self.address
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        if !self.is_own {
            return;
        }
        warn_on_drop(self.context.bind());
        // SAFETY: frees the block made in `new`, once; the driver waits for its users.
        warn_on_drop(check("cuMemFree", unsafe { sys::cuMemFree_v2(self.address) }));
    }
}

/// Page-locked host memory, which the copy engines reach without a bounce buffer.
#[derive(Debug)]
pub struct PinnedMemory {
    context: Arc<Context>,
    pointer: NonNull<u8>,
    len: usize,
}

// SAFETY: plain memory, owned by this object alone.
unsafe impl Send for PinnedMemory {}

impl PinnedMemory {
    /// Allocates `len` bytes, all zero.
    pub fn new(context: &Arc<Context>, len: usize) -> Result<Self, CudaError> {
        context.bind()?;
        let mut raw: *mut c_void = ptr::null_mut();
        // SAFETY: the pointer is to a live pointer; freed once, in `drop`.
        check("cuMemHostAlloc", unsafe {
            sys::cuMemHostAlloc(&raw mut raw, len.max(1), 0)
        })?;
        let pointer = NonNull::new(raw.cast::<u8>()).ok_or(CudaError::OutOfBounds {
            what: "pinned allocation",
            offset: 0,
            len,
            size: 0,
        })?;
        // SAFETY: the driver gave us at least `len` writable bytes.
        unsafe { ptr::write_bytes(pointer.as_ptr(), 0, len.max(1)) };
        Ok(PinnedMemory {
            context: Arc::clone(context),
            pointer,
            len,
        })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes. Only valid while no copy that touches them is in flight.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes are ours and initialised.
        unsafe { slice::from_raw_parts(self.pointer.as_ptr(), self.len) }
    }

    /// The bytes for writing. Only valid while no copy that touches them is in flight.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: `len` bytes are ours and initialised, and borrowed exclusively.
        unsafe { slice::from_raw_parts_mut(self.pointer.as_ptr(), self.len) }
    }

    pub(super) fn pointer(&self) -> *mut u8 {
        self.pointer.as_ptr()
    }
}

impl Drop for PinnedMemory {
    fn drop(&mut self) {
        warn_on_drop(self.context.bind());
        // SAFETY: frees the block made in `new`, once.
        warn_on_drop(check("cuMemFreeHost", unsafe {
            sys::cuMemFreeHost(self.pointer.as_ptr().cast())
        }));
    }
}

/// Checks that `offset..offset + len` lies within `size` bytes.
pub(super) fn span(what: &'static str, offset: usize, len: usize, size: usize) -> Result<(), CudaError> {
    match offset.checked_add(len) {
        Some(end) if end <= size => Ok(()),
        _ => Err(CudaError::OutOfBounds {
            what,
            offset,
            len,
            size,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_checked_without_overflow() {
        assert!(span("copy", 4, 4, 8).is_ok());
        assert!(span("copy", 5, 4, 8).is_err());
        assert!(span("copy", usize::MAX, 2, 8).is_err());
    }
}
