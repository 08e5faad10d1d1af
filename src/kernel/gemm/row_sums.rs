//! Sums beside a product, as statements over one element of `a`.

use crate::kernel::error::KernelError;
use crate::kernel::gemm::contraction::Contraction;
use crate::kernel::print::expr::{Operand, Printer};

/// Instructions that one element of `a` takes for one sum, its share of the read among them.
const STEPS: f64 = 2.0;

/// Statements that add the term of `value`, an element of `a`, to every one of `own`.
///
/// # Errors
/// If an op's text could not be filled in.
pub fn terms(contraction: &Contraction, inputs: &[Operand], depth: usize) -> Result<String, KernelError> {
    let mut printer = Printer::new(&contraction.body, inputs);
    printer.set_depth(depth);
    for (number, sum) in contraction.row_sums.iter().enumerate() {
        printer.preset(sum.element, "value");
        let term = printer.value(sum.term);
        printer.line(&format!("own[{number}] += {term};"));
    }
    printer.finish()
}

/// Scalar steps for a tile of `elements` of `a`.
#[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
pub fn work(contraction: &Contraction, elements: usize) -> f64 {
    STEPS * (contraction.row_sums.len() * elements) as f64
}

/// Bytes that hold the sums of `rows`.
pub fn bytes(contraction: &Contraction, rows: usize) -> usize {
    contraction.row_sums.len() * rows * 4
}
