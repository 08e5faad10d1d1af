//! What can be wrong with an engine file.

use std::path::PathBuf;

/// Why an engine cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("cannot {action} `{}`: {source}", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("not an engine file: it does not begin with the engine magic")]
    NotAnEngine,
    #[error(
        "engine format version {found} is not known; this build reads version {known}: compile the model again"
    )]
    Version { found: u32, known: u32 },
    #[error("the engine file is damaged: {0}")]
    Damaged(String),
    #[error("the engine file is not valid: {0}")]
    Invalid(String),
    #[error("cannot use the key `{}`: {reason}", path.display())]
    Key { path: PathBuf, reason: String },
    #[error("the engine is not signed; a signature of {wanted} is required")]
    Unsigned { wanted: String },
    #[error("the engine is signed by {found}; a signature of {wanted} is required")]
    OtherSigner { wanted: String, found: String },
    #[error("the engine cannot be refitted: {0}")]
    Refit(String),
    #[error("the engine was changed after it was signed, or its signature was")]
    Forged,
}
