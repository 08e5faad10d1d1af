//! `run --manifest`: many cases in one process, one JSON line each.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

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
pub fn serve(path: &Path, run: impl Fn(&Case) -> Result<(), Failure>) -> Result<(), Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::failed(format!("cannot read `{}`: {error}", path.display())))?;
    for (number, line) in text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
    {
        let case: Case = serde_json::from_str(line).map_err(|error| {
            Failure::usage(format!("line {} of `{}`: {error}", number + 1, path.display()))
        })?;
        let reply = reply(panic::catch_unwind(AssertUnwindSafe(|| run(&case))));
        out::line(&serde_json::to_string(&reply).expect("a reply is a number and a text"))?;
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
