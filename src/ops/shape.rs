//! Tensors made from shapes and numbers: their expansions are constants, or a map over one.

use super::arguments::sizes_operand;
use super::arithmetic_forms::FORM;
use super::bounded::{BoundedCtx, BoundedResults, Counted};
use super::build::{int_attr, optional_attr, signed};
use super::compaction::Kept;
use super::evaluate::{from_values, one, scalar, to_vec};
use super::{
    AttrKind, BoundedForm, Datum, EvalCtx, ExpandCtx, InferCtx, Lowering, OnnxOp, OpDef, OpError, Operands,
    infer, sized_forms,
};
use crate::ir::{DType, HostTensor, TensorType, ValueId};

/// `Shape`: the extents from `start` on, before `end`.
pub static SHAPE: OpDef = OpDef {
    name: "Shape",
    onnx: &[OnnxOp::new("Shape")],
    attrs: &[int_attr("start", 0), optional_attr("end", AttrKind::Int)],
    lower: Lowering::Bounded(BoundedForm {
        expand: sized_forms::shape,
        exact: Some(expand_shape),
        reason: sized_forms::COMPUTED,
    }),
    ..FORM
};

pub static SIZE: OpDef = OpDef {
    name: "Size",
    onnx: &[OnnxOp::new("Size")],
    lower: Lowering::Bounded(BoundedForm {
        expand: sized_forms::size,
        exact: Some(expand_size),
        reason: sized_forms::COMPUTED,
    }),
    ..FORM
};

pub static CONSTANT_OF_SHAPE: OpDef = OpDef {
    name: "ConstantOfShape",
    onnx: &[OnnxOp::new("ConstantOfShape")],
    operands: Operands::exactly(&["shape"]),
    attrs: &[optional_attr("value", AttrKind::Tensor)],
    lower: Lowering::Bounded(BoundedForm {
        expand: sized_forms::constant_of_shape,
        exact: Some(expand_constant_of_shape),
        reason: sized_forms::COMPUTED,
    }),
    ..FORM
};

pub static RANGE: OpDef = OpDef {
    name: "Range",
    onnx: &[OnnxOp::new("Range")],
    operands: Operands::exactly(&["start", "limit", "delta"]),
    attrs: &[optional_attr("stash_type", AttrKind::Int)],
    lower: Lowering::Bounded(BoundedForm {
        expand: sized_forms::range,
        exact: Some(expand_range),
        reason: sized_forms::COMPUTED,
    }),
    ..FORM
};

pub static EYE_LIKE: OpDef = OpDef {
    name: "EyeLike",
    onnx: &[OnnxOp::new("EyeLike")],
    attrs: &[optional_attr("dtype", AttrKind::DType), int_attr("k", 0)],
    lower: Lowering::Expand(expand_eye_like),
    ..FORM
};

/// `OneHot`: `on` where the position along a new axis is the index, `off` elsewhere.
pub static ONE_HOT: OpDef = OpDef {
    name: "OneHot",
    onnx: &[OnnxOp::new("OneHot")],
    operands: Operands::exactly(&["index", "depth", "values"]),
    attrs: &[int_attr("axis", -1)],
    lower: Lowering::Expand(expand_one_hot),
    ..FORM
};

/// `Trilu`: one side of the diagonal, zero on the other.
pub static TRILU: OpDef = OpDef {
    name: "Trilu",
    onnx: &[OnnxOp::new("Trilu")],
    operands: Operands::with_optional(&["x"], &["k"]),
    attrs: &[int_attr("upper", 1)],
    lower: Lowering::Expand(expand_trilu),
    ..FORM
};

/// `NonZero`: the coordinates of every element that is not zero, one row per axis.
pub static NON_ZERO: OpDef = OpDef {
    name: "NonZero",
    onnx: &[OnnxOp::new("NonZero")],
    infer: |_| Err(OpError::NeedsConstant { operand: 0 }),
    eval: eval_non_zero,
    lower: Lowering::Bounded(BoundedForm {
        expand: expand_non_zero,
        exact: None,
        reason: "the number of coordinates `NonZero` yields depends on run-time data",
    }),
    ..FORM
};

/// Inference of ops whose result types depend on data.
pub fn data_dependent(_: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
    Err(OpError::NeedsConstant { operand: 0 })
}

fn expand_shape(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let dims = infer::known_dims(&ctx.ty(0)?)?;
    let rank = signed(dims.len());
    let limited = |position: i64| {
        let from_front = if position < 0 { position + rank } else { position };
        usize::try_from(from_front.clamp(0, rank)).expect("it is limited to the rank")
    };
    let start = limited(infer::int(ctx.attrs, "start")?);
    let end = ctx.attrs.int("end").map_or(dims.len(), limited);
    let extents: Vec<i64> = dims[start..end.max(start)].iter().copied().map(signed).collect();
    Ok(vec![ctx.weight(HostTensor::from_i64(&[extents.len()], &extents))])
}

fn expand_size(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let dims = infer::known_dims(&ctx.ty(0)?)?;
    let size = HostTensor::from_i64(&[], &[signed(dims.iter().product())]);
    Ok(vec![ctx.weight(size)])
}

fn expand_constant_of_shape(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let value = ctx.attrs.tensor("value").cloned();
    let value = value.unwrap_or_else(|| scalar(DType::F32, 0.0));
    let dims = sizes_operand(ctx, 0)?;
    let value = ctx.weight(value);
    let value = ctx.reshape(value, &[])?;
    Ok(vec![ctx.expand(value, &dims)?])
}

fn expand_range(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let dtype = ctx.ty(0)?.dtype;
    let operand = |n: usize| -> Result<HostTensor, OpError> {
        let data = ctx
            .constant(n)?
            .ok_or_else(|| OpError::invalid(format!("operand {n} is missing")))?;
        match data.n_elements() {
            1 => Ok(data),
            count => Err(OpError::invalid(format!(
                "operand {n} must be a scalar, found {count} elements"
            ))),
        }
    };
    let operands = [operand(0)?, operand(1)?, operand(2)?];
    let range = if dtype.is_float() {
        let [start, limit, delta] = operands.map(|data| to_vec::<f64>(&data)[0]);
        let count = range_count(((limit - start) / delta).ceil())?;
        #[expect(clippy::cast_precision_loss, reason = "counts are below 2^53")]
        let values: Vec<f64> = (0..count).map(|n| start + n as f64 * delta).collect();
        from_values(dtype, &[count], &values)
    } else {
        let [start, limit, delta] = operands.map(|data| to_vec::<i64>(&data)[0]);
        if delta == 0 {
            return Err(OpError::invalid("a range has a step of zero"));
        }
        let span = i128::from(limit) - i128::from(start);
        let steps = if (span > 0) == (delta > 0) {
            span.unsigned_abs()
        } else {
            0
        };
        let count = steps.div_ceil(u128::from(delta.unsigned_abs()));
        #[expect(clippy::cast_precision_loss, reason = "it is only compared with a limit")]
        let count = range_count(count as f64)?;
        let values: Vec<i64> = (0..)
            .take(count)
            .map(|n: i64| start.wrapping_add(n.wrapping_mul(delta)))
            .collect();
        from_values(dtype, &[count], &values)
    };
    Ok(vec![ctx.weight(range)])
}

/// A count as a size. Ranges are constants, so absurd ones are refused before they are made.
fn range_count(count: f64) -> Result<usize, OpError> {
    if count.is_nan() {
        return Err(OpError::unsupported(format!("a range of {count} elements")));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "what is larger than a size is too large for a table"
    )]
    infer::table_entries(&[count.max(0.0) as usize])
}

fn expand_eye_like(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let ty = ctx.ty(0)?;
    let dims = infer::known_dims(&ty)?;
    let [rows, columns] = dims[..] else {
        return Err(OpError::invalid(format!("expected a matrix, found `{ty}`")));
    };
    let k = infer::int(ctx.attrs, "k")?;
    let dtype = ctx.attrs.dtype("dtype").unwrap_or(ty.dtype);
    let values: Vec<i64> = diagonals(rows, columns)?
        .map(|diagonal| i64::from(diagonal == k))
        .collect();
    Ok(vec![ctx.weight(from_values(dtype, &dims, &values))])
}

/// Column minus row of every element of a matrix, row by row.
///
/// # Errors
/// If they are too many for a table.
fn diagonals(rows: usize, columns: usize) -> Result<impl Iterator<Item = i64>, OpError> {
    infer::table_entries(&[rows, columns])?;
    Ok((0..signed(rows)).flat_map(move |row| (0..signed(columns)).map(move |column| column - row)))
}

fn expand_one_hot(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let (index, values) = (ctx.value(0)?, ctx.value(2)?);
    let depth = ctx
        .constant(1)?
        .ok_or_else(|| OpError::invalid("the depth is missing"))?;
    let [depth] = to_vec::<i64>(&depth)[..] else {
        return Err(OpError::invalid("the depth must be one number"));
    };
    let mut dims = ctx.dims_of(index);
    let axis = infer::axis(ctx.attrs, dims.len() + 1)?;
    dims.insert(axis, 1);
    let mut along = vec![1; dims.len()];
    along[axis] = usize::try_from(depth).unwrap_or(0);
    let positions: Vec<i64> = (0..depth).collect();
    let positions = ctx.weight(HostTensor::from_i64(&along, &positions));
    let index = ctx.cast(index, DType::I64)?;
    let index = ctx.reshape(index, &dims)?;
    // Indices from -depth on count from the end; those outside match nothing.
    let depth = ctx.scalar_int(depth);
    let from_end = ctx.plain("add", &[index, depth])?;
    let here = ctx.plain("equal", &[index, positions])?;
    let here_from_end = ctx.plain("equal", &[from_end, positions])?;
    let here = ctx.plain("or", &[here, here_from_end])?;
    let (off, on) = (element(ctx, values, 0)?, element(ctx, values, 1)?);
    Ok(vec![ctx.plain("where", &[here, on, off])?])
}

impl ExpandCtx<'_> {
    fn scalar_int(&mut self, value: i64) -> ValueId {
        self.weight(HostTensor::from_i64(&[], &[value]))
    }
}

/// Element `position` of a list, as a scalar.
fn element(ctx: &mut ExpandCtx<'_>, list: ValueId, position: i64) -> Result<ValueId, OpError> {
    let index = ctx.scalar_int(position);
    ctx.emit("gather", &[list, index], super::build::axis_attr(0))
}

fn expand_trilu(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let x = ctx.value(0)?;
    let (dims, dtype) = (ctx.dims_of(x), ctx.dtype_of(x));
    let [.., rows, columns] = dims[..] else {
        return Err(OpError::invalid(format!(
            "expected matrices, found dims {dims:?}"
        )));
    };
    let distance: Vec<i64> = diagonals(rows, columns)?.collect();
    let distance = ctx.weight(HostTensor::from_i64(&[rows, columns], &distance));
    let k = match ctx.optional(1) {
        Some(k) => ctx.reshape(k, &[])?,
        None => ctx.scalar_int(0),
    };
    let compare = if infer::int(ctx.attrs, "upper")? == 0 {
        "less_equal"
    } else {
        "greater_equal"
    };
    let kept = ctx.plain(compare, &[distance, k])?;
    let zero = ctx.scalar(dtype, 0.0);
    Ok(vec![ctx.plain("where", &[kept, x, zero])?])
}

/// Coordinates of all elements at most.
fn expand_non_zero(ctx: &mut BoundedCtx<'_, '_>) -> Result<BoundedResults, OpError> {
    let x = ctx.value(0)?;
    let dims = ctx.dims_of(x);
    let most = dims.iter().product();
    if dims.is_empty() {
        return Err(OpError::unsupported("`NonZero` of a scalar, in an engine"));
    }
    let flags = ctx.cast(x, DType::Bool)?;
    let flags = ctx.masked(flags, 0, scalar(DType::Bool, 0.0))?;
    let flags = ctx.reshape(flags, &[most])?;
    let Kept { positions, count } = ctx.kept(flags, most)?;
    let mut rows = Vec::new();
    for (&extent, stride) in dims.iter().zip(super::moves::strides(&dims)) {
        let row = ctx.coordinate(positions, stride, extent)?;
        rows.push(ctx.reshape(row, &[1, most])?);
    }
    let places = ctx.joined(&rows, 0)?;
    Ok(BoundedResults::one(places, vec![Counted { axis: 1, count }]))
}

fn eval_non_zero(ctx: &EvalCtx<'_>) -> Result<Vec<Datum>, OpError> {
    let x = ctx.tensor(0)?;
    let strides = super::moves::strides(x.dims());
    let found: Vec<usize> = to_vec::<f64>(x)
        .into_iter()
        .enumerate()
        .filter(|(_, value)| *value != 0.0)
        .map(|(position, _)| position)
        .collect();
    let coordinates: Vec<i64> = x
        .dims()
        .iter()
        .zip(strides)
        .flat_map(|(&extent, stride)| {
            found
                .iter()
                .map(move |position| signed(position / stride % extent))
        })
        .collect();
    one(HostTensor::from_i64(&[x.dims().len(), found.len()], &coordinates))
}

pub static OPS: &[&OpDef] = &[
    &SHAPE,
    &SIZE,
    &CONSTANT_OF_SHAPE,
    &RANGE,
    &EYE_LIKE,
    &ONE_HOT,
    &TRILU,
    &NON_ZERO,
];
