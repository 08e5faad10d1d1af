//! Decides the precision of every layer of a model: calibrates, predicts, judges and quantises.

#![expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use super::{Observer, OnDevice, PipelineError, Settings, Simulation, canonical, lower, ports, regions};
use crate::io::samples::{Declared, Samples};
use crate::ir::{DType, Graph, HostTensor, Node};
use crate::kernel::{self, Arch};
use crate::precision::calibrate::{self, Aside, CalibrateError};
use crate::precision::metric::{Outputs, relative_error};
use crate::precision::report::{BudgetReport, LayerReport, PrecisionReport, WideReport};
use crate::precision::search::{self, Candidate, Outcome, Score};
use crate::precision::{
    self, Budget, Cache, Kind, Layer, Method, Number, Plan, Quantised, Ranges, Statistics, layers, reconsider,
};
use crate::reference::{self, Constants};
use crate::specialize::{self, Reason, Wide};

/// Samples of an npz that are run together, where the model lets them.
pub const ROWS: usize = 16;

/// Batches that errors of single layers are measured on.
const ERROR_BATCHES: usize = 2;

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

/// Statistics of the tensors that quantising `model` would ask about.
///
/// # Errors
/// If a sample cannot be read or run.
pub fn statistics(
    model: &Graph,
    samples: &Samples,
    aside: Option<&Aside>,
    observer: &dyn Observer,
) -> Result<Statistics, PipelineError> {
    let graph = precision::prepare(model);
    observer.stage("calibrate", samples.len());
    let is_first = Cell::new(true);
    let progress = |n_done, n_all| tell(observer, &is_first, n_done, n_all);
    Ok(calibrate::gather(&graph, samples, aside, &progress)?)
}

/// As [`statistics`], where `execute` computes the outputs of a graph for a batch: it is given one whose outputs
/// are all that the model's nodes compute. Batches that it fails on are left to the reference interpreter, as are
/// all after them.
///
/// # Errors
/// If a sample cannot be read, or the reference cannot run what `execute` could not.
pub fn statistics_by(
    model: &Graph,
    samples: &Samples,
    aside: Option<&Aside>,
    observer: &dyn Observer,
    execute: &mut dyn FnMut(&Graph, &[HostTensor]) -> Result<Vec<HostTensor>, PipelineError>,
) -> Result<Statistics, PipelineError> {
    let graph = precision::prepare(model);
    let observed = precision::observed(&graph);
    observer.stage("calibrate on the device", samples.len());
    let is_first = Cell::new(true);
    let progress = |n_done, n_all| tell(observer, &is_first, n_done, n_all);
    let mut fits = true;
    calibrate::gather_by(samples, aside, &progress, &mut |statistics, inputs| {
        if fits {
            match execute(&observed, inputs) {
                Ok(outputs) => {
                    statistics.add_outputs(&observed, inputs, &outputs);
                    return Ok(());
                }
                Err(error) => {
                    fits = false;
                    observer.stage(&format!("calibrate on the CPU, since {error}"), samples.len());
                }
            }
        }
        let batch = statistics.n_batches;
        let added = statistics.add_batch(&graph, inputs);
        Ok(added.map_err(|source| CalibrateError::Reference { batch, source })?)
    })
}

/// As [`statistics`], on device `ordinal`.
///
/// # Errors
/// As [`statistics_by`].
pub fn statistics_on_device(
    model: &Graph,
    samples: &Samples,
    aside: Option<&Aside>,
    ordinal: usize,
    observer: &dyn Observer,
) -> Result<Statistics, PipelineError> {
    let settings = Settings::stored_in(DType::F32);
    let mut device = OnDevice::new(ordinal, &settings);
    statistics_by(model, samples, aside, observer, &mut |graph, inputs| {
        device.run(graph, inputs)
    })
}

/// Tells of batches, first of those that were done earlier.
fn tell(observer: &dyn Observer, is_first: &Cell<bool>, n_done: usize, n_all: usize) {
    if is_first.replace(false) && n_done > 0 {
        observer.stage(&format!("going on after {n_done} batches"), n_all);
    }
    observer.step(n_done, n_all);
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

    fn finish(
        mut self,
        model: &Graph,
        outcome: &Outcome,
        observer: &dyn Observer,
    ) -> Result<Precise, PipelineError> {
        let quantised = self.quantised(&outcome.plan);
        let settings = self.settings_of(&outcome.plan);
        for (layer, tensor) in &quantised.without_range {
            let reason = format!("the range of `{tensor}` is not known");
            self.reasons.insert(layer.clone(), reason);
        }
        for layer in &self.layers {
            if let Kind::Int4Weights { group } = outcome.plan.kind(&layer.name)
                && layer.groups(self.graph, usize::from(group)).is_none()
            {
                let reason = "its weight takes 8 bits: it has no groups of terms";
                self.reasons.insert(layer.name.clone(), reason.to_owned());
            }
        }
        observer.stage("compare layers", 0);
        let errors = self.errors(&quantised)?;
        let report = PrecisionReport {
            budget: self.request.budget.as_ref().map(|budget| BudgetReport {
                metric: budget.metric.name(),
                limit: budget.limit,
                value: outcome.score.value,
                is_met: outcome.is_met,
            }),
            layers: self
                .layers
                .iter()
                .map(|layer| self.layer(layer, outcome, &quantised, &errors))
                .collect(),
            wide: islands(&quantised.graph, &settings),
            unknown_tensors: self.unknown_tensors(),
            weight_bytes: weight_bytes(&quantised.graph, settings.precision),
            weight_bytes_fp32: weight_bytes(model, DType::F32),
        };
        Ok(Precise {
            graph: quantised.graph,
            settings,
            report,
        })
    }

    fn layer(
        &self,
        layer: &Layer,
        outcome: &Outcome,
        quantised: &Quantised,
        errors: &BTreeMap<String, f64>,
    ) -> LayerReport {
        let kind = outcome.plan.kind(&layer.name);
        let left = quantised
            .without_range
            .iter()
            .any(|(name, _)| *name == layer.name);
        let kind = if left { Kind::Float } else { kind };
        let input = self.graph.node(layer.node).operands[layer.computed[0]];
        let input = input.map_or(String::new(), |value| self.graph.value(value).name.clone());
        let is_stored = matches!(kind, Kind::Int8 | Kind::Fp8);
        let tensor = quantised
            .tensors
            .iter()
            .find(|tensor| tensor.name == input && is_stored);
        let sensitivity = outcome.sensitivity.iter().find(|(name, _)| *name == layer.name);
        LayerReport {
            name: layer.name.clone(),
            op: layer.op.to_owned(),
            kind: kind.with_float(self.float_name()),
            reason: self.reasons.get(&layer.name).cloned().unwrap_or_default(),
            range: tensor.map(|tensor| tensor.range),
            scale: tensor.map(|tensor| tensor.scaling.scale),
            zero: tensor.map(|tensor| tensor.scaling.zero),
            input,
            relative_error: errors.get(&self.graph.value(layer.result).name).copied(),
            sensitivity: sensitivity.map(|(_, error)| *error),
            times_us: self
                .times
                .iter()
                .filter_map(|(kind, times)| {
                    Some((kind.with_float(self.float_name()), *times.get(&layer.name)?))
                })
                .collect(),
        }
    }

    /// Relative error of every named tensor of the quantised graph, on a few samples.
    fn errors(&self, quantised: &Quantised) -> Result<BTreeMap<String, f64>, PipelineError> {
        let Some(held) = &self.request.held else {
            return Ok(BTreeMap::new());
        };
        let names: BTreeSet<&str> = self
            .layers
            .iter()
            .map(|layer| self.graph.value(layer.result).name.as_str())
            .collect();
        let mut kept: [BTreeMap<String, Vec<Outputs>>; 2] = Default::default();
        for batch in 0..held.len().min(ERROR_BATCHES) {
            let inputs = held.batch(batch)?;
            for (graph, kept) in [self.graph, &quantised.graph].into_iter().zip(&mut kept) {
                for (name, data) in named_results(graph, &inputs, &names)? {
                    kept.entry(name).or_default().push(vec![data]);
                }
            }
        }
        let [wanted, found] = kept;
        let error = |(name, wanted): (String, Vec<Outputs>)| {
            let error = relative_error(&wanted, found.get(&name)?);
            Some((name, error))
        };
        Ok(wanted.into_iter().filter_map(error).collect())
    }

    fn unknown_tensors(&self) -> Vec<String> {
        let Calibration::Cache(cache) = &self.request.calibration else {
            return Vec::new();
        };
        let known: BTreeSet<&String> = self.graph.values.iter().map(|value| &value.name).collect();
        cache
            .scales
            .keys()
            .filter(|name| !known.contains(name))
            .cloned()
            .collect()
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

/// The results of nodes whose names are asked for.
fn named_results(
    graph: &Graph,
    inputs: &[HostTensor],
    names: &BTreeSet<&str>,
) -> Result<Vec<(String, HostTensor)>, PipelineError> {
    let found = RefCell::new(Vec::new());
    reference::run_watched(graph, inputs, &|value, data| {
        let name = &graph.value(value).name;
        if names.contains(name.as_str()) {
            found.borrow_mut().push((name.clone(), data.clone()));
        }
    })?;
    Ok(found.into_inner())
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

/// Predicted time of each layer: of the kernel of its product, and of kernels without a product that
/// make or read what it reads, shared with other layers there.
fn times(
    graph: &Graph,
    layers: &[Layer],
    arch: Arch,
    settings: &Settings,
) -> Result<BTreeMap<String, f64>, PipelineError> {
    let names: BTreeSet<&str> = layers.iter().map(|layer| layer.name.as_str()).collect();
    let mut times: BTreeMap<String, f64> = BTreeMap::new();
    for (body, us) in kernel_times(graph, arch, settings)? {
        let own = layers_of(&body, &names);
        for name in &own {
            *times.entry((*name).to_owned()).or_default() += us / own.len() as f64;
        }
    }
    Ok(times)
}

/// The body of every kernel and its predicted time in microseconds.
fn kernel_times(graph: &Graph, arch: Arch, settings: &Settings) -> Result<Vec<(Graph, f64)>, PipelineError> {
    let core = lower(graph, settings)?;
    let fused = regions(&core, arch, settings)?;
    let options = settings.kernel_options();
    let us = |number: usize| {
        let spec = kernel::spec(&fused, number, &options);
        let variants = kernel::variants(&spec, arch);
        let best = variants.first().map(|variant| variant.predicted_us);
        best.unwrap_or(fused.regions[number].bound_us)
    };
    let times: Vec<f64> = (0..fused.regions.len()).map(us).collect();
    Ok(fused
        .regions
        .into_iter()
        .map(|region| region.body)
        .zip(times)
        .collect())
}

/// The layers whose products a body computes, or those that its nodes come from where it has none.
fn layers_of<'a>(body: &'a Graph, names: &BTreeSet<&str>) -> BTreeSet<&'a str> {
    // What a rule makes comes from the last leaf of its pattern first: from a layer's own weight.
    let is_product = |node: &&Node| matches!(node.op, "matmul" | "conv" | "conv_nhwc" | "conv_transpose");
    let products = body.nodes.iter().filter(is_product);
    let own = |node: &'a Node| {
        node.origin
            .iter()
            .map(String::as_str)
            .find(|name| names.contains(name))
    };
    let found: BTreeSet<&str> = products.filter_map(own).collect();
    if !found.is_empty() {
        return found;
    }
    let origins = body.nodes.iter().flat_map(|node| &node.origin);
    origins
        .map(String::as_str)
        .filter(|name| names.contains(name))
        .collect()
}

/// What stays in f32 for a reason of its own; empty where all is f32, or a shape is not known.
fn islands(graph: &Graph, settings: &Settings) -> Vec<WideReport> {
    if settings.precision == DType::F32 {
        return Vec::new();
    }
    let recognised = lower(graph, settings).and_then(|core| canonical(&core, &settings.in_f32()));
    let Ok(core) = recognised else {
        return Vec::new();
    };
    let (_, islands) =
        specialize::lower_except(&core, settings.precision, &settings.wide, &Constants::default());
    let mut seen = BTreeSet::new();
    islands
        .into_iter()
        .filter(|island| !matches!(island.reason, Reason::Follows | Reason::Integers | Reason::Moves))
        .filter(|island| seen.insert((island.origin.clone(), island.reason)))
        .map(|island| WideReport {
            op: island.op.to_owned(),
            nodes: island.origin,
            reason: island.reason.text().to_owned(),
        })
        .collect()
}

/// Bytes of all weights, where floats of 32 bits are stored in `float`.
fn weight_bytes(graph: &Graph, float: DType) -> usize {
    let weights = (0..graph.values.len()).filter_map(|n| {
        let id = crate::ir::ValueId(u32::try_from(n).expect("graphs have under 2^32 values"));
        graph.weight(id)
    });
    weights
        .map(|data| match data.dtype() {
            DType::F32 => data.n_elements() * float.size_bytes(),
            DType::I4 | DType::U4 => data.n_elements().div_ceil(2),
            _ => data.n_bytes(),
        })
        .sum()
}
