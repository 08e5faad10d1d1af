//! Matrix products and convolutions of quantised operands, computed in 32-bit integers.

use super::build::{FORM, int_attr, optional_attr, str_attr};
use super::conv_forms::conv;
use super::matmul_forms::matmul;
use super::quantize::quantized;
use super::{AttrDef, AttrKind, ExpandCtx, Lowering, OnnxOp, OpDef, OpError, Operands};
use crate::ir::{DType, ValueId};

const CONV_ATTRS: &[AttrDef] = &[
    str_attr("auto_pad", "NOTSET"),
    optional_attr("dilations", AttrKind::Ints),
    int_attr("group", 1),
    optional_attr("kernel_shape", AttrKind::Ints),
    optional_attr("pads", AttrKind::Ints),
    optional_attr("strides", AttrKind::Ints),
];

/// `(a - a_zero) * (b - b_zero)` in `i32`.
pub static MATMUL_INTEGER: OpDef = OpDef {
    name: "MatMulInteger",
    onnx: &[OnnxOp::new("MatMulInteger")],
    operands: Operands::with_optional(&["a", "b"], &["a_zero_point", "b_zero_point"]),
    lower: Lowering::Expand(|ctx| {
        let a = centred(ctx, 0, 2, Axis::Row)?;
        let b = centred(ctx, 1, 3, Axis::Column)?;
        Ok(vec![matmul(ctx, a, b)?])
    }),
    ..FORM
};

/// The convolution of `x - x_zero` with `w - w_zero`, in `i32`.
pub static CONV_INTEGER: OpDef = OpDef {
    name: "ConvInteger",
    onnx: &[OnnxOp::new("ConvInteger")],
    operands: Operands::with_optional(&["x", "w"], &["x_zero_point", "w_zero_point"]),
    attrs: CONV_ATTRS,
    lower: Lowering::Expand(|ctx| {
        let x = centred(ctx, 0, 2, Axis::None)?;
        let w = centred(ctx, 1, 3, Axis::First)?;
        Ok(vec![conv(ctx, &[Some(x), Some(w), None])?])
    }),
    ..FORM
};

/// A product of quantised matrices, quantised again.
pub static Q_LINEAR_MATMUL: OpDef = OpDef {
    name: "QLinearMatMul",
    onnx: &[OnnxOp::new("QLinearMatMul")],
    operands: Operands::exactly(&[
        "a",
        "a_scale",
        "a_zero_point",
        "b",
        "b_scale",
        "b_zero_point",
        "y_scale",
        "y_zero_point",
    ]),
    lower: Lowering::Expand(q_linear_matmul),
    ..FORM
};

/// A convolution of quantised operands, quantised again.
pub static Q_LINEAR_CONV: OpDef = OpDef {
    name: "QLinearConv",
    onnx: &[OnnxOp::new("QLinearConv")],
    operands: Operands::with_optional(
        &[
            "x",
            "x_scale",
            "x_zero_point",
            "w",
            "w_scale",
            "w_zero_point",
            "y_scale",
            "y_zero_point",
        ],
        &["bias"],
    ),
    attrs: CONV_ATTRS,
    lower: Lowering::Expand(q_linear_conv),
    ..FORM
};

pub static OPS: &[&OpDef] = &[&MATMUL_INTEGER, &CONV_INTEGER, &Q_LINEAR_MATMUL, &Q_LINEAR_CONV];

/// Along which axis of a product a vector of scales or zero points lies.
#[derive(Clone, Copy)]
enum Axis {
    /// The last but one.
    Row,
    /// The last.
    Column,
    /// Filters of a weight.
    First,
    /// A number for the tensor.
    None,
}

/// `value` (numbers of operand `of`) in a shape that broadcasts to it.
fn placed(ctx: &mut ExpandCtx<'_>, value: ValueId, of: ValueId, axis: Axis) -> Result<ValueId, OpError> {
    let (own, rank) = (ctx.dims_of(value), ctx.dims_of(of).len());
    let count: usize = own.iter().product();
    match axis {
        _ if count == 1 => ctx.reshape(value, &[]),
        Axis::Row if own.len() == 1 => ctx.reshape(value, &[count, 1]),
        Axis::First if own.len() == 1 => ctx.along_axis(value, 0, rank),
        Axis::Row | Axis::Column => Ok(value),
        Axis::First | Axis::None => Err(OpError::invalid(format!(
            "a scale or zero point `{}` for `{}`",
            ctx.graph.ty(value),
            ctx.graph.ty(of)
        ))),
    }
}

/// Operand `n` minus its zero point, operand `zero`, in `i32`.
fn centred(ctx: &mut ExpandCtx<'_>, n: usize, zero: usize, axis: Axis) -> Result<ValueId, OpError> {
    let value = ctx.value(n)?;
    let wide = ctx.cast(value, DType::I32)?;
    let Some(zero) = ctx.optional(zero) else {
        return Ok(wide);
    };
    let zero = placed(ctx, zero, value, axis)?;
    let zero = ctx.cast(zero, DType::I32)?;
    ctx.binary("sub", wide, zero)
}

/// The product of integers `sum`, whose unit is `a_scale * b_scale`, in units of `y_scale`.
fn requantized(
    ctx: &mut ExpandCtx<'_>,
    sum: ValueId,
    a_scale: ValueId,
    b_scale: ValueId,
) -> Result<ValueId, OpError> {
    let (y_scale, y_zero) = (ctx.value(6)?, ctx.value(7)?);
    let y_scale = placed(ctx, y_scale, sum, Axis::Row)?;
    let y_zero_placed = placed(ctx, y_zero, sum, Axis::Row)?;
    let mut factors = Vec::new();
    for scale in [a_scale, b_scale, y_scale] {
        factors.push(ctx.cast(scale, DType::F32)?);
    }
    let unit = ctx.binary("mul", factors[0], factors[1])?;
    let unit = ctx.binary("div", unit, factors[2])?;
    let sum = ctx.cast(sum, DType::F32)?;
    let scaled = ctx.binary("mul", sum, unit)?;
    let to = ctx.dtype_of(y_zero);
    quantized(ctx, scaled, Some(y_zero_placed), to)
}

fn q_linear_matmul(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let a = centred(ctx, 0, 2, Axis::Row)?;
    let b = centred(ctx, 3, 5, Axis::Column)?;
    let (a_scale, b_scale) = (ctx.value(1)?, ctx.value(4)?);
    let a_scale = placed(ctx, a_scale, a, Axis::Row)?;
    let b_scale = placed(ctx, b_scale, b, Axis::Column)?;
    let sum = matmul(ctx, a, b)?;
    Ok(vec![requantized(ctx, sum, a_scale, b_scale)?])
}

fn q_linear_conv(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let x = centred(ctx, 0, 2, Axis::None)?;
    let w = centred(ctx, 3, 5, Axis::First)?;
    let sum = conv(ctx, &[Some(x), Some(w), ctx.optional(8)])?;
    let (x_scale, w_scale) = (ctx.value(1)?, ctx.value(4)?);
    let rank = ctx.dims_of(sum).len();
    let x_scale = ctx.reshape(x_scale, &[])?;
    // A scale per filter is one per channel of the result.
    let w_scale = match ctx.dims_of(w_scale).iter().product::<usize>() {
        1 => ctx.reshape(w_scale, &[])?,
        _ => ctx.along_axis(w_scale, 1, rank)?,
    };
    Ok(vec![requantized(ctx, sum, x_scale, w_scale)?])
}
