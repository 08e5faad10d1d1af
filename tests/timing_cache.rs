//! Variants chosen by a file of measurements, on a machine that made none of them.
//!
//! Needs an NVRTC, as `tests/nvrtc.rs` does, but for what is refused before it is asked.

#![cfg(feature = "builder")]

#[path = "hostexec/regions.rs"]
mod regions;
mod tiers;

use std::process::Command;

use rtrt_codegen::compile::Cache;
use rtrt_codegen::ir::DType;
use rtrt_codegen::kernel::{self, Arch};
use rtrt_codegen::rewrite::RegionKind;
use rtrt_codegen::tune::{Database, Machine, Outcome, Problem, TuneError, rank, recall};
use tiers::have_nvrtc;

const ARCH: Arch = Arch {
    sm: 87,
    specific: false,
};
const N_VARIANTS: usize = 4;

fn machine(device: &str) -> Machine {
    Machine {
        device: device.to_owned(),
        n_sms: 16,
        driver: 12_060,
        nvrtc: "13.0".to_owned(),
        arch: "sm_87".to_owned(),
        n_contexts: 1,
    }
}

fn product() -> Problem {
    let mut build = regions::Build::new(1);
    let (x, w) = (
        build.input(DType::F16, &[64, 128]),
        build.input(DType::F16, &[128, 64]),
    );
    let y = build.op("matmul", &[x, w]);
    let mut spec = build.done("matmul", RegionKind::Dot, &[y]).spec;
    spec.weights = [1].into();
    Problem {
        spec,
        workspace: true,
        incumbent: None,
    }
}

/// Outcomes of the likeliest variants, in their order.
fn database(problem: &Problem, outcomes: &[Outcome]) -> Database {
    let mut database = Database::default();
    for (variant, outcome) in problem.variants(ARCH).iter().zip(outcomes) {
        let source = kernel::render(&problem.spec, variant, ARCH).unwrap();
        database.note(&machine("board"), &source, variant, outcome.clone());
    }
    database
}

fn timed(us: f64) -> Outcome {
    Outcome::Timed {
        median_us: us,
        spread_us: [us, us],
        error: 0.0,
    }
}

fn recalled(problem: &Problem, database: &Database) -> Result<(usize, f64), TuneError> {
    let board = machine("board");
    let problems = [problem.clone()];
    let tactics = recall(
        &problems,
        ARCH,
        (&board, database),
        N_VARIANTS,
        &Cache::none(),
        &|_, _| {},
    )?;
    let variants = problem.variants(ARCH);
    let position = variants
        .iter()
        .position(|own| *own == tactics[0].variant)
        .unwrap();
    Ok((position, tactics[0].measured_us.unwrap()))
}

#[test]
fn the_fastest_right_variant_is_recalled() {
    if !have_nvrtc() {
        return;
    }
    let problem = product();
    let wrong = Outcome::Wrong { error: 0.5 };
    let outcomes = [timed(9.0), timed(5.0), wrong, timed(4.95)];
    // The last one wins by less than noise.
    let found = recalled(&problem, &database(&problem, &outcomes)).unwrap();
    assert_eq!(found, (1, 5.0));
}

#[test]
fn a_missing_time_is_an_error() {
    let problem = product();
    let error = recalled(&problem, &database(&problem, &[timed(9.0), timed(5.0)])).unwrap_err();
    assert!(
        matches!(error, TuneError::CacheMiss { n_missing: 2, .. }),
        "{error}"
    );
}

#[test]
fn others_count_where_the_likely_are_wrong() {
    let problem = product();
    let wrong = vec![Outcome::Wrong { error: 0.5 }; N_VARIANTS];
    let error = recalled(&problem, &database(&problem, &wrong)).unwrap_err();
    assert!(
        matches!(error, TuneError::CacheMiss { n_missing: 1, .. }),
        "{error}"
    );
    let all = vec![Outcome::Wrong { error: 0.5 }; problem.variants(ARCH).len()];
    let error = recalled(&problem, &database(&problem, &all)).unwrap_err();
    assert!(matches!(error, TuneError::AllWrong { .. }), "{error}");
}

#[test]
fn a_file_without_a_fitting_machine_says_so() {
    if !have_nvrtc() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/digits/model.onnx");
    let output = Command::new(env!("CARGO_BIN_EXE_rtrt-codegen"))
        .args(["compile", model, "--arch", "sm_87", "-o", "digits.engine"])
        .args(["--timingCacheFile", "none.jsonl", "--errorOnTimingCacheMiss"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(
        message.contains("no machine") && message.contains("sm_87"),
        "{message}"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn predictions_are_ranked_by_the_times() {
    let problem = product();
    let times = [4.0, 2.0, 8.0].map(timed);
    let ranked = rank(
        &[problem.clone(), problem.clone()],
        ARCH,
        &machine("board"),
        &database(&problem, &times),
    )
    .unwrap();
    let [own] = ranked.as_slice() else {
        panic!("equal problems are ranked once: {ranked:?}");
    };
    assert_eq!(own.n_launches, 2);
    let measured: Vec<f64> = own.variants.iter().map(|variant| variant.measured_us).collect();
    assert_eq!(measured, [4.0, 2.0, 8.0]);
    assert_eq!((own.loss_of_first(), own.loss_of_tried()), (2.0, 1.0));
    assert!(own.variants.is_sorted_by_key(|variant| variant.place));

    let other = rank(
        std::slice::from_ref(&problem),
        ARCH,
        &machine("other"),
        &database(&problem, &times),
    );
    assert!(other.unwrap().is_empty());
}
