//! Models that run on a device without an engine of their own, because data decides what follows.

use std::collections::VecDeque;

use super::{PipelineError, Selection, Settings, Silent, arch_of_device, compile, execution};
use crate::ir::{Graph, HostTensor};
use crate::rewrite::RuleSet;
use crate::rewrite::canonicalize::rewrite_model;
use crate::runtime::ExecutionContext;
use crate::specialize;

/// Stages that stay on the device: the iterations of a loop are one stage, run again and again.
const KEPT: usize = 4;

/// Runs a model on device `ordinal`: kernels are made for these inputs. Where shapes or control
/// flow depend on data, the model runs in stages.
///
/// # Errors
/// If inputs do not fit what the model declares, a node cannot be lowered, or a stage fails.
pub fn run_on_device(
    graph: &Graph,
    inputs: &[HostTensor],
    settings: &Settings,
    ordinal: usize,
) -> Result<Vec<HostTensor>, PipelineError> {
    let graph = rewrite_model(graph, &RuleSet::load(&settings.rules)?);
    let mut device = StagedDevice {
        settings,
        ordinal,
        kept: VecDeque::new(),
    };
    let outputs = specialize::run_in_stages(&graph, inputs, |stage, data| device.run(stage, data));
    Ok(outputs?)
}

/// A device that executes stages.
struct StagedDevice<'a> {
    settings: &'a Settings,
    ordinal: usize,
    /// The stage that was run last is the first.
    kept: VecDeque<(Graph, ExecutionContext)>,
}

impl StagedDevice<'_> {
    fn run(&mut self, stage: &Graph, data: &[HostTensor]) -> Result<Vec<HostTensor>, PipelineError> {
        let known = self.kept.iter().position(|(own, _)| own == stage);
        let (graph, mut context) = match known.and_then(|position| self.kept.remove(position)) {
            Some(kept) => kept,
            None => (stage.clone(), self.prepare(stage)?),
        };
        let results = context.run(data)?;
        self.kept.truncate(KEPT - 1);
        self.kept.push_front((graph, context));
        Ok(results)
    }

    fn prepare(&self, stage: &Graph) -> Result<ExecutionContext, PipelineError> {
        let archs = [arch_of_device(self.ordinal)?];
        let engine = compile(
            std::slice::from_ref(stage),
            &archs,
            self.settings,
            &Selection::Predicted,
            &Silent,
        )?;
        execution(&engine, self.ordinal)
    }
}
