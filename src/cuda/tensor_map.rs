//! Descriptions of tensors for bulk copies, encoded by the driver (`sm_90` and later).

use std::ffi::c_void;
use std::ptr;

use cudarc::driver::sys;

use super::error::{CudaError, check};

/// An encoded tensor map, a kernel argument by value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorMap(sys::CUtensorMap);

impl TensorMap {
    /// Of a tensor at device address `address`: extents in elements, innermost axis first,
    /// strides in bytes of every axis but that one, and the extents of the tile of one copy.
    /// Tile rows are swizzled over 128 bytes; outside of the extents are zeros.
    ///
    /// # Errors
    /// If the driver refuses it.
    pub fn encode(
        address: u64,
        element_bytes: usize,
        dims: &[usize],
        strides: &[usize],
        tile: &[usize],
    ) -> Result<Self, CudaError> {
        let rank = dims.len();
        assert!(
            strides.len() + 1 == rank && tile.len() == rank,
            "a tensor map has extents of as many axes as it has strides"
        );
        let wide = |values: &[usize]| values.iter().map(|&value| value as u64).collect::<Vec<u64>>();
        let (dims, strides) = (wide(dims), wide(strides));
        // Extents beyond 32 bits are for the driver to refuse.
        let tile: Vec<u32> = tile
            .iter()
            .map(|&extent| u32::try_from(extent).unwrap_or(u32::MAX))
            .collect();
        let steps = vec![1u32; rank];
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        // SAFETY: every array has as many elements as the call reads for this rank; the address
        // is only written into the map.
        check("cuTensorMapEncodeTiled", unsafe {
            sys::cuTensorMapEncodeTiled(
                &raw mut map,
                kind(element_bytes),
                u32::try_from(rank).unwrap_or(u32::MAX),
                address as *mut c_void,
                dims.as_ptr(),
                strides.as_ptr(),
                tile.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave_enum::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle_enum::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion_enum::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                sys::CUtensorMapFloatOOBfill_enum::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        })?;
        Ok(TensorMap(map))
    }

    pub(super) fn pointer(&self) -> *mut c_void {
        ptr::from_ref(&self.0).cast_mut().cast()
    }
}

/// Copies move bits: only their number matters.
fn kind(element_bytes: usize) -> sys::CUtensorMapDataType {
    match element_bytes {
        1 => sys::CUtensorMapDataType_enum::CU_TENSOR_MAP_DATA_TYPE_UINT8,
        2 => sys::CUtensorMapDataType_enum::CU_TENSOR_MAP_DATA_TYPE_UINT16,
        _ => sys::CUtensorMapDataType_enum::CU_TENSOR_MAP_DATA_TYPE_UINT32,
    }
}
