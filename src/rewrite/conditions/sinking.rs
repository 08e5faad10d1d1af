//! Exchanging a transpose and the reshape behind it.
//!
//! The reshape is cut into groups: runs of axes before it that hold the same elements as runs
//! of axes after it. A group whose axes were neighbours, in the same order, before the
//! transpose can be reshaped there, and the transpose then moves whole groups.

/// A reshape, and the transpose behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sunk {
    pub dims: Vec<i64>,
    pub perm: Vec<i64>,
}

/// A run of axes before a reshape and the run after it with the same elements.
struct Group {
    from: std::ops::Range<usize>,
    to: std::ops::Range<usize>,
}

/// A reshape and a transpose that do what a transpose of `dims` by `perm` and a reshape to
/// `shape` do; `None` where a group's axes are not neighbours in `dims`.
pub fn sink(dims: &[i64], perm: &[i64], shape: &[i64]) -> Option<Sunk> {
    let turned = permute(dims, perm)?;
    let groups = groups(&turned, shape)?;
    // Places of axes in `dims` among those of more than one element.
    let mut place = vec![0; dims.len()];
    let mut n_places = 0;
    for (axis, &extent) in dims.iter().enumerate() {
        place[axis] = n_places;
        n_places += usize::from(extent != 1);
    }
    let mut order: Vec<(usize, &Group)> = Vec::new();
    for group in &groups {
        let axes = group.from.clone().filter(|&axis| turned[axis] != 1);
        let places: Option<Vec<usize>> = axes
            .map(|axis| Some(place[usize::try_from(perm[axis]).ok()?]))
            .collect();
        let places = places?;
        if places.windows(2).any(|pair| pair[1] != pair[0] + 1) {
            return None;
        }
        order.push((*places.first()?, group));
    }
    order.sort_by_key(|(place, _)| *place);
    let axes: Vec<usize> = order.iter().flat_map(|(_, group)| group.to.clone()).collect();
    let back: Option<Vec<i64>> = axes.iter().map(|&axis| i64::try_from(axis).ok()).collect();
    Some(Sunk {
        dims: axes.iter().map(|&axis| shape[axis]).collect(),
        perm: inverse(&back?)?,
    })
}

/// The finest groups of a reshape from `from` to `to`; axes of one element belong to the
/// group before them, or to the first.
fn groups(from: &[i64], to: &[i64]) -> Option<Vec<Group>> {
    let mut groups: Vec<Group> = Vec::new();
    let (mut left, mut right) = (0, 0);
    while left < from.len() || right < to.len() {
        let (start, other) = (left, right);
        let (mut have, mut want) = (1, 1);
        loop {
            if have == want && (have != 1 || (left == from.len() && right == to.len())) {
                break;
            }
            // The side that holds fewer elements grows; leading ones go first.
            if have <= want && left < from.len() {
                have *= from[left];
                left += 1;
            } else if right < to.len() {
                want *= to[right];
                right += 1;
            } else {
                return None;
            }
        }
        while left < from.len() && from[left] == 1 {
            left += 1;
        }
        while right < to.len() && to[right] == 1 {
            right += 1;
        }
        groups.push(Group {
            from: start..left,
            to: other..right,
        });
    }
    Some(groups)
}

/// The transpose of `dims` that does what a reshape to `shape`, which only moves axes of one
/// element, and a transpose by `perm` do. `None` where an axis of more than one is touched.
pub fn perm_over_units(dims: &[i64], shape: &[i64], perm: &[i64]) -> Option<Vec<i64>> {
    let (units, others): (Vec<usize>, Vec<usize>) = (0..dims.len()).partition(|&axis| dims[axis] == 1);
    let mut units = units.into_iter();
    // The axis of `dims` behind each axis of `shape` that holds more than one element.
    let mut behind = others.into_iter();
    let mut sources: Vec<Option<usize>> = Vec::new();
    for &extent in shape {
        let source = if extent == 1 { None } else { Some(behind.next()?) };
        if source.is_some_and(|axis| dims[axis] != extent) {
            return None;
        }
        sources.push(source);
    }
    let mut axis_of = |&from: &i64| match sources.get(usize::try_from(from).ok()?)? {
        Some(axis) => i64::try_from(*axis).ok(),
        None => i64::try_from(units.next()?).ok(),
    };
    perm.iter().map(&mut axis_of).collect()
}

/// `list[p[i]]` for each `i`.
pub(super) fn permute(list: &[i64], perm: &[i64]) -> Option<Vec<i64>> {
    perm.iter()
        .map(|&from| list.get(usize::try_from(from).ok()?).copied())
        .collect()
}

pub(super) fn inverse(perm: &[i64]) -> Option<Vec<i64>> {
    let mut inverse = vec![0; perm.len()];
    for (to, &from) in (0i64..).zip(perm) {
        *inverse.get_mut(usize::try_from(from).ok()?)? = to;
    }
    Some(inverse)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sunk(dims: &[i64], perm: &[i64], shape: &[i64]) -> Option<(Vec<i64>, Vec<i64>)> {
        sink(dims, perm, shape).map(|sunk| (sunk.dims, sunk.perm))
    }

    #[test]
    fn pictures_become_sequences() {
        let found = sunk(&[2, 4, 5, 3], &[0, 3, 1, 2], &[2, 3, 20]);
        assert_eq!(found, Some((vec![2, 20, 3], vec![0, 2, 1])));
    }

    #[test]
    fn axes_that_were_apart_cannot_be_joined_first() {
        // Channels and rows of a picture with channels last.
        assert_eq!(sunk(&[2, 4, 5, 3], &[0, 3, 1, 2], &[2, 60]), None);
        // Heads of two samples.
        assert_eq!(sunk(&[2, 7, 4, 8], &[0, 2, 1, 3], &[8, 7, 8]), None);
    }

    #[test]
    fn ones_are_no_obstacle() {
        let found = sunk(&[1, 7, 4, 8], &[0, 2, 1, 3], &[4, 7, 8]);
        assert_eq!(found, Some((vec![7, 4, 8], vec![1, 0, 2])));
        let found = sunk(&[6, 4], &[1, 0], &[1, 4, 1, 2, 3]);
        assert_eq!(found, Some((vec![2, 3, 1, 4, 1], vec![2, 3, 4, 0, 1])));
    }

    #[test]
    fn reshapes_that_move_ones_are_transposes() {
        let found = perm_over_units(&[1, 3, 4, 5], &[3, 1, 4, 5], &[1, 2, 0, 3]);
        assert_eq!(found, Some(vec![0, 2, 1, 3]));
        assert_eq!(perm_over_units(&[3, 4], &[4, 3], &[0, 1]), None);
    }

    #[test]
    fn nothing_but_ones_has_no_place() {
        assert_eq!(sunk(&[1, 1], &[1, 0], &[1]), None);
    }
}
