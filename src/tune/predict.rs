//! Tactics by analytic time, where there is no GPU to ask.

use rayon::prelude::*;

use super::error::TuneError;
use super::problem::{Problem, Tactic, distinct};
use crate::compile::{self, Cache, Cubin, Progress};
use crate::kernel::{self, Arch, Source, Variant};

/// How many variants that spill registers are passed over before the least bad is taken.
const MAX_SPILLED: usize = 3;

/// The variant of each problem that is predicted fastest, among those that compile without
/// spilling.
///
/// # Errors
/// A missing NVRTC, or a problem that no template solves.
pub fn predict(
    problems: &[Problem],
    arch: Arch,
    cache: &Cache,
    progress: Progress<'_>,
) -> Result<Vec<Tactic>, TuneError> {
    let (distinct, numbers) = distinct(problems);
    let mut searches: Vec<Search> = distinct
        .par_iter()
        .map(|problem| Search::new(problem, arch))
        .collect::<Result<_, _>>()?;
    loop {
        let open: Vec<usize> = (0..searches.len())
            .filter(|&n| searches[n].tactic.is_none())
            .collect();
        if open.is_empty() {
            break;
        }
        let sources: Vec<Source> = open
            .par_iter()
            .map(|&n| searches[n].render(distinct[n], arch))
            .collect::<Result<_, _>>()?;
        let cubins = compile::compile_each(&sources, arch, cache, progress)?;
        for ((n, source), cubin) in open.into_iter().zip(sources).zip(cubins) {
            searches[n].consider(source, cubin)?;
        }
    }
    let tactics: Vec<Tactic> = searches.into_iter().filter_map(|search| search.tactic).collect();
    Ok(numbers.into_iter().map(|n| tactics[n].clone()).collect())
}

/// The way through the variants of one problem.
struct Search {
    /// By rising predicted time.
    variants: Vec<Variant>,
    position: usize,
    /// The one that spills least so far.
    spilled: Option<Tactic>,
    tactic: Option<Tactic>,
}

impl Search {
    fn new(problem: &Problem, arch: Arch) -> Result<Self, TuneError> {
        let variants = problem.variants(arch);
        if variants.is_empty() {
            return Err(TuneError::NoKernel {
                ops: problem.spec.ops().join(", "),
            });
        }
        Ok(Search {
            variants,
            position: 0,
            spilled: None,
            tactic: None,
        })
    }

    fn render(&self, problem: &Problem, arch: Arch) -> Result<Source, TuneError> {
        Ok(kernel::render(
            &problem.spec,
            &self.variants[self.position],
            arch,
        )?)
    }

    /// Takes the compiled variant, or moves on to the next.
    fn consider(
        &mut self,
        source: Source,
        cubin: Result<Cubin, compile::CompileError>,
    ) -> Result<(), TuneError> {
        let variant = self.variants[self.position].clone();
        self.position += 1;
        let is_last = self.position == self.variants.len();
        match cubin {
            Ok(cubin) => {
                let local_bytes = cubin.resources.local_bytes;
                let tactic = Tactic {
                    variant,
                    source,
                    cubin,
                    measured_us: None,
                };
                if local_bytes == 0 {
                    self.tactic = Some(tactic);
                    return Ok(());
                }
                let least = self
                    .spilled
                    .as_ref()
                    .map_or(u32::MAX, |own| own.cubin.resources.local_bytes);
                if local_bytes < least {
                    self.spilled = Some(tactic);
                }
            }
            Err(error) if is_last && self.spilled.is_none() => return Err(error.into()),
            Err(error) => tracing::warn!("passing over a variant: {error}"),
        }
        if is_last || (self.spilled.is_some() && self.position >= MAX_SPILLED) {
            self.tactic = self.spilled.take();
        }
        Ok(())
    }
}
