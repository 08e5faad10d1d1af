//! Control flow. The reference runs it; a compiled graph holds none, because specialising
//! replaces what constants decide and refuses the rest.

use super::arithmetic_forms::FORM;
use super::build::{optional_attr, required_attr};
use super::evaluate::to_vec;
use super::views::{AxisSlice, axis_pick};
use super::{AttrKind, Datum, EvalCtx, InferCtx, Lowering, OnnxOp, OpDef, OpError, Operands, infer, moves};
use crate::ir::{Dim, Graph, HostTensor, TensorType, ValueId};

/// What control flow has in common: its types are those of the body that runs.
const CONTROL: OpDef = OpDef {
    infer: infer_control,
    ..FORM
};

pub static IF: OpDef = OpDef {
    name: "If",
    onnx: &[OnnxOp::new("If")],
    operands: Operands::exactly(&["cond"]),
    attrs: &[
        required_attr("then_branch", AttrKind::Graph),
        required_attr("else_branch", AttrKind::Graph),
    ],
    eval: |ctx| {
        let branch = if truth(ctx.tensor(0)?)? {
            "then_branch"
        } else {
            "else_branch"
        };
        (ctx.run_subgraph)(body(ctx, branch)?, &[])
    },
    lower: Lowering::Host("the condition of `If` depends on run-time data"),
    ..CONTROL
};

pub static LOOP: OpDef = OpDef {
    name: "Loop",
    onnx: &[OnnxOp::new("Loop")],
    operands: Operands {
        required: &[],
        optional: &["trip_count", "cond", "carried"],
        variadic: true,
        commutative: false,
    },
    attrs: &[required_attr("body", AttrKind::Graph)],
    eval: eval_loop,
    lower: Lowering::Host("the number of iterations of `Loop` depends on run-time data"),
    ..CONTROL
};

pub static SCAN: OpDef = OpDef {
    name: "Scan",
    onnx: &[OnnxOp::new("Scan").since(9)],
    operands: Operands::variadic(&["carried_or_scanned"]),
    attrs: &[
        required_attr("body", AttrKind::Graph),
        required_attr("num_scan_inputs", AttrKind::Int),
        optional_attr("scan_input_axes", AttrKind::Ints),
        optional_attr("scan_input_directions", AttrKind::Ints),
        optional_attr("scan_output_axes", AttrKind::Ints),
        optional_attr("scan_output_directions", AttrKind::Ints),
    ],
    eval: |ctx| {
        let operands = (0..ctx.operands.len())
            .map(|n| ctx.tensor(n).cloned())
            .collect::<Result<Vec<_>, _>>()?;
        let scan = Scan::read(ctx, operands.len())?;
        let results = scan.run(ctx, operands)?;
        Ok(results.into_iter().map(Datum::Tensor).collect())
    },
    lower: Lowering::Host("`Scan` runs on data that is only known at run time"),
    ..CONTROL
};

/// `Scan` of opset 8, which goes through a batch and may stop early in each of its entries.
pub static SCAN_8: OpDef = OpDef {
    name: "Scan8",
    onnx: &[OnnxOp::new("Scan").since(8).until(8)],
    operands: Operands {
        required: &[],
        optional: &["lengths", "carried_or_scanned"],
        variadic: true,
        commutative: false,
    },
    attrs: &[
        required_attr("body", AttrKind::Graph),
        required_attr("num_scan_inputs", AttrKind::Int),
        optional_attr("directions", AttrKind::Ints),
    ],
    eval: eval_scan_8,
    lower: Lowering::Host("`Scan` runs on data that is only known at run time"),
    ..CONTROL
};

fn infer_control(_: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
    Err(OpError::unsupported(
        "types of control flow before it is resolved",
    ))
}

fn body<'a>(ctx: &'a EvalCtx<'_>, name: &str) -> Result<&'a Graph, OpError> {
    ctx.attrs
        .graph(name)
        .ok_or_else(|| OpError::invalid(format!("attribute `{name}` is missing")))
}

fn truth(tensor: &HostTensor) -> Result<bool, OpError> {
    match to_vec::<i64>(tensor)[..] {
        [only] => Ok(only != 0),
        _ => Err(OpError::invalid(format!(
            "a condition must be one bool, found `{}`",
            tensor.ty()
        ))),
    }
}

fn bool_scalar(value: bool) -> Datum {
    Datum::Tensor(HostTensor::from_slice(
        crate::ir::DType::Bool,
        &[],
        &[u8::from(value)],
    ))
}

fn eval_loop(ctx: &EvalCtx<'_>) -> Result<Vec<Datum>, OpError> {
    let body = body(ctx, "body")?;
    let n_trips = match ctx.optional_tensor(0)? {
        Some(count) => to_vec::<i64>(count).first().copied().unwrap_or(0),
        None => i64::MAX,
    };
    let mut goes_on = ctx.optional_tensor(1)?.map_or(Ok(true), truth)?;
    let given = ctx.operands.get(2..).unwrap_or_default();
    let mut carried = given
        .iter()
        .map(|operand| {
            operand
                .clone()
                .ok_or_else(|| OpError::invalid("a carried value is missing"))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let n_carried = carried.len();
    let n_stacked = ctx.n_results.saturating_sub(n_carried);
    let mut stacks: Vec<Vec<HostTensor>> = vec![Vec::new(); n_stacked];
    let mut trip = 0;
    while goes_on && trip < n_trips {
        let mut operands = vec![
            Datum::Tensor(HostTensor::from_i64(&[], &[trip])),
            bool_scalar(true),
        ];
        operands.append(&mut carried);
        let mut results = (ctx.run_subgraph)(body, &operands)?.into_iter();
        goes_on = truth(next(&mut results)?.tensor()?)?;
        carried = (0..n_carried)
            .map(|_| next(&mut results))
            .collect::<Result<_, _>>()?;
        for stack in &mut stacks {
            stack.push(next(&mut results)?.tensor()?.clone());
        }
        trip += 1;
    }
    for (n, stack) in stacks.iter().enumerate() {
        carried.push(Datum::Tensor(stacked(stack, 0, body, 1 + n_carried + n)?));
    }
    carried.truncate(ctx.n_results);
    Ok(carried)
}

fn next(results: &mut impl Iterator<Item = Datum>) -> Result<Datum, OpError> {
    results
        .next()
        .ok_or_else(|| OpError::invalid("the body yields fewer results than the node has"))
}

/// Tensors joined along a new axis. Without any, output `n` of `body` says the kind.
fn stacked(tensors: &[HostTensor], axis: usize, body: &Graph, n: usize) -> Result<HostTensor, OpError> {
    let Some(first) = tensors.first() else {
        return nothing_stacked(axis, body.outputs.get(n).copied(), body);
    };
    if axis > first.dims().len() {
        return Err(OpError::invalid(format!(
            "axis {axis} is outside a stack of `{}`",
            first.ty()
        )));
    }
    let mut dims = first.dims().to_vec();
    dims.insert(axis, 1);
    let parts: Vec<HostTensor> = tensors
        .iter()
        .map(|tensor| {
            if tensor.ty() == first.ty() {
                return Ok(tensor.reshaped(&dims));
            }
            Err(OpError::invalid(format!(
                "iterations yield `{}` and `{}`, which cannot be stacked",
                first.ty(),
                tensor.ty()
            )))
        })
        .collect::<Result<_, _>>()?;
    dims[axis] = parts.len();
    Ok(moves::concat(&parts.iter().collect::<Vec<_>>(), &dims, axis))
}

/// An empty stack; extents that are not known are zero.
fn nothing_stacked(axis: usize, output: Option<ValueId>, body: &Graph) -> Result<HostTensor, OpError> {
    let ty = output.and_then(|value| body.value(value).ty.clone());
    let ty = ty
        .ok_or_else(|| OpError::unsupported("stacking the results of no iteration: their type is unknown"))?;
    let mut dims: Vec<usize> = ty
        .shape
        .0
        .iter()
        .map(|dim| Dim::known(dim).unwrap_or(0))
        .collect();
    dims.insert(axis.min(dims.len()), 0);
    Ok(HostTensor::zeros(ty.dtype, &dims))
}

/// The attributes of a `Scan`, one entry per scanned operand or stacked result.
struct Scan<'a> {
    body: &'a Graph,
    n_carried: usize,
    input_axes: Vec<i64>,
    inputs_reversed: Vec<bool>,
    output_axes: Vec<i64>,
    outputs_reversed: Vec<bool>,
}

impl<'a> Scan<'a> {
    fn read(ctx: &'a EvalCtx<'_>, n_operands: usize) -> Result<Self, OpError> {
        let n_scanned = usize::try_from(infer::int(ctx.attrs, "num_scan_inputs")?).unwrap_or(usize::MAX);
        let n_carried = n_operands.checked_sub(n_scanned).ok_or_else(|| {
            OpError::invalid(format!("{n_scanned} of {n_operands} operands cannot be scanned"))
        })?;
        let n_stacked = ctx.n_results.saturating_sub(n_carried);
        let list = |name: &str, count: usize| {
            let values = ctx
                .attrs
                .ints(name)
                .map_or_else(|| vec![0; count], <[i64]>::to_vec);
            if values.len() == count {
                return Ok(values);
            }
            Err(OpError::invalid(format!(
                "attribute `{name}` needs {count} entries, found {values:?}"
            )))
        };
        let reversed = |values: Vec<i64>| values.into_iter().map(|value| value == 1).collect();
        let directions = if ctx.attrs.get("directions").is_some() {
            "directions"
        } else {
            "scan_input_directions"
        };
        Ok(Scan {
            body: body(ctx, "body")?,
            n_carried,
            input_axes: list("scan_input_axes", n_scanned)?,
            inputs_reversed: reversed(list(directions, n_scanned)?),
            output_axes: list("scan_output_axes", n_stacked)?,
            outputs_reversed: reversed(list("scan_output_directions", n_stacked)?),
        })
    }

    fn run(&self, ctx: &EvalCtx<'_>, mut operands: Vec<HostTensor>) -> Result<Vec<HostTensor>, OpError> {
        let scanned = operands.split_off(self.n_carried);
        let mut carried = operands;
        let axes = scanned
            .iter()
            .zip(&self.input_axes)
            .map(|(tensor, &axis)| infer::normalize_axis(axis, tensor.dims().len()))
            .collect::<Result<Vec<_>, _>>()?;
        let n_steps = n_steps(&scanned, &axes)?;
        let mut stacks: Vec<Vec<HostTensor>> = vec![Vec::new(); self.output_axes.len()];
        for step in 0..n_steps {
            let mut data: Vec<Datum> = carried.drain(..).map(Datum::Tensor).collect();
            for (n, tensor) in scanned.iter().enumerate() {
                let position = if self.inputs_reversed[n] {
                    n_steps - 1 - step
                } else {
                    step
                };
                data.push(Datum::Tensor(axis_pick(tensor, axes[n], position)));
            }
            let mut results = (ctx.run_subgraph)(self.body, &data)?.into_iter();
            for _ in 0..self.n_carried {
                carried.push(next(&mut results)?.tensor()?.clone());
            }
            for stack in &mut stacks {
                stack.push(next(&mut results)?.tensor()?.clone());
            }
        }
        for (n, stack) in stacks.iter_mut().enumerate() {
            if self.outputs_reversed[n] {
                stack.reverse();
            }
            carried.push(self.stack(n, stack)?);
        }
        Ok(carried)
    }

    fn stack(&self, n: usize, tensors: &[HostTensor]) -> Result<HostTensor, OpError> {
        let rank = tensors.first().map_or(0, |tensor| tensor.dims().len());
        let axis = infer::normalize_axis(self.output_axes[n], rank + 1)?;
        stacked(tensors, axis, self.body, self.n_carried + n)
    }
}

/// How many slices every scanned operand has.
fn n_steps(scanned: &[HostTensor], axes: &[usize]) -> Result<usize, OpError> {
    let mut counts = scanned
        .iter()
        .zip(axes)
        .map(|(tensor, &axis)| tensor.dims()[axis]);
    let first = counts.next().unwrap_or(0);
    if counts.all(|count| count == first) {
        return Ok(first);
    }
    Err(OpError::invalid("scanned operands differ in length"))
}

fn eval_scan_8(ctx: &EvalCtx<'_>) -> Result<Vec<Datum>, OpError> {
    let operands = (1..ctx.operands.len())
        .map(|n| ctx.tensor(n).cloned())
        .collect::<Result<Vec<_>, _>>()?;
    let scan = Scan::read(ctx, operands.len())?;
    let n_entries = operands
        .first()
        .and_then(|tensor| tensor.dims().first())
        .copied()
        .unwrap_or(0);
    let lengths = ctx.optional_tensor(0)?.map(to_vec::<i64>);
    let mut per_result: Vec<Vec<HostTensor>> = vec![Vec::new(); ctx.n_results];
    for entry in 0..n_entries {
        let mut own: Vec<HostTensor> = operands
            .iter()
            .map(|tensor| axis_pick(tensor, 0, entry))
            .collect();
        if let Some(length) = lengths.as_ref().and_then(|lengths| lengths.get(entry)) {
            for tensor in &mut own[scan.n_carried..] {
                *tensor = first_of(tensor, *length)?;
            }
        }
        for (stack, result) in per_result.iter_mut().zip(scan.run(ctx, own)?) {
            stack.push(result);
        }
    }
    per_result
        .iter()
        .enumerate()
        .map(|(n, stack)| stacked(stack, 0, scan.body, n).map(Datum::Tensor))
        .collect()
}

/// The first `count` entries of axis 0.
fn first_of(tensor: &HostTensor, count: i64) -> Result<HostTensor, OpError> {
    let extent = tensor.dims().first().copied().unwrap_or(0);
    let slice = AxisSlice {
        start: 0,
        end: count,
        step: 1,
    }
    .normalized(extent)?;
    let mut sources: Vec<Vec<Option<usize>>> = tensor
        .dims()
        .iter()
        .map(|&extent| (0..extent).map(Some).collect())
        .collect();
    sources[0].truncate(slice.count());
    Ok(super::index::pick_per_axis(tensor, &sources, None))
}

pub static OPS: &[&OpDef] = &[&IF, &LOOP, &SCAN, &SCAN_8];
