//! Arithmetic: one scalar function of broadcast numbers. Comparison and logic are in
//! [`super::compare`].

use super::evaluate::{float1, number1, number2};
use super::samples::{self, Draw};
use super::{Lowering, OnnxOp, OpDef, Operands, Reach, Sample, Tolerance, infer};
use crate::ir::{Attrs, DType};

/// What binary arithmetic has in common.
const BINARY: OpDef = OpDef {
    name: "",
    onnx: &[],
    operands: Operands::exactly(&["a", "b"]),
    attrs: &[],
    infer: infer::number_binary,
    eval: |ctx| number2(ctx, |a, _| a, |a, _| a, |a, _| a),
    lower: Lowering::Map(""),
    samples: samples::two_numbers,
    tolerance: Tolerance::Exact,
    halves: None,
    reach: Reach::Elements,
};

/// What functions of one float have in common.
const FLOAT_UNARY: OpDef = OpDef {
    operands: Operands::exactly(&["x"]),
    infer: infer::float_unary,
    eval: |ctx| float1(ctx, |x| x),
    samples: samples::any_float,
    tolerance: Tolerance::Close,
    ..BINARY
};

/// What functions of one number have in common.
const NUMBER_UNARY: OpDef = OpDef {
    infer: infer::number_unary,
    samples: samples::any_number,
    tolerance: Tolerance::Exact,
    ..FLOAT_UNARY
};

/// `a + b`. Integers wrap.
pub static ADD: OpDef = OpDef {
    name: "add",
    operands: Operands::commutative(&["a", "b"]),
    onnx: &[OnnxOp::new("Add").since(7)],
    eval: |ctx| number2(ctx, |a, b| a + b, i64::wrapping_add, u64::wrapping_add),
    lower: Lowering::Map("rt_add({0}, {1})"),
    ..BINARY
};

/// `a - b`. Integers wrap.
pub static SUB: OpDef = OpDef {
    name: "sub",
    onnx: &[OnnxOp::new("Sub").since(7)],
    eval: |ctx| number2(ctx, |a, b| a - b, i64::wrapping_sub, u64::wrapping_sub),
    lower: Lowering::Map("rt_sub({0}, {1})"),
    ..BINARY
};

/// `a * b`. Integers wrap.
pub static MUL: OpDef = OpDef {
    name: "mul",
    operands: Operands::commutative(&["a", "b"]),
    onnx: &[OnnxOp::new("Mul").since(7)],
    eval: |ctx| number2(ctx, |a, b| a * b, i64::wrapping_mul, u64::wrapping_mul),
    lower: Lowering::Map("rt_mul({0}, {1})"),
    ..BINARY
};

/// `a * b`, rounded before anything is added to it: kernels make no fused multiply-add of it.
/// For sums whose roundings decide a quantised step.
pub static MUL_ROUNDED: OpDef = OpDef {
    name: "mul_rounded",
    operands: Operands::commutative(&["a", "b"]),
    eval: |ctx| number2(ctx, |a, b| a * b, i64::wrapping_mul, u64::wrapping_mul),
    lower: Lowering::Map("rt_mul_rounded({0}, {1})"),
    ..BINARY
};

/// `a / b`. Integers round towards zero; an integer divided by zero is zero.
pub static DIV: OpDef = OpDef {
    name: "div",
    onnx: &[OnnxOp::new("Div").since(7)],
    eval: |ctx| number2(ctx, |a, b| a / b, div_int, |a, b| a.checked_div(b).unwrap_or(0)),
    lower: Lowering::Map("rt_div({0}, {1})"),
    samples: two_numbers_and_divisor,
    tolerance: Tolerance::Close,
    ..BINARY
};

/// `a` to the power of `b`. A negative power of an integer rounds towards zero.
pub static POW: OpDef = OpDef {
    name: "pow",
    eval: |ctx| number2(ctx, f64::powf, pow_int, pow_unsigned),
    lower: Lowering::Map("rt_pow({0}, {1})"),
    samples: powers,
    tolerance: Tolerance::Close,
    ..BINARY
};

/// The remainder that has the sign of `b`; zero where an integer `b` is zero.
pub static MOD_FLOOR: OpDef = OpDef {
    name: "mod_floor",
    eval: |ctx| {
        number2(ctx, mod_floor, mod_floor_int, |a, b| {
            a.checked_rem(b).unwrap_or(0)
        })
    },
    lower: Lowering::Map("rt_mod_floor({0}, {1})"),
    samples: two_numbers_and_divisor,
    ..BINARY
};

/// The remainder that has the sign of `a`; zero where an integer `b` is zero.
pub static MOD_TRUNC: OpDef = OpDef {
    name: "mod_trunc",
    eval: |ctx| {
        number2(
            ctx,
            |a, b| a % b,
            |a, b| a.checked_rem(b).unwrap_or(0),
            |a, b| a.checked_rem(b).unwrap_or(0),
        )
    },
    lower: Lowering::Map("rt_mod_trunc({0}, {1})"),
    samples: two_numbers_and_divisor,
    ..BINARY
};

/// The smaller of two; NaN where one is NaN.
pub static MIN: OpDef = OpDef {
    name: "min",
    operands: Operands::commutative(&["a", "b"]),
    eval: |ctx| number2(ctx, min, i64::min, u64::min),
    lower: Lowering::Map("rt_min({0}, {1})"),
    ..BINARY
};

/// The larger of two; NaN where one is NaN.
pub static MAX: OpDef = OpDef {
    name: "max",
    operands: Operands::commutative(&["a", "b"]),
    eval: |ctx| number2(ctx, max, i64::max, u64::max),
    lower: Lowering::Map("rt_max({0}, {1})"),
    ..BINARY
};

/// `x` where it is not negative, `slope * x` elsewhere.
pub static PRELU: OpDef = OpDef {
    name: "prelu",
    onnx: &[OnnxOp::new("PRelu").since(7)],
    operands: Operands::exactly(&["x", "slope"]),
    eval: |ctx| {
        number2(
            ctx,
            |x, slope| if x < 0.0 { slope * x } else { x },
            |x, slope| if x < 0 { slope.wrapping_mul(x) } else { x },
            |x, _| x,
        )
    },
    lower: Lowering::Map("rt_prelu({0}, {1})"),
    ..BINARY
};

pub static NEG: OpDef = OpDef {
    name: "neg",
    onnx: &[OnnxOp::new("Neg")],
    eval: |ctx| number1(ctx, |x| -x, i64::wrapping_neg),
    lower: Lowering::Map("rt_neg({0})"),
    ..NUMBER_UNARY
};

pub static ABS: OpDef = OpDef {
    name: "abs",
    onnx: &[OnnxOp::new("Abs")],
    eval: |ctx| number1(ctx, f64::abs, i64::wrapping_abs),
    lower: Lowering::Map("rt_abs({0})"),
    ..NUMBER_UNARY
};

/// -1, 0 or 1; NaN stays NaN.
pub static SIGN: OpDef = OpDef {
    name: "sign",
    onnx: &[OnnxOp::new("Sign")],
    eval: |ctx| number1(ctx, sign, i64::signum),
    lower: Lowering::Map("rt_sign({0})"),
    ..NUMBER_UNARY
};

pub static FLOOR: OpDef = OpDef {
    name: "floor",
    onnx: &[OnnxOp::new("Floor")],
    eval: |ctx| float1(ctx, f64::floor),
    lower: Lowering::Map("rt_floor({0})"),
    tolerance: Tolerance::Exact,
    ..FLOAT_UNARY
};

pub static CEIL: OpDef = OpDef {
    name: "ceil",
    onnx: &[OnnxOp::new("Ceil")],
    eval: |ctx| float1(ctx, f64::ceil),
    lower: Lowering::Map("rt_ceil({0})"),
    tolerance: Tolerance::Exact,
    ..FLOAT_UNARY
};

/// To the nearest integer; halves go to the even one.
pub static ROUND: OpDef = OpDef {
    name: "round",
    onnx: &[OnnxOp::new("Round")],
    eval: |ctx| float1(ctx, f64::round_ties_even),
    lower: Lowering::Map("rt_round({0})"),
    tolerance: Tolerance::Exact,
    ..FLOAT_UNARY
};

pub static EXP: OpDef = OpDef {
    name: "exp",
    onnx: &[OnnxOp::new("Exp")],
    eval: |ctx| float1(ctx, f64::exp),
    lower: Lowering::Map("rt_exp({0})"),
    ..FLOAT_UNARY
};

/// The natural logarithm.
pub static LOG: OpDef = OpDef {
    name: "log",
    onnx: &[OnnxOp::new("Log")],
    eval: |ctx| float1(ctx, f64::ln),
    lower: Lowering::Map("rt_log({0})"),
    ..FLOAT_UNARY
};

pub static SQRT: OpDef = OpDef {
    name: "sqrt",
    onnx: &[OnnxOp::new("Sqrt")],
    eval: |ctx| float1(ctx, f64::sqrt),
    lower: Lowering::Map("rt_sqrt({0})"),
    ..FLOAT_UNARY
};

/// `1 / sqrt(x)`.
pub static RSQRT: OpDef = OpDef {
    name: "rsqrt",
    eval: |ctx| float1(ctx, |x| 1.0 / x.sqrt()),
    lower: Lowering::Map("rt_rsqrt({0})"),
    samples: |seed| samples::float_in(seed, 0.1, 9.0),
    ..FLOAT_UNARY
};

pub static RECIPROCAL: OpDef = OpDef {
    name: "reciprocal",
    onnx: &[OnnxOp::new("Reciprocal")],
    eval: |ctx| float1(ctx, f64::recip),
    lower: Lowering::Map("rt_reciprocal({0})"),
    ..FLOAT_UNARY
};

/// The Gauss error function.
pub static ERF: OpDef = OpDef {
    name: "erf",
    onnx: &[OnnxOp::new("Erf")],
    infer: infer::number_unary,
    eval: |ctx| float1(ctx, libm::erf),
    lower: Lowering::Map("rt_erf({0})"),
    ..FLOAT_UNARY
};

pub static SIN: OpDef = OpDef {
    name: "sin",
    onnx: &[OnnxOp::new("Sin")],
    eval: |ctx| float1(ctx, f64::sin),
    lower: Lowering::Map("rt_sin({0})"),
    ..FLOAT_UNARY
};

pub static COS: OpDef = OpDef {
    name: "cos",
    onnx: &[OnnxOp::new("Cos")],
    eval: |ctx| float1(ctx, f64::cos),
    lower: Lowering::Map("rt_cos({0})"),
    ..FLOAT_UNARY
};

pub static TAN: OpDef = OpDef {
    name: "tan",
    onnx: &[OnnxOp::new("Tan")],
    eval: |ctx| float1(ctx, f64::tan),
    lower: Lowering::Map("rt_tan({0})"),
    samples: |seed| samples::float_in(seed, -1.4, 1.4),
    ..FLOAT_UNARY
};

pub static ASIN: OpDef = OpDef {
    name: "asin",
    onnx: &[OnnxOp::new("Asin")],
    eval: |ctx| float1(ctx, f64::asin),
    lower: Lowering::Map("rt_asin({0})"),
    samples: |seed| samples::float_in(seed, -1.0, 1.0),
    ..FLOAT_UNARY
};

pub static ACOS: OpDef = OpDef {
    name: "acos",
    onnx: &[OnnxOp::new("Acos")],
    eval: |ctx| float1(ctx, f64::acos),
    lower: Lowering::Map("rt_acos({0})"),
    samples: |seed| samples::float_in(seed, -1.0, 1.0),
    ..FLOAT_UNARY
};

pub static ATAN: OpDef = OpDef {
    name: "atan",
    onnx: &[OnnxOp::new("Atan")],
    eval: |ctx| float1(ctx, f64::atan),
    lower: Lowering::Map("rt_atan({0})"),
    ..FLOAT_UNARY
};

pub static SINH: OpDef = OpDef {
    name: "sinh",
    onnx: &[OnnxOp::new("Sinh")],
    eval: |ctx| float1(ctx, f64::sinh),
    lower: Lowering::Map("rt_sinh({0})"),
    ..FLOAT_UNARY
};

pub static COSH: OpDef = OpDef {
    name: "cosh",
    onnx: &[OnnxOp::new("Cosh")],
    eval: |ctx| float1(ctx, f64::cosh),
    lower: Lowering::Map("rt_cosh({0})"),
    ..FLOAT_UNARY
};

pub static TANH: OpDef = OpDef {
    name: "tanh",
    onnx: &[OnnxOp::new("Tanh")],
    eval: |ctx| float1(ctx, f64::tanh),
    lower: Lowering::Map("rt_tanh({0})"),
    ..FLOAT_UNARY
};

pub static ASINH: OpDef = OpDef {
    name: "asinh",
    onnx: &[OnnxOp::new("Asinh")],
    eval: |ctx| float1(ctx, libm::asinh),
    lower: Lowering::Map("rt_asinh({0})"),
    ..FLOAT_UNARY
};

pub static ACOSH: OpDef = OpDef {
    name: "acosh",
    onnx: &[OnnxOp::new("Acosh")],
    eval: |ctx| float1(ctx, libm::acosh),
    lower: Lowering::Map("rt_acosh({0})"),
    samples: |seed| samples::float_in(seed, 1.0, 9.0),
    ..FLOAT_UNARY
};

pub static ATANH: OpDef = OpDef {
    name: "atanh",
    onnx: &[OnnxOp::new("Atanh")],
    eval: |ctx| float1(ctx, libm::atanh),
    lower: Lowering::Map("rt_atanh({0})"),
    samples: |seed| samples::float_in(seed, -0.9, 0.9),
    ..FLOAT_UNARY
};

fn div_int(a: i64, b: i64) -> i64 {
    if b == 0 { 0 } else { a.wrapping_div(b) }
}

fn mod_floor_int(a: i64, b: i64) -> i64 {
    let rest = if b == 0 { 0 } else { a.wrapping_rem(b) };
    if rest != 0 && (rest < 0) != (b < 0) {
        rest + b
    } else {
        rest
    }
}

fn mod_floor(a: f64, b: f64) -> f64 {
    let rest = a % b;
    if rest != 0.0 && (rest < 0.0) != (b < 0.0) {
        rest + b
    } else {
        rest
    }
}

fn pow_int(base: i64, exponent: i64) -> i64 {
    match u64::try_from(exponent) {
        Ok(exponent) => wrapping_power(base.cast_unsigned(), exponent).cast_signed(),
        Err(_) if base == 1 => 1,
        Err(_) if base == -1 => 1 - 2 * (exponent & 1),
        Err(_) => 0,
    }
}

fn pow_unsigned(base: u64, exponent: u64) -> u64 {
    wrapping_power(base, exponent)
}

/// By squaring, in the ring of 64-bit integers: signed powers have the same bits.
fn wrapping_power(mut base: u64, mut exponent: u64) -> u64 {
    let mut power = 1u64;
    while exponent > 0 {
        if exponent & 1 == 1 {
            power = power.wrapping_mul(base);
        }
        base = base.wrapping_mul(base);
        exponent >>= 1;
    }
    power
}

/// `f64::min` drops NaN, which ONNX keeps.
fn min(a: f64, b: f64) -> f64 {
    if a.is_nan() || a < b { a } else { b }
}

fn max(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

fn sign(x: f64) -> f64 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        x
    }
}

/// Two broadcast operands of which the second has no zero.
fn two_numbers_and_divisor(seed: u64) -> Option<Sample> {
    let mut draw = Draw::for_seed(seed)?;
    let dims = samples::dims_for(&mut draw, seed);
    let divisor_dims = draw.broadcast_from(&dims);
    let dtype = samples::number_for(seed);
    let a = draw.tensor(dtype, &dims);
    let b = if dtype.is_float() {
        draw.floats(dtype, &divisor_dims, 0.5, 4.0)
    } else {
        draw.ints(dtype, &divisor_dims, 1, 7)
    };
    samples::sample(vec![a, b], Attrs::new())
}

/// Bases and exponents whose powers are finite and fit the kind.
fn powers(seed: u64) -> Option<Sample> {
    let mut draw = Draw::for_seed(seed)?;
    let dims = samples::dims_for(&mut draw, seed);
    let exponent_dims = draw.broadcast_from(&dims);
    let dtype = samples::number_for(seed);
    let (base, exponent) = match dtype {
        _ if dtype.is_float() => (
            draw.floats(dtype, &dims, 0.2, 3.0),
            draw.floats(dtype, &exponent_dims, -2.0, 3.0),
        ),
        DType::U8 => (
            draw.ints(dtype, &dims, 0, 5),
            draw.ints(dtype, &exponent_dims, 0, 3),
        ),
        _ => (
            draw.ints(dtype, &dims, -5, 5),
            draw.ints(dtype, &exponent_dims, 0, 5),
        ),
    };
    samples::sample(vec![base, exponent], Attrs::new())
}

pub static OPS: &[&OpDef] = &[
    &ADD,
    &SUB,
    &MUL,
    &MUL_ROUNDED,
    &DIV,
    &POW,
    &MOD_FLOOR,
    &MOD_TRUNC,
    &MIN,
    &MAX,
    &PRELU,
    &NEG,
    &ABS,
    &SIGN,
    &FLOOR,
    &CEIL,
    &ROUND,
    &EXP,
    &LOG,
    &SQRT,
    &RSQRT,
    &RECIPROCAL,
    &ERF,
    &SIN,
    &COS,
    &TAN,
    &ASIN,
    &ACOS,
    &ATAN,
    &SINH,
    &COSH,
    &TANH,
    &ASINH,
    &ACOSH,
    &ATANH,
];
