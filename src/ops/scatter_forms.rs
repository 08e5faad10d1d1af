//! ONNX's forms of writing by index.

use super::bounded::{BoundedCtx, BoundedResults};
use super::build::{FORM, axis_attr, int_attr, signed};
use super::scatter::REDUCTION;
use super::{BoundedForm, ExpandCtx, Lowering, OnnxOp, OpDef, OpError, Operands, infer, sized_forms};
use crate::ir::{Attrs, DType, HostTensor, ValueId};

/// `ScatterElements`, and `Scatter`, its first name.
pub static SCATTER_ELEMENTS: OpDef = OpDef {
    name: "ScatterElements",
    onnx: &[OnnxOp::new("ScatterElements"), OnnxOp::new("Scatter")],
    operands: Operands::exactly(&["x", "index", "updates"]),
    attrs: &[int_attr("axis", 0), REDUCTION],
    lower: Lowering::Bounded(BoundedForm {
        expand: bounded_elements,
        exact: Some(expand_elements),
        reason: sized_forms::COMPUTED,
    }),
    ..FORM
};

/// `ScatterND`: slices, by the coordinates in the last axis of operand 1.
pub static SCATTER_ND: OpDef = OpDef {
    name: "ScatterND",
    onnx: &[OnnxOp::new("ScatterND")],
    operands: Operands::exactly(&["x", "index", "updates"]),
    attrs: &[REDUCTION],
    lower: Lowering::Bounded(BoundedForm {
        expand: bounded_nd,
        exact: Some(expand_nd),
        reason: sized_forms::COMPUTED,
    }),
    ..FORM
};

pub static OPS: &[&OpDef] = &[&SCATTER_ELEMENTS, &SCATTER_ND];

fn reduction(ctx: &ExpandCtx<'_>) -> Attrs {
    match ctx.attrs.get("reduction") {
        Some(reduction) => Attrs::new().with("reduction", reduction.clone()),
        None => Attrs::new(),
    }
}

fn elements_attrs(ctx: &ExpandCtx<'_>, axis: usize) -> Attrs {
    let mut attrs = reduction(ctx);
    attrs.0.extend(axis_attr(axis).0);
    attrs
}

fn expand_elements(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let axis = infer::axis(ctx.attrs, ctx.ty(0)?.rank())?;
    let attrs = elements_attrs(ctx, axis);
    let operands = [ctx.value(0)?, ctx.value(1)?, ctx.value(2)?];
    Ok(vec![ctx.emit("scatter_elements", &operands, attrs)?])
}

fn expand_nd(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let operands = [ctx.value(0)?, ctx.value(1)?, ctx.value(2)?];
    let attrs = reduction(ctx);
    Ok(vec![ctx.emit("scatter_nd", &operands, attrs)?])
}

/// Updates that are not there are written to a place of their own behind the axis.
fn bounded_elements(ctx: &mut BoundedCtx<'_, '_>) -> Result<BoundedResults, OpError> {
    let rank = ctx.ty(0)?.rank();
    let axis = infer::axis(ctx.attrs, rank)?;
    let extent = ctx.extent(0, axis)?;
    let index = from_front(ctx, extent.value)?;
    let behind = ctx.ty(0)?.dims()[axis];
    let index = ctx.masked(index, 1, HostTensor::from_i64(&[], &[signed(behind)]))?;
    let attrs = elements_attrs(ctx, axis);
    written(ctx, "scatter_elements", axis, index, attrs)
}

/// As [`bounded_elements`], of slices.
fn bounded_nd(ctx: &mut BoundedCtx<'_, '_>) -> Result<BoundedResults, OpError> {
    let index = ctx.ty(1)?.dims();
    let depth = index.last().copied().unwrap_or(0);
    let rank = ctx.ty(0)?.rank();
    let last = index.len().wrapping_sub(1);
    if depth == 0 || depth > rank || ctx.count_along(1, last).is_some() {
        return Err(OpError::HostOnly(format!(
            "coordinates of dims {index:?} in {rank} axes, the number of which data may decide"
        )));
    }
    let mut extents = Vec::new();
    for axis in 0..depth {
        let extent = ctx.extent(0, axis)?;
        extents.push(ctx.reshape(extent.value, &[1])?);
    }
    let extents = ctx.joined(&extents, 0)?;
    let index = from_front(ctx, extents)?;
    let mut behind = vec![0; depth];
    behind[0] = signed(ctx.ty(0)?.dims()[0]);
    let index = ctx.masked(index, 1, HostTensor::from_i64(&[depth], &behind))?;
    let attrs = reduction(ctx);
    written(ctx, "scatter_nd", 0, index, attrs)
}

/// Indices, of which negative ones count from the end of axes that have `extents`.
fn from_front(ctx: &mut BoundedCtx<'_, '_>, extents: ValueId) -> Result<ValueId, OpError> {
    let index = ctx.value(1)?;
    let index = ctx.cast(index, DType::I64)?;
    let zero = ctx.integers(&[], &[0]);
    let is_negative = ctx.binary("less", index, zero)?;
    let from_end = ctx.binary("add", index, extents)?;
    ctx.select(is_negative, from_end, index)
}

/// Writes to operand 0, which has one more place along `axis` meanwhile.
fn written(
    ctx: &mut BoundedCtx<'_, '_>,
    op: &'static str,
    axis: usize,
    index: ValueId,
    attrs: Attrs,
) -> Result<BoundedResults, OpError> {
    let (x, updates) = (ctx.value(0)?, ctx.value(2)?);
    let (mut dims, dtype) = (ctx.dims_of(x), ctx.dtype_of(x));
    let extent = std::mem::replace(&mut dims[axis], 1);
    let place = ctx.filled(dtype, &dims, 0.0);
    let longer = ctx.joined(&[x, place], axis)?;
    let written = ctx.emit(op, &[longer, index, updates], attrs)?;
    let value = ctx.part(written, axis, 0..extent)?;
    let counted = ctx.counted.first().cloned().unwrap_or_default();
    Ok(BoundedResults::one(value, counted))
}
