//! Pinned instances of rules: the left side as a graph, the same graph after the rule, and
//! whether both compute the same.

use std::fmt;

use super::canonicalize::apply_once;
use super::conditions::evaluate;
use super::construct::{Marks, as_attr, construct};
use super::facts::{Binding, Bindings};
use super::rule_ast::{Expr, Name, Numerics, Rule, Term, TestEntry, TestValue};
use super::work_graph::{WorkGraph, handle};
use crate::ir::{Attrs, DType, Graph, HostTensor, TensorType};
use crate::ops::evaluate::{filled, from_values, to_vec};
use crate::ops::lookup;
use crate::ops::samples::Draw;
use crate::reference;

/// Why an instance does not speak for its rule.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    #[error("the left side cannot be built: {0}")]
    LeftSide(String),
    #[error("the rule does not fire on its own instance")]
    DoesNotFire,
    #[error("the {side} side cannot be evaluated: {error}")]
    Evaluation {
        side: &'static str,
        error: reference::ReferenceError,
    },
    #[error("the two sides differ: {0}")]
    Differs(Difference),
}

/// The element that differs most.
#[derive(Debug)]
pub struct Difference {
    pub position: usize,
    pub left: f64,
    pub right: f64,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "element {} is {} on the left and {} on the right",
            self.position, self.left, self.right
        )
    }
}

/// Builds the left side of `rule` for one of its `test` lines, applies the rule there, and
/// evaluates both on drawn inputs.
///
/// # Errors
/// If the rule does not fire, or the two sides differ by more than its `numerics` allows.
pub fn check_instance(rule: &Rule, entries: &[TestEntry], seed: u64) -> Result<(), InstanceError> {
    let mut draw = Draw::new(seed);
    let (left, inputs) = instance(rule, entries, &mut draw).map_err(InstanceError::LeftSide)?;
    let right = apply_once(&left, rule).ok_or(InstanceError::DoesNotFire)?;
    let evaluate = |side, graph: &Graph| {
        let outputs = reference::run(graph, &inputs);
        outputs.map_err(|error| InstanceError::Evaluation { side, error })
    };
    let (left, right) = (evaluate("left", &left)?, evaluate("right", &right)?);
    match difference(&left[0], &right[0], rule.header.numerics) {
        Some(difference) => Err(InstanceError::Differs(difference)),
        None => Ok(()),
    }
}

/// The left side of a rule as a graph with one output, and drawn inputs for it.
///
/// # Errors
/// If a variable has no entry, or the types do not fit the ops of the left side.
pub fn instance(
    rule: &Rule,
    entries: &[TestEntry],
    draw: &mut Draw,
) -> Result<(Graph, Vec<HostTensor>), String> {
    let mut maker = Maker {
        graph: Graph::new(&rule.header.name.text),
        inputs: Vec::new(),
        bindings: Bindings::default(),
        draw,
    };
    for entry in entries {
        maker.entry(rule, entry)?;
    }
    let Maker {
        graph,
        inputs,
        bindings,
        ..
    } = maker;
    let mut work = WorkGraph::for_phase(graph, rule.header.phase);
    let marks = Marks {
        origin: vec!["instance".to_owned()],
        rules: Vec::new(),
    };
    let root = construct(&mut work, &rule.left, &bindings, DType::F32, &marks)
        .ok_or("a variable has no entry, or the types do not fit the ops")?;
    work.graph.add_output("left", root);
    Ok((work.graph, inputs))
}

struct Maker<'a> {
    graph: Graph,
    inputs: Vec<HostTensor>,
    bindings: Bindings,
    draw: &'a mut Draw,
}

impl Maker<'_> {
    fn entry(&mut self, rule: &Rule, entry: &TestEntry) -> Result<(), String> {
        let name = &entry.name.text;
        let binding = match &entry.value {
            TestValue::Input { ty, positive } => Binding::Value(self.input(name, ty, *positive)),
            TestValue::Inputs(types) => {
                Binding::Many(types.iter().map(|ty| self.input(name, ty, false)).collect())
            }
            TestValue::Constant { ty, positive, value } => {
                let data = match value {
                    Some(value) => self.given(ty, value)?,
                    None => drawn(self.draw, ty, *positive),
                };
                Binding::Value(handle(self.graph.add_weight(name, data)))
            }
            TestValue::Absent => Binding::Absent,
            TestValue::Attr(value) => self.attr(value)?,
            TestValue::Attrs(attrs) => Binding::Attrs(self.attrs(head_of(&rule.left, name), attrs)?),
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

    fn input(&mut self, name: &str, ty: &TensorType, positive: bool) -> super::facts::Handle {
        self.inputs.push(drawn(self.draw, ty, positive));
        handle(self.graph.add_input(name, Some(ty.clone())))
    }

    fn attr(&self, value: &Expr) -> Result<Binding, String> {
        let work = WorkGraph::new(Graph::new("nothing"));
        match evaluate(value, &self.bindings, &work) {
            Some(super::conditions::Value::Bound(binding)) => Ok(binding),
            Some(super::conditions::Value::Bool(_)) | None => {
                Err("an attribute value cannot be computed".to_owned())
            }
        }
    }

    fn given(&self, ty: &TensorType, value: &Expr) -> Result<HostTensor, String> {
        let Binding::Attr(attr) = self.attr(value)? else {
            return Err("a constant must be a number or a list".to_owned());
        };
        let value = super::conditions::Value::Bound(Binding::Attr(attr));
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
            let value = super::conditions::Value::Bound(self.attr(value)?);
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
            let bare = |item: &super::rule_ast::AttrItem| match item {
                super::rule_ast::AttrItem::Bare(own) => own.text == name,
                super::rule_ast::AttrItem::Named { .. } => false,
            };
            if op.attrs.iter().any(bare) {
                found = Some(op.head.name().text.as_str());
            }
        }
    });
    found
}

fn drawn(draw: &mut Draw, ty: &TensorType, positive: bool) -> HostTensor {
    if positive {
        return draw.floats(ty.dtype, &ty.dims(), 0.5, 3.0);
    }
    draw.tensor(ty.dtype, &ty.dims())
}

/// The worst element, if it is further off than `numerics` allows.
fn difference(left: &HostTensor, right: &HostTensor, numerics: Numerics) -> Option<Difference> {
    let (left, right) = (to_vec::<f64>(left), to_vec::<f64>(right));
    let (relative, absolute) = match numerics {
        Numerics::Exact => (0.0, 0.0),
        Numerics::Reassoc => (1e-4, 0.0),
        Numerics::Step => (0.0, 1.0),
        Numerics::Approx(ulps) => (1e-4 + f64::from(ulps) * f64::from(f32::EPSILON), 0.0),
    };
    let largest = left
        .iter()
        .map(|value| value.abs())
        .filter(|value| value.is_finite())
        .fold(0.0, f64::max);
    let allowed = absolute + relative * largest;
    let off = |left: f64, right: f64| match (left.is_nan(), right.is_nan()) {
        (true, true) => 0.0,
        (true, false) | (false, true) => f64::INFINITY,
        #[expect(clippy::float_cmp, reason = "equal infinities differ by nothing")]
        (false, false) if left == right => 0.0,
        (false, false) => (left - right).abs(),
    };
    let pairs = left.iter().zip(&right).enumerate();
    let (position, (&left, &right)) =
        pairs.max_by(|(_, (a, b)), (_, (c, d))| off(**a, **b).total_cmp(&off(**c, **d)))?;
    (off(left, right) > allowed).then_some(Difference {
        position,
        left,
        right,
    })
}
