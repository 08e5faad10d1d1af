//! One region in several sizes, for every template: what becomes families of kernels.

use rtrt_codegen::ir::{DType, ValueId};
use rtrt_codegen::rewrite::RegionKind;

use crate::attention_regions::plain;
use crate::products::{CONV, Conv, Epilogue, Layout, conv, matmul};
use crate::regions::{Build, Problem, best_boxes, int, ints};
use crate::window_regions::image;

/// A region by its size.
pub struct Sized {
    /// Templates whose variants are tried on it.
    pub templates: &'static [&'static str],
    pub sizes: [usize; 3],
    pub of: fn(usize) -> Problem,
}

fn chain(n: usize) -> Problem {
    let mut b = Build::new(21);
    let (x, y) = (b.input(DType::F16, &[n, 40]), b.input(DType::F16, &[40]));
    let sum = b.op("add", &[x, y]);
    let z = b.op("relu", &[sum]);
    b.done("chain", RegionKind::Pointwise, &[z])
}

fn transposed(dtype: DType, dims: &[usize]) -> Problem {
    let mut b = Build::new(22);
    let x = b.input(dtype, dims);
    let z = b.with("transpose", &[x], ints("perm", &[0, 2, 1]));
    b.done("transpose", RegionKind::Pointwise, &[z])
}

fn softmax(n: usize) -> Problem {
    let mut b = Build::new(23);
    let x = b.input(DType::F32, &[n, 70]);
    let z = b.with("softmax", &[x], int("axis", 1));
    b.done("softmax", RegionKind::Row, &[z])
}

fn column_sums(n: usize) -> Problem {
    let mut b = Build::new(24);
    let x = b.input(DType::F32, &[n, 33]);
    let z: ValueId = b.with("reduce_sum", &[x], ints("axes", &[0]));
    b.done("column sums", RegionKind::Reduce, &[z])
}

fn product(dtype: DType, [m, n, k]: [usize; 3]) -> Problem {
    matmul(
        dtype,
        (&[m, k], Layout::Plain),
        (&[k, n], Layout::Plain),
        Epilogue::BiasResidualRelu,
    )
}

fn convolution(height: usize) -> Problem {
    let shape = Conv {
        size: [height, 7],
        ..CONV
    };
    conv(DType::F16, shape, true, Epilogue::BiasResidualRelu)
}

fn near_convolution(height: usize) -> Problem {
    let shape = Conv {
        size: [height, 12],
        channels: 64,
        filters: 64,
        ..CONV
    };
    conv(DType::F16, shape, true, Epilogue::BiasResidualRelu)
}

/// Regions whose kernels differ in numbers alone, at least two of each three.
pub fn all() -> Vec<Sized> {
    let sized = |templates, sizes, of| Sized { templates, sizes, of };
    vec![
        sized(&["pointwise", "indexed"], [3, 5, 700], chain),
        sized(&["transpose"], [37, 41, 90], |n| {
            transposed(DType::F16, &[2, n, 33])
        }),
        sized(&["transpose_block"], [72, 104, 136], |n| {
            transposed(DType::F16, &[2, n, 40])
        }),
        sized(&["row"], [3, 5, 37], softmax),
        sized(&["column"], [60, 61, 75], column_sums),
        sized(&["gemv"], [40, 56, 72], |n| product(DType::F32, [3, n, 64])),
        sized(&["gemm_simt"], [35, 37, 70], |m| product(DType::F32, [m, 40, 64])),
        sized(&["gemm_mma", "gemm_wgmma", "gemm_direct"], [70, 200, 131], |m| {
            product(DType::F16, [m, 128, 64])
        }),
        sized(&["gemm_mma", "gemm_wgmma"], [5, 9, 13], convolution),
        sized(
            &["attention_mma", "attention_wgmma", "attention_stream"],
            [70, 150, 37],
            |n| plain(DType::F16, [1, 2, 2, n, n, 64, 64], Some(0), 0.0),
        ),
        sized(&["attention_simt"], [33, 20, 50], |n| {
            plain(DType::F32, [1, 2, 2, n, n, 32, 32], None, 0.0)
        }),
        sized(&["attention_decode"], [200, 77, 130], |n| {
            plain(DType::F16, [2, 4, 2, 1, n, 64, 64], None, 0.0)
        }),
        sized(&["window_strip", "window_taps"], [9, 11, 14], |n| {
            image([1, n, 10, 16], 16)
        }),
        sized(&["window_mma"], [35, 37, 20], |n| image([1, n, 37, 3], 1)),
        sized(&["window_wgmma"], [35, 37, 20], |n| image([1, n, 37, 7], 1)),
        sized(&["window_planes"], [9, 13, 21], near_convolution),
        sized(&["best_boxes"], [40, 56, 72], |n| best_boxes(DType::F32, n, 2, 5)),
    ]
}
