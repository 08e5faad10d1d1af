//! Conversion between element kinds.

use super::build::{int_attr, required_attr, str_attr};
use super::evaluate::{from_values, map, one, to_vec};
use super::narrow::{self, Overflow, Rounding};
use super::samples::{self, Draw};
use super::{
    AttrKind, Datum, EvalCtx, ExpandCtx, InferCtx, Lowering, OnnxOp, OpDef, OpError, Operands, Reach, Sample,
    Tolerance, infer,
};
use crate::ir::{Attr, Attrs, DType, HostTensor, TensorType, ValueId};

/// `x` as another kind: floats round to nearest, floats become integers towards zero,
/// integers keep their low bits, and narrow floats saturate.
pub static CAST: OpDef = OpDef {
    name: "cast",
    onnx: &[],
    operands: Operands::exactly(&["x"]),
    attrs: &[required_attr("to", AttrKind::DType)],
    infer: infer_cast,
    eval: |ctx| one(convert(ctx.tensor(0)?, target(ctx.attrs)?)),
    lower: Lowering::Map("rt_cast_{to}({0})"),
    samples: |seed| {
        const KINDS: [DType; 6] = [
            DType::F32,
            DType::I64,
            DType::F16,
            DType::I32,
            DType::F64,
            DType::Bool,
        ];
        let mut draw = Draw::for_seed(seed)?;
        let dims = samples::dims_for(&mut draw, seed);
        let to = KINDS[((seed + 1) % 6) as usize];
        let x = draw.tensor(KINDS[(seed % 6) as usize], &dims);
        samples::sample(vec![x], Attrs::new().with("to", Attr::DType(to)))
    },
    tolerance: Tolerance::Exact,
    halves: None,
    reach: Reach::Elements,
};

/// Conversion to a narrow float with ONNX's other choices: values too large become infinity
/// or NaN, and `f8e8m0` rounds as asked.
pub static CAST_NARROW: OpDef = OpDef {
    name: "cast_narrow",
    onnx: &[],
    operands: Operands::exactly(&["x"]),
    attrs: &[
        required_attr("to", AttrKind::DType),
        int_attr("saturate", 1),
        str_attr("round_mode", "up"),
    ],
    infer: infer_cast,
    eval: eval_narrow,
    lower: Lowering::Host("casts to narrow floats that do not saturate, or round in a special way"),
    samples: samples::NONE,
    tolerance: Tolerance::Exact,
    halves: None,
    reach: Reach::Elements,
};

/// ONNX's `Cast`: `cast`, or `cast_narrow` where its special attributes matter.
pub static CAST_FORM: OpDef = OpDef {
    name: "Cast",
    onnx: &[OnnxOp::new("Cast")],
    infer: infer::BY_EXPANSION,
    eval: super::evaluate::BY_EXPANSION,
    lower: Lowering::Expand(|ctx| {
        let to = target(ctx.attrs)?;
        expand_cast(ctx, to)
    }),
    ..CAST_NARROW
};

/// ONNX's `CastLike`: to the kind of the second operand.
pub static CAST_LIKE: OpDef = OpDef {
    name: "CastLike",
    onnx: &[OnnxOp::new("CastLike")],
    operands: Operands::exactly(&["x", "like"]),
    attrs: &[int_attr("saturate", 1), str_attr("round_mode", "up")],
    lower: Lowering::Expand(|ctx| {
        let to = ctx.ty(1)?.dtype;
        expand_cast(ctx, to)
    }),
    ..CAST_FORM
};

/// The bits of `x` read as another kind of the same width. `from` is the kind of `x`.
pub static BIT_CAST: OpDef = OpDef {
    name: "bit_cast",
    onnx: &[],
    operands: Operands::exactly(&["x"]),
    attrs: &[
        required_attr("from", AttrKind::DType),
        required_attr("to", AttrKind::DType),
    ],
    infer: infer_bit_cast,
    eval: |ctx| {
        let (x, to) = (ctx.tensor(0)?, target(ctx.attrs)?);
        let same = HostTensor::from_bytes(to, x.dims(), x.bytes());
        one(same.ok_or_else(|| OpError::invalid("bits of another width"))?)
    },
    lower: Lowering::Map("rt_{to}_of_bits(rt_bits_of_{from}({0}))"),
    samples: sample_bit_cast,
    tolerance: Tolerance::Exact,
    halves: None,
    reach: Reach::Elements,
};

/// ONNX's `BitCast`; nothing where it stays the kind it is.
pub static BIT_CAST_FORM: OpDef = OpDef {
    name: "BitCast",
    onnx: &[OnnxOp::new("BitCast")],
    attrs: &[required_attr("to", AttrKind::DType)],
    lower: Lowering::Expand(|ctx| {
        let (x, to) = (ctx.value(0)?, target(ctx.attrs)?);
        let from = ctx.dtype_of(x);
        if from == to {
            return Ok(vec![x]);
        }
        let attrs = Attrs::new()
            .with("from", Attr::DType(from))
            .with("to", Attr::DType(to));
        Ok(vec![ctx.emit("bit_cast", &[x], attrs)?])
    }),
    ..CAST_FORM
};

fn infer_bit_cast(ctx: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
    let (from, to) = (ctx.dtype(0)?, target(ctx.attrs)?);
    if ctx.attrs.dtype("from") != Some(from) || from.bits() != to.bits() {
        return Err(OpError::invalid(format!(
            "the bits of `{from}` cannot be read as `{to}`"
        )));
    }
    infer_cast(ctx)
}

fn sample_bit_cast(seed: u64) -> Option<Sample> {
    const PAIRS: [(DType, DType); 6] = [
        (DType::F32, DType::I32),
        (DType::I64, DType::F64),
        (DType::F16, DType::U16),
        (DType::U8, DType::I8),
        (DType::Bool, DType::U8),
        (DType::F64, DType::U64),
    ];
    let mut draw = Draw::for_seed(seed)?;
    let dims = samples::dims_for(&mut draw, seed);
    let (from, to) = PAIRS[(seed % 6) as usize];
    let x = draw.tensor(from, &dims);
    let attrs = Attrs::new()
        .with("from", Attr::DType(from))
        .with("to", Attr::DType(to));
    samples::sample(vec![x], attrs)
}

fn expand_cast(ctx: &mut ExpandCtx<'_>, to: DType) -> Result<Vec<ValueId>, OpError> {
    let x = ctx.value(0)?;
    let saturates = infer::int(ctx.attrs, "saturate")? != 0;
    let rounds_up = ctx.attrs.str("round_mode") == Some("up");
    let plain = match to {
        DType::F8E4M3 | DType::F8E4M3Fnuz | DType::F8E5M2 | DType::F8E5M2Fnuz => saturates,
        DType::F8E8M0 => saturates && rounds_up,
        _ => true,
    };
    if plain {
        return Ok(vec![ctx.cast(x, to)?]);
    }
    let attrs = Attrs::new()
        .with("to", Attr::DType(to))
        .with("saturate", Attr::Int(i64::from(saturates)))
        .with(
            "round_mode",
            Attr::Str(ctx.attrs.str("round_mode").unwrap_or("up").to_owned()),
        );
    Ok(vec![ctx.emit("cast_narrow", &[x], attrs)?])
}

fn target(attrs: &Attrs) -> Result<DType, OpError> {
    attrs
        .dtype("to")
        .ok_or_else(|| OpError::invalid("attribute `to` is missing"))
}

fn infer_cast(ctx: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
    ctx.expect_operands(1..=1)?;
    let mut ty = ctx.ty(0)?.clone();
    ty.dtype = target(ctx.attrs)?;
    Ok(vec![ty])
}

/// The elements of `x` as another kind, by the rules of `cast`.
pub fn convert(x: &HostTensor, to: DType) -> HostTensor {
    if x.dtype() == to {
        return x.clone();
    }
    let ty = TensorType::new(to, x.dims());
    if x.dtype().is_float() {
        map([x], &ty, |[x]: [f64; 1]| x)
    } else if x.dtype() == DType::U64 {
        map([x], &ty, |[x]: [u64; 1]| x)
    } else {
        map([x], &ty, |[x]: [i64; 1]| x)
    }
}

fn eval_narrow(ctx: &EvalCtx<'_>) -> Result<Vec<Datum>, OpError> {
    let (x, to) = (ctx.tensor(0)?, target(ctx.attrs)?);
    let overflow = if infer::int(ctx.attrs, "saturate")? != 0 {
        Overflow::Saturate
    } else {
        Overflow::Special
    };
    let rounding = match ctx.attrs.str("round_mode") {
        Some("up") | None => Rounding::Up,
        Some("down") => Rounding::Down,
        Some("nearest") => Rounding::Nearest,
        Some(other) => {
            return Err(OpError::invalid(format!(
                "attribute `round_mode` must be `up`, `down` or `nearest`, found `{other}`"
            )));
        }
    };
    let codes: Vec<u8> = to_vec::<f64>(x)
        .into_iter()
        .map(|value| match to {
            DType::F8E8M0 => narrow::encode_exponent(value, rounding, overflow),
            _ => narrow::encode(to, value, overflow),
        })
        .collect();
    let bytes = from_values(
        DType::U8,
        x.dims(),
        &codes.iter().map(|&code| i64::from(code)).collect::<Vec<_>>(),
    );
    one(HostTensor::from_bytes(to, x.dims(), bytes.bytes())
        .ok_or_else(|| OpError::invalid(format!("`cast_narrow` makes one-byte floats, not `{to}`")))?)
}

pub static OPS: &[&OpDef] = &[
    &CAST,
    &CAST_NARROW,
    &CAST_FORM,
    &CAST_LIKE,
    &BIT_CAST,
    &BIT_CAST_FORM,
];
