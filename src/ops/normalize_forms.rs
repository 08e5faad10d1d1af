//! ONNX's normalisations: the core ops with scales and biases as maps around them.

use super::build::{FORM, float_attr, int_attr, optional_attr, required_attr};
use super::samples::ints_attr;
use super::{AttrKind, ExpandCtx, Lowering, OnnxOp, OpDef, OpError, Operands, infer};
use crate::ir::{Attr, Attrs, ValueId};

/// Standardises over the axes from `axis` on. Sums are in `f32` for narrower kinds, whatever
/// `stash_type` says.
pub static LAYER_NORMALIZATION: OpDef = OpDef {
    name: "LayerNormalization",
    onnx: &[OnnxOp::new("LayerNormalization")],
    operands: Operands::with_optional(&["x", "scale"], &["bias"]),
    attrs: &[
        int_attr("axis", -1),
        float_attr("epsilon", 1e-5),
        int_attr("stash_type", 1),
    ],
    lower: Lowering::Expand(layer_normalization),
    ..FORM
};

/// Divides by the root of the mean square over the axes from `axis` on.
pub static RMS_NORMALIZATION: OpDef = OpDef {
    name: "RMSNormalization",
    onnx: &[OnnxOp::new("RMSNormalization")],
    operands: Operands::exactly(&["x", "scale"]),
    attrs: &[
        int_attr("axis", -1),
        float_attr("epsilon", 1e-5),
        int_attr("stash_type", 1),
    ],
    lower: Lowering::Expand(rms_normalization),
    ..FORM
};

/// Standardises every channel of every sample.
pub static INSTANCE_NORMALIZATION: OpDef = OpDef {
    name: "InstanceNormalization",
    onnx: &[OnnxOp::new("InstanceNormalization")],
    operands: Operands::exactly(&["x", "scale", "bias"]),
    attrs: &[float_attr("epsilon", 1e-5)],
    lower: Lowering::Expand(instance_normalization),
    ..FORM
};

/// Standardises groups of channels. Scales are per group at opset 18, per channel since 21.
pub static GROUP_NORMALIZATION: OpDef = OpDef {
    name: "GroupNormalization",
    onnx: &[OnnxOp::new("GroupNormalization")],
    operands: Operands::exactly(&["x", "scale", "bias"]),
    attrs: &[
        float_attr("epsilon", 1e-5),
        required_attr("num_groups", AttrKind::Int),
        int_attr("stash_type", 1),
    ],
    lower: Lowering::Expand(group_normalization),
    ..FORM
};

/// Normalises with given statistics per channel, or, in training mode, with those of the batch.
pub static BATCH_NORMALIZATION: OpDef = OpDef {
    name: "BatchNormalization",
    onnx: &[OnnxOp::new("BatchNormalization")],
    operands: Operands::exactly(&["x", "scale", "bias", "mean", "variance"]),
    attrs: &[
        float_attr("epsilon", 1e-5),
        float_attr("momentum", 0.9),
        int_attr("training_mode", 0),
        int_attr("spatial", 1),
        int_attr("is_test", 0),
    ],
    lower: Lowering::Expand(batch_normalization),
    ..FORM
};

/// Standardises over `axes`.
pub static MEAN_VARIANCE_NORMALIZATION: OpDef = OpDef {
    name: "MeanVarianceNormalization",
    onnx: &[OnnxOp::new("MeanVarianceNormalization")],
    attrs: &[optional_attr("axes", AttrKind::Ints)],
    lower: Lowering::Expand(mean_variance_normalization),
    ..FORM
};

/// Divides by the 1- or 2-norm along `axis`.
pub static LP_NORMALIZATION: OpDef = OpDef {
    name: "LpNormalization",
    onnx: &[OnnxOp::new("LpNormalization")],
    attrs: &[int_attr("axis", -1), int_attr("p", 2)],
    lower: Lowering::Expand(lp_normalization),
    ..FORM
};

/// Divides by a power of the mean square of `size` neighbouring channels.
pub static LRN: OpDef = OpDef {
    name: "LRN",
    onnx: &[OnnxOp::new("LRN")],
    attrs: &[
        float_attr("alpha", 1e-4),
        float_attr("beta", 0.75),
        float_attr("bias", 1.0),
        required_attr("size", AttrKind::Int),
    ],
    lower: Lowering::Expand(lrn),
    ..FORM
};

pub static OPS: &[&OpDef] = &[
    &LAYER_NORMALIZATION,
    &RMS_NORMALIZATION,
    &INSTANCE_NORMALIZATION,
    &GROUP_NORMALIZATION,
    &BATCH_NORMALIZATION,
    &MEAN_VARIANCE_NORMALIZATION,
    &LP_NORMALIZATION,
    &LRN,
];

/// A core normalisation over `axes` with the form's epsilon.
fn normalized(
    ctx: &mut ExpandCtx<'_>,
    op: &'static str,
    x: ValueId,
    axes: &[usize],
) -> Result<ValueId, OpError> {
    let epsilon = infer::float(ctx.attrs, "epsilon")?;
    over(ctx, op, x, axes, epsilon)
}

fn over(
    ctx: &mut ExpandCtx<'_>,
    op: &'static str,
    x: ValueId,
    axes: &[usize],
    epsilon: f64,
) -> Result<ValueId, OpError> {
    let attrs = Attrs::new()
        .with("axes", ints_attr(axes))
        .with("epsilon", Attr::Float(epsilon));
    ctx.emit(op, &[x], attrs)
}

fn trailing_axes(ctx: &ExpandCtx<'_>, rank: usize) -> Result<Vec<usize>, OpError> {
    Ok((infer::axis(ctx.attrs, rank)?..rank).collect())
}

/// `x * scale` in the kind of `x`, which a scale of another kind is brought to.
fn scaled(ctx: &mut ExpandCtx<'_>, x: ValueId, scale: ValueId) -> Result<ValueId, OpError> {
    let scale = ctx.cast(scale, ctx.dtype_of(x))?;
    ctx.binary("mul", x, scale)
}

fn layer_normalization(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let (x, scale) = (ctx.value(0)?, ctx.value(1)?);
    let axes = trailing_axes(ctx, ctx.dims_of(x).len())?;
    let standard = normalized(ctx, "standardize", x, &axes)?;
    let mut y = scaled(ctx, standard, scale)?;
    if let Some(bias) = ctx.optional(2) {
        let bias = ctx.cast(bias, ctx.dtype_of(y))?;
        y = ctx.binary("add", y, bias)?;
    }
    if ctx.n_results == 1 {
        return Ok(vec![y]);
    }
    let (mean, factor) = statistics(ctx, x, &axes)?;
    Ok([y, mean, factor][..ctx.n_results.min(3)].to_vec())
}

/// Mean and `1 / sqrt(variance + epsilon)`, in `f32` for narrower kinds.
fn statistics(ctx: &mut ExpandCtx<'_>, x: ValueId, axes: &[usize]) -> Result<(ValueId, ValueId), OpError> {
    use crate::ir::DType;
    let wide = if ctx.dtype_of(x) == DType::F64 {
        DType::F64
    } else {
        DType::F32
    };
    let x = ctx.cast(x, wide)?;
    let mean = ctx.reduce("reduce_mean", x, axes)?;
    let variance = variance(ctx, x, mean, axes)?;
    let epsilon = infer::float(ctx.attrs, "epsilon")?;
    let shifted = ctx.with_number("add", variance, epsilon)?;
    Ok((mean, ctx.plain("rsqrt", &[shifted])?))
}

fn variance(ctx: &mut ExpandCtx<'_>, x: ValueId, mean: ValueId, axes: &[usize]) -> Result<ValueId, OpError> {
    let centred = ctx.binary("sub", x, mean)?;
    let square = ctx.binary("mul", centred, centred)?;
    ctx.reduce("reduce_mean", square, axes)
}

fn rms_normalization(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let (x, scale) = (ctx.value(0)?, ctx.value(1)?);
    let axes = trailing_axes(ctx, ctx.dims_of(x).len())?;
    let standard = normalized(ctx, "rms_standardize", x, &axes)?;
    Ok(vec![scaled(ctx, standard, scale)?])
}

/// `x * scale + bias` along axis 1.
fn per_channel(
    ctx: &mut ExpandCtx<'_>,
    x: ValueId,
    scale: ValueId,
    bias: ValueId,
) -> Result<ValueId, OpError> {
    let rank = ctx.dims_of(x).len();
    let dtype = ctx.dtype_of(x);
    let scale = ctx.along_axis(scale, 1, rank)?;
    let bias = ctx.along_axis(bias, 1, rank)?;
    let (scale, bias) = (ctx.cast(scale, dtype)?, ctx.cast(bias, dtype)?);
    let product = ctx.binary("mul", x, scale)?;
    ctx.binary("add", product, bias)
}

fn instance_normalization(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let (x, scale, bias) = (ctx.value(0)?, ctx.value(1)?, ctx.value(2)?);
    let axes: Vec<usize> = (2..ctx.dims_of(x).len()).collect();
    let standard = normalized(ctx, "standardize", x, &axes)?;
    Ok(vec![per_channel(ctx, standard, scale, bias)?])
}

fn group_normalization(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let (x, scale, bias) = (ctx.value(0)?, ctx.value(1)?, ctx.value(2)?);
    let dims = ctx.dims_of(x);
    let groups = infer::sizes(
        &Attrs::new().with(
            "num_groups",
            Attr::Ints(vec![infer::int(ctx.attrs, "num_groups")?]),
        ),
        "num_groups",
    )?[0];
    if dims.len() < 2 || groups == 0 || !dims[1].is_multiple_of(groups) {
        return Err(OpError::invalid(format!(
            "{groups} groups of the channels of {dims:?}"
        )));
    }
    let rest = dims[1] / groups * dims[2..].iter().product::<usize>();
    let grouped = ctx.reshape(x, &[dims[0], groups, rest])?;
    let mut standard = normalized(ctx, "standardize", grouped, &[2])?;
    if ctx.opset < 21 {
        standard = per_channel(ctx, standard, scale, bias)?;
        return Ok(vec![ctx.reshape(standard, &dims)?]);
    }
    let standard = ctx.reshape(standard, &dims)?;
    Ok(vec![per_channel(ctx, standard, scale, bias)?])
}

fn batch_normalization(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    if infer::int(ctx.attrs, "spatial")? == 0 {
        return Err(OpError::unsupported(
            "batch normalisation with statistics per element (`spatial` is 0)",
        ));
    }
    let x = ctx.value(0)?;
    let [scale, bias, mean, variance] = [ctx.value(1)?, ctx.value(2)?, ctx.value(3)?, ctx.value(4)?];
    if infer::int(ctx.attrs, "training_mode")? == 0 {
        if ctx.n_results > 1 && ctx.opset >= 14 {
            return Err(OpError::invalid("running statistics without `training_mode`"));
        }
        return Ok(vec![with_statistics(ctx, x, [scale, bias, mean, variance])?]);
    }
    train(ctx, x, [scale, bias], [mean, variance])
}

/// Computed in the widest of the operands' kinds.
fn with_statistics(
    ctx: &mut ExpandCtx<'_>,
    x: ValueId,
    statistics: [ValueId; 4],
) -> Result<ValueId, OpError> {
    let dtype = ctx.dtype_of(x);
    let widest = statistics
        .iter()
        .map(|&value| ctx.dtype_of(value))
        .fold(dtype, |wide, own| {
            if own.size_bytes() > wide.size_bytes() {
                own
            } else {
                wide
            }
        });
    let mut operands = Vec::new();
    for value in [x].into_iter().chain(statistics) {
        operands.push(ctx.cast(value, widest)?);
    }
    let epsilon = infer::float(ctx.attrs, "epsilon")?;
    let y = ctx.emit(
        "batch_norm",
        &operands,
        Attrs::new().with("epsilon", Attr::Float(epsilon)),
    )?;
    ctx.cast(y, dtype)
}

fn train(
    ctx: &mut ExpandCtx<'_>,
    x: ValueId,
    [scale, bias]: [ValueId; 2],
    running: [ValueId; 2],
) -> Result<Vec<ValueId>, OpError> {
    let dims = ctx.dims_of(x);
    let axes: Vec<usize> = (0..dims.len()).filter(|&axis| axis != 1).collect();
    let mean = ctx.reduce("reduce_mean", x, &axes)?;
    let variance = variance(ctx, x, mean, &axes)?;
    let channels = ctx.dims_of(scale);
    let current = [ctx.reshape(mean, &channels)?, ctx.reshape(variance, &channels)?];
    let mut results = vec![with_statistics(ctx, x, [scale, bias, current[0], current[1]])?];
    let momentum = infer::float(ctx.attrs, "momentum")?;
    for (old, new) in running.into_iter().zip(current) {
        let old_part = ctx.with_number("mul", old, momentum)?;
        let new = ctx.cast(new, ctx.dtype_of(old))?;
        let new_part = ctx.with_number("mul", new, 1.0 - momentum)?;
        results.push(ctx.binary("add", old_part, new_part)?);
    }
    results.truncate(ctx.n_results);
    Ok(results)
}

fn mean_variance_normalization(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let x = ctx.value(0)?;
    let named = ctx.attrs.ints("axes").unwrap_or(&[0, 2, 3]);
    let axes = infer::normalize_axes(named, ctx.dims_of(x).len())?;
    // ONNX adds 1e-9 to the deviation; its square under the root does the same for constants.
    Ok(vec![over(ctx, "standardize", x, &axes, 1e-18)?])
}

fn lp_normalization(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let x = ctx.value(0)?;
    let axis = infer::axis(ctx.attrs, ctx.dims_of(x).len())?;
    let norm = match infer::int(ctx.attrs, "p")? {
        1 => {
            let positive = ctx.plain("abs", &[x])?;
            ctx.reduce("reduce_sum", positive, &[axis])?
        }
        2 => {
            let square = ctx.binary("mul", x, x)?;
            let sum = ctx.reduce("reduce_sum", square, &[axis])?;
            ctx.plain("sqrt", &[sum])?
        }
        p => {
            return Err(OpError::invalid(format!(
                "attribute `p` must be 1 or 2, found {p}"
            )));
        }
    };
    let dtype = ctx.dtype_of(x);
    let (zero, one) = (ctx.scalar(dtype, 0.0), ctx.scalar(dtype, 1.0));
    let nothing = ctx.binary("equal", norm, zero)?;
    let divisor = ctx.plain("where", &[nothing, one, norm])?;
    Ok(vec![ctx.binary("div", x, divisor)?])
}

/// The mean square is an average pooling over the channels, seen as a spatial axis.
fn lrn(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let x = ctx.value(0)?;
    let dims = ctx.dims_of(x);
    let size = infer::int(ctx.attrs, "size")?;
    if dims.len() < 2 || size < 1 {
        return Err(OpError::invalid(format!(
            "{size} neighbouring channels of {dims:?}"
        )));
    }
    let square = ctx.binary("mul", x, x)?;
    let rest = dims[2..].iter().product();
    let planes = ctx.reshape(square, &[dims[0], 1, dims[1], rest])?;
    let (before, after) = ((size - 1) / 2, size / 2);
    let attrs = Attrs::new()
        .with("kernel_shape", Attr::Ints(vec![size, 1]))
        .with("strides", Attr::Ints(vec![1, 1]))
        .with("dilations", Attr::Ints(vec![1, 1]))
        .with("pads", Attr::Ints(vec![before, 0, after, 0]))
        .with("count_include_pad", Attr::Int(1));
    let mean = ctx.emit("avg_pool", &[planes], attrs)?;
    let mean = ctx.reshape(mean, &dims)?;
    let weighted = ctx.with_number("mul", mean, infer::float(ctx.attrs, "alpha")?)?;
    let sum = ctx.with_number("add", weighted, infer::float(ctx.attrs, "bias")?)?;
    let divisor = ctx.with_number("pow", sum, infer::float(ctx.attrs, "beta")?)?;
    Ok(vec![ctx.binary("div", x, divisor)?])
}
