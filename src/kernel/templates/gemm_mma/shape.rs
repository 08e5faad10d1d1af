//! Tiles, what of them a warp owns, and what they need.

use super::TEMPLATE;
use super::cuts::{CHUNK_BYTES, Cuts, Mode, has_async_copy};
use crate::ir::DType;
use crate::kernel::error::KernelError;
use crate::kernel::gemm::parts::Blocking;
use crate::kernel::gemm::row_sums;
use crate::kernel::source::{Arch, Variant};
use crate::kernel::templates::{half_smem_bytes, knob};

/// A tile, the part of it that a warp owns, and how many are in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub m: usize,
    pub n: usize,
    /// In bytes, so that it is the same for all kinds.
    pub k_bytes: usize,
    pub warp_m: usize,
    pub warp_n: usize,
    pub stages: usize,
}

const fn shape(m: usize, n: usize, k_bytes: usize, warp: (usize, usize), stages: usize) -> Shape {
    Shape {
        m,
        n,
        k_bytes,
        warp_m: warp.0,
        warp_n: warp.1,
        stages,
    }
}

/// Large tiles reuse most, small ones fill the device, flat ones waste least where one side
/// has few rows.
pub const SHAPES: &[Shape] = &[
    shape(256, 128, 64, (64, 64), 3),
    shape(128, 256, 64, (64, 64), 3),
    shape(128, 128, 64, (64, 32), 4),
    shape(128, 128, 128, (64, 32), 3),
    shape(128, 128, 64, (64, 64), 4),
    shape(128, 64, 64, (64, 32), 4),
    shape(64, 128, 64, (32, 64), 4),
    shape(128, 64, 128, (32, 32), 3),
    shape(64, 128, 128, (32, 32), 3),
    shape(64, 64, 64, (32, 32), 4),
    shape(64, 64, 128, (32, 32), 4),
    shape(128, 32, 128, (32, 32), 4),
    shape(32, 128, 128, (32, 32), 4),
    shape(64, 32, 128, (32, 16), 4),
    shape(32, 64, 128, (16, 32), 4),
    shape(32, 32, 128, (16, 16), 5),
    shape(16, 128, 128, (16, 32), 4),
    shape(128, 16, 128, (32, 16), 4),
    shape(16, 64, 128, (16, 16), 5),
    shape(64, 16, 128, (16, 16), 5),
];

impl Shape {
    pub fn threads(self) -> usize {
        (self.m / self.warp_m) * (self.n / self.warp_n) * 32
    }

    /// Depth in elements.
    pub fn k(self, element: DType) -> usize {
        self.k_bytes / element.size_bytes()
    }

    /// Without asynchronous copies, more than two stages only cost memory.
    pub fn on(self, arch: Arch) -> Shape {
        let stages = if has_async_copy(arch) { self.stages } else { 2 };
        Shape { stages, ..self }
    }

    /// With all steps of a block in flight, as far as half of an SM's shared memory goes, or no more stages than it
    /// needs for that. What is not copied asynchronously is one step ahead, whatever the number of stages.
    pub fn deepened(self, steps: usize, cuts: &Cuts, arch: Arch) -> Shape {
        const LEAST: usize = 2;
        let is_copied = cuts.sides.iter().all(|(_, mode)| *mode == Mode::Async);
        if !is_copied {
            return self;
        }
        let room = half_smem_bytes(arch).saturating_sub(self.extra_bytes(cuts));
        let fitting = room / ((self.m + self.n) * self.k_bytes);
        Shape {
            stages: self.stages.max(fitting).min((steps + 1).max(LEAST)),
            ..self
        }
    }

    /// Operand tiles in flight; the sums of 16 rows per warp take their place afterwards.
    pub fn tiles_bytes(self) -> usize {
        let operands = self.stages * (self.m + self.n) * self.k_bytes;
        let slabs = self.threads() / 32 * 16 * (self.warp_n + 8) * 4;
        operands.max(slabs)
    }

    /// Vectors of results that a thread finishes of 16 rows.
    pub fn items(self, cuts: &Cuts) -> usize {
        (16 * self.warp_n / cuts.width).div_ceil(32)
    }

    /// Registers of what a thread asks for of 16 rows.
    pub fn asked_registers(self, cuts: &Cuts) -> usize {
        (cuts.row_bytes * self.items(cuts)).div_ceil(4)
    }

    /// Rows of a tile that eight threads share, and sums and registers of a thread that has `limit` of those.
    pub fn room_for_parts(self, limit: usize) -> (usize, usize, usize) {
        let rows = (self.m * 8).div_ceil(self.threads());
        (rows, self.warp_m * self.warp_n / 32, limit)
    }

    /// Whether what only one row reads is asked for 16 rows ahead, and whether the first of it before the
    /// products, beside whose sums there must be room. What adds up the sums of `splits` blocks leaves none.
    pub fn asks(self, cuts: &Cuts, splits: usize, limit: usize) -> (bool, bool) {
        const MOST_REGISTERS: usize = 32;
        let own = self.asked_registers(cuts);
        let asks = own > 0 && 2 * own <= MOST_REGISTERS && splits == 1;
        (asks, asks && self.registers(cuts) + own <= limit)
    }

    /// Registers of a thread beside what it asks for, estimated.
    pub fn registers(self, cuts: &Cuts) -> usize {
        const OTHERS: usize = 56;
        let sums = self.warp_m * self.warp_n / 32;
        let fragments = self.warp_m / 4 + self.warp_n / 4;
        let staged: usize = (cuts.sides.iter().zip([self.m, self.n]))
            .filter(|((_, mode), _)| *mode != Mode::Async)
            .map(|(_, rows)| (rows * self.k_bytes / CHUNK_BYTES).div_ceil(self.threads()) * 4)
            .sum();
        sums + fragments + staged + OTHERS
    }

    /// Bytes behind the tiles: sums of rows, then what columns are scaled by.
    fn extra_bytes(self, cuts: &Cuts) -> usize {
        let sums = row_sums::bytes(&cuts.contraction, self.m);
        match cuts.scale {
            None => sums,
            Some(_) => sums + self.covered_depth(cuts) * cuts.element.size_bytes(),
        }
    }

    pub fn smem_bytes(self, cuts: &Cuts) -> usize {
        self.tiles_bytes() + self.extra_bytes(cuts)
    }

    /// `k` up to the end of the last tile.
    pub fn covered_depth(self, cuts: &Cuts) -> usize {
        let k = self.k(cuts.element);
        cuts.contraction.sizes.k.next_multiple_of(k)
    }

    pub fn blocking(self, element: DType, splits: usize) -> Blocking {
        Blocking {
            m: self.m,
            n: self.n,
            k: self.k(element),
            splits,
        }
    }

    pub fn of(variant: &Variant, element: DType) -> Result<(Shape, usize), KernelError> {
        let knob = |name| knob(&TEMPLATE, variant, name);
        let k_bytes = knob("tile_k")? * element.size_bytes();
        let warp = (knob("warp_m")?, knob("warp_n")?);
        let shape = shape(knob("tile_m")?, knob("tile_n")?, k_bytes, warp, knob("stages")?);
        Ok((shape, knob("splits")?))
    }
}
