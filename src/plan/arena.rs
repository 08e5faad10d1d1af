//! Offsets in one block of memory for tensors that live at different times.
//!
//! Finding the smallest block is NP-hard. Placing the tensors one by one, each at the lowest
//! free offset, is within a few per cent of the lower bound if large ones go first; which
//! notion of large is best differs by graph, so several orders are tried; in each, tensors that ended
//! on top are then moved forward as long as that helps.

use super::lifetimes::Lifetime;

/// Offsets, one per lifetime, and the size of the block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packing {
    pub offsets: Vec<usize>,
    pub bytes: usize,
}

/// Comparisons of two lifetimes that improving one order may take.
const EFFORT: usize = 10_000_000;
/// Orders that improving may try.
const TRIALS: usize = 200;

/// Places every lifetime; offsets are multiples of `alignment`. Deterministic.
pub fn pack(lifetimes: &[Lifetime], alignment: usize) -> Packing {
    let starts = orders(lifetimes);
    let mut starts: Vec<(Packing, Vec<usize>)> = starts
        .into_iter()
        .map(|order| (place(lifetimes, &order, alignment), order))
        .collect();
    starts.sort_by_key(|(packing, _)| packing.bytes);
    let bound = lower_bound(lifetimes).next_multiple_of(alignment);
    let mut best: Option<Packing> = None;
    for start in starts {
        let packing = improved(lifetimes, start, bound, alignment);
        if best.as_ref().is_none_or(|best| packing.bytes < best.bytes) {
            best = Some(packing);
        }
        if best.as_ref().is_some_and(|best| best.bytes <= bound) {
            break;
        }
    }
    best.expect("there is more than one order")
}

/// Moves tensors at the top of the block forward in the order, one at a time, and keeps what is no
/// worse, until the lower bound is met or the effort spent.
fn improved(lifetimes: &[Lifetime], start: (Packing, Vec<usize>), bound: usize, alignment: usize) -> Packing {
    let (mut best, mut order) = start;
    let trials = TRIALS.min(EFFORT / (lifetimes.len() * lifetimes.len()).max(1));
    let mut random = 0x9e37_79b9_u32;
    let mut draw = |n: usize| {
        // Numerical Recipes' generator: any fixed sequence will do.
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 8) as usize % n.max(1)
    };
    for _ in 0..trials {
        if best.bytes <= bound {
            break;
        }
        let top: Vec<usize> = (0..order.len())
            .filter(|&place| ends_on_top(lifetimes, &best, order[place], alignment))
            .collect();
        let from = top[draw(top.len())];
        let mut other = order.clone();
        let number = other.remove(from);
        other.insert(draw(from.max(1)), number);
        let packing = place(lifetimes, &other, alignment);
        if packing.bytes <= best.bytes {
            (best, order) = (packing, other);
        }
    }
    best
}

fn ends_on_top(lifetimes: &[Lifetime], packing: &Packing, number: usize, alignment: usize) -> bool {
    let end = packing.offsets[number] + lifetimes[number].bytes;
    // The block ends at a multiple of the alignment, so less than one above the last tensor.
    packing.bytes - end < alignment
}

/// The largest sum of live bytes at any step: no block can be smaller.
pub fn lower_bound(lifetimes: &[Lifetime]) -> usize {
    alive(lifetimes)
        .into_iter()
        .map(|(_, bytes)| bytes)
        .max()
        .unwrap_or(0)
}

/// Steps from which on another sum of bytes is alive, with that sum, by rising step.
fn alive(lifetimes: &[Lifetime]) -> Vec<(usize, usize)> {
    let mut changes: Vec<(usize, bool, usize)> = Vec::new();
    for own in lifetimes {
        changes.push((own.first, true, own.bytes));
        changes.push((own.last + 1, false, own.bytes));
    }
    // What dies before a step is gone when the step begins.
    changes.sort_by_key(|&(step, begins, _)| (step, begins));
    let mut sums: Vec<(usize, usize)> = Vec::new();
    let mut live = 0;
    for (step, begins, bytes) in changes {
        live = if begins { live + bytes } else { live - bytes };
        match sums.last_mut() {
            Some(last) if last.0 == step => last.1 = live,
            _ => sums.push((step, live)),
        }
    }
    sums
}

/// For each lifetime the most bytes that are alive at one of its steps.
fn pressures(lifetimes: &[Lifetime]) -> Vec<usize> {
    let sums = alive(lifetimes);
    let own = lifetimes.iter().map(|own| {
        let begin = sums
            .partition_point(|&(step, _)| step <= own.first)
            .saturating_sub(1);
        let end = sums.partition_point(|&(step, _)| step <= own.last);
        sums[begin..end]
            .iter()
            .map(|&(_, bytes)| bytes)
            .max()
            .unwrap_or(0)
    });
    own.collect()
}

fn orders(lifetimes: &[Lifetime]) -> Vec<Vec<usize>> {
    let by = |key: fn(&Lifetime) -> (usize, usize)| {
        let mut order: Vec<usize> = (0..lifetimes.len()).collect();
        order.sort_by_key(|&place| (std::cmp::Reverse(key(&lifetimes[place])), place));
        order
    };
    let pressures = pressures(lifetimes);
    let mut crowded_first: Vec<usize> = (0..lifetimes.len()).collect();
    crowded_first.sort_by_key(|&place| {
        let own = &lifetimes[place];
        (std::cmp::Reverse((pressures[place], own.last - own.first)), place)
    });
    vec![
        crowded_first,
        by(|own| (own.bytes, own.last - own.first)),
        by(|own| (own.last - own.first, own.bytes)),
        by(|own| (own.bytes.saturating_mul(own.last - own.first + 1), own.bytes)),
        by(|own| (usize::MAX - own.first, own.bytes)),
        by(|own| (own.last, own.bytes)),
    ]
}

/// Each lifetime of `order` goes to the lowest offset where it overlaps nothing placed.
fn place(lifetimes: &[Lifetime], order: &[usize], alignment: usize) -> Packing {
    let mut offsets = vec![0; lifetimes.len()];
    // Placed so far, by rising offset.
    let mut placed: Vec<usize> = Vec::with_capacity(order.len());
    let mut bytes = 0;
    for &number in order {
        let own = &lifetimes[number];
        let mut offset = 0usize;
        for &other in placed.iter().filter(|&&other| lifetimes[other].meets(own)) {
            let begin: usize = offsets[other];
            if offset + own.bytes <= begin {
                break;
            }
            let end = (begin + lifetimes[other].bytes).next_multiple_of(alignment);
            offset = offset.max(end);
        }
        offsets[number] = offset;
        let position = placed.partition_point(|&other| offsets[other] <= offset);
        placed.insert(position, number);
        bytes = bytes.max(offset + own.bytes);
    }
    Packing {
        offsets,
        bytes: bytes.next_multiple_of(alignment),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lifetime(bytes: usize, first: usize, last: usize) -> Lifetime {
        Lifetime { bytes, first, last }
    }

    fn check(lifetimes: &[Lifetime]) -> Packing {
        let packing = pack(lifetimes, 256);
        for (a, own) in lifetimes.iter().enumerate() {
            assert!(packing.offsets[a].is_multiple_of(256));
            assert!(packing.offsets[a] + own.bytes <= packing.bytes);
            for (b, other) in lifetimes.iter().enumerate().skip(a + 1) {
                let apart = packing.offsets[a] + own.bytes <= packing.offsets[b]
                    || packing.offsets[b] + other.bytes <= packing.offsets[a];
                assert!(apart || !own.meets(other), "{a} and {b} overlap");
            }
        }
        assert!(packing.bytes >= lower_bound(lifetimes));
        packing
    }

    #[test]
    fn a_chain_needs_two_tensors() {
        let chain: Vec<Lifetime> = (0..8).map(|step| lifetime(1024, step, step + 1)).collect();
        assert_eq!(check(&chain).bytes, 2048);
        assert_eq!(lower_bound(&chain), 2048);
    }

    #[test]
    fn nothing_needs_nothing() {
        assert_eq!(check(&[]).bytes, 0);
        assert_eq!(check(&[lifetime(0, 0, 3)]).bytes, 0);
    }

    #[test]
    fn random_lifetimes_are_packed_tightly() {
        let mut state = 7u64;
        let mut draw = |most: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % most
        };
        for case in 0..50 {
            let n_tensors = 2 + draw(80);
            let lifetimes: Vec<Lifetime> = (0..n_tensors)
                .map(|_| {
                    let first = draw(100);
                    lifetime(256 * (1 + draw(64)), first, first + draw(12))
                })
                .collect();
            let (packed, bound) = (check(&lifetimes).bytes, lower_bound(&lifetimes));
            assert!(
                packed * 100 <= bound * 115,
                "case {case}: {packed} bytes, bound {bound}"
            );
        }
    }
}
