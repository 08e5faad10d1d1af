//! Which nodes stay in f32.

use super::Reason;
use super::leads::kind;
use super::narrowing::Narrowing;
use crate::ir::{DType, HostTensor, Node, ValueId};
use crate::ops::TileKind;
use crate::ops::evaluate::tensor_holds_bytes;

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

impl Narrowing<'_> {
    pub fn stays_wide(&self, position: usize, node: &Node) -> Option<Reason> {
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

    pub fn is_f32(&self, value: ValueId) -> bool {
        self.graph.ty(value).dtype == DType::F32
    }
}

/// Whether a constant holds integers that sums of products with them may leave the range of `f16`.
fn is_weight_of_bytes(data: &HostTensor) -> bool {
    data.dtype() == DType::F32 && tensor_holds_bytes(data)
}
