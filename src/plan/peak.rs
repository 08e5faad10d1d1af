//! Where a program takes most memory.

use super::arena::{lower_bound, pack};
use super::assembly::Assembly;
use super::launches::{Thrift, storage};
use super::lifetimes::Lifetime;
use crate::engine::ARENA_ALIGNMENT;
use crate::ir::TensorType;
use crate::rewrite::{FusedGraph, TensorId, TensorSource};

/// The memory of a program in the order in which it takes least.
#[derive(Clone, Debug)]
pub struct Peak {
    pub arena_bytes: usize,
    /// For each launch at which about as much is alive as at any, what of that was computed, largest first; the
    /// launches by falling bytes that are alive.
    pub launches: Vec<Vec<Computed>>,
}

/// A tensor that is neither an input nor a constant.
#[derive(Clone, Debug, PartialEq)]
pub struct Computed {
    pub name: String,
    pub ty: TensorType,
}

/// Where the program of `fused` takes most memory: launches at which at least the share `level` of that is alive.
pub fn peak(fused: &FusedGraph, level: f64) -> Peak {
    let storage = storage(fused, Thrift::Order);
    let lifetimes = storage.lifetimes(fused);
    let spans: Vec<Lifetime> = lifetimes.iter().map(|(_, own)| *own).collect();
    let alive = |step: usize| {
        let now = spans.iter().filter(|own| (own.first..=own.last).contains(&step));
        now.map(|own| own.bytes).sum::<usize>()
    };
    let most = lower_bound(&spans);
    #[expect(clippy::cast_precision_loss, reason = "a share of them needs no exact count")]
    let is_high = |bytes: usize| bytes as f64 >= level * most as f64;
    let mut steps: Vec<(usize, usize)> = (0..storage.steps.len())
        .map(|step| (alive(step), step))
        .filter(|(bytes, _)| is_high(*bytes))
        .collect();
    steps.sort_by_key(|&(bytes, step)| (usize::MAX - bytes, step));
    let computed = |step: usize| {
        let now = lifetimes
            .iter()
            .filter(|(_, own)| (own.first..=own.last).contains(&step));
        let ids = now.map(|(id, _)| *id);
        let mut ids: Vec<TensorId> = ids
            .filter(|&id| matches!(fused.tensor(id).source, TensorSource::Regions))
            .collect();
        ids.sort_by_key(|&id| (usize::MAX - fused.tensor(id).ty.n_bytes(), id));
        let own = ids.into_iter().map(|id| fused.tensor(id));
        own.map(|tensor| Computed {
            name: tensor.name.clone(),
            ty: tensor.ty.clone(),
        })
        .collect()
    };
    Peak {
        arena_bytes: pack(&spans, ARENA_ALIGNMENT).bytes,
        launches: steps.into_iter().map(|(_, step)| computed(step)).collect(),
    }
}

/// Bytes of the weights of all `graphs`, each once.
pub fn weights_bytes<'a>(graphs: impl Iterator<Item = &'a FusedGraph>) -> usize {
    let mut assembly = Assembly::new();
    for tensor in graphs.flat_map(|fused| &fused.tensors) {
        if let TensorSource::Weight(data) = &tensor.source {
            assembly.weight(data);
        }
    }
    assembly.weights_bytes()
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
        let peak = peak(&fused, 0.85);
        let wide = 64 * 1024 * 4;
        assert!(peak.arena_bytes >= wide);
        assert!(!peak.launches.is_empty());
        for tensors in &peak.launches {
            assert_eq!(tensors[0].ty.n_bytes(), wide, "{tensors:?}");
            let computed = tensors.iter().all(|tensor| tensor.name != "x0");
            assert!(computed, "an input cannot be cut");
        }
        assert!(
            peak.launches
                .iter()
                .flatten()
                .any(|tensor| tensor.name == "rows of 1024")
        );
        let weights = (64 * 96 + 96 * 1024 + 1024 * 64) * 4;
        assert_eq!(weights_bytes([&fused, &fused].into_iter()), weights);
    }
}
