//! Matching rule patterns against the e-graph.
//!
//! Patterns are variadic, name whole families of ops and bind attributes, which egg's own
//! patterns cannot; so matching walks the AST of the rule. A match is a set of names, the
//! class it was found at and the classes its ops matched.

use egg::Id;
use smallvec::SmallVec;

use super::analysis::Terms;
use super::language::{Enode, Head as TermHead, kind_names, kind_of};
use super::term_facts::{TermFacts, handle};
use crate::ir::{Attr, Attrs};
use crate::ops::lookup;
use crate::rewrite::conditions;
use crate::rewrite::conditions::facts::{Binding, Bindings, Facts};
use crate::rewrite::conditions::values::{Value, equal};
use crate::rewrite::rules::ast::{AttrItem, ExprKind, Head, Name, OpTerm, Term};

/// One way a pattern matches.
#[derive(Clone, Debug)]
pub struct Match {
    pub root: Id,
    /// The node the pattern's outermost op matched.
    pub node: Option<Enode>,
    pub names: Bindings,
    /// Classes that ops of the pattern matched, outermost first.
    pub from: SmallVec<[Id; 4]>,
    /// The nodes of these, where they are asked for.
    pub nodes: Vec<Enode>,
}

impl Match {
    fn at(root: Id) -> Self {
        Match {
            root,
            node: None,
            names: Bindings::default(),
            from: SmallVec::new(),
            nodes: Vec::new(),
        }
    }
}

/// Nodes by their classes, for patterns to match.
pub trait Nodes {
    fn find(&self, id: Id) -> Id;
    fn nodes(&self, class: Id) -> impl Iterator<Item = &Enode>;
    fn is_absent(&self, class: Id) -> bool;
    /// The attributes of a node, and how many results it has.
    fn attrs(&self, enode: &Enode) -> (&Attrs, usize);
    /// The mode of a load.
    fn mode(&self, enode: &Enode) -> &str;
    fn facts(&self) -> &dyn Facts;
}

/// All nodes of an e-graph.
struct All<'a> {
    facts: TermFacts<'a>,
}

impl Nodes for All<'_> {
    fn find(&self, id: Id) -> Id {
        self.facts.terms.find(id)
    }

    fn nodes(&self, class: Id) -> impl Iterator<Item = &Enode> {
        self.facts.terms[class].iter()
    }

    fn is_absent(&self, class: Id) -> bool {
        let mut nodes = self.facts.terms[class].iter();
        nodes.any(|enode| enode.head == TermHead::Absent)
    }

    fn attrs(&self, enode: &Enode) -> (&Attrs, usize) {
        let interner = &self.facts.terms.analysis.interner;
        (interner.attrs_of(enode.data), interner.n_results(enode.data))
    }

    fn mode(&self, enode: &Enode) -> &str {
        self.facts.terms.analysis.interner.word_of(enode.data)
    }

    fn facts(&self) -> &dyn Facts {
        &self.facts
    }
}

/// All matches of `pattern`, by rising class; with the nodes that ops matched if `keeps_nodes`.
pub fn search(terms: &Terms, pattern: &Term, keeps_nodes: bool) -> Vec<Match> {
    let table = All {
        facts: TermFacts { terms },
    };
    let matcher = Matcher {
        table: &table,
        keeps_nodes,
    };
    let roots = roots(terms, pattern).into_iter();
    roots
        .flat_map(|root| matcher.term(pattern, root, Match::at(root)))
        .collect()
}

/// The matches of `pattern` at `root`.
pub fn matches_at(table: &impl Nodes, pattern: &Term, root: Id) -> Vec<Match> {
    let matcher = Matcher {
        table,
        keeps_nodes: false,
    };
    matcher.term(pattern, root, Match::at(root))
}

/// Classes that may match at the top.
fn roots(terms: &Terms, pattern: &Term) -> Vec<Id> {
    let Term::Op(op) = pattern else {
        return Vec::new();
    };
    let head = match &op.head {
        Head::Op(name) => lookup(&name.text).map(|def| TermHead::Op(def.name)),
        Head::Tile(name) if name.text == "store" => Some(TermHead::Store),
        Head::Tile(name) if name.text == "load" => Some(TermHead::Load),
        Head::Tile(_) | Head::Family { .. } => None,
    };
    let mut roots: Vec<Id> = match head {
        Some(head) => terms.classes_for_op(&head).into_iter().flatten().collect(),
        None => terms.classes().map(|class| class.id).collect(),
    };
    roots.sort_unstable();
    roots
}

struct Matcher<'a, T> {
    table: &'a T,
    keeps_nodes: bool,
}

impl<T: Nodes> Matcher<'_, T> {
    fn term(&self, term: &Term, class: Id, so_far: Match) -> Vec<Match> {
        let class = self.table.find(class);
        match term {
            Term::Var(name) => {
                if self.table.is_absent(class) {
                    return Vec::new();
                }
                bound(so_far, name, Binding::Value(handle(class)))
            }
            Term::Optional { name, .. } => {
                let binding = if self.table.is_absent(class) {
                    Binding::Absent
                } else {
                    Binding::Value(handle(class))
                };
                bound(so_far, name, binding)
            }
            Term::Scalar { value, .. } => {
                let wanted = conditions::evaluate(value, &so_far.names, self.table.facts());
                let wanted = wanted.as_ref().and_then(Value::as_float);
                let found = self.table.facts().scalar(handle(class));
                let fits = wanted.is_some() && wanted == found;
                if fits { vec![so_far] } else { Vec::new() }
            }
            Term::Each(_) => Vec::new(),
            Term::Op(op) => self.op(op, class, &so_far),
        }
    }

    /// Every node of the class that `op` matches.
    fn op(&self, op: &OpTerm, class: Id, so_far: &Match) -> Vec<Match> {
        let mut matches = Vec::new();
        for enode in self.table.nodes(class) {
            let mut state = so_far.clone();
            if !self.head(op, enode, &mut state.names) {
                continue;
            }
            if let Some(label) = &op.label
                && !state.names.bind(&label.text, Binding::Value(handle(class)))
            {
                continue;
            }
            if state.from.is_empty() {
                state.node = Some(enode.clone());
            }
            state.from.push(class);
            if self.keeps_nodes {
                state.nodes.push(enode.clone());
            }
            matches.extend(self.operands(&op.operands, &enode.children, state.clone()));
            if let [first, second] = *enode.children
                && commutes(enode)
                && first != second
            {
                matches.extend(self.operands(&op.operands, &[second, first], state));
            }
        }
        matches
    }

    /// Whether op and attributes fit; binds what the pattern names of them.
    fn head(&self, op: &OpTerm, enode: &Enode, names: &mut Bindings) -> bool {
        match (&op.head, enode.head) {
            (Head::Op(name), TermHead::Op(own)) => name.text == own && self.attrs(op, enode, names),
            (Head::Family { kind, binding }, TermHead::Op(own)) => {
                kind.text == kind_names(kind_of(own)).0
                    && self.table.attrs(enode).1 == 1
                    && self.bind_op(binding, own, enode, names)
            }
            (Head::Tile(form), TermHead::Store) => form.text == "store",
            (Head::Tile(form), TermHead::Load) => form.text == "load" && self.mode(op, enode, names),
            (Head::Tile(form), TermHead::Tile(own)) => {
                form.text == kind_names(kind_of(own)).1
                    && op.attrs.iter().all(|item| match item {
                        AttrItem::Bare(binding) => self.bind_op(binding, own, enode, names),
                        AttrItem::Named { .. } => false,
                    })
            }
            (Head::Op(_) | Head::Family { .. } | Head::Tile(_), _) => false,
        }
    }

    fn bind_op(&self, binding: &Name, own: &'static str, enode: &Enode, names: &mut Bindings) -> bool {
        let attrs = self.table.attrs(enode).0.clone();
        names.bind(&binding.text, Binding::Op(own, attrs))
    }

    /// A load's mode: the word that is written, or any one where a variable is.
    fn mode(&self, op: &OpTerm, enode: &Enode, names: &mut Bindings) -> bool {
        let own = self.table.mode(enode);
        op.attrs.iter().all(|item| match item {
            AttrItem::Bare(name) if is_variable(&name.text) => {
                names.bind(&name.text, Binding::Word(own.to_owned()))
            }
            AttrItem::Bare(name) => name.text == own,
            AttrItem::Named { .. } => false,
        })
    }

    fn attrs(&self, op: &OpTerm, enode: &Enode, names: &mut Bindings) -> bool {
        let own = self.table.attrs(enode).0;
        op.attrs.iter().all(|item| match item {
            AttrItem::Bare(name) => names.bind(&name.text, Binding::Attrs(own.clone())),
            AttrItem::Named { name, value } => {
                let Some(attr) = own.get(&name.text) else {
                    return false;
                };
                if let ExprKind::Name(variable) = &value.kind {
                    return attr_variable(variable, attr, names);
                }
                let wanted = conditions::evaluate(value, names, self.table.facts());
                let own = Value::Bound(Binding::Attr(attr.clone()));
                wanted.is_some_and(|wanted| equal(&wanted, &own))
            }
        })
    }

    /// Matches operands one by one; `x..` takes all that remain.
    fn operands(&self, patterns: &[Term], children: &[Id], state: Match) -> Vec<Match> {
        let Some((pattern, rest)) = patterns.split_first() else {
            let all_absent = children
                .iter()
                .all(|&child| self.table.is_absent(self.table.find(child)));
            return if all_absent { vec![state] } else { Vec::new() };
        };
        if let Term::Each(inner) = pattern {
            return self.each(inner, children, state).into_iter().collect();
        }
        match children.split_first() {
            Some((&child, others)) => self
                .term(pattern, child, state)
                .into_iter()
                .flat_map(|state| self.operands(rest, others, state))
                .collect(),
            None => match pattern {
                Term::Optional { name, .. } => bound(state, name, Binding::Absent)
                    .into_iter()
                    .flat_map(|state| self.operands(rest, children, state))
                    .collect(),
                _ => Vec::new(),
            },
        }
    }

    /// All remaining operands match `inner`, whose names collect one value each.
    fn each(&self, inner: &Term, children: &[Id], mut state: Match) -> Option<Match> {
        if let Term::Var(name) = inner {
            let values = children
                .iter()
                .map(|&child| handle(self.table.find(child)))
                .collect();
            return bound(state, name, Binding::Many(values)).pop();
        }
        let mut collected: Vec<(String, Vec<crate::rewrite::conditions::facts::Handle>)> = Vec::new();
        inner.walk(&mut |term| {
            if let Term::Var(name) = term {
                collected.push((name.text.clone(), Vec::new()));
            }
        });
        for &child in children {
            let found = self.term(inner, child, state.clone()).into_iter().next()?;
            for (name, values) in &mut collected {
                values.push(found.names.value(name)?);
            }
            (state.from, state.nodes) = (found.from, found.nodes);
        }
        for (name, values) in collected {
            state.names.bind(&name, Binding::Many(values)).then_some(())?;
        }
        Some(state)
    }
}

/// Binds a name to an attribute, or compares with what it stands for.
fn attr_variable(variable: &str, attr: &Attr, names: &mut Bindings) -> bool {
    let binding = Binding::Attr(attr.clone());
    match names.get(variable) {
        Some(known) => equal(&Value::Bound(known.clone()), &Value::Bound(binding)),
        None => names.bind(variable, binding),
    }
}

/// Load modes are words of the rule files; a variable is a single letter.
pub fn is_variable(mode: &str) -> bool {
    mode.chars().count() == 1
}

fn commutes(enode: &Enode) -> bool {
    match enode.head {
        TermHead::Op(name) => lookup(name).is_some_and(|def| def.operands.commutative),
        TermHead::Absent
        | TermHead::Input
        | TermHead::Weight
        | TermHead::Project
        | TermHead::Store
        | TermHead::Load
        | TermHead::Tile(_) => false,
    }
}

fn bound(mut state: Match, name: &Name, binding: Binding) -> Vec<Match> {
    if state.names.bind(&name.text, binding) {
        vec![state]
    } else {
        Vec::new()
    }
}
