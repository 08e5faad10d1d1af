//! Which nodes are computed in strips, and of which values these are joined.

use std::collections::{BTreeMap, BTreeSet};

use super::Strip;
use super::needs::need;
use crate::ir::{Graph, ValueId};

/// A cut through nodes along an axis of a value.
pub(super) struct Cut<'a> {
    pub graph: &'a Graph,
    /// Those that are computed in strips.
    pub nodes: BTreeSet<usize>,
    /// Those of them that compute with the value, which are never computed whole.
    pub behind: BTreeSet<usize>,
    /// Results that are read elsewhere, with the axis that they are joined along.
    pub ends: BTreeMap<ValueId, usize>,
}

impl<'a> Cut<'a> {
    /// The cut through `first` along `axis`; none where one of `values` would be joined.
    pub fn along(graph: &'a Graph, values: &[ValueId], first: ValueId, axis: usize) -> Option<Self> {
        let (producer, _) = graph.producer(first)?;
        let mut cut = Cut {
            graph,
            nodes: BTreeSet::new(),
            behind: BTreeSet::from([producer.0 as usize]),
            ends: BTreeMap::new(),
        };
        let after = cut.follow(BTreeMap::from([(first, axis)]));
        if cut.ends.is_empty() || values.iter().any(|value| cut.ends.contains_key(value)) {
            return None;
        }
        cut.lead_back(&after);
        Some(cut)
    }

    /// Finds what is computed with the values that have an axis in `axes`, in strips where nodes do not read across the
    /// axis; gives the nodes that come after strips were joined.
    fn follow(&mut self, mut axes: BTreeMap<ValueId, usize>) -> BTreeSet<usize> {
        let mut after = BTreeSet::new();
        let mut joined: BTreeSet<ValueId> = BTreeSet::new();
        for (number, node) in self.graph.nodes.iter().enumerate() {
            let read: Vec<ValueId> = node.operands.iter().flatten().copied().collect();
            let reads_joined = read.iter().any(|value| joined.contains(value));
            if !reads_joined && !read.iter().any(|value| axes.contains_key(value)) {
                continue;
            }
            let own = if reads_joined {
                None
            } else {
                self.own_axis(number, &axes)
            };
            if let Some(own) = own {
                axes.insert(node.results[0], own);
                self.behind.insert(number);
            } else {
                let ends = read.iter().filter_map(|value| Some((*value, *axes.get(value)?)));
                self.ends.extend(ends);
                joined.extend(&node.results);
                after.insert(number);
            }
        }
        let outputs = self.graph.outputs.iter();
        let ends = outputs.filter_map(|value| Some((*value, *axes.get(value)?)));
        self.ends.extend(ends);
        after
    }

    /// The axis of a node's result of which strips need strips of the values in `axes` along theirs.
    fn own_axis(&self, number: usize, axes: &BTreeMap<ValueId, usize>) -> Option<usize> {
        let node = &self.graph.nodes[number];
        let &[result] = node.results.as_slice() else {
            return None;
        };
        let dims = self.graph.ty(result).dims();
        let follows = |&axis: &usize| {
            let whole = Strip {
                axis,
                start: 0,
                end: dims[axis],
            };
            whole.len() > 1 && need(self.graph, node, whole).is_some_and(|need| need.follows(node, axes))
        };
        (0..dims.len()).find(follows)
    }

    /// Adds what leads to the strips and is needed by nothing else.
    fn lead_back(&mut self, after: &BTreeSet<usize>) {
        let graph = self.graph;
        let mut needed_whole: BTreeSet<ValueId> = graph.outputs.iter().copied().collect();
        for number in (0..graph.nodes.len()).rev() {
            let node = &graph.nodes[number];
            let is_needed_whole = || node.results.iter().any(|value| needed_whole.contains(value));
            let is_own = self.behind.contains(&number) || !after.contains(&number) && !is_needed_whole();
            if is_own {
                self.nodes.insert(number);
            } else {
                needed_whole.extend(node.operands.iter().flatten());
            }
        }
    }

    /// The strip of each value that the strips `ends` need, large enough for all that read it; none where a node that is
    /// never computed whole cannot be computed for a strip.
    pub fn wanted(&self, ends: &BTreeMap<ValueId, Strip>) -> Option<BTreeMap<ValueId, Strip>> {
        let mut wanted = ends.clone();
        for &number in self.nodes.iter().rev() {
            let node = &self.graph.nodes[number];
            let is_behind = self.behind.contains(&number);
            let own = node.results.first().and_then(|result| wanted.get(result));
            let Some(&own) = own else { continue };
            let Some(need) = need(self.graph, node, own) else {
                if is_behind {
                    return None;
                }
                continue;
            };
            for (operand, strip) in node.operands.iter().zip(need.strips) {
                if let (Some(value), Some(strip)) = (operand, strip) {
                    let all = wanted.get(value).map_or(Some(strip), |own| own.with(strip))?;
                    wanted.insert(*value, all);
                }
            }
        }
        Some(wanted)
    }
}
