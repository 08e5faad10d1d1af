//! What the template is told, by subject.

use serde::Serialize;

use super::ahead::{Ahead, ColumnsContext, RowsContext};
use super::problem::Problem;
use super::reading::{ConvContext, OperandContext, Reading};
use super::shape::Shape;
use crate::ir::TensorType;
use crate::kernel::device::Device;
use crate::kernel::error::KernelError;
use crate::kernel::gemm::contraction::{Side, Sizes};
use crate::kernel::gemm::element::{self, TypesContext};
use crate::kernel::gemm::epilogue::Epilogue;
use crate::kernel::gemm::row_sums::RowSumsContext;
use crate::kernel::print::store::Stores;
use crate::kernel::source::Arch;
use crate::kernel::spec::KernelSpec;

/// Columns of sums that a thread reads out of shared memory at once: 16 bytes.
const PIECE: usize = 4;

#[derive(Clone, Debug, Default, Serialize)]
pub struct GemmWgmmaContext {
    pub name: String,
    pub params: Vec<String>,
    /// Whether later kernels may begin while this one multiplies.
    pub releases: bool,
    #[serde(flatten)]
    pub own: OwnContext,
}

/// All that follows from the problem and its shape.
#[derive(Clone, Debug, Default, Serialize)]
pub struct OwnContext {
    #[serde(flatten)]
    types: TypesContext,
    /// What takes a sum as what the epilogue computes with.
    taken: &'static str,
    #[serde(flatten)]
    tiles: TilesContext,
    #[serde(flatten)]
    groups: GroupsContext,
    #[serde(flatten)]
    steps: StepsContext,
    #[serde(flatten)]
    row_sums: RowSumsContext,
    #[serde(flatten)]
    rows: RowsContext,
    #[serde(flatten)]
    columns: ColumnsContext,
    #[serde(flatten)]
    finish: FinishContext,
}

/// The product's tiles, and which of them a block has.
#[derive(Clone, Debug, Default, Serialize)]
struct TilesContext {
    m: usize,
    n: usize,
    tiles_m: usize,
    tiles_n: usize,
    /// Of all batches and splits.
    tiles: usize,
    /// What says which tile a block has.
    place: String,
    splits: usize,
    /// Whether blocks that share a tile are a cluster.
    clustered: bool,
    tickets_bytes: usize,
}

/// A block's threads, and the tile that they multiply.
#[derive(Clone, Debug, Default, Serialize)]
struct GroupsContext {
    threads: usize,
    resident: usize,
    stages: usize,
    consumers: usize,
    /// Groups that take turns, each with a tile of its own; 1 where they share one.
    turns: usize,
    tile_m: usize,
    tile_n: usize,
    tile_k: usize,
    /// Registers that copying threads keep and multiplying ones take; 0 where all have the same.
    released: usize,
    claimed: usize,
}

/// What is copied and multiplied.
#[derive(Clone, Debug, Default, Serialize)]
struct StepsContext {
    /// Over `k`, for one tile.
    steps: usize,
    /// A block's steps of a tile; `begin` is the first one where it is known.
    first_step: &'static str,
    last_step: &'static str,
    begin: &'static str,
    /// Instructions along `k` of a step, for each of their rows.
    instructions: usize,
    /// Columns that an instruction sums where a step's sums are added to others as floats, else 0.
    part_n: usize,
    operands: Vec<OperandContext>,
    /// The operand that is a weight, whose first tiles are asked for before earlier kernels are done, and the other
    /// one; empty where every read waits for them.
    early: &'static str,
    late: &'static str,
    /// Where rows are pixels.
    conv: Option<ConvContext>,
}

/// How sums become results.
#[derive(Clone, Debug, Default, Serialize)]
struct FinishContext {
    /// Rows and columns of a warp that pass through shared memory at a time, and where; no columns where sums stay
    /// in registers.
    slab_rows: usize,
    slab: usize,
    slabs_at: usize,
    width: usize,
    /// Neighbouring columns of a vector that are read out of shared memory at once.
    piece: usize,
    epilogue: String,
}

/// The problem in one shape on a device.
pub struct Plan<'a> {
    pub spec: &'a KernelSpec,
    pub problem: &'a Problem,
    pub shape: Shape,
    pub device: &'static Device,
    /// Neighbouring columns that a thread finishes at once.
    pub width: usize,
    tiles_m: usize,
    tiles_n: usize,
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

    pub fn epilogue(&self) -> Epilogue {
        let (rows, columns) = (self.tiles_m * self.shape.m, self.tiles_n * self.shape.n);
        let mut epilogue = Epilogue::new(&self.problem.contraction, self.width, rows, columns);
        epilogue.stores = self.stores();
        epilogue
    }

    /// Results of which caches hold a part at most push operands out of them.
    #[expect(clippy::cast_precision_loss, reason = "shares of a cache")]
    pub fn stores(&self) -> Stores {
        /// Times what L2 holds.
        const MANY: f64 = 2.0;
        let bytes: usize = self.spec.output_types().iter().map(TensorType::n_bytes).sum();
        if bytes as f64 > MANY * self.device.l2_bytes {
            Stores::Streamed
        } else {
            Stores::Cached
        }
    }

    /// # Errors
    /// If an op's text could not be filled in.
    pub fn context(&self, epilogue: &Epilogue, ahead: &Ahead) -> Result<OwnContext, KernelError> {
        let Problem {
            contraction, element, ..
        } = self.problem;
        let (rows_at, room) = (self.shape.smem_bytes(), self.shape.room_for_parts());
        Ok(OwnContext {
            types: TypesContext::new(*element, contraction, self.spec),
            taken: element::sums(*element, contraction).taken,
            tiles: self.tiles(),
            groups: self.groups(),
            steps: self.steps(ahead),
            row_sums: RowSumsContext::new(contraction, self.spec, rows_at, room, 5)?,
            rows: ahead.rows(self, epilogue)?,
            columns: ahead.columns(self, epilogue)?,
            finish: FinishContext {
                slab_rows: self.shape.slab_rows,
                slab: self.shape.slab,
                slabs_at: self.shape.slabs_at(),
                width: self.width,
                piece: self.width.min(PIECE),
                epilogue: epilogue.text(self.spec, ahead.early(), 5)?,
            },
        })
    }

    fn tiles(&self) -> TilesContext {
        let Sizes { m, n, .. } = self.problem.contraction.sizes;
        TilesContext {
            m,
            n,
            tiles_m: self.tiles_m,
            tiles_n: self.tiles_n,
            tiles: self.n_tiles * self.shape.splits,
            place: if self.shape.clustered {
                "rt_cluster_place".to_owned()
            } else {
                format!("rt_tile_place{}", self.group())
            },
            splits: self.shape.splits,
            clustered: self.shape.clustered,
            tickets_bytes: self.shape.tickets_bytes(self.n_tiles),
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
    fn group(&self) -> String {
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

    fn groups(&self) -> GroupsContext {
        let (released, claimed) = self.shape.exchanged();
        GroupsContext {
            threads: self.shape.threads(),
            resident: self.shape.resident,
            stages: self.shape.stages,
            consumers: self.shape.consumers,
            turns: self.shape.turns,
            tile_m: self.shape.m,
            tile_n: self.shape.n,
            tile_k: Shape::k(self.problem.element),
            released,
            claimed,
        }
    }

    fn steps(&self, ahead: &Ahead) -> StepsContext {
        let Problem {
            contraction,
            element,
            reading,
            ..
        } = self.problem;
        let (first_step, last_step, begin) = if self.shape.splits > 1 {
            (
                "kSteps * place.split / kSplits",
                "kSteps * (place.split + 1) / kSplits",
                "first_step",
            )
        } else {
            ("0", "kSteps", "0")
        };
        let (early, late) = match self.problem.weight(self.spec, self.shape) {
            // All threads read the columns, which may be none of the weights.
            _ if ahead.has_columns() => ("", ""),
            Some(Side::A) => ("a", "b"),
            Some(Side::B) => ("b", "a"),
            None => ("", ""),
        };
        StepsContext {
            steps: reading.steps(self.shape.blocking(*element), contraction.sizes),
            first_step,
            last_step,
            begin,
            instructions: reading.instructions(*element, contraction.sizes),
            part_n: if self.problem.sums_in_steps() {
                self.shape.part_n()
            } else {
                0
            },
            operands: reading.operands(*element),
            early,
            late,
            conv: reading.conv(),
        }
    }
}
