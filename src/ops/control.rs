//! Control flow, sequences and optionals, which only the reference executes.

use super::OpDef;

pub static OPS: &[&OpDef] = &[];
