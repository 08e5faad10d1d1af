//! Proofs that what an op computes of elements that are there does not depend on those that are not.

use std::collections::BTreeSet;

use super::amounts::{Amounts, Beyond, Eval, tile};
use super::{Lane, Span};
use crate::ir::{DType, Graph, Node, TensorType, ValueId};
use crate::ops::reduce::extreme_of;
use crate::tile::{Atom, Body, Cond, Expr, ExprId, Extent, Index, ReduceOp, Scalar, VarId};

/// What is found of one node.
pub(super) struct Reading {
    /// Axes of the result of which element `i` needs element `i` of operands, and no other that may be missing.
    pub lanes: Vec<Lane>,
    pub masks: Vec<Mask>,
    /// Constants that the result is computed with.
    pub constants: Vec<Scalar>,
}

/// A number that elements of an operand must have where they are not there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Mask {
    pub operand: usize,
    pub axis: usize,
    pub span: Span,
    pub pad: f64,
}

/// What a result is computed of: expressions that it needs, but for branches that are never taken.
struct Needs<'a> {
    body: &'a Body,
    loads: Vec<(usize, &'a [Index])>,
    reductions: Vec<(ReduceOp, &'a [VarId], ExprId, DType)>,
    constants: Vec<Scalar>,
}

/// How result `number` of `node` depends on the axes in `operands`, one list for each of its operands.
///
/// # Errors
/// If it depends on them otherwise: why.
pub(super) fn read(
    graph: &Graph,
    amounts: &mut Amounts,
    node: &Node,
    number: usize,
    operands: &[Vec<Lane>],
) -> Result<Reading, String> {
    let result = graph.ty(node.results[number]);
    let types: Vec<Option<&TensorType>> = (node.operands.iter())
        .map(|operand| operand.map(|value| graph.ty(value)))
        .collect();
    if result.n_elements() == 0 || types.iter().flatten().any(|ty| ty.n_elements() == 0) {
        return Err(format!("`{}` has no elements", node.op));
    }
    let mut body = Body::new();
    let extents = result.dims();
    let vars: Vec<VarId> = extents
        .iter()
        .map(|&extent| body.vars.fresh(Extent::from(extent)))
        .collect();
    // An axis of one element is no lane: data decides of larger ones here.
    let at: Vec<Index> = vars
        .iter()
        .zip(&extents)
        .map(|(&var, &extent)| {
            if extent == 1 {
                Index::zero()
            } else {
                Index::var(var)
            }
        })
        .collect();
    let mixes = |axis: usize| format!("`{}` mixes elements along axis {axis} of its operand", node.op);
    let Some(root) = tile(graph, node, number, &at, &mut body) else {
        let axis = operands.iter().flatten().map(|lane| lane.axis).next();
        return Err(mixes(axis.unwrap_or(0)));
    };
    let needs = Needs::of(&body, root, &mut Eval::new(amounts, graph, &node.operands, &body));
    let mut lanes: Vec<Lane> = Vec::new();
    let mut run_over: Vec<(VarId, usize, Lane)> = Vec::new();
    for &(operand, index) in &needs.loads {
        for &lane in &operands[operand] {
            match access(&index[lane.axis], lane.span, &vars, &body) {
                Access::Lane(var, span) => {
                    let axis = vars
                        .iter()
                        .position(|&own| own == var)
                        .expect("it is of the result");
                    let own = Lane { axis, span };
                    if lanes.iter().any(|other| other.axis == axis && *other != own) {
                        return Err(mixes(lane.axis));
                    }
                    if !lanes.contains(&own) {
                        lanes.push(own);
                    }
                }
                Access::Reduced(var) => run_over.push((var, operand, lane)),
                // Indices that data gives name elements that are there.
                Access::Picked => {}
                Access::Other => return Err(mixes(lane.axis)),
            }
        }
    }
    foreign(node, &needs, &lanes, &vars, operands, &body)?;
    let masks = masks(graph, amounts, node, &body, &needs, &lanes, &vars, &run_over)
        .ok_or_else(|| mixes(run_over.first().map_or(0, |(_, _, lane)| lane.axis)))?;
    Ok(Reading {
        lanes,
        masks,
        constants: needs.constants,
    })
}

/// How an axis is read.
enum Access {
    /// Along an axis of the result.
    Lane(VarId, Span),
    /// By what a reduction runs over.
    Reduced(VarId),
    /// Where data says.
    Picked,
    Other,
}

fn access(index: &Index, span: Span, vars: &[VarId], body: &Body) -> Access {
    let mut read = Vec::new();
    index.variables(&mut read);
    let is_clamped = |(atom, factor): &(Atom, Extent)| match atom {
        Atom::Value(_) => true,
        Atom::Clamp(inner, _) => {
            factor.as_known() == Some(1) && inner.terms.iter().all(|(atom, _)| matches!(atom, Atom::Value(_)))
        }
        _ => false,
    };
    if read.is_empty() {
        let is_picked = !index.terms.is_empty() && index.constant == 0 && index.terms.iter().all(is_clamped);
        return if is_picked { Access::Picked } else { Access::Other };
    }
    if let [(Atom::Var(var), one)] = index.terms.as_slice()
        && one.as_known() == Some(1)
        && index.constant == 0
    {
        return if vars.contains(var) {
            Access::Lane(*var, span)
        } else {
            Access::Reduced(*var)
        };
    }
    scaled(index, span, vars, body).unwrap_or(Access::Other)
}

/// Axes that were put together or taken apart, the one that data decides in front.
fn scaled(index: &Index, span: Span, vars: &[VarId], body: &Body) -> Option<Access> {
    if index.constant != 0 {
        return None;
    }
    if let [(Atom::Div(inner, divisor), one)] = index.terms.as_slice()
        && let [(Atom::Var(var), inner_one)] = inner.terms.as_slice()
        && [one, inner_one].iter().all(|factor| factor.as_known() == Some(1))
        && inner.constant == 0
        && vars.contains(var)
    {
        let factor = usize::try_from(divisor.as_known()?)
            .ok()?
            .checked_mul(span.factor)?;
        return Some(Access::Lane(*var, Span { factor, ..span }));
    }
    // `var * d + rest`, with a rest below `d`.
    let (position, var, size) = index
        .terms
        .iter()
        .enumerate()
        .find_map(|(position, (atom, factor))| {
            let Atom::Var(var) = atom else { return None };
            let size = factor.as_known().filter(|&size| size > 1)?;
            vars.contains(var).then_some((position, *var, size))
        })?;
    let mut rest = index.clone();
    rest.terms.remove(position);
    let divisor = usize::try_from(size).ok()?;
    if !rest.is_within(&Extent::known(size), &body.vars) || span.factor % divisor != 0 {
        return None;
    }
    let factor = span.factor / divisor;
    Some(Access::Lane(var, Span { factor, ..span }))
}

/// No other axis may be read along a lane, unless it has what is read however long the lane is.
fn foreign(
    node: &Node,
    needs: &Needs<'_>,
    lanes: &[Lane],
    vars: &[VarId],
    operands: &[Vec<Lane>],
    body: &Body,
) -> Result<(), String> {
    for &(operand, index) in &needs.loads {
        for (axis, index) in index.iter().enumerate() {
            let mut read = Vec::new();
            index.variables(&mut read);
            let is_inner = matches!(index.terms.as_slice(), [(Atom::Mod(..) | Atom::Div(..), _)])
                || index.terms.iter().all(|(atom, _)| !matches!(atom, Atom::Var(_)));
            let is_foreign = |lane: &Lane| {
                read.contains(&vars[lane.axis])
                    && !is_inner
                    && !operands[operand]
                        .iter()
                        .any(|own| own.axis == axis && own.span.count == lane.span.count)
            };
            if lanes.iter().any(is_foreign) {
                return Err(format!(
                    "`{}` reads axis {axis} of an operand along that of another",
                    node.op
                ));
            }
        }
    }
    let _ = body;
    Ok(())
}

/// Numbers with which reductions pass over elements that are not there; `None` where there are none.
#[expect(clippy::too_many_arguments, reason = "all that is known of one node")]
fn masks(
    graph: &Graph,
    amounts: &mut Amounts,
    node: &Node,
    body: &Body,
    needs: &Needs<'_>,
    lanes: &[Lane],
    vars: &[VarId],
    run_over: &[(VarId, usize, Lane)],
) -> Option<Vec<Mask>> {
    let mut masks: Vec<Mask> = Vec::new();
    let all: BTreeSet<VarId> = run_over.iter().map(|(var, ..)| *var).collect();
    for var in all {
        let own: Vec<(usize, Lane)> = (run_over.iter())
            .filter(|(other, ..)| *other == var)
            .map(|&(_, operand, lane)| (operand, lane))
            .collect::<Vec<_>>();
        let span = own[0].1.span;
        if own.iter().any(|(_, lane)| lane.span != span) {
            return None;
        }
        let below: Vec<VarId> = (lanes.iter())
            .filter(|lane| lane.span == span)
            .map(|lane| vars[lane.axis])
            .collect();
        let operands: Vec<usize> = own
            .iter()
            .map(|(operand, _)| *operand)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let kinds: Vec<DType> = operands
            .iter()
            .map(|&operand| graph.ty(node.operands[operand].expect("it is read")).dtype)
            .collect();
        let pads = choices(&kinds).into_iter().find(|pads| {
            let pads: Vec<(usize, f64)> = operands.iter().copied().zip(pads.iter().copied()).collect();
            let over = needs
                .reductions
                .iter()
                .filter(|(_, vars, ..)| vars.contains(&var));
            over.into_iter().all(|&(op, _, reduced, dtype)| {
                let mut eval = Eval::new(amounts, graph, &node.operands, body);
                eval.beyond = Some(Beyond {
                    var,
                    below: &below,
                    pads: &pads,
                });
                let padded = eval.of(reduced);
                let mut eval = Eval::new(amounts, graph, &node.operands, body);
                changes_nothing(op, &padded, &eval.of(reduced), dtype)
            })
        })?;
        for (operand, pad) in operands.into_iter().zip(pads) {
            for (_, lane) in own.iter().filter(|(other, _)| *other == operand) {
                let mask = Mask {
                    operand,
                    axis: lane.axis,
                    span,
                    pad,
                };
                // One number per operand: what one reduction passes over, another may not.
                if masks
                    .iter()
                    .any(|other| other.operand == operand && other.pad.to_bits() != pad.to_bits())
                {
                    return None;
                }
                if !masks.contains(&mask) {
                    masks.push(mask);
                }
            }
        }
    }
    Some(masks)
}

/// Numbers to try for operands of these kinds.
fn choices(kinds: &[DType]) -> Vec<Vec<f64>> {
    kinds.iter().fold(vec![Vec::new()], |all, &kind| {
        let own = [0.0, extreme_of(kind, false), extreme_of(kind, true), 1.0];
        let longer = |pads: &Vec<f64>| own.map(|pad| [pads.as_slice(), &[pad]].concat());
        all.iter().flat_map(longer).collect()
    })
}

/// Whether a term in the range `padded` changes nothing of a reduction of terms in the range `any`.
fn changes_nothing(
    op: ReduceOp,
    padded: &crate::ops::bounded::Amount,
    any: &crate::ops::bounded::Amount,
    dtype: DType,
) -> bool {
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

impl<'a> Needs<'a> {
    fn of(body: &'a Body, root: ExprId, eval: &mut Eval<'_>) -> Self {
        let mut needs = Needs {
            body,
            loads: Vec::new(),
            reductions: Vec::new(),
            constants: Vec::new(),
        };
        let mut seen = BTreeSet::new();
        let mut open = vec![root];
        while let Some(id) = open.pop() {
            if seen.insert(id) {
                needs.visit(id, eval, &mut open);
            }
        }
        needs.constants.sort_by_key(|scalar| (scalar.bits, scalar.dtype));
        needs
    }

    fn visit(&mut self, id: ExprId, eval: &mut Eval<'_>, open: &mut Vec<ExprId>) {
        match self.body.expr(id) {
            Expr::Load { input, index, .. } => {
                self.loads.push((*input as usize, index));
                index.iter().for_each(|index| values(index, open));
            }
            Expr::Const(scalar) => self.constants.push(*scalar),
            Expr::IndexValue(index) => values(index, open),
            Expr::Map {
                op: "where", args, ..
            } => match super::intervals::truth(&eval.of(args[0])) {
                Some(true) => open.push(args[1]),
                Some(false) => open.push(args[2]),
                None => open.extend(args),
            },
            Expr::Map { args, .. } => open.extend(args),
            Expr::Select {
                conds,
                then,
                otherwise,
            } => self.branches(conds, *then, *otherwise, eval, open),
            Expr::Reduce {
                op,
                vars,
                body,
                dtype,
            } => {
                self.reductions.push((*op, vars, *body, *dtype));
                open.push(*body);
            }
            Expr::Acc { .. } => {}
        }
    }

    fn branches(
        &self,
        conds: &[Cond],
        then: ExprId,
        otherwise: ExprId,
        eval: &mut Eval<'_>,
        open: &mut Vec<ExprId>,
    ) {
        match eval.holds(conds) {
            Some(true) => open.push(then),
            Some(false) => open.push(otherwise),
            None => {
                conds.iter().for_each(|cond| values(&cond.index, open));
                open.extend([then, otherwise]);
            }
        }
    }
}

/// The expressions that an index is read from.
fn values(index: &Index, open: &mut Vec<ExprId>) {
    for (atom, _) in &index.terms {
        match atom {
            Atom::Value(id) => open.push(*id),
            Atom::Div(inner, _) | Atom::Mod(inner, _) | Atom::Clamp(inner, _) => values(inner, open),
            Atom::Var(_) => {}
        }
    }
}

/// The values of a graph from number `first` on that are constants of a larger extent where an axis has one.
pub(super) fn constant_lanes(dims: &[usize], larger: &[usize]) -> Vec<Lane> {
    let lanes = dims.iter().enumerate().filter_map(|(axis, extent)| {
        let count = larger.iter().position(|own| own == extent)?;
        Some(Lane {
            axis,
            span: Span { count, factor: 1 },
        })
    });
    lanes.collect()
}

/// Names a value by its number.
pub(super) fn value(number: usize) -> ValueId {
    ValueId(u32::try_from(number).expect("graphs have under 2^32 values"))
}
