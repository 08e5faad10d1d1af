//! Whether the cubins and PTX of an engine are what its own sources compile to.

use std::collections::BTreeMap;

use super::super::build;
use super::super::failure::Failure;
use crate::compile;
use crate::cuda::Nvrtc;
use crate::engine::{Engine, Kernel};
use crate::pipeline;

/// What compiling the sources again gave.
pub struct Rebuilt {
    pub n_kernels: usize,
    /// Kernels whose code differs, with the reason.
    pub different: Vec<String>,
    /// Versions of NVRTC that made the engine and that is here, where they differ.
    pub versions: Option<(String, String)>,
}

/// Compiles every kernel of every program, and those that programs of a range share, from the source in the engine and compares the bytes, of PTX too.
///
/// # Errors
/// Without NVRTC.
pub fn rebuild(engine: &Engine) -> Result<Rebuilt, Failure> {
    pipeline::check_nvrtc()?;
    let nvrtc = Nvrtc::get().map_err(|missing| Failure::failed(missing.to_string()))?;
    let own = nvrtc.version().to_string();
    let mut rebuilt = Rebuilt {
        n_kernels: 0,
        different: Vec::new(),
        versions: (own != engine.header.nvrtc).then(|| (engine.header.nvrtc.clone(), own)),
    };
    for (name, kernels) in engine.header.kernels() {
        let arch = build::archs(name)?[0];
        let (options, virtual_options) = (compile::options(arch), compile::virtual_options(arch));
        for (cubin, kernel) in distinct(&kernels) {
            rebuilt.n_kernels += 1;
            let source = String::from_utf8_lossy(&engine.blobs[kernel.source]);
            let file = format!("{}.cu", kernel.name);
            let same_ptx = |ptx: usize| {
                let compiled = nvrtc.compile_ptx(&source, &file, &virtual_options);
                compiled.is_ok_and(|compiled| compiled == *engine.blobs[ptx])
            };
            let reason = match nvrtc.compile(&source, &file, &options) {
                Ok(compiled) if compiled.cubin != *engine.blobs[cubin] => {
                    "its cubin is not what its source compiles to"
                }
                Ok(_) if kernel.ptx.is_none_or(same_ptx) => continue,
                Ok(_) => "its PTX is not what its source compiles to",
                Err(_) => "its source does not compile",
            };
            rebuilt
                .different
                .push(format!("{} of {name}: {reason}", kernel.name));
        }
    }
    Ok(rebuilt)
}

/// Each cubin once.
fn distinct<'a>(kernels: &[&'a Kernel]) -> BTreeMap<usize, &'a Kernel> {
    kernels.iter().map(|kernel| (kernel.cubin, *kernel)).collect()
}
