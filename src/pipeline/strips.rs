//! Large values in strips, where the memory that is allowed does not do otherwise.

use std::collections::BTreeSet;

use super::layouts::{Search, layouts};
use super::programs::{Planned, Programs};
use super::{Observer, PipelineError, Selection, Settings};
use crate::engine::Engine;
use crate::ir::{Graph, Node, ValueId};
use crate::plan::{self, Computed, Peak};
use crate::rewrite::FusedGraph;
use crate::specialize::in_strips;

/// Strips of a value; these can be cut again.
const N_STRIPS: usize = 4;
/// Launches at which at least this share of the peak is alive are relieved together.
const HIGH: f64 = 0.85;
/// Most values that are cut for one tensor: others may have its name.
const MOST_VALUES: usize = 16;
/// Strips are tried where more than this share is neither a weight nor an input or output.
const WORTH: f64 = 0.01;
/// Most plans that are tried of a graph.
const MOST_PLANS: usize = 8;

/// The graph of a program with values in strips, and the plan of it that takes least so far.
pub(super) struct Outline<'a> {
    search: Search<'a>,
    core: Graph,
    /// Names of values that did not help.
    refused: Vec<String>,
    n_plans: usize,
}

impl<'a> Outline<'a> {
    pub fn new(search: Search<'a>) -> Self {
        Outline {
            core: search.core.clone(),
            search,
            refused: Vec::new(),
            n_plans: 0,
        }
    }

    /// A plan whose arena is smaller than that of `plan`; none where none was found.
    fn lower(&mut self, plan: &Planned) -> Result<Option<Planned>, PipelineError> {
        let peak = plan::peak(&plan.fused, HIGH);
        let mut n_launches = peak.launches.len();
        while self.n_plans < MOST_PLANS {
            let Some((core, names)) = self.cut(&peak, n_launches) else {
                return Ok(None);
            };
            self.n_plans += 1;
            let next = self.planned(&core)?;
            if plan::peak(&next.fused, HIGH).arena_bytes < peak.arena_bytes {
                self.core = core;
                return Ok(Some(next));
            }
            // All of them together do not help: does one at the peak?
            if names.len() > 1 {
                n_launches = 1;
            } else {
                self.refused.extend(names);
            }
        }
        Ok(None)
    }

    /// The graph with a value in strips for each of the first launches that can be relieved, and the names of these.
    fn cut(&self, peak: &Peak, n_launches: usize) -> Option<(Graph, Vec<String>)> {
        let mut core = self.core.clone();
        let mut names: Vec<String> = Vec::new();
        for tensors in peak.launches.iter().take(n_launches) {
            if tensors.iter().any(|tensor| names.contains(&tensor.name)) {
                continue;
            }
            let mut open = tensors
                .iter()
                .filter(|tensor| !self.refused.contains(&tensor.name));
            let cut = open.find_map(|tensor| Some((in_strips_all(&core, tensor)?, tensor)));
            if let Some((next, tensor)) = cut {
                core = next;
                names.push(tensor.name.clone());
            }
        }
        (!names.is_empty()).then_some((core, names))
    }

    fn planned(&self, core: &Graph) -> Result<Planned, PipelineError> {
        let search = Search { core, ..self.search };
        let taken = layouts(&search)?.predicted();
        Ok(Planned::predicted(self.search.arch, taken.fused))
    }
}

/// `core` with all values in strips that a tensor may hold; none where there are none.
fn in_strips_all(core: &Graph, tensor: &Computed) -> Option<Graph> {
    let mut found: Option<Graph> = None;
    for _ in 0..MOST_VALUES {
        let core = found.as_ref().unwrap_or(core);
        let mut values = values(core, tensor).into_iter();
        let Some(next) = values.find_map(|value| in_strips(core, value, N_STRIPS)) else {
            break;
        };
        found = Some(next);
    }
    found
}

/// The values that a tensor may hold. Tensors are named as values, or as the ONNX nodes that these come from, which
/// strips of a value have in common; kernels may have their axes in another order, and their elements in another kind.
fn values(core: &Graph, tensor: &Computed) -> Vec<ValueId> {
    let comes_from = |node: &Node| node.origin.last() == Some(&tensor.name);
    let goes_on: BTreeSet<ValueId> = core
        .nodes
        .iter()
        .filter(|node| comes_from(node))
        .flat_map(|node| node.operands.iter().flatten().copied())
        .collect();
    let n_elements = tensor.ty.n_elements();
    let is_it = |node: &Node, value: &ValueId| {
        let own = core.ty(*value).n_elements();
        let is_named = core.value(*value).name == tensor.name;
        // Strips at the ends lack a window's margin.
        own <= n_elements
            && own > n_elements / 2
            && (is_named || comes_from(node) && !goes_on.contains(value))
    };
    let results = core
        .nodes
        .iter()
        .flat_map(|node| node.results.iter().map(move |value| (node, *value)));
    let found = results.filter(|(node, value)| is_it(node, value));
    found.map(|(_, value)| value).collect()
}

/// The engine of `programs`, whose graphs are those of `outlines`, with as many values in strips as it takes for the
/// memory that `settings` allow.
///
/// # Errors
/// If it cannot be that little: `least` is what it takes without, or what it takes with the most strips, if that is
/// less.
pub(super) fn build(
    mut programs: Programs,
    mut outlines: Vec<Outline<'_>>,
    model: &str,
    settings: &Settings,
    selection: &Selection,
    observer: &dyn Observer,
) -> Result<Engine, PipelineError> {
    let refusal = programs.build(model, settings, selection, observer);
    let Err(PipelineError::Memory {
        most,
        mut least,
        kept,
    }) = refusal
    else {
        return refusal;
    };
    observer.stage("less memory by strips", 0);
    let (mut is_built, mut taken) = (true, bytes(&programs));
    loop {
        let is_lower = is_worth_it(taken, kept) && lower(&mut programs, &mut outlines)?;
        if is_lower {
            (is_built, taken) = (false, bytes(&programs));
        }
        if !is_built && (!is_lower || taken <= most) {
            match programs.build(model, settings, selection, observer) {
                Err(PipelineError::Memory { least: own, .. }) => least = least.min(own),
                built => return built,
            }
            is_built = true;
        }
        if !is_lower {
            return Err(PipelineError::Memory { most, least, kept });
        }
    }
}

/// The regions of a graph with ever more values in strips, as [`build`] tries them where nothing is timed.
///
/// # Errors
/// If a rule is wrong.
pub(super) fn regions(search: Search<'_>) -> Result<Vec<FusedGraph>, PipelineError> {
    let mut plan = Planned::predicted(search.arch, layouts(&search)?.predicted().fused);
    let mut outline = Outline::new(search);
    let mut found = Vec::new();
    while let Some(next) = outline.lower(&plan)? {
        found.push(next.fused.clone());
        plan = next;
    }
    Ok(found)
}

/// Gives the program that has the largest arena a smaller one, if that can be had.
fn lower(programs: &mut Programs, outlines: &mut [Outline<'_>]) -> Result<bool, PipelineError> {
    let arena = |(plan, _): &(&mut Planned, _)| plan::peak(&plan.fused, HIGH).arena_bytes;
    let Some((plan, outline)) = programs.own.iter_mut().zip(outlines).max_by_key(arena) else {
        return Ok(false);
    };
    let Some(next) = outline.lower(plan)? else {
        return Ok(false);
    };
    *plan = next;
    Ok(true)
}

/// Whether much of what a plan takes is left beside the `kept` bytes that every plan takes.
#[expect(clippy::cast_precision_loss, reason = "a share of them needs no exact count")]
fn is_worth_it(taken: usize, kept: usize) -> bool {
    taken.saturating_sub(kept) as f64 > WORTH * taken as f64
}

/// Weights and the largest arena: what the programs take at least.
fn bytes(programs: &Programs) -> usize {
    let arenas = programs
        .own
        .iter()
        .map(|plan| plan::peak(&plan.fused, HIGH).arena_bytes);
    let weights = plan::weights_bytes(programs.own.iter().map(|plan| &plan.fused));
    weights + arenas.max().unwrap_or(0)
}
