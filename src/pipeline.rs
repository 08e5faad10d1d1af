//! The stages in order: the facade that commands and tests call.

use std::sync::Arc;

use crate::compile::{CompileError, arch_name};
use crate::cuda::{Context, Nvrtc};
use crate::engine::Engine;
use crate::io::Port;
use crate::ir::{DType, Graph, HostTensor};
use crate::kernel::{Arch, KernelOptions};
use crate::reference::Constants;
use crate::rewrite::canonicalize::{canonicalize_again, rewrite_model};
use crate::rewrite::{self, FusedGraph, RuleOptions, RuleSet};
use crate::runtime::{DeviceEngine, ExecutionContext};
use crate::specialize;

mod error;
mod families;
mod guided;
mod held;
mod in_context;
pub mod layouts;
mod memory;
mod outline;
pub mod precise;
mod predictions;
mod programs;
pub mod ptx;
mod race;
mod range;
mod refit;
mod retune;
mod scratch;
mod selection;
mod shared;
mod simulate;
mod staged;
mod strips;
mod tactics;

pub use error::PipelineError;
use layouts::{Search, Times, layouts};
use programs::{Programs, planned};
pub use race::Entrant;
pub use range::{compile_range, regions_of_range};
pub use refit::refit;
pub use retune::{Renewal, Untunable, check_tunable, retune};
pub use selection::Selection;
pub use simulate::Simulation;
pub use staged::{OnDevice, run_on_device};
use strips::Source;
pub use tactics::rank;

/// Streams beside its own that an execution may use unless said otherwise: networks have few branches.
pub const MAX_AUX_STREAMS: u32 = 3;

/// How a model is built.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Dims of inputs by name; other symbols are 1.
    pub shapes: Vec<(String, Vec<usize>)>,
    /// Limits by the names of tensors, for extents that data decides and nothing else limits.
    pub bounds: Vec<(String, usize)>,
    /// Kind activations and weights are stored in: f32, f16 or bf16.
    pub precision: DType,
    /// Whether products of f32 may use TF32.
    pub tf32: bool,
    /// Bytes of device memory that weights, activations and scratch memory of one execution may take.
    pub max_memory: Option<usize>,
    /// Most streams that one execution may use beside its own.
    pub max_aux_streams: u32,
    /// Execution contexts that execute at the same time, which kernels are chosen for.
    pub n_contexts: usize,
    /// ONNX nodes whose work stays in f32 where `precision` is narrower.
    pub wide: specialize::Wide,
    pub rules: RuleOptions,
}

impl Settings {
    /// All rules, nothing bound, bounded or pinned, and values stored in `precision`.
    pub fn stored_in(precision: DType) -> Self {
        Settings {
            shapes: Vec::new(),
            bounds: Vec::new(),
            precision,
            tf32: false,
            max_memory: None,
            max_aux_streams: MAX_AUX_STREAMS,
            n_contexts: 1,
            wide: specialize::Wide::new(),
            rules: RuleOptions::default(),
        }
    }

    /// What these settings say about every kernel.
    pub fn kernel_options(&self) -> KernelOptions {
        KernelOptions {
            tf32: self.tf32,
            n_contexts: self.n_contexts,
        }
    }

    /// The same for a model as it was given.
    pub fn in_f32(&self) -> Self {
        Settings {
            precision: DType::F32,
            ..self.clone()
        }
    }
}

/// What the inputs of a graph are called, and their kinds.
pub fn ports(graph: &Graph) -> Vec<Port> {
    let port = |value: &crate::ir::Value| Port {
        name: value.name.clone(),
        dtype: value.ty.as_ref().map(|ty| ty.dtype),
    };
    graph
        .inputs
        .iter()
        .map(|&input| port(graph.value(input)))
        .collect()
}

/// The static graph of core ops for the shapes of `settings`; extents that data decides are as large as they
/// can become, see [`Graph::bounds`].
///
/// # Errors
/// If the shapes do not fit the model, or nodes cannot be lowered.
pub fn lower(graph: &Graph, settings: &Settings) -> Result<Graph, PipelineError> {
    let graph = rewrite_model(graph, &RuleSet::load(&settings.rules)?);
    let bindings = specialize::bind(&graph, &settings.shapes)?;
    Ok(specialize::specialize_bounded(
        &graph,
        &bindings,
        &settings.bounds,
    )?)
}

/// Says early whether there is an NVRTC to compile kernels with.
///
/// # Errors
/// If there is none: where it was looked for and how to get it.
pub fn check_nvrtc() -> Result<(), PipelineError> {
    match Nvrtc::get() {
        Ok(_) => Ok(()),
        Err(missing) => Err(CompileError::NoNvrtc(missing.clone()).into()),
    }
}

/// Runs a model on the reference interpreter, after the rules of the model phases; in a narrow
/// precision as [`Simulation`] does.
///
/// # Errors
/// If a rule is wrong, inputs do not fit what the model declares, or a node fails.
pub fn run_reference(
    graph: &Graph,
    inputs: &[HostTensor],
    settings: &Settings,
) -> Result<Vec<HostTensor>, PipelineError> {
    Simulation::new(graph, settings)?.run(inputs)
}

/// Runs the regions that a model is cut into on the reference interpreter: what a device computes,
/// but for the kernels themselves. Regions are those for the newest architecture.
///
/// # Errors
/// If inputs do not fit what the model declares, nodes cannot be lowered, or a region fails.
pub fn run_regions(
    graph: &Graph,
    inputs: &[HostTensor],
    settings: &Settings,
) -> Result<Vec<HostTensor>, PipelineError> {
    let graph = rewrite_model(graph, &RuleSet::load(&settings.rules)?);
    let newest = Arch {
        sm: 90,
        specific: true,
    };
    let outputs = specialize::run_in_stages(&graph, inputs, |stage, data| {
        let fused = regions(stage, newest, settings)?;
        Ok(rewrite::run_fused(&fused, data)?)
    });
    Ok(outputs?)
}

/// Is told of stages and their steps.
pub trait Observer: Sync {
    /// A stage begins; `n_steps` is zero where it has no countable steps.
    fn stage(&self, name: &str, n_steps: usize);
    /// So many steps of so many are done.
    fn step(&self, n_done: usize, n_steps: usize);
}

/// An observer that is not interested.
pub struct Silent;

impl Observer for Silent {
    fn stage(&self, _: &str, _: usize) {}
    fn step(&self, _: usize, _: usize) {}
}

/// Compiles static core graphs, as [`lower`] gives them, for each of `archs`: one model with its
/// dims bound in one or several ways.
///
/// # Errors
/// If a rule is wrong, NVRTC is missing, or kernels cannot be made.
pub fn compile(
    cores: &[Graph],
    archs: &[Arch],
    settings: &Settings,
    selection: &Selection,
    observer: &dyn Observer,
) -> Result<Engine, PipelineError> {
    let (selection, _folder) = selection.with_file();
    let selection = &selection;
    let rules = RuleSet::load(&settings.rules)?;
    let (times, constants) = (Times::default(), Constants::default());
    let (mut programs, mut sources) = (Programs::default(), Vec::new());
    for core in cores {
        for &arch in archs {
            observer.stage(&format!("fuse for {}", arch_name(arch)), 0);
            let search = Search {
                core,
                arch,
                settings,
                rules: &rules,
                times: &times,
                constants: &constants,
                derivations: None,
            };
            let (plan, guide) = planned(layouts(&search)?, arch, settings, selection, observer)?;
            programs.own.push(plan);
            sources.push(Source { search, guide });
        }
    }
    let model = cores.first().map_or("", |core| &core.name);
    strips::build(programs, sources, model, settings, selection, observer)
}

/// The graph that the e-graph starts from.
///
/// # Errors
/// If a rule is wrong.
pub fn canonical(core: &Graph, settings: &Settings) -> Result<Graph, PipelineError> {
    let rules = RuleSet::load(&settings.rules)?;
    Ok(in_canonical_form(core, settings, &rules, &Constants::default()))
}

/// The regions that `core` is cut into for `arch`, in the layouts that are predicted fastest.
///
/// # Errors
/// If a rule is wrong.
pub fn regions(core: &Graph, arch: Arch, settings: &Settings) -> Result<FusedGraph, PipelineError> {
    regions_timed(core, arch, settings, &Times::default())
}

/// As [`regions`], where `times` are those of kernels known by now.
///
/// # Errors
/// If a rule is wrong.
pub fn regions_timed(
    core: &Graph,
    arch: Arch,
    settings: &Settings,
    times: &Times,
) -> Result<FusedGraph, PipelineError> {
    let rules = RuleSet::load(&settings.rules)?;
    let search = Search {
        core,
        arch,
        settings,
        rules: &rules,
        times,
        constants: &Constants::default(),
        derivations: None,
    };
    Ok(layouts(&search)?.predicted().fused)
}

fn in_canonical_form(core: &Graph, settings: &Settings, rules: &RuleSet, constants: &Constants) -> Graph {
    let canonical = canonical_by(core, settings, constants, |graph| {
        canonicalize_again(graph, rules, constants)
    });
    specialize::pack_weights(canonical)
}

/// The graph that the e-graph starts from, where `canonicalize` does a pass: it is asked once
/// in `f32`, and once more after values were narrowed.
pub fn canonical_by(
    core: &Graph,
    settings: &Settings,
    constants: &Constants,
    mut canonicalize: impl FnMut(&Graph) -> Graph,
) -> Graph {
    match settings.precision {
        DType::F32 => canonicalize(core),
        // Casts would hide the spellings that rules recognise.
        narrow => {
            let recognised = canonicalize(core);
            canonicalize(&specialize::lower_except(&recognised, narrow, &settings.wide, constants).0)
        }
    }
}

fn nvrtc() -> Result<&'static Nvrtc, PipelineError> {
    Nvrtc::get().map_err(|missing| CompileError::NoNvrtc(missing.clone()).into())
}

/// Puts an engine on device `ordinal`; execution contexts are made of what it gives.
///
/// # Errors
/// If the device cannot run it.
pub fn on_device(engine: &Engine, ordinal: usize) -> Result<Arc<DeviceEngine>, PipelineError> {
    let context = Context::new(ordinal)?;
    Ok(DeviceEngine::load(engine, &context)?)
}

/// Puts an engine on device `ordinal`, ready to run.
///
/// # Errors
/// If the device cannot run it.
pub fn execution(engine: &Engine, ordinal: usize) -> Result<ExecutionContext, PipelineError> {
    Ok(ExecutionContext::new(&on_device(engine, ordinal)?)?)
}

/// The architecture to compile for when only device `ordinal` will run the engine.
///
/// # Errors
/// Without such a device.
pub fn arch_of_device(ordinal: usize) -> Result<Arch, PipelineError> {
    let sm = Context::new(ordinal)?.info().sm;
    Ok(Arch {
        sm,
        // The only architecture whose own features have templates.
        specific: sm == 90,
    })
}
