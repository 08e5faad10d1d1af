//! `attention_mma`: attention in 16-bit floats on tensor cores, in one pass over the keys.
//!
//! A block has some query rows and walks over tiles of keys. Each warp has sixteen rows and its
//! own part of every tile of keys; parts are joined at the end, so that short sequences of few
//! heads still give every warp work.

use serde::Serialize;

use super::{Template, field_names, fill, knob, may_release, variant};
use crate::ir::DType;
use crate::kernel::attention::{Attention, Tiles, TilesText, parts_bytes};
use crate::kernel::attention_rates::launch_us;
use crate::kernel::body::region::{kernel_name, signature, tensors_index_type};
use crate::kernel::device::Device;
use crate::kernel::error::KernelError;
use crate::kernel::prelude::{ASYNC_COPY, ATTENTION, COMMON, MMA, translation_unit};
use crate::kernel::print::types::storage_type;
use crate::kernel::source::{Arch, Launch, Source, Variant};
use crate::kernel::spec::KernelSpec;

pub static TEMPLATE: Template = Template {
    name: "attention_mma",
    text: include_str!("../../../templates/attention_mma.cu.tera"),
    variants,
    render,
    fields: || field_names(&AttentionMmaContext::default()),
};

#[derive(Clone, Debug, Default, Serialize)]
struct AttentionMmaContext {
    name: String,
    /// Whether later kernels may begin while this one is at work.
    releases: bool,
    params: Vec<String>,
    index_type: &'static str,
    element: &'static str,
    threads: usize,
    row_warps: usize,
    key_warps: usize,
    warp_keys: usize,
    tile_rows: usize,
    tile_keys: usize,
    row_tiles: usize,
    chunks: usize,
    value_chunks: usize,
    steps: usize,
    value_tiles: usize,
    pitch: usize,
    value_pitch: usize,
    part_pitch: usize,
    padded: bool,
    q_resident: bool,
    #[serde(flatten)]
    tiles: TilesText,
}

/// How a block covers its rows and keys.
#[derive(Clone, Copy, Debug)]
struct Plan {
    row_warps: usize,
    key_warps: usize,
    /// Keys of each tile that one warp has.
    warp_keys: usize,
    /// Whether the queries stay in registers, or are read again for every tile.
    q_resident: bool,
}

const SHAPES: [(usize, usize); 8] = [(1, 1), (1, 2), (1, 4), (2, 1), (2, 2), (4, 1), (4, 2), (8, 1)];
/// Depth of one instruction.
const STEP: usize = 16;
/// Registers of a thread that sums and fragments may take before the compiler spills.
const MAX_FRAGMENT_REGISTERS: usize = 176;

impl Plan {
    fn tile_rows(self) -> usize {
        16 * self.row_warps
    }

    fn tile_keys(self) -> usize {
        self.warp_keys * self.key_warps
    }

    fn threads(self) -> usize {
        32 * self.row_warps * self.key_warps
    }

    fn n_blocks(self, attention: &Attention) -> usize {
        attention.n_tiles(self.tile_rows())
    }

    /// Tiles and, after them, parts of rows in the same memory.
    fn smem_bytes(self, attention: &Attention) -> usize {
        let (pitch, value_pitch) = (pitch(attention.depth), pitch(attention.value_depth));
        let tiles = 2 * (self.tile_rows() * pitch + self.tile_keys() * (pitch + value_pitch));
        let parts = parts_bytes(self.key_warps, self.tile_rows(), part_pitch(attention), 4);
        tiles.max(parts)
    }

    fn fragment_registers(self, attention: &Attention) -> usize {
        let sums = attention.value_depth.next_multiple_of(STEP) / 2;
        let q = if self.q_resident {
            attention.depth.next_multiple_of(STEP) / 4
        } else {
            4
        };
        sums + self.warp_keys / 2 + q
    }
}

/// Elements from row to row of a tile in shared memory: one chunk more than a row, so that the
/// eight rows of a matrix lie in different banks.
fn pitch(depth: usize) -> usize {
    depth.next_multiple_of(STEP) + 8
}

fn part_pitch(attention: &Attention) -> usize {
    attention.value_depth.next_multiple_of(STEP) + 4
}

/// Whether tensor cores of `arch` multiply the kind.
fn multiplies(dtype: DType, arch: Arch) -> bool {
    match dtype {
        DType::F16 => arch.sm >= 75,
        DType::BF16 => arch.sm >= 80,
        _ => false,
    }
}

fn accepted(spec: &KernelSpec, arch: Arch) -> Option<Attention> {
    let (attention, node) = Attention::of(spec)?;
    let fits = |depth: usize| depth.is_multiple_of(8) && depth <= 256;
    let fits = multiplies(attention.dtype, arch) && fits(attention.depth) && fits(attention.value_depth);
    (fits && matches!(attention.after(spec, node, 8), Ok(Some(_)))).then_some(attention)
}

fn variants(spec: &KernelSpec, arch: Arch) -> Vec<Variant> {
    let Some(attention) = accepted(spec, arch) else {
        return Vec::new();
    };
    let device = Device::of(arch);
    let mut found = Vec::new();
    for (row_warps, key_warps) in SHAPES {
        for warp_keys in [16, 32, 64, 128] {
            let mut plan = Plan {
                row_warps,
                key_warps,
                warp_keys,
                q_resident: true,
            };
            plan.q_resident = plan.fragment_registers(&attention) <= MAX_FRAGMENT_REGISTERS;
            let idle_rows = plan.tile_rows() >= 2 * attention.queries.next_multiple_of(16);
            let idle_keys = plan.tile_keys() >= 2 * attention.keys.next_multiple_of(16);
            let smem = plan.smem_bytes(&attention);
            let too_large = smem > device.max_smem_per_block as usize
                || plan.fragment_registers(&attention) > MAX_FRAGMENT_REGISTERS;
            if idle_rows || idle_keys || too_large {
                continue;
            }
            let us = predicted_us(spec, &attention, plan, device);
            let knobs = [
                ("row_warps", row_warps),
                ("key_warps", key_warps),
                ("warp_keys", warp_keys),
                ("q_resident", usize::from(plan.q_resident)),
            ];
            found.push(variant(TEMPLATE.name, &knobs, us));
        }
    }
    found.sort_by(|a, b| a.predicted_us.total_cmp(&b.predicted_us));
    found.truncate(8);
    found
}

/// A block walks over its tiles; how long one step takes is bounded by the chain of one warp, by
/// what the tensor cores and the schedulers of an SM do for all its warps, and by its reads.
#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
fn predicted_us(spec: &KernelSpec, attention: &Attention, plan: Plan, device: &Device) -> f64 {
    let depth = attention.depth.next_multiple_of(STEP) as f64;
    let value_depth = attention.value_depth.next_multiple_of(STEP) as f64;
    let warp_keys = plan.warp_keys as f64;
    let warps = (plan.row_warps * plan.key_warps) as f64;
    let by_smem = f64::from(device.smem_per_sm) / (plan.smem_bytes(attention) as f64 + 1024.0);
    let by_threads = f64::from(device.max_threads_per_sm) / plan.threads() as f64;
    let registers = (plan.fragment_registers(attention) + 64) as f64;
    let by_registers = 65536.0 / (registers * plan.threads() as f64);
    let per_sm = by_smem.min(by_threads).min(by_registers).floor().max(1.0);
    let n_blocks = plan.n_blocks(attention) as f64;
    let resident = (n_blocks / f64::from(device.n_sms)).ceil().min(per_sm);
    let waves = n_blocks / (f64::from(device.n_sms) * resident);
    let steps = (attention.seen_keys() / plan.tile_keys() as f64).ceil().max(1.0);

    let fetched = plan.tile_keys() as f64 * (depth + value_depth) * 2.0;
    let copies = fetched / 16.0 / plan.threads() as f64;
    let chain = 700.0 + 36.0 * (depth / 16.0 + warp_keys / 16.0) + 5.0 * warp_keys + 8.0 * copies;
    let mma = 32.0 * warp_keys * (depth + value_depth) / (device.tensor_flops_per_clk * 0.5);
    // Fitted to an H200, where scores of many tiles cost more than the instructions that they are made of.
    let issue = (16.0 * warp_keys * 36.0 + 8.0 * value_depth) / 32.0 / 4.0;
    let shared = warps * warp_keys * (depth + value_depth) * 2.0 + fetched;
    // Every block reads all tiles, most of them out of the L2 cache.
    let running = n_blocks.min(resident * f64::from(device.n_sms));
    let l2 = fetched * running / (0.65 * device.l2_gb_per_s / device.clock_ghz);
    let busy = (resident * (warps * (mma + issue)).max(fetched / 40.0).max(shared / 110.0)).max(l2);
    let cycles = 1800.0
        + 12.0 * value_depth * warps / resident.max(1.0) / 4.0
        + waves.ceil() * steps * chain.max(busy);
    // Blocks that begin together read together and multiply together: half of the shorter is exposed.
    launch_us(spec, cycles / (device.clock_ghz * 1e3), 0.5, device)
}

fn render(spec: &KernelSpec, variant: &Variant, arch: Arch) -> Result<Source, KernelError> {
    let plan = Plan {
        row_warps: knob(&TEMPLATE, variant, "row_warps")?,
        key_warps: knob(&TEMPLATE, variant, "key_warps")?,
        warp_keys: knob(&TEMPLATE, variant, "warp_keys")?,
        q_resident: knob(&TEMPLATE, variant, "q_resident")? != 0,
    };
    let found = accepted(spec, arch).and_then(|_| Attention::of(spec));
    let (attention, node) = found.ok_or_else(|| KernelError::NotAccepted {
        template: TEMPLATE.name,
        reason: "it is not an attention in 16-bit floats with depths of eights up to 256".to_owned(),
    })?;
    let element = storage_type(attention.dtype);
    let (params, passed) = signature(spec);
    let tile = attention.tile_name(plan.tile_rows(), plan.tile_keys(), plan.threads());
    let name = kernel_name(spec, TEMPLATE.name, &tile);
    let tiles = attention.tiles_text(
        spec,
        node,
        Tiles::of_halves(TEMPLATE.name, plan.tile_keys(), element),
        arch,
    )?;
    let is_async = tiles.is_async;
    let launch = Launch::in_a_row(
        plan.n_blocks(&attention),
        plan.threads(),
        plan.smem_bytes(&attention),
    );
    let context = AttentionMmaContext {
        name: name.clone(),
        releases: may_release(&launch, arch, spec.options),
        params,
        index_type: tensors_index_type(spec),
        element,
        threads: plan.threads(),
        row_warps: plan.row_warps,
        key_warps: plan.key_warps,
        warp_keys: plan.warp_keys,
        tile_rows: plan.tile_rows(),
        tile_keys: plan.tile_keys(),
        row_tiles: attention.row_tiles(plan.tile_rows()),
        chunks: attention.depth / 8,
        value_chunks: attention.value_depth / 8,
        steps: attention.depth.div_ceil(STEP),
        value_tiles: attention.value_depth.next_multiple_of(STEP) / 8,
        pitch: pitch(attention.depth),
        value_pitch: pitch(attention.value_depth),
        part_pitch: part_pitch(&attention),
        padded: !attention.depth.is_multiple_of(STEP),
        q_resident: plan.q_resident,
        tiles,
    };
    let text = fill(&TEMPLATE, &context)?;
    let copies: &[_] = if is_async {
        &[MMA, ASYNC_COPY, ATTENTION]
    } else {
        &[MMA, ATTENTION]
    };
    let sections = [COMMON, copies].concat();
    Ok(Source {
        name,
        header: String::new(),
        text: translation_unit(&sections, &text),
        template: TEMPLATE.name,
        launch,
        params: passed,
        workspace_bytes: 0,
    })
}
