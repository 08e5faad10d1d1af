//! Problems as engines state them, and the problems that an engine poses.

use std::collections::BTreeSet;

use super::kernels::{self, AddBlob};
use crate::engine::{self, Content, Engine, EngineError, Kernel, Launch, Memory, Placed, Task, compacted};
use crate::ir::types::checked_bytes;
use crate::ir::{Placement, TensorType};
use crate::kernel::{KernelOptions, KernelSpec};
use crate::rewrite::RegionKind;
use crate::tune::{Incumbent, Problem, Tactic};

/// `problem` as an engine states it.
pub(super) fn stated(problem: &Problem, add: AddBlob<'_>) -> engine::Problem {
    let spec = &problem.spec;
    let boxes = spec.placements.iter().map(|(&output, placement)| Placed {
        output,
        dims: placement.dims.clone(),
        starts: placement.starts.clone(),
    });
    engine::Problem {
        kind: spec.kind.name().to_owned(),
        graph: add(spec.body_text().as_bytes()),
        tf32: spec.options.tf32,
        workspace: problem.workspace,
        boxes: boxes.collect(),
    }
}

/// What each launch of program number `program` computes, with the variant that it has.
///
/// # Errors
/// If the engine does not say, or says what cannot be.
pub fn posed(engine: &Engine, program: usize) -> Result<Vec<Problem>, EngineError> {
    let program = &engine.header.programs[program];
    let specs = program.problems.iter().enumerate().map(|(number, problem)| {
        spec(engine, problem).map_err(|reason| EngineError::Invalid(format!("problem {number}: {reason}")))
    });
    let specs = specs.collect::<Result<Vec<_>, _>>()?;
    let launches = program.launches.iter().enumerate();
    let posed = launches.map(|(number, launch)| {
        let silent = || EngineError::Invalid(format!("launch {number} does not say what it computes"));
        let task = launch.task.as_ref().ok_or_else(silent)?;
        let spec = &specs[task.problem];
        check_operands(spec, task)
            .map_err(|reason| EngineError::Invalid(format!("the task of launch {number}: {reason}")))?;
        let is_weight = |(_, place): &(usize, &engine::Place)| place.memory == Memory::Weights;
        let weights = task.inputs.iter().enumerate().filter(is_weight);
        Ok(Problem {
            spec: KernelSpec {
                weights: weights.map(|(number, _)| number).collect(),
                ..spec.clone()
            },
            workspace: program.problems[task.problem].workspace,
            incumbent: Some(incumbent(&program.kernels[launch.kernel])),
        })
    });
    posed.collect()
}

fn incumbent(kernel: &Kernel) -> Incumbent {
    Incumbent {
        template: kernel.template.clone(),
        knobs: kernel.variant.clone(),
    }
}

fn spec(engine: &Engine, problem: &engine::Problem) -> Result<KernelSpec, String> {
    let text = std::str::from_utf8(&engine.blobs[problem.graph]).map_err(|error| error.to_string())?;
    let kind = RegionKind::from_name(&problem.kind);
    let placements = problem.boxes.iter().map(|placed| {
        let (dims, starts) = (placed.dims.clone(), placed.starts.clone());
        (placed.output, Placement { dims, starts })
    });
    let spec = KernelSpec {
        kind: kind.ok_or_else(|| format!("no kind of region is named `{}`", problem.kind))?,
        body: KernelSpec::parse_body(text)?,
        options: KernelOptions {
            tf32: problem.tf32,
            n_contexts: engine.header.n_contexts(),
        },
        placements: placements.collect(),
        // Operands are those of tasks.
        weights: BTreeSet::new(),
    };
    let outputs = spec.output_types();
    let fits = |(&output, placement): (&usize, &Placement)| {
        outputs.get(output).is_some_and(|ty| placement.holds(&ty.dims()))
    };
    if spec.placements.iter().all(fits) {
        Ok(spec)
    } else {
        Err("a box is not in its tensor".to_owned())
    }
}

/// Checks that operands are as many and as large as the problem's.
fn check_operands(spec: &KernelSpec, task: &Task) -> Result<(), String> {
    let fit = |types: &[TensorType], places: &[engine::Place]| {
        let mut pairs = types.iter().zip(places);
        let n_bytes = |ty: &TensorType| checked_bytes(ty.dtype, &ty.dims());
        types.len() == places.len() && pairs.all(|(ty, place)| n_bytes(ty) == Some(place.len))
    };
    let is_constant = |place: &engine::Place| place.memory == Memory::Weights;
    if !fit(&spec.input_types(), &task.inputs) || !fit(&spec.stored_types(), &task.outputs) {
        Err("its operands are not those of its problem".to_owned())
    } else if task.outputs.iter().any(is_constant) {
        Err("it writes weights".to_owned())
    } else {
        Ok(())
    }
}

/// `engine`, where `tactics[i]` solves launch `i` of program number `program`. Tensors stay where they are.
///
/// # Panics
/// If a launch says nothing of what it computes, which [`posed`] notices.
pub fn renewed(engine: &Engine, program: usize, tactics: &[Tactic]) -> Engine {
    let mut engine = engine.clone();
    let mut launches: Vec<Launch> = engine.header.programs[program].launches.clone();
    let tactics: Vec<&Tactic> = tactics.iter().collect();
    let blobs = &mut engine.blobs;
    let (kernels, workspace_bytes) = kernels::solve(&mut launches, &tactics, &mut |content| {
        blobs.push(Content::from(content.to_vec()));
        blobs.len() - 1
    });
    let own = &mut engine.header.programs[program];
    own.kernels = kernels;
    own.launches = launches;
    own.workspace_bytes = workspace_bytes;
    compacted(engine)
}
