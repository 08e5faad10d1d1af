//! ONNX's forms of arithmetic: any number of operands, operands of different kinds, and the
//! broadcasting of opset 6.

use super::build::{float_attr, int_attr, optional_attr, required_attr};
use super::evaluate::to_vec;
use super::samples;
use super::{
    AttrDef, AttrKind, ExpandCtx, ExpandFn, Lowering, OnnxOp, OpDef, OpError, Operands, Reach, Tolerance,
    evaluate, infer,
};
use crate::ir::{Attr, Attrs, DType, HostTensor, Operand, ValueId};

/// What all forms have in common.
pub const FORM: OpDef = OpDef {
    name: "",
    onnx: &[],
    operands: Operands::exactly(&["x"]),
    attrs: &[],
    infer: infer::BY_EXPANSION,
    eval: evaluate::BY_EXPANSION,
    lower: Lowering::Host(""),
    samples: samples::NONE,
    tolerance: Tolerance::Exact,
    halves: None,
    reach: Reach::Elements,
};

const OPSET6_ATTRS: &[AttrDef] = &[
    optional_attr("axis", AttrKind::Int),
    int_attr("broadcast", 0),
    optional_attr("consumed_inputs", AttrKind::Ints),
];

/// A binary operator up to opset 6, where operand `b` only repeats if `broadcast` is set, and
/// then aligns at `axis` of `a`.
const fn opset6(name: &'static str, onnx: &'static [OnnxOp], expand: ExpandFn) -> OpDef {
    OpDef {
        name,
        onnx,
        operands: Operands::exactly(&["a", "b"]),
        attrs: OPSET6_ATTRS,
        lower: Lowering::Expand(expand),
        ..FORM
    }
}

pub static ADD_6: OpDef = opset6("Add6", &[OnnxOp::new("Add").until(6)], |ctx| aligned(ctx, "add"));
pub static SUB_6: OpDef = opset6("Sub6", &[OnnxOp::new("Sub").until(6)], |ctx| aligned(ctx, "sub"));
pub static MUL_6: OpDef = opset6("Mul6", &[OnnxOp::new("Mul").until(6)], |ctx| aligned(ctx, "mul"));
pub static DIV_6: OpDef = opset6("Div6", &[OnnxOp::new("Div").until(6)], |ctx| aligned(ctx, "div"));
pub static POW_6: OpDef = opset6("Pow6", &[OnnxOp::new("Pow").until(6)], |ctx| aligned(ctx, "pow"));
pub static AND_6: OpDef = opset6("And6", &[OnnxOp::new("And").until(6)], |ctx| aligned(ctx, "and"));
pub static OR_6: OpDef = opset6("Or6", &[OnnxOp::new("Or").until(6)], |ctx| aligned(ctx, "or"));
pub static XOR_6: OpDef = opset6("Xor6", &[OnnxOp::new("Xor").until(6)], |ctx| aligned(ctx, "xor"));
pub static EQUAL_6: OpDef = opset6("Equal6", &[OnnxOp::new("Equal").until(6)], |ctx| {
    aligned(ctx, "equal")
});
pub static LESS_6: OpDef = opset6("Less6", &[OnnxOp::new("Less").until(6)], |ctx| {
    aligned(ctx, "less")
});
pub static GREATER_6: OpDef = opset6("Greater6", &[OnnxOp::new("Greater").until(6)], |ctx| {
    aligned(ctx, "greater")
});

/// `PRelu` up to opset 6: a slope of several elements belongs to axis 1.
pub static PRELU_6: OpDef = OpDef {
    name: "PRelu6",
    onnx: &[OnnxOp::new("PRelu").until(6)],
    operands: Operands::exactly(&["x", "slope"]),
    attrs: &[optional_attr("consumed_inputs", AttrKind::Ints)],
    lower: Lowering::Expand(|ctx| {
        let (x, slope) = (ctx.value(0)?, ctx.value(1)?);
        let slope = align(ctx, slope, x, 1)?;
        Ok(vec![ctx.plain("prelu", &[x, slope])?])
    }),
    ..FORM
};

/// `Pow`: the result has the kind of the base, whatever that of the exponent.
pub static POW: OpDef = OpDef {
    name: "Pow",
    onnx: &[OnnxOp::new("Pow").since(7)],
    operands: Operands::exactly(&["base", "exponent"]),
    lower: Lowering::Expand(expand_pow),
    ..FORM
};

/// `Mod`: the sign of the divisor, or of the dividend with `fmod`.
pub static MOD: OpDef = OpDef {
    name: "Mod",
    onnx: &[OnnxOp::new("Mod")],
    operands: Operands::exactly(&["a", "b"]),
    attrs: &[int_attr("fmod", 0)],
    lower: Lowering::Expand(|ctx| {
        let op = if infer::int(ctx.attrs, "fmod")? == 0 {
            "mod_floor"
        } else {
            "mod_trunc"
        };
        let operands = [ctx.value(0)?, ctx.value(1)?];
        Ok(vec![ctx.plain(op, &operands)?])
    }),
    ..FORM
};

pub static BIT_SHIFT: OpDef = OpDef {
    name: "BitShift",
    onnx: &[OnnxOp::new("BitShift")],
    operands: Operands::exactly(&["a", "b"]),
    attrs: &[required_attr("direction", AttrKind::Str)],
    lower: Lowering::Expand(|ctx| {
        let op = match ctx.attrs.str("direction") {
            Some("LEFT") => "shift_left",
            Some("RIGHT") => "shift_right",
            other => {
                return Err(OpError::invalid(format!(
                    "attribute `direction` must be `LEFT` or `RIGHT`, found `{}`",
                    other.unwrap_or_default()
                )));
            }
        };
        let operands = [ctx.value(0)?, ctx.value(1)?];
        Ok(vec![ctx.plain(op, &operands)?])
    }),
    ..FORM
};

/// `SwiGLU`: a gate through `swish`, times the values.
pub static SWIGLU: OpDef = OpDef {
    name: "SwiGLU",
    onnx: &[OnnxOp::new("SwiGLU")],
    operands: Operands::exactly(&["gate", "x"]),
    attrs: &[float_attr("alpha", 1.0)],
    lower: Lowering::Expand(|ctx| {
        let (gate, x) = (ctx.value(0)?, ctx.value(1)?);
        let alpha = Attr::Float(infer::float(ctx.attrs, "alpha")?);
        let opened = ctx.emit("swish", &[gate], Attrs::new().with("alpha", alpha))?;
        Ok(vec![ctx.binary("mul", opened, x)?])
    }),
    ..FORM
};

/// What operators over any number of operands have in common.
const VARIADIC: OpDef = OpDef {
    operands: Operands::variadic(&["x"]),
    attrs: &[optional_attr("consumed_inputs", AttrKind::Ints)],
    ..FORM
};

pub static MIN: OpDef = OpDef {
    name: "Min",
    onnx: &[OnnxOp::new("Min")],
    lower: Lowering::Expand(|ctx| Ok(vec![joined(ctx, "min")?])),
    ..VARIADIC
};

pub static MAX: OpDef = OpDef {
    name: "Max",
    onnx: &[OnnxOp::new("Max")],
    lower: Lowering::Expand(|ctx| Ok(vec![joined(ctx, "max")?])),
    ..VARIADIC
};

pub static SUM: OpDef = OpDef {
    name: "Sum",
    onnx: &[OnnxOp::new("Sum")],
    lower: Lowering::Expand(|ctx| Ok(vec![joined(ctx, "add")?])),
    ..VARIADIC
};

pub static MEAN: OpDef = OpDef {
    name: "Mean",
    onnx: &[OnnxOp::new("Mean")],
    lower: Lowering::Expand(|ctx| {
        let sum = joined(ctx, "add")?;
        #[expect(clippy::cast_precision_loss, reason = "operands are few")]
        let count = ctx.operands.len() as f64;
        let count = ctx.scalar(ctx.dtype_of(sum), count);
        Ok(vec![ctx.plain("div", &[sum, count])?])
    }),
    ..VARIADIC
};

/// `Clip`: bounds as attributes up to opset 10, then as operands that may be absent.
pub static CLIP: OpDef = OpDef {
    name: "Clip",
    onnx: &[OnnxOp::new("Clip")],
    operands: Operands::with_optional(&["x"], &["low", "high"]),
    attrs: &[
        optional_attr("min", AttrKind::Float),
        optional_attr("max", AttrKind::Float),
        optional_attr("consumed_inputs", AttrKind::Ints),
    ],
    lower: Lowering::Expand(expand_clip),
    ..FORM
};

/// `Shrink`: towards zero by `bias`, and to zero within `lambd`.
pub static SHRINK: OpDef = OpDef {
    name: "Shrink",
    onnx: &[OnnxOp::new("Shrink")],
    attrs: &[
        super::build::float_attr("lambd", 0.5),
        super::build::float_attr("bias", 0.0),
    ],
    lower: Lowering::Expand(expand_shrink),
    ..FORM
};

fn aligned(ctx: &mut ExpandCtx<'_>, op: &'static str) -> Result<Vec<ValueId>, OpError> {
    let (a, b) = (ctx.value(0)?, ctx.value(1)?);
    let rank = ctx.ty(0)?.rank();
    let b = match ctx.attrs.int("axis") {
        Some(axis) if infer::int(ctx.attrs, "broadcast")? != 0 => {
            let axis = infer::normalize_axis(axis, rank)?;
            align(ctx, b, a, axis)?
        }
        _ => b,
    };
    Ok(vec![ctx.plain(op, &[a, b])?])
}

/// `b` reshaped so that its first axis falls on `axis` of `a`; itself where it has one element.
fn align(ctx: &mut ExpandCtx<'_>, b: ValueId, a: ValueId, axis: usize) -> Result<ValueId, OpError> {
    let (mut dims, rank) = (ctx.dims_of(b), ctx.dims_of(a).len());
    if dims.iter().product::<usize>() == 1 {
        return ctx.reshape(b, &[]);
    }
    let Some(trailing) = rank.checked_sub(axis + dims.len()) else {
        return Ok(b);
    };
    dims.resize(dims.len() + trailing, 1);
    ctx.reshape(b, &dims)
}

fn expand_pow(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let (base, exponent) = (ctx.value(0)?, ctx.value(1)?);
    let (own, other) = (ctx.dtype_of(base), ctx.dtype_of(exponent));
    // An integer to a fractional power is computed as a float.
    let kind = if !own.is_float() && other.is_float() {
        other
    } else {
        own
    };
    let operands = [ctx.cast(base, kind)?, ctx.cast(exponent, kind)?];
    let power = ctx.plain("pow", &operands)?;
    Ok(vec![ctx.cast(power, own)?])
}

/// The operands combined from left to right.
fn joined(ctx: &mut ExpandCtx<'_>, op: &'static str) -> Result<ValueId, OpError> {
    let mut result = ctx.value(0)?;
    for n in 1..ctx.operands.len() {
        let next = ctx.value(n)?;
        result = ctx.plain(op, &[result, next])?;
    }
    Ok(result)
}

/// A bound: a number every element is compared with, or a value only known at run time.
enum Bound {
    Absent,
    Number(f64),
    Value(ValueId),
}

fn expand_clip(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let x = ctx.value(0)?;
    let dtype = ctx.dtype_of(x);
    let low = bound(ctx, "min", ctx.optional(1));
    let high = bound(ctx, "max", ctx.optional(2));
    if let (Bound::Number(low), Bound::Number(high)) = (&low, &high) {
        let attrs = Attrs::new()
            .with("low", Attr::Float(*low))
            .with("high", Attr::Float(*high));
        return Ok(vec![ctx.emit("clamp", &[x], attrs)?]);
    }
    let above = limited(ctx, "max", x, dtype, &low)?;
    Ok(vec![limited(ctx, "min", above, dtype, &high)?])
}

fn limited(
    ctx: &mut ExpandCtx<'_>,
    op: &'static str,
    x: ValueId,
    dtype: DType,
    bound: &Bound,
) -> Result<ValueId, OpError> {
    let bound = match bound {
        Bound::Absent => return Ok(x),
        Bound::Number(number) => ctx.scalar(dtype, *number),
        Bound::Value(value) => ctx.reshape(*value, &[])?,
    };
    ctx.plain(op, &[x, bound])
}

fn bound(ctx: &ExpandCtx<'_>, attr: &str, operand: Operand) -> Bound {
    if let Some(number) = ctx.attrs.float(attr) {
        return Bound::Number(number);
    }
    let Some(value) = operand else {
        return Bound::Absent;
    };
    match ctx.graph.weight(value).and_then(exact_number) {
        Some(number) => Bound::Number(number),
        None => Bound::Value(value),
    }
}

/// The only element, where an `f64` holds it exactly.
fn exact_number(data: &HostTensor) -> Option<f64> {
    const LARGEST: f64 = 9_007_199_254_740_992.0;
    let [number] = to_vec::<f64>(data)[..] else {
        return None;
    };
    (data.dtype().is_float() || number.abs() < LARGEST).then_some(number)
}

fn expand_shrink(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let x = ctx.value(0)?;
    let dtype = ctx.dtype_of(x);
    let (limit, bias) = (
        infer::float(ctx.attrs, "lambd")?,
        infer::float(ctx.attrs, "bias")?,
    );
    let [low, high, bias, zero] = [-limit, limit, bias, 0.0].map(|number| ctx.scalar(dtype, number));
    let (below, above) = (ctx.plain("less", &[x, low])?, ctx.plain("greater", &[x, high])?);
    let (raised, lowered) = (ctx.plain("add", &[x, bias])?, ctx.plain("sub", &[x, bias])?);
    let upper = ctx.plain("where", &[above, lowered, zero])?;
    Ok(vec![ctx.plain("where", &[below, raised, upper])?])
}

pub static OPS: &[&OpDef] = &[
    &SWIGLU, &ADD_6, &SUB_6, &MUL_6, &DIV_6, &POW_6, &AND_6, &OR_6, &XOR_6, &EQUAL_6, &LESS_6, &GREATER_6,
    &PRELU_6, &POW, &MOD, &BIT_SHIFT, &MIN, &MAX, &SUM, &MEAN, &CLIP, &SHRINK,
];
