//! PTX beside cubins, for devices that are newer than an engine.

use std::collections::HashMap;

use rayon::prelude::*;

use super::{PipelineError, nvrtc};
use crate::compile::{CompileError, virtual_options};
use crate::engine::{Content, Engine, arch_number, blob_table};
use crate::kernel::Arch;

/// The newest of `archs` that later devices can execute code for; those with features of their own, such
/// as `sm_90a`, have none.
pub fn portable(archs: &[Arch]) -> Option<Arch> {
    archs.iter().copied().filter(|arch| !arch.specific).max()
}

/// Adds PTX of every kernel for `arch` to its programs; the driver of a newer device compiles it when the
/// engine is loaded.
///
/// # Errors
/// If NVRTC is missing or gives none.
pub fn embed(engine: &mut Engine, arch: Arch) -> Result<(), PipelineError> {
    let nvrtc = nvrtc()?;
    let options = virtual_options(arch);
    let is_own = |name: &str| arch_number(name) == Some((arch.sm, arch.specific));
    let own = engine.header.kernels().filter(|(name, _)| is_own(name));
    let kernels = own.flat_map(|(_, kernels)| kernels);
    let mut names: HashMap<usize, String> = HashMap::new();
    for kernel in kernels {
        names.entry(kernel.source).or_insert_with(|| kernel.name.clone());
    }
    let mut sources: Vec<(usize, String)> = names.into_iter().collect();
    sources.sort();
    let blobs = &engine.blobs;
    let compiled: Vec<(usize, Vec<u8>)> = sources
        .into_par_iter()
        .map(|(source, name)| {
            let text = String::from_utf8_lossy(&blobs[source]);
            let ptx = nvrtc.compile_ptx(&text, &format!("{name}.cu"), &options);
            let ptx = ptx.map_err(|failure| CompileError::Ptx {
                kernel: name,
                failure,
            })?;
            Ok::<_, CompileError>((source, ptx))
        })
        .collect::<Result<_, _>>()?;
    let mut numbers: HashMap<usize, usize> = HashMap::new();
    for (source, ptx) in compiled {
        numbers.insert(source, engine.blobs.len());
        engine.blobs.push(Content::from(ptx));
    }
    let own = engine.header.kernels_mut().filter(|(name, _)| is_own(name));
    for kernel in own.flat_map(|(_, kernels)| kernels) {
        kernel.ptx = numbers.get(&kernel.source).copied();
    }
    engine.header.blobs = blob_table(&engine.blobs);
    Ok(())
}
