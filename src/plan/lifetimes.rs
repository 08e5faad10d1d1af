//! When each tensor of a program is alive, and which tensors are one piece of memory.

use crate::engine::ALIGNMENT;
use crate::rewrite::{FusedGraph, Region, TensorId, TensorSource};

/// The steps, first and last included, during which bytes must not be overwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    pub bytes: usize,
    pub first: usize,
    pub last: usize,
}

impl Lifetime {
    /// Whether both are alive at some step.
    pub fn meets(&self, other: &Lifetime) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Which regions run, and which tensor's memory each tensor uses.
pub struct Storage {
    /// Regions that are launched, in order.
    pub steps: Vec<usize>,
    /// For each tensor the one whose memory it is; most are their own.
    owner: Vec<TensorId>,
}

impl Storage {
    /// Regions that only relabel their operand's elements are not launched: their result is
    /// their operand's memory. Nor are regions without elements.
    pub fn of(fused: &FusedGraph) -> Self {
        let mut owner: Vec<TensorId> = (0u32..).take(fused.tensors.len()).map(TensorId).collect();
        let mut steps = Vec::new();
        for (number, region) in fused.regions.iter().enumerate() {
            if let Some((input, output)) = relabelled(fused, region) {
                owner[output.0 as usize] = owner[input.0 as usize];
            } else if region
                .outputs
                .iter()
                .any(|&id| fused.tensor(id).ty.n_elements() > 0)
            {
                steps.push(number);
            }
        }
        Storage { steps, owner }
    }

    /// The same launches in another order, which must keep that of launches on the same memory.
    pub fn in_order(self, steps: Vec<usize>) -> Self {
        Storage { steps, ..self }
    }

    pub fn owner(&self, id: TensorId) -> TensorId {
        self.owner[id.0 as usize]
    }

    /// Lifetimes of the tensors in the arena, with their owners, by rising id. Inputs and
    /// outputs live from the first step to the last, so that a recorded program can be
    /// replayed on inputs that were written once.
    pub fn lifetimes(&self, fused: &FusedGraph) -> Vec<(TensorId, Lifetime)> {
        let mut spans: Vec<Option<(usize, usize)>> = vec![None; fused.tensors.len()];
        let mut touch = |id: TensorId, step: usize| {
            let span = &mut spans[self.owner(id).0 as usize];
            *span = Some(span.map_or((step, step), |(first, last)| (first.min(step), last.max(step))));
        };
        let end = self.steps.len();
        for (step, &region) in self.steps.iter().enumerate() {
            let region = &fused.regions[region];
            for &id in region.inputs.iter().chain(&region.outputs) {
                touch(id, step);
            }
        }
        for (_, id) in &fused.inputs {
            touch(*id, 0);
            touch(*id, end);
        }
        for (_, id) in &fused.outputs {
            touch(*id, end);
        }
        let ids = (0u32..).map(TensorId).zip(spans);
        ids.filter_map(|(id, span)| {
            let (first, last) = span?;
            let tensor = fused.tensor(id);
            if matches!(tensor.source, TensorSource::Weight(_)) {
                return None;
            }
            let bytes = tensor.ty.n_bytes();
            Some((id, Lifetime { bytes, first, last }))
        })
        .collect()
    }
}

/// Operand and result of a region that moves nothing.
fn relabelled(fused: &FusedGraph, region: &Region) -> Option<(TensorId, TensorId)> {
    let (&[input], &[output]) = (region.inputs.as_slice(), region.outputs.as_slice()) else {
        return None;
    };
    let moves_nothing = !region.body.nodes.is_empty()
        && region.body.nodes.iter().all(|node| node.op == "reshape")
        && fused.tensor(input).ty.n_bytes() == fused.tensor(output).ty.n_bytes();
    moves_nothing.then_some((input, output))
}

/// Bytes that a tensor takes in a block of tensors.
pub fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::HostTensor;
    use crate::plan::arena;
    use crate::plan::order::least_memory;
    use crate::reference;
    use crate::rewrite::{DeviceRates, RuleSet, fuse};
    use crate::testing::builder::{GraphBuilder, joined_graph};

    /// The arena's bytes, and where each tensor begins in them.
    struct Arena {
        bytes: Vec<u8>,
        offsets: std::collections::BTreeMap<TensorId, usize>,
    }

    impl Arena {
        fn of(fused: &FusedGraph, storage: &Storage) -> Arena {
            let lifetimes = storage.lifetimes(fused);
            let spans: Vec<Lifetime> = lifetimes.iter().map(|(_, own)| *own).collect();
            let packing = arena::pack(&spans, ALIGNMENT);
            let ids = lifetimes.iter().map(|(id, _)| *id);
            Arena {
                bytes: vec![0xff; packing.bytes],
                offsets: ids.zip(packing.offsets).collect(),
            }
        }

        fn read(&self, fused: &FusedGraph, storage: &Storage, id: TensorId) -> HostTensor {
            let ty = &fused.tensor(id).ty;
            let owner = storage.owner(id);
            if let TensorSource::Weight(data) = &fused.tensor(owner).source {
                return data.reshaped(&ty.dims());
            }
            let start = self.offsets[&owner];
            HostTensor::from_bytes(ty.dtype, &ty.dims(), &self.bytes[start..start + ty.n_bytes()]).unwrap()
        }

        fn write(&mut self, storage: &Storage, id: TensorId, data: &HostTensor) {
            let start = self.offsets[&storage.owner(id)];
            self.bytes[start..start + data.n_bytes()].copy_from_slice(data.bytes());
        }
    }

    /// The outputs of a program whose tensors lie where they are planned to.
    fn run_in_arena(fused: &FusedGraph, storage: &Storage, inputs: &[HostTensor]) -> Vec<HostTensor> {
        let mut arena = Arena::of(fused, storage);
        for ((_, id), data) in fused.inputs.iter().zip(inputs) {
            arena.write(storage, *id, data);
        }
        for &number in &storage.steps {
            let region = &fused.regions[number];
            let reads = region.inputs.iter();
            let operands: Vec<HostTensor> = reads.map(|&id| arena.read(fused, storage, id)).collect();
            let results = reference::run(&region.body, &operands).unwrap();
            for (output, (result, &id)) in results.into_iter().zip(&region.outputs).enumerate() {
                let mut whole = arena.read(fused, storage, id);
                match region.placements.get(&output) {
                    Some(placement) => placement.paste(&result, &mut whole),
                    None => whole = result,
                }
                arena.write(storage, id, &whole);
            }
        }
        let outputs = fused.outputs.iter();
        outputs.map(|(_, id)| arena.read(fused, storage, *id)).collect()
    }

    fn assert_same(mut builder: GraphBuilder, case: &str) {
        let fused = fuse(&builder.graph, RuleSet::builtin(), DeviceRates::for_sm(90)).unwrap();
        let inputs = builder.inputs();
        let wanted = reference::run(&builder.graph, &inputs).unwrap();
        let given = Storage::of(&fused);
        let other = Storage::of(&fused).in_order(least_memory(&fused, &given));
        for storage in [given, other] {
            for (found, wanted) in run_in_arena(&fused, &storage, &inputs).iter().zip(&wanted) {
                let pairs = found.as_slice::<f32>().iter().zip(wanted.as_slice::<f32>());
                for (a, b) in pairs {
                    assert!((a - b).abs() <= 1e-4 * (1.0 + b.abs()), "{case}: {a} is not {b}");
                }
            }
        }
    }

    #[test]
    fn tensors_in_boxes_are_there_from_their_writer_to_their_last_reader() {
        for seed in 0..60 {
            let n_nodes = 8 + usize::try_from(seed).unwrap() % 24;
            assert_same(joined_graph(n_nodes, seed), &format!("seed {seed}"));
        }
    }
}
