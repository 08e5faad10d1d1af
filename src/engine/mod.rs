//! The engine: everything a GPU needs to execute one model, as data.
//!
//! Builder and runtime meet here and share nothing else. An [`Engine`] holds one
//! [`Program`] per architecture, the weights, and blobs (cubins and their sources). It
//! carries no host code. [`format`] describes the file byte by byte; [`validate`] proves
//! every number of an untrusted file before anything is given to a device.

mod compact;
mod content;
pub mod error;
pub mod format;
mod pages;
mod residents;
pub mod signature;
mod source;
mod span;
pub mod streams;
pub mod stripped;
mod told;
mod v1;
mod v2;
pub mod validate;

use serde::{Deserialize, Serialize, Serializer};

use crate::ir::{DType, PixelBox, TensorType, TiledView};

pub use compact::compacted;
pub use content::Content;
pub use error::EngineError;
pub use format::{is_signed, load, load_signed, read, read_signed, save, save_signed, write, write_signed};
pub use residents::Resident;
pub use signature::{PublicKey, SecretKey};
pub use span::spanned;
pub use told::Told;

/// Alignment of weights and scratch memory, and of every blob in the file.
pub const ALIGNMENT: usize = 256;

/// Alignment of tensors in the arena: two sectors of a cache. What is aligned by more pads the many tensors
/// of a few bytes (statistics of rows, counts) that small inputs have, which was 8 to 10 per cent of their arenas.
pub const ARENA_ALIGNMENT: usize = 64;

/// A model compiled for one or several bindings of its dynamic dims.
#[derive(Clone, Debug, PartialEq)]
pub struct Engine {
    pub header: Header,
    /// Contents of [`Header::blobs`], in order.
    pub blobs: Vec<Content>,
}

/// What the file says in front of its blobs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Name and version of the builder.
    pub producer: String,
    /// Name of the model's graph, for people.
    pub model: String,
    /// Element kind activations are stored in, such as `f16`.
    pub precision: String,
    /// Version of NVRTC that made the cubins.
    pub nvrtc: String,
    /// What the engine takes and gives, once for each binding of the model's dynamic dims.
    pub profiles: Vec<Profile>,
    /// Blob of all weights; [`Memory::Weights`] is its content.
    pub weights: usize,
    /// One per architecture and profile.
    pub programs: Vec<Program>,
    pub blobs: Vec<Blob>,
    /// Most bytes of device memory that an execution may take, where the build was bounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_memory: Option<usize>,
    /// Most streams that an execution may use beside the caller's; older files do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_aux_streams: Option<u32>,
    /// Contexts that execute at the same time, if its kernels were chosen for several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_contexts: Option<usize>,
    /// Where the weights are not in the file: what belongs where in them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stripped: Option<Vec<Fingerprint>>,
    /// In files of several programs, what their launches refer to; in memory they say it themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub told: Vec<Told>,
}

/// A piece of weights that are not in the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    pub offset: usize,
    pub len: usize,
    /// SHA-256 of its bytes, in hex.
    pub sha256: String,
}

/// Inputs and outputs with all dims bound. Names are those of the model, in its order, in every
/// profile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    pub inputs: Vec<Binding>,
    pub outputs: Vec<Binding>,
    /// Numbers that say how much of outputs is there: one `i64` each. Their places in programs are behind those
    /// of the outputs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counts: Vec<Binding>,
    /// Axes of outputs whose extent data decides: that of the output is the most it can be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bounds: Vec<Bound>,
    /// Of counts: what data must not exceed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<Limit>,
}

/// A number that data must not exceed, or outputs are wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Index into [`Profile::counts`].
    pub count: usize,
    pub most: i64,
}

/// An axis of an output along which only the first elements are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bound {
    /// Index into [`Profile::outputs`].
    pub output: usize,
    pub axis: usize,
    /// Index into [`Profile::counts`].
    pub count: usize,
}

impl Profile {
    /// Output number `output` as people read its type: with `<=` where data decides an extent.
    pub fn shown_output(&self, output: usize) -> String {
        let binding = &self.outputs[output];
        let extents = binding.dims.iter().enumerate().map(|(axis, extent)| {
            let is_bounded = |bound: &Bound| bound.output == output && bound.axis == axis;
            let at_most = if self.bounds.iter().any(is_bounded) {
                "<="
            } else {
                ""
            };
            format!("{at_most}{extent}")
        });
        format!("{}[{}]", binding.dtype, extents.collect::<Vec<_>>().join(","))
    }

    /// The first limit that these counts exceed.
    pub fn exceeded(&self, counts: &[i64]) -> Option<Limit> {
        let exceeded = |limit: &&Limit| counts[limit.count] > limit.most;
        self.limits.iter().find(exceeded).copied()
    }

    /// Dims of output number `output` where these are the counts.
    ///
    /// # Errors
    /// If a count is not within the extent that it is of: the axis and that count.
    pub fn true_dims(&self, output: usize, counts: &[i64]) -> Result<Vec<usize>, (usize, i64)> {
        let mut dims = self.outputs[output].dims.clone();
        for bound in self.bounds.iter().filter(|bound| bound.output == output) {
            let (extent, count) = (&mut dims[bound.axis], counts[bound.count]);
            *extent = usize::try_from(count)
                .ok()
                .filter(|count| count <= extent)
                .ok_or((bound.axis, count))?;
        }
        Ok(dims)
    }
}

/// A named input or output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    pub name: String,
    #[serde(with = "dtype_name")]
    pub dtype: DType,
    pub dims: Vec<usize>,
}

impl Binding {
    pub fn ty(&self) -> TensorType {
        TensorType::new(self.dtype, &self.dims)
    }
}

/// A blob's place in the file and its digest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blob {
    pub offset: u64,
    pub len: u64,
    /// Digest of the content, in hex, see [`pages`].
    pub sha256: String,
}

/// The launches of one execution on one architecture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// NVRTC's spelling, such as `sm_90a`.
    pub arch: String,
    /// Index into [`Header::profiles`].
    pub profile: usize,
    pub kernels: Vec<Kernel>,
    /// What its launches compute, each problem once: other kernels are made from that. Older files do not say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// In execution order.
    pub launches: Vec<Launch>,
    /// Where each input of the profile is written before the first launch.
    pub inputs: Vec<Place>,
    /// Where each output of the profile is after the last launch, and behind these each count.
    pub outputs: Vec<Place>,
    pub arena_bytes: usize,
    /// The largest sum of live tensors at any launch: no arena can be smaller.
    pub arena_lower_bound_bytes: usize,
    /// What the arena holds and when, by rising first launch; unknown in files of versions 1 and 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tensors: Option<Vec<Resident>>,
    /// Scratch memory, zeroed when a context is made and left zero where a kernel counts on it.
    pub workspace_bytes: usize,
    /// Whether every kernel waits for what it reads by itself, so that a launch may begin
    /// before the one before it is done.
    pub kernels_wait: bool,
}

/// A compiled kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// C name of the entry.
    pub name: String,
    pub template: String,
    /// Knobs of the variant, as `tile_m=64 tile_n=64`.
    pub variant: String,
    /// Blob with the cubin.
    pub cubin: usize,
    /// Blob with PTX, which newer devices than the program's compile when they load it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ptx: Option<usize>,
    /// Blob with the CUDA text.
    pub source: usize,
    /// Registers per thread.
    pub registers: u32,
    /// Local memory per thread.
    pub local_bytes: u32,
    pub static_smem_bytes: u32,
}

/// What a kernel computes, apart from how. No device needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Problem {
    /// What its main loop is, as rule files spell it, such as `dot`.
    pub kind: String,
    /// Blob with the graph that it computes, as text.
    pub graph: usize,
    /// Whether products of `f32` may use TF32.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tf32: bool,
    /// Whether its kernels may use scratch memory.
    pub workspace: bool,
    /// Outputs that are boxes of larger tensors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boxes: Vec<Placed>,
}

/// An output that is a box of a larger tensor, see [`Placement`](crate::ir::Placement).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placed {
    pub output: usize,
    pub dims: Vec<usize>,
    pub starts: Vec<usize>,
}

/// Where the operands of a launch's problem are, of which its arguments are made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Index into [`Program::problems`].
    pub problem: usize,
    pub inputs: Vec<Place>,
    pub outputs: Vec<Place>,
}

/// One launch of a kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// Index into [`Program::kernels`].
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
    /// In files: the entry of [`Header::told`] that has its nodes and its rules.
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

/// Whether a field is left out of files: readers of before it know nothing of it.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
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

/// Most execution contexts that kernels are chosen for.
pub const MAX_CONTEXTS: usize = 64;

impl Header {
    /// Execution contexts that kernels were chosen for, which execute at the same time.
    pub fn n_contexts(&self) -> usize {
        self.n_contexts.unwrap_or(1)
    }

    /// Whether blob number `blob` is in the file.
    pub fn is_stored(&self, blob: usize) -> bool {
        self.stripped.is_none() || blob != self.weights
    }

    /// Bytes of all weights, in the file or not.
    pub fn weights_bytes(&self) -> usize {
        let listed = self.blobs.get(self.weights).map_or(0, |blob| blob.len);
        usize::try_from(listed).unwrap_or(usize::MAX)
    }

    /// Architectures that there are programs for, each once.
    pub fn archs(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for program in &self.programs {
            if !names.contains(&program.arch.as_str()) {
                names.push(&program.arch);
            }
        }
        names
    }
}

impl Engine {
    /// Empty where they were stripped.
    pub fn weights(&self) -> &[u8] {
        &self.blobs[self.header.weights]
    }

    /// Device memory of one execution: weights, and the largest arena and scratch memory of any
    /// architecture.
    pub fn device_bytes(&self) -> usize {
        let own = |arch: &str| {
            let programs = || self.header.programs.iter().filter(|program| program.arch == arch);
            let arena = programs().map(|program| program.arena_bytes).max().unwrap_or(0);
            let workspace = programs()
                .map(|program| program.workspace_bytes)
                .max()
                .unwrap_or(0);
            arena + workspace
        };
        let archs = self.header.archs().into_iter().map(own);
        self.header.weights_bytes() + archs.max().unwrap_or(0)
    }

    /// The program of a profile for a device of compute capability `sm` (times ten), and which code of its
    /// kernels: as [`Engine::program_for`], else the newest older one that has PTX.
    pub fn code_for(&self, sm: u32, profile: usize) -> Option<(&Program, Code)> {
        if let Some(program) = self.program_for(sm, profile) {
            return Some((program, Code::Cubin));
        }
        let own = self
            .header
            .programs
            .iter()
            .filter(|program| program.profile == profile);
        let older = own.filter_map(|program| {
            let (arch, specific) = arch_number(&program.arch)?;
            let has_ptx = program.kernels.iter().all(|kernel| kernel.ptx.is_some());
            (has_ptx && !specific && arch <= sm).then_some((arch, program))
        });
        let newest = older.max_by_key(|(arch, _)| *arch)?;
        Some((newest.1, Code::Ptx))
    }

    /// The program of a profile for a device of compute capability `sm` (times ten): the exact
    /// architecture, its `a` form first, else the newest older one of the same major
    /// version, whose cubins the device still executes. Tegra devices share binaries with none.
    pub fn program_for(&self, sm: u32, profile: usize) -> Option<&Program> {
        let own = self
            .header
            .programs
            .iter()
            .filter(|program| program.profile == profile);
        let candidates = own.filter_map(|program| {
            let arch = arch_number(&program.arch)?;
            executes(sm, arch).then_some((arch, program))
        });
        candidates
            .max_by_key(|(rank, _)| *rank)
            .map(|(_, program)| program)
    }
}

/// What the driver is given of a program's kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Cubin,
    /// Compiled by the driver when it is loaded.
    Ptx,
}

/// Compute capabilities (times ten) of integrated devices.
const TEGRA: [u32; 2] = [87, 110];

/// Whether a device of compute capability `sm` (times ten) executes cubins for `arch`, as
/// [`arch_number`] gives it.
pub fn executes(sm: u32, arch: (u32, bool)) -> bool {
    let (own, specific) = arch;
    let tegra = TEGRA.contains(&own) || TEGRA.contains(&sm);
    own == sm || (!specific && !tegra && own < sm && own / 10 == sm / 10)
}

/// `sm_90a` as `(90, true)`.
pub fn arch_number(name: &str) -> Option<(u32, bool)> {
    let digits = name.strip_prefix("sm_")?;
    let (digits, specific) = match digits.strip_suffix('a') {
        Some(digits) => (digits, true),
        None => (digits, false),
    };
    Some((digits.parse().ok()?, specific))
}

/// Element kinds are written by name.
mod dtype_name {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::ir::DType;

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde's `with` passes a reference"
    )]
    pub fn serialize<S: Serializer>(dtype: &DType, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(dtype.name())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DType, D::Error> {
        let name = String::deserialize(deserializer)?;
        DType::from_name(&name).ok_or_else(|| D::Error::custom(format!("no element kind is named `{name}`")))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn binding(name: &str) -> Binding {
        Binding {
            name: name.to_owned(),
            dtype: DType::F32,
            dims: vec![4],
        }
    }

    fn program(arch: &str) -> Program {
        let arena = |offset, len| Place {
            memory: Memory::Arena,
            offset,
            len,
        };
        let resident = |name: &str, offset| Resident {
            tensor: binding(name),
            offset,
            first: 0,
            last: 1,
        };
        Program {
            arch: arch.to_owned(),
            profile: 0,
            kernels: vec![Kernel {
                name: "rtrt_add".to_owned(),
                template: "pointwise".to_owned(),
                variant: "vec=4".to_owned(),
                cubin: 1,
                ptx: None,
                source: 2,
                registers: 16,
                local_bytes: 0,
                static_smem_bytes: 0,
            }],
            problems: vec![Problem {
                kind: "pointwise".to_owned(),
                graph: 2,
                tf32: false,
                workspace: true,
                boxes: Vec::new(),
            }],
            launches: vec![Launch {
                kernel: 0,
                grid: [1, 1, 1],
                block: [128, 1, 1],
                smem_bytes: 0,
                args: vec![
                    Arg::Reads(arena(0, 16)),
                    Arg::Reads(Place {
                        memory: Memory::Weights,
                        offset: 0,
                        len: 16,
                    }),
                    Arg::Writes(arena(256, 16)),
                    Arg::I32(4),
                ],
                task: Some(Task {
                    problem: 0,
                    inputs: vec![arena(0, 16)],
                    outputs: vec![arena(256, 16)],
                }),
                stream: 0,
                writes_boxes: false,
                told: None,
                nodes: vec!["Add_0".to_owned()],
                rules: vec!["lower_map (lower.rules:3)".to_owned()],
                explanation: Explanation {
                    saved_launches: 1,
                    saved_bytes: 32,
                    rejected: vec![Rejected {
                        without: vec!["Relu_1".to_owned()],
                        lost_us: 1.25,
                        ..Rejected::default()
                    }],
                },
                predicted_us: 1.5,
                measured_us: None,
            }],
            inputs: vec![arena(0, 16)],
            outputs: vec![arena(256, 16)],
            arena_bytes: 512,
            arena_lower_bound_bytes: 32,
            tensors: Some(vec![resident("x", 0), resident("y", 256)]),
            workspace_bytes: 0,
            kernels_wait: false,
        }
    }

    /// A small engine with one launch on each arch.
    pub fn example(archs: &[&str]) -> Engine {
        let blobs = [vec![7; 16], b"\x7fELF and so on".to_vec(), b"// text".to_vec()];
        let blobs = blobs.map(Content::from).to_vec();
        Engine {
            header: Header {
                producer: "rtrt-codegen test".to_owned(),
                model: "example".to_owned(),
                precision: "f32".to_owned(),
                nvrtc: "13.0".to_owned(),
                profiles: vec![Profile {
                    inputs: vec![binding("x")],
                    outputs: vec![binding("y")],
                    counts: Vec::new(),
                    bounds: Vec::new(),
                    limits: Vec::new(),
                }],
                weights: 0,
                programs: archs.iter().map(|arch| program(arch)).collect(),
                blobs: format::blob_table(&blobs),
                max_memory: None,
                max_aux_streams: None,
                n_contexts: None,
                stripped: None,
                told: Vec::new(),
            },
            blobs,
        }
    }

    #[test]
    fn a_device_gets_its_own_program_or_an_older_one_of_its_family() {
        let engine = example(&["sm_80", "sm_86", "sm_90a", "sm_90"]);
        let arch = |sm| engine.program_for(sm, 0).map(|program| program.arch.as_str());
        assert_eq!(arch(80), Some("sm_80"));
        assert_eq!(arch(89), Some("sm_86"));
        assert_eq!(arch(87), None);
        assert_eq!(arch(90), Some("sm_90a"));
        assert_eq!(arch(100), None);
        assert_eq!(arch(75), None);
    }

    #[test]
    fn newer_devices_get_the_newest_program_with_ptx() {
        let mut engine = example(&["sm_80", "sm_87", "sm_90a"]);
        let code = |engine: &Engine, sm| {
            let found = engine.code_for(sm, 0);
            found.map(|(program, code)| (program.arch.clone(), code))
        };
        assert_eq!(code(&engine, 120), None);
        for program in &mut engine.header.programs {
            program.kernels[0].ptx = Some(2);
        }
        let ptx_of = |arch: &str| Some((arch.to_owned(), Code::Ptx));
        assert_eq!(code(&engine, 120), ptx_of("sm_87"));
        assert_eq!(code(&engine, 75), None);
        assert_eq!(code(&engine, 89), Some(("sm_80".to_owned(), Code::Cubin)));
        assert_eq!(code(&engine, 90), Some(("sm_90a".to_owned(), Code::Cubin)));
    }
}
