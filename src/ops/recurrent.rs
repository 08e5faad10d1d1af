//! ONNX's LSTM, GRU and RNN, unrolled over their (static) sequence length.
//!
//! The products with the inputs of all steps are one matrix product before the first step.
//! Steps beyond a sample's own length leave its state as it is and put out zeros; in reverse
//! this makes the state start at the sample's own end.

use super::build::{FORM, int_attr, optional_attr, str_attr};
use super::recurrent_cells::{Kind, Weights, activations, step};
use super::{AttrDef, AttrKind, ExpandCtx, Lowering, OnnxOp, OpDef, OpError, Operands, infer};
use crate::ir::{DType, HostTensor, ValueId};

const LSTM_ATTRS: &[AttrDef] = &[
    optional_attr("activation_alpha", AttrKind::Floats),
    optional_attr("activation_beta", AttrKind::Floats),
    optional_attr("activations", AttrKind::Strs),
    optional_attr("clip", AttrKind::Float),
    str_attr("direction", "forward"),
    optional_attr("hidden_size", AttrKind::Int),
    int_attr("layout", 0),
    int_attr("output_sequence", 0),
    int_attr("input_forget", 0),
];

const GRU_ATTRS: &[AttrDef] = &[
    LSTM_ATTRS[0],
    LSTM_ATTRS[1],
    LSTM_ATTRS[2],
    LSTM_ATTRS[3],
    LSTM_ATTRS[4],
    LSTM_ATTRS[5],
    LSTM_ATTRS[6],
    LSTM_ATTRS[7],
    int_attr("linear_before_reset", 0),
];

const RNN_ATTRS: &[AttrDef] = &[
    LSTM_ATTRS[0],
    LSTM_ATTRS[1],
    LSTM_ATTRS[2],
    LSTM_ATTRS[3],
    LSTM_ATTRS[4],
    LSTM_ATTRS[5],
    LSTM_ATTRS[6],
    LSTM_ATTRS[7],
];

/// Long short-term memory.
pub static LSTM: OpDef = OpDef {
    name: "LSTM",
    onnx: &[OnnxOp::new("LSTM")],
    operands: Operands::with_optional(
        &["x", "w", "r"],
        &["bias", "sequence_lens", "initial_h", "initial_c", "peepholes"],
    ),
    attrs: LSTM_ATTRS,
    lower: Lowering::Expand(|ctx| recurrent(ctx, Kind::Lstm)),
    ..FORM
};

/// Gated recurrent unit.
pub static GRU: OpDef = OpDef {
    name: "GRU",
    onnx: &[OnnxOp::new("GRU")],
    operands: Operands::with_optional(&["x", "w", "r"], &["bias", "sequence_lens", "initial_h"]),
    attrs: GRU_ATTRS,
    lower: Lowering::Expand(|ctx| recurrent(ctx, Kind::Gru)),
    ..FORM
};

/// The plain recurrent network.
pub static RNN: OpDef = OpDef {
    name: "RNN",
    onnx: &[OnnxOp::new("RNN")],
    operands: Operands::with_optional(&["x", "w", "r"], &["bias", "sequence_lens", "initial_h"]),
    attrs: RNN_ATTRS,
    lower: Lowering::Expand(|ctx| recurrent(ctx, Kind::Rnn)),
    ..FORM
};

pub static OPS: &[&OpDef] = &[&LSTM, &GRU, &RNN];

/// Sizes of a recurrent op, and its input with time first.
struct Sequence {
    x: ValueId,
    length: usize,
    batch: usize,
    hidden: usize,
    n_directions: usize,
    batch_first: bool,
}

impl Sequence {
    fn new(ctx: &mut ExpandCtx<'_>, kind: Kind) -> Result<Self, OpError> {
        let (x, r) = (ctx.value(0)?, ctx.value(2)?);
        let batch_first = infer::int(ctx.attrs, "layout")? == 1;
        let (x_dims, r_dims) = (ctx.dims_of(x), ctx.dims_of(r));
        let (&[_, _, _], &[n_directions, rows, hidden]) = (x_dims.as_slice(), r_dims.as_slice()) else {
            return Err(OpError::invalid(format!(
                "a recurrent op on {x_dims:?} with recurrent weights {r_dims:?}"
            )));
        };
        let expected = if ctx.attrs.str("direction") == Some("bidirectional") {
            2
        } else {
            1
        };
        if rows != kind.n_gates() * hidden || n_directions != expected {
            return Err(OpError::invalid(format!(
                "recurrent weights {r_dims:?} for {expected} directions and {} gates",
                kind.n_gates()
            )));
        }
        let x = if batch_first {
            ctx.transpose(x, &[1, 0, 2])?
        } else {
            x
        };
        let dims = ctx.dims_of(x);
        Ok(Sequence {
            x,
            length: dims[0],
            batch: dims[1],
            hidden,
            n_directions,
            batch_first,
        })
    }
}

/// Entry `number` of the first axis of `value`, without that axis.
fn entry(ctx: &mut ExpandCtx<'_>, value: ValueId, number: usize) -> Result<ValueId, OpError> {
    let dims = ctx.dims_of(value);
    if number >= dims.first().copied().unwrap_or(0) {
        return Err(OpError::invalid(format!(
            "`{}` has no entry {number}",
            ctx.graph.ty(value)
        )));
    }
    let part = ctx.part(value, 0, number..number + 1)?;
    ctx.reshape(part, &dims[1..])
}

fn recurrent(ctx: &mut ExpandCtx<'_>, kind: Kind) -> Result<Vec<ValueId>, OpError> {
    let sequence = Sequence::new(ctx, kind)?;
    let masks = masks(ctx, &sequence)?;
    let reverse_only = match ctx.attrs.str("direction") {
        Some("forward" | "bidirectional") => false,
        Some("reverse") => true,
        other => return Err(OpError::invalid(format!("attribute `direction` is {other:?}"))),
    };
    let (mut outputs, mut finals) = (Vec::new(), vec![Vec::new(); kind.n_states()]);
    for direction in 0..sequence.n_directions {
        let reverse = reverse_only || direction == 1;
        let (output, states) = unrolled(ctx, kind, &sequence, &masks, direction, reverse)?;
        outputs.push(output);
        for (list, state) in finals.iter_mut().zip(states) {
            list.push(ctx.reshape(state, &[1, sequence.batch, sequence.hidden])?);
        }
    }
    let mut results = vec![ctx.joined(&outputs, 1)?];
    for list in finals {
        results.push(ctx.joined(&list, 0)?);
    }
    if sequence.batch_first {
        results[0] = ctx.transpose(results[0], &[2, 0, 1, 3])?;
        for state in &mut results[1..] {
            *state = ctx.transpose(*state, &[1, 0, 2])?;
        }
    }
    results.truncate(ctx.n_results);
    Ok(results)
}

/// For each step, which samples are that long (`[batch, 1]`); empty where all always are.
fn masks(ctx: &mut ExpandCtx<'_>, sequence: &Sequence) -> Result<Vec<ValueId>, OpError> {
    let Some(lengths) = ctx.optional(4) else {
        return Ok(Vec::new());
    };
    let full = i64::try_from(sequence.length).expect("lengths fit in i64");
    if let Some(data) = ctx.graph.weight(lengths)
        && super::evaluate::to_vec::<i64>(data)
            .iter()
            .all(|&length| length >= full)
    {
        return Ok(Vec::new());
    }
    let lengths = ctx.cast(lengths, DType::I64)?;
    let lengths = ctx.reshape(lengths, &[sequence.batch, 1])?;
    (0..full)
        .map(|time| {
            let time = ctx.weight(HostTensor::from_i64(&[], &[time]));
            ctx.binary("less", time, lengths)
        })
        .collect()
}

/// All steps of one direction: outputs `[length, 1, batch, hidden]` and the last states.
fn unrolled(
    ctx: &mut ExpandCtx<'_>,
    kind: Kind,
    sequence: &Sequence,
    masks: &[ValueId],
    direction: usize,
    reverse: bool,
) -> Result<(ValueId, Vec<ValueId>), OpError> {
    let (weights, inputs) = weights(ctx, kind, sequence, direction)?;
    let dtype = ctx.dtype_of(sequence.x);
    let mut states = initial_states(ctx, kind, sequence, direction)?;
    let shape = [sequence.batch, sequence.hidden];
    if sequence.length == 0 {
        let nothing = ctx.filled(dtype, &[0, 1, shape[0], shape[1]], 0.0);
        return Ok((nothing, states));
    }
    let zero = ctx.scalar(dtype, 0.0);
    let mut outputs = vec![zero; sequence.length];
    for number in 0..sequence.length {
        let time = if reverse {
            sequence.length - 1 - number
        } else {
            number
        };
        let input = ctx.part(inputs, 0, time * sequence.batch..(time + 1) * sequence.batch)?;
        let mut next = step(ctx, &weights, input, &states)?;
        let mut output = next[0];
        if let Some(&mask) = masks.get(time) {
            output = ctx.plain("where", &[mask, output, zero])?;
            for (new, &old) in next.iter_mut().zip(&states) {
                *new = ctx.plain("where", &[mask, *new, old])?;
            }
        }
        states = next;
        outputs[time] = ctx.reshape(output, &[1, 1, shape[0], shape[1]])?;
    }
    Ok((ctx.joined(&outputs, 0)?, states))
}

fn initial_states(
    ctx: &mut ExpandCtx<'_>,
    kind: Kind,
    sequence: &Sequence,
    direction: usize,
) -> Result<Vec<ValueId>, OpError> {
    let dtype = ctx.dtype_of(sequence.x);
    (0..kind.n_states())
        .map(|number| match ctx.optional(5 + number) {
            Some(state) => {
                let state = if sequence.batch_first {
                    ctx.transpose(state, &[1, 0, 2])?
                } else {
                    state
                };
                entry(ctx, state, direction)
            }
            None => Ok(ctx.filled(dtype, &[sequence.batch, sequence.hidden], 0.0)),
        })
        .collect()
}

/// The weights of one direction, and its inputs of all steps times their weights plus bias:
/// `[length * batch, gates * hidden]`.
fn weights(
    ctx: &mut ExpandCtx<'_>,
    kind: Kind,
    sequence: &Sequence,
    direction: usize,
) -> Result<(Weights, ValueId), OpError> {
    let (w, r) = (ctx.value(1)?, ctx.value(2)?);
    let (w, r) = (entry(ctx, w, direction)?, entry(ctx, r, direction)?);
    let (w, recurrent) = (ctx.transpose(w, &[1, 0])?, ctx.transpose(r, &[1, 0])?);
    let width = ctx.dims_of(sequence.x)[2];
    let x = ctx.reshape(sequence.x, &[sequence.length * sequence.batch, width])?;
    let mut inputs = ctx.binary("matmul", x, w)?;
    let mut recurrent_bias = None;
    if let Some(bias) = ctx.optional(3) {
        let bias = entry(ctx, bias, direction)?;
        let rows = kind.n_gates() * sequence.hidden;
        let mut own = ctx.part(bias, 0, 0..rows)?;
        let other = ctx.part(bias, 0, rows..2 * rows)?;
        match kind {
            Kind::Lstm | Kind::Rnn => own = ctx.binary("add", own, other)?,
            Kind::Gru => recurrent_bias = Some(other),
        }
        inputs = ctx.binary("add", inputs, own)?;
    }
    let peepholes = match (kind, ctx.optional(7)) {
        (Kind::Lstm, Some(peepholes)) => Some(entry(ctx, peepholes, direction)?),
        (Kind::Lstm, None) | (Kind::Gru | Kind::Rnn, _) => None,
    };
    let weights = Weights {
        kind,
        hidden: sequence.hidden,
        recurrent,
        recurrent_bias,
        peepholes,
        activations: activations(ctx.attrs, kind, direction)?,
        clip: ctx.attrs.float("clip").filter(|&clip| clip > 0.0),
        linear_before_reset: ctx.attrs.int("linear_before_reset").unwrap_or(0) != 0,
        input_forget: ctx.attrs.int("input_forget").unwrap_or(0) != 0,
    };
    Ok((weights, inputs))
}
