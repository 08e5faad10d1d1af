//! Constant and run-time data on the host.

use std::sync::Arc;

use bytemuck::Pod;

use super::types::{DType, TensorType, checked_bytes};

/// A dense, row-major tensor on the host. Cloning shares the bytes.
///
/// Elements are little-endian; four- and two-bit kinds take one byte each. The storage is
/// 16-byte aligned, so that [`HostTensor::as_slice`] never copies.
#[derive(Clone, Debug)]
pub struct HostTensor {
    dtype: DType,
    dims: Vec<usize>,
    storage: Arc<Vec<u128>>,
}

impl HostTensor {
    /// Copies `bytes`, which must be exactly the size that `dtype` and `dims` ask for.
    pub fn from_bytes(dtype: DType, dims: &[usize], bytes: &[u8]) -> Option<Self> {
        let expected = checked_bytes(dtype, dims)?;
        if bytes.len() != expected {
            return None;
        }
        let mut tensor = HostTensor::zeros(dtype, dims);
        tensor.bytes_mut().copy_from_slice(bytes);
        Some(tensor)
    }

    /// Copies `values`, whose in-memory form must be that of `dtype`.
    ///
    /// # Panics
    /// If the element size or the count does not fit.
    pub fn from_slice<T: Pod>(dtype: DType, dims: &[usize], values: &[T]) -> Self {
        assert_eq!(size_of::<T>(), dtype.size_bytes(), "element size of {dtype}");
        HostTensor::from_bytes(dtype, dims, bytemuck::cast_slice(values))
            .expect("from_slice() was given as many values as dims ask for")
    }

    pub fn from_f32(dims: &[usize], values: &[f32]) -> Self {
        HostTensor::from_slice(DType::F32, dims, values)
    }

    pub fn from_i64(dims: &[usize], values: &[i64]) -> Self {
        HostTensor::from_slice(DType::I64, dims, values)
    }

    /// All bits zero, which is zero in every kind but `f8e8m0`.
    pub fn zeros(dtype: DType, dims: &[usize]) -> Self {
        let n_bytes = checked_bytes(dtype, dims).expect("tensor size fits in memory");
        HostTensor {
            dtype,
            dims: dims.to_vec(),
            storage: Arc::new(vec![0u128; n_bytes.div_ceil(16)]),
        }
    }

    pub fn dtype(&self) -> DType {
        self.dtype
    }

    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    pub fn ty(&self) -> TensorType {
        TensorType::new(self.dtype, &self.dims)
    }

    pub fn n_elements(&self) -> usize {
        self.dims.iter().product()
    }

    pub fn n_bytes(&self) -> usize {
        self.n_elements() * self.dtype.size_bytes()
    }

    pub fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(self.storage.as_slice())[..self.n_bytes()]
    }

    /// Where the bytes are in memory: the same for tensors that share them, as long as one of these is there.
    pub fn address(&self) -> usize {
        self.bytes().as_ptr() as usize
    }

    /// Whether another tensor has the same bytes.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.storage) > 1
    }

    /// The bytes for writing; copies them first if they are shared.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let n_bytes = self.n_bytes();
        &mut bytemuck::cast_slice_mut(Arc::make_mut(&mut self.storage).as_mut_slice())[..n_bytes]
    }

    /// The elements in their in-memory form (`f16` as [`half::f16`] or `u16`, `bool` as `u8`).
    ///
    /// # Panics
    /// If `T` has another size than an element.
    pub fn as_slice<T: Pod>(&self) -> &[T] {
        assert_eq!(
            size_of::<T>(),
            self.dtype.size_bytes(),
            "element size of {}",
            self.dtype
        );
        bytemuck::cast_slice(self.bytes())
    }

    /// Like [`HostTensor::as_slice`], for writing.
    pub fn as_mut_slice<T: Pod>(&mut self) -> &mut [T] {
        assert_eq!(
            size_of::<T>(),
            self.dtype.size_bytes(),
            "element size of {}",
            self.dtype
        );
        bytemuck::cast_slice_mut(self.bytes_mut())
    }

    /// The same elements under other dims of the same count.
    pub fn reshaped(&self, dims: &[usize]) -> Self {
        assert_eq!(
            dims.iter().product::<usize>(),
            self.n_elements(),
            "reshape keeps the count"
        );
        HostTensor {
            dtype: self.dtype,
            dims: dims.to_vec(),
            storage: Arc::clone(&self.storage),
        }
    }
}

impl PartialEq for HostTensor {
    fn eq(&self, other: &Self) -> bool {
        self.dtype == other.dtype && self.dims == other.dims && self.bytes() == other.bytes()
    }
}
