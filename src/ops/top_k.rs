//! The largest or smallest elements of an axis, by counting for each element how many come
//! before it. That is quadratic in the extent, and needs neither a sort nor shared state.

use super::bounded::{BoundedCtx, BoundedResults, Counted, Size};
use super::build::{FORM, int_attr, optional_attr, required_attr};
use super::evaluate::{from_values, one, to_vec};
use super::lanes::Lanes;
use super::reduce::{extents_of, extreme, replaced};
use super::samples::{self, Draw};
use super::{
    AttrKind, BoundedForm, Datum, EvalCtx, ExpandCtx, Lowering, OnnxOp, OpDef, OpError, Operands, Reach,
    Sample, TileKind, Tolerance, infer, sized_forms,
};
use crate::ir::{Attr, Attrs, DType, TensorType, ValueId};
use crate::tile::{Expr, ExprId, ReduceOp, TileCtx};
use std::cmp::Ordering;

/// Where each element goes when its axis is sorted: ascending, or descending with `largest`.
/// Equal elements keep their order; NaN is larger than every number.
pub static SORT_POSITION: OpDef = OpDef {
    name: "sort_position",
    onnx: &[],
    operands: Operands::exactly(&["x"]),
    attrs: &[required_attr("axis", AttrKind::Int), int_attr("largest", 1)],
    infer: |ctx| {
        infer::number_unary(ctx)?;
        infer::axis(ctx.attrs, ctx.ty(0)?.rank())?;
        Ok(vec![TensorType::new(DType::I64, &ctx.dims(0)?)])
    },
    eval: eval_position,
    lower: Lowering::Tile(TileKind::Reduce, tile_position),
    samples: sample_position,
    tolerance: Tolerance::Exact,
    halves: None,
    reach: Reach::Elements,
};

/// `TopK`: values and indices, always sorted. `k` is an attribute before opset 10.
pub static TOP_K: OpDef = OpDef {
    name: "TopK",
    onnx: &[OnnxOp::new("TopK")],
    operands: Operands::with_optional(&["x"], &["k"]),
    attrs: &[
        int_attr("axis", -1),
        optional_attr("k", AttrKind::Int),
        int_attr("largest", 1),
        int_attr("sorted", 1),
    ],
    lower: Lowering::Bounded(BoundedForm {
        expand: bounded_top_k,
        exact: Some(top_k),
        reason: sized_forms::COMPUTED,
    }),
    ..FORM
};

pub static OPS: &[&OpDef] = &[&SORT_POSITION, &TOP_K];

fn top_k(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let x = ctx.value(0)?;
    let dims = ctx.dims_of(x);
    let axis = infer::axis(ctx.attrs, dims.len())?;
    let count = match ctx.attrs.int("k") {
        Some(count) => Some(count),
        None => ctx.constant_int(1)?,
    };
    let extent = dims[axis];
    let count = count
        .and_then(|count| usize::try_from(count).ok())
        .filter(|&count| count <= extent)
        .ok_or_else(|| OpError::invalid(format!("{count:?} of {extent} elements")))?;
    let largest = infer::int(ctx.attrs, "largest")? != 0;
    let index = sorted(ctx, x, axis, largest, count)?;
    let mut results = vec![ctx.gathered("gather_elements", x, index, axis)?, index];
    results.truncate(ctx.n_results);
    Ok(results)
}

/// Where the first `count` elements of an axis lie when it is sorted.
///
/// # Errors
/// If the kind has no order.
pub fn sorted(
    ctx: &mut ExpandCtx<'_>,
    x: ValueId,
    axis: usize,
    largest: bool,
    count: usize,
) -> Result<ValueId, OpError> {
    let position = position(ctx, x, axis, largest)?;
    inverse(ctx, position, axis, count)
}

/// Where each element goes when an axis is sorted.
///
/// # Errors
/// If the kind has no order.
pub fn position(ctx: &mut ExpandCtx<'_>, x: ValueId, axis: usize, largest: bool) -> Result<ValueId, OpError> {
    let attrs = super::build::axis_attr(axis).with("largest", Attr::Int(i64::from(largest)));
    ctx.emit("sort_position", &[x], attrs)
}

/// `TopK` with a number that is computed, or of an axis that is as long as data says.
fn bounded_top_k(ctx: &mut BoundedCtx<'_, '_>) -> Result<BoundedResults, OpError> {
    let x = ctx.value(0)?;
    let dims = ctx.dims_of(x);
    let axis = infer::axis(ctx.attrs, dims.len())?;
    let largest = infer::int(ctx.attrs, "largest")? != 0;
    let wanted = wanted(ctx)?;
    let extent = ctx.extent(0, axis)?;
    let beyond = ctx.combined("sub", &wanted, &extent)?;
    let most = wanted.amount.most().unwrap_or(dims[axis]).min(dims[axis]);
    let x = behind_all(ctx, x, axis, largest)?;
    let index = sorted(ctx, x, axis, largest, most)?;
    let mut values = vec![ctx.gathered("gather_elements", x, index, axis)?, index];
    values.truncate(ctx.n_results);
    let mut counted = ctx.other_counts(0, axis);
    if wanted.amount.as_known().is_none() {
        counted.push(Counted {
            axis,
            count: wanted.value,
        });
    }
    if beyond.amount.low > 0.0 || wanted.amount.high < 0.0 {
        return Err(OpError::invalid("`k` is not within the axis"));
    }
    let mut limits = Vec::new();
    if beyond.amount.high > 0.0 {
        limits.push((beyond.value, "`k` beyond the axis".to_owned()));
    }
    Ok(BoundedResults {
        counted: vec![counted; values.len()],
        values,
        limits,
    })
}

/// How many elements are asked for: an attribute up to opset 9.
fn wanted(ctx: &mut BoundedCtx<'_, '_>) -> Result<Size, OpError> {
    if let Some(count) = ctx.attrs.int("k") {
        return Ok(ctx.known_size(count));
    }
    match &ctx.sizes("", 1)?.unwrap_or_default()[..] {
        [wanted] => Ok(wanted.clone()),
        _ => Err(OpError::invalid("`k` must be one number")),
    }
}

/// `x`, of which elements along `axis` that are not there come last when it is sorted.
fn behind_all(
    ctx: &mut BoundedCtx<'_, '_>,
    x: ValueId,
    axis: usize,
    largest: bool,
) -> Result<ValueId, OpError> {
    let Some(count) = ctx.count_along(0, axis) else {
        return Ok(x);
    };
    let (dims, dtype) = (ctx.dims_of(x), ctx.dtype_of(x));
    let last = match (dtype.is_float(), largest) {
        (true, true) => ctx.scalar(dtype, f64::NEG_INFINITY),
        // Larger than every number.
        (true, false) => ctx.scalar(dtype, f64::NAN),
        (false, _) => ctx.weight(extreme(dtype, !largest)),
    };
    let present = ctx.present(dims[axis], count)?;
    let present = ctx.along_axis(present, axis, dims.len())?;
    ctx.select(present, x, last)
}

/// Which element has position 0, 1, .., `count - 1` along `axis`.
///
/// # Errors
/// If `position` are no integers.
pub fn inverse(
    ctx: &mut ExpandCtx<'_>,
    position: ValueId,
    axis: usize,
    count: usize,
) -> Result<ValueId, OpError> {
    let mut dims = ctx.dims_of(position);
    let extent = dims[axis];
    dims.insert(axis + 1, 1);
    let position = ctx.reshape(position, &dims)?;
    let mut own = vec![1; dims.len() - axis];
    own[0] = extent;
    let elements = ctx.counted_up(0, 1, &own)?;
    own[0] = count;
    let wanted = ctx.counted_up(0, 1, &own[..own.len() - 1])?;
    let found = ctx.binary("equal", position, wanted)?;
    let nothing = ctx.integers(&[], &[0]);
    let index = ctx.select(found, elements, nothing)?;
    ctx.dropped("reduce_sum", index, &[axis])
}

fn eval_position(ctx: &EvalCtx<'_>) -> Result<Vec<Datum>, OpError> {
    let x = ctx.tensor(0)?;
    let axis = infer::axis(ctx.attrs, x.dims().len())?;
    let largest = ctx.attrs.int("largest") != Some(0);
    let lanes = Lanes::new(x.dims(), &[axis]);
    let positions = if x.dtype().is_float() {
        positions(&lanes, &to_vec::<f64>(x), largest, |a, b| {
            a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
        })
    } else if x.dtype() == DType::U64 {
        positions(&lanes, &to_vec::<u64>(x), largest, |a, b| a.cmp(&b))
    } else {
        positions(&lanes, &to_vec::<i64>(x), largest, |a, b| a.cmp(&b))
    };
    one(from_values(DType::I64, x.dims(), &positions))
}

fn positions<T: Copy + Send + Sync>(
    lanes: &Lanes,
    values: &[T],
    largest: bool,
    compare: impl Fn(T, T) -> Ordering + Sync,
) -> Vec<i64> {
    let sorted = lanes.fold(values, |lane| {
        let lane: Vec<T> = lane.collect();
        let mut order: Vec<usize> = (0..lane.len()).collect();
        order.sort_by(|&a, &b| {
            let order = compare(lane[a], lane[b]);
            if largest { order.reverse() } else { order }
        });
        let mut positions = vec![0i64; lane.len()];
        for (position, element) in (0..).zip(order) {
            positions[element] = position;
        }
        positions
    });
    lanes.scatter(&sorted.concat())
}

/// The number of elements along the axis that come before this one.
fn tile_position(ctx: &mut TileCtx<'_, '_>) -> ExprId {
    let dtype = ctx.operand(0).dtype;
    let axes = [infer::axis(ctx.attrs, ctx.operand(0).rank()).expect("infer() checked the axis")];
    let largest = ctx.attrs.int("largest") != Some(0);
    let at = ctx.at;
    let own = ctx.read(0, at);
    let extents = extents_of(ctx, 0, &axes);
    ctx.reduce(ReduceOp::Sum, &extents, DType::I64, |ctx, inner| {
        let other = ctx.read(0, &replaced(at, &axes, inner));
        let (high, low) = if largest { (other, own) } else { (own, other) };
        let beyond = above(ctx, high, low, dtype);
        let same = alike(ctx, other, own, dtype);
        let positions = [&inner[0], &at[axes[0]]].map(|index| ctx.body.add(Expr::IndexValue(index.clone())));
        let earlier = ctx.body.map("less", &positions, DType::Bool);
        let tied = ctx.body.map("and", &[same, earlier], DType::Bool);
        let before = ctx.body.map("or", &[beyond, tied], DType::Bool);
        let counts = [1.0, 0.0].map(|count| ctx.body.constant(DType::I64, count));
        ctx.body.map("where", &[before, counts[0], counts[1]], DType::I64)
    })
}

/// Whether `a` is larger than `b`, NaN being the largest.
fn above(ctx: &mut TileCtx<'_, '_>, a: ExprId, b: ExprId, dtype: DType) -> ExprId {
    let greater = ctx.body.map("greater", &[a, b], DType::Bool);
    if !dtype.is_float() {
        return greater;
    }
    let [nan, other] = [a, b].map(|value| ctx.body.map("is_nan", &[value], DType::Bool));
    let number = ctx.body.map("not", &[other], DType::Bool);
    let only = ctx.body.map("and", &[nan, number], DType::Bool);
    ctx.body.map("or", &[greater, only], DType::Bool)
}

/// Whether neither is larger.
fn alike(ctx: &mut TileCtx<'_, '_>, a: ExprId, b: ExprId, dtype: DType) -> ExprId {
    let equal = ctx.body.map("equal", &[a, b], DType::Bool);
    if !dtype.is_float() {
        return equal;
    }
    let nans = [a, b].map(|value| ctx.body.map("is_nan", &[value], DType::Bool));
    let both = ctx.body.map("and", &nans, DType::Bool);
    ctx.body.map("or", &[equal, both], DType::Bool)
}

/// Elements that tie, and some NaN.
fn sample_position(seed: u64) -> Option<Sample> {
    let mut draw = Draw::for_seed(seed)?;
    let dims = match seed {
        0 => vec![33],
        1 => vec![2, 0, 3],
        _ => draw.dims(1..=4),
    };
    let dtype = samples::number_for(seed);
    let x = if dtype.is_float() {
        draw.wild_floats(dtype, &dims)
    } else {
        draw.ints(dtype, &dims, 0, 5)
    };
    let axis = Attr::Int(draw.int(0, 7) % i64::try_from(dims.len()).ok()?);
    let attrs = Attrs::new()
        .with("axis", axis)
        .with("largest", Attr::Int(draw.int(0, 1)));
    samples::sample(vec![x], attrs)
}
