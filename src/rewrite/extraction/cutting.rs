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

    /// Whether the kernels for `other`, which were searched, cost no less in its shape than these do, but for
    /// `tolerance` times as much.
    pub fn serves(&self, other: &Cutting, limits: &Limits, device: &DeviceRates, tolerance: f64) -> bool {
        let kernels = self.over(&other.net, limits, device);
        kernels.is_some_and(|own| cost_us(&own) <= tolerance * cost_us(&other.kernels))
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

/// What kernels cost together.
pub fn cost_us(kernels: &[Candidate]) -> f64 {
    kernels.iter().map(|kernel| kernel.bound_us).sum()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Attr, Attrs, Graph, text};
    use crate::reference::{self, Constants};
    use crate::rewrite::{Cutter, FusedGraph, RuleSet, run_fused};
    use crate::testing::builder::{GraphBuilder, ints};

    fn cutter(constants: &Constants) -> Cutter<'_> {
        Cutter::new(RuleSet::builtin(), DeviceRates::for_sm(90), constants)
    }

    fn serves(cutting: &Cutting, other: &Cutting) -> bool {
        let limits = Limits::from_kernels(&RuleSet::builtin().kernels);
        cutting.serves(other, &limits, DeviceRates::for_sm(90), 1.001)
    }

    /// A norm, two products and a residual over so many rows, with the same weights for any of them.
    fn block(n_rows: usize) -> GraphBuilder {
        let mut g = GraphBuilder::new("block", 1);
        let x = g.input(&[2, n_rows, 16]);
        let (scale, a, b, c) = (
            g.weight(&[16]),
            g.weight(&[16, 32]),
            g.weight(&[32]),
            g.weight(&[32, 16]),
        );
        let attrs = Attrs::new()
            .with("axes", ints(&[2]))
            .with("epsilon", Attr::Float(1e-5));
        let h = g.op("standardize", &[x], attrs);
        let h = g.plain("mul", &[h, scale]);
        let h = g.plain("matmul", &[h, a]);
        let h = g.plain("add", &[h, b]);
        let h = g.plain("gelu", &[h]);
        let h = g.plain("matmul", &[h, c]);
        let h = g.plain("add", &[x, h]);
        let rows = i64::try_from(n_rows).unwrap();
        let y = g.op("reshape", &[h], Attrs::new().with("shape", ints(&[2 * rows, 16])));
        g.output(y);
        g
    }

    /// A row operator over rows of so many elements.
    fn softmax(n_columns: usize) -> Graph {
        let mut g = GraphBuilder::new("softmax", 1);
        let x = g.input(&[1, n_columns]);
        let y = g.plain("exp", &[x]);
        let y = g.op("softmax", &[y], Attrs::new().with("axis", Attr::Int(1)));
        g.output(y);
        g.graph
    }

    fn bodies(fused: &FusedGraph) -> Vec<String> {
        fused
            .regions
            .iter()
            .map(|region| text::print(&region.body))
            .collect()
    }

    #[test]
    fn another_shape_is_cut_alike_into_what_a_search_finds() {
        let constants = Constants::default();
        let cutter = cutter(&constants);
        let (_, cutting) = cutter.cut(&block(16).graph).unwrap();
        for n_rows in [17, 24, 64] {
            let mut builder = block(n_rows);
            let alike = cutter.cut_alike(&builder.graph, &[&cutting]).unwrap().unwrap();
            let (searched, own) = cutter.cut(&builder.graph).unwrap();
            assert_eq!(bodies(&alike), bodies(&searched), "{n_rows} rows");
            assert!(serves(&cutting, &own) && serves(&own, &cutting));
            let inputs = builder.inputs();
            let wanted = reference::run(&builder.graph, &inputs).unwrap();
            let found = run_fused(&alike, &inputs).unwrap();
            assert_eq!(found[0].ty(), wanted[0].ty());
            let pairs = found[0].as_slice::<f32>().iter().zip(wanted[0].as_slice::<f32>());
            for (found, wanted) in pairs {
                assert!(
                    (found - wanted).abs() <= 1e-4 * (1.0 + wanted.abs()),
                    "{found} {wanted}"
                );
            }
        }
    }

    #[test]
    fn of_several_ways_that_fit_the_cheapest_is_taken() {
        let constants = Constants::default();
        let cutter = cutter(&constants);
        let graph = block(24).graph;
        let (searched, cutting) = cutter.cut(&graph).unwrap();
        // Every op by itself.
        let alone = |(place, tensor): (usize, &super::super::net::NetTensor)| {
            let expr = *tensor.exprs.first().filter(|_| tensor.is_device())?;
            Some((place, expr))
        };
        let limits = Limits::from_kernels(&RuleSet::builtin().kernels);
        let singles = cutting.net.tensors.iter().enumerate().filter_map(alone);
        let singles: Vec<Candidate> = singles
            .map(|(place, expr)| Candidate {
                root: place,
                outputs: cutting.net.exprs[expr].results.clone(),
                inlined: std::iter::once((place, expr)).collect(),
                ..cutting.kernels[0].clone()
            })
            .collect();
        let apart = Cutting::new(cutting.net.clone(), singles);
        assert!(
            apart
                .over(&cutting.net, &limits, DeviceRates::for_sm(90))
                .is_some()
        );
        assert!(!serves(&apart, &cutting) && serves(&cutting, &apart));
        for models in [[&apart, &cutting], [&cutting, &apart]] {
            let fused = cutter.cut_alike(&graph, &models).unwrap().unwrap();
            assert_eq!(bodies(&fused), bodies(&searched));
        }
    }

    #[test]
    fn what_is_no_kernel_in_the_other_shape_is_not_taken_over() {
        let constants = Constants::default();
        let cutter = cutter(&constants);
        let (fused, cutting) = cutter.cut(&softmax(64)).unwrap();
        assert_eq!(fused.regions.len(), 1);
        // Such a row is more than a block may hold.
        let long = softmax(1 << 20);
        assert!(cutter.cut_alike(&long, &[&cutting]).unwrap().is_none());
        let (apart, own) = cutter.cut(&long).unwrap();
        assert!(apart.regions.len() > 1 && !serves(&cutting, &own));
        assert!(cutter.cut_alike(&long, &[&cutting, &own]).unwrap().is_some());
    }

    #[test]
    fn another_graph_is_not_cut_alike() {
        let constants = Constants::default();
        let cutter = cutter(&constants);
        let (_, cutting) = cutter.cut(&block(16).graph).unwrap();
        assert!(cutter.cut_alike(&softmax(64), &[&cutting]).unwrap().is_none());
        assert!(cutter.cut_alike(&block(16).graph, &[]).unwrap().is_none());
        let mut longer = block(16);
        let y = longer.graph.outputs[0];
        let z = longer.plain("relu", &[y]);
        longer.output(z);
        assert!(cutter.cut_alike(&longer.graph, &[&cutting]).unwrap().is_none());
    }

    #[test]
    fn kernels_that_read_what_is_not_there_are_no_way_to_the_outputs() {
        let constants = Constants::default();
        let (_, cutting) = cutter(&constants).cut(&block(16).graph).unwrap();
        let limits = Limits::from_kernels(&RuleSet::builtin().kernels);
        let fits = |kernels: &[Candidate]| {
            let own = Cutting::new(cutting.net.clone(), kernels.to_vec());
            own.over(&cutting.net, &limits, DeviceRates::for_sm(90)).is_some()
        };
        let all = &cutting.kernels;
        assert!(all.len() > 1 && fits(all));
        assert!(!fits(&all[1..]) && !fits(&all[..all.len() - 1]));
        let turned: Vec<Candidate> = all.iter().rev().cloned().collect();
        assert!(!fits(&turned));
    }
}
