//! What data decides, against the reference, which knows the data.

mod drawn;
mod reductions;
mod refused;
mod sizes;
mod stated;

use super::*;
use crate::ir::{Attr, DType, TensorType};
use crate::ops::samples::Draw;
use crate::reference;
use crate::specialize::tests::add;
use crate::specialize::{SpecializeError, bind, bind_inputs, specialize, specialize_bounded};
use crate::testing::detectors::{self, Detector, sparse};

fn input(graph: &mut Graph, name: &str, dtype: DType, dims: &[usize]) -> ValueId {
    graph.add_input(name, Some(TensorType::new(dtype, dims)))
}

fn integers(graph: &mut Graph, dims: &[usize], values: &[i64]) -> ValueId {
    graph.add_weight("", HostTensor::from_i64(dims, values))
}

fn axis(axis: i64) -> Attrs {
    Attrs::new().with("axis", Attr::Int(axis))
}

/// Compares the model with the graph that an engine is made of, and gives the outputs.
#[track_caller]
fn assert_same(graph: &Graph, inputs: &[HostTensor]) -> Vec<HostTensor> {
    let bindings = bind_inputs(graph, inputs).unwrap();
    assert!(matches!(
        specialize(graph, &bindings),
        Err(SpecializeError::DependsOnData(_))
    ));
    let core = specialize_bounded(graph, &bindings, &[]).unwrap();
    let found = counted(&core, &reference::run(&core, inputs).unwrap()).unwrap();
    let wanted = reference::run(graph, inputs).unwrap();
    assert_eq!(found, wanted);
    found
}

/// Flags of which about a `share` is set, at least one where that is asked for.
fn flags(draw: &mut Draw, count: usize, share: f64, some: bool) -> HostTensor {
    let mut flags: Vec<u8> = (0..count)
        .map(|_| u8::from(draw.float(0.0, 1.0) < share))
        .collect();
    if some && !flags.contains(&1) {
        flags[count / 2] = 1;
    }
    HostTensor::from_slice(DType::Bool, &[count], &flags)
}

#[track_caller]
fn refusal(graph: &Graph) -> String {
    let error = specialize_bounded(graph, &bind(graph, &[]).unwrap(), &[]).unwrap_err();
    assert!(error.is_unsupported(), "{error}");
    assert!(matches!(error, SpecializeError::DependsOnData(_)), "{error}");
    error.to_string()
}

#[test]
fn coordinates_of_none_of_some_and_of_all_elements() {
    let mut draw = Draw::new(3);
    for dims in [&[7][..], &[3, 5, 4], &[40, 41], &[33, 2, 31], &[64], &[1]] {
        let mut graph = Graph::new("g");
        let x = input(&mut graph, "x", DType::I64, dims);
        let places = add(&mut graph, "NonZero", &[x], Attrs::new());
        graph.add_output("places", places);
        let most: usize = dims.iter().product();
        for (share, count) in [(0.0, Some(0)), (0.02, None), (0.5, None), (1.1, Some(most))] {
            let x = sparse(&mut draw, dims, share);
            let found = assert_same(&graph, &[x]);
            assert_eq!(found[0].dims()[0], dims.len());
            assert!(count.is_none_or(|count| found[0].dims()[1] == count));
        }
    }
}

#[test]
fn numbers_that_are_none_are_not_zero() {
    let mut graph = Graph::new("g");
    let x = input(&mut graph, "x", DType::F32, &[5]);
    let places = add(&mut graph, "NonZero", &[x], Attrs::new());
    graph.add_output("places", places);
    let x = HostTensor::from_f32(&[5], &[f32::NAN, -0.0, 0.0, f32::NEG_INFINITY, 1e-30]);
    let found = assert_same(&graph, &[x]);
    assert_eq!(found[0], HostTensor::from_i64(&[1, 3], &[0, 3, 4]));
}

/// `NonZero` turned to rows of indices, and what is gathered by them.
#[test]
fn elements_behind_coordinates_are_gathered() {
    let mut graph = Graph::new("g");
    let mask = input(&mut graph, "mask", DType::I64, &[9, 5]);
    let data = input(&mut graph, "data", DType::F32, &[9, 5, 3]);
    let weights = input(&mut graph, "weights", DType::F32, &[3, 2]);
    let places = add(&mut graph, "NonZero", &[mask], Attrs::new());
    let turn = Attrs::new().with("perm", Attr::Ints(vec![1, 0]));
    let rows = add(&mut graph, "Transpose", &[places], turn);
    let found = add(&mut graph, "gather_nd", &[data, rows], Attrs::new());
    let negative = add(&mut graph, "neg", &[found], Attrs::new());
    let product = add(&mut graph, "MatMul", &[negative, weights], Attrs::new());
    let last = add(
        &mut graph,
        "ReduceMax",
        &[product],
        Attrs::new().with("axes", Attr::Ints(vec![1])),
    );
    let column = integers(&mut graph, &[], &[1]);
    let first = add(&mut graph, "Gather", &[rows, column], axis(1));
    let four = integers(&mut graph, &[], &[4]);
    let zero = integers(&mut graph, &[1], &[0]);
    let ends = integers(&mut graph, &[1], &[6]);
    let some = add(&mut graph, "Slice", &[product, zero, ends], Attrs::new());
    let shifted = add(&mut graph, "add", &[first, four], Attrs::new());
    for (name, value) in [
        ("product", product),
        ("last", last),
        ("shifted", shifted),
        ("some", some),
    ] {
        graph.add_output(name, value);
    }
    let mut draw = Draw::new(11);
    for share in [0.0, 0.1, 0.5, 1.1] {
        let inputs = [
            sparse(&mut draw, &[9, 5], share),
            draw.floats(DType::F32, &[9, 5, 3], -1.0, 1.0),
            draw.floats(DType::F32, &[3, 2], -1.0, 1.0),
        ];
        let found = assert_same(&graph, &inputs);
        assert_eq!(found[3].dims()[0], found[0].dims()[0].min(6));
    }
}

#[test]
fn slices_at_which_a_condition_holds() {
    let mut draw = Draw::new(5);
    let cases = [
        (&[6, 4][..], Some(0), 6),
        (&[6, 70], Some(1), 70),
        (&[5, 9], None, 20),
        (&[3], Some(0), 2),
        (&[1, 2], Some(0), 1),
    ];
    for (dims, along, named) in cases {
        let mut graph = Graph::new("g");
        let x = input(&mut graph, "x", DType::F32, dims);
        let score = input(&mut graph, "score", DType::I64, &[named]);
        let zero = integers(&mut graph, &[], &[0]);
        let holds = add(&mut graph, "greater", &[score, zero], Attrs::new());
        let kept = add(
            &mut graph,
            "Compress",
            &[x, holds],
            along.map_or_else(Attrs::new, axis),
        );
        let doubled = add(&mut graph, "add", &[kept, kept], Attrs::new());
        graph.add_output("kept", doubled);
        for share in [0.0, 0.4, 1.1] {
            let x = draw.floats(DType::F32, dims, -1.0, 1.0);
            assert_same(&graph, &[x, sparse(&mut draw, &[named], share)]);
        }
    }
}

#[test]
fn boxes_that_overlap_no_better_one() {
    let mut draw = Draw::new(17);
    let cases = [
        (20, 3, 5, Some(0.5)),
        (50, 2, 100, None),
        (33, 1, 7, Some(2.0)),
        (4, 2, 0, None),
        (60, 4, 60, Some(0.0)),
    ];
    for (boxes, classes, most, threshold) in cases {
        let detector = Detector {
            images: 2,
            boxes,
            classes,
            most,
            lowest: threshold,
        };
        let (graph, inputs) = (detector.graph(), detector.inputs(&mut draw));
        if most == 0 {
            let core = specialize_bounded(&graph, &bind(&graph, &[]).unwrap(), &[]).unwrap();
            assert!(core.bounds.is_empty());
            continue;
        }
        let found = assert_same(&graph, &inputs);
        assert_eq!(found[0].dims()[0] == 0, threshold == Some(2.0));
    }
}

#[test]
fn as_many_boxes_as_there_can_be() {
    let detector = Detector {
        images: 2,
        boxes: 6,
        classes: 2,
        most: 6,
        lowest: None,
    };
    let graph = detector.graph();
    let apart: Vec<f32> = (0..48)
        .map(|n: u8| [0.0, 0.0, 1.0, 1.0][usize::from(n % 4)] + f32::from(n / 4 % 6 * 3))
        .collect();
    let scores = Draw::new(1).floats(DType::F32, &[2, 2, 6], -1.0, 1.0);
    let found = assert_same(&graph, &[HostTensor::from_f32(&[2, 6, 4], &apart), scores]);
    assert_eq!(found[0].dims(), [24, 3]);
}

/// A vector that is as long as data says, and what becomes of it.
fn after_compress(build: impl Fn(&mut Graph, ValueId) -> ValueId) -> Graph {
    let mut graph = Graph::new("g");
    let x = input(&mut graph, "x", DType::F32, &[8, 4]);
    let holds = input(&mut graph, "holds", DType::Bool, &[8]);
    let kept = add(&mut graph, "Compress", &[x, holds], axis(0));
    let y = build(&mut graph, kept);
    graph.add_output("y", y);
    graph
}
