//! What was decided for each layer, and what it costs: as data, as text and as JSON.

use std::fmt::Write;

use serde::Serialize;

use super::assignment::Kind;

/// The precision of a whole model.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PrecisionReport {
    pub budget: Option<BudgetReport>,
    pub layers: Vec<LayerReport>,
    /// Work kept in f32 though floats are narrower.
    pub wide: Vec<WideReport>,
    /// Tensors of a calibration cache that the model does not have.
    pub unknown_tensors: Vec<String>,
    /// Bytes of the weights in the kinds chosen, and in f32.
    pub weight_bytes: usize,
    pub weight_bytes_fp32: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BudgetReport {
    pub metric: String,
    pub limit: f64,
    pub value: f64,
    pub is_met: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerReport {
    pub name: String,
    pub op: String,
    pub kind: String,
    /// Why it is not what was asked for; empty where it is.
    pub reason: String,
    /// The first tensor that it reads, and the part of its values that is represented.
    pub input: String,
    pub range: Option<(f64, f64)>,
    pub scale: Option<f32>,
    pub zero: Option<i8>,
    /// Of this layer's result, with all layers as decided.
    pub relative_error: Option<f64>,
    /// Of the outputs, with this layer alone in the first kind asked for.
    pub sensitivity: Option<f64>,
    /// Predicted time in each kind, in microseconds.
    pub times_us: Vec<(String, f64)>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WideReport {
    pub op: String,
    pub nodes: Vec<String>,
    pub reason: String,
}

impl PrecisionReport {
    /// One line per layer, and what stays wide.
    pub fn text(&self) -> String {
        let mut text = String::new();
        self.print_budget(&mut text);
        self.print_layers(&mut text);
        for wide in &self.wide {
            let _ = writeln!(
                text,
                "f32   {} `{}`: {}",
                wide.op,
                wide.nodes.join("`, `"),
                wide.reason
            );
        }
        for tensor in &self.unknown_tensors {
            let _ = writeln!(
                text,
                "the model has no tensor `{tensor}` of the calibration cache"
            );
        }
        if self.weight_bytes_fp32 > 0 {
            #[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^53")]
            let share = 100.0 * self.weight_bytes as f64 / self.weight_bytes_fp32 as f64;
            let _ = writeln!(text, "weights   {} bytes, {share:.0}% of f32", self.weight_bytes);
        }
        text
    }

    fn print_budget(&self, text: &mut String) {
        if let Some(budget) = &self.budget {
            let verdict = if budget.is_met { "kept" } else { "NOT KEPT" };
            let _ = writeln!(
                text,
                "budget    {}={} {verdict}: {:.6}",
                budget.metric, budget.limit, budget.value
            );
        }
    }

    fn print_layers(&self, text: &mut String) {
        let width = self
            .layers
            .iter()
            .map(|layer| layer.name.len())
            .max()
            .unwrap_or(0)
            .max(5);
        let _ = writeln!(
            text,
            "{:width$}  {:12} {:>11} {:>11} {:>10} {:>9} {:>11}  times and reasons",
            "layer", "kind", "least", "greatest", "scale", "error", "sensitivity"
        );
        for layer in &self.layers {
            let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.4}"));
            let small = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2e}"));
            let times: Vec<String> = layer
                .times_us
                .iter()
                .map(|(kind, us)| format!("{kind} {us:.1} us"))
                .collect();
            let _ = writeln!(
                text,
                "{:width$}  {:12} {:>11} {:>11} {:>10} {:>9} {:>11}  {}",
                layer.name,
                layer.kind,
                number(layer.range.map(|range| range.0)),
                number(layer.range.map(|range| range.1)),
                small(layer.scale.map(f64::from)),
                small(layer.relative_error),
                small(layer.sensitivity),
                [times.join(", "), layer.reason.clone()]
                    .into_iter()
                    .filter(|part| !part.is_empty())
                    .collect::<Vec<_>>()
                    .join("; "),
            );
        }
    }

    /// The layers that cost most accuracy, worst first: for a budget that is not kept.
    pub fn culprits(&self, n_layers: usize) -> String {
        let mut worst: Vec<&LayerReport> = self.layers.iter().collect();
        let cost = |layer: &LayerReport| layer.sensitivity.or(layer.relative_error).unwrap_or(0.0);
        worst.sort_by(|a, b| cost(b).total_cmp(&cost(a)));
        let mut text = String::from("error of the outputs by layer, alone in the first kind asked for:\n");
        for layer in worst.iter().take(n_layers) {
            let _ = writeln!(
                text,
                "  {:.3e}  {} `{}`, left in {}",
                cost(layer),
                layer.op,
                layer.name,
                layer.kind
            );
        }
        text
    }
}

impl Kind {
    /// The kind with the float that it stands for by name.
    pub fn with_float(self, float: &str) -> String {
        match self {
            Kind::Float => float.to_owned(),
            Kind::Fp32 | Kind::Int8Weights | Kind::Int4Weights { .. } | Kind::Int8 | Kind::Fp8 => {
                self.name().to_owned()
            }
        }
    }
}
