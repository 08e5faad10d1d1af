//! Values that are never whole: what makes them and what reads them is computed strip by strip.
//!
//! Strips are slices along one axis. A node can be computed for a strip of its result alone where each element needs
//! the elements at the same position of its operands, or of a window around it; other operands are read whole. The
//! first is proven of the tile function of every node, for each strip. From the first of the values on, all that is
//! computed with them belongs to the strips, up to nodes that read across the axis; so does what nothing else than
//! strips needs. What is left for others is joined.

mod cut;
mod needs;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::ir::{Graph, Node, ValueId};
use crate::ops::ExpandCtx;
use cut::Cut;
use needs::{Need, need, strip_type};

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

    /// Both, and what is between them; none where they are strips along different axes.
    fn with(self, other: Strip) -> Option<Strip> {
        (self.axis == other.axis).then(|| Strip {
            axis: self.axis,
            start: self.start.min(other.start),
            end: self.end.max(other.end),
        })
    }
}

/// `graph` where the first of `values` is never whole, nor any other that is computed with it: they are computed and read
/// in `n` strips along one of its axes. Others that lead to the strips are slices of the whole where they cannot be
/// computed in strips. None where the first one is an input, an output or a constant, where any is read across every
/// axis, or where the first has too few elements along the others.
pub fn in_strips(graph: &Graph, values: &[ValueId], n: usize) -> Option<Graph> {
    let place = |value: &ValueId| graph.producer(*value).map(|(node, _)| node);
    if values.iter().any(|value| place(value).is_none()) {
        return None;
    }
    let &first = values.iter().min_by_key(|value| place(value))?;
    let dims = graph.ty(first).dims();
    let mut axes = (0..dims.len()).filter(|&axis| dims[axis] >= 2 * n);
    axes.find_map(|axis| Strips::built(&Cut::along(graph, values, first, axis)?, n))
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
}

impl<'a> Strips<'a> {
    fn built(cut: &'a Cut<'a>, n: usize) -> Option<Graph> {
        let graph = cut.graph;
        let mut strips = Strips {
            cut,
            n,
            is_joining: false,
            target: Graph::new(&graph.name),
            whole: vec![None; graph.values.len()],
        };
        for &input in &graph.inputs {
            let value = graph.value(input);
            strips.whole[input.0 as usize] = Some(strips.target.add_input(&value.name, value.ty.clone()));
        }
        for (number, node) in graph.nodes.iter().enumerate() {
            if !cut.nodes.contains(&number) {
                strips.copied(node)?;
            }
        }
        for (&output, name) in graph.outputs.iter().zip(&graph.output_names) {
            let value = strips.whole(output)?;
            strips.target.add_output(name, value);
        }
        strips.target.bounds.clone_from(&graph.bounds);
        Some(strips.target)
    }

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
            Some((id, node)) if !self.cut.behind.contains(&(id.0 as usize)) => self.copied(node)?,
            // Nothing else than ends is read whole.
            Some(_) if self.cut.ends.contains_key(&value) => self.join()?,
            Some(_) => return None,
        }
        self.whole[value.0 as usize]
    }

    /// Computes all strips and joins them.
    fn join(&mut self) -> Option<()> {
        if std::mem::replace(&mut self.is_joining, true) {
            return None;
        }
        let (cut, n) = (self.cut, self.n);
        let mut parts: Vec<Vec<ValueId>> = vec![Vec::new(); cut.ends.len()];
        for number in 0..n {
            let own = |(&value, &axis): (&ValueId, &usize)| {
                let extent = cut.graph.ty(value).dims()[axis];
                let strip = Strip {
                    axis,
                    start: extent * number / n,
                    end: extent * (number + 1) / n,
                };
                (value, strip)
            };
            let ends: BTreeMap<ValueId, Strip> = cut.ends.iter().map(own).collect();
            for (parts, part) in parts.iter_mut().zip(self.strips(&ends)?) {
                parts.push(part);
            }
        }
        for ((&end, &axis), parts) in cut.ends.iter().zip(parts) {
            let (_, node) = cut.graph.producer(end)?;
            let mut ctx = ExpandCtx::on(&mut self.target, &node.origin);
            let joined = ctx.joined(&parts, axis).ok()?;
            self.rename(joined, cut.graph.value(end).name.clone());
            self.whole[end.0 as usize] = Some(joined);
        }
        Some(())
    }

    /// The strips `ends`, each value on the way to them in one strip that is large enough for all that read it.
    fn strips(&mut self, ends: &BTreeMap<ValueId, Strip>) -> Option<Vec<ValueId>> {
        let (cut, wanted) = (self.cut, self.cut.wanted(ends)?);
        let mut known: BTreeMap<ValueId, (Strip, ValueId)> = BTreeMap::new();
        for &number in &cut.nodes {
            let node = &cut.graph.nodes[number];
            let &[result] = node.results.as_slice() else {
                continue;
            };
            if let Some(&strip) = wanted.get(&result)
                && let Some(need) = need(cut.graph, node, strip)
            {
                let made = self.computed(node, strip, need, &known)?;
                known.insert(result, (strip, made));
            }
        }
        ends.iter()
            .map(|(&end, &strip)| self.strip(end, strip, &known))
            .collect()
    }

    /// The strip of a node's result, from strips of its operands.
    fn computed(
        &mut self,
        node: &Node,
        strip: Strip,
        need: Need,
        known: &BTreeMap<ValueId, (Strip, ValueId)>,
    ) -> Option<ValueId> {
        let graph = self.cut.graph;
        let result = node.results[0];
        let Need { strips, attrs } = need;
        let mut operands = Vec::with_capacity(strips.len());
        for (operand, strip) in node.operands.iter().zip(strips) {
            operands.push(match (operand, strip) {
                (None, _) => None,
                (Some(value), Some(strip)) => Some(self.strip(*value, strip, known)?),
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

    /// The strip of a value: of the larger one that is `known`, or of all of it.
    fn strip(
        &mut self,
        value: ValueId,
        strip: Strip,
        known: &BTreeMap<ValueId, (Strip, ValueId)>,
    ) -> Option<ValueId> {
        let (start, from) = match known.get(&value) {
            Some(&(own, from)) => (own.start, from),
            None => (0, self.whole(value)?),
        };
        let producer = self.cut.graph.producer(value);
        let origin = producer.map_or(&[][..], |(_, node)| &node.origin);
        let mut ctx = ExpandCtx::on(&mut self.target, origin);
        ctx.part(from, strip.axis, strip.start - start..strip.end - start)
            .ok()
    }

    fn rename(&mut self, value: ValueId, name: String) {
        self.target.value_mut(value).name = name;
    }
}
