//! `Resize` and `Upsample`: along every axis, each result is a weighted sum of a few operand
//! elements whose places and weights are known when the model is compiled.
//!
//! There is no resizing kernel. Repeating elements is a view, picking them is a slice or a
//! gather, a few weighted ones are gathers, multiplications and additions that fuse like all
//! others, and wide filters are a product with a matrix. See [`super::resize_taps`] for places
//! and weights.

use super::arguments::sizes_operand;
use super::arithmetic_forms::FORM;
use super::build::{axis_attr, float_attr, int_attr, optional_attr, str_attr};
use super::evaluate::{from_values, to_vec};
use super::resize_taps::{AxisTaps, Filter, Resampling, Transform};
use super::view_forms::{sliced, whole};
use super::views::AxisSlice;
use super::{AttrKind, ExpandCtx, Lowering, OnnxOp, OpDef, OpError, Operands, infer};
use crate::ir::{DType, HostTensor, ValueId};

/// More taps than this are summed by a matrix product.
const MOST_GATHERS: usize = 4;

pub static RESIZE: OpDef = OpDef {
    name: "Resize",
    onnx: &[OnnxOp::new("Resize").since(11)],
    operands: Operands::with_optional(&["x"], &["roi", "scales", "sizes"]),
    attrs: &[
        int_attr("antialias", 0),
        optional_attr("axes", AttrKind::Ints),
        str_attr("coordinate_transformation_mode", "half_pixel"),
        float_attr("cubic_coeff_a", -0.75),
        int_attr("exclude_outside", 0),
        float_attr("extrapolation_value", 0.0),
        str_attr("keep_aspect_ratio_policy", "stretch"),
        str_attr("mode", "nearest"),
        str_attr("nearest_mode", "round_prefer_floor"),
    ],
    lower: Lowering::Expand(expand_resize),
    ..FORM
};

/// `Resize` of opset 10 and `Upsample`: scales alone, positions divided by them.
pub static UPSAMPLE: OpDef = OpDef {
    name: "Upsample",
    onnx: &[
        OnnxOp::new("Upsample").since(7).until(9),
        OnnxOp::new("Resize").since(10).until(10),
    ],
    operands: Operands::with_optional(&["x"], &["scales"]),
    attrs: &[
        str_attr("mode", "nearest"),
        optional_attr("scales", AttrKind::Floats),
    ],
    lower: Lowering::Expand(expand_upsample),
    ..FORM
};

fn expand_resize(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let dims = infer::known_dims(&ctx.ty(0)?)?;
    let axes = match ctx.attrs.ints("axes") {
        Some(axes) => axes
            .iter()
            .map(|&axis| infer::normalize_axis(axis, dims.len()))
            .collect::<Result<Vec<_>, _>>()?,
        None => (0..dims.len()).collect(),
    };
    let targets = targets(ctx, &dims, &axes)?;
    let text = |name: &str| ctx.attrs.str(name).unwrap_or_default();
    let resampling = Resampling {
        transform: Transform::named(text("coordinate_transformation_mode"))?,
        filter: Filter::named(
            text("mode"),
            text("nearest_mode"),
            infer::float(ctx.attrs, "cubic_coeff_a")?,
        )?,
        antialias: infer::int(ctx.attrs, "antialias")? != 0,
        exclude_outside: infer::int(ctx.attrs, "exclude_outside")? != 0,
    };
    let roi = match resampling.transform {
        Transform::CropAndResize => region(ctx, axes.len())?,
        _ => vec![(0.0, 1.0); axes.len()],
    };
    let taps: Vec<(usize, AxisTaps)> = axes
        .iter()
        .zip(&targets)
        .zip(roi)
        .map(|((&axis, target), roi)| {
            let taps = resampling.taps(dims[axis], target.extent, target.scale, roi);
            (axis, taps)
        })
        .collect();
    let fill = infer::float(ctx.attrs, "extrapolation_value")?;
    apply(ctx, taps, fill)
}

fn expand_upsample(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let dims = infer::known_dims(&ctx.ty(0)?)?;
    let scales = match ctx.attrs.floats("scales") {
        Some(scales) => scales.to_vec(),
        None => floats(ctx, 1)?.ok_or_else(|| OpError::invalid("the scales are missing"))?,
    };
    expect_entries("scales", scales.len(), dims.len())?;
    let resampling = Resampling {
        transform: Transform::Asymmetric,
        filter: Filter::named(ctx.attrs.str("mode").unwrap_or_default(), "floor", -0.75)?,
        antialias: false,
        exclude_outside: false,
    };
    let taps = (0..dims.len())
        .map(|axis| {
            let target = Target::scaled(dims[axis], scales[axis])?;
            let taps = resampling.taps(dims[axis], target.extent, target.scale, (0.0, 1.0));
            Ok((axis, taps))
        })
        .collect::<Result<Vec<_>, OpError>>()?;
    apply(ctx, taps, 0.0)
}

/// New extent of an axis, and the factor positions are transformed with.
struct Target {
    extent: usize,
    scale: f64,
}

impl Target {
    fn scaled(extent: usize, scale: f64) -> Result<Self, OpError> {
        if !(scale > 0.0 && scale.is_finite()) {
            return Err(OpError::invalid(format!(
                "a scale must be positive, found {scale}"
            )));
        }
        // Scales are 32-bit floats and so is the product: 10 * 0.7 is 7.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "extents and scales are positive and small"
        )]
        let scaled = (extent as f32 * scale as f32).floor() as usize;
        Ok(Target {
            extent: scaled,
            scale,
        })
    }
}

fn targets(ctx: &ExpandCtx<'_>, dims: &[usize], axes: &[usize]) -> Result<Vec<Target>, OpError> {
    if let Some(scales) = floats(ctx, 2)?.filter(|scales| !scales.is_empty()) {
        expect_entries("scales", scales.len(), axes.len())?;
        return axes
            .iter()
            .zip(scales)
            .map(|(&axis, scale)| Target::scaled(dims[axis], scale))
            .collect();
    }
    let sizes = sizes_operand(ctx, 3)?;
    expect_entries("sizes", sizes.len(), axes.len())?;
    #[expect(clippy::cast_precision_loss, reason = "extents are below 2^53")]
    let scales: Vec<f64> = axes
        .iter()
        .zip(&sizes)
        .map(|(&axis, &size)| size as f64 / dims[axis] as f64)
        .collect();
    let common = match ctx.attrs.str("keep_aspect_ratio_policy") {
        Some("not_larger") => Some(scales.iter().copied().fold(f64::INFINITY, f64::min)),
        Some("not_smaller") => Some(scales.iter().copied().fold(0.0, f64::max)),
        _ => None,
    };
    Ok((0..axes.len())
        .map(|n| match common {
            Some(scale) => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_precision_loss,
                    clippy::cast_sign_loss,
                    reason = "extents are positive and small"
                )]
                let extent = (dims[axes[n]] as f64 * scale + 0.5) as usize;
                Target { extent, scale }
            }
            None => Target {
                extent: sizes[n],
                scale: scales[n],
            },
        })
        .collect())
}

fn floats(ctx: &ExpandCtx<'_>, n: usize) -> Result<Option<Vec<f64>>, OpError> {
    Ok(ctx.constant(n)?.map(|data| to_vec::<f64>(&data)))
}

fn expect_entries(what: &str, found: usize, expected: usize) -> Result<(), OpError> {
    if found == expected {
        return Ok(());
    }
    Err(OpError::invalid(format!(
        "{expected} axes need as many {what}, found {found}"
    )))
}

/// Start and end of the region of interest per axis, as fractions of its extent.
fn region(ctx: &ExpandCtx<'_>, n_axes: usize) -> Result<Vec<(f64, f64)>, OpError> {
    let roi = floats(ctx, 1)?.unwrap_or_default();
    expect_entries("starts and ends of the region", roi.len(), 2 * n_axes)?;
    Ok((0..n_axes).map(|n| (roi[n], roi[n_axes + n])).collect())
}

/// Axes that only repeat go first, as one view; the others follow one by one.
fn apply(ctx: &mut ExpandCtx<'_>, taps: Vec<(usize, AxisTaps)>, fill: f64) -> Result<Vec<ValueId>, OpError> {
    let x = ctx.value(0)?;
    let dtype = ctx.dtype_of(x);
    let dims = ctx.dims_of(x);
    let mut repeats = vec![1; dims.len()];
    let mut others = Vec::new();
    for (axis, taps) in taps {
        match taps.repeat(dims[axis]) {
            Some(times) => repeats[axis] = times,
            None => others.push((axis, taps)),
        }
    }
    let mut result = repeated(ctx, x, &repeats)?;
    let sums = others.iter().any(|(_, taps)| taps.picks().is_none());
    if sums && dtype != DType::F64 {
        result = ctx.cast(result, DType::F32)?;
    }
    for (axis, taps) in others {
        result = match taps.picks() {
            Some(picks) => picked(ctx, result, axis, &picks)?,
            None if taps.width() <= MOST_GATHERS => summed(ctx, result, axis, &taps)?,
            None => multiplied(ctx, result, axis, &taps)?,
        };
        result = filled_outside(ctx, result, axis, &taps, fill)?;
    }
    Ok(vec![ctx.cast(result, dtype)?])
}

/// Every element `repeats[n]` times in a row along axis `n`.
fn repeated(ctx: &mut ExpandCtx<'_>, x: ValueId, repeats: &[usize]) -> Result<ValueId, OpError> {
    if repeats.iter().all(|&times| times == 1) {
        return Ok(x);
    }
    let (mut split, mut expanded, mut joined) = (Vec::new(), Vec::new(), Vec::new());
    for (&extent, &times) in ctx.dims_of(x).iter().zip(repeats) {
        split.push(extent);
        expanded.push(extent);
        joined.push(extent * times);
        if times != 1 {
            split.push(1);
            expanded.push(times);
        }
    }
    let split = ctx.reshape(x, &split)?;
    let expanded = ctx.expand(split, &expanded)?;
    ctx.reshape(expanded, &joined)
}

fn picked(ctx: &mut ExpandCtx<'_>, x: ValueId, axis: usize, picks: &[i64]) -> Result<ValueId, OpError> {
    let step = match picks {
        [first, second, ..] => second - first,
        _ => 1,
    };
    let evenly = step > 0 && picks.windows(2).all(|pair| pair[1] - pair[0] == step);
    if let (true, [first, .., last]) = (evenly, picks) {
        let mut slices: Vec<AxisSlice> = ctx.dims_of(x).into_iter().map(whole).collect();
        slices[axis] = AxisSlice {
            start: *first,
            end: last + 1,
            step,
        };
        return sliced(ctx, x, &slices);
    }
    let index = ctx.weight(HostTensor::from_i64(&[picks.len()], picks));
    ctx.emit("gather", &[x, index], axis_attr(axis))
}

/// `values` laid along `axis` of a tensor of rank `rank`.
fn along(values_len: usize, axis: usize, rank: usize) -> Vec<usize> {
    let mut dims = vec![1; rank];
    dims[axis] = values_len;
    // Leading ones are left out: shapes align at their last axis.
    dims.split_off(axis)
}

fn summed(ctx: &mut ExpandCtx<'_>, x: ValueId, axis: usize, taps: &AxisTaps) -> Result<ValueId, OpError> {
    let (dtype, rank) = (ctx.dtype_of(x), ctx.dims_of(x).len());
    let mut sum: Option<ValueId> = None;
    for n in 0..taps.width() {
        let (places, weights) = taps.column(n);
        let index = ctx.weight(HostTensor::from_i64(&[places.len()], &places));
        let taken = ctx.emit("gather", &[x, index], axis_attr(axis))?;
        let weights = from_values(dtype, &along(weights.len(), axis, rank), &weights);
        let weights = ctx.weight(weights);
        let term = ctx.plain("mul", &[taken, weights])?;
        sum = Some(match sum {
            Some(sum) => ctx.plain("add", &[sum, term])?,
            None => term,
        });
    }
    sum.ok_or_else(|| OpError::invalid("nothing is resized to an axis of extent zero"))
}

fn multiplied(ctx: &mut ExpandCtx<'_>, x: ValueId, axis: usize, taps: &AxisTaps) -> Result<ValueId, OpError> {
    let dims = ctx.dims_of(x);
    let (dtype, rank, extent) = (ctx.dtype_of(x), dims.len(), dims[axis]);
    let matrix = from_values(dtype, &[extent, taps.rows.len()], &taps.matrix(extent));
    let matrix = ctx.weight(matrix);
    let mut perm: Vec<usize> = (0..rank).filter(|&own| own != axis).collect();
    perm.push(axis);
    let moved = ctx.transpose(x, &perm)?;
    let outer: usize = dims.iter().product::<usize>() / extent.max(1);
    let flat = ctx.reshape(moved, &[outer, extent])?;
    let product = ctx.plain("matmul", &[flat, matrix])?;
    let mut moved_dims: Vec<usize> = perm.iter().map(|&own| dims[own]).collect();
    moved_dims[rank - 1] = taps.rows.len();
    let product = ctx.reshape(product, &moved_dims)?;
    let mut back = vec![0; rank];
    for (position, &own) in perm.iter().enumerate() {
        back[own] = position;
    }
    ctx.transpose(product, &back)
}

/// `fill` where a position lies outside of the operand.
fn filled_outside(
    ctx: &mut ExpandCtx<'_>,
    x: ValueId,
    axis: usize,
    taps: &AxisTaps,
    fill: f64,
) -> Result<ValueId, OpError> {
    if !taps.outside.contains(&true) {
        return Ok(x);
    }
    let rank = ctx.dims_of(x).len();
    let outside: Vec<i64> = taps.outside.iter().map(|&outside| i64::from(outside)).collect();
    let mask = from_values(DType::Bool, &along(outside.len(), axis, rank), &outside);
    let mask = ctx.weight(mask);
    let fill = ctx.scalar(ctx.dtype_of(x), fill);
    ctx.plain("where", &[mask, fill, x])
}

pub static OPS: &[&OpDef] = &[&RESIZE, &UPSAMPLE];
