//! How close is close enough: one table from named tolerances to numbers, by kind.

use std::fmt;

use crate::ir::{DType, HostTensor};
use crate::ops::Tolerance;
use crate::ops::evaluate::to_vec;

/// Bounds on the difference of two tensors of one kind. An element passes if it is within
/// `absolute + relative * |expected|`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    pub relative: f64,
    pub absolute: f64,
}

impl Bounds {
    pub const EXACT: Bounds = Bounds {
        relative: 0.0,
        absolute: 0.0,
    };

    /// Bounds for results of `dtype`, where each sums up to `k` products.
    pub fn of(tolerance: Tolerance, dtype: DType, k: usize) -> Bounds {
        let Some(ulp) = ulp(dtype) else {
            return Bounds::EXACT;
        };
        match tolerance {
            Tolerance::Exact => Bounds::EXACT,
            // Device functions are within 4 ulp of f32; results round once more when stored.
            Tolerance::Rounded | Tolerance::Close => Bounds {
                relative: 8.0 * ulp,
                absolute: 8.0 * ulp * SMALLEST,
            },
            Tolerance::Accumulated => accumulated(ulp, k),
        }
    }
}

/// Below this size the absolute bound takes over.
const SMALLEST: f64 = 1e-3;

/// Rounding errors of a sum are independent, so that they grow as the root of its length. The
/// operands are drawn of size one, so that the terms cancel and leave an absolute error.
fn accumulated(ulp: f64, k: usize) -> Bounds {
    #[expect(clippy::cast_precision_loss, reason = "a length as a float")]
    let root = (k.max(1) as f64).sqrt();
    let sum = ulp.min(f64::from(f32::EPSILON)).max(f64::EPSILON) * 8.0 * root;
    Bounds {
        relative: 4.0 * ulp + sum,
        absolute: 4.0 * ulp * SMALLEST + sum * root,
    }
}

/// Distance of one to the next number; `None` for kinds that are exact.
fn ulp(dtype: DType) -> Option<f64> {
    match dtype {
        DType::F64 => Some(f64::EPSILON),
        DType::F32 => Some(f64::from(f32::EPSILON)),
        DType::F16 => Some(f64::from(half::f16::EPSILON.to_f32())),
        DType::BF16 => Some(f64::from(half::bf16::EPSILON.to_f32())),
        DType::F8E4M3 | DType::F8E4M3Fnuz => Some(0.125),
        DType::F8E5M2 | DType::F8E5M2Fnuz => Some(0.25),
        DType::F8E8M0 => Some(1.0),
        DType::F4E2M1 => Some(0.5),
        DType::I64
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
        | DType::Bool => None,
    }
}

/// How two tensors differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Largest `|found - expected| / |expected|` of elements that are not tiny.
    pub max_relative: f64,
    /// `|found - expected|_2 / |expected|_2`.
    pub norm_relative: f64,
    pub n_wrong: usize,
    pub n_elements: usize,
    /// The first element out of bounds.
    pub first: Option<Offender>,
}

/// An element out of bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Offender {
    pub index: Vec<usize>,
    pub expected: f64,
    pub found: f64,
}

impl Difference {
    pub fn is_within(&self) -> bool {
        self.n_wrong == 0
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} elements are wrong; relative error {:.3e} at most, {:.3e} in norm",
            self.n_wrong, self.n_elements, self.max_relative, self.norm_relative
        )?;
        if let Some(first) = &self.first {
            let Offender {
                index,
                expected,
                found,
            } = first;
            write!(f, "; first at {index:?}: expected {expected:e}, found {found:e}")?;
        }
        Ok(())
    }
}

/// Compares two tensors element by element. NaN equals NaN, and infinities equal themselves.
///
/// # Errors
/// If their types differ.
pub fn compare(expected: &HostTensor, found: &HostTensor, bounds: Bounds) -> Result<Difference, String> {
    if expected.ty() != found.ty() {
        return Err(format!("expected `{}`, found `{}`", expected.ty(), found.ty()));
    }
    if !expected.dtype().is_float() {
        return Ok(compare_exact(expected, found));
    }
    let (expected_values, found_values) = (to_vec::<f64>(expected), to_vec::<f64>(found));
    let mut difference = Difference {
        max_relative: 0.0,
        norm_relative: 0.0,
        n_wrong: 0,
        n_elements: expected_values.len(),
        first: None,
    };
    let (mut error_square, mut expected_square) = (0.0, 0.0);
    for (position, (&expected_value, &found_value)) in expected_values.iter().zip(&found_values).enumerate() {
        if expected_value == found_value || expected_value.is_nan() && found_value.is_nan() {
            expected_square += finite_square(expected_value);
            continue;
        }
        let error = (found_value - expected_value).abs();
        let is_wrong = !error.is_finite() || error > bounds.absolute + bounds.relative * expected_value.abs();
        if is_wrong {
            difference.n_wrong += 1;
            difference.first.get_or_insert_with(|| Offender {
                index: index_of(position, expected.dims()),
                expected: expected_value,
                found: found_value,
            });
        }
        if expected_value.abs() > SMALLEST || !error.is_finite() {
            difference.max_relative = difference.max_relative.max(error / expected_value.abs());
        }
        error_square += error * error;
        expected_square += finite_square(expected_value);
    }
    if error_square > 0.0 || error_square.is_nan() {
        difference.norm_relative = (error_square / expected_square).sqrt();
    }
    Ok(difference)
}

fn finite_square(value: f64) -> f64 {
    if value.is_finite() { value * value } else { 0.0 }
}

/// Integers and bools, which 64-bit floats could not tell apart.
fn compare_exact(expected: &HostTensor, found: &HostTensor) -> Difference {
    #[expect(clippy::cast_precision_loss, reason = "shown to people only")]
    let shown = |value: u64| value.cast_signed() as f64;
    let pairs = to_vec::<u64>(expected).into_iter().zip(to_vec::<u64>(found));
    let wrong: Vec<(usize, (u64, u64))> = pairs
        .enumerate()
        .filter(|(_, (expected, found))| expected != found)
        .collect();
    let error = if wrong.is_empty() { 0.0 } else { 1.0 };
    Difference {
        max_relative: error,
        norm_relative: error,
        n_wrong: wrong.len(),
        n_elements: expected.n_elements(),
        first: wrong.first().map(|&(position, (wanted, got))| Offender {
            index: index_of(position, expected.dims()),
            expected: shown(wanted),
            found: shown(got),
        }),
    }
}

/// Coordinates of a row-major position.
fn index_of(mut position: usize, dims: &[usize]) -> Vec<usize> {
    let mut index: Vec<usize> = dims
        .iter()
        .rev()
        .map(|&extent| {
            let coordinate = position % extent.max(1);
            position /= extent.max(1);
            coordinate
        })
        .collect();
    index.reverse();
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_wrong_element_is_named() {
        let expected = HostTensor::from_f32(&[2, 2], &[1.0, f32::NAN, f32::INFINITY, 2.0]);
        let close = Bounds::of(Tolerance::Close, DType::F32, 1);
        assert!(compare(&expected, &expected, Bounds::EXACT).unwrap().is_within());
        let found = HostTensor::from_f32(&[2, 2], &[1.000_000_1, f32::NAN, f32::INFINITY, 2.1]);
        let difference = compare(&expected, &found, close).unwrap();
        assert_eq!(difference.n_wrong, 1);
        assert_eq!(difference.first.unwrap().index, [1, 1]);
        let not_a_number = HostTensor::from_f32(&[2, 2], &[f32::NAN, f32::NAN, f32::INFINITY, 2.0]);
        assert_eq!(compare(&expected, &not_a_number, close).unwrap().n_wrong, 1);
        let finite = HostTensor::from_f32(&[2, 2], &[1.0, f32::NAN, 3.0, 2.0]);
        assert_eq!(compare(&expected, &finite, close).unwrap().n_wrong, 1);
    }

    #[test]
    fn integers_are_exact_beyond_the_floats() {
        let expected = HostTensor::from_i64(&[2], &[i64::MAX, -1]);
        let found = HostTensor::from_i64(&[2], &[i64::MAX - 1, -1]);
        let loose = Bounds {
            relative: 1.0,
            absolute: 1.0,
        };
        assert_eq!(compare(&expected, &found, loose).unwrap().n_wrong, 1);
        assert!(compare(&expected, &HostTensor::from_f32(&[2], &[0.0; 2]), loose).is_err());
    }

    #[test]
    fn bounds_grow_with_the_sum_and_with_narrower_kinds() {
        let at = |dtype, k| Bounds::of(Tolerance::Accumulated, dtype, k).absolute;
        assert!(at(DType::F32, 1024) > at(DType::F32, 16));
        assert!(at(DType::F16, 16) > at(DType::F32, 16));
        assert_eq!(Bounds::of(Tolerance::Close, DType::I32, 9), Bounds::EXACT);
    }
}
