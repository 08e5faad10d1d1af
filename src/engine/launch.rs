//! Launches: kernels with their arguments, and where these are.

use serde::{Deserialize, Serialize, Serializer};

use super::is_default;
use crate::ir::{PixelBox, TiledView};

/// Where the operands of a launch's problem are, of which its arguments are made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Index into [`Program::problems`](super::Program::problems).
    pub problem: usize,
    pub inputs: Vec<Place>,
    pub outputs: Vec<Place>,
}

/// One launch of a kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// Index into [`Program::kernels`](super::Program::kernels).
    pub kernel: usize,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Dynamic shared memory.
    pub smem_bytes: u32,
    pub args: Vec<Arg>,
    /// What it solves; older files do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// What it is queued on: launches of different streams may run at once. 0 is the caller's stream.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stream: u32,
    /// Whether what it writes are boxes of tensors, of which other launches write other boxes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub writes_boxes: bool,
    /// In files: the entry of [`Header::told`](super::Header::told) that has its nodes and its rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<usize>,
    /// ONNX nodes the launch computes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub nodes: Vec<String>,
    /// Rules that shaped it, as `name (file:line)`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rules: Vec<String>,
    /// Why this launch computes what it does.
    #[serde(default, skip_serializing_if = "is_default")]
    pub explanation: Explanation,
    pub predicted_us: f64,
    /// Median of the tuner's measurements, where it measured.
    pub measured_us: Option<f64>,
}

/// What fusing saved, and what else could have been launched.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explanation {
    /// Launches that a kernel for each op would take more.
    pub saved_launches: usize,
    /// Bytes that a kernel for each op would read and write more.
    pub saved_bytes: u64,
    /// Other choices for the same tensor, by rising loss.
    pub rejected: Vec<Rejected>,
}

/// A choice that lost, by how it differs from the launch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rejected {
    /// ONNX nodes that it leaves to another kernel.
    pub without: Vec<String>,
    /// ONNX nodes that it computes too.
    pub with: Vec<String>,
    /// Rules that give it another form of the same nodes.
    pub rules: Vec<String>,
    /// By how much the whole plan is slower with it, by analytic bounds.
    pub lost_us: f64,
}

/// A kernel argument.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Arg {
    /// The address of what the kernel only reads.
    Reads(Place),
    /// The address of what the kernel writes, and may read.
    Writes(Place),
    I32(i32),
    TensorMap(TensorMap),
}

/// A tensor as bulk copies read it, see [`TiledView`]; the runtime encodes it for the driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorMap {
    pub place: Place,
    pub element_bytes: usize,
    /// Extents in elements, innermost first.
    pub dims: Vec<usize>,
    /// Bytes between neighbours along every axis but the innermost.
    pub strides: Vec<usize>,
    /// Extents of what one copy moves.
    pub tile: Vec<usize>,
    /// Where rows of a tile are pixels of images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pixels: Option<Pixels>,
}

/// As [`PixelBox`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pixels {
    pub lower: [i32; 2],
    pub upper: [i32; 2],
    pub steps: [usize; 2],
}

impl TensorMap {
    pub fn new(place: Place, view: &TiledView) -> Self {
        let TiledView {
            element_bytes,
            dims,
            strides,
            tile,
            pixels,
        } = view.clone();
        TensorMap {
            place,
            element_bytes,
            dims,
            strides,
            tile,
            pixels: pixels.map(|PixelBox { lower, upper, steps }| Pixels { lower, upper, steps }),
        }
    }

    pub fn view(&self) -> TiledView {
        TiledView {
            element_bytes: self.element_bytes,
            dims: self.dims.clone(),
            strides: self.strides.clone(),
            tile: self.tile.clone(),
            pixels: self
                .pixels
                .map(|Pixels { lower, upper, steps }| PixelBox { lower, upper, steps }),
        }
    }
}

/// A span of one of the engine's memories. Files have it as a list: most of what they say are places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    pub memory: Memory,
    pub offset: usize,
    pub len: usize,
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.memory, self.offset, self.len).serialize(serializer)
    }
}

/// The memories a launch may touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Memory {
    /// Activations, inputs and outputs; one per execution context.
    Arena,
    /// Constant data; uploaded once, shared by contexts.
    Weights,
    /// Kernels' scratch memory; one per execution context.
    Workspace,
}
