//! What forms are given whose results have extents that data decides.
//!
//! Such a form makes results as large as they can become, and for each axis a count. How large that is
//! follows from what is known of the numbers that decide it, see [`Amount`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};

use super::build::signed;
use super::evaluate::index_list;
use super::{ExpandCtx, OpError};
use crate::ir::{DType, Graph, HostTensor, Source, ValueId, common_divisor};

/// A number that data decides, as far as it is known before.
#[derive(Clone, Debug, PartialEq)]
pub struct Amount {
    /// Inclusive, as `high`.
    pub low: f64,
    pub high: f64,
    /// Whether it may be no number.
    pub nan: bool,
    /// Which number it is, in terms of others.
    pub linear: Option<Linear>,
}

/// `constant + sum of coefficient * element`, of elements of integer tensors.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Linear {
    /// No coefficient is zero.
    pub terms: BTreeMap<(ValueId, usize), i64>,
    pub constant: i64,
}

impl Linear {
    pub fn known(constant: i64) -> Self {
        Linear {
            terms: BTreeMap::new(),
            constant,
        }
    }

    /// Element `position` of `value`.
    pub fn element(value: ValueId, position: usize) -> Self {
        Linear {
            terms: BTreeMap::from([((value, position), 1)]),
            constant: 0,
        }
    }

    pub fn as_known(&self) -> Option<i64> {
        self.terms.is_empty().then_some(self.constant)
    }

    /// `self + factor * other`; `None` where numbers overflow.
    pub fn plus(&self, other: &Linear, factor: i64) -> Option<Self> {
        let mut sum = self.clone();
        sum.constant = other.constant.checked_mul(factor)?.checked_add(sum.constant)?;
        for (element, coefficient) in &other.terms {
            let own = sum.terms.entry(*element).or_insert(0);
            *own = coefficient.checked_mul(factor)?.checked_add(*own)?;
        }
        sum.terms.retain(|_, coefficient| *coefficient != 0);
        Some(sum)
    }

    /// `self / divisor`, where nothing is left.
    pub fn divided_by(&self, divisor: i64) -> Option<Self> {
        let divides = |number: i64| divisor != 0 && number % divisor == 0;
        if !divides(self.constant) || !self.terms.values().all(|&own| divides(own)) {
            return None;
        }
        let mut quotient = self.clone();
        quotient.constant /= divisor;
        quotient.terms.values_mut().for_each(|own| *own /= divisor);
        Some(quotient)
    }

    /// The largest number that divides it, and what is left; `None` where it is zero.
    pub fn factored(&self) -> Option<(i64, Self)> {
        let mut numbers = self.terms.values().copied().chain([self.constant]);
        let factor = numbers.try_fold(0u64, |factor, number| {
            Some(common_divisor(factor, number.unsigned_abs()))
        })?;
        let factor = i64::try_from(factor).ok().filter(|&factor| factor != 0)?;
        Some((factor, self.divided_by(factor)?))
    }
}

impl Amount {
    #[expect(
        clippy::cast_precision_loss,
        reason = "limits may be rounded: numbers themselves are exact"
    )]
    pub fn known(value: i64) -> Self {
        Amount {
            low: value as f64,
            high: value as f64,
            nan: false,
            linear: Some(Linear::known(value)),
        }
    }

    /// The number, where it is known and whole.
    pub fn as_known(&self) -> Option<i64> {
        self.linear.as_ref()?.as_known()
    }

    /// The most it can be, as an extent; `None` where no limit is known.
    pub fn most(&self) -> Option<usize> {
        /// A limit of more elements than this says nothing.
        const LARGEST: f64 = 2_147_483_648.0;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is between zero and the limit"
        )]
        (!self.nan && self.high < LARGEST).then_some(self.high.max(0.0) as usize)
    }
}

/// Tells what is known of numbers in a graph under construction.
pub trait Analysis {
    /// Of each element, in row-major order; `None` where there are many.
    fn elements(&mut self, graph: &Graph, value: ValueId) -> Option<Vec<Amount>>;
}

/// An axis of which data decides how many elements there are.
#[derive(Clone, Debug)]
pub struct Counted {
    pub axis: usize,
    /// How many: one `i64`.
    pub count: ValueId,
}

/// What an expansion is given where data decides extents.
pub struct BoundedCtx<'a, 'g> {
    pub expand: ExpandCtx<'g>,
    /// Axes of operands of which that is so.
    pub counted: &'a [Vec<Counted>],
    pub analysis: &'a mut dyn Analysis,
}

/// Results of which only the first elements along some axes are there.
#[derive(Debug)]
pub struct BoundedResults {
    pub values: Vec<ValueId>,
    /// For each result the axes whose extents data decides. Elements beyond the counts are harmless: indices
    /// are within the most that there can be.
    pub counted: Vec<Vec<Counted>>,
    /// Numbers (one `i64` each) that data must keep to zero at most, or what is computed is wrong, with what that
    /// means.
    pub limits: Vec<(ValueId, String)>,
}

impl BoundedResults {
    /// One result.
    pub fn one(value: ValueId, counted: Vec<Counted>) -> Self {
        BoundedResults {
            values: vec![value],
            counted: vec![counted],
            limits: Vec::new(),
        }
    }
}

/// Tensors of the model that a value is computed from directly.
fn names_behind(graph: &Graph, value: ValueId) -> BTreeSet<String> {
    let (mut names, mut open, mut seen) = (BTreeSet::new(), vec![value], BTreeSet::new());
    while let Some(value) = open.pop() {
        let own = graph.value(value);
        match &own.source {
            Source::Weight(_) => {}
            Source::Node(node, _) if own.name.is_empty() => {
                if seen.insert(value) {
                    open.extend(graph.node(*node).operands.iter().flatten());
                }
            }
            Source::Input(_) | Source::Node(..) => {
                names.insert(own.name.clone());
            }
        }
    }
    names
}

impl<'g> Deref for BoundedCtx<'_, 'g> {
    type Target = ExpandCtx<'g>;

    fn deref(&self) -> &ExpandCtx<'g> {
        &self.expand
    }
}

impl DerefMut for BoundedCtx<'_, '_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.expand
    }
}

/// A size: its limits, and itself on the device.
#[derive(Clone, Debug)]
pub struct Size {
    pub amount: Amount,
    /// One `i64`.
    pub value: ValueId,
}

impl BoundedCtx<'_, '_> {
    /// What is known of the number `value`.
    pub fn amount(&mut self, value: ValueId) -> Amount {
        let known = self.analysis.elements(self.expand.graph, value);
        let unknown = || Amount {
            low: f64::NEG_INFINITY,
            high: f64::INFINITY,
            nan: true,
            linear: None,
        };
        known
            .and_then(|elements| elements.first().cloned())
            .unwrap_or_else(unknown)
    }

    /// A scalar `i64` with its limits; a constant where it is known.
    pub fn sized(&mut self, value: ValueId) -> Size {
        let amount = self.amount(value);
        let value = match amount.as_known() {
            Some(known) => self.integers(&[], &[known]),
            None => value,
        };
        Size { amount, value }
    }

    /// The number of elements along an axis of operand `n`.
    ///
    /// # Errors
    /// If the operand is absent.
    pub fn extent(&mut self, n: usize, axis: usize) -> Result<Size, OpError> {
        if let Some(count) = self.count_along(n, axis) {
            return Ok(self.sized(count));
        }
        let extent = self.ty(n)?.dims()[axis];
        Ok(self.known_size(signed(extent)))
    }

    pub fn known_size(&mut self, size: i64) -> Size {
        Size {
            amount: Amount::known(size),
            value: self.integers(&[], &[size]),
        }
    }

    /// The count of an axis of operand `n`, where data decides it.
    pub fn count_along(&self, n: usize, axis: usize) -> Option<ValueId> {
        let own = self.counted.get(n)?.iter().find(|own| own.axis == axis)?;
        Some(own.count)
    }

    /// Axes of operand `n` but `axis`, as axes of a result that has them in the same places.
    pub fn other_counts(&self, n: usize, axis: usize) -> Vec<Counted> {
        let own = self.counted.get(n).into_iter().flatten();
        own.filter(|own| own.axis != axis).cloned().collect()
    }

    /// An op of two sizes, of which the result is one.
    ///
    /// # Errors
    /// Never for ops of integers.
    pub fn combined(&mut self, op: &'static str, a: &Size, b: &Size) -> Result<Size, OpError> {
        let value = self.binary(op, a.value, b.value)?;
        Ok(self.sized(value))
    }

    /// The integers of attribute `name`, else of operand `n`, each as a scalar; `None` where both are absent.
    ///
    /// # Errors
    /// If the operand is no short list of integers.
    pub fn sizes(&mut self, name: &str, n: usize) -> Result<Option<Vec<Size>>, OpError> {
        let known = match (self.attrs.ints(name), self.optional(n)) {
            (Some(values), _) => Some(values.to_vec()),
            (None, None) => return Ok(None),
            (None, Some(value)) => match self.graph.weight(value) {
                Some(data) => Some(index_list(data)?),
                None => None,
            },
        };
        if let Some(known) = known {
            return Ok(Some(
                known.into_iter().map(|size| self.known_size(size)).collect(),
            ));
        }
        let value = self.value(n)?;
        let ty = self.ty(n)?;
        let (count, rank) = (ty.n_elements(), ty.rank());
        if rank > 1 || !ty.dtype.is_int() || self.counted.get(n).is_some_and(|own| !own.is_empty()) {
            return Err(OpError::HostOnly(format!(
                "operand {n} is no list of sizes: `{ty}`"
            )));
        }
        let list = self.reshape(value, &[count])?;
        let list = self.cast(list, DType::I64)?;
        let mut sizes = Vec::new();
        for position in 0..count {
            let one = self.part(list, 0, position..position + 1)?;
            let one = self.reshape(one, &[])?;
            sizes.push(self.sized(one));
        }
        Ok(Some(sizes))
    }

    /// The most that a size can be.
    ///
    /// # Errors
    /// If no limit is known: how to give one.
    pub fn most(&self, size: &Size, what: &str) -> Result<usize, OpError> {
        size.amount.most().ok_or_else(|| {
            let names = names_behind(self.graph, size.value);
            let bounds: Vec<String> = names.iter().map(|name| format!("`--bound {name}=N`")).collect();
            let bounds = if bounds.is_empty() {
                "`--bound TENSOR=N`, of the tensor that it is computed from,".to_owned()
            } else {
                bounds.join(" or ")
            };
            OpError::HostOnly(format!(
                "nothing limits {what}, which data decides; {bounds} does"
            ))
        })
    }

    /// `value`, which has the axes of operand `n`, with `otherwise` where elements of that are not there.
    ///
    /// # Errors
    /// If `otherwise` has another kind.
    pub fn masked(&mut self, value: ValueId, n: usize, otherwise: HostTensor) -> Result<ValueId, OpError> {
        let dims = self.dims_of(value);
        let counted = self.counted.get(n).cloned().unwrap_or_default();
        let otherwise = self.weight(otherwise);
        counted
            .into_iter()
            .try_fold(value, |value, Counted { axis, count }| {
                let present = self.present(dims[axis], count)?;
                let present = self.along_axis(present, axis, dims.len())?;
                self.select(present, value, otherwise)
            })
    }
}
