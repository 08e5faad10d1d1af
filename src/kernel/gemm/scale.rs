//! A number for each `k` that the rows of `a` are multiplied by on their way to the product.

use crate::kernel::error::KernelError;
use crate::kernel::gemm::contraction::{Contraction, K};
use crate::kernel::gemm::parts::tensors;
use crate::kernel::print::expr::Printer;
use crate::kernel::spec::KernelSpec;
use crate::tile::ExprId;

/// Statements that put the number of `k` into `value`.
///
/// # Errors
/// If an op's text could not be filled in.
pub fn text(
    contraction: &Contraction,
    scale: ExprId,
    spec: &KernelSpec,
    depth: usize,
) -> Result<String, KernelError> {
    let all = tensors(spec);
    let mut printer = Printer::new(&contraction.body, &all);
    printer.set_depth(depth);
    printer.bind(K, "k");
    let value = printer.value(scale);
    printer.line(&format!("value = {value};"));
    printer.finish()
}
