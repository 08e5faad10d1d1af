//! The inverses of cutting images into pieces: `Col2Im` and `MaxUnpool`.

use super::arguments::sizes_operand;
use super::build::{FORM, optional_attr, required_attr};
use super::window::Window;
use super::{AttrKind, ExpandCtx, Lowering, OnnxOp, OpDef, OpError, Operands, infer};
use crate::ir::{Attrs, DType, ValueId};

/// Blocks of an image, one column each, added up where they overlap.
pub static COL2IM: OpDef = OpDef {
    name: "Col2Im",
    onnx: &[OnnxOp::new("Col2Im")],
    operands: Operands::exactly(&["x", "image_shape", "block_shape"]),
    attrs: &[
        optional_attr("dilations", AttrKind::Ints),
        optional_attr("pads", AttrKind::Ints),
        optional_attr("strides", AttrKind::Ints),
    ],
    lower: Lowering::Expand(col2im),
    ..FORM
};

/// Pooled values back where they came from, zero elsewhere.
pub static MAX_UNPOOL: OpDef = OpDef {
    name: "MaxUnpool",
    onnx: &[OnnxOp::new("MaxUnpool")],
    operands: Operands::with_optional(&["x", "index"], &["output_shape"]),
    attrs: &[
        required_attr("kernel_shape", AttrKind::Ints),
        optional_attr("pads", AttrKind::Ints),
        optional_attr("strides", AttrKind::Ints),
    ],
    lower: Lowering::Expand(max_unpool),
    ..FORM
};

pub static OPS: &[&OpDef] = &[&COL2IM, &MAX_UNPOOL];

/// Each pixel gathers the entry that every cell of the block may have put there; which these
/// are is a constant.
fn col2im(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let x = ctx.value(0)?;
    let (image, block) = (sizes_operand(ctx, 1)?, sizes_operand(ctx, 2)?);
    let window = Window::from_onnx(ctx.attrs, &block, &image)?;
    let blocks = window.output(&image, false)?;
    let (n_cells, n_blocks) = (infer::table_entries(&block)?, infer::table_entries(&blocks)?);
    let dims = ctx.dims_of(x);
    let &[batch, rows, columns] = dims.as_slice() else {
        return Err(OpError::invalid(format!(
            "expected columns of blocks, found dims {dims:?}"
        )));
    };
    if n_cells == 0 || rows % n_cells != 0 || columns != n_blocks {
        return Err(OpError::invalid(format!(
            "{rows} rows and {columns} columns for {n_blocks} blocks of {n_cells} cells"
        )));
    }
    let channels = rows / n_cells;
    let n_pixels = infer::table_entries(&image)?;
    infer::table_entries(&[n_pixels, n_cells])?;
    let (mut sources, mut present) = (Vec::new(), Vec::new());
    for pixel in 0..n_pixels {
        for cell in 0..n_cells {
            let own = block_of(&window, &image, &blocks, pixel, cell);
            let source = own.map_or(0, |own| cell * n_blocks + own);
            sources.push(i64::try_from(source).expect("extents fit in i64"));
            present.push(i64::from(own.is_some()));
        }
    }
    let sources = ctx.integers(&[n_pixels, n_cells], &sources);
    let present = super::evaluate::from_values(DType::Bool, &[n_pixels, n_cells], &present);
    let present = ctx.weight(present);
    let flat = ctx.reshape(x, &[batch, channels, n_cells * n_blocks])?;
    let entries = ctx.gathered("gather", flat, sources, 2)?;
    let zero = ctx.scalar(ctx.dtype_of(x), 0.0);
    let entries = ctx.select(present, entries, zero)?;
    let sum = ctx.dropped("reduce_sum", entries, &[3])?;
    let dims = [&[batch, channels], image.as_slice()].concat();
    Ok(vec![ctx.reshape(sum, &dims)?])
}

/// The block whose `cell` lies on `pixel`; `None` if there is none.
fn block_of(window: &Window, image: &[usize], blocks: &[usize], pixel: usize, cell: usize) -> Option<usize> {
    let (mut pixel, mut cell) = (pixel, cell);
    let (mut position, mut stride) = (0, 1);
    for axis in (0..image.len()).rev() {
        let place = pixel % image[axis] + window.pads_begin[axis];
        let within = cell % window.kernel[axis] * window.dilations[axis];
        pixel /= image[axis];
        cell /= window.kernel[axis];
        let start = place.checked_sub(within)?;
        let block = start / window.strides[axis];
        if start % window.strides[axis] != 0 || block >= blocks[axis] {
            return None;
        }
        position += block * stride;
        stride *= blocks[axis];
    }
    Some(position)
}

/// Indices count over the whole tensor that was pooled.
fn max_unpool(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let (x, index) = (ctx.value(0)?, ctx.value(1)?);
    let (dims, dtype) = (ctx.dims_of(x), ctx.dtype_of(x));
    let kernel = infer::window_sizes(ctx.attrs, "kernel_shape")?;
    if dims.len() != kernel.len() + 2 || ctx.dims_of(index) != dims {
        return Err(OpError::invalid(format!(
            "indices `{}` and a kernel of {kernel:?} for `{}`",
            ctx.graph.ty(index),
            ctx.graph.ty(x)
        )));
    }
    let pooled = pooled_dims(ctx, &dims, &kernel)?;
    let count = infer::n_elements(&pooled)
        .ok_or_else(|| OpError::invalid(format!("a pooled tensor of dims {pooled:?}")))?;
    let nothing = ctx.filled(dtype, &[1], 0.0);
    let nothing = ctx.expand(nothing, &[count])?;
    let (x, index) = (
        ctx.reshape(x, &[dims.iter().product()])?,
        ctx.reshape(index, &[dims.iter().product()])?,
    );
    let y = ctx.emit("scatter_elements", &[nothing, index, x], Attrs::new())?;
    let y = ctx.reshape(y, &pooled)?;
    if ctx.optional(2).is_none() {
        return Ok(vec![y]);
    }
    let wanted = sizes_operand(ctx, 2)?;
    Ok(vec![padded(ctx, y, &wanted)?])
}

/// Dims of the tensor that such a pooling makes `dims` of.
fn pooled_dims(ctx: &ExpandCtx<'_>, dims: &[usize], kernel: &[usize]) -> Result<Vec<usize>, OpError> {
    let rank = kernel.len();
    let list = |name: &str, default: usize, count: usize| match ctx.attrs.ints(name) {
        Some(_) => infer::window_sizes(ctx.attrs, name),
        None => Ok(vec![default; count]),
    };
    let (strides, pads) = (list("strides", 1, rank)?, list("pads", 0, 2 * rank)?);
    if strides.len() != rank || pads.len() != 2 * rank {
        return Err(OpError::invalid(format!(
            "strides {strides:?} and pads {pads:?} for {rank} spatial axes"
        )));
    }
    let mut pooled = dims[..2].to_vec();
    for axis in 0..rank {
        let steps = dims[2 + axis].saturating_sub(1);
        let span = steps.saturating_mul(strides[axis]).saturating_add(kernel[axis]);
        pooled.push(span.saturating_sub(pads[axis] + pads[rank + axis]));
    }
    Ok(pooled)
}

/// `value` with zeros after it up to `dims`.
fn padded(ctx: &mut ExpandCtx<'_>, value: ValueId, dims: &[usize]) -> Result<ValueId, OpError> {
    let own = ctx.dims_of(value);
    let after: Option<Vec<usize>> = if own.len() == dims.len() {
        own.iter()
            .zip(dims)
            .map(|(own, wanted)| wanted.checked_sub(*own))
            .collect()
    } else {
        None
    };
    let Some(after) = after else {
        return Err(OpError::invalid(format!(
            "an output of {dims:?}, where the values fill {own:?}"
        )));
    };
    let attrs = Attrs::new()
        .with("before", super::samples::ints_attr(&vec![0; own.len()]))
        .with("after", super::samples::ints_attr(&after));
    ctx.emit("pad", &[value], attrs)
}
