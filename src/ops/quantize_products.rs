//! Matrix products and convolutions of quantised operands, computed in 32-bit integers.

use super::build::{FORM, float_attr, int_attr, optional_attr, str_attr};
use super::conv_forms::conv;
use super::matmul_forms::matmul;
use super::quantize::quantized;
use super::{AttrDef, AttrKind, ExpandCtx, Lowering, OnnxOp, OpDef, OpError, Operands, infer};
use crate::ir::{DType, Operand, ValueId};

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

/// ONNX Runtime's fully connected layer: `alpha * a * b + c`, either factor transposed on request,
/// quantised again where `y_scale` is given and in `f32` where it is not. The unit of `c` is that
/// of the product.
pub static Q_GEMM: OpDef = OpDef {
    name: "QGemm",
    onnx: &[OnnxOp::new("QGemm").of("com.microsoft")],
    operands: Operands::with_optional(
        &["a", "a_scale", "a_zero_point", "b", "b_scale", "b_zero_point"],
        &["c", "y_scale", "y_zero_point"],
    ),
    attrs: &[
        float_attr("alpha", 1.0),
        int_attr("transA", 0),
        int_attr("transB", 0),
    ],
    lower: Lowering::Expand(q_gemm),
    ..FORM
};

pub static OPS: &[&OpDef] = &[
    &MATMUL_INTEGER,
    &CONV_INTEGER,
    &Q_LINEAR_MATMUL,
    &Q_LINEAR_CONV,
    &Q_GEMM,
];

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
    let zero = ctx.optional(zero);
    without_zero(ctx, value, zero, axis)
}

/// `value - zero` in `i32`.
fn without_zero(
    ctx: &mut ExpandCtx<'_>,
    value: ValueId,
    zero: Operand,
    axis: Axis,
) -> Result<ValueId, OpError> {
    let wide = ctx.cast(value, DType::I32)?;
    let Some(zero) = zero else {
        return Ok(wide);
    };
    let zero = placed(ctx, zero, value, axis)?;
    let zero = ctx.cast(zero, DType::I32)?;
    ctx.binary("sub", wide, zero)
}

/// What a sum of integers is multiplied with: `a_scale * b_scale`, over `y_scale` if there is one.
/// The order of the operations is ONNX Runtime's, so that its roundings are met.
fn unit(
    ctx: &mut ExpandCtx<'_>,
    a_scale: ValueId,
    b_scale: ValueId,
    y_scale: Operand,
) -> Result<ValueId, OpError> {
    let (a_scale, b_scale) = (ctx.cast(a_scale, DType::F32)?, ctx.cast(b_scale, DType::F32)?);
    let unit = ctx.binary("mul", a_scale, b_scale)?;
    match y_scale {
        Some(y_scale) => {
            let y_scale = ctx.cast(y_scale, DType::F32)?;
            ctx.binary("div", unit, y_scale)
        }
        None => Ok(unit),
    }
}

/// The product of integers `sum`, whose unit is `a_scale * b_scale`, in units of `y_scale`.
fn requantized(
    ctx: &mut ExpandCtx<'_>,
    sum: ValueId,
    (a_scale, b_scale): (ValueId, ValueId),
    (y_scale, y_zero): (ValueId, ValueId),
) -> Result<ValueId, OpError> {
    let y_scale = placed(ctx, y_scale, sum, Axis::Row)?;
    let y_zero_placed = placed(ctx, y_zero, sum, Axis::Row)?;
    let unit = unit(ctx, a_scale, b_scale, Some(y_scale))?;
    let sum = ctx.cast(sum, DType::F32)?;
    let scaled = ctx.binary("mul", sum, unit)?;
    let to = ctx.dtype_of(y_zero);
    quantized(ctx, scaled, Some(y_zero_placed), to)
}

fn q_gemm(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let a = factor(ctx, 0, "transA", Axis::Row)?;
    let b = factor(ctx, 3, "transB", Axis::Column)?;
    let mut sum = matmul(ctx, a, b)?;
    if let Some(c) = ctx.optional(6) {
        sum = ctx.binary("add", sum, c)?;
    }
    let (a_scale, b_scale) = (ctx.value(1)?, ctx.value(4)?);
    let a_scale = placed(ctx, a_scale, a, Axis::Row)?;
    let a_scale = ctx.with_number("mul", a_scale, infer::float(ctx.attrs, "alpha")?)?;
    let b_scale = placed(ctx, b_scale, b, Axis::Column)?;
    if let Some(y_scale) = ctx.optional(7) {
        let y_zero = ctx.value(8)?;
        return Ok(vec![requantized(
            ctx,
            sum,
            (a_scale, b_scale),
            (y_scale, y_zero),
        )?]);
    }
    let unit = unit(ctx, a_scale, b_scale, None)?;
    let sum = ctx.cast(sum, DType::F32)?;
    Ok(vec![ctx.binary("mul", sum, unit)?])
}

/// Matrix operand `n`, transposed if attribute `turned` says so, minus its zero point.
fn factor(ctx: &mut ExpandCtx<'_>, n: usize, turned: &str, axis: Axis) -> Result<ValueId, OpError> {
    let mut value = ctx.value(n)?;
    if ctx.dims_of(value).len() != 2 {
        return Err(OpError::invalid(format!(
            "QGemm multiplies matrices, found `{}`",
            ctx.graph.ty(value)
        )));
    }
    if infer::int(ctx.attrs, turned)? != 0 {
        value = ctx.transpose(value, &[1, 0])?;
    }
    let zero = ctx.optional(n + 2);
    without_zero(ctx, value, zero, axis)
}

fn q_linear_matmul(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let a = centred(ctx, 0, 2, Axis::Row)?;
    let b = centred(ctx, 3, 5, Axis::Column)?;
    let (a_scale, b_scale) = (ctx.value(1)?, ctx.value(4)?);
    let a_scale = placed(ctx, a_scale, a, Axis::Row)?;
    let b_scale = placed(ctx, b_scale, b, Axis::Column)?;
    let sum = matmul(ctx, a, b)?;
    let y = (ctx.value(6)?, ctx.value(7)?);
    Ok(vec![requantized(ctx, sum, (a_scale, b_scale), y)?])
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
    let y = (ctx.value(6)?, ctx.value(7)?);
    Ok(vec![requantized(ctx, sum, (x_scale, w_scale), y)?])
}
