//! Vectors of four-bit numbers with one scale for all of them.
//!
//! Where a vector lies within one group of neighbours, its numbers are summed first and scaled once
//! (`ops/groups.rs` says how they are stored).

use crate::ir::DType;
use crate::kernel::error::KernelError;
use crate::kernel::gemm::contraction::{Contraction, Side};
use crate::kernel::gemm::exact::is_exact;
use crate::kernel::gemm::operand::{Along, Cut, Fetch, Plain, covered};
use crate::kernel::print::expr::{Operand, Printer};
use crate::kernel::print::vector::packed_position;
use crate::ops::groups::PER_BYTE;
use crate::tile::{Body, Expr, ExprId, Extent};

/// Numbers of a vector at most: one access of 16 bytes.
const MOST_NUMBERS: usize = 32;
/// Numbers of a vector at least: they are kept in words.
const LEAST_NUMBERS: usize = 8;

/// A vector of numbers, and their scale.
#[derive(Clone, Debug)]
pub struct Grouped {
    /// The numbers' first byte.
    bytes: Plain,
    scale: Plain,
}

/// The widest vectors along `k` of `side` that have one scale each.
pub fn grouped_cut(contraction: &Contraction, side: Side, inputs: &[Operand]) -> Option<Cut> {
    let (rows, depth) = covered(contraction, side);
    let mut width = MOST_NUMBERS;
    while width >= LEAST_NUMBERS {
        let cut = Cut {
            side,
            along: Along::K,
            width,
        };
        let is_whole = contraction.sizes.k.is_multiple_of(width);
        if is_whole
            && Fetch::new(contraction, cut, rows, depth)
                .grouped(inputs)
                .is_some()
        {
            return Some(cut);
        }
        width /= 2;
    }
    None
}

impl Fetch {
    /// The vector as neighbouring numbers in memory times one scale, where it is nothing else.
    pub fn grouped(&self, inputs: &[Operand]) -> Option<Grouped> {
        let printer = Printer::new(&self.body, inputs);
        let (product, conds) = self.under_conditions(is_unrounded)?;
        let Expr::Map { op: "mul", args, .. } = self.body.expr(product) else {
            return None;
        };
        let [left, right] = args[..] else { return None };
        let numbers = |id: ExprId| match self.body.expr(id) {
            Expr::Map {
                op: "nibble", args, ..
            } => Some(args[0]),
            _ => None,
        };
        let (byte, scale) = numbers(left)
            .map(|byte| (byte, right))
            .or_else(|| Some((numbers(right)?, left)))?;
        let Expr::Load { input, index, .. } = self.body.expr(byte) else {
            return None;
        };
        let first = packed_position(&printer.position(*input, index), self.lane)?;
        let Expr::Load {
            input: scale_input,
            index: scale_index,
            ..
        } = self.body.expr(without_casts(&self.body, scale))
        else {
            return None;
        };
        let scale_position = printer.position(*scale_input, scale_index);
        let is_one = scale_position.stride_of(self.lane.var) == Some(Extent::known(0));
        is_one.then(|| Grouped {
            bytes: Plain {
                input: *input,
                position: first,
                conds: conds.clone(),
            },
            scale: Plain {
                input: *scale_input,
                position: scale_position,
                conds,
            },
        })
    }

    /// Statements that read the vector at `batch`, `row` and `k` into `to`, and its scale into `scale`.
    ///
    /// # Errors
    /// If an op's text could not be filled in.
    pub fn load_grouped(
        &self,
        grouped: &Grouped,
        inputs: &[Operand],
        depth: usize,
        (to, scale): (&str, &str),
    ) -> Result<String, KernelError> {
        let address = self.address(&grouped.bytes, inputs, depth)?;
        let mut printer = self.printer(inputs, depth);
        let position = printer.index(&grouped.scale.position);
        let name = &inputs[grouped.scale.input as usize].name;
        let n_bytes = self.cut.width / PER_BYTE;
        printer.line(&format!("{to} = rt_fetch<{n_bytes}>(from, valid);"));
        printer.line(&format!("{scale} = valid ? rt_get({name}[{position}]) : 0.0f;"));
        Ok(address + &printer.finish()?)
    }
}

fn without_casts(body: &Body, mut id: ExprId) -> ExprId {
    while let Expr::Map { op: "cast", args, .. } = body.expr(id)
        && is_exact(body.dtype(args[0]), body.dtype(id))
    {
        id = args[0];
    }
    id
}

/// Kernels do not round to a narrower float before they store.
fn is_unrounded(from: DType, to: DType) -> bool {
    from == DType::F32 && to.is_float() && to.size_bytes() > 1
}
