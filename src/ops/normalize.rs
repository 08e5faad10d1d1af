//! Normalisation: standardising over axes, root-mean-square scaling, batch statistics.
//!
//! The ONNX forms in [`super::normalize_forms`] add scales and biases as maps around these.

use super::build::{float_attr, required_attr};
use super::evaluate::{from_values, map, one, to_vec};
use super::lanes::Lanes;
use super::reduce::{axes, divided_by_count, extents_of, replaced, tile_axes};
use super::samples::{Draw, float_for, ints_attr, sample};
use super::{
    AttrKind, Datum, EvalCtx, InferCtx, Lowering, OpDef, OpError, Operands, Reach, Sample, TileKind,
    Tolerance, infer,
};
use crate::ir::{Attr, Attrs, DType, TensorType};
use crate::tile::{Expr, ExprId, Index, ReduceOp, TileCtx};

/// `(x - mean) / sqrt(variance + epsilon)` over `axes`; the variance is that of the population.
pub static STANDARDIZE: OpDef = OpDef {
    name: "standardize",
    onnx: &[],
    operands: Operands::exactly(&["x"]),
    attrs: &[required_attr("axes", AttrKind::Ints), float_attr("epsilon", 1e-5)],
    infer: infer_over_axes,
    eval: |ctx| over_axes(ctx, standardize),
    lower: Lowering::Tile(TileKind::Reduce, tile_standardize),
    samples: draw_over_axes,
    tolerance: Tolerance::Accumulated,
    halves: None,
    reach: Reach::Elements,
};

/// `x / sqrt(mean(x * x) + epsilon)` over `axes`.
pub static RMS_STANDARDIZE: OpDef = OpDef {
    name: "rms_standardize",
    onnx: &[],
    operands: Operands::exactly(&["x"]),
    attrs: &[required_attr("axes", AttrKind::Ints), float_attr("epsilon", 1e-5)],
    infer: infer_over_axes,
    eval: |ctx| over_axes(ctx, rms_standardize),
    lower: Lowering::Tile(TileKind::Reduce, tile_rms_standardize),
    samples: draw_over_axes,
    tolerance: Tolerance::Accumulated,
    halves: None,
    reach: Reach::Elements,
};

/// `1 / sqrt(variance + epsilon)` over `axes`: the factor of [`STANDARDIZE`]. Unlike that one it
/// needs one pass over a row, so that a matrix product can compute it from the operand it reads.
pub static INVERSE_DEVIATION: OpDef = OpDef {
    name: "inverse_deviation",
    infer: infer_statistic,
    eval: |ctx| statistic(ctx, inverse_deviation),
    lower: Lowering::Tile(TileKind::Reduce, tile_inverse_deviation),
    ..STANDARDIZE
};

/// `1 / sqrt(mean(x * x) + epsilon)` over `axes`: the factor of [`RMS_STANDARDIZE`].
pub static INVERSE_RMS: OpDef = OpDef {
    name: "inverse_rms",
    infer: infer_statistic,
    eval: |ctx| statistic(ctx, inverse_rms),
    lower: Lowering::Tile(TileKind::Reduce, tile_inverse_rms),
    ..RMS_STANDARDIZE
};

/// `(x - mean) / sqrt(variance + epsilon) * scale + bias`, with statistics per channel (axis 1).
pub static BATCH_NORM: OpDef = OpDef {
    name: "batch_norm",
    onnx: &[],
    operands: Operands::exactly(&["x", "scale", "bias", "mean", "variance"]),
    attrs: &[float_attr("epsilon", 1e-5)],
    infer: infer_batch_norm,
    eval: batch_norm,
    lower: Lowering::Tile(TileKind::Map, tile_batch_norm),
    samples: draw_batch_norm,
    tolerance: Tolerance::Close,
    halves: None,
    reach: Reach::Elements,
};

pub static OPS: &[&OpDef] = &[
    &STANDARDIZE,
    &RMS_STANDARDIZE,
    &INVERSE_DEVIATION,
    &INVERSE_RMS,
    &BATCH_NORM,
];

fn infer_over_axes(ctx: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
    axes(ctx.attrs, ctx.ty(0)?.rank())?;
    infer::float(ctx.attrs, "epsilon")?;
    infer::float_unary(ctx)
}

/// Statistics of narrow floats are wide: a row of small numbers has a large factor.
fn infer_statistic(ctx: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
    infer_over_axes(ctx)?;
    let mut dims = ctx.dims(0)?;
    for axis in axes(ctx.attrs, dims.len())? {
        dims[axis] = 1;
    }
    Ok(vec![TensorType::new(statistic_kind(ctx.ty(0)?.dtype), &dims)])
}

fn statistic_kind(dtype: DType) -> DType {
    if dtype == DType::F64 { dtype } else { DType::F32 }
}

fn infer_batch_norm(ctx: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
    ctx.expect_operands(5..=5)?;
    let x = ctx.ty(0)?;
    infer::expect_kind(x.dtype, "a float kind", DType::is_float)?;
    let dims = ctx.dims(0)?;
    // A vector counts as a batch of one channel.
    let channels = dims.get(1).copied().unwrap_or(1);
    for n in 1..5 {
        if ctx.dims(n)? != [channels] {
            return Err(OpError::invalid(format!(
                "operand {n} must hold one number for each of {channels} channels, found `{}`",
                ctx.ty(n)?
            )));
        }
    }
    Ok(vec![x.clone()])
}

fn over_axes(ctx: &EvalCtx<'_>, f: fn(&mut [f64], f64)) -> Result<Vec<Datum>, OpError> {
    let x = ctx.tensor(0)?;
    let axes = axes(ctx.attrs, x.dims().len())?;
    let epsilon = infer::float(ctx.attrs, "epsilon")?;
    let values = Lanes::new(x.dims(), &axes).update(&to_vec::<f64>(x), |lane| f(lane, epsilon));
    one(from_values(x.dtype(), x.dims(), &values))
}

#[expect(clippy::cast_precision_loss, reason = "lanes are far shorter than 2^53")]
fn mean_of(lane: &[f64], f: impl Fn(f64) -> f64) -> f64 {
    lane.iter().map(|&value| f(value)).sum::<f64>() / lane.len() as f64
}

/// One number per lane; reduced axes stay as extents of one.
fn statistic(ctx: &EvalCtx<'_>, f: fn(&[f64], f64) -> f64) -> Result<Vec<Datum>, OpError> {
    let x = ctx.tensor(0)?;
    let axes = axes(ctx.attrs, x.dims().len())?;
    let epsilon = infer::float(ctx.attrs, "epsilon")?;
    let of_lane = |lane: &mut dyn Iterator<Item = f64>| f(&lane.collect::<Vec<f64>>(), epsilon);
    let values = Lanes::new(x.dims(), &axes).fold(&to_vec::<f64>(x), of_lane);
    let mut dims = x.dims().to_vec();
    for axis in axes {
        dims[axis] = 1;
    }
    one(from_values(statistic_kind(x.dtype()), &dims, &values))
}

fn inverse_deviation(lane: &[f64], epsilon: f64) -> f64 {
    let mean = mean_of(lane, |x| x);
    let variance = mean_of(lane, |x| (x - mean) * (x - mean));
    1.0 / (variance + epsilon).sqrt()
}

fn inverse_rms(lane: &[f64], epsilon: f64) -> f64 {
    1.0 / (mean_of(lane, |x| x * x) + epsilon).sqrt()
}

fn standardize(lane: &mut [f64], epsilon: f64) {
    let mean = mean_of(lane, |x| x);
    let factor = inverse_deviation(lane, epsilon);
    for value in lane {
        *value = (*value - mean) * factor;
    }
}

fn rms_standardize(lane: &mut [f64], epsilon: f64) {
    let factor = inverse_rms(lane, epsilon);
    for value in lane {
        *value *= factor;
    }
}

fn batch_norm(ctx: &EvalCtx<'_>) -> Result<Vec<Datum>, OpError> {
    let x = ctx.tensor(0)?;
    let epsilon = infer::float(ctx.attrs, "epsilon")?;
    let mut column = vec![1; x.dims().len().max(2) - 1];
    column[0] = x.dims().get(1).copied().unwrap_or(1);
    let statistic = |n: usize| Ok::<_, OpError>(ctx.tensor(n)?.reshaped(&column));
    let (scale, bias, mean, variance) = (statistic(1)?, statistic(2)?, statistic(3)?, statistic(4)?);
    one(map(
        [x, &scale, &bias, &mean, &variance],
        &x.ty(),
        |[x, scale, bias, mean, variance]: [f64; 5]| (x - mean) / (variance + epsilon).sqrt() * scale + bias,
    ))
}

/// `1 / sqrt(x + epsilon)`.
fn tile_rsqrt(ctx: &mut TileCtx<'_, '_>, x: ExprId) -> ExprId {
    let dtype = ctx.result.dtype;
    let epsilon = infer::float(ctx.attrs, "epsilon").expect("infer() checked the epsilon");
    let epsilon = ctx.body.constant(dtype, epsilon);
    let sum = ctx.body.map("add", &[x, epsilon], dtype);
    ctx.body.map("rsqrt", &[sum], dtype)
}

fn tile_standardize(ctx: &mut TileCtx<'_, '_>) -> ExprId {
    let axes = tile_axes(ctx);
    let (at, dtype) = (ctx.at, ctx.result.dtype);
    let extents = extents_of(ctx, 0, &axes);
    let sum = ctx.reduce(ReduceOp::Sum, &extents, dtype, |ctx, inner| {
        ctx.read(0, &replaced(at, &axes, inner))
    });
    let mean = divided_by_count(ctx, sum, &axes);
    let sum = ctx.reduce(ReduceOp::Sum, &extents, dtype, |ctx, inner| {
        let x = ctx.read(0, &replaced(at, &axes, inner));
        let centred = ctx.body.map("sub", &[x, mean], dtype);
        ctx.body.map("mul", &[centred, centred], dtype)
    });
    let variance = divided_by_count(ctx, sum, &axes);
    let factor = tile_rsqrt(ctx, variance);
    let x = ctx.read(0, at);
    let centred = ctx.body.map("sub", &[x, mean], dtype);
    ctx.body.map("mul", &[centred, factor], dtype)
}

fn tile_rms_standardize(ctx: &mut TileCtx<'_, '_>) -> ExprId {
    let factor = tile_inverse_rms(ctx);
    let x = ctx.read(0, ctx.at);
    ctx.body.map("mul", &[x, factor], ctx.result.dtype)
}

/// The mean of squares over `axes`.
fn tile_mean_square(ctx: &mut TileCtx<'_, '_>, axes: &[usize]) -> ExprId {
    let (at, dtype) = (ctx.at, ctx.result.dtype);
    let extents = extents_of(ctx, 0, axes);
    let sum = ctx.reduce(ReduceOp::Sum, &extents, dtype, |ctx, inner| {
        let x = read_as(ctx, &replaced(at, axes, inner), dtype);
        ctx.body.map("mul", &[x, x], dtype)
    });
    divided_by_count(ctx, sum, axes)
}

/// Operand 0 at coordinates, converted to `dtype`.
fn read_as(ctx: &mut TileCtx<'_, '_>, at: &[Index], dtype: DType) -> ExprId {
    let x = ctx.read(0, at);
    if ctx.body.dtype(x) == dtype {
        return x;
    }
    let attrs = ctx
        .body
        .intern_attrs(&Attrs::new().with("to", Attr::DType(dtype)));
    ctx.body.add(Expr::Map {
        op: "cast",
        attrs,
        args: vec![x],
        dtype,
    })
}

fn tile_inverse_rms(ctx: &mut TileCtx<'_, '_>) -> ExprId {
    let axes = tile_axes(ctx);
    let mean = tile_mean_square(ctx, &axes);
    tile_rsqrt(ctx, mean)
}

/// Both sums are of the operand alone, so one pass takes them; what the difference of means
/// falls below zero by is rounding.
fn tile_inverse_deviation(ctx: &mut TileCtx<'_, '_>) -> ExprId {
    let axes = tile_axes(ctx);
    let (at, dtype) = (ctx.at, ctx.result.dtype);
    let extents = extents_of(ctx, 0, &axes);
    let sum = ctx.reduce(ReduceOp::Sum, &extents, dtype, |ctx, inner| {
        read_as(ctx, &replaced(at, &axes, inner), dtype)
    });
    let mean = divided_by_count(ctx, sum, &axes);
    let square = ctx.body.map("mul", &[mean, mean], dtype);
    let mean_square = tile_mean_square(ctx, &axes);
    let difference = ctx.body.map("sub", &[mean_square, square], dtype);
    let variance = ctx.body.map("relu", &[difference], dtype);
    tile_rsqrt(ctx, variance)
}

fn tile_batch_norm(ctx: &mut TileCtx<'_, '_>) -> ExprId {
    let dtype = ctx.result.dtype;
    let channel = [ctx.at.get(1).cloned().unwrap_or_default()];
    let at = ctx.at;
    let x = ctx.read(0, at);
    let [scale, bias, mean, variance] = [1, 2, 3, 4].map(|n| ctx.read(n, &channel));
    let centred = ctx.body.map("sub", &[x, mean], dtype);
    let factor = tile_rsqrt(ctx, variance);
    let factor = ctx.body.map("mul", &[factor, scale], dtype);
    let scaled = ctx.body.map("mul", &[centred, factor], dtype);
    ctx.body.map("add", &[scaled, bias], dtype)
}

fn draw_over_axes(seed: u64) -> Option<Sample> {
    let mut draw = Draw::for_seed(seed)?;
    let (dims, axes) = match seed {
        0 => (vec![3, 257], vec![1]),
        1 => (vec![2, 4, 3, 5], vec![2, 3]),
        _ => {
            let dims = draw.dims(1..=4);
            let first = draw.below(dims.len());
            let axes = (first..dims.len()).collect();
            (dims, axes)
        }
    };
    let x = draw.floats(float_for(seed), &dims, -3.0, 3.0);
    let attrs = Attrs::new()
        .with("axes", ints_attr(&axes))
        .with("epsilon", Attr::Float(1e-3));
    sample(vec![x], attrs)
}

fn draw_batch_norm(seed: u64) -> Option<Sample> {
    let mut draw = Draw::for_seed(seed)?;
    let (dims, dtype) = (draw.dims(2..=5), float_for(seed));
    let x = draw.floats(dtype, &dims, -3.0, 3.0);
    let [scale, bias, mean] = [(); 3].map(|()| draw.floats(dtype, &dims[1..2], -2.0, 2.0));
    let variance = draw.floats(dtype, &dims[1..2], 0.1, 2.0);
    sample(
        vec![x, scale, bias, mean, variance],
        Attrs::new().with("epsilon", Attr::Float(1e-3)),
    )
}
