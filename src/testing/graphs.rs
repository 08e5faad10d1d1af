//! Drawn graphs. The same seed always draws the same graph.

use crate::ir::{
    Attr, Attrs, DType, Dim, Graph, HostTensor, Node, NodeId, Operand, Shape, Source, TensorType, Value,
    ValueId,
};
use crate::ops::samples::{Draw, ints_attr};
use crate::ops::{self, NEWEST_OPSET};

/// A typed graph of core ops that fits together: maps, views, reductions and products over a
/// few inputs and weights, with values that are used several times.
pub fn core(seed: u64, n_nodes: usize) -> Graph {
    let mut draw = Draw::new(seed);
    let mut graph = Graph::new("drawn");
    let mut values = Vec::new();
    for position in 0..=draw.below(3) {
        let dims = draw.dims(1..=4);
        let ty = TensorType::new(DType::F32, &dims);
        values.push(graph.add_input(&format!("x{position}"), Some(ty)));
    }
    while graph.nodes.len() < n_nodes {
        let operand = recent(&mut draw, &values);
        if let Some(value) = draw_node(&mut draw, &mut graph, operand, &values) {
            values.push(value);
        }
    }
    for (position, value) in sinks(&graph).into_iter().enumerate() {
        graph.add_output(&format!("y{position}"), value);
    }
    graph
}

/// Newer values more often, so that graphs grow deep.
fn recent(draw: &mut Draw, values: &[ValueId]) -> ValueId {
    let back = draw.below(values.len()).min(draw.below(values.len()));
    values[values.len() - 1 - back]
}

/// Results that nothing reads.
fn sinks(graph: &Graph) -> Vec<ValueId> {
    let mut read = vec![false; graph.values.len()];
    for operand in graph.nodes.iter().flat_map(|node| &node.operands).flatten() {
        read[operand.0 as usize] = true;
    }
    let results = graph.nodes.iter().flat_map(|node| &node.results);
    results.copied().filter(|value| !read[value.0 as usize]).collect()
}

const UNARY: [&str; 7] = ["relu", "sigmoid", "gelu", "tanh", "neg", "abs", "erf"];
const BINARY: [&str; 5] = ["add", "sub", "mul", "min", "max"];
const REDUCE: [&str; 4] = ["reduce_sum", "reduce_mean", "reduce_max", "reduce_min"];

/// Adds one op that reads `x`; `None` where the drawn one does not fit.
fn draw_node(draw: &mut Draw, graph: &mut Graph, x: ValueId, values: &[ValueId]) -> Option<ValueId> {
    let dims = graph.ty(x).dims();
    match draw.below(8) {
        0 | 1 => emit(graph, draw.pick(&UNARY), &[x], Attrs::new()),
        2 => {
            let other = recent(draw, values);
            emit(graph, draw.pick(&BINARY), &[x, other], Attrs::new())
        }
        3 => {
            let dims = draw.broadcast_from(&dims);
            let data = draw.floats(DType::F32, &dims, -2.0, 2.0);
            let weight = graph.add_weight("", data);
            emit(graph, draw.pick(&BINARY), &[x, weight], Attrs::new())
        }
        4 => draw_view(draw, graph, x, &dims),
        5 => {
            let axis = draw.below(dims.len().max(1));
            let attrs = Attrs::new().with("axes", ints_attr(&[axis]));
            emit(graph, draw.pick(&REDUCE), &[x], attrs)
        }
        6 => {
            let axis = i64::try_from(dims.len()).ok()? - 1;
            emit(graph, "softmax", &[x], Attrs::new().with("axis", Attr::Int(axis)))
        }
        _ => {
            let (&k, n) = (dims.last()?, 1 + draw.below(6));
            if dims.len() < 2 {
                return None;
            }
            let data = draw.floats(DType::F32, &[k, n], -1.0, 1.0);
            let weight = graph.add_weight("", data);
            emit(graph, "matmul", &[x, weight], Attrs::new())
        }
    }
}

fn draw_view(draw: &mut Draw, graph: &mut Graph, x: ValueId, dims: &[usize]) -> Option<ValueId> {
    match draw.below(3) {
        0 => {
            let mut perm: Vec<usize> = (0..dims.len()).collect();
            for position in (1..perm.len()).rev() {
                perm.swap(position, draw.below(position + 1));
            }
            emit(
                graph,
                "transpose",
                &[x],
                Attrs::new().with("perm", ints_attr(&perm)),
            )
        }
        1 => {
            let axis = draw.below(dims.len().max(1));
            let mut flat = dims.get(..axis)?.to_vec();
            flat.push(dims[axis..].iter().product());
            emit(
                graph,
                "reshape",
                &[x],
                Attrs::new().with("shape", ints_attr(&flat)),
            )
        }
        _ => {
            let starts: Vec<usize> = dims.iter().map(|&extent| draw.below(extent.max(1))).collect();
            let attrs = Attrs::new()
                .with("starts", ints_attr(&starts))
                .with("ends", ints_attr(dims))
                .with("steps", ints_attr(&vec![1; dims.len()]));
            emit(graph, "slice", &[x], attrs)
        }
    }
}

/// Adds a node, unless the op is not of the table or its inference refuses.
fn emit(graph: &mut Graph, op: &'static str, operands: &[ValueId], attrs: Attrs) -> Option<ValueId> {
    let origin = [format!("{op}_{}", graph.nodes.len())];
    let operands = operands.iter().copied().map(Some).collect();
    let results = ops::emit(graph, op, operands, attrs, 1, NEWEST_OPSET, &origin);
    Some(results.ok()?[0])
}

/// A graph of sound structure and no meaning: odd names, every kind of attribute and constant,
/// absent operands, values in any order, bodies in bodies. For what must work on every graph.
pub fn any(seed: u64) -> Graph {
    let mut graph = structure(&mut Draw::new(seed), 2);
    shuffle_values(&mut graph, &mut Draw::new(seed ^ 0xff));
    graph
}

fn structure(draw: &mut Draw, depth: usize) -> Graph {
    let mut graph = Graph::new(odd_name(draw));
    let n_inputs = draw.below(4);
    for position in 0..n_inputs {
        let (name, ty) = (format!("{}{position}", odd_name(draw)), any_type(draw));
        graph.add_input(&name, ty);
    }
    for position in 0..draw.below(3) {
        let name = format!("outer/{position}");
        let own = graph.add_input(&format!("captured{position}"), None);
        graph.captures.push((own, name));
    }
    for _ in 0..draw.below(9) {
        if draw.below(3) == 0 {
            let data = any_tensor(draw);
            graph.add_weight(odd_name(draw), data);
        } else {
            any_node(draw, &mut graph, depth);
        }
    }
    for position in 0..draw.below(4).min(graph.values.len()) {
        let value = ValueId(u32::try_from(draw.below(graph.values.len())).expect("graphs are small"));
        let own = graph.value(value).name.clone();
        let is_taken = own.is_empty() || graph.output_names.contains(&own);
        let name = if is_taken || draw.bool() {
            format!("out {position}")
        } else {
            own
        };
        graph.add_output(&name, value);
    }
    graph
}

fn any_node(draw: &mut Draw, graph: &mut Graph, depth: usize) {
    let ops: Vec<&'static str> = ops::all().map(|def| def.name).collect();
    let operands: Vec<Operand> = (0..draw.below(4))
        .map(|_| {
            let n_values = graph.values.len();
            let present = n_values > 0 && draw.below(5) > 0;
            present.then(|| ValueId(u32::try_from(draw.below(n_values)).expect("graphs are small")))
        })
        .collect();
    let mut attrs = Attrs::new();
    for _ in 0..draw.below(4) {
        let attr = any_attr(draw, depth);
        attrs = attrs.with(odd_name(draw), attr);
    }
    let results: Vec<(&str, Option<TensorType>)> = (0..=draw.below(3))
        .map(|_| (odd_name(draw), any_type(draw)))
        .collect();
    let origin = (0..draw.below(3)).map(|_| odd_name(draw).to_owned()).collect();
    let node = graph.add_node(draw.pick(&ops), operands, attrs, &results, origin);
    let rules = (0..draw.below(3)).map(|_| odd_name(draw).to_owned()).collect();
    graph.nodes[node.0 as usize].rules = rules;
}

fn odd_name(draw: &mut Draw) -> &'static str {
    draw.pick(&[
        "",
        "x",
        "y",
        "encoder.0.weight",
        "/layer/Add_output_0",
        "return",
        "f32",
        "_",
        "a \"quoted\" name\n",
        "größe",
        "9lives",
        "from",
        "\u{7}\\",
        "inf",
        "a;b",
        "%3",
    ])
}

fn any_type(draw: &mut Draw) -> Option<TensorType> {
    if draw.below(4) == 0 {
        return None;
    }
    let dims = (0..draw.below(4)).map(|_| match draw.below(4) {
        0 => Dim::Symbol(odd_name(draw).to_owned()),
        _ => Dim::Known(draw.below(9)),
    });
    let shape = Shape(dims.collect());
    Some(TensorType {
        dtype: draw.pick(&DType::ALL),
        shape,
    })
}

fn any_tensor(draw: &mut Draw) -> HostTensor {
    let dims: Vec<usize> = (0..draw.below(4)).map(|_| draw.below(6)).collect();
    let mut tensor = HostTensor::zeros(draw.pick(&DType::ALL), &dims);
    if draw.bool() {
        for byte in tensor.bytes_mut() {
            *byte = draw.bits().to_le_bytes()[0];
        }
    }
    tensor
}

fn any_float(draw: &mut Draw) -> f64 {
    match draw.below(3) {
        0 => draw.pick(&[
            0.0,
            -0.0,
            1e300,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::MIN_POSITIVE,
            7.0,
        ]),
        1 => draw.float(-3.0, 3.0),
        _ => f64::from(f32::from_bits(
            u32::try_from(draw.int(0, 0x7f7f_ffff)).expect("bits of a finite float"),
        )),
    }
}

fn any_attr(draw: &mut Draw, depth: usize) -> Attr {
    let n = draw.below(4);
    match draw.below(9) {
        0 => Attr::Int(draw.bits().cast_signed()),
        1 => Attr::Float(any_float(draw)),
        2 => Attr::Str(odd_name(draw).to_owned()),
        3 => Attr::Ints((0..n).map(|_| draw.int(-9, 9)).collect()),
        4 => Attr::Floats((0..n).map(|_| any_float(draw)).collect()),
        5 => Attr::Strs((0..n).map(|_| odd_name(draw).to_owned()).collect()),
        6 => Attr::DType(draw.pick(&DType::ALL)),
        7 if depth > 0 => Attr::Graph(Box::new(structure(draw, depth - 1))),
        _ => Attr::Tensor(any_tensor(draw)),
    }
}

/// Gives the values other numbers, as in-place rewriting does.
fn shuffle_values(graph: &mut Graph, draw: &mut Draw) {
    let mut moved: Vec<usize> = (0..graph.values.len()).collect();
    for position in (1..moved.len()).rev() {
        if draw.below(3) == 0 {
            moved.swap(position, draw.below(position + 1));
        }
    }
    let rename = |value: &mut ValueId| {
        value.0 = u32::try_from(moved[value.0 as usize]).expect("graphs are small");
    };
    let mut values: Vec<Option<Value>> = vec![None; moved.len()];
    for (value, &to) in std::mem::take(&mut graph.values).into_iter().zip(&moved) {
        values[to] = Some(value);
    }
    graph.values = values.into_iter().flatten().collect();
    graph.inputs.iter_mut().for_each(rename);
    graph.outputs.iter_mut().for_each(rename);
    graph.captures.iter_mut().for_each(|(own, _)| rename(own));
    for node in &mut graph.nodes {
        node.operands.iter_mut().flatten().for_each(rename);
        node.results.iter_mut().for_each(rename);
    }
    debug_assert!(
        graph
            .nodes
            .iter()
            .enumerate()
            .all(|(n, node)| is_sound(graph, n, node))
    );
}

fn is_sound(graph: &Graph, n: usize, node: &Node) -> bool {
    let id = NodeId(u32::try_from(n).expect("graphs are small"));
    let mut results = node.results.iter().enumerate();
    results.all(|(position, &result)| graph.value(result).source == Source::Node(id, position))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::text::{parse, print};
    use crate::ir::verify::verify;
    use crate::testing::verify_core;

    fn round_trip(graph: &Graph) {
        let text = print(graph);
        let again = parse(&text, &|name| ops::lookup(name).map(|def| def.name))
            .unwrap_or_else(|error| panic!("{error}: {error:?}\n{text}"));
        assert_eq!(again, *graph, "\n{text}\n{}", print(&again));
    }

    #[test]
    fn any_graph_survives_its_text() {
        for seed in 0..2000 {
            let graph = any(seed);
            assert_eq!(verify(&graph), Ok(()), "seed {seed}");
            round_trip(&graph);
        }
    }

    #[test]
    fn core_graphs_are_sound_and_survive_their_text() {
        for seed in 0..100 {
            let graph = core(seed, 20);
            assert_eq!(verify_core(&graph), Ok(()), "seed {seed}");
            assert!(!graph.outputs.is_empty());
            round_trip(&graph);
        }
    }

    /// Every bit pattern of the small kinds, and drawn ones of the others.
    #[test]
    fn every_element_survives_its_text() {
        for dtype in DType::ALL {
            let mut draw = Draw::new(7);
            for start in 0..64 {
                let mut data = HostTensor::zeros(dtype, &[32]);
                let size = dtype.size_bytes();
                for (n, element) in data.bytes_mut().chunks_exact_mut(size).enumerate() {
                    let pattern = match (size, start) {
                        (1, _) => u64::try_from(start * 4 + n % 8).expect("small"),
                        // The smallest, the largest and the odd ones.
                        (_, 0) => u64::MAX >> n,
                        (_, 1) => !(u64::MAX >> n),
                        _ => draw.bits(),
                    };
                    element.copy_from_slice(&pattern.to_le_bytes()[..size]);
                }
                let mut graph = Graph::new("g");
                graph.add_weight("w", data);
                round_trip(&graph);
            }
        }
    }
}
