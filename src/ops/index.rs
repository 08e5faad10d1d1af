//! Elements selected by position or by data: joining, padding, repeating, gathering. ONNX's
//! forms of these ops are in [`super::index_forms`], writing by index in [`super::scatter`].

use super::build::{axis_attr, int_attr, required_attr, str_attr};
use super::evaluate::{one, to_vec};
use super::moves::{self, strides};
use super::samples::{self, Draw, ints_attr};
use super::{
    AttrKind, Datum, EvalCtx, InferCtx, Lowering, OnnxOp, OpDef, OpError, Operands, Reach, Sample, TileKind,
    Tolerance, infer,
};
use crate::ir::{Attr, Attrs, DType, HostTensor, TensorType};
use crate::tile::{Atom, Cond, ExprId, Extent, Index, TileCtx};

/// What gathers have in common.
const GATHER_BASE: OpDef = OpDef {
    name: "",
    onnx: &[],
    operands: Operands::exactly(&["x", "index"]),
    attrs: &[int_attr("axis", 0)],
    infer: infer_gather,
    eval: eval_gather,
    lower: Lowering::Tile(TileKind::Index, tile_gather),
    samples: samples::NONE,
    tolerance: Tolerance::Exact,
    halves: None,
    reach: Reach::Elements,
};

/// The operands one after another along `axis`.
pub static CONCAT: OpDef = OpDef {
    name: "concat",
    operands: Operands::variadic(&["x"]),
    attrs: &[required_attr("axis", AttrKind::Int)],
    infer: infer_concat,
    eval: eval_concat,
    lower: Lowering::Tile(TileKind::Index, tile_concat),
    samples: sample_concat,
    ..GATHER_BASE
};

/// As `concat`, where the operands are written into the result: what computes them stores them
/// there, and those of which that cannot be are copied.
pub static JOIN: OpDef = OpDef {
    name: "join",
    lower: Lowering::Tile(TileKind::Other, tile_concat),
    ..CONCAT
};

/// `x` with `before` and `after` elements more on each axis (fewer where negative). `mode` says
/// what they are: `constant` (the scalar `value`, or zero), `edge`, `reflect` or `wrap`.
pub static PAD: OpDef = OpDef {
    name: "pad",
    operands: Operands::with_optional(&["x"], &["value"]),
    attrs: &[
        required_attr("before", AttrKind::Ints),
        required_attr("after", AttrKind::Ints),
        str_attr("mode", "constant"),
    ],
    infer: infer_pad,
    eval: eval_pad,
    lower: Lowering::Tile(TileKind::Index, tile_pad),
    samples: sample_pad,
    ..GATHER_BASE
};

/// `x` repeated `repeats[n]` times along axis `n`.
pub static TILE: OpDef = OpDef {
    name: "tile",
    operands: Operands::exactly(&["x"]),
    attrs: &[required_attr("repeats", AttrKind::Ints)],
    infer: infer_tile,
    eval: eval_tile,
    lower: Lowering::Tile(TileKind::Index, tile_tile),
    samples: sample_tile,
    ..GATHER_BASE
};

/// Slices of `x` along `axis`, in the order and shape of `index`. Negative indices count from
/// the end; generated code limits others to the axis, the reference refuses them.
pub static GATHER: OpDef = OpDef {
    name: "gather",
    samples: sample_gather,
    ..GATHER_BASE
};

/// Elements of `x` at their own coordinates, but for `axis`, which `index` gives.
pub static GATHER_ELEMENTS: OpDef = OpDef {
    name: "gather_elements",
    infer: infer_gather_elements,
    eval: eval_gather_elements,
    lower: Lowering::Tile(TileKind::Index, tile_gather_elements),
    samples: sample_gather_elements,
    ..GATHER_BASE
};

/// Slices of `x` at the coordinates in the last axis of `index`; the first `batch_dims` axes
/// of both are walked together.
pub static GATHER_ND: OpDef = OpDef {
    name: "gather_nd",
    onnx: &[OnnxOp::new("GatherND")],
    attrs: &[int_attr("batch_dims", 0)],
    infer: infer_gather_nd,
    eval: eval_gather_nd,
    lower: Lowering::Tile(TileKind::Index, tile_gather_nd),
    samples: sample_gather_nd,
    ..GATHER_BASE
};

impl TileCtx<'_, '_> {
    /// The integer in operand `n` at `coordinates` as an index into an axis of `extent`:
    /// negative ones count from the end, and none leaves the axis.
    pub fn read_index(&mut self, n: usize, coordinates: &[Index], extent: usize) -> Index {
        let value = self.read(n, coordinates);
        let dtype = self.body.dtype(value);
        let index = if dtype.is_signed_int() {
            let zero = self.body.constant(dtype, 0.0);
            #[expect(clippy::cast_precision_loss, reason = "extents are below 2^53")]
            let size = self.body.constant(dtype, extent as f64);
            let negative = self.body.map("less", &[value, zero], DType::Bool);
            let from_end = self.body.map("add", &[value, size], dtype);
            self.body.map("where", &[negative, from_end, value], dtype)
        } else {
            value
        };
        Index::atom(Atom::Value(index)).clamped(&Extent::from(extent), &self.body.vars)
    }
}

/// `index` as a position in an axis of `extent`.
///
/// # Errors
/// If it is outside `-extent..extent`.
pub fn checked_index(index: i64, extent: usize) -> Result<usize, OpError> {
    let size = i64::try_from(extent).unwrap_or(i64::MAX);
    let position = if index < 0 { index + size } else { index };
    usize::try_from(position)
        .ok()
        .filter(|&position| position < extent)
        .ok_or_else(|| OpError::invalid(format!("index {index} is outside an axis of extent {extent}")))
}

/// The elements of `index` as positions in an axis of `extent`.
///
/// # Errors
/// If one is outside the axis, or the tensor does not hold integers.
pub fn checked_indices(index: &HostTensor, extent: usize) -> Result<Vec<usize>, OpError> {
    to_vec::<i64>(index)
        .into_iter()
        .map(|index| checked_index(index, extent))
        .collect()
}

fn expect_indices(ctx: &InferCtx<'_>, n: usize) -> Result<(), OpError> {
    infer::expect_kind(ctx.dtype(n)?, "integer indices", DType::is_int)
}

fn infer_concat(ctx: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
    let mut dims = ctx.dims(0)?;
    let axis = infer::axis(ctx.attrs, dims.len())?;
    for n in 1..ctx.operands.len() {
        infer::same_dtype(ctx, 0, n)?;
        let other = ctx.dims(n)?;
        let fits = other.len() == dims.len()
            && (0..dims.len()).all(|position| position == axis || other[position] == dims[position]);
        if !fits {
            return Err(OpError::invalid(format!(
                "dims {dims:?} and {other:?} cannot be joined along axis {axis}"
            )));
        }
        dims[axis] += other[axis];
    }
    Ok(vec![TensorType::new(ctx.dtype(0)?, &dims)])
}

fn eval_concat(ctx: &EvalCtx<'_>) -> Result<Vec<Datum>, OpError> {
    let tensors = (0..ctx.operands.len())
        .map(|n| ctx.tensor(n))
        .collect::<Result<Vec<_>, _>>()?;
    let mut dims = ctx.tensor(0)?.dims().to_vec();
    let axis = infer::axis(ctx.attrs, dims.len())?;
    dims[axis] = tensors.iter().map(|tensor| tensor.dims()[axis]).sum();
    one(moves::concat(&tensors, &dims, axis))
}

/// One selection per operand. The last operand is under a condition too, so that no template
/// can read it out of bounds by evaluating both sides.
fn tile_concat(ctx: &mut TileCtx<'_, '_>) -> ExprId {
    let axis = infer::axis(ctx.attrs, ctx.at.len()).expect("infer() checked `axis`");
    let mut parts = Vec::new();
    let mut offset = 0;
    for n in 0..ctx.operands.len() {
        let extent = ctx.operand(n).dims()[axis];
        if extent == 0 {
            continue;
        }
        let mut coordinates = ctx.at.to_vec();
        coordinates[axis] = coordinates[axis].plus_known(-offset);
        offset += i64::try_from(extent).expect("extents fit in i64");
        let cond = Cond {
            index: coordinates[axis].clone(),
            extent: Extent::from(extent),
        };
        parts.push((cond, ctx.read(n, &coordinates)));
    }
    let nothing = ctx.body.constant(ctx.result.dtype, 0.0);
    parts.into_iter().rev().fold(nothing, |otherwise, (cond, then)| {
        ctx.body.select(vec![cond], then, otherwise)
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PadMode {
    Constant,
    Edge,
    Reflect,
    Wrap,
}

struct Padding {
    mode: PadMode,
    before: Vec<i64>,
    /// Extents of the result.
    dims: Vec<usize>,
}

impl Padding {
    fn read(attrs: &Attrs, dims: &[usize]) -> Result<Self, OpError> {
        let mode = match attrs.str("mode") {
            Some("constant") | None => PadMode::Constant,
            Some("edge") => PadMode::Edge,
            Some("reflect") => PadMode::Reflect,
            Some("wrap") => PadMode::Wrap,
            Some(other) => {
                return Err(OpError::invalid(format!(
                    "attribute `mode` must be `constant`, `edge`, `reflect` or `wrap`, found `{other}`"
                )));
            }
        };
        let (before, after) = (infer::ints(attrs, "before")?, infer::ints(attrs, "after")?);
        if before.len() != dims.len() || after.len() != dims.len() {
            return Err(OpError::invalid(format!(
                "padding of rank {} needs as many entries before and after, found {before:?} and {after:?}",
                dims.len()
            )));
        }
        let padded = (0..dims.len())
            .map(|axis| padded_extent(mode, dims[axis], before[axis], after[axis]))
            .collect::<Result<_, _>>()?;
        Ok(Padding {
            mode,
            before: before.to_vec(),
            dims: padded,
        })
    }

    /// Position in an axis of `extent` that `position` of the result reads; `None` is padding.
    fn source(&self, axis: usize, position: usize, extent: usize) -> Option<usize> {
        let size = i64::try_from(extent).expect("extents fit in i64");
        let position = i64::try_from(position).expect("extents fit in i64") - self.before[axis];
        let source = match self.mode {
            PadMode::Constant => position,
            PadMode::Edge => position.clamp(0, size - 1),
            PadMode::Wrap => position.rem_euclid(size),
            PadMode::Reflect if size == 1 => 0,
            PadMode::Reflect => {
                let turned = position.rem_euclid(2 * (size - 1));
                turned.min(2 * (size - 1) - turned)
            }
        };
        usize::try_from(source).ok().filter(|&source| source < extent)
    }
}

fn padded_extent(mode: PadMode, extent: usize, before: i64, after: i64) -> Result<usize, OpError> {
    let padded = i64::try_from(extent)
        .ok()
        .and_then(|extent| extent.checked_add(before)?.checked_add(after))
        .and_then(|padded| usize::try_from(padded).ok());
    match padded {
        Some(padded) if extent > 0 || padded == 0 || mode == PadMode::Constant => Ok(padded),
        _ => Err(OpError::invalid(format!(
            "an axis of extent {extent} cannot be padded by {before} and {after}"
        ))),
    }
}

fn infer_pad(ctx: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
    ctx.expect_operands(1..=2)?;
    let padding = Padding::read(ctx.attrs, &ctx.dims(0)?)?;
    if let Some(value) = ctx.optional(1) {
        infer::same_dtype(ctx, 0, 1)?;
        if value.n_elements() != 1 {
            return Err(OpError::invalid(format!(
                "a padding value is a scalar, found `{value}`"
            )));
        }
    }
    Ok(vec![TensorType::new(ctx.dtype(0)?, &padding.dims)])
}

fn eval_pad(ctx: &EvalCtx<'_>) -> Result<Vec<Datum>, OpError> {
    let x = ctx.tensor(0)?;
    let padding = Padding::read(ctx.attrs, x.dims())?;
    let sources: Vec<Vec<Option<usize>>> = padding
        .dims
        .iter()
        .zip(x.dims())
        .enumerate()
        .map(|(axis, (&padded, &extent))| {
            (0..padded)
                .map(|position| padding.source(axis, position, extent))
                .collect()
        })
        .collect();
    one(pick_per_axis(x, &sources, ctx.optional_tensor(1)?))
}

/// The tensor whose element at `(i, j, ..)` is `x` at `(sources[0][i], sources[1][j], ..)`,
/// or `fill` where one of these is `None`. Trailing axes that are taken whole move as blocks.
pub fn pick_per_axis(
    x: &HostTensor,
    sources: &[Vec<Option<usize>>],
    fill: Option<&HostTensor>,
) -> HostTensor {
    let dims: Vec<usize> = sources.iter().map(Vec::len).collect();
    let is_whole = |axis: usize| sources[axis].iter().copied().eq((0..x.dims()[axis]).map(Some));
    let whole = (0..dims.len()).rev().take_while(|&axis| is_whole(axis)).count();
    let moved = dims.len() - whole;
    let block: usize = dims[moved..].iter().product();
    let own = strides(&x.dims()[..moved]);
    let pick = |mut position: usize| {
        let mut source = 0;
        for axis in (0..moved).rev() {
            source += sources[axis][position % dims[axis]]? * own[axis];
            position /= dims[axis];
        }
        Some(source)
    };
    moves::blocks(x, &dims, block, pick, fill)
}

fn tile_pad(ctx: &mut TileCtx<'_, '_>) -> ExprId {
    let dims = ctx.operand(0).dims();
    let padding = Padding::read(ctx.attrs, &dims).expect("infer() checked the padding");
    if ctx.result.n_elements() == 0 {
        return ctx.body.constant(ctx.result.dtype, 0.0);
    }
    let mut conds = Vec::new();
    let mut coordinates = Vec::new();
    for (axis, &extent) in dims.iter().enumerate() {
        let position = ctx.at[axis].plus_known(-padding.before[axis]);
        let size = Extent::from(extent);
        if padding.mode == PadMode::Constant {
            conds.push(Cond {
                index: position.clone(),
                extent: size,
            });
            coordinates.push(position);
        } else {
            coordinates.push(inside(padding.mode, &position, &size, ctx));
        }
    }
    if padding.mode != PadMode::Constant {
        return ctx.read(0, &coordinates);
    }
    let otherwise = match ctx.operands.get(1).and_then(Option::as_ref).map(TensorType::rank) {
        Some(rank) => ctx.read(1, &vec![Index::zero(); rank]),
        None => ctx.body.constant(ctx.result.dtype, 0.0),
    };
    if dims.contains(&0) {
        return otherwise;
    }
    let then = ctx.read(0, &coordinates);
    ctx.body.select(conds, then, otherwise)
}

/// `position` brought into `0..size` the way `mode` says.
fn inside(mode: PadMode, position: &Index, size: &Extent, ctx: &TileCtx<'_, '_>) -> Index {
    let vars = &ctx.body.vars;
    match mode {
        PadMode::Constant => position.clone(),
        PadMode::Edge => position.clamped(size, vars),
        PadMode::Wrap => position.modulo(size, vars),
        PadMode::Reflect if size.as_known() == Some(1) => Index::zero(),
        PadMode::Reflect => {
            // Up to `last` and back: m - 2 * max(m - last, 0).
            let last = size.as_known().expect("reflected axes are bound") - 1;
            let turned = position.modulo(&Extent::known(2 * last), vars);
            let beyond = turned.plus_known(-last).clamped(size, vars);
            turned.minus(&beyond.times(&Extent::known(2)))
        }
    }
}

fn repeats(attrs: &Attrs, rank: usize) -> Result<Vec<usize>, OpError> {
    let repeats = infer::sizes(attrs, "repeats")?;
    if repeats.len() == rank {
        return Ok(repeats);
    }
    Err(OpError::invalid(format!(
        "a tensor of rank {rank} needs as many repeats, found {repeats:?}"
    )))
}

fn infer_tile(ctx: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
    ctx.expect_operands(1..=1)?;
    let dims = ctx.dims(0)?;
    let repeats = repeats(ctx.attrs, dims.len())?;
    let dims: Vec<usize> = dims
        .iter()
        .zip(repeats)
        .map(|(extent, times)| extent.saturating_mul(times))
        .collect();
    Ok(vec![TensorType::new(ctx.dtype(0)?, &dims)])
}

fn eval_tile(ctx: &EvalCtx<'_>) -> Result<Vec<Datum>, OpError> {
    let x = ctx.tensor(0)?;
    let repeats = repeats(ctx.attrs, x.dims().len())?;
    let sources: Vec<Vec<Option<usize>>> = x
        .dims()
        .iter()
        .zip(repeats)
        .map(|(&extent, times)| {
            (0..extent * times)
                .map(|position| Some(position % extent))
                .collect()
        })
        .collect();
    one(pick_per_axis(x, &sources, None))
}

fn tile_tile(ctx: &mut TileCtx<'_, '_>) -> ExprId {
    let extents: Vec<usize> = ctx.operand(0).dims();
    let coordinates: Vec<Index> = ctx
        .at
        .iter()
        .zip(extents)
        .map(|(index, extent)| index.modulo(&Extent::from(extent.max(1)), &ctx.body.vars))
        .collect();
    ctx.read(0, &coordinates)
}

fn infer_gather(ctx: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
    ctx.expect_operands(2..=2)?;
    expect_indices(ctx, 1)?;
    let (dims, index) = (ctx.dims(0)?, ctx.dims(1)?);
    let axis = infer::axis(ctx.attrs, dims.len())?;
    let result = [&dims[..axis], &index, &dims[axis + 1..]].concat();
    Ok(vec![TensorType::new(ctx.dtype(0)?, &result)])
}

fn eval_gather(ctx: &EvalCtx<'_>) -> Result<Vec<Datum>, OpError> {
    let (x, index) = (ctx.tensor(0)?, ctx.tensor(1)?);
    let axis = infer::axis(ctx.attrs, x.dims().len())?;
    let extent = x.dims()[axis];
    let positions = checked_indices(index, extent)?;
    let dims = [&x.dims()[..axis], index.dims(), &x.dims()[axis + 1..]].concat();
    let block: usize = x.dims()[axis + 1..].iter().product();
    let count = positions.len();
    let pick = |n: usize| Some(n / count * extent + positions[n % count]);
    one(moves::blocks(x, &dims, block, pick, None))
}

fn tile_gather(ctx: &mut TileCtx<'_, '_>) -> ExprId {
    let dims = ctx.operand(0).dims();
    let axis = infer::axis(ctx.attrs, dims.len()).expect("infer() checked `axis`");
    let rank = ctx.operand(1).rank();
    let at = ctx.at.to_vec();
    let (before, rest) = at.split_at(axis);
    let (own, after) = rest.split_at(rank);
    let picked = ctx.read_index(1, own, dims[axis]);
    let coordinates = [before, &[picked], after].concat();
    ctx.read(0, &coordinates)
}

fn infer_gather_elements(ctx: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
    ctx.expect_operands(2..=2)?;
    expect_indices(ctx, 1)?;
    let (dims, index) = (ctx.dims(0)?, ctx.dims(1)?);
    let axis = infer::axis(ctx.attrs, dims.len())?;
    expect_index_dims(&dims, &index, axis)?;
    Ok(vec![TensorType::new(ctx.dtype(0)?, &index)])
}

/// # Errors
/// If `index` has another rank than `dims`, or is larger on an axis other than `axis`.
pub fn expect_index_dims(dims: &[usize], index: &[usize], axis: usize) -> Result<(), OpError> {
    let fits = dims.len() == index.len()
        && (0..dims.len()).all(|position| position == axis || index[position] <= dims[position]);
    if fits {
        return Ok(());
    }
    Err(OpError::invalid(format!(
        "indices of dims {index:?} do not fit a tensor of dims {dims:?} along axis {axis}"
    )))
}

fn eval_gather_elements(ctx: &EvalCtx<'_>) -> Result<Vec<Datum>, OpError> {
    let (x, index) = (ctx.tensor(0)?, ctx.tensor(1)?);
    let axis = infer::axis(ctx.attrs, x.dims().len())?;
    let positions = checked_indices(index, x.dims()[axis])?;
    let own = strides(x.dims());
    let dims = index.dims();
    let pick = |n: usize| {
        let (mut rest, mut source) = (n, positions[n] * own[axis]);
        for position in (0..dims.len()).rev() {
            if position != axis {
                source += rest % dims[position] * own[position];
            }
            rest /= dims[position];
        }
        Some(source)
    };
    one(moves::blocks(x, dims, 1, pick, None))
}

fn tile_gather_elements(ctx: &mut TileCtx<'_, '_>) -> ExprId {
    let dims = ctx.operand(0).dims();
    let axis = infer::axis(ctx.attrs, dims.len()).expect("infer() checked `axis`");
    let mut coordinates = ctx.at.to_vec();
    coordinates[axis] = ctx.read_index(1, &coordinates, dims[axis]);
    ctx.read(0, &coordinates)
}

/// Shape of a `gather_nd`: how many axes are walked together and how many are indexed.
struct GatherNd {
    batch: usize,
    depth: usize,
}

impl GatherNd {
    fn read(attrs: &Attrs, dims: &[usize], index: &[usize]) -> Result<Self, OpError> {
        let batch = usize::try_from(infer::int(attrs, "batch_dims")?)
            .map_err(|_| OpError::invalid("attribute `batch_dims` is negative"))?;
        let depth = index.last().copied().unwrap_or(0);
        let fits = batch < index.len() && batch + depth <= dims.len() && dims[..batch] == index[..batch];
        if !fits {
            return Err(OpError::invalid(format!(
                "indices of dims {index:?} with {batch} batch axes do not fit a tensor of dims {dims:?}"
            )));
        }
        Ok(GatherNd { batch, depth })
    }
}

fn infer_gather_nd(ctx: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
    ctx.expect_operands(2..=2)?;
    expect_indices(ctx, 1)?;
    let (dims, index) = (ctx.dims(0)?, ctx.dims(1)?);
    let GatherNd { batch, depth } = GatherNd::read(ctx.attrs, &dims, &index)?;
    let result = [&index[..index.len() - 1], &dims[batch + depth..]].concat();
    Ok(vec![TensorType::new(ctx.dtype(0)?, &result)])
}

fn eval_gather_nd(ctx: &EvalCtx<'_>) -> Result<Vec<Datum>, OpError> {
    let (x, index) = (ctx.tensor(0)?, ctx.tensor(1)?);
    let GatherNd { batch, depth } = GatherNd::read(ctx.attrs, x.dims(), index.dims())?;
    let block: usize = x.dims()[batch + depth..].iter().product();
    let own = strides(&x.dims()[..batch + depth]);
    let outer: usize = x.dims()[..batch].iter().product();
    let rows: usize = index.dims()[..index.dims().len() - 1].iter().product();
    let per_batch = rows / outer.max(1);
    let batch_stride: usize = x.dims()[batch..batch + depth].iter().product();
    let coordinates = to_vec::<i64>(index);
    let sources = (0..rows)
        .map(|row| {
            let mut source = row / per_batch * batch_stride;
            for n in 0..depth {
                let position = checked_index(coordinates[row * depth + n], x.dims()[batch + n])?;
                source += position * own[batch + n];
            }
            Ok(source)
        })
        .collect::<Result<Vec<_>, OpError>>()?;
    let dims = [
        &index.dims()[..index.dims().len() - 1],
        &x.dims()[batch + depth..],
    ]
    .concat();
    one(moves::blocks(x, &dims, block, |row| Some(sources[row]), None))
}

fn tile_gather_nd(ctx: &mut TileCtx<'_, '_>) -> ExprId {
    let dims = ctx.operand(0).dims();
    let index = ctx.operand(1).dims();
    let GatherNd { batch, depth } =
        GatherNd::read(ctx.attrs, &dims, &index).expect("infer() checked the indices");
    let at = ctx.at.to_vec();
    let (rows, inner) = at.split_at(index.len() - 1);
    let mut coordinates = rows[..batch].to_vec();
    for n in 0..depth {
        let place = [rows, &[Index::known(i64::try_from(n).expect("ranks are small"))]].concat();
        let picked = ctx.read_index(1, &place, dims[batch + n]);
        coordinates.push(picked);
    }
    coordinates.extend_from_slice(inner);
    ctx.read(0, &coordinates)
}

fn any_kind(seed: u64) -> DType {
    [
        DType::F32,
        DType::I64,
        DType::F16,
        DType::Bool,
        DType::F64,
        DType::U8,
    ][(seed % 6) as usize]
}

fn sample_concat(seed: u64) -> Option<Sample> {
    let mut draw = Draw::for_seed(seed)?;
    let mut dims = draw.dims(1..=4);
    let axis = draw.below(dims.len());
    let operands = (0..=draw.below(4))
        .map(|_| {
            dims[axis] = draw.below(5);
            draw.tensor(any_kind(seed), &dims)
        })
        .collect();
    samples::sample(operands, axis_attr(axis))
}

fn sample_pad(seed: u64) -> Option<Sample> {
    let mut draw = (seed < 12).then(|| Draw::new(seed))?;
    let dims = draw.dims(1..=3);
    let mode = ["constant", "edge", "reflect", "wrap"][(seed % 4) as usize];
    let mut amounts = |low| Attr::Ints(dims.iter().map(|_| draw.int(low, 7)).collect());
    // Axes have at least one element, of which cropping may leave none.
    let attrs = Attrs::new()
        .with("before", amounts(0))
        .with("after", amounts(if seed < 4 { -1 } else { 0 }))
        .with("mode", Attr::Str(mode.to_owned()));
    let x = draw.tensor(any_kind(seed / 2), &dims);
    let mut operands = vec![x];
    if mode == "constant" && seed > 0 {
        operands.push(draw.tensor(any_kind(seed / 2), &[]));
    }
    samples::sample(operands, attrs)
}

fn sample_tile(seed: u64) -> Option<Sample> {
    let mut draw = Draw::for_seed(seed)?;
    let dims = samples::dims_for(&mut draw, seed);
    let repeats: Vec<usize> = dims.iter().map(|_| draw.below(4)).collect();
    let x = draw.tensor(any_kind(seed), &dims);
    samples::sample(vec![x], Attrs::new().with("repeats", ints_attr(&repeats)))
}

/// Indices into an axis of `extent`, from both ends.
pub fn draw_indices(draw: &mut Draw, seed: u64, dims: &[usize], extent: usize) -> HostTensor {
    let extent = i64::try_from(extent).expect("extents fit in i64");
    let dtype = if seed.is_multiple_of(2) {
        DType::I64
    } else {
        DType::I32
    };
    draw.ints(dtype, dims, -extent, extent - 1)
}

fn sample_gather(seed: u64) -> Option<Sample> {
    let mut draw = Draw::for_seed(seed)?;
    let dims = draw.dims(1..=3);
    let axis = draw.below(dims.len());
    let own = samples::dims_for(&mut draw, seed);
    let own = &own[..own.len().min(2)];
    let x = draw.tensor(any_kind(seed), &dims);
    let index = draw_indices(&mut draw, seed, own, dims[axis]);
    samples::sample(vec![x, index], axis_attr(axis))
}

fn sample_gather_elements(seed: u64) -> Option<Sample> {
    let mut draw = Draw::for_seed(seed)?;
    let dims = draw.dims(1..=3);
    let axis = draw.below(dims.len());
    let mut own: Vec<usize> = dims.iter().map(|&extent| 1 + draw.below(extent)).collect();
    own[axis] = draw.below(6);
    let x = draw.tensor(any_kind(seed), &dims);
    let index = draw_indices(&mut draw, seed, &own, dims[axis]);
    samples::sample(vec![x, index], axis_attr(axis))
}

fn sample_gather_nd(seed: u64) -> Option<Sample> {
    let mut draw = Draw::for_seed(seed)?;
    // All extents are equal, so that one range of indices fits every axis.
    let (extent, rank) = (2 + draw.below(3), 2 + draw.below(2));
    let (batch, depth) = (draw.below(2), 1 + draw.below(rank - 1));
    let dims = vec![extent; rank];
    let own = [&dims[..batch], &[3, depth]].concat();
    let x = draw.tensor(any_kind(seed), &dims);
    let index = draw_indices(&mut draw, seed, &own, extent);
    let attrs = Attrs::new().with("batch_dims", Attr::Int(i64::from(batch == 1)));
    samples::sample(vec![x, index], attrs)
}

pub static OPS: &[&OpDef] = &[&CONCAT, &JOIN, &PAD, &TILE, &GATHER, &GATHER_ELEMENTS, &GATHER_ND];
