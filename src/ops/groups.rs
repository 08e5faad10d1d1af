//! Numbers of four bits, two in a byte, with a scale for each group of neighbours.
//!
//! Models say this with `DequantizeLinear`, which is folded; regions say it after weights were packed
//! (`rewrite/groups.rs`).

use super::build::required_attr;
use super::cast::convert;
use super::evaluate::{from_values, map, one, to_vec};
use super::samples::{self, Draw};
use super::{
    AttrKind, Datum, EvalCtx, InferCtx, Lowering, OpDef, OpError, Operands, Reach, Sample, TileKind,
    Tolerance, infer,
};
use crate::ir::{Attr, Attrs, DType, TensorType};
use crate::tile::{Expr, ExprId, Extent, TileCtx};

/// Numbers in a byte.
pub const PER_BYTE: usize = 2;
/// What is added to a number where it is stored, so that none is negative.
pub const EXCESS: i64 = 8;

/// The number from -8 to 7 in the low half of a byte, or in the high half where `place` is 1.
pub static NIBBLE: OpDef = OpDef {
    name: "nibble",
    onnx: &[],
    operands: Operands::exactly(&["x", "place"]),
    attrs: &[],
    infer: infer_nibble,
    eval: eval_nibble,
    lower: Lowering::Map("rt_nibble({0}, {1})"),
    samples: sample_nibble,
    tolerance: Tolerance::Exact,
    halves: None,
    reach: Reach::Elements,
};

/// Numbers of four bits along the last axis of `x`, each times the scale of its group. Groups are
/// neighbours along that axis, as many as `scale` has entries there.
pub static DEQUANTIZE_GROUPS: OpDef = OpDef {
    name: "dequantize_groups",
    operands: Operands::exactly(&["x", "scale"]),
    attrs: &[required_attr("to", AttrKind::DType)],
    infer: infer_groups,
    eval: eval_groups,
    lower: Lowering::Tile(TileKind::Index, tile_groups),
    samples: sample_groups,
    ..NIBBLE
};

pub static OPS: &[&OpDef] = &[&NIBBLE, &DEQUANTIZE_GROUPS];

fn infer_nibble(ctx: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
    ctx.expect_operands(2..=2)?;
    infer::expect_kind(ctx.dtype(0)?, "u8", |dtype| dtype == DType::U8)?;
    infer::expect_kind(ctx.dtype(1)?, "i64", |dtype| dtype == DType::I64)?;
    let dims = infer::broadcast(&ctx.dims(0)?, &ctx.dims(1)?)?;
    Ok(vec![TensorType::new(DType::F32, &dims)])
}

fn number_in(byte: i64, place: i64) -> i64 {
    (byte >> (4 * place) & 15) - EXCESS
}

fn eval_nibble(ctx: &EvalCtx<'_>) -> Result<Vec<Datum>, OpError> {
    let (x, place) = (ctx.tensor(0)?, ctx.tensor(1)?);
    let ty = TensorType::new(DType::F32, &infer::broadcast(x.dims(), place.dims())?);
    one(map([x, place], &ty, |[x, place]: [i64; 2]| number_in(x, place)))
}

fn sample_nibble(seed: u64) -> Option<Sample> {
    let mut draw = Draw::for_seed(seed)?;
    let dims = samples::dims_for(&mut draw, seed);
    let x = draw.tensor(DType::U8, &dims);
    let place = draw.ints(DType::I64, &dims, 0, 1);
    samples::sample(vec![x, place], Attrs::new())
}

/// Dims of `x` in numbers, and how many a group has.
fn unpacked(x: &[usize], scale: &[usize]) -> Result<(Vec<usize>, usize), OpError> {
    let bad = || OpError::invalid(format!("scales {scale:?} for packed numbers {x:?}"));
    let ([outer @ .., bytes], [others @ .., groups]) = (x, scale) else {
        return Err(bad());
    };
    let depth = bytes * PER_BYTE;
    if outer != others || *groups == 0 || !depth.is_multiple_of(*groups) {
        return Err(bad());
    }
    Ok(([outer, &[depth]].concat(), depth / groups))
}

fn infer_groups(ctx: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
    ctx.expect_operands(2..=2)?;
    infer::expect_kind(ctx.dtype(0)?, "u8", |dtype| dtype == DType::U8)?;
    infer::expect_kind(ctx.dtype(1)?, "a float", DType::is_float)?;
    let (dims, _) = unpacked(&ctx.dims(0)?, &ctx.dims(1)?)?;
    Ok(vec![TensorType::new(kind(ctx.attrs)?, &dims)])
}

fn kind(attrs: &Attrs) -> Result<DType, OpError> {
    let kind = attrs.dtype("to").filter(|dtype| dtype.is_float());
    kind.ok_or_else(|| OpError::invalid("attribute `to` is no float"))
}

fn eval_groups(ctx: &EvalCtx<'_>) -> Result<Vec<Datum>, OpError> {
    let (x, scale) = (ctx.tensor(0)?, ctx.tensor(1)?);
    let (dims, group) = unpacked(x.dims(), scale.dims())?;
    let (bytes, scales): (Vec<i64>, Vec<f64>) = (to_vec(x), to_vec(scale));
    let element = |position: usize| {
        let place = i64::from(position % PER_BYTE == 1);
        #[expect(clippy::cast_precision_loss, reason = "numbers have four bits")]
        let number = number_in(bytes[position / PER_BYTE], place) as f64;
        number * scales[position / group]
    };
    let values: Vec<f64> = (0..dims.iter().product()).map(element).collect();
    // Products are rounded once to what kernels compute in, and then to the kind that is asked for.
    let products = from_values(DType::F32, &dims, &values);
    one(convert(&products, kind(ctx.attrs)?))
}

fn tile_groups(ctx: &mut TileCtx<'_, '_>) -> ExprId {
    let to = kind(ctx.attrs).expect("infer() checked `to`");
    let (depth, groups) = (ctx.result.dims(), ctx.operand(1).dims());
    let (Some((last, outer)), Some(depth), Some(groups)) = (ctx.at.split_last(), depth.last(), groups.last())
    else {
        unreachable!("infer() checked that there is an axis");
    };
    let per_byte = Extent::from(PER_BYTE);
    let along = |divisor: &Extent, ctx: &TileCtx<'_, '_>| {
        let mut at = outer.to_vec();
        at.push(last.div(divisor, &ctx.body.vars));
        at
    };
    let (byte_at, scale_at) = (along(&per_byte, ctx), along(&Extent::from(depth / groups), ctx));
    let (byte, scale) = (ctx.read(0, &byte_at), ctx.read(1, &scale_at));
    let place = last.modulo(&per_byte, &ctx.body.vars);
    let place = ctx.body.add(Expr::IndexValue(place));
    let number = ctx.body.map("nibble", &[byte, place], DType::F32);
    let scale = cast(ctx, scale, DType::F32);
    let product = ctx.body.map("mul", &[number, scale], DType::F32);
    cast(ctx, product, to)
}

fn cast(ctx: &mut TileCtx<'_, '_>, value: ExprId, to: DType) -> ExprId {
    if ctx.body.dtype(value) == to {
        return value;
    }
    let attrs = Attrs::new().with("to", Attr::DType(to));
    let attrs = ctx.body.intern_attrs(&attrs);
    ctx.body.add(Expr::Map {
        op: "cast",
        attrs,
        args: vec![value],
        dtype: to,
    })
}

fn sample_groups(seed: u64) -> Option<Sample> {
    let mut draw = Draw::for_seed(seed)?;
    let (rows, groups, pairs) = (1 + draw.below(3), 1 + draw.below(3), 1 + draw.below(4));
    let x = draw.tensor(DType::U8, &[rows, groups * pairs]);
    let kind = draw.pick(&[DType::F32, DType::F16]);
    let scale = draw.floats(kind, &[rows, groups], -2.0, 2.0);
    let to = draw.pick(&[DType::F32, DType::F16]);
    samples::sample(vec![x, scale], Attrs::new().with("to", Attr::DType(to)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::HostTensor;
    use crate::reference::eval_node;

    #[test]
    fn low_halves_come_first_and_groups_have_their_scales() {
        let x = HostTensor::from_slice(DType::U8, &[1, 2], &[0x80_u8, 0xf7]);
        let scale = HostTensor::from_f32(&[1, 2], &[2.0, 0.5]);
        let attrs = Attrs::new().with("to", Attr::DType(DType::F32));
        let operands = [x, scale].map(|data| Some(Datum::Tensor(data)));
        let found = eval_node(&DEQUANTIZE_GROUPS, &attrs, &operands, 1).unwrap();
        let found: Vec<f64> = to_vec(found[0].tensor().unwrap());
        assert_eq!(found, [-16.0, 0.0, -0.5, 3.5]);
    }
}
