//! `gemm_wgmma`: sums of products with the matrix instructions of four warps at once (`sm_90a`).
//!
//! Both operands are plain tensors, or the images and filters of a convolution, whole tiles of
//! which the copy engine brings to shared memory: one group of warps asks for them, the others
//! multiply and finish. Blocks stay and take several tiles, so that copies for the next tile go
//! on while one is finished.

mod ahead;
mod context;
mod plan;
mod prediction;
mod problem;
mod reading;
mod shape;

use self::ahead::Ahead;
use self::context::GemmWgmmaContext;
use self::plan::Plan;
use self::prediction::tiling;
use self::problem::Problem;
use self::shape::{BLOCK_ROWS, SHAPES, Shape};
use super::{Template, field_names, fill, halving, may_release, variant};
use crate::kernel::body::region::kernel_name;
use crate::kernel::device::Device;
use crate::kernel::error::KernelError;
use crate::kernel::gemm::contraction::Sizes;
use crate::kernel::gemm::cost::{predicted_us, split_choices};
use crate::kernel::gemm::parts::{Blocking, is_oversized, memory_us, parameters, ranked};
use crate::kernel::prelude::{
    CLUSTER, COMMON, MATRIX_STORE, MBARRIER, SPLIT, STREAM, Section, TENSOR_COPY, TILE, WGMMA,
    translation_unit,
};
use crate::kernel::print::store::Stores;
use crate::kernel::source::{Arch, Param, Source, Variant};
use crate::kernel::spec::KernelSpec;

/// A piece's name, and its text.
macro_rules! piece {
    ($name:literal) => {
        (
            concat!("gemm_wgmma/", $name),
            include_str!(concat!("../../../templates/gemm_wgmma/", $name, ".cu.tera")),
        )
    };
}

pub static TEMPLATE: Template = Template {
    name: "gemm_wgmma",
    text: include_str!("../../../templates/gemm_wgmma.cu.tera"),
    variants,
    render,
    fields: || field_names(&GemmWgmmaContext::default()),
};

/// What the template includes: the group that copies, what the others do, and each way to finish a tile.
pub const PIECES: &[(&str, &str)] = &[
    piece!("copying"),
    piece!("places"),
    piece!("ahead"),
    piece!("stored_sums"),
    piece!("multiplying"),
    piece!("row_sums"),
    piece!("over_cluster"),
    piece!("over_workspace"),
    piece!("rounds"),
    piece!("through_slabs"),
    piece!("through_narrow_slabs"),
    piece!("in_registers"),
];

fn variants(spec: &KernelSpec, arch: Arch) -> Vec<Variant> {
    let Some(problem) = Problem::of(spec, arch) else {
        return Vec::new();
    };
    let sizes = problem.contraction.sizes;
    let is_apt = |shape: &Shape| {
        let is_oversized =
            is_oversized(shape.m, sizes.m, BLOCK_ROWS) || is_oversized(shape.n, sizes.n, BLOCK_ROWS);
        !is_oversized && problem.may_be(*shape)
    };
    let mut found = Vec::new();
    for shape in problem.shapes().filter(is_apt) {
        let own = |splits| offered(&problem, spec, Shape { splits, ..shape }, arch);
        // A tile by one block, and by as many as are likely to be best, in clusters and without.
        // Blocks that share a tile would have to share its sums of rows, too.
        let may_share = problem.contraction.row_sums.terms.is_empty() && shape.turns == 1;
        let extents = (shape.m, shape.n, Shape::k(problem.element));
        let (clusters, others) = split_choices(padded(&problem, shape), extents, Device::of(arch))
            .into_iter()
            .filter(|&splits| splits > 1 && may_share)
            .filter_map(own)
            .partition(|variant| variant.knobs["clustered"] == 1);
        found.extend(ranked(clusters, 1));
        found.extend(ranked(others, 1));
        found.extend(own(1));
    }
    ranked(found, 3 * SHAPES.len())
}

/// What is multiplied: all that a copy brings, zeros behind the channels of a tap too.
fn padded(problem: &Problem, shape: Shape) -> Sizes {
    let sizes = problem.contraction.sizes;
    let steps = problem.reading.steps(shape.blocking(problem.element), sizes);
    Sizes {
        k: steps * Shape::k(problem.element),
        ..sizes
    }
}

/// The variant of `shape`, where it is predicted to fit and to pay.
fn offered(problem: &Problem, spec: &KernelSpec, shape: Shape, arch: Arch) -> Option<Variant> {
    let (device, blocking, sizes) = (
        Device::of(arch),
        shape.blocking(problem.element),
        problem.contraction.sizes,
    );
    let (tiles_m, tiles_n, _) = blocking.tiles(sizes);
    let n_tiles = tiles_m * tiles_n * sizes.batch;
    // Where one block per SM suffices, room for a second one is taken by the next kernel's, which crowd
    // there; alone, a launch does not show that. Where executions share the device, those of others are welcome.
    let is_alone = n_tiles * shape.splits <= device.n_sms as usize;
    if shape.resident > 1 && is_alone && !spec.options.is_crowded() {
        return None;
    }
    // Sums of rows lie with the warp that has the rows, which is not the one that finishes them in a cluster.
    let clustered = problem.contraction.row_sums.is_empty()
        && shape.may_cluster(problem.vectors(shape).width, n_tiles, device);
    let shape = problem.finished_early(Shape { clustered, ..shape });
    let padded = padded(problem, shape);
    let us = predicted_us(
        padded,
        &tiling(problem, shape, is_alone),
        memory_us(spec, arch),
        device,
    )?;
    let shape = if is_alone {
        let steps = problem.reading.steps(blocking, sizes);
        shape.with_stages_for(steps.div_ceil(shape.splits))
    } else {
        shape
    };
    Some(variant(TEMPLATE.name, &shape.knobs(), us).with_registers(shape.registers_taken()))
}

fn render(spec: &KernelSpec, variant: &Variant, arch: Arch) -> Result<Source, KernelError> {
    let problem = Problem::of(spec, arch).ok_or_else(|| KernelError::NotAccepted {
        template: TEMPLATE.name,
        reason: "it is not one product of 16-bit or 8-bit tensors that copies of tiles can read, on sm_90a"
            .to_owned(),
    })?;
    let shape = Shape::of(variant)?;
    let plan = Plan::new(spec, &problem, shape, arch);
    let epilogue = plan.finishing();
    let ahead = Ahead::of(&plan, &epilogue);
    let blocking = shape.blocking(problem.element);
    let launch = shape.launch(blocking, problem.contraction.sizes, ahead.smem_bytes, arch);
    let launch = halving(launch, arch, spec.options);
    let workspace_bytes = shape.workspace_bytes(plan.n_tiles);
    let (params, passed) = signature(&plan, workspace_bytes);
    let name = kernel_name(spec, TEMPLATE.name, &tile_name(shape, blocking));
    let text = fill(
        &TEMPLATE,
        &GemmWgmmaContext {
            name: name.clone(),
            params,
            releases: may_release(&launch, arch, spec.options),
            own: plan.context(&epilogue, &ahead)?,
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

fn sections(shape: Shape, stores: Stores) -> Vec<Section> {
    let exchange = if shape.clustered { CLUSTER } else { SPLIT };
    let own: &[Section] = &[TILE, exchange, MBARRIER, TENSOR_COPY, WGMMA];
    let streams: &[Section] = match stores {
        Stores::Cached => &[],
        Stores::Streamed => &[STREAM],
    };
    let matrices: &[Section] = if shape.narrow { &[MATRIX_STORE] } else { &[] };
    [COMMON, streams, own, matrices].concat()
}

/// The region's signature, and both operands as tiles of them are copied.
fn signature(plan: &Plan<'_>, workspace_bytes: usize) -> (Vec<String>, Vec<Param>) {
    let (mut declared, mut passed) = parameters(plan.spec, workspace_bytes);
    let views = plan.problem.reading.views(plan.shape, plan.width);
    for (name, (input, view)) in ["a", "b"].into_iter().zip(views) {
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
    match (shape.is_direct(), shape.narrow) {
        (true, _) => format!("{tile}_d"),
        (_, true) => format!("{tile}_h"),
        _ => tile,
    }
}
