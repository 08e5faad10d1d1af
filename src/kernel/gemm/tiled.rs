//! Operands of a product that the copy engine reads: plain tensors with one stride for each of
//! batch, rows and `k`.

use crate::ir::tiled_view::TILE_ROW_BYTES;
use crate::ir::{DType, TiledView};
use crate::kernel::gemm::contraction::{BATCH, Contraction, K, Side};
use crate::kernel::gemm::operand::{Along, load_of};
use crate::kernel::print::expr::{Operand, Printer};
use crate::tile::{Atom, Index, VarId};

/// Bytes that the strides of tiled operands are multiples of.
const STRIDE_BYTES: usize = 16;

/// Lanes that have the sums of a row.
const LANES_OF_A_ROW: usize = 4;

/// An operand in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiled {
    /// Number of the region's input.
    pub input: usize,
    /// The axis whose elements are neighbours.
    pub along: Along,
    /// Whether each batch has its own matrix.
    pub is_batched: bool,
    element_bytes: usize,
    rows: usize,
    depth: usize,
    batches: usize,
    /// In bytes: of the axis that is not innermost, and of the batch.
    pitch: usize,
    batch_pitch: usize,
}

impl Tiled {
    /// The operand on `side`, where copies can read it as elements of kind `element`.
    pub fn of(contraction: &Contraction, side: Side, inputs: &[Operand], element: DType) -> Option<Tiled> {
        let (input, index) = load_of(contraction, side, element)?;
        let position = Printer::new(&contraction.body, inputs).position(input, index);
        let is_linear = position
            .terms
            .iter()
            .all(|(atom, _)| matches!(atom, Atom::Var(_)));
        if !is_linear || position.constant != 0 {
            return None;
        }
        let (rows, row_var) = contraction.rows(side);
        let sizes = contraction.sizes;
        let strides = [row_var, K, BATCH].map(|var| stride(&position, var));
        let [row_step, k_step, batch_step] = strides;
        let (row_step, k_step, batch_step) = (row_step?, k_step?, batch_step?);
        // An axis of one element has no stride of its own.
        let (along, outer_step, n_outer) = match (row_step, k_step) {
            (_, 1) if row_step > 1 || rows == 1 => (Along::K, row_step, rows),
            (1, _) if k_step > 1 || sizes.k == 1 => (Along::Row, k_step, sizes.k),
            _ => return None,
        };
        let element_bytes = element.size_bytes();
        let is_batched = batch_step > 0;
        let bytes = |step: usize, extent: usize| match (step, extent) {
            (0, 0 | 1) => Some(STRIDE_BYTES),
            (0, _) => None,
            (step, _) => Some(step * element_bytes).filter(|bytes| bytes.is_multiple_of(STRIDE_BYTES)),
        };
        let batches = if is_batched { sizes.batch } else { 1 };
        Some(Tiled {
            input: input as usize,
            along,
            is_batched,
            element_bytes,
            rows,
            depth: sizes.k,
            batches,
            pitch: bytes(outer_step, n_outer)?,
            batch_pitch: bytes(batch_step, batches)?,
        })
    }

    /// The operand's tensor map for tiles of `rows`, 128 bytes deep.
    pub fn view(&self, rows: usize) -> TiledView {
        let across = TILE_ROW_BYTES / self.element_bytes;
        let (dims, tile) = match self.along {
            Along::K => ([self.depth, self.rows], [across, rows]),
            Along::Row => ([self.rows, self.depth], [across, across]),
        };
        TiledView {
            element_bytes: self.element_bytes,
            dims: vec![dims[0], dims[1], self.batches],
            strides: vec![self.pitch, self.batch_pitch],
            tile: vec![tile[0], tile[1], 1],
            pixels: None,
        }
    }

    /// The operand's tensor map for tiles of four vectors of `width` columns in the order of [`columns_view`], where
    /// it has whole vectors that lie along `k`.
    pub fn columns(&self, width: usize) -> Option<TiledView> {
        let across = TILE_ROW_BYTES / self.element_bytes;
        let depth = (self.depth, self.element_bytes, across);
        let is_whole = self.along == Along::K && self.rows.is_multiple_of(width);
        is_whole.then(|| {
            columns_view(
                depth,
                (self.rows, self.pitch),
                width,
                (self.batches, self.batch_pitch),
            )
        })
    }
}

/// Columns in an order in which the sums that instructions give to one lane are those of neighbours: lane `q` of four
/// has the sums of elements `8 * j + 2 * q` and the next one. Of four vectors of `width` columns, element
/// `8 * j + 2 * q + e` is number `2 * j + e` of vector `q`. `depth` are elements along `k`, their bytes, and those
/// of a tile; the others are extents and strides in bytes.
pub fn columns_view(
    (depth, element_bytes, across): (usize, usize, usize),
    (columns, pitch): (usize, usize),
    width: usize,
    (others, other_pitch): (usize, usize),
) -> TiledView {
    TiledView {
        element_bytes,
        dims: vec![depth, 2, columns / width, width / 2, others],
        strides: vec![pitch, width * pitch, 2 * pitch, other_pitch],
        tile: vec![across, 2, LANES_OF_A_ROW, width / 2, 1],
        pixels: None,
    }
}

fn stride(position: &Index, var: VarId) -> Option<usize> {
    usize::try_from(position.stride_of(var)?.as_known()?).ok()
}
