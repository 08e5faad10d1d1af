//! What GPUs there are, asked without risk of a panic.

use std::ffi::{c_char, c_int};
use std::sync::OnceLock;

use cudarc::driver::sys::{self, CUdevice_attribute as Attribute};

use super::error::{CudaError, check};

/// One GPU, as the driver describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    pub ordinal: usize,
    pub name: String,
    /// Compute capability times ten, such as 90.
    pub sm: u32,
    pub n_sms: usize,
    pub memory_bytes: usize,
    pub l2_bytes: usize,
    /// Most dynamic shared memory a block can opt in to.
    pub smem_per_block_bytes: usize,
    /// CUDA version the driver speaks, times 1000: 13000 is 13.0.
    pub driver_version: u32,
}

/// The devices of this machine; `None` where there is no usable CUDA driver.
pub fn probe() -> Option<Vec<DeviceInfo>> {
    if !driver_present() {
        return None;
    }
    match init() {
        Ok(()) => {}
        Err(CudaError::Call { name, .. }) if name == "CUDA_ERROR_NO_DEVICE" => return Some(Vec::new()),
        Err(error) => {
            tracing::debug!("the CUDA driver is present but unusable: {error}");
            return None;
        }
    }
    let n_devices = device_count().ok()?;
    Some(
        (0..n_devices)
            .filter_map(|ordinal| describe(ordinal).ok())
            .collect(),
    )
}

/// Whether `libcuda` loads; after `true`, cudarc's bindings do not panic on lookup.
pub(super) fn driver_present() -> bool {
    static PRESENT: OnceLock<bool> = OnceLock::new();
    // SAFETY: loads and unloads the driver library, whose initialisers are NVIDIA's.
    *PRESENT.get_or_init(|| unsafe { sys::is_culib_present() })
}

pub(super) fn init() -> Result<(), CudaError> {
    if !driver_present() {
        return Err(CudaError::NoDriver);
    }
    // SAFETY: no preconditions; calling it again is allowed.
    check("cuInit", unsafe { sys::cuInit(0) })
}

pub(super) fn device_count() -> Result<usize, CudaError> {
    let mut count: c_int = 0;
    // SAFETY: the pointer is to a live integer.
    check("cuDeviceGetCount", unsafe {
        sys::cuDeviceGetCount(&raw mut count)
    })?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// The driver's handle of device `ordinal`.
pub(super) fn device_handle(ordinal: usize) -> Result<sys::CUdevice, CudaError> {
    let n_devices = device_count()?;
    if ordinal >= n_devices {
        return Err(CudaError::NoDevice { ordinal, n_devices });
    }
    let mut device: sys::CUdevice = 0;
    let wanted = c_int::try_from(ordinal).map_err(|_| CudaError::NoDevice { ordinal, n_devices })?;
    // SAFETY: the pointer is to a live handle.
    check("cuDeviceGet", unsafe {
        sys::cuDeviceGet(&raw mut device, wanted)
    })?;
    Ok(device)
}

/// Everything [`DeviceInfo`] tells of device `ordinal`. The driver must be initialised.
pub(super) fn describe(ordinal: usize) -> Result<DeviceInfo, CudaError> {
    let device = device_handle(ordinal)?;
    let major = attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    Ok(DeviceInfo {
        ordinal,
        name: name(device)?,
        sm: u32::try_from(major * 10 + minor).unwrap_or(0),
        n_sms: attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        memory_bytes: memory_bytes(device)?,
        l2_bytes: attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?,
        smem_per_block_bytes: attribute(
            device,
            Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
        )?,
        driver_version: driver_version()?,
    })
}

fn attribute(device: sys::CUdevice, attribute: Attribute) -> Result<usize, CudaError> {
    let mut value: c_int = 0;
    // SAFETY: the device handle comes from the driver and the pointer is to a live integer.
    check("cuDeviceGetAttribute", unsafe {
        sys::cuDeviceGetAttribute(&raw mut value, attribute, device)
    })?;
    Ok(usize::try_from(value).unwrap_or(0))
}

fn name(device: sys::CUdevice) -> Result<String, CudaError> {
    let mut bytes = [0u8; 256];
    // SAFETY: the driver writes at most 256 bytes, NUL included.
    check("cuDeviceGetName", unsafe {
        sys::cuDeviceGetName(bytes.as_mut_ptr().cast::<c_char>(), 256, device)
    })?;
    let len = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    Ok(String::from_utf8_lossy(&bytes[..len]).into_owned())
}

fn memory_bytes(device: sys::CUdevice) -> Result<usize, CudaError> {
    let mut bytes = 0usize;
    // SAFETY: the device handle comes from the driver and the pointer is to a live integer.
    check("cuDeviceTotalMem", unsafe {
        sys::cuDeviceTotalMem_v2(&raw mut bytes, device)
    })?;
    Ok(bytes)
}

fn driver_version() -> Result<u32, CudaError> {
    let mut version: c_int = 0;
    // SAFETY: the pointer is to a live integer.
    check("cuDriverGetVersion", unsafe {
        sys::cuDriverGetVersion(&raw mut version)
    })?;
    Ok(u32::try_from(version).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probing_never_panics() {
        let _ = probe();
    }
}
