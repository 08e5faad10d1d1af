//! What the template is told, by subject.

use serde::Serialize;

use super::cuts::{Cuts, Mode};
use super::shape::Shape;
use crate::kernel::error::KernelError;
use crate::kernel::gemm::contraction::Side;
use crate::kernel::gemm::element::TypesContext;
use crate::kernel::gemm::epilogue::{Early, Epilogue, Held};
use crate::kernel::gemm::operand::{Along, Cut};
use crate::kernel::gemm::parts::{Blocking, register_limit};
use crate::kernel::gemm::row_sums::{self, RowSumsContext};
use crate::kernel::gemm::scale;
use crate::kernel::print::expr::Operand;
use crate::kernel::spec::KernelSpec;
use crate::tile::ExprId;

#[derive(Clone, Debug, Default, Serialize)]
pub struct GemmMmaContext {
    pub name: String,
    pub params: Vec<String>,
    /// Whether later kernels may begin while this one is at work.
    pub releases: bool,
    #[serde(flatten)]
    pub own: OwnContext,
}

/// All that follows from the problem and its shape.
#[derive(Clone, Debug, Default, Serialize)]
pub struct OwnContext {
    #[serde(flatten)]
    types: TypesContext,
    #[serde(flatten)]
    tiles: TilesContext,
    #[serde(flatten)]
    block: BlockContext,
    #[serde(flatten)]
    fetches: FetchesContext,
    #[serde(flatten)]
    row_sums: RowSumsContext,
    #[serde(flatten)]
    finish: FinishContext,
}

/// The product's tiles.
#[derive(Clone, Debug, Default, Serialize)]
struct TilesContext {
    m: usize,
    n: usize,
    tiles_m: usize,
    tiles_n: usize,
    tiles_k: usize,
    splits: usize,
    tickets_bytes: usize,
}

/// A block's threads, and the tile that they multiply.
#[derive(Clone, Debug, Default, Serialize)]
struct BlockContext {
    threads: usize,
    resident: usize,
    stages: usize,
    tile_m: usize,
    tile_n: usize,
    tile_k: usize,
    warp_m: usize,
    warp_n: usize,
}

/// How the operands get to shared memory.
#[derive(Clone, Debug, Default, Serialize)]
struct FetchesContext {
    operands: Vec<OperandContext>,
    /// The operand that is a weight, whose first tiles are asked for before earlier kernels are done; empty where
    /// every read waits for them.
    early: &'static str,
    /// Whether some operand is copied asynchronously, and whether some is not.
    is_async: bool,
    is_staged: bool,
    /// What puts the scale of column `k` of `a` into shared memory; empty where there is none.
    scale: String,
    scale_at: usize,
    depth: usize,
}

/// One side of the product.
#[derive(Clone, Debug, Default, Serialize)]
struct OperandContext {
    name: &'static str,
    letter: &'static str,
    /// `M` or `N`, and the same as a member of the tile's place.
    rows: &'static str,
    axis: &'static str,
    along_k: bool,
    mode: &'static str,
    /// Where the operand's tile begins in a stage, as a further term.
    offset: &'static str,
    swizzle: &'static str,
    fragment: &'static str,
    load: String,
}

/// How sums become results.
#[derive(Clone, Debug, Default, Serialize)]
struct FinishContext {
    /// Sums over neighbouring columns that are results.
    strips: usize,
    width: usize,
    /// Types of what the epilogue reads that no other row does, which is asked for ahead, and the
    /// statements that do.
    asked: Vec<&'static str>,
    asking: String,
    /// Whether the first of it is asked for before the products.
    asks_early: bool,
    /// Types of what the epilogue reads of weights column by column, which a thread holds from the beginning, and
    /// the statements that read it.
    held: Vec<&'static str>,
    holding: String,
    epilogue: String,
}

/// The problem in one shape.
pub struct Plan<'a> {
    pub spec: &'a KernelSpec,
    pub inputs: &'a [Operand],
    pub cuts: &'a Cuts,
    pub shape: Shape,
    pub splits: usize,
    /// Blocks per SM that the compiler is asked for.
    pub resident: usize,
}

impl Plan<'_> {
    pub fn blocking(&self) -> Blocking {
        self.shape.blocking(self.cuts.element, self.splits)
    }

    /// Registers of a thread at most.
    fn limit(&self) -> usize {
        register_limit(self.shape.threads(), self.resident)
    }

    /// # Errors
    /// If an op's text could not be filled in.
    pub fn context(&self) -> Result<OwnContext, KernelError> {
        let Cuts {
            contraction, element, ..
        } = self.cuts;
        let room = self.shape.room_for_parts(self.limit());
        Ok(OwnContext {
            types: TypesContext::new(*element, contraction, self.spec),
            tiles: self.tiles(),
            block: self.block(),
            fetches: self.fetches()?,
            row_sums: RowSumsContext::new(contraction, self.spec, self.shape.tiles_bytes(), room, 4)?,
            finish: self.finish()?,
        })
    }

    fn tiles(&self) -> TilesContext {
        let (blocking, sizes) = (self.blocking(), self.cuts.contraction.sizes);
        let (tiles_m, tiles_n, tiles_k) = blocking.tiles(sizes);
        TilesContext {
            m: sizes.m,
            n: sizes.n,
            tiles_m,
            tiles_n,
            tiles_k,
            splits: self.splits,
            tickets_bytes: blocking.tickets_bytes(sizes),
        }
    }

    fn block(&self) -> BlockContext {
        let Blocking { m, n, k, .. } = self.blocking();
        BlockContext {
            threads: self.shape.threads(),
            resident: self.resident,
            stages: self.shape.stages,
            tile_m: m,
            tile_n: n,
            tile_k: k,
            warp_m: self.shape.warp_m,
            warp_n: self.shape.warp_n,
        }
    }

    fn fetches(&self) -> Result<FetchesContext, KernelError> {
        let (cuts, contraction) = (self.cuts, &self.cuts.contraction);
        let mut operands = Vec::new();
        let mut early = "";
        for side in cuts.sides {
            let (operand, input) = operand_context(self, side)?;
            if input.is_some_and(|input| self.spec.weights.contains(&input)) {
                early = operand.name;
            }
            operands.push(operand);
        }
        let is = |mode| cuts.sides.iter().any(|(_, own)| *own == mode);
        Ok(FetchesContext {
            operands,
            early,
            is_async: is(Mode::Async),
            is_staged: is(Mode::Copy) || is(Mode::Values),
            scale: match cuts.scale {
                Some(scale) => scale::text(contraction, scale, self.spec, 4)?,
                None => String::new(),
            },
            scale_at: self.shape.tiles_bytes() + row_sums::bytes(contraction, self.shape.m),
            depth: contraction.sizes.k,
        })
    }

    fn finish(&self) -> Result<FinishContext, KernelError> {
        let (spec, cuts, shape) = (self.spec, self.cuts, self.shape);
        let (tiles_m, tiles_n, _) = self.blocking().tiles(cuts.contraction.sizes);
        let epilogue = Epilogue::new(
            &cuts.contraction,
            cuts.width,
            tiles_m * shape.m,
            tiles_n * shape.n,
        );
        let (asks, asks_early) = shape.asks(cuts, self.splits, self.limit());
        let asked = if asks {
            epilogue.row_loads(spec)
        } else {
            Vec::new()
        };
        let held = self.held_columns(&epilogue, asks_early);
        let held = Held {
            loads: &held,
            slot: "",
        };
        let early = Early {
            asked: &asked,
            columns: &[],
            held,
        };
        Ok(FinishContext {
            strips: (cuts.contraction.strips.as_ref()).map_or(0, |strips| strips.terms.len()),
            width: cuts.width,
            asked: epilogue.asked_types(&asked),
            asking: epilogue.asking(spec, &asked, "asked", 3)?,
            asks_early,
            held: epilogue.asked_types(held.loads),
            holding: epilogue.holding(spec, held, 2)?,
            epilogue: epilogue.text(spec, early, 4)?,
        })
    }

    /// Loads of columns that a thread holds from the beginning, where registers are left for them.
    fn held_columns(&self, epilogue: &Epilogue, asks_early: bool) -> Vec<ExprId> {
        let (shape, sizes) = (self.shape, self.cuts.contraction.sizes);
        let held = epilogue.weight_columns(self.spec);
        let asked = if asks_early {
            shape.asked_registers(self.cuts)
        } else {
            0
        };
        let registers = shape.registers(self.cuts) + asked + epilogue.asked_bytes(&held) / 4;
        // Without elements there is no column to have before earlier kernels are done.
        if sizes.m * sizes.n == 0 || registers > self.limit() {
            return Vec::new();
        }
        held
    }
}

/// One side of the product, with the input that copies read asynchronously, if they do.
fn operand_context(
    plan: &Plan<'_>,
    (cut, mode): (Cut, Mode),
) -> Result<(OperandContext, Option<usize>), KernelError> {
    let (inputs, element) = (plan.inputs, plan.cuts.element);
    let (name, letter, rows, axis, offset) = match cut.side {
        Side::A => ("a", "A", "M", "m", ""),
        Side::B => ("b", "B", "N", "n", " + kBytesA"),
    };
    let fetch = plan.blocking().fetch(&plan.cuts.contraction, cut);
    let plain = fetch.plain(inputs, element);
    let copied = plain.as_ref().filter(|_| mode == Mode::Async);
    let input = copied.map(|plain| plain.input as usize);
    let load = match (mode, plain) {
        (Mode::Async | Mode::Copy, Some(plain)) => fetch.address(&plain, inputs, 3)?,
        (Mode::Async | Mode::Copy | Mode::Values, _) => {
            fetch.values(inputs, 3, &format!("next_{name}[i].element"), Some(element))?
        }
    };
    let is_words = element.size_bytes() == 4 && cut.along == Along::Row;
    let context = OperandContext {
        name,
        letter,
        rows,
        axis,
        along_k: cut.along == Along::K,
        mode: mode.name(),
        offset,
        swizzle: if is_words {
            "rt_swizzle_words"
        } else {
            "rt_swizzle"
        },
        fragment: match (cut.side, cut.along, is_words) {
            (Side::A, Along::K, _) => "rt_a_along_k",
            (Side::A, Along::Row, false) => "rt_a_along_row",
            (Side::A, Along::Row, true) => "rt_a_words_along_row",
            (Side::B, Along::K, _) => "rt_b_along_k",
            (Side::B, Along::Row, false) => "rt_b_along_row",
            (Side::B, Along::Row, true) => "rt_b_words_along_row",
        },
        load,
    };
    Ok((context, input))
}
