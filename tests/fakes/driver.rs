//! The fake driver of `cuda.cpp`, compiled once for each test binary.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(concat!(env!("CARGO_CRATE_NAME"), "-driver"));
    fs::create_dir_all(&folder).unwrap();
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "g++".to_owned());
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fakes/cuda.cpp");
    let status = Command::new(compiler)
        .args(["-std=c++17", "-O1", "-shared", "-fPIC", "-o"])
        .arg(folder.join("libcuda.so"))
        .arg(source)
        .status()
        .expect("the tests need a C++ compiler");
    assert!(status.success(), "the fake driver does not compile");
    folder
});

/// The folder of the fake `libcuda.so`, for `LD_LIBRARY_PATH`.
pub fn folder() -> &'static Path {
    &FOLDER
}
