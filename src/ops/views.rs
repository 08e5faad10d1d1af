//! Views: every element of the result is one element of the operand, at a place that index
//! arithmetic alone finds. ONNX's forms of these ops are in [`super::view_forms`].

use super::build::required_attr;
use super::evaluate::one;
use super::moves::{Strided, strided, strides};
use super::samples::{self, Draw, ints_attr};
use super::{
    AttrDef, AttrKind, Datum, EvalCtx, InferCtx, Lowering, OpDef, OpError, Operands, Reach, Sample, TileKind,
    Tolerance, infer,
};
use crate::ir::{Attr, Attrs, DType, HostTensor, TensorType};
use crate::tile::index::{delinearize, linearize};
use crate::tile::{ExprId, Extent, Index, TileCtx};

const SHAPE: AttrDef = required_attr("shape", AttrKind::Ints);

/// What views have in common.
const VIEW: OpDef = OpDef {
    name: "",
    onnx: &[],
    operands: Operands::exactly(&["x"]),
    attrs: &[],
    infer: infer::same_as_first,
    eval: eval_reshape,
    lower: Lowering::Tile(TileKind::View, tile_reshape),
    samples: samples::NONE,
    tolerance: Tolerance::Exact,
    halves: None,
    reach: Reach::Elements,
};

/// The same elements in row-major order under dims `shape`.
pub static RESHAPE: OpDef = OpDef {
    name: "reshape",
    attrs: &[SHAPE],
    infer: infer_reshape,
    eval: eval_reshape,
    lower: Lowering::Tile(TileKind::View, tile_reshape),
    samples: sample_reshape,
    reach: Reach::Order,
    ..VIEW
};

/// Axis `n` of the result is axis `perm[n]` of the operand.
pub static TRANSPOSE: OpDef = OpDef {
    name: "transpose",
    attrs: &[required_attr("perm", AttrKind::Ints)],
    infer: infer_transpose,
    eval: eval_transpose,
    lower: Lowering::Tile(TileKind::View, tile_transpose),
    samples: sample_transpose,
    ..VIEW
};

/// Every `steps[n]`-th element of axis `n` from `starts[n]` on, before `ends[n]`. There is one
/// entry per axis. Starts lie within their axis (any start where nothing is taken); a step may
/// be negative, and its end may be -1, which means that element 0 is taken too.
pub static SLICE: OpDef = OpDef {
    name: "slice",
    attrs: &[
        required_attr("starts", AttrKind::Ints),
        required_attr("ends", AttrKind::Ints),
        required_attr("steps", AttrKind::Ints),
    ],
    infer: infer_slice,
    eval: eval_slice,
    lower: Lowering::Tile(TileKind::View, tile_slice),
    samples: sample_slice,
    ..VIEW
};

/// The operand repeated to dims `shape`: trailing axes align, extents of one repeat.
pub static EXPAND: OpDef = OpDef {
    name: "expand",
    attrs: &[SHAPE],
    infer: infer_expand,
    eval: eval_expand,
    lower: Lowering::Tile(TileKind::View, |ctx| ctx.read_broadcast(0)),
    samples: sample_expand,
    ..VIEW
};

fn infer_reshape(ctx: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
    ctx.expect_operands(1..=1)?;
    let (dims, shape) = (ctx.dims(0)?, infer::sizes(ctx.attrs, "shape")?);
    let result = TensorType::new(ctx.dtype(0)?, &shape);
    if infer::n_elements(&shape) != infer::n_elements(&dims) {
        return Err(OpError::invalid(format!(
            "a tensor of dims {dims:?} cannot take dims {shape:?}"
        )));
    }
    Ok(vec![result])
}

fn eval_reshape(ctx: &EvalCtx<'_>) -> Result<Vec<Datum>, OpError> {
    one(ctx.tensor(0)?.reshaped(&infer::sizes(ctx.attrs, "shape")?))
}

fn tile_reshape(ctx: &mut TileCtx<'_, '_>) -> ExprId {
    let own = ctx.extents(0);
    let coordinates = if ctx.result.n_elements() == 0 {
        vec![Index::zero(); own.len()]
    } else {
        let shape: Vec<Extent> = ctx.result.dims().into_iter().map(Extent::from).collect();
        delinearize(&linearize(ctx.at, &shape), &own, &ctx.body.vars)
    };
    ctx.read(0, &coordinates)
}

fn permutation(attrs: &Attrs, rank: usize) -> Result<Vec<usize>, OpError> {
    let perm = infer::sizes(attrs, "perm")?;
    let mut sorted = perm.clone();
    sorted.sort_unstable();
    if !sorted.iter().copied().eq(0..rank) {
        return Err(OpError::invalid(format!(
            "attribute `perm` is {perm:?}, not a permutation of {rank} axes"
        )));
    }
    Ok(perm)
}

fn infer_transpose(ctx: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
    ctx.expect_operands(1..=1)?;
    let dims = ctx.dims(0)?;
    let perm = permutation(ctx.attrs, dims.len())?;
    let dims: Vec<usize> = perm.into_iter().map(|axis| dims[axis]).collect();
    Ok(vec![TensorType::new(ctx.dtype(0)?, &dims)])
}

fn eval_transpose(ctx: &EvalCtx<'_>) -> Result<Vec<Datum>, OpError> {
    let x = ctx.tensor(0)?;
    let perm = permutation(ctx.attrs, x.dims().len())?;
    let own = signed_strides(x.dims());
    one(strided(
        x,
        &Strided {
            dims: perm.iter().map(|&axis| x.dims()[axis]).collect(),
            strides: perm.iter().map(|&axis| own[axis]).collect(),
            offset: 0,
        },
    ))
}

fn tile_transpose(ctx: &mut TileCtx<'_, '_>) -> ExprId {
    let perm = infer::sizes(ctx.attrs, "perm").expect("infer() checked `perm`");
    let mut coordinates = vec![Index::zero(); perm.len()];
    for (index, axis) in ctx.at.iter().zip(perm) {
        coordinates[axis] = index.clone();
    }
    ctx.read(0, &coordinates)
}

/// The elements of one axis that a slice takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AxisSlice {
    pub start: i64,
    pub end: i64,
    pub step: i64,
}

impl AxisSlice {
    /// ONNX's reading of start, end and step for an axis of `extent`: negative positions count
    /// from the end, positions outside are limited.
    ///
    /// # Errors
    /// If the step is zero.
    pub fn normalized(self, extent: usize) -> Result<Self, OpError> {
        let extent = i64::try_from(extent).unwrap_or(i64::MAX);
        if self.step == 0 {
            return Err(OpError::invalid("a slice has a step of zero"));
        }
        let from_front = |position: i64| {
            if position < 0 {
                position.saturating_add(extent)
            } else {
                position
            }
        };
        let (start, end) = (from_front(self.start), from_front(self.end));
        if self.step > 0 {
            let (start, end) = (start.clamp(0, extent), end.clamp(0, extent));
            return Ok(AxisSlice { start, end, ..self });
        }
        let start = start.clamp(-1, extent - 1);
        // Starting before the front and going down takes nothing.
        let (start, end) = if start < 0 {
            (0, 0)
        } else {
            (start, end.clamp(-1, extent - 1))
        };
        Ok(AxisSlice { start, end, ..self })
    }

    /// How many elements are taken.
    pub fn count(self) -> usize {
        let span = if self.step > 0 {
            self.end.saturating_sub(self.start)
        } else {
            self.start.saturating_sub(self.end)
        };
        let count = (span.max(0).cast_unsigned()).div_ceil(self.step.unsigned_abs());
        usize::try_from(count).expect("counts are at most an extent")
    }

    /// Whether all elements taken lie within `extent`.
    fn is_within(self, extent: usize) -> bool {
        let Some(last) = self.count().checked_sub(1) else {
            return true;
        };
        let last = i64::try_from(last)
            .ok()
            .and_then(|steps| steps.checked_mul(self.step))
            .and_then(|reach| reach.checked_add(self.start));
        [Some(self.start), last].into_iter().all(|position| {
            position
                .and_then(|position| usize::try_from(position).ok())
                .is_some_and(|position| position < extent)
        })
    }
}

/// The slices of a `slice` op, one per axis.
///
/// # Errors
/// If the attributes do not fit `dims`.
pub fn axis_slices(attrs: &Attrs, dims: &[usize]) -> Result<Vec<AxisSlice>, OpError> {
    let lists = ["starts", "ends", "steps"].map(|name| infer::ints(attrs, name));
    let [starts, ends, steps] = lists;
    let (starts, ends, steps) = (starts?, ends?, steps?);
    if [starts, ends, steps].iter().any(|list| list.len() != dims.len()) {
        return Err(OpError::invalid(format!(
            "a slice of rank {} needs as many starts, ends and steps, found {starts:?}, {ends:?}, {steps:?}",
            dims.len()
        )));
    }
    let slices: Vec<AxisSlice> = (0..dims.len())
        .map(|axis| AxisSlice {
            start: starts[axis],
            end: ends[axis],
            step: steps[axis],
        })
        .collect();
    for (slice, &extent) in slices.iter().zip(dims) {
        if slice.step == 0 || !slice.is_within(extent) {
            return Err(OpError::invalid(format!(
                "slice {}..{} by {} leaves an axis of extent {extent}",
                slice.start, slice.end, slice.step
            )));
        }
    }
    Ok(slices)
}

fn infer_slice(ctx: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
    ctx.expect_operands(1..=1)?;
    let slices = axis_slices(ctx.attrs, &ctx.dims(0)?)?;
    let dims: Vec<usize> = slices.into_iter().map(AxisSlice::count).collect();
    Ok(vec![TensorType::new(ctx.dtype(0)?, &dims)])
}

fn eval_slice(ctx: &EvalCtx<'_>) -> Result<Vec<Datum>, OpError> {
    let x = ctx.tensor(0)?;
    let slices = axis_slices(ctx.attrs, x.dims())?;
    let dims: Vec<usize> = slices.iter().map(|slice| slice.count()).collect();
    if dims.contains(&0) {
        return one(HostTensor::zeros(x.dtype(), &dims));
    }
    let own = signed_strides(x.dims());
    let steps = slices.iter().zip(&own);
    let starts = slices.iter().zip(strides(x.dims()));
    one(strided(
        x,
        &Strided {
            dims,
            strides: steps
                .map(|(slice, stride)| to_isize(slice.step) * stride)
                .collect(),
            offset: starts
                .map(|(slice, stride)| usize::try_from(slice.start).expect("starts are checked") * stride)
                .sum(),
        },
    ))
}

fn tile_slice(ctx: &mut TileCtx<'_, '_>) -> ExprId {
    let slices = axis_slices(ctx.attrs, &ctx.operand(0).dims()).expect("infer() checked the slices");
    let coordinates: Vec<Index> = slices
        .iter()
        .zip(ctx.at)
        .map(|(slice, index)| index.times(&Extent::known(slice.step)).plus_known(slice.start))
        .collect();
    ctx.read(0, &coordinates)
}

fn infer_expand(ctx: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
    ctx.expect_operands(1..=1)?;
    let (dims, shape) = (ctx.dims(0)?, infer::sizes(ctx.attrs, "shape")?);
    if infer::broadcast(&dims, &shape)? != shape {
        return Err(OpError::invalid(format!(
            "dims {dims:?} do not repeat to {shape:?}"
        )));
    }
    Ok(vec![TensorType::new(ctx.dtype(0)?, &shape)])
}

fn eval_expand(ctx: &EvalCtx<'_>) -> Result<Vec<Datum>, OpError> {
    let (x, dims) = (ctx.tensor(0)?, infer::sizes(ctx.attrs, "shape")?);
    let skipped = dims.len() - x.dims().len();
    let own = x.dims().iter().zip(signed_strides(x.dims()));
    let mut strides = vec![0; skipped];
    strides.extend(own.map(|(&extent, stride)| if extent == 1 { 0 } else { stride }));
    one(strided(
        x,
        &Strided {
            dims,
            strides,
            offset: 0,
        },
    ))
}

/// The slice of `x` at `position` of `axis`, without that axis.
///
/// # Panics
/// If it is outside.
pub fn axis_pick(x: &HostTensor, axis: usize, position: usize) -> HostTensor {
    let mut strides = signed_strides(x.dims());
    let offset = position * strides.remove(axis).unsigned_abs();
    let mut dims = x.dims().to_vec();
    dims.remove(axis);
    let layout = Strided {
        dims,
        strides,
        offset,
    };
    strided(x, &layout)
}

fn signed_strides(dims: &[usize]) -> Vec<isize> {
    strides(dims)
        .into_iter()
        .map(|stride| isize::try_from(stride).expect("tensors fit in memory"))
        .collect()
}

fn to_isize(value: i64) -> isize {
    isize::try_from(value).expect("slices stay within their axis")
}

fn any_operand(seed: u64) -> Option<(Draw, HostTensor)> {
    let mut draw = Draw::for_seed(seed)?;
    let dims = samples::dims_for(&mut draw, seed);
    let dtype = [
        DType::F32,
        DType::I64,
        DType::F16,
        DType::Bool,
        DType::F64,
        DType::U8,
    ];
    let x = draw.tensor(dtype[(seed % 6) as usize], &dims);
    Some((draw, x))
}

/// Splits and joins axes at random.
fn sample_reshape(seed: u64) -> Option<Sample> {
    let (mut draw, x) = any_operand(seed)?;
    let mut shape: Vec<usize> = Vec::new();
    let mut joined = 1;
    for &extent in x.dims() {
        joined *= extent;
        if draw.bool() {
            let divisor = [2, 3, 1][draw.below(3)];
            if joined % divisor == 0 && joined > 0 {
                shape.push(divisor);
                joined /= divisor;
            }
            shape.push(joined);
            joined = 1;
        }
    }
    shape.push(joined);
    samples::sample(vec![x], Attrs::new().with("shape", ints_attr(&shape)))
}

fn sample_transpose(seed: u64) -> Option<Sample> {
    let (mut draw, x) = any_operand(seed)?;
    let mut perm: Vec<usize> = (0..x.dims().len()).collect();
    for position in (1..perm.len()).rev() {
        perm.swap(position, draw.below(position + 1));
    }
    samples::sample(vec![x], Attrs::new().with("perm", ints_attr(&perm)))
}

fn sample_slice(seed: u64) -> Option<Sample> {
    let (mut draw, x) = any_operand(seed)?;
    let slices: Vec<AxisSlice> = x
        .dims()
        .iter()
        .map(|&extent| {
            AxisSlice {
                start: draw.int(-6, 6),
                end: draw.int(-6, 9),
                step: draw.pick(&[1, 1, 2, -1, -2]),
            }
            .normalized(extent)
        })
        .collect::<Result<_, _>>()
        .ok()?;
    samples::sample(vec![x], slice_attrs(&slices))
}

/// The attributes of a `slice` op.
pub fn slice_attrs(slices: &[AxisSlice]) -> Attrs {
    let list = |field: fn(&AxisSlice) -> i64| Attr::Ints(slices.iter().map(field).collect());
    Attrs::new()
        .with("starts", list(|slice| slice.start))
        .with("ends", list(|slice| slice.end))
        .with("steps", list(|slice| slice.step))
}

fn sample_expand(seed: u64) -> Option<Sample> {
    let (mut draw, x) = any_operand(seed)?;
    let shape = x.dims().to_vec();
    let dims = draw.broadcast_from(&shape);
    let x = draw.tensor(x.dtype(), &dims);
    samples::sample(vec![x], Attrs::new().with("shape", ints_attr(&shape)))
}

pub static OPS: &[&OpDef] = &[&RESHAPE, &TRANSPOSE, &SLICE, &EXPAND];

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(start: i64, end: i64, step: i64, extent: usize) -> Vec<i64> {
        let slice = AxisSlice { start, end, step }.normalized(extent).unwrap();
        assert!(slice.is_within(extent));
        let count = i64::try_from(slice.count()).unwrap();
        (0..count).map(|n| slice.start + n * slice.step).collect()
    }

    #[test]
    fn slices_count_from_both_ends() {
        assert_eq!(taken(1, -1, 1, 5), [1, 2, 3]);
        assert_eq!(taken(-1, i64::MIN, -2, 5), [4, 2, 0]);
        assert_eq!(taken(20, 0, -4, 20), [19, 15, 11, 7, 3]);
        assert_eq!(taken(-100, i64::MAX, 2, 3), [0, 2]);
        assert_eq!(taken(-9, i64::MIN, -1, 3), [0i64; 0]);
        assert_eq!(taken(0, 3, 1, 0), [0i64; 0]);
        assert_eq!(taken(-1, i64::MIN, -1, 0), [0i64; 0]);
    }
}
