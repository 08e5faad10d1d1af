//! Branches of a program once more, from what an engine says of its launches and tensors.

use super::arena::{lower_bound, pack};
use super::branches::{Branches, Load};
use super::lifetimes::{Lifetime, Touch, needs};
use crate::engine::{ARENA_ALIGNMENT, Arg, Engine, Launch, Memory, Place, Program, Resident, arch_number};

/// `engine`, where launches of program number `program` that can run at once are on at most `most` streams
/// beside the caller's, and tensors lie where that allows it. None where that is not predicted to pay, by
/// the times of the launches.
pub fn rebranched(engine: &Engine, program: usize, most: u32) -> Option<Engine> {
    let own = &engine.header.programs[program];
    let tensors = own.tensors.as_ref()?;
    let touches: Vec<Touch> = (0..own.launches.len())
        .map(|step| touch(own, tensors, step))
        .collect::<Option<_>>()?;
    let needs = needs(&touches, tensors.len());
    let branches = Branches::of_loads(&loads(own)?, &needs, most);
    if branches.streams.iter().all(|&stream| stream == 0) {
        return None;
    }
    let spans = spans(own, tensors, &touches, &branches.windows);
    let packing = pack(&spans, ARENA_ALIGNMENT);
    let mut engine = engine.clone();
    let own = &mut engine.header.programs[program];
    move_places(own, tensors, &packing.offsets);
    for (launch, &stream) in own.launches.iter_mut().zip(&branches.streams) {
        launch.stream = stream;
    }
    let moved = tensors.iter().zip(&spans).zip(&packing.offsets);
    let mut moved: Vec<Resident> = moved
        .map(|((tensor, span), &offset)| Resident {
            tensor: tensor.tensor.clone(),
            offset,
            first: span.first,
            last: span.last,
        })
        .collect();
    moved.sort_by_key(|resident| (resident.first, resident.offset));
    own.tensors = Some(moved);
    own.arena_bytes = packing.bytes;
    own.arena_lower_bound_bytes = lower_bound(&spans);
    Some(engine)
}

/// The tensor that a place of the arena is at a step; no two overlap there.
fn tensor_at(tensors: &[Resident], place: &Place, step: usize) -> Option<usize> {
    let is_it = |tensor: &Resident| {
        tensor.is_alive(step) && tensor.offset == place.offset && tensor.n_bytes() == place.len
    };
    tensors.iter().position(is_it)
}

fn is_in_arena(place: &Place) -> bool {
    place.memory == Memory::Arena && place.len > 0
}

fn touch(program: &Program, tensors: &[Resident], step: usize) -> Option<Touch> {
    let launch = &program.launches[step];
    let task = launch.task.as_ref()?;
    let found = |places: &[Place]| -> Option<Vec<usize>> {
        let places = places.iter().filter(|place| is_in_arena(place));
        places.map(|place| tensor_at(tensors, place, step)).collect()
    };
    Some(Touch {
        reads: found(&task.inputs)?,
        writes: found(&task.outputs)?,
        writes_boxes: launch.writes_boxes,
    })
}

fn loads(program: &Program) -> Option<Vec<Load>> {
    let (sm, _) = arch_number(&program.arch)?;
    let load = |launch: &Launch| Load::of(launch.measured_us.unwrap_or(launch.predicted_us), launch.grid, sm);
    Some(program.launches.iter().map(load).collect())
}

/// Steps during which each tensor is in use: all that may execute beside those that touch it.
fn spans(
    program: &Program,
    tensors: &[Resident],
    touches: &[Touch],
    windows: &[(usize, usize)],
) -> Vec<Lifetime> {
    let end = program.launches.len();
    let mut spans: Vec<Option<(usize, usize)>> = vec![None; tensors.len()];
    let mut extend = |tensor: usize, begin: usize, end: usize| {
        let span = &mut spans[tensor];
        *span = Some(span.map_or((begin, end), |(first, last)| (first.min(begin), last.max(end))));
    };
    for (touch, &(begin, end)) in touches.iter().zip(windows) {
        for &tensor in touch.reads.iter().chain(&touch.writes) {
            extend(tensor, begin, end);
        }
    }
    let ports = [(&program.inputs, 0), (&program.outputs, end)];
    for (places, begin) in ports {
        for place in places.iter().filter(|place| is_in_arena(place)) {
            if let Some(tensor) = tensor_at(tensors, place, end) {
                extend(tensor, begin, end);
            }
        }
    }
    let spans = tensors.iter().zip(spans);
    spans
        .map(|(tensor, span)| {
            let (first, last) = span.unwrap_or((tensor.first, tensor.last));
            Lifetime {
                bytes: tensor.n_bytes(),
                first,
                last,
            }
        })
        .collect()
}

/// Writes the new offsets of tensors into all places.
fn move_places(program: &mut Program, tensors: &[Resident], offsets: &[usize]) {
    let moved = |place: &mut Place, step: usize| {
        if place.memory != Memory::Arena {
            return;
        }
        let tensor = tensor_at(tensors, place, step).filter(|_| place.len > 0);
        // What has no bytes is anywhere.
        place.offset = tensor.map_or(0, |tensor| offsets[tensor]);
    };
    for (step, launch) in program.launches.iter_mut().enumerate() {
        let task = launch.task.iter_mut();
        let places = task.flat_map(|task| task.inputs.iter_mut().chain(&mut task.outputs));
        places.for_each(|place| moved(place, step));
        for arg in &mut launch.args {
            match arg {
                Arg::Reads(place) | Arg::Writes(place) => moved(place, step),
                Arg::TensorMap(map) => moved(&mut map.place, step),
                Arg::I32(_) => {}
            }
        }
    }
    let end = program.launches.len();
    let ports = program.inputs.iter_mut().chain(&mut program.outputs);
    ports.for_each(|place| moved(place, end));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::compile::{Cubin, Resources};
    use crate::engine::validate::validate;
    use crate::kernel::{self, Arch, KernelOptions, Param, Source, Variant};
    use crate::plan::{Assembly, Freedom, Identity, Thrift, plan};
    use crate::rewrite::{DeviceRates, FusedGraph, RuleSet, fuse};
    use crate::testing::builder::joined_graph;
    use crate::tune::{Problem, Tactic};

    const ARCH: Arch = Arch {
        sm: 90,
        specific: false,
    };
    const MOST: u32 = 3;

    /// A kernel that nobody compiled, of so many microseconds, for a region.
    fn tactic(region: &crate::rewrite::Region, us: f64) -> Tactic {
        let inputs = (0..region.inputs.len()).map(Param::Input);
        Tactic {
            variant: Variant {
                template: String::new(),
                knobs: BTreeMap::new(),
                predicted_us: us,
                registers: None,
            },
            source: Source {
                name: String::new(),
                header: String::new(),
                text: "".into(),
                template: "",
                launch: kernel::Launch::in_a_row(8, 32, 0),
                params: inputs
                    .chain((0..region.outputs.len()).map(Param::Output))
                    .collect(),
                workspace_bytes: 0,
            },
            cubin: Cubin {
                bytes: Arc::default(),
                resources: Resources::default(),
            },
            measured_us: None,
        }
    }

    fn planned(fused: &FusedGraph, max_aux_streams: u32) -> Engine {
        let problem = |number: usize| Problem {
            spec: kernel::spec(fused, number, &KernelOptions::default()),
            workspace: true,
            incumbent: None,
        };
        let problems: Vec<Problem> = (0..fused.regions.len()).map(problem).collect();
        let us = (0..5).cycle().map(|number| 5.0 + f64::from(number));
        let tactics: Vec<Tactic> = fused
            .regions
            .iter()
            .zip(us)
            .map(|(region, us)| tactic(region, us))
            .collect();
        let freedom = Freedom {
            thrift: Thrift::None,
            max_aux_streams,
            states_problems: true,
        };
        let mut assembly = Assembly::new();
        let (profile, program) = plan(fused, &problems, &tactics, ARCH, freedom, &mut assembly);
        assembly.add(profile, program);
        assembly.finish(Identity::default())
    }

    fn streams(engine: &Engine) -> Vec<u32> {
        engine.header.programs[0]
            .launches
            .iter()
            .map(|launch| launch.stream)
            .collect()
    }

    /// When tensors are in use.
    fn lives(engine: &Engine) -> Vec<(String, usize, usize)> {
        let tensors = engine.header.programs[0].tensors.iter().flatten();
        let mut lives: Vec<_> = tensors
            .map(|own| (own.tensor.name.clone(), own.first, own.last))
            .collect();
        lives.sort();
        lives
    }

    #[test]
    fn an_engine_gets_the_branches_that_its_model_would_get() {
        let mut n_branched = 0;
        for seed in 0..60 {
            let n_nodes = 8 + usize::try_from(seed).unwrap() % 24;
            let graph = joined_graph(n_nodes, seed).graph;
            let fused = fuse(&graph, RuleSet::builtin(), DeviceRates::for_sm(90)).unwrap();
            let (plain, wanted) = (planned(&fused, 0), planned(&fused, MOST));
            for before in [&plain, &wanted] {
                let found = rebranched(before, 0, MOST);
                if streams(&wanted).iter().all(|&stream| stream == 0) {
                    assert_eq!(found, None, "seed {seed}");
                    continue;
                }
                let found = found.unwrap_or_else(|| panic!("seed {seed}: no branches"));
                validate(&found).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
                assert_eq!(streams(&found), streams(&wanted), "seed {seed}");
                assert_eq!(lives(&found), lives(&wanted), "seed {seed}");
                n_branched += 1;
            }
        }
        assert!(n_branched >= 20, "{n_branched}");
    }
}
