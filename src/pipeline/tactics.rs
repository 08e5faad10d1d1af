//! The problems that regions pose, and a tactic for each as a [`Selection`] says.

use std::path::Path;

use super::{Observer, PipelineError, Selection, Settings, nvrtc, regions};
use crate::compile::{Cache, Progress, arch_name};
use crate::cuda::Context;
use crate::ir::Graph;
use crate::kernel::{self, Arch};
use crate::plan::Thrift;
use crate::rewrite::FusedGraph;
use crate::tune::{self, Database, Effort, Ledger, Machine, Problem, Tactic, TuneError};

pub(super) fn tactics(
    problems: &[Problem],
    arch: Arch,
    selection: &Selection,
    observer: &dyn Observer,
) -> Result<Vec<Tactic>, PipelineError> {
    let cache = Cache::of_user();
    let stage = format!("kernels for {}", arch_name(arch));
    observer.stage(&stage, problems.len());
    let progress = |n_done, n_steps| observer.step(n_done, n_steps);
    match selection {
        Selection::Predicted => Ok(tune::predict(problems, arch, &cache, &progress)?),
        Selection::Recorded {
            max_variants,
            database: path,
        } => {
            let database = Database::load(path)?;
            let machine = recorded_machine(&database, path, arch, n_contexts(problems))?;
            let known = (&machine, &database);
            Ok(tune::recall(
                problems,
                arch,
                known,
                *max_variants,
                &cache,
                &progress,
            )?)
        }
        Selection::OnDevice {
            ordinal,
            max_variants,
            time,
            database: path,
            until,
        } => {
            let effort = Effort {
                max_variants: *max_variants,
                time: *time,
                cold_weights: false,
                until: *until,
            };
            let database = path.as_deref();
            measured(problems, arch, *ordinal, database, effort, &progress)
        }
    }
}

pub(super) fn measured(
    problems: &[Problem],
    arch: Arch,
    ordinal: usize,
    path: Option<&Path>,
    effort: Effort,
    progress: Progress<'_>,
) -> Result<Vec<Tactic>, PipelineError> {
    let context = Context::new(ordinal)?;
    let machine = machine_of(&context, arch, n_contexts(problems))?;
    let mut database = path.map_or_else(|| Ok(Database::default()), Database::load)?;
    let effort = Effort {
        cold_weights: weights_bytes(problems) > context.info().l2_bytes,
        ..effort
    };
    let mut ledger = Ledger::new(&machine, &mut database, path);
    let cache = Cache::of_user();
    Ok(tune::measure(
        problems,
        arch,
        &context,
        &mut ledger,
        effort,
        &cache,
        progress,
    )?)
}

pub(super) fn problems(fused: &FusedGraph, settings: &Settings, thrift: Thrift) -> Vec<Problem> {
    let options = settings.kernel_options();
    let problem = |number: usize| Problem {
        spec: kernel::spec(fused, number, &options),
        workspace: thrift < Thrift::Workspace,
        incumbent: None,
    };
    (0..fused.regions.len()).map(problem).collect()
}

/// The machine of a device, with this NVRTC and so many executions at once.
pub(super) fn machine_of(context: &Context, arch: Arch, n_contexts: usize) -> Result<Machine, PipelineError> {
    let machine = Machine::new(context.info(), nvrtc()?.version().to_string(), arch);
    Ok(machine.shared_by(n_contexts))
}

/// The machine whose times in the file at `path` decide, of so many executions at once: the only one for `arch` and
/// this NVRTC, or where there are several, this one.
pub(super) fn recorded_machine(
    database: &Database,
    path: &Path,
    arch: Arch,
    n_contexts: usize,
) -> Result<Machine, PipelineError> {
    let (arch_name, nvrtc) = (arch_name(arch), nvrtc()?.version().to_string());
    let fitting: Vec<&Machine> = database
        .machines()
        .into_iter()
        .filter(|machine| machine.arch == arch_name && machine.nvrtc == nvrtc)
        .filter(|machine| machine.n_contexts == n_contexts)
        .collect();
    if let [only] = fitting[..] {
        return Ok(only.clone());
    }
    let own = Context::new(0).map_err(PipelineError::from);
    match own.and_then(|context| machine_of(&context, arch, n_contexts)) {
        Ok(own) if fitting.contains(&&own) => Ok(own),
        _ => Err(PipelineError::Tune(TuneError::CacheMachine {
            path: path.to_owned(),
            arch: if n_contexts > 1 {
                format!("{n_contexts} executions at once on {arch_name}")
            } else {
                arch_name
            },
            nvrtc,
            machines: fitting
                .iter()
                .map(|machine| format!("{} with driver {}", machine.device, machine.driver))
                .collect(),
        })),
    }
}

/// Contexts that the kernels of problems are chosen for: the same for all of a build.
pub(super) fn n_contexts(problems: &[Problem]) -> usize {
    let first = problems.first().map(|problem| problem.spec.options);
    first.unwrap_or_default().n_contexts
}

pub(super) fn weights_bytes(problems: &[Problem]) -> usize {
    let of = |problem: &Problem| {
        let types = problem.spec.input_types();
        let weights = problem.spec.weights.iter();
        weights.map(|&number| types[number].n_bytes()).sum::<usize>()
    };
    problems.iter().map(of).sum()
}

/// How the kernels of `core` are predicted beside the times in the file at `timings`.
///
/// # Errors
/// If the file cannot be read, or holds no times for `arch` and this NVRTC.
pub fn rank(
    core: &Graph,
    arch: Arch,
    settings: &Settings,
    timings: &Path,
) -> Result<Vec<tune::Ranked>, PipelineError> {
    let fused = regions(core, arch, settings)?;
    let database = Database::load(timings)?;
    let machine = recorded_machine(&database, timings, arch, settings.n_contexts)?;
    let problems = problems(&fused, settings, Thrift::default());
    Ok(tune::rank(&problems, arch, &machine, &database)?)
}
