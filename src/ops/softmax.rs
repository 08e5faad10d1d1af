//! Softmax and its logarithm along one axis.

use half::f16;

use super::build::required_attr;
use super::evaluate::{from_values, one, to_vec};
use super::lanes::Lanes;
use super::reduce::{extents_of, replaced};
use super::samples::{Draw, float_for, sample};
use super::{
    AttrKind, Datum, EvalCtx, Lowering, OpDef, OpError, Operands, Reach, Sample, TileKind, Tolerance, infer,
};
use crate::ir::{Attr, Attrs, DType};
use crate::tile::{ExprId, ReduceOp, TileCtx};

/// `exp(x - max) / sum(exp(x - max))` along `axis`.
pub static SOFTMAX: OpDef = OpDef {
    name: "softmax",
    onnx: &[],
    operands: Operands::exactly(&["x"]),
    attrs: &[required_attr("axis", AttrKind::Int)],
    infer: |ctx| {
        infer::axis(ctx.attrs, ctx.ty(0)?.rank())?;
        infer::float_unary(ctx)
    },
    eval: |ctx| {
        let is_half = ctx.tensor(0)?.dtype() == DType::F16;
        along_axis(ctx, if is_half { softmax_of_halves } else { softmax })
    },
    lower: Lowering::Tile(TileKind::Reduce, tile_softmax),
    samples: draw,
    tolerance: Tolerance::Close,
    halves: None,
    reach: Reach::Elements,
};

/// `x - max - log(sum(exp(x - max)))` along `axis`.
pub static LOG_SOFTMAX: OpDef = OpDef {
    name: "log_softmax",
    onnx: &[],
    operands: Operands::exactly(&["x"]),
    attrs: &[required_attr("axis", AttrKind::Int)],
    infer: |ctx| {
        infer::axis(ctx.attrs, ctx.ty(0)?.rank())?;
        infer::float_unary(ctx)
    },
    eval: |ctx| along_axis(ctx, log_softmax),
    lower: Lowering::Tile(TileKind::Reduce, tile_log_softmax),
    samples: draw,
    tolerance: Tolerance::Close,
    halves: None,
    reach: Reach::Elements,
};

pub static OPS: &[&OpDef] = &[&SOFTMAX, &LOG_SOFTMAX];

fn along_axis(ctx: &EvalCtx<'_>, f: fn(&mut [f64])) -> Result<Vec<Datum>, OpError> {
    let x = ctx.tensor(0)?;
    let axis = infer::axis(ctx.attrs, x.dims().len())?;
    let values = Lanes::new(x.dims(), &[axis]).update(&to_vec::<f64>(x), f);
    one(from_values(x.dtype(), x.dims(), &values))
}

fn largest(lane: &[f64]) -> f64 {
    lane.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

/// In place. A lane of minus infinity gives NaN, as the formula does.
pub fn softmax(lane: &mut [f64]) {
    let max = largest(lane);
    let mut sum = 0.0;
    for value in lane.iter_mut() {
        *value = (*value - max).exp();
        sum += *value;
    }
    for value in lane {
        *value /= sum;
    }
}

/// ONNX defines softmax by smaller operators, which store what they compute: the exponentials
/// and their sum are rounded too. A sum that is too large for a half is kept as it is.
fn softmax_of_halves(lane: &mut [f64]) {
    let round = |value: f64| f16::from_f64(value).to_f64();
    let max = largest(lane);
    let mut sum = 0.0;
    for value in lane.iter_mut() {
        *value = round((*value - max).exp());
        sum += *value;
    }
    let sum = Some(round(sum)).filter(|sum| sum.is_finite()).unwrap_or(sum);
    for value in lane {
        *value /= sum;
    }
}

fn log_softmax(lane: &mut [f64]) {
    let max = largest(lane);
    let log_sum = lane.iter().map(|value| (value - max).exp()).sum::<f64>().ln();
    for value in lane {
        *value = *value - max - log_sum;
    }
}

/// `x - max`, and the sum of the exponentials of that along the axis.
fn tile_shifted(ctx: &mut TileCtx<'_, '_>) -> (ExprId, ExprId) {
    let axes = [infer::axis(ctx.attrs, ctx.operand(0).rank()).expect("infer() checked the axis")];
    let (at, dtype) = (ctx.at, ctx.result.dtype);
    let extents = extents_of(ctx, 0, &axes);
    let max = ctx.reduce(ReduceOp::Max, &extents, dtype, |ctx, inner| {
        ctx.read(0, &replaced(at, &axes, inner))
    });
    let sum = ctx.reduce(ReduceOp::Sum, &extents, dtype, |ctx, inner| {
        let x = ctx.read(0, &replaced(at, &axes, inner));
        let shifted = ctx.body.map("sub", &[x, max], dtype);
        ctx.body.map("exp", &[shifted], dtype)
    });
    let x = ctx.read(0, at);
    (ctx.body.map("sub", &[x, max], dtype), sum)
}

fn tile_softmax(ctx: &mut TileCtx<'_, '_>) -> ExprId {
    let (shifted, sum) = tile_shifted(ctx);
    let dtype = ctx.result.dtype;
    let exp = ctx.body.map("exp", &[shifted], dtype);
    // One division per row: the sum is between one and the number of terms.
    let scale = ctx.body.map("reciprocal", &[sum], dtype);
    ctx.body.map("mul", &[exp, scale], dtype)
}

fn tile_log_softmax(ctx: &mut TileCtx<'_, '_>) -> ExprId {
    let (shifted, sum) = tile_shifted(ctx);
    let dtype = ctx.result.dtype;
    let log = ctx.body.map("log", &[sum], dtype);
    ctx.body.map("sub", &[shifted, log], dtype)
}

fn draw(seed: u64) -> Option<Sample> {
    let mut draw = Draw::for_seed(seed)?;
    let dims = match seed {
        0 => vec![3, 257],
        1 => vec![4, 7, 3],
        _ => draw.dims(1..=4),
    };
    let axis = i64::try_from(draw.below(dims.len())).expect("ranks are small");
    let x = draw.floats(float_for(seed), &dims, -9.0, 9.0);
    sample(vec![x], Attrs::new().with("axis", Attr::Int(axis)))
}
