//! What rules do to an e-graph, written down as they do it, so that another shape's can be derived alike.
//!
//! Most rules of the e-graph say nothing of extents: they turn ops into tile forms and fuse these by their kinds, so
//! where they match is told by the structure of a graph alone. Of them only who takes whose attributes over is
//! written down. Of all others every match is, those that were refused too, with what was asked to decide it.

use egg::Id;

use super::asking::Asked;
use super::ematch::Match;
use super::language::Enode;
use crate::rewrite::conditions::facts::{Binding, Bindings};
use crate::rewrite::rules::ast::Term;
use crate::rewrite::rules::structure::place_of;

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
    pub fn of(found: &Match) -> Self {
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
    /// What was asked to decide whether it may be joined.
    pub asked: Vec<Asked>,
    /// The number of its group, if it may be in one.
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

    /// A node was asked for that takes over what the name `copied` of the pattern stands for.
    pub fn put(&mut self, enode: &Enode, class: Id, copied: Option<&str>) {
        self.puts.push(Put {
            enode: enode.clone(),
            class,
            copied: copied.map(str::to_owned),
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
    pub fn seen(&mut self, all: Vec<Sibling>) {
        self.siblings.push(self.events.len());
        self.events.push(Event::Siblings(all));
    }

    /// What is left of a group of the horizontal rule of that number was to be joined.
    pub fn joined(&mut self, rule: usize, number: usize, siblings: &[Match]) {
        let work = self.work();
        let Some(Event::Siblings(seen)) = self.siblings.get(rule).map(|&at| &self.events[at]) else {
            return;
        };
        let place = |sibling: &Match| {
            let is_it = |own: &Sibling| own.group == Some(number) && own.site.root == sibling.root;
            seen.iter().position(is_it)
        };
        let members = siblings.iter().filter_map(place).collect();
        self.events.push(Event::Joined { rule, members, work });
    }
}
