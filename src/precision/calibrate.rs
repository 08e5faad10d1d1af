//! Gathers statistics over many samples, and keeps what is done so that it can go on after an end.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::statistics::Statistics;
use crate::aside::write_aside;
use crate::io::IoError;
use crate::io::samples::Samples;
use crate::ir::{Graph, HostTensor};
use crate::reference::ReferenceError;

/// Work that may be lost when the program ends.
const KEEP_EVERY: Duration = Duration::from_secs(1);

/// Why calibrating failed.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum CalibrateError {
    #[error(transparent)]
    #[diagnostic(transparent)]
    Io(#[from] IoError),
    #[error("sample batch {batch}: {source}")]
    #[diagnostic(code(precision::sample))]
    Reference { batch: usize, source: ReferenceError },
    #[error("cannot keep statistics in `{}`: {source}", path.display())]
    #[diagnostic(code(precision::unwritable))]
    Keep { path: PathBuf, source: std::io::Error },
}

/// Where unfinished statistics are kept, and whose they are.
#[derive(Clone, Debug)]
pub struct Aside {
    pub path: PathBuf,
    /// Digest of the model and of what its samples are: others' statistics are not gone on with.
    pub key: String,
    /// Time between two writes.
    pub every: Duration,
}

impl Aside {
    /// The file beside the output `path`.
    pub fn beside(path: &Path, key: String) -> Self {
        let mut name = path.as_os_str().to_owned();
        name.push(".partial");
        Aside {
            path: PathBuf::from(name),
            key,
            every: KEEP_EVERY,
        }
    }

    /// What an earlier run left; a file that is damaged or somebody else's is nothing.
    fn read(&self) -> Option<Statistics> {
        let text = fs::read(&self.path).ok()?;
        let kept: Kept = serde_json::from_slice(&text).ok()?;
        (kept.key == self.key).then_some(kept.statistics)
    }

    fn write(&self, statistics: &Statistics) -> Result<(), CalibrateError> {
        let kept = KeptRef {
            key: &self.key,
            statistics,
        };
        write_aside(&self.path, |into| Ok(serde_json::to_writer(into, &kept)?)).map_err(|source| {
            CalibrateError::Keep {
                path: self.path.clone(),
                source,
            }
        })
    }

    /// Removes the file when the result is safe.
    pub fn remove(&self) {
        // A file that stays is ignored or overwritten later.
        let _ = fs::remove_file(&self.path);
    }
}

#[derive(Deserialize)]
struct Kept {
    key: String,
    statistics: Statistics,
}

#[derive(Serialize)]
struct KeptRef<'a> {
    key: &'a str,
    statistics: &'a Statistics,
}

/// Statistics of `graph` over all `samples`, going on from what `aside` keeps. `progress` is told of
/// batches done and of all, first of those that were done earlier.
///
/// # Errors
/// If a sample cannot be read or run, or the file cannot be written.
pub fn gather(
    graph: &Graph,
    samples: &Samples,
    aside: Option<&Aside>,
    progress: &dyn Fn(usize, usize),
) -> Result<Statistics, CalibrateError> {
    gather_by(samples, aside, progress, &mut |statistics, inputs| {
        let batch = statistics.n_batches;
        statistics
            .add_batch(graph, inputs)
            .map_err(|source| CalibrateError::Reference { batch, source })
    })
}

/// As [`gather`], where `add` runs a batch and counts it.
///
/// # Errors
/// If a sample cannot be read or `add` fails on it, or the file cannot be written.
pub fn gather_by<E: From<CalibrateError>>(
    samples: &Samples,
    aside: Option<&Aside>,
    progress: &dyn Fn(usize, usize),
    add: &mut dyn FnMut(&mut Statistics, &[HostTensor]) -> Result<(), E>,
) -> Result<Statistics, E> {
    let kept = aside.and_then(Aside::read);
    let mut statistics = kept
        .filter(|kept| kept.n_batches <= samples.len())
        .unwrap_or_default();
    let mut written = Instant::now();
    progress(statistics.n_batches, samples.len());
    for batch in statistics.n_batches..samples.len() {
        let inputs = samples.batch(batch).map_err(CalibrateError::from)?;
        add(&mut statistics, &inputs)?;
        progress(batch + 1, samples.len());
        let is_last = batch + 1 == samples.len();
        if let Some(aside) = aside
            && (is_last || written.elapsed() >= aside.every)
        {
            aside.write(&statistics)?;
            written = Instant::now();
        }
    }
    Ok(statistics)
}
