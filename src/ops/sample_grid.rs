//! Reading between pixels: the taps and weights of a position, which `GridSample`, `RoiAlign`
//! and `DeformConv` share. Positions are data, so taps are gathered by computed indices.

use super::{ExpandCtx, OpError};
use crate::ir::{DType, ValueId};

/// Values to read from: `[n, c, spatial..]` with the spatial axes flattened.
pub struct Pixels {
    /// `[n, c, volume]`.
    flat: ValueId,
    n: usize,
    channels: usize,
    pub extents: Vec<usize>,
}

/// One tap along an axis: where it reads and what it counts. Tensors of `[n, groups, points]`.
#[derive(Clone, Copy)]
pub struct Tap {
    /// Position inside the axis, `i64`.
    pub index: ValueId,
    /// `None` counts one.
    pub weight: Option<ValueId>,
    /// Where it lies inside; `None` everywhere.
    pub inside: Option<ValueId>,
}

impl Pixels {
    /// # Errors
    /// If `x` has no spatial axes, or none of their pixels.
    pub fn new(ctx: &mut ExpandCtx<'_>, x: ValueId) -> Result<Self, OpError> {
        let dims = ctx.dims_of(x);
        let [n, channels, extents @ ..] = dims.as_slice() else {
            return Err(OpError::invalid(format!(
                "expected an image, found dims {dims:?}"
            )));
        };
        if extents.is_empty() || extents.contains(&0) {
            return Err(OpError::invalid(format!(
                "an image of dims {dims:?} has no pixels"
            )));
        }
        let flat = ctx.reshape(x, &[*n, *channels, extents.iter().product()])?;
        Ok(Pixels {
            flat,
            n: *n,
            channels: *channels,
            extents: extents.to_vec(),
        })
    }

    /// The weighted sum over all combinations of one tap per axis, `[n, c, points]`. With `max`
    /// it is the largest of the weighted taps instead.
    ///
    /// # Errors
    /// If the taps do not fit the pixels.
    pub fn sum(&self, ctx: &mut ExpandCtx<'_>, taps: &[Vec<Tap>], max: bool) -> Result<ValueId, OpError> {
        let n_combinations: usize = taps.iter().map(Vec::len).product();
        let mut sum = None;
        for combination in 0..n_combinations {
            let mut rest = combination;
            let picked: Vec<Tap> = (taps.iter())
                .map(|choices| {
                    let tap = choices[rest % choices.len()];
                    rest /= choices.len();
                    tap
                })
                .collect();
            let term = self.term(ctx, &picked)?;
            sum = Some(match sum {
                Some(sum) => ctx.binary(if max { "max" } else { "add" }, sum, term)?,
                None => term,
            });
        }
        sum.ok_or_else(|| OpError::invalid("a position without axes"))
    }

    /// One pixel per position, times its weight.
    fn term(&self, ctx: &mut ExpandCtx<'_>, taps: &[Tap]) -> Result<ValueId, OpError> {
        let (mut index, mut weight, mut inside) = (None, None, None);
        for (tap, &extent) in taps.iter().zip(&self.extents) {
            index = Some(match index {
                Some(outer) => {
                    let extent = ctx.integers(&[], &[signed(extent)]);
                    let row = ctx.binary("mul", outer, extent)?;
                    ctx.binary("add", row, tap.index)?
                }
                None => tap.index,
            });
            weight = merged(ctx, "mul", weight, tap.weight)?;
            inside = merged(ctx, "and", inside, tap.inside)?;
        }
        let index = index.ok_or_else(|| OpError::invalid("a position without axes"))?;
        let mut value = self.picked(ctx, index)?;
        if let Some(inside) = inside {
            let (inside, zero) = (
                self.per_channel(ctx, inside)?,
                ctx.scalar(ctx.dtype_of(value), 0.0),
            );
            value = ctx.select(inside, value, zero)?;
        }
        match weight {
            Some(weight) => {
                let weight = self.per_channel(ctx, weight)?;
                ctx.binary("mul", value, weight)
            }
            None => Ok(value),
        }
    }

    /// The pixels at flat indices `[n, groups, points]`.
    fn picked(&self, ctx: &mut ExpandCtx<'_>, index: ValueId) -> Result<ValueId, OpError> {
        let index = self.per_channel(ctx, index)?;
        let points = ctx.dims_of(index)[2];
        let index = ctx.expand(index, &[self.n, self.channels, points])?;
        ctx.gathered("gather_elements", self.flat, index, 2)
    }

    /// A value of `[n, groups, points]` for every channel of its group.
    fn per_channel(&self, ctx: &mut ExpandCtx<'_>, value: ValueId) -> Result<ValueId, OpError> {
        let dims = ctx.dims_of(value);
        let (groups, points) = (dims[1], dims[2]);
        if groups == 1 || groups == self.channels {
            return Ok(value);
        }
        let split = ctx.reshape(value, &[dims[0], groups, 1, points])?;
        let repeated = ctx.expand(split, &[dims[0], groups, self.channels / groups, points])?;
        ctx.reshape(repeated, &[dims[0], self.channels, points])
    }
}

fn signed(extent: usize) -> i64 {
    i64::try_from(extent).expect("extents fit in i64")
}

fn merged(
    ctx: &mut ExpandCtx<'_>,
    op: &'static str,
    a: Option<ValueId>,
    b: Option<ValueId>,
) -> Result<Option<ValueId>, OpError> {
    match (a, b) {
        (Some(a), Some(b)) => ctx.binary(op, a, b).map(Some),
        (one, None) | (None, one) => Ok(one),
    }
}

/// A whole number as a tap that counts `weight`; outside of the axis it counts nothing.
///
/// # Errors
/// If the kind of `place` is no float.
pub fn zero_padded(
    ctx: &mut ExpandCtx<'_>,
    place: ValueId,
    weight: Option<ValueId>,
    extent: usize,
) -> Result<Tap, OpError> {
    let last = last(extent);
    let (low, high) = (
        ctx.with_number("greater_equal", place, 0.0)?,
        ctx.with_number("less_equal", place, last)?,
    );
    let inside = ctx.binary("and", low, high)?;
    let tap = clamped(ctx, place, weight, extent)?;
    Ok(Tap {
        inside: Some(inside),
        ..tap
    })
}

/// A whole number as a tap that counts `weight`; beyond the axis it reads the nearest pixel.
///
/// # Errors
/// If the kind of `place` is no float.
pub fn clamped(
    ctx: &mut ExpandCtx<'_>,
    place: ValueId,
    weight: Option<ValueId>,
    extent: usize,
) -> Result<Tap, OpError> {
    let place = ctx.clamp(place, 0.0, last(extent))?;
    Ok(Tap {
        // NaN becomes a place like any other, so that no index leaves the axis.
        index: index_of(ctx, place, extent)?,
        weight,
        inside: None,
    })
}

fn index_of(ctx: &mut ExpandCtx<'_>, place: ValueId, extent: usize) -> Result<ValueId, OpError> {
    let index = ctx.cast(place, DType::I64)?;
    ctx.clamp(index, 0.0, last(extent))
}

/// The last position of an axis, as a float.
#[expect(clippy::cast_precision_loss, reason = "extents are far below 2^53")]
pub fn last(extent: usize) -> f64 {
    extent.max(1) as f64 - 1.0
}

/// `place` rounded down, and how far it lies beyond that.
///
/// # Errors
/// If the kind of `place` is no float.
pub fn split(ctx: &mut ExpandCtx<'_>, place: ValueId) -> Result<(ValueId, ValueId), OpError> {
    let below = ctx.plain("floor", &[place])?;
    let rest = ctx.binary("sub", place, below)?;
    Ok((below, rest))
}

/// The two neighbours of a position, zero outside of the axis.
///
/// # Errors
/// If the kind of `place` is no float.
pub fn linear_zero_padded(
    ctx: &mut ExpandCtx<'_>,
    place: ValueId,
    extent: usize,
) -> Result<Vec<Tap>, OpError> {
    let (below, rest) = split(ctx, place)?;
    let [near, far] = linear_weights(ctx, rest)?;
    let above = ctx.with_number("add", below, 1.0)?;
    Ok(vec![
        zero_padded(ctx, below, Some(near), extent)?,
        zero_padded(ctx, above, Some(far), extent)?,
    ])
}

/// Weights of the pixels below and above a position that lies `rest` beyond the lower one.
///
/// # Errors
/// If the kind of `rest` is no float.
pub fn linear_weights(ctx: &mut ExpandCtx<'_>, rest: ValueId) -> Result<[ValueId; 2], OpError> {
    let one = ctx.scalar(ctx.dtype_of(rest), 1.0);
    Ok([ctx.binary("sub", one, rest)?, rest])
}

/// Weights of the two pixels before and the two after a position, by Keys' cubic with -0.75.
///
/// # Errors
/// If the kind of `rest` is no float.
pub fn cubic_weights(ctx: &mut ExpandCtx<'_>, rest: ValueId) -> Result<[ValueId; 4], OpError> {
    const A: f64 = -0.75;
    let other = linear_weights(ctx, rest)?[0];
    let near = [A + 2.0, -(A + 3.0), 0.0, 1.0];
    // In terms of the distance minus one, which is `rest` or what remains of it.
    let far = [A, -2.0 * A, A, 0.0];
    Ok([
        polynomial(ctx, rest, &far)?,
        polynomial(ctx, rest, &near)?,
        polynomial(ctx, other, &near)?,
        polynomial(ctx, other, &far)?,
    ])
}

/// By Horner's rule, highest power first.
fn polynomial(ctx: &mut ExpandCtx<'_>, x: ValueId, coefficients: &[f64]) -> Result<ValueId, OpError> {
    let mut value = ctx.scalar(ctx.dtype_of(x), coefficients[0]);
    for &coefficient in &coefficients[1..] {
        let scaled = ctx.binary("mul", value, x)?;
        value = ctx.with_number("add", scaled, coefficient)?;
    }
    Ok(value)
}
