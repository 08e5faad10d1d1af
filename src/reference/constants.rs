//! What was computed of the weights of a model, for whoever computes the same of them again.
//!
//! The graphs of one model in several shapes fold the same weights in the same ways. Large tensors are told by where
//! their bytes are, which stay there as long as they are known here, and small ones by what they hold. Of others than
//! the model's weights and what was computed of these, nothing is kept: they would be no one's again.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ir::{Attrs, Graph, HostTensor, Source};

/// Tensors up to this size are equal where their bytes are.
const SMALL_BYTES: usize = 1 << 14;

/// Results of operations on a model's weights; of none by default.
#[derive(Debug, Default)]
pub struct Constants {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Large tensors by the address of their bytes: weights, and what was computed of them.
    large: HashMap<usize, HostTensor>,
    results: HashMap<u64, Vec<Known>>,
}

#[derive(Debug)]
struct Known {
    how: &'static str,
    attrs: Attrs,
    operands: Vec<Option<HostTensor>>,
    results: Vec<HostTensor>,
}

impl Constants {
    /// Those of the weights of `graph`.
    pub fn of(graph: &Graph) -> Self {
        let mut kept = Kept::default();
        for value in &graph.values {
            if let Source::Weight(data) = &value.source {
                kept.keep(data);
            }
        }
        Constants {
            kept: Mutex::new(kept),
        }
    }

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
        let asked = Asked { how, attrs, operands };
        if !self.locked().may_know(operands) {
            return compute();
        }
        let key = asked.key();
        let known = self.locked().known(key, &asked);
        if let Some(known) = known {
            return Ok(known);
        }
        let results = compute()?;
        let mut kept = self.locked();
        // Of two that computed it at the same time, both go on with the same bytes.
        if let Some(first) = kept.known(key, &asked) {
            return Ok(first);
        }
        for data in &results {
            kept.keep(data);
        }
        kept.results.entry(key).or_default().push(Known {
            how,
            attrs: attrs.clone(),
            operands: operands.iter().map(|data| data.cloned()).collect(),
            results: results.clone(),
        });
        Ok(results)
    }

    fn locked(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn keep(&mut self, data: &HostTensor) {
        if is_large(data) {
            self.large.insert(data.address(), data.clone());
        }
    }

    /// Whether large operands are weights, or computed of them, and there is one.
    fn may_know(&self, operands: &[Option<&HostTensor>]) -> bool {
        let mut large = operands.iter().flatten().filter(|data| is_large(data)).peekable();
        large.peek().is_some() && large.all(|data| self.large.contains_key(&data.address()))
    }

    fn known(&self, key: u64, asked: &Asked<'_>) -> Option<Vec<HostTensor>> {
        let own = self.results.get(&key)?.iter().find(|own| asked.is(own))?;
        Some(own.results.clone())
    }
}

/// What is to be computed.
struct Asked<'a> {
    how: &'static str,
    attrs: &'a Attrs,
    operands: &'a [Option<&'a HostTensor>],
}

impl Asked<'_> {
    fn is(&self, known: &Known) -> bool {
        let is_alike = known.how == self.how
            && known.attrs == *self.attrs
            && known.operands.len() == self.operands.len();
        let mut pairs = known.operands.iter().zip(self.operands);
        is_alike && pairs.all(|(a, b)| is_same(a.as_ref(), *b))
    }

    /// Equal for what [`Asked::is`] finds equal.
    fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.how.hash(&mut hasher);
        for data in self.operands.iter().flatten() {
            if is_large(data) {
                data.address().hash(&mut hasher);
            } else {
                data.bytes().hash(&mut hasher);
            }
        }
        hasher.finish()
    }
}

fn is_large(data: &HostTensor) -> bool {
    data.n_bytes() > SMALL_BYTES
}

fn is_same(a: Option<&HostTensor>, b: Option<&HostTensor>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) if is_large(a) => {
            a.dtype() == b.dtype() && a.dims() == b.dims() && a.address() == b.address()
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
        let large = HostTensor::from_f32(&[100, 100], &vec![1.0; 10_000]);
        let mut graph = Graph::new("g");
        graph.add_weight("w", large.clone());
        let constants = Constants::of(&graph);
        let n_computed = Cell::new(0);
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
        // Another way, attribute, small operand, or dims of the same bytes.
        result("add", 0, &large, 2.0);
        result("mul", 1, &large, 2.0);
        assert_eq!(result("mul", 0, &large, 3.0), one(3.0));
        result("mul", 0, &large.reshaped(&[10_000]), 2.0);
        assert_eq!(n_computed.get(), 5);
        // No weight: equal as it may be, it is computed each time.
        let other = HostTensor::from_f32(&[100, 100], &vec![1.0; 10_000]);
        result("mul", 0, &other, 2.0);
        result("mul", 0, &other, 2.0);
        assert_eq!(n_computed.get(), 7);
    }

    #[test]
    fn what_is_computed_of_results_is_known_too() {
        let large = HostTensor::from_f32(&[10_000], &vec![1.0; 10_000]);
        let mut graph = Graph::new("g");
        graph.add_weight("w", large.clone());
        let constants = Constants::of(&graph);
        let of = |data: &HostTensor| {
            let computed = || Ok::<_, Infallible>(vec![HostTensor::from_f32(&[10_000], &vec![2.0; 10_000])]);
            constants
                .results("neg", &Attrs::new(), &[Some(data)], computed)
                .unwrap()
                .remove(0)
        };
        let (once, again) = (of(&large), of(&large));
        assert_eq!(once.address(), again.address());
        assert_eq!(of(&once).address(), of(&again).address());
        assert_ne!(of(&once).address(), once.address());
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
