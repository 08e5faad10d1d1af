//! Det: elimination with the largest pivot of each column, unrolled over the (static) rows.

use super::build::FORM;
use super::grid_forms::computed_in;
use super::{ExpandCtx, Lowering, OnnxOp, OpDef, OpError};
use crate::ir::ValueId;

/// Most rows that are unrolled.
const MAX_ROWS: usize = 64;

/// The determinant of the matrices in the last two axes.
pub static DET: OpDef = OpDef {
    name: "Det",
    onnx: &[OnnxOp::new("Det")],
    lower: Lowering::Expand(det),
    ..FORM
};

pub static OPS: &[&OpDef] = &[&DET];

fn det(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let x = ctx.value(0)?;
    let (dims, own) = (ctx.dims_of(x), ctx.dtype_of(x));
    let [outer @ .., rows, columns] = dims.as_slice() else {
        return Err(OpError::invalid(format!(
            "expected matrices, found dims {dims:?}"
        )));
    };
    if rows != columns {
        return Err(OpError::invalid(format!(
            "the determinant of {rows} by {columns} matrices"
        )));
    }
    if *rows > MAX_ROWS {
        return Err(OpError::unsupported(format!(
            "the determinant of {rows} rows, more than {MAX_ROWS}"
        )));
    }
    let kind = computed_in(own);
    let count = outer.iter().product();
    let wide = ctx.cast(x, kind)?;
    let mut rest = ctx.reshape(wide, &[count, *rows, *rows])?;
    let mut product = ctx.filled(kind, &[count, 1, 1], 1.0);
    for left in (1..=*rows).rev() {
        let (pivot, remaining) = eliminated(ctx, rest, left)?;
        product = ctx.binary("mul", product, pivot)?;
        rest = remaining;
    }
    let product = ctx.reshape(product, outer)?;
    Ok(vec![ctx.cast(product, own)?])
}

/// The pivot of the first column (negative where rows changed places), and the matrix that is
/// left without its row and column.
fn eliminated(ctx: &mut ExpandCtx<'_>, x: ValueId, rows: usize) -> Result<(ValueId, ValueId), OpError> {
    if rows == 1 {
        return Ok((x, x));
    }
    let kind = ctx.dtype_of(x);
    let column = ctx.part(x, 2, 0..1)?;
    let size = ctx.plain("abs", &[column])?;
    let attrs = super::build::axis_attr(1);
    let chosen = ctx.emit("arg_max", &[size], attrs)?;
    let numbers = ctx.counted_up(0, 1, &[rows, 1])?;
    let here = ctx.binary("equal", numbers, chosen)?;
    let zero = ctx.scalar(kind, 0.0);
    let only = ctx.select(here, x, zero)?;
    let pivot_row = ctx.reduce("reduce_sum", only, &[1])?;
    // The first row takes the place of the chosen one, which changes the sign.
    let first = ctx.part(x, 1, 0..1)?;
    let swapped = ctx.select(here, first, x)?;
    let below = ctx.part(swapped, 1, 1..rows)?;
    let pivot = ctx.part(pivot_row, 2, 0..1)?;
    let none = ctx.integers(&[], &[0]);
    let stays = ctx.binary("equal", chosen, none)?;
    let (plus, minus) = (ctx.scalar(kind, 1.0), ctx.scalar(kind, -1.0));
    let sign = ctx.select(stays, plus, minus)?;
    let singular = ctx.binary("equal", pivot, zero)?;
    let divisor = ctx.select(singular, plus, pivot)?;
    let leading = ctx.part(below, 2, 0..1)?;
    let factor = ctx.binary("div", leading, divisor)?;
    let (left, pivot_left) = (ctx.part(below, 2, 1..rows)?, ctx.part(pivot_row, 2, 1..rows)?);
    let taken = ctx.binary("mul", factor, pivot_left)?;
    let left = ctx.binary("sub", left, taken)?;
    Ok((ctx.binary("mul", pivot, sign)?, left))
}
