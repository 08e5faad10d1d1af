//! An order of launches in which little memory is alive.

use std::collections::{BTreeMap, BTreeSet};

use super::lifetimes::Storage;
use crate::rewrite::{FusedGraph, TensorId, TensorSource};

/// The launches of `storage` in another order: always the one next that leaves least memory alive.
/// What reads or writes the same memory keeps its order.
pub fn least_memory(fused: &FusedGraph, storage: &Storage) -> Vec<usize> {
    let mut launches = Launches::of(fused, storage);
    let mut order = Vec::with_capacity(storage.steps.len());
    while let Some(next) = launches.cheapest() {
        launches.take(next);
        order.push(storage.steps[next]);
    }
    order
}

/// The launches of `storage` in another order: each that leaves more alive than it ends is as late as what needs it
/// allows, so that what is computed in strips is done strip by strip.
pub fn as_late_as_needed(fused: &FusedGraph, storage: &Storage) -> Vec<usize> {
    let n_launches = storage.steps.len();
    let mut followers: Vec<Vec<usize>> = vec![Vec::new(); n_launches];
    for (launch, needs) in storage.needs(fused).into_iter().enumerate() {
        for other in needs {
            followers[other].push(launch);
        }
    }
    let touches = Touches::of(fused, storage);
    let mut places: Vec<usize> = (0..n_launches).collect();
    let mut order = places.clone();
    for launch in (0..n_launches).rev() {
        let next = followers[launch].iter().map(|&other| places[other]).min();
        let (from, Some(next)) = (places[launch], next) else {
            continue;
        };
        if next > from + 1 && touches.growth(launch, &places) > 0 {
            order[from..next].rotate_left(1);
            for (place, &other) in order.iter().enumerate().take(next).skip(from) {
                places[other] = place;
            }
        }
    }
    order.into_iter().map(|launch| storage.steps[launch]).collect()
}

/// Which launches touch each memory.
struct Touches {
    bytes: Vec<usize>,
    users: Vec<Vec<usize>>,
    /// Memories of each launch.
    own: Vec<Vec<usize>>,
    /// Inputs, which are there before the first launch, and what is there after the last one.
    is_born: Vec<bool>,
    is_kept: Vec<bool>,
}

impl Touches {
    fn of(fused: &FusedGraph, storage: &Storage) -> Self {
        let n_tensors = fused.tensors.len();
        let owner = |id: &TensorId| storage.owner(*id).0 as usize;
        let mut touches = Touches {
            bytes: fused.tensors.iter().map(|tensor| tensor.ty.n_bytes()).collect(),
            users: vec![Vec::new(); n_tensors],
            own: Vec::with_capacity(storage.steps.len()),
            is_born: vec![false; n_tensors],
            is_kept: vec![false; n_tensors],
        };
        for (launch, &region) in storage.steps.iter().enumerate() {
            let region = &fused.regions[region];
            let own: BTreeSet<usize> = region.inputs.iter().chain(&region.outputs).map(owner).collect();
            for &memory in &own {
                touches.users[memory].push(launch);
            }
            touches.own.push(own.into_iter().collect());
        }
        for (number, tensor) in fused.tensors.iter().enumerate() {
            let is_weight = matches!(tensor.source, TensorSource::Weight(_));
            (touches.is_born[number], touches.is_kept[number]) = (is_weight, is_weight);
        }
        for (_, id) in &fused.inputs {
            touches.is_born[owner(id)] = true;
            touches.is_kept[owner(id)] = true;
        }
        for (_, id) in &fused.outputs {
            touches.is_kept[owner(id)] = true;
        }
        touches
    }

    /// Bytes that come alive with a launch minus those that die, where launches are at `places`.
    fn growth(&self, launch: usize, places: &[usize]) -> i128 {
        let place = places[launch];
        let change = |&memory: &usize| {
            let users = || self.users[memory].iter().map(|&other| places[other]);
            let is_first = !self.is_born[memory] && users().min() == Some(place);
            let is_last = !self.is_kept[memory] && users().max() == Some(place);
            self.bytes[memory] as i128 * (i128::from(is_first) - i128::from(is_last))
        };
        self.own[launch].iter().map(change).sum()
    }
}

/// Launches by their position in the original order.
struct Launches {
    /// Memories that each launch reads and writes, each once.
    touches: Vec<Vec<TensorId>>,
    /// Launches that must come before, not taken yet.
    n_waiting_for: Vec<usize>,
    followers: Vec<Vec<usize>>,
    /// Launches that are still to touch each memory; inputs and outputs have one more.
    n_users: BTreeMap<TensorId, usize>,
    /// Memories that something was written to, or that are inputs.
    born: BTreeSet<TensorId>,
    bytes: BTreeMap<TensorId, usize>,
    taken: Vec<bool>,
}

impl Launches {
    fn of(fused: &FusedGraph, storage: &Storage) -> Self {
        let in_arena = |id: TensorId| !matches!(fused.tensor(id).source, TensorSource::Weight(_));
        let owners = |ids: &[TensorId]| -> Vec<TensorId> {
            let mut owners: Vec<TensorId> = ids.iter().map(|&id| storage.owner(id)).collect();
            owners.retain(|&id| in_arena(id));
            owners.sort();
            owners.dedup();
            owners
        };
        let n_launches = storage.steps.len();
        let mut launches = Launches {
            touches: Vec::with_capacity(n_launches),
            n_waiting_for: vec![0; n_launches],
            followers: vec![Vec::new(); n_launches],
            n_users: BTreeMap::new(),
            born: BTreeSet::new(),
            bytes: BTreeMap::new(),
            taken: vec![false; n_launches],
        };
        // For each memory its last writer, and who read it since.
        let mut last: BTreeMap<TensorId, (Option<usize>, Vec<usize>)> = BTreeMap::new();
        for (position, &number) in storage.steps.iter().enumerate() {
            let region = &fused.regions[number];
            let (reads, writes) = (owners(&region.inputs), owners(&region.outputs));
            let mut before: Vec<usize> = Vec::new();
            for id in &reads {
                let (writer, readers) = last.entry(*id).or_default();
                before.extend(*writer);
                readers.push(position);
            }
            for id in &writes {
                let (writer, readers) = last.entry(*id).or_default();
                before.extend(writer.iter().chain(readers.iter()).copied());
                (*writer, *readers) = (Some(position), Vec::new());
            }
            before.sort_unstable();
            before.dedup();
            before.retain(|&other| other != position);
            launches.n_waiting_for[position] = before.len();
            for other in before {
                launches.followers[other].push(position);
            }
            let both: Vec<TensorId> = region.inputs.iter().chain(&region.outputs).copied().collect();
            let touched = owners(&both);
            for &id in &touched {
                *launches.n_users.entry(id).or_default() += 1;
                launches.bytes.insert(id, fused.tensor(id).ty.n_bytes());
            }
            launches.touches.push(touched);
        }
        launches.keep_ports(fused, storage);
        launches
    }

    /// Inputs are there from the start, and outputs to the end.
    fn keep_ports(&mut self, fused: &FusedGraph, storage: &Storage) {
        for (_, id) in fused.inputs.iter().chain(&fused.outputs) {
            *self.n_users.entry(storage.owner(*id)).or_default() += 1;
        }
        for (_, id) in &fused.inputs {
            self.born.insert(storage.owner(*id));
        }
    }

    /// The launch that may come next and adds least to what is alive; the earliest of equals.
    fn cheapest(&self) -> Option<usize> {
        let ready = (0..self.taken.len()).filter(|&n| !self.taken[n] && self.n_waiting_for[n] == 0);
        ready.min_by_key(|&n| (self.growth(n), n))
    }

    /// Bytes that come alive minus those that die.
    fn growth(&self, launch: usize) -> i128 {
        let change = |id: &TensorId| {
            let bytes = self.bytes[id] as i128;
            let born = if self.born.contains(id) { 0 } else { bytes };
            let dies = if self.n_users[id] == 1 { bytes } else { 0 };
            born - dies
        };
        self.touches[launch].iter().map(change).sum()
    }

    fn take(&mut self, launch: usize) {
        self.taken[launch] = true;
        for id in &self.touches[launch] {
            self.born.insert(*id);
            if let Some(users) = self.n_users.get_mut(id) {
                *users -= 1;
            }
        }
        for &follower in &self.followers[launch] {
            self.n_waiting_for[follower] -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::Attrs;
    use crate::ops::build::axis_attr;
    use crate::plan::arena::lower_bound;
    use crate::plan::lifetimes::Lifetime;
    use crate::reference;
    use crate::rewrite::{DeviceRates, RuleOptions, RuleSet, fuse, run_fused};
    use crate::testing::builder::GraphBuilder;
    use crate::testing::graphs;
    use crate::tune::error_of;

    fn alive(fused: &FusedGraph, storage: &Storage) -> usize {
        let lifetimes: Vec<Lifetime> = storage.lifetimes(fused).into_iter().map(|(_, own)| own).collect();
        lower_bound(&lifetimes)
    }

    fn fused(graph: &crate::ir::Graph) -> FusedGraph {
        let rules = RuleSet::load(&RuleOptions::default()).unwrap();
        fuse(graph, &rules, DeviceRates::for_sm(90)).unwrap()
    }

    /// Branches whose wide parts are all computed before any of them is reduced.
    fn wide_branches() -> crate::ir::Graph {
        let mut builder = GraphBuilder::new("branches", 1);
        let x = builder.input(&[64, 64]);
        let wide: Vec<_> = (0..6)
            .map(|_| {
                let weight = builder.weight(&[64, 1024]);
                builder.plain("matmul", &[x, weight])
            })
            .collect();
        let narrow: Vec<_> = wide
            .into_iter()
            .map(|wide| {
                let weight = builder.weight(&[1024, 8]);
                builder.plain("matmul", &[wide, weight])
            })
            .collect();
        for value in narrow {
            builder.output(value);
        }
        builder.graph
    }

    #[test]
    fn wide_branches_are_finished_one_by_one() {
        let rules = RuleSet::load(&RuleOptions {
            disabled: vec!["horizontal".to_owned()],
            ..RuleOptions::default()
        });
        let fused = fuse(&wide_branches(), &rules.unwrap(), DeviceRates::for_sm(90)).unwrap();
        let mut steps = Storage::of(&fused).steps;
        let reads_a_region = |&number: &usize| {
            let mut inputs = fused.regions[number].inputs.iter();
            inputs.any(|id| matches!(fused.tensor(*id).source, TensorSource::Regions))
        };
        steps.sort_by_key(reads_a_region);
        let given = Storage::of(&fused).in_order(steps);
        let own = Storage::of(&fused).in_order(least_memory(&fused, &given));
        let wide = 64 * 1024 * 4;
        assert!(alive(&fused, &given) >= 6 * wide);
        assert!(alive(&fused, &own) < 2 * wide, "{}", alive(&fused, &own));
    }

    #[test]
    fn strips_are_read_before_the_next_one_is_computed() {
        let mut builder = GraphBuilder::new("strips", 1);
        let x = builder.input(&[64, 16]);
        let (wide, narrow) = (builder.weight(&[16, 512]), builder.weight(&[512, 48]));
        let strips: Vec<_> = (0..4)
            .map(|number: i64| {
                let ints = |own: [i64; 2]| crate::testing::builder::ints(&own);
                let attrs = Attrs::new()
                    .with("starts", ints([16 * number, 0]))
                    .with("ends", ints([16 * number + 16, 16]))
                    .with("steps", ints([1, 1]));
                let rows = builder.op("slice", &[x], attrs);
                let product = builder.plain("matmul", &[rows, wide]);
                let hidden = builder.op("softmax", &[product], axis_attr(1));
                let product = builder.plain("matmul", &[hidden, narrow]);
                builder.op("softmax", &[product], axis_attr(1))
            })
            .collect();
        let joined = builder.op("concat", &strips, axis_attr(0));
        builder.output(joined);
        let fused = fused(&builder.graph);
        let mut steps = Storage::of(&fused).steps;
        // All that reads the input alone comes first.
        steps.sort_by_key(|&number| {
            let mut inputs = fused.regions[number].inputs.iter();
            inputs.any(|id| matches!(fused.tensor(*id).source, TensorSource::Regions))
        });
        let given = Storage::of(&fused).in_order(steps);
        let own = Storage::of(&fused).in_order(as_late_as_needed(&fused, &given));
        let strip = 16 * 512 * 4;
        assert!(alive(&fused, &given) > 4 * strip);
        assert!(alive(&fused, &own) < 3 * strip, "{}", alive(&fused, &own));
    }

    #[test]
    fn other_orders_compute_the_same() {
        for seed in 0..12 {
            let graph = graphs::core(seed, 14);
            let fused = fused(&graph);
            let given = Storage::of(&fused);
            let orders = [least_memory, as_late_as_needed];
            let order = orders[usize::try_from(seed % 2).unwrap()](&fused, &given);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            let mut steps = given.steps.clone();
            steps.sort_unstable();
            assert_eq!(sorted, steps, "seed {seed}");
            // Regions that are not launched only relabel: they go where their operand is known.
            let mut reordered = fused.clone();
            let rest = (0..fused.regions.len()).filter(|number| !order.contains(number));
            let all: Vec<usize> = order.iter().copied().chain(rest).collect();
            reordered.regions = ready_order(&fused, &all);
            let inputs: Vec<_> = graph
                .inputs
                .iter()
                .zip(1..)
                .map(|(&input, seed)| crate::ops::random::drawn(graph.ty(input), seed))
                .collect();
            let wanted = reference::run(&graph, &inputs).unwrap();
            for (found, wanted) in run_fused(&reordered, &inputs).unwrap().iter().zip(&wanted) {
                assert!(error_of(found, wanted) < 1e-4, "seed {seed}");
            }
        }
    }

    /// The regions of `order`, each as soon as what it reads is written.
    fn ready_order(fused: &FusedGraph, order: &[usize]) -> Vec<crate::rewrite::Region> {
        let written = |id: &TensorId| matches!(fused.tensor(*id).source, TensorSource::Regions);
        let mut known: Vec<TensorId> = Vec::new();
        let mut left: Vec<usize> = order.to_vec();
        let mut regions = Vec::new();
        while !left.is_empty() {
            let next = left
                .iter()
                .position(|&number| {
                    let mut inputs = fused.regions[number].inputs.iter();
                    inputs.all(|id| !written(id) || known.contains(id))
                })
                .expect("some region can run");
            let number = left.remove(next);
            known.extend(&fused.regions[number].outputs);
            regions.push(fused.regions[number].clone());
        }
        regions
    }
}
