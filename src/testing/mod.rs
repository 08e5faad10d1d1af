//! What tests and benches share: drawn graphs, and tolerances. Hidden from the docs.

pub mod builder;
pub mod detectors;
pub mod graphs;
pub mod tolerance;

use crate::ir::Graph;
use crate::ir::verify::{Violation, verify_typed};
use crate::ops;

/// Checks that `graph` is static, of ops with generated code alone, and typed as their
/// inference says.
///
/// # Errors
/// All violations found.
pub fn verify_core(graph: &Graph) -> Result<(), Vec<Violation>> {
    verify_typed(graph, &ops::types_of)
}
