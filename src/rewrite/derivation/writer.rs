//! Translates what was recorded of an e-graph to how things are in the end.

use std::collections::BTreeMap;

use egg::{Id, Language};
use rustc_hash::FxHashMap;

use super::known::{Derivation, Form, Group};
use crate::ir::{Graph, Source, ValueId};
use crate::rewrite::conditions::facts::{Binding, Handle};
use crate::rewrite::egraph::asking::Asked;
use crate::rewrite::egraph::language::{Enode, Head};
use crate::rewrite::egraph::record::{Event, Put, Record, Site, Tried, Work};
use crate::rewrite::egraph::tabulate::Table;
use crate::rewrite::egraph::term_facts::{class, handle};
use crate::rewrite::egraph::term_graph::TermGraph;

/// A rule and its direction, whether it held, and the nodes that it matched.
type Try = (usize, bool, bool, Vec<(Id, Enode)>);
/// What names stand for.
type Names = Vec<(String, Binding)>;

/// The derivation of a graph that was recorded.
pub fn written(graph: &Graph, mut terms: TermGraph, table: Table) -> Option<Derivation> {
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
    Some(Derivation {
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
    })
}

/// What is known of the terms in the end, and what is written of them.
struct Writer<'a> {
    terms: &'a TermGraph,
    numbers: FxHashMap<Enode, Group>,
    forms: Vec<Form>,
    imported: Vec<(usize, Group)>,
    equal: Vec<(Group, Group)>,
    /// Tries that are in the list of events, and what names stand for in each.
    known: FxHashMap<Try, Vec<Names>>,
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
            known: FxHashMap::default(),
        };
        for (class, enode) in all {
            let enode = writer.settled(enode);
            let number = Group::try_from(writer.forms.len()).expect("e-graphs have under 2^32 nodes");
            let is_plain = !enode.head.has_attrs();
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
                if !self.is_first(&own) {
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

    /// Whether no rule was tried there before with the same outcome.
    fn is_first(&mut self, own: &Tried) -> bool {
        let place = (own.rule, own.is_forward, own.holds, own.site.nodes.clone());
        let known = self.known.entry(place).or_default();
        let is_first = !known.contains(&own.site.names);
        if is_first {
            known.push(own.site.names.clone());
        }
        is_first
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
        if enode.head.has_attrs() {
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
            if form.head.has_attrs() {
                alike.entry((form.head, &form.children)).or_default().push(number);
            }
        }
        alike.into_values().filter(|groups| groups.len() > 1).collect()
    }
}
