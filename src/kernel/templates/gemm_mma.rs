//! `gemm_mma`: sums of products with the matrix instructions of a warp.
//!
//! 16-bit floats accumulate in `f32`; `f32` itself takes part as TF32 where the options allow
//! it, and 8-bit integers accumulate in 32 bits. An operand that is neighbours in memory, along `k` or along its rows, is copied to
//! shared memory asynchronously; any other is computed in registers on its way there.

mod context;
mod cuts;
mod prediction;
mod shape;

use self::context::{GemmMmaContext, Plan};
use self::cuts::{Cuts, Mode, has_async_copy};
use self::prediction::{resident, tiling};
use self::shape::{SHAPES, Shape};
use super::{Template, field_names, fill, halving, knob, may_release, variant};
use crate::kernel::body::region::{kernel_name, operands};
use crate::kernel::device::Device;
use crate::kernel::error::KernelError;
use crate::kernel::gemm::contraction::Contraction;
use crate::kernel::gemm::cost::{predicted_us, split_choices};
use crate::kernel::gemm::epilogue::has_whole_strips;
use crate::kernel::gemm::parts::{Blocking, fetch_work, is_oversized, memory_us, parameters, ranked};
use crate::kernel::prelude::{ASYNC_COPY, COMMON, FRAGMENT, MMA, SPLIT, Section, TILE, translation_unit};
use crate::kernel::source::{Arch, Source, Variant};
use crate::kernel::spec::KernelSpec;

pub static TEMPLATE: Template = Template {
    name: "gemm_mma",
    text: include_str!("../../../templates/gemm_mma.cu.tera"),
    variants,
    render,
    fields: || field_names(&GemmMmaContext::default()),
};

const MOST_VARIANTS: usize = 20;

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
        let resident = resident(shape, &cuts);
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
            let tiling = tiling(shape, &cuts, splits, per_element, arch);
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

fn render(spec: &KernelSpec, variant: &Variant, arch: Arch) -> Result<Source, KernelError> {
    let not_accepted = || KernelError::NotAccepted {
        template: TEMPLATE.name,
        reason: "it is not one sum of products that a matrix instruction computes".to_owned(),
    };
    let contraction = Contraction::with_row_sums(spec).ok_or_else(not_accepted)?;
    let inputs = operands(spec);
    let cuts = Cuts::of(contraction, spec, &inputs, arch).ok_or_else(not_accepted)?;
    let (shape, splits) = Shape::of(variant, cuts.element)?;
    let plan = Plan {
        spec,
        inputs: &inputs,
        cuts: &cuts,
        shape,
        splits,
        resident: knob(&TEMPLATE, variant, "resident")?,
    };
    let (blocking, sizes) = (plan.blocking(), cuts.contraction.sizes);
    let workspace_bytes = blocking.workspace_bytes(sizes, 4);
    let (params, passed) = parameters(spec, workspace_bytes);
    let name = kernel_name(spec, TEMPLATE.name, &tile_name(shape, blocking));
    let launch = halving(
        blocking.launch(sizes, shape.threads(), shape.smem_bytes(&cuts)),
        arch,
        spec.options,
    );
    let text = fill(
        &TEMPLATE,
        &GemmMmaContext {
            name: name.clone(),
            params,
            releases: may_release(&launch, arch, spec.options),
            own: plan.context()?,
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
