//! Matrix products.

use super::OpDef;

pub static OPS: &[&OpDef] = &[];
