//! What can go wrong between CUDA text and cubin.

use std::path::PathBuf;

use super::arch_name;
use super::cache::Cache;
use super::resources::ParamSlot;
use crate::cuda::{NvrtcFailure, NvrtcMissing};
use crate::kernel::{Arch, Source};

/// Lines shown before and after the line NVRTC complains about.
const CONTEXT_LINES: usize = 3;

/// A kernel that did not become a cubin.
#[derive(Clone, Debug, thiserror::Error, miette::Diagnostic)]
pub enum CompileError {
    #[error(transparent)]
    #[diagnostic(transparent)]
    NoNvrtc(NvrtcMissing),
    #[error(
        "NVRTC refused kernel `{kernel}` of template `{template}` for `{arch}`: {status}\n{log}\n{excerpt}{saved}",
        saved = saved_line(saved.as_ref())
    )]
    #[diagnostic(
        code(compile::refused),
        help("this is a bug in the template or in the code generated for it")
    )]
    Refused {
        kernel: String,
        template: &'static str,
        arch: String,
        /// NVRTC's name of the error.
        status: String,
        log: String,
        /// Numbered lines of the generated text around the first error.
        excerpt: String,
        /// Where the whole text was saved.
        saved: Option<PathBuf>,
    },
    #[error("kernel `{kernel}` does not become PTX: {failure}")]
    #[diagnostic(code(compile::ptx))]
    Ptx { kernel: String, failure: NvrtcFailure },
    #[error("the cubin of kernel `{kernel}` cannot be read: {reason}")]
    #[diagnostic(code(compile::unreadable_cubin))]
    Unreadable { kernel: String, reason: String },
    #[error(
        "kernel `{kernel}` of template `{template}` takes parameters {found:?}, but the launch passes {wanted:?}"
    )]
    #[diagnostic(
        code(compile::parameters),
        help("the template's signature and the `params` of its source disagree")
    )]
    Params {
        kernel: String,
        template: &'static str,
        wanted: Vec<ParamSlot>,
        found: Vec<ParamSlot>,
    },
}

impl CompileError {
    /// Describes a refusal and saves the text beside the cache.
    pub(super) fn rejected(source: &Source, arch: Arch, failure: &NvrtcFailure, cache: &Cache) -> Self {
        CompileError::Refused {
            kernel: source.name.clone(),
            template: source.template,
            arch: arch_name(arch),
            status: failure.status.clone(),
            log: failure.log.clone(),
            excerpt: first_error_line(&failure.log)
                .map(|line| excerpt(&source.text, line))
                .unwrap_or_default(),
            saved: cache.save_refused(&source.name, &source.text),
        }
    }
}

/// The 1-based line of the first `file.cu(12): error` in a log.
fn first_error_line(log: &str) -> Option<usize> {
    let line = log.lines().find(|line| line.contains("): error"))?;
    let before = line.split("): error").next()?;
    before.rsplit('(').next()?.parse().ok()
}

/// Numbered lines around `line`, which is marked.
fn excerpt(text: &str, line: usize) -> String {
    let first = line.saturating_sub(CONTEXT_LINES + 1);
    text.lines()
        .enumerate()
        .skip(first)
        .take(line + CONTEXT_LINES - first)
        .map(|(index, content)| {
            let mark = if index + 1 == line { '>' } else { ' ' };
            format!("{mark}{:5} | {content}\n", index + 1)
        })
        .collect()
}

fn saved_line(saved: Option<&PathBuf>) -> String {
    saved.map_or_else(String::new, |path| format!("whole text: {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_excerpt_marks_the_line_of_the_first_error() {
        let log = "k.cu(2): warning #1: x\nk.cu(3): error: identifier \"b\" is undefined\n";
        assert_eq!(first_error_line(log), Some(3));
        let shown = excerpt("one\ntwo\nthree\nfour", 3);
        assert!(shown.contains(">    3 | three\n"), "{shown}");
        assert!(shown.contains("     1 | one\n"), "{shown}");
    }
}
