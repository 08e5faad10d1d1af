//! Sums beside a product: statements over one element of `a`, or over parts that an earlier kernel stored, and the
//! results that have one number per row.

use serde::Serialize;

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

/// Sums beside the product, as templates have them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RowSumsContext {
    /// How many they are, and where they lie in shared memory.
    row_sums: usize,
    rows_at: usize,
    /// What an element of `a` adds to them.
    row_terms: String,
    /// In place of that, what reads parts that an earlier kernel stored.
    parts: Option<PartsContext>,
    /// What stores the results that have one number per row.
    row_stores: String,
}

impl RowSumsContext {
    /// Sums that lie `at` so many bytes of shared memory, for threads that have `room` for parts of them (see `parts`),
    /// in loops that are `depth` deep.
    ///
    /// # Errors
    /// If an op's text could not be filled in.
    pub fn new(
        contraction: &Contraction,
        spec: &KernelSpec,
        at: usize,
        room: (usize, usize, usize),
        depth: usize,
    ) -> Result<RowSumsContext, KernelError> {
        Ok(RowSumsContext {
            row_sums: contraction.row_sums.len(),
            rows_at: at,
            row_terms: terms(contraction, spec, depth)?,
            parts: parts(contraction, spec, room, depth),
            row_stores: stores(contraction, spec, depth - 1)?,
        })
    }
}

/// Statements that add the term of `value`, an element of `a`, to every one of `own`.
///
/// # Errors
/// If an op's text could not be filled in.
fn terms(contraction: &Contraction, spec: &KernelSpec, depth: usize) -> Result<String, KernelError> {
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

/// How parts of sums that an earlier kernel stored are read: lanes share a row, each some vectors of it.
#[derive(Clone, Debug, Default, Serialize)]
struct PartsContext {
    /// Lanes of a row.
    lanes: usize,
    /// Vectors that a lane reads of it, and numbers in a vector.
    vectors: usize,
    width: usize,
    /// Loads them for row `m` into `own`, as lane `lane`.
    loads: String,
    /// Adds `own` to every sum of `total`.
    sums: String,
    /// Whether registers hold them while rows are multiplied.
    early: bool,
}

/// What reads stored parts of sums, where a group of lanes has `rows`, in a thread that holds `sums` of the product and
/// may have `registers`; `None` where sums are taken from `a`.
fn parts(
    contraction: &Contraction,
    spec: &KernelSpec,
    (rows, sums, registers): (usize, usize, usize),
    depth: usize,
) -> Option<PartsContext> {
    /// Lanes that share a row.
    const LANES: usize = 8;
    /// Registers of a thread for all else than sums and parts while it multiplies.
    const OTHERS: usize = 64;
    let stored = contraction.row_sums.stored.as_ref()?;
    let part = spec.input_types()[stored.input].dims()[2];
    let n_numbers = stored.parts * part;
    let is_whole = |width: &usize| width.is_multiple_of(part) && n_numbers.is_multiple_of(width * LANES);
    let width = [4, 2, 1].into_iter().find(is_whole).unwrap_or(part);
    let vectors = (n_numbers / width).div_ceil(LANES);
    let from = &tensors(spec)[stored.input].name;
    let (indent, outer) = ("  ".repeat(depth), "  ".repeat(depth - 1));
    let mut loads =
        format!("rt_load<{width}>(own[j], {from} + (m * {n_numbers} + (lane + j * {LANES}) * {width}));");
    if !(n_numbers / width).is_multiple_of(LANES) {
        loads = format!("if (lane + j * {LANES} < {}) {loads}", n_numbers / width);
    }
    let sum = |(number, place): (usize, &usize)| {
        let own = (*place..width).step_by(part).map(|at| format!("own[j][{at}]"));
        format!(
            "{outer}total[{number}] += {};\n",
            own.collect::<Vec<_>>().join(" + ")
        )
    };
    Some(PartsContext {
        lanes: LANES,
        vectors,
        width,
        loads: format!("{indent}{loads}\n"),
        sums: stored.places.iter().enumerate().map(sum).collect(),
        early: rows * vectors * width + sums + OTHERS <= registers,
    })
}

/// Statements that store the results of row `m`; none where no result has one number per row.
///
/// # Errors
/// If an op's text could not be filled in.
fn stores(contraction: &Contraction, spec: &KernelSpec, depth: usize) -> Result<String, KernelError> {
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
    STEPS * (contraction.row_sums.terms.len() * elements) as f64
}

/// Bytes that hold the sums of `rows`.
pub fn bytes(contraction: &Contraction, rows: usize) -> usize {
    contraction.row_sums.len() * rows * 4
}
