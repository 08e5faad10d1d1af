//! Products whose tiles the copy engine brings.

use rtrt_codegen::ir::DType;

use super::{CONV, Conv, EPILOGUES, Epilogue, Layout, Statistics, conv, matmul, normalised_rows, operand};
use crate::regions::Problem;

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
