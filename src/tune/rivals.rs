//! Variants that are nearly as fast alone as those that were chosen, by earlier measurements.

use super::database::{Database, Machine, Outcome};
use super::error::TuneError;
use super::problem::{Problem, Tactic, distinct};
use crate::compile::{self, Cache};
use crate::kernel::{self, Arch, Source, Variant};

/// Time alone, over that of the variant that was chosen, up to which another one may be faster among other launches.
const NEAR: f64 = 1.15;
/// Most of one problem.
const MOST_RIVALS: usize = 3;

/// What solves one distinct problem, and what could.
pub struct Contest {
    pub own: Tactic,
    /// By rising time.
    pub rivals: Vec<Tactic>,
    /// The problems that it is.
    pub launches: Vec<usize>,
}

/// The rivals of the variant that solves each of `problems` so far, among the `max_variants` that were tried; none if
/// one of these is not known.
///
/// # Errors
/// If a variant cannot be printed or compiled.
pub fn contests(
    problems: &[Problem],
    arch: Arch,
    (machine, database): (&Machine, &Database),
    max_variants: usize,
    cache: &Cache,
) -> Result<Option<Vec<Contest>>, TuneError> {
    let (distinct, numbers) = distinct(problems);
    let mut measured = Vec::with_capacity(distinct.len());
    for problem in distinct {
        match near_variants(problem, arch, (machine, database), max_variants)? {
            Some(near) => measured.push(near),
            None => return Ok(None),
        }
    }
    let sources = measured.iter().flatten().map(|own| own.source.clone());
    let cubins = compile::compile(&sources.collect::<Vec<_>>(), arch, cache, &|_, _| {})?;
    let mut cubins = cubins.into_iter();
    let mut tactics = |near: Vec<Near>| -> Vec<Tactic> {
        let with_cubins = near.into_iter().zip(&mut cubins);
        with_cubins
            .map(|(own, cubin)| Tactic {
                variant: own.variant,
                source: own.source,
                cubin,
                measured_us: Some(own.us),
            })
            .collect()
    };
    let contests = measured.into_iter().enumerate().map(|(number, near)| {
        let mut rivals = tactics(near);
        Contest {
            own: rivals.remove(0),
            rivals,
            launches: (0..numbers.len()).filter(|&own| numbers[own] == number).collect(),
        }
    });
    Ok(Some(contests.collect()))
}

/// A variant that was measured.
struct Near {
    variant: Variant,
    source: Source,
    us: f64,
}

/// The variant that solves `problem`, and then its rivals.
fn near_variants(
    problem: &Problem,
    arch: Arch,
    (machine, database): (&Machine, &Database),
    max_variants: usize,
) -> Result<Option<Vec<Near>>, TuneError> {
    let mut timed = Vec::new();
    for variant in problem.variants(arch).into_iter().take(max_variants.max(1)) {
        let source = kernel::render(&problem.spec, &variant, arch)?;
        if let Some(&Outcome::Timed { median_us: us, .. }) = database.get(machine, &source) {
            timed.push(Near { variant, source, us });
        }
    }
    // The incumbent is the first of all variants.
    let is_known = timed
        .first()
        .is_some_and(|own| problem.is_incumbent(&own.variant));
    if !is_known {
        return Ok(None);
    }
    let mut rivals = timed.split_off(1);
    rivals.retain(|rival| rival.us <= NEAR * timed[0].us);
    rivals.sort_by(|a, b| a.us.total_cmp(&b.us));
    rivals.truncate(MOST_RIVALS);
    timed.extend(rivals);
    Ok(Some(timed))
}
