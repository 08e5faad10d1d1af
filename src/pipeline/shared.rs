//! Kernels that many shapes share: variants by buckets of shapes, and texts whose numbers are arguments.

use std::collections::HashMap;

use rayon::prelude::*;

use super::families::{Making, shared};
use super::tactics::tactics;
use super::{Observer, PipelineError, Selection};
use crate::compile::{Cache, arch_name};
use crate::kernel::{Arch, Variant};
use crate::tune::{self, Bucket, Incumbent, Problem, Tactic, TuneError, buckets, layers};

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
    let (problems, places) = distinct(n_shapes, posed);
    let mut solving = Solving {
        layers: layers(&problems),
        solved: vec![None; problems.len()],
        problems,
        making: Making {
            arch,
            selection,
            observer,
            cache: Cache::of_user(),
        },
    };
    solving.together()?;
    solving.alone()?;
    Ok(SharedTactics {
        solved: solving.solved.into_iter().flatten().collect(),
        places,
    })
}

/// Problems that get their tactics.
struct Solving<'a> {
    problems: Vec<Problem>,
    /// The problems of each layer, by their numbers.
    layers: Vec<Vec<usize>>,
    solved: Vec<Option<Tactic>>,
    making: Making<'a>,
}

impl Solving<'_> {
    /// Solves problems whose kernels are in families of their buckets.
    fn together(&mut self) -> Result<(), PipelineError> {
        let buckets = buckets(&self.problems, &self.layers, self.making.arch);
        self.lead(&buckets)?;
        let chosen = self.chosen(&buckets)?;
        for (number, tactic) in shared(&chosen, &self.problems, &self.layers, &self.making)?
            .into_iter()
            .flatten()
        {
            self.solved[number] = Some(tactic);
        }
        Ok(())
    }

    /// Has the problems try the variant of their bucket first.
    fn lead(&mut self, buckets: &[Bucket]) -> Result<(), PipelineError> {
        for bucket in buckets {
            self.prefer(bucket, &bucket.variant);
        }
        let Making {
            arch,
            selection,
            observer,
            ..
        } = self.making;
        if matches!(selection, Selection::Predicted) {
            return Ok(());
        }
        let leader = |bucket: &Bucket| self.problems[bucket.representative].clone();
        let leaders: Vec<Problem> = buckets.iter().map(leader).collect();
        let winners = tactics(&leaders, arch, selection, observer)?;
        for (bucket, winner) in buckets.iter().zip(winners) {
            let variant = Incumbent {
                template: winner.variant.template.clone(),
                knobs: winner.variant.knobs_text(),
            };
            self.prefer(bucket, &variant);
        }
        Ok(())
    }

    fn prefer(&mut self, bucket: &Bucket, variant: &Incumbent) {
        for &member in &bucket.members {
            self.problems[member].incumbent = Some(variant.clone());
        }
    }

    /// The first variant of every problem.
    fn chosen(&self, buckets: &[Bucket]) -> Result<Vec<Variant>, PipelineError> {
        let known: HashMap<usize, &Variant> = buckets
            .iter()
            .flat_map(|bucket| bucket.members.iter().copied().zip(&bucket.variants))
            .collect();
        let of = |(number, problem): (usize, &Problem)| {
            let leads = |own: &&&Variant| problem.incumbent.as_ref().is_some_and(|first| first.is(own));
            let none = || TuneError::NoKernel {
                ops: problem.spec.ops().join(", "),
            };
            let first = if let Some(own) = known.get(&number).filter(leads) {
                (**own).clone()
            } else {
                let all = problem.variants(self.making.arch);
                all.into_iter().next().ok_or_else(none)?
            };
            Ok(first)
        };
        self.problems.par_iter().enumerate().map(of).collect()
    }

    /// Has the problems that are left solved by kernels of their own.
    fn alone(&mut self) -> Result<(), PipelineError> {
        let open: Vec<usize> = (0..self.problems.len())
            .filter(|&number| self.solved[number].is_none())
            .collect();
        let problems: Vec<Problem> = open.iter().map(|&number| self.problems[number].clone()).collect();
        let Making {
            arch,
            observer,
            ref cache,
            ..
        } = self.making;
        let stage = format!("kernels of single shapes for {}", arch_name(arch));
        observer.stage(&stage, problems.len());
        let own = tune::predict(&problems, arch, cache, &|n_done, n_steps| {
            observer.step(n_done, n_steps);
        })?;
        for (number, tactic) in open.into_iter().zip(own) {
            self.solved[number] = Some(tactic);
        }
        Ok(())
    }
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
