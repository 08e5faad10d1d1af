//! `gemm_simt`: sums of products in full precision, tiled in shared memory and registers.
//!
//! Takes every contraction in any kind of number, and computes in the kind the products have:
//! strict `f32` for floats up to that. Matrix instructions are `gemm_mma`'s business.

use serde::Serialize;

use super::{Template, field_names, fill, knob, variant};
use crate::ir::DType;
use crate::kernel::body::region::{kernel_name, operands};
use crate::kernel::device::Device;
use crate::kernel::error::KernelError;
use crate::kernel::gemm::contraction::{Contraction, Side};
use crate::kernel::gemm::cost::{STEP_CLK, Tiling, predicted_us, split_choices};
use crate::kernel::gemm::epilogue::{Early, Epilogue, best_width};
use crate::kernel::gemm::operand::{Along, Cut, best_cut, is_plain, memory_kind};
use crate::kernel::gemm::parts::{
    Blocking, epilogue_work, fetch_work, is_oversized, memory_us, parameters, ranked, register_limit,
    resident_blocks, tensors,
};
use crate::kernel::prelude::{COMMON, SPLIT, Section, TILE, translation_unit};
use crate::kernel::print::expr::{Operand, index_type};
use crate::kernel::print::types::{value_bytes, value_type};
use crate::kernel::source::{Arch, Source, Variant};
use crate::kernel::spec::KernelSpec;

pub static TEMPLATE: Template = Template {
    name: "gemm_simt",
    text: include_str!("../../../templates/gemm_simt.cu.tera"),
    variants,
    render,
    fields: || field_names(&GemmSimtContext::default()),
};

#[derive(Clone, Debug, Default, Serialize)]
struct GemmSimtContext {
    name: String,
    params: Vec<String>,
    index_type: &'static str,
    value: &'static str,
    sum: &'static str,
    m: usize,
    n: usize,
    tiles_m: usize,
    tiles_n: usize,
    tiles_k: usize,
    splits: usize,
    threads: usize,
    resident: usize,
    tile_m: usize,
    tile_n: usize,
    tile_k: usize,
    thread_m: usize,
    thread_n: usize,
    vector_m: usize,
    vector_n: usize,
    lanes_n: usize,
    tickets_bytes: usize,
    operands: Vec<OperandContext>,
    width: usize,
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
    width: usize,
    load: String,
}

/// A tile and the part of it that a thread owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    m: usize,
    n: usize,
    k: usize,
    thread_m: usize,
    thread_n: usize,
}

const fn shape(m: usize, n: usize, k: usize, thread_m: usize, thread_n: usize) -> Shape {
    Shape {
        m,
        n,
        k,
        thread_m,
        thread_n,
    }
}

/// Large tiles reuse most, small ones fill the device, flat ones waste least where one side
/// has few rows.
const SHAPES: &[Shape] = &[
    shape(128, 128, 8, 8, 8),
    shape(128, 128, 16, 8, 8),
    shape(128, 64, 16, 8, 8),
    shape(64, 128, 16, 8, 8),
    shape(64, 64, 16, 8, 4),
    shape(64, 64, 16, 4, 4),
    shape(32, 64, 16, 4, 4),
    shape(64, 32, 16, 4, 4),
    shape(32, 32, 16, 4, 4),
    shape(16, 64, 32, 4, 4),
    shape(64, 16, 32, 4, 4),
    shape(8, 128, 32, 2, 4),
    shape(128, 8, 32, 4, 2),
];

const MOST_VARIANTS: usize = 12;

impl Shape {
    fn threads(self) -> usize {
        (self.m / self.thread_m) * (self.n / self.thread_n)
    }

    /// Lanes of a warp next to each other along `n`: a patch of lanes that is nearly square
    /// reads least from shared memory.
    fn lanes_n(self) -> usize {
        let (across, down) = (self.n / self.thread_n, self.m / self.thread_m);
        [8, 4, 16, 2, 32, 1]
            .into_iter()
            .find(|&lanes| across.is_multiple_of(lanes) && down.is_multiple_of(32 / lanes))
            .expect("tiles have whole warps")
    }

    fn smem_bytes(self, value: DType) -> usize {
        2 * self.k * (self.m + 4 + self.n + 4) * memory_bytes_of(value)
    }

    fn blocking(self, splits: usize) -> Blocking {
        Blocking {
            m: self.m,
            n: self.n,
            k: self.k,
            splits,
        }
    }

    fn of(variant: &Variant) -> Result<(Shape, usize), KernelError> {
        let knob = |name| knob(&TEMPLATE, variant, name);
        let shape = shape(
            knob("tile_m")?,
            knob("tile_n")?,
            knob("tile_k")?,
            knob("thread_m")?,
            knob("thread_n")?,
        );
        Ok((shape, knob("splits")?))
    }
}

/// Bytes of a value in shared memory: its value type's size.
fn memory_bytes_of(value: DType) -> usize {
    match value_type(value) {
        "int8_t" | "uint8_t" | "bool" => 1,
        "int16_t" | "uint16_t" => 2,
        _ => value_bytes(value),
    }
}

/// How both operands and the results are cut.
struct Cuts {
    a: Cut,
    b: Cut,
    width: usize,
}

impl Cuts {
    fn of(contraction: &Contraction, inputs: &[Operand]) -> Cuts {
        let cut = |side| best_cut(contraction, side, inputs, (4, 1));
        Cuts {
            a: cut(Side::A),
            b: cut(Side::B),
            width: best_width(contraction, 4),
        }
    }
}

fn variants(spec: &KernelSpec, arch: Arch) -> Vec<Variant> {
    let Some(contraction) = Contraction::of(spec) else {
        return Vec::new();
    };
    let inputs = operands(spec);
    let cuts = Cuts::of(&contraction, &inputs);
    let (device, moved_us) = (Device::of(arch), memory_us(spec, arch));
    let plain =
        [cuts.a, cuts.b].map(|cut| is_plain(&contraction, cut, &inputs, memory_kind(&contraction, cut.side)));
    let per_element = [0, 1].map(|side| fetch_work(&contraction, [cuts.a, cuts.b][side], plain[side]));
    let sizes = contraction.sizes;
    let mut found = Vec::new();
    for &shape in SHAPES {
        if is_oversized(shape.m, sizes.m, 32) || is_oversized(shape.n, sizes.n, 32) {
            continue;
        }
        let mut evaluated = [shape.m, shape.n].into_iter().zip(plain);
        if evaluated.any(|(rows, plain)| !plain && rows * shape.k > MOST_EVALUATED * shape.threads()) {
            continue;
        }
        let resident = resident(&contraction, shape);
        for splits in choices(&contraction, shape, device) {
            let tiling = tiling(&contraction, shape, &cuts, splits, per_element);
            if let Some(us) = predicted_us(sizes, &tiling, moved_us, device) {
                let knobs = [
                    ("tile_m", shape.m),
                    ("tile_n", shape.n),
                    ("tile_k", shape.k),
                    ("thread_m", shape.thread_m),
                    ("thread_n", shape.thread_n),
                    ("splits", splits),
                    ("resident", resident),
                ];
                found.push(variant(TEMPLATE.name, &knobs, us));
            }
        }
    }
    ranked(found, MOST_VARIANTS)
}

/// Values of an operand that a thread evaluates for one step: compilers hold an address and tests for each of them, and
/// spill where there are more.
const MOST_EVALUATED: usize = 24;

/// Narrow integers are summed by one block: no test covers more. Sums of 32 bits wrap, so their
/// order does not matter.
fn choices(contraction: &Contraction, shape: Shape, device: &Device) -> Vec<usize> {
    if !contraction.sum.is_float() && contraction.sum != DType::I32 {
        return vec![1];
    }
    split_choices(contraction.sizes, (shape.m, shape.n, shape.k), device)
}

/// Blocks per SM that the compiler is asked for.
fn resident(contraction: &Contraction, shape: Shape) -> usize {
    match value_bytes(contraction.product) {
        4 => resident_blocks(contraction, shape.threads(), shape.thread_m * shape.thread_n),
        _ => 1,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
fn tiling(
    contraction: &Contraction,
    shape: Shape,
    cuts: &Cuts,
    splits: usize,
    per_element: [f64; 2],
) -> Tiling {
    // Multiply-adds an SM starts per clock; doubles have a fraction of the units.
    let (lanes, words) = match value_bytes(contraction.product) {
        8 => (16.0, 2),
        // Integers are multiplied at half the rate of floats.
        _ if !contraction.product.is_float() => (64.0, 1),
        _ => (128.0, 1),
    };
    let threads = shape.threads();
    let limit = register_limit(threads, resident(contraction, shape));
    let staged = (shape.m + shape.n) * shape.k / threads;
    let element_bytes = value_bytes(contraction.product) as f64;
    let warps = threads as f64 / 32.0;
    let reads = (shape.thread_m.div_ceil(4) + shape.thread_n.div_ceil(4)) as f64;
    // A read from shared memory takes the issue slots of about four multiply-adds.
    let issue = 1.0 + 4.0 * reads / (shape.thread_m * shape.thread_n) as f64;
    let writes = (shape.m + shape.n) as f64 * shape.k as f64 / 32.0;
    Tiling {
        m: shape.m,
        n: shape.n,
        k: shape.k,
        threads,
        registers: (words * (shape.thread_m * shape.thread_n + shape.thread_m + shape.thread_n + staged)
            + 44)
            .min(limit),
        smem_bytes: shape.smem_bytes(contraction.product),
        stages: 2,
        splits,
        clustered: false,
        math_clk: (shape.m * shape.n * shape.k) as f64 / lanes * issue,
        smem_clk: words as f64 * (warps * shape.k as f64 * reads + writes),
        step_bytes: ((shape.m + shape.n) * shape.k) as f64 * element_bytes,
        copy_clk: 0.0,
        fetch_work: (shape.m as f64 * per_element[0] + shape.n as f64 * per_element[1]) * shape.k as f64,
        epilogue_work: (shape.m * shape.n) as f64 * (epilogue_work(contraction) + 8.0 / cuts.width as f64),
        epilogue_clk: 0.0,
        result_bytes: 0.0,
        turns: 1,
        step_clk: STEP_CLK,
        stays: false,
    }
}

fn render(spec: &KernelSpec, variant: &Variant, _arch: Arch) -> Result<Source, KernelError> {
    let (shape, splits) = Shape::of(variant)?;
    let contraction = Contraction::of(spec).ok_or_else(|| KernelError::NotAccepted {
        template: TEMPLATE.name,
        reason: "it is not one sum of products".to_owned(),
    })?;
    let inputs = operands(spec);
    let cuts = Cuts::of(&contraction, &inputs);
    let (blocking, sizes) = (shape.blocking(splits), contraction.sizes);
    let sum_bytes = value_bytes(contraction.sum);
    let workspace_bytes = blocking.workspace_bytes(sizes, sum_bytes);
    let (params, passed) = parameters(spec, workspace_bytes);
    let (tiles_m, tiles_n, tiles_k) = blocking.tiles(sizes);
    let tile = format!(
        "{}x{}x{}_{}x{}",
        shape.m, shape.n, shape.k, shape.thread_m, shape.thread_n
    );
    let tile = if splits > 1 {
        format!("{tile}_s{splits}")
    } else {
        tile
    };
    let name = kernel_name(spec, TEMPLATE.name, &tile);
    let width = cuts.width.min(shape.thread_n);
    let epilogue = Epilogue::new(&contraction, width, tiles_m * shape.m, tiles_n * shape.n);
    let smem_bytes = shape.smem_bytes(contraction.product);
    let text = fill(
        &TEMPLATE,
        &GemmSimtContext {
            name: name.clone(),
            params,
            index_type: index_type(&tensors(spec)),
            value: value_type(contraction.product),
            sum: value_type(contraction.sum),
            m: sizes.m,
            n: sizes.n,
            tiles_m,
            tiles_n,
            tiles_k,
            splits,
            threads: shape.threads(),
            resident: knob(&TEMPLATE, variant, "resident")?,
            tile_m: shape.m,
            tile_n: shape.n,
            tile_k: shape.k,
            thread_m: shape.thread_m,
            thread_n: shape.thread_n,
            vector_m: shape.thread_m.min(4),
            vector_n: shape.thread_n.min(4),
            lanes_n: shape.lanes_n(),
            tickets_bytes: blocking.tickets_bytes(sizes),
            operands: vec![
                operand_context(&contraction, blocking, cuts.a, &inputs)?,
                operand_context(&contraction, blocking, cuts.b, &inputs)?,
            ],
            width,
            epilogue: epilogue.text(spec, Early::default(), 3)?,
        },
    )?;
    Ok(Source {
        name,
        header: String::new(),
        text: translation_unit(&sections(), &text),
        template: TEMPLATE.name,
        launch: blocking.launch(sizes, shape.threads(), smem_bytes),
        params: passed,
        workspace_bytes,
    })
}

fn operand_context(
    contraction: &Contraction,
    blocking: Blocking,
    cut: Cut,
    inputs: &[Operand],
) -> Result<OperandContext, KernelError> {
    let (name, letter, rows, axis) = match cut.side {
        Side::A => ("a", "A", "M", "m"),
        Side::B => ("b", "B", "N", "n"),
    };
    let fetch = blocking.fetch(contraction, cut);
    Ok(OperandContext {
        name,
        letter,
        rows,
        axis,
        along_k: cut.along == Along::K,
        width: cut.width,
        load: fetch.values(inputs, 3, &format!("next_{name}[i]"), None)?,
    })
}

fn sections() -> Vec<Section> {
    [COMMON, &[TILE, SPLIT]].concat()
}
