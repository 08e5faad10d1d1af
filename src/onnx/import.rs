//! `ModelProto` to [`Graph`].
//!
//! Bodies nest in two ways. A subgraph is a graph of its own and takes values of the graph
//! around it as captures; it is a `Level`. An inlined function adds its nodes to the graph
//! of its call and sees nothing but its inputs; it is a `Scope` of that level.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::attributes;
use super::error::{ImportError, Unsupported};
use super::external::ExternalFiles;
use super::order;
use super::proto::{
    AttributeProto, AttributeType, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
};
use super::types::{self, ValueType};
use super::{Model, sparse, tensor};
use crate::ir::{Attr, Attrs, Graph, HostTensor, Operand, ValueId};
use crate::ops::{self, AttrKind, NEWEST_OPSET, OPSET, OpDef, OpError};

/// Most nodes a model may unfold to when its functions are inlined.
const MAX_NODES: usize = 1 << 20;

/// Most functions and subgraphs that may be nested.
const MAX_DEPTH: usize = 64;

type Opsets = BTreeMap<String, i64>;

/// Imports a decoded model; `folder` is where its external data lies.
///
/// # Errors
/// If the model is not valid, or uses what is not supported.
pub fn import_model(model: &ModelProto, folder: Option<&Path>) -> Result<Model, ImportError> {
    let graph = model.graph.as_ref().ok_or(ImportError::NoGraph)?;
    let opsets = opsets(&model.opset_import);
    if let Some(&version) = opsets.get("").filter(|&&version| version > NEWEST_OPSET) {
        return Err(ImportError::NewOpset {
            version,
            newest: NEWEST_OPSET,
        });
    }
    let mut importer = Importer {
        functions: model
            .functions
            .iter()
            .map(|function| (function_key(function), function))
            .collect(),
        files: folder.map_or_else(ExternalFiles::none, ExternalFiles::beside),
        ir_version: model.ir_version,
        levels: Vec::new(),
        unsupported: Vec::new(),
        n_calls: 0,
        n_nodes: 0,
    };
    importer.check_interface(graph);
    let imported = importer.graph(graph, &opsets, "")?;
    if !importer.unsupported.is_empty() {
        return Err(ImportError::Unsupported(importer.unsupported));
    }
    Ok(Model {
        graph: imported,
        opsets,
        ir_version: model.ir_version,
        producer: format!("{} {}", model.producer_name, model.producer_version)
            .trim()
            .to_owned(),
        n_nodes: importer.n_nodes,
    })
}

/// `ai.onnx` is the spelled-out name of the main domain.
fn domain_of(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

fn opsets(imports: &[OperatorSetIdProto]) -> Opsets {
    imports
        .iter()
        .map(|import| (domain_of(&import.domain).to_owned(), import.version))
        .collect()
}

type FunctionKey<'m> = (&'m str, &'m str, &'m str);

fn function_key(function: &FunctionProto) -> FunctionKey<'_> {
    (domain_of(&function.domain), &function.name, &function.overload)
}

/// A graph under construction.
struct Level {
    graph: Graph,
    /// The graph's own names, then those of the functions being inlined into it.
    scopes: Vec<Scope>,
}

/// Names of one body.
#[derive(Default)]
struct Scope {
    /// `None` for a function input the call leaves out.
    names: HashMap<String, Operand>,
    opsets: Opsets,
    /// Attributes of the call; `None` outside of functions.
    call: Option<HashMap<String, AttributeProto>>,
    /// Goes before names of values, which keeps them unique.
    value_prefix: String,
    /// Goes before names of nodes, for people.
    origin_prefix: String,
}

struct Importer<'m> {
    functions: HashMap<FunctionKey<'m>, &'m FunctionProto>,
    files: ExternalFiles,
    ir_version: i64,
    levels: Vec<Level>,
    unsupported: Vec<Unsupported>,
    n_calls: usize,
    n_nodes: usize,
}

impl<'m> Importer<'m> {
    fn level(&mut self) -> &mut Level {
        self.levels.last_mut().expect("a graph is being imported")
    }

    fn scope(&self) -> &Scope {
        let level = self.levels.last().expect("a graph is being imported");
        level
            .scopes
            .last()
            .expect("every level has the scope of its graph")
    }

    fn bind(&mut self, name: &str, value: Operand) {
        let scope = self
            .level()
            .scopes
            .last_mut()
            .expect("every level has the scope of its graph");
        scope.names.insert(name.to_owned(), value);
    }

    /// Notes inputs and outputs of the model that are no tensors.
    fn check_interface(&mut self, graph: &GraphProto) {
        let initializers = order::initializer_names(graph);
        let inputs = graph
            .input
            .iter()
            .filter(|input| !initializers.contains(input.name.as_str()));
        for value in inputs.chain(&graph.output) {
            let what = match types::value_type(&value.name, value.r#type.as_ref()) {
                ValueType::Tensor(_) => continue,
                ValueType::Compound(what) => format!("it is {what}; inputs and outputs must be tensors"),
                ValueType::Unsupported(what) => what,
            };
            self.unsupported.push(Unsupported::Value {
                name: value.name.clone(),
                what,
            });
        }
    }

    /// A graph and everything in it.
    fn graph(&mut self, proto: &'m GraphProto, opsets: &Opsets, origin: &str) -> Result<Graph, ImportError> {
        let place = format!("graph `{}`", proto.name);
        let order = order::sorted(&proto.node, order::given_names(proto), &place)?;
        self.check_depth(&place)?;
        let outer = self.levels.last().and_then(|level| level.scopes.last());
        let scope = Scope {
            opsets: opsets.clone(),
            call: outer.and_then(|scope| scope.call.clone()),
            origin_prefix: origin.to_owned(),
            ..Scope::default()
        };
        self.levels.push(Level {
            graph: Graph::new(&proto.name),
            scopes: vec![scope],
        });
        self.initializers(proto)?;
        self.inputs(proto);
        self.nodes(&proto.node, &order)?;
        for output in &proto.output {
            let value = self.defined(&output.name, || "the list of outputs".to_owned())?;
            self.level().graph.add_output(&output.name, value);
        }
        Ok(self.levels.pop().expect("the level was pushed above").graph)
    }

    fn check_depth(&self, place: &str) -> Result<(), ImportError> {
        let depth: usize = self.levels.iter().map(|level| level.scopes.len()).sum();
        if depth >= MAX_DEPTH {
            return Err(ImportError::Invalid(format!(
                "{place} is nested in {depth} functions and subgraphs; a function that calls itself is not allowed"
            )));
        }
        Ok(())
    }

    fn initializers(&mut self, proto: &GraphProto) -> Result<(), ImportError> {
        for initializer in &proto.initializer {
            let data = tensor::read(initializer, &mut self.files);
            self.weight(&initializer.name, data)?;
        }
        for initializer in &proto.sparse_initializer {
            let name = initializer
                .values
                .as_ref()
                .map_or("", |values| values.name.as_str());
            let data = sparse::read(initializer, &mut self.files);
            self.weight(name, data)?;
        }
        Ok(())
    }

    fn weight(&mut self, name: &str, data: Result<HostTensor, OpError>) -> Result<(), ImportError> {
        let full_name = self.value_name(name);
        let value = match data {
            Ok(data) => self.level().graph.add_weight(&full_name, data),
            Err(OpError::Unsupported(what)) => {
                self.unsupported.push(Unsupported::Value {
                    name: name.to_owned(),
                    what,
                });
                // Stands in, so that everything else unsupported is found too.
                self.level().graph.add_input(name, None)
            }
            Err(source) => {
                return Err(ImportError::Tensor {
                    name: name.to_owned(),
                    source,
                });
            }
        };
        self.bind(name, Some(value));
        Ok(())
    }

    /// Inputs that have no initializer; one that has is a weight.
    fn inputs(&mut self, proto: &GraphProto) {
        let initializers = order::initializer_names(proto);
        for input in proto
            .input
            .iter()
            .filter(|input| !initializers.contains(input.name.as_str()))
        {
            let ty = match types::value_type(&input.name, input.r#type.as_ref()) {
                ValueType::Tensor(ty) => ty,
                ValueType::Compound(_) | ValueType::Unsupported(_) => None,
            };
            let value = self.level().graph.add_input(&input.name, ty);
            self.bind(&input.name, Some(value));
        }
    }

    fn nodes(&mut self, nodes: &'m [NodeProto], order: &[usize]) -> Result<(), ImportError> {
        for &position in order {
            self.node(&nodes[position])?;
        }
        Ok(())
    }

    fn node(&mut self, node: &'m NodeProto) -> Result<(), ImportError> {
        self.n_nodes += 1;
        if self.n_nodes > MAX_NODES {
            return Err(ImportError::Invalid(format!(
                "the model unfolds to more than {MAX_NODES} nodes"
            )));
        }
        let domain = domain_of(&node.domain);
        if let Some(function) = self
            .functions
            .get(&(domain, &node.op_type, &node.overload))
            .copied()
        {
            return self.call(node, function);
        }
        let opset = self.opset(domain)?;
        match (domain, node.op_type.as_str()) {
            ("", "Constant") => self.constant(node, opset),
            ("", "Identity") => self.identity(node),
            _ => {
                if let Some(def) = ops::lookup_onnx(domain, &node.op_type, opset) {
                    self.op(node, def, opset)
                } else {
                    let reason = ops::catalogue::refusal(domain, &node.op_type, opset);
                    self.refuse(node, opset, &reason);
                    self.operands(node)?;
                    self.stand_in(node);
                    Ok(())
                }
            }
        }
    }

    /// Version of `domain` in the body; zero for a domain nobody imports.
    fn opset(&self, domain: &str) -> Result<i64, ImportError> {
        match self.scope().opsets.get(domain) {
            Some(&version) => Ok(version),
            // Models that old say nothing and mean the first one.
            None if domain.is_empty() && self.ir_version < 3 => Ok(1),
            None if domain.is_empty() => Err(ImportError::NoOpset),
            None => Ok(0),
        }
    }

    fn op(&mut self, node: &'m NodeProto, def: &'static OpDef, opset: i64) -> Result<(), ImportError> {
        let operands = self.operands(node)?;
        check_arity(def, &operands).map_err(|message| failure(node, message))?;
        let Some(mut attrs) = self.attrs(node, def, opset)? else {
            self.stand_in(node);
            return Ok(());
        };
        // ONNX forms, which are spelled in capitals, differ between versions.
        if def.name.starts_with(|first: char| first.is_ascii_uppercase()) {
            attrs = attrs.with(OPSET, Attr::Int(opset));
        }
        let used = node
            .output
            .iter()
            .rposition(|name| !name.is_empty())
            .map_or(0, |last| last + 1);
        let names: Vec<String> = node.output[..used]
            .iter()
            .map(|name| self.value_name(name))
            .collect();
        let results: Vec<_> = names.iter().map(|name| (name.as_str(), None)).collect();
        let origin = vec![format!("{}{}", self.scope().origin_prefix, order::label(node))];
        let graph = &mut self.level().graph;
        let id = graph.add_node(def.name, operands, attrs, &results, origin);
        let values = graph.node(id).results.clone();
        for (name, value) in node.output.iter().zip(values) {
            self.bind(name, Some(value));
        }
        Ok(())
    }

    /// Operands by value, without absent ones at the end.
    fn operands(&mut self, node: &NodeProto) -> Result<Vec<Operand>, ImportError> {
        let mut operands = Vec::with_capacity(node.input.len());
        for name in &node.input {
            operands.push(self.operand(name, || format!("node `{}`", order::label(node)))?);
        }
        while operands.last() == Some(&None) {
            operands.pop();
        }
        Ok(operands)
    }

    fn operand(&mut self, name: &str, user: impl Fn() -> String) -> Result<Operand, ImportError> {
        if name.is_empty() {
            return Ok(None);
        }
        self.resolve(self.levels.len() - 1, name)
            .ok_or_else(|| ImportError::Undefined {
                user: user(),
                name: name.to_owned(),
            })
    }

    /// Like [`Self::operand`], for what may not be absent.
    fn defined(&mut self, name: &str, user: impl Fn() -> String) -> Result<ValueId, ImportError> {
        self.operand(name, &user)?.ok_or_else(|| ImportError::Undefined {
            user: user(),
            name: name.to_owned(),
        })
    }

    /// The value called `name` at a level; a subgraph takes it from the graph around it.
    fn resolve(&mut self, level: usize, name: &str) -> Option<Operand> {
        let scopes = &self.levels[level].scopes;
        if let Some(&operand) = scopes.last()?.names.get(name) {
            return Some(operand);
        }
        if scopes.len() > 1 || level == 0 {
            return None;
        }
        let operand = self
            .resolve(level - 1, name)?
            .map(|outer| self.capture(level, outer));
        self.levels[level].scopes[0]
            .names
            .insert(name.to_owned(), operand);
        Some(operand)
    }

    /// A value of the graph around `level`, inside of it. Constants stay constants.
    fn capture(&mut self, level: usize, outer: ValueId) -> ValueId {
        let value = self.levels[level - 1].graph.value(outer).clone();
        let inner = &mut self.levels[level].graph;
        if let crate::ir::Source::Weight(data) = value.source {
            return inner.add_weight(&value.name, data);
        }
        if let Some((own, _)) = inner.captures.iter().find(|(_, name)| *name == value.name) {
            return *own;
        }
        let own = inner.add_input(&value.name, value.ty);
        inner.captures.push((own, value.name));
        own
    }

    fn value_name(&self, name: &str) -> String {
        match name {
            "" => String::new(),
            name => format!("{}{name}", self.scope().value_prefix),
        }
    }

    fn identity(&mut self, node: &NodeProto) -> Result<(), ImportError> {
        let ([input], [output]) = (node.input.as_slice(), node.output.as_slice()) else {
            return Err(failure(node, "expected one input and one output".to_owned()));
        };
        let value = self.defined(input, || format!("node `{}`", order::label(node)))?;
        self.bind(output, Some(value));
        Ok(())
    }

    fn constant(&mut self, node: &NodeProto, opset: i64) -> Result<(), ImportError> {
        let ([attribute], [output]) = (node.attribute.as_slice(), node.output.as_slice()) else {
            return Err(failure(node, "expected one attribute and one output".to_owned()));
        };
        let Some(attribute) = self.actual(attribute) else {
            return Err(failure(
                node,
                format!("the call gives no attribute `{}`", attribute.ref_attr_name),
            ));
        };
        match self.constant_data(&attribute) {
            Ok(data) => self.weight(output, Ok(data)),
            Err(OpError::Unsupported(what)) => {
                self.refuse(node, opset, &what);
                self.stand_in(node);
                Ok(())
            }
            Err(error) => Err(failure(node, error.to_string())),
        }
    }

    fn constant_data(&mut self, attribute: &AttributeProto) -> Result<HostTensor, OpError> {
        let scalar = |dtype, value| HostTensor::from_slice(dtype, &[], &[value]);
        match attributes::kind_of(attribute)? {
            AttributeType::Tensor | AttributeType::SparseTensor => self.tensor(attribute),
            AttributeType::Float => Ok(HostTensor::from_f32(&[], &[attribute.f.unwrap_or(0.0)])),
            AttributeType::Floats => Ok(HostTensor::from_f32(&[attribute.floats.len()], &attribute.floats)),
            AttributeType::Int => Ok(scalar(crate::ir::DType::I64, attribute.i.unwrap_or(0))),
            AttributeType::Ints => Ok(HostTensor::from_i64(&[attribute.ints.len()], &attribute.ints)),
            kind => Err(OpError::unsupported(format!(
                "attribute `{}` of kind {kind:?}",
                attribute.name
            ))),
        }
    }

    fn tensor(&mut self, attribute: &AttributeProto) -> Result<HostTensor, OpError> {
        match (&attribute.t, &attribute.sparse_tensor) {
            (Some(dense), _) => tensor::read(dense, &mut self.files),
            (None, Some(sparse)) => sparse::read(sparse, &mut self.files),
            (None, None) => Err(OpError::invalid(format!(
                "attribute `{}` holds no tensor",
                attribute.name
            ))),
        }
    }

    /// Attributes of a node as `def` declares them; `None` where some are not supported.
    fn attrs(
        &mut self,
        node: &'m NodeProto,
        def: &'static OpDef,
        opset: i64,
    ) -> Result<Option<Attrs>, ImportError> {
        let mut attrs = Attrs::new();
        let n_before = self.unsupported.len();
        for written in &node.attribute {
            let Some(declared) = def.attrs.iter().find(|declared| declared.name == written.name) else {
                self.refuse(node, opset, &format!("attribute `{}` is not known", written.name));
                continue;
            };
            let attr = if declared.kind == AttrKind::Graph {
                self.body(node, written).map(Some)?
            } else {
                match self.attr(written, declared.kind) {
                    Ok(attr) => attr,
                    Err(OpError::Unsupported(what)) => {
                        self.refuse(node, opset, &what);
                        None
                    }
                    Err(error) => return Err(failure(node, error.to_string())),
                }
            };
            attrs.0.extend(attr.map(|attr| (written.name.clone(), attr)));
        }
        if self.unsupported.len() > n_before {
            return Ok(None);
        }
        match ops::with_defaults(def, attrs) {
            Ok(attrs) => Ok(Some(attrs)),
            Err(error) => Err(failure(node, error.to_string())),
        }
    }

    /// `None` for an attribute of the enclosing function that the call leaves out.
    fn attr(&mut self, written: &AttributeProto, kind: AttrKind) -> Result<Option<Attr>, OpError> {
        let Some(actual) = self.actual(written) else {
            return Ok(None);
        };
        if kind == AttrKind::Tensor {
            return Ok(Some(Attr::Tensor(self.tensor(&actual)?)));
        }
        // Zero is ONNX's way to leave an element type open.
        if kind == AttrKind::DType && actual.tp.is_none() && actual.i.unwrap_or(0) == 0 {
            return Ok(None);
        }
        attributes::plain(&actual, kind).map(Some)
    }

    fn body(&mut self, node: &NodeProto, written: &'m AttributeProto) -> Result<Attr, ImportError> {
        let Some(body) = written.g.as_deref() else {
            return Err(failure(
                node,
                format!("attribute `{}` holds no graph", written.name),
            ));
        };
        let (opsets, prefix) = (self.scope().opsets.clone(), self.scope().origin_prefix.clone());
        let origin = format!("{prefix}{}/", order::label(node));
        Ok(Attr::Graph(Box::new(self.graph(body, &opsets, &origin)?)))
    }

    /// The attribute itself, or the one of the call it refers to.
    fn actual(&self, written: &AttributeProto) -> Option<AttributeProto> {
        if written.ref_attr_name.is_empty() {
            return Some(written.clone());
        }
        let given = self.scope().call.as_ref()?.get(&written.ref_attr_name)?;
        Some(AttributeProto {
            name: written.name.clone(),
            ..given.clone()
        })
    }

    /// Inlines one call of a function.
    fn call(&mut self, node: &'m NodeProto, function: &'m FunctionProto) -> Result<(), ImportError> {
        let place = format!("function `{}`", function.name);
        if node.input.len() > function.input.len() || node.output.len() > function.output.len() {
            return Err(failure(
                node,
                format!(
                    "{place} has {} inputs and {} outputs, the call has {} and {}",
                    function.input.len(),
                    function.output.len(),
                    node.input.len(),
                    node.output.len()
                ),
            ));
        }
        let order = order::sorted(&function.node, function.input.iter().map(String::as_str), &place)?;
        self.check_depth(&place)?;
        let scope = self.call_scope(node, function)?;
        self.level().scopes.push(scope);
        self.nodes(&function.node, &order)?;
        let mut results = Vec::with_capacity(node.output.len());
        for output in &function.output[..node.output.len()] {
            results.push(self.operand(output, || place.clone())?);
        }
        self.level().scopes.pop();
        for (name, value) in node
            .output
            .iter()
            .zip(results)
            .filter(|(name, _)| !name.is_empty())
        {
            self.bind(name, value);
        }
        Ok(())
    }

    fn call_scope(&mut self, node: &NodeProto, function: &FunctionProto) -> Result<Scope, ImportError> {
        let mut given = self.operands(node)?;
        given.resize(function.input.len(), None);
        let defaults = function.attribute_proto.iter().cloned();
        let written = node
            .attribute
            .iter()
            .filter_map(|attribute| self.actual(attribute));
        let call = defaults
            .chain(written)
            .map(|attribute| (attribute.name.clone(), attribute))
            .collect();
        let mut versions = self.scope().opsets.clone();
        versions.extend(opsets(&function.opset_import));
        self.n_calls += 1;
        Ok(Scope {
            names: function.input.iter().cloned().zip(given).collect(),
            opsets: versions,
            call: Some(call),
            value_prefix: format!("call{}/", self.n_calls),
            origin_prefix: format!("{}{}/", self.scope().origin_prefix, order::label(node)),
        })
    }

    fn refuse(&mut self, node: &NodeProto, opset: i64, what: &str) {
        self.unsupported.push(Unsupported::Node {
            name: format!("{}{}", self.scope().origin_prefix, order::label(node)),
            op_type: node.op_type.clone(),
            domain: domain_of(&node.domain).to_owned(),
            opset,
            what: what.to_owned(),
        });
    }

    /// Gives the outputs of a refused node values, so that the search can go on.
    fn stand_in(&mut self, node: &NodeProto) {
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            let value = self.level().graph.add_input(name, None);
            self.bind(name, Some(value));
        }
    }
}

fn check_arity(def: &OpDef, operands: &[Operand]) -> Result<(), String> {
    let declared = &def.operands;
    if let Some(position) =
        (0..declared.required.len()).find(|&position| operands.get(position).is_none_or(Option::is_none))
    {
        let variadic_and_empty = declared.variadic && position + 1 == declared.required.len();
        if !variadic_and_empty {
            return Err(format!("input `{}` is missing", declared.required[position]));
        }
    }
    let most = declared.required.len() + declared.optional.len();
    if operands.len() > most && !declared.variadic {
        return Err(format!(
            "expected at most {most} inputs, found {}",
            operands.len()
        ));
    }
    Ok(())
}

fn failure(node: &NodeProto, message: String) -> ImportError {
    ImportError::Node {
        node: order::label(node).to_owned(),
        op_type: node.op_type.clone(),
        message,
    }
}
