//! The command line, as data.

#![allow(
    clippy::doc_markdown,
    reason = "comments on arguments are what `--help` prints"
)]

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// Compile ONNX models to self-contained CUDA engines, and run them.
///
/// Exit codes: 0 done, 1 failed, 2 usage, 3 refused (an operator, type or feature is not supported).
#[derive(Debug, Parser)]
#[command(name = "rtrt-codegen", version, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Turn a model into an engine; no GPU is needed.
    Compile(CompileArgs),
    /// Give an engine the kernels that are fastest on the GPU of this machine, without its model.
    Tune(TuneArgs),
    /// Give an engine whose weights were stripped those of its model.
    Refit(RefitArgs),
    /// Execute a model or an engine on given inputs.
    Run(RunArgs),
    /// Time an engine or a model on the GPU.
    Bench(BenchArgs),
    /// Compare what is compiled with the reference, ONNX Runtime or known outputs.
    Verify(VerifyArgs),
    /// Say what is in a model or an engine.
    Inspect(InspectArgs),
    /// Take the ranges of a model's tensors from samples.
    Calibrate(CalibrateArgs),
    /// Look at the rewrite rules.
    Rules(RulesArgs),
    /// Say what this machine offers and what is missing.
    Doctor(DoctorArgs),
}

#[derive(Debug, Args)]
pub struct CompileArgs {
    /// The ONNX model.
    pub model: PathBuf,
    /// Architectures to build for, separated by commas: sm_75, sm_80, sm_86, sm_87, sm_89, sm_90,
    /// sm_90a, sm_100, sm_120.
    #[arg(long, value_name = "ARCH")]
    pub arch: String,
    /// Where the engine goes; the model's name with `.engine` unless given.
    #[arg(
        short = 'o',
        long = "output",
        visible_alias = "saveEngine",
        value_name = "FILE"
    )]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub build: BuildArgs,
    /// Time variants on the GPU of this machine and keep the fastest correct ones.
    #[arg(long)]
    pub tune: bool,
    /// File that keeps every timing and is reused by the next build.
    #[arg(long = "timingCacheFile", value_name = "FILE")]
    pub timing_cache_file: Option<PathBuf>,
    /// Choose variants by the timing cache alone, without a GPU; a timing that it lacks is an error.
    #[arg(
        long = "errorOnTimingCacheMiss",
        requires = "timing_cache_file",
        conflicts_with_all = ["verify_kernels", "build_budget"]
    )]
    pub error_on_timing_cache_miss: bool,
    /// When tuning ends, from the start of the build: `90`, `90s` or `5m`. Every kernel is a right one
    /// even then; what takes longest in an execution is tuned first.
    #[arg(long, visible_alias = "buildBudget", value_name = "TIME", requires = "tune", value_parser = super::build::duration)]
    pub build_budget: Option<Duration>,
    /// Variants tried per kernel when tuning.
    #[arg(long = "maxTactics", value_name = "N", default_value_t = crate::tune::TRIED)]
    pub max_tactics: usize,
    /// Streams that will execute at the same time, each with a context of its own. For several, kernels are chosen by
    /// what they leave of the device for the others, at the cost of a single execution's time.
    #[arg(long = "infStreams", visible_alias = "streams", value_name = "N", default_value_t = 1, value_parser = super::build::n_contexts)]
    pub inf_streams: usize,
    /// Print each kernel with its ONNX nodes, its rules, what it saves, and the choices that lost.
    #[arg(long)]
    pub explain: bool,
    /// Write the generated CUDA sources into this folder.
    #[arg(long, value_name = "DIR")]
    pub dump_kernels: Option<PathBuf>,
    /// Run every kernel on the GPU and compare it with the reference before saving.
    #[arg(long)]
    pub verify_kernels: bool,
    /// Also store PTX of the newest plain architecture, which the driver of a newer device compiles when it
    /// loads the engine.
    #[arg(long)]
    pub ptx: bool,
    /// Leave the weights out; `refit` gives them back.
    #[arg(long = "strip-weights", visible_alias = "stripWeights")]
    pub strip_weights: bool,
    /// Sign the engine with this ed25519 key: PEM or DER (PKCS#8), or a seed of 32 bytes.
    #[arg(long = "sign-key", value_name = "FILE")]
    pub sign_key: Option<PathBuf>,
    /// Machine-readable report on stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct TuneArgs {
    /// The engine.
    pub engine: PathBuf,
    /// Where the tuned engine goes; in the place of the given one unless said otherwise.
    #[arg(
        short = 'o',
        long = "output",
        visible_alias = "saveEngine",
        value_name = "FILE"
    )]
    pub output: Option<PathBuf>,
    /// File that keeps every timing and is reused by the next build.
    #[arg(long = "timingCacheFile", value_name = "FILE")]
    pub timing_cache_file: Option<PathBuf>,
    /// Choose variants by the timing cache alone, without a GPU; a timing that it lacks is an error.
    #[arg(
        long = "errorOnTimingCacheMiss",
        requires = "timing_cache_file",
        conflicts_with = "build_budget"
    )]
    pub error_on_timing_cache_miss: bool,
    /// When tuning ends: `90`, `90s` or `5m`. What takes longest in an execution is tuned first.
    #[arg(long, visible_alias = "buildBudget", value_name = "TIME", value_parser = super::build::duration)]
    pub build_budget: Option<Duration>,
    /// Variants tried per kernel, the present one among them.
    #[arg(long = "maxTactics", value_name = "N", default_value_t = crate::tune::TRIED)]
    pub max_tactics: usize,
    /// GPU to use.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub device: usize,
    /// Sign the result with this ed25519 key: PEM or DER (PKCS#8), or a seed of 32 bytes.
    #[arg(long = "sign-key", value_name = "FILE")]
    pub sign_key: Option<PathBuf>,
    #[command(flatten)]
    pub trust: TrustArgs,
    /// Machine-readable report on stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct RefitArgs {
    /// The engine, compiled with `--strip-weights`.
    pub engine: PathBuf,
    /// The ONNX model that it was compiled from.
    pub model: PathBuf,
    /// Where the engine with its weights goes.
    #[arg(
        short = 'o',
        long = "output",
        visible_alias = "saveEngine",
        value_name = "FILE"
    )]
    pub output: PathBuf,
    /// Sign the result with this ed25519 key: PEM or DER (PKCS#8), or a seed of 32 bytes.
    #[arg(long = "sign-key", value_name = "FILE")]
    pub sign_key: Option<PathBuf>,
    #[command(flatten)]
    pub trust: TrustArgs,
    /// Settings that it was compiled with; shapes, and halves of activations, are those of the engine.
    #[command(flatten)]
    pub build: BuildArgs,
}

/// Whose engines are executed.
#[derive(Debug, Clone, Args)]
pub struct TrustArgs {
    /// Use an engine only if it is signed by the owner of this ed25519 public key: PEM or DER, or 32 bytes.
    #[arg(long = "require-signature", value_name = "PUBKEY")]
    pub require_signature: Option<PathBuf>,
}

/// Settings of a build, shared by all commands that take a model.
#[derive(Debug, Clone, Args)]
pub struct BuildArgs {
    /// Shapes of dynamic inputs: `image:8x3x224x224,ids:[1,128]`; an unnamed dynamic dim is 1. An
    /// engine for several shapes is told each of them.
    #[arg(long, value_name = "SHAPES")]
    pub shapes: Vec<String>,
    /// Least shapes of an engine for every shape of a range.
    #[arg(long = "minShapes", value_name = "SHAPES", conflicts_with = "shapes")]
    pub min_shapes: Option<String>,
    /// Usual shapes of the range; what takes one shape takes this one.
    #[arg(long = "optShapes", value_name = "SHAPES", conflicts_with = "shapes")]
    pub opt_shapes: Option<String>,
    /// Largest shapes of the range.
    #[arg(long = "maxShapes", value_name = "SHAPES", conflicts_with = "shapes")]
    pub max_shapes: Option<String>,
    /// Most shapes of a range that get kernels of their own. In a wider range only the usual shape does; the others
    /// share kernels whose dims are arguments.
    #[arg(long = "static-shapes", value_name = "N", default_value_t = super::build::STATIC_SHAPES)]
    pub static_shapes: usize,
    /// Store activations and weights as f16; sums stay in f32.
    #[arg(long)]
    pub fp16: bool,
    /// Store activations and weights as bf16; sums stay in f32.
    #[arg(long, conflicts_with = "fp16")]
    pub bf16: bool,
    /// Let matrix products of f32 use TF32 tensor cores.
    #[arg(long)]
    pub tf32: bool,
    /// Strict f32; this is the default, and the flag is accepted for trtexec's users.
    #[arg(long = "noTF32", conflicts_with = "tf32")]
    pub no_tf32: bool,
    /// Device memory that an execution may take: weights, activations and scratch memory, in bytes or
    /// as `512M`. Less memory is paid for in speed; what cannot be met is an error.
    #[arg(long, value_name = "SIZE")]
    pub max_memory: Option<String>,
    /// Streams that one execution may use beside its own, where branches of the model are predicted to be
    /// faster at once; 0 keeps activations smallest.
    #[arg(long = "maxAuxStreams", alias = "max-aux-streams", value_name = "N", default_value_t = crate::pipeline::MAX_AUX_STREAMS, value_parser = clap::value_parser!(u32).range(..i64::from(crate::engine::streams::MAX_STREAMS)))]
    pub max_aux_streams: u32,
    #[command(flatten)]
    pub precision: PrecisionArgs,
    #[command(flatten)]
    pub rules: RuleArgs,
}

/// Which layers are stored in 8 bits or fewer, and what that may cost.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Precision")]
pub struct PrecisionArgs {
    /// Compute products of 8-bit integers where that is faster; needs `--calib`, unless the model is
    /// quantised already.
    #[arg(long)]
    pub int8: bool,
    /// Compute products of 8-bit floats (e4m3); needs `--calib`.
    #[arg(long)]
    pub fp8: bool,
    /// The fastest of f16 and, with `--calib`, 8-bit integers, layer by layer.
    #[arg(long, conflicts_with = "bf16")]
    pub best: bool,
    /// Store weights of products as 8-bit integers, and activations as floats.
    #[arg(long = "int8-weights", conflicts_with_all = ["int8", "fp8", "best"])]
    pub int8_weights: bool,
    /// Store weights of matrix products in four bits, with a scale for each group of so many terms: 32, 64
    /// or 128. Weights of convolutions take 8 bits, where that is no slower.
    #[arg(
        long = "int4-weights",
        value_name = "GROUP",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "64",
        value_parser = ["32", "64", "128"],
        conflicts_with_all = ["int8", "fp8", "best", "int8_weights"]
    )]
    pub int4_weights: Option<String>,
    /// Keep the types of the model: nothing is narrowed or quantised.
    #[arg(
        long = "stronglyTyped",
        conflicts_with_all = ["fp16", "bf16", "tf32", "int8", "fp8", "best", "int8_weights", "int4_weights",
            "layer_precisions"]
    )]
    pub strongly_typed: bool,
    /// Precision of single layers: `conv1:fp32,fc:int8,*:fp16`, of fp32, fp16, bf16, int8, fp8,
    /// int8-weights and int4-weights; `*` is every other layer.
    #[arg(long = "layerPrecisions", value_name = "NAME:TYPE,..")]
    pub layer_precisions: Option<String>,
    /// Samples that ranges are taken from: an npz with a leading axis, or a folder of npz files or of
    /// folders with `input_<j>.pb`. Also a calibration cache of TensorRT or of `calibrate`.
    #[arg(long, value_name = "DIR|NPZ|CACHE")]
    pub calib: Option<PathBuf>,
    /// How ranges are chosen: minmax, entropy, mse, percentile or percentile:99.9.
    #[arg(long = "calib-method", value_name = "METHOD", default_value = "entropy")]
    pub calib_method: String,
    /// Give activations a zero point.
    #[arg(long)]
    pub asymmetric: bool,
    /// Loss that is allowed on `--held`: top1=POINTS, cosine=LEAST, relative=MOST, or
    /// cmd:PROGRAM=MOST. What cannot keep it is not saved.
    #[arg(long = "accuracy-budget", value_name = "METRIC=VALUE")]
    pub accuracy_budget: Option<String>,
    /// Samples that losses are measured on, as for `--calib`; an array `label` makes top1 the accuracy
    /// lost. The samples of `--calib` unless given.
    #[arg(long, value_name = "DIR|NPZ")]
    pub held: Option<PathBuf>,
    /// Write the precision of every layer as JSON.
    #[arg(long = "precision-report", value_name = "FILE")]
    pub precision_report: Option<PathBuf>,
}

/// Which rules take part.
#[derive(Debug, Clone, Args)]
pub struct RuleArgs {
    /// Folder of `.rules` files, or one file, whose rules add to or replace the built-in ones.
    #[arg(long, value_name = "DIR")]
    pub rules: Option<PathBuf>,
    /// Leave out one rule, or all rules of a tag; may be repeated.
    #[arg(long = "disable-rule", value_name = "NAME")]
    pub disable_rule: Vec<String>,
    /// Keep only rules at least this careful: exact, reassoc, step or approx.
    #[arg(long, value_name = "CLASS", default_value = "approx")]
    pub numerics: String,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// A model (`.onnx`) or an engine; left out with `--manifest`.
    #[arg(required_unless_present = "manifest")]
    pub model: Option<PathBuf>,
    /// An npz keyed by input names, or a folder of `input_<j>.pb` or `.npy`.
    #[arg(long, value_name = "IN", required_unless_present = "manifest")]
    pub inputs: Option<PathBuf>,
    /// An npz to write, or a folder for `output_<j>.npy`.
    #[arg(long, value_name = "OUT", required_unless_present = "manifest")]
    pub outputs: Option<PathBuf>,
    /// `cpu` is the reference; `cuda:N` the GPU. The default is the first GPU, else the CPU.
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// JSON lines of {"model","inputs","outputs"}: many cases in one process, one JSON line each.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "inputs", "outputs"])]
    pub manifest: Option<PathBuf>,
    /// Print the K largest entries of each row of each output.
    #[arg(long, value_name = "K")]
    pub top: Option<usize>,
    #[command(flatten)]
    pub trust: TrustArgs,
    #[command(flatten)]
    pub build: BuildArgs,
}

/// Flags are trtexec's, with the defaults of TensorRT 11.1: a CUDA graph, without transfers.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// The engine, or a model, which is compiled for the device first.
    #[arg(required_unless_present_any = ["load_engine", "onnx"])]
    pub engine: Option<PathBuf>,
    /// The engine, in trtexec's spelling.
    #[arg(long = "loadEngine", value_name = "FILE", conflicts_with_all = ["engine", "onnx"])]
    pub load_engine: Option<PathBuf>,
    /// The model, in trtexec's spelling.
    #[arg(long, value_name = "FILE", conflicts_with = "engine")]
    pub onnx: Option<PathBuf>,
    #[command(flatten)]
    pub trust: TrustArgs,
    #[command(flatten)]
    pub build: BuildArgs,
    #[command(flatten)]
    pub timing: TimingArgs,
    #[command(flatten)]
    pub reports: BenchReportArgs,
    /// GPU to use.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub device: usize,
    /// Inputs from raw files, `name:file,name:file`; the others are drawn.
    #[arg(long = "loadInputs", value_name = "SPEC")]
    pub load_inputs: Option<String>,
}

/// What is executed how often.
#[derive(Debug, Args)]
pub struct TimingArgs {
    /// At least so many executions.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub iterations: usize,
    /// Milliseconds of executions that do not count.
    #[arg(long = "warmUp", value_name = "MS", default_value_t = 200)]
    pub warm_up: u64,
    /// At least so many seconds of executions that count.
    #[arg(long, value_name = "S", default_value_t = 3.0)]
    pub duration: f64,
    /// Milliseconds to pause between executions.
    #[arg(long = "idleTime", value_name = "MS", default_value_t = 0.0)]
    pub idle_time: f64,
    /// Streams that execute at the same time, each with memory of its own.
    #[arg(
        long = "infStreams",
        visible_alias = "streams",
        value_name = "N",
        default_value_t = 1
    )]
    pub inf_streams: usize,
    /// Copy inputs to the device and outputs back in every execution.
    #[arg(long = "includeDataTransfers")]
    pub include_data_transfers: bool,
    /// Leave copies out; this is the default.
    #[arg(long = "noDataTransfers", conflicts_with = "include_data_transfers")]
    pub no_data_transfers: bool,
    /// Launch kernel by kernel instead of as one CUDA graph.
    #[arg(long = "noCudaGraph")]
    pub no_cuda_graph: bool,
    /// Launch as one CUDA graph; this is the default.
    #[arg(long = "useCudaGraph", conflicts_with = "no_cuda_graph")]
    pub use_cuda_graph: bool,
    /// Wait actively for the device; this is what happens anyway.
    #[arg(long = "useSpinWait")]
    pub use_spin_wait: bool,
}

/// What is printed and written.
#[derive(Debug, Args)]
pub struct BenchReportArgs {
    /// Executions that one line of the trace averages.
    #[arg(long = "avgRuns", value_name = "N", default_value_t = 10)]
    pub avg_runs: usize,
    /// Percentiles of the summary.
    #[arg(long, value_name = "P", value_delimiter = ',', default_values_t = [90.0, 95.0, 99.0])]
    pub percentile: Vec<f64>,
    /// Also say what the figures mean.
    #[arg(long)]
    pub verbose: bool,
    /// Also time each kernel alone.
    #[arg(long = "dumpProfile")]
    pub dump_profile: bool,
    /// Print every kernel of the engine.
    #[arg(long = "dumpLayerInfo")]
    pub dump_layer_info: bool,
    /// Print the outputs of the last execution.
    #[arg(long = "dumpOutput")]
    pub dump_output: bool,
    /// JSON of the parts of every execution.
    #[arg(long = "exportTimes", value_name = "FILE")]
    pub export_times: Option<PathBuf>,
    /// JSON of the time of each kernel.
    #[arg(long = "exportProfile", value_name = "FILE")]
    pub export_profile: Option<PathBuf>,
    /// JSON of the kernels and bindings of the engine.
    #[arg(long = "exportLayerInfo", value_name = "FILE")]
    pub export_layer_info: Option<PathBuf>,
    /// JSON of the outputs of the last execution.
    #[arg(long = "exportOutput", value_name = "FILE")]
    pub export_output: Option<PathBuf>,
    /// Machine-readable report on stdout.
    #[arg(long)]
    pub json: bool,
}

/// Tolerances and statistics are polygraphy's.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The ONNX model; left out where only `--rebuild` is asked of an engine.
    #[arg(required_unless_present = "rebuild")]
    pub model: Option<PathBuf>,
    /// An engine of this model; without one the model is compiled for the device.
    #[arg(long, value_name = "FILE")]
    pub engine: Option<PathBuf>,
    /// What to compare with: `reference`, `onnxruntime` (its Python package is started), or an npz
    /// of outputs.
    #[arg(long, value_name = "WHAT", default_value = "reference")]
    pub against: String,
    /// An npz keyed by input names, or a folder of `input_<j>.pb` or `.npy`; drawn unless given.
    #[arg(long, value_name = "IN")]
    pub inputs: Option<PathBuf>,
    /// `cuda:N` executes kernels; `cpu` executes the fused regions on the reference. The default is
    /// the first GPU, else the CPU.
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// Seed of drawn inputs: floats in 0..1, integers 0 or 1.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Absolute difference that passes.
    #[arg(long, value_name = "X", default_value_t = 1e-5)]
    pub atol: f64,
    /// Difference relative to the expected value that passes.
    #[arg(long, value_name = "X", default_value_t = 1e-5)]
    pub rtol: f64,
    /// What is compared with the tolerances: every element, or a statistic over all of them.
    #[arg(long = "check-error-stat", value_name = "STAT", default_value = "elemwise",
          value_parser = ["elemwise", "max", "mean", "median", "quantile"])]
    pub check_error_stat: String,
    /// The quantile of `--check-error-stat quantile`.
    #[arg(long = "error-quantile", value_name = "Q", default_value_t = 0.99)]
    pub error_quantile: f64,
    /// Where outputs differ, find the first node whose result does.
    #[arg(long)]
    pub bisect: bool,
    /// Compile the sources in the engine again and compare the cubins.
    #[arg(long, requires = "engine")]
    pub rebuild: bool,
    #[command(flatten)]
    pub trust: TrustArgs,
    #[command(flatten)]
    pub build: BuildArgs,
    /// Machine-readable report on stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct InspectArgs {
    /// A model or an engine; with `--graph` also a graph in text form (`.rtrt`).
    pub file: PathBuf,
    /// Machine-readable report on stdout.
    #[arg(long)]
    pub json: bool,
    /// Also print what each kernel of an engine saves, and the choices that lost.
    #[arg(long)]
    pub explain: bool,
    /// Print what the arena of an engine holds at every launch, instead of the kernels.
    #[arg(long)]
    pub memory: bool,
    /// Write what the arena of an engine holds at every launch as a page with pictures.
    #[arg(long, value_name = "HTML")]
    pub report: Option<PathBuf>,
    /// Print the graph in text form as it is after a stage of compiling.
    #[arg(long, value_name = "STAGE", value_parser = ["imported", "core", "canonical", "regions"])]
    pub graph: Option<String>,
    /// Print how well the times of a model's kernels are predicted, beside those in a timing cache.
    #[arg(long = "timingCacheFile", value_name = "FILE", conflicts_with = "graph")]
    pub timing_cache_file: Option<PathBuf>,
    /// Architecture that `--graph regions` and `--timingCacheFile` choose for.
    #[arg(long, value_name = "ARCH", default_value = "sm_90a")]
    pub arch: String,
    #[command(flatten)]
    pub trust: TrustArgs,
    #[command(flatten)]
    pub build: BuildArgs,
}

#[derive(Debug, Args)]
pub struct CalibrateArgs {
    /// The ONNX model.
    pub model: PathBuf,
    /// Samples: an npz with a leading axis, or a folder of npz files or of folders with `input_<j>.pb`.
    #[arg(long, value_name = "DIR|NPZ")]
    pub calib: PathBuf,
    /// How ranges are chosen: minmax, entropy, mse, percentile or percentile:99.9.
    #[arg(
        long,
        visible_alias = "calib-method",
        value_name = "METHOD",
        default_value = "entropy"
    )]
    pub method: String,
    /// The cache to write, in TensorRT's format; the model's name with `.cache` unless given.
    /// Unfinished work is kept beside it, and gone on with.
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Use only so many batches of the samples.
    #[arg(long, value_name = "N")]
    pub batches: Option<usize>,
    /// `cuda:N`, or `cpu` for the reference interpreter; the first GPU if there is one, else the CPU. What a GPU
    /// cannot execute is left to the CPU.
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// Machine-readable report on stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct RulesArgs {
    #[command(subcommand)]
    pub command: RulesCommand,
}

#[derive(Debug, Subcommand)]
pub enum RulesCommand {
    /// One line per rule: name, phase, numerics, place, what it is for.
    List(RulesListArgs),
    /// One rule with its text.
    Show(RulesShowArgs),
    /// Try rules on pinned and drawn instances: types, numbers, NaN and infinity, and exact
    /// equality in a prime field.
    Check(RulesCheckArgs),
    /// Say where one rule fires in a model, and what keeps it from firing elsewhere.
    Try(RulesTryArgs),
    /// Say what each rule is worth in a model: kernels and predicted time without it.
    Ablate(RulesAblateArgs),
    /// Say which rules make what others look for.
    Graph(RulesGraphArgs),
}

#[derive(Debug, Args)]
pub struct RulesListArgs {
    #[command(flatten)]
    pub rules: RuleArgs,
    /// Machine-readable list on stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct RulesShowArgs {
    pub name: String,
    #[command(flatten)]
    pub rules: RuleArgs,
    /// Machine-readable rule on stdout, its text among it.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct RulesCheckArgs {
    /// Rules, or files of rules; all rules unless given.
    #[arg(value_name = "RULE|FILE")]
    pub subjects: Vec<String>,
    #[command(flatten)]
    pub rules: RuleArgs,
    /// Drawn instances that a rule must keep, for each pinned one.
    #[arg(long, value_name = "N", default_value_t = 60)]
    pub instances: usize,
    /// Also try every small instance: extents up to three, all axes and permutations.
    #[arg(long)]
    pub small_scope: bool,
    /// Machine-readable report on stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct RulesTryArgs {
    /// The rule.
    pub rule: String,
    /// The ONNX model, or a graph in text form (`.rtrt`).
    pub model: PathBuf,
    /// Print every miss, also where only the outermost op of the rule was found.
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    pub build: BuildArgs,
    /// Machine-readable report on stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct RulesAblateArgs {
    /// The ONNX model, or a graph in text form (`.rtrt`).
    pub model: PathBuf,
    /// Architecture to predict times for.
    #[arg(long, value_name = "ARCH", default_value = "sm_90a")]
    pub arch: String,
    /// Leave out all rules of a tag at once (`layout`, or several as `layout+vertical`), instead
    /// of one rule at a time; may be repeated.
    #[arg(long, value_name = "TAGS")]
    pub tag: Vec<String>,
    #[command(flatten)]
    pub build: BuildArgs,
    /// Machine-readable report on stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct RulesGraphArgs {
    /// Only what this rule enables, and what enables it.
    pub rule: Option<String>,
    #[command(flatten)]
    pub rules: RuleArgs,
    /// Every pair of rules, instead of what the rules of one file make for those of another.
    #[arg(long)]
    pub all: bool,
    /// In the language of Graphviz.
    #[arg(long)]
    pub dot: bool,
    /// Machine-readable graph on stdout.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Machine-readable report on stdout.
    #[arg(long)]
    pub json: bool,
    /// Print only the device `run` would use: `cuda:0` or `cpu`.
    #[arg(long)]
    pub best_device: bool,
}
