//! Sparse tensors, which become dense ones.

use super::external::ExternalFiles;
use super::proto::SparseTensorProto;
use super::tensor;
use crate::ir::types::checked_bytes;
use crate::ir::{DType, HostTensor};
use crate::ops::OpError;

/// Most bytes a sparse tensor may unfold to: a few bytes in a file can claim any size.
const MAX_DENSE_BYTES: usize = 1 << 30;

/// The dense form; elements that are not listed are zero.
///
/// # Errors
/// If places lie outside the dims, counts differ, or the dense form is too large.
pub fn read(sparse: &SparseTensorProto, files: &mut ExternalFiles) -> Result<HostTensor, OpError> {
    let (Some(values), Some(indices)) = (&sparse.values, &sparse.indices) else {
        return Err(OpError::invalid("a sparse tensor needs values and indices"));
    };
    let values = tensor::read(values, files)?;
    let indices = tensor::read(indices, files)?;
    let dims = tensor::dims(&sparse.dims)?;
    let n_bytes = checked_bytes(values.dtype(), &dims).filter(|&n_bytes| n_bytes <= MAX_DENSE_BYTES);
    if n_bytes.is_none() {
        return Err(OpError::unsupported(format!("a sparse tensor of dims {dims:?}")));
    }
    let places = places(&indices, &dims)?;
    if places.len() != values.n_elements() {
        return Err(OpError::invalid(format!(
            "a sparse tensor of {} values has {} indices",
            values.n_elements(),
            places.len()
        )));
    }
    let mut dense = HostTensor::zeros(values.dtype(), &dims);
    let size = values.dtype().size_bytes();
    for (place, value) in places.into_iter().zip(values.bytes().chunks_exact(size)) {
        dense.bytes_mut()[place * size..][..size].copy_from_slice(value);
    }
    Ok(dense)
}

/// Row-major positions, each inside `dims`.
fn places(indices: &HostTensor, dims: &[usize]) -> Result<Vec<usize>, OpError> {
    if indices.dtype() != DType::I64 {
        return Err(OpError::invalid(format!(
            "sparse indices are {}, expected i64",
            indices.dtype()
        )));
    }
    let outside =
        |index: &[i64]| OpError::invalid(format!("sparse index {index:?} is outside of dims {dims:?}"));
    let n_elements: usize = dims.iter().product();
    match *indices.dims() {
        [_] => {
            let linear = |&index: &i64| usize::try_from(index).ok().filter(|&place| place < n_elements);
            let all = indices.as_slice::<i64>().iter();
            all.map(|index| linear(index).ok_or_else(|| outside(&[*index])))
                .collect()
        }
        [_, rank] if rank == dims.len() && rank > 0 => indices
            .as_slice::<i64>()
            .chunks_exact(rank)
            .map(|index| place(index, dims).ok_or_else(|| outside(index)))
            .collect(),
        _ => Err(OpError::invalid(format!(
            "sparse indices have dims {:?}, expected [n] or [n, {}]",
            indices.dims(),
            dims.len()
        ))),
    }
}

fn place(index: &[i64], dims: &[usize]) -> Option<usize> {
    index
        .iter()
        .zip(dims)
        .try_fold(0, |place, (&coordinate, &extent)| {
            let coordinate = usize::try_from(coordinate)
                .ok()
                .filter(|&coordinate| coordinate < extent)?;
            Some(place * extent + coordinate)
        })
}

#[cfg(test)]
mod tests {
    use super::super::proto::TensorProto;
    use super::*;

    fn sparse(indices: &[i64], index_dims: &[i64]) -> SparseTensorProto {
        SparseTensorProto {
            values: Some(TensorProto {
                data_type: 1,
                dims: vec![2],
                float_data: vec![5.0, 7.0],
                ..TensorProto::default()
            }),
            indices: Some(TensorProto {
                data_type: 7,
                dims: index_dims.to_vec(),
                int64_data: indices.to_vec(),
                ..TensorProto::default()
            }),
            dims: vec![2, 3],
        }
    }

    #[test]
    fn both_spellings_of_indices_fill_the_same_places() {
        for sparse in [sparse(&[1, 5], &[2]), sparse(&[0, 1, 1, 2], &[2, 2])] {
            let dense = read(&sparse, &mut ExternalFiles::none()).unwrap();
            assert_eq!(dense.as_slice::<f32>(), [0.0, 5.0, 0.0, 0.0, 0.0, 7.0]);
        }
    }

    #[test]
    fn places_outside_are_refused() {
        for sparse in [
            sparse(&[1, 6], &[2]),
            sparse(&[0, 3, 1, 2], &[2, 2]),
            sparse(&[-1, 2], &[2]),
        ] {
            let error = read(&sparse, &mut ExternalFiles::none()).unwrap_err().to_string();
            assert!(error.contains("outside"), "{error}");
        }
    }
}
