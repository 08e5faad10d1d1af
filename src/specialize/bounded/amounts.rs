//! What is known of numbers before any data is: limits, and how they follow from each other.
//!
//! The numbers of a graph under construction are computed by the tile functions of its ops, with ranges in
//! place of data. Small tensors, which sizes and shapes are, are looked at element by element.

use std::collections::{BTreeMap, HashMap};

use super::intervals;
use crate::ir::{Attrs, DType, Graph, HostTensor, Node, Operand, Source, TensorType, ValueId};
use crate::ops::bounded::{Amount, Analysis, Linear};
use crate::ops::evaluate::to_vec;
use crate::ops::{self};
use crate::tile::index::linearize;
use crate::tile::{Atom, Body, Cond, Expr, ExprId, Extent, Index, ReduceOp, TileCtx, VarId};

/// Tensors of so many elements at most are looked at element by element.
const SMALL: usize = 64;
/// Floats are followed through so many nodes, integers too: what lies further back is data.
const DEPTH: usize = 64;

/// What is known of the numbers of a graph.
#[derive(Clone, Default)]
pub(super) struct Amounts {
    elements: HashMap<ValueId, Vec<Amount>>,
    whole: HashMap<ValueId, Amount>,
    /// Limits of what [`Linear`] is made of.
    limits: BTreeMap<(ValueId, usize), (f64, f64)>,
    depth: usize,
}

impl Analysis for Amounts {
    fn elements(&mut self, graph: &Graph, value: ValueId) -> Option<Vec<Amount>> {
        let ty = graph.value(value).ty.as_ref()?;
        if ty.n_elements() > SMALL {
            return None;
        }
        if let Some(known) = self.elements.get(&value) {
            return Some(known.clone());
        }
        let elements = self.computed(graph, value, ty);
        self.elements.insert(value, elements.clone());
        Some(elements)
    }
}

impl Amounts {
    /// Limits of every element of `value`.
    pub fn of(&mut self, graph: &Graph, value: ValueId) -> Amount {
        if let Some(known) = self.whole.get(&value) {
            return known.clone();
        }
        let ty = graph.ty(value);
        let amount = match self.elements(graph, value) {
            Some(elements) => elements
                .into_iter()
                .reduce(|all, one| all.or(&one))
                .unwrap_or_else(|| intervals::any(ty.dtype)),
            None => self.all(graph, value, ty),
        };
        let amount = Amount {
            linear: None,
            ..amount
        };
        self.whole.insert(value, amount.clone());
        amount
    }

    /// Forgets what is known of the elements of values that get another extent.
    pub fn forget_elements<'v>(&mut self, values: impl Iterator<Item = &'v ValueId>) {
        for value in values {
            self.elements.remove(value);
            self.whole.remove(value);
        }
    }

    /// Forgets values from number `first` on.
    pub fn forget(&mut self, first: usize) {
        let stays = |value: ValueId| (value.0 as usize) < first;
        self.elements.retain(|&value, _| stays(value));
        self.whole.retain(|&value, _| stays(value));
        self.limits.retain(|&(value, _), _| stays(value));
    }

    /// States that no element of `value` is above `most`.
    pub fn limit(&mut self, graph: &Graph, value: ValueId, least: f64, most: f64) {
        let Some(mut elements) = self.elements(graph, value) else {
            return;
        };
        for element in &mut elements {
            let single = element.linear.as_ref().and_then(|linear| {
                let mut terms = linear.terms.iter();
                match (terms.next(), terms.next(), linear.constant) {
                    (Some((&of, 1)), None, 0) => Some(of),
                    _ => None,
                }
            });
            element.low = element.low.max(least);
            element.high = element.high.min(most);
            if let Some(of) = single {
                self.limits.insert(of, (element.low, element.high));
            }
        }
        self.whole.remove(&value);
        self.elements.insert(value, elements);
    }

    fn computed(&mut self, graph: &Graph, value: ValueId, ty: &TensorType) -> Vec<Amount> {
        if let Some(data) = graph.weight(value) {
            return constants(data);
        }
        let n = ty.n_elements();
        let dims = ty.dims();
        let mut elements: Vec<Amount> = (0..n)
            .map(|position| {
                let at: Vec<Index> = coordinates(position, &dims)
                    .into_iter()
                    .map(Index::known)
                    .collect();
                self.at(graph, value, &at)
            })
            .collect();
        for (position, element) in elements.iter_mut().enumerate() {
            if element.linear.is_none() && !ty.dtype.is_float() {
                element.linear = Some(Linear::element(value, position));
                self.limits.insert((value, position), (element.low, element.high));
            }
        }
        elements
    }

    /// Limits of the elements of a large tensor.
    fn all(&mut self, graph: &Graph, value: ValueId, ty: &TensorType) -> Amount {
        if let Some(data) = graph.weight(value) {
            let all = constants(data).into_iter().reduce(|all, one| all.or(&one));
            return all.unwrap_or_else(|| intervals::any(ty.dtype));
        }
        let Source::Node(id, number) = graph.value(value).source else {
            return intervals::any(ty.dtype);
        };
        let node = graph.node(id);
        let mut body = Body::new();
        let at: Vec<Index> = ty
            .dims()
            .into_iter()
            .map(|extent| Index::var(body.vars.fresh(Extent::from(extent))))
            .collect();
        self.element(graph, node, number, &at, body)
    }

    fn at(&mut self, graph: &Graph, value: ValueId, at: &[Index]) -> Amount {
        match graph.value(value).source {
            Source::Node(id, number) => self.element(graph, graph.node(id), number, at, Body::new()),
            Source::Input(_) | Source::Weight(_) => intervals::any(graph.ty(value).dtype),
        }
    }

    /// Result `number` of `node` at `at`.
    fn element(&mut self, graph: &Graph, node: &Node, number: usize, at: &[Index], mut body: Body) -> Amount {
        let dtype = graph.ty(node.results[number]).dtype;
        if self.depth > DEPTH {
            return intervals::any(dtype);
        }
        let Some(root) = tile(graph, node, number, at, &mut body) else {
            return intervals::any(dtype);
        };
        self.depth += 1;
        let amount = Eval::new(self, graph, &node.operands, &body).of(root);
        self.depth -= 1;
        amount
    }

    /// Limits of a sum of elements.
    fn range_of(&self, linear: &Linear) -> (f64, f64) {
        #[expect(clippy::cast_precision_loss, reason = "limits may be rounded")]
        let constant = linear.constant as f64;
        linear
            .terms
            .iter()
            .fold((constant, constant), |(low, high), (of, &factor)| {
                let (least, most) = self
                    .limits
                    .get(of)
                    .copied()
                    .unwrap_or((f64::NEG_INFINITY, f64::INFINITY));
                #[expect(clippy::cast_precision_loss, reason = "limits may be rounded")]
                let factor = factor as f64;
                let (a, b) = (least * factor, most * factor);
                (low + a.min(b), high + a.max(b))
            })
    }

    /// Limits of `a - b`.
    fn difference(&self, a: &Amount, b: &Amount) -> (f64, f64) {
        // Infinite limits of one sign have no difference: what has them is not beyond what has the other.
        let limit = |difference: f64| if difference.is_nan() { 0.0 } else { difference };
        let plain = (limit(a.low - b.high), limit(a.high - b.low));
        let linear = match (&a.linear, &b.linear) {
            (Some(a), Some(b)) => a.plus(b, -1),
            _ => None,
        };
        match linear.map(|linear| self.range_of(&linear)) {
            Some((low, high)) => (low.max(plain.0), high.min(plain.1)),
            None => plain,
        }
    }
}

/// The expression of result `number` of `node` at `at`.
pub(super) fn tile(
    graph: &Graph,
    node: &Node,
    number: usize,
    at: &[Index],
    body: &mut Body,
) -> Option<ExprId> {
    let def = ops::lookup(node.op)?;
    let types: Vec<Option<TensorType>> = (node.operands.iter())
        .map(|operand| operand.map(|value| graph.ty(value).clone()))
        .collect();
    let mut read = |body: &mut Body, n: usize, at: &[Index]| {
        let ty = types[n]
            .as_ref()
            .expect("tile functions read operands that are present");
        body.add(Expr::Load {
            input: u32::try_from(n).expect("nodes have few operands"),
            index: at.to_vec(),
            dtype: ty.dtype,
        })
    };
    def.tile(&mut TileCtx {
        attrs: &node.attrs,
        operands: &types,
        result: graph.ty(node.results[number]),
        result_index: number,
        at,
        body,
        read: &mut read,
    })
}

fn constants(data: &HostTensor) -> Vec<Amount> {
    if data.dtype().is_float() {
        let values = to_vec::<f64>(data);
        return values.into_iter().map(intervals::float).collect();
    }
    if data.dtype() == DType::U64 {
        let values = to_vec::<u64>(data);
        let known =
            |value: u64| i64::try_from(value).map_or_else(|_| intervals::any(DType::U64), Amount::known);
        return values.into_iter().map(known).collect();
    }
    to_vec::<i64>(data).into_iter().map(Amount::known).collect()
}

/// Coordinates of the element at a row-major position.
fn coordinates(mut position: usize, dims: &[usize]) -> Vec<i64> {
    let mut coordinates = vec![0; dims.len()];
    for (coordinate, &extent) in coordinates.iter_mut().zip(dims).rev() {
        *coordinate = i64::try_from(position % extent.max(1)).expect("extents fit in i64");
        position /= extent.max(1);
    }
    coordinates
}

/// An element beyond the count of an axis that a reduction runs over.
pub(super) struct Beyond<'a> {
    /// What runs over the axis.
    pub var: VarId,
    /// Variables of the result that stay below the same count.
    pub below: &'a [VarId],
    /// Operands that hold a number of their own there.
    pub pads: &'a [(usize, f64)],
}

/// Computes with ranges.
pub(super) struct Eval<'a> {
    amounts: &'a mut Amounts,
    graph: &'a Graph,
    operands: &'a [Operand],
    body: &'a Body,
    fixed: HashMap<VarId, i64>,
    known: HashMap<ExprId, Amount>,
    pub beyond: Option<Beyond<'a>>,
}

impl<'a> Eval<'a> {
    pub fn new(amounts: &'a mut Amounts, graph: &'a Graph, operands: &'a [Operand], body: &'a Body) -> Self {
        Eval {
            amounts,
            graph,
            operands,
            body,
            fixed: HashMap::new(),
            known: HashMap::new(),
            beyond: None,
        }
    }

    /// What is known of an expression.
    pub fn of(&mut self, id: ExprId) -> Amount {
        if let Some(known) = self.known.get(&id) {
            return known.clone();
        }
        let amount = self.computed(id);
        self.known.insert(id, amount.clone());
        amount
    }

    fn computed(&mut self, id: ExprId) -> Amount {
        let body = self.body;
        match body.expr(id) {
            Expr::Load { input, index, .. } => self.load(*input as usize, index),
            Expr::Const(scalar) if scalar.dtype.is_float() => intervals::float(scalar.as_f64()),
            Expr::Const(scalar) => Amount::known(scalar.as_i64()),
            Expr::IndexValue(index) => self.index(index),
            Expr::Map {
                op,
                attrs,
                args,
                dtype,
            } => self.map(op, body.attrs(*attrs), args, *dtype),
            Expr::Select {
                conds,
                then,
                otherwise,
            } => match self.holds(conds) {
                Some(true) => self.of(*then),
                Some(false) => self.of(*otherwise),
                None => self.of(*then).or(&self.of(*otherwise)),
            },
            Expr::Reduce {
                op,
                vars,
                body,
                dtype,
            } => self.reduced(*op, vars, *body, *dtype),
            Expr::Acc { dtype, .. } => intervals::any(*dtype),
        }
    }

    fn load(&mut self, input: usize, index: &[Index]) -> Amount {
        let value = self.operands[input].expect("tile functions read operands that are present");
        let ty = self.graph.ty(value);
        if let Some(beyond) = &self.beyond
            && let Some((_, pad)) = beyond.pads.iter().find(|(own, _)| *own == input)
            && index.contains(&Index::var(beyond.var))
        {
            return if ty.dtype.is_float() {
                intervals::float(*pad)
            } else {
                intervals::exact(*pad)
            };
        }
        let at: Vec<Index> = index.iter().map(|index| self.pinned(index)).collect();
        let dims: Vec<Extent> = ty.dims().into_iter().map(Extent::from).collect();
        let is_inside = at.iter().zip(ty.dims()).all(|(at, extent)| {
            at.as_known()
                .is_some_and(|at| usize::try_from(at).is_ok_and(|at| at < extent))
        });
        let position = linearize(&at, &dims)
            .as_known()
            .and_then(|at| usize::try_from(at).ok());
        if let (true, Some(position)) = (is_inside, position)
            && let Some(elements) = self.amounts.elements(self.graph, value)
        {
            return elements[position].clone();
        }
        self.amounts.of(self.graph, value)
    }

    /// `index`, as a constant where its parts are known.
    fn pinned(&mut self, index: &Index) -> Index {
        match self.index(index).as_known() {
            Some(known) => Index::known(known),
            None => index.clone(),
        }
    }

    fn index(&mut self, index: &Index) -> Amount {
        let mut sum = Amount::known(index.constant);
        let mut terms: Vec<(Atom, i64)> = Vec::new();
        for (atom, coefficient) in &index.terms {
            match coefficient.as_known() {
                Some(coefficient) => terms.push((atom.clone(), coefficient)),
                None => return intervals::any(DType::I64),
            }
        }
        if let Some(distance) = self.distance(&mut terms) {
            sum = intervals::plus(&sum, &distance);
        }
        for (atom, coefficient) in terms {
            let term = intervals::times(&self.atom(&atom), &Amount::known(coefficient));
            sum = intervals::plus(&sum, &term);
        }
        sum
    }

    /// How far what is beyond a count lies from what is below it; takes both out of `terms`.
    fn distance(&self, terms: &mut Vec<(Atom, i64)>) -> Option<Amount> {
        let beyond = self.beyond.as_ref()?;
        let own = terms
            .iter()
            .position(|(atom, _)| *atom == Atom::Var(beyond.var))?;
        let factor = terms[own].1;
        let is_below = |(atom, coefficient): &(Atom, i64)| {
            *coefficient == -factor && matches!(atom, Atom::Var(var) if beyond.below.contains(var))
        };
        let below = terms.iter().position(is_below)?;
        for position in [own.max(below), own.min(below)] {
            terms.remove(position);
        }
        let span = Amount {
            low: 1.0,
            high: intervals::whole(self.body.vars.extent(beyond.var)),
            nan: false,
            linear: None,
        };
        Some(intervals::times(&span, &Amount::known(factor)))
    }

    fn atom(&mut self, atom: &Atom) -> Amount {
        let below = |extent: &Extent| Amount {
            low: 0.0,
            high: (intervals::whole(extent) - 1.0).max(0.0),
            nan: false,
            linear: None,
        };
        match atom {
            Atom::Var(var) => match self.fixed.get(var) {
                Some(&fixed) => Amount::known(fixed),
                None => below(self.body.vars.extent(*var)),
            },
            Atom::Value(id) => self.of(*id),
            Atom::Div(inner, divisor) => match (self.index(inner), divisor.as_known()) {
                (inner, Some(divisor)) => intervals::floor_div(&inner, divisor),
                (_, None) => intervals::any(DType::I64),
            },
            Atom::Mod(inner, divisor) => match (self.index(inner), divisor.as_known()) {
                (inner, Some(divisor)) => intervals::floor_mod(&inner, divisor),
                (_, None) => intervals::any(DType::I64),
            },
            Atom::Clamp(inner, extent) => {
                let (inner, most) = (self.index(inner), below(extent));
                let raised = self.larger(&inner, &Amount::known(0));
                match extent.as_known() {
                    Some(extent) => self.smaller(&raised, &Amount::known((extent - 1).max(0))),
                    None => most,
                }
            }
        }
    }

    /// Whether all conditions hold; `None` where data decides.
    pub fn holds(&mut self, conds: &[Cond]) -> Option<bool> {
        let mut all = Some(true);
        for cond in conds {
            let index = self.index(&cond.index);
            let extent = cond
                .extent
                .as_known()
                .map_or(f64::INFINITY, |_| intervals::whole(&cond.extent));
            if index.high < 0.0 || index.low >= extent {
                return Some(false);
            }
            if index.low < 0.0 || index.high >= extent || cond.extent.as_known().is_none() {
                all = None;
            }
        }
        all
    }

    fn reduced(&mut self, op: ReduceOp, vars: &[VarId], body: ExprId, dtype: DType) -> Amount {
        let extents: Option<Vec<i64>> = vars
            .iter()
            .map(|var| self.body.vars.extent(*var).as_known())
            .collect();
        let Some(extents) = extents else {
            return intervals::any(dtype);
        };
        let count = extents
            .iter()
            .try_fold(1i64, |all, &extent| all.checked_mul(extent));
        let is_arg = matches!(op, ReduceOp::ArgMax { .. } | ReduceOp::ArgMin { .. });
        match count {
            Some(count @ 1..=64) if self.beyond.is_none() && !is_arg => {
                let dims: Vec<usize> = extents
                    .iter()
                    .map(|&extent| usize::try_from(extent).unwrap_or(0))
                    .collect();
                let outer = std::mem::take(&mut self.known);
                let mut all: Option<Amount> = None;
                for position in 0..usize::try_from(count).unwrap_or(0) {
                    let at = coordinates(position, &dims);
                    self.fixed.extend(vars.iter().copied().zip(at));
                    let one = self.of(body);
                    self.known.clear();
                    all = Some(match all {
                        None => one,
                        Some(all) => self.combined(op, &all, &one, dtype),
                    });
                }
                for var in vars {
                    self.fixed.remove(var);
                }
                self.known = outer;
                all.unwrap_or_else(|| intervals::any(dtype))
            }
            Some(count) if count > 0 => {
                let one = self.of(body);
                intervals::settled(intervals::reduced(op, &one, count, dtype), dtype)
            }
            _ => intervals::any(dtype),
        }
    }

    fn combined(&mut self, op: ReduceOp, a: &Amount, b: &Amount, dtype: DType) -> Amount {
        let combined = match op {
            ReduceOp::Sum => intervals::plus(a, b),
            ReduceOp::Prod => intervals::times(a, b),
            ReduceOp::Max => self.larger(a, b),
            ReduceOp::Min => self.smaller(a, b),
            ReduceOp::And => intervals::both(a, b),
            ReduceOp::Or => intervals::either(a, b),
            ReduceOp::ArgMax { .. } | ReduceOp::ArgMin { .. } => intervals::any(dtype),
        };
        intervals::settled(combined, dtype)
    }

    fn larger(&self, a: &Amount, b: &Amount) -> Amount {
        let (low, high) = self.amounts.difference(a, b);
        intervals::larger(a, b, low, high)
    }

    fn smaller(&self, a: &Amount, b: &Amount) -> Amount {
        let (low, high) = self.amounts.difference(a, b);
        intervals::smaller(a, b, low, high)
    }

    fn map(&mut self, op: &str, attrs: &Attrs, args: &[ExprId], dtype: DType) -> Amount {
        if op == "where" {
            return match intervals::truth(&self.of(args[0])) {
                Some(true) => self.of(args[1]),
                Some(false) => self.of(args[2]),
                None => self.of(args[1]).or(&self.of(args[2])),
            };
        }
        if let Some(compare) = intervals::comparison(op) {
            return compare(&self.compared(args[0], args[1]));
        }
        let given: Vec<Amount> = args.iter().map(|&arg| self.of(arg)).collect();
        let mapped = match (op, &given[..]) {
            ("max", [a, b]) => self.larger(a, b),
            ("min", [a, b]) => self.smaller(a, b),
            // Where all that is there is infinite too, the result is no number with what is not there or without.
            ("sub", [a, b]) if self.beyond.is_some() && a.high == f64::NEG_INFINITY && !a.nan => a.clone(),
            (_, given) => {
                let from = args.first().map_or(dtype, |&arg| self.body.dtype(arg));
                intervals::mapped(op, attrs, given, from, dtype)
            }
        };
        intervals::settled(mapped, dtype)
    }

    /// Limits of the difference of two expressions.
    fn compared(&mut self, a: ExprId, b: ExprId) -> Amount {
        if let (Expr::IndexValue(a), Expr::IndexValue(b)) = (self.body.expr(a), self.body.expr(b)) {
            let difference = a.minus(b);
            return self.index(&difference);
        }
        let (a, b) = (self.of(a), self.of(b));
        let (low, high) = self.amounts.difference(&a, &b);
        Amount {
            low,
            high,
            nan: a.nan || b.nan,
            linear: None,
        }
    }
}
