//! Small graphs through [`specialize`].

use super::*;
use crate::ir::{Attrs, DType, Dim, HostTensor, Operand, Shape, Source, ValueId};

pub(super) fn add(graph: &mut Graph, op: &'static str, operands: &[ValueId], attrs: Attrs) -> ValueId {
    let operands: Vec<Operand> = operands.iter().copied().map(Some).collect();
    let origin = vec![format!("{op}_{}", graph.nodes.len())];
    let name = format!("v{}", graph.values.len());
    let node = graph.add_node(op, operands, attrs, &[(&name, None)], origin);
    graph.node(node).results[0]
}

fn symbolic() -> TensorType {
    let dims = [Dim::Symbol("n".to_owned()), Dim::Known(3)];
    TensorType {
        dtype: DType::F32,
        shape: Shape(dims.into_iter().collect()),
    }
}

fn default_of(graph: &Graph) -> Result<Graph, SpecializeError> {
    specialize(graph, &bind(graph, &[]).unwrap())
}

#[test]
fn dims_are_bound_and_dead_nodes_go() {
    let mut graph = Graph::new("g");
    let x = graph.add_input("x", Some(symbolic()));
    let kept = add(&mut graph, "relu", &[x], Attrs::new());
    add(&mut graph, "relu", &[kept], Attrs::new());
    graph.add_output("y", kept);
    let bindings = bind(&graph, &[("x".to_owned(), vec![5, 3])]).unwrap();
    let bound = specialize(&graph, &bindings).unwrap();
    assert_eq!(bound.nodes.len(), 1);
    assert_eq!(bound.nodes[0].origin, ["relu_0"]);
    assert_eq!(*bound.ty(bound.outputs[0]), TensorType::new(DType::F32, &[5, 3]));
}

#[test]
fn constants_fold_and_equal_weights_are_shared() {
    let mut graph = Graph::new("g");
    let a = graph.add_weight("a", HostTensor::from_f32(&[2], &[-1.0, 2.0]));
    let b = graph.add_weight("b", HostTensor::from_f32(&[2], &[0.0, 2.0]));
    let positive = add(&mut graph, "relu", &[a], Attrs::new());
    graph.add_output("folded", positive);
    graph.add_output("weight", b);
    let bound = default_of(&graph).unwrap();
    assert!(bound.nodes.is_empty());
    assert_eq!(bound.outputs[0], bound.outputs[1]);
    assert_eq!(
        bound.weight(bound.outputs[0]).unwrap().as_slice::<f32>(),
        [0.0, 2.0]
    );
}

#[test]
fn every_problem_is_reported_once() {
    let mut graph = Graph::new("g");
    let x = graph.add_input("x", Some(TensorType::new(DType::I64, &[2])));
    let first = add(&mut graph, "sigmoid", &[x], Attrs::new());
    let after = add(&mut graph, "relu", &[first], Attrs::new());
    let second = add(&mut graph, "no_such_op", &[x], Attrs::new());
    graph.add_output("a", after);
    graph.add_output("b", second);
    let error = default_of(&graph).unwrap_err();
    assert!(!error.is_unsupported());
    let SpecializeError::Nodes(problems) = &error else {
        panic!("{error}")
    };
    let subjects: Vec<&str> = problems.iter().map(|problem| problem.subject.as_str()).collect();
    assert_eq!(
        subjects,
        [
            "node `sigmoid_0` (`sigmoid`)",
            "node `no_such_op_2` (`no_such_op`)"
        ]
    );
}

#[test]
fn inputs_may_be_outputs() {
    let mut graph = Graph::new("g");
    let x = graph.add_input("x", Some(symbolic()));
    graph.add_output("y", x);
    graph.add_output("z", x);
    let bound = default_of(&graph).unwrap();
    assert_eq!(bound.value(bound.outputs[0]).source, Source::Input(0));
    assert_eq!(bound.output_names, ["y", "z"]);
}
