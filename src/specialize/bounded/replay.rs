//! Nodes once more, with operands that reductions pass over where they are not there, and values of their own for
//! what is shortened.

use super::Lane;
use super::masks::Mask;
use crate::ir::{DType, HostTensor, Operand, Source, ValueId};
use crate::ops::evaluate::{from_values, scalar};
use crate::ops::reduce::extreme;
use crate::ops::{ExpandCtx, OpError};
use crate::specialize::walk::Walk;

impl Walk<'_> {
    /// `value` as one of which data decides the extents along `lanes`, where it is made by what was added from value
    /// number `first` on. What is there in its full extent, too, becomes a value of its own, and a constant is none
    /// any more: nothing may be computed of it before its extent is known.
    pub(super) fn shortened(
        &mut self,
        value: ValueId,
        lanes: Vec<Lane>,
        first: usize,
        origin: &[String],
    ) -> Result<ValueId, OpError> {
        let Some(&Lane { axis, span }) = lanes.first() else {
            return Ok(value);
        };
        let bounds = self.bounds.as_ref().expect("the caller looked");
        let known = bounds.axes.get(&value);
        let own = if self.target.weight(value).is_some() {
            let mask = Mask {
                operand: 0,
                axis,
                span,
                pad: 0.0,
            };
            self.masked(value, mask, origin)?
        } else if known.map_or(value.0 as usize >= first, |known| *known == lanes) {
            value
        } else {
            self.whole(value, origin)?
        };
        let bounds = self.bounds.as_mut().expect("the caller looked");
        bounds.axes.insert(own, lanes);
        Ok(own)
    }

    /// Results of nodes that were added from these numbers on, of which no constant is only as long as data says.
    pub(in crate::specialize) fn all_shortened(
        &mut self,
        results: Vec<ValueId>,
        first_node: usize,
        first: usize,
    ) -> Result<Vec<ValueId>, OpError> {
        let added = self.target.nodes[first_node..].first();
        let origin = added.map_or_else(Vec::new, |node| node.origin.clone());
        let mut all = Vec::new();
        for value in results {
            let bounds = self.bounds.as_ref().expect("the caller looked");
            let lanes = bounds.axes.get(&value).cloned().unwrap_or_default();
            all.push(self.shortened(value, lanes, first, &origin)?);
        }
        Ok(all)
    }

    /// `value` by another name.
    fn whole(&mut self, value: ValueId, origin: &[String]) -> Result<ValueId, OpError> {
        let ends = self.target.ty(value).dims();
        ExpandCtx::on(&mut self.target, origin).slice(value, &vec![0; ends.len()], &ends)
    }

    /// Takes the nodes and values from these numbers on back and adds them again, where `masks` says with
    /// operands that are masked. Gives the new values.
    pub(super) fn replay(
        &mut self,
        first_node: usize,
        first: usize,
        masks: &[&[Mask]],
    ) -> Result<Vec<ValueId>, OpError> {
        let nodes = self.target.nodes.split_off(first_node);
        let values = self.target.values.split_off(first);
        let bounds = self.bounds.as_mut().expect("the caller looked");
        bounds.amounts.forget(first);
        let mut moved: Vec<Option<ValueId>> = vec![None; values.len()];
        for (value, moved) in values.iter().zip(&mut moved) {
            if let Source::Weight(data) = &value.source {
                *moved = Some(self.target.add_weight(&value.name, data.clone()));
            }
        }
        for (node, masks) in nodes.into_iter().zip(masks) {
            let at = |value: ValueId| match (value.0 as usize).checked_sub(first) {
                Some(position) => moved[position].expect("nodes are in topological order"),
                None => value,
            };
            let mut operands: Vec<Operand> = node.operands.iter().map(|operand| operand.map(at)).collect();
            for mask in *masks {
                let operand = operands[mask.operand].expect("what is absent is not read");
                operands[mask.operand] = Some(self.masked(operand, *mask, &node.origin)?);
            }
            let results: Vec<(&str, _)> = (node.results.iter())
                .map(|result| {
                    let value = &values[result.0 as usize - first];
                    (value.name.as_str(), value.ty.clone())
                })
                .collect();
            let id = self
                .target
                .add_node(node.op, operands, node.attrs, &results, node.origin);
            self.target.nodes[id.0 as usize].rules = node.rules;
            for (old, &new) in node.results.iter().zip(&self.target.node(id).results) {
                moved[old.0 as usize - first] = Some(new);
            }
        }
        let moved = moved.into_iter().collect::<Option<Vec<ValueId>>>();
        Ok(moved.expect("every value is a weight or made by a node"))
    }

    /// `value` with a number of its own where elements along an axis are not there.
    fn masked(&mut self, value: ValueId, mask: Mask, origin: &[String]) -> Result<ValueId, OpError> {
        let (ty, count) = (self.target.ty(value).clone(), self.count_of(mask.span)?);
        let mut ctx = ExpandCtx::on(&mut self.target, origin);
        let present = ctx.present(ty.dims()[mask.axis], count)?;
        let present = ctx.along_axis(present, mask.axis, ty.rank())?;
        let pad = ctx.weight(pad(ty.dtype, mask.pad));
        ctx.select(present, value, pad)
    }
}

/// A scalar of a kind; the largest or lowest integer where the number is beyond what `f64` tells apart.
fn pad(dtype: DType, pad: f64) -> HostTensor {
    if dtype.is_float() {
        return from_values(dtype, &[], &[pad]);
    }
    if pad == 0.0 || pad == 1.0 {
        return scalar(dtype, pad);
    }
    extreme(dtype, pad > 0.0)
}
