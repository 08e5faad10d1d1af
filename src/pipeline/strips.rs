//! Large values in strips, where the memory that is allowed does not do otherwise.
//!
//! Cuts are added one by one, always where most is alive, until the limit holds. What was cut before others made it
//! needless is then undone, as long as that is predicted to save time and the limit still holds. How cuts are added does
//! not depend on the limit, so that one that holds is held by every build that allows more.

use std::sync::Arc;

use rayon::prelude::*;

use super::layouts::{Guide, Search, Taken, layouts};
use super::outline::{Cuts, Judged, Outline};
use super::predictions::{Launches, Predictions};
use super::programs::{Planned, Programs};
use super::{Observer, PipelineError, Selection, Settings, Silent};
use crate::engine::Engine;
use crate::plan::{Usage, WeightBytes};
use crate::rewrite::FusedGraph;

/// Strips are tried where more than this share is neither a weight nor an input or output.
const WORTH: f64 = 0.01;

/// So many cuts in a row are tried that make a program that is small enough slower.
const PATIENCE: usize = 2;

/// What a program was planned from.
pub(super) struct Source<'a> {
    pub search: Search<'a>,
    pub guide: Guide,
}

/// The engine of `programs`, whose graphs come from `sources`, with as many values in strips as it takes for the
/// memory that `settings` allow.
///
/// # Errors
/// If it cannot be that little: `least` is what it takes without, or what it takes with the most strips, if that is
/// less.
pub(super) fn build(
    mut programs: Programs,
    sources: Vec<Source<'_>>,
    model: &str,
    settings: &Settings,
    selection: &Selection,
    observer: &dyn Observer,
) -> Result<Engine, PipelineError> {
    let Some(most) = settings.max_memory else {
        return programs.build(model, settings, selection, observer);
    };
    let mut strips = Strips::of(&programs, sources);
    let (mut limit, mut least) = (most, usize::MAX);
    loop {
        strips.choose(limit, observer)?;
        let taken = strips.taken();
        if taken <= limit {
            strips.give(&mut programs);
            match programs.build(model, settings, selection, observer) {
                Err(PipelineError::Memory { least: own, .. }) => least = least.min(own),
                built => return built,
            }
            // Some kernel needs scratch memory.
            limit = taken - 1;
        } else {
            let (least, kept) = (least.min(taken), strips.kept_bytes());
            return Err(PipelineError::Memory { most, least, kept });
        }
    }
}

/// The regions of the programs of `searches`, as [`build`] cuts them for `most` bytes where nothing is timed.
///
/// # Errors
/// If a rule is wrong.
pub(super) fn regions(searches: &[Search<'_>], most: usize) -> Result<Vec<FusedGraph>, PipelineError> {
    let (mut programs, mut sources) = (Programs::default(), Vec::new());
    for &search in searches {
        let Taken { fused, guide } = layouts(&search)?.predicted();
        programs.own.push(Planned::predicted(search.arch, fused));
        sources.push(Source { search, guide });
    }
    let mut strips = Strips::of(&programs, sources);
    strips.choose(most, &Silent)?;
    Ok(strips.states.iter().map(|state| state.fused.clone()).collect())
}

/// Whether much of what a plan takes is left beside the `kept` bytes that every plan takes.
#[expect(clippy::cast_precision_loss, reason = "a share of them needs no exact count")]
fn is_worth_it(taken: usize, kept: usize) -> bool {
    taken.saturating_sub(kept) as f64 > WORTH * taken as f64
}

/// Programs with values in strips.
struct Strips<'a> {
    sources: Vec<Source<'a>>,
    /// Made where they are needed; none where regions cannot be cut.
    outlines: Vec<Option<Outline<'a>>>,
    states: Vec<Arc<State>>,
    weights: WeightBytes,
    predictions: Predictions,
}

/// A program.
struct State {
    /// None until it is to be cut.
    judged: Option<Judged>,
    fused: FusedGraph,
    kept_bytes: usize,
    /// The arena, and scratch memory that no choice of kernels does without.
    bytes: usize,
    launches: Launches,
}

impl<'a> Strips<'a> {
    fn of(programs: &Programs, sources: Vec<Source<'a>>) -> Self {
        let mut strips = Strips {
            sources,
            outlines: Vec::new(),
            states: Vec::new(),
            weights: WeightBytes::default(),
            predictions: Predictions::default(),
        };
        for (number, plan) in programs.own.iter().enumerate() {
            let state = strips.state(number, plan.fused.clone(), None);
            strips.states.push(Arc::new(state));
        }
        strips
    }

    fn state(&mut self, program: usize, fused: FusedGraph, judged: Option<Judged>) -> State {
        let usage = Usage::of(&fused);
        let Search { settings, arch, .. } = self.sources[program].search;
        let launches = self.predictions.of(&fused, arch, settings);
        State {
            bytes: usage.arena_bytes() + launches.scratch_bytes,
            launches,
            kept_bytes: usage.kept_bytes,
            fused,
            judged,
        }
    }

    /// What the programs take at least.
    fn bytes(&mut self, states: &[Arc<State>]) -> usize {
        let most = states.iter().map(|state| state.bytes).max();
        self.weights.of(states.iter().map(|state| &state.fused)) + most.unwrap_or(0)
    }

    fn taken(&mut self) -> usize {
        self.bytes(&self.states.clone())
    }

    /// Weights, inputs and outputs.
    fn kept_bytes(&mut self) -> usize {
        let most = self.states.iter().map(|state| state.kept_bytes).max();
        self.weights.of(self.states.iter().map(|state| &state.fused)) + most.unwrap_or(0)
    }

    /// Microseconds by prediction, where what is left of `most` bytes is scratch memory; infinite where nothing is left.
    fn us(&mut self, states: &[Arc<State>], most: usize) -> f64 {
        let weights = self.weights.of(states.iter().map(|state| &state.fused));
        let us = states.iter().map(|state| {
            let left = most.checked_sub(weights + state.bytes);
            left.map_or(f64::INFINITY, |left| state.launches.us(left))
        });
        us.sum()
    }

    /// Whether `most` bytes do for all scratch memory that makes launches faster.
    fn is_roomy(&mut self, most: usize) -> bool {
        let weights = self.weights.of(self.states.iter().map(|state| &state.fused));
        let mut states = self.states.iter();
        states.all(|state| weights + state.bytes + state.launches.most_scratch_bytes() <= most)
    }

    /// Cuts that `most` bytes do for, and that are predicted fastest of those that were tried; where none do, those that
    /// take least.
    fn choose(&mut self, most: usize, observer: &dyn Observer) -> Result<(), PipelineError> {
        if self.is_roomy(most) || !is_worth_it(self.taken(), self.kept_bytes()) {
            return Ok(());
        }
        if self.taken() > most {
            observer.stage("less memory by strips", 0);
        }
        self.outline()?;
        self.lower(most);
        self.relax(most);
        Ok(())
    }

    /// Adds cuts until `most` bytes do, or to what takes least; then on as long as the scratch memory that it leaves makes up for
    /// it.
    fn lower(&mut self, most: usize) {
        let mut states = self.states.clone();
        let mut least = self.bytes(&states);
        let mut fastest = self.us(&states, most);
        let mut n_slower = 0;
        while n_slower < PATIENCE {
            let largest = (0..states.len()).max_by_key(|&program| states[program].bytes);
            let next = largest.and_then(|program| Some((program, self.lowered(program, &states[program])?)));
            let Some((program, next)) = next else { break };
            states[program] = Arc::new(next);
            let (bytes, us) = (self.bytes(&states), self.us(&states, most));
            let is_better = if fastest.is_finite() {
                us < fastest
            } else {
                bytes < least
            };
            if is_better {
                (least, fastest) = (bytes, us);
                self.states.clone_from(&states);
            }
            n_slower = if is_better || fastest.is_infinite() {
                0
            } else {
                n_slower + 1
            };
        }
    }

    fn outline(&mut self) -> Result<(), PipelineError> {
        for program in self.outlines.len()..self.sources.len() {
            let Source { search, guide } = &self.sources[program];
            let outline = Outline::new(*search, guide)?;
            let judged = outline
                .as_ref()
                .and_then(|outline| outline.judged(Cuts::default()));
            let fused = self.states[program].fused.clone();
            self.states[program] = Arc::new(self.state(program, fused, judged));
            self.outlines.push(outline);
        }
        Ok(())
    }

    fn lowered(&mut self, program: usize, state: &State) -> Option<State> {
        let outline = self.outlines[program].as_ref()?;
        let next = outline.lower(state.judged.as_ref()?)?;
        let fused = outline.finished(&next);
        Some(self.state(program, fused, Some(next)))
    }

    /// Undoes cuts as long as that is predicted to save time, and `most` bytes, or those that are taken, do without.
    fn relax(&mut self, most: usize) {
        let most = most.max(self.taken());
        for program in 0..self.outlines.len() {
            while let Some(next) = self.relaxed(program, most) {
                self.states[program] = next;
            }
        }
    }

    fn relaxed(&mut self, program: usize, most: usize) -> Option<Arc<State>> {
        let outline = self.outlines[program].as_ref()?;
        let now = self.states[program].judged.as_ref()?;
        let ways = now.cuts.relaxed().into_par_iter();
        let judged = ways.filter_map(|cuts| outline.judged(cuts));
        let mut faster: Vec<Judged> = judged
            .filter(|other| other.us < now.us && other.usage.bytes <= most)
            .collect();
        faster.sort_by(|a, b| a.us.total_cmp(&b.us));
        let mut states = self.states.clone();
        let us = self.us(&states, most);
        for other in faster {
            let fused = self.outlines[program].as_ref()?.finished(&other);
            states[program] = Arc::new(self.state(program, fused, Some(other)));
            if self.us(&states, most) < us {
                return states.into_iter().nth(program);
            }
        }
        None
    }

    fn give(&self, programs: &mut Programs) {
        for (plan, state) in programs.own.iter_mut().zip(&self.states) {
            if state
                .judged
                .as_ref()
                .is_some_and(|judged| !judged.cuts.is_empty())
            {
                *plan = Planned::predicted(plan.arch, state.fused.clone());
            }
        }
    }
}
