//! Regions as rows: reductions over one range per row, and work on the same elements.
//!
//! Every output element belongs to a *row*; its reductions run over the positions of that
//! row, `0..len`. Outputs hold one element per row or one per position. The plan places the
//! output axes and the reduced variables in this frame, whatever their order in memory was. An
//! axis that reductions only see divided, as channels in groups, counts as two axes.

use std::collections::{BTreeMap, BTreeSet};

use crate::kernel::body::free_vars::FreeVars;
use crate::kernel::body::rebuild::{Rebuild, Stage, lone_var, operands as operands_of};
use crate::kernel::body::region::{Composed, compose_at, extents};
use crate::kernel::error::KernelError;
use crate::kernel::spec::KernelSpec;
use crate::rewrite::RegionKind;
use crate::tile::index::delinearize;
use crate::tile::{Atom, Body, Expr, ExprId, Extent, Index, VarId};

/// How a region falls into rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowShape {
    pub n_rows: usize,
    pub len: usize,
    outputs: Vec<OutputAxes>,
}

/// An axis of an output or a factor of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    axis: usize,
    extent: usize,
}

/// Parts of one output's axes that number its rows, and those along a row. Parts of one axis
/// stand in their order, the outer one first.
#[derive(Clone, Debug, PartialEq, Eq)]
struct OutputAxes {
    parts: Vec<Part>,
    n_axes: usize,
    row: Vec<usize>,
    along: Vec<usize>,
}

/// An output of the region in terms of row and position.
#[derive(Clone, Debug)]
pub struct RowOutput {
    pub value: ExprId,
    pub at: Vec<Index>,
    /// Whether there is one element per row, not per position.
    pub per_row: bool,
}

/// The terms of a region in terms of row and position; accumulator `i` is stage `i`.
#[derive(Clone, Debug)]
pub struct RowBody {
    pub body: Body,
    pub vars: Vec<VarId>,
    pub stages: Vec<Stage>,
    pub outputs: Vec<RowOutput>,
}

/// The rows of `spec`, if it has reductions that fit one frame.
pub fn row_shape(spec: &KernelSpec) -> Option<RowShape> {
    match spec.kind {
        // Their elements share what they read, which rows know nothing of.
        RegionKind::Window | RegionKind::Attention => return None,
        RegionKind::Pointwise
        | RegionKind::Row
        | RegionKind::Reduce
        | RegionKind::Dot
        | RegionKind::Other => {}
    }
    let mut shape: Option<RowShape> = None;
    for (number, ty) in spec.output_types().iter().enumerate() {
        let (len, axes) = output_axes(spec, number, &ty.dims())?;
        let n_rows = axes.extent_of(&axes.row);
        let shape = shape.get_or_insert(RowShape {
            n_rows,
            len,
            outputs: Vec::new(),
        });
        if shape.n_rows != n_rows || shape.len != len {
            return None;
        }
        shape.outputs.push(axes);
    }
    shape.filter(|shape| shape.n_rows > 0 && shape.len > 0)
}

/// Composes output number `number` over one variable per part of an axis, and reads off which
/// parts its reductions depend on. Axes are taken apart until no reduction divides one.
fn output_axes(spec: &KernelSpec, number: usize, dims: &[usize]) -> Option<(usize, OutputAxes)> {
    let mut parts: Vec<Part> = dims
        .iter()
        .enumerate()
        .map(|(axis, &extent)| Part { axis, extent })
        .collect();
    // Every turn adds a part, and an axis has few factors that are of use.
    for _ in 0..=2 * dims.len() {
        let composed = compose_parts(spec, number, dims.len(), &parts)?;
        let (len, depends, terms) = reductions(&composed)?;
        let Some((part, inner)) = divided_part(&composed, &terms, &parts) else {
            return placed(parts, dims.len(), &composed.vars, len, &depends);
        };
        parts[part].extent /= inner;
        let Part { axis, .. } = parts[part];
        parts.insert(part + 1, Part { axis, extent: inner });
    }
    None
}

fn compose_parts(spec: &KernelSpec, number: usize, n_axes: usize, parts: &[Part]) -> Option<Composed> {
    let one = KernelSpec {
        kind: spec.kind,
        body: {
            let mut body = spec.body.clone();
            body.outputs = vec![spec.body.outputs[number]];
            body
        },
        options: spec.options,
        placements: BTreeMap::new(),
        weights: spec.weights.clone(),
    };
    let extents: Vec<usize> = parts.iter().map(|part| part.extent).collect();
    compose_at(&one, &extents, |_, vars, _| {
        let places: Vec<Index> = vars
            .iter()
            .zip(parts)
            .map(|(&var, part)| {
                if part.extent == 1 {
                    Index::zero()
                } else {
                    Index::var(var)
                }
            })
            .collect();
        put_together(n_axes, parts, &places)
    })
    .ok()
}

/// Index of each axis, from one index per part.
fn put_together(n_axes: usize, parts: &[Part], places: &[Index]) -> Vec<Index> {
    let mut at = vec![Index::zero(); n_axes];
    for (part, place) in parts.iter().zip(places) {
        at[part.axis] = at[part.axis].times(&Extent::from(part.extent)).plus(place);
    }
    at
}

/// Says which parts number rows: those that reductions depend on.
fn placed(
    parts: Vec<Part>,
    n_axes: usize,
    vars: &[VarId],
    len: usize,
    depends: &BTreeSet<VarId>,
) -> Option<(usize, OutputAxes)> {
    let mut axes = OutputAxes {
        parts,
        n_axes,
        row: Vec::new(),
        along: Vec::new(),
    };
    for (part, var) in vars.iter().enumerate() {
        if depends.contains(var) {
            axes.row.push(part);
        } else if axes.parts[part].extent != 1 {
            axes.along.push(part);
        }
    }
    // Rows that share their reductions are rows nevertheless.
    while !axes.along.is_empty() && axes.extent_of(&axes.along) > len {
        axes.row.push(axes.along.remove(0));
    }
    axes.row.sort_unstable();
    (axes.along.is_empty() || axes.extent_of(&axes.along) == len).then_some((len, axes))
}

/// A part that some term of a reduction sees only divided by a number, and that number.
fn divided_part(composed: &Composed, terms: &[ExprId], parts: &[Part]) -> Option<(usize, usize)> {
    let mut open: Vec<ExprId> = terms.to_vec();
    let mut seen: BTreeSet<ExprId> = open.iter().copied().collect();
    while let Some(id) = open.pop() {
        let expr = composed.body.expr(id);
        let indices: Vec<&Index> = match expr {
            Expr::Load { index, .. } => index.iter().collect(),
            Expr::IndexValue(index) => vec![index],
            Expr::Select { conds, .. } => conds.iter().map(|cond| &cond.index).collect(),
            Expr::Const(_) | Expr::Map { .. } | Expr::Reduce { .. } | Expr::Acc { .. } => Vec::new(),
        };
        let mut divided = indices.into_iter().filter_map(divided_var);
        let found = divided.find_map(|(var, by)| {
            let part = composed.vars.iter().position(|own| *own == var)?;
            let extent = parts[part].extent;
            (by > 1 && by < extent && extent.is_multiple_of(by)).then_some((part, by))
        });
        if found.is_some() {
            return found;
        }
        open.extend(
            operands_of(expr)
                .into_iter()
                .filter(|&operand| seen.insert(operand)),
        );
    }
    None
}

/// The variable of a quotient of one variable in `index`, and the divisor.
fn divided_var(index: &Index) -> Option<(VarId, usize)> {
    index.terms.iter().find_map(|(atom, _)| match atom {
        Atom::Div(inner, by) => match (lone_var(inner), by.as_known()) {
            (Some(var), Some(by)) => Some((var, usize::try_from(by).ok()?)),
            _ => divided_var(inner),
        },
        Atom::Mod(inner, _) | Atom::Clamp(inner, _) => divided_var(inner),
        Atom::Var(_) | Atom::Value(_) => None,
    })
}

/// Length of the reduced range, the output variables that reductions depend on, and their
/// terms. `None` without reductions, with ranges of several lengths, with reductions that depend on each
/// other's variables, and with some that only a branch evaluates.
fn reductions(composed: &Composed) -> Option<(usize, BTreeSet<VarId>, Vec<ExprId>)> {
    let free = FreeVars::of(&composed.body);
    let outer: BTreeSet<VarId> = composed.vars.iter().copied().collect();
    let mut found: Option<(usize, BTreeSet<VarId>, Vec<ExprId>)> = None;
    let mut queue: Vec<(ExprId, bool)> = composed.outputs.iter().map(|&root| (root, false)).collect();
    let mut seen: BTreeSet<(ExprId, bool)> = queue.iter().copied().collect();
    while let Some((id, in_branch)) = queue.pop() {
        let expr = composed.body.expr(id);
        if let Expr::Reduce { vars, body: term, .. } = expr {
            if in_branch || !free.get(id).is_subset(&outer) {
                return None;
            }
            let len = vars
                .iter()
                .map(|&var| composed.body.vars.extent(var).as_known())
                .try_fold(1usize, |len, extent| Some(len * usize::try_from(extent?).ok()?))?;
            let (known, depends, terms) = found.get_or_insert_with(|| (len, BTreeSet::new(), Vec::new()));
            if *known != len {
                return None;
            }
            depends.extend(free.get(id));
            terms.push(*term);
        }
        let guards = matches!(expr, Expr::Select { .. });
        for operand in operands_of(expr) {
            let next = (operand, in_branch || guards);
            if seen.insert(next) {
                queue.push(next);
            }
        }
    }
    found
}

/// The terms of `spec` over variables of `extents`: row number `row(vars)`, position
/// `position(vars)`. `None` where two reductions place a variable differently.
///
/// # Errors
/// If an op of the body has no generated code.
pub fn row_body(
    spec: &KernelSpec,
    shape: &RowShape,
    var_extents: &[usize],
    row: &dyn Fn(&[VarId]) -> Index,
    position: &dyn Fn(&[VarId]) -> Index,
) -> Result<Option<RowBody>, KernelError> {
    let next = std::cell::Cell::new(0);
    let places = std::cell::RefCell::new(Vec::new());
    let composed = compose_at(spec, var_extents, |body, vars, _| {
        let axes = &shape.outputs[next.replace(next.get() + 1)];
        let at = axes.coordinates(body, &row(vars), &position(vars));
        places.borrow_mut().push(at.clone());
        at
    })?;
    let mut into = Body::new();
    let vars: Vec<VarId> = composed
        .vars
        .iter()
        .map(|&var| into.vars.fresh(composed.body.vars.extent(var).clone()))
        .collect();
    let same = composed
        .vars
        .iter()
        .copied()
        .zip(vars.iter().copied().map(Index::var))
        .collect();
    let mut rebuild = Rebuild::new(&composed.body, into, same).taking_apart(position(&vars));
    let values: Vec<ExprId> = composed.outputs.iter().map(|&root| rebuild.expr(root)).collect();
    let Some(apart) = rebuild.apart.take().filter(|apart| !apart.conflict) else {
        return Ok(None);
    };
    let outputs = values
        .into_iter()
        .zip(places.into_inner())
        .zip(&shape.outputs)
        .map(|((value, at), axes)| RowOutput {
            value,
            at,
            per_row: axes.along.is_empty(),
        })
        .collect();
    Ok(Some(RowBody {
        body: rebuild.into,
        vars,
        stages: apart.stages,
        outputs,
    }))
}

impl OutputAxes {
    fn extents_of(&self, chosen: &[usize]) -> Vec<usize> {
        chosen.iter().map(|&part| self.parts[part].extent).collect()
    }

    fn extent_of(&self, chosen: &[usize]) -> usize {
        self.extents_of(chosen).iter().product()
    }

    fn coordinates(&self, body: &Body, row: &Index, position: &Index) -> Vec<Index> {
        let mut places = vec![Index::zero(); self.parts.len()];
        for (chosen, index) in [(&self.row, row), (&self.along, position)] {
            let found = delinearize(index, &extents(&self.extents_of(chosen)), &body.vars);
            for (&part, place) in chosen.iter().zip(found) {
                places[part] = place;
            }
        }
        put_together(self.n_axes, &self.parts, &places)
    }
}

impl RowBody {
    /// Numbers of the stages that each pass over a row computes: those of one pass need none
    /// of each other.
    pub fn passes(&self) -> Vec<Vec<usize>> {
        let mut levels: Vec<usize> = Vec::new();
        for stage in &self.stages {
            let level = self
                .accumulators_below(stage.term)
                .into_iter()
                .map(|slot| levels[slot] + 1)
                .max()
                .unwrap_or(0);
            levels.push(level);
        }
        let n_passes = levels.iter().max().map_or(0, |most| most + 1);
        (0..n_passes)
            .map(|pass| (0..levels.len()).filter(|&stage| levels[stage] == pass).collect())
            .collect()
    }

    fn accumulators_below(&self, root: ExprId) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut queue = vec![root];
        let mut seen = BTreeSet::from([root]);
        while let Some(id) = queue.pop() {
            if let Expr::Acc { slot, .. } = self.body.expr(id) {
                found.insert(usize::from(*slot));
            }
            queue.extend(
                operands_of(self.body.expr(id))
                    .into_iter()
                    .filter(|&operand| seen.insert(operand)),
            );
        }
        found
    }

    /// Values that a pass computes and a later one needs again, in order; `passes` lists the
    /// roots of each. Only what every element of `along` has its own of.
    pub fn kept(&self, passes: &[Vec<ExprId>], along: &BTreeSet<VarId>) -> Vec<ExprId> {
        let free = FreeVars::of(&self.body);
        let mut computed: BTreeSet<ExprId> = BTreeSet::new();
        let mut kept: Vec<ExprId> = Vec::new();
        for roots in passes {
            let mut fresh: BTreeSet<ExprId> = BTreeSet::new();
            let mut queue: Vec<(ExprId, bool)> = roots.iter().map(|&root| (root, true)).collect();
            while let Some((id, sure)) = queue.pop() {
                if free.get(id).is_disjoint(along) || fresh.contains(&id) {
                    continue;
                }
                let expr = self.body.expr(id);
                if computed.contains(&id) && !matches!(expr, Expr::IndexValue(_)) {
                    if !kept.contains(&id) {
                        kept.push(id);
                    }
                    continue;
                }
                if sure {
                    fresh.insert(id);
                }
                let sure = sure && !matches!(expr, Expr::Select { .. });
                queue.extend(operands_of(expr).into_iter().map(|operand| (operand, sure)));
            }
            computed.extend(fresh);
        }
        kept.sort_unstable();
        kept
    }
}
