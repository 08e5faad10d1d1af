//! An engine on a device.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::RuntimeError;
use crate::cuda::{Context, CudaError, DeviceMemory, Function, Module, Stream};
use crate::engine::{Code, Engine, Header, Kernel, Needs, Profile, Program, SharedProgram};
use crate::ir::TensorType;

/// Modules and weights of one engine, ready to be launched by execution contexts.
#[derive(Debug)]
pub struct DeviceEngine {
    pub(super) context: Arc<Context>,
    pub(super) weights: DeviceMemory,
    header: Header,
    /// One per listed profile.
    listed: Vec<Arc<LoadedProgram>>,
    /// Of a range.
    shared: Option<SharedFunctions>,
    /// What every program can be executed in.
    needs: Needs,
}

/// A program, what it takes and gives, and its kernels.
#[derive(Debug)]
pub(super) struct LoadedProgram {
    pub profile: Profile,
    pub program: Program,
    /// One per kernel of the program.
    pub functions: Vec<Function>,
}

/// The kernels of the programs of a range.
#[derive(Debug)]
struct SharedFunctions {
    /// Which of the range's architectures they are of.
    arch: usize,
    functions: Vec<Function>,
}

impl DeviceEngine {
    /// Loads the kernels that fit the device, and uploads the weights.
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
        if engine.header.stripped.is_some() {
            return Err(RuntimeError::Stripped);
        }
        let profiles = 0..engine.header.profiles.len();
        let fitting = profiles.map(|profile| engine.code_for(info.sm, profile));
        let fitting: Vec<(&Program, Code)> = fitting.collect::<Option<_>>().ok_or_else(missing)?;
        if fitting.is_empty() {
            return Err(missing());
        }
        let weights = DeviceMemory::new(context, engine.weights().len())?;
        Stream::new(context)?.upload_now(&weights, 0, engine.weights())?;
        let mut loader = Loader {
            engine,
            context,
            modules: BTreeMap::new(),
            allowed: BTreeMap::new(),
        };
        let mut needs = Needs::default();
        let mut listed = Vec::with_capacity(fitting.len());
        for (program, code) in fitting {
            listed.push(Arc::new(loader.program(program, code)?));
            needs = needs.and(Needs::of(program));
        }
        let mut shared = None;
        if let Some(range) = &engine.header.shared {
            let (arch, code) = engine.shared_code_for(info.sm).ok_or_else(missing)?;
            let own = range.archs[arch].kernels.iter();
            let functions = own.map(|own| loader.function(&own.kernel, code, own.smem_bytes));
            let functions = functions.collect::<Result<_, _>>()?;
            shared = Some(SharedFunctions { arch, functions });
            needs = needs.and(range.archs[arch].needs);
        }
        Ok(Arc::new(DeviceEngine {
            context: Arc::clone(context),
            weights,
            header: engine.header.clone(),
            listed,
            shared,
            needs,
        }))
    }

    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// What the engine says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Bindings of the dims that the engine has.
    pub fn n_profiles(&self) -> usize {
        self.header.n_profiles()
    }

    /// What the engine takes and gives for a binding of its dims.
    ///
    /// # Errors
    /// If there is no such profile, or the engine is damaged.
    pub fn profile(&self, profile: usize) -> Result<Profile, RuntimeError> {
        let n_profiles = self.n_profiles();
        if profile >= n_profiles {
            return Err(RuntimeError::Profile { profile, n_profiles });
        }
        Ok(self.header.profile(profile)?.into_owned())
    }

    /// What every program can be executed in.
    pub(super) fn needs(&self) -> Needs {
        self.needs
    }

    /// The program of a profile with its kernels.
    ///
    /// # Errors
    /// If there is no such profile, or the engine is damaged.
    pub(super) fn loaded(&self, profile: usize) -> Result<Arc<LoadedProgram>, RuntimeError> {
        if let Some(listed) = self.listed.get(profile) {
            return Ok(Arc::clone(listed));
        }
        let n_profiles = self.n_profiles();
        let shared = self.shared.as_ref();
        let shared = shared.ok_or(RuntimeError::Profile { profile, n_profiles })?;
        let SharedProgram {
            profile,
            kernels,
            program,
        } = self.header.shared_program(shared.arch, profile)?;
        let functions = kernels.into_iter().map(|kernel| shared.functions[kernel].clone());
        Ok(Arc::new(LoadedProgram {
            profile,
            functions: functions.collect(),
            program,
        }))
    }

    /// The profile that takes inputs of these types.
    ///
    /// # Errors
    /// If there is none; where all profiles agree on the count and kinds, with the shapes that exist.
    pub fn profile_for(&self, inputs: &[TensorType]) -> Result<usize, RuntimeError> {
        let first = &self.header.profiles[0].inputs;
        if first.len() != inputs.len() {
            return Err(RuntimeError::InputCount {
                wanted: first.len(),
                found: inputs.len(),
            });
        }
        if let Some(profile) = self.header.profile_for(inputs)? {
            return Ok(profile);
        }
        let fits = |position: usize, ty: &TensorType| {
            let mut profiles = self.header.profiles.iter();
            let is_listed = profiles.any(|profile| profile.inputs[position].ty() == *ty);
            let shared = self.header.shared.as_ref();
            is_listed || shared.is_some_and(|shared| shared.extents.fits(position, &first[position], ty))
        };
        let misfit = |position: &usize| !fits(*position, &inputs[*position]);
        let position = (0..inputs.len()).find(misfit).unwrap_or(0);
        Err(RuntimeError::InputType {
            name: first[position].name.clone(),
            wanted: self.header.spanned_input(position),
            found: inputs[position].clone(),
        })
    }
}

/// Loads the code of every kernel once.
struct Loader<'a> {
    engine: &'a Engine,
    context: &'a Arc<Context>,
    /// By blob.
    modules: BTreeMap<usize, Arc<Module>>,
    /// Dynamic shared memory of kernels, by blob and name: programs may launch one with more or less.
    allowed: BTreeMap<(usize, String), u32>,
}

impl Loader<'_> {
    fn program(&mut self, program: &Program, code: Code) -> Result<LoadedProgram, CudaError> {
        let mut functions = Vec::with_capacity(program.kernels.len());
        for (number, kernel) in program.kernels.iter().enumerate() {
            let own = program.launches.iter().filter(|launch| launch.kernel == number);
            let smem_bytes = own.map(|launch| launch.smem_bytes).max().unwrap_or(0);
            functions.push(self.function(kernel, code, smem_bytes)?);
        }
        Ok(LoadedProgram {
            profile: self.engine.header.profiles[program.profile].clone(),
            program: program.clone(),
            functions,
        })
    }

    /// A kernel, opted in to the shared memory that its launches use.
    fn function(&mut self, kernel: &Kernel, code: Code, smem_bytes: u32) -> Result<Function, CudaError> {
        let image = match code {
            Code::Cubin => kernel.cubin,
            Code::Ptx => kernel.ptx.expect("code_for() saw PTX of every kernel"),
        };
        let module = match self.modules.get(&image) {
            Some(module) => Arc::clone(module),
            None => Module::load(self.context, &self.engine.blobs[image])?,
        };
        let function = module.function(&kernel.name)?;
        self.modules.insert(image, module);
        let allowed = self.allowed.entry((image, kernel.name.clone())).or_insert(0);
        if smem_bytes > *allowed {
            function.allow_dynamic_smem(smem_bytes)?;
            *allowed = smem_bytes;
        }
        Ok(function)
    }
}
