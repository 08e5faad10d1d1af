//! A program with values in strips: which ones, and what that makes of its regions.
//!
//! A graph is fused once. Each cut then touches a part of it alone, the regions that write and read its values and
//! what is between them: their bodies become a graph of their own, in which the values are in strips, and what that is
//! fused into takes their place. Cuts whose parts meet are one cut of all their values, so that parts never have a
//! region in common, and any of them can be undone. Parts that were fused are kept: most ways to cut share them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use rayon::prelude::*;

use super::PipelineError;
use super::layouts::{Guide, Search, TURNS, unplaced};
use crate::ir::ValueId;
use crate::plan::{Step, Usage};
use crate::rewrite::canonicalize::canonicalize_again;
use crate::rewrite::{
    FusedGraph, JOIN, Origin, Part, Region, RuleSet, TensorId, TensorSource, placed, spliced,
};
use crate::specialize::in_strips;

/// Strips of values that are cut first; more of them are tried where these do not do.
const FEW_STRIPS: usize = 4;
const MOST_STRIPS: usize = 32;
/// Most regions that are cut together.
const MOST_REGIONS: usize = 24;
/// Most regions that become of a part.
const MOST_LAUNCHES: usize = 256;
/// Values at a launch that are thought of, the largest ones.
const MOST_VALUES: usize = 5;
/// What is left alive of a launch where a cut is worth its time.
const RELIEF: f64 = 0.998;
/// Microseconds of which no cut is cheaper.
const LEAST_US: f64 = 0.5;

/// Values that are never whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Cut {
    values: BTreeSet<TensorId>,
    n_strips: usize,
}

/// What a part is fused into where its values are in strips.
struct Piece {
    part: Part,
    fused: FusedGraph,
}

/// Who writes and reads the tensors of a graph.
struct Ends {
    writers: BTreeMap<TensorId, usize>,
    readers: BTreeMap<TensorId, Vec<usize>>,
}

/// A program without any cut, and what is known of parts of it.
pub(super) struct Outline<'a> {
    search: Search<'a>,
    /// Without those that turn layouts, which were chosen for the whole.
    rules: RuleSet,
    /// As [`crate::rewrite::Cutter::unplaced`] leaves it.
    whole: FusedGraph,
    ends: Ends,
    pieces: Mutex<HashMap<Cut, Option<Arc<Piece>>>>,
}

/// Cuts whose parts have no region in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cuts(Vec<Cut>);

/// A program with cuts, and what it takes.
pub(super) struct Judged {
    pub cuts: Cuts,
    unplaced: FusedGraph,
    placed: FusedGraph,
    /// Where its tensors come from.
    origins: Vec<Origin>,
    pub usage: Usage,
    pieces: Vec<Arc<Piece>>,
    /// By analytic bounds.
    pub us: f64,
}

impl<'a> Outline<'a> {
    /// The program that was taken for `search`; none where its regions are not found again.
    ///
    /// # Errors
    /// If a rule is wrong.
    pub fn new(search: Search<'a>, guide: &Guide) -> Result<Option<Self>, PipelineError> {
        let whole = unplaced(&search, guide)?;
        Ok(whole.map(|whole| Outline {
            rules: search.rules.without(TURNS),
            ends: Ends::of(&whole),
            pieces: Mutex::default(),
            whole,
            search,
        }))
    }

    /// Regions and cuts, as kernels are made for them.
    pub fn finished(&self, judged: &Judged) -> FusedGraph {
        self.search.cutter().finished(judged.unplaced.clone())
    }

    /// What `cuts` make of the program; none where values cannot be cut so.
    pub fn judged(&self, cuts: Cuts) -> Option<Judged> {
        let pieces: Vec<Arc<Piece>> = cuts.0.iter().map(|cut| self.piece(cut)).collect::<Option<_>>()?;
        let parts: Vec<(&Part, &FusedGraph)> =
            pieces.iter().map(|piece| (&piece.part, &piece.fused)).collect();
        let (whole, all) = spliced(&self.whole, &parts);
        let us = whole.regions.iter().map(|region| region.bound_us).sum();
        let (placed, left) = placed(whole.clone());
        Some(Judged {
            cuts,
            usage: Usage::of(&placed),
            origins: left.into_iter().map(|id| all[id.0 as usize]).collect(),
            unplaced: whole,
            placed,
            pieces,
            us,
        })
    }

    /// Cuts with one more, or more strips of one, of those that relieve the fullest launch that which takes least time
    /// for what it relieves; none where none does.
    pub fn lower(&self, now: &Judged) -> Option<Judged> {
        let fullest = now.usage.steps.iter().rev().max_by_key(|step| step.bytes)?;
        let ways = self.ways(now, fullest);
        tracing::debug!(
            bytes = fullest.bytes,
            us = now.us,
            n_ways = ways.len(),
            "fullest launch"
        );
        let finer = || {
            ways.iter()
                .filter_map(|cuts| cuts.finer_than(&now.cuts))
                .collect()
        };
        self.cheapest(now, fullest, &ways)
            .or_else(|| self.cheapest(now, fullest, &finer()))
    }

    /// Of `ways` that which takes least time for what it relieves of the launch `step`.
    fn cheapest(&self, now: &Judged, step: &Step, ways: &BTreeSet<Cuts>) -> Option<Judged> {
        let ways: Vec<&Cuts> = ways.iter().collect();
        let judged: Vec<Option<(f64, Judged)>> = ways
            .into_par_iter()
            .map(|cuts| {
                let next = self.judged(cuts.clone())?;
                let bytes = next.bytes_beside(now, step);
                let is_relief = as_f64(bytes) <= RELIEF * as_f64(step.bytes);
                let price = (next.us - now.us).max(LEAST_US) / as_f64(step.bytes.saturating_sub(bytes));
                (is_relief && next.usage.bytes <= now.usage.bytes).then_some((price, next))
            })
            .collect();
        let found = judged.into_iter().flatten();
        found
            .min_by(|(a, _), (b, _)| a.total_cmp(b))
            .map(|(_, next)| next)
    }

    /// Ways to have less alive at `step`.
    fn ways(&self, now: &Judged, step: &Step) -> BTreeSet<Cuts> {
        let origins =
            |ids: &[TensorId]| -> Vec<Origin> { ids.iter().map(|id| now.origins[id.0 as usize]).collect() };
        let is_output = |id: &TensorId| self.whole.outputs.iter().any(|(_, output)| output == id);
        let whole = |origins: &[Origin]| -> Vec<TensorId> {
            let own = origins.iter().filter_map(|origin| match origin {
                Origin::Own(id) => Some(*id),
                Origin::Inside(_) => None,
            });
            own.filter(|id| self.ends.writers.contains_key(id) && !is_output(id))
                .collect()
        };
        let alive = origins(&step.computed);
        let mut largest = whole(&alive);
        largest.truncate(MOST_VALUES);
        let region = &now.placed.regions[step.region];
        let touched: Vec<TensorId> = [&region.inputs, &region.outputs]
            .into_iter()
            .flat_map(|ids| whole(&origins(ids)))
            .collect();
        let mut sets: BTreeSet<BTreeSet<TensorId>> = BTreeSet::new();
        for (number, &a) in largest.iter().enumerate() {
            sets.insert(BTreeSet::from([a]));
            sets.extend(largest[..number].iter().map(|&b| BTreeSet::from([a, b])));
        }
        sets.insert(touched.into_iter().collect());
        sets.remove(&BTreeSet::new());
        let relabels = |region: &Region| is_relabelling(region);
        let moves_nothing = |region: &Region| is_relabelling(region) || joins(region);
        let closed = sets.iter().flat_map(|values| {
            // What is joined may be computed in strips with its parts, or of them.
            let views: [&dyn Fn(&Region) -> bool; 2] = [&relabels, &moves_nothing];
            views.map(|is_view| self.with_views(values, is_view))
        });
        let closed: BTreeSet<BTreeSet<TensorId>> = closed.collect();
        let mut ways: BTreeSet<Cuts> = closed
            .into_iter()
            .filter_map(|values| self.with(&now.cuts, values))
            .collect();
        // More strips of what is in strips there.
        for (number, cut) in now.cuts.0.iter().enumerate() {
            let is_there = alive.contains(&Origin::Inside(number));
            if is_there && cut.n_strips < MOST_STRIPS {
                let mut more = now.cuts.clone();
                more.0[number].n_strips *= 2;
                ways.insert(more);
            }
        }
        ways.remove(&now.cuts);
        ways
    }

    /// `cuts` with one of `values` more, together with those that it meets; none if they are too many.
    fn with(&self, cuts: &Cuts, values: BTreeSet<TensorId>) -> Option<Cuts> {
        let mut rest = cuts.0.clone();
        let mut own = Cut {
            values,
            n_strips: FEW_STRIPS,
        };
        loop {
            let regions = Part::around(&self.whole, &self.touched(&own.values)).regions;
            if regions.len() > MOST_REGIONS {
                return None;
            }
            let meets = |cut: &Cut| {
                let piece = self.piece(cut);
                piece.is_none_or(|piece| !piece.part.regions.is_disjoint(&regions))
            };
            let Some(other) = rest.iter().position(meets) else {
                break;
            };
            let other = rest.remove(other);
            own.values.extend(other.values);
            own.n_strips = own.n_strips.max(other.n_strips);
        }
        rest.push(own);
        rest.sort();
        Some(Cuts(rest))
    }

    /// `values`, and those that are views of them, or that they are views of.
    fn with_views(
        &self,
        values: &BTreeSet<TensorId>,
        is_view: &dyn Fn(&Region) -> bool,
    ) -> BTreeSet<TensorId> {
        let is_computed = |id: &TensorId| matches!(self.whole.tensor(*id).source, TensorSource::Regions);
        let region = |number: &usize| &self.whole.regions[*number];
        let mut all = values.clone();
        let mut left: Vec<TensorId> = values.iter().copied().collect();
        while let Some(id) = left.pop() {
            let readers = self.ends.readers.get(&id).into_iter().flatten().map(region);
            let on = readers.filter(|own| is_view(own)).flat_map(|own| &own.outputs);
            let writer = self.ends.writers.get(&id).into_iter().map(region);
            let back = writer.filter(|own| is_view(own)).flat_map(|own| &own.inputs);
            let views: Vec<TensorId> = on.chain(back.filter(|id| is_computed(id))).copied().collect();
            left.extend(views.into_iter().filter(|&view| all.insert(view)));
        }
        all
    }

    /// The regions that write and read `values`.
    fn touched(&self, values: &BTreeSet<TensorId>) -> BTreeSet<usize> {
        let writers = values.iter().filter_map(|id| self.ends.writers.get(id));
        let readers = values.iter().filter_map(|id| self.ends.readers.get(id));
        writers.chain(readers.flatten()).copied().collect()
    }

    /// What a cut makes of the regions that it touches; none where it cannot be.
    fn piece(&self, cut: &Cut) -> Option<Arc<Piece>> {
        let known = self
            .pieces
            .lock()
            .expect("no thread panics with it")
            .get(cut)
            .cloned();
        known.unwrap_or_else(|| {
            let made = self.made(cut).map(Arc::new);
            let mut pieces = self.pieces.lock().expect("no thread panics with it");
            pieces.insert(cut.clone(), made.clone());
            made
        })
    }

    fn made(&self, cut: &Cut) -> Option<Piece> {
        let part = Part::around(&self.whole, &self.touched(&cut.values));
        if part.regions.len() * cut.n_strips > MOST_LAUNCHES {
            return None;
        }
        let values: Vec<ValueId> = cut
            .values
            .iter()
            .map(|&id| part.value(id))
            .collect::<Option<_>>()?;
        let graph = in_strips(&part.graph, &values, cut.n_strips)?;
        let graph = canonicalize_again(&graph, &self.rules, self.search.constants);
        // What has no plan cannot be.
        let (fused, _) = self.search.cutter().unplaced(&graph).ok()?;
        Some(Piece { part, fused })
    }
}

impl Cuts {
    /// The same where those that `before` lacks have twice as many strips; none where these are too many.
    fn finer_than(&self, before: &Cuts) -> Option<Cuts> {
        let mut finer = self.clone();
        for cut in finer.0.iter_mut().filter(|cut| !before.0.contains(cut)) {
            cut.n_strips *= 2;
            if cut.n_strips > MOST_STRIPS {
                return None;
            }
        }
        Some(finer)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Cuts with one less, or half as many strips of one.
    pub fn relaxed(&self) -> Vec<Cuts> {
        let mut ways = Vec::new();
        for number in 0..self.0.len() {
            let mut less = self.clone();
            let own = less.0.remove(number);
            ways.push(less.clone());
            if own.n_strips > 2 {
                less.0.push(Cut {
                    n_strips: own.n_strips / 2,
                    ..own
                });
                less.0.sort();
                ways.push(less);
            }
        }
        ways
    }
}

impl Ends {
    fn of(fused: &FusedGraph) -> Self {
        let mut ends = Ends {
            writers: BTreeMap::new(),
            readers: BTreeMap::new(),
        };
        for (number, region) in fused.regions.iter().enumerate() {
            ends.writers.extend(region.outputs.iter().map(|&id| (id, number)));
            for &id in &region.inputs {
                ends.readers.entry(id).or_default().push(number);
            }
        }
        ends
    }
}

impl Judged {
    /// The most that is alive at what was cut since `before`, and at what is left of its launch `step`.
    fn bytes_beside(&self, before: &Judged, step: &Step) -> usize {
        let launch = before.written(step);
        let fresh: Vec<usize> = (0..self.cuts.0.len())
            .filter(|&number| !before.cuts.0.contains(&self.cuts.0[number]))
            .collect();
        let is_fresh = |origin: &Origin| match origin {
            Origin::Own(id) => fresh
                .iter()
                .any(|&cut| self.pieces[cut].part.outputs.contains(id)),
            Origin::Inside(cut) => fresh.contains(cut),
        };
        let is_same = |written: &[Origin]| {
            let own = |origin: &Origin| matches!(origin, Origin::Own(_));
            written.iter().all(own) && *written == launch[..]
        };
        let beside = self.usage.steps.iter().filter(|step| {
            let written = self.written(step);
            written.iter().any(is_fresh) || is_same(&written)
        });
        beside.map(|step| step.bytes).max().unwrap_or(0)
    }

    fn written(&self, step: &Step) -> Vec<Origin> {
        let outputs = self.placed.regions[step.region].outputs.iter();
        outputs.map(|id| self.origins[id.0 as usize]).collect()
    }
}

/// Whether a region's result is the memory of its operand.
fn is_relabelling(region: &Region) -> bool {
    region.body.nodes.iter().all(|node| node.op == "reshape")
}

/// Whether the operands of a region may lie in its result.
fn joins(region: &Region) -> bool {
    region.body.nodes.iter().any(|node| node.op == JOIN)
}

#[expect(clippy::cast_precision_loss, reason = "a share of them needs no exact count")]
fn as_f64(bytes: usize) -> f64 {
    bytes as f64
}
