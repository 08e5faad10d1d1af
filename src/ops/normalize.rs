//! Softmax and the normalisations.

use super::OpDef;

pub static OPS: &[&OpDef] = &[];
