//! Whole programs, timed as they are executed: what launches cost each other is not in the times of kernels.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::tactics::{machine_of, recorded_machine};
use super::{PipelineError, Selection};
use crate::cuda::Context;
use crate::engine::{Engine, Program};
use crate::hex::hex;
use crate::ir::HostTensor;
use crate::kernel::Arch;
use crate::ops::random::drawn;
use crate::runtime::{DeviceEngine, ExecutionContext, RuntimeError};
use crate::tune::{Database, Machine, Measurement, Outcome, TuneError, error_of, median};

/// Turns that every program has.
const ROUNDS: usize = 9;
/// What a program executes in one turn, in microseconds, and the most executions.
const TURN_US: f64 = 5_000.0;
const MOST_EXECUTIONS: usize = 50;
/// Measurements of programs are told from those of kernels by this in the place of a template.
const TEMPLATE: &str = "program";

/// One program of an engine.
#[derive(Clone, Copy)]
pub struct Entrant<'a> {
    pub engine: &'a Engine,
    pub program: usize,
}

impl Entrant<'_> {
    fn program(&self) -> &Program {
        &self.engine.header.programs[self.program]
    }

    /// Equal for programs that execute the same on the same memory.
    pub fn digest(&self) -> String {
        let program = self.program();
        let mut hash = Sha256::new();
        for launch in &program.launches {
            let cubin = &self.engine.header.blobs[program.kernels[launch.kernel].cubin].sha256;
            let geometry = (launch.grid, launch.block, launch.smem_bytes, launch.stream);
            hash.update(format!("{cubin} {geometry:?} {:?}\n", launch.args).as_bytes());
        }
        hex(&hash.finalize()[..16])
    }

    /// An engine of this program alone.
    fn alone(&self) -> Engine {
        let mut engine = self.engine.clone();
        let mut program = self.program().clone();
        engine.header.profiles = vec![engine.header.profiles[program.profile].clone()];
        program.profile = 0;
        engine.header.programs = vec![program];
        engine.header.shared = None;
        engine
    }

    fn measurement(&self, machine: &Machine, outcome: Outcome) -> Measurement {
        let program = self.program();
        let n_streams = 1 + program.launches.iter().map(|own| own.stream).max().unwrap_or(0);
        Measurement {
            machine: machine.clone(),
            kernel: self.digest(),
            template: TEMPLATE.to_owned(),
            variant: format!("launches={} streams={n_streams}", program.launches.len()),
            predicted_us: program.launches.iter().map(|own| own.predicted_us).sum(),
            outcome,
        }
    }
}

/// Microseconds of an execution of each of `entrants`, which compute the same for the same inputs. They take
/// turns on the device, unless all of their times are in the file of measurements; one whose outputs are not
/// numbers where the first one's are takes for ever.
///
/// # Errors
/// If the device reports a fault, or a time is missing where only the file may be asked.
fn race(entrants: &[Entrant<'_>], arch: Arch, selection: &Selection) -> Result<Vec<f64>, PipelineError> {
    let n_contexts = entrants
        .first()
        .map_or(1, |entrant| entrant.engine.header.n_contexts());
    let outcomes = match selection {
        Selection::Predicted => return Ok(predicted(entrants)),
        Selection::Recorded { database: path, .. } => {
            let database = Database::load(path)?;
            let machine = recorded_machine(&database, path, arch, n_contexts)?;
            recalled(entrants, &machine, &database)?
        }
        Selection::OnDevice {
            ordinal, database, ..
        } => {
            let mut known = database
                .as_deref()
                .map_or_else(|| Ok(Database::default()), Database::load)?;
            let context = Context::new(*ordinal)?;
            let machine = machine_of(&context, arch, n_contexts)?;
            if let Ok(outcomes) = recalled(entrants, &machine, &known) {
                outcomes
            } else {
                let earlier = entrants
                    .iter()
                    .map(|entrant| known.outcome(&machine, &entrant.digest()));
                let outcomes = beside(&earlier.collect::<Vec<_>>(), timed(entrants, &context)?);
                for (entrant, outcome) in entrants.iter().zip(&outcomes) {
                    known.add(entrant.measurement(&machine, outcome.clone()));
                }
                if let Some(path) = database {
                    known.save(path)?;
                }
                outcomes
            }
        }
    };
    Ok(outcomes
        .iter()
        .map(|own| own.us().unwrap_or(f64::INFINITY))
        .collect())
}

/// The same for one program of several engines.
///
/// # Errors
/// As those of [`race`].
pub fn raced<'a>(
    engines: impl IntoIterator<Item = &'a Engine>,
    program: usize,
    arch: Arch,
    selection: &Selection,
) -> Result<Vec<f64>, PipelineError> {
    let entrants = engines.into_iter().map(|engine| Entrant { engine, program });
    race(&entrants.collect::<Vec<_>>(), arch, selection)
}

fn predicted(entrants: &[Entrant<'_>]) -> Vec<f64> {
    let us = |entrant: &Entrant<'_>| {
        let launches = entrant.program().launches.iter();
        launches.map(|launch| launch.predicted_us).sum()
    };
    entrants.iter().map(us).collect()
}

fn recalled(
    entrants: &[Entrant<'_>],
    machine: &Machine,
    database: &Database,
) -> Result<Vec<Outcome>, TuneError> {
    let known: Vec<Option<&Outcome>> = entrants
        .iter()
        .map(|entrant| database.outcome(machine, &entrant.digest()))
        .collect();
    match known.iter().position(Option::is_none) {
        None => Ok(known.into_iter().flatten().cloned().collect()),
        Some(first) => Err(TuneError::CacheMiss {
            n_missing: known.iter().filter(|own| own.is_none()).count(),
            first: format!(
                "a program of {} launches for {}",
                entrants[first].program().launches.len(),
                machine.arch
            ),
            device: machine.device.clone(),
        }),
    }
}

/// Outcomes beside those that are known from earlier races, which stay: by the first entrant, which was in both, a clock
/// that has drifted since is made up for. So the file of measurements tells later builds what this one goes by.
fn beside(known: &[Option<&Outcome>], outcomes: Vec<Outcome>) -> Vec<Outcome> {
    let us = |outcome: Option<&Outcome>| outcome.and_then(Outcome::us);
    let drift = match (us(known[0]), us(outcomes.first())) {
        (Some(earlier), Some(now)) => earlier / now,
        _ => 1.0,
    };
    let all = known.iter().zip(outcomes);
    all.map(|(known, own)| known.cloned().unwrap_or_else(|| own.scaled(drift)))
        .collect()
}

/// Executes and times them in turns.
fn timed(entrants: &[Entrant<'_>], context: &Arc<Context>) -> Result<Vec<Outcome>, PipelineError> {
    let mut runners = entrants
        .iter()
        .map(|entrant| Runner::new(&entrant.alone(), context))
        .collect::<Result<Vec<_>, RuntimeError>>()?;
    for _ in 0..ROUNDS {
        for runner in &mut runners {
            runner.take_turn()?;
        }
    }
    let (first, _) = runners.split_first().expect("somebody races");
    Ok(runners.iter().map(|runner| runner.outcome(first)).collect())
}

/// A program on the device, in as many contexts as its kernels are chosen for.
struct Runner {
    contexts: Vec<ExecutionContext>,
    outputs: Vec<HostTensor>,
    /// In one turn.
    n_executions: usize,
    us: Vec<f64>,
}

impl Runner {
    /// Executes it once on drawn inputs, and once more to see how long it takes.
    fn new(engine: &Engine, context: &Arc<Context>) -> Result<Self, RuntimeError> {
        let device_engine = DeviceEngine::load(engine, context)?;
        let contexts = (0..engine.header.n_contexts()).map(|_| ExecutionContext::new(&device_engine));
        let mut contexts = contexts.collect::<Result<Vec<_>, _>>()?;
        let inputs: Vec<HostTensor> = engine.header.profiles[0]
            .inputs
            .iter()
            .zip(1..)
            .map(|(input, seed)| drawn(&input.ty(), seed))
            .collect();
        let mut outputs = Vec::new();
        for context in &mut contexts {
            outputs = context.run(&inputs)?;
        }
        let us = median(&times(&mut contexts, 3)?);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "small and positive: clamped"
        )]
        let n_executions = ((TURN_US / us.max(0.1)) as usize).clamp(1, MOST_EXECUTIONS);
        Ok(Runner {
            contexts,
            outputs,
            n_executions,
            us: Vec::new(),
        })
    }

    fn take_turn(&mut self) -> Result<(), RuntimeError> {
        self.us.extend(times(&mut self.contexts, self.n_executions)?);
        Ok(())
    }

    fn outcome(&self, first: &Runner) -> Outcome {
        let pairs = self.outputs.iter().zip(&first.outputs);
        let error = pairs
            .map(|(own, wanted)| error_of(own, wanted))
            .fold(0.0, f64::max);
        if error.is_finite() {
            Outcome::Timed {
                median_us: median(&self.us),
                spread_us: [
                    self.us.iter().copied().fold(f64::INFINITY, f64::min),
                    self.us.iter().copied().fold(0.0, f64::max),
                ],
                error,
            }
        } else {
            Outcome::Wrong { error }
        }
    }
}

/// Microseconds of `n` executions of each context, which execute at the same time.
fn times(contexts: &mut [ExecutionContext], n: usize) -> Result<Vec<f64>, RuntimeError> {
    let (first, others) = contexts
        .split_first_mut()
        .expect("an engine is for one context at least");
    std::thread::scope(|scope| {
        let threads = others
            .iter_mut()
            .map(|other| scope.spawn(move || other.time_us(n)));
        let threads: Vec<_> = threads.collect();
        let mut all = first.time_us(n)?;
        for thread in threads {
            let own = thread.join();
            all.extend(own.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(all)
    })
}

/// What is said of the architecture of a program.
pub fn arch_of(program: &Program) -> Arch {
    let (sm, specific) = crate::engine::arch_number(&program.arch).expect("validate() has read the number");
    Arch { sm, specific }
}
