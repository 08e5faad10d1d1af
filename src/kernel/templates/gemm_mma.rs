//! `gemm_mma`: sums of products with the matrix instructions of a warp.
//!
//! 16-bit floats accumulate in `f32`; `f32` itself takes part as TF32 where the options allow
//! it, and 8-bit integers accumulate in 32 bits. An operand that is neighbours in memory, along `k` or along its rows, is copied to
//! shared memory asynchronously; any other is computed in registers on its way there.

use serde::Serialize;

use super::{Template, field_names, fill, half_smem_bytes, halving, knob, may_release, variant};
use crate::ir::DType;
use crate::kernel::body::region::{kernel_name, operands};
use crate::kernel::device::Device;
use crate::kernel::error::KernelError;
use crate::kernel::gemm::contraction::{Contraction, Side};
use crate::kernel::gemm::cost::{LOAD_CLK, STEP_CLK, Tiling, predicted_us, split_choices};
use crate::kernel::gemm::element::{self, Sums};
use crate::kernel::gemm::epilogue::{Early, Epilogue, Held, has_whole_strips, result_width, row_bytes};
use crate::kernel::gemm::operand::{Along, Cut, best_cut, is_plain};
use crate::kernel::gemm::parts::{
    Blocking, epilogue_work, fetch_work, is_oversized, memory_us, parameters, ranked, register_limit,
    resident_blocks, tensors,
};
use crate::kernel::gemm::row_sums::{self, PartsContext};
use crate::kernel::gemm::scale;
use crate::kernel::prelude::{ASYNC_COPY, COMMON, FRAGMENT, MMA, SPLIT, Section, TILE, translation_unit};
use crate::kernel::print::expr::{Operand, index_type};
use crate::kernel::print::types::storage_type;
use crate::kernel::source::{Arch, Source, Variant};
use crate::kernel::spec::KernelSpec;
use crate::tile::ExprId;

pub static TEMPLATE: Template = Template {
    name: "gemm_mma",
    text: include_str!("../../../templates/gemm_mma.cu.tera"),
    variants,
    render,
    fields: || field_names(&GemmMmaContext::default()),
};

#[derive(Clone, Debug, Default, Serialize)]
struct GemmMmaContext {
    name: String,
    /// Whether later kernels may begin while this one is at work.
    releases: bool,
    params: Vec<String>,
    index_type: &'static str,
    element: &'static str,
    /// Types of the instructions' sums, and of what the epilogue takes them as.
    sum: &'static str,
    value: &'static str,
    /// What loads the one as the other.
    load: &'static str,
    m: usize,
    n: usize,
    tiles_m: usize,
    tiles_n: usize,
    tiles_k: usize,
    splits: usize,
    threads: usize,
    resident: usize,
    stages: usize,
    tile_m: usize,
    tile_n: usize,
    tile_k: usize,
    warp_m: usize,
    warp_n: usize,
    tickets_bytes: usize,
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
    /// Sums beside the product, where they lie in shared memory, and what an element adds.
    row_sums: usize,
    rows_at: usize,
    row_terms: String,
    /// In place of that, what reads parts that an earlier kernel stored.
    parts: Option<PartsContext>,
    /// Sums over neighbouring columns that are results.
    strips: usize,
    /// What stores the results that have one number per row.
    row_stores: String,
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

/// How an operand gets to shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// 16 bytes at a time, asynchronously.
    Async,
    /// 16 bytes at a time, through registers.
    Copy,
    /// As an expression.
    Values,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Async => "async",
            Mode::Copy => "copy",
            Mode::Values => "values",
        }
    }
}

/// A tile, the part of it that a warp owns, and how many are in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    m: usize,
    n: usize,
    /// In bytes, so that it is the same for all kinds.
    k_bytes: usize,
    warp_m: usize,
    warp_n: usize,
    stages: usize,
}

const fn shape(m: usize, n: usize, k_bytes: usize, warp: (usize, usize), stages: usize) -> Shape {
    Shape {
        m,
        n,
        k_bytes,
        warp_m: warp.0,
        warp_n: warp.1,
        stages,
    }
}

/// Large tiles reuse most, small ones fill the device, flat ones waste least where one side
/// has few rows.
const SHAPES: &[Shape] = &[
    shape(256, 128, 64, (64, 64), 3),
    shape(128, 256, 64, (64, 64), 3),
    shape(128, 128, 64, (64, 32), 4),
    shape(128, 128, 128, (64, 32), 3),
    shape(128, 128, 64, (64, 64), 4),
    shape(128, 64, 64, (64, 32), 4),
    shape(64, 128, 64, (32, 64), 4),
    shape(128, 64, 128, (32, 32), 3),
    shape(64, 128, 128, (32, 32), 3),
    shape(64, 64, 64, (32, 32), 4),
    shape(64, 64, 128, (32, 32), 4),
    shape(128, 32, 128, (32, 32), 4),
    shape(32, 128, 128, (32, 32), 4),
    shape(64, 32, 128, (32, 16), 4),
    shape(32, 64, 128, (16, 32), 4),
    shape(32, 32, 128, (16, 16), 5),
    shape(16, 128, 128, (16, 32), 4),
    shape(128, 16, 128, (32, 16), 4),
    shape(16, 64, 128, (16, 16), 5),
    shape(64, 16, 128, (16, 16), 5),
];

const MOST_VARIANTS: usize = 20;
/// Bytes of one asynchronous copy.
const CHUNK_BYTES: usize = 16;

impl Shape {
    fn threads(self) -> usize {
        (self.m / self.warp_m) * (self.n / self.warp_n) * 32
    }

    /// Depth in elements.
    fn k(self, element: DType) -> usize {
        self.k_bytes / element.size_bytes()
    }

    /// Without asynchronous copies, more than two stages only cost memory.
    fn on(self, arch: Arch) -> Shape {
        let stages = if has_async_copy(arch) { self.stages } else { 2 };
        Shape { stages, ..self }
    }

    /// With all steps of a block in flight, as far as half of an SM's shared memory goes, or no more stages than it
    /// needs for that. What is not copied asynchronously is one step ahead, whatever the number of stages.
    fn deepened(self, steps: usize, cuts: &Cuts, arch: Arch) -> Shape {
        const LEAST: usize = 2;
        let is_copied = cuts.sides.iter().all(|(_, mode)| *mode == Mode::Async);
        if !is_copied {
            return self;
        }
        let room = half_smem_bytes(arch).saturating_sub(cuts.extra_bytes(self));
        let fitting = room / ((self.m + self.n) * self.k_bytes);
        Shape {
            stages: self.stages.max(fitting).min((steps + 1).max(LEAST)),
            ..self
        }
    }

    /// Operand tiles in flight; the sums of 16 rows per warp take their place afterwards.
    fn tiles_bytes(self) -> usize {
        let operands = self.stages * (self.m + self.n) * self.k_bytes;
        let slabs = self.threads() / 32 * 16 * (self.warp_n + 8) * 4;
        operands.max(slabs)
    }

    /// Vectors of results that a thread finishes of 16 rows.
    fn items(self, cuts: &Cuts) -> usize {
        (16 * self.warp_n / cuts.width).div_ceil(32)
    }

    /// Registers of what a thread asks for of 16 rows.
    fn asked_registers(self, cuts: &Cuts) -> usize {
        (cuts.row_bytes * self.items(cuts)).div_ceil(4)
    }

    /// Rows of a tile that eight threads share, and sums and registers of a thread that has `limit` of those.
    fn room_for_parts(self, limit: usize) -> (usize, usize, usize) {
        let rows = (self.m * 8).div_ceil(self.threads());
        (rows, self.warp_m * self.warp_n / 32, limit)
    }

    /// Whether what only one row reads is asked for 16 rows ahead, and whether the first of it before the
    /// products, beside whose sums there must be room. What adds up the sums of `splits` blocks leaves none.
    fn asks(self, cuts: &Cuts, splits: usize, limit: usize) -> (bool, bool) {
        const MOST_REGISTERS: usize = 32;
        let own = self.asked_registers(cuts);
        let asks = own > 0 && 2 * own <= MOST_REGISTERS && splits == 1;
        (asks, asks && self.registers(cuts) + own <= limit)
    }

    /// Registers of a thread beside what it asks for, estimated.
    fn registers(self, cuts: &Cuts) -> usize {
        const OTHERS: usize = 56;
        let sums = self.warp_m * self.warp_n / 32;
        let fragments = self.warp_m / 4 + self.warp_n / 4;
        let staged: usize = (cuts.sides.iter().zip([self.m, self.n]))
            .filter(|((_, mode), _)| *mode != Mode::Async)
            .map(|(_, rows)| (rows * self.k_bytes / CHUNK_BYTES).div_ceil(self.threads()) * 4)
            .sum();
        sums + fragments + staged + OTHERS
    }

    fn smem_bytes(self, cuts: &Cuts) -> usize {
        self.tiles_bytes() + cuts.extra_bytes(self)
    }

    /// `k` up to the end of the last tile.
    fn covered_depth(self, cuts: &Cuts) -> usize {
        let k = self.k(cuts.element);
        cuts.contraction.sizes.k.next_multiple_of(k)
    }

    fn blocking(self, element: DType, splits: usize) -> Blocking {
        Blocking {
            m: self.m,
            n: self.n,
            k: self.k(element),
            splits,
        }
    }

    fn of(variant: &Variant, element: DType) -> Result<(Shape, usize), KernelError> {
        let knob = |name| knob(&TEMPLATE, variant, name);
        let k_bytes = knob("tile_k")? * element.size_bytes();
        let warp = (knob("warp_m")?, knob("warp_n")?);
        let shape = shape(knob("tile_m")?, knob("tile_n")?, k_bytes, warp, knob("stages")?);
        Ok((shape, knob("splits")?))
    }
}

fn has_async_copy(arch: Arch) -> bool {
    arch.sm >= 80
}

/// How operands and results are cut for an arch.
struct Cuts {
    /// The product, its `a` without what scales it.
    contraction: Contraction,
    /// What the columns of `a` are multiplied by in registers.
    scale: Option<ExprId>,
    element: DType,
    sides: [(Cut, Mode); 2],
    width: usize,
    /// Bytes that a vector of results takes of tensors that no other row reads.
    row_bytes: usize,
}

impl Cuts {
    /// The rows of `a` are scaled in registers where they can then be copied as they are.
    fn of(contraction: Contraction, spec: &KernelSpec, inputs: &[Operand], arch: Arch) -> Option<Cuts> {
        if let Some((rows, scale)) = contraction.scaled_rows() {
            let plain = Contraction {
                a: rows,
                ..contraction.clone()
            };
            let cuts = Cuts::unscaled(plain, spec, inputs, arch)?;
            let (cut, mode) = cuts.sides[0];
            if mode != Mode::Values && cut.along == Along::K && cuts.element.size_bytes() == 2 {
                let scale = Some(scale);
                return Some(Cuts { scale, ..cuts });
            }
        }
        Cuts::unscaled(contraction, spec, inputs, arch)
    }

    fn unscaled(contraction: Contraction, spec: &KernelSpec, inputs: &[Operand], arch: Arch) -> Option<Cuts> {
        let mut elements = element::of_warps(&contraction, spec, arch).into_iter();
        elements.find_map(|element| Cuts::in_kind(element, contraction.clone(), spec, inputs, arch))
    }

    fn in_kind(
        element: DType,
        contraction: Contraction,
        spec: &KernelSpec,
        inputs: &[Operand],
        arch: Arch,
    ) -> Option<Cuts> {
        let chunk = CHUNK_BYTES / element.size_bytes();
        let sides = [Side::A, Side::B].map(|side| {
            let cut = best_cut(&contraction, side, inputs, (chunk, chunk));
            let plain = is_plain(&contraction, cut, inputs, element);
            let mode = match (plain, has_async_copy(arch)) {
                (true, true) => Mode::Async,
                (true, false) => Mode::Copy,
                (false, _) => Mode::Values,
            };
            (cut, mode)
        });
        let lie_along_k = sides.map(|(cut, _)| cut.along == Along::K);
        // Instructions transpose 16 bits, and sums of rows are taken from tiles of floats whose rows
        // lie along k.
        let is_byte = element.size_bytes() == 1;
        if is_byte && lie_along_k != [true; 2] {
            return None;
        }
        if !contraction.row_sums.terms.is_empty() && (is_byte || !lie_along_k[0]) {
            return None;
        }
        let width = result_width(&contraction, spec)?;
        Some(Cuts {
            width,
            row_bytes: row_bytes(&contraction, width, spec),
            contraction,
            scale: None,
            element,
            sides,
        })
    }

    /// Bytes behind the tiles: sums of rows, then what columns are scaled by.
    fn extra_bytes(&self, shape: Shape) -> usize {
        let sums = row_sums::bytes(&self.contraction, shape.m);
        match self.scale {
            None => sums,
            Some(_) => sums + shape.covered_depth(self) * self.element.size_bytes(),
        }
    }
}

fn variants(spec: &KernelSpec, arch: Arch) -> Vec<Variant> {
    let Some(contraction) = Contraction::with_row_sums(spec) else {
        return Vec::new();
    };
    let inputs = operands(spec);
    let Some(cuts) = Cuts::of(contraction, spec, &inputs, arch) else {
        return Vec::new();
    };
    let contraction = &cuts.contraction;
    let (device, moved_us, sizes) = (Device::of(arch), memory_us(spec, arch), contraction.sizes);
    let per_element = cuts
        .sides
        .map(|(cut, mode)| fetch_work(contraction, cut, mode != Mode::Values));
    let mut found = Vec::new();
    for shape in SHAPES.iter().map(|shape| shape.on(arch)) {
        if is_oversized(shape.m, sizes.m, 64) || is_oversized(shape.n, sizes.n, 64) {
            continue;
        }
        if !has_whole_strips(contraction, cuts.width, shape.warp_n) {
            continue;
        }
        let k = shape.k(cuts.element);
        let (tiles_m, tiles_n, steps) = shape.blocking(cuts.element, 1).tiles(sizes);
        let tiles = tiles_m * tiles_n * sizes.batch;
        let resident = resident(contraction, shape, &cuts);
        for splits in split_choices(sizes, (shape.m, shape.n, k), device) {
            // Blocks that share a tile would have to share its sums of rows, too.
            if splits > 1 && !contraction.row_sums.terms.is_empty() {
                break;
            }
            let is_alone = tiles * splits <= device.n_sms as usize;
            let shape = if is_alone {
                shape.deepened(steps.div_ceil(splits), &cuts, arch)
            } else {
                shape
            };
            let tiling = tiling(contraction, shape, &cuts, splits, (per_element, arch));
            if let Some(us) = predicted_us(sizes, &tiling, moved_us, device) {
                let knobs = [
                    ("tile_m", shape.m),
                    ("tile_n", shape.n),
                    ("tile_k", k),
                    ("warp_m", shape.warp_m),
                    ("warp_n", shape.warp_n),
                    ("stages", shape.stages),
                    ("splits", splits),
                    ("resident", resident),
                ];
                found.push(variant(TEMPLATE.name, &knobs, us).with_registers(tiling.registers));
            }
        }
    }
    ranked(found, MOST_VARIANTS)
}

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
fn resident(contraction: &Contraction, shape: Shape, cuts: &Cuts) -> usize {
    let sums = shape.warp_m * shape.warp_n / 32;
    let is_lean = cuts.element != DType::F32 && cuts.sides.iter().all(|(_, mode)| *mode == Mode::Async);
    if is_lean {
        resident_blocks(contraction, shape.threads(), sums)
    } else {
        1
    }
}

#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
fn tiling(
    contraction: &Contraction,
    shape: Shape,
    cuts: &Cuts,
    splits: usize,
    (per_element, arch): ([f64; 2], Arch),
) -> Tiling {
    let (threads, k) = (shape.threads(), shape.k(cuts.element));
    let limit = register_limit(threads, resident(contraction, shape, cuts));
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
            + row_sums::work(contraction, shape.m * k)
            + scale_work(shape, cuts, k),
        epilogue_work: (shape.m * shape.n) as f64
            * (epilogue_work(contraction) + 12.0 / cuts.width as f64)
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

#[expect(clippy::too_many_lines, reason = "one field of the template after the other")]
fn render(spec: &KernelSpec, variant: &Variant, arch: Arch) -> Result<Source, KernelError> {
    let not_accepted = || KernelError::NotAccepted {
        template: TEMPLATE.name,
        reason: "it is not one sum of products that a matrix instruction computes".to_owned(),
    };
    let contraction = Contraction::with_row_sums(spec).ok_or_else(not_accepted)?;
    let inputs = operands(spec);
    let cuts = Cuts::of(contraction, spec, &inputs, arch).ok_or_else(not_accepted)?;
    let contraction = &cuts.contraction;
    let (shape, splits) = Shape::of(variant, cuts.element)?;
    let (blocking, sizes) = (shape.blocking(cuts.element, splits), contraction.sizes);
    let workspace_bytes = blocking.workspace_bytes(sizes, 4);
    let (params, passed) = parameters(spec, workspace_bytes);
    let (tiles_m, tiles_n, tiles_k) = blocking.tiles(sizes);
    let name = kernel_name(spec, TEMPLATE.name, &tile_name(shape, blocking));
    let epilogue = Epilogue::new(contraction, cuts.width, tiles_m * shape.m, tiles_n * shape.n);
    let resident: usize = knob(&TEMPLATE, variant, "resident")?;
    let limit = register_limit(shape.threads(), resident);
    let (asks, asks_early) = shape.asks(&cuts, splits, limit);
    let asked = if asks {
        epilogue.row_loads(spec)
    } else {
        Vec::new()
    };
    let mut held = epilogue.weight_columns(spec);
    let asked_early = if asks_early {
        shape.asked_registers(&cuts)
    } else {
        0
    };
    let registers = shape.registers(&cuts) + asked_early + epilogue.asked_bytes(&held) / 4;
    // Without elements there is no column to have before earlier kernels are done.
    if sizes.m * sizes.n == 0 || registers > limit {
        held.clear();
    }
    let held = Held {
        loads: &held,
        slot: "",
    };
    let asked_ahead = Early {
        asked: &asked,
        columns: &[],
        held,
    };
    let mut operands = Vec::new();
    let mut early = "";
    for side in cuts.sides {
        let (operand, input) = operand_context(contraction, blocking, side, &inputs, cuts.element)?;
        if input.is_some_and(|input| spec.weights.contains(&input)) {
            early = operand.name;
        }
        operands.push(operand);
    }
    let Sums { sum, value, load, .. } = element::sums(cuts.element, contraction);
    let launch = halving(
        blocking.launch(sizes, shape.threads(), shape.smem_bytes(&cuts)),
        arch,
        spec.options,
    );
    let is = |mode| cuts.sides.iter().any(|(_, own)| *own == mode);
    let text = fill(
        &TEMPLATE,
        &GemmMmaContext {
            name: name.clone(),
            releases: may_release(&launch, arch, spec.options),
            params,
            index_type: index_type(&tensors(spec)),
            element: storage_type(cuts.element),
            sum,
            value,
            load,
            m: sizes.m,
            n: sizes.n,
            tiles_m,
            tiles_n,
            tiles_k,
            splits,
            threads: shape.threads(),
            resident,
            stages: shape.stages,
            tile_m: shape.m,
            tile_n: shape.n,
            tile_k: blocking.k,
            warp_m: shape.warp_m,
            warp_n: shape.warp_n,
            tickets_bytes: blocking.tickets_bytes(sizes),
            operands,
            early,
            is_async: is(Mode::Async),
            is_staged: is(Mode::Copy) || is(Mode::Values),
            scale: match cuts.scale {
                Some(scale) => scale::text(contraction, scale, spec, 4)?,
                None => String::new(),
            },
            scale_at: shape.tiles_bytes() + row_sums::bytes(contraction, shape.m),
            depth: sizes.k,
            row_sums: contraction.row_sums.len(),
            rows_at: shape.tiles_bytes(),
            row_terms: row_sums::terms(contraction, spec, 4)?,
            parts: row_sums::parts(contraction, spec, shape.room_for_parts(limit), 4),
            strips: contraction.strips.as_ref().map_or(0, |strips| strips.terms.len()),
            row_stores: row_sums::stores(contraction, spec, 3)?,
            width: cuts.width,
            asked: epilogue.asked_types(&asked),
            asking: epilogue.asking(spec, &asked, "asked", 3)?,
            asks_early,
            held: epilogue.asked_types(held.loads),
            holding: epilogue.holding(spec, held, 2)?,
            epilogue: epilogue.text(spec, asked_ahead, 4)?,
        },
    )?;
    Ok(Source {
        name,
        header: String::new(),
        text: translation_unit(&sections(arch), &text),
        template: TEMPLATE.name,
        launch,
        params: passed,
        workspace_bytes,
    })
}

fn tile_name(shape: Shape, blocking: Blocking) -> String {
    let Blocking { m, n, k, splits } = blocking;
    let tile = format!("{m}x{n}x{k}_{}x{}_p{}", shape.warp_m, shape.warp_n, shape.stages);
    if splits > 1 {
        format!("{tile}_s{splits}")
    } else {
        tile
    }
}

fn sections(arch: Arch) -> Vec<Section> {
    let copy: &[Section] = if has_async_copy(arch) { &[ASYNC_COPY] } else { &[] };
    [COMMON, &[TILE, SPLIT, MMA], copy, &[FRAGMENT]].concat()
}

/// With the input that copies read asynchronously, if they do.
fn operand_context(
    contraction: &Contraction,
    blocking: Blocking,
    (cut, mode): (Cut, Mode),
    inputs: &[Operand],
    element: DType,
) -> Result<(OperandContext, Option<usize>), KernelError> {
    let (name, letter, rows, axis, offset) = match cut.side {
        Side::A => ("a", "A", "M", "m", ""),
        Side::B => ("b", "B", "N", "n", " + kBytesA"),
    };
    let fetch = blocking.fetch(contraction, cut);
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
