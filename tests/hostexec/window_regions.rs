//! Windows to run: strides, padding, dilation, tails, groups, and epilogues behind them.

#![allow(dead_code, reason = "each test crate uses a part of it")]

use rtrt_codegen::ir::{Attr, Attrs, DType, ValueId};
use rtrt_codegen::ops::evaluate::from_values;
use rtrt_codegen::rewrite::RegionKind;

use crate::regions::{Build, Problem, cast, ints, quantised};

/// Kernel, stride, padding and dilation of both axes of an image.
#[derive(Clone, Copy)]
struct Cells {
    kernel: [i64; 2],
    strides: [i64; 2],
    pads: [i64; 4],
    dilations: [i64; 2],
}

fn cells(kernel: [i64; 2], stride: i64, pads: [i64; 4], dilation: i64) -> Cells {
    Cells {
        kernel,
        strides: [stride; 2],
        pads,
        dilations: [dilation; 2],
    }
}

impl Cells {
    fn attrs(&self) -> Attrs {
        ints("strides", &self.strides)
            .with("pads", Attr::Ints(self.pads.to_vec()))
            .with("dilations", Attr::Ints(self.dilations.to_vec()))
    }

    fn conv(&self, group: usize) -> Attrs {
        self.attrs()
            .with("group", Attr::Int(i64::try_from(group).unwrap()))
    }

    fn pool(&self, ceil_mode: i64) -> Attrs {
        self.attrs()
            .with("kernel_shape", Attr::Ints(self.kernel.to_vec()))
            .with("ceil_mode", Attr::Int(ceil_mode))
    }

    fn filter(&self) -> [usize; 2] {
        self.kernel.map(|extent| usize::try_from(extent).unwrap())
    }
}

/// A convolution of an image in groups, channels last, with a bias.
fn grouped(
    b: &mut Build,
    dtype: DType,
    x: [usize; 4],
    filters: usize,
    group: usize,
    cells: Cells,
) -> ValueId {
    let [rows, columns] = cells.filter();
    let image = b.input(dtype, &x);
    let filter = b.input(dtype, &[filters, rows, columns, x[3] / group]);
    let bias = b.input(dtype, &[filters]);
    b.with("conv_nhwc", &[image, filter, bias], cells.conv(group))
}

/// A convolution of an image in as many groups, by 3 x 3 cells, with as many filters as channels, or 32.
pub fn image(x: [usize; 4], group: usize) -> Problem {
    let mut b = Build::new(69);
    let filters = if group == x[3] { group } else { 32 };
    let y = grouped(
        &mut b,
        DType::F16,
        x,
        filters,
        group,
        cells([3, 3], 1, [1, 1, 1, 1], 1),
    );
    b.done(&format!("windows of {x:?}"), RegionKind::Window, &[y])
}

/// Each channel by itself, channels last.
pub fn depthwise() -> Vec<Problem> {
    let mut problems = Vec::new();
    let shapes = [
        (DType::F16, [1, 9, 10, 16], cells([3, 3], 1, [1, 1, 1, 1], 1)),
        (DType::F16, [2, 9, 11, 24], cells([3, 3], 2, [1, 1, 1, 1], 1)),
        (DType::F16, [1, 7, 5, 72], cells([5, 5], 1, [2, 2, 2, 2], 1)),
        (DType::BF16, [1, 8, 9, 8], cells([5, 5], 2, [1, 2, 2, 1], 1)),
        (DType::F32, [1, 10, 9, 12], cells([7, 7], 1, [3, 3, 3, 3], 1)),
        (DType::F32, [1, 9, 9, 6], cells([3, 3], 1, [2, 2, 2, 2], 2)),
        (DType::F32, [2, 5, 6, 5], cells([3, 2], 1, [0, 0, 0, 0], 1)),
        (DType::F64, [1, 5, 6, 4], cells([1, 3], 1, [0, 1, 0, 1], 1)),
        (DType::I32, [1, 5, 6, 4], cells([3, 3], 2, [1, 1, 1, 1], 1)),
    ];
    for (seed, (dtype, x, cells)) in shapes.into_iter().enumerate() {
        let mut b = Build::new(70 + seed as u64);
        let y = grouped(&mut b, dtype, x, x[3], x[3], cells);
        problems.push(b.done(&format!("depthwise of {x:?}"), RegionKind::Window, &[y]));
    }
    let mut b = Build::new(80);
    let y = grouped(
        &mut b,
        DType::F16,
        [1, 8, 9, 16],
        16,
        16,
        cells([3, 3], 1, [1, 1, 1, 1], 1),
    );
    let z = b.op("hard_swish", &[y]);
    let other = b.input(DType::F16, &[1, 8, 9, 16]);
    let sum = b.op("add", &[z, other]);
    problems.push(b.done("depthwise, hard_swish, residual", RegionKind::Window, &[sum]));
    let mut b = Build::new(81);
    let y = grouped(
        &mut b,
        DType::F32,
        [2, 6, 7, 8],
        8,
        8,
        cells([3, 3], 1, [1, 1, 1, 1], 1),
    );
    let gate = b.op("sigmoid", &[y]);
    let silu = b.op("mul", &[y, gate]);
    let scale = b.input(DType::F32, &[2, 1, 1, 8]);
    let scaled = b.op("mul", &[silu, scale]);
    let turned = b.with("transpose", &[scaled], ints("perm", &[0, 3, 1, 2]));
    let narrow = cast(&mut b, turned, DType::F16);
    problems.push(b.done("depthwise to nchw", RegionKind::Window, &[narrow]));
    let mut b = Build::new(82);
    let image = b.input(DType::F16, &[1, 8, 6, 7]);
    let turned = b.with("transpose", &[image], ints("perm", &[0, 2, 3, 1]));
    let filter = b.input(DType::F16, &[8, 3, 3, 1]);
    let y = b.with(
        "conv_nhwc",
        &[turned, filter],
        cells([3, 3], 1, [1, 1, 1, 1], 1).conv(8),
    );
    problems.push(b.done("depthwise from nchw", RegionKind::Window, &[y]));
    let mut b = Build::new(83);
    let y = grouped(
        &mut b,
        DType::F16,
        [1, 6, 7, 8],
        32,
        8,
        cells([3, 3], 1, [1, 1, 1, 1], 1),
    );
    problems.push(b.done("four filters a channel", RegionKind::Window, &[y]));
    let mut b = Build::new(84);
    let y = grouped(
        &mut b,
        DType::F32,
        [1, 6, 7, 1],
        8,
        1,
        cells([3, 3], 1, [1, 1, 1, 1], 1),
    );
    problems.push(b.done("one channel", RegionKind::Window, &[y]));
    problems
}

/// Images of few channels, seen by every filter: tails of tiles in both directions, more tiles
/// than blocks, filters beyond a tile, and what may come before and after.
pub fn few_channels() -> Vec<Problem> {
    let mut problems = Vec::new();
    let shapes = [
        (DType::F16, [1, 35, 37, 3], 64, cells([7, 7], 2, [3, 3, 3, 3], 1)),
        (DType::F16, [2, 19, 70, 3], 32, cells([3, 3], 2, [0, 0, 1, 1], 1)),
        (DType::BF16, [1, 20, 18, 1], 24, cells([5, 5], 1, [2, 2, 2, 2], 1)),
        (DType::F16, [1, 9, 17, 4], 10, cells([3, 2], 1, [1, 0, 1, 1], 1)),
        (DType::F16, [1, 6, 5, 5], 70, cells([1, 3], 3, [0, 1, 0, 1], 1)),
    ];
    for (seed, (dtype, x, filters, cells)) in shapes.into_iter().enumerate() {
        let mut b = Build::new(120 + seed as u64);
        let y = grouped(&mut b, dtype, x, filters, 1, cells);
        problems.push(b.done(&format!("few channels of {x:?}"), RegionKind::Window, &[y]));
    }
    let mut b = Build::new(130);
    let image = b.input(DType::F32, &[1, 3, 18, 20]);
    let narrow = cast(&mut b, image, DType::F16);
    let turned = b.with("transpose", &[narrow], ints("perm", &[0, 2, 3, 1]));
    let filter = b.input(DType::F16, &[16, 3, 3, 3]);
    let y = b.with(
        "conv_nhwc",
        &[turned, filter],
        cells([3, 3], 2, [1, 1, 1, 1], 1).conv(1),
    );
    let z = b.op("hard_swish", &[y]);
    problems.push(b.done("few channels from f32 nchw", RegionKind::Window, &[z]));
    problems
}

/// The same where neighbouring windows begin 16 bytes apart: tails of squares, filters beyond a tile, and rows of taps
/// that are no whole number of instructions.
pub fn windows_apart() -> Vec<Problem> {
    let shapes = [
        (DType::F16, [1, 35, 37, 3], 64, cells([7, 7], 2, [3, 3, 3, 3], 1)),
        (DType::F16, [2, 19, 70, 3], 32, cells([3, 3], 2, [0, 0, 1, 1], 1)),
        (DType::BF16, [1, 20, 18, 7], 24, cells([3, 3], 1, [1, 1, 1, 1], 1)),
        (DType::F16, [3, 33, 41, 2], 10, cells([5, 4], 4, [1, 0, 1, 1], 1)),
        (DType::F16, [1, 17, 19, 4], 72, cells([1, 5], 2, [0, 2, 0, 2], 1)),
    ];
    let mut problems: Vec<Problem> = shapes
        .into_iter()
        .enumerate()
        .map(|(seed, (dtype, x, filters, cells))| {
            let mut b = Build::new(140 + seed as u64);
            let y = grouped(&mut b, dtype, x, filters, 1, cells);
            b.done(&format!("windows apart of {x:?}"), RegionKind::Window, &[y])
        })
        .collect();
    problems.extend(few_channels().pop());
    problems
}

/// Windows of few channels that become bytes. Sums are exact; they are on ties, saturate, and have a zero point.
pub fn few_channels_to_bytes() -> Vec<Problem> {
    let integers = |dtype, dims: &[usize], most: usize| {
        let whole = |n: usize| f64::from(u32::try_from(n).expect("small integers"));
        let values: Vec<f64> = (0..dims.iter().product())
            .map(|n: usize| whole(n * 7919 % (2 * most + 1)) - whole(most))
            .collect();
        from_values(dtype, dims, &values)
    };
    let kinds = [
        (DType::I8, 0.0, true),
        (DType::I8, 0.0, false),
        (DType::U8, 7.0, false),
        (DType::I8, -128.0, true),
    ];
    kinds
        .map(|(stored, zero, has_relu)| {
            let mut b = Build::new(132);
            let image = b.given(integers(DType::F32, &[1, 3, 37, 41], 4));
            let narrow = cast(&mut b, image, DType::F16);
            let turned = b.with("transpose", &[narrow], ints("perm", &[0, 2, 3, 1]));
            let filter = b.given(integers(DType::F16, &[40, 3, 3, 3], 3));
            let bias = b.given(integers(DType::F16, &[40], 20));
            let cells = cells([3, 3], 2, [1, 1, 1, 1], 1);
            let mut y = b.with("conv_nhwc", &[turned, filter, bias], cells.conv(1));
            if has_relu {
                y = b.op("relu", &[y]);
            }
            let z = quantised(&mut b, y, 1.5, zero, stored);
            b.done(
                &format!("few channels to {stored:?} from {zero}, {has_relu}"),
                RegionKind::Window,
                &[z],
            )
        })
        .into()
}

/// The first convolution of a residual network, which becomes bytes.
pub fn first_layer_to_bytes() -> Problem {
    let mut b = Build::new(131);
    let cells = cells([7, 7], 2, [3, 3, 3, 3], 1);
    let y = grouped(&mut b, DType::F16, [1, 224, 224, 3], 64, 1, cells);
    let y = b.op("relu", &[y]);
    let z = quantised(&mut b, y, 20.0, 0.0, DType::I8);
    b.done("first layer to bytes", RegionKind::Window, &[z])
}

/// Poolings of bytes, and ones that become bytes.
pub fn pools_of_bytes() -> Vec<Problem> {
    let cells = cells([3, 3], 2, [1, 1, 1, 1], 1);
    let mut problems = Vec::new();
    for stored in [DType::I8, DType::U8] {
        let mut b = Build::new(133);
        let x = b.input(stored, &[2, 9, 11, 32]);
        let y = b.with("max_pool_nhwc", &[x], cells.pool(0));
        problems.push(b.done(&format!("max_pool of {stored:?}"), RegionKind::Window, &[y]));
    }
    let mut b = Build::new(134);
    let values: Vec<f64> = (0..2 * 9 * 11 * 32)
        .map(|n| f64::from(n % 701 - 350) * 0.25)
        .collect();
    let x = b.given(from_values(DType::F16, &[2, 9, 11, 32], &values));
    let y = b.with("max_pool_nhwc", &[x], cells.pool(0));
    let z = quantised(&mut b, y, 2.0, 0.0, DType::I8);
    problems.push(b.done("max_pool to bytes", RegionKind::Window, &[z]));
    problems
}

/// The first convolution of a residual network.
pub fn first_layer() -> Problem {
    let mut b = Build::new(131);
    let cells = cells([7, 7], 2, [3, 3, 3, 3], 1);
    let y = grouped(&mut b, DType::F16, [1, 224, 224, 3], 64, 1, cells);
    let z = b.op("relu", &[y]);
    b.done("first layer", RegionKind::Window, &[z])
}

/// No images, and images without filters.
pub fn empty() -> Vec<Problem> {
    let cells = cells([3, 3], 1, [1, 1, 1, 1], 1);
    let mut b = Build::new(86);
    let y = grouped(&mut b, DType::F16, [0, 6, 7, 8], 8, 8, cells);
    let none = b.done("depthwise of nothing", RegionKind::Window, &[y]);
    let mut b = Build::new(87);
    let y = grouped(&mut b, DType::F32, [0, 6, 7, 8], 16, 2, cells);
    let groups = b.done("groups of nothing", RegionKind::Window, &[y]);
    let mut b = Build::new(88);
    let x = b.input(DType::F16, &[0, 6, 7, 8]);
    let y = b.with("max_pool_nhwc", &[x], cells.pool(0));
    let pool = b.done("pool of nothing", RegionKind::Window, &[y]);
    vec![none, groups, pool]
}

/// Poolings, channels last or first.
pub fn pools(last: bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    let shapes = [
        (cells([3, 3], 2, [1, 1, 1, 1], 1), 0),
        (cells([2, 2], 2, [0, 0, 0, 0], 1), 1),
        (cells([3, 3], 2, [0, 0, 1, 1], 1), 1),
        (cells([5, 5], 1, [2, 2, 2, 2], 1), 0),
        (cells([3, 2], 1, [1, 0, 1, 0], 1), 0),
    ];
    for (seed, (cells, ceil_mode)) in shapes.into_iter().enumerate() {
        let ops = if last {
            [("max_pool_nhwc", 16), ("avg_pool_nhwc", 12)]
        } else {
            [("max_pool", 3), ("avg_pool", 3)]
        };
        for (op, channels) in ops {
            let mut b = Build::new(90 + seed as u64);
            let dtype = if seed % 2 == 0 { DType::F16 } else { DType::F32 };
            let dims = if op.ends_with("nhwc") {
                [2, 9, 7, channels]
            } else {
                [2, channels, 9, 7]
            };
            let x = b.input(dtype, &dims);
            let attrs = cells.pool(ceil_mode);
            let attrs = if op.starts_with("avg") {
                attrs.with("count_include_pad", Attr::Int(i64::from(seed % 2 == 1)))
            } else {
                attrs
            };
            let y = b.with(op, &[x], attrs);
            let z = b.op("relu", &[y]);
            problems.push(b.done(
                &format!("{op} {ceil_mode} {:?}", cells.kernel),
                RegionKind::Window,
                &[z],
            ));
        }
    }
    problems
}

/// Groups of several channels, and axes other than those of images.
pub fn groups() -> Vec<Problem> {
    let mut problems = Vec::new();
    for (dtype, x, filters, group) in [
        (DType::F16, [1, 7, 6, 32], 32, 4),
        (DType::F32, [2, 5, 6, 12], 24, 3),
        (DType::F32, [1, 5, 6, 6], 9, 3),
    ] {
        let mut b = Build::new(100);
        let y = grouped(
            &mut b,
            dtype,
            x,
            filters,
            group,
            cells([3, 3], 1, [1, 1, 1, 1], 1),
        );
        let z = b.op("relu", &[y]);
        problems.push(b.done(&format!("{group} groups of {x:?}"), RegionKind::Window, &[z]));
    }
    let mut b = Build::new(101);
    let x = b.input(DType::F32, &[2, 6, 9, 8]);
    let w = b.input(DType::F32, &[12, 3, 3, 3]);
    let y = b.with("conv", &[x, w], cells([3, 3], 2, [1, 1, 0, 0], 1).conv(2));
    let bias = b.input(DType::F32, &[12, 1, 1]);
    let z = b.op("add", &[y, bias]);
    problems.push(b.done("groups, channels first", RegionKind::Window, &[z]));
    let mut b = Build::new(102);
    let x = b.input(DType::F16, &[1, 4, 33]);
    let w = b.input(DType::F16, &[8, 4, 5]);
    let attrs = ints("strides", &[2]).with("pads", Attr::Ints(vec![2, 2]));
    let y = b.with(
        "conv",
        &[x, w],
        attrs
            .with("dilations", Attr::Ints(vec![1]))
            .with("group", Attr::Int(1)),
    );
    let z = b.op("gelu", &[y]);
    problems.push(b.done("one axis", RegionKind::Window, &[z]));
    problems
}

/// Transposed convolutions: stride, dilation and cropping.
pub fn transposed() -> Vec<Problem> {
    let mut problems = Vec::new();
    for (kernel, stride, pads, dilation, extra) in [
        ([2, 2], 2, [0, 0, 0, 0], 1, 0),
        ([4, 4], 2, [1, 1, 1, 1], 1, 0),
        ([3, 3], 2, [1, 1, 1, 1], 1, 1),
        ([3, 3], 3, [0, 1, 1, 0], 2, 1),
        ([3, 3], 4, [0, 0, 1, 0], 2, 0),
        ([2, 3], 1, [0, 1, 0, 1], 1, 0),
        ([1, 1], 3, [0, 0, 0, 0], 1, 2),
    ] {
        for group in [1usize, 2] {
            let mut b = Build::new(110);
            let dtype = if stride == 2 { DType::F16 } else { DType::F32 };
            let rows = usize::try_from(kernel[0]).unwrap();
            let columns = usize::try_from(kernel[1]).unwrap();
            let x = b.input(dtype, &[2, 4, 5, 6]);
            let w = b.input(dtype, &[4, 8 / group, rows, columns]);
            let bias = b.input(dtype, &[8]);
            let attrs = cells(kernel, stride, pads, dilation).conv(group);
            let y = b.with(
                "conv_transpose",
                &[x, w, bias],
                attrs.with("output_padding", Attr::Ints(vec![extra; 2])),
            );
            let z = b.op("relu", &[y]);
            problems.push(b.done(
                &format!("transposed {kernel:?} stride {stride}"),
                RegionKind::Window,
                &[z],
            ));
        }
    }
    problems
}

/// Shapes of models, too large to run on the CPU but not to compile.
pub fn of_models() -> Vec<Problem> {
    let mut problems = Vec::new();
    for (dtype, x, cells) in [
        (DType::F16, [1, 112, 112, 64], cells([3, 3], 2, [1, 1, 1, 1], 1)),
        (DType::F16, [1, 14, 14, 672], cells([5, 5], 1, [2, 2, 2, 2], 1)),
        (DType::F16, [1, 56, 56, 96], cells([7, 7], 1, [3, 3, 3, 3], 1)),
        (DType::F32, [1, 7, 7, 960], cells([5, 5], 1, [2, 2, 2, 2], 1)),
    ] {
        let mut b = Build::new(120);
        let y = grouped(&mut b, dtype, x, x[3], x[3], cells);
        let z = b.op("hard_swish", &[y]);
        problems.push(b.done(&format!("depthwise of {x:?}"), RegionKind::Window, &[z]));
    }
    let mut b = Build::new(121);
    let x = b.input(DType::F16, &[1, 112, 112, 64]);
    let y = b.with("max_pool_nhwc", &[x], cells([3, 3], 2, [1, 1, 1, 1], 1).pool(0));
    problems.push(b.done("stem pool", RegionKind::Window, &[y]));
    let mut b = Build::new(124);
    let x = b.input(DType::F16, &[1, 7, 7, 960]);
    let y = b.with("reduce_mean", &[x], ints("axes", &[1, 2]));
    problems.push(b.done("global pool", RegionKind::Reduce, &[y]));
    let mut b = Build::new(122);
    let y = grouped(
        &mut b,
        DType::F16,
        [1, 28, 28, 256],
        256,
        32,
        cells([3, 3], 1, [1, 1, 1, 1], 1),
    );
    problems.push(b.done("groups of eight", RegionKind::Window, &[y]));
    let mut b = Build::new(123);
    let x = b.input(DType::F16, &[1, 64, 32, 32]);
    let w = b.input(DType::F16, &[64, 32, 2, 2]);
    let attrs = cells([2, 2], 2, [0, 0, 0, 0], 1).conv(1);
    let y = b.with(
        "conv_transpose",
        &[x, w],
        attrs.with("output_padding", Attr::Ints(vec![0, 0])),
    );
    problems.push(b.done("upsampling", RegionKind::Window, &[y]));
    problems
}
