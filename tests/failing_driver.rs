//! What is said where CUDA fails, by a driver that fails when it is told to.

#[path = "fakes/driver.rs"]
mod driver;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use rtrt_codegen::engine::{self, Binding, Bound, Place, SecretKey};
use rtrt_codegen::ir::{DType, TensorType};
use rtrt_codegen::runtime::MAX_GRAPHS;

const ENGINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/engines/v1.engine");

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    Command::new(env!("CARGO_BIN_EXE_rtrt-run"))
        .args(arguments)
        .current_dir(folder.path())
        .env("LD_LIBRARY_PATH", driver::folder())
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

fn message(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn expect_failure(variables: &[(&str, &str)], words: &[&str]) {
    let output = run(&[ENGINE], variables);
    let message = message(&output);
    assert_eq!(output.status.code(), Some(1), "{variables:?}: {message}");
    for word in words {
        assert!(message.contains(word), "{variables:?}: {message}");
    }
}

#[test]
fn an_engine_runs_where_nothing_fails() {
    let output = run(&[ENGINE, "--times", "3"], &[]);
    assert!(output.status.success(), "{}", message(&output));
}

#[test]
fn memory_that_is_not_there_is_counted() {
    for call in 1..=3 {
        let fail = format!("cuMemAlloc_v2:2:{call}");
        expect_failure(
            &[("FAKE_CUDA_FAIL", &fail)],
            &["no room for", "bytes", "OUT_OF_MEMORY"],
        );
    }
}

#[test]
fn lost_devices_and_wrong_kernels_are_named() {
    expect_failure(
        &[("FAKE_CUDA_FAIL", "cuStreamSynchronize:214:3")],
        &["cuStreamSynchronize", "ECC_UNCORRECTABLE"],
    );
    expect_failure(
        &[("FAKE_CUDA_FAIL", "cuModuleLoadData:209")],
        &["cuModuleLoadData", "NO_BINARY_FOR_GPU"],
    );
    expect_failure(
        &[("FAKE_CUDA_FAIL", "cuInit:803")],
        &["cuInit", "SYSTEM_DRIVER_MISMATCH"],
    );
    expect_failure(
        &[("FAKE_CUDA_FAIL", "cuGraphLaunch:700")],
        &["cuGraphLaunch", "ILLEGAL_ADDRESS"],
    );
}

#[test]
fn devices_of_another_kind_are_refused() {
    expect_failure(
        &[("FAKE_CUDA_SM", "90")],
        &["no program for Fake GPU (sm_90)", "compiled for sm_80"],
    );
    expect_failure(&[("FAKE_CUDA_DEVICES", "0")], &["there is no device `cuda:0`"]);
}

#[test]
fn every_call_may_fail() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("calls");
    let output = run(&[ENGINE], &[("FAKE_CUDA_LOG", log.to_str().unwrap())]);
    assert!(output.status.success(), "{}", message(&output));
    let calls = fs::read_to_string(&log).unwrap();
    let mut names: Vec<&str> = calls.lines().collect();
    names.sort_unstable();
    names.dedup();
    // What releases has nobody left to tell.
    let releases = ["Destroy", "Free", "Release", "Unload"];
    for name in names
        .iter()
        .filter(|name| !releases.iter().any(|word| name.contains(word)))
    {
        let output = run(&[ENGINE], &[("FAKE_CUDA_FAIL", &format!("{name}:999"))]);
        assert_eq!(output.status.code(), Some(1), "{name}: {}", message(&output));
    }
}

#[test]
fn nothing_is_allocated_after_a_context_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("calls");
    let output = run(
        &[ENGINE, "--times", "50"],
        &[("FAKE_CUDA_LOG", log.to_str().unwrap())],
    );
    assert!(output.status.success(), "{}", message(&output));
    let calls = fs::read_to_string(&log).unwrap();
    let calls: Vec<&str> = calls.lines().collect();
    let first_launch = calls.iter().position(|&call| call == "cuGraphLaunch").unwrap();
    let allocates = |call: &&str| call.contains("Alloc");
    assert!(calls[..first_launch].iter().any(allocates));
    assert!(!calls[first_launch..].iter().any(allocates));
}

/// Graphs are recorded when a context is made where all are kept, else when a profile is used.
#[test]
fn contexts_keep_few_graphs() {
    let folder = tempfile::tempdir().unwrap();
    let n_graphs = |n_profiles: usize| {
        let mut engine = engine::load(Path::new(ENGINE)).unwrap();
        let header = &mut engine.header;
        header.profiles = vec![header.profiles[0].clone(); n_profiles];
        let program = header.programs[0].clone();
        let programs = (0..n_profiles).map(|profile| engine::Program {
            profile,
            ..program.clone()
        });
        header.programs = programs.collect();
        let (path, log) = (folder.path().join("wide.engine"), folder.path().join("calls"));
        engine::save(&engine, &path).unwrap();
        let output = run(
            &[path.to_str().unwrap()],
            &[("FAKE_CUDA_LOG", log.to_str().unwrap())],
        );
        assert!(output.status.success(), "{}", message(&output));
        let calls = fs::read_to_string(&log).unwrap();
        fs::remove_file(&log).unwrap();
        calls
            .lines()
            .filter(|call| call.starts_with("cuGraphInstantiate"))
            .count()
    };
    assert_eq!(n_graphs(1), 1);
    assert_eq!(n_graphs(MAX_GRAPHS), MAX_GRAPHS);
    assert_eq!(n_graphs(MAX_GRAPHS + 1), 1);
}

/// An engine for attention over 1 to 3 sequences of 1 to 12 rows, usually 2 of 6; all but that one share kernels.
const RANGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/engines/v4_range.engine");

#[test]
fn every_shape_of_a_range_runs_as_its_inputs_say() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("calls");
    let engine = engine::load(Path::new(RANGE)).unwrap();
    for dims in [[2, 6], [1, 1], [2, 5], [2, 7], [3, 12]] {
        let shape = format!("x={}x{}x32", dims[0], dims[1]);
        let output = run(
            &[RANGE, "--shape", &shape, "--times", "20"],
            &[("FAKE_CUDA_LOG", log.to_str().unwrap())],
        );
        assert!(output.status.success(), "{}", message(&output));
        let calls = fs::read_to_string(&log).unwrap();
        fs::remove_file(&log).unwrap();
        // What is allocated serves all shapes.
        let calls: Vec<&str> = calls.lines().collect();
        let first = calls
            .iter()
            .position(|&call| call == "cuGraphInstantiateWithFlags");
        let first = first.unwrap_or_else(|| panic!("no graph in {calls:?}"));
        assert!(calls[first..].iter().all(|call| !call.contains("Alloc")));
        let types = [TensorType::new(DType::F16, &[dims[0], dims[1], 32])];
        let number = engine.header.profile_for(&types).unwrap().unwrap();
        let by_number = run(&[RANGE, "--profile", &number.to_string()], &[]);
        assert!(by_number.status.success(), "{}", message(&by_number));
    }
    for (flag, value, words) in [
        (
            "--shape",
            "x=3x13x32",
            "no such profile: `x` is f16[1 to 3,1 to 12,32]",
        ),
        ("--shape", "z=3x12x32", "has no `z`"),
        ("--profile", "36", "has 36 profiles"),
    ] {
        let output = run(&[RANGE, flag, value], &[]);
        assert_eq!(output.status.code(), Some(1));
        assert!(message(&output).contains(words), "{}", message(&output));
    }
}

#[test]
fn what_a_range_lies_about_is_noticed_before_the_device_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lies.engine");
    let refused = |change: fn(&mut engine::SharedPrograms), words: &str| {
        let mut engine = engine::load(Path::new(RANGE)).unwrap();
        for own in &mut engine.header.shared.as_mut().unwrap().archs {
            change(own);
        }
        engine::save(&engine, &path).unwrap();
        let shape = |shape: &str| run(&[path.to_str().unwrap(), "--shape", shape], &[]);
        let output = shape("x=3x12x32");
        assert_eq!(output.status.code(), Some(1), "{words}");
        assert!(message(&output).contains(words), "{}", message(&output));
        let usual = shape("x=2x6x32");
        assert!(usual.status.success(), "{}", message(&usual));
    };
    refused(
        |own| own.needs.arena_bytes = 64,
        "more memory than the engine states",
    );
    refused(
        |own| {
            let constants = own.programs.forms.iter_mut().flat_map(|form| &mut form.constants);
            constants.for_each(|constant| *constant = i64::MAX);
        },
        "the program of profile 35",
    );
    refused(|own| own.kernels.clear(), "kernel");
}

/// The key of [`signed_engine`]'s signer; any 32 bytes are one.
const SEED: [u8; 32] = [7; 32];

/// An engine that [`SEED`] signed, the public key of that, and that of somebody else, in `folder`.
fn signed_engine(folder: &Path) -> [String; 3] {
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let files = [path("signed.engine"), path("own.pub"), path("other.pub")];
    let key = |seed: [u8; 32]| ed25519_dalek::SigningKey::from_bytes(&seed);
    fs::write(&files[1], key(SEED).verifying_key().as_bytes()).unwrap();
    fs::write(&files[2], key([8; 32]).verifying_key().as_bytes()).unwrap();
    fs::write(folder.join("seed"), SEED).unwrap();
    let signer = SecretKey::load(&folder.join("seed")).unwrap();
    let engine = engine::load(Path::new(ENGINE)).unwrap();
    engine::save_signed(&engine, Some(&signer), Path::new(&files[0])).unwrap();
    files
}

#[test]
fn only_engines_of_the_required_signer_run() {
    let folder = tempfile::tempdir().unwrap();
    let [signed, own, other] = signed_engine(folder.path());
    let executed = |engine: &str, key: &str| run(&[engine, "--require-signature", key], &[]);
    let output = executed(&signed, &own);
    assert!(output.status.success(), "{}", message(&output));
    assert!(run(&[&signed], &[]).status.success());
    let refused = |engine: &str, key: &str, words: &str| {
        let output = executed(engine, key);
        assert_eq!(output.status.code(), Some(1), "{words}");
        assert!(message(&output).contains(words), "{}", message(&output));
    };
    refused(&signed, &other, "a signature of");
    refused(ENGINE, &own, "is not signed");
    refused(&signed, "nowhere.pem", "cannot read");
    let mut bytes = fs::read(&signed).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&signed, bytes).unwrap();
    refused(&signed, &own, "the digest of blob");
}

#[test]
fn a_newer_device_takes_ptx_and_nobody_takes_stripped_weights() {
    let folder = tempfile::tempdir().unwrap();
    let save = |engine: &engine::Engine, name: &str| {
        let path = folder.path().join(name).to_str().unwrap().to_owned();
        engine::save(engine, Path::new(&path)).unwrap();
        path
    };
    let plain = engine::load(Path::new(ENGINE)).unwrap();
    let mut portable = plain.clone();
    for kernel in portable
        .header
        .programs
        .iter_mut()
        .flat_map(|program| &mut program.kernels)
    {
        kernel.ptx = Some(kernel.source);
    }
    let portable = save(&portable, "portable.engine");
    let output = run(&[&portable], &[("FAKE_CUDA_SM", "120")]);
    assert!(output.status.success(), "{}", message(&output));
    let older = run(&[&portable], &[("FAKE_CUDA_SM", "75")]);
    assert!(message(&older).contains("no program for"), "{}", message(&older));
    let bare = save(&engine::stripped::strip(&plain).unwrap(), "bare.engine");
    let output = run(&[&bare], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        message(&output).contains("they were stripped"),
        "{}",
        message(&output)
    );
}

/// An engine whose output is as long as the first eight bytes of its input say: kernels do nothing here.
fn counting_engine(folder: &Path) -> std::path::PathBuf {
    let mut engine = engine::load(Path::new(ENGINE)).unwrap();
    let profile = &mut engine.header.profiles[0];
    profile.counts.push(Binding {
        name: "y.count".to_owned(),
        dtype: DType::I64,
        dims: Vec::new(),
    });
    profile.bounds.push(Bound {
        output: 0,
        axis: 0,
        count: 0,
    });
    for program in &mut engine.header.programs {
        let input = program.inputs[0];
        program.outputs.push(Place { len: 8, ..input });
    }
    let path = folder.join("counting.engine");
    engine::save(&engine, &path).unwrap();
    path
}

#[test]
fn outputs_are_cut_to_what_is_counted_and_no_more_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = counting_engine(folder.path());
    let engine = engine::load(&path).unwrap();
    let profile = &engine.header.profiles[0];
    let (input, output) = (&profile.inputs[0], &profile.outputs[0]);
    let row = output.ty().n_bytes() / output.dims[0];
    let most = i64::try_from(output.dims[0]).unwrap();
    let (from, to) = (folder.path().join("x"), folder.path().join("y"));
    let run_with = |count: i64| {
        let mut bytes = vec![0; input.ty().n_bytes()];
        bytes[..8].copy_from_slice(&count.to_le_bytes());
        fs::write(&from, &bytes).unwrap();
        let given = format!("{}={}", input.name, from.display());
        let wanted = format!("{}={}", output.name, to.display());
        run(
            &[path.to_str().unwrap(), "--input", &given, "--output", &wanted],
            &[],
        )
    };
    for count in [0, 1, most] {
        let ran = run_with(count);
        assert!(ran.status.success(), "{count}: {}", message(&ran));
        assert_eq!(
            fs::read(&to).unwrap().len(),
            usize::try_from(count).unwrap() * row
        );
    }
    for count in [most + 1, -1, i64::MAX, i64::MIN] {
        let ran = run_with(count);
        assert_eq!(ran.status.code(), Some(1));
        assert!(
            message(&ran).contains("are counted"),
            "{count}: {}",
            message(&ran)
        );
    }
    let info = run(&[path.to_str().unwrap(), "--info"], &[]);
    let info = String::from_utf8(info.stdout).unwrap();
    assert!(info.contains(&format!("[<={most}")), "{info}");
}
