//! How operands and results are cut for an arch.

use crate::ir::DType;
use crate::kernel::gemm::contraction::{Contraction, Side};
use crate::kernel::gemm::element;
use crate::kernel::gemm::epilogue::{result_width, row_bytes};
use crate::kernel::gemm::operand::{Along, Cut, best_cut, is_plain};
use crate::kernel::print::expr::Operand;
use crate::kernel::source::Arch;
use crate::kernel::spec::KernelSpec;
use crate::tile::ExprId;

/// How operands and results are cut for an arch.
pub struct Cuts {
    /// The product, its `a` without what scales it.
    pub contraction: Contraction,
    /// What the columns of `a` are multiplied by in registers.
    pub scale: Option<ExprId>,
    pub element: DType,
    pub sides: [(Cut, Mode); 2],
    pub width: usize,
    /// Bytes that a vector of results takes of tensors that no other row reads.
    pub row_bytes: usize,
}

impl Cuts {
    /// The rows of `a` are scaled in registers where they can then be copied as they are.
    pub fn of(contraction: Contraction, spec: &KernelSpec, inputs: &[Operand], arch: Arch) -> Option<Cuts> {
        if let Some((rows, scale)) = contraction.scaled_rows() {
            let plain = Contraction {
                a: rows,
                ..contraction.clone()
            };
            let cuts = Cuts::unscaled(plain, spec, inputs, arch)?;
            let (cut, mode) = cuts.sides[0];
            if mode != Mode::Values && cut.along == Along::K && cuts.element.size_bytes() == 2 {
                let scale = Some(scale);
                return Some(Cuts { scale, ..cuts });
            }
        }
        Cuts::unscaled(contraction, spec, inputs, arch)
    }

    fn unscaled(contraction: Contraction, spec: &KernelSpec, inputs: &[Operand], arch: Arch) -> Option<Cuts> {
        let mut elements = element::of_warps(&contraction, spec, arch).into_iter();
        elements.find_map(|element| Cuts::in_kind(element, contraction.clone(), spec, inputs, arch))
    }

    fn in_kind(
        element: DType,
        contraction: Contraction,
        spec: &KernelSpec,
        inputs: &[Operand],
        arch: Arch,
    ) -> Option<Cuts> {
        let chunk = CHUNK_BYTES / element.size_bytes();
        let sides = [Side::A, Side::B].map(|side| {
            let cut = best_cut(&contraction, side, inputs, (chunk, chunk));
            let plain = is_plain(&contraction, cut, inputs, element);
            let mode = match (plain, has_async_copy(arch)) {
                (true, true) => Mode::Async,
                (true, false) => Mode::Copy,
                (false, _) => Mode::Values,
            };
            (cut, mode)
        });
        let lie_along_k = sides.map(|(cut, _)| cut.along == Along::K);
        // Instructions transpose 16 bits, and sums of rows are taken from tiles of floats whose rows
        // lie along k.
        let is_byte = element.size_bytes() == 1;
        if is_byte && lie_along_k != [true; 2] {
            return None;
        }
        if !contraction.row_sums.terms.is_empty() && (is_byte || !lie_along_k[0]) {
            return None;
        }
        let width = result_width(&contraction, spec)?;
        Some(Cuts {
            width,
            row_bytes: row_bytes(&contraction, width, spec),
            contraction,
            scale: None,
            element,
            sides,
        })
    }
}

/// How an operand gets to shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 16 bytes at a time, asynchronously.
    Async,
    /// 16 bytes at a time, through registers.
    Copy,
    /// As an expression.
    Values,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Mode::Async => "async",
            Mode::Copy => "copy",
            Mode::Values => "values",
        }
    }
}

/// Bytes of one asynchronous copy.
pub const CHUNK_BYTES: usize = 16;

pub fn has_async_copy(arch: Arch) -> bool {
    arch.sm >= 80
}
