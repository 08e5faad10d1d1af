//! Damaged files of every kind: readers give an error or a result, never panic, and take no more memory
//! than they state.
//!
//! Every case is drawn from its number, so a failure names what repeats it. `RTRT_MUTATIONS=200000`
//! sets the number of cases of each kind; the default keeps the test short. `RTRT_MUTATION_SECONDS=600` goes
//! on with new cases for so long instead, and `RTRT_MUTATION_FIRST=1234` begins with that case. Each test prints how
//! many it executed.

#![cfg(feature = "builder")]
#![expect(unsafe_code, reason = "allocations are counted by a global allocator")]

#[path = "mutated/models.rs"]
mod models;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rtrt_codegen::engine::{self, Engine};
use rtrt_codegen::ir::{self, DType};
use rtrt_codegen::kernel::{self, Arch};
use rtrt_codegen::onnx;
use rtrt_codegen::ops;
use rtrt_codegen::pipeline::{self, Settings};
use rtrt_codegen::plan;
use rtrt_codegen::precision::Cache;
use rtrt_codegen::rewrite::RuleSet;
use rtrt_codegen::tune::Database;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::models::Whole;

const ENGINES: [&[u8]; 5] = [
    include_bytes!("engines/v1.engine"),
    include_bytes!("engines/v2.engine"),
    include_bytes!("engines/v3.engine"),
    include_bytes!("engines/v3_problems.engine"),
    include_bytes!("engines/v4_range.engine"),
];
const MODELS: [&[u8]; 3] = [
    include_bytes!("models/digits/model.onnx"),
    include_bytes!("precision/separable.onnx"),
    include_bytes!("precision/vit.onnx"),
];
const GRAPH: &[u8] = b"graph g(x: f32[n,8], w: f16[8,4]) {
  s = f32[]{0.02}
  t = i32[3]{1, -2, 3}
  a = matmul(relu(x), cast[to=f32](w))
  b = softmax[axis=-1](mul(a, s))
  return reshape[shape=[-1, 2, 2]](b) as \"y\", t as \"t\"
}
";
const RULES: &[u8] = include_bytes!("../rules/vertical/epilogue.rules");
const CALIBRATION: &[u8] =
    b"TRT-8510-EntropyCalibration2\nimage: 3c010a14\nconv1: 3d4ccccd\n/layer 1/Conv: 00000000\nfc: 7f7fffff\n";
const TIMINGS: &[u8] = include_bytes!("mutated/timings.jsonl");
/// Bytes in front of the header of an engine of version 1 or 2, and of this version.
const PREAMBLE: usize = 56;
const SIGNED_PREAMBLE: usize = 152;

/// The most that reading a file of so many bytes may hold at once: an allocation that a few bytes ask for is
/// an attack. Headers, graphs and rules become trees, whose nodes take some hundred times the bytes of
/// their text.
fn allowed_bytes(len: usize) -> usize {
    (64 << 20) + 256 * len
}

thread_local! {
    /// Bytes that this thread holds, more than when its case began; negative where it frees what is older.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST_HELD: Cell<isize> = const { Cell::new(0) };
    /// What this thread's last panic said, and where.
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// The system's allocator, with books per thread.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn book(change: isize) {
    // A thread that ends has no books left.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + change);
        let _ = MOST_HELD.try_with(|most| most.set(most.get().max(held.get())));
    });
}

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        book(layout.size().cast_signed());
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        book(layout.size().cast_signed());
        // SAFETY: as the caller promised.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        book(-layout.size().cast_signed());
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        book(new_size.cast_signed() - layout.size().cast_signed());
        // SAFETY: as the caller promised.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

/// When the cases end.
enum Until {
    Count(u64),
    Time(Instant),
}

impl Until {
    fn of_environment() -> Self {
        Until::of_environment_or(1500)
    }

    fn of_environment_or(count: u64) -> Self {
        match number("RTRT_MUTATION_SECONDS") {
            Some(seconds) => Until::Time(Instant::now() + Duration::from_secs(seconds)),
            None => Until::Count(number("RTRT_MUTATIONS").unwrap_or(count)),
        }
    }

    fn is_over(&self, number: u64) -> bool {
        match self {
            Until::Count(count) => number >= *count,
            Until::Time(end) => Instant::now() >= *end,
        }
    }
}

/// What the environment says by a number.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Numerical Recipes' 64-bit generator.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n.max(1)
    }
}

/// Draws files with `draw` and gives them to `read`, from as many threads as there are cores; lists the cases
/// in which it panics or holds more memory than allowed.
fn expect_calm(target: &str, draw: impl Fn(&mut Random) -> Vec<u8> + Sync, read: impl Fn(u64, &[u8]) + Sync) {
    expect_calm_within(target, allowed_bytes, Until::of_environment(), draw, read);
}

fn expect_calm_within(
    target: &str,
    allowed_bytes: fn(usize) -> usize,
    until: Until,
    draw: impl Fn(&mut Random) -> Vec<u8> + Sync,
    read: impl Fn(u64, &[u8]) + Sync,
) {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|info| LAST_PANIC.set(info.to_string())));
    let first = number("RTRT_MUTATION_FIRST").unwrap_or(0);
    let (next, n_executed) = (AtomicU64::new(first), AtomicU64::new(0));
    let failed = Mutex::new(Vec::new());
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if until.is_over(number) {
                return;
            }
            if let Some(reason) = complaint(number, allowed_bytes, &draw, &read) {
                failed.lock().unwrap().push(format!("{number}: {reason}"));
            }
            n_executed.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..number("RTRT_MUTATION_THREADS").unwrap_or(2) {
            scope.spawn(work);
        }
    });
    panic::set_hook(hook);
    println!("{target}: {} executions", n_executed.into_inner());
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{target}: {failed:#?}");
}

/// What is wrong with how one case is read.
fn complaint(
    number: u64,
    allowed_bytes: fn(usize) -> usize,
    draw: impl Fn(&mut Random) -> Vec<u8>,
    read: impl Fn(u64, &[u8]),
) -> Option<String> {
    let bytes = draw(&mut Random(number));
    HELD.set(0);
    MOST_HELD.set(0);
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| read(number, &bytes)));
    let most = MOST_HELD.get().unsigned_abs();
    if outcome.is_err() {
        return Some(LAST_PANIC.take());
    }
    (most > allowed_bytes(bytes.len())).then(|| format!("it holds {most} bytes"))
}

/// Flips, inserts, removes and repeats bytes.
fn damaged(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    damaged_at(bytes, random, |random, bytes| random.below(bytes.len()))
}

/// As [`damaged`], where `place` says.
fn damaged_at(bytes: &[u8], random: &mut Random, place: impl Fn(&mut Random, &[u8]) -> usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=random.below(4) {
        let at = place(random, &bytes);
        match random.below(5) {
            0 => bytes[at] = u8::try_from(random.below(256)).unwrap(),
            1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes.truncate(at.max(1)),
            3 => {
                let end = (at + 1 + random.below(16)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, part);
            }
            _ => {
                let end = (at + 1 + random.below(16)).min(bytes.len());
                bytes.drain(at..end);
                bytes.push(0);
            }
        }
    }
    bytes
}

/// As [`damaged`], and now and then with words of the text exchanged, or what opens an operand a thousand times.
fn damaged_text(text: &[u8], random: &mut Random) -> String {
    let mut bytes = damaged(text, random);
    match random.below(8) {
        0 => {
            let opening = [&b"("[..], b"[", b"{", b"- ", b"not ", b"relu("][random.below(6)];
            let at = random.below(bytes.len());
            bytes.splice(at..at, opening.repeat(1000));
        }
        1..4 => {
            let words: Vec<&[u8]> = text.split(|&byte| !byte.is_ascii_alphanumeric()).collect();
            let word = words[random.below(words.len())];
            let at = random.below(bytes.len());
            bytes.splice(at..at, word.iter().copied());
        }
        _ => {}
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Changes one place of a JSON tree, all places being alike.
fn change(value: &mut Value, random: &mut Random) {
    let children = match value {
        Value::Array(entries) => entries.len(),
        Value::Object(fields) => fields.len(),
        _ => 0,
    };
    if children > 0 && random.below(8) > 0 {
        let number = random.below(children);
        let child = match value {
            Value::Array(entries) => &mut entries[number],
            Value::Object(fields) => fields.values_mut().nth(number).expect("counted"),
            _ => return,
        };
        return change(child, random);
    }
    let extremes = [
        0,
        1,
        255,
        256,
        4096,
        1 << 31,
        u64::MAX / 2,
        u64::MAX - 255,
        u64::MAX,
    ];
    *value = match (random.below(4), &*value) {
        (0, Value::Array(entries)) if !entries.is_empty() => {
            let mut entries = entries.clone();
            entries.remove(random.below(entries.len()));
            Value::Array(entries)
        }
        (1, Value::Array(entries)) if !entries.is_empty() => {
            let mut entries = entries.clone();
            entries.push(entries[random.below(entries.len())].clone());
            Value::Array(entries)
        }
        (2, _) => Value::Null,
        (3, _) => Value::String("sm_90a".to_owned()),
        _ => Value::from(extremes[random.below(extremes.len())]),
    };
}

/// Where the header of an engine is.
fn header_span(engine: &[u8]) -> std::ops::Range<usize> {
    let start = if engine[8] < 3 { PREAMBLE } else { SIGNED_PREAMBLE };
    let len = u64::from_le_bytes(engine[16..24].try_into().unwrap());
    start..start + usize::try_from(len).unwrap()
}

/// An engine whose header says something else, with a digest that fits.
fn changed_engine(engine: &[u8], random: &mut Random) -> Vec<u8> {
    let span = header_span(engine);
    let mut header: Value = serde_json::from_slice(&engine[span.clone()]).unwrap();
    for _ in 0..=random.below(2) {
        change(&mut header, random);
    }
    let text = serde_json::to_vec(&header).unwrap();
    let mut bytes = engine[..16].to_vec();
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(Sha256::digest(&text));
    bytes.extend(&engine[PREAMBLE..span.start]);
    bytes.extend(&text);
    bytes.resize(bytes.len().next_multiple_of(engine::ALIGNMENT), 0);
    bytes.extend(&engine[span.end.next_multiple_of(engine::ALIGNMENT)..]);
    bytes
}

/// Engines of every format, with their weights and without.
fn engines() -> Vec<Vec<u8>> {
    let stripped = engine::stripped::strip(&engine::read(ENGINES[2]).unwrap()).unwrap();
    let mut files = ENGINES.map(<[u8]>::to_vec).to_vec();
    files.push(Vec::new());
    engine::write(&stripped, files.last_mut().unwrap()).unwrap();
    files
}

/// One of `files`.
fn any<'a>(files: &'a [Vec<u8>], random: &mut Random) -> &'a [u8] {
    &files[random.below(files.len())]
}

#[test]
fn damaged_engines_are_errors() {
    let files = engines();
    let draw = |random: &mut Random| loop {
        let whole = any(&files, random);
        let bytes = damaged(whole, random);
        if bytes != whole {
            return bytes;
        }
    };
    expect_calm("damaged engines", draw, |_, bytes| {
        assert!(engine::read(bytes).is_err(), "a damaged engine was read");
    });
}

#[test]
fn engines_that_lie_are_errors_or_valid() {
    let files = engines();
    let draw = |random: &mut Random| {
        let whole = any(&files, random);
        changed_engine(whole, random)
    };
    expect_calm("engines that lie", draw, |_, bytes| {
        if let Ok(engine) = engine::read(bytes) {
            engine::validate::validate(&engine).expect("what is read was validated");
            uses_shapes(&engine);
        }
    });
}

/// Computes programs as a context does when their shapes are used: each is proven or refused.
fn uses_shapes(engine: &Engine) {
    let header = &engine.header;
    let n_profiles = header.n_profiles();
    let some = [0, n_profiles / 2, n_profiles.saturating_sub(1), n_profiles];
    for number in some {
        if let Ok(profile) = header.profile(number) {
            let types: Vec<_> = profile.inputs.iter().map(engine::Binding::ty).collect();
            let _ = header.profile_for(&types);
        }
        if let Ok(program) = header.program(number) {
            let profile = header
                .profile(program.profile)
                .expect("it was proven with the program");
            engine::validate::program(header, &program, &profile).expect("what is computed was proven");
        }
    }
    let n_inputs = header.profiles.first().map_or(0, |first| first.inputs.len());
    for position in 0..n_inputs {
        let _ = header.spanned_input(position);
    }
}

/// A range whose forms, formulas or tables say something else.
#[test]
fn ranges_that_lie_are_errors_or_valid() {
    let whole = engine::read(ENGINES[4]).unwrap();
    let shared = serde_json::to_value(whole.header.shared.as_ref().unwrap()).unwrap();
    let draw = |random: &mut Random| {
        let mut shared = shared.clone();
        for _ in 0..=random.below(3) {
            change(&mut shared, random);
        }
        serde_json::to_vec(&shared).unwrap()
    };
    expect_calm("ranges that lie", draw, |_, bytes| {
        let Ok(shared) = serde_json::from_slice(bytes) else {
            return;
        };
        let mut engine = whole.clone();
        engine.header.shared = Some(shared);
        if engine::validate::validate(&engine).is_ok() {
            uses_shapes(&engine);
        }
    });
}

/// An engine that states problems, once they are changed.
fn changed_problem(whole: &Engine, random: &mut Random) -> Engine {
    let mut engine = whole.clone();
    let n_problems = engine.header.programs[0].problems.len();
    let problem = &mut engine.header.programs[0].problems[random.below(n_problems)];
    match random.below(4) {
        0 => {
            let other = &whole.header.programs[0].problems[random.below(n_problems)];
            problem.kind.clone_from(&other.kind);
        }
        1 => problem.graph = random.below(engine.blobs.len()),
        _ => {
            let graph = problem.graph;
            engine.blobs[graph] = damaged(&engine.blobs[graph], random).into();
        }
    }
    engine
}

#[test]
fn problems_that_lie_are_errors_or_problems() {
    let whole = engine::read(ENGINES[3]).unwrap();
    let draw = |random: &mut Random| {
        let engine = changed_problem(&whole, random);
        let mut bytes = Vec::new();
        let header = engine::Header {
            blobs: engine::blob_table(&engine.blobs),
            ..engine.header.clone()
        };
        engine::write(&Engine { header, ..engine }, &mut bytes).unwrap();
        bytes
    };
    expect_calm("problems that lie", draw, |_, bytes| {
        let engine = engine::read(bytes).expect("nothing that a device needs is changed");
        if let Ok(posed) = plan::posed(&engine, 0) {
            assert_eq!(posed.len(), engine.header.programs[0].launches.len());
        }
    });
}

/// A file of its own for every case, in memory where the system has such a folder.
struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        Scratch(if memory.is_dir() {
            tempfile::tempdir_in(memory).unwrap()
        } else {
            tempfile::tempdir().unwrap()
        })
    }

    fn with<T>(&self, name: &str, content: &[u8], read: impl FnOnce(&PathBuf) -> T) -> T {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).unwrap();
        let result = read(&path);
        std::fs::remove_file(&path).unwrap();
        result
    }
}

#[test]
fn damaged_models_are_errors_or_models() {
    let settings = Settings::stored_in(DType::F32);
    let scratch = Scratch::new();
    let models = MODELS.map(Whole::of);
    let n_imported = AtomicU64::new(0);
    expect_calm(
        "damaged models",
        |random| models[random.below(models.len())].damaged(random),
        |number, bytes| {
            scratch.with(&format!("{number}.onnx"), bytes, |path| {
                if let Ok(model) = onnx::import_file(path) {
                    n_imported.fetch_add(1, Ordering::Relaxed);
                    // A refusal is as good as a graph.
                    let _ = pipeline::lower(&model.graph, &settings);
                }
            });
        },
    );
    println!("damaged models: {} imported and lowered", n_imported.into_inner());
}

/// What is read of a damaged model goes on to the text of its kernels: fused, and the variants that are predicted to be
/// fastest. Fusing holds more than reading may.
#[test]
fn damaged_models_are_errors_or_kernels() {
    let settings = Settings::stored_in(DType::F16);
    let arch = Arch {
        sm: 90,
        specific: true,
    };
    let scratch = Scratch::new();
    let models = MODELS.map(Whole::of);
    let n_fused = AtomicU64::new(0);
    expect_calm_within(
        "damaged models, to kernels",
        |_| usize::MAX,
        Until::of_environment_or(40),
        |random| models[random.below(models.len())].other_parts(random),
        |number, bytes| {
            let Ok(model) = scratch.with(&format!("{number}.onnx"), bytes, |path| onnx::import_file(path))
            else {
                return;
            };
            let fused = pipeline::lower(&model.graph, &settings)
                .and_then(|core| pipeline::regions(&core, arch, &settings));
            if let Ok(fused) = fused {
                n_fused.fetch_add(1, Ordering::Relaxed);
                for region in 0..fused.regions.len() {
                    let spec = kernel::spec(&fused, region, &settings.kernel_options());
                    let fastest = &kernel::variants(&spec, arch)[0];
                    kernel::render(&spec, fastest, arch).expect("a template renders what it offers");
                }
            }
        },
    );
    println!("damaged models: {} fused", n_fused.into_inner());
}

#[test]
fn damaged_graphs_are_errors_or_graphs() {
    let draw = |random: &mut Random| damaged_text(GRAPH, random).into_bytes();
    expect_calm("damaged graphs", draw, |_, bytes| {
        let text = std::str::from_utf8(bytes).unwrap();
        let _ = ir::text::parse(text, &|name| ops::lookup(name).map(|def| def.name));
    });
}

#[test]
fn damaged_rules_are_errors_or_rules() {
    let draw = |random: &mut Random| damaged_text(RULES, random).into_bytes();
    expect_calm("damaged rules", draw, |_, bytes| {
        let _ = RuleSet::from_text("damaged.rules", std::str::from_utf8(bytes).unwrap());
    });
}

#[test]
fn damaged_calibrations_are_errors_or_calibrations() {
    let draw = |random: &mut Random| damaged_text(CALIBRATION, random).into_bytes();
    expect_calm("damaged calibrations", draw, |_, bytes| {
        if let Ok(cache) = Cache::parse(std::str::from_utf8(bytes).unwrap()) {
            let ranges = cache.ranges();
            assert!(ranges.values().all(|range| range.0 <= range.1));
        }
    });
}

#[test]
fn damaged_timings_are_errors_or_timings() {
    let scratch = Scratch::new();
    let draw = |random: &mut Random| damaged_text(TIMINGS, random).into_bytes();
    expect_calm("damaged timings", draw, |number, bytes| {
        let _ = scratch.with(&format!("{number}.jsonl"), bytes, |path| Database::load(path));
    });
}
