//! Damaged engines and models: readers give an error or a result, and never panic.
//!
//! Every case is drawn from its number, so a failure names what repeats it. `RTRT_MUTATIONS=200000`
//! sets the number of cases of each kind; the default keeps the test short.

use std::panic::{self, AssertUnwindSafe};

use rayon::prelude::*;
use rtrt_codegen::engine;
use rtrt_codegen::ir::DType;
use rtrt_codegen::onnx;
use rtrt_codegen::pipeline::{self, Settings};
use serde_json::Value;
use sha2::{Digest, Sha256};

const ENGINE: &[u8] = include_bytes!("engines/v1.engine");
const MODEL: &[u8] = include_bytes!("models/digits/model.onnx");
/// Bytes in front of an engine's header.
const PREAMBLE: usize = 56;

fn n_cases() -> u64 {
    let given = std::env::var("RTRT_MUTATIONS").ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(1500)
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

/// Runs `case` for every number and lists those that panic.
fn expect_no_panic(case: impl Fn(u64) + Sync) {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let failed: Vec<u64> = (0..n_cases())
        .into_par_iter()
        .filter(|&number| panic::catch_unwind(AssertUnwindSafe(|| case(number))).is_err())
        .collect();
    panic::set_hook(hook);
    assert!(failed.is_empty(), "these cases panic: {failed:?}");
}

/// Flips, inserts, removes and repeats bytes.
fn damaged(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
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

/// An engine whose header says something else, with a digest that fits.
fn changed_engine(random: &mut Random) -> Vec<u8> {
    let len = usize::try_from(u64::from_le_bytes(ENGINE[16..24].try_into().unwrap())).unwrap();
    let mut header: Value = serde_json::from_slice(&ENGINE[PREAMBLE..PREAMBLE + len]).unwrap();
    for _ in 0..=random.below(2) {
        change(&mut header, random);
    }
    let text = serde_json::to_vec(&header).unwrap();
    let mut bytes = ENGINE[..16].to_vec();
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(Sha256::digest(&text));
    bytes.extend(&text);
    bytes.resize(bytes.len().next_multiple_of(engine::ALIGNMENT), 0);
    let blobs = (PREAMBLE + len).next_multiple_of(engine::ALIGNMENT);
    bytes.extend(&ENGINE[blobs..]);
    bytes
}

#[test]
fn damaged_engines_are_errors() {
    expect_no_panic(|number| {
        let mut random = Random(number);
        let bytes = damaged(ENGINE, &mut random);
        if bytes != ENGINE {
            assert!(engine::read(&bytes).is_err(), "a damaged engine was read");
        }
    });
}

#[test]
fn engines_that_lie_are_errors_or_valid() {
    expect_no_panic(|number| {
        let mut random = Random(number);
        if let Ok(engine) = engine::read(&changed_engine(&mut random)) {
            engine::validate::validate(&engine).expect("what is read was validated");
        }
    });
}

#[test]
fn damaged_models_are_errors_or_models() {
    let settings = Settings::stored_in(DType::F32);
    let folder = tempfile::tempdir().unwrap();
    expect_no_panic(|number| {
        let mut random = Random(number);
        let path = folder.path().join(format!("{number}.onnx"));
        std::fs::write(&path, damaged(MODEL, &mut random)).unwrap();
        if let Ok(model) = onnx::import_file(&path) {
            // A refusal is as good as a graph.
            let _ = pipeline::lower(&model.graph, &settings);
        }
        std::fs::remove_file(&path).unwrap();
    });
}
