//! What the matrix templates have in common: sizes, workspace and signature.

use crate::ir::TensorType;
use crate::kernel::body::region::{operands, results, signature};
use crate::kernel::device::Device;
use crate::kernel::gemm::contraction::{Contraction, Side, Sizes};
use crate::kernel::gemm::operand::{Along, Cut, Fetch, memory_kind};
use crate::kernel::print::expr::Operand;
use crate::kernel::source::{Arch, Launch, Param, Variant};
use crate::kernel::spec::KernelSpec;
use crate::kernel::templates::indexed::work;
use crate::ops::{self, Tolerance};
use crate::tile::{Body, Expr};

/// Extents of a block's share, and how many blocks share a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocking {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub splits: usize,
}

impl Blocking {
    /// Tiles in each direction, at least one so that nothing is divided by zero.
    pub fn tiles(&self, sizes: Sizes) -> (usize, usize, usize) {
        (
            sizes.m.div_ceil(self.m).max(1),
            sizes.n.div_ceil(self.n).max(1),
            sizes.k.div_ceil(self.k),
        )
    }

    pub fn launch(&self, sizes: Sizes, threads: usize, smem_bytes: usize) -> Launch {
        let (m, n, _) = self.tiles(sizes);
        let blocks = m * n * sizes.batch.max(1) * self.splits;
        Launch::in_a_row(blocks, threads, smem_bytes)
    }

    /// Bytes of the tickets that lie before the partial sums.
    pub fn tickets_bytes(&self, sizes: Sizes) -> usize {
        let (m, n, _) = self.tiles(sizes);
        (m * n * sizes.batch.max(1) * 4).next_multiple_of(256)
    }

    /// Tickets and partial sums of `sum_bytes` each; nothing where no tile is shared.
    pub fn workspace_bytes(&self, sizes: Sizes, sum_bytes: usize) -> usize {
        if self.splits == 1 {
            return 0;
        }
        let (m, n, _) = self.tiles(sizes);
        let tiles = m * n * sizes.batch.max(1);
        self.tickets_bytes(sizes) + tiles * self.splits * self.m * self.n * sum_bytes
    }

    /// Rows and depth that the tiles of an operand cover.
    pub fn covered(&self, sizes: Sizes, side: Side) -> (usize, usize) {
        let (m, n, k) = self.tiles(sizes);
        let rows = match side {
            Side::A => m * self.m,
            Side::B => n * self.n,
        };
        (rows, (k * self.k).max(self.k))
    }

    pub fn fetch(&self, contraction: &Contraction, cut: Cut) -> Fetch {
        let (rows, depth) = self.covered(contraction.sizes, cut.side);
        Fetch::new(contraction, cut, rows, depth)
    }
}

/// Inputs and outputs as the printers know them.
pub fn tensors(spec: &KernelSpec) -> Vec<Operand> {
    [operands(spec), results(spec)].concat()
}

/// The region's signature, with the workspace where there is one.
pub fn parameters(spec: &KernelSpec, workspace_bytes: usize) -> (Vec<String>, Vec<Param>) {
    let (mut declared, mut passed) = signature(spec);
    if workspace_bytes > 0 {
        declared.push("uint8_t* __restrict__ workspace".to_owned());
        passed.push(Param::Workspace);
    }
    (declared, passed)
}

/// Bytes that cross memory at least: every operand once.
#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
pub fn memory_bytes(spec: &KernelSpec) -> f64 {
    let types = [spec.input_types(), spec.output_types()].concat();
    types.iter().map(TensorType::n_bytes).sum::<usize>() as f64
}

/// Microseconds in which memory moves every operand once: weights as a network reads them, whose other weights have
/// passed through L2 since, and everything else from where the kernel before has left it.
#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
pub fn memory_us(spec: &KernelSpec, arch: Arch) -> f64 {
    let device = Device::of(arch);
    let inputs = spec.input_types();
    let weights = spec.weights.iter().map(|&input| inputs[input].n_bytes());
    let weight_bytes = weights.sum::<usize>() as f64;
    device.passed_on_us(memory_bytes(spec) - weight_bytes) + device.memory_us(weight_bytes)
}

/// Whether most of a tile would lie outside.
pub fn is_oversized(tile: usize, extent: usize, least: usize) -> bool {
    tile > least && tile >= 2 * extent.max(1).next_power_of_two()
}

/// Scalar steps to fetch one element of an operand, divided among the lanes of wide loads.
#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
pub fn fetch_work(contraction: &Contraction, cut: Cut, plain: bool) -> f64 {
    // Address arithmetic that no lane shares, and a store to shared memory.
    const SCALAR_STEPS: f64 = 12.0;
    const VECTOR_STEPS: f64 = 8.0;
    let own = work(&contraction.body, contraction.operand(cut.side));
    match (plain, cut.along) {
        (true, _) => VECTOR_STEPS / cut.width as f64,
        (false, Along::K | Along::Row) => own * 2.0 + SCALAR_STEPS,
    }
}

/// Scalar steps of the epilogue for one element.
pub fn epilogue_work(contraction: &Contraction) -> f64 {
    let outputs = contraction.outputs.iter();
    let steps: f64 = outputs.map(|&output| work(&contraction.body, output)).sum();
    let per_row: f64 = contraction
        .row_terms()
        .map(|term| work(&contraction.body, term))
        .sum();
    if memory_kind(contraction, Side::A).size_bytes() == 1 {
        return (steps - per_row - conversions(&contraction.body)).max(0.0) + 4.0;
    }
    (steps - per_row).max(0.0) * 1.5 + 4.0
}

/// How many functions that hardware approximates happen to a sum.
pub fn special_functions(contraction: &Contraction) -> usize {
    let is_special = |expr: &Expr| match expr {
        Expr::Map { op, dtype, .. } => {
            dtype.is_float() && ops::lookup(op).is_some_and(|def| matches!(def.tolerance, Tolerance::Close))
        }
        _ => false,
    };
    contraction
        .body
        .exprs()
        .filter(|(_, expr)| is_special(expr))
        .count()
}

/// Steps of a quantised network's epilogue that are part of others: casts change no bits but where bytes
/// are made, and there rounding and bounds belong to them.
#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
pub fn conversions(body: &Body) -> f64 {
    let is_conversion = |expr: &Expr| {
        matches!(
            expr,
            Expr::Map {
                op: "cast" | "round" | "clamp",
                ..
            }
        )
    };
    body.exprs().filter(|(_, expr)| is_conversion(expr)).count() as f64
}

/// Blocks that an SM should hold of a tile whose threads sum `sums` elements each. Two where a
/// block of 256 threads hides its latencies badly alone, and only where half the registers
/// are surely enough: plain operands, and an epilogue of few steps.
pub fn resident_blocks(contraction: &Contraction, threads: usize, sums: usize) -> usize {
    const FEW_STEPS: f64 = 24.0;
    let plain = [contraction.a, contraction.b]
        .into_iter()
        .all(|operand| matches!(contraction.body.expr(operand), Expr::Load { .. }));
    let fits = plain && threads == 256 && sums == 64 && epilogue_work(contraction) < FEW_STEPS;
    if fits { 2 } else { 1 }
}

/// Registers per thread where an SM holds `resident` blocks of `threads`.
pub fn register_limit(threads: usize, resident: usize) -> usize {
    (65536 / threads / resident).min(255)
}

/// Fastest first, the best `most` of them, and the fastest whose tiles are of one block each, without scratch memory:
/// where memory is scarce nothing else may do.
pub fn ranked(mut variants: Vec<Variant>, most: usize) -> Vec<Variant> {
    variants.sort_by(|a, b| a.predicted_us.total_cmp(&b.predicted_us));
    let is_of_one = |variant: &Variant| variant.knobs.get("splits").is_none_or(|&splits| splits == 1);
    let behind = variants
        .iter()
        .position(is_of_one)
        .filter(|&place| place >= most)
        .map(|place| variants[place].clone());
    variants.truncate(most);
    variants.extend(behind);
    variants
}
