//! Scaled dot-product attention; the ONNX forms are in [`super::attention_forms`].

use rayon::prelude::*;

use super::build::{float_attr, int_attr};
use super::evaluate::{Number, from_values, one, to_vec};
use super::product::{Element, Matrix, Threads, product};
use super::samples::{Draw, float_for, sample};
use super::{
    Datum, EvalCtx, InferCtx, Lowering, OpDef, OpError, Operands, Reach, Sample, TileKind, Tolerance, infer,
};
use crate::ir::{Attr, Attrs, DType, HostTensor, TensorType};
use crate::tile::{Cond, Expr, ExprId, Extent, Index, ReduceOp, TileCtx};

/// `softmax(scale * q k^T + bias) v` for `q[b, h, s, d]`, `k[b, g, t, d]`, `v[b, g, t, e]`.
///
/// Query head `i` uses key head `i / (h / g)`. The scores pass through
/// `softcap * tanh(score / softcap)` unless `softcap` is zero, then `bias` is added, which
/// broadcasts to `[b, h, s, t]` and may be `f32` for halves. With `causal`, query `i` sees keys up to `i + causal_offset`.
/// A row that sees no key, or only scores of minus infinity, gives zeros.
pub static ATTENTION: OpDef = OpDef {
    name: "attention",
    onnx: &[],
    operands: Operands::with_optional(&["q", "k", "v"], &["bias"]),
    attrs: &[
        float_attr("scale", 1.0),
        int_attr("causal", 0),
        int_attr("causal_offset", 0),
        float_attr("softcap", 0.0),
    ],
    infer: infer_attention,
    eval: attention,
    lower: Lowering::Tile(TileKind::Other, tile_attention),
    samples: draw,
    tolerance: Tolerance::Accumulated,
    halves: None,
    reach: Reach::Elements,
};

pub static OPS: &[&OpDef] = &[&ATTENTION];

/// Sizes of an attention.
struct Sizes {
    batch: usize,
    heads: usize,
    key_heads: usize,
    queries: usize,
    keys: usize,
    depth: usize,
    value_depth: usize,
}

impl Sizes {
    fn new(q: &[usize], k: &[usize], v: &[usize]) -> Result<Self, OpError> {
        let (&[batch, heads, queries, depth], &[.., key_heads, keys, _], &[.., value_depth]) = (q, k, v)
        else {
            return Err(mismatch(q, k, v));
        };
        let fits = k == [batch, key_heads, keys, depth]
            && v == [batch, key_heads, keys, value_depth]
            && key_heads > 0
            && heads % key_heads == 0;
        if !fits {
            return Err(mismatch(q, k, v));
        }
        Ok(Sizes {
            batch,
            heads,
            key_heads,
            queries,
            keys,
            depth,
            value_depth,
        })
    }

    fn scores(&self) -> [usize; 4] {
        [self.batch, self.heads, self.queries, self.keys]
    }
}

fn mismatch(q: &[usize], k: &[usize], v: &[usize]) -> OpError {
    OpError::invalid(format!(
        "attention of queries {q:?} to keys {k:?} with values {v:?}"
    ))
}

fn infer_attention(ctx: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
    ctx.expect_operands(3..=4)?;
    let dtype = infer::same_dtype(ctx, 0, 1)?;
    infer::same_dtype(ctx, 0, 2)?;
    infer::expect_kind(dtype, "a float kind", DType::is_float)?;
    let sizes = Sizes::new(&ctx.dims(0)?, &ctx.dims(1)?, &ctx.dims(2)?)?;
    Settings::new(ctx.attrs)?;
    if let Some(bias) = ctx.optional(3) {
        // Halves may be masked by numbers that only a wider kind holds.
        if bias.dtype != DType::F32 || dtype.size_bytes() > 2 {
            infer::same_dtype(ctx, 0, 3)?;
        }
        let scores = sizes.scores();
        if infer::broadcast(&infer::known_dims(bias)?, &scores)? != scores {
            return Err(OpError::invalid(format!("a bias `{bias}` for scores {scores:?}")));
        }
    }
    let dims = [sizes.batch, sizes.heads, sizes.queries, sizes.value_depth];
    Ok(vec![TensorType::new(dtype, &dims)])
}

/// Attributes of an attention.
struct Settings {
    scale: f64,
    softcap: f64,
    /// How many keys beyond its own position a query sees; `None` for all.
    causal_offset: Option<i64>,
}

impl Settings {
    fn new(attrs: &Attrs) -> Result<Self, OpError> {
        let causal = infer::int(attrs, "causal")? != 0;
        let offset = infer::int(attrs, "causal_offset")?;
        if i32::try_from(offset).is_err() {
            return Err(OpError::invalid(format!("a causal offset of {offset}")));
        }
        Ok(Settings {
            scale: infer::float(attrs, "scale")?,
            softcap: infer::float(attrs, "softcap")?,
            causal_offset: causal.then_some(offset),
        })
    }

    /// Turns one row of products into weights.
    fn weigh(&self, row: usize, scores: &mut [f64], bias: Option<&[f64]>) {
        let row = i64::try_from(row).expect("lengths fit in i64");
        let visible = self.causal_offset.map_or(i64::MAX, |offset| row + offset);
        for (key, score) in scores.iter_mut().enumerate() {
            *score *= self.scale;
            if self.softcap != 0.0 {
                *score = self.softcap * (*score / self.softcap).tanh();
            }
            if let Some(bias) = bias {
                *score += bias[key];
            }
            if i64::try_from(key).is_ok_and(|key| key > visible) {
                *score = f64::NEG_INFINITY;
            }
        }
        if scores.iter().all(|&score| score == f64::NEG_INFINITY) {
            scores.fill(0.0);
        } else {
            super::softmax::softmax(scores);
        }
    }
}

fn attention(ctx: &EvalCtx<'_>) -> Result<Vec<Datum>, OpError> {
    let dtype = ctx.tensor(0)?.dtype();
    if dtype == DType::F64 {
        run::<f64>(ctx)
    } else {
        run::<f32>(ctx)
    }
}

fn run<T: Element + Number>(ctx: &EvalCtx<'_>) -> Result<Vec<Datum>, OpError> {
    let (q, k, v) = (ctx.tensor(0)?, ctx.tensor(1)?, ctx.tensor(2)?);
    let sizes = Sizes::new(q.dims(), k.dims(), v.dims())?;
    let settings = Settings::new(ctx.attrs)?;
    let bias = ctx.optional_tensor(3)?.map(|bias| broadcast_bias(bias, &sizes));
    let (q_values, k_values, v_values) = (to_vec::<T>(q), to_vec::<T>(k), to_vec::<T>(v));
    let dims = [sizes.batch, sizes.heads, sizes.queries, sizes.value_depth];
    let mut results = vec![T::default(); dims.iter().product()];
    if !results.is_empty() {
        let size = sizes.queries * sizes.value_depth;
        results.par_chunks_mut(size).enumerate().for_each(|(head, into)| {
            let key_head = head / (sizes.heads / sizes.key_heads);
            let keys = &k_values[key_head * sizes.keys * sizes.depth..][..sizes.keys * sizes.depth];
            let values =
                &v_values[key_head * sizes.keys * sizes.value_depth..][..sizes.keys * sizes.value_depth];
            let queries = &q_values[head * sizes.queries * sizes.depth..][..sizes.queries * sizes.depth];
            let bias = bias
                .as_ref()
                .map(|bias| &bias[head * sizes.queries * sizes.keys..]);
            one_head(&sizes, &settings, [queries, keys, values], bias, into);
        });
    }
    one(from_values(q.dtype(), &dims, &results))
}

fn one_head<T: Element + Number>(
    sizes: &Sizes,
    settings: &Settings,
    [queries, keys, values]: [&[T]; 3],
    bias: Option<&[f64]>,
    into: &mut [T],
) {
    if sizes.keys == 0 {
        return;
    }
    let mut scores = vec![T::default(); sizes.queries * sizes.keys];
    product(
        Matrix::dense(queries, sizes.depth),
        Matrix::transposed(keys, sizes.depth),
        sizes.keys,
        sizes.depth,
        &mut scores,
        Threads::One,
    );
    let mut row_values = vec![0.0; sizes.keys];
    for (row, scores) in scores.chunks_mut(sizes.keys).enumerate() {
        for (wide, &score) in row_values.iter_mut().zip(scores.iter()) {
            *wide = score.widen();
        }
        let bias = bias.map(|bias| &bias[row * sizes.keys..][..sizes.keys]);
        settings.weigh(row, &mut row_values, bias);
        for (&wide, score) in row_values.iter().zip(scores) {
            *score = T::narrow(wide);
        }
    }
    product(
        Matrix::dense(&scores, sizes.keys),
        Matrix::dense(values, sizes.value_depth),
        sizes.value_depth,
        sizes.keys,
        into,
        Threads::One,
    );
}

fn broadcast_bias(bias: &HostTensor, sizes: &Sizes) -> Vec<f64> {
    let ty = TensorType::new(DType::F64, &sizes.scores());
    to_vec(&super::evaluate::map([bias], &ty, |[value]: [f64; 1]| value))
}

/// The score of the query at `at` with key `key`, minus infinity where it is not seen.
fn tile_score(ctx: &mut TileCtx<'_, '_>, settings: &Settings, key: &Index) -> ExprId {
    let (at, dtype) = (ctx.at, ctx.result.dtype);
    let depth = ctx.extents(0)[3].clone();
    let key_head = key_head(ctx);
    let dot = ctx.reduce(ReduceOp::Sum, &[depth], dtype, |ctx, inner| {
        let q = ctx.read(
            0,
            &[at[0].clone(), at[1].clone(), at[2].clone(), inner[0].clone()],
        );
        let k = ctx.read(
            1,
            &[at[0].clone(), key_head.clone(), key.clone(), inner[0].clone()],
        );
        ctx.body.map("mul", &[q, k], dtype)
    });
    let mut score = tile_scaled(ctx, dot, settings.scale);
    if settings.softcap != 0.0 {
        score = tile_scaled(ctx, score, 1.0 / settings.softcap);
        score = ctx.body.map("tanh", &[score], dtype);
        score = tile_scaled(ctx, score, settings.softcap);
    }
    if ctx.operands.get(3).is_some_and(Option::is_some) {
        let bias = tile_bias(ctx, key);
        score = ctx.body.map("add", &[score, bias], dtype);
    }
    match settings.causal_offset {
        Some(offset) => tile_causal(ctx, score, key, offset),
        None => score,
    }
}

fn key_head(ctx: &TileCtx<'_, '_>) -> Index {
    let repeats = ctx.operand(0).dims()[1] / ctx.operand(1).dims()[1];
    ctx.at[1].div(&Extent::from(repeats), &ctx.body.vars)
}

fn tile_scaled(ctx: &mut TileCtx<'_, '_>, x: ExprId, factor: f64) -> ExprId {
    let dtype = ctx.result.dtype;
    let factor = ctx.body.constant(dtype, factor);
    ctx.body.map("mul", &[x, factor], dtype)
}

fn tile_bias(ctx: &mut TileCtx<'_, '_>, key: &Index) -> ExprId {
    let dims = ctx.operand(3).dims();
    let scores = [
        ctx.at[0].clone(),
        ctx.at[1].clone(),
        ctx.at[2].clone(),
        key.clone(),
    ];
    let coordinates: Vec<Index> = dims
        .iter()
        .zip(&scores[4 - dims.len()..])
        .map(|(&extent, index)| if extent == 1 { Index::zero() } else { index.clone() })
        .collect();
    ctx.read(3, &coordinates)
}

/// `score` where `key <= query + offset`.
fn tile_causal(ctx: &mut TileCtx<'_, '_>, score: ExprId, key: &Index, offset: i64) -> ExprId {
    let hidden = ctx.body.constant(ctx.result.dtype, f64::NEG_INFINITY);
    // How far the key lies back is below queries + offset, whatever the key.
    let reach = i64::try_from(ctx.operand(0).dims()[2]).expect("lengths fit in i64") + offset;
    ctx.body.add(Expr::Select {
        conds: vec![Cond {
            index: ctx.at[2].minus(key).plus_known(offset),
            extent: Extent::known(reach.max(0)),
        }],
        then: score,
        otherwise: hidden,
    })
}

fn tile_attention(ctx: &mut TileCtx<'_, '_>) -> ExprId {
    let settings = Settings::new(ctx.attrs).expect("infer() filled in the attributes");
    let (at, dtype) = (ctx.at, ctx.result.dtype);
    let keys = [ctx.extents(1)[2].clone()];
    let key_head = key_head(ctx);
    let max = ctx.reduce(ReduceOp::Max, &keys, dtype, |ctx, inner| {
        tile_score(ctx, &settings, &inner[0])
    });
    // Where nothing is seen the maximum is minus infinity; shifting by zero then gives weights of zero.
    let hidden = ctx.body.constant(dtype, f64::NEG_INFINITY);
    let zero = ctx.body.constant(dtype, 0.0);
    let nothing = ctx.body.map("equal", &[max, hidden], DType::Bool);
    let shift = ctx.body.map("where", &[nothing, zero, max], dtype);
    let sum = ctx.reduce(ReduceOp::Sum, &keys, dtype, |ctx, inner| {
        tile_weight(ctx, &settings, &inner[0], shift)
    });
    let weighted = ctx.reduce(ReduceOp::Sum, &keys, dtype, |ctx, inner| {
        let weight = tile_weight(ctx, &settings, &inner[0], shift);
        let v = ctx.read(
            2,
            &[at[0].clone(), key_head.clone(), inner[0].clone(), at[3].clone()],
        );
        ctx.body.map("mul", &[weight, v], dtype)
    });
    let result = ctx.body.map("div", &[weighted, sum], dtype);
    ctx.body.map("where", &[nothing, zero, result], dtype)
}

/// `exp(score - shift)` of one key.
fn tile_weight(ctx: &mut TileCtx<'_, '_>, settings: &Settings, key: &Index, shift: ExprId) -> ExprId {
    let dtype = ctx.result.dtype;
    let score = tile_score(ctx, settings, key);
    let shifted = ctx.body.map("sub", &[score, shift], dtype);
    ctx.body.map("exp", &[shifted], dtype)
}

fn draw(seed: u64) -> Option<Sample> {
    let mut draw = Draw::for_seed(seed)?;
    let key_heads = 1 + draw.below(2);
    let (batch, heads) = (1 + draw.below(2), key_heads * (1 + draw.below(2)));
    let (queries, keys) = (1 + draw.below(6), 1 + draw.below(6));
    let (depth, value_depth) = (1 + draw.below(8), 1 + draw.below(8));
    let dtype = float_for(seed);
    let mut operands = vec![
        draw.tensor(dtype, &[batch, heads, queries, depth]),
        draw.tensor(dtype, &[batch, key_heads, keys, depth]),
        draw.tensor(dtype, &[batch, key_heads, keys, value_depth]),
    ];
    if draw.bool() {
        let dims = draw.broadcast_from(&[batch, heads, queries, keys]);
        operands.push(draw_bias(&mut draw, dtype, &dims));
    }
    let attrs = Attrs::new()
        .with("scale", Attr::Float(0.5))
        .with("causal", Attr::Int(draw.int(0, 1)))
        .with("causal_offset", Attr::Int(draw.int(-1, 2)))
        .with("softcap", Attr::Float(draw.pick(&[0.0, 2.0])));
    sample(operands, attrs)
}

/// A bias that hides some keys altogether.
fn draw_bias(draw: &mut Draw, dtype: DType, dims: &[usize]) -> HostTensor {
    let values: Vec<f64> = (0..dims.iter().product::<usize>())
        .map(|_| {
            if draw.below(3) == 0 {
                f64::NEG_INFINITY
            } else {
                draw.float(-1.0, 1.0)
            }
        })
        .collect();
    from_values(dtype, dims, &values)
}
