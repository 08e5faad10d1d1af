//! The engine: everything a GPU needs to execute one model, as data.
//!
//! Builder and runtime meet here and share nothing else. An [`Engine`] holds one
//! [`Program`] per architecture, the weights, and blobs (cubins and their sources). It
//! carries no host code. [`mod@format`] describes the file byte by byte; [`validate`] proves
//! every number of an untrusted file before anything is given to a device.

mod blobs;
mod compact;
mod content;
mod device;
pub mod error;
pub mod format;
mod launch;
mod pages;
mod profile;
mod programs;
mod residents;
pub mod shared;
pub mod signature;
mod source;
mod span;
pub mod streams;
pub mod stripped;
mod told;
mod v1;
mod v2;
mod v3;
pub mod validate;

use serde::{Deserialize, Serialize};

pub use blobs::blob_table;
pub use compact::compacted;
pub use content::Content;
pub use device::{Code, arch_number, executes};
pub use error::EngineError;
pub use format::{is_signed, load, load_signed, read, read_signed, save, save_signed, write, write_signed};
pub use launch::{Arg, Explanation, Launch, Memory, Pixels, Place, Rejected, Task, TensorMap};
pub use profile::{Binding, Bound, Limit, Profile};
pub use programs::SharedProgram;
pub use residents::Resident;
pub use shared::{Needs, Shared, SharedKernel, SharedPrograms};
pub use signature::{PublicKey, SecretKey};
pub use span::spanned;
pub use told::{Telling, Told};

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
    /// What the engine takes and gives, once for each binding of the model's dynamic dims that is listed.
    pub profiles: Vec<Profile>,
    /// Blob of all weights; [`Memory::Weights`] is its content.
    pub weights: usize,
    /// One per architecture and listed profile.
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
    /// Profiles and programs of a range, which are computed when they are used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<Shared>,
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

/// A blob's place in the file and its digest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blob {
    pub offset: u64,
    pub len: u64,
    /// Digest of the content, in hex, see `pages.rs`.
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

/// Whether a field is left out of files: readers of before it know nothing of it.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
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
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::ir::DType;

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
                blobs: blob_table(&blobs),
                max_memory: None,
                max_aux_streams: None,
                n_contexts: None,
                stripped: None,
                told: Vec::new(),
                shared: None,
            },
            blobs,
        }
    }
}
