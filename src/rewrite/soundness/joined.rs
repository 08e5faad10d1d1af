//! Both sides of a horizontal rule: its siblings as a graph, and the graph that takes the
//! joined forms out of the e-graph after the rule ran on it alone.

use std::collections::BTreeMap;

use egg::Id;

use super::instance::{Maker, Miss, Pair, Values, built};
use crate::ir::{Graph, Operand, ValueId};
use crate::rewrite::conditions::facts::Facts;
use crate::rewrite::egraph::language::{Enode, Head};
use crate::rewrite::egraph::siblings;
use crate::rewrite::egraph::term_facts::{TermFacts, handle};
use crate::rewrite::egraph::term_graph::TermGraph;
use crate::rewrite::rules::ast::{Horizontal, TestEntry};

/// The number that provenance gives the rule under test.
const RULE: usize = 0;

/// Both sides of `rule` for siblings that `lines` describe, one each.
///
/// # Errors
/// If the rule does not join them.
pub fn pair(rule: &Horizontal, lines: &[Vec<TestEntry>], values: Values, seed: u64) -> Result<Pair, Miss> {
    let mut maker = Maker::new(&rule.header, values, seed);
    let mut roots = Vec::new();
    for line in lines {
        for entry in line {
            maker.entry(&rule.pattern, entry).map_err(Miss::NotBuilt)?;
        }
        let bindings = maker.bindings.clone();
        roots.push(built(&mut maker.work, &rule.pattern, &bindings).map_err(Miss::NotBuilt)?);
    }
    let (mut work, _, inputs) = maker.finish();
    for root in roots {
        work.graph.add_output("left", root);
    }
    let left = work.finish();
    let right = joined(&left, rule)?;
    Ok(Pair { left, right, inputs })
}

fn joined(left: &Graph, rule: &Horizontal) -> Result<Graph, Miss> {
    let mut terms = TermGraph::new(left);
    let (groups, _) = siblings::groups(&terms, rule);
    let [(_, group)] = groups.as_slice() else {
        return Err(Miss::NoMatch);
    };
    match siblings::merge(&mut terms, rule, RULE, group) {
        Ok(true) => {}
        Ok(false) => return Err(Miss::NoRight),
        Err(error) => return Err(Miss::NotBuilt(error.to_string())),
    }
    terms.terms.rebuild();
    let mut reader = Reader {
        terms: &terms,
        graph: Graph::new("right"),
        values: BTreeMap::new(),
    };
    for &input in &left.inputs {
        let value = left.value(input);
        reader.graph.add_input(&value.name, value.ty.clone());
    }
    for &output in &terms.outputs {
        let value = reader.value(output).ok_or(Miss::NoRight)?;
        reader.graph.add_output("right", value);
    }
    Ok(reader.graph)
}

/// Writes classes out as a graph, by what the rule made where it made something.
struct Reader<'a> {
    terms: &'a TermGraph,
    graph: Graph,
    values: BTreeMap<Id, ValueId>,
}

impl Reader<'_> {
    fn value(&mut self, class: Id) -> Option<ValueId> {
        let class = self.terms.terms.find(class);
        if let Some(&known) = self.values.get(&class) {
            return Some(known);
        }
        let value = self.written(class)?;
        self.values.insert(class, value);
        Some(value)
    }

    fn written(&mut self, class: Id) -> Option<ValueId> {
        let terms = &self.terms.terms;
        let enode = self.made(class).or_else(|| terms[class].iter().next().cloned())?;
        match enode.head {
            Head::Input => Some(self.graph.inputs[enode.data as usize]),
            Head::Weight => {
                let data = terms.analysis.interner.weights[enode.data as usize].clone();
                Some(self.graph.add_weight("", data))
            }
            Head::Op(op) => {
                let operands: Vec<Operand> = enode
                    .children
                    .iter()
                    .map(|&child| {
                        if self.is_absent(child) {
                            Some(None)
                        } else {
                            self.value(child).map(Some)
                        }
                    })
                    .collect::<Option<_>>()?;
                let attrs = terms.analysis.interner.attrs_of(enode.data).clone();
                let ty = TermFacts { terms }.ty(handle(class))?;
                let node = self
                    .graph
                    .add_node(op, operands, attrs, &[("", Some(ty))], Vec::new());
                Some(self.graph.node(node).results[0])
            }
            Head::Absent | Head::Project | Head::Store | Head::Load | Head::Tile(_) => None,
        }
    }

    /// The node of a class that the rule made.
    fn made(&self, class: Id) -> Option<Enode> {
        let terms = &self.terms.terms;
        let made = self.terms.made.iter().filter(|made| made.rule == RULE);
        made.filter(|made| matches!(made.enode.head, Head::Op(_)))
            .find(|made| terms.lookup(made.enode.clone()).map(|id| terms.find(id)) == Some(class))
            .map(|made| made.enode.clone())
    }

    fn is_absent(&self, class: Id) -> bool {
        let terms = &self.terms.terms;
        terms[terms.find(class)]
            .iter()
            .any(|enode| enode.head == Head::Absent)
    }
}
