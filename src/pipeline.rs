//! The stages in order: the facade that commands and tests call.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tempfile::TempDir;

use crate::compile::{Cache, CompileError, Progress, arch_name};
use crate::cuda::{Context, CudaError, Nvrtc};
use crate::engine::{self, Engine, EngineError};
use crate::io::{IoError, Port};
use crate::ir::{DType, Graph, HostTensor};
use crate::kernel::{self, Arch, KernelOptions};
use crate::onnx::ImportError;
use crate::ops::OpError;
use crate::plan::{self, Assembly, Freedom, Identity, Thrift};
use crate::precision::calibrate::CalibrateError;
use crate::precision::metric::MetricError;
use crate::reference::{Constants, ReferenceError};
use crate::rewrite::canonicalize::{canonicalize_again, rewrite_model};
use crate::rewrite::{self, FusedGraph, RewriteError, RuleErrors, RuleOptions, RuleSet};
use crate::runtime::{DeviceEngine, ExecutionContext, RuntimeError};
use crate::specialize::{self, BindError, SpecializeError, StagesError};
use crate::tune::{self, Database, Effort, Ledger, Machine, Problem, Tactic, TuneError};

mod guided;
mod in_context;
pub mod layouts;
pub mod precise;
pub mod ptx;
mod race;
mod range;
mod refit;
mod retune;
mod scratch;
mod shared;
mod simulate;
mod staged;

use in_context::settled;
use layouts::{Guide, Layouts, Search, Taken, Times, layouts};
pub use race::Entrant;
use race::raced;
pub use range::{compile_range, regions_of_range};
pub use refit::refit;
pub use retune::{Renewal, Untunable, check_tunable, retune};
use scratch::with_scratch;
pub use simulate::Simulation;
pub use staged::{OnDevice, run_on_device};

/// What any stage can report.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum PipelineError {
    #[error(transparent)]
    #[diagnostic(transparent)]
    Import(#[from] ImportError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Io(#[from] IoError),
    #[error(transparent)]
    #[diagnostic(code(reference::failed))]
    Reference(#[from] ReferenceError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Specialize(#[from] SpecializeError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Rules(#[from] RuleErrors),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Compile(#[from] CompileError),
    #[error(transparent)]
    #[diagnostic(code(rewrite::failed))]
    Rewrite(#[from] RewriteError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Calibrate(#[from] CalibrateError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Metric(#[from] MetricError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Tune(#[from] TuneError),
    #[error(transparent)]
    #[diagnostic(code(engine::file))]
    Engine(#[from] EngineError),
    #[error("the engine takes {least} bytes of device memory at least; `--max-memory` allows {most}")]
    #[diagnostic(code(plan::memory), help("allow {least}, or use `--fp16`, or smaller shapes"))]
    Memory { most: usize, least: usize },
    #[error("{0}")]
    #[diagnostic(code(tune::engine), help("{}", .0.help()))]
    Untunable(Untunable),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Cuda(#[from] CudaError),
}

impl PipelineError {
    /// Whether this is a clean refusal of what is not supported.
    pub fn is_refusal(&self) -> bool {
        match self {
            PipelineError::Import(error) => error.is_refusal(),
            PipelineError::Io(error) => error.is_refusal(),
            PipelineError::Reference(source) | PipelineError::Rewrite(RewriteError::Constant { source }) => {
                matches!(
                    source,
                    ReferenceError::Node {
                        source: OpError::Unsupported(_),
                        ..
                    }
                )
            }
            PipelineError::Specialize(error) => error.is_unsupported(),
            PipelineError::Untunable(_) => true,
            PipelineError::Rules(_)
            | PipelineError::Compile(_)
            | PipelineError::Rewrite(_)
            | PipelineError::Calibrate(_)
            | PipelineError::Metric(_)
            | PipelineError::Tune(_)
            | PipelineError::Engine(_)
            | PipelineError::Memory { .. }
            | PipelineError::Runtime(_)
            | PipelineError::Cuda(_) => false,
        }
    }
}

impl From<BindError> for PipelineError {
    fn from(error: BindError) -> Self {
        PipelineError::Specialize(error.into())
    }
}

impl From<StagesError<PipelineError>> for PipelineError {
    fn from(error: StagesError<PipelineError>) -> Self {
        match error {
            StagesError::Specialize(error) => error.into(),
            StagesError::Stage(error) => error,
        }
    }
}

/// Streams beside its own that an execution may use unless said otherwise: networks have few branches.
pub const MAX_AUX_STREAMS: u32 = 3;

/// How a model is built.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Dims of inputs by name; other symbols are 1.
    pub shapes: Vec<(String, Vec<usize>)>,
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
    Ok(specialize::specialize_bounded(&graph, &bindings)?)
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

/// How the variant of each kernel is chosen.
#[derive(Clone, Debug, Default)]
pub enum Selection {
    /// By analytic time; needs no GPU.
    #[default]
    Predicted,
    /// On the GPU of this machine.
    OnDevice {
        ordinal: usize,
        /// Variants tried per kernel.
        max_variants: usize,
        /// Whether the right ones are timed, or the first right one is taken.
        time: bool,
        /// File of measurements, read before and written after every problem.
        database: Option<PathBuf>,
        /// When to end; every kernel has a right variant even then.
        until: Option<Instant>,
    },
    /// By a file of measurements alone, where a missing one is an error; needs no GPU.
    Recorded {
        /// Variants looked up per kernel.
        max_variants: usize,
        database: PathBuf,
    },
}

impl Selection {
    /// Whether right variants are compared by their times on a device.
    fn times(&self) -> bool {
        match self {
            Selection::Predicted => false,
            Selection::OnDevice { time, .. } => *time,
            Selection::Recorded { .. } => true,
        }
    }

    fn until(&self) -> Option<Instant> {
        match self {
            Selection::OnDevice { until, .. } => *until,
            Selection::Predicted | Selection::Recorded { .. } => None,
        }
    }

    /// The same with a file for what is measured, which lies in a folder that ends with the build, where the user
    /// names none: later steps of a build ask for times of earlier ones.
    fn with_file(&self) -> (Selection, Option<TempDir>) {
        let mut own = self.clone();
        let Selection::OnDevice {
            time: true,
            database: database @ None,
            ..
        } = &mut own
        else {
            return (own, None);
        };
        // Without one, no times are asked for.
        let folder = tempfile::tempdir().ok();
        *database = folder.as_ref().map(|folder| folder.path().join("times"));
        (own, folder)
    }

    /// Whether no time is left.
    fn is_over(&self) -> bool {
        self.until().is_some_and(|until| until <= Instant::now())
    }

    /// The file that times are kept in, and how many variants of a kernel have one.
    fn timings(&self) -> Option<(&Path, usize)> {
        match self {
            Selection::OnDevice {
                time: true,
                database: Some(database),
                max_variants,
                ..
            }
            | Selection::Recorded {
                database,
                max_variants,
            } => Some((database, *max_variants)),
            Selection::Predicted | Selection::OnDevice { .. } => None,
        }
    }

    /// Says early what would end a long build: a device that cannot try the kernels of `archs`,
    /// or a file of measurements that cannot be read or written.
    ///
    /// # Errors
    /// If there is such a thing.
    pub fn check(&self, archs: &[Arch]) -> Result<(), PipelineError> {
        let (ordinal, database) = match self {
            Selection::Predicted => return Ok(()),
            Selection::Recorded { database, .. } => {
                Database::load(database)?;
                return Ok(());
            }
            Selection::OnDevice {
                ordinal, database, ..
            } => (ordinal, database),
        };
        if let Some(path) = database {
            Database::load(path)?;
            Database::check_writable(path)?;
        }
        let context = Context::new(*ordinal)?;
        let (device, sm) = (&context.info().name, context.info().sm);
        let foreign = archs
            .iter()
            .find(|arch| !engine::executes(sm, (arch.sm, arch.specific)));
        match foreign {
            Some(&arch) => Err(PipelineError::Tune(TuneError::OtherDevice {
                arch: arch_name(arch),
                device: device.clone(),
                sm,
            })),
            None => Ok(()),
        }
    }
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
    let mut plans = Vec::new();
    for core in cores {
        for &arch in archs {
            observer.stage(&format!("fuse for {}", arch_name(arch)), 0);
            let layouts = layouts(&Search {
                core,
                arch,
                settings,
                rules: &rules,
                times: &times,
                constants: &constants,
            })?;
            plans.push(planned(layouts, arch, settings, selection, observer)?.0);
        }
    }
    let model = cores.first().map_or_else(String::new, |core| core.name.clone());
    let (mut engine, thrift) = within_memory(settings, |thrift| {
        let assembly = assembled(&plans, settings, thrift, selection, observer)?;
        finished(assembly, &model, settings)
    })?;
    if let (Thrift::Workspace, Some(most)) = (thrift, settings.max_memory) {
        for (number, plan) in plans.iter().enumerate() {
            engine = with_scratch(engine, number, plan.arch, most, selection, observer)?;
        }
    }
    for (number, plan) in plans.iter().enumerate() {
        engine = settled(engine, number, plan.arch, selection, observer)?;
    }
    Ok(engine)
}

/// What `build` makes, giving up as little as the memory that `settings` allow takes, and what that is.
fn within_memory(
    settings: &Settings,
    build: impl Fn(Thrift) -> Result<Engine, PipelineError>,
) -> Result<(Engine, Thrift), PipelineError> {
    let Some(most) = settings.max_memory else {
        return Ok((build(Thrift::None)?, Thrift::None));
    };
    let mut least = usize::MAX;
    for thrift in [Thrift::None, Thrift::Order, Thrift::Workspace] {
        let engine = build(thrift)?;
        let bytes = engine.device_bytes();
        if bytes <= most {
            return Ok((engine, thrift));
        }
        least = least.min(bytes);
    }
    Err(PipelineError::Memory { most, least })
}

/// The graph of one program, and its kernels where they are chosen already.
struct Planned {
    arch: Arch,
    fused: FusedGraph,
    tactics: Option<Vec<Tactic>>,
}

/// The fastest of several plans, by prediction or by the times of their kernels, and what it says of other shapes.
fn planned(
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
    let freedom = Freedom {
        thrift: Thrift::None,
        max_aux_streams: settings.max_aux_streams,
        states_problems: true,
    };
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

/// The programs of fused graphs, where so much is given up for less memory.
fn assembled(
    plans: &[Planned],
    settings: &Settings,
    thrift: Thrift,
    selection: &Selection,
    observer: &dyn Observer,
) -> Result<Assembly, PipelineError> {
    let mut assembly = Assembly::new();
    for Planned {
        arch,
        fused,
        tactics: known,
    } in plans
    {
        let problems = problems(fused, settings, thrift);
        let chosen = match known {
            Some(known) if thrift < Thrift::Workspace => known.clone(),
            _ => tactics(&problems, *arch, selection, observer)?,
        };
        let predicted = Freedom {
            thrift,
            max_aux_streams: settings.max_aux_streams,
            states_problems: true,
        };
        let freedom = freedom(fused, &problems, &chosen, *arch, predicted, selection)?;
        let program = plan::plan(fused, &problems, &chosen, *arch, freedom, &mut assembly);
        assembly.add(program);
    }
    Ok(assembly)
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
    };
    Ok(layouts(&search)?.predicted().fused)
}

fn in_canonical_form(core: &Graph, settings: &Settings, rules: &RuleSet, constants: &Constants) -> Graph {
    let canonical = canonical_by(core, settings, constants, |graph| {
        canonicalize_again(graph, rules, constants)
    });
    specialize::pack_weights(&canonical)
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

fn problems(fused: &FusedGraph, settings: &Settings, thrift: Thrift) -> Vec<Problem> {
    let options = settings.kernel_options();
    let problem = |number: usize| Problem {
        spec: kernel::spec(fused, number, &options),
        workspace: thrift < Thrift::Workspace,
        incumbent: None,
    };
    (0..fused.regions.len()).map(problem).collect()
}

fn tactics(
    problems: &[Problem],
    arch: Arch,
    selection: &Selection,
    observer: &dyn Observer,
) -> Result<Vec<Tactic>, PipelineError> {
    let cache = Cache::of_user();
    let stage = format!("kernels for {}", arch_name(arch));
    observer.stage(&stage, problems.len());
    let progress = |n_done, n_steps| observer.step(n_done, n_steps);
    match selection {
        Selection::Predicted => Ok(tune::predict(problems, arch, &cache, &progress)?),
        Selection::Recorded {
            max_variants,
            database: path,
        } => {
            let database = Database::load(path)?;
            let machine = recorded_machine(&database, path, arch, n_contexts(problems))?;
            let known = (&machine, &database);
            Ok(tune::recall(
                problems,
                arch,
                known,
                *max_variants,
                &cache,
                &progress,
            )?)
        }
        Selection::OnDevice {
            ordinal,
            max_variants,
            time,
            database: path,
            until,
        } => {
            let effort = Effort {
                max_variants: *max_variants,
                time: *time,
                cold_weights: false,
                until: *until,
            };
            let database = path.as_deref();
            measured(problems, arch, *ordinal, database, effort, &progress)
        }
    }
}

/// How the kernels of `core` are predicted beside the times in the file at `timings`.
///
/// # Errors
/// If the file cannot be read, or holds no times for `arch` and this NVRTC.
pub fn rank(
    core: &Graph,
    arch: Arch,
    settings: &Settings,
    timings: &Path,
) -> Result<Vec<tune::Ranked>, PipelineError> {
    let fused = regions(core, arch, settings)?;
    let database = Database::load(timings)?;
    let machine = recorded_machine(&database, timings, arch, settings.n_contexts)?;
    let problems = problems(&fused, settings, Thrift::default());
    Ok(tune::rank(&problems, arch, &machine, &database)?)
}

/// The machine of a device, with this NVRTC and so many executions at once.
fn machine_of(context: &Context, arch: Arch, n_contexts: usize) -> Result<Machine, PipelineError> {
    let machine = Machine::new(context.info(), nvrtc()?.version().to_string(), arch);
    Ok(machine.shared_by(n_contexts))
}

/// The machine whose times in the file at `path` decide, of so many executions at once: the only one for `arch` and
/// this NVRTC, or where there are several, this one.
fn recorded_machine(
    database: &Database,
    path: &Path,
    arch: Arch,
    n_contexts: usize,
) -> Result<Machine, PipelineError> {
    let (arch_name, nvrtc) = (arch_name(arch), nvrtc()?.version().to_string());
    let fitting: Vec<&Machine> = database
        .machines()
        .into_iter()
        .filter(|machine| machine.arch == arch_name && machine.nvrtc == nvrtc)
        .filter(|machine| machine.n_contexts == n_contexts)
        .collect();
    if let [only] = fitting[..] {
        return Ok(only.clone());
    }
    let own = Context::new(0).map_err(PipelineError::from);
    match own.and_then(|context| machine_of(&context, arch, n_contexts)) {
        Ok(own) if fitting.contains(&&own) => Ok(own),
        _ => Err(PipelineError::Tune(TuneError::CacheMachine {
            path: path.to_owned(),
            arch: if n_contexts > 1 {
                format!("{n_contexts} executions at once on {arch_name}")
            } else {
                arch_name
            },
            nvrtc,
            machines: fitting
                .iter()
                .map(|machine| format!("{} with driver {}", machine.device, machine.driver))
                .collect(),
        })),
    }
}

fn measured(
    problems: &[Problem],
    arch: Arch,
    ordinal: usize,
    path: Option<&Path>,
    effort: Effort,
    progress: Progress<'_>,
) -> Result<Vec<Tactic>, PipelineError> {
    let context = Context::new(ordinal)?;
    let machine = machine_of(&context, arch, n_contexts(problems))?;
    let mut database = path.map_or_else(|| Ok(Database::default()), Database::load)?;
    let effort = Effort {
        cold_weights: weights_bytes(problems) > context.info().l2_bytes,
        ..effort
    };
    let mut ledger = Ledger::new(&machine, &mut database, path);
    let cache = Cache::of_user();
    Ok(tune::measure(
        problems,
        arch,
        &context,
        &mut ledger,
        effort,
        &cache,
        progress,
    )?)
}

/// Contexts that the kernels of problems are chosen for: the same for all of a build.
fn n_contexts(problems: &[Problem]) -> usize {
    let first = problems.first().map(|problem| problem.spec.options);
    first.unwrap_or_default().n_contexts
}

fn weights_bytes(problems: &[Problem]) -> usize {
    let of = |problem: &Problem| {
        let types = problem.spec.input_types();
        let weights = problem.spec.weights.iter();
        weights.map(|&number| types[number].n_bytes()).sum::<usize>()
    };
    problems.iter().map(of).sum()
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
