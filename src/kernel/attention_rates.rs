//! What the predictions of attention kernels have in common: rates that groups of four warps reach, and how computing
//! and copying overlap.

use super::attention::Attention;
use super::body::region::operand_bytes;
use super::device::{Device, NODE_US};
use super::spec::KernelSpec;

/// Query rows of a group.
pub const GROUP_ROWS: usize = 64;

/// The clock that lasts while tensor cores multiply.
pub fn clock_ghz(device: &Device) -> f64 {
    const SHARE: f64 = 0.914;
    device.clock_ghz * SHARE
}

/// Clocks in which the tensor cores of an SM multiply a group's rows with a tile of keys, and with its values.
#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
pub fn group_clk(attention: &Attention, tile_keys: usize, device: &Device) -> f64 {
    /// Of the rate of tensor cores.
    const SHARE: f64 = 0.72;
    let depths = (attention.depth + attention.value_depth) as f64;
    2.0 * GROUP_ROWS as f64 * tile_keys as f64 * depths / (device.tensor_flops_per_clk * SHARE)
}

/// Bytes of a tile of keys and its values, in 16-bit floats.
#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
pub fn tile_bytes(attention: &Attention, tile_keys: usize) -> f64 {
    tile_keys as f64 * (attention.depth + attention.value_depth) as f64 * 2.0
}

/// Microseconds of a launch that computes for `own_us`: of that, and of moving every operand once, this share of the
/// shorter one does not overlap.
pub fn launch_us(spec: &KernelSpec, own_us: f64, exposed: f64, device: &Device) -> f64 {
    let moved_us = device.memory_us(operand_bytes(spec));
    NODE_US + own_us.max(moved_us) + exposed * own_us.min(moved_us)
}
