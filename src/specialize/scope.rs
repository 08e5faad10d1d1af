//! What is known of the values of a graph while it is walked.

use std::collections::HashMap;

use crate::ir::{Graph, Node, Source, ValueId};
use crate::ops::Datum;

/// What a value of the original graph has become.
#[derive(Clone, Debug)]
pub(super) enum Known {
    /// A value of the graph under construction; a constant where that is a weight.
    Tensor(ValueId),
    /// A constant that is no tensor. It lives only between folded nodes.
    Constant(Datum),
    /// Its node could not be lowered, which has been reported.
    Failed,
}

/// The values of one graph, inside those of the graphs around it.
pub(super) struct Scope<'a> {
    graph: &'a Graph,
    /// Number of the node that is looked at.
    pub position: usize,
    known: Vec<Option<Known>>,
    /// Values by name, for the captures of subgraphs; empty where no node has one.
    names: HashMap<&'a str, ValueId>,
    parent: Option<&'a Scope<'a>>,
}

impl<'a> Scope<'a> {
    /// Starts with `inputs` (captures left out) and the weights, which `target` now holds.
    /// `None` where the inputs are not as many as the graph has.
    pub fn new(
        graph: &'a Graph,
        inputs: Vec<Known>,
        parent: Option<&'a Scope<'a>>,
        target: &mut Graph,
    ) -> Option<Self> {
        let mut scope = Scope {
            graph,
            position: 0,
            known: vec![None; graph.values.len()],
            names: graph.names_for_bodies(),
            parent,
        };
        let mut given = inputs.into_iter();
        for &input in &graph.inputs {
            let capture = graph.captures.iter().find(|(own, _)| *own == input);
            let known = match capture {
                Some((_, name)) => parent.and_then(|parent| parent.captured(name)),
                None => given.next(),
            };
            scope.set(input, known?);
        }
        if given.next().is_some() {
            return None;
        }
        for (id, value) in (0..).map(ValueId).zip(&graph.values) {
            if let Source::Weight(data) = &value.source {
                scope.set(id, Known::Tensor(target.add_weight(&value.name, data.clone())));
            }
        }
        Some(scope)
    }

    pub fn set(&mut self, value: ValueId, known: Known) {
        self.known[value.0 as usize] = Some(known);
    }

    /// What `value` has become. A value nothing defines counts as failed.
    pub fn get(&self, value: ValueId) -> Known {
        self.known[value.0 as usize].clone().unwrap_or(Known::Failed)
    }

    /// The operands of `node`; `None` where one could not be lowered.
    pub fn operands(&self, node: &Node) -> Option<Vec<Option<Known>>> {
        node.operands
            .iter()
            .map(|operand| match operand.map(|value| self.get(value)) {
                Some(Known::Failed) => None,
                known => Some(known),
            })
            .collect()
    }

    /// What the node looked at, those after it, and the outputs use; of this graph and those
    /// around it.
    pub fn used_later(&self) -> Vec<Known> {
        let nodes = &self.graph.nodes[self.position.min(self.graph.nodes.len())..];
        let operands = nodes.iter().flat_map(|node| node.operands.iter().flatten());
        let mut used: Vec<Known> = operands
            .chain(&self.graph.outputs)
            .map(|&value| self.get(value))
            .collect();
        for body in nodes.iter().flat_map(Node::bodies) {
            self.captured_in(body, &mut used);
        }
        if let Some(parent) = self.parent {
            used.append(&mut parent.used_later());
        }
        used
    }

    /// What a body and the bodies in it read from around them.
    fn captured_in(&self, body: &Graph, used: &mut Vec<Known>) {
        let captures = body.captures.iter();
        used.extend(captures.filter_map(|(_, name)| self.captured(name)));
        for inner in body.nodes.iter().flat_map(Node::bodies) {
            self.captured_in(inner, used);
        }
    }

    /// The value a subgraph calls `name`: of this graph, else of those around it.
    pub fn captured(&self, name: &str) -> Option<Known> {
        match self.names.get(name) {
            Some(&value) => Some(self.get(value)),
            None => self.parent?.captured(name),
        }
    }
}
