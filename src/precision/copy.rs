//! A graph that is copied node by node, with changes on the way.

use crate::ir::{Attr, Attrs, Graph, HostTensor, Node, NodeId, Operand, ValueId};
use crate::ops::{lookup, with_defaults};

/// A copy under construction. Values of the original have at most one counterpart.
pub struct Copy<'a> {
    pub from: &'a Graph,
    pub target: Graph,
    values: Vec<Option<ValueId>>,
}

impl<'a> Copy<'a> {
    /// A copy with the inputs of `from`, and no nodes.
    pub fn new(from: &'a Graph) -> Self {
        let mut copy = Copy {
            from,
            target: Graph::new(&from.name),
            values: vec![None; from.values.len()],
        };
        for &input in &from.inputs {
            let value = from.value(input);
            let own = copy.target.add_input(&value.name, value.ty.clone());
            copy.values[input.0 as usize] = Some(own);
        }
        copy
    }

    /// The counterpart of `value`; weights are copied when they are first asked for.
    pub fn value(&mut self, value: ValueId) -> ValueId {
        if let Some(own) = self.values[value.0 as usize] {
            return own;
        }
        let data = self
            .from
            .weight(value)
            .expect("nodes are copied before their readers");
        let own = self.target.add_weight(&self.from.value(value).name, data.clone());
        self.values[value.0 as usize] = Some(own);
        own
    }

    /// Makes `own` the counterpart of `value`.
    pub fn set(&mut self, value: ValueId, own: ValueId) {
        self.values[value.0 as usize] = Some(own);
    }

    /// Makes new data the counterpart of `value`.
    pub fn set_weight(&mut self, value: ValueId, data: HostTensor) {
        let own = self.target.add_weight(&self.from.value(value).name, data);
        self.set(value, own);
    }

    pub fn operands(&mut self, node: &Node) -> Vec<Operand> {
        node.operands
            .iter()
            .map(|operand| operand.map(|value| self.value(value)))
            .collect()
    }

    /// Copies `node` with other operands.
    pub fn node(&mut self, node: &Node, operands: Vec<Operand>) -> NodeId {
        let id = self.target.copy_node(self.from, node, operands);
        let results = self.target.node(id).results.clone();
        for (&value, own) in node.results.iter().zip(results) {
            self.set(value, own);
        }
        id
    }

    /// Adds a node of one result, named `name`.
    pub fn emit(
        &mut self,
        op: &'static str,
        operands: &[ValueId],
        attrs: &[(&str, Attr)],
        name: &str,
        origin: &[String],
    ) -> ValueId {
        let def = lookup(op).expect("quantising uses ops of the table");
        let given = attrs
            .iter()
            .fold(Attrs::new(), |given, (name, attr)| given.with(name, attr.clone()));
        let attrs = with_defaults(def, given).expect("the attributes are the op's own");
        let operands = operands.iter().map(|&value| Some(value)).collect();
        let id = self
            .target
            .add_node(op, operands, attrs, &[(name, None)], origin.to_vec());
        self.target.node(id).results[0]
    }

    /// The copy, with the outputs of the original.
    pub fn finish(mut self) -> Graph {
        for (&output, name) in self.from.outputs.iter().zip(&self.from.output_names) {
            let own = self.value(output);
            self.target.add_output(name, own);
        }
        self.target.bounds.clone_from(&self.from.bounds);
        self.target.limits.clone_from(&self.from.limits);
        self.target
    }
}
