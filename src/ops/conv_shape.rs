//! Sizes of convolutions and transposed ones.

use super::window::Window;
use super::{OpError, infer};
use crate::ir::Attrs;

/// Attribute `group`.
///
/// # Errors
/// If it is not above zero, or does not fit 31 bits.
pub fn group(attrs: &Attrs) -> Result<usize, OpError> {
    let group = infer::int(attrs, "group")?;
    i32::try_from(group)
        .ok()
        .and_then(|small| usize::try_from(small).ok())
        .filter(|&group| group > 0)
        .ok_or_else(|| {
            OpError::invalid(format!(
                "attribute `group` must be above zero and at most {}, found {group}",
                i32::MAX
            ))
        })
}

/// Sizes of a convolution, whatever the order of its axes.
pub struct ConvShape {
    pub batch: usize,
    /// Channels of `x`.
    pub channels: usize,
    /// Filters: channels of the result.
    pub filters: usize,
    pub group: usize,
    pub input: Vec<usize>,
    pub output: Vec<usize>,
    pub window: Window,
}

impl ConvShape {
    /// Sizes of `conv`, or of `conv_nhwc` if `last` says that channels are the last axis.
    ///
    /// # Errors
    /// If operands and attributes do not fit together.
    pub fn new(x: &[usize], w: &[usize], attrs: &Attrs, last: bool) -> Result<Self, OpError> {
        let wrong = || OpError::invalid(format!("a convolution of {x:?} with a filter of {w:?}"));
        if x.len() != w.len() || x.len() < 2 || (last && x.len() != 4) {
            return Err(wrong());
        }
        let rank = x.len() - 2;
        let (channel, space) = if last {
            (rank + 1, 1..=rank)
        } else {
            (1, 2..=rank + 1)
        };
        let group = group(attrs)?;
        if w[channel].checked_mul(group) != Some(x[channel]) || !w[0].is_multiple_of(group) {
            return Err(OpError::invalid(format!(
                "a convolution of {} channels in {group} groups with a filter of {w:?}",
                x[channel]
            )));
        }
        let window = Window::new(attrs, &w[space.clone()])?;
        let input = x[space].to_vec();
        Ok(ConvShape {
            batch: x[0],
            channels: x[channel],
            filters: w[0],
            group,
            output: window.output(&input, false)?,
            input,
            window,
        })
    }

    /// Dims of the result, channels in the place where `x` has them.
    pub fn dims(&self, last: bool) -> Vec<usize> {
        let mut dims = vec![self.batch];
        dims.extend(&self.output);
        dims.insert(if last { dims.len() } else { 1 }, self.filters);
        dims
    }
}

/// Dims of a transposed convolution's result.
///
/// # Errors
/// If operands and attributes do not fit together.
pub fn transpose_dims(x: &[usize], w: &[usize], attrs: &Attrs) -> Result<Vec<usize>, OpError> {
    if x.len() != w.len() || x.len() < 3 || x[1] != w[0] || !x[1].is_multiple_of(group(attrs)?) {
        return Err(OpError::invalid(format!(
            "a transposed convolution of {x:?} with a filter of {w:?}"
        )));
    }
    let shape = TransposeShape::new(w, attrs)?;
    let filters = w[1].checked_mul(group(attrs)?);
    let too_many = || OpError::invalid(format!("{} filters in each of too many groups", w[1]));
    let mut dims = vec![x[0], filters.ok_or_else(too_many)?];
    for (axis, &extent) in x[2..].iter().enumerate() {
        dims.push(shape.output(axis, extent)?);
    }
    Ok(dims)
}

/// Strides and the rest of a transposed convolution. Its padding crops, and may be negative.
pub struct TransposeShape {
    pub kernel: Vec<usize>,
    pub strides: Vec<usize>,
    pub dilations: Vec<usize>,
    pub pads: Vec<i64>,
    output_padding: Vec<usize>,
}

impl TransposeShape {
    /// Those of a filter of dims `w`.
    ///
    /// # Errors
    /// If attributes do not fit the filter.
    pub fn new(w: &[usize], attrs: &Attrs) -> Result<Self, OpError> {
        let rank = w.len() - 2;
        let shape = TransposeShape {
            kernel: w[2..].to_vec(),
            strides: infer::window_sizes(attrs, "strides")?,
            dilations: infer::window_sizes(attrs, "dilations")?,
            pads: infer::ints(attrs, "pads")?.to_vec(),
            output_padding: infer::window_sizes(attrs, "output_padding")?,
        };
        let lists = [&shape.strides, &shape.dilations, &shape.output_padding];
        if lists.iter().any(|list| list.len() != rank) || shape.pads.len() != 2 * rank {
            return Err(OpError::invalid(format!(
                "strides {:?}, dilations {:?}, pads {:?}, output padding {:?} for {rank} spatial axes",
                shape.strides, shape.dilations, shape.pads, shape.output_padding
            )));
        }
        if shape.strides.contains(&0) || shape.dilations.contains(&0) || shape.kernel.contains(&0) {
            return Err(OpError::invalid(format!(
                "a window needs sizes above zero, found kernel {:?}, strides {:?}, dilations {:?}",
                shape.kernel, shape.strides, shape.dilations
            )));
        }
        Ok(shape)
    }

    fn output(&self, axis: usize, input: usize) -> Result<usize, OpError> {
        // A dim and a stride of 31 bits, or two pads, have no product or sum in 64.
        let wide = |value: usize| value as i128;
        let span = wide(self.kernel[axis] - 1) * wide(self.dilations[axis]) + 1;
        let full =
            wide(input.saturating_sub(1)) * wide(self.strides[axis]) + span + wide(self.output_padding[axis]);
        let cropped = i128::from(self.pads[axis]) + i128::from(self.pads[axis + self.kernel.len()]);
        let left = i64::try_from(full - cropped).ok();
        left.and_then(|left| usize::try_from(left).ok()).ok_or_else(|| {
            OpError::invalid(format!(
                "padding {cropped} leaves no axis of {full} cells of spatial axis {axis}"
            ))
        })
    }
}
