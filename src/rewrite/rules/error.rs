//! What can be wrong with rule files, with the place of every mistake.

use std::fmt;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};

use super::ast::Span;

/// One mistake in a rule file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    /// Stable name of the kind of mistake, such as `rules::unbound_variable`.
    pub code: &'static str,
    /// What was found and what was expected.
    pub message: String,
    pub span: Span,
    /// A few words that stand below the marked text.
    pub label: String,
    /// What to do next.
    pub help: Option<String>,
}

impl RuleError {
    pub fn new(code: &'static str, span: Span, message: impl Into<String>, label: impl Into<String>) -> Self {
        RuleError {
            code,
            message: message.into(),
            span,
            label: label.into(),
            help: None,
        }
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds a sentence to the help.
    #[must_use]
    pub fn help_more(mut self, more: &str) -> Self {
        self.help = Some(match self.help {
            Some(help) => format!("{help}; {more}"),
            None => more.to_owned(),
        });
        self
    }

    /// Adds `did you mean` if one of `known` is close to what was written.
    #[must_use]
    pub fn suggest<'a>(self, written: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        match closest(written, known) {
            Some(name) => self.help(format!("did you mean `{name}`?")),
            None => self,
        }
    }
}

/// The name most like `written`, if one is much like it.
pub fn closest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = written.len() / 3 + 1;
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(written, name), name))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, name)| name)
}

/// Every mistake found in the files of one rule set.
#[derive(Debug, thiserror::Error)]
pub enum RuleErrors {
    /// A rule file could not be read from disk.
    #[error("cannot read rule file `{path}`: {source}")]
    Unreadable { path: String, source: std::io::Error },
    /// A rule was named on the command line, and there is none of that name.
    #[error("no rule is named `{name}`{}", hint.as_ref().map(|hint| format!(", did you mean `{hint}`?")).unwrap_or_default())]
    NoSuchRule { name: String, hint: Option<String> },
    /// Mistakes in files, in file order.
    #[error("{} in rule files", count(errors.len()))]
    Mistakes { errors: Vec<PlacedError> },
}

fn count(n: usize) -> String {
    match n {
        1 => "1 mistake".to_owned(),
        n => format!("{n} mistakes"),
    }
}

impl Diagnostic for RuleErrors {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        match self {
            RuleErrors::Unreadable { .. } | RuleErrors::NoSuchRule { .. } => None,
            RuleErrors::Mistakes { errors } => {
                Some(Box::new(errors.iter().map(|error| error as &dyn Diagnostic)))
            }
        }
    }
}

/// A mistake together with the text it is in.
#[derive(Clone, Debug)]
pub struct PlacedError {
    pub error: RuleError,
    source: NamedSource<Arc<str>>,
}

impl PlacedError {
    pub fn new(error: RuleError, path: &str, text: &Arc<str>) -> Self {
        let source = NamedSource::new(path, Arc::clone(text));
        PlacedError { error, source }
    }
}

impl fmt::Display for PlacedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error.message)
    }
}

impl std::error::Error for PlacedError {}

impl Diagnostic for PlacedError {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.error.code))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let help = self.error.help.as_ref()?;
        Some(Box::new(help))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let Span { start, end, .. } = self.error.span;
        let label = LabeledSpan::new(
            Some(self.error.label.clone()),
            start as usize,
            (end - start) as usize,
        );
        Some(Box::new(std::iter::once(label)))
    }
}
