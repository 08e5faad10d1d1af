//! Reductions over axes that are as long as data says.

use super::*;

fn axes(axes: &[i64]) -> Attrs {
    Attrs::new().with("axes", Attr::Ints(axes.to_vec()))
}

/// Compares for none (where `with_none` holds), some, and all of the elements.
fn check(with_none: bool, build: impl Fn(&mut Graph, ValueId) -> ValueId) {
    let graph = after_compress(build);
    let mut draw = Draw::new(23);
    for share in [0.0, 0.3, 0.7, 1.1] {
        if share > 0.0 || with_none {
            let x = draw.ints(DType::F32, &[8, 4], -3, 3);
            assert_same(&graph, &[x, flags(&mut draw, 8, share, !with_none)]);
        }
    }
}

#[test]
fn sums_and_extremes_pass_over_what_is_not_there() {
    for op in [
        "ReduceSum",
        "ReduceL1",
        "ReduceSumSquare",
        "ReduceProd",
        "ReduceMax",
        "ReduceMin",
    ] {
        check(true, |graph, kept| add(graph, op, &[kept], axes(&[0])));
        check(true, |graph, kept| add(graph, op, &[kept], axes(&[0, 1])));
    }
    for op in ["ReduceLogSumExp", "ReduceMean"] {
        check(false, |graph, kept| add(graph, op, &[kept], axes(&[0])));
    }
    for op in ["ArgMax", "ArgMin"] {
        check(false, |graph, kept| add(graph, op, &[kept], axis(0)));
    }
}

#[test]
fn products_pass_over_what_is_not_there() {
    check(true, |graph, kept| {
        let turned = add(graph, "Transpose", &[kept], Attrs::new());
        add(graph, "MatMul", &[turned, kept], Attrs::new())
    });
    check(true, |graph, kept| {
        let turned = add(graph, "Transpose", &[kept], Attrs::new());
        add(graph, "MatMul", &[kept, turned], Attrs::new())
    });
}

#[test]
fn softmaxes_and_running_sums_stay_as_long_as_they_are() {
    for op in ["Softmax", "LogSoftmax"] {
        check(true, |graph, kept| add(graph, op, &[kept], axis(0)));
    }
    for reverse in [0, 1] {
        check(true, |graph, kept| {
            let along = integers(graph, &[], &[0]);
            let attrs = Attrs::new().with("reverse", Attr::Int(reverse));
            add(graph, "CumSum", &[kept, along], attrs)
        });
    }
}

/// What is infinite, or no number, beyond the count disturbs nothing.
#[test]
fn numbers_that_are_not_there_are_not_looked_at() {
    let graph = after_compress(|graph, kept| {
        let nothing = graph.add_weight("", HostTensor::from_f32(&[], &[0.0]));
        let same = add(graph, "equal", &[kept, kept], Attrs::new());
        let one = graph.add_weight("", HostTensor::from_f32(&[], &[1.0]));
        let inverse = add(graph, "div", &[one, kept], Attrs::new());
        let inverse = add(graph, "where", &[same, inverse, nothing], Attrs::new());
        add(graph, "ReduceSum", &[inverse], axes(&[0]))
    });
    let mut x = vec![2.0; 32];
    // Elements beyond the count repeat the first one.
    x[..4].fill(0.0);
    let holds = HostTensor::from_slice(DType::Bool, &[8], &[0u8, 0, 1, 1, 0, 0, 1, 0]);
    let found = assert_same(&graph, &[HostTensor::from_f32(&[8, 4], &x), holds]);
    assert_eq!(found[0].as_slice::<f32>(), [1.5; 4]);
}
