//! The house rules that a compiler does not check.
//!
//! Which module may know which is the `KNOWS` table; the prose version is in
//! `ARCHITECTURE.md`. A new arrow is a decision: make it here, in a commit that says why.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What each module of `src/` may name as `crate::..`, besides itself.
const KNOWS: &[(&str, &[&str])] = &[
    ("aside", &[]),
    ("hex", &[]),
    ("ir", &["hex"]),
    ("cuda", &[]),
    ("tile", &["ir"]),
    ("ops", &["ir", "tile"]),
    ("reference", &["ir", "ops"]),
    // Serves tests only, so it may look at what comes late; nothing but tests knows it.
    ("testing", &["ir", "tile", "ops", "reference", "rewrite"]),
    ("io", &["aside", "ir", "onnx"]),
    ("onnx", &["ir", "ops"]),
    ("specialize", &["ir", "tile", "ops", "reference"]),
    ("rewrite", &["ir", "tile", "ops", "reference"]),
    ("precision", &["aside", "io", "ir", "ops", "reference"]),
    ("kernel", &["hex", "ir", "tile", "ops", "rewrite"]),
    ("compile", &["aside", "hex", "kernel", "cuda"]),
    (
        "tune",
        &[
            "aside",
            "hex",
            "ir",
            "ops",
            "reference",
            "kernel",
            "compile",
            "cuda",
        ],
    ),
    ("plan", &["ir", "rewrite", "kernel", "compile", "tune", "engine"]),
    ("engine", &["aside", "hex", "ir"]),
    ("runtime", &["ir", "engine", "cuda"]),
    ("c_api", &["ir", "engine", "cuda", "runtime"]),
];

/// The facade and the command line see everything.
const FREE: &[&str] = &["lib", "main", "bin", "cli", "pipeline"];

fn files_of(folder: &Path, kind: &str, into: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files_of(&path, kind, into);
        } else if path.extension().is_some_and(|extension| extension == kind) {
            into.push(path);
        }
    }
}

/// Files of `src/` with the top-level module they belong to.
fn sources() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    files_of(&root, "rs", &mut files);
    files
        .into_iter()
        .map(|path| {
            let below = path.strip_prefix(&root).unwrap();
            let module = below
                .iter()
                .next()
                .unwrap()
                .to_str()
                .unwrap()
                .trim_end_matches(".rs")
                .to_owned();
            let text = fs::read_to_string(&path).unwrap();
            (module, below.to_owned(), text)
        })
        .collect()
}

/// The line without what follows `//`, so that links in comments do not count.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

fn named_modules(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    // A module's own tests, here or in `tests.rs`, may use `testing`, and whatever makes their input.
    let shipped = text.lines().take_while(|line| line.trim() != "#[cfg(test)]");
    for line in shipped.map(code) {
        for after in line.split("crate::").skip(1) {
            let name: String = after
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect();
            names.insert(name);
        }
    }
    names
}

#[test]
fn modules_know_only_what_comes_before_them() {
    let table: BTreeMap<&str, &[&str]> = KNOWS.iter().copied().collect();
    let mut wrong = Vec::new();
    for (module, path, text) in sources() {
        let is_test = path.file_name().is_some_and(|name| name == "tests.rs");
        if is_test || FREE.contains(&module.as_str()) {
            continue;
        }
        let Some(allowed) = table.get(module.as_str()) else {
            wrong.push(format!(
                "{}: module `{module}` is not in the table",
                path.display()
            ));
            continue;
        };
        for name in named_modules(&text) {
            let known = name == module || allowed.contains(&name.as_str());
            if !known && table.contains_key(name.as_str()) {
                wrong.push(format!("{}: `{module}` may not know `{name}`", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Files outside `cuda` that may hold an `unsafe` block: the `gemm` crate takes raw pointers, and
/// programs in C give them.
const UNSAFE_FILES: &[&str] = &["ops/product.rs", "c_api.rs"];

#[test]
fn only_cuda_is_unsafe() {
    let wrong: Vec<String> = sources()
        .into_iter()
        .filter(|(module, path, text)| {
            module != "cuda"
                && !UNSAFE_FILES.contains(&path.to_str().unwrap())
                && text
                    .lines()
                    .map(code)
                    .any(|line| line.contains("unsafe {") || line.contains("unsafe fn"))
        })
        .map(|(_, path, _)| path.display().to_string())
        .collect();
    assert!(wrong.is_empty(), "unsafe code outside `cuda`: {wrong:?}");
}

#[test]
fn every_source_file_says_what_it_is() {
    let wrong: Vec<String> = sources()
        .into_iter()
        .filter(|(_, _, text)| !text.starts_with("//!"))
        .map(|(_, path, _)| path.display().to_string())
        .collect();
    assert!(wrong.is_empty(), "files without a `//!` header: {wrong:?}");
}

/// Kernel bodies must compile under g++ too: hardware access lives in `templates/device`.
#[test]
fn templates_hold_no_assembly_and_no_conditional_compilation() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates");
    let (mut files, mut wrong) = (Vec::new(), Vec::new());
    files_of(&root, "tera", &mut files);
    for path in files {
        for (number, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            let code = code(line);
            if code.contains("asm(") || code.contains("asm volatile") || code.trim_start().starts_with("#if")
            {
                wrong.push(format!("{}:{}", path.file_name().unwrap().display(), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}
