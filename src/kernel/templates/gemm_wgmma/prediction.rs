//! How long a shape takes, told to `gemm::cost`.

use super::problem::{Problem, Vectors};
use super::reading::Reading;
use super::shape::{BLOCK_ROWS, DEPTH_BYTES, LANES, Shape};
use crate::ir::tiled_view::TILE_ROW_BYTES;
use crate::kernel::gemm::cost::Tiling;
use crate::kernel::gemm::operand::Along;
use crate::kernel::gemm::parts::{epilogue_work, register_limit, special_functions};
use crate::kernel::gemm::row_sums;

/// `is_alone` says that no block has a second tile, whose products would be computed beside the first one's end.
#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
pub fn tiling(problem: &Problem, shape: Shape, is_alone: bool) -> Tiling {
    /// Floating-point operations per clock and SM that power allows for.
    const SUSTAINED: f64 = 4096.0 * 0.865;
    /// Share of the bytes written to shared memory that reads are held up by.
    const WRITES: f64 = 0.95;
    /// Several SMs that ask for a tile at nearly the same time are answered together.
    const JOINT_COPIES: f64 = 1.8;
    /// Share of an epilogue that is left where sums stay in registers, and clocks that a column takes longer to be
    /// copied so.
    const DIRECT_SHARE: f64 = 0.8;
    const COLUMN_CLK: f64 = 0.47;
    let k = Shape::k(problem.element);
    let depth_bytes = problem
        .reading
        .instructions(problem.element, problem.contraction.sizes)
        * DEPTH_BYTES;
    // Elements of half the bytes are multiplied at twice the rate.
    let halves = depth_bytes / 2;
    // Every instruction reads all columns.
    let read = (shape.m + shape.n * (shape.m / BLOCK_ROWS)) * depth_bytes;
    let written = (shape.m + shape.n) * TILE_ROW_BYTES;
    let (added, alone_clk) = added_in_steps(problem, shape);
    let (direct_share, copies_clk) = if shape.is_direct() {
        (DIRECT_SHARE, shape.n as f64 * COLUMN_CLK)
    } else {
        (1.0, 0.0)
    };
    Tiling {
        m: shape.m,
        n: shape.n,
        k,
        threads: shape.threads(),
        registers: register_limit(shape.threads(), shape.resident) / 8 * 8,
        smem_bytes: problem.smem_bytes(shape),
        // The one before a step is free only once that is in flight.
        stages: shape.stages - 1,
        splits: shape.splits,
        clustered: shape.clustered,
        math_clk: (2 * shape.m * shape.n * halves) as f64 / SUSTAINED,
        smem_clk: (read as f64 + WRITES * written as f64) / 128.0,
        step_bytes: fetched_bytes(problem, shape) / JOINT_COPIES,
        copy_clk: cut_rows_clk(problem, shape),
        fetch_work: row_sums::work(&problem.contraction, shape.m * k) + added,
        epilogue_work: (shape.m * shape.n) as f64 * finishing_work(problem, shape, is_alone) * direct_share,
        epilogue_clk: rows_clk(problem, shape),
        result_bytes: (shape.m * shape.n * problem.result_bytes) as f64,
        turns: shape.turns,
        // Phases of barriers are waited for while products are in flight, and sums while those of others are.
        step_clk: copies_clk
            + if shape.multiplying() * shape.resident == 1 {
                alone_clk
            } else {
                0.0
            },
        stays: true,
    }
}

/// Bytes that are fetched for a step.
#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
fn fetched_bytes(problem: &Problem, shape: Shape) -> f64 {
    let sizes = problem.contraction.sizes;
    let written = ((shape.m + shape.n) * TILE_ROW_BYTES) as f64;
    match problem.reading {
        // Pixels take the same time whatever they are of.
        Reading::Images(_) => written,
        // Zeros behind the last k are not fetched.
        Reading::Plain(_) => {
            let steps = problem.reading.steps(shape.blocking(problem.element), sizes);
            written * sizes.k as f64 / (steps * Shape::k(problem.element)) as f64
        }
    }
}

/// Additions of a step's sums to others as floats, and clocks that a group waits for them where it is alone.
#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
fn added_in_steps(problem: &Problem, shape: Shape) -> (f64, f64) {
    /// From an instruction to its sums being added, in clocks.
    const PART_CLK: f64 = 150.0;
    if !problem.sums_in_steps() {
        return (0.0, 0.0);
    }
    let parts = shape.m / BLOCK_ROWS * shape.n / shape.part_n();
    ((shape.m * shape.n) as f64, PART_CLK * parts as f64)
}

/// Clocks in which the copy engine brings a step's rows across `k` that lie outside in part: it takes so long for
/// each of them, as measured on 40 columns.
#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
fn cut_rows_clk(problem: &Problem, shape: Shape) -> f64 {
    const ROW_CLK: f64 = 20.0;
    let Reading::Plain(sides) = &problem.reading else {
        return 0.0;
    };
    let (sizes, across) = (problem.contraction.sizes, Shape::k(problem.element));
    let rows = across.min(sizes.k) as f64;
    let extents = [(sizes.m, shape.m), (sizes.n, shape.n)];
    let cut = sides.iter().zip(extents).map(|(side, (extent, tile))| {
        let is_cut = side.along == Along::Row && !extent.is_multiple_of(across);
        // Of all tiles along the axis, the last one has such rows.
        if is_cut {
            rows / extent.div_ceil(tile) as f64
        } else {
            0.0
        }
    });
    cut.sum::<f64>() * ROW_CLK
}

/// Clocks of a tile's epilogue that reads memory row by row.
#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
fn rows_clk(problem: &Problem, shape: Shape) -> f64 {
    /// Of 16 rows and 32 columns of a warp: two warps of a scheduler hide little of it, and the products of another
    /// tile all of it.
    const ROWS_CLK: f64 = 120.0;
    let Vectors { width, row_bytes } = problem.vectors(shape);
    if row_bytes == 0 || shape.turns > 1 {
        return 0.0;
    }
    (shape.rounds(width) * shape.slab_rows * shape.columns(width)) as f64 / (16.0 * 32.0) * ROWS_CLK
}

/// Steps in which a sum is finished. Where results pass through shared memory instead of sums, little is left of them
/// beside the products of another tile, as far as these last, but for special functions.
#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
fn finishing_work(problem: &Problem, shape: Shape, is_alone: bool) -> f64 {
    const IN_TURN_SHARE: f64 = 0.15;
    const SPECIAL_STEPS: f64 = 5.0;
    /// Groups of one tile drift apart over several tiles, and blocks of one SM do: one's special functions are computed
    /// beside the other's products.
    const DRIFTING_SPECIAL_STEPS: f64 = 1.2;
    /// Products of so many terms last as long as the end of a tile.
    const TERMS: f64 = 512.0;
    let steps = epilogue_work(&problem.contraction) + 12.0 / problem.vectors(shape).width as f64;
    let share = epilogue_share(problem, shape);
    if !shape.narrow {
        return steps * share;
    }
    let nothing_beside = is_alone || shape.multiplying() * shape.resident == 1;
    let takes_turns = shape.turns > 1;
    let special_steps = if nothing_beside || takes_turns {
        SPECIAL_STEPS
    } else {
        DRIFTING_SPECIAL_STEPS
    };
    let special = special_steps * special_functions(&problem.contraction) as f64;
    if nothing_beside || !takes_turns {
        return special + steps * share;
    }
    let beside = (problem.contraction.sizes.k as f64 / TERMS).min(1.0);
    special + steps * (IN_TURN_SHARE * beside + share * (1.0 - beside))
}

/// Share of an epilogue's steps that its time was measured to be: half of them where nothing is read row by row, whose
/// steps follow each other without waiting, and more where a lane has so few vectors of a slab that it waits for them.
/// Bytes wait for what they store, and less where what they read of a row was asked for early, by groups that finish
/// at the same time.
fn epilogue_share(problem: &Problem, shape: Shape) -> f64 {
    const WITHOUT_ROWS: f64 = 0.5;
    const OF_FEW_VECTORS: f64 = 1.3;
    const MANY_VECTORS: usize = 4;
    let Vectors { width, row_bytes } = problem.vectors(shape);
    let n_vectors = shape.slab_rows * shape.columns(width) / width / LANES;
    let (is_byte, reads_rows) = (problem.element.size_bytes() == 1, row_bytes > 0);
    match (is_byte, reads_rows) {
        (false, false) if n_vectors < MANY_VECTORS => WITHOUT_ROWS * OF_FEW_VECTORS,
        (false, false) => WITHOUT_ROWS,
        (true, true) if shape.turns == 1 => 0.7,
        _ => 1.0,
    }
}
