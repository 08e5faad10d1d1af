//! Weights and inputs that a model's `weights.json` describes instead of holding.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use rtrt_codegen::ir::{DType, HostTensor};
use rtrt_codegen::ops::evaluate::from_values;
use serde_json::Value;

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Number `i` of the stream `seed`, in [0, 1).
fn unit(seed: u64, i: u64) -> f64 {
    let mut z = seed.wrapping_add((i + 1).wrapping_mul(GOLDEN));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    f64::from(u32::try_from(z >> 40).expect("24 bits")) / f64::from(1u32 << 24)
}

fn numbers(value: &Value) -> Option<Vec<f64>> {
    value.as_array()?.iter().map(Value::as_f64).collect()
}

/// A number, or a boolean as one.
fn number(value: &Value) -> Option<f64> {
    value
        .as_f64()
        .or_else(|| value.as_bool().map(|is| f64::from(u8::from(is))))
}

fn values(fill: &Value, count: usize) -> Option<Vec<f64>> {
    if let Some(constant) = fill.get("constant") {
        return Some(vec![number(constant)?; count]);
    }
    if let Some(runs) = fill.get("runs") {
        let mut all = Vec::with_capacity(count);
        for run in runs.as_array()? {
            let repeats = usize::try_from(run[1].as_u64()?).ok()?;
            all.extend(std::iter::repeat_n(number(&run[0])?, repeats));
        }
        return Some(all);
    }
    let seed = fill.get("seed")?.as_u64()?;
    let units = (0..count as u64).map(|i| unit(seed, i));
    if let Some(range) = fill.get("integers").and_then(numbers) {
        let (low, high) = (range[0], range[1]);
        return Some(
            units
                .map(|unit| low + ((high - low + 1.0) * unit).floor())
                .collect(),
        );
    }
    let range = fill.get("uniform").and_then(numbers)?;
    let (low, high) = (range[0], range[1]);
    // Whatever the kind.
    #[expect(clippy::cast_possible_truncation, reason = "numbers are rounded through f32")]
    Some(
        units
            .map(|unit| f64::from((low + (high - low) * unit) as f32))
            .collect(),
    )
}

/// The tensor that an entry of the recipe describes.
pub fn tensor(entry: &Value) -> Option<HostTensor> {
    let dtype = match entry.get("dtype")?.as_str()? {
        "float32" => DType::F32,
        "float16" => DType::F16,
        "bfloat16" => DType::BF16,
        "int64" => DType::I64,
        "int32" => DType::I32,
        "int8" => DType::I8,
        "uint8" => DType::U8,
        "bool" => DType::Bool,
        _ => return None,
    };
    let shape = entry.get("shape")?.as_array()?;
    let extent = |extent: &Value| usize::try_from(extent.as_u64()?).ok();
    let dims: Vec<usize> = shape.iter().map(extent).collect::<Option<_>>()?;
    let count = dims.iter().product();
    Some(from_values(dtype, &dims, &values(entry.get("fill")?, count)?))
}

/// Writes the file of weights beside a model.
pub fn write_weights(recipe: &Value, folder: &Path) -> Result<(), String> {
    let name = recipe["file"].as_str().ok_or("the recipe names no file")?;
    let entries = recipe["tensors"].as_array().ok_or("the recipe has no tensors")?;
    let file = File::create(folder.join(name)).map_err(|error| error.to_string())?;
    let mut into = BufWriter::new(file);
    let mut at = 0;
    for entry in entries {
        let data = tensor(entry).ok_or_else(|| format!("cannot make `{}`", entry["name"]))?;
        let offset = entry["offset"].as_u64().ok_or("a tensor without offset")?;
        let gap = offset.checked_sub(at).ok_or("tensors overlap")?;
        let gap = vec![0; usize::try_from(gap).map_err(|error| error.to_string())?];
        into.write_all(&gap).map_err(|error| error.to_string())?;
        into.write_all(data.bytes()).map_err(|error| error.to_string())?;
        at = offset + data.bytes().len() as u64;
    }
    let end = recipe["bytes"].as_u64().unwrap_or(at);
    let rest = vec![0; usize::try_from(end.saturating_sub(at)).unwrap_or(0)];
    into.write_all(&rest).map_err(|error| error.to_string())?;
    into.flush().map_err(|error| error.to_string())
}
