//! What the compiler made of the matrix and vector templates, as machine instructions.
//!
//! Needs an NVRTC and an `nvdisasm` (`make sass-tools`, or `RTRT_NVDISASM`); without them these
//! tests print why they do nothing.

#![cfg(feature = "builder")]

#[path = "hostexec/attention_regions.rs"]
mod attention_regions;
#[path = "hostexec/byte_products.rs"]
mod byte_products;
#[path = "hostexec/products.rs"]
mod products;
#[path = "hostexec/regions.rs"]
mod regions;
mod tiers;
#[path = "hostexec/window_regions.rs"]
mod window_regions;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use products::{Epilogue, Layout};
use regions::Problem;
use rtrt_codegen::compile::{self, Cache};
use rtrt_codegen::ir::DType;
use rtrt_codegen::kernel::{self, Arch, Source, Variant};
use tiers::have_nvrtc;

const fn arch(sm: u32, specific: bool) -> Arch {
    Arch { sm, specific }
}

const ARCHS: [Arch; 4] = [arch(75, false), arch(80, false), arch(87, false), arch(90, true)];

/// Where `nvdisasm` is; says so where there is none.
fn nvdisasm() -> Option<PathBuf> {
    let installed = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".nvrtc/tools/nvidia/cu13/bin/nvdisasm");
    let path = std::env::var_os("RTRT_NVDISASM").map_or(installed, PathBuf::from);
    if path.exists() {
        return Some(path);
    }
    eprintln!("ignored: no nvdisasm at {} (make sass-tools)", path.display());
    None
}

/// The mnemonics of a kernel, such as `LDG.E.128.CONSTANT`, one per instruction.
fn mnemonics(nvdisasm: &PathBuf, source: &Source, arch: Arch) -> Vec<String> {
    let cubins = compile::compile(std::slice::from_ref(source), arch, &Cache::none(), &|_, _| {}).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let cubin = folder.path().join("kernel.cubin");
    fs::write(&cubin, &cubins[0].bytes[..]).unwrap();
    let result = Command::new(nvdisasm).arg("-c").arg(&cubin).output().unwrap();
    assert!(
        result.status.success(),
        "{}",
        String::from_utf8_lossy(&result.stderr)
    );
    String::from_utf8(result.stdout)
        .unwrap()
        .lines()
        .filter_map(mnemonic)
        .collect()
}

/// `/*0010*/ @!P0 LDG.E R0, desc[..][R2.64] ;` has the mnemonic `LDG.E`.
fn mnemonic(line: &str) -> Option<String> {
    let (_, after) = line.split_once("*/")?;
    let mut words = after.split_whitespace();
    let first = words.next()?;
    let name = if first.starts_with('@') {
        words.next()?
    } else {
        first
    };
    let is_name = name.starts_with(|c: char| c.is_ascii_uppercase());
    is_name.then(|| name.trim_end_matches(';').to_owned())
}

/// What a kernel's instructions have to be.
#[derive(Clone, Copy)]
struct Claim {
    /// Each begins at least one mnemonic.
    has: &'static [&'static str],
    /// None begins any.
    lacks: &'static [&'static str],
}

const NO_SPILLS: &[&str] = &["LDL", "STL"];

/// What `kernel` does not do of what is claimed.
fn broken(mnemonics: &[String], claim: Claim) -> Vec<String> {
    let begins = |prefix: &str| {
        let mut parts = prefix.split('*');
        let (head, rest) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        mnemonics
            .iter()
            .any(|name| name.starts_with(head) && name.contains(rest))
    };
    let missing = claim.has.iter().filter(|prefix| !begins(prefix));
    let present = claim.lacks.iter().filter(|prefix| begins(prefix));
    missing
        .map(|prefix| format!("no {prefix}"))
        .chain(present.map(|prefix| format!("has {prefix}")))
        .collect()
}

/// The `most` best variants of `template`; where they have a width, those whose
/// vectors of `f16` are sixteen bytes.
fn sources(problem: &Problem, template: &str, arch: Arch, most: usize) -> Vec<Source> {
    let variants = kernel::variants(&problem.spec, arch);
    let is_wide = |variant: &Variant| variant.knobs.get("width").is_none_or(|&width| width == 8);
    let own = variants
        .iter()
        .filter(|variant| variant.template == template && is_wide(variant))
        .take(most);
    own.map(|variant| kernel::render(&problem.spec, variant, arch).unwrap())
        .collect()
}

/// Checks the best variants on every architecture; `claim` gives nothing where the template
/// offers none.
fn check(problem: &Problem, template: &str, most: usize, claim: impl Fn(Arch) -> Option<Claim>) {
    let (true, Some(nvdisasm)) = (have_nvrtc(), nvdisasm()) else {
        return;
    };
    let mut wrong = Vec::new();
    for arch in ARCHS {
        let Some(claim) = claim(arch) else {
            continue;
        };
        let found = sources(problem, template, arch, most);
        assert!(
            !found.is_empty(),
            "{template} refuses {} on {}",
            problem.label,
            compile::arch_name(arch)
        );
        for source in found {
            for broken in broken(&mnemonics(&nvdisasm, &source, arch), claim) {
                wrong.push(format!(
                    "{} on {}: {broken}",
                    source.name,
                    compile::arch_name(arch)
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Matrix instructions of one kind, and copies that go on meanwhile where there are any.
fn matrix(arch: Arch, kind: &'static [&'static str], old: &'static [&'static str]) -> Claim {
    Claim {
        has: if arch.sm >= 80 { kind } else { old },
        lacks: NO_SPILLS,
    }
}

fn matmul(dtype: DType, tf32: bool) -> Problem {
    let plain = Layout::Plain;
    let mut problem = products::matmul(
        dtype,
        (&[2048, 512], plain),
        (&[512, 1536], plain),
        Epilogue::BiasResidualRelu,
    );
    problem.spec.options.tf32 = tf32;
    problem
}

#[test]
fn products_of_halves_use_tensor_cores() {
    check(&matmul(DType::F16, false), "gemm_mma", 2, |arch| {
        let now = &[
            "HMMA.16816.F32",
            "LDGSTS.E*.128",
            "LDSM.16.M",
            "LDSM.16.MT",
            "LDG.E*.128",
            "STG.E*.128",
        ];
        Some(matrix(
            arch,
            now,
            &[
                "HMMA.1688.F32",
                "LDSM.16.M",
                "LDSM.16.MT",
                "LDG.E*.128",
                "STG.E*.128",
            ],
        ))
    });
    check(&matmul(DType::BF16, false), "gemm_mma", 1, |arch| {
        let now = &["HMMA.16816.F32.BF16", "LDGSTS.E*.128", "LDSM.16.M"];
        (arch.sm >= 80).then(|| matrix(arch, now, now))
    });
}

#[test]
fn windows_of_few_channels_use_tensor_cores() {
    check(&window_regions::first_layer(), "window_mma", 2, |arch| {
        let now = &["HMMA.16816.F32", "LDS*.128", "STG.E*.128"];
        Some(matrix(arch, now, &["HMMA.1688.F32", "LDS*.128", "STG.E*.128"]))
    });
}

#[test]
fn windows_apart_use_instructions_of_groups() {
    let claim = Claim {
        has: &["HGMMA.64x64x16.F32", "STG.E*.128"],
        lacks: &["LDL", "STL", "HMMA.16816"],
    };
    check(
        &window_regions::first_layer(),
        "window_wgmma",
        usize::MAX,
        |arch| arch.specific.then_some(claim),
    );
}

#[test]
fn products_by_groups_of_warps_use_their_instructions() {
    let claim = |kind| Claim {
        has: kind,
        lacks: &["LDL", "STL", "HMMA.16816"],
    };
    let halves = claim(&["HGMMA.64x*F32", "UTMALDG.3D", "SYNCS", "STG.E*.128"]);
    check(&matmul(DType::F16, false), "gemm_wgmma", usize::MAX, |arch| {
        arch.specific.then_some(halves)
    });
    let pixels = claim(&["HGMMA.64x*F32", "UTMALDG.4D.IM2COL"]);
    let images = products::Conv {
        batch: 8,
        size: [28, 28],
        channels: 128,
        filters: 128,
        ..products::CONV
    };
    let conv = products::conv(DType::F16, images, true, Epilogue::BiasResidualRelu);
    check(&conv, "gemm_wgmma", 3, |arch| arch.specific.then_some(pixels));
    let brain = claim(&["HGMMA.64x*BF16", "UTMALDG.3D"]);
    check(&matmul(DType::BF16, false), "gemm_wgmma", 1, |arch| {
        arch.specific.then_some(brain)
    });
}

#[test]
fn products_of_bytes_use_tensor_cores() {
    let large = |stored| byte_products::byte_product(stored, DType::F32, &[2048, 512], &[512, 1536]);
    let claim = |kind| Claim {
        has: kind,
        lacks: &["LDL", "STL", "I2F.S8"],
    };
    let integers = large(DType::I8);
    check(&integers, "gemm_wgmma", usize::MAX, |arch| {
        arch.specific
            .then_some(claim(&["IGMMA.64x*S8", "UTMALDG.3D", "SYNCS"]))
    });
    check(&integers, "gemm_mma", 2, |arch| {
        (arch.sm >= 80).then_some(claim(&["IMMA.16832.S8", "LDGSTS.E*.128", "LDSM.16.M"]))
    });
    check(&large(DType::F8E4M3), "gemm_wgmma", usize::MAX, |arch| {
        arch.specific.then_some(claim(&["QGMMA.64x*E4M3", "UTMALDG.3D"]))
    });
}

#[test]
fn products_in_tf32_use_tensor_cores() {
    check(&matmul(DType::F32, true), "gemm_mma", 1, |arch| {
        let now = &["HMMA.1688.F32.TF32", "LDGSTS.E*.128"];
        (arch.sm >= 80).then(|| matrix(arch, now, now))
    });
}

#[test]
fn products_in_full_precision_do_not() {
    let claim = Claim {
        has: &["FFMA", "LDG.E*.128", "LDS*.128", "STS*.128"],
        lacks: &["LDL", "STL", "HMMA"],
    };
    check(&matmul(DType::F32, false), "gemm_simt", 1, |_| Some(claim));
}

#[test]
fn thin_products_keep_to_registers() {
    check(
        &products::thin_of_models(DType::F16)[1],
        "gemm_direct",
        1,
        |arch| {
            let claim = |has| Claim {
                has,
                lacks: &["LDL", "STL", "LDS", "STS", "BAR.SYNC"],
            };
            (arch.sm >= 80).then(|| claim(&["HMMA.16816.F32", "LDG.E*.128", "STG.E*.128"]))
        },
    );
}

#[test]
fn products_of_few_rows_read_sixteen_bytes_at_once() {
    let claim = Claim {
        has: &["LDG.E*.128"],
        lacks: NO_SPILLS,
    };
    check(&products::skinny_of_models(DType::F16)[3], "gemv", 1, |_| {
        Some(claim)
    });
}

#[test]
fn attention_uses_tensor_cores() {
    check(&attention_regions::of_models()[0], "attention_mma", 1, |arch| {
        let now = &[
            "HMMA.16816.F32",
            "LDGSTS.E*.128",
            "LDSM.16.M",
            "LDSM.16.MT",
            "MUFU.EX2",
        ];
        Some(matrix(
            arch,
            now,
            &["HMMA.1688.F32", "LDSM.16.M", "LDSM.16.MT", "MUFU.EX2"],
        ))
    });
}

#[test]
fn attention_by_groups_of_warps_uses_their_instructions() {
    for problem in [
        &attention_regions::of_models()[0],
        &attention_regions::of_models()[2],
    ] {
        check(problem, "attention_wgmma", usize::MAX, |arch| {
            let claim = Claim {
                has: &["HGMMA.64x", "LDGSTS.E*.128", "MUFU.EX2"],
                lacks: &["LDL", "STL", "HMMA.16816"],
            };
            arch.specific.then_some(claim)
        });
    }
}

#[test]
fn attention_of_copied_tiles_overlaps_its_products() {
    for problem in [
        &attention_regions::of_models()[0],
        &attention_regions::of_models()[2],
    ] {
        check(problem, "attention_stream", usize::MAX, |arch| {
            let claim = Claim {
                has: &["HGMMA.64x", "UTMALDG.4D", "SYNCS", "MUFU.EX2", "USETMAXREG"],
                lacks: &["LDL", "STL", "HMMA.16816", "LDGSTS"],
            };
            arch.specific.then_some(claim)
        });
    }
}

const VECTORS: Claim = Claim {
    has: &["LDG.E*.128", "STG.E*.128"],
    lacks: NO_SPILLS,
};

#[test]
fn vector_templates_move_sixteen_bytes_at_once() {
    let mut b = regions::Build::new(1);
    let (x, y) = (
        b.input(DType::F16, &[1024, 4096]),
        b.input(DType::F16, &[1024, 4096]),
    );
    let sum = b.op("add", &[x, y]);
    let z = b.op("relu", &[sum]);
    let chain = b.done("add relu", rtrt_codegen::rewrite::RegionKind::Pointwise, &[z]);
    check(&chain, "pointwise", 1, |_| Some(VECTORS));
    let mut b = regions::Build::new(2);
    let x = b.input(DType::F16, &[1024, 1024]);
    let z = b.with("softmax", &[x], regions::int("axis", 1));
    let rows = b.done("softmax", rtrt_codegen::rewrite::RegionKind::Row, &[z]);
    check(&rows, "row", 1, |_| Some(VECTORS));
    check(&window_regions::of_models()[0], "window_strip", 1, |_| {
        Some(VECTORS)
    });
}

#[test]
fn mnemonics_are_read_with_and_without_predicates() {
    let read = |line: &str| mnemonic(line);
    assert_eq!(
        read("        /*0010*/                   LDG.E.128 R4, [R2] ;").as_deref(),
        Some("LDG.E.128")
    );
    assert_eq!(
        read("        /*0020*/              @!P0 EXIT ;").as_deref(),
        Some("EXIT")
    );
    assert_eq!(read(".L_x_0:"), None);
    let kernel = ["LDG.E.128.CONSTANT".to_owned(), "LDL.64".to_owned()];
    let claim = Claim {
        has: &["LDG.E*.128", "HMMA"],
        lacks: NO_SPILLS,
    };
    assert_eq!(broken(&kernel, claim), ["no HMMA", "has LDL"]);
}
