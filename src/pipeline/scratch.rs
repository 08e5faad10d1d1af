//! Scratch memory for some launches, where there is not enough for all.

use super::tactics::tactics;
use super::{Observer, PipelineError, Selection};
use crate::engine::{self, Engine};
use crate::kernel::Arch;
use crate::plan;
use crate::tune::{Problem, Tactic};

/// `engine`, none of whose launches in program number `number` needs scratch memory, with it for those that save most
/// time by each byte of it, as long as an execution takes at most `most` bytes.
///
/// # Errors
/// If kernels cannot be chosen or made.
pub fn with_scratch(
    engine: Engine,
    number: usize,
    arch: Arch,
    most: usize,
    selection: &Selection,
    observer: &dyn Observer,
) -> Result<Engine, PipelineError> {
    let posed = plan::posed(&engine, number)?;
    let choose = |workspace: bool| {
        let problem = |own: &Problem| Problem {
            workspace,
            incumbent: None,
            ..own.clone()
        };
        let problems: Vec<Problem> = posed.iter().map(problem).collect();
        tactics(&problems, arch, selection, observer)
    };
    let (mut chosen, generous) = (choose(false)?, choose(true)?);
    let mut best = engine;
    for launch in by_gain(&chosen, &generous) {
        let thrifty = std::mem::replace(&mut chosen[launch], generous[launch].clone());
        let next = plan::renewed(&best, number, &chosen);
        if next.device_bytes() <= most {
            best = next;
        } else {
            chosen[launch] = thrifty;
        }
    }
    engine::validate::validate(&best)?;
    Ok(best)
}

/// Launches that scratch memory makes faster, by falling gain for each byte.
fn by_gain(thrifty: &[Tactic], generous: &[Tactic]) -> Vec<usize> {
    let us = |tactic: &Tactic| tactic.measured_us.unwrap_or(tactic.variant.predicted_us);
    #[expect(clippy::cast_precision_loss, reason = "an order needs no exact count")]
    let gain = |launch: usize| {
        let bytes = generous[launch].source.workspace_bytes.max(1) as f64;
        (us(&thrifty[launch]) - us(&generous[launch])) / bytes
    };
    let mut gaining: Vec<usize> = (0..thrifty.len()).filter(|&launch| gain(launch) > 0.0).collect();
    gaining.sort_by(|&a, &b| gain(b).total_cmp(&gain(a)));
    gaining
}
