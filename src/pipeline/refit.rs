//! The weights of an engine, from its model once more.

use std::collections::{BTreeMap, HashSet};

use rayon::prelude::*;

use super::layouts::{Search, Times, layouts};
use super::{PipelineError, Settings};
use crate::engine::{self, Engine, EngineError, stripped};
use crate::ir::Graph;
use crate::kernel::Arch;
use crate::reference::Constants;
use crate::rewrite::{FusedGraph, RuleSet, TensorSource};

/// Gives a stripped engine its weights back. `cores` are the static graphs that it was compiled from, as
/// [`super::lower`] gives them: they are folded, cut into regions and packed as when it was, which needs
/// neither a GPU nor NVRTC, and what comes of it is told by its digest. The result is the engine that was
/// stripped, to the byte.
///
/// # Errors
/// If a rule is wrong, or weights are not those that the engine was compiled with.
pub fn refit(
    engine: &Engine,
    cores: &[Graph],
    archs: &[Arch],
    settings: &Settings,
) -> Result<Engine, PipelineError> {
    let Some(pieces) = &engine.header.stripped else {
        return Err(EngineError::Refit("it has its weights".to_owned()).into());
    };
    let wanted: HashSet<&str> = pieces.iter().map(|piece| piece.sha256.as_str()).collect();
    let rules = RuleSet::load(&settings.rules)?;
    let (times, constants) = (Times::default(), Constants::default());
    let mut found = BTreeMap::new();
    for core in cores {
        for &arch in archs {
            // An engine that was tuned may have another layout than the one predicted to be best.
            let search = Search {
                core,
                arch,
                settings,
                rules: &rules,
                times: &times,
                constants: &constants,
            };
            for fused in layouts(&search)?.graphs() {
                collect(fused, &wanted, &mut found);
            }
            if found.len() == wanted.len() {
                return Ok(engine::stripped::refit(engine, &found)?);
            }
        }
    }
    Ok(engine::stripped::refit(engine, &found)?)
}

/// Adds the weights of a graph that are wanted, by fingerprint.
fn collect(fused: &FusedGraph, wanted: &HashSet<&str>, found: &mut BTreeMap<String, Vec<u8>>) {
    let weights: Vec<&[u8]> = fused
        .tensors
        .iter()
        .filter_map(|tensor| match &tensor.source {
            TensorSource::Weight(data) => Some(data.bytes()),
            TensorSource::Input(_) | TensorSource::Regions => None,
        })
        .collect();
    let prints: Vec<String> = weights
        .par_iter()
        .map(|bytes| stripped::fingerprint(bytes))
        .collect();
    for (bytes, print) in weights.into_iter().zip(prints) {
        if wanted.contains(print.as_str()) {
            found.entry(print).or_insert_with(|| bytes.to_vec());
        }
    }
}
