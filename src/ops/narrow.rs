//! Float kinds of eight and four bits, which have no Rust type.
//!
//! Encodings follow the ONNX specification of float stored in 8 bits and in 4 bits.
//! Rounding is to nearest, ties to even.

use crate::ir::DType;

/// What happens to values beyond the largest finite one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// The largest finite value.
    Saturate,
    /// Infinity where the kind has one, NaN elsewhere.
    Special,
}

/// Layout of a narrow float: sign, exponent, mantissa, from the highest bit.
struct Layout {
    mantissa_bits: i32,
    bias: i32,
    /// Code of the largest finite value, without sign.
    max_code: u8,
    max: f64,
    /// Code of NaN; `None` where the kind has none.
    nan: Option<u8>,
    /// Code of infinity, without sign.
    infinity: Option<u8>,
    sign: u8,
    /// The code of minus zero means NaN.
    unsigned_zero: bool,
}

const E4M3: Layout = Layout {
    mantissa_bits: 3,
    bias: 7,
    max_code: 0x7e,
    max: 448.0,
    nan: Some(0x7f),
    infinity: None,
    sign: 0x80,
    unsigned_zero: false,
};
const E4M3_FNUZ: Layout = Layout {
    bias: 8,
    max_code: 0x7f,
    max: 240.0,
    nan: Some(0x80),
    unsigned_zero: true,
    ..E4M3
};
const E5M2: Layout = Layout {
    mantissa_bits: 2,
    bias: 15,
    max_code: 0x7b,
    max: 57344.0,
    nan: Some(0x7e),
    infinity: Some(0x7c),
    sign: 0x80,
    unsigned_zero: false,
};
const E5M2_FNUZ: Layout = Layout {
    bias: 16,
    max_code: 0x7f,
    nan: Some(0x80),
    infinity: None,
    unsigned_zero: true,
    ..E5M2
};
const E2M1: Layout = Layout {
    mantissa_bits: 1,
    bias: 1,
    max_code: 0x7,
    max: 6.0,
    nan: None,
    infinity: None,
    sign: 0x8,
    unsigned_zero: false,
};

/// The value of one code of a narrow float kind.
///
/// # Panics
/// If `dtype` is not one.
pub fn decode(dtype: DType, code: u8) -> f64 {
    match layout(dtype) {
        Some(layout) => layout.decode(code),
        None if code == 0xff => f64::NAN,
        None => 2f64.powi(i32::from(code) - 127),
    }
}

/// The nearest code to `value`.
///
/// # Panics
/// If `dtype` is not a narrow float kind.
pub fn encode(dtype: DType, value: f64, overflow: Overflow) -> u8 {
    match layout(dtype) {
        Some(layout) => layout.encode(value, overflow),
        None => encode_exponent(value, Rounding::Up, overflow),
    }
}

/// How a value between two powers of two becomes an `f8e8m0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    Up,
    Down,
    /// Ties go up.
    Nearest,
}

/// `value` as a bare power of two (`f8e8m0`). Negative values and NaN become NaN.
pub fn encode_exponent(value: f64, rounding: Rounding, overflow: Overflow) -> u8 {
    const NAN: u8 = 0xff;
    if value.is_nan() || value < 0.0 {
        return NAN;
    }
    if value < 2f64.powi(-127) {
        return 0;
    }
    let low = exponent_of(value.min(f64::MAX));
    let power = 2f64.powi(low);
    let goes_up = match rounding {
        Rounding::Up => value > power,
        Rounding::Down => false,
        Rounding::Nearest => value >= 1.5 * power,
    };
    let exponent = low + i32::from(goes_up) + 127;
    match u8::try_from(exponent) {
        Ok(code) if code < NAN => code,
        _ if overflow == Overflow::Saturate => 0xfe,
        _ => NAN,
    }
}

fn layout(dtype: DType) -> Option<&'static Layout> {
    match dtype {
        DType::F8E4M3 => Some(&E4M3),
        DType::F8E4M3Fnuz => Some(&E4M3_FNUZ),
        DType::F8E5M2 => Some(&E5M2),
        DType::F8E5M2Fnuz => Some(&E5M2_FNUZ),
        DType::F4E2M1 => Some(&E2M1),
        DType::F8E8M0 => None,
        DType::F64
        | DType::F32
        | DType::F16
        | DType::BF16
        | DType::I64
        | DType::I32
        | DType::I16
        | DType::I8
        | DType::I4
        | DType::I2
        | DType::U64
        | DType::U32
        | DType::U16
        | DType::U8
        | DType::U4
        | DType::U2
        | DType::Bool => panic!("callers ask for narrow float kinds only, not `{dtype}`"),
    }
}

impl Layout {
    fn decode(&self, code: u8) -> f64 {
        let magnitude = code & (self.sign - 1);
        let sign = if code & self.sign == 0 { 1.0 } else { -1.0 };
        if Some(magnitude) == self.infinity {
            return sign * f64::INFINITY;
        }
        let is_nan = if self.unsigned_zero {
            code == self.sign
        } else {
            magnitude > self.max_code
        };
        if is_nan {
            return f64::NAN;
        }
        let exponent = i32::from(magnitude) >> self.mantissa_bits;
        let hidden = i32::from(exponent > 0) << self.mantissa_bits;
        let mantissa = i32::from(magnitude) & ((1 << self.mantissa_bits) - 1) | hidden;
        sign * f64::from(mantissa) * 2f64.powi(exponent.max(1) - self.bias - self.mantissa_bits)
    }

    fn encode(&self, value: f64, overflow: Overflow) -> u8 {
        // The four-bit kind has no NaN: the reference libraries turn it into minus zero.
        if value.is_nan() {
            return self.nan.unwrap_or(self.sign);
        }
        let sign = if value.is_sign_negative() { self.sign } else { 0 };
        let magnitude = value.abs();
        let exponent = exponent_of(magnitude.min(self.max)).max(1 - self.bias);
        let steps = (magnitude / 2f64.powi(exponent - self.mantissa_bits)).round_ties_even();
        if !self.is_finite(steps, exponent) {
            return match overflow {
                Overflow::Saturate => sign | self.max_code,
                Overflow::Special => match (self.infinity, self.nan) {
                    (None, Some(code)) if self.unsigned_zero => code,
                    (Some(code), _) | (None, Some(code)) => sign | code,
                    (None, None) => sign | self.max_code,
                },
            };
        }
        // `steps` has the hidden bit in it, and may carry into the exponent by itself.
        #[expect(
            clippy::cast_possible_truncation,
            reason = "steps are below 2^(mantissa_bits + 2)"
        )]
        let code = ((exponent + self.bias - 1) << self.mantissa_bits) + steps as i32;
        let code = u8::try_from(code).expect("finite values have codes of eight bits");
        if code == 0 && self.unsigned_zero {
            0
        } else {
            sign | code
        }
    }

    fn is_finite(&self, steps: f64, exponent: i32) -> bool {
        steps * 2f64.powi(exponent - self.mantissa_bits) <= self.max
    }
}

/// `floor(log2(value))` of a positive number; very small for zero.
fn exponent_of(value: f64) -> i32 {
    let field = (value.to_bits() >> 52) & 0x7ff;
    i32::try_from(field).expect("eleven bits fit") - 1023
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [DType; 5] = [
        DType::F8E4M3,
        DType::F8E4M3Fnuz,
        DType::F8E5M2,
        DType::F8E5M2Fnuz,
        DType::F4E2M1,
    ];

    #[test]
    fn every_code_survives_the_way_back() {
        for dtype in KINDS {
            let codes = if dtype == DType::F4E2M1 { 16 } else { 256 };
            for code in (0..codes).map(|code| u8::try_from(code).unwrap()) {
                let value = decode(dtype, code);
                if value.is_finite() {
                    assert_eq!(encode(dtype, value, Overflow::Special), code, "{dtype} {code:#x}");
                } else if value.is_nan() {
                    assert!(decode(dtype, encode(dtype, value, Overflow::Saturate)).is_nan());
                }
            }
        }
    }

    #[test]
    fn largest_values_saturate_or_become_special() {
        for (dtype, max) in KINDS.into_iter().zip([448.0, 240.0, 57344.0, 57344.0, 6.0]) {
            let saturated = encode(dtype, 1e9, Overflow::Saturate);
            assert_eq!(decode(dtype, saturated), max, "{dtype}");
            assert_eq!(
                decode(dtype, encode(dtype, -f64::INFINITY, Overflow::Saturate)),
                -max
            );
        }
        assert!(decode(DType::F8E4M3, encode(DType::F8E4M3, 1e9, Overflow::Special)).is_nan());
        assert_eq!(
            decode(DType::F8E5M2, encode(DType::F8E5M2, 1e9, Overflow::Special)),
            f64::INFINITY
        );
    }

    #[test]
    fn ties_round_to_even() {
        assert_eq!(
            decode(DType::F4E2M1, encode(DType::F4E2M1, 2.5, Overflow::Saturate)),
            2.0
        );
        assert_eq!(
            decode(DType::F4E2M1, encode(DType::F4E2M1, 3.5, Overflow::Saturate)),
            4.0
        );
        assert_eq!(
            decode(DType::F4E2M1, encode(DType::F4E2M1, 0.25, Overflow::Saturate)),
            0.0
        );
    }

    #[test]
    fn powers_of_two_round_as_asked() {
        let code = |value, rounding| {
            decode(
                DType::F8E8M0,
                encode_exponent(value, rounding, Overflow::Saturate),
            )
        };
        assert_eq!(code(5.0, Rounding::Up), 8.0);
        assert_eq!(code(5.0, Rounding::Down), 4.0);
        assert_eq!(code(5.0, Rounding::Nearest), 4.0);
        assert_eq!(code(6.0, Rounding::Nearest), 8.0);
        assert!(code(-1.0, Rounding::Up).is_nan());
    }
}
