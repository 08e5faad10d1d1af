//! Sequences and optionals. They exist in the reference only: exporters use them for shape
//! arithmetic, which folds away before anything is compiled.

use super::arithmetic_forms::FORM;
use super::build::{int_attr, optional_attr, required_attr};
use super::evaluate::{one, scalar, to_vec};
use super::views::axis_pick;
use super::{
    AttrKind, Datum, EvalCtx, InferCtx, Lowering, OnnxOp, OpDef, OpError, Operands, index, infer, moves,
};
use crate::ir::{DType, HostTensor, TensorType};

/// What ops over sequences have in common.
const SEQUENCE_OP: OpDef = OpDef {
    infer: infer_nothing,
    lower: Lowering::Host("sequences and optionals exist on the host only"),
    ..FORM
};

pub static SEQUENCE_EMPTY: OpDef = OpDef {
    name: "SequenceEmpty",
    onnx: &[OnnxOp::new("SequenceEmpty")],
    operands: Operands::exactly(&[]),
    attrs: &[optional_attr("dtype", AttrKind::DType)],
    eval: |_| Ok(vec![Datum::Sequence(Vec::new())]),
    ..SEQUENCE_OP
};

pub static SEQUENCE_CONSTRUCT: OpDef = OpDef {
    name: "SequenceConstruct",
    onnx: &[OnnxOp::new("SequenceConstruct")],
    operands: Operands::variadic(&["x"]),
    eval: |ctx| {
        let tensors = (0..ctx.operands.len()).map(|n| ctx.tensor(n).cloned());
        Ok(vec![Datum::Sequence(tensors.collect::<Result<_, _>>()?)])
    },
    ..SEQUENCE_OP
};

pub static SEQUENCE_INSERT: OpDef = OpDef {
    name: "SequenceInsert",
    onnx: &[OnnxOp::new("SequenceInsert")],
    operands: Operands::with_optional(&["sequence", "x"], &["position"]),
    eval: |ctx| {
        let mut tensors = sequence(ctx, 0)?.to_vec();
        let position = match ctx.optional_tensor(2)? {
            // One past the last is a place to insert at too.
            Some(position) => match number(position)? {
                position if position >= 0 => index::checked_index(position, tensors.len() + 1)?,
                position => index::checked_index(position, tensors.len())?,
            },
            None => tensors.len(),
        };
        tensors.insert(position, ctx.tensor(1)?.clone());
        Ok(vec![Datum::Sequence(tensors)])
    },
    ..SEQUENCE_OP
};

pub static SEQUENCE_ERASE: OpDef = OpDef {
    name: "SequenceErase",
    onnx: &[OnnxOp::new("SequenceErase")],
    operands: Operands::with_optional(&["sequence"], &["position"]),
    eval: |ctx| {
        let mut tensors = sequence(ctx, 0)?.to_vec();
        let position = ctx.optional_tensor(1)?.map_or(Ok(-1), number)?;
        tensors.remove(index::checked_index(position, tensors.len())?);
        Ok(vec![Datum::Sequence(tensors)])
    },
    ..SEQUENCE_OP
};

pub static SEQUENCE_AT: OpDef = OpDef {
    name: "SequenceAt",
    onnx: &[OnnxOp::new("SequenceAt")],
    operands: Operands::exactly(&["sequence", "position"]),
    eval: |ctx| {
        let tensors = sequence(ctx, 0)?;
        let position = number(ctx.tensor(1)?)?;
        one(tensors[index::checked_index(position, tensors.len())?].clone())
    },
    ..SEQUENCE_OP
};

pub static SEQUENCE_LENGTH: OpDef = OpDef {
    name: "SequenceLength",
    onnx: &[OnnxOp::new("SequenceLength")],
    operands: Operands::exactly(&["sequence"]),
    eval: |ctx| {
        let length = i64::try_from(sequence(ctx, 0)?.len()).expect("lengths fit in i64");
        one(HostTensor::from_i64(&[], &[length]))
    },
    ..SEQUENCE_OP
};

/// `SequenceMap`: the body on each element; operands that are tensors go to every call.
pub static SEQUENCE_MAP: OpDef = OpDef {
    name: "SequenceMap",
    onnx: &[OnnxOp::new("SequenceMap")],
    operands: Operands::variadic(&["sequence"]),
    attrs: &[required_attr("body", AttrKind::Graph)],
    eval: eval_map,
    ..SEQUENCE_OP
};

pub static SPLIT_TO_SEQUENCE: OpDef = OpDef {
    name: "SplitToSequence",
    onnx: &[OnnxOp::new("SplitToSequence")],
    operands: Operands::with_optional(&["x"], &["split"]),
    attrs: &[int_attr("axis", 0), int_attr("keepdims", 1)],
    eval: eval_split,
    ..SEQUENCE_OP
};

pub static CONCAT_FROM_SEQUENCE: OpDef = OpDef {
    name: "ConcatFromSequence",
    onnx: &[OnnxOp::new("ConcatFromSequence")],
    operands: Operands::exactly(&["sequence"]),
    attrs: &[required_attr("axis", AttrKind::Int), int_attr("new_axis", 0)],
    eval: eval_concat,
    ..SEQUENCE_OP
};

pub static OPTIONAL: OpDef = OpDef {
    name: "Optional",
    onnx: &[OnnxOp::new("Optional")],
    operands: Operands::with_optional(&[], &["x"]),
    attrs: &[optional_attr("type", AttrKind::DType)],
    eval: |ctx| {
        let held = ctx.operands.first().cloned().flatten();
        Ok(vec![Datum::Optional(held.map(Box::new))])
    },
    ..SEQUENCE_OP
};

pub static OPTIONAL_HAS_ELEMENT: OpDef = OpDef {
    name: "OptionalHasElement",
    onnx: &[OnnxOp::new("OptionalHasElement")],
    operands: Operands::with_optional(&[], &["x"]),
    eval: |ctx| {
        let holds = match ctx.operands.first().and_then(Option::as_ref) {
            Some(Datum::Optional(held)) => held.is_some(),
            Some(Datum::Tensor(_) | Datum::Sequence(_)) => true,
            None => false,
        };
        one(scalar(DType::Bool, f64::from(u8::from(holds))))
    },
    ..SEQUENCE_OP
};

pub static OPTIONAL_GET_ELEMENT: OpDef = OpDef {
    name: "OptionalGetElement",
    onnx: &[OnnxOp::new("OptionalGetElement")],
    eval: |ctx| match ctx.operands.first().and_then(Option::as_ref) {
        Some(Datum::Optional(Some(held))) => Ok(vec![held.as_ref().clone()]),
        Some(datum @ (Datum::Tensor(_) | Datum::Sequence(_))) => Ok(vec![datum.clone()]),
        Some(Datum::Optional(None)) | None => Err(OpError::invalid("the optional is empty")),
    },
    ..SEQUENCE_OP
};

fn infer_nothing(_: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
    Err(OpError::unsupported("types of sequences and optionals"))
}

fn sequence<'a>(ctx: &'a EvalCtx<'_>, n: usize) -> Result<&'a [HostTensor], OpError> {
    match ctx.operands.get(n).and_then(Option::as_ref) {
        Some(Datum::Sequence(tensors)) => Ok(tensors),
        Some(Datum::Tensor(_) | Datum::Optional(_)) | None => {
            Err(OpError::invalid(format!("operand {n} must be a sequence")))
        }
    }
}

fn number(tensor: &HostTensor) -> Result<i64, OpError> {
    match to_vec::<i64>(tensor)[..] {
        [only] => Ok(only),
        _ => Err(OpError::invalid(format!(
            "expected one number, found `{}`",
            tensor.ty()
        ))),
    }
}

fn eval_map(ctx: &EvalCtx<'_>) -> Result<Vec<Datum>, OpError> {
    let body = ctx
        .attrs
        .graph("body")
        .ok_or_else(|| OpError::invalid("attribute `body` is missing"))?;
    let length = sequence(ctx, 0)?.len();
    let mut results: Vec<Vec<HostTensor>> = vec![Vec::new(); ctx.n_results];
    for position in 0..length {
        let operands = ctx
            .operands
            .iter()
            .flatten()
            .map(|operand| match operand {
                Datum::Sequence(tensors) => tensors
                    .get(position)
                    .cloned()
                    .map(Datum::Tensor)
                    .ok_or_else(|| OpError::invalid("sequences differ in length")),
                Datum::Tensor(_) | Datum::Optional(_) => Ok(operand.clone()),
            })
            .collect::<Result<Vec<_>, _>>()?;
        for (result, datum) in results.iter_mut().zip((ctx.run_subgraph)(body, &operands)?) {
            result.push(datum.tensor()?.clone());
        }
    }
    Ok(results.into_iter().map(Datum::Sequence).collect())
}

fn eval_split(ctx: &EvalCtx<'_>) -> Result<Vec<Datum>, OpError> {
    let x = ctx.tensor(0)?;
    let axis = infer::axis(ctx.attrs, x.dims().len())?;
    let extent = x.dims()[axis];
    let parts: Vec<usize> = match ctx.optional_tensor(1)? {
        Some(split) => parts_of(split, extent)?,
        None if infer::int(ctx.attrs, "keepdims")? == 0 => {
            let slices = (0..extent).map(|position| axis_pick(x, axis, position));
            return Ok(vec![Datum::Sequence(slices.collect())]);
        }
        None => vec![1; extent],
    };
    let mut start = 0;
    let tensors = parts
        .into_iter()
        .map(|part| {
            let mut sources: Vec<Vec<Option<usize>>> = x
                .dims()
                .iter()
                .map(|&extent| (0..extent).map(Some).collect())
                .collect();
            sources[axis] = (start..start + part).map(Some).collect();
            start += part;
            index::pick_per_axis(x, &sources, None)
        })
        .collect();
    Ok(vec![Datum::Sequence(tensors)])
}

/// Lengths of the parts: a list, or one length of which the last part may fall short.
fn parts_of(split: &HostTensor, extent: usize) -> Result<Vec<usize>, OpError> {
    let lengths = to_vec::<i64>(split);
    let refuse = || OpError::invalid(format!("an axis of extent {extent} is not split by {lengths:?}"));
    let sizes = lengths
        .iter()
        .map(|&length| usize::try_from(length).map_err(|_| refuse()))
        .collect::<Result<Vec<_>, _>>()?;
    match sizes[..] {
        [size] if split.dims().is_empty() && size > 0 => Ok((0..extent)
            .step_by(size)
            .map(|start| size.min(extent - start))
            .collect()),
        _ if sizes.iter().sum::<usize>() == extent => Ok(sizes),
        _ => Err(refuse()),
    }
}

fn eval_concat(ctx: &EvalCtx<'_>) -> Result<Vec<Datum>, OpError> {
    let tensors = sequence(ctx, 0)?;
    let first = tensors
        .first()
        .ok_or_else(|| OpError::invalid("an empty sequence cannot be joined"))?;
    let new_axis = infer::int(ctx.attrs, "new_axis")? != 0;
    let rank = first.dims().len() + usize::from(new_axis);
    let axis = infer::axis(ctx.attrs, rank)?;
    let parts: Vec<HostTensor> = tensors
        .iter()
        .map(|tensor| {
            let mut dims = tensor.dims().to_vec();
            if new_axis {
                dims.insert(axis, 1);
            }
            tensor.reshaped(&dims)
        })
        .collect();
    let mut dims = parts[0].dims().to_vec();
    let fits = |part: &HostTensor| {
        part.dtype() == first.dtype()
            && part.dims().len() == rank
            && (0..rank).all(|own| own == axis || part.dims()[own] == dims[own])
    };
    if !parts.iter().all(fits) {
        return Err(OpError::invalid(
            "the tensors of the sequence differ in shape or kind",
        ));
    }
    dims[axis] = parts.iter().map(|part| part.dims()[axis]).sum();
    one(moves::concat(&parts.iter().collect::<Vec<_>>(), &dims, axis))
}

pub static OPS: &[&OpDef] = &[
    &SEQUENCE_EMPTY,
    &SEQUENCE_CONSTRUCT,
    &SEQUENCE_INSERT,
    &SEQUENCE_ERASE,
    &SEQUENCE_AT,
    &SEQUENCE_LENGTH,
    &SEQUENCE_MAP,
    &SPLIT_TO_SEQUENCE,
    &CONCAT_FROM_SEQUENCE,
    &OPTIONAL,
    &OPTIONAL_HAS_ELEMENT,
    &OPTIONAL_GET_ELEMENT,
];
