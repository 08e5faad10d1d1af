//! `DeformConv`: a convolution whose filter reads at offsets that are data.

use super::build::{FORM, int_attr, optional_attr};
use super::grid_forms::computed_in;
use super::sample_grid::{self, Pixels};
use super::window::Window;
use super::{AttrKind, ExpandCtx, Lowering, OnnxOp, OpDef, OpError, Operands, infer};
use crate::ir::ValueId;

/// Deformable convolution: the samples are gathered and weighed, then multiplied as matrices.
pub static DEFORM_CONV: OpDef = OpDef {
    name: "DeformConv",
    onnx: &[OnnxOp::new("DeformConv")],
    operands: Operands::with_optional(&["x", "w", "offset"], &["bias", "mask"]),
    attrs: &[
        optional_attr("dilations", AttrKind::Ints),
        int_attr("group", 1),
        optional_attr("kernel_shape", AttrKind::Ints),
        int_attr("offset_group", 1),
        optional_attr("pads", AttrKind::Ints),
        optional_attr("strides", AttrKind::Ints),
    ],
    lower: Lowering::Expand(deform_conv),
    ..FORM
};

pub static OPS: &[&OpDef] = &[&DEFORM_CONV];

/// The extents everything else is reshaped by.
struct Shapes {
    batch: usize,
    channels: usize,
    filters: usize,
    groups: usize,
    offset_groups: usize,
    kernel: Vec<usize>,
    output: Vec<usize>,
}

impl Shapes {
    fn read(ctx: &ExpandCtx<'_>) -> Result<Self, OpError> {
        let dims = [0, 1, 2].map(|n| ctx.value(n).map(|value| ctx.dims_of(value)));
        let [x, w, offset] = dims;
        let (x, w, offset) = (x?, w?, offset?);
        let count = |name: &str| {
            usize::try_from(infer::int(ctx.attrs, name)?)
                .ok()
                .filter(|&count| count > 0)
                .ok_or_else(|| OpError::invalid(format!("attribute `{name}` must be positive")))
        };
        let (groups, offset_groups) = (count("group")?, count("offset_group")?);
        let rank = x.len().saturating_sub(2);
        let fits = rank > 0
            && w.len() == x.len()
            && offset.len() == x.len()
            && w[1].checked_mul(groups) == Some(x[1])
            && w[0].is_multiple_of(groups)
            && x[1].is_multiple_of(offset_groups)
            && Some(offset[1]) == offset_groups.checked_mul(rank * w[2..].iter().product::<usize>());
        if !fits {
            return Err(OpError::invalid(format!(
                "a deformable convolution of {x:?} with a filter of {w:?} and offsets of {offset:?}"
            )));
        }
        Ok(Shapes {
            batch: x[0],
            channels: x[1],
            filters: w[0],
            groups,
            offset_groups,
            kernel: w[2..].to_vec(),
            output: offset[2..].to_vec(),
        })
    }

    fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    fn places(&self) -> usize {
        self.output.iter().product()
    }
}

fn deform_conv(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let shapes = Shapes::read(ctx)?;
    let (x, w, offset) = (ctx.value(0)?, ctx.value(1)?, ctx.value(2)?);
    let own = ctx.dtype_of(x);
    let kind = computed_in(own);
    let (x, w, offset) = (ctx.cast(x, kind)?, ctx.cast(w, kind)?, ctx.cast(offset, kind)?);
    let mut samples = sampled(ctx, &shapes, x, offset)?;
    if let Some(mask) = ctx.optional(4) {
        let mask = ctx.cast(mask, kind)?;
        samples = masked(ctx, &shapes, samples, mask)?;
    }
    let (groups, depth) = (shapes.groups, shapes.channels / shapes.groups * shapes.taps());
    let columns = ctx.reshape(samples, &[shapes.batch, groups, depth, shapes.places()])?;
    let w = ctx.reshape(w, &[groups, shapes.filters / groups, depth])?;
    let product = ctx.binary("matmul", w, columns)?;
    let mut product = ctx.reshape(product, &[shapes.batch, shapes.filters, shapes.places()])?;
    if let Some(bias) = ctx.optional(3) {
        let bias = ctx.cast(bias, kind)?;
        let bias = ctx.along_axis(bias, 1, 3)?;
        product = ctx.binary("add", product, bias)?;
    }
    let dims = [&[shapes.batch, shapes.filters], shapes.output.as_slice()].concat();
    let product = ctx.reshape(product, &dims)?;
    Ok(vec![ctx.cast(product, own)?])
}

/// Every tap at every place: `[n, c, taps * places]`.
fn sampled(
    ctx: &mut ExpandCtx<'_>,
    shapes: &Shapes,
    x: ValueId,
    offset: ValueId,
) -> Result<ValueId, OpError> {
    let pixels = Pixels::new(ctx, x)?;
    let window = Window::from_onnx(ctx.attrs, &shapes.kernel, &pixels.extents)?;
    if window.output(&pixels.extents, false)? != shapes.output {
        return Err(OpError::invalid(format!(
            "offsets for {:?} places, where the windows have others",
            shapes.output
        )));
    }
    let (taps, places, rank) = (shapes.taps(), shapes.places(), shapes.kernel.len());
    let groups = shapes.batch * shapes.offset_groups;
    let offset = ctx.reshape(offset, &[groups, taps, rank, places])?;
    infer::table_entries(&[taps, places])?;
    let mut axes = Vec::new();
    for axis in 0..rank {
        let own = ctx.part(offset, 2, axis..axis + 1)?;
        let own = ctx.reshape(own, &[groups, taps, places])?;
        let regular = regular_places(shapes, &window, axis);
        let regular = ctx.numbers(ctx.dtype_of(own), &[taps, places], &regular);
        let place = ctx.binary("add", own, regular)?;
        let place = ctx.reshape(place, &[shapes.batch, shapes.offset_groups, taps * places])?;
        axes.push(sample_grid::linear_zero_padded(ctx, place, pixels.extents[axis])?);
    }
    pixels.sum(ctx, &axes, false)
}

/// Where the taps of a plain convolution lie along one axis, `[taps, places]`.
#[expect(clippy::cast_precision_loss, reason = "extents are far below 2^53")]
fn regular_places(shapes: &Shapes, window: &Window, axis: usize) -> Vec<f64> {
    let coordinate = |position: usize, dims: &[usize]| {
        let inner: usize = dims[axis + 1..].iter().product();
        position / inner % dims[axis]
    };
    let mut values = Vec::with_capacity(shapes.taps() * shapes.places());
    for tap in 0..shapes.taps() {
        for place in 0..shapes.places() {
            let tap = coordinate(tap, &shapes.kernel) * window.dilations[axis];
            let start = coordinate(place, &shapes.output) * window.strides[axis];
            values.push((tap + start) as f64 - window.pads_begin[axis] as f64);
        }
    }
    values
}

/// Samples times a factor that the channels of an offset group share.
fn masked(
    ctx: &mut ExpandCtx<'_>,
    shapes: &Shapes,
    samples: ValueId,
    mask: ValueId,
) -> Result<ValueId, OpError> {
    let (groups, points) = (shapes.offset_groups, shapes.taps() * shapes.places());
    let mask = ctx.reshape(mask, &[shapes.batch, groups, 1, points])?;
    let split = ctx.reshape(samples, &[shapes.batch, groups, shapes.channels / groups, points])?;
    ctx.binary("mul", split, mask)
}
