//! ONNX's `RotaryEmbedding`: pairs of channels turned by an angle that depends on the position.

use super::build::{FORM, int_attr};
use super::samples::ints_attr;
use super::{ExpandCtx, Lowering, OnnxOp, OpDef, OpError, Operands, infer};
use crate::ir::{Attr, Attrs, ValueId};

/// Rotates the first `rotary_embedding_dim` channels of each head (all of them where it is 0).
pub static ROTARY_EMBEDDING: OpDef = OpDef {
    name: "RotaryEmbedding",
    onnx: &[OnnxOp::new("RotaryEmbedding")],
    operands: Operands::with_optional(&["x", "cos_cache", "sin_cache"], &["position_ids"]),
    attrs: &[
        int_attr("interleaved", 0),
        int_attr("num_heads", 0),
        int_attr("rotary_embedding_dim", 0),
    ],
    lower: Lowering::Expand(rotary),
    ..FORM
};

pub static OPS: &[&OpDef] = &[&ROTARY_EMBEDDING];

fn size(ctx: &ExpandCtx<'_>, name: &str) -> Result<usize, OpError> {
    let value = infer::int(ctx.attrs, name)?;
    usize::try_from(value).map_err(|_| OpError::invalid(format!("attribute `{name}` is {value}")))
}

fn rotary(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let x = ctx.value(0)?;
    let dims = ctx.dims_of(x);
    // Axis of the heads: before the positions, or split off the channels.
    let (split, head_axis) = match dims[..] {
        [_, _, _, _] => (x, 1),
        [batch, length, width] => {
            let count = size(ctx, "num_heads")?;
            if count == 0 || width % count != 0 {
                return Err(OpError::invalid(format!("{count} heads in {width} channels")));
            }
            (ctx.reshape(x, &[batch, length, count, width / count])?, 2)
        }
        _ => return Err(OpError::invalid(format!("a rotary embedding of {dims:?}"))),
    };
    let depth = ctx.dims_of(split)[3];
    let rotated = match size(ctx, "rotary_embedding_dim")? {
        0 => depth,
        part => part,
    };
    if rotated > depth || rotated % 2 != 0 {
        return Err(OpError::invalid(format!(
            "a rotation of {rotated} of {depth} channels"
        )));
    }
    let cos = cache(ctx, 1, head_axis)?;
    let sin = cache(ctx, 2, head_axis)?;
    let turning = ctx.part(split, 3, 0..rotated)?;
    let turned = turn(ctx, turning, cos, sin)?;
    let result = if rotated == depth {
        turned
    } else {
        let rest = ctx.part(split, 3, rotated..depth)?;
        ctx.joined(&[turned, rest], 3)?
    };
    Ok(vec![ctx.reshape(result, &dims)?])
}

/// Operand `n` for every position, with an axis for the heads.
fn cache(ctx: &mut ExpandCtx<'_>, n: usize, head_axis: usize) -> Result<ValueId, OpError> {
    let mut cache = ctx.value(n)?;
    if let Some(positions) = ctx.optional(3) {
        cache = ctx.emit(
            "gather",
            &[cache, positions],
            Attrs::new().with("axis", Attr::Int(0)),
        )?;
    }
    let mut dims = ctx.dims_of(cache);
    if dims.len() != 3 {
        return Err(OpError::invalid(format!(
            "a rotary cache of {dims:?} for each position"
        )));
    }
    dims.insert(head_axis, 1);
    ctx.reshape(cache, &dims)
}

fn turn(ctx: &mut ExpandCtx<'_>, x: ValueId, cos: ValueId, sin: ValueId) -> Result<ValueId, OpError> {
    let dims = ctx.dims_of(x);
    let interleaved = infer::int(ctx.attrs, "interleaved")? != 0;
    let (first, second) = halves(ctx, x, interleaved)?;
    let (a, b) = (ctx.binary("mul", cos, first)?, ctx.binary("mul", sin, second)?);
    let real = ctx.binary("sub", a, b)?;
    let (a, b) = (ctx.binary("mul", sin, first)?, ctx.binary("mul", cos, second)?);
    let imaginary = ctx.binary("add", a, b)?;
    if !interleaved {
        return ctx.joined(&[real, imaginary], 3);
    }
    let mut pair = ctx.dims_of(real);
    pair.push(1);
    let (real, imaginary) = (ctx.reshape(real, &pair)?, ctx.reshape(imaginary, &pair)?);
    let joined = ctx.joined(&[real, imaginary], 4)?;
    ctx.reshape(joined, &dims)
}

/// The two channels of each pair.
fn halves(ctx: &mut ExpandCtx<'_>, x: ValueId, interleaved: bool) -> Result<(ValueId, ValueId), OpError> {
    let dims = ctx.dims_of(x);
    let depth = dims[3];
    if !interleaved {
        let first = ctx.part(x, 3, 0..depth / 2)?;
        return Ok((first, ctx.part(x, 3, depth / 2..depth)?));
    }
    let mut every_other = |start: usize| {
        let attrs = Attrs::new()
            .with("starts", ints_attr(&[0, 0, 0, start]))
            .with("ends", ints_attr(&dims))
            .with("steps", ints_attr(&[1, 1, 1, 2]));
        ctx.emit("slice", &[x], attrs)
    };
    Ok((every_other(0)?, every_other(1)?))
}
