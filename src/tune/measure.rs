//! Tactics by measurement on the GPU of this machine.
//!
//! For each distinct problem the likeliest variants are compiled and compared with the
//! reference; those that are right are timed in turns, so that a drifting clock hits all
//! alike, and those far behind are dropped after a few replays. Where several executions will share the device,
//! as many of a variant are timed at the same time. A variant whose time is in the database is neither run nor
//! timed again.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rayon::prelude::*;

use super::choice::fastest;
use super::database::{Database, Machine, Outcome};
use super::error::TuneError;
use super::lab::{Bench, Candidate, Data, Lab};
use super::problem::{Problem, Tactic, distinct};
use crate::compile::{self, Cache, CompileError, Cubin, Progress};
use crate::cuda::{Context, GraphExec};
use crate::kernel::{self, Arch, Source, Variant};

/// How much is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// Variants compiled per problem, by rising predicted time.
    pub max_variants: usize,
    /// Whether the right ones are timed; otherwise the first right one is taken.
    pub time: bool,
    /// Whether constant operands are kept out of L2, as they are where the weights of the
    /// whole model exceed it.
    pub cold_weights: bool,
    /// When to end. Every kernel has a right variant first, however long that takes; the rest of the
    /// time goes to the kernels that an execution spends most of its own in.
    pub until: Option<Instant>,
}

impl Effort {
    /// Variants of each problem that are tried before anything is looked at again.
    fn first_variants(&self) -> usize {
        if self.until.is_some() {
            1
        } else {
            self.max_variants
        }
    }

    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}

/// Where measurements are looked up and kept.
pub struct Ledger<'a> {
    machine: &'a Machine,
    database: &'a mut Database,
    path: Option<&'a Path>,
    is_saved: bool,
}

impl<'a> Ledger<'a> {
    /// A ledger of `database`, which is written to `path` once, and after every problem that adds to it, so that
    /// nothing is lost with the process.
    pub fn new(machine: &'a Machine, database: &'a mut Database, path: Option<&'a Path>) -> Self {
        Ledger {
            machine,
            database,
            path,
            is_saved: false,
        }
    }

    fn save(&mut self) -> Result<(), TuneError> {
        if let (Some(path), false) = (self.path, self.is_saved) {
            self.database.save(path)?;
        }
        self.is_saved = true;
        Ok(())
    }

    fn note(&mut self, source: &Source, variant: &Variant, outcome: Outcome) {
        self.database.note(self.machine, source, variant, outcome);
        self.is_saved = false;
    }
}

/// Replays after which slow variants are dropped, and in all.
const FIRST_REPLAYS: usize = 3;
const REPLAYS: usize = 9;
/// A variant this many times slower than the best is dropped early.
const HOPELESS: f64 = 1.5;

/// The fastest right variant of each problem, on the device of `context`.
///
/// # Errors
/// A missing NVRTC, a kernel that faults, or a problem none of whose variants is right.
pub fn measure(
    problems: &[Problem],
    arch: Arch,
    context: &Arc<Context>,
    ledger: &mut Ledger<'_>,
    effort: Effort,
    cache: &Cache,
    progress: Progress<'_>,
) -> Result<Vec<Tactic>, TuneError> {
    let (distinct, numbers) = distinct(problems);
    let n_contexts = ledger.machine.n_contexts;
    let lab = Lab::new(context, n_contexts)?;
    let variants: Vec<Vec<Variant>> = distinct
        .par_iter()
        .map(|problem| problem.variants(arch))
        .collect();
    let mut try_out = |n: usize, likely: Vec<Built>| {
        let mut trial = Trial {
            problem: distinct[n],
            arch,
            lab: &lab,
            ledger: &mut *ledger,
            effort,
            cache,
        };
        let tactic = trial.winner(&variants[n], likely);
        // What was measured before a failure is kept too.
        ledger.save()?;
        tactic
    };
    let all: Vec<usize> = (0..distinct.len()).collect();
    let build = |which: &[usize], n_variants: usize| {
        let pairs = which
            .iter()
            .map(|&n| (distinct[n], likeliest(&variants[n], n_variants)));
        built(&pairs.collect::<Vec<_>>(), arch, cache)
    };
    let mut tactics = Vec::with_capacity(distinct.len());
    for (n, likely) in build(&all, effort.first_variants())?.into_iter().enumerate() {
        tactics.push(try_out(n, likely)?);
        progress(n + 1, distinct.len());
    }
    if effort.first_variants() < effort.max_variants {
        for (position, n) in heaviest_first(&tactics, &numbers).into_iter().enumerate() {
            if effort.is_over() {
                break;
            }
            let mut likely = build(&[n], effort.max_variants)?;
            tactics[n] = try_out(n, likely.pop().expect("one problem was built"))?;
            progress(position + 1, distinct.len());
        }
    }
    Ok(numbers.into_iter().map(|n| tactics[n].clone()).collect())
}

fn likeliest(variants: &[Variant], n_variants: usize) -> &[Variant] {
    &variants[..n_variants.min(variants.len())]
}

/// The distinct problems by how much of an execution's time they take, all their kernels together.
fn heaviest_first(tactics: &[Tactic], numbers: &[usize]) -> Vec<usize> {
    let mut us = vec![0.0; tactics.len()];
    for &n in numbers {
        us[n] += tactics[n].measured_us.unwrap_or(tactics[n].variant.predicted_us);
    }
    let mut order: Vec<usize> = (0..tactics.len()).collect();
    order.sort_by(|&a, &b| us[b].total_cmp(&us[a]));
    order
}

/// A variant with its text and what became of compiling it.
struct Built {
    variant: Variant,
    source: Source,
    cubin: Result<Cubin, CompileError>,
}

/// Variants of several problems, compiled together, so that all cores are busy before the device is.
fn built(
    problems: &[(&Problem, &[Variant])],
    arch: Arch,
    cache: &Cache,
) -> Result<Vec<Vec<Built>>, TuneError> {
    let pairs: Vec<(usize, &Variant)> = problems
        .iter()
        .enumerate()
        .flat_map(|(n, (_, variants))| variants.iter().map(move |variant| (n, variant)))
        .collect();
    let sources: Vec<Source> = pairs
        .par_iter()
        .map(|(n, variant)| kernel::render(&problems[*n].0.spec, variant, arch))
        .collect::<Result<_, _>>()?;
    let cubins = compile::compile_each(&sources, arch, cache, &|_, _| {})?;
    let mut built: Vec<Vec<Built>> = problems.iter().map(|_| Vec::new()).collect();
    for (((n, variant), source), cubin) in pairs.into_iter().zip(sources).zip(cubins) {
        built[n].push(Built {
            variant: variant.clone(),
            source,
            cubin,
        });
    }
    Ok(built)
}

/// The search among the variants of one problem.
struct Trial<'a, 'b> {
    problem: &'a Problem,
    arch: Arch,
    lab: &'a Lab,
    ledger: &'a mut Ledger<'b>,
    effort: Effort,
    cache: &'a Cache,
}

/// A variant on its way through the trial.
struct Entrant {
    tactic: Tactic,
    /// From the database, or found now.
    median_us: Option<f64>,
}

impl Trial<'_, '_> {
    /// `likely` are the first of `variants`, compiled.
    fn winner(&mut self, variants: &[Variant], likely: Vec<Built>) -> Result<Tactic, TuneError> {
        let ops = self.problem.spec.ops().join(", ");
        if variants.is_empty() {
            return Err(TuneError::NoKernel { ops });
        }
        let (n_likely, mut last) = (likely.len(), String::new());
        match self.best_of(likely)? {
            Ok(tactic) => return Ok(tactic),
            Err(reason) => last.push_str(&reason),
        }
        // Where the likely ones are all wrong, the others get their chance.
        for variant in &variants[n_likely..] {
            let one = [(self.problem, std::slice::from_ref(variant))];
            let mut built = built(&one, self.arch, self.cache)?;
            match self.best_of(built.pop().expect("one problem was built"))? {
                Ok(tactic) => return Ok(tactic),
                Err(reason) => last = reason,
            }
        }
        Err(TuneError::AllWrong { ops, last })
    }

    /// The fastest right variant of a batch, or why there is none.
    fn best_of(&mut self, batch: Vec<Built>) -> Result<Result<Tactic, String>, TuneError> {
        let (mut entrants, mut last) = self.entrants(batch);
        let unknown: Vec<usize> = (0..entrants.len())
            .filter(|&n| entrants[n].median_us.is_none())
            .collect();
        if !unknown.is_empty() {
            let bench = self.lab.bench(
                self.problem,
                Data::Drawn {
                    cold: self.effort.cold_weights,
                },
            )?;
            let mut right = Vec::new();
            for n in unknown {
                match self.judged(&bench, &entrants[n].tactic)? {
                    Ok((candidate, error)) => {
                        right.push((n, candidate, error));
                        if !self.effort.time {
                            break;
                        }
                    }
                    Err(reason) => last = reason,
                }
            }
            if !self.effort.time {
                let first = right.first().map(|(n, ..)| entrants.swap_remove(*n).tactic);
                return Ok(first.ok_or(last));
            }
            self.time(&bench, &right, &mut entrants)?;
        }
        let timed = entrants
            .into_iter()
            .filter_map(|entrant| Some((entrant.tactic, entrant.median_us?)));
        Ok(fastest(timed)
            .map(|(tactic, us)| Tactic {
                measured_us: Some(us),
                ..tactic
            })
            .ok_or(last))
    }

    /// The variants that compile and that no earlier measurement rules out.
    fn entrants(&mut self, batch: Vec<Built>) -> (Vec<Entrant>, String) {
        let mut entrants = Vec::new();
        let mut last = "none compiles".to_owned();
        for built in batch {
            match self.entrant(&built.variant, built.source, built.cubin) {
                Ok(entrant) => entrants.push(entrant),
                Err(reason) => last = reason,
            }
        }
        (entrants, last)
    }

    fn entrant(
        &mut self,
        variant: &Variant,
        source: Source,
        cubin: Result<Cubin, CompileError>,
    ) -> Result<Entrant, String> {
        let cubin = cubin.map_err(|error| {
            tracing::warn!("passing over a variant: {error}");
            let reason = error.to_string();
            self.ledger.note(
                &source,
                variant,
                Outcome::Unusable {
                    reason: reason.clone(),
                },
            );
            reason
        })?;
        let known = self.ledger.database.get(self.ledger.machine, &source);
        let median_us = match known {
            None => None,
            Some(outcome) => Some(
                outcome
                    .us()
                    .ok_or_else(|| format!("{} ({}) {outcome}", source.name, variant.knobs_text()))?,
            ),
        };
        let tactic = Tactic {
            variant: variant.clone(),
            source,
            cubin,
            measured_us: None,
        };
        Ok(Entrant { tactic, median_us })
    }

    /// Loads and checks a variant; the inner error says why it is out.
    fn judged(
        &mut self,
        bench: &Bench,
        tactic: &Tactic,
    ) -> Result<Result<(Candidate, f64), String>, TuneError> {
        let candidate = match self.lab.load(tactic) {
            Ok(candidate) => candidate,
            Err(error) => {
                let reason = error.to_string();
                let outcome = Outcome::Unusable {
                    reason: reason.clone(),
                };
                self.ledger.note(&tactic.source, &tactic.variant, outcome);
                return Ok(Err(reason));
            }
        };
        let (error, right) = self.lab.judge(bench, &candidate)?;
        if right {
            return Ok(Ok((candidate, error)));
        }
        let outcome = Outcome::Wrong { error };
        let (source, variant) = (&tactic.source, &tactic.variant);
        let reason = format!("{} ({}) {outcome}", source.name, variant.knobs_text());
        tracing::warn!("{reason}; region:\n{}", self.problem.spec.text());
        self.ledger.note(source, variant, outcome);
        Ok(Err(reason))
    }

    /// Times the right ones in turns and notes the results.
    fn time(
        &mut self,
        bench: &Bench,
        right: &[(usize, Candidate, f64)],
        entrants: &mut [Entrant],
    ) -> Result<(), TuneError> {
        let graphs: Vec<Vec<GraphExec>> = right
            .iter()
            .map(|(_, candidate, _)| self.lab.record(bench, candidate))
            .collect::<Result<_, _>>()?;
        // The first replay of a graph also moves it to the device.
        for graph in &graphs {
            self.lab.replay_us(graph)?;
        }
        let mut times: Vec<Vec<f64>> = vec![Vec::new(); graphs.len()];
        let mut running: Vec<usize> = (0..graphs.len()).collect();
        for round in 0..REPLAYS {
            for &n in &running {
                times[n].push(self.lab.replay_us(&graphs[n])?);
            }
            if round + 1 == FIRST_REPLAYS {
                let best = times.iter().map(|own| median(own)).fold(f64::INFINITY, f64::min);
                running.retain(|&n| median(&times[n]) <= best * HOPELESS);
            }
        }
        for ((n, _, error), times) in right.iter().zip(&times) {
            let entrant = &mut entrants[*n];
            entrant.median_us = Some(median(times));
            let outcome = outcome(times, *error);
            let tactic = &entrant.tactic;
            self.ledger.note(&tactic.source, &tactic.variant, outcome);
        }
        Ok(())
    }
}

fn outcome(times: &[f64], error: f64) -> Outcome {
    if times.len() < REPLAYS {
        return Outcome::Slow {
            at_least_us: median(times),
        };
    }
    Outcome::Timed {
        median_us: median(times),
        spread_us: [
            times.iter().copied().fold(f64::INFINITY, f64::min),
            times.iter().copied().fold(0.0, f64::max),
        ],
        error,
    }
}

/// The middle one of some times.
pub fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::INFINITY)
}
