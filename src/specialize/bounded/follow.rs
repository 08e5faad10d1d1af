//! What follows from an extent that data decides: tried with a larger one.

use super::lanes::{self, Reading, value};
use super::masks::Mask;
use super::{Bounds, Lane};
use crate::ir::{Attr, Attrs, Graph, HostTensor, Node, Operand, Source, TensorType, ValueId};
use crate::ops::OpError;
use crate::specialize::walk::Walk;
use crate::tile::Scalar;

/// What is seen of nodes that were made for larger extents.
pub(in crate::specialize) struct Tried {
    nodes: Vec<TriedNode>,
    /// Types and constants of the values that were added, in order.
    values: Vec<(TensorType, Option<HostTensor>)>,
    /// For those, how they depend on extents that data decides.
    lanes: Vec<Vec<Lane>>,
}

struct TriedNode {
    op: &'static str,
    attrs: Attrs,
    /// Of each result, where some operand is only as long as data says.
    constants: Vec<Vec<Scalar>>,
    masks: Vec<Mask>,
}

impl Bounds {
    /// The axes of an operand of a node that was added behind value number `first`.
    fn lanes_of(&self, added: &[Vec<Lane>], first: usize, operand: Operand) -> Vec<Lane> {
        match operand.map(|value| (value, (value.0 as usize).checked_sub(first))) {
            Some((_, Some(position))) => added[position].clone(),
            Some((value, None)) => self.axes.get(&value).cloned().unwrap_or_default(),
            None => Vec::new(),
        }
    }

    /// How each result of a node depends on the axes of its operands.
    fn readings(
        &mut self,
        graph: &Graph,
        node: &Node,
        operands: &[Vec<Lane>],
    ) -> Result<Vec<Reading>, OpError> {
        let mut readings = Vec::new();
        for number in 0..node.results.len() {
            let reading = lanes::read(graph, &mut self.amounts, node, number, operands);
            readings.push(reading.map_err(|reason| {
                let subjects = self.subjects(&operands.concat());
                OpError::HostOnly(format!("{reason}, whose extent is decided by {subjects}"))
            })?);
        }
        Ok(readings)
    }

    /// `lanes` of a result, and axes that are as long as those of its operands, though nothing is read along them.
    fn as_long_as(&self, operands: &[Lane], dims: &[usize], mut lanes: Vec<Lane>) -> Vec<Lane> {
        for (axis, &extent) in dims.iter().enumerate() {
            let as_long = operands.iter().find(|own| self.larger(own.span) == extent);
            if let Some(&Lane { span, .. }) = as_long
                && lanes.iter().all(|lane| lane.axis != axis)
            {
                lanes.push(Lane { axis, span });
            }
        }
        lanes
    }

    /// Looks at what was added to `graph` for larger extents.
    fn look(&mut self, graph: &Graph, first_node: usize, first: usize) -> Result<Tried, OpError> {
        let mut tried = Tried {
            nodes: Vec::new(),
            values: Vec::new(),
            lanes: vec![Vec::new(); graph.values.len() - first],
        };
        for (own, lanes) in graph.values[first..].iter().zip(&mut tried.lanes) {
            let ty = own.ty.clone().expect("every value that is added has a type");
            let constant = match &own.source {
                Source::Weight(data) => Some(data.clone()),
                Source::Input(_) | Source::Node(..) => None,
            };
            if constant.is_some() {
                *lanes = lanes::constant_lanes(&ty.dims(), &self.larger);
            }
            tried.values.push((ty, constant));
        }
        for node in &graph.nodes[first_node..] {
            let seen = self.look_at(graph, node, &mut tried.lanes, first)?;
            tried.nodes.push(seen);
        }
        Ok(tried)
    }

    /// The same of one node: the axes of its results become known.
    fn look_at(
        &mut self,
        graph: &Graph,
        node: &Node,
        added: &mut [Vec<Lane>],
        first: usize,
    ) -> Result<TriedNode, OpError> {
        let mut seen = TriedNode {
            op: node.op,
            attrs: node.attrs.clone(),
            constants: Vec::new(),
            masks: Vec::new(),
        };
        let operands = node.operands.iter();
        let operands: Vec<Vec<Lane>> = operands.map(|&own| self.lanes_of(added, first, own)).collect();
        if operands.iter().all(Vec::is_empty) {
            return Ok(seen);
        }
        for (reading, &result) in self
            .readings(graph, node, &operands)?
            .into_iter()
            .zip(&node.results)
        {
            let dims = graph.ty(result).dims();
            added[result.0 as usize - first] = self.as_long_as(&operands.concat(), &dims, reading.lanes);
            seen.constants.push(reading.constants);
            for mask in reading.masks {
                if !seen.masks.contains(&mask) {
                    seen.masks.push(mask);
                }
            }
        }
        Ok(seen)
    }

    /// Whether attributes for a larger extent are `own` otherwise.
    fn same_attrs(&self, own: &Attrs, larger: &Attrs) -> bool {
        let follows = |own: i64, larger: i64| {
            own == larger
                || self.counts.iter().zip(&self.larger).any(|(count, &more)| {
                    let (bound, more) = (
                        crate::ops::build::signed(count.bound),
                        crate::ops::build::signed(more),
                    );
                    bound != 0 && own % bound == 0 && own / bound * more == larger
                })
        };
        let same = |a: &Attr, b: &Attr| match (a, b) {
            (Attr::Ints(a), Attr::Ints(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(&own, &larger)| follows(own, larger))
            }
            (Attr::Int(a), Attr::Int(b)) => follows(*a, *b),
            (a, b) => a == b,
        };
        own.0.len() == larger.0.len()
            && own
                .0
                .iter()
                .zip(&larger.0)
                .all(|((name, own), (other, larger))| name == other && same(own, larger))
    }
}

fn differs() -> OpError {
    OpError::HostOnly("its result depends on an extent that data decides".to_owned())
}

impl Walk<'_> {
    /// Lets `build` append nodes for larger extents, looks at them and takes them back.
    pub(in crate::specialize) fn try_larger(
        &mut self,
        build: &dyn Fn(&mut Graph) -> Result<Vec<ValueId>, OpError>,
    ) -> Result<Tried, OpError> {
        let (n_nodes, n_values) = (self.target.nodes.len(), self.target.values.len());
        let bounds = self.bounds.as_mut().expect("the caller looked");
        // What is learned of larger extents is not kept.
        let amounts = bounds.amounts.clone();
        bounds.choose_larger(&self.target);
        bounds.resize(&mut self.target, true);
        bounds.amounts.forget_elements(bounds.axes.keys());
        let tried = build(&mut self.target).and_then(|_| bounds.look(&self.target, n_nodes, n_values));
        self.target.nodes.truncate(n_nodes);
        self.target.values.truncate(n_values);
        bounds.resize(&mut self.target, false);
        bounds.amounts = amounts;
        tried.map_err(|error| match error {
            OpError::HostOnly(_) | OpError::NeedsConstant { .. } => error,
            other => OpError::HostOnly(format!(
                "an extent that data decides may not be the largest: {other}"
            )),
        })
    }

    /// Compares the nodes and values from these numbers on with those that were made for larger extents,
    /// and remembers which of their axes data decides. Gives what `results` are from then on.
    pub(in crate::specialize) fn follow(
        &mut self,
        tried: &Tried,
        first_node: usize,
        first: usize,
        results: Vec<ValueId>,
    ) -> Result<Vec<ValueId>, OpError> {
        self.compare_nodes(tried, first_node, first)?;
        let followed = self.compare_values(tried, first)?;
        let is_masked = tried.nodes.iter().any(|node| !node.masks.is_empty());
        let moved: Vec<ValueId> = if is_masked {
            let masks: Vec<&[Mask]> = tried.nodes.iter().map(|node| node.masks.as_slice()).collect();
            self.replay(first_node, first, &masks)?
        } else {
            (first..self.target.values.len()).map(value).collect()
        };
        for (position, axis, span, cut) in followed {
            let span = match cut {
                Some(extent) => self.shorter(span, extent)?,
                None => span,
            };
            let bounds = self.bounds.as_mut().expect("the caller looked");
            let lanes = bounds.axes.entry(moved[position]).or_default();
            lanes.push(Lane { axis, span });
        }
        let moved = |result: ValueId| match (result.0 as usize).checked_sub(first) {
            Some(position) => moved[position],
            None => result,
        };
        Ok(results.into_iter().map(moved).collect())
    }

    fn compare_nodes(&mut self, tried: &Tried, first_node: usize, first: usize) -> Result<(), OpError> {
        let bounds = self.bounds.as_mut().expect("the caller looked");
        let nodes = &self.target.nodes[first_node..];
        if nodes.len() != tried.nodes.len() || tried.values.len() != self.target.values.len() - first {
            return Err(differs());
        }
        for (node, seen) in nodes.iter().zip(&tried.nodes) {
            if node.op != seen.op || !bounds.same_attrs(&node.attrs, &seen.attrs) {
                return Err(differs());
            }
            for (number, wanted) in seen.constants.iter().enumerate() {
                if lanes::constants(&self.target, &mut bounds.amounts, node, number) != *wanted {
                    return Err(differs());
                }
            }
        }
        Ok(())
    }

    /// Axes of added values, by position, that data decides; where they are cut, the extent that is left.
    #[expect(clippy::type_complexity, reason = "it is taken apart at once")]
    fn compare_values(
        &self,
        tried: &Tried,
        first: usize,
    ) -> Result<Vec<(usize, usize, super::Span, Option<usize>)>, OpError> {
        let bounds = self.bounds.as_ref().expect("the caller looked");
        let mut followed = Vec::new();
        for (position, (larger, constant)) in tried.values.iter().enumerate() {
            let id = value(first + position);
            let dims = self.target.ty(id).dims();
            if let Source::Weight(data) = &self.target.value(id).source {
                let is_first = constant.as_ref().is_some_and(|larger| {
                    larger.dims().len() == dims.len()
                        && larger.dims().iter().zip(&dims).all(|(larger, own)| larger >= own)
                        && larger.first(&dims) == *data
                });
                if !is_first {
                    return Err(differs());
                }
            }
            for (axis, (extent, larger)) in dims.into_iter().zip(larger.dims()).enumerate() {
                let lane = tried.lanes[position].iter().find(|lane| lane.axis == axis);
                let Some(&Lane { span, .. }) = lane else {
                    if extent == larger {
                        continue;
                    }
                    return Err(differs());
                };
                let bound = bounds.bound(span);
                if (extent, larger) == (bound, bounds.larger(span)) {
                    followed.push((position, axis, span, None));
                } else if extent == larger && extent <= bound {
                    followed.push((position, axis, span, Some(extent)));
                } else {
                    return Err(differs());
                }
            }
        }
        Ok(followed)
    }
}
