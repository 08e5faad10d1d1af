//! What has no place in an engine, and what users are told.

use super::*;

#[test]
fn what_mixes_elements_is_refused() {
    let last = |graph: &mut Graph, kept| {
        let attrs = axis(0).with("select_last_index", Attr::Int(1));
        add(graph, "ArgMax", &[kept], attrs)
    };
    let message = refusal(&after_compress(last));
    assert!(
        message.contains("(`ArgMax`)") && message.contains("mixes elements along axis 0"),
        "{message}"
    );
    assert!(message.contains("(`Compress`)"), "{message}");
    let merged = |graph: &mut Graph, kept| {
        let turned = add(graph, "Transpose", &[kept], Attrs::new());
        let shape = integers(graph, &[1], &[-1]);
        add(graph, "Reshape", &[turned, shape], Attrs::new())
    };
    assert!(refusal(&after_compress(merged)).contains("mixes elements along an axis"));
}

#[test]
fn what_needs_the_extent_itself_is_refused() {
    // Right for the largest extent alone.
    let reshaped = |graph: &mut Graph, kept| {
        let shape = integers(graph, &[2], &[8, 4]);
        add(graph, "Reshape", &[kept, shape], Attrs::new())
    };
    let message = refusal(&after_compress(reshaped));
    assert!(message.contains("another number of elements"), "{message}");
    let beside = |graph: &mut Graph, kept| {
        let others = graph.add_weight("", HostTensor::from_f32(&[8, 1], &[1.0; 8]));
        add(graph, "add", &[kept, others], Attrs::new())
    };
    let message = refusal(&after_compress(beside));
    assert!(message.contains("may not be the largest"), "{message}");
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

#[test]
fn a_size_that_nothing_limits_is_refused_with_what_helps() {
    let mut graph = Graph::new("g");
    let limit = input(&mut graph, "limit", DType::I64, &[]);
    let [zero, one] = [0, 1].map(|number| integers(&mut graph, &[], &[number]));
    let range = add(&mut graph, "Range", &[zero, limit, one], Attrs::new());
    graph.add_output("range", range);
    let message = refusal(&graph);
    assert!(
        message.contains("nothing limits the range, which data decides; `--bound limit=N` does"),
        "{message}"
    );
}
