//! Small graphs for tests: a builder with inferred types, and a generator.

use crate::ir::{Attr, Attrs, DType, Graph, HostTensor, TensorType, ValueId};
use crate::ops::samples::Draw;
use crate::ops::{self, NEWEST_OPSET};

/// Builds a typed graph of core ops.
pub struct GraphBuilder {
    pub graph: Graph,
    draw: Draw,
}

impl GraphBuilder {
    pub fn new(name: &str, seed: u64) -> Self {
        GraphBuilder {
            graph: Graph::new(name),
            draw: Draw::new(seed),
        }
    }

    pub fn input(&mut self, dims: &[usize]) -> ValueId {
        let name = format!("x{}", self.graph.inputs.len());
        self.graph
            .add_input(&name, Some(TensorType::new(DType::F32, dims)))
    }

    /// A drawn constant.
    pub fn weight(&mut self, dims: &[usize]) -> ValueId {
        let data = self.tensor(dims);
        self.graph.add_weight("w", data)
    }

    pub fn scalar(&mut self, value: f32) -> ValueId {
        self.graph.add_weight("c", HostTensor::from_f32(&[], &[value]))
    }

    /// Drawn data.
    pub fn tensor(&mut self, dims: &[usize]) -> HostTensor {
        let n: usize = dims.iter().product();
        #[expect(clippy::cast_possible_truncation, reason = "drawn numbers need no precision")]
        let values: Vec<f32> = (0..n).map(|_| self.draw.float(-1.0, 1.0) as f32).collect();
        HostTensor::from_f32(dims, &values)
    }

    /// A use of an op with one result.
    ///
    /// # Panics
    /// If the operands do not fit the op.
    pub fn op(&mut self, op: &'static str, operands: &[ValueId], attrs: Attrs) -> ValueId {
        let origin = [format!("{op}_{}", self.graph.nodes.len())];
        let operands = operands.iter().copied().map(Some).collect();
        let results = ops::emit(&mut self.graph, op, operands, attrs, 1, NEWEST_OPSET, &origin);
        results.unwrap_or_else(|error| panic!("`{op}`: {error}"))[0]
    }

    /// A use of an op without attributes.
    pub fn plain(&mut self, op: &'static str, operands: &[ValueId]) -> ValueId {
        self.op(op, operands, Attrs::new())
    }

    pub fn output(&mut self, value: ValueId) {
        let name = format!("y{}", self.graph.outputs.len());
        self.graph.add_output(&name, value);
    }

    /// Drawn data for every input.
    pub fn inputs(&mut self) -> Vec<HostTensor> {
        let dims: Vec<Vec<usize>> = self
            .graph
            .inputs
            .iter()
            .map(|&input| self.graph.ty(input).dims())
            .collect();
        dims.iter().map(|dims| self.tensor(dims)).collect()
    }
}

pub fn ints(values: &[i64]) -> Attr {
    Attr::Ints(values.to_vec())
}

/// A drawn graph of `n_nodes` ops over `[6, 8]` and smaller tensors: maps, views, row
/// reductions, products, index ops, with values read several times.
pub fn drawn_graph(n_nodes: usize, seed: u64) -> GraphBuilder {
    let mut builder = GraphBuilder::new("drawn", seed);
    let mut draw = Draw::new(seed ^ 0x5eed);
    let mut values = vec![builder.input(&[6, 8]), builder.input(&[6, 8])];
    while builder.graph.nodes.len() < n_nodes {
        let recent = values.len().min(4);
        let a = values[values.len() - 1 - draw.below(recent)];
        let b = values[draw.below(values.len())];
        values.push(drawn_op(&mut builder, &mut draw, a, b));
    }
    let mut read = vec![false; builder.graph.values.len()];
    for value in builder
        .graph
        .nodes
        .iter()
        .flat_map(|node| node.operands.iter().flatten())
    {
        read[value.0 as usize] = true;
    }
    for value in values {
        if !read[value.0 as usize] && builder.graph.producer(value).is_some() {
            builder.output(value);
        }
    }
    if draw.below(4) == 0 {
        let middle = builder.graph.nodes[n_nodes / 2].results[0];
        builder.output(middle);
    }
    builder
}

/// One op of `[6, 8]` values with a `[6, 8]` result.
fn drawn_op(builder: &mut GraphBuilder, draw: &mut Draw, a: ValueId, b: ValueId) -> ValueId {
    match draw.below(12) {
        0 => builder.plain("relu", &[a]),
        1 => builder.plain("tanh", &[a]),
        2 | 3 => builder.plain("add", &[a, b]),
        4 => builder.plain("mul", &[a, b]),
        5 => {
            let w = builder.weight(&[8, 8]);
            builder.plain("matmul", &[a, w])
        }
        6 => builder.op("softmax", &[a], Attrs::new().with("axis", Attr::Int(1))),
        7 => {
            let mean = builder.op("reduce_mean", &[a], Attrs::new().with("axes", ints(&[1])));
            builder.plain("sub", &[b, mean])
        }
        8 => {
            let turned = builder.op("transpose", &[a], Attrs::new().with("perm", ints(&[1, 0])));
            let back = builder.plain("sigmoid", &[turned]);
            builder.op("reshape", &[back], Attrs::new().with("shape", ints(&[6, 8])))
        }
        9 => {
            let left = slice(builder, a, [0, 0], [6, 3]);
            let right = slice(builder, b, [0, 3], [6, 8]);
            builder.op("concat", &[left, right], Attrs::new().with("axis", Attr::Int(1)))
        }
        10 => {
            let total = builder.op("reduce_max", &[a], Attrs::new().with("axes", ints(&[0])));
            builder.plain("add", &[total, b])
        }
        _ => {
            let bias = builder.weight(&[8]);
            builder.plain("add", &[a, bias])
        }
    }
}

fn slice(builder: &mut GraphBuilder, x: ValueId, starts: [i64; 2], ends: [i64; 2]) -> ValueId {
    let attrs = Attrs::new()
        .with("starts", ints(&starts))
        .with("ends", ints(&ends))
        .with("steps", ints(&[1, 1]));
    builder.op("slice", &[x], attrs)
}

/// A drawn graph of about `n_nodes` ops in which half of the values are concatenations, of values that
/// others read, too: of slices, of inputs and constants, of one value twice, of concatenations.
pub fn joined_graph(n_nodes: usize, seed: u64) -> GraphBuilder {
    const MOST_ELEMENTS: usize = 400;
    let mut builder = GraphBuilder::new("joined", seed);
    let mut draw = Draw::new(seed ^ 0x1015);
    let first = builder.input(&[4, 8]);
    let mut values = vec![first, builder.input(&[4, 3]), builder.weight(&[4, 2])];
    while builder.graph.nodes.len() < n_nodes {
        let recent = values.len().min(6);
        let pick = |draw: &mut Draw, values: &[ValueId]| values[values.len() - 1 - draw.below(recent)];
        let value = pick(&mut draw, &values);
        let next = if draw.below(2) == 0 {
            let mut parts: Vec<ValueId> = (0..=draw.below(3)).map(|_| pick(&mut draw, &values)).collect();
            parts.push(value);
            joined(&mut builder, &mut draw, &parts)
        } else {
            Some(computed(&mut builder, &mut draw, value))
        };
        let fits = |value: &ValueId| builder.graph.ty(*value).n_elements() <= MOST_ELEMENTS;
        values.extend(next.filter(fits));
    }
    let last = builder.graph.nodes.len() - 1;
    for node in [last, last - draw.below(last), draw.below(last)] {
        let value = builder.graph.nodes[node].results[0];
        builder.output(value);
    }
    builder
}

/// `parts` joined along an axis in which alone they differ.
fn joined(builder: &mut GraphBuilder, draw: &mut Draw, parts: &[ValueId]) -> Option<ValueId> {
    let axis = usize::from(draw.below(4) > 0);
    let other = |value: &ValueId| builder.graph.ty(*value).dims()[1 - axis];
    let parts: Vec<ValueId> = parts
        .iter()
        .copied()
        .filter(|part| other(part) == other(&parts[0]))
        .collect();
    let attrs = Attrs::new().with("axis", Attr::Int(i64::try_from(axis).expect("two axes")));
    (parts.len() > 1).then(|| builder.op("concat", &parts, attrs))
}

/// A value with other numbers of columns or in two halves, or with one function of each element or row.
fn computed(builder: &mut GraphBuilder, draw: &mut Draw, x: ValueId) -> ValueId {
    let dims = builder.graph.ty(x).dims();
    let size = |extent: usize| i64::try_from(extent).expect("small");
    match draw.below(6) {
        0 => builder.plain("tanh", &[x]),
        1 => builder.op("softmax", &[x], Attrs::new().with("axis", Attr::Int(1))),
        2 => {
            let (rows, columns) = (size(dims[0]), size(dims[1]));
            let half = columns / 2;
            let (left, right) = (
                slice(builder, x, [0, 0], [rows, half]),
                slice(builder, x, [0, half], [rows, columns]),
            );
            let right = builder.plain("tanh", &[right]);
            let own = slice(builder, x, [0, half], [rows, columns]);
            let parts: &[ValueId] = if half == 0 {
                &[own, right]
            } else {
                &[left, own, right]
            };
            builder.op("concat", parts, Attrs::new().with("axis", Attr::Int(1)))
        }
        3 => {
            let shape = ints(&[size(dims[1]), size(dims[0])]);
            let moved = builder.op("reshape", &[x], Attrs::new().with("shape", shape));
            let moved = builder.plain("sigmoid", &[moved]);
            let shape = ints(&[size(dims[0]), size(dims[1])]);
            builder.op("reshape", &[moved], Attrs::new().with("shape", shape))
        }
        _ => {
            let columns = [3, 4, 8][draw.below(3)];
            let w = builder.weight(&[dims[1], columns]);
            builder.plain("matmul", &[x, w])
        }
    }
}
