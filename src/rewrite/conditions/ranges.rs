//! How large integers can be, which decides whether a sum of products is exact in floats, and whether
//! a value is one of bytes.

use super::facts::{Facts, Handle};
use crate::ir::DType;
use crate::ops::evaluate::holds_bytes;
use crate::rewrite::groups::begins_with_groups;

/// Ops looked through at most.
const DEPTH: usize = 8;

/// Bound of the absolute values of an integer tensor: of its elements where it is a weight, else by
/// the kinds it was computed from. `None` where nothing better than its own kind is known.
pub fn magnitude(value: Handle, facts: &dyn Facts) -> Option<f64> {
    let (low, high) = range(value, facts, DEPTH)?;
    Some(low.abs().max(high.abs()))
}

/// Least and greatest value. A cast keeps both: kinds narrower than the widest one bound
/// themselves, and sums of values of narrow kinds do not leave 32 bits.
fn range(value: Handle, facts: &dyn Facts, depth: usize) -> Option<(f64, f64)> {
    if let Some(elements) = facts.elements(value) {
        return extremes(&elements);
    }
    if let Some(range) = of_kind(facts.ty(value)?.dtype) {
        return Some(range);
    }
    let depth = depth.checked_sub(1)?;
    if let Some((_, operands)) = facts.made_by(value, "sub") {
        let (left, right) = (*operands.first()?, *operands.get(1)?);
        let (left, right) = (range(left?, facts, depth)?, range(right?, facts, depth)?);
        return Some((left.0 - right.1, left.1 - right.0));
    }
    ["cast", "reshape", "transpose"].iter().find_map(|op| {
        let (_, operands) = facts.made_by(value, op)?;
        range((*operands.first()?)?, facts, depth)
    })
}

/// Whether a value is made of bytes, or is a weight that bytes hold, or four bits with scales, in whatever kind
/// and order: kernels read it as such unless it is scaled.
pub fn of_bytes(value: Handle, facts: &dyn Facts) -> bool {
    is_of_bytes(value, facts, DEPTH)
}

fn is_of_bytes(value: Handle, facts: &dyn Facts, depth: usize) -> bool {
    let Some(ty) = facts.ty(value).filter(|_| depth > 0) else {
        return false;
    };
    if matches!(ty.dtype, DType::I8 | DType::U8 | DType::F8E4M3) {
        return true;
    }
    if facts.weight_data(value).is_some_and(begins_with_groups) {
        return true;
    }
    if let Some(elements) = facts.elements(value) {
        return holds_bytes(&elements);
    }
    if let Some((_, operands)) = facts.made_by(value, "concat") {
        let mut parts = operands.into_iter().flatten();
        return parts.all(|part| is_of_bytes(part, facts, depth - 1));
    }
    ["cast", "reshape", "transpose"].iter().any(|op| {
        let source = facts
            .made_by(value, op)
            .and_then(|(_, operands)| operands.first().copied().flatten());
        source.is_some_and(|source| is_of_bytes(source, facts, depth - 1))
    })
}

/// What a sum with a score is never weighed by a softmax beside a score that it was not added to, whatever the scores
/// of a network: exporters write the least float or minus infinity.
const HIDDEN: f64 = -1e30;

/// The `o` for which a weight over queries and keys, its last axes, is zero where the key is at most `o` after the
/// query, and hides all others, for all samples and heads alike. `None` where there is no such number, where nothing
/// is hidden, or where a query sees no key at all.
pub fn causal_offset(value: Handle, facts: &dyn Facts) -> Option<i64> {
    let elements = facts.elements(value)?;
    let dims = facts.ty(value)?.shape.dims()?;
    let &[.., queries, keys] = dims.as_slice() else {
        return None;
    };
    let seen_first = elements.iter().position(|&element| element <= HIDDEN)?;
    let offset = seen_first.checked_sub(1).filter(|&offset| offset < keys)?;
    let is_causal = elements.iter().enumerate().all(|(number, &element)| {
        let (query, key) = (number / keys % queries, number % keys);
        if key > query + offset {
            element <= HIDDEN
        } else {
            element == 0.0
        }
    });
    is_causal.then(|| i64::try_from(offset).ok())?
}

fn extremes(elements: &[f64]) -> Option<(f64, f64)> {
    let first = *elements.first()?;
    let widen = |(low, high): (f64, f64), &element: &f64| (low.min(element), high.max(element));
    Some(elements.iter().fold((first, first), widen))
}

/// The values of a kind so narrow that sums of its products can be exact in `f32`.
fn of_kind(dtype: DType) -> Option<(f64, f64)> {
    match dtype {
        DType::I8 => Some((-128.0, 127.0)),
        DType::U8 => Some((0.0, 255.0)),
        _ => None,
    }
}

/// The greatest sum of absolute values over all axes of a weight but `axis`, negative from its end.
pub fn largest_sum(value: Handle, axis: i64, facts: &dyn Facts) -> Option<f64> {
    let elements = facts.elements(value)?;
    let dims = facts.ty(value)?.shape.dims()?;
    let rank = i64::try_from(dims.len()).ok()?;
    let axis = usize::try_from(if axis < 0 { axis + rank } else { axis }).ok()?;
    let extent = *dims.get(axis)?;
    let inner: usize = dims[axis + 1..].iter().product();
    let mut sums = vec![0.0; extent];
    for (run, row) in elements.chunks_exact(inner.max(1)).enumerate() {
        sums[run % extent] += row.iter().map(|element| element.abs()).sum::<f64>();
    }
    sums.into_iter().reduce(f64::max)
}
