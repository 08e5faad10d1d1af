//! `gemm_wgmma`: sums of products with the matrix instructions of four warps at once (`sm_90a`).
//!
//! Both operands are plain tensors, or the images and filters of a convolution, whole tiles of
//! which the copy engine brings to shared memory: one group of warps asks for them, the others
//! multiply and finish. Blocks stay and take several tiles, so that copies for the next tile go
//! on while one is finished.

mod reading;
mod shape;

use serde::Serialize;

use self::reading::{ConvContext, OperandContext, Reading};
use self::shape::{BLOCK_ROWS, DEPTH_BYTES, LANES, SHAPES, Shape};
use super::{Template, field_names, fill, halving, may_release, variant};
use crate::ir::tiled_view::TILE_ROW_BYTES;
use crate::ir::{DType, TensorType, TiledView};
use crate::kernel::body::region::kernel_name;
use crate::kernel::device::Device;
use crate::kernel::error::KernelError;
use crate::kernel::gemm::contraction::{Contraction, Side, Sizes};
use crate::kernel::gemm::cost::{Tiling, predicted_us, split_choices};
use crate::kernel::gemm::element::{self, Sums};
use crate::kernel::gemm::epilogue::{
    Early, Epilogue, Held, best_width, has_whole_strips, result_width, row_bytes,
};
use crate::kernel::gemm::operand::Along;
use crate::kernel::gemm::parts::{
    Blocking, epilogue_work, is_oversized, memory_us, parameters, ranked, register_limit, tensors,
};
use crate::kernel::gemm::row_sums::{self, PartsContext};
use crate::kernel::prelude::{
    CLUSTER, COMMON, MBARRIER, SPLIT, STREAM, Section, TENSOR_COPY, TILE, WGMMA, translation_unit,
};
use crate::kernel::print::expr::index_type;
use crate::kernel::print::store::Stores;
use crate::kernel::print::types::storage_type;
use crate::kernel::source::{Arch, Param, Source, Variant};
use crate::kernel::spec::KernelSpec;
use crate::tile::ExprId;

/// Columns of sums that a thread reads out of shared memory at once: 16 bytes.
const PIECE: usize = 4;

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
    /// Types of the instructions' sums, and of what the epilogue takes them as.
    sum: &'static str,
    value: &'static str,
    /// What loads the one as the other.
    load: &'static str,
    taken: &'static str,
    m: usize,
    n: usize,
    tiles_m: usize,
    tiles_n: usize,
    /// Of all batches and splits.
    tiles: usize,
    /// What says which tile a block has.
    place: String,
    /// Over `k`, for one tile.
    steps: usize,
    splits: usize,
    /// Whether blocks that share a tile are a cluster.
    clustered: bool,
    /// A block's steps of a tile; `begin` is the first one where it is known.
    first_step: &'static str,
    last_step: &'static str,
    begin: &'static str,
    tickets_bytes: usize,
    threads: usize,
    resident: usize,
    stages: usize,
    consumers: usize,
    /// Groups that take turns, each with a tile of its own; 1 where they share one.
    turns: usize,
    tile_m: usize,
    tile_n: usize,
    tile_k: usize,
    /// Instructions along `k` of a step, for each of their rows.
    instructions: usize,
    /// Columns that an instruction sums where a step's sums are added to others as floats, else 0.
    part_n: usize,
    /// Registers that copying threads keep and multiplying ones take; 0 where all have the same.
    released: usize,
    claimed: usize,
    operands: Vec<OperandContext>,
    /// The operand that is a weight, whose first tiles are asked for before earlier kernels are done, and the other
    /// one; empty where every read waits for them.
    early: &'static str,
    late: &'static str,
    /// Whether later kernels may begin while this one multiplies.
    releases: bool,
    /// Where rows are pixels.
    conv: Option<ConvContext>,
    /// Rows and columns of a warp that pass through shared memory at a time, and where; no columns where sums stay
    /// in registers.
    slab_rows: usize,
    slab: usize,
    slabs_at: usize,
    /// Sums beside the product, where they lie in shared memory, and what an element adds.
    row_sums: usize,
    rows_at: usize,
    row_terms: String,
    /// In place of that, what reads parts that an earlier kernel stored.
    parts: Option<PartsContext>,
    /// What stores the results that have one number per row.
    row_stores: String,
    /// What the epilogue reads of every column.
    columns: Vec<ColumnContext>,
    width: usize,
    /// Neighbouring columns of a vector that are read out of shared memory at once.
    piece: usize,
    /// Whether all vectors of a thread in a round are of the same columns, and what reads those of `columns` then.
    same_columns: bool,
    column_arrays: String,
    column_vectors: String,
    /// Types of what the epilogue reads of weights column by column, which a thread holds from the beginning, and
    /// the statements that read it.
    held: Vec<&'static str>,
    holding: String,
    /// What the epilogue reads row by row, and how many rounds of a warp's sums before it does.
    asked: Vec<&'static str>,
    ahead: usize,
    /// Whether the first rounds of the next tile are asked for, too, and whether all of a tile's are, together.
    asks_beyond: bool,
    asks_tiles: bool,
    asking: String,
    epilogue: String,
}

/// An array over all columns in shared memory.
#[derive(Clone, Debug, Default, Serialize)]
struct ColumnContext {
    kind: &'static str,
    value: &'static str,
    /// Whether the pieces of vectors take turns.
    apart: bool,
    /// Elements that a thread copies at a time.
    pack: usize,
    at: usize,
    from: String,
}

/// The product with both operands in memory.
struct Problem {
    contraction: Contraction,
    element: DType,
    reading: Reading,
    /// What a thread finishes at once where sums pass through shared memory, and where they stay in registers.
    slabs: Vectors,
    direct: Option<Vectors>,
    /// Bytes of an element's results.
    result_bytes: usize,
}

/// Neighbouring columns that a thread finishes at once.
#[derive(Clone, Copy, Debug)]
struct Vectors {
    width: usize,
    /// Bytes that a thread reads for a vector of columns and no other row does.
    row_bytes: usize,
}

impl Problem {
    fn of(spec: &KernelSpec, arch: Arch) -> Option<Problem> {
        if !arch.is_hopper() {
            return None;
        }
        let contraction = Contraction::with_row_sums(spec)?;
        let Sizes { batch, m, n, k } = contraction.sizes;
        if batch * m * n * k == 0 {
            return None;
        }
        let mut elements = element::of_groups(&contraction, spec, arch).into_iter();
        let (element, reading) =
            elements.find_map(|element| Some((element, reading(spec, &contraction, element)?)))?;
        let results: Vec<usize> = spec
            .output_types()
            .iter()
            .map(|ty| ty.dtype.size_bytes())
            .collect();
        let vectors = |width| Vectors {
            width,
            row_bytes: row_bytes(&contraction, width, spec),
        };
        Some(Problem {
            slabs: vectors(result_width(&contraction, spec)?),
            direct: direct_width(&contraction, element, &reading, spec).map(vectors),
            result_bytes: results.iter().sum(),
            contraction,
            element,
            reading,
        })
    }
}

impl Problem {
    /// Whether groups may multiply it as `shape` says. One that takes turns has its warps wait alone: not for
    /// every step's sums, and for what a row reads only where it was asked for early. Sums that leave no
    /// registers for that are a matrix's: those of a convolution spill.
    fn may_be(&self, shape: Shape) -> bool {
        let is_plain = matches!(self.reading, Reading::Plain(_));
        let Vectors { width, row_bytes } = self.vectors(shape);
        let has_room = |bytes| shape.rounds_ahead(bytes, width) > 0;
        let asks = row_bytes == 0 || has_room(row_bytes);
        // Lanes of one strip are neighbours in slabs alone.
        let has_strips = if shape.is_direct() {
            self.contraction.strips.is_none()
        } else {
            has_whole_strips(&self.contraction, width, shape.slab)
        };
        has_strips && (shape.turns == 1 || asks && !self.sums_in_steps() && (is_plain || has_room(1)))
    }

    /// What a thread finishes at once.
    ///
    /// # Panics
    /// If sums stay in registers, and may not.
    fn vectors(&self, shape: Shape) -> Vectors {
        if shape.is_direct() {
            return self
                .direct
                .expect("only problems with whole vectors have such shapes");
        }
        self.slabs
    }

    /// Every shape, and the same ones where sums may stay in registers.
    fn shapes(&self) -> impl Iterator<Item = Shape> {
        let direct = SHAPES.iter().filter(|_| self.direct.is_some());
        SHAPES.iter().copied().chain(direct.map(|shape| shape.direct()))
    }

    /// Neighbouring blocks share rows of tiles of the first operand and columns of the second one. Where caches do not
    /// hold all columns, each group of rows reads them anew: groups are as high as caches hold their rows.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "shares of a cache"
    )]
    fn group(&self, shape: Shape, device: &Device) -> String {
        /// What `rt_tile_place` takes.
        const USUAL: usize = 8;
        /// Shares of L2 that columns may take to stay there, and that rows of a group take.
        const OF_COLUMNS: f64 = 0.5;
        const OF_ROWS: f64 = 0.25;
        let Sizes { m, n, k, .. } = self.contraction.sizes;
        let row_bytes = (k * self.element.size_bytes()) as f64;
        let is_plain = matches!(self.reading, Reading::Plain(_));
        if !is_plain || n as f64 * row_bytes <= device.l2_bytes * OF_COLUMNS {
            return String::new();
        }
        let held = (device.l2_bytes * OF_ROWS / (shape.m as f64 * row_bytes)) as usize;
        let tiles_m = m.div_ceil(shape.m);
        let passes = tiles_m.div_ceil(held.max(USUAL));
        match tiles_m.div_ceil(passes) {
            group if group > USUAL => format!("<{group}>"),
            _ => String::new(),
        }
    }

    /// Clocks in which the copy engine brings a step's rows across `k` that lie outside in part: it takes so long for
    /// each of them, as measured on 40 columns.
    #[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
    fn cut_rows_clk(&self, shape: Shape) -> f64 {
        const ROW_CLK: f64 = 20.0;
        let Reading::Plain(sides) = &self.reading else {
            return 0.0;
        };
        let (sizes, across) = (self.contraction.sizes, Shape::k(self.element));
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

    /// The side that is constant data, whose tiles need not wait for earlier kernels.
    fn weight(&self, spec: &KernelSpec, shape: Shape) -> Option<Side> {
        let [a, b] = self
            .reading
            .views(shape, self.vectors(shape).width)
            .map(|(input, _)| spec.weights.contains(&input));
        if b { Some(Side::B) } else { a.then_some(Side::A) }
    }

    /// Whether the sums of a step are added to those of others as floats: the instructions keep about 14
    /// bits of a sum of 8-bit floats, which long sums would show.
    fn sums_in_steps(&self) -> bool {
        const MOST_STEPS: usize = 2;
        self.element == DType::F8E4M3 && self.contraction.sizes.k > MOST_STEPS * Shape::k(self.element)
    }
}

/// How the operands are copied as elements of kind `element`, if they can be.
fn reading(spec: &KernelSpec, contraction: &Contraction, element: DType) -> Option<Reading> {
    let reading = Reading::of(spec, contraction, element)?;
    // Instructions transpose 16 bits only, and sums of rows are taken from tiles of floats.
    let is_byte = element.size_bytes() == 1;
    if is_byte && !reading.lies_along_k() {
        return None;
    }
    if !contraction.row_sums.terms.is_empty() && (is_byte || !reading.has_rows_along_k()) {
        return None;
    }
    let types = spec.input_types();
    let is_legal = |(input, view): &(usize, TiledView)| view.check(types[*input].n_bytes()).is_ok();
    reading
        .views(SHAPES[0], 1)
        .iter()
        .all(is_legal)
        .then_some(reading)
}

/// Neighbouring columns that a thread finishes at once where copies can bring columns in an order in which these are its
/// own sums: 16 bytes of results. Such copies are slower, which products of 16-bit elements lose more by than their
/// epilogues gain, as measured.
fn direct_width(
    contraction: &Contraction,
    element: DType,
    reading: &Reading,
    spec: &KernelSpec,
) -> Option<usize> {
    /// Of narrower vectors, copies would be many.
    const LEAST: usize = 8;
    let least = spec.output_types().iter().map(|ty| ty.dtype.size_bytes()).min()?;
    let width = best_width(contraction, 16 / least);
    let fits = element.size_bytes() == 1 && width >= LEAST && reading.columns(width).is_some();
    fits.then_some(width)
}

fn variants(spec: &KernelSpec, arch: Arch) -> Vec<Variant> {
    let Some(problem) = Problem::of(spec, arch) else {
        return Vec::new();
    };
    let (device, sizes) = (Device::of(arch), problem.contraction.sizes);
    let k = Shape::k(problem.element);
    let mut found = Vec::new();
    for shape in problem.shapes() {
        if is_oversized(shape.m, sizes.m, BLOCK_ROWS) || is_oversized(shape.n, sizes.n, BLOCK_ROWS) {
            continue;
        }
        if !problem.may_be(shape) {
            continue;
        }
        // What a copy brings is multiplied, zeros behind the channels of a tap too.
        let steps = problem.reading.steps(shape.blocking(problem.element), sizes);
        let padded = Sizes {
            k: steps * k,
            ..sizes
        };
        let choices = split_choices(padded, (shape.m, shape.n, k), device);
        let (tiles_m, tiles_n, _) = shape.blocking(problem.element).tiles(sizes);
        let own = |splits: usize| {
            // Where one block per SM suffices, room for a second one is taken by the next kernel's, which crowd
            // there; alone, a launch does not show that. Where executions share the device, those of others are welcome.
            let is_alone = tiles_m * tiles_n * sizes.batch * splits <= device.n_sms as usize;
            if shape.resident > 1 && is_alone && spec.options.n_contexts == 1 {
                return None;
            }
            let shape = Shape { splits, ..shape };
            // Sums of rows lie with the warp that has the rows, which is not the one that finishes them in a cluster.
            let clustered = problem.contraction.row_sums.is_empty()
                && shape.may_cluster(
                    problem.vectors(shape).width,
                    tiles_m * tiles_n * sizes.batch,
                    device,
                );
            let shape = Shape { clustered, ..shape };
            let us = predicted_us(padded, &tiling(&problem, shape), memory_us(spec, arch), device)?;
            let shape = if is_alone {
                shape.with_stages_for(steps.div_ceil(splits))
            } else {
                shape
            };
            Some(variant(TEMPLATE.name, &shape.knobs(), us).with_registers(shape.registers_taken()))
        };
        // A tile by one block, and by as many as are likely to be best.
        // Blocks that share a tile would have to share its sums of rows, too.
        let may_share = problem.contraction.row_sums.terms.is_empty() && shape.turns == 1;
        let shared = choices
            .into_iter()
            .filter(|&splits| splits > 1 && may_share)
            .filter_map(own);
        found.extend(ranked(shared.collect(), 1));
        found.extend(own(1));
    }
    ranked(found, 3 * SHAPES.len())
}

#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
fn tiling(problem: &Problem, shape: Shape) -> Tiling {
    /// Floating-point operations per clock and SM that power allows for.
    const SUSTAINED: f64 = 4096.0 * 0.865;
    /// Share of the bytes written to shared memory that reads are held up by.
    const WRITES: f64 = 0.9;
    /// Several SMs that ask for a tile at nearly the same time are answered together.
    const JOINT_COPIES: f64 = 1.8;
    /// Of 16 rows and 32 columns of a warp whose epilogue reads memory row by row: two warps of a scheduler hide
    /// little of it, and the products of another tile all of it.
    const ROWS_CLK: f64 = 120.0;
    /// Share of an epilogue that is left where sums stay in registers, and clocks that a column takes longer to be
    /// copied so.
    const DIRECT_SHARE: f64 = 0.8;
    const COLUMN_CLK: f64 = 0.47;
    /// From an instruction to its sums being added, in clocks.
    const PART_CLK: f64 = 150.0;
    let k = Shape::k(problem.element);
    let sizes = problem.contraction.sizes;
    let Vectors { width, row_bytes } = problem.vectors(shape);
    let depth_bytes = problem.reading.instructions(problem.element, sizes) * DEPTH_BYTES;
    // Elements of half the bytes are multiplied at twice the rate.
    let halves = depth_bytes / 2;
    // Every instruction reads all columns.
    let read = (shape.m + shape.n * (shape.m / BLOCK_ROWS)) * depth_bytes;
    let written = (shape.m + shape.n) * TILE_ROW_BYTES;
    // Zeros behind the channels of a tap, or behind the last k, are not fetched.
    let steps = problem.reading.steps(shape.blocking(problem.element), sizes);
    let is_gathered = matches!(problem.reading, Reading::Images(_));
    let fetched = if is_gathered {
        // Pixels take the same time whatever they are of.
        written as f64
    } else {
        written as f64 * sizes.k as f64 / (steps * k) as f64
    };
    let rows_clk = if row_bytes > 0 && shape.turns == 1 {
        (shape.rounds(width) * shape.slab_rows * shape.columns(width)) as f64 / (16.0 * 32.0) * ROWS_CLK
    } else {
        0.0
    };
    let (added, alone_clk) = if problem.sums_in_steps() {
        let parts = shape.m / BLOCK_ROWS * shape.n / shape.part_n();
        ((shape.m * shape.n) as f64, PART_CLK * parts as f64)
    } else {
        (0.0, 0.0)
    };
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
        smem_bytes: smem_bytes(problem, shape),
        // The one before a step is free only once that is in flight.
        stages: shape.stages - 1,
        splits: shape.splits,
        clustered: shape.clustered,
        math_clk: (2 * shape.m * shape.n * halves) as f64 / SUSTAINED,
        smem_clk: (read as f64 + WRITES * written as f64) / 128.0,
        step_bytes: fetched / JOINT_COPIES,
        copy_clk: problem.cut_rows_clk(shape),
        fetch_work: row_sums::work(&problem.contraction, shape.m * k) + added,
        epilogue_work: (shape.m * shape.n) as f64
            * (epilogue_work(&problem.contraction) + 12.0 / width as f64)
            * epilogue_share(problem, shape)
            * direct_share,
        epilogue_clk: rows_clk,
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

#[expect(clippy::too_many_lines, reason = "one field of the template after the other")]
fn render(spec: &KernelSpec, variant: &Variant, arch: Arch) -> Result<Source, KernelError> {
    let problem = Problem::of(spec, arch).ok_or_else(|| KernelError::NotAccepted {
        template: TEMPLATE.name,
        reason: "it is not one product of 16-bit or 8-bit tensors that copies of tiles can read, on sm_90a"
            .to_owned(),
    })?;
    let shape = Shape::of(variant)?;
    let Vectors { width, .. } = problem.vectors(shape);
    let (blocking, sizes) = (shape.blocking(problem.element), problem.contraction.sizes);
    let (tiles_m, tiles_n, _) = blocking.tiles(sizes);
    let (released, claimed) = shape.exchanged();
    let n_tiles = tiles_m * tiles_n * sizes.batch;
    let workspace_bytes = shape.workspace_bytes(n_tiles);
    let (params, passed) = signature(spec, &problem, shape, workspace_bytes);
    let mut epilogue = Epilogue::new(&problem.contraction, width, tiles_m * shape.m, tiles_n * shape.n);
    epilogue.stores = stores(spec, Device::of(arch));
    let row_loads = epilogue.row_loads(spec);
    let ahead = shape.rounds_ahead(epilogue.asked_bytes(&row_loads), width);
    let asked = if ahead > 0 { row_loads.as_slice() } else { &[] };
    let rounds = shape.rounds(width);
    let asks_beyond = ahead > 0 && shape.splits == 1 && rounds.is_multiple_of(ahead);
    let asks_tiles = asks_beyond && ahead == rounds && shape.is_direct();
    // Reading all columns before the first tile pays where several follow.
    let n_slots = Device::of(arch).n_sms as usize * shape.resident;
    let column_loads = if shape.splits == 1 && n_tiles > n_slots {
        epilogue.column_loads(spec)
    } else {
        Vec::new()
    };
    let (columns, smem_bytes) = columns(spec, &problem, shape, &epilogue, &column_loads, arch);
    let launch = halving(
        shape.launch(blocking, sizes, smem_bytes, arch),
        arch,
        spec.options,
    );
    let (weight, other) = match problem.weight(spec, shape) {
        // All threads read the columns, which may be none of the weights.
        Some(Side::A) if columns.is_empty() => ("a", "b"),
        Some(Side::B) if columns.is_empty() => ("b", "a"),
        _ => ("", ""),
    };
    let held = held_columns(
        spec,
        &problem,
        shape,
        &epilogue,
        n_tiles * shape.splits <= n_slots,
    );
    let held = Held {
        loads: &held,
        slot: if shape.clustered { "" } else { "[round % kAcross]" },
    };
    let early = Early {
        asked,
        columns: &column_loads[..columns.len()],
        held,
    };
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
    let Sums {
        sum,
        value,
        load,
        taken,
    } = element::sums(problem.element, &problem.contraction);
    let text = fill(
        &TEMPLATE,
        &GemmWgmmaContext {
            name: name.clone(),
            params,
            index_type: index_type(&tensors(spec)),
            element: storage_type(problem.element),
            sum,
            value,
            load,
            taken,
            m: sizes.m,
            n: sizes.n,
            tiles_m,
            tiles_n,
            tiles: n_tiles * shape.splits,
            steps: problem.reading.steps(blocking, sizes),
            place: if shape.clustered {
                "rt_cluster_place".to_owned()
            } else {
                format!("rt_tile_place{}", problem.group(shape, Device::of(arch)))
            },
            splits: shape.splits,
            clustered: shape.clustered,
            first_step,
            last_step,
            begin,
            tickets_bytes: shape.tickets_bytes(n_tiles),
            threads: shape.threads(),
            resident: shape.resident,
            stages: shape.stages,
            consumers: shape.consumers,
            turns: shape.turns,
            tile_m: shape.m,
            tile_n: shape.n,
            tile_k: blocking.k,
            instructions: problem.reading.instructions(problem.element, sizes),
            part_n: if problem.sums_in_steps() {
                shape.part_n()
            } else {
                0
            },
            released,
            claimed,
            operands: problem.reading.operands(problem.element),
            early: weight,
            late: other,
            releases: may_release(&launch, arch, spec.options),
            conv: problem.reading.conv(),
            slab_rows: shape.slab_rows,
            slab: shape.slab,
            slabs_at: shape.slabs_at(),
            row_sums: problem.contraction.row_sums.len(),
            rows_at: shape.smem_bytes(),
            row_terms: row_sums::terms(&problem.contraction, spec, 5)?,
            parts: row_sums::parts(&problem.contraction, spec, shape.room_for_parts(), 5),
            row_stores: row_sums::stores(&problem.contraction, spec, 4)?,
            columns,
            width,
            piece: width.min(PIECE),
            same_columns: shape.has_same_columns(width),
            column_arrays: epilogue.column_arrays(early.columns, 2),
            column_vectors: epilogue.column_vectors(early.columns, shape.is_direct(), 4),
            held: epilogue.asked_types(held.loads),
            holding: epilogue.holding(spec, held, 2)?,
            asked: epilogue.asked_types(asked),
            ahead,
            asks_beyond,
            asks_tiles,
            asking: epilogue.asking(spec, asked, if asks_tiles { "coming" } else { "asked" }, 3)?,
            epilogue: epilogue.text(spec, early, 5)?,
        },
    )?;
    Ok(Source {
        name,
        header: String::new(),
        text: translation_unit(&sections(shape, epilogue.stores), &text),
        template: TEMPLATE.name,
        launch,
        params: passed,
        workspace_bytes,
    })
}

/// Results of which caches hold a part at most push operands out of them.
#[expect(clippy::cast_precision_loss, reason = "shares of a cache")]
fn stores(spec: &KernelSpec, device: &Device) -> Stores {
    /// Times what L2 holds.
    const MANY: f64 = 2.0;
    let bytes: usize = spec.output_types().iter().map(TensorType::n_bytes).sum();
    if bytes as f64 > MANY * device.l2_bytes {
        Stores::Streamed
    } else {
        Stores::Cached
    }
}

/// Tiles and slabs, then the sums of rows.
fn smem_bytes(problem: &Problem, shape: Shape) -> usize {
    shape.smem_bytes() + row_sums::bytes(&problem.contraction, shape.rows_in_hand())
}

/// Loads of columns that a thread holds from the beginning: those of its one tile, where registers are left for them
/// beside the sums and what is asked for ahead.
fn held_columns(
    spec: &KernelSpec,
    problem: &Problem,
    shape: Shape,
    epilogue: &Epilogue,
    has_one_tile: bool,
) -> Vec<ExprId> {
    let loads = epilogue.weight_columns(spec);
    let width = problem.vectors(shape).width;
    let vectors = if shape.clustered {
        1
    } else {
        shape.n / shape.columns(width)
    };
    let bytes = epilogue.asked_bytes(&loads) * vectors;
    let may_hold = has_one_tile && shape.turns == 1 && shape.has_same_columns(width);
    if may_hold && shape.holds(bytes) {
        loads
    } else {
        Vec::new()
    }
}

/// Arrays of the columns that `loads` read, as many as fit behind everything else, and the bytes of it all.
fn columns(
    spec: &KernelSpec,
    problem: &Problem,
    shape: Shape,
    epilogue: &Epilogue,
    loads: &[ExprId],
    arch: Arch,
) -> (Vec<ColumnContext>, usize) {
    let mut end = smem_bytes(problem, shape);
    let mut found = Vec::new();
    for &load in loads {
        let (kind, size) = epilogue.held(load, shape.is_direct());
        let (value, from) = epilogue.source(spec, load);
        let at = end.next_multiple_of(16);
        // Of four vectors, the last ones may be missing.
        let n = problem
            .contraction
            .sizes
            .n
            .next_multiple_of(4 * problem.vectors(shape).width);
        let bytes = at + n * size;
        if !shape.fits(bytes, Device::of(arch)) {
            break;
        }
        let pack = problem.vectors(shape).width.min(16 / size);
        found.push(ColumnContext {
            kind,
            value,
            apart: shape.is_direct() && epilogue.is_apart(load),
            pack,
            at,
            from,
        });
        end = bytes;
    }
    (found, end)
}

fn sections(shape: Shape, stores: Stores) -> Vec<Section> {
    let exchange = if shape.clustered { CLUSTER } else { SPLIT };
    let own: &[Section] = &[TILE, exchange, MBARRIER, TENSOR_COPY, WGMMA];
    match stores {
        Stores::Cached => [COMMON, own].concat(),
        Stores::Streamed => [COMMON, &[STREAM], own].concat(),
    }
}

/// The region's signature, and both operands as tiles of them are copied.
fn signature(
    spec: &KernelSpec,
    problem: &Problem,
    shape: Shape,
    workspace_bytes: usize,
) -> (Vec<String>, Vec<Param>) {
    let (mut declared, mut passed) = parameters(spec, workspace_bytes);
    for (name, (input, view)) in ["a", "b"]
        .into_iter()
        .zip(problem.reading.views(shape, problem.vectors(shape).width))
    {
        declared.push(format!("RT_TENSOR_MAP map_{name}"));
        passed.push(Param::TensorMap { input, view });
    }
    (declared, passed)
}

fn tile_name(shape: Shape, blocking: Blocking) -> String {
    let Blocking { m, n, k, splits } = blocking;
    let tile = format!("{m}x{n}x{k}_c{}_p{}", shape.consumers, shape.stages);
    let tile = match (splits, shape.turns) {
        (1, 1) => tile,
        (1, turns) => format!("{tile}_t{turns}"),
        _ => format!("{tile}_s{splits}"),
    };
    if shape.is_direct() {
        return format!("{tile}_d");
    }
    tile
}
