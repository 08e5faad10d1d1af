//! Reductions over axes, arg-extremes and cumulative sums.
//!
//! Reduced axes stay as extents of one; the ONNX forms in [`super::reduce_forms`] drop them.

use super::build::{int_attr, required_attr};
use super::evaluate::{Number, from_values, one, to_vec};
use super::lanes::Lanes;
use super::samples::{Draw, ints_attr, sample};
use super::{
    AttrDef, AttrKind, Datum, EvalCtx, InferCtx, Lowering, OpDef, OpError, Operands, Reach, Sample, TileKind,
    Tolerance, infer,
};
use crate::ir::{Attr, Attrs, DType, HostTensor, TensorType};
use crate::tile::{Cond, Expr, ExprId, Extent, Index, ReduceOp, TileCtx};

/// What the reductions have in common.
const REDUCTION: OpDef = OpDef {
    name: "",
    onnx: &[],
    operands: Operands::exactly(&["x"]),
    attrs: &[required_attr("axes", AttrKind::Ints)],
    infer: infer_reduction,
    eval: |_| Err(OpError::invalid("every reduction has its own evaluation")),
    lower: Lowering::Host(""),
    samples: draw_reduction,
    tolerance: Tolerance::Accumulated,
    halves: None,
    reach: Reach::Elements,
};

/// The sum over `axes`; zero over nothing.
pub static REDUCE_SUM: OpDef = OpDef {
    name: "reduce_sum",
    eval: |ctx| fold(ctx, 0.0, |a, b| a + b, 0, i64::wrapping_add),
    lower: Lowering::Tile(TileKind::Reduce, |ctx| tile_reduction(ctx, ReduceOp::Sum)),
    ..REDUCTION
};

/// The mean over `axes`; integers round towards zero.
pub static REDUCE_MEAN: OpDef = OpDef {
    name: "reduce_mean",
    eval: mean,
    lower: Lowering::Tile(TileKind::Reduce, tile_mean),
    ..REDUCTION
};

/// The product over `axes`; one over nothing.
pub static REDUCE_PROD: OpDef = OpDef {
    name: "reduce_prod",
    eval: |ctx| fold(ctx, 1.0, |a, b| a * b, 1, i64::wrapping_mul),
    lower: Lowering::Tile(TileKind::Reduce, |ctx| tile_reduction(ctx, ReduceOp::Prod)),
    ..REDUCTION
};

/// The largest element over `axes`; NaN wins. The lowest value of the kind over nothing.
pub static REDUCE_MAX: OpDef = OpDef {
    name: "reduce_max",
    infer: infer_extreme,
    eval: |ctx| eval_extreme(ctx, true),
    lower: Lowering::Tile(TileKind::Reduce, |ctx| {
        let op = if ctx.result.dtype == DType::Bool {
            ReduceOp::Or
        } else {
            ReduceOp::Max
        };
        tile_reduction(ctx, op)
    }),
    tolerance: Tolerance::Exact,
    ..REDUCTION
};

/// The smallest element over `axes`; NaN wins. The highest value of the kind over nothing.
pub static REDUCE_MIN: OpDef = OpDef {
    name: "reduce_min",
    infer: infer_extreme,
    eval: |ctx| eval_extreme(ctx, false),
    lower: Lowering::Tile(TileKind::Reduce, |ctx| {
        let op = if ctx.result.dtype == DType::Bool {
            ReduceOp::And
        } else {
            ReduceOp::Min
        };
        tile_reduction(ctx, op)
    }),
    tolerance: Tolerance::Exact,
    ..REDUCTION
};

/// Position of the largest element along `axis`: the first one, or the last where `last` is 1.
pub static ARG_MAX: OpDef = OpDef {
    name: "arg_max",

    eval: |ctx| arg_extreme(ctx, true),
    lower: Lowering::Tile(TileKind::Reduce, |ctx| {
        let last = ctx.attrs.int("last") == Some(1);
        tile_arg(ctx, ReduceOp::ArgMax { last })
    }),

    ..ARG_EXTREME
};

/// Position of the smallest element along `axis`: the first one, or the last where `last` is 1.
pub static ARG_MIN: OpDef = OpDef {
    name: "arg_min",
    eval: |ctx| arg_extreme(ctx, false),
    lower: Lowering::Tile(TileKind::Reduce, |ctx| {
        let last = ctx.attrs.int("last") == Some(1);
        tile_arg(ctx, ReduceOp::ArgMin { last })
    }),
    ..ARG_EXTREME
};

const ARG_EXTREME: OpDef = OpDef {
    attrs: &[required_attr("axis", AttrKind::Int), int_attr("last", 0)],
    infer: infer_arg,
    samples: draw_arg,
    tolerance: Tolerance::Exact,
    ..REDUCTION
};

const CUM_SUM_ATTRS: &[AttrDef] = &[
    required_attr("axis", AttrKind::Int),
    int_attr("exclusive", 0),
    int_attr("reverse", 0),
];

/// Running sums along `axis`. `exclusive` leaves out the element itself, `reverse` starts at
/// the end.
pub static CUM_SUM: OpDef = OpDef {
    name: "cum_sum",
    attrs: CUM_SUM_ATTRS,
    infer: infer_cumulated,
    eval: |ctx| cumulated(ctx, 0.0, |a, b| a + b, 0, i64::wrapping_add),
    lower: Lowering::Tile(TileKind::Reduce, |ctx| tile_cumulated(ctx, ReduceOp::Sum, 0.0)),
    samples: draw_cum_sum,
    ..REDUCTION
};

/// Running products; otherwise as [`CUM_SUM`].
pub static CUM_PROD: OpDef = OpDef {
    name: "cum_prod",
    eval: |ctx| cumulated(ctx, 1.0, |a, b| a * b, 1, i64::wrapping_mul),
    lower: Lowering::Tile(TileKind::Reduce, |ctx| tile_cumulated(ctx, ReduceOp::Prod, 1.0)),
    samples: draw_cum_prod,
    attrs: CUM_SUM_ATTRS,
    infer: infer_cumulated,
    ..REDUCTION
};

pub static OPS: &[&OpDef] = &[
    &REDUCE_SUM,
    &REDUCE_MEAN,
    &REDUCE_PROD,
    &REDUCE_MAX,
    &REDUCE_MIN,
    &ARG_MAX,
    &ARG_MIN,
    &CUM_SUM,
    &CUM_PROD,
];

/// Attribute `axes` as sorted positions below `rank`.
pub fn axes(attrs: &Attrs, rank: usize) -> Result<Vec<usize>, OpError> {
    infer::normalize_axes(infer::ints(attrs, "axes")?, rank)
}

fn infer_reduction(ctx: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
    infer::number_unary(ctx)?;
    reduced_type(ctx)
}

fn infer_extreme(ctx: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
    ctx.expect_operands(1..=1)?;
    reduced_type(ctx)
}

fn reduced_type(ctx: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
    let mut dims = ctx.dims(0)?;
    for axis in axes(ctx.attrs, dims.len())? {
        dims[axis] = 1;
    }
    Ok(vec![TensorType::new(ctx.dtype(0)?, &dims)])
}

fn infer_arg(ctx: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
    infer::number_unary(ctx)?;
    let mut dims = ctx.dims(0)?;
    let axis = infer::axis(ctx.attrs, dims.len())?;
    if dims[axis] == 0 {
        return Err(OpError::invalid(format!(
            "an extreme along axis {axis} of `{}`, which has no elements",
            ctx.ty(0)?
        )));
    }
    dims[axis] = 1;
    Ok(vec![TensorType::new(DType::I64, &dims)])
}

/// Folds every lane, in `f64` or, for integers and bool, in `i64`.
fn fold(
    ctx: &EvalCtx<'_>,
    float_start: f64,
    float: fn(f64, f64) -> f64,
    int_start: i64,
    int: fn(i64, i64) -> i64,
) -> Result<Vec<Datum>, OpError> {
    if ctx.tensor(0)?.dtype().is_float() {
        fold_as(ctx, |lane: &mut dyn Iterator<Item = f64>| {
            lane.fold(float_start, float)
        })
    } else {
        fold_as(ctx, |lane: &mut dyn Iterator<Item = i64>| {
            lane.fold(int_start, int)
        })
    }
}

fn fold_as<T: Number>(
    ctx: &EvalCtx<'_>,
    f: impl Fn(&mut dyn Iterator<Item = T>) -> T + Sync,
) -> Result<Vec<Datum>, OpError> {
    let x = ctx.tensor(0)?;
    let axes = axes(ctx.attrs, x.dims().len())?;
    let lanes = Lanes::new(x.dims(), &axes);
    let results = lanes.fold(&to_vec::<T>(x), f);
    let mut dims = x.dims().to_vec();
    for axis in axes {
        dims[axis] = 1;
    }
    one(from_values(x.dtype(), &dims, &results))
}

fn mean(ctx: &EvalCtx<'_>) -> Result<Vec<Datum>, OpError> {
    if ctx.tensor(0)?.dtype().is_float() {
        fold_as(ctx, |lane: &mut dyn Iterator<Item = f64>| {
            let (sum, count) = lane.fold((0.0, 0.0), |(sum, count), x| (sum + x, count + 1.0));
            sum / count
        })
    } else {
        fold_as(ctx, |lane: &mut dyn Iterator<Item = i64>| {
            let (sum, count) = lane.fold((0i64, 0i64), |(sum, count), x| (sum.wrapping_add(x), count + 1));
            sum.checked_div(count).unwrap_or(0)
        })
    }
}

fn eval_extreme(ctx: &EvalCtx<'_>, largest: bool) -> Result<Vec<Datum>, OpError> {
    let dtype = ctx.tensor(0)?.dtype();
    if dtype.is_float() {
        let start = extreme_of(dtype, !largest);
        fold_as(ctx, |lane: &mut dyn Iterator<Item = f64>| {
            lane.fold(start, |a, b| if replaces(a, b, largest) { b } else { a })
        })
    } else if dtype == DType::U64 {
        let start = if largest { 0 } else { u64::MAX };
        fold_as(ctx, |lane: &mut dyn Iterator<Item = u64>| {
            lane.fold(start, |a, b| if largest { a.max(b) } else { a.min(b) })
        })
    } else {
        let start = int_extreme_of(dtype, !largest);
        fold_as(ctx, |lane: &mut dyn Iterator<Item = i64>| {
            lane.fold(start, |a, b| if largest { a.max(b) } else { a.min(b) })
        })
    }
}

/// Whether `new` takes the place of `old` in a search for the extreme; NaN takes every place.
fn replaces(old: f64, new: f64, largest: bool) -> bool {
    !old.is_nan() && (new.is_nan() || if largest { new > old } else { new < old })
}

/// The largest or lowest value of a kind; infinite for floats.
pub fn extreme_of(dtype: DType, largest: bool) -> f64 {
    if dtype.is_float() {
        return if largest { f64::INFINITY } else { f64::NEG_INFINITY };
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "constants saturate when they are written"
    )]
    let value = int_extreme_of(dtype, largest) as f64;
    value
}

/// The same as a scalar, exact for integers.
pub fn extreme(dtype: DType, largest: bool) -> HostTensor {
    if dtype.is_float() {
        from_values(dtype, &[], &[extreme_of(dtype, largest)])
    } else {
        from_values(dtype, &[], &[int_extreme_of(dtype, largest)])
    }
}

fn int_extreme_of(dtype: DType, largest: bool) -> i64 {
    let bits = match dtype {
        DType::Bool => return i64::from(largest),
        DType::I4 | DType::U4 => 4,
        DType::I2 | DType::U2 => 2,
        _ => 8 * dtype.size_bytes(),
    };
    match (dtype.is_signed_int(), largest) {
        (true, true) => i64::MAX >> (64 - bits),
        (true, false) => i64::MIN >> (64 - bits),
        (false, true) if bits == 64 => i64::MAX,
        (false, true) => (1 << bits) - 1,
        (false, false) => 0,
    }
}

fn arg_extreme(ctx: &EvalCtx<'_>, largest: bool) -> Result<Vec<Datum>, OpError> {
    let x = ctx.tensor(0)?;
    let axis = infer::axis(ctx.attrs, x.dims().len())?;
    let last = ctx.attrs.int("last") == Some(1);
    let lanes = Lanes::new(x.dims(), &[axis]);
    let positions = if x.dtype().is_float() {
        lanes.fold(&to_vec::<f64>(x), |lane| {
            first_where(lane, |old, new| {
                replaces(old, new, largest) || (last && new == old)
            })
        })
    } else {
        lanes.fold(&to_vec::<i64>(x), |lane| {
            first_where(lane, |old, new| {
                (last && new == old) || if largest { new > old } else { new < old }
            })
        })
    };
    let mut dims = x.dims().to_vec();
    dims[axis] = 1;
    one(from_values(DType::I64, &dims, &positions))
}

/// Position of the element that no later one `replaces`.
fn first_where<T: Copy>(lane: &mut dyn Iterator<Item = T>, replaces: impl Fn(T, T) -> bool) -> i64 {
    let mut best: Option<(i64, T)> = None;
    for (position, value) in (0..).zip(lane) {
        if best.is_none_or(|(_, old)| replaces(old, value)) {
            best = Some((position, value));
        }
    }
    best.map_or(0, |(position, _)| position)
}

fn infer_cumulated(ctx: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
    infer::axis(ctx.attrs, ctx.ty(0)?.rank())?;
    infer::number_unary(ctx)
}

/// Running folds, in `f64` or, for integers, in `i64`.
fn cumulated(
    ctx: &EvalCtx<'_>,
    start: f64,
    float: impl Fn(f64, f64) -> f64 + Sync,
    int_start: i64,
    int: impl Fn(i64, i64) -> i64 + Sync,
) -> Result<Vec<Datum>, OpError> {
    if ctx.tensor(0)?.dtype().is_float() {
        cumulated_as(ctx, start, float)
    } else {
        cumulated_as(ctx, int_start, int)
    }
}

fn cumulated_as<T: Number>(
    ctx: &EvalCtx<'_>,
    start: T,
    fold: impl Fn(T, T) -> T + Sync,
) -> Result<Vec<Datum>, OpError> {
    let x = ctx.tensor(0)?;
    let axis = infer::axis(ctx.attrs, x.dims().len())?;
    let exclusive = ctx.attrs.int("exclusive") == Some(1);
    let reverse = ctx.attrs.int("reverse") == Some(1);
    let lanes = Lanes::new(x.dims(), &[axis]);
    let folds = lanes.update(&to_vec::<T>(x), |lane| {
        let mut value = start;
        for step in 0..lane.len() {
            let position = if reverse { lane.len() - 1 - step } else { step };
            let next = fold(value, lane[position]);
            lane[position] = if exclusive { value } else { next };
            value = next;
        }
    });
    one(from_values(x.dtype(), x.dims(), &folds))
}

/// `at` with the coordinates of `axes` replaced.
pub fn replaced(at: &[Index], axes: &[usize], with: &[Index]) -> Vec<Index> {
    let mut coordinates = at.to_vec();
    for (&axis, index) in axes.iter().zip(with) {
        coordinates[axis] = index.clone();
    }
    coordinates
}

/// Extents of `axes` of operand `n`.
pub fn extents_of(ctx: &TileCtx<'_, '_>, n: usize, axes: &[usize]) -> Vec<Extent> {
    let extents = ctx.extents(n);
    axes.iter().map(|&axis| extents[axis].clone()).collect()
}

/// Attribute `axes` of a tile function, which inference has checked.
pub fn tile_axes(ctx: &TileCtx<'_, '_>) -> Vec<usize> {
    axes(ctx.attrs, ctx.operand(0).rank()).expect("infer() checked the axes")
}

fn tile_reduction(ctx: &mut TileCtx<'_, '_>, op: ReduceOp) -> ExprId {
    let axes = tile_axes(ctx);
    let (at, dtype) = (ctx.at, ctx.result.dtype);
    let extents = extents_of(ctx, 0, &axes);
    ctx.reduce(op, &extents, dtype, |ctx, inner| {
        ctx.read(0, &replaced(at, &axes, inner))
    })
}

fn tile_mean(ctx: &mut TileCtx<'_, '_>) -> ExprId {
    let sum = tile_reduction(ctx, ReduceOp::Sum);
    let axes = tile_axes(ctx);
    divided_by_count(ctx, sum, &axes)
}

/// `sum` divided by the number of elements along `axes` of operand 0.
pub fn divided_by_count(ctx: &mut TileCtx<'_, '_>, sum: ExprId, axes: &[usize]) -> ExprId {
    let dims = ctx.operand(0).dims();
    let count: usize = axes.iter().map(|&axis| dims[axis]).product();
    let dtype = ctx.result.dtype;
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    let count = count as f64;
    if dtype.is_float() {
        let factor = ctx.body.constant(dtype, 1.0 / count);
        ctx.body.map("mul", &[sum, factor], dtype)
    } else {
        let count = ctx.body.constant(dtype, count);
        ctx.body.map("div", &[sum, count], dtype)
    }
}

fn tile_axis(ctx: &TileCtx<'_, '_>) -> usize {
    infer::axis(ctx.attrs, ctx.operand(0).rank()).expect("infer() checked the axis")
}

fn tile_arg(ctx: &mut TileCtx<'_, '_>, op: ReduceOp) -> ExprId {
    let axes = [tile_axis(ctx)];
    let at = ctx.at;
    let extents = extents_of(ctx, 0, &axes);
    ctx.reduce(op, &extents, DType::I64, |ctx, inner| {
        ctx.read(0, &replaced(at, &axes, inner))
    })
}

/// The fold over the whole axis of what lies on the wanted side of the element; the rest
/// counts as `neutral`.
fn tile_cumulated(ctx: &mut TileCtx<'_, '_>, op: ReduceOp, neutral: f64) -> ExprId {
    let axes = [tile_axis(ctx)];
    let (at, dtype) = (ctx.at, ctx.result.dtype);
    let skipped = ctx.attrs.int("exclusive").unwrap_or(0);
    let reverse = ctx.attrs.int("reverse") == Some(1);
    let extents = extents_of(ctx, 0, &axes);
    ctx.reduce(op, &extents, dtype, |ctx, inner| {
        let value = ctx.read(0, &replaced(at, &axes, inner));
        let otherwise = ctx.body.constant(dtype, neutral);
        let own = &at[axes[0]];
        let distance = if reverse {
            inner[0].minus(own)
        } else {
            own.minus(&inner[0])
        };
        // Built directly: whether the condition holds depends on two variables of one extent.
        ctx.body.add(Expr::Select {
            conds: vec![Cond {
                index: distance.plus_known(-skipped),
                extent: extents[0].clone(),
            }],
            then: value,
            otherwise,
        })
    })
}

/// A number tensor without empty axes, and its rank.
fn draw_number(draw: &mut Draw, seed: u64) -> crate::ir::HostTensor {
    let dims = match seed {
        0 => vec![33],
        1 => vec![2, 130],
        _ => draw.dims(1..=4),
    };
    draw.tensor(super::samples::number_for(seed), &dims)
}

fn draw_reduction(seed: u64) -> Option<Sample> {
    let mut draw = Draw::for_seed(seed)?;
    let x = draw_number(&mut draw, seed);
    let rank = x.dims().len();
    let mut axes: Vec<usize> = (0..rank).filter(|_| draw.bool()).collect();
    if axes.is_empty() && seed != 5 {
        axes.push(rank - 1);
    }
    sample(vec![x], Attrs::new().with("axes", ints_attr(&axes)))
}

fn draw_axis(draw: &mut Draw, rank: usize) -> Attr {
    Attr::Int(i64::try_from(draw.below(rank)).expect("ranks are small"))
}

fn draw_arg(seed: u64) -> Option<Sample> {
    let mut draw = Draw::for_seed(seed)?;
    let x = draw_number(&mut draw, seed);
    let axis = draw_axis(&mut draw, x.dims().len());
    let last = Attr::Int(draw.int(0, 1));
    sample(vec![x], Attrs::new().with("axis", axis).with("last", last))
}

fn draw_cum_sum(seed: u64) -> Option<Sample> {
    let mut draw = Draw::for_seed(seed)?;
    let x = draw_number(&mut draw, seed);
    let axis = draw_axis(&mut draw, x.dims().len());
    let attrs = Attrs::new()
        .with("axis", axis)
        .with("exclusive", Attr::Int(draw.int(0, 1)))
        .with("reverse", Attr::Int(draw.int(0, 1)));
    sample(vec![x], attrs)
}

/// Factors around one, so that products stay in range.
fn draw_cum_prod(seed: u64) -> Option<Sample> {
    let mut sample = draw_cum_sum(seed)?;
    let x = sample.operands[0].as_ref()?;
    let (dtype, dims) = (x.dtype(), x.dims().to_vec());
    let mut draw = Draw::new(seed + 50);
    sample.operands[0] = Some(if dtype.is_float() {
        draw.floats(dtype, &dims, 0.8, 1.2)
    } else {
        draw.ints(dtype, &dims, 1, 2)
    });
    Some(sample)
}
