//! ONNX's forms of views: shapes, axes and ranges come as operands or attributes, depending on
//! the opset, and become static attributes of core ops.

use super::arguments::{ints_of, sizes_operand};
use super::arithmetic_forms::FORM;
use super::build::{float_attr, int_attr, optional_attr, required_attr, str_attr};
use super::evaluate::{filled, to_vec};
use super::views::{AxisSlice, slice_attrs};
use super::{
    AttrKind, BoundedForm, ExpandCtx, Lowering, OnnxOp, OpDef, OpError, Operands, infer, sized_forms,
};
use crate::ir::{DType, ValueId};

pub static RESHAPE: OpDef = OpDef {
    name: "Reshape",
    onnx: &[OnnxOp::new("Reshape")],
    operands: Operands::with_optional(&["x"], &["shape"]),
    attrs: &[
        int_attr("allowzero", 0),
        optional_attr("shape", AttrKind::Ints),
        optional_attr("consumed_inputs", AttrKind::Ints),
    ],
    lower: Lowering::Bounded(BoundedForm {
        expand: super::reshape_forms::reshape,
        exact: Some(expand_reshape),
        reason: sized_forms::COMPUTED,
    }),
    ..FORM
};

pub static FLATTEN: OpDef = OpDef {
    name: "Flatten",
    onnx: &[OnnxOp::new("Flatten")],
    attrs: &[int_attr("axis", 1)],
    lower: Lowering::Expand(expand_flatten),
    ..FORM
};

pub static SQUEEZE: OpDef = OpDef {
    name: "Squeeze",
    onnx: &[OnnxOp::new("Squeeze")],
    operands: Operands::with_optional(&["x"], &["axes"]),
    attrs: &[optional_attr("axes", AttrKind::Ints)],
    lower: Lowering::Expand(expand_squeeze),
    ..FORM
};

pub static UNSQUEEZE: OpDef = OpDef {
    name: "Unsqueeze",
    onnx: &[OnnxOp::new("Unsqueeze")],
    operands: Operands::with_optional(&["x"], &["axes"]),
    attrs: &[optional_attr("axes", AttrKind::Ints)],
    lower: Lowering::Expand(expand_unsqueeze),
    ..FORM
};

/// `Transpose`: without `perm`, the axes are reversed.
pub static TRANSPOSE: OpDef = OpDef {
    name: "Transpose",
    onnx: &[OnnxOp::new("Transpose")],
    attrs: &[optional_attr("perm", AttrKind::Ints)],
    lower: Lowering::Expand(expand_transpose),
    ..FORM
};

/// `Slice`: attributes up to opset 9, operands since.
pub static SLICE: OpDef = OpDef {
    name: "Slice",
    onnx: &[OnnxOp::new("Slice")],
    operands: Operands::with_optional(&["x"], &["starts", "ends", "axes", "steps"]),
    attrs: &[
        optional_attr("starts", AttrKind::Ints),
        optional_attr("ends", AttrKind::Ints),
        optional_attr("axes", AttrKind::Ints),
    ],
    lower: Lowering::Bounded(BoundedForm {
        expand: sized_forms::slice,
        exact: Some(expand_slice),
        reason: sized_forms::COMPUTED,
    }),
    ..FORM
};

pub static SPLIT: OpDef = OpDef {
    name: "Split",
    onnx: &[OnnxOp::new("Split")],
    operands: Operands::with_optional(&["x"], &["split"]),
    attrs: &[
        int_attr("axis", 0),
        optional_attr("split", AttrKind::Ints),
        optional_attr("num_outputs", AttrKind::Int),
    ],
    lower: Lowering::Expand(expand_split),
    ..FORM
};

pub static EXPAND: OpDef = OpDef {
    name: "Expand",
    onnx: &[OnnxOp::new("Expand")],
    operands: Operands::exactly(&["x", "shape"]),
    lower: Lowering::Bounded(BoundedForm {
        expand: sized_forms::expand,
        exact: Some(|ctx| {
            let x = ctx.value(0)?;
            let shape = sizes_operand(ctx, 1)?;
            let dims = infer::broadcast(&ctx.dims_of(x), &shape)?;
            Ok(vec![ctx.expand(x, &dims)?])
        }),
        reason: sized_forms::COMPUTED,
    }),
    ..FORM
};

/// `Dropout` when inferring: the operand, and a mask that keeps everything.
pub static DROPOUT: OpDef = OpDef {
    name: "Dropout",
    onnx: &[OnnxOp::new("Dropout")],
    operands: Operands::with_optional(&["x"], &["ratio", "training_mode"]),
    attrs: &[
        float_attr("ratio", 0.5),
        int_attr("is_test", 1),
        optional_attr("seed", AttrKind::Int),
        optional_attr("consumed_inputs", AttrKind::Ints),
    ],
    lower: Lowering::Expand(expand_dropout),
    ..FORM
};

pub static DEPTH_TO_SPACE: OpDef = OpDef {
    name: "DepthToSpace",
    onnx: &[OnnxOp::new("DepthToSpace")],
    attrs: &[required_attr("blocksize", AttrKind::Int), str_attr("mode", "DCR")],
    lower: Lowering::Expand(expand_depth_to_space),
    ..FORM
};

pub static SPACE_TO_DEPTH: OpDef = OpDef {
    name: "SpaceToDepth",
    onnx: &[OnnxOp::new("SpaceToDepth")],
    attrs: &[required_attr("blocksize", AttrKind::Int), str_attr("mode", "DCR")],
    lower: Lowering::Expand(expand_space_to_depth),
    ..FORM
};

fn expand_reshape(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let x = ctx.value(0)?;
    let wanted = ints_of(ctx, "shape", 1)?.ok_or_else(|| OpError::invalid("the shape is missing"))?;
    let keeps_zero = infer::int(ctx.attrs, "allowzero")? != 0;
    let dims = reshaped_dims(&ctx.dims_of(x), &wanted, keeps_zero)?;
    Ok(vec![ctx.reshape(x, &dims)?])
}

/// Zero copies an extent (unless `keeps_zero`), and one entry of -1 takes what is left.
fn reshaped_dims(dims: &[usize], wanted: &[i64], keeps_zero: bool) -> Result<Vec<usize>, OpError> {
    let refuse = || {
        OpError::invalid(format!(
            "a tensor of dims {dims:?} cannot take the shape {wanted:?}"
        ))
    };
    let mut inferred = None;
    let mut shape = Vec::with_capacity(wanted.len());
    for (axis, &extent) in wanted.iter().enumerate() {
        shape.push(match extent {
            0 if !keeps_zero => *dims.get(axis).ok_or_else(refuse)?,
            -1 if inferred.replace(axis).is_none() => 1,
            _ => usize::try_from(extent).map_err(|_| refuse())?,
        });
    }
    if let Some(axis) = inferred {
        let total: usize = dims.iter().product();
        let rest = infer::n_elements(&shape).filter(|&rest| rest > 0 && total.is_multiple_of(rest));
        let rest = rest.ok_or_else(refuse)?;
        shape[axis] = total / rest;
    }
    Ok(shape)
}

fn expand_flatten(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let x = ctx.value(0)?;
    let dims = ctx.dims_of(x);
    let axis = infer::int(ctx.attrs, "axis")?;
    // One past the last axis is allowed.
    let axis = if axis >= 0 {
        infer::normalize_axis(axis, dims.len() + 1)?
    } else {
        infer::normalize_axis(axis, dims.len())?
    };
    let (outer, inner) = dims.split_at(axis);
    Ok(vec![
        ctx.reshape(x, &[outer.iter().product(), inner.iter().product()])?,
    ])
}

fn expand_squeeze(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let x = ctx.value(0)?;
    let dims = ctx.dims_of(x);
    let axes = match ints_of(ctx, "axes", 1)? {
        Some(axes) => infer::normalize_axes(&axes, dims.len())?,
        None => (0..dims.len()).filter(|&axis| dims[axis] == 1).collect(),
    };
    if let Some(axis) = axes.iter().find(|&&axis| dims[axis] != 1) {
        return Err(OpError::invalid(format!(
            "axis {axis} of dims {dims:?} has an extent other than one"
        )));
    }
    let kept: Vec<usize> = (0..dims.len())
        .filter(|axis| !axes.contains(axis))
        .map(|axis| dims[axis])
        .collect();
    Ok(vec![ctx.reshape(x, &kept)?])
}

fn expand_unsqueeze(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let x = ctx.value(0)?;
    let mut dims = ctx.dims_of(x);
    let axes = ints_of(ctx, "axes", 1)?.ok_or_else(|| OpError::invalid("the axes are missing"))?;
    for axis in infer::normalize_axes(&axes, dims.len() + axes.len())? {
        dims.insert(axis, 1);
    }
    Ok(vec![ctx.reshape(x, &dims)?])
}

fn expand_transpose(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let x = ctx.value(0)?;
    let rank = ctx.dims_of(x).len();
    let perm: Vec<usize> = match ctx.attrs.ints("perm") {
        Some(perm) => perm
            .iter()
            .map(|&axis| infer::normalize_axis(axis, rank))
            .collect::<Result<_, _>>()?,
        None => (0..rank).rev().collect(),
    };
    Ok(vec![ctx.transpose(x, &perm)?])
}

fn expand_slice(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let x = ctx.value(0)?;
    let dims = ctx.dims_of(x);
    let required = |list: Option<Vec<i64>>, what: &str| {
        list.ok_or_else(|| OpError::invalid(format!("the {what} of the slice are missing")))
    };
    let starts = required(ints_of(ctx, "starts", 1)?, "starts")?;
    let ends = required(ints_of(ctx, "ends", 2)?, "ends")?;
    let axes = match ints_of(ctx, "axes", 3)? {
        Some(axes) => axes,
        None => (0..).take(starts.len()).collect(),
    };
    let steps = ints_of(ctx, "", 4)?.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return Err(OpError::invalid(format!(
            "starts {starts:?}, ends {ends:?}, axes {axes:?} and steps {steps:?} differ in length"
        )));
    }
    let mut slices: Vec<AxisSlice> = dims.iter().map(|&extent| whole(extent)).collect();
    for (n, &axis) in axes.iter().enumerate() {
        let axis = infer::normalize_axis(axis, dims.len())?;
        slices[axis] = AxisSlice {
            start: starts[n],
            end: ends[n],
            step: steps[n],
        }
        .normalized(dims[axis])?;
    }
    Ok(vec![sliced(ctx, x, &slices)?])
}

/// All elements of an axis.
pub fn whole(extent: usize) -> AxisSlice {
    AxisSlice {
        start: 0,
        end: i64::try_from(extent).expect("extents fit in i64"),
        step: 1,
    }
}

/// `x` cut by one slice per axis; itself where all are whole.
///
/// # Errors
/// If a slice leaves its axis.
pub fn sliced(ctx: &mut ExpandCtx<'_>, x: ValueId, slices: &[AxisSlice]) -> Result<ValueId, OpError> {
    let dims = ctx.dims_of(x);
    if slices
        .iter()
        .zip(&dims)
        .all(|(slice, &extent)| *slice == whole(extent))
    {
        return Ok(x);
    }
    ctx.emit("slice", &[x], slice_attrs(slices))
}

fn expand_split(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let x = ctx.value(0)?;
    let dims = ctx.dims_of(x);
    let axis = infer::axis(ctx.attrs, dims.len())?;
    let parts = match ints_of(ctx, "split", 1)? {
        Some(parts) => parts,
        None => equal_parts(dims[axis], ctx.n_results)?,
    };
    if parts.len() < ctx.n_results || parts.iter().sum::<i64>() != whole(dims[axis]).end {
        return Err(OpError::invalid(format!(
            "an axis of extent {} is not split into {} results by {parts:?}",
            dims[axis], ctx.n_results
        )));
    }
    let mut slices: Vec<AxisSlice> = dims.iter().map(|&extent| whole(extent)).collect();
    let mut start = 0;
    let mut results = Vec::new();
    for part in &parts[..ctx.n_results] {
        let end = start + part;
        slices[axis] = AxisSlice { start, end, step: 1 };
        results.push(sliced(ctx, x, &slices)?);
        start = end;
    }
    Ok(results)
}

/// As equal as possible: the last parts may be smaller.
fn equal_parts(extent: usize, count: usize) -> Result<Vec<i64>, OpError> {
    if count == 0 {
        return Err(OpError::invalid("a split needs results"));
    }
    let size = extent.div_ceil(count);
    let part = |n: usize| size.min(extent.saturating_sub(n * size));
    Ok((0..count)
        .map(|n| i64::try_from(part(n)).expect("extents fit in i64"))
        .collect())
}

fn expand_dropout(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let x = ctx.value(0)?;
    let training = ctx
        .constant(2)?
        .is_some_and(|mode| to_vec::<i64>(&mode).contains(&1));
    if training {
        let ratio = ctx.constant(1)?.map_or(0.5, |ratio| to_vec::<f64>(&ratio)[0]);
        if ratio != 0.0 {
            return Err(OpError::unsupported("dropout while training, which is random"));
        }
    }
    if ctx.n_results < 2 {
        return Ok(vec![x]);
    }
    // The mask has the operand's kind up to opset 9.
    let kind = if ctx.opset < 10 {
        ctx.dtype_of(x)
    } else {
        DType::Bool
    };
    let mask = filled(kind, &ctx.dims_of(x), 1.0);
    let mask = ctx.weight(mask);
    Ok(vec![x, mask])
}

/// Extents of an image batch, and the block size.
fn image(ctx: &ExpandCtx<'_>) -> Result<([usize; 4], usize), OpError> {
    let dims = infer::known_dims(&ctx.ty(0)?)?;
    let dims = <[usize; 4]>::try_from(dims)
        .map_err(|dims| OpError::invalid(format!("expected a tensor of rank 4, found dims {dims:?}")))?;
    let block = usize::try_from(infer::int(ctx.attrs, "blocksize")?).unwrap_or(0);
    if block == 0 {
        return Err(OpError::invalid("attribute `blocksize` must be positive"));
    }
    Ok((dims, block))
}

fn expand_depth_to_space(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let ([n, c, h, w], block) = image(ctx)?;
    let depth = c / (block * block);
    let x = ctx.value(0)?;
    let (split, perm) = match ctx.attrs.str("mode") {
        Some("CRD") => ([n, depth, block, block, h, w], [0, 1, 4, 2, 5, 3]),
        Some("DCR") | None => ([n, block, block, depth, h, w], [0, 3, 4, 1, 5, 2]),
        Some(other) => return Err(unknown_mode(other)),
    };
    let split = ctx.reshape(x, &split)?;
    let moved = ctx.transpose(split, &perm)?;
    Ok(vec![ctx.reshape(moved, &[n, depth, h * block, w * block])?])
}

fn expand_space_to_depth(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let ([n, c, h, w], block) = image(ctx)?;
    let x = ctx.value(0)?;
    let perm = match ctx.attrs.str("mode") {
        Some("CRD") => [0, 1, 3, 5, 2, 4],
        Some("DCR") | None => [0, 3, 5, 1, 2, 4],
        Some(other) => return Err(unknown_mode(other)),
    };
    let (rows, columns) = (h / block, w / block);
    let split = ctx.reshape(x, &[n, c, rows, block, columns, block])?;
    let moved = ctx.transpose(split, &perm)?;
    Ok(vec![ctx.reshape(moved, &[n, c * block * block, rows, columns])?])
}

fn unknown_mode(found: &str) -> OpError {
    OpError::invalid(format!(
        "attribute `mode` must be `DCR` or `CRD`, found `{found}`"
    ))
}

pub static OPS: &[&OpDef] = &[
    &RESHAPE,
    &FLATTEN,
    &SQUEEZE,
    &UNSQUEEZE,
    &TRANSPOSE,
    &SLICE,
    &SPLIT,
    &EXPAND,
    &DROPOUT,
    &DEPTH_TO_SPACE,
    &SPACE_TO_DEPTH,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reshaping_infers_and_copies_extents() {
        assert_eq!(reshaped_dims(&[2, 3, 4], &[0, -1], false), Ok(vec![2, 12]));
        assert_eq!(reshaped_dims(&[0, 3], &[3, 0], true), Ok(vec![3, 0]));
        assert!(reshaped_dims(&[0, 3], &[0, -1], false).is_err());
        assert!(reshaped_dims(&[4], &[3, -1], false).is_err());
        assert!(reshaped_dims(&[4], &[-1, -1], false).is_err());
    }

    #[test]
    fn the_last_part_may_be_smaller() {
        assert_eq!(equal_parts(7, 4), Ok(vec![2, 2, 2, 1]));
        assert_eq!(equal_parts(0, 2), Ok(vec![0, 0]));
    }
}
