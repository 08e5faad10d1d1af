//! Products of many rows with few terms and columns.

use rtrt_codegen::ir::DType;
use rtrt_codegen::rewrite::RegionKind;

use super::{CONV, Conv, EPILOGUES, Epilogue, Layout, conv, finish, matmul, signed};
use crate::regions::{Build, Problem, ints};

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
