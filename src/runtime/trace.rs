//! Executions with the times of their parts, as benchmarks report them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{ExecutionContext, RuntimeError};
use crate::cuda::{Context, Event, Stream};

/// Executions of one stream that may be queued at once: the host prepares one while the device
/// executes the other.
const IN_FLIGHT: usize = 2;

/// Begin and end of something, in milliseconds after a [`Clock`] was started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Span {
    pub start: f64,
    pub end: f64,
}

impl Span {
    pub fn length(self) -> f64 {
        self.end - self.start
    }
}

/// When the parts of one execution happened. Without transfers `upload` and `download` are empty.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Trace {
    /// On the host: queueing the execution.
    pub enqueue: Span,
    pub upload: Span,
    pub compute: Span,
    pub download: Span,
}

impl Trace {
    /// Milliseconds of transfers and kernels together.
    pub fn latency(&self) -> f64 {
        self.upload.length() + self.compute.length() + self.download.length()
    }
}

/// A moment that both the host and the device know.
#[derive(Debug)]
pub struct Clock {
    host: Instant,
    device: Event,
}

impl Clock {
    /// Starts now.
    ///
    /// # Errors
    /// If the device refuses.
    pub fn start(context: &Arc<Context>) -> Result<Self, RuntimeError> {
        let stream = Stream::new(context)?;
        let device = Event::new(context)?;
        device.record(&stream)?;
        device.synchronize()?;
        Ok(Clock {
            host: Instant::now(),
            device,
        })
    }

    fn host_ms(&self) -> f64 {
        self.host.elapsed().as_secs_f64() * 1e3
    }

    fn device_ms(&self, event: &Event) -> Result<f64, RuntimeError> {
        Ok(event.elapsed_us(&self.device)? / 1e3)
    }
}

/// What is executed, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct TraceOptions {
    /// At least so many executions ..
    pub iterations: usize,
    /// .. and at least so long after the clock was started.
    pub until: Duration,
    /// Whether inputs are copied to the device and outputs back, each time.
    pub transfers: bool,
    /// Whether the recorded graph is launched, or kernel by kernel.
    pub graph: bool,
    /// Pause of the host between two executions.
    pub idle: Duration,
}

/// An execution that is queued: host times, and the ends of its parts on the device.
struct Queued {
    enqueue: Span,
    events: [Event; 4],
}

impl Queued {
    fn new(context: &Arc<Context>) -> Result<Self, RuntimeError> {
        let event = || Event::new(context);
        Ok(Queued {
            enqueue: Span::default(),
            events: [event()?, event()?, event()?, event()?],
        })
    }

    /// Waits until it is done.
    fn trace(&self, clock: &Clock, transfers: bool) -> Result<Trace, RuntimeError> {
        self.events[3].synchronize()?;
        let mut times = [0.0; 4];
        for (time, event) in times.iter_mut().zip(&self.events) {
            *time = clock.device_ms(event)?;
        }
        let span = |from: usize, to: usize| Span {
            start: times[from],
            end: times[to],
        };
        Ok(Trace {
            enqueue: self.enqueue,
            upload: if transfers { span(0, 1) } else { span(1, 1) },
            compute: span(1, 2),
            download: if transfers { span(2, 3) } else { span(2, 2) },
        })
    }
}

impl ExecutionContext {
    /// Executes again and again on the inputs that were written last, and tells when what
    /// happened.
    ///
    /// # Errors
    /// If the device reports a fault.
    pub fn traces(&mut self, clock: &Clock, options: &TraceOptions) -> Result<Vec<Trace>, RuntimeError> {
        let context = Arc::clone(self.stream().context());
        let mut free: Vec<Queued> = Vec::new();
        for _ in 0..=IN_FLIGHT {
            free.push(Queued::new(&context)?);
        }
        let mut in_flight: VecDeque<Queued> = VecDeque::new();
        let mut traces = Vec::new();
        let mut n_queued = 0;
        while n_queued < options.iterations || clock.host.elapsed() < options.until {
            let mut next = free.pop().expect("one more than can be in flight");
            self.queue_timed(clock, options, &mut next)?;
            in_flight.push_back(next);
            n_queued += 1;
            if in_flight.len() == IN_FLIGHT {
                let first = in_flight.pop_front().expect("some are in flight");
                traces.push(first.trace(clock, options.transfers)?);
                free.push(first);
            }
            if !options.idle.is_zero() {
                std::thread::sleep(options.idle);
            }
        }
        for last in in_flight {
            traces.push(last.trace(clock, options.transfers)?);
        }
        Ok(traces)
    }

    fn queue_timed(
        &mut self,
        clock: &Clock,
        options: &TraceOptions,
        into: &mut Queued,
    ) -> Result<(), RuntimeError> {
        into.enqueue.start = clock.host_ms();
        into.events[0].record(self.stream())?;
        if options.transfers {
            self.queue_uploads()?;
        }
        into.events[1].record(self.stream())?;
        if options.graph {
            self.launch()?;
        } else {
            self.launch_kernels()?;
        }
        into.events[2].record(self.stream())?;
        if options.transfers {
            self.queue_downloads()?;
        }
        into.events[3].record(self.stream())?;
        into.enqueue.end = clock.host_ms();
        Ok(())
    }
}
