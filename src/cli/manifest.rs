//! `run --manifest`: many cases in one process, one JSON line each.
//!
//! Cases are worked on side by side, since most of the time of a small model is spent in the
//! kernel compiler; replies come in the order of the file.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::out;

/// Exit code of a panic, as a process of its own would have.
const PANICKED: u8 = 101;

/// One line of the manifest.
#[derive(Debug, Deserialize)]
pub struct Case {
    pub model: PathBuf,
    pub inputs: PathBuf,
    pub outputs: PathBuf,
}

#[derive(Serialize)]
struct Reply {
    exit: u8,
    message: String,
}

/// Serves every case of the file. A case that fails, or panics, does not end the others.
pub fn serve(path: &Path, run: impl Fn(&Case) -> Result<(), Failure> + Sync) -> Result<(), Failure> {
    let cases = read(path)?;
    let workers = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(cases.len());
    let next = AtomicUsize::new(0);
    let (done, replies) = mpsc::channel();
    let work = || {
        let done = done.clone();
        let (next, cases, run) = (&next, &cases, &run);
        move || {
            while let Some((number, case)) = take(next, cases) {
                let reply = reply(panic::catch_unwind(AssertUnwindSafe(|| run(case))));
                if done.send((number, reply)).is_err() {
                    // Nobody listens: printing failed.
                    return;
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(work());
        }
        print_in_order(replies.into_iter().take(cases.len()))
    })
}

fn read(path: &Path) -> Result<Vec<Case>, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::failed(format!("cannot read `{}`: {error}", path.display())))?;
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(number, line)| {
            serde_json::from_str(line).map_err(|error| {
                Failure::usage(format!("line {} of `{}`: {error}", number + 1, path.display()))
            })
        })
        .collect()
}

/// The next case that nobody works on.
fn take<'a>(next: &AtomicUsize, cases: &'a [Case]) -> Option<(usize, &'a Case)> {
    let number = next.fetch_add(1, Ordering::Relaxed);
    cases.get(number).map(|case| (number, case))
}

/// Prints replies by number; one that comes early waits for those before it.
fn print_in_order(replies: impl Iterator<Item = (usize, Reply)>) -> Result<(), Failure> {
    let mut early = BTreeMap::new();
    let mut next = 0;
    for (number, reply) in replies {
        early.insert(number, reply);
        while let Some(reply) = early.remove(&next) {
            out::line(&serde_json::to_string(&reply).expect("a reply is a number and a text"))?;
            next += 1;
        }
    }
    Ok(())
}

fn reply(outcome: Result<Result<(), Failure>, Box<dyn Any + Send>>) -> Reply {
    match outcome {
        Ok(Ok(())) => Reply {
            exit: 0,
            message: String::new(),
        },
        Ok(Err(failure)) => Reply {
            exit: failure.exit,
            message: failure.message(),
        },
        Err(payload) => Reply {
            exit: PANICKED,
            message: format!("panicked: {}", panic_text(payload.as_ref())),
        },
    }
}

fn panic_text(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_reply() {
        let text = reply(panic::catch_unwind(|| panic!("broken {}", "promise")));
        assert_eq!(
            (text.exit, text.message.as_str()),
            (PANICKED, "panicked: broken promise")
        );
    }
}
