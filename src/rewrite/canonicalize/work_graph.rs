//! A graph that is being rewritten: nodes come and go, equal nodes are one, users are known.
//!
//! Nodes are appended and never moved, so ids stay valid; [`WorkGraph::finish`] puts what is
//! still reachable from the outputs in topological order.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::ir::{Attr, Attrs, DType, Graph, HostTensor, Node, NodeId, Operand, Source, TensorType, ValueId};
use crate::ops::evaluate::to_vec;
use crate::ops::{Datum, Lowering, NEWEST_OPSET, OpDef, OpError, TileKind, emit, lookup};
use crate::reference::{Constants, eval_node};
use crate::rewrite::conditions::facts::{Facts, Handle};
use crate::rewrite::rules::ast::Phase;

/// What makes two nodes equal.
type Key = (&'static str, String, Vec<Operand>);

/// Constants with more elements are never looked at for being all equal.
const SCALAR_SCAN: usize = 1 << 22;

pub struct WorkGraph {
    pub graph: Graph,
    /// Nodes that read each value, once per operand.
    users: Vec<Vec<NodeId>>,
    alive: Vec<bool>,
    konst: Vec<bool>,
    known: HashMap<Key, NodeId>,
    scalars: HashMap<(DType, u64), ValueId>,
    uniform: RefCell<HashMap<ValueId, Option<f64>>>,
    /// Nodes whose operands or whose operands' users changed since [`WorkGraph::take_changed`].
    changed: Vec<NodeId>,
    /// Whether nodes may have operands without types, and ONNX forms stay as they are.
    keeps_forms: bool,
}

pub fn handle(value: ValueId) -> Handle {
    Handle(value.0)
}

pub fn value_of(handle: Handle) -> ValueId {
    ValueId(handle.0)
}

impl WorkGraph {
    pub fn new(graph: Graph) -> Self {
        let mut work = WorkGraph {
            alive: vec![true; graph.nodes.len()],
            users: Vec::new(),
            konst: Vec::new(),
            known: HashMap::new(),
            scalars: HashMap::new(),
            uniform: RefCell::default(),
            changed: Vec::new(),
            keeps_forms: false,
            graph,
        };
        work.grow();
        for id in work.node_ids() {
            work.adopt(id);
        }
        work
    }

    /// A graph for rules of `phase`: those of the model phase see ONNX forms, and values whose
    /// types are not known yet.
    pub fn for_phase(graph: Graph, phase: Phase) -> Self {
        WorkGraph {
            keeps_forms: matches!(phase, Phase::Model | Phase::ModelRest),
            ..WorkGraph::new(graph)
        }
    }

    /// Whether this is a model before its shapes are bound.
    pub fn keeps_forms(&self) -> bool {
        self.keeps_forms
    }

    /// Ids of all nodes, dead ones too.
    pub fn node_ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        let n_nodes = u32::try_from(self.graph.nodes.len()).expect("graphs have under 2^32 nodes");
        (0..n_nodes).map(NodeId)
    }

    pub fn is_alive(&self, node: NodeId) -> bool {
        self.alive[node.0 as usize]
    }

    pub fn users(&self, value: ValueId) -> &[NodeId] {
        &self.users[value.0 as usize]
    }

    pub fn is_konst(&self, value: ValueId) -> bool {
        self.konst[value.0 as usize]
    }

    /// Nodes that may match anew since the last call.
    pub fn take_changed(&mut self) -> Vec<NodeId> {
        std::mem::take(&mut self.changed)
    }

    /// The node that has `value` as its only result.
    pub fn maker(&self, value: ValueId) -> Option<(NodeId, &Node)> {
        let (id, node) = self.graph.producer(value)?;
        (node.results.len() == 1).then_some((id, node))
    }

    /// Adds `op`, or finds the equal node. `None` if the operands do not fit it.
    pub fn add(
        &mut self,
        op: &'static str,
        operands: Vec<Operand>,
        attrs: Attrs,
        origin: &[String],
        rules: &[String],
    ) -> Option<ValueId> {
        let def = lookup(op)?;
        let attrs = crate::ops::with_defaults(def, attrs).ok()?;
        if let Some(&known) = self.known.get(&key(op, &attrs, &operands)) {
            return Some(self.graph.node(known).results[0]);
        }
        let first = self.graph.nodes.len();
        let results = if self.keeps_forms && !self.is_inferable(def, &operands) {
            let node = self
                .graph
                .add_node(def.name, operands, attrs, &[("", None)], origin.to_vec());
            Some(self.graph.node(node).results.clone())
        } else {
            emit(&mut self.graph, op, operands, attrs, 1, NEWEST_OPSET, origin).ok()
        };
        self.alive.resize(self.graph.nodes.len(), true);
        self.grow();
        for position in first..self.graph.nodes.len() {
            self.graph.nodes[position].rules = rules.to_vec();
            self.adopt(NodeId(
                u32::try_from(position).expect("graphs have under 2^32 nodes"),
            ));
        }
        results.map(|results| results[0])
    }

    /// Whether `def` is a core op and all its operands have types.
    fn is_inferable(&self, def: &OpDef, operands: &[Operand]) -> bool {
        let has_type = |value: &ValueId| self.graph.value(*value).ty.is_some();
        !matches!(def.lower, Lowering::Expand(_) | Lowering::Bounded(_))
            && operands.iter().flatten().all(has_type)
    }

    /// A constant without dims.
    pub fn scalar_weight(&mut self, dtype: DType, value: f64) -> ValueId {
        if let Some(&known) = self.scalars.get(&(dtype, value.to_bits())) {
            return known;
        }
        let weight = self.weight(crate::ops::evaluate::scalar(dtype, value));
        self.scalars.insert((dtype, value.to_bits()), weight);
        weight
    }

    /// An input behind the ones there are.
    pub fn input(&mut self, name: &str, ty: TensorType) -> ValueId {
        let input = self.graph.add_input(name, Some(ty));
        self.grow();
        input
    }

    pub fn weight(&mut self, data: HostTensor) -> ValueId {
        let weight = self.graph.add_weight("", data);
        self.grow();
        weight
    }

    /// Lets every reader of `old` read `new`, and removes what nobody reads any more.
    pub fn replace(&mut self, old: ValueId, new: ValueId) {
        let mut pending = vec![(old, new)];
        while let Some((old, new)) = pending.pop() {
            if old == new {
                continue;
            }
            self.inherit_name(old, new);
            let users = std::mem::take(&mut self.users[old.0 as usize]);
            for &user in &users {
                self.rewire(user, old, new, &mut pending);
            }
            for output in &mut self.graph.outputs {
                if *output == old {
                    *output = new;
                }
            }
            self.remove_if_unused(old);
        }
    }

    /// Gives one use of `old` in `user` to `new`; a user that now equals another is merged.
    fn rewire(&mut self, user: NodeId, old: ValueId, new: ValueId, pending: &mut Vec<(ValueId, ValueId)>) {
        if !self.is_alive(user) || !self.graph.node(user).operands.contains(&Some(old)) {
            return;
        }
        self.forget(user);
        let operands = &mut self.graph.nodes[user.0 as usize].operands;
        let mut n_uses = 0;
        for operand in operands.iter_mut().filter(|operand| **operand == Some(old)) {
            *operand = Some(new);
            n_uses += 1;
        }
        self.users[new.0 as usize].extend(std::iter::repeat_n(user, n_uses));
        self.changed.push(user);
        self.mark_constant(user);
        let node = self.graph.node(user);
        let own = node_key(node);
        match self.known.get(&own) {
            Some(&twin) if is_mergeable(node) => {
                pending.push((node.results[0], self.graph.node(twin).results[0]));
            }
            _ => {
                self.known.insert(own, user);
            }
        }
    }

    fn inherit_name(&mut self, old: ValueId, new: ValueId) {
        if self.graph.value(new).name.is_empty() {
            self.graph.value_mut(new).name = self.graph.value(old).name.clone();
        }
    }

    /// Whether nothing reads the value.
    pub fn is_unused(&self, value: ValueId) -> bool {
        self.users(value).is_empty() && !self.graph.outputs.contains(&value)
    }

    /// Removes the node behind a value nobody reads, and what only it read.
    pub fn remove_if_unused(&mut self, value: ValueId) {
        let mut pending = vec![value];
        while let Some(value) = pending.pop() {
            let Some((id, node)) = self.graph.producer(value) else {
                continue;
            };
            if !self.is_alive(id) || !node.results.iter().all(|&result| self.is_unused(result)) {
                continue;
            }
            self.forget(id);
            self.alive[id.0 as usize] = false;
            for operand in self.graph.node(id).operands.clone().into_iter().flatten() {
                let users = &mut self.users[operand.0 as usize];
                if let Some(position) = users.iter().position(|&user| user == id) {
                    users.remove(position);
                }
                self.changed.extend_from_slice(&self.users[operand.0 as usize]);
                pending.push(operand);
            }
        }
    }

    /// Notes whether the results of a node are constant: it has operands, and all of them are.
    fn mark_constant(&mut self, id: NodeId) {
        let node = &self.graph.nodes[id.0 as usize];
        let mut operands = node.operands.iter().flatten().peekable();
        let konst = operands.peek().is_some() && operands.all(|operand| self.konst[operand.0 as usize]);
        for result in &node.results {
            self.konst[result.0 as usize] = konst;
        }
    }

    /// Registers a node: its users, its key, whether it is constant.
    fn adopt(&mut self, id: NodeId) {
        self.mark_constant(id);
        let node = &self.graph.nodes[id.0 as usize];
        for operand in node.operands.iter().flatten() {
            self.users[operand.0 as usize].push(id);
        }
        if is_mergeable(node) {
            self.known.entry(node_key(node)).or_insert(id);
        }
    }

    fn forget(&mut self, id: NodeId) {
        let own = node_key(self.graph.node(id));
        if self.known.get(&own) == Some(&id) {
            self.known.remove(&own);
        }
    }

    /// Makes the side tables as long as the value list.
    fn grow(&mut self) {
        for value in &self.graph.values[self.konst.len()..] {
            self.konst.push(matches!(value.source, Source::Weight(_)));
        }
        self.users.resize(self.graph.values.len(), Vec::new());
    }

    /// Replaces a node over weights by its result, unless that is larger than `allows`
    /// (given the bytes of the operands and of the result).
    pub fn fold(
        &mut self,
        id: NodeId,
        allows: impl Fn(&Node, usize, usize) -> bool,
        constants: &Constants,
    ) -> bool {
        let node = self.graph.node(id);
        let [result] = node.results[..] else {
            return false;
        };
        let data: Option<Vec<Option<Datum>>> = node
            .operands
            .iter()
            .map(|operand| match operand {
                Some(value) => self
                    .graph
                    .weight(*value)
                    .map(|data| Some(Datum::Tensor(data.clone()))),
                None => Some(None),
            })
            .collect();
        let Some(data) = data.filter(|data| data.iter().any(Option::is_some)) else {
            return false;
        };
        let operand_bytes = node
            .operands
            .iter()
            .flatten()
            .map(|&value| self.graph.ty(value).n_bytes())
            .sum();
        if !allows(node, operand_bytes, self.graph.ty(result).n_bytes()) {
            return false;
        }
        let Some(folded) = evaluated(node, &data, constants) else {
            return false;
        };
        let weight = self.weight(folded);
        self.replace(result, weight);
        true
    }

    /// The reachable graph, in topological order.
    pub fn finish(self) -> Graph {
        super::compact::compact(self.graph)
    }

    fn find_uniform(&self, value: ValueId) -> Option<f64> {
        let data = self.graph.weight(value)?;
        if data.n_elements() == 0 || data.n_elements() > SCALAR_SCAN {
            return None;
        }
        let size = data.dtype().size_bytes();
        let first = &data.bytes()[..size];
        if !data.bytes().chunks_exact(size).all(|element| element == first) {
            return None;
        }
        let one = HostTensor::from_bytes(data.dtype(), &[1], first)?;
        Some(to_vec::<f64>(&one)[0])
    }
}

/// The tensor that `node` makes of constants.
fn evaluated(node: &Node, data: &[Option<Datum>], constants: &Constants) -> Option<HostTensor> {
    let def = lookup(node.op)?;
    let tensor = |datum: &Datum| datum.tensor().cloned();
    let computed = || {
        let results = eval_node(def, &node.attrs, data, 1)?;
        results.iter().map(tensor).collect::<Result<Vec<_>, OpError>>()
    };
    let operands = data
        .iter()
        .map(|datum| datum.as_ref().map(Datum::tensor).transpose())
        .collect::<Result<Vec<_>, OpError>>();
    let results = constants.results(node.op, &node.attrs, &operands.ok()?, computed);
    results.ok()?.into_iter().next()
}

impl Facts for WorkGraph {
    fn ty(&self, value: Handle) -> Option<TensorType> {
        self.graph.value(value_of(value)).ty.clone()
    }

    fn is_const(&self, value: Handle) -> bool {
        self.is_konst(value_of(value))
    }

    fn scalar(&self, value: Handle) -> Option<f64> {
        let value = value_of(value);
        let mut cache = self.uniform.borrow_mut();
        *cache.entry(value).or_insert_with(|| self.find_uniform(value))
    }

    fn consumers(&self, value: Handle) -> usize {
        let value = value_of(value);
        let outputs = self.graph.outputs.iter().filter(|output| **output == value);
        self.users(value).len() + outputs.count()
    }

    fn kind(&self, value: Handle) -> Option<&'static str> {
        match self.graph.value(value_of(value)).source {
            Source::Input(_) => Some("input"),
            Source::Weight(_) => Some("weight"),
            Source::Node(node, _) => kind_name(self.graph.node(node).op),
        }
    }

    fn flops(&self, value: Handle) -> f64 {
        if self.kind(value) == Some("map") { 1.0 } else { 0.0 }
    }

    fn made_by(&self, value: Handle, op: &str) -> Option<(Attrs, Vec<Option<Handle>>)> {
        let (_, node) = self.maker(value_of(value))?;
        let operands = node.operands.iter().map(|operand| operand.map(handle)).collect();
        (node.op == op).then(|| (node.attrs.clone(), operands))
    }

    fn ints(&self, value: Handle) -> Option<Vec<i64>> {
        let data = self.graph.weight(value_of(value))?;
        (data.dtype().is_int() && data.n_elements() <= 4096).then(|| to_vec::<i64>(data))
    }

    fn elements(&self, value: Handle) -> Option<Vec<f64>> {
        self.graph.weight(value_of(value)).map(to_vec)
    }

    fn weight_data(&self, value: Handle) -> Option<&HostTensor> {
        self.graph.weight(value_of(value))
    }
}

/// Family word of an op.
pub fn kind_name(op: &str) -> Option<&'static str> {
    match &lookup(op)?.lower {
        Lowering::Map(_) => Some("map"),
        Lowering::Tile(kind, _) => Some(match kind {
            TileKind::Map => "map",
            TileKind::View => "view",
            TileKind::Index => "index",
            TileKind::Reduce => "reduce",
            TileKind::Dot => "dot",
            TileKind::Window => "window",
            TileKind::Other => "other",
        }),
        Lowering::Loop => Some("other"),
        Lowering::Expand(_) | Lowering::Bounded(_) | Lowering::Host(_) => None,
    }
}

/// Whether equal nodes of this kind have equal results and may become one.
fn is_mergeable(node: &Node) -> bool {
    let is_plain = |attr: &Attr| !matches!(attr, Attr::Tensor(_) | Attr::Graph(_));
    let is_pure = lookup(node.op).is_some_and(|def| !matches!(def.lower, Lowering::Host(_)));
    node.results.len() == 1
        && is_pure
        && node.operands.iter().any(Option::is_some)
        && node.attrs.0.values().all(is_plain)
}

fn key(op: &'static str, attrs: &Attrs, operands: &[Operand]) -> Key {
    (op, format!("{:?}", attrs.0), operands.to_vec())
}

fn node_key(node: &Node) -> Key {
    if is_mergeable(node) {
        key(node.op, &node.attrs, &node.operands)
    } else {
        (node.op, String::new(), vec![Some(node.results[0])])
    }
}
