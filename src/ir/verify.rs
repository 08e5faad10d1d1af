//! The invariants of a graph.
//!
//! - Values know where they come from, and those places know them: inputs, results, weights.
//! - Nodes are in topological order: an operand is an input, a weight, or the result of an
//!   earlier node.
//! - A weight has the type of its data; inputs that are captures are listed once.
//! - Every output has a name; inputs and outputs have distinct names.
//! - The same holds of every body.

use std::collections::HashSet;

use super::{Graph, Node, NodeId, Source, TensorType, ValueId};

/// A broken invariant: where, and what.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("graph `{graph}`: {what}")]
pub struct Violation {
    pub graph: String,
    pub what: String,
}

/// Types of a node's results from those of its operands, or why there are none.
pub type TypesOf<'a> = &'a dyn Fn(&Node, &[Option<TensorType>]) -> Result<Vec<TensorType>, String>;

/// Checks the structure of a graph and of the bodies in it.
///
/// # Errors
/// All violations found.
pub fn verify(graph: &Graph) -> Result<(), Vec<Violation>> {
    let mut check = Check {
        graph,
        violations: Vec::new(),
    };
    check.inputs();
    check.values();
    check.nodes();
    check.outputs();
    let inner = graph.nodes.iter().flat_map(Node::bodies);
    check
        .violations
        .extend(inner.filter_map(|body| verify(body).err()).flatten());
    check.finish()
}

/// Checks that every value has a type without symbols, and results those that `types_of` says.
///
/// # Errors
/// All violations found, those of [`verify`] first.
pub fn verify_typed(graph: &Graph, types_of: TypesOf<'_>) -> Result<(), Vec<Violation>> {
    verify(graph)?;
    let mut check = Check {
        graph,
        violations: Vec::new(),
    };
    for (id, value) in (0..).map(ValueId).zip(&graph.values) {
        match &value.ty {
            None => check.report(format!("value {id} `{}` has no type", value.name)),
            Some(ty) if ty.shape.dims().is_none() => {
                check.report(format!("value {id} `{}` is `{ty}`, with a symbol", value.name));
            }
            Some(_) => {}
        }
    }
    if check.violations.is_empty() {
        check.types(types_of);
    }
    check.finish()
}

struct Check<'a> {
    graph: &'a Graph,
    violations: Vec<Violation>,
}

impl Check<'_> {
    fn report(&mut self, what: String) {
        self.violations.push(Violation {
            graph: self.graph.name.clone(),
            what,
        });
    }

    fn finish(self) -> Result<(), Vec<Violation>> {
        if self.violations.is_empty() {
            Ok(())
        } else {
            Err(self.violations)
        }
    }

    fn exists(&self, value: ValueId) -> bool {
        (value.0 as usize) < self.graph.values.len()
    }

    fn inputs(&mut self) {
        let graph = self.graph;
        for (position, &input) in graph.inputs.iter().enumerate() {
            if !self.exists(input) || graph.value(input).source != Source::Input(position) {
                self.report(format!(
                    "{input} is listed as input {position}, but is something else"
                ));
            }
        }
        let mut seen = HashSet::new();
        for (own, name) in &graph.captures {
            if !graph.inputs.contains(own) || !seen.insert(own) {
                self.report(format!(
                    "capture `{name}` is no input, or one that is a capture already"
                ));
            }
        }
        let names: Vec<&str> = graph
            .inputs
            .iter()
            .filter(|input| self.exists(**input))
            .map(|&input| graph.value(input).name.as_str())
            .collect();
        self.distinct("inputs", &names);
    }

    fn values(&mut self) {
        let graph = self.graph;
        for (id, value) in (0..).map(ValueId).zip(&graph.values) {
            match &value.source {
                Source::Input(position) => {
                    if graph.inputs.get(*position) != Some(&id) {
                        self.report(format!(
                            "{id} says it is input {position}, which is another value"
                        ));
                    }
                }
                Source::Weight(data) => {
                    if value.ty.as_ref().is_some_and(|ty| *ty != data.ty()) {
                        self.report(format!(
                            "weight {id} is not of the type of its data, `{}`",
                            data.ty()
                        ));
                    }
                }
                Source::Node(node, position) => {
                    let made = graph.nodes.get(node.0 as usize);
                    if made.and_then(|made| made.results.get(*position)) != Some(&id) {
                        self.report(format!(
                            "{id} says it is result {position} of {node}, which it is not"
                        ));
                    }
                }
            }
        }
    }

    fn nodes(&mut self) {
        let graph = self.graph;
        for (id, node) in (0..).map(NodeId).zip(&graph.nodes) {
            for &operand in node.operands.iter().flatten() {
                if !self.exists(operand) {
                    self.report(format!(
                        "{id} `{}` reads {operand}, which does not exist",
                        node.op
                    ));
                } else if matches!(graph.value(operand).source, Source::Node(made, _) if made >= id) {
                    self.report(format!("{id} `{}` reads {operand}, which is made later", node.op));
                }
            }
            for (position, &result) in node.results.iter().enumerate() {
                let own = Source::Node(id, position);
                let is_own = self.exists(result) && graph.value(result).source == own;
                if !is_own {
                    self.report(format!(
                        "{id} `{}` lists {result} as result {position}, which it is not",
                        node.op
                    ));
                }
            }
        }
    }

    fn outputs(&mut self) {
        let graph = self.graph;
        let missing: Vec<ValueId> = graph
            .outputs
            .iter()
            .copied()
            .filter(|&output| !self.exists(output))
            .collect();
        for output in missing {
            self.report(format!("output {output} does not exist"));
        }
        if graph.outputs.len() != graph.output_names.len() {
            let (values, names) = (graph.outputs.len(), graph.output_names.len());
            self.report(format!("{values} outputs have {names} names"));
        }
        let names: Vec<&str> = graph.output_names.iter().map(String::as_str).collect();
        self.distinct("outputs", &names);
    }

    fn distinct(&mut self, what: &str, names: &[&str]) {
        let mut seen = HashSet::new();
        // Bodies may leave their inputs and outputs without names.
        for name in names.iter().filter(|name| !name.is_empty()) {
            if !seen.insert(name) {
                self.report(format!("two {what} are named `{name}`"));
            }
        }
    }

    fn types(&mut self, types_of: TypesOf<'_>) {
        let graph = self.graph;
        for (id, node) in (0..).map(NodeId).zip(&graph.nodes) {
            let operands: Vec<Option<TensorType>> = node
                .operands
                .iter()
                .map(|operand| operand.map(|value| graph.ty(value).clone()))
                .collect();
            match types_of(node, &operands) {
                Err(reason) => self.report(format!("{id} `{}`: {reason}", node.op)),
                Ok(expected) => {
                    for (&result, expected) in node.results.iter().zip(&expected) {
                        let found = graph.ty(result);
                        if found != expected {
                            self.report(format!(
                                "{id} `{}` makes {result} as `{expected}`, which is typed `{found}`",
                                node.op
                            ));
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Attrs, DType};

    fn chain() -> Graph {
        let mut graph = Graph::new("chain");
        let ty = Some(TensorType::new(DType::F32, &[2]));
        let x = graph.add_input("x", ty.clone());
        let once = graph.add_node("relu", vec![Some(x)], Attrs::new(), &[("a", ty.clone())], vec![]);
        let once = graph.node(once).results[0];
        let twice = graph.add_node("relu", vec![Some(once)], Attrs::new(), &[("b", ty)], vec![]);
        graph.add_output("y", graph.node(twice).results[0]);
        graph
    }

    fn first_violation(graph: &Graph) -> String {
        verify(graph).unwrap_err()[0].what.clone()
    }

    #[test]
    fn sound_graphs_pass() {
        assert_eq!(verify(&chain()), Ok(()));
        let same: TypesOf<'_> = &|_, operands| Ok(operands.iter().flatten().cloned().collect());
        assert_eq!(verify_typed(&chain(), same), Ok(()));
    }

    #[test]
    fn each_broken_invariant_is_named() {
        let mut graph = chain();
        graph.nodes[0].operands[0] = Some(ValueId(2));
        assert!(first_violation(&graph).contains("made later"));
        let mut graph = chain();
        graph.nodes[1].operands[0] = Some(ValueId(9));
        assert!(first_violation(&graph).contains("does not exist"));
        let mut graph = chain();
        graph.nodes.swap(0, 1);
        assert!(first_violation(&graph).contains("which it is not"));
        let mut graph = chain();
        graph.output_names.clear();
        assert!(first_violation(&graph).contains("1 outputs have 0 names"));
        let mut graph = chain();
        graph.inputs.clear();
        assert!(first_violation(&graph).contains("input 0"));
    }

    #[test]
    fn types_follow_the_type_function() {
        let wider: TypesOf<'_> = &|_, _| Ok(vec![TensorType::new(DType::F64, &[2])]);
        let violations = verify_typed(&chain(), wider).unwrap_err();
        assert_eq!(violations.len(), 2);
        let mut graph = chain();
        graph.values[1].ty = None;
        assert!(
            verify_typed(&graph, wider).unwrap_err()[0]
                .what
                .contains("has no type")
        );
    }
}
