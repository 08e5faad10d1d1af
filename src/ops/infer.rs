//! Shared type inference: what most ops ask of their operand types.
//!
//! Every error names what was found. Axes and broadcasting follow ONNX: negative axes count
//! from the end, shapes align at their last axis and extents of one repeat.

use super::{InferCtx, InferFn, OpError};
use crate::ir::{Attrs, DType, TensorType};

impl InferCtx<'_> {
    /// Type of operand `n`.
    ///
    /// # Errors
    /// If the operand is absent.
    pub fn ty(&self, n: usize) -> Result<&TensorType, OpError> {
        self.optional(n)
            .ok_or_else(|| OpError::invalid(format!("operand {n} is missing")))
    }

    /// Type of operand `n`, where it is present.
    pub fn optional(&self, n: usize) -> Option<&TensorType> {
        self.operands.get(n)?.as_ref()
    }

    /// Dims of operand `n`.
    ///
    /// # Errors
    /// If the operand is absent or a dim is not known yet.
    pub fn dims(&self, n: usize) -> Result<Vec<usize>, OpError> {
        known_dims(self.ty(n)?)
    }

    /// # Errors
    /// If operand `n` is absent.
    pub fn dtype(&self, n: usize) -> Result<DType, OpError> {
        Ok(self.ty(n)?.dtype)
    }

    /// # Errors
    /// If there are fewer or more operands than `allowed`.
    pub fn expect_operands(&self, allowed: std::ops::RangeInclusive<usize>) -> Result<(), OpError> {
        if allowed.contains(&self.operands.len()) {
            return Ok(());
        }
        Err(OpError::invalid(format!(
            "expected {} to {} operands, found {}",
            allowed.start(),
            allowed.end(),
            self.operands.len()
        )))
    }
}

/// Dims of a type, all numbers.
///
/// # Errors
/// If one is a symbol.
pub fn known_dims(ty: &TensorType) -> Result<Vec<usize>, OpError> {
    ty.shape
        .dims()
        .ok_or_else(|| OpError::invalid(format!("a dim of `{ty}` is not known")))
}

/// Shape of two broadcast operands.
///
/// # Errors
/// If two extents differ and neither is one.
pub fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, OpError> {
    let rank = a.len().max(b.len());
    let extent =
        |dims: &[usize], axis: usize| (axis + dims.len()).checked_sub(rank).map_or(1, |own| dims[own]);
    (0..rank)
        .map(|axis| match (extent(a, axis), extent(b, axis)) {
            (left, right) if left == right => Ok(left),
            (1, other) | (other, 1) => Ok(other),
            (..) => Err(OpError::invalid(format!(
                "shapes {a:?} and {b:?} do not broadcast together"
            ))),
        })
        .collect()
}

/// Shape of any number of broadcast operands.
///
/// # Errors
/// As [`broadcast`].
pub fn broadcast_all<'a>(shapes: impl IntoIterator<Item = &'a [usize]>) -> Result<Vec<usize>, OpError> {
    shapes
        .into_iter()
        .try_fold(Vec::new(), |sum, dims| broadcast(&sum, dims))
}

/// `axis` as a position below `rank`.
///
/// # Errors
/// If it is outside `-rank..rank`.
pub fn normalize_axis(axis: i64, rank: usize) -> Result<usize, OpError> {
    let signed_rank = i64::try_from(rank).unwrap_or(i64::MAX);
    let position = if axis < 0 { axis + signed_rank } else { axis };
    usize::try_from(position)
        .ok()
        .filter(|&position| position < rank)
        .ok_or_else(|| OpError::invalid(format!("axis {axis} is outside a tensor of rank {rank}")))
}

/// `axes` as sorted, distinct positions below `rank`.
///
/// # Errors
/// If one is out of range or occurs twice.
pub fn normalize_axes(axes: &[i64], rank: usize) -> Result<Vec<usize>, OpError> {
    let mut positions = axes
        .iter()
        .map(|&axis| normalize_axis(axis, rank))
        .collect::<Result<Vec<_>, _>>()?;
    positions.sort_unstable();
    if positions.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(OpError::invalid(format!("axes {axes:?} name one axis twice")));
    }
    Ok(positions)
}

/// Integer attribute `name`, which the op declares with a default or as required.
///
/// # Errors
/// If it is absent.
pub fn int(attrs: &Attrs, name: &str) -> Result<i64, OpError> {
    attrs.int(name).ok_or_else(|| missing(name))
}

/// Float attribute `name`; an integer counts too.
///
/// # Errors
/// If it is absent.
pub fn float(attrs: &Attrs, name: &str) -> Result<f64, OpError> {
    #[expect(clippy::cast_precision_loss, reason = "attributes are small numbers")]
    let from_int = attrs.int(name).map(|value| value as f64);
    attrs.float(name).or(from_int).ok_or_else(|| missing(name))
}

/// Integer-list attribute `name`.
///
/// # Errors
/// If it is absent.
pub fn ints<'a>(attrs: &'a Attrs, name: &str) -> Result<&'a [i64], OpError> {
    attrs.ints(name).ok_or_else(|| missing(name))
}

/// Integer-list attribute `name` as sizes.
///
/// # Errors
/// If it is absent or an entry is negative.
pub fn sizes(attrs: &Attrs, name: &str) -> Result<Vec<usize>, OpError> {
    let values = ints(attrs, name)?;
    values
        .iter()
        .map(|&value| usize::try_from(value))
        .collect::<Result<_, _>>()
        .map_err(|_| {
            OpError::invalid(format!(
                "attribute `{name}` is {values:?}, which has a negative entry"
            ))
        })
}

/// The same for strides, padding and extents of windows, whose products with dims are to stay numbers.
///
/// # Errors
/// Also if an entry does not fit 31 bits.
pub fn window_sizes(attrs: &Attrs, name: &str) -> Result<Vec<usize>, OpError> {
    let values = sizes(attrs, name)?;
    if values.iter().all(|&value| i32::try_from(value).is_ok()) {
        return Ok(values);
    }
    Err(OpError::invalid(format!(
        "attribute `{name}` is {values:?}, which has an entry over {}",
        i32::MAX
    )))
}

/// Product of dims that a model asks for; `None` where it overflows.
pub fn n_elements(dims: &[usize]) -> Option<usize> {
    dims.iter()
        .try_fold(1, |product: usize, &extent| product.checked_mul(extent))
}

/// Most entries of a table that an op's expansion makes while compiling.
pub const MAX_TABLE_ENTRIES: usize = 1 << 26;

/// Entries of a constant of these dims, which a model asks for.
///
/// # Errors
/// If they are more than an expansion writes down.
pub fn table_entries(dims: &[usize]) -> Result<usize, OpError> {
    n_elements(dims)
        .filter(|&entries| entries <= MAX_TABLE_ENTRIES)
        .ok_or_else(|| {
            OpError::unsupported(format!(
                "a table of dims {dims:?}, of more than {MAX_TABLE_ENTRIES} entries"
            ))
        })
}

/// Attribute `axis` as a position below `rank`.
///
/// # Errors
/// If it is absent or out of range.
pub fn axis(attrs: &Attrs, rank: usize) -> Result<usize, OpError> {
    normalize_axis(int(attrs, "axis")?, rank)
}

fn missing(name: &str) -> OpError {
    OpError::invalid(format!("attribute `{name}` is missing"))
}

/// The type of operand 0.
pub fn same_as_first(ctx: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
    Ok(vec![ctx.ty(0)?.clone()])
}

/// One operand of a float kind; the result has its type.
pub fn float_unary(ctx: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
    unary(ctx, "a float kind", DType::is_float)
}

/// One number; the result has its type.
pub fn number_unary(ctx: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
    unary(ctx, "a number", |dtype| dtype != DType::Bool)
}

/// One operand that `accepts`; the result has its type.
///
/// # Errors
/// If there is another number of operands or another kind.
pub fn unary(
    ctx: &InferCtx<'_>,
    wanted: &str,
    accepts: impl Fn(DType) -> bool,
) -> Result<Vec<TensorType>, OpError> {
    ctx.expect_operands(1..=1)?;
    let ty = ctx.ty(0)?;
    expect_kind(ty.dtype, wanted, accepts)?;
    Ok(vec![ty.clone()])
}

/// Two numbers of one kind, broadcast.
pub fn number_binary(ctx: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
    binary(ctx, "numbers", |dtype| dtype != DType::Bool)
}

/// Two operands of one kind that `accepts`, broadcast; the result has their kind.
///
/// # Errors
/// If kinds differ or are not accepted, or shapes do not broadcast.
pub fn binary(
    ctx: &InferCtx<'_>,
    wanted: &str,
    accepts: impl Fn(DType) -> bool,
) -> Result<Vec<TensorType>, OpError> {
    ctx.expect_operands(2..=2)?;
    let dtype = same_dtype(ctx, 0, 1)?;
    expect_kind(dtype, wanted, accepts)?;
    let dims = broadcast(&ctx.dims(0)?, &ctx.dims(1)?)?;
    Ok(vec![TensorType::new(dtype, &dims)])
}

/// Kind of operands `a` and `b`, which must be the same.
///
/// # Errors
/// If they differ or one is absent.
pub fn same_dtype(ctx: &InferCtx<'_>, a: usize, b: usize) -> Result<DType, OpError> {
    let (left, right) = (ctx.ty(a)?, ctx.ty(b)?);
    if left.dtype == right.dtype {
        return Ok(left.dtype);
    }
    Err(OpError::invalid(format!(
        "operands {a} and {b} must be of one kind, found `{left}` and `{right}`"
    )))
}

/// # Errors
/// If `dtype` is not accepted.
pub fn expect_kind(dtype: DType, wanted: &str, accepts: impl Fn(DType) -> bool) -> Result<(), OpError> {
    if accepts(dtype) {
        return Ok(());
    }
    Err(OpError::invalid(format!("expected {wanted}, found `{dtype}`")))
}

/// Inference of ONNX forms: they have no types of their own, only their expansion has.
pub const BY_EXPANSION: InferFn = |_| {
    Err(OpError::unsupported(
        "types of an op that only expands; expand it first",
    ))
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_align_at_their_last_axis() {
        assert_eq!(broadcast(&[2, 1, 4], &[3, 1]), Ok(vec![2, 3, 4]));
        assert_eq!(broadcast(&[], &[5]), Ok(vec![5]));
        assert_eq!(broadcast(&[0, 1], &[1, 7]), Ok(vec![0, 7]));
        assert!(broadcast(&[2], &[3]).is_err());
    }

    #[test]
    fn axes_count_from_the_end_too() {
        assert_eq!(normalize_axes(&[-1, 0], 3), Ok(vec![0, 2]));
        assert!(normalize_axes(&[2, -1], 3).is_err());
        assert!(normalize_axis(3, 3).is_err());
        assert!(normalize_axis(-4, 3).is_err());
    }
}
