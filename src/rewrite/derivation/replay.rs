//! The net of a graph, derived as that of another shape was.
//!
//! Every rule that asks for extents matches where it matched there and is asked again, here: what it asks of types,
//! attributes and constants is answered by this graph, what it asks of the structure as before, since that is the
//! same. It has to hold or be refused as before, and to make the same nodes, whose attributes and types are computed
//! here. Otherwise there is no such net.

use std::cell::Cell;

use egg::Id;
use smallvec::SmallVec;

use super::known::{Derivation, Group};
use crate::ir::{Attrs, Graph, HostTensor, Source, TensorType, ValueId};
use crate::ops::{InferCtx, TileKind};
use crate::rewrite::conditions;
use crate::rewrite::conditions::facts::{Bindings, Facts, Handle};
use crate::rewrite::conditions::values::Value;
use crate::rewrite::egraph::asking::Asked;
use crate::rewrite::egraph::ebuild::{Builder, Ground, Maker};
use crate::rewrite::egraph::ematch::{self, Match, Nodes};
use crate::rewrite::egraph::language::{Enode, Head, def_of};
use crate::rewrite::egraph::record::{Event, Put, Sibling, Site, Tried, Work};
use crate::rewrite::egraph::siblings;
use crate::rewrite::egraph::term_facts::{class, handle, small_ints, uniform};
use crate::rewrite::error::RewriteError;
use crate::rewrite::extraction::cost::flops_of_op;
use crate::rewrite::extraction::net::{Net, NetSource, NetTensor};
use crate::rewrite::rules::ast::{Expr, Header, Horizontal, Rule, Term};
use crate::rewrite::rules::set::RuleSet;

/// The net of `graph` and its constants, if it is derived as that of `known` was.
pub fn replay(known: &Derivation, graph: &Graph, rules: &RuleSet) -> Option<(Net, Vec<HostTensor>)> {
    if !is_alike(&known.graph, graph) {
        return None;
    }
    let mut replay = Replay {
        known,
        graph,
        slots: vec![Slot::Empty; known.forms.len()],
        made: Vec::new(),
        types: vec![Typed::Unknown; known.n_classes],
        made_types: Vec::new(),
        weights: vec![None; known.n_weights],
        puts: &[],
        answers: Answers::default(),
    };
    replay.import()?;
    replay.all(rules)?;
    replay.settle()?;
    let net = replay.net()?;
    Some((net, replay.weights.into_iter().collect::<Option<_>>()?))
}

/// Whether graphs have the same ops over the same values, of the same kinds and ranks.
fn is_alike(a: &Graph, b: &Graph) -> bool {
    let is_same_source = |a: &Source, b: &Source| match (a, b) {
        (Source::Weight(_), Source::Weight(_)) => true,
        (Source::Input(a), Source::Input(b)) => a == b,
        (Source::Node(a, n), Source::Node(b, m)) => (a, n) == (b, m),
        _ => false,
    };
    let counts = |graph: &Graph| (graph.nodes.len(), graph.values.len());
    counts(a) == counts(b)
        && (&a.inputs, &a.outputs) == (&b.inputs, &b.outputs)
        && a.nodes.iter().zip(&b.nodes).all(|(a, b)| {
            (a.op, &a.operands, &a.results) == (b.op, &b.operands, &b.results)
                && a.attrs.0.keys().eq(b.attrs.0.keys())
        })
        && a.values.iter().zip(&b.values).all(|(a, b)| {
            let kind = |ty: &Option<TensorType>| ty.as_ref().map(|ty| (ty.dtype, ty.rank()));
            is_same_source(&a.source, &b.source) && kind(&a.ty) == kind(&b.ty)
        })
}

/// Where the attributes of a group are.
#[derive(Clone, Copy)]
enum Slot {
    Empty,
    /// Those of a node of the graph.
    Node(usize),
    Made(usize),
}

/// Where the type of a class is.
#[derive(Clone, Copy)]
enum Typed {
    Unknown,
    /// That of a value of the graph.
    Value(ValueId),
    Made(usize),
}

struct Replay<'a> {
    known: &'a Derivation,
    graph: &'a Graph,
    slots: Vec<Slot>,
    made: Vec<Attrs>,
    /// By class.
    types: Vec<Typed>,
    made_types: Vec<TensorType>,
    weights: Vec<Option<HostTensor>>,
    /// What the rule at work is still to make.
    puts: &'a [Put],
    answers: Answers<'a>,
}

/// What the rule at work asked, and how far it has come.
#[derive(Clone, Default)]
struct Answers<'a> {
    asked: &'a [Asked],
    next: Cell<usize>,
    /// Something else was asked.
    is_off: Cell<bool>,
}

impl<'a> Answers<'a> {
    fn of(asked: &'a [Asked]) -> Self {
        Answers {
            asked,
            ..Answers::default()
        }
    }

    fn next(&self) -> Option<&'a Asked> {
        let next = self.asked.get(self.next.get());
        self.next.set(self.next.get() + 1);
        next
    }

    /// What `take` makes of the next answer.
    fn answer<T>(&self, take: impl FnOnce(&'a Asked) -> Option<T>) -> Option<T> {
        let taken = self.next().and_then(take);
        self.is_off.set(self.is_off.get() || taken.is_none());
        taken
    }

    fn is_done(&self) -> bool {
        !self.is_off.get() && self.next.get() == self.asked.len()
    }
}

/// What is known of the graph while a rule is asked.
struct Known<'r, 'a> {
    replay: &'r Replay<'a>,
    answers: &'r Answers<'a>,
}

impl Known<'_, '_> {
    fn weight(&self, value: Handle) -> Option<&HostTensor> {
        let number = self.answers.answer(|asked| match asked {
            Asked::Weight(own, number) if *own == value => Some(*number),
            _ => None,
        });
        self.replay.weights[number?? as usize].as_ref()
    }
}

impl Facts for Known<'_, '_> {
    fn ty(&self, value: Handle) -> Option<TensorType> {
        let is_asked = |asked: &Asked| (*asked == Asked::Type(value)).then_some(());
        self.answers.answer(is_asked)?;
        let ty = self.replay.ty(class(value));
        self.answers.is_off.set(self.answers.is_off.get() || ty.is_none());
        ty
    }

    fn is_const(&self, value: Handle) -> bool {
        let answer = self.answers.answer(|asked| match asked {
            Asked::IsConst(own, answer) if *own == value => Some(*answer),
            _ => None,
        });
        answer.unwrap_or(false)
    }

    fn scalar(&self, value: Handle) -> Option<f64> {
        uniform(self.weight(value)?)
    }

    fn consumers(&self, value: Handle) -> usize {
        let answer = self.answers.answer(|asked| match asked {
            Asked::Consumers(own, answer) if *own == value => Some(*answer),
            _ => None,
        });
        answer.unwrap_or(0)
    }

    fn kind(&self, value: Handle) -> Option<&'static str> {
        let answer = self.answers.answer(|asked| match asked {
            Asked::Kind(own, answer) if *own == value => Some(*answer),
            _ => None,
        });
        answer?
    }

    fn flops(&self, value: Handle) -> f64 {
        let answer = self.answers.answer(|asked| match asked {
            Asked::Flops(own, answer) if *own == value => Some(*answer),
            _ => None,
        });
        answer.unwrap_or(0.0)
    }

    fn made_by(&self, value: Handle, op: &str) -> Option<(Attrs, Vec<Option<Handle>>)> {
        let enode = self.answers.answer(|asked| match asked {
            Asked::MadeBy(own, Some(enode)) if *own == value && enode.head.is_op(op) => Some(Some(enode)),
            Asked::MadeBy(own, None) if *own == value => Some(None),
            _ => None,
        });
        let enode = enode??;
        let operand = |&child: &Id| (!self.replay.is_absent(child)).then(|| handle(child));
        let attrs = self.replay.attrs_of(enode.data)?.clone();
        Some((attrs, enode.children.iter().map(operand).collect()))
    }

    fn ints(&self, value: Handle) -> Option<Vec<i64>> {
        small_ints(self.weight(value)?)
    }

    fn weight_data(&self, value: Handle) -> Option<&HostTensor> {
        self.weight(value)
    }
}

/// Nodes that a pattern matched.
struct Matched<'r, 'a> {
    replay: &'r Replay<'a>,
    site: &'r Site,
    /// Patterns that compare anything are not matched again.
    facts: Known<'r, 'a>,
}

impl Nodes for Matched<'_, '_> {
    fn find(&self, id: Id) -> Id {
        id
    }

    fn nodes(&self, class: Id) -> impl Iterator<Item = &Enode> {
        let own = self.site.nodes.iter().filter(move |(own, _)| *own == class);
        own.map(|(_, enode)| enode)
    }

    fn is_absent(&self, class: Id) -> bool {
        self.replay.is_absent(class)
    }

    fn attrs(&self, enode: &Enode) -> (&Attrs, usize) {
        let attrs = self.replay.attrs_of(enode.data);
        let n_results = self.replay.known.forms[enode.data as usize].n_results;
        (attrs.expect("what a rule matched was made before"), n_results)
    }

    fn mode(&self, enode: &Enode) -> &str {
        &self.replay.known.words[enode.data as usize]
    }

    fn facts(&self) -> &dyn Facts {
        &self.facts
    }
}

impl<'a> Replay<'a> {
    fn attrs_of(&self, group: Group) -> Option<&Attrs> {
        let own = self.known.forms[group as usize].copied;
        match self.slots[own as usize] {
            Slot::Empty => None,
            Slot::Node(position) => Some(&self.graph.nodes[position].attrs),
            Slot::Made(number) => Some(&self.made[number]),
        }
    }

    /// The group has these attributes: `None` where it has others.
    fn give(&mut self, group: Group, slot: Slot) -> Option<()> {
        let own = self.known.forms[group as usize].copied;
        let Some(known) = self.attrs_of(group) else {
            self.slots[own as usize] = slot;
            return Some(());
        };
        let given = match slot {
            Slot::Node(position) => &self.graph.nodes[position].attrs,
            Slot::Made(number) => &self.made[number],
            Slot::Empty => return None,
        };
        (known == given).then_some(())
    }

    fn type_of(&self, class: Id) -> Option<&TensorType> {
        match self.types[usize::from(class)] {
            Typed::Unknown => None,
            Typed::Value(value) => self.graph.value(value).ty.as_ref(),
            Typed::Made(number) => Some(&self.made_types[number]),
        }
    }

    /// The class has this type: `None` where it has another.
    fn give_type(&mut self, class: Id, ty: TensorType) -> Option<()> {
        if let Some(known) = self.type_of(class) {
            return (*known == ty).then_some(());
        }
        self.made_types.push(ty);
        self.types[usize::from(class)] = Typed::Made(self.made_types.len() - 1);
        Some(())
    }

    fn import(&mut self) -> Option<()> {
        let (known, graph) = (self.known, self.graph);
        for &(position, group) in &known.imported {
            self.give(group, Slot::Node(position))?;
        }
        for &(value, class) in &known.values {
            match self.type_of(class) {
                Some(known) => (known == graph.ty(value)).then_some(())?,
                None => self.types[usize::from(class)] = Typed::Value(value),
            }
        }
        for &(value, number) in &known.weights {
            self.weights[number as usize] = Some(graph.weight(value)?.clone());
        }
        Some(())
    }

    fn all(&mut self, rules: &'a RuleSet) -> Option<()> {
        let plain: Vec<&Rule> = rules.of_terms().collect();
        let mut seen: Vec<Vec<Option<Match>>> = Vec::new();
        for event in &self.known.events {
            match event {
                Event::Tried(own) => self.tried(plain.get(own.rule)?, own)?,
                Event::Siblings(all) => {
                    let own = self.siblings(rules.horizontals.get(seen.len())?, all)?;
                    seen.push(own);
                }
                Event::Joined { rule, members, work } => {
                    let group = members.iter().map(|&member| seen[*rule][member].clone());
                    let group = group.collect::<Option<Vec<Match>>>()?;
                    self.joined(rules.horizontals.get(*rule)?, &group, work)?;
                }
                Event::Copied(_) => {}
            }
        }
        Some(())
    }

    /// The match at a place, with what names stand for here.
    fn matched(&self, pattern: &Term, site: &Site) -> Option<Match> {
        let answers = Answers::default();
        let table = Matched {
            replay: self,
            site,
            facts: Known {
                replay: self,
                answers: &answers,
            },
        };
        let mut found = ematch::matches_at(&table, pattern, site.root).into_iter();
        found
            .find(|found| site.is_of(&found.names))
            .filter(|_| answers.is_done())
    }

    fn tried(&mut self, rule: &Rule, own: &'a Tried) -> Option<()> {
        let (left, right) = if own.is_forward {
            (&rule.left, &rule.right)
        } else {
            (&rule.right, &rule.left)
        };
        let mut found = self.matched(left, &own.site)?;
        self.begin(&own.work);
        let facts = Known {
            replay: self,
            answers: &self.answers,
        };
        if conditions::admit(&rule.lets, &rule.conditions, &mut found.names, &facts) != own.holds {
            return None;
        }
        if own.holds {
            let mut builder = Builder {
                graph: self,
                names: found.names,
                rule: 0,
                from: SmallVec::new(),
            };
            let is_built = builder.term(right).is_some();
            (is_built == own.work.is_built).then_some(())?;
        }
        self.is_done().then_some(())
    }

    /// The matches of a horizontal rule, where the same of them may be joined, and with the same.
    fn siblings(&mut self, rule: &Horizontal, all: &'a [Sibling]) -> Option<Vec<Option<Match>>> {
        let mut keys: Vec<(usize, String)> = Vec::new();
        let mut seen = Vec::new();
        for own in all {
            let mut found = self.matched(&rule.pattern, &own.site)?;
            let answers = Answers::of(&own.asked);
            let facts = Known {
                replay: self,
                answers: &answers,
            };
            let key = siblings::admitted(rule, &mut found, &facts);
            if !answers.is_done() || key.is_some() != own.group.is_some() {
                return None;
            }
            seen.push(key.is_some().then_some(found));
            if let (Some(group), Some(key)) = (own.group, key) {
                let is_known = |known: &&(usize, String)| known.0 == group || known.1 == key;
                match keys.iter().find(is_known) {
                    Some(known) if *known == (group, key.clone()) => {}
                    Some(_) => return None,
                    None => keys.push((group, key)),
                }
            }
        }
        Some(seen)
    }

    fn joined(&mut self, rule: &Horizontal, group: &[Match], work: &'a Work) -> Option<()> {
        self.begin(work);
        siblings::merge(self, rule, 0, group).ok()?;
        self.is_done().then_some(())
    }

    fn begin(&mut self, work: &'a Work) {
        self.answers = Answers::of(&work.asked);
        self.puts = &work.puts;
    }

    fn is_done(&self) -> bool {
        self.answers.is_done() && self.puts.is_empty()
    }

    /// Nodes that are one are equal here, too, and no others are.
    fn settle(&self) -> Option<()> {
        for &(a, b) in &self.known.equal {
            (self.attrs_of(a)? == self.attrs_of(b)?).then_some(())?;
        }
        for groups in &self.known.apart {
            for (number, &a) in groups.iter().enumerate() {
                let own = self.attrs_of(a)?;
                let is_other = |&b: &Group| self.attrs_of(b).is_some_and(|other| other != own);
                groups[number + 1..].iter().all(is_other).then_some(())?;
            }
        }
        Some(())
    }

    fn net(&self) -> Option<Net> {
        let mut net = self.known.net.clone();
        for (tensor, &class) in net.tensors.iter_mut().zip(&self.known.classes) {
            tensor.ty.clone_from(self.type_of(class)?);
            tensor.n_elements = tensor.ty.n_elements();
        }
        for (expr, &group) in net.exprs.iter_mut().zip(&self.known.groups) {
            expr.attrs = self.attrs_of(group)?.clone();
            let ty = |tensor: usize| net.tensors[tensor].ty.clone();
            match expr.kind {
                TileKind::Map | TileKind::View | TileKind::Index => {}
                TileKind::Reduce | TileKind::Dot | TileKind::Window | TileKind::Other => {
                    let operands = expr.operands.iter();
                    let types: Vec<Option<TensorType>> = operands
                        .map(|operand| operand.as_ref().map(|own| ty(own.tensor)))
                        .collect();
                    expr.flops = flops_of_op(expr.op, &expr.attrs, &types, &ty(expr.results[0]));
                }
            }
        }
        let is_weight = |tensor: &&NetTensor| matches!(tensor.source, NetSource::Const(Some(_)));
        net.weight_bytes = net.tensors.iter().filter(is_weight).map(NetTensor::n_bytes).sum();
        Some(net)
    }

    /// The types of the results of an op on these classes.
    fn inferred(&self, op: &'static str, attrs: &Attrs, children: &[Id]) -> Option<TensorType> {
        let operands: Vec<Option<TensorType>> = children.iter().map(|&child| self.ty(child)).collect();
        let types = def_of(op).result_types(&InferCtx {
            attrs,
            operands: &operands,
        });
        types.ok()?.into_iter().next()
    }
}

impl Ground for Replay<'_> {
    fn ty(&self, class: Id) -> Option<TensorType> {
        self.type_of(class).cloned()
    }

    fn is_absent(&self, class: Id) -> bool {
        self.known.absent == Some(class)
    }

    fn evaluate(&mut self, expr: &Expr, names: &Bindings) -> Option<Value> {
        let facts = Known {
            replay: self,
            answers: &self.answers,
        };
        conditions::evaluate(expr, names, &facts)
    }

    fn attrs(&mut self, attrs: Attrs) -> u32 {
        self.made.push(attrs);
        u32::try_from(self.made.len() - 1).expect("e-graphs have under 2^32 nodes")
    }

    fn word(&mut self, word: &str) -> u32 {
        let known = self.known.words.iter().position(|own| own == word);
        known.map_or(u32::MAX, |number| {
            u32::try_from(number).expect("rules have few words")
        })
    }

    fn weight(&mut self, data: HostTensor) -> Enode {
        let next = self
            .puts
            .first()
            .map(|put| &self.known.forms[put.enode.data as usize]);
        match next {
            Some(form) if form.head == Head::Weight => {
                // A constant of another type is none of the nodes that may be put.
                let is_typed = self.give_type(form.class, data.ty()).is_some();
                self.weights[form.data as usize] = Some(data);
                Enode::leaf(Head::Weight, if is_typed { form.data } else { u32::MAX })
            }
            _ => Enode::leaf(Head::Weight, u32::MAX),
        }
    }

    fn put(&mut self, enode: Enode, _: &Maker<'_>) -> Option<Id> {
        let Some((put, rest)) = self.puts.split_first() else {
            self.answers.is_off.set(true);
            return None;
        };
        self.puts = rest;
        let made = self.made_as(&enode, put);
        if made.is_none() {
            self.answers.is_off.set(true);
        }
        made.map(|()| put.class)
    }

    fn unite(&mut self, left: Id, right: Id, _: &Header) -> Result<bool, RewriteError> {
        // In one class both have one type.
        if left != right {
            self.answers.is_off.set(true);
        }
        Ok(true)
    }
}

impl Replay<'_> {
    /// A node takes the place of the one that was put there.
    fn made_as(&mut self, enode: &Enode, put: &Put) -> Option<()> {
        let group = put.enode.data;
        let form = &self.known.forms[group as usize];
        let is_it = enode.head == form.head && enode.children == form.children;
        if !is_it || (!enode.head.has_attrs() && enode.data != form.data) {
            return None;
        }
        if enode.head.has_attrs() {
            self.give(group, Slot::Made(enode.data as usize))?;
        }
        if let Head::Op(op) = enode.head {
            let ty = self.inferred(op, self.attrs_of(group)?, &enode.children)?;
            self.give_type(form.class, ty)?;
        }
        Some(())
    }
}
