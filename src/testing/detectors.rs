//! Models whose outputs are as long as data says, as detectors end in.

use crate::ir::{Attr, Attrs, DType, Graph, HostTensor, Operand, TensorType, ValueId};
use crate::ops::samples::Draw;

fn add(graph: &mut Graph, op: &'static str, operands: &[ValueId], attrs: Attrs) -> ValueId {
    let operands: Vec<Operand> = operands.iter().copied().map(Some).collect();
    let origin = vec![format!("{op}_{}", graph.nodes.len())];
    let name = format!("v{}", graph.values.len());
    let node = graph.add_node(op, operands, attrs, &[(&name, None)], origin);
    graph.node(node).results[0]
}

/// The results of a node that has several.
fn results(graph: &mut Graph, op: &'static str, operands: &[ValueId], count: usize) -> Vec<ValueId> {
    let operands: Vec<Operand> = operands.iter().copied().map(Some).collect();
    let origin = vec![format!("{op}_{}", graph.nodes.len())];
    let node = graph.add_node(op, operands, Attrs::new(), &vec![("", None); count], origin);
    graph.node(node).results.clone()
}

fn integers(graph: &mut Graph, dims: &[usize], values: &[i64]) -> ValueId {
    graph.add_weight("", HostTensor::from_i64(dims, values))
}

fn axis(axis: i64) -> Attrs {
    Attrs::new().with("axis", Attr::Int(axis))
}

/// What a detector keeps.
#[derive(Clone, Copy, Debug)]
pub struct Detector {
    pub images: usize,
    pub boxes: usize,
    pub classes: usize,
    /// Boxes of a class at most.
    pub most: i64,
    /// Scores must be above it.
    pub lowest: Option<f32>,
}

impl Detector {
    /// Boxes that overlap no better one, and for each of these a row of its corners, score and class.
    pub fn graph(self) -> Graph {
        let mut graph = Graph::new("detector");
        let [boxes, scores] = [("boxes", self.box_dims()), ("scores", self.score_dims())]
            .map(|(name, dims)| graph.add_input(name, Some(TensorType::new(DType::F32, &dims))));
        let number =
            |graph: &mut Graph, value: f32| graph.add_weight("", HostTensor::from_f32(&[1], &[value]));
        let mut operands = vec![boxes, scores, integers(&mut graph, &[1], &[self.most])];
        operands.push(number(&mut graph, 0.3));
        operands.extend(self.lowest.map(|lowest| number(&mut graph, lowest)));
        let kept = add(&mut graph, "NonMaxSuppression", &operands, Attrs::new());
        let pair = integers(&mut graph, &[2], &[0, 2]);
        let places = add(&mut graph, "Gather", &[kept, pair], axis(1));
        let corners = add(&mut graph, "gather_nd", &[boxes, places], Attrs::new());
        let best = add(&mut graph, "gather_nd", &[scores, kept], Attrs::new());
        let column = integers(&mut graph, &[1], &[1]);
        let best = add(&mut graph, "Unsqueeze", &[best, column], Attrs::new());
        let label = add(&mut graph, "Gather", &[kept, column], axis(1));
        let to_float = Attrs::new().with("to", Attr::DType(DType::F32));
        let label = add(&mut graph, "cast", &[label], to_float);
        let rows = add(&mut graph, "Concat", &[corners, best, label], axis(1));
        graph.add_output("kept", kept);
        graph.add_output("rows", rows);
        graph
    }

    fn box_dims(self) -> Vec<usize> {
        vec![self.images, self.boxes, 4]
    }

    fn score_dims(self) -> Vec<usize> {
        vec![self.images, self.classes, self.boxes]
    }

    /// Boxes of which many overlap, and scores between zero and one.
    pub fn inputs(self, draw: &mut Draw) -> Vec<HostTensor> {
        vec![
            draw.floats(DType::F32, &self.box_dims(), 0.0, 10.0),
            draw.floats(DType::F32, &self.score_dims(), 0.0, 1.0),
        ]
    }
}

/// The rows of `data` at which `mask` is not zero, with their places.
pub fn masked(rows: usize, columns: usize, depth: usize) -> Graph {
    let mut graph = Graph::new("masked");
    let mask = graph.add_input("mask", Some(TensorType::new(DType::I64, &[rows, columns])));
    let data = graph.add_input("data", Some(TensorType::new(DType::F32, &[rows, columns, depth])));
    let places = add(&mut graph, "NonZero", &[mask], Attrs::new());
    let turn = Attrs::new().with("perm", Attr::Ints(vec![1, 0]));
    let turned = add(&mut graph, "Transpose", &[places], turn);
    let found = add(&mut graph, "gather_nd", &[data, turned], Attrs::new());
    let largest = Attrs::new().with("axes", Attr::Ints(vec![1]));
    let largest = add(&mut graph, "ReduceMax", &[found], largest);
    for (name, value) in [("places", places), ("found", found), ("largest", largest)] {
        graph.add_output(name, value);
    }
    graph
}

/// Rows that are kept, and what is as long as these: the best of them, their numbers, slices, joined and reshaped ones,
/// and the distinct labels of all.
pub fn sizes(rows: usize) -> Graph {
    let mut own = Graph::new("sizes");
    let graph = &mut own;
    let x = graph.add_input("x", Some(TensorType::new(DType::F32, &[rows, 4])));
    let [labels, wanted] = [("labels", rows), ("wanted", 1)]
        .map(|(name, extent)| graph.add_input(name, Some(TensorType::new(DType::I64, &[extent]))));
    let [zero, one, last, open] = [0, 1, i64::MAX, -1].map(|number| integers(graph, &[1], &[number]));
    let holds = add(graph, "greater", &[labels, zero], Attrs::new());
    let kept = add(graph, "Compress", &[x, holds], axis(0));
    let shape = add(graph, "Shape", &[kept], Attrs::new());
    let count = add(graph, "Slice", &[shape, zero, one], Attrs::new());
    let scores = add(
        graph,
        "ReduceSum",
        &[kept, one],
        Attrs::new().with("keepdims", Attr::Int(0)),
    );
    let most = add(graph, "min", &[wanted, count], Attrs::new());
    let best = results(graph, "TopK", &[scores, most], 2);
    let rows_of_best = add(graph, "Gather", &[kept, best[1]], axis(0));
    let none = integers(graph, &[0], &[]);
    let [first, step] = [0, 1].map(|number| integers(graph, &[], &[number]));
    let end = add(graph, "Reshape", &[count, none], Attrs::new());
    let numbers = add(graph, "Range", &[first, end, step], Attrs::new());
    let left = add(graph, "Slice", &[x, count, last], Attrs::new());
    let joined = add(graph, "Concat", &[kept, left, rows_of_best], axis(0));
    let half = graph.add_weight("", HostTensor::from_f32(&[], &[0.5]));
    let filled = add(graph, "Expand", &[half, shape], Attrs::new());
    let moved = add(graph, "add", &[kept, filled], Attrs::new());
    let two = integers(graph, &[1], &[2]);
    let pair = add(graph, "Concat", &[open, two], axis(0));
    let pairs = add(graph, "Reshape", &[moved, pair], Attrs::new());
    let along = integers(graph, &[], &[0]);
    let running = add(graph, "CumSum", &[scores, along], Attrs::new());
    let sum = add(graph, "ReduceSum", &[rows_of_best, zero], Attrs::new());
    let kinds = results(graph, "Unique", &[labels], 4);
    for (name, value) in [
        ("best", best[0]),
        ("rows", rows_of_best),
        ("numbers", numbers),
        ("joined", joined),
        ("pairs", pairs),
        ("running", running),
        ("sum", sum),
        ("kinds", kinds[0]),
        ("occurs", kinds[3]),
    ] {
        graph.add_output(name, value);
    }
    own
}

/// Inputs of [`sizes`], of which about a `share` of the rows is kept.
pub fn sizes_inputs(draw: &mut Draw, rows: usize, share: f64, wanted: i64) -> Vec<HostTensor> {
    vec![
        draw.ints(DType::F32, &[rows, 4], -9, 9),
        sparse(draw, &[rows], share),
        HostTensor::from_i64(&[1], &[wanted]),
    ]
}

/// Zeros among other integers, of which there is about a `share`.
pub fn sparse(draw: &mut Draw, dims: &[usize], share: f64) -> HostTensor {
    let n: usize = dims.iter().product();
    let value = |draw: &mut Draw| {
        if draw.float(0.0, 1.0) < share {
            draw.int(1, 9)
        } else {
            0
        }
    };
    let values: Vec<i64> = (0..n).map(|_| value(draw)).collect();
    HostTensor::from_i64(dims, &values)
}
