//! Generated kernels as people read them, and as NVRTC compiles them.
//!
//! One canonical variant of each problem is kept whole in `snapshots/kernels`, the others as
//! rows of a table. The compile tests need an NVRTC and say so where there is none.

#![cfg(feature = "builder")]

#[path = "hostexec/attention_regions.rs"]
mod attention_regions;
#[path = "hostexec/packed_products.rs"]
mod packed_products;
#[path = "hostexec/products.rs"]
mod products;
#[path = "hostexec/regions.rs"]
mod regions;
mod tiers;
#[path = "hostexec/window_regions.rs"]
mod window_regions;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use regions::Problem;
use rtrt_codegen::compile::{self, Cache};
use rtrt_codegen::ir::DType;
use rtrt_codegen::kernel::{self, Arch, Source};
use tiers::have_nvrtc;

const SM_90A: Arch = Arch {
    sm: 90,
    specific: true,
};

#[test]
fn problems_are_the_same_once_their_bodies_were_text() {
    let all = [
        attention_regions::half(),
        attention_regions::of_models(),
        packed_products::skinny(DType::F16),
        products::all(),
        products::normalised(DType::F16),
        products::handed_over(DType::F16),
        regions::numbers(),
        regions::groups(),
        regions::ops_of_the_table(|_| true),
        window_regions::of_models(),
    ];
    for problem in all.into_iter().flatten() {
        let spec = &problem.spec;
        let read = kernel::KernelSpec {
            body: kernel::KernelSpec::parse_body(&spec.body_text()).unwrap(),
            ..spec.clone()
        };
        assert_eq!(read.text(), spec.text());
        assert_eq!(read.body_text(), spec.body_text());
    }
}

fn archs() -> Vec<Arch> {
    let mut archs: Vec<Arch> = compile::SUPPORTED_SM
        .iter()
        .map(|&sm| Arch { sm, specific: false })
        .collect();
    archs.push(SM_90A);
    archs
}

/// Every variant of every problem.
fn sources(problems: &[Problem], arch: Arch) -> Vec<Source> {
    sources_of(problems, arch, |_, _| true)
}

/// The variants that `pick` chooses by template and number.
fn sources_of(problems: &[Problem], arch: Arch, pick: impl Fn(&str, usize) -> bool) -> Vec<Source> {
    problems
        .iter()
        .flat_map(|problem| {
            kernel::variants(&problem.spec, arch)
                .into_iter()
                .enumerate()
                .filter(|(number, variant)| pick(&variant.template, *number))
                .map(|(_, variant)| kernel::render(&problem.spec, &variant, arch).unwrap())
                .collect::<Vec<Source>>()
        })
        .collect()
}

/// The `most` best variants of each template that `is_own` names.
fn best_sources(
    problems: &[Problem],
    arch: Arch,
    most: usize,
    is_own: &impl Fn(&str) -> bool,
) -> Vec<Source> {
    let mut found = Vec::new();
    for problem in problems {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for variant in kernel::variants(&problem.spec, arch) {
            let count = counts.entry(variant.template.clone()).or_default();
            *count += 1;
            if *count <= most && is_own(&variant.template) {
                found.push(kernel::render(&problem.spec, &variant, arch).unwrap());
            }
        }
    }
    found
}

fn compile_on(problems: &[Problem], archs: &[Arch]) {
    compile_some(problems, archs, |_| true);
}

/// Compiles the kernels of the templates that `is_own` names.
fn compile_some(problems: &[Problem], archs: &[Arch], is_own: impl Fn(&str) -> bool) {
    compile_best(problems, archs, usize::MAX, is_own);
}

/// Compiles the `most` best kernels of each of those templates.
fn compile_best(problems: &[Problem], archs: &[Arch], most: usize, is_own: impl Fn(&str) -> bool) {
    for &arch in archs {
        compile_without_spills(&best_sources(problems, arch, most, &is_own), arch);
    }
}

fn compile_without_spills(sources: &[Source], arch: Arch) {
    if !have_nvrtc() {
        return;
    }
    let cubins = compile::compile(sources, arch, &Cache::none(), &|_, _| {}).unwrap();
    let spilled: Vec<String> = sources
        .iter()
        .zip(cubins)
        .filter(|(_, cubin)| cubin.resources.local_bytes > 0)
        .map(|(source, cubin)| {
            let resources = cubin.resources;
            format!(
                "{}: {} bytes, {} registers",
                source.name, resources.local_bytes, resources.registers
            )
        })
        .collect();
    assert!(
        spilled.is_empty(),
        "spills on {}:\n{}",
        compile::arch_name(arch),
        spilled.join("\n")
    );
}

#[test]
fn pointwise_kernels_compile() {
    compile_on(&regions::pointwise(), &[SM_90A]);
    compile_on(&regions::pointwise()[..2], &archs());
}

#[test]
fn row_kernels_compile() {
    compile_on(&regions::rows(), &[SM_90A]);
    compile_on(&regions::rows()[..2], &archs());
}

/// What decides on registers is depth, kind and tile, which the shapes of models vary.
#[test]
fn attention_kernels_compile() {
    let own = |template: &str| template.starts_with("attention");
    let small = [attention_regions::wide(), attention_regions::decode()].concat();
    compile_best(&small, &[SM_90A], 3, own);
    compile_some(&attention_regions::of_models(), &[SM_90A], own);
    compile_best(&attention_regions::of_models(), &archs(), 1, own);
}

#[test]
fn window_kernels_compile() {
    let own = |template: &str| template.starts_with("window");
    let pools = [window_regions::pools(true), window_regions::pools(false)].concat();
    compile_best(&window_regions::depthwise(), &[SM_90A], 3, own);
    compile_best(&pools, &[SM_90A], 1, own);
    compile_best(&window_regions::groups(), &[SM_90A], 2, own);
    compile_best(&window_regions::transposed(), &[SM_90A], 1, own);
    compile_best(&window_regions::few_channels(), &[SM_90A], 1, own);
    compile_best(&[window_regions::first_layer()], &archs(), 2, own);
    compile_some(&window_regions::of_models(), &[SM_90A], own);
    compile_best(&window_regions::of_models(), &archs(), 1, own);
}

#[test]
fn kernels_of_groups_and_few_rows_compile() {
    compile_best(&regions::groups(), &[SM_90A], 2, |template| template == "row");
    let own = |template: &str| template == "gemv";
    for dtype in [DType::F16, DType::F32] {
        compile_some(&products::skinny_of_models(dtype), &[SM_90A], own);
        compile_best(&products::skinny_of_models(dtype)[..4], &archs(), 1, own);
    }
    compile_some(&products::skinny_by_bytes(DType::I8), &[SM_90A], own);
    compile_best(&packed_products::skinny(DType::F16), &archs(), 2, own);
    compile_best(&packed_products::tiles(DType::F16), &archs(), 2, |template| {
        template == "gemm_mma"
    });
}

#[test]
fn best_boxes_compile_and_read_well() {
    let detector = regions::best_boxes(DType::F32, 8400, 8, 300);
    snapshot(
        "best_boxes__f32__sm_90a",
        &canonical(&detector, "best_boxes", SM_90A),
    );
    let many = regions::best_boxes(DType::F16, 1 << 16, 1, 100);
    compile_on(&[detector, many], &archs());
}

#[test]
fn thin_kernels_compile() {
    let own = |template: &str| template == "gemm_direct";
    let thin = products::thin_of_models(DType::F16);
    compile_some(&thin, &[SM_90A], own);
    compile_best(&thin, &archs(), 2, own);
    let problems = [products::thin(DType::BF16), products::gated(DType::F16)].concat();
    compile_best(&problems, &[SM_90A], 4, own);
}

#[test]
fn kernels_that_hand_sums_of_rows_over_compile() {
    let own = |template: &str| template.starts_with("gemm");
    let problems = products::handed_over_of_models(DType::F16);
    compile_best(&problems, &[SM_90A], 6, own);
    compile_best(&problems, &archs(), 1, own);
}

#[test]
fn kernels_beside_other_executions_leave_them_room() {
    use products::{Epilogue, Layout};
    // Of ResNet-50 at 14 x 14: a few tiles with many terms.
    let (a, b) = (
        (&[196, 2304][..], Layout::Plain),
        (&[2304, 256][..], Layout::Plain),
    );
    let mut problem = products::matmul(DType::F16, a, b, Epilogue::BiasResidualRelu);
    let mut best = |n_contexts| {
        problem.spec.options.n_contexts = n_contexts;
        let best = kernel::variants(&problem.spec, SM_90A).swap_remove(0);
        let source = kernel::render(&problem.spec, &best, SM_90A).unwrap();
        (source, best.predicted_us)
    };
    let (alone, alone_us) = best(1);
    assert_eq!(best(2).0, alone);
    let (shared, shared_us) = best(4);
    let taken = |source: &Source| source.launch.grid[0] * source.launch.smem_bytes;
    assert!(
        taken(&shared) < taken(&alone),
        "{} and {}",
        alone.name,
        shared.name
    );
    assert!(
        shared_us > alone_us,
        "{shared_us} us beside others, {alone_us} alone"
    );
    let releases = |source: &Source| source.text.matches("rt_release_successors();").count();
    assert!(releases(&shared) < releases(&alone), "{}", shared.name);
}

/// Products of every kind, with an epilogue of several operands.
fn some_products() -> Vec<Problem> {
    use products::{CONV, Conv, Epilogue, Layout};
    let matmul = |dtype, k| {
        let shapes = ((&[2048, k][..], Layout::Plain), (&[k, 1536][..], Layout::Plain));
        products::matmul(dtype, shapes.0, shapes.1, Epilogue::BiasResidualRelu)
    };
    let mut tf32 = matmul(DType::F32, 512);
    tf32.spec.options.tf32 = true;
    let awkward = Conv {
        channels: 3,
        size: [32, 30],
        stride: 2,
        ..CONV
    };
    let dense = Conv {
        channels: 64,
        filters: 128,
        size: [56, 56],
        ..CONV
    };
    vec![
        matmul(DType::F16, 512),
        matmul(DType::F32, 512),
        products::conv(DType::F16, dense, true, Epilogue::Silu),
        products::conv(DType::F16, awkward, true, Epilogue::Silu),
        products::conv(DType::F32, dense, false, Epilogue::Silu),
        matmul(DType::BF16, 72),
        tf32,
        matmul(DType::F64, 72),
        products::matmul(
            DType::F16,
            (&[2, 77, 64], Layout::Turned),
            (&[64, 77], Layout::Cast),
            Epilogue::Heads,
        ),
    ]
}

/// Products whose fastest kernels on an H200 predictions were wrong about: tiles of three groups that fill it once,
/// a shallow one whose results are most of it, columns that copies cut, and columns so few that registers hold them.
#[test]
fn the_fastest_products_are_predicted_so() {
    use products::{Epilogue, Layout};
    let first = |m: usize, k: usize, n: usize| {
        let (a, b) = ((&[m, k][..], Layout::Plain), (&[k, n][..], Layout::Plain));
        let problem = products::matmul(DType::F16, a, b, Epilogue::None);
        let variant = &kernel::variants(&problem.spec, SM_90A)[0];
        kernel::render(&problem.spec, variant, SM_90A).unwrap().name
    };
    let names = [
        (25088, 512, 128),
        (100_352, 64, 256),
        (25088, 240, 40),
        (100_352, 96, 24),
    ]
    .map(|(m, k, n)| first(m, k, n));
    let expected = [
        "wgmma_matmul_f16_192x128x64_c3",
        "wgmma_matmul_f16_128x128x64",
        "wgmma_matmul_f16_256x64x64_c2",
        "gemm_direct",
    ];
    for (name, expected) in names.iter().zip(expected) {
        assert!(name.contains(expected), "{name}, not {expected}");
    }
}

/// A language model's last product: rows of words begin at any multiple of four bytes, or of sixteen.
#[test]
fn results_larger_than_caches_are_streamed() {
    use products::{Epilogue, Layout};
    let own = |rows: usize, words: usize| {
        let shapes = (
            (&[rows, 768][..], Layout::Plain),
            (&[768, words][..], Layout::Turned),
        );
        let problem = products::matmul(DType::F16, shapes.0, shapes.1, Epilogue::None);
        best_sources(&[problem], SM_90A, 2, &|template| template == "gemm_wgmma")
    };
    let (large, small) = ([own(4096, 50257), own(4096, 50256)].concat(), own(512, 50257));
    let is_streamed = |source: &&Source| {
        let stores = [
            "rt_stream(out0",
            "rt_stream<8>(out0",
            "rt_stream(reinterpret_cast<RtPack",
        ];
        stores.iter().any(|store| source.text.contains(store))
    };
    assert_eq!((large.len(), large.iter().filter(is_streamed).count()), (4, 4));
    assert_eq!(small.iter().filter(is_streamed).count(), 0);
    // All rows of tiles are one group, so that the words are read once.
    for source in &large {
        let n_rows = if source.name.contains("_256x") { 16 } else { 32 };
        let places = format!("rt_tile_place<{n_rows}>");
        assert!(source.text.contains(&places), "{}", source.name);
    }
    compile_without_spills(&large, SM_90A);
}

#[test]
fn product_kernels_compile_for_one_architecture() {
    let all = sources_of(&some_products(), SM_90A, |template, _| {
        template.starts_with("gemm")
    });
    compile_without_spills(&all, SM_90A);
}

#[test]
fn product_kernels_compile_everywhere() {
    // A fourth of the variants on each, another one on the next.
    let problems = some_products();
    for (turn, arch) in archs().into_iter().enumerate() {
        for problem in [&problems[..1], &problems[2..3]] {
            let some = sources_of(problem, arch, |template, number| {
                template.starts_with("gemm") && number % 4 == turn % 4
            });
            compile_without_spills(&some, arch);
        }
    }
}

fn snapshot(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../snapshots/kernels");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// The kernel that `template` offers first, as a person reads it.
fn canonical(problem: &Problem, template: &str, arch: Arch) -> String {
    let variants = kernel::variants(&problem.spec, arch);
    let variant = variants
        .iter()
        .find(|variant| variant.template == template)
        .unwrap();
    let source = kernel::render(&problem.spec, variant, arch).unwrap();
    format!("{}{}", source.header, kernel::prelude::kernel_part(&source.text))
}

#[test]
fn product_kernels_read_well() {
    let [sm_75, sm_80] = [75, 80].map(|sm| Arch { sm, specific: false });
    let problems = some_products();
    snapshot(
        "gemm_mma__matmul_f16__sm_75",
        &canonical(&problems[0], "gemm_mma", sm_75),
    );
    snapshot(
        "gemm_mma__conv_f16__sm_80",
        &canonical(&problems[2], "gemm_mma", sm_80),
    );
    snapshot(
        "gemm_simt__matmul_f32__sm_80",
        &canonical(&problems[1], "gemm_simt", sm_80),
    );
    snapshot(
        "gemm_wgmma__matmul_f16__sm_90a",
        &canonical(&problems[0], "gemm_wgmma", SM_90A),
    );
    let [stored, read] = &products::handed_over_of_models(DType::F16)[..2] else {
        panic!("a layer stores sums of rows and reads them");
    };
    snapshot(
        "gemm_mma__stores_sums_f16__sm_90a",
        &canonical(stored, "gemm_mma", SM_90A),
    );
    snapshot(
        "gemm_wgmma__reads_sums_f16__sm_90a",
        &canonical(read, "gemm_wgmma", SM_90A),
    );
    let thin = &products::thin_of_models(DType::F16)[0];
    snapshot(
        "gemm_direct__matmul_f16__sm_90a",
        &canonical(thin, "gemm_direct", SM_90A),
    );
    let head = &products::skinny_of_models(DType::F16)[2];
    snapshot("gemv__matmul_f16__sm_80", &canonical(head, "gemv", sm_80));
}

/// Every variant of some templates as a row: what a change of the cost model moves.
fn table(problems: &[Problem], arch: Arch, is_own: impl Fn(&str) -> bool) -> String {
    let mut table = String::new();
    for problem in problems {
        let ops = problem.spec.text();
        writeln!(table, "{}\n{ops}", problem.label).unwrap();
        for variant in kernel::variants(&problem.spec, arch) {
            if !is_own(&variant.template) {
                continue;
            }
            let source = kernel::render(&problem.spec, &variant, arch).unwrap();
            let launch = source.launch;
            writeln!(
                table,
                "  {:9.1} us  {} blocks of {}, {} B shared, {} B workspace  {}",
                variant.predicted_us,
                launch.grid[0],
                launch.block[0],
                launch.smem_bytes,
                source.workspace_bytes,
                source.name
            )
            .unwrap();
        }
    }
    table
}

#[test]
fn product_variants_as_a_table() {
    let own = |template: &str| template.starts_with("gemm");
    snapshot("gemm_variants", &table(&some_products(), SM_90A, own));
    let all = |_: &str| true;
    snapshot(
        "gemv_variants",
        &table(&products::skinny_of_models(DType::F16), SM_90A, all),
    );
}

#[test]
fn attention_and_window_variants_as_a_table() {
    let orin = Arch {
        sm: 87,
        specific: false,
    };
    for (arch, name) in [(orin, "sm_87"), (SM_90A, "sm_90a")] {
        let attention = table(&attention_regions::of_models(), arch, |_| true);
        snapshot(&format!("attention_variants__{name}"), &attention);
        let window = table(&window_regions::of_models(), arch, |_| true);
        snapshot(&format!("window_variants__{name}"), &window);
    }
}

#[test]
fn attention_without_asynchronous_copies_reads_well() {
    let sm_75 = Arch {
        sm: 75,
        specific: false,
    };
    let problem = &attention_regions::of_models()[0];
    snapshot(
        "attention_mma__heads__sm_75",
        &canonical(problem, "attention_mma", sm_75),
    );
}

fn all_problems() -> Vec<Problem> {
    [
        regions::pointwise(),
        regions::moves(),
        regions::rows(),
        regions::reductions(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[test]
#[ignore = "prints every kernel, to read"]
fn dump() {
    let problems = all_problems();
    for source in sources(&problems, SM_90A) {
        println!("{}{}", source.header, kernel::prelude::kernel_part(&source.text));
    }
}
