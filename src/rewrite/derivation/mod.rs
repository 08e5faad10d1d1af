//! How the net of a graph was derived, so that other shapes of the graph derive theirs alike.
//!
//! Graphs of one model in several shapes mostly have one structure: the same ops over the same values, with other
//! extents. The e-graphs of such graphs are alike as far as rules hold in both alike. So what an e-graph holds in the
//! end is kept with all that rules asked on the way there ([`crate::rewrite::egraph::record`]); another shape asks the same, of its own
//! types, attributes and constants, and computes its own attributes ([`replay`]). Where each answer leads to
//! the same, it has the net that an e-graph of its own would give. Where one differs, it gets such an e-graph.

mod known;
mod replay;
mod writer;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use known::Derivation;
use replay::replay;
use writer::written;

use crate::ir::{Attrs, Graph, HostTensor};
use crate::rewrite::egraph::tabulate::Table;
use crate::rewrite::egraph::term_graph::TermGraph;
use crate::rewrite::extraction::net::Net;
use crate::rewrite::rules::set::RuleSet;

/// Most derivations that are kept: as many structures of a model are told apart.
const MAX_KEPT: usize = 32;

/// Derivations of the graphs of one model, by one set of rules.
#[derive(Default)]
pub struct Derivations {
    known: Mutex<Vec<Arc<Derivation>>>,
}

impl Derivations {
    fn locked(&self) -> MutexGuard<'_, Vec<Arc<Derivation>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The net of `graph` and its constants, as one of the graphs that are known had its own.
    pub fn derived(&self, graph: &Graph, rules: &RuleSet) -> Option<(Net, Vec<HostTensor>)> {
        let known = self.locked().clone();
        known.iter().find_map(|own| replay(own, graph, rules))
    }

    /// Whether one more is worth recording.
    pub fn has_place(&self) -> bool {
        self.locked().len() < MAX_KEPT
    }

    /// Keeps how a graph that was recorded got its net, if that can be told and none of the others serves.
    pub fn keep(&self, graph: &Graph, terms: TermGraph, table: Table, rules: &RuleSet) {
        let written = written(graph, terms, table).and_then(|own| proven(own, rules));
        if let Some(derivation) = written
            && self.derived(graph, rules).is_none()
        {
            self.locked().push(Arc::new(derivation));
        }
    }
}

/// A derivation by which its own graph gets its net.
fn proven(mut own: Derivation, rules: &RuleSet) -> Option<Derivation> {
    let (net, _) = replay(&own, &own.graph, rules)?;
    let mut tensors = net.tensors.iter().zip(&own.net.tensors);
    let mut exprs = net.exprs.iter().zip(&own.net.exprs);
    let leads_back =
        tensors.all(|(a, b)| a.ty == b.ty) && exprs.all(|(a, b)| a.attrs == b.attrs && a.flops == b.flops);
    if !leads_back {
        return None;
    }
    // Those of another shape are others.
    for expr in &mut own.net.exprs {
        expr.attrs = Attrs::default();
    }
    Some(own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Attr, DType, TensorType, ValueId};
    use crate::ops::evaluate::from_values;
    use crate::rewrite::egraph::record::Record;
    use crate::rewrite::egraph::saturate::saturate;
    use crate::rewrite::egraph::tabulate::tabulate;
    use crate::rewrite::extraction::net::Net;
    use crate::rewrite::rules::structure::are_structural;
    use crate::testing::builder::{GraphBuilder, ints};

    fn halves(g: &mut GraphBuilder, dims: &[usize]) -> ValueId {
        let n_elements: usize = dims.iter().product();
        let value = |number: usize| f64::from(u32::try_from(number % 7).unwrap()) / 8.0 + 0.125;
        let values: Vec<f64> = (0..n_elements).map(value).collect();
        g.graph.add_weight("", from_values(DType::F16, dims, &values))
    }

    fn shaped(dims: &[i64]) -> Attrs {
        Attrs::new().with("shape", ints(dims))
    }

    /// A norm whose result two products read: up to 1024 rows it may be taken by them.
    fn block(rows: usize) -> Graph {
        let mut g = GraphBuilder::new("block", 1);
        let x = g
            .graph
            .add_input("x", Some(TensorType::new(DType::F16, &[rows, 32])));
        let (scale, shift) = (halves(&mut g, &[32]), halves(&mut g, &[32]));
        let (a, b, c) = (
            halves(&mut g, &[32, 48]),
            halves(&mut g, &[32, 16]),
            halves(&mut g, &[16]),
        );
        let attrs = Attrs::new()
            .with("axes", ints(&[1]))
            .with("epsilon", Attr::Float(1e-5));
        let h = g.op("standardize", &[x], attrs);
        let h = g.plain("mul", &[h, scale]);
        let h = g.plain("add", &[h, shift]);
        let y = g.plain("matmul", &[h, a]);
        let z = g.plain("matmul", &[h, b]);
        let z = g.plain("add", &[z, c]);
        let z = g.plain("gelu", &[z]);
        let y = g.op("reshape", &[y], shaped(&[48 * i64::try_from(rows).unwrap()]));
        g.output(y);
        g.output(z);
        g.graph
    }

    /// `op` of one value.
    fn alone(op: &'static str, dtype: DType) -> Graph {
        let mut g = GraphBuilder::new("alone", 1);
        let x = g.graph.add_input("x", Some(TensorType::new(dtype, &[40, 32])));
        let y = g.plain(op, &[x]);
        g.output(y);
        g.graph
    }

    fn table_of(graph: &Graph, rules: &RuleSet) -> Table {
        let mut terms = TermGraph::new(graph);
        saturate(&mut terms, rules).unwrap();
        tabulate(&terms)
    }

    fn recorded(graph: &Graph, rules: &RuleSet) -> (TermGraph, Table) {
        let mut terms = TermGraph::new(graph);
        terms.record = Some(Record::default());
        saturate(&mut terms, rules).unwrap();
        let table = tabulate(&terms);
        (terms, table)
    }

    fn keep(known: &Derivations, graph: &Graph, rules: &RuleSet) {
        let (terms, table) = recorded(graph, rules);
        known.keep(graph, terms, table, rules);
    }

    fn derivation(graph: &Graph, rules: &RuleSet) -> Derivation {
        let (terms, table) = recorded(graph, rules);
        proven(written(graph, terms, table).unwrap(), rules).unwrap()
    }

    /// Derivations of one graph.
    fn known(graph: &Graph) -> Derivations {
        let derivations = Derivations::default();
        let rules = RuleSet::builtin();
        keep(&derivations, graph, rules);
        derivations
    }

    /// What a net says of every tensor and expression.
    fn told(net: &Net) -> Vec<String> {
        let tensors = net.tensors.iter().map(|own| format!("{own:?}"));
        tensors
            .chain(net.exprs.iter().map(|own| format!("{own:?}")))
            .chain([format!("{:?} {}", net.outputs, net.weight_bytes)])
            .collect()
    }

    #[test]
    fn another_shape_derives_the_net_that_its_e_graph_holds() {
        let rules = RuleSet::builtin();
        assert!(are_structural(rules));
        let known = known(&block(40));
        for rows in [40, 41, 7, 1024] {
            let graph = block(rows);
            let (net, weights) = known.derived(&graph, rules).unwrap();
            assert_eq!(told(&net), told(&table_of(&graph, rules).net), "{rows} rows");
            let mut terms = TermGraph::new(&graph);
            saturate(&mut terms, rules).unwrap();
            assert_eq!(weights, terms.terms.analysis.interner.weights);
        }
    }

    #[test]
    fn where_a_rule_holds_otherwise_there_is_no_such_net() {
        let rules = RuleSet::builtin();
        let (few, many) = (block(40), block(1025));
        assert!(known(&few).derived(&many, rules).is_none());
        assert!(known(&many).derived(&few, rules).is_none());
        assert!(known(&many).derived(&block(5000), rules).is_some());
        // Both are known then, and which serves is found out.
        let both = known(&few);
        keep(&both, &many, rules);
        keep(&both, &block(3), rules);
        assert_eq!(both.locked().len(), 2);
        for graph in [few, many] {
            let (net, _) = both.derived(&graph, rules).unwrap();
            assert_eq!(told(&net), told(&table_of(&graph, rules).net));
        }
    }

    #[test]
    fn graphs_of_another_structure_have_no_such_net() {
        let rules = RuleSet::builtin();
        let known = known(&block(40));
        assert!(known.derived(&alone("relu", DType::F16), rules).is_none());
        let derivations = Derivations::default();
        keep(&derivations, &alone("relu", DType::F16), rules);
        assert!(derivations.derived(&alone("relu", DType::F16), rules).is_some());
        assert!(derivations.derived(&alone("relu", DType::F32), rules).is_none());
        assert!(derivations.derived(&alone("tanh", DType::F16), rules).is_none());
    }

    /// Uses of one op on one value that are two in one shape and one in another.
    #[test]
    fn what_becomes_equal_or_stops_being_so_is_noticed() {
        let rules = RuleSet::from_text(
            "own.rules",
            "ruleset own : algebra, numerics(exact)
             rule flat { relu(x) => reshape[shape=dims(x)](relu(reshape[shape=[size(x)]](x))) }",
        )
        .unwrap();
        let graph = |rows: usize, dims: &[i64]| {
            let mut g = GraphBuilder::new("g", 1);
            let x = g.input(&[2, rows]);
            let y = g.op("reshape", &[x], shaped(dims));
            let y = g.plain("tanh", &[y]);
            let z = g.plain("relu", &[x]);
            g.output(y);
            g.output(z);
            g.graph
        };
        let is_right = |known: &Derivation, graph: &Graph| {
            let (net, _) = replay(known, graph, &rules)?;
            assert_eq!(told(&net), told(&table_of(graph, &rules).net));
            Some(())
        };
        // The reshape that the rule makes is that of the graph, in one shape or in all of them.
        let known = derivation(&graph(8, &[16]), &rules);
        assert!(is_right(&known, &graph(9, &[18])).is_some());
        let apart = derivation(&graph(8, &[4, 4]), &rules);
        assert!(is_right(&apart, &graph(9, &[3, 6])).is_some());
        let mut g = graph(8, &[16]);
        g.nodes[0].attrs = shaped(&[15]);
        assert!(is_right(&known, &g).is_none());
    }
}
