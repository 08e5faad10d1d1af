//! Finds where the left side of a rule matches a graph.
//!
//! Matching is depth first over goals (a term and the operand it must describe). Ops that
//! commute are tried in both orders, and conditions are asked once all goals are met, so a
//! condition may decide between orders.

use super::conditions::{Value, admit, equal, evaluate};
use super::facts::{Binding, Bindings, Facts};
use super::rule_ast::{AttrItem, Expr, ExprKind, Head, OpTerm, Rule, Term};
use super::work_graph::{WorkGraph, handle, kind_name};
use crate::ir::{Attr, DType, Node, NodeId, Operand, ValueId};
use crate::ops::lookup;

/// A place where a rule's left side and conditions hold.
pub struct Match {
    pub bindings: Bindings,
    /// Nodes that the left side describes, outermost first.
    pub nodes: Vec<NodeId>,
}

/// Whether `rule` may match a node of `op`; cheap.
pub fn heads(rule: &Rule, op: &str) -> bool {
    match &rule.left {
        Term::Op(term) => fits_head(&term.head, op),
        Term::Var(_) | Term::Optional { .. } | Term::Each(_) | Term::Scalar { .. } => false,
    }
}

fn fits_head(head: &Head, op: &str) -> bool {
    match head {
        Head::Op(name) => name.text == op,
        Head::Family { kind, .. } => kind_name(op) == Some(kind.text.as_str()),
        Head::Tile(_) => false,
    }
}

/// Number of op levels of a term.
pub fn depth(term: &Term) -> usize {
    match term {
        Term::Var(_) | Term::Optional { .. } | Term::Scalar { .. } => 0,
        Term::Each(inner) => depth(inner),
        Term::Op(op) => 1 + op.operands.iter().map(depth).max().unwrap_or(0),
    }
}

/// The first match of `rule` at `root`, if there is one.
pub fn find(work: &WorkGraph, rule: &Rule, root: ValueId) -> Option<Match> {
    let mut matcher = Matcher {
        work,
        rule,
        bindings: Bindings::default(),
        nodes: Vec::new(),
    };
    matcher
        .solve(vec![(&rule.left, Some(root))], true)
        .then_some(Match {
            bindings: matcher.bindings,
            nodes: matcher.nodes,
        })
}

type Goal<'a> = (&'a Term, Operand);

struct Matcher<'a> {
    work: &'a WorkGraph,
    rule: &'a Rule,
    bindings: Bindings,
    nodes: Vec<NodeId>,
}

impl<'a> Matcher<'a> {
    /// Meets all goals, the last one first; then asks the conditions if `ask`.
    fn solve(&mut self, mut goals: Vec<Goal<'a>>, ask: bool) -> bool {
        while let Some((term, operand)) = goals.pop() {
            let met = match term {
                Term::Var(name) => match operand {
                    Some(value) => self.bindings.bind(&name.text, Binding::Value(handle(value))),
                    None => false,
                },
                Term::Optional { name, .. } => {
                    let binding = operand.map_or(Binding::Absent, |value| Binding::Value(handle(value)));
                    self.bindings.bind(&name.text, binding)
                }
                Term::Scalar { value, .. } => self.scalar(value, operand),
                // Only in operand lists, where `op` handles it.
                Term::Each(_) => false,
                Term::Op(op) => return self.op(op, operand, goals, ask),
            };
            if !met {
                return false;
            }
        }
        !ask || self.admitted()
    }

    fn admitted(&mut self) -> bool {
        let n_names = self.bindings.len();
        let admitted = admit(
            &self.rule.lets,
            &self.rule.conditions,
            &mut self.bindings,
            self.work,
        );
        if !admitted {
            self.bindings.truncate(n_names);
        }
        admitted
    }

    /// A constant that equals an expression; `scalar(c)` with a new name binds it.
    fn scalar(&mut self, expected: &Expr, operand: Operand) -> bool {
        let Some(value) = operand else { return false };
        let Some(found) = self.work.scalar(handle(value)) else {
            return false;
        };
        if let ExprKind::Name(name) = &expected.kind
            && self.bindings.get(name).is_none()
        {
            return self.bindings.bind(name, Binding::Attr(Attr::Float(found)));
        }
        let expected = evaluate(expected, &self.bindings, self.work).and_then(|value| value.as_float());
        let dtype = self.work.graph.ty(value).dtype;
        expected.is_some_and(|expected| agrees(found, expected, dtype))
    }

    /// Matches an op and goes on with the other goals; tries the orders of its operands.
    fn op(&mut self, term: &'a OpTerm, operand: Operand, goals: Vec<Goal<'a>>, ask: bool) -> bool {
        let Some(value) = operand else { return false };
        let Some((id, node)) = self.work.maker(value) else {
            return false;
        };
        if !fits_head(&term.head, node.op) {
            return false;
        }
        let (n_names, n_nodes) = (self.bindings.len(), self.nodes.len());
        self.nodes.push(id);
        if self.bind_head(term, value, node) {
            for &swap in orders(term, node) {
                let mut goals = goals.clone();
                let n_names = self.bindings.len();
                let n_nodes = self.nodes.len();
                if self.operands(term, node, swap, &mut goals) && self.solve(goals, ask) {
                    return true;
                }
                self.bindings.truncate(n_names);
                self.nodes.truncate(n_nodes);
            }
        }
        self.bindings.truncate(n_names);
        self.nodes.truncate(n_nodes);
        false
    }

    fn bind_head(&mut self, term: &OpTerm, value: ValueId, node: &Node) -> bool {
        let labelled = term
            .label
            .as_ref()
            .is_none_or(|label| self.bindings.bind(&label.text, Binding::Value(handle(value))));
        let named = match &term.head {
            Head::Family { binding, .. } => {
                let op = Binding::Op(node.op, node.attrs.clone());
                self.bindings.bind(&binding.text, op)
            }
            Head::Op(_) | Head::Tile(_) => true,
        };
        labelled && named && term.attrs.iter().all(|item| self.attr(item, node))
    }

    fn attr(&mut self, item: &AttrItem, node: &Node) -> bool {
        match item {
            AttrItem::Bare(name) => self.bindings.bind(&name.text, Binding::Attrs(node.attrs.clone())),
            AttrItem::Named { name, value } => {
                let Some(found) = node.attrs.get(&name.text) else {
                    return false;
                };
                if let ExprKind::Name(variable) = &value.kind
                    && self.bindings.get(variable).is_none()
                {
                    return self.bindings.bind(variable, Binding::Attr(found.clone()));
                }
                let found = Value::Bound(Binding::Attr(found.clone()));
                evaluate(value, &self.bindings, self.work).is_some_and(|expected| equal(&found, &expected))
            }
        }
    }

    /// Turns operands into goals; a last `x..` takes all that are left.
    fn operands(&mut self, term: &'a OpTerm, node: &Node, swap: bool, goals: &mut Vec<Goal<'a>>) -> bool {
        let (fixed, each) = match term.operands.split_last() {
            Some((Term::Each(inner), fixed)) => (fixed, Some(inner.as_ref())),
            _ => (term.operands.as_slice(), None),
        };
        let mut operands = node.operands.clone();
        if swap {
            operands.swap(0, 1);
        }
        let rest = operands.split_off(fixed.len().min(operands.len()));
        operands.resize(fixed.len(), None);
        goals.extend(fixed.iter().zip(operands).rev());
        match each {
            Some(inner) => self.each(inner, &rest),
            None => rest.iter().all(Option::is_none),
        }
    }

    /// Matches every operand with `term`; its variables collect one value per operand.
    fn each(&mut self, term: &'a Term, operands: &[Operand]) -> bool {
        let names = value_names(term);
        let mut collected = vec![Vec::new(); names.len()];
        for &operand in operands {
            let outer: Vec<Option<Binding>> = names.iter().map(|name| self.bindings.take(name)).collect();
            if outer.iter().any(Option::is_some) || !self.solve(vec![(term, operand)], false) {
                return false;
            }
            for (name, values) in names.iter().zip(&mut collected) {
                match self.bindings.take(name) {
                    Some(Binding::Value(value)) => values.push(value),
                    _ => return false,
                }
            }
        }
        names
            .iter()
            .zip(collected)
            .all(|(name, values)| self.bindings.bind(name, Binding::Many(values)))
    }
}

/// Names of values in a term, each once.
fn value_names(term: &Term) -> Vec<&str> {
    let mut names = Vec::new();
    term.walk(&mut |term| {
        let name = match term {
            Term::Var(name) => Some(&name.text),
            Term::Op(op) => op.label.as_ref().map(|label| &label.text),
            Term::Optional { .. } | Term::Each(_) | Term::Scalar { .. } => None,
        };
        if let Some(name) = name.filter(|name| !names.contains(&name.as_str())) {
            names.push(name.as_str());
        }
    });
    names
}

fn orders(term: &OpTerm, node: &Node) -> &'static [bool] {
    let commutes = lookup(node.op).is_some_and(|def| def.operands.commutative);
    if commutes && term.operands.len() == 2 && node.operands.len() == 2 {
        &[false, true]
    } else {
        &[false]
    }
}

/// Whether a stored constant is the number a rule names, as far as its kind can say.
fn agrees(found: f64, expected: f64, dtype: DType) -> bool {
    let relative = match dtype {
        DType::F16 => 1e-3,
        DType::BF16 => 8e-3,
        _ if dtype.is_float() => 1e-6,
        _ => 0.0,
    };
    (found - expected).abs() <= relative * expected.abs()
}
