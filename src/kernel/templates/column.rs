//! `column`: threads along rows that are neighbours in memory. Reductions over axes that are
//! not the innermost one, such as pooling an NHWC tensor or a softmax over channels of NCHW.
//!
//! Where there are too few columns to fill the device, several blocks share them: each leaves what it
//! has folded in the workspace, and the last one folds that.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{Template, field_names, fill, indexed, knob, variant};
use crate::kernel::body::rebuild::Stage;
use crate::kernel::body::region::{kernel_name, lane_index, operands, results};
use crate::kernel::device::{Device, NODE_US};
use crate::kernel::error::KernelError;
use crate::kernel::gemm::parts::parameters;
use crate::kernel::prelude::{COMMON, SPLIT, translation_unit};
use crate::kernel::print::expr::{Operand, Printer, index_type};
use crate::kernel::print::types::{value_bytes, value_type};
use crate::kernel::print::vector::Lane;
use crate::kernel::row::plan::{RowBody, RowOutput, RowShape, row_body, row_shape};
use crate::kernel::row::print::{
    Accumulator, Stored, hoist, memory_us, pass_roots, prepare_store, store_lane, store_wide,
};
use crate::kernel::source::{Arch, Launch, Source, Variant};
use crate::kernel::spec::KernelSpec;
use crate::tile::{ExprId, Extent, Index, ReduceOp, VarId};

pub static TEMPLATE: Template = Template {
    name: "column",
    text: include_str!("../../../templates/column.cu.tera"),
    variants,
    render,
    fields: || field_names(&ColumnContext::default()),
};

#[derive(Clone, Debug, Default, Serialize)]
struct ColumnContext {
    name: String,
    params: Vec<String>,
    threads: usize,
    index_type: &'static str,
    width: usize,
    n_columns: usize,
    columns_per_block: usize,
    slices: usize,
    splits: usize,
    len: usize,
    body: String,
}

/// How a kernel covers its rows: a column is `width` neighbouring ones.
#[derive(Clone, Copy, Debug)]
struct Plan {
    width: usize,
    columns_per_block: usize,
    slices: usize,
    /// Blocks that share their columns.
    splits: usize,
}

impl Plan {
    fn threads(self) -> usize {
        self.columns_per_block * self.slices
    }

    /// Blocks of one split.
    fn shares(self, shape: &RowShape) -> usize {
        (shape.n_rows / self.width).div_ceil(self.columns_per_block)
    }

    fn n_blocks(self, shape: &RowShape) -> usize {
        self.shares(shape) * self.splits
    }
}

/// Static shared memory for combining slices, well below the 48 KB every architecture has.
const MAX_SCRATCH_BYTES: usize = 40 << 10;

/// Positions that a thread should have at least where blocks share columns.
const MIN_SHARED_STEPS: usize = 2;

const SHAPES: [(usize, usize); 8] = [
    (128, 1),
    (32, 4),
    (32, 8),
    (32, 16),
    (32, 32),
    (8, 16),
    (8, 64),
    (64, 1),
];

fn plan_body(spec: &KernelSpec, shape: &RowShape, width: usize) -> Result<Option<RowBody>, KernelError> {
    row_body(
        spec,
        shape,
        &[shape.n_rows / width, shape.len, width],
        &|vars| {
            Index::var(vars[0])
                .times(&Extent::from(width))
                .plus(&lane_index(vars[2], width))
        },
        &|vars| Index::var(vars[1]),
    )
}

fn variants(spec: &KernelSpec, arch: Arch) -> Vec<Variant> {
    let Some(shape) = row_shape(spec) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for width in [8, 4, 2, 1] {
        let least = spec
            .input_types()
            .iter()
            .map(|ty| ty.dtype.size_bytes())
            .min()
            .unwrap_or(4);
        if width * least > 16 || !shape.n_rows.is_multiple_of(width) {
            continue;
        }
        let Ok(Some(rows)) = plan_body(spec, &shape, width) else {
            continue;
        };
        for (columns_per_block, slices) in SHAPES {
            let whole = Plan {
                width,
                columns_per_block,
                slices,
                splits: 1,
            };
            for splits in split_choices(&shape, &rows, whole, Device::of(arch)) {
                let plan = Plan { splits, ..whole };
                let idle = slices > shape.len
                    || columns_per_block > 2 * shape.n_rows.div_ceil(width).next_multiple_of(8);
                if idle || scratch_bytes(&rows, plan) > MAX_SCRATCH_BYTES {
                    continue;
                }
                let us = predicted_us(spec, &shape, &rows, plan, Device::of(arch));
                let knobs = [
                    ("width", width),
                    ("columns_per_block", columns_per_block),
                    ("slices", slices),
                    ("splits", splits),
                ];
                found.push(variant(TEMPLATE.name, &knobs, us));
            }
        }
    }
    // Slices and widths multiply; the slowest are not worth compiling.
    found.sort_by(|a, b| a.predicted_us.total_cmp(&b.predicted_us));
    found.truncate(6);
    found
}

/// Numbers of blocks that may share columns, up to what fills the device. What has one element per position, or
/// folds twice, needs the whole fold in every block.
fn split_choices(shape: &RowShape, rows: &RowBody, whole: Plan, device: &Device) -> Vec<usize> {
    let may_share =
        whole.slices > 1 && rows.passes().len() == 1 && rows.outputs.iter().all(|output| output.per_row);
    let most_threads = device.n_sms as usize * device.max_threads_per_sm as usize;
    let fills = |splits: usize| splits * whole.n_blocks(shape) * whole.threads() <= most_threads;
    let is_long = |splits: usize| splits * whole.slices * MIN_SHARED_STEPS <= shape.len;
    [1, 2, 4, 8, 16, 32, 64]
        .into_iter()
        .filter(|&splits| splits == 1 || (may_share && fills(splits) && is_long(splits)))
        .collect()
}

/// Bytes of one accumulator.
fn accumulator_bytes(stage: &Stage) -> usize {
    match stage.op {
        // A value and its position.
        ReduceOp::ArgMax { .. } | ReduceOp::ArgMin { .. } => 16,
        _ => value_bytes(stage.dtype),
    }
}

/// Bytes of the scratch arrays: one per type of accumulator.
fn scratch_bytes(rows: &RowBody, plan: Plan) -> usize {
    if plan.slices == 1 {
        return 0;
    }
    let types: BTreeSet<(usize, &str)> = rows
        .stages
        .iter()
        .map(|stage| {
            let value = match stage.op {
                ReduceOp::ArgMax { .. } | ReduceOp::ArgMin { .. } => value_type(rows.body.dtype(stage.term)),
                _ => value_type(stage.dtype),
            };
            (accumulator_bytes(stage), value)
        })
        .collect();
    let bytes: usize = types.into_iter().map(|(bytes, _)| bytes).sum();
    plan.threads() * plan.width * bytes
}

/// Where the tickets of blocks that share columns end in the workspace, and then each accumulator's shares;
/// the last is the end of all.
fn shares_at(shape: &RowShape, rows: &RowBody, plan: Plan) -> Vec<usize> {
    let n_columns = plan.n_blocks(shape) * plan.columns_per_block * plan.width;
    let tickets = (plan.shares(shape) * 4).next_multiple_of(256);
    let ends = rows.stages.iter().scan(tickets, |end, stage| {
        *end += (n_columns * accumulator_bytes(stage)).next_multiple_of(256);
        Some(*end)
    });
    std::iter::once(tickets).chain(ends).collect()
}

/// Writing shares and waiting for the last block.
const SHARE_US: f64 = 1.3;
/// Reading four shares at a time.
const SHARE_READ_US: f64 = 0.4;

#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
fn predicted_us(spec: &KernelSpec, shape: &RowShape, rows: &RowBody, plan: Plan, device: &Device) -> f64 {
    let n_columns = (shape.n_rows / plan.width) as f64;
    let n_passes = rows.passes().len() as f64 + 0.5;
    let per_element: f64 = pass_roots(rows, |_| true)
        .iter()
        .flatten()
        .map(|&root| indexed::work(&rows.body, root))
        .sum();
    // Wide loads need fewer threads to keep as much under way.
    let widest = spec.input_types().iter().map(|ty| ty.dtype.size_bytes()).max();
    let load = (plan.width * widest.unwrap_or(4)) as f64 / 8.0;
    let fill = device.fill(
        plan.n_blocks(shape) as f64,
        plan.threads() as f64 * load.clamp(0.5, 2.0),
    );
    let issue = n_columns * shape.len as f64 * (per_element * 2.0 * plan.width as f64 + 8.0 * n_passes)
        / (f64::from(device.n_sms) * device.clock_ghz * 1e3 * 64.0);
    let steps = (shape.len as f64 / (plan.slices * plan.splits) as f64).ceil();
    let chain = n_passes * (steps * 0.03 + (plan.slices as f64).log2() * (0.05 + 0.005 * plan.width as f64));
    let lane = lane_of(rows, plan.width);
    let memory = memory_us(spec, rows, lane, rows.vars[0], device);
    let shared = if plan.splits > 1 {
        SHARE_US + SHARE_READ_US * (plan.splits as f64 / plan.slices as f64 / 4.0).ceil()
    } else {
        0.0
    };
    NODE_US + (memory * n_passes.sqrt() / fill).max(issue) + chain + shared
}

fn lane_of(rows: &RowBody, width: usize) -> Lane {
    Lane {
        var: rows.vars[2],
        width,
    }
}

fn render(spec: &KernelSpec, variant: &Variant, _arch: Arch) -> Result<Source, KernelError> {
    let plan = Plan {
        width: knob(&TEMPLATE, variant, "width")?,
        columns_per_block: knob(&TEMPLATE, variant, "columns_per_block")?,
        slices: knob(&TEMPLATE, variant, "slices")?,
        splits: knob(&TEMPLATE, variant, "splits")?,
    };
    let refused = || KernelError::NotAccepted {
        template: TEMPLATE.name,
        reason: "its reductions are not over rows of one length".to_owned(),
    };
    let shape = row_shape(spec).ok_or_else(refused)?;
    let rows = plan_body(spec, &shape, plan.width)?.ok_or_else(refused)?;
    let (inputs, outputs) = (operands(spec), results(spec));
    let all: Vec<Operand> = inputs.iter().chain(&outputs).cloned().collect();
    let shares_at = shares_at(&shape, &rows, plan);
    let workspace_bytes = if plan.splits > 1 {
        shares_at.last().copied().unwrap_or(0)
    } else {
        0
    };
    let body = Emit::new(&rows, plan, &all, &outputs, shares_at).print()?;
    let (params, passed) = parameters(spec, workspace_bytes);
    let name = kernel_name(spec, TEMPLATE.name, &tile_name(plan));
    let text = fill(
        &TEMPLATE,
        &ColumnContext {
            name: name.clone(),
            params,
            threads: plan.threads(),
            index_type: index_type(&all),
            width: plan.width,
            n_columns: shape.n_rows / plan.width,
            columns_per_block: plan.columns_per_block,
            slices: plan.slices,
            splits: plan.splits,
            len: shape.len,
            body,
        },
    )?;
    let sections = if plan.splits > 1 {
        [COMMON, &[SPLIT]].concat()
    } else {
        COMMON.to_vec()
    };
    Ok(Source {
        name,
        header: String::new(),
        text: translation_unit(&sections, &text),
        template: TEMPLATE.name,
        launch: Launch::in_a_row(plan.n_blocks(&shape), plan.threads(), 0),
        params: passed,
        workspace_bytes,
    })
}

fn tile_name(plan: Plan) -> String {
    let tile = format!("v{}_{}x{}", plan.width, plan.columns_per_block, plan.slices);
    if plan.splits > 1 {
        format!("{tile}_s{}", plan.splits)
    } else {
        tile
    }
}

/// Prints the passes of one thread.
struct Emit<'a> {
    printer: Printer<'a>,
    rows: &'a RowBody,
    plan: Plan,
    lane: Lane,
    outputs: &'a [Operand],
    /// Accumulators of finished passes, arrays over the lanes.
    done: Vec<(usize, Accumulator)>,
    /// Shared arrays by element type.
    scratch: Vec<(String, String)>,
    /// Where the shares of each accumulator begin in the workspace, those of all blocks.
    shares_at: Vec<usize>,
}

impl<'a> Emit<'a> {
    fn new(
        rows: &'a RowBody,
        plan: Plan,
        all: &'a [Operand],
        outputs: &'a [Operand],
        shares_at: Vec<usize>,
    ) -> Self {
        let mut printer = Printer::new(&rows.body, all);
        printer.accumulators_depend_on(&BTreeSet::from([rows.vars[2]]));
        printer.bind(rows.vars[0], "column");
        printer.bind(rows.vars[1], "p");
        Emit {
            printer,
            rows,
            plan,
            lane: lane_of(rows, plan.width),
            outputs,
            done: Vec::new(),
            scratch: Vec::new(),
            shares_at,
        }
    }

    fn print(mut self) -> Result<String, KernelError> {
        for stages in self.rows.passes() {
            self.fold_pass(&stages);
        }
        self.output_pass(false);
        self.output_pass(true);
        self.printer.finish()
    }

    /// Positions and lanes: what a thread loops over.
    fn inner(&self) -> BTreeSet<VarId> {
        BTreeSet::from([self.rows.vars[1], self.rows.vars[2]])
    }

    fn fold_pass(&mut self, stages: &[usize]) {
        let rows = self.rows;
        let width = self.lane.width;
        let roots: Vec<ExprId> = stages.iter().map(|&stage| rows.stages[stage].term).collect();
        let inner = self.inner();
        hoist(&mut self.printer, &roots, &inner);
        let mut accumulators = Vec::new();
        for &stage in stages {
            let stage = &rows.stages[stage];
            let accumulator = Accumulator::of(stage, rows.body.dtype(stage.term), &mut self.printer);
            let Accumulator { ty, name, .. } = &accumulator;
            self.printer.line(&format!("{ty} {name}[{width}];"));
            self.start(&accumulator);
            accumulators.push(accumulator);
        }
        self.printer.open(if self.plan.splits > 1 {
            "for (int p = slice * kSplits + split; p < kLen; p += kSlices * kSplits) {"
        } else {
            "for (int p = slice; p < kLen; p += kSlices) {"
        });
        let counter = self.open_lanes(&roots);
        for (accumulator, &root) in accumulators.iter().zip(&roots) {
            let value = self.printer.value(root);
            let step = accumulator.step(&format!("{}[{counter}]", accumulator.name), &value, "p");
            self.printer.line(&step);
        }
        self.printer.close();
        self.printer.close();
        for accumulator in &accumulators {
            self.combine(accumulator);
        }
        if self.plan.splits > 1 {
            self.combine_blocks(&accumulators, stages);
        }
        self.done.extend(stages.iter().copied().zip(accumulators));
    }

    /// Folds across the blocks that share columns; only the last one goes on.
    fn combine_blocks(&mut self, accumulators: &[Accumulator], stages: &[usize]) {
        let own = self.plan.splits * self.plan.columns_per_block * self.lane.width;
        let mut arrays = Vec::new();
        for (accumulator, &stage) in accumulators.iter().zip(stages) {
            let Accumulator { name, ty, .. } = accumulator;
            let array = self.printer.fresh("shares");
            let at = self.shares_at[stage];
            self.printer.line(&format!(
                "{ty}* const {array} = reinterpret_cast<{ty}*>(workspace + {at}) + int64_t(share) * {own};"
            ));
            self.printer
                .line(&format!("rt_share<kColumnsPerBlock>({name}, {array}, split);"));
            arrays.push(array);
        }
        self.printer
            .line("if (!rt_last_arriver(reinterpret_cast<uint32_t*>(workspace) + share, kSplits)) return;");
        for (accumulator, array) in accumulators.iter().zip(arrays) {
            let Accumulator { name, fold, .. } = accumulator;
            self.start(accumulator);
            self.printer.line(&format!(
                "rt_shares_fold<{fold}, kColumnsPerBlock, kSlices, kSplits>({name}, {array});"
            ));
            self.combine(accumulator);
        }
    }

    /// Gives every lane of an accumulator what changes nothing.
    fn start(&mut self, accumulator: &Accumulator) {
        let Accumulator { name, start, .. } = accumulator;
        let width = self.lane.width;
        self.printer.line("#pragma unroll");
        self.printer
            .line(&format!("for (int i = 0; i < {width}; ++i) {name}[i] = {start};"));
    }

    fn open_lanes(&mut self, roots: &[ExprId]) -> String {
        let counter = self.printer.fresh("lane");
        for (stage, accumulator) in &self.done {
            let slot = u8::try_from(*stage).expect("regions have under 256 reductions");
            let element = format!("{}[{counter}]", accumulator.name);
            self.printer.bind_accumulator(slot, &accumulator.result(&element));
        }
        let loads = self.printer.shared_work(self.lane, roots);
        self.printer.line("#pragma unroll");
        self.printer.bind(self.lane.var, &counter);
        let width = self.lane.width;
        self.printer.open(&format!(
            "for (int {counter} = 0; {counter} < {width}; ++{counter}) {{"
        ));
        for (load, array) in loads {
            self.printer.preset(load, &format!("{array}[{counter}]"));
        }
        counter
    }

    /// Folds across the slices of the block.
    fn combine(&mut self, accumulator: &Accumulator) {
        if self.plan.slices == 1 {
            return;
        }
        let Accumulator { name, ty, fold, .. } = accumulator;
        let known = self
            .scratch
            .iter()
            .find(|(own, _)| own == ty)
            .map(|(_, name)| name.clone());
        let scratch = known.unwrap_or_else(|| {
            let scratch = self.printer.fresh("scratch");
            let n = self.plan.columns_per_block * self.plan.slices * self.lane.width;
            self.printer.line(&format!("__shared__ {ty} {scratch}[{n}];"));
            self.scratch.push((ty.clone(), scratch.clone()));
            scratch
        });
        self.printer.line(&format!(
            "rt_slice_fold<{fold}, kColumnsPerBlock, kSlices>({name}, {scratch});"
        ));
    }

    /// Stores the outputs of one element per row, or those of one per position.
    fn output_pass(&mut self, per_row: bool) {
        let rows = self.rows;
        let found: Vec<(&RowOutput, &Operand)> = rows
            .outputs
            .iter()
            .zip(self.outputs)
            .filter(|(output, _)| output.per_row == per_row)
            .collect();
        if found.is_empty() {
            return;
        }
        let roots: Vec<ExprId> = found.iter().map(|(output, _)| output.value).collect();
        if per_row {
            self.printer.open("if (active && slice == 0) {");
        } else {
            let inner = self.inner();
            hoist(&mut self.printer, &roots, &inner);
            self.printer
                .open("for (int p = slice; active && p < kLen; p += kSlices) {");
        }
        let stored: Vec<Stored> = found
            .iter()
            .map(|(output, to)| prepare_store(&mut self.printer, rows, output, to, self.lane))
            .collect();
        let counter = self.open_lanes(&roots);
        for ((output, to), stored) in found.iter().zip(&stored) {
            let value = self.printer.value(output.value);
            store_lane(&mut self.printer, stored, to, &value, &counter);
        }
        self.printer.close();
        for ((_, to), stored) in found.iter().zip(&stored) {
            store_wide(&mut self.printer, stored, to, self.lane);
        }
        self.printer.close();
    }
}
