//! What rules do to an e-graph, written down as they do it, so that another shape's can be derived alike.
//!
//! Most rules of the e-graph say nothing of extents: they turn ops into tile forms and fuse these by their kinds, so
//! where they match is told by the structure of a graph alone. Of them only who takes whose attributes over is
//! written down. Of all others every match is, those that were refused too, with what was asked to decide it.

use std::cell::RefCell;

use egg::Id;

use super::ebuild::Maker;
use super::ematch::Match;
use super::facts::{Binding, Bindings, Facts, Handle};
use super::language::{Enode, Head as TermHead};
use super::rule_ast::{AttrItem, BinaryOp, Expr, ExprKind, Head, OpTerm, Rule, Term};
use super::rule_set::RuleSet;
use super::saturate::runs_here;
use super::siblings::{Group, Seen};
use super::term_facts::TermFacts;
use crate::ir::{Attrs, HostTensor, TensorType};

/// Functions of conditions whose answers are the same in every shape of a graph.
const FREE_FUNCTIONS: [&str; 4] = ["kind", "consumers", "flops", "const"];

/// A question about a value, with the answer where that is the same in every shape.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    Type(Handle),
    /// The number of the constant that the value is, if it is one.
    Weight(Handle, Option<u32>),
    IsConst(Handle, bool),
    Consumers(Handle, usize),
    Kind(Handle, Option<&'static str>),
    Flops(Handle, f64),
    MadeBy(Handle, Option<Enode>),
}

/// Facts of an e-graph that remembers what it is asked.
pub struct Asking<'a> {
    facts: TermFacts<'a>,
    asked: RefCell<Vec<Asked>>,
}

impl<'a> Asking<'a> {
    pub fn new(facts: TermFacts<'a>) -> Self {
        Asking {
            facts,
            asked: RefCell::default(),
        }
    }

    pub fn asked(self) -> Vec<Asked> {
        self.asked.into_inner()
    }

    fn note(&self, asked: Asked) {
        self.asked.borrow_mut().push(asked);
    }

    fn note_weight(&self, value: Handle) {
        self.note(Asked::Weight(value, self.facts.weight_number(value)));
    }
}

impl Facts for Asking<'_> {
    fn ty(&self, value: Handle) -> Option<TensorType> {
        self.note(Asked::Type(value));
        self.facts.ty(value)
    }

    fn is_const(&self, value: Handle) -> bool {
        let answer = self.facts.is_const(value);
        self.note(Asked::IsConst(value, answer));
        answer
    }

    fn scalar(&self, value: Handle) -> Option<f64> {
        self.note_weight(value);
        self.facts.scalar(value)
    }

    fn consumers(&self, value: Handle) -> usize {
        let answer = self.facts.consumers(value);
        self.note(Asked::Consumers(value, answer));
        answer
    }

    fn kind(&self, value: Handle) -> Option<&'static str> {
        let answer = self.facts.kind(value);
        self.note(Asked::Kind(value, answer));
        answer
    }

    fn flops(&self, value: Handle) -> f64 {
        let answer = self.facts.flops(value);
        self.note(Asked::Flops(value, answer));
        answer
    }

    fn made_by(&self, value: Handle, op: &str) -> Option<(Attrs, Vec<Option<Handle>>)> {
        self.note(Asked::MadeBy(value, self.facts.maker(value, op).cloned()));
        self.facts.made_by(value, op)
    }

    fn ints(&self, value: Handle) -> Option<Vec<i64>> {
        self.note_weight(value);
        self.facts.ints(value)
    }

    fn weight_data(&self, value: Handle) -> Option<&HostTensor> {
        self.note_weight(value);
        self.facts.weight_data(value)
    }
}

/// A node that a rule asked for.
#[derive(Clone, Debug)]
pub struct Put {
    pub enode: Enode,
    pub class: Id,
    /// The name of the pattern whose op and attributes it takes over.
    pub copied: Option<String>,
}

/// A place where a pattern matches.
#[derive(Clone, Debug)]
pub struct Site {
    pub root: Id,
    /// What its ops match, outermost first, with the classes of these.
    pub nodes: Vec<(Id, Enode)>,
    /// The values that names stand for.
    pub names: Vec<(String, Binding)>,
}

impl Site {
    fn of(found: &Match) -> Self {
        let values = found.names.iter().filter(|(_, binding)| is_of_values(binding));
        Site {
            root: found.root,
            nodes: found
                .from
                .iter()
                .copied()
                .zip(found.nodes.iter().cloned())
                .collect(),
            names: values.cloned().collect(),
        }
    }

    /// Whether the values of `names` are those of this place.
    pub fn is_of(&self, names: &Bindings) -> bool {
        let values = names.iter().filter(|(_, binding)| is_of_values(binding));
        values.eq(&self.names)
    }
}

fn is_of_values(binding: &Binding) -> bool {
    matches!(binding, Binding::Value(_) | Binding::Many(_) | Binding::Absent)
}

/// What a rule asked and made at one place.
#[derive(Clone, Debug, Default)]
pub struct Work {
    pub asked: Vec<Asked>,
    pub puts: Vec<Put>,
    /// Whether all of the right side was made.
    pub is_built: bool,
}

/// Something that a rule did, or might have done.
#[derive(Clone, Debug)]
pub enum Event {
    Tried(Tried),
    /// Nodes, each with the one whose attributes it takes over, if it has any.
    Copied(Vec<(Enode, Enode)>),
    /// All matches of a horizontal rule, and for each its group.
    Siblings(Vec<Sibling>),
    /// Some of these, of the rule of that number, joined.
    Joined {
        rule: usize,
        members: Vec<usize>,
        work: Work,
    },
}

/// A rule, told by its number, that asks for extents, and a place where it was tried.
#[derive(Clone, Debug)]
pub struct Tried {
    pub rule: usize,
    pub is_forward: bool,
    pub site: Site,
    pub holds: bool,
    pub work: Work,
}

/// A match of a horizontal rule.
#[derive(Clone, Debug)]
pub struct Sibling {
    pub site: Site,
    pub asked: Vec<Asked>,
    pub group: Option<usize>,
}

/// What was done so far, in order.
#[derive(Clone, Debug, Default)]
pub struct Record {
    pub events: Vec<Event>,
    /// Of the rule that is at work.
    pub asked: Vec<Asked>,
    pub puts: Vec<Put>,
    pub is_built: bool,
    /// Where in `events` the matches of horizontal rules are.
    siblings: Vec<usize>,
}

impl Record {
    fn work(&mut self) -> Work {
        Work {
            asked: std::mem::take(&mut self.asked),
            puts: std::mem::take(&mut self.puts),
            is_built: std::mem::take(&mut self.is_built),
        }
    }

    pub fn put(&mut self, enode: &Enode, class: Id, by: &Maker<'_>) {
        self.puts.push(Put {
            enode: enode.clone(),
            class,
            copied: by.copied.map(str::to_owned),
        });
    }

    /// A rule that asks for extents was at work, or was refused.
    pub fn tried(&mut self, rule: usize, is_forward: bool, found: &Match, asked: Vec<Asked>, holds: bool) {
        let mut work = self.work();
        work.asked.splice(0..0, asked);
        self.events.push(Event::Tried(Tried {
            rule,
            is_forward,
            site: Site::of(found),
            holds,
            work,
        }));
    }

    /// A rule that asks for none was at work where its pattern `left` matched `nodes`.
    pub fn copied(&mut self, left: &Term, nodes: &[Enode]) {
        let work = self.work();
        let from = |put: Put| {
            let place = place_of(left, put.copied.as_deref()?)?;
            Some((put.enode, nodes.get(place)?.clone()))
        };
        let copies: Vec<(Enode, Enode)> = work.puts.into_iter().filter_map(from).collect();
        if !copies.is_empty() {
            self.events.push(Event::Copied(copies));
        }
    }

    /// All matches of the next horizontal rule.
    pub fn seen(&mut self, seen: Vec<Seen>) {
        self.siblings.push(self.events.len());
        let all = seen.into_iter().map(|own| Sibling {
            site: Site::of(&own.found),
            asked: own.asked,
            group: own.group,
        });
        self.events.push(Event::Siblings(all.collect()));
    }

    /// What is left of a group of the horizontal rule of that number was to be joined.
    pub fn joined(&mut self, rule: usize, (number, siblings): &Group) {
        let work = self.work();
        let Some(Event::Siblings(seen)) = self.siblings.get(rule).map(|&at| &self.events[at]) else {
            return;
        };
        let place = |sibling: &Match| {
            let is_it = |own: &Sibling| own.group == Some(*number) && own.site.root == sibling.root;
            seen.iter().position(is_it)
        };
        let members = siblings.iter().filter_map(place).collect();
        self.events.push(Event::Joined { rule, members, work });
    }
}

/// Which op of a pattern, outermost first, binds a name.
fn place_of(pattern: &Term, name: &str) -> Option<usize> {
    ops_of(pattern)
        .iter()
        .position(|op| bound_by(op).any(|own| own == name))
}

/// The ops of a pattern in the order in which they are matched.
fn ops_of(pattern: &Term) -> Vec<&OpTerm> {
    let mut ops = Vec::new();
    pattern.walk(&mut |term| {
        if let Term::Op(op) = term {
            ops.push(op);
        }
    });
    ops
}

/// Names of a pattern's op that stand for attributes.
fn bound_by(op: &OpTerm) -> impl Iterator<Item = &str> {
    let family = match &op.head {
        Head::Family { binding, .. } => Some(binding.text.as_str()),
        Head::Op(_) | Head::Tile(_) => None,
    };
    let named = op.attrs.iter().filter_map(|item| match item {
        AttrItem::Bare(name) => Some(name.text.as_str()),
        AttrItem::Named { value, .. } => match &value.kind {
            ExprKind::Name(name) => Some(name.as_str()),
            _ => None,
        },
    });
    family.into_iter().chain(named)
}

/// Whether no pattern of the e-graph's rules compares attributes or constants: then where they match, but for
/// conditions, is told by the structure of a graph.
pub fn are_structural(rules: &RuleSet) -> bool {
    let sides = rules.rules.iter().filter(|rule| runs_here(rule));
    let sides = sides.flat_map(|rule| [&rule.left, &rule.right].into_iter().take(n_patterns(rule)));
    sides
        .chain(rules.horizontals.iter().map(|rule| &rule.pattern))
        .all(is_structural)
}

fn n_patterns(rule: &Rule) -> usize {
    if rule.arrow == super::rule_ast::Arrow::Both {
        2
    } else {
        1
    }
}

fn is_structural(pattern: &Term) -> bool {
    let ops = ops_of(pattern);
    let mut is_plain = true;
    pattern.walk(&mut |term| {
        is_plain &= !matches!(term, Term::Scalar { .. });
        is_plain &= !matches!(term, Term::Each(inner) if matches!(**inner, Term::Op(_)));
    });
    let is_load = |op: &OpTerm| matches!(&op.head, Head::Tile(name) if name.text == "load");
    let attributed = || ops.iter().filter(|op| !is_load(op));
    let is_name = |item: &AttrItem| match item {
        AttrItem::Bare(_) => true,
        AttrItem::Named { value, .. } => matches!(value.kind, ExprKind::Name(_)),
    };
    let mut names: Vec<&str> = attributed().flat_map(|op| bound_by(op)).collect();
    let n_names = names.len();
    names.sort_unstable();
    names.dedup();
    is_plain && names.len() == n_names && attributed().all(|op| op.attrs.iter().all(is_name))
}

/// Whether extents play no part in a rule: it copies attributes, and asks for nothing that shapes decide.
pub fn is_free(rule: &Rule, left: &Term, right: &Term) -> bool {
    let ops = ops_of(left);
    let is_bare = |op: &&OpTerm| op.attrs.iter().all(|item| matches!(item, AttrItem::Bare(_)));
    let bound: Vec<&str> = ops.iter().flat_map(|op| bound_by(op)).collect();
    rule.lets.is_empty()
        && ops.iter().all(is_bare)
        && rule
            .conditions
            .iter()
            .all(|condition| asks_nothing(condition, &bound))
        && copies(right)
}

fn asks_nothing(expr: &Expr, bound: &[&str]) -> bool {
    let is_bound = |expr: &Expr| matches!(&expr.kind, ExprKind::Name(name) if bound.contains(&name.as_str()));
    match &expr.kind {
        ExprKind::Call { function, args } => {
            FREE_FUNCTIONS.contains(&function.text.as_str())
                && args.iter().all(|own| asks_nothing(own, bound))
        }
        ExprKind::Not(inner) | ExprKind::Negate(inner) => asks_nothing(inner, bound),
        ExprKind::Binary { op, left, right } => {
            let compares = matches!(op, BinaryOp::Equal | BinaryOp::NotEqual);
            asks_nothing(left, bound)
                && asks_nothing(right, bound)
                && !(compares && is_bound(left) && is_bound(right))
        }
        ExprKind::In { value, set } => {
            asks_nothing(value, bound) && set.iter().all(|own| asks_nothing(own, bound) && !is_bound(own))
        }
        ExprKind::List(items) => items.iter().all(|own| asks_nothing(own, bound)),
        ExprKind::Int(_) | ExprKind::Float(_) | ExprKind::Str(_) | ExprKind::DType(_) | ExprKind::Name(_) => {
            true
        }
    }
}

/// Whether a right side is made of tile forms that take ops and attributes over.
fn copies(term: &Term) -> bool {
    match term {
        Term::Var(_) | Term::Optional { default: None, .. } => true,
        Term::Optional { .. } | Term::Scalar { .. } => false,
        Term::Each(inner) => copies(inner),
        Term::Op(op) => {
            let is_bare = |item: &AttrItem| matches!(item, AttrItem::Bare(_));
            matches!(op.head, Head::Tile(_)) && op.attrs.iter().all(is_bare) && op.operands.iter().all(copies)
        }
    }
}

/// Whether nodes of this head have attributes.
pub fn has_attrs(head: TermHead) -> bool {
    matches!(head, TermHead::Op(_) | TermHead::Tile(_))
}
