//! What launches of several streams wait for.
//!
//! The meaning of a program is its launches one after the other. A launch on another stream may begin
//! earlier, but not before those that write what it touches or touch what it writes: that follows from
//! the places of its arguments, so a file cannot say it wrongly.

use super::{Arg, Launch, Place};

/// Streams of a program, the caller's among them.
pub const MAX_STREAMS: u32 = 8;

/// For each launch the launches of other streams that it must wait for itself: neither has its own
/// stream waited for them before, nor do they follow from each other.
pub fn waits(launches: &[Launch]) -> Vec<Vec<usize>> {
    let n_streams = launches.iter().map(|launch| launch.stream).max().unwrap_or(0) as usize + 1;
    if n_streams == 1 {
        return vec![Vec::new(); launches.len()];
    }
    let mut known: Vec<Known> = vec![vec![None; n_streams]; n_streams];
    // What is known to be done once a launch is.
    let mut behind: Vec<Known> = Vec::with_capacity(launches.len());
    let mut waits = Vec::with_capacity(launches.len());
    for (number, launch) in launches.iter().enumerate() {
        let own = launch.stream as usize;
        let mut needed = Vec::new();
        // The latest ones first: earlier ones often follow from them.
        for other in (0..number).rev() {
            let stream = launches[other].stream as usize;
            if known[own][stream] < Some(other) && needs(launch, &launches[other]) {
                needed.push(other);
                join(&mut known[own], &behind[other]);
            }
        }
        known[own][own] = Some(number);
        behind.push(known[own].clone());
        needed.reverse();
        waits.push(needed);
    }
    waits
}

/// The last launch of each stream that is done.
type Known = Vec<Option<usize>>;

fn join(known: &mut Known, other: &Known) {
    for (own, other) in known.iter_mut().zip(other) {
        *own = (*own).max(*other);
    }
}

/// Whether `launch` may not begin before the earlier `other` is done.
fn needs(launch: &Launch, other: &Launch) -> bool {
    let meets = |(own, writes): (Place, bool), (place, is_written): (Place, bool)| {
        let boxes = own == place && writes && is_written && launch.writes_boxes && other.writes_boxes;
        (writes || is_written) && !boxes && overlap(own, place)
    };
    touched(launch).any(|own| touched(other).any(|place| meets(own, place)))
}

/// Places of a launch's arguments, and whether they are written.
fn touched(launch: &Launch) -> impl Iterator<Item = (Place, bool)> {
    launch.args.iter().filter_map(|arg| match arg {
        Arg::Reads(place) => Some((*place, false)),
        Arg::Writes(place) => Some((*place, true)),
        Arg::TensorMap(map) => Some((map.place, false)),
        Arg::I32(_) => None,
    })
}

fn overlap(a: Place, b: Place) -> bool {
    a.memory == b.memory && a.offset < b.offset + b.len && b.offset < a.offset + a.len
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Explanation, Memory};

    /// Spans of the arena as offset and length.
    fn launch(stream: u32, reads: &[(usize, usize)], writes: &[(usize, usize)]) -> Launch {
        let place = |&(offset, len): &(usize, usize)| Place {
            memory: Memory::Arena,
            offset,
            len,
        };
        let reads = reads.iter().map(|span| Arg::Reads(place(span)));
        let writes = writes.iter().map(|span| Arg::Writes(place(span)));
        Launch {
            kernel: 0,
            grid: [1; 3],
            block: [1; 3],
            smem_bytes: 0,
            args: reads.chain(writes).collect(),
            task: None,
            stream,
            writes_boxes: false,
            nodes: Vec::new(),
            rules: Vec::new(),
            explanation: Explanation::default(),
            predicted_us: 1.0,
            measured_us: None,
        }
    }

    #[test]
    fn branches_wait_where_they_part_and_where_they_meet() {
        let launches = [
            launch(0, &[], &[(0, 16)]),
            launch(1, &[(0, 16)], &[(16, 16)]),
            launch(0, &[(0, 16)], &[(32, 16)]),
            launch(1, &[(16, 16)], &[(48, 16)]),
            launch(0, &[(32, 16), (48, 16)], &[(64, 16)]),
        ];
        let none = Vec::new;
        assert_eq!(waits(&launches), [none(), vec![0], none(), none(), vec![3]]);
    }

    #[test]
    fn memory_that_is_used_again_is_waited_for() {
        let launches = [
            launch(0, &[], &[(0, 16)]),
            launch(0, &[(0, 16)], &[(16, 16)]),
            // Overwrites part of what the one before reads.
            launch(1, &[], &[(8, 4)]),
            // All that it needs is done where the one before is.
            launch(1, &[(16, 16)], &[(32, 16)]),
        ];
        assert_eq!(waits(&launches)[2..], [vec![1], vec![]]);
    }

    #[test]
    fn boxes_of_one_tensor_are_written_at_once_and_read_after_both() {
        let mut launches = [
            launch(0, &[], &[(0, 64)]),
            launch(1, &[], &[(0, 64)]),
            launch(0, &[(0, 64)], &[(64, 64)]),
        ];
        assert_eq!(waits(&launches)[1], [0]);
        launches[0].writes_boxes = true;
        launches[1].writes_boxes = true;
        assert_eq!(waits(&launches), [vec![], vec![], vec![1]]);
    }

    #[test]
    fn drawn_launches_run_after_all_that_they_need() {
        let mut state = 1u64;
        let mut draw = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from((state >> 33) % n).unwrap()
        };
        for _ in 0..200 {
            let launches: Vec<Launch> = (0..12)
                .map(|_| {
                    let stream = u32::try_from(draw(3)).unwrap();
                    let (read, write) = ((draw(8) * 8, 8), (draw(8) * 8, 8 + 8 * draw(2)));
                    launch(stream, &[read], &[write])
                })
                .collect();
            let after = closure(&launches, &waits(&launches));
            for (number, own) in launches.iter().enumerate() {
                for other in 0..number {
                    assert!(!needs(own, &launches[other]) || after[number][other]);
                }
            }
        }
    }

    /// Which launches come after which, by streams and waits.
    fn closure(launches: &[Launch], waits: &[Vec<usize>]) -> Vec<Vec<bool>> {
        let mut after = vec![vec![false; launches.len()]; launches.len()];
        for number in 0..launches.len() {
            let before = (0..number).filter(|&other| launches[other].stream == launches[number].stream);
            let direct: Vec<usize> = before.chain(waits[number].iter().copied()).collect();
            for other in direct {
                let reached = after[other].clone();
                for (far, comes_after) in after[number].iter_mut().enumerate() {
                    *comes_after |= far == other || reached[far];
                }
            }
        }
        after
    }
}
