//! Regions as rows: reductions over one range per row, and work on the same elements.
//!
//! Every output element belongs to a *row*; its reductions run over the positions of that
//! row, `0..len`. Outputs hold one element per row or one per position. The plan places the
//! output axes and the reduced variables in this frame, whatever their order in memory was.

use std::collections::BTreeSet;

use super::error::KernelError;
use super::free_vars::FreeVars;
use super::rebuild::{Rebuild, Stage, operands as operands_of};
use super::region_body::{Composed, compose_at, extents};
use super::spec::KernelSpec;
use crate::rewrite::RegionKind;
use crate::tile::index::delinearize;
use crate::tile::{Body, Expr, ExprId, Index, VarId};

/// How a region falls into rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowShape {
    pub n_rows: usize,
    pub len: usize,
    outputs: Vec<OutputAxes>,
}

/// Axes of one output that number its rows, and those along a row.
#[derive(Clone, Debug, PartialEq, Eq)]
struct OutputAxes {
    dims: Vec<usize>,
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
        RegionKind::Pointwise | RegionKind::Row | RegionKind::Reduce | RegionKind::Dot | RegionKind::Other => {}
    }
    let mut shape: Option<RowShape> = None;
    for (number, ty) in spec.output_types().iter().enumerate() {
        let dims = ty.dims();
        let (len, axes) = output_axes(spec, number, &dims)?;
        let n_rows = axes.row.iter().map(|&axis| dims[axis]).product();
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

/// Composes output `number` over one variable per axis, and reads off which axes its
/// reductions depend on.
fn output_axes(spec: &KernelSpec, number: usize, dims: &[usize]) -> Option<(usize, OutputAxes)> {
    let one = KernelSpec {
        kind: spec.kind,
        body: {
            let mut body = spec.body.clone();
            body.outputs = vec![spec.body.outputs[number]];
            body
        },
        options: spec.options,
    };
    let composed = compose_at(&one, dims, |_, vars, dims| {
        vars.iter()
            .zip(dims)
            .map(|(&var, &extent)| if extent == 1 { Index::zero() } else { Index::var(var) })
            .collect()
    })
    .ok()?;
    let (len, depends) = reductions(&composed)?;
    let mut row: Vec<usize> = Vec::new();
    let mut along: Vec<usize> = Vec::new();
    for (axis, var) in composed.vars.iter().enumerate() {
        if depends.contains(var) {
            row.push(axis);
        } else if dims[axis] != 1 {
            along.push(axis);
        }
    }
    // Rows that share their reductions are rows nevertheless.
    while !along.is_empty() && along.iter().map(|&axis| dims[axis]).product::<usize>() > len {
        row.push(along.remove(0));
    }
    row.sort_unstable();
    let covered: usize = along.iter().map(|&axis| dims[axis]).product();
    (along.is_empty() || covered == len).then(|| {
        let axes = OutputAxes {
            dims: dims.to_vec(),
            row,
            along,
        };
        (len, axes)
    })
}

/// Length of the reduced range and the output variables that reductions depend on. `None`
/// without reductions, with ranges of several lengths, with reductions that depend on each
/// other's variables, and with some that only a branch evaluates.
fn reductions(composed: &Composed) -> Option<(usize, BTreeSet<VarId>)> {
    let free = FreeVars::of(&composed.body);
    let outer: BTreeSet<VarId> = composed.vars.iter().copied().collect();
    let mut found: Option<(usize, BTreeSet<VarId>)> = None;
    let mut queue: Vec<(ExprId, bool)> = composed.outputs.iter().map(|&root| (root, false)).collect();
    let mut seen: BTreeSet<(ExprId, bool)> = queue.iter().copied().collect();
    while let Some((id, in_branch)) = queue.pop() {
        let expr = composed.body.expr(id);
        if let Expr::Reduce { vars, .. } = expr {
            if in_branch || !free.get(id).is_subset(&outer) {
                return None;
            }
            let len = vars
                .iter()
                .map(|&var| composed.body.vars.extent(var).as_known())
                .try_fold(1usize, |len, extent| Some(len * usize::try_from(extent?).ok()?))?;
            let (known, depends) = found.get_or_insert_with(|| (len, BTreeSet::new()));
            if *known != len {
                return None;
            }
            depends.extend(free.get(id));
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
    fn coordinates(&self, body: &Body, row: &Index, position: &Index) -> Vec<Index> {
        let mut at = vec![Index::zero(); self.dims.len()];
        for (axes, index) in [(&self.row, row), (&self.along, position)] {
            let dims: Vec<usize> = axes.iter().map(|&axis| self.dims[axis]).collect();
            for (&axis, place) in axes.iter().zip(delinearize(index, &extents(&dims), &body.vars)) {
                at[axis] = place;
            }
        }
        at
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
            queue.extend(operands_of(self.body.expr(id)).into_iter().filter(|&operand| seen.insert(operand)));
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
