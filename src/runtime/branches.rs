//! Launches of one execution on several streams, while they are recorded.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cuda::{Begin, Context, CudaError, Event, Stream};
use crate::engine::{Launch, streams};

/// Streams beside the caller's, and the events by which they wait for each other.
pub(super) struct Branches {
    /// Stream of each launch.
    numbers: Vec<u32>,
    waits: Vec<Vec<usize>>,
    /// Streams 1, 2, ..
    others: Vec<Stream>,
    /// Reached where the caller's stream begins.
    parted: Option<Event>,
    /// Reached where a launch is done that another stream waits for, or that is the last of its stream.
    done: BTreeMap<usize, Event>,
}

impl Branches {
    pub(super) fn of(context: &Arc<Context>, launches: &[Launch]) -> Result<Self, CudaError> {
        let numbers: Vec<u32> = launches.iter().map(|launch| launch.stream).collect();
        let waits = streams::waits(launches);
        let n_others = numbers.iter().copied().max().unwrap_or(0);
        let last = (1..=n_others).filter_map(|stream| numbers.iter().rposition(|own| *own == stream));
        let awaited = waits.iter().flatten().copied().chain(last);
        Ok(Branches {
            others: (0..n_others)
                .map(|_| Stream::new(context))
                .collect::<Result<_, _>>()?,
            parted: (n_others > 0).then(|| Event::new(context)).transpose()?,
            done: awaited
                .map(|launch| Ok((launch, Event::new(context)?)))
                .collect::<Result<_, CudaError>>()?,
            numbers,
            waits,
        })
    }

    pub(super) fn stream<'a>(&'a self, launch: usize, own: &'a Stream) -> &'a Stream {
        match self.numbers[launch] {
            0 => own,
            other => &self.others[other as usize - 1],
        }
    }

    /// The other streams begin where `own` is.
    pub(super) fn part(&self, own: &Stream) -> Result<(), CudaError> {
        let Some(parted) = &self.parted else {
            return Ok(());
        };
        parted.record(own)?;
        // A stream that is never used would be left behind when the recording ends.
        let used = (1..)
            .zip(&self.others)
            .filter(|(number, _)| self.numbers.contains(number));
        used.map(|(_, other)| other)
            .try_for_each(|other| other.wait(parted))
    }

    /// Queues the waits of a launch. Where there are some, or where it is the first of another stream, it
    /// begins after them: a kernel only waits by itself for the launch before it.
    pub(super) fn begin(&self, launch: usize, own: &Stream) -> Result<Option<Begin>, CudaError> {
        let stream = self.stream(launch, own);
        for other in &self.waits[launch] {
            stream.wait(&self.done[other])?;
        }
        let number = self.numbers[launch];
        let is_first = number > 0 && !self.numbers[..launch].contains(&number);
        Ok((is_first || !self.waits[launch].is_empty()).then_some(Begin::AfterPredecessors))
    }

    pub(super) fn end(&self, launch: usize, own: &Stream) -> Result<(), CudaError> {
        match self.done.get(&launch) {
            Some(done) => done.record(self.stream(launch, own)),
            None => Ok(()),
        }
    }

    /// `own` goes on where all others are done.
    pub(super) fn meet(&self, own: &Stream) -> Result<(), CudaError> {
        for number in 1..=self.others.len() {
            let last = self.numbers.iter().rposition(|stream| *stream as usize == number);
            if let Some(done) = last.and_then(|launch| self.done.get(&launch)) {
                own.wait(done)?;
            }
        }
        Ok(())
    }
}
