//! Descriptions of tensors for bulk copies, encoded by the driver (`sm_90` and later).

use std::ffi::c_void;
use std::ptr;

use cudarc::driver::sys;

use super::error::{CudaError, check};

/// An encoded tensor map, a kernel argument by value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorMap(sys::CUtensorMap);

/// What a map describes: extents in elements, innermost axis first, and strides in bytes of
/// every axis but that one.
#[derive(Clone, Copy, Debug)]
pub struct Strided<'a> {
    pub address: u64,
    pub element_bytes: usize,
    pub dims: &'a [usize],
    pub strides: &'a [usize],
}

/// A box of pixels along x and y, see `cuTensorMapEncodeIm2col`.
#[derive(Clone, Copy, Debug)]
pub struct PixelCorners {
    pub lower: [i32; 2],
    pub upper: [i32; 2],
    pub steps: [usize; 2],
}

impl TensorMap {
    /// For copies of tiles with extents `tile`; with `pixels`, for copies of so many channels and
    /// pixels. Tile rows are swizzled over 128 bytes; outside of the extents are zeros.
    ///
    /// # Errors
    /// If the driver refuses it.
    pub fn encode(
        tensor: Strided<'_>,
        tile: &[usize],
        pixels: Option<PixelCorners>,
    ) -> Result<Self, CudaError> {
        match pixels {
            None => TensorMap::tiled(tensor, tile),
            Some(pixels) => TensorMap::pixels(tensor, tile, pixels),
        }
    }

    fn tiled(tensor: Strided<'_>, tile: &[usize]) -> Result<Self, CudaError> {
        let own = Axes::of(tensor);
        assert_eq!(tile.len(), own.dims.len(), "a tile has the axes of its tensor");
        let (tile, steps) = (narrow(tile), vec![1u32; own.dims.len()]);
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        // SAFETY: every array has as many elements as the call reads for this rank; the address
        // is only written into the map.
        check("cuTensorMapEncodeTiled", unsafe {
            sys::cuTensorMapEncodeTiled(
                &raw mut map,
                kind(tensor.element_bytes),
                own.rank(),
                tensor.address as *mut c_void,
                own.dims.as_ptr(),
                own.strides.as_ptr(),
                tile.as_ptr(),
                steps.as_ptr(),
                INTERLEAVE,
                SWIZZLE,
                PROMOTION,
                FILL,
            )
        })?;
        Ok(TensorMap(map))
    }

    fn pixels(tensor: Strided<'_>, tile: &[usize], pixels: PixelCorners) -> Result<Self, CudaError> {
        let own = Axes::of(tensor);
        assert_eq!((own.dims.len(), tile.len()), (4, 2), "images have four axes");
        let tile = narrow(tile);
        let steps = narrow(&[1, pixels.steps[0], pixels.steps[1], 1]);
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        // SAFETY: as in `tiled`; corners are read for the two axes between channel and image.
        check("cuTensorMapEncodeIm2col", unsafe {
            sys::cuTensorMapEncodeIm2col(
                &raw mut map,
                kind(tensor.element_bytes),
                own.rank(),
                tensor.address as *mut c_void,
                own.dims.as_ptr(),
                own.strides.as_ptr(),
                pixels.lower.as_ptr(),
                pixels.upper.as_ptr(),
                tile[0],
                tile[1],
                steps.as_ptr(),
                INTERLEAVE,
                SWIZZLE,
                PROMOTION,
                FILL,
            )
        })?;
        Ok(TensorMap(map))
    }

    pub(super) fn pointer(&self) -> *mut c_void {
        ptr::from_ref(&self.0).cast_mut().cast()
    }
}

const INTERLEAVE: sys::CUtensorMapInterleave = sys::CUtensorMapInterleave_enum::CU_TENSOR_MAP_INTERLEAVE_NONE;
const SWIZZLE: sys::CUtensorMapSwizzle = sys::CUtensorMapSwizzle_enum::CU_TENSOR_MAP_SWIZZLE_128B;
const PROMOTION: sys::CUtensorMapL2promotion =
    sys::CUtensorMapL2promotion_enum::CU_TENSOR_MAP_L2_PROMOTION_L2_256B;
const FILL: sys::CUtensorMapFloatOOBfill =
    sys::CUtensorMapFloatOOBfill_enum::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE;

/// Extents and strides as the driver takes them.
struct Axes {
    dims: Vec<u64>,
    strides: Vec<u64>,
}

impl Axes {
    fn of(tensor: Strided<'_>) -> Self {
        assert_eq!(
            tensor.strides.len() + 1,
            tensor.dims.len(),
            "every axis but the innermost has a stride"
        );
        let wide = |values: &[usize]| values.iter().map(|&value| value as u64).collect();
        Axes {
            dims: wide(tensor.dims),
            strides: wide(tensor.strides),
        }
    }

    fn rank(&self) -> u32 {
        u32::try_from(self.dims.len()).unwrap_or(u32::MAX)
    }
}

/// Extents beyond 32 bits are for the driver to refuse.
fn narrow(values: &[usize]) -> Vec<u32> {
    values
        .iter()
        .map(|&value| u32::try_from(value).unwrap_or(u32::MAX))
        .collect()
}

/// Copies move bits: only their number matters.
fn kind(element_bytes: usize) -> sys::CUtensorMapDataType {
    match element_bytes {
        1 => sys::CUtensorMapDataType_enum::CU_TENSOR_MAP_DATA_TYPE_UINT8,
        2 => sys::CUtensorMapDataType_enum::CU_TENSOR_MAP_DATA_TYPE_UINT16,
        _ => sys::CUtensorMapDataType_enum::CU_TENSOR_MAP_DATA_TYPE_UINT32,
    }
}
