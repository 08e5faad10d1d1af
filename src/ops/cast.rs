//! Conversions between element kinds.

use super::OpDef;

pub static OPS: &[&OpDef] = &[];
