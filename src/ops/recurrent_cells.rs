//! One step of an LSTM, a GRU or an RNN, and the activation functions they may use.

use super::{ExpandCtx, OpError};
use crate::ir::{Attr, Attrs, ValueId};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Lstm,
    Gru,
    Rnn,
}

impl Kind {
    pub fn n_gates(self) -> usize {
        match self {
            Kind::Lstm => 4,
            Kind::Gru => 3,
            Kind::Rnn => 1,
        }
    }

    /// `h`, and for an LSTM `c`.
    pub fn n_states(self) -> usize {
        match self {
            Kind::Lstm => 2,
            Kind::Gru | Kind::Rnn => 1,
        }
    }

    /// Names of the activation functions of one direction.
    pub fn default_activations(self) -> &'static [&'static str] {
        match self {
            Kind::Lstm => &["Sigmoid", "Tanh", "Tanh"],
            Kind::Gru => &["Sigmoid", "Tanh"],
            Kind::Rnn => &["Tanh"],
        }
    }
}

/// One direction's weights, in the form the steps use.
pub struct Weights {
    pub kind: Kind,
    pub hidden: usize,
    /// `[hidden, gates * hidden]`.
    pub recurrent: ValueId,
    /// Recurrent bias `[gates * hidden]` of a GRU; the others' is added to the inputs.
    pub recurrent_bias: Option<ValueId>,
    /// `[3 * hidden]`, for the input, output and forget gates.
    pub peepholes: Option<ValueId>,
    pub activations: Vec<Activation>,
    pub clip: Option<f64>,
    pub linear_before_reset: bool,
    pub input_forget: bool,
}

/// An activation function with its parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Activation {
    function: Function,
    alpha: f64,
    beta: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    /// An op with attributes `alpha`, `beta`, as many as the number says.
    Op(&'static str, usize),
    /// `alpha * x + beta`.
    Affine,
    /// `alpha * tanh(beta * x)`.
    ScaledTanh,
}

impl Function {
    /// The function ONNX calls `name`, and its parameters where none are given.
    fn from_name(name: &str) -> Option<(Function, f64, f64)> {
        Some(match name.to_ascii_lowercase().as_str() {
            "relu" => (Function::Op("relu", 0), 0.0, 0.0),
            "tanh" => (Function::Op("tanh", 0), 0.0, 0.0),
            "sigmoid" => (Function::Op("sigmoid", 0), 0.0, 0.0),
            "softsign" => (Function::Op("softsign", 0), 0.0, 0.0),
            "softplus" => (Function::Op("softplus", 0), 0.0, 0.0),
            "leakyrelu" => (Function::Op("leaky_relu", 1), 0.01, 0.0),
            "thresholdedrelu" => (Function::Op("thresholded_relu", 1), 1.0, 0.0),
            "elu" => (Function::Op("elu", 1), 1.0, 0.0),
            "hardsigmoid" => (Function::Op("hard_sigmoid", 2), 0.2, 0.5),
            "affine" => (Function::Affine, 1.0, 0.0),
            "scaledtanh" => (Function::ScaledTanh, 1.0, 1.0),
            _ => return None,
        })
    }

    fn n_parameters(self) -> usize {
        match self {
            Function::Op(_, count) => count,
            Function::Affine | Function::ScaledTanh => 2,
        }
    }
}

/// The activation functions of one direction.
///
/// # Errors
/// If a name is unknown or there are too few.
pub fn activations(attrs: &Attrs, kind: Kind, direction: usize) -> Result<Vec<Activation>, OpError> {
    let defaults = kind.default_activations();
    let names: Vec<String> = match attrs.get("activations") {
        Some(Attr::Strs(names)) if !names.is_empty() => names.clone(),
        _ => defaults
            .iter()
            .cycle()
            .take(2 * defaults.len())
            .map(|&name| name.to_owned())
            .collect(),
    };
    // Parameters are listed for those functions that take them, in order.
    let mut alphas = attrs.floats("activation_alpha").unwrap_or_default().iter();
    let mut betas = attrs.floats("activation_beta").unwrap_or_default().iter();
    let mut all = Vec::new();
    for name in &names {
        let (function, alpha, beta) = Function::from_name(name)
            .ok_or_else(|| OpError::unsupported(format!("activation function `{name}`")))?;
        let mut activation = Activation {
            function,
            alpha,
            beta,
        };
        if function.n_parameters() > 0 {
            activation.alpha = alphas.next().copied().unwrap_or(alpha);
        }
        if function.n_parameters() > 1 {
            activation.beta = betas.next().copied().unwrap_or(beta);
        }
        all.push(activation);
    }
    let start = direction * defaults.len();
    match all.get(start..start + defaults.len()) {
        Some(own) => Ok(own.to_vec()),
        None => Err(OpError::invalid(format!(
            "{} activation functions for direction {direction}, which needs {}",
            names.len(),
            defaults.len()
        ))),
    }
}

impl Activation {
    fn apply(&self, ctx: &mut ExpandCtx<'_>, x: ValueId) -> Result<ValueId, OpError> {
        match self.function {
            Function::Op(op, n_parameters) => {
                let mut attrs = Attrs::new();
                if n_parameters > 0 {
                    attrs = attrs.with("alpha", Attr::Float(self.alpha));
                }
                if n_parameters > 1 {
                    attrs = attrs.with("beta", Attr::Float(self.beta));
                }
                ctx.emit(op, &[x], attrs)
            }
            Function::Affine => {
                let product = ctx.with_number("mul", x, self.alpha)?;
                ctx.with_number("add", product, self.beta)
            }
            Function::ScaledTanh => {
                let inner = ctx.with_number("mul", x, self.beta)?;
                let tanh = ctx.plain("tanh", &[inner])?;
                ctx.with_number("mul", tanh, self.alpha)
            }
        }
    }
}

/// The states after one step, `h` first.
///
/// # Errors
/// If operand types do not fit.
pub fn step(
    ctx: &mut ExpandCtx<'_>,
    weights: &Weights,
    input: ValueId,
    states: &[ValueId],
) -> Result<Vec<ValueId>, OpError> {
    match weights.kind {
        Kind::Lstm => lstm(ctx, weights, input, states[0], states[1]),
        Kind::Gru => Ok(vec![gru(ctx, weights, input, states[0])?]),
        Kind::Rnn => {
            let recurrent = ctx.binary("matmul", states[0], weights.recurrent)?;
            let sum = ctx.binary("add", input, recurrent)?;
            Ok(vec![activated(ctx, weights, 0, sum)?])
        }
    }
}

/// Activation function `number` of the clipped sum.
fn activated(
    ctx: &mut ExpandCtx<'_>,
    weights: &Weights,
    number: usize,
    sum: ValueId,
) -> Result<ValueId, OpError> {
    let sum = match weights.clip {
        Some(clip) => ctx.clamp(sum, -clip, clip)?,
        None => sum,
    };
    weights.activations[number].apply(ctx, sum)
}

/// Gate `number` of a row of gates.
fn gate(
    ctx: &mut ExpandCtx<'_>,
    weights: &Weights,
    gates: ValueId,
    number: usize,
) -> Result<ValueId, OpError> {
    ctx.part(gates, 1, number * weights.hidden..(number + 1) * weights.hidden)
}

/// `gate` plus peephole number `number` times `cell`.
fn peeped(
    ctx: &mut ExpandCtx<'_>,
    weights: &Weights,
    gate: ValueId,
    number: usize,
    cell: ValueId,
) -> Result<ValueId, OpError> {
    let Some(peepholes) = weights.peepholes else {
        return Ok(gate);
    };
    let own = ctx.part(
        peepholes,
        0,
        number * weights.hidden..(number + 1) * weights.hidden,
    )?;
    let product = ctx.binary("mul", own, cell)?;
    ctx.binary("add", gate, product)
}

fn lstm(
    ctx: &mut ExpandCtx<'_>,
    weights: &Weights,
    input: ValueId,
    hidden: ValueId,
    cell: ValueId,
) -> Result<Vec<ValueId>, OpError> {
    let recurrent = ctx.binary("matmul", hidden, weights.recurrent)?;
    let gates = ctx.binary("add", input, recurrent)?;
    let sum = gate(ctx, weights, gates, 0)?;
    let sum = peeped(ctx, weights, sum, 0, cell)?;
    let input_gate = activated(ctx, weights, 0, sum)?;
    let forget_gate = if weights.input_forget {
        let one = ctx.scalar(ctx.dtype_of(input), 1.0);
        ctx.binary("sub", one, input_gate)?
    } else {
        let sum = gate(ctx, weights, gates, 2)?;
        let sum = peeped(ctx, weights, sum, 2, cell)?;
        activated(ctx, weights, 0, sum)?
    };
    let sum = gate(ctx, weights, gates, 3)?;
    let candidate = activated(ctx, weights, 1, sum)?;
    let kept = ctx.binary("mul", forget_gate, cell)?;
    let added = ctx.binary("mul", input_gate, candidate)?;
    let cell = ctx.binary("add", kept, added)?;
    let sum = gate(ctx, weights, gates, 1)?;
    let sum = peeped(ctx, weights, sum, 1, cell)?;
    let output_gate = activated(ctx, weights, 0, sum)?;
    let shown = activated(ctx, weights, 2, cell)?;
    Ok(vec![ctx.binary("mul", output_gate, shown)?, cell])
}

/// `sum + bias` for the gates from `first` on.
fn with_recurrent_bias(
    ctx: &mut ExpandCtx<'_>,
    weights: &Weights,
    sum: ValueId,
    gates: std::ops::Range<usize>,
) -> Result<ValueId, OpError> {
    let Some(bias) = weights.recurrent_bias else {
        return Ok(sum);
    };
    let bias = ctx.part(bias, 0, gates.start * weights.hidden..gates.end * weights.hidden)?;
    ctx.binary("add", sum, bias)
}

fn gru(
    ctx: &mut ExpandCtx<'_>,
    weights: &Weights,
    input: ValueId,
    hidden: ValueId,
) -> Result<ValueId, OpError> {
    let size = weights.hidden;
    let gate_weights = ctx.part(weights.recurrent, 1, 0..2 * size)?;
    let candidate_weights = ctx.part(weights.recurrent, 1, 2 * size..3 * size)?;
    let recurrent = ctx.binary("matmul", hidden, gate_weights)?;
    let recurrent = with_recurrent_bias(ctx, weights, recurrent, 0..2)?;
    let inputs = ctx.part(input, 1, 0..2 * size)?;
    let gates = ctx.binary("add", inputs, recurrent)?;
    let gates = activated(ctx, weights, 0, gates)?;
    let (update, reset) = (gate(ctx, weights, gates, 0)?, gate(ctx, weights, gates, 1)?);
    let recurrent = if weights.linear_before_reset {
        let product = ctx.binary("matmul", hidden, candidate_weights)?;
        let product = with_recurrent_bias(ctx, weights, product, 2..3)?;
        ctx.binary("mul", reset, product)?
    } else {
        let kept = ctx.binary("mul", reset, hidden)?;
        let product = ctx.binary("matmul", kept, candidate_weights)?;
        with_recurrent_bias(ctx, weights, product, 2..3)?
    };
    let inputs = gate(ctx, weights, input, 2)?;
    let sum = ctx.binary("add", inputs, recurrent)?;
    let candidate = activated(ctx, weights, 1, sum)?;
    // (1 - update) * candidate + update * hidden.
    let difference = ctx.binary("sub", hidden, candidate)?;
    let moved = ctx.binary("mul", update, difference)?;
    ctx.binary("add", candidate, moved)
}
