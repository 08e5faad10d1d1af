//! Convolutions. The reference is in [`super::conv_eval`], the ONNX forms in
//! [`super::conv_forms`].
//!
//! A convolution's expression is one reduction whose variables are the window's cells and the
//! channel, with all padding in one selection around the read of `x`: the matrix templates
//! recognise exactly this.

use super::build::{int_attr, required_attr};
use super::conv_eval;
use super::conv_shape::{ConvShape, TransposeShape, group, transpose_dims};
use super::samples::{Draw, ints_attr, sample};
use super::{
    AttrDef, AttrKind, InferCtx, Lowering, OpDef, OpError, Operands, Reach, Sample, TileKind, Tolerance,
    infer,
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
    reach: Reach::Window { first_space: 2 },
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
    reach: Reach::Window { first_space: 1 },
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
    reach: Reach::Elements,
};

pub static OPS: &[&OpDef] = &[&CONV, &CONV_NHWC, &CONV_TRANSPOSE];

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
