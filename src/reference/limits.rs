//! How large results may be. A few bytes of a model can ask for any size, and a failed allocation ends the process.

use crate::ir::{Attrs, HostTensor, TensorType};
use crate::ops::{Datum, InferCtx, OpDef, OpError};

/// Results from this size on are asked of the system before they are computed.
const LARGE_BYTES: usize = 1 << 30;

/// A constant may always take this much.
const MAX_CONSTANT_BYTES: usize = 4 << 30;

/// A larger constant is computed where it takes at most this many times the bytes of what it is computed of.
const CONSTANT_GROWTH: usize = 8;

/// # Errors
/// If the system does not give the memory that results take, as `f64` where an evaluation goes through it.
pub(super) fn expect_memory(def: &OpDef, attrs: &Attrs, operands: &[Option<Datum>]) -> Result<(), OpError> {
    for ty in result_types(def, attrs, operands)? {
        // An evaluation may walk along the other axes of an empty tensor.
        let n_elements: usize = ty.dims().iter().map(|&extent| extent.max(1)).product();
        let n_bytes = n_elements * size_of::<f64>();
        if n_bytes >= LARGE_BYTES && Vec::<u8>::new().try_reserve_exact(n_bytes).is_err() {
            return Err(OpError::unsupported(format!(
                "a tensor `{ty}` is larger than the memory of this machine"
            )));
        }
    }
    Ok(())
}

/// # Errors
/// If a constant is much larger than what it is computed of, and too large to be stored in an engine.
pub(super) fn expect_storable(def: &OpDef, attrs: &Attrs, operands: &[Option<Datum>]) -> Result<(), OpError> {
    let given: usize = tensors(operands).flatten().map(HostTensor::n_bytes).sum();
    let most = MAX_CONSTANT_BYTES.max(given.saturating_mul(CONSTANT_GROWTH));
    match result_types(def, attrs, operands)?
        .iter()
        .find(|ty| ty.n_bytes() > most)
    {
        Some(ty) => Err(OpError::unsupported(format!(
            "a constant `{ty}` of more than {most} bytes, which an engine would store"
        ))),
        None => Ok(()),
    }
}

/// Those of a core op with known dims; none of other ops, whose parts are looked at one by one.
fn result_types(def: &OpDef, attrs: &Attrs, operands: &[Option<Datum>]) -> Result<Vec<TensorType>, OpError> {
    if !def.lower.has_code() {
        return Ok(Vec::new());
    }
    let types: Vec<Option<TensorType>> = tensors(operands).map(|data| data.map(HostTensor::ty)).collect();
    let ctx = InferCtx {
        attrs,
        operands: &types,
    };
    let mut results = def.result_types(&ctx)?;
    results.retain(|ty| ty.shape.dims().is_some());
    Ok(results)
}

fn tensors(operands: &[Option<Datum>]) -> impl Iterator<Item = Option<&HostTensor>> {
    operands
        .iter()
        .map(|operand| operand.as_ref().and_then(|data| data.tensor().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::Attr;
    use crate::ops::lookup;

    fn expanded(dims: &[i64]) -> (&'static OpDef, Attrs, Vec<Option<Datum>>) {
        let attrs = Attrs::new().with("shape", Attr::Ints(dims.to_vec()));
        let one = HostTensor::from_f32(&[1], &[1.0]);
        (lookup("expand").unwrap(), attrs, vec![Some(Datum::Tensor(one))])
    }

    #[test]
    fn large_constants_are_refused() {
        let (def, attrs, operands) = expanded(&[1 << 20]);
        assert_eq!(expect_storable(def, &attrs, &operands), Ok(()));
        let (def, attrs, operands) = expanded(&[1 << 20, 1 << 11]);
        let refused = expect_storable(def, &attrs, &operands).unwrap_err();
        assert!(refused.to_string().contains("f32[1048576,2048]"), "{refused}");
    }

    #[test]
    fn tensors_beyond_the_limit_are_refused() {
        for dims in [&[1 << 36][..], &[1 << 40, 1 << 40]] {
            let (def, attrs, operands) = expanded(dims);
            let refused = expect_memory(def, &attrs, &operands).unwrap_err();
            assert!(matches!(refused, OpError::Unsupported(_)), "{refused}");
        }
    }
}
