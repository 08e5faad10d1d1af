//! Why an op cannot be used.

/// Why an op cannot be inferred, expanded or evaluated. The caller adds the node's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// The model is wrong: exit code 1.
    #[error("{0}")]
    Invalid(String),
    /// The model may be right, but this is not implemented: exit code 3.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// Only the host executes it, on data that is known: exit code 3.
    #[error("not supported: {0}")]
    HostOnly(String),
    /// The op's result type depends on run-time data.
    #[error("operand {operand} must be a constant: the shape of the result depends on it")]
    NeedsConstant { operand: usize },
}

impl OpError {
    pub fn invalid(message: impl Into<String>) -> Self {
        OpError::Invalid(message.into())
    }

    pub fn unsupported(message: impl Into<String>) -> Self {
        OpError::Unsupported(message.into())
    }
}
