//! Products with sums of their rows beside them, taken, stored or read.

use rtrt_codegen::ir::{Attr, Attrs, DType, HostTensor, ValueId};
use rtrt_codegen::ops::evaluate::from_values;
use rtrt_codegen::rewrite::RegionKind;

use super::{EPILOGUES, finish, matmul, signed};
use crate::regions::{Build, Problem, cast, ints};

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
pub fn normalised_rows(dtype: DType, [m, n, k]: [usize; 3], statistics: Statistics) -> Problem {
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
