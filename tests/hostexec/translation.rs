//! Cases as the text of one C++ program.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use rtrt_codegen::ir::{PixelBox, TiledView};
use rtrt_codegen::kernel::Param;

use crate::harness::{Case, Sections};

/// The sections of a kernel's text, in order; the last one is the kernel.
fn sections(text: &str) -> Vec<(&str, &str)> {
    text.split("// ==== ")
        .skip(1)
        .map(|section| section.split_once('\n').unwrap_or((section, "")))
        .collect()
}

/// A section before the kernel, or what stands for it.
fn section(name: &str, text: &str) -> String {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/hostexec/prelude/{name}.h"));
    if own.exists() {
        format!("#include \"prelude/{name}.h\"\n")
    } else {
        format!("#line 1 \"{name}.cuh\"\n{text}\n")
    }
}

/// A program with a function per case, see `emulator/main.cpp`. What a kernel is made of has
/// no name outside, which keeps its shared variables in one section.
pub fn translation_unit(cases: &[Case], shared: Sections) -> String {
    let mut text = "#include \"prelude/prelude.h\"\nnamespace {\n".to_owned();
    let mut seen = BTreeSet::new();
    for (number, case) in cases.iter().enumerate() {
        let mut parts = sections(&case.source.text);
        let (_, kernel) = parts.pop().expect("a source ends with the kernel");
        let before: String = parts
            .into_iter()
            .filter(|(name, _)| {
                *name != "prelude" && (shared == Sections::Own || seen.insert((*name).to_owned()))
            })
            .map(|(name, own)| section(name, own))
            .collect();
        let kernel = kernel.replace("extern \"C\" __global__", "__global__");
        let open = format!("namespace k{number} {{\n");
        match shared {
            Sections::Shared => text.push_str(&(before + &open)),
            Sections::Own => text.push_str(&(open + &before)),
        }
        writeln!(text, "#line 1 \"{}\"\n{kernel}}}  // namespace", case.source.name).unwrap();
    }
    for (number, case) in cases.iter().enumerate() {
        text.push_str(&launch(number, case));
    }
    text.push_str("}  // namespace\nint main(int argc, char** argv) {\n  static void (*const cases[])() = {");
    for number in 0..cases.len() {
        write!(text, "case{number}, ").unwrap();
    }
    writeln!(
        text,
        "}};\n  return host::run(argc, argv, cases, {});\n}}",
        cases.len()
    )
    .unwrap();
    text
}

fn braced<T: ToString>(values: &[T]) -> String {
    let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
    format!("{{{}}}", texts.join(", "))
}

/// An operand as the emulator's copies read it.
fn tensor_map(operand: &str, view: &TiledView) -> String {
    let whole = |values: &[usize], rank: usize, rest: usize| {
        let mut all = values.to_vec();
        all.resize(rank, rest);
        braced(&all)
    };
    let pixels = view
        .pixels
        .map_or("false".to_owned(), |PixelBox { lower, upper, steps }| {
            format!("true, {}, {}, {}", braced(&lower), braced(&upper), braced(&steps))
        });
    format!(
        "host::TensorMap{{{operand}, {}, {}, {}, {}, {pixels}}}",
        view.element_bytes,
        whole(&view.dims, 5, 1),
        whole(&view.strides, 4, 16),
        whole(&view.tile, 5, 1)
    )
}

/// What memory holds before it is written: not-a-number, or an awkward integer.
pub fn poison(case: &Case) -> u8 {
    if case.outputs.iter().any(|ty| ty.dtype.is_float()) {
        0xff
    } else {
        0x5a
    }
}

/// Tiles of matrix kernels are written in words at least.
fn granule(case: &Case) -> usize {
    let in_words = ["gemm", "attention"]
        .iter()
        .any(|stem| case.source.template.starts_with(stem));
    let narrow = case.inputs.iter().any(|input| input.ty().dtype.is_int());
    if in_words && !narrow { 4 } else { 1 }
}

/// A kernel with a workspace runs twice: it must leave it as it needs it.
pub fn n_launches(case: &Case) -> usize {
    if case.source.workspace_bytes > 0 { 2 } else { 1 }
}

/// Blocks of a cluster, which the kernel's text says.
fn cluster(case: &Case) -> usize {
    let (_, dims) = case
        .source
        .text
        .split_once("__cluster_dims__(")
        .unwrap_or(("", "1,"));
    let (first, _) = dims.split_once(',').expect("clusters have three dims");
    first.parse().expect("dims are numbers")
}

fn launch(number: usize, case: &Case) -> String {
    let (n_inputs, n_outputs) = (case.inputs.len(), case.outputs.len());
    let poison = poison(case);
    let mut text = format!(
        "static host::Any in{number}[{}], out{number}[{}], workspace{number};\n",
        n_inputs + 1,
        n_outputs + 1
    );
    let arguments: Vec<String> = case
        .source
        .params
        .iter()
        .map(|param| match param {
            Param::Input(position) => format!("in{number}[{position}]"),
            Param::Output(position) => format!("out{number}[{position}]"),
            Param::Workspace => format!("workspace{number}"),
            Param::Dim(value) => value.to_string(),
            Param::TensorMap { input, view } => tensor_map(&format!("in{number}[{input}]"), view),
        })
        .collect();
    writeln!(
        text,
        "static void body{number}() {{ k{number}::{}({}); }}",
        case.source.name,
        arguments.join(", ")
    )
    .unwrap();
    let label = case.label.replace(['"', '\\'], "'");
    writeln!(
        text,
        "static void case{number}() {{\n  host::begin({number}, \"{label}\");"
    )
    .unwrap();
    for (position, input) in case.inputs.iter().enumerate() {
        writeln!(
            text,
            "  in{number}[{position}] = host::input({}, {});",
            input.n_bytes(),
            case.weights.contains(&position)
        )
        .unwrap();
    }
    writeln!(
        text,
        "  workspace{number} = host::workspace({});",
        case.source.workspace_bytes
    )
    .unwrap();
    let [gx, gy, gz] = case.source.launch.grid;
    let [bx, by, bz] = case.source.launch.block;
    for _ in 0..n_launches(case) {
        for (position, output) in case.outputs.iter().enumerate() {
            writeln!(
                text,
                "  out{number}[{position}] = host::output({}, {poison});",
                output.n_bytes()
            )
            .unwrap();
        }
        writeln!(
            text,
            "  host::launch({{{{{gx}, {gy}, {gz}}}, {{{bx}, {by}, {bz}}}, {}, {}, {}, {poison}, body{number}}});",
            cluster(case),
            case.source.launch.smem_bytes,
            granule(case)
        )
        .unwrap();
        for (position, output) in case.outputs.iter().enumerate() {
            writeln!(
                text,
                "  host::write_output(out{number}[{position}], {});",
                output.n_bytes()
            )
            .unwrap();
        }
    }
    text.push_str("  host::finish();\n}\n");
    text
}
