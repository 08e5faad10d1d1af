//! `gemm_direct`: products of many rows with so few terms that they are bound by memory.
//!
//! A warp keeps its columns in registers as matrix instructions take them, and passes over the rows, which come from
//! memory in the order of those registers: which terms an instruction sums, and which columns, is free to choose, so
//! that a lane reads neighbours and finishes neighbours. Nothing passes through shared memory, no block waits for its
//! warps, and the next rows are on their way while sums are finished.

use serde::Serialize;

use super::{Template, field_names, fill, knob, variant};
use crate::ir::DType;
use crate::kernel::body::region::{kernel_name, operands};
use crate::kernel::device::{Device, NODE_US};
use crate::kernel::error::KernelError;
use crate::kernel::gemm::contraction::{Contraction, Side};
use crate::kernel::gemm::element::{self, Sums};
use crate::kernel::gemm::epilogue::{Early, Epilogue, result_width};
use crate::kernel::gemm::operand::{Along, Cut, Fetch, best_cut, is_plain, is_wide};
use crate::kernel::gemm::parts::{epilogue_work, fetch_work, memory_us, parameters, ranked, tensors};
use crate::kernel::prelude::{COMMON, MMA, translation_unit};
use crate::kernel::print::expr::{Operand, index_type};
use crate::kernel::print::types::storage_type;
use crate::kernel::source::{Arch, Launch, Source, Variant};
use crate::kernel::spec::KernelSpec;

pub static TEMPLATE: Template = Template {
    name: "gemm_direct",
    text: include_str!("../../../templates/gemm_direct.cu.tera"),
    variants,
    render,
    fields: || field_names(&GemmDirectContext::default()),
};

#[derive(Clone, Debug, Default, Serialize)]
struct GemmDirectContext {
    name: String,
    params: Vec<String>,
    index_type: &'static str,
    element: &'static str,
    /// Types of the instructions' sums, and of what the epilogue takes them as.
    sum: &'static str,
    value: &'static str,
    m: usize,
    n: usize,
    tiles: usize,
    threads: usize,
    resident: usize,
    chunk: usize,
    reads: usize,
    width: usize,
    groups: usize,
    tile_n: usize,
    warps_n: usize,
    blocks_n: usize,
    /// Whether rows are what memory holds; otherwise they are computed from it.
    plain: bool,
    load_a: String,
    b_along_k: bool,
    b_plain: bool,
    load_b: String,
    epilogue: String,
}

/// Rows of a matrix instruction.
const TILE_ROWS: usize = 16;
/// Rows below which other templates, which divide the terms among threads, are as good.
const LEAST_ROWS: usize = 64;
/// Bytes that a lane may read at once, the most first; an instruction takes eight of a lane.
const CHUNK_BYTES: [usize; 2] = [16, 8];
/// Lanes that share a row.
const ROW_LANES: usize = 4;
/// Columns of a warp at most: their sums are in its registers.
const MOST_COLUMNS: usize = 128;
/// Warps of a block, and where the columns take more, warps that have columns of their own.
const WARPS: usize = 8;
const MOST_WARPS: usize = 12;
/// Registers of operands and sums, of the 255 that a thread may have: the rest is for addresses and tests.
const MOST_HELD: usize = 150;
const MOST_VARIANTS: usize = 8;

/// The product, and how memory is read and written.
struct Problem {
    contraction: Contraction,
    element: DType,
    /// The widest vector of columns that the results can be stored in.
    width: usize,
    /// Along what the columns are neighbours in memory.
    along: Along,
    /// The most terms of a row that are read at once, and whether they are what memory holds.
    chunk: usize,
    plain: bool,
}

/// How rows and columns are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    /// Terms that a lane reads at once.
    chunk: usize,
    /// Columns that a lane finishes at once.
    width: usize,
    /// Columns of a warp.
    tile_n: usize,
}

impl Problem {
    fn of(spec: &KernelSpec, inputs: &[Operand], arch: Arch) -> Option<Problem> {
        let contraction = Contraction::of(spec)?;
        let sizes = contraction.sizes;
        if sizes.batch != 1 || sizes.m < LEAST_ROWS || sizes.n * sizes.k == 0 {
            return None;
        }
        let mut elements = element::of_warps(&contraction, spec, arch).into_iter();
        let element = elements.find(|kind| kind.size_bytes() == 2)?;
        let width = result_width(&contraction, spec)?;
        let plain = |&chunk: &usize| is_plain(&contraction, rows_cut(chunk), inputs, element);
        let wide = |&chunk: &usize| is_wide(&contraction, rows_cut(chunk), inputs);
        let chunks = CHUNK_BYTES.map(|bytes| bytes / element.size_bytes());
        let as_it_lies = chunks.into_iter().find(plain);
        let chunk = as_it_lies.or_else(|| chunks.into_iter().find(wide))?;
        let along = best_cut(&contraction, Side::B, inputs, (4, 4)).along;
        (width > 1).then_some(Problem {
            along,
            chunk,
            plain: as_it_lies.is_some(),
            contraction,
            element,
            width,
        })
    }

    fn shapes(&self) -> Vec<Shape> {
        let sizes = self.contraction.sizes;
        let mut found = Vec::new();
        // Where there are few terms, half of the lanes would read nothing.
        let chunks = CHUNK_BYTES.map(|bytes| bytes / self.element.size_bytes());
        let is_of_use =
            |&chunk: &usize| chunk <= self.chunk && (chunk == chunks[1] || sizes.k > chunk * ROW_LANES / 2);
        for chunk in chunks.into_iter().filter(is_of_use) {
            for width in [8, 4, 2].into_iter().filter(|&width| width <= self.width) {
                let group = ROW_LANES * width;
                let tiles = (1..=MOST_COLUMNS / group).map(|groups| groups * group);
                let shapes = tiles.map(|tile_n| Shape { chunk, width, tile_n });
                found.extend(shapes.filter(|shape| shape.fits(self)));
            }
        }
        found
    }
}

/// How a lane reads terms of a row.
fn rows_cut(chunk: usize) -> Cut {
    Cut {
        side: Side::A,
        along: Along::K,
        width: chunk,
    }
}

impl Shape {
    fn of(variant: &Variant) -> Result<Shape, KernelError> {
        let knob = |name| knob(&TEMPLATE, variant, name);
        Ok(Shape {
            chunk: knob("chunk")?,
            width: knob("width")?,
            tile_n: knob("tile_n")?,
        })
    }

    fn reads(self, k: usize) -> usize {
        k.div_ceil(ROW_LANES * self.chunk)
    }

    /// Terms that all reads cover.
    fn depth(self, k: usize) -> usize {
        self.reads(k) * ROW_LANES * self.chunk
    }

    /// Blocks beside each other, and warps of each of them, that have columns of their own.
    fn blocks_n(self, n: usize) -> usize {
        n.div_ceil(self.tile_n).div_ceil(MOST_WARPS)
    }

    fn warps_n(self, n: usize) -> usize {
        n.div_ceil(self.tile_n).div_ceil(self.blocks_n(n))
    }

    /// Columns that all of them cover.
    fn columns(self, n: usize) -> usize {
        self.blocks_n(n) * self.warps_n(n) * self.tile_n
    }

    /// Warps of a block that have rows of their own.
    fn warps_m(self, n: usize) -> usize {
        (WARPS / self.warps_n(n)).max(1)
    }

    fn threads(self, n: usize) -> usize {
        self.warps_m(n) * self.warps_n(n) * 32
    }

    /// Registers of columns, sums and rows.
    fn held(self, problem: &Problem) -> usize {
        let bytes = self.depth(problem.contraction.sizes.k) * problem.element.size_bytes();
        bytes * self.tile_n / 128 + self.tile_n / 2 + bytes / 8
    }

    /// Whether registers hold it. A warp that ends in the middle of the last group of columns is none too many; one
    /// that lies outside is.
    fn fits(self, problem: &Problem) -> bool {
        let is_wasteful = self.tile_n >= problem.contraction.sizes.n + ROW_LANES * self.width;
        self.held(problem) <= MOST_HELD && !is_wasteful
    }

    /// Blocks per SM that the compiler is asked for.
    fn resident(self, problem: &Problem) -> usize {
        const OTHERS: usize = 40;
        let sizes = problem.contraction.sizes;
        let registers = (self.held(problem) * 5 / 4 + OTHERS).min(255);
        (65536 / registers / self.threads(sizes.n)).max(1)
    }

    fn fetch(self, problem: &Problem, side: Side) -> Fetch {
        let sizes = problem.contraction.sizes;
        let depth = self.depth(sizes.k);
        match side {
            Side::A => {
                let rows = sizes.m.next_multiple_of(TILE_ROWS);
                Fetch::new(&problem.contraction, rows_cut(self.chunk), rows, depth)
            }
            Side::B => {
                let cut = Cut {
                    side,
                    along: problem.along,
                    width: match problem.along {
                        Along::K => self.chunk,
                        Along::Row => self.width / 2,
                    },
                };
                let rows = self.columns(sizes.n);
                Fetch::new(&problem.contraction, cut, rows, depth)
            }
        }
    }
}

fn variants(spec: &KernelSpec, arch: Arch) -> Vec<Variant> {
    let Some(problem) = Problem::of(spec, &operands(spec), arch) else {
        return Vec::new();
    };
    let moved_us = memory_us(spec, arch);
    let own = |shape: Shape| {
        let knobs = [
            ("chunk", shape.chunk),
            ("width", shape.width),
            ("tile_n", shape.tile_n),
            ("resident", shape.resident(&problem)),
        ];
        variant(
            TEMPLATE.name,
            &knobs,
            predicted_us(&problem, shape, moved_us, arch),
        )
    };
    ranked(problem.shapes().into_iter().map(own).collect(), MOST_VARIANTS)
}

/// The larger of moving the bytes and of issuing instructions, and a part of the other.
#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
fn predicted_us(problem: &Problem, shape: Shape, moved_us: f64, arch: Arch) -> f64 {
    /// From launch to the first row, in microseconds.
    const FILL_US: f64 = 0.8;
    /// Clocks of an SM for one read of columns by one warp, of which there are many at once.
    const COLUMN_CLK: f64 = 28.0;
    /// Scalar instructions an SM issues per clock beside those that wait.
    const ISSUE_PER_CLK: f64 = 100.0;
    /// What does not overlap of the lesser.
    const APART: f64 = 0.35;
    let (device, sizes) = (Device::of(arch), problem.contraction.sizes);
    let (columns, depth) = (shape.columns(sizes.n), shape.depth(sizes.k));
    let readers = columns / shape.tile_n;
    let rows = sizes.m.next_multiple_of(TILE_ROWS);
    let n_sms = f64::from(device.n_sms);
    let finished =
        (rows * columns) as f64 * (epilogue_work(&problem.contraction) + 2.0 + 12.0 / shape.width as f64);
    let fetched = (rows * depth * readers) as f64 * read_work(problem, shape);
    // 16 x 8 products of 32 bytes take a scheduler two clocks, for which it issues nothing else.
    let instructions = rows / 16 * columns / 8 * depth * problem.element.size_bytes() / 32;
    let multiplied = instructions as f64 * 64.0;
    let issue_us = (finished + fetched + multiplied) / (n_sms * ISSUE_PER_CLK * device.clock_ghz * 1e3);
    let warps = (shape.threads(sizes.n) / 32 * shape.resident(problem)) as f64;
    let busy = (warps / 16.0).min(1.0);
    let of_columns = match problem.along {
        Along::K => depth / shape.chunk * shape.tile_n / 8,
        Along::Row => depth / ROW_LANES * shape.tile_n / (ROW_LANES * shape.width),
    };
    let columns_us = of_columns as f64 * warps * COLUMN_CLK / 4.0 / (device.clock_ghz * 1e3);
    let memory_us = moved_us / busy.max(0.5);
    NODE_US + FILL_US + columns_us + memory_us.max(issue_us) + APART * memory_us.min(issue_us)
}

/// Scalar steps to read one term of a row: what vectors of computed ones share is no part of it.
fn read_work(problem: &Problem, shape: Shape) -> f64 {
    const SHARED_STEPS: f64 = 10.0;
    let work = fetch_work(&problem.contraction, rows_cut(shape.chunk), problem.plain);
    if problem.plain { work } else { work - SHARED_STEPS }
}

fn render(spec: &KernelSpec, variant: &Variant, arch: Arch) -> Result<Source, KernelError> {
    let inputs = operands(spec);
    let problem = Problem::of(spec, &inputs, arch).ok_or_else(|| KernelError::NotAccepted {
        template: TEMPLATE.name,
        reason: "it is not one product of many rows of 16-bit floats, read in vectors along its terms"
            .to_owned(),
    })?;
    let shape = Shape::of(variant)?;
    let sizes = problem.contraction.sizes;
    let (params, passed) = parameters(spec, 0);
    let resident = knob(&TEMPLATE, variant, "resident")?;
    let (warps_n, threads) = (shape.warps_n(sizes.n), shape.threads(sizes.n));
    let tiles = sizes.m.div_ceil(TILE_ROWS);
    let tile = format!("{}x{}_v{}_w{}", TILE_ROWS, shape.tile_n, shape.chunk, shape.width);
    let name = kernel_name(spec, TEMPLATE.name, &tile);
    let (blocks_n, columns) = (shape.blocks_n(sizes.n), shape.columns(sizes.n));
    let epilogue = Epilogue::new(&problem.contraction, shape.width, tiles * TILE_ROWS, columns);
    let (load_b, b_plain) = load_columns(&problem, shape, &inputs)?;
    let Sums { sum, value, .. } = element::sums(problem.element, &problem.contraction);
    let text = fill(
        &TEMPLATE,
        &GemmDirectContext {
            name: name.clone(),
            params,
            index_type: index_type(&tensors(spec)),
            element: storage_type(problem.element),
            sum,
            value,
            m: sizes.m,
            n: sizes.n,
            tiles,
            threads,
            resident,
            chunk: shape.chunk,
            reads: shape.reads(sizes.k),
            width: shape.width,
            groups: shape.tile_n / (ROW_LANES * shape.width),
            tile_n: shape.tile_n,
            warps_n,
            blocks_n,
            plain: problem.plain,
            load_a: load_rows(&problem, shape, &inputs)?,
            b_along_k: problem.along == Along::K,
            b_plain,
            load_b,
            epilogue: epilogue.text(spec, Early::default(), 5)?,
        },
    )?;
    let slots = (Device::of(arch).n_sms as usize * resident / blocks_n).max(1);
    let blocks = tiles.div_ceil(shape.warps_m(sizes.n)).min(slots) * blocks_n;
    Ok(Source {
        name,
        header: String::new(),
        text: translation_unit(&[COMMON, &[MMA]].concat(), &text),
        template: TEMPLATE.name,
        launch: Launch::in_a_row(blocks, threads, 0),
        params: passed,
        workspace_bytes: 0,
    })
}

/// Statements that declare `valid` and `from`, or that compute the terms into `own`.
fn load_rows(problem: &Problem, shape: Shape, inputs: &[Operand]) -> Result<String, KernelError> {
    let fetch = shape.fetch(problem, Side::A);
    match fetch.plain(inputs, problem.element) {
        Some(plain) if problem.plain => fetch.address(&plain, inputs, 4),
        _ => fetch.values(inputs, 4, "own.element", Some(problem.element)),
    }
}

/// Statements that put neighbours of the columns into `own`, or that declare `valid` and `from` where memory holds
/// them, and whether it does.
fn load_columns(problem: &Problem, shape: Shape, inputs: &[Operand]) -> Result<(String, bool), KernelError> {
    let fetch = shape.fetch(problem, Side::B);
    let depth = match problem.along {
        Along::K => 4,
        Along::Row => 5,
    };
    match fetch.plain(inputs, problem.element) {
        Some(plain) => Ok((fetch.address(&plain, inputs, depth)?, true)),
        None => Ok((
            fetch.values(inputs, depth, "own.element", Some(problem.element))?,
            false,
        )),
    }
}
