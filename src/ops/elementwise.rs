//! Arithmetic, comparison and logic: one scalar function of broadcast operands.

use super::OpDef;

pub static OPS: &[&OpDef] = &[];
