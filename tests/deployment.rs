//! What `compile`, `inspect` and `refit` do for deployment: signed, stripped and portable engines, and what is
//! said of memory. Needs NVRTC, but no GPU.

#![cfg(feature = "builder")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use rtrt_codegen::engine;
use serde_json::Value;
use tempfile::TempDir;

mod tiers;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/digits/model.onnx");
/// A network whose filters are folded and packed in 8 bits.
const QUANTIZED: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/quantized/qdq_per_channel.onnx"
);

/// An empty folder, where there is an NVRTC.
fn workplace() -> Option<TempDir> {
    tiers::have_nvrtc().then(|| tempfile::tempdir().unwrap())
}

fn rtrt(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rtrt-codegen"))
        .args(arguments)
        .current_dir(folder)
        .env(
            "RTRT_CACHE_DIR",
            Path::new(env!("CARGO_TARGET_TMPDIR")).join("deployment-cache"),
        )
        .output()
        .unwrap()
}

/// What the command prints, which must succeed.
fn done(folder: &Path, arguments: &[&str]) -> String {
    let output = rtrt(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn expect_failure(folder: &Path, arguments: &[&str], exit: i32, words: &str) {
    let output = rtrt(folder, arguments);
    assert_eq!(
        output.status.code(),
        Some(exit),
        "{arguments:?}: {}",
        stderr(&output)
    );
    assert!(stderr(&output).contains(words), "{}", stderr(&output));
}

fn compile<'a>(model: &'a str, output: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["compile", model, "-o", output, "--arch"], more].concat()
}

#[test]
fn refitting_gives_what_was_stripped_to_the_byte() {
    let Some(folder) = workplace() else { return };
    let folder = folder.path();
    let settings: [(&str, &[&str]); 4] = [
        (
            MODEL,
            &[
                "sm_90a",
                "--fp16",
                "--minShapes=image:1x1x8x8",
                "--optShapes=image:4x1x8x8",
                "--maxShapes=image:12x1x8x8",
            ],
        ),
        (
            MODEL,
            &[
                "sm_80,sm_90a",
                "--fp16",
                "--shapes",
                "image:1x1x8x8",
                "--shapes",
                "image:3x1x8x8",
            ],
        ),
        (MODEL, &["sm_87"]),
        (QUANTIZED, &["sm_87"]),
    ];
    for (model, more) in settings {
        done(folder, &compile(model, "whole.engine", more));
        done(
            folder,
            &compile(model, "bare.engine", &[more, &["--strip-weights"]].concat()),
        );
        done(folder, &["refit", "bare.engine", model, "-o", "refitted.engine"]);
        let bytes = |name: &str| fs::read(folder.join(name)).unwrap();
        assert!(
            bytes("whole.engine") == bytes("refitted.engine"),
            "{model} {more:?}"
        );
        let bare = engine::load(&folder.join("bare.engine")).unwrap();
        assert!(bare.weights().is_empty() && bare.header.weights_bytes() > 0);
    }
}

#[test]
fn only_the_own_model_refits_an_engine() {
    let Some(folder) = workplace() else { return };
    let folder = folder.path();
    done(
        folder,
        &compile(MODEL, "bare.engine", &["sm_87", "--stripWeights"]),
    );
    let other = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/precision/separable.onnx");
    let refit = ["refit", "bare.engine", MODEL, "-o", "full.engine"];
    let of_other = ["refit", "bare.engine", other, "-o", "full.engine"];
    let output = rtrt(folder, &of_other);
    assert_ne!(output.status.code(), Some(0));
    assert!(!folder.join("full.engine").exists());
    let with_shapes = [&refit[..], &["--shapes", "image:1x1x8x8"]].concat();
    expect_failure(folder, &with_shapes, 2, "leave them out");
    done(folder, &refit);
    let again = ["refit", "full.engine", MODEL, "-o", "again.engine"];
    expect_failure(folder, &again, 1, "it has its weights");
}

#[test]
fn engines_are_signed_by_the_compiler_and_checked_by_their_readers() {
    let Some(folder) = workplace() else { return };
    let folder = folder.path();
    fs::write(folder.join("seed"), [1; 32]).unwrap();
    let public = ed25519_dalek::SigningKey::from_bytes(&[1; 32]).verifying_key();
    fs::write(folder.join("own.pub"), public.as_bytes()).unwrap();
    done(
        folder,
        &compile(MODEL, "signed.engine", &["sm_87", "--sign-key", "seed"]),
    );
    done(folder, &compile(MODEL, "plain.engine", &["sm_87"]));
    let inspect = |name| ["inspect", name, "--require-signature", "own.pub"];
    done(folder, &inspect("signed.engine"));
    expect_failure(folder, &inspect("plain.engine"), 1, "is not signed");
    expect_failure(folder, &inspect(MODEL), 2, "only engines are signed");
    let missing = compile(MODEL, "other.engine", &["sm_87", "--sign-key", "nowhere"]);
    expect_failure(folder, &missing, 1, "nowhere");
}

#[test]
fn memory_is_told_launch_by_launch() {
    let Some(folder) = workplace() else { return };
    let folder = folder.path();
    let compiled = done(folder, &compile(MODEL, "m.engine", &["sm_87"]));
    let engine = engine::load(&folder.join("m.engine")).unwrap();
    let program = &engine.header.programs[0];
    let peak = format!("peak      {} bytes of device memory", engine.device_bytes());
    assert!(compiled.contains(&peak), "{compiled}");

    let text = done(folder, &["inspect", "m.engine", "--memory", "--report", "m.html"]);
    let marked: Vec<&str> = text.lines().filter(|line| line.starts_with('*')).collect();
    assert_eq!(marked.len(), 1, "{text}");
    assert!(
        marked[0].contains(&program.arena_lower_bound_bytes.to_string()),
        "{text}"
    );
    let page = fs::read_to_string(folder.join("m.html")).unwrap();
    let n_tensors = program.tensors.as_ref().unwrap().len();
    assert_eq!(page.matches("class=tensor").count(), n_tensors);

    let json: Value = serde_json::from_str(&done(folder, &["inspect", "m.engine", "--json"])).unwrap();
    let live = json["memory"][0]["live_bytes"].as_array().unwrap();
    assert_eq!(live.len(), program.launches.len() + 1);
    let most = live.iter().map(|bytes| bytes.as_u64().unwrap()).max().unwrap();
    assert_eq!(most, program.arena_lower_bound_bytes as u64);
    expect_failure(folder, &["inspect", MODEL, "--memory"], 2, "are about engines");
}

#[test]
fn ptx_is_of_the_newest_plain_architecture() {
    let Some(folder) = workplace() else { return };
    let folder = folder.path();
    done(
        folder,
        &compile(MODEL, "m.engine", &["sm_80,sm_87,sm_90a", "--ptx"]),
    );
    let engine = engine::load(&folder.join("m.engine")).unwrap();
    for program in &engine.header.programs {
        for kernel in &program.kernels {
            assert_eq!(kernel.ptx.is_some(), program.arch == "sm_87", "{}", program.arch);
            let Some(ptx) = kernel.ptx else { continue };
            let text = std::str::from_utf8(&engine.blobs[ptx]).unwrap();
            assert!(text.contains(".target sm_87") && text.ends_with('\0'));
            assert!(text.contains(&format!(".entry {}(", kernel.name)));
        }
    }
    let rebuilt = done(folder, &["verify", "--engine", "m.engine", "--rebuild"]);
    assert!(rebuilt.contains("PASSED | Rebuild"), "{rebuilt}");
    let mut changed = engine.clone();
    let ptx = changed.header.programs[1].kernels[0].ptx.unwrap();
    let mut text = changed.blobs[ptx].to_vec();
    text[0] ^= 1;
    changed.blobs[ptx] = text.into();
    changed.header.blobs = engine::blob_table(&changed.blobs);
    engine::save(&changed, &folder.join("changed.engine")).unwrap();
    let rebuild = ["verify", "--engine", "changed.engine", "--rebuild"];
    expect_failure(folder, &rebuild, 1, "1 of 18 kernels differ");
    let only_specific = compile(MODEL, "n.engine", &["sm_90a", "--ptx"]);
    expect_failure(folder, &only_specific, 2, "without `a`");
}
