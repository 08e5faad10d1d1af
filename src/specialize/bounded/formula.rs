//! What a result is computed of, and how it runs along the axes of its operands.

use std::collections::BTreeSet;

use super::super::element::Element;
use super::eval::Eval;
use super::{Lane, Span};
use crate::ir::{DType, Graph, Node};
use crate::tile::{Atom, Body, Cond, Expr, ExprId, Extent, Index, ReduceOp, Scalar, VarId};

/// What a result is computed of: expressions that it needs, but for branches that are never taken.
pub(super) struct Needs<'a> {
    body: &'a Body,
    pub loads: Vec<(usize, &'a [Index])>,
    pub reductions: Vec<(ReduceOp, &'a [VarId], ExprId, DType)>,
    pub constants: Vec<Scalar>,
}

/// A result of a node as an expression.
pub(super) struct Formula<'a> {
    pub graph: &'a Graph,
    pub node: &'a Node,
    pub body: Body,
    pub root: ExprId,
    /// Coordinates of the result.
    pub vars: Vec<VarId>,
}

/// How axes of operands are run along.
#[derive(Default)]
pub(super) struct Runs {
    /// Along these axes of the result.
    pub lanes: Vec<Lane>,
    /// By reductions.
    pub reduced: Vec<Reduced>,
}

/// An axis of an operand that a reduction runs over.
pub(super) struct Reduced {
    pub var: VarId,
    pub operand: usize,
    pub lane: Lane,
}

impl<'a> Formula<'a> {
    /// `None` for what has no expression.
    pub fn of(graph: &'a Graph, node: &'a Node, number: usize) -> Option<Self> {
        // An axis of one element is no lane: data decides of larger ones here.
        let Element { body, root, vars } = Element::of_node(graph, node, number)?;
        Some(Formula {
            graph,
            node,
            body,
            root,
            vars,
        })
    }

    /// How the axes in `operands` are run along.
    ///
    /// # Errors
    /// If one is read otherwise: which.
    pub fn runs(&self, needs: &Needs<'_>, operands: &[Vec<Lane>]) -> Result<Runs, usize> {
        let mut runs = Runs::default();
        for &(operand, index) in &needs.loads {
            for &lane in &operands[operand] {
                match access(&index[lane.axis], lane.span, &self.vars, &self.body) {
                    Access::Lane(var, span) => {
                        let axis = self.vars.iter().position(|&own| own == var);
                        let axis = axis.expect("it is of the result");
                        runs.add(Lane { axis, span }).ok_or(lane.axis)?;
                    }
                    Access::Reduced(var) => runs.reduced.push(Reduced { var, operand, lane }),
                    // Indices that data gives name elements that are there.
                    Access::Picked => {}
                    Access::Other => return Err(lane.axis),
                }
            }
        }
        Ok(runs)
    }

    /// No other axis may be read along a lane, unless it has what is read however long the lane is.
    pub fn expect_no_other(
        &self,
        needs: &Needs<'_>,
        lanes: &[Lane],
        operands: &[Vec<Lane>],
    ) -> Result<(), String> {
        for &(operand, index) in &needs.loads {
            for (axis, index) in index.iter().enumerate() {
                let mut read = Vec::new();
                index.variables(&mut read);
                let is_inner = matches!(index.terms.as_slice(), [(Atom::Mod(..) | Atom::Div(..), _)])
                    || index.terms.iter().all(|(atom, _)| !matches!(atom, Atom::Var(_)));
                let is_other = |lane: &Lane| {
                    read.contains(&self.vars[lane.axis])
                        && !is_inner
                        && !operands[operand]
                            .iter()
                            .any(|own| own.axis == axis && own.span.count == lane.span.count)
                };
                if lanes.iter().any(is_other) {
                    let op = self.node.op;
                    return Err(format!(
                        "`{op}` reads axis {axis} of an operand along that of another"
                    ));
                }
            }
        }
        Ok(())
    }
}

impl Runs {
    /// `None` where the axis is another lane already.
    fn add(&mut self, lane: Lane) -> Option<()> {
        if let Some(other) = self.lanes.iter().find(|other| other.axis == lane.axis) {
            return (*other == lane).then_some(());
        }
        self.lanes.push(lane);
        Some(())
    }
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
    if !rest.is_within(&Extent::known(size), &body.vars) || !span.factor.is_multiple_of(divisor) {
        return None;
    }
    let factor = span.factor / divisor;
    Some(Access::Lane(var, Span { factor, ..span }))
}

impl<'a> Needs<'a> {
    pub fn of(body: &'a Body, root: ExprId, eval: &mut Eval<'_>) -> Self {
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
                values_of(index, open);
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
            } => branches(conds, [*then, *otherwise], eval, open),
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
}

/// The branches of a choice that may be taken, and what decides it where data does.
fn branches(conds: &[Cond], [then, otherwise]: [ExprId; 2], eval: &mut Eval<'_>, open: &mut Vec<ExprId>) {
    match eval.holds(conds) {
        Some(true) => open.push(then),
        Some(false) => open.push(otherwise),
        None => {
            for cond in conds {
                values(&cond.index, open);
            }
            open.extend([then, otherwise]);
        }
    }
}

fn values_of(indices: &[Index], open: &mut Vec<ExprId>) {
    for index in indices {
        values(index, open);
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
