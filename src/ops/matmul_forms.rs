//! ONNX's `MatMul` and Gemm.

use super::build::{FORM, float_attr, int_attr};
use super::{ExpandCtx, Lowering, OnnxOp, OpDef, OpError, Operands, infer};
use crate::ir::ValueId;

/// The product of numpy's `matmul`: vectors count as a row on the left, as a column on the right.
pub static MATMUL: OpDef = OpDef {
    name: "MatMul",
    onnx: &[OnnxOp::new("MatMul")],
    operands: Operands::exactly(&["a", "b"]),
    lower: Lowering::Expand(|ctx| {
        let (a, b) = (ctx.value(0)?, ctx.value(1)?);
        Ok(vec![matmul(ctx, a, b)?])
    }),
    ..FORM
};

/// `alpha * a * b + beta * c`, either factor transposed on request.
pub static GEMM: OpDef = OpDef {
    name: "Gemm",
    onnx: &[OnnxOp::new("Gemm")],
    operands: Operands::with_optional(&["a", "b"], &["c"]),
    attrs: &[
        float_attr("alpha", 1.0),
        float_attr("beta", 1.0),
        int_attr("transA", 0),
        int_attr("transB", 0),
        int_attr("broadcast", 0),
    ],
    lower: Lowering::Expand(gemm),
    ..FORM
};

pub static OPS: &[&OpDef] = &[&MATMUL, &GEMM];

/// `a * b` with numpy's rules for vectors.
pub fn matmul(ctx: &mut ExpandCtx<'_>, a: ValueId, b: ValueId) -> Result<ValueId, OpError> {
    let (a_dims, b_dims) = (ctx.dims_of(a), ctx.dims_of(b));
    if a_dims.is_empty() || b_dims.is_empty() {
        return Err(OpError::invalid(format!(
            "a matrix product needs one or more axes, found {a_dims:?} and {b_dims:?}"
        )));
    }
    let (row, column) = (a_dims.len() == 1, b_dims.len() == 1);
    let a = if row { ctx.reshape(a, &[1, a_dims[0]])? } else { a };
    let b = if column {
        ctx.reshape(b, &[b_dims[0], 1])?
    } else {
        b
    };
    let product = ctx.binary("matmul", a, b)?;
    let mut dims = ctx.dims_of(product);
    if column {
        dims.pop();
    }
    if row {
        dims.remove(dims.len() - 1 - usize::from(!column));
    }
    ctx.reshape(product, &dims)
}

fn gemm(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let (a, b) = (ctx.value(0)?, ctx.value(1)?);
    for factor in [a, b] {
        if ctx.dims_of(factor).len() != 2 {
            return Err(OpError::invalid(format!(
                "Gemm multiplies matrices, found `{}`",
                ctx.graph.ty(factor)
            )));
        }
    }
    let turned = |ctx: &mut ExpandCtx<'_>, value, name| match infer::int(ctx.attrs, name)? {
        0 => Ok(value),
        _ => ctx.transpose(value, &[1, 0]),
    };
    let (a, b) = (turned(ctx, a, "transA")?, turned(ctx, b, "transB")?);
    let product = ctx.binary("matmul", a, b)?;
    let product = times(ctx, product, "alpha")?;
    let Some(c) = ctx.optional(2) else {
        return Ok(vec![product]);
    };
    let c = times(ctx, c, "beta")?;
    let dims = ctx.dims_of(product);
    if infer::broadcast(&ctx.dims_of(c), &dims)? != dims {
        return Err(OpError::invalid(format!(
            "`{}` does not broadcast to a product of {dims:?}",
            ctx.graph.ty(c)
        )));
    }
    Ok(vec![ctx.binary("add", product, c)?])
}

/// `value` times attribute `name`; itself where that is one.
fn times(ctx: &mut ExpandCtx<'_>, value: ValueId, name: &str) -> Result<ValueId, OpError> {
    let factor = infer::float(ctx.attrs, name)?;
    #[expect(clippy::float_cmp, reason = "exactly one means no factor")]
    if factor == 1.0 {
        return Ok(value);
    }
    ctx.with_number("mul", value, factor)
}
