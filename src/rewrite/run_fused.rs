//! Runs a fused graph on the CPU: every region through the reference interpreter, in order.

use super::{FusedGraph, TensorId, TensorSource};
use crate::ir::{Attr, Attrs, DType, Graph, HostTensor, Operand, ValueId};
use crate::ops::{NEWEST_OPSET, OpError, emit};
use crate::reference::{self, ReferenceError};

/// The outputs of `fused` on one tensor per input, region by region.
///
/// As in generated code, values of narrow floats are computed as `f32` inside a region and
/// rounded where they are stored.
///
/// # Errors
/// If a region's body cannot be run.
///
/// # Panics
/// If a region reads a tensor that no earlier region wrote.
pub fn run_fused(fused: &FusedGraph, inputs: &[HostTensor]) -> Result<Vec<HostTensor>, ReferenceError> {
    let mut data: Vec<Option<HostTensor>> = fused
        .tensors
        .iter()
        .map(|tensor| match &tensor.source {
            TensorSource::Input(position) => inputs.get(*position).cloned(),
            TensorSource::Weight(weight) => Some(weight.clone()),
            TensorSource::Regions => None,
        })
        .collect();
    let read = |data: &[Option<HostTensor>], id: TensorId| {
        let own = data[id.0 as usize].clone();
        own.unwrap_or_else(|| panic!("t{} is read before it is written", id.0))
    };
    for region in &fused.regions {
        let operands: Vec<HostTensor> = region.inputs.iter().map(|&id| read(&data, id)).collect();
        let wide = widened(&region.body);
        let body = wide.as_ref().unwrap_or(&region.body);
        let results = reference::run(body, &operands)?;
        for (number, (&output, result)) in region.outputs.iter().zip(results).enumerate() {
            let own = &mut data[output.0 as usize];
            match region.placements.get(&number) {
                Some(placement) => {
                    let empty = || HostTensor::zeros(result.dtype(), &placement.dims);
                    placement.paste(&result, own.get_or_insert_with(empty));
                }
                None => *own = Some(result),
            }
        }
    }
    Ok(fused.outputs.iter().map(|(_, id)| read(&data, *id)).collect())
}

/// Whether values of a kind are computed as `f32`.
fn is_narrow(dtype: DType) -> bool {
    dtype.is_float() && dtype.size_bytes() < 4
}

/// `body` with `f32` between its inputs and outputs; `None` where nothing is narrow, or an op
/// has no such form.
fn widened(body: &Graph) -> Option<Graph> {
    let mut kinds = body.values.iter().filter_map(|value| value.ty.as_ref());
    if !kinds.any(|ty| is_narrow(ty.dtype)) {
        return None;
    }
    let mut wide = Graph::new(&body.name);
    let mut moved: Vec<Option<ValueId>> = vec![None; body.values.len()];
    for &input in &body.inputs {
        let ty = body.ty(input).clone();
        let own = wide.add_input(&body.value(input).name, Some(ty.clone()));
        let own = if is_narrow(ty.dtype) {
            cast(&mut wide, own, DType::F32).ok()?
        } else {
            own
        };
        moved[input.0 as usize] = Some(own);
    }
    for node in &body.nodes {
        let operands: Vec<Operand> = node
            .operands
            .iter()
            .map(|operand| {
                operand
                    .map(|value| moved_operand(body, &mut wide, &mut moved, value))
                    .transpose()
            })
            .collect::<Result<_, OpError>>()
            .ok()?;
        let attrs = widened_attrs(&node.attrs);
        let results = emit(
            &mut wide,
            node.op,
            operands,
            attrs,
            node.results.len(),
            NEWEST_OPSET,
            &[],
        )
        .ok()?;
        for (&result, own) in node.results.iter().zip(results) {
            moved[result.0 as usize] = Some(own);
        }
    }
    for (&output, name) in body.outputs.iter().zip(&body.output_names) {
        let own = moved_operand(body, &mut wide, &mut moved, output).ok()?;
        let own = cast(&mut wide, own, body.ty(output).dtype).ok()?;
        wide.add_output(name, own);
    }
    Some(wide)
}

fn moved_operand(
    body: &Graph,
    wide: &mut Graph,
    moved: &mut [Option<ValueId>],
    value: ValueId,
) -> Result<ValueId, OpError> {
    if let Some(known) = moved[value.0 as usize] {
        return Ok(known);
    }
    let data = body
        .weight(value)
        .expect("nodes are in topological order, so only weights are new");
    let own = wide.add_weight("", data.clone());
    let own = if is_narrow(data.dtype()) {
        cast(wide, own, DType::F32)?
    } else {
        own
    };
    moved[value.0 as usize] = Some(own);
    Ok(own)
}

fn widened_attrs(attrs: &Attrs) -> Attrs {
    match attrs.dtype("to") {
        Some(to) if is_narrow(to) => attrs.clone().with("to", Attr::DType(DType::F32)),
        _ => attrs.clone(),
    }
}

fn cast(graph: &mut Graph, value: ValueId, to: DType) -> Result<ValueId, OpError> {
    if graph.ty(value).dtype == to {
        return Ok(value);
    }
    let attrs = Attrs::new().with("to", Attr::DType(to));
    Ok(emit(graph, "cast", vec![Some(value)], attrs, 1, NEWEST_OPSET, &[])?[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_round_only_where_they_are_stored() {
        let mut body = Graph::new("body");
        let x = body.add_input("x", Some(crate::ir::TensorType::new(DType::F16, &[1])));
        let large = body.add_weight("", crate::ops::evaluate::scalar(DType::F16, 2048.0));
        let plain = |body: &mut Graph, op, operands: [ValueId; 2]| {
            let operands = operands.map(Some).to_vec();
            emit(body, op, operands, Attrs::new(), 1, NEWEST_OPSET, &[]).unwrap()[0]
        };
        let sum = plain(&mut body, "add", [x, large]);
        let rest = plain(&mut body, "sub", [sum, large]);
        body.add_output("y", rest);
        // 2048.5 is no f16, so the half is lost if the sum is rounded.
        let half = crate::ops::evaluate::from_values(DType::F16, &[1], &[0.5f64]);
        let found = reference::run(&widened(&body).unwrap(), std::slice::from_ref(&half)).unwrap();
        assert_eq!(found[0], half);
        let rounded = reference::run(&body, &[half]).unwrap();
        assert_eq!(crate::ops::evaluate::to_vec::<f64>(&rounded[0]), [0.0]);
    }
}
