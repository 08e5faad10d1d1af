//! Losses of classification: what they pick, weigh and average is gathered and reduced.

use super::build::{FORM, optional_attr, str_attr};
use super::{AttrKind, ExpandCtx, Lowering, OnnxOp, OpDef, OpError, Operands};
use crate::ir::{Attr, Attrs, DType, HostTensor, ValueId};

/// Minus the log-probability of the wanted class.
pub static NEGATIVE_LOG_LIKELIHOOD: OpDef = OpDef {
    name: "NegativeLogLikelihoodLoss",
    onnx: &[OnnxOp::new("NegativeLogLikelihoodLoss")],
    operands: Operands::with_optional(&["log_prob", "target"], &["weight"]),
    attrs: &[
        optional_attr("ignore_index", AttrKind::Int),
        str_attr("reduction", "mean"),
    ],
    lower: Lowering::Expand(|ctx| {
        let x = ctx.value(0)?;
        Ok(vec![likelihood(ctx, x)?])
    }),
    ..FORM
};

/// The same of scores, by way of a log-softmax over the classes, which is the second result.
pub static SOFTMAX_CROSS_ENTROPY: OpDef = OpDef {
    name: "SoftmaxCrossEntropyLoss",
    onnx: &[OnnxOp::new("SoftmaxCrossEntropyLoss")],
    operands: Operands::with_optional(&["scores", "target"], &["weight"]),
    attrs: &[
        optional_attr("ignore_index", AttrKind::Int),
        str_attr("reduction", "mean"),
    ],
    lower: Lowering::Expand(|ctx| {
        let scores = ctx.value(0)?;
        let log_prob = ctx.emit("log_softmax", &[scores], Attrs::new().with("axis", Attr::Int(1)))?;
        let mut results = vec![likelihood(ctx, log_prob)?, log_prob];
        results.truncate(ctx.n_results);
        Ok(results)
    }),
    ..FORM
};

pub static OPS: &[&OpDef] = &[&NEGATIVE_LOG_LIKELIHOOD, &SOFTMAX_CROSS_ENTROPY];

/// The loss of log-probabilities `x`, with the node's target, weights and reduction.
fn likelihood(ctx: &mut ExpandCtx<'_>, x: ValueId) -> Result<ValueId, OpError> {
    let dtype = ctx.dtype_of(x);
    let target = ctx.value(1)?;
    let dims = ctx.dims_of(target);
    let mut column = ctx.dims_of(x);
    if column.len() < 2 || column.len() != dims.len() + 1 {
        return Err(OpError::invalid(format!(
            "targets of dims {dims:?} for probabilities of dims {column:?}"
        )));
    }
    column[1] = 1;
    let target = ctx.cast(target, DType::I64)?;
    let zero = ctx.scalar(dtype, 0.0);
    let kept = ignored(ctx, target)?;
    // What is ignored may lie outside of the classes.
    let class = match kept {
        Some(kept) => {
            let any = ctx.integers(&[], &[0]);
            ctx.select(kept, target, any)?
        }
        None => target,
    };
    let index = ctx.reshape(class, &column)?;
    let picked = ctx.gathered("gather_elements", x, index, 1)?;
    let picked = ctx.reshape(picked, &dims)?;
    let mut loss = ctx.plain("neg", &[picked])?;
    if let Some(kept) = kept {
        loss = ctx.select(kept, loss, zero)?;
    }
    let weight = weights(ctx, class, kept, dtype)?;
    if let Some(weight) = weight {
        loss = ctx.binary("mul", loss, weight)?;
    }
    reduced(ctx, loss, weight)
}

/// Where the target is not the one to ignore; `None` if nothing is ignored.
fn ignored(ctx: &mut ExpandCtx<'_>, target: ValueId) -> Result<Option<ValueId>, OpError> {
    let Some(ignored) = ctx.attrs.int("ignore_index") else {
        return Ok(None);
    };
    let ignored = ctx.weight(HostTensor::from_i64(&[], &[ignored]));
    let equal = ctx.binary("equal", target, ignored)?;
    ctx.plain("not", &[equal]).map(Some)
}

/// The weight of each target; `None` where all count the same.
fn weights(
    ctx: &mut ExpandCtx<'_>,
    class: ValueId,
    kept: Option<ValueId>,
    dtype: DType,
) -> Result<Option<ValueId>, OpError> {
    let given = match ctx.optional(2) {
        Some(weight) => Some(ctx.gathered("gather", weight, class, 0)?),
        None => None,
    };
    let Some(kept) = kept else {
        return Ok(given);
    };
    let (zero, one) = (ctx.scalar(dtype, 0.0), ctx.scalar(dtype, 1.0));
    ctx.select(kept, given.unwrap_or(one), zero).map(Some)
}

fn reduced(ctx: &mut ExpandCtx<'_>, loss: ValueId, weight: Option<ValueId>) -> Result<ValueId, OpError> {
    let axes: Vec<usize> = (0..ctx.dims_of(loss).len()).collect();
    match (ctx.attrs.str("reduction"), weight) {
        (Some("none"), _) => Ok(loss),
        (Some("sum"), _) => ctx.dropped("reduce_sum", loss, &axes),
        (Some("mean"), None) => ctx.dropped("reduce_mean", loss, &axes),
        (Some("mean"), Some(weight)) => {
            let (sum, total) = (
                ctx.dropped("reduce_sum", loss, &axes)?,
                ctx.dropped("reduce_sum", weight, &axes)?,
            );
            ctx.binary("div", sum, total)
        }
        (other, _) => Err(OpError::invalid(format!(
            "attribute `reduction` must be `none`, `sum` or `mean`, found `{}`",
            other.unwrap_or_default()
        ))),
    }
}
