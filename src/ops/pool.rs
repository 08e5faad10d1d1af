//! Pooling windows.

use super::OpDef;

pub static OPS: &[&OpDef] = &[];
