//! Why a model cannot be imported.

use std::fmt;
use std::path::PathBuf;

use crate::ops::OpError;

/// One use of something that is not supported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsupported {
    Node {
        /// Name of the node, or of its first output where it has none.
        name: String,
        op_type: String,
        /// `""` is the main domain.
        domain: String,
        opset: i64,
        /// What of it, such as "attribute `x`".
        what: String,
    },
    /// An input, output or initializer.
    Value { name: String, what: String },
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unsupported::Node {
                name,
                op_type,
                domain,
                opset,
                what,
            } => {
                let domain = if domain.is_empty() { "ai.onnx" } else { domain };
                write!(
                    f,
                    "node `{name}`, op `{op_type}` of `{domain}` opset {opset}: {what}"
                )
            }
            Unsupported::Value { name, what } => write!(f, "value `{name}`: {what}"),
        }
    }
}

/// Why a model cannot be imported; [`ImportError::is_refusal`] tells wrong from unsupported.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum ImportError {
    #[error("cannot read `{}`: {source}", path.display())]
    #[diagnostic(code(onnx::unreadable))]
    File { path: PathBuf, source: std::io::Error },
    #[error("not an ONNX model, or one that is cut short: {0}")]
    #[diagnostic(
        code(onnx::not_a_model),
        help("check that the file was copied whole; large files in a repository may be pointers")
    )]
    NotAModel(#[from] prost::DecodeError),
    #[error("not an ONNX model: it holds no graph")]
    #[diagnostic(code(onnx::no_graph))]
    NoGraph,
    #[error("the model does not say which opset of `ai.onnx` it uses")]
    #[diagnostic(code(onnx::no_opset))]
    NoOpset,
    #[error("opset {version} of `ai.onnx` is newer than {newest}, the newest known")]
    #[diagnostic(
        code(onnx::new_opset),
        help("export the model with `opset_version={newest}` or older")
    )]
    NewOpset { version: i64, newest: i64 },
    #[error("{0}")]
    #[diagnostic(code(onnx::invalid))]
    Invalid(String),
    #[error("value `{name}` is defined twice in {place}")]
    #[diagnostic(code(onnx::duplicate))]
    Duplicate { name: String, place: String },
    #[error("{user} uses value `{name}`, which nothing defines")]
    #[diagnostic(code(onnx::undefined))]
    Undefined { user: String, name: String },
    #[error("{place} has a cycle: {}", cycle_text(nodes))]
    #[diagnostic(code(onnx::cycle))]
    Cycle { place: String, nodes: Vec<String> },
    #[error("node `{node}`, op `{op_type}`: {message}")]
    #[diagnostic(code(onnx::node))]
    Node {
        node: String,
        op_type: String,
        message: String,
    },
    #[error("tensor `{name}`: {source}")]
    #[diagnostic(code(onnx::tensor))]
    Tensor { name: String, source: OpError },
    /// Everything of the model that is not supported.
    #[error("{}", list(.0))]
    #[diagnostic(code(onnx::unsupported))]
    Unsupported(Vec<Unsupported>),
}

impl ImportError {
    /// Whether the model may be right, and only something in it is not supported.
    pub fn is_refusal(&self) -> bool {
        match self {
            ImportError::NewOpset { .. } | ImportError::Unsupported(_) => true,
            ImportError::Tensor { source, .. } => matches!(source, OpError::Unsupported(_)),
            ImportError::File { .. }
            | ImportError::NotAModel(_)
            | ImportError::NoGraph
            | ImportError::NoOpset
            | ImportError::Invalid(_)
            | ImportError::Duplicate { .. }
            | ImportError::Undefined { .. }
            | ImportError::Cycle { .. }
            | ImportError::Node { .. } => false,
        }
    }
}

/// `a -> b -> a`.
fn cycle_text(nodes: &[String]) -> String {
    let quoted: Vec<String> = nodes
        .iter()
        .chain(nodes.first())
        .map(|node| format!("`{node}`"))
        .collect();
    quoted.join(" -> ")
}

fn list(items: &[Unsupported]) -> String {
    match items {
        [one] => format!("not supported: {one}"),
        many => {
            let lines: Vec<String> = many.iter().map(|item| format!("\n  {item}")).collect();
            format!("{} things are not supported:{}", many.len(), lines.concat())
        }
    }
}
