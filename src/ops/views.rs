//! Ops that only rearrange elements: reshape, transpose, slice, expand, and the ONNX forms that become them.

use super::OpDef;

pub static OPS: &[&OpDef] = &[];
