//! Numbers with which reductions pass over elements that are not there.

use std::collections::BTreeSet;

use super::Span;
use super::amounts::Amounts;
use super::eval::{Beyond, Eval};
use super::formula::{Formula, Needs, Reduced, Runs};
use crate::ir::DType;
use crate::ops::bounded::Amount;
use crate::ops::reduce::extreme_of;
use crate::tile::{ReduceOp, VarId};

/// A number that elements of an operand must have where they are not there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Mask {
    pub operand: usize,
    pub axis: usize,
    pub span: Span,
    pub pad: f64,
}

/// What operands must be masked with; `None` where no number changes nothing.
pub(super) fn masks(
    formula: &Formula<'_>,
    amounts: &mut Amounts,
    needs: &Needs<'_>,
    runs: &Runs,
) -> Option<Vec<Mask>> {
    let mut masks: Vec<Mask> = Vec::new();
    let vars: BTreeSet<VarId> = runs.reduced.iter().map(|run| run.var).collect();
    for var in vars {
        for mask in of_var(formula, amounts, needs, runs, var)? {
            // One number per operand: what one reduction passes over, another may not.
            let differs =
                |other: &Mask| other.operand == mask.operand && other.pad.to_bits() != mask.pad.to_bits();
            if masks.iter().any(differs) {
                return None;
            }
            if !masks.contains(&mask) {
                masks.push(mask);
            }
        }
    }
    Some(masks)
}

/// The same for what `var` runs over.
fn of_var(
    formula: &Formula<'_>,
    amounts: &mut Amounts,
    needs: &Needs<'_>,
    runs: &Runs,
    var: VarId,
) -> Option<Vec<Mask>> {
    let own: Vec<&Reduced> = runs.reduced.iter().filter(|run| run.var == var).collect();
    let span = own[0].lane.span;
    if own.iter().any(|run| run.lane.span != span) {
        return None;
    }
    let below = runs.lanes.iter().filter(|lane| lane.span == span);
    let below: Vec<VarId> = below.map(|lane| formula.vars[lane.axis]).collect();
    let operands: BTreeSet<usize> = own.iter().map(|run| run.operand).collect();
    let pads = choices(formula, &operands).into_iter().find(|pads| {
        let beyond = Beyond {
            var,
            below: &below,
            pads,
        };
        passes_over(formula, amounts, needs, beyond)
    })?;
    let mask = |run: &&Reduced| {
        let (_, pad) = *pads.iter().find(|(operand, _)| *operand == run.operand)?;
        Some(Mask {
            operand: run.operand,
            axis: run.lane.axis,
            span,
            pad,
        })
    };
    own.iter().map(mask).collect()
}

/// Numbers to try for operands. The least comes first: that is what the largest of no elements is.
fn choices(formula: &Formula<'_>, operands: &BTreeSet<usize>) -> Vec<Vec<(usize, f64)>> {
    operands.iter().fold(vec![Vec::new()], |all, &operand| {
        let value = formula.node.operands[operand].expect("it is read");
        let kind = formula.graph.ty(value).dtype;
        let own = [extreme_of(kind, false), extreme_of(kind, true), 0.0, 1.0];
        let longer = |pads: &Vec<(usize, f64)>| own.map(|pad| [pads.as_slice(), &[(operand, pad)]].concat());
        all.iter().flat_map(longer).collect()
    })
}

/// Whether all reductions over what is beyond a count come out as without it.
fn passes_over(formula: &Formula<'_>, amounts: &mut Amounts, needs: &Needs<'_>, beyond: Beyond<'_>) -> bool {
    let operands = &formula.node.operands;
    let over = needs.reductions.iter();
    over.filter(|(_, vars, ..)| vars.contains(&beyond.var))
        .all(|&(op, _, term, dtype)| {
            let mut eval = Eval::new(amounts, formula.graph, operands, &formula.body);
            let any = eval.of(term);
            let mut eval = Eval::new(amounts, formula.graph, operands, &formula.body);
            eval.beyond = Some(beyond);
            changes_nothing(op, &eval.of(term), &any, dtype)
        })
}

/// Whether a term in the range `padded` changes nothing of a reduction of terms in the range `any`.
fn changes_nothing(op: ReduceOp, padded: &Amount, any: &Amount, dtype: DType) -> bool {
    let is = |value: f64| padded.low == value && padded.high == value && !padded.nan;
    match op {
        ReduceOp::Sum | ReduceOp::Or => is(0.0),
        ReduceOp::Prod | ReduceOp::And => is(1.0),
        ReduceOp::Max => !padded.nan && padded.high <= any.low || is(extreme_of(dtype, false)),
        ReduceOp::Min => !padded.nan && padded.low >= any.high || is(extreme_of(dtype, true)),
        // The first of equal elements is one that is there.
        ReduceOp::ArgMax { last } => !last && !padded.nan && padded.high <= any.low,
        ReduceOp::ArgMin { last } => !last && !padded.nan && padded.low >= any.high,
    }
}
