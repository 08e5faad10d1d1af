//! ONNX's poolings.

use super::build::{FORM, float_attr, int_attr, optional_attr, required_attr, str_attr};
use super::evaluate::{from_values, one, to_vec};
use super::lanes::strides;
use super::pool::PoolShape;
use super::samples::{self, ints_attr};
use super::window::Window;
use super::{
    AttrKind, Datum, EvalCtx, ExpandCtx, Lowering, OnnxOp, OpDef, OpError, Operands, Reach, Tolerance, infer,
};
use crate::ir::{Attr, Attrs, DType, TensorType, ValueId};

/// The largest cell of each window, and on request its position.
pub static MAX_POOL: OpDef = OpDef {
    name: "MaxPool",
    onnx: &[OnnxOp::new("MaxPool")],
    attrs: &[
        str_attr("auto_pad", "NOTSET"),
        int_attr("ceil_mode", 0),
        optional_attr("dilations", AttrKind::Ints),
        required_attr("kernel_shape", AttrKind::Ints),
        optional_attr("pads", AttrKind::Ints),
        int_attr("storage_order", 0),
        optional_attr("strides", AttrKind::Ints),
    ],
    lower: Lowering::Expand(max_pool),
    ..FORM
};

/// The mean of each window.
pub static AVERAGE_POOL: OpDef = OpDef {
    name: "AveragePool",
    onnx: &[OnnxOp::new("AveragePool")],
    attrs: &[
        str_attr("auto_pad", "NOTSET"),
        int_attr("ceil_mode", 0),
        int_attr("count_include_pad", 0),
        optional_attr("dilations", AttrKind::Ints),
        required_attr("kernel_shape", AttrKind::Ints),
        optional_attr("pads", AttrKind::Ints),
        optional_attr("strides", AttrKind::Ints),
    ],
    lower: Lowering::Expand(|ctx| {
        let x = ctx.value(0)?;
        let (_, attrs) = window(ctx, x)?;
        let counts = infer::int(ctx.attrs, "count_include_pad")?;
        Ok(vec![ctx.emit(
            "avg_pool",
            &[x],
            attrs.with("count_include_pad", Attr::Int(counts)),
        )?])
    }),
    ..FORM
};

/// The p-norm of each window.
pub static LP_POOL: OpDef = OpDef {
    name: "LpPool",
    onnx: &[OnnxOp::new("LpPool")],
    attrs: &[
        str_attr("auto_pad", "NOTSET"),
        int_attr("ceil_mode", 0),
        optional_attr("dilations", AttrKind::Ints),
        required_attr("kernel_shape", AttrKind::Ints),
        int_attr("p", 2),
        optional_attr("pads", AttrKind::Ints),
        optional_attr("strides", AttrKind::Ints),
    ],
    lower: Lowering::Expand(lp_pool),
    ..FORM
};

/// The mean of each channel.
pub static GLOBAL_AVERAGE_POOL: OpDef = OpDef {
    name: "GlobalAveragePool",
    onnx: &[OnnxOp::new("GlobalAveragePool")],
    lower: Lowering::Expand(|ctx| global(ctx, |ctx, x, axes| ctx.reduce("reduce_mean", x, axes))),
    ..FORM
};

/// The largest cell of each channel.
pub static GLOBAL_MAX_POOL: OpDef = OpDef {
    name: "GlobalMaxPool",
    onnx: &[OnnxOp::new("GlobalMaxPool")],
    lower: Lowering::Expand(|ctx| global(ctx, |ctx, x, axes| ctx.reduce("reduce_max", x, axes))),
    ..FORM
};

/// The p-norm of each channel.
pub static GLOBAL_LP_POOL: OpDef = OpDef {
    name: "GlobalLpPool",
    onnx: &[OnnxOp::new("GlobalLpPool")],
    attrs: &[float_attr("p", 2.0)],
    lower: Lowering::Expand(|ctx| {
        global(ctx, |ctx, x, axes| {
            let powers = powers(ctx, x)?;
            let sum = ctx.reduce("reduce_sum", powers, axes)?;
            root(ctx, sum)
        })
    }),
    ..FORM
};

/// Position of the largest cell of each window in the whole of `x`, the first one where several
/// are equal. `storage_order` 1 counts positions with the first spatial axis fastest.
pub static MAX_POOL_INDICES: OpDef = OpDef {
    name: "max_pool_indices",
    onnx: &[],
    operands: Operands::exactly(&["x"]),
    attrs: &[
        required_attr("kernel_shape", AttrKind::Ints),
        required_attr("strides", AttrKind::Ints),
        required_attr("pads", AttrKind::Ints),
        required_attr("dilations", AttrKind::Ints),
        int_attr("ceil_mode", 0),
        int_attr("storage_order", 0),
    ],
    infer: |ctx| {
        infer::number_unary(ctx)?;
        let dims = ctx.dims(0)?;
        let shape = PoolShape::new(&dims, ctx.attrs, false)?;
        let dims = [&shape.outer[..], &shape.output].concat();
        Ok(vec![TensorType::new(DType::I64, &dims)])
    },
    eval: max_pool_indices,
    lower: Lowering::Host("positions of the largest cells of a pooling"),
    samples: samples::NONE,
    tolerance: Tolerance::Exact,
    halves: None,
    reach: Reach::Elements,
};

pub static OPS: &[&OpDef] = &[
    &MAX_POOL,
    &AVERAGE_POOL,
    &LP_POOL,
    &GLOBAL_AVERAGE_POOL,
    &GLOBAL_MAX_POOL,
    &GLOBAL_LP_POOL,
    &MAX_POOL_INDICES,
];

/// The window this node describes, and the attributes of a core pooling with it.
fn window(ctx: &ExpandCtx<'_>, x: ValueId) -> Result<(Window, Attrs), OpError> {
    let dims = ctx.dims_of(x);
    let kernel = infer::sizes(ctx.attrs, "kernel_shape")?;
    if dims.len() != kernel.len() + 2 {
        return Err(OpError::invalid(format!("a window of {kernel:?} over {dims:?}")));
    }
    let window = Window::from_onnx(ctx.attrs, &kernel, &dims[2..])?;
    let attrs = window
        .attrs()
        .with("kernel_shape", ints_attr(&kernel))
        .with("ceil_mode", Attr::Int(infer::int(ctx.attrs, "ceil_mode")?));
    Ok((window, attrs))
}

fn max_pool(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let x = ctx.value(0)?;
    let (_, attrs) = window(ctx, x)?;
    let mut results = vec![ctx.emit("max_pool", &[x], attrs.clone())?];
    if ctx.n_results > 1 {
        let order = infer::int(ctx.attrs, "storage_order")?;
        let attrs = attrs.with("storage_order", Attr::Int(order));
        results.push(ctx.emit("max_pool_indices", &[x], attrs)?);
    }
    Ok(results)
}

/// `|x| ^ p`.
fn powers(ctx: &mut ExpandCtx<'_>, x: ValueId) -> Result<ValueId, OpError> {
    let p = infer::float(ctx.attrs, "p")?;
    let positive = ctx.plain("abs", &[x])?;
    ctx.with_number("pow", positive, p)
}

/// `sum ^ (1 / p)`.
fn root(ctx: &mut ExpandCtx<'_>, sum: ValueId) -> Result<ValueId, OpError> {
    let p = infer::float(ctx.attrs, "p")?;
    ctx.with_number("pow", sum, 1.0 / p)
}

/// A sum over windows is a mean in which every cell counts, times their number. Padding is
/// extended so that no window hangs over it.
fn lp_pool(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let x = ctx.value(0)?;
    let (mut window, attrs) = window(ctx, x)?;
    let input = ctx.dims_of(x)[2..].to_vec();
    let output = window.output(&input, attrs.int("ceil_mode") == Some(1))?;
    for axis in 0..input.len() {
        let covered = (output[axis] - 1) * window.strides[axis] + window.span(axis);
        let missing = covered.saturating_sub(window.pads_begin[axis] + input[axis]);
        window.pads_end[axis] = window.pads_end[axis].max(missing);
    }
    let powers = powers(ctx, x)?;
    let attrs = window
        .attrs()
        .with("kernel_shape", ints_attr(&window.kernel))
        .with("count_include_pad", Attr::Int(1));
    let mean = ctx.emit("avg_pool", &[powers], attrs)?;
    #[expect(clippy::cast_precision_loss, reason = "windows are small")]
    let count = window.kernel.iter().product::<usize>() as f64;
    let sum = ctx.with_number("mul", mean, count)?;
    Ok(vec![root(ctx, sum)?])
}

fn global(
    ctx: &mut ExpandCtx<'_>,
    reduce: impl Fn(&mut ExpandCtx<'_>, ValueId, &[usize]) -> Result<ValueId, OpError>,
) -> Result<Vec<ValueId>, OpError> {
    let x = ctx.value(0)?;
    let axes: Vec<usize> = (2..ctx.dims_of(x).len()).collect();
    Ok(vec![reduce(ctx, x, &axes)?])
}

fn max_pool_indices(ctx: &EvalCtx<'_>) -> Result<Vec<Datum>, OpError> {
    let x = ctx.tensor(0)?;
    let shape = PoolShape::new(x.dims(), ctx.attrs, false)?;
    let (values, windows) = (to_vec::<f64>(x), shape.cells());
    let n_input: usize = shape.input.iter().product();
    let column_major = ctx.attrs.int("storage_order") == Some(1);
    let mut positions = Vec::new();
    for plane in 0..shape.outer.iter().product::<usize>() {
        let cells = &values[plane * n_input..][..n_input];
        for window in &windows {
            let best = window.iter().copied().reduce(
                |best, cell| {
                    if cells[cell] > cells[best] { cell } else { best }
                },
            );
            let best = best.unwrap_or(0);
            let within = if column_major {
                turned(best, &shape.input)
            } else {
                best
            };
            positions.push(i64::try_from(plane * n_input + within).expect("positions fit in i64"));
        }
    }
    let dims = [&shape.outer[..], &shape.output].concat();
    one(from_values(DType::I64, &dims, &positions))
}

/// A row-major position counted with the first axis fastest.
fn turned(position: usize, dims: &[usize]) -> usize {
    let (mut turned, mut step) = (0, 1);
    for (stride, &extent) in strides(dims).into_iter().zip(dims) {
        turned += position / stride % extent * step;
        step *= extent;
    }
    turned
}
