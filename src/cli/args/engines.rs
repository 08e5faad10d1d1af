//! Arguments of the commands that make engines.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use super::build::{BuildArgs, TrustArgs};
use crate::engine::{EngineError, MAX_CONTEXTS, SecretKey};
use crate::pipeline::Selection;

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
    #[command(flatten)]
    pub tuning: TuningArgs,
    /// Streams that will execute at the same time, each with a context of its own. For several, kernels are chosen by
    /// what they leave of the device for the others, at the cost of a single execution's time.
    #[arg(long = "infStreams", visible_alias = "streams", value_name = "N", default_value_t = 1, value_parser = n_contexts)]
    pub inf_streams: usize,
    /// Print each kernel with its ONNX nodes, its rules, what it saves, and the choices that lost.
    #[arg(long)]
    pub explain: bool,
    /// Write the generated CUDA sources into this folder.
    #[arg(long, value_name = "DIR")]
    pub dump_kernels: Option<PathBuf>,
    /// Run every kernel on the GPU and compare it with the reference before saving.
    #[arg(long, conflicts_with = "error_on_timing_cache_miss")]
    pub verify_kernels: bool,
    /// Also store PTX of the newest plain architecture, which the driver of a newer device compiles when it
    /// loads the engine.
    #[arg(long)]
    pub ptx: bool,
    /// Leave the weights out; `refit` gives them back.
    #[arg(long = "strip-weights", visible_alias = "stripWeights")]
    pub strip_weights: bool,
    #[command(flatten)]
    pub signing: SigningArgs,
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
    #[command(flatten)]
    pub tuning: TuningArgs,
    /// GPU to use.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub device: usize,
    #[command(flatten)]
    pub signing: SigningArgs,
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
    #[command(flatten)]
    pub signing: SigningArgs,
    #[command(flatten)]
    pub trust: TrustArgs,
    /// Settings that it was compiled with; shapes, and halves of activations, are those of the engine.
    #[command(flatten)]
    pub build: BuildArgs,
}

/// How the fastest kernels are looked for, and what is known of them.
#[derive(Debug, Args)]
pub struct TuningArgs {
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
    /// When tuning ends, from the start of the command: `90`, `90s` or `5m`. Every kernel is a right one
    /// even then; what takes longest in an execution is tuned first.
    #[arg(long, visible_alias = "buildBudget", value_name = "TIME", value_parser = duration)]
    pub build_budget: Option<Duration>,
    /// Variants tried per kernel when tuning, the present one of an engine among them.
    #[arg(long = "maxTactics", value_name = "N", default_value_t = crate::tune::TRIED)]
    pub max_tactics: usize,
}

impl TuningArgs {
    /// Selection by the cache alone, where that is asked for.
    pub fn recorded(&self) -> Option<Selection> {
        let database = self
            .timing_cache_file
            .clone()
            .filter(|_| self.error_on_timing_cache_miss)?;
        Some(Selection::Recorded {
            max_variants: self.max_tactics,
            database,
        })
    }

    /// Selection on GPU `ordinal`, of the fastest variants or the first right ones; its time begins now.
    pub fn on_device(&self, ordinal: usize, time: bool) -> Selection {
        Selection::OnDevice {
            ordinal,
            max_variants: self.max_tactics,
            time,
            database: self.timing_cache_file.clone(),
            until: self.build_budget.map(|budget| Instant::now() + budget),
        }
    }
}

/// Who vouches for the file.
#[derive(Debug, Args)]
pub struct SigningArgs {
    /// Sign the engine with this ed25519 key: PEM or DER (PKCS#8), or a seed of 32 bytes.
    #[arg(long = "sign-key", value_name = "FILE")]
    pub sign_key: Option<PathBuf>,
}

impl SigningArgs {
    /// The key, if there is to be a signature.
    pub fn signer(&self) -> Result<Option<SecretKey>, EngineError> {
        self.sign_key.as_deref().map(SecretKey::load).transpose()
    }
}

/// `90`, `90s`, `5m` or `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let (digits, seconds) = match text.char_indices().last() {
        Some((at, 's')) => (&text[..at], 1.0),
        Some((at, 'm')) => (&text[..at], 60.0),
        Some((at, 'h')) => (&text[..at], 3600.0),
        _ => (text, 1.0),
    };
    let number: f64 = digits
        .parse()
        .map_err(|_| "expected seconds, or a number with s, m or h".to_owned())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|error| error.to_string())
}

/// Contexts that kernels are chosen for.
fn n_contexts(text: &str) -> Result<usize, String> {
    let number: usize = text.parse().map_err(|_| "expected a number".to_owned())?;
    if (1..=MAX_CONTEXTS).contains(&number) {
        Ok(number)
    } else {
        Err(format!("expected 1 to {MAX_CONTEXTS}"))
    }
}

#[cfg(test)]
mod tests {
    use super::n_contexts;

    #[test]
    fn kernels_are_chosen_for_a_few_contexts() {
        assert_eq!([n_contexts("1"), n_contexts("4")], [Ok(1), Ok(4)]);
        for wrong in ["0", "65", "-1", "four"] {
            n_contexts(wrong).unwrap_err();
        }
    }
}
