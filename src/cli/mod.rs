//! The command line: arguments in, reports out, no decisions.
//!
//! Reports go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 usage,
//! 3 a clean refusal.

pub mod args;
mod bench;
mod build;
mod calibrate;
mod compile;
mod device;
mod doctor;
mod engine_report;
mod failure;
mod inspect;
mod manifest;
mod memory_report;
mod model;
mod out;
mod precision;
mod progress;
mod rank_report;
mod refit;
mod rules;
mod run;
mod shapes;
mod tune;
mod verify;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use failure::Failure;

/// Deeply nested models recurse; the main thread's usual stack is small.
const STACK_BYTES: usize = 256 << 20;

/// Runs the command of this process's arguments.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log();
    let worker = std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(move || dispatch(cli.command));
    let outcome = match worker.map(std::thread::JoinHandle::join) {
        Ok(Ok(outcome)) => outcome,
        // The panic has been reported by the hook; 101 is what the main thread would exit with.
        Ok(Err(_)) => return ExitCode::from(101),
        Err(error) => Err(Failure::failed(format!("cannot start a thread: {error}"))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.exit)
        }
    }
}

fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Tune(args) => tune::run(&args),
        Command::Refit(args) => refit::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Rules(args) => rules::run(&args),
        Command::Calibrate(args) => calibrate::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Compile(args) => compile::run(&args),
        Command::Bench(args) => bench::run(&args),
    }
}

/// `RTRT_LOG=debug` and the like, in the syntax of `tracing_subscriber`; warnings unless set.
fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("RTRT_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    // Fails only where a subscriber is set already, which then serves as well.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .without_time()
        .try_init();
}
