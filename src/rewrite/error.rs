//! What can go wrong between a core graph and its regions.

use crate::reference::ReferenceError;

/// Why a graph could not be fused.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    #[error("rule `{rule}` makes a value of type `{left}` equal to one of type `{right}`")]
    TypeChanged {
        rule: String,
        left: String,
        right: String,
    },
    #[error("a constant part of the graph cannot be evaluated: {source}")]
    Constant {
        #[from]
        source: ReferenceError,
    },
    #[error("no kernel computes output {output} of the graph")]
    NoPlan { output: usize },
}
