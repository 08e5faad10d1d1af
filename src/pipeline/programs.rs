//! From the plans of graphs to the programs of an engine: the plan that is fastest, its kernels and its streams.

use super::held::Held;
use super::in_context::settled;
use super::layouts::{Guide, Layouts, Taken};
use super::memory::within_memory;
use super::race::raced;
use super::scratch::with_scratch;
use super::shared::shared_tactics;
use super::tactics::{n_contexts, problems, tactics};
use super::{Observer, PipelineError, Selection, Settings, nvrtc};
use crate::engine::shared::extents::Extents;
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
    pub shared: Vec<(Arch, Vec<Held>)>,
    /// The range of these shapes, if they are all of one: their programs are formulas of its extents.
    pub extents: Option<Extents>,
}

/// How programs are made.
struct Making<'a> {
    settings: &'a Settings,
    /// What is given up for less memory.
    thrift: Thrift,
    selection: &'a Selection,
    observer: &'a dyn Observer,
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
            let making = Making {
                settings,
                thrift,
                selection,
                observer,
            };
            finished(self.assembled(&making)?, model, settings)
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

    fn assembled(&self, making: &Making<'_>) -> Result<Assembly, PipelineError> {
        let mut assembly = Assembly::new();
        for plan in &self.own {
            plan.add(making, &mut assembly)?;
        }
        if let Some(extents) = &self.extents {
            assembly.share_in(extents.clone());
        }
        for (arch, graphs) in &self.shared {
            making.add_shared(graphs, *arch, &mut assembly)?;
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

    fn add(&self, making: &Making<'_>, assembly: &mut Assembly) -> Result<(), PipelineError> {
        let Planned {
            arch,
            fused,
            tactics: known,
        } = self;
        let &Making {
            settings,
            thrift,
            selection,
            observer,
        } = making;
        let problems = problems(fused, settings, thrift);
        let chosen = match known {
            Some(known) if thrift < Thrift::Workspace => known.clone(),
            _ => tactics(&problems, *arch, selection, observer)?,
        };
        let predicted = predicted_freedom(settings, thrift, true);
        let freedom = freedom(fused, &problems, &chosen, *arch, predicted, selection)?;
        let (profile, program) = plan::plan(fused, &problems, &chosen, *arch, freedom, assembly);
        assembly.add(profile, program);
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
    let (profile, program) = plan::plan(fused, problems, tactics, arch, freedom, &mut assembly);
    assembly.add(profile, program);
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

impl Making<'_> {
    /// Adds the programs of shapes that share kernels.
    fn add_shared(&self, graphs: &[Held], arch: Arch, assembly: &mut Assembly) -> Result<(), PipelineError> {
        let posed = |number: usize| problems(&graphs[number].fused(), self.settings, self.thrift);
        let tactics = shared_tactics(graphs.len(), &posed, arch, self.selection, self.observer)?;
        let freedom = predicted_freedom(self.settings, self.thrift, false);
        assembly.weights_of_many(graphs.iter().flat_map(Held::constants));
        self.observer.stage("plan", graphs.len());
        for (number, held) in graphs.iter().enumerate() {
            let fused = held.fused();
            let problems = problems(&fused, self.settings, self.thrift);
            let tactics = tactics.of_shape(number);
            let (profile, program) = plan::plan(&fused, &problems, &tactics, arch, freedom, assembly);
            assembly.share(profile, program);
            self.observer.step(number + 1, graphs.len());
        }
        Ok(())
    }
}
