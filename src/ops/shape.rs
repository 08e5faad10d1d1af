//! Ops whose result is about shapes or is made from nothing: Shape, Size, Range, ConstantOfShape.

use super::OpDef;

pub static OPS: &[&OpDef] = &[];
