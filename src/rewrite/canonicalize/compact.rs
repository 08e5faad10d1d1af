//! Leaves out what the outputs do not need, and puts the rest in topological order.

use crate::ir::{Graph, NodeId, Source, ValueId};

/// The part of `graph` that its outputs depend on. Inputs all stay, in their order.
pub fn compact(mut graph: Graph) -> Graph {
    let mut to = Graph::new(&graph.name);
    to.bounds = std::mem::take(&mut graph.bounds);
    to.limits = std::mem::take(&mut graph.limits);
    let (inputs, outputs) = (graph.inputs.clone(), graph.outputs.clone());
    let names = std::mem::take(&mut graph.output_names);
    let captures = std::mem::take(&mut graph.captures);
    let mut compactor = Compactor {
        moved: vec![None; graph.values.len()],
        from: graph,
        to,
    };
    for input in inputs {
        let value = compactor.from.value(input);
        let moved = compactor.to.add_input(&value.name, value.ty.clone());
        compactor.moved[input.0 as usize] = Some(moved);
    }
    for (output, name) in outputs.into_iter().zip(&names) {
        let moved = compactor.value(output);
        compactor.to.add_output(name, moved);
    }
    for (own, outer) in captures {
        let moved = compactor.value(own);
        compactor.to.captures.push((moved, outer));
    }
    compactor.to
}

struct Compactor {
    /// What was moved leaves nothing behind.
    from: Graph,
    to: Graph,
    moved: Vec<Option<ValueId>>,
}

impl Compactor {
    /// Moves a value after everything it depends on. Works on a stack: graphs are deep.
    fn value(&mut self, root: ValueId) -> ValueId {
        let mut pending = vec![root];
        while let Some(&value) = pending.last() {
            if self.moved[value.0 as usize].is_some() {
                pending.pop();
                continue;
            }
            match &self.from.value(value).source {
                Source::Node(node, _) => {
                    let before = pending.len();
                    let operands = self.from.node(*node).operands.iter().rev().flatten();
                    pending.extend(operands.filter(|operand| self.moved[operand.0 as usize].is_none()));
                    if pending.len() == before {
                        self.node(*node);
                    }
                }
                Source::Weight(data) => {
                    let name = &self.from.value(value).name;
                    self.moved[value.0 as usize] = Some(self.to.add_weight(name, data.clone()));
                }
                Source::Input(_) => unreachable!("compact() moved every input first"),
            }
        }
        self.moved[root.0 as usize].expect("the loop ends when the root is moved")
    }

    fn node(&mut self, id: NodeId) {
        let node = self.from.node(id);
        let results = node.results.clone();
        let operands = node
            .operands
            .iter()
            .map(|operand| {
                operand.map(|value| self.moved[value.0 as usize].expect("operands were moved first"))
            })
            .collect();
        let moved = self.to.move_node(&mut self.from, id, operands);
        for (result, &copy) in results.into_iter().zip(&self.to.node(moved).results) {
            self.moved[result.0 as usize] = Some(copy);
        }
    }
}
