//! Products with matrices of four-bit numbers, two in a byte, that have a scale per group of terms.

#![allow(dead_code, reason = "each test crate uses a part of it")]

use rtrt_codegen::ir::{Attr, Attrs, DType, ValueId};
use rtrt_codegen::ops::evaluate::from_values;
use rtrt_codegen::rewrite::RegionKind;

use crate::products::{Epilogue, finish};
use crate::regions::{Build, Problem, ints};

/// A product of `m` rows of `k` terms with `n` columns, in groups of `group` terms.
#[derive(Clone, Copy, Debug)]
pub struct Packed {
    pub dtype: DType,
    pub scales: DType,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub group: usize,
}

/// The matrix as the product reads it: stored column by column.
fn numbers(b: &mut Build, own: Packed) -> ValueId {
    // All bytes, neighbours far from each other.
    let values: Vec<i64> = (0..own.n * own.k / 2)
        .map(|place| i64::try_from((place * 151 + place / 16 * 7) % 256).unwrap())
        .collect();
    let bytes = b.given(from_values(DType::U8, &[own.n, own.k / 2], &values));
    // Of five bits, so that halves hold every product: kernels do not round where the reference does.
    let values: Vec<f64> = (0..own.n * own.k / own.group)
        .map(|place| {
            f64::from(u32::try_from(1 + place * 7 % 31).unwrap()) / if place % 3 == 1 { -64.0 } else { 64.0 }
        })
        .collect();
    let scales = b.given(from_values(own.scales, &[own.n, own.k / own.group], &values));
    let to = Attrs::new().with("to", Attr::DType(own.dtype));
    let columns = b.with("dequantize_groups", &[bytes, scales], to);
    b.with("transpose", &[columns], ints("perm", &[1, 0]))
}

pub fn product(own: Packed, epilogue: Epilogue) -> Problem {
    let mut b = Build::new(67);
    let rows = b.input(own.dtype, &[own.m, own.k]);
    let columns = numbers(&mut b, own);
    let sum = b.op("matmul", &[rows, columns]);
    let z = finish(&mut b, sum, epilogue);
    b.done(&format!("{own:?} {epilogue:?}"), RegionKind::Dot, &[z])
}

/// Few rows, with columns and terms that fill no block, and vectors that are a part of a group, all of one, or
/// narrower than others because groups are.
pub fn skinny(dtype: DType) -> Vec<Problem> {
    let cases = [
        (1, 40, 64, 32, DType::F16),
        (3, 77, 416, 32, DType::F32),
        (1, 24, 2048, 128, DType::F16),
        (8, 33, 192, 64, DType::F16),
        (2, 50, 96, 16, DType::F32),
        (1, 64, 1184, 1184, DType::BF16),
    ];
    let problem = |(m, n, k, group, scales)| Packed {
        dtype,
        scales,
        m,
        n,
        k,
        group,
    };
    let epilogues = [Epilogue::None, Epilogue::BiasResidualRelu, Epilogue::Silu];
    cases
        .into_iter()
        .map(problem)
        .zip(epilogues.into_iter().cycle())
        .map(|(own, epilogue)| product(own, epilogue))
        .collect()
}

/// Rows for tiles.
pub fn tiles(dtype: DType) -> Vec<Problem> {
    let cases = [(40, 72, 96, 32), (17, 33, 176, 16), (70, 40, 128, 128)];
    let problem = |(m, n, k, group)| Packed {
        dtype,
        scales: DType::F16,
        m,
        n,
        k,
        group,
    };
    let epilogues = [Epilogue::BiasResidualRelu, Epilogue::None, Epilogue::Transposed];
    cases
        .into_iter()
        .map(problem)
        .zip(epilogues)
        .map(|(own, epilogue)| product(own, epilogue))
        .collect()
}
