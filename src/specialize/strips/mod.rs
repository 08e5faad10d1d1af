//! A value that is never whole: what makes it and what reads it is computed strip by strip.
//!
//! Strips are slices along one axis. A node can be computed for a strip of its result alone where each element needs
//! the elements at the same position of its operands, or of a window around it; other operands are read whole. The
//! first is proven of the tile function of every node, for each strip. What is only a few operations per element
//! before and after belongs to the strips, too, since kernels compute it on the way; the results behind are joined.

mod needs;
mod surroundings;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::ir::{Graph, Node, NodeId, ValueId};
use crate::ops::ExpandCtx;
use needs::{Need, need, strip_type};
use surroundings::{Surroundings, Uses};

/// Positions of a value along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Strip {
    axis: usize,
    start: usize,
    end: usize,
}

impl Strip {
    fn len(self) -> usize {
        self.end - self.start
    }
}

/// `graph` where `value` is computed and read in `n` strips along one of its axes. None where that cannot be: it is an
/// input, an output or a constant, is read across every axis, or has too few elements along the others.
pub fn in_strips(graph: &Graph, value: ValueId, n: usize) -> Option<Graph> {
    let uses = Uses::of(graph);
    let surroundings = Surroundings::of(graph, &uses, value)?;
    let dims = graph.ty(value).dims();
    let mut axes = (0..dims.len()).filter(|&axis| dims[axis] >= 2 * n);
    axes.find_map(|axis| Cut::along(graph, &uses, &surroundings, value, axis)?.built(n))
}

/// A cut through nodes along an axis of a value.
struct Cut<'a> {
    graph: &'a Graph,
    nodes: &'a BTreeSet<usize>,
    /// Those of them that compute with the value, which are never computed whole.
    behind: BTreeSet<usize>,
    /// Results that are read elsewhere, with the axis that they are joined along.
    ends: Vec<(ValueId, usize)>,
}

impl<'a> Cut<'a> {
    /// None where a node reads across the axis.
    fn along(
        graph: &'a Graph,
        uses: &Uses,
        surroundings: &'a Surroundings,
        value: ValueId,
        axis: usize,
    ) -> Option<Self> {
        let nodes = &surroundings.nodes;
        let mut axes: BTreeMap<ValueId, usize> = BTreeMap::from([(value, axis)]);
        let (mut behind, mut ends) = (BTreeSet::new(), Vec::new());
        for &number in nodes {
            let node = &graph.nodes[number];
            if node
                .operands
                .iter()
                .flatten()
                .all(|value| !axes.contains_key(value))
            {
                continue;
            }
            let &[result] = node.results.as_slice() else {
                return None;
            };
            let own = (0..graph.ty(result).rank()).find(|&own| {
                let whole = whole(graph, result, own);
                whole.len() > 1 && need(graph, node, whole).is_some_and(|need| need.follows(node, &axes))
            })?;
            axes.insert(result, own);
            behind.insert(number);
            if !uses.are_in(result, nodes) {
                ends.push((result, own));
            }
        }
        let (producer, _) = graph.producer(value)?;
        behind.insert(producer.0 as usize);
        (!ends.is_empty()).then_some(Cut {
            graph,
            nodes,
            behind,
            ends,
        })
    }

    fn built(&self, n: usize) -> Option<Graph> {
        let mut strips = Strips {
            cut: self,
            n,
            is_joining: false,
            target: Graph::new(&self.graph.name),
            whole: vec![None; self.graph.values.len()],
            known: BTreeMap::new(),
        };
        for &input in &self.graph.inputs {
            let value = self.graph.value(input);
            strips.whole[input.0 as usize] = Some(strips.target.add_input(&value.name, value.ty.clone()));
        }
        for (number, node) in self.graph.nodes.iter().enumerate() {
            if !self.nodes.contains(&number) {
                strips.copied(node)?;
            }
        }
        for (&output, name) in self.graph.outputs.iter().zip(&self.graph.output_names) {
            let value = strips.whole(output)?;
            strips.target.add_output(name, value);
        }
        strips.target.bounds.clone_from(&self.graph.bounds);
        Some(strips.target)
    }
}

/// All of a value.
fn whole(graph: &Graph, value: ValueId, axis: usize) -> Strip {
    Strip {
        axis,
        start: 0,
        end: graph.ty(value).dims()[axis],
    }
}

/// A graph in which some nodes are computed strip by strip.
struct Strips<'a> {
    cut: &'a Cut<'a>,
    n: usize,
    /// Whether strips are computed now: none of them may need all.
    is_joining: bool,
    target: Graph,
    /// Values of the graph, by their numbers there.
    whole: Vec<Option<ValueId>>,
    known: BTreeMap<(ValueId, Strip), ValueId>,
}

impl Strips<'_> {
    fn copied(&mut self, node: &Node) -> Option<()> {
        if self.whole[node.results.first()?.0 as usize].is_some() {
            return Some(());
        }
        let mut operands = Vec::with_capacity(node.operands.len());
        for operand in &node.operands {
            operands.push(match operand {
                Some(value) => Some(self.whole(*value)?),
                None => None,
            });
        }
        let id = self.target.copy_node(self.cut.graph, node, operands);
        for (&old, &new) in node.results.iter().zip(&self.target.node(id).results) {
            self.whole[old.0 as usize] = Some(new);
        }
        Some(())
    }

    /// All of a value; where it comes in strips, these are joined.
    fn whole(&mut self, value: ValueId) -> Option<ValueId> {
        if let Some(known) = self.whole[value.0 as usize] {
            return Some(known);
        }
        let graph = self.cut.graph;
        match graph.producer(value) {
            None => {
                let own = graph.value(value);
                let weight = self.target.add_weight(&own.name, graph.weight(value)?.clone());
                self.whole[value.0 as usize] = Some(weight);
            }
            Some((NodeId(number), node)) if !self.cut.behind.contains(&(number as usize)) => {
                self.copied(node)?;
            }
            // Nothing else than ends is read whole.
            Some(_) if self.cut.ends.iter().any(|(end, _)| *end == value) => self.join()?,
            Some(_) => return None,
        }
        self.whole[value.0 as usize]
    }

    /// Computes all strips and joins them.
    fn join(&mut self) -> Option<()> {
        if std::mem::replace(&mut self.is_joining, true) {
            return None;
        }
        let (graph, n) = (self.cut.graph, self.n);
        let mut parts: Vec<Vec<ValueId>> = vec![Vec::new(); self.cut.ends.len()];
        for number in 0..n {
            for (&(end, axis), parts) in self.cut.ends.iter().zip(&mut parts) {
                let extent = graph.ty(end).dims()[axis];
                let strip = Strip {
                    axis,
                    start: extent * number / n,
                    end: extent * (number + 1) / n,
                };
                parts.push(self.strip(end, strip)?);
            }
        }
        for (&(end, axis), parts) in self.cut.ends.iter().zip(parts) {
            let (_, node) = graph.producer(end)?;
            let mut ctx = ExpandCtx::on(&mut self.target, &node.origin);
            let joined = ctx.joined(&parts, axis).ok()?;
            self.rename(joined, graph.value(end).name.clone());
            self.whole[end.0 as usize] = Some(joined);
        }
        Some(())
    }

    fn strip(&mut self, value: ValueId, strip: Strip) -> Option<ValueId> {
        let graph = self.cut.graph;
        if let Some(&known) = self.known.get(&(value, strip)) {
            return Some(known);
        }
        let producer = graph.producer(value);
        let inside = producer.filter(|(node, _)| self.cut.nodes.contains(&(node.0 as usize)));
        let needed = inside.and_then(|(_, node)| Some((node, need(graph, node, strip)?)));
        let own = match (needed, inside) {
            (Some((node, need)), _) => self.computed(node, strip, need)?,
            (None, Some((node, _))) if self.cut.behind.contains(&(node.0 as usize)) => return None,
            (None, _) => self.sliced(value, strip)?,
        };
        self.known.insert((value, strip), own);
        Some(own)
    }

    /// The strip of a value that is whole.
    fn sliced(&mut self, value: ValueId, strip: Strip) -> Option<ValueId> {
        let graph = self.cut.graph;
        let whole = self.whole(value)?;
        let producer = graph.producer(value);
        let origin = producer.map_or(&[][..], |(_, node)| &node.origin);
        let mut ctx = ExpandCtx::on(&mut self.target, origin);
        ctx.part(whole, strip.axis, strip.start..strip.end).ok()
    }

    /// The strip of a node's result, from strips of its operands.
    fn computed(&mut self, node: &Node, strip: Strip, need: Need) -> Option<ValueId> {
        let graph = self.cut.graph;
        let result = node.results[0];
        let Need { strips, attrs } = need;
        let mut operands = Vec::with_capacity(strips.len());
        for (operand, strip) in node.operands.iter().zip(strips) {
            operands.push(match (operand, strip) {
                (None, _) => None,
                (Some(value), Some(strip)) => Some(self.strip(*value, strip)?),
                (Some(value), None) => Some(self.whole(*value)?),
            });
        }
        let mut ctx = ExpandCtx::on(&mut self.target, &node.origin);
        let made = ctx.emit_all(node.op, operands, attrs, 1).ok()?[0];
        let name = &graph.value(result).name;
        if !name.is_empty() {
            self.rename(made, format!("{name}.{}", strip.start));
        }
        (*self.target.ty(made) == strip_type(graph.ty(result), strip)).then_some(made)
    }

    fn rename(&mut self, value: ValueId, name: String) {
        self.target.value_mut(value).name = name;
    }
}
