//! The tutorial is executed: its files are written, its commands run, and what they print is
//! compared with what the page says.
//!
//! A block with a file name is that file. In a `console` block, a line after `$ ` is a command;
//! the lines below it are its stdout, then its stderr without progress, then `[exit N]` where
//! that is not zero. `..` stands for any text within a line, and a line `...` for any lines.

#![cfg(feature = "builder")]

use std::fs;
use std::path::Path;
use std::process::Command;

/// Languages of blocks that are files.
const FILES: [&str; 2] = ["text", "rules"];

/// A fenced block: what stands behind its fence, and its lines.
struct Block<'a> {
    info: &'a str,
    lines: Vec<&'a str>,
    /// Line of the fence, from 1.
    line: usize,
}

fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut open: Option<Block<'_>> = None;
    for (line, text) in (1..).zip(page.lines()) {
        match (text.strip_prefix("```"), &mut open) {
            (Some(info), None) => {
                open = Some(Block {
                    info,
                    lines: Vec::new(),
                    line,
                });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => block.lines.push(text),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    blocks
}

/// What a command prints, as a `console` block shows it.
fn output(command: &str, folder: &Path) -> Vec<String> {
    let mut words = command.split_whitespace();
    assert_eq!(words.next(), Some("rtrt-codegen"), "`{command}`");
    let output = Command::new(env!("CARGO_BIN_EXE_rtrt-codegen"))
        .args(words)
        .current_dir(folder)
        .env_remove("RTRT_LOG")
        .output()
        .unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    let messages = stderr.lines().filter(|line| !line.starts_with('['));
    let mut lines: Vec<String> = stdout.lines().chain(messages).map(str::to_owned).collect();
    match output.status.code() {
        Some(0) => {}
        code => lines.push(format!("[exit {}]", code.unwrap_or(-1))),
    }
    lines
}

/// Whether a line is as the page says, where `..` is any text.
fn fits(wanted: &str, found: &str) -> bool {
    let mut parts = wanted.trim_end().split("..");
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = found.trim_end().strip_prefix(first) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Whether lines are as the page says, where `...` is any lines.
fn all_fit(wanted: &[&str], found: &[String]) -> bool {
    match wanted.split_first() {
        None => found.is_empty(),
        Some((&"...", rest)) => (0..=found.len()).any(|skipped| all_fit(rest, &found[skipped..])),
        Some((first, rest)) => match found.split_first() {
            Some((line, others)) => fits(first, line) && all_fit(rest, others),
            None => false,
        },
    }
}

fn run_console(block: &Block<'_>, folder: &Path) -> usize {
    let starts: Vec<usize> = (0..block.lines.len())
        .filter(|&at| block.lines[at].starts_with("$ "))
        .collect();
    for (number, &start) in starts.iter().enumerate() {
        let end = starts.get(number + 1).copied().unwrap_or(block.lines.len());
        let wanted = &block.lines[start + 1..end];
        let command = &block.lines[start][2..];
        let found = output(command, folder);
        assert!(
            all_fit(wanted, &found),
            "line {}: `{command}` prints\n{}\n\nbut the page says\n{}",
            block.line,
            found.join("\n"),
            wanted.join("\n")
        );
    }
    starts.len()
}

#[test]
fn the_tutorial_is_true() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rules.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut n_commands = 0;
    for block in blocks(&page) {
        match block.info.split_once(' ') {
            Some((language, name)) if FILES.contains(&language) => {
                fs::write(folder.path().join(name), block.lines.join("\n") + "\n").unwrap();
            }
            None if block.info == "console" => n_commands += run_console(&block, folder.path()),
            _ => panic!("line {}: nobody runs a block of `{}`", block.line, block.info),
        }
    }
    assert!(n_commands >= 8, "only {n_commands} commands");
}

#[test]
fn pages_are_compared_line_by_line() {
    assert!(fits("a .. c", "a b b c"));
    assert!(fits("a", "a "));
    assert!(!fits("a .. c", "a b d"));
    assert!(!fits("a", "ab"));
    let found = ["a", "b", "c"].map(str::to_owned);
    assert!(all_fit(&["a", "...", "c"], &found));
    assert!(all_fit(&["...", "a", "b", "c", "..."], &found));
    assert!(!all_fit(&["a", "c"], &found));
    assert!(!all_fit(&["a", "b"], &found));
}
