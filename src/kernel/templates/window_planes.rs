//! `window_planes`: convolutions with stride 1 and all channels of a filter's tile at hand, with the matrix instructions
//! of four warps at once (`sm_90a`).
//!
//! As products, such convolutions read every pixel once for each tap. Here a group of four warps has the pixels that
//! 8 x 8 windows see in shared memory, in planes of 16 bytes of channels, which instructions read like images of few
//! channels (`window_wgmma`): a tap is nothing but another beginning. Filters stay.

use serde::Serialize;

use super::{Template, field_names, fill, knob, variant};
use crate::ir::DType;
use crate::kernel::body::region::{kernel_name, signature, tensors_index_type};
use crate::kernel::device::{Device, NODE_US};
use crate::kernel::error::KernelError;
use crate::kernel::gemm::contraction::Contraction;
use crate::kernel::gemm::element::{self, Sums};
use crate::kernel::gemm::epilogue::{Early, Epilogue, Held, best_width};
use crate::kernel::gemm::images::Images;
use crate::kernel::gemm::parts::{epilogue_work, memory_bytes, tensors};
use crate::kernel::prelude::{ASYNC_COPY, COMMON, WGMMA, translation_unit};
use crate::kernel::print::types::storage_type;
use crate::kernel::source::{Arch, Launch, Source, Variant};
use crate::kernel::spec::KernelSpec;

pub static TEMPLATE: Template = Template {
    name: "window_planes",
    text: include_str!("../../../templates/window_planes.cu.tera"),
    variants,
    render,
    fields: || field_names(&WindowPlanesContext::default()),
};

#[derive(Clone, Debug, Default, Serialize)]
struct WindowPlanesContext {
    name: String,
    params: Vec<String>,
    index_type: &'static str,
    element: &'static str,
    /// Types of the instructions' sums, and of what the epilogue takes them as, and what takes the one as the other.
    sum: &'static str,
    value: &'static str,
    taken: &'static str,
    threads: usize,
    resident: usize,
    groups: usize,
    tile_n: usize,
    tiles_n: usize,
    /// Squares of an image along both axes.
    down: usize,
    across: usize,
    shares: usize,
    batch: usize,
    input_height: usize,
    input_width: usize,
    height: usize,
    row_width: usize,
    filters: usize,
    channels: usize,
    kernel_rows: usize,
    taps: usize,
    row_pad: i64,
    pad: i64,
    /// Parameters of the images and of the filters.
    image: String,
    filter: String,
    width: usize,
    columns: Vec<ColumnContext>,
    column_arrays: String,
    column_vectors: String,
    epilogue: String,
}

/// What the epilogue reads of every column.
#[derive(Clone, Debug, Default, Serialize)]
struct ColumnContext {
    kind: &'static str,
    from: String,
}

/// Filters of a tile, the columns of an instruction.
const TILE_N: usize = 64;
/// Windows of a group of warps along both axes.
const SQUARE: usize = 8;
const GROUP: usize = 128;
const CHUNK: usize = 16;
const DEPTH_BYTES: usize = 32;

/// Groups of a block, and blocks of an SM: several were slower, as measured.
#[derive(Clone, Copy, Debug)]
struct Plan {
    groups: usize,
    resident: usize,
}

const PLANS: [Plan; 3] = [
    Plan {
        groups: 4,
        resident: 1,
    },
    Plan {
        groups: 2,
        resident: 1,
    },
    Plan {
        groups: 1,
        resident: 1,
    },
];

struct Problem {
    contraction: Contraction,
    element: DType,
    images: Images,
    width: usize,
}

impl Problem {
    fn of(spec: &KernelSpec, arch: Arch) -> Option<Problem> {
        if !arch.is_hopper() {
            return None;
        }
        let contraction = Contraction::of(spec)?;
        let mut elements = element::of_groups(&contraction, spec, arch).into_iter();
        let (element, images) =
            elements.find_map(|element| Some((element, Images::of(spec, &contraction, element)?)))?;
        let is_whole = (images.channels * element.size_bytes()).is_multiple_of(DEPTH_BYTES);
        let is_dense = images
            .axes
            .iter()
            .all(|axis| axis.stride == 1 && axis.dilation == 1);
        let least = spec.output_types().iter().map(|ty| ty.dtype.size_bytes()).min()?;
        let width = best_width(&contraction, (CHUNK / least).max(2));
        // Sums of 8-bit floats would have to be taken in two levels.
        let fits = is_whole && is_dense && width > 1 && element != DType::F8E4M3;
        fits.then_some(Problem {
            contraction,
            element,
            images,
            width,
        })
    }

    fn n_taps(&self) -> usize {
        self.images.n_taps()
    }

    fn chunks(&self) -> usize {
        self.images.channels * self.element.size_bytes() / CHUNK
    }

    /// Squares of an image along y and along x.
    fn squares(&self) -> [usize; 2] {
        let [x, y] = self.images.axes;
        [y, x].map(|axis| axis.output.div_ceil(SQUARE))
    }

    fn tiles_n(&self) -> usize {
        self.images.n_filters.div_ceil(TILE_N)
    }

    /// Pixels that a square sees.
    fn seen(&self) -> usize {
        let axes = self.images.axes.iter();
        axes.map(|axis| SQUARE - 1 + axis.kernel).product()
    }

    /// Bytes of the filters of a tile, and of the pixels of a square.
    fn bytes(&self) -> [usize; 2] {
        let chunks = self.chunks();
        let apart = CHUNK * (8 / chunks).max(1);
        let plane = (self.seen() * CHUNK).next_multiple_of(128) + apart;
        [self.n_taps() * chunks * TILE_N * CHUNK, plane * chunks]
    }

    fn smem_bytes(&self, plan: Plan) -> usize {
        let [filters, image] = self.bytes();
        filters + 2 * plan.groups * image
    }

    fn fits(&self, plan: Plan, device: &Device) -> bool {
        let bytes = self.smem_bytes(plan);
        bytes <= device.max_smem_per_block as usize
            && (bytes + 1024) * plan.resident <= device.smem_per_sm as usize
    }

    /// Steps of the blocks that have the same filters, and how many blocks those are.
    fn shared(&self, plan: Plan, device: &Device) -> (usize, usize) {
        let squares = self.images.batch * self.squares().iter().product::<usize>();
        let steps = squares.div_ceil(plan.groups);
        let slots = device.n_sms as usize * plan.resident;
        (steps, steps.min((slots / self.tiles_n()).max(1)))
    }
}

impl Plan {
    fn threads(self) -> usize {
        self.groups * GROUP
    }
}

fn variants(spec: &KernelSpec, arch: Arch) -> Vec<Variant> {
    let Some(problem) = Problem::of(spec, arch) else {
        return Vec::new();
    };
    let device = Device::of(arch);
    PLANS
        .into_iter()
        .filter(|&plan| problem.fits(plan, device))
        .map(|plan| {
            let knobs = [("groups", plan.groups), ("resident", plan.resident)];
            variant(TEMPLATE.name, &knobs, predicted_us(spec, &problem, plan, device))
        })
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
fn predicted_us(spec: &KernelSpec, problem: &Problem, plan: Plan, device: &Device) -> f64 {
    /// Clocks of one instruction, whose rows mostly begin between the lines of shared memory, as measured.
    const INSTRUCTION_CLK: f64 = 76.0;
    /// From a step's pixels to their sums, and from one step to the next, in clocks.
    const STEP_CLK: f64 = 1200.0;
    /// Instructions for a chunk on its way to shared memory.
    const COPY_WORK: f64 = 20.0;
    const ISSUE_PER_CLK: f64 = 64.0;
    const FILL_US: f64 = 2.0;
    let groups = plan.groups as f64;
    let math = groups * (problem.n_taps() * problem.chunks() / 2) as f64 * INSTRUCTION_CLK;
    let copies = groups * (problem.seen() * problem.chunks()) as f64 * COPY_WORK;
    let results = groups * (SQUARE * SQUARE * TILE_N) as f64;
    let finish = results * (epilogue_work(&problem.contraction) + 12.0 / problem.width as f64);
    let issue = (copies + finish) / ISSUE_PER_CLK;
    let (steps, shares) = problem.shared(plan, device);
    let blocks = (shares * problem.tiles_n()) as f64;
    let per_sm = (blocks / f64::from(device.n_sms)).ceil();
    let per_block = (steps as f64 / shares as f64).ceil();
    let step_clk = (math.max(issue) * per_sm).max(math + issue + STEP_CLK);
    let busy = per_block * step_clk / (device.clock_ghz * 1e3);
    NODE_US + FILL_US + busy.max(device.memory_us(memory_bytes(spec)))
}

fn render(spec: &KernelSpec, variant: &Variant, arch: Arch) -> Result<Source, KernelError> {
    let problem = Problem::of(spec, arch).ok_or_else(|| KernelError::NotAccepted {
        template: TEMPLATE.name,
        reason: "it is no dense convolution with stride 1 of images as they lie, on sm_90a".to_owned(),
    })?;
    let plan = Plan {
        groups: knob(&TEMPLATE, variant, "groups")?,
        resident: knob(&TEMPLATE, variant, "resident")?,
    };
    let (params, passed) = signature(spec);
    let name = kernel_name(
        spec,
        TEMPLATE.name,
        &format!("g{}_r{}", plan.groups, plan.resident),
    );
    let (_, shares) = problem.shared(plan, Device::of(arch));
    let context = WindowPlanesContext {
        name: name.clone(),
        params,
        shares,
        ..context(spec, &problem, plan)?
    };
    let text = fill(&TEMPLATE, &context)?;
    let blocks = shares * problem.tiles_n();
    Ok(Source {
        name,
        header: String::new(),
        text: translation_unit(&[COMMON, &[ASYNC_COPY, WGMMA]].concat(), &text),
        template: TEMPLATE.name,
        launch: Launch::in_a_row(blocks, plan.threads(), problem.smem_bytes(plan)),
        params: passed,
        workspace_bytes: 0,
    })
}

/// All but the name, the parameters and how blocks share the squares.
fn context(spec: &KernelSpec, problem: &Problem, plan: Plan) -> Result<WindowPlanesContext, KernelError> {
    let images = &problem.images;
    let [x, y] = images.axes;
    let [down, across] = problem.squares();
    let rows = problem.contraction.sizes.m;
    let columns = problem.tiles_n() * TILE_N;
    let epilogue = Epilogue::new(&problem.contraction, problem.width, rows, columns);
    let column_loads = epilogue.column_loads(spec);
    let early = Early {
        asked: &[],
        columns: &column_loads,
        held: Held::default(),
    };
    let Sums {
        sum, value, taken, ..
    } = element::sums(problem.element, &problem.contraction);
    let all = tensors(spec);
    Ok(WindowPlanesContext {
        index_type: tensors_index_type(spec),
        element: storage_type(problem.element),
        sum,
        value,
        taken,
        threads: plan.threads(),
        resident: plan.resident,
        groups: plan.groups,
        tile_n: TILE_N,
        tiles_n: problem.tiles_n(),
        down,
        across,
        batch: images.batch,
        input_height: y.input,
        input_width: x.input,
        height: y.output,
        row_width: x.output,
        filters: images.n_filters,
        channels: images.channels,
        kernel_rows: y.kernel,
        taps: x.kernel,
        row_pad: y.pad,
        pad: x.pad,
        image: all[images.image].name.clone(),
        filter: all[images.filter].name.clone(),
        width: problem.width,
        columns: column_loads
            .iter()
            .map(|&load| epilogue.stored(spec, load))
            .map(|(kind, from)| ColumnContext { kind, from })
            .collect(),
        column_arrays: epilogue.column_arrays(&column_loads, 5),
        column_vectors: epilogue.column_vectors(&column_loads, false, 5),
        epilogue: epilogue.text(spec, early, 7)?,
        ..WindowPlanesContext::default()
    })
}
