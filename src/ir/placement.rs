//! A tensor that is a box of a larger one.

use super::divisor::common_divisor;
use std::fmt;

use super::host_tensor::HostTensor;

/// Where the elements of a tensor lie in a dense, row-major tensor of the same rank: the whole's
/// extents, and the coordinates in it of the tensor's first element. Extents in elements.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Placement {
    pub dims: Vec<usize>,
    pub starts: Vec<usize>,
}

impl Placement {
    /// Whether a tensor of `dims` fits.
    pub fn holds(&self, dims: &[usize]) -> bool {
        let ranks = [self.dims.len(), self.starts.len()];
        let mut axes = self.starts.iter().zip(dims).zip(&self.dims);
        ranks == [dims.len(); 2]
            && axes
                .all(|((start, extent), whole)| start.checked_add(*extent).is_some_and(|end| end <= *whole))
    }

    /// The most elements of a vector of which a box of `dims` is made, where vectors lie at
    /// multiples of their size.
    pub fn vector(&self, dims: &[usize]) -> usize {
        // Axes behind the last one that is cut are neighbours in both tensors.
        let cut = (0..dims.len()).rev().find(|&axis| dims[axis] != self.dims[axis]);
        let first = cut.unwrap_or(0);
        let below: usize = self.dims.iter().skip(first + 1).product();
        let extents = [&self.starts, &self.dims].map(|own| own.get(first).copied().unwrap_or(0) * below);
        let run: usize = dims.iter().skip(first).product();
        extents.into_iter().fold(run, common_divisor)
    }

    /// The box of `dims` out of `whole`.
    ///
    /// # Panics
    /// If `whole` has other dims than the placement, or the box does not fit.
    pub fn cut(&self, whole: &HostTensor, dims: &[usize]) -> HostTensor {
        let mut part = HostTensor::zeros(whole.dtype(), dims);
        let runs = self.runs(whole, dims);
        let run = runs.bytes;
        let from = whole.bytes();
        for (own, at) in part.bytes_mut().chunks_exact_mut(run.max(1)).zip(runs.starts) {
            own.copy_from_slice(&from[at..at + run]);
        }
        part
    }

    /// Overwrites the box of `part`'s dims in `whole`.
    ///
    /// # Panics
    /// As [`Placement::cut`], or if the two are of different kinds.
    pub fn paste(&self, part: &HostTensor, whole: &mut HostTensor) {
        assert_eq!(part.dtype(), whole.dtype(), "kind of a placed tensor");
        let runs = self.runs(whole, part.dims());
        let run = runs.bytes;
        let to = whole.bytes_mut();
        for (own, at) in part.bytes().chunks_exact(run.max(1)).zip(runs.starts) {
            to[at..at + run].copy_from_slice(own);
        }
    }

    /// The runs of neighbouring elements that a box of `dims` is made of.
    fn runs(&self, whole: &HostTensor, dims: &[usize]) -> Runs {
        assert!(
            whole.dims() == self.dims && self.holds(dims),
            "a box of {dims:?} at {:?} lies in {:?}, not in {:?}",
            self.starts,
            self.dims,
            whole.dims()
        );
        let size = whole.dtype().size_bytes();
        let Some(last) = dims.len().checked_sub(1) else {
            return Runs {
                bytes: size,
                starts: vec![0],
            };
        };
        let mut starts = vec![0];
        for (axis, &own) in dims.iter().enumerate() {
            let extent = if axis == last { 1 } else { own };
            let steps = self.starts[axis]..self.starts[axis] + extent;
            let below = |at: usize| steps.clone().map(move |step| at * self.dims[axis] + step);
            starts = starts.into_iter().flat_map(below).collect();
        }
        Runs {
            bytes: dims[last] * size,
            starts: starts.into_iter().map(|at| at * size).collect(),
        }
    }
}

struct Runs {
    /// Of each run.
    bytes: usize,
    /// Bytes before each run.
    starts: Vec<usize>,
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "in {:?} at {:?}", self.dims, self.starts)
    }
}

impl HostTensor {
    /// The first elements along every axis.
    ///
    /// # Panics
    /// If `dims` are more, or of another rank.
    #[must_use]
    pub fn first(&self, dims: &[usize]) -> Self {
        if dims == self.dims() {
            return self.clone();
        }
        let start = Placement {
            dims: self.dims().to_vec(),
            starts: vec![0; dims.len()],
        };
        start.cut(self, dims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placement() -> Placement {
        Placement {
            dims: vec![2, 4, 3],
            starts: vec![0, 1, 1],
        }
    }

    #[test]
    fn what_is_pasted_is_cut_out_again_and_nothing_else_changes() {
        let part = HostTensor::from_f32(&[2, 2, 2], &[1., 2., 3., 4., 5., 6., 7., 8.]);
        let mut whole = HostTensor::zeros(crate::ir::DType::F32, &[2, 4, 3]);
        placement().paste(&part, &mut whole);
        assert_eq!(placement().cut(&whole, &[2, 2, 2]), part);
        let values = whole.as_slice::<f32>();
        assert_eq!(values[3..9], [0., 1., 2., 0., 3., 4.]);
        assert_eq!(values.iter().filter(|value| **value != 0.0).count(), 8);
    }

    #[test]
    fn scalars_and_empty_boxes_have_a_place() {
        let point = Placement {
            dims: vec![],
            starts: vec![],
        };
        let one = HostTensor::from_f32(&[], &[3.0]);
        assert_eq!(point.cut(&one, &[]), one);
        let whole = HostTensor::from_f32(&[2, 1, 1], &[1.0, 2.0]);
        let none = Placement {
            dims: vec![2, 1, 1],
            starts: vec![0, 1, 0],
        };
        assert_eq!(none.cut(&whole, &[2, 0, 1]).n_elements(), 0);
    }

    #[test]
    fn vectors_fit_runs_pitch_and_start() {
        let placed = |dims: &[usize], starts: &[usize], own: &[usize]| {
            let (dims, starts) = (dims.to_vec(), starts.to_vec());
            Placement { dims, starts }.vector(own)
        };
        assert_eq!(placed(&[1, 8, 8, 96], &[0, 0, 0, 32], &[1, 8, 8, 64]), 32);
        assert_eq!(placed(&[1, 8, 8, 90], &[0, 0, 0, 32], &[1, 8, 8, 58]), 2);
        assert_eq!(placed(&[1, 6, 8, 5], &[0, 2, 0, 0], &[1, 4, 8, 5]), 80);
        assert_eq!(placed(&[4, 4], &[0, 0], &[4, 4]), 16);
    }

    #[test]
    fn boxes_that_stick_out_are_noticed() {
        assert!(placement().holds(&[2, 3, 2]));
        assert!(!placement().holds(&[2, 4, 2]));
        assert!(!placement().holds(&[2, 3]));
    }
}
