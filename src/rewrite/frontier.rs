//! Choosing kernels: a dynamic programme over sets of tensors that are still owed.
//!
//! A state is what must still be computed. It starts as the model's outputs; the owed tensor
//! of highest rank is always paid next, by each kernel that writes it, which owes what the
//! kernel reads. Kernels read only lower ranks, so there are no cycles; a tensor owed by
//! several readers is paid once, so sharing and recomputation are priced right. The result
//! is the cheapest plan unless a layer had more states than the beam keeps: it keeps those
//! whose cost so far, and the least that what they owe must cost, is lowest.

use std::collections::BTreeMap;
use std::collections::hash_map::Entry;

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
    /// Candidates as (tensor they are listed under, number), in an order they can run in.
    pub chosen: Vec<(usize, usize)>,
    pub cost_us: f64,
    /// Whether no state was dropped: the plan is optimal for the given costs.
    pub is_exact: bool,
}

type State = Box<[u32]>;

/// How a state was reached: the cost so far, the kernel paid last and where from.
#[derive(Clone, Copy)]
struct Step {
    cost: f64,
    kernel: (usize, usize),
    from: usize,
}

const START: usize = usize::MAX;

/// The cheapest way to compute `outputs` with the candidates of each tensor.
/// `None` if some owed tensor has no candidate.
pub fn solve(candidates: &[Vec<Candidate>], outputs: &[usize], beam: usize) -> Option<Plan> {
    let mut search = Search {
        candidates,
        least: candidates.iter().map(|own| least_cost(own)).collect(),
        steps: Vec::new(),
        layers: BTreeMap::new(),
        best: None,
        is_exact: true,
    };
    let mut start: Vec<u32> = outputs.iter().map(|&tensor| index(tensor)).collect();
    start.sort_unstable();
    start.dedup();
    search.reach(start.into(), START, (0, 0), 0.0);
    while let Some((tensor, layer)) = search.layers.pop_last() {
        search.pay(tensor as usize, layer, beam);
    }
    search.plan()
}

fn index(tensor: usize) -> u32 {
    u32::try_from(tensor).expect("graphs have under 2^32 tensors")
}

/// What computing a tensor costs at least. A kernel that writes several is shared among them.
fn least_cost(candidates: &[Candidate]) -> f64 {
    let costs = candidates
        .iter()
        .map(|candidate| candidate.bound_us / as_f64(candidate.outputs.len()));
    costs.min_by(f64::total_cmp).unwrap_or(0.0)
}

struct Search<'a> {
    candidates: &'a [Vec<Candidate>],
    /// What each tensor costs at least.
    least: Vec<f64>,
    steps: Vec<Step>,
    /// Open states by their highest owed tensor, with the number of their cheapest step.
    layers: BTreeMap<u32, FxHashMap<State, usize>>,
    /// The cheapest step that leaves nothing owed.
    best: Option<usize>,
    is_exact: bool,
}

impl Search<'_> {
    /// Pays `tensor` in every state of its layer.
    fn pay(&mut self, tensor: usize, layer: FxHashMap<State, usize>, beam: usize) {
        let mut states: Vec<(f64, State, usize)> = layer
            .into_iter()
            .map(|(state, step)| (self.steps[step].cost + self.owed_cost(&state), state, step))
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
        for (_, state, step) in states {
            let candidates = self.candidates;
            for (number, candidate) in candidates[tensor].iter().enumerate() {
                let next = after(&state, candidate);
                let cost = self.steps[step].cost + candidate.bound_us;
                self.reach(next, step, (tensor, number), cost);
            }
        }
    }

    fn owed_cost(&self, state: &[u32]) -> f64 {
        state.iter().map(|&owed| self.least[owed as usize]).sum()
    }

    /// Notes a way to `state`, if it is the cheapest yet.
    fn reach(&mut self, state: State, from: usize, kernel: (usize, usize), cost: f64) {
        let number = self.steps.len();
        let steps = &self.steps;
        let is_cheaper = |known: usize| cost < steps[known].cost;
        let Some(&highest) = state.last() else {
            if self.best.is_none_or(is_cheaper) {
                self.best = Some(number);
                self.steps.push(Step { cost, kernel, from });
            }
            return;
        };
        match self.layers.entry(highest).or_default().entry(state) {
            Entry::Occupied(mut known) => {
                if !is_cheaper(*known.get()) {
                    return;
                }
                known.insert(number);
            }
            Entry::Vacant(slot) => {
                slot.insert(number);
            }
        }
        self.steps.push(Step { cost, kernel, from });
    }

    fn plan(&self) -> Option<Plan> {
        let last = self.best?;
        let mut chosen = Vec::new();
        let mut at = last;
        while self.steps[at].from != START {
            chosen.push(self.steps[at].kernel);
            at = self.steps[at].from;
        }
        Some(Plan {
            chosen,
            cost_us: self.steps[last].cost,
            is_exact: self.is_exact,
        })
    }
}

/// What is owed once `candidate` has paid for its outputs.
fn after(state: &[u32], candidate: &Candidate) -> State {
    let pays = |owed: &u32| candidate.outputs.binary_search(&(*owed as usize)).is_ok();
    let mut next: Vec<u32> = state.iter().copied().filter(|owed| !pays(owed)).collect();
    for &need in &candidate.needs {
        if let Err(place) = next.binary_search(&index(need)) {
            next.insert(place, index(need));
        }
    }
    next.into()
}
