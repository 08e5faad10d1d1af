//! Weights in the kind and order in which matrix instructions for 8-bit operands read them.
//!
//! Constants are folded in the kind that a product computes in, so that those of a quantised layer
//! are wide. Where the other operand is 8 bits wide in memory and they hold nothing that 8 bits of
//! that kind do not, they are stored so, and the region's body converts them. A matrix is stored
//! with its terms innermost. What a region computes stays the same to the bit.

use std::collections::HashMap;

use super::regions::{FusedGraph, Region, TensorId, TensorSource};
use crate::ir::{Attr, Attrs, DType, Graph, HostTensor, Node, Source, TensorType, ValueId};
use crate::ops::evaluate::{from_values, to_vec};
use crate::ops::{Lowering, TileKind, lookup};

/// Stores weights of products beside 8-bit operands in 8 bits.
pub fn prepack(fused: &mut FusedGraph) {
    let mut readers: HashMap<TensorId, usize> = HashMap::new();
    let read = fused.regions.iter().flat_map(|region| &region.inputs);
    for id in read.chain(fused.outputs.iter().map(|(_, id)| id)) {
        *readers.entry(*id).or_default() += 1;
    }
    for number in 0..fused.regions.len() {
        let region = &fused.regions[number];
        let Some(found) = weight_of_product(fused, region).filter(|found| readers[&found.tensor] == 1) else {
            continue;
        };
        let TensorSource::Weight(data) = &fused.tensor(found.tensor).source else {
            continue;
        };
        let Some(narrow) = in_kind(data, found.kind) else {
            continue;
        };
        let packed = if found.is_matrix { turned(&narrow) } else { narrow };
        let body = converting(&region.body, &found, &packed.ty());
        fused.regions[number].body = body;
        let tensor = &mut fused.tensors[found.tensor.0 as usize];
        tensor.ty = packed.ty();
        tensor.source = TensorSource::Weight(packed);
    }
}

/// A weight that only a product reads.
struct Found {
    tensor: TensorId,
    /// The weight in the region's body.
    input: ValueId,
    /// Of the product's other operand.
    kind: DType,
    /// Whether it is a matrix with terms along its last axis but one.
    is_matrix: bool,
}

fn weight_of_product(fused: &FusedGraph, region: &Region) -> Option<Found> {
    let body = &region.body;
    let product = body.nodes.iter().find(|node| is_product(node))?;
    let operand = |position: usize, views: bool| {
        Some(converted_input(
            body,
            product.operands.get(position).copied()??,
            views,
        ))
    };
    let (x, input) = (operand(0, true)??, operand(1, false)??);
    let kind = body.ty(x).dtype;
    let number = body.inputs.iter().position(|&own| own == input)?;
    let tensor = region.inputs[number];
    let readers = body.nodes.iter().flat_map(|node| &node.operands);
    let is_own =
        readers.filter(|&&operand| operand == Some(input)).count() == 1 && !body.outputs.contains(&input);
    let is_weight = matches!(fused.tensor(tensor).source, TensorSource::Weight(_));
    let found = Found {
        tensor,
        input,
        kind,
        is_matrix: product.op == "matmul" && body.ty(input).rank() >= 2,
    };
    (is_own && is_weight && matches!(kind, DType::I8 | DType::F8E4M3)).then_some(found)
}

/// A product that instructions read with terms innermost on both sides.
fn is_product(node: &Node) -> bool {
    let is_loop = lookup(node.op)
        .is_some_and(|def| matches!(def.lower, Lowering::Tile(TileKind::Dot | TileKind::Window, _)));
    is_loop && matches!(node.op, "matmul" | "conv_nhwc")
}

/// The input that `value` is, converted at most, and under other dims or axes where `views`.
fn converted_input(body: &Graph, value: ValueId, views: bool) -> Option<ValueId> {
    let mut value = value;
    while let Some((_, node)) = body.producer(value) {
        let passes = node.op == "cast" || (views && matches!(node.op, "reshape" | "transpose"));
        if !passes {
            return None;
        }
        value = node.operands.first().copied().flatten()?;
    }
    matches!(body.value(value).source, Source::Input(_)).then_some(value)
}

/// The same values in `kind`, where it holds them all.
fn in_kind(data: &HostTensor, kind: DType) -> Option<HostTensor> {
    let values: Vec<f64> = to_vec(data);
    let narrow = from_values(kind, data.dims(), &values);
    (to_vec::<f64>(&narrow) == values).then_some(narrow)
}

/// The last two axes exchanged.
fn turned(data: &HostTensor) -> HostTensor {
    let mut dims = data.dims().to_vec();
    let rank = dims.len();
    let (rows, columns) = (dims[rank - 2], dims[rank - 1]);
    dims.swap(rank - 2, rank - 1);
    let values: Vec<f64> = to_vec(data);
    let mut turned = Vec::with_capacity(values.len());
    for matrix in values.chunks_exact((rows * columns).max(1)) {
        for column in 0..columns {
            turned.extend((0..rows).map(|row| matrix[row * columns + column]));
        }
    }
    from_values(data.dtype(), &dims, &turned)
}

/// `body` with its weight of type `stored`, turned back where it is a matrix, and converted.
fn converting(body: &Graph, found: &Found, stored: &TensorType) -> Graph {
    let mut target = Graph::new(&body.name);
    let mut known: HashMap<ValueId, ValueId> = HashMap::new();
    for &input in &body.inputs {
        let value = body.value(input);
        let ty = if input == found.input {
            Some(stored.clone())
        } else {
            value.ty.clone()
        };
        known.insert(input, target.add_input(&value.name, ty));
    }
    let wide = body.ty(found.input);
    let mut own = known[&found.input];
    if found.is_matrix {
        let rank = i64::try_from(wide.rank()).expect("tensors have few axes");
        let mut perm: Vec<i64> = (0..rank).collect();
        perm.swap(wide.rank() - 2, wide.rank() - 1);
        let ty = TensorType::new(stored.dtype, &wide.dims());
        own = one_of(
            &mut target,
            "transpose",
            own,
            Attrs::new().with("perm", Attr::Ints(perm)),
            ty,
        );
    }
    if wide.dtype != stored.dtype {
        own = one_of(
            &mut target,
            "cast",
            own,
            Attrs::new().with("to", Attr::DType(wide.dtype)),
            wide.clone(),
        );
    }
    known.insert(found.input, own);
    for (number, value) in body.values.iter().enumerate() {
        if let Source::Weight(data) = &value.source {
            let id = ValueId(u32::try_from(number).expect("graphs have under 2^32 values"));
            known.insert(id, target.add_weight(&value.name, data.clone()));
        }
    }
    for node in &body.nodes {
        let operands = node
            .operands
            .iter()
            .map(|operand| operand.map(|value| known[&value]))
            .collect();
        let copy = target.copy_node(body, node, operands);
        let results = target.node(copy).results.clone();
        known.extend(node.results.iter().copied().zip(results));
    }
    for (&output, name) in body.outputs.iter().zip(&body.output_names) {
        target.add_output(name, known[&output]);
    }
    target
}

fn one_of(graph: &mut Graph, op: &'static str, x: ValueId, attrs: Attrs, ty: TensorType) -> ValueId {
    let node = graph.add_node(op, vec![Some(x)], attrs, &[("", Some(ty))], Vec::new());
    graph.node(node).results[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference;
    use crate::rewrite::{DeviceRates, RuleSet, fuse, run_fused};

    fn fused(text: &str) -> (Graph, FusedGraph) {
        let graph = crate::ir::text::parse(text, &|name| lookup(name).map(|def| def.name)).unwrap();
        let bindings = crate::specialize::bind(&graph, &[]).unwrap();
        let core = crate::specialize::specialize(&graph, &bindings).unwrap();
        let fused = fuse(&core, RuleSet::builtin(), DeviceRates::for_sm(90)).unwrap();
        (core, fused)
    }

    fn weights(fused: &FusedGraph) -> Vec<TensorType> {
        let weights = fused
            .tensors
            .iter()
            .filter(|tensor| matches!(tensor.source, TensorSource::Weight(_)));
        weights.map(|tensor| tensor.ty.clone()).collect()
    }

    #[test]
    fn whole_numbers_beside_bytes_are_bytes() {
        let (core, fused) = fused(
            "graph g(x: i8[2,3]) {
               w = i32[3,2]{1, -128, 127, 4, 5, 6}
               return matmul(cast[to=i32](x), w) as \"y\"
             }",
        );
        assert_eq!(weights(&fused), [TensorType::new(DType::I8, &[2, 3])]);
        let x = from_values(DType::I8, &[2, 3], &[1.0, 2.0, 3.0, -4.0, 5.0, 100.0]);
        let wanted = reference::run(&core, std::slice::from_ref(&x)).unwrap();
        assert_eq!(run_fused(&fused, &[x]).unwrap(), wanted);
    }

    #[test]
    fn what_bytes_do_not_hold_stays() {
        let (_, fused) = fused(
            "graph g(x: i8[2,3]) {
               w = i32[3,2]{1, -128, 128, 4, 5, 6}
               return matmul(cast[to=i32](x), w) as \"y\"
             }",
        );
        assert_eq!(weights(&fused), [TensorType::new(DType::I32, &[3, 2])]);
    }
}
