//! Kernels whose numbers are arguments, for problems that are alike.

use rayon::prelude::*;

use super::{Observer, PipelineError, Selection};
use crate::compile::{self, Cache, CompileError, Cubin, arch_name};
use crate::cuda::Context;
use crate::kernel::family::{Families, Family};
use crate::kernel::{self, Arch, Source, Variant};
use crate::tune::{self, Problem, Tactic, TuneError};

/// Most bytes per thread that a family may keep in memory where a member alone keeps its numbers in registers. Attention
/// of 12 heads whose family keeps 80 to 112 takes 1.02 to 1.2 times as long as kernels of single shapes; the fastest
/// other variant whose family keeps none, 1.4 to 1.55 times.
const MOST_KEPT: u32 = 128;
/// Members that have kernels of their own rather than keep anything: as few more kernels are a small price.
const FEW: usize = 32;

/// How kernels are made, and chosen.
pub struct Making<'a> {
    pub arch: Arch,
    pub selection: &'a Selection,
    pub observer: &'a dyn Observer,
    pub cache: Cache,
}

/// Tactics that execute one text, each with the number of its problem.
pub type Shared = Vec<(usize, Tactic)>;

/// The families of `chosen`, a variant for each problem. Only problems of one of the `layers` are in one.
///
/// # Errors
/// If a kernel cannot be made, or NVRTC is missing.
pub fn shared(
    chosen: &[Variant],
    problems: &[Problem],
    layers: &[Vec<usize>],
    making: &Making<'_>,
) -> Result<Vec<Shared>, PipelineError> {
    let families = in_layers(chosen, problems, layers, making.arch)?;
    let texts: Vec<Source> = families
        .iter()
        .map(|family| family.members[0].1.clone())
        .collect();
    let observer = making.observer;
    let stage = format!("kernels of many shapes for {}", arch_name(making.arch));
    observer.stage(&stage, texts.len());
    let progress = |n_done, n_steps| observer.step(n_done, n_steps);
    let cubins = compile::compile_each(&texts, making.arch, &making.cache, &progress)?;
    let mut found = Vec::new();
    for (family, cubin) in families.into_iter().zip(cubins) {
        found.extend(judged(family, cubin, chosen, problems, making)?);
    }
    Ok(found)
}

/// Layers may have the same text but for numbers, too. Theirs are no dims: what all shapes have in common folds.
fn in_layers(
    chosen: &[Variant],
    problems: &[Problem],
    layers: &[Vec<usize>],
    arch: Arch,
) -> Result<Vec<Family>, PipelineError> {
    let of_layer = |numbers: &Vec<usize>| {
        let mut families = Families::default();
        for &number in numbers {
            families.add(
                number,
                kernel::render(&problems[number].spec, &chosen[number], arch)?,
            );
        }
        Ok(families.finish())
    };
    let families: Result<Vec<Vec<Family>>, TuneError> = layers.par_iter().map(of_layer).collect();
    Ok(families?.into_iter().flatten().collect())
}

/// The tactics of a family; `None` where its members are to have kernels of their own.
fn judged(
    family: Family,
    cubin: Result<Cubin, CompileError>,
    chosen: &[Variant],
    problems: &[Problem],
    making: &Making<'_>,
) -> Result<Option<Shared>, PipelineError> {
    let cubin = match cubin {
        Ok(cubin) => cubin,
        Err(error) => {
            tracing::warn!("kernels for one shape each instead: {error}");
            return Ok(None);
        }
    };
    let kept = kept(&cubin, &family.alone, making)?;
    if kept > MOST_KEPT || kept > 0 && family.members.len() <= FEW {
        let name = &family.alone.name;
        tracing::info!("kernels for one shape each instead of `{name}`: it keeps {kept} bytes per thread");
        return Ok(None);
    }
    let tactics = family.members.into_iter().map(|(number, source)| {
        let tactic = Tactic {
            variant: chosen[number].clone(),
            source,
            cubin: cubin.clone(),
            measured_us: None,
        };
        (number, tactic)
    });
    let tactics: Shared = tactics.collect();
    Ok(is_right(&tactics, problems, making.selection)?.then_some(tactics))
}

/// Whether the longest member of a family computes what its problem means, where a device is there to try it.
fn is_right(
    family: &[(usize, Tactic)],
    problems: &[Problem],
    selection: &Selection,
) -> Result<bool, PipelineError> {
    let Selection::OnDevice { ordinal, .. } = selection else {
        return Ok(true);
    };
    let by_time = |a: &&(usize, Tactic), b: &&(usize, Tactic)| {
        a.1.variant.predicted_us.total_cmp(&b.1.variant.predicted_us)
    };
    let Some((number, tactic)) = family.iter().max_by(by_time) else {
        return Ok(true);
    };
    let is_right = tune::is_right(&problems[*number], tactic, &Context::new(*ordinal)?)?;
    if !is_right {
        tracing::warn!(
            "kernels for one shape each instead of `{}`: it is wrong",
            tactic.source.name
        );
    }
    Ok(is_right)
}

/// Bytes per thread that a family keeps in memory, and a member `alone` does not.
fn kept(family: &Cubin, alone: &Source, making: &Making<'_>) -> Result<u32, PipelineError> {
    let bytes = family.resources.local_bytes;
    if bytes == 0 {
        return Ok(0);
    }
    let alone = compile::compile_each(
        std::slice::from_ref(alone),
        making.arch,
        &making.cache,
        &|_, _| {},
    )?;
    let own = alone.iter().flatten().map(|cubin| cubin.resources.local_bytes);
    Ok(bytes.saturating_sub(own.max().unwrap_or(0)))
}
