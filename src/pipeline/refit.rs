//! The weights of an engine, from its model once more.

use std::collections::{BTreeMap, HashSet};

use rayon::prelude::*;

use super::layouts::{Search, Times, layouts};
use super::range::regions_of_range;
use super::{PipelineError, Settings, lower, strips};
use crate::engine::{self, Engine, EngineError, stripped};
use crate::ir::Graph;
use crate::kernel::Arch;
use crate::reference::Constants;
use crate::rewrite::{FusedGraph, RuleSet, TensorSource};
use crate::specialize::Shapes;

/// Gives a stripped engine its weights back. It was compiled from `graph` for each of `shapes`: they are folded, cut
/// into regions and packed as when it was, which needs neither a GPU nor NVRTC, and what comes of it is told by its
/// digest. The result is the engine that was stripped, to the byte.
///
/// # Errors
/// If shapes do not fit the model, a rule is wrong, or weights are not those that the engine was compiled with.
pub fn refit(
    engine: &Engine,
    graph: &Graph,
    shapes: &[Shapes],
    archs: &[Arch],
    settings: &Settings,
) -> Result<Engine, PipelineError> {
    let Some(pieces) = &engine.header.stripped else {
        return Err(EngineError::Refit("it has its weights".to_owned()).into());
    };
    let wanted: HashSet<&str> = pieces.iter().map(|piece| piece.sha256.as_str()).collect();
    let mut found = BTreeMap::new();
    // Programs that share kernels state no problems.
    let mut listed = engine.header.programs.iter();
    let is_range = engine.header.shared.is_some() || listed.any(|program| program.problems.is_empty());
    for &arch in archs.iter().filter(|_| is_range) {
        for fused in regions_of_range(graph, shapes, arch, settings)? {
            collect(&fused, &wanted, &mut found);
        }
    }
    if found.len() < wanted.len() {
        search(graph, shapes, archs, settings, &wanted, &mut found)?;
    }
    if let Some(most) = engine.header.max_memory
        && found.len() < wanted.len()
    {
        // Values in strips may have made strips of weights.
        with_searches(graph, shapes, archs, settings, |searches| {
            for fused in strips::regions(searches, most)? {
                collect(&fused, &wanted, &mut found);
            }
            Ok(())
        })?;
    }
    Ok(engine::stripped::refit(engine, &found)?)
}

/// Looks in every shape by itself, until all that is wanted is found.
fn search(
    graph: &Graph,
    shapes: &[Shapes],
    archs: &[Arch],
    settings: &Settings,
    wanted: &HashSet<&str>,
    found: &mut BTreeMap<String, Vec<u8>>,
) -> Result<(), PipelineError> {
    with_searches(graph, shapes, archs, settings, |searches| {
        for search in searches {
            // An engine that was tuned may have another layout than the one predicted to be best.
            for plan in layouts(search)?.all() {
                collect(&plan.fused, wanted, found);
            }
            if found.len() == wanted.len() {
                break;
            }
        }
        Ok(())
    })
}

/// Calls `look` with what the programs of an engine are planned from, in their order.
fn with_searches(
    graph: &Graph,
    shapes: &[Shapes],
    archs: &[Arch],
    settings: &Settings,
    look: impl FnOnce(&[Search<'_>]) -> Result<(), PipelineError>,
) -> Result<(), PipelineError> {
    let rules = RuleSet::load(&settings.rules)?;
    let (times, constants) = (Times::default(), Constants::default());
    let mut lowered = Vec::new();
    for shapes in shapes {
        let settings = Settings {
            shapes: shapes.clone(),
            ..settings.clone()
        };
        lowered.push((lower(graph, &settings)?, settings));
    }
    let mut searches = Vec::new();
    for (core, settings) in &lowered {
        for &arch in archs {
            searches.push(Search {
                core,
                arch,
                settings,
                rules: &rules,
                times: &times,
                constants: &constants,
                derivations: None,
            });
        }
    }
    look(&searches)
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
