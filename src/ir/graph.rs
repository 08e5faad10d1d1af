//! Values, nodes and graphs.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::host_tensor::HostTensor;
use super::types::{DType, TensorType};

/// Names a value of one graph; prints as `%7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId(pub u32);

/// Names a node of one graph; prints as `n7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

impl fmt::Display for ValueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// A static setting of a node. Attributes are always named.
#[derive(Clone, Debug, PartialEq)]
pub enum Attr {
    Int(i64),
    Float(f64),
    Str(String),
    Ints(Vec<i64>),
    Floats(Vec<f64>),
    Strs(Vec<String>),
    DType(DType),
    Tensor(HostTensor),
    /// Body of If, Loop or Scan. It may use values of the enclosing graphs: these are its
    /// inputs named in [`Graph::captures`].
    Graph(Box<Graph>),
}

/// The attributes of a node, by name. Iteration order is the name order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attrs(pub BTreeMap<String, Attr>);

impl Attrs {
    pub fn new() -> Self {
        Attrs::default()
    }

    /// This set with one more attribute; for building nodes in code.
    #[must_use]
    pub fn with(mut self, name: &str, attr: Attr) -> Self {
        self.0.insert(name.to_owned(), attr);
        self
    }

    pub fn get(&self, name: &str) -> Option<&Attr> {
        self.0.get(name)
    }

    pub fn int(&self, name: &str) -> Option<i64> {
        match self.get(name)? {
            Attr::Int(value) => Some(*value),
            _ => None,
        }
    }

    pub fn float(&self, name: &str) -> Option<f64> {
        match self.get(name)? {
            Attr::Float(value) => Some(*value),
            _ => None,
        }
    }

    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        match self.get(name)? {
            Attr::Ints(values) => Some(values),
            _ => None,
        }
    }

    pub fn floats(&self, name: &str) -> Option<&[f64]> {
        match self.get(name)? {
            Attr::Floats(values) => Some(values),
            _ => None,
        }
    }

    pub fn str(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Attr::Str(value) => Some(value),
            _ => None,
        }
    }

    pub fn dtype(&self, name: &str) -> Option<DType> {
        match self.get(name)? {
            Attr::DType(value) => Some(*value),
            _ => None,
        }
    }

    pub fn tensor(&self, name: &str) -> Option<&HostTensor> {
        match self.get(name)? {
            Attr::Tensor(value) => Some(value),
            _ => None,
        }
    }

    pub fn graph(&self, name: &str) -> Option<&Graph> {
        match self.get(name)? {
            Attr::Graph(value) => Some(value),
            _ => None,
        }
    }
}

/// An operand: absent where the operator allows it (ONNX's empty input name).
pub type Operand = Option<ValueId>;

/// A use of an operator.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Name of an entry of the op table ([`crate::ops::lookup`]).
    pub op: &'static str,
    pub operands: Vec<Operand>,
    pub attrs: Attrs,
    /// Results; an unused optional result still has a value.
    pub results: Vec<ValueId>,
    /// Names of the ONNX nodes this node came from, for people. Never used in code or paths.
    pub origin: Vec<String>,
    /// Names of the rewrite rules that made this node, in order of application, each once.
    pub rules: Vec<String>,
}

impl Node {
    /// The subgraphs among its attributes, by attribute name.
    pub fn bodies(&self) -> impl Iterator<Item = &Graph> {
        self.attrs.0.values().filter_map(|attr| match attr {
            Attr::Graph(body) => Some(body.as_ref()),
            Attr::Int(_)
            | Attr::Float(_)
            | Attr::Str(_)
            | Attr::Ints(_)
            | Attr::Floats(_)
            | Attr::Strs(_)
            | Attr::DType(_)
            | Attr::Tensor(_) => None,
        })
    }
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// Input number `i` of the graph.
    Input(usize),
    /// Constant data.
    Weight(HostTensor),
    /// Result number `i` of a node.
    Node(NodeId, usize),
}

/// What the graph knows of a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// Name in the model, or a generated one; unique only for inputs and outputs.
    pub name: String,
    /// Unknown before inference, and for sequences and optionals.
    pub ty: Option<TensorType>,
    pub source: Source,
}

/// An axis of an output of which only the first elements are there: how many, data decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundedAxis {
    /// By its number, as `count`, which is the output that tells: one `i64`, listed after those of the model.
    pub output: usize,
    pub axis: usize,
    pub count: usize,
}

/// A number that data must not exceed, or outputs are wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountLimit {
    /// The output that tells it: one `i64`, listed after those of the model.
    pub count: usize,
    pub most: i64,
}

/// A directed acyclic graph of nodes in topological order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    pub name: String,
    pub values: Vec<Value>,
    pub nodes: Vec<Node>,
    pub inputs: Vec<ValueId>,
    pub outputs: Vec<ValueId>,
    /// Names under which the outputs are known outside; an output value may be listed twice.
    pub output_names: Vec<String>,
    /// For a subgraph: values of enclosing graphs it reads, as (own input value, outer name).
    pub captures: Vec<(ValueId, String)>,
    /// Of outputs, where these depend on data.
    pub bounds: Vec<BoundedAxis>,
    /// Of numbers that data decides.
    pub limits: Vec<CountLimit>,
}

impl Graph {
    pub fn new(name: &str) -> Self {
        Graph {
            name: name.to_owned(),
            ..Graph::default()
        }
    }

    /// Adds an input; its position is the order of calls.
    pub fn add_input(&mut self, name: &str, ty: Option<TensorType>) -> ValueId {
        let position = self.inputs.len();
        let id = self.add_value(name, ty, Source::Input(position));
        self.inputs.push(id);
        id
    }

    /// Adds constant data.
    pub fn add_weight(&mut self, name: &str, data: HostTensor) -> ValueId {
        let ty = data.ty();
        self.add_value(name, Some(ty), Source::Weight(data))
    }

    /// Adds a node after all others, with one fresh result per entry of `results`.
    pub fn add_node(
        &mut self,
        op: &'static str,
        operands: Vec<Operand>,
        attrs: Attrs,
        results: &[(&str, Option<TensorType>)],
        origin: Vec<String>,
    ) -> NodeId {
        let id = NodeId(u32::try_from(self.nodes.len()).expect("graphs have under 2^32 nodes"));
        let results = results
            .iter()
            .enumerate()
            .map(|(position, (name, ty))| self.add_value(name, ty.clone(), Source::Node(id, position)))
            .collect();
        self.nodes.push(Node {
            op,
            operands,
            attrs,
            results,
            origin,
            rules: Vec::new(),
        });
        id
    }

    /// Adds a node like `node` of the graph `from`, with `operands` of this graph: its results have
    /// the same names and types, and it has the same origin and rules.
    pub fn copy_node(&mut self, from: &Graph, node: &Node, operands: Vec<Operand>) -> NodeId {
        let results: Vec<(&str, _)> = node
            .results
            .iter()
            .map(|&result| {
                let value = from.value(result);
                (value.name.as_str(), value.ty.clone())
            })
            .collect();
        let id = self.add_node(
            node.op,
            operands,
            node.attrs.clone(),
            &results,
            node.origin.clone(),
        );
        self.nodes[id.0 as usize].rules.clone_from(&node.rules);
        id
    }

    /// Adds a node of the graph `from`, with `operands` of this graph, which leaves nothing of it there.
    pub fn move_node(&mut self, from: &mut Graph, id: NodeId, operands: Vec<Operand>) -> NodeId {
        let own = NodeId(u32::try_from(self.nodes.len()).expect("graphs have under 2^32 nodes"));
        let mut node = std::mem::replace(
            &mut from.nodes[id.0 as usize],
            Node {
                op: "",
                operands: Vec::new(),
                attrs: Attrs::new(),
                results: Vec::new(),
                origin: Vec::new(),
                rules: Vec::new(),
            },
        );
        for (position, result) in node.results.iter_mut().enumerate() {
            let value = &mut from.values[result.0 as usize];
            let moved = Value {
                name: std::mem::take(&mut value.name),
                ty: value.ty.take(),
                source: Source::Node(own, position),
            };
            self.values.push(moved);
            *result = ValueId(u32::try_from(self.values.len() - 1).expect("graphs have under 2^32 values"));
        }
        node.operands = operands;
        self.nodes.push(node);
        own
    }

    /// Lists `value` as the next output, known outside as `name`.
    pub fn add_output(&mut self, name: &str, value: ValueId) {
        self.outputs.push(value);
        self.output_names.push(name.to_owned());
    }

    /// Number of the outputs that are the model's; those behind them count elements of these.
    pub fn n_own_outputs(&self) -> usize {
        let counts = self.bounds.iter().map(|bound| bound.count);
        let limited = self.limits.iter().map(|limit| limit.count);
        counts.chain(limited).min().unwrap_or(self.outputs.len())
    }

    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0 as usize]
    }

    pub fn value_mut(&mut self, id: ValueId) -> &mut Value {
        &mut self.values[id.0 as usize]
    }

    /// Type of a value after inference.
    ///
    /// # Panics
    /// If inference has not run; graphs from [`crate::specialize`] are fully typed.
    pub fn ty(&self, id: ValueId) -> &TensorType {
        self.value(id)
            .ty
            .as_ref()
            .expect("specialize() gave every value a type")
    }

    /// The constant behind a value, if it is one.
    pub fn weight(&self, id: ValueId) -> Option<&HostTensor> {
        match &self.value(id).source {
            Source::Weight(data) => Some(data),
            Source::Input(_) | Source::Node(..) => None,
        }
    }

    /// Values by their names, which bodies of nodes capture them by; none where no node has a body.
    pub fn names_for_bodies(&self) -> HashMap<&str, ValueId> {
        if self.nodes.iter().all(|node| node.bodies().next().is_none()) {
            return HashMap::new();
        }
        let named = (0..).map(ValueId).zip(&self.values);
        named
            .filter(|(_, value)| !value.name.is_empty())
            .map(|(id, value)| (value.name.as_str(), id))
            .collect()
    }

    /// The node that makes a value, if one does.
    pub fn producer(&self, id: ValueId) -> Option<(NodeId, &Node)> {
        match self.value(id).source {
            Source::Node(node, _) => Some((node, self.node(node))),
            Source::Input(_) | Source::Weight(_) => None,
        }
    }

    fn add_value(&mut self, name: &str, ty: Option<TensorType>, source: Source) -> ValueId {
        let id = ValueId(u32::try_from(self.values.len()).expect("graphs have under 2^32 values"));
        self.values.push(Value {
            name: name.to_owned(),
            ty,
            source,
        });
        id
    }
}
