//! Ops that select elements by position or by data: concat, pad, gather, resize.

use super::OpDef;

pub static OPS: &[&OpDef] = &[];
