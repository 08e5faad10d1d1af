//! Engines for wide ranges of shapes, built without a GPU: the usual shape has kernels of its own, the others share
//! theirs.
//!
//! Needs an NVRTC; without one these tests say so and do nothing (`tests/tiers`).

#![cfg(feature = "builder")]

mod tiers;

use std::collections::BTreeSet;
use std::path::Path;

use rtrt_codegen::engine::{self, Arg, Engine, Program};
use rtrt_codegen::ir::{DType, Graph};
use rtrt_codegen::kernel::Arch;
use rtrt_codegen::onnx;
use rtrt_codegen::pipeline::{self, Selection, Settings, Silent};
use rtrt_codegen::specialize::{ShapeRange, Shapes, every_shape};
use tiers::have_nvrtc;

const ARCH: Arch = Arch {
    sm: 90,
    specific: true,
};

/// A network of convolutions for pictures of 8 x 8, in batches of any size.
fn digits() -> Graph {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/digits/model.onnx");
    onnx::import_file(&path).unwrap().graph
}

fn batch(n: usize) -> Shapes {
    vec![("image".to_owned(), vec![n, 1, 8, 8])]
}

fn built(least: usize, usual: usize, most: usize) -> Engine {
    let graph = digits();
    let range = ShapeRange {
        min: batch(least),
        opt: batch(usual),
        max: batch(most),
    };
    let shapes = every_shape(&graph, &range, 100).unwrap();
    let settings = Settings::stored_in(DType::F16);
    pipeline::compile_range(
        &graph,
        &shapes,
        &[ARCH],
        &settings,
        &Selection::Predicted,
        &Silent,
    )
    .unwrap()
}

fn cubins<'a>(programs: impl IntoIterator<Item = &'a Program>) -> BTreeSet<usize> {
    let kernels = programs.into_iter().flat_map(|program| &program.kernels);
    kernels.map(|kernel| kernel.cubin).collect()
}

fn n_numbers(program: &Program) -> usize {
    let args = program.launches.iter().flat_map(|launch| &launch.args);
    args.filter(|arg| matches!(arg, Arg::I32(_))).count()
}

#[test]
fn shapes_beside_the_usual_one_share_their_kernels() {
    if !have_nvrtc() {
        return;
    }
    let engine = built(9, 16, 40);
    let programs = engine.header.every_program();
    let programs: Vec<Program> = programs.map(|program| program.unwrap().into_owned()).collect();
    assert_eq!((programs.len(), engine.header.programs.len()), (32, 1));
    let (usual, others) = (&programs[0], &programs[1..]);
    assert_eq!(engine.header.profiles[usual.profile].inputs[0].dims[0], 16);
    // The usual shape is as if it were alone.
    let alone = pipeline::lower(
        &digits(),
        &Settings {
            shapes: batch(16),
            ..Settings::stored_in(DType::F16)
        },
    );
    let settings = Settings::stored_in(DType::F16);
    let alone = pipeline::compile(
        &[alone.unwrap()],
        &[ARCH],
        &settings,
        &Selection::Predicted,
        &Silent,
    )
    .unwrap();
    assert_eq!(usual.launches, alone.header.programs[0].launches);
    assert_eq!(n_numbers(usual), 0);
    let n_launches: usize = others.iter().map(|program| program.launches.len()).sum();
    let n_kernels = cubins(others).len();
    // 31 shapes of one kernel each for every launch would be `n_launches`.
    assert!(
        n_kernels * 5 < n_launches,
        "{n_kernels} kernels for {n_launches} launches"
    );
    assert!(others.iter().all(|program| n_numbers(program) > 0));
    // Nothing can be tuned there: a launch of its own would need a kernel of its own.
    assert!(others.iter().all(|program| program.problems.is_empty()));
    assert!(usual.launches.iter().all(|launch| launch.task.is_some()));
}

#[test]
fn wide_engines_are_read_as_they_were_built_and_built_as_before() {
    if !have_nvrtc() {
        return;
    }
    let engine = built(1, 4, 12);
    let mut file = Vec::new();
    engine::write(&engine, &mut file).unwrap();
    assert_eq!(engine::read(&file).unwrap(), engine);
    let mut again = Vec::new();
    engine::write(&built(1, 4, 12), &mut again).unwrap();
    assert_eq!(file, again);
}
