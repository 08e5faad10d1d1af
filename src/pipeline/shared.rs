//! Kernels that many shapes share: variants by buckets of shapes, and texts whose numbers are arguments.

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;

use super::tactics::tactics;
use super::{Observer, PipelineError, Selection};
use crate::compile::{self, Cache, Cubin, arch_name};
use crate::cuda::Context;
use crate::kernel::{
    self, Arch, Source, Variant,
    family::{Family, families},
};
use crate::tune::{self, Bucket, Incumbent, Problem, Tactic, TuneError, buckets, form};

/// Shapes whose problems are looked at together.
const AT_ONCE: usize = 64;

/// Tactics for the problems of many shapes, each once.
pub struct SharedTactics {
    solved: Vec<Tactic>,
    /// For each shape which of them are its own.
    places: Vec<Vec<usize>>,
}

impl SharedTactics {
    /// One for each problem of a shape.
    pub fn of_shape(&self, shape: usize) -> Vec<Tactic> {
        let places = self.places[shape].iter();
        places.map(|&number| self.solved[number].clone()).collect()
    }
}

/// Tactics for the problems of `n_shapes` shapes; `posed` gives those of one, which are many more than there are different
/// ones. Each bucket's variant is chosen as `selection` says, on its longest problem. Problems whose kernels are in no
/// family have kernels of their own.
///
/// # Errors
/// If no kernel can be made for a problem.
pub fn shared_tactics(
    n_shapes: usize,
    posed: &(dyn Fn(usize) -> Vec<Problem> + Sync),
    arch: Arch,
    selection: &Selection,
    observer: &dyn Observer,
) -> Result<SharedTactics, PipelineError> {
    let (distinct, places) = distinct(n_shapes, posed);
    let distinct: Vec<&Problem> = distinct.iter().collect();
    let buckets = buckets(&distinct, arch);
    let cache = Cache::of_user();
    let led = led(&distinct, &buckets, arch, selection, observer)?;
    let chosen = chosen(&led, &buckets, arch)?;
    let forms: Vec<String> = distinct.iter().map(|problem| form(problem)).collect();
    let mut solved: Vec<Option<Tactic>> = vec![None; distinct.len()];
    for family in in_families(&chosen, &forms, arch, &cache, observer)? {
        if is_right(&family, &led, selection)? {
            for (number, tactic) in family {
                solved[number] = Some(tactic);
            }
        }
    }
    let open: Vec<usize> = (0..distinct.len())
        .filter(|&number| solved[number].is_none())
        .collect();
    let problems: Vec<Problem> = open.iter().map(|&number| led[number].clone()).collect();
    let stage = format!("kernels of single shapes for {}", arch_name(arch));
    observer.stage(&stage, problems.len());
    let own = tune::predict(&problems, arch, &cache, &|n_done, n_steps| {
        observer.step(n_done, n_steps);
    })?;
    for (number, tactic) in open.into_iter().zip(own) {
        solved[number] = Some(tactic);
    }
    Ok(SharedTactics {
        solved: solved.into_iter().flatten().collect(),
        places,
    })
}

/// Every problem once, and for each shape which of them are its own.
fn distinct(
    n_shapes: usize,
    posed: &(dyn Fn(usize) -> Vec<Problem> + Sync),
) -> (Vec<Problem>, Vec<Vec<usize>>) {
    let keyed = |shape: usize| -> Vec<(String, Problem)> {
        let own = posed(shape).into_iter();
        own.map(|problem| (problem.spec.key(), problem)).collect()
    };
    let mut known: HashMap<String, usize> = HashMap::new();
    let mut distinct = Vec::new();
    let mut places = Vec::with_capacity(n_shapes);
    for first in (0..n_shapes).step_by(AT_ONCE) {
        let shapes = first..n_shapes.min(first + AT_ONCE);
        let chunk: Vec<Vec<(String, Problem)>> = shapes.into_par_iter().map(keyed).collect();
        for own in chunk {
            let numbers = own.into_iter().map(|(key, problem)| {
                *known.entry(key).or_insert_with(|| {
                    distinct.push(problem);
                    distinct.len() - 1
                })
            });
            places.push(numbers.collect());
        }
    }
    (distinct, places)
}

/// The problems, each with the variant of its bucket as the one to be tried first.
fn led(
    distinct: &[&Problem],
    buckets: &[Bucket],
    arch: Arch,
    selection: &Selection,
    observer: &dyn Observer,
) -> Result<Vec<Problem>, PipelineError> {
    let mut led: Vec<Problem> = distinct.iter().map(|&problem| problem.clone()).collect();
    for bucket in buckets {
        for &member in &bucket.members {
            led[member].incumbent = Some(bucket.variant.clone());
        }
    }
    if matches!(selection, Selection::Predicted) {
        return Ok(led);
    }
    let leaders: Vec<Problem> = buckets
        .iter()
        .map(|bucket| led[bucket.representative].clone())
        .collect();
    let winners = tactics(&leaders, arch, selection, observer)?;
    for (bucket, winner) in buckets.iter().zip(winners) {
        for &member in &bucket.members {
            led[member].incumbent = Some(Incumbent {
                template: winner.variant.template.clone(),
                knobs: winner.variant.knobs_text(),
            });
        }
    }
    Ok(led)
}

/// For each problem its first variant, with the source.
fn chosen(led: &[Problem], buckets: &[Bucket], arch: Arch) -> Result<Vec<(Variant, Source)>, PipelineError> {
    let known: HashMap<usize, &Variant> = buckets
        .iter()
        .flat_map(|bucket| bucket.members.iter().copied().zip(&bucket.variants))
        .collect();
    let of = |(number, problem): (usize, &Problem)| {
        let own = known.get(&number).filter(|own| {
            let leads = |first: &Incumbent| first.is(own);
            problem.incumbent.as_ref().is_some_and(leads)
        });
        let none = || TuneError::NoKernel {
            ops: problem.spec.ops().join(", "),
        };
        let first = match own {
            Some(own) => (**own).clone(),
            None => problem.variants(arch).into_iter().next().ok_or_else(none)?,
        };
        let source = kernel::render(&problem.spec, &first, arch).map_err(TuneError::from)?;
        Ok((first, source))
    };
    led.par_iter().enumerate().map(of).collect()
}

/// Tactics of the problems whose kernels are in families, by their places, for each family. A family that the compiler refuses, or
/// that keeps in memory what a single kernel keeps in registers, is none.
fn in_families(
    chosen: &[(Variant, Source)],
    forms: &[String],
    arch: Arch,
    cache: &Cache,
    observer: &dyn Observer,
) -> Result<Vec<Vec<(usize, Tactic)>>, PipelineError> {
    let mut layers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (number, form) in forms.iter().enumerate() {
        layers.entry(form).or_default().push(number);
    }
    // Layers may have the same text but for numbers, too. Theirs are no dims: what all shapes have in common folds.
    let of_layer = |numbers: &Vec<usize>| -> Vec<Family> {
        let sources: Vec<Source> = numbers.iter().map(|&number| chosen[number].1.clone()).collect();
        let mut own = families(&sources);
        for (member, _) in own.iter_mut().flat_map(|family| &mut family.members) {
            *member = numbers[*member];
        }
        own
    };
    let layers: Vec<Vec<usize>> = layers.into_values().collect();
    let families: Vec<Family> = layers.par_iter().flat_map_iter(of_layer).collect();
    let texts: Vec<Source> = families
        .iter()
        .map(|family| family.members[0].1.clone())
        .collect();
    observer.stage(
        &format!("kernels of many shapes for {}", arch_name(arch)),
        texts.len(),
    );
    let progress = |n_done, n_steps| observer.step(n_done, n_steps);
    let cubins = compile::compile_each(&texts, arch, cache, &progress)?;
    let mut made = Vec::new();
    for (family, cubin) in families.into_iter().zip(cubins) {
        let alone = &chosen[family.members[0].0].1;
        let cubin = match cubin {
            Ok(cubin) if !spills(&cubin, alone, arch, cache)? => cubin,
            Ok(_) => continue,
            Err(error) => {
                tracing::warn!("kernels for one shape each instead: {error}");
                continue;
            }
        };
        let tactics = family.members.into_iter().map(|(number, source)| {
            let tactic = Tactic {
                variant: chosen[number].0.clone(),
                source,
                cubin: cubin.clone(),
                measured_us: None,
            };
            (number, tactic)
        });
        made.push(tactics.collect());
    }
    Ok(made)
}

/// Whether the longest member of a family computes what its problem means, where a device is there to try it.
fn is_right(
    family: &[(usize, Tactic)],
    led: &[Problem],
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
    let is_right = tune::is_right(&led[*number], tactic, &Context::new(*ordinal)?)?;
    if !is_right {
        tracing::warn!(
            "kernels for one shape each instead of `{}`: it is wrong",
            tactic.source.name
        );
    }
    Ok(is_right)
}

/// Whether a family keeps more in memory than a member does `alone`.
fn spills(family: &Cubin, alone: &Source, arch: Arch, cache: &Cache) -> Result<bool, PipelineError> {
    if family.resources.local_bytes == 0 {
        return Ok(false);
    }
    let alone = compile::compile_each(std::slice::from_ref(alone), arch, cache, &|_, _| {})?;
    let own = alone.iter().flatten().map(|cubin| cubin.resources.local_bytes);
    Ok(own.max().is_none_or(|own| family.resources.local_bytes > own))
}
