//! Compiles generated kernels with g++ against an emulating prelude, and runs them.
//!
//! A section of a kernel's text (`// ==== name`) for which `prelude/<name>.h` exists is
//! replaced by it: those are the sections with assembly. Everything else, the kernel itself
//! above all, is compiled as it is.

#![allow(dead_code, reason = "each test crate uses a part of it")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use rtrt_codegen::ir::{DType, HostTensor, TensorType};
use rtrt_codegen::kernel::{Param, Source};
use rtrt_codegen::ops::evaluate::to_vec;

/// A kernel and what to run it on.
pub struct Case {
    pub label: String,
    pub source: Source,
    pub inputs: Vec<HostTensor>,
    pub outputs: Vec<TensorType>,
}

/// Whether there is a compiler; says so where there is none.
pub fn have_compiler() -> bool {
    let found = Command::new("g++").arg("--version").output().is_ok();
    if !found {
        eprintln!("ignored: kernels are run on the CPU by g++, which is not installed");
    }
    found
}

/// Runs every case in one process; outputs in the order of the cases.
///
/// # Panics
/// If the text does not compile, a kernel hangs or touches memory that is not its own.
pub fn run_all(cases: &[Case]) -> Vec<Vec<HostTensor>> {
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("kernels.cpp");
    fs::write(&unit, translation_unit(cases)).unwrap();
    compile(&unit, &folder.path().join("kernels"));
    let mut data = Vec::new();
    for case in cases {
        for input in &case.inputs {
            data.extend_from_slice(input.bytes());
        }
    }
    fs::write(folder.path().join("in"), data).unwrap();
    let run = Command::new(folder.path().join("kernels"))
        .current_dir(folder.path())
        .output()
        .unwrap();
    if !run.status.success() {
        let kept = std::env::temp_dir().join("rtrt-hostexec-failed.cpp");
        fs::copy(&unit, &kept).unwrap();
        panic!("{}: {}(text in {})", run.status, String::from_utf8_lossy(&run.stderr), kept.display());
    }
    read_outputs(cases, &fs::read(folder.path().join("out")).unwrap())
}

fn compile(unit: &Path, program: &Path) {
    let result = Command::new("g++")
        .args(["-std=c++17", "-O1", "-w", "-fno-strict-aliasing", "-ffp-contract=off", "-o"])
        .arg(program)
        .arg(unit)
        .output()
        .unwrap();
    if !result.status.success() {
        let kept = std::env::temp_dir().join("rtrt-hostexec-failed.cpp");
        fs::copy(unit, &kept).unwrap();
        let log = String::from_utf8_lossy(&result.stderr);
        let head: String = log.lines().take(30).collect::<Vec<_>>().join("\n");
        panic!("g++ refuses {}:\n{head}", kept.display());
    }
}

fn read_outputs(cases: &[Case], mut bytes: &[u8]) -> Vec<Vec<HostTensor>> {
    let mut results = Vec::new();
    for case in cases {
        let mut outputs = Vec::new();
        for ty in &case.outputs {
            let (own, rest) = bytes.split_at(ty.n_bytes());
            outputs.push(HostTensor::from_bytes(ty.dtype, &ty.dims(), own).unwrap());
            bytes = rest;
        }
        results.push(outputs);
    }
    results
}

/// The sections of a kernel's text, in order.
fn sections(text: &str) -> Vec<(&str, &str)> {
    text.split("// ==== ")
        .skip(1)
        .map(|section| section.split_once('\n').unwrap_or((section, "")))
        .collect()
}

fn translation_unit(cases: &[Case]) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostexec/prelude");
    let mut text = String::new();
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for case in cases {
        for (name, section) in sections(&case.source.text) {
            if name == "kernel" || seen.insert(name, section).is_some() {
                continue;
            }
            let own = fs::read_to_string(folder.join(format!("{name}.h"))).ok();
            writeln!(text, "// ==== {name}\n{}", own.as_deref().unwrap_or(section)).unwrap();
        }
    }
    for (number, case) in cases.iter().enumerate() {
        let (_, kernel) = *sections(&case.source.text).last().unwrap();
        let kernel = kernel.replace("extern \"C\" __global__", "__global__");
        writeln!(text, "namespace k{number} {{\n{kernel}}}  // namespace").unwrap();
    }
    text.push_str("int main() {\n  FILE* in = fopen(\"in\", \"rb\");\n  FILE* out = fopen(\"out\", \"wb\");\n");
    for (number, case) in cases.iter().enumerate() {
        text.push_str(&launch(number, case));
    }
    text.push_str("  fclose(out);\n  return 0;\n}\n");
    text
}

fn launch(number: usize, case: &Case) -> String {
    let mut text = format!("  {{\n    fprintf(stderr, \"running {}\\n\");\n", case.label.replace('"', "'"));
    for (position, input) in case.inputs.iter().enumerate() {
        writeln!(text, "    host::Any i{position} = host::read_input(in, {});", input.n_bytes()).unwrap();
    }
    for (position, output) in case.outputs.iter().enumerate() {
        writeln!(text, "    host::Any o{position} = {{host::allocate({}, 0xa5)}};", output.n_bytes()).unwrap();
    }
    let workspace = case.source.workspace_bytes;
    writeln!(text, "    host::Any w = {{host::allocate({workspace}, 0)}};").unwrap();
    let arguments: Vec<String> = case
        .source
        .params
        .iter()
        .map(|param| match param {
            Param::Input(position) => format!("i{position}"),
            Param::Output(position) => format!("o{position}"),
            Param::Workspace => "w".to_owned(),
            Param::Dim(value) => value.to_string(),
        })
        .collect();
    let [gx, gy, gz] = case.source.launch.grid;
    let [bx, by, bz] = case.source.launch.block;
    writeln!(
        text,
        "    host::launch({{{gx}, {gy}, {gz}}}, {{{bx}, {by}, {bz}}}, [&] {{ k{number}::{}({}); }});",
        case.source.name,
        arguments.join(", ")
    )
    .unwrap();
    for (position, output) in case.outputs.iter().enumerate() {
        writeln!(text, "    host::write_output(out, o{position}, {});", output.n_bytes()).unwrap();
    }
    text.push_str("  }\n");
    text
}

/// How far `found` may be from `wanted`: relative to the larger of the two and to one.
pub fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => 1e-11,
        DType::F32 => 2e-5,
        DType::F16 => 5e-3,
        DType::BF16 => 4e-2,
        DType::F8E4M3 | DType::F8E4M3Fnuz | DType::F8E5M2 | DType::F8E5M2Fnuz | DType::F4E2M1 => 0.3,
        _ => 0.0,
    }
}

/// The first difference that is too large, in words.
pub fn difference(found: &HostTensor, wanted: &HostTensor, tolerance: f64) -> Option<String> {
    if found.ty() != wanted.ty() {
        return Some(format!("found {}, wanted {}", found.ty(), wanted.ty()));
    }
    let (a, b) = (to_vec::<f64>(found), to_vec::<f64>(wanted));
    let wrong = (0..a.len()).find(|&i| {
        let (a, b) = (a[i], b[i]);
        let same = a == b || (a.is_nan() && b.is_nan());
        let close = (a - b).abs() <= tolerance * (1.0 + b.abs());
        !same && !close
    })?;
    Some(format!("element {wrong} of {} is {}, wanted {}", wanted.ty(), a[wrong], b[wrong]))
}
