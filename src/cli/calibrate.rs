//! `calibrate`: samples in, a calibration cache out.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::args::CalibrateArgs;
use super::device::Device;
use super::failure::Failure;
use super::out;
use super::precision::method_of;
use super::progress::Progress;
use crate::aside::write_aside;
use crate::io::samples::Samples;
use crate::pipeline::{Observer, precise};
use crate::precision::calibrate::Aside;
use crate::precision::{Cache, Number};
use crate::{io, onnx};

/// What was done, for machines.
#[derive(Serialize)]
struct Report<'a> {
    output: &'a Path,
    method: String,
    batches: usize,
    tensors: usize,
    /// Tensors with infinities or not-a-numbers.
    not_finite: Vec<&'a String>,
}

pub fn run(args: &CalibrateArgs) -> Result<(), Failure> {
    let method = method_of(&args.method)?;
    let device = Device::of(args.device.as_deref())?;
    let output = args
        .output
        .clone()
        .unwrap_or_else(|| args.model.with_extension("cache"));
    io::check_writable(&output)?;
    let progress = Progress::new(false);
    progress.stage("import", 0);
    let model = onnx::import_file(&args.model)?;
    let mut samples = Samples::open(&args.calib, &precise::declared(&model.graph), precise::ROWS)?;
    if let Some(n) = args.batches {
        samples.truncate(n);
    }
    let aside = Aside::beside(&output, key(&args.model, &args.calib)?);
    let statistics = match device {
        Device::Cpu => precise::statistics(&model.graph, &samples, Some(&aside), &progress)?,
        Device::Cuda(ordinal) => {
            precise::statistics_on_device(&model.graph, &samples, Some(&aside), ordinal, &progress)?
        }
    };
    progress.stage("choose ranges", 0);
    let cache = Cache::of(&statistics.ranges(method, Number::Int8), method);
    write(&output, &cache.print())?;
    aside.remove();
    drop(progress);
    let not_finite: Vec<&String> = statistics
        .tensors
        .iter()
        .filter(|(_, histogram)| histogram.n_not_finite() > 0)
        .map(|(name, _)| name)
        .collect();
    let report = Report {
        output: &output,
        method: method.name(),
        batches: statistics.n_batches,
        tensors: cache.scales.len(),
        not_finite,
    };
    if args.json {
        return out::json(&report);
    }
    for name in &report.not_finite {
        out::line(&format!("warning   `{name}` is not finite everywhere"))?;
    }
    out::line(&format!(
        "saved     {}: {} tensors, {} batches, {}",
        output.display(),
        report.tensors,
        report.batches,
        report.method
    ))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    use std::io::Write;
    write_aside(path, |into| into.write_all(text.as_bytes()))
        .map_err(|error| Failure::failed(format!("cannot write `{}`: {error}", path.display())))
}

/// A digest of the model and of the samples.
fn key(model: &Path, samples: &Path) -> Result<String, Failure> {
    let mut digest = Sha256::new();
    digest_path(&mut digest, model)?;
    digest_path(&mut digest, samples)?;
    Ok(format!("{:x}", digest.finalize()))
}

/// The bytes of a file; of a folder the names and bytes of what is in it.
fn digest_path(digest: &mut Sha256, path: &Path) -> Result<(), Failure> {
    let failed =
        |error: std::io::Error| Failure::failed(format!("cannot read `{}`: {error}", path.display()));
    if !path.is_dir() {
        let mut file = fs::File::open(path).map_err(failed)?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let n_read = file.read(&mut buffer).map_err(failed)?;
            if n_read == 0 {
                return Ok(());
            }
            digest.update(&buffer[..n_read]);
        }
    }
    let entries = fs::read_dir(path).map_err(failed)?;
    let mut entries: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    entries.sort();
    for entry in entries {
        digest.update(entry.file_name().unwrap_or_default().as_encoded_bytes());
        digest_path(digest, &entry)?;
    }
    Ok(())
}
