//! Where an element of the product lies in the results, through the views behind it.

use std::collections::HashMap;

use super::strips::summed_in_strips;
use crate::ir::{Attr, Graph, Node, ValueId};
use crate::kernel::body::region::{extents, results};
use crate::kernel::spec::KernelSpec;
use crate::ops::{self, Lowering};
use crate::tile::index::{delinearize, linearize};
use crate::tile::{Atom, Body, Index, VarId};

pub fn place(spec: &KernelSpec, output: usize, at: &[Index], body: &Body) -> Index {
    results(spec)[output].address(at, &body.vars)
}

/// Coordinates of every value that has one element per element of `product`, where `product`
/// has coordinates `at`.
pub fn pushed_forward(
    graph: &Graph,
    product: ValueId,
    at: &[Index],
    body: &Body,
) -> Option<HashMap<ValueId, Vec<Index>>> {
    let mut known = HashMap::from([(product, at.to_vec())]);
    for node in &graph.nodes {
        let is_of_strips = summed_in_strips(graph, node.results[0]).is_some();
        if node.results.contains(&product) || is_of_strips {
            continue;
        }
        let mut from = node
            .operands
            .iter()
            .flatten()
            .filter(|value| known.contains_key(value));
        let Some(&source) = from.next() else {
            continue;
        };
        let result = node.results[0];
        if graph.ty(result).n_elements() != graph.ty(source).n_elements() {
            return None;
        }
        let moved = forward(graph, node, source, &known[&source], body)?;
        known.insert(result, moved);
    }
    Some(known)
}

/// Coordinates of the result of `node` for the element of `source` at `at`.
fn forward(graph: &Graph, node: &Node, source: ValueId, at: &[Index], body: &Body) -> Option<Vec<Index>> {
    let dims = extents(&graph.ty(node.results[0]).dims());
    match (node.op, &ops::lookup(node.op)?.lower) {
        ("reshape", _) => {
            let position = linearize(at, &extents(&graph.ty(source).dims()));
            Some(delinearize(&position, &dims, &body.vars))
        }
        ("transpose", _) => {
            let Some(Attr::Ints(perm)) = node.attrs.get("perm") else {
                return None;
            };
            perm.iter()
                .map(|&axis| at.get(usize::try_from(axis).ok()?).cloned())
                .collect()
        }
        (_, Lowering::Map(_)) => {
            let mut moved = vec![Index::zero(); dims.len().checked_sub(at.len())?];
            moved.extend_from_slice(at);
            Some(moved)
        }
        _ => None,
    }
}

/// Variables of the term of `place` that neighbours in memory differ in.
pub fn innermost(place: &Index) -> Option<Vec<VarId>> {
    let (atom, _) = place
        .terms
        .iter()
        .filter(|(_, step)| step.as_known().is_some())
        .min_by_key(|(_, step)| step.scale.unsigned_abs())?;
    let mut vars = Vec::new();
    match atom {
        Atom::Var(var) => vars.push(*var),
        Atom::Div(inner, _) | Atom::Mod(inner, _) | Atom::Clamp(inner, _) => inner.variables(&mut vars),
        Atom::Value(_) => {}
    }
    Some(vars)
}
