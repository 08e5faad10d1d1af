//! Regions around one sum of products, as a matrix product.
//!
//! Whatever the op (a product of matrices, a convolution in any layout), its expression is
//! one reduction of `a * b`. Output axes that only `a` depends on are rows (`m`), those that
//! only `b` depends on columns (`n`), those that both depend on the batch; the reduced
//! variables are one flat `k`. Padding stays what it is in the expression: a selection around
//! a load. Reshapes and transposes after the product are pushed forward, so that an element's
//! place in the output is an index of (batch, m, n). Sums over the same `k` that no column
//! changes are statistics of rows, which some templates take from `a` as they read it; where the kernel
//! before stored them in parts, they are read. A result may be such parts itself: sums over strips of columns.

mod apart;
mod axes;
mod places;
mod strips;
#[cfg(test)]
mod tests;

use self::apart::factors;
use self::axes::classified;
pub use self::places::innermost;
use self::strips::summed_in_strips;
use crate::ir::{DType, Graph, Node};
use crate::kernel::body::free_vars::FreeVars;
use crate::kernel::body::rebuild::operands;
use crate::kernel::gemm::exact::uncast;
use crate::kernel::spec::KernelSpec;
use crate::ops::groups::DEQUANTIZE_GROUPS;
use crate::ops::{self, Lowering, TileKind};
use crate::tile::{Body, Expr, ExprId, Index, VarId};

/// Extents of a product's variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub batch: usize,
    pub m: usize,
    pub n: usize,
    pub k: usize,
}

/// One sum of products with everything around it.
#[derive(Clone, Debug)]
pub struct Contraction {
    pub body: Body,
    pub sizes: Sizes,
    /// Over `BATCH`, `M` and `K`.
    pub a: ExprId,
    /// Over `BATCH`, `N` and `K`.
    pub b: ExprId,
    /// Kind the products are taken in.
    pub product: DType,
    /// Kind of the sum, and which accumulator of the outputs it is: 0 where there is no other.
    pub sum: DType,
    pub sum_slot: u8,
    /// Sums over `k` beside the product.
    pub row_sums: RowSums,
    /// Over `BATCH`, `M`, `N` and the accumulators.
    pub outputs: Vec<ExprId>,
    /// Row-major position in each output, over `BATCH`, `M` and `N`.
    pub places: Vec<Index>,
    /// Which of the region's results the outputs are.
    pub numbers: Vec<usize>,
    /// The other results: one number per row.
    pub row_outputs: Vec<RowOutput>,
    /// And sums of each row over strips of columns.
    pub strips: Option<Strips>,
}

/// Sums over `k`, in `f32`, of functions of the elements of `a`, or in place of those, sums that are read in parts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowSums {
    /// Each function, over the load of one element of `a`.
    pub terms: Vec<ExprId>,
    pub element: Option<ExprId>,
    /// In place of that, where parts of the sums lie.
    pub stored: Option<StoredSums>,
    /// Which accumulators of the outputs are which sums.
    pub slots: Vec<(u8, usize)>,
}

/// Sums of rows of which an input holds parts: `parts` of each row one after the other, and in each of them all sums.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSums {
    pub input: usize,
    pub parts: usize,
    /// Which number of a part each sum is made of.
    pub places: Vec<usize>,
}

/// A result of sums over strips of neighbouring columns, in `f32`: all sums of a strip lie together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strips {
    /// Which of the region's results it is.
    pub number: usize,
    /// What each sum is of, over `M`, `N` and the accumulators.
    pub terms: Vec<ExprId>,
    pub columns: usize,
}

/// A result with one number per row, over `M` and the accumulators of sums beside the product.
#[derive(Clone, Debug)]
pub struct RowOutput {
    /// Which of the region's results it is.
    pub number: usize,
    pub value: ExprId,
    pub place: Index,
}

impl RowSums {
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn len(&self) -> usize {
        self.slots.iter().map(|(_, number)| number + 1).max().unwrap_or(0)
    }
}

pub const BATCH: VarId = VarId(0);
pub const M: VarId = VarId(1);
pub const N: VarId = VarId(2);
pub const K: VarId = VarId(3);

/// Which operand of the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    A,
    B,
}

impl Contraction {
    pub fn operand(&self, side: Side) -> ExprId {
        match side {
            Side::A => self.a,
            Side::B => self.b,
        }
    }

    /// Extent of an operand's own variable, and the variable.
    pub fn rows(&self, side: Side) -> (usize, VarId) {
        match side {
            Side::A => (self.sizes.m, M),
            Side::B => (self.sizes.n, N),
        }
    }

    /// `a` as a load times a number for each `k`, the same for all rows: both of them.
    pub fn scaled_rows(&self) -> Option<(ExprId, ExprId)> {
        let free = FreeVars::of(&self.body);
        let (left, right) = factors(&self.body, self.a)?;
        let is_load = |id: ExprId| matches!(self.body.expr(uncast(&self.body, id)), Expr::Load { .. });
        let is_scale = |id: ExprId| !free.has(id, M) && !free.has(id, BATCH);
        let fits =
            |(rows, scale): &(ExprId, ExprId)| is_load(*rows) && free.has(*rows, M) && is_scale(*scale);
        [(left, right), (right, left)].into_iter().find(fits)
    }

    /// The largest terms of the outputs that only sums beside the product change: they are
    /// computed once for all columns of a row that a thread finishes.
    pub fn row_terms(&self) -> impl Iterator<Item = ExprId> {
        let slots: Vec<u8> = self.row_sums.slots.iter().map(|(slot, _)| *slot).collect();
        let free = FreeVars::of(&self.body);
        // Of every expression: whether it is such a term, or has none but constants below.
        let mut kinds: Vec<(bool, bool)> = Vec::new();
        let mut largest = Vec::new();
        for (id, expr) in self.body.exprs() {
            let below: Vec<ExprId> = operands(expr);
            let are_rows = |own: &[ExprId]| {
                own.iter()
                    .all(|own| kinds[own.0 as usize].0 || kinds[own.0 as usize].1)
            };
            let kind = match expr {
                Expr::Const(_) => (false, true),
                Expr::Acc { slot, .. } => (slots.contains(slot), false),
                Expr::Map { .. } if are_rows(&below) && !free.has(id, N) => {
                    let any = below.iter().any(|own| kinds[own.0 as usize].0);
                    (any, !any)
                }
                _ => (false, false),
            };
            if !kind.0 {
                largest.extend(below.into_iter().filter(|own| kinds[own.0 as usize].0));
            }
            kinds.push(kind);
        }
        largest.sort_unstable();
        largest.dedup();
        largest.into_iter()
    }

    /// Results with one number per row go to `row_outputs`.
    fn set_row_outputs_apart(&mut self, is_per_row: impl Fn(usize) -> bool) {
        let parts = self
            .numbers
            .drain(..)
            .zip(self.outputs.drain(..).zip(self.places.drain(..)));
        let (rows, products): (Vec<_>, Vec<_>) = parts.partition(|(number, _)| is_per_row(*number));
        self.numbers = products.iter().map(|(number, _)| *number).collect();
        (self.outputs, self.places) = products.into_iter().map(|(_, part)| part).unzip();
        let row_output = |(number, (value, place))| RowOutput { number, value, place };
        self.row_outputs = rows.into_iter().map(row_output).collect();
    }

    /// The contraction of `spec`, if it is one without sums of rows.
    pub fn of(spec: &KernelSpec) -> Option<Contraction> {
        Contraction::with_row_sums(spec).filter(|own| own.row_sums.is_empty() && own.strips.is_none())
    }

    /// The contraction of `spec`, if it is one.
    pub fn with_row_sums(spec: &KernelSpec) -> Option<Contraction> {
        let graph = &spec.body;
        let node = anchor(graph)?;
        let axes = classified(graph, node)?;
        let turned = axes.is_row_contiguous(spec, node.results[0])?;
        let axes = if turned { axes.swapped() } else { axes };
        axes.contraction(spec, node.results[0])
    }
}

/// The one main loop of a body of maps, views and reductions.
fn anchor(graph: &Graph) -> Option<&Node> {
    let mut found = None;
    for node in &graph.nodes {
        match ops::lookup(node.op)?.lower {
            Lowering::Map(_) | Lowering::Tile(TileKind::View | TileKind::Reduce, _) => {}
            Lowering::Tile(TileKind::Index, _) if node.op == DEQUANTIZE_GROUPS.name => {}
            Lowering::Tile(TileKind::Index, _) if summed_in_strips(graph, node.results[0]).is_some() => {}
            Lowering::Tile(TileKind::Dot | TileKind::Window, _) => {
                if found.replace(node).is_some() {
                    return None;
                }
            }
            Lowering::Tile(TileKind::Map | TileKind::Index | TileKind::Other, _)
            | Lowering::Loop
            | Lowering::Expand(_)
            | Lowering::Bounded(_)
            | Lowering::Host(_) => return None,
        }
    }
    found
}
