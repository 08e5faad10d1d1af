//! Pooling over sliding windows; the ONNX forms are in [`super::pool_forms`].

use rayon::prelude::*;

use super::build::{int_attr, required_attr};
use super::evaluate::{Number, from_values, one, to_vec};
use super::lanes::permuted;
use super::reduce::extreme_of;
use super::samples::{Draw, ints_attr, sample};
use super::window::Window;
use super::{
    AttrDef, AttrKind, Datum, EvalCtx, InferCtx, Lowering, OpDef, OpError, Operands, Reach, Sample, TileKind,
    Tolerance, infer,
};
use crate::ir::{Attr, Attrs, DType, HostTensor, TensorType};
use crate::tile::{Cond, ExprId, Extent, Index, ReduceOp, TileCtx};

/// With `ceil_mode`, a last window may hang over the end.
const MAX_ATTRS: &[AttrDef] = &[
    required_attr("kernel_shape", AttrKind::Ints),
    required_attr("strides", AttrKind::Ints),
    required_attr("pads", AttrKind::Ints),
    required_attr("dilations", AttrKind::Ints),
    int_attr("ceil_mode", 0),
];

/// With `count_include_pad`, cells of the padding count as zeros; cells beyond it never count.
const AVERAGE_ATTRS: &[AttrDef] = &[
    MAX_ATTRS[0],
    MAX_ATTRS[1],
    MAX_ATTRS[2],
    MAX_ATTRS[3],
    MAX_ATTRS[4],
    int_attr("count_include_pad", 0),
];

/// The largest cell of each window of `x[n, c, ..]`.
pub static MAX_POOL: OpDef = OpDef {
    name: "max_pool",
    onnx: &[],
    operands: Operands::exactly(&["x"]),
    attrs: MAX_ATTRS,
    infer: |ctx| infer_pool(ctx, false),
    eval: |ctx| pool(ctx, false, max),
    lower: Lowering::Tile(TileKind::Window, |ctx| tile_max(ctx, false)),
    samples: |seed| draw(seed, false, false),
    tolerance: Tolerance::Exact,
    halves: None,
    reach: Reach::Window { first_space: 2 },
};

/// The largest cell of each window of `x[n, h, w, c]`.
pub static MAX_POOL_NHWC: OpDef = OpDef {
    name: "max_pool_nhwc",
    onnx: &[],
    operands: Operands::exactly(&["x"]),
    attrs: MAX_ATTRS,
    infer: |ctx| infer_pool(ctx, true),
    eval: |ctx| pool(ctx, true, max),
    lower: Lowering::Tile(TileKind::Window, |ctx| tile_max(ctx, true)),
    samples: |seed| draw(seed, true, false),
    tolerance: Tolerance::Exact,
    halves: None,
    reach: Reach::Window { first_space: 1 },
};

/// The mean of each window of `x[n, c, ..]`.
pub static AVG_POOL: OpDef = OpDef {
    name: "avg_pool",
    onnx: &[],
    operands: Operands::exactly(&["x"]),
    attrs: AVERAGE_ATTRS,
    infer: |ctx| infer_average(ctx, false),
    eval: |ctx| pool(ctx, false, average),
    lower: Lowering::Tile(TileKind::Window, |ctx| tile_average(ctx, false)),
    samples: |seed| draw(seed, false, true),
    tolerance: Tolerance::Accumulated,
    halves: None,
    reach: Reach::Window { first_space: 2 },
};

/// The mean of each window of `x[n, h, w, c]`.
pub static AVG_POOL_NHWC: OpDef = OpDef {
    name: "avg_pool_nhwc",
    onnx: &[],
    operands: Operands::exactly(&["x"]),
    attrs: AVERAGE_ATTRS,
    infer: |ctx| infer_average(ctx, true),
    eval: |ctx| pool(ctx, true, average),
    lower: Lowering::Tile(TileKind::Window, |ctx| tile_average(ctx, true)),
    samples: |seed| draw(seed, true, true),
    tolerance: Tolerance::Accumulated,
    halves: None,
    reach: Reach::Window { first_space: 1 },
};

pub static OPS: &[&OpDef] = &[&MAX_POOL, &MAX_POOL_NHWC, &AVG_POOL, &AVG_POOL_NHWC];

/// Sizes of a pooling, whatever the order of its axes.
pub struct PoolShape {
    /// Batch and channels.
    pub outer: [usize; 2],
    pub input: Vec<usize>,
    pub output: Vec<usize>,
    pub window: Window,
    /// Whether padding counts in a mean.
    pub counts_padding: bool,
}

impl PoolShape {
    /// Sizes for `x`; `last` says that channels are its last axis.
    ///
    /// # Errors
    /// If the attributes do not fit `x`.
    pub fn new(x: &[usize], attrs: &Attrs, last: bool) -> Result<Self, OpError> {
        let kernel = infer::window_sizes(attrs, "kernel_shape")?;
        if x.len() != kernel.len() + 2 || (last && x.len() != 4) {
            return Err(OpError::invalid(format!("a window of {kernel:?} over {x:?}")));
        }
        let rank = kernel.len();
        let (channel, space) = if last {
            (rank + 1, 1..=rank)
        } else {
            (1, 2..=rank + 1)
        };
        let window = Window::new(attrs, &kernel)?;
        let input = x[space].to_vec();
        Ok(PoolShape {
            outer: [x[0], x[channel]],
            output: window.output(&input, attrs.int("ceil_mode") == Some(1))?,
            input,
            window,
            counts_padding: attrs.int("count_include_pad") == Some(1),
        })
    }

    fn dims(&self, last: bool) -> Vec<usize> {
        let mut dims = vec![self.outer[0]];
        dims.extend(&self.output);
        dims.insert(if last { dims.len() } else { 1 }, self.outer[1]);
        dims
    }

    /// Cells of window `place` along `axis` that count in a mean: start and end.
    fn counted(&self, axis: usize) -> (usize, usize) {
        let begin = self.window.pads_begin[axis];
        if self.counts_padding {
            (0, begin + self.input[axis] + self.window.pads_end[axis])
        } else {
            (begin, begin + self.input[axis])
        }
    }

    /// Number of cells of window `place` along `axis` that count in a mean.
    fn count(&self, axis: usize, place: usize) -> usize {
        let (start, end) = self.counted(axis);
        let first = place * self.window.strides[axis];
        (0..self.window.kernel[axis])
            .map(|cell| first + cell * self.window.dilations[axis])
            .filter(|position| (start..end).contains(position))
            .count()
    }

    /// The input positions each window sees.
    pub fn cells(&self) -> Vec<Vec<usize>> {
        let mut windows = vec![vec![0]];
        for axis in 0..self.input.len() {
            let seen: Vec<Vec<usize>> = (0..self.output[axis])
                .map(|place| self.seen(axis, place))
                .collect();
            windows = windows
                .iter()
                .flat_map(|outer| seen.iter().map(|inner| combined(outer, inner, self.input[axis])))
                .collect();
        }
        windows
    }

    fn seen(&self, axis: usize, place: usize) -> Vec<usize> {
        (0..self.window.kernel[axis])
            .filter_map(|cell| self.window.position(axis, place, cell))
            .filter(|&position| position < self.input[axis])
            .collect()
    }

    /// Numbers of cells that count in the mean of each window.
    fn counts(&self) -> Vec<usize> {
        (0..self.input.len()).fold(vec![1], |counts, axis| {
            counts
                .iter()
                .flat_map(|outer| (0..self.output[axis]).map(move |place| outer * self.count(axis, place)))
                .collect()
        })
    }
}

fn combined(outer: &[usize], inner: &[usize], extent: usize) -> Vec<usize> {
    outer
        .iter()
        .flat_map(|outer| inner.iter().map(move |inner| outer * extent + inner))
        .collect()
}

fn infer_pool(ctx: &InferCtx<'_>, last: bool) -> Result<Vec<TensorType>, OpError> {
    infer::number_unary(ctx)?;
    let shape = PoolShape::new(&ctx.dims(0)?, ctx.attrs, last)?;
    Ok(vec![TensorType::new(ctx.dtype(0)?, &shape.dims(last))])
}

fn infer_average(ctx: &InferCtx<'_>, last: bool) -> Result<Vec<TensorType>, OpError> {
    infer::float_unary(ctx)?;
    infer_pool(ctx, last)
}

/// Reduces the cells of one window (positions in a plane) given how many count.
type Combine = fn(&[f64], &[usize], usize) -> f64;

fn max(plane: &[f64], cells: &[usize], _: usize) -> f64 {
    cells.iter().fold(f64::NEG_INFINITY, |max, &cell| {
        let value = plane[cell];
        if value > max || value.is_nan() { value } else { max }
    })
}

#[expect(clippy::cast_precision_loss, reason = "windows are small")]
fn average(plane: &[f64], cells: &[usize], count: usize) -> f64 {
    cells.iter().map(|&cell| plane[cell]).sum::<f64>() / count as f64
}

fn pool(ctx: &EvalCtx<'_>, last: bool, combine: Combine) -> Result<Vec<Datum>, OpError> {
    let x = ctx.tensor(0)?;
    let shape = PoolShape::new(x.dims(), ctx.attrs, last)?;
    let (cells, counts) = (shape.cells(), shape.counts());
    let values = if last {
        permuted(&to_vec::<f64>(x), x.dims(), &[0, 3, 1, 2])
    } else {
        to_vec(x)
    };
    let n_input: usize = shape.input.iter().product();
    // What a window of nothing but padding holds: integers have no infinity.
    let least = extreme_of(x.dtype(), false);
    let mut results = vec![0.0; shape.outer.iter().product::<usize>() * cells.len()];
    if !results.is_empty() {
        results
            .par_chunks_mut(cells.len())
            .enumerate()
            .for_each(|(number, into)| {
                let plane = &values[number * n_input..][..n_input];
                for ((into, cells), &count) in into.iter_mut().zip(&cells).zip(&counts) {
                    let value = combine(plane, cells, count);
                    *into = if value < least { least } else { value };
                }
            });
    }
    one(result(x.dtype(), &shape, &results, last))
}

fn result<T: Number>(dtype: DType, shape: &PoolShape, values: &[T], last: bool) -> HostTensor {
    if last {
        let values = permuted(values, &shape.dims(false), &[0, 2, 3, 1]);
        return from_values(dtype, &shape.dims(true), &values);
    }
    from_values(dtype, &shape.dims(false), values)
}

fn shape_of(ctx: &TileCtx<'_, '_>, last: bool) -> PoolShape {
    PoolShape::new(&ctx.operand(0).dims(), ctx.attrs, last).expect("infer() checked the window")
}

/// Spatial part of coordinates.
fn space(at: &[Index], last: bool) -> &[Index] {
    if last { &at[1..at.len() - 1] } else { &at[2..] }
}

/// Reduces the cells of the window at the output coordinates, `outside` where there is no input.
fn tile_cells(
    ctx: &mut TileCtx<'_, '_>,
    shape: &PoolShape,
    last: bool,
    op: ReduceOp,
    outside: f64,
) -> ExprId {
    let (at, dtype) = (ctx.at, ctx.result.dtype);
    let input: Vec<Extent> = shape.input.iter().copied().map(Extent::from).collect();
    let kernel: Vec<Extent> = shape.window.kernel.iter().copied().map(Extent::from).collect();
    ctx.reduce(op, &kernel, dtype, |ctx, inner| {
        let (position, conds) = shape.window.indices(space(at, last), inner, &input);
        let mut coordinates = position;
        coordinates.insert(0, at[0].clone());
        let channel = if last { coordinates.len() } else { 1 };
        coordinates.insert(channel, at[if last { at.len() - 1 } else { 1 }].clone());
        let x = ctx.read(0, &coordinates);
        let outside = ctx.body.constant(dtype, outside);
        ctx.body.select(conds, x, outside)
    })
}

fn tile_max(ctx: &mut TileCtx<'_, '_>, last: bool) -> ExprId {
    let shape = shape_of(ctx, last);
    let lowest = extreme_of(ctx.result.dtype, false);
    tile_cells(ctx, &shape, last, ReduceOp::Max, lowest)
}

fn tile_average(ctx: &mut TileCtx<'_, '_>, last: bool) -> ExprId {
    let shape = shape_of(ctx, last);
    let sum = tile_cells(ctx, &shape, last, ReduceOp::Sum, 0.0);
    let count = tile_count(ctx, &shape, last);
    let dtype = ctx.result.dtype;
    ctx.body.map("div", &[sum, count], dtype)
}

/// How many cells of the window count: a product over the axes, each a constant where all
/// windows have as many.
fn tile_count(ctx: &mut TileCtx<'_, '_>, shape: &PoolShape, last: bool) -> ExprId {
    let dtype = ctx.result.dtype;
    let mut constant = 1;
    let mut factors = Vec::new();
    for axis in 0..shape.input.len() {
        let first = shape.count(axis, 0);
        if (1..shape.output[axis]).all(|place| shape.count(axis, place) == first) {
            constant *= first;
        } else {
            factors.push(tile_count_along(ctx, shape, last, axis));
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "windows are small")]
    let constant = ctx.body.constant(dtype, constant as f64);
    factors
        .into_iter()
        .reduce(|a, b| ctx.body.map("mul", &[a, b], dtype))
        .map_or(constant, |product| {
            ctx.body.map("mul", &[product, constant], dtype)
        })
}

fn tile_count_along(ctx: &mut TileCtx<'_, '_>, shape: &PoolShape, last: bool, axis: usize) -> ExprId {
    let dtype = ctx.result.dtype;
    let place = space(ctx.at, last)[axis].clone();
    let (start, end) = shape.counted(axis);
    let kernel = Extent::from(shape.window.kernel[axis]);
    let begin = i64::try_from(start).expect("padding fits in i64")
        - i64::try_from(shape.window.pads_begin[axis]).expect("padding fits in i64");
    ctx.reduce(ReduceOp::Sum, &[kernel], dtype, |ctx, inner| {
        let cond = Cond {
            index: shape.window.index(axis, &place, &inner[0]).plus_known(-begin),
            extent: Extent::from(end - start),
        };
        let (one, zero) = (ctx.body.constant(dtype, 1.0), ctx.body.constant(dtype, 0.0));
        ctx.body.select(vec![cond], one, zero)
    })
}

fn draw(seed: u64, last: bool, average: bool) -> Option<Sample> {
    let mut draw = Draw::for_seed(seed)?;
    let rank = if last || seed == 0 { 2 } else { 1 + draw.below(3) };
    let mut x = vec![1 + draw.below(2)];
    let mut lists: [Vec<usize>; 5] = Default::default();
    for _ in 0..rank {
        let (kernel, dilation) = (1 + draw.below(3), 1 + draw.below(2));
        let span = (kernel - 1) * dilation + 1;
        x.push(span + draw.below(5));
        lists[0].push(kernel);
        lists[1].push(1 + draw.below(3));
        lists[2].push(draw.below(kernel));
        lists[3].push(dilation);
        lists[4].push(draw.below(kernel));
    }
    x.insert(if last { rank + 1 } else { 1 }, 1 + draw.below(3));
    let pads = [lists[2].clone(), lists[4].clone()].concat();
    let mut attrs = Attrs::new()
        .with("kernel_shape", ints_attr(&lists[0]))
        .with("strides", ints_attr(&lists[1]))
        .with("pads", ints_attr(&pads))
        .with("dilations", ints_attr(&lists[3]))
        .with("ceil_mode", Attr::Int(draw.int(0, 1)));
    // A dilated window may lie in the padding alone, where a mean of nothing is not a number.
    if average {
        let counts = draw.int(0, 1);
        attrs = attrs
            .with("count_include_pad", Attr::Int(counts))
            .with("dilations", ints_attr(&vec![1; rank]));
    }
    let dtype = super::samples::float_for(seed);
    sample(vec![draw.tensor(dtype, &x)], attrs)
}
