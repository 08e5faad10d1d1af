//! What the nodes of a graph lead to, and which values are integers in floats.

use super::Reason;
use crate::ir::{DType, Graph, Node, ValueId};
use crate::ops::{self, Lowering, TileKind};

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

/// Nodes that lead to the argument of a periodic function, from a mean to a gate, or from floats to
/// integers.
pub fn pinned(graph: &Graph) -> Vec<Option<Reason>> {
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
pub fn integral(graph: &Graph) -> Vec<bool> {
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

pub fn kind(node: &Node) -> Option<TileKind> {
    match &ops::lookup(node.op)?.lower {
        Lowering::Map(_) => Some(TileKind::Map),
        Lowering::Tile(kind, _) => Some(*kind),
        Lowering::Loop => Some(TileKind::Other),
        Lowering::Expand(_) | Lowering::Bounded(_) | Lowering::Host(_) => None,
    }
}
