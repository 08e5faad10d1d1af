//! A build that is killed breaks nothing, and the next one goes on from what it has done.

#![cfg(feature = "builder")]

mod tiers;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use tiers::have_nvrtc;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/digits/model.onnx");
/// Enough kernels for a build that takes a while.
const ARCHS: &str = "sm_75,sm_80,sm_86,sm_87,sm_89,sm_90,sm_90a,sm_120";
/// Kernels that are in the cache when the build is killed.
const N_CACHED: usize = 5;

fn compile(folder: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_rtrt-codegen"))
        .args(["compile", MODEL, "--arch", ARCHS, "-o", "model.engine"])
        .current_dir(folder.join("out"))
        .env("RTRT_CACHE_DIR", folder.join("cache"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The complete files of the kernel cache, and when they were written.
fn cached(folder: &Path) -> BTreeMap<PathBuf, SystemTime> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.join("cache")];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).into_iter().flatten().flatten() {
            // A file may get its last name in the meantime.
            let Ok(data) = entry.metadata() else { continue };
            if data.is_dir() {
                folders.push(entry.path());
            } else if !entry.file_name().to_string_lossy().starts_with('.') {
                found.insert(entry.path(), data.modified().unwrap());
            }
        }
    }
    found
}

#[test]
fn a_killed_build_leaves_what_was_there_and_what_is_cached() {
    if !have_nvrtc() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::create_dir(folder.join("out")).unwrap();
    let engine = folder.join("out/model.engine");
    fs::write(&engine, "an older one").unwrap();

    let mut build = compile(folder);
    while cached(folder).len() < N_CACHED {
        assert!(
            build.try_wait().unwrap().is_none(),
            "the build ended before it was killed"
        );
        sleep(Duration::from_millis(5));
    }
    build.kill().unwrap();
    build.wait().unwrap();
    assert_eq!(fs::read(&engine).unwrap(), b"an older one");
    assert_eq!(fs::read_dir(folder.join("out")).unwrap().count(), 1);

    let kept = cached(folder);
    assert!(compile(folder).wait().unwrap().success());
    let all = cached(folder);
    assert!(kept.len() < all.len());
    for (path, written) in kept {
        assert_eq!(
            all.get(&path),
            Some(&written),
            "{} was made again",
            path.display()
        );
    }
    let loads = Command::new(env!("CARGO_BIN_EXE_rtrt-codegen"))
        .arg("inspect")
        .arg(&engine)
        .output()
        .unwrap();
    assert!(loads.status.success());
}
