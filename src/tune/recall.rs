//! Tactics by earlier measurements alone: the same choices that `measure` makes where it finds
//! every time in its database, without the device.

use rayon::prelude::*;

use super::choice::fastest;
use super::database::{Database, Machine};
use super::error::TuneError;
use super::problem::{Problem, Tactic, distinct};
use crate::compile::{self, Cache, Progress};
use crate::kernel::{self, Arch, Source, Variant};

/// The variant of each problem that was fastest on `machine`.
///
/// # Errors
/// If a time is missing, none of a problem's variants is right, or a kernel does not compile.
pub fn recall(
    problems: &[Problem],
    arch: Arch,
    (machine, database): (&Machine, &Database),
    max_variants: usize,
    cache: &Cache,
    progress: Progress<'_>,
) -> Result<Vec<Tactic>, TuneError> {
    let (distinct, numbers) = distinct(problems);
    let memory = Memory {
        arch,
        machine,
        database,
        max_variants,
    };
    let recalled: Vec<Recalled> = distinct
        .par_iter()
        .map(|problem| memory.of(problem))
        .collect::<Result<_, _>>()?;
    let winners = all_known(recalled, machine)?;
    let sources: Vec<Source> = winners.iter().map(|winner| winner.source.clone()).collect();
    let cubins = compile::compile(&sources, arch, cache, progress)?;
    let tactics: Vec<Tactic> = winners
        .into_iter()
        .zip(cubins)
        .map(|(winner, cubin)| Tactic {
            variant: winner.variant,
            source: winner.source,
            cubin,
            measured_us: Some(winner.us),
        })
        .collect();
    Ok(numbers.into_iter().map(|n| tactics[n].clone()).collect())
}

/// What is known of one problem.
enum Recalled {
    Winner(Box<Winner>),
    /// The kernels whose times are missing.
    Missing(Vec<String>),
}

struct Winner {
    variant: Variant,
    source: Source,
    us: f64,
}

fn all_known(recalled: Vec<Recalled>, machine: &Machine) -> Result<Vec<Winner>, TuneError> {
    let mut winners = Vec::with_capacity(recalled.len());
    let mut all_missing = Vec::new();
    for recalled in recalled {
        match recalled {
            Recalled::Winner(winner) => winners.push(*winner),
            Recalled::Missing(missing) => all_missing.extend(missing),
        }
    }
    let n_missing = all_missing.len();
    match all_missing.into_iter().next() {
        None => Ok(winners),
        Some(first) => Err(TuneError::CacheMiss {
            n_missing,
            first,
            device: machine.device.clone(),
        }),
    }
}

/// A database as it is asked.
struct Memory<'a> {
    arch: Arch,
    machine: &'a Machine,
    database: &'a Database,
    max_variants: usize,
}

impl Memory<'_> {
    fn of(&self, problem: &Problem) -> Result<Recalled, TuneError> {
        let variants = problem.variants(self.arch);
        let ops = || problem.spec.ops().join(", ");
        if variants.is_empty() {
            return Err(TuneError::NoKernel { ops: ops() });
        }
        let (likely, others) = variants.split_at(self.max_variants.min(variants.len()));
        // The others count one by one, and only where those before them are all wrong.
        let batches = std::iter::once(likely).chain(others.chunks(1));
        let mut last = String::new();
        for batch in batches {
            if let Some(recalled) = self.fastest_of(problem, batch, &mut last)? {
                return Ok(recalled);
            }
        }
        Err(TuneError::AllWrong { ops: ops(), last })
    }

    /// `None` if all of a batch are known and none is right; `last` is what was wrong.
    fn fastest_of(
        &self,
        problem: &Problem,
        batch: &[Variant],
        last: &mut String,
    ) -> Result<Option<Recalled>, TuneError> {
        let (mut timed, mut missing) = (Vec::new(), Vec::new());
        for variant in batch {
            let source = kernel::render(&problem.spec, variant, self.arch)?;
            let name = format!("{} {}", source.name, variant.knobs_text());
            match self.database.get(self.machine, &source) {
                None => missing.push(name),
                Some(outcome) => match outcome.us() {
                    Some(us) => timed.push(((variant, source), us)),
                    None => *last = format!("{name} {outcome}"),
                },
            }
        }
        if !missing.is_empty() {
            return Ok(Some(Recalled::Missing(missing)));
        }
        Ok(fastest(timed).map(|((variant, source), us)| {
            Recalled::Winner(Box::new(Winner {
                variant: variant.clone(),
                source,
                us,
            }))
        }))
    }
}
