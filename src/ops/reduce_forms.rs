//! ONNX's reductions, arg-extremes, cumulative sum and softmaxes.

use super::bounded::{BoundedCtx, BoundedResults};
use super::build::{FORM, axis_attr, int_attr, optional_attr};
use super::evaluate::{index_list, scalar};
use super::{AttrDef, AttrKind, BoundedForm, ExpandCtx, Lowering, OnnxOp, OpDef, OpError, Operands, infer};
use crate::ir::{Attr, DType, HostTensor, ValueId};

const REDUCE_ATTRS: &[AttrDef] = &[
    optional_attr("axes", AttrKind::Ints),
    int_attr("keepdims", 1),
    int_attr("noop_with_empty_axes", 0),
];

/// What ONNX's reductions have in common. Axes are an attribute before opset 18 (13 for the
/// sum) and an operand since.
const REDUCE: OpDef = OpDef {
    operands: Operands::with_optional(&["x"], &["axes"]),
    attrs: REDUCE_ATTRS,
    ..FORM
};

macro_rules! reductions {
    ($($doc:literal $static:ident $name:literal $expand:expr;)*) => {
        $(
            #[doc = $doc]
            pub static $static: OpDef = OpDef {
                name: $name,
                onnx: &[OnnxOp::new($name)],
                lower: Lowering::Expand($expand),
                ..REDUCE
            };
        )*
    };
}

reductions! {
    "The sum." SUM "ReduceSum" |ctx| reduce(ctx, |ctx, x, axes| ctx.reduce("reduce_sum", x, axes));
    "The product." PROD "ReduceProd" |ctx| reduce(ctx, |ctx, x, axes| ctx.reduce("reduce_prod", x, axes));
    "The largest element." MAX "ReduceMax" |ctx| reduce(ctx, |ctx, x, axes| ctx.reduce("reduce_max", x, axes));
    "The smallest element." MIN "ReduceMin" |ctx| reduce(ctx, |ctx, x, axes| ctx.reduce("reduce_min", x, axes));
    "The sum of absolute values." L1 "ReduceL1" |ctx| reduce(ctx, |ctx, x, axes| {
        let x = ctx.plain("abs", &[x])?;
        ctx.reduce("reduce_sum", x, axes)
    });
    "The root of the sum of squares." L2 "ReduceL2" |ctx| reduce(ctx, |ctx, x, axes| {
        in_float(ctx, x, |ctx, x| {
            let sum = sum_of_squares(ctx, x, axes)?;
            ctx.plain("sqrt", &[sum])
        })
    });
    "The sum of squares." SUM_SQUARE "ReduceSumSquare" |ctx| reduce(ctx, sum_of_squares);
    "The logarithm of the sum." LOG_SUM "ReduceLogSum" |ctx| reduce(ctx, |ctx, x, axes| {
        in_float(ctx, x, |ctx, x| {
            let sum = ctx.reduce("reduce_sum", x, axes)?;
            ctx.plain("log", &[sum])
        })
    });
    "The logarithm of the sum of exponentials." LOG_SUM_EXP "ReduceLogSumExp" |ctx| reduce(ctx, |ctx, x, axes| {
        in_float(ctx, x, |ctx, x| log_sum_exp(ctx, x, axes))
    });
}

/// The mean.
pub static MEAN: OpDef = OpDef {
    name: "ReduceMean",
    onnx: &[OnnxOp::new("ReduceMean")],
    lower: Lowering::Bounded(BoundedForm {
        expand: bounded_mean,
        exact: Some(|ctx| reduce(ctx, |ctx, x, axes| ctx.reduce("reduce_mean", x, axes))),
        reason: super::sized_forms::COMPUTED,
    }),
    ..REDUCE
};

/// Position of the largest element.
pub static ARG_MAX: OpDef = OpDef {
    name: "ArgMax",
    onnx: &[OnnxOp::new("ArgMax")],
    attrs: &[
        int_attr("axis", 0),
        int_attr("keepdims", 1),
        int_attr("select_last_index", 0),
    ],
    lower: Lowering::Expand(|ctx| arg(ctx, "arg_max")),
    ..FORM
};

/// Position of the smallest element.
pub static ARG_MIN: OpDef = OpDef {
    name: "ArgMin",
    onnx: &[OnnxOp::new("ArgMin")],
    attrs: &[
        int_attr("axis", 0),
        int_attr("keepdims", 1),
        int_attr("select_last_index", 0),
    ],
    lower: Lowering::Expand(|ctx| arg(ctx, "arg_min")),
    ..FORM
};

/// Running sums along the axis that operand 1 names.
pub static CUM_SUM: OpDef = OpDef {
    name: "CumSum",
    onnx: &[OnnxOp::new("CumSum")],
    operands: Operands::exactly(&["x", "axis"]),
    attrs: &[int_attr("exclusive", 0), int_attr("reverse", 0)],
    lower: Lowering::Expand(|ctx| cumulated(ctx, "cum_sum")),
    ..FORM
};

/// Running products along the axis that operand 1 names.
pub static CUM_PROD: OpDef = OpDef {
    name: "CumProd",
    onnx: &[OnnxOp::new("CumProd")],
    operands: Operands::exactly(&["x", "axis"]),
    attrs: &[int_attr("exclusive", 0), int_attr("reverse", 0)],
    lower: Lowering::Expand(|ctx| cumulated(ctx, "cum_prod")),
    ..FORM
};

/// Softmax along `axis`; before opset 13, over all axes from `axis` on.
pub static SOFTMAX: OpDef = OpDef {
    name: "Softmax",
    onnx: &[OnnxOp::new("Softmax")],
    attrs: &[optional_attr("axis", AttrKind::Int)],
    lower: Lowering::Expand(|ctx| over_axis(ctx, |ctx, x, axis| along(ctx, "softmax", x, axis))),
    ..FORM
};

/// The logarithm of [`SOFTMAX`].
pub static LOG_SOFTMAX: OpDef = OpDef {
    name: "LogSoftmax",
    onnx: &[OnnxOp::new("LogSoftmax")],
    attrs: &[optional_attr("axis", AttrKind::Int)],
    lower: Lowering::Expand(|ctx| over_axis(ctx, |ctx, x, axis| along(ctx, "log_softmax", x, axis))),
    ..FORM
};

/// One at the first largest element, zero elsewhere; axes as [`SOFTMAX`].
pub static HARDMAX: OpDef = OpDef {
    name: "Hardmax",
    onnx: &[OnnxOp::new("Hardmax")],
    attrs: &[optional_attr("axis", AttrKind::Int)],
    lower: Lowering::Expand(|ctx| over_axis(ctx, hardmax)),
    ..FORM
};

pub static OPS: &[&OpDef] = &[
    &SUM,
    &MEAN,
    &PROD,
    &MAX,
    &MIN,
    &L1,
    &L2,
    &SUM_SQUARE,
    &LOG_SUM,
    &LOG_SUM_EXP,
    &ARG_MAX,
    &ARG_MIN,
    &CUM_SUM,
    &CUM_PROD,
    &SOFTMAX,
    &LOG_SOFTMAX,
    &HARDMAX,
];

/// Axes from the operand or the attribute; all where none are named.
fn axes(ctx: &ExpandCtx<'_>, rank: usize) -> Result<Vec<usize>, OpError> {
    let named = match ctx.constant(1)? {
        Some(axes) => index_list(&axes)?,
        None => ctx.attrs.ints("axes").unwrap_or_default().to_vec(),
    };
    if named.is_empty() && infer::int(ctx.attrs, "noop_with_empty_axes")? == 0 {
        return Ok((0..rank).collect());
    }
    infer::normalize_axes(&named, rank)
}

/// The mean of elements of which data decides how many there are.
fn bounded_mean(ctx: &mut BoundedCtx<'_, '_>) -> Result<BoundedResults, OpError> {
    let x = ctx.value(0)?;
    let dtype = ctx.dtype_of(x);
    let axes = axes(ctx, ctx.dims_of(x).len())?;
    let mut count = ctx.known_size(1);
    for &axis in &axes {
        let extent = ctx.extent(0, axis)?;
        count = ctx.combined("mul", &count, &extent)?;
    }
    let count = ctx.cast(count.value, dtype)?;
    let present = ctx.masked(x, 0, scalar(dtype, 0.0))?;
    let values = reduce(ctx, |ctx, _, axes| {
        let sum = ctx.reduce("reduce_sum", present, axes)?;
        ctx.binary("div", sum, count)
    })?;
    let keeps = infer::int(ctx.attrs, "keepdims")? != 0;
    let mut counted = ctx.counted[0].clone();
    counted.retain(|own| !axes.contains(&own.axis));
    if !keeps {
        for own in &mut counted {
            own.axis -= axes.iter().filter(|&&axis| axis < own.axis).count();
        }
    }
    Ok(BoundedResults {
        counted: vec![counted; values.len()],
        values,
        limits: Vec::new(),
    })
}

fn reduce(
    ctx: &mut ExpandCtx<'_>,
    with: impl Fn(&mut ExpandCtx<'_>, ValueId, &[usize]) -> Result<ValueId, OpError>,
) -> Result<Vec<ValueId>, OpError> {
    let x = ctx.value(0)?;
    let dims = ctx.dims_of(x);
    let axes = axes(ctx, dims.len())?;
    let result = with(ctx, x, &axes)?;
    if infer::int(ctx.attrs, "keepdims")? != 0 {
        return Ok(vec![result]);
    }
    let kept: Vec<usize> = (0..dims.len())
        .filter(|axis| !axes.contains(axis))
        .map(|axis| dims[axis])
        .collect();
    Ok(vec![ctx.reshape(result, &kept)?])
}

/// Computes on a float kind, and converts back to the kind of `x`.
fn in_float(
    ctx: &mut ExpandCtx<'_>,
    x: ValueId,
    with: impl Fn(&mut ExpandCtx<'_>, ValueId) -> Result<ValueId, OpError>,
) -> Result<ValueId, OpError> {
    let dtype = ctx.dtype_of(x);
    let x = if dtype.is_float() {
        x
    } else {
        ctx.cast(x, DType::F64)?
    };
    let result = with(ctx, x)?;
    ctx.cast(result, dtype)
}

fn sum_of_squares(ctx: &mut ExpandCtx<'_>, x: ValueId, axes: &[usize]) -> Result<ValueId, OpError> {
    let square = ctx.binary("mul", x, x)?;
    ctx.reduce("reduce_sum", square, axes)
}

/// Shifted by the maximum, so that the exponentials do not overflow.
fn log_sum_exp(ctx: &mut ExpandCtx<'_>, x: ValueId, axes: &[usize]) -> Result<ValueId, OpError> {
    let max = ctx.reduce("reduce_max", x, axes)?;
    let infinite = ctx.plain("is_inf", &[max])?;
    let zero = ctx.scalar(ctx.dtype_of(x), 0.0);
    let shift = ctx.plain("where", &[infinite, zero, max])?;
    let shifted = ctx.binary("sub", x, shift)?;
    let exp = ctx.plain("exp", &[shifted])?;
    let sum = ctx.reduce("reduce_sum", exp, axes)?;
    let log = ctx.plain("log", &[sum])?;
    ctx.binary("add", log, shift)
}

fn along(ctx: &mut ExpandCtx<'_>, op: &'static str, x: ValueId, axis: usize) -> Result<ValueId, OpError> {
    ctx.emit(op, &[x], axis_attr(axis))
}

fn arg(ctx: &mut ExpandCtx<'_>, op: &'static str) -> Result<Vec<ValueId>, OpError> {
    let x = ctx.value(0)?;
    let mut dims = ctx.dims_of(x);
    let axis = infer::axis(ctx.attrs, dims.len())?;
    let last = infer::int(ctx.attrs, "select_last_index")?;
    let result = ctx.emit(op, &[x], axis_attr(axis).with("last", Attr::Int(last)))?;
    if infer::int(ctx.attrs, "keepdims")? != 0 {
        return Ok(vec![result]);
    }
    dims.remove(axis);
    Ok(vec![ctx.reshape(result, &dims)?])
}

fn cumulated(ctx: &mut ExpandCtx<'_>, op: &'static str) -> Result<Vec<ValueId>, OpError> {
    let x = ctx.value(0)?;
    let axis = ctx.constant(1)?.map(|axis| index_list(&axis)).transpose()?;
    let Some([axis]) = axis.as_deref() else {
        return Err(OpError::invalid(
            "the axis of a cumulative operator must be one integer",
        ));
    };
    let axis = infer::normalize_axis(*axis, ctx.dims_of(x).len())?;
    let attrs = axis_attr(axis)
        .with("exclusive", Attr::Int(infer::int(ctx.attrs, "exclusive")?))
        .with("reverse", Attr::Int(infer::int(ctx.attrs, "reverse")?));
    Ok(vec![ctx.emit(op, &[x], attrs)?])
}

fn over_axis(
    ctx: &mut ExpandCtx<'_>,
    with: fn(&mut ExpandCtx<'_>, ValueId, usize) -> Result<ValueId, OpError>,
) -> Result<Vec<ValueId>, OpError> {
    let x = ctx.value(0)?;
    let dims = ctx.dims_of(x);
    if dims.is_empty() {
        let flat = ctx.reshape(x, &[1])?;
        let result = with(ctx, flat, 0)?;
        return Ok(vec![ctx.reshape(result, &dims)?]);
    }
    let default = if ctx.opset < 13 { 1 } else { -1 };
    let axis = ctx.attrs.int("axis").unwrap_or(default);
    if ctx.opset >= 13 || axis == -1 {
        let axis = infer::normalize_axis(axis, dims.len())?;
        return Ok(vec![with(ctx, x, axis)?]);
    }
    // An axis of `rank` leaves nothing to normalise over.
    let signed_rank = i64::try_from(dims.len()).expect("ranks are small");
    let axis = if axis == signed_rank {
        dims.len()
    } else {
        infer::normalize_axis(axis, dims.len())?
    };
    if axis + 1 == dims.len() {
        return Ok(vec![with(ctx, x, axis)?]);
    }
    let flat = [dims[..axis].iter().product(), dims[axis..].iter().product()];
    let flat = ctx.reshape(x, &flat)?;
    let result = with(ctx, flat, 1)?;
    Ok(vec![ctx.reshape(result, &dims)?])
}

fn hardmax(ctx: &mut ExpandCtx<'_>, x: ValueId, axis: usize) -> Result<ValueId, OpError> {
    let dims = ctx.dims_of(x);
    let best = ctx.emit("arg_max", &[x], axis_attr(axis).with("last", Attr::Int(0)))?;
    let places: Vec<i64> = (0..).take(dims[axis]).collect();
    let places = ctx.weight(HostTensor::from_i64(&[dims[axis]], &places));
    let places = ctx.along_axis(places, axis, dims.len())?;
    let chosen = ctx.binary("equal", best, places)?;
    let dtype = ctx.dtype_of(x);
    ctx.cast(chosen, dtype)
}
