//! `tune`: other kernels for an engine, by the times of the device that it runs on.

use std::path::Path;

use serde::Serialize;

use super::args::TuneArgs;
use super::failure::Failure;
use super::progress::Progress;
use super::{model, out, shapes};
use crate::engine::{self, Engine, SecretKey};
use crate::io;
use crate::pipeline::{self, Observer, Renewal};

#[derive(Serialize)]
struct Report {
    engine: String,
    programs: Vec<ProgramReport>,
}

#[derive(Serialize)]
struct ProgramReport {
    arch: String,
    /// As `--shapes` spells them.
    shapes: String,
    n_launches: usize,
    /// Launches that have another kernel now.
    n_changed: usize,
    /// Of an execution; none where there was nothing to compare.
    before_us: Option<f64>,
    after_us: Option<f64>,
}

pub fn run(args: &TuneArgs) -> Result<(), Failure> {
    let output = args.output.as_deref().unwrap_or(&args.engine);
    // Tuning takes long; what can be known to fail is said first.
    let engine = model::engine(&args.engine, &args.trust)?;
    pipeline::check_tunable(&engine)?;
    io::check_writable(output)?;
    let signer = args.signing.signer()?;
    check_signed(args, signer.as_ref())?;
    pipeline::check_nvrtc()?;
    let recorded = args.tuning.recorded();
    let selection = recorded.unwrap_or_else(|| args.tuning.on_device(args.device, true));
    // Programs for other devices stay as they are.
    selection.check(&[])?;
    let progress = Progress::new(args.json);
    let (tuned, renewals) = pipeline::retune(&engine, &selection, &progress)?;
    progress.stage("save", 0);
    engine::save_signed(&tuned, signer.as_ref(), output)?;
    drop(progress);
    report(args, &tuned, &renewals, output)
}

/// A signature does not survive a change: whoever wants one has to sign again.
fn check_signed(args: &TuneArgs, signer: Option<&SecretKey>) -> Result<(), Failure> {
    if signer.is_some() || args.output.is_some() || !engine::is_signed(&args.engine)? {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "`{}` is signed, and would not be once it is tuned: give `--sign-key`, or another file with `-o`",
        args.engine.display()
    )))
}

fn report(args: &TuneArgs, tuned: &Engine, renewals: &[Renewal], output: &Path) -> Result<(), Failure> {
    let programs = renewals.iter().map(|own| ProgramReport {
        arch: own.arch.clone(),
        shapes: shapes::text(&tuned.header.profiles[own.profile]),
        n_launches: own.n_launches,
        n_changed: own.n_changed,
        before_us: own.us.map(|[before, _]| before),
        after_us: own.us.map(|[_, after]| after),
    });
    let report = Report {
        engine: output.display().to_string(),
        programs: programs.collect(),
    };
    if args.json {
        return out::json(&report);
    }
    for program in &report.programs {
        out::line(&line(program))?;
    }
    out::line(&format!("saved     {}", report.engine))
}

fn line(program: &ProgramReport) -> String {
    let ProgramReport {
        arch,
        shapes,
        n_launches,
        n_changed,
        ..
    } = program;
    let times = match (program.before_us, program.after_us) {
        (Some(before), Some(after)) if after >= before => {
            format!("{before:.1} us, which others do not improve by two per cent")
        }
        (Some(before), Some(after)) => format!("{after:.1} us instead of {before:.1}"),
        _ => "they are the fastest".to_owned(),
    };
    format!("{arch:9} {shapes}: {n_changed} of {n_launches} launches have another kernel; {times}")
}
