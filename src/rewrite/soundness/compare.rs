//! How far two results are apart, in the terms of what rules promise.

use std::fmt;

use crate::ir::{DType, HostTensor};
use crate::ops::evaluate::to_vec;

/// The element at which two tensors differ most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// Row-major.
    pub position: usize,
    pub left: f64,
    pub right: f64,
    /// The difference in units in the last place of `f32` at the size of the largest element;
    /// infinite where only one of the two is a number.
    pub ulps: f64,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "element {} is {} on the left and {} on the right",
            self.position, self.left, self.right
        )
    }
}

/// The largest difference; `None` where all elements are equal. Signs of zero and payloads of
/// NaN do not count.
pub fn difference(left: &HostTensor, right: &HostTensor) -> Option<Difference> {
    if !left.dtype().is_float() {
        return integer_difference(left, right, 0);
    }
    let (left, right) = (to_vec::<f64>(left), to_vec::<f64>(right));
    let unit = largest(&left).max(f64::MIN_POSITIVE) * f64::from(f32::EPSILON);
    let pairs = left.iter().zip(&right).enumerate();
    let all = pairs.map(|(position, (&left, &right))| Difference {
        position,
        left,
        right,
        ulps: distance(left, right) / unit,
    });
    all.filter(|found| found.ulps > 0.0)
        .max_by(|a, b| a.ulps.total_cmp(&b.ulps))
}

/// The largest difference of integers that are more than one step apart; of floats any.
pub fn step_difference(left: &HostTensor, right: &HostTensor) -> Option<Difference> {
    if left.dtype().is_float() {
        return difference(left, right);
    }
    integer_difference(left, right, 1)
}

/// The first element that is NaN on one side alone.
pub fn nan_difference(left: &HostTensor, right: &HostTensor) -> Option<Difference> {
    if !left.dtype().is_float() {
        return None;
    }
    let (left, right) = (to_vec::<f64>(left), to_vec::<f64>(right));
    let position = (0..left.len()).find(|&at| left[at].is_nan() != right[at].is_nan())?;
    Some(Difference {
        position,
        left: left[position],
        right: right[position],
        ulps: f64::INFINITY,
    })
}

fn largest(values: &[f64]) -> f64 {
    let sizes = values.iter().map(|value| value.abs());
    sizes.filter(|size| size.is_finite()).fold(0.0, f64::max)
}

fn distance(left: f64, right: f64) -> f64 {
    #[expect(clippy::float_cmp, reason = "equal infinities differ by nothing")]
    match (left.is_nan(), right.is_nan()) {
        (true, true) => 0.0,
        (false, false) if left == right => 0.0,
        (false, false) if left.is_finite() && right.is_finite() => (left - right).abs(),
        (_, _) => f64::INFINITY,
    }
}

#[expect(clippy::cast_precision_loss, reason = "the numbers are for people")]
fn integer_difference(left: &HostTensor, right: &HostTensor, allowed: u64) -> Option<Difference> {
    let (left, right) = (to_vec::<i64>(left), to_vec::<i64>(right));
    let position = (0..left.len()).find(|&at| left[at].abs_diff(right[at]) > allowed)?;
    Some(Difference {
        position,
        left: left[position] as f64,
        right: right[position] as f64,
        ulps: f64::INFINITY,
    })
}

/// Units in the last place of `f32` that one unit of `dtype` is worth.
pub fn ulps_of(dtype: DType) -> f64 {
    let epsilon = match dtype {
        DType::F16 => f64::from(half::f16::EPSILON.to_f32()),
        DType::BF16 => f64::from(half::bf16::EPSILON.to_f32()),
        _ => f64::from(f32::EPSILON),
    };
    epsilon / f64::from(f32::EPSILON)
}
