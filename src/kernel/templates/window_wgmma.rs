//! `window_wgmma`: the convolutions of [`window_mma`] with the matrix instructions of four warps at once (`sm_90a`),
//! where neighbouring windows begin 16 bytes apart.
//!
//! Eight rows of 16 bytes that follow each other are one piece of an operand. So lie eight windows of a row in the
//! image, and every next chunk of a filter's row is the same piece, 16 bytes on: pieces may overlap, so that images
//! need no other order and no thread reads an operand. A group of four warps multiplies 8 x 8 windows. Filters are put
//! in an order in which a thread has the sums of neighbouring channels.

use serde::Serialize;

use super::{Template, field_names, fill, knob, variant, window_mma};
use crate::ir::Node;
use crate::kernel::body::region::{kernel_name, operand_bytes, signature};
use crate::kernel::device::{Device, NODE_US};
use crate::kernel::error::KernelError;
use crate::kernel::few_channels::FewChannels;
use crate::kernel::prelude::{COMMON, MMA, WGMMA, translation_unit};
use crate::kernel::source::{Arch, Launch, Source, Variant};
use crate::kernel::spec::KernelSpec;
use crate::kernel::window::{Axis, Window};

pub static TEMPLATE: Template = Template {
    name: "window_wgmma",
    text: include_str!("../../../templates/window_wgmma.cu.tera"),
    variants,
    render,
    fields: || field_names(&WindowWgmmaContext::default()),
};

#[derive(Clone, Debug, Default, Serialize)]
struct WindowWgmmaContext {
    name: String,
    params: Vec<String>,
    threads: usize,
    resident: usize,
    groups_down: usize,
    groups_across: usize,
    tile_n: usize,
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
    /// Groups of four warps, along both axes of a tile.
    groups_down: usize,
    groups_across: usize,
    /// Blocks of an SM.
    resident: usize,
}

/// Filters of a tile, the columns of an instruction.
const TILE_N: usize = 64;
/// Windows of a group of warps along both axes.
const SQUARE: usize = 8;
const GROUP: usize = 128;
/// Words of 16 bytes.
const CHUNK_WORDS: usize = 4;
/// Bytes of a chunk, and of one instruction's part of a row.
const CHUNK: usize = 16;
/// Registers of a thread that addresses and the epilogue take beside sums and the next tile's pixels.
const OTHERS: usize = 28;
const PLANS: [Plan; 4] = [plan(2, 1, 3), plan(2, 2, 1), plan(2, 2, 2), plan(1, 1, 6)];

const fn plan(groups_down: usize, groups_across: usize, resident: usize) -> Plan {
    Plan {
        groups_down,
        groups_across,
        resident,
    }
}

/// Words of two channels of a pixel.
fn pairs(window: &Window) -> usize {
    window.group_channels.div_ceil(2)
}

/// Chunks of a filter's row, two for each instruction.
fn tap_chunks(window: &Window) -> usize {
    (window.axes[1].kernel * pairs(window)).div_ceil(2 * CHUNK_WORDS) * 2
}

fn instructions(window: &Window) -> usize {
    window.axes[0].kernel * tap_chunks(window) / 2
}

impl Plan {
    fn threads(self) -> usize {
        self.groups_down * self.groups_across * GROUP
    }

    /// Rows of pixels that a tile sees, and bytes of one.
    fn image(self, window: &Window) -> (usize, usize) {
        let Axis { stride, kernel, .. } = window.axes[0];
        let rows = (self.groups_down * SQUARE - 1) * stride + kernel;
        let chunks = self.groups_across * SQUARE - 1 + tap_chunks(window);
        (rows, chunks * CHUNK)
    }

    fn pixels(self, window: &Window) -> usize {
        let (rows, bytes) = self.image(window);
        rows * bytes / (4 * pairs(window))
    }

    fn smem_bytes(self, window: &Window) -> usize {
        let (rows, bytes) = self.image(window);
        let filters = window.axes[0].kernel * tap_chunks(window) * TILE_N * CHUNK;
        filters + 2 * rows * bytes + TILE_N * 4
    }

    /// Registers that a thread needs: sums, the next tile's pixels, and others.
    fn registers(self, window: &Window) -> usize {
        let pixels = self.pixels(window).div_ceil(self.threads());
        TILE_N / 2 + pixels * window.group_channels + OTHERS
    }

    fn fits(self, window: &Window, device: &Device) -> bool {
        let reserved = self.smem_bytes(window) + 1024;
        let limit = (64 << 10) / (self.threads() * self.resident);
        self.smem_bytes(window) <= device.max_smem_per_block as usize
            && reserved * self.resident <= device.smem_per_sm as usize
            && self.registers(window) <= limit
    }

    /// Tiles of the same filters, down, across and of all images.
    fn tiles(self, window: &Window) -> [usize; 3] {
        let [rows, columns] = [window.axes[0], window.axes[1]];
        let down = rows.output.div_ceil(self.groups_down * SQUARE);
        let across = columns.output.div_ceil(self.groups_across * SQUARE);
        [down, across, window.batch * down * across]
    }

    /// Blocks that share the tiles of the same filters.
    fn shares(self, window: &Window, device: &Device) -> usize {
        let slots = device.n_sms as usize * self.resident;
        self.tiles(window)[2].min((slots / tiles_n(window)).max(1))
    }

    fn of(variant: &Variant) -> Result<Plan, KernelError> {
        Ok(Plan {
            groups_down: knob(&TEMPLATE, variant, "groups_down")?,
            groups_across: knob(&TEMPLATE, variant, "groups_across")?,
            resident: knob(&TEMPLATE, variant, "resident")?,
        })
    }
}

fn tiles_n(window: &Window) -> usize {
    window.filters.div_ceil(TILE_N)
}

/// Convolutions of few channels whose neighbouring windows begin a chunk apart.
fn accepted(spec: &KernelSpec, arch: Arch) -> Option<Window> {
    let window = window_mma::accepted(spec, arch).filter(|_| arch.is_hopper())?;
    let is_apart = window.axes[1].stride * pairs(&window) == CHUNK_WORDS;
    (is_apart && width(spec, &window).is_some()).then_some(window)
}

/// Neighbouring channels that a thread finishes at once: 16 bytes of the narrowest result, or what divides the filters.
fn width(spec: &KernelSpec, window: &Window) -> Option<usize> {
    let least = spec.output_types().iter().map(|ty| ty.dtype.size_bytes()).min()?;
    let divides = |width: &usize| width * least <= CHUNK && window.filters.is_multiple_of(*width);
    [16, 8, 4, 2].into_iter().find(divides)
}

fn variants(spec: &KernelSpec, arch: Arch) -> Vec<Variant> {
    let Some(window) = accepted(spec, arch) else {
        return Vec::new();
    };
    let device = Device::of(arch);
    PLANS
        .into_iter()
        .filter(|plan| plan.fits(&window, device))
        .map(|plan| {
            let knobs = [
                ("groups_down", plan.groups_down),
                ("groups_across", plan.groups_across),
                ("resident", plan.resident),
            ];
            variant(TEMPLATE.name, &knobs, predicted_us(spec, &window, plan, arch))
        })
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
fn predicted_us(spec: &KernelSpec, window: &Window, plan: Plan, arch: Arch) -> f64 {
    /// Clocks of one instruction, which reads both operands out of shared memory, as measured.
    const INSTRUCTION_CLK: f64 = 72.0;
    /// Of four words of filters on their way to shared memory, which all threads of a block wait for.
    const FILTERS_CLK: f64 = 700.0;
    /// Instructions for a pixel on its way to shared memory.
    const PIXEL_WORK: f64 = 30.0;
    let device = Device::of(arch);
    let groups = (plan.threads() / GROUP) as f64;
    let math = groups * instructions(window) as f64 * INSTRUCTION_CLK;
    let results = groups * (SQUARE * SQUARE * TILE_N) as f64;
    let width = width(spec, window).unwrap_or(1);
    let finish = window.after_work(spec, width) / width as f64 + 3.0;
    let issue = (plan.pixels(window) as f64 * PIXEL_WORK + results * finish) / 128.0;
    let shares = plan.shares(window, device);
    let blocks = (shares * tiles_n(window)) as f64;
    let per_sm = (blocks / f64::from(device.n_sms)).ceil();
    let per_block = (plan.tiles(window)[2] as f64 / shares as f64).ceil();
    // Blocks of an SM share its units, and gain little by each other.
    let tile_clk = (math + issue) * per_sm;
    let words = (instructions(window) * 8 * TILE_N) as f64;
    let filters_clk = (words / (plan.threads() as f64 * 4.0)).ceil() * FILTERS_CLK;
    let busy = (per_block * tile_clk + filters_clk) / (device.clock_ghz * 1e3);
    let fill = device.fill(blocks, plan.threads() as f64 * 4.0);
    let latency = 1.5;
    NODE_US + latency + busy.max(device.memory_us(operand_bytes(spec)) / fill)
}

fn render(spec: &KernelSpec, variant: &Variant, arch: Arch) -> Result<Source, KernelError> {
    let plan = Plan::of(variant)?;
    let found = accepted(spec, arch).and_then(|_| Window::of(spec));
    let (window, node) = found.ok_or_else(|| KernelError::NotAccepted {
        template: TEMPLATE.name,
        reason: "it is no dense convolution whose windows begin 16 bytes apart, on sm_90a".to_owned(),
    })?;
    let device = Device::of(arch);
    let (params, passed) = signature(spec);
    let knobs = format!("{}x{}_r{}", plan.groups_down, plan.groups_across, plan.resident);
    let name = kernel_name(spec, TEMPLATE.name, &knobs);
    let shares = plan.shares(&window, device);
    let context = WindowWgmmaContext {
        name: name.clone(),
        params,
        shares,
        ..context(spec, &window, node, plan)?
    };
    let text = fill(&TEMPLATE, &context)?;
    let blocks = shares * tiles_n(&window);
    Ok(Source {
        name,
        header: String::new(),
        text: translation_unit(&[COMMON, &[MMA, WGMMA]].concat(), &text),
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
) -> Result<WindowWgmmaContext, KernelError> {
    let width = width(spec, window).expect("accepted convolutions have one");
    let [tiles_down, tiles_across, _] = plan.tiles(window);
    Ok(WindowWgmmaContext {
        threads: plan.threads(),
        resident: plan.resident,
        groups_down: plan.groups_down,
        groups_across: plan.groups_across,
        tile_n: TILE_N,
        tiles_n: tiles_n(window),
        tiles_down,
        tiles_across,
        image: FewChannels::of(spec, window, node, width, TEMPLATE.name)?,
        ..WindowWgmmaContext::default()
    })
}
