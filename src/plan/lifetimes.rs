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
    /// For each step the first and the last one that may execute at the same time.
    windows: Vec<(usize, usize)>,
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
        Storage {
            windows: (0..steps.len()).map(|step| (step, step)).collect(),
            steps,
            owner,
        }
    }

    /// The same launches, of which some may execute at once.
    pub fn at_once(self, windows: Vec<(usize, usize)>) -> Self {
        Storage { windows, ..self }
    }

    /// For each step the earlier ones that it needs: those that write what it touches, and those that touch
    /// what it writes. Boxes of one tensor are written in any order.
    pub fn needs(&self, fused: &FusedGraph) -> Vec<Vec<usize>> {
        let owners = |ids: &[TensorId]| ids.iter().map(|&id| self.owner(id).0 as usize).collect();
        let touches = self.steps.iter().map(|&region| {
            let region = &fused.regions[region];
            Touch {
                reads: owners(&region.inputs),
                writes: owners(&region.outputs),
                writes_boxes: writes_boxes(region),
            }
        });
        needs(&touches.collect::<Vec<_>>(), fused.tensors.len())
    }

    /// The same launches in another order, which must keep that of launches on the same memory.
    pub fn in_order(self, steps: Vec<usize>) -> Self {
        Storage {
            windows: (0..steps.len()).map(|step| (step, step)).collect(),
            steps,
            ..self
        }
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
            let (begin, end) = self.windows.get(step).copied().unwrap_or((step, step));
            *span = Some(span.map_or((begin, end), |(first, last)| (first.min(begin), last.max(end))));
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

/// What a launch reads and writes, by numbers of tensors.
pub(super) struct Touch {
    pub reads: Vec<usize>,
    pub writes: Vec<usize>,
    /// Whether all that it writes are boxes of tensors.
    pub writes_boxes: bool,
}

/// For each launch the earlier ones that it needs: see [`Storage::needs`].
pub(super) fn needs(touches: &[Touch], n_tensors: usize) -> Vec<Vec<usize>> {
    let mut writers: Vec<Vec<(usize, bool)>> = vec![Vec::new(); n_tensors];
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); n_tensors];
    let needs = touches.iter().enumerate().map(|(step, touch)| {
        let mut needs = Vec::new();
        for &tensor in &touch.reads {
            needs.extend(writers[tensor].iter().map(|(writer, _)| *writer));
            readers[tensor].push(step);
        }
        for &tensor in &touch.writes {
            let others = writers[tensor]
                .iter()
                .filter(|(_, other_is_box)| !(touch.writes_boxes && *other_is_box));
            needs.extend(others.map(|(writer, _)| *writer));
            needs.extend(readers[tensor].iter().filter(|reader| **reader != step));
            writers[tensor].push((step, touch.writes_boxes));
        }
        needs.sort_unstable();
        needs.dedup();
        needs
    });
    needs.collect()
}

/// Whether all that a region writes are boxes of tensors.
pub fn writes_boxes(region: &Region) -> bool {
    (0..region.outputs.len()).all(|output| region.placements.contains_key(&output))
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

/// Bytes that weights or scratch memory take in a block of such.
pub fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ARENA_ALIGNMENT;
    use crate::ir::HostTensor;
    use crate::ops::samples::Draw;
    use crate::plan::arena;
    use crate::plan::branches::windows;
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
            let packing = arena::pack(&spans, ARENA_ALIGNMENT);
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

    /// The outputs of a program whose tensors lie where they are planned to, executed in `order`.
    fn run_in_arena(
        fused: &FusedGraph,
        storage: &Storage,
        order: &[usize],
        inputs: &[HostTensor],
    ) -> Vec<HostTensor> {
        let mut arena = Arena::of(fused, storage);
        for ((_, id), data) in fused.inputs.iter().zip(inputs) {
            arena.write(storage, *id, data);
        }
        for &step in order {
            let region = &fused.regions[storage.steps[step]];
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
        let in_turn: Vec<usize> = (0..given.steps.len()).collect();
        let (at_once, drawn) = drawn_branches(&fused, Storage::of(&fused), &mut Draw::new(7));
        for (storage, order) in [(given, &in_turn), (other, &in_turn), (at_once, &drawn)] {
            for (found, wanted) in run_in_arena(&fused, &storage, order, &inputs).iter().zip(&wanted) {
                let pairs = found.as_slice::<f32>().iter().zip(wanted.as_slice::<f32>());
                for (a, b) in pairs {
                    assert!((a - b).abs() <= 1e-4 * (1.0 + b.abs()), "{case}: {a} is not {b}");
                }
            }
        }
    }

    /// Launches on streams drawn for them, and an order in which these may pass each other.
    fn drawn_branches(fused: &FusedGraph, storage: Storage, draw: &mut Draw) -> (Storage, Vec<usize>) {
        let n_steps = storage.steps.len();
        let streams: Vec<u32> = (0..n_steps).map(|_| u32::from(draw.below(2) == 0)).collect();
        let needs = storage.needs(fused);
        let windows = windows(&needs, &streams);
        let mut order = Vec::new();
        while order.len() < n_steps {
            let may_run = |&step: &usize| {
                let before = (0..step).filter(|&other| streams[other] == streams[step]);
                let mut needs = needs[step].iter().copied().chain(before);
                !order.contains(&step) && needs.all(|need| order.contains(&need))
            };
            let open: Vec<usize> = (0..n_steps).filter(may_run).collect();
            order.push(open[draw.below(open.len())]);
        }
        (storage.at_once(windows), order)
    }

    #[test]
    fn tensors_in_boxes_are_there_from_their_writer_to_their_last_reader() {
        for seed in 0..60 {
            let n_nodes = 8 + usize::try_from(seed).unwrap() % 24;
            assert_same(joined_graph(n_nodes, seed), &format!("seed {seed}"));
        }
    }
}
