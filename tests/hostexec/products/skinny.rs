//! Products of few rows.

use rtrt_codegen::ir::DType;
use rtrt_codegen::rewrite::RegionKind;

use super::{EPILOGUES, Epilogue, Layout, finish, matmul, operand};
use crate::regions::{Build, Problem, cast};

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
