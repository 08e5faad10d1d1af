//! `gemv`: products with at most eight rows on one side, which are bound by reading the other.
//!
//! The few rows lie in shared memory. Threads read the many columns in vectors along whichever
//! axis is contiguous, keep them as they lie in memory until they are used, and have the next ones
//! under way by then. Lanes, warps and blocks that share a column add up in a fixed order. Numbers of four bits
//! are summed vector by vector, each sum times the scale of its group.

use serde::Serialize;

use super::{Template, field_names, fill, knob, variant};
use crate::ir::DType;
use crate::kernel::body::rebuild;
use crate::kernel::body::region::{kernel_name, operands};
use crate::kernel::device::{Device, NODE_US};
use crate::kernel::error::KernelError;
use crate::kernel::gemm::contraction::{Contraction, Side};
use crate::kernel::gemm::epilogue::{Early, Epilogue};
use crate::kernel::gemm::grouped::grouped_cut;
use crate::kernel::gemm::operand::{Along, Cut, Fetch, best_cut, is_plain, memory_kind};
use crate::kernel::gemm::parts::{epilogue_work, fetch_work, memory_bytes, parameters, ranked, tensors};
use crate::kernel::prelude::{COMMON, SPLIT, translation_unit};
use crate::kernel::print::expr::{Operand, index_type};
use crate::kernel::print::types::{storage_type, value_bytes, value_type};
use crate::kernel::source::{Arch, Launch, Source, Variant};
use crate::kernel::spec::KernelSpec;
use crate::ops::groups::PER_BYTE;
use crate::tile::Expr;

pub static TEMPLATE: Template = Template {
    name: "gemv",
    text: include_str!("../../../templates/gemv.cu.tera"),
    variants,
    render,
    fields: || field_names(&GemvContext::default()),
};

#[derive(Clone, Debug, Default, Serialize)]
struct GemvContext {
    name: String,
    params: Vec<String>,
    index_type: &'static str,
    value: &'static str,
    sum: &'static str,
    columns: usize,
    rows: usize,
    blocks: usize,
    splits: usize,
    threads: usize,
    warps_n: usize,
    lanes: usize,
    own: usize,
    vector: usize,
    unroll: usize,
    steps: usize,
    /// Type of what a read keeps, and how many neighbours it is.
    stored: &'static str,
    wide: usize,
    /// Whether a read is numbers of four bits with a scale.
    grouped: bool,
    runs: usize,
    along_k: bool,
    /// Whether the few rows are the product's columns.
    turned: bool,
    few_width: usize,
    gap: usize,
    partial_offset: usize,
    tickets_bytes: usize,
    /// Whether the many columns are weights, which are asked for before earlier kernels are done.
    early: bool,
    /// Blocks that an SM is to have registers for, so that those of the next kernel find some; 0 for no bound.
    resident: usize,
    load_few: String,
    /// What reads a thread's vectors: those of its first step, and of the one after the present one.
    load_first: String,
    load_next: String,
    epilogue: String,
}

const MOST_ROWS: usize = 8;
const MOST_VARIANTS: usize = 12;
/// Bytes that a thread has under way: enough for the rate of memory, few registers.
const READ_AHEAD_BYTES: [usize; 2] = [64, 128];
/// Reads of a thread side by side at most: each may have a test of its own.
const MOST_READS: usize = 8;
/// Elements that are read ahead where they are computed from others.
const VALUES_AHEAD: usize = 4;
/// Sums of a lane, over the warps that fold theirs, beyond which the compiler was seen to spill.
const MOST_SUMS_TO_FOLD: usize = 128;
const MOST_SHARED_BYTES: usize = 96 << 10;
const VECTOR_BYTES: usize = 16;

/// The product, seen as few rows times many columns.
struct Problem {
    contraction: Contraction,
    few: Side,
    /// How the operand with the many columns is read.
    cut: Cut,
    /// Whether nothing but conversions is between memory and the product.
    plain: bool,
    /// The kind in memory, where vectors wait for their use as they lie there; otherwise values do.
    kept: Option<DType>,
    /// Whether a vector is numbers of four bits with one scale, and waits as such.
    grouped: bool,
    few_width: usize,
    /// Whether the many columns are weights.
    early: bool,
}

/// How threads share columns and depth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    lanes: usize,
    own: usize,
    warps_n: usize,
    warps_k: usize,
    unroll: usize,
    splits: usize,
}

impl Problem {
    fn of(spec: &KernelSpec, inputs: &[Operand]) -> Option<Problem> {
        let contraction = Contraction::of(spec)?;
        let sizes = contraction.sizes;
        let (few, many) = if sizes.m <= MOST_ROWS && sizes.m <= sizes.n {
            (Side::A, Side::B)
        } else {
            (Side::B, Side::A)
        };
        if contraction.rows(few).0 > MOST_ROWS || sizes.k == 0 || sizes.batch * sizes.m * sizes.n == 0 {
            return None;
        }
        let kind = memory_kind(&contraction, many);
        let widest = (VECTOR_BYTES / kind.size_bytes().max(1)).clamp(1, VECTOR_BYTES);
        let is_small_float = contraction.product.is_float() && contraction.product != DType::F64;
        let grouped = grouped_cut(&contraction, many, inputs).filter(|_| is_small_float);
        let cut = grouped.unwrap_or_else(|| best_cut(&contraction, many, inputs, (widest, 1)));
        let as_it_lies = is_plain(&contraction, cut, inputs, kind);
        let own = best_cut(&contraction, few, inputs, (4, 1));
        Some(Problem {
            few_width: if own.along == Along::K { own.width } else { 1 },
            plain: as_it_lies || grouped.is_some() || is_load(&contraction, many),
            kept: as_it_lies.then_some(kind),
            early: is_weight(spec, &contraction, many),
            grouped: grouped.is_some(),
            contraction,
            few,
            cut,
        })
    }

    fn rows(&self) -> usize {
        self.contraction.rows(self.few).0
    }

    /// Type of what a thread keeps.
    fn stored_type(&self) -> &'static str {
        if self.grouped {
            return storage_type(DType::U8);
        }
        self.kept
            .map_or(value_type(self.contraction.product), storage_type)
    }

    fn columns(&self) -> usize {
        self.contraction.rows(self.cut.side).0
    }

    /// Elements of `k` that a thread reads at once.
    fn vector(&self) -> usize {
        if self.cut.along == Along::K {
            self.cut.width
        } else {
            1
        }
    }

    /// Elements of a thread's reads of one step.
    fn loaded(&self, plan: Plan) -> usize {
        plan.own * self.vector()
    }

    /// Bits of one element of those that a thread keeps until it uses them.
    fn kept_bits(&self) -> usize {
        if self.grouped {
            return 8 / PER_BYTE;
        }
        8 * self
            .kept
            .map_or(value_bytes(self.contraction.product), DType::size_bytes)
    }

    /// Bytes of one element in memory.
    #[expect(clippy::cast_precision_loss, reason = "a few bits")]
    fn stored_bytes(&self) -> f64 {
        if self.grouped {
            return self.kept_bits() as f64 / 8.0;
        }
        memory_kind(&self.contraction, self.cut.side).size_bytes() as f64
    }

    /// Elements between the few rows' vectors in shared memory: those of lanes that read at the same
    /// time then lie in different banks.
    fn gap(&self) -> usize {
        let bytes = stored_value_bytes(self.contraction.product);
        if self.vector() * bytes > VECTOR_BYTES {
            VECTOR_BYTES / bytes
        } else {
            0
        }
    }

    /// Reads of a thread side by side, from none to as many as memory's rate may take.
    fn reads_ahead(&self, plan: Plan) -> Vec<usize> {
        let loaded = self.loaded(plan);
        // Vectors of columns have a test each where the columns are no whole number of blocks.
        let (choices, most_reads) = match self.cut.along {
            Along::K => (&READ_AHEAD_BYTES[..], MOST_READS / 2),
            Along::Row => (&READ_AHEAD_BYTES[..1], MOST_READS),
        };
        let most: Vec<usize> = if self.plain {
            choices.iter().map(|bytes| 8 * bytes / self.kept_bits()).collect()
        } else {
            vec![VALUES_AHEAD]
        };
        let mut found: Vec<usize> = most
            .into_iter()
            .map(|most| plan.unrolled(self, (most / loaded).clamp(1, most_reads)))
            .collect();
        found.dedup();
        found
    }

    fn plans(&self) -> Vec<Plan> {
        let shapes: Vec<[usize; 4]> = match self.cut.along {
            Along::K => [
                (4, [4, 2]),
                (2, [4, 2]),
                (4, [8, 1]),
                (2, [8, 1]),
                (1, [8, 1]),
                (4, [1, 8]),
                (2, [1, 8]),
                (2, [4, 1]),
                (4, [4, 1]),
                (2, [2, 4]),
                (4, [2, 4]),
                (1, [1, 8]),
                (1, [1, 4]),
            ]
            .map(|(own, [warps_n, warps_k])| [1, own, warps_n, warps_k])
            .to_vec(),
            Along::Row => [2, 4, 8, 16, 32]
                .into_iter()
                .flat_map(|lanes| [4, 8, 16].map(|warps_k| [lanes, self.cut.width, 1, warps_k]))
                .filter(|&[_, own, _, warps_k]| {
                    warps_k == 4 || self.rows() * own * warps_k <= MOST_SUMS_TO_FOLD
                })
                .collect(),
        };
        let splits: &[usize] = if self.contraction.sum.is_float() {
            &[1, 2, 4, 8, 16]
        } else {
            &[1]
        };
        let mut plans = Vec::new();
        for [lanes, own, warps_n, warps_k] in shapes {
            for &splits in splits {
                let plan = Plan {
                    lanes,
                    own,
                    warps_n,
                    warps_k,
                    unroll: 1,
                    splits,
                };
                // A split that reads less than once has nothing to share.
                let vectors = self.contraction.sizes.k.div_ceil(self.vector());
                if splits > 1 && vectors < 2 * splits * plan.stride() {
                    continue;
                }
                let unrolled = self
                    .reads_ahead(plan)
                    .into_iter()
                    .map(|unroll| Plan { unroll, ..plan });
                plans.extend(unrolled.filter(|plan| plan.smem_bytes(self) <= MOST_SHARED_BYTES));
            }
        }
        plans
    }
}

impl Plan {
    fn threads(self) -> usize {
        32 * self.warps_n * self.warps_k
    }

    /// Vectors of `k` that a block reads side by side.
    fn stride(self) -> usize {
        self.warps_k * 32 / self.lanes
    }

    /// At most `most` reads side by side, as long as there is more than one step.
    fn unrolled(mut self, problem: &Problem, most: usize) -> usize {
        while self.unroll < most && self.steps(problem) > 1 {
            self.unroll *= 2;
        }
        self.unroll
    }

    fn steps(self, problem: &Problem) -> usize {
        let vectors = problem.contraction.sizes.k.div_ceil(problem.vector());
        vectors.div_ceil(self.splits * self.stride() * self.unroll)
    }

    /// Depth of one split, the last of which may go beyond the product's.
    fn depth(self, problem: &Problem) -> usize {
        self.steps(problem) * self.unroll * self.stride() * problem.vector()
    }

    fn block_columns(self) -> usize {
        self.warps_n * self.lanes * self.own
    }

    fn blocks(self, problem: &Problem) -> usize {
        problem.columns().div_ceil(self.block_columns())
    }

    fn few_bytes(self, problem: &Problem) -> usize {
        let vectors = self.depth(problem) / problem.vector();
        let row = vectors * (problem.vector() + problem.gap());
        let bytes = problem.rows() * row * value_bytes(problem.contraction.product);
        bytes.next_multiple_of(VECTOR_BYTES)
    }

    fn smem_bytes(self, problem: &Problem) -> usize {
        let sums = self.warps_k * problem.rows() * self.block_columns();
        self.few_bytes(problem) + sums * value_bytes(problem.contraction.sum)
    }

    /// Blocks that an SM is to hold where a thread's bytes are few: as soon as some are done, those of the next kernel
    /// ask for weights. 0 for no bound: more columns of a thread, and halves, were seen to spill.
    fn resident(self, problem: &Problem) -> usize {
        const BLOCKS: usize = 4;
        const THREADS: usize = 256;
        const MOST_ELEMENTS: usize = 64;
        let is_narrow = problem.kept_bits() == 8 && problem.rows() == 1 && self.own == 1;
        let fits = self.threads() == THREADS && self.unroll * problem.loaded(self) <= MOST_ELEMENTS;
        if problem.early && problem.plain && is_narrow && fits {
            BLOCKS
        } else {
            0
        }
    }

    /// Registers of a thread, estimated: what it reads ahead, the values of one step, its sums, addresses.
    fn registers(self, problem: &Problem) -> usize {
        const OTHERS: usize = 20;
        const REGISTERS_PER_SM: usize = 65536;
        if let Some(of_a_block) = REGISTERS_PER_SM.checked_div(self.resident(problem)) {
            return of_a_block / self.threads();
        }
        let loaded = problem.loaded(self);
        let ahead = (self.unroll * loaded * problem.kept_bits()).div_ceil(32);
        OTHERS + ahead + loaded + problem.vector() + problem.rows() * self.own
    }

    fn tickets_bytes(self, problem: &Problem) -> usize {
        (problem.contraction.sizes.batch * self.blocks(problem) * 4).next_multiple_of(256)
    }

    fn workspace_bytes(self, problem: &Problem) -> usize {
        if self.splits == 1 {
            return 0;
        }
        let tiles = problem.contraction.sizes.batch * self.blocks(problem);
        let sums = tiles * self.splits * problem.rows() * self.block_columns();
        self.tickets_bytes(problem) + sums * value_bytes(problem.contraction.sum)
    }
}

/// Bytes of a value where it lies in shared memory: floats are widened, integers are not.
fn stored_value_bytes(kind: DType) -> usize {
    if kind.is_float() {
        value_bytes(kind)
    } else {
        kind.size_bytes()
    }
}

/// Whether all that an operand reads is weights.
fn is_weight(spec: &KernelSpec, contraction: &Contraction, side: Side) -> bool {
    let (mut open, mut n_reads) = (vec![contraction.operand(side)], 0);
    while let Some(id) = open.pop() {
        let expr = contraction.body.expr(id);
        if let Expr::Load { input, .. } = expr {
            n_reads += 1;
            if !spec.weights.contains(&(*input as usize)) {
                return false;
            }
        }
        open.extend(rebuild::operands(expr));
    }
    n_reads > 0
}

/// Whether an operand is read as it is, converted at most.
fn is_load(contraction: &Contraction, side: Side) -> bool {
    let mut id = contraction.operand(side);
    while let Expr::Map { op: "cast", args, .. } = contraction.body.expr(id) {
        id = args[0];
    }
    matches!(contraction.body.expr(id), Expr::Load { .. })
}

fn variants(spec: &KernelSpec, arch: Arch) -> Vec<Variant> {
    let inputs = operands(spec);
    let Some(problem) = Problem::of(spec, &inputs) else {
        return Vec::new();
    };
    let device = Device::of(arch);
    let found = problem
        .plans()
        .into_iter()
        .map(|plan| {
            let knobs = [
                ("lanes", plan.lanes),
                ("own", plan.own),
                ("warps_n", plan.warps_n),
                ("warps_k", plan.warps_k),
                ("unroll", plan.unroll),
                ("splits", plan.splits),
            ];
            variant(TEMPLATE.name, &knobs, predicted_us(spec, &problem, plan, device))
        })
        .collect();
    ranked(found, MOST_VARIANTS)
}

/// Reading the columns at the rate that the bytes in flight allow, after one latency for the
/// few rows and before the folds.
#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
fn predicted_us(spec: &KernelSpec, problem: &Problem, plan: Plan, device: &Device) -> f64 {
    /// Bytes that an SM must have under way for nearly the full rate of memory, and those for half of it.
    const IN_FLIGHT: f64 = 25e3;
    const HALF_IN_FLIGHT: f64 = 6e3;
    /// Two barriers and the folds, in microseconds; the first reads are under way by then.
    const FILL_US: f64 = 0.5;
    /// Time of memory beside that of kernels that also write.
    const READS_ALONE: f64 = 0.87;
    /// A load that misses, in microseconds.
    const LATENCY_US: f64 = 0.45;
    /// Fences, a ticket, and reading what the others wrote, in microseconds.
    const SPLIT_US: f64 = 1.5;
    /// Of a kernel whose weights are on their way before earlier ones are done, as measured in a chain.
    const HIDDEN_US: f64 = 2.2;
    const ISSUE_PER_CLK: f64 = 90.0;
    /// Instructions of a thread before its first product and after its last.
    const SETUP_STEPS: f64 = 250.0;
    let sizes = problem.contraction.sizes;
    let many = (sizes.batch * problem.columns() * sizes.k) as f64;
    let element = problem.stored_bytes();
    let blocks = (sizes.batch * plan.blocks(problem) * plan.splits) as f64;
    let threads = plan.threads() as f64;
    let per_sm = (f64::from(device.max_threads_per_sm) / threads)
        .min(f64::from(device.smem_per_sm) / (plan.smem_bytes(problem) + 1024) as f64)
        .min(65536.0 / (threads * plan.registers(problem) as f64))
        .floor()
        .max(1.0);
    let n_sms = f64::from(device.n_sms);
    let resident = blocks.min(per_sm * n_sms);
    let flight = resident * threads * (plan.unroll * problem.loaded(plan)) as f64 * element;
    let segment = match problem.cut.along {
        Along::K => 64.0,
        Along::Row => (plan.lanes * plan.own) as f64 * element,
    };
    let flight = flight / n_sms;
    let knee = flight / (flight + HALF_IN_FLIGHT);
    let full = knee * (flight / IN_FLIGHT).min(1.0) * (segment / 64.0).clamp(0.25, 1.0);
    let few_bytes = if plan.resident(problem) > 0 {
        memory_kind(&problem.contraction, problem.few).size_bytes()
    } else {
        4
    };
    let staged = blocks * (problem.rows() * plan.depth(problem) * few_bytes) as f64;
    let l2 = (many * element + staged) / (device.l2_gb_per_s * 0.6 * 1e3);
    let memory = (READS_ALONE * device.memory_us(memory_bytes(spec))).max(l2) / full;
    // The SM with the most blocks is done last.
    let share = (blocks / n_sms).ceil() / blocks;
    let per_element = fetch_steps(problem) + 0.2 + 1.1 * problem.rows() as f64;
    let steps = many * per_element + blocks * threads * SETUP_STEPS;
    let issue = steps * share / (device.clock_ghz * 1e3 * ISSUE_PER_CLK);
    let waves = (blocks / (per_sm * n_sms)).ceil();
    let chain = waves * plan.steps(problem) as f64 * LATENCY_US;
    let finish = epilogue_work(&problem.contraction) * 2e-3 + if plan.splits > 1 { SPLIT_US } else { 0.0 };
    let hidden = if plan.resident(problem) > 0 && waves < 2.0 {
        HIDDEN_US
    } else {
        0.0
    };
    // Blocks that find no room at first begin with nothing under way.
    NODE_US + FILL_US * waves.min(2.0) + memory.max(issue).max(chain) + finish - hidden
}

/// Instructions to read one element of the many columns and to have it as a value.
#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
fn fetch_steps(problem: &Problem) -> f64 {
    const READ: f64 = 4.0;
    let width = problem.cut.width;
    if !problem.plain {
        return fetch_work(&problem.contraction, problem.cut, false);
    }
    let convert = match problem.kept_bits() {
        // A share of a shift, bits put into a float, and the float scaled with its base taken off.
        4 => 2.5,
        // A quarter of a word's sign bits, a byte put into a float, and the float's base taken off.
        8 => 2.25,
        16 => 1.0,
        _ => 0.0,
    };
    READ / width as f64 + convert
}

fn plan_of(variant: &Variant) -> Result<Plan, KernelError> {
    let knob = |name| knob(&TEMPLATE, variant, name);
    Ok(Plan {
        lanes: knob("lanes")?,
        own: knob("own")?,
        warps_n: knob("warps_n")?,
        warps_k: knob("warps_k")?,
        unroll: knob("unroll")?,
        splits: knob("splits")?,
    })
}

fn render(spec: &KernelSpec, variant: &Variant, _arch: Arch) -> Result<Source, KernelError> {
    let plan = plan_of(variant)?;
    let inputs = operands(spec);
    let problem = Problem::of(spec, &inputs).ok_or_else(|| KernelError::NotAccepted {
        template: TEMPLATE.name,
        reason: "it is not a product with few rows".to_owned(),
    })?;
    let workspace_bytes = plan.workspace_bytes(&problem);
    let (params, passed) = parameters(spec, workspace_bytes);
    let tile = format!(
        "r{}_{}x{}_w{}x{}_s{}",
        problem.rows(),
        plan.lanes,
        plan.own,
        plan.warps_n,
        plan.warps_k,
        plan.splits
    );
    let name = kernel_name(spec, TEMPLATE.name, &tile);
    let context = context(spec, &problem, plan, &inputs, (name.clone(), params))?;
    let text = fill(&TEMPLATE, &context)?;
    let blocks = problem.contraction.sizes.batch * plan.blocks(&problem) * plan.splits;
    Ok(Source {
        name,
        header: String::new(),
        text: translation_unit(&[COMMON, &[SPLIT]].concat(), &text),
        template: TEMPLATE.name,
        launch: Launch::in_a_row(blocks, plan.threads(), plan.smem_bytes(&problem)),
        params: passed,
        workspace_bytes,
    })
}

fn context(
    spec: &KernelSpec,
    problem: &Problem,
    plan: Plan,
    inputs: &[Operand],
    (name, params): (String, Vec<String>),
) -> Result<GemvContext, KernelError> {
    let contraction = &problem.contraction;
    let depth = plan.depth(problem);
    let few_width = [problem.few_width, 2, 1]
        .into_iter()
        .find(|&width| width <= problem.few_width && depth.is_multiple_of(width))
        .expect("one divides everything");
    let few = Cut {
        side: problem.few,
        along: Along::K,
        width: few_width,
    };
    let load_few = Fetch::new(contraction, few, problem.rows(), depth * plan.splits);
    let along_k = problem.cut.along == Along::K;
    let (m, n) = match problem.few {
        Side::A => (problem.rows(), problem.columns()),
        Side::B => (problem.columns(), problem.rows()),
    };
    Ok(GemvContext {
        name,
        params,
        index_type: index_type(&tensors(spec)),
        value: value_type(contraction.product),
        sum: value_type(contraction.sum),
        columns: problem.columns(),
        rows: problem.rows(),
        blocks: plan.blocks(problem),
        splits: plan.splits,
        threads: plan.threads(),
        warps_n: plan.warps_n,
        lanes: plan.lanes,
        own: plan.own,
        vector: problem.vector(),
        unroll: plan.unroll,
        steps: plan.steps(problem),
        stored: problem.stored_type(),
        wide: problem.cut.width,
        grouped: problem.grouped,
        runs: if along_k { plan.own } else { 1 },
        along_k,
        turned: problem.few == Side::B,
        few_width,
        gap: problem.gap(),
        partial_offset: plan.few_bytes(problem),
        tickets_bytes: plan.tickets_bytes(problem),
        early: problem.early,
        resident: plan.resident(problem),
        load_few: load_few.values(inputs, 2, "next", None)?,
        load_first: load_many(problem, plan, inputs, 3)?,
        load_next: load_many(problem, plan, inputs, 5)?,
        epilogue: Epilogue::new(contraction, 1, m, n).text(spec, Early::default(), 2)?,
    })
}

/// Statements that read the vector at `batch`, `row` and `k` into `many[u][c]`.
fn load_many(
    problem: &Problem,
    plan: Plan,
    inputs: &[Operand],
    indent: usize,
) -> Result<String, KernelError> {
    let covered = plan.blocks(problem) * plan.block_columns();
    let depth = plan.depth(problem) * plan.splits;
    let fetch = Fetch::new(&problem.contraction, problem.cut, covered, depth);
    if let Some(grouped) = fetch.grouped(inputs).filter(|_| problem.grouped) {
        return fetch.load_grouped(&grouped, inputs, indent, ("many[u][c]", "scale[u][c]"));
    }
    match problem.kept.and_then(|kind| fetch.plain(inputs, kind)) {
        Some(plain) => {
            let address = fetch.address(&plain, inputs, indent)?;
            let margin = "  ".repeat(indent);
            Ok(format!(
                "{address}{margin}many[u][c] = rt_fetch<kWide>(from, valid);\n"
            ))
        }
        None => fetch.values(inputs, indent, "many[u][c].element", None),
    }
}
