//! ONNX's Attention: heads split off, caches joined, all masks merged into one bias.

use super::build::{FORM, float_attr, int_attr, optional_attr};
use super::samples::ints_attr;
use super::{AttrKind, ExpandCtx, Lowering, OnnxOp, OpDef, OpError, Operands, infer};
use crate::ir::{Attr, Attrs, DType, HostTensor, ValueId};

/// Scaled dot-product attention of `[b, h, s, d]` or `[b, s, h * d]` operands.
pub static ATTENTION: OpDef = OpDef {
    name: "Attention",
    onnx: &[OnnxOp::new("Attention")],
    operands: Operands::with_optional(
        &["q", "k", "v"],
        &["mask", "past_key", "past_value", "nonpad_kv_seqlen"],
    ),
    attrs: &[
        int_attr("is_causal", 0),
        optional_attr("kv_num_heads", AttrKind::Int),
        optional_attr("q_num_heads", AttrKind::Int),
        int_attr("qk_matmul_output_mode", 0),
        optional_attr("scale", AttrKind::Float),
        float_attr("softcap", 0.0),
        optional_attr("softmax_precision", AttrKind::DType),
        int_attr("left_window_size", -1),
        int_attr("right_window_size", -1),
    ],
    lower: Lowering::Expand(attention),
    ..FORM
};

pub static OPS: &[&OpDef] = &[&ATTENTION];

/// An attention with its operands in `[b, h, s, d]` and the whole cache in front.
struct Parts {
    q: ValueId,
    k: ValueId,
    v: ValueId,
    /// Keys of the cache, which come before those of this call.
    n_past: usize,
    scale: f64,
    softcap: f64,
    causal: bool,
}

impl Parts {
    fn new(ctx: &mut ExpandCtx<'_>) -> Result<Self, OpError> {
        let q = heads(ctx, 0, "q_num_heads")?;
        let (mut k, mut v) = (heads(ctx, 1, "kv_num_heads")?, heads(ctx, 2, "kv_num_heads")?);
        let mut n_past = 0;
        if let Some(past) = ctx.optional(4) {
            n_past = axis_extent(ctx, past, 2)?;
            k = ctx.joined(&[past, k], 2)?;
        }
        if let Some(past) = ctx.optional(5) {
            v = ctx.joined(&[past, v], 2)?;
        }
        #[expect(clippy::cast_precision_loss, reason = "heads are narrow")]
        let root = (axis_extent(ctx, q, 3)? as f64).sqrt();
        Ok(Parts {
            q,
            k,
            v,
            n_past,
            scale: ctx.attrs.float("scale").unwrap_or(1.0 / root),
            softcap: infer::float(ctx.attrs, "softcap")?,
            causal: infer::int(ctx.attrs, "is_causal")? != 0,
        })
    }

    /// Numbers of queries and of keys.
    fn lengths(&self, ctx: &ExpandCtx<'_>) -> (usize, usize) {
        (ctx.dims_of(self.q)[2], ctx.dims_of(self.k)[2])
    }
}

fn axis_extent(ctx: &ExpandCtx<'_>, value: ValueId, axis: usize) -> Result<usize, OpError> {
    ctx.dims_of(value).get(axis).copied().ok_or_else(|| {
        OpError::invalid(format!(
            "attention needs operands of four axes, found `{}`",
            ctx.graph.ty(value)
        ))
    })
}

/// Operand `n` as `[b, h, s, d]`.
fn heads(ctx: &mut ExpandCtx<'_>, n: usize, attr: &str) -> Result<ValueId, OpError> {
    let value = ctx.value(n)?;
    let dims = ctx.dims_of(value);
    let &[batch, length, width] = dims.as_slice() else {
        return Ok(value);
    };
    let count = infer::int(ctx.attrs, attr)?;
    let count = usize::try_from(count)
        .ok()
        .filter(|&count| count > 0 && width % count == 0)
        .ok_or_else(|| OpError::invalid(format!("{count} heads in {width} channels")))?;
    let split = ctx.reshape(value, &[batch, length, count, width / count])?;
    ctx.transpose(split, &[0, 2, 1, 3])
}

/// The inverse of [`heads`].
fn joined_heads(ctx: &mut ExpandCtx<'_>, value: ValueId) -> Result<ValueId, OpError> {
    let dims = ctx.dims_of(value);
    let turned = ctx.transpose(value, &[0, 2, 1, 3])?;
    ctx.reshape(turned, &[dims[0], dims[2], dims[1] * dims[3]])
}

fn attention(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let flat = ctx.ty(0)?.rank() == 3;
    let parts = Parts::new(ctx)?;
    let nonpad = ctx.optional(6).is_some();
    let mut bias = mask(ctx, &parts)?;
    if nonpad {
        let padding = padding_bias(ctx, &parts)?;
        bias = merged(ctx, bias, Some(padding))?;
    }
    let window = window_bias(ctx, &parts)?;
    bias = merged(ctx, bias, window)?;
    // Where the cache is padded, each sample has its own causal frontier, which is in the bias.
    let causal = parts.causal && !nonpad;
    let mut y = core(ctx, &parts, bias, causal)?;
    if flat {
        y = joined_heads(ctx, y)?;
    }
    let mut results = vec![y, parts.k, parts.v];
    if ctx.n_results > 3 {
        results.push(scores(ctx, &parts, bias, causal)?);
    }
    results.truncate(ctx.n_results);
    Ok(results)
}

fn core(
    ctx: &mut ExpandCtx<'_>,
    parts: &Parts,
    bias: Option<ValueId>,
    causal: bool,
) -> Result<ValueId, OpError> {
    let offset = i64::try_from(parts.n_past).expect("lengths fit in i64");
    let attrs = Attrs::new()
        .with("scale", Attr::Float(parts.scale))
        .with("causal", Attr::Int(i64::from(causal)))
        .with("causal_offset", Attr::Int(if causal { offset } else { 0 }))
        .with("softcap", Attr::Float(parts.softcap.max(0.0)));
    let mut operands = vec![parts.q, parts.k, parts.v];
    operands.extend(bias);
    ctx.emit("attention", &operands, attrs)
}

fn merged(
    ctx: &mut ExpandCtx<'_>,
    a: Option<ValueId>,
    b: Option<ValueId>,
) -> Result<Option<ValueId>, OpError> {
    match (a, b) {
        (Some(a), Some(b)) => ctx.binary("add", a, b).map(Some),
        (one, None) | (None, one) => Ok(one),
    }
}

/// Zero where `seen`, minus infinity elsewhere.
fn hiding(ctx: &mut ExpandCtx<'_>, seen: ValueId, dtype: DType) -> Result<ValueId, OpError> {
    let (zero, hidden) = (ctx.scalar(dtype, 0.0), ctx.scalar(dtype, f64::NEG_INFINITY));
    ctx.plain("where", &[seen, zero, hidden])
}

/// The mask operand as a bias; keys beyond a short mask are hidden.
fn mask(ctx: &mut ExpandCtx<'_>, parts: &Parts) -> Result<Option<ValueId>, OpError> {
    let Some(mask) = ctx.optional(3) else {
        return Ok(None);
    };
    let dtype = ctx.dtype_of(parts.q);
    let bias = if ctx.dtype_of(mask) == DType::Bool {
        hiding(ctx, mask, dtype)?
    } else {
        ctx.cast(mask, dtype)?
    };
    let (mut after, n_keys) = (vec![0; ctx.dims_of(bias).len()], parts.lengths(ctx).1);
    let (Some(missing), Some(&own)) = (after.last_mut(), ctx.dims_of(bias).last()) else {
        return Ok(Some(bias));
    };
    if own == 1 || own >= n_keys {
        return Ok(Some(bias));
    }
    *missing = n_keys - own;
    let attrs = Attrs::new()
        .with("before", ints_attr(&vec![0; after.len()]))
        .with("after", ints_attr(&after))
        .with("mode", Attr::Str("constant".to_owned()));
    let hidden = ctx.scalar(dtype, f64::NEG_INFINITY);
    ctx.emit("pad", &[bias, hidden], attrs).map(Some)
}

/// How far key `j` lies behind query `i`, as `[s, t]` constants `j - i`.
fn distances(ctx: &mut ExpandCtx<'_>, parts: &Parts) -> ValueId {
    let (queries, keys) = parts.lengths(ctx);
    let signed = |value: usize| i64::try_from(value).expect("lengths fit in i64");
    let values: Vec<i64> = (0..queries)
        .flat_map(|query| (0..keys).map(move |key| signed(key) - signed(query)))
        .collect();
    ctx.weight(HostTensor::from_i64(&[queries, keys], &values))
}

/// Hides keys beyond each sample's length, and with `causal` those after the query, whose
/// block ends at that length.
fn padding_bias(ctx: &mut ExpandCtx<'_>, parts: &Parts) -> Result<ValueId, OpError> {
    let dtype = ctx.dtype_of(parts.q);
    let (queries, keys) = parts.lengths(ctx);
    let lengths = ctx.value(6)?;
    let n_samples = ctx.dims_of(lengths).iter().product();
    let lengths = ctx.reshape(lengths, &[n_samples, 1, 1, 1])?;
    let lengths = ctx.cast(lengths, DType::I64)?;
    let places: Vec<i64> = (0..).take(keys).collect();
    let places = ctx.weight(HostTensor::from_i64(&[keys], &places));
    let mut seen = ctx.binary("less", places, lengths)?;
    if parts.causal {
        let n_queries = HostTensor::from_i64(&[], &[i64::try_from(queries).expect("lengths fit in i64")]);
        let n_queries = ctx.weight(n_queries);
        let offset = ctx.binary("sub", lengths, n_queries)?;
        let distances = distances(ctx, parts);
        let earlier = ctx.binary("less_equal", distances, offset)?;
        seen = ctx.binary("and", seen, earlier)?;
    }
    hiding(ctx, seen, dtype)
}

/// Hides keys too far before or after the query; `None` without such limits.
fn window_bias(ctx: &mut ExpandCtx<'_>, parts: &Parts) -> Result<Option<ValueId>, OpError> {
    let left = infer::int(ctx.attrs, "left_window_size")?;
    let right = infer::int(ctx.attrs, "right_window_size")?;
    if left < 0 && right < 0 {
        return Ok(None);
    }
    let mut distance = distances(ctx, parts);
    let offset = if let Some(lengths) = ctx.optional(6) {
        let n_samples = ctx.dims_of(lengths).iter().product();
        let lengths = ctx.reshape(lengths, &[n_samples, 1, 1, 1])?;
        let lengths = ctx.cast(lengths, DType::I64)?;
        let n_queries = i64::try_from(parts.lengths(ctx).0).expect("lengths fit in i64");
        let n_queries = ctx.weight(HostTensor::from_i64(&[], &[n_queries]));
        ctx.binary("sub", lengths, n_queries)?
    } else {
        let n_past = i64::try_from(parts.n_past).expect("lengths fit in i64");
        ctx.weight(HostTensor::from_i64(&[], &[n_past]))
    };
    distance = ctx.binary("sub", distance, offset)?;
    let mut seen = None;
    for (limit, op, sign) in [(left, "greater_equal", -1), (right, "less_equal", 1)] {
        if limit >= 0 {
            let limit = ctx.weight(HostTensor::from_i64(&[], &[sign * limit]));
            let inside = ctx.binary(op, distance, limit)?;
            seen = Some(match seen {
                Some(seen) => ctx.binary("and", seen, inside)?,
                None => inside,
            });
        }
    }
    let dtype = ctx.dtype_of(parts.q);
    seen.map(|seen| hiding(ctx, seen, dtype)).transpose()
}

/// The optional fourth result: the scores after the stage that `qk_matmul_output_mode` names.
fn scores(
    ctx: &mut ExpandCtx<'_>,
    parts: &Parts,
    bias: Option<ValueId>,
    causal: bool,
) -> Result<ValueId, OpError> {
    let mode = infer::int(ctx.attrs, "qk_matmul_output_mode")?;
    let k = repeated_heads(ctx, parts)?;
    let k = ctx.transpose(k, &[0, 1, 3, 2])?;
    let product = ctx.binary("matmul", parts.q, k)?;
    let mut scores = ctx.with_number("mul", product, parts.scale)?;
    if mode >= 1 && parts.softcap > 0.0 {
        scores = ctx.with_number("div", scores, parts.softcap)?;
        scores = ctx.plain("tanh", &[scores])?;
        scores = ctx.with_number("mul", scores, parts.softcap)?;
    }
    if mode < 2 {
        return Ok(scores);
    }
    let bias = if causal {
        let offset = i64::try_from(parts.n_past).expect("lengths fit in i64");
        let offset = ctx.weight(HostTensor::from_i64(&[], &[offset]));
        let distances = distances(ctx, parts);
        let seen = ctx.binary("less_equal", distances, offset)?;
        let hidden = hiding(ctx, seen, ctx.dtype_of(parts.q))?;
        merged(ctx, bias, Some(hidden))?
    } else {
        bias
    };
    if let Some(bias) = bias {
        scores = ctx.binary("add", scores, bias)?;
    }
    if mode == 2 {
        Ok(scores)
    } else {
        guarded_softmax(ctx, scores)
    }
}

/// Keys with each head repeated for the query heads that share it.
fn repeated_heads(ctx: &mut ExpandCtx<'_>, parts: &Parts) -> Result<ValueId, OpError> {
    let (heads, dims) = (ctx.dims_of(parts.q)[1], ctx.dims_of(parts.k));
    let &[batch, key_heads, keys, depth] = dims.as_slice() else {
        return Ok(parts.k);
    };
    if heads == key_heads || key_heads == 0 {
        return Ok(parts.k);
    }
    let split = ctx.reshape(parts.k, &[batch, key_heads, 1, keys, depth])?;
    let repeated = ctx.expand(split, &[batch, key_heads, heads / key_heads, keys, depth])?;
    ctx.reshape(repeated, &[batch, heads, keys, depth])
}

/// Softmax over the last axis, zero where every score is minus infinity.
fn guarded_softmax(ctx: &mut ExpandCtx<'_>, scores: ValueId) -> Result<ValueId, OpError> {
    let dtype = ctx.dtype_of(scores);
    let max = ctx.reduce("reduce_max", scores, &[3])?;
    let hidden = ctx.scalar(dtype, f64::NEG_INFINITY);
    let nothing = ctx.binary("equal", max, hidden)?;
    let weights = ctx.emit("softmax", &[scores], Attrs::new().with("axis", Attr::Int(3)))?;
    let zero = ctx.scalar(dtype, 0.0);
    ctx.plain("where", &[nothing, zero, weights])
}
