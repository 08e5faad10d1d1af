//! From CUDA text to cubins.
//!
//! One NVRTC program per kernel, in parallel, straight to the cubin of one architecture,
//! with no GPU present. Identical texts are compiled once, and a content-addressed
//! [`Cache`] on disk makes the next build fast. The same text, options and NVRTC give the
//! same bytes. What a kernel uses (registers, spills, shared memory) and which parameters
//! it takes are read back from the cubin and checked against its [`Source`].

mod cache;
mod error;
mod resources;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

pub use cache::{Cache, Key};
pub use error::CompileError;
pub use resources::{ParamSlot, Resources, read as read_resources};

use crate::cuda::nvrtc::Compiled;
use crate::cuda::{Nvrtc, NvrtcMissing};
use crate::kernel::{Arch, Param, Source};

/// A compiled kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Cubin {
    pub bytes: Arc<Vec<u8>>,
    pub resources: Resources,
}

/// Is told how many of how many kernels are compiled, from several threads.
pub type Progress<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// Architectures the tested NVRTC builds for, by compute capability times ten.
pub const SUPPORTED_SM: [u32; 8] = [75, 80, 86, 87, 89, 90, 100, 120];

/// NVRTC's spelling of an architecture, such as `sm_90a`.
pub fn arch_name(arch: Arch) -> String {
    format!("sm_{}{}", arch.sm, if arch.specific { "a" } else { "" })
}

/// Options every kernel is compiled with.
///
/// `a * b + c` may contract to one rounding (NVRTC's default, stated here because results
/// depend on it); no other fast-math liberty is taken.
pub fn options(arch: Arch) -> Vec<String> {
    options_for(&arch_name(arch))
}

/// The same for PTX, which is compiled to what later devices execute when they load it.
pub fn virtual_options(arch: Arch) -> Vec<String> {
    options_for(&arch_name(arch).replace("sm_", "compute_"))
}

fn options_for(arch: &str) -> Vec<String> {
    vec![
        format!("--gpu-architecture={arch}"),
        "--std=c++17".to_owned(),
        "--fmad=true".to_owned(),
        // Helpers of the prelude that a kernel does not call.
        "--diag-suppress=177".to_owned(),
    ]
}

/// Compiles every source for `arch`; results are in the order of `sources`.
///
/// # Errors
/// The first failure in that order, or a missing NVRTC.
pub fn compile(
    sources: &[Source],
    arch: Arch,
    cache: &Cache,
    progress: Progress<'_>,
) -> Result<Vec<Cubin>, CompileError> {
    compile_each(sources, arch, cache, progress)?
        .into_iter()
        .collect()
}

/// Like [`compile`], but a kernel that fails does not hide the others.
///
/// # Errors
/// A missing NVRTC.
pub fn compile_each(
    sources: &[Source],
    arch: Arch,
    cache: &Cache,
    progress: Progress<'_>,
) -> Result<Vec<Result<Cubin, CompileError>>, CompileError> {
    if sources.is_empty() {
        return Ok(Vec::new());
    }
    let nvrtc = Nvrtc::get().map_err(|missing: &NvrtcMissing| CompileError::NoNvrtc(missing.clone()))?;
    let (distinct, place) = distinct_texts(sources);
    let n_done = AtomicUsize::new(0);
    let compiled: Vec<Result<Cubin, CompileError>> = distinct
        .par_iter()
        .map(|source| {
            let cubin = compile_one(nvrtc, source, arch, cache);
            progress(n_done.fetch_add(1, Ordering::Relaxed) + 1, distinct.len());
            cubin
        })
        .collect();
    Ok(place
        .into_iter()
        .zip(sources)
        .map(|(index, source)| {
            let cubin = compiled[index].clone()?;
            check_params(source, &cubin.resources)?;
            Ok(cubin)
        })
        .collect())
}

/// The distinct texts among `sources`, and for each source which of them is its own.
fn distinct_texts(sources: &[Source]) -> (Vec<&Source>, Vec<usize>) {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    let mut distinct = Vec::new();
    let place = sources
        .iter()
        .map(|source| {
            *seen.entry(&source.text).or_insert_with(|| {
                distinct.push(source);
                distinct.len() - 1
            })
        })
        .collect();
    (distinct, place)
}

fn compile_one(nvrtc: &Nvrtc, source: &Source, arch: Arch, cache: &Cache) -> Result<Cubin, CompileError> {
    let options = options(arch);
    let key = Key::of(&source.text, &options, &nvrtc.version().to_string());
    if let Some(bytes) = cache.get(&key)
        && let Ok(resources) = resources::read(&bytes, &source.name)
    {
        return Ok(Cubin {
            bytes: Arc::new(bytes),
            resources,
        });
    }
    let Compiled { cubin, .. } = nvrtc
        .compile(&source.text, &format!("{}.cu", source.name), &options)
        .map_err(|failure| CompileError::rejected(source, arch, &failure, cache))?;
    let resources = resources::read(&cubin, &source.name).map_err(|reason| CompileError::Unreadable {
        kernel: source.name.clone(),
        reason,
    })?;
    cache.put(&key, &cubin);
    Ok(Cubin {
        bytes: Arc::new(cubin),
        resources,
    })
}

/// Compares the parameter table of the cubin with the parameters we are going to pass.
fn check_params(source: &Source, resources: &Resources) -> Result<(), CompileError> {
    let mut wanted = Vec::new();
    let mut end = 0;
    for (number, param) in source.params.iter().enumerate() {
        let found = resources.params.get(number);
        let (size, alignment) = param_layout(param);
        // Tensor maps are aligned where the device has its parameters, which is not where the
        // table counts from: any gap that alignment explains will do.
        let offset = match (param, found) {
            (Param::TensorMap { .. }, Some(slot)) if (end..end + alignment).contains(&slot.offset) => {
                slot.offset
            }
            _ => u32::next_multiple_of(end, alignment),
        };
        wanted.push(ParamSlot { offset, size });
        end = offset + size;
    }
    if wanted == resources.params {
        return Ok(());
    }
    Err(CompileError::Params {
        kernel: source.name.clone(),
        template: source.template,
        wanted,
        found: resources.params.clone(),
    })
}

/// Size and alignment in bytes.
fn param_layout(param: &Param) -> (u32, u32) {
    match param {
        Param::Input(_) | Param::Output(_) | Param::Workspace => (8, 8),
        Param::Dim(_) => (4, 4),
        Param::TensorMap { .. } => (128, 64),
    }
}
