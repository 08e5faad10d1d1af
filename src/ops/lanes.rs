//! Walks a tensor along a set of axes: every combination of the other axes is one lane.

use rayon::prelude::*;

/// Positions of the lanes of a row-major tensor.
pub struct Lanes {
    /// Position of the first element of each lane, lanes in row-major order of the other axes.
    pub starts: Vec<usize>,
    /// Distance of each element of a lane from its first one.
    pub offsets: Vec<usize>,
}

impl Lanes {
    /// Lanes along `axes`, which are sorted and below the rank.
    pub fn new(dims: &[usize], axes: &[usize]) -> Self {
        let others: Vec<usize> = (0..dims.len()).filter(|axis| !axes.contains(axis)).collect();
        let strides = strides(dims);
        Lanes {
            starts: positions(dims, &strides, &others),
            offsets: positions(dims, &strides, axes),
        }
    }

    /// Elements of one lane.
    pub fn length(&self) -> usize {
        self.offsets.len()
    }

    /// The elements, lane after lane.
    pub fn gather<T: Copy + Send + Sync>(&self, values: &[T]) -> Vec<T> {
        self.starts
            .par_iter()
            .with_min_len(64)
            .flat_map_iter(|&start| self.offsets.iter().map(move |&offset| values[start + offset]))
            .collect()
    }

    /// The inverse of [`Lanes::gather`].
    pub fn scatter<T: Copy + Default>(&self, lanes: &[T]) -> Vec<T> {
        let mut values = vec![T::default(); lanes.len()];
        let positions = self
            .starts
            .iter()
            .flat_map(|&start| self.offsets.iter().map(move |&offset| start + offset));
        for (position, &value) in positions.zip(lanes) {
            values[position] = value;
        }
        values
    }

    /// One value per lane.
    pub fn fold<T: Copy + Sync, R: Send>(
        &self,
        values: &[T],
        f: impl Fn(&mut dyn Iterator<Item = T>) -> R + Sync,
    ) -> Vec<R> {
        self.starts
            .par_iter()
            .with_min_len(64)
            .map(|&start| f(&mut self.offsets.iter().map(|&offset| values[start + offset])))
            .collect()
    }

    /// Rewrites every lane in place.
    pub fn update<T: Copy + Default + Send + Sync>(
        &self,
        values: &[T],
        f: impl Fn(&mut [T]) + Sync,
    ) -> Vec<T> {
        if values.is_empty() {
            return Vec::new();
        }
        let mut lanes = self.gather(values);
        lanes.par_chunks_mut(self.length()).with_min_len(16).for_each(&f);
        self.scatter(&lanes)
    }
}

/// Distance between neighbours along each axis of a row-major tensor.
pub fn strides(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    for axis in (1..dims.len()).rev() {
        strides[axis - 1] = strides[axis] * dims[axis];
    }
    strides
}

/// Positions of all coordinates of `axes`, the other coordinates being zero.
fn positions(dims: &[usize], strides: &[usize], axes: &[usize]) -> Vec<usize> {
    axes.iter().fold(vec![0], |positions, &axis| {
        positions
            .iter()
            .flat_map(|&base| (0..dims[axis]).map(move |step| base + step * strides[axis]))
            .collect()
    })
}

/// Row-major values with axes in another order, as ONNX `Transpose`.
pub fn permuted<T: Copy + Send + Sync>(values: &[T], dims: &[usize], perm: &[usize]) -> Vec<T> {
    let positions = positions(dims, &strides(dims), perm);
    positions.par_iter().map(|&position| values[position]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_along_a_middle_axis() {
        let values: Vec<usize> = (0..12).collect();
        let lanes = Lanes::new(&[2, 3, 2], &[1]);
        assert_eq!(lanes.starts, [0, 1, 6, 7]);
        assert_eq!(lanes.gather(&values)[..6], [0, 2, 4, 1, 3, 5]);
        assert_eq!(lanes.scatter(&lanes.gather(&values)), values);
        assert_eq!(lanes.fold(&values, |lane| lane.sum::<usize>()), [6, 9, 24, 27]);
    }

    #[test]
    fn permuting_moves_axes() {
        assert_eq!(
            permuted(&[1, 2, 3, 4, 5, 6], &[2, 3], &[1, 0]),
            [1, 4, 2, 5, 3, 6]
        );
    }
}
