//! Matrix products and convolutions to run, with what comes before and after them.

#![allow(dead_code, unused_imports, reason = "each test crate uses a part of it")]

#[path = "products/convolutions.rs"]
mod convolutions;
#[path = "products/row_sums.rs"]
mod row_sums;
#[path = "products/skinny.rs"]
mod skinny;
#[path = "products/thin.rs"]
mod thin;
#[path = "products/tiled.rs"]
mod tiled;

pub use convolutions::{CONV, Conv, conv, convolutions, near_convolutions, tiled_convolutions};
pub use row_sums::{
    HandedOver, Statistics, handed_over, handed_over_of_models, handing_over, normalised, normalised_rows,
    scaled,
};
pub use skinny::{skinny, skinny_by_bytes, skinny_of_models};
pub use thin::{gated, thin, thin_and_wide, thin_of_models};
pub use tiled::{of_clusters, of_many_tiles, of_more_tiles_than_blocks, tiled};

use rtrt_codegen::ir::{DType, ValueId};
use rtrt_codegen::rewrite::RegionKind;

use crate::regions::{Build, Problem, cast, ints};

/// What happens to a sum.
#[derive(Clone, Copy, Debug)]
pub enum Epilogue {
    None,
    /// A bias per column and a residual of the whole size, then relu.
    BiasResidualRelu,
    /// A bias per column, then the exact form of gelu.
    BiasGelu,
    /// `x * sigmoid(x)`: the sum is used twice.
    Silu,
    /// A scale per row, in `f32`, and a cast back.
    RowScale,
    /// The last axis split into two and moved before the rows.
    Heads,
    /// Rows and columns exchanged.
    Transposed,
}

pub const EPILOGUES: [Epilogue; 7] = [
    Epilogue::None,
    Epilogue::BiasResidualRelu,
    Epilogue::Silu,
    Epilogue::RowScale,
    Epilogue::Heads,
    Epilogue::Transposed,
    Epilogue::BiasGelu,
];

pub fn signed(values: &[usize]) -> Vec<i64> {
    values
        .iter()
        .map(|&value| i64::try_from(value).unwrap())
        .collect()
}

pub fn finish(b: &mut Build, sum: ValueId, epilogue: Epilogue) -> ValueId {
    let ty = b.graph.ty(sum).clone();
    let (dims, dtype) = (ty.dims(), ty.dtype);
    let last = dims[dims.len() - 1];
    match epilogue {
        Epilogue::None => sum,
        Epilogue::BiasResidualRelu => {
            let (bias, residual) = (b.input(dtype, &[last]), b.input(dtype, &dims));
            let biased = b.op("add", &[sum, bias]);
            let added = b.op("add", &[residual, biased]);
            b.op("relu", &[added])
        }
        Epilogue::BiasGelu => {
            let bias = b.input(dtype, &[last]);
            let biased = b.op("add", &[sum, bias]);
            b.op("gelu", &[biased])
        }
        Epilogue::Silu => {
            let gate = b.op("sigmoid", &[sum]);
            b.op("mul", &[sum, gate])
        }
        Epilogue::RowScale => {
            let mut own = dims.clone();
            *own.last_mut().unwrap() = 1;
            let scale = b.input(DType::F32, &own);
            let wide = cast(b, sum, DType::F32);
            let scaled = b.op("mul", &[wide, scale]);
            cast(b, scaled, dtype)
        }
        Epilogue::Heads => {
            let heads = if last % 4 == 0 { 4 } else { 1 };
            let mut split = signed(&dims);
            split.pop();
            split.extend(signed(&[heads, last / heads]));
            let rank = i64::try_from(split.len()).unwrap();
            let mut perm: Vec<i64> = (0..rank).collect();
            perm.swap(split.len() - 3, split.len() - 2);
            let parts = b.with("reshape", &[sum], ints("shape", &split));
            b.with("transpose", &[parts], ints("perm", &perm))
        }
        Epilogue::Transposed => {
            let mut perm: Vec<i64> = (0..i64::try_from(dims.len()).unwrap()).collect();
            perm.swap(dims.len() - 2, dims.len() - 1);
            b.with("transpose", &[sum], ints("perm", &perm))
        }
    }
}

/// How an operand lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// As the product reads it.
    Plain,
    /// Its last two axes exchanged.
    Turned,
    /// In `f32`, and cast.
    Cast,
}

pub fn operand(b: &mut Build, dtype: DType, dims: &[usize], layout: Layout) -> ValueId {
    match layout {
        Layout::Plain => b.input(dtype, dims),
        Layout::Turned => {
            let mut own = dims.to_vec();
            let rank = own.len();
            own.swap(rank - 2, rank - 1);
            let x = b.input(dtype, &own);
            let mut perm: Vec<i64> = (0..i64::try_from(rank).unwrap()).collect();
            perm.swap(rank - 2, rank - 1);
            b.with("transpose", &[x], ints("perm", &perm))
        }
        Layout::Cast => {
            let from = if dtype == DType::F32 {
                DType::F16
            } else {
                DType::F32
            };
            let x = b.input(from, dims);
            cast(b, x, dtype)
        }
    }
}

pub fn matmul(
    dtype: DType,
    (a_dims, a_layout): (&[usize], Layout),
    (b_dims, b_layout): (&[usize], Layout),
    epilogue: Epilogue,
) -> Problem {
    let mut b = Build::new(61);
    let left = operand(&mut b, dtype, a_dims, a_layout);
    let right = operand(&mut b, dtype, b_dims, b_layout);
    let sum = b.op("matmul", &[left, right]);
    let z = finish(&mut b, sum, epilogue);
    let label = format!("matmul {a_layout:?} {a_dims:?} {b_layout:?} {b_dims:?} {epilogue:?}");
    let mut problem = b.done(&label, RegionKind::Dot, &[z]);
    if b_dims.len() == 2 {
        problem.spec.weights = [1].into();
        if matches!(epilogue, Epilogue::BiasResidualRelu | Epilogue::BiasGelu) {
            problem.spec.weights.insert(2);
        }
    }
    problem
}

/// Every layout of both operands.
pub fn layouts(dtype: DType) -> Vec<Problem> {
    let mut problems = Vec::new();
    for a in [Layout::Plain, Layout::Turned, Layout::Cast] {
        for b in [Layout::Plain, Layout::Turned, Layout::Cast] {
            problems.push(matmul(
                dtype,
                (&[40, 72], a),
                (&[72, 48], b),
                Epilogue::BiasResidualRelu,
            ));
        }
    }
    problems
}

/// Every epilogue, where vectors of columns divide the row and where they do not.
pub fn epilogues(dtype: DType) -> Vec<Problem> {
    let mut problems = Vec::new();
    for epilogue in EPILOGUES {
        for n in [32, 27] {
            problems.push(matmul(
                dtype,
                (&[2, 17, 40], Layout::Plain),
                (&[40, n], Layout::Plain),
                epilogue,
            ));
        }
    }
    problems
}

/// Sizes of one, odd ones, and those just under and over a tile.
pub fn tails(dtype: DType) -> Vec<Problem> {
    let sizes: &[[usize; 3]] = &[
        [1, 1, 1],
        [1, 33, 64],
        [33, 1, 64],
        [5, 3, 7],
        [31, 65, 33],
        [64, 64, 65],
        [129, 16, 17],
        [16, 127, 31],
        [20, 24, 0],
    ];
    let epilogue = if dtype.is_float() {
        Epilogue::Silu
    } else {
        Epilogue::BiasResidualRelu
    };
    sizes
        .iter()
        .map(|&[m, n, k]| {
            matmul(
                dtype,
                (&[m, k], Layout::Plain),
                (&[k, n], Layout::Plain),
                epilogue,
            )
        })
        .collect()
}

/// Products without rows, columns, terms or batches.
pub fn empty(dtype: DType) -> Vec<Problem> {
    let sizes: [(&[usize], &[usize]); 6] = [
        (&[0, 24], &[24, 16]),
        (&[20, 24], &[24, 0]),
        (&[20, 0], &[0, 16]),
        (&[17, 0], &[0, 27]),
        (&[0, 3, 24], &[24, 16]),
        (&[2, 3, 0], &[2, 0, 16]),
    ];
    sizes
        .into_iter()
        .flat_map(|(a, b)| {
            [Epilogue::BiasResidualRelu, Epilogue::Transposed]
                .map(|epilogue| matmul(dtype, (a, Layout::Plain), (b, Layout::Plain), epilogue))
        })
        .collect()
}

/// Batches of either operand, or of both.
pub fn batches(dtype: DType) -> Vec<Problem> {
    let sizes: &[(&[usize], &[usize])] = &[
        (&[2, 3, 18, 24], &[2, 3, 24, 20]),
        (&[2, 3, 18, 24], &[24, 20]),
        (&[18, 24], &[3, 24, 20]),
        (&[2, 1, 18, 24], &[1, 3, 24, 20]),
        (&[4, 1, 24], &[4, 24, 20]),
    ];
    sizes
        .iter()
        .flat_map(|&(a, b)| {
            [Epilogue::BiasResidualRelu, Epilogue::Heads]
                .map(|epilogue| matmul(dtype, (a, Layout::Plain), (b, Layout::Turned), epilogue))
        })
        .collect()
}

/// Few elements and many terms, so that blocks share a tile.
pub fn deep(dtype: DType) -> Vec<Problem> {
    vec![
        matmul(
            dtype,
            (&[7, 640], Layout::Plain),
            (&[640, 40], Layout::Plain),
            Epilogue::BiasResidualRelu,
        ),
        matmul(
            dtype,
            (&[1, 600], Layout::Plain),
            (&[600, 100], Layout::Turned),
            Epilogue::None,
        ),
    ]
}

/// All of the above in the kinds that have kernels of their own.
pub fn all() -> Vec<Problem> {
    let mut problems = Vec::new();
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        problems.extend(layouts(dtype));
        problems.extend(epilogues(dtype));
        problems.extend(tails(dtype));
        problems.extend(batches(dtype));
        problems.extend(deep(dtype));
        problems.extend(convolutions(dtype, true));
        problems.extend(convolutions(dtype, false));
    }
    problems
}
