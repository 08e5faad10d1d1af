//! What the template is told, by subject.

use serde::Serialize;

use super::ahead::{Ahead, ColumnsContext, RowsContext};
use super::plan::Plan;
use super::problem::Problem;
use super::reading::{ConvContext, OperandContext};
use super::shape::Shape;
use crate::kernel::error::KernelError;
use crate::kernel::gemm::contraction::{Side, Sizes};
use crate::kernel::gemm::element::{self, TypesContext};
use crate::kernel::gemm::epilogue::Epilogue;
use crate::kernel::gemm::row_sums::RowSumsContext;
use crate::kernel::print::store::Stores;

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
    /// Whether results pass through shared memory instead of sums, their type there, and what stores a vector of them.
    narrow: bool,
    result: &'static str,
    copied: String,
    /// Vectors of results that a thread reads before it stores them.
    copies: usize,
}

impl Plan<'_> {
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
                slab_rows: self.shape.rows_at_once(),
                slab: self.shape.slab,
                slabs_at: self.shape.slabs_at(),
                width: self.width,
                piece: self.width.min(PIECE),
                epilogue: epilogue.text(self.spec, ahead.early(), 5 + usize::from(self.shape.narrow))?,
                ..self.copied()?
            },
        })
    }

    /// How results that have passed through shared memory are stored.
    fn copied(&self) -> Result<FinishContext, KernelError> {
        if !self.shape.narrow {
            return Ok(FinishContext::default());
        }
        let epilogue = self.epilogue();
        let (result, copied) = epilogue.copied(self.spec, 5)?;
        Ok(FinishContext {
            narrow: true,
            result,
            copied,
            // Streaming stores keep their order, so that addresses of many take registers.
            copies: match epilogue.stores {
                Stores::Cached => 4,
                Stores::Streamed => 2,
            },
            ..FinishContext::default()
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
