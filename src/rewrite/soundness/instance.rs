//! An instance of a rule: the left side as a graph, and the same graph after the rule.

use crate::ir::{Attrs, DType, Graph, HostTensor, TensorType, ValueId};
use crate::ops::evaluate::{filled, from_values, to_vec};
use crate::ops::lookup;
use crate::ops::samples::Draw;
use crate::rewrite::canonicalize::construct::{Marks, as_attr, construct};
use crate::rewrite::canonicalize::work_graph::{WorkGraph, handle};
use crate::rewrite::canonicalize::{Once, apply_once};
use crate::rewrite::conditions::evaluate;
use crate::rewrite::conditions::facts::{Binding, Bindings, Handle};
use crate::rewrite::conditions::values::Value;
use crate::rewrite::rules::ast::{AttrItem, Expr, Header, Name, Numbers, Rule, Term, TestEntry, TestValue};

/// How values are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Small finite numbers.
    Plain,
    /// Some of the inputs' numbers are NaN.
    Nan,
    /// Some of the inputs' numbers are NaN, infinite, zero or minus zero.
    Special,
}

/// Both sides of a rule on one instance.
pub struct Pair {
    pub left: Graph,
    pub right: Graph,
    pub inputs: Vec<HostTensor>,
}

/// Why there is no pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Miss {
    /// The left side cannot be built from the instance.
    NotBuilt(String),
    /// The rule does not match its left side there: a condition does not hold.
    NoMatch,
    /// It matches, but an op of the right side does not accept its operands.
    NoRight,
    /// The right side is the left one.
    Unchanged,
    /// The right side reads what it is to replace.
    Circular,
    /// The right side has another type (the second) than the left one, so that the rule does not
    /// fire.
    OtherType(Box<(TensorType, TensorType)>),
}

/// Both sides of `rule` on an instance: the left one as a graph, and that graph after the rule.
///
/// # Errors
/// If the rule does not fire there.
pub fn pair(rule: &Rule, entries: &[TestEntry], values: Values, seed: u64) -> Result<Pair, Miss> {
    let mut maker = Maker::new(&rule.header, values, seed);
    for entry in entries {
        maker.entry(&rule.left, entry).map_err(Miss::NotBuilt)?;
    }
    let (mut work, bindings, inputs) = maker.finish();
    let root = built(&mut work, &rule.left, &bindings).map_err(Miss::NotBuilt)?;
    work.graph.add_output("left", root);
    let left = work.finish();
    let right = match apply_once(&left, rule) {
        Once::Rewritten(right) => right,
        Once::NoMatch => return Err(Miss::NoMatch),
        Once::NotBuilt => return Err(Miss::NoRight),
        Once::Unchanged => return Err(Miss::Unchanged),
        Once::Circular => return Err(Miss::Circular),
        Once::OtherType(right) => {
            let left = left.value(left.outputs[0]).ty.clone();
            return Err(left.map_or(Miss::NoRight, |left| Miss::OtherType(Box::new((left, right)))));
        }
    };
    Ok(Pair { left, right, inputs })
}

/// The value of a left side under `bindings`.
pub(super) fn built(work: &mut WorkGraph, left: &Term, bindings: &Bindings) -> Result<ValueId, String> {
    let marks = Marks {
        origin: vec!["instance".to_owned()],
        rules: Vec::new(),
    };
    let root = construct(work, left, bindings, DType::F32, &marks);
    root.ok_or_else(|| "a variable has no entry, or the types do not fit the ops".to_owned())
}

/// Turns the entries of an instance into values of a graph and names of a match.
pub(super) struct Maker {
    pub work: WorkGraph,
    inputs: Vec<HostTensor>,
    pub bindings: Bindings,
    draw: Draw,
    values: Values,
}

impl Maker {
    pub fn new(header: &Header, values: Values, seed: u64) -> Self {
        Maker {
            work: WorkGraph::for_phase(Graph::new(&header.name.text), header.phase),
            inputs: Vec::new(),
            bindings: Bindings::default(),
            draw: Draw::new(seed),
            values,
        }
    }

    pub fn finish(self) -> (WorkGraph, Bindings, Vec<HostTensor>) {
        (self.work, self.bindings, self.inputs)
    }

    /// Adds what a name of `left` stands for.
    ///
    /// # Errors
    /// If the entry does not fit the op it is for.
    pub fn entry(&mut self, left: &Term, entry: &TestEntry) -> Result<(), String> {
        let name = &entry.name.text;
        let binding = match &entry.value {
            TestValue::Input { ty, numbers } => Binding::Value(self.input(name, ty, *numbers)),
            TestValue::Inputs(types) => Binding::Many(
                types
                    .iter()
                    .map(|ty| self.input(name, ty, Numbers::Any))
                    .collect(),
            ),
            TestValue::Constant { ty, numbers, value } => {
                let data = match value {
                    Some(value) => self.given(ty, value)?,
                    None => drawn(&mut self.draw, ty, *numbers, Values::Plain),
                };
                Binding::Value(handle(self.work.weight(data)))
            }
            TestValue::Absent => Binding::Absent,
            TestValue::Attr(value) => self.attr(value)?,
            TestValue::Attrs(attrs) => Binding::Attrs(self.attrs(head_of(left, name), attrs)?),
            TestValue::Op(op, attrs) => {
                let def = lookup(&op.text).ok_or_else(|| format!("no op is named `{}`", op.text))?;
                let attrs = self.attrs(Some(def.name), attrs)?;
                let attrs = crate::ops::with_defaults(def, attrs).map_err(|error| error.to_string())?;
                Binding::Op(def.name, attrs)
            }
        };
        self.bindings.shadow(name, binding);
        Ok(())
    }

    fn input(&mut self, name: &str, ty: &TensorType, numbers: Numbers) -> Handle {
        let data = drawn(&mut self.draw, ty, numbers, self.values);
        self.inputs.push(data);
        handle(self.work.input(name, ty.clone()))
    }

    fn attr(&self, value: &Expr) -> Result<Binding, String> {
        let work = WorkGraph::new(Graph::new("nothing"));
        match evaluate(value, &self.bindings, &work) {
            Some(Value::Bound(binding)) => Ok(binding),
            Some(Value::Bool(_)) | None => Err("an attribute value cannot be computed".to_owned()),
        }
    }

    fn given(&self, ty: &TensorType, value: &Expr) -> Result<HostTensor, String> {
        let Binding::Attr(attr) = self.attr(value)? else {
            return Err("a constant must be a number or a list".to_owned());
        };
        let value = Value::Bound(Binding::Attr(attr));
        if let Some(number) = value.as_float() {
            return Ok(filled(ty.dtype, &ty.dims(), number));
        }
        let ints = value.as_ints().filter(|ints| ints.len() == ty.n_elements());
        let ints = ints.ok_or_else(|| format!("a list of another length than `{ty}`"))?;
        Ok(from_values(ty.dtype, &ty.dims(), ints))
    }

    fn attrs(&self, op: Option<&str>, entries: &[(Name, Expr)]) -> Result<Attrs, String> {
        let def = op
            .and_then(lookup)
            .ok_or("a set of attributes belongs to no op of the left side")?;
        let mut attrs = Attrs::new();
        for (name, value) in entries {
            let declared = def.attrs.iter().find(|attr| attr.name == name.text);
            let declared =
                declared.ok_or_else(|| format!("`{}` has no attribute `{}`", def.name, name.text))?;
            let value = Value::Bound(self.attr(value)?);
            let value = as_attr(&value, declared.kind);
            attrs.0.insert(
                name.text.clone(),
                value.ok_or_else(|| format!("`{}` is of another kind", name.text))?,
            );
        }
        Ok(attrs)
    }
}

/// The op whose attributes `name` stands for.
fn head_of<'a>(term: &'a Term, name: &str) -> Option<&'a str> {
    let mut found = None;
    term.walk(&mut |term| {
        if let Term::Op(op) = term {
            let bare = |item: &AttrItem| match item {
                AttrItem::Bare(own) => own.text == name,
                AttrItem::Named { .. } => false,
            };
            if op.attrs.iter().any(bare) {
                found = Some(op.head.name().text.as_str());
            }
        }
    });
    found
}

fn drawn(draw: &mut Draw, ty: &TensorType, numbers: Numbers, values: Values) -> HostTensor {
    let dims = ty.dims();
    match values {
        Values::Special if ty.dtype.is_float() => draw.wild_floats(ty.dtype, &dims),
        Values::Nan if ty.dtype.is_float() => {
            let plain = drawn(draw, ty, numbers, Values::Plain);
            let mut numbers = to_vec::<f64>(&plain);
            for number in &mut numbers {
                if draw.below(6) == 0 {
                    *number = f64::NAN;
                }
            }
            from_values(ty.dtype, &dims, &numbers)
        }
        Values::Plain | Values::Nan | Values::Special => match numbers {
            Numbers::Any => draw.tensor(ty.dtype, &dims),
            Numbers::Positive => draw.floats(ty.dtype, &dims, 0.5, 3.0),
            Numbers::Causal => from_values(ty.dtype, &dims, &causal_mask(draw, &dims)),
        },
    }
}

/// Zeros, and what hides keys far behind a query; the same for all samples and heads.
fn causal_mask(draw: &mut Draw, dims: &[usize]) -> Vec<f64> {
    let keys = dims.last().copied().unwrap_or(1);
    let queries = dims.iter().rev().nth(1).copied().unwrap_or(1);
    let offset = draw.below(keys.max(1));
    let hidden = draw.pick(&[f64::NEG_INFINITY, f64::from(f32::MIN), -1e30]);
    let element = |number: usize| {
        let (query, key) = (number / keys % queries, number % keys);
        if key > query + offset { hidden } else { 0.0 }
    };
    (0..dims.iter().product()).map(element).collect()
}
