//! Models that run on a device without an engine of their own, because data decides what follows.

use std::collections::VecDeque;

use super::{PipelineError, Selection, Settings, Silent, arch_of_device, compile, execution};
use crate::ir::{Graph, HostTensor, TensorType};
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
    let mut device = StagedDevice::new(settings, ordinal);
    let outputs = specialize::run_in_stages(&graph, inputs, |stage, data| device.run(stage, data));
    Ok(outputs?)
}

/// A device on which one model runs on many inputs: kernels are made when inputs of their types come first.
pub struct OnDevice<'a> {
    device: StagedDevice<'a>,
    /// The model after the rules of its phase.
    model: Option<Graph>,
    /// What executes the whole model for inputs of these types; nothing where it runs in stages.
    whole: Option<(Vec<TensorType>, ExecutionContext)>,
}

impl<'a> OnDevice<'a> {
    pub fn new(ordinal: usize, settings: &'a Settings) -> Self {
        OnDevice {
            device: StagedDevice::new(settings, ordinal),
            model: None,
            whole: None,
        }
    }

    /// Runs the model, which is the same every time.
    ///
    /// # Errors
    /// As [`run_on_device`].
    pub fn run(&mut self, model: &Graph, inputs: &[HostTensor]) -> Result<Vec<HostTensor>, PipelineError> {
        let types: Vec<TensorType> = inputs.iter().map(HostTensor::ty).collect();
        if let Some((own, context)) = &mut self.whole
            && *own == types
        {
            return Ok(context.run(inputs)?);
        }
        let rules = RuleSet::load(&self.device.settings.rules)?;
        let model = &*self.model.get_or_insert_with(|| rewrite_model(model, &rules));
        let bindings = specialize::bind_inputs(model, inputs)?;
        let Ok(core) = specialize::specialize(model, &bindings) else {
            // Shapes or control flow depend on data.
            let device = &mut self.device;
            let outputs = specialize::run_in_stages(model, inputs, |stage, data| device.run(stage, data));
            return Ok(outputs?);
        };
        let mut context = self.device.prepare(&core)?;
        let outputs = context.run(inputs)?;
        self.whole = Some((types, context));
        Ok(outputs)
    }
}

/// A device that executes stages.
struct StagedDevice<'a> {
    settings: &'a Settings,
    ordinal: usize,
    /// The stage that was run last is the first.
    kept: VecDeque<(Graph, ExecutionContext)>,
}

impl<'a> StagedDevice<'a> {
    fn new(settings: &'a Settings, ordinal: usize) -> Self {
        StagedDevice {
            settings,
            ordinal,
            kept: VecDeque::new(),
        }
    }

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
