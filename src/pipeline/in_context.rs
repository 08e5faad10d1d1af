//! Kernels among others: what a launch costs its neighbours, and they it, is not in the time that it takes alone.
//!
//! For each kernel the variants that are nearly as fast alone take its place in the whole program, one at a time;
//! those that make an execution faster are then put in together.

use super::race::raced;
use super::tactics::{machine_of, recorded_machine};
use super::{Observer, PipelineError, Selection};
use crate::compile::Cache;
use crate::cuda::Context;
use crate::engine::{self, Engine};
use crate::kernel::Arch;
use crate::plan;
use crate::tune::{self, Contest, Database, Tactic, TuneError, fastest};

/// Engines that are loaded at a time, and the part of the device's memory that they take at most.
const MOST_TOGETHER: usize = 16;
const PART_OF_MEMORY: usize = 4;
/// Shares of an execution that a variant must save to be put in; what saves less is as likely noise.
const LEAST_GAINS: [f64; 2] = [0.001, 0.004];

/// `engine`, or with other kernels in program number `number` if executions of all of them are faster by two per cent.
/// A file of measurements alone decides where it knows all of these executions.
///
/// # Errors
/// If kernels do not compile, or the device reports a fault.
pub fn settled(
    engine: Engine,
    number: usize,
    arch: Arch,
    selection: &Selection,
    observer: &dyn Observer,
) -> Result<Engine, PipelineError> {
    match exchanged(&engine, number, arch, selection, observer) {
        Ok(Some(other)) => {
            engine::validate::validate(&other)?;
            Ok(other)
        }
        Ok(None) | Err(PipelineError::Tune(TuneError::CacheMiss { .. })) => Ok(engine),
        Err(error) => Err(error),
    }
}

fn exchanged(
    engine: &Engine,
    number: usize,
    arch: Arch,
    selection: &Selection,
    observer: &dyn Observer,
) -> Result<Option<Engine>, PipelineError> {
    let mut challengers = combined(engine, number, arch, selection, observer)?;
    if challengers.is_empty() {
        return Ok(None);
    }
    let entrants = std::iter::once(engine).chain(&challengers);
    let us = raced(entrants, number, arch, selection)?;
    let (place, _) = fastest(us.into_iter().enumerate()).unwrap_or_default();
    Ok((place > 0).then(|| challengers.swap_remove(place - 1)))
}

/// Engines in which all kernels are exchanged that gain by it among the others.
fn combined(
    engine: &Engine,
    number: usize,
    arch: Arch,
    selection: &Selection,
    observer: &dyn Observer,
) -> Result<Vec<Engine>, PipelineError> {
    let Some(contests) = contests(engine, number, arch, selection)? else {
        return Ok(Vec::new());
    };
    let board = Board {
        engine,
        number,
        contests: &contests,
    };
    let gains = board.gains(arch, selection, observer)?;
    let mut found: Vec<Engine> = Vec::new();
    for least in LEAST_GAINS {
        let chosen: Vec<Option<usize>> = gains
            .iter()
            .map(|best| best.and_then(|(rival, gain)| (gain > least).then_some(rival)))
            .collect();
        let is_new = |other: &Engine| found.iter().all(|own| own != other);
        if chosen.iter().any(Option::is_some) {
            found.extend(board.with(&chosen).filter(|other| is_new(other)));
        }
    }
    Ok(found)
}

/// What is known of the kernels of a program; none where there are no times, or no time left.
fn contests(
    engine: &Engine,
    number: usize,
    arch: Arch,
    selection: &Selection,
) -> Result<Option<Vec<Contest>>, PipelineError> {
    let Some((path, max_variants)) = selection.timings() else {
        return Ok(None);
    };
    if selection.is_over() {
        return Ok(None);
    }
    let database = Database::load(path)?;
    let n_contexts = engine.header.n_contexts();
    let machine = match selection {
        Selection::OnDevice { ordinal, .. } => machine_of(&*Context::new(*ordinal)?, arch, n_contexts)?,
        _ => recorded_machine(&database, path, arch, n_contexts)?,
    };
    let posed = plan::posed(engine, number)?;
    let known = (&machine, &database);
    Ok(tune::contests(
        &posed,
        arch,
        known,
        max_variants,
        &Cache::of_user(),
    )?)
}

/// A program whose kernels can be exchanged.
struct Board<'a> {
    engine: &'a Engine,
    number: usize,
    contests: &'a [Contest],
}

impl Board<'_> {
    /// For each distinct problem the rival whose place in the program saves most of an execution, and which share.
    fn gains(
        &self,
        arch: Arch,
        selection: &Selection,
        observer: &dyn Observer,
    ) -> Result<Vec<Option<(usize, f64)>>, PipelineError> {
        let all = self.contests.iter().enumerate();
        let moves: Vec<(usize, usize)> = all
            .flat_map(|(problem, contest)| (0..contest.rivals.len()).map(move |rival| (problem, rival)))
            .collect();
        let mut gains = vec![None; self.contests.len()];
        let together = (room(selection)? / self.engine.device_bytes().max(1)).clamp(2, MOST_TOGETHER) - 1;
        observer.stage("exchange kernels", moves.len());
        for (turn, moves_together) in moves.chunks(together).enumerate() {
            if selection.is_over() {
                break;
            }
            let engines: Vec<((usize, usize), Engine)> = moves_together
                .iter()
                .filter_map(|&own| Some((own, self.with(&self.alone(own))?)))
                .collect();
            let entrants = std::iter::once(self.engine).chain(engines.iter().map(|(_, engine)| engine));
            let us = raced(entrants, self.number, arch, selection)?;
            for (((problem, rival), _), own_us) in engines.iter().zip(&us[1..]) {
                let gain = 1.0 - own_us / us[0];
                let best: &mut Option<(usize, f64)> = &mut gains[*problem];
                if best.is_none_or(|(_, known)| gain > known) {
                    *best = Some((*rival, gain));
                }
            }
            observer.step(
                (turn * together + moves_together.len()).min(moves.len()),
                moves.len(),
            );
        }
        Ok(gains)
    }

    /// One exchange and no other.
    fn alone(&self, (problem, rival): (usize, usize)) -> Vec<Option<usize>> {
        let mut chosen = vec![None; self.contests.len()];
        chosen[problem] = Some(rival);
        chosen
    }

    /// The engine with the rival `chosen[i]` in the place of problem `i`, if it may take as much memory.
    fn with(&self, chosen: &[Option<usize>]) -> Option<Engine> {
        let n_launches = self.engine.header.programs[self.number].launches.len();
        let mut tactics: Vec<Option<&Tactic>> = vec![None; n_launches];
        for (contest, rival) in self.contests.iter().zip(chosen) {
            let tactic = rival.map_or(&contest.own, |rival| &contest.rivals[rival]);
            for &launch in &contest.launches {
                tactics[launch] = Some(tactic);
            }
        }
        let tactics = tactics
            .into_iter()
            .map(|own| own.expect("every launch solves a problem"));
        let engine = plan::renewed(self.engine, self.number, &tactics.cloned().collect::<Vec<_>>());
        let most = self.engine.header.max_memory.unwrap_or(usize::MAX);
        (engine.device_bytes() <= most).then_some(engine)
    }
}

/// Bytes that engines may take at a time.
fn room(selection: &Selection) -> Result<usize, PipelineError> {
    match selection {
        Selection::OnDevice { ordinal, .. } => {
            Ok(Context::new(*ordinal)?.info().memory_bytes / PART_OF_MEMORY)
        }
        // Nothing is loaded.
        Selection::Predicted | Selection::Recorded { .. } => Ok(usize::MAX),
    }
}
