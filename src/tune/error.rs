//! Why a problem has no tactic.

use std::path::PathBuf;

use crate::compile::CompileError;
use crate::cuda::CudaError;
use crate::kernel::KernelError;
use crate::reference::ReferenceError;

/// What can go wrong while tactics are chosen.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum TuneError {
    #[error("no template has a kernel for a region of {ops}")]
    #[diagnostic(code(tune::no_kernel))]
    NoKernel { ops: String },
    #[error("every variant of a region of {ops} gives wrong results; the last one: {last}")]
    #[diagnostic(code(tune::all_wrong))]
    AllWrong { ops: String, last: String },
    #[error("kernels for {arch} do not run on {device} (sm_{sm}), so they cannot be tried there")]
    #[diagnostic(
        code(tune::other_device),
        help("tune on a device of that architecture, or compile without `--tune` and `--verify-kernels`")
    )]
    OtherDevice { arch: String, device: String, sm: u32 },
    #[error("{n_missing} times of {device} are not in the timing cache; the first is that of `{first}`")]
    #[diagnostic(
        code(tune::cache_miss),
        help("build with `--tune` on {device}, with the same file, model and options, to have them timed")
    )]
    CacheMiss {
        n_missing: usize,
        first: String,
        device: String,
    },
    #[error("the timing cache `{}` has times for {arch} and NVRTC {nvrtc} of {}", path.display(), listed(machines))]
    #[diagnostic(
        code(tune::cache_machine),
        help(
            "give a file with the times of one such machine, made there by `compile --tune --timingCacheFile`"
        )
    )]
    CacheMachine {
        path: PathBuf,
        arch: String,
        nvrtc: String,
        machines: Vec<String>,
    },
    #[error(transparent)]
    #[diagnostic(code(tune::kernel))]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Compile(#[from] CompileError),
    #[error("while kernel `{kernel}` ran: {source}")]
    #[diagnostic(code(tune::device))]
    Device { kernel: String, source: CudaError },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Cuda(#[from] CudaError),
    #[error("the reference of a region: {0}")]
    #[diagnostic(code(tune::reference))]
    Reference(#[from] ReferenceError),
    #[error("cannot {action} `{}`: {source}", path.display())]
    #[diagnostic(code(tune::database))]
    File {
        action: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("line {line} of the timing cache `{}` is no measurement: {reason}", path.display())]
    #[diagnostic(
        code(tune::database),
        help("remove the line, or give another file to `--timingCacheFile`")
    )]
    Line {
        path: PathBuf,
        line: usize,
        reason: String,
    },
}

fn listed(machines: &[String]) -> String {
    if machines.is_empty() {
        "no machine".to_owned()
    } else {
        format!("several machines: {}", machines.join(", "))
    }
}
