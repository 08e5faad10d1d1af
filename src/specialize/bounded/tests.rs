//! What data decides, against the reference, which knows the data.

use super::super::tests::add;
use super::super::{SpecializeError, bind, bind_inputs, specialize, specialize_bounded};
use super::*;
use crate::ir::{Attr, DType};
use crate::ops::samples::Draw;
use crate::reference;
use crate::testing::detectors::{Detector, sparse};

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
    let core = specialize_bounded(graph, &bindings).unwrap();
    let found = counted(&core, &reference::run(&core, inputs).unwrap());
    let wanted = reference::run(graph, inputs).unwrap();
    assert_eq!(found, wanted);
    found
}

#[track_caller]
fn refusal(graph: &Graph) -> String {
    let error = specialize_bounded(graph, &bind(graph, &[]).unwrap()).unwrap_err();
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
    let last = add(&mut graph, "ReduceMax", &[product], Attrs::new().with("axes", Attr::Ints(vec![1])));
    let column = integers(&mut graph, &[], &[1]);
    let first = add(&mut graph, "Gather", &[rows, column], axis(1));
    let four = integers(&mut graph, &[], &[4]);
    let zero = integers(&mut graph, &[1], &[0]);
    let ends = integers(&mut graph, &[1], &[6]);
    let some = add(&mut graph, "Slice", &[product, zero, ends], Attrs::new());
    let shifted = add(&mut graph, "add", &[first, four], Attrs::new());
    for (name, value) in [("product", product), ("last", last), ("shifted", shifted), ("some", some)] {
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
    let cases = [(&[6, 4][..], Some(0), 6), (&[6, 70], Some(1), 70), (&[5, 9], None, 20), (&[3], Some(0), 2)];
    for (dims, along, named) in cases {
        let mut graph = Graph::new("g");
        let x = input(&mut graph, "x", DType::F32, dims);
        let score = input(&mut graph, "score", DType::I64, &[named]);
        let zero = integers(&mut graph, &[], &[0]);
        let holds = add(&mut graph, "greater", &[score, zero], Attrs::new());
        let kept = add(&mut graph, "Compress", &[x, holds], along.map_or_else(Attrs::new, axis));
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
            let core = specialize_bounded(&graph, &bind(&graph, &[]).unwrap()).unwrap();
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
    let apart: Vec<f32> = (0..48).map(|n| [0.0, 0.0, 1.0, 1.0][n % 4] + (n / 4 % 6 * 3) as f32).collect();
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

#[test]
fn what_mixes_elements_is_refused() {
    let reduced = |op, of: i64| {
        let attrs = Attrs::new().with("axes", Attr::Ints(vec![of]));
        refusal(&after_compress(|graph, kept| add(graph, op, &[kept], attrs.clone())))
    };
    let message = reduced("ReduceSum", 0);
    assert!(message.contains("`ReduceSum`") && message.contains("mixes elements along axis 0"), "{message}");
    assert!(message.contains("(`Compress`)"), "{message}");
    assert!(reduced("ReduceMean", 0).contains("mixes"));
    let message = refusal(&after_compress(|graph, kept| add(graph, "Softmax", &[kept], axis(0))));
    assert!(message.contains("mixes"), "{message}");
    let gram = |graph: &mut Graph, kept| {
        let turned = add(graph, "Transpose", &[kept], Attrs::new());
        add(graph, "MatMul", &[turned, kept], Attrs::new())
    };
    assert!(refusal(&after_compress(gram)).contains("`matmul` mixes"));
    let joined = |graph: &mut Graph, kept| add(graph, "Concat", &[kept, kept], axis(0));
    assert!(refusal(&after_compress(joined)).contains("`concat` mixes"));
    let picked = |graph: &mut Graph, kept| {
        let index = integers(graph, &[2], &[1, 0]);
        add(graph, "Gather", &[kept, index], axis(0))
    };
    assert!(refusal(&after_compress(picked)).contains("`gather` mixes"));
    let merged = |graph: &mut Graph, kept| {
        let shape = integers(graph, &[1], &[-1]);
        add(graph, "Reshape", &[kept, shape], Attrs::new())
    };
    assert!(refusal(&after_compress(merged)).contains("`reshape` mixes"));
    let again = |graph: &mut Graph, kept| add(graph, "NonZero", &[kept], Attrs::new());
    assert!(refusal(&after_compress(again)).contains("depends on that once more"));
}

#[test]
fn what_needs_the_extent_itself_is_refused() {
    let shape = |graph: &mut Graph, kept| add(graph, "Shape", &[kept], Attrs::new());
    assert!(refusal(&after_compress(shape)).contains("an extent that data decides"));
    let size = |graph: &mut Graph, kept| add(graph, "Size", &[kept], Attrs::new());
    assert!(refusal(&after_compress(size)).contains("an extent that data decides"));
    // Right for the largest extent alone.
    let reshaped = |graph: &mut Graph, kept| {
        let shape = integers(graph, &[2], &[8, 4]);
        add(graph, "Reshape", &[kept, shape], Attrs::new())
    };
    assert!(refusal(&after_compress(reshaped)).contains("may not be the largest"));
    let beside = |graph: &mut Graph, kept| {
        let others = graph.add_weight("", HostTensor::from_f32(&[8, 1], &[1.0; 8]));
        add(graph, "add", &[kept, others], Attrs::new())
    };
    assert!(refusal(&after_compress(beside)).contains("may not be the largest"));
    // The shape of other axes is known.
    let columns = |graph: &mut Graph, kept| {
        let attrs = Attrs::new().with("start", Attr::Int(1));
        let columns = add(graph, "Shape", &[kept], attrs);
        let zero = integers(graph, &[1], &[0]);
        let shape = add(graph, "Concat", &[zero, columns], axis(0));
        add(graph, "Reshape", &[kept, shape], Attrs::new())
    };
    let graph = after_compress(columns);
    let holds = HostTensor::from_slice(DType::Bool, &[8], &[1u8, 0, 0, 1, 1, 0, 1, 0]);
    assert_same(&graph, &[Draw::new(2).floats(DType::F32, &[8, 4], -1.0, 1.0), holds]);
}

#[test]
fn two_extents_that_data_decides_do_not_meet() {
    let mut graph = Graph::new("g");
    let x = input(&mut graph, "x", DType::F32, &[8]);
    let masks = ["a", "b"].map(|name| input(&mut graph, name, DType::Bool, &[8]));
    let parts = masks.map(|mask| add(&mut graph, "Compress", &[x, mask], axis(0)));
    let sum = add(&mut graph, "add", &parts, Attrs::new());
    graph.add_output("sum", sum);
    let message = refusal(&graph);
    assert!(message.contains("may not be the largest"), "{message}");
}
