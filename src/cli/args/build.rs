//! Arguments that several commands take: how a model is built, by which rules, and whose engines are executed.

use std::path::PathBuf;

use clap::Args;

/// Shapes of a range that have kernels of their own unless said otherwise.
const STATIC_SHAPES: usize = 8;

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
    #[arg(long = "static-shapes", value_name = "N", default_value_t = STATIC_SHAPES)]
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
    /// The most that data makes of a tensor where nothing else limits it, for example `--bound count=300`: elements along
    /// axes of which data decides the extent, or the integers it holds. Data beyond it is an error when it comes.
    #[arg(long = "bound", value_name = "TENSOR=N")]
    pub bounds: Vec<String>,
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
