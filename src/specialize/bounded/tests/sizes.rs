//! Sizes that are computed.

use super::*;
use crate::ir::Operand;

/// A model of rows, flags of those that are kept, and what becomes of the rows that are: values by name.
fn check(build: impl Fn(&mut Graph, Given) -> Vec<ValueId>) {
    check_from(0.0, build);
}

#[derive(Clone, Copy)]
struct Given {
    /// `f32[8,4]`.
    x: ValueId,
    /// The rows that are kept.
    kept: ValueId,
    /// How many these are: `i64[1]`.
    count: ValueId,
}

fn check_from(least: f64, build: impl Fn(&mut Graph, Given) -> Vec<ValueId>) {
    let mut graph = Graph::new("g");
    let x = input(&mut graph, "x", DType::F32, &[8, 4]);
    let holds = input(&mut graph, "holds", DType::Bool, &[8]);
    let kept = add(&mut graph, "Compress", &[x, holds], axis(0));
    let first = Attrs::new().with("end", Attr::Int(1));
    let count = add(&mut graph, "Shape", &[kept], first);
    for (number, value) in build(&mut graph, Given { x, kept, count })
        .into_iter()
        .enumerate()
    {
        graph.add_output(&format!("y{number}"), value);
    }
    let mut draw = Draw::new(29);
    for share in [0.0, 0.2, 0.5, 0.8, 1.1] {
        if share >= least {
            let x = draw.ints(DType::F32, &[8, 4], -4, 4);
            assert_same(&graph, &[x, flags(&mut draw, 8, share, least > 0.0)]);
        }
    }
}

fn results(
    graph: &mut Graph,
    op: &'static str,
    operands: &[ValueId],
    attrs: Attrs,
    count: usize,
) -> Vec<ValueId> {
    let operands: Vec<Operand> = operands.iter().copied().map(Some).collect();
    let origin = vec![format!("{op}_{}", graph.nodes.len())];
    let node = graph.add_node(op, operands, attrs, &vec![("", None); count], origin);
    graph.node(node).results.clone()
}

fn scalar_of(graph: &mut Graph, list: ValueId) -> ValueId {
    let none = integers(graph, &[0], &[]);
    add(graph, "Reshape", &[list, none], Attrs::new())
}

#[test]
fn slices_end_where_data_says() {
    check(|graph, Given { x, kept, count }| {
        let [zero, two, last, minus] = [0, 2, i64::MAX, -3].map(|n| integers(graph, &[1], &[n]));
        let (rows, back, low) = (
            integers(graph, &[1], &[0]),
            integers(graph, &[1], &[-1]),
            integers(graph, &[1], &[i64::MIN]),
        );
        let mut slice = |operands: &[ValueId]| add(graph, "Slice", operands, Attrs::new());
        vec![
            slice(&[x, zero, count]),
            slice(&[x, count, last]),
            slice(&[x, zero, count, rows, two]),
            slice(&[x, minus, count]),
            slice(&[kept, two, last]),
            slice(&[kept, minus, last]),
            slice(&[kept, zero, minus]),
            slice(&[kept, back, low, rows, back]),
            slice(&[kept, zero, last, rows, two]),
        ]
    });
}

/// A row of which data says where it is, and a range of a length that is known.
#[test]
fn slices_of_a_known_length_are_no_longer_than_that() {
    let mut graph = Graph::new("g");
    let x = input(&mut graph, "x", DType::F32, &[8, 4]);
    let place = add(&mut graph, "ArgMax", &[x], axis(0));
    let [zero, one] = [0, 1].map(|n| integers(&mut graph, &[1], &[n]));
    let place = add(&mut graph, "Slice", &[place, zero, one, one], Attrs::new());
    let flat = integers(&mut graph, &[1], &[-1]);
    let place = add(&mut graph, "Reshape", &[place, flat], Attrs::new());
    let next = add(&mut graph, "add", &[place, one], Attrs::new());
    let row = add(&mut graph, "Slice", &[x, place, next], Attrs::new());
    let joined = add(&mut graph, "Concat", &[row, x], axis(0));
    graph.add_output("joined", joined);
    let core = specialize_bounded(&graph, &bind(&graph, &[]).unwrap(), &[]).unwrap();
    assert!(core.bounds.is_empty());
    assert_same(&graph, &[Draw::new(2).ints(DType::F32, &[8, 4], -9, 9)]);
}

#[test]
fn the_best_are_as_many_as_data_says() {
    for largest in [0, 1] {
        check(|graph, Given { x, kept, count }| {
            let most = integers(graph, &[1], &[5]);
            let both = add(graph, "Concat", &[most, count], axis(0));
            let k = add(
                graph,
                "ReduceMin",
                &[both],
                Attrs::new().with("axes", Attr::Ints(vec![0])),
            );
            let attrs = axis(0).with("largest", Attr::Int(largest));
            let mut all = results(graph, "TopK", &[x, k], attrs.clone(), 2);
            let best = results(graph, "TopK", &[kept, k], attrs.clone(), 2);
            all.push(add(graph, "GatherElements", &[kept, best[1]], axis(0)));
            all.extend(best);
            all.extend(results(graph, "TopK", &[kept, count], attrs, 2));
            all
        });
    }
}

#[test]
fn shapes_of_what_is_kept_are_shapes_of_others() {
    check(|graph, Given { x, kept, count }| {
        let shape = add(graph, "Shape", &[kept], Attrs::new());
        let size = add(graph, "Size", &[kept], Attrs::new());
        let four = integers(graph, &[1], &[4]);
        let three = integers(graph, &[1], &[3]);
        let flat = add(graph, "mul", &[count, four], Attrs::new());
        let filled = add(graph, "ConstantOfShape", &[shape], Attrs::new());
        let sum = add(graph, "add", &[filled, kept], Attrs::new());
        let dims = add(graph, "Concat", &[three, count, four], axis(0));
        let repeated = add(graph, "Expand", &[kept, dims], Attrs::new());
        let one = integers(graph, &[1], &[0]);
        let row = add(graph, "Gather", &[x, one], axis(0));
        let rows = add(graph, "Expand", &[row, shape], Attrs::new());
        let rows = add(graph, "mul", &[rows, kept], Attrs::new());
        let reshaped = add(graph, "Reshape", &[kept, flat], Attrs::new());
        let again = add(graph, "Reshape", &[reshaped, shape], Attrs::new());
        let again = add(graph, "add", &[again, kept], Attrs::new());
        vec![shape, size, sum, repeated, rows, reshaped, again]
    });
}

#[test]
fn axes_behind_the_one_that_data_decides_are_put_together() {
    check_from(0.1, |graph, Given { kept, count, .. }| {
        let reshape = |graph: &mut Graph, x, dims: &[i64]| {
            let shape = integers(graph, &[dims.len()], dims);
            add(graph, "Reshape", &[x, shape], Attrs::new())
        };
        let flat = reshape(graph, kept, &[-1]);
        let pairs = reshape(graph, flat, &[-1, 2]);
        let back = reshape(graph, flat, &[1, -1, 2, 2]);
        let one = reshape(graph, kept, &[1, -1, 4]);
        let flat_again = add(graph, "Flatten", &[back], axis(2));
        let row = add(graph, "neg", &[flat], Attrs::new());
        let two = integers(graph, &[1], &[2]);
        let twice = add(graph, "mul", &[count, two], Attrs::new());
        let both = add(graph, "Concat", &[twice, two], axis(0));
        let stated = add(graph, "Reshape", &[row, both], Attrs::new());
        let sum = add(graph, "add", &[stated, pairs], Attrs::new());
        vec![flat, pairs, back, one, flat_again, sum]
    });
}

#[test]
fn ranges_are_as_long_as_data_says() {
    check(|graph, Given { kept, count, .. }| {
        let count = scalar_of(graph, count);
        let [zero, one, three, minus] = [0, 1, 3, -2].map(|n| integers(graph, &[], &[n]));
        let range = |graph: &mut Graph, ends: &[ValueId]| add(graph, "Range", ends, Attrs::new());
        let up = range(graph, &[zero, count, one]);
        let column = integers(graph, &[1], &[1]);
        let numbers = add(graph, "Unsqueeze", &[up, column], Attrs::new());
        let to_float = Attrs::new().with("to", Attr::DType(DType::F32));
        let numbers = add(graph, "cast", &[numbers], to_float.clone());
        let numbered = add(graph, "Concat", &[kept, numbers], axis(1));
        let float = add(graph, "cast", &[count], to_float);
        let [begin, step] = [0.0, 0.5].map(|n| graph.add_weight("", HostTensor::from_f32(&[], &[n])));
        vec![
            up,
            numbered,
            range(graph, &[count, three, one]),
            range(graph, &[count, minus, minus]),
            range(graph, &[three, count, three]),
            range(graph, &[begin, float, step]),
        ]
    });
}

#[test]
fn parts_that_data_shortens_are_joined_without_gaps() {
    check(|graph, Given { x, kept, .. }| {
        let join = |graph: &mut Graph, parts: &[ValueId], along| add(graph, "Concat", parts, axis(along));
        let twice = join(graph, &[kept, kept], 0);
        let many = join(graph, &[x, kept, x, twice, kept], 0);
        let turned = add(graph, "Transpose", &[many], Attrs::new());
        let beside = join(graph, &[turned, turned], 1);
        let wide = join(graph, &[kept, kept], 1);
        let last = join(graph, &[wide, wide], 0);
        vec![twice, many, beside, wide, last]
    });
}

#[test]
fn elements_of_what_is_kept_are_picked() {
    check_from(0.1, |graph, Given { x, kept, .. }| {
        let picked = integers(graph, &[2, 1], &[0, -1]);
        let rows = add(graph, "Gather", &[kept, picked], axis(0));
        let last = integers(graph, &[], &[-1]);
        let last = add(graph, "Gather", &[kept, last], axis(0));
        let best = add(graph, "ArgMax", &[kept], axis(0));
        let elements = add(graph, "GatherElements", &[kept, best], axis(0));
        let sum = add(
            graph,
            "ReduceSum",
            &[kept],
            Attrs::new().with("axes", Attr::Ints(vec![1])),
        );
        let zero = graph.add_weight("", HostTensor::from_f32(&[], &[0.0]));
        let positive = add(graph, "greater", &[sum, zero], Attrs::new());
        let column = integers(graph, &[1], &[1]);
        let positive = add(graph, "Squeeze", &[positive, column], Attrs::new());
        let _ = x;
        let some = add(graph, "Compress", &[kept, positive], axis(0));
        let places = add(graph, "NonZero", &[positive], Attrs::new());
        let places = add(graph, "Transpose", &[places], Attrs::new());
        let same = add(graph, "gather_nd", &[kept, places], Attrs::new());
        let coordinates = add(graph, "NonZero", &[kept], Attrs::new());
        vec![rows, last, elements, some, places, same, coordinates]
    });
}

/// Rows of levels, each computed apart, are put where they came from: as detectors pool their regions.
#[test]
fn rows_are_put_back_to_where_they_came_from() {
    check(|graph, Given { kept, .. }| {
        let zero = graph.add_weight("", HostTensor::from_f32(&[], &[0.0]));
        let column = integers(graph, &[], &[0]);
        let level = add(graph, "Gather", &[kept, column], axis(1));
        let shape = add(graph, "Shape", &[kept], Attrs::new());
        let mut all = add(graph, "ConstantOfShape", &[shape], Attrs::new());
        let mut elements = all;
        for op in ["greater", "less_equal"] {
            let own = add(graph, op, &[level, zero], Attrs::new());
            let places = add(graph, "NonZero", &[own], Attrs::new());
            let places = add(graph, "Transpose", &[places], Attrs::new());
            let rows = add(graph, "gather_nd", &[kept, places], Attrs::new());
            let rows = add(graph, "neg", &[rows], Attrs::new());
            let shape = add(graph, "Shape", &[rows], Attrs::new());
            let index = add(graph, "Expand", &[places, shape], Attrs::new());
            elements = add(graph, "ScatterElements", &[elements, index, rows], axis(0));
            all = add(graph, "ScatterND", &[all, places, rows], Attrs::new());
        }
        vec![all, elements]
    });
}

#[test]
fn boxes_of_which_data_says_how_many_there_are() {
    let mut graph = Graph::new("g");
    let boxes = input(&mut graph, "boxes", DType::F32, &[12, 4]);
    let scores = input(&mut graph, "scores", DType::F32, &[12]);
    let limit = graph.add_weight("", HostTensor::from_f32(&[], &[0.4]));
    let good = add(&mut graph, "greater", &[scores, limit], Attrs::new());
    let kept = add(&mut graph, "Compress", &[boxes, good], axis(0));
    let kept_scores = add(&mut graph, "Compress", &[scores, good], axis(0));
    let [first, both] = [&[0][..], &[0, 1]].map(|axes| integers(&mut graph, &[axes.len()], axes));
    let all = add(&mut graph, "Unsqueeze", &[kept, first], Attrs::new());
    let best = add(&mut graph, "Unsqueeze", &[kept_scores, both], Attrs::new());
    let most = integers(&mut graph, &[1], &[12]);
    let overlap = graph.add_weight("", HostTensor::from_f32(&[1], &[0.3]));
    let rows = add(
        &mut graph,
        "NonMaxSuppression",
        &[all, best, most, overlap],
        Attrs::new(),
    );
    let column = integers(&mut graph, &[], &[2]);
    let places = add(&mut graph, "Gather", &[rows, column], axis(1));
    let ends = [integers(&mut graph, &[1], &[0]), integers(&mut graph, &[1], &[5])];
    let places = add(&mut graph, "Slice", &[places, ends[0], ends[1]], Attrs::new());
    for (name, of) in [("boxes", kept), ("scores", kept_scores)] {
        let picked = add(&mut graph, "Gather", &[of, places], axis(0));
        graph.add_output(name, picked);
    }
    let mut draw = Draw::new(31);
    for low in [-1.0, 0.0, 0.3, 0.5] {
        let boxes = draw.floats(DType::F32, &[12, 4], 0.0, 10.0);
        assert_same(&graph, &[boxes, draw.floats(DType::F32, &[12], low, low + 0.9)]);
    }
}

#[test]
fn distinct_elements() {
    let mut draw = Draw::new(37);
    for (dtype, dims) in [
        (DType::I64, &[7][..]),
        (DType::F32, &[3, 30]),
        (DType::I32, &[1]),
        (DType::U8, &[2, 0]),
    ] {
        for sorted in [0, 1] {
            let mut graph = Graph::new("g");
            let x = input(&mut graph, "x", dtype, dims);
            let attrs = Attrs::new().with("sorted", Attr::Int(sorted));
            for (number, result) in results(&mut graph, "Unique", &[x], attrs, 4)
                .into_iter()
                .enumerate()
            {
                graph.add_output(&format!("y{number}"), result);
            }
            for most in [0, 2, 50] {
                if dims.contains(&0) {
                    let core = specialize_bounded(&graph, &bind(&graph, &[]).unwrap(), &[]).unwrap();
                    assert!(core.bounds.is_empty());
                } else {
                    assert_same(&graph, &[draw.ints(dtype, dims, 0, most)]);
                }
            }
        }
    }
}

/// All of it in one model, as engines are tried with.
#[test]
fn a_model_of_computed_sizes() {
    let mut draw = Draw::new(41);
    for rows in [2, 9] {
        let graph = detectors::sizes(rows);
        for (share, wanted) in [(0.0, 3), (0.3, 0), (0.5, 2), (1.1, 9), (1.1, 4)] {
            let inputs = detectors::sizes_inputs(&mut draw, rows, share, wanted);
            assert_same(&graph, &inputs);
        }
    }
}
