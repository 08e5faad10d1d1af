//! `verify`: what passes, what fails and how, without a GPU.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

mod tiers;

const DIGITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/digits");

fn rtrt(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rtrt-codegen"))
        .args(arguments)
        .current_dir(folder)
        .env("RTRT_CACHE_DIR", folder.join("cache"))
        .output()
        .unwrap()
}

fn model() -> String {
    format!("{DIGITS}/model.onnx")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Outputs of the digits model on its samples, in a file of `folder`.
fn samples_and_outputs(folder: &Path) -> (String, PathBuf) {
    let samples = format!("{DIGITS}/samples.npz");
    let outputs = folder.join("outputs.npz");
    let run = rtrt(
        folder,
        &[
            "run",
            &model(),
            "--inputs",
            &samples,
            "--outputs",
            "outputs.npz",
            "--device",
            "cpu",
        ],
    );
    assert!(run.status.success(), "{}", stderr(&run));
    (samples, outputs)
}

#[test]
fn fused_regions_agree_with_the_reference() {
    let folder = tempfile::tempdir().unwrap();
    let verified = rtrt(folder.path(), &["verify", &model(), "--device", "cpu"]);
    assert_eq!(verified.status.code(), Some(0), "{}", stderr(&verified));
    assert!(stdout(&verified).contains("PASSED | All outputs matched"));
}

#[test]
fn known_outputs_pass_and_wrong_ones_fail() {
    let folder = tempfile::tempdir().unwrap();
    let (samples, outputs) = samples_and_outputs(folder.path());
    let against = |outputs: &Path| {
        let outputs = outputs.to_str().unwrap();
        let arguments = [
            "verify",
            &model(),
            "--device",
            "cpu",
            "--inputs",
            &samples,
            "--against",
            outputs,
        ];
        rtrt(folder.path(), &arguments)
    };
    let verified = against(&outputs);
    assert_eq!(verified.status.code(), Some(0), "{}", stderr(&verified));
    // The array's data is the end of the file but for the directory: change one exponent in it.
    let mut bytes = fs::read(&outputs).unwrap();
    let data = bytes
        .windows(2)
        .position(|pair| pair == b"}\n" || pair == b" \n")
        .unwrap();
    bytes[data + 5] ^= 0x04;
    let wrong = folder.path().join("wrong.npz");
    fs::write(&wrong, bytes).unwrap();
    let verified = against(&wrong);
    assert_eq!(verified.status.code(), Some(1));
}

#[test]
fn the_first_difference_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let verified = rtrt(
        folder.path(),
        &["verify", &model(), "--device", "cpu", "--fp16", "--bisect"],
    );
    assert_eq!(verified.status.code(), Some(1));
    assert!(
        stdout(&verified).contains("First difference | `Conv`"),
        "{}",
        stdout(&verified)
    );
    assert!(stderr(&verified).contains("outputs differ: `probability`"));
    let forgiven = ["verify", &model(), "--device", "cpu", "--fp16", "--atol", "1e-2"];
    assert_eq!(rtrt(folder.path(), &forgiven).status.code(), Some(0));
}

#[test]
fn the_reference_is_in_f32_whatever_is_verified() {
    let folder = tempfile::tempdir().unwrap();
    let (samples, outputs) = samples_and_outputs(folder.path());
    let difference = |against: &str| {
        let model = model();
        let arguments = ["verify", &model, "--device", "cpu", "--fp16", "--json"];
        let more = ["--inputs", &samples, "--against", against, "--atol", "1e-2"];
        let verified = rtrt(folder.path(), &[arguments.as_slice(), &more].concat());
        assert!(verified.status.success(), "{}", stderr(&verified));
        let report: serde_json::Value = serde_json::from_str(&stdout(&verified)).unwrap();
        report["outputs"][0]["required_absolute"].as_f64().unwrap()
    };
    let by_reference = difference("reference");
    assert!(by_reference > 0.0);
    assert!((by_reference - difference(outputs.to_str().unwrap())).abs() <= f64::EPSILON);
}

#[test]
fn bytes_are_verified_only_as_they_are_compiled() {
    let folder = tempfile::tempdir().unwrap();
    let status = |command: &[&str]| {
        let failed = rtrt(folder.path(), command);
        (failed.status.code(), stderr(&failed))
    };
    let model = model();
    let compiled = status(&["compile", &model, "--arch", "sm_80", "--int8", "-o", "a.engine"]);
    let verified = status(&["verify", &model, "--device", "cpu", "--int8"]);
    assert_ne!(verified.0, Some(0));
    assert_eq!(verified.0, compiled.0, "{}\n{}", verified.1, compiled.1);
}

#[test]
fn what_cannot_be_verified_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let python = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_rtrt-codegen"))
            .args(arguments)
            .env("RTRT_PYTHON", folder.path().join("no-python"))
            .output()
            .unwrap()
    };
    let absent = python(&["verify", &model(), "--device", "cpu", "--against", "onnxruntime"]);
    assert_eq!(absent.status.code(), Some(1));
    assert!(stderr(&absent).contains("cannot start"), "{}", stderr(&absent));
    let absent = rtrt(
        folder.path(),
        &["verify", &model(), "--device", "cpu", "--against", "none.npz"],
    );
    assert_eq!(absent.status.code(), Some(1));
    assert!(stderr(&absent).contains("none.npz"), "{}", stderr(&absent));
}

#[test]
fn an_engine_may_be_for_several_shapes() {
    if !tiers::have_nvrtc() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let shapes = [
        "--minShapes=image:1x1x8x8",
        "--optShapes=image:2x1x8x8",
        "--maxShapes=image:3x1x8x8",
    ];
    let model = model();
    let arguments = [
        &[
            "compile",
            &model,
            "--arch",
            "sm_87,sm_80",
            "-o",
            "digits.engine",
            "--json",
        ],
        shapes.as_slice(),
    ]
    .concat();
    let built = rtrt(folder.path(), &arguments);
    assert!(built.status.success(), "{}", stderr(&built));
    let report: serde_json::Value = serde_json::from_str(&stdout(&built)).unwrap();
    let batch = |profile: &serde_json::Value| profile["inputs"][0]["dims"][0].as_u64();
    let batches: Vec<_> = report["profiles"].as_array().unwrap().iter().map(batch).collect();
    assert_eq!(batches, [Some(2), Some(1), Some(3)]);
    let engine = rtrt_codegen::engine::load(&folder.path().join("digits.engine")).unwrap();
    assert_eq!(engine.header.programs.len(), 6);
    // Weights do not depend on the shape of the input, so they are there once.
    let weights = engine.weights().len();
    let one = [&arguments[..7], &["--shapes=image:2x1x8x8"]].concat();
    assert!(rtrt(folder.path(), &one).status.success());
    let engine = rtrt_codegen::engine::load(&folder.path().join("digits.engine")).unwrap();
    assert_eq!(engine.weights().len(), weights);
}

#[test]
fn an_engine_is_what_its_sources_compile_to() {
    if !tiers::have_nvrtc() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let engine = folder.path().join("digits.engine");
    let built = rtrt(
        folder.path(),
        &["compile", &model(), "--arch", "sm_87", "-o", "digits.engine"],
    );
    assert!(built.status.success(), "{}", stderr(&built));
    let rebuild = |name: &str| rtrt(folder.path(), &["verify", "--engine", name, "--rebuild"]);
    let verified = rebuild("digits.engine");
    assert_eq!(verified.status.code(), Some(0), "{}", stderr(&verified));
    assert!(stdout(&verified).contains("PASSED | Rebuild"));
    let mut engine = rtrt_codegen::engine::load(&engine).unwrap();
    let cubin = engine.header.programs[0].kernels[0].cubin;
    let middle = engine.blobs[cubin].len() / 2;
    let mut damaged = engine.blobs[cubin].to_vec();
    damaged[middle] ^= 1;
    engine.blobs[cubin] = damaged.into();
    engine.header.blobs = rtrt_codegen::engine::blob_table(&engine.blobs);
    rtrt_codegen::engine::save(&engine, &folder.path().join("changed.engine")).unwrap();
    let verified = rebuild("changed.engine");
    assert_eq!(verified.status.code(), Some(1));
    assert!(stderr(&verified).contains("1 of"), "{}", stderr(&verified));
}
