//! Joins of a fused graph, as places in memory.
//!
//! A chosen `join` is no kernel where its parts can lie in it: the regions that compute them store
//! them into a box of the joined tensor, and whoever else reads them reads that box. A join whose parts
//! lie side by side in a larger one already is a box of that. Where too many parts have to be
//! copied, since they are inputs, constants, outputs or in another join, the join stays a kernel.

use std::collections::{BTreeMap, BTreeSet};

use super::extraction::explain::once;
use super::extraction::parts::{JOIN, MOST_COPIES, Part, Piece, View, axis_of, parts, view_of};
use super::extraction::regions::{
    Explanation, FusedGraph, Region, RegionKind, RuleUse, TensorId, TensorSource,
};
use crate::ir::{Attr, Attrs, Graph, Node, Operand, Placement, TensorType, ValueId};

/// Resolves the joins of `fused`.
pub fn place(fused: &mut FusedGraph) {
    let joins = joins(fused);
    if joins.is_empty() {
        return;
    }
    let plan = Planner::new(fused, &joins).plan();
    let by_region: BTreeMap<usize, &Join> = joins.iter().map(|join| (join.region, join)).collect();
    credit(fused, &by_region, &plan.copies);
    for (number, region) in std::mem::take(&mut fused.regions).into_iter().enumerate() {
        let is_join = by_region.contains_key(&number);
        if let Some(copies) = plan.copies.get(&number) {
            let copies = copies.iter().map(|copy| placed(fused, copy, &plan.boxes));
            let copies: Vec<Region> = copies.collect();
            fused.regions.extend(copies);
        } else {
            let region = if is_join { moving(region) } else { region };
            fused.regions.push(placed(fused, &region, &plan.boxes));
        }
    }
}

/// A join and its parts.
struct Join {
    region: usize,
    output: TensorId,
    axis: usize,
    parts: Vec<Part<TensorId>>,
}

/// Where a tensor lies.
#[derive(Clone, Debug, PartialEq)]
struct Box {
    whole: TensorId,
    placement: Placement,
    /// The tensor's dims in the box: those of an operand of a join that reshapes it.
    dims: Vec<usize>,
}

fn joins(fused: &FusedGraph) -> Vec<Join> {
    let regions = fused.regions.iter().enumerate();
    let join = |(number, region): (usize, &Region)| {
        let node = region.body.nodes.iter().find(|node| node.op == JOIN)?;
        let axis = axis_of(&node.attrs);
        let pieces: Vec<Piece<TensorId>> = node
            .operands
            .iter()
            .flatten()
            .map(|&operand| piece(region, operand, axis))
            .collect();
        Some(Join {
            region: number,
            output: region.outputs[0],
            axis,
            parts: parts(&pieces),
        })
    };
    regions.filter_map(join).collect()
}

fn piece(region: &Region, operand: ValueId, axis: usize) -> Piece<TensorId> {
    let body = &region.body;
    let tensor = |value: ValueId| {
        let position = body.inputs.iter().position(|&input| input == value)?;
        Some(region.inputs[position])
    };
    let extent = body.ty(operand).dims()[axis];
    let Some((_, node)) = body.producer(operand) else {
        return Piece {
            source: tensor(operand),
            view: View::Whole,
            extent,
        };
    };
    let from = node.operands[0].expect("views have an operand");
    Piece {
        source: tensor(from),
        view: view_of(node.op, &node.attrs, &body.ty(from).dims(), axis),
        extent,
    }
}

/// Decides which tensors lie in which.
struct Planner<'a> {
    fused: &'a FusedGraph,
    joins: &'a [Join],
    boxes: BTreeMap<TensorId, Box>,
    /// For each join that is no kernel, the kernels that copy some of its parts.
    copies: BTreeMap<usize, Vec<Region>>,
    /// Tensors that only a region of their own can be.
    fixed: BTreeSet<TensorId>,
}

struct Plan {
    boxes: BTreeMap<TensorId, Box>,
    copies: BTreeMap<usize, Vec<Region>>,
}

impl<'a> Planner<'a> {
    fn new(fused: &'a FusedGraph, joins: &'a [Join]) -> Self {
        let mut fixed: BTreeSet<TensorId> = fused.outputs.iter().map(|(_, id)| *id).collect();
        let joined: BTreeSet<usize> = joins.iter().map(|join| join.region).collect();
        for (number, region) in fused.regions.iter().enumerate() {
            if joined.contains(&number) {
                continue;
            }
            if only_relabels(region) {
                fixed.extend(region.inputs.iter().chain(&region.outputs));
            }
            fixed.extend(read_as_rows(region));
        }
        Planner {
            fused,
            joins,
            boxes: BTreeMap::new(),
            copies: BTreeMap::new(),
            fixed,
        }
    }

    /// The last joins come first: they are what others are parts of.
    fn plan(mut self) -> Plan {
        for join in self.joins.iter().rev() {
            if let Some(own) = self.side_by_side(join) {
                self.boxes.insert(join.output, own);
                self.copies.insert(join.region, Vec::new());
            } else {
                self.place_parts(join);
            }
        }
        Plan {
            boxes: self.boxes,
            copies: self.copies,
        }
    }

    /// The box that a join is whose parts lie in a larger join already.
    fn side_by_side(&self, join: &Join) -> Option<Box> {
        if self.boxes.contains_key(&join.output) || self.fixed.contains(&join.output) {
            return None;
        }
        let own = |part: &Part<TensorId>| {
            let own = self.boxes.get(&part.piece.source?)?;
            (part.piece.view == View::Whole && own.dims == self.dims(part.piece.source?)).then_some(own)
        };
        let first = own(join.parts.first()?)?;
        let rank = first.placement.dims.len();
        let follows = |part: &Part<TensorId>| {
            own(part).is_some_and(|next| {
                let expected = |axis: usize| {
                    let moved = if axis == join.axis { part.start } else { 0 };
                    first.placement.starts[axis] + moved
                };
                next.whole == first.whole
                    && (0..rank).all(|axis| next.placement.starts[axis] == expected(axis))
            })
        };
        join.parts.iter().all(follows).then(|| Box {
            dims: self.dims(join.output),
            ..first.clone()
        })
    }

    fn dims(&self, id: TensorId) -> Vec<usize> {
        self.fused.tensor(id).ty.dims()
    }

    /// Gives every part a box in the join, where no more than few have to be copied.
    fn place_parts(&mut self, join: &Join) {
        let Some(whole) = self.whole_of(join) else {
            return;
        };
        let mut placed: Vec<TensorId> = Vec::new();
        let mut copied: Vec<&Part<TensorId>> = Vec::new();
        for part in &join.parts {
            match part.piece.source.filter(|_| part.is_tensor()) {
                Some(source) if self.may_lie_in(source, join) && !placed.contains(&source) => {
                    placed.push(source);
                }
                _ => copied.push(part),
            }
        }
        if copied.len() > MOST_COPIES || placed.is_empty() {
            return;
        }
        let copies = copied.iter().map(|part| {
            let region = &self.fused.regions[join.region];
            copy_of(region, part, boxed(self.fused, &whole, join, part))
        });
        let copies: Vec<Region> = copies.collect();
        for part in &join.parts {
            if let Some(source) = part.piece.source.filter(|_| !copied.contains(&part)) {
                self.boxes.insert(source, boxed(self.fused, &whole, join, part));
            }
        }
        self.copies.insert(join.region, copies);
    }

    /// The box that a join fills, which is the whole tensor unless it is part of another join;
    /// none where that reshapes it.
    fn whole_of(&self, join: &Join) -> Option<Box> {
        let dims = self.dims(join.output);
        let own = self.boxes.get(&join.output).cloned().unwrap_or_else(|| Box {
            whole: join.output,
            placement: Placement {
                starts: vec![0; dims.len()],
                dims: dims.clone(),
            },
            dims: dims.clone(),
        });
        (own.dims == dims).then_some(own)
    }

    fn may_lie_in(&self, tensor: TensorId, join: &Join) -> bool {
        tensor != join.output
            && matches!(self.fused.tensor(tensor).source, TensorSource::Regions)
            && !self.fixed.contains(&tensor)
            && !self.boxes.contains_key(&tensor)
    }
}

/// The box of a part of `join`, which fills `whole`.
fn boxed(fused: &FusedGraph, whole: &Box, join: &Join, part: &Part<TensorId>) -> Box {
    let mut own = whole.clone();
    own.placement.starts[join.axis] += part.start;
    own.dims = fused.tensor(join.output).ty.dims();
    own.dims[join.axis] = part.piece.extent;
    own
}

/// A region that is its operand's memory as long as both are dense.
fn only_relabels(region: &Region) -> bool {
    region.body.nodes.iter().all(|node| node.op == "reshape")
}

/// What products take statistics of: rows that lie in memory one behind the other.
fn read_as_rows(region: &Region) -> Vec<TensorId> {
    let has = |kinds: &[&str]| region.body.nodes.iter().any(|node| kinds.contains(&node.op));
    let is_product = region.kind == RegionKind::Dot && has(&["matmul"]);
    let is_simple = region.body.nodes.iter().all(|node| {
        let is_reduction = super::egraph::language::kind_of(node.op) == crate::ops::TileKind::Reduce;
        !is_reduction
    });
    if is_product && !is_simple {
        region.inputs.clone()
    } else {
        Vec::new()
    }
}

/// The join as a kernel that moves its parts.
fn moving(mut region: Region) -> Region {
    for node in region.body.nodes.iter_mut().filter(|node| node.op == JOIN) {
        node.op = "concat";
    }
    region.kind = RegionKind::Pointwise;
    region
}

/// A kernel that copies a part of the join `region`: an operand, or the tensor of several.
fn copy_of(region: &Region, part: &Part<TensorId>, to: Box) -> Region {
    let body = &region.body;
    let join = body
        .nodes
        .iter()
        .find(|node| node.op == JOIN)
        .expect("the region joins");
    let operand = join.operands[part.operand].expect("operands of joins are present");
    let mut copy = Rebuilt::new(body);
    let view = body.producer(operand).map(|(_, node)| node);
    let from = view.map_or(operand, |node| node.operands[0].expect("views have an operand"));
    if let Some(position) = body.inputs.iter().position(|&input| input == from) {
        let name = &body.value(from).name;
        copy.read(from, region.inputs[position], body.ty(from), name);
    }
    let value = if let Some(node) = view.filter(|_| part.piece.view != View::Whole) {
        copy.node(body, node)
    } else {
        let value = copy.value(body, from);
        copy.reshape(value, &body.ty(from).dims(), &join.origin)
    };
    copy.body.add_output("", value);
    Region {
        body: copy.body,
        inputs: copy.inputs,
        outputs: vec![to.whole],
        placements: BTreeMap::from([(0, to.placement)]),
        kind: RegionKind::Pointwise,
        rules: region.rules.clone(),
        bound_us: region.bound_us,
        explanation: Explanation::default(),
    }
}

/// `region` with its operands read from, and its outputs stored to, where they lie.
fn placed(fused: &FusedGraph, region: &Region, boxes: &BTreeMap<TensorId, Box>) -> Region {
    let touched = region.inputs.iter().chain(&region.outputs);
    if !touched.into_iter().any(|id| boxes.contains_key(id)) {
        return region.clone();
    }
    let old = &region.body;
    let mut own = Rebuilt::new(old);
    for (&input, &id) in old.inputs.iter().zip(&region.inputs) {
        match boxes.get(&id) {
            None => own.read(input, id, old.ty(input), &old.value(input).name),
            Some(place) => own.read_box(fused, input, old.ty(input), place),
        }
    }
    for node in &old.nodes {
        own.node(old, node);
    }
    let mut placements = region.placements.clone();
    let mut outputs = Vec::new();
    for (number, (&output, &id)) in old.outputs.iter().zip(&region.outputs).enumerate() {
        let mut value = own.value(old, output);
        match boxes.get(&id) {
            None => outputs.push(id),
            Some(place) => {
                if old.ty(output).dims() != place.dims {
                    value = own.reshape(value, &place.dims, &[]);
                }
                placements.insert(number, place.placement.clone());
                outputs.push(place.whole);
            }
        }
        own.body.add_output(&old.output_names[number], value);
    }
    Region {
        body: own.body,
        inputs: own.inputs,
        outputs,
        placements,
        ..region.clone()
    }
}

/// A body under construction, and what became of the old one's values.
struct Rebuilt {
    body: Graph,
    inputs: Vec<TensorId>,
    values: Vec<Option<ValueId>>,
}

impl Rebuilt {
    fn new(old: &Graph) -> Self {
        Rebuilt {
            body: Graph::new(&old.name),
            inputs: Vec::new(),
            values: vec![None; old.values.len()],
        }
    }

    /// An input for `tensor`, one for all that lies in it.
    fn input(&mut self, tensor: TensorId, ty: &TensorType, name: &str) -> ValueId {
        if let Some(known) = self.inputs.iter().position(|&own| own == tensor) {
            return self.body.inputs[known];
        }
        self.inputs.push(tensor);
        self.body.add_input(name, Some(ty.clone()))
    }

    fn read(&mut self, old: ValueId, tensor: TensorId, ty: &TensorType, name: &str) {
        self.values[old.0 as usize] = Some(self.input(tensor, ty, name));
    }

    /// The old input as a view of the tensor that it lies in.
    fn read_box(&mut self, fused: &FusedGraph, old: ValueId, ty: &TensorType, place: &Box) {
        let whole = fused.tensor(place.whole);
        let input = self.input(place.whole, &whole.ty, &whole.name);
        let ints = |values: Vec<usize>| {
            let known = |value| i64::try_from(value).expect("extents fit in i64");
            Attr::Ints(values.into_iter().map(known).collect())
        };
        let starts = &place.placement.starts;
        let ends = starts
            .iter()
            .zip(&place.dims)
            .map(|(start, extent)| start + extent);
        let attrs = Attrs::new()
            .with("starts", ints(starts.clone()))
            .with("ends", ints(ends.collect()))
            .with("steps", ints(vec![1; starts.len()]));
        let found = TensorType::new(ty.dtype, &place.dims);
        let mut value = self.add("slice", input, attrs, found, &[]);
        if ty.dims() != place.dims {
            value = self.reshape(value, &ty.dims(), &[]);
        }
        self.values[old.0 as usize] = Some(value);
    }

    fn add(
        &mut self,
        op: &'static str,
        operand: ValueId,
        attrs: Attrs,
        ty: TensorType,
        origin: &[String],
    ) -> ValueId {
        let node = self
            .body
            .add_node(op, vec![Some(operand)], attrs, &[("", Some(ty))], origin.to_vec());
        self.body.node(node).results[0]
    }

    fn reshape(&mut self, value: ValueId, dims: &[usize], origin: &[String]) -> ValueId {
        let known = |&extent: &usize| i64::try_from(extent).expect("extents fit in i64");
        let attrs = Attrs::new().with("shape", Attr::Ints(dims.iter().map(known).collect()));
        let ty = TensorType::new(self.body.ty(value).dtype, dims);
        self.add("reshape", value, attrs, ty, origin)
    }

    /// What became of a value; weights are taken over when they are first asked for.
    fn value(&mut self, old: &Graph, value: ValueId) -> ValueId {
        if let Some(known) = self.values[value.0 as usize] {
            return known;
        }
        let data = old.weight(value).expect("nodes are in topological order");
        let own = self.body.add_weight(&old.value(value).name, data.clone());
        self.values[value.0 as usize] = Some(own);
        own
    }

    /// Takes over a node; gives its first result.
    fn node(&mut self, old: &Graph, node: &Node) -> ValueId {
        let operands: Vec<Operand> = node
            .operands
            .iter()
            .map(|operand| operand.map(|value| self.value(old, value)))
            .collect();
        let id = self.body.copy_node(old, node, operands);
        let made = self.body.node(id).results.clone();
        for (&result, own) in node.results.iter().zip(&made) {
            self.values[result.0 as usize] = Some(*own);
        }
        made[0]
    }
}

/// Tells of a join that is no kernel at the last kernel that writes a part of it.
fn credit(fused: &mut FusedGraph, joins: &BTreeMap<usize, &Join>, copies: &BTreeMap<usize, Vec<Region>>) {
    for (&number, own) in copies {
        if !own.is_empty() {
            continue;
        }
        let Some(writer) = last_writer(fused, joins, copies, joins[&number]) else {
            continue;
        };
        let region = fused.regions[number].clone();
        let to = &mut fused.regions[writer];
        to.explanation.saved_launches += region.explanation.saved_launches + 1;
        to.explanation.saved_bytes += region.explanation.saved_bytes;
        to.explanation.rejected.extend(region.explanation.rejected);
        let rules = region.rules.into_iter().filter(|rule| !to.rules.contains(rule));
        let rules: Vec<RuleUse> = rules.collect();
        to.rules.extend(rules);
        let origins = region.body.nodes.into_iter().flat_map(|node| node.origin);
        if let Some(node) = to.body.nodes.last_mut() {
            node.origin = once(node.origin.drain(..).chain(origins));
        }
    }
}

/// The last region that writes a part of `join`, directly or of a part that is no kernel either.
fn last_writer(
    fused: &FusedGraph,
    joins: &BTreeMap<usize, &Join>,
    copies: &BTreeMap<usize, Vec<Region>>,
    join: &Join,
) -> Option<usize> {
    let sources = join.parts.iter().filter_map(|part| part.piece.source);
    let writer = |source: TensorId| {
        let number = fused
            .regions
            .iter()
            .position(|region| region.outputs.contains(&source))?;
        match joins.get(&number).filter(|_| copies.contains_key(&number)) {
            Some(inner) => last_writer(fused, joins, copies, inner),
            None => Some(number),
        }
    };
    sources.filter_map(writer).max()
}

/// Leaves out tensors that nothing reads or writes, and gives the old ids of the others.
pub(super) fn forget_unused(fused: &mut FusedGraph) -> Vec<TensorId> {
    let ports = fused.inputs.iter().chain(&fused.outputs).map(|(_, id)| *id);
    let touched = fused
        .regions
        .iter()
        .flat_map(|region| region.inputs.iter().chain(&region.outputs));
    let used: BTreeSet<TensorId> = ports.chain(touched.copied()).collect();
    let ids: BTreeMap<TensorId, TensorId> = used.iter().copied().zip((0u32..).map(TensorId)).collect();
    let old = std::mem::take(&mut fused.tensors);
    let kept = (0u32..)
        .map(TensorId)
        .zip(old)
        .filter(|(id, _)| used.contains(id));
    fused.tensors = kept.map(|(_, tensor)| tensor).collect();
    let ports = fused
        .inputs
        .iter_mut()
        .chain(&mut fused.outputs)
        .map(|(_, id)| id);
    let regions = fused.regions.iter_mut();
    let touched = regions.flat_map(|region| region.inputs.iter_mut().chain(&mut region.outputs));
    ports.chain(touched).for_each(|id| *id = ids[id]);
    used.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::HostTensor;
    use crate::reference;
    use crate::rewrite::{DeviceRates, RuleSet, fuse, run_fused};
    use crate::testing::builder::{GraphBuilder, joined_graph};

    fn fused(graph: &Graph) -> FusedGraph {
        fuse(graph, RuleSet::builtin(), DeviceRates::for_sm(90)).unwrap()
    }

    fn n_copies(fused: &FusedGraph) -> usize {
        let moves = |region: &&Region| {
            let mut nodes = region.body.nodes.iter();
            nodes.all(|node| ["slice", "reshape", "concat"].contains(&node.op))
        };
        fused.regions.iter().filter(moves).count()
    }

    fn n_placed(fused: &FusedGraph) -> usize {
        fused.regions.iter().map(|region| region.placements.len()).sum()
    }

    fn assert_same(mut builder: GraphBuilder, case: &str) -> FusedGraph {
        let fused = fused(&builder.graph);
        let inputs: Vec<HostTensor> = builder.inputs();
        let wanted = reference::run(&builder.graph, &inputs).unwrap();
        for (found, wanted) in run_fused(&fused, &inputs).unwrap().iter().zip(&wanted) {
            assert_eq!(found.ty(), wanted.ty(), "{case}");
            let pairs = found.as_slice::<f32>().iter().zip(wanted.as_slice::<f32>());
            for (a, b) in pairs {
                assert!((a - b).abs() <= 1e-4 * (1.0 + b.abs()), "{case}: {a} is not {b}");
            }
        }
        fused
    }

    #[test]
    fn drawn_concatenations_keep_their_meaning() {
        let mut placed = 0;
        for seed in 0..150 {
            let n_nodes = 6 + usize::try_from(seed).unwrap() % 24;
            let fused = assert_same(joined_graph(n_nodes, seed), &format!("seed {seed}"));
            assert!(fused.regions.iter().all(|region| {
                region.placements.iter().all(|(&number, own)| {
                    let whole = fused.tensor(region.outputs[number]).ty.dims();
                    let dims = region.body.ty(region.body.outputs[number]).dims();
                    own.dims == whole && own.holds(&dims)
                })
            }));
            placed += n_placed(&fused);
        }
        assert!(placed > 100, "only {placed} tensors are placed");
    }

    fn concat(builder: &mut GraphBuilder, parts: &[ValueId]) -> ValueId {
        builder.op("concat", parts, Attrs::new().with("axis", Attr::Int(1)))
    }

    /// Values of 8 columns, each computed from the one before.
    fn chain(builder: &mut GraphBuilder, n: usize) -> Vec<ValueId> {
        let mut values = Vec::new();
        let mut x = builder.input(&[16, 8]);
        for _ in 0..n {
            let w = builder.weight(&[8, 8]);
            x = builder.plain("matmul", &[x, w]);
            values.push(x);
        }
        values
    }

    fn product(builder: &mut GraphBuilder, x: ValueId, columns: usize) -> ValueId {
        let rows = builder.graph.ty(x).dims()[1];
        let w = builder.weight(&[rows, columns]);
        builder.plain("matmul", &[x, w])
    }

    #[test]
    fn dense_blocks_grow_in_one_tensor() {
        let mut g = GraphBuilder::new("dense", 1);
        let x = g.input(&[16, 8]);
        let mut all = vec![product(&mut g, x, 8)];
        for _ in 0..4 {
            let seen = concat(&mut g, &all.clone());
            let next = if all.len() > 1 { seen } else { all[0] };
            all.push(product(&mut g, next, 8));
        }
        let whole = concat(&mut g, &all);
        let y = product(&mut g, whole, 4);
        g.output(y);
        let fused = assert_same(g, "dense");
        assert_eq!((n_copies(&fused), fused.regions.len()), (0, 6));
        // Input, output, weights and one tensor for all concatenations.
        let device = fused
            .tensors
            .iter()
            .filter(|tensor| matches!(tensor.source, TensorSource::Regions));
        assert_eq!(device.count(), 2);
    }

    #[test]
    fn an_input_is_copied_and_the_rest_is_placed() {
        let mut g = GraphBuilder::new("input", 1);
        let values = chain(&mut g, 2);
        let x = g.graph.inputs[0];
        let joined = concat(&mut g, &[values[0], x, values[1]]);
        let y = product(&mut g, joined, 4);
        g.output(y);
        let fused = assert_same(g, "input");
        assert_eq!((n_copies(&fused), n_placed(&fused)), (1, 3));
    }

    #[test]
    fn outputs_and_parts_of_several_concatenations_are_no_boxes() {
        let mut g = GraphBuilder::new("outputs", 1);
        let values = chain(&mut g, 3);
        let one = concat(&mut g, &[values[0], values[1]]);
        let other = concat(&mut g, &[values[1], values[0], values[2]]);
        for (value, columns) in [(one, 3), (other, 5)] {
            let y = product(&mut g, value, columns);
            g.output(y);
        }
        g.output(values[2]);
        let fused = assert_same(g, "outputs");
        // The second output and one of the two orders are moved by kernels.
        assert_eq!(n_copies(&fused), 2);
    }

    #[test]
    fn the_last_writer_tells_of_the_concatenation() {
        let mut g = GraphBuilder::new("told", 1);
        let values = chain(&mut g, 2);
        let joined = concat(&mut g, &values);
        let y = product(&mut g, joined, 4);
        g.output(y);
        let fused = assert_same(g, "told");
        let writer = &fused.regions[1];
        let nodes: Vec<&String> = writer.body.nodes.iter().flat_map(|node| &node.origin).collect();
        assert!(nodes.iter().any(|node| node.starts_with("concat")), "{nodes:?}");
        assert!(writer.rules.iter().any(|rule| rule.name == "place_parts"));
        assert_eq!(writer.explanation.saved_launches, 1);
        let copied = writer
            .explanation
            .rejected
            .iter()
            .any(|other| other.lost_us > 1.0);
        assert!(copied, "{:?}", writer.explanation);
    }
}
