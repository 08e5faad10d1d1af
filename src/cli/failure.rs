//! Errors of every stage with the exit code they mean.

use std::fmt::Write;

use crate::pipeline::PipelineError;

/// Exit code of an operation that did not work out.
pub const FAILED: u8 = 1;
/// Exit code of arguments that cannot be meant.
pub const USAGE: u8 = 2;
/// Exit code of a clean refusal.
pub const REFUSED: u8 = 3;

/// Why a command ends without success.
#[derive(Debug)]
pub struct Failure {
    pub exit: u8,
    report: miette::Report,
}

impl Failure {
    pub fn failed(message: impl Into<String>) -> Self {
        Failure {
            exit: FAILED,
            report: miette::Report::msg(message.into()),
        }
    }

    /// A report on a text, which shows the lines it is about.
    pub fn of(report: miette::Report) -> Self {
        Failure { exit: FAILED, report }
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Failure {
            exit: USAGE,
            report: miette::Report::msg(message.into()),
        }
    }

    /// Something that is not supported; `help` says what to do instead.
    pub fn refused(message: impl Into<String>, help: impl Into<String>) -> Self {
        Failure {
            exit: REFUSED,
            report: miette::miette!(help = help.into(), "not supported: {}", message.into()),
        }
    }

    /// Message and help in one line each, as reports for machines carry them.
    pub fn message(&self) -> String {
        let mut text = self.report.to_string();
        if let Some(help) = self.report.help() {
            let _ = write!(text, "\nhelp: {help}");
        }
        text
    }

    /// Prints the error on stderr.
    pub fn print(&self) {
        let kind = if self.exit == REFUSED { "refused" } else { "error" };
        eprint!("{}", self.text(kind));
    }

    fn text(&self, kind: &str) -> String {
        // Errors in text files show the lines they are about.
        if self.report.labels().is_some() || self.report.related().is_some() {
            return format!("{kind}:{:?}\n", self.report);
        }
        let message = self.report.to_string().replace('\n', "\n  ");
        let mut text = match self.report.code() {
            Some(code) => format!("{kind}: {code}\n  {message}\n"),
            None => format!("{kind}: {message}\n"),
        };
        if let Some(help) = self.report.help() {
            let _ = writeln!(text, "  help: {help}");
        }
        text
    }
}

impl<E: Into<PipelineError>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        Failure {
            exit: if error.is_refusal() { REFUSED } else { FAILED },
            report: miette::Report::new(error),
        }
    }
}
