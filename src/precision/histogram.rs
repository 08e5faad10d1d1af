//! How often values of each size occur, in one pass and whatever the order.

#![expect(clippy::cast_precision_loss, reason = "counts and bins are far below 2^53")]

use serde::{Deserialize, Serialize};

/// Bins on either side of zero.
pub const N_BINS: usize = 4096;

/// The least exponent a reach starts from; smaller values fall into the bins next to zero.
const LEAST_EXPONENT: i32 = -100;

/// Counts of the finite values of a tensor. Bins have equal width on both sides of zero; the reach is
/// a power of two, and grows by merging pairs of bins, so that the same values give the same counts in
/// any order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// The reach is two to this; `None` before the first value.
    exponent: Option<i32>,
    positive: Vec<u64>,
    negative: Vec<u64>,
    /// Values that are exactly zero, which every scale represents.
    n_zeros: u64,
    /// Infinities and not-a-numbers.
    n_not_finite: u64,
    low: f32,
    high: f32,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram {
            exponent: None,
            positive: vec![0; N_BINS],
            negative: vec![0; N_BINS],
            n_zeros: 0,
            n_not_finite: 0,
            low: f32::INFINITY,
            high: f32::NEG_INFINITY,
        }
    }
}

impl Histogram {
    /// Counts all of `values`.
    pub fn add(&mut self, values: &[f32]) {
        let finite = values.iter().copied().filter(|value| value.is_finite());
        let largest = finite
            .clone()
            .fold(0.0_f32, |largest, value| largest.max(value.abs()));
        self.n_not_finite += (values.len() - finite.clone().count()) as u64;
        if largest > 0.0 {
            self.reach(largest);
        }
        let per_unit = self
            .exponent
            .map_or(0.0, |exponent| N_BINS as f64 * 2.0_f64.powi(-exponent));
        for value in finite {
            self.low = self.low.min(value);
            self.high = self.high.max(value);
            if value == 0.0 {
                self.n_zeros += 1;
                continue;
            }
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "below the number of bins"
            )]
            let bin = ((f64::from(value.abs()) * per_unit) as usize).min(N_BINS - 1);
            let side = if value > 0.0 {
                &mut self.positive
            } else {
                &mut self.negative
            };
            side[bin] += 1;
        }
    }

    /// Grows until `largest` has a bin.
    fn reach(&mut self, largest: f32) {
        let needed = exponent_above(largest).max(LEAST_EXPONENT);
        let Some(own) = self.exponent else {
            self.exponent = Some(needed);
            return;
        };
        for _ in own..needed {
            merge_pairs(&mut self.positive);
            merge_pairs(&mut self.negative);
        }
        self.exponent = Some(own.max(needed));
    }

    /// Least and greatest finite value, with zero among them: every quantised range holds zero.
    pub fn range(&self) -> (f64, f64) {
        (f64::from(self.low.min(0.0)), f64::from(self.high.max(0.0)))
    }

    /// The greatest size of a finite value.
    pub fn largest(&self) -> f64 {
        let (low, high) = self.range();
        high.max(-low)
    }

    /// Number of finite values.
    pub fn n_values(&self) -> u64 {
        self.n_zeros + self.positive.iter().chain(&self.negative).sum::<u64>()
    }

    pub fn n_not_finite(&self) -> u64 {
        self.n_not_finite
    }

    /// Width of a bin.
    pub fn width(&self) -> f64 {
        self.exponent
            .map_or(0.0, |exponent| 2.0_f64.powi(exponent) / N_BINS as f64)
    }

    /// Counts by size, of both signs together; zeros are left out.
    pub fn sizes(&self) -> Vec<u64> {
        let both = self.positive.iter().zip(&self.negative);
        both.map(|(positive, negative)| positive + negative).collect()
    }

    /// The middle of every bin that is not empty, with its count. Zeros are left out.
    pub fn entries(&self) -> Vec<(f64, u64)> {
        let width = self.width();
        let of = |side: &[u64], sign: f64| -> Vec<(f64, u64)> {
            let filled = side.iter().enumerate().filter(|(_, count)| **count > 0);
            filled
                .map(|(bin, &count)| (sign * (bin as f64 + 0.5) * width, count))
                .collect()
        };
        let mut entries = of(&self.negative, -1.0);
        entries.reverse();
        entries.extend(of(&self.positive, 1.0));
        entries
    }
}

/// The least `e` with `size < 2^e`.
fn exponent_above(size: f32) -> i32 {
    let bits = f64::from(size).to_bits();
    let biased = i32::try_from((bits >> 52) & 0x7ff).expect("an exponent has 11 bits");
    biased - 1023 + 1
}

fn merge_pairs(bins: &mut [u64]) {
    let half = bins.len() / 2;
    for bin in 0..half {
        bins[bin] = bins[2 * bin] + bins[2 * bin + 1];
    }
    bins[half..].fill(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter() {
        let values: Vec<f32> = (0..1000_u16)
            .map(|n| (f32::from(n) * 0.37).sin() * f32::from(n))
            .collect();
        let mut once = Histogram::default();
        once.add(&values);
        let mut pieces = Histogram::default();
        for part in values.chunks(7).rev() {
            pieces.add(part);
        }
        assert_eq!(once, pieces);
        assert_eq!(once.n_values(), 1000);
    }

    #[test]
    fn what_is_not_finite_is_counted_apart() {
        let mut histogram = Histogram::default();
        histogram.add(&[1.0, f32::NAN, f32::INFINITY, 0.0, -2.0]);
        assert_eq!(histogram.n_not_finite(), 2);
        assert_eq!(histogram.range(), (-2.0, 1.0));
        assert_eq!(histogram.n_values(), 3);
        let entries = histogram.entries();
        assert_eq!(entries.len(), 2);
        assert!((entries[0].0 + 2.0).abs() < 2.0 * histogram.width());
        assert!((entries[1].0 - 1.0).abs() < 2.0 * histogram.width());
    }

    #[test]
    fn all_zeros_have_no_width() {
        let mut histogram = Histogram::default();
        histogram.add(&[0.0; 4]);
        assert_eq!((histogram.range(), histogram.width()), ((0.0, 0.0), 0.0));
    }
}
