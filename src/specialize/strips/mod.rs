//! A value that is never whole: what makes it and what reads it is computed strip by strip.
//!
//! Strips are slices along one axis. A node can be computed for a strip of its result alone where each element needs
//! the elements at the same position of its operands, or of a window around it; other operands are read whole. The
//! first is proven of the tile function of every node, for each strip. What is only a few operations per element
//! before and after belongs to the strips, too, since kernels compute it on the way; the results behind are joined.

use std::collections::{BTreeMap, BTreeSet};

use super::element::Element;
use crate::ir::{Attr, Attrs, Graph, Node, NodeId, TensorType, ValueId};
use crate::ops::window::Window;
use crate::ops::{self, InferCtx, Lowering, NEWEST_OPSET, TileKind};
use crate::tile::{Expr, Index, VarId};

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

/// What a node needs for a strip of its result.
struct Need {
    /// Of each operand; it is whole where there is none.
    strips: Vec<Option<Strip>>,
    attrs: Attrs,
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

/// Who reads each value.
struct Uses {
    users: Vec<Vec<usize>>,
    is_output: Vec<bool>,
}

impl Uses {
    fn of(graph: &Graph) -> Self {
        let mut uses = Uses {
            users: vec![Vec::new(); graph.values.len()],
            is_output: vec![false; graph.values.len()],
        };
        for (number, node) in graph.nodes.iter().enumerate() {
            for operand in node.operands.iter().flatten() {
                let users = &mut uses.users[operand.0 as usize];
                if users.last() != Some(&number) {
                    users.push(number);
                }
            }
        }
        for output in &graph.outputs {
            uses.is_output[output.0 as usize] = true;
        }
        uses
    }

    fn users(&self, value: ValueId) -> &[usize] {
        &self.users[value.0 as usize]
    }

    /// Whether all that read a value are among `nodes`.
    fn are_in(&self, value: ValueId, nodes: &BTreeSet<usize>) -> bool {
        !self.is_output[value.0 as usize] && self.users(value).iter().all(|user| nodes.contains(user))
    }
}

/// What kernels may do on the way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    /// A function of elements, or another order of them.
    Light,
    /// A choice of elements, which the kernel that reads them can make.
    Choice,
    Heavy,
}

fn weight(node: &Node) -> Weight {
    match ops::lookup(node.op).map(|def| &def.lower) {
        Some(Lowering::Map(_) | Lowering::Tile(TileKind::Map | TileKind::View, _)) => Weight::Light,
        Some(Lowering::Tile(TileKind::Index, _)) => Weight::Choice,
        Some(
            Lowering::Tile(..)
            | Lowering::Expand(_)
            | Lowering::Bounded(_)
            | Lowering::Loop
            | Lowering::Host(_),
        )
        | None => Weight::Heavy,
    }
}

fn is_light(node: &Node) -> bool {
    weight(node) == Weight::Light
}

/// The nodes around a value that are computed in strips with it.
struct Surroundings {
    nodes: BTreeSet<usize>,
}

impl Surroundings {
    fn of(graph: &Graph, uses: &Uses, value: ValueId) -> Option<Self> {
        let (producer, _) = graph.producer(value)?;
        let mut own = Surroundings {
            nodes: BTreeSet::from([producer.0 as usize]),
        };
        own.extend_back(graph, uses, producer.0 as usize);
        own.extend_on(graph, uses, value);
        let is_closed = own.is_closed(graph);
        (uses.are_in(value, &own.nodes) && is_closed).then_some(own)
    }

    /// What leads to the value, up to the first nodes that are heavy.
    fn extend_back(&mut self, graph: &Graph, uses: &Uses, last: usize) {
        for number in (0..last).rev() {
            let results = &graph.nodes[number].results;
            let leads_through =
                |&user: &usize| self.nodes.contains(&user) && weight(&graph.nodes[user]) < Weight::Heavy;
            let leads_on = |&result: &ValueId| uses.users(result).iter().any(leads_through);
            let is_own = results.iter().all(|&result| uses.are_in(result, &self.nodes));
            if is_own && results.iter().any(leads_on) {
                self.nodes.insert(number);
            }
        }
    }

    /// All that read the value, up to the first ones that are not light, and the light ones behind these.
    fn extend_on(&mut self, graph: &Graph, uses: &Uses, value: ValueId) {
        // Values that are followed, and whether some other node than a light one has computed on them.
        let mut followed: BTreeMap<ValueId, bool> = BTreeMap::from([(value, false)]);
        for (number, node) in graph.nodes.iter().enumerate() {
            let read: Vec<ValueId> = node.operands.iter().flatten().copied().collect();
            let passed: Vec<bool> = read.iter().filter_map(|own| followed.get(own).copied()).collect();
            if passed.is_empty() {
                continue;
            }
            let users = |value: &&ValueId| followed.contains_key(*value);
            let are_light = |value: &ValueId| {
                let mut users = uses.users(*value).iter();
                users.all(|&user| is_light(&graph.nodes[user]))
            };
            let is_needed = passed.contains(&false);
            if is_needed || read.iter().filter(users).all(are_light) {
                self.nodes.insert(number);
                let has_passed = !is_light(node) || !is_needed;
                for &result in &node.results {
                    if !uses.is_output[result.0 as usize] {
                        followed.insert(result, has_passed);
                    }
                }
            }
        }
    }

    /// Whether no node needs one that comes after another of these without being among them.
    fn is_closed(&self, graph: &Graph) -> bool {
        let mut behind: BTreeSet<ValueId> = BTreeSet::new();
        let mut own: BTreeSet<ValueId> = BTreeSet::new();
        for (number, node) in graph.nodes.iter().enumerate() {
            let mut read = node.operands.iter().flatten();
            if self.nodes.contains(&number) {
                if read.any(|value| behind.contains(value)) {
                    return false;
                }
                own.extend(&node.results);
            } else if read.any(|value| own.contains(value) || behind.contains(value)) {
                behind.extend(&node.results);
            }
        }
        true
    }
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

impl Need {
    /// Whether it is strips of the values with an axis in `axes` that are needed, along these.
    fn follows(&self, node: &Node, axes: &BTreeMap<ValueId, usize>) -> bool {
        let mut pairs = node.operands.iter().zip(&self.strips);
        pairs.all(|(operand, strip)| {
            let axis = operand.and_then(|value| axes.get(&value));
            axis.is_none() || axis == strip.map(|strip| strip.axis).as_ref()
        })
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
            let attrs = Attrs::new().with("axis", int(axis));
            let (_, node) = graph.producer(end)?;
            let joined = self.emit("concat", &parts, attrs, &node.origin)?;
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
        let dims = graph.ty(value).dims();
        if strip.len() == dims[strip.axis] {
            return Some(whole);
        }
        let (mut starts, mut ends) = (vec![0; dims.len()], dims.clone());
        (starts[strip.axis], ends[strip.axis]) = (strip.start, strip.end);
        let attrs = Attrs::new()
            .with("starts", ints(&starts))
            .with("ends", ints(&ends))
            .with("steps", ints(&vec![1; dims.len()]));
        let producer = graph.producer(value);
        let origin = producer.map_or(&[][..], |(_, node)| &node.origin);
        self.emit("slice", &[whole], attrs, origin)
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
        let made = ops::emit(
            &mut self.target,
            node.op,
            operands,
            attrs,
            1,
            NEWEST_OPSET,
            &node.origin,
        );
        let made = made.ok()?[0];
        let name = &graph.value(result).name;
        if !name.is_empty() {
            self.rename(made, format!("{name}.{}", strip.start));
        }
        (*self.target.ty(made) == strip_type(graph.ty(result), strip)).then_some(made)
    }

    fn emit(
        &mut self,
        op: &'static str,
        operands: &[ValueId],
        attrs: Attrs,
        origin: &[String],
    ) -> Option<ValueId> {
        let operands = operands.iter().copied().map(Some).collect();
        let made = ops::emit(&mut self.target, op, operands, attrs, 1, NEWEST_OPSET, origin);
        Some(made.ok()?[0])
    }

    fn rename(&mut self, value: ValueId, name: String) {
        self.target.value_mut(value).name = name;
    }
}

fn strip_type(ty: &TensorType, strip: Strip) -> TensorType {
    let mut dims = ty.dims();
    dims[strip.axis] = strip.len();
    TensorType::new(ty.dtype, &dims)
}

/// What `node` needs for a strip of its result; none where that is not known.
fn need(graph: &Graph, node: &Node, strip: Strip) -> Option<Need> {
    window_need(graph, node, strip).or_else(|| lane_need(graph, node, strip))
}

/// Where each element needs those at the same position of the operands that have the axis.
fn lane_need(graph: &Graph, node: &Node, strip: Strip) -> Option<Need> {
    let &[result] = node.results.as_slice() else {
        return None;
    };
    let types: Vec<Option<TensorType>> = (node.operands.iter())
        .map(|operand| operand.map(|value| graph.ty(value).clone()))
        .collect();
    let element = Element::of(node.op, &node.attrs, &types, graph.ty(result), 0)?;
    let axes = lanes(&element, element.vars[strip.axis], types.len())?;
    let attrs = resized(&node.attrs, graph.ty(result), strip);
    let strips: Vec<Option<Strip>> = axes
        .into_iter()
        .map(|axis| axis.map(|axis| Strip { axis, ..strip }))
        .collect();
    let cut = types.iter().zip(&strips).map(|(ty, strip)| match (ty, strip) {
        (Some(ty), Some(strip)) => Some(strip_type(ty, *strip)),
        (ty, _) => ty.clone(),
    });
    // One element of the strip must be what it is of the whole, of the same operands.
    let cut: Vec<Option<TensorType>> = cut.collect();
    let ty = strip_type(graph.ty(result), strip);
    if strip.len() < 2 || infer(node, &attrs, &cut)? != ty {
        return None;
    }
    let own = Element::of(node.op, &attrs, &cut, &ty, 0)?;
    let is_same = own.body.exprs().eq(element.body.exprs());
    is_same.then_some(Need { strips, attrs })
}

fn infer(node: &Node, attrs: &Attrs, operands: &[Option<TensorType>]) -> Option<TensorType> {
    let def = ops::lookup(node.op)?;
    (def.infer)(&InferCtx { attrs, operands }).ok()?.pop()
}

/// The axis of each operand that has the same position as the result along the axis of `var`. None where an element
/// needs others along it, or its position itself.
fn lanes(element: &Element, var: VarId, n_operands: usize) -> Option<Vec<Option<usize>>> {
    let depends = |index: &Index| {
        let mut variables = Vec::new();
        index.variables(&mut variables);
        variables.contains(&var)
    };
    let has_other_use = element.body.exprs().any(|(_, expr)| match expr {
        Expr::IndexValue(index) => depends(index),
        Expr::Select { conds, .. } => conds.iter().any(|cond| depends(&cond.index)),
        Expr::Load { .. } | Expr::Const(_) | Expr::Map { .. } | Expr::Reduce { .. } | Expr::Acc { .. } => {
            false
        }
    });
    let mut lanes: Vec<Option<Option<usize>>> = vec![None; n_operands];
    for (operand, index) in element.loads() {
        let mut reading = index.iter().enumerate().filter(|(_, index)| depends(index));
        let lane = match (reading.next(), reading.next()) {
            (None, _) => None,
            (Some((axis, index)), None) if *index == Index::var(var) => Some(axis),
            _ => return None,
        };
        if lanes[operand].is_some_and(|known| known != lane) {
            return None;
        }
        lanes[operand] = Some(lane);
    }
    (!has_other_use).then(|| lanes.into_iter().map(Option::flatten).collect())
}

/// Attributes that state extents of the result, for a strip of it.
fn resized(attrs: &Attrs, result: &TensorType, strip: Strip) -> Attrs {
    let mut attrs = attrs.clone();
    for name in ["shape", "ends"] {
        if let Some(Attr::Ints(extents)) = attrs.0.get_mut(name)
            && extents.len() == result.rank()
        {
            extents[strip.axis] = i64::try_from(strip.len()).expect("extents fit in i64");
        }
    }
    attrs
}

/// Where each element needs a window of the first operand.
fn window_need(graph: &Graph, node: &Node, strip: Strip) -> Option<Need> {
    let first_space = match node.op {
        "conv" | "max_pool" => 2,
        "conv_nhwc" | "max_pool_nhwc" => 1,
        _ => return None,
    };
    let x = graph.ty(node.operands[0]?).dims();
    let n_space = x.len() - 2;
    let space = strip
        .axis
        .checked_sub(first_space)
        .filter(|&space| space < n_space)?;
    let kernel = match node.attrs.ints("kernel_shape") {
        Some(kernel) => kernel
            .iter()
            .map(|&cells| usize::try_from(cells).ok())
            .collect::<Option<_>>()?,
        None => graph.ty((*node.operands.get(1)?)?).dims()[first_space..first_space + n_space].to_vec(),
    };
    let window = Window::new(&node.attrs, &kernel).ok()?;
    if node.attrs.int("ceil_mode").unwrap_or(0) != 0 {
        return None;
    }
    // In cells of the padded operand.
    let first = strip.start * window.strides[space];
    let last = (strip.end - 1) * window.strides[space] + window.span(space);
    let (pad, extent) = (window.pads_begin[space], x[strip.axis]);
    let start = first.saturating_sub(pad).min(extent);
    let end = last.saturating_sub(pad).min(extent);
    if end <= start {
        return None;
    }
    let mut pads: Vec<usize> = window
        .pads_begin
        .iter()
        .chain(&window.pads_end)
        .copied()
        .collect();
    pads[space] = pad.saturating_sub(first);
    pads[space + n_space] = last.saturating_sub(pad + extent);
    let mut strips = vec![None; node.operands.len()];
    strips[0] = Some(Strip {
        axis: strip.axis,
        start,
        end,
    });
    Some(Need {
        strips,
        attrs: node.attrs.clone().with("pads", ints(&pads)),
    })
}

fn int(value: usize) -> Attr {
    Attr::Int(i64::try_from(value).expect("extents fit in i64"))
}

fn ints(values: &[usize]) -> Attr {
    let signed = values.iter().map(|&value| i64::try_from(value));
    Attr::Ints(signed.collect::<Result<_, _>>().expect("extents fit in i64"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::HostTensor;
    use crate::reference;
    use crate::testing::builder::{GraphBuilder, drawn_graph, joined_graph};

    /// The graph with each of its values in strips where that can be: how many could.
    fn assert_same_in_strips(mut builder: GraphBuilder, n: usize) -> usize {
        let inputs = builder.inputs();
        let graph = builder.graph;
        let wanted = reference::run(&graph, &inputs).unwrap();
        let values: Vec<ValueId> = graph
            .nodes
            .iter()
            .flat_map(|node| &node.results)
            .copied()
            .collect();
        let mut n_cut = 0;
        for value in values {
            let Some(other) = in_strips(&graph, value, n) else {
                continue;
            };
            n_cut += 1;
            let found = reference::run(&other, &inputs).unwrap();
            for (found, wanted) in found.iter().zip(&wanted) {
                assert_close(
                    found,
                    wanted,
                    &format!("{value} of `{}` in {n} strips", graph.name),
                );
            }
            let name = &graph.value(value).name;
            assert!(name.is_empty() || other.values.iter().all(|own| own.name != *name));
        }
        n_cut
    }

    fn assert_close(found: &HostTensor, wanted: &HostTensor, case: &str) {
        assert_eq!(found.dims(), wanted.dims(), "{case}");
        let pairs = found.as_slice::<f32>().iter().zip(wanted.as_slice::<f32>());
        for (a, b) in pairs {
            assert!((a - b).abs() <= 1e-4 * (1.0 + b.abs()), "{case}: {a} is not {b}");
        }
    }

    #[test]
    fn drawn_graphs_compute_the_same_in_strips() {
        let mut n_cut = 0;
        for seed in 0..60 {
            n_cut += assert_same_in_strips(drawn_graph(14, seed), 2 + usize::try_from(seed % 2).unwrap());
            n_cut += assert_same_in_strips(joined_graph(14, seed), 2);
        }
        assert!(n_cut > 300, "{n_cut} values were cut");
    }

    fn window(strides: usize, pads: usize) -> Attrs {
        Attrs::new()
            .with("strides", ints(&[strides, strides]))
            .with("pads", ints(&[pads; 4]))
            .with("dilations", ints(&[1, 1]))
    }

    /// An expansion, a convolution of every channel alone, or a pooling, of it, and what follows.
    fn pictures(strides: usize, pads: usize, pools: bool) -> (GraphBuilder, ValueId) {
        let mut builder = GraphBuilder::new("pictures", 5);
        let x = builder.input(&[1, 3, 13, 11]);
        let w = builder.weight(&[6, 3, 1, 1]);
        let wide = builder.op("conv", &[x, w], window(1, 0));
        let gate = builder.plain("sigmoid", &[wide]);
        let wide = builder.plain("mul", &[wide, gate]);
        builder.graph.value_mut(wide).name = "wide".to_owned();
        let narrow = if pools {
            let attrs = window(strides, pads).with("kernel_shape", ints(&[3, 3]));
            builder.op("max_pool", &[wide], attrs)
        } else {
            let w = builder.weight(&[6, 1, 3, 3]);
            let attrs = window(strides, pads).with("group", int(6));
            builder.op("conv", &[wide, w], attrs)
        };
        let bias = builder.weight(&[6, 1, 1]);
        let narrow = builder.plain("add", &[narrow, bias]);
        builder.output(narrow);
        (builder, wide)
    }

    #[test]
    fn strips_of_pictures_overlap_by_windows() {
        for (strides, pads, pools) in [
            (1, 1, false),
            (2, 1, false),
            (2, 0, true),
            (1, 1, true),
            (3, 1, false),
        ] {
            for n in [2, 3, 5] {
                let (mut builder, wide) = pictures(strides, pads, pools);
                let inputs = builder.inputs();
                let Some(cut) = in_strips(&builder.graph, wide, n) else {
                    let height = builder.graph.ty(builder.graph.outputs[0]).dims()[2];
                    assert!(height < 2 * n, "{height} rows in {n} strips");
                    continue;
                };
                let wanted = reference::run(&builder.graph, &inputs).unwrap();
                let found = reference::run(&cut, &inputs).unwrap();
                assert_close(&found[0], &wanted[0], &format!("strides {strides}, {n} strips"));
                // Along the height, or for poolings along the channels.
                let most = builder.graph.ty(wide).n_elements() * (13_usize.div_ceil(n) + 3) / 13;
                for value in cut.values.iter().filter(|value| value.name.starts_with("wide")) {
                    let n_elements = value.ty.as_ref().unwrap().n_elements();
                    assert!(n_elements <= most, "{n_elements} in {n} strips");
                }
            }
        }
    }

    #[test]
    fn what_is_read_across_stays_whole() {
        let mut builder = GraphBuilder::new("across", 1);
        let x = builder.input(&[1, 16]);
        let w = builder.weight(&[16, 32]);
        let hidden = builder.plain("matmul", &[x, w]);
        let all = builder.op("softmax", &[hidden], Attrs::new().with("axis", int(1)));
        builder.output(all);
        for value in [x, w, hidden, all] {
            assert!(in_strips(&builder.graph, value, 2).is_none());
        }
    }

    #[test]
    fn elements_that_know_where_they_are_stay_whole() {
        let mut builder = GraphBuilder::new("sums", 1);
        let x = builder.input(&[8, 4]);
        let doubled = builder.plain("add", &[x, x]);
        let sums = builder.op("cum_sum", &[doubled], Attrs::new().with("axis", int(0)));
        builder.output(sums);
        // Only the other axis could be cut, which has too few elements.
        assert!(in_strips(&builder.graph, doubled, 4).is_none());
    }
}
