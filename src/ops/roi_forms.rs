//! Pooling over regions whose corners are data: `RoiAlign` and `MaxRoiPool`.

use super::build::{FORM, float_attr, int_attr, optional_attr, required_attr, str_attr};
use super::evaluate::to_vec;
use super::grid_forms::computed_in;
use super::sample_grid::{self, Pixels, Tap, last};
use super::{AttrKind, ExpandCtx, Lowering, OnnxOp, OpDef, OpError, Operands, infer};
use crate::ir::{DType, ValueId};

/// The mean or the largest of points between pixels, for every part of every region.
pub static ROI_ALIGN: OpDef = OpDef {
    name: "RoiAlign",
    onnx: &[OnnxOp::new("RoiAlign")],
    operands: Operands::exactly(&["x", "rois", "batch_indices"]),
    attrs: &[
        optional_attr("coordinate_transformation_mode", AttrKind::Str),
        str_attr("mode", "avg"),
        int_attr("output_height", 1),
        int_attr("output_width", 1),
        int_attr("sampling_ratio", 0),
        float_attr("spatial_scale", 1.0),
    ],
    lower: Lowering::Expand(roi_align),
    ..FORM
};

/// The largest pixel of every part of every region, whose corners are whole pixels.
pub static MAX_ROI_POOL: OpDef = OpDef {
    name: "MaxRoiPool",
    onnx: &[OnnxOp::new("MaxRoiPool")],
    operands: Operands::exactly(&["x", "rois"]),
    attrs: &[
        required_attr("pooled_shape", AttrKind::Ints),
        float_attr("spatial_scale", 1.0),
    ],
    lower: Lowering::Expand(max_roi_pool),
    ..FORM
};

pub static OPS: &[&OpDef] = &[&ROI_ALIGN, &MAX_ROI_POOL];

/// One axis of a set of regions, as `[rois, 1]` values.
struct Side {
    start: ValueId,
    /// Length of one part.
    part: ValueId,
    n_parts: usize,
    extent: usize,
}

fn roi_align(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let (x, rois, batch) = (ctx.value(0)?, ctx.value(1)?, ctx.value(2)?);
    let own = ctx.dtype_of(x);
    let kind = computed_in(own);
    if ctx.dims_of(x).len() != 4 || ctx.dims_of(rois).get(1) != Some(&4) {
        return Err(OpError::invalid(format!(
            "regions `{}` of an image `{}`",
            ctx.graph.ty(rois),
            ctx.graph.ty(x)
        )));
    }
    let max = match ctx.attrs.str("mode") {
        Some("avg") => false,
        Some("max") => true,
        other => {
            return Err(OpError::invalid(format!(
                "attribute `mode` must be `avg` or `max`, found `{}`",
                other.unwrap_or_default()
            )));
        }
    };
    let (x, rois) = (ctx.cast(x, kind)?, ctx.cast(rois, kind)?);
    let images = ctx.gathered("gather", x, batch, 0)?;
    let sides = [side(ctx, x, rois, 0)?, side(ctx, x, rois, 1)?];
    let ratio = usize::try_from(infer::int(ctx.attrs, "sampling_ratio")?).unwrap_or(0);
    let result = if ratio > 0 {
        pooled(ctx, images, &sides, [ratio; 2], max)?
    } else {
        adaptive(ctx, images, rois, &sides, max)?
    };
    Ok(vec![ctx.cast(result, own)?])
}

/// Axis `axis` (height, width) of regions of columns `x1, y1, x2, y2`.
fn side(ctx: &mut ExpandCtx<'_>, x: ValueId, rois: ValueId, axis: usize) -> Result<Side, OpError> {
    let half_pixel = half_pixel(ctx);
    let scale = infer::float(ctx.attrs, "spatial_scale")?;
    let attr = ["output_height", "output_width"][axis];
    let n_parts = usize::try_from(infer::int(ctx.attrs, attr)?)
        .ok()
        .filter(|&count| count > 0)
        .ok_or_else(|| OpError::invalid(format!("attribute `{attr}` must be positive")))?;
    let mut ends = [rois; 2];
    for (n, end) in ends.iter_mut().enumerate() {
        let column = 2 * n + 1 - axis;
        let corner = ctx.part(rois, 1, column..column + 1)?;
        *end = ctx.with_number("mul", corner, scale)?;
        if half_pixel {
            *end = ctx.with_number("sub", *end, 0.5)?;
        }
    }
    let mut length = ctx.binary("sub", ends[1], ends[0])?;
    if !half_pixel {
        length = ctx.with_number("max", length, 1.0)?;
    }
    Ok(Side {
        start: ends[0],
        part: ctx.with_number("div", length, sample_grid::last(n_parts) + 1.0)?,
        n_parts,
        extent: ctx.dims_of(x)[2 + axis],
    })
}

/// Before opset 16 corners are where they are said to be.
fn half_pixel(ctx: &ExpandCtx<'_>) -> bool {
    let default = if ctx.opset >= 16 {
        "half_pixel"
    } else {
        "output_half_pixel"
    };
    let mode = ctx.attrs.str("coordinate_transformation_mode");
    mode.unwrap_or(default) == "half_pixel"
}

/// Regions with the same number of points per part, from one image each.
fn pooled(
    ctx: &mut ExpandCtx<'_>,
    images: ValueId,
    sides: &[Side; 2],
    points: [usize; 2],
    max: bool,
) -> Result<ValueId, OpError> {
    let n = ctx.dims_of(sides[0].start)[0];
    let count = |axis: usize| infer::table_entries(&[sides[axis].n_parts, points[axis]]);
    let counts = [count(0)?, count(1)?];
    let pixels = Pixels::new(ctx, images)?;
    let mut taps = Vec::new();
    for axis in 0..2 {
        let place = places(ctx, &sides[axis], points[axis])?;
        let mut dims = [n, 1, 1];
        dims[1 + axis] = counts[axis];
        let place = ctx.reshape(place, &dims)?;
        let place = ctx.expand(place, &[n, counts[0], counts[1]])?;
        let place = ctx.reshape(place, &[n, 1, counts[0] * counts[1]])?;
        taps.push(point_taps(ctx, place, sides[axis].extent)?);
    }
    let values = pixels.sum(ctx, &taps, max)?;
    let channels = ctx.dims_of(values)[1];
    let [rows, columns] = [0, 1].map(|axis| sides[axis].n_parts);
    let values = ctx.reshape(values, &[n, channels, rows, points[0], columns, points[1]])?;
    ctx.dropped(if max { "reduce_max" } else { "reduce_mean" }, values, &[3, 5])
}

/// The points of all parts along one axis, `[rois, parts * points]`.
#[expect(clippy::cast_precision_loss, reason = "counts are small")]
fn places(ctx: &mut ExpandCtx<'_>, side: &Side, points: usize) -> Result<ValueId, OpError> {
    let offsets: Vec<f64> = (0..side.n_parts * points)
        .map(|n| (n / points) as f64 + ((n % points) as f64 + 0.5) / points as f64)
        .collect();
    let offsets = ctx.numbers(ctx.dtype_of(side.start), &[offsets.len()], &offsets);
    let from_start = ctx.binary("mul", side.part, offsets)?;
    ctx.binary("add", side.start, from_start)
}

/// Points up to one pixel outside read the edge; those beyond are zero.
fn point_taps(ctx: &mut ExpandCtx<'_>, place: ValueId, extent: usize) -> Result<Vec<Tap>, OpError> {
    let (low, high) = (
        ctx.with_number("greater_equal", place, -1.0)?,
        ctx.with_number("less_equal", place, last(extent) + 1.0)?,
    );
    let inside = Some(ctx.binary("and", low, high)?);
    let place = ctx.clamp(place, 0.0, last(extent))?;
    let (below, rest) = sample_grid::split(ctx, place)?;
    let weights = sample_grid::linear_weights(ctx, rest)?;
    let above = ctx.with_number("add", below, 1.0)?;
    let mut taps = Vec::new();
    for (place, weight) in [below, above].into_iter().zip(weights) {
        let tap = sample_grid::clamped(ctx, place, Some(weight), extent)?;
        taps.push(Tap { inside, ..tap });
    }
    Ok(taps)
}

/// Regions with about one point per pixel: their number depends on each region's size.
fn adaptive(
    ctx: &mut ExpandCtx<'_>,
    images: ValueId,
    rois: ValueId,
    sides: &[Side; 2],
    max: bool,
) -> Result<ValueId, OpError> {
    let Some(corners) = ctx.graph.weight(rois).cloned().or(ctx.constant(1)?) else {
        return Err(OpError::NeedsConstant { operand: 1 });
    };
    let corners: Vec<f64> = to_vec(&corners);
    let scale = infer::float(ctx.attrs, "spatial_scale")?;
    let half_pixel = half_pixel(ctx);
    let dims = ctx.dims_of(images);
    let mut results = Vec::new();
    for (n, corner) in corners.chunks(4).enumerate() {
        let points = [0, 1].map(|axis| {
            let length = (corner[3 - axis] - corner[1 - axis]) * scale;
            let length = if half_pixel { length } else { length.max(1.0) };
            n_points(length, sides[axis].n_parts)
        });
        let image = ctx.part(images, 0, n..n + 1)?;
        let mut own = Vec::new();
        for side in sides {
            own.push(Side {
                start: ctx.part(side.start, 0, n..n + 1)?,
                part: ctx.part(side.part, 0, n..n + 1)?,
                ..*side
            });
        }
        let own: [Side; 2] = own
            .try_into()
            .map_err(|_| OpError::invalid("an image has two sides"))?;
        results.push(if points.contains(&0) {
            ctx.filled(
                ctx.dtype_of(images),
                &[1, dims[1], sides[0].n_parts, sides[1].n_parts],
                0.0,
            )
        } else {
            pooled(ctx, image, &own, points, max)?
        });
    }
    if results.is_empty() {
        return Ok(ctx.filled(
            ctx.dtype_of(images),
            &[0, dims[1], sides[0].n_parts, sides[1].n_parts],
            0.0,
        ));
    }
    ctx.joined(&results, 0)
}

/// Points along one side of a part: its length rounded up.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "limited to 0..=1024, which is more than an image has"
)]
fn n_points(length: f64, n_parts: usize) -> usize {
    (length / n_parts as f64).ceil().clamp(0.0, 1024.0) as usize
}

/// Every pixel asks which parts it belongs to, first along rows, then along columns.
fn max_roi_pool(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let (x, rois) = (ctx.value(0)?, ctx.value(1)?);
    let (dims, dtype) = (ctx.dims_of(x), ctx.dtype_of(x));
    let parts = infer::sizes(ctx.attrs, "pooled_shape")?;
    let (&[_, channels, height, width], &[rows, columns], Some(5)) = (
        dims.as_slice(),
        parts.as_slice(),
        ctx.dims_of(rois).get(1).copied(),
    ) else {
        return Err(OpError::invalid(format!(
            "regions `{}` of an image `{}` in {parts:?} parts",
            ctx.graph.ty(rois),
            ctx.graph.ty(x)
        )));
    };
    let n = ctx.dims_of(rois)[0];
    let batch = ctx.part(rois, 1, 0..1)?;
    let batch = ctx.reshape(batch, &[n])?;
    let batch = ctx.cast(batch, DType::I64)?;
    let images = ctx.gathered("gather", x, batch, 0)?;
    let lowest = ctx.scalar(dtype, f64::NEG_INFINITY);
    let belongs = part_pixels(ctx, rois, [1, 3], columns, width)?;
    let belongs = ctx.reshape(belongs, &[n, 1, 1, columns, width])?;
    let images = ctx.reshape(images, &[n, channels, height, 1, width])?;
    let spread = ctx.select(belongs, images, lowest)?;
    let by_row = ctx.dropped("reduce_max", spread, &[4])?;
    let belongs = part_pixels(ctx, rois, [2, 4], rows, height)?;
    let belongs = ctx.reshape(belongs, &[n, 1, rows, height, 1])?;
    let by_row = ctx.reshape(by_row, &[n, channels, 1, height, columns])?;
    let spread = ctx.select(belongs, by_row, lowest)?;
    let result = ctx.dropped("reduce_max", spread, &[3])?;
    // A part without pixels is zero.
    let empty = ctx.binary("equal", result, lowest)?;
    let zero = ctx.scalar(dtype, 0.0);
    Ok(vec![ctx.select(empty, zero, result)?])
}

/// Which pixels belong to which part along one axis: `[rois, parts, extent]`.
fn part_pixels(
    ctx: &mut ExpandCtx<'_>,
    rois: ValueId,
    columns: [usize; 2],
    n_parts: usize,
    extent: usize,
) -> Result<ValueId, OpError> {
    let scale = infer::float(ctx.attrs, "spatial_scale")?;
    let rois = ctx.cast(rois, computed_in(ctx.dtype_of(rois)))?;
    let kind = ctx.dtype_of(rois);
    let mut ends = [rois; 2];
    for (end, column) in ends.iter_mut().zip(columns) {
        let corner = ctx.part(rois, 1, column..column + 1)?;
        let corner = ctx.reshape(corner, &[ctx.dims_of(rois)[0], 1, 1])?;
        let scaled = ctx.with_number("mul", corner, scale)?;
        // Halves round away from zero; corners are not negative.
        let shifted = ctx.with_number("add", scaled, 0.5)?;
        *end = ctx.plain("floor", &[shifted])?;
    }
    let length = ctx.binary("sub", ends[1], ends[0])?;
    let length = ctx.with_number("add", length, 1.0)?;
    let length = ctx.with_number("max", length, 1.0)?;
    let part = ctx.with_number("div", length, last(n_parts) + 1.0)?;
    let pixels = counted(ctx, kind, &[1, 1, extent], 0.0)?;
    let (first, next) = (
        counted(ctx, kind, &[1, n_parts, 1], 0.0)?,
        counted(ctx, kind, &[1, n_parts, 1], 1.0)?,
    );
    let from = ctx.binary("mul", part, first)?;
    let from = ctx.plain("floor", &[from])?;
    let from = ctx.binary("add", from, ends[0])?;
    let to = ctx.binary("mul", part, next)?;
    let to = ctx.plain("ceil", &[to])?;
    let to = ctx.binary("add", to, ends[0])?;
    let (after, before) = (
        ctx.binary("greater_equal", pixels, from)?,
        ctx.binary("less", pixels, to)?,
    );
    ctx.binary("and", after, before)
}

/// Numbers that count up from `first`.
#[expect(clippy::cast_precision_loss, reason = "extents are far below 2^53")]
fn counted(ctx: &mut ExpandCtx<'_>, kind: DType, dims: &[usize], first: f64) -> Result<ValueId, OpError> {
    let count = infer::table_entries(dims)?;
    let values: Vec<f64> = (0..count).map(|n| first + n as f64).collect();
    Ok(ctx.numbers(kind, dims, &values))
}
