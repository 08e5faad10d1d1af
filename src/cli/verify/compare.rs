//! How far two tensors are apart, by polygraphy's measures.

use serde::Serialize;

use crate::ir::HostTensor;
use crate::ops::evaluate::to_vec;

/// What is compared with the tolerances.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Statistic {
    /// Every element must be within both tolerances together.
    Elementwise,
    Max,
    Mean,
    Median,
    Quantile(f64),
}

impl Statistic {
    pub fn of(name: &str, quantile: f64) -> Self {
        match name {
            "max" => Statistic::Max,
            "mean" => Statistic::Mean,
            "median" => Statistic::Median,
            "quantile" => Statistic::Quantile(quantile),
            _ => Statistic::Elementwise,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Statistic::Elementwise => "elemwise",
            Statistic::Max => "max",
            Statistic::Mean => "mean",
            Statistic::Median => "median",
            Statistic::Quantile(_) => "quantile",
        }
    }

    fn value(self, sorted: &[f64]) -> f64 {
        if sorted.is_empty() {
            return 0.0;
        }
        match self {
            Statistic::Elementwise | Statistic::Max => sorted[sorted.len() - 1],
            Statistic::Mean => mean(sorted),
            Statistic::Median => quantile(sorted, 0.5),
            Statistic::Quantile(q) => quantile(sorted, q),
        }
    }
}

/// What passes: `absolute + relative * |expected|`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Tolerance {
    pub absolute: f64,
    pub relative: f64,
}

/// Where the values of a tensor lie.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stats {
    pub mean: f64,
    pub std_dev: f64,
    pub median: f64,
    pub min: f64,
    pub min_at: Vec<usize>,
    pub max: f64,
    pub max_at: Vec<usize>,
    pub avg_magnitude: f64,
}

impl Stats {
    fn of(values: &[f64], dims: &[usize]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let mean_value = mean(values);
        let squares: Vec<f64> = values.iter().map(|value| (value - mean_value).powi(2)).collect();
        let magnitudes: Vec<f64> = values.iter().map(|value| value.abs()).collect();
        let extreme = |is_before: fn(f64, f64) -> bool| {
            let mut best = 0;
            for (position, &value) in values.iter().enumerate() {
                if is_before(value, values[best]) {
                    best = position;
                }
            }
            best
        };
        let (min, max) = (extreme(|a, b| a < b), extreme(|a, b| a > b));
        let at = |position: usize| values.get(position).copied().unwrap_or(0.0);
        Stats {
            mean: mean_value,
            std_dev: mean(&squares).sqrt(),
            median: if sorted.is_empty() {
                0.0
            } else {
                quantile(&sorted, 0.5)
            },
            min: at(min),
            min_at: coordinates(min, dims),
            max: at(max),
            max_at: coordinates(max, dims),
            avg_magnitude: mean(&magnitudes),
        }
    }
}

/// Two tensors of one output side by side.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    pub output: String,
    pub passed: bool,
    /// Why there are no figures, where kinds or shapes differ.
    pub mismatch: Option<String>,
    pub found: Option<Stats>,
    pub expected: Option<Stats>,
    pub absolute: Option<Stats>,
    pub relative: Option<Stats>,
    /// The statistic of absolute and of relative differences: the least tolerances that pass.
    pub required_absolute: f64,
    pub required_relative: f64,
    /// `|found - expected| / |expected|` in the 2-norm.
    pub relative_norm: f64,
}

/// Compares what was `found` with what was `expected`. NaN and infinities must stand in the same
/// places.
pub fn compare(
    output: &str,
    found: &HostTensor,
    expected: &HostTensor,
    tolerance: Tolerance,
    statistic: Statistic,
) -> Comparison {
    if found.dims() != expected.dims() {
        return mismatched(
            output,
            format!("{} was expected, {} was found", expected.ty(), found.ty()),
        );
    }
    let dims = found.dims();
    let (found, expected) = (to_vec::<f64>(found), to_vec::<f64>(expected));
    let absolute: Vec<f64> = found
        .iter()
        .zip(&expected)
        .map(|(&f, &e)| difference(f, e))
        .collect();
    let relative: Vec<f64> = absolute
        .iter()
        .zip(&expected)
        .map(|(&difference, expected)| {
            if difference == 0.0 || difference.is_infinite() {
                difference
            } else {
                difference / expected.abs()
            }
        })
        .collect();
    let required = |differences: &[f64]| {
        let mut sorted = differences.to_vec();
        sorted.sort_by(f64::total_cmp);
        statistic.value(&sorted)
    };
    let (required_absolute, required_relative) = (required(&absolute), required(&relative));
    let passed = match statistic {
        Statistic::Elementwise => absolute.iter().zip(&expected).all(|(&difference, expected)| {
            difference == 0.0
                || (difference.is_finite()
                    && difference <= tolerance.absolute + tolerance.relative * expected.abs())
        }),
        _ => required_absolute <= tolerance.absolute || required_relative <= tolerance.relative,
    };
    let square = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>();
    let (off, size) = (square(&absolute), square(&expected));
    Comparison {
        output: output.to_owned(),
        passed,
        mismatch: None,
        found: Some(Stats::of(&found, dims)),
        expected: Some(Stats::of(&expected, dims)),
        absolute: Some(Stats::of(&absolute, dims)),
        relative: Some(Stats::of(&relative, dims)),
        required_absolute,
        required_relative,
        relative_norm: if off == 0.0 { 0.0 } else { (off / size).sqrt() },
    }
}

fn mismatched(output: &str, reason: String) -> Comparison {
    Comparison {
        output: output.to_owned(),
        passed: false,
        mismatch: Some(reason),
        found: None,
        expected: None,
        absolute: None,
        relative: None,
        required_absolute: f64::INFINITY,
        required_relative: f64::INFINITY,
        relative_norm: f64::INFINITY,
    }
}

fn difference(found: f64, expected: f64) -> f64 {
    if found == expected || (found.is_nan() && expected.is_nan()) {
        0.0
    } else if found.is_finite() && expected.is_finite() {
        (found - expected).abs()
    } else {
        f64::INFINITY
    }
}

fn mean(values: &[f64]) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a count of elements")]
    let count = values.len().max(1) as f64;
    values.iter().sum::<f64>() / count
}

/// Linear between the two nearest of the sorted values.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a count of elements")]
    let place = q.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between zero and the count"
    )]
    let below = place.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    let part = place - place.floor();
    if part == 0.0 {
        sorted[below]
    } else {
        sorted[below] + (sorted[above] - sorted[below]) * part
    }
}

fn coordinates(position: usize, dims: &[usize]) -> Vec<usize> {
    let mut rest = position;
    let mut at: Vec<usize> = dims
        .iter()
        .rev()
        .map(|&dim| {
            let own = rest % dim.max(1);
            rest /= dim.max(1);
            own
        })
        .collect();
    at.reverse();
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIGHT: Tolerance = Tolerance {
        absolute: 1e-5,
        relative: 1e-5,
    };

    fn tensor(values: &[f32]) -> HostTensor {
        HostTensor::from_f32(&[values.len()], values)
    }

    fn passes(found: &[f32], expected: &[f32], statistic: Statistic) -> bool {
        compare("y", &tensor(found), &tensor(expected), TIGHT, statistic).passed
    }

    #[test]
    fn elements_are_judged_by_both_tolerances_together() {
        assert!(passes(&[100.001], &[100.0], Statistic::Elementwise));
        assert!(!passes(&[100.01], &[100.0], Statistic::Elementwise));
        assert!(passes(&[0.000_009], &[0.0], Statistic::Elementwise));
    }

    #[test]
    fn a_statistic_may_forgive_single_elements() {
        let (found, expected) = (&[1.0, 2.0, 3.0, 9.0], &[1.0, 2.0, 3.0, 4.0]);
        assert!(!passes(found, expected, Statistic::Elementwise));
        assert!(!passes(found, expected, Statistic::Max));
        assert!(!passes(found, expected, Statistic::Mean));
        assert!(passes(found, expected, Statistic::Median));
        assert!(passes(found, expected, Statistic::Quantile(0.5)));
    }

    #[test]
    fn what_is_not_finite_must_stand_in_the_same_places() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        assert!(passes(&[nan, inf, 1.0], &[nan, inf, 1.0], Statistic::Elementwise));
        assert!(!passes(&[nan], &[1.0], Statistic::Elementwise));
        assert!(!passes(&[inf], &[-inf], Statistic::Elementwise));
        assert!(!passes(&[1.0, nan], &[1.0, 1.0], Statistic::Max));
    }

    #[test]
    fn statistics_tell_where_extremes_are() {
        let stats = Stats::of(&[1.0, -4.0, 2.0, 5.0, 0.0, 2.0], &[2, 3]);
        assert_eq!((stats.min, stats.min_at.as_slice()), (-4.0, &[0, 1][..]));
        assert_eq!((stats.max, stats.max_at.as_slice()), (5.0, &[1, 0][..]));
        assert_eq!((stats.mean, stats.median), (1.0, 1.5));
    }

    #[test]
    fn other_shapes_never_pass() {
        let comparison = compare(
            "y",
            &tensor(&[1.0]),
            &HostTensor::from_f32(&[1, 1], &[1.0]),
            TIGHT,
            Statistic::Mean,
        );
        assert!(!comparison.passed);
        assert!(comparison.mismatch.unwrap().contains("f32[1,1]"));
    }
}
