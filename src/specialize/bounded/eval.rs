//! Expressions of tiles, computed with ranges in place of data.

use std::collections::HashMap;

use super::amounts::{Amounts, coordinates};
use super::intervals;
use crate::ir::{Attrs, DType, Graph, Operand};
use crate::ops::bounded::{Amount, Analysis};
use crate::tile::index::linearize;
use crate::tile::{Atom, Body, Cond, Expr, ExprId, Extent, Index, ReduceOp, VarId};

/// An element beyond the count of an axis that a reduction runs over.
#[derive(Clone, Copy)]
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
