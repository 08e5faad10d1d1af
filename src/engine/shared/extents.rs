//! The shapes of a range: every choice of its free extents.

use serde::{Deserialize, Serialize};

use super::super::{Binding, Profile};
use crate::ir::TensorType;

/// Most shapes of a range.
pub const MAX_SHAPES: usize = 65_536;

/// Axes of inputs that vary, and between which extents. Shapes are numbered by rising extents, those of the first axis
/// slowest, and without the usual one, which has a program of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extents {
    pub free: Vec<Free>,
    /// Extents of the usual shape.
    pub usual: Vec<usize>,
}

/// Axes that always have the same extent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Free {
    pub least: usize,
    pub most: usize,
    /// Input and axis of each.
    pub axes: Vec<[usize; 2]>,
}

impl Free {
    fn count(&self) -> usize {
        (self.most - self.least).saturating_add(1)
    }
}

impl Extents {
    /// The range of these dims of inputs, the usual ones first; none if they are not all of a range, in order.
    pub fn of(shapes: &[Vec<Vec<usize>>]) -> Option<Self> {
        let (usual, others) = shapes.split_first()?;
        let mut free: Vec<Free> = Vec::new();
        for (input, dims) in usual.iter().enumerate() {
            for axis in 0..dims.len() {
                let column = || shapes.iter().map(|shape| shape.get(input)?.get(axis).copied());
                let values: Vec<usize> = column().collect::<Option<_>>()?;
                let (least, most) = (*values.iter().min()?, *values.iter().max()?);
                let is_known = |own: &&mut Free| {
                    let [input, axis] = own.axes[0];
                    shapes
                        .iter()
                        .map(|shape| shape[input][axis])
                        .eq(values.iter().copied())
                };
                match free.iter_mut().find(is_known) {
                    _ if least == most => {}
                    Some(known) => known.axes.push([input, axis]),
                    None => free.push(Free {
                        least,
                        most,
                        axes: vec![[input, axis]],
                    }),
                }
            }
        }
        let own = Extents {
            usual: of_dims(&free, usual)?,
            free,
        };
        own.check().ok()?;
        let is_next = |(number, dims): (usize, &Vec<Vec<usize>>)| {
            of_dims(&own.free, dims).is_some_and(|extents| extents == own.at(number))
        };
        let is_all = others.len() == own.n_shapes() && others.iter().enumerate().all(is_next);
        is_all.then_some(own)
    }

    /// Checks that shapes can be counted, and inputs have the axes.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check_for(&self, profile: &Profile) -> Result<(), String> {
        self.check()?;
        let dims: Vec<Vec<usize>> = profile.inputs.iter().map(|input| input.dims.clone()).collect();
        if of_dims(&self.free, &dims).as_ref() == Some(&self.usual) {
            Ok(())
        } else {
            Err("the usual shape is not that of the first profile".to_owned())
        }
    }

    fn check(&self) -> Result<(), String> {
        if self.free.len() != self.usual.len() {
            return Err(format!("{} extents of {}", self.usual.len(), self.free.len()));
        }
        for (own, usual) in self.free.iter().zip(&self.usual) {
            if !(own.least..=own.most).contains(usual) || own.axes.is_empty() {
                return Err(format!("{usual} of {} to {}", own.least, own.most));
            }
        }
        let mut counts = self.free.iter().map(Free::count);
        let n_all = counts.try_fold(1, usize::checked_mul);
        match n_all {
            Some(2..=MAX_SHAPES) => Ok(()),
            _ => Err(format!("not 2 to {MAX_SHAPES} shapes")),
        }
    }

    /// Shapes beside the usual one.
    pub fn n_shapes(&self) -> usize {
        self.free
            .iter()
            .map(Free::count)
            .product::<usize>()
            .saturating_sub(1)
    }

    /// The extents of a shape.
    pub fn at(&self, number: usize) -> Vec<usize> {
        let mut rank = number + usize::from(number >= self.rank(&self.usual));
        let mut extents = vec![0; self.free.len()];
        for (own, extent) in self.free.iter().zip(&mut extents).rev() {
            *extent = own.least + rank % own.count();
            rank /= own.count();
        }
        extents
    }

    fn rank(&self, extents: &[usize]) -> usize {
        let pairs = self.free.iter().zip(extents);
        pairs.fold(0, |rank, (own, extent)| rank * own.count() + (extent - own.least))
    }

    /// The number of the shape of these inputs; none where it is outside the range, or the usual one.
    pub fn number_for(&self, inputs: &[TensorType]) -> Option<usize> {
        let dims: Vec<Vec<usize>> = inputs.iter().map(TensorType::dims).collect();
        let extents = of_dims(&self.free, &dims)?;
        let mut pairs = self.free.iter().zip(&extents);
        if !pairs.all(|(own, extent)| (own.least..=own.most).contains(extent)) || extents == self.usual {
            return None;
        }
        let rank = self.rank(&extents);
        Some(rank - usize::from(rank > self.rank(&self.usual)))
    }

    /// Whether `ty` is the type of an input in some shape, where the usual one is `usual`.
    pub fn fits(&self, input: usize, usual: &Binding, ty: &TensorType) -> bool {
        let dims = ty.dims();
        let within = |(axis, &extent): (usize, &usize)| {
            let mut free = self.free.iter();
            let own = free.find(|own| own.axes.contains(&[input, axis]));
            own.map_or(usual.dims.get(axis) == Some(&extent), |own| {
                (own.least..=own.most).contains(&extent)
            })
        };
        ty.dtype == usual.dtype && dims.len() == usual.dims.len() && dims.iter().enumerate().all(within)
    }

    /// The types of an input in the whole range, where the usual one is `usual`: `i64[1 to 4,1 to 128]`.
    pub fn spanned(&self, input: usize, usual: &Binding) -> String {
        let mut dims: Vec<String> = usual.dims.iter().map(ToString::to_string).collect();
        for own in &self.free {
            for &[_, axis] in own.axes.iter().filter(|[position, _]| *position == input) {
                if let Some(dim) = dims.get_mut(axis) {
                    *dim = format!("{} to {}", own.least, own.most);
                }
            }
        }
        format!("{}[{}]", usual.dtype.name(), dims.join(","))
    }
}

/// The extents of inputs with these dims; none where axes are missing, or differ that are always the same.
fn of_dims(free: &[Free], dims: &[Vec<usize>]) -> Option<Vec<usize>> {
    let extent = |own: &Free| {
        let mut extents = own
            .axes
            .iter()
            .map(|&[input, axis]| dims.get(input)?.get(axis).copied());
        let first = extents.next()??;
        extents.all(|other| other == Some(first)).then_some(first)
    };
    free.iter().map(extent).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::DType;

    fn shapes() -> Vec<Vec<Vec<usize>>> {
        let shape = |batch: usize, length: usize| vec![vec![batch, 3, length], vec![length]];
        let all = (1..=2).flat_map(|batch| (4..=6).map(move |length| (batch, length)));
        let others = all.filter(|&own| own != (1, 5));
        std::iter::once((1, 5))
            .chain(others)
            .map(|(batch, length)| shape(batch, length))
            .collect()
    }

    #[test]
    fn every_shape_has_its_number() {
        let extents = Extents::of(&shapes()).unwrap();
        assert_eq!(extents.free.len(), 2);
        assert_eq!(extents.free[1].axes, [[0, 2], [1, 0]]);
        assert_eq!((extents.usual.as_slice(), extents.n_shapes()), (&[1, 5][..], 5));
        assert_eq!(extents.at(1), [1, 6]);
        let types = |dims: &[Vec<usize>]| -> Vec<TensorType> {
            dims.iter()
                .map(|dims| TensorType::new(DType::F32, dims))
                .collect()
        };
        for (number, dims) in shapes()[1..].iter().enumerate() {
            assert_eq!(extents.number_for(&types(dims)), Some(number));
        }
        let outside: [[Vec<usize>; 2]; 5] = [
            [vec![1, 3, 5], vec![5]],
            [vec![1, 3, 4], vec![5]],
            [vec![1, 3, 7], vec![7]],
            [vec![0, 3, 4], vec![4]],
            [vec![1, 3], vec![4]],
        ];
        for dims in outside {
            assert_eq!(extents.number_for(&types(&dims)), None, "{dims:?}");
        }
        let usual = Binding {
            name: "x".to_owned(),
            dtype: DType::F32,
            dims: vec![1, 3, 5],
        };
        assert_eq!(extents.spanned(0, &usual), "f32[1 to 2,3,4 to 6]");
    }

    #[test]
    fn shapes_that_are_no_range_have_none() {
        assert_eq!(Extents::of(&shapes()[..5]), None);
        assert_eq!(Extents::of(&shapes()[..1]), None);
        let mut turned = shapes();
        turned.swap(1, 2);
        assert_eq!(Extents::of(&turned), None);
        let mut ragged = shapes();
        ragged[3][1].clear();
        assert_eq!(Extents::of(&ragged), None);
    }

    #[test]
    fn ranges_that_cannot_be_counted_are_refused() {
        let refused = |change: fn(&mut Extents)| {
            let mut extents = Extents::of(&shapes()).unwrap();
            change(&mut extents);
            extents.check().unwrap_err()
        };
        refused(|extents| extents.usual[0] = 3);
        refused(|extents| extents.usual.clear());
        refused(|extents| extents.free[0].least = 9);
        refused(|extents| extents.free[0].most = usize::MAX);
        refused(|extents| extents.free[0].most = 30_000);
        refused(|extents| extents.free[1].axes.clear());
    }
}
