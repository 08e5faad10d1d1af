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

mod leads;
mod narrowing;
mod policy;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use self::leads::{integral, pinned};
use self::narrowing::{Form, Narrowing};
use super::tidy;
use crate::ir::{DType, Graph};
use crate::reference::Constants;

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
    narrowing.target.limits.clone_from(&graph.limits);
    (tidy::tidy(&narrowing.target), narrowing.islands)
}

fn holds_narrow_floats(graph: &Graph) -> bool {
    let results = graph.nodes.iter().flat_map(|node| &node.results);
    graph.inputs.iter().chain(results).any(|&value| {
        let dtype = graph.ty(value).dtype;
        dtype.is_float() && dtype.size_bytes() < 4
    })
}
