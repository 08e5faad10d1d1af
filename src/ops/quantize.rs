//! Quantisation and dequantisation, as maps: scaling, rounding, shifting, clamping, casting.
//!
//! Products of quantised operands are in [`super::quantize_products`].

use super::build::{FORM, int_attr, optional_attr};
use super::reduce::extreme_of;
use super::{AttrKind, ExpandCtx, Lowering, OnnxOp, OpDef, OpError, Operands, infer};
use crate::ir::{Attr, Attrs, DType, ValueId};

/// `round(x / scale) + zero_point`, saturated. Scale and zero point are for the tensor, per
/// entry of `axis`, or per block of `block_size` entries along it.
pub static QUANTIZE_LINEAR: OpDef = OpDef {
    name: "QuantizeLinear",
    onnx: &[OnnxOp::new("QuantizeLinear")],
    operands: Operands::with_optional(&["x", "scale"], &["zero_point"]),
    attrs: &[
        int_attr("axis", 1),
        int_attr("block_size", 0),
        optional_attr("output_dtype", AttrKind::DType),
        optional_attr("precision", AttrKind::DType),
        int_attr("saturate", 1),
    ],
    lower: Lowering::Expand(quantize_linear),
    ..FORM
};

/// `(x - zero_point) * scale`.
pub static DEQUANTIZE_LINEAR: OpDef = OpDef {
    name: "DequantizeLinear",
    onnx: &[OnnxOp::new("DequantizeLinear")],
    operands: Operands::with_optional(&["x", "scale"], &["zero_point"]),
    attrs: &[
        int_attr("axis", 1),
        int_attr("block_size", 0),
        optional_attr("output_dtype", AttrKind::DType),
    ],
    lower: Lowering::Expand(dequantize_linear),
    ..FORM
};

/// Quantises to `u8` with a scale that covers all of `x`, and gives scale and zero point too.
pub static DYNAMIC_QUANTIZE_LINEAR: OpDef = OpDef {
    name: "DynamicQuantizeLinear",
    onnx: &[OnnxOp::new("DynamicQuantizeLinear")],
    lower: Lowering::Expand(dynamic_quantize_linear),
    ..FORM
};

/// ONNX Runtime's sum of quantised tensors, quantised again. Scales are for whole tensors.
pub static Q_LINEAR_ADD: OpDef = OpDef {
    name: "QLinearAdd",
    onnx: &[OnnxOp::new("QLinearAdd").of("com.microsoft")],
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
    lower: Lowering::Expand(q_linear_add),
    ..FORM
};

/// ONNX Runtime's mean of each channel of a quantised tensor, quantised again.
pub static Q_LINEAR_GLOBAL_AVERAGE_POOL: OpDef = OpDef {
    name: "QLinearGlobalAveragePool",
    onnx: &[OnnxOp::new("QLinearGlobalAveragePool").of("com.microsoft")],
    operands: Operands::exactly(&["x", "x_scale", "x_zero_point", "y_scale", "y_zero_point"]),
    attrs: &[int_attr("channels_last", 0)],
    lower: Lowering::Expand(q_linear_global_average_pool),
    ..FORM
};

/// ONNX Runtime's softmax of a quantised tensor, quantised again. What `opset` says of other axes than
/// the last is not looked at: those are refused.
pub static Q_LINEAR_SOFTMAX: OpDef = OpDef {
    name: "QLinearSoftmax",
    onnx: &[OnnxOp::new("QLinearSoftmax").of("com.microsoft")],
    operands: Operands::exactly(&["x", "x_scale", "x_zero_point", "y_scale", "y_zero_point"]),
    attrs: &[int_attr("axis", -1), optional_attr("opset", AttrKind::Int)],
    lower: Lowering::Expand(q_linear_softmax),
    ..FORM
};

pub static OPS: &[&OpDef] = &[
    &Q_LINEAR_SOFTMAX,
    &QUANTIZE_LINEAR,
    &DEQUANTIZE_LINEAR,
    &DYNAMIC_QUANTIZE_LINEAR,
    &Q_LINEAR_ADD,
    &Q_LINEAR_GLOBAL_AVERAGE_POOL,
];

/// `value` (a scale or zero point) in a shape that broadcasts to that of `x`.
pub fn spread(ctx: &mut ExpandCtx<'_>, value: ValueId, x: ValueId) -> Result<ValueId, OpError> {
    let (own, dims) = (ctx.dims_of(value), ctx.dims_of(x));
    if own.iter().product::<usize>() == 1 && own.len() <= 1 {
        return ctx.reshape(value, &[]);
    }
    let axis = infer::axis(ctx.attrs, dims.len())?;
    match own[..] {
        [extent] if extent == dims[axis] => ctx.along_axis(value, axis, dims.len()),
        _ if own.len() == dims.len() => spread_blocks(ctx, value, &dims, axis),
        _ => Err(OpError::invalid(format!(
            "a scale or zero point `{}` along axis {axis} of {dims:?}",
            ctx.graph.ty(value)
        ))),
    }
}

/// Repeats every entry along `axis` for the entries of its block.
fn spread_blocks(
    ctx: &mut ExpandCtx<'_>,
    value: ValueId,
    dims: &[usize],
    axis: usize,
) -> Result<ValueId, OpError> {
    let own = ctx.dims_of(value);
    let block = usize::try_from(infer::int(ctx.attrs, "block_size")?).unwrap_or(0);
    // Without a block size, the number of blocks says it.
    let block = if block == 0 {
        dims[axis].div_ceil(own[axis].max(1))
    } else {
        block
    };
    if own[axis] != dims[axis].div_ceil(block.max(1)) {
        return Err(OpError::invalid(format!(
            "scales {own:?} for blocks of {block} along axis {axis} of {dims:?}"
        )));
    }
    let mut split = own.clone();
    split.insert(axis + 1, 1);
    let mut repeated = split.clone();
    repeated[axis + 1] = block;
    let mut merged = own;
    merged[axis] *= block;
    let value = ctx.reshape(value, &split)?;
    let value = ctx.expand(value, &repeated)?;
    let value = ctx.reshape(value, &merged)?;
    ctx.part(value, axis, 0..dims[axis])
}

/// Whether a constant zero point has no effect.
fn is_zero(ctx: &ExpandCtx<'_>, value: ValueId) -> bool {
    ctx.graph.weight(value).is_some_and(|data| {
        super::evaluate::to_vec::<f64>(data)
            .iter()
            .all(|&entry| entry == 0.0)
    })
}

/// The kind in which a quantisation is computed.
fn wide(dtype: DType) -> DType {
    if dtype == DType::F64 {
        DType::F64
    } else {
        DType::F32
    }
}

/// Rounds `x` (already divided by its scale), adds the zero point, and saturates to `to`.
pub fn quantized(
    ctx: &mut ExpandCtx<'_>,
    x: ValueId,
    zero_point: Option<ValueId>,
    to: DType,
) -> Result<ValueId, OpError> {
    if to.is_float() {
        return narrowed(ctx, x, to);
    }
    let mut x = ctx.plain("round", &[x])?;
    if let Some(zero_point) = zero_point
        && !is_zero(ctx, zero_point)
    {
        let zero_point = ctx.cast(zero_point, ctx.dtype_of(x))?;
        x = ctx.binary("add", x, zero_point)?;
    }
    let x = ctx.clamp(x, extreme_of(to, false), extreme_of(to, true))?;
    ctx.cast(x, to)
}

fn narrowed(ctx: &mut ExpandCtx<'_>, x: ValueId, to: DType) -> Result<ValueId, OpError> {
    if ctx.attrs.int("saturate").unwrap_or(1) != 0 {
        return ctx.cast(x, to);
    }
    let attrs = Attrs::new()
        .with("to", Attr::DType(to))
        .with("saturate", Attr::Int(0));
    ctx.emit("cast_narrow", &[x], attrs)
}

fn quantize_linear(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let (x, scale) = (ctx.value(0)?, ctx.value(1)?);
    let asked = ctx.attrs.dtype("output_dtype").unwrap_or(DType::U8);
    let to = ctx
        .optional(2)
        .map_or(asked, |zero_point| ctx.dtype_of(zero_point));
    let scale = spread(ctx, scale, x)?;
    let zero_point = match ctx.optional(2) {
        Some(zero_point) => Some(spread(ctx, zero_point, x)?),
        None => None,
    };
    let kind = ctx
        .attrs
        .dtype("precision")
        .unwrap_or_else(|| wide(ctx.dtype_of(x)));
    let (x, scale) = (ctx.cast(x, kind)?, ctx.cast(scale, kind)?);
    let scaled = ctx.binary("div", x, scale)?;
    Ok(vec![quantized(ctx, scaled, zero_point, to)?])
}

fn dequantize_linear(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let (x, scale) = (ctx.value(0)?, ctx.value(1)?);
    let to = ctx
        .attrs
        .dtype("output_dtype")
        .unwrap_or_else(|| ctx.dtype_of(scale));
    let kind = wide(to);
    let scale = spread(ctx, scale, x)?;
    let mut value = ctx.cast(x, kind)?;
    if let Some(zero_point) = ctx.optional(2)
        && !is_zero(ctx, zero_point)
    {
        let zero_point = spread(ctx, zero_point, x)?;
        let zero_point = ctx.cast(zero_point, kind)?;
        value = ctx.binary("sub", value, zero_point)?;
    }
    let scale = ctx.cast(scale, kind)?;
    let value = ctx.binary("mul", value, scale)?;
    Ok(vec![ctx.cast(value, to)?])
}

fn dynamic_quantize_linear(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let x = ctx.value(0)?;
    let axes: Vec<usize> = (0..ctx.dims_of(x).len()).collect();
    let extreme = |ctx: &mut ExpandCtx<'_>, reduce, limit| {
        let value = ctx.reduce(reduce, x, &axes)?;
        let value = ctx.reshape(value, &[])?;
        ctx.with_number(limit, value, 0.0)
    };
    // The range always holds zero.
    let low = extreme(ctx, "reduce_min", "min")?;
    let high = extreme(ctx, "reduce_max", "max")?;
    let range = ctx.binary("sub", high, low)?;
    let scale = ctx.with_number("div", range, 255.0)?;
    // A tensor of zeros has no range, and any scale will do.
    let (zero, one) = (ctx.scalar(DType::F32, 0.0), ctx.scalar(DType::F32, 1.0));
    let nothing = ctx.binary("equal", scale, zero)?;
    let scale = ctx.plain("where", &[nothing, one, scale])?;
    let offset = ctx.binary("div", low, scale)?;
    let offset = ctx.plain("neg", &[offset])?;
    let zero_point = quantized(ctx, offset, None, DType::U8)?;
    let scaled = ctx.binary("div", x, scale)?;
    let y = quantized(ctx, scaled, Some(zero_point), DType::U8)?;
    Ok(vec![y, scale, zero_point])
}

/// Operand `n`, a scale or zero point of a whole tensor, as one `f32`.
fn number(ctx: &mut ExpandCtx<'_>, n: usize) -> Result<ValueId, OpError> {
    let value = ctx.value(n)?;
    let value = ctx.reshape(value, &[])?;
    ctx.cast(value, DType::F32)
}

/// `y_zero - (ra * a_zero + rb * b_zero) + ra * a + rb * b`, with ratios of scales `ra` and `rb`:
/// every operation rounds to `f32` in this order, as in ONNX Runtime, and rounding to steps comes
/// after the zero point.
fn q_linear_add(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let (y_scale, y_zero) = (number(ctx, 6)?, number(ctx, 7)?);
    let mut terms = Vec::new();
    let mut zeros = Vec::new();
    for n in [0, 3] {
        let (scale, zero) = (number(ctx, n + 1)?, number(ctx, n + 2)?);
        let ratio = ctx.binary("div", scale, y_scale)?;
        zeros.push(ctx.binary("mul_rounded", ratio, zero)?);
        let x = ctx.value(n)?;
        let x = ctx.cast(x, DType::F32)?;
        terms.push(ctx.binary("mul_rounded", x, ratio)?);
    }
    let zeros = ctx.binary("add", zeros[0], zeros[1])?;
    let offset = ctx.binary("sub", y_zero, zeros)?;
    let sum = ctx.binary("add", terms[0], offset)?;
    let sum = ctx.binary("add", sum, terms[1])?;
    let y_zero = ctx.value(7)?;
    let to = ctx.dtype_of(y_zero);
    Ok(vec![quantized(ctx, sum, None, to)?])
}

/// The softmax of the dequantised tensor.
fn q_linear_softmax(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let (x, zero) = (ctx.value(0)?, ctx.value(2)?);
    let rank = ctx.dims_of(x).len();
    if infer::axis(ctx.attrs, rank)? + 1 != rank {
        return Err(OpError::unsupported(
            "a quantised softmax over another axis than the last",
        ));
    }
    let zero = ctx.reshape(zero, &[])?;
    let (x, zero) = (ctx.cast(x, DType::F32)?, ctx.cast(zero, DType::F32)?);
    let scale = number(ctx, 1)?;
    let centred = ctx.binary("sub", x, zero)?;
    let x = ctx.binary("mul", centred, scale)?;
    let last = Attrs::new().with(
        "axis",
        Attr::Int(i64::try_from(rank).expect("ranks are small") - 1),
    );
    let y = ctx.emit("softmax", &[x], last)?;
    let scale = number(ctx, 3)?;
    let scaled = ctx.binary("div", y, scale)?;
    let y_zero = ctx.value(4)?;
    let to = ctx.dtype_of(y_zero);
    let y_zero = ctx.reshape(y_zero, &[])?;
    Ok(vec![quantized(ctx, scaled, Some(y_zero), to)?])
}

/// The sum of all cells without their zero points, times `x_scale / (y_scale * cells)`.
fn q_linear_global_average_pool(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let (x, zero) = (ctx.value(0)?, ctx.value(2)?);
    let dims = ctx.dims_of(x);
    let axes: Vec<usize> = match infer::int(ctx.attrs, "channels_last")? {
        0 => (2..dims.len()).collect(),
        _ => (1..dims.len().saturating_sub(1)).collect(),
    };
    let zero = ctx.reshape(zero, &[])?;
    let (x, zero) = (ctx.cast(x, DType::I32)?, ctx.cast(zero, DType::I32)?);
    let centred = ctx.binary("sub", x, zero)?;
    let sum = ctx.reduce("reduce_sum", centred, &axes)?;
    let sum = ctx.cast(sum, DType::F32)?;
    #[expect(clippy::cast_precision_loss, reason = "the scale is a float")]
    let cells = axes.iter().map(|&axis| dims[axis]).product::<usize>() as f64;
    let (x_scale, y_scale) = (number(ctx, 1)?, number(ctx, 3)?);
    let unit = ctx.with_number("mul", y_scale, cells)?;
    let unit = ctx.binary("div", x_scale, unit)?;
    let scaled = ctx.binary("mul", sum, unit)?;
    let y_zero = ctx.value(4)?;
    let to = ctx.dtype_of(y_zero);
    let y_zero = ctx.reshape(y_zero, &[])?;
    Ok(vec![quantized(ctx, scaled, Some(y_zero), to)?])
}
