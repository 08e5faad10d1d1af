//! Tiles, who computes them, and what they need.

use super::TEMPLATE;
use crate::ir::DType;
use crate::ir::tiled_view::TILE_ROW_BYTES;
use crate::kernel::device::Device;
use crate::kernel::error::KernelError;
use crate::kernel::gemm::contraction::Sizes;
use crate::kernel::gemm::parts::{Blocking, register_limit};
use crate::kernel::source::{Arch, Launch, Variant};
use crate::kernel::templates::knob;

/// A tile, and who computes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub m: usize,
    pub n: usize,
    /// Groups of warps that multiply a tile, each its own rows.
    pub consumers: usize,
    /// Tiles that a block has in hand: while the groups of one finish it, those of the next one multiply.
    pub turns: usize,
    pub stages: usize,
    /// Rows and columns of a warp's sums that are in shared memory at a time; no columns where copies bring columns in
    /// an order in which a thread has the sums of neighbours, see `columns_view`.
    pub slab_rows: usize,
    pub slab: usize,
    /// Whether what passes through shared memory are results of 16 bits, instead of sums.
    pub narrow: bool,
    /// Blocks per SM.
    pub resident: usize,
    /// Blocks per tile.
    pub splits: usize,
    /// Whether they are a cluster, and read each other's sums out of shared memory.
    pub clustered: bool,
}

const fn shape(
    m: usize,
    n: usize,
    consumers: usize,
    stages: usize,
    [slab_rows, slab]: [usize; 2],
    resident: usize,
) -> Shape {
    Shape {
        m,
        n,
        consumers,
        turns: 1,
        stages,
        slab_rows,
        slab,
        narrow: false,
        resident,
        splits: 1,
        clustered: false,
    }
}

/// Two groups that take turns, with a tile each.
const fn in_turn(m: usize, n: usize, stages: usize, slab: [usize; 2]) -> Shape {
    Shape {
        turns: 2,
        ..shape(m, n, 1, stages, slab, 1)
    }
}

/// Large tiles reuse most; two blocks of small ones hide each other's epilogues, and so do groups that take
/// turns. Three groups cover rows that tiles of two would not divide well among SMs, and one has all stages of an
/// SM where there are fewer tiles than SMs, which is what products of few rows wait for, and leaves no room there for
/// blocks of the next kernel. Slabs of whole lines of memory, 64 columns, are stored fastest: of
/// eight rows where stages leave no room.
pub const SHAPES: &[Shape] = &[
    shape(128, 256, 2, 4, [8, 64], 1),
    shape(256, 128, 2, 4, [8, 64], 1),
    shape(128, 192, 2, 4, [16, 64], 1),
    shape(192, 128, 3, 4, [8, 64], 1),
    shape(192, 192, 3, 4, [8, 64], 1),
    shape(128, 128, 2, 5, [16, 64], 1),
    shape(128, 64, 2, 6, [16, 64], 1),
    shape(256, 64, 2, 4, [16, 64], 1),
    shape(256, 64, 4, 4, [8, 64], 1),
    shape(128, 64, 2, 3, [16, 64], 2),
    shape(64, 256, 1, 4, [16, 64], 1),
    shape(64, 128, 1, 8, [16, 64], 1),
    shape(128, 128, 1, 3, [16, 32], 2),
    shape(64, 128, 1, 4, [16, 32], 2),
    shape(64, 64, 1, 12, [16, 32], 1),
    shape(64, 64, 1, 6, [16, 32], 2),
    in_turn(64, 192, 6, [8, 64]),
    in_turn(64, 256, 4, [16, 64]),
    in_turn(128, 128, 5, [16, 64]),
    in_turn(128, 192, 5, [8, 64]),
];

/// Registers per thread of copying threads, and of multiplying ones, where three groups share what the
/// launch has for 168 each, the same for tiles that need all of it, where they share what it has for 80,
/// where four or two groups have 128 each, and where five have 96 each.
const EXCHANGED: (usize, usize) = (40, 232);
const EXCHANGED_FOR_MOST: (usize, usize) = (24, 240);
const EXCHANGED_BY_TWO: (usize, usize) = (24, 104);
const EXCHANGED_BY_THREE: (usize, usize) = (32, 160);
const EXCHANGED_BY_FOUR: (usize, usize) = (24, 112);
const EXCHANGED_BY_ONE: (usize, usize) = (40, 216);
/// Most bytes that a thread asks for ahead.
const ASKED_BYTES: usize = 128;
/// Warp groups, and rows that one of their instructions multiplies.
const GROUP: usize = 128;
pub const BLOCK_ROWS: usize = 64;
/// Threads of a warp.
pub const LANES: usize = 32;
/// Rows of an instruction that one warp has the sums of.
const WARP_ROWS: usize = 16;
/// Columns in which an instruction leaves two sums of a row to each of four lanes.
pub const FRAGMENT_COLUMNS: usize = 8;
/// Bytes along `k` of one instruction.
pub const DEPTH_BYTES: usize = 32;
/// What tiles in shared memory are aligned to.
const SWIZZLE_BYTES: usize = 1024;

impl Shape {
    pub fn threads(self) -> usize {
        (self.multiplying() + 1) * GROUP
    }

    /// With no more stages than a block that takes one tile has steps: what it leaves of an SM is room for the
    /// next kernel's first tiles.
    pub fn with_stages_for(self, steps: usize) -> Shape {
        /// One step stays in flight while the next one's products begin.
        const LEAST: usize = 2;
        Shape {
            stages: self.stages.min(steps.max(LEAST)),
            ..self
        }
    }

    /// Groups of warps that multiply.
    pub fn multiplying(self) -> usize {
        self.consumers * self.turns
    }

    /// Rows whose sums a block has in hand.
    pub fn rows_in_hand(self) -> usize {
        self.m * self.turns
    }

    pub fn k(element: DType) -> usize {
        TILE_ROW_BYTES / element.size_bytes()
    }

    /// Whether blocks that share a tile can be a cluster, of `tiles` tiles that are finished in vectors of `width`
    /// columns: if it is one that every device takes, and all are resident at once.
    pub fn may_cluster(self, width: usize, tiles: usize, device: &Device) -> bool {
        /// Most blocks of a cluster that every device takes.
        const MOST_BLOCKS: usize = 8;
        /// Columns that a block reads of another's sums at once.
        const AT_ONCE: usize = 4;
        /// SMs that share what clusters are placed in; one part of a device may have a few less.
        const NEIGHBOURS: usize = 16;
        const FEWER: usize = 14;
        let parts = device.n_sms as usize / NEIGHBOURS;
        let clusters = parts.saturating_sub(1) * (NEIGHBOURS / self.splits) + FEWER / self.splits;
        let is_cluster = (2..=MOST_BLOCKS).contains(&self.splits) && tiles <= clusters;
        is_cluster && self.turns == 1 && self.resident == 1 && !self.is_direct() && width >= AT_ONCE
    }

    /// Whether all vectors of `width` columns that a thread finishes in a round, or all those of a cluster's block, are
    /// of the same columns.
    pub fn has_same_columns(self, width: usize) -> bool {
        if self.clustered {
            return LANES.is_multiple_of(self.n / width);
        }
        self.columns(width) / width <= LANES
    }

    /// Whether a thread has registers for `bytes` beside its sums, and beside what it asks for ahead.
    pub fn holds(self, bytes: usize) -> bool {
        /// What addresses and the loop take, and what adds up the sums of several blocks.
        const OTHERS: usize = 80;
        self.sums() + OTHERS + (ASKED_BYTES + bytes) / 4 <= self.registers()
    }

    /// Rounds before its own in which a round's vectors of `width` columns are asked for, where a
    /// thread holds `bytes` of each; 0 where registers do not hold even one round.
    pub fn rounds_ahead(self, bytes: usize, width: usize) -> usize {
        // What addresses, scales and the loop take beside the sums, and what adds up those of several blocks.
        let others = if self.splits > 1 { 64 } else { 48 };
        if bytes == 0 || self.clustered {
            return 0;
        }
        let free_bytes = self.registers().saturating_sub(self.sums() + others) * 4;
        let vectors = self.slab_rows * self.columns(width) / width / 32;
        (ASKED_BYTES.min(free_bytes) / (vectors * bytes)).min(self.rounds(width))
    }

    /// The same tile, whose sums stay in registers.
    pub const fn direct(self) -> Shape {
        Shape {
            slab_rows: 8,
            slab: 0,
            ..self
        }
    }

    /// The same tile, whose sums are finished where instructions leave them: all rows of a warp pass through shared
    /// memory at a time.
    pub const fn narrow(self) -> Shape {
        Shape { narrow: true, ..self }
    }

    /// Rows of a warp that pass through shared memory at a time.
    pub const fn rows_at_once(self) -> usize {
        if self.narrow { WARP_ROWS } else { self.slab_rows }
    }

    pub const fn is_direct(self) -> bool {
        self.slab == 0
    }

    /// Columns that a warp finishes at a time: of four lanes for each row, vectors of `width`, where sums stay in
    /// registers.
    pub fn columns(self, width: usize) -> usize {
        if self.is_direct() { 4 * width } else { self.slab }
    }

    /// Rounds in which a warp finishes its sums of a tile.
    pub fn rounds(self, width: usize) -> usize {
        self.m / BLOCK_ROWS / self.consumers
            * (WARP_ROWS / self.rows_at_once())
            * (self.n / self.columns(width))
    }

    /// Whether an SM holds as many blocks as it should where each has `bytes` of shared memory.
    pub fn fits(self, bytes: usize, device: &Device) -> bool {
        /// What every block takes beside its own.
        const RESERVED: usize = 1024;
        bytes <= device.max_smem_per_block as usize
            && (bytes + RESERVED) * self.resident <= device.smem_per_sm as usize
    }

    /// Two barriers per stage follow the tiles, and one per turn; what comes next is for the sums.
    pub fn slabs_at(self) -> usize {
        const BARRIER_BYTES: usize = 8;
        let tiles = self.stages * (self.m + self.n) * TILE_ROW_BYTES;
        let barriers = self.stages * 2 + self.turns;
        (tiles + barriers * BARRIER_BYTES).next_multiple_of(128)
    }

    pub fn smem_bytes(self) -> usize {
        let slabs = if self.clustered {
            self.m * (self.n + 4) * 4
        } else if self.is_direct() {
            0
        } else {
            let element_bytes = if self.narrow { 2 } else { 4 };
            self.multiplying() * 4 * self.rows_at_once() * (self.slab + 8) * element_bytes
        };
        (self.slabs_at() + slabs).next_multiple_of(SWIZZLE_BYTES)
    }

    /// Elements that a multiplying thread sums.
    fn sums(self) -> usize {
        self.m * self.n / (self.consumers * GROUP)
    }

    /// Registers of a multiplying thread.
    fn registers(self) -> usize {
        match self.exchanged() {
            (_, 0) => register_limit(self.threads(), self.resident),
            (_, claimed) => claimed,
        }
    }

    /// Rows of a tile that eight lanes of a multiplying warp share, and sums and registers of a thread.
    pub fn room_for_parts(self) -> (usize, usize, usize) {
        let rows = self.m / self.consumers / WARP_ROWS;
        (rows, self.sums(), self.registers())
    }

    /// Columns of an instruction whose sums are held beside the tile's: as many as registers hold.
    pub fn part_n(self) -> usize {
        // What addresses and the loop take beside the sums.
        const OTHERS: usize = 32;
        let fits = |&part: &usize| {
            self.n.is_multiple_of(part) && self.sums() + part / 2 + OTHERS <= self.registers()
        };
        [128, 192].into_iter().find(fits).unwrap_or(64)
    }

    /// Registers of a block for each of its threads: all that an SM has for it where they are exchanged, else about what
    /// a thread uses.
    pub fn registers_taken(self) -> usize {
        // What addresses, fragments of descriptors and the loop take beside the sums.
        const OTHERS: usize = 72;
        let limit = register_limit(self.threads(), self.resident);
        match self.exchanged() {
            (_, 0) => limit.min(self.sums() + OTHERS),
            _ => limit,
        }
    }

    /// Registers that warps exchange.
    pub fn exchanged(self) -> (usize, usize) {
        /// Of a launch without exchange, where two blocks are resident.
        const FEW: usize = 64;
        /// Of a launch with 232 for a thread.
        const MANY: usize = 128;
        match (self.multiplying(), self.resident > 1) {
            (4.., _) => EXCHANGED_BY_FOUR,
            (3, _) => EXCHANGED_BY_THREE,
            (2, true) => EXCHANGED_BY_TWO,
            (2, false) if self.sums() > MANY => EXCHANGED_FOR_MOST,
            (2, false) => EXCHANGED,
            (_, true) if self.sums() > FEW => EXCHANGED_BY_ONE,
            (..) => (0, 0),
        }
    }

    pub fn blocking(self, element: DType) -> Blocking {
        Blocking {
            m: self.m,
            n: self.n,
            k: Shape::k(element),
            splits: self.splits,
        }
    }

    pub fn launch(self, blocking: Blocking, sizes: Sizes, smem_bytes: usize, arch: Arch) -> Launch {
        let mut launch = blocking.launch(sizes, self.threads(), smem_bytes);
        let slots = Device::of(arch).n_sms as usize * self.resident;
        launch.grid[0] = launch.grid[0].min(u32::try_from(slots).expect("devices have few SMs"));
        launch
    }

    /// Bytes of a ticket per warp of each tile, which lie before the partial sums.
    pub fn tickets_bytes(self, n_tiles: usize) -> usize {
        (n_tiles * self.consumers * 4 * 4).next_multiple_of(256)
    }

    pub fn workspace_bytes(self, n_tiles: usize) -> usize {
        if self.splits == 1 || self.clustered {
            return 0;
        }
        self.tickets_bytes(n_tiles) + n_tiles * self.splits * self.m * self.n * 4
    }

    pub fn knobs(self) -> [(&'static str, usize); 11] {
        [
            ("tile_m", self.m),
            ("tile_n", self.n),
            ("consumers", self.consumers),
            ("turns", self.turns),
            ("stages", self.stages),
            ("slab_rows", self.slab_rows),
            ("slab", self.slab),
            ("narrow", usize::from(self.narrow)),
            ("resident", self.resident),
            ("splits", self.splits),
            ("clustered", usize::from(self.clustered)),
        ]
    }

    pub fn of(variant: &Variant) -> Result<Shape, KernelError> {
        let knob = |name| knob(&TEMPLATE, variant, name);
        Ok(Shape {
            m: knob("tile_m")?,
            n: knob("tile_n")?,
            consumers: knob("consumers")?,
            turns: knob("turns")?,
            stages: knob("stages")?,
            slab_rows: knob("slab_rows")?,
            slab: knob("slab")?,
            resident: knob("resident")?,
            splits: knob("splits")?,
            // Variants from before there were clusters and narrow slabs do not say.
            clustered: knob("clustered").is_ok_and(|is| is > 0),
            narrow: knob("narrow").is_ok_and(|is| is > 0),
        })
    }
}
