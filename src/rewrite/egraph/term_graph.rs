//! A core graph as an e-graph, with the memory of where each node came from.

use egg::Id;
use smallvec::SmallVec;

use super::analysis::{Meaning, Rank, Terms};
use super::language::{Enode, Head};
use super::record::Record;
use crate::ir::{Graph, Operand, Source, ValueId};

/// The e-graph of one graph, and who made its nodes.
#[derive(Debug)]
pub struct TermGraph {
    pub terms: Terms,
    /// Classes of the graph's outputs, in order.
    pub outputs: Vec<Id>,
    /// Nodes as imported, with the number of the graph's node.
    pub imported: Vec<(Enode, usize)>,
    /// Nodes that rules made.
    pub made: Vec<Made>,
    /// Loads that rules found equal to an expression: (mode, tensor, rule).
    pub fused: Vec<(u32, Id, usize)>,
    /// Classes of the graph's values, of those that the outputs need.
    pub values: Vec<Option<Id>>,
    /// How rules change the graph, where others are to be derived alike.
    pub record: Option<Record>,
}

/// A node that a rule made.
#[derive(Clone, Debug)]
pub struct Made {
    pub enode: Enode,
    /// Number in the run's rule list.
    pub rule: usize,
    /// Classes that the rule's left side matched.
    pub from: SmallVec<[Id; 4]>,
}

impl TermGraph {
    /// The live part of a specialised graph.
    pub fn new(graph: &Graph) -> Self {
        let inputs = graph
            .inputs
            .iter()
            .map(|&input| graph.ty(input).clone())
            .collect();
        let mut built = TermGraph {
            terms: Terms::new(Meaning {
                inputs,
                ..Meaning::default()
            }),
            outputs: Vec::new(),
            imported: Vec::new(),
            made: Vec::new(),
            fused: Vec::new(),
            values: Vec::new(),
            record: None,
        };
        built.import(graph);
        built.terms.rebuild();
        built
    }

    fn import(&mut self, graph: &Graph) {
        let live = live_values(graph);
        let mut classes: Vec<Option<Id>> = vec![None; graph.values.len()];
        let absent = self.terms.add(Enode::leaf(Head::Absent, 0));
        for (position, node) in graph.nodes.iter().enumerate() {
            if !node.results.iter().any(|result| live[result.0 as usize]) {
                continue;
            }
            let mut children = SmallVec::<[Id; 4]>::new();
            for operand in &node.operands {
                children.push(self.operand(graph, *operand, &mut classes).unwrap_or(absent));
            }
            let attrs = self
                .terms
                .analysis
                .interner
                .attrs(&node.attrs, node.results.len());
            let enode = Enode {
                head: Head::Op(node.op),
                data: attrs,
                children,
            };
            let made = self.add_ranked(enode.clone(), position);
            self.imported.push((enode, position));
            for (number, result) in node.results.iter().enumerate() {
                let class = match node.results.len() {
                    1 => made,
                    _ => self.add_ranked(Enode::new(Head::Project, count(number), [made]), position),
                };
                classes[result.0 as usize] = Some(class);
            }
        }
        for &output in &graph.outputs {
            let class = self
                .operand(graph, Some(output), &mut classes)
                .expect("outputs are values of the graph");
            self.terms[class].data.consumers += 1;
            self.outputs.push(class);
        }
        self.values = classes;
    }

    /// The class of an operand, which counts the use.
    fn operand(&mut self, graph: &Graph, operand: Operand, classes: &mut [Option<Id>]) -> Option<Id> {
        let value = operand?;
        let class = if let Some(class) = classes[value.0 as usize] {
            class
        } else {
            let class = self.leaf(graph, value);
            classes[value.0 as usize] = Some(class);
            class
        };
        self.terms[class].data.consumers += 1;
        Some(class)
    }

    fn leaf(&mut self, graph: &Graph, value: ValueId) -> Id {
        match &graph.value(value).source {
            Source::Input(position) => self.terms.add(Enode::leaf(Head::Input, count(*position))),
            Source::Weight(data) => {
                let number = self.terms.analysis.interner.weight(data.clone());
                self.terms.add(Enode::leaf(Head::Weight, number))
            }
            Source::Node(..) => unreachable!("nodes are in topological order"),
        }
    }

    /// Adds a node of the graph. Equal nodes share a class, which keeps the first one's place.
    fn add_ranked(&mut self, enode: Enode, position: usize) -> Id {
        let is_new = self.terms.lookup(enode.clone()).is_none();
        let class = self.terms.add(enode);
        if is_new {
            self.terms[class].data.rank = Some(Rank {
                major: count(position + 1),
                minor: 0,
            });
        }
        class
    }

    /// The number of distinct nodes. Takes time in proportion to the graph.
    pub fn n_nodes(&self) -> usize {
        self.terms.total_number_of_nodes()
    }

    /// Nodes ever made, those among them that merging has made equal to others.
    pub fn n_made(&self) -> usize {
        self.terms.total_size()
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).expect("graphs have under 2^32 nodes")
}

/// Which values the outputs depend on.
fn live_values(graph: &Graph) -> Vec<bool> {
    let mut live = vec![false; graph.values.len()];
    for output in &graph.outputs {
        live[output.0 as usize] = true;
    }
    for node in graph.nodes.iter().rev() {
        if node.results.iter().any(|result| live[result.0 as usize]) {
            for operand in node.operands.iter().flatten() {
                live[operand.0 as usize] = true;
            }
        }
    }
    live
}
