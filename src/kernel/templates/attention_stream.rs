//! `attention_stream`: attention in 16-bit floats with the matrix instructions of four warps at once
//! (`sm_90a`), over operands that the copy engine reads.
//!
//! One group of warps has tiles of keys and values copied, as many ahead as there is memory for. The
//! others multiply 64 query rows each: the product with the next keys is issued together with that of
//! the current values, so that both go on while a group exponentiates. Groups issue them in turns.

use serde::Serialize;

use super::{Template, field_names, fill, knob, may_release, variant};
use crate::ir::{DType, Node};
use crate::kernel::attention::{Attention, Boxed};
use crate::kernel::attention_rates::{GROUP_ROWS, clock_ghz, group_clk, launch_us, tile_bytes};
use crate::kernel::body::region::{kernel_name, signature, tensors_index_type};
use crate::kernel::device::Device;
use crate::kernel::error::KernelError;
use crate::kernel::gemm::parts::register_limit;
use crate::kernel::prelude::{ATTENTION, COMMON, MBARRIER, MMA, TENSOR_COPY, WGMMA, translation_unit};
use crate::kernel::print::types::{float_literal, storage_type};
use crate::kernel::source::{Arch, Launch, Param, Source, Variant};
use crate::kernel::spec::KernelSpec;

pub static TEMPLATE: Template = Template {
    name: "attention_stream",
    text: include_str!("../../../templates/attention_stream.cu.tera"),
    variants,
    render,
    fields: || field_names(&AttentionStreamContext::default()),
};

#[derive(Clone, Debug, Default, Serialize)]
struct AttentionStreamContext {
    name: String,
    /// Whether later kernels may begin while this one is at work.
    releases: bool,
    params: Vec<String>,
    index_type: &'static str,
    element: &'static str,
    threads: usize,
    resident: usize,
    groups: usize,
    stages: usize,
    tile_rows: usize,
    tile_keys: usize,
    row_tiles: usize,
    tiles: usize,
    heads: usize,
    queries: usize,
    keys: usize,
    depth: usize,
    value_depth: usize,
    slab: usize,
    slabs_at: usize,
    barriers_at: usize,
    /// Registers that copying threads keep and multiplying ones take.
    released: usize,
    claimed: usize,
    q_at: usize,
    k_at: usize,
    v_at: usize,
    /// Which head of an operand goes with `head`.
    q_head: String,
    k_head: String,
    v_head: String,
    causal_offset: Option<String>,
    factor: String,
    /// What else makes scores, of so many neighbouring keys at a time; empty where a factor does.
    score: String,
    near: usize,
    bias: String,
    /// Whether a group has to ask of a tile which keys its rows see, and how; empty where they see all.
    cut: String,
    seen: String,
    store: String,
}

/// How blocks cover rows and keys.
#[derive(Clone, Copy, Debug)]
struct Plan {
    groups: usize,
    tile_keys: usize,
    /// Tiles of keys, and of values, in shared memory.
    stages: usize,
    /// Blocks of an SM.
    resident: usize,
    /// Whether blocks stay and take several tiles of rows.
    stays: bool,
}

/// Threads of a group, of which the one that copies is.
const GROUP_THREADS: usize = 128;
/// Columns of a warp that pass through shared memory at a time, and what a row of them has more.
const SLAB: usize = 32;
const SLAB_GAP: usize = 8;
/// Groups, keys of a tile, stages, and blocks of an SM. Several groups with tiles of fewer keys were never
/// the fastest.
const PLANS: [(usize, usize, usize, usize); 5] = [
    (1, 64, 2, 2),
    (1, 64, 3, 3),
    (1, 128, 2, 2),
    (2, 128, 2, 1),
    (3, 128, 2, 1),
];

impl Plan {
    fn of(variant: &Variant) -> Result<Plan, KernelError> {
        let knob = |name| knob(&TEMPLATE, variant, name);
        Ok(Plan {
            groups: knob("groups")?,
            tile_keys: knob("tile_keys")?,
            stages: knob("stages")?,
            resident: knob("resident")?,
            stays: knob("stays")? != 0,
        })
    }

    fn knobs(self) -> [(&'static str, usize); 5] {
        [
            ("groups", self.groups),
            ("tile_keys", self.tile_keys),
            ("stages", self.stages),
            ("resident", self.resident),
            ("stays", usize::from(self.stays)),
        ]
    }

    fn tile_rows(self) -> usize {
        GROUP_ROWS * self.groups
    }

    fn threads(self) -> usize {
        GROUP_THREADS * (self.groups + 1)
    }

    fn n_tiles(self, attention: &Attention) -> usize {
        attention.n_tiles(self.tile_rows())
    }

    fn n_blocks(self, attention: &Attention, device: &Device) -> usize {
        let n_tiles = self.n_tiles(attention);
        if self.stays {
            n_tiles.min(self.slots(device))
        } else {
            n_tiles
        }
    }

    fn slots(self, device: &Device) -> usize {
        device.n_sms as usize * self.resident
    }

    /// Behind all tiles.
    fn slabs_at(self, attention: &Attention) -> usize {
        let (depth, value_depth) = (attention.depth, attention.value_depth);
        2 * (self.tile_rows() * depth + self.stages * self.tile_keys * (depth + value_depth))
    }

    fn barriers_at(self, attention: &Attention) -> usize {
        self.slabs_at(attention) + 4 * self.tile_rows() * (SLAB + SLAB_GAP)
    }

    fn smem_bytes(self, attention: &Attention) -> usize {
        self.barriers_at(attention) + 8 * (2 + 4 * self.stages + self.groups)
    }

    /// Registers of threads that copy, and of those that multiply.
    fn exchanged(self) -> (usize, usize) {
        const RELEASED: usize = 24;
        const MOST: usize = 240;
        let own = register_limit(self.threads(), self.resident) / 8 * 8;
        let rest = own * (self.groups + 1) - RELEASED;
        (RELEASED, (rest / self.groups / 8 * 8).min(MOST))
    }

    /// Registers of a thread for scores, weights and results.
    fn sums(self, attention: &Attention) -> usize {
        self.tile_keys / 2 + self.tile_keys / 4 + attention.value_depth / 2
    }

    fn fits(self, attention: &Attention, is_plain: bool, device: &Device) -> bool {
        // Addresses, what a row keeps beside its sums, and what scores are made of.
        let others = match (is_plain, attention.causal_offset) {
            (true, None) => 28,
            (true, Some(_)) => 36,
            (false, _) => 60,
        };
        let smem_bytes = self.smem_bytes(attention);
        let of_sm = (smem_bytes + 1024) * self.resident;
        smem_bytes <= device.max_smem_per_block as usize
            && of_sm <= device.smem_per_sm as usize
            && self.sums(attention) + others <= self.exchanged().1
    }

    /// Whether most of a tile would lie outside.
    fn is_idle(self, attention: &Attention) -> bool {
        let idle_rows =
            self.groups > 1 && self.tile_rows() >= attention.queries.next_multiple_of(GROUP_ROWS) * 2;
        idle_rows || (self.tile_keys > 64 && self.tile_keys >= 2 * attention.keys)
    }
}

/// An attention whose operands are copied.
struct Problem {
    attention: Attention,
    operands: [Boxed; 3],
}

impl Problem {
    /// Queries in tiles of `rows`, keys and values of `keys`.
    fn of(spec: &KernelSpec, arch: Arch, rows: usize, keys: usize) -> Option<Problem> {
        if !arch.is_hopper() {
            return None;
        }
        let (attention, node) = Attention::of(spec)?;
        let fits = |depth: usize| [64, 128].contains(&depth);
        let fits = matches!(attention.dtype, DType::F16 | DType::BF16)
            && fits(attention.depth)
            && fits(attention.value_depth)
            && matches!(attention.after(spec, node, 8), Ok(Some(_)));
        let boxed = |n: usize, rows: usize| attention.boxed(spec, node, n, rows);
        let operands = [boxed(0, rows)?, boxed(1, keys)?, boxed(2, keys)?];
        fits.then_some(Problem { attention, operands })
    }
}

fn variants(spec: &KernelSpec, arch: Arch) -> Vec<Variant> {
    let Some(Problem { attention, .. }) = Problem::of(spec, arch, GROUP_ROWS, GROUP_ROWS) else {
        return Vec::new();
    };
    let device = Device::of(arch);
    let is_plain = Attention::of(spec).is_some_and(|(attention, node)| attention.factor(node).is_some());
    let mut found = Vec::new();
    for (groups, tile_keys, stages, resident) in PLANS {
        for stays in [false, true] {
            let plan = Plan {
                groups,
                tile_keys,
                stages,
                resident,
                stays,
            };
            let is_other = !stays || plan.n_tiles(&attention) > plan.slots(device);
            if is_other && !plan.is_idle(&attention) && plan.fits(&attention, is_plain, device) {
                let us = predicted_us(spec, &attention, plan, device);
                found.push(variant(TEMPLATE.name, &plan.knobs(), us));
            }
        }
    }
    found.sort_by(|a, b| a.predicted_us.total_cmp(&b.predicted_us));
    found
}

/// How long a step over one tile of keys takes is bounded by the chain of one group, by what the tensor
/// cores and the schedulers of an SM do for all its groups, and by its reads.
#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
fn predicted_us(spec: &KernelSpec, attention: &Attention, plan: Plan, device: &Device) -> f64 {
    /// Share of the rate of the L2 cache: several SMs that ask for a tile at nearly the same time are answered
    /// together.
    const L2: f64 = 1.12;
    /// Instructions for a score, clocks from one product to the next, and before and after all of a tile; the
    /// first one's begin while the launch itself is counted.
    const SCORE_WORK: f64 = 10.0;
    const CHAIN_CLK: f64 = 690.0;
    const TILE_CLK: f64 = 2700.0;
    const FIRST_CLK: f64 = 1900.0;
    /// How much of the shorter of copying and computing does not overlap.
    const EXPOSED: f64 = 0.15;
    let (keys, groups) = (plan.tile_keys as f64, plan.groups as f64);
    let clock = clock_ghz(device);
    let (n_tiles, slots) = (plan.n_tiles(attention) as f64, plan.slots(device) as f64);
    let resident = (n_tiles / f64::from(device.n_sms))
        .ceil()
        .min(plan.resident as f64);

    let math = group_clk(attention, plan.tile_keys, device);
    let issue = GROUP_ROWS as f64 * keys * SCORE_WORK / 128.0;
    let busy = resident * groups * math.max(issue) * 1.1;
    let running = n_tiles.min(resident * f64::from(device.n_sms));
    let fetched = tile_bytes(attention, plan.tile_keys) * running;
    let l2 = fetched / (L2 * device.l2_gb_per_s / clock);
    let step = (CHAIN_CLK + math + issue).max(busy).max(l2);

    let steps = key_tiles(attention, plan);
    let (mean, most) = (
        steps.iter().sum::<usize>() as f64 / steps.len() as f64,
        steps.iter().copied().max().unwrap_or(1) as f64,
    );
    let own = mean * step + TILE_CLK;
    // Blocks that stay take as many tiles as others, but not tiles of the same length.
    let cycles = if n_tiles <= slots {
        own + (most - mean) * step
    } else if plan.stays {
        (n_tiles / slots).ceil() * own + 3.1 * (most - mean) * step
    } else {
        (n_tiles / slots + 1.0) * own
    };
    launch_us(spec, (cycles - FIRST_CLK) / (clock * 1e3), EXPOSED, device)
}

/// Tiles of keys of each tile of rows.
fn key_tiles(attention: &Attention, plan: Plan) -> Vec<usize> {
    let of_rows = |tile: usize| {
        let end = ((tile + 1) * plan.tile_rows()).min(attention.queries);
        let seen = attention.causal_offset.map_or(attention.keys, |offset| {
            let end = i64::try_from(end).unwrap_or(i64::MAX).saturating_add(offset);
            usize::try_from(end).unwrap_or(0).min(attention.keys)
        });
        seen.div_ceil(plan.tile_keys).max(1)
    };
    (0..attention.row_tiles(plan.tile_rows())).map(of_rows).collect()
}

fn render(spec: &KernelSpec, variant: &Variant, arch: Arch) -> Result<Source, KernelError> {
    let plan = Plan::of(variant)?;
    let found = Problem::of(spec, arch, plan.tile_rows(), plan.tile_keys).zip(Attention::of(spec));
    let (problem, (attention, node)) = found.ok_or_else(|| KernelError::NotAccepted {
        template: TEMPLATE.name,
        reason:
            "it is not an attention over strided tensors of 16-bit floats with depths of 64 or 128, on sm_90a"
                .to_owned(),
    })?;
    let device = Device::of(arch);
    let (mut params, mut passed) = signature(spec);
    for (name, Boxed { input, view, .. }) in ["q", "k", "v"].into_iter().zip(problem.operands.clone()) {
        params.push(format!("RT_TENSOR_MAP map_{name}"));
        passed.push(Param::TensorMap { input, view });
    }
    let scores = Scores::of(&attention, spec, node)?;
    let seen = attention.seen(plan.tile_keys);
    let repeats = attention.heads / attention.key_heads;
    let key_head = if repeats == 1 {
        "head".to_owned()
    } else {
        format!("head / {repeats}")
    };
    let (released, claimed) = plan.exchanged();
    let name = kernel_name(spec, TEMPLATE.name, &tile_name(plan, &attention));
    let launch = Launch::in_a_row(
        plan.n_blocks(&attention, device),
        plan.threads(),
        plan.smem_bytes(&attention),
    );
    let context = AttentionStreamContext {
        name: name.clone(),
        releases: may_release(&launch, arch, spec.options),
        params,
        index_type: tensors_index_type(spec),
        element: storage_type(attention.dtype),
        threads: plan.threads(),
        resident: plan.resident,
        groups: plan.groups,
        stages: plan.stages,
        tile_rows: plan.tile_rows(),
        tile_keys: plan.tile_keys,
        row_tiles: attention.row_tiles(plan.tile_rows()),
        tiles: plan.n_tiles(&attention),
        heads: attention.heads,
        queries: attention.queries,
        keys: attention.keys,
        depth: attention.depth,
        value_depth: attention.value_depth,
        slab: SLAB,
        slabs_at: plan.slabs_at(&attention),
        barriers_at: plan.barriers_at(&attention),
        released,
        claimed,
        q_at: problem.operands[0].first,
        k_at: problem.operands[1].first,
        v_at: problem.operands[2].first,
        q_head: "head".to_owned(),
        k_head: key_head.clone(),
        v_head: key_head,
        causal_offset: attention.causal_offset.map(|offset| offset.to_string()),
        factor: float_literal(scores.factor, false),
        score: scores.text,
        near: scores.near,
        bias: scores.bias,
        cut: cut(&attention, plan.tile_keys),
        seen: seen.unwrap_or_default(),
        store: deeper(&attention.store(spec, node, 8, TEMPLATE.name)?, 2),
    };
    let sections = [COMMON, &[MMA, MBARRIER, TENSOR_COPY, WGMMA, ATTENTION]].concat();
    Ok(Source {
        name,
        header: String::new(),
        text: translation_unit(&sections, &fill(&TEMPLATE, &context)?),
        template: TEMPLATE.name,
        launch,
        params: passed,
        workspace_bytes: 0,
    })
}

/// How products become scores.
struct Scores {
    factor: f64,
    text: String,
    /// Keys whose bias is read together.
    near: usize,
    bias: String,
}

impl Scores {
    fn of(attention: &Attention, spec: &KernelSpec, node: &Node) -> Result<Scores, KernelError> {
        let near = if attention.keys.is_multiple_of(2) { 2 } else { 1 };
        if let Some(factor) = attention.factor(node) {
            return Ok(Scores {
                factor,
                text: String::new(),
                near,
                bias: String::new(),
            });
        }
        let scaled = attention.scaled();
        let (bias, text) = match attention.near_bias(spec, node, near, 5)? {
            None => (String::new(), scaled),
            Some((bias, array)) => {
                let log2_e = float_literal(std::f64::consts::LOG2_E, false);
                (bias, format!("{scaled} + {array}[e] * {log2_e}"))
            }
        };
        Ok(Scores {
            factor: 1.0,
            text,
            near,
            bias,
        })
    }
}

fn tile_name(plan: Plan, attention: &Attention) -> String {
    let Plan {
        groups,
        stages,
        tile_keys,
        ..
    } = plan;
    let tile = format!("{}x{tile_keys}x{}", plan.tile_rows(), attention.depth);
    format!("{tile}_g{groups}_p{stages}")
}

/// Whether some row of a group does not see some key of a tile.
fn cut(attention: &Attention, tile_keys: usize) -> String {
    let tail = !attention.keys.is_multiple_of(tile_keys);
    let tests = [
        tail.then(|| "first_key + kTileKeys > kKeys".to_owned()),
        attention
            .causal_offset
            .map(|offset| format!("first_key + kTileKeys - 1 - (first_query + group * 64) > {offset}")),
    ];
    let tests: Vec<String> = tests.into_iter().flatten().collect();
    tests.join(" || ")
}

/// Statements `levels` further inside.
fn deeper(text: &str, levels: usize) -> String {
    let line = |line: &str| match line.chars().next() {
        None | Some('#') => format!("{line}\n"),
        Some(_) => format!("{}{line}\n", "  ".repeat(levels)),
    };
    text.lines().map(line).collect()
}
