//! Why a region has no kernel.

use crate::ir::NodeId;
use crate::ops::OpError;

/// A region that cannot be turned into CUDA text.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The op runs on the host only, or should have been expanded before.
    #[error("node {node} `{op}` has no generated code: {reason}")]
    NoCode {
        node: NodeId,
        op: &'static str,
        reason: String,
    },
    #[error("weight `{name}` of {found} elements is inside a region's body, only scalars are expected there")]
    WeightNotScalar { name: String, found: usize },
    #[error("the region's body uses op `{op}`, which is not in the op table")]
    UnknownOp { op: String },
    #[error("the scalar text of `{op}` names `{hole}`, which is neither an operand nor an attribute of it")]
    UnknownHole { op: &'static str, hole: String },
    #[error("template `{template}` cannot render this region: {reason}")]
    NotAccepted { template: &'static str, reason: String },
    #[error("variant names template `{template}`, which does not exist")]
    UnknownTemplate { template: String },
    #[error("variant of `{template}` has no knob `{knob}`")]
    MissingKnob {
        template: &'static str,
        knob: &'static str,
    },
    #[error("template `{template}`: {message}")]
    Template { template: &'static str, message: String },
    #[error(transparent)]
    Op(#[from] OpError),
}
