//! Elements of tensors as text, exactly.
//!
//! Floats take the shortest decimal that reads back as the same bits; what no decimal stands
//! for (other NaNs, the eight- and four-bit floats) is written as its bits, `0x7fc00001`.

use half::{bf16, f16};

use super::super::{DType, HostTensor};
use crate::hex::hex;

/// Tensors of more elements are written as hex, unless one element repeats.
const MAX_LISTED: usize = 64;

/// The text of a constant, type first. In a brief text, long ones read `{...}`.
pub(super) fn tensor(data: &HostTensor, brief: bool) -> String {
    format!("{}{}", data.ty(), elements(data, brief))
}

fn elements(data: &HostTensor, brief: bool) -> String {
    let size = data.dtype().size_bytes();
    let bytes = data.bytes();
    let mut each = bytes.chunks_exact(size);
    if data.n_elements() > 1
        && let Some(first) = each.next()
        && each.all(|other| other == first)
    {
        return format!("{{{} ..}}", element(data.dtype(), first));
    }
    if data.n_elements() <= MAX_LISTED {
        let texts: Vec<String> = bytes
            .chunks_exact(size)
            .map(|bytes| element(data.dtype(), bytes))
            .collect();
        return format!("{{{}}}", texts.join(", "));
    }
    if brief {
        return "{...}".to_owned();
    }
    format!("hex {:?}", hex(bytes))
}

/// One element. `bytes` are little-endian and as many as the kind takes.
fn element(dtype: DType, bytes: &[u8]) -> String {
    let bits = bits(bytes);
    let text = match dtype {
        DType::F64 => plain(f64::from_bits(bits), bits == f64::NAN.to_bits()),
        DType::F32 => {
            let value = f32::from_bits(narrowed(bits));
            plain(value, value.to_bits() == f32::NAN.to_bits())
        }
        DType::F16 => {
            let value = f16::from_bits(narrowed(bits));
            plain(value.to_f32(), value.to_bits() == f16::NAN.to_bits())
        }
        DType::BF16 => {
            let value = bf16::from_bits(narrowed(bits));
            plain(value.to_f32(), value.to_bits() == bf16::NAN.to_bits())
        }
        DType::Bool => match bits {
            0 => Some("false".to_owned()),
            1 => Some("true".to_owned()),
            _ => None,
        },
        DType::I64 | DType::I32 | DType::I16 | DType::I8 | DType::I4 | DType::I2 => {
            let unused = 64 - 8 * bytes.len();
            Some((bits.cast_signed() << unused >> unused).to_string())
        }
        DType::U64 | DType::U32 | DType::U16 | DType::U8 | DType::U4 | DType::U2 => Some(bits.to_string()),
        DType::F8E4M3
        | DType::F8E4M3Fnuz
        | DType::F8E5M2
        | DType::F8E5M2Fnuz
        | DType::F8E8M0
        | DType::F4E2M1 => None,
    };
    text.unwrap_or_else(|| format!("{bits:#x}"))
}

/// A float as text, unless it is a NaN other than the usual one.
fn plain<T: std::fmt::Debug + Copy + PartialEq>(value: T, usual_nan: bool) -> Option<String> {
    #[expect(clippy::eq_op, reason = "only NaN differs from itself")]
    let is_nan = value != value;
    match (is_nan, usual_nan) {
        (true, true) => Some("nan".to_owned()),
        (true, false) => None,
        (false, _) => Some(format!("{value:?}")),
    }
}

/// A float attribute as text.
pub(super) fn attr_float(value: f64) -> String {
    plain(value, value.to_bits() == f64::NAN.to_bits())
        .unwrap_or_else(|| format!("nan({:#x})", value.to_bits()))
}

/// The bytes of an element of `dtype`; `None` where `text` is none.
pub(super) fn parse_element(dtype: DType, text: &str) -> Option<Vec<u8>> {
    let size = dtype.size_bytes();
    let bits = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok()?,
        None => parse_bits(dtype, text)?,
    };
    let bytes = bits.to_le_bytes();
    bytes[size..]
        .iter()
        .all(|&byte| byte == 0)
        .then(|| bytes[..size].to_vec())
}

fn parse_bits(dtype: DType, text: &str) -> Option<u64> {
    match dtype {
        DType::F64 => Some(text.parse::<f64>().ok()?.to_bits()),
        DType::F32 => Some(text.parse::<f32>().ok()?.to_bits().into()),
        DType::F16 => Some(nearest(text, f16::NAN, f16::from_f32)?.to_bits().into()),
        DType::BF16 => Some(nearest(text, bf16::NAN, bf16::from_f32)?.to_bits().into()),
        DType::Bool => match text {
            "false" | "0" => Some(0),
            "true" | "1" => Some(1),
            _ => None,
        },
        DType::I64 => signed(text, 64, 8),
        DType::I32 => signed(text, 32, 4),
        DType::I16 => signed(text, 16, 2),
        // Four- and two-bit kinds take a byte each; the op that made them keeps their range.
        DType::I8 | DType::I4 | DType::I2 => signed(text, 8, 1),
        DType::U64 => text.parse().ok(),
        DType::U32 => Some(text.parse::<u32>().ok()?.into()),
        DType::U16 => Some(text.parse::<u16>().ok()?.into()),
        DType::U8 | DType::U4 | DType::U2 => Some(text.parse::<u8>().ok()?.into()),
        DType::F8E4M3
        | DType::F8E4M3Fnuz
        | DType::F8E5M2
        | DType::F8E5M2Fnuz
        | DType::F8E8M0
        | DType::F4E2M1 => None,
    }
}

fn nearest<T>(text: &str, nan: T, round: impl Fn(f32) -> T) -> Option<T> {
    let value: f32 = text.parse().ok()?;
    Some(if value.is_nan() { nan } else { round(value) })
}

/// The low bytes of a signed number that fits in `width` bits.
fn signed(text: &str, width: u32, size: usize) -> Option<u64> {
    let value: i64 = text.parse().ok()?;
    let unused = 64 - width;
    let fits = value << unused >> unused == value;
    fits.then(|| value.cast_unsigned() & (u64::MAX >> (64 - 8 * size)))
}

/// The low bits of `bits`, which hold all of it.
fn narrowed<T: TryFrom<u64>>(bits: u64) -> T {
    T::try_from(bits).unwrap_or_else(|_| unreachable!("an element has as many bytes as its kind"))
}

fn bits(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |bits, &byte| bits << 8 | u64::from(byte))
}
