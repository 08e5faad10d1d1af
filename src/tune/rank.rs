//! How good predictions are: what the variants predicted fastest cost beside the fastest one, by
//! earlier measurements.

use rayon::prelude::*;

use super::database::{Database, Machine, Outcome};
use super::error::TuneError;
use super::problem::{Problem, distinct};
use crate::kernel::{self, Arch};

/// Variants of a kernel that a build tries unless it is told otherwise.
pub const TRIED: usize = 8;

/// The measured variants of one problem, by rising predicted time.
#[derive(Clone, Debug)]
pub struct Ranked {
    pub ops: Vec<&'static str>,
    /// Launches of it in an execution.
    pub n_launches: usize,
    pub variants: Vec<RankedVariant>,
}

#[derive(Clone, Debug)]
pub struct RankedVariant {
    /// Kernel name and knobs.
    pub name: String,
    pub predicted_us: f64,
    /// Where timing stopped early, the least that it can be.
    pub measured_us: f64,
    /// Place among all variants, those without a time among them.
    pub place: usize,
}

impl Ranked {
    /// Time of the variant predicted fastest over that of the fastest.
    pub fn loss_of_first(&self) -> f64 {
        self.loss_of(1)
    }

    /// The same of the best of the eight predicted fastest, which a build tries.
    pub fn loss_of_tried(&self) -> f64 {
        self.loss_of(TRIED)
    }

    fn loss_of(&self, n_first: usize) -> f64 {
        let fastest = |variants: &[RankedVariant]| {
            let times = variants.iter().map(|variant| variant.measured_us);
            times.fold(f64::INFINITY, f64::min)
        };
        let n_first = n_first.min(self.variants.len());
        fastest(&self.variants[..n_first]) / fastest(&self.variants)
    }
}

/// The problems of which at least two variants were measured on `machine`, in the order of the graph.
///
/// # Errors
/// If a variant cannot be printed.
pub fn rank(
    problems: &[Problem],
    arch: Arch,
    machine: &Machine,
    database: &Database,
) -> Result<Vec<Ranked>, TuneError> {
    let (distinct, numbers) = distinct(problems);
    let ranked: Vec<Ranked> = distinct
        .par_iter()
        .enumerate()
        .map(|(own, problem)| {
            Ok(Ranked {
                ops: problem.spec.ops(),
                n_launches: numbers.iter().filter(|&&n| n == own).count(),
                variants: measured_variants(problem, arch, machine, database)?,
            })
        })
        .collect::<Result<_, TuneError>>()?;
    Ok(ranked.into_iter().filter(|own| own.variants.len() > 1).collect())
}

fn measured_variants(
    problem: &Problem,
    arch: Arch,
    machine: &Machine,
    database: &Database,
) -> Result<Vec<RankedVariant>, TuneError> {
    let mut found = Vec::new();
    for (place, variant) in problem.variants(arch).iter().enumerate() {
        let source = kernel::render(&problem.spec, variant, arch)?;
        if let Some(measured_us) = database.get(machine, &source).and_then(Outcome::us) {
            found.push(RankedVariant {
                name: format!("{} {}", source.name, variant.knobs_text()),
                predicted_us: variant.predicted_us,
                measured_us,
                place,
            });
        }
    }
    Ok(found)
}
