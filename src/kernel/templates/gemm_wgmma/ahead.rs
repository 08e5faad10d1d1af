//! What the epilogue reads before its own round: rows some rounds ahead, columns that shared memory has for all tiles,
//! and weights that registers have from the beginning.

use serde::Serialize;

use super::plan::Plan;
use super::shape::FRAGMENT_COLUMNS;
use crate::kernel::error::KernelError;
use crate::kernel::gemm::epilogue::{Early, Epilogue, Held};
use crate::tile::ExprId;

/// Loads that are done early.
pub struct Ahead {
    rows: Rows,
    /// Loads of columns that shared memory holds, and their arrays.
    columns: Vec<ExprId>,
    arrays: Vec<ColumnContext>,
    /// Loads of columns that a thread holds from the beginning.
    held: Vec<ExprId>,
    slot: &'static str,
    /// Bytes of shared memory, those arrays among them.
    pub smem_bytes: usize,
}

/// Loads of rows.
struct Rows {
    asked: Vec<ExprId>,
    /// Rounds before its own in which a round's are asked for.
    ahead: usize,
    /// Whether the first rounds of the next tile are, too, and whether all of a tile's are, together.
    asks_beyond: bool,
    asks_tiles: bool,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct RowsContext {
    /// Types of what the epilogue reads row by row, and how many rounds of a warp's sums before it does.
    asked: Vec<&'static str>,
    ahead: usize,
    /// Whether the first rounds of the next tile are asked for, too, and whether all of a tile's are, together.
    asks_beyond: bool,
    asks_tiles: bool,
    asking: String,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct ColumnsContext {
    /// What the epilogue reads of every column.
    columns: Vec<ColumnContext>,
    /// Whether all vectors of a thread in a round are of the same columns, and what reads those of `columns` then.
    same_columns: bool,
    column_arrays: String,
    column_vectors: String,
    /// Types of what the epilogue reads of weights column by column, which a thread holds from the beginning, and
    /// the statements that read it.
    held: Vec<&'static str>,
    holding: String,
}

/// An array over all columns in shared memory.
#[derive(Clone, Debug, Default, Serialize)]
struct ColumnContext {
    kind: &'static str,
    value: &'static str,
    /// Whether the pieces of vectors take turns.
    apart: bool,
    /// Elements that a thread copies at a time.
    pack: usize,
    at: usize,
    from: String,
}

impl Rows {
    fn of(plan: &Plan<'_>, epilogue: &Epilogue) -> Rows {
        let shape = plan.shape;
        let loads = epilogue.row_loads(plan.spec);
        let ahead = shape.rounds_ahead(epilogue.asked_bytes(&loads), plan.width);
        let rounds = shape.rounds(plan.width);
        let asks_beyond = ahead > 0 && shape.splits == 1 && rounds.is_multiple_of(ahead);
        Rows {
            asked: if ahead > 0 { loads } else { Vec::new() },
            ahead,
            asks_beyond,
            asks_tiles: asks_beyond && ahead == rounds && shape.is_direct(),
        }
    }
}

impl Ahead {
    pub fn of(plan: &Plan<'_>, epilogue: &Epilogue) -> Ahead {
        // Reading all columns before the first tile pays where several follow.
        let mut columns = if plan.shape.splits == 1 && plan.n_tiles > plan.n_slots() {
            epilogue.column_loads(plan.spec)
        } else {
            Vec::new()
        };
        let (arrays, smem_bytes) = arrays(plan, epilogue, &columns);
        columns.truncate(arrays.len());
        Ahead {
            rows: Rows::of(plan, epilogue),
            columns,
            arrays,
            held: held_columns(plan, epilogue),
            slot: match (plan.shape.clustered, plan.shape.narrow) {
                (true, _) => "",
                (_, true) => "[eight]",
                _ => "[round % kAcross]",
            },
            smem_bytes,
        }
    }

    /// Whether shared memory has columns, which all threads read at first.
    pub fn has_columns(&self) -> bool {
        !self.columns.is_empty()
    }

    pub fn early(&self) -> Early<'_> {
        Early {
            asked: &self.rows.asked,
            columns: &self.columns,
            held: Held {
                loads: &self.held,
                slot: self.slot,
            },
        }
    }

    pub fn rows(&self, plan: &Plan<'_>, epilogue: &Epilogue) -> Result<RowsContext, KernelError> {
        let Rows {
            asked,
            ahead,
            asks_beyond,
            asks_tiles,
        } = &self.rows;
        let name = if *asks_tiles { "coming" } else { "asked" };
        Ok(RowsContext {
            asked: epilogue.asked_types(asked),
            ahead: *ahead,
            asks_beyond: *asks_beyond,
            asks_tiles: *asks_tiles,
            asking: epilogue.asking(plan.spec, asked, name, 3)?,
        })
    }

    pub fn columns(&self, plan: &Plan<'_>, epilogue: &Epilogue) -> Result<ColumnsContext, KernelError> {
        Ok(ColumnsContext {
            columns: self.arrays.clone(),
            same_columns: plan.shape.has_same_columns(plan.width),
            column_arrays: epilogue.column_arrays(&self.columns, 2),
            column_vectors: epilogue.column_vectors(
                &self.columns,
                plan.shape.is_direct(),
                4 + 2 * usize::from(plan.shape.narrow),
            ),
            held: epilogue.asked_types(&self.held),
            holding: epilogue.holding(plan.spec, self.early().held, 2)?,
        })
    }
}

/// Loads of columns that a thread holds from the beginning: those of its one tile, where registers are left for them
/// beside the sums and what is asked for ahead.
fn held_columns(plan: &Plan<'_>, epilogue: &Epilogue) -> Vec<ExprId> {
    let (shape, width) = (plan.shape, plan.width);
    let loads = epilogue.weight_columns(plan.spec);
    let vectors = match (shape.clustered, shape.narrow) {
        (true, _) => 1,
        (_, true) => shape.n / FRAGMENT_COLUMNS,
        _ => shape.n / shape.columns(width),
    };
    let bytes = epilogue.asked_bytes(&loads) * vectors;
    let has_one_tile = plan.n_tiles * shape.splits <= plan.n_slots();
    let may_hold = has_one_tile && shape.turns == 1 && shape.has_same_columns(width);
    if may_hold && shape.holds(bytes) {
        loads
    } else {
        Vec::new()
    }
}

/// Arrays of the columns that `loads` read, as many as fit behind everything else, and the bytes of it all.
fn arrays(plan: &Plan<'_>, epilogue: &Epilogue, loads: &[ExprId]) -> (Vec<ColumnContext>, usize) {
    let is_direct = plan.shape.is_direct();
    let mut end = plan.problem.smem_bytes(plan.shape);
    let mut found = Vec::new();
    for &load in loads {
        let (value, from) = epilogue.source(plan.spec, load);
        let at = end.next_multiple_of(16);
        // Of four vectors, the last ones may be missing.
        let n = plan.problem.contraction.sizes.n.next_multiple_of(4 * plan.width);
        // Lanes that read those of their own sums would each convert them anew.
        let computed = (is_direct || plan.shape.narrow).then(|| epilogue.held(load, true));
        let stored = (!is_direct).then(|| epilogue.held(load, false));
        let fitting = [computed, stored]
            .into_iter()
            .flatten()
            .find(|&(_, size)| plan.shape.fits(at + n * size, plan.device));
        let Some((kind, size)) = fitting else {
            break;
        };
        let bytes = at + n * size;
        found.push(ColumnContext {
            kind,
            value,
            apart: is_direct && epilogue.is_apart(load),
            pack: plan.width.min(16 / size),
            at,
            from,
        });
        end = bytes;
    }
    (found, end)
}
