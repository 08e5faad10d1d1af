//! Activation functions: one float in, one float out.

use super::build::{float_attr, str_attr};
use super::evaluate::float1;
use super::{EvalCtx, Lowering, OnnxOp, OpDef, OpError, Operands, Reach, Tolerance, infer, samples};

/// What every op of this file has in common.
const FLOAT_UNARY: OpDef = OpDef {
    name: "",
    onnx: &[],
    operands: Operands::exactly(&["x"]),
    attrs: &[],
    infer: infer::float_unary,
    eval: |ctx| float1(ctx, |x| x),
    lower: Lowering::Map(""),
    samples: samples::any_float,
    tolerance: Tolerance::Close,
    halves: None,
    reach: Reach::Elements,
};

/// `max(x, 0)`. NaN stays NaN, as ONNX requires. Integers are allowed since opset 14.
pub static RELU: OpDef = OpDef {
    name: "relu",
    onnx: &[OnnxOp::new("Relu")],
    infer: infer::number_unary,
    eval: |ctx| super::evaluate::number1(ctx, |x| if x < 0.0 { 0.0 } else { x }, |x| x.max(0)),
    lower: Lowering::Map("rt_relu({0})"),
    samples: samples::any_number,
    tolerance: Tolerance::Exact,
    ..FLOAT_UNARY
};

/// `x` where it is not negative, `alpha * x` elsewhere.
pub static LEAKY_RELU: OpDef = OpDef {
    name: "leaky_relu",
    onnx: &[OnnxOp::new("LeakyRelu")],
    attrs: &[float_attr("alpha", 0.01)],
    eval: |ctx| {
        let alpha = infer::float(ctx.attrs, "alpha")?;
        float1(ctx, |x| if x < 0.0 { alpha * x } else { x })
    },
    lower: Lowering::Map("rt_leaky_relu({0}, {alpha})"),
    tolerance: Tolerance::Rounded,
    ..FLOAT_UNARY
};

/// `alpha * (exp(x) - 1)` below zero, `x` elsewhere.
pub static ELU: OpDef = OpDef {
    name: "elu",
    onnx: &[OnnxOp::new("Elu")],
    attrs: &[float_attr("alpha", 1.0)],
    eval: |ctx| {
        let alpha = infer::float(ctx.attrs, "alpha")?;
        float1(ctx, |x| if x < 0.0 { alpha * x.exp_m1() } else { x })
    },
    lower: Lowering::Map("rt_elu({0}, {alpha})"),
    ..FLOAT_UNARY
};

/// `gamma * elu(x, alpha)`.
pub static SELU: OpDef = OpDef {
    name: "selu",
    onnx: &[OnnxOp::new("Selu")],
    attrs: &[
        float_attr("alpha", 1.673_263_192_176_818_8),
        float_attr("gamma", 1.050_701_022_148_132_3),
    ],
    eval: |ctx| {
        let (alpha, gamma) = (
            infer::float(ctx.attrs, "alpha")?,
            infer::float(ctx.attrs, "gamma")?,
        );
        float1(ctx, |x| gamma * if x <= 0.0 { alpha * x.exp_m1() } else { x })
    },
    lower: Lowering::Map("rt_selu({0}, {alpha}, {gamma})"),
    ..FLOAT_UNARY
};

/// `max(0, x) + min(0, alpha * (exp(x / alpha) - 1))`.
pub static CELU: OpDef = OpDef {
    name: "celu",
    onnx: &[OnnxOp::new("Celu")],
    attrs: &[float_attr("alpha", 1.0)],
    eval: |ctx| {
        let alpha = infer::float(ctx.attrs, "alpha")?;
        float1(ctx, |x| if x < 0.0 { alpha * (x / alpha).exp_m1() } else { x })
    },
    lower: Lowering::Map("rt_celu({0}, {alpha})"),
    ..FLOAT_UNARY
};

/// `x` where it is above `alpha`, zero elsewhere.
pub static THRESHOLDED_RELU: OpDef = OpDef {
    name: "thresholded_relu",
    onnx: &[OnnxOp::new("ThresholdedRelu")],
    attrs: &[float_attr("alpha", 1.0)],
    eval: |ctx| {
        let alpha = infer::float(ctx.attrs, "alpha")?;
        float1(ctx, |x| if x > alpha { x } else { 0.0 })
    },
    lower: Lowering::Map("rt_thresholded_relu({0}, {alpha})"),
    tolerance: Tolerance::Exact,
    ..FLOAT_UNARY
};

/// `1 / (1 + exp(-x))`.
pub static SIGMOID: OpDef = OpDef {
    name: "sigmoid",
    onnx: &[OnnxOp::new("Sigmoid")],
    eval: |ctx| float1(ctx, sigmoid),
    lower: Lowering::Map("rt_sigmoid({0})"),
    ..FLOAT_UNARY
};

/// `log(1 + exp(x))`.
pub static SOFTPLUS: OpDef = OpDef {
    name: "softplus",
    onnx: &[OnnxOp::new("Softplus")],
    eval: |ctx| float1(ctx, softplus),
    lower: Lowering::Map("rt_softplus({0})"),
    ..FLOAT_UNARY
};

/// `x / (1 + |x|)`.
pub static SOFTSIGN: OpDef = OpDef {
    name: "softsign",
    onnx: &[OnnxOp::new("Softsign")],
    eval: |ctx| float1(ctx, |x| x / (1.0 + x.abs())),
    lower: Lowering::Map("rt_softsign({0})"),
    ..FLOAT_UNARY
};

/// `alpha * x + beta`, limited to `0..=1`.
pub static HARD_SIGMOID: OpDef = OpDef {
    name: "hard_sigmoid",
    onnx: &[OnnxOp::new("HardSigmoid")],
    attrs: &[float_attr("alpha", 0.2), float_attr("beta", 0.5)],
    eval: |ctx| {
        let (alpha, beta) = (
            infer::float(ctx.attrs, "alpha")?,
            infer::float(ctx.attrs, "beta")?,
        );
        float1(ctx, |x| (alpha * x + beta).clamp(0.0, 1.0))
    },
    lower: Lowering::Map("rt_hard_sigmoid({0}, {alpha}, {beta})"),
    tolerance: Tolerance::Rounded,
    ..FLOAT_UNARY
};

/// `x * hard_sigmoid(x, 1/6, 1/2)`.
pub static HARD_SWISH: OpDef = OpDef {
    name: "hard_swish",
    onnx: &[OnnxOp::new("HardSwish")],
    eval: |ctx| float1(ctx, |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
    lower: Lowering::Map("rt_hard_swish({0})"),
    tolerance: Tolerance::Rounded,
    ..FLOAT_UNARY
};

/// The Gaussian error linear unit, exact or through `tanh`.
pub static GELU: OpDef = OpDef {
    name: "gelu",
    onnx: &[OnnxOp::new("Gelu")],
    attrs: &[str_attr("approximate", "none")],
    infer: |ctx| {
        is_tanh_gelu(ctx.attrs.str("approximate"))?;
        infer::float_unary(ctx)
    },
    eval: gelu,
    lower: Lowering::Map("rt_gelu_{approximate}({0})"),
    halves: Some("rt_gelu_{approximate}_of_halves({0})"),
    reach: Reach::Elements,
    ..FLOAT_UNARY
};

/// `x * tanh(softplus(x))`.
pub static MISH: OpDef = OpDef {
    name: "mish",
    onnx: &[OnnxOp::new("Mish")],
    eval: |ctx| float1(ctx, |x| x * softplus(x).tanh()),
    lower: Lowering::Map("rt_mish({0})"),
    ..FLOAT_UNARY
};

/// `x * sigmoid(alpha * x)`.
pub static SWISH: OpDef = OpDef {
    name: "swish",
    onnx: &[OnnxOp::new("Swish")],
    attrs: &[float_attr("alpha", 1.0)],
    eval: |ctx| {
        let alpha = infer::float(ctx.attrs, "alpha")?;
        float1(ctx, |x| x * sigmoid(alpha * x))
    },
    lower: Lowering::Map("rt_swish({0}, {alpha})"),
    ..FLOAT_UNARY
};

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Without overflow for large `x`.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p() + if x.is_nan() { x } else { 0.0 }
}

fn is_tanh_gelu(approximate: Option<&str>) -> Result<bool, OpError> {
    match approximate {
        Some("none") => Ok(false),
        Some("tanh") => Ok(true),
        other => Err(OpError::invalid(format!(
            "attribute `approximate` must be `none` or `tanh`, found `{}`",
            other.unwrap_or_default()
        ))),
    }
}

fn gelu(ctx: &EvalCtx<'_>) -> Result<Vec<super::Datum>, OpError> {
    let scale = (2.0 / std::f64::consts::PI).sqrt();
    if is_tanh_gelu(ctx.attrs.str("approximate"))? {
        float1(ctx, |x| {
            0.5 * x * (1.0 + (scale * (x + 0.044_715 * x * x * x)).tanh())
        })
    } else {
        float1(ctx, |x| {
            0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2))
        })
    }
}

pub static OPS: &[&OpDef] = &[
    &RELU,
    &LEAKY_RELU,
    &ELU,
    &SELU,
    &CELU,
    &THRESHOLDED_RELU,
    &SIGMOID,
    &SOFTPLUS,
    &SOFTSIGN,
    &HARD_SIGMOID,
    &HARD_SWISH,
    &GELU,
    &MISH,
    &SWISH,
];
