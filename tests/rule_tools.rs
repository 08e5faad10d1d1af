//! The commands for people who write rules: `rules check`, `try`, `ablate` and `graph`, and the
//! switches that every command that rewrites has.

#![cfg(feature = "builder")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const DIGITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/digits/model.onnx");

/// Runs the program in a folder.
fn run_in(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rtrt-codegen"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("RTRT_LOG")
        .output()
        .unwrap()
}

/// Stdout of a run that succeeds.
fn told(arguments: &[&str]) -> String {
    let output = run_in(Path::new(env!("CARGO_MANIFEST_DIR")), arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Stderr of a run that fails with `exit`, without progress.
fn refused(folder: &Path, exit: i32, arguments: &[&str]) -> String {
    let output = run_in(folder, arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {stderr}");
    let lines = stderr.lines().filter(|line| !line.starts_with('['));
    lines.collect::<Vec<_>>().join("\n")
}

fn json(arguments: &[&str]) -> serde_json::Value {
    serde_json::from_str(&told(arguments)).unwrap()
}

fn assert_snapshot(folder: &str, name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(format!("../snapshots/{folder}"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// A file of rules in a folder of its own.
fn file_of(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.rules");
    fs::write(&path, text).unwrap();
    (folder, path)
}

/// `rules check` on one file of a rule that is wrong: the message is the snapshot.
fn expect_wrong(name: &str, text: &str) {
    let (folder, _) = file_of(text);
    let message = refused(folder.path(), 1, &["rules", "check", "mine.rules"]);
    assert_snapshot("errors", &format!("rules__{name}"), &message);
}

#[test]
fn a_right_side_of_another_shape_is_noticed() {
    expect_wrong(
        "wrong_shape",
        r#"rule swap_factors : algebra numerics(exact) {
  matmul(x, y) ~> matmul(y, x)
  doc  "Products of numbers commute, but those of matrices do not."
  test x: f32[2,3], y: f32[3,2]
}
"#,
    );
}

/// Right on its own instance, where the axis stays.
#[test]
fn a_wrong_axis_is_noticed_where_it_matters() {
    expect_wrong(
        "wrong_axis",
        r#"rule softmax_before_transpose : layout numerics(exact) {
  softmax[axis=a](transpose[perm=p](x)) ~> transpose[perm=p](softmax[axis=a](x))
  doc  "The axis is that of the turned tensor; it should be `at(p, a)`."
  test x: f32[2,3,4], p = [0, 2, 1], a = 0
}
"#,
    );
}

#[test]
fn a_condition_that_admits_too_much_is_noticed() {
    expect_wrong(
        "wrong_condition",
        r#"rule factor_out_of_largest : algebra numerics(reassoc) {
  reduce_max[axes=a](x * scalar(c)) ~> reduce_max[axes=a](x) * scalar(c)
  where c != 0
  doc   "A factor below zero makes the largest the smallest: the condition should be `c > 0`."
  test  x: f32[2,3,4], c = 2.5, a = [2]
}
"#,
    );
}

#[test]
fn a_promise_of_bits_that_are_not_kept_is_noticed() {
    expect_wrong(
        "wrong_class_exact",
        r#"rule sum_of_constants : algebra numerics(exact) {
  (x + c) + d ~> x + (c + d)
  where const(c, d), is_float(x), not const(x)
  doc   "Equal over the reals, but floats round."
  test  x: f32[2,3], c: const f32[3], d: const f32[3]
}
"#,
    );
}

#[test]
fn a_promise_of_equal_reals_that_are_not_is_noticed() {
    expect_wrong(
        "wrong_class_reassoc",
        r#"rule gelu_by_tanh : recognize numerics(reassoc) {
  gelu[approximate="none"](x) ~> gelu[approximate="tanh"](x)
  doc  "The one approximates the other."
  test x: f32[64]
}
"#,
    );
}

#[test]
fn a_rule_that_loses_nan_is_noticed() {
    expect_wrong(
        "unsound_for_nan",
        r#"rule sub_itself : canonical numerics(exact) {
  x - x ~> expand[shape=dims(x)](scalar(0.0))
  where is_float(x)
  doc   "Not where x is infinite, or no number."
  test  x: f32[4]
}
"#,
    );
}

/// The difference is below every tolerance, so only the field sees it.
#[test]
fn another_polynomial_is_noticed_however_near_it_is() {
    expect_wrong(
        "another_polynomial",
        r#"rule nearly_the_product : algebra numerics(reassoc) {
  matmul(x, y) ~> matmul(x, y + 0.0000000004656612873077393)
  where is_float(x)
  doc   "Two to the power of minus 31 is too much."
  test  x: f32[2,3], y: f32[3,2]
}
"#,
    );
}

#[test]
fn rules_that_cannot_be_tried_are_noticed() {
    expect_wrong(
        "untried",
        r"ruleset mine : canonical, numerics(exact)
rule never_tried { neg(neg(neg(x))) ~> neg(x) }
rule never_fires {
  x + c ~> x
  where scalar(c) == 0, rank(x) == 9
  test x: f32[2], c: f32[] = 0
}
rule reads_itself {
  tanh(x) ~> neg(tanh(x))
  test x: f32[2]
}
rule does_not_build {
  relu(x) ~> concat[axis=7](x, x)
  test x: f32[2]
}
",
    );
}

#[test]
fn a_horizontal_rule_that_mixes_up_its_parts_is_noticed() {
    expect_wrong(
        "mixed_up_siblings",
        r#"horizontal join_and_mix : algebra numerics(reassoc) {
  siblings y_i = matmul(x, w_i)
  where const(w_i), rank(w_i) == 2
  => joined = matmul(x, concat[axis=1](w_i..));
     y_i = slice[starts=fill(rank(y_i), 0), ends=dims(y_i), steps=fill(rank(y_i), 1)](joined)
  doc "Every part is the first one."
  test x: f32[3,5], w_i: const f32[5,4]
  test w_i: const f32[5,4]
}
"#,
    );
}

#[test]
fn a_rule_is_right_in_every_small_case() {
    let report = json(&[
        "rules",
        "check",
        "transpose_twice",
        "concat_of_one",
        "--small-scope",
        "--json",
    ]);
    for row in report.as_array().unwrap() {
        assert!(row["mistakes"].as_array().unwrap().is_empty(), "{row}");
        assert!(row["all_small"].as_bool().unwrap(), "{row}");
        assert!(row["small"].as_u64().unwrap() > 5, "{row}");
        assert!(row["field"].as_u64().unwrap() > 60, "{row}");
    }
}

/// The pinned instance keeps a mean over one element, and no other is drawn.
#[test]
fn the_small_scope_finds_what_one_shape_hides() {
    let (folder, _) = file_of(
        r"rule mean_is_sum : canonical numerics(exact) {
  reduce_mean[axes=a](x) ~> reduce_sum[axes=a](x)
  where all_equal(lookup(a, dims(x)), 1) or size(x) == 9
  test x: f32[2,1], a = [1]
}
",
    );
    let arguments = [
        "rules",
        "check",
        "mine.rules",
        "--instances",
        "0",
        "--small-scope",
    ];
    let message = refused(folder.path(), 1, &arguments);
    assert!(!message.contains("panicked"), "{message}");
    let is_found = message.contains("holds on its `test` lines, but not everywhere");
    assert!(is_found, "{message}");
}

#[test]
fn a_misspelt_rule_is_asked_back() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cases: [(&str, i32, &[&str]); 7] = [
        ("check", 1, &["rules", "check", "transpose_twise"]),
        ("show", 1, &["rules", "show", "transpose_twise"]),
        ("graph", 1, &["rules", "graph", "transpose_twise"]),
        ("try", 1, &["rules", "try", "transpose_twise", DIGITS]),
        (
            "disable",
            1,
            &["rules", "list", "--disable-rule", "transpose_twise"],
        ),
        ("tag", 1, &["rules", "list", "--disable-rule", "horizontel"]),
        ("numerics", 2, &["rules", "list", "--numerics", "exakt"]),
    ];
    for (name, exit, arguments) in cases {
        let message = refused(here, exit, arguments);
        assert!(message.contains("did you mean `"), "{name}: {message}");
    }
}

#[test]
fn every_command_that_rewrites_has_the_switches() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let samples = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/digits/samples.npz");
    let commands: [&[&str]; 7] = [
        &[
            "run",
            DIGITS,
            "--inputs",
            samples,
            "--outputs",
            "target/never.npz",
            "--device",
            "cpu",
        ],
        &["bench", DIGITS],
        &["compile", DIGITS, "--arch", "sm_80", "-o", "target/never.engine"],
        &["inspect", DIGITS, "--graph", "regions"],
        &["rules", "ablate", DIGITS],
        &["rules", "try", "add_zero", DIGITS],
        &["rules", "list"],
    ];
    for command in commands {
        let misspelt = [command, &["--disable-rule", "fuse_epilog"]].concat();
        let message = refused(here, 1, &misspelt);
        assert!(
            message.contains("did you mean `fuse_epilogue`?"),
            "{command:?}: {message}"
        );
        let unknown = [command, &["--numerics", "exakt"]].concat();
        let message = refused(here, 2, &unknown);
        assert!(
            message.contains("did you mean `exact`?"),
            "{command:?}: {message}"
        );
        let missing = [command, &["--rules", "no/such/folder"]].concat();
        let message = refused(here, 1, &missing);
        assert!(message.contains("no/such/folder"), "{command:?}: {message}");
    }
}

#[test]
fn a_folder_adds_rules_and_overrides_others() {
    let (folder, path) = file_of(
        r#"rule add_zero : canonical numerics(exact) {
  0 + x ~> x
  doc  "Mine."
  test x: f32[2]
}
rule neg_of_neg_of_neg : canonical numerics(exact) {
  neg(neg(neg(x))) ~> neg(x)
  doc  "Mine too."
  test x: f32[2]
}
"#,
    );
    for given in [folder.path(), &path] {
        let list = told(&["rules", "list", "--rules", given.to_str().unwrap()]);
        let own: Vec<&str> = list.lines().filter(|line| line.contains("mine.rules")).collect();
        assert_eq!(own.len(), 2, "{own:?}");
        assert_eq!(
            list.lines().filter(|line| line.starts_with("add_zero ")).count(),
            1
        );
    }
}

#[test]
fn exact_numerics_leave_out_what_moves_results() {
    let list = json(&["rules", "list", "--numerics", "exact", "--json"]);
    let rows = list.as_array().unwrap();
    let careless = rows
        .iter()
        .filter(|row| row["kind"] != "kernel" && row["numerics"] != "exact");
    assert_eq!(careless.count(), 0);
    assert!(rows.len() > 50);
}

#[test]
fn a_rule_left_out_fires_nowhere() {
    let with = told(&["inspect", DIGITS, "--graph", "regions"]);
    let without = told(&[
        "inspect",
        DIGITS,
        "--graph",
        "regions",
        "--disable-rule",
        "fuse_epilogue",
    ]);
    assert!(with.contains("fuse_epilogue ("), "{with}");
    assert!(!without.contains("fuse_epilogue ("), "{without}");
    let regions = |text: &str| text.matches(" us at least").count();
    assert!(regions(&without) > regions(&with));
}

#[test]
fn trying_a_rule_names_matches_and_near_misses() {
    let text = told(&["rules", "try", "batch_norm_into_conv", DIGITS]);
    assert_snapshot("reports", "try_batch_norm_into_conv", &text);
    let text = told(&["rules", "try", "fuse_epilogue", DIGITS]);
    assert_snapshot("reports", "try_fuse_epilogue", &text);
    let text = told(&["rules", "try", "join_matmul", DIGITS, "--all"]);
    assert_snapshot("reports", "try_join_matmul", &text);
    // The pattern begins with an addition, and what it adds is no multiplication.
    let text = told(&["rules", "try", "add_constants", DIGITS, "--all"]);
    assert_snapshot("reports", "try_add_constants", &text);
}

#[test]
fn a_failed_condition_is_told_with_its_values() {
    let (folder, path) = file_of(
        r"rule of_large_pictures : canonical numerics(exact) {
  relu(batch_norm[epsilon=e](x, g, b, m, v)) ~> relu(batch_norm[epsilon=e](x, g, b, m, v))
  where rank(x) == 4, dim(x, 2) * dim(x, 3) >= 1024 and const(g)
}
",
    );
    let rules = path.to_str().unwrap();
    let text = told(&["rules", "try", "of_large_pictures", DIGITS, "--rules", rules]);
    assert_snapshot("reports", "try_of_large_pictures", &text);
    drop(folder);
}

#[test]
fn ablation_is_sorted_and_the_same_each_time() {
    let arguments = ["rules", "ablate", DIGITS, "--json"];
    let report = json(&arguments);
    assert_eq!(report, json(&arguments));
    let rows = report["without"].as_array().unwrap();
    let losses: Vec<f64> = rows
        .iter()
        .map(|row| row["predicted_us"].as_f64().unwrap())
        .collect();
    assert!(losses.is_sorted_by(|a, b| a >= b), "{losses:?}");
    let all = report["all"]["kernels"].as_i64().unwrap();
    for row in rows {
        let without = row["without"]["kernels"].as_i64().unwrap();
        assert_eq!(without - all, row["kernels"].as_i64().unwrap(), "{row}");
    }
    let epilogue = rows.iter().find(|row| row["name"] == "fuse_epilogue").unwrap();
    assert!(epilogue["kernels"].as_i64().unwrap() > 0);
    let text = told(&["rules", "ablate", DIGITS]);
    assert!(text.contains("  vertical/epilogue.rules:"), "{text}");
}

#[test]
fn whole_tags_can_be_ablated() {
    let report = json(&[
        "rules", "ablate", DIGITS, "--tag", "vertical", "--tag", "layout", "--json",
    ]);
    let rows = report["without"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0]["name"], "vertical");
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let message = refused(here, 1, &["rules", "ablate", DIGITS, "--tag", "vertikal"]);
    assert!(message.contains("did you mean `vertical`?"), "{message}");
}

#[test]
fn the_graph_of_rules_says_who_enables_whom() {
    let text = told(&["rules", "graph", "conv_of_points"]);
    assert!(
        text.contains("conv_channels_last\n    conv_of_points  by conv_nhwc\n"),
        "{text}"
    );
    assert!(text.contains("    flatten_rows  by matmul\n"), "{text}");
    let dot = told(&["rules", "graph", "--all", "--dot"]);
    assert!(dot.starts_with("digraph rules {") && dot.trim_end().ends_with('}'));
    assert!(dot.contains("label=\"horizontal/gemm.rules\""), "{dot}");
    // The whole is told file by file, and fits on a page or two.
    let whole = told(&["rules", "graph"]);
    assert!(
        whole.contains("layout.rules") && whole.lines().count() < 120,
        "{whole}"
    );
    let arrows = json(&["rules", "graph", "--json"]);
    assert!(
        arrows
            .as_array()
            .unwrap()
            .iter()
            .all(|arrow| arrow["pairs"].as_u64() > Some(0))
    );
    let shown = json(&["rules", "show", "relu_of_max", "--json"]);
    assert_eq!(shown["phase"], "recognize");
    assert!(shown["text"].as_str().unwrap().contains("max(x, 0)"));
    assert!(dot.contains("\"conv_channels_last\" -> \"conv_of_points\" [label=\"conv_nhwc\"];"));
}

/// Compiles the digits for one architecture; `None` where there is no NVRTC.
fn digits_engine(folder: &Path, options: &[&str]) -> Option<Output> {
    if rtrt_codegen::cuda::Nvrtc::get().is_err() {
        assert!(
            std::env::var_os("RTRT_REQUIRE_NVRTC").is_none(),
            "there is no NVRTC"
        );
        eprintln!("skipped: there is no NVRTC");
        return None;
    }
    let arguments = [
        "compile",
        DIGITS,
        "--arch",
        "sm_80",
        "-o",
        "digits.engine",
        "--explain",
    ];
    Some(run_in(folder, &[&arguments, options].concat()))
}

#[test]
fn kernels_are_explained_when_compiled_and_from_the_engine() {
    let folder = tempfile::tempdir().unwrap();
    let Some(compiled) = digits_engine(folder.path(), &[]) else {
        return;
    };
    assert!(
        compiled.status.success(),
        "{}",
        String::from_utf8_lossy(&compiled.stderr)
    );
    let compiled = String::from_utf8(compiled.stdout).unwrap();
    let inspected = run_in(folder.path(), &["inspect", "digits.engine", "--explain"]);
    let inspected = String::from_utf8(inspected.stdout).unwrap();
    let kernels = |text: &str| text.split_once("\nkernels for sm_80\n").unwrap().1.to_owned();
    let explained = kernels(&compiled);
    assert!(
        explained.starts_with(kernels(&inspected).trim_end()),
        "{inspected}"
    );
    for wanted in [
        "nodes stem",
        "rules ",
        "(vertical/epilogue.rules:",
        "saves 1 launch, ",
        "lost  +",
    ] {
        assert!(explained.contains(wanted), "`{wanted}` is not in\n{explained}");
    }
    assert!(explained.contains(" us without "), "{explained}");
    let plain = run_in(folder.path(), &["inspect", "digits.engine"]);
    assert!(!String::from_utf8(plain.stdout).unwrap().contains("lost  +"));
}

/// What is said to be saved is what the rules save: without them there is a launch for each, where convolutions
/// are not turned, which would pay for one plan and not for the other.
#[test]
fn explanations_add_up() {
    let folder = tempfile::tempdir().unwrap();
    if digits_engine(folder.path(), &["--disable-rule", "turns"]).is_none() {
        return;
    }
    let report = run_in(folder.path(), &["inspect", "digits.engine", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    let kernels = report["kernels"].as_array().unwrap();
    let saved: u64 = kernels
        .iter()
        .map(|kernel| kernel["explanation"]["saved_launches"].as_u64().unwrap())
        .sum();
    let apart = json(&[
        "rules",
        "ablate",
        DIGITS,
        "--arch",
        "sm_80",
        "--tag",
        "vertical",
        "--disable-rule",
        "turns",
        "--json",
    ]);
    let n_apart = apart["without"][0]["without"]["kernels"].as_u64().unwrap();
    let n_fused = apart["all"]["kernels"].as_u64().unwrap();
    assert_eq!(n_fused, kernels.len() as u64);
    assert_eq!(n_fused + saved, n_apart);
    for kernel in kernels {
        let losses: Vec<f64> = kernel["explanation"]["rejected"]
            .as_array()
            .unwrap()
            .iter()
            .map(|other| other["lost_us"].as_f64().unwrap())
            .collect();
        assert!(losses.len() <= 3 && losses.is_sorted(), "{losses:?}");
        let is_fused = kernel["explanation"]["saved_launches"].as_u64().unwrap() > 0;
        assert!(
            !is_fused || kernel["explanation"]["saved_bytes"].as_u64().unwrap() > 0,
            "{kernel}"
        );
    }
}
