//! The program of one architecture: every region with its tactic becomes a launch.

use std::collections::{BTreeMap, HashMap};

use super::assembly::Assembly;
use super::branches::Branches;
use super::lifetimes::{Lifetime, Storage, padded, writes_boxes};
use super::{arena, order};
use crate::compile::arch_name;
use crate::engine::{
    ARENA_ALIGNMENT, Arg, Binding, Explanation, Kernel, Launch, Memory, Place, Profile, Program, Rejected,
    Resident, TensorMap,
};
use crate::ir::TensorType;
use crate::kernel::header::origins;
use crate::kernel::{Arch, Param};
use crate::rewrite::{FusedGraph, Region, TensorId, TensorSource};
use crate::tune::Tactic;

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
}

/// Orders the launches of `fused`, places its tensors, and adds what they need to `assembly`.
/// `tactics[i]` solves region `i`.
pub fn plan(
    fused: &FusedGraph,
    tactics: &[Tactic],
    arch: Arch,
    freedom: Freedom,
    assembly: &mut Assembly,
) -> Program {
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
        workspace_bytes: 0,
    };
    let (kernels, number) = planner.kernels(tactics);
    let launches = storage
        .steps
        .iter()
        .zip(branches.streams)
        .map(|(&region, stream)| planner.launch(region, &tactics[region], number[&region], stream))
        .collect();
    let profile = planner.assembly.profile(Profile {
        inputs: bindings(fused, &fused.inputs),
        outputs: bindings(fused, &fused.outputs),
    });
    Program {
        arch: arch_name(arch),
        profile,
        kernels,
        launches,
        inputs: fused.inputs.iter().map(|(_, id)| planner.place(*id)).collect(),
        outputs: fused.outputs.iter().map(|(_, id)| planner.place(*id)).collect(),
        arena_bytes: packing.bytes,
        arena_lower_bound_bytes: arena::lower_bound(&spans),
        tensors: Some(tensors),
        workspace_bytes: planner.workspace_bytes,
        kernels_wait: arch.sm >= WAITING_SM,
    }
}

/// The launches, in the order in which less memory is alive where that is worth something.
fn storage(fused: &FusedGraph, thrift: Thrift) -> Storage {
    let given = Storage::of(fused);
    if thrift == Thrift::None {
        return given;
    }
    let other = Storage::of(fused).in_order(order::least_memory(fused, &given));
    let alive = |storage: &Storage| {
        let lifetimes = storage.lifetimes(fused);
        let spans: Vec<Lifetime> = lifetimes.iter().map(|(_, own)| *own).collect();
        arena::lower_bound(&spans)
    };
    if alive(&other) < alive(&given) {
        other
    } else {
        given
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
    workspace_bytes: usize,
}

impl Planner<'_> {
    /// The distinct kernels, and which of them each launched region uses.
    fn kernels(&mut self, tactics: &[Tactic]) -> (Vec<Kernel>, HashMap<usize, usize>) {
        let mut users: Vec<Vec<usize>> = Vec::new();
        let mut known: HashMap<&str, usize> = HashMap::new();
        let mut number = HashMap::new();
        for &region in &self.storage.steps {
            let own = *known.entry(&tactics[region].source.text).or_insert_with(|| {
                users.push(Vec::new());
                users.len() - 1
            });
            users[own].push(region);
            number.insert(region, own);
        }
        let kernels = users
            .iter()
            .map(|users| self.kernel(users, &tactics[users[0]]))
            .collect();
        (kernels, number)
    }

    fn kernel(&mut self, users: &[usize], tactic: &Tactic) -> Kernel {
        let regions: Vec<&Region> = users.iter().map(|&region| &self.fused.regions[region]).collect();
        let source = &tactic.source;
        let text = format!("{}{}{}", origins(&regions), source.header, source.text);
        let resources = &tactic.cubin.resources;
        Kernel {
            name: source.name.clone(),
            template: tactic.variant.template.clone(),
            variant: tactic.variant.knobs_text(),
            cubin: self.assembly.blob(&tactic.cubin.bytes),
            ptx: None,
            source: self.assembly.blob(text.as_bytes()),
            registers: resources.registers,
            local_bytes: resources.local_bytes,
            static_smem_bytes: resources.static_smem_bytes,
        }
    }

    fn launch(&mut self, number: usize, tactic: &Tactic, kernel: usize, stream: u32) -> Launch {
        let region = &self.fused.regions[number];
        let source = &tactic.source;
        let workspace = self.workspace(source.workspace_bytes);
        let args = source
            .params
            .iter()
            .map(|param| match param {
                Param::Input(input) => Arg::Reads(self.place(region.inputs[*input])),
                Param::Output(output) => Arg::Writes(self.place(region.outputs[*output])),
                Param::Workspace => Arg::Writes(workspace),
                Param::Dim(value) => Arg::I32(*value),
                Param::TensorMap { input, view } => {
                    Arg::TensorMap(TensorMap::new(self.place(region.inputs[*input]), view))
                }
            })
            .collect();
        Launch {
            kernel,
            grid: source.launch.grid,
            block: source.launch.block,
            smem_bytes: source.launch.smem_bytes,
            args,
            stream,
            writes_boxes: writes_boxes(region),
            nodes: onnx_nodes(region),
            rules: region
                .rules
                .iter()
                .map(|rule| format!("{} ({})", rule.name, rule.place))
                .collect(),
            explanation: explanation(region),
            predicted_us: tactic.variant.predicted_us,
            measured_us: tactic.measured_us,
        }
    }

    /// A part of the workspace that no other launch touches: kernels leave counters in it.
    fn workspace(&mut self, bytes: usize) -> Place {
        let place = Place {
            memory: Memory::Workspace,
            offset: self.workspace_bytes,
            len: bytes,
        };
        self.workspace_bytes += padded(bytes);
        place
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

/// Names of the ONNX nodes of a region, each once, in order.
fn onnx_nodes(region: &Region) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in region.body.nodes.iter().flat_map(|node| &node.origin) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}
