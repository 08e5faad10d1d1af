//! Engines that are given other kernels: from what they say of themselves, by a file of measurements or by a
//! driver that only pretends. Needs NVRTC, but no GPU.

#![cfg(feature = "builder")]

#[path = "fakes/driver.rs"]
mod driver;
mod tiers;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rtrt_codegen::compile::Cache;
use rtrt_codegen::cuda::Nvrtc;
use rtrt_codegen::engine::{self, Engine};
use rtrt_codegen::ir::{Attr, Attrs, DType, Graph};
use rtrt_codegen::kernel::{self, Arch, Source, Variant};
use rtrt_codegen::pipeline::{self, Entrant, PipelineError, Selection, Settings, Silent};
use rtrt_codegen::plan;
use rtrt_codegen::testing::builder::GraphBuilder;
use rtrt_codegen::tune::{Database, Machine, Measurement, Outcome, Problem, Tactic, TuneError, recall};
use rtrt_codegen::{ir, ops};
use tempfile::TempDir;

const ARCH: Arch = Arch {
    sm: 80,
    specific: false,
};
const N_VARIANTS: usize = 4;
/// Two products, a softmax, and shapes of which some leave a device so idle that sums are split.
const GRAPH: &str = "graph g(x: f16[16,2048]) {
    h = relu(add(matmul(x, f16[2048,64]{0.01 ..}), f16[64]{0.5 ..}))
    return softmax[axis=-1](matmul(h, f16[64,32]{0.02 ..})) as \"y\"
  }";

fn core() -> Graph {
    ir::text::parse(GRAPH, &|name| ops::lookup(name).map(|def| def.name)).unwrap()
}

fn machine() -> Machine {
    Machine {
        device: "board".to_owned(),
        n_sms: 16,
        driver: 12_060,
        nvrtc: Nvrtc::get().unwrap().version().to_string(),
        arch: "sm_80".to_owned(),
        n_contexts: 1,
    }
}

/// Three chains of products that leave most of a device idle.
fn branches() -> Graph {
    let mut builder = GraphBuilder::new("branches", 1);
    let x = builder.input(&[16, 256]);
    for _ in 0..3 {
        let end = (0..4).fold(x, |value, _| {
            let weight = builder.weight(&[256, 256]);
            let product = builder.plain("matmul", &[value, weight]);
            builder.op("softmax", &[product], Attrs::new().with("axis", Attr::Int(1)))
        });
        builder.output(end);
    }
    builder.graph
}

/// Products of a few rows and columns and of many terms, one behind the other.
fn deep_products() -> Graph {
    let mut builder = GraphBuilder::new("deep", 1);
    let mut value = builder.input(&[16, 4096]);
    for (terms, columns) in [(4096, 64), (64, 2048), (2048, 32), (32, 8192), (8192, 16)] {
        let weight = builder.weight(&[terms, columns]);
        let product = builder.plain("matmul", &[value, weight]);
        value = builder.op("softmax", &[product], Attrs::new().with("axis", Attr::Int(1)));
    }
    builder.output(value);
    builder.graph
}

fn built_branches(selection: &Selection, max_aux_streams: u32) -> Engine {
    let settings = Settings {
        max_aux_streams,
        ..Settings::stored_in(DType::F32)
    };
    pipeline::compile(&[branches()], &[ARCH], &settings, selection, &Silent).unwrap()
}

fn has_branches(engine: &Engine) -> bool {
    let mut launches = engine.header.programs[0].launches.iter();
    launches.any(|launch| launch.stream > 0)
}

fn on_one_stream(engine: &Engine) -> Engine {
    let mut engine = engine.clone();
    for launch in &mut engine.header.programs[0].launches {
        launch.stream = 0;
    }
    engine
}

fn built(selection: &Selection, max_memory: Option<usize>) -> Engine {
    let settings = Settings {
        max_memory,
        ..Settings::stored_in(DType::F16)
    };
    pipeline::compile(&[core()], &[ARCH], &settings, selection, &Silent).unwrap()
}

fn timed(us: f64) -> Outcome {
    Outcome::Timed {
        median_us: us,
        spread_us: [us, us],
        error: 0.0,
    }
}

/// Measurements in a folder of their own.
struct Times {
    folder: TempDir,
    database: Database,
}

impl Times {
    /// Of all variants that are looked up for `engine`, where `us` gives that of a kernel, which is variant
    /// number so and so.
    fn of(engine: &Engine, machine: &Machine, us: impl Fn(usize, &Variant, &Source) -> f64) -> Times {
        let mut database = Database::default();
        for problem in plan::posed(engine, 0).unwrap() {
            for workspace in [true, false] {
                let problem = Problem {
                    workspace,
                    ..problem.clone()
                };
                for (place, variant) in problem.variants(ARCH).iter().take(N_VARIANTS).enumerate() {
                    let source = kernel::render(&problem.spec, variant, ARCH).unwrap();
                    let outcome = timed(us(place, variant, &source));
                    database.note(machine, &source, variant, outcome);
                }
            }
        }
        Times {
            folder: tempfile::tempdir().unwrap(),
            database,
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("times")
    }

    /// Adds the time of an execution of `engine`.
    fn execution(&mut self, engine: &Engine, machine: &Machine, us: f64) {
        self.database.add(Measurement {
            machine: machine.clone(),
            kernel: digest(engine),
            template: "program".to_owned(),
            variant: String::new(),
            predicted_us: 0.0,
            outcome: timed(us),
        });
    }

    fn selection(&self) -> Selection {
        self.database.save(&self.path()).unwrap();
        Selection::Recorded {
            max_variants: N_VARIANTS,
            database: self.path(),
        }
    }
}

fn digest(engine: &Engine) -> String {
    Entrant { engine, program: 0 }.digest()
}

/// Later variants are faster.
fn by_place(place: usize, _: &Variant, _: &Source) -> f64 {
    9.0 - f64::from(u32::try_from(place).unwrap())
}

/// Times are as they were predicted.
fn as_predicted(_: usize, variant: &Variant, _: &Source) -> f64 {
    variant.predicted_us
}

#[test]
fn an_engine_is_tuned_to_what_its_model_would_be_compiled_to() {
    if !tiers::have_nvrtc() {
        return;
    }
    let predicted = built(&Selection::Predicted, None);
    let mut times = Times::of(&predicted, &machine(), by_place);
    let compiled = built(&times.selection(), None);
    assert_ne!(compiled, predicted);
    let missing = pipeline::retune(&predicted, &times.selection(), &Silent).unwrap_err();
    assert!(
        matches!(
            missing,
            PipelineError::Tune(TuneError::CacheMiss { n_missing: 2, .. })
        ),
        "{missing}"
    );
    times.execution(&predicted, &machine(), 10.0);
    times.execution(&compiled, &machine(), 9.0);
    let (tuned, renewals) = pipeline::retune(&predicted, &times.selection(), &Silent).unwrap();
    assert_eq!(tuned, compiled);
    assert_eq!(renewals[0].us, Some([10.0, 9.0]));
    assert!(renewals[0].n_changed > 0);
    // There is nothing more to gain.
    let (again, renewals) = pipeline::retune(&tuned, &times.selection(), &Silent).unwrap();
    assert_eq!((&again, renewals[0].n_changed), (&tuned, 0));
}

#[test]
fn an_engine_for_several_streams_is_tuned_for_them() {
    if !tiers::have_nvrtc() {
        return;
    }
    let compiled = |selection: &Selection, n_contexts| {
        let settings = Settings {
            n_contexts,
            ..Settings::stored_in(DType::F16)
        };
        pipeline::compile(&[core()], &[ARCH], &settings, selection, &Silent)
    };
    let alone = built(&Selection::Predicted, None);
    assert_eq!(compiled(&Selection::Predicted, 1).unwrap(), alone);
    assert_eq!(alone.header.n_contexts, None);
    let shared = compiled(&Selection::Predicted, 4).unwrap();
    assert_eq!(shared.header.n_contexts, Some(4));
    for problem in plan::posed(&shared, 0).unwrap() {
        assert_eq!(problem.spec.options.n_contexts, 4);
    }
    // Times of one execution are no times of four.
    let of_one = Times::of(&shared, &machine(), by_place);
    let missing = pipeline::retune(&shared, &of_one.selection(), &Silent).unwrap_err();
    assert!(
        missing.to_string().contains("for 4 executions at once on sm_80"),
        "{missing}"
    );
    let machine = machine().shared_by(4);
    let mut of_four = Times::of(&shared, &machine, by_place);
    let fastest = compiled(&of_four.selection(), 4).unwrap();
    of_four.execution(&shared, &machine, 10.0);
    of_four.execution(&fastest, &machine, 9.0);
    let (tuned, _) = pipeline::retune(&shared, &of_four.selection(), &Silent).unwrap();
    assert_eq!(tuned, fastest);
}

#[test]
fn what_is_not_faster_as_a_whole_is_left_alone() {
    if !tiers::have_nvrtc() {
        return;
    }
    let predicted = built(&Selection::Predicted, None);
    let mut times = Times::of(&predicted, &machine(), by_place);
    let compiled = built(&times.selection(), None);
    times.execution(&predicted, &machine(), 10.0);
    times.execution(&compiled, &machine(), 9.9);
    let (tuned, renewals) = pipeline::retune(&predicted, &times.selection(), &Silent).unwrap();
    assert_eq!(tuned, predicted);
    assert_eq!((renewals[0].n_changed, renewals[0].us), (0, Some([10.0, 10.0])));
}

/// All kernels of `engine` as the variant number `place` of each would solve them.
fn tactics_in_place(engine: &Engine, place: usize) -> Vec<Tactic> {
    let one_wins = |own, _: &Variant, _: &Source| if own == place { 1.0 } else { 9.0 };
    let times = Times::of(engine, &machine(), one_wins);
    let problems = plan::posed(engine, 0).unwrap();
    let known = (&machine(), &times.database);
    recall(&problems, ARCH, known, N_VARIANTS, &Cache::none(), &|_, _| {}).unwrap()
}

/// Every engine that has another kernel in one place, which is nearly as fast alone.
fn exchanges(engine: &Engine) -> Vec<Engine> {
    let own = tactics_in_place(engine, 0);
    let places = (1..N_VARIANTS).flat_map(|place| {
        let rivals = tactics_in_place(engine, place);
        (0..own.len()).map(move |launch| (launch, rivals[launch].clone()))
    });
    let exchanged = places.map(|(launch, rival)| {
        let mut tactics = own.clone();
        tactics[launch] = rival;
        plan::renewed(engine, 0, &tactics)
    });
    exchanged.collect()
}

#[test]
fn a_kernel_takes_the_place_of_one_that_is_faster_alone_where_executions_are_faster_so() {
    if !tiers::have_nvrtc() {
        return;
    }
    let nearly_equal = |place, _: &Variant, _: &Source| [10.0, 10.1, 10.2, 10.3][place];
    let predicted = built(&Selection::Predicted, None);
    let mut times = Times::of(&predicted, &machine(), nearly_equal);
    let first = built(&times.selection(), None);
    let exchanges = exchanges(&first);
    let (best, others) = exchanges.split_first().unwrap();
    times.execution(&first, &machine(), 100.0);
    times.execution(best, &machine(), 95.0);
    for other in &others[1..] {
        times.execution(other, &machine(), 100.0);
    }
    assert_eq!(
        built(&times.selection(), None),
        first,
        "not all executions are known"
    );
    times.execution(&others[0], &machine(), 100.0);
    assert_eq!(digest(&built(&times.selection(), None)), digest(best));
    let (tuned, _) = pipeline::retune(&first, &times.selection(), &Silent).unwrap();
    assert_eq!(digest(&tuned), digest(best));
    times.execution(best, &machine(), 99.0);
    assert_eq!(
        built(&times.selection(), None),
        first,
        "one per cent is not enough"
    );
}

#[test]
fn memory_that_an_engine_may_not_take_is_not_taken() {
    if !tiers::have_nvrtc() {
        return;
    }
    let scratch_is_fast = |place, variant: &Variant, source: &Source| {
        if source.workspace_bytes > 0 {
            1.0
        } else {
            by_place(place, variant, source)
        }
    };
    let free = built(&Selection::Predicted, None);
    let mut times = Times::of(&free, &machine(), scratch_is_fast);
    let greedy = built(&times.selection(), None);
    assert!(
        greedy.header.programs[0].workspace_bytes > 0,
        "no variant takes scratch memory"
    );
    let least = free.device_bytes() - free.header.programs[0].workspace_bytes;
    let bounded = built(&Selection::Predicted, Some(least));
    let thrifty = built(&times.selection(), Some(least));
    times.execution(&bounded, &machine(), 10.0);
    for engine in [&thrifty, &greedy]
        .into_iter()
        .filter(|engine| **engine != bounded)
    {
        times.execution(engine, &machine(), 5.0);
    }
    let (tuned, _) = pipeline::retune(&bounded, &times.selection(), &Silent).unwrap();
    assert!(tuned.device_bytes() <= least);
    let plenty = Engine {
        header: engine::Header {
            max_memory: None,
            ..bounded.header.clone()
        },
        ..bounded.clone()
    };
    let (tuned, _) = pipeline::retune(&plenty, &times.selection(), &Silent).unwrap();
    assert!(
        tuned.device_bytes() <= least,
        "an engine without scratch memory stays one"
    );
}

#[test]
fn where_memory_is_scarce_some_launches_keep_theirs() {
    if !tiers::have_nvrtc() {
        return;
    }
    let compile = |max_memory| {
        let settings = Settings {
            max_memory,
            ..Settings::stored_in(DType::F32)
        };
        pipeline::compile(
            &[deep_products()],
            &[ARCH],
            &settings,
            &Selection::Predicted,
            &Silent,
        )
    };
    let scratch = |engine: &Engine| engine.header.programs[0].workspace_bytes;
    let us = |engine: &Engine| -> f64 {
        let launches = engine.header.programs[0].launches.iter();
        launches.map(|launch| launch.predicted_us).sum()
    };
    let free = compile(None).unwrap();
    let Err(PipelineError::Memory { least, .. }) = compile(Some(1)) else {
        panic!("an engine took one byte");
    };
    let thrifty = compile(Some(least)).unwrap();
    assert_eq!((thrifty.device_bytes(), scratch(&thrifty)), (least, 0));
    // With values whole; the least has some in strips.
    let most = free.device_bytes() - scratch(&free) / 2;
    let bounded = compile(Some(most)).unwrap();
    assert!(bounded.device_bytes() <= most);
    let (kept, all) = (scratch(&bounded), scratch(&free));
    assert!(
        0 < kept && kept < all,
        "{kept} of {all} bytes, {least} and {most} in all"
    );
    assert!(us(&free) < us(&bounded) && us(&bounded) < us(&thrifty));
}

/// What a device of the architecture of program number `program` is given.
fn code(engine: &Engine, program: usize) -> Vec<(Vec<u8>, Vec<engine::Arg>)> {
    let program = &engine.header.programs[program];
    let launches = program.launches.iter();
    let cubin = |launch: &engine::Launch| engine.blobs[program.kernels[launch.kernel].cubin].to_vec();
    launches
        .map(|launch| (cubin(launch), launch.args.clone()))
        .collect()
}

#[test]
fn programs_of_other_architectures_are_left_alone() {
    if !tiers::have_nvrtc() {
        return;
    }
    let other = Arch { sm: 87, ..ARCH };
    let settings = Settings::stored_in(DType::F16);
    let compiled = |archs: &[Arch], selection: &Selection| {
        pipeline::compile(&[core()], archs, &settings, selection, &Silent).unwrap()
    };
    let both = compiled(&[other, ARCH], &Selection::Predicted);
    let own = compiled(&[ARCH], &Selection::Predicted);
    let mut times = Times::of(&own, &machine(), by_place);
    let wanted = compiled(&[ARCH], &times.selection());
    for (engine, us) in [(&own, 10.0), (&wanted, 9.0)] {
        times.execution(engine, &machine(), us);
    }
    let (tuned, renewals) = pipeline::retune(&both, &times.selection(), &Silent).unwrap();
    assert_eq!(renewals.len(), 1);
    assert_eq!(code(&tuned, 0), code(&both, 0));
    assert_eq!(code(&tuned, 1), code(&wanted, 0));
    assert_eq!(tuned.header.nvrtc, both.header.nvrtc);
}

#[test]
fn branches_run_at_once_where_an_execution_is_faster_so() {
    if !tiers::have_nvrtc() {
        return;
    }
    let branched = built_branches(&Selection::Predicted, 3);
    let plain = built_branches(&Selection::Predicted, 0);
    assert!(has_branches(&branched) && !has_branches(&plain));
    let mut times = Times::of(&branched, &machine(), as_predicted);
    times.execution(&branched, &machine(), 10.0);
    for (plain_us, wanted) in [(9.9, true), (9.0, false)] {
        times.execution(&plain, &machine(), plain_us);
        assert_eq!(has_branches(&built_branches(&times.selection(), 3)), wanted);
    }
    // An engine that is tuned keeps its order and its places; launches may do without their streams.
    let mut times = Times::of(&branched, &machine(), by_place);
    let problems = plan::posed(&branched, 0).unwrap();
    let known = (&machine(), &times.database);
    let tactics = recall(&problems, ARCH, known, N_VARIANTS, &Cache::none(), &|_, _| {}).unwrap();
    let others = plan::renewed(&branched, 0, &tactics);
    times.execution(&branched, &machine(), 10.0);
    times.execution(&others, &machine(), 9.0);
    for (plain_us, wanted) in [(8.9, true), (8.0, false)] {
        times.execution(&on_one_stream(&others), &machine(), plain_us);
        let (tuned, _) = pipeline::retune(&branched, &times.selection(), &Silent).unwrap();
        assert_eq!(has_branches(&tuned), wanted);
    }
}

#[test]
fn ptx_is_that_of_the_new_kernels() {
    if !tiers::have_nvrtc() {
        return;
    }
    let plain = built(&Selection::Predicted, None);
    let mut times = Times::of(&plain, &machine(), by_place);
    let mut compiled = built(&times.selection(), None);
    times.execution(&plain, &machine(), 10.0);
    times.execution(&compiled, &machine(), 9.0);
    let mut portable = plain;
    pipeline::ptx::embed(&mut portable, ARCH).unwrap();
    pipeline::ptx::embed(&mut compiled, ARCH).unwrap();
    let (tuned, _) = pipeline::retune(&portable, &times.selection(), &Silent).unwrap();
    assert_eq!(tuned, compiled);
}

/// A folder with the engine of [`core`], which the command tunes there.
struct Place {
    folder: TempDir,
    before: Vec<u8>,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.engine");
        engine::save(&built(&Selection::Predicted, None), &path).unwrap();
        let before = fs::read(&path).unwrap();
        Place { folder, before }
    }

    fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        let others = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
        Command::new(env!("CARGO_BIN_EXE_rtrt-codegen"))
            .args(["tune", "m.engine", "--maxTactics", "4"])
            .args(arguments)
            .current_dir(self.folder.path())
            .env("RTRT_CACHE_DIR", self.folder.path().join("cache"))
            .env(
                "LD_LIBRARY_PATH",
                format!("{}:{others}", driver::folder().display()),
            )
            .envs(variables.iter().copied())
            .output()
            .unwrap()
    }

    /// The command fails so, and leaves the engine as it was.
    fn expect_failure(&self, arguments: &[&str], variables: &[(&str, &str)], words: &str) {
        let output = self.run(arguments, variables);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains(words), "{message}");
        assert!(self.engine() == self.before, "the engine was changed");
    }

    fn engine(&self) -> Vec<u8> {
        fs::read(self.folder.path().join("m.engine")).unwrap()
    }

    fn database(&self) -> Database {
        Database::load(&self.folder.path().join("times")).unwrap()
    }
}

#[test]
fn devices_that_cannot_tune_an_engine_leave_it_as_it_is() {
    if !tiers::have_nvrtc() {
        return;
    }
    let place = Place::new();
    place.expect_failure(&[], &[("FAKE_CUDA_DEVICES", "0")], "there is no device `cuda:0`");
    place.expect_failure(
        &[],
        &[("FAKE_CUDA_SM", "90")],
        "kernels for sm_80 do not run on Fake GPU (sm_90)",
    );
    place.expect_failure(&[], &[("FAKE_CUDA_FAIL", "cuMemAlloc_v2:2")], "OUT_OF_MEMORY");
    // Kernels that compute nothing are found wrong; what was found is kept.
    let cache = ["--timingCacheFile", "times"];
    place.expect_failure(&cache, &[], "gives wrong results");
    let found = place.database();
    assert!(!found.is_empty());
    assert!(
        found
            .measurements()
            .all(|own| matches!(own.outcome, Outcome::Wrong { .. }))
    );
    place.expect_failure(
        &cache,
        &[("FAKE_CUDA_FAIL", "cuStreamSynchronize:214:4")],
        "gives wrong results",
    );
}

/// The machine that the fake driver pretends to be.
fn fake() -> Machine {
    Machine {
        device: "Fake GPU".to_owned(),
        n_sms: 1 << 20,
        driver: 13_000,
        ..machine()
    }
}

#[test]
fn the_command_tunes_in_place_by_known_times() {
    if !tiers::have_nvrtc() {
        return;
    }
    let place = Place::new();
    let before = engine::read(&place.before).unwrap();
    let mut times = Times::of(&before, &fake(), by_place);
    let compiled = built(&times.selection(), None);
    times.database.save(&place.folder.path().join("times")).unwrap();
    // All executions take as long on this driver: the engine stays, and their times are kept.
    let output = place.run(&["--timingCacheFile", "times"], &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        text.contains("0 of ") && text.contains("which others do not improve by two per cent"),
        "{text}"
    );
    assert!(place.engine() == place.before);
    assert_eq!(place.database().len(), times.database.len() + 2);
    // Where the file says otherwise, the other kernels are taken, with and without the device.
    times.execution(&before, &fake(), 10.0);
    times.execution(&compiled, &fake(), 5.0);
    times.database.save(&place.folder.path().join("times")).unwrap();
    let mut wanted = Vec::new();
    engine::write(&compiled, &mut wanted).unwrap();
    let recorded = [
        "--timingCacheFile",
        "times",
        "--errorOnTimingCacheMiss",
        "-o",
        "recorded.engine",
    ];
    assert!(
        place
            .run(&recorded, &[("FAKE_CUDA_DEVICES", "0")])
            .status
            .success()
    );
    assert!(fs::read(place.folder.path().join("recorded.engine")).unwrap() == wanted);
    assert!(place.engine() == place.before);
    let output = place.run(&["--timingCacheFile", "times", "--json"], &[]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["programs"][0]["after_us"], 5.0);
    assert!(place.engine() == wanted);
}

#[test]
fn a_signature_is_not_lost_by_accident() {
    if !tiers::have_nvrtc() {
        return;
    }
    let place = Place::new();
    let path = |name: &str| place.folder.path().join(name);
    fs::write(path("seed"), [1; 32]).unwrap();
    let seed = engine::SecretKey::load(&path("seed")).unwrap();
    let before = engine::read(&place.before).unwrap();
    engine::save_signed(&before, Some(&seed), &path("m.engine")).unwrap();
    let mut times = Times::of(&before, &fake(), by_place);
    let compiled = built(&times.selection(), None);
    times.execution(&before, &fake(), 10.0);
    times.execution(&compiled, &fake(), 5.0);
    times.database.save(&path("times")).unwrap();
    let cache = ["--timingCacheFile", "times"];
    let output = place.run(&cache, &[]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("give `--sign-key`"), "{message}");
    let signed = [&cache[..], &["--sign-key", "seed"]].concat();
    assert!(place.run(&signed, &[]).status.success());
    let tuned = engine::load_signed(&path("m.engine"), Some(&seed.public())).unwrap();
    assert_eq!(tuned, compiled);
}

#[test]
fn a_killed_command_leaves_the_engine_and_its_measurements() {
    if !tiers::have_nvrtc() {
        return;
    }
    let place = Place::new();
    let times = Times::of(&engine::read(&place.before).unwrap(), &fake(), by_place);
    times.database.save(&place.folder.path().join("times")).unwrap();
    let cache = ["--timingCacheFile", "times"];
    let killed = place.run(&cache, &[("FAKE_CUDA_KILL", "cuGraphLaunch")]);
    assert_eq!(killed.status.code(), None);
    assert!(place.engine() == place.before);
    assert_eq!(place.database(), times.database);
    assert!(place.run(&cache, &[]).status.success());
    assert_eq!(files(place.folder.path()), ["cache", "m.engine", "times"]);
}

fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
