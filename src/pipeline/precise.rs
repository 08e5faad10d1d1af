//! Decides the precision of every layer of a model: calibrates, predicts, judges and quantises.

#![expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

mod outcome;
mod predicted;
mod statistics;

use super::{Observer, PipelineError, Settings, Simulation, ports};
use crate::io::samples::{Declared, Samples};
use crate::ir::{DType, Graph};
use crate::kernel::Arch;
use crate::precision::metric::{Outputs, relative_error};
use crate::precision::report::PrecisionReport;
use crate::precision::search::{self, Candidate, Outcome, Score};
use crate::precision::{
    self, Budget, Cache, Kind, Layer, Method, Number, Plan, Quantised, Ranges, Statistics, layers, reconsider,
};
use crate::specialize::Wide;
use predicted::{kernel_times, times};
pub use statistics::{statistics, statistics_by, statistics_on_device};

/// Samples of an npz that are run together, where the model lets them.
pub const ROWS: usize = 16;

/// Half of a half's range to the square root: products with their like still fit.
const LARGE: f64 = 16384.0;

/// What is known of the values of tensors.
#[derive(Clone, Debug)]
pub enum Calibration {
    /// Nothing: layers that need ranges stay in floats.
    None,
    Statistics(Statistics),
    Cache(Cache),
}

/// What a user asks for.
pub struct Request {
    /// Kinds that a layer may have, from the cheapest.
    pub kinds: Vec<Kind>,
    /// Layers that have no choice.
    pub fixed: Plan,
    pub asymmetric: bool,
    pub method: Method,
    pub calibration: Calibration,
    pub budget: Option<Budget>,
    /// What losses are measured on.
    pub held: Option<Samples>,
    pub labels: Option<Vec<i64>>,
    /// Kinds that are predicted to be slower than the float on these are refused.
    pub arch: Option<Arch>,
}

/// A model whose precision is decided.
pub struct Precise {
    pub graph: Graph,
    pub settings: Settings,
    pub report: PrecisionReport,
}

/// The inputs of a graph as samples are read for them.
pub fn declared(graph: &Graph) -> Vec<Declared> {
    let types = graph.inputs.iter().map(|&input| graph.value(input).ty.clone());
    ports(graph)
        .into_iter()
        .zip(types)
        .map(|(port, ty)| Declared { port, ty })
        .collect()
}

/// Decides and applies the precision of `model`.
///
/// # Errors
/// If the model cannot be run on the samples, or its kernels cannot be predicted.
pub fn decide(
    model: &Graph,
    settings: &Settings,
    request: &Request,
    observer: &dyn Observer,
) -> Result<Precise, PipelineError> {
    let graph = precision::prepare(model);
    let mut decision = Decision {
        layers: layers(&graph),
        ranges: Table::of(&request.calibration, request),
        wide: wide(&graph, settings, &request.calibration),
        graph: &graph,
        settings,
        request,
        times: BTreeMap::new(),
        reasons: BTreeMap::new(),
    };
    decision.predict(observer)?;
    let mut candidates = decision.candidates();
    decision.reconsider(&mut candidates, observer)?;
    let outcome = decision.choose(model, &candidates, observer)?;
    decision.finish(model, &outcome, observer)
}

/// Ranges for every kind of number that is asked for.
struct Table {
    by_number: Vec<(Number, Ranges)>,
}

impl Table {
    fn of(calibration: &Calibration, request: &Request) -> Self {
        let numbers = [Number::Int8, Number::Int8Asymmetric, Number::Fp8];
        let is_used = |number: &Number| match number {
            Number::Int8 => !request.asymmetric,
            Number::Int8Asymmetric => request.asymmetric,
            Number::Fp8 => true,
        };
        let of = |number: Number| match calibration {
            Calibration::None => Ranges::new(),
            Calibration::Statistics(statistics) => statistics.ranges(request.method, number),
            Calibration::Cache(cache) => cache.ranges(),
        };
        Table {
            by_number: numbers
                .into_iter()
                .filter(is_used)
                .map(|number| (number, of(number)))
                .collect(),
        }
    }

    fn get(&self, tensor: &str, number: Number) -> Option<(f64, f64)> {
        let (_, ranges) = self.by_number.iter().find(|(own, _)| *own == number)?;
        ranges.get(tensor).copied()
    }
}

/// Nodes that make or read values near the end of the range of `f16`.
fn wide(graph: &Graph, settings: &Settings, calibration: &Calibration) -> Wide {
    let mut wide = settings.wide.clone();
    let Calibration::Statistics(statistics) = calibration else {
        return wide;
    };
    if settings.precision != DType::F16 {
        return wide;
    }
    let largest = statistics.largest();
    let is_large = |name: &String| largest.get(name).is_some_and(|&size| size > LARGE);
    for node in &graph.nodes {
        let values = node.operands.iter().flatten().chain(&node.results);
        if values.map(|&value| &graph.value(value).name).any(is_large) {
            wide.extend(node.origin.iter().cloned());
        }
    }
    wide
}

struct Decision<'a> {
    graph: &'a Graph,
    layers: Vec<Layer>,
    settings: &'a Settings,
    request: &'a Request,
    ranges: Table,
    wide: Wide,
    /// Predicted time by kind and layer.
    times: BTreeMap<Kind, BTreeMap<String, f64>>,
    /// Why a layer is not what was asked for.
    reasons: BTreeMap<String, String>,
}

impl Decision<'_> {
    fn quantised(&self, plan: &Plan) -> Quantised {
        let range_of = |tensor: &str, number: Number| self.ranges.get(tensor, number);
        precision::quantise(self.graph, plan, &range_of, self.request.asymmetric)
    }

    /// Settings under which a plan's floats are stored.
    fn settings_of(&self, plan: &Plan) -> Settings {
        let mut settings = self.settings.clone();
        settings.wide.clone_from(&self.wide);
        for layer in &self.layers {
            if plan.kind(&layer.name) == Kind::Fp32 {
                let node = self.graph.node(layer.node);
                settings.wide.extend(node.origin.iter().cloned());
            }
        }
        settings
    }

    /// Every layer in `kind`.
    fn all_in(&self, kind: Kind) -> Plan {
        let names = self.layers.iter().map(|layer| layer.name.clone());
        Plan {
            kinds: names.map(|name| (name, kind)).collect(),
        }
    }

    /// Times of every layer in every kind that is asked for, by the reference device of the arch.
    fn predict(&mut self, observer: &dyn Observer) -> Result<(), PipelineError> {
        let Some(arch) = self.request.arch else {
            return Ok(());
        };
        let asked = self.request.kinds.iter().chain(self.request.fixed.kinds.values());
        let mut kinds: BTreeSet<Kind> = asked.copied().collect();
        kinds.insert(Kind::Float);
        observer.stage("predict times", kinds.len());
        for (n_done, &kind) in kinds.iter().enumerate() {
            let plan = self.all_in(kind);
            let settings = Settings {
                precision: if kind == Kind::Fp32 {
                    DType::F32
                } else {
                    self.settings.precision
                },
                ..self.settings_of(&plan)
            };
            let times = times(&self.quantised(&plan).graph, &self.layers, arch, &settings)?;
            self.times.insert(kind, times);
            observer.step(n_done + 1, kinds.len());
        }
        Ok(())
    }

    fn time(&self, layer: &str, kind: Kind) -> Option<f64> {
        self.times.get(&kind)?.get(layer).copied()
    }

    /// The layers that have a choice, with the kinds that pay.
    fn candidates(&mut self) -> Vec<Candidate> {
        let free: Vec<String> = self
            .layers
            .iter()
            .map(|layer| layer.name.clone())
            .filter(|name| !self.request.fixed.kinds.contains_key(name))
            .collect();
        free.into_iter()
            .map(|name| {
                let kinds = self.paying_kinds(&name);
                let benefit = self.benefit(&name, kinds[0]);
                Candidate { name, kinds, benefit }
            })
            .collect()
    }

    /// Kinds of the request, without those that are slower than the float.
    fn paying_kinds(&mut self, layer: &str) -> Vec<Kind> {
        let float_us = self.time(layer, Kind::Float);
        let own = self.layers.iter().find(|own| own.name == layer);
        let fits = |kind: &Kind| match kind {
            Kind::Int8Weights => own.is_some_and(|own| own.weight.is_some()),
            Kind::Int4Weights { group } => {
                own.is_some_and(|own| own.groups(self.graph, usize::from(*group)).is_some())
            }
            Kind::Fp32 | Kind::Float | Kind::Int8 | Kind::Fp8 => true,
        };
        let mut kinds = Vec::new();
        for kind in self.request.kinds.clone().into_iter().filter(fits) {
            match (self.time(layer, kind), float_us) {
                (Some(own), Some(float)) if is_for_speed(kind) && own >= float => {
                    let reason = format!("{kind} takes {own:.2} us, {} {float:.2} us", self.float_name());
                    self.reasons.insert(layer.to_owned(), reason);
                }
                _ => kinds.push(kind),
            }
        }
        if kinds.is_empty() {
            kinds.push(Kind::Float);
        }
        kinds
    }

    /// Takes back what was refused for a layer on its own and makes the whole network slower: floats
    /// between layers in 8 bits are converted, and written in twice the bytes. Refuses all where even
    /// so the network is no faster than in the float.
    fn reconsider(
        &mut self,
        candidates: &mut [Candidate],
        observer: &dyn Observer,
    ) -> Result<(), PipelineError> {
        let Some(arch) = self.request.arch.filter(|_| !candidates.is_empty()) else {
            return Ok(());
        };
        let cheapest = self.request.kinds.first().copied().unwrap_or(Kind::Float);
        if !is_for_speed(cheapest) {
            return Ok(());
        }
        let refused: Vec<(String, f64)> = candidates
            .iter()
            .filter(|candidate| candidate.kinds[0] == Kind::Float)
            .map(|candidate| {
                let us = |kind| self.time(&candidate.name, kind).unwrap_or(0.0);
                (candidate.name.clone(), us(cheapest) - us(Kind::Float))
            })
            .collect();
        let n_tried = refused.len().min(reconsider::MOST);
        observer.stage("reconsider layers", n_tried);
        let n_done = Cell::new(0);
        let plan = plan_of(&self.request.fixed, candidates);
        let found = reconsider::reconsider(plan, &refused, cheapest, &mut |plan| {
            observer.step(n_done.replace(n_done.get() + 1), n_tried);
            self.total(plan, arch)
        })?;
        for candidate in candidates
            .iter_mut()
            .filter(|own| found.taken_back.contains(&own.name))
        {
            candidate.kinds.insert(0, cheapest);
            self.reasons.remove(&candidate.name);
        }
        let best = found.us;
        let float_us = self.total(&self.all_in(Kind::Float), arch)?;
        if float_us <= best && self.request.fixed.kinds.is_empty() {
            let float = self.float_name();
            for candidate in candidates {
                candidate.kinds.retain(|kind| *kind <= Kind::Float);
                if candidate.kinds.is_empty() {
                    candidate.kinds.push(Kind::Float);
                }
                let reason =
                    format!("the network takes {best:.2} us with {cheapest}, {float} {float_us:.2} us");
                self.reasons.entry(candidate.name.clone()).or_insert(reason);
            }
        }
        Ok(())
    }

    /// Predicted time of the whole network.
    fn total(&self, plan: &Plan, arch: Arch) -> Result<f64, PipelineError> {
        let settings = self.settings_of(plan);
        let kernels = kernel_times(&self.quantised(plan).graph, arch, &settings)?;
        Ok(kernels.iter().map(|(_, us)| us).sum())
    }

    fn float_name(&self) -> &'static str {
        match self.settings.precision {
            DType::F16 => "fp16",
            DType::BF16 => "bf16",
            _ => "fp32",
        }
    }

    /// Time that `kind` saves; by the size of the weight where times are not predicted.
    fn benefit(&self, layer: &str, kind: Kind) -> f64 {
        if let (Some(own), Some(float)) = (self.time(layer, kind), self.time(layer, Kind::Float)) {
            return (float - own).max(1e-6);
        }
        let own = self.layers.iter().find(|own| own.name == layer);
        let weight = own.and_then(|own| {
            let (position, _) = own.weight?;
            self.graph.weight(self.graph.node(own.node).operands[position]?)
        });
        weight.map_or(1.0, |weight| weight.n_elements() as f64).max(1.0)
    }

    /// The plan: all layers in the cheapest kind, or what keeps the budget.
    fn choose(
        &mut self,
        model: &Graph,
        candidates: &[Candidate],
        observer: &dyn Observer,
    ) -> Result<Outcome, PipelineError> {
        let (Some(budget), Some(held)) = (&self.request.budget, &self.request.held) else {
            return Ok(Outcome {
                plan: plan_of(&self.request.fixed, candidates),
                score: Score {
                    value: 0.0,
                    error: 0.0,
                },
                sensitivity: Vec::new(),
                is_met: true,
            });
        };
        let batches = (0..held.len())
            .map(|n| held.batch(n))
            .collect::<Result<Vec<_>, _>>()?;
        let wanted = run_all(model, &self.settings.in_f32(), &batches)?;
        observer.stage("judge layers", 0);
        let outcome = search::search(candidates, &self.request.fixed, budget, &mut |plan| {
            let found = run_all(&self.quantised(plan).graph, &self.settings_of(plan), &batches)?;
            let labels = self.request.labels.as_deref();
            let value = budget
                .metric
                .measure(&wanted, &found, &model.output_names, labels)?;
            Ok::<Score, PipelineError>(Score {
                value,
                error: relative_error(&wanted, &found),
            })
        })?;
        for candidate in candidates {
            if outcome.plan.kind(&candidate.name) != candidate.kinds[0] {
                let reason = format!("{} costs too much accuracy", candidate.kinds[0]);
                self.reasons.insert(candidate.name.clone(), reason);
            }
        }
        Ok(outcome)
    }
}

/// Whether a kind is asked for because it is faster. Weights take four bits for the memory that this saves, which
/// a product of many rows pays for.
fn is_for_speed(kind: Kind) -> bool {
    match kind {
        Kind::Int8Weights | Kind::Int8 | Kind::Fp8 => true,
        Kind::Fp32 | Kind::Float | Kind::Int4Weights { .. } => false,
    }
}

fn run_all(graph: &Graph, settings: &Settings, batches: &[Outputs]) -> Result<Vec<Outputs>, PipelineError> {
    let simulation = Simulation::new(graph, settings)?;
    batches.iter().map(|inputs| simulation.run(inputs)).collect()
}

/// Every layer without a choice, and the others in their cheapest kinds.
fn plan_of(fixed: &Plan, candidates: &[Candidate]) -> Plan {
    candidates
        .iter()
        .fold(fixed.clone(), |plan, own| plan.with(&own.name, own.kinds[0]))
}
