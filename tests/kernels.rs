//! Generated kernels as people read them, and as NVRTC compiles them.
//!
//! One canonical variant of each problem is kept whole in `snapshots/kernels`, the others as
//! rows of a table. The compile tests need an NVRTC and say so where there is none.

#![cfg(feature = "builder")]

#[path = "hostexec/attention_regions.rs"]
mod attention_regions;
#[path = "hostexec/products.rs"]
mod products;
#[path = "hostexec/regions.rs"]
mod regions;
#[path = "hostexec/window_regions.rs"]
mod window_regions;

use regions::Problem;
use rtrt_codegen::compile::{self, Cache};
use rtrt_codegen::cuda::Nvrtc;
use rtrt_codegen::ir::DType;
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
    compile_on(&window_regions::pools(true)[..4], &[SM_90A]);
    compile_on(&window_regions::pools(false)[..4], &[SM_90A]);
    compile_on(&window_regions::groups(), &[SM_90A]);
    compile_on(&window_regions::transposed()[..8], &[SM_90A]);
    compile_on(&window_regions::of_models(), &archs());
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

#[test]
fn product_kernels_compile_for_one_architecture() {
    compile_on(&some_products(), &[SM_90A]);
}

#[test]
fn product_kernels_compile_everywhere() {
    compile_on(&some_products()[..1], &archs());
    compile_on(&some_products()[2..3], &archs());
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
}

/// Every variant of the matrix templates as a row: what a change of the cost model moves.
#[test]
fn product_variants_as_a_table() {
    let mut table = String::new();
    for problem in &some_products() {
        let ops = problem.spec.text();
        table.push_str(&format!("{}\n{ops}\n", problem.label));
        for variant in kernel::variants(&problem.spec, SM_90A) {
            if !variant.template.starts_with("gemm") {
                continue;
            }
            let source = kernel::render(&problem.spec, &variant, SM_90A).unwrap();
            let launch = source.launch;
            table.push_str(&format!(
                "  {:9.1} us  {} blocks of {}, {} B shared, {} B workspace  {}\n",
                variant.predicted_us,
                launch.grid[0],
                launch.block[0],
                launch.smem_bytes,
                source.workspace_bytes,
                source.name
            ));
        }
    }
    snapshot("gemm_variants", &table);
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
#[ignore = "prints how variants rank, to judge predictions"]
fn ranking() {
    let orin = Arch {
        sm: 87,
        specific: false,
    };
    let problems = [
        attention_regions::of_models(),
        window_regions::of_models(),
        some_products(),
    ]
    .concat();
    for problem in &problems {
        for arch in [orin, SM_90A] {
            println!("{} on {}", problem.label, compile::arch_name(arch));
            let variants = kernel::variants(&problem.spec, arch);
            let mut seen: Vec<&str> = Vec::new();
            for variant in &variants {
                let first = !seen.contains(&variant.template.as_str());
                if first || seen.len() == 1 {
                    println!(
                        "  {:8.2} us {} {:?}",
                        variant.predicted_us, variant.template, variant.knobs
                    );
                }
                if first {
                    seen.push(&variant.template);
                }
            }
        }
    }
}

#[test]
#[ignore = "prints every kernel, to read"]
fn dump() {
    let problems = all_problems();
    for source in sources(&problems, SM_90A) {
        println!("{}{}", source.header, kernel::prelude::kernel_part(&source.text));
    }
}
