//! Element kinds as C++ types, and constants as C++ literals.

use crate::ir::DType;
use crate::tile::Scalar;

/// Type of an element in memory, as the device prelude names it.
pub const fn storage_type(dtype: DType) -> &'static str {
    match dtype {
        DType::F64 => "double",
        DType::F32 => "float",
        DType::F16 => "f16",
        DType::BF16 => "bf16",
        DType::F8E4M3 => "f8e4m3",
        DType::F8E4M3Fnuz => "f8e4m3fnuz",
        DType::F8E5M2 => "f8e5m2",
        DType::F8E5M2Fnuz => "f8e5m2fnuz",
        DType::F8E8M0 => "f8e8m0",
        DType::F4E2M1 => "f4e2m1",
        DType::I64 => "int64_t",
        DType::I32 => "int32_t",
        DType::I16 => "int16_t",
        DType::I8 | DType::I4 | DType::I2 => "int8_t",
        DType::U64 => "uint64_t",
        DType::U32 => "uint32_t",
        DType::U16 => "uint16_t",
        DType::U8 | DType::U4 | DType::U2 => "uint8_t",
        DType::Bool => "bool8",
    }
}

/// Type an element is computed in: `float` for every float narrower than `f64`.
pub const fn value_type(dtype: DType) -> &'static str {
    match dtype {
        DType::F64 => "double",
        DType::Bool => "bool",
        _ if dtype.is_float() => "float",
        // Integers are computed as they are stored.
        _ => storage_type(dtype),
    }
}

/// `scalar` as a literal of its value type.
pub fn literal(scalar: Scalar) -> String {
    let dtype = scalar.dtype;
    if dtype.is_float() {
        return float_literal(scalar.as_f64(), dtype == DType::F64);
    }
    match dtype {
        DType::Bool => (if scalar.bits == 0 { "false" } else { "true" }).to_owned(),
        DType::I32 => scalar.as_i64().to_string(),
        DType::U64 => format!("uint64_t({}ull)", scalar.bits),
        // The least 64-bit value has no literal of its own in C++.
        DType::I64 if scalar.as_i64() == i64::MIN => "int64_t(-9223372036854775807ll - 1)".to_owned(),
        DType::I64 => format!("int64_t({}ll)", scalar.as_i64()),
        _ => format!("{}({})", value_type(dtype), scalar.as_i64()),
    }
}

/// `value` as a literal of an integer kind, limited to what the kind holds.
pub fn int_constant(dtype: DType, value: f64) -> String {
    let (low, high) = match dtype {
        DType::I32 => (f64::from(i32::MIN), f64::from(i32::MAX)),
        DType::I16 => (f64::from(i16::MIN), f64::from(i16::MAX)),
        DType::I8 => (f64::from(i8::MIN), f64::from(i8::MAX)),
        DType::U32 => (0.0, f64::from(u32::MAX)),
        DType::U16 => (0.0, f64::from(u16::MAX)),
        DType::U8 => (0.0, f64::from(u8::MAX)),
        DType::U64 => (0.0, f64::INFINITY),
        _ => (f64::NEG_INFINITY, f64::INFINITY),
    };
    literal(Scalar::of(dtype, value.clamp(low, high)))
}

/// The shortest literal that reads back as `value`, in `double` or `float`.
pub fn float_literal(value: f64, double: bool) -> String {
    let (prefix, suffix) = if double { ("RT_F64", "") } else { ("RT_F32", "f") };
    if value.is_nan() {
        return format!("{prefix}_NAN");
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "`float` is what the kernel computes in"
    )]
    let narrow = value as f32;
    let infinite = if double {
        value.is_infinite()
    } else {
        narrow.is_infinite()
    };
    if infinite {
        return format!("{}{prefix}_INF", if value < 0.0 { "-" } else { "" });
    }
    if double {
        format!("{value:?}")
    } else {
        format!("{narrow:?}{suffix}")
    }
}

/// Bytes of one element's value type in registers.
pub const fn value_bytes(dtype: DType) -> usize {
    match dtype {
        DType::F64 | DType::I64 | DType::U64 => 8,
        _ => 4,
    }
}
