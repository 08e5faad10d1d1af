//! Where a resized axis reads its operand, and with which weights.
//!
//! Positions are computed in `f64` from scales that were rounded to `f32`, so those within
//! rounding of a multiple of one half are taken to be that multiple: otherwise `floor` and
//! `round` would decide by the noise.

use super::OpError;

/// How a position of the result becomes a position of the operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transform {
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
    AlignCorners,
    Asymmetric,
    TfHalfPixelForNn,
    CropAndResize,
}

impl Transform {
    /// The transform ONNX calls `name`.
    ///
    /// # Errors
    /// If there is none.
    pub fn named(name: &str) -> Result<Self, OpError> {
        Ok(match name {
            "half_pixel" => Transform::HalfPixel,
            "half_pixel_symmetric" => Transform::HalfPixelSymmetric,
            "pytorch_half_pixel" => Transform::PytorchHalfPixel,
            "align_corners" => Transform::AlignCorners,
            "asymmetric" => Transform::Asymmetric,
            "tf_half_pixel_for_nn" => Transform::TfHalfPixelForNn,
            "tf_crop_and_resize" => Transform::CropAndResize,
            other => {
                return Err(OpError::invalid(format!(
                    "attribute `coordinate_transformation_mode` is unknown: `{other}`"
                )));
            }
        })
    }

    /// Position in an axis of `extent` that position `at` of the resized axis lies at.
    fn source(self, at: f64, axis: &Axis) -> f64 {
        let Axis {
            extent,
            resized,
            scale,
            roi: (start, end),
        } = *axis;
        // Not rounded down, as ONNX defines it.
        let scaled = scale * extent;
        let is_one = (scaled - 1.0).abs() < 1e-6;
        let half_pixel = (at + 0.5) / scale - 0.5;
        let position = match self {
            Transform::HalfPixelSymmetric => {
                let offset = extent / 2.0 * (1.0 - resized / scaled);
                offset + half_pixel
            }
            Transform::PytorchHalfPixel if is_one => -0.5,
            Transform::HalfPixel | Transform::PytorchHalfPixel => half_pixel,
            Transform::AlignCorners if is_one => 0.0,
            Transform::AlignCorners => at * (extent - 1.0) / (scaled - 1.0),
            Transform::Asymmetric => at / scale,
            Transform::TfHalfPixelForNn => (at + 0.5) / scale,
            Transform::CropAndResize if is_one => (start + end) * (extent - 1.0) / 2.0,
            Transform::CropAndResize => {
                start * (extent - 1.0) + at * (end - start) * (extent - 1.0) / (scaled - 1.0)
            }
        };
        snapped(position)
    }
}

/// `position`, or the multiple of one half it is within rounding of.
fn snapped(position: f64) -> f64 {
    let half = (position * 2.0).round() / 2.0;
    let rounding = 4.0 * f64::from(f32::EPSILON) * position.abs().max(1.0);
    if (position - half).abs() <= rounding {
        half
    } else {
        position
    }
}

/// Which element `nearest` takes between two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nearest {
    RoundPreferFloor,
    RoundPreferCeil,
    Floor,
    Ceil,
}

/// What weighs the elements around a position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Filter {
    Nearest(Nearest),
    Linear,
    /// Convolution with the cubic kernel of parameter `a`.
    Cubic(f64),
}

impl Filter {
    /// The filter of ONNX's attributes `mode`, `nearest_mode` and `cubic_coeff_a`.
    ///
    /// # Errors
    /// If one has an unknown value.
    pub fn named(mode: &str, nearest: &str, cubic: f64) -> Result<Self, OpError> {
        Ok(match (mode, nearest) {
            ("nearest", "round_prefer_floor") => Filter::Nearest(Nearest::RoundPreferFloor),
            ("nearest", "round_prefer_ceil") => Filter::Nearest(Nearest::RoundPreferCeil),
            ("nearest", "floor") => Filter::Nearest(Nearest::Floor),
            ("nearest", "ceil") => Filter::Nearest(Nearest::Ceil),
            ("linear" | "bilinear", _) => Filter::Linear,
            ("cubic", _) => Filter::Cubic(cubic),
            _ => {
                return Err(OpError::invalid(format!(
                    "unknown attributes: `mode` is `{mode}`, `nearest_mode` is `{nearest}`"
                )));
            }
        })
    }

    /// Weight of an element at `distance` (in elements of the filter's own grid).
    fn kernel(self, distance: f64) -> f64 {
        let x = distance.abs();
        match self {
            Filter::Nearest(_) => f64::from(u8::from(x < 0.5)),
            Filter::Linear => (1.0 - x).max(0.0),
            Filter::Cubic(a) if x <= 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
            Filter::Cubic(a) if x < 2.0 => a * (((x - 5.0) * x + 8.0) * x - 4.0),
            Filter::Cubic(_) => 0.0,
        }
    }

    /// How far the kernel reaches.
    fn radius(self) -> f64 {
        match self {
            Filter::Nearest(_) | Filter::Linear => 1.0,
            Filter::Cubic(_) => 2.0,
        }
    }
}

/// One axis that is resized.
struct Axis {
    extent: f64,
    resized: f64,
    scale: f64,
    roi: (f64, f64),
}

/// How all axes of an operand are resized.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Resampling {
    pub transform: Transform,
    pub filter: Filter,
    /// Whether the filter widens when shrinking.
    pub antialias: bool,
    /// Whether elements outside of the operand have no weight, rather than that of the edge.
    pub exclude_outside: bool,
}

impl Resampling {
    /// What every position of an axis resized from `extent` to `resized` reads.
    pub fn taps(&self, extent: usize, resized: usize, scale: f64, roi: (f64, f64)) -> AxisTaps {
        #[expect(clippy::cast_precision_loss, reason = "extents are below 2^53")]
        let axis = Axis {
            extent: extent as f64,
            resized: resized as f64,
            scale,
            roi,
        };
        let (mut rows, mut outside) = (Vec::with_capacity(resized), Vec::with_capacity(resized));
        for at in 0..resized {
            #[expect(clippy::cast_precision_loss, reason = "extents are below 2^53")]
            let source = self.transform.source(at as f64, &axis);
            let crops = self.transform == Transform::CropAndResize;
            outside.push(crops && !(0.0..=axis.extent - 1.0).contains(&source));
            rows.push(self.row(source, &axis));
        }
        AxisTaps { rows, outside }
    }

    fn row(&self, source: f64, axis: &Axis) -> Vec<(usize, f64)> {
        if let Filter::Nearest(nearest) = self.filter {
            let position = match nearest {
                Nearest::Floor => source.floor(),
                Nearest::Ceil => source.ceil(),
                Nearest::RoundPreferFloor => (source - 0.5).ceil(),
                Nearest::RoundPreferCeil => (source + 0.5).floor(),
            };
            return vec![(limited(position, axis.extent), 1.0)];
        }
        let shrink = if self.antialias { axis.scale.min(1.0) } else { 1.0 };
        let reach = self.filter.radius() / shrink;
        // The elements strictly within reach; at distance `reach` the weight is zero.
        let first = (source - reach).floor() + 1.0;
        let mut taps: Vec<(f64, f64)> = Vec::new();
        let mut position = first;
        while position < source + reach {
            taps.push((position, self.filter.kernel((position - source) * shrink)));
            position += 1.0;
        }
        if self.exclude_outside {
            taps.retain(|(position, _)| (0.0..axis.extent).contains(position));
        }
        normalized(&taps, axis.extent)
    }
}

/// Taps on the axis, those outside moved to its edge, with weights that sum to one.
fn normalized(taps: &[(f64, f64)], extent: f64) -> Vec<(usize, f64)> {
    let sum: f64 = taps.iter().map(|(_, weight)| weight).sum();
    let mut row: Vec<(usize, f64)> = Vec::new();
    for &(position, weight) in taps.iter().filter(|(_, weight)| *weight != 0.0) {
        let place = limited(position, extent);
        match row.last_mut() {
            Some(last) if last.0 == place => last.1 += weight / sum,
            _ => row.push((place, weight / sum)),
        }
    }
    row
}

fn limited(position: f64, extent: f64) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is limited to the extent"
    )]
    let place = position.min(extent - 1.0).max(0.0) as usize;
    place
}

/// What the positions of one resized axis read.
#[derive(Clone, Debug, PartialEq)]
pub struct AxisTaps {
    /// Per position, operand positions in ascending order with their weights.
    pub rows: Vec<Vec<(usize, f64)>>,
    /// Whether a position takes the extrapolation value instead.
    pub outside: Vec<bool>,
}

impl AxisTaps {
    /// Most elements a position reads.
    pub fn width(&self) -> usize {
        self.rows.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// The one element every position takes, where each takes just one.
    pub fn picks(&self) -> Option<Vec<i64>> {
        self.rows
            .iter()
            .map(|row| match row[..] {
                [(place, _)] => i64::try_from(place).ok(),
                _ => None,
            })
            .collect()
    }

    /// How often every element of an axis of `extent` occurs in a row, where that is all.
    pub fn repeat(&self, extent: usize) -> Option<usize> {
        let picks = self.picks()?;
        let times = picks.len().checked_div(extent)?;
        let repeats = times * extent == picks.len()
            && times > 0
            && !self.outside.contains(&true)
            && (0..)
                .zip(&picks)
                .all(|(at, &pick): (usize, _)| i64::try_from(at / times) == Ok(pick));
        repeats.then_some(times)
    }

    /// Place and weight of tap `n` of every position; a weight of zero where it has fewer.
    pub fn column(&self, n: usize) -> (Vec<i64>, Vec<f64>) {
        self.rows
            .iter()
            .map(|row| {
                let (place, weight) = row.get(n).copied().unwrap_or((row[0].0, 0.0));
                (i64::try_from(place).expect("extents fit in i64"), weight)
            })
            .unzip()
    }

    /// The weights as a matrix with one row per element of the operand's axis.
    pub fn matrix(&self, extent: usize) -> Vec<f64> {
        let mut matrix = vec![0.0; extent * self.rows.len()];
        for (at, row) in self.rows.iter().enumerate() {
            for &(place, weight) in row {
                matrix[place * self.rows.len() + at] += weight;
            }
        }
        matrix
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resampling(transform: Transform, filter: Filter) -> Resampling {
        Resampling {
            transform,
            filter,
            antialias: false,
            exclude_outside: false,
        }
    }

    #[test]
    fn doubling_repeats_every_element() {
        let nearest = Filter::Nearest(Nearest::RoundPreferFloor);
        let taps = resampling(Transform::HalfPixel, nearest).taps(3, 6, 2.0, (0.0, 1.0));
        assert_eq!(taps.picks(), Some(vec![0, 0, 1, 1, 2, 2]));
        assert_eq!(taps.repeat(3), Some(2));
    }

    #[test]
    fn linear_weights_meet_between_elements() {
        let taps = resampling(Transform::HalfPixel, Filter::Linear).taps(2, 4, 2.0, (0.0, 1.0));
        assert_eq!(taps.rows[0], [(0, 1.0)]);
        assert_eq!(taps.rows[1], [(0, 0.75), (1, 0.25)]);
        assert_eq!(taps.rows[2], [(0, 0.25), (1, 0.75)]);
        assert_eq!(taps.width(), 2);
    }

    #[test]
    fn scales_that_were_rounded_do_not_shift_elements() {
        let scale = f64::from(0.6f32);
        let floor = Filter::Nearest(Nearest::Floor);
        let taps = resampling(Transform::Asymmetric, floor).taps(10, 6, scale, (0.0, 1.0));
        assert_eq!(taps.picks(), Some(vec![0, 1, 3, 5, 6, 8]));
    }
}
