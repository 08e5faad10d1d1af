//! Applies `~>` rules to a graph until none matches: the steps before the e-graph.
//!
//! Phases run in order (canonical, recognize, algebra, layout), each with the rules of the
//! earlier ones, so that what one phase leaves is brought into canonical form again. A rule
//! fires only if the replacement has the type of what it replaces. Constants are folded as
//! they appear where they are small, and all of them at the end.

pub mod compact;
pub mod construct;
pub mod enabling;
pub mod match_graph;
pub mod work_graph;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;

use rustc_hash::FxHashSet;

use self::construct::{Marks, construct};
use self::match_graph::{Match, NearMiss, depth, find, heads, near_miss};
use self::work_graph::{WorkGraph, value_of};
use crate::ir::{DType, Graph, Node, NodeId, TensorType, ValueId};
use crate::reference::Constants;
use crate::rewrite::conditions::facts::Bindings;
use crate::rewrite::rules::ast::{Arrow, Phase, Rule};
use crate::rewrite::rules::set::RuleSet;

/// How often each rule fired, by name.
pub type Fired = BTreeMap<String, usize>;

/// `graph` in the form that the e-graph starts from.
pub fn canonicalize(graph: &Graph, rules: &RuleSet) -> Graph {
    canonicalize_counting(graph, rules).0
}

/// As [`canonicalize`], where constants that `constants` has seen are not folded again.
pub fn canonicalize_again(graph: &Graph, rules: &RuleSet, constants: &Constants) -> Graph {
    run_phases(graph, rules, constants, None).0
}

/// As [`canonicalize`], with what fired.
pub fn canonicalize_counting(graph: &Graph, rules: &RuleSet) -> (Graph, Fired) {
    run_phases(graph, rules, &Constants::default(), None)
}

/// Is told of one rule as it runs.
pub trait Watch {
    fn rules(&self) -> &RuleSet;
    fn rule(&self) -> &Rule;
    /// It fired on these nodes, which are still there.
    fn fired(&mut self, work: &WorkGraph, nodes: &[NodeId], names: &Bindings);
    /// It does not fire here when its phase is over.
    fn missed(&mut self, work: &WorkGraph, miss: NearMiss);
}

/// As [`canonicalize`], telling `watch` of its rule.
pub fn canonicalize_watched(graph: &Graph, rules: &RuleSet, watch: &mut dyn Watch) -> Graph {
    run_phases(graph, rules, &Constants::default(), Some(watch)).0
}

fn run_phases(
    graph: &Graph,
    rules: &RuleSet,
    constants: &Constants,
    watch: Option<&mut dyn Watch>,
) -> (Graph, Fired) {
    let mut rewriter = Rewriter {
        work: WorkGraph::new(self::compact::compact(graph.clone())),
        constants,
        fired: Fired::new(),
        watch,
    };
    let phases = [Phase::Canonical, Phase::Recognize, Phase::Algebra, Phase::Layout];
    for phase in phases {
        let active: Vec<&Rule> = phases
            .iter()
            .take_while(|earlier| **earlier <= phase)
            .flat_map(|earlier| {
                rules
                    .rules
                    .iter()
                    .filter(move |rule| rule.header.phase == *earlier)
            })
            .filter(|rule| rule.arrow == Arrow::Replace)
            .collect();
        rewriter.run(&active, phase);
        rewriter.tell_misses(phase);
    }
    rewriter.fold_all();
    (rewriter.work.finish(), rewriter.fired)
}

/// An imported model after the rules of the model phases. Types of its values need not be known.
///
/// A graph with control flow is left as it is: bodies read values of the graph by name, so that
/// no value can be known to have lost its last reader.
pub fn rewrite_model(graph: &Graph, rules: &RuleSet) -> Graph {
    rewrite_model_watched(graph, rules, None).0
}

/// As [`rewrite_model`], with what fired, telling `watch` of its rule.
pub fn rewrite_model_watched(
    graph: &Graph,
    rules: &RuleSet,
    watch: Option<&mut dyn Watch>,
) -> (Graph, Fired) {
    let until = |phase: Phase| -> Vec<&Rule> {
        let active = rules.rules.iter().filter(|rule| rule.header.phase <= phase);
        active.collect()
    };
    let all = until(Phase::ModelRest);
    let applies = |node: &Node| all.iter().any(|rule| heads(rule, node.op));
    if graph.nodes.iter().any(|node| node.bodies().next().is_some()) || !graph.nodes.iter().any(applies) {
        return (graph.clone(), Fired::new());
    }
    let constants = Constants::default();
    let mut rewriter = Rewriter {
        work: WorkGraph::for_phase(self::compact::compact(graph.clone()), Phase::Model),
        constants: &constants,
        fired: Fired::new(),
        watch,
    };
    for phase in [Phase::Model, Phase::ModelRest] {
        rewriter.run(&until(phase), phase);
        rewriter.tell_misses(phase);
    }
    (rewriter.work.finish(), rewriter.fired)
}

/// What became of a rule at one place.
#[derive(Debug)]
pub enum Once {
    Rewritten(Graph),
    /// The left side or a condition does not hold there.
    NoMatch,
    /// An op of the right side does not accept its operands, or an attribute cannot be computed.
    NotBuilt,
    /// The right side is the value that is there already.
    Unchanged,
    /// The right side has this type, which is not that of the left one.
    OtherType(TensorType),
    /// The right side reads the value that it is to replace.
    Circular,
}

/// `graph` with `rule` applied once at the node of its first output.
pub fn apply_once(graph: &Graph, rule: &Rule) -> Once {
    let Some(&root) = graph.outputs.first() else {
        return Once::NoMatch;
    };
    let constants = Constants::default();
    let mut rewriter = Rewriter {
        work: WorkGraph::for_phase(graph.clone(), rule.header.phase),
        constants: &constants,
        fired: Fired::new(),
        watch: None,
    };
    match rewriter.apply(rule, root) {
        Outcome::Replaced => Once::Rewritten(rewriter.work.finish()),
        Outcome::NoMatch => Once::NoMatch,
        Outcome::NotBuilt => Once::NotBuilt,
        Outcome::Unchanged => Once::Unchanged,
        Outcome::OtherType(ty) => Once::OtherType(ty),
        Outcome::Circular => Once::Circular,
    }
}

enum Outcome {
    Replaced,
    NoMatch,
    NotBuilt,
    Unchanged,
    OtherType(TensorType),
    Circular,
}

struct Rewriter<'c, 'w> {
    work: WorkGraph,
    constants: &'c Constants,
    fired: Fired,
    watch: Option<&'w mut dyn Watch>,
}

impl Rewriter<'_, '_> {
    /// Applies `rules` until none matches, at most a bounded number of times.
    fn run(&mut self, rules: &[&Rule], phase: Phase) {
        let reach = rules.iter().map(|rule| depth(&rule.left)).max().unwrap_or(0);
        let mut by_op = RulesByOp {
            rules,
            found: HashMap::new(),
        };
        let mut queue = Queue::default();
        for id in self.work.node_ids() {
            queue.push(id);
        }
        let mut fuel = 1000 + 50 * self.work.graph.nodes.len();
        while let Some(id) = queue.pop() {
            let first_new = self.work.graph.nodes.len();
            if !self.work.is_alive(id) || !self.step(id, &by_op.of(self.work.graph.node(id).op)) {
                continue;
            }
            fuel -= 1;
            if fuel == 0 {
                let most = self.fired.iter().max_by_key(|(_, count)| **count);
                tracing::warn!(phase = phase.name(), ?most, "rewriting was cut short");
                return;
            }
            let mut changed = self.work.take_changed();
            changed.extend(self.work.node_ids().skip(first_new));
            self.requeue(changed, reach, &mut queue);
        }
    }

    /// Folds the node, or applies the first rule that matches it.
    fn step(&mut self, id: NodeId, rules: &[&Rule]) -> bool {
        if !self.work.keeps_forms() && self.work.fold(id, is_small, self.constants) {
            return true;
        }
        let [result] = self.work.graph.node(id).results[..] else {
            return false;
        };
        rules
            .iter()
            .any(|rule| matches!(self.apply(rule, result), Outcome::Replaced))
    }

    fn apply(&mut self, rule: &Rule, root: ValueId) -> Outcome {
        let Some(found) = find(&self.work, rule, root) else {
            return Outcome::NoMatch;
        };
        let marks = self.marks(rule, &found);
        let ty = self.work.graph.value(root).ty.clone();
        let dtype = ty.as_ref().map_or(DType::F32, |ty| ty.dtype);
        let n_nodes = self.work.graph.nodes.len();
        let built = construct(&mut self.work, &rule.right, &found.bindings, dtype, &marks);
        let outcome = match built {
            None => Outcome::NotBuilt,
            Some(new) if new == root => Outcome::Unchanged,
            Some(new) if self.work.graph.value(new).ty != ty => {
                let other = self.work.graph.value(new).ty.clone();
                other.map_or(Outcome::NotBuilt, Outcome::OtherType)
            }
            Some(new) if self.reads(new, root, &found) => Outcome::Circular,
            Some(new) => {
                self.tell_fired(rule, &found);
                self.work.replace(root, new);
                *self.fired.entry(rule.header.name.text.clone()).or_default() += 1;
                Outcome::Replaced
            }
        };
        self.sweep(n_nodes);
        outcome
    }

    /// Whether `value`, built for a match at `root`, is computed from `root`. What the match
    /// names lies before its root, so the search ends there.
    fn reads(&self, value: ValueId, root: ValueId, found: &Match) -> bool {
        let named: FxHashSet<ValueId> = found
            .bindings
            .iter()
            .flat_map(|(_, own)| own.values())
            .map(value_of)
            .collect();
        let mut open = vec![value];
        while let Some(value) = open.pop() {
            if value == root {
                return true;
            }
            if let (false, Some((_, node))) = (named.contains(&value), self.work.maker(value)) {
                open.extend(node.operands.iter().flatten());
            }
        }
        false
    }

    fn tell_fired(&mut self, rule: &Rule, found: &Match) {
        if let Some(watch) = &mut self.watch
            && watch.rule().header.name.text == rule.header.name.text
        {
            watch.fired(&self.work, &found.nodes, &found.bindings);
        }
    }

    /// Where the watched rule nearly fires, if this is its phase.
    fn tell_misses(&mut self, phase: Phase) {
        let Some(watch) = &mut self.watch else { return };
        if watch.rule().header.phase != phase {
            return;
        }
        for id in self.work.node_ids() {
            let node = self.work.graph.node(id);
            let [result] = node.results[..] else { continue };
            if !self.work.is_alive(id) || !heads(watch.rule(), node.op) {
                continue;
            }
            if let Some(miss) = near_miss(&self.work, watch.rules(), watch.rule(), result) {
                watch.missed(&self.work, miss);
            }
        }
    }

    /// Removes nodes from number `first` on that nothing reads.
    fn sweep(&mut self, first: usize) {
        let ids: Vec<NodeId> = self.work.node_ids().skip(first).collect();
        for id in ids.into_iter().rev() {
            let result = self.work.graph.node(id).results[0];
            self.work.remove_if_unused(result);
        }
    }

    /// New nodes come from where the matched ones came from, and by the same rules.
    fn marks(&self, rule: &Rule, found: &Match) -> Marks {
        let nodes = || found.nodes.iter().rev().map(|&id| self.work.graph.node(id));
        let name = &rule.header.name.text;
        Marks {
            origin: union(nodes().flat_map(|node| &node.origin)),
            rules: union(nodes().flat_map(|node| &node.rules).chain([name])),
        }
    }

    /// Queues `changed` and what reads it, as far down as a left side can look up.
    fn requeue(&self, changed: Vec<NodeId>, reach: usize, queue: &mut Queue) {
        let mut seen: FxHashSet<NodeId> = changed.iter().copied().collect();
        let mut level = changed;
        for _ in 0..reach {
            let mut next = Vec::new();
            for id in level {
                if !self.work.is_alive(id) {
                    continue;
                }
                queue.push(id);
                let readers = self
                    .work
                    .graph
                    .node(id)
                    .results
                    .iter()
                    .flat_map(|&result| self.work.users(result));
                next.extend(readers.copied().filter(|&reader| seen.insert(reader)));
            }
            level = next;
        }
    }

    /// Folds everything over weights that does not grow them out of proportion.
    fn fold_all(&mut self) {
        let order = topological(&self.work.graph);
        for id in order {
            if self.work.is_alive(id) {
                self.work.fold(id, is_worth_storing, self.constants);
            }
        }
    }
}

/// Constants folded as they appear, so that conditions can look at them. Repetition is not:
/// rules remove it where the reader broadcasts.
fn is_small(node: &Node, operand_bytes: usize, result_bytes: usize) -> bool {
    let repeats = matches!(node.op, "expand" | "tile") && result_bytes > operand_bytes;
    operand_bytes <= 1 << 20 && result_bytes <= 1 << 18 && !(repeats && result_bytes > 4096)
}

/// Constants stored in the engine rather than computed in each run.
fn is_worth_storing(_: &Node, operand_bytes: usize, result_bytes: usize) -> bool {
    result_bytes <= (2 * operand_bytes).max(16 << 20)
}

/// Ids of the nodes, operands before users.
fn topological(graph: &Graph) -> Vec<NodeId> {
    let mut order = Vec::with_capacity(graph.nodes.len());
    let mut done = vec![false; graph.nodes.len()];
    for root in 0..graph.nodes.len() {
        let mut pending = vec![root];
        while let Some(&node) = pending.last() {
            if done[node] {
                pending.pop();
                continue;
            }
            let before = pending.len();
            let operands = graph.nodes[node].operands.iter().flatten();
            let makers = operands.filter_map(|&operand| graph.producer(operand));
            pending.extend(makers.map(|(id, _)| id.0 as usize).filter(|&id| !done[id]));
            if pending.len() == before {
                done[node] = true;
                order.push(NodeId(u32::try_from(node).expect("graphs have under 2^32 nodes")));
            }
        }
    }
    order
}

/// Every name once, in order of first appearance.
fn union<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut union: Vec<String> = Vec::new();
    for name in names {
        if !union.contains(name) {
            union.push(name.clone());
        }
    }
    union
}

/// The rules that may match nodes of an op, found once per op.
struct RulesByOp<'a> {
    rules: &'a [&'a Rule],
    found: HashMap<&'static str, Rc<[&'a Rule]>>,
}

impl<'a> RulesByOp<'a> {
    fn of(&mut self, op: &'static str) -> Rc<[&'a Rule]> {
        let rules = self.rules;
        let found = self.found.entry(op);
        Rc::clone(found.or_insert_with(|| rules.iter().copied().filter(|rule| heads(rule, op)).collect()))
    }
}

/// Nodes to look at, each at most once at a time, first come first served.
#[derive(Default)]
struct Queue {
    nodes: VecDeque<NodeId>,
    waiting: FxHashSet<NodeId>,
}

impl Queue {
    fn push(&mut self, id: NodeId) {
        if self.waiting.insert(id) {
            self.nodes.push_back(id);
        }
    }

    fn pop(&mut self) -> Option<NodeId> {
        let id = self.nodes.pop_front()?;
        self.waiting.remove(&id);
        Some(id)
    }
}
