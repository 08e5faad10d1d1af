//! Finds where the left side of a rule matches a graph.
//!
//! Matching is depth first over goals (a term and the operand it must describe). Ops that
//! commute are tried in both orders, and conditions are asked once all goals are met, so a
//! condition may decide between orders. [`near_miss`] does the same and remembers how far it
//! came.

use super::work_graph::{WorkGraph, handle, kind_name};
use crate::ir::{Attr, DType, Node, NodeId, Operand, ValueId};
use crate::ops::lookup;
use crate::rewrite::conditions::facts::{Binding, Bindings, Facts};
use crate::rewrite::conditions::unmet::Speaker;
use crate::rewrite::conditions::values::{Value, equal};
use crate::rewrite::conditions::{admit, evaluate};
use crate::rewrite::rules::ast::{AttrItem, Expr, ExprKind, Head, OpTerm, Rule, Term};
use crate::rewrite::rules::set::RuleSet;

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
    if !has_ops(work, &rule.left, Some(root)) {
        return None;
    }
    let mut matcher = Matcher::new(work, rule, None);
    matcher
        .solve(vec![(&rule.left, Some(root))], true)
        .then_some(Match {
            bindings: matcher.bindings,
            nodes: matcher.nodes,
        })
}

/// Whether the ops of `term` are there, whatever else it asks for; cheap.
fn has_ops(work: &WorkGraph, term: &Term, operand: Operand) -> bool {
    let Term::Op(op) = term else {
        return true;
    };
    let Some((_, node)) = operand.and_then(|value| work.maker(value)) else {
        return false;
    };
    let all = |operands: &mut dyn Iterator<Item = &Operand>| {
        let mut terms = op.operands.iter();
        terms.all(|term| has_ops(work, term, operands.next().copied().flatten()))
    };
    let own = &node.operands;
    fits_head(&op.head, node.op)
        && (all(&mut own.iter()) || (orders(op, node).len() > 1 && all(&mut own.iter().rev())))
}

/// How far a rule came at a place where it does not match.
#[derive(Clone, Debug, Default)]
pub struct NearMiss {
    /// Nodes that the left side describes, outermost first.
    pub nodes: Vec<NodeId>,
    /// What was found in the place of what was asked for.
    pub reason: String,
}

/// Where `rule` comes closest to a match at `root`; `None` where it matches, or does not even
/// know the op.
pub fn near_miss(work: &WorkGraph, rules: &RuleSet, rule: &Rule, root: ValueId) -> Option<NearMiss> {
    let trace = Trace {
        speaker: Speaker { rules, facts: work },
        best: None,
    };
    let mut matcher = Matcher::new(work, rule, Some(trace));
    if matcher.solve(vec![(&rule.left, Some(root))], true) {
        return None;
    }
    matcher.trace?.best.filter(|best| !best.nodes.is_empty())
}

type Goal<'a> = (&'a Term, Operand);

struct Matcher<'a> {
    work: &'a WorkGraph,
    rule: &'a Rule,
    bindings: Bindings,
    nodes: Vec<NodeId>,
    trace: Option<Trace<'a>>,
}

/// The failure with most nodes behind it; the first of equals.
struct Trace<'a> {
    speaker: Speaker<'a>,
    best: Option<NearMiss>,
}

impl<'a> Matcher<'a> {
    fn new(work: &'a WorkGraph, rule: &'a Rule, trace: Option<Trace<'a>>) -> Self {
        Matcher {
            work,
            rule,
            bindings: Bindings::default(),
            nodes: Vec::new(),
            trace,
        }
    }

    /// Notes a failure, if anybody asks.
    fn fail(&mut self, reason: impl FnOnce(&Speaker<'_>, &mut Bindings) -> String) -> bool {
        let Some(trace) = &mut self.trace else {
            return false;
        };
        let is_best = trace
            .best
            .as_ref()
            .is_none_or(|best| self.nodes.len() > best.nodes.len());
        if is_best {
            trace.best = Some(NearMiss {
                nodes: self.nodes.clone(),
                reason: reason(&trace.speaker, &mut self.bindings),
            });
        }
        false
    }

    /// Binds a name, or notes that it stands for something else.
    fn bind(&mut self, name: &str, binding: Binding) -> bool {
        if self.trace.is_none() {
            return self.bindings.bind(name, binding);
        }
        let found = binding.clone();
        self.bindings.bind(name, binding)
            || self.fail(|speaker, names| {
                let known = names.get(name).map(|known| speaker.shown_binding(known));
                let known = known.unwrap_or_default();
                format!(
                    "`{name}` is {known} and, elsewhere, {}",
                    speaker.shown_binding(&found)
                )
            })
    }

    /// Meets all goals, the last one first; then asks the conditions if `ask`.
    fn solve(&mut self, mut goals: Vec<Goal<'a>>, ask: bool) -> bool {
        while let Some((term, operand)) = goals.pop() {
            let met = match term {
                Term::Var(name) => match operand {
                    Some(value) => self.bind(&name.text, Binding::Value(handle(value))),
                    None => self.fail(|_, _| format!("`{}` is absent", name.text)),
                },
                Term::Optional { name, .. } => {
                    let binding = operand.map_or(Binding::Absent, |value| Binding::Value(handle(value)));
                    self.bind(&name.text, binding)
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
            let rule = self.rule;
            self.fail(|speaker, names| {
                let unmet = speaker.unmet(&rule.lets, &rule.conditions, names);
                unmet.expect("the lets and conditions were not admitted")
            });
            self.bindings.truncate(n_names);
        }
        admitted
    }

    /// A constant that equals an expression; `scalar(c)` with a new name binds it.
    fn scalar(&mut self, expected: &Expr, operand: Operand) -> bool {
        let Some(value) = operand else { return false };
        let Some(found) = self.work.scalar(handle(value)) else {
            return self.fail(|speaker, _| {
                let found = speaker.shown_binding(&Binding::Value(handle(value)));
                format!("expected a constant number, found {found}")
            });
        };
        if let ExprKind::Name(name) = &expected.kind
            && self.bindings.get(name).is_none()
        {
            return self.bind(name, Binding::Attr(Attr::Float(found)));
        }
        let expected = evaluate(expected, &self.bindings, self.work).and_then(|value| value.as_float());
        let dtype = self.work.graph.ty(value).dtype;
        let met = expected.is_some_and(|expected| agrees(found, expected, dtype));
        met || self.fail(|_, _| match expected {
            Some(expected) => format!("expected the constant {expected}, found {found}"),
            None => "the constant to compare with is not known".to_owned(),
        })
    }

    /// Matches an op and goes on with the other goals; tries the orders of its operands.
    fn op(&mut self, term: &'a OpTerm, operand: Operand, goals: Vec<Goal<'a>>, ask: bool) -> bool {
        let Some(value) = operand else {
            return self.fail(|_, _| format!("expected {}, found an absent operand", shown_head(&term.head)));
        };
        let Some((id, node)) = self.work.maker(value) else {
            return self.fail(|speaker, _| {
                let found = speaker.shown_binding(&Binding::Value(handle(value)));
                format!("expected {}, found {found}", shown_head(&term.head))
            });
        };
        if !fits_head(&term.head, node.op) {
            return self.fail(|_, _| {
                let origin = match node.origin.as_slice() {
                    [] => String::new(),
                    names => format!(" ({})", names.join(", ")),
                };
                format!("expected {}, found `{}`{origin}", shown_head(&term.head), node.op)
            });
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
        let labelled = match &term.label {
            Some(label) => self.bind(&label.text, Binding::Value(handle(value))),
            None => true,
        };
        let named = match &term.head {
            Head::Family { binding, .. } => {
                let op = Binding::Op(node.op, node.attrs.clone());
                self.bind(&binding.text, op)
            }
            Head::Op(_) | Head::Tile(_) => true,
        };
        labelled && named && term.attrs.iter().all(|item| self.attr(item, node))
    }

    fn attr(&mut self, item: &AttrItem, node: &Node) -> bool {
        match item {
            AttrItem::Bare(name) => self.bind(&name.text, Binding::Attrs(node.attrs.clone())),
            AttrItem::Named { name, value } => {
                let Some(found) = node.attrs.get(&name.text) else {
                    return self.fail(|_, _| format!("`{}` has no `{}` here", node.op, name.text));
                };
                if let ExprKind::Name(variable) = &value.kind
                    && self.bindings.get(variable).is_none()
                {
                    return self.bind(variable, Binding::Attr(found.clone()));
                }
                let found = Value::Bound(Binding::Attr(found.clone()));
                let expected = evaluate(value, &self.bindings, self.work);
                let met = expected.as_ref().is_some_and(|expected| equal(&found, expected));
                met || self.fail(|speaker, _| {
                    let wanted = expected.map_or_else(|| "unknown".to_owned(), |value| speaker.shown(&value));
                    let found = speaker.shown(&found);
                    format!("`{}` of `{}` is {found}, expected {wanted}", name.text, node.op)
                })
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
        if let Some(inner) = each {
            return self.each(inner, &rest);
        }
        let (n_wanted, n_found) = (fixed.len(), node.operands.len());
        rest.iter().all(Option::is_none)
            || self.fail(|_, _| format!("`{}` has {n_found} operands, expected {n_wanted}", node.op))
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

/// A head as a message names it.
fn shown_head(head: &Head) -> String {
    match head {
        Head::Op(name) | Head::Tile(name) => format!("`{}`", name.text),
        Head::Family { kind, .. } => format!("an op of the family `{}`", kind.text),
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
