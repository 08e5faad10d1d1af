//! Arguments of the commands that execute models or look at them.

use std::path::PathBuf;

use clap::Args;

use super::build::{BuildArgs, TrustArgs};

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
pub struct DoctorArgs {
    /// Machine-readable report on stdout.
    #[arg(long)]
    pub json: bool,
    /// Print only the device `run` would use: `cuda:0` or `cpu`.
    #[arg(long)]
    pub best_device: bool,
}
