//! How the operands get to shared memory.

use serde::Serialize;

use super::shape::{DEPTH_BYTES, Shape};
use crate::ir::tiled_view::TILE_ROW_BYTES;
use crate::ir::{DType, TiledView};
use crate::kernel::body::region::operands;
use crate::kernel::gemm::contraction::{Contraction, Side, Sizes};
use crate::kernel::gemm::images::Images;
use crate::kernel::gemm::operand::Along;
use crate::kernel::gemm::parts::Blocking;
use crate::kernel::gemm::tiled::Tiled;
use crate::kernel::spec::KernelSpec;

/// How the operands are read.
pub enum Reading {
    /// Each as a matrix, or one per batch.
    Plain([Tiled; 2]),
    /// As images and filters.
    Images(Images),
}

impl Reading {
    pub fn of(spec: &KernelSpec, contraction: &Contraction, element: DType) -> Option<Reading> {
        let inputs = operands(spec);
        let tiled = |side| Tiled::of(contraction, side, &inputs, element);
        match (tiled(Side::A), tiled(Side::B)) {
            (Some(a), Some(b)) => Some(Reading::Plain([a, b])),
            _ => Images::of(spec, contraction, element).map(Reading::Images),
        }
    }

    /// Whether a tile of the first operand has one row of it in each of its own.
    pub fn has_rows_along_k(&self) -> bool {
        match self {
            Reading::Plain([a, _]) => a.along == Along::K,
            Reading::Images(_) => false,
        }
    }

    /// Whether neighbours of both operands lie along `k`.
    pub fn lies_along_k(&self) -> bool {
        match self {
            Reading::Plain(sides) => sides.iter().all(|side| side.along == Along::K),
            Reading::Images(_) => true,
        }
    }

    /// Tiles along `k`.
    pub fn steps(&self, blocking: Blocking, sizes: Sizes) -> usize {
        match self {
            Reading::Plain(_) => blocking.tiles(sizes).2,
            Reading::Images(images) => images.n_taps() * images.chunks(),
        }
    }

    /// Instructions along `k` of a step: of one that is alone along its channels, or along `k`, none is for
    /// the zeros behind them.
    pub fn instructions(&self, element: DType, sizes: Sizes) -> usize {
        let depth = match self {
            Reading::Plain(_) => sizes.k,
            Reading::Images(images) => images.channels,
        };
        let bytes = depth.min(Shape::k(element)) * element.size_bytes();
        bytes.div_ceil(DEPTH_BYTES)
    }

    /// Input number and tensor map of both operands, for vectors of `width` results.
    ///
    /// # Panics
    /// If `shape` has columns copied in the order of sums, and they have none.
    pub fn views(&self, shape: Shape, width: usize) -> [(usize, TiledView); 2] {
        let columns = || {
            self.columns(width)
                .expect("such shapes are for whole vectors of columns")
        };
        let is_direct = shape.is_direct();
        match self {
            Reading::Plain([a, b]) => {
                let b_view = if is_direct { columns() } else { b.view(shape.n) };
                [(a.input, a.view(shape.m)), (b.input, b_view)]
            }
            Reading::Images(images) => {
                let filters = if is_direct {
                    columns()
                } else {
                    images.filters(shape.n)
                };
                [(images.image, images.pixels(shape.m)), (images.filter, filters)]
            }
        }
    }

    /// The second operand's tensor map that has vectors of `width` columns copied in the order of sums.
    pub fn columns(&self, width: usize) -> Option<TiledView> {
        match self {
            Reading::Plain([_, b]) => b.columns(width),
            Reading::Images(images) => images.columns(width),
        }
    }

    pub fn operands(&self, element: DType) -> Vec<OperandContext> {
        let [a, b] = match self {
            Reading::Plain(sides) => sides.map(|side| (side.along, side.is_batched)),
            Reading::Images(_) => [(Along::K, false); 2],
        };
        vec![
            operand_context(Side::A, a, element),
            operand_context(Side::B, b, element),
        ]
    }

    pub fn conv(&self) -> Option<ConvContext> {
        let Reading::Images(images) = self else {
            return None;
        };
        let [x, y] = images.axes;
        Some(ConvContext {
            chunks: images.chunks(),
            taps_x: x.kernel,
            out_x: x.output,
            out_y: y.output,
            stride_x: x.stride,
            stride_y: y.stride,
            pad_x: x.pad,
            pad_y: y.pad,
            dilation_x: x.dilation,
            dilation_y: y.dilation,
        })
    }
}

/// One side of the product.
#[derive(Clone, Debug, Default, Serialize)]
pub struct OperandContext {
    name: &'static str,
    /// `M` or `N`, and the same as a member of the tile's place.
    rows: &'static str,
    axis: &'static str,
    along_k: bool,
    /// `place.batch`, or `0` where all batches read the same.
    batch: &'static str,
    /// 1 where rows in shared memory hold one k each.
    across: usize,
    /// Bytes between tiles of 128 bytes of rows; of no meaning along k.
    block_bytes: usize,
    /// Bytes from one instruction's part of a tile to the next one's.
    step_bytes: usize,
}

/// Along x and along y, which are those of the images.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ConvContext {
    /// Tiles along the channels of one tap.
    chunks: usize,
    taps_x: usize,
    out_x: usize,
    out_y: usize,
    stride_x: usize,
    stride_y: usize,
    pad_x: i64,
    pad_y: i64,
    dilation_x: usize,
    dilation_y: usize,
}

fn operand_context(side: Side, (along, is_batched): (Along, bool), element: DType) -> OperandContext {
    let (name, rows, axis) = match side {
        Side::A => ("a", "M", "m"),
        Side::B => ("b", "N", "n"),
    };
    let depth = DEPTH_BYTES / element.size_bytes();
    let (across, block_bytes, step_bytes) = match along {
        Along::K => (0, 16, DEPTH_BYTES),
        Along::Row => (1, Shape::k(element) * TILE_ROW_BYTES, depth * TILE_ROW_BYTES),
    };
    OperandContext {
        name,
        rows,
        axis,
        along_k: along == Along::K,
        batch: if is_batched { "place.batch" } else { "0" },
        across,
        block_bytes,
        step_bytes,
    }
}
