//! ONNX's Conv and `ConvTranspose`.

use super::build::{FORM, int_attr, optional_attr, str_attr};
use super::samples::ints_attr;
use super::window::Window;
use super::{AttrKind, ExpandCtx, Lowering, OnnxOp, OpDef, OpError, Operands, infer};
use crate::ir::{Attr, ValueId};

/// Convolution over any number of spatial axes.
pub static CONV: OpDef = OpDef {
    name: "Conv",
    onnx: &[OnnxOp::new("Conv")],
    operands: Operands::with_optional(&["x", "w"], &["bias"]),
    attrs: &[
        str_attr("auto_pad", "NOTSET"),
        optional_attr("dilations", AttrKind::Ints),
        int_attr("group", 1),
        optional_attr("kernel_shape", AttrKind::Ints),
        optional_attr("pads", AttrKind::Ints),
        optional_attr("strides", AttrKind::Ints),
    ],
    lower: Lowering::Expand(|ctx| {
        let operands = [0, 1, 2].map(|n| ctx.optional(n));
        Ok(vec![conv(ctx, &operands)?])
    }),
    ..FORM
};

/// The transpose of a convolution.
pub static CONV_TRANSPOSE: OpDef = OpDef {
    name: "ConvTranspose",
    onnx: &[OnnxOp::new("ConvTranspose")],
    operands: Operands::with_optional(&["x", "w"], &["bias"]),
    attrs: &[
        str_attr("auto_pad", "NOTSET"),
        optional_attr("dilations", AttrKind::Ints),
        int_attr("group", 1),
        optional_attr("kernel_shape", AttrKind::Ints),
        optional_attr("output_padding", AttrKind::Ints),
        optional_attr("output_shape", AttrKind::Ints),
        optional_attr("pads", AttrKind::Ints),
        optional_attr("strides", AttrKind::Ints),
    ],
    lower: Lowering::Expand(conv_transpose),
    ..FORM
};

pub static OPS: &[&OpDef] = &[&CONV, &CONV_TRANSPOSE];

/// Spatial extents of input and filter.
fn spaces(ctx: &ExpandCtx<'_>, x: ValueId, w: ValueId) -> Result<(Vec<usize>, Vec<usize>), OpError> {
    let (x, w) = (ctx.dims_of(x), ctx.dims_of(w));
    if x.len() < 3 || x.len() != w.len() {
        return Err(OpError::invalid(format!(
            "a convolution of {x:?} with a filter of {w:?}"
        )));
    }
    if let Some(kernel) = ctx.attrs.ints("kernel_shape")
        && kernel
            .iter()
            .map(|&extent| usize::try_from(extent).ok())
            .ne(w[2..].iter().copied().map(Some))
    {
        return Err(OpError::invalid(format!(
            "attribute `kernel_shape` is {kernel:?}, the filter is {w:?}"
        )));
    }
    Ok((x[2..].to_vec(), w[2..].to_vec()))
}

/// A core convolution of `x, w, bias` with this node's attributes.
pub fn conv(ctx: &mut ExpandCtx<'_>, operands: &[Option<ValueId>; 3]) -> Result<ValueId, OpError> {
    let [Some(x), Some(w), bias] = *operands else {
        return Err(OpError::invalid("a convolution needs an input and a filter"));
    };
    let (input, kernel) = spaces(ctx, x, w)?;
    let window = Window::from_onnx(ctx.attrs, &kernel, &input)?;
    let group = Attr::Int(infer::int(ctx.attrs, "group")?);
    let mut operands = vec![x, w];
    operands.extend(bias);
    ctx.emit("conv", &operands, window.attrs().with("group", group))
}

fn conv_transpose(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let (x, w) = (ctx.value(0)?, ctx.value(1)?);
    let (input, kernel) = spaces(ctx, x, w)?;
    // Its own padding rules apply, so `auto_pad` is not resolved here.
    let mut attrs = ctx.attrs.clone();
    attrs.0.remove("auto_pad");
    let window = Window::from_onnx(&attrs, &kernel, &input)?;
    let extra = match ctx.attrs.ints("output_padding") {
        Some(_) => infer::sizes(ctx.attrs, "output_padding")?,
        None => vec![0; kernel.len()],
    };
    let pads = transposed_pads(ctx, &window, &input, &extra)?;
    let attrs = window
        .attrs()
        .with("pads", Attr::Ints(pads))
        .with("output_padding", ints_attr(&extra))
        .with("group", Attr::Int(infer::int(ctx.attrs, "group")?));
    let mut operands = vec![x, w];
    operands.extend(ctx.optional(2));
    Ok(vec![ctx.emit("conv_transpose", &operands, attrs)?])
}

/// Given padding, or what `output_shape` or `auto_pad` ask for.
fn transposed_pads(
    ctx: &ExpandCtx<'_>,
    window: &Window,
    input: &[usize],
    extra: &[usize],
) -> Result<Vec<i64>, OpError> {
    let auto_pad = ctx.attrs.str("auto_pad").unwrap_or("NOTSET");
    let wanted = match ctx.attrs.ints("output_shape") {
        Some(_) => {
            let shape = infer::sizes(ctx.attrs, "output_shape")?;
            // Some exporters list batch and channels too.
            shape[shape.len().saturating_sub(input.len())..].to_vec()
        }
        None if auto_pad.starts_with("SAME") => input
            .iter()
            .zip(&window.strides)
            .map(|(extent, stride)| extent * stride)
            .collect(),
        None => {
            let given = window.attrs();
            return Ok(infer::ints(&given, "pads")?.to_vec());
        }
    };
    if wanted.len() != input.len() || extra.len() != input.len() {
        return Err(OpError::invalid(format!(
            "output shape {wanted:?} and output padding {extra:?} for {} spatial axes",
            input.len()
        )));
    }
    let signed = |value: usize| i64::try_from(value).expect("extents fit in i64");
    let (mut begin, mut end) = (Vec::new(), Vec::new());
    for axis in 0..input.len() {
        let full = (input[axis].max(1) - 1) * window.strides[axis] + extra[axis] + window.span(axis);
        let total = signed(full) - signed(wanted[axis]);
        let (small, large) = (total.div_euclid(2), total - total.div_euclid(2));
        let (first, last) = if auto_pad == "SAME_UPPER" {
            (small, large)
        } else {
            (large, small)
        };
        begin.push(first);
        end.push(last);
    }
    Ok([begin, end].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::Attrs;
    use crate::ir::{DType, Graph, TensorType};

    /// Dims that `ConvTranspose` with these attributes gives a `[1, 1, 3]` input and a filter of 3.
    fn output(attrs: Attrs) -> Vec<usize> {
        let mut graph = Graph::new("test");
        let x = graph.add_input("x", Some(TensorType::new(DType::F32, &[1, 1, 3])));
        let w = graph.add_input("w", Some(TensorType::new(DType::F32, &[1, 1, 3])));
        let operands = vec![Some(x), Some(w)];
        let results = super::super::emit(&mut graph, "ConvTranspose", operands, attrs, 1, 11, &[]).unwrap();
        graph.ty(results[0]).dims()
    }

    #[test]
    fn output_shape_decides_the_padding() {
        let strides = Attrs::new().with("strides", Attr::Ints(vec![2]));
        assert_eq!(output(strides.clone()), [1, 1, 7]);
        assert_eq!(
            output(strides.clone().with("output_shape", Attr::Ints(vec![8]))),
            [1, 1, 8]
        );
        let same = Attr::Str("SAME_UPPER".to_owned());
        assert_eq!(output(strides.with("auto_pad", same)), [1, 1, 6]);
    }
}
