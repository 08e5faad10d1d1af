//! Weights that four bits hold, with a scale for each group of neighbours along the terms of a product.
//!
//! Constants are folded before regions are cut, so that such weights arrive as floats. They are found by what they
//! hold: in every group, whole multiples of one number. A weight is packed only where unpacking gives every
//! element back.

use crate::ir::{Attr, Attrs, DType, HostTensor};
use crate::ops::Datum;
use crate::ops::evaluate::{from_values, to_vec};
use crate::ops::groups::{DEQUANTIZE_GROUPS, EXCESS, PER_BYTE};
use crate::reference::eval_node;

/// Terms of a group are a whole number of these: what kernels read at once, at least.
const LEAST_GROUP: usize = 8;
/// A weight that uses fewer steps on one side of zero is no quantised one, but a mask, a permutation or the like.
const LEAST_STEPS: i64 = 6;
/// Groups by which a weight is told to be one at first.
const PROBES: usize = 32;
/// The range of four bits.
const NUMBERS: std::ops::RangeInclusive<i64> = -EXCESS..=EXCESS - 1;

/// A matrix in four bits: columns of packed terms, and the scales of their groups.
#[derive(Clone, Debug, PartialEq)]
pub struct Packed {
    pub bytes: HostTensor,
    pub scales: HostTensor,
}

/// `data`, whose last two axes are terms and columns, in four bits, if it holds nothing else.
pub fn packed(data: &HostTensor) -> Option<Packed> {
    if !matches!(data.dtype(), DType::F32 | DType::F16 | DType::BF16) {
        return None;
    }
    let [outer @ .., terms, columns] = data.dims() else {
        return None;
    };
    let (terms, columns) = (*terms, *columns);
    if data.n_elements() == 0 || !terms.is_multiple_of(LEAST_GROUP) {
        return None;
    }
    let values: Vec<f64> = to_vec(data);
    let matrices = Matrices {
        values: &values,
        terms,
        columns,
        kind: data.dtype(),
    };
    let sizes = (1..=terms / LEAST_GROUP).rev().map(|count| count * LEAST_GROUP);
    let (size, groups) = sizes
        .filter(|&size| terms.is_multiple_of(size))
        .find_map(|size| Some((size, matrices.groups(size)?)))?;
    if !uses_steps(&groups) {
        return None;
    }
    let dims = |last: usize| [outer, &[columns, last]].concat();
    let bytes: Vec<i64> = groups
        .iter()
        .flat_map(|group| group.numbers.chunks_exact(PER_BYTE))
        .map(|pair| (pair[0] + EXCESS) | (pair[1] + EXCESS) << 4)
        .collect();
    let bytes = from_values(DType::U8, &dims(terms / PER_BYTE), &bytes);
    let scales: Vec<f64> = groups.iter().map(|group| group.scale).collect();
    [DType::F16, DType::F32].into_iter().find_map(|kind| {
        let scales = from_values(kind, &dims(terms / size), &scales);
        let packed = Packed {
            bytes: bytes.clone(),
            scales,
        };
        matrices.are(&packed).then_some(packed)
    })
}

/// Whether a matrix begins with numbers of four bits with scales, along its rows or its columns.
pub fn begins_with_groups(data: &HostTensor) -> bool {
    let [.., rows, columns] = *data.dims() else {
        return false;
    };
    are_groups(data, (rows, columns), (columns, 1)) || are_groups(data, (columns, 1), (rows, columns))
}

/// As [`begins_with_groups`], for groups along the last axis but one.
pub fn may_be_packed(data: &HostTensor) -> bool {
    let [.., terms, columns] = *data.dims() else {
        return false;
    };
    are_groups(data, (terms, columns), (columns, 1))
}

/// Whether the first terms of the first columns are groups; an axis is its extent and the distance of its elements.
fn are_groups(
    data: &HostTensor,
    (terms, term_step): (usize, usize),
    (columns, column_step): (usize, usize),
) -> bool {
    let kind = data.dtype();
    let is_float = matches!(kind, DType::F32 | DType::F16 | DType::BF16);
    if !is_float || !terms.is_multiple_of(LEAST_GROUP) || data.n_elements() == 0 {
        return false;
    }
    let size = kind.size_bytes();
    let places = (0..columns.min(PROBES))
        .flat_map(|column| (0..LEAST_GROUP).map(move |term| term * term_step + column * column_step));
    let bytes: Vec<u8> = places
        .flat_map(|place| &data.bytes()[place * size..(place + 1) * size])
        .copied()
        .collect();
    let Some(first) = HostTensor::from_bytes(kind, &[bytes.len() / size], &bytes) else {
        return false;
    };
    let groups: Option<Vec<Group>> = to_vec::<f64>(&first)
        .chunks_exact(LEAST_GROUP)
        .map(|values| group_of(values, kind))
        .collect();
    groups.is_some_and(|groups| uses_steps(&groups))
}

fn uses_steps(groups: &[Group]) -> bool {
    let numbers = groups.iter().flat_map(|group| &group.numbers);
    numbers.map(|number| number.abs()).max() >= Some(LEAST_STEPS)
}

/// Neighbours with one scale.
struct Group {
    numbers: Vec<i64>,
    scale: f64,
}

/// Matrices one after the other.
struct Matrices<'a> {
    values: &'a [f64],
    terms: usize,
    columns: usize,
    kind: DType,
}

impl Matrices<'_> {
    /// All groups of `size`, columns one after the other; `None` as soon as one is no group.
    fn groups(&self, size: usize) -> Option<Vec<Group>> {
        let matrices = self.values.chunks_exact(self.terms * self.columns);
        let starts = matrices.flat_map(|matrix| {
            (0..self.columns)
                .flat_map(move |column| (0..self.terms / size).map(move |group| (matrix, column, group)))
        });
        let mut values = vec![0.0; size];
        starts
            .map(|(matrix, column, group)| {
                for (term, value) in (group * size..).zip(&mut values) {
                    *value = matrix[term * self.columns + column];
                }
                group_of(&values, self.kind)
            })
            .collect()
    }

    /// Whether `packed` is these matrices.
    fn are(&self, packed: &Packed) -> bool {
        let attrs = Attrs::new().with("to", Attr::DType(self.kind));
        let operands = [&packed.bytes, &packed.scales].map(|data| Some(Datum::Tensor(data.clone())));
        let Ok(results) = eval_node(&DEQUANTIZE_GROUPS, &attrs, &operands, 1) else {
            return false;
        };
        let Ok(found) = results[0].tensor() else {
            return false;
        };
        let found: Vec<f64> = to_vec(found);
        let matrices = self.values.chunks_exact(self.terms * self.columns);
        let turned = found.chunks_exact(self.terms * self.columns);
        matrices.zip(turned).all(|(matrix, turned)| {
            turned.chunks_exact(self.terms).enumerate().all(|(column, own)| {
                own.iter()
                    .enumerate()
                    .all(|(term, value)| is_same(matrix[term * self.columns + column], *value))
            })
        })
    }
}

/// Whether two finite numbers are equal: a product that is zero has a sign that no sum keeps.
#[expect(clippy::float_cmp, reason = "nothing may be lost")]
fn is_same(a: f64, b: f64) -> bool {
    a == b
}

/// `values` of kind `kind` as numbers and the scale whose multiples they are, rounded.
fn group_of(values: &[f64], kind: DType) -> Option<Group> {
    let largest = values
        .iter()
        .fold(0.0_f64, |largest, value| largest.max(value.abs()));
    if !largest.is_finite() {
        return None;
    }
    if largest == 0.0 {
        return Some(Group {
            numbers: vec![0; values.len()],
            scale: 0.0,
        });
    }
    (1..=EXCESS).find_map(|steps| multiples(values, largest, steps, kind))
}

/// The group whose largest size is `steps` steps.
fn multiples(values: &[f64], largest: f64, steps: i64, kind: DType) -> Option<Group> {
    #[expect(clippy::cast_precision_loss, reason = "few steps")]
    let about = largest / steps as f64;
    // Every element bounds the scale: rounding moved it by half a unit in its last place at most.
    let (mut low, mut high) = (0.0_f64, f64::INFINITY);
    let mut numbers = Vec::with_capacity(values.len());
    for &value in values {
        #[expect(clippy::cast_possible_truncation, reason = "a ratio of at most eight")]
        let number = (value / about).round() as i64;
        if (number == 0) != (value == 0.0) {
            return None;
        }
        numbers.push(number);
        if number != 0 {
            #[expect(clippy::cast_precision_loss, reason = "few steps")]
            let size = number.abs() as f64;
            let half = half_unit(value, kind);
            low = low.max((value.abs() - half) / size);
            high = high.min((value.abs() + half) / size);
        }
        if low > high {
            return None;
        }
    }
    let scale = f64::midpoint(low, high);
    // The eighth step is on one side of zero: with a negative scale, on the other.
    [1, -1].into_iter().find_map(|sign| {
        let numbers: Vec<i64> = numbers.iter().map(|number| sign * number).collect();
        let fits = numbers.iter().all(|number| NUMBERS.contains(number));
        #[expect(clippy::cast_precision_loss, reason = "a sign")]
        let scale = scale * sign as f64;
        fits.then_some(Group { numbers, scale })
    })
}

/// Half of the distance between neighbouring numbers of `kind` at `value`.
fn half_unit(value: f64, kind: DType) -> f64 {
    let (digits, least) = match kind {
        DType::F16 => (10, -14),
        DType::BF16 => (7, -126),
        _ => (23, -126),
    };
    // Narrow kinds were rounded to `f32` before.
    let twice = if kind == DType::F32 { 1.0 } else { 1.001 };
    let exponent = value.abs().log2().floor().max(f64::from(least));
    (exponent - f64::from(digits + 1)).exp2() * twice
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers times scales, terms by columns, rounded to `kind`.
    fn weight(kind: DType, [terms, columns, group]: [usize; 3], scale: impl Fn(usize) -> f64) -> HostTensor {
        let value = |position: usize| {
            let (term, column) = (position / columns, position % columns);
            let number = (term * 7 + column * 5 + term / 3) % 16;
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let number = number as f64 - 8.0;
            let products = number * scale(term / group * columns + column);
            if products == 0.0 { 0.0 } else { products }
        };
        let values: Vec<f64> = (0..terms * columns).map(value).collect();
        let products = from_values(DType::F32, &[terms, columns], &values);
        from_values(kind, &[terms, columns], &to_vec::<f64>(&products))
    }

    /// Scales that `f32` holds, and nothing smaller.
    fn scale(number: usize) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let odd = (number * 2 + 1) as f32;
        f64::from(0.003_712_345_f32 * odd)
    }

    #[test]
    fn groups_are_found_in_every_float() {
        for kind in [DType::F32, DType::F16, DType::BF16] {
            for group in [32, 64, 128] {
                let packed = packed(&weight(kind, [128, 6, group], scale)).unwrap();
                assert_eq!(packed.bytes.dims(), [6, 64]);
                assert_eq!(packed.scales.dims(), [6, 128 / group], "{kind} {group}");
            }
        }
    }

    #[test]
    fn scales_are_halves_where_these_hold_them() {
        let halves = |number: usize| {
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let odd = (number % 32 + 1) as f64;
            odd / 512.0
        };
        let packed_halves = packed(&weight(DType::F32, [64, 8, 32], halves)).unwrap();
        assert_eq!(packed_halves.scales.dtype(), DType::F16);
        let packed_floats = packed(&weight(DType::F32, [64, 8, 32], scale)).unwrap();
        assert_eq!(packed_floats.scales.dtype(), DType::F32);
    }

    #[test]
    fn the_eighth_step_may_be_positive() {
        let negative = |number: usize| {
            if number.is_multiple_of(2) {
                -scale(number)
            } else {
                scale(number)
            }
        };
        for kind in [DType::F32, DType::F16] {
            let packed = packed(&weight(kind, [64, 6, 32], negative)).unwrap();
            assert_eq!(packed.scales.dims(), [6, 2]);
        }
    }

    #[test]
    fn other_weights_stay() {
        let mut values: Vec<f64> = to_vec(&weight(DType::F32, [64, 4, 32], scale));
        values[77] *= 1.0 + 1e-6;
        assert_eq!(packed(&from_values(DType::F32, &[64, 4], &values)), None);
        let mask: Vec<f64> = (0..256).map(|n| f64::from(n % 3 == 0)).collect();
        assert_eq!(packed(&from_values(DType::F32, &[64, 4], &mask)), None);
        let odd = weight(DType::F32, [36, 4, 36], scale);
        assert_eq!(packed(&odd), None);
    }
}
