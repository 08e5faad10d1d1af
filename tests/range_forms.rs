//! Programs of ranges as formulas of the extents: every shape's program is the one that was planned for it.
//!
//! Needs an NVRTC; without one these tests say so and do nothing (`tests/tiers`).

#![cfg(feature = "builder")]

mod tiers;

use std::path::Path;
use std::process::Command;

use rtrt_codegen::engine::shared::column::Column;
use rtrt_codegen::engine::shared::extents::Extents;
use rtrt_codegen::engine::{self, Arg, Binding, Engine, Header, Profile, Program, Shared};
use rtrt_codegen::ir::{DType, Graph, TensorType};
use rtrt_codegen::kernel::Arch;
use rtrt_codegen::pipeline::{self, Selection, Settings, Silent};
use rtrt_codegen::plan::Sharing;
use rtrt_codegen::specialize::{ShapeRange, Shapes, every_shape};
use rtrt_codegen::{ir, onnx, ops};
use tiers::have_nvrtc;

const HOPPER: Arch = Arch {
    sm: 90,
    specific: true,
};
const AMPERE: Arch = Arch {
    sm: 80,
    specific: false,
};

fn parsed(text: &str) -> Graph {
    ir::text::parse(text, &|name| ops::lookup(name).map(|def| def.name)).unwrap()
}

/// Attention over any number of sequences of any length.
fn attention() -> Graph {
    parsed(
        "graph attention(x: f16[batch,length,32]) {
        q = Transpose[perm=[0,2,1,3]](Reshape(matmul(x, f16[32,32]{0.11 ..}), i64[4]{0, 0, 2, 16}))
        k = Transpose[perm=[0,2,3,1]](Reshape(matmul(x, f16[32,32]{0.07 ..}), i64[4]{0, 0, 2, 16}))
        v = Transpose[perm=[0,2,1,3]](Reshape(matmul(x, f16[32,32]{0.05 ..}), i64[4]{0, 0, 2, 16}))
        p = softmax[axis=3](mul(matmul(q, k), f16[]{0.25}))
        a = Reshape(Transpose[perm=[0,2,1,3]](matmul(p, v)), i64[3]{0, 0, 32})
        return add(x, matmul(a, f16[32,32]{0.03 ..})) as \"y\"
      }",
    )
}

/// A sum and a product, for any number of rows of any length.
fn scaled() -> Graph {
    parsed("graph scaled(x: f32[rows,length]) { return mul(relu(x), f32[]{0.5}) as \"y\" }")
}

fn model(path: &str) -> Graph {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    onnx::import_file(&path).unwrap().graph
}

/// All shapes between two, the usual one first.
fn range(graph: &Graph, input: &str, [least, usual, most]: [&[usize]; 3]) -> Vec<Shapes> {
    let shape = |dims: &[usize]| vec![(input.to_owned(), dims.to_vec())];
    let range = ShapeRange {
        min: shape(least),
        opt: shape(usual),
        max: shape(most),
    };
    every_shape(graph, &range, 10_000).unwrap()
}

/// An engine that lists a program for each of `shapes`; as in ranges, none but the usual one states its problems.
fn listed(graph: &Graph, shapes: &[Shapes], archs: &[Arch], settings: &Settings) -> Engine {
    let cores = shapes.iter().map(|shapes| {
        let settings = Settings {
            shapes: shapes.clone(),
            ..settings.clone()
        };
        pipeline::lower(graph, &settings).unwrap()
    });
    let cores: Vec<Graph> = cores.collect();
    let mut engine = pipeline::compile(&cores, archs, settings, &Selection::Predicted, &Silent).unwrap();
    let programs = engine.header.programs.iter_mut();
    for program in programs.filter(|program| program.profile > 0) {
        program.problems.clear();
        for launch in &mut program.launches {
            launch.task = None;
        }
    }
    engine
}

/// The same engine, where all but the usual shape are computed.
fn computed(listed: &Engine, archs: &[&str]) -> Engine {
    let mut engine = listed.clone();
    let Header {
        profiles, programs, ..
    } = &mut engine.header;
    let dims = |profile: &Profile| profile.inputs.iter().map(|input| input.dims.clone()).collect();
    let mut sharing = Sharing::of(Extents::of(&profiles.iter().map(dims).collect::<Vec<_>>()).unwrap());
    for arch in archs {
        let own = |program: &&Program| program.arch == *arch && program.profile > 0;
        for program in listed.header.programs.iter().filter(own) {
            sharing.add(&profiles[program.profile], program.clone());
        }
    }
    profiles.truncate(1);
    programs.retain(|program| program.profile == 0);
    engine.header.shared = Some(sharing.finish());
    let mut file = Vec::new();
    engine::write(&engine, &mut file).unwrap();
    let read = engine::read(&file).unwrap();
    assert_eq!(read, engine);
    read
}

/// Checks that every program of `whole` is there in `engine`, and that the shape of inputs tells which.
fn same_programs(whole: &Header, engine: &Header) {
    assert_eq!(engine.n_profiles(), whole.profiles.len());
    assert_eq!(engine.n_programs(), whole.programs.len());
    for (number, profile) in whole.profiles.iter().enumerate() {
        assert_eq!(*engine.profile(number).unwrap(), *profile);
        let types: Vec<TensorType> = profile.inputs.iter().map(Binding::ty).collect();
        assert_eq!(engine.profile_for(&types).unwrap(), Some(number));
    }
    for program in engine.every_program() {
        let program = program.unwrap();
        let planned = |other: &&Program| other.arch == program.arch && other.profile == program.profile;
        assert_eq!(*program, *whole.programs.iter().find(planned).unwrap());
    }
    assert!(engine.profile(whole.profiles.len()).is_err());
    assert_eq!(engine.needs(None), whole.needs(None));
}

fn n_tables(shared: &Shared) -> (usize, usize) {
    let forms = shared.archs.iter().flat_map(|own| &own.programs.forms);
    let columns: Vec<&Column> = forms.flat_map(|form| &form.columns).collect();
    let is_formula = |column: &&&Column| matches!(column, Column::Formula(_));
    let n_formulas = columns.iter().filter(is_formula).count();
    (columns.len() - n_formulas, n_formulas)
}

#[test]
fn every_program_of_a_range_is_the_one_that_was_planned() {
    if !have_nvrtc() {
        return;
    }
    let both = &[AMPERE, HOPPER][..];
    let cases: [(Graph, &str, [&[usize]; 3], DType, &[Arch]); 3] = [
        (
            attention(),
            "x",
            [&[1, 3, 32], &[2, 4, 32], &[3, 8, 32]],
            DType::F16,
            &[HOPPER],
        ),
        (
            model("tests/models/digits/model.onnx"),
            "image",
            [&[1, 1, 8, 8], &[3, 1, 8, 8], &[9, 1, 8, 8]],
            DType::F32,
            both,
        ),
        (
            model("tests/precision/vit.onnx"),
            "image",
            [&[2, 1, 8, 8], &[2, 1, 8, 8], &[5, 1, 8, 8]],
            DType::F16,
            &[HOPPER],
        ),
    ];
    for (graph, input, ends, kind, archs) in cases {
        let shapes = range(&graph, input, ends);
        let whole = listed(&graph, &shapes, archs, &Settings::stored_in(kind));
        let names: Vec<&str> = whole.header.archs();
        let engine = computed(&whole, &names);
        same_programs(&whole.header, &engine.header);
        assert_eq!(engine.device_bytes(), whole.device_bytes());
        let bare = engine::stripped::strip(&engine).unwrap();
        let of_whole = engine::stripped::strip(&whole).unwrap();
        assert_eq!(bare.header.stripped, of_whole.header.stripped);
    }
}

/// The programs of a range, and as they are listed where a shape is there twice, so that it is none.
#[test]
fn ranges_that_share_kernels_have_the_programs_that_were_planned() {
    if !have_nvrtc() {
        return;
    }
    let (graph, settings) = (attention(), Settings::stored_in(DType::F16));
    let mut shapes = range(&graph, "x", [&[1, 1, 32], &[2, 4, 32], &[4, 24, 32]]);
    let built = |shapes: &[Shapes]| {
        pipeline::compile_range(
            &graph,
            shapes,
            &[HOPPER],
            &settings,
            &Selection::Predicted,
            &Silent,
        )
        .unwrap()
    };
    let engine = built(&shapes);
    let last = shapes[shapes.len() - 1].clone();
    shapes.push(last);
    let mut whole = built(&shapes);
    assert!(whole.header.shared.is_none());
    whole.header.programs.pop();
    same_programs(&whole.header, &engine.header);
    assert_eq!(engine::compacted(engine.clone()), engine);
    let shared = engine.header.shared.as_ref().unwrap();
    let (n_tables, n_formulas) = n_tables(shared);
    assert!(
        n_tables < n_formulas,
        "{n_tables} tables beside {n_formulas} formulas"
    );
    let size = |engine: &Engine| {
        let mut file = Vec::new();
        engine::write(engine, &mut file).unwrap();
        file.len() - engine.blobs.iter().map(|blob| blob.len()).sum::<usize>()
    };
    assert!(
        size(&engine) * 5 < size(&whole),
        "{} of {}",
        size(&engine),
        size(&whole)
    );
}

#[test]
fn a_range_may_have_thousands_of_shapes() {
    if !have_nvrtc() {
        return;
    }
    let (graph, settings) = (scaled(), Settings::stored_in(DType::F32));
    let shapes = range(&graph, "x", [&[1, 1], &[8, 16], &[60, 40]]);
    let engine = pipeline::compile_range(
        &graph,
        &shapes,
        &[HOPPER],
        &settings,
        &Selection::Predicted,
        &Silent,
    )
    .unwrap();
    let mut file = Vec::new();
    engine::write(&engine, &mut file).unwrap();
    let engine = engine::read(&file).unwrap();
    let header = &engine.header;
    assert_eq!((header.n_profiles(), header.profiles.len()), (2400, 1));
    for dims in [[1, 1], [7, 13], [8, 15], [8, 16], [8, 17], [60, 40]] {
        let number = header
            .profile_for(&[TensorType::new(DType::F32, &dims)])
            .unwrap()
            .unwrap();
        let program = header.program(number).unwrap();
        let n_elements = dims[0] * dims[1];
        assert_eq!(header.profile(number).unwrap().outputs[0].dims, dims);
        assert_eq!(program.inputs[0].len, 4 * n_elements);
        let args = &program.launches[0].args;
        let covers = |arg: &Arg| matches!(arg, Arg::Writes(place) if place.len == 4 * n_elements);
        assert!(args.iter().any(covers), "{args:?}");
    }
    for dims in [[61, 1], [1, 41], [0, 1]] {
        let outside = header.profile_for(&[TensorType::new(DType::F32, &dims)]).unwrap();
        assert_eq!(outside, None);
    }
}

#[test]
fn a_range_is_told_by_its_usual_shape_however_few_there_are() {
    if !have_nvrtc() {
        return;
    }
    let shapes = range(&scaled(), "x", [&[1, 4], &[2, 4], &[3, 4]]);
    let engine = pipeline::compile_range(
        &scaled(),
        &shapes,
        &[HOPPER],
        &Settings::stored_in(DType::F32),
        &Selection::Predicted,
        &Silent,
    )
    .unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("three.engine");
    engine::save(&engine, &path).unwrap();
    let told = Command::new(env!("CARGO_BIN_EXE_rtrt-codegen"))
        .arg("inspect")
        .arg(&path)
        .output()
        .unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    let programs: Vec<&str> = told.lines().filter(|line| line.starts_with("sm_90a ")).collect();
    assert_eq!(programs.len(), 1, "{told}");
    assert!(programs[0].ends_with("for x:2x4"), "{told}");
    assert!(told.contains("2 more shapes"), "{told}");
}
