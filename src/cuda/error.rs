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
    #[diagnostic(code(cuda::call_failed))]
    Call {
        /// Name of the driver function.
        call: &'static str,
        /// NVIDIA's name of the error, such as `CUDA_ERROR_OUT_OF_MEMORY`.
        name: String,
        meaning: String,
    },
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
    })
}
