//! The problem in one shape on a device: which blocks have which tiles, and how these are finished.

use super::problem::Problem;
use super::reading::Reading;
use super::shape::Shape;
use crate::ir::TensorType;
use crate::kernel::device::Device;
use crate::kernel::gemm::contraction::Sizes;
use crate::kernel::gemm::epilogue::Epilogue;
use crate::kernel::print::store::Stores;
use crate::kernel::source::Arch;
use crate::kernel::spec::KernelSpec;

/// The problem in one shape on a device.
pub struct Plan<'a> {
    pub spec: &'a KernelSpec,
    pub problem: &'a Problem,
    pub shape: Shape,
    pub device: &'static Device,
    /// Neighbouring columns that a thread finishes at once.
    pub width: usize,
    pub tiles_m: usize,
    pub tiles_n: usize,
    /// Of all batches.
    pub n_tiles: usize,
}

impl<'a> Plan<'a> {
    pub fn new(spec: &'a KernelSpec, problem: &'a Problem, shape: Shape, arch: Arch) -> Plan<'a> {
        let sizes = problem.contraction.sizes;
        let (tiles_m, tiles_n, _) = shape.blocking(problem.element).tiles(sizes);
        Plan {
            spec,
            problem,
            shape,
            device: Device::of(arch),
            width: problem.vectors(shape).width,
            tiles_m,
            tiles_n,
            n_tiles: tiles_m * tiles_n * sizes.batch,
        }
    }

    /// Blocks that are resident at once.
    pub fn n_slots(&self) -> usize {
        self.device.n_sms as usize * self.shape.resident
    }

    /// What stores vectors of results.
    pub fn epilogue(&self) -> Epilogue {
        self.epilogue_of(self.width)
    }

    /// What finishes sums: vectors of neighbours, or the two of an instruction.
    pub fn finishing(&self) -> Epilogue {
        const SUMS: usize = 2;
        if !self.shape.narrow {
            return self.epilogue();
        }
        let mut pairs = self.epilogue_of(SUMS);
        pairs.in_words = true;
        pairs
    }

    fn epilogue_of(&self, width: usize) -> Epilogue {
        let (rows, columns) = (self.tiles_m * self.shape.m, self.tiles_n * self.shape.n);
        let mut epilogue = Epilogue::new(&self.problem.contraction, width, rows, columns);
        epilogue.stores = self.stores();
        epilogue
    }

    /// Results of which caches hold a part at most push operands out of them.
    #[expect(clippy::cast_precision_loss, reason = "shares of a cache")]
    fn stores(&self) -> Stores {
        /// Times what L2 holds.
        const MANY: f64 = 2.0;
        let bytes: usize = self.spec.output_types().iter().map(TensorType::n_bytes).sum();
        if bytes as f64 > MANY * self.device.l2_bytes {
            Stores::Streamed
        } else {
            Stores::Cached
        }
    }

    /// Neighbouring blocks share rows of tiles of the first operand and columns of the second one. Where caches do not
    /// hold all columns, each group of rows reads them anew: groups are as high as caches hold their rows.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "shares of a cache"
    )]
    pub fn group(&self) -> String {
        /// What `rt_tile_place` takes.
        const USUAL: usize = 8;
        /// Shares of L2 that columns may take to stay there, and that rows of a group take.
        const OF_COLUMNS: f64 = 0.5;
        const OF_ROWS: f64 = 0.25;
        let Sizes { m, n, k, .. } = self.problem.contraction.sizes;
        let row_bytes = (k * self.problem.element.size_bytes()) as f64;
        let is_plain = matches!(self.problem.reading, Reading::Plain(_));
        if !is_plain || n as f64 * row_bytes <= self.device.l2_bytes * OF_COLUMNS {
            return String::new();
        }
        let held = (self.device.l2_bytes * OF_ROWS / (self.shape.m as f64 * row_bytes)) as usize;
        let tiles_m = m.div_ceil(self.shape.m);
        let passes = tiles_m.div_ceil(held.max(USUAL));
        match tiles_m.div_ceil(passes) {
            group if group > USUAL => format!("<{group}>"),
            _ => String::new(),
        }
    }
}
