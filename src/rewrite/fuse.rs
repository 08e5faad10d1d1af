//! The whole of rewriting: a core graph becomes regions, by a search or as another shape of it was cut.

use std::collections::BTreeMap;

use super::canonicalize::canonicalize;
use super::derivation::Derivations;
use super::egraph::record::Record;
use super::egraph::saturate::{rule_list, saturate};
use super::egraph::tabulate::tabulate;
use super::egraph::term_graph::TermGraph;
use super::error::RewriteError;
use super::extraction::cones::{self, Candidate};
use super::extraction::cost::DeviceRates;
use super::extraction::cutting::{Cutting, cost_us};
use super::extraction::explain::Choice;
use super::extraction::explain::Names;
use super::extraction::extract;
use super::extraction::fold::Folder;
use super::extraction::frontier;
use super::extraction::limits::Limits;
use super::extraction::net::Net;
use super::extraction::regions::{FusedGraph, RuleUse, TensorId};
use super::hand_over::hand_over;
use super::place::{forget_unused, place};
use super::prepack::prepack;
use super::rules::set::RuleSet;
use super::rules::structure::are_structural;
use crate::ir::{Graph, HostTensor};
use crate::reference::Constants;

/// Costs that are this many times another one are about equal: less than a launch of many.
const ABOUT_EQUAL: f64 = 1.002;

/// Brings a core graph into canonical form and cuts it into regions.
///
/// # Errors
/// If a rule is wrong or a constant cannot be evaluated.
pub fn fuse(graph: &Graph, rules: &RuleSet, device: &DeviceRates) -> Result<FusedGraph, RewriteError> {
    fuse_canonical(&canonicalize(graph, rules), rules, device)
}

/// Cuts a canonical core graph into regions, by the rules that add to the e-graph.
///
/// # Errors
/// If a rule is wrong or a constant cannot be evaluated.
pub fn fuse_canonical(
    graph: &Graph,
    rules: &RuleSet,
    device: &DeviceRates,
) -> Result<FusedGraph, RewriteError> {
    let constants = Constants::default();
    Ok(Cutter::new(rules, device, &constants).cut(graph)?.0)
}

/// Cuts canonical core graphs into regions, by the rules that add to the e-graph.
pub struct Cutter<'a> {
    pub rules: &'a RuleSet,
    pub device: &'a DeviceRates,
    /// What is folded for one graph is there for the next.
    pub constants: &'a Constants,
    /// How others were derived by the same rules, where they are graphs of one model.
    pub derivations: Option<&'a Derivations>,
}

impl<'a> Cutter<'a> {
    /// Of graphs that have nothing to do with each other.
    pub fn new(rules: &'a RuleSet, device: &'a DeviceRates, constants: &'a Constants) -> Self {
        Cutter {
            rules,
            device,
            constants,
            derivations: None,
        }
    }
}

impl Cutter<'_> {
    /// The regions of a graph that are cheapest together, and how it was cut.
    ///
    /// # Errors
    /// If a rule is wrong or a constant cannot be evaluated.
    pub fn cut(&self, graph: &Graph) -> Result<(FusedGraph, Cutting), RewriteError> {
        let (fused, cutting) = self.unplaced(graph)?;
        Ok((self.finished(fused), cutting))
    }

    /// As [`Cutter::cut`], before joined tensors are places in memory and weights are packed: bodies are those that
    /// were chosen, and every tensor is written by one region.
    ///
    /// # Errors
    /// If a rule is wrong or a constant cannot be evaluated.
    pub fn unplaced(&self, graph: &Graph) -> Result<(FusedGraph, Cutting), RewriteError> {
        let Saturated { net, weights } = self.saturated(graph)?;
        let limits = Limits::from_kernels(&self.rules.kernels);
        let candidates = cones::enumerate(&net, &limits, self.device);
        let owed: Vec<usize> = net
            .outputs
            .iter()
            .copied()
            .filter(|&place| net.tensors[place].is_device())
            .collect();
        let plan = frontier::solve(&candidates, &owed, frontier::BEAM);
        let plan = plan.ok_or_else(|| no_plan(&net, &candidates))?;
        let chosen: Vec<Choice<'_>> = plan
            .chosen
            .iter()
            .map(|own| choice(&candidates[own.tensor], own))
            .collect();
        let fused = self.extracted(graph, &net, &weights, &chosen)?;
        let kernels = chosen.iter().map(|own| own.candidate.clone()).collect();
        Ok((fused, Cutting::new(net, kernels)))
    }

    /// The regions of a graph, cut as one of `models` was: the cheapest of those that fit. `None` where none does.
    ///
    /// # Errors
    /// If a rule is wrong or a constant cannot be evaluated.
    pub fn cut_alike(&self, graph: &Graph, models: &[&Cutting]) -> Result<Option<FusedGraph>, RewriteError> {
        let fused = self.unplaced_alike(graph, models)?;
        Ok(fused.map(|fused| self.finished(fused)))
    }

    /// As [`Cutter::cut_alike`], but as [`Cutter::unplaced`] leaves regions.
    ///
    /// # Errors
    /// If a rule is wrong or a constant cannot be evaluated.
    pub fn unplaced_alike(
        &self,
        graph: &Graph,
        models: &[&Cutting],
    ) -> Result<Option<FusedGraph>, RewriteError> {
        let Saturated { net, weights } = self.saturated(graph)?;
        let limits = Limits::from_kernels(&self.rules.kernels);
        let fitting = models
            .iter()
            .filter_map(|model| model.over(&net, &limits, self.device));
        let Some(kernels) = fitting.min_by(|a, b| cost_us(a).total_cmp(&cost_us(b))) else {
            return Ok(None);
        };
        let chosen: Vec<Choice<'_>> = kernels
            .iter()
            .map(|candidate| Choice {
                candidate,
                rejected: Vec::new(),
            })
            .collect();
        self.extracted(graph, &net, &weights, &chosen).map(Some)
    }

    /// Whether a graph that was cut as `other` may as well be cut as `known`.
    pub fn serves(&self, known: &Cutting, other: &Cutting) -> bool {
        let limits = Limits::from_kernels(&self.rules.kernels);
        known.serves(other, &limits, self.device, ABOUT_EQUAL)
    }

    /// What a graph can be computed from: as another one of the model, if it is like one, else by an e-graph.
    fn saturated(&self, graph: &Graph) -> Result<Saturated, RewriteError> {
        let derived = self
            .derivations
            .and_then(|known| known.derived(graph, self.rules));
        if let Some((net, weights)) = derived {
            return Ok(Saturated { net, weights });
        }
        let mut terms = TermGraph::new(graph);
        let kept = self
            .derivations
            .filter(|known| known.has_place() && are_structural(self.rules));
        terms.record = kept.map(|_| Record::default());
        let tally = saturate(&mut terms, self.rules)?;
        let table = tabulate(&terms);
        let saturated = Saturated {
            net: table.net.clone(),
            weights: terms.terms.analysis.interner.weights.clone(),
        };
        if let Some(kept) = kept.filter(|_| !tally.ran_out) {
            kept.keep(graph, terms, table, self.rules);
        }
        Ok(saturated)
    }

    fn extracted(
        &self,
        graph: &Graph,
        net: &Net,
        weights: &[HostTensor],
        chosen: &[Choice<'_>],
    ) -> Result<FusedGraph, RewriteError> {
        let names = Names {
            graph,
            rules: &numbered_rules(self.rules),
            places: &places_by_name(self.rules),
        };
        let mut folder = Folder::new(net, weights, self.constants);
        extract::extract(net, chosen, &mut folder, &names, self.device)
    }

    /// Regions that were left unplaced, as kernels are made for them.
    pub fn finished(&self, fused: FusedGraph) -> FusedGraph {
        let (mut fused, _) = placed(fused);
        prepack(&mut fused, &self.rules.weight_orders, self.constants);
        hand_over(&mut fused, self.device);
        fused
    }
}

/// Regions that were left unplaced, where joined tensors are places in memory, and which tensors are left.
pub fn placed(mut fused: FusedGraph) -> (FusedGraph, Vec<TensorId>) {
    place(&mut fused);
    let left = forget_unused(&mut fused);
    (fused, left)
}

/// What a graph can be computed from, and how.
struct Saturated {
    net: Net,
    /// Constants by the numbers that the net has for them.
    weights: Vec<HostTensor>,
}

/// What was chosen among the candidates of a tensor, and what was not.
fn choice<'a>(candidates: &'a [Candidate], chosen: &frontier::Chosen) -> Choice<'a> {
    let rejected = chosen.rejected.iter();
    Choice {
        candidate: &candidates[chosen.number],
        rejected: rejected
            .map(|&(number, lost_us)| (&candidates[number], lost_us))
            .collect(),
    }
}

/// Names of the rules of the e-graph that change it for a canonical graph.
///
/// # Errors
/// If a rule is wrong.
pub fn fired_in_terms(graph: &Graph, rules: &RuleSet) -> Result<Vec<String>, RewriteError> {
    let tally = saturate(&mut TermGraph::new(graph), rules)?;
    let headers = rule_list(rules).into_iter().zip(tally.fired);
    let fired = headers.filter(|(_, n_fired)| *n_fired > 0);
    Ok(fired.map(|(header, _)| header.name.text.clone()).collect())
}

fn no_plan(net: &Net, candidates: &[Vec<Candidate>]) -> RewriteError {
    let lacks = |place: usize| net.tensors[place].is_device() && candidates[place].is_empty();
    let output = net.outputs.iter().position(|&place| lacks(place)).unwrap_or(0);
    RewriteError::NoPlan { output }
}

/// Rules of the e-graph in the order of their numbers.
fn numbered_rules(rules: &RuleSet) -> Vec<RuleUse> {
    let headers = rule_list(rules).into_iter();
    headers
        .map(|header| RuleUse {
            name: header.name.text.clone(),
            place: rules.place(header.span),
        })
        .collect()
}

/// Places of all rules, those that ran before the e-graph among them.
fn places_by_name(rules: &RuleSet) -> BTreeMap<String, String> {
    let headers = rules.rules.iter().map(|rule| &rule.header);
    headers
        .map(|header| (header.name.text.clone(), rules.place(header.span)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Attr, Attrs};
    use crate::reference;
    use crate::rewrite::RegionKind;
    use crate::rewrite::run_fused;
    use crate::testing::builder::{GraphBuilder, drawn_graph, ints};

    fn device() -> &'static DeviceRates {
        DeviceRates::for_sm(90)
    }

    fn kinds(fused: &FusedGraph) -> Vec<RegionKind> {
        fused.regions.iter().map(|region| region.kind).collect()
    }

    /// The regions compute what the graph computes; on failure says which output differs.
    fn assert_same_meaning(mut builder: GraphBuilder, case: &str) -> FusedGraph {
        let fused = fuse_canonical(&builder.graph, RuleSet::builtin(), device())
            .unwrap_or_else(|error| panic!("{case}: {error}"));
        let inputs = builder.inputs();
        let expected = reference::run(&builder.graph, &inputs).unwrap();
        let found = run_fused(&fused, &inputs).unwrap();
        assert_eq!(expected.len(), found.len(), "{case}");
        for (n, (expected, found)) in expected.iter().zip(&found).enumerate() {
            assert_eq!(expected.ty(), found.ty(), "{case}: output {n}");
            let pairs = expected.as_slice::<f32>().iter().zip(found.as_slice::<f32>());
            for (expected, found) in pairs {
                let near = (expected - found).abs() <= 1e-4 * (1.0 + expected.abs());
                assert!(near, "{case}: output {n} is {found}, expected {expected}");
            }
        }
        fused
    }

    #[test]
    fn drawn_graphs_keep_their_meaning() {
        for seed in 0..60 {
            let n_nodes = 4 + usize::try_from(seed).unwrap() % 30;
            let builder = drawn_graph(n_nodes, seed);
            let n_nodes = builder.graph.nodes.len();
            let fused = assert_same_meaning(builder, &format!("seed {seed}"));
            assert!(fused.regions.len() <= n_nodes + 2, "seed {seed}");
        }
    }

    /// `y = relu(x + gelu(x @ a + b) @ c + d)`, as a residual block of a transformer.
    fn residual_block() -> GraphBuilder {
        let mut g = GraphBuilder::new("block", 1);
        let x = g.input(&[4, 16]);
        let (a, b) = (g.weight(&[16, 32]), g.weight(&[32]));
        let (c, d) = (g.weight(&[32, 16]), g.weight(&[16]));
        let h = g.plain("matmul", &[x, a]);
        let h = g.plain("add", &[h, b]);
        let h = g.plain("gelu", &[h]);
        let h = g.plain("matmul", &[h, c]);
        let h = g.plain("add", &[h, d]);
        let h = g.plain("add", &[x, h]);
        let y = g.plain("relu", &[h]);
        g.output(y);
        g
    }

    #[test]
    fn a_residual_block_is_its_products() {
        let fused = assert_same_meaning(residual_block(), "block");
        assert_eq!(kinds(&fused), [RegionKind::Dot, RegionKind::Dot]);
        let names: Vec<&str> = fused.regions[1]
            .rules
            .iter()
            .map(|rule| rule.name.as_str())
            .collect();
        assert!(names.contains(&"fuse_epilogue"), "{names:?}");
        assert!(
            fused.regions[1]
                .rules
                .iter()
                .all(|rule| rule.place.contains(".rules:"))
        );
        // What turns the weight around stands before it, and for no node of the model.
        let nodes = &fused.regions[0].body.nodes;
        let product = nodes.iter().find(|node| node.op == "matmul").unwrap();
        assert_eq!(product.origin, ["matmul_0"]);
    }

    #[test]
    fn lowering_keeps_the_graph_small() {
        let mut g = GraphBuilder::new("chain", 2);
        let mut x = g.input(&[4, 16]);
        for _ in 0..6 {
            let y = g.plain("tanh", &[x]);
            x = g.plain("add", &[x, y]);
        }
        g.output(x);
        let mut terms = TermGraph::new(&g.graph);
        let tally = saturate(&mut terms, RuleSet::builtin()).unwrap();
        assert!(!tally.ran_out);
        assert!(terms.n_nodes() <= 100, "{} nodes", terms.n_nodes());
        assert_eq!(assert_same_meaning(g, "chain").regions.len(), 1);
    }

    #[test]
    fn layer_norm_with_residual_is_one_row_kernel() {
        let mut g = GraphBuilder::new("norm", 3);
        let (x, r) = (g.input(&[4, 16]), g.input(&[4, 16]));
        let (scale, bias) = (g.weight(&[16]), g.weight(&[16]));
        let sum = g.plain("add", &[x, r]);
        let attrs = Attrs::new()
            .with("axes", ints(&[1]))
            .with("epsilon", Attr::Float(1e-5));
        let y = g.op("standardize", &[sum], attrs);
        let y = g.plain("mul", &[y, scale]);
        let y = g.plain("add", &[y, bias]);
        g.output(y);
        assert_eq!(kinds(&assert_same_meaning(g, "norm")), [RegionKind::Row]);
    }

    #[test]
    fn projections_of_one_value_are_joined() {
        let mut g = GraphBuilder::new("qkv", 4);
        let x = g.input(&[1, 8, 16]);
        for _ in 0..3 {
            let (w, b) = (g.weight(&[16, 16]), g.weight(&[16]));
            let y = g.plain("matmul", &[x, w]);
            let y = g.plain("add", &[y, b]);
            let y = g.op("reshape", &[y], Attrs::new().with("shape", ints(&[1, 8, 2, 8])));
            let y = g.op("softmax", &[y], Attrs::new().with("axis", Attr::Int(3)));
            g.output(y);
        }
        let fused = assert_same_meaning(g, "qkv");
        let n_products = fused
            .regions
            .iter()
            .filter(|region| region.kind == RegionKind::Dot)
            .count();
        assert_eq!(n_products, 1, "{:?}", kinds(&fused));
        let rules: Vec<_> = fused.regions[0]
            .rules
            .iter()
            .map(|rule| rule.name.as_str())
            .collect();
        assert!(rules.contains(&"join_linear"), "{rules:?}");
    }

    #[test]
    fn outputs_may_be_inputs_weights_and_repeated() {
        let mut g = GraphBuilder::new("copies", 5);
        let x = g.input(&[3]);
        let w = g.weight(&[3]);
        let y = g.plain("relu", &[x]);
        let z = g.plain("add", &[w, w]);
        for value in [x, w, y, y, z] {
            g.output(value);
        }
        let fused = assert_same_meaning(g, "copies");
        let mut ids: Vec<_> = fused.outputs.iter().map(|(_, id)| *id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 5);
    }
}
