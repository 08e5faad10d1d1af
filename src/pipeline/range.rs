//! Engines for a range of shapes: the usual shape has kernels of its own, the others share theirs.

use std::collections::HashMap;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::guided::{self, Ways};
use super::held::{Held, Holder};
use super::layouts::{Guide, Search, Taken, Times, alike, layouts, serves};
use super::programs::{Programs, planned};
use super::{Observer, PipelineError, Selection, Settings, Silent};
use crate::compile::arch_name;
use crate::engine::Engine;
use crate::engine::shared::extents::Extents;
use crate::ir::{Graph, HostTensor, TensorType};
use crate::kernel::Arch;
use crate::reference::Constants;
use crate::rewrite::canonicalize::rewrite_model;
use crate::rewrite::{Derivations, FusedGraph, RuleSet, TensorSource, weight_orders};
use crate::specialize::{self, Shapes};

/// Compiles a model for each of `shapes`, the usual one first, as [`specialize::every_shape`] lists them, and for
/// each of `archs`.
///
/// # Errors
/// If shapes do not fit the model, a rule is wrong, NVRTC is missing, or kernels cannot be made.
pub fn compile_range(
    graph: &Graph,
    shapes: &[Shapes],
    archs: &[Arch],
    settings: &Settings,
    selection: &Selection,
    observer: &dyn Observer,
) -> Result<Engine, PipelineError> {
    let mut range = Range::of(graph, settings)?;
    let (usual, others) = shapes.split_at(shapes.len().min(1));
    let (mut programs, mut guides) = (Programs::default(), Vec::new());
    for (shapes, &arch) in usual
        .iter()
        .flat_map(|shapes| archs.iter().map(move |arch| (shapes, arch)))
    {
        observer.stage(&format!("fuse for {}", arch_name(arch)), 0);
        let core = range.lowered(shapes)?;
        let layouts = layouts(&range.search(&core, arch))?;
        let (plan, guide) = planned(layouts, arch, settings, selection, observer)?;
        programs.own.push(plan);
        guides.push(guide);
    }
    let mut pool = Pool::default();
    for plan in &mut programs.own {
        pool.share(&mut plan.fused);
    }
    if let Some(usual) = programs.own.first() {
        range.rules.weight_orders = weight_orders(&usual.fused);
    }
    for (&arch, guide) in archs.iter().zip(guides) {
        let graphs = range.fused(others, arch, guide, &mut pool, observer)?;
        programs.shared.push((arch, graphs));
    }
    programs.extents = range.extents(shapes)?;
    programs.build(&graph.name, settings, selection, observer)
}

/// The regions of each of `shapes`, the usual one first, as [`compile_range`] cuts them where nothing is timed; of the
/// usual one for every layout, with the others as they follow from it.
///
/// # Errors
/// If shapes do not fit the model, or a rule is wrong.
pub fn regions_of_range(
    graph: &Graph,
    shapes: &[Shapes],
    arch: Arch,
    settings: &Settings,
) -> Result<Vec<FusedGraph>, PipelineError> {
    let mut range = Range::of(graph, settings)?;
    let Some((usual, others)) = shapes.split_first() else {
        return Ok(Vec::new());
    };
    let core = range.lowered(usual)?;
    let plans = layouts(&range.search(&core, arch))?.all();
    let mut pool = Pool::default();
    let mut found = Vec::new();
    for Taken { mut fused, guide } in plans {
        range.rules.weight_orders = weight_orders(&fused);
        pool.share(&mut fused);
        found.push(fused);
        let others = range.fused(others, arch, guide, &mut pool, &Silent)?;
        found.extend(others.iter().map(Held::fused));
    }
    Ok(found)
}

/// A model whose shapes are still to be bound.
struct Range<'a> {
    graph: Graph,
    rules: RuleSet,
    times: Times,
    constants: Constants,
    derivations: Derivations,
    settings: &'a Settings,
}

impl<'a> Range<'a> {
    fn of(graph: &Graph, settings: &'a Settings) -> Result<Self, PipelineError> {
        let rules = RuleSet::load(&settings.rules)?;
        let graph = rewrite_model(graph, &rules);
        Ok(Range {
            constants: Constants::of(&graph),
            graph,
            rules,
            times: Times::default(),
            derivations: Derivations::default(),
            settings,
        })
    }

    fn lowered(&self, shapes: &Shapes) -> Result<Graph, PipelineError> {
        let bindings = specialize::bind(&self.graph, shapes)?;
        Ok(specialize::specialize_again(
            &self.graph,
            &bindings,
            &self.constants,
        )?)
    }

    /// The range that `shapes` are all of, if there is one.
    fn extents(&self, shapes: &[Shapes]) -> Result<Option<Extents>, PipelineError> {
        let dims = |shapes: &Shapes| {
            let bindings = specialize::bind(&self.graph, shapes)?;
            Ok::<_, PipelineError>(bindings.types().iter().map(TensorType::dims).collect())
        };
        let all: Vec<Vec<Vec<usize>>> = shapes.iter().map(dims).collect::<Result<_, _>>()?;
        Ok(Extents::of(&all))
    }

    fn search<'s>(&'s self, core: &'s Graph, arch: Arch) -> Search<'s> {
        Search {
            core,
            arch,
            settings: self.settings,
            rules: &self.rules,
            times: &self.times,
            constants: &self.constants,
            derivations: Some(&self.derivations),
        }
    }

    /// The regions of each shape, in the layout that is predicted fastest.
    fn fused(
        &self,
        shapes: &[Shapes],
        arch: Arch,
        usual: Guide,
        pool: &mut Pool,
        observer: &dyn Observer,
    ) -> Result<Vec<Held>, PipelineError> {
        let stage = format!("fuse {} shapes for {}", shapes.len(), arch_name(arch));
        observer.stage(&stage, shapes.len());
        let ways = OfRange {
            range: self,
            shapes,
            arch,
        };
        let mut holder = Holder::default();
        let mut keep = |mut fused: FusedGraph| {
            pool.share(&mut fused);
            // Programs that share kernels say nothing of choices that lost, and there are many graphs.
            for region in &mut fused.regions {
                region.explanation.rejected = Vec::new();
            }
            holder.hold(fused)
        };
        guided::all_regions(&ways, shapes.len(), usual, &mut keep, observer)
    }
}

/// Ways to the regions of shapes of a range.
struct OfRange<'a> {
    range: &'a Range<'a>,
    shapes: &'a [Shapes],
    arch: Arch,
}

impl Ways for OfRange<'_> {
    type Guide = Guide;

    fn search(&self, shape: usize) -> Result<(FusedGraph, Guide), PipelineError> {
        let core = self.range.lowered(&self.shapes[shape])?;
        let Taken { fused, guide } = layouts(&self.range.search(&core, self.arch))?.predicted();
        Ok((fused, guide))
    }

    fn follow(&self, shape: usize, guides: &[Guide]) -> Result<Option<FusedGraph>, PipelineError> {
        let core = self.range.lowered(&self.shapes[shape])?;
        alike(&self.range.search(&core, self.arch), guides)
    }

    fn serves(&self, known: &Guide, other: &Guide) -> bool {
        serves(known, other, &self.range.rules, self.arch)
    }
}

/// Weights by their digest: shapes have made their own of some that are equal in all of them.
#[derive(Default)]
struct Pool {
    known: HashMap<[u8; 32], Vec<HostTensor>>,
    /// By the address of their bytes, which stay there, what stands for tensors that were seen before.
    seen: HashMap<usize, (HostTensor, HostTensor)>,
}

impl Pool {
    /// Has the weights of `fused` share their bytes with equal ones that were seen before.
    fn share(&mut self, fused: &mut FusedGraph) {
        let mut weights: Vec<&mut HostTensor> = Vec::new();
        for tensor in &mut fused.tensors {
            if let TensorSource::Weight(data) = &mut tensor.source {
                match self.seen.get(&data.address()) {
                    Some((own, known)) if own.ty() == data.ty() => *data = known.clone(),
                    _ => weights.push(data),
                }
            }
        }
        let digests: Vec<[u8; 32]> = weights
            .par_iter()
            .map(|data| Sha256::digest(data.bytes()).into())
            .collect();
        for (data, digest) in weights.into_iter().zip(digests) {
            let own = data.clone();
            let known = self.known.entry(digest).or_default();
            match known.iter().find(|other| other.ty() == data.ty()) {
                Some(other) => *data = other.clone(),
                None => known.push(data.clone()),
            }
            // What nothing else holds is met once.
            if own.is_shared() {
                self.seen.insert(own.address(), (own, data.clone()));
            }
        }
    }
}
