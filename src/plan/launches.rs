//! The program of one architecture: every region with its tactic becomes a launch.

use std::collections::BTreeMap;

use super::assembly::Assembly;
use super::branches::Branches;
use super::lifetimes::{Lifetime, Storage, writes_boxes};
use super::{arena, kernels, order, tasks};
use crate::compile::arch_name;
use crate::engine::{
    ARENA_ALIGNMENT, Binding, Bound, Explanation, Launch, Limit, Memory, Place, Profile, Program, Rejected,
    Resident, Task,
};
use crate::ir::TensorType;
use crate::kernel::Arch;
use crate::kernel::header::onnx_nodes;
use crate::rewrite::{FusedGraph, Region, TensorId, TensorSource};
use crate::tune::{self, Problem, Tactic};

/// Compute capability (times ten) from which `rt_await_predecessors` of the prelude waits.
const WAITING_SM: u32 = 90;

/// What is given up for less memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thrift {
    /// Nothing: launches in the order of the regions, close to what they read.
    #[default]
    None,
    /// The order of launches, where another one keeps less alive.
    Order,
    /// Also variants that need scratch memory.
    Workspace,
}

/// What a plan may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freedom {
    pub thrift: Thrift,
    /// Most streams beside the caller's; none where memory is scarce.
    pub max_aux_streams: u32,
    /// Whether the engine states what launches compute, so that it can be tuned, and which choices lost. Where kernels
    /// are shared with other programs it does not: their launches cannot have others, and the usual shape tells the rest.
    pub states_problems: bool,
}

/// Orders the launches of `fused`, places its tensors, and adds what they need to `assembly`. Gives what it takes and
/// gives, and the program.
/// `problems[i]` is what region `i` poses, and `tactics[i]` solves it.
pub fn plan(
    fused: &FusedGraph,
    problems: &[Problem],
    tactics: &[Tactic],
    arch: Arch,
    freedom: Freedom,
    assembly: &mut Assembly,
) -> (Profile, Program) {
    let storage = storage(fused, freedom.thrift);
    let branches = match freedom.thrift {
        Thrift::None => Branches::choose(fused, &storage, tactics, arch, freedom.max_aux_streams),
        Thrift::Order | Thrift::Workspace => Branches::none(storage.steps.len()),
    };
    let storage = storage.at_once(branches.windows);
    let lifetimes = storage.lifetimes(fused);
    let spans: Vec<Lifetime> = lifetimes.iter().map(|(_, own)| *own).collect();
    let packing = arena::pack(&spans, ARENA_ALIGNMENT);
    let tensors = residents(fused, &lifetimes, &packing.offsets);
    let offsets = lifetimes
        .iter()
        .map(|(id, _)| *id)
        .zip(packing.offsets.iter().copied())
        .collect();
    let mut planner = Planner {
        fused,
        storage: &storage,
        offsets,
        assembly,
    };
    let posed = storage.steps.iter().map(|&region| &problems[region]);
    let (stated, numbers) = tune::distinct(posed);
    let steps = storage.steps.iter().zip(numbers).zip(branches.streams);
    let mut launches: Vec<Launch> = steps
        .map(|((&region, problem), stream)| planner.launch(region, problem, stream))
        .collect();
    let solved: Vec<&Tactic> = storage.steps.iter().map(|&region| &tactics[region]).collect();
    let mut add = |content: &[u8]| planner.assembly.blob(content);
    let (kernels, workspace_bytes) = kernels::solve(&mut launches, &solved, &mut add);
    let problems = if freedom.states_problems {
        let stated = stated.into_iter();
        stated.map(|problem| tasks::stated(problem, &mut add)).collect()
    } else {
        for launch in &mut launches {
            launch.task = None;
            launch.explanation.rejected.clear();
        }
        Vec::new()
    };
    let program = Program {
        arch: arch_name(arch),
        profile: 0,
        kernels,
        problems,
        launches,
        inputs: fused.inputs.iter().map(|(_, id)| planner.place(*id)).collect(),
        outputs: fused.outputs.iter().map(|(_, id)| planner.place(*id)).collect(),
        arena_bytes: packing.bytes,
        arena_lower_bound_bytes: arena::lower_bound(&spans),
        tensors: Some(tensors),
        workspace_bytes,
        kernels_wait: arch.sm >= WAITING_SM,
    };
    (profile(fused), program)
}

/// The launches, in the order in which less memory is alive where that is worth something.
pub(super) fn storage(fused: &FusedGraph, thrift: Thrift) -> Storage {
    let given = Storage::of(fused);
    if thrift == Thrift::None {
        return given;
    }
    let ordered = |steps: Vec<usize>| Storage::of(fused).in_order(steps);
    let least = ordered(order::least_memory(fused, &given));
    let late = ordered(order::as_late_as_needed(fused, &given));
    let least_late = ordered(order::as_late_as_needed(fused, &least));
    let alive = |storage: &Storage| {
        let lifetimes = storage.lifetimes(fused);
        let spans: Vec<Lifetime> = lifetimes.iter().map(|(_, own)| *own).collect();
        arena::lower_bound(&spans)
    };
    // The first of equals.
    let mut best = (alive(&given), given);
    for other in [least, late, least_late] {
        let bytes = alive(&other);
        if bytes < best.0 {
            best = (bytes, other);
        }
    }
    best.1
}

/// What `fused` takes and gives. Counts of elements are its last outputs.
fn profile(fused: &FusedGraph) -> Profile {
    let counted = fused.bounds.iter().map(|bound| bound.count);
    let first_count = counted.chain(fused.limits.iter().map(|limit| limit.count)).min();
    let (outputs, counts) = fused.outputs.split_at(first_count.unwrap_or(fused.outputs.len()));
    let bounds = fused.bounds.iter().map(|bound| Bound {
        output: bound.output,
        axis: bound.axis,
        count: bound.count - outputs.len(),
    });
    let limits = fused.limits.iter().map(|limit| Limit {
        count: limit.count - outputs.len(),
        most: limit.most,
    });
    Profile {
        inputs: bindings(fused, &fused.inputs),
        outputs: bindings(fused, outputs),
        counts: bindings(fused, counts),
        bounds: bounds.collect(),
        limits: limits.collect(),
    }
}

fn bindings(fused: &FusedGraph, ports: &[(String, TensorId)]) -> Vec<Binding> {
    let ports = ports.iter();
    ports
        .map(|(name, id)| binding(name, &fused.tensor(*id).ty))
        .collect()
}

fn binding(name: &str, ty: &TensorType) -> Binding {
    Binding {
        name: name.to_owned(),
        dtype: ty.dtype,
        dims: ty.dims(),
    }
}

/// What lies where in the arena, and when.
fn residents(fused: &FusedGraph, lifetimes: &[(TensorId, Lifetime)], offsets: &[usize]) -> Vec<Resident> {
    let resident = |((id, own), &offset): (&(TensorId, Lifetime), &usize)| {
        let tensor = fused.tensor(*id);
        Resident {
            tensor: binding(&tensor.name, &tensor.ty),
            offset,
            first: own.first,
            last: own.last,
        }
    };
    let mut residents: Vec<Resident> = lifetimes.iter().zip(offsets).map(resident).collect();
    residents.sort_by_key(|resident| (resident.first, resident.offset));
    residents
}

struct Planner<'a> {
    fused: &'a FusedGraph,
    storage: &'a Storage,
    /// Of tensors in the arena.
    offsets: BTreeMap<TensorId, usize>,
    assembly: &'a mut Assembly,
}

impl Planner<'_> {
    /// The launch of region `number`, which poses problem `problem`; its kernel is still to be chosen.
    fn launch(&mut self, number: usize, problem: usize, stream: u32) -> Launch {
        let region = &self.fused.regions[number];
        let task = Task {
            problem,
            inputs: region.inputs.iter().map(|&id| self.place(id)).collect(),
            outputs: region.outputs.iter().map(|&id| self.place(id)).collect(),
        };
        Launch {
            kernel: 0,
            grid: [1; 3],
            block: [1; 3],
            smem_bytes: 0,
            args: Vec::new(),
            task: Some(task),
            stream,
            writes_boxes: writes_boxes(region),
            told: None,
            nodes: onnx_nodes(&region.body),
            rules: region.rules.iter().map(ToString::to_string).collect(),
            explanation: explanation(region),
            predicted_us: 0.0,
            measured_us: None,
        }
    }

    fn place(&mut self, id: TensorId) -> Place {
        let owner = self.storage.owner(id);
        let tensor = self.fused.tensor(owner);
        match &tensor.source {
            TensorSource::Weight(data) => self.assembly.weight(data),
            TensorSource::Input(_) | TensorSource::Regions => Place {
                memory: Memory::Arena,
                // A tensor that no launch touches has no elements.
                offset: self.offsets.get(&owner).copied().unwrap_or(0),
                len: tensor.ty.n_bytes(),
            },
        }
    }
}

fn explanation(region: &Region) -> Explanation {
    let own = &region.explanation;
    let rejected = own.rejected.iter().map(|other| Rejected {
        without: other.without.clone(),
        with: other.with.clone(),
        rules: other.rules.clone(),
        lost_us: other.lost_us,
    });
    Explanation {
        saved_launches: own.saved_launches,
        saved_bytes: own.saved_bytes,
        rejected: rejected.collect(),
    }
}
