//! Comparison, logic, bits and selection: one scalar function of broadcast operands.

use super::build::{int_attr, required_attr};
use super::evaluate::{Number, map, number1, one};
use super::samples::{self, Draw};
use super::{
    AttrKind, Datum, EvalCtx, InferCtx, Lowering, OnnxOp, OpDef, OpError, Operands, Reach, Sample, Tolerance,
    infer,
};
use crate::ir::{Attr, Attrs, DType, TensorType};

/// What comparisons have in common.
const COMPARISON: OpDef = OpDef {
    name: "",
    onnx: &[],
    operands: Operands::exactly(&["a", "b"]),
    attrs: &[],
    infer: |ctx| as_bool(infer::number_binary(ctx)),
    eval: |ctx| compare(ctx, |_, _| false, |_, _| false, |_, _| false),
    lower: Lowering::Map(""),
    samples: close_numbers,
    tolerance: Tolerance::Exact,
    halves: None,
    reach: Reach::Elements,
};

/// What logic of two truth values has in common.
const LOGIC: OpDef = OpDef {
    infer: |ctx| infer::binary(ctx, "bool", |dtype| dtype == DType::Bool),
    samples: samples::two_bools,
    ..COMPARISON
};

/// What bitwise ops of two integers have in common.
const BITS: OpDef = OpDef {
    infer: |ctx| infer::binary(ctx, "integers", DType::is_int),
    samples: two_ints,
    ..COMPARISON
};

/// `a == b`, for truth values too. NaN equals nothing.
pub static EQUAL: OpDef = OpDef {
    name: "equal",
    operands: Operands::commutative(&["a", "b"]),
    onnx: &[OnnxOp::new("Equal").since(7)],
    infer: |ctx| as_bool(infer::binary(ctx, "numbers or bool", |_| true)),
    #[expect(clippy::float_cmp, reason = "that is the op")]
    eval: |ctx| compare(ctx, |a, b| a == b, |a, b| a == b, |a, b| a == b),
    lower: Lowering::Map("rt_equal({0}, {1})"),
    ..COMPARISON
};

/// `a < b`.
pub static LESS: OpDef = OpDef {
    name: "less",
    onnx: &[OnnxOp::new("Less").since(7)],
    eval: |ctx| compare(ctx, |a, b| a < b, |a, b| a < b, |a, b| a < b),
    lower: Lowering::Map("rt_less({0}, {1})"),
    ..COMPARISON
};

/// `a <= b`.
pub static LESS_EQUAL: OpDef = OpDef {
    name: "less_equal",
    onnx: &[OnnxOp::new("LessOrEqual")],
    eval: |ctx| compare(ctx, |a, b| a <= b, |a, b| a <= b, |a, b| a <= b),
    lower: Lowering::Map("rt_less_equal({0}, {1})"),
    ..COMPARISON
};

/// `a > b`.
pub static GREATER: OpDef = OpDef {
    name: "greater",
    onnx: &[OnnxOp::new("Greater").since(7)],
    eval: |ctx| compare(ctx, |a, b| a > b, |a, b| a > b, |a, b| a > b),
    lower: Lowering::Map("rt_greater({0}, {1})"),
    ..COMPARISON
};

/// `a >= b`.
pub static GREATER_EQUAL: OpDef = OpDef {
    name: "greater_equal",
    onnx: &[OnnxOp::new("GreaterOrEqual")],
    eval: |ctx| compare(ctx, |a, b| a >= b, |a, b| a >= b, |a, b| a >= b),
    lower: Lowering::Map("rt_greater_equal({0}, {1})"),
    ..COMPARISON
};

pub static AND: OpDef = OpDef {
    name: "and",
    operands: Operands::commutative(&["a", "b"]),
    onnx: &[OnnxOp::new("And").since(7)],
    eval: |ctx| int2(ctx, |a, b| a & b),
    lower: Lowering::Map("rt_and({0}, {1})"),
    ..LOGIC
};

pub static OR: OpDef = OpDef {
    name: "or",
    operands: Operands::commutative(&["a", "b"]),
    onnx: &[OnnxOp::new("Or").since(7)],
    eval: |ctx| int2(ctx, |a, b| a | b),
    lower: Lowering::Map("rt_or({0}, {1})"),
    ..LOGIC
};

pub static XOR: OpDef = OpDef {
    name: "xor",
    operands: Operands::commutative(&["a", "b"]),
    onnx: &[OnnxOp::new("Xor").since(7)],
    eval: |ctx| int2(ctx, |a, b| a ^ b),
    lower: Lowering::Map("rt_xor({0}, {1})"),
    ..LOGIC
};

pub static NOT: OpDef = OpDef {
    name: "not",
    onnx: &[OnnxOp::new("Not")],
    operands: Operands::exactly(&["x"]),
    infer: |ctx| infer::unary(ctx, "bool", |dtype| dtype == DType::Bool),
    eval: |ctx| number1(ctx, |x| x, |x| i64::from(x == 0)),
    lower: Lowering::Map("rt_not({0})"),
    samples: |seed| first_only(samples::two_bools(seed)),
    ..LOGIC
};

pub static BIT_AND: OpDef = OpDef {
    name: "bit_and",
    operands: Operands::commutative(&["a", "b"]),
    onnx: &[OnnxOp::new("BitwiseAnd")],
    eval: |ctx| int2(ctx, |a, b| a & b),
    lower: Lowering::Map("rt_bit_and({0}, {1})"),
    ..BITS
};

pub static BIT_OR: OpDef = OpDef {
    name: "bit_or",
    operands: Operands::commutative(&["a", "b"]),
    onnx: &[OnnxOp::new("BitwiseOr")],
    eval: |ctx| int2(ctx, |a, b| a | b),
    lower: Lowering::Map("rt_bit_or({0}, {1})"),
    ..BITS
};

pub static BIT_XOR: OpDef = OpDef {
    name: "bit_xor",
    operands: Operands::commutative(&["a", "b"]),
    onnx: &[OnnxOp::new("BitwiseXor")],
    eval: |ctx| int2(ctx, |a, b| a ^ b),
    lower: Lowering::Map("rt_bit_xor({0}, {1})"),
    ..BITS
};

pub static BIT_NOT: OpDef = OpDef {
    name: "bit_not",
    onnx: &[OnnxOp::new("BitwiseNot")],
    operands: Operands::exactly(&["x"]),
    infer: |ctx| infer::unary(ctx, "an integer", DType::is_int),
    eval: |ctx| number1(ctx, |x| x, |x| !x),
    lower: Lowering::Map("rt_bit_not({0})"),
    samples: |seed| first_only(two_ints(seed)),
    ..BITS
};

/// `a` times two to the power of `b`; zero where all bits leave the kind, or `b` is negative.
pub static SHIFT_LEFT: OpDef = OpDef {
    name: "shift_left",
    eval: |ctx| shift(ctx, |a: u64, b| a.checked_shl(b).unwrap_or(0)),
    lower: Lowering::Map("rt_shift_left({0}, {1})"),
    samples: shifts,
    ..BITS
};

/// `a` divided by two to the power of `b`, rounded down. Where all bits leave the kind, or `b`
/// is negative, the sign is left: -1 of what is negative, else 0.
pub static SHIFT_RIGHT: OpDef = OpDef {
    name: "shift_right",
    eval: |ctx| {
        if ctx.tensor(0)?.dtype().is_signed_int() {
            shift(ctx, |a: i64, b| a >> b.min(63))
        } else {
            shift(ctx, |a: u64, b| a.checked_shr(b).unwrap_or(0))
        }
    },
    lower: Lowering::Map("rt_shift_right({0}, {1})"),
    samples: shifts,
    ..BITS
};

pub static IS_NAN: OpDef = OpDef {
    name: "is_nan",
    onnx: &[OnnxOp::new("IsNaN")],
    operands: Operands::exactly(&["x"]),
    infer: |ctx| as_bool(infer::float_unary(ctx)),
    eval: |ctx| float_test(ctx, f64::is_nan),
    lower: Lowering::Map("rt_is_nan({0})"),
    samples: samples::any_float,
    ..COMPARISON
};

/// Whether `x` is infinite and its sign is one that is asked for.
pub static IS_INF: OpDef = OpDef {
    name: "is_inf",
    onnx: &[OnnxOp::new("IsInf")],
    attrs: &[int_attr("detect_negative", 1), int_attr("detect_positive", 1)],
    eval: |ctx| {
        let negative = infer::int(ctx.attrs, "detect_negative")? != 0;
        let positive = infer::int(ctx.attrs, "detect_positive")? != 0;
        float_test(ctx, |x| {
            x.is_infinite() && if x < 0.0 { negative } else { positive }
        })
    },
    lower: Lowering::Map("rt_is_inf({0}, {detect_negative}, {detect_positive})"),
    samples: |seed| {
        let mut sample = samples::any_float(seed)?;
        let flag = |bit: u64| Attr::Int(i64::from(seed >> bit & 1 == 0));
        sample.attrs = Attrs::new()
            .with("detect_negative", flag(0))
            .with("detect_positive", flag(1));
        Some(sample)
    },
    ..IS_NAN
};

/// `a` where `cond` holds, `b` elsewhere.
pub static WHERE: OpDef = OpDef {
    name: "where",
    onnx: &[OnnxOp::new("Where")],
    operands: Operands::exactly(&["cond", "a", "b"]),
    infer: infer_where,
    eval: eval_where,
    lower: Lowering::Map("rt_where({0}, {1}, {2})"),
    samples: |seed| {
        let mut sample = samples::two_numbers(seed)?;
        let mut draw = Draw::new(seed + 100);
        let dims = sample.operands[0].as_ref()?.dims().to_vec();
        let cond = draw.broadcast_from(&dims);
        sample.operands.insert(0, Some(draw.bools(&cond)));
        Some(sample)
    },
    ..COMPARISON
};

/// `x` limited to `low..=high`; NaN stays NaN, and `high` wins where it is below `low`.
pub static CLAMP: OpDef = OpDef {
    name: "clamp",
    operands: Operands::exactly(&["x"]),
    attrs: &[
        required_attr("low", AttrKind::Float),
        required_attr("high", AttrKind::Float),
    ],
    infer: infer::number_unary,
    eval: |ctx| {
        let (low, high) = (infer::float(ctx.attrs, "low")?, infer::float(ctx.attrs, "high")?);
        #[expect(clippy::cast_possible_truncation, reason = "bounds of integers are integers")]
        let (low_int, high_int) = (low as i64, high as i64);
        number1(
            ctx,
            |x| {
                let above = if x < low { low } else { x };
                if above > high { high } else { above }
            },
            |x| x.max(low_int).min(high_int),
        )
    },
    lower: Lowering::Map("rt_clamp({0}, {low}, {high})"),
    samples: |seed| {
        let mut sample = samples::any_number(seed)?;
        sample.attrs = Attrs::new()
            .with("low", Attr::Float(2.0))
            .with("high", Attr::Float(6.0));
        Some(sample)
    },
    ..COMPARISON
};

/// The inferred types with their kind replaced by bool.
fn as_bool(types: Result<Vec<TensorType>, OpError>) -> Result<Vec<TensorType>, OpError> {
    let mut types = types?;
    for ty in &mut types {
        ty.dtype = DType::Bool;
    }
    Ok(types)
}

fn compare(
    ctx: &EvalCtx<'_>,
    float: impl Fn(f64, f64) -> bool + Sync,
    signed: impl Fn(i64, i64) -> bool + Sync,
    unsigned: impl Fn(u64, u64) -> bool + Sync,
) -> Result<Vec<Datum>, OpError> {
    let (a, b) = (ctx.tensor(0)?, ctx.tensor(1)?);
    let ty = TensorType::new(DType::Bool, &infer::broadcast(a.dims(), b.dims())?);
    one(if a.dtype().is_float() {
        map([a, b], &ty, |[a, b]: [f64; 2]| i64::from(float(a, b)))
    } else if a.dtype() == DType::U64 {
        map([a, b], &ty, |[a, b]: [u64; 2]| i64::from(unsigned(a, b)))
    } else {
        map([a, b], &ty, |[a, b]: [i64; 2]| i64::from(signed(a, b)))
    })
}

fn int2(ctx: &EvalCtx<'_>, f: impl Fn(i64, i64) -> i64 + Sync) -> Result<Vec<Datum>, OpError> {
    let (a, b) = (ctx.tensor(0)?, ctx.tensor(1)?);
    let ty = TensorType::new(a.dtype(), &infer::broadcast(a.dims(), b.dims())?);
    one(map([a, b], &ty, |[a, b]: [i64; 2]| f(a, b)))
}

/// Integers that shifts are computed in.
trait Integer: Number {
    fn bits(self) -> u64;
}

impl Integer for i64 {
    fn bits(self) -> u64 {
        self.cast_unsigned()
    }
}

impl Integer for u64 {
    fn bits(self) -> u64 {
        self
    }
}

/// Shifts within 64 bits; storing keeps the low bits of the kind. `f` is given 64 for every
/// amount that is negative or not below the width.
fn shift<T: Integer>(ctx: &EvalCtx<'_>, f: impl Fn(T, u32) -> T + Sync) -> Result<Vec<Datum>, OpError> {
    let (a, b) = (ctx.tensor(0)?, ctx.tensor(1)?);
    let ty = TensorType::new(a.dtype(), &infer::broadcast(a.dims(), b.dims())?);
    let width = a.dtype().bits();
    let amount = |amount: u64| {
        u32::try_from(amount)
            .ok()
            .filter(|&amount| amount < width)
            .unwrap_or(64)
    };
    one(map([a, b], &ty, |[a, b]: [T; 2]| f(a, amount(b.bits()))))
}

fn float_test(ctx: &EvalCtx<'_>, f: impl Fn(f64) -> bool + Sync) -> Result<Vec<Datum>, OpError> {
    let x = ctx.tensor(0)?;
    let ty = TensorType::new(DType::Bool, x.dims());
    one(map([x], &ty, |[x]: [f64; 1]| i64::from(f(x))))
}

fn infer_where(ctx: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
    ctx.expect_operands(3..=3)?;
    infer::expect_kind(ctx.dtype(0)?, "a bool condition", |dtype| dtype == DType::Bool)?;
    let dtype = infer::same_dtype(ctx, 1, 2)?;
    let dims = infer::broadcast_all([&ctx.dims(0)?[..], &ctx.dims(1)?, &ctx.dims(2)?])?;
    Ok(vec![TensorType::new(dtype, &dims)])
}

fn eval_where(ctx: &EvalCtx<'_>) -> Result<Vec<Datum>, OpError> {
    let (cond, a, b) = (ctx.tensor(0)?, ctx.tensor(1)?, ctx.tensor(2)?);
    let dims = infer::broadcast_all([cond.dims(), a.dims(), b.dims()])?;
    let ty = TensorType::new(a.dtype(), &dims);
    one(match a.dtype() {
        DType::U64 => map(
            [cond, a, b],
            &ty,
            |[cond, a, b]: [u64; 3]| {
                if cond == 0 { b } else { a }
            },
        ),
        dtype if dtype.is_float() => map(
            [cond, a, b],
            &ty,
            |[cond, a, b]: [f64; 3]| {
                if cond == 0.0 { b } else { a }
            },
        ),
        _ => map(
            [cond, a, b],
            &ty,
            |[cond, a, b]: [i64; 3]| {
                if cond == 0 { b } else { a }
            },
        ),
    })
}

fn first_only(sample: Option<Sample>) -> Option<Sample> {
    sample.map(|mut sample| {
        sample.operands.truncate(1);
        sample
    })
}

/// Small numbers, so that equal ones occur.
fn close_numbers(seed: u64) -> Option<Sample> {
    let mut draw = Draw::for_seed(seed)?;
    let dims = samples::dims_for(&mut draw, seed);
    let other = draw.broadcast_from(&dims);
    let dtype = samples::number_for(seed);
    let operands = vec![draw.ints(dtype, &dims, 0, 2), draw.ints(dtype, &other, 0, 2)];
    samples::sample(operands, Attrs::new())
}

fn two_ints(seed: u64) -> Option<Sample> {
    let mut draw = Draw::for_seed(seed)?;
    let dims = samples::dims_for(&mut draw, seed);
    let other = draw.broadcast_from(&dims);
    let dtype = int_for(seed);
    let operands = vec![draw.tensor(dtype, &dims), draw.tensor(dtype, &other)];
    samples::sample(operands, Attrs::new())
}

fn shifts(seed: u64) -> Option<Sample> {
    let mut draw = Draw::for_seed(seed)?;
    let dims = samples::dims_for(&mut draw, seed);
    let other = draw.broadcast_from(&dims);
    let dtype = [
        DType::U8,
        DType::I32,
        DType::U64,
        DType::I8,
        DType::I64,
        DType::U16,
    ][(seed % 6) as usize];
    // Amounts below zero, and above the width.
    let operands = if dtype.is_signed_int() {
        vec![
            draw.ints(dtype, &dims, -100, 100),
            draw.ints(dtype, &other, -3, 80),
        ]
    } else {
        vec![draw.ints(dtype, &dims, 0, 200), draw.ints(dtype, &other, 0, 70)]
    };
    samples::sample(operands, Attrs::new())
}

fn int_for(seed: u64) -> DType {
    [
        DType::I64,
        DType::I32,
        DType::U8,
        DType::I8,
        DType::U32,
        DType::U64,
    ][(seed % 6) as usize]
}

pub static OPS: &[&OpDef] = &[
    &EQUAL,
    &LESS,
    &LESS_EQUAL,
    &GREATER,
    &GREATER_EQUAL,
    &AND,
    &OR,
    &XOR,
    &NOT,
    &BIT_AND,
    &BIT_OR,
    &BIT_XOR,
    &BIT_NOT,
    &SHIFT_LEFT,
    &SHIFT_RIGHT,
    &IS_NAN,
    &IS_INF,
    &WHERE,
    &CLAMP,
];
