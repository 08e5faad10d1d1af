//! Arguments of `bench`.

use std::path::PathBuf;

use clap::Args;

use super::build::{BuildArgs, TrustArgs};

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
