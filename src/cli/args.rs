//! The command line, as data.

#![allow(
    clippy::doc_markdown,
    reason = "comments on arguments are what `--help` prints"
)]

mod bench;
mod build;
mod engines;
mod execution;
mod rules;

use clap::{Parser, Subcommand};

pub use self::bench::{BenchArgs, BenchReportArgs, TimingArgs};
pub use self::build::{BuildArgs, PrecisionArgs, RuleArgs, TrustArgs};
pub use self::engines::{CompileArgs, RefitArgs, TuneArgs};
pub use self::execution::{CalibrateArgs, DoctorArgs, InspectArgs, RunArgs, VerifyArgs};
pub use self::rules::{
    RulesAblateArgs, RulesArgs, RulesCheckArgs, RulesCommand, RulesGraphArgs, RulesListArgs, RulesShowArgs,
    RulesTryArgs,
};

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
