//! How a graph was cut into regions, so that the same model in another shape can be cut alike without a search.
//!
//! Each shape has an e-graph of its own, so that what is equal in it was derived for it, by rules whose conditions
//! hold there. Where its net has the tensors and expressions of the other one, as most shapes have, only the choice
//! among them is taken over: every kernel is classified and measured against the limits of its template anew, and
//! costs what it costs in this shape. Attributes, types and constants are those of this shape.

use std::collections::BTreeSet;

use super::cones::{Candidate, remade};
use super::cost::DeviceRates;
use super::limits::Limits;
use super::net::{Net, NetExpr, NetSource};

/// The kernels that were chosen for a net.
#[derive(Clone, Debug)]
pub struct Cutting {
    net: Net,
    /// In an order they can run in.
    kernels: Vec<Candidate>,
}

impl Cutting {
    pub fn new(net: Net, kernels: Vec<Candidate>) -> Self {
        Cutting { net, kernels }
    }

    /// The same kernels over the net of another shape, if it has the same form and each of them may be a kernel there.
    pub fn over(&self, net: &Net, limits: &Limits, device: &DeviceRates) -> Option<Vec<Candidate>> {
        let kernels = remade(net, limits, device, &self.moved(net)?)?;
        computes_all(net, &kernels).then_some(kernels)
    }

    /// Whether both shapes have the same form and the same kernels.
    pub fn is_like(&self, other: &Cutting) -> bool {
        let same = |(a, b): (&Candidate, &Candidate)| {
            (a.root, &a.outputs, &a.inlined) == (b.root, &b.outputs, &b.inlined)
        };
        let moved = self.moved(&other.net);
        moved.is_some_and(|own| own.len() == other.kernels.len() && own.iter().zip(&other.kernels).all(same))
    }

    /// The kernels with the numbers that their expressions have in `net`; what they cost is not known there.
    fn moved(&self, net: &Net) -> Option<Vec<Candidate>> {
        let numbers = corresponding(&self.net, net)?;
        let moved = |kernel: &Candidate| {
            let inlined = kernel
                .inlined
                .iter()
                .map(|(&place, &expr)| (place, numbers[expr]));
            let own = Candidate {
                inlined: inlined.collect(),
                ..kernel.clone()
            };
            fuses_as(&self.net, kernel, net, &own).then_some(own)
        };
        self.kernels.iter().map(moved).collect()
    }
}

/// For each expression of `from` the one that takes its place in `to`, if both nets have the same tensors and as many
/// expressions of each, but for attributes, extents and the order of expressions.
fn corresponding(from: &Net, to: &Net) -> Option<Vec<usize>> {
    let counts = |net: &Net| (net.tensors.len(), net.exprs.len());
    if counts(from) != counts(to) || from.outputs != to.outputs {
        return None;
    }
    let mut numbers: Vec<Option<usize>> = vec![None; from.exprs.len()];
    let mut taken = vec![false; to.exprs.len()];
    for (own, other) in from.tensors.iter().zip(&to.tensors) {
        let is_alike = is_same_source(own.source, other.source)
            && (own.ty.dtype, own.ty.rank()) == (other.ty.dtype, other.ty.rank());
        if !is_alike || own.exprs.len() != other.exprs.len() {
            return None;
        }
        for &expr in &own.exprs {
            if numbers[expr].is_none() {
                let number = counterpart(&from.exprs[expr], to, &other.exprs, &taken)?;
                taken[number] = true;
                numbers[expr] = Some(number);
            }
        }
    }
    numbers.into_iter().collect()
}

fn is_same_source(a: NetSource, b: NetSource) -> bool {
    match (a, b) {
        (NetSource::Const(a), NetSource::Const(b)) => a.is_some() == b.is_some(),
        _ => a == b,
    }
}

/// The one of `exprs` that is `own` in the other net: the same op over the same tensors, with the same attributes if
/// there are several.
fn counterpart(own: &NetExpr, net: &Net, exprs: &[usize], taken: &[bool]) -> Option<usize> {
    let tensors = |expr: &NetExpr| -> Vec<Option<usize>> {
        let operands = expr.operands.iter();
        operands
            .map(|operand| operand.as_ref().map(|own| own.tensor))
            .collect()
    };
    let wanted = tensors(own);
    let is_it = |number: usize| {
        let other = &net.exprs[number];
        !taken[number] && (own.op, &own.results) == (other.op, &other.results) && wanted == tensors(other)
    };
    let fitting = exprs.iter().copied().filter(|&number| is_it(number));
    fitting.min_by_key(|&number| net.exprs[number].attrs != own.attrs)
}

/// Whether fuse rules allow in `to` what they allow in `from`: `own` is `kernel` over the other net.
fn fuses_as(from: &Net, kernel: &Candidate, to: &Net, own: &Candidate) -> bool {
    let all_allowed = |(&place, &expr): (&usize, &usize)| {
        let uses = from.exprs[expr].uses().zip(to.exprs[own.inlined[&place]].uses());
        uses.into_iter().all(|(before, after)| {
            let inside = kernel.inlined.get(&before.tensor);
            inside.is_none_or(|inside| {
                let is_allowed = after.inline.contains(&own.inlined[&after.tensor]);
                is_allowed || !before.inline.contains(inside)
            })
        })
    };
    kernel.inlined.iter().all(all_allowed)
}

/// Whether each kernel reads what is there by then, and all outputs are there in the end.
fn computes_all(net: &Net, kernels: &[Candidate]) -> bool {
    let mut there: BTreeSet<usize> = BTreeSet::new();
    for kernel in kernels {
        if !kernel.needs.iter().all(|need| there.contains(need)) {
            return false;
        }
        there.extend(&kernel.outputs);
    }
    let mut outputs = net.outputs.iter();
    outputs.all(|output| !net.tensors[*output].is_device() || there.contains(output))
}
