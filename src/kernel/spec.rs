//! The problem a region poses, without anything that only people care about.
//!
//! Regions of repeated layers pose equal problems: their [`KernelSpec::key`] is equal, and
//! so are their variants, sources and measurements. Names and origins are kept apart, for
//! the comment above the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::hex::hex;
use crate::ir::types::checked_bytes;
use crate::ir::verify::verify_typed;
use crate::ir::{
    self, Attr, Graph, HostTensor, Operand, Placement, Source, TensorType, Value, ValueId, common_divisor,
};
use crate::ops;
use crate::rewrite::{FusedGraph, Region, RegionKind, TensorId, TensorSource};

/// What a build decides for every kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelOptions {
    /// Whether `f32` matrix products may round their operands to TF32.
    pub tf32: bool,
    /// Executions that share the device.
    pub n_contexts: usize,
}

impl Default for KernelOptions {
    fn default() -> Self {
        KernelOptions {
            tf32: false,
            n_contexts: 1,
        }
    }
}

impl KernelOptions {
    /// Whether what a launch takes of the device is missing elsewhere. Two executions are not enough for that: what one
    /// leaves idle holds the other, as measured.
    pub fn is_crowded(self) -> bool {
        const ENOUGH: usize = 2;
        self.n_contexts > ENOUGH
    }
}

/// A kernel problem.
#[derive(Clone, Debug)]
pub struct KernelSpec {
    pub kind: RegionKind,
    /// The region's body: core ops on typed values, in the order of the region.
    pub body: Graph,
    pub options: KernelOptions,
    /// Outputs that are boxes of larger tensors, by their number; the others are dense.
    pub placements: BTreeMap<usize, Placement>,
    /// Inputs that are constant data, by their number: no kernel writes them, so that they can be read before
    /// earlier kernels are done.
    pub weights: BTreeSet<usize>,
}

/// The problem of region number `region`.
pub fn spec(fused: &FusedGraph, region: usize, options: &KernelOptions) -> KernelSpec {
    let region = &fused.regions[region];
    let is_weight =
        |&(_, &id): &(usize, &TensorId)| matches!(fused.tensor(id).source, TensorSource::Weight(_));
    let weights = region.inputs.iter().enumerate().filter(is_weight);
    KernelSpec {
        weights: weights.map(|(number, _)| number).collect(),
        ..KernelSpec::of_region(region, *options)
    }
}

impl KernelSpec {
    pub fn of_region(region: &Region, options: KernelOptions) -> Self {
        KernelSpec {
            kind: region.kind,
            body: region.body.clone(),
            options,
            placements: region.placements.clone(),
            weights: BTreeSet::new(),
        }
    }

    /// Equal for equal problems, as 64 hexadecimal digits.
    pub fn key(&self) -> String {
        let mut text = format!("{:?} {:?}\n{}", self.kind, self.options, self.text());
        if !self.weights.is_empty() {
            write!(text, "\nweights {:?}", self.weights).expect("writing to a string succeeds");
        }
        hex(&Sha256::digest(text.as_bytes()))
    }

    pub fn input_types(&self) -> Vec<TensorType> {
        self.body
            .inputs
            .iter()
            .map(|&value| self.body.ty(value).clone())
            .collect()
    }

    /// The most elements of a vector that outputs of `n_elements` are made of, wherever they lie.
    pub fn placed_vector(&self, n_elements: usize) -> usize {
        let outputs = self.output_types();
        let vectors = self
            .placements
            .iter()
            .map(|(&number, placement)| placement.vector(&outputs[number].dims()));
        vectors.fold(n_elements, common_divisor)
    }

    /// Types of what the output pointers point to.
    pub fn stored_types(&self) -> Vec<TensorType> {
        let whole = |(number, ty): (usize, TensorType)| match self.placements.get(&number) {
            Some(placement) => TensorType::new(ty.dtype, &placement.dims),
            None => ty,
        };
        self.output_types().into_iter().enumerate().map(whole).collect()
    }

    /// What the output pointers point to once `results` are stored, where every byte was `unwritten`
    /// before.
    pub fn stored(&self, results: Vec<HostTensor>, unwritten: u8) -> Vec<HostTensor> {
        let whole = |(number, result): (usize, HostTensor)| match self.placements.get(&number) {
            Some(placement) => {
                let mut whole = HostTensor::zeros(result.dtype(), &placement.dims);
                whole.bytes_mut().fill(unwritten);
                placement.paste(&result, &mut whole);
                whole
            }
            None => result,
        };
        results.into_iter().enumerate().map(whole).collect()
    }

    pub fn output_types(&self) -> Vec<TensorType> {
        self.body
            .outputs
            .iter()
            .map(|&value| self.body.ty(value).clone())
            .collect()
    }

    /// The body in canonical text: one line per node, values named by their place in it.
    pub fn text(&self) -> String {
        let namer = Namer::of(&self.body);
        let mut text = String::from("(");
        let inputs: Vec<String> = self
            .body
            .inputs
            .iter()
            .map(|&value| format!("{}: {}", namer.name(&self.body, value), self.body.ty(value)))
            .collect();
        writeln!(text, "{})", inputs.join(", ")).expect("writing to a string succeeds");
        for line in node_lines(&self.body, &namer) {
            writeln!(text, "{line}").expect("writing to a string succeeds");
        }
        let outputs: Vec<String> = self
            .body
            .outputs
            .iter()
            .enumerate()
            .map(|(number, &value)| {
                let name = namer.name(&self.body, value);
                match self.placements.get(&number) {
                    Some(placement) => format!("{name} {placement}"),
                    None => name,
                }
            })
            .collect();
        write!(text, "return {}", outputs.join(", ")).expect("writing to a string succeeds");
        text
    }

    /// The body as text, from which [`KernelSpec::parse_body`] makes one that poses the same problem. It
    /// says nothing of the model: equal layers have equal texts.
    pub fn body_text(&self) -> String {
        ir::text::print(&anonymous(&self.body))
    }

    /// The body of a text.
    ///
    /// # Errors
    /// If it is no typed graph of ops with generated code.
    pub fn parse_body(text: &str) -> Result<Graph, String> {
        let known = |name: &str| ops::lookup(name).map(|def| def.name);
        let body = ir::text::parse(text, &known).map_err(|error| error.to_string())?;
        let fits = |value: &Value| {
            let dims = value
                .ty
                .as_ref()
                .and_then(|ty| ty.shape.dims().map(|dims| (ty.dtype, dims)));
            dims.is_some_and(|(dtype, dims)| checked_bytes(dtype, &dims).is_some())
        };
        if !body.values.iter().all(fits) {
            return Err("a value is of no type, or larger than memory".to_owned());
        }
        match verify_typed(&body, &ops::types_of) {
            Ok(()) => Ok(body),
            Err(violations) => Err(violations[0].to_string()),
        }
    }

    /// Names of the ops of the body, in order.
    pub fn ops(&self) -> Vec<&'static str> {
        self.body.nodes.iter().map(|node| node.op).collect()
    }
}

/// `body` without names and origins.
fn anonymous(body: &Graph) -> Graph {
    let mut body = body.clone();
    "region".clone_into(&mut body.name);
    for value in &mut body.values {
        value.name.clear();
    }
    for (position, input) in body.inputs.clone().into_iter().enumerate() {
        body.value_mut(input).name = format!("in{position}");
    }
    let names = (0..body.outputs.len()).map(|position| format!("out{position}"));
    body.output_names = names.collect();
    for node in &mut body.nodes {
        node.origin.clear();
        node.rules.clear();
    }
    body
}

/// `%0 = add(a, b): f32[2,3]`, one line per node.
fn node_lines(graph: &Graph, namer: &Namer) -> Vec<String> {
    graph
        .nodes
        .iter()
        .map(|node| {
            let results: Vec<String> = node
                .results
                .iter()
                .map(|&value| namer.name(graph, value))
                .collect();
            let operands: Vec<String> = node
                .operands
                .iter()
                .map(|&operand: &Operand| operand.map_or("_".to_owned(), |value| namer.name(graph, value)))
                .collect();
            let types: Vec<String> = node
                .results
                .iter()
                .map(|&value| graph.ty(value).to_string())
                .collect();
            let attrs: Vec<String> = node
                .attrs
                .0
                .iter()
                .map(|(name, attr)| format!("{name}={}", attr_text(attr)))
                .collect();
            let attrs = if attrs.is_empty() {
                String::new()
            } else {
                format!("[{}]", attrs.join(", "))
            };
            format!(
                "{} = {}{attrs}({}): {}",
                results.join(", "),
                node.op,
                operands.join(", "),
                types.join(", ")
            )
        })
        .collect()
}

/// Names of values by their role and place, so that equal bodies have equal texts.
struct Namer {
    names: Vec<String>,
}

impl Namer {
    fn of(graph: &Graph) -> Self {
        let mut names = vec![String::new(); graph.values.len()];
        for (position, &input) in graph.inputs.iter().enumerate() {
            names[input.0 as usize] = format!("in{position}");
        }
        let results = graph.nodes.iter().flat_map(|node| &node.results);
        for (position, value) in results.enumerate() {
            names[value.0 as usize] = format!("%{position}");
        }
        Namer { names }
    }

    fn name(&self, graph: &Graph, value: ValueId) -> String {
        match &graph.value(value).source {
            Source::Weight(data) => tensor_text(data),
            Source::Input(_) | Source::Node(..) => self.names[value.0 as usize].clone(),
        }
    }
}

fn tensor_text(data: &HostTensor) -> String {
    if data.n_elements() == 1 {
        let value = crate::ops::evaluate::to_vec::<f64>(data)[0];
        return format!("{value:?}:{}", data.ty());
    }
    let digest = hex(&Sha256::digest(data.bytes())[..8]);
    format!("#{digest}:{}", data.ty())
}

fn attr_text(attr: &Attr) -> String {
    match attr {
        Attr::Int(value) => value.to_string(),
        Attr::Float(value) => format!("{value:?}"),
        Attr::Str(value) => value.clone(),
        Attr::Ints(values) => format!("{values:?}").replace(' ', ""),
        Attr::Floats(values) => format!("{values:?}").replace(' ', ""),
        Attr::Strs(values) => format!("{values:?}").replace(' ', ""),
        Attr::DType(dtype) => dtype.name().to_owned(),
        Attr::Tensor(data) => tensor_text(data),
        Attr::Graph(graph) => format!("graph of {} nodes", graph.nodes.len()),
    }
}
