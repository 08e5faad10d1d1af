//! The kinds of numbers that tensors are quantised to, and how values become such numbers.

use crate::ir::{DType, HostTensor};
use crate::ops::evaluate::{from_values, to_vec};

/// A kind of quantised number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Number {
    /// `i8` from -127 to 127 around zero.
    Int8,
    /// `i8` from -128 to 127 around a zero point.
    Int8Asymmetric,
    /// `f8e4m3` up to 448.
    Fp8,
}

/// Greatest finite `f8e4m3`.
const FP8_MAX: f64 = 448.0;

/// Scales below this would divide by nothing; a tensor of zeros has any scale.
const LEAST_SCALE: f64 = 1e-30;

/// How real values and numbers correspond: `value = (number - zero) * scale`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaling {
    pub number: Number,
    /// An `f32`, as it is stored.
    pub scale: f32,
    pub zero: i8,
}

impl Number {
    pub const fn dtype(self) -> DType {
        match self {
            Number::Int8 | Number::Int8Asymmetric => DType::I8,
            Number::Fp8 => DType::F8E4M3,
        }
    }

    pub const fn is_float(self) -> bool {
        matches!(self, Number::Fp8)
    }

    /// The correspondence that just represents `(low, high)`, which holds zero.
    pub fn scaling(self, (low, high): (f64, f64)) -> Scaling {
        let largest = high.max(-low);
        let (scale, zero) = match self {
            Number::Int8 => (largest / 127.0, 0),
            Number::Fp8 => (largest / FP8_MAX, 0),
            Number::Int8Asymmetric => {
                let scale = ((high - low) / 255.0).max(LEAST_SCALE);
                #[expect(clippy::cast_possible_truncation, reason = "clamped to the range of i8")]
                let zero = (-128.0 - low / scale).round().clamp(-128.0, 127.0) as i8;
                (scale, zero)
            }
        };
        #[expect(clippy::cast_possible_truncation, reason = "scales are stored as f32")]
        let scale = scale.max(LEAST_SCALE) as f32;
        Scaling {
            number: self,
            scale,
            zero,
        }
    }
}

impl Scaling {
    /// The nearest value that has a number; values outside saturate.
    pub fn rounded(&self, value: f64) -> f64 {
        let (scale, zero) = (f64::from(self.scale), f64::from(self.zero));
        match self.number {
            Number::Int8 | Number::Int8Asymmetric => {
                let least = -128.0;
                let number = (value / scale).round_ties_even() + zero;
                (number.clamp(least, 127.0) - zero) * scale
            }
            Number::Fp8 => fp8(value / scale) * scale,
        }
    }
}

/// The nearest `f8e4m3`, saturating.
fn fp8(value: f64) -> f64 {
    let size = value.abs().min(FP8_MAX);
    if size == 0.0 {
        return value;
    }
    // Three bits after the leading one; below 2^-6 the step stays.
    let exponent = size.log2().floor().max(-6.0);
    let step = 2.0_f64.powf(exponent - 3.0);
    ((size / step).round_ties_even() * step)
        .min(FP8_MAX)
        .copysign(value)
}

/// Weights as numbers around zero, with a scale for each entry of `axis`.
#[derive(Clone, Debug)]
pub struct QuantisedWeight {
    pub data: HostTensor,
    /// `f32`, one per entry of the axis.
    pub scales: Vec<f32>,
}

/// Quantises `weight` symmetrically, each slice of `axis` by its own largest element.
pub fn quantise_weight(weight: &HostTensor, axis: usize, number: Number) -> QuantisedWeight {
    let values: Vec<f64> = to_vec(weight);
    let dims = weight.dims();
    let inner: usize = dims[axis + 1..].iter().product();
    let slice_of = |position: usize| position / inner.max(1) % dims[axis];
    let mut largest = vec![0.0_f64; dims[axis]];
    for (position, value) in values.iter().enumerate() {
        let own = &mut largest[slice_of(position)];
        *own = own.max(value.abs());
    }
    let number = match number {
        Number::Int8 | Number::Int8Asymmetric => Number::Int8,
        Number::Fp8 => Number::Fp8,
    };
    let scalings: Vec<Scaling> = largest
        .iter()
        .map(|&largest| number.scaling((-largest, largest)))
        .collect();
    let numbers: Vec<f64> = values
        .iter()
        .enumerate()
        .map(|(position, value)| {
            let scaling = &scalings[slice_of(position)];
            scaling.rounded(*value) / f64::from(scaling.scale)
        })
        .map(|number_value| match number {
            Number::Int8 | Number::Int8Asymmetric => number_value.round(),
            Number::Fp8 => fp8(number_value),
        })
        .collect();
    QuantisedWeight {
        data: from_values(number.dtype(), dims, &numbers),
        scales: scalings.iter().map(|scaling| scaling.scale).collect(),
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "numbers are exact")]
mod tests {
    use super::*;

    #[test]
    fn fp8_is_what_the_reference_decodes() {
        for code in 0_u8..=255 {
            let stored = HostTensor::from_slice(DType::F8E4M3, &[1], &[code]);
            let value = to_vec::<f64>(&stored)[0];
            if value.is_finite() {
                assert_eq!(fp8(value), value, "code {code}");
                let near = fp8(value * 1.01);
                assert!((near - value).abs() <= value.abs() / 8.0 + 1e-3, "code {code}");
            }
        }
        assert_eq!((fp8(1e6), fp8(-460.0), fp8(1e-9)), (448.0, -448.0, 0.0));
    }

    #[test]
    fn zero_is_always_a_number() {
        for range in [(-1.0, 3.0), (0.0, 5.0), (-2.0, 0.0), (0.0, 0.0)] {
            for number in [Number::Int8, Number::Int8Asymmetric, Number::Fp8] {
                let scaling = number.scaling(range);
                assert_eq!(scaling.rounded(0.0), 0.0);
                let step = f64::from(scaling.scale) * if number == Number::Fp8 { 16.0 } else { 1.0 };
                for end in [range.0, range.1] {
                    assert!((scaling.rounded(end) - end).abs() <= step, "{number:?} {range:?}");
                }
            }
        }
    }

    #[test]
    fn weights_are_scaled_along_their_axis() {
        let weight = HostTensor::from_f32(&[2, 2], &[1.0, -0.5, 10.0, 127.0]);
        let rows = quantise_weight(&weight, 0, Number::Int8);
        assert_eq!(rows.data.as_slice::<i8>(), [127, -64, 10, 127]);
        let columns = quantise_weight(&weight, 1, Number::Int8);
        assert_eq!(columns.data.as_slice::<i8>(), [13, 0, 127, 127]);
        assert_eq!(columns.scales, [10.0 / 127.0, 1.0]);
    }
}
