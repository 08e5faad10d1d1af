//! What was computed of large constants, for whoever computes the same of the same bytes again.
//!
//! The graphs of one model in several shapes fold the same weights in the same ways. Large tensors are told by where
//! their bytes are, which stay there as long as they are known here, and small ones by what they hold.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ir::{Attrs, HostTensor};

/// Tensors up to this size are equal where their bytes are.
const SMALL_BYTES: usize = 1 << 14;

/// Results of operations on constants, of which one at least is large.
#[derive(Debug, Default)]
pub struct Constants {
    known: Mutex<HashMap<u64, Vec<Known>>>,
}

#[derive(Debug)]
struct Known {
    how: &'static str,
    attrs: Attrs,
    operands: Vec<Option<HostTensor>>,
    results: Vec<HostTensor>,
}

impl Constants {
    /// The results of `how` with `attrs` on `operands`, which `compute` gives where they are not known yet: they
    /// depend on nothing else.
    ///
    /// # Errors
    /// As `compute`.
    pub fn results<E>(
        &self,
        how: &'static str,
        attrs: &Attrs,
        operands: &[Option<&HostTensor>],
        compute: impl FnOnce() -> Result<Vec<HostTensor>, E>,
    ) -> Result<Vec<HostTensor>, E> {
        if !operands.iter().flatten().any(|data| is_large(data)) {
            return compute();
        }
        let key = key(how, operands);
        let is_it = |own: &&Known| {
            let same_kind = own.how == how && own.attrs == *attrs && own.operands.len() == operands.len();
            same_kind
                && own
                    .operands
                    .iter()
                    .zip(operands)
                    .all(|(a, b)| is_same(a.as_ref(), *b))
        };
        if let Some(known) = self.locked().get(&key).and_then(|own| own.iter().find(is_it)) {
            return Ok(known.results.clone());
        }
        let results = compute()?;
        let mut known = self.locked();
        let own = known.entry(key).or_default();
        // Of two that computed it at the same time, both go on with the same bytes.
        if let Some(first) = own.iter().find(is_it) {
            return Ok(first.results.clone());
        }
        own.push(Known {
            how,
            attrs: attrs.clone(),
            operands: operands.iter().map(|data| data.cloned()).collect(),
            results: results.clone(),
        });
        Ok(results)
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<u64, Vec<Known>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_large(data: &HostTensor) -> bool {
    data.n_bytes() > SMALL_BYTES
}

/// Equal for operands that [`is_same`] finds equal.
fn key(how: &str, operands: &[Option<&HostTensor>]) -> u64 {
    let mut hasher = DefaultHasher::new();
    how.hash(&mut hasher);
    for data in operands.iter().flatten() {
        if is_large(data) {
            data.bytes().as_ptr().hash(&mut hasher);
        } else {
            data.bytes().hash(&mut hasher);
        }
    }
    hasher.finish()
}

fn is_same(a: Option<&HostTensor>, b: Option<&HostTensor>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) if is_large(a) => {
            a.dtype() == b.dtype() && a.dims() == b.dims() && std::ptr::eq(a.bytes(), b.bytes())
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;

    use super::*;
    use crate::ir::Attr;

    #[test]
    fn what_is_computed_of_the_same_bytes_in_the_same_way_is_computed_once() {
        let constants = Constants::default();
        let n_computed = Cell::new(0);
        let large = HostTensor::from_f32(&[100, 100], &[1.0; 10_000]);
        let one = |value: f32| HostTensor::from_f32(&[1], &[value]);
        let result = |how: &'static str, axis: i64, data: &HostTensor, factor: f32| {
            let attrs = Attrs::new().with("axis", Attr::Int(axis));
            let computed = || {
                n_computed.set(n_computed.get() + 1);
                Ok::<_, Infallible>(vec![one(factor)])
            };
            let factor = one(factor);
            let found = constants.results(how, &attrs, &[Some(data), None, Some(&factor)], computed);
            found.unwrap().remove(0)
        };
        let first = result("mul", 0, &large, 2.0);
        assert_eq!(first, one(2.0));
        let again = result("mul", 0, &large.clone(), 2.0);
        assert!(std::ptr::eq(first.bytes(), again.bytes()), "the same bytes");
        assert_eq!(n_computed.get(), 1);
        // Another way, attribute, small operand, dims of the same bytes, or large bytes elsewhere.
        result("add", 0, &large, 2.0);
        result("mul", 1, &large, 2.0);
        assert_eq!(result("mul", 0, &large, 3.0), one(3.0));
        result("mul", 0, &large.reshaped(&[10_000]), 2.0);
        result("mul", 0, &HostTensor::from_f32(&[100, 100], &[1.0; 10_000]), 2.0);
        assert_eq!(n_computed.get(), 6);
    }

    #[test]
    fn small_constants_are_not_kept() {
        let constants = Constants::default();
        let small = HostTensor::from_f32(&[1], &[1.0]);
        let of = |value: f32| {
            let computed = || Ok::<_, Infallible>(vec![HostTensor::from_f32(&[1], &[value])]);
            constants
                .results("neg", &Attrs::new(), &[Some(&small)], computed)
                .unwrap()
        };
        assert_ne!(of(1.0), of(2.0));
    }
}
