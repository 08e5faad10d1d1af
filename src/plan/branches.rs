//! Which launches go to streams of their own.
//!
//! Small launches leave most of a device idle: branches of a network that need nothing of each other
//! then run at once. Launches are given to streams one after the other, each to the one on which it can
//! begin first; whether that pays is told by executing the plan in a model of the device, in which launches
//! that together want more processors than there are share them.

use super::lifetimes::Storage;
use crate::engine::streams::MAX_STREAMS;
use crate::kernel::Arch;
use crate::rewrite::{DeviceRates, FusedGraph};
use crate::tune::Tactic;

/// A launch that waits for another stream begins so much later: it cannot be set up while the launch
/// before it is still executing.
const CROSSING_US: f64 = 1.0;
/// Several streams must be faster by this share, and by [`LEAST_GAIN_US`].
const LEAST_GAIN: f64 = 0.02;
const LEAST_GAIN_US: f64 = 2.0;

/// Streams of the launches of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Branches {
    /// For each step.
    pub streams: Vec<u32>,
    /// For each step the first and the last one that may execute at the same time; itself where
    /// none does.
    pub windows: Vec<(usize, usize)>,
}

/// What is known of a launch.
#[derive(Clone, Copy)]
pub(super) struct Load {
    us: f64,
    /// Share of the processors that it keeps busy.
    share: f64,
}

impl Load {
    /// Of a launch of so many microseconds and blocks, on devices of compute capability `sm` (times ten).
    pub(super) fn of(us: f64, grid: [u32; 3], sm: u32) -> Self {
        let n_sms = f64::from(DeviceRates::for_sm(sm).n_sms);
        let n_blocks: f64 = grid.iter().copied().map(f64::from).product();
        Load {
            us,
            share: (n_blocks / n_sms).min(1.0),
        }
    }
}

impl Branches {
    /// All launches on one stream.
    pub(super) fn none(n_steps: usize) -> Self {
        Branches {
            streams: vec![0; n_steps],
            windows: (0..n_steps).map(|step| (step, step)).collect(),
        }
    }

    /// The fastest choice of at most `most` streams beside the caller's.
    pub(super) fn choose(
        fused: &FusedGraph,
        storage: &Storage,
        tactics: &[Tactic],
        arch: Arch,
        most: u32,
    ) -> Self {
        Branches::of_loads(&loads(storage, tactics, arch), &storage.needs(fused), most)
    }

    /// The same for launches of which this is known.
    pub(super) fn of_loads(loads: &[Load], needs: &[Vec<usize>], most: u32) -> Self {
        // A chain has nothing that could run at once.
        if needs
            .iter()
            .enumerate()
            .skip(1)
            .all(|(step, needs)| needs.contains(&(step - 1)))
        {
            return Branches::none(loads.len());
        }
        let alone_us: f64 = loads.iter().map(|load| load.us).sum();
        let enough_us = (alone_us * (1.0 - LEAST_GAIN)).min(alone_us - LEAST_GAIN_US);
        let plans = (2..=most.saturating_add(1).min(MAX_STREAMS)).map(|n_streams| {
            let streams = assign(loads, needs, n_streams);
            (executed_us(loads, needs, &streams), streams)
        });
        // The fewest streams of equally fast ones.
        let best = plans.reduce(|best, other| {
            if other.0 < best.0 * (1.0 - LEAST_GAIN) {
                other
            } else {
                best
            }
        });
        match best {
            Some((us, streams)) if us <= enough_us => Branches {
                windows: windows(needs, &streams),
                streams,
            },
            _ => Branches::none(loads.len()),
        }
    }
}

fn loads(storage: &Storage, tactics: &[Tactic], arch: Arch) -> Vec<Load> {
    let loads = storage.steps.iter().map(|&region| {
        let tactic = &tactics[region];
        let us = tactic.measured_us.unwrap_or(tactic.variant.predicted_us);
        Load::of(us, tactic.source.launch.grid, arch.sm)
    });
    loads.collect()
}

/// Each launch on the stream on which it can begin first, if launches did not slow each other down.
fn assign(loads: &[Load], needs: &[Vec<usize>], n_streams: u32) -> Vec<u32> {
    let mut free_at = vec![0.0; n_streams as usize];
    let mut done_at: Vec<f64> = Vec::with_capacity(loads.len());
    let mut streams: Vec<u32> = Vec::with_capacity(loads.len());
    for (load, needs) in loads.iter().zip(needs) {
        let begin_on = |stream: u32| {
            let ready = needs.iter().map(|&need| {
                let crossing = if streams[need] == stream { 0.0 } else { CROSSING_US };
                done_at[need] + crossing
            });
            ready.fold(free_at[stream as usize], f64::max)
        };
        // What it needs last is best on its own stream; then the caller's.
        let last = needs.iter().max_by(|a, b| done_at[**a].total_cmp(&done_at[**b]));
        let home = last.map_or(0, |&need| streams[need]);
        let best = (0..n_streams).fold(home, |best, stream| {
            if begin_on(stream) < begin_on(best) {
                stream
            } else {
                best
            }
        });
        let done = begin_on(best) + load.us;
        free_at[best as usize] = done;
        done_at.push(done);
        streams.push(best);
    }
    streams
}

/// Microseconds until all launches are done, where those that execute at once share the processors.
fn executed_us(loads: &[Load], needs: &[Vec<usize>], streams: &[u32]) -> f64 {
    let n_streams = streams.iter().max().map_or(1, |most| *most as usize + 1);
    let mut queues: Vec<Vec<usize>> = vec![Vec::new(); n_streams];
    for (step, stream) in streams.iter().enumerate().rev() {
        queues[*stream as usize].push(step);
    }
    let mut is_done = vec![false; loads.len()];
    // Steps that execute, and the microseconds that each has left on a device of its own.
    let mut running: Vec<(usize, f64)> = Vec::new();
    let mut now = 0.0;
    loop {
        for queue in &mut queues {
            let Some(&next) = queue.last() else { continue };
            let is_free = running.iter().all(|(step, _)| streams[*step] != streams[next]);
            if is_free && needs[next].iter().all(|&need| is_done[need]) {
                queue.pop();
                let crosses = needs[next].iter().any(|&need| streams[need] != streams[next]);
                let crossing = if crosses { CROSSING_US } else { 0.0 };
                running.push((next, loads[next].us + crossing));
            }
        }
        let wanted: f64 = running.iter().map(|(step, _)| loads[*step].share).sum();
        let slowness = wanted.max(1.0);
        let Some(least) = running.iter().map(|(_, left)| *left).min_by(f64::total_cmp) else {
            return now;
        };
        now += least * slowness;
        running.retain_mut(|(step, left)| {
            *left -= least;
            is_done[*step] |= *left <= 0.0;
            *left > 0.0
        });
    }
}

/// Steps that neither come before nor after each other by what they need and by their streams.
pub(super) fn windows(needs: &[Vec<usize>], streams: &[u32]) -> Vec<(usize, usize)> {
    let n_steps = needs.len();
    let mut windows: Vec<(usize, usize)> = (0..n_steps).map(|step| (step, step)).collect();
    let mut before: Vec<Vec<bool>> = Vec::with_capacity(n_steps);
    for (step, needs) in needs.iter().enumerate() {
        let in_stream = streams[..step]
            .iter()
            .rposition(|stream| *stream == streams[step]);
        let mut own = vec![false; step];
        for direct in needs.iter().copied().chain(in_stream) {
            own[direct] = true;
            for (far, known) in before[direct].iter().enumerate() {
                own[far] |= known;
            }
        }
        for other in (0..step).filter(|&other| !own[other]) {
            windows[step].0 = windows[step].0.min(other);
            windows[other].1 = step;
        }
        before.push(own);
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A launch, two branches of two launches, and one that joins them, with what each needs.
    fn diamond(share: f64) -> (Vec<Load>, Vec<Vec<usize>>) {
        let branch = Load { us: 10.0, share };
        let whole = Load { us: 5.0, share: 1.0 };
        let needs = [&[][..], &[0], &[1], &[0], &[3], &[2, 4]];
        (
            vec![whole, branch, branch, branch, branch, whole],
            needs.map(<[usize]>::to_vec).to_vec(),
        )
    }

    #[test]
    fn branches_of_small_launches_run_at_once() {
        let (loads, needs) = diamond(0.4);
        let streams = assign(&loads, &needs, 2);
        // What joins them is on the stream of the later one.
        assert_eq!(streams, [0, 0, 0, 1, 1, 1]);
        // Both branches pass while one does, after one crossing to the second stream and one back.
        assert!((executed_us(&loads, &needs, &streams) - 32.0).abs() < 1e-9);
    }

    #[test]
    fn launches_that_fill_the_device_gain_nothing() {
        let (loads, needs) = diamond(1.0);
        let streams = assign(&loads, &needs, 2);
        assert!(executed_us(&loads, &needs, &streams) >= loads.iter().map(|load| load.us).sum());
    }

    #[test]
    fn windows_are_what_is_not_ordered() {
        let (_, needs) = diamond(0.4);
        let own = windows(&needs, &[0, 0, 0, 1, 1, 0]);
        assert_eq!(own, [(0, 0), (1, 4), (2, 4), (1, 3), (1, 4), (5, 5)]);
        assert_eq!(windows(&needs, &[0; 6]), Branches::none(6).windows);
    }
}
