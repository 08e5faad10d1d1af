//! Analytic times of tiled matrix products.
//!
//! A block's step over `k` costs what its slowest unit needs: multipliers, shared memory, L2,
//! or the latency of a load divided by how many steps are in flight. Blocks that share an SM
//! share its units. What cannot be resident (registers, shared memory, threads) has no time.

use crate::kernel::device::{Device, NODE_US};
use crate::kernel::gemm::contraction::Sizes;

/// One way to tile a product.
#[derive(Clone, Copy, Debug)]
pub struct Tiling {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub threads: usize,
    /// Registers per thread, estimated.
    pub registers: usize,
    pub smem_bytes: usize,
    /// Steps over `k` in flight, the one that is computed among them.
    pub stages: usize,
    pub splits: usize,
    /// Whether the blocks that share a tile exchange their sums through shared memory.
    pub clustered: bool,
    /// Clocks of the multipliers for one step of one block.
    pub math_clk: f64,
    /// Clocks of shared memory for one step of one block.
    pub smem_clk: f64,
    /// Bytes of both operands for one step of one block.
    pub step_bytes: f64,
    /// Clocks of an SM's copy engine for one step of one block, where it is slower than what feeds it.
    pub copy_clk: f64,
    /// Instructions of all threads of a block to fetch one step's operands, in thread-clocks.
    pub fetch_work: f64,
    /// The same for the epilogue.
    pub epilogue_work: f64,
    /// Clocks of a tile's epilogue in which a block waits, and other blocks of its SM do not.
    pub epilogue_clk: f64,
    /// Bytes of one block's results that are waited for: where blocks stay, all of them store at once, and
    /// multiply at once.
    pub result_bytes: f64,
    /// Tiles that a block has in hand: all but one are finished while that one's products are computed.
    pub turns: usize,
    /// Clocks of barriers and loop control for one step.
    pub step_clk: f64,
    /// Whether blocks stay and take several tiles, so that only their first one has to fill
    /// what is in flight.
    pub stays: bool,
}

/// Latency of a load that misses L1, in clocks.
pub const LOAD_CLK: f64 = 800.0;
/// Barriers of a block and loop control of one step, in clocks.
pub const STEP_CLK: f64 = 60.0;
/// From launch to the first product, and from the last to the end, in clocks.
const FILL_CLK: f64 = 1500.0;
/// Writing partial sums, waiting for the last block and reading them, in microseconds.
const SPLIT_US: f64 = 1.5;
/// The same for blocks of a cluster, which wait for each other twice, and for each of them; and for as many sums of a
/// block again as `AT_ONCE`, whose exchange the first ones' waits do not hide (tiles of 128 x 128 and 64 x 256 in two).
const CLUSTER_US: f64 = 1.0;
const PEER_US: f64 = 0.2;
const EXCHANGED_US: f64 = 0.73;
const AT_ONCE: f64 = 64.0 * 64.0;
/// Scalar instructions an SM issues per clock that are not held up by memory.
const ISSUE_PER_CLK: f64 = 64.0;
/// Bytes of results that an SM stores per clock where all of them do.
const STORED_PER_CLK: f64 = 40.0;
/// Share of a tile's epilogue that the products beside it are held up by, as measured.
const HELD_UP: f64 = 0.4;
/// From the last step of one tile to the first of the next one, in another's turn, in clocks.
const TURN_CLK: f64 = 100.0;
const MAX_REGISTERS: usize = 255;

/// Blocks of `tiling` that an SM holds; none if one does not fit.
pub fn blocks_per_sm(tiling: &Tiling, device: &Device) -> usize {
    if tiling.registers > MAX_REGISTERS || tiling.smem_bytes > device.max_smem_per_block as usize {
        return 0;
    }
    device.blocks_per_sm(tiling.threads, tiling.registers, tiling.smem_bytes)
}

/// Microseconds for the whole product, whose operands and results take memory `moved_us` to move.
#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
pub fn predicted_us(sizes: Sizes, tiling: &Tiling, moved_us: f64, device: &Device) -> Option<f64> {
    let per_sm = blocks_per_sm(tiling, device);
    if per_sm == 0 {
        return None;
    }
    let tiles = sizes.batch * sizes.m.div_ceil(tiling.m) * sizes.n.div_ceil(tiling.n);
    let blocks = tiles * tiling.splits;
    let steps = sizes.k.div_ceil(tiling.k).div_ceil(tiling.splits) as f64;
    let slots = per_sm * device.n_sms as usize;
    let (full, rest) = (blocks / slots, blocks % slots);
    let mut clk = full as f64 * wave_clk(tiling, steps, slots, device);
    if rest > 0 {
        clk += wave_clk(tiling, steps, rest, device);
    }
    let fills = if tiling.stays {
        1
    } else {
        full + usize::from(rest > 0)
    };
    clk += FILL_CLK * fills as f64;
    // Nobody waits for the last results to be stored, and nothing goes on beside the last tile of a turn.
    let last = if rest > 0 { rest } else { slots };
    clk += if tiling.turns > 1 {
        finish_clk(tiling, last, device)
    } else {
        -stored_clk(tiling, last, device)
    };
    let mut us = (clk / (device.clock_ghz * 1e3)).max(moved_us);
    if tiling.clustered {
        let sums = (tiling.m * tiling.n) as f64 / AT_ONCE;
        us += CLUSTER_US + PEER_US * tiling.splits as f64 + EXCHANGED_US * (sums - 1.0).max(0.0);
    } else if tiling.splits > 1 {
        let partial = 8.0 * (blocks * tiling.m * tiling.n) as f64;
        us += SPLIT_US + partial / (device.l2_gb_per_s * 0.5 * 1e3);
    }
    Some(NODE_US + us)
}

/// Clocks until `blocks` that run at the same time are done, once they have begun.
#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
fn wave_clk(tiling: &Tiling, steps: f64, blocks: usize, device: &Device) -> f64 {
    let resident = blocks.div_ceil(device.n_sms as usize) as f64;
    let issue = tiling.fetch_work / ISSUE_PER_CLK;
    let units = tiling
        .math_clk
        .max(tiling.smem_clk)
        .max(issue)
        .max(tiling.copy_clk)
        * resident;
    let l2_bytes_per_clk = device.l2_gb_per_s / device.clock_ghz;
    let l2 = tiling.step_bytes * blocks as f64 / l2_bytes_per_clk;
    let latency = LOAD_CLK / (tiling.stages.max(2) - 1) as f64;
    let products = steps * (units.max(l2).max(latency) + tiling.step_clk);
    let finish = finish_clk(tiling, blocks, device) + stored_clk(tiling, blocks, device);
    if tiling.turns == 1 {
        return products + finish;
    }
    let products = products + TURN_CLK;
    let held_up = products + HELD_UP * tiling.epilogue_work * resident / ISSUE_PER_CLK;
    held_up.max((products + finish) / tiling.turns as f64)
}

/// Clocks until the sums of `blocks` that run at the same time are finished.
#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
fn finish_clk(tiling: &Tiling, blocks: usize, device: &Device) -> f64 {
    let resident = blocks.div_ceil(device.n_sms as usize) as f64;
    // Of warps that take turns, those of one tile issue at a time.
    tiling.epilogue_work * resident * tiling.turns as f64 / ISSUE_PER_CLK + tiling.epilogue_clk
}

/// Clocks until what they finished at the same time is stored.
#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
fn stored_clk(tiling: &Tiling, blocks: usize, device: &Device) -> f64 {
    tiling.result_bytes * blocks as f64 / (f64::from(device.n_sms) * STORED_PER_CLK)
}

/// Numbers of blocks among which the steps over `k` of a tile may be divided, so that small
/// products fill the device.
pub fn split_choices(sizes: Sizes, tile: (usize, usize, usize), device: &Device) -> Vec<usize> {
    const MIN_STEPS: usize = 3;
    let tiles = sizes.batch * sizes.m.div_ceil(tile.0) * sizes.n.div_ceil(tile.1);
    let steps = sizes.k.div_ceil(tile.2);
    [1, 2, 3, 4, 6, 8, 12, 16, 24, 32]
        .into_iter()
        .filter(|&splits| {
            splits == 1 || (steps / splits >= MIN_STEPS && tiles * splits <= 3 * device.n_sms as usize)
        })
        .collect()
}
