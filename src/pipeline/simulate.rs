//! Runs models on the CPU with tensors stored as an engine would store them.

use std::cell::RefCell;

use super::{PipelineError, Settings, canonical};
use crate::ir::{DType, Graph, HostTensor, TensorType};
use crate::reference;
use crate::rewrite::RuleSet;
use crate::rewrite::canonicalize::rewrite_model;
use crate::specialize;

/// A model under settings. In f32 it is the model itself; narrower kinds round every tensor that is
/// stored in them, also those that a kernel would keep in registers.
pub struct Simulation {
    graph: Graph,
    settings: Settings,
    /// What the model became for the inputs of the last run.
    last: RefCell<Option<(Vec<TensorType>, Graph)>>,
}

impl Simulation {
    /// # Errors
    /// If a rule is wrong.
    pub fn new(graph: &Graph, settings: &Settings) -> Result<Self, PipelineError> {
        Ok(Simulation {
            graph: rewrite_model(graph, &RuleSet::load(&settings.rules)?),
            settings: settings.clone(),
            last: RefCell::new(None),
        })
    }

    /// Runs the model on one tensor per input.
    ///
    /// # Errors
    /// If inputs do not fit, or a node cannot be lowered or run.
    pub fn run(&self, inputs: &[HostTensor]) -> Result<Vec<HostTensor>, PipelineError> {
        let bindings = specialize::bind_inputs(&self.graph, inputs)?;
        if self.settings.precision == DType::F32 {
            return Ok(reference::run(&self.graph, inputs)?);
        }
        let types: Vec<TensorType> = inputs.iter().map(HostTensor::ty).collect();
        let mut last = self.last.borrow_mut();
        if last.as_ref().is_none_or(|(known, _)| *known != types) {
            *last = match specialize::specialize(&self.graph, &bindings) {
                Ok(core) => Some((types, canonical(&core, &self.settings)?)),
                Err(_) => None,
            };
        }
        match &*last {
            Some((_, graph)) => Ok(reference::run(graph, inputs)?),
            None => self.run_in_stages(inputs),
        }
    }

    /// For models whose shapes or control flow depend on data.
    fn run_in_stages(&self, inputs: &[HostTensor]) -> Result<Vec<HostTensor>, PipelineError> {
        let stage =
            |core: &Graph, data: &[HostTensor]| Ok(reference::run(&canonical(core, &self.settings)?, data)?);
        Ok(specialize::run_in_stages(&self.graph, inputs, stage)?)
    }
}
