//! `attention_wgmma`: attention in 16-bit floats with the matrix instructions of four warps at once
//! (`sm_90a`), in one pass over the keys.
//!
//! A block has some groups of four warps, each with 64 query rows, and walks over tiles of keys and
//! values that all groups read out of shared memory. While one group exponentiates, another one's
//! products go on.

use serde::Serialize;

use super::{Template, field_names, fill, knob, may_release, variant};
use crate::ir::DType;
use crate::kernel::attention::{Attention, Tiles, TilesText, parts_bytes};
use crate::kernel::attention_rates::{GROUP_ROWS, clock_ghz, group_clk, launch_us, tile_bytes};
use crate::kernel::body::region::{kernel_name, signature, tensors_index_type};
use crate::kernel::device::Device;
use crate::kernel::error::KernelError;
use crate::kernel::gemm::parts::register_limit;
use crate::kernel::prelude::{ASYNC_COPY, ATTENTION, COMMON, MMA, TILE, WGMMA, translation_unit};
use crate::kernel::print::types::storage_type;
use crate::kernel::source::{Arch, Launch, Source, Variant};
use crate::kernel::spec::KernelSpec;

pub static TEMPLATE: Template = Template {
    name: "attention_wgmma",
    text: include_str!("../../../templates/attention_wgmma.cu.tera"),
    variants,
    render,
    fields: || field_names(&AttentionWgmmaContext::default()),
};

#[derive(Clone, Debug, Default, Serialize)]
struct AttentionWgmmaContext {
    name: String,
    /// Whether later kernels may begin while this one is at work.
    releases: bool,
    params: Vec<String>,
    index_type: &'static str,
    element: &'static str,
    threads: usize,
    groups: usize,
    tile_rows: usize,
    tile_keys: usize,
    row_tiles: usize,
    chunks: usize,
    value_chunks: usize,
    steps: usize,
    value_tiles: usize,
    part_pitch: usize,
    #[serde(flatten)]
    tiles: TilesText,
}

/// How a block covers its rows and keys.
#[derive(Clone, Copy, Debug)]
struct Plan {
    groups: usize,
    tile_keys: usize,
}

/// Depth of one instruction.
const STEP: usize = 16;
const PLANS: [(usize, usize); 6] = [(1, 64), (1, 128), (2, 64), (2, 128), (3, 64), (3, 128)];

impl Plan {
    fn tile_rows(self) -> usize {
        GROUP_ROWS * self.groups
    }

    fn threads(self) -> usize {
        128 * self.groups
    }

    fn n_blocks(self, attention: &Attention) -> usize {
        attention.n_tiles(self.tile_rows())
    }

    /// Tiles and, after them, rows of results in the same memory.
    fn smem_bytes(self, attention: &Attention) -> usize {
        let (depth, value_depth) = (attention.depth, attention.value_depth);
        let tiles = 2 * (self.tile_rows() * depth + self.tile_keys * (depth + value_depth));
        tiles.max(parts_bytes(1, self.tile_rows(), part_pitch(attention), 4))
    }

    /// Registers of a thread for scores, weights and results.
    fn sums(self, attention: &Attention) -> usize {
        self.tile_keys / 2 + self.tile_keys / 4 + attention.value_depth / 2
    }
}

fn part_pitch(attention: &Attention) -> usize {
    attention.value_depth + 4
}

fn accepted(spec: &KernelSpec, arch: Arch) -> Option<Attention> {
    if !arch.is_hopper() {
        return None;
    }
    let (attention, node) = Attention::of(spec)?;
    let fits = |depth: usize| [64, 128].contains(&depth);
    let fits = matches!(attention.dtype, DType::F16 | DType::BF16)
        && fits(attention.depth)
        && fits(attention.value_depth);
    (fits && matches!(attention.after(spec, node, 8), Ok(Some(_)))).then_some(attention)
}

fn variants(spec: &KernelSpec, arch: Arch) -> Vec<Variant> {
    let Some(attention) = accepted(spec, arch) else {
        return Vec::new();
    };
    let device = Device::of(arch);
    let mut found = Vec::new();
    for (groups, tile_keys) in PLANS {
        let plan = Plan { groups, tile_keys };
        let idle_rows = groups > 1 && plan.tile_rows() >= attention.queries.next_multiple_of(GROUP_ROWS) * 2;
        let idle_keys = tile_keys > 64 && tile_keys >= 2 * attention.keys;
        // Addresses and what a row keeps beside its sums.
        let registers = plan.sums(&attention) + 40;
        let too_large = plan.smem_bytes(&attention) > device.max_smem_per_block as usize
            || registers > register_limit(plan.threads(), 1);
        if idle_rows || idle_keys || too_large {
            continue;
        }
        let us = predicted_us(spec, &attention, plan, device);
        let knobs = [("groups", groups), ("tile_keys", tile_keys)];
        found.push(variant(TEMPLATE.name, &knobs, us));
    }
    found.sort_by(|a, b| a.predicted_us.total_cmp(&b.predicted_us));
    found
}

/// A block walks over its tiles. Its groups meet at two barriers a step, so that they multiply together and
/// exponentiate together; several blocks of an SM, or reads, bound the steps as well.
#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
fn predicted_us(spec: &KernelSpec, attention: &Attention, plan: Plan, device: &Device) -> f64 {
    /// Share of the rate of the L2 cache that lasts.
    const L2: f64 = 0.69;
    /// Instructions for a score, clocks of a step beside them, and before and after all steps.
    const SCORE_WORK: f64 = 12.0;
    const STEP_CLK: f64 = 900.0;
    const TILE_CLK: f64 = 2500.0;
    /// How much of the shorter of copying and computing does not overlap, and of several blocks' work does.
    const EXPOSED: f64 = 0.23;
    const SHARED: f64 = 0.75;
    let (keys, groups) = (plan.tile_keys as f64, plan.groups as f64);
    let clock = clock_ghz(device);
    let by_smem = f64::from(device.smem_per_sm) / (plan.smem_bytes(attention) as f64 + 1024.0);
    let registers = (plan.sums(attention) + 56) as f64;
    let by_registers = 65536.0 / (registers * plan.threads() as f64);
    let per_sm = by_smem.min(by_registers).floor().max(1.0);
    let n_blocks = plan.n_blocks(attention) as f64;
    let sms = f64::from(device.n_sms);
    let resident = (n_blocks / sms).ceil().min(per_sm);
    // Blocks under a causal mask end at different times, so that the last wave is less idle.
    let waves = n_blocks / (sms * resident);
    let waves = attention
        .causal_offset
        .map_or_else(|| waves.ceil(), |_| (waves + 0.5).max(1.0));
    let steps = (attention.seen_keys() / keys).ceil().max(1.0);
    let math = group_clk(attention, plan.tile_keys, device);
    let work = groups * (math + GROUP_ROWS as f64 * keys * SCORE_WORK / 128.0);
    // Every block reads all tiles, most of them out of the L2 cache.
    let fetched = tile_bytes(attention, plan.tile_keys) * n_blocks.min(resident * sms);
    let l2 = fetched / (L2 * device.l2_gb_per_s / clock);
    let step = (STEP_CLK + work).max(resident * work * SHARED).max(l2);
    let own_us = waves * (steps * step + TILE_CLK) / (clock * 1e3);
    launch_us(spec, own_us, EXPOSED, device)
}

fn render(spec: &KernelSpec, variant: &Variant, arch: Arch) -> Result<Source, KernelError> {
    let plan = Plan {
        groups: knob(&TEMPLATE, variant, "groups")?,
        tile_keys: knob(&TEMPLATE, variant, "tile_keys")?,
    };
    let found = accepted(spec, arch).and_then(|_| Attention::of(spec));
    let (attention, node) = found.ok_or_else(|| KernelError::NotAccepted {
        template: TEMPLATE.name,
        reason: "it is not an attention in 16-bit floats with depths of 64 or 128, on sm_90a".to_owned(),
    })?;
    let element = storage_type(attention.dtype);
    let (params, passed) = signature(spec);
    let tile = attention.tile_name(plan.tile_rows(), plan.tile_keys, plan.threads());
    let name = kernel_name(spec, TEMPLATE.name, &tile);
    let tiles = attention.tiles_text(
        spec,
        node,
        Tiles::of_halves(TEMPLATE.name, plan.tile_keys, element),
        arch,
    )?;
    let is_async = tiles.is_async;
    let launch = Launch::in_a_row(
        plan.n_blocks(&attention),
        plan.threads(),
        plan.smem_bytes(&attention),
    );
    let context = AttentionWgmmaContext {
        name: name.clone(),
        releases: may_release(&launch, arch, spec.options),
        params,
        index_type: tensors_index_type(spec),
        element,
        threads: plan.threads(),
        groups: plan.groups,
        tile_rows: plan.tile_rows(),
        tile_keys: plan.tile_keys,
        row_tiles: attention.row_tiles(plan.tile_rows()),
        chunks: attention.depth / 8,
        value_chunks: attention.value_depth / 8,
        steps: attention.depth / STEP,
        value_tiles: attention.value_depth / 8,
        part_pitch: part_pitch(&attention),
        tiles,
    };
    let text = fill(&TEMPLATE, &context)?;
    let copies: &[_] = if is_async { &[ASYNC_COPY] } else { &[] };
    let sections = [COMMON, &[TILE, MMA, WGMMA], copies, &[ATTENTION]].concat();
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
