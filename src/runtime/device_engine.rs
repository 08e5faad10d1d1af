//! An engine on a device.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::RuntimeError;
use crate::cuda::{Context, CudaError, DeviceMemory, Function, Module, Stream};
use crate::engine::{self, Code, Engine, Profile, Program};
use crate::ir::TensorType;

/// Modules and weights of one engine, ready to be launched by execution contexts.
#[derive(Debug)]
pub struct DeviceEngine {
    pub(super) context: Arc<Context>,
    /// One per profile.
    pub(super) programs: Vec<LoadedProgram>,
    pub(super) weights: DeviceMemory,
    profiles: Vec<Profile>,
}

/// A program and its kernels.
#[derive(Debug)]
pub(super) struct LoadedProgram {
    pub program: Program,
    /// One per kernel of the program.
    pub functions: Vec<Function>,
}

impl DeviceEngine {
    /// Loads the programs that fit the device, and uploads the weights.
    ///
    /// # Errors
    /// If the engine has no programs for the device, or the device refuses.
    pub fn load(engine: &Engine, context: &Arc<Context>) -> Result<Arc<Self>, RuntimeError> {
        let info = context.info();
        let missing = || RuntimeError::NoProgram {
            device: info.name.clone(),
            sm: info.sm,
            archs: engine.header.archs().join(", "),
        };
        let n_profiles = engine.header.profiles.len();
        if engine.header.stripped.is_some() {
            return Err(RuntimeError::Stripped);
        }
        let fitting = (0..n_profiles).map(|profile| engine.code_for(info.sm, profile));
        let fitting: Vec<(&Program, Code)> = fitting.collect::<Option<_>>().ok_or_else(missing)?;
        if fitting.is_empty() {
            return Err(missing());
        }
        let weights = DeviceMemory::new(context, engine.weights().len())?;
        Stream::new(context)?.upload_now(&weights, 0, engine.weights())?;
        Ok(Arc::new(DeviceEngine {
            programs: loaded(engine, &fitting, context)?,
            context: Arc::clone(context),
            weights,
            profiles: engine.header.profiles.clone(),
        }))
    }

    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// What the engine takes and gives, once for each binding of its dims.
    pub fn profiles(&self) -> &[Profile] {
        &self.profiles
    }

    /// The launches of a profile.
    pub fn program(&self, profile: usize) -> &Program {
        &self.programs[profile].program
    }

    /// The profile that takes inputs of these types.
    ///
    /// # Errors
    /// If there is none; where all profiles agree on the count and kinds, with the shapes that exist.
    pub fn profile_for(&self, inputs: &[TensorType]) -> Result<usize, RuntimeError> {
        let first = &self.profiles[0].inputs;
        if first.len() != inputs.len() {
            return Err(RuntimeError::InputCount {
                wanted: first.len(),
                found: inputs.len(),
            });
        }
        let takes = |profile: &Profile| {
            let mut pairs = profile.inputs.iter().zip(inputs);
            pairs.all(|(binding, ty)| binding.ty() == *ty)
        };
        if let Some(profile) = self.profiles.iter().position(takes) {
            return Ok(profile);
        }
        let fits_nowhere = |position: &usize| {
            let mut profiles = self.profiles.iter();
            !profiles.any(|profile| profile.inputs[*position].ty() == inputs[*position])
        };
        let position = (0..inputs.len()).find(fits_nowhere).unwrap_or(0);
        Err(RuntimeError::InputType {
            name: first[position].name.clone(),
            wanted: engine::spanned(self.profiles.iter().map(|profile| &profile.inputs[position])),
            found: inputs[position].clone(),
        })
    }
}

/// Loads the code of every kernel once, and opts its kernels in to the shared memory that launches use.
fn loaded(
    engine: &Engine,
    programs: &[(&Program, Code)],
    context: &Arc<Context>,
) -> Result<Vec<LoadedProgram>, CudaError> {
    let mut modules: BTreeMap<usize, Arc<Module>> = BTreeMap::new();
    let mut loaded = Vec::with_capacity(programs.len());
    for &(program, code) in programs {
        let mut functions = Vec::with_capacity(program.kernels.len());
        for (number, kernel) in program.kernels.iter().enumerate() {
            let image = match code {
                Code::Cubin => kernel.cubin,
                Code::Ptx => kernel.ptx.expect("code_for() saw PTX of every kernel"),
            };
            let module = match modules.get(&image) {
                Some(module) => Arc::clone(module),
                None => Module::load(context, &engine.blobs[image])?,
            };
            let function = module.function(&kernel.name)?;
            modules.insert(image, module);
            let own = program.launches.iter().filter(|launch| launch.kernel == number);
            let smem_bytes = own.map(|launch| launch.smem_bytes).max().unwrap_or(0);
            if smem_bytes > 0 {
                function.allow_dynamic_smem(smem_bytes)?;
            }
            functions.push(function);
        }
        loaded.push(LoadedProgram {
            program: program.clone(),
            functions,
        });
    }
    Ok(loaded)
}
