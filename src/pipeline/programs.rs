//! From the plans of graphs to the programs of an engine: the plan that is fastest, its kernels and its streams.

use super::in_context::settled;
use super::layouts::{Guide, Layouts, Taken};
use super::memory::within_memory;
use super::race::raced;
use super::scratch::with_scratch;
use super::shared::shared_tactics;
use super::tactics::{n_contexts, problems, tactics};
use super::{Observer, PipelineError, Selection, Settings, nvrtc};
use crate::engine::{self, Engine};
use crate::kernel::Arch;
use crate::plan::{self, Assembly, Freedom, Identity, Thrift};
use crate::rewrite::FusedGraph;
use crate::tune::{self, Problem, Tactic};

/// The graph of one program, and its kernels where they are chosen already.
pub(super) struct Planned {
    pub arch: Arch,
    pub fused: FusedGraph,
    tactics: Option<Vec<Tactic>>,
}

/// What an engine is made of.
#[derive(Default)]
pub(super) struct Programs {
    /// Graphs with kernels of their own.
    pub own: Vec<Planned>,
    /// Graphs of other shapes, which share kernels.
    pub shared: Vec<(Arch, Vec<FusedGraph>)>,
}

impl Programs {
    /// The engine of all programs, within the memory that `settings` allow.
    pub fn build(
        &self,
        model: &str,
        settings: &Settings,
        selection: &Selection,
        observer: &dyn Observer,
    ) -> Result<Engine, PipelineError> {
        let (mut engine, thrift) = within_memory(settings, |thrift| {
            let assembly = self.assembled(settings, thrift, selection, observer)?;
            finished(assembly, model, settings)
        })?;
        if let (Thrift::Workspace, Some(most)) = (thrift, settings.max_memory) {
            for (number, plan) in self.own.iter().enumerate() {
                engine = with_scratch(engine, number, plan.arch, most, selection, observer)?;
            }
        }
        for (number, plan) in self.own.iter().enumerate() {
            engine = settled(engine, number, plan.arch, selection, observer)?;
        }
        Ok(engine)
    }

    /// All programs, where so much is given up for less memory.
    fn assembled(
        &self,
        settings: &Settings,
        thrift: Thrift,
        selection: &Selection,
        observer: &dyn Observer,
    ) -> Result<Assembly, PipelineError> {
        let mut assembly = Assembly::new();
        for plan in &self.own {
            plan.add(settings, thrift, selection, observer, &mut assembly)?;
        }
        for (arch, graphs) in &self.shared {
            add_shared(
                graphs,
                *arch,
                settings,
                thrift,
                selection,
                observer,
                &mut assembly,
            )?;
        }
        Ok(assembly)
    }
}

impl Planned {
    /// A graph whose kernels are still to be chosen.
    pub fn predicted(arch: Arch, fused: FusedGraph) -> Self {
        Planned {
            arch,
            fused,
            tactics: None,
        }
    }

    fn add(
        &self,
        settings: &Settings,
        thrift: Thrift,
        selection: &Selection,
        observer: &dyn Observer,
        assembly: &mut Assembly,
    ) -> Result<(), PipelineError> {
        let Planned {
            arch,
            fused,
            tactics: known,
        } = self;
        let problems = problems(fused, settings, thrift);
        let chosen = match known {
            Some(known) if thrift < Thrift::Workspace => known.clone(),
            _ => tactics(&problems, *arch, selection, observer)?,
        };
        let predicted = predicted_freedom(settings, thrift, true);
        let freedom = freedom(fused, &problems, &chosen, *arch, predicted, selection)?;
        let program = plan::plan(fused, &problems, &chosen, *arch, freedom, assembly);
        assembly.add(program);
        Ok(())
    }
}

/// The fastest of several plans, by prediction or by the times of their kernels, and what it says of other shapes.
pub(super) fn planned(
    layouts: Layouts,
    arch: Arch,
    settings: &Settings,
    selection: &Selection,
    observer: &dyn Observer,
) -> Result<(Planned, Guide), PipelineError> {
    let plan = |Taken { fused, guide }, tactics| {
        let plan = Planned { arch, fused, tactics };
        (plan, guide)
    };
    if !selection.times() || layouts.is_single() {
        return Ok(plan(layouts.predicted(), None));
    }
    let posed = |fused: &FusedGraph| problems(fused, settings, Thrift::None);
    let freedom = predicted_freedom(settings, Thrift::None, true);
    let (taken, own) = layouts.timed(
        selection.until(),
        |fused| tactics(&posed(fused), arch, selection, observer),
        |plans| {
            observer.stage("compare executions", 0);
            let alone = plans
                .iter()
                .map(|(fused, own)| alone(fused, &posed(fused), own, arch, freedom));
            raced(&alone.collect::<Vec<_>>(), 0, arch, selection)
        },
    )?;
    Ok(plan(taken, Some(own)))
}

/// An engine of one program.
fn alone(
    fused: &FusedGraph,
    problems: &[Problem],
    tactics: &[Tactic],
    arch: Arch,
    freedom: Freedom,
) -> Engine {
    let mut assembly = Assembly::new();
    let program = plan::plan(fused, problems, tactics, arch, freedom, &mut assembly);
    assembly.add(program);
    assembly.finish(Identity {
        n_contexts: n_contexts(problems),
        ..Identity::default()
    })
}

/// What a plan may do by predictions alone.
fn predicted_freedom(settings: &Settings, thrift: Thrift, states_problems: bool) -> Freedom {
    Freedom {
        thrift,
        max_aux_streams: settings.max_aux_streams,
        states_problems,
    }
}

/// What a plan may do: branches that were predicted to pay go to streams of their own unless an execution
/// without is faster.
fn freedom(
    fused: &FusedGraph,
    problems: &[Problem],
    tactics: &[Tactic],
    arch: Arch,
    predicted: Freedom,
    selection: &Selection,
) -> Result<Freedom, PipelineError> {
    let plain = Freedom {
        max_aux_streams: 0,
        ..predicted
    };
    if !selection.times() || selection.is_over() {
        return Ok(predicted);
    }
    let engine = |freedom| alone(fused, problems, tactics, arch, freedom);
    let branched = engine(predicted);
    let mut launches = branched.header.programs[0].launches.iter();
    if launches.all(|launch| launch.stream == 0) {
        return Ok(predicted);
    }
    let us = raced(&[branched, engine(plain)], 0, arch, selection)?;
    let choices = [predicted, plain].into_iter().zip(us);
    Ok(tune::fastest(choices).map_or(predicted, |(freedom, _)| freedom))
}

/// The engine of all programs, proven.
fn finished(assembly: Assembly, model: &str, settings: &Settings) -> Result<Engine, PipelineError> {
    let engine = assembly.finish(Identity {
        model: model.to_owned(),
        precision: settings.precision.name().to_owned(),
        nvrtc: nvrtc()?.version().to_string(),
        max_memory: settings.max_memory,
        max_aux_streams: settings.max_aux_streams,
        n_contexts: settings.n_contexts,
    });
    engine::validate::validate(&engine)?;
    Ok(engine)
}

/// Adds the programs of shapes that share kernels.
fn add_shared(
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
    let freedom = predicted_freedom(settings, thrift, false);
    observer.stage("plan", graphs.len());
    for (number, ((fused, problems), tactics)) in graphs.iter().zip(&posed).zip(&tactics).enumerate() {
        let program = plan::plan(fused, problems, tactics, arch, freedom, assembly);
        assembly.add(program);
        observer.step(number + 1, graphs.len());
    }
    Ok(())
}
