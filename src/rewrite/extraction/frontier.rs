//! Choosing kernels: a dynamic programme over sets of tensors that are still owed.
//!
//! A state is what must still be computed. It starts as the model's outputs; the owed tensor
//! of highest rank is always paid next, by each kernel that writes it, which owes what the
//! kernel reads. Kernels read only lower ranks, so there are no cycles; a tensor owed by
//! several readers is paid once, so sharing and recomputation are priced right. The result
//! is the cheapest plan unless a layer had more states than the beam keeps: it keeps those
//! whose cost so far, and about the least that what they owe must cost, is lowest.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::cones::Candidate;
use super::cost::as_f64;

/// States kept per layer.
pub const BEAM: usize = 256;
/// Owed tensors of all states kept per layer: where much is owed at a time, fewer states are kept.
const MAX_OWED: usize = 8_192;
/// States kept per layer, however wide.
const LEAST_BEAM: usize = 8;

/// The kernels to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// In an order they can run in.
    pub chosen: Vec<Chosen>,
    pub cost_us: f64,
    /// Whether no state was dropped: the plan is optimal for the given costs.
    pub is_exact: bool,
}

/// A kernel of the plan, and what stood against it.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// Tensor under which the candidate is listed.
    pub tensor: usize,
    /// Number of the candidate in that list.
    pub number: usize,
    /// The other candidates of the tensor, and by how much the whole plan would be slower with
    /// each, the kernels after it kept and those before it chosen anew. By rising loss.
    pub rejected: Vec<(usize, f64)>,
}

type State = Box<[u32]>;

/// The cheapest way to a state: its cost, the kernel paid last and the state before.
#[derive(Clone, Copy)]
struct Step {
    cost: f64,
    kernel: (usize, usize),
    from: usize,
}

/// The state that owes nothing.
const GOAL: usize = 0;
/// What comes before the first state.
const START: usize = usize::MAX;

/// The cheapest way to compute `outputs` with the candidates of each tensor.
/// `None` if some owed tensor has no candidate.
pub fn solve(candidates: &[Vec<Candidate>], outputs: &[usize], beam: usize) -> Option<Plan> {
    let mut search = Search {
        candidates,
        least: least_costs(candidates),
        chains: chains(candidates),
        best: vec![Step {
            cost: f64::INFINITY,
            kernel: (0, 0),
            from: START,
        }],
        layers: BTreeMap::new(),
        paid: Vec::new(),
        ways: Vec::new(),
        is_exact: true,
    };
    let mut start: Vec<u32> = outputs.iter().map(|&tensor| index(tensor)).collect();
    start.sort_unstable();
    start.dedup();
    search.reach(&start, START, (0, 0), 0.0);
    while let Some((tensor, layer)) = search.layers.pop_last() {
        search.pay(tensor as usize, layer, beam);
    }
    search.plan()
}

fn index(tensor: usize) -> u32 {
    u32::try_from(tensor).expect("graphs have under 2^32 tensors")
}

/// What computing each tensor costs at least. A kernel that writes several is shared among
/// them, but for those that come beside what it is for: they cost nothing more.
fn least_costs(candidates: &[Vec<Candidate>]) -> Vec<f64> {
    let beside = written_beside(candidates);
    let cost = |candidate: &Candidate| {
        let outputs = candidate.outputs.iter().filter(|&&output| !beside[output]);
        candidate.bound_us / as_f64(outputs.count().max(1))
    };
    let least = |(own, beside): (&Vec<Candidate>, &bool)| {
        let costs = own.iter().map(cost).filter(|_| !beside);
        costs.min_by(f64::total_cmp).unwrap_or(0.0)
    };
    candidates.iter().zip(&beside).map(least).collect()
}

/// The kernels that must run one after the other until a tensor is there.
#[derive(Clone, Copy, Debug)]
struct Chain {
    /// Of the cheapest of the longest chains.
    cost: f64,
    /// What the last of them reads that takes longest.
    below: Option<u32>,
}

/// The chain of each tensor. Kernels read only lower ranks.
fn chains(candidates: &[Vec<Candidate>]) -> Vec<Chain> {
    let mut chains: Vec<Chain> = Vec::with_capacity(candidates.len());
    for own in candidates {
        let chain = |candidate: &Candidate| {
            let needs = candidate.needs.iter();
            let deepest = needs.max_by(|a, b| chains[**a].cost.total_cmp(&chains[**b].cost));
            Chain {
                cost: candidate.bound_us + deepest.map_or(0.0, |&need| chains[need].cost),
                below: deepest.map(|&need| index(need)),
            }
        };
        let shortest = own.iter().map(chain).min_by(|a, b| a.cost.total_cmp(&b.cost));
        chains.push(shortest.unwrap_or(Chain {
            cost: 0.0,
            below: None,
        }));
    }
    chains
}

/// Tensors that some kernel of another one writes, too.
fn written_beside(candidates: &[Vec<Candidate>]) -> Vec<bool> {
    let mut beside = vec![false; candidates.len()];
    for (tensor, own) in candidates.iter().enumerate() {
        for candidate in own.iter().filter(|candidate| candidate.outputs.len() > 1) {
            for &output in candidate.outputs.iter().filter(|&&output| output != tensor) {
                let mut others = candidates[output].iter();
                beside[output] |= others.all(|other| other.outputs != candidate.outputs);
            }
        }
    }
    beside
}

struct Search<'a> {
    candidates: &'a [Vec<Candidate>],
    /// What each tensor costs at least.
    least: Vec<f64>,
    /// And with what has to be computed before it.
    chains: Vec<Chain>,
    /// By number of the state.
    best: Vec<Step>,
    /// Open states by their highest owed tensor, with their numbers.
    layers: BTreeMap<u32, FxHashMap<State, usize>>,
    /// In the order in which they were paid.
    paid: Vec<Paid>,
    /// For each state paid, the state that each candidate of its tensor leads to, in order.
    ways: Vec<u32>,
    is_exact: bool,
}

/// A state of which a tensor was paid.
struct Paid {
    state: usize,
    tensor: usize,
    first_way: usize,
}

impl Search<'_> {
    /// Pays `tensor` in every state of its layer.
    fn pay(&mut self, tensor: usize, layer: FxHashMap<State, usize>, beam: usize) {
        let mut states: Vec<(f64, State, usize)> = layer
            .into_iter()
            .map(|(state, number)| (self.best[number].cost + self.owed_cost(&state), state, number))
            .collect();
        states.sort_unstable_by(|(cost_a, a, _), (cost_b, b, _)| {
            cost_a.total_cmp(cost_b).then_with(|| a.cmp(b))
        });
        let widest = states.iter().map(|(_, state, _)| state.len()).max().unwrap_or(1);
        let beam = beam.min((MAX_OWED / widest.max(1)).max(LEAST_BEAM));
        if states.len() > beam {
            states.truncate(beam);
            self.is_exact = false;
        }
        let mut next = Vec::new();
        for (_, state, from) in states {
            self.paid.push(Paid {
                state: from,
                tensor,
                first_way: self.ways.len(),
            });
            let candidates = self.candidates;
            for (number, candidate) in candidates[tensor].iter().enumerate() {
                after(&state, candidate, &mut next);
                let cost = self.best[from].cost + candidate.bound_us;
                let reached = self.reach(&next, from, (tensor, number), cost);
                self.ways.push(index(reached));
            }
        }
    }

    /// About the least that a state still costs: the longest chain below what it owes, and what
    /// else it owes. Without the chain, states would look cheap that put off what others paid.
    fn owed_cost(&self, state: &[u32]) -> f64 {
        let chain = |owed: &u32| self.chains[*owed as usize].cost;
        let by_chain = |a: &&u32, b: &&u32| chain(a).total_cmp(&chain(b));
        let Some((&deepest, &lowest)) = state.iter().max_by(by_chain).zip(state.first()) else {
            return 0.0;
        };
        let mut cost: f64 = state.iter().map(|&owed| self.least[owed as usize]).sum();
        let mut on_chain = Some(deepest);
        while let Some(tensor) = on_chain.filter(|tensor| *tensor >= lowest) {
            if state.binary_search(&tensor).is_ok() {
                cost -= self.least[tensor as usize];
            }
            on_chain = self.chains[tensor as usize].below;
        }
        cost + chain(&deepest)
    }

    /// Notes a way to `state`, if it is the cheapest yet; gives the number of the state.
    fn reach(&mut self, state: &[u32], from: usize, kernel: (usize, usize), cost: f64) -> usize {
        let number = match state.last() {
            None => GOAL,
            Some(&highest) => self.number_of(state, highest),
        };
        if cost < self.best[number].cost {
            self.best[number] = Step { cost, kernel, from };
        }
        number
    }

    /// The number of a state whose highest owed tensor is `highest`. Most states that are reached are known.
    fn number_of(&mut self, state: &[u32], highest: u32) -> usize {
        let layer = self.layers.entry(highest).or_default();
        if let Some(&known) = layer.get(state) {
            return known;
        }
        layer.insert(state.into(), self.best.len());
        self.best.push(Step {
            cost: f64::INFINITY,
            kernel: (0, 0),
            from: START,
        });
        self.best.len() - 1
    }

    fn plan(&self) -> Option<Plan> {
        let cost_us = self.best[GOAL].cost;
        if cost_us.is_infinite() {
            return None;
        }
        let to_go = self.to_go();
        let places: FxHashMap<usize, usize> = self
            .paid
            .iter()
            .enumerate()
            .map(|(place, paid)| (paid.state, place))
            .collect();
        let mut chosen = Vec::new();
        let mut at = GOAL;
        while self.best[at].from != START {
            let Step { kernel, from, .. } = self.best[at];
            let mut rejected: Vec<(usize, f64)> = self
                .losses(&self.paid[places[&from]], &to_go, cost_us)
                .filter(|(number, loss)| *number != kernel.1 && loss.is_finite())
                .collect();
            rejected.sort_by(|(a, less), (b, more)| less.total_cmp(more).then(a.cmp(b)));
            chosen.push(Chosen {
                tensor: kernel.0,
                number: kernel.1,
                rejected,
            });
            at = from;
        }
        Some(Plan {
            chosen,
            cost_us,
            is_exact: self.is_exact,
        })
    }

    /// What every state still costs at least. Ways lead to states that are paid later, or never.
    fn to_go(&self) -> Vec<f64> {
        let mut to_go = vec![f64::INFINITY; self.best.len()];
        to_go[GOAL] = 0.0;
        for paid in self.paid.iter().rev() {
            let costs = self
                .ways_of(paid)
                .map(|(candidate, next)| candidate.bound_us + to_go[next]);
            to_go[paid.state] = costs.fold(f64::INFINITY, f64::min);
        }
        to_go
    }

    /// By how much the plan is slower with each candidate of a state on its way.
    fn losses<'s>(
        &'s self,
        paid: &'s Paid,
        to_go: &'s [f64],
        cost_us: f64,
    ) -> impl Iterator<Item = (usize, f64)> + 's {
        let so_far = self.best[paid.state].cost;
        let costs = self
            .ways_of(paid)
            .map(|(candidate, next)| candidate.bound_us + to_go[next]);
        costs
            .enumerate()
            .map(move |(number, cost)| (number, (so_far + cost - cost_us).max(0.0)))
    }

    /// Candidates of the tensor that a state pays, and the states they lead to.
    fn ways_of(&self, paid: &Paid) -> impl Iterator<Item = (&Candidate, usize)> {
        let candidates = &self.candidates[paid.tensor];
        let ways = &self.ways[paid.first_way..paid.first_way + candidates.len()];
        candidates.iter().zip(ways.iter().map(|&next| next as usize))
    }
}

/// Makes `next` what is owed once `candidate` has paid for its outputs.
fn after(state: &[u32], candidate: &Candidate, next: &mut Vec<u32>) {
    let pays = |owed: &u32| candidate.outputs.binary_search(&(*owed as usize)).is_ok();
    next.clear();
    next.extend(state.iter().copied().filter(|owed| !pays(owed)));
    for &need in &candidate.needs {
        if let Err(place) = next.binary_search(&index(need)) {
            next.insert(place, index(need));
        }
    }
}
