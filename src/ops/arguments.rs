//! Integers that ONNX's operators take as an attribute or as a constant operand, depending on the opset.

use super::evaluate::index_list;
use super::{ExpandCtx, OpError};

/// Integers of attribute `name`, else of constant operand `n`; `None` where both are absent.
///
/// # Errors
/// If the operand is not a constant list of integers.
pub fn ints_of(ctx: &ExpandCtx<'_>, name: &str, n: usize) -> Result<Option<Vec<i64>>, OpError> {
    if let Some(values) = ctx.attrs.ints(name) {
        return Ok(Some(values.to_vec()));
    }
    ctx.constant(n)?.map(|data| index_list(&data)).transpose()
}

/// Sizes of constant operand `n`.
///
/// # Errors
/// If it is absent, not a constant, or holds negative numbers.
pub fn sizes_operand(ctx: &ExpandCtx<'_>, n: usize) -> Result<Vec<usize>, OpError> {
    let data = ctx
        .constant(n)?
        .ok_or_else(|| OpError::invalid(format!("operand {n} is missing")))?;
    let values = index_list(&data)?;
    values
        .iter()
        .map(|&value| usize::try_from(value))
        .collect::<Result<_, _>>()
        .map_err(|_| OpError::invalid(format!("operand {n} is {values:?}, which has a negative entry")))
}
