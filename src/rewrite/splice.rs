//! Some regions of a fused graph as a graph of their own, and other regions in their place.
//!
//! Regions are as they were chosen, before joined tensors are places in memory: every tensor is written by one region.
//! A part has no hole: what is between its regions belongs to it. Its graph has the nodes of their bodies, inputs for
//! the tensors that it reads, and outputs for those that others read, so that whatever computes the same from the
//! same may take its place, and nothing else changes.

use std::collections::{BTreeMap, BTreeSet};

use super::extraction::parts::JOIN;
use super::extraction::regions::{FusedGraph, Region, Tensor, TensorId, TensorSource};
use crate::ir::{Graph, Operand, ValueId};

/// Regions of a fused graph as one graph of core ops.
#[derive(Clone, Debug)]
pub struct Part {
    pub graph: Graph,
    pub regions: BTreeSet<usize>,
    /// The tensors that inputs and outputs of the graph are.
    pub inputs: Vec<TensorId>,
    pub outputs: Vec<TensorId>,
    values: BTreeMap<TensorId, ValueId>,
}

impl Part {
    /// `regions` and what is between them.
    pub fn around(fused: &FusedGraph, regions: &BTreeSet<usize>) -> Part {
        let regions = without_holes(fused, regions);
        let mut part = Part {
            graph: Graph::new("part"),
            inputs: Vec::new(),
            outputs: Vec::new(),
            values: BTreeMap::new(),
            regions,
        };
        for &number in &part.regions.clone() {
            part.add(fused, &fused.regions[number]);
        }
        let outside = (0..fused.regions.len()).filter(|number| !part.regions.contains(number));
        let read = outside.flat_map(|number| &fused.regions[number].inputs);
        let needed: BTreeSet<TensorId> = read
            .copied()
            .chain(fused.outputs.iter().map(|(_, id)| *id))
            .collect();
        let written = part
            .regions
            .iter()
            .flat_map(|&number| &fused.regions[number].outputs);
        part.outputs = written.filter(|id| needed.contains(id)).copied().collect();
        for id in &part.outputs {
            part.graph.add_output(&fused.tensor(*id).name, part.values[id]);
        }
        part
    }

    /// What a tensor is in the graph, if the part touches it.
    pub fn value(&self, id: TensorId) -> Option<ValueId> {
        self.values.get(&id).copied()
    }

    fn add(&mut self, fused: &FusedGraph, region: &Region) {
        let body = &region.body;
        let mut known: BTreeMap<ValueId, ValueId> = BTreeMap::new();
        for (&input, &id) in body.inputs.iter().zip(&region.inputs) {
            known.insert(input, self.read(fused, id));
        }
        for node in &body.nodes {
            let operands: Vec<Operand> = node
                .operands
                .iter()
                .map(|operand| {
                    operand.map(|value| {
                        let weight = body.weight(value);
                        let graph = &mut self.graph;
                        *known.entry(value).or_insert_with(|| {
                            let data = weight.expect("values come from inputs, weights and earlier nodes");
                            graph.add_weight("", data.clone())
                        })
                    })
                })
                .collect();
            let made = self.graph.copy_node(body, node, operands);
            let made = &mut self.graph.nodes[made.0 as usize];
            if made.op == JOIN {
                made.op = "concat";
            }
            known.extend(node.results.iter().copied().zip(made.results.iter().copied()));
        }
        for (output, &id) in body.outputs.iter().zip(&region.outputs) {
            let value = known[output];
            self.graph
                .value_mut(value)
                .name
                .clone_from(&fused.tensor(id).name);
            self.values.insert(id, value);
        }
    }

    /// The value of a tensor that a region reads.
    fn read(&mut self, fused: &FusedGraph, id: TensorId) -> ValueId {
        if let Some(&known) = self.values.get(&id) {
            return known;
        }
        let Tensor { ty, name, source } = fused.tensor(id);
        let value = if let TensorSource::Weight(data) = source {
            self.graph.add_weight(name, data.clone())
        } else {
            self.inputs.push(id);
            self.graph.add_input(name, Some(ty.clone()))
        };
        self.values.insert(id, value);
        value
    }
}

/// `regions`, and those that need one of them and are needed by one.
fn without_holes(fused: &FusedGraph, regions: &BTreeSet<usize>) -> BTreeSet<usize> {
    let (Some(&first), Some(&last)) = (regions.first(), regions.last()) else {
        return BTreeSet::new();
    };
    let mut behind: BTreeSet<TensorId> = BTreeSet::new();
    let mut following: BTreeSet<usize> = BTreeSet::new();
    for number in first..=last {
        let region = &fused.regions[number];
        if regions.contains(&number) || region.inputs.iter().any(|id| behind.contains(id)) {
            behind.extend(&region.outputs);
            following.insert(number);
        }
    }
    let mut needed: BTreeSet<TensorId> = BTreeSet::new();
    let mut own = BTreeSet::new();
    for &number in following.iter().rev() {
        let region = &fused.regions[number];
        if regions.contains(&number) || region.outputs.iter().any(|id| needed.contains(id)) {
            needed.extend(&region.inputs);
            own.insert(number);
        }
    }
    own
}

/// Where a tensor of a spliced graph comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// It is one of the graph's own.
    Own(TensorId),
    /// It is inside what replaces the part of this number.
    Inside(usize),
}

/// `fused` with other regions in the place of parts that have none in common, which must compute the same, and where
/// each tensor comes from.
pub fn spliced(fused: &FusedGraph, parts: &[(&Part, &FusedGraph)]) -> (FusedGraph, Vec<Origin>) {
    let mut whole = FusedGraph {
        regions: Vec::new(),
        ..fused.clone()
    };
    let mut origins: Vec<Origin> = (0u32..)
        .take(fused.tensors.len())
        .map(|id| Origin::Own(TensorId(id)))
        .collect();
    let mut units: Vec<Vec<Region>> = Vec::new();
    for (number, (part, other)) in parts.iter().enumerate() {
        let ids = adopted(&mut whole, part, other);
        origins.resize(whole.tensors.len(), Origin::Inside(number));
        units.push(
            other
                .regions
                .iter()
                .map(|region| renumbered(region, &ids))
                .collect(),
        );
    }
    let mut places: Vec<(usize, usize)> = Vec::new();
    for (number, region) in fused.regions.iter().enumerate() {
        let part = parts.iter().position(|(part, _)| part.regions.contains(&number));
        match part {
            Some(part) if parts[part].0.regions.first() == Some(&number) => places.push((number, part)),
            Some(_) => {}
            None => {
                places.push((number, units.len()));
                units.push(vec![region.clone()]);
            }
        }
    }
    whole.regions = in_order(
        &whole,
        places
            .into_iter()
            .map(|(_, unit)| std::mem::take(&mut units[unit])),
    );
    (whole, origins)
}

/// Gives `whole` the tensors that `other` has beside those of the part that it replaces: all of its tensors by their
/// new ids.
fn adopted(whole: &mut FusedGraph, part: &Part, other: &FusedGraph) -> Vec<TensorId> {
    let ports = other.inputs.iter().zip(&part.inputs);
    let ports = ports.chain(other.outputs.iter().zip(&part.outputs));
    let known: BTreeMap<TensorId, TensorId> = ports.map(|((_, inner), outer)| (*inner, *outer)).collect();
    let mut ids = Vec::with_capacity(other.tensors.len());
    for (inner, tensor) in (0u32..).map(TensorId).zip(&other.tensors) {
        ids.push(known.get(&inner).copied().unwrap_or_else(|| {
            whole.tensors.push(tensor.clone());
            TensorId(u32::try_from(whole.tensors.len() - 1).expect("graphs have under 2^32 tensors"))
        }));
    }
    ids
}

fn renumbered(region: &Region, ids: &[TensorId]) -> Region {
    let all = |own: &[TensorId]| own.iter().map(|id| ids[id.0 as usize]).collect();
    Region {
        inputs: all(&region.inputs),
        outputs: all(&region.outputs),
        ..region.clone()
    }
}

/// The regions of all `units`, always the first unit next that has all that it reads.
fn in_order(fused: &FusedGraph, units: impl Iterator<Item = Vec<Region>>) -> Vec<Region> {
    let is_there = |id: &TensorId| !matches!(fused.tensor(*id).source, TensorSource::Regions);
    let mut known: BTreeSet<TensorId> = (0u32..)
        .take(fused.tensors.len())
        .map(TensorId)
        .filter(is_there)
        .collect();
    let mut left: Vec<Vec<Region>> = units.collect();
    let mut regions = Vec::new();
    while !left.is_empty() {
        let is_ready = |unit: &Vec<Region>| {
            let own: BTreeSet<TensorId> = unit.iter().flat_map(|region| &region.outputs).copied().collect();
            let mut read = unit.iter().flat_map(|region| &region.inputs);
            read.all(|id| known.contains(id) || own.contains(id))
        };
        let next = left
            .iter()
            .position(is_ready)
            .expect("parts without holes leave an order");
        let unit = left.remove(next);
        known.extend(unit.iter().flat_map(|region| &region.outputs));
        regions.extend(unit);
    }
    regions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{self, Constants};
    use crate::rewrite::{Cutter, DeviceRates, RuleSet, run_fused};
    use crate::testing::builder::{GraphBuilder, drawn_graph, joined_graph};

    fn cutter(constants: &Constants) -> Cutter<'_> {
        Cutter::new(RuleSet::builtin(), DeviceRates::for_sm(90), constants)
    }

    /// Parts of two neighbouring regions are fused anew: the whole computes what it did. Gives how many parts there were.
    fn assert_same_meaning(mut builder: GraphBuilder, seed: usize) -> usize {
        let inputs = builder.inputs();
        let graph = builder.graph;
        let constants = Constants::default();
        let cutter = cutter(&constants);
        let wanted = reference::run(&graph, &inputs).unwrap();
        let (fused, _) = cutter.unplaced(&graph).unwrap();
        let mut parts: Vec<Part> = Vec::new();
        for first in (seed % 3..fused.regions.len().saturating_sub(1)).step_by(3) {
            let part = Part::around(&fused, &BTreeSet::from([first, first + 1]));
            assert!(part.regions.contains(&first) && part.regions.contains(&(first + 1)));
            let is_apart = parts.iter().all(|other| other.regions.is_disjoint(&part.regions));
            if is_apart && part.regions.len() < fused.regions.len() {
                parts.push(part);
            }
        }
        let others: Vec<FusedGraph> = parts
            .iter()
            .map(|part| cutter.unplaced(&part.graph).unwrap().0)
            .collect();
        let pairs: Vec<(&Part, &FusedGraph)> = parts.iter().zip(&others).collect();
        let (whole, origins) = spliced(&fused, &pairs);
        assert_eq!(origins.len(), whole.tensors.len());
        let found = run_fused(&cutter.finished(whole), &inputs).unwrap();
        for (found, wanted) in found.iter().zip(&wanted) {
            assert_eq!(found.ty(), wanted.ty());
            let pairs = found.as_slice::<f32>().iter().zip(wanted.as_slice::<f32>());
            for (found, wanted) in pairs {
                let near = (found - wanted).abs() <= 1e-4 * (1.0 + wanted.abs());
                assert!(near, "seed {seed}: {found} is not {wanted}");
            }
        }
        parts.len()
    }

    #[test]
    fn what_computes_the_same_may_take_the_place_of_parts() {
        let mut n_parts = 0;
        for seed in 0..40 {
            let drawn = u64::try_from(seed).unwrap();
            n_parts += assert_same_meaning(drawn_graph(24, drawn), seed);
            n_parts += assert_same_meaning(joined_graph(24, drawn), seed);
        }
        assert!(n_parts > 60, "{n_parts} parts");
    }

    #[test]
    fn parts_have_no_holes() {
        // Products and softmaxes in a chain.
        let mut builder = GraphBuilder::new("hole", 1);
        let x = builder.input(&[64, 64]);
        let mut values = vec![x];
        for _ in 0..3 {
            let w = builder.weight(&[64, 64]);
            let product = builder.plain("matmul", &[values[values.len() - 1], w]);
            let axis = crate::ops::build::axis_attr(1);
            values.push(builder.op("softmax", &[product], axis));
        }
        builder.output(values[3]);
        let constants = Constants::default();
        let cutter = cutter(&constants);
        let (fused, _) = cutter.unplaced(&builder.graph).unwrap();
        let last = fused.regions.len() - 1;
        assert!(last >= 2);
        let part = Part::around(&fused, &BTreeSet::from([0, last]));
        assert_eq!(part.regions, (0..=last).collect());
        assert_eq!((part.inputs.len(), part.outputs.len()), (1, 1));
    }
}
