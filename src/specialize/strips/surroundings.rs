//! Which nodes around a value are computed in strips with it.

use std::collections::{BTreeMap, BTreeSet};

use crate::ir::{Graph, Node, ValueId};
use crate::ops::{self, Lowering, TileKind};

/// Who reads each value.
pub(super) struct Uses {
    users: Vec<Vec<usize>>,
    is_output: Vec<bool>,
}

impl Uses {
    pub fn of(graph: &Graph) -> Self {
        let mut uses = Uses {
            users: vec![Vec::new(); graph.values.len()],
            is_output: vec![false; graph.values.len()],
        };
        for (number, node) in graph.nodes.iter().enumerate() {
            for operand in node.operands.iter().flatten() {
                let users = &mut uses.users[operand.0 as usize];
                if users.last() != Some(&number) {
                    users.push(number);
                }
            }
        }
        for output in &graph.outputs {
            uses.is_output[output.0 as usize] = true;
        }
        uses
    }

    fn users(&self, value: ValueId) -> &[usize] {
        &self.users[value.0 as usize]
    }

    /// Whether all that read a value are among `nodes`.
    pub fn are_in(&self, value: ValueId, nodes: &BTreeSet<usize>) -> bool {
        !self.is_output[value.0 as usize] && self.users(value).iter().all(|user| nodes.contains(user))
    }
}

/// What kernels may do on the way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    /// A function of elements, or another order of them.
    Light,
    /// A choice of elements, which the kernel that reads them can make.
    Choice,
    Heavy,
}

fn weight(node: &Node) -> Weight {
    match ops::lookup(node.op).map(|def| &def.lower) {
        Some(Lowering::Map(_) | Lowering::Tile(TileKind::Map | TileKind::View, _)) => Weight::Light,
        Some(Lowering::Tile(TileKind::Index, _)) => Weight::Choice,
        Some(
            Lowering::Tile(..)
            | Lowering::Expand(_)
            | Lowering::Bounded(_)
            | Lowering::Loop
            | Lowering::Host(_),
        )
        | None => Weight::Heavy,
    }
}

fn is_light(node: &Node) -> bool {
    weight(node) == Weight::Light
}

/// The nodes around a value that are computed in strips with it.
pub(super) struct Surroundings {
    pub nodes: BTreeSet<usize>,
}

impl Surroundings {
    pub fn of(graph: &Graph, uses: &Uses, value: ValueId) -> Option<Self> {
        let (producer, _) = graph.producer(value)?;
        let mut own = Surroundings {
            nodes: BTreeSet::from([producer.0 as usize]),
        };
        own.extend_back(graph, uses, producer.0 as usize);
        own.extend_on(graph, uses, value);
        let is_closed = own.is_closed(graph);
        (uses.are_in(value, &own.nodes) && is_closed).then_some(own)
    }

    /// What leads to the value, up to the first nodes that are heavy.
    fn extend_back(&mut self, graph: &Graph, uses: &Uses, last: usize) {
        for number in (0..last).rev() {
            let results = &graph.nodes[number].results;
            let leads_through =
                |&user: &usize| self.nodes.contains(&user) && weight(&graph.nodes[user]) < Weight::Heavy;
            let leads_on = |&result: &ValueId| uses.users(result).iter().any(leads_through);
            let is_own = results.iter().all(|&result| uses.are_in(result, &self.nodes));
            if is_own && results.iter().any(leads_on) {
                self.nodes.insert(number);
            }
        }
    }

    /// All that read the value, up to the first ones that are not light, and the light ones behind these.
    fn extend_on(&mut self, graph: &Graph, uses: &Uses, value: ValueId) {
        // Values that are followed, and whether some other node than a light one has computed on them.
        let mut followed: BTreeMap<ValueId, bool> = BTreeMap::from([(value, false)]);
        for (number, node) in graph.nodes.iter().enumerate() {
            let read: Vec<ValueId> = node.operands.iter().flatten().copied().collect();
            let passed: Vec<bool> = read.iter().filter_map(|own| followed.get(own).copied()).collect();
            if passed.is_empty() {
                continue;
            }
            let users = |value: &&ValueId| followed.contains_key(*value);
            let are_light = |value: &ValueId| {
                let mut users = uses.users(*value).iter();
                users.all(|&user| is_light(&graph.nodes[user]))
            };
            let is_needed = passed.contains(&false);
            if is_needed || read.iter().filter(users).all(are_light) {
                self.nodes.insert(number);
                let has_passed = !is_light(node) || !is_needed;
                for &result in &node.results {
                    if !uses.is_output[result.0 as usize] {
                        followed.insert(result, has_passed);
                    }
                }
            }
        }
    }

    /// Whether no node needs one that comes after another of these without being among them.
    fn is_closed(&self, graph: &Graph) -> bool {
        let mut behind: BTreeSet<ValueId> = BTreeSet::new();
        let mut own: BTreeSet<ValueId> = BTreeSet::new();
        for (number, node) in graph.nodes.iter().enumerate() {
            let mut read = node.operands.iter().flatten();
            if self.nodes.contains(&number) {
                if read.any(|value| behind.contains(value)) {
                    return false;
                }
                own.extend(&node.results);
            } else if read.any(|value| own.contains(value) || behind.contains(value)) {
                behind.extend(&node.results);
            }
        }
        true
    }
}
