//! Building the right sides of rules in the e-graph.

use egg::Id;
use smallvec::SmallVec;

use super::asking::Asking;
use super::ematch::is_variable;
use super::language::{Enode, Head as TermHead, kind_of};
use super::term_facts::{TermFacts, class, handle};
use super::term_graph::{Made, TermGraph};
use super::unite::unite;
use crate::ir::{Attrs, DType, HostTensor, TensorType};
use crate::ops::evaluate::scalar;
use crate::ops::{InferCtx, OpDef, lookup, with_defaults};
use crate::rewrite::conditions;
use crate::rewrite::conditions::facts::{Binding, Bindings, Handle};
use crate::rewrite::conditions::values::Value;
use crate::rewrite::error::RewriteError;
use crate::rewrite::rules::ast::{AttrItem, Expr, ExprKind, Head, Header, OpTerm, Term};

/// What terms are built in: an e-graph, or one that is derived as another was.
pub trait Ground {
    fn ty(&self, class: Id) -> Option<TensorType>;
    fn is_absent(&self, class: Id) -> bool;
    fn evaluate(&mut self, expr: &Expr, names: &Bindings) -> Option<Value>;
    /// The number of an attribute set of a node with one result.
    fn attrs(&mut self, attrs: Attrs) -> u32;
    /// The number of a load mode.
    fn word(&mut self, word: &str) -> u32;
    /// A constant that is none of those there are.
    fn weight(&mut self, data: HostTensor) -> Enode;
    /// The class of a node; `None` where the graph may not have it.
    fn put(&mut self, enode: Enode, by: &Maker<'_>) -> Option<Id>;
    /// Merges two classes for a rule, and says whether they were apart.
    ///
    /// # Errors
    /// If their types differ.
    fn unite(&mut self, left: Id, right: Id, header: &Header) -> Result<bool, RewriteError>;
}

/// Who makes a node.
pub struct Maker<'a> {
    pub rule: usize,
    pub from: &'a SmallVec<[Id; 4]>,
    /// The name of the pattern whose op and attributes the node takes over.
    pub copied: Option<&'a str>,
}

/// Adds terms under the names of one match.
pub struct Builder<'a, G> {
    pub graph: &'a mut G,
    pub names: Bindings,
    /// Number of the rule, for the record of who made what.
    pub rule: usize,
    /// Classes the left side matched.
    pub from: SmallVec<[Id; 4]>,
}

impl<G: Ground> Builder<'_, G> {
    /// The class of `term`; `None` where it cannot be built: an attribute is not known or
    /// operands do not fit the op.
    pub fn term(&mut self, term: &Term) -> Option<Id> {
        match term {
            Term::Var(name) => self.names.value(&name.text).map(class),
            Term::Optional { name, default, .. } => match (self.names.get(&name.text)?, default) {
                (Binding::Value(value), _) => Some(class(*value)),
                (Binding::Absent, None) => self.add(Enode::leaf(TermHead::Absent, 0), None),
                (Binding::Absent, Some(value)) => self.constant(DType::F32, *value),
                _ => None,
            },
            Term::Scalar { value, .. } => {
                let value = self.evaluate(value)?.as_float()?;
                self.constant(DType::F32, value)
            }
            Term::Each(_) => None,
            Term::Op(op) => self.op(op),
        }
    }

    fn constant(&mut self, dtype: DType, value: f64) -> Option<Id> {
        let leaf = self.graph.weight(scalar(dtype, value));
        self.add(leaf, None)
    }

    fn evaluate(&mut self, expr: &Expr) -> Option<Value> {
        self.graph.evaluate(expr, &self.names)
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
    fn attrs(&mut self, op: &OpTerm, mut attrs: Attrs) -> Option<Attrs> {
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

    fn attr_value(&mut self, expr: &Expr) -> Option<crate::ir::Attr> {
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
            .find_map(|&id| self.graph.ty(id))
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
                self.constant(dtype, value)
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

    /// A use of an op, if the operands fit it.
    fn use_op(&mut self, def: &'static OpDef, attrs: Attrs, children: Vec<Id>) -> Option<Id> {
        let attrs = with_defaults(def, attrs).ok()?;
        let operands: Vec<Option<TensorType>> = children.iter().map(|&child| self.graph.ty(child)).collect();
        let fits = def.result_types(&InferCtx {
            attrs: &attrs,
            operands: &operands,
        });
        if fits.ok()?.len() != 1 {
            return None;
        }
        let attrs = self.graph.attrs(attrs);
        self.add(Enode::new(TermHead::Op(def.name), attrs, children), None)
    }

    fn tile(&mut self, form: &str, op: &OpTerm, children: Vec<Id>) -> Option<Id> {
        match form {
            "store" => self.add(Enode::new(TermHead::Store, 0, children), None),
            "load" => {
                let &[tensor] = children.as_slice() else {
                    return None;
                };
                if self.graph.is_absent(tensor) {
                    return Some(tensor);
                }
                let mode = self.mode(op)?;
                let mode = self.graph.word(&mode);
                self.add(Enode::new(TermHead::Load, mode, children), None)
            }
            _ => {
                let AttrItem::Bare(binding) = op.attrs.first()? else {
                    return None;
                };
                let (name, attrs) = self.bound_op(&binding.text)?;
                if super::language::kind_names(kind_of(name)).1 != form {
                    return None;
                }
                let attrs = self.graph.attrs(attrs);
                let enode = Enode::new(TermHead::Tile(name), attrs, children);
                self.add(enode, Some(&binding.text))
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

    fn add(&mut self, enode: Enode, copied: Option<&str>) -> Option<Id> {
        let maker = Maker {
            rule: self.rule,
            from: &self.from,
            copied,
        };
        self.graph.put(enode, &maker)
    }
}

impl Ground for TermGraph {
    fn ty(&self, class: Id) -> Option<TensorType> {
        self.terms[self.terms.find(class)].data.ty().cloned()
    }

    fn is_absent(&self, class: Id) -> bool {
        let mut nodes = self.terms[self.terms.find(class)].iter();
        nodes.any(|enode| enode.head == TermHead::Absent)
    }

    fn evaluate(&mut self, expr: &Expr, names: &Bindings) -> Option<Value> {
        let facts = TermFacts { terms: &self.terms };
        let Some(record) = &mut self.record else {
            return conditions::evaluate(expr, names, &facts);
        };
        let asking = Asking::new(facts);
        let value = conditions::evaluate(expr, names, &asking);
        record.asked.append(&mut asking.asked());
        value
    }

    fn attrs(&mut self, attrs: Attrs) -> u32 {
        self.terms.analysis.interner.attrs(&attrs, 1)
    }

    fn word(&mut self, word: &str) -> u32 {
        self.terms.analysis.interner.word(word)
    }

    fn weight(&mut self, data: HostTensor) -> Enode {
        Enode::leaf(TermHead::Weight, self.terms.analysis.interner.weight(data))
    }

    /// Adds a node, and notes who made it if it is new.
    fn put(&mut self, enode: Enode, by: &Maker<'_>) -> Option<Id> {
        let is_leaf = matches!(enode.head, TermHead::Absent | TermHead::Weight);
        let is_new = !is_leaf && self.terms.lookup(enode.clone()).is_none();
        let id = self.terms.add(enode.clone());
        if let Some(record) = &mut self.record {
            record.put(&enode, id, by.copied);
        }
        if is_new {
            self.made.push(Made {
                enode,
                rule: by.rule,
                from: by.from.clone(),
            });
        }
        Some(id)
    }

    fn unite(&mut self, left: Id, right: Id, header: &Header) -> Result<bool, RewriteError> {
        unite(self, left, right, header)
    }
}

/// Handles of classes, for names that collect several values.
pub fn handles(ids: &[Id]) -> Vec<Handle> {
    ids.iter().map(|&id| handle(id)).collect()
}
