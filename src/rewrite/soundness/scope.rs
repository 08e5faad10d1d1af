//! Every small instance: all extents from one to three, and all permutations and axes.

use std::collections::BTreeSet;

use super::roles::{Role, Roles};
use super::vary::{Instance, int, rank, signed, types};
use crate::ir::TensorType;
use crate::rewrite::rules::ast::{Expr, ExprKind, TestValue};

/// Extents in scope.
const LARGEST: usize = 3;
/// Instances of one pinned line; more are cut off, and the report says so.
pub const MAX_INSTANCES: usize = 20_000;
/// Up to this many axes, each has an extent of its own; beyond, equal extents stay equal.
const MAX_FREE_AXES: usize = 5;

/// The small instances of one pinned line, and whether these are all.
pub fn instances(pinned: &Instance, roles: &Roles) -> (Vec<Instance>, bool) {
    let n_axes: usize = types(pinned).map(|ty| ty.dims().len()).sum();
    let distinct: BTreeSet<usize> = types(pinned).flat_map(TensorType::dims).collect();
    let distinct: Vec<usize> = distinct.into_iter().collect();
    let n_free = if n_axes <= MAX_FREE_AXES {
        n_axes
    } else {
        distinct.len()
    };
    let mut all = Vec::new();
    for code in 0..LARGEST.saturating_pow(u32::try_from(n_free).unwrap_or(u32::MAX)) {
        let extent = |position: usize| 1 + code / LARGEST.pow(u32::try_from(position).unwrap_or(0)) % LARGEST;
        let sized = if n_axes <= MAX_FREE_AXES {
            with_extents(pinned, &mut |position, _| extent(position))
        } else {
            let place = |own: usize| distinct.iter().position(|extent| *extent == own).unwrap_or(0);
            with_extents(pinned, &mut |_, own| extent(place(own)))
        };
        with_attributes(sized, roles, &mut all);
        if all.len() > MAX_INSTANCES {
            all.truncate(MAX_INSTANCES);
            return (all, false);
        }
    }
    (all, true)
}

/// `pinned` with every extent replaced; `new` is given the number of the axis and its extent.
/// Dims in attributes follow the extents that they name.
fn with_extents(pinned: &Instance, new: &mut dyn FnMut(usize, usize) -> usize) -> Instance {
    let mut position = 0;
    let mut instance = pinned.clone();
    for entry in instance.iter_mut().flatten() {
        let types: &mut [TensorType] = match &mut entry.value {
            TestValue::Input { ty, .. } | TestValue::Constant { ty, value: None, .. } => {
                std::slice::from_mut(ty)
            }
            TestValue::Inputs(types) => types,
            TestValue::Constant { .. }
            | TestValue::Absent
            | TestValue::Attr(_)
            | TestValue::Attrs(_)
            | TestValue::Op(..) => &mut [],
        };
        for ty in types {
            let dims: Vec<usize> = ty
                .dims()
                .into_iter()
                .map(|extent| {
                    position += 1;
                    new(position - 1, extent)
                })
                .collect();
            *ty = TensorType::new(ty.dtype, &dims);
        }
    }
    instance
}

/// `sized` with every choice of its attributes.
fn with_attributes(sized: Instance, roles: &Roles, into: &mut Vec<Instance>) {
    let mut open = vec![sized];
    let entries: Vec<(usize, usize)> = open[0]
        .iter()
        .enumerate()
        .flat_map(|(line, entries)| (0..entries.len()).map(move |entry| (line, entry)))
        .collect();
    for (line, entry) in entries {
        let mut next = Vec::new();
        for instance in open {
            let own = &instance[line][entry];
            let TestValue::Attr(value) = &own.value else {
                next.push(instance);
                continue;
            };
            for choice in choices(roles.of_name(&own.name.text), value, &instance) {
                let mut chosen = instance.clone();
                chosen[line][entry].value = TestValue::Attr(choice);
                next.push(chosen);
            }
        }
        open = next;
        open.truncate(MAX_INSTANCES);
    }
    into.extend(open);
}

fn choices(role: Role, value: &Expr, instance: &Instance) -> Vec<Expr> {
    let rank = rank(instance);
    let list = |ints: Vec<i64>| Expr {
        kind: ExprKind::List(ints.into_iter().map(int).collect()),
        span: value.span,
    };
    match (role, &value.kind) {
        (Role::Permutation, ExprKind::List(items)) => {
            permutations(items.len()).into_iter().map(list).collect()
        }
        (Role::Axis, ExprKind::Int(_)) => (0..signed(rank.max(1))).map(int).collect(),
        (Role::Axes, ExprKind::List(_)) => (1u32..1 << rank.min(4))
            .map(|set| list((0..signed(rank)).filter(|axis| set >> axis & 1 == 1).collect()))
            .collect(),
        (Role::Extents, ExprKind::List(items)) => {
            shapes(items.len(), instance).into_iter().map(list).collect()
        }
        _ => vec![value.clone()],
    }
}

/// All orders of `0..n`.
fn permutations(n: usize) -> Vec<Vec<i64>> {
    let mut all = vec![Vec::new()];
    for _ in 0..n.min(5) {
        all = all
            .into_iter()
            .flat_map(|begun: Vec<i64>| {
                let rest: Vec<i64> = (0..signed(n)).filter(|axis| !begun.contains(axis)).collect();
                rest.into_iter()
                    .map(move |axis| [begun.clone(), vec![axis]].concat())
            })
            .collect();
    }
    all
}

/// Dims of a rank that hold as many elements as a tensor of the instance, or broadcast it.
fn shapes(rank: usize, instance: &Instance) -> Vec<Vec<i64>> {
    let counts: BTreeSet<usize> = types(instance).map(TensorType::n_elements).collect();
    let mut all: BTreeSet<Vec<i64>> = BTreeSet::new();
    for count in counts {
        factorised(count, rank.min(4), &mut Vec::new(), &mut all);
    }
    for dims in types(instance)
        .map(TensorType::dims)
        .filter(|dims| dims.len() <= rank)
    {
        let mut wide = vec![2; rank - dims.len()];
        wide.extend(
            dims.iter()
                .map(|&extent| if extent == 1 { 3 } else { signed(extent) }),
        );
        all.insert(wide);
    }
    all.into_iter().collect()
}

fn factorised(count: usize, rank: usize, begun: &mut Vec<i64>, into: &mut BTreeSet<Vec<i64>>) {
    if rank == 0 {
        if count == 1 {
            into.insert(begun.clone());
        }
        return;
    }
    for factor in (1..=count).filter(|factor| count.is_multiple_of(*factor)) {
        begun.push(signed(factor));
        factorised(count / factor, rank - 1, begun, into);
        begun.pop();
    }
}
