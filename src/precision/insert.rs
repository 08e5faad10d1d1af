//! Places `QuantizeLinear` and `DequantizeLinear` where a plan wants layers in 8 bits.
//!
//! A tensor is quantised once, for all layers that read it. Weights have a scale per output channel, or per group
//! of terms and channel where they take four bits; activations have one per tensor. Where a product is added to something else, the product stays in
//! registers; what it is added to is read quantised if that is stored so anyway, or comes from another
//! quantised layer, so that a residual block moves bytes and not floats.

use std::collections::{BTreeMap, HashMap};

use super::assignment::{Kind, Plan};
use super::copy::Copy;
use super::layers::{Layer, layers};
use super::number::{Number, Scaling, quantise_weight};
use super::prepare::readers;
use super::quantise_groups::{GroupedWeight, quantise_groups};
use crate::ir::{Attr, Graph, HostTensor, Node, NodeId, Operand, ValueId};

/// Least and greatest value by name of tensor.
pub type Ranges = BTreeMap<String, (f64, f64)>;

/// The range of a tensor that is stored as a kind of number, where it is known.
pub type RangeOf<'a> = dyn Fn(&str, Number) -> Option<(f64, f64)> + 'a;

/// A tensor that is stored in 8 bits.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantisedTensor {
    pub name: String,
    pub range: (f64, f64),
    pub scaling: Scaling,
}

/// A model with its quantisers, and what was done.
#[derive(Clone, Debug)]
pub struct Quantised {
    pub graph: Graph,
    pub tensors: Vec<QuantisedTensor>,
    /// Layers left in floats because the range of this tensor is not known.
    pub without_range: Vec<(String, String)>,
}

/// Quantises the layers of a prepared `graph` as `plan` says; `asymmetric` gives activations zero
/// points.
pub fn quantise(graph: &Graph, plan: &Plan, range_of: &RangeOf<'_>, asymmetric: bool) -> Quantised {
    let mut without_range = Vec::new();
    let mut chosen: HashMap<NodeId, Chosen> = HashMap::new();
    for layer in layers(graph) {
        let Some(format) = Format::of(plan.kind(&layer.name), asymmetric) else {
            continue;
        };
        let missing = format.number().and_then(|number| {
            layer
                .computed
                .iter()
                .filter_map(|&position| graph.nodes[layer.node.0 as usize].operands[position])
                .find(|&value| range_of(&graph.value(value).name, number).is_none())
        });
        match missing {
            Some(value) => without_range.push((layer.name, graph.value(value).name.clone())),
            None => drop(chosen.insert(layer.node, Chosen { layer, format })),
        }
    }
    let residuals = residuals(graph, &chosen, range_of);
    let mut insertion = Insertion {
        copy: Copy::new(graph),
        readers: named_readers(graph, &chosen),
        range_of,
        dequantised: HashMap::new(),
        tensors: Vec::new(),
    };
    for (id, node) in (0..).map(NodeId).zip(&graph.nodes) {
        let operands = match (chosen.get(&id), residuals.get(&id)) {
            (Some(chosen), _) => insertion.layer(node, chosen),
            (None, Some(&(position, number))) => insertion.residual(node, position, number),
            (None, None) => insertion.copy.operands(node),
        };
        insertion.copy.node(node, operands);
    }
    Quantised {
        tensors: insertion.tensors,
        graph: insertion.copy.finish(),
        without_range,
    }
}

/// How the operands of a layer are stored.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Format {
    Weights(Number),
    /// Weights in four bits, with a scale for each group of at most so many terms.
    Groups(usize),
    Both(Number),
}

impl Format {
    fn of(kind: Kind, asymmetric: bool) -> Option<Self> {
        match kind {
            Kind::Fp32 | Kind::Float => None,
            Kind::Int8Weights => Some(Format::Weights(Number::Int8)),
            Kind::Int4Weights { group } => Some(Format::Groups(usize::from(group))),
            Kind::Int8 if asymmetric => Some(Format::Both(Number::Int8Asymmetric)),
            Kind::Int8 => Some(Format::Both(Number::Int8)),
            Kind::Fp8 => Some(Format::Both(Number::Fp8)),
        }
    }

    /// What activations are stored as, where not as floats.
    fn number(self) -> Option<Number> {
        match self {
            Format::Weights(_) | Format::Groups(_) => None,
            Format::Both(number) => Some(number),
        }
    }
}

struct Chosen {
    layer: Layer,
    format: Format,
}

/// The sums that read an operand quantised: which one, and as what.
fn residuals(
    graph: &Graph,
    chosen: &HashMap<NodeId, Chosen>,
    range_of: &RangeOf<'_>,
) -> HashMap<NodeId, (usize, Number)> {
    let stored = stored(graph, chosen);
    let n_readers = readers(graph);
    let product = |value: ValueId| -> Option<Number> {
        let (id, _) = graph.producer(value)?;
        chosen.get(&id)?.format.number()
    };
    let mut found: HashMap<NodeId, (usize, Number)> = HashMap::new();
    for (id, node) in (0..).map(NodeId).zip(&graph.nodes) {
        let ("add", &[Some(a), Some(b)]) = (node.op, node.operands.as_slice()) else {
            continue;
        };
        for (position, own, other) in [(1, a, b), (0, b, a)] {
            let Some(number) = product(own).filter(|_| n_readers[own.0 as usize] == 1) else {
                continue;
            };
            let is_stored = stored.get(&other) == Some(&number);
            let is_product = product(other) == Some(number);
            let name = &graph.value(other).name;
            if (is_stored || is_product) && range_of(name, number).is_some() {
                found.entry(id).or_insert((position, number));
            }
        }
    }
    found
}

/// What each tensor that a quantised layer reads is stored as.
fn stored(graph: &Graph, chosen: &HashMap<NodeId, Chosen>) -> HashMap<ValueId, Number> {
    let mut stored = HashMap::new();
    for (id, node) in (0..).map(NodeId).zip(&graph.nodes) {
        let Some(chosen) = chosen.get(&id) else { continue };
        let Some(number) = chosen.format.number() else {
            continue;
        };
        let computed = chosen
            .layer
            .computed
            .iter()
            .filter_map(|&position| node.operands[position]);
        stored.extend(computed.map(|value| (value, number)));
    }
    stored
}

/// The names of the quantised layers that read each tensor.
fn named_readers(graph: &Graph, chosen: &HashMap<NodeId, Chosen>) -> HashMap<ValueId, Vec<String>> {
    let mut readers: HashMap<ValueId, Vec<String>> = HashMap::new();
    for (id, node) in (0..).map(NodeId).zip(&graph.nodes) {
        if !chosen.contains_key(&id) {
            continue;
        }
        for &value in node.operands.iter().flatten() {
            readers
                .entry(value)
                .or_default()
                .extend(node.origin.iter().cloned());
        }
    }
    readers
}

struct Insertion<'a> {
    copy: Copy<'a>,
    /// Whose quantisers those of a tensor are.
    readers: HashMap<ValueId, Vec<String>>,
    range_of: &'a RangeOf<'a>,
    dequantised: HashMap<(ValueId, Number), ValueId>,
    tensors: Vec<QuantisedTensor>,
}

impl Insertion<'_> {
    fn layer(&mut self, node: &Node, chosen: &Chosen) -> Vec<Operand> {
        let mut operands = node.operands.clone();
        for (position, operand) in operands.iter_mut().enumerate() {
            let Some(value) = *operand else { continue };
            let is_computed = chosen.layer.computed.contains(&position);
            *operand = Some(match (chosen.layer.weight, chosen.format) {
                (Some((own, axis)), format) if own == position => match format {
                    Format::Weights(number) | Format::Both(number) => {
                        self.weight(value, axis, number, &node.origin)
                    }
                    Format::Groups(most) => match chosen.layer.groups(self.copy.from, most) {
                        Some((terms, group)) => self.grouped_weight(value, terms, group, &node.origin),
                        None => self.weight(value, axis, Number::Int8, &node.origin),
                    },
                },
                (_, Format::Both(number)) if is_computed => self.activation(value, number, &node.origin),
                _ => self.copy.value(value),
            });
        }
        operands
    }

    fn residual(&mut self, node: &Node, position: usize, number: Number) -> Vec<Operand> {
        let mut operands = self.copy.operands(node);
        if let Some(value) = node.operands[position] {
            operands[position] = Some(self.activation(value, number, &node.origin));
        }
        operands
    }

    /// `value` after it has been stored as `number`.
    fn activation(&mut self, value: ValueId, number: Number, origin: &[String]) -> ValueId {
        if let Some(&known) = self.dequantised.get(&(value, number)) {
            return known;
        }
        let name = self.copy.from.value(value).name.clone();
        let range = (self.range_of)(&name, number).expect("layers without a range stay in floats");
        let scaling = number.scaling(range);
        let x = self.copy.value(value);
        let readers = self.readers.get(&value).cloned();
        let origin = &readers.unwrap_or_else(|| origin.to_vec());
        let scale = self.scale(&[], &[scaling.scale]);
        let zero = self.zero(&[], number, scaling.zero);
        let stored = self
            .copy
            .emit("QuantizeLinear", &[x, scale, zero], &[], "", origin);
        let back = self
            .copy
            .emit("DequantizeLinear", &[stored, scale, zero], &[], "", origin);
        self.dequantised.insert((value, number), back);
        self.tensors.push(QuantisedTensor { name, range, scaling });
        back
    }

    /// A weight as `number`, with a scale for each entry of `axis`, or one for all of it.
    fn weight(&mut self, value: ValueId, axis: Option<usize>, number: Number, origin: &[String]) -> ValueId {
        let data = self
            .copy
            .from
            .weight(value)
            .expect("layers have constant weights");
        let name = self.copy.from.value(value).name.clone();
        let flat = data.reshaped(&[1, data.n_elements()]);
        let quantised = match axis {
            Some(axis) => quantise_weight(data, axis, number),
            None => quantise_weight(&flat, 0, number),
        };
        let dims: &[usize] = if axis.is_some() {
            &[quantised.scales.len()]
        } else {
            &[]
        };
        let stored = quantised.data.reshaped(data.dims());
        let stored = self.copy.target.add_weight(&name, stored);
        let scale = self.scale(dims, &quantised.scales);
        let zero = self.zero(dims, number, 0);
        let axis = axis.map_or(0, |axis| i64::try_from(axis).expect("tensors have few axes"));
        let axis = Attr::Int(axis);
        self.copy.emit(
            "DequantizeLinear",
            &[stored, scale, zero],
            &[("axis", axis)],
            "",
            origin,
        )
    }

    /// A weight in four bits, with a scale for each `group` of entries along its axis `terms`.
    fn grouped_weight(&mut self, value: ValueId, terms: usize, group: usize, origin: &[String]) -> ValueId {
        let weight = self
            .copy
            .from
            .weight(value)
            .expect("layers have constant weights");
        let name = self.copy.from.value(value).name.clone();
        let GroupedWeight { data, scales } = quantise_groups(weight, terms, group);
        let stored = self.copy.target.add_weight(&name, data);
        let scale = self.copy.target.add_weight("", scales);
        let int = |value: usize| Attr::Int(i64::try_from(value).expect("extents fit in i64"));
        let attrs = [("axis", int(terms)), ("block_size", int(group))];
        self.copy
            .emit("DequantizeLinear", &[stored, scale], &attrs, "", origin)
    }

    fn scale(&mut self, dims: &[usize], scales: &[f32]) -> ValueId {
        self.copy
            .target
            .add_weight("", HostTensor::from_f32(dims, scales))
    }

    fn zero(&mut self, dims: &[usize], number: Number, zero: i8) -> ValueId {
        let n_elements = dims.iter().product();
        // Zero of `f8e4m3` has no bit set.
        let data = HostTensor::from_slice(number.dtype(), dims, &vec![zero; n_elements]);
        self.copy.target.add_weight("", data)
    }
}
