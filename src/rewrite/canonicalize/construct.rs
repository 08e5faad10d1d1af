//! Builds the right side of a rule in a graph.

use super::work_graph::{WorkGraph, handle, value_of};
use crate::ir::{Attr, Attrs, DType, Operand, ValueId};
use crate::ops::{AttrKind, OpDef, lookup};
use crate::rewrite::conditions::evaluate;
use crate::rewrite::conditions::facts::{Binding, Bindings};
use crate::rewrite::conditions::values::Value;
use crate::rewrite::rules::ast::{AttrItem, Expr, Head, OpTerm, Term};

/// What new nodes are marked with.
pub struct Marks {
    pub origin: Vec<String>,
    pub rules: Vec<String>,
}

/// The value of `term` under `bindings`; `None` where an op does not accept its operands or
/// an attribute cannot be computed.
pub fn construct(
    work: &mut WorkGraph,
    term: &Term,
    bindings: &Bindings,
    dtype: DType,
    marks: &Marks,
) -> Option<ValueId> {
    let mut builder = Builder {
        work,
        bindings: bindings.clone(),
        dtype,
        marks,
    };
    match builder.operand(term)? {
        Built::Operand(operand) => operand,
        Built::Scalar(value) => Some(builder.work.scalar_weight(dtype, value)),
        Built::Many(_) => None,
    }
}

/// An operand; scalars wait for the kind of their siblings.
enum Built {
    Operand(Operand),
    Scalar(f64),
    Many(Vec<ValueId>),
}

struct Builder<'a> {
    work: &'a mut WorkGraph,
    bindings: Bindings,
    /// Kind of what is built.
    dtype: DType,
    marks: &'a Marks,
}

impl Builder<'_> {
    fn operand(&mut self, term: &Term) -> Option<Built> {
        match term {
            Term::Var(name) => self.variable(&name.text),
            Term::Optional { name, default, .. } => match (self.bindings.get(&name.text)?, default) {
                (Binding::Absent, Some(value)) => Some(Built::Scalar(*value)),
                _ => self.variable(&name.text),
            },
            Term::Scalar { value, .. } => self.number(value).map(Built::Scalar),
            Term::Each(inner) => self.each(inner).map(Built::Many),
            Term::Op(op) => self.op(op).map(|value| Built::Operand(Some(value))),
        }
    }

    fn variable(&self, name: &str) -> Option<Built> {
        match self.bindings.get(name)? {
            Binding::Value(handle) => Some(Built::Operand(Some(value_of(*handle)))),
            Binding::Absent => Some(Built::Operand(None)),
            Binding::Many(handles) => Some(Built::Many(handles.iter().copied().map(value_of).collect())),
            Binding::Attr(_) | Binding::Attrs(_) | Binding::Op(..) | Binding::Word(_) => None,
        }
    }

    fn number(&self, value: &Expr) -> Option<f64> {
        evaluate(value, &self.bindings, self.work)?.as_float()
    }

    /// One value for each value of the variadic names in `inner`.
    fn each(&mut self, inner: &Term) -> Option<Vec<ValueId>> {
        let lists = self.variadic_names(inner);
        let n_values = lists.first()?.1.len();
        if lists.iter().any(|(_, values)| values.len() != n_values) {
            return None;
        }
        let mut built = Vec::with_capacity(n_values);
        for position in 0..n_values {
            let n_names = self.bindings.len();
            for (name, values) in &lists {
                self.bindings.shadow(name, Binding::Value(values[position]));
            }
            let value = self.operand(inner);
            self.bindings.truncate(n_names);
            match value? {
                Built::Operand(Some(value)) => built.push(value),
                Built::Operand(None) | Built::Scalar(_) | Built::Many(_) => return None,
            }
        }
        Some(built)
    }

    fn variadic_names(&self, term: &Term) -> Vec<(String, Vec<crate::rewrite::conditions::facts::Handle>)> {
        let mut lists = Vec::new();
        term.walk(&mut |term| {
            if let Term::Var(name) = term
                && let Some(Binding::Many(values)) = self.bindings.get(&name.text)
            {
                lists.push((name.text.clone(), values.clone()));
            }
        });
        lists
    }

    fn op(&mut self, term: &OpTerm) -> Option<ValueId> {
        let mut built = Vec::new();
        for operand in &term.operands {
            match self.operand(operand)? {
                Built::Many(values) => {
                    built.extend(values.into_iter().map(|value| Built::Operand(Some(value))));
                }
                one => built.push(one),
            }
        }
        let (op, mut attrs) = self.head(&term.head)?;
        let def = lookup(op)?;
        for item in &term.attrs {
            self.set_attr(def, item, &mut attrs)?;
        }
        let operands = self.with_scalars(&built, None);
        let marks = self.marks;
        let add = |work: &mut WorkGraph, operands| {
            work.add(def.name, operands, attrs.clone(), &marks.origin, &marks.rules)
        };
        let value = if let Some(value) = add(self.work, operands) {
            value
        } else {
            // A number in the place of a condition.
            let operands = self.with_scalars(&built, Some(DType::Bool));
            add(self.work, operands)?
        };
        if let Some(label) = &term.label {
            self.bindings.shadow(&label.text, Binding::Value(handle(value)));
        }
        Some(value)
    }

    fn head<'n>(&self, head: &'n Head) -> Option<(&'n str, Attrs)> {
        match head {
            Head::Op(name) => Some((&name.text, Attrs::new())),
            Head::Family { binding, .. } => match self.bindings.get(&binding.text)? {
                Binding::Op(op, attrs) => Some((op, attrs.clone())),
                _ => None,
            },
            Head::Tile(_) => None,
        }
    }

    /// A bound attribute set gives those attributes that the op knows.
    fn set_attr(&self, def: &OpDef, item: &AttrItem, attrs: &mut Attrs) -> Option<()> {
        match item {
            AttrItem::Bare(name) => {
                let (Binding::Attrs(bound) | Binding::Op(_, bound)) = self.bindings.get(&name.text)? else {
                    return None;
                };
                let known = def
                    .attrs
                    .iter()
                    .filter_map(|attr| Some((attr.name, bound.get(attr.name)?)));
                for (name, value) in known {
                    attrs.0.insert(name.to_owned(), value.clone());
                }
            }
            AttrItem::Named { name, value } => {
                let declared = def.attrs.iter().find(|attr| attr.name == name.text)?;
                let value = evaluate(value, &self.bindings, self.work)?;
                attrs.0.insert(name.text.clone(), as_attr(&value, declared.kind)?);
            }
        }
        Some(())
    }

    /// Scalars become constants of the kind of the first operand that is neither scalar nor a
    /// condition; where there is none, of the kind of the whole. `first` is the kind of a scalar
    /// in front.
    fn with_scalars(&mut self, built: &[Built], first: Option<DType>) -> Vec<Operand> {
        let mut kinds = built.iter().filter_map(|operand| match operand {
            Built::Operand(Some(value)) => Some(self.work.graph.value(*value).ty.as_ref()?.dtype),
            Built::Operand(None) | Built::Scalar(_) | Built::Many(_) => None,
        });
        let dtype = kinds.find(|&kind| kind != DType::Bool).unwrap_or(self.dtype);
        let kinds = first.into_iter().chain(std::iter::repeat(dtype));
        built
            .iter()
            .zip(kinds)
            .map(|(operand, dtype)| match operand {
                Built::Operand(operand) => *operand,
                Built::Scalar(value) => Some(self.work.scalar_weight(dtype, *value)),
                Built::Many(_) => unreachable!("op() spread variadic operands"),
            })
            .collect()
    }
}

/// A value as an attribute of a declared kind.
pub fn as_attr(value: &Value, kind: AttrKind) -> Option<Attr> {
    match (kind, value) {
        (AttrKind::Float, _) => value.as_float().map(Attr::Float),
        (AttrKind::Int, Value::Bool(flag)) => Some(Attr::Int(i64::from(*flag))),
        (AttrKind::Int, _) => value.as_int().map(Attr::Int),
        (AttrKind::Str, Value::Bound(Binding::Word(word))) => Some(Attr::Str(word.clone())),
        (AttrKind::Floats, Value::Bound(Binding::Attr(Attr::Ints(_)))) => {
            let ints = value.as_ints()?;
            #[expect(clippy::cast_precision_loss, reason = "attributes are small numbers")]
            let floats = ints.iter().map(|&entry| entry as f64).collect();
            Some(Attr::Floats(floats))
        }
        (
            AttrKind::Str
            | AttrKind::Ints
            | AttrKind::Floats
            | AttrKind::Strs
            | AttrKind::DType
            | AttrKind::Tensor
            | AttrKind::Graph,
            _,
        ) => value.attr().cloned(),
    }
}
