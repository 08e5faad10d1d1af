//! Sums beside a product: statements over one element of `a`, and the results that have one
//! number per row.

use crate::kernel::body::region::results;
use crate::kernel::error::KernelError;
use crate::kernel::gemm::contraction::{Contraction, M};
use crate::kernel::gemm::epilogue::bind_row_sums;
use crate::kernel::gemm::parts::tensors;
use crate::kernel::print::expr::Printer;
use crate::kernel::print::store::store_one;
use crate::kernel::spec::KernelSpec;

/// Instructions that one element of `a` takes for one sum, its share of the read among them.
const STEPS: f64 = 1.0;

/// Statements that add the term of `value`, an element of `a`, to every one of `own`.
///
/// # Errors
/// If an op's text could not be filled in.
pub fn terms(contraction: &Contraction, spec: &KernelSpec, depth: usize) -> Result<String, KernelError> {
    let all = tensors(spec);
    let mut printer = Printer::new(&contraction.body, &all);
    printer.set_depth(depth);
    if let Some(element) = contraction.row_sums.element {
        printer.preset(element, "value");
    }
    for (number, &term) in contraction.row_sums.terms.iter().enumerate() {
        let term = printer.value(term);
        printer.line(&format!("own[{number}] += {term};"));
    }
    printer.finish()
}

/// Statements that store the results of row `m`; none where no result has one number per row.
///
/// # Errors
/// If an op's text could not be filled in.
pub fn stores(contraction: &Contraction, spec: &KernelSpec, depth: usize) -> Result<String, KernelError> {
    let (all, results) = (tensors(spec), results(spec));
    let mut printer = Printer::new(&contraction.body, &all);
    printer.set_depth(depth);
    printer.bind(M, "m");
    bind_row_sums(&mut printer, &contraction.row_sums.slots);
    for output in &contraction.row_outputs {
        let value = printer.value(output.value);
        store_one(&mut printer, &results[output.number], &output.place, &value);
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
