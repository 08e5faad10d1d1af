//! Limits that the user states, and data beyond them.

use super::*;

/// Elements up to a limit that is an input, and their sum.
fn counted_up() -> Graph {
    let mut graph = Graph::new("g");
    let limit = input(&mut graph, "limit", DType::I64, &[]);
    let [zero, one] = [0, 1].map(|number| integers(&mut graph, &[], &[number]));
    let more = add(&mut graph, "add", &[limit, one], Attrs::new());
    graph.value_mut(more).name = "more".to_owned();
    let range = add(&mut graph, "Range", &[zero, more, one], Attrs::new());
    let attrs = Attrs::new().with("axes", Attr::Ints(vec![0]));
    let sum = add(&mut graph, "ReduceSum", &[range], attrs);
    graph.add_output("sum", sum);
    graph
}

fn run(graph: &Graph, stated: &[(String, usize)], inputs: &[HostTensor]) -> Result<Vec<HostTensor>, String> {
    let bindings = bind_inputs(graph, inputs).unwrap();
    let core = specialize_bounded(graph, &bindings, stated).map_err(|error| error.to_string())?;
    counted(&core, &reference::run(&core, inputs).unwrap())
}

fn stated(name: &str, most: usize) -> Vec<(String, usize)> {
    vec![(name.to_owned(), most)]
}

#[test]
fn a_stated_limit_makes_room_and_is_kept() {
    let graph = counted_up();
    let limit = |limit| [HostTensor::from_i64(&[], &[limit])];
    for own in [-1, 0, 3, 6] {
        let found = run(&graph, &stated("more", 7), &limit(own));
        assert_eq!(found, Ok(reference::run(&graph, &limit(own)).unwrap()));
    }
    let found = run(&graph, &stated("limit", 7), &limit(7));
    assert_eq!(found, Ok(reference::run(&graph, &limit(7)).unwrap()));
    // The sum hides how many elements there were, not that they were too many.
    let message = run(&graph, &stated("more", 7), &limit(7)).unwrap_err();
    assert!(message.contains("`more.limit` is 8, at most 7"), "{message}");
}

#[test]
fn a_stated_limit_shortens_what_data_decides() {
    let graph = after_compress(|_, kept| kept);
    let name = graph.value(graph.outputs[0]).name.clone();
    let x = Draw::new(3).floats(DType::F32, &[8, 4], -1.0, 1.0);
    for share in [0.0, 0.3] {
        let holds = flags(&mut Draw::new(1), 8, share, false);
        let inputs = [x.clone(), holds];
        let found = run(&graph, &stated(&name, 5), &inputs);
        assert_eq!(found, Ok(reference::run(&graph, &inputs).unwrap()));
    }
    let all = flags(&mut Draw::new(1), 8, 1.1, false);
    let message = run(&graph, &stated(&name, 5), &[x, all]).unwrap_err();
    assert!(message.contains("is 8, at most 5"), "{message}");
}

#[test]
fn limits_of_what_is_not_there_or_decides_nothing_are_errors() {
    let input = [HostTensor::from_i64(&[], &[2])];
    let message = run(&counted_up(), &stated("mere", 7), &input).unwrap_err();
    assert!(
        message.contains("bound 7 of `mere`: the model has no tensor"),
        "{message}"
    );
    let mut graph = Graph::new("g");
    let x = super::input(&mut graph, "x", DType::F32, &[2]);
    let y = add(&mut graph, "neg", &[x], Attrs::new());
    graph.value_mut(y).name = "y".to_owned();
    graph.add_output("y", y);
    let x = [HostTensor::from_f32(&[2], &[1.0, 2.0])];
    let message = run(&graph, &stated("y", 7), &x).unwrap_err();
    assert!(message.contains("data decides no extent of it"), "{message}");
}

#[test]
fn more_than_the_axis_has_is_an_error_when_it_comes() {
    let mut graph = Graph::new("g");
    let x = super::input(&mut graph, "x", DType::F32, &[6]);
    let k = super::input(&mut graph, "k", DType::I64, &[1]);
    let best = add(&mut graph, "TopK", &[x, k], Attrs::new());
    graph.add_output("best", best);
    let x = Draw::new(7).floats(DType::F32, &[6], -1.0, 1.0);
    let k = |k| [x.clone(), HostTensor::from_i64(&[1], &[k])];
    for own in [0, 2, 6] {
        let found = run(&graph, &[], &k(own));
        assert_eq!(found, Ok(reference::run(&graph, &k(own)).unwrap()));
    }
    let message = run(&graph, &[], &k(8)).unwrap_err();
    assert!(
        message.contains("(`TopK`): `k` beyond the axis` is 2, at most 0"),
        "{message}"
    );
}
