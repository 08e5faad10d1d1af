//! Attention and rotary embeddings.

use super::OpDef;

pub static OPS: &[&OpDef] = &[];
