//! `window_taps`: any convolution, transposed convolution or pooling, tap by tap.
//!
//! A thread has a few windows and neighbouring filters of one group; a read of the filter serves
//! all its windows, a read of the input all its filters. Neighbouring threads have neighbouring
//! elements of the result.

use serde::Serialize;

use super::{Template, field_names, fill, knob, variant};
use crate::ir::Node;
use crate::kernel::body::region::{kernel_name, operand_bytes, signature, tensors_index_type};
use crate::kernel::device::{Device, NODE_US};
use crate::kernel::error::KernelError;
use crate::kernel::prelude::{COMMON, WINDOW, translation_unit};
use crate::kernel::print::types::value_type;
use crate::kernel::source::{Arch, Source, Variant};
use crate::kernel::spec::KernelSpec;
use crate::kernel::window::{Axis, Combine, Window, read};

pub static TEMPLATE: Template = Template {
    name: "window_taps",
    text: include_str!("../../../templates/window_taps.cu.tera"),
    variants,
    render,
    fields: || field_names(&WindowTapsContext::default()),
};

#[derive(Clone, Debug, Default, Serialize)]
struct WindowTapsContext {
    name: String,
    params: Vec<String>,
    index_type: &'static str,
    value_type: &'static str,
    threads: usize,
    width: usize,
    n_positions: usize,
    chunks: usize,
    windows: usize,
    channels: usize,
    last: bool,
    axes: Vec<AxisContext>,
    load_bias: String,
    start: String,
    load_shared_filter: String,
    inside: String,
    load_filter: String,
    load_x: String,
    step: String,
    count: Option<String>,
    store: String,
}

/// One spatial axis; see [`crate::kernel::window`].
#[derive(Clone, Debug, Default, Serialize)]
struct AxisContext {
    output: usize,
    stride: usize,
    dilation: usize,
    pad: i64,
    /// Whether taps depend on the position.
    phases: bool,
    /// First tap of each phase, where it is not the phase itself.
    first_taps: Vec<usize>,
    tap_step: usize,
    /// Taps visited at most.
    taps: usize,
    unroll: usize,
    sign: char,
    advance: usize,
}

/// How a kernel covers its outputs.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// Neighbouring filters of a thread.
    width: usize,
    /// Windows of a thread.
    n_positions: usize,
}

const THREADS: usize = 128;
/// Innermost taps that are written out one by one.
const MAX_UNROLLED: usize = 7;
/// What a thread waits for the filter of one cell where neighbouring threads read filters that lie
/// apart and leave L1 before they are read again, as measured for 8 to 48 warps per SM.
const CELL_FROM_L2_US: f64 = 0.27;

impl Plan {
    fn n_items(self, window: &Window) -> usize {
        window.n_positions().div_ceil(self.n_positions) * (window.filters / self.width)
    }
}

fn accepted(spec: &KernelSpec) -> Option<Window> {
    let (window, node) = Window::of(spec)?;
    matches!(window.after(spec, node, 1), Ok(Some(_))).then_some(window)
}

fn variants(spec: &KernelSpec, arch: Arch) -> Vec<Variant> {
    let Some(window) = accepted(spec) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for width in [8, 4, 2, 1] {
        // The lanes of a thread share a group, or are neighbours in memory.
        let same_group = window.group_filters().is_multiple_of(width);
        let neighbours = window.last && window.filters.is_multiple_of(width);
        if !same_group && !neighbours {
            continue;
        }
        for n_positions in [1, 2, 4] {
            if window.transposed && n_positions > 1 {
                continue;
            }
            let plan = Plan { width, n_positions };
            let us = predicted_us(spec, &window, plan, Device::of(arch));
            found.push(variant(
                TEMPLATE.name,
                &[("width", width), ("n_positions", n_positions)],
                us,
            ));
        }
    }
    found.sort_by(|a, b| a.predicted_us.total_cmp(&b.predicted_us));
    found.truncate(4);
    found
}

#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
fn predicted_us(spec: &KernelSpec, window: &Window, plan: Plan, device: &Device) -> f64 {
    let (width, own) = (plan.width as f64, plan.n_positions as f64);
    let visited: usize = window.axes.iter().map(|axis| taps(window, *axis)).product();
    let cells = (visited * window.group_channels) as f64;
    // A filter's lanes are read one by one; an address and its tests per window and axis.
    let filter = if window.has_filter() { 3.0 * width } else { 0.0 };
    let per_x = if window.group_filters().is_multiple_of(plan.width) {
        3.0
    } else {
        3.0 + width
    };
    let per_cell = filter + own * (per_x + 4.0 * window.axes.len() as f64 + width);
    let work = cells * per_cell + own * window.after_work(spec, plan.width);
    let n_items = plan.n_items(window) as f64;
    let rate = f64::from(device.n_sms) * device.clock_ghz * 1e3 * 128.0 * 0.5;
    let fill = device.fill(n_items / THREADS as f64, THREADS as f64);
    let fetched = if filters_leave_l1(window, device) {
        CELL_FROM_L2_US
    } else {
        0.0
    };
    let latency = 0.4 + cells * (0.01 + per_cell * 0.0008 + fetched);
    // A third of the threads that memory wants keep the arithmetic busy.
    let issue = n_items * work / rate / (3.0 * fill).min(1.0);
    NODE_US + latency + (device.memory_us(operand_bytes(spec)) * 1.2 / fill).max(issue)
}

/// Whether a warp's threads have filters of their own, more of them than L1 holds.
fn filters_leave_l1(window: &Window, device: &Device) -> bool {
    let bytes = window.filters * window.n_cells() * window.dtype.size_bytes();
    window.has_filter() && window.last && bytes > device.smem_per_sm as usize
}

fn taps(window: &Window, axis: Axis) -> usize {
    if window.transposed {
        axis.kernel.div_ceil(axis.tap_step())
    } else {
        axis.kernel
    }
}

fn axis_context(window: &Window, axis: Axis) -> AxisContext {
    let phases = window.transposed;
    let taps = taps(window, axis);
    AxisContext {
        output: axis.output,
        stride: axis.stride,
        dilation: axis.dilation,
        pad: axis.pad,
        phases,
        first_taps: if phases && axis.dilation > 1 {
            axis.first_taps()
        } else {
            Vec::new()
        },
        tap_step: axis.tap_step(),
        taps,
        unroll: if taps <= MAX_UNROLLED { taps } else { 1 },
        sign: if phases { '-' } else { '+' },
        advance: if phases { axis.advance() } else { axis.dilation },
    }
}

/// When a tap exists and meets the input.
fn inside(window: &Window) -> String {
    let mut tests: Vec<String> = Vec::new();
    for (i, axis) in window.axes.iter().enumerate() {
        if window.transposed {
            tests.push(format!("tap{i} < {}", axis.kernel));
        }
        if window.transposed || !axis.is_inside() {
            tests.push(format!("cell{i} >= 0 && cell{i} < {}", axis.input));
        }
    }
    if tests.is_empty() {
        "true".to_owned()
    } else {
        tests.join(" && ")
    }
}

fn names(prefix: &str, rank: usize, suffix: &str) -> Vec<String> {
    (0..rank).map(|axis| format!("{prefix}{axis}{suffix}")).collect()
}

fn render(spec: &KernelSpec, variant: &Variant, _arch: Arch) -> Result<Source, KernelError> {
    let plan = Plan {
        width: knob(&TEMPLATE, variant, "width")?,
        n_positions: knob(&TEMPLATE, variant, "n_positions")?,
    };
    let found = accepted(spec).and_then(|_| Window::of(spec));
    let (window, node) = found.ok_or_else(|| KernelError::NotAccepted {
        template: TEMPLATE.name,
        reason: "it has no window whose results have one place each".to_owned(),
    })?;
    let rank = window.axes.len();
    let (params, passed) = signature(spec);
    let name = kernel_name(
        spec,
        TEMPLATE.name,
        &format!("v{}_p{}", plan.width, plan.n_positions),
    );
    let (load_x, x) = read_input(spec, &window, node, plan)?;
    let (load_filter, filter) = read_filter(spec, &window, node, plan)?;
    let bias = window.bias(spec, node, plan.width, 1)?;
    let places = names("place", rank, "[t]");
    let mut at = vec!["batch[t]"];
    at.extend(places.iter().map(String::as_str));
    at.push("chunk");
    let count = match window.combine {
        Combine::Mean { counts_padding } => Some(window.count(counts_padding, &places)),
        Combine::Products | Combine::Max => None,
    };
    let n_items = plan.n_items(&window);
    let context = WindowTapsContext {
        name: name.clone(),
        params,
        index_type: tensors_index_type(spec),
        value_type: value_type(window.dtype),
        threads: THREADS,
        width: plan.width,
        n_positions: plan.n_positions,
        chunks: window.filters / plan.width,
        windows: window.n_positions(),
        channels: window.group_channels,
        last: window.last,
        axes: window
            .axes
            .iter()
            .map(|&axis| axis_context(&window, axis))
            .collect(),
        load_bias: bias.as_ref().map(|(text, _)| text.clone()).unwrap_or_default(),
        start: bias.map_or_else(|| window.start(), |(_, array)| format!("{array}[i]")),
        load_shared_filter: if window.transposed {
            String::new()
        } else {
            load_filter.clone()
        },
        inside: inside(&window),
        load_filter: if window.transposed {
            load_filter
        } else {
            String::new()
        },
        load_x,
        step: match window.combine {
            Combine::Products => format!("sum[t][i] += {x}[i] * {filter}[i];"),
            Combine::Max => format!("sum[t][i] = rt_fold_max(sum[t][i], {x}[i]);"),
            Combine::Mean { .. } => format!("sum[t][i] += {x}[i];"),
        },
        count,
        store: window.store(spec, node, plan.width, &at, "sum[t]", TEMPLATE.name)?,
    };
    let text = fill(&TEMPLATE, &context)?;
    Ok(Source {
        name,
        header: String::new(),
        text: translation_unit(&[COMMON, &[WINDOW]].concat(), &text),
        template: TEMPLATE.name,
        launch: super::indexed::one_dimensional(n_items, THREADS),
        params: passed,
        workspace_bytes: 0,
    })
}

fn read_input(
    spec: &KernelSpec,
    window: &Window,
    node: &Node,
    plan: Plan,
) -> Result<(String, String), KernelError> {
    let positions = names("cell", window.axes.len(), "");
    let mut at = vec!["batch[t]"];
    at.extend(positions.iter().map(String::as_str));
    at.extend(["channel", "chunk"]);
    read(spec, &window.input(spec, node, plan.width)?, plan.width, &at, 5)
}

/// The filter's lanes at one tap, under names that differ from those of the input.
fn read_filter(
    spec: &KernelSpec,
    window: &Window,
    node: &Node,
    plan: Plan,
) -> Result<(String, String), KernelError> {
    if !window.has_filter() {
        return Ok((String::new(), String::new()));
    }
    let prefix = if window.transposed { "tap" } else { "j" };
    let taps = names(prefix, window.axes.len(), "");
    let mut at: Vec<&str> = taps.iter().map(String::as_str).collect();
    at.extend(["channel", "chunk"]);
    let depth = if window.transposed { 5 } else { 3 };
    let (text, array) = read(
        spec,
        &window.filter(spec, node, plan.width)?,
        plan.width,
        &at,
        depth,
    )?;
    let indent = "  ".repeat(depth);
    let copy = format!(
        "{indent}V filter[kWidth];\n{indent}{{\n{text}#pragma unroll\n{indent}  for (int i = 0; i < kWidth; ++i) filter[i] = {array}[i];\n{indent}}}\n"
    );
    Ok((copy, "filter".to_owned()))
}
