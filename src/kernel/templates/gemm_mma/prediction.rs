//! How long a shape takes, told to `gemm::cost`.

use super::cuts::{Cuts, Mode};
use super::shape::Shape;
use crate::ir::DType;
use crate::kernel::device::Device;
use crate::kernel::gemm::cost::{LOAD_CLK, STEP_CLK, Tiling};
use crate::kernel::gemm::parts::{epilogue_work, register_limit, resident_blocks};
use crate::kernel::gemm::row_sums;
use crate::kernel::source::Arch;

/// Floating-point operations per clock and SM that these instructions sustain. From `sm_90` on
/// the device's full rate is for instructions of warp groups.
#[expect(clippy::cast_precision_loss, reason = "a few bytes")]
fn math_rate(element: DType, arch: Arch) -> f64 {
    const SUSTAINED: f64 = 0.85;
    const WARP_LIMIT: f64 = 2048.0;
    let rate = Device::of(arch).tensor_flops_per_clk.min(WARP_LIMIT) * SUSTAINED;
    rate * 2.0 / element.size_bytes() as f64
}

/// Blocks per SM that the compiler is asked for. TF32 rounds in registers of its own, and so
/// are operands kept that are not copied asynchronously.
pub fn resident(shape: Shape, cuts: &Cuts) -> usize {
    let sums = shape.warp_m * shape.warp_n / 32;
    let is_lean = cuts.element != DType::F32 && cuts.sides.iter().all(|(_, mode)| *mode == Mode::Async);
    if is_lean {
        resident_blocks(&cuts.contraction, shape.threads(), sums)
    } else {
        1
    }
}

#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
pub fn tiling(shape: Shape, cuts: &Cuts, splits: usize, per_element: [f64; 2], arch: Arch) -> Tiling {
    let (threads, k) = (shape.threads(), shape.k(cuts.element));
    let limit = register_limit(threads, resident(shape, cuts));
    let (asks, asks_early) = shape.asks(cuts, splits, limit);
    let asked = if asks_early {
        shape.asked_registers(cuts)
    } else {
        0
    };
    let is_staged = cuts.sides.iter().any(|(_, mode)| *mode != Mode::Async);
    // What is not asked for ahead is waited for, vector by vector.
    let waits = match (cuts.row_bytes > 0, asks) {
        (false, _) => 0,
        (true, true) => usize::from(!asks_early),
        (true, false) => shape.warp_m / 16 * shape.items(cuts),
    };
    let read = threads / 32 * (shape.warp_m + shape.warp_n) * shape.k_bytes;
    let written = (shape.m + shape.n) * shape.k_bytes;
    // What is computed in registers is one step ahead, whatever the number of stages.
    let stages = if is_staged { 2 } else { shape.stages };
    Tiling {
        m: shape.m,
        n: shape.n,
        k,
        threads,
        registers: (shape.registers(cuts) + asked).min(limit),
        smem_bytes: shape.smem_bytes(cuts),
        stages,
        splits,
        clustered: false,
        math_clk: (2 * shape.m * shape.n * k) as f64 / math_rate(cuts.element, arch),
        smem_clk: (read + written) as f64 / 128.0,
        step_bytes: written as f64,
        copy_clk: 0.0,
        fetch_work: (shape.m as f64 * per_element[0] + shape.n as f64 * per_element[1]) * k as f64
            + row_sums::work(&cuts.contraction, shape.m * k)
            + scale_work(shape, cuts, k),
        epilogue_work: (shape.m * shape.n) as f64
            * (epilogue_work(&cuts.contraction) + 12.0 / cuts.width as f64)
            * crowding(shape, cuts),
        epilogue_clk: waits as f64 * LOAD_CLK,
        result_bytes: 0.0,
        turns: 1,
        step_clk: STEP_CLK,
        stays: false,
    }
}

/// How much longer threads take to finish many sums of bytes, which is measured; why, is not known.
fn crowding(shape: Shape, cuts: &Cuts) -> f64 {
    let has_many = shape.warp_m * shape.warp_n >= 64 * 64;
    let is_of_bytes = cuts.element.size_bytes() == 1 && cuts.row_bytes > 0;
    if has_many && is_of_bytes { 1.8 } else { 1.0 }
}

/// Instructions that scale a step's rows: one for two elements, in every warp that reads them.
#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
fn scale_work(shape: Shape, cuts: &Cuts, k: usize) -> f64 {
    match cuts.scale {
        None => 0.0,
        Some(_) => (shape.m * k * (shape.n / shape.warp_n)) as f64 / 2.0,
    }
}
