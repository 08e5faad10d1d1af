//! Layers that carry a state from token to token, unrolled over their (static) sequence:
//! `LinearAttention`, and the causal convolution that comes before it.

use super::build::{FORM, float_attr, int_attr, required_attr, str_attr};
use super::grid_forms::computed_in;
use super::{AttrKind, ExpandCtx, Lowering, OnnxOp, OpDef, OpError, Operands, infer};
use crate::ir::{Attr, Attrs, ValueId};

/// Attention whose keys and values are summed into one matrix per head.
pub static LINEAR_ATTENTION: OpDef = OpDef {
    name: "LinearAttention",
    onnx: &[OnnxOp::new("LinearAttention")],
    operands: Operands::with_optional(&["q", "k", "v"], &["past_state", "decay", "beta"]),
    attrs: &[
        // A hint for kernels that work on many tokens at once.
        int_attr("chunk_size", 64),
        required_attr("kv_num_heads", AttrKind::Int),
        required_attr("q_num_heads", AttrKind::Int),
        float_attr("scale", 0.0),
        str_attr("update_rule", "gated_delta"),
    ],
    lower: Lowering::Expand(linear_attention),
    ..FORM
};

/// A depthwise convolution over the last positions, which are the state.
pub static CAUSAL_CONV: OpDef = OpDef {
    name: "CausalConvWithState",
    onnx: &[OnnxOp::new("CausalConvWithState")],
    operands: Operands::with_optional(&["x", "w"], &["bias", "past_state"]),
    attrs: &[str_attr("activation", "none")],
    lower: Lowering::Expand(causal_conv),
    ..FORM
};

pub static OPS: &[&OpDef] = &[&LINEAR_ATTENTION, &CAUSAL_CONV];

/// Which terms the state's recurrence has.
#[derive(Clone, Copy)]
struct Rule {
    gated: bool,
    delta: bool,
}

impl Rule {
    fn read(attrs: &Attrs) -> Result<Self, OpError> {
        let (gated, delta) = match attrs.str("update_rule") {
            Some("linear") => (false, false),
            Some("gated") => (true, false),
            Some("delta") => (false, true),
            Some("gated_delta") => (true, true),
            other => {
                return Err(OpError::invalid(format!(
                    "attribute `update_rule` must be `linear`, `gated`, `delta` or `gated_delta`, found `{}`",
                    other.unwrap_or_default()
                )));
            }
        };
        Ok(Rule { gated, delta })
    }
}

/// Extents of a linear attention.
struct Shapes {
    batch: usize,
    tokens: usize,
    /// Heads of keys and values, each with a state of its own.
    heads: usize,
    /// Query heads that share a state.
    group: usize,
    key: usize,
    value: usize,
}

impl Shapes {
    fn read(ctx: &ExpandCtx<'_>) -> Result<Self, OpError> {
        let [q, k, v] = [0, 1, 2].map(|n| ctx.ty(n).map(|ty| ty.dims()));
        let (q, k, v) = (q?, k?, v?);
        let count = |name: &str| usize::try_from(infer::int(ctx.attrs, name)?).map_or(Ok(0), Ok);
        let (q_heads, heads): (usize, usize) = (count("q_num_heads")?, count("kv_num_heads")?);
        let (&[batch, tokens, q_width], &[_, _, k_width], &[_, _, v_width]) = (&q[..], &k[..], &v[..]) else {
            return Err(OpError::invalid(
                "a linear attention needs operands of three axes",
            ));
        };
        let fits = heads > 0
            && q_heads > 0
            && q_heads % heads == 0
            && k_width % heads == 0
            && v_width % heads == 0
            && q_width == q_heads * (k_width / heads)
            && k[..2] == q[..2]
            && v[..2] == q[..2];
        if !fits {
            return Err(OpError::invalid(format!(
                "a linear attention of {q:?}, {k:?} and {v:?} with {q_heads} query and {heads} key heads"
            )));
        }
        Ok(Shapes {
            batch,
            tokens,
            heads,
            group: q_heads / heads,
            key: k_width / heads,
            value: v_width / heads,
        })
    }
}

/// Operands per token and head, in the kind the state is computed in.
struct Streams {
    /// `[b, t, heads, group, key]`, scaled.
    query: ValueId,
    /// `[b, t, heads, 1, key]`.
    key: ValueId,
    /// `[b, t, heads, 1, value]`.
    value: ValueId,
    /// `[b, t, heads, key or 1, 1]`, no longer a logarithm.
    decay: Option<ValueId>,
    /// `[b, t, heads or 1, 1, 1]`.
    beta: Option<ValueId>,
}

fn linear_attention(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let rule = Rule::read(ctx.attrs)?;
    let shapes = Shapes::read(ctx)?;
    let own = ctx.ty(0)?.dtype;
    let kind = computed_in(own);
    let streams = streams(ctx, &shapes, rule)?;
    let (mut state, state_kind) = if let Some(past) = ctx.optional(3) {
        (ctx.cast(past, kind)?, ctx.dtype_of(past))
    } else {
        let dims = [shapes.batch, shapes.heads, shapes.key, shapes.value];
        (ctx.filled(kind, &dims, 0.0), own)
    };
    let mut outputs = Vec::new();
    for token in 0..shapes.tokens {
        state = updated(ctx, &streams, token, state)?;
        let query = at_token(ctx, streams.query, token)?;
        // `[b, heads, group, value]`, which is one row of the result.
        let output = ctx.binary("matmul", query, state)?;
        let width = shapes.heads * shapes.group * shapes.value;
        outputs.push(ctx.reshape(output, &[shapes.batch, 1, width])?);
    }
    let width = shapes.heads * shapes.group * shapes.value;
    let output = if outputs.is_empty() {
        ctx.filled(kind, &[shapes.batch, 0, width], 0.0)
    } else {
        ctx.joined(&outputs, 1)?
    };
    let mut results = vec![ctx.cast(output, own)?, ctx.cast(state, state_kind)?];
    results.truncate(ctx.n_results);
    Ok(results)
}

fn streams(ctx: &mut ExpandCtx<'_>, shapes: &Shapes, rule: Rule) -> Result<Streams, OpError> {
    let kind = computed_in(ctx.ty(0)?.dtype);
    let (batch, tokens, heads) = (shapes.batch, shapes.tokens, shapes.heads);
    let stream = |ctx: &mut ExpandCtx<'_>, n: usize, dims: [usize; 3]| {
        let value = ctx.value(n)?;
        let value = ctx.cast(value, kind)?;
        ctx.reshape(value, &[batch, tokens, dims[0], dims[1], dims[2]])
    };
    #[expect(clippy::cast_precision_loss, reason = "heads are narrow")]
    let root = (shapes.key as f64).sqrt();
    let scale = Some(infer::float(ctx.attrs, "scale")?).filter(|&scale| scale != 0.0);
    let query = stream(ctx, 0, [heads, shapes.group, shapes.key])?;
    let query = ctx.with_number("mul", query, scale.unwrap_or(1.0 / root))?;
    let key = stream(ctx, 1, [heads, 1, shapes.key])?;
    let value = stream(ctx, 2, [heads, 1, shapes.value])?;
    let decay = if rule.gated {
        let width = ctx.ty(4)?.dims().last().copied().unwrap_or(0);
        let logarithm = stream(ctx, 4, [heads, width / heads, 1])?;
        Some(ctx.plain("exp", &[logarithm])?)
    } else {
        None
    };
    let beta = if rule.delta {
        let width = ctx.ty(5)?.dims().last().copied().unwrap_or(0);
        Some(stream(ctx, 5, [width, 1, 1])?)
    } else {
        None
    };
    Ok(Streams {
        query,
        key,
        value,
        decay,
        beta,
    })
}

/// One token of a stream: `[b, heads, .., ..]`.
fn at_token(ctx: &mut ExpandCtx<'_>, stream: ValueId, token: usize) -> Result<ValueId, OpError> {
    let mut dims = ctx.dims_of(stream);
    let own = ctx.part(stream, 1, token..token + 1)?;
    dims.remove(1);
    ctx.reshape(own, &dims)
}

/// The state after a token: decayed, then corrected by what the token brings.
fn updated(
    ctx: &mut ExpandCtx<'_>,
    streams: &Streams,
    token: usize,
    mut state: ValueId,
) -> Result<ValueId, OpError> {
    let row = at_token(ctx, streams.key, token)?;
    let column = ctx.transpose(row, &[0, 1, 3, 2])?;
    let mut value = at_token(ctx, streams.value, token)?;
    if let Some(decay) = streams.decay {
        let decay = at_token(ctx, decay, token)?;
        state = ctx.binary("mul", state, decay)?;
    }
    if let Some(beta) = streams.beta {
        let beta = at_token(ctx, beta, token)?;
        let recalled = ctx.binary("matmul", row, state)?;
        let missing = ctx.binary("sub", value, recalled)?;
        value = ctx.binary("mul", missing, beta)?;
    }
    let brought = ctx.binary("mul", column, value)?;
    ctx.binary("add", state, brought)
}

fn causal_conv(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let (x, w) = (ctx.value(0)?, ctx.value(1)?);
    let (&[batch, channels, length], &[filters, 1, kernel]) = (&ctx.dims_of(x)[..], &ctx.dims_of(w)[..])
    else {
        return Err(OpError::invalid(format!(
            "a causal convolution of `{}` with a filter `{}`",
            ctx.graph.ty(x),
            ctx.graph.ty(w)
        )));
    };
    if filters != channels || kernel == 0 {
        return Err(OpError::invalid(format!(
            "{filters} filters of {kernel} cells for {channels} channels"
        )));
    }
    let past = match ctx.optional(3) {
        Some(past) => past,
        None => ctx.filled(ctx.dtype_of(x), &[batch, channels, kernel - 1], 0.0),
    };
    let whole = if kernel == 1 {
        x
    } else {
        ctx.joined(&[past, x], 2)?
    };
    let group = i64::try_from(channels).expect("extents fit in i64");
    let attrs = Attrs::new().with("group", Attr::Int(group));
    let operands = vec![Some(whole), Some(w), ctx.optional(2)];
    let mut y = ctx.emit_all("Conv", operands, attrs, 1)?[0];
    match ctx.attrs.str("activation") {
        Some("none") => {}
        Some("silu" | "swish") => {
            let gate = ctx.plain("sigmoid", &[y])?;
            y = ctx.binary("mul", y, gate)?;
        }
        other => {
            return Err(OpError::invalid(format!(
                "attribute `activation` must be `none`, `silu` or `swish`, found `{}`",
                other.unwrap_or_default()
            )));
        }
    }
    let state = ctx.part(whole, 2, length..length + kernel - 1)?;
    let mut results = vec![y, state];
    results.truncate(ctx.n_results);
    Ok(results)
}
