//! `column`: threads along rows that are neighbours in memory. Reductions over axes that are
//! not the innermost one, such as pooling an NHWC tensor or a softmax over channels of NCHW.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{Template, field_names, fill, indexed, knob, variant};
use crate::kernel::body::region::{kernel_name, lane_index, operands, results, signature};
use crate::kernel::device::{Device, NODE_US};
use crate::kernel::error::KernelError;
use crate::kernel::prelude::{COMMON, translation_unit};
use crate::kernel::print::expr::{Operand, Printer, index_type};
use crate::kernel::print::types::{value_bytes, value_type};
use crate::kernel::print::vector::Lane;
use crate::kernel::row::plan::{RowBody, RowOutput, RowShape, row_body, row_shape};
use crate::kernel::row::print::{
    Accumulator, Stored, hoist, inefficiency, pass_roots, prepare_store, store_lane, store_wide,
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
    len: usize,
    body: String,
}

/// How a kernel covers its rows: a column is `width` neighbouring ones.
#[derive(Clone, Copy, Debug)]
struct Plan {
    width: usize,
    columns_per_block: usize,
    slices: usize,
}

/// Static shared memory for combining slices, well below the 48 KB every architecture has.
const MAX_SCRATCH_BYTES: usize = 40 << 10;

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
            let plan = Plan {
                width,
                columns_per_block,
                slices,
            };
            let idle = slices > shape.len
                || columns_per_block > 2 * shape.n_rows.div_ceil(width).next_multiple_of(8);
            if idle || scratch_bytes(&rows, plan) > MAX_SCRATCH_BYTES {
                continue;
            }
            let us = predicted_us(spec, &shape, &rows, plan, Device::of(arch));
            found.push(variant(
                TEMPLATE.name,
                &[
                    ("width", width),
                    ("columns_per_block", columns_per_block),
                    ("slices", slices),
                ],
                us,
            ));
        }
    }
    // Slices and widths multiply; the slowest are not worth compiling.
    found.sort_by(|a, b| a.predicted_us.total_cmp(&b.predicted_us));
    found.truncate(6);
    found
}

/// Bytes of the scratch arrays: one per type of accumulator.
fn scratch_bytes(rows: &RowBody, plan: Plan) -> usize {
    if plan.slices == 1 {
        return 0;
    }
    let types: BTreeSet<(usize, &str)> = rows
        .stages
        .iter()
        .map(|stage| match stage.op {
            ReduceOp::ArgMax { .. } | ReduceOp::ArgMin { .. } => {
                (16, value_type(rows.body.dtype(stage.term)))
            }
            _ => (value_bytes(stage.dtype), value_type(stage.dtype)),
        })
        .collect();
    let bytes: usize = types.into_iter().map(|(bytes, _)| bytes).sum();
    plan.columns_per_block * plan.slices * plan.width * bytes
}

#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
fn predicted_us(spec: &KernelSpec, shape: &RowShape, rows: &RowBody, plan: Plan, device: &Device) -> f64 {
    let n_columns = (shape.n_rows / plan.width) as f64;
    let n_passes = rows.passes().len() as f64 + 0.5;
    let per_element: f64 = pass_roots(rows, |_| true)
        .iter()
        .flatten()
        .map(|&root| indexed::work(&rows.body, root))
        .sum();
    let threads = (plan.columns_per_block * plan.slices) as f64;
    let fill = device.fill((n_columns / plan.columns_per_block as f64).ceil(), threads);
    let issue = n_columns * shape.len as f64 * (per_element * 2.0 * plan.width as f64 + 8.0 * n_passes)
        / (f64::from(device.n_sms) * device.clock_ghz * 1e3 * 64.0);
    let steps = (shape.len as f64 / plan.slices as f64).ceil();
    let chain = n_passes
        * (steps * 0.03
            + if plan.slices > 1 {
                0.2 + 0.01 * plan.slices as f64
            } else {
                0.0
            });
    let lane = lane_of(rows, plan.width);
    let bytes = inefficiency(spec, rows, lane, rows.vars[0]);
    NODE_US + (device.memory_us(bytes) * n_passes.sqrt() / fill).max(issue) + chain
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
    };
    let refused = || KernelError::NotAccepted {
        template: TEMPLATE.name,
        reason: "its reductions are not over rows of one length".to_owned(),
    };
    let shape = row_shape(spec).ok_or_else(refused)?;
    let rows = plan_body(spec, &shape, plan.width)?.ok_or_else(refused)?;
    let (inputs, outputs) = (operands(spec), results(spec));
    let all: Vec<Operand> = inputs.iter().chain(&outputs).cloned().collect();
    let body = Emit::new(&rows, plan, &all, &outputs).print()?;
    let (params, passed) = signature(spec);
    let name = kernel_name(
        spec,
        TEMPLATE.name,
        &format!("v{}_{}x{}", plan.width, plan.columns_per_block, plan.slices),
    );
    let threads = plan.columns_per_block * plan.slices;
    let n_columns = shape.n_rows / plan.width;
    let text = fill(
        &TEMPLATE,
        &ColumnContext {
            name: name.clone(),
            params,
            threads,
            index_type: index_type(&all),
            width: plan.width,
            n_columns,
            columns_per_block: plan.columns_per_block,
            slices: plan.slices,
            len: shape.len,
            body,
        },
    )?;
    let blocks = n_columns.div_ceil(plan.columns_per_block);
    Ok(Source {
        name,
        header: String::new(),
        text: translation_unit(COMMON, &text),
        template: TEMPLATE.name,
        launch: Launch::in_a_row(blocks, threads, 0),
        params: passed,
        workspace_bytes: 0,
    })
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
}

impl<'a> Emit<'a> {
    fn new(rows: &'a RowBody, plan: Plan, all: &'a [Operand], outputs: &'a [Operand]) -> Self {
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
            let Accumulator { ty, name, start, .. } = &accumulator;
            self.printer.line(&format!("{ty} {name}[{width}];"));
            self.printer.line("#pragma unroll");
            self.printer
                .line(&format!("for (int i = 0; i < {width}; ++i) {name}[i] = {start};"));
            accumulators.push(accumulator);
        }
        self.printer.open("for (int p = slice; p < kLen; p += kSlices) {");
        let counter = self.open_lanes(&roots);
        for (accumulator, &root) in accumulators.iter().zip(&roots) {
            let value = self.printer.value(root);
            let step = accumulator.step(&format!("{}[{counter}]", accumulator.name), &value, "p");
            self.printer.line(&step);
        }
        self.printer.close();
        self.printer.close();
        for (accumulator, &stage) in accumulators.into_iter().zip(stages) {
            self.combine(&accumulator);
            self.done.push((stage, accumulator));
        }
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
