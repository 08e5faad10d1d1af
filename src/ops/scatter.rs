//! Writing by index. Generated code has no writes to other places: each element asks which
//! updates name it, which is right everywhere and slow where there are many.

use super::arithmetic_forms::FORM;
use super::build::{int_attr, str_attr};
use super::evaluate::{from_values, one, to_vec};
use super::index::{checked_index, checked_indices, draw_indices, expect_index_dims};
use super::moves::strides;
use super::samples::{self, Draw};
use super::{
    AttrDef, Datum, EvalCtx, ExpandCtx, InferCtx, Lowering, OnnxOp, OpDef, OpError, Operands, Reach, Sample,
    TileKind, Tolerance, infer,
};
use crate::ir::{Attr, Attrs, DType, HostTensor, TensorType, ValueId};
use crate::tile::index::delinearize;
use crate::tile::{Atom, Cond, Expr, ExprId, Extent, Index, ReduceOp, TileCtx};

/// How updates of one element meet.
pub const REDUCTION: AttrDef = str_attr("reduction", "none");

/// What scatters have in common.
const SCATTER: OpDef = OpDef {
    name: "",
    onnx: &[],
    operands: Operands::exactly(&["x", "index", "updates"]),
    attrs: &[int_attr("axis", 0), REDUCTION],
    infer: infer_elements,
    eval: eval_elements,
    lower: Lowering::Tile(TileKind::Other, tile_elements),
    samples: sample_elements,
    tolerance: Tolerance::Accumulated,
    halves: None,
    reach: Reach::Elements,
};

/// `x` with `updates` written at their own coordinates, but for `axis`, which `index` gives.
/// Where several meet, the last one wins, or all are combined as `reduction` says.
pub static SCATTER_ELEMENTS: OpDef = OpDef {
    name: "scatter_elements",
    ..SCATTER
};

/// `x` with slices of `updates` written at the coordinates in the last axis of `index`.
pub static SCATTER_ND: OpDef = OpDef {
    name: "scatter_nd",
    attrs: &[REDUCTION],
    infer: infer_nd,
    eval: eval_nd,
    lower: Lowering::Tile(TileKind::Other, tile_nd),
    samples: sample_nd,
    ..SCATTER
};

/// `TensorScatter`: a cache with the tokens of one call written behind those it holds.
pub static TENSOR_SCATTER: OpDef = OpDef {
    name: "TensorScatter",
    onnx: &[OnnxOp::new("TensorScatter")],
    operands: Operands::with_optional(&["past_cache", "update"], &["write_indices"]),
    attrs: &[int_attr("axis", -2), str_attr("mode", "linear")],
    lower: Lowering::Expand(expand_tensor_scatter),
    ..FORM
};

/// Each place asks whether a token was written to it: that at its distance from the start.
fn expand_tensor_scatter(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let (cache, update) = (ctx.value(0)?, ctx.value(1)?);
    let (dims, own) = (ctx.dims_of(cache), ctx.dims_of(update));
    let axis = infer::axis(ctx.attrs, dims.len())?;
    let fits = axis > 0
        && own.len() == dims.len()
        && (0..dims.len()).all(|n| {
            if n == axis {
                own[n] <= dims[n]
            } else {
                own[n] == dims[n]
            }
        });
    let circular = match ctx.attrs.str("mode") {
        Some("linear") => false,
        Some("circular") => true,
        _ => {
            return Err(OpError::invalid(
                "attribute `mode` must be `linear` or `circular`",
            ));
        }
    };
    if !fits {
        return Err(OpError::invalid(format!(
            "an update of dims {own:?} of a cache of dims {dims:?} along axis {axis}"
        )));
    }
    if own.contains(&0) {
        return Ok(vec![cache]);
    }
    let signed = |extent: usize| i64::try_from(extent).expect("extents fit in i64");
    let mut along = vec![1; dims.len()];
    along[axis] = dims[axis];
    let places: Vec<i64> = (0..).take(dims[axis]).collect();
    let mut token = ctx.integers(&along, &places);
    if let Some(start) = ctx.optional(2) {
        let mut per_sample = vec![1; dims.len()];
        per_sample[0] = dims[0];
        let start = ctx.cast(start, DType::I64)?;
        let start = ctx.reshape(start, &per_sample)?;
        token = ctx.binary("sub", token, start)?;
    }
    let zero = ctx.integers(&[], &[0]);
    if circular {
        let extent = ctx.integers(&[], &[signed(dims[axis])]);
        token = ctx.binary("mod_floor", token, extent)?;
    }
    let count = ctx.integers(&[], &[signed(own[axis])]);
    let (from, to) = (
        ctx.binary("greater_equal", token, zero)?,
        ctx.binary("less", token, count)?,
    );
    let written = ctx.binary("and", from, to)?;
    let token = ctx.select(written, token, zero)?;
    let token = ctx.expand(token, &dims)?;
    let update = ctx.gathered("gather_elements", update, token, axis)?;
    Ok(vec![ctx.select(written, update, cache)?])
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reduction {
    Last,
    Add,
    Mul,
    Max,
    Min,
}

impl Reduction {
    fn read(attrs: &Attrs) -> Result<Self, OpError> {
        Ok(match attrs.str("reduction") {
            Some("none") | None => Reduction::Last,
            Some("add") => Reduction::Add,
            Some("mul") => Reduction::Mul,
            Some("max") => Reduction::Max,
            Some("min") => Reduction::Min,
            Some(other) => {
                return Err(OpError::invalid(format!(
                    "attribute `reduction` must be `none`, `add`, `mul`, `max` or `min`, found `{other}`"
                )));
            }
        })
    }

    fn float(self, a: f64, b: f64) -> f64 {
        match self {
            Reduction::Add => a + b,
            Reduction::Mul => a * b,
            Reduction::Max if a.is_nan() || a > b => a,
            Reduction::Min if a.is_nan() || a < b => a,
            Reduction::Last | Reduction::Max | Reduction::Min => b,
        }
    }

    fn int(self, a: i64, b: i64) -> i64 {
        match self {
            Reduction::Last => b,
            Reduction::Add => a.wrapping_add(b),
            Reduction::Mul => a.wrapping_mul(b),
            Reduction::Max => a.max(b),
            Reduction::Min => a.min(b),
        }
    }

    /// The map that combines two values, and the reduction over many.
    fn ops(self) -> Option<(&'static str, ReduceOp)> {
        match self {
            Reduction::Last => None,
            Reduction::Add => Some(("add", ReduceOp::Sum)),
            Reduction::Mul => Some(("mul", ReduceOp::Prod)),
            Reduction::Max => Some(("max", ReduceOp::Max)),
            Reduction::Min => Some(("min", ReduceOp::Min)),
        }
    }
}

fn infer_elements(ctx: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
    ctx.expect_operands(3..=3)?;
    Reduction::read(ctx.attrs)?;
    let (dims, index, updates) = (ctx.dims(0)?, ctx.dims(1)?, ctx.dims(2)?);
    infer::expect_kind(ctx.dtype(1)?, "integer indices", DType::is_int)?;
    infer::same_dtype(ctx, 0, 2)?;
    let axis = infer::axis(ctx.attrs, dims.len())?;
    expect_index_dims(&dims, &index, axis)?;
    if index != updates {
        return Err(OpError::invalid(format!(
            "updates of dims {updates:?} do not fit indices of dims {index:?}"
        )));
    }
    Ok(vec![ctx.ty(0)?.clone()])
}

fn infer_nd(ctx: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
    ctx.expect_operands(3..=3)?;
    Reduction::read(ctx.attrs)?;
    let (dims, index, updates) = (ctx.dims(0)?, ctx.dims(1)?, ctx.dims(2)?);
    infer::expect_kind(ctx.dtype(1)?, "integer indices", DType::is_int)?;
    infer::same_dtype(ctx, 0, 2)?;
    let depth = index.last().copied().unwrap_or(usize::MAX);
    let fits = depth <= dims.len() && updates == [&index[..index.len() - 1], &dims[depth..]].concat();
    if !fits {
        return Err(OpError::invalid(format!(
            "indices of dims {index:?} and updates of dims {updates:?} do not fit a tensor of dims {dims:?}"
        )));
    }
    Ok(vec![ctx.ty(0)?.clone()])
}

/// Writes update `n` to element `places[n]`.
fn write(
    x: &HostTensor,
    places: &[usize],
    updates: &HostTensor,
    reduction: Reduction,
) -> Result<Vec<Datum>, OpError> {
    one(if x.dtype().is_float() {
        let mut values = to_vec::<f64>(x);
        for (&place, update) in places.iter().zip(to_vec::<f64>(updates)) {
            values[place] = reduction.float(values[place], update);
        }
        from_values(x.dtype(), x.dims(), &values)
    } else {
        let mut values = to_vec::<i64>(x);
        for (&place, update) in places.iter().zip(to_vec::<i64>(updates)) {
            values[place] = reduction.int(values[place], update);
        }
        from_values(x.dtype(), x.dims(), &values)
    })
}

fn eval_elements(ctx: &EvalCtx<'_>) -> Result<Vec<Datum>, OpError> {
    let (x, index, updates) = (ctx.tensor(0)?, ctx.tensor(1)?, ctx.tensor(2)?);
    let axis = infer::axis(ctx.attrs, x.dims().len())?;
    let positions = checked_indices(index, x.dims()[axis])?;
    let own = strides(x.dims());
    let places: Vec<usize> = (0..positions.len())
        .map(|n| {
            let (mut rest, mut place) = (n, positions[n] * own[axis]);
            for position in (0..own.len()).rev() {
                if position != axis {
                    place += rest % index.dims()[position] * own[position];
                }
                rest /= index.dims()[position];
            }
            place
        })
        .collect();
    write(x, &places, updates, Reduction::read(ctx.attrs)?)
}

fn eval_nd(ctx: &EvalCtx<'_>) -> Result<Vec<Datum>, OpError> {
    let (x, index, updates) = (ctx.tensor(0)?, ctx.tensor(1)?, ctx.tensor(2)?);
    let (&depth, rows) = index
        .dims()
        .split_last()
        .ok_or_else(|| OpError::invalid("indices must have an axis"))?;
    let n_rows: usize = rows.iter().product();
    let block: usize = x.dims()[depth..].iter().product();
    let own = strides(x.dims());
    let coordinates = to_vec::<i64>(index);
    let mut places = Vec::with_capacity(n_rows * block);
    for row in 0..n_rows {
        let mut base = 0;
        for n in 0..depth {
            base += checked_index(coordinates[row * depth + n], x.dims()[n])? * own[n];
        }
        places.extend(base..base + block);
    }
    write(x, &places, updates, Reduction::read(ctx.attrs)?)
}

/// One place an update may come from.
struct Candidate {
    /// Whether it names the wanted element.
    matches: ExprId,
    /// Where its coordinates must lie for it to exist.
    conds: Vec<Cond>,
}

/// Combines `x` with the updates that match: `updates` coordinates and the candidate at number
/// `n` of `count` are what `candidate(n)` says.
fn tile_combined(
    ctx: &mut TileCtx<'_, '_>,
    count: usize,
    candidate: &dyn Fn(&mut TileCtx<'_, '_>, &Index) -> (Vec<Index>, Candidate),
) -> ExprId {
    let at = ctx.at.to_vec();
    let x = ctx.read(0, &at);
    if count == 0 {
        return x;
    }
    let extent = Extent::from(count);
    let dtype = ctx.result.dtype;
    let reduction = Reduction::read(ctx.attrs).expect("infer() checked `reduction`");
    let Some((combine, reduce)) = reduction.ops() else {
        return tile_last(ctx, x, &extent, candidate);
    };
    let neutral = match reduction {
        Reduction::Add => ctx.body.constant(dtype, 0.0),
        Reduction::Mul => ctx.body.constant(dtype, 1.0),
        // Comparing `x` with itself changes nothing.
        Reduction::Max | Reduction::Min | Reduction::Last => x,
    };
    let combined = ctx.reduce(reduce, &[extent], dtype, |ctx, n| {
        let (coordinates, Candidate { matches, conds }) = candidate(ctx, &n[0]);
        let update = ctx.read(2, &coordinates);
        let term = ctx.body.map("where", &[matches, update, neutral], dtype);
        ctx.body.select(conds, term, neutral)
    });
    ctx.body.map(combine, &[x, combined], dtype)
}

/// The last update that matches, else `x`.
fn tile_last(
    ctx: &mut TileCtx<'_, '_>,
    x: ExprId,
    extent: &Extent,
    candidate: &dyn Fn(&mut TileCtx<'_, '_>, &Index) -> (Vec<Index>, Candidate),
) -> ExprId {
    let none = ctx.body.constant(DType::I64, -1.0);
    let last = ctx.reduce(
        ReduceOp::Max,
        std::slice::from_ref(extent),
        DType::I64,
        |ctx, n| {
            let (_, Candidate { matches, conds }) = candidate(ctx, &n[0]);
            let number = ctx.body.add(Expr::IndexValue(n[0].clone()));
            let term = ctx.body.map("where", &[matches, number, none], DType::I64);
            ctx.body.select(conds, term, none)
        },
    );
    let last = Index::atom(Atom::Value(last));
    let cond = Cond {
        index: last.clone(),
        extent: extent.clone(),
    };
    let (coordinates, Candidate { conds, .. }) = candidate(ctx, &last.clamped(extent, &ctx.body.vars));
    let update = ctx.read(2, &coordinates);
    let conds = [conds, vec![cond]].concat();
    ctx.body.select(conds, update, x)
}

fn tile_elements(ctx: &mut TileCtx<'_, '_>) -> ExprId {
    let dims = ctx.operand(0).dims();
    let index = ctx.operand(1).dims();
    let axis = infer::axis(ctx.attrs, dims.len()).expect("infer() checked `axis`");
    let count = if index.contains(&0) { 0 } else { index[axis] };
    tile_combined(ctx, count, &|ctx, n| {
        let mut coordinates = ctx.at.to_vec();
        coordinates[axis] = n.clone();
        let conds = (0..dims.len())
            .filter(|&own| own != axis)
            .map(|own| Cond {
                index: coordinates[own].clone(),
                extent: Extent::from(index[own]),
            })
            .collect();
        let place = ctx.read_index(1, &coordinates, dims[axis]);
        let matches = same(ctx, place, ctx.at[axis].clone());
        (coordinates, Candidate { matches, conds })
    })
}

fn tile_nd(ctx: &mut TileCtx<'_, '_>) -> ExprId {
    let dims = ctx.operand(0).dims();
    let index = ctx.operand(1).dims();
    let (&depth, rows) = index.split_last().expect("infer() checked the indices");
    let extents: Vec<Extent> = rows.iter().copied().map(Extent::from).collect();
    tile_combined(ctx, rows.iter().product(), &|ctx, n| {
        let row = delinearize(n, &extents, &ctx.body.vars);
        let mut matches = ctx.body.constant(DType::Bool, 1.0);
        for (own, &extent) in dims.iter().enumerate().take(depth) {
            let number = Index::known(i64::try_from(own).expect("ranks are small"));
            let place = ctx.read_index(1, &[&row[..], &[number]].concat(), extent);
            let here = same(ctx, place, ctx.at[own].clone());
            matches = ctx.body.map("and", &[matches, here], DType::Bool);
        }
        let coordinates = [&row[..], &ctx.at[depth..]].concat();
        let conds = Vec::new();
        (coordinates, Candidate { matches, conds })
    })
}

fn same(ctx: &mut TileCtx<'_, '_>, a: Index, b: Index) -> ExprId {
    let (a, b) = (
        ctx.body.add(Expr::IndexValue(a)),
        ctx.body.add(Expr::IndexValue(b)),
    );
    ctx.body.map("equal", &[a, b], DType::Bool)
}

fn reduction_for(seed: u64) -> (DType, Attrs) {
    let (dtype, reduction) = [
        (DType::F32, "none"),
        (DType::I64, "none"),
        (DType::F32, "add"),
        (DType::I32, "mul"),
        (DType::F16, "max"),
        (DType::F64, "min"),
    ][(seed % 6) as usize];
    let attrs = Attrs::new().with("reduction", Attr::Str(reduction.to_owned()));
    (dtype, attrs)
}

fn sample_elements(seed: u64) -> Option<Sample> {
    let mut draw = Draw::for_seed(seed)?;
    let dims = draw.dims(1..=3);
    let axis = draw.below(dims.len());
    let mut own: Vec<usize> = dims.iter().map(|&extent| 1 + draw.below(extent)).collect();
    own[axis] = draw.below(6);
    let (dtype, attrs) = reduction_for(seed);
    let x = draw.tensor(dtype, &dims);
    let index = draw_indices(&mut draw, seed, &own, dims[axis]);
    let updates = draw.tensor(dtype, &own);
    let axis = Attr::Int(i64::try_from(axis).expect("ranks are small"));
    samples::sample(vec![x, index, updates], attrs.with("axis", axis))
}

fn sample_nd(seed: u64) -> Option<Sample> {
    let mut draw = Draw::for_seed(seed)?;
    // All extents are equal, so that one range of indices fits every axis.
    let (extent, rank) = (2 + draw.below(2), 1 + draw.below(3));
    let depth = 1 + draw.below(rank);
    let dims = vec![extent; rank];
    let rows = [draw.below(4), 2];
    let (dtype, attrs) = reduction_for(seed);
    let x = draw.tensor(dtype, &dims);
    let index = draw_indices(&mut draw, seed, &[&rows[..], &[depth]].concat(), extent);
    let updates = draw.tensor(dtype, &[&rows[..], &dims[depth..]].concat());
    samples::sample(vec![x, index, updates], attrs)
}

pub static OPS: &[&OpDef] = &[&SCATTER_ELEMENTS, &SCATTER_ND, &TENSOR_SCATTER];
