//! One array in `NumPy`'s npy form.

use std::io::{self, Write};

use npyz::{Endianness, NpyFile, Order, TypeChar, TypeStr, WriteOptions, WriterBuilder};

use super::bits;
use crate::ir::{DType, HostTensor};

/// The array in `bytes`, which must hold it exactly.
///
/// # Errors
/// If the header is malformed, the kind is none of `NumPy`'s numbers, or bytes are missing.
pub fn read(bytes: &[u8]) -> Result<HostTensor, String> {
    let file = NpyFile::new(bytes).map_err(|error| format!("is no npy array: {error}"))?;
    let npyz::DType::Plain(kind) = file.dtype() else {
        return Err("is an array of records, expected numbers".to_owned());
    };
    let dtype = dtype(&kind)?;
    let dims: Option<Vec<usize>> = file
        .shape()
        .iter()
        .map(|&extent| usize::try_from(extent).ok())
        .collect();
    let dims = dims.ok_or_else(|| "has a dim that does not fit in memory".to_owned())?;
    let order = file.order();
    let data = file.into_inner();
    let stored_dims: Vec<usize> = match order {
        Order::C => dims.clone(),
        Order::Fortran => dims.iter().rev().copied().collect(),
    };
    let mut tensor = HostTensor::from_bytes(dtype, &stored_dims, data)
        .ok_or_else(|| format!("says {dtype}{dims:?}, but holds {} bytes", data.len()))?;
    if kind.endianness() == Endianness::Big {
        tensor
            .bytes_mut()
            .chunks_exact_mut(dtype.size_bytes())
            .for_each(<[u8]>::reverse);
    }
    Ok(match order {
        Order::C => tensor,
        Order::Fortran => reversed_axes(&tensor, &dims),
    })
}

/// Writes `tensor`; kinds `NumPy` lacks as their bits.
///
/// # Errors
/// If `into` cannot be written.
pub fn write(into: &mut impl Write, tensor: &HostTensor) -> io::Result<()> {
    let tensor = bits::into_portable(tensor);
    let kind: TypeStr = type_text(tensor.dtype()).parse().map_err(io::Error::other)?;
    let shape: Vec<u64> = tensor.dims().iter().map(|&extent| extent as u64).collect();
    WriteOptions::new_header_only()
        .dtype(npyz::DType::Plain(kind))
        .shape(&shape)
        .writer(&mut *into)
        .write_header_only()?;
    into.write_all(tensor.bytes())
}

/// `NumPy`'s spelling of a kind that it has.
fn type_text(dtype: DType) -> &'static str {
    match bits::portable(dtype) {
        DType::F64 => "<f8",
        DType::F32 => "<f4",
        DType::F16 => "<f2",
        DType::I64 => "<i8",
        DType::I32 => "<i4",
        DType::I16 => "<i2",
        DType::I8 => "|i1",
        DType::U64 => "<u8",
        DType::U32 => "<u4",
        DType::U16 => "<u2",
        DType::Bool => "|b1",
        // All others travel as bytes.
        _ => "|u1",
    }
}

fn dtype(kind: &TypeStr) -> Result<DType, String> {
    match (kind.type_char(), kind.size_field()) {
        (TypeChar::Bool, 1) => Ok(DType::Bool),
        (TypeChar::Float, 8) => Ok(DType::F64),
        (TypeChar::Float, 4) => Ok(DType::F32),
        (TypeChar::Float, 2) => Ok(DType::F16),
        (TypeChar::Int, 8) => Ok(DType::I64),
        (TypeChar::Int, 4) => Ok(DType::I32),
        (TypeChar::Int, 2) => Ok(DType::I16),
        (TypeChar::Int, 1) => Ok(DType::I8),
        (TypeChar::Uint, 8) => Ok(DType::U64),
        (TypeChar::Uint, 4) => Ok(DType::U32),
        // NumPy saves kinds it does not know as raw data: their bits.
        (TypeChar::Uint | TypeChar::RawData, 2) => Ok(DType::U16),
        (TypeChar::Uint | TypeChar::RawData, 1) => Ok(DType::U8),
        _ => Err(format!("has elements `{kind}`, expected numbers or bools")),
    }
}

/// Fortran order to row-major order: `stored` holds the axes of `dims` in reverse.
fn reversed_axes(stored: &HostTensor, dims: &[usize]) -> HostTensor {
    let size = stored.dtype().size_bytes();
    let mut tensor = HostTensor::zeros(stored.dtype(), dims);
    for (position, element) in tensor.bytes_mut().chunks_exact_mut(size).enumerate() {
        let (mut rest, mut from, mut stride) = (position, 0, stored.n_elements());
        for &extent in dims.iter().rev() {
            stride /= extent;
            from += rest % extent * stride;
            rest /= extent;
        }
        element.copy_from_slice(&stored.bytes()[from * size..][..size]);
    }
    tensor
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Header of an array of `kind`, as `NumPy` writes it.
    fn header(kind: &str, order: Order, shape: &[u64]) -> Vec<u8> {
        WriteOptions::new_header_only()
            .dtype(npyz::DType::Plain(kind.parse().unwrap()))
            .shape(shape)
            .order(order)
            .writer(Vec::new())
            .write_header_only()
            .unwrap()
    }

    #[test]
    fn byte_order_and_axis_order_are_undone() {
        let mut bytes = header(">i2", Order::Fortran, &[2, 3]);
        for value in [1i16, 4, 2, 5, 3, 6] {
            bytes.extend_from_slice(&value.to_be_bytes());
        }
        let tensor = read(&bytes).unwrap();
        assert_eq!(
            (tensor.dims(), tensor.as_slice::<i16>()),
            ([2, 3].as_slice(), [1, 2, 3, 4, 5, 6].as_slice())
        );
    }

    #[test]
    fn missing_bytes_and_other_elements_are_refused() {
        let bytes = header("<f4", Order::C, &[1 << 40]);
        assert!(read(&bytes).unwrap_err().contains("holds 0 bytes"));
        assert!(
            read(&header("<U3", Order::C, &[0]))
                .unwrap_err()
                .contains("expected numbers")
        );
        assert!(read(b"\x93NUMPY").unwrap_err().contains("no npy array"));
    }
}
