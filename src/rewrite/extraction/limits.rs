//! Sizes that a region of each kind may have, from the `kernel` blocks of the rule files.

use std::collections::{BTreeMap, BTreeSet};

use super::contract::Shape;
use super::net::{Net, NetSource};
use super::regions::RegionKind;
use crate::rewrite::rules::ast::Kernel;

/// Largest values of what `kernel` blocks may limit; absent names are not limited.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    by_kind: BTreeMap<RegionKind, BTreeMap<String, i64>>,
}

/// What a region holds, by the names that `kernel` blocks use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measures {
    /// Distinct tensors read from memory; constants of one element are not.
    pub reads: i64,
    /// Ops inside.
    pub nodes: i64,
    /// Bytes of one row at compute precision (rows only).
    pub row_bytes: i64,
}

impl Measures {
    fn get(&self, name: &str) -> Option<i64> {
        match name {
            "reads" => Some(self.reads),
            "nodes" => Some(self.nodes),
            "row_bytes" => Some(self.row_bytes),
            _ => None,
        }
    }
}

impl Limits {
    /// The limits of `kernel` blocks. Several blocks for one kind allow what any of them does.
    pub fn from_kernels(kernels: &[Kernel]) -> Self {
        let mut limits = Limits::default();
        let mut seen: BTreeSet<RegionKind> = BTreeSet::new();
        for kernel in kernels {
            for kind in kernel
                .accepts
                .iter()
                .filter_map(|name| RegionKind::from_name(&name.text))
            {
                let own: BTreeMap<String, i64> = kernel
                    .limits
                    .iter()
                    .map(|(name, value)| (name.text.clone(), *value))
                    .collect();
                if seen.insert(kind) {
                    limits.by_kind.insert(kind, own);
                } else if let Some(known) = limits.by_kind.get_mut(&kind) {
                    known.retain(|name, _| own.contains_key(name));
                    for (name, value) in known.iter_mut() {
                        *value = (*value).max(own[name]);
                    }
                }
            }
        }
        limits
    }

    /// Whether the cone stays within the limits of its kind.
    pub fn allow(&self, net: &Net, inlined: &BTreeMap<usize, usize>, shape: &Shape) -> bool {
        let Some(limits) = self.by_kind.get(&shape.kind) else {
            return true;
        };
        let measures = measure(net, inlined, shape);
        limits
            .iter()
            .all(|(name, &limit)| measures.get(name).is_none_or(|value| value <= limit))
    }
}

fn measure(net: &Net, inlined: &BTreeMap<usize, usize>, shape: &Shape) -> Measures {
    let mut reads = Vec::new();
    for &expr in inlined.values() {
        for operand in net.exprs[expr].uses() {
            let tensor = &net.tensors[operand.tensor];
            let is_scalar = matches!(tensor.source, NetSource::Const(_)) && tensor.n_elements == 1;
            if !is_scalar && !inlined.contains_key(&operand.tensor) {
                reads.push(operand.tensor);
            }
        }
    }
    reads.sort_unstable();
    reads.dedup();
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    Measures {
        reads: count(reads.len()),
        nodes: count(inlined.len()),
        row_bytes: count(shape.row.unwrap_or(0)).saturating_mul(4),
    }
}
