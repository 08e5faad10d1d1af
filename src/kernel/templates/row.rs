//! `row`: a warp or a block per row. Softmax, normalisations, arg-max, reductions of
//! neighbouring elements, and any maps around them, in one read of the row where it fits in
//! registers, and one read per dependent reduction where it does not.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{Template, field_names, fill, indexed, knob, variant};
use crate::kernel::body::region::{kernel_name, lane_index, operands, results, signature};
use crate::kernel::device::{Device, NODE_US};
use crate::kernel::error::KernelError;
use crate::kernel::prelude::{COMMON, translation_unit};
use crate::kernel::print::expr::{Operand, Printer, index_type};
use crate::kernel::print::store::store_one;
use crate::kernel::print::types::{value_bytes, value_type};
use crate::kernel::print::vector::Lane;
use crate::kernel::row::plan::{RowBody, RowShape, row_body, row_shape};
use crate::kernel::row::print::{
    Accumulator, Stored, hoist, memory_us, pass_roots, prepare_store, store_lane, store_wide,
};
use crate::kernel::source::{Arch, Launch, Source, Variant};
use crate::kernel::spec::KernelSpec;
use crate::tile::{ExprId, Extent, Index, VarId};

pub static TEMPLATE: Template = Template {
    name: "row",
    text: include_str!("../../../templates/row.cu.tera"),
    variants,
    render,
    fields: || field_names(&RowContext::default()),
};

#[derive(Clone, Debug, Default, Serialize)]
struct RowContext {
    name: String,
    params: Vec<String>,
    threads: usize,
    per_warp: bool,
    index_type: &'static str,
    n_rows: usize,
    len: usize,
    width: usize,
    threads_per_row: usize,
    rows_per_block: usize,
    n_vectors: usize,
    body: String,
}

/// How a kernel covers its rows.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// Neighbouring elements a thread handles at once.
    width: usize,
    threads_per_row: usize,
    rows_per_block: usize,
    /// Whether the row stays in registers between passes.
    resident: bool,
}

/// Registers a thread may spend on its part of the row.
const MAX_RESIDENT_BYTES: usize = 256;

impl Plan {
    fn n_vectors(self, shape: &RowShape) -> usize {
        shape.len / self.width
    }

    fn steps(self, shape: &RowShape) -> usize {
        self.n_vectors(shape).div_ceil(self.threads_per_row)
    }

    fn per_warp(self) -> bool {
        self.threads_per_row == 32
    }
}

fn plan_body(spec: &KernelSpec, shape: &RowShape, width: usize) -> Result<Option<RowBody>, KernelError> {
    row_body(
        spec,
        shape,
        &[shape.n_rows, shape.len / width, width],
        &|vars| Index::var(vars[0]),
        &|vars| {
            Index::var(vars[1])
                .times(&Extent::from(width))
                .plus(&lane_index(vars[2], width))
        },
    )
}

fn variants(spec: &KernelSpec, arch: Arch) -> Vec<Variant> {
    let Some(shape) = row_shape(spec) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for width in widths(spec, &shape) {
        let Ok(Some(rows)) = plan_body(spec, &shape, width) else {
            continue;
        };
        let kept_bytes = kept_bytes(&rows);
        for (threads_per_row, rows_per_block) in
            [(32, 4), (32, 8), (64, 1), (128, 1), (256, 1), (512, 1), (1024, 1)]
        {
            let mut plan = Plan {
                width,
                threads_per_row,
                rows_per_block,
                resident: true,
            };
            let steps = plan.steps(&shape);
            let idle = plan.n_vectors(&shape) * 2 <= threads_per_row && threads_per_row > 32;
            if idle || (rows_per_block > 4 && shape.n_rows < 4096) {
                continue;
            }
            plan.resident = steps * width * kept_bytes.max(4) <= MAX_RESIDENT_BYTES;
            if !plan.resident && threads_per_row < 256 && shape.len > 256 * width {
                continue;
            }
            let us = predicted_us(spec, &shape, &rows, plan, Device::of(arch));
            found.push(variant(
                TEMPLATE.name,
                &[
                    ("width", width),
                    ("threads_per_row", threads_per_row),
                    ("rows_per_block", rows_per_block),
                    ("resident", usize::from(plan.resident)),
                ],
                us,
            ));
        }
    }
    found
}

fn widths(spec: &KernelSpec, shape: &RowShape) -> Vec<usize> {
    let least = spec
        .input_types()
        .iter()
        .map(|ty| ty.dtype.size_bytes())
        .min()
        .unwrap_or(4);
    let largest = (16 / least).min(8);
    [8, 4, 2, 1]
        .into_iter()
        .filter(|&width| width <= largest && shape.len.is_multiple_of(width) && shape.len / width >= 16)
        .take(2)
        .chain((shape.len < 16 || shape.len % 2 == 1).then_some(1))
        .collect::<BTreeSet<usize>>()
        .into_iter()
        .collect()
}

/// Bytes per element that stay in registers between passes.
fn kept_bytes(rows: &RowBody) -> usize {
    kept(rows)
        .iter()
        .map(|&id| value_bytes(rows.body.dtype(id)))
        .sum()
}

fn kept(rows: &RowBody) -> Vec<ExprId> {
    rows.kept(&pass_roots(rows, |output| !output.per_row), &along(rows))
}

/// The variables of a position in its row.
fn along(rows: &RowBody) -> BTreeSet<VarId> {
    BTreeSet::from([rows.vars[1], rows.vars[2]])
}

#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
fn predicted_us(spec: &KernelSpec, shape: &RowShape, rows: &RowBody, plan: Plan, device: &Device) -> f64 {
    let (n_rows, len) = (shape.n_rows as f64, shape.len as f64);
    let threads = n_rows * plan.threads_per_row as f64;
    let n_passes = rows.passes().len() as f64;
    let roots = pass_roots(rows, |_| true);
    let per_element: f64 = roots
        .iter()
        .flatten()
        .map(|&root| indexed::work(&rows.body, root))
        .sum();
    let reads = if plan.resident { 1.0 } else { n_passes + 1.0 };
    let fill = device.fill(
        (n_rows / plan.rows_per_block as f64).ceil(),
        (plan.threads_per_row * plan.rows_per_block) as f64,
    );
    let issue = n_rows * len * (per_element * 2.0 + 8.0 * reads / plan.width as f64)
        / (f64::from(device.n_sms) * device.clock_ghz * 1e3 * 64.0);
    // A thread's own chain: its steps, and the folds across threads.
    let folds = if plan.per_warp() {
        0.1
    } else {
        0.25 + 0.0004 * plan.threads_per_row as f64
    };
    let chain = n_passes * folds + plan.steps(shape) as f64 * plan.width as f64 * reads * 0.01;
    let lane = Lane {
        var: rows.vars[2],
        width: plan.width,
    };
    let waves = (threads / (f64::from(device.n_sms) * f64::from(device.max_threads_per_sm))).ceil();
    let memory = memory_us(spec, rows, lane, rows.vars[1], device) * reads.sqrt() / fill;
    NODE_US + (memory.max(issue) + chain).max(chain * waves)
}

fn render(spec: &KernelSpec, variant: &Variant, _arch: Arch) -> Result<Source, KernelError> {
    let plan = Plan {
        width: knob(&TEMPLATE, variant, "width")?,
        threads_per_row: knob(&TEMPLATE, variant, "threads_per_row")?,
        rows_per_block: knob(&TEMPLATE, variant, "rows_per_block")?,
        resident: knob(&TEMPLATE, variant, "resident")? != 0,
    };
    let refused = || KernelError::NotAccepted {
        template: TEMPLATE.name,
        reason: "its reductions are not over rows of one length".to_owned(),
    };
    let shape = row_shape(spec).ok_or_else(refused)?;
    let rows = plan_body(spec, &shape, plan.width)?.ok_or_else(refused)?;
    let (inputs, outputs) = (operands(spec), results(spec));
    let all: Vec<Operand> = inputs.iter().chain(&outputs).cloned().collect();
    let body = Emit::new(&rows, &shape, plan, &all, &outputs).print()?;
    let (params, passed) = signature(spec);
    let per = if plan.per_warp() { "w" } else { "b" };
    let name = kernel_name(
        spec,
        TEMPLATE.name,
        &format!(
            "v{}_{per}{}x{}",
            plan.width, plan.threads_per_row, plan.rows_per_block
        ),
    );
    let threads = plan.threads_per_row * plan.rows_per_block;
    let text = fill(
        &TEMPLATE,
        &RowContext {
            name: name.clone(),
            params,
            threads,
            per_warp: plan.per_warp(),
            index_type: index_type(&all),
            n_rows: shape.n_rows,
            len: shape.len,
            width: plan.width,
            threads_per_row: plan.threads_per_row,
            rows_per_block: plan.rows_per_block,
            n_vectors: plan.n_vectors(&shape),
            body,
        },
    )?;
    let blocks = shape.n_rows.div_ceil(plan.rows_per_block);
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
    steps: usize,
    /// Whether the last step of some threads is beyond the row.
    ragged: bool,
    outputs: &'a [Operand],
    /// Values that stay in registers, their arrays, and whether they are there yet.
    kept: Vec<(ExprId, String, bool)>,
}

impl<'a> Emit<'a> {
    fn new(
        rows: &'a RowBody,
        shape: &RowShape,
        plan: Plan,
        all: &'a [Operand],
        outputs: &'a [Operand],
    ) -> Self {
        let mut printer = Printer::new(&rows.body, all);
        printer.bind(rows.vars[0], "row");
        printer.bind(rows.vars[1], "v");
        Emit {
            printer,
            rows,
            plan,
            lane: Lane {
                var: rows.vars[2],
                width: plan.width,
            },
            steps: plan.steps(shape),
            ragged: !plan.n_vectors(shape).is_multiple_of(plan.threads_per_row),
            outputs,
            kept: Vec::new(),
        }
    }

    fn print(mut self) -> Result<String, KernelError> {
        if self.plan.resident {
            self.declare_kept();
        }
        for stages in self.rows.passes() {
            self.fold_pass(&stages);
        }
        self.last_pass();
        self.per_row_outputs();
        self.printer.finish()
    }

    fn declare_kept(&mut self) {
        for id in kept(self.rows) {
            let name = self.printer.fresh("kept");
            let ty = value_type(self.rows.body.dtype(id));
            self.printer
                .line(&format!("{ty} {name}[{}][{}];", self.steps, self.lane.width));
            self.kept.push((id, name, false));
        }
    }

    fn fold_pass(&mut self, stages: &[usize]) {
        let rows = self.rows;
        let roots: Vec<ExprId> = stages.iter().map(|&stage| rows.stages[stage].term).collect();
        hoist(&mut self.printer, &roots, &along(rows));
        let mut accumulators = Vec::new();
        for &stage in stages {
            let stage = &rows.stages[stage];
            let accumulator = Accumulator::of(stage, rows.body.dtype(stage.term), &mut self.printer);
            let Accumulator { ty, name, start, .. } = &accumulator;
            self.printer.line(&format!("{ty} {name} = {start};"));
            accumulators.push(accumulator);
        }
        self.open_pass();
        let counter = self.open_lanes(&roots);
        for (accumulator, &root) in accumulators.iter().zip(&roots) {
            let value = self.printer.value(root);
            let position = format!("v * {} + {counter}", self.lane.width);
            let step = accumulator.step(&accumulator.name, &value, &position);
            self.printer.line(&step);
        }
        self.keep(&counter);
        self.close_lanes();
        self.close_pass();
        for (accumulator, &stage) in accumulators.iter().zip(stages) {
            self.combine(accumulator);
            let slot = u8::try_from(stage).expect("regions have under 256 reductions");
            self.printer
                .bind_accumulator(slot, &accumulator.result(&accumulator.name));
        }
    }

    /// Opens the loop over the vectors of this thread.
    fn open_pass(&mut self) {
        let threads = self.plan.threads_per_row;
        if self.plan.resident {
            self.printer.line("#pragma unroll");
            self.printer
                .open(&format!("for (int step = 0; step < {}; ++step) {{", self.steps));
            self.printer.line(&format!("const int v = step * {threads} + t;"));
            if self.ragged {
                self.printer.open("if (v < kVectors) {");
            }
        } else {
            self.printer
                .open(&format!("for (int v = t; v < kVectors; v += {threads}) {{"));
        }
    }

    fn close_pass(&mut self) {
        if self.plan.resident && self.ragged {
            self.printer.close();
        }
        self.printer.close();
    }

    fn open_lanes(&mut self, roots: &[ExprId]) -> String {
        let counter = if self.lane.width == 1 {
            "0".to_owned()
        } else {
            self.printer.fresh("lane")
        };
        for (id, name, there) in &self.kept {
            if *there {
                self.printer.preset(*id, &format!("{name}[step][{counter}]"));
            }
        }
        if self.lane.width == 1 {
            return counter;
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

    fn close_lanes(&mut self) {
        if self.lane.width > 1 {
            self.printer.close();
        }
    }

    /// Puts aside what was computed just now and is needed again.
    fn keep(&mut self, counter: &str) {
        for position in 0..self.kept.len() {
            let (id, name, there) = &self.kept[position];
            if *there {
                continue;
            }
            if let Some(value) = self.printer.known(*id) {
                let line = format!("{name}[step][{counter}] = {value};");
                self.printer.line(&line);
                self.kept[position].2 = true;
            }
        }
    }

    /// Folds across the threads of the row.
    fn combine(&mut self, accumulator: &Accumulator) {
        let Accumulator { name, ty, fold, .. } = accumulator;
        if self.plan.per_warp() {
            self.printer
                .line(&format!("{name} = rt_warp_fold<{fold}, 32>({name});"));
            return;
        }
        let threads = self.plan.threads_per_row;
        let scratch = self.printer.fresh("scratch");
        self.printer
            .line(&format!("__shared__ {ty} {scratch}[{}];", threads / 32));
        self.printer.line(&format!(
            "{name} = rt_block_fold<{fold}, {threads}>({name}, {scratch});"
        ));
    }

    fn last_pass(&mut self) {
        let rows = self.rows;
        let found: Vec<_> = rows
            .outputs
            .iter()
            .zip(self.outputs)
            .filter(|(output, _)| !output.per_row)
            .collect();
        if found.is_empty() {
            return;
        }
        let roots: Vec<ExprId> = found.iter().map(|(output, _)| output.value).collect();
        hoist(&mut self.printer, &roots, &along(rows));
        self.open_pass();
        let mut stored: Vec<Stored> = Vec::new();
        for (output, to) in &found {
            stored.push(prepare_store(&mut self.printer, rows, output, to, self.lane));
        }
        let counter = self.open_lanes(&roots);
        for ((output, to), stored) in found.iter().zip(&stored) {
            let value = self.printer.value(output.value);
            store_lane(&mut self.printer, stored, to, &value, &counter);
        }
        self.close_lanes();
        for ((_, to), stored) in found.iter().zip(&stored) {
            store_wide(&mut self.printer, stored, to, self.lane);
        }
        self.close_pass();
    }

    fn per_row_outputs(&mut self) {
        let rows = self.rows;
        let found: Vec<_> = rows
            .outputs
            .iter()
            .zip(self.outputs)
            .filter(|(output, _)| output.per_row)
            .collect();
        if found.is_empty() {
            return;
        }
        self.printer.open("if (t == 0) {");
        for (output, to) in found {
            let value = self.printer.value(output.value);
            let address = to.address(&output.at, &rows.body.vars);
            store_one(&mut self.printer, to, &address, &value);
        }
        self.printer.close();
    }
}
