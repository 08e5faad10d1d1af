//! CUDA driver failures, by the name NVIDIA gives them.

use cudarc::driver::{DriverError, sys};

/// A driver call that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
pub enum CudaError {
    #[error("no CUDA driver on this machine: `libcuda.so.1` cannot be loaded")]
    #[diagnostic(
        code(cuda::no_driver),
        help("install the NVIDIA driver, or use `--device cpu`")
    )]
    NoDriver,
    #[error("there is no device `cuda:{ordinal}`: the driver sees {n_devices} device(s)")]
    #[diagnostic(code(cuda::no_device))]
    NoDevice { ordinal: usize, n_devices: usize },
    #[error("`{call}` failed with `{name}`: {meaning}")]
    #[diagnostic(code(cuda::call_failed), help("{help}"))]
    Call {
        /// Name of the driver function.
        call: &'static str,
        /// NVIDIA's name of the error, such as `CUDA_ERROR_ILLEGAL_ADDRESS`.
        name: String,
        meaning: String,
        /// What to do about it.
        help: &'static str,
    },
    #[error("the device has no room for {bytes} more bytes (`CUDA_ERROR_OUT_OF_MEMORY`)")]
    #[diagnostic(
        code(cuda::out_of_memory),
        help(
            "`nvidia-smi` shows who uses the device; compile with `--max-memory`, `--fp16` or smaller `--shapes`"
        )
    )]
    OutOfMemory { bytes: usize },
    #[error("the CUDA driver has no function `{name}`")]
    #[diagnostic(code(cuda::old_driver), help("update the NVIDIA driver"))]
    MissingSymbol { name: &'static str },
    #[error("`{what}` of {len} bytes at offset {offset} leaves a buffer of {size} bytes")]
    #[diagnostic(code(cuda::out_of_bounds))]
    OutOfBounds {
        what: &'static str,
        offset: usize,
        len: usize,
        size: usize,
    },
}

/// Turns a driver status into a result that names the call.
pub(super) fn check(call: &'static str, status: sys::CUresult) -> Result<(), CudaError> {
    if status == sys::CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    let error = DriverError(status);
    let meaning = error.error_string().map_or_else(
        |_| "unknown error".to_owned(),
        |text| text.to_string_lossy().into_owned(),
    );
    Err(CudaError::Call {
        call,
        name: format!("{status:?}"),
        meaning,
        help: help_for(status),
    })
}

/// As [`check`], for a call that allocates `bytes`.
pub(super) fn check_room(call: &'static str, bytes: usize, status: sys::CUresult) -> Result<(), CudaError> {
    if status == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
        return Err(CudaError::OutOfMemory { bytes });
    }
    check(call, status)
}

/// What to do about a failure, by what NVIDIA says of its kind.
fn help_for(status: sys::CUresult) -> &'static str {
    use sys::CUresult as Status;
    match status {
        Status::CUDA_ERROR_NO_BINARY_FOR_GPU
        | Status::CUDA_ERROR_INVALID_IMAGE
        | Status::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => {
            "the driver does not take these kernels: compile for this device, or update the NVIDIA driver"
        }
        Status::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH | Status::CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE => {
            "the library and the kernel module of the NVIDIA driver differ: restart after updating it"
        }
        Status::CUDA_ERROR_ILLEGAL_ADDRESS
        | Status::CUDA_ERROR_LAUNCH_FAILED
        | Status::CUDA_ERROR_LAUNCH_TIMEOUT
        | Status::CUDA_ERROR_ILLEGAL_INSTRUCTION
        | Status::CUDA_ERROR_MISALIGNED_ADDRESS
        | Status::CUDA_ERROR_HARDWARE_STACK_ERROR => {
            "a kernel failed, and this process cannot use the device any more; `verify --bisect` finds the node"
        }
        Status::CUDA_ERROR_ECC_UNCORRECTABLE
        | Status::CUDA_ERROR_DEVICE_UNAVAILABLE
        | Status::CUDA_ERROR_DEVICE_NOT_LICENSED
        | Status::CUDA_ERROR_CONTEXT_IS_DESTROYED
        | Status::CUDA_ERROR_UNKNOWN => {
            "the device was lost: `nvidia-smi` and the system's log say why; start the process again"
        }
        _ => "`rtrt-codegen doctor` says what this machine offers",
    }
}
