//! Convolutions. The reference is in [`super::conv_eval`], the ONNX forms in
//! [`super::conv_forms`].
//!
//! A convolution's expression is one reduction whose variables are the window's cells and the
//! channel, with all padding in one selection around the read of `x`: the matrix templates
//! recognise exactly this.

use super::build::{int_attr, required_attr};
use super::conv_eval;
use super::samples::{Draw, ints_attr, sample};
use super::window::Window;
use super::{
    AttrDef, AttrKind, InferCtx, Lowering, OpDef, OpError, Operands, Sample, TileKind, Tolerance, infer,
};
use crate::ir::{Attr, Attrs, DType, TensorType};
use crate::tile::{Cond, ExprId, Extent, Index, ReduceOp, TileCtx};

const ATTRS: &[AttrDef] = &[
    required_attr("strides", AttrKind::Ints),
    required_attr("pads", AttrKind::Ints),
    required_attr("dilations", AttrKind::Ints),
    int_attr("group", 1),
];

/// Convolution of `x[n, c, ..]` with `w[k, c / group, ..]`, plus `bias[k]`.
pub static CONV: OpDef = OpDef {
    name: "conv",
    onnx: &[],
    operands: Operands::with_optional(&["x", "w"], &["bias"]),
    attrs: ATTRS,
    infer: |ctx| infer_conv(ctx, false),
    eval: conv_eval::conv,
    lower: Lowering::Tile(TileKind::Window, tile_conv),
    samples: |seed| draw_conv(seed, false),
    tolerance: Tolerance::Accumulated,
    halves: None,
};

/// Convolution of `x[n, h, w, c]` with `w[k, r, s, c / group]`, plus `bias[k]`.
pub static CONV_NHWC: OpDef = OpDef {
    name: "conv_nhwc",
    onnx: &[],
    operands: Operands::with_optional(&["x", "w"], &["bias"]),
    attrs: ATTRS,
    infer: |ctx| infer_conv(ctx, true),
    eval: conv_eval::conv_nhwc,
    lower: Lowering::Tile(TileKind::Window, tile_conv_nhwc),
    samples: |seed| draw_conv(seed, true),
    tolerance: Tolerance::Accumulated,
    halves: None,
};

/// Transposed convolution of `x[n, c, ..]` with `w[c, k / group, ..]`, plus `bias[k]`.
/// `output_padding` adds cells at the end of each axis; padding may be negative.
pub static CONV_TRANSPOSE: OpDef = OpDef {
    name: "conv_transpose",
    onnx: &[],
    operands: Operands::with_optional(&["x", "w"], &["bias"]),
    attrs: &[
        required_attr("strides", AttrKind::Ints),
        required_attr("pads", AttrKind::Ints),
        required_attr("dilations", AttrKind::Ints),
        required_attr("output_padding", AttrKind::Ints),
        int_attr("group", 1),
    ],
    infer: infer_transpose,
    eval: conv_eval::conv_transpose,
    lower: Lowering::Tile(TileKind::Window, tile_transpose),
    samples: draw_transpose,
    tolerance: Tolerance::Accumulated,
    halves: None,
};

pub static OPS: &[&OpDef] = &[&CONV, &CONV_NHWC, &CONV_TRANSPOSE];

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

fn infer_conv(ctx: &InferCtx<'_>, last: bool) -> Result<Vec<TensorType>, OpError> {
    ctx.expect_operands(2..=3)?;
    let dtype = operand_kind(ctx)?;
    let shape = ConvShape::new(&ctx.dims(0)?, &ctx.dims(1)?, ctx.attrs, last)?;
    expect_bias(ctx, shape.filters)?;
    Ok(vec![TensorType::new(dtype, &shape.dims(last))])
}

fn operand_kind(ctx: &InferCtx<'_>) -> Result<DType, OpError> {
    let dtype = infer::same_dtype(ctx, 0, 1)?;
    infer::expect_kind(dtype, "numbers", |dtype| dtype != DType::Bool)?;
    if ctx.optional(2).is_some() {
        infer::same_dtype(ctx, 0, 2)?;
    }
    Ok(dtype)
}

fn expect_bias(ctx: &InferCtx<'_>, filters: usize) -> Result<(), OpError> {
    match ctx.optional(2) {
        Some(bias) if infer::known_dims(bias)? != [filters] => Err(OpError::invalid(format!(
            "a bias for {filters} filters, found `{bias}`"
        ))),
        _ => Ok(()),
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
struct TransposeShape {
    kernel: Vec<usize>,
    strides: Vec<usize>,
    dilations: Vec<usize>,
    pads: Vec<i64>,
    output_padding: Vec<usize>,
}

impl TransposeShape {
    fn new(w: &[usize], attrs: &Attrs) -> Result<Self, OpError> {
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

fn infer_transpose(ctx: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
    ctx.expect_operands(2..=3)?;
    let dtype = operand_kind(ctx)?;
    let dims = transpose_dims(&ctx.dims(0)?, &ctx.dims(1)?, ctx.attrs)?;
    expect_bias(ctx, dims[1])?;
    Ok(vec![TensorType::new(dtype, &dims)])
}

fn shape_of(ctx: &TileCtx<'_, '_>, last: bool) -> ConvShape {
    ConvShape::new(&ctx.operand(0).dims(), &ctx.operand(1).dims(), ctx.attrs, last)
        .expect("infer() checked the convolution")
}

/// First channel of `x` that filter `filter` reads.
fn first_channel(ctx: &TileCtx<'_, '_>, filter: &Index, shape: &ConvShape) -> Index {
    if shape.group == 1 {
        return Index::zero();
    }
    filter
        .div(&Extent::from(shape.filters / shape.group), &ctx.body.vars)
        .times(&Extent::from(shape.channels / shape.group))
}

fn plus_bias(ctx: &mut TileCtx<'_, '_>, sum: ExprId, filter: &Index) -> ExprId {
    if ctx.operands.get(2).is_none_or(Option::is_none) {
        return sum;
    }
    let bias = ctx.read(2, std::slice::from_ref(filter));
    let dtype = ctx.result.dtype;
    ctx.body.map("add", &[sum, bias], dtype)
}

/// `x * w` of one cell, zero where `x` is outside.
fn tile_term(ctx: &mut TileCtx<'_, '_>, x: &[Index], conds: Vec<Cond>, w: &[Index]) -> ExprId {
    let dtype = ctx.result.dtype;
    let x = ctx.read(0, x);
    let zero = ctx.body.constant(dtype, 0.0);
    let x = ctx.body.select(conds, x, zero);
    let w = ctx.read(1, w);
    ctx.body.map("mul", &[x, w], dtype)
}

fn tile_conv(ctx: &mut TileCtx<'_, '_>) -> ExprId {
    let shape = shape_of(ctx, false);
    let (at, dtype) = (ctx.at, ctx.result.dtype);
    let first = first_channel(ctx, &at[1], &shape);
    let input = ctx.extents(0)[2..].to_vec();
    let extents = ctx.extents(1)[1..].to_vec();
    let sum = ctx.reduce(ReduceOp::Sum, &extents, dtype, |ctx, inner| {
        let (space, conds) = shape.window.indices(&at[2..], &inner[1..], &input);
        let mut x = vec![at[0].clone(), first.plus(&inner[0])];
        x.extend(space);
        let mut w = vec![at[1].clone()];
        w.extend_from_slice(inner);
        tile_term(ctx, &x, conds, &w)
    });
    plus_bias(ctx, sum, &at[1])
}

fn tile_conv_nhwc(ctx: &mut TileCtx<'_, '_>) -> ExprId {
    let shape = shape_of(ctx, true);
    let (at, dtype) = (ctx.at, ctx.result.dtype);
    let first = first_channel(ctx, &at[3], &shape);
    let input = ctx.extents(0)[1..3].to_vec();
    let extents = ctx.extents(1)[1..].to_vec();
    let sum = ctx.reduce(ReduceOp::Sum, &extents, dtype, |ctx, inner| {
        let (space, conds) = shape.window.indices(&at[1..3], &inner[..2], &input);
        let x = [
            at[0].clone(),
            space[0].clone(),
            space[1].clone(),
            first.plus(&inner[2]),
        ];
        let w = [
            at[3].clone(),
            inner[0].clone(),
            inner[1].clone(),
            inner[2].clone(),
        ];
        tile_term(ctx, &x, conds, &w)
    });
    plus_bias(ctx, sum, &at[3])
}

/// Which cells of the filter, and of the input, meet at an output position along one axis.
struct Taps {
    /// Number of candidates.
    extent: usize,
    /// The filter's cells are `cell_start + cell_step * tap`.
    cell_start: Index,
    cell_step: usize,
}

impl TransposeShape {
    /// Without dilation only every stride-th cell can meet an input, starting at the position's
    /// remainder; otherwise all cells are candidates.
    fn taps(&self, axis: usize, padded: &Index, ctx: &TileCtx<'_, '_>) -> Taps {
        let (kernel, stride) = (self.kernel[axis], self.strides[axis]);
        if self.dilations[axis] == 1 {
            Taps {
                extent: kernel.div_ceil(stride),
                cell_start: padded.modulo(&Extent::from(stride), &ctx.body.vars),
                cell_step: stride,
            }
        } else {
            Taps {
                extent: kernel,
                cell_start: Index::zero(),
                cell_step: 1,
            }
        }
    }

    /// Filter cell and input position of `tap`, and when they exist.
    fn meet(
        &self,
        axis: usize,
        padded: &Index,
        taps: &Taps,
        tap: &Index,
        input: usize,
        ctx: &TileCtx<'_, '_>,
    ) -> (Index, Index, Vec<Cond>) {
        let stride = Extent::from(self.strides[axis]);
        let cell = taps.cell_start.plus(&tap.times(&Extent::from(taps.cell_step)));
        let distance = padded.minus(&cell.times(&Extent::from(self.dilations[axis])));
        let position = distance.div(&stride, &ctx.body.vars);
        let cond = |index: &Index, extent: usize| Cond {
            index: index.clone(),
            extent: Extent::from(extent),
        };
        let rest = distance.modulo(&stride, &ctx.body.vars);
        let conds = vec![
            cond(&cell, self.kernel[axis]),
            cond(&rest, 1),
            cond(&position, input),
        ];
        (cell, position, conds)
    }
}

fn tile_transpose(ctx: &mut TileCtx<'_, '_>) -> ExprId {
    let (x_dims, w_dims) = (ctx.operand(0).dims(), ctx.operand(1).dims());
    let shape = TransposeShape::new(&w_dims, ctx.attrs).expect("infer() checked the convolution");
    let group = group(ctx.attrs).expect("infer() checked the groups");
    let (at, dtype) = (ctx.at, ctx.result.dtype);
    let per_group = Extent::from(w_dims[1]);
    let first = at[1]
        .div(&per_group, &ctx.body.vars)
        .times(&Extent::from(x_dims[1] / group));
    let filter = at[1].modulo(&per_group, &ctx.body.vars);
    let padded: Vec<Index> = (at[2..].iter().zip(&shape.pads))
        .map(|(index, &pad)| index.plus_known(pad))
        .collect();
    let taps: Vec<Taps> = (0..padded.len())
        .map(|axis| shape.taps(axis, &padded[axis], ctx))
        .collect();
    let mut extents = vec![Extent::from(x_dims[1] / group)];
    extents.extend(taps.iter().map(|taps| Extent::from(taps.extent)));
    let sum = ctx.reduce(ReduceOp::Sum, &extents, dtype, |ctx, inner| {
        let channel = first.plus(&inner[0]);
        let (mut x, mut w) = (
            vec![at[0].clone(), channel.clone()],
            vec![channel, filter.clone()],
        );
        let mut conds = Vec::new();
        for axis in 0..padded.len() {
            let input = x_dims[axis + 2];
            let (cell, position, own) =
                shape.meet(axis, &padded[axis], &taps[axis], &inner[axis + 1], input, ctx);
            w.push(cell);
            x.push(position);
            conds.extend(own);
        }
        // The filter's cell may be outside too, so the whole term is selected.
        let (x, w) = (ctx.read(0, &x), ctx.read(1, &w));
        let term = ctx.body.map("mul", &[x, w], dtype);
        let zero = ctx.body.constant(dtype, 0.0);
        ctx.body.select(conds, term, zero)
    });
    plus_bias(ctx, sum, &at[1])
}

fn sample_kind(seed: u64) -> DType {
    [
        DType::F32,
        DType::F32,
        DType::F16,
        DType::I32,
        DType::F64,
        DType::BF16,
    ][(seed % 6) as usize]
}

fn draw_conv(seed: u64, last: bool) -> Option<Sample> {
    let mut draw = Draw::for_seed(seed)?;
    let rank = if last || seed == 0 { 2 } else { 1 + draw.below(3) };
    let group = draw.pick(&[1, 1, 2, 3]);
    let (channels, filters) = (group * (1 + draw.below(3)), group * (1 + draw.below(3)));
    let (mut x, mut w) = (vec![1 + draw.below(2)], vec![filters]);
    let mut attrs: [Vec<usize>; 3] = Default::default();
    let mut ends = Vec::new();
    for _ in 0..rank {
        let (kernel, dilation) = (1 + draw.below(3), 1 + draw.below(2));
        x.push(4 + (kernel - 1) * dilation + draw.below(4) - 3);
        w.push(kernel);
        attrs[0].push(1 + draw.below(2));
        attrs[1].push(draw.below(3));
        attrs[2].push(dilation);
        ends.push(draw.below(3));
    }
    let place = if last { rank + 1 } else { 1 };
    x.insert(place, channels);
    w.insert(place, channels / group);
    let dtype = sample_kind(seed);
    let mut operands = vec![draw.tensor(dtype, &x), draw.tensor(dtype, &w)];
    if draw.bool() {
        operands.push(draw.tensor(dtype, &[filters]));
    }
    attrs[1].extend(ends);
    sample(operands, window_attrs(&attrs, group))
}

fn window_attrs(lists: &[Vec<usize>; 3], group: usize) -> Attrs {
    Attrs::new()
        .with("strides", ints_attr(&lists[0]))
        .with("pads", ints_attr(&lists[1]))
        .with("dilations", ints_attr(&lists[2]))
        .with("group", Attr::Int(i64::try_from(group).expect("groups are few")))
}

fn draw_transpose(seed: u64) -> Option<Sample> {
    let mut draw = Draw::for_seed(seed)?;
    let rank = 1 + draw.below(3);
    let group = draw.pick(&[1, 1, 2]);
    let (channels, filters) = (group * (1 + draw.below(3)), 1 + draw.below(3));
    let (mut x, mut w) = (vec![1 + draw.below(2), channels], vec![channels, filters]);
    let mut attrs: [Vec<usize>; 3] = Default::default();
    let (mut ends, mut extra) = (Vec::new(), Vec::new());
    for _ in 0..rank {
        let (kernel, stride) = (1 + draw.below(4), 1 + draw.below(3));
        x.push(2 + draw.below(4));
        w.push(kernel);
        attrs[0].push(stride);
        attrs[1].push(draw.below(kernel.min(2)));
        attrs[2].push(1 + draw.below(2));
        ends.push(draw.below(kernel.min(2)));
        extra.push(draw.below(stride));
    }
    let dtype = sample_kind(seed);
    let mut operands = vec![draw.tensor(dtype, &x), draw.tensor(dtype, &w)];
    if draw.bool() {
        operands.push(draw.tensor(dtype, &[filters * group]));
    }
    attrs[1].extend(ends);
    sample(
        operands,
        window_attrs(&attrs, group).with("output_padding", ints_attr(&extra)),
    )
}

#[cfg(test)]
mod tests {
    use super::{ConvShape, transpose_dims};
    use crate::ir::{Attr, Attrs};

    fn attrs(group: i64, stride: i64, pad: i64) -> Attrs {
        Attrs::new()
            .with("group", Attr::Int(group))
            .with("strides", Attr::Ints(vec![stride]))
            .with("dilations", Attr::Ints(vec![1]))
            .with("pads", Attr::Ints(vec![pad, pad]))
            .with("output_padding", Attr::Ints(vec![0]))
    }

    #[test]
    fn numbers_that_no_product_holds_are_errors() {
        let (x, w) = ([1, 4, 8], [4, 4, 3]);
        assert!(ConvShape::new(&x, &w, &attrs(1, 1, 0), false).is_ok());
        for wrong in [attrs(1 << 62, 1, 0), attrs(1, i64::MAX, 0), attrs(1, 1, i64::MAX)] {
            assert!(ConvShape::new(&x, &w, &wrong, false).is_err());
        }
        assert!(transpose_dims(&x, &w, &attrs(1, 1, 0)).is_ok());
        let long = [1, 4, 1 << 40];
        for wrong in [
            attrs(1 << 62, 1, 0),
            attrs(1, i64::from(i32::MAX), 0),
            attrs(1, 1, i64::MAX),
        ] {
            assert!(transpose_dims(&long, &w, &wrong).is_err());
        }
    }
}
