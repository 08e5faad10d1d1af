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
