//! `window_strip`: depthwise convolutions and poolings of images whose channels are the last axis.
//!
//! A thread has a vector of channels and a strip of neighbouring outputs: each input column it
//! reads serves every window of the strip that sees it. The filters of a block's channels are
//! turned once into shared memory, where a tap of neighbouring channels is one read.

use serde::Serialize;

use super::{Template, field_names, fill, knob, variant};
use crate::ir::Node;
use crate::kernel::body::region::{kernel_name, operand_bytes, signature, tensors_index_type};
use crate::kernel::device::{Device, NODE_US};
use crate::kernel::error::KernelError;
use crate::kernel::prelude::{COMMON, WINDOW, translation_unit};
use crate::kernel::print::types::value_type;
use crate::kernel::source::{Arch, Launch, Source, Variant};
use crate::kernel::spec::KernelSpec;
use crate::kernel::window::{Axis, Combine, Window, read, read_one};

pub static TEMPLATE: Template = Template {
    name: "window_strip",
    text: include_str!("../../../templates/window_strip.cu.tera"),
    variants,
    render,
    fields: || field_names(&WindowStripContext::default()),
};

#[derive(Clone, Debug, Default, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "each leaves out a part of the text")]
struct WindowStripContext {
    name: String,
    params: Vec<String>,
    index_type: &'static str,
    value_type: &'static str,
    /// What windows are combined in.
    accumulator: &'static str,
    threads: usize,
    width: usize,
    strip: usize,
    chunks: usize,
    block_chunks: usize,
    batch: usize,
    input_height: usize,
    input_width: usize,
    height: usize,
    row_width: usize,
    kernel_rows: usize,
    taps: usize,
    stride: usize,
    dilation: usize,
    pad: i64,
    row_stride: usize,
    row_dilation: usize,
    row_pad: i64,
    row_unroll: usize,
    /// Whether cells at the edge stand for those of the padding.
    reads_edges: bool,
    rows_overhang: bool,
    columns_overhang: bool,
    has_filter: bool,
    load_filter: String,
    filter: String,
    load_bias: String,
    start: String,
    outside: String,
    load_x: String,
    x: String,
    step: String,
    count: Option<String>,
    store: String,
}

/// How a kernel covers its outputs.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// Neighbouring channels of a thread.
    width: usize,
    /// Neighbouring outputs of a thread.
    strip: usize,
    /// Channel vectors of a block.
    block_chunks: usize,
    threads: usize,
}

/// Static shared memory for filters, below the 48 KB every architecture has.
const MAX_FILTER_BYTES: usize = 40 << 10;
/// Values a thread may hold before it spills: sums, a row of the filter, a column.
const MAX_VALUES: usize = 120;
/// Rows of a window are written out one by one up to this many products of a thread.
const MAX_UNROLLED: usize = 900;

impl Plan {
    fn n_chunks(self, window: &Window) -> usize {
        window.filters / self.width
    }

    fn n_strips(self, window: &Window) -> usize {
        let [rows, columns] = plane(window);
        window.batch * rows.output * columns.output.div_ceil(self.strip)
    }

    fn n_blocks(self, window: &Window) -> usize {
        let strips = self.threads / self.block_chunks;
        self.n_chunks(window).div_ceil(self.block_chunks) * self.n_strips(window).div_ceil(strips)
    }

    /// Input columns that a thread reads of every row.
    fn columns(self, columns: Axis) -> usize {
        (self.strip - 1) * columns.stride + (columns.kernel - 1) * columns.dilation + 1
    }

    /// Share of its rates that an SM reaches with as many warps as its registers hold.
    #[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
    fn occupancy(self, window: &Window) -> f64 {
        /// Warps whose loads and conversions hide each other, as measured on an H200.
        const ENOUGH_WARPS: f64 = 12.0;
        let registers = 16.0 + 1.4 * self.values(window) as f64;
        let blocks = (65536.0 / (registers * self.threads as f64)).floor().max(1.0);
        (blocks * self.threads as f64 / 32.0 / ENOUGH_WARPS).min(1.0)
    }

    fn values(self, window: &Window) -> usize {
        let [_, columns] = plane(window);
        let filter = if window.has_filter() { columns.kernel } else { 0 };
        self.width * (self.strip + filter + 1)
    }
}

/// Rows and columns.
fn plane(window: &Window) -> [Axis; 2] {
    [window.axes[0], window.axes[1]]
}

/// Whether each result channel sees one input channel, the last axis of an image.
fn accepted(spec: &KernelSpec) -> Option<Window> {
    let (window, node) = Window::of(spec)?;
    let fits =
        window.last && window.axes.len() == 2 && window.group_channels == 1 && window.axes[1].kernel <= 16;
    (fits && matches!(window.after(spec, node, 1), Ok(Some(_)))).then_some(window)
}

/// Channel vectors per block: all of them if they are few, or a divisor that wastes no thread.
fn block_chunks(n_chunks: usize) -> usize {
    if n_chunks <= 32 {
        return n_chunks;
    }
    (8..=32)
        .rev()
        .find(|&count| n_chunks.is_multiple_of(count))
        .unwrap_or(32)
}

fn plans(window: &Window) -> Vec<Plan> {
    let widest = (16 / window.dtype.size_bytes()).min(8);
    let mut found = Vec::new();
    for width in [8, 4, 2, 1] {
        if width > widest
            || !window.filters.is_multiple_of(width)
            || (width < 4 && widest >= 4 && window.filters.is_multiple_of(4))
        {
            continue;
        }
        for strip in [1, 2, 4, 8] {
            for threads in [64, 128, 256] {
                let block_chunks = block_chunks(window.filters / width);
                let plan = Plan {
                    width,
                    strip,
                    block_chunks,
                    threads: threads / block_chunks * block_chunks,
                };
                let filter_bytes = window.n_cells() * block_chunks * width * 8;
                let idle = strip > 1 && strip >= 2 * window.axes[1].output;
                let too_large = plan.values(window) > MAX_VALUES
                    || (window.has_filter() && filter_bytes > MAX_FILTER_BYTES);
                if !idle && !too_large && plan.columns(window.axes[1]) <= 32 {
                    found.push(plan);
                }
            }
        }
    }
    found
}

fn variants(spec: &KernelSpec, arch: Arch) -> Vec<Variant> {
    let Some(window) = accepted(spec) else {
        return Vec::new();
    };
    let mut found: Vec<Variant> = plans(&window)
        .into_iter()
        .map(|plan| {
            let us = predicted_us(spec, &window, plan, Device::of(arch));
            let knobs = [
                ("width", plan.width),
                ("strip", plan.strip),
                ("block_chunks", plan.block_chunks),
                ("threads", plan.threads),
            ];
            variant(TEMPLATE.name, &knobs, us)
        })
        .collect();
    found.sort_by(|a, b| a.predicted_us.total_cmp(&b.predicted_us));
    found.truncate(8);
    found
}

#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
fn predicted_us(spec: &KernelSpec, window: &Window, plan: Plan, device: &Device) -> f64 {
    let [rows, columns] = plane(window);
    let (width, strip) = (plan.width as f64, plan.strip as f64);
    let own_columns = plan.columns(columns) as f64;
    let products = strip * columns.kernel as f64 * width;
    let epilogue = window.after_work(spec, plan.width) * strip;
    // A narrow element takes an instruction to widen; a column an address and its tests.
    let own = rows.kernel as f64 * (own_columns * (8.0 + 1.5 * width) + products) + epilogue;
    let n_threads = (plan.n_blocks(window) * plan.threads) as f64;
    // Elements of filters that a thread turns into shared memory, one by one.
    let staged = if window.has_filter() {
        (window.n_cells() * plan.block_chunks * plan.width) as f64 / plan.threads as f64
    } else {
        0.0
    };
    let rate = f64::from(device.n_sms) * device.clock_ghz * 1e3 * 128.0 * 0.6;
    // An SM without a block issues nothing.
    let busy = (plan.n_blocks(window) as f64 / f64::from(device.n_sms)).min(1.0);
    let issue = n_threads * (own + 12.0 * staged) / (rate * busy);
    let fill = device.fill(
        plan.n_blocks(window) as f64,
        plan.threads as f64 * (1.0 + strip * width / 8.0).min(4.0),
    );
    // What a thread waits for: the filters, then its columns, several rows of them at once.
    let waits = if window.has_filter() { 0.9 } else { 0.5 } + 0.08 * rows.kernel as f64;
    let latency = waits + 0.035 * staged + own * 4.0 / (device.clock_ghz * 1e3) * 0.25;
    let work = (device.memory_us(operand_bytes(spec)) / fill).max(issue);
    NODE_US + latency + work / plan.occupancy(window)
}

fn render(spec: &KernelSpec, variant: &Variant, _arch: Arch) -> Result<Source, KernelError> {
    let plan = Plan {
        width: knob(&TEMPLATE, variant, "width")?,
        strip: knob(&TEMPLATE, variant, "strip")?,
        block_chunks: knob(&TEMPLATE, variant, "block_chunks")?,
        threads: knob(&TEMPLATE, variant, "threads")?,
    };
    let found = accepted(spec).and_then(|_| Window::of(spec));
    let (window, node) = found.ok_or_else(|| KernelError::NotAccepted {
        template: TEMPLATE.name,
        reason: "its channels do not each see one channel, the last axis".to_owned(),
    })?;
    let (params, passed) = signature(spec);
    let name = kernel_name(
        spec,
        TEMPLATE.name,
        &format!("v{}_s{}_t{}", plan.width, plan.strip, plan.threads),
    );
    let context = WindowStripContext {
        name: name.clone(),
        params,
        index_type: tensors_index_type(spec),
        ..context(spec, &window, node, plan)?
    };
    let text = fill(&TEMPLATE, &context)?;
    Ok(Source {
        name,
        header: String::new(),
        text: translation_unit(&[COMMON, &[WINDOW]].concat(), &text),
        template: TEMPLATE.name,
        launch: Launch::in_a_row(plan.n_blocks(&window), plan.threads, 0),
        params: passed,
        workspace_bytes: 0,
    })
}

/// All but the name and the parameters.
fn context(
    spec: &KernelSpec,
    window: &Window,
    node: &Node,
    plan: Plan,
) -> Result<WindowStripContext, KernelError> {
    let [rows, columns] = plane(window);
    let (load_x, x) = read(
        spec,
        &window.input(spec, node, plan.width)?,
        plan.width,
        &["batch", "ih", "iw", "0", "chunk"],
        4,
    )?;
    let (load_filter, filter) = if window.has_filter() {
        let part = window.filter(spec, node, 1)?;
        read_one(spec, &part, &["tap_row", "tap", "0", "filter"], 2)?
    } else {
        (String::new(), String::new())
    };
    let bias = window.bias(spec, node, plan.width, 1)?;
    let at = ["batch", "oh", "ow", "chunk"];
    let count = match window.combine {
        Combine::Mean { counts_padding } => {
            Some(window.count(counts_padding, &["oh".to_owned(), "ow".to_owned()]))
        }
        Combine::Products | Combine::Max => None,
    };
    let n_products = rows.kernel * columns.kernel * plan.strip * plan.width;
    let accumulator = accumulator(window);
    let finished = if accumulator == value_type(window.dtype) {
        "sum[t]"
    } else {
        "own"
    };
    Ok(WindowStripContext {
        value_type: value_type(window.dtype),
        accumulator,
        reads_edges: window.combine == Combine::Max && window.axes.iter().all(Axis::has_edges),
        threads: plan.threads,
        width: plan.width,
        strip: plan.strip,
        chunks: plan.n_chunks(window),
        block_chunks: plan.block_chunks,
        batch: window.batch,
        input_height: rows.input,
        input_width: columns.input,
        height: rows.output,
        row_width: columns.output,
        kernel_rows: rows.kernel,
        taps: columns.kernel,
        stride: columns.stride,
        dilation: columns.dilation,
        pad: columns.pad,
        row_stride: rows.stride,
        row_dilation: rows.dilation,
        row_pad: rows.pad,
        row_unroll: if n_products <= MAX_UNROLLED {
            rows.kernel
        } else {
            1
        },
        rows_overhang: !rows.is_inside(),
        columns_overhang: columns.pad > 0,
        has_filter: window.has_filter(),
        load_filter,
        filter,
        load_bias: bias.as_ref().map(|(text, _)| text.clone()).unwrap_or_default(),
        start: bias.map_or_else(|| window.start(), |(_, array)| format!("{array}[i]")),
        outside: window.start(),
        load_x,
        x,
        step: match window.combine {
            Combine::Products => "sum[t][i] += x[i] * filter[tap][i];".to_owned(),
            Combine::Max => "sum[t][i] = rt_fold_max(sum[t][i], x[i]);".to_owned(),
            Combine::Mean { .. } => "sum[t][i] += x[i];".to_owned(),
        },
        count,
        store: window.store(spec, node, plan.width, &at, finished, TEMPLATE.name)?,
        ..WindowStripContext::default()
    })
}

/// Narrow integers are compared as `int`: kept narrow, each step would extend their signs again. Sums of
/// them wrap.
fn accumulator(window: &Window) -> &'static str {
    let is_narrow = window.dtype.is_int() && window.dtype.size_bytes() < 4;
    match window.combine {
        Combine::Max if is_narrow => "int",
        Combine::Max | Combine::Products | Combine::Mean { .. } => value_type(window.dtype),
    }
}
