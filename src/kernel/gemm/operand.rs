//! How the matrix kernels read their operands, a vector of neighbours at a time.
//!
//! An operand of a [`Contraction`] is an expression at (batch, row, k). A [`Fetch`] is that
//! expression with one of row and k cut into vectors, and zero outside of the matrix: the
//! tests for tails come out of index arithmetic and are absent where tiles cover exactly.

use std::collections::BTreeMap;

use crate::ir::DType;
use crate::kernel::body::free_vars::FreeVars;
use crate::kernel::body::rebuild::{Rebuild, operands as operands_of};
use crate::kernel::body::region::lane_index;
use crate::kernel::error::KernelError;
use crate::kernel::gemm::contraction::{BATCH, Contraction, K, Side, innermost};
use crate::kernel::gemm::exact::is_exact;
use crate::kernel::print::expr::{Operand, Printer};
use crate::kernel::print::types::storage_type;
use crate::kernel::print::vector::{Lane, is_aligned, without};
use crate::tile::{Body, Cond, Expr, ExprId, Extent, Index, VarId};

/// Along which axis of an operand neighbours are read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Along {
    K,
    Row,
}

/// The way an operand is cut into vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub side: Side,
    pub along: Along,
    pub width: usize,
}

/// An operand in vectors: an expression over a batch, a row, a `k` and a lane, the cut one of
/// row and `k` counted in vectors.
#[derive(Clone, Debug)]
pub struct Fetch {
    pub body: Body,
    pub cut: Cut,
    pub(super) root: ExprId,
    batch: VarId,
    row: VarId,
    k: VarId,
    pub(super) lane: Lane,
}

/// A vector that is neighbours in memory, or zero.
#[derive(Clone, Debug)]
pub struct Plain {
    pub input: u32,
    /// Position of the first element.
    pub position: Index,
    pub(super) conds: Vec<Cond>,
}

impl Fetch {
    /// `rows` and `depth` are the extents that tiles cover, multiples of the vector's width.
    pub fn new(contraction: &Contraction, cut: Cut, rows: usize, depth: usize) -> Fetch {
        let mut from = contraction.body.clone();
        let (n_rows, row_var) = contraction.rows(cut.side);
        let operand = contraction.operand(cut.side);
        let zero = from.constant(from.dtype(operand), 0.0);
        let inside = |var: VarId, extent: usize| Cond {
            index: Index::var(var),
            extent: Extent::from(extent),
        };
        // Added as it is: `select` would know that the variables are inside.
        let guarded = from.add(Expr::Select {
            conds: vec![inside(row_var, n_rows), inside(K, contraction.sizes.k)],
            then: operand,
            otherwise: zero,
        });
        let units = |along: Along, extent: usize| {
            if cut.along == along {
                extent / cut.width
            } else {
                extent
            }
        };
        let mut into = Body::new();
        let batch = into.vars.fresh(from.vars.extent(BATCH).clone());
        let row = into.vars.fresh(Extent::from(units(Along::Row, rows)));
        let k = into.vars.fresh(Extent::from(units(Along::K, depth)));
        let lane = into.vars.fresh(Extent::from(cut.width));
        let cut_index = |along: Along, var: VarId| {
            if cut.along == along {
                Index::var(var)
                    .times(&Extent::from(cut.width))
                    .plus(&lane_index(lane, cut.width))
            } else {
                Index::var(var)
            }
        };
        let vars = BTreeMap::from([
            (BATCH, Index::var(batch)),
            (row_var, cut_index(Along::Row, row)),
            (K, cut_index(Along::K, k)),
        ]);
        let mut rebuild = Rebuild::new(&from, into, vars);
        rebuild.lane = (cut.width > 1).then_some(lane);
        let root = rebuild.expr(guarded);
        Fetch {
            body: rebuild.into,
            cut,
            root,
            batch,
            row,
            k,
            lane: Lane {
                var: lane,
                width: cut.width,
            },
        }
    }

    /// Loads of the expression.
    fn loads(&self) -> Vec<(u32, &[Index])> {
        let mut found = Vec::new();
        let mut open = vec![self.root];
        let mut seen = vec![false; self.body.exprs().count()];
        while let Some(id) = open.pop() {
            if std::mem::replace(&mut seen[id.0 as usize], true) {
                continue;
            }
            let expr = self.body.expr(id);
            if let Expr::Load { input, index, .. } = expr {
                found.push((*input, index.as_slice()));
            }
            open.extend(operands_of(expr));
        }
        found
    }

    /// Whether every load is one wide access, or the same for all lanes.
    fn is_wide(&self, inputs: &[Operand]) -> bool {
        let printer = Printer::new(&self.body, inputs);
        self.loads().into_iter().all(|(input, index)| {
            let position = printer.position(input, index);
            match position.stride_of(self.lane.var).and_then(|step| step.as_known()) {
                Some(0) => true,
                Some(1) => is_aligned(&position, self.lane),
                _ => false,
            }
        })
    }

    /// The vector as neighbours of kind `element` in memory, where it is nothing else.
    pub fn plain(&self, inputs: &[Operand], element: DType) -> Option<Plain> {
        let (id, conds) = self.under_conditions(is_exact)?;
        let Expr::Load { input, index, dtype } = self.body.expr(id) else {
            return None;
        };
        let printer = Printer::new(&self.body, inputs);
        let position = printer.position(*input, index);
        let contiguous =
            position.stride_of(self.lane.var) == Some(Extent::known(1)) && is_aligned(&position, self.lane);
        (*dtype == element && contiguous).then(|| Plain {
            input: *input,
            position: without(&position, self.lane.var),
            conds,
        })
    }

    /// What the vector is under casts that `is_free` lets pass, by the kinds from and to, and where it is not
    /// zero; `None` where lanes differ in that.
    pub(super) fn under_conditions(
        &self,
        is_free: impl Fn(DType, DType) -> bool,
    ) -> Option<(ExprId, Vec<Cond>)> {
        let mut conds = Vec::new();
        let mut id = self.root;
        loop {
            match self.body.expr(id) {
                Expr::Select {
                    conds: own,
                    then,
                    otherwise,
                } if is_zero(&self.body, *otherwise) => {
                    if own.iter().any(|cond| self.differs_between_lanes(cond)) {
                        return None;
                    }
                    conds.extend(own.iter().cloned());
                    id = *then;
                }
                Expr::Map { op: "cast", args, .. }
                    if is_free(self.body.dtype(args[0]), self.body.dtype(id)) =>
                {
                    id = args[0];
                }
                _ => return Some((id, conds)),
            }
        }
    }

    fn differs_between_lanes(&self, cond: &Cond) -> bool {
        FreeVars::of(&self.body)
            .of_index(&cond.index)
            .contains(&self.lane.var)
    }

    pub(super) fn printer<'a>(&'a self, inputs: &'a [Operand], depth: usize) -> Printer<'a> {
        let mut printer = Printer::new(&self.body, inputs);
        printer.set_depth(depth);
        for (var, name) in [(self.batch, "batch"), (self.row, "row"), (self.k, "k")] {
            printer.bind(var, name);
        }
        printer
    }

    /// Statements that put the values at `batch`, `row` and `k` into the array `target`, as
    /// elements of `stored` where it is given.
    ///
    /// # Errors
    /// If an op's text could not be filled in.
    pub fn values(
        &self,
        inputs: &[Operand],
        depth: usize,
        target: &str,
        stored: Option<DType>,
    ) -> Result<String, KernelError> {
        let mut printer = self.printer(inputs, depth);
        let put = |value: &str| match stored {
            Some(dtype) => format!("rt_put<{}>({value})", storage_type(dtype)),
            None => value.to_owned(),
        };
        if self.cut.width == 1 {
            let value = printer.value(self.root);
            printer.line(&format!("{target}[0] = {};", put(&value)));
            return printer.finish();
        }
        let shared = printer.shared_work(self.lane, &[self.root]);
        printer.line("#pragma unroll");
        let counter = printer.fresh("lane");
        printer.bind(self.lane.var, &counter);
        printer.open(&format!(
            "for (int {counter} = 0; {counter} < {}; ++{counter}) {{",
            self.cut.width
        ));
        for (load, array) in shared {
            printer.preset(load, &format!("{array}[{counter}]"));
        }
        let value = printer.value(self.root);
        printer.line(&format!("{target}[{counter}] = {};", put(&value)));
        printer.close();
        printer.finish()
    }

    /// Statements that declare `valid` and the pointer `from` for `plain`.
    ///
    /// # Errors
    /// If an op's text could not be filled in.
    pub fn address(&self, plain: &Plain, inputs: &[Operand], depth: usize) -> Result<String, KernelError> {
        let mut printer = self.printer(inputs, depth);
        let operand = &inputs[plain.input as usize];
        let test = printer.conditions(&plain.conds);
        printer.line(&format!("const bool valid = {test};"));
        let position = printer.index(&plain.position);
        let ty = storage_type(operand.dtype);
        printer.line(&format!(
            "const {ty}* const from = {} + (valid ? {position} : 0);",
            operand.name
        ));
        printer.finish()
    }
}

pub(super) fn is_zero(body: &Body, id: ExprId) -> bool {
    matches!(body.expr(id), Expr::Const(scalar) if scalar.as_f64() == 0.0)
}

/// The kind that an operand has in memory, where it is computed from it without rounding.
pub fn memory_kind(contraction: &Contraction, side: Side) -> DType {
    let body = &contraction.body;
    let mut id = contraction.operand(side);
    loop {
        match body.expr(id) {
            Expr::Select { then, otherwise, .. } if is_zero(body, *otherwise) => id = *then,
            Expr::Map { op: "cast", args, .. } if is_exact(body.dtype(args[0]), body.dtype(id)) => {
                id = args[0];
            }
            _ => return body.dtype(id),
        }
    }
}

/// The one load that an operand is, of elements of kind `element`.
pub fn load_of(contraction: &Contraction, side: Side, element: DType) -> Option<(u32, &[Index])> {
    let body = &contraction.body;
    let mut id = contraction.operand(side);
    loop {
        match body.expr(id) {
            Expr::Map { op: "cast", args, .. } if is_exact(body.dtype(args[0]), body.dtype(id)) => {
                id = args[0];
            }
            Expr::Load { input, index, dtype } if *dtype == element => return Some((*input, index)),
            _ => return None,
        }
    }
}

/// Extents that every tile shape divides.
pub(super) fn covered(contraction: &Contraction, side: Side) -> (usize, usize) {
    let (rows, _) = contraction.rows(side);
    (
        rows.next_multiple_of(256).max(256),
        contraction.sizes.k.next_multiple_of(64).max(64),
    )
}

/// The widest cut of at most `widest` elements whose loads are all wide; otherwise `narrow`
/// elements along the axis that is innermost in memory.
pub fn best_cut(
    contraction: &Contraction,
    side: Side,
    inputs: &[Operand],
    (widest, narrow): (usize, usize),
) -> Cut {
    let (rows, depth) = covered(contraction, side);
    let mut width = widest;
    while width > 1 {
        for along in [Along::K, Along::Row] {
            let cut = Cut { side, along, width };
            let fetch = Fetch::new(contraction, cut, rows, depth);
            if fetch.is_wide(inputs) && fetch.plain(inputs, memory_kind(contraction, side)).is_some() {
                return cut;
            }
        }
        width = if width / 2 < narrow { 1 } else { width / 2 };
    }
    Cut {
        side,
        along: innermost_axis(contraction, side, inputs),
        width: narrow,
    }
}

/// The axis along which an operand's first load is innermost in memory.
fn innermost_axis(contraction: &Contraction, side: Side, inputs: &[Operand]) -> Along {
    let (_, row) = contraction.rows(side);
    let printer = Printer::new(&contraction.body, inputs);
    let mut open = vec![contraction.operand(side)];
    while let Some(id) = open.pop() {
        let expr = contraction.body.expr(id);
        if let Expr::Load { input, index, .. } = expr {
            let vars = innermost(&printer.position(*input, index)).unwrap_or_default();
            let along_row = vars.contains(&row) && !vars.contains(&K);
            return if along_row { Along::Row } else { Along::K };
        }
        open.extend(operands_of(expr));
    }
    Along::K
}

/// Whether the cut is one access of neighbours in memory of kind `element`.
pub fn is_plain(contraction: &Contraction, cut: Cut, inputs: &[Operand], element: DType) -> bool {
    let (rows, depth) = covered(contraction, cut.side);
    Fetch::new(contraction, cut, rows, depth)
        .plain(inputs, element)
        .is_some()
}

/// Whether the cut is read in wide accesses, whatever is computed from them.
pub fn is_wide(contraction: &Contraction, cut: Cut, inputs: &[Operand]) -> bool {
    let (rows, depth) = covered(contraction, cut.side);
    Fetch::new(contraction, cut, rows, depth).is_wide(inputs)
}
