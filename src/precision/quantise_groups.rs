//! Weights in four bits, with a scale for each group of neighbours.

use crate::ir::{DType, HostTensor};
use crate::ops::evaluate::{from_values, to_vec};

/// Steps on either side of zero. A scale may be negative, so that the largest element of a group is the eighth
/// step whatever its sign.
const LEAST: f64 = -8.0;
const MOST: f64 = 7.0;
/// Steps that the largest element is tried at: with more than eight it is cut off, and the others are nearer to
/// steps of their own.
const TRIED: [f64; 10] = [-7.0, -7.25, -7.5, -7.75, -8.0, -8.25, -8.5, -8.75, -9.0, -9.5];
/// Least scale that `f16` holds with all of its bits.
const LEAST_HALF: f64 = 6.2e-5;

/// A weight as `i4`, and its scales.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupedWeight {
    pub data: HostTensor,
    /// `f32`s that halves hold, of the weight's dims with groups along one axis.
    pub scales: HostTensor,
}

/// Quantises each `group` of entries along axis `terms` of `weight` by the scale with the least squared error.
pub fn quantise_groups(weight: &HostTensor, terms: usize, group: usize) -> GroupedWeight {
    let values: Vec<f64> = to_vec(weight);
    let dims = weight.dims();
    let inner: usize = dims[terms + 1..].iter().product();
    let mut scale_dims = dims.to_vec();
    scale_dims[terms] /= group;
    let mut numbers = vec![0.0; values.len()];
    let n_groups = values.len() / group;
    let mut scales = Vec::with_capacity(n_groups);
    for number in 0..n_groups {
        // Groups in the order of their scales: whole runs of the inner axes, group by group.
        let first = number / inner * group * inner + number % inner;
        let places = || (0..group).map(|term| first + term * inner);
        let own: Vec<f64> = places().map(|place| values[place]).collect();
        let scale = best_scale(&own);
        for place in places() {
            numbers[place] = step(values[place], scale);
        }
        scales.push(scale);
    }
    GroupedWeight {
        data: from_values(DType::I4, dims, &numbers),
        scales: from_values(DType::F32, &scale_dims, &scales),
    }
}

/// The nearest step.
fn step(value: f64, scale: f64) -> f64 {
    if scale == 0.0 {
        return 0.0;
    }
    (value / scale).round_ties_even().clamp(LEAST, MOST)
}

fn best_scale(values: &[f64]) -> f64 {
    let largest = values.iter().copied().fold(0.0_f64, |largest, value| {
        if value.abs() > largest.abs() {
            value
        } else {
            largest
        }
    });
    let error = |scale: f64| -> f64 {
        let lost = |value: &f64| (step(*value, scale) * scale - value).powi(2);
        values.iter().map(lost).sum()
    };
    let tried = TRIED.into_iter().map(|steps| stored(largest / steps));
    let best = tried.map(|scale| (error(scale), scale));
    best.min_by(|a, b| a.0.total_cmp(&b.0))
        .map_or(0.0, |(_, scale)| scale)
}

/// The scale as it is kept: of the eleven bits of a half, where these are in its range.
fn stored(scale: f64) -> f64 {
    let kind = if (LEAST_HALF..6e4).contains(&scale.abs()) {
        DType::F16
    } else {
        DType::F32
    };
    to_vec(&from_values(kind, &[1], &[scale]))[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restored(weight: &HostTensor, terms: usize, group: usize) -> Vec<f64> {
        let GroupedWeight { data, scales } = quantise_groups(weight, terms, group);
        let (numbers, scales): (Vec<f64>, Vec<f64>) = (to_vec(&data), to_vec(&scales));
        let dims = weight.dims();
        let inner: usize = dims[terms + 1..].iter().product();
        let scale_of = |place: usize| {
            let (run, within) = (place / inner / dims[terms], place / inner % dims[terms]);
            scales[(run * (dims[terms] / group) + within / group) * inner + place % inner]
        };
        let restore = |(place, number): (usize, &f64)| number * scale_of(place);
        numbers.iter().enumerate().map(restore).collect()
    }

    #[test]
    fn every_group_is_off_by_half_a_step_at_most() {
        let values: Vec<f32> = (0..128_u8)
            .map(|n| (f32::from(n) * 0.7).sin() * f32::from(1 + n / 32))
            .collect();
        for (dims, terms) in [([64, 2], 0), ([2, 64], 1)] {
            let weight = HostTensor::from_f32(&dims, &values);
            let found = restored(&weight, terms, 32);
            for (found, wanted) in found.iter().zip(&values) {
                assert!(
                    (found - f64::from(*wanted)).abs() <= 4.0 / 7.0 * 0.5 + 1e-3,
                    "{found} for {wanted}"
                );
            }
        }
    }

    #[test]
    fn what_four_bits_hold_stays() {
        let numbers: Vec<f32> = (0..64_u8).map(|n| (f32::from(n % 16) - 8.0) * 0.375).collect();
        let weight = HostTensor::from_f32(&[64, 1], &numbers);
        let found = restored(&weight, 0, 16);
        let wanted: Vec<f64> = numbers.iter().map(|&number| f64::from(number)).collect();
        assert_eq!(found, wanted);
    }
}
