//! `attention_decode`: attention of a few queries, bound by reading keys and values once.
//!
//! A block has one query row. Groups of lanes walk over keys of their own, each lane with some
//! columns of them in registers; nothing but the joined parts passes through shared memory.

use serde::Serialize;

use super::{Template, field_names, fill, knob, variant};
use crate::kernel::attention::{Attention, chunk_width, parts_bytes};
use crate::kernel::body::region::{kernel_name, operand_bytes, signature, tensors_index_type};
use crate::kernel::device::{Device, NODE_US};
use crate::kernel::error::KernelError;
use crate::kernel::prelude::{ATTENTION, COMMON, translation_unit};
use crate::kernel::print::types::{value_bytes, value_type};
use crate::kernel::source::{Arch, Launch, Source, Variant};
use crate::kernel::spec::KernelSpec;

pub static TEMPLATE: Template = Template {
    name: "attention_decode",
    text: include_str!("../../../templates/attention_decode.cu.tera"),
    variants,
    render,
    fields: || field_names(&AttentionDecodeContext::default()),
};

#[derive(Clone, Debug, Default, Serialize)]
struct AttentionDecodeContext {
    name: String,
    params: Vec<String>,
    index_type: &'static str,
    value_type: &'static str,
    threads: usize,
    lanes: usize,
    unroll: usize,
    heads: usize,
    queries: usize,
    keys: usize,
    width: usize,
    chunks: usize,
    value_width: usize,
    value_chunks: usize,
    part_pitch: usize,
    causal_offset: Option<String>,
    load_q: String,
    q: String,
    load_k: String,
    k: String,
    load_v: String,
    v: String,
    score_per_key: String,
    score: String,
    store: String,
}

/// How a row's keys and columns fall to threads.
#[derive(Clone, Copy, Debug)]
struct Plan {
    threads: usize,
    /// Keys that a group of lanes reads at once.
    unroll: usize,
    lanes: usize,
    width: usize,
    value_width: usize,
}

/// More queries than this share reads of the keys better in a tile.
const MAX_QUERIES: usize = 16;

impl Plan {
    /// As wide as loads can be; lanes enough for a whole row, `None` where a warp is too small.
    fn new(attention: &Attention, threads: usize, unroll: usize) -> Option<Plan> {
        let widest = (16 / attention.dtype.size_bytes()).min(8);
        let widths: Vec<usize> = [8, 4, 2, 1]
            .into_iter()
            .filter(|&width| width <= widest)
            .collect();
        let width = chunk_width(attention.depth, &widths);
        let value_width = chunk_width(attention.value_depth, &widths);
        let chunks = (attention.depth / width).max(attention.value_depth / value_width);
        let lanes = chunks.next_power_of_two();
        (lanes <= 32).then_some(Plan {
            threads,
            unroll,
            lanes,
            width,
            value_width,
        })
    }

    fn n_parts(self) -> usize {
        self.threads / self.lanes
    }

    fn smem_bytes(self, attention: &Attention) -> usize {
        parts_bytes(
            self.n_parts(),
            1,
            part_pitch(attention),
            value_bytes(attention.dtype),
        )
    }
}

fn part_pitch(attention: &Attention) -> usize {
    attention.value_depth.next_multiple_of(4)
}

fn variants(spec: &KernelSpec, arch: Arch) -> Vec<Variant> {
    let Some((attention, node)) = Attention::of(spec) else {
        return Vec::new();
    };
    if attention.queries > MAX_QUERIES || !matches!(attention.after(spec, node, 1), Ok(Some(_))) {
        return Vec::new();
    }
    let device = Device::of(arch);
    let mut found = Vec::new();
    for threads in [32, 64, 128, 256, 512] {
        for unroll in [1, 2, 4] {
            let Some(plan) = Plan::new(&attention, threads, unroll) else {
                continue;
            };
            let idle = threads > 32 && plan.n_parts() * unroll >= 2 * attention.keys;
            if idle || plan.smem_bytes(&attention) > 40 << 10 {
                continue;
            }
            let us = predicted_us(spec, &attention, plan, device);
            found.push(variant(
                TEMPLATE.name,
                &[("threads", threads), ("unroll", unroll)],
                us,
            ));
        }
    }
    found.sort_by(|a, b| a.predicted_us.total_cmp(&b.predicted_us));
    found.truncate(4);
    found
}

#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
fn predicted_us(spec: &KernelSpec, attention: &Attention, plan: Plan, device: &Device) -> f64 {
    let keys = attention.seen_keys().max(1.0);
    let n_blocks = attention.n_rows() as f64;
    let threads = plan.threads as f64;
    let per_sm =
        (f64::from(device.max_threads_per_sm) / threads).min(f64::from(device.max_blocks_per_sm)) * 0.5;
    let resident = (n_blocks / f64::from(device.n_sms))
        .ceil()
        .min(per_sm.floor().max(1.0));
    let waves = (n_blocks / (f64::from(device.n_sms) * resident)).ceil();
    let steps = (keys / (plan.n_parts() * plan.unroll) as f64).ceil();
    let folds = f64::from(plan.lanes.ilog2()) * 30.0;
    let chain = 900.0 + plan.unroll as f64 * (folds + 40.0 + 4.0 * plan.width as f64);
    // Instructions per key and lane: conversions and sums of both operands.
    let issue = keys * plan.lanes as f64 * (4.0 * plan.width as f64 + 30.0) / 32.0 / 4.0;
    let row_bytes = (attention.depth + attention.value_depth) as f64 * attention.dtype.size_bytes() as f64;
    let fetched = keys * row_bytes / 40.0;
    let per_wave = (steps * chain).max(resident * issue.max(fetched));
    let join = 300.0 + 12.0 * plan.n_parts() as f64;
    let cycles = 1200.0 + waves * (per_wave + join);
    NODE_US + (cycles / (device.clock_ghz * 1e3)).max(device.memory_us(operand_bytes(spec)))
}

fn render(spec: &KernelSpec, variant: &Variant, _arch: Arch) -> Result<Source, KernelError> {
    let (threads, unroll) = (
        knob(&TEMPLATE, variant, "threads")?,
        knob(&TEMPLATE, variant, "unroll")?,
    );
    let refused = || KernelError::NotAccepted {
        template: TEMPLATE.name,
        reason: "it is not an attention whose rows fit in a warp".to_owned(),
    };
    let (attention, node) = Attention::of(spec).ok_or_else(refused)?;
    let plan = Plan::new(&attention, threads, unroll).ok_or_else(refused)?;
    let (params, passed) = signature(spec);
    let name = kernel_name(
        spec,
        TEMPLATE.name,
        &format!("{}_t{threads}_u{unroll}", attention.depth),
    );
    let names = ["batch", "head", "row", "chunk"];
    let (load_q, q) = attention.read(spec, node, 0, plan.width, &names, 2)?;
    let (load_k, k) = attention.read(spec, node, 1, plan.width, &names, 4)?;
    let (load_v, v) = attention.read(spec, node, 2, plan.value_width, &names, 4)?;
    let score = attention.score(spec, node, 3, 1)?;
    let context = AttentionDecodeContext {
        name: name.clone(),
        params,
        index_type: tensors_index_type(spec),
        value_type: value_type(attention.dtype),
        threads,
        lanes: plan.lanes,
        unroll,
        heads: attention.heads,
        queries: attention.queries,
        keys: attention.keys,
        width: plan.width,
        chunks: attention.depth / plan.width,
        value_width: plan.value_width,
        value_chunks: attention.value_depth / plan.value_width,
        part_pitch: part_pitch(&attention),
        causal_offset: attention.causal_offset.map(|offset| offset.to_string()),
        load_q,
        q,
        load_k,
        k,
        load_v,
        v,
        score_per_key: score.per_key,
        score: score.own,
        store: attention.store(spec, node, plan.value_width, TEMPLATE.name)?,
    };
    let text = fill(&TEMPLATE, &context)?;
    let sections = [COMMON, &[ATTENTION]].concat();
    Ok(Source {
        name,
        header: String::new(),
        text: translation_unit(&sections, &text),
        template: TEMPLATE.name,
        launch: Launch::in_a_row(attention.n_rows(), threads, plan.smem_bytes(&attention)),
        params: passed,
        workspace_bytes: 0,
    })
}
