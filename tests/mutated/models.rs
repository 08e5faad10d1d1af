//! Damaged models: their bytes where these are no values of weights, and their parts.

use prost::Message;
use rtrt_codegen::onnx;
use rtrt_codegen::onnx::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};

use crate::{Random, damaged_at};

/// What a whole number of a model becomes.
const EXTREMES: [i64; 10] = [0, 1, -1, 2, 3, 17, 1 << 31, 1 << 40, i64::MAX, i64::MIN];

/// What the op of a node becomes, beside those of other nodes.
const OPS: [&str; 20] = [
    "Add",
    "Cast",
    "Concat",
    "ConstantOfShape",
    "Conv",
    "Expand",
    "Gather",
    "Identity",
    "If",
    "Loop",
    "MatMul",
    "NonZero",
    "Pad",
    "Range",
    "Reshape",
    "Resize",
    "Slice",
    "Softmax",
    "Split",
    "Transpose",
];

/// A model, and the places of its bytes that are no values of weights. Nearly all of its bytes are, and damage to
/// them is only another number.
pub struct Whole {
    bytes: &'static [u8],
    places: Vec<usize>,
    model: ModelProto,
}

impl Whole {
    pub fn of(bytes: &'static [u8]) -> Self {
        let model = onnx::decode(bytes.to_vec()).unwrap();
        let weights = model.graph.iter().flat_map(|graph| &graph.initializer);
        let mut is_value = vec![false; bytes.len()];
        for values in weights.filter_map(|weight| weight.raw_data.as_ref()) {
            let found = bytes
                .windows(values.len().max(1))
                .position(|window| window == values);
            if let Some(start) = found {
                is_value[start..start + values.len()].fill(true);
            }
        }
        let places = (0..bytes.len()).filter(|&place| !is_value[place]).collect();
        Whole { bytes, places, model }
    }

    /// The file with other bytes, or that of a model with other parts.
    pub fn damaged(&self, random: &mut Random) -> Vec<u8> {
        if random.below(4) == 0 {
            return self.other_bytes(random);
        }
        self.other_parts(random)
    }

    /// That of a model with other parts.
    pub fn other_parts(&self, random: &mut Random) -> Vec<u8> {
        let mut model = self.model.clone();
        let graph = model.graph.as_mut().unwrap();
        for _ in 0..=random.below(3) {
            change_graph(graph, random);
        }
        model.encode_to_vec()
    }

    fn other_bytes(&self, random: &mut Random) -> Vec<u8> {
        damaged_at(self.bytes, random, |random, bytes| {
            let anywhere = random.below(bytes.len());
            let place = self.places[random.below(self.places.len())];
            let is_structure = random.below(8) > 0 && place < bytes.len();
            if is_structure { place } else { anywhere }
        })
    }
}

fn change_graph(graph: &mut GraphProto, random: &mut Random) {
    let number = random.below(graph.node.len());
    match random.below(12) {
        0 => graph.node.truncate(number),
        1 => {
            graph.node.remove(number);
        }
        2 => {
            let again = graph.node[number].clone();
            graph.node.push(again);
        }
        3 => {
            let other = random.below(graph.node.len());
            graph.node.swap(number, other);
        }
        4..6 => change_tensor(any(&mut graph.initializer, random), random),
        6 => {
            let name = any_name(graph, random);
            any(&mut graph.output, random).name = name;
        }
        7 => change_op(graph, number, random),
        8 => {
            let name = any_name(graph, random);
            *any(&mut graph.node[number].input, random) = name;
        }
        _ => change_attributes(graph, number, random),
    }
    if graph.node.is_empty() {
        graph.node.push(NodeProto::default());
    }
}

fn any<'a, T>(parts: &'a mut Vec<T>, random: &mut Random) -> &'a mut T
where
    T: Default,
{
    if parts.is_empty() {
        parts.push(T::default());
    }
    let number = random.below(parts.len());
    &mut parts[number]
}

/// That of a weight or of what a node makes.
fn any_name(graph: &mut GraphProto, random: &mut Random) -> String {
    if random.below(4) == 0 {
        return any(&mut graph.initializer, random).name.clone();
    }
    let node = any(&mut graph.node, random);
    any(&mut node.output, random).clone()
}

fn change_op(graph: &mut GraphProto, number: usize, random: &mut Random) {
    let of_model = any(&mut graph.node, random).op_type.clone();
    let op = if random.below(2) == 0 {
        of_model
    } else {
        OPS[random.below(OPS.len())].to_owned()
    };
    graph.node[number].op_type = op;
}

/// One attribute of a node is removed, is another node's, or says something else.
fn change_attributes(graph: &mut GraphProto, number: usize, random: &mut Random) {
    let others: Vec<AttributeProto> = graph
        .node
        .iter()
        .flat_map(|node| node.attribute.clone())
        .collect();
    let own = &mut graph.node[number].attribute;
    match random.below(4) {
        0 => {
            own.pop();
        }
        1 if !others.is_empty() => own.push(others[random.below(others.len())].clone()),
        _ => change_attribute(any(own, random), random),
    }
}

fn change_attribute(attribute: &mut AttributeProto, random: &mut Random) {
    let number = EXTREMES[random.below(EXTREMES.len())];
    match random.below(6) {
        0 => attribute.i = Some(number),
        1 => attribute.f = Some([f32::NAN, f32::INFINITY, 0.0, -1.0][random.below(4)]),
        2 => attribute.ints.push(number),
        3 => *any(&mut attribute.ints, random) = number,
        4 => attribute.r#type = i32::try_from(random.below(16)).unwrap(),
        _ => {
            if let Some(tensor) = attribute.t.as_mut() {
                change_tensor(tensor, random);
            }
        }
    }
}

fn change_tensor(tensor: &mut TensorProto, random: &mut Random) {
    let number = EXTREMES[random.below(EXTREMES.len())];
    match random.below(6) {
        0 => *any(&mut tensor.dims, random) = number,
        1 => tensor.dims.push(number),
        2 => {
            tensor.dims.pop();
        }
        3 => tensor.dims.reverse(),
        4 => tensor.data_type = i32::try_from(random.below(28)).unwrap(),
        _ => {
            let values = tensor.raw_data.take().unwrap_or_default();
            tensor.raw_data = Some(values.slice(..random.below(values.len() + 1)));
        }
    }
}
