//! `attention_simt`: attention in any float kind outside tensor cores, in one pass over the keys.
//!
//! Tiles of keys and values lie in shared memory in the kind that is computed in. A group of
//! lanes has a few query rows: each lane the scores of every so many-th key, and its own columns
//! of the result.

use serde::Serialize;

use super::{Template, field_names, fill, knob, variant};
use crate::ir::DType;
use crate::kernel::attention::{Attention, Tiles, TilesText, chunk_width, parts_bytes};
use crate::kernel::body::region::{kernel_name, operand_bytes, signature, tensors_index_type};
use crate::kernel::device::{Device, NODE_US};
use crate::kernel::error::KernelError;
use crate::kernel::prelude::{ASYNC_COPY, ATTENTION, COMMON, MMA, translation_unit};
use crate::kernel::print::types::{value_bytes, value_type};
use crate::kernel::source::{Arch, Launch, Source, Variant};
use crate::kernel::spec::KernelSpec;

pub static TEMPLATE: Template = Template {
    name: "attention_simt",
    text: include_str!("../../../templates/attention_simt.cu.tera"),
    variants,
    render,
    fields: || field_names(&AttentionSimtContext::default()),
};

#[derive(Clone, Debug, Default, Serialize)]
struct AttentionSimtContext {
    name: String,
    params: Vec<String>,
    index_type: &'static str,
    value_type: &'static str,
    threads: usize,
    lanes: usize,
    thread_rows: usize,
    thread_keys: usize,
    thread_chunks: usize,
    tile_rows: usize,
    tile_keys: usize,
    row_tiles: usize,
    depth: usize,
    value_depth: usize,
    width: usize,
    value_width: usize,
    padded_depth: usize,
    #[serde(flatten)]
    tiles: TilesText,
}

/// How a block covers its rows and keys.
#[derive(Clone, Copy, Debug)]
struct Plan {
    threads: usize,
    /// Threads that share rows.
    lanes: usize,
    thread_rows: usize,
    thread_keys: usize,
}

const PLANS: [Plan; 8] = [
    plan(128, 16, 4, 4),
    plan(256, 16, 4, 4),
    plan(128, 16, 2, 4),
    plan(64, 16, 4, 2),
    plan(64, 16, 2, 2),
    plan(64, 8, 2, 4),
    plan(32, 8, 2, 4),
    plan(128, 16, 1, 2),
];
/// Bytes of registers for sums, scores and operands of one thread.
const MAX_REGISTER_BYTES: usize = 640;
const WIDTHS: [usize; 3] = [4, 2, 1];

const fn plan(threads: usize, lanes: usize, thread_rows: usize, thread_keys: usize) -> Plan {
    Plan {
        threads,
        lanes,
        thread_rows,
        thread_keys,
    }
}

impl Plan {
    fn tile_rows(self) -> usize {
        self.threads / self.lanes * self.thread_rows
    }

    fn tile_keys(self) -> usize {
        self.lanes * self.thread_keys
    }

    fn n_blocks(self, attention: &Attention) -> usize {
        attention.n_tiles(self.tile_rows())
    }

    /// Vectors of four columns of the result that a thread has.
    fn thread_chunks(self, attention: &Attention) -> usize {
        attention.value_depth.div_ceil(4 * self.lanes)
    }

    fn value_pitch(self, attention: &Attention) -> usize {
        4 * self.lanes * self.thread_chunks(attention)
    }

    fn smem_bytes(self, attention: &Attention) -> usize {
        let pitch = attention.depth.next_multiple_of(4) + 4;
        let (rows, keys) = (self.tile_rows(), self.tile_keys());
        let value_pitch = self.value_pitch(attention);
        let bytes = value_bytes(attention.dtype);
        let tiles = (rows + keys) * pitch + keys * value_pitch + rows * (keys + 4);
        (tiles * bytes).max(parts_bytes(1, rows, value_pitch, bytes))
    }

    fn register_bytes(self, attention: &Attention) -> usize {
        let sums = self.thread_rows * self.thread_chunks(attention) * 4;
        let product = self.thread_rows * self.thread_keys + 4 * (self.thread_rows + self.thread_keys);
        (sums + product) * value_bytes(attention.dtype)
    }
}

fn variants(spec: &KernelSpec, arch: Arch) -> Vec<Variant> {
    let Some((attention, node)) = Attention::of(spec) else {
        return Vec::new();
    };
    if !matches!(attention.after(spec, node, 1), Ok(Some(_))) {
        return Vec::new();
    }
    let device = Device::of(arch);
    let mut found = Vec::new();
    for plan in PLANS {
        let too_large = plan.smem_bytes(&attention) > device.max_smem_per_block as usize
            || plan.register_bytes(&attention) > MAX_REGISTER_BYTES;
        let idle = plan.tile_rows() >= 4 * attention.queries.next_multiple_of(4);
        if too_large || idle {
            continue;
        }
        let us = predicted_us(spec, &attention, plan, device);
        let knobs = [
            ("threads", plan.threads),
            ("lanes", plan.lanes),
            ("thread_rows", plan.thread_rows),
            ("thread_keys", plan.thread_keys),
        ];
        found.push(variant(TEMPLATE.name, &knobs, us));
    }
    found
}

/// As for tensor cores: the chain of a thread, or what an SM multiplies and reads for all.
#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
fn predicted_us(spec: &KernelSpec, attention: &Attention, plan: Plan, device: &Device) -> f64 {
    let (depth, value_depth) = (attention.depth as f64, plan.value_pitch(attention) as f64);
    let (rows, keys) = (plan.tile_rows() as f64, plan.tile_keys() as f64);
    let bytes = value_bytes(attention.dtype) as f64;
    let by_smem = f64::from(device.smem_per_sm) / (plan.smem_bytes(attention) as f64 + 1024.0);
    let by_threads = f64::from(device.max_threads_per_sm) / plan.threads as f64;
    let registers = (plan.register_bytes(attention) / 4 + 48) as f64;
    let by_registers = 65536.0 / (registers * plan.threads as f64);
    let per_sm = by_smem.min(by_threads).min(by_registers).floor().max(1.0);
    let n_blocks = plan.n_blocks(attention) as f64;
    let resident = (n_blocks / f64::from(device.n_sms)).ceil().min(per_sm);
    let waves = (n_blocks / (f64::from(device.n_sms) * resident)).ceil();
    let steps = (attention.seen_keys() / keys).ceil().max(1.0);

    let wide = if attention.dtype == DType::F64 { 8.0 } else { 1.0 };
    let (thread_rows, thread_keys) = (plan.thread_rows as f64, plan.thread_keys as f64);
    let chunks = plan.thread_chunks(attention) as f64;
    let own_products = thread_rows * (thread_keys * depth + chunks * 4.0 * keys);
    let own_reads = (thread_rows + thread_keys) * depth / 4.0 + keys * (chunks + thread_rows / 4.0);
    let chain = 1600.0 + own_products * 1.2 * wide + own_reads * 8.0;
    let multiply = rows * keys * (depth + value_depth) / (device.f32_flops_per_clk * 0.5 * 0.75) * wide;
    let shared = own_reads * plan.threads as f64 * 4.0 * bytes / 128.0 * 0.6;
    let fetched = keys * (depth + value_depth) * 4.0 / 40.0;
    let busy = resident * multiply.max(shared).max(fetched);
    let cycles = 2500.0 + waves * steps * chain.max(busy);
    NODE_US + (cycles / (device.clock_ghz * 1e3)).max(device.memory_us(operand_bytes(spec)))
}

fn render(spec: &KernelSpec, variant: &Variant, arch: Arch) -> Result<Source, KernelError> {
    let plan = Plan {
        threads: knob(&TEMPLATE, variant, "threads")?,
        lanes: knob(&TEMPLATE, variant, "lanes")?,
        thread_rows: knob(&TEMPLATE, variant, "thread_rows")?,
        thread_keys: knob(&TEMPLATE, variant, "thread_keys")?,
    };
    let (attention, node) = Attention::of(spec).ok_or_else(|| KernelError::NotAccepted {
        template: TEMPLATE.name,
        reason: "it is not an attention over tensors with elements".to_owned(),
    })?;
    let ty = value_type(attention.dtype);
    let (width, value_width) = (
        chunk_width(attention.depth, &WIDTHS),
        chunk_width(attention.value_depth, &WIDTHS),
    );
    let (params, passed) = signature(spec);
    let tile = format!(
        "{}x{}x{}_t{}l{}",
        plan.tile_rows(),
        plan.tile_keys(),
        attention.depth,
        plan.threads,
        plan.lanes
    );
    let name = kernel_name(spec, TEMPLATE.name, &tile);
    let tiles = attention.tiles_text(
        spec,
        node,
        Tiles {
            template: TEMPLATE.name,
            keys: plan.tile_keys(),
            width,
            value_width,
            ty,
        },
        arch,
    )?;
    let is_async = tiles.is_async;
    let context = AttentionSimtContext {
        name: name.clone(),
        params,
        index_type: tensors_index_type(spec),
        value_type: ty,
        threads: plan.threads,
        lanes: plan.lanes,
        thread_rows: plan.thread_rows,
        thread_keys: plan.thread_keys,
        thread_chunks: plan.thread_chunks(&attention),
        tile_rows: plan.tile_rows(),
        tile_keys: plan.tile_keys(),
        row_tiles: attention.row_tiles(plan.tile_rows()),
        depth: attention.depth,
        value_depth: attention.value_depth,
        width,
        value_width,
        padded_depth: attention.depth.next_multiple_of(4),
        tiles,
    };
    let text = fill(&TEMPLATE, &context)?;
    let copies: &[_] = if is_async {
        &[MMA, ASYNC_COPY, ATTENTION]
    } else {
        &[ATTENTION]
    };
    let sections = [COMMON, copies].concat();
    Ok(Source {
        name,
        header: String::new(),
        text: translation_unit(&sections, &text),
        template: TEMPLATE.name,
        launch: Launch::in_a_row(
            plan.n_blocks(&attention),
            plan.threads,
            plan.smem_bytes(&attention),
        ),
        params: passed,
        workspace_bytes: 0,
    })
}
