//! `gemm_wgmma`: sums of products with the matrix instructions of four warps at once (`sm_90a`).
//!
//! Both operands are plain tensors, or the images and filters of a convolution, whole tiles of
//! which the copy engine brings to shared memory: one group of warps asks for them, the others multiply and finish. Blocks stay and
//! take several tiles, so that copies for the next tile go on while one is finished.

use serde::Serialize;

use super::{Template, field_names, fill, gemm_mma, knob, variant};
use crate::ir::tiled_view::TILE_ROW_BYTES;
use crate::ir::{DType, TiledView};
use crate::kernel::body::region::{kernel_name, operands};
use crate::kernel::device::Device;
use crate::kernel::error::KernelError;
use crate::kernel::gemm::contraction::{Contraction, Side, Sizes};
use crate::kernel::gemm::cost::{Tiling, predicted_us, split_choices};
use crate::kernel::gemm::epilogue::{Epilogue, best_width};
use crate::kernel::gemm::images::Images;
use crate::kernel::gemm::operand::Along;
use crate::kernel::gemm::parts::{
    Blocking, epilogue_work, is_oversized, memory_bytes, parameters, ranked, register_limit, tensors,
};
use crate::kernel::gemm::tiled::Tiled;
use crate::kernel::prelude::{COMMON, MBARRIER, SPLIT, Section, TENSOR_COPY, TILE, WGMMA, translation_unit};
use crate::kernel::print::expr::index_type;
use crate::kernel::print::types::storage_type;
use crate::kernel::source::{Arch, Launch, Param, Source, Variant};
use crate::kernel::spec::KernelSpec;

pub static TEMPLATE: Template = Template {
    name: "gemm_wgmma",
    text: include_str!("../../../templates/gemm_wgmma.cu.tera"),
    variants,
    render,
    fields: || field_names(&GemmWgmmaContext::default()),
};

#[derive(Clone, Debug, Default, Serialize)]
struct GemmWgmmaContext {
    name: String,
    params: Vec<String>,
    index_type: &'static str,
    element: &'static str,
    m: usize,
    n: usize,
    tiles_m: usize,
    tiles_n: usize,
    /// Of all batches and splits.
    tiles: usize,
    /// Over `k`, for one tile.
    steps: usize,
    splits: usize,
    /// A block's steps of a tile; `begin` is the first one where it is known.
    first_step: &'static str,
    last_step: &'static str,
    begin: &'static str,
    tickets_bytes: usize,
    threads: usize,
    resident: usize,
    stages: usize,
    consumers: usize,
    /// Whether each group of warps has tiles of its own.
    taking_turns: bool,
    tile_m: usize,
    tile_n: usize,
    tile_k: usize,
    /// Elements along `k` of one instruction.
    depth: usize,
    /// Registers that copying threads keep and multiplying ones take; 0 where all have the same.
    released: usize,
    claimed: usize,
    operands: Vec<OperandContext>,
    /// Where rows are pixels.
    conv: Option<ConvContext>,
    /// Columns of a warp that pass through shared memory at a time, and where.
    slab: usize,
    slabs_at: usize,
    width: usize,
    epilogue: String,
}

/// One side of the product.
#[derive(Clone, Debug, Default, Serialize)]
struct OperandContext {
    name: &'static str,
    /// `M` or `N`, and the same as a member of the tile's place.
    rows: &'static str,
    axis: &'static str,
    along_k: bool,
    /// `place.batch`, or `0` where all batches read the same.
    batch: &'static str,
    /// 1 where rows in shared memory hold one k each.
    across: usize,
    /// Bytes between tiles of 128 bytes of rows; of no meaning along k.
    block_bytes: usize,
    /// Bytes from one instruction's part of a tile to the next one's.
    step_bytes: usize,
}

/// Along x and along y, which are those of the images.
#[derive(Clone, Debug, Default, Serialize)]
struct ConvContext {
    /// Tiles along the channels of one tap.
    chunks: usize,
    taps_x: usize,
    out_x: usize,
    out_y: usize,
    stride_x: usize,
    stride_y: usize,
    pad_x: i64,
    pad_y: i64,
    dilation_x: usize,
    dilation_y: usize,
}

/// A tile, and who computes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    m: usize,
    n: usize,
    /// Groups of warps that multiply, each its own rows, or its own tiles in turns.
    consumers: usize,
    taking_turns: bool,
    stages: usize,
    /// Columns of a warp's sums that are in shared memory at a time.
    slab: usize,
    /// Blocks per SM.
    resident: usize,
    /// Blocks per tile.
    splits: usize,
}

const fn shape(m: usize, n: usize, consumers: usize, stages: usize, slab: usize, resident: usize) -> Shape {
    Shape {
        m,
        n,
        consumers,
        taking_turns: false,
        stages,
        slab,
        resident,
        splits: 1,
    }
}

/// Two groups of warps take turns: one finishes its tile while the other multiplies.
const fn turns(m: usize, n: usize, stages: usize, slab: usize) -> Shape {
    Shape {
        taking_turns: true,
        ..shape(m, n, 2, stages, slab, 1)
    }
}

/// Large tiles reuse most; groups that take turns, and two blocks of small ones hide each other's epilogues.
const SHAPES: &[Shape] = &[
    shape(128, 256, 2, 4, 32, 1),
    shape(256, 128, 2, 4, 32, 1),
    shape(128, 192, 2, 4, 64, 1),
    shape(128, 128, 2, 5, 64, 1),
    shape(128, 64, 2, 6, 64, 1),
    shape(256, 64, 2, 4, 64, 1),
    shape(64, 256, 1, 4, 64, 1),
    shape(64, 128, 1, 4, 32, 2),
    shape(64, 64, 1, 6, 32, 2),
    turns(128, 128, 5, 64),
    turns(64, 256, 4, 64),
    turns(128, 64, 6, 64),
    turns(64, 128, 6, 64),
];

/// Registers per thread of copying and of multiplying threads, where three groups share what
/// the launch has for 168 each.
const RELEASED: usize = 40;
const CLAIMED: usize = 232;
/// Warp groups, and rows that one of their instructions multiplies.
const GROUP: usize = 128;
const BLOCK_ROWS: usize = 64;
/// Bytes along `k` of one instruction.
const DEPTH_BYTES: usize = 32;
/// What tiles in shared memory are aligned to.
const SWIZZLE_BYTES: usize = 1024;

impl Shape {
    fn threads(self) -> usize {
        (self.consumers + 1) * GROUP
    }

    fn k(element: DType) -> usize {
        TILE_ROW_BYTES / element.size_bytes()
    }

    /// Two barriers per stage follow the tiles; what comes next is for the sums.
    fn slabs_at(self) -> usize {
        let tiles = self.stages * (self.m + self.n) * TILE_ROW_BYTES;
        (tiles + self.stages * 16).next_multiple_of(128)
    }

    fn smem_bytes(self) -> usize {
        let slabs = self.consumers * 4 * 16 * (self.slab + 8) * 4;
        (self.slabs_at() + slabs).next_multiple_of(SWIZZLE_BYTES)
    }

    /// Registers that warps exchange.
    fn exchanged(self) -> (usize, usize) {
        if self.consumers > 1 {
            (RELEASED, CLAIMED)
        } else {
            (0, 0)
        }
    }

    fn blocking(self, element: DType) -> Blocking {
        Blocking {
            m: self.m,
            n: self.n,
            k: Shape::k(element),
            splits: self.splits,
        }
    }

    fn launch(self, blocking: Blocking, sizes: Sizes, arch: Arch) -> Launch {
        let mut launch = blocking.launch(sizes, self.threads(), self.smem_bytes());
        let slots = Device::of(arch).n_sms as usize * self.resident;
        launch.grid[0] = launch.grid[0].min(u32::try_from(slots).expect("devices have few SMs"));
        launch
    }

    /// Bytes of a ticket per warp of each tile, which lie before the partial sums.
    fn tickets_bytes(self, n_tiles: usize) -> usize {
        (n_tiles * self.consumers * 4 * 4).next_multiple_of(256)
    }

    fn workspace_bytes(self, n_tiles: usize) -> usize {
        if self.splits == 1 {
            return 0;
        }
        self.tickets_bytes(n_tiles) + n_tiles * self.splits * self.m * self.n * 4
    }

    fn knobs(self) -> [(&'static str, usize); 8] {
        [
            ("tile_m", self.m),
            ("tile_n", self.n),
            ("consumers", self.consumers),
            ("turns", usize::from(self.taking_turns)),
            ("stages", self.stages),
            ("slab", self.slab),
            ("resident", self.resident),
            ("splits", self.splits),
        ]
    }

    fn of(variant: &Variant) -> Result<Shape, KernelError> {
        let knob = |name| knob(&TEMPLATE, variant, name);
        Ok(Shape {
            m: knob("tile_m")?,
            n: knob("tile_n")?,
            consumers: knob("consumers")?,
            taking_turns: knob("turns")? == 1,
            stages: knob("stages")?,
            slab: knob("slab")?,
            resident: knob("resident")?,
            splits: knob("splits")?,
        })
    }
}

/// How the operands are read.
enum Reading {
    /// Each as a matrix, or one per batch.
    Plain([Tiled; 2]),
    /// As images and filters.
    Images(Images),
}

impl Reading {
    fn of(spec: &KernelSpec, contraction: &Contraction, element: DType) -> Option<Reading> {
        let inputs = operands(spec);
        let tiled = |side| Tiled::of(contraction, side, &inputs, element);
        match (tiled(Side::A), tiled(Side::B)) {
            (Some(a), Some(b)) => Some(Reading::Plain([a, b])),
            _ => Images::of(spec, contraction, element).map(Reading::Images),
        }
    }

    /// Tiles along `k`.
    fn steps(&self, blocking: Blocking, sizes: Sizes) -> usize {
        match self {
            Reading::Plain(_) => blocking.tiles(sizes).2,
            Reading::Images(images) => images.n_taps() * images.chunks(),
        }
    }

    /// Input number and tensor map of both operands.
    fn views(&self, shape: Shape) -> [(usize, TiledView); 2] {
        match self {
            Reading::Plain([a, b]) => [(a.input, a.view(shape.m)), (b.input, b.view(shape.n))],
            Reading::Images(images) => [
                (images.image, images.pixels(shape.m)),
                (images.filter, images.filters(shape.n)),
            ],
        }
    }

    fn operands(&self, element: DType) -> Vec<OperandContext> {
        let [a, b] = match self {
            Reading::Plain(sides) => sides.map(|side| (side.along, side.is_batched)),
            Reading::Images(_) => [(Along::K, false); 2],
        };
        vec![
            operand_context(Side::A, a, element),
            operand_context(Side::B, b, element),
        ]
    }

    fn conv(&self) -> Option<ConvContext> {
        let Reading::Images(images) = self else {
            return None;
        };
        let [x, y] = images.axes;
        Some(ConvContext {
            chunks: images.chunks(),
            taps_x: x.kernel,
            out_x: x.output,
            out_y: y.output,
            stride_x: x.stride,
            stride_y: y.stride,
            pad_x: x.pad,
            pad_y: y.pad,
            dilation_x: x.dilation,
            dilation_y: y.dilation,
        })
    }
}

/// The product with both operands in memory.
struct Problem {
    contraction: Contraction,
    element: DType,
    reading: Reading,
    width: usize,
}

impl Problem {
    fn of(spec: &KernelSpec, arch: Arch) -> Option<Problem> {
        if (arch.sm, arch.specific) != (90, true) {
            return None;
        }
        let contraction = Contraction::of(spec)?;
        let Sizes { batch, m, n, k } = contraction.sizes;
        let element = gemm_mma::element(&contraction, spec, arch)?;
        if batch * m * n * k == 0 || element.size_bytes() != 2 {
            return None;
        }
        let reading = Reading::of(spec, &contraction, element)?;
        let least = spec.output_types().iter().map(|ty| ty.dtype.size_bytes()).min()?;
        Some(Problem {
            width: best_width(&contraction, (16 / least).clamp(4, 8)),
            contraction,
            element,
            reading,
        })
    }
}

fn variants(spec: &KernelSpec, arch: Arch) -> Vec<Variant> {
    let Some(problem) = Problem::of(spec, arch) else {
        return Vec::new();
    };
    let (device, sizes) = (Device::of(arch), problem.contraction.sizes);
    let k = Shape::k(problem.element);
    let mut found = Vec::new();
    for &shape in SHAPES {
        if is_oversized(shape.m, sizes.m, BLOCK_ROWS) || is_oversized(shape.n, sizes.n, BLOCK_ROWS) {
            continue;
        }
        // What a copy brings is multiplied, zeros behind the channels of a tap too.
        let steps = problem.reading.steps(shape.blocking(problem.element), sizes);
        let padded = Sizes {
            k: steps * k,
            ..sizes
        };
        let choices = split_choices(padded, (shape.m, shape.n, k), device);
        let own = |splits: usize| {
            let shape = Shape { splits, ..shape };
            let us = predicted_us(
                padded,
                &tiling(&problem, shape, device),
                memory_bytes(spec),
                device,
            )?;
            Some(variant(TEMPLATE.name, &shape.knobs(), us))
        };
        // A tile by one block, and by as many as are likely to be best.
        // What takes turns passes over as many steps as it takes.
        let may_share = |&splits: &usize| splits > 1 && !shape.taking_turns;
        let shared = choices.into_iter().filter(may_share).filter_map(own);
        found.extend(ranked(shared.collect(), 1));
        found.extend(own(1));
    }
    ranked(found, 2 * SHAPES.len())
}

#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
fn tiling(problem: &Problem, shape: Shape, device: &Device) -> Tiling {
    /// Floating-point operations per clock and SM that power allows for.
    const SUSTAINED: f64 = 4096.0 * 0.8;
    /// Several SMs that ask for a tile at nearly the same time are answered together.
    const JOINT_COPIES: f64 = 1.5;
    let k = Shape::k(problem.element);
    // Every instruction reads all columns.
    let read = (shape.m + shape.n * (shape.m / BLOCK_ROWS)) * TILE_ROW_BYTES;
    let written = (shape.m + shape.n) * TILE_ROW_BYTES;
    // Of groups that take turns, only the last one's epilogue has nothing to hide behind.
    let sizes = problem.contraction.sizes;
    let (tiles_m, tiles_n, _) = shape.blocking(problem.element).tiles(sizes);
    let waves = (tiles_m * tiles_n * sizes.batch).div_ceil(device.n_sms as usize * shape.resident);
    let shown = if shape.taking_turns { waves } else { 1 } as f64;
    Tiling {
        m: shape.m,
        n: shape.n,
        k,
        threads: shape.threads(),
        registers: register_limit(shape.threads(), shape.resident) / 8 * 8,
        smem_bytes: shape.smem_bytes(),
        stages: shape.stages,
        splits: shape.splits,
        math_clk: (2 * shape.m * shape.n * k) as f64 / SUSTAINED,
        smem_clk: (read + written) as f64 / 128.0,
        step_bytes: written as f64 / JOINT_COPIES,
        fetch_work: 0.0,
        epilogue_work: (shape.m * shape.n) as f64
            * (epilogue_work(&problem.contraction) + 12.0 / problem.width as f64)
            / shown,
        // Phases of barriers are waited for while products are in flight.
        step_clk: 0.0,
        stays: true,
    }
}

fn render(spec: &KernelSpec, variant: &Variant, arch: Arch) -> Result<Source, KernelError> {
    let problem = Problem::of(spec, arch).ok_or_else(|| KernelError::NotAccepted {
        template: TEMPLATE.name,
        reason: "it is not one product of 16-bit tensors that copies of tiles can read, on sm_90a".to_owned(),
    })?;
    let shape = Shape::of(variant)?;
    let (blocking, sizes) = (shape.blocking(problem.element), problem.contraction.sizes);
    let (tiles_m, tiles_n, _) = blocking.tiles(sizes);
    let (released, claimed) = shape.exchanged();
    let n_tiles = tiles_m * tiles_n * sizes.batch;
    let workspace_bytes = shape.workspace_bytes(n_tiles);
    let (params, passed) = signature(spec, &problem, shape, workspace_bytes);
    let (first_step, last_step, begin) = if shape.splits > 1 {
        (
            "kSteps * place.split / kSplits",
            "kSteps * (place.split + 1) / kSplits",
            "first_step",
        )
    } else {
        ("0", "kSteps", "0")
    };
    let name = kernel_name(spec, TEMPLATE.name, &tile_name(shape, blocking));
    let epilogue = Epilogue::new(
        &problem.contraction,
        problem.width,
        tiles_m * shape.m,
        tiles_n * shape.n,
    );
    let text = fill(
        &TEMPLATE,
        &GemmWgmmaContext {
            name: name.clone(),
            params,
            index_type: index_type(&tensors(spec)),
            element: storage_type(problem.element),
            m: sizes.m,
            n: sizes.n,
            tiles_m,
            tiles_n,
            tiles: n_tiles * shape.splits,
            steps: problem.reading.steps(blocking, sizes),
            splits: shape.splits,
            first_step,
            last_step,
            begin,
            tickets_bytes: shape.tickets_bytes(n_tiles),
            threads: shape.threads(),
            resident: shape.resident,
            stages: shape.stages,
            consumers: shape.consumers,
            taking_turns: shape.taking_turns,
            tile_m: shape.m,
            tile_n: shape.n,
            tile_k: blocking.k,
            depth: DEPTH_BYTES / problem.element.size_bytes(),
            released,
            claimed,
            operands: problem.reading.operands(problem.element),
            conv: problem.reading.conv(),
            slab: shape.slab,
            slabs_at: shape.slabs_at(),
            width: problem.width,
            epilogue: epilogue.text(spec, 5)?,
        },
    )?;
    Ok(Source {
        name,
        header: String::new(),
        text: translation_unit(&sections(), &text),
        template: TEMPLATE.name,
        launch: shape.launch(blocking, sizes, arch),
        params: passed,
        workspace_bytes,
    })
}

fn sections() -> Vec<Section> {
    [COMMON, &[TILE, SPLIT, MBARRIER, TENSOR_COPY, WGMMA]].concat()
}

/// The region's signature, and both operands as tiles of them are copied.
fn signature(
    spec: &KernelSpec,
    problem: &Problem,
    shape: Shape,
    workspace_bytes: usize,
) -> (Vec<String>, Vec<Param>) {
    let (mut declared, mut passed) = parameters(spec, workspace_bytes);
    for (name, (input, view)) in ["a", "b"].into_iter().zip(problem.reading.views(shape)) {
        declared.push(format!("RT_TENSOR_MAP map_{name}"));
        passed.push(Param::TensorMap { input, view });
    }
    (declared, passed)
}

fn tile_name(shape: Shape, blocking: Blocking) -> String {
    let Blocking { m, n, k, splits } = blocking;
    let groups = if shape.taking_turns { "t" } else { "c" };
    let tile = format!("{m}x{n}x{k}_{groups}{}_p{}", shape.consumers, shape.stages);
    if splits > 1 {
        format!("{tile}_s{splits}")
    } else {
        tile
    }
}

fn operand_context(side: Side, (along, is_batched): (Along, bool), element: DType) -> OperandContext {
    let (name, rows, axis) = match side {
        Side::A => ("a", "M", "m"),
        Side::B => ("b", "N", "n"),
    };
    let depth = DEPTH_BYTES / element.size_bytes();
    let (across, block_bytes, step_bytes) = match along {
        Along::K => (0, 16, DEPTH_BYTES),
        Along::Row => (1, Shape::k(element) * TILE_ROW_BYTES, depth * TILE_ROW_BYTES),
    };
    OperandContext {
        name,
        rows,
        axis,
        along_k: along == Along::K,
        batch: if is_batched { "place.batch" } else { "0" },
        across,
        block_bytes,
        step_bytes,
    }
}
