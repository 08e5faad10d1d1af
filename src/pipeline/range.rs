//! Engines for a range of shapes: the usual shape has kernels of its own, the others share theirs.

use std::collections::HashMap;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::layouts::{Times, layouts};
use super::shared::shared_tactics;
use super::{Observer, PipelineError, Selection, Settings, planned, problems, within_memory};
use crate::compile::arch_name;
use crate::engine::Engine;
use crate::ir::{Graph, HostTensor};
use crate::kernel::Arch;
use crate::plan::{self, Assembly, Freedom, Thrift};
use crate::rewrite::canonicalize::rewrite_model;
use crate::rewrite::{FusedGraph, RuleSet, TensorSource, weight_orders};
use crate::specialize::{self, Shapes};

/// Shapes that are cut into regions at a time. Each narrows the weights for itself until it is done, so that
/// more would take more memory than a machine with so many cores may have.
const AT_ONCE: usize = 4;

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
    let rules = RuleSet::load(&settings.rules)?;
    let mut range = Range {
        graph: rewrite_model(graph, &rules),
        rules,
        times: Times::default(),
        settings,
    };
    let (usual, others) = shapes.split_at(shapes.len().min(1));
    let mut own = Vec::new();
    for (shapes, &arch) in usual
        .iter()
        .flat_map(|shapes| archs.iter().map(move |arch| (shapes, arch)))
    {
        observer.stage(&format!("fuse for {}", arch_name(arch)), 0);
        let core = range.lowered(shapes)?;
        let layouts = layouts(&core, arch, settings, &range.rules, &range.times)?;
        own.push(planned(layouts, arch, settings, selection, observer)?);
    }
    let mut pool = Pool::default();
    for plan in &mut own {
        pool.share(&mut plan.fused);
    }
    if let Some(usual) = own.first() {
        range.rules.weight_orders = weight_orders(&usual.fused);
    }
    let mut shared = Vec::new();
    for &arch in archs {
        shared.push((arch, range.fused(others, arch, &mut pool, observer)?));
    }
    within_memory(settings, |thrift| {
        let mut assembly = super::assembled(&own, settings, thrift, selection, observer)?;
        for (arch, graphs) in &shared {
            add(
                graphs,
                *arch,
                settings,
                thrift,
                selection,
                observer,
                &mut assembly,
            )?;
        }
        super::finished(assembly, &graph.name, settings)
    })
}

/// Adds the programs of shapes that share kernels.
fn add(
    graphs: &[FusedGraph],
    arch: Arch,
    settings: &Settings,
    thrift: Thrift,
    selection: &Selection,
    observer: &dyn Observer,
    assembly: &mut Assembly,
) -> Result<(), PipelineError> {
    let posed: Vec<_> = graphs
        .iter()
        .map(|fused| problems(fused, settings, thrift))
        .collect();
    let tactics = shared_tactics(&posed, arch, selection, observer)?;
    let freedom = Freedom {
        thrift,
        max_aux_streams: settings.max_aux_streams,
        states_problems: false,
    };
    observer.stage("plan", graphs.len());
    for (number, ((fused, problems), tactics)) in graphs.iter().zip(&posed).zip(&tactics).enumerate() {
        let program = plan::plan(fused, problems, tactics, arch, freedom, assembly);
        assembly.add(program);
        observer.step(number + 1, graphs.len());
    }
    Ok(())
}

/// A model whose shapes are still to be bound.
struct Range<'a> {
    graph: Graph,
    rules: RuleSet,
    times: Times,
    settings: &'a Settings,
}

impl Range<'_> {
    fn lowered(&self, shapes: &Shapes) -> Result<Graph, PipelineError> {
        let bindings = specialize::bind(&self.graph, shapes)?;
        Ok(specialize::specialize(&self.graph, &bindings)?)
    }

    /// The regions of each shape, in the layout that is predicted fastest.
    fn fused(
        &self,
        shapes: &[Shapes],
        arch: Arch,
        pool: &mut Pool,
        observer: &dyn Observer,
    ) -> Result<Vec<FusedGraph>, PipelineError> {
        observer.stage(
            &format!("fuse {} shapes for {}", shapes.len(), arch_name(arch)),
            shapes.len(),
        );
        let mut found = Vec::with_capacity(shapes.len());
        for some in shapes.chunks(AT_ONCE) {
            let cut = |shapes: &Shapes| -> Result<FusedGraph, PipelineError> {
                let core = self.lowered(shapes)?;
                Ok(layouts(&core, arch, self.settings, &self.rules, &self.times)?.predicted())
            };
            let own: Vec<FusedGraph> = some.par_iter().map(cut).collect::<Result<_, _>>()?;
            for mut fused in own {
                pool.share(&mut fused);
                found.push(fused);
            }
            observer.step(found.len(), shapes.len());
        }
        Ok(found)
    }
}

/// Weights by their digest: each shape has made its own of what is equal in all of them.
#[derive(Default)]
struct Pool {
    known: HashMap<[u8; 32], Vec<HostTensor>>,
}

impl Pool {
    /// Has the weights of `fused` share their bytes with equal ones that were seen before.
    fn share(&mut self, fused: &mut FusedGraph) {
        let mut weights: Vec<&mut HostTensor> = Vec::new();
        for tensor in &mut fused.tensors {
            if let TensorSource::Weight(data) = &mut tensor.source {
                weights.push(data);
            }
        }
        let digests: Vec<[u8; 32]> = weights
            .par_iter()
            .map(|data| Sha256::digest(data.bytes()).into())
            .collect();
        for (data, digest) in weights.into_iter().zip(digests) {
            let known = self.known.entry(digest).or_default();
            match known.iter().find(|other| other.ty() == data.ty()) {
                Some(other) => *data = other.clone(),
                None => known.push(data.clone()),
            }
        }
    }
}
