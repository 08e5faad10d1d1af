//! Limits that are stated for what data decides.

use super::{Count, Lane, Limit, Span};
use crate::ir::{Attr, Attrs, ValueId};
use crate::ops::bounded::Analysis;
use crate::ops::build::signed;
use crate::ops::{self, NEWEST_OPSET, OpError};
use crate::specialize::error::Problem;
use crate::specialize::scope::Known;
use crate::specialize::walk::Walk;

impl Walk<'_> {
    /// What the tensor `name` is where a limit is stated for it: axes that data decides have so many
    /// elements at most, or its integers are so large at most.
    pub(in crate::specialize) fn limited(&mut self, known: Known, name: &str) -> Known {
        let Some(stated) = self
            .bounds
            .as_mut()
            .and_then(|bounds| bounds.stated.get_mut(name))
        else {
            return known;
        };
        stated.is_found = true;
        let most = stated.most;
        let Known::Tensor(value) = known else {
            return known;
        };
        match self.limit(value, most, name) {
            Ok(value) => Known::Tensor(value),
            Err(reason) => {
                self.problems.push(Problem {
                    subject: format!("the bound {most} of `{name}`"),
                    reason,
                });
                Known::Failed
            }
        }
    }

    fn limit(&mut self, value: ValueId, most: usize, name: &str) -> Result<ValueId, OpError> {
        let bounds = self.bounds.as_ref().expect("the caller looked");
        if let Some(lanes) = bounds.axes.get(&value).cloned() {
            return self.limit_axes(value, &lanes, most, name);
        }
        let ty = self.target.ty(value).clone();
        if !ty.dtype.is_int() || self.target.weight(value).is_some() {
            return Err(OpError::invalid(format!(
                "data decides no extent of it, and it holds no integers that data decides: `{ty}`"
            )));
        }
        let bounds = self.bounds.as_mut().expect("the caller looked");
        let Some(elements) = bounds.amounts.elements(&self.target, value) else {
            return Err(OpError::invalid(format!("it is no size: `{ty}`")));
        };
        #[expect(clippy::cast_precision_loss, reason = "extents are below 2^53")]
        let limit = most as f64;
        if elements.iter().all(|element| element.high <= limit) {
            return Ok(value);
        }
        let axes: Vec<i64> = (0..signed(ty.rank())).collect();
        let to = Attrs::new().with("to", Attr::DType(crate::ir::DType::I64));
        let mut largest = self.made("cast", value, to)?;
        if !axes.is_empty() {
            largest = self.made("reduce_max", largest, Attrs::new().with("axes", Attr::Ints(axes)))?;
            largest = self.made(
                "reshape",
                largest,
                Attrs::new().with("shape", Attr::Ints(Vec::new())),
            )?;
        }
        let bounds = self.bounds.as_mut().expect("the caller looked");
        bounds
            .amounts
            .limit(&self.target, value, f64::NEG_INFINITY, limit);
        self.limit_number(largest, most, name);
        Ok(value)
    }

    /// The first `most` elements of axes that data decides.
    fn limit_axes(
        &mut self,
        value: ValueId,
        lanes: &[Lane],
        most: usize,
        name: &str,
    ) -> Result<ValueId, OpError> {
        let mut dims = self.target.ty(value).dims();
        let mut limited = Vec::new();
        for lane in lanes {
            if dims[lane.axis] <= most {
                limited.push(*lane);
                continue;
            }
            dims[lane.axis] = most;
            let count = self.count_of(lane.span)?;
            self.limit_number(count, most, name);
            limited.push(Lane {
                axis: lane.axis,
                span: self.limited_span(lane.span, count, most),
            });
        }
        let list = |numbers: Vec<usize>| Attr::Ints(numbers.into_iter().map(signed).collect());
        let attrs = Attrs::new()
            .with("starts", list(vec![0; dims.len()]))
            .with("steps", list(vec![1; dims.len()]))
            .with("ends", list(dims));
        let first = self.made("slice", value, attrs)?;
        let bounds = self.bounds.as_mut().expect("the caller looked");
        bounds.axes.insert(first, limited);
        Ok(first)
    }

    /// The same count with a lower limit.
    fn limited_span(&mut self, span: Span, count: ValueId, most: usize) -> Span {
        let bounds = self.bounds.as_mut().expect("the caller looked");
        let own = &bounds.counts[span.count];
        let known = (bounds.counts.iter()).position(|other| other.value == count && other.bound == most);
        if let Some(count) = known {
            return Span { count, factor: 1 };
        }
        let subject = own.subject.clone();
        let elements = bounds.amounts.elements(&self.target, count);
        bounds.counts.push(Count {
            value: count,
            bound: most,
            subject,
            cut: None,
            linear: elements.and_then(|elements| elements.first()?.linear.clone()),
        });
        Span {
            count: bounds.counts.len() - 1,
            factor: 1,
        }
    }

    fn limit_number(&mut self, value: ValueId, most: usize, name: &str) {
        let bounds = self.bounds.as_mut().expect("the caller looked");
        bounds.limits.push(Limit {
            value,
            most: signed(most),
            name: format!("{name}.limit"),
        });
    }

    fn made(&mut self, op: &'static str, value: ValueId, attrs: Attrs) -> Result<ValueId, OpError> {
        let made = ops::emit(
            &mut self.target,
            op,
            vec![Some(value)],
            attrs,
            1,
            NEWEST_OPSET,
            &[],
        )?;
        Ok(made[0])
    }

    /// Reports limits of tensors that are not there.
    pub(in crate::specialize) fn expect_limits(&mut self) {
        let stated = self.bounds.iter().flat_map(|bounds| &bounds.stated);
        let missing = stated.filter(|(_, stated)| !stated.is_found);
        let problems = missing.map(|(name, stated)| Problem {
            subject: format!("the bound {} of `{name}`", stated.most),
            reason: OpError::invalid("the model has no tensor of this name that is computed"),
        });
        let problems: Vec<Problem> = problems.collect();
        self.problems.extend(problems);
    }
}
