//! The reference of convolutions: columns of input cells times filters.

use rayon::prelude::*;

use super::conv_shape::{ConvShape, group, transpose_dims};
use super::evaluate::{Number, from_values, one, to_vec};
use super::lanes::permuted;
use super::product::{Element, Matrix, Threads, product};
use super::window::Window;
use super::{Datum, EvalCtx, OpError, infer};
use crate::ir::{DType, HostTensor};

/// `conv`.
pub fn conv(ctx: &EvalCtx<'_>) -> Result<Vec<Datum>, OpError> {
    let (x, w, bias) = (ctx.tensor(0)?, ctx.tensor(1)?, ctx.optional_tensor(2)?);
    let shape = ConvShape::new(x.dims(), w.dims(), ctx.attrs, false)?;
    one(if in_f32(x.dtype()) {
        run::<f32>(x.dtype(), &shape, &to_vec(x), &to_vec(w), bias)
    } else {
        run::<f64>(x.dtype(), &shape, &to_vec(x), &to_vec(w), bias)
    })
}

/// `conv_nhwc`, by way of the other order of axes.
pub fn conv_nhwc(ctx: &EvalCtx<'_>) -> Result<Vec<Datum>, OpError> {
    let (x, w, bias) = (ctx.tensor(0)?, ctx.tensor(1)?, ctx.optional_tensor(2)?);
    let shape = ConvShape::new(x.dims(), w.dims(), ctx.attrs, true)?;
    one(if in_f32(x.dtype()) {
        run_nhwc::<f32>(&shape, x, w, bias)
    } else {
        run_nhwc::<f64>(&shape, x, w, bias)
    })
}

/// Integers are computed in `f64`, which holds every product of 32-bit kinds that occurs.
fn in_f32(dtype: DType) -> bool {
    dtype.is_float() && dtype != DType::F64
}

fn run_nhwc<T: Element + Number>(
    shape: &ConvShape,
    x: &HostTensor,
    w: &HostTensor,
    bias: Option<&HostTensor>,
) -> HostTensor {
    let to_first = |tensor: &HostTensor| permuted(&to_vec::<T>(tensor), tensor.dims(), &[0, 3, 1, 2]);
    let result = run(x.dtype(), shape, &to_first(x), &to_first(w), bias);
    let values = permuted(&to_vec::<T>(&result), result.dims(), &[0, 2, 3, 1]);
    from_values(x.dtype(), &shape.dims(true), &values)
}

/// Channels-first convolution of `x` and `w`.
fn run<T: Element + Number>(
    dtype: DType,
    shape: &ConvShape,
    x: &[T],
    w: &[T],
    bias: Option<&HostTensor>,
) -> HostTensor {
    let (filters, channels) = (shape.filters / shape.group, shape.channels / shape.group);
    let n_output: usize = shape.output.iter().product();
    let n_input: usize = shape.input.iter().product();
    let k = channels * shape.window.kernel.iter().product::<usize>();
    let mut y = vec![T::default(); shape.batch * shape.filters * n_output];
    let whole = if shape.batch * shape.group == 1 {
        Threads::All
    } else {
        Threads::One
    };
    let work = |(number, into): (usize, &mut [T])| {
        let (filters_from, x) = (
            number % shape.group * filters,
            &x[number * channels * n_input..][..channels * n_input],
        );
        let w = Matrix::dense(&w[filters_from * k..][..filters * k], k);
        if is_pointwise(&shape.window) {
            product(w, Matrix::dense(x, n_output), n_output, k, into, whole);
        } else {
            let columns = columns(&shape.window, x, &shape.input, &shape.output);
            product(w, Matrix::dense(&columns, n_output), n_output, k, into, whole);
        }
    };
    if !y.is_empty() {
        let size = filters * n_output;
        match whole {
            Threads::All => y.chunks_mut(size).enumerate().for_each(work),
            Threads::One => y.par_chunks_mut(size).enumerate().for_each(work),
        }
        if let Some(bias) = bias {
            add_bias(&mut y, &to_vec::<T>(bias), n_output, |a, b| T::sum(a, b));
        }
    }
    from_values(dtype, &shape.dims(false), &y)
}

/// Whether the columns would be the input itself.
fn is_pointwise(window: &Window) -> bool {
    let all = |values: &[usize], wanted: usize| values.iter().all(|&value| value == wanted);
    all(&window.kernel, 1)
        && all(&window.strides, 1)
        && all(&window.pads_begin, 0)
        && all(&window.pads_end, 0)
}

/// One row per channel and cell of the window, one column per window.
fn columns<T: Element>(window: &Window, x: &[T], input: &[usize], output: &[usize]) -> Vec<T> {
    let n_cells: usize = window.kernel.iter().product();
    let (n_input, n_output) = (input.iter().product::<usize>(), output.iter().product::<usize>());
    let mut columns = vec![T::default(); x.len() / n_input.max(1) * n_cells * n_output];
    if columns.is_empty() {
        return columns;
    }
    columns
        .par_chunks_mut(n_output)
        .enumerate()
        .for_each(|(row, into)| {
            let cells = coordinates(row % n_cells, &window.kernel);
            let x = &x[row / n_cells * n_input..][..n_input];
            fill_row(window, x, input, output, &cells, into);
        });
    columns
}

/// The inputs that cell `cells` sees over all windows; zero outside.
fn fill_row<T: Element>(
    window: &Window,
    x: &[T],
    input: &[usize],
    output: &[usize],
    cells: &[usize],
    into: &mut [T],
) {
    let Some(last) = output.len().checked_sub(1) else {
        into.copy_from_slice(x);
        return;
    };
    for (line, into) in into.chunks_mut(output[last]).enumerate() {
        let Some(start) = line_start(window, line, input, output, cells) else {
            continue;
        };
        let x = &x[start..start + input[last]];
        for (place, value) in into.iter_mut().enumerate() {
            if let Some(position) = window.position(last, place, cells[last])
                && let Some(&seen) = x.get(position)
            {
                *value = seen;
            }
        }
    }
}

/// Where the input line that output line `line` sees begins; `None` if it is outside.
fn line_start(
    window: &Window,
    line: usize,
    input: &[usize],
    output: &[usize],
    cells: &[usize],
) -> Option<usize> {
    let last = output.len() - 1;
    let mut start = 0;
    for (axis, place) in coordinates(line, &output[..last]).into_iter().enumerate() {
        let position = window.position(axis, place, cells[axis])?;
        if position >= input[axis] {
            return None;
        }
        start = start * input[axis] + position;
    }
    Some(start * input[last])
}

fn coordinates(mut position: usize, dims: &[usize]) -> Vec<usize> {
    let mut coordinates = vec![0; dims.len()];
    for (place, &extent) in coordinates.iter_mut().zip(dims).rev() {
        *place = position % extent;
        position /= extent;
    }
    coordinates
}

fn add_bias<T: Copy + Send + Sync>(y: &mut [T], bias: &[T], n_output: usize, add: impl Fn(T, T) -> T + Sync) {
    y.par_chunks_mut(n_output)
        .enumerate()
        .for_each(|(number, values)| {
            let bias = bias[number % bias.len()];
            for value in values {
                *value = add(*value, bias);
            }
        });
}

/// `conv_transpose`: every input cell adds its filter to the result.
pub fn conv_transpose(ctx: &EvalCtx<'_>) -> Result<Vec<Datum>, OpError> {
    let (x, w, bias) = (ctx.tensor(0)?, ctx.tensor(1)?, ctx.optional_tensor(2)?);
    let dims = transpose_dims(x.dims(), w.dims(), ctx.attrs)?;
    one(if in_f32(x.dtype()) {
        run_transpose::<f32>(ctx, x, w, bias, &dims)?
    } else {
        run_transpose::<f64>(ctx, x, w, bias, &dims)?
    })
}

fn run_transpose<T: Element + Number>(
    ctx: &EvalCtx<'_>,
    x: &HostTensor,
    w: &HostTensor,
    bias: Option<&HostTensor>,
    dims: &[usize],
) -> Result<HostTensor, OpError> {
    let group = group(ctx.attrs)?;
    let scatter = Scatter {
        kernel: &w.dims()[2..],
        input: &x.dims()[2..],
        output: &dims[2..],
        strides: infer::ints(ctx.attrs, "strides")?,
        dilations: infer::ints(ctx.attrs, "dilations")?,
        pads: infer::ints(ctx.attrs, "pads")?,
    };
    let (channels, filters) = (x.dims()[1] / group, w.dims()[1]);
    let n_input: usize = scatter.input.iter().product();
    let n_output: usize = scatter.output.iter().product();
    let rows = filters * scatter.kernel.iter().product::<usize>();
    let (x, w) = (to_vec::<T>(x), to_vec::<T>(w));
    let mut y = vec![T::default(); dims.iter().product()];
    if !y.is_empty() {
        y.par_chunks_mut(filters * n_output)
            .enumerate()
            .for_each(|(number, into)| {
                let x = Matrix::dense(&x[number * channels * n_input..][..channels * n_input], n_input);
                let w = Matrix::transposed(&w[number % group * channels * rows..][..channels * rows], rows);
                let mut columns = vec![T::default(); rows * n_input];
                product(w, x, n_input, channels, &mut columns, Threads::One);
                scatter.add(&columns, into);
            });
        if let Some(bias) = bias {
            add_bias(&mut y, &to_vec::<T>(bias), n_output, |a, b| T::sum(a, b));
        }
    }
    Ok(from_values(ctx.tensor(0)?.dtype(), dims, &y))
}

/// Where the products of a transposed convolution go.
struct Scatter<'a> {
    kernel: &'a [usize],
    input: &'a [usize],
    output: &'a [usize],
    strides: &'a [i64],
    dilations: &'a [i64],
    pads: &'a [i64],
}

impl Scatter<'_> {
    /// Adds one row per filter and cell, one column per input position, to `into`.
    fn add<T: Element>(&self, columns: &[T], into: &mut [T]) {
        let n_cells: usize = self.kernel.iter().product();
        let (n_input, n_output) = (
            self.input.iter().product::<usize>(),
            self.output.iter().product::<usize>(),
        );
        if n_input == 0 {
            return;
        }
        let places: Vec<Vec<usize>> = (0..n_input).map(|place| coordinates(place, self.input)).collect();
        for (row, values) in columns.chunks(n_input).enumerate() {
            let into = &mut into[row / n_cells * n_output..][..n_output];
            let cells = coordinates(row % n_cells, self.kernel);
            for (place, &value) in places.iter().zip(values) {
                if let Some(position) = self.position(place, &cells) {
                    into[position] = T::sum(into[position], value);
                }
            }
        }
    }

    fn position(&self, place: &[usize], cells: &[usize]) -> Option<usize> {
        let signed = |value: usize| i64::try_from(value).expect("extents fit in i64");
        let mut position = 0;
        for axis in 0..place.len() {
            let along = signed(place[axis]) * self.strides[axis] + signed(cells[axis]) * self.dilations[axis]
                - self.pads[axis];
            let along = usize::try_from(along)
                .ok()
                .filter(|&along| along < self.output[axis])?;
            position = position * self.output[axis] + along;
        }
        Some(position)
    }
}
