//! Building the right sides of rules in the e-graph.

use egg::Id;
use smallvec::SmallVec;

use super::conditions;
use super::ematch::is_variable;
use super::facts::{Binding, Bindings, Handle};
use super::language::{Enode, Head as TermHead, kind_of};
use super::rule_ast::{AttrItem, ExprKind, Head, OpTerm, Term};
use super::term_facts::{TermFacts, class, handle};
use super::term_graph::{Made, TermGraph};
use super::values::Value;
use crate::ir::{Attrs, DType, TensorType};
use crate::ops::evaluate::scalar;
use crate::ops::{InferCtx, OpDef, lookup, with_defaults};

/// Adds terms under the names of one match.
pub struct Builder<'a> {
    pub graph: &'a mut TermGraph,
    pub names: Bindings,
    /// Number of the rule, for the record of who made what.
    pub rule: usize,
    /// Classes the left side matched.
    pub from: SmallVec<[Id; 4]>,
}

impl Builder<'_> {
    /// The class of `term`; `None` where it cannot be built: an attribute is not known or
    /// operands do not fit the op.
    pub fn term(&mut self, term: &Term) -> Option<Id> {
        match term {
            Term::Var(name) => self.names.value(&name.text).map(class),
            Term::Optional { name, default, .. } => match (self.names.get(&name.text)?, default) {
                (Binding::Value(value), _) => Some(class(*value)),
                (Binding::Absent, None) => Some(self.absent()),
                (Binding::Absent, Some(value)) => Some(self.constant(DType::F32, *value)),
                _ => None,
            },
            Term::Scalar { value, .. } => {
                let value = self.evaluate(value)?.as_float()?;
                Some(self.constant(DType::F32, value))
            }
            Term::Each(_) => None,
            Term::Op(op) => self.op(op),
        }
    }

    fn absent(&mut self) -> Id {
        self.graph.terms.add(Enode::leaf(TermHead::Absent, 0))
    }

    fn is_absent(&self, id: Id) -> bool {
        let terms = &self.graph.terms;
        terms[terms.find(id)]
            .iter()
            .any(|enode| enode.head == TermHead::Absent)
    }

    fn constant(&mut self, dtype: DType, value: f64) -> Id {
        let number = self.graph.terms.analysis.interner.weight(scalar(dtype, value));
        self.graph.terms.add(Enode::leaf(TermHead::Weight, number))
    }

    fn evaluate(&self, expr: &super::rule_ast::Expr) -> Option<Value> {
        let facts = TermFacts {
            terms: &self.graph.terms,
        };
        conditions::evaluate(expr, &self.names, &facts)
    }

    fn op(&mut self, op: &OpTerm) -> Option<Id> {
        let children = self.operands(&op.operands)?;
        match &op.head {
            Head::Op(name) => {
                let def = lookup(&name.text)?;
                let attrs = self.attrs(op, Attrs::new())?;
                self.use_op(def, attrs, children)
            }
            Head::Family { binding, .. } => {
                let (name, attrs) = self.bound_op(&binding.text)?;
                let attrs = self.attrs(op, attrs)?;
                self.use_op(lookup(name)?, attrs, children)
            }
            Head::Tile(form) => self.tile(&form.text, op, children),
        }
    }

    fn bound_op(&self, name: &str) -> Option<(&'static str, Attrs)> {
        match self.names.get(name)? {
            Binding::Op(op, attrs) => Some((*op, attrs.clone())),
            _ => None,
        }
    }

    /// The attributes that the term writes, over those it starts from.
    fn attrs(&self, op: &OpTerm, mut attrs: Attrs) -> Option<Attrs> {
        for item in &op.attrs {
            match item {
                AttrItem::Bare(name) => match self.names.get(&name.text)? {
                    Binding::Attrs(own) => attrs.0.extend(own.0.clone()),
                    _ => return None,
                },
                AttrItem::Named { name, value } => {
                    let value = self.attr_value(value)?;
                    attrs.0.insert(name.text.clone(), value);
                }
            }
        }
        Some(attrs)
    }

    fn attr_value(&self, expr: &super::rule_ast::Expr) -> Option<crate::ir::Attr> {
        match self.evaluate(expr)? {
            Value::Bound(Binding::Attr(attr)) => Some(attr),
            // A string attribute may be written as a bare word.
            Value::Bound(Binding::Word(word)) if matches!(expr.kind, ExprKind::Name(_)) => {
                Some(crate::ir::Attr::Str(word))
            }
            Value::Bound(_) | Value::Bool(_) => None,
        }
    }

    /// Operands in order; scalars among them take the kind of the first that is not one.
    fn operands(&mut self, terms: &[Term]) -> Option<Vec<Id>> {
        let mut built: Vec<Option<Id>> = Vec::new();
        for term in terms {
            match term {
                Term::Each(inner) => {
                    for id in self.each(inner)? {
                        built.push(Some(id));
                    }
                }
                Term::Scalar { .. } => built.push(None),
                Term::Var(_) | Term::Optional { .. } | Term::Op(_) => built.push(Some(self.term(term)?)),
            }
        }
        let dtype = built
            .iter()
            .flatten()
            .find_map(|&id| self.ty(id))
            .map_or(DType::F32, |ty| ty.dtype);
        let mut scalars = terms.iter().filter_map(|term| match term {
            Term::Scalar { value, .. } => Some(value),
            _ => None,
        });
        built
            .into_iter()
            .map(|id| {
                if id.is_some() {
                    return id;
                }
                let value = self.evaluate(scalars.next()?)?.as_float()?;
                Some(self.constant(dtype, value))
            })
            .collect()
    }

    /// `inner` for each value of the variadic names in it.
    fn each(&mut self, inner: &Term) -> Option<Vec<Id>> {
        let mut lists: Vec<(String, Vec<Handle>)> = Vec::new();
        inner.walk(&mut |term| {
            if let Term::Var(name) = term
                && let Some(Binding::Many(values)) = self.names.get(&name.text)
            {
                lists.push((name.text.clone(), values.clone()));
            }
        });
        let n_values = lists.first()?.1.len();
        let depth = self.names.len();
        let mut built = Vec::new();
        for n in 0..n_values {
            for (name, values) in &lists {
                self.names.shadow(name, Binding::Value(*values.get(n)?));
            }
            built.push(self.term(inner)?);
            self.names.truncate(depth);
        }
        Some(built)
    }

    fn ty(&self, id: Id) -> Option<TensorType> {
        let terms = &self.graph.terms;
        terms[terms.find(id)].data.ty().cloned()
    }

    /// A use of an op, if the operands fit it.
    fn use_op(&mut self, def: &'static OpDef, attrs: Attrs, children: Vec<Id>) -> Option<Id> {
        let attrs = with_defaults(def, attrs).ok()?;
        let operands: Vec<Option<TensorType>> = children.iter().map(|&child| self.ty(child)).collect();
        let fits = def.result_types(&InferCtx {
            attrs: &attrs,
            operands: &operands,
        });
        if fits.ok()?.len() != 1 {
            return None;
        }
        let attrs = self.graph.terms.analysis.interner.attrs(&attrs, 1);
        Some(self.add(Enode::new(TermHead::Op(def.name), attrs, children)))
    }

    fn tile(&mut self, form: &str, op: &OpTerm, children: Vec<Id>) -> Option<Id> {
        match form {
            "store" => Some(self.add(Enode::new(TermHead::Store, 0, children))),
            "load" => {
                let &[tensor] = children.as_slice() else {
                    return None;
                };
                if self.is_absent(tensor) {
                    return Some(tensor);
                }
                let mode = self.mode(op)?;
                let mode = self.graph.terms.analysis.interner.word(&mode);
                Some(self.add(Enode::new(TermHead::Load, mode, children)))
            }
            _ => {
                let AttrItem::Bare(binding) = op.attrs.first()? else {
                    return None;
                };
                let (name, attrs) = self.bound_op(&binding.text)?;
                if super::language::kind_names(kind_of(name)).1 != form {
                    return None;
                }
                let attrs = self.graph.terms.analysis.interner.attrs(&attrs, 1);
                Some(self.add(Enode::new(TermHead::Tile(name), attrs, children)))
            }
        }
    }

    fn mode(&self, op: &OpTerm) -> Option<String> {
        match op.attrs.first()? {
            AttrItem::Bare(name) if is_variable(&name.text) => match self.names.get(&name.text)? {
                Binding::Word(word) => Some(word.clone()),
                _ => None,
            },
            AttrItem::Bare(name) => Some(name.text.clone()),
            AttrItem::Named { .. } => None,
        }
    }

    /// Adds a node, and notes who made it if it is new.
    fn add(&mut self, enode: Enode) -> Id {
        let is_new = self.graph.terms.lookup(enode.clone()).is_none();
        let id = self.graph.terms.add(enode.clone());
        if is_new {
            self.graph.made.push(Made {
                enode,
                rule: self.rule,
                from: self.from.clone(),
            });
        }
        id
    }
}

/// Handles of classes, for names that collect several values.
pub fn handles(ids: &[Id]) -> Vec<Handle> {
    ids.iter().map(|&id| handle(id)).collect()
}
