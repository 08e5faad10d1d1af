//! Convolutions to run, as products and as windows.

use rtrt_codegen::ir::{Attr, DType};
use rtrt_codegen::rewrite::RegionKind;

use super::{EPILOGUES, Epilogue, finish, signed};
use crate::regions::{Build, Problem, ints};

/// A convolution over two axes.
#[derive(Clone, Copy, Debug)]
pub struct Conv {
    pub batch: usize,
    pub size: [usize; 2],
    pub channels: usize,
    pub filters: usize,
    pub kernel: [usize; 2],
    pub stride: usize,
    pub pad: usize,
    pub dilation: usize,
    pub group: usize,
}

pub const CONV: Conv = Conv {
    batch: 2,
    size: [9, 7],
    channels: 16,
    filters: 24,
    kernel: [3, 3],
    stride: 1,
    pad: 1,
    dilation: 1,
    group: 1,
};

pub fn conv(dtype: DType, shape: Conv, last: bool, epilogue: Epilogue) -> Problem {
    let mut b = Build::new(71);
    let [h, w] = shape.size;
    let [r, s] = shape.kernel;
    let depth = shape.channels / shape.group;
    let (x_dims, w_dims) = if last {
        ([shape.batch, h, w, shape.channels], [shape.filters, r, s, depth])
    } else {
        ([shape.batch, shape.channels, h, w], [shape.filters, depth, r, s])
    };
    let x = b.input(dtype, &x_dims);
    let filter = b.weight(dtype, &w_dims);
    let bias = b.weight(dtype, &[shape.filters]);
    let pair = |value: usize| signed(&[value, value]);
    let attrs = ints("strides", &pair(shape.stride))
        .with("pads", Attr::Ints(signed(&[shape.pad; 4])))
        .with("dilations", Attr::Ints(pair(shape.dilation)))
        .with("group", Attr::Int(i64::try_from(shape.group).unwrap()));
    let op = if last { "conv_nhwc" } else { "conv" };
    let sum = b.with(op, &[x, filter, bias], attrs);
    let z = finish(&mut b, sum, epilogue);
    b.done(&format!("{op} {shape:?} {epilogue:?}"), RegionKind::Window, &[z])
}

/// Convolutions whose pixels the copy engine gathers: strides, padding, dilation, channels that
/// do not fill a tile, tiles that end in the next image.
pub fn tiled_convolutions(dtype: DType) -> Vec<Problem> {
    let shapes = [
        CONV,
        Conv {
            batch: 1,
            channels: 72,
            ..CONV
        },
        Conv {
            kernel: [1, 1],
            pad: 0,
            stride: 2,
            size: [9, 12],
            ..CONV
        },
        Conv {
            stride: 2,
            kernel: [3, 5],
            pad: 2,
            ..CONV
        },
        Conv {
            dilation: 2,
            pad: 0,
            size: [8, 11],
            ..CONV
        },
        Conv {
            batch: 3,
            channels: 136,
            filters: 72,
            size: [4, 5],
            ..CONV
        },
    ];
    let conv = |(number, shape)| conv(dtype, shape, true, EPILOGUES[number % 4]);
    shapes.into_iter().enumerate().map(conv).collect()
}

/// Convolutions with stride 1, all of whose channels and taps a block has at hand: squares of windows that end beside the
/// image, filters beyond a tile, and more squares than groups.
pub fn near_convolutions(dtype: DType) -> Vec<Problem> {
    let shapes = [
        CONV,
        Conv {
            size: [17, 12],
            channels: 48,
            filters: 72,
            kernel: [1, 3],
            ..CONV
        },
        Conv {
            batch: 3,
            size: [8, 20],
            channels: 64,
            filters: 64,
            kernel: [5, 2],
            pad: 0,
            ..CONV
        },
    ];
    let conv = |(number, shape)| conv(dtype, shape, true, EPILOGUES[number % 4]);
    shapes.into_iter().enumerate().map(conv).collect()
}

/// Convolutions with strides, padding, dilation, groups and awkward channels.
pub fn convolutions(dtype: DType, last: bool) -> Vec<Problem> {
    let shapes = [
        CONV,
        Conv {
            kernel: [1, 1],
            pad: 0,
            ..CONV
        },
        Conv {
            kernel: [1, 1],
            pad: 0,
            stride: 2,
            size: [8, 8],
            ..CONV
        },
        Conv {
            stride: 2,
            dilation: 2,
            pad: 2,
            ..CONV
        },
        Conv {
            channels: 3,
            filters: 10,
            kernel: [5, 3],
            stride: 2,
            pad: 2,
            ..CONV
        },
        Conv {
            channels: 64,
            filters: 64,
            group: 2,
            size: [5, 6],
            ..CONV
        },
    ];
    let mut problems: Vec<Problem> = shapes
        .iter()
        .map(|&shape| conv(dtype, shape, last, Epilogue::Silu))
        .collect();
    if last {
        problems.push(conv(dtype, CONV, last, Epilogue::BiasResidualRelu));
    }
    problems
}
