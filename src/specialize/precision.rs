//! Rewrites a typed f32 graph so that activations and weights are stored in a narrower float.
//!
//! # Policy
//! - A graph that holds a narrow float already is left as it is: its author has decided.
//! - Inputs and outputs keep their kinds; casts stand at the border. Integers, bools and
//!   `f64` are not touched.
//! - Products, windows and attention are narrow: they accumulate in f32 anyway.
//! - Powers, squares, `exp`, sums and means stay in f32, since they leave the range of `f16`
//!   while their operands are well inside. Maps, views and index ops after them stay in f32 as
//!   long as *all* their float operands are f32; the first that also reads a narrow value, or a
//!   product, is narrow. So the island around a variance or a softmax spelled in primitives
//!   is the part with large numbers, and the activations that enter and leave it are narrow.
//! - What leads to the argument of `sin`, `cos` or `tan` through maps, views and outer products
//!   stays in f32, since a position of 1000 has no fraction left in `f16`. So does what leads to the boxes
//!   and scores that suppression compares.
//! - What leads from a mean over positions to a gate (`sigmoid`, `hard_sigmoid`) stays in f32: an
//!   error of the argument is a relative error of the gate, and of all channels it scales. These
//!   tensors hold one number per channel.
//! - What moves elements of an input to an output, such as the keys and values that a decoder keeps,
//!   stays in f32, the kind of both; who reads it narrow converts it as it is read.
//! - What scales integers to floats, or floats to the integers that they are rounded to, stays in f32,
//!   and so do products of bytes that are held in floats: their sums leave the range of `f16`.
//! - Nodes that [`Wide`] names stay in f32, because calibration saw large values there or a user asked.
//! - Weights round to nearest; finite ones stay finite (a mask of -3.4e38 becomes -65504).
//! - Statistics of a batch normalisation become a scale and an offset before they are rounded.
//!
//! Casts cost nothing where they fuse, because kernels compute in f32.

use std::collections::BTreeSet;
use std::convert::Infallible;

use super::tidy;
use crate::ir::{Attr, Attrs, DType, Graph, HostTensor, Node, Operand, TensorType, ValueId};
use crate::ops::evaluate::{from_values, tensor_holds_bytes, to_vec};
use crate::ops::{self, InferCtx, Lowering, OpDef, TileKind, infer};
use crate::reference::Constants;

/// Ops whose results may be far larger or smaller than their operands, or that read their operands in f32.
const WIDE: [&str; 11] = [
    "pow",
    "exp",
    "reduce_sum",
    "reduce_mean",
    "reduce_prod",
    "cum_sum",
    "sin",
    "cos",
    "tan",
    "reciprocal",
    "best_boxes",
];

/// Ops whose operands need a fraction even where they are large.
const FRACTIONS: [&str; 4] = ["sin", "cos", "tan", "best_boxes"];

/// Reductions that gates are computed from.
const POOLS: [&str; 3] = ["reduce_mean", "reduce_sum", "reduce_max"];

/// Ops whose relative error is the absolute error of their operand.
const GATES: [&str; 2] = ["sigmoid", "hard_sigmoid"];

/// Ops by which values become the integers that they are stored as.
const QUANTISING: [&str; 10] = [
    "add",
    "clamp",
    "div",
    "max",
    "min",
    "mul",
    "mul_rounded",
    "neg",
    "round",
    "sub",
];

/// Names of ONNX nodes whose work stays in f32, whatever the policy says.
pub type Wide = BTreeSet<String>;

/// Why something stays in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Its name is one of [`Wide`].
    Named,
    /// Its results may be far larger or smaller than its operands.
    Range,
    /// It leads to the argument of a periodic function, or to corners of boxes.
    Fraction,
    /// It leads to a gate for whole channels.
    Gate,
    /// It scales integers, or multiplies them.
    Integers,
    /// It moves an input to an output.
    Moves,
    /// All that it reads is f32.
    Follows,
}

impl Reason {
    /// For reports.
    pub const fn text(self) -> &'static str {
        match self {
            Reason::Named => "asked for, or large values in calibration",
            Reason::Range => "may leave the range of 16 bits",
            Reason::Fraction => "needs a fraction even where it is large",
            Reason::Gate => "gate of whole channels",
            Reason::Integers => "scales or multiplies integers",
            Reason::Moves => "moves an input to an output",
            Reason::Follows => "reads f32 alone",
        }
    }
}

/// Work that stays in f32 in a graph that is stored narrow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Island {
    pub op: &'static str,
    /// The ONNX nodes it came from.
    pub origin: Vec<String>,
    pub reason: Reason,
}

/// Stores activations and weights of a core graph as `narrow`, which is `f16` or `bf16`.
pub fn lower_precision(graph: &Graph, narrow: DType) -> Graph {
    lower_except(graph, narrow, &Wide::new(), &Constants::default()).0
}

/// As [`lower_precision`], but for the nodes of `wide`; with what stays in f32 and why. Weights that `constants` has
/// seen are not narrowed again.
pub fn lower_except(
    graph: &Graph,
    narrow: DType,
    wide: &Wide,
    constants: &Constants,
) -> (Graph, Vec<Island>) {
    if holds_narrow_floats(graph) {
        return (graph.clone(), Vec::new());
    }
    let mut narrowing = Narrowing {
        graph,
        target: Graph::new(&graph.name),
        forms: vec![Form::default(); graph.values.len()],
        pinned: pinned(graph),
        integral: integral(graph),
        wide,
        islands: Vec::new(),
        narrow,
        constants,
    };
    for &input in &graph.inputs {
        let value = graph.value(input);
        let own = narrowing.target.add_input(&value.name, value.ty.clone());
        narrowing.forms[input.0 as usize].wide = Some(own);
    }
    for (position, node) in graph.nodes.iter().enumerate() {
        narrowing.node(position, node);
    }
    for (&output, name) in graph.outputs.iter().zip(&graph.output_names) {
        let value = narrowing.wide(output);
        narrowing.target.add_output(name, value);
    }
    narrowing.target.bounds.clone_from(&graph.bounds);
    (tidy::tidy(&narrowing.target), narrowing.islands)
}

fn holds_narrow_floats(graph: &Graph) -> bool {
    let results = graph.nodes.iter().flat_map(|node| &node.results);
    graph.inputs.iter().chain(results).any(|&value| {
        let dtype = graph.ty(value).dtype;
        dtype.is_float() && dtype.size_bytes() < 4
    })
}

/// Nodes that lead to the argument of a periodic function, from a mean to a gate, or from floats to
/// integers.
fn pinned(graph: &Graph) -> Vec<Option<Reason>> {
    let leading = leading(graph);
    let quantising = quantising(graph);
    leading
        .into_iter()
        .zip(quantising)
        .map(|(leads, quantises)| leads.or(quantises.then_some(Reason::Integers)))
        .collect()
}

/// Nodes between a value and the integers that it is rounded to: its division by a scale and what
/// comes after.
fn quantising(graph: &Graph) -> Vec<bool> {
    let mut found = vec![false; graph.nodes.len()];
    for (position, node) in graph.nodes.iter().enumerate().rev() {
        let is_const = |value: &ValueId| graph.weight(*value).is_some();
        let ends = node.op == "cast" && node.attrs.dtype("to").is_some_and(DType::is_int);
        let scales =
            matches!(node.op, "mul" | "mul_rounded" | "div") && node.operands.iter().flatten().any(is_const);
        if !ends && (!found[position] || scales) {
            continue;
        }
        for &operand in node.operands.iter().flatten() {
            if let Some((id, producer)) = graph.producer(operand) {
                let is_float = graph.ty(operand).dtype == DType::F32;
                found[id.0 as usize] |= is_float && QUANTISING.contains(&producer.op);
            }
        }
    }
    found
}

/// Values that are integers in floats, or sums of products of 8-bit floats: casts, what moves them,
/// products of them, and these with a bias before they are scaled.
fn integral(graph: &Graph) -> Vec<bool> {
    let mut integral = vec![false; graph.values.len()];
    let mut sums = vec![false; graph.values.len()];
    for node in &graph.nodes {
        let Some(&Some(first)) = node.operands.first() else {
            continue;
        };
        let computed = || {
            let operands = node.operands.iter().flatten();
            operands.filter(|&&value| graph.weight(value).is_none())
        };
        let all = |of: &[bool]| computed().count() > 0 && computed().all(|value| of[value.0 as usize]);
        let (is_integral, is_sum) = match kind(node) {
            Some(TileKind::Map) => match node.op {
                "cast" => (is_byte_like(graph.ty(first).dtype), false),
                "add" | "sub" => (all(&sums), all(&sums)),
                _ => (false, false),
            },
            Some(TileKind::View | TileKind::Index) => (integral[first.0 as usize], sums[first.0 as usize]),
            Some(TileKind::Dot | TileKind::Window) => (all(&integral), all(&integral)),
            Some(TileKind::Reduce | TileKind::Other) | None => (false, false),
        };
        for &result in &node.results {
            let is_float = graph.ty(result).dtype == DType::F32;
            integral[result.0 as usize] = is_integral && is_float;
            sums[result.0 as usize] = is_sum && is_float;
        }
    }
    integral
}

fn is_byte_like(dtype: DType) -> bool {
    dtype.is_int() || (dtype.is_float() && dtype.size_bytes() == 1)
}

/// Whether a constant holds integers that sums of products with them may leave the range of `f16`.
fn is_weight_of_bytes(data: &HostTensor) -> bool {
    data.dtype() == DType::F32 && tensor_holds_bytes(data)
}

/// Nodes that lead to the argument of a periodic function, or from a mean to a gate.
fn leading(graph: &Graph) -> Vec<Option<Reason>> {
    let pooled = pooled(graph);
    let mut pinned = vec![false; graph.nodes.len()];
    let mut gating = vec![false; graph.nodes.len()];
    for (position, node) in graph.nodes.iter().enumerate().rev() {
        let made_pooled = |value: ValueId| graph.producer(value).is_some_and(|(id, _)| pooled[id.0 as usize]);
        if GATES.contains(&node.op) && node.operands.iter().flatten().all(|&value| made_pooled(value)) {
            gating[position] = true;
        }
        if !pinned[position] && !gating[position] && !FRACTIONS.contains(&node.op) {
            continue;
        }
        for &operand in node.operands.iter().flatten() {
            let Some((id, producer)) = graph.producer(operand) else {
                continue;
            };
            gating[id.0 as usize] |= gating[position] && pooled[id.0 as usize];
            let passes = match kind(producer) {
                Some(TileKind::Map | TileKind::View | TileKind::Index) => true,
                Some(TileKind::Dot) => is_outer_product(graph, producer),
                Some(TileKind::Reduce | TileKind::Window | TileKind::Other) | None => false,
            };
            pinned[id.0 as usize] |= passes && (pinned[position] || FRACTIONS.contains(&node.op));
        }
    }
    pinned
        .iter()
        .zip(&gating)
        .map(|(&pinned, &gating)| match (pinned, gating) {
            (true, _) => Some(Reason::Fraction),
            (false, true) => Some(Reason::Gate),
            (false, false) => None,
        })
        .collect()
}

/// Nodes computed from means (or sums, or maxima) over positions alone.
fn pooled(graph: &Graph) -> Vec<bool> {
    let mut pooled: Vec<bool> = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let mut computed = node
            .operands
            .iter()
            .flatten()
            .filter(|&&value| graph.weight(value).is_none())
            .peekable();
        let is_any = computed.peek().is_some();
        let all = is_any
            && computed.all(|&value| graph.producer(value).is_some_and(|(id, _)| pooled[id.0 as usize]));
        pooled.push(match kind(node) {
            Some(TileKind::Map | TileKind::View | TileKind::Dot | TileKind::Window) => all,
            Some(TileKind::Reduce) => all || (POOLS.contains(&node.op) && shrinks(graph, node)),
            Some(TileKind::Index | TileKind::Other) | None => false,
        });
    }
    pooled
}

fn shrinks(graph: &Graph, node: &Node) -> bool {
    let first = node.operands.first().copied().flatten();
    first.is_some_and(|value| graph.ty(node.results[0]).n_elements() < graph.ty(value).n_elements())
}

fn is_outer_product(graph: &Graph, node: &Node) -> bool {
    let first = node.operands.first().copied().flatten();
    first.is_some_and(|value| graph.ty(value).dims().last() == Some(&1))
}

fn kind(node: &Node) -> Option<TileKind> {
    match &ops::lookup(node.op)?.lower {
        Lowering::Map(_) => Some(TileKind::Map),
        Lowering::Tile(kind, _) => Some(*kind),
        Lowering::Loop => Some(TileKind::Other),
        Lowering::Expand(_) | Lowering::Bounded(_) | Lowering::Host(_) => None,
    }
}

/// The values of the target that stand for one of the graph.
#[derive(Clone, Default)]
struct Form {
    /// In its own kind.
    wide: Option<ValueId>,
    narrow: Option<ValueId>,
}

struct Narrowing<'a> {
    graph: &'a Graph,
    target: Graph,
    forms: Vec<Form>,
    pinned: Vec<Option<Reason>>,
    integral: Vec<bool>,
    wide: &'a Wide,
    islands: Vec<Island>,
    narrow: DType,
    constants: &'a Constants,
}

impl Narrowing<'_> {
    fn node(&mut self, position: usize, node: &Node) {
        let def = ops::lookup(node.op).expect("specialize() leaves only ops of the table");
        let reason = self.stays_wide(position, node);
        // An op without a narrow form stays as it was.
        if reason.is_none() && self.try_emit(def, node, true) {
            return;
        }
        if let Some(reason) = reason {
            self.note(node, reason);
        }
        let emitted = self.try_emit(def, node, false);
        assert!(
            emitted,
            "`{}` has the operand types specialize() checked",
            node.op
        );
    }

    fn note(&mut self, node: &Node, reason: Reason) {
        let makes_floats = node.results.iter().any(|&result| self.is_f32(result));
        if makes_floats {
            self.islands.push(Island {
                op: node.op,
                origin: node.origin.clone(),
                reason,
            });
        }
    }

    fn stays_wide(&self, position: usize, node: &Node) -> Option<Reason> {
        if node.origin.iter().any(|name| self.wide.contains(name)) {
            return Some(Reason::Named);
        }
        if let Some(reason) = self.pinned[position] {
            return Some(reason);
        }
        let is_square = node.op == "mul" && node.operands.first() == node.operands.get(1);
        if is_square || WIDE.contains(&node.op) {
            return Some(Reason::Range);
        }
        if self.is_of_integers(node) || self.has_weights_of_bytes(node) {
            return Some(Reason::Integers);
        }
        if self.passes_on_input(node) {
            return Some(Reason::Moves);
        }
        match kind(node) {
            Some(TileKind::Dot | TileKind::Window | TileKind::Other) | None => None,
            Some(TileKind::Map | TileKind::View | TileKind::Index | TileKind::Reduce) => {
                self.reads_only_wide(node).then_some(Reason::Follows)
            }
        }
    }

    /// Whether a node makes floats of integers, scales them, or multiplies and adds them.
    fn is_of_integers(&self, node: &Node) -> bool {
        let makes = node
            .results
            .iter()
            .any(|&result| self.integral[result.0 as usize]);
        let mut computed = node
            .operands
            .iter()
            .flatten()
            .filter(|&&value| self.graph.weight(value).is_none())
            .peekable();
        makes || (computed.peek().is_some() && computed.all(|&value| self.holds_integers(value)))
    }

    fn holds_integers(&self, value: ValueId) -> bool {
        self.integral[value.0 as usize]
    }

    /// Whether a product's sums, with weights of bytes, may leave the range of `f16`.
    fn has_weights_of_bytes(&self, node: &Node) -> bool {
        let is_product = match kind(node) {
            Some(TileKind::Dot | TileKind::Window) => true,
            Some(TileKind::Map | TileKind::View | TileKind::Index | TileKind::Reduce | TileKind::Other)
            | None => false,
        };
        is_product
            && self.narrow == DType::F16
            && node
                .operands
                .get(1)
                .copied()
                .flatten()
                .and_then(|value| self.graph.weight(value))
                .is_some_and(is_weight_of_bytes)
    }

    /// Whether a node scales what a product with weights of bytes sums.
    fn scales_weights_of_bytes(&self, node: &Node) -> bool {
        let is_sum = |&value: &ValueId| {
            let mut made = self.graph.producer(value);
            while let Some((_, view)) = made.filter(|(_, node)| kind(node) == Some(TileKind::View)) {
                let source = view.operands.first().copied().flatten();
                made = source.and_then(|source| self.graph.producer(source));
            }
            made.is_some_and(|(_, product)| self.has_weights_of_bytes(product))
        };
        node.op == "mul" && node.operands.iter().flatten().any(is_sum)
    }

    /// Whether a node moves elements of an f32 input to an f32 output. Narrow, it would be
    /// written twice: once as that output, and once for its other readers.
    fn passes_on_input(&self, node: &Node) -> bool {
        let is_move = match kind(node) {
            Some(TileKind::View | TileKind::Index) => true,
            Some(TileKind::Map | TileKind::Reduce | TileKind::Dot | TileKind::Window | TileKind::Other)
            | None => false,
        };
        let is_input = |value: &ValueId| self.is_f32(*value) && self.graph.inputs.contains(value);
        is_move
            && node
                .results
                .iter()
                .any(|&result| self.is_f32(result) && self.graph.outputs.contains(&result))
            && node.operands.iter().flatten().any(is_input)
    }

    /// Whether a node reads computed f32 values, and none that is narrow.
    fn reads_only_wide(&self, node: &Node) -> bool {
        let mut floats = node
            .operands
            .iter()
            .flatten()
            .filter(|&&value| self.is_f32(value) && self.graph.weight(value).is_none())
            .peekable();
        floats.peek().is_some() && floats.all(|&value| self.is_computed_wide(value))
    }

    fn is_computed_wide(&self, value: ValueId) -> bool {
        let Some((_, node)) = self.graph.producer(value) else {
            return false;
        };
        // What integers are scaled to is an activation like any other.
        if node.op != "cast" && (self.is_of_integers(node) || self.scales_weights_of_bytes(node)) {
            return false;
        }
        let form = &self.forms[value.0 as usize];
        // A narrow result that something wanted wide has both forms; so has a wide one that
        // something wanted narrow. The one made first has the lower number.
        match (form.wide, form.narrow) {
            (Some(wide), Some(narrow)) => wide < narrow,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    fn is_f32(&self, value: ValueId) -> bool {
        self.graph.ty(value).dtype == DType::F32
    }

    /// Adds `node` with narrow or own operands; `false` where its inference refuses them.
    fn try_emit(&mut self, def: &OpDef, node: &Node, narrow: bool) -> bool {
        let (n_nodes, n_values) = (self.target.nodes.len(), self.target.values.len());
        let before = self.operand_forms(node);
        let (operands, attrs) = self.operands_and_attrs(node, narrow);
        let types: Vec<Option<TensorType>> = operands
            .iter()
            .map(|operand| operand.map(|value| self.target.ty(value).clone()))
            .collect();
        let inferred = (def.infer)(&InferCtx {
            attrs: &attrs,
            operands: &types,
        });
        let Ok(types) = inferred else {
            self.target.nodes.truncate(n_nodes);
            self.target.values.truncate(n_values);
            for (value, form) in before {
                self.forms[value.0 as usize] = form;
            }
            return false;
        };
        self.add(node, operands, attrs, types);
        true
    }

    fn operand_forms(&self, node: &Node) -> Vec<(ValueId, Form)> {
        let operands = node.operands.iter().flatten();
        operands
            .map(|&value| (value, self.forms[value.0 as usize].clone()))
            .collect()
    }

    fn operands_and_attrs(&mut self, node: &Node, narrow: bool) -> (Vec<Operand>, Attrs) {
        if narrow
            && node.op == "batch_norm"
            && let Some(settled) = self.batch_norm(node)
        {
            return settled;
        }
        let is_cast = node.op == "cast";
        let operands = node
            .operands
            .iter()
            .map(|operand| {
                operand.map(|value| match (narrow, self.is_f32(value)) {
                    // A cast takes what there is; going through another kind first helps nobody.
                    (_, true) if is_cast => self.any(value),
                    (true, true) => self.narrow(value),
                    (_, false) | (false, true) => self.wide(value),
                })
            })
            .collect();
        let mut attrs = node.attrs.clone();
        if narrow && attrs.dtype("to") == Some(DType::F32) {
            attrs = attrs.with("to", Attr::DType(self.narrow));
        }
        (operands, attrs)
    }

    /// A batch normalisation whose statistics are constants, with mean 0 and variance 1.
    fn batch_norm(&mut self, node: &Node) -> Option<(Vec<Operand>, Attrs)> {
        let epsilon = infer::float(&node.attrs, "epsilon").ok()?;
        let constant = |n: usize| -> Option<Vec<f64>> {
            let value = node.operands.get(n).copied().flatten()?;
            self.graph.weight(value).map(to_vec)
        };
        let (gain, bias, mean, variance) = (constant(1)?, constant(2)?, constant(3)?, constant(4)?);
        let scale: Vec<f64> = gain
            .iter()
            .zip(&variance)
            .map(|(gain, variance)| gain / (variance + epsilon).sqrt())
            .collect();
        let offset: Vec<f64> = bias
            .iter()
            .zip(mean.iter().zip(&scale))
            .map(|(bias, (mean, scale))| bias - mean * scale)
            .collect();
        let ones = vec![1.0; scale.len()];
        let x = node.operands[0]?;
        let mut operands = vec![Some(self.narrow(x))];
        for values in [&scale, &offset, &vec![0.0; scale.len()], &ones] {
            let data = narrowed(&from_values(DType::F64, &[values.len()], values), self.narrow);
            operands.push(Some(self.target.add_weight("", data)));
        }
        let attrs = node.attrs.clone().with("epsilon", Attr::Float(0.0));
        Some((operands, attrs))
    }

    fn add(&mut self, node: &Node, operands: Vec<Operand>, attrs: Attrs, types: Vec<TensorType>) {
        let results: Vec<(&str, Option<TensorType>)> = node
            .results
            .iter()
            .zip(types)
            .map(|(&result, ty)| (self.graph.value(result).name.as_str(), Some(ty)))
            .collect();
        let id = self
            .target
            .add_node(node.op, operands, attrs, &results, node.origin.clone());
        self.target.nodes[id.0 as usize].rules.clone_from(&node.rules);
        let added = self.target.node(id).results.clone();
        for (&result, value) in node.results.iter().zip(added) {
            let is_own = self.target.ty(value).dtype == self.graph.ty(result).dtype;
            let form = &mut self.forms[result.0 as usize];
            if is_own {
                form.wide = Some(value);
            } else {
                form.narrow = Some(value);
            }
        }
    }

    /// The form a value was made in.
    fn any(&mut self, value: ValueId) -> ValueId {
        let form = &self.forms[value.0 as usize];
        match (form.wide, form.narrow) {
            (Some(wide), Some(narrow)) => wide.min(narrow),
            (Some(only), None) | (None, Some(only)) => only,
            (None, None) => self.wide(value),
        }
    }

    /// A value in its own kind.
    fn wide(&mut self, value: ValueId) -> ValueId {
        let form = &self.forms[value.0 as usize];
        if let Some(wide) = form.wide {
            return wide;
        }
        let wide = match (self.graph.weight(value), form.narrow) {
            (Some(data), _) => self
                .target
                .add_weight(&self.graph.value(value).name, data.clone()),
            (None, Some(narrow)) => self.cast(value, narrow, DType::F32),
            (None, None) => unreachable!("operands are made before they are read"),
        };
        self.forms[value.0 as usize].wide = Some(wide);
        wide
    }

    /// An f32 value in the narrow kind.
    fn narrow(&mut self, value: ValueId) -> ValueId {
        let form = &self.forms[value.0 as usize];
        if let Some(narrow) = form.narrow {
            return narrow;
        }
        let narrow = match (self.graph.weight(value), form.wide) {
            (Some(data), _) => {
                let data = self.narrowed(data);
                self.target.add_weight(&self.graph.value(value).name, data)
            }
            (None, Some(wide)) => self.cast(value, wide, self.narrow),
            (None, None) => unreachable!("operands are made before they are read"),
        };
        self.forms[value.0 as usize].narrow = Some(narrow);
        narrow
    }

    fn narrowed(&self, data: &HostTensor) -> HostTensor {
        let to = Attrs::new().with("to", Attr::DType(self.narrow));
        let computed = || Ok::<_, Infallible>(vec![narrowed(data, self.narrow)]);
        let Ok(results) = self.constants.results("narrowed", &to, &[Some(data)], computed);
        results.into_iter().next().expect("a constant is narrowed to one")
    }

    fn cast(&mut self, value: ValueId, from: ValueId, to: DType) -> ValueId {
        let made_by = self.graph.producer(value);
        let origin = made_by.map_or_else(Vec::new, |(_, node)| node.origin.clone());
        let ty = TensorType::new(to, &self.graph.ty(value).dims());
        let attrs = Attrs::new().with("to", Attr::DType(to));
        let node = self
            .target
            .add_node("cast", vec![Some(from)], attrs, &[("", Some(ty))], origin);
        self.target.node(node).results[0]
    }
}

/// Constants in the narrow kind, rounded to nearest; finite ones stay finite.
fn narrowed(data: &HostTensor, narrow: DType) -> HostTensor {
    let largest = match narrow {
        DType::F16 => half::f16::MAX.to_f64(),
        DType::BF16 => half::bf16::MAX.to_f64(),
        _ => f64::INFINITY,
    };
    let mut values: Vec<f64> = to_vec(data);
    for value in &mut values {
        if value.is_finite() {
            *value = value.clamp(-largest, largest);
        }
    }
    from_values(narrow, data.dims(), &values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference;
    use crate::testing::{graphs, verify_core};

    /// A graph from text; its ops are typed by their inference.
    fn parsed(text: &str) -> Graph {
        let graph = crate::ir::text::parse(text, &|name| ops::lookup(name).map(|def| def.name)).unwrap();
        let bindings = crate::specialize::bind(&graph, &[]).unwrap();
        crate::specialize::specialize(&graph, &bindings).unwrap()
    }

    fn result_kind(graph: &Graph, op: &str) -> DType {
        let mut nodes = graph.nodes.iter();
        let node = nodes.find(|node| node.op == op).unwrap();
        graph.ty(node.results[0]).dtype
    }

    #[test]
    fn a_variance_is_an_island() {
        let graph = parsed(
            "graph rms(x: f32[4,64], w: f32[64,8]) {
               mean = reduce_mean[axes=[1]](mul(x, x))
               scale = rsqrt(add(mean, f32[]{1e-6}))
               return matmul(mul(x, scale), w) as \"y\"
             }",
        );
        let lowered = lower_precision(&graph, DType::F16);
        assert_eq!(verify_core(&lowered), Ok(()));
        assert_eq!(result_kind(&lowered, "reduce_mean"), DType::F32);
        assert_eq!(result_kind(&lowered, "rsqrt"), DType::F32);
        assert_eq!(result_kind(&lowered, "matmul"), DType::F16);
        assert_eq!(lowered.ty(lowered.outputs[0]).dtype, DType::F32);
        let large = HostTensor::from_f32(&[4, 64], &[900.0; 256]);
        let w = HostTensor::from_f32(&[64, 8], &[0.125; 512]);
        let found = reference::run(&lowered, &[large, w]).unwrap();
        assert!(
            found[0]
                .as_slice::<f32>()
                .iter()
                .all(|value| (value - 8.0).abs() < 0.05)
        );
    }

    #[test]
    fn a_gate_is_computed_wide_and_its_channels_are_narrow() {
        let graph = parsed(
            "graph g(x: f32[1,2,4,4], w: f32[2,2]) {
               mean = reshape[shape=[1,2]](reduce_mean[axes=[2,3]](x))
               gate = reshape[shape=[1,2,1,1]](sigmoid(matmul(mean, f32[2,2]{1.0, 2.0, 3.0, 4.0})))
               return mul(x, gate) as \"y\"
             }",
        );
        let lowered = lower_precision(&graph, DType::F16);
        assert_eq!(result_kind(&lowered, "matmul"), DType::F32);
        assert_eq!(result_kind(&lowered, "sigmoid"), DType::F32);
        assert_eq!(result_kind(&lowered, "mul"), DType::F16);
    }

    #[test]
    fn a_cache_keeps_its_kind() {
        let graph = parsed(
            "graph g(past: f32[1,3,4], x: f32[1,4], w: f32[4,4]) {
               row = reshape[shape=[1,1,4]](matmul(x, w))
               keys = concat[axis=1](past, row)
               return keys, matmul(keys, w) as \"y\"
             }",
        );
        let lowered = lower_precision(&graph, DType::F16);
        assert_eq!(verify_core(&lowered), Ok(()));
        assert_eq!(result_kind(&lowered, "concat"), DType::F32);
        assert_eq!(result_kind(&lowered, "matmul"), DType::F16);
        let kept = lowered.producer(lowered.outputs[0]).unwrap().1;
        assert_eq!(kept.op, "concat");
    }

    #[test]
    fn sums_of_bytes_are_wide_and_what_they_are_scaled_to_is_narrow() {
        let graph = parsed(
            "graph g(x: i8[1,4], w: f32[2,4]) {
               sum = matmul(cast[to=f32](x), f32[4,2]{255.0, 255.0, 255.0, 255.0, 255.0, 255.0, 255.0, 255.0})
               y = relu(add(mul(add(sum, f32[]{3.0}), f32[]{1e-5}), f32[]{1.0}))
               code = cast[to=i8](clamp[low=-128.0, high=127.0](round(div(y, f32[]{0.02}))))
               return code, matmul(y, w) as \"z\"
             }",
        );
        let (lowered, islands) = lower_except(&graph, DType::F16, &Wide::new(), &Constants::default());
        assert_eq!(verify_core(&lowered), Ok(()));
        assert_eq!(result_kind(&lowered, "mul"), DType::F32);
        assert_eq!(result_kind(&lowered, "relu"), DType::F16);
        assert_eq!(result_kind(&lowered, "div"), DType::F32);
        assert_eq!(result_kind(&lowered, "round"), DType::F32);
        assert!(islands.iter().any(|island| island.reason == Reason::Integers));
        let x = HostTensor::from_slice(DType::I8, &[1, 4], &[127_i8; 4]);
        let w = HostTensor::from_f32(&[2, 4], &[0.25; 8]);
        let (expected, found) = (
            reference::run(&graph, &[x.clone(), w.clone()]).unwrap(),
            reference::run(&lowered, &[x, w]).unwrap(),
        );
        assert_eq!(expected[0], found[0]);
    }

    #[test]
    fn what_sums_by_weights_of_bytes_are_scaled_to_is_narrow() {
        let bytes: Vec<String> = (0..256).map(|n| format!("{}.0", n - 128)).collect();
        let graph = parsed(&format!(
            "graph g(x: f32[2,16]) {{
               w = f32[16,16]{{{}}}
               y = relu(mul(reshape[shape=[1, 2, 16]](matmul(x, w)), f32[]{{1e-3}}))
               return matmul(reshape[shape=[2, 16]](y), w) as \"z\"
             }}",
            bytes.join(", ")
        ));
        let lowered = lower_precision(&graph, DType::F16);
        assert_eq!(verify_core(&lowered), Ok(()));
        assert_eq!(result_kind(&lowered, "matmul"), DType::F32);
        assert_eq!(result_kind(&lowered, "mul"), DType::F32);
        assert_eq!(result_kind(&lowered, "relu"), DType::F16);
    }

    #[test]
    fn named_nodes_stay_wide() {
        let mut graph = parsed(
            "graph g(x: f32[2,4], w: f32[4,4]) {
               y = matmul(matmul(x, w), w)
               return y
             }",
        );
        graph.nodes[0].origin = vec!["first".to_owned()];
        let wide = Wide::from(["first".to_owned()]);
        let (lowered, islands) = lower_except(&graph, DType::F16, &wide, &Constants::default());
        assert_eq!(verify_core(&lowered), Ok(()));
        let kinds: Vec<DType> = lowered
            .nodes
            .iter()
            .filter(|node| node.op == "matmul")
            .map(|node| lowered.ty(node.results[0]).dtype)
            .collect();
        assert_eq!(kinds, [DType::F32, DType::F16]);
        assert_eq!(islands[0].reason, Reason::Named);
    }

    #[test]
    fn positions_keep_their_fraction() {
        let graph = parsed(
            "graph g(t: f32[2,1]) {
               return add(sin(matmul(t, f32[1,2]{1.0, 0.37})), f32[]{1.0}) as \"y\"
             }",
        );
        let lowered = lower_precision(&graph, DType::F16);
        assert_eq!(result_kind(&lowered, "matmul"), DType::F32);
        assert_eq!(verify_core(&lowered), Ok(()));
    }

    #[test]
    fn constants_stay_finite_and_infinities_infinite() {
        let mask = HostTensor::from_f32(&[3], &[-3.4e38, f32::NEG_INFINITY, 1.0]);
        let values: Vec<f64> = to_vec(&narrowed(&mask, DType::F16));
        assert_eq!(values, [-65504.0, f64::NEG_INFINITY, 1.0]);
    }

    #[test]
    fn statistics_outside_the_range_of_f16_are_kept() {
        let graph = parsed(
            "graph g(x: f32[1,2]) {
               y = batch_norm[epsilon=1e-5](x, f32[2]{1.0, 2.0}, f32[2]{0.5, 0.5}, f32[2]{1e6, 0.0}, f32[2]{1e10, 1e-9})
               return y
             }",
        );
        let x = [HostTensor::from_f32(&[1, 2], &[10.0, 0.001])];
        let expected = reference::run(&graph, &x).unwrap();
        let found = reference::run(&lower_precision(&graph, DType::F16), &x).unwrap();
        let (expected, found) = (expected[0].as_slice::<f32>(), found[0].as_slice::<f32>());
        for (expected, found) in expected.iter().zip(found) {
            assert!(
                (expected - found).abs() <= 2e-3 * expected.abs(),
                "{expected} {found}"
            );
        }
    }

    #[test]
    fn drawn_graphs_stay_sound_and_keep_their_interface() {
        for seed in 0..100 {
            let graph = graphs::core(seed, 20);
            for narrow in [DType::F16, DType::BF16] {
                let lowered = lower_precision(&graph, narrow);
                assert_eq!(verify_core(&lowered), Ok(()), "seed {seed}");
                assert_eq!(lowered.output_names, graph.output_names);
                let types = |graph: &Graph| -> Vec<TensorType> {
                    let ends = graph.inputs.iter().chain(&graph.outputs);
                    ends.map(|&value| graph.ty(value).clone()).collect()
                };
                assert_eq!(types(&lowered), types(&graph), "seed {seed}");
            }
        }
    }

    #[test]
    fn mixed_graphs_are_left_alone() {
        let graph = parsed(
            "graph g(x: f16[2]) {
               return cast[to=f16](exp(cast[to=f32](x))) as \"y\"
             }",
        );
        assert_eq!(lower_precision(&graph, DType::BF16), graph);
    }
}
