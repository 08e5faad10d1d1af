//! CUDA text to cubins, with a real NVRTC and no GPU.
//!
//! Needs an NVRTC (`make nvrtc`, or `RTRT_NVRTC`); without one these tests print why they
//! do nothing, because the host tier must pass on a machine that has none (`tests/tiers`).

#![cfg(feature = "builder")]

#[path = "hostexec/regions.rs"]
mod regions;
mod tiers;

use rtrt_codegen::compile::{self, Cache, CompileError, ParamSlot};
use rtrt_codegen::engine;
use rtrt_codegen::ir::DType;
use rtrt_codegen::kernel::{Arch, Launch, Param, Source};
use rtrt_codegen::pipeline::{self, Selection, Settings, Silent};
use tiers::have_nvrtc;

const AXPY: &str = r#"
extern "C" __global__ void __launch_bounds__(128) rtrt_axpy(
    const float* __restrict__ x, float* __restrict__ y, int n) {
  __shared__ float staged[128];
  int i = blockIdx.x * 128 + threadIdx.x;
  staged[threadIdx.x] = i < n ? x[i] : 0.0f;
  __syncthreads();
  if (i < n) y[i] = 2.0f * staged[127 - threadIdx.x] + 1.0f;
}
"#;

fn source(text: &str) -> Source {
    Source {
        name: "rtrt_axpy".to_owned(),
        header: String::new(),
        text: text.into(),
        template: "test",
        launch: Launch {
            grid: [1, 1, 1],
            block: [128, 1, 1],
            smem_bytes: 0,
        },
        params: vec![Param::Input(0), Param::Output(0), Param::Dim(100)],
        workspace_bytes: 0,
    }
}

fn arch(sm: u32, specific: bool) -> Arch {
    Arch { sm, specific }
}

#[test]
fn every_architecture_gives_a_cubin() {
    if !have_nvrtc() {
        return;
    }
    let mut archs: Vec<Arch> = compile::SUPPORTED_SM.iter().map(|&sm| arch(sm, false)).collect();
    archs.push(arch(90, true));
    for arch in archs {
        let cubins = compile::compile(&[source(AXPY)], arch, &Cache::none(), &|_, _| {}).unwrap();
        let resources = &cubins[0].resources;
        assert!((8..=32).contains(&resources.registers), "{resources:?}");
        assert_eq!(resources.local_bytes, 0);
        assert!(resources.static_smem_bytes >= 512, "{resources:?}");
        assert_eq!(resources.max_threads, Some(128));
        let slots: Vec<(u32, u32)> = resources
            .params
            .iter()
            .map(|slot| (slot.offset, slot.size))
            .collect();
        assert_eq!(slots, [(0, 8), (8, 8), (16, 4)]);
    }
}

#[test]
fn cubins_are_byte_identical_and_cached() {
    if !have_nvrtc() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(folder.path());
    let sources = [source(AXPY), source(AXPY)];
    let fresh = compile::compile(&sources, arch(80, false), &Cache::none(), &|_, _| {}).unwrap();
    let stored = compile::compile(&sources, arch(80, false), &cache, &|_, n| assert_eq!(n, 1)).unwrap();
    let loaded = compile::compile(&sources, arch(80, false), &cache, &|_, _| {}).unwrap();
    assert_eq!(fresh, stored);
    assert_eq!(stored, loaded);
}

#[test]
fn an_error_shows_its_line_and_the_saved_text() {
    if !have_nvrtc() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let broken = AXPY.replace("2.0f *", "twice *");
    let result = compile::compile(
        &[source(&broken)],
        arch(80, false),
        &Cache::at(folder.path()),
        &|_, _| {},
    );
    let Err(CompileError::Refused {
        log, excerpt, saved, ..
    }) = result
    else {
        panic!("{result:?}");
    };
    assert!(log.contains("identifier \"twice\" is undefined"), "{log}");
    assert!(excerpt.contains("twice"), "{excerpt}");
    assert_eq!(std::fs::read_to_string(saved.unwrap()).unwrap(), broken);
}

#[test]
fn a_signature_that_the_launch_contradicts_is_refused() {
    if !have_nvrtc() {
        return;
    }
    let mut wrong = source(AXPY);
    wrong.params = vec![Param::Input(0), Param::Dim(100), Param::Output(0)];
    let result = compile::compile(&[wrong], arch(80, false), &Cache::none(), &|_, _| {});
    let Err(CompileError::Params { wanted, .. }) = result else {
        panic!("{result:?}");
    };
    assert_eq!(wanted[2], ParamSlot { offset: 16, size: 8 });
}

/// What is planned with tensor maps is proved when the file is read.
#[test]
fn an_engine_of_tiled_operands_is_valid() {
    if !have_nvrtc() {
        return;
    }
    let settings = Settings::stored_in(DType::F16);
    let graph = regions::tiled_graph();
    let engine = pipeline::compile(
        &[graph],
        &[arch(90, true)],
        &settings,
        &Selection::Predicted,
        &Silent,
    )
    .unwrap();
    let mut file = Vec::new();
    engine::write(&engine, &mut file).unwrap();
    let engine = engine::read(&file).unwrap();
    let args = engine.header.programs[0]
        .launches
        .iter()
        .flat_map(|launch| &launch.args);
    let n_maps = args
        .filter(|arg| matches!(arg, engine::Arg::TensorMap(_)))
        .count();
    // Whether the sigmoid is stored or computed where the last product reads it is the cost model's
    // to say; computed there, that product copies no tiles.
    assert!(n_maps >= 2, "{:?}", engine.header.programs[0].launches);
}
