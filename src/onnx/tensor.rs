//! `TensorProto` to [`HostTensor`]: every kind, every way the elements may be stored.
//!
//! Nothing is allocated before the bytes that fill it are known to be there.

use super::external::ExternalFiles;
use super::proto::TensorProto;
use super::types;
use crate::ir::types::checked_bytes;
use crate::ir::{DType, HostTensor};
use crate::ops::OpError;

/// Value of `data_location` for data in another file.
const EXTERNAL: i32 = 1;

/// The data of `tensor`; `files` finds what is stored outside.
///
/// # Errors
/// If the kind is not supported, or the data is not as long as kind and dims ask for.
pub fn read(tensor: &TensorProto, files: &mut ExternalFiles) -> Result<HostTensor, OpError> {
    let dtype = types::dtype(tensor.data_type).map_err(OpError::Unsupported)?;
    let dims = dims(&tensor.dims)?;
    if checked_bytes(dtype, &dims).is_none() {
        return Err(OpError::invalid(format!(
            "dims {dims:?} of {dtype} are too large"
        )));
    }
    if tensor.segment.is_some() {
        return Err(OpError::unsupported("a tensor in segments"));
    }
    if tensor.data_location == EXTERNAL {
        return read_external(tensor, dtype, &dims, files);
    }
    match &tensor.raw_data {
        Some(raw) if !raw.is_empty() => from_stored(dtype, &dims, raw),
        Some(_) | None => from_fields(tensor, dtype, &dims),
    }
}

/// Extents as unsigned numbers.
///
/// # Errors
/// If one is negative.
pub fn dims(dims: &[i64]) -> Result<Vec<usize>, OpError> {
    dims.iter()
        .map(|&extent| usize::try_from(extent))
        .collect::<Result<_, _>>()
        .map_err(|_| OpError::invalid(format!("dims {dims:?} hold a negative extent")))
}

/// Elements that share one stored byte.
fn packing(dtype: DType) -> usize {
    match dtype {
        DType::I4 | DType::U4 | DType::F4E2M1 => 2,
        DType::I2 | DType::U2 => 4,
        DType::F64
        | DType::F32
        | DType::F16
        | DType::BF16
        | DType::F8E4M3
        | DType::F8E4M3Fnuz
        | DType::F8E5M2
        | DType::F8E5M2Fnuz
        | DType::F8E8M0
        | DType::I64
        | DType::I32
        | DType::I16
        | DType::I8
        | DType::U64
        | DType::U32
        | DType::U16
        | DType::U8
        | DType::Bool => 1,
    }
}

/// Bytes a tensor takes in a file.
fn stored_bytes(dtype: DType, dims: &[usize]) -> usize {
    let n_elements: usize = dims.iter().product();
    match packing(dtype) {
        1 => n_elements * dtype.size_bytes(),
        per_byte => n_elements.div_ceil(per_byte),
    }
}

fn read_external(
    tensor: &TensorProto,
    dtype: DType,
    dims: &[usize],
    files: &mut ExternalFiles,
) -> Result<HostTensor, OpError> {
    let n_bytes = stored_bytes(dtype, dims);
    let section = files.locate(&tensor.external_data, n_bytes)?;
    if packing(dtype) > 1 || dtype == DType::Bool {
        let mut stored = vec![0; n_bytes];
        section.read(&mut stored)?;
        return from_stored(dtype, dims, &stored);
    }
    let mut data = HostTensor::zeros(dtype, dims);
    section.read(data.bytes_mut())?;
    Ok(data)
}

/// A tensor from the bytes of a file: little-endian, narrow kinds packed from the low bits on.
fn from_stored(dtype: DType, dims: &[usize], stored: &[u8]) -> Result<HostTensor, OpError> {
    let expected = stored_bytes(dtype, dims);
    if stored.len() != expected {
        return Err(OpError::invalid(format!(
            "{dtype}{dims:?} takes {expected} bytes, found {}",
            stored.len()
        )));
    }
    let mut data = HostTensor::zeros(dtype, dims);
    match packing(dtype) {
        1 => data.bytes_mut().copy_from_slice(stored),
        per_byte => {
            for (position, element) in data.bytes_mut().iter_mut().enumerate() {
                let bits = 8 / per_byte;
                let code = stored[position / per_byte] >> (position % per_byte * bits);
                *element = widen(dtype, code);
            }
        }
    }
    if dtype == DType::Bool {
        data.bytes_mut()
            .iter_mut()
            .for_each(|element| *element = u8::from(*element != 0));
    }
    Ok(data)
}

/// One element of a packed kind as it is held on the host; higher bits of `code` are ignored.
#[expect(
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "bits are moved, not numbers"
)]
fn widen(dtype: DType, code: u8) -> u8 {
    match dtype {
        DType::I4 => ((code << 4) as i8 >> 4) as u8,
        DType::I2 => ((code << 6) as i8 >> 6) as u8,
        DType::U2 => code & 0x3,
        _ => code & 0xf,
    }
}

/// A tensor from the typed fields, each kind from the field ONNX gives it.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "narrow kinds keep the low bits of a wider field"
)]
fn from_fields(tensor: &TensorProto, dtype: DType, dims: &[usize]) -> Result<HostTensor, OpError> {
    let ints = &tensor.int32_data;
    match dtype {
        DType::F32 => exactly(dtype, dims, &tensor.float_data),
        DType::F64 => exactly(dtype, dims, &tensor.double_data),
        DType::I64 => exactly(dtype, dims, &tensor.int64_data),
        DType::U64 => exactly(dtype, dims, &tensor.uint64_data),
        DType::U32 => {
            let values: Vec<u32> = tensor.uint64_data.iter().map(|&value| value as u32).collect();
            exactly(dtype, dims, &values)
        }
        DType::I32 => exactly(dtype, dims, ints),
        DType::F16 | DType::BF16 | DType::I16 | DType::U16 => {
            let values: Vec<u16> = ints.iter().map(|&value| value as u16).collect();
            exactly(dtype, dims, &values)
        }
        DType::F8E4M3
        | DType::F8E4M3Fnuz
        | DType::F8E5M2
        | DType::F8E5M2Fnuz
        | DType::F8E8M0
        | DType::F4E2M1
        | DType::I8
        | DType::I4
        | DType::I2
        | DType::U8
        | DType::U4
        | DType::U2
        | DType::Bool => {
            let stored: Vec<u8> = ints.iter().map(|&value| value as u8).collect();
            from_stored(dtype, dims, &stored)
        }
    }
}

fn exactly<T: bytemuck::Pod>(dtype: DType, dims: &[usize], values: &[T]) -> Result<HostTensor, OpError> {
    HostTensor::from_bytes(dtype, dims, bytemuck::cast_slice(values)).ok_or_else(|| {
        OpError::invalid(format!(
            "{dtype}{dims:?} has {} elements, found {}",
            dims.iter().product::<usize>(),
            values.len()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proto(code: i32, dims: &[i64]) -> TensorProto {
        TensorProto {
            data_type: code,
            dims: dims.to_vec(),
            ..TensorProto::default()
        }
    }

    fn bytes_of(tensor: &TensorProto) -> Vec<u8> {
        read(tensor, &mut ExternalFiles::none()).unwrap().bytes().to_vec()
    }

    #[test]
    fn packed_kinds_take_the_low_bits_first() {
        let raw = |code, dims: &[i64], raw: &'static [u8]| TensorProto {
            raw_data: Some(raw.into()),
            ..proto(code, dims)
        };
        assert_eq!(bytes_of(&raw(22, &[3], &[0x8f, 0x07])), [0xff, 0xf8, 0x07]);
        assert_eq!(bytes_of(&raw(21, &[3], &[0x8f, 0x07])), [0x0f, 0x08, 0x07]);
        assert_eq!(
            bytes_of(&raw(26, &[5], &[0b11_10_01_00, 0b10])),
            [0, 1, 0xfe, 0xff, 0xfe]
        );
        let typed = TensorProto {
            int32_data: vec![0x8f, 0x07],
            ..proto(22, &[3])
        };
        assert_eq!(bytes_of(&typed), [0xff, 0xf8, 0x07]);
    }

    #[test]
    fn half_precision_travels_as_bits_in_int32_data() {
        let tensor = TensorProto {
            int32_data: vec![0x3c00, 0xc000],
            ..proto(10, &[2])
        };
        assert_eq!(bytes_of(&tensor), [0x00, 0x3c, 0x00, 0xc0]);
    }

    #[test]
    fn sizes_that_do_not_fit_are_told() {
        let message =
            |tensor: &TensorProto| read(tensor, &mut ExternalFiles::none()).unwrap_err().to_string();
        let short = TensorProto {
            raw_data: Some(vec![0; 8].into()),
            ..proto(1, &[3])
        };
        assert_eq!(message(&short), "f32[3] takes 12 bytes, found 8");
        assert_eq!(
            message(&proto(1, &[1 << 40])),
            format!("f32[{}] has {} elements, found 0", 1u64 << 40, 1u64 << 40)
        );
        assert!(message(&proto(1, &[i64::MAX, 4])).contains("too large"));
        assert!(message(&proto(1, &[-1])).contains("negative"));
        assert_eq!(message(&proto(99, &[])), "not supported: unknown element type 99");
    }
}
