//! What the kernel layer hands on: CUDA text with everything needed to launch it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ir::TiledView;

/// A GPU architecture NVRTC can build for, such as `sm_90a`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Arch {
    /// Compute capability times ten: 75, 80, 86, 87, 89, 90, 100, 120.
    pub sm: u32,
    /// Whether the architecture-specific features (`a`) are on.
    pub specific: bool,
}

impl Arch {
    /// Whether kernels may use what only `sm_90a` has: instructions of four warps.
    pub fn is_hopper(self) -> bool {
        (self.sm, self.specific) == (90, true)
    }
}

/// One way to solve a region's kernel problem, as data. Ordered by predicted time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    /// Template stem, such as `gemm_mma`.
    pub template: String,
    /// Named knobs, such as `tile_m = 64`; what they mean is the template's own business.
    pub knobs: std::collections::BTreeMap<String, i64>,
    /// Analytic time on the arch's reference device, in microseconds.
    pub predicted_us: f64,
    /// Registers of a thread, where the template estimates them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registers: Option<usize>,
}

impl Variant {
    pub fn with_registers(self, registers: usize) -> Self {
        Variant {
            registers: Some(registers),
            ..self
        }
    }

    /// `threads=256 width=4`: the knobs in order of their names.
    pub fn knobs_text(&self) -> String {
        let knobs: Vec<String> = self
            .knobs
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        knobs.join(" ")
    }
}

/// A rendered kernel. Rendering is deterministic.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// Name of the `extern "C"` entry; made of template, ops and tile, never of model names.
    pub name: String,
    /// Comment lines that go before `text` for people: ONNX nodes, region, variant, template.
    /// Not compiled and not part of any key, so that equal kernels of repeated layers are one.
    pub header: String,
    /// Whole translation unit, prelude included; one for all that execute it.
    pub text: Arc<str>,
    pub template: &'static str,
    pub launch: Launch,
    /// Kernel parameters in order.
    pub params: Vec<Param>,
    /// Bytes of scratch memory the kernel needs beside its operands; zeroed once at load.
    pub workspace_bytes: usize,
}

/// Launch geometry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Dynamic shared memory.
    pub smem_bytes: u32,
}

impl Launch {
    /// `blocks` in a row, of `threads` in a row. Numbers of more than 32 bits become the largest one, which
    /// [`crate::engine::validate`] refuses as more than any device allows.
    pub fn in_a_row(blocks: usize, threads: usize, smem_bytes: usize) -> Self {
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Launch {
            grid: [small(blocks), 1, 1],
            block: [small(threads), 1, 1],
            smem_bytes: small(smem_bytes),
        }
    }
}

/// One kernel parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Param {
    /// Pointer to input number `i` of the region.
    Input(usize),
    /// Pointer to output number `i` of the region.
    Output(usize),
    /// Pointer to the workspace.
    Workspace,
    /// A 32-bit dim argument with its value.
    Dim(i32),
    /// Input number `input` as tiles of it are copied, by value.
    TensorMap { input: usize, view: TiledView },
}
