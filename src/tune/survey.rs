//! Every variant of one problem, on the device: which are right. For tests; a build stops at
//! the first right one or times them.

use std::sync::Arc;

use rayon::prelude::*;

use super::error::TuneError;
use super::lab::{Data, Lab};
use super::problem::{Problem, Tactic};
use crate::compile::{self, Cache};
use crate::cuda::Context;
use crate::ir::HostTensor;
use crate::kernel::{self, Arch};

/// What came of one variant.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Kernel name and knobs.
    pub variant: String,
    /// Largest relative error of an output in the 2-norm.
    pub error: f64,
    pub is_right: bool,
}

/// Runs every variant of `problem` on `operands` and compares it with the reference.
///
/// # Errors
/// If a variant does not compile or faults.
pub fn survey(
    problem: &Problem,
    operands: &[HostTensor],
    arch: Arch,
    context: &Arc<Context>,
    cache: &Cache,
) -> Result<Vec<Finding>, TuneError> {
    let lab = Lab::new(context, 1)?;
    let bench = lab.bench(problem, Data::Given(operands))?;
    let variants = problem.variants(arch);
    let sources: Vec<_> = variants
        .par_iter()
        .map(|variant| kernel::render(&problem.spec, variant, arch))
        .collect::<Result<_, _>>()?;
    let cubins = compile::compile(&sources, arch, cache, &|_, _| {})?;
    let mut findings = Vec::with_capacity(variants.len());
    for ((variant, source), cubin) in variants.into_iter().zip(sources).zip(cubins) {
        let name = format!("{} {}", source.name, variant.knobs_text());
        let tactic = Tactic {
            variant,
            source,
            cubin,
            measured_us: None,
        };
        let (error, is_right) = lab.judge(&bench, &lab.load(&tactic)?)?;
        findings.push(Finding {
            variant: name,
            error,
            is_right,
        });
    }
    Ok(findings)
}

/// Whether a tactic computes on drawn data what the problem means.
///
/// # Errors
/// If it faults.
pub fn is_right(problem: &Problem, tactic: &Tactic, context: &Arc<Context>) -> Result<bool, TuneError> {
    let lab = Lab::new(context, 1)?;
    let bench = lab.bench(problem, Data::Drawn { cold: false })?;
    Ok(lab.judge(&bench, &lab.load(tactic)?)?.1)
}
