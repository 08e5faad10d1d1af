//! `window_mma`: dense convolutions of images with few channels, such as a model's first layer.
//!
//! Three channels are no multiple of 16 bytes, so that nothing can be copied to shared memory as
//! matrix instructions want it, and every pixel belongs to many windows. A block reads the
//! pixels of its tile of windows once, pads their channels to an even number, and takes the
//! operands of matrix instructions from there, two channels a word. Blocks stay, so that they
//! read their filters once and the next tile's pixels while they multiply.

use serde::Serialize;

use super::{Template, field_names, fill, knob, variant};
use crate::ir::{DType, Node};
use crate::kernel::body::region::{kernel_name, operand_bytes, signature};
use crate::kernel::device::{Device, NODE_US};
use crate::kernel::error::KernelError;
use crate::kernel::few_channels::FewChannels;
use crate::kernel::prelude::{COMMON, MMA, translation_unit};
use crate::kernel::source::{Arch, Launch, Source, Variant};
use crate::kernel::spec::KernelSpec;
use crate::kernel::window::{Axis, Combine, Window};

pub static TEMPLATE: Template = Template {
    name: "window_mma",
    text: include_str!("../../../templates/window_mma.cu.tera"),
    variants,
    render,
    fields: || field_names(&WindowMmaContext::default()),
};

#[derive(Clone, Debug, Default, Serialize)]
struct WindowMmaContext {
    name: String,
    params: Vec<String>,
    threads: usize,
    resident: usize,
    tile_rows: usize,
    tile_n: usize,
    fragments_m: usize,
    tiles_n: usize,
    tiles_down: usize,
    tiles_across: usize,
    shares: usize,
    #[serde(flatten)]
    image: FewChannels,
}

/// How a kernel covers its outputs.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// Rows of 16 windows of a tile.
    tile_rows: usize,
    /// Filters of a tile, a multiple of 16.
    tile_n: usize,
    /// Rows of windows that a warp multiplies.
    fragments_m: usize,
}

/// Windows of a tile's row, as many as a matrix instruction has rows.
const TILE_COLUMNS: usize = 16;
const MOST_CHANNELS: usize = 7;
/// Registers that a thread may keep sums and the next tile's pixels in, so that the others suffice for the
/// rest; code for earlier architectures needs more of them.
const MOST_KEPT: usize = 88;
const MOST_KEPT_BEFORE_SM_90: usize = 80;
/// Registers of a thread that two blocks of 256 leave.
const REGISTERS: usize = 128;

impl Plan {
    fn threads(self) -> usize {
        self.tile_rows / self.fragments_m * 32
    }

    /// Words of 16 bits times two in a window, over all channels.
    fn depth_words(window: &Window) -> usize {
        window.axes[0].kernel * window.axes[1].kernel * window.group_channels.div_ceil(2)
    }

    /// Matrix instructions along a window, 16 elements each.
    fn steps(window: &Window) -> usize {
        Plan::depth_words(window).div_ceil(8)
    }

    /// Words of the pixels that a tile sees.
    fn image_words(self, window: &Window) -> usize {
        let seen = |axis: Axis, windows: usize| (windows - 1) * axis.stride + axis.kernel;
        seen(window.axes[0], self.tile_rows)
            * seen(window.axes[1], TILE_COLUMNS)
            * window.group_channels.div_ceil(2)
    }

    fn smem_bytes(self, window: &Window) -> usize {
        let filters = self.tile_n * Plan::steps(window) * 8;
        let slabs = self.threads() / 32 * 16 * (self.tile_n + 8);
        4 * (filters + self.image_words(window).next_multiple_of(4) + slabs + self.tile_n)
    }

    /// Registers of a thread that hold sums, and both pixels of its words of the next tile.
    fn kept(self, window: &Window) -> usize {
        let sums = self.fragments_m * self.tile_n / 2;
        sums + 2 * self.image_words(window).div_ceil(self.threads())
    }

    fn tiles_n(self, window: &Window) -> usize {
        window.filters.div_ceil(self.tile_n)
    }

    /// Tiles of the same filters.
    fn tiles(self, window: &Window) -> usize {
        let [rows, columns] = [window.axes[0], window.axes[1]];
        window.batch * rows.output.div_ceil(self.tile_rows) * columns.output.div_ceil(TILE_COLUMNS)
    }

    /// Blocks that an SM holds at once.
    fn resident(self, window: &Window, device: &Device) -> usize {
        let registers = (64 << 10) / (REGISTERS * self.threads());
        let reserved = self.smem_bytes(window) + 1024;
        registers.min(device.smem_per_sm as usize / reserved).max(1)
    }

    /// Blocks that share the tiles of the same filters.
    fn shares(self, window: &Window, device: &Device) -> usize {
        let slots = device.n_sms as usize * self.resident(window, device);
        self.tiles(window).min((slots / self.tiles_n(window)).max(1))
    }
}

/// Convolutions that a matrix instruction computes: images with a few channels, the last axis.
pub(super) fn accepted(spec: &KernelSpec, arch: Arch) -> Option<Window> {
    let (window, node) = Window::of(spec)?;
    let kind = window.dtype == DType::F16 || (window.dtype == DType::BF16 && arch.sm >= 80);
    let dense = window.combine == Combine::Products && !window.transposed && window.group == 1;
    let fits = window.last
        && window.axes.len() == 2
        && window.group_channels <= MOST_CHANNELS
        && window.axes.iter().all(|axis| axis.dilation == 1);
    (kind && dense && fits && matches!(window.after(spec, node, 1), Ok(Some(_)))).then_some(window)
}

fn plans(window: &Window, arch: Arch) -> Vec<Plan> {
    let device = Device::of(arch);
    let most_kept = if arch.sm >= 90 {
        MOST_KEPT
    } else {
        MOST_KEPT_BEFORE_SM_90
    };
    let widest = window.filters.next_multiple_of(16).min(64);
    let mut found = Vec::new();
    for tile_n in [widest, 32, 16] {
        if tile_n > widest || found.iter().any(|plan: &Plan| plan.tile_n == tile_n) {
            continue;
        }
        for (tile_rows, fragments_m) in [(16, 2), (8, 2), (8, 1), (4, 1)] {
            let plan = Plan {
                tile_rows,
                tile_n,
                fragments_m,
            };
            let fits = plan.smem_bytes(window) <= device.max_smem_per_block as usize;
            if fits && plan.kept(window) <= most_kept {
                found.push(plan);
            }
        }
    }
    found
}

fn variants(spec: &KernelSpec, arch: Arch) -> Vec<Variant> {
    let Some(window) = accepted(spec, arch) else {
        return Vec::new();
    };
    plans(&window, arch)
        .into_iter()
        .map(|plan| {
            let knobs = [
                ("tile_rows", plan.tile_rows),
                ("tile_n", plan.tile_n),
                ("fragments_m", plan.fragments_m),
            ];
            variant(TEMPLATE.name, &knobs, predicted_us(spec, &window, plan, arch))
        })
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
fn predicted_us(spec: &KernelSpec, window: &Window, plan: Plan, arch: Arch) -> f64 {
    let device = Device::of(arch);
    let (steps, threads) = (Plan::steps(window) as f64, plan.threads() as f64);
    let results = (plan.tile_rows * TILE_COLUMNS * plan.tile_n) as f64;
    let words = plan.image_words(window) as f64;
    // Clocks of an SM per tile: matrix instructions, shared memory, and everything else.
    let math = results * steps * 32.0 / (device.tensor_flops_per_clk.min(2048.0) * 0.8);
    let fragments = (4 * plan.fragments_m + plan.tile_n / 4) as f64;
    let smem = threads / 32.0 * steps * fragments + results * 8.0 / 128.0 + words / 32.0;
    let width = width(window);
    let finish = window.after_work(spec, width) / width as f64 + 3.0;
    let issue = (words * 40.0 + results * finish + threads * steps * (fragments * 2.0 + 12.0)) / 128.0;
    let tile_clk = math.max(smem).max(issue) + 0.25 * (math + smem + issue);
    let shares = plan.shares(window, device);
    let blocks = (shares * plan.tiles_n(window)) as f64;
    let per_block = (plan.tiles(window) as f64 / shares as f64).ceil();
    let per_sm = (blocks / f64::from(device.n_sms)).ceil();
    // A block alone on its SM waits for its own steps and barriers.
    let alone_clk = steps * 60.0 + 800.0;
    let filters_clk = plan.tile_n as f64 * steps * 8.0 * 40.0 / 128.0 * per_sm;
    let clk = per_block * (tile_clk * per_sm).max(alone_clk) + filters_clk;
    let fill = device.fill(blocks, threads * 4.0);
    let latency = 1.5;
    let busy = clk / (device.clock_ghz * 1e3);
    NODE_US + latency + busy.max(device.memory_us(operand_bytes(spec)) / fill)
}

/// Neighbouring channels that a thread finishes at once.
fn width(window: &Window) -> usize {
    let widths = [8, 4, 2];
    let divides = |width: &usize| window.filters.is_multiple_of(*width);
    widths.into_iter().find(divides).unwrap_or(1)
}

fn render(spec: &KernelSpec, variant: &Variant, arch: Arch) -> Result<Source, KernelError> {
    let plan = Plan {
        tile_rows: knob(&TEMPLATE, variant, "tile_rows")?,
        tile_n: knob(&TEMPLATE, variant, "tile_n")?,
        fragments_m: knob(&TEMPLATE, variant, "fragments_m")?,
    };
    let found = accepted(spec, arch).and_then(|_| Window::of(spec));
    let (window, node) = found.ok_or_else(|| KernelError::NotAccepted {
        template: TEMPLATE.name,
        reason: "it is no dense convolution of an image with few channels".to_owned(),
    })?;
    let device = Device::of(arch);
    let (params, passed) = signature(spec);
    let knobs = format!("{}x{}_f{}", plan.tile_rows, plan.tile_n, plan.fragments_m);
    let name = kernel_name(spec, TEMPLATE.name, &knobs);
    let shares = plan.shares(&window, device);
    let context = WindowMmaContext {
        name: name.clone(),
        params,
        resident: plan.resident(&window, device),
        shares,
        ..context(spec, &window, node, plan)?
    };
    let text = fill(&TEMPLATE, &context)?;
    let blocks = shares * plan.tiles_n(&window);
    Ok(Source {
        name,
        header: String::new(),
        text: translation_unit(&[COMMON, &[MMA]].concat(), &text),
        template: TEMPLATE.name,
        launch: Launch::in_a_row(blocks, plan.threads(), plan.smem_bytes(&window)),
        params: passed,
        workspace_bytes: 0,
    })
}

/// All but the name, the parameters and how blocks share the tiles.
fn context(
    spec: &KernelSpec,
    window: &Window,
    node: &Node,
    plan: Plan,
) -> Result<WindowMmaContext, KernelError> {
    let [rows, columns] = [window.axes[0], window.axes[1]];
    let width = width(window);
    Ok(WindowMmaContext {
        threads: plan.threads(),
        tile_rows: plan.tile_rows,
        tile_n: plan.tile_n,
        fragments_m: plan.fragments_m,
        tiles_n: plan.tiles_n(window),
        tiles_down: rows.output.div_ceil(plan.tile_rows),
        tiles_across: columns.output.div_ceil(TILE_COLUMNS),
        image: FewChannels::of(spec, window, node, width, TEMPLATE.name)?,
        ..WindowMmaContext::default()
    })
}
