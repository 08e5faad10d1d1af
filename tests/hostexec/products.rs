//! Matrix products and convolutions to run, with what comes before and after them.

#![allow(dead_code, reason = "each test crate uses a part of it")]

use rtrt_codegen::ir::{Attr, Attrs, DType, HostTensor, ValueId};
use rtrt_codegen::ops::evaluate::from_values;
use rtrt_codegen::rewrite::RegionKind;

use crate::regions::{Build, Problem, cast, ints};

/// What happens to a sum.
#[derive(Clone, Copy, Debug)]
pub enum Epilogue {
    None,
    /// A bias per column and a residual of the whole size, then relu.
    BiasResidualRelu,
    /// `x * sigmoid(x)`: the sum is used twice.
    Silu,
    /// A scale per row, in `f32`, and a cast back.
    RowScale,
    /// The last axis split into two and moved before the rows.
    Heads,
    /// Rows and columns exchanged.
    Transposed,
}

pub const EPILOGUES: [Epilogue; 6] = [
    Epilogue::None,
    Epilogue::BiasResidualRelu,
    Epilogue::Silu,
    Epilogue::RowScale,
    Epilogue::Heads,
    Epilogue::Transposed,
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
        if matches!(epilogue, Epilogue::BiasResidualRelu) {
            problem.spec.weights.insert(2);
        }
    }
    problem
}

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

/// Which results of the rows of a product there are beside it.
#[derive(Clone, Copy, Debug)]
pub enum Statistics {
    /// The factor of a norm is used.
    Used,
    /// And results of their own.
    Written,
    /// They are results, and not used.
    OnlyWritten,
}

/// A product of normalised rows: `rows @ w * deviation + bias`, then an activation.
fn normalised_rows(dtype: DType, [m, n, k]: [usize; 3], statistics: Statistics) -> Problem {
    let mut b = Build::new(67);
    let (x, w) = (b.input(dtype, &[m, k]), b.weight(dtype, &[k, n]));
    let axes = ints("axes", &[1]);
    let norm = axes.clone().with("epsilon", Attr::Float(1e-3));
    let op = if n % 3 == 0 {
        "inverse_rms"
    } else {
        "inverse_deviation"
    };
    let factor = b.with(op, &[x], norm);
    let mean = b.with("reduce_mean", &[x], axes);
    let sum = b.op("matmul", &[x, w]);
    let mut y = cast(&mut b, sum, DType::F32);
    if !matches!(statistics, Statistics::OnlyWritten) {
        let bias = b.input(DType::F32, &[1, n]);
        y = b.op("mul", &[y, factor]);
        y = b.op("add", &[y, bias]);
    }
    y = b.op("tanh", &[y]);
    y = cast(&mut b, y, dtype);
    let results = match statistics {
        Statistics::Used => vec![y],
        Statistics::Written | Statistics::OnlyWritten => vec![mean, factor, y],
    };
    let label = format!("{op} of [{m},{k}] beside [{k},{n}] {statistics:?}");
    b.done(&label, RegionKind::Dot, &results)
}

/// What a product stores or reads of sums of its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandedOver {
    /// Sums over strips of columns, beside the result.
    Stored,
    /// Sums of squares alone.
    StoredSquares,
    /// A factor for each row, from what is stored of it.
    Read,
    /// And the factor is a result of its own.
    ReadAndWritten,
    ReadSquares,
}

/// A product that stores sums over strips of 16 columns, or reads those of its rows.
pub fn handing_over(dtype: DType, [m, n, k]: [usize; 3], what: HandedOver) -> Problem {
    let mut b = Build::new(79);
    let label = format!("{what:?} sums of [{m},{k}] beside [{k},{n}]");
    let (x, w) = (
        b.given(whole(dtype, &[m, k])),
        b.given_weight(whole(dtype, &[k, n])),
    );
    let sum = b.op("matmul", &[x, w]);
    let results = match what {
        HandedOver::Stored | HandedOver::StoredSquares => {
            let residual = b.given(whole(dtype, &[m, n]));
            let rows = b.op("sub", &[residual, sum]);
            vec![rows, strips(&mut b, rows, what == HandedOver::Stored)]
        }
        HandedOver::Read | HandedOver::ReadAndWritten | HandedOver::ReadSquares => {
            let factor = stored_factor(&mut b, m, k / 16, what != HandedOver::ReadSquares);
            let wide = cast(&mut b, sum, DType::F32);
            let scaled = b.op("mul", &[wide, factor]);
            let own = cast(&mut b, scaled, dtype);
            if what == HandedOver::ReadAndWritten {
                vec![factor, own]
            } else {
                vec![own]
            }
        }
    };
    b.done(&label, RegionKind::Dot, &results)
}

/// Small whole numbers, in no order: halves hold their products' sums exactly, so that it does not matter which
/// of them are rounded.
fn whole(dtype: DType, dims: &[usize]) -> HostTensor {
    let numbers = 0..dims.iter().product::<usize>();
    let values: Vec<i64> = numbers
        .map(|number| i64::try_from(number * number % 19 % 3).unwrap() - 1)
        .collect();
    from_values(dtype, dims, &values)
}

/// Sums of the rows' strips of 16 columns, and of their squares, or of those alone.
fn strips(b: &mut Build, rows: ValueId, both: bool) -> ValueId {
    let dims = b.graph.ty(rows).dims();
    let wide = cast(b, rows, DType::F32);
    let strips = ints("shape", &signed(&[dims[0], dims[1] / 16, 16]));
    let strips = b.with("reshape", &[wide], strips);
    let squares = b.op("mul", &[strips, strips]);
    let squares = b.with("reduce_sum", &[squares], ints("axes", &[2]));
    if !both {
        return squares;
    }
    let sums = b.with("reduce_sum", &[strips], ints("axes", &[2]));
    b.with(
        "concat",
        &[sums, squares],
        Attrs::new().with("axis", Attr::Int(2)),
    )
}

/// A factor for each of `rows`, from an input with sums of `parts` of them.
fn stored_factor(b: &mut Build, rows: usize, parts: usize, both: bool) -> ValueId {
    let n_sums = 1 + usize::from(both);
    let stored = b.input(DType::F32, &[rows, parts, n_sums]);
    let mut total = |place: usize| {
        let own = ints("starts", &signed(&[0, 0, place]))
            .with("ends", Attr::Ints(signed(&[rows, parts, place + 1])))
            .with("steps", Attr::Ints(vec![1; 3]));
        let own = if both {
            b.with("slice", &[stored], own)
        } else {
            stored
        };
        let sum = b.with("reduce_sum", &[own], ints("axes", &[1]));
        b.with("reshape", &[sum], ints("shape", &signed(&[rows, 1])))
    };
    let last = total(n_sums - 1);
    let first = both.then(|| total(0));
    let own = first.map_or(last, |first| b.op("sub", &[last, first]));
    b.op("tanh", &[own])
}

/// Products that hand sums of rows over: tails in every direction, rows with as many parts as lanes read at once and
/// with fewer or more.
pub fn handed_over(dtype: DType) -> Vec<Problem> {
    use HandedOver::{Read, ReadAndWritten, ReadSquares, Stored, StoredSquares};
    let cases = [
        ([17, 48, 72], Stored),
        ([70, 144, 200], StoredSquares),
        ([150, 80, 64], Stored),
        ([20, 40, 256], Read),
        ([70, 136, 208], ReadAndWritten),
        ([150, 32, 128], ReadSquares),
        ([64, 64, 16], Read),
    ];
    let problem = |(size, what)| handing_over(dtype, size, what);
    cases.into_iter().map(problem).collect()
}

/// Those of layers of transformers.
pub fn handed_over_of_models(dtype: DType) -> Vec<Problem> {
    use HandedOver::{Read, ReadAndWritten, Stored};
    let cases = [
        ([128, 768, 768], Stored),
        ([128, 3072, 768], ReadAndWritten),
        ([197, 768, 3072], Stored),
        ([1024, 2304, 768], Read),
    ];
    let problem = |(size, what)| handing_over(dtype, size, what);
    cases.into_iter().map(problem).collect()
}

/// Products of rows whose columns are scaled.
pub fn scaled(dtype: DType) -> Vec<Problem> {
    let sizes = [[17, 40, 72], [70, 136, 200], [64, 48, 640], [9, 8, 16]];
    let each = sizes.into_iter().zip(EPILOGUES.into_iter().cycle());
    each.map(|([m, n, k], epilogue)| {
        let mut b = Build::new(73);
        let (x, scale) = (b.input(dtype, &[m, k]), b.input(dtype, &[1, k]));
        let w = b.input(dtype, &[k, n]);
        let scaled = b.op("mul", &[x, scale]);
        let sum = b.op("matmul", &[scaled, w]);
        let z = finish(&mut b, sum, epilogue);
        b.done(&format!("scaled [{m},{k}] [{k},{n}]"), RegionKind::Dot, &[z])
    })
    .collect()
}

/// Products that take statistics of their rows: tails in every direction, more tiles than one.
pub fn normalised(dtype: DType) -> Vec<Problem> {
    let sizes = [
        [17, 40, 72],
        [70, 136, 200],
        [150, 33, 64],
        [64, 64, 136],
        [9, 8, 16],
    ];
    let statistics = [Statistics::Used, Statistics::Written, Statistics::OnlyWritten];
    let each = sizes.into_iter().enumerate();
    each.map(|(number, size)| normalised_rows(dtype, size, statistics[number % 3]))
        .collect()
}

/// Products of many rows with few terms and columns: vectors of every width, tails in every direction, both orders
/// of the columns, and windows of images.
pub fn thin(dtype: DType) -> Vec<Problem> {
    let (plain, turned) = (Layout::Plain, Layout::Turned);
    let cases = [
        (144, 16, 96, plain, Epilogue::Silu),
        (150, 24, 40, plain, Epilogue::BiasResidualRelu),
        (131, 72, 24, turned, Epilogue::BiasResidualRelu),
        (70, 8, 16, plain, Epilogue::None),
        (100, 40, 30, plain, Epilogue::RowScale),
        (97, 36, 20, turned, Epilogue::Silu),
        (150, 144, 24, plain, Epilogue::BiasResidualRelu),
        (65, 64, 8, plain, Epilogue::Heads),
        (80, 20, 130, turned, Epilogue::None),
        (72, 56, 264, plain, Epilogue::BiasResidualRelu),
    ];
    let mut problems: Vec<Problem> = cases
        .into_iter()
        .map(|(m, k, n, layout, epilogue)| matmul(dtype, (&[m, k], plain), (&[k, n], layout), epilogue))
        .collect();
    problems.push(conv(dtype, CONV, true, Epilogue::BiasResidualRelu));
    let odd = Conv {
        channels: 4,
        filters: 10,
        stride: 2,
        size: [13, 17],
        ..CONV
    };
    problems.push(conv(dtype, odd, true, Epilogue::Silu));
    problems
}

/// One with more columns than the warps of a block have.
pub fn thin_and_wide(dtype: DType) -> Problem {
    let plain = Layout::Plain;
    let epilogue = Epilogue::BiasResidualRelu;
    matmul(dtype, (&[300, 24], plain), (&[24, 680], plain), epilogue)
}

/// Products of that kind as networks for several pictures have them.
pub fn thin_of_models(dtype: DType) -> Vec<Problem> {
    let plain = Layout::Plain;
    let cases = [
        (25_088, 16, 96, Epilogue::Silu),
        (6_272, 24, 144, Epilogue::Silu),
        (6_272, 144, 24, Epilogue::BiasResidualRelu),
        (25_088, 16, 16, Epilogue::BiasResidualRelu),
        (6_272, 72, 40, Epilogue::None),
    ];
    let each = cases.into_iter();
    each.map(|(m, k, n, epilogue)| matmul(dtype, (&[m, k], plain), (&[k, n], plain), epilogue))
        .collect()
}

/// Rows of several images times a number for each image and term.
pub fn gated(dtype: DType) -> Vec<Problem> {
    let sizes = [[3, 49, 24, 40], [2, 40, 16, 96], [5, 17, 72, 24]];
    let each = sizes.into_iter().zip(EPILOGUES.into_iter().cycle());
    each.map(|([images, pixels, k, n], epilogue)| {
        let mut b = Build::new(79);
        let (x, gate) = (
            b.input(dtype, &[images, pixels, k]),
            b.input(dtype, &[images, 1, k]),
        );
        let w = b.input(dtype, &[k, n]);
        let scaled = b.op("mul", &[x, gate]);
        let rows = b.with(
            "reshape",
            &[scaled],
            ints("shape", &signed(&[images * pixels, k])),
        );
        let sum = b.op("matmul", &[rows, w]);
        let z = finish(&mut b, sum, epilogue);
        b.done(
            &format!("gated [{images},{pixels},{k}] [{k},{n}]"),
            RegionKind::Dot,
            &[z],
        )
    })
    .collect()
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

/// Products of plain operands with strides of whole vectors: both orders of each operand, tails
/// in every direction, several tiles along `k`, batches, and every epilogue.
pub fn tiled(dtype: DType) -> Vec<Problem> {
    let mut problems = Vec::new();
    for a in [Layout::Plain, Layout::Turned] {
        for b in [Layout::Plain, Layout::Turned] {
            let epilogue = Epilogue::BiasResidualRelu;
            problems.push(matmul(dtype, (&[88, 152], a), (&[152, 136], b), epilogue));
        }
    }
    for epilogue in EPILOGUES {
        problems.push(matmul(
            dtype,
            (&[2, 17, 40], Layout::Plain),
            (&[40, 48], Layout::Plain),
            epilogue,
        ));
    }
    for (a, b) in [
        (&[3, 72, 24][..], &[3, 24, 40][..]),
        (&[3, 72, 24], &[24, 40]),
        (&[1, 8], &[8, 8]),
        (&[5, 264], &[264, 8]),
        // More tiles than there are blocks.
        (&[280, 16, 72], &[280, 72, 16]),
        (&[280, 16, 136], &[280, 136, 72]),
    ] {
        problems.push(matmul(
            dtype,
            (a, Layout::Plain),
            (b, Layout::Plain),
            Epilogue::Silu,
        ));
    }
    problems
}

/// Several tiles along both axes, of one step and of more steps than are in flight.
pub fn of_many_tiles(dtype: DType) -> Vec<Problem> {
    let (plain, turned) = (Layout::Plain, Layout::Turned);
    let mut problems = vec![
        matmul(
            dtype,
            (&[264, 200], plain),
            (&[200, 312], turned),
            Epilogue::BiasResidualRelu,
        ),
        matmul(dtype, (&[200, 456], turned), (&[456, 392], plain), Epilogue::Silu),
        matmul(
            dtype,
            (&[136, 1032], plain),
            (&[1032, 136], plain),
            Epilogue::None,
        ),
        matmul(
            dtype,
            (&[3, 136, 72], plain),
            (&[3, 72, 264], plain),
            Epilogue::BiasResidualRelu,
        ),
        normalised_rows(dtype, [150, 392, 264], Statistics::Written),
    ];
    let shape = Conv {
        batch: 3,
        channels: 136,
        filters: 136,
        ..CONV
    };
    problems.push(conv(dtype, shape, true, Epilogue::BiasResidualRelu));
    problems
}

/// More tiles of any size than there are blocks.
pub fn of_more_tiles_than_blocks(dtype: DType) -> Problem {
    let plain = Layout::Plain;
    let (a, b) = (&[36, 136, 24][..], &[36, 24, 264][..]);
    matmul(dtype, (a, plain), (b, plain), Epilogue::BiasResidualRelu)
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

/// Few elements and so many terms that blocks share a tile: of bytes, of weights in both orders, and of
/// convolutions.
pub fn of_clusters() -> Vec<Problem> {
    let (plain, turned) = (Layout::Plain, Layout::Turned);
    let mut problems = Vec::new();
    for dtype in [DType::F16, DType::BF16] {
        for (b, epilogue) in [(plain, Epilogue::BiasResidualRelu), (turned, Epilogue::Silu)] {
            problems.push(matmul(dtype, (&[72, 776], plain), (&[776, 136], b), epilogue));
        }
    }
    let shape = Conv {
        channels: 72,
        filters: 72,
        ..CONV
    };
    problems.push(conv(DType::F16, shape, true, Epilogue::BiasResidualRelu));
    problems
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

/// At most eight rows on either side, in both layouts of the other operand.
pub fn skinny(dtype: DType) -> Vec<Problem> {
    let sizes: &[[usize; 3]] = &[
        [1, 1, 1],
        [1, 300, 64],
        [8, 96, 200],
        [3, 33, 77],
        [200, 4, 40],
        [5, 1000, 16],
        [1, 24, 640],
        [2, 6, 2048],
    ];
    let layouts = if dtype.is_float() {
        vec![Layout::Plain, Layout::Turned, Layout::Cast]
    } else {
        vec![Layout::Plain, Layout::Turned]
    };
    let mut problems: Vec<Problem> = sizes
        .iter()
        .flat_map(|&[m, n, k]| {
            layouts.iter().map(move |&layout| {
                matmul(
                    dtype,
                    (&[m, k], Layout::Plain),
                    (&[k, n], layout),
                    Epilogue::BiasResidualRelu,
                )
            })
        })
        .collect();
    // Gates and scales are floats.
    let epilogues = if dtype.is_float() { &EPILOGUES[..] } else { &[] };
    for &epilogue in epilogues {
        problems.push(matmul(
            dtype,
            (&[2, 4, 40], Layout::Turned),
            (&[40, 72], Layout::Turned),
            epilogue,
        ));
        problems.push(matmul(
            dtype,
            (&[3, 6, 24], Layout::Plain),
            (&[3, 24, 40], Layout::Plain),
            epilogue,
        ));
    }
    problems
}

/// Few rows of halves times weights of 8 bits, which are read sixteen at a time where they lie so.
pub fn skinny_by_bytes(narrow: DType) -> Vec<Problem> {
    let sizes: [[usize; 3]; 5] = [
        [1, 40, 640],
        [3, 33, 272],
        [2, 6, 2048],
        [1, 64, 80],
        [1, 100, 77],
    ];
    let problem = |[m, n, k]: [usize; 3], layout: Layout| {
        let mut b = Build::new(67);
        let x = b.input(DType::F16, &[m, k]);
        let w = operand(&mut b, narrow, &[k, n], layout);
        let (x, w) = (cast(&mut b, x, DType::F32), cast(&mut b, w, DType::F32));
        let sum = b.op("matmul", &[x, w]);
        let z = finish(&mut b, sum, Epilogue::RowScale);
        b.done(
            &format!("{m} rows by {narrow:?} {layout:?} [{k}, {n}]"),
            RegionKind::Dot,
            &[z],
        )
    };
    let layouts = [Layout::Plain, Layout::Turned];
    sizes
        .into_iter()
        .flat_map(|size| layouts.map(|layout| problem(size, layout)))
        .collect()
}

/// Products of few rows as models have them: a language head, classifiers, a projection.
pub fn skinny_of_models(dtype: DType) -> Vec<Problem> {
    let plain = |[m, n, k]: [usize; 3], layout, epilogue| {
        matmul(dtype, (&[m, k], Layout::Plain), (&[k, n], layout), epilogue)
    };
    vec![
        plain([1, 50257, 768], Layout::Plain, Epilogue::None),
        plain([1, 50257, 768], Layout::Turned, Epilogue::None),
        plain([1, 1000, 2048], Layout::Plain, Epilogue::BiasResidualRelu),
        plain([8, 3072, 768], Layout::Plain, Epilogue::BiasResidualRelu),
        plain([4, 768, 3072], Layout::Turned, Epilogue::Silu),
    ]
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
