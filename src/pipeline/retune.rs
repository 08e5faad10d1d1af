//! Other kernels for an engine, by the times of a device: from the engine alone, without its model.

use std::iter;
use std::path::Path;

use super::in_context::settled;
use super::race::{Entrant, arch_of, raced};
use super::tactics::{recorded_machine, tactics};
use super::{Observer, PipelineError, Selection, nvrtc, ptx};
use crate::cuda::Context;
use crate::engine::{self, Engine, Program, compacted};
use crate::plan;
use crate::tune::{Database, Problem, TuneError, fastest};

/// What became of one program.
#[derive(Clone, Debug, PartialEq)]
pub struct Renewal {
    pub arch: String,
    /// Index into the profiles of the engine.
    pub profile: usize,
    pub n_launches: usize,
    /// Launches that have another kernel now.
    pub n_changed: usize,
    /// Microseconds of an execution before and after, where there was something to compare.
    pub us: Option<[f64; 2]>,
}

/// The programs of `engine` that `selection` can time and whose kernels no other shapes share, each with the fastest
/// kernels, where an execution of all of
/// them together is faster by two per cent; else as it is.
///
/// # Errors
/// If the engine does not say what its kernels compute, has no program for the device, or no kernels
/// can be chosen.
pub fn retune(
    engine: &Engine,
    selection: &Selection,
    observer: &dyn Observer,
) -> Result<(Engine, Vec<Renewal>), PipelineError> {
    check_tunable(engine)?;
    let (selection, _folder) = selection.with_file();
    let selection = &selection;
    let own = programs(engine, selection)?;
    let mut tuned = engine.clone();
    let mut renewals = Vec::with_capacity(own.len());
    for &number in &own {
        let (next, renewal) = renewed(tuned, number, selection, observer)?;
        tuned = next;
        renewals.push(renewal);
    }
    let is_changed = |number: &usize| changes(engine, &tuned, *number) > 0;
    let changed: Vec<usize> = own.iter().copied().filter(is_changed).collect();
    if !changed.is_empty() {
        tuned.header.nvrtc = versions(engine, &changed)?;
        tuned = with_ptx(tuned, engine, &changed)?;
    }
    engine::validate::validate(&tuned)?;
    Ok((tuned, renewals))
}

/// Why an engine cannot be tuned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untunable {
    #[error("the engine does not say what its kernels compute: it was compiled before engines did")]
    NoTasks,
    #[error("the engine has no weights, without which it cannot be timed")]
    Stripped,
}

impl Untunable {
    /// What to do instead.
    pub fn help(self) -> &'static str {
        match self {
            Untunable::NoTasks => {
                "compile the model again, with `--tune`, or without and then `tune` the engine"
            }
            Untunable::Stripped => "give it its weights first: `refit ENGINE MODEL -o FILE`",
        }
    }
}

/// Says early, before a device is asked, what [`retune`] would refuse.
///
/// # Errors
/// If weights are missing, or what kernels compute.
pub fn check_tunable(engine: &Engine) -> Result<(), PipelineError> {
    if engine.header.stripped.is_some() {
        Err(PipelineError::Untunable(Untunable::Stripped))
    } else if engine.header.programs.iter().any(states_problems) {
        Ok(())
    } else {
        Err(PipelineError::Untunable(Untunable::NoTasks))
    }
}

fn states_problems(program: &Program) -> bool {
    program.launches.iter().all(|launch| launch.task.is_some())
}

/// Numbers of the programs that are tuned.
fn programs(engine: &Engine, selection: &Selection) -> Result<Vec<usize>, PipelineError> {
    let all = &engine.header.programs;
    let mut own = match selection {
        Selection::Predicted => (0..all.len()).collect(),
        Selection::Recorded { database, .. } => recorded_programs(all, database, engine.header.n_contexts())?,
        Selection::OnDevice { ordinal, .. } => programs_of_device(engine, *ordinal)?,
    };
    own.retain(|&number| states_problems(&all[number]));
    Ok(own)
}

/// Those that the device would execute.
fn programs_of_device(engine: &Engine, ordinal: usize) -> Result<Vec<usize>, PipelineError> {
    let context = Context::new(ordinal)?;
    let info = context.info();
    let executed = (0..engine.header.profiles.len()).filter_map(|profile| {
        let executed = engine.program_for(info.sm, profile)?;
        let mut programs = engine.header.programs.iter();
        programs.position(|program| std::ptr::eq(program, executed))
    });
    let executed: Vec<usize> = executed.collect();
    if executed.is_empty() {
        return Err(PipelineError::Tune(TuneError::OtherDevice {
            arch: engine.header.archs().join(", "),
            device: info.name.clone(),
            sm: info.sm,
        }));
    }
    Ok(executed)
}

/// Those of architectures that a file of measurements has times for.
fn recorded_programs(
    programs: &[Program],
    path: &Path,
    n_contexts: usize,
) -> Result<Vec<usize>, PipelineError> {
    let database = Database::load(path)?;
    let version = nvrtc()?.version().to_string();
    let machines = database.machines();
    let is_timed = |program: &Program| {
        let mut machines = machines.iter();
        machines.any(|machine| {
            let is_same = machine.arch == program.arch && machine.nvrtc == version;
            is_same && machine.n_contexts == n_contexts
        })
    };
    let timed: Vec<usize> = (0..programs.len())
        .filter(|&number| is_timed(&programs[number]))
        .collect();
    match (timed.first(), programs.first()) {
        (None, Some(first)) => {
            let missing = recorded_machine(&database, path, arch_of(first), n_contexts);
            Err(missing.expect_err("no machine of the file fits"))
        }
        _ => Ok(timed),
    }
}

/// `engine` with the best of what was found for one program.
fn renewed(
    engine: Engine,
    number: usize,
    selection: &Selection,
    observer: &dyn Observer,
) -> Result<(Engine, Renewal), PipelineError> {
    let before = &engine.header.programs[number];
    let arch = arch_of(before);
    let mut renewal = Renewal {
        arch: before.arch.clone(),
        profile: before.profile,
        n_launches: before.launches.len(),
        n_changed: 0,
        us: None,
    };
    let found = with_other_kernels(&engine, number, selection, observer)?;
    let found = settled(found, number, arch, selection, observer)?;
    let program = number;
    let digest = |engine: &Engine| Entrant { engine, program }.digest();
    let is_new = |other: &Engine| digest(other) != digest(&engine);
    let others = in_other_order(&found, number);
    let challengers = iter::once(found.clone()).chain(others).filter(is_new);
    let mut challengers: Vec<Engine> = challengers.collect();
    // With its times, even where no kernel is another.
    let stays = if is_new(&found) { engine.clone() } else { found };
    if challengers.is_empty() {
        return Ok((stays, renewal));
    }
    observer.stage("compare executions", 0);
    let us = raced(iter::once(&engine).chain(&challengers), number, arch, selection)?;
    let (winner, winner_us) = fastest(us.iter().copied().enumerate()).unwrap_or((0, us[0]));
    renewal.us = Some([us[0], winner_us]);
    if winner == 0 {
        return Ok((stays, renewal));
    }
    let winner = challengers.swap_remove(winner - 1);
    renewal.n_changed = changes(&engine, &winner, number);
    Ok((winner, renewal))
}

/// `engine` with the kernels that are fastest each on its own, in as much memory as it may take.
fn with_other_kernels(
    engine: &Engine,
    number: usize,
    selection: &Selection,
    observer: &dyn Observer,
) -> Result<Engine, PipelineError> {
    let arch = arch_of(&engine.header.programs[number]);
    let posed = plan::posed(engine, number)?;
    let most = engine.header.max_memory.unwrap_or(usize::MAX);
    for workspace in [true, false] {
        let problem = |own: &Problem| Problem {
            workspace: own.workspace && workspace,
            ..own.clone()
        };
        let problems: Vec<Problem> = posed.iter().map(problem).collect();
        let chosen = tactics(&problems, arch, selection, observer)?;
        let found = plan::renewed(engine, number, &chosen);
        if found.device_bytes() <= most {
            return Ok(found);
        }
    }
    Ok(engine.clone())
}

/// The engine with branches in one program as the times of its launches ask for, where it may have them, and
/// without.
fn in_other_order(engine: &Engine, number: usize) -> Vec<Engine> {
    let streams = |engine: &Engine| -> Vec<u32> {
        let launches = engine.header.programs[number].launches.iter();
        launches.map(|launch| launch.stream).collect()
    };
    let most_bytes = engine.header.max_memory.unwrap_or(usize::MAX);
    let most_streams = engine.header.max_aux_streams.unwrap_or(0);
    let branched = plan::rebranched(engine, number, most_streams);
    let branched =
        branched.filter(|other| other.device_bytes() <= most_bytes && streams(other) != streams(engine));
    branched
        .into_iter()
        .chain(on_one_stream(engine, number))
        .collect()
}

/// The engine without branches in one program; none where it has none.
fn on_one_stream(engine: &Engine, number: usize) -> Option<Engine> {
    let has_branches = |program: &Program| program.launches.iter().any(|launch| launch.stream > 0);
    has_branches(&engine.header.programs[number]).then(|| {
        let mut engine = engine.clone();
        for launch in &mut engine.header.programs[number].launches {
            launch.stream = 0;
        }
        engine
    })
}

/// Launches of a program that have another kernel in `after` than in `before`.
fn changes(before: &Engine, after: &Engine, number: usize) -> usize {
    let kernels = |engine: &Engine| -> Vec<String> {
        let program = &engine.header.programs[number];
        let cubins = program
            .launches
            .iter()
            .map(|launch| program.kernels[launch.kernel].cubin);
        cubins
            .map(|cubin| engine.header.blobs[cubin].sha256.clone())
            .collect()
    };
    let (before, after) = (kernels(before), kernels(after));
    before
        .iter()
        .zip(&after)
        .filter(|(before, after)| before != after)
        .count()
}

/// Versions of NVRTC that made the kernels, once the programs `changed` have others.
fn versions(engine: &Engine, changed: &[usize]) -> Result<String, PipelineError> {
    let (before, own) = (&engine.header.nvrtc, nvrtc()?.version().to_string());
    let is_all = changed.len() == engine.header.n_programs();
    if is_all || before.split(", ").any(|known| *known == own) {
        return Ok(own);
    }
    Ok(format!("{before}, {own}"))
}

/// PTX of what changed, for the architectures that had it.
fn with_ptx(mut tuned: Engine, before: &Engine, changed: &[usize]) -> Result<Engine, PipelineError> {
    let programs = changed.iter().map(|&number| &before.header.programs[number]);
    let had = programs.filter(|program| program.kernels.iter().any(|kernel| kernel.ptx.is_some()));
    let mut archs: Vec<_> = had.map(arch_of).collect();
    archs.sort();
    archs.dedup();
    for arch in archs {
        ptx::embed(&mut tuned, arch)?;
    }
    Ok(compacted(tuned))
}
