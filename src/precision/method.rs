//! Which part of a tensor's values a quantised kind should represent.

#![expect(clippy::cast_precision_loss, reason = "counts and bins are far below 2^53")]

use super::histogram::Histogram;
use super::number::Number;

/// How the range of a tensor is chosen from what calibration saw. Values outside saturate.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Method {
    /// All values.
    MinMax,
    /// The range whose quantised distribution is nearest to the original (Kullback and Leibler).
    #[default]
    Entropy,
    /// All but a share of the largest values; between 0 and 100.
    Percentile(f64),
    /// The range with the least mean squared error.
    Mse,
}

/// What `percentile` means without a number.
pub const DEFAULT_PERCENTILE: f64 = 99.99;

/// Steps of a positive half range, which `entropy` compares distributions on.
const N_LEVELS: usize = 128;

/// Share of values, in per cent, that `entropy` never saturates.
const LEAST_SHARE: f64 = 99.0;

/// Divergences nearer than this are equal but for rounding.
const EQUAL: f64 = 1e-9;

/// Ranges that `mse` tries.
const N_CANDIDATES: usize = 128;

impl Method {
    /// Reads `minmax`, `entropy`, `mse`, `percentile` or `percentile:99.9`.
    pub fn from_name(text: &str) -> Option<Method> {
        match text.split_once([':', '=']) {
            None => match text {
                "minmax" => Some(Method::MinMax),
                "entropy" => Some(Method::Entropy),
                "mse" => Some(Method::Mse),
                "percentile" => Some(Method::Percentile(DEFAULT_PERCENTILE)),
                _ => None,
            },
            Some(("percentile", share)) => {
                let share = share.parse().ok()?;
                (share > 0.0 && share <= 100.0).then_some(Method::Percentile(share))
            }
            Some(_) => None,
        }
    }

    pub fn name(self) -> String {
        match self {
            Method::MinMax => "minmax".to_owned(),
            Method::Entropy => "entropy".to_owned(),
            Method::Percentile(share) => format!("percentile:{share}"),
            Method::Mse => "mse".to_owned(),
        }
    }

    /// Least and greatest value to represent as `number`; zero is between them.
    pub fn range(self, histogram: &Histogram, number: Number) -> (f64, f64) {
        let (low, high) = histogram.range();
        let limit = match self {
            Method::MinMax => histogram.largest(),
            // Floats have as many steps near zero whatever the range: distributions say nothing.
            Method::Entropy if number.is_float() => histogram.largest(),
            Method::Entropy => least_divergence(histogram),
            Method::Percentile(share) => quantile(histogram, share),
            Method::Mse => least_squares(histogram, number),
        };
        (low.max(-limit), high.min(limit))
    }
}

/// The size that `share` per cent of all values do not exceed.
fn quantile(histogram: &Histogram, share: f64) -> f64 {
    let sizes = histogram.sizes();
    let n_above = histogram.n_values() as f64 * (1.0 - share / 100.0);
    let mut above = 0.0;
    for (bin, &count) in sizes.iter().enumerate().rev() {
        above += count as f64;
        if above > n_above {
            return ((bin + 1) as f64 * histogram.width()).min(histogram.largest());
        }
    }
    histogram.largest()
}

/// The range with the least sum of squared errors, counted at the middles of bins.
fn least_squares(histogram: &Histogram, number: Number) -> f64 {
    let (entries, largest) = (histogram.entries(), histogram.largest());
    let (low, high) = histogram.range();
    let mut best = (f64::INFINITY, largest);
    for candidate in (1..=N_CANDIDATES).rev() {
        // Geometric steps find ranges far below an outlier, too.
        let limit = largest * 2.0_f64.powf(-((N_CANDIDATES - candidate) as f64) / 12.0);
        let scaling = number.scaling((low.max(-limit), high.min(limit)));
        let error: f64 = entries
            .iter()
            .map(|&(value, count)| (scaling.rounded(value) - value).powi(2) * count as f64)
            .sum();
        if error < best.0 {
            best = (error, limit);
        }
    }
    best.1
}

/// The range at which the distribution of sizes loses least when it is put on [`N_LEVELS`] steps. It holds
/// at least [`LEAST_SHARE`] per cent of the values: the distribution of few distinct sizes would
/// otherwise be kept perfectly by saturating all of them.
fn least_divergence(histogram: &Histogram) -> f64 {
    let sizes = histogram.sizes();
    let n_used = sizes
        .iter()
        .rposition(|&count| count > 0)
        .map_or(0, |last| last + 1);
    if n_used <= N_LEVELS {
        return histogram.largest();
    }
    let stride = (n_used / 1024).max(1);
    let mut best = (f64::INFINITY, n_used);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of bins"
    )]
    let least = (quantile(histogram, LEAST_SHARE) / histogram.width()).ceil() as usize;
    let mut n_kept = least.max(N_LEVELS);
    while n_kept <= n_used {
        let divergence = divergence(&sizes[..n_kept], sizes[n_kept..n_used].iter().sum());
        // Of equal ones, the wider.
        if divergence <= best.0 + EQUAL {
            best = (divergence, n_kept);
        }
        n_kept += stride;
    }
    (best.1 as f64 * histogram.width()).min(histogram.largest())
}

/// Divergence of `kept`, with all `outside` values in its last bin, from what is left of `kept` on
/// [`N_LEVELS`] steps: each step's count is spread evenly over its bins that are not empty.
fn divergence(kept: &[u64], outside: u64) -> f64 {
    let total = (kept.iter().sum::<u64>() + outside) as f64;
    let inside = kept.iter().sum::<u64>() as f64;
    if inside == 0.0 {
        return f64::INFINITY;
    }
    let last = kept.len() - 1;
    let mut sum = 0.0;
    for level in 0..N_LEVELS {
        let bins = level * kept.len() / N_LEVELS..(level + 1) * kept.len() / N_LEVELS;
        let part = &kept[bins.clone()];
        let n_filled = part.iter().filter(|count| **count > 0).count();
        let level_share = part.iter().sum::<u64>() as f64 / inside / n_filled.max(1) as f64;
        for (bin, &count) in bins.zip(part) {
            let count = if bin == last { count + outside } else { count };
            if count > 0 {
                let share = count as f64 / total;
                // A bin that only saturating values fill has no share on the steps.
                let step_share = if level_share > 0.0 {
                    level_share
                } else {
                    1.0 / total.max(2.0)
                };
                sum += share * (share / step_share).ln();
            }
        }
    }
    sum
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these ends are kept as they are")]
mod tests {
    use super::*;

    /// A bell of width one, and one value far outside.
    fn bell_and_outlier(outlier: f32) -> Histogram {
        let mut histogram = Histogram::default();
        let values: Vec<f32> = (1..1_000_000_u32)
            .map(|n| {
                let share = f64::from(n) / 1e6;
                #[expect(clippy::cast_possible_truncation, reason = "test data")]
                let value = (share / (1.0 - share)).ln() as f32 * 0.55;
                value
            })
            .collect();
        histogram.add(&values);
        histogram.add(&[outlier]);
        histogram
    }

    #[test]
    fn an_outlier_widens_only_minmax() {
        let histogram = bell_and_outlier(120.0);
        assert_eq!(Method::MinMax.range(&histogram, Number::Int8).1, 120.0);
        for method in [Method::Entropy, Method::Percentile(99.99), Method::Mse] {
            let (low, high) = method.range(&histogram, Number::Int8);
            assert!((1.5..30.0).contains(&high), "{}: {high}", method.name());
            assert!((-30.0..-1.5).contains(&low), "{}: {low}", method.name());
        }
    }

    #[test]
    fn few_distinct_sizes_are_kept() {
        let mut histogram = Histogram::default();
        let values: Vec<f32> = (0..10_000_u16).map(|n| f32::from(n % 17) / 8.0 - 1.0).collect();
        histogram.add(&values);
        for method in [
            Method::MinMax,
            Method::Entropy,
            Method::Percentile(99.99),
            Method::Mse,
        ] {
            let (low, high) = method.range(&histogram, Number::Int8);
            assert!(high > 0.95 && low < -0.95, "{}: {low} {high}", method.name());
        }
    }

    #[test]
    fn what_fills_its_range_evenly_is_kept_whole() {
        let mut histogram = Histogram::default();
        let values: Vec<f32> = (0..100_000_u32).map(|n| n as f32 / 100_000.0).collect();
        histogram.add(&values);
        for method in [
            Method::MinMax,
            Method::Entropy,
            Method::Percentile(100.0),
            Method::Mse,
        ] {
            let (low, high) = method.range(&histogram, Number::Int8);
            assert_eq!(low, 0.0, "{}", method.name());
            assert!(high > 0.95, "{}: {high}", method.name());
        }
    }

    #[test]
    fn names_are_read_back() {
        for text in ["minmax", "entropy", "mse", "percentile:99.9"] {
            assert_eq!(Method::from_name(text).unwrap().name(), text);
        }
        assert_eq!(Method::from_name("percentile"), Some(Method::Percentile(99.99)));
        for wrong in ["", "max", "percentile:0", "percentile:101", "entropy:2"] {
            assert_eq!(Method::from_name(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn constants_and_zeros_have_ranges() {
        let mut histogram = Histogram::default();
        histogram.add(&[0.0; 10]);
        for method in [
            Method::MinMax,
            Method::Entropy,
            Method::Percentile(99.0),
            Method::Mse,
        ] {
            assert_eq!(method.range(&histogram, Number::Int8), (0.0, 0.0));
        }
        histogram.add(&[3.0; 10]);
        for method in [
            Method::MinMax,
            Method::Entropy,
            Method::Percentile(99.0),
            Method::Mse,
        ] {
            let (low, high) = method.range(&histogram, Number::Int8);
            assert!(
                low == 0.0 && (2.9..3.01).contains(&high),
                "{}: {high}",
                method.name()
            );
        }
    }
}
