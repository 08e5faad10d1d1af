//! Generated kernels as people read them, and as NVRTC compiles them.
//!
//! One canonical variant of each problem is kept whole in `snapshots/kernels`, the others as
//! rows of a table. The compile tests need an NVRTC and say so where there is none.

#![cfg(feature = "builder")]

#[path = "hostexec/attention_regions.rs"]
mod attention_regions;
#[path = "hostexec/regions.rs"]
mod regions;
#[path = "hostexec/window_regions.rs"]
mod window_regions;

use regions::Problem;
use rtrt_codegen::compile::{self, Cache};
use rtrt_codegen::cuda::Nvrtc;
use rtrt_codegen::kernel::{self, Arch, Source};

const SM_90A: Arch = Arch {
    sm: 90,
    specific: true,
};

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
    problems
        .iter()
        .flat_map(|problem| {
            kernel::variants(&problem.spec, arch)
                .into_iter()
                .map(|variant| kernel::render(&problem.spec, &variant, arch).unwrap())
        })
        .collect()
}

fn compile_on(problems: &[Problem], archs: &[Arch]) {
    if let Err(missing) = Nvrtc::get() {
        eprintln!("ignored: {missing}");
        return;
    }
    for &arch in archs {
        let sources = sources(problems, arch);
        let cubins = compile::compile(&sources, arch, &Cache::none(), &|_, _| {}).unwrap();
        for (source, cubin) in sources.iter().zip(cubins) {
            assert_eq!(
                cubin.resources.local_bytes, 0,
                "{} spills on {}:\n{}",
                source.name,
                compile::arch_name(arch),
                kernel::prelude::kernel_part(&source.text)
            );
        }
    }
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

/// Shapes of models: what decides on registers is depth and kind.
#[test]
fn attention_kernels_compile() {
    compile_on(&attention_regions::half(), &[SM_90A]);
    compile_on(&attention_regions::wide(), &[SM_90A]);
    compile_on(&attention_regions::decode(), &[SM_90A]);
    compile_on(&attention_regions::of_models(), &archs());
}

#[test]
fn window_kernels_compile() {
    compile_on(&window_regions::depthwise(), &[SM_90A]);
    compile_on(&window_regions::pools()[..8], &[SM_90A]);
    compile_on(&window_regions::groups(), &[SM_90A]);
    compile_on(&window_regions::transposed()[..8], &[SM_90A]);
    compile_on(&window_regions::of_models(), &archs());
}

fn all_problems() -> Vec<Problem> {
    [regions::pointwise(), regions::moves(), regions::rows(), regions::reductions()]
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
