//! Cubins in a context, and launching their kernels.

use std::ffi::{CString, c_void};
use std::ptr;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUfunction_attribute as Attribute, CUlaunchAttributeID as LaunchAttribute};
use smallvec::SmallVec;

use super::context::{Context, warn_on_drop};
use super::error::{CudaError, check};
use super::stream::Stream;
use super::tensor_map::TensorMap;

/// A loaded cubin.
#[derive(Debug)]
pub struct Module {
    context: Arc<Context>,
    handle: sys::CUmodule,
}

// SAFETY: module handles belong to a context, not to a thread.
unsafe impl Send for Module {}
// SAFETY: as above; nothing of it changes after loading.
unsafe impl Sync for Module {}

impl Module {
    /// Loads a cubin, or PTX, which the driver compiles; fails where it is for another architecture.
    pub fn load(context: &Arc<Context>, image: &[u8]) -> Result<Arc<Self>, CudaError> {
        context.bind()?;
        // The driver reads the ELF header at once, and PTX up to a zero byte: give it an aligned copy with one.
        let mut aligned = vec![0u64; image.len().div_ceil(8) + 1];
        bytemuck::cast_slice_mut::<u64, u8>(&mut aligned)[..image.len()].copy_from_slice(image);
        let mut handle: sys::CUmodule = ptr::null_mut();
        // SAFETY: the image stays alive for the call, which copies it.
        check("cuModuleLoadData", unsafe {
            sys::cuModuleLoadData(&raw mut handle, aligned.as_ptr().cast())
        })?;
        Ok(Arc::new(Module {
            context: Arc::clone(context),
            handle,
        }))
    }

    /// The kernel with C name `name`.
    pub fn function(self: &Arc<Self>, name: &str) -> Result<Function, CudaError> {
        self.context.bind()?;
        let c_name = CString::new(name).map_err(|_| CudaError::Call {
            call: "cuModuleGetFunction",
            name: "CUDA_ERROR_NOT_FOUND".to_owned(),
            meaning: format!("`{}` is no kernel name", name.escape_debug()),
            help: "the engine is damaged: compile it again",
        })?;
        let mut handle: sys::CUfunction = ptr::null_mut();
        // SAFETY: the module is live and the name is NUL-terminated.
        check("cuModuleGetFunction", unsafe {
            sys::cuModuleGetFunction(&raw mut handle, self.handle, c_name.as_ptr())
        })?;
        Ok(Function {
            module: Arc::clone(self),
            handle,
        })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        warn_on_drop(self.context.bind());
        // SAFETY: unloads the module loaded in `load`, once; functions keep an `Arc` to us.
        warn_on_drop(check("cuModuleUnload", unsafe {
            sys::cuModuleUnload(self.handle)
        }));
    }
}

/// Grid, block and dynamic shared memory of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchGeometry {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub smem_bytes: u32,
}

/// When a launch may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// When everything queued before it is done.
    AfterPredecessors,
    /// When every block of the launch before it allows so: the kernel itself waits for what
    /// it reads. Needs compute capability 9.0.
    WhenAllowed,
}

/// One kernel argument, by value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelArg {
    /// A device address.
    Address(u64),
    I32(i32),
    TensorMap(TensorMap),
}

/// A kernel of a loaded module.
#[derive(Clone, Debug)]
pub struct Function {
    module: Arc<Module>,
    handle: sys::CUfunction,
}

// SAFETY: function handles belong to a module, not to a thread.
unsafe impl Send for Function {}
// SAFETY: the driver allows launches of one function from several threads at once.
unsafe impl Sync for Function {}

impl Function {
    /// Opts in to `bytes` of dynamic shared memory; needed where it and the static part are
    /// above 48 KiB together.
    pub fn allow_dynamic_smem(&self, bytes: u32) -> Result<(), CudaError> {
        self.module.context.bind()?;
        let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
        let attribute = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function is live.
        check("cuFuncSetAttribute", unsafe {
            sys::cuFuncSetAttribute(self.handle, attribute, bytes)
        })
    }

    /// Queues one launch. Argument values are copied before the call returns.
    ///
    /// The caller vouches that `args` are what the kernel was compiled with; cubins are
    /// checked against their parameter table when they are built.
    pub fn launch(
        &self,
        stream: &Stream,
        geometry: &LaunchGeometry,
        begin: Begin,
        args: &[KernelArg],
    ) -> Result<(), CudaError> {
        self.module.context.bind()?;
        // On these little-endian targets an i32 is the low half of its slot.
        let slots: SmallVec<[u64; 16]> = args.iter().map(KernelArg::bits).collect();
        let mut pointers: SmallVec<[*mut c_void; 16]> = (args.iter().zip(&slots))
            .map(|(arg, slot)| match arg {
                KernelArg::Address(_) | KernelArg::I32(_) => ptr::from_ref(slot).cast_mut().cast(),
                KernelArg::TensorMap(map) => map.pointer(),
            })
            .collect();
        let LaunchGeometry {
            grid,
            block,
            smem_bytes,
        } = *geometry;
        let mut attribute = sys::CUlaunchAttribute {
            id: LaunchAttribute::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: [0; 4],
            value: sys::CUlaunchAttributeValue {
                programmaticStreamSerializationAllowed: 1,
            },
        };
        let config = sys::CUlaunchConfig {
            gridDimX: grid[0],
            gridDimY: grid[1],
            gridDimZ: grid[2],
            blockDimX: block[0],
            blockDimY: block[1],
            blockDimZ: block[2],
            sharedMemBytes: smem_bytes,
            hStream: stream.handle,
            attrs: &raw mut attribute,
            numAttrs: u32::from(begin == Begin::WhenAllowed),
        };
        // SAFETY: function and stream are live; every pointer is to a slot of eight bytes or to
        // a tensor map, which the driver only reads, and the configuration outlives the call.
        check("cuLaunchKernelEx", unsafe {
            sys::cuLaunchKernelEx(
                &raw const config,
                self.handle,
                pointers.as_mut_ptr(),
                ptr::null_mut(),
            )
        })
    }
}

impl KernelArg {
    /// What its slot holds; arguments that are larger have none.
    fn bits(&self) -> u64 {
        match self {
            KernelArg::Address(address) => *address,
            KernelArg::I32(value) => u64::from(value.cast_unsigned()),
            KernelArg::TensorMap(_) => 0,
        }
    }
}
