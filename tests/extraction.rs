//! Choosing kernels: the frontier search against trying everything, on drawn graphs.

#![cfg(feature = "builder")]

use rtrt_codegen::ir::{Attr, Attrs, Graph};
use rtrt_codegen::rewrite::canonicalize::canonicalize;
use rtrt_codegen::rewrite::egraph::saturate::saturate;
use rtrt_codegen::rewrite::egraph::tabulate::tabulate;
use rtrt_codegen::rewrite::egraph::term_graph::TermGraph;
use rtrt_codegen::rewrite::extraction::cones::{self, Candidate};
use rtrt_codegen::rewrite::extraction::frontier::{self, Plan};
use rtrt_codegen::rewrite::extraction::limits::Limits;
use rtrt_codegen::rewrite::{DeviceRates, RuleSet};
use rtrt_codegen::testing::builder::{GraphBuilder, drawn_graph};

/// More tensors have too many subsets to try.
const MAX_TENSORS: usize = 18;
/// Sums of the same costs in another order.
const ROUNDING: f64 = 1e-9;

/// Candidates of every tensor, and the tensors that the outputs are.
struct Choices {
    candidates: Vec<Vec<Candidate>>,
    owed: Vec<usize>,
}

impl Choices {
    fn of(graph: &Graph) -> Self {
        let rules = RuleSet::builtin();
        let mut terms = TermGraph::new(graph);
        saturate(&mut terms, rules).unwrap();
        let net = tabulate(&terms).net;
        let limits = Limits::from_kernels(&rules.kernels);
        let candidates = cones::enumerate(&net, &limits, DeviceRates::for_sm(90));
        let mut owed = net.outputs.clone();
        owed.retain(|&place| net.tensors[place].is_device());
        owed.sort_unstable();
        owed.dedup();
        Choices { candidates, owed }
    }

    /// Tensors that the device may have to compute.
    fn tensors(&self) -> Vec<usize> {
        (0..self.candidates.len())
            .filter(|&place| !self.candidates[place].is_empty())
            .collect()
    }

    fn solve(&self) -> Plan {
        frontier::solve(&self.candidates, &self.owed, frontier::BEAM).unwrap()
    }

    /// The least cost over every set of tensors that may be written to memory.
    fn least_cost(&self) -> f64 {
        let tensors = self.tensors();
        let bit = |tensor: &usize| 1u32 << tensors.iter().position(|own| own == tensor).unwrap();
        let bits = |all: &[usize]| all.iter().map(bit).sum::<u32>();
        let kernels: Vec<(u32, u32, f64)> = self
            .candidates
            .iter()
            .flatten()
            .map(|kernel| (bits(&kernel.outputs), bits(&kernel.needs), kernel.bound_us))
            .collect();
        let owed = bits(&self.owed);
        let sets = (0..1u32 << tensors.len()).filter(|set| set & owed == owed);
        sets.map(|set| cover(set, set, &kernels))
            .fold(f64::INFINITY, f64::min)
    }
}

/// The least cost of kernels that write every tensor of `left` and read none outside `stored`.
fn cover(left: u32, stored: u32, kernels: &[(u32, u32, f64)]) -> f64 {
    if left == 0 {
        return 0.0;
    }
    let highest = 1 << left.ilog2();
    let fitting = kernels
        .iter()
        .filter(|(writes, reads, _)| writes & highest != 0 && reads & !stored == 0);
    // Of kernels that write only this tensor the cheapest will do: what is left is the same.
    let single = fitting
        .clone()
        .filter(|(writes, ..)| *writes == highest)
        .map(|(.., cost)| *cost)
        .fold(f64::INFINITY, f64::min);
    let alone = if single.is_finite() {
        single + cover(left & !highest, stored, kernels)
    } else {
        single
    };
    let several = fitting.filter(|(writes, ..)| *writes != highest);
    several
        .map(|(writes, _, cost)| cost + cover(left & !writes, stored, kernels))
        .fold(alone, f64::min)
}

fn drawn(seed: u64) -> Graph {
    let n_nodes = 1 + usize::try_from(seed).unwrap() % 14;
    drawn_graph(n_nodes, seed).graph
}

#[test]
fn the_plan_is_the_best_there_is() {
    let (mut n_tried, mut n_shared) = (0, 0);
    for seed in 0..240 {
        let graph = drawn(seed);
        let choices = Choices::of(&graph);
        if choices.tensors().len() > MAX_TENSORS {
            continue;
        }
        n_tried += 1;
        let plan = choices.solve();
        assert!(plan.is_exact, "seed {seed}");
        let least = choices.least_cost();
        let found = plan.cost_us;
        assert!(
            (found - least).abs() <= ROUNDING * least,
            "seed {seed}: {found} us, best {least} us"
        );
        let chosen = plan
            .chosen
            .iter()
            .map(|own| &choices.candidates[own.tensor][own.number]);
        n_shared += usize::from(chosen.flat_map(|kernel| &kernel.needs).count() > plan.chosen.len());
    }
    assert!(n_tried >= 200, "only {n_tried} graphs are small enough");
    assert!(n_shared >= 5, "only {n_shared} plans share a tensor");
}

/// What a rejected candidate costs: at least what the best plan with it costs more, and just
/// that where nothing was decided before.
#[test]
fn rejected_candidates_lose_what_they_are_said_to() {
    let mut n_compared = 0;
    for seed in 0..120 {
        let choices = Choices::of(&drawn(seed));
        let plan = choices.solve();
        for (position, chosen) in plan.chosen.iter().enumerate() {
            let is_first_decision = position + 1 == plan.chosen.len();
            for &(number, loss) in &chosen.rejected {
                let mut forced = choices.candidates.clone();
                let only = forced[chosen.tensor][number].clone();
                let others = only.outputs.clone();
                for output in others {
                    forced[output].retain(|kernel| *kernel == only);
                }
                let forced = frontier::solve(&forced, &choices.owed, frontier::BEAM).unwrap();
                let real = forced.cost_us - plan.cost_us;
                assert!(
                    loss >= real - ROUNDING * plan.cost_us,
                    "seed {seed}: {loss} us, forced {real} us"
                );
                if is_first_decision {
                    n_compared += 1;
                    assert!(
                        (loss - real).abs() <= ROUNDING * forced.cost_us,
                        "seed {seed}: {loss}, {real}"
                    );
                }
            }
        }
    }
    assert!(
        n_compared >= 30,
        "only {n_compared} first decisions had an alternative"
    );
}

/// Nodes of the e-graph after lowering and fusing.
fn n_enodes(graph: &Graph) -> usize {
    let mut terms = TermGraph::new(&canonicalize(graph, RuleSet::builtin()));
    let tally = saturate(&mut terms, RuleSet::builtin()).unwrap();
    assert!(!tally.ran_out);
    terms.n_nodes()
}

#[test]
fn residual_chains_grow_the_e_graph_in_proportion() {
    let chain = |n_blocks: usize| {
        let mut g = GraphBuilder::new("chain", 2);
        let mut x = g.input(&[4, 16]);
        for _ in 0..n_blocks {
            let w = g.weight(&[16, 16]);
            let y = g.plain("matmul", &[x, w]);
            let y = g.plain("tanh", &[y]);
            let y = g.op("softmax", &[y], Attrs::new().with("axis", Attr::Int(1)));
            x = g.plain("add", &[x, y]);
        }
        g.output(x);
        n_enodes(&g.graph)
    };
    // Three blocks of four ops.
    let twelve_ops = chain(3);
    assert!(twelve_ops <= 150, "{twelve_ops} nodes");
    let per_block = (chain(30) - twelve_ops) / 27;
    assert!(per_block <= 50, "{per_block} nodes per block of four ops");
}
