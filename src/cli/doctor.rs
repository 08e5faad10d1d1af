//! `doctor`: what this machine offers and what is missing.

use miette::Diagnostic;
use serde::Serialize;

use super::args::DoctorArgs;
use super::failure::Failure;
use super::out;
use crate::compile::Cache;
use crate::cuda::{self, DeviceInfo, Nvrtc};

#[derive(Serialize)]
struct Report {
    version: &'static str,
    nvrtc: NvrtcReport,
    /// Whether there is a CUDA driver to ask.
    driver: bool,
    devices: Vec<DeviceReport>,
    /// Folder of compiled kernels; none where the user has no cache folder.
    cache: Option<String>,
    best_device: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum NvrtcReport {
    Found { path: String, version: String },
    Missing { tried: Vec<String>, help: String },
}

#[derive(Serialize)]
struct DeviceReport {
    ordinal: usize,
    name: String,
    arch: String,
    n_sms: usize,
    memory_bytes: usize,
    /// CUDA version the driver speaks.
    cuda: String,
}

pub fn run(args: &DoctorArgs) -> Result<(), Failure> {
    if args.best_device {
        return out::line(&best_device());
    }
    let report = report();
    if args.json {
        out::json(&report)
    } else {
        print(&report)
    }
}

/// The device `run` uses unless told otherwise.
pub fn best_device() -> String {
    match cuda::probe() {
        Some(devices) if !devices.is_empty() => "cuda:0".to_owned(),
        Some(_) | None => "cpu".to_owned(),
    }
}

fn report() -> Report {
    let devices = cuda::probe();
    Report {
        version: env!("CARGO_PKG_VERSION"),
        nvrtc: match Nvrtc::get() {
            Ok(nvrtc) => NvrtcReport::Found {
                path: nvrtc.path().display().to_string(),
                version: nvrtc.version().to_string(),
            },
            Err(missing) => NvrtcReport::Missing {
                tried: missing.tried.clone(),
                help: missing.help().map(|help| help.to_string()).unwrap_or_default(),
            },
        },
        driver: devices.is_some(),
        devices: devices.iter().flatten().map(device).collect(),
        cache: Cache::of_user()
            .folder()
            .map(|folder| folder.display().to_string()),
        best_device: best_device(),
    }
}

fn device(info: &DeviceInfo) -> DeviceReport {
    DeviceReport {
        ordinal: info.ordinal,
        name: info.name.clone(),
        arch: format!("sm_{}", info.sm),
        n_sms: info.n_sms,
        memory_bytes: info.memory_bytes,
        cuda: format!(
            "{}.{}",
            info.driver_version / 1000,
            info.driver_version % 1000 / 10
        ),
    }
}

fn print(report: &Report) -> Result<(), Failure> {
    out::line(&format!("rtrt-codegen {}", report.version))?;
    match &report.nvrtc {
        NvrtcReport::Found { path, version } => out::line(&format!("NVRTC    {version}, {path}"))?,
        NvrtcReport::Missing { tried, help } => {
            out::line("NVRTC    not found; `compile` needs it. Tried:")?;
            tried
                .iter()
                .try_for_each(|place| out::line(&format!("           {place}")))?;
            out::line(&format!("         {help}"))?;
        }
    }
    match report.devices.as_slice() {
        [] if report.driver => out::line("GPUs     none, though there is a CUDA driver")?,
        [] => out::line("GPUs     none: no CUDA driver; models run on the CPU reference")?,
        devices => devices.iter().try_for_each(|device| {
            out::line(&format!(
                "GPU {}    {}, {}, {} SMs, {} MiB, CUDA {}",
                device.ordinal,
                device.name,
                device.arch,
                device.n_sms,
                device.memory_bytes >> 20,
                device.cuda
            ))
        })?,
    }
    let cache = report
        .cache
        .as_deref()
        .unwrap_or("none: neither HOME nor RTRT_CACHE_DIR is set");
    out::line(&format!("cache    {cache}"))
}
