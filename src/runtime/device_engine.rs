//! An engine on a device.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::RuntimeError;
use crate::cuda::{Context, CudaError, DeviceMemory, Function, Module, Stream};
use crate::engine::{Binding, Engine, Program};

/// Modules and weights of one engine, ready to be launched by execution contexts.
#[derive(Debug)]
pub struct DeviceEngine {
    pub(super) context: Arc<Context>,
    pub(super) program: Program,
    /// One per kernel of the program.
    pub(super) functions: Vec<Function>,
    pub(super) weights: DeviceMemory,
    inputs: Vec<Binding>,
    outputs: Vec<Binding>,
}

impl DeviceEngine {
    /// Loads the program that fits the device, and uploads the weights.
    ///
    /// # Errors
    /// If the engine has no program for the device, or the device refuses.
    pub fn load(engine: &Engine, context: &Arc<Context>) -> Result<Arc<Self>, RuntimeError> {
        let info = context.info();
        let program = engine
            .program_for(info.sm)
            .ok_or_else(|| RuntimeError::NoProgram {
                device: info.name.clone(),
                sm: info.sm,
                archs: archs(engine),
            })?;
        let weights = DeviceMemory::new(context, engine.weights().len())?;
        Stream::new(context)?.upload_now(&weights, 0, engine.weights())?;
        Ok(Arc::new(DeviceEngine {
            functions: functions(engine, program, context)?,
            context: Arc::clone(context),
            program: program.clone(),
            weights,
            inputs: engine.header.inputs.clone(),
            outputs: engine.header.outputs.clone(),
        }))
    }

    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    pub fn inputs(&self) -> &[Binding] {
        &self.inputs
    }

    pub fn outputs(&self) -> &[Binding] {
        &self.outputs
    }

    /// The launches that run.
    pub fn program(&self) -> &Program {
        &self.program
    }
}

fn archs(engine: &Engine) -> String {
    let names: Vec<&str> = engine
        .header
        .programs
        .iter()
        .map(|program| program.arch.as_str())
        .collect();
    names.join(", ")
}

/// Loads every cubin once, and opts its kernels in to the shared memory that launches use.
fn functions(engine: &Engine, program: &Program, context: &Arc<Context>) -> Result<Vec<Function>, CudaError> {
    let mut modules: BTreeMap<usize, Arc<Module>> = BTreeMap::new();
    let mut functions = Vec::with_capacity(program.kernels.len());
    for (number, kernel) in program.kernels.iter().enumerate() {
        let module = match modules.get(&kernel.cubin) {
            Some(module) => Arc::clone(module),
            None => Module::load(context, &engine.blobs[kernel.cubin])?,
        };
        let function = module.function(&kernel.name)?;
        modules.insert(kernel.cubin, module);
        let own = program.launches.iter().filter(|launch| launch.kernel == number);
        let smem_bytes = own.map(|launch| launch.smem_bytes).max().unwrap_or(0);
        if smem_bytes > 0 {
            function.allow_dynamic_smem(smem_bytes)?;
        }
        functions.push(function);
    }
    Ok(functions)
}
