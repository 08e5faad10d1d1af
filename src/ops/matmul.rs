//! The matrix product over the last two axes.

use std::borrow::Cow;

use rayon::prelude::*;

use super::evaluate::{Number, from_values, one, to_vec};
use super::product::{Element, Matrix, Threads, product};
use super::samples::{Draw, sample};
use super::{
    Datum, EvalCtx, InferCtx, Lowering, OpDef, OpError, Operands, Reach, Sample, TileKind, Tolerance, infer,
};
use crate::ir::{Attrs, DType, HostTensor, TensorType};
use crate::tile::{ExprId, Extent, Index, ReduceOp, TileCtx};

/// `a[.., m, k] * b[.., k, n]`; the axes before the last two broadcast.
pub static MATMUL: OpDef = OpDef {
    name: "matmul",
    onnx: &[],
    operands: Operands::exactly(&["a", "b"]),
    attrs: &[],
    infer: infer_matmul,
    eval: matmul,
    lower: Lowering::Tile(TileKind::Dot, tile_matmul),
    samples: draw,
    tolerance: Tolerance::Accumulated,
    halves: None,
    reach: Reach::Elements,
};

pub static OPS: &[&OpDef] = &[&MATMUL];

fn infer_matmul(ctx: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
    ctx.expect_operands(2..=2)?;
    let dtype = infer::same_dtype(ctx, 0, 1)?;
    infer::expect_kind(dtype, "numbers", |dtype| dtype != DType::Bool)?;
    let dims = result_dims(&ctx.dims(0)?, &ctx.dims(1)?)?;
    Ok(vec![TensorType::new(dtype, &dims)])
}

fn result_dims(a: &[usize], b: &[usize]) -> Result<Vec<usize>, OpError> {
    let ([a_batch @ .., m, k], [b_batch @ .., rows, n]) = (a, b) else {
        return Err(OpError::invalid(format!(
            "a matrix product needs two or more axes, found {a:?} and {b:?}"
        )));
    };
    if k != rows {
        return Err(OpError::invalid(format!(
            "{a:?} times {b:?}: {k} columns meet {rows} rows"
        )));
    }
    let mut dims = infer::broadcast(a_batch, b_batch)?;
    dims.extend([*m, *n]);
    Ok(dims)
}

/// The values of a tensor in `T`, without a copy where they are in that form.
pub fn values_f32(tensor: &HostTensor) -> Cow<'_, [f32]> {
    if tensor.dtype() == DType::F32 {
        Cow::Borrowed(tensor.as_slice())
    } else {
        Cow::Owned(to_vec(tensor))
    }
}

fn matmul(ctx: &EvalCtx<'_>) -> Result<Vec<Datum>, OpError> {
    let (a, b) = (ctx.tensor(0)?, ctx.tensor(1)?);
    let dims = result_dims(a.dims(), b.dims())?;
    let shape = Batched::new(a.dims(), b.dims(), &dims);
    let dtype = a.dtype();
    one(match dtype {
        DType::F64 => shape.result(dtype, &dims, &shape.fast(&to_vec::<f64>(a), &to_vec::<f64>(b))),
        _ if dtype.is_float() => shape.result(dtype, &dims, &shape.fast(&values_f32(a), &values_f32(b))),
        _ => shape.result(dtype, &dims, &shape.exact(&to_vec(a), &to_vec(b))),
    })
}

/// A product of many pairs of matrices.
struct Batched {
    m: usize,
    n: usize,
    k: usize,
    /// Numbers of the matrices of `a` and `b` for each matrix of the result.
    pairs: Vec<(usize, usize)>,
}

impl Batched {
    fn new(a: &[usize], b: &[usize], dims: &[usize]) -> Self {
        let (batch, matrix) = dims.split_at(dims.len() - 2);
        let numbers = |own: &[usize]| matrix_numbers(&own[..own.len() - 2], batch);
        Batched {
            m: matrix[0],
            n: matrix[1],
            k: a[a.len() - 1],
            pairs: numbers(a).into_iter().zip(numbers(b)).collect(),
        }
    }

    fn result<T: Number>(&self, dtype: DType, dims: &[usize], values: &[T]) -> HostTensor {
        debug_assert_eq!(values.len(), self.pairs.len() * self.m * self.n);
        from_values(dtype, dims, values)
    }

    fn fast<T: Element>(&self, a: &[T], b: &[T]) -> Vec<T> {
        let (m, n, k) = (self.m, self.n, self.k);
        let mut values = vec![T::default(); self.pairs.len() * m * n];
        if values.is_empty() {
            return values;
        }
        // One matrix after the other where each can occupy all threads.
        let threads = if self.pairs.len() < 4 {
            Threads::All
        } else {
            Threads::One
        };
        let work = |(into, &(left, right)): (&mut [T], &(usize, usize))| {
            let a = Matrix::dense(&a[left * m * k..(left + 1) * m * k], k);
            let b = Matrix::dense(&b[right * k * n..(right + 1) * k * n], n);
            product(a, b, n, k, into, threads);
        };
        match threads {
            Threads::All => values.chunks_mut(m * n).zip(&self.pairs).for_each(work),
            Threads::One => values.par_chunks_mut(m * n).zip(&self.pairs).for_each(work),
        }
        values
    }

    /// Integers wrap.
    fn exact(&self, a: &[i64], b: &[i64]) -> Vec<i64> {
        let (m, n, k) = (self.m, self.n, self.k);
        let mut values = vec![0i64; self.pairs.len() * m * n];
        if values.is_empty() {
            return values;
        }
        values.par_chunks_mut(n).enumerate().for_each(|(number, row)| {
            let (left, right) = self.pairs[number / m];
            let start = (left * m + number % m) * k;
            for (inner, &factor) in a[start..start + k].iter().enumerate() {
                let start = (right * k + inner) * n;
                for (sum, &value) in row.iter_mut().zip(&b[start..start + n]) {
                    *sum = sum.wrapping_add(factor.wrapping_mul(value));
                }
            }
        });
        values
    }
}

/// For each entry of `batch`, the number of the entry of `own` that broadcasts to it.
fn matrix_numbers(own: &[usize], batch: &[usize]) -> Vec<usize> {
    let skipped = batch.len() - own.len();
    let mut numbers = vec![0];
    for (axis, &extent) in batch.iter().enumerate() {
        let own_extent = axis.checked_sub(skipped).map_or(1, |axis| own[axis]);
        let step = usize::from(own_extent != 1);
        numbers = numbers
            .iter()
            .flat_map(|&number| (0..extent).map(move |position| number * own_extent + position * step))
            .collect();
    }
    numbers
}

fn tile_matmul(ctx: &mut TileCtx<'_, '_>) -> ExprId {
    let dtype = ctx.result.dtype;
    let k = ctx.operand(0).dims()[ctx.operand(0).rank() - 1];
    let (at, rank) = (ctx.at, ctx.at.len());
    ctx.reduce(ReduceOp::Sum, &[Extent::from(k)], dtype, |ctx, inner| {
        let mut left = batch_coordinates(ctx, 0);
        left.extend([at[rank - 2].clone(), inner[0].clone()]);
        let mut right = batch_coordinates(ctx, 1);
        right.extend([inner[0].clone(), at[rank - 1].clone()]);
        let (a, b) = (ctx.read(0, &left), ctx.read(1, &right));
        ctx.body.map("mul", &[a, b], dtype)
    })
}

/// Coordinates of operand `n` before its last two axes.
fn batch_coordinates(ctx: &TileCtx<'_, '_>, n: usize) -> Vec<Index> {
    let dims = ctx.operand(n).dims();
    let skipped = ctx.at.len() - dims.len();
    dims[..dims.len() - 2]
        .iter()
        .zip(&ctx.at[skipped..])
        .map(|(&extent, index)| if extent == 1 { Index::zero() } else { index.clone() })
        .collect()
}

fn draw(seed: u64) -> Option<Sample> {
    let mut draw = Draw::for_seed(seed)?;
    let dtype = super::samples::number_for(seed);
    let batch = match seed {
        0 => vec![],
        _ => draw.dims(0..=2),
    };
    let (m, n, k) = match seed {
        0 => (33, 65, 47),
        1 => (1, 40, 19),
        _ => (1 + draw.below(9), 1 + draw.below(9), 1 + draw.below(9)),
    };
    let (mut left, mut right) = (batch.clone(), draw.broadcast_from(&batch));
    left.extend([m, k]);
    right.extend([k, n]);
    let (a, b) = (draw.tensor(dtype, &left), draw.tensor(dtype, &right));
    sample(vec![a, b], Attrs::new())
}
