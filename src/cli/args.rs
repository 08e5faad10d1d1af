//! The command line, as data.

use std::path::PathBuf;

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
    /// Execute a model or an engine on given inputs.
    Run(RunArgs),
    /// Time an engine or a model on the GPU.
    Bench(BenchArgs),
    /// Say what is in a model or an engine.
    Inspect(InspectArgs),
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
    /// Variants tried per kernel when tuning.
    #[arg(long = "maxTactics", value_name = "N", default_value_t = 8)]
    pub max_tactics: usize,
    /// Print each kernel with its ONNX nodes, its rules, what it saves, and the choices that lost.
    #[arg(long)]
    pub explain: bool,
    /// Write the generated CUDA sources into this folder.
    #[arg(long, value_name = "DIR")]
    pub dump_kernels: Option<PathBuf>,
    /// Run every kernel on the GPU and compare it with the reference before saving.
    #[arg(long)]
    pub verify_kernels: bool,
    /// Machine-readable report on stdout.
    #[arg(long)]
    pub json: bool,
}

/// Settings of a build, shared by all commands that take a model.
#[derive(Debug, Clone, Args)]
pub struct BuildArgs {
    /// Shapes of dynamic inputs: `image:8x3x224x224,ids:[1,128]`; an unnamed dynamic dim is 1.
    #[arg(long, visible_alias = "optShapes", value_name = "SHAPES")]
    pub shapes: Option<String>,
    /// Accepted in trtexec's spelling where it equals `--optShapes`.
    #[arg(long = "minShapes", value_name = "SHAPES", hide = true)]
    pub min_shapes: Option<String>,
    /// Accepted in trtexec's spelling where it equals `--optShapes`.
    #[arg(long = "maxShapes", value_name = "SHAPES", hide = true)]
    pub max_shapes: Option<String>,
    /// Store activations and weights as f16; sums stay in f32.
    #[arg(long)]
    pub fp16: bool,
    /// Store activations and weights as bf16; sums stay in f32.
    #[arg(long, conflicts_with = "fp16")]
    pub bf16: bool,
    /// Not supported yet; refused.
    #[arg(long, hide = true)]
    pub int8: bool,
    /// Not supported yet; refused.
    #[arg(long, hide = true)]
    pub fp8: bool,
    /// Not supported yet; refused.
    #[arg(long, hide = true)]
    pub best: bool,
    /// Let matrix products of f32 use TF32 tensor cores.
    #[arg(long)]
    pub tf32: bool,
    /// Strict f32; this is the default, and the flag is accepted for trtexec's users.
    #[arg(long = "noTF32", conflicts_with = "tf32")]
    pub no_tf32: bool,
    #[command(flatten)]
    pub rules: RuleArgs,
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
    pub build: BuildArgs,
}

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// The engine, or a model, which is compiled for the device first.
    pub engine: PathBuf,
    #[command(flatten)]
    pub build: BuildArgs,
    /// Timed graph launches.
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub iterations: usize,
    /// GPU to use.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub device: usize,
    /// Also time each kernel alone.
    #[arg(long = "dumpProfile")]
    pub dump_profile: bool,
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
    /// Print the graph in text form as it is after a stage of compiling.
    #[arg(long, value_name = "STAGE", value_parser = ["imported", "core", "canonical", "regions"])]
    pub graph: Option<String>,
    /// Architecture that `--graph regions` chooses for.
    #[arg(long, value_name = "ARCH", default_value = "sm_90a")]
    pub arch: String,
    #[command(flatten)]
    pub build: BuildArgs,
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
