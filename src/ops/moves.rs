//! How the reference moves elements: strided copies and copies of whole blocks. Nothing here
//! looks at values, so one body serves every kind of the same size.

use bytemuck::Pod;
use rayon::prelude::*;

use crate::ir::HostTensor;

/// Elements one task writes.
const CHUNK: usize = 1 << 14;

/// Calls `$body` with `$kind` an unsigned integer as large as an element of `$dtype`.
macro_rules! with_element {
    ($dtype:expr, $kind:ident, $body:expr) => {
        match $dtype.size_bytes() {
            1 => {
                type $kind = u8;
                $body
            }
            2 => {
                type $kind = u16;
                $body
            }
            4 => {
                type $kind = u32;
                $body
            }
            _ => {
                type $kind = u64;
                $body
            }
        }
    };
}

/// Row-major strides of `dims`, in elements.
pub fn strides(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    for axis in (1..dims.len()).rev() {
        strides[axis - 1] = strides[axis] * dims[axis];
    }
    strides
}

/// Where the elements of a result lie in its operand.
pub struct Strided {
    /// Extents of the result.
    pub dims: Vec<usize>,
    /// Elements the operand moves by per step of each axis.
    pub strides: Vec<isize>,
    /// Operand element of the result's first element.
    pub offset: usize,
}

/// The result that `layout` picks from `x`.
///
/// # Panics
/// If `layout` leaves `x`.
pub fn strided(x: &HostTensor, layout: &Strided) -> HostTensor {
    let mut output = HostTensor::zeros(x.dtype(), &layout.dims);
    if output.n_elements() > 0 {
        with_element!(
            x.dtype(),
            Element,
            copy_strided(x.as_slice::<Element>(), output.as_mut_slice::<Element>(), layout)
        );
    }
    output
}

fn copy_strided<T: Pod + Send + Sync>(from: &[T], to: &mut [T], layout: &Strided) {
    let axes = merged_axes(layout);
    let (&(run, step), outer) = axes.split_last().expect("merged_axes() yields at least one axis");
    let rows_per_task = (CHUNK / run).max(1);
    to.par_chunks_mut(run * rows_per_task)
        .enumerate()
        .for_each(|(task, chunk)| {
            for (position, row) in chunk.chunks_mut(run).enumerate() {
                let base = row_base(task * rows_per_task + position, outer, layout.offset);
                copy_row(from, base, step, row);
            }
        });
}

fn copy_row<T: Pod>(from: &[T], base: usize, step: isize, row: &mut [T]) {
    match step {
        0 => row.fill(from[base]),
        1 => row.copy_from_slice(&from[base..base + row.len()]),
        _ => {
            let mut position = base;
            for to in row {
                *to = from[position];
                position = position.wrapping_add_signed(step);
            }
        }
    }
}

fn row_base(mut row: usize, outer: &[(usize, isize)], offset: usize) -> usize {
    let mut base = offset;
    for &(extent, stride) in outer.iter().rev() {
        let steps = isize::try_from(row % extent).expect("extents fit in isize");
        base = base.wrapping_add_signed(steps * stride);
        row /= extent;
    }
    base
}

/// (extent, stride) of the axes, without extents of one and with consecutive axes joined.
fn merged_axes(layout: &Strided) -> Vec<(usize, isize)> {
    let mut axes: Vec<(usize, isize)> = Vec::new();
    for (&extent, &stride) in layout.dims.iter().zip(&layout.strides) {
        if extent == 1 {
            continue;
        }
        let reach = stride * isize::try_from(extent).expect("extents fit in isize");
        match axes.last_mut() {
            Some(last) if last.1 == reach => *last = (last.0 * extent, stride),
            _ => axes.push((extent, stride)),
        }
    }
    if axes.is_empty() {
        axes.push((1, 1));
    }
    axes
}

/// Fills a tensor of dims `dims` block by block: block number `n` of `block` elements is
/// block number `pick(n)` of `x`, or `fill` (one element) where that is `None`.
///
/// # Panics
/// If `pick` leaves `x`.
pub fn blocks(
    x: &HostTensor,
    dims: &[usize],
    block: usize,
    pick: impl Fn(usize) -> Option<usize> + Sync,
    fill: Option<&HostTensor>,
) -> HostTensor {
    let mut output = HostTensor::zeros(x.dtype(), dims);
    if output.n_elements() > 0 {
        with_element!(x.dtype(), Element, {
            let fill = fill.map_or(0, |fill| fill.as_slice::<Element>()[0]);
            let from = x.as_slice::<Element>();
            copy_blocks(from, output.as_mut_slice(), block, &pick, fill);
        });
    }
    output
}

fn copy_blocks<T: Pod + Send + Sync>(
    from: &[T],
    to: &mut [T],
    block: usize,
    pick: &(impl Fn(usize) -> Option<usize> + Sync),
    fill: T,
) {
    let per_task = (CHUNK / block).max(1);
    to.par_chunks_mut(block * per_task)
        .enumerate()
        .for_each(|(task, chunk)| {
            for (position, row) in chunk.chunks_mut(block).enumerate() {
                match pick(task * per_task + position) {
                    Some(source) => row.copy_from_slice(&from[source * block..(source + 1) * block]),
                    None => row.fill(fill),
                }
            }
        });
}

/// Joins tensors that differ in the extent of `axis` alone.
///
/// # Panics
/// If they differ elsewhere.
pub fn concat(tensors: &[&HostTensor], dims: &[usize], axis: usize) -> HostTensor {
    let mut output = HostTensor::zeros(tensors[0].dtype(), dims);
    let size = output.dtype().size_bytes();
    let inner: usize = dims[axis + 1..].iter().product::<usize>() * size;
    let row = dims[axis] * inner;
    if output.n_bytes() == 0 {
        return output;
    }
    output
        .bytes_mut()
        .par_chunks_mut(row)
        .enumerate()
        .for_each(|(outer, row)| {
            let mut offset = 0;
            for tensor in tensors {
                let count = tensor.dims()[axis] * inner;
                let from = &tensor.bytes()[outer * count..(outer + 1) * count];
                row[offset..offset + count].copy_from_slice(from);
                offset += count;
            }
        });
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strides_may_be_negative_or_zero() {
        let x = HostTensor::from_i64(&[2, 3], &[1, 2, 3, 4, 5, 6]);
        let layout = Strided {
            dims: vec![3, 2, 2],
            strides: vec![-1, 3, 0],
            offset: 2,
        };
        let expected = [3, 3, 6, 6, 2, 2, 5, 5, 1, 1, 4, 4];
        assert_eq!(strided(&x, &layout).as_slice::<i64>(), expected);
    }

    #[test]
    fn rows_of_many_tasks_join() {
        let n = 3 * CHUNK + 7;
        let values: Vec<i64> = (0..).take(2 * n).collect();
        let x = HostTensor::from_i64(&[2, n], &values);
        let layout = Strided {
            dims: vec![n, 2],
            strides: vec![1, isize::try_from(n).unwrap()],
            offset: 0,
        };
        let turned = strided(&x, &layout);
        let expected: Vec<i64> = (0..n)
            .flat_map(|column| [values[column], values[n + column]])
            .collect();
        assert_eq!(turned.as_slice::<i64>(), expected);
    }

    #[test]
    fn blocks_without_a_source_are_filled() {
        let x = HostTensor::from_i64(&[2, 2], &[1, 2, 3, 4]);
        let nine = HostTensor::from_i64(&[], &[9]);
        let picked = blocks(&x, &[3, 2], 2, |n| [Some(1), None, Some(0)][n], Some(&nine));
        assert_eq!(picked.as_slice::<i64>(), [3, 4, 9, 9, 1, 2]);
    }
}
