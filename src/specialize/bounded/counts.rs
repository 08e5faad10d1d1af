//! Counts as values of the graph, and as its outputs.

use std::collections::BTreeMap;

use super::{Count, Span};
use crate::ir::{Attrs, BoundedAxis, CountLimit, HostTensor, Operand, Source, ValueId};
use crate::ops::bounded::{Amount, Analysis, Counted, Linear};
use crate::ops::build::signed;
use crate::ops::evaluate::from_values;
use crate::ops::{self, NEWEST_OPSET, OpError};
use crate::specialize::walk::Walk;

/// The most elements of integers that become constants where they turn out to be known.
const SMALL: usize = 64;

impl Walk<'_> {
    /// Adds an op of integers.
    pub(super) fn number(&mut self, op: &'static str, operands: &[ValueId]) -> Result<ValueId, OpError> {
        let operands = operands.iter().copied().map(Some).collect();
        let made = ops::emit(&mut self.target, op, operands, Attrs::new(), 1, NEWEST_OPSET, &[])?;
        Ok(made[0])
    }

    pub(super) fn integer(&mut self, value: i64) -> ValueId {
        self.target.add_weight("", HostTensor::from_i64(&[], &[value]))
    }

    /// A multiple of a count, as a value.
    pub(super) fn count_of(&mut self, span: Span) -> Result<ValueId, OpError> {
        let bounds = self.bounds.as_ref().expect("the caller looked");
        let count = bounds.counts[span.count].value;
        if span.factor == 1 {
            return Ok(count);
        }
        let key = (span.count, span.factor);
        if let Some(&known) = bounds.scaled.get(&key) {
            return Ok(known);
        }
        let factor = self.integer(signed(span.factor));
        let scaled = self.number("mul", &[count, factor])?;
        let bounds = self.bounds.as_mut().expect("the caller looked");
        bounds.scaled.insert(key, scaled);
        Ok(scaled)
    }

    /// For each operand the axes that data decides, and how many elements there are.
    pub(super) fn counted(&mut self, operands: &[Operand]) -> Result<Vec<Vec<Counted>>, OpError> {
        let mut all = Vec::new();
        for operand in operands {
            let bounds = self.bounds.as_ref().expect("the caller looked");
            let lanes = operand.and_then(|value| bounds.axes.get(&value).cloned());
            let mut counted = Vec::new();
            for lane in lanes.unwrap_or_default() {
                let count = self.count_of(lane.span)?;
                counted.push(Counted {
                    axis: lane.axis,
                    count,
                });
            }
            all.push(counted);
        }
        Ok(all)
    }

    /// What `value` counts, `most` elements at most: a multiple of what is counted already, or a new count.
    pub(super) fn span(&mut self, value: ValueId, most: usize, subject: &str) -> Span {
        let bounds = self.bounds.as_mut().expect("the caller looked");
        let elements = bounds.amounts.elements(&self.target, value);
        let linear = elements.and_then(|elements| elements.first()?.linear.clone());
        let known = bounds.counts.iter().enumerate().find_map(|(count, own)| {
            let factor = most
                .checked_div(own.bound)
                .filter(|factor| factor * own.bound == most)?;
            let scaled = Linear::known(0).plus(own.linear.as_ref()?, signed(factor))?;
            (Some(&scaled) == linear.as_ref()).then_some(Span { count, factor })
        });
        if let Some(known) = known {
            return known;
        }
        #[expect(clippy::cast_precision_loss, reason = "extents are below 2^53")]
        bounds.amounts.limit(&self.target, value, 0.0, most as f64);
        bounds.counts.push(Count {
            value,
            bound: most,
            subject: subject.to_owned(),
            cut: None,
            linear,
        });
        Span {
            count: bounds.counts.len() - 1,
            factor: 1,
        }
    }

    /// The count of the first `extent` elements of counted ones.
    pub(super) fn shorter(&mut self, span: Span, extent: usize) -> Result<Span, OpError> {
        let bounds = self.bounds.as_ref().expect("the caller looked");
        if bounds.bound(span) == extent {
            return Ok(span);
        }
        let cut = Some((span, extent));
        if let Some(count) = bounds.counts.iter().position(|count| count.cut == cut) {
            return Ok(Span { count, factor: 1 });
        }
        let subject = bounds.counts[span.count].subject.clone();
        let operands = [self.count_of(span)?, self.integer(signed(extent))];
        let least = self.number("min", &operands)?;
        let short = self.span(least, extent, &subject);
        let bounds = self.bounds.as_mut().expect("the caller looked");
        let own = &mut bounds.counts[short.count];
        if own.value == least {
            own.cut = cut;
        }
        Ok(short)
    }

    /// Makes constants of small integers that turn out to be known, of values from number `first` on.
    pub(in crate::specialize) fn fold_known(&mut self, first: usize) {
        let Some(bounds) = self.bounds.as_mut() else {
            return;
        };
        for number in first..self.target.values.len() {
            let id = super::lanes::value(number);
            let value = self.target.value(id);
            let Some(ty) = value.ty.clone() else { continue };
            if ty.dtype.is_float() || ty.n_elements() > SMALL || !matches!(value.source, Source::Node(..)) {
                continue;
            }
            let elements = bounds.amounts.elements(&self.target, id).unwrap_or_default();
            let known: Option<Vec<i64>> = elements.iter().map(Amount::as_known).collect();
            if let Some(known) = known
                && known.len() == ty.n_elements()
                && !bounds.axes.contains_key(&id)
            {
                let data = from_values(ty.dtype, &ty.dims(), &known);
                self.target.value_mut(id).source = Source::Weight(data);
            }
        }
    }

    /// Lists counts behind the outputs whose extents they decide, and what must be kept below a limit.
    pub(in crate::specialize) fn add_counts(&mut self) -> Result<(), OpError> {
        let Some(bounds) = self.bounds.as_mut() else {
            return Ok(());
        };
        let limits = std::mem::take(&mut bounds.limits);
        let axes = std::mem::take(&mut bounds.axes);
        let outputs = self.target.outputs.clone();
        let mut listed: BTreeMap<ValueId, usize> = BTreeMap::new();
        for (output, value) in outputs.into_iter().enumerate() {
            for lane in axes.get(&value).into_iter().flatten() {
                let count = self.count_of(lane.span)?;
                let target = &mut self.target;
                let position = *listed.entry(count).or_insert_with(|| {
                    let name = format!("{}.count", target.output_names[output]);
                    target.add_output(&name, count);
                    target.outputs.len() - 1
                });
                target.bounds.push(BoundedAxis {
                    output,
                    axis: lane.axis,
                    count: position,
                });
            }
        }
        for limit in limits {
            // What is constant by now was within its limit when it was made.
            if self.target.weight(limit.value).is_some() {
                continue;
            }
            let target = &mut self.target;
            let count = *listed.entry(limit.value).or_insert_with(|| {
                target.add_output(&limit.name, limit.value);
                target.outputs.len() - 1
            });
            target.limits.push(CountLimit {
                count,
                most: limit.most,
            });
        }
        self.bounds = None;
        Ok(())
    }
}
