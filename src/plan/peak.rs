//! What a program takes of memory, launch by launch.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::arena::{lower_bound, pack};
use super::launches::{Thrift, storage};
use super::lifetimes::{Lifetime, padded};
use crate::engine::ARENA_ALIGNMENT;
use crate::ir::HostTensor;
use crate::rewrite::{FusedGraph, TensorId, TensorSource};

/// The memory of a program in the order in which it takes least.
#[derive(Clone, Debug)]
pub struct Usage {
    /// The most bytes that are alive at once.
    pub bytes: usize,
    /// What is alive at the end: inputs and outputs.
    pub kept_bytes: usize,
    pub steps: Vec<Step>,
    spans: Vec<Lifetime>,
}

/// A launch.
#[derive(Clone, Debug)]
pub struct Step {
    pub region: usize,
    /// Alive while it executes.
    pub bytes: usize,
    /// What of that was computed, largest first.
    pub computed: Vec<TensorId>,
}

impl Usage {
    pub fn of(fused: &FusedGraph) -> Usage {
        let storage = storage(fused, Thrift::Order);
        let lifetimes = storage.lifetimes(fused);
        let spans: Vec<Lifetime> = lifetimes.iter().map(|(_, own)| *own).collect();
        let bytes_at = |step: usize| {
            let alive = spans.iter().filter(|own| (own.first..=own.last).contains(&step));
            alive.map(|own| own.bytes).sum()
        };
        let computed = |step: usize| {
            let alive = lifetimes
                .iter()
                .filter(|(_, own)| (own.first..=own.last).contains(&step));
            let mut ids: Vec<TensorId> = alive
                .map(|(id, _)| *id)
                .filter(|&id| matches!(fused.tensor(id).source, TensorSource::Regions))
                .collect();
            ids.sort_by_key(|&id| (usize::MAX - fused.tensor(id).ty.n_bytes(), id));
            ids
        };
        let steps = storage.steps.iter().enumerate().map(|(step, &region)| Step {
            region,
            bytes: bytes_at(step),
            computed: computed(step),
        });
        Usage {
            bytes: lower_bound(&spans),
            kept_bytes: bytes_at(storage.steps.len()),
            steps: steps.collect(),
            spans,
        }
    }

    /// What the block takes that all of it is placed in.
    pub fn arena_bytes(&self) -> usize {
        pack(&self.spans, ARENA_ALIGNMENT).bytes
    }
}

/// Digests of weights that were seen.
#[derive(Default)]
pub struct WeightBytes {
    /// By the address of their bytes, which stay there.
    seen: HashMap<usize, (HostTensor, [u8; 32])>,
}

impl WeightBytes {
    /// What the weights of all `graphs` take, each once.
    pub fn of<'a>(&mut self, graphs: impl Iterator<Item = &'a FusedGraph>) -> usize {
        let mut all: HashMap<[u8; 32], usize> = HashMap::new();
        for tensor in graphs.flat_map(|fused| &fused.tensors) {
            if let TensorSource::Weight(data) = &tensor.source {
                all.insert(self.digest(data), padded(data.n_bytes()));
            }
        }
        all.into_values().sum()
    }

    fn digest(&mut self, data: &HostTensor) -> [u8; 32] {
        let address = data.address();
        match self.seen.get(&address) {
            Some((known, digest)) if known.n_bytes() == data.n_bytes() => *digest,
            _ => {
                let digest: [u8; 32] = Sha256::digest(data.bytes()).into();
                self.seen.insert(address, (data.clone(), digest));
                digest
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Attr, Attrs};
    use crate::rewrite::{DeviceRates, RuleSet, fuse};
    use crate::testing::builder::GraphBuilder;

    #[test]
    fn the_launches_around_the_widest_tensor_are_named_by_it() {
        let mut builder = GraphBuilder::new("widths", 2);
        let mut x = builder.input(&[64, 64]);
        for width in [96, 1024, 64] {
            let columns = builder.graph.ty(x).dims()[1];
            let weight = builder.weight(&[columns, width]);
            let product = builder.plain("matmul", &[x, weight]);
            x = builder.op("softmax", &[product], Attrs::new().with("axis", Attr::Int(1)));
            builder.graph.value_mut(x).name = format!("rows of {width}");
        }
        builder.output(x);
        let fused = fuse(&builder.graph, RuleSet::builtin(), DeviceRates::for_sm(90)).unwrap();
        let usage = Usage::of(&fused);
        let wide = 64 * 1024 * 4;
        assert!(usage.arena_bytes() >= usage.bytes && usage.bytes >= wide);
        assert_eq!(usage.kept_bytes, (64 * 64 + 64 * 64) * 4);
        let fullest = usage.steps.iter().filter(|step| step.bytes == usage.bytes);
        let fullest: Vec<&Step> = fullest.collect();
        assert!(!fullest.is_empty());
        for step in fullest {
            let largest = fused.tensor(step.computed[0]);
            assert_eq!(largest.ty.n_bytes(), wide, "{}", largest.name);
            let inputs = fused.inputs.iter().filter(|(_, id)| step.computed.contains(id));
            assert_eq!(inputs.count(), 0, "inputs are not computed");
        }
        let weights = (64 * 96 + 96 * 1024 + 1024 * 64) * 4;
        assert_eq!(WeightBytes::default().of([&fused, &fused].into_iter()), weights);
    }
}
