//! ONNX's forms of joining, padding, repeating and gathering.

use super::arguments::{ints_of, sizes_operand};
use super::arithmetic_forms::FORM;
use super::bounded::{BoundedCtx, BoundedResults, Counted};
use super::build::{axis_attr, float_attr, int_attr, optional_attr, str_attr};
use super::compaction::Kept;
use super::evaluate::{index_list, scalar, to_vec};
use super::samples::ints_attr;
use super::{
    AttrKind, BoundedForm, ExpandCtx, Lowering, OnnxOp, OpDef, OpError, Operands, infer, sized_forms,
};
use crate::ir::{Attr, Attrs, DType, HostTensor, ValueId};

/// `Concat`: the axis was 1 unless given up to opset 3.
pub static CONCAT: OpDef = OpDef {
    name: "Concat",
    onnx: &[OnnxOp::new("Concat")],
    operands: Operands::variadic(&["x"]),
    attrs: &[int_attr("axis", 1)],
    lower: Lowering::Bounded(BoundedForm {
        expand: sized_forms::concat,
        exact: Some(expand_concat),
        reason: sized_forms::COMPUTED,
    }),
    ..FORM
};

/// What gathers along an axis have in common.
const GATHER_BASE: OpDef = OpDef {
    operands: Operands::exactly(&["x", "index"]),
    attrs: &[int_attr("axis", 0)],
    ..FORM
};

pub static GATHER: OpDef = OpDef {
    name: "Gather",
    onnx: &[OnnxOp::new("Gather")],
    lower: Lowering::Bounded(BoundedForm {
        expand: |ctx| sized_forms::gather(ctx, "gather"),
        exact: Some(|ctx| along_axis(ctx, "gather")),
        reason: sized_forms::COMPUTED,
    }),
    ..GATHER_BASE
};

pub static GATHER_ELEMENTS: OpDef = OpDef {
    name: "GatherElements",
    onnx: &[OnnxOp::new("GatherElements")],
    lower: Lowering::Bounded(BoundedForm {
        expand: |ctx| sized_forms::gather(ctx, "gather_elements"),
        exact: Some(|ctx| along_axis(ctx, "gather_elements")),
        reason: sized_forms::COMPUTED,
    }),
    ..GATHER_BASE
};

/// `Pad`: attributes up to opset 10, operands since.
pub static PAD: OpDef = OpDef {
    name: "Pad",
    onnx: &[OnnxOp::new("Pad")],
    operands: Operands::with_optional(&["x"], &["pads", "value", "axes"]),
    attrs: &[
        str_attr("mode", "constant"),
        optional_attr("pads", AttrKind::Ints),
        float_attr("value", 0.0),
    ],
    lower: Lowering::Expand(expand_pad),
    ..FORM
};

pub static TILE: OpDef = OpDef {
    name: "Tile",
    onnx: &[OnnxOp::new("Tile")],
    operands: Operands::exactly(&["x", "repeats"]),
    lower: Lowering::Expand(expand_tile),
    ..FORM
};

/// `Compress`: the slices of an axis (or of all elements) at which a condition holds.
pub static COMPRESS: OpDef = OpDef {
    name: "Compress",
    onnx: &[OnnxOp::new("Compress")],
    operands: Operands::exactly(&["x", "condition"]),
    attrs: &[optional_attr("axis", AttrKind::Int)],
    lower: Lowering::Bounded(BoundedForm {
        expand: expand_any_compress,
        exact: Some(expand_compress),
        reason: "the number of slices `Compress` keeps depends on run-time data",
    }),
    ..FORM
};

/// `ReverseSequence`: the first elements of each batch entry in reverse order.
pub static REVERSE_SEQUENCE: OpDef = OpDef {
    name: "ReverseSequence",
    onnx: &[OnnxOp::new("ReverseSequence")],
    operands: Operands::exactly(&["x", "lengths"]),
    attrs: &[int_attr("batch_axis", 1), int_attr("time_axis", 0)],
    lower: Lowering::Expand(expand_reverse_sequence),
    ..FORM
};

/// `CenterCropPad`: cut or padded with zeros around the middle.
pub static CENTER_CROP_PAD: OpDef = OpDef {
    name: "CenterCropPad",
    onnx: &[OnnxOp::new("CenterCropPad")],
    operands: Operands::exactly(&["x", "shape"]),
    attrs: &[optional_attr("axes", AttrKind::Ints)],
    lower: Lowering::Expand(expand_center_crop_pad),
    ..FORM
};

fn expand_concat(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let axis = infer::axis(ctx.attrs, ctx.ty(0)?.rank())?;
    let operands = (0..ctx.operands.len())
        .map(|n| ctx.value(n))
        .collect::<Result<Vec<_>, _>>()?;
    match operands[..] {
        [only] => Ok(vec![only]),
        _ => Ok(vec![ctx.emit("concat", &operands, axis_attr(axis))?]),
    }
}

/// A gather with its axis counted from the front.
fn along_axis(ctx: &mut ExpandCtx<'_>, op: &'static str) -> Result<Vec<ValueId>, OpError> {
    let axis = infer::axis(ctx.attrs, ctx.ty(0)?.rank())?;
    let operands = [ctx.value(0)?, ctx.value(1)?];
    Ok(vec![ctx.emit(op, &operands, axis_attr(axis))?])
}

fn expand_pad(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let x = ctx.value(0)?;
    let rank = ctx.dims_of(x).len();
    let pads = ints_of(ctx, "pads", 1)?.ok_or_else(|| OpError::invalid("the pads are missing"))?;
    let axes: Vec<usize> = match ctx.constant(3)? {
        Some(axes) => index_list(&axes)?
            .iter()
            .map(|&axis| infer::normalize_axis(axis, rank))
            .collect::<Result<_, _>>()?,
        None => (0..rank).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err(OpError::invalid(format!(
            "{} axes are padded by twice as many numbers, found {pads:?}",
            axes.len()
        )));
    }
    let (mut before, mut after) = (vec![0; rank], vec![0; rank]);
    for (n, &axis) in axes.iter().enumerate() {
        before[axis] = pads[n];
        after[axis] = pads[axes.len() + n];
    }
    let mode = ctx.attrs.str("mode").unwrap_or("constant").to_owned();
    let mut operands = vec![Some(x)];
    if mode == "constant" {
        operands.extend(pad_value(ctx)?.map(Some));
    }
    let attrs = Attrs::new()
        .with("before", Attr::Ints(before))
        .with("after", Attr::Ints(after))
        .with("mode", Attr::Str(mode));
    ctx.emit_all("pad", operands, attrs, 1)
}

/// The scalar to pad with; `None` for zero.
fn pad_value(ctx: &mut ExpandCtx<'_>) -> Result<Option<ValueId>, OpError> {
    let dtype = ctx.ty(0)?.dtype;
    if let Some(value) = ctx.optional(2) {
        let is_zero = |data: &HostTensor| to_vec::<f64>(data) == [0.0];
        if ctx.graph.weight(value).is_some_and(is_zero) {
            return Ok(None);
        }
        return ctx.reshape(value, &[]).map(Some);
    }
    let value = infer::float(ctx.attrs, "value")?;
    Ok((value != 0.0).then(|| ctx.scalar(dtype, value)))
}

fn expand_tile(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let x = ctx.value(0)?;
    let (dims, repeats) = (ctx.dims_of(x), sizes_operand(ctx, 1)?);
    let pairs = || dims.iter().zip(&repeats);
    // Repeating single elements is a view.
    if dims.len() == repeats.len() && pairs().all(|(&extent, &times)| extent == 1 || times == 1) {
        let repeated: Vec<usize> = pairs().map(|(extent, times)| extent * times).collect();
        return Ok(vec![ctx.expand(x, &repeated)?]);
    }
    let attrs = Attrs::new().with("repeats", ints_attr(&repeats));
    Ok(vec![ctx.emit("tile", &[x], attrs)?])
}

/// The operand and the axis that `Compress` shortens: its only one where none is named.
fn compressed(ctx: &mut ExpandCtx<'_>) -> Result<(ValueId, usize), OpError> {
    let x = ctx.value(0)?;
    let dims = ctx.dims_of(x);
    match ctx.attrs.int("axis") {
        Some(axis) => Ok((x, infer::normalize_axis(axis, dims.len())?)),
        None => Ok((ctx.reshape(x, &[dims.iter().product()])?, 0)),
    }
}

/// All slices at most.
fn expand_any_compress(ctx: &mut BoundedCtx<'_, '_>) -> Result<BoundedResults, OpError> {
    let (x, axis) = compressed(ctx)?;
    let is_flat = ctx.attrs.int("axis").is_none() && ctx.ty(0)?.rank() != 1;
    if is_flat && !ctx.counted[0].is_empty() {
        return Err(OpError::HostOnly(
            "it counts all elements of an operand that is only as long as data says".to_owned(),
        ));
    }
    let condition = ctx.value(1)?;
    let &[named] = &ctx.dims_of(condition)[..] else {
        return Err(OpError::invalid("the condition must be a vector"));
    };
    let most = named.min(ctx.dims_of(x)[axis]);
    let flags = ctx.masked(condition, 1, scalar(DType::Bool, 0.0))?;
    let mut flags = ctx.part(flags, 0, 0..most)?;
    if let Some(count) = ctx.count_along(0, axis) {
        let present = ctx.present(most, count)?;
        flags = ctx.binary("and", flags, present)?;
    }
    let Kept { positions, count } = ctx.kept(flags, most)?;
    let mut counted = vec![Counted { axis, count }];
    if !is_flat {
        counted.extend(ctx.other_counts(0, axis));
    }
    let value = ctx.gathered("gather", x, positions, axis)?;
    Ok(BoundedResults::one(value, counted))
}

fn expand_compress(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let condition = ctx
        .constant(1)?
        .ok_or_else(|| OpError::invalid("the condition is missing"))?;
    let (x, axis) = compressed(ctx)?;
    let kept: Vec<i64> = (0..)
        .zip(to_vec::<i64>(&condition))
        .filter(|(_, holds)| *holds != 0)
        .map(|(position, _)| position)
        .collect();
    let index = ctx.weight(HostTensor::from_i64(&[kept.len()], &kept));
    Ok(vec![ctx.emit("gather", &[x, index], axis_attr(axis))?])
}

fn expand_reverse_sequence(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let (x, lengths) = (ctx.value(0)?, ctx.value(1)?);
    let dims = ctx.dims_of(x);
    let batch = infer::normalize_axis(infer::int(ctx.attrs, "batch_axis")?, dims.len())?;
    let time = infer::normalize_axis(infer::int(ctx.attrs, "time_axis")?, dims.len())?;
    let along = |axis: usize| {
        let mut shape = vec![1; dims.len()];
        shape[axis] = dims[axis];
        shape
    };
    let lengths = ctx.cast(lengths, DType::I64)?;
    let lengths = ctx.reshape(lengths, &along(batch))?;
    let steps: Vec<i64> = (0..).take(dims[time]).collect();
    let step = ctx.weight(HostTensor::from_i64(&along(time), &steps));
    let one = ctx.scalar(DType::I64, 1.0);
    let last = ctx.plain("sub", &[lengths, one])?;
    let reversed = ctx.plain("sub", &[last, step])?;
    let is_reversed = ctx.plain("less", &[step, lengths])?;
    let index = ctx.plain("where", &[is_reversed, reversed, step])?;
    let index = ctx.expand(index, &dims)?;
    Ok(vec![ctx.emit("gather_elements", &[x, index], axis_attr(time))?])
}

fn expand_center_crop_pad(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let x = ctx.value(0)?;
    let (dims, shape) = (ctx.dims_of(x), sizes_operand(ctx, 1)?);
    let axes = match ctx.attrs.ints("axes") {
        Some(axes) => axes
            .iter()
            .map(|&axis| infer::normalize_axis(axis, dims.len()))
            .collect::<Result<Vec<_>, _>>()?,
        None => (0..dims.len()).collect(),
    };
    if axes.len() != shape.len() {
        return Err(OpError::invalid(format!(
            "{} axes need as many extents, found {shape:?}",
            axes.len()
        )));
    }
    let (mut before, mut after) = (vec![0; dims.len()], vec![0; dims.len()]);
    for (axis, extent) in axes.into_iter().zip(shape) {
        let more = super::view_forms::whole(extent).end - super::view_forms::whole(dims[axis]).end;
        // An odd element more or less is at the end.
        before[axis] = more / 2;
        after[axis] = more - more / 2;
        if more < 0 {
            before[axis] = more.div_euclid(2) + more.rem_euclid(2);
            after[axis] = more - before[axis];
        }
    }
    let attrs = Attrs::new()
        .with("before", Attr::Ints(before))
        .with("after", Attr::Ints(after));
    Ok(vec![ctx.emit("pad", &[x], attrs)?])
}

pub static OPS: &[&OpDef] = &[
    &CONCAT,
    &GATHER,
    &GATHER_ELEMENTS,
    &PAD,
    &TILE,
    &COMPRESS,
    &REVERSE_SEQUENCE,
    &CENTER_CROP_PAD,
];
