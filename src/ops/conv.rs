//! Convolutions.

use super::OpDef;

pub static OPS: &[&OpDef] = &[];
