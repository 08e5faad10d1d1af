//! `GridSample` and `AffineGrid`: images read at positions that are data.

use super::arguments::sizes_operand;
use super::build::{FORM, int_attr, str_attr};
use super::sample_grid::{self, Pixels, Tap, last};
use super::{ExpandCtx, Lowering, OnnxOp, OpDef, OpError, Operands, infer};
use crate::ir::{DType, ValueId};

/// `x` at the positions in the last axis of `grid`, innermost axis first, in -1..1.
pub static GRID_SAMPLE: OpDef = OpDef {
    name: "GridSample",
    onnx: &[OnnxOp::new("GridSample")],
    operands: Operands::exactly(&["x", "grid"]),
    attrs: &[
        int_attr("align_corners", 0),
        str_attr("mode", "linear"),
        str_attr("padding_mode", "zeros"),
    ],
    lower: Lowering::Expand(grid_sample),
    ..FORM
};

/// The positions an affine map sends the points of a regular grid to.
pub static AFFINE_GRID: OpDef = OpDef {
    name: "AffineGrid",
    onnx: &[OnnxOp::new("AffineGrid")],
    operands: Operands::exactly(&["theta", "size"]),
    attrs: &[int_attr("align_corners", 0)],
    lower: Lowering::Expand(affine_grid),
    ..FORM
};

pub static OPS: &[&OpDef] = &[&GRID_SAMPLE, &AFFINE_GRID];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Nearest,
    Linear,
    Cubic,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Padding {
    Zeros,
    Border,
    Reflection,
}

/// What a `GridSample` does along one axis.
struct Axis {
    mode: Mode,
    padding: Padding,
    align_corners: bool,
    extent: usize,
    /// Kind of the weights.
    kind: DType,
}

fn mode(name: Option<&str>) -> Result<Mode, OpError> {
    match name {
        Some("nearest") => Ok(Mode::Nearest),
        // Up to opset 19, the two-dimensional names.
        Some("linear" | "bilinear") => Ok(Mode::Linear),
        Some("cubic" | "bicubic") => Ok(Mode::Cubic),
        other => Err(OpError::invalid(format!(
            "attribute `mode` must be `nearest`, `linear` or `cubic`, found `{}`",
            other.unwrap_or_default()
        ))),
    }
}

fn padding(name: Option<&str>) -> Result<Padding, OpError> {
    match name {
        Some("zeros") => Ok(Padding::Zeros),
        Some("border") => Ok(Padding::Border),
        Some("reflection") => Ok(Padding::Reflection),
        other => Err(OpError::invalid(format!(
            "attribute `padding_mode` must be `zeros`, `border` or `reflection`, found `{}`",
            other.unwrap_or_default()
        ))),
    }
}

/// Kind positions and weights are computed in.
pub fn computed_in(dtype: DType) -> DType {
    if dtype == DType::F64 {
        DType::F64
    } else {
        DType::F32
    }
}

fn grid_sample(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let (x, grid) = (ctx.value(0)?, ctx.value(1)?);
    let (mode, padding) = (
        mode(ctx.attrs.str("mode"))?,
        padding(ctx.attrs.str("padding_mode"))?,
    );
    let align_corners = infer::int(ctx.attrs, "align_corners")? != 0;
    let own = ctx.dtype_of(x);
    let kind = if mode == Mode::Nearest {
        own
    } else {
        computed_in(own)
    };
    let wide = ctx.cast(x, kind)?;
    let pixels = Pixels::new(ctx, wide)?;
    let (dims, rank) = (ctx.dims_of(grid), pixels.extents.len());
    if dims.len() != rank + 2 || dims[rank + 1] != rank {
        return Err(OpError::invalid(format!(
            "a grid of dims {dims:?} for an image with {rank} spatial axes"
        )));
    }
    let points = dims[1..=rank].iter().product();
    let grid = ctx.cast(grid, computed_in(ctx.dtype_of(grid)))?;
    let grid = ctx.reshape(grid, &[dims[0], 1, points, rank])?;
    let mut taps = Vec::new();
    for (position, &extent) in pixels.extents.iter().enumerate() {
        let axis = Axis {
            mode,
            padding,
            align_corners,
            extent,
            kind,
        };
        // Positions list the innermost axis first.
        let own = rank - 1 - position;
        let place = ctx.part(grid, 3, own..own + 1)?;
        let place = ctx.reshape(place, &[dims[0], 1, points])?;
        taps.push(axis.taps(ctx, place)?);
    }
    let sum = pixels.sum(ctx, &taps, false)?;
    let sum = ctx.cast(sum, own)?;
    let channels = ctx.dims_of(x)[1];
    let dims = [&[dims[0], channels], &dims[1..=rank]].concat();
    Ok(vec![ctx.reshape(sum, &dims)?])
}

impl Axis {
    /// The range positions are reflected into.
    fn range(&self) -> (f64, f64) {
        let margin = if self.align_corners { 0.0 } else { 0.5 };
        (-margin, last(self.extent) + margin)
    }

    /// The taps of normalised positions.
    fn taps(&self, ctx: &mut ExpandCtx<'_>, normalised: ValueId) -> Result<Vec<Tap>, OpError> {
        let mut place = self.pixel_place(ctx, normalised)?;
        if self.mode == Mode::Nearest {
            place = ctx.plain("round", &[place])?;
        }
        place = self.brought_inside(ctx, place)?;
        if self.mode == Mode::Nearest {
            return Ok(vec![self.tap(ctx, place, None)?]);
        }
        let (below, rest) = sample_grid::split(ctx, place)?;
        let rest = ctx.cast(rest, self.kind)?;
        let (first, weights) = if self.mode == Mode::Linear {
            (0.0, sample_grid::linear_weights(ctx, rest)?.to_vec())
        } else {
            (-1.0, sample_grid::cubic_weights(ctx, rest)?.to_vec())
        };
        let mut place = ctx.with_number("add", below, first)?;
        let mut taps = Vec::new();
        for weight in weights {
            taps.push(self.tap(ctx, place, Some(weight))?);
            place = ctx.with_number("add", place, 1.0)?;
        }
        Ok(taps)
    }

    /// From -1..1 to pixels.
    fn pixel_place(&self, ctx: &mut ExpandCtx<'_>, normalised: ValueId) -> Result<ValueId, OpError> {
        let from_zero = ctx.with_number("add", normalised, 1.0)?;
        if self.align_corners {
            let half = ctx.with_number("div", from_zero, 2.0)?;
            return ctx.with_number("mul", half, last(self.extent));
        }
        let scaled = ctx.with_number("mul", from_zero, last(self.extent) + 1.0)?;
        let centred = ctx.with_number("sub", scaled, 1.0)?;
        ctx.with_number("div", centred, 2.0)
    }

    /// Positions outside of the image, where the padding reads from; the others as they are.
    fn brought_inside(&self, ctx: &mut ExpandCtx<'_>, place: ValueId) -> Result<ValueId, OpError> {
        let moved = match self.padding {
            Padding::Zeros => return Ok(place),
            Padding::Border => ctx.clamp(place, 0.0, last(self.extent))?,
            Padding::Reflection => self.reflected(ctx, place)?,
        };
        let (low, high) = self.range();
        let (below, above) = (
            ctx.with_number("less", place, low)?,
            ctx.with_number("greater", place, high)?,
        );
        let outside = ctx.binary("or", below, above)?;
        ctx.select(outside, moved, place)
    }

    /// Up and down between the borders: the distance from the lower one, modulo a round trip.
    fn reflected(&self, ctx: &mut ExpandCtx<'_>, place: ValueId) -> Result<ValueId, OpError> {
        let (low, high) = self.range();
        let span = high - low;
        if span <= 0.0 {
            return ctx.clamp(place, low, high);
        }
        let distance = ctx.with_number("sub", place, low)?;
        let distance = ctx.with_number("mod_floor", distance, 2.0 * span)?;
        let round_trip = ctx.scalar(ctx.dtype_of(place), 2.0 * span);
        let back = ctx.binary("sub", round_trip, distance)?;
        let nearer = ctx.binary("min", distance, back)?;
        ctx.with_number("add", nearer, low)
    }

    /// The pixel at a whole number.
    fn tap(&self, ctx: &mut ExpandCtx<'_>, place: ValueId, weight: Option<ValueId>) -> Result<Tap, OpError> {
        match self.padding {
            Padding::Zeros => sample_grid::zero_padded(ctx, place, weight, self.extent),
            Padding::Border => sample_grid::clamped(ctx, place, weight, self.extent),
            Padding::Reflection => {
                let place = self.reflected(ctx, place)?;
                sample_grid::clamped(ctx, place, weight, self.extent)
            }
        }
    }
}

/// The regular grid is a constant matrix, innermost axis first and a one last, so that the map
/// is one matrix product.
fn affine_grid(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let theta = ctx.value(0)?;
    let size = sizes_operand(ctx, 1)?;
    let dtype = ctx.dtype_of(theta);
    let [n, _, extents @ ..] = size.as_slice() else {
        return Err(OpError::invalid(format!("a grid for an image of dims {size:?}")));
    };
    let rank = extents.len();
    if !(2..=3).contains(&rank) || ctx.dims_of(theta) != [*n, rank, rank + 1] {
        return Err(OpError::invalid(format!(
            "a grid for an image of dims {size:?} by maps of `{}`",
            ctx.graph.ty(theta)
        )));
    }
    let align_corners = infer::int(ctx.attrs, "align_corners")? != 0;
    let points = infer::table_entries(extents)?;
    let mut values = Vec::with_capacity(points * (rank + 1));
    for point in 0..points {
        let mut rest = point;
        for &extent in extents.iter().rev() {
            values.push(regular(rest % extent, extent, align_corners));
            rest /= extent;
        }
        values.push(1.0);
    }
    let grid = ctx.numbers(dtype, &[points, rank + 1], &values);
    let maps = ctx.transpose(theta, &[0, 2, 1])?;
    let moved = ctx.binary("matmul", grid, maps)?;
    let dims = [&[*n], extents, &[rank]].concat();
    Ok(vec![ctx.reshape(moved, &dims)?])
}

/// Point `position` of `extent` points that span -1..1, at its ends or in the middle of parts.
#[expect(clippy::cast_precision_loss, reason = "extents are far below 2^53")]
fn regular(position: usize, extent: usize, align_corners: bool) -> f64 {
    let (position, extent) = (position as f64, extent as f64);
    if !align_corners {
        (2.0 * position + 1.0) / extent - 1.0
    } else if extent > 1.0 {
        2.0 * position / (extent - 1.0) - 1.0
    } else {
        -1.0
    }
}
