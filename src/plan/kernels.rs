//! What tactics make of launches: kernels, each once, geometry, arguments and scratch memory.

use std::collections::HashMap;

use super::lifetimes::padded;
use crate::engine::{Arg, Kernel, Launch, Memory, Place, Task, TensorMap};
use crate::kernel::Param;
use crate::kernel::header::{Origin, origins};
use crate::tune::Tactic;

/// Adds a blob and gives its number.
pub(super) type AddBlob<'a> = &'a mut dyn FnMut(&[u8]) -> usize;

/// Has `tactics[i]` solve the task of `launches[i]`. Gives the kernels, and the bytes of scratch memory of
/// all launches: no two share any, since kernels leave counters in it.
pub(super) fn solve(launches: &mut [Launch], tactics: &[&Tactic], add: AddBlob<'_>) -> (Vec<Kernel>, usize) {
    let mut users: Vec<Vec<usize>> = Vec::new();
    let mut known: HashMap<&str, usize> = HashMap::new();
    let mut workspace_bytes = 0;
    for (number, (launch, tactic)) in launches.iter_mut().zip(tactics).enumerate() {
        launch.kernel = *known.entry(&tactic.source.text).or_insert_with(|| {
            users.push(Vec::new());
            users.len() - 1
        });
        users[launch.kernel].push(number);
        let scratch = Place {
            memory: Memory::Workspace,
            offset: workspace_bytes,
            len: tactic.source.workspace_bytes,
        };
        workspace_bytes += padded(scratch.len);
        fit(launch, tactic, scratch);
    }
    let kernels = users.iter().map(|users| {
        let own: Vec<Origin<'_>> = users.iter().map(|&user| origin(&launches[user])).collect();
        kernel(&own, tactics[users[0]], add)
    });
    (kernels.collect(), workspace_bytes)
}

fn origin(launch: &Launch) -> Origin<'_> {
    Origin {
        nodes: &launch.nodes,
        rules: &launch.rules,
    }
}

fn kernel(users: &[Origin<'_>], tactic: &Tactic, add: AddBlob<'_>) -> Kernel {
    let source = &tactic.source;
    let text = format!("{}{}{}", origins(users), source.header, source.text);
    let resources = &tactic.cubin.resources;
    Kernel {
        name: source.name.clone(),
        template: tactic.variant.template.clone(),
        variant: tactic.variant.knobs_text(),
        cubin: add(&tactic.cubin.bytes),
        ptx: None,
        source: add(text.as_bytes()),
        registers: resources.registers,
        local_bytes: resources.local_bytes,
        static_smem_bytes: resources.static_smem_bytes,
    }
}

fn fit(launch: &mut Launch, tactic: &Tactic, scratch: Place) {
    let source = &tactic.source;
    let Task { inputs, outputs, .. } = launch.task.as_ref().expect("launches are solved by their tasks");
    let args = source.params.iter().map(|param| match param {
        Param::Input(input) => Arg::Reads(inputs[*input]),
        Param::Output(output) => Arg::Writes(outputs[*output]),
        Param::Workspace => Arg::Writes(scratch),
        Param::Dim(value) => Arg::I32(*value),
        Param::TensorMap { input, view } => Arg::TensorMap(TensorMap::new(inputs[*input], view)),
    });
    launch.args = args.collect();
    launch.grid = source.launch.grid;
    launch.block = source.launch.block;
    launch.smem_bytes = source.launch.smem_bytes;
    launch.predicted_us = tactic.variant.predicted_us;
    launch.measured_us = tactic.measured_us;
}
