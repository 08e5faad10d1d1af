//! Reductions over axes, arg-extremes and cumulative sums.

use super::OpDef;

pub static OPS: &[&OpDef] = &[];
