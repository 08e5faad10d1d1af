//! Stores large constants in 8 bits where these hold every element exactly.
//!
//! Quantised weights become floats or wide integers on the way here, as constants are folded whenever
//! that is possible. Kernels convert operands as they load them, so that bytes are what is stored and
//! moved.

use crate::ir::{Attr, Attrs, DType, Graph, HostTensor, Operand, TensorType, ValueId};
use crate::ops::evaluate::{from_values, to_vec};

/// Smaller constants are not worth a conversion.
const LEAST_ELEMENTS: usize = 1024;

/// Elements that are looked at first.
const PROBE: usize = 64;

/// Kinds that are tried, in this order.
const SMALL: [DType; 2] = [DType::I8, DType::F8E4M3];

/// `graph` with each weight of a product in the smallest kind that holds it, and a cast back.
pub fn pack_weights(graph: Graph) -> Graph {
    let packed: Vec<Option<HostTensor>> = (0..)
        .map(ValueId)
        .zip(&graph.values)
        .map(|(id, _)| graph.weight(id).and_then(packed))
        .collect();
    if packed.iter().all(Option::is_none) {
        return graph;
    }
    let graph = &graph;
    let mut target = Graph::new(&graph.name);
    let mut renamed: Vec<Option<ValueId>> = vec![None; graph.values.len()];
    for &input in &graph.inputs {
        let value = graph.value(input);
        renamed[input.0 as usize] = Some(target.add_input(&value.name, value.ty.clone()));
    }
    let weight = |target: &mut Graph, renamed: &mut Vec<Option<ValueId>>, value: ValueId| {
        *renamed[value.0 as usize].get_or_insert_with(|| {
            let name = &graph.value(value).name;
            let data = graph.weight(value).expect("nodes are in topological order");
            match &packed[value.0 as usize] {
                Some(small) => widened(target, name, small.clone(), data.dtype()),
                None => target.add_weight(name, data.clone()),
            }
        })
    };
    for node in &graph.nodes {
        let operands: Vec<Operand> = node
            .operands
            .iter()
            .map(|operand| operand.map(|value| weight(&mut target, &mut renamed, value)))
            .collect();
        let id = target.copy_node(graph, node, operands);
        for (&old, &new) in node.results.iter().zip(&target.node(id).results) {
            renamed[old.0 as usize] = Some(new);
        }
    }
    for (&output, name) in graph.outputs.iter().zip(&graph.output_names) {
        let value = weight(&mut target, &mut renamed, output);
        target.add_output(name, value);
    }
    target.bounds.clone_from(&graph.bounds);
    target.limits.clone_from(&graph.limits);
    target
}

/// The constant in 8 bits, if it is large, wider than that, and nothing is lost.
fn packed(data: &HostTensor) -> Option<HostTensor> {
    let is_wide = matches!(data.dtype(), DType::F32 | DType::F16 | DType::BF16 | DType::I32);
    if !is_wide || data.n_elements() < LEAST_ELEMENTS {
        return None;
    }
    // Most weights show in their first elements that they are no bytes.
    let first = HostTensor::from_bytes(
        data.dtype(),
        &[PROBE],
        &data.bytes()[..PROBE * data.dtype().size_bytes()],
    )?;
    SMALL.into_iter().find(|&kind| exact(&first, kind).is_some())?;
    let values: Vec<f64> = to_vec(data);
    // Ones, masks and other constants of few values say nothing of quantisation, and fold into kernels.
    let largest = values
        .iter()
        .fold(0.0_f64, |largest, value| largest.max(value.abs()));
    if largest <= 1.0 || !largest.is_finite() {
        return None;
    }
    SMALL.into_iter().find_map(|kind| exact(data, kind))
}

/// The same elements as `kind`, if it has them all.
fn exact(data: &HostTensor, kind: DType) -> Option<HostTensor> {
    let values: Vec<f64> = to_vec(data);
    let small = from_values(kind, data.dims(), &values);
    let back: Vec<f64> = to_vec(&small);
    (values == back).then_some(small)
}

fn widened(target: &mut Graph, name: &str, small: HostTensor, dtype: DType) -> ValueId {
    let ty = TensorType::new(dtype, small.dims());
    let stored = target.add_weight(name, small);
    let attrs = Attrs::new().with("to", Attr::DType(dtype));
    let cast = target.add_node("cast", vec![Some(stored)], attrs, &[(name, Some(ty))], Vec::new());
    target.node(cast).results[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference;
    use crate::testing::verify_core;

    fn graph(weight: HostTensor) -> Graph {
        let mut graph = Graph::new("g");
        let k = weight.dims()[0];
        let ty = TensorType::new(weight.dtype(), &[1, weight.dims()[1]]);
        let x = graph.add_input("x", Some(TensorType::new(weight.dtype(), &[1, k])));
        let w = graph.add_weight("w", weight);
        let node = graph.add_node(
            "matmul",
            vec![Some(x), Some(w)],
            Attrs::new(),
            &[("y", Some(ty))],
            Vec::new(),
        );
        let y = graph.node(node).results[0];
        graph.add_output("y", y);
        graph
    }

    #[test]
    fn bytes_are_stored_as_bytes() {
        let integers: Vec<f32> = (0..2048_u16).map(|n| f32::from(n % 255) - 127.0).collect();
        let before = graph(HostTensor::from_f32(&[32, 64], &integers));
        let after = pack_weights(before.clone());
        assert_eq!(verify_core(&after), Ok(()));
        let kinds: Vec<DType> = (0..)
            .map(ValueId)
            .take(after.values.len())
            .filter_map(|id| Some(after.weight(id)?.dtype()))
            .collect();
        assert_eq!(kinds, [DType::I8]);
        let x = [HostTensor::from_f32(&[1, 32], &[0.5; 32])];
        assert_eq!(
            reference::run(&before, &x).unwrap(),
            reference::run(&after, &x).unwrap()
        );
    }

    #[test]
    fn what_would_change_stays() {
        let fractions: Vec<f32> = (0..2048_u16).map(|n| f32::from(n) / 7.0).collect();
        let before = graph(HostTensor::from_f32(&[32, 64], &fractions));
        assert_eq!(pack_weights(before.clone()), before);
        let few = graph(HostTensor::from_f32(&[2, 2], &[1.0, 2.0, 3.0, 4.0]));
        assert_eq!(pack_weights(few.clone()), few);
    }

    #[test]
    fn small_floats_are_stored_as_such() {
        let eighths: Vec<f32> = (0..2048_u16)
            .map(|n| f32::from(n % 16) / 8.0 * 32.0 + 0.125)
            .collect();
        let exact: Vec<f32> = eighths
            .iter()
            .map(|value| (value * 2.0).floor().min(15.0) * 0.25)
            .collect();
        let after = pack_weights(graph(HostTensor::from_f32(&[32, 64], &exact)));
        assert_eq!(after.nodes[0].op, "cast");
        assert_eq!(after.ty(after.nodes[0].operands[0].unwrap()).dtype, DType::F8E4M3);
    }
}
