//! A decision applied to its model, with a report of what became of every layer.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::super::{Observer, PipelineError, Settings, canonical, lower};
use super::{Calibration, Decision, Precise};
use crate::ir::{DType, Graph, HostTensor};
use crate::precision::metric::{Outputs, relative_error};
use crate::precision::report::{BudgetReport, LayerReport, PrecisionReport, WideReport};
use crate::precision::search::Outcome;
use crate::precision::{Kind, Layer, Quantised};
use crate::reference::{self, Constants};
use crate::specialize::{self, Reason};

/// Batches that errors of single layers are measured on.
const ERROR_BATCHES: usize = 2;

impl Decision<'_> {
    pub(super) fn finish(
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
