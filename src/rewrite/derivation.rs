//! How the net of a graph was derived, so that other shapes of the graph derive theirs alike.
//!
//! Graphs of one model in several shapes mostly have one structure: the same ops over the same values, with other
//! extents. The e-graphs of such graphs are alike as far as rules hold in both alike. So what an e-graph holds in the
//! end is kept with all that rules asked on the way there ([`super::record`]); another shape asks the same, of its own
//! types, attributes and constants, and computes its own attributes ([`super::replay`]). Where each answer leads to
//! the same, it has the net that an e-graph of its own would give. Where one differs, it gets such an e-graph.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use egg::{Id, Language};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::facts::{Binding, Handle};
use super::language::{Enode, Head};
use super::net::Net;
use super::record::{Asked, Event, Put, Record, Site, Work, has_attrs};
use super::replay;
use super::rule_set::RuleSet;
use super::tabulate::Table;
use super::term_facts::{class, handle};
use super::term_graph::TermGraph;
use crate::ir::{Attrs, Graph, HostTensor, Source, ValueId};

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
        known.iter().find_map(|own| replay::replay(own, graph, rules))
    }

    /// Whether one more is worth recording.
    pub fn has_place(&self) -> bool {
        self.locked().len() < MAX_KEPT
    }

    /// Keeps a derivation for graphs that none of the others serves.
    pub fn keep(&self, derivation: Derivation, rules: &RuleSet) {
        if self.derived(&derivation.graph, rules).is_none() {
            self.locked().push(Arc::new(derivation));
        }
    }
}

/// Nodes of an e-graph that are one in the end, told by a number.
pub type Group = u32;

/// What the nodes of a group are.
pub struct Form {
    pub head: Head,
    /// The number of a constant, a load's mode or a result.
    pub data: u32,
    pub children: SmallVec<[Id; 4]>,
    pub class: Id,
    pub n_results: usize,
    /// The group whose attributes it has; that group has its own.
    pub copied: Group,
}

/// How a graph's net was derived. Classes are those of the e-graph in the end, and the `data` of nodes of ops and tile
/// forms are their groups.
pub struct Derivation {
    pub graph: Graph,
    pub forms: Vec<Form>,
    /// Nodes of the graph that are computed, and their groups.
    pub imported: Vec<(usize, Group)>,
    /// Values of the graph that are computed, and their classes.
    pub values: Vec<(ValueId, Id)>,
    /// Constants of the graph, and their numbers; others are made by rules.
    pub weights: Vec<(ValueId, u32)>,
    pub n_weights: usize,
    pub n_classes: usize,
    /// Modes of loads.
    pub words: Vec<String>,
    pub absent: Option<Id>,
    pub events: Vec<Event>,
    /// Groups whose attributes must be equal, and those of which no two may be.
    pub equal: Vec<(Group, Group)>,
    pub apart: Vec<Vec<Group>>,
    /// Without attributes.
    pub net: Net,
    /// By tensor and expression of the net.
    pub classes: Vec<Id>,
    pub groups: Vec<Group>,
}

impl Derivation {
    /// The derivation of a graph that was recorded; `None` where it does not lead to the same net again.
    pub fn of(graph: &Graph, mut terms: TermGraph, table: Table, rules: &RuleSet) -> Option<Self> {
        let record = terms.record.take()?;
        let mut writer = Writer::new(&terms);
        writer.import(&terms)?;
        let events = writer.events(record)?;
        let groups = table.exprs.iter().map(|enode| writer.group(enode));
        let groups = groups.collect::<Option<Vec<Group>>>()?;
        let values = (0..).map(ValueId).zip(&terms.values);
        let values: Vec<(ValueId, Id)> = values
            .filter_map(|(value, class)| Some((value, writer.find((*class)?))))
            .collect();
        let number = |&(value, _): &(ValueId, Id)| {
            let is_weight = matches!(graph.value(value).source, Source::Weight(_));
            let leaf = terms.values[value.0 as usize].filter(|_| is_weight)?;
            Some((value, terms.terms.id_to_node(leaf).data))
        };
        let classes = terms.terms.classes().map(|class| class.id).max();
        let mut derivation = Derivation {
            weights: values.iter().filter_map(number).collect(),
            values,
            n_weights: terms.terms.analysis.interner.weights.len(),
            n_classes: classes.map_or(0, |last| usize::from(last) + 1),
            words: terms.terms.analysis.interner.words().to_vec(),
            absent: writer.absent(),
            events,
            apart: writer.apart(),
            forms: writer.forms,
            imported: writer.imported,
            equal: writer.equal,
            graph: graph.clone(),
            net: table.net,
            classes: table.tensors,
            groups,
        };
        if !derivation.leads_back(rules) {
            return None;
        }
        // Those are another's.
        for expr in &mut derivation.net.exprs {
            expr.attrs = Attrs::default();
        }
        Some(derivation)
    }

    /// Whether the graph itself gets its net by it.
    fn leads_back(&self, rules: &RuleSet) -> bool {
        let Some((net, _)) = replay::replay(self, &self.graph, rules) else {
            return false;
        };
        let tensors = net.tensors.iter().zip(&self.net.tensors);
        let exprs = net.exprs.iter().zip(&self.net.exprs);
        tensors.into_iter().all(|(a, b)| a.ty == b.ty)
            && exprs
                .into_iter()
                .all(|(a, b)| a.attrs == b.attrs && a.flops == b.flops)
    }
}

/// Translates what was recorded to how things are in the end.
struct Writer<'a> {
    terms: &'a TermGraph,
    numbers: FxHashMap<Enode, Group>,
    forms: Vec<Form>,
    imported: Vec<(usize, Group)>,
    equal: Vec<(Group, Group)>,
    /// Tries that are in the list of events.
    known: HashSet<String>,
}

impl<'a> Writer<'a> {
    fn new(terms: &'a TermGraph) -> Self {
        let mut classes: Vec<Id> = terms.terms.classes().map(|class| class.id).collect();
        classes.sort_unstable();
        let all = classes
            .iter()
            .flat_map(|&class| terms.terms[class].iter().map(move |enode| (class, enode)));
        let mut writer = Writer {
            terms,
            numbers: FxHashMap::default(),
            forms: Vec::new(),
            imported: Vec::new(),
            equal: Vec::new(),
            known: HashSet::new(),
        };
        for (class, enode) in all {
            let enode = writer.settled(enode);
            let number = Group::try_from(writer.forms.len()).expect("e-graphs have under 2^32 nodes");
            let is_plain = !has_attrs(enode.head);
            let n_results = || terms.terms.analysis.interner.n_results(enode.data);
            let form = Form {
                head: enode.head,
                data: enode.data,
                children: enode.children.clone(),
                class,
                n_results: if is_plain { 1 } else { n_results() },
                copied: if is_plain { number } else { Group::MAX },
            };
            if writer.numbers.insert(enode, number).is_none() {
                writer.forms.push(form);
            }
        }
        writer
    }

    fn find(&self, id: Id) -> Id {
        self.terms.terms.find(id)
    }

    fn settled(&self, enode: &Enode) -> Enode {
        let mut enode = enode.clone();
        enode.update_children(|child| self.find(child));
        enode
    }

    fn group(&self, enode: &Enode) -> Option<Group> {
        self.numbers.get(&self.settled(enode)).copied()
    }

    fn form(&mut self, group: Group) -> &mut Form {
        &mut self.forms[group as usize]
    }

    fn absent(&self) -> Option<Id> {
        let own = self.group(&Enode::leaf(Head::Absent, 0))?;
        Some(self.forms[own as usize].class)
    }

    fn import(&mut self, terms: &TermGraph) -> Option<()> {
        for (enode, position) in &terms.imported {
            let own = self.group(enode)?;
            self.own(own);
            self.imported.push((*position, own));
        }
        Some(())
    }

    /// The group has attributes of its own, unless it has some already.
    fn own(&mut self, group: Group) {
        let form = self.form(group);
        if form.copied == Group::MAX {
            form.copied = group;
        }
    }

    fn events(&mut self, record: Record) -> Option<Vec<Event>> {
        let mut events = Vec::new();
        for event in record.events {
            self.event(event, &mut events)?;
        }
        Some(events)
    }

    /// Adds to `events` what is to be asked again.
    fn event(&mut self, event: Event, events: &mut Vec<Event>) -> Option<()> {
        events.push(match event {
            Event::Copied(copies) => {
                for (to, from) in copies {
                    self.copy(&to, &from)?;
                }
                return Some(());
            }
            Event::Tried(mut own) => {
                own.site = self.site(own.site)?;
                own.work = self.work(own.work)?;
                let told = format!("{} {} {} {:?}", own.rule, own.is_forward, own.holds, own.site);
                if !self.known.insert(told) {
                    return Some(());
                }
                Event::Tried(own)
            }
            Event::Siblings(mut all) => {
                for own in &mut all {
                    own.site = self.site(own.site.clone())?;
                    own.asked = self.asked(std::mem::take(&mut own.asked))?;
                }
                Event::Siblings(all)
            }
            Event::Joined { rule, members, work } => Event::Joined {
                rule,
                members,
                work: self.work(work)?,
            },
        });
        Some(())
    }

    fn copy(&mut self, to: &Enode, from: &Enode) -> Option<()> {
        let (to, from) = (self.group(to)?, self.group(from)?);
        let from = self.form(from).copied;
        let known = &mut self.form(to).copied;
        if *known == Group::MAX {
            *known = from;
        } else if *known != from {
            let pair = (*known, from);
            if !self.equal.contains(&pair) {
                self.equal.push(pair);
            }
        }
        Some(())
    }

    fn site(&self, site: Site) -> Option<Site> {
        let nodes = site.nodes.iter();
        Some(Site {
            root: self.find(site.root),
            nodes: nodes
                .map(|(class, enode)| Some((self.find(*class), self.numbered(enode)?)))
                .collect::<Option<_>>()?,
            names: site
                .names
                .into_iter()
                .map(|(name, binding)| (name, self.binding(binding)))
                .collect(),
        })
    }

    /// A node with its group in the place of attributes.
    fn numbered(&self, enode: &Enode) -> Option<Enode> {
        let mut settled = self.settled(enode);
        if has_attrs(enode.head) {
            settled.data = self.group(enode)?;
        }
        Some(settled)
    }

    fn handle(&self, value: Handle) -> Handle {
        handle(self.find(class(value)))
    }

    fn binding(&self, binding: Binding) -> Binding {
        match binding {
            Binding::Value(value) => Binding::Value(self.handle(value)),
            Binding::Many(values) => {
                Binding::Many(values.into_iter().map(|value| self.handle(value)).collect())
            }
            other => other,
        }
    }

    fn work(&mut self, work: Work) -> Option<Work> {
        let mut puts = Vec::new();
        for put in work.puts {
            let group = self.group(&put.enode)?;
            self.own(group);
            let mut enode = self.settled(&put.enode);
            enode.data = group;
            puts.push(Put {
                enode,
                class: self.find(put.class),
                copied: None,
            });
        }
        Some(Work {
            asked: self.asked(work.asked)?,
            puts,
            is_built: work.is_built,
        })
    }

    fn asked(&self, asked: Vec<Asked>) -> Option<Vec<Asked>> {
        let own = |asked| {
            Some(match asked {
                Asked::Type(value) => Asked::Type(self.handle(value)),
                Asked::Weight(value, number) => Asked::Weight(self.handle(value), number),
                Asked::IsConst(value, answer) => Asked::IsConst(self.handle(value), answer),
                Asked::Consumers(value, answer) => Asked::Consumers(self.handle(value), answer),
                Asked::Kind(value, answer) => Asked::Kind(self.handle(value), answer),
                Asked::Flops(value, answer) => Asked::Flops(self.handle(value), answer),
                Asked::MadeBy(value, None) => Asked::MadeBy(self.handle(value), None),
                Asked::MadeBy(value, Some(enode)) => {
                    Asked::MadeBy(self.handle(value), Some(self.numbered(&enode)?))
                }
            })
        };
        asked.into_iter().map(own).collect()
    }

    /// Uses of an op on the same operands that differ in attributes.
    fn apart(&self) -> Vec<Vec<Group>> {
        let mut alike: BTreeMap<(Head, &[Id]), Vec<Group>> = BTreeMap::new();
        for (number, form) in (0..).zip(&self.forms) {
            if has_attrs(form.head) {
                alike.entry((form.head, &form.children)).or_default().push(number);
            }
        }
        alike.into_values().filter(|groups| groups.len() > 1).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Attr, DType, TensorType};
    use crate::ops::evaluate::from_values;
    use crate::rewrite::record::are_structural;
    use crate::rewrite::saturate::saturate;
    use crate::rewrite::tabulate::tabulate;
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

    fn recorded(graph: &Graph, rules: &RuleSet) -> Option<Derivation> {
        let mut terms = TermGraph::new(graph);
        terms.record = Some(Record::default());
        saturate(&mut terms, rules).unwrap();
        let table = tabulate(&terms);
        Derivation::of(graph, terms, table, rules)
    }

    /// Derivations of one graph.
    fn known(graph: &Graph) -> Derivations {
        let derivations = Derivations::default();
        let rules = RuleSet::builtin();
        derivations.keep(recorded(graph, rules).unwrap(), rules);
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
        both.keep(recorded(&many, rules).unwrap(), rules);
        both.keep(recorded(&block(3), rules).unwrap(), rules);
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
        derivations.keep(recorded(&alone("relu", DType::F16), rules).unwrap(), rules);
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
            let (net, _) = replay::replay(known, graph, &rules)?;
            assert_eq!(told(&net), told(&table_of(graph, &rules).net));
            Some(())
        };
        // The reshape that the rule makes is that of the graph, in one shape or in all of them.
        let known = recorded(&graph(8, &[16]), &rules).unwrap();
        assert!(is_right(&known, &graph(9, &[18])).is_some());
        let apart = recorded(&graph(8, &[4, 4]), &rules).unwrap();
        assert!(is_right(&apart, &graph(9, &[3, 6])).is_some());
        let mut g = graph(8, &[16]);
        g.nodes[0].attrs = shaped(&[15]);
        assert!(is_right(&known, &g).is_none());
    }

    #[test]
    fn patterns_that_compare_attributes_are_told() {
        let rules = |pattern: &str| {
            let text = format!(
                "ruleset own : algebra, numerics(exact)
                 rule own {{ {pattern} => relu(x) }}"
            );
            RuleSet::from_text("own.rules", &text).unwrap()
        };
        assert!(are_structural(&rules("relu(reshape[shape=s](x))")));
        for pattern in [
            "relu(transpose[perm=[1, 0]](x))",
            "relu(x * 2)",
            "relu(add(reshape[shape=s](x), reshape[shape=s](y)))",
        ] {
            assert!(!are_structural(&rules(pattern)), "{pattern}");
        }
    }
}
