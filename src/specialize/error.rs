//! What keeps a graph from being specialised.

use std::fmt;

use super::bindings::BindError;
use crate::ir::Node;
use crate::ops::OpError;

/// Why a graph cannot be specialised.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum SpecializeError {
    #[error(transparent)]
    #[diagnostic(code(specialize::failed))]
    Bind(#[from] BindError),
    /// Nodes that cannot be lowered, in graph order.
    #[error("{}", listed(.0))]
    #[diagnostic(code(specialize::failed))]
    Nodes(Vec<Problem>),
    /// The same, where data alone is missing.
    #[error("{}", listed(.0))]
    #[diagnostic(
        code(specialize::failed),
        help("an engine is made ahead of its data; `run` executes the model itself, in stages")
    )]
    DependsOnData(Vec<Problem>),
}

impl SpecializeError {
    /// What some problems amount to.
    pub(super) fn of(problems: Vec<Problem>) -> Self {
        if problems.iter().all(Problem::depends_on_data) {
            SpecializeError::DependsOnData(problems)
        } else {
            SpecializeError::Nodes(problems)
        }
    }

    /// Whether the model may be right and only this program cannot compile it: exit code 3.
    /// Otherwise the model or the shapes are wrong: exit code 1.
    pub fn is_unsupported(&self) -> bool {
        match self {
            SpecializeError::Bind(error) => error.is_unsupported(),
            SpecializeError::DependsOnData(_) => true,
            SpecializeError::Nodes(problems) => problems.iter().all(Problem::is_unsupported),
        }
    }
}

/// One node, or output, that cannot be compiled.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// What it is about, for people: ``node `name` (`Op`)``.
    pub subject: String,
    pub reason: OpError,
}

impl Problem {
    pub(super) fn at_node(node: &Node, reason: OpError) -> Self {
        let subject = match node.origin.as_slice() {
            [] => format!("node `{}`", node.op),
            names => format!("node `{}` (`{}`)", names.join("`, `"), node.op),
        };
        Problem { subject, reason }
    }

    /// Whether the node could be lowered if its data were known.
    fn depends_on_data(&self) -> bool {
        match self.reason {
            OpError::Invalid(_) | OpError::Unsupported(_) => false,
            OpError::HostOnly(_) | OpError::NeedsConstant { .. } => true,
        }
    }

    pub fn is_unsupported(&self) -> bool {
        match self.reason {
            OpError::Invalid(_) => false,
            OpError::Unsupported(_) | OpError::HostOnly(_) | OpError::NeedsConstant { .. } => true,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.reason)
    }
}

fn listed(problems: &[Problem]) -> String {
    match problems {
        [only] => only.to_string(),
        many => {
            let lines: Vec<String> = many.iter().map(|problem| format!("\n  {problem}")).collect();
            format!("{} nodes cannot be compiled:{}", many.len(), lines.concat())
        }
    }
}
