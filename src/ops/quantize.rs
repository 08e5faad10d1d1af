//! Quantisation and dequantisation.

use super::OpDef;

pub static OPS: &[&OpDef] = &[];
