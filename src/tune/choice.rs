//! Which of several timed variants is taken.

/// Variants come in the order of their predictions, behind the one that is there; a later one must win by this.
const MARGIN: f64 = 0.98;

/// The fastest of some, with their times in microseconds, by rising predicted time. Where times are
/// as good as equal, the prediction decides, so that noise does not.
pub fn fastest<T>(timed: impl IntoIterator<Item = (T, f64)>) -> Option<(T, f64)> {
    let mut best: Option<(T, f64)> = None;
    for (entrant, us) in timed {
        let limit = best.as_ref().map_or(f64::INFINITY, |(_, best)| best * MARGIN);
        if us < limit {
            best = Some((entrant, us));
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::fastest;

    #[test]
    fn a_challenger_wins_by_two_per_cent() {
        assert_eq!(fastest([('a', 10.0), ('b', 9.9), ('c', 9.0)]), Some(('c', 9.0)));
        assert_eq!(fastest([('a', 10.0), ('b', 9.9)]), Some(('a', 10.0)));
        assert_eq!(fastest::<char>([]), None);
    }
}
