//! Attentions to run: kinds, tails, masks, grouped heads, and views around them.

#![allow(dead_code, reason = "each test crate uses a part of it")]

use rtrt_codegen::ir::{Attr, Attrs, DType, HostTensor, ValueId};
use rtrt_codegen::ops::evaluate::from_values;
use rtrt_codegen::rewrite::RegionKind;

use crate::regions::{Build, Problem, cast, ints};

/// Batch, heads, key heads, queries, keys, depth, depth of the values.
type Sizes = [usize; 7];

fn settings(causal_offset: Option<i64>, softcap: f64) -> Attrs {
    Attrs::new()
        .with("scale", Attr::Float(0.3))
        .with("causal", Attr::Int(i64::from(causal_offset.is_some())))
        .with("causal_offset", Attr::Int(causal_offset.unwrap_or(0)))
        .with("softcap", Attr::Float(softcap))
}

fn operands(b: &mut Build, dtype: DType, sizes: Sizes) -> Vec<ValueId> {
    let [batch, heads, key_heads, queries, keys, depth, value_depth] = sizes;
    vec![
        b.input(dtype, &[batch, heads, queries, depth]),
        b.input(dtype, &[batch, key_heads, keys, depth]),
        b.input(dtype, &[batch, key_heads, keys, value_depth]),
    ]
}

fn plain(dtype: DType, sizes: Sizes, causal_offset: Option<i64>, softcap: f64) -> Problem {
    let mut b = Build::new(61);
    let operands = operands(&mut b, dtype, sizes);
    let z = b.with("attention", &operands, settings(causal_offset, softcap));
    b.done(
        &format!("attention {sizes:?} {causal_offset:?}"),
        RegionKind::Attention,
        &[z],
    )
}

/// A mask that hides every third key, and all keys of the first row where it has rows.
fn mask(dtype: DType, dims: &[usize]) -> HostTensor {
    let keys = dims[dims.len() - 1];
    let values: Vec<f64> = (0..dims.iter().product::<usize>())
        .map(|i| {
            let hidden = i % keys % 3 == 1 || (dims.len() > 1 && dims[dims.len() - 2] > 1 && i < keys);
            if hidden {
                f64::NEG_INFINITY
            } else {
                [0.0, 0.25, 0.5, 0.75, 1.0][i % 5]
            }
        })
        .collect();
    from_values(dtype, dims, &values)
}

fn masked(dtype: DType, sizes: Sizes, dims: &[usize], causal_offset: Option<i64>) -> Problem {
    let mut b = Build::new(62);
    let mut operands = operands(&mut b, dtype, sizes);
    operands.push(b.given(mask(dtype, dims)));
    let z = b.with("attention", &operands, settings(causal_offset, 0.0));
    b.done(
        &format!("attention {sizes:?} bias {dims:?}"),
        RegionKind::Attention,
        &[z],
    )
}

/// Heads split out of a joint projection, a padding mask made of zeros and ones by maps, and
/// heads put together again.
fn between_views(dtype: DType, [batch, length, heads, depth]: [usize; 4]) -> Problem {
    let signed = |value: usize| i64::try_from(value).unwrap();
    let mut b = Build::new(63);
    let width = heads * depth;
    let joint = b.input(dtype, &[batch, length, 3 * width]);
    let parts: Vec<ValueId> = (0..3)
        .map(|part| {
            let attrs = ints("starts", &[0, 0, signed(part * width)]);
            let attrs = attrs.with("steps", Attr::Ints(vec![1, 1, 1])).with(
                "ends",
                Attr::Ints(vec![signed(batch), signed(length), signed((part + 1) * width)]),
            );
            let own = b.with("slice", &[joint], attrs);
            let shape = ints(
                "shape",
                &[signed(batch), signed(length), signed(heads), signed(depth)],
            );
            let split = b.with("reshape", &[own], shape);
            b.with("transpose", &[split], ints("perm", &[0, 2, 1, 3]))
        })
        .collect();
    let ones: Vec<i64> = (0..batch * length).map(|i| i64::from(i % 4 != 2)).collect();
    let seen = b.given(HostTensor::from_i64(&[batch, 1, 1, length], &ones));
    let seen = cast(&mut b, seen, dtype);
    let (one, much) = (b.scalar(dtype, 1.0), b.scalar(dtype, -10000.0));
    let hidden = b.op("sub", &[one, seen]);
    let bias = b.op("mul", &[hidden, much]);
    let z = b.with(
        "attention",
        &[parts[0], parts[1], parts[2], bias],
        settings(None, 0.0),
    );
    let turned = b.with("transpose", &[z], ints("perm", &[0, 2, 1, 3]));
    let merged = b.with(
        "reshape",
        &[turned],
        ints("shape", &[signed(batch), signed(length), signed(width)]),
    );
    b.done("attention between views", RegionKind::Attention, &[merged])
}

/// Operands in `f32`, attention in `dtype`, a result in `to`.
fn between_casts(dtype: DType, to: DType) -> Problem {
    let mut b = Build::new(64);
    let operands = operands(&mut b, DType::F32, [1, 2, 2, 20, 33, 24, 24]);
    let narrow: Vec<ValueId> = operands.into_iter().map(|x| cast(&mut b, x, dtype)).collect();
    let z = b.with("attention", &narrow, settings(None, 0.0));
    let z = cast(&mut b, z, to);
    b.done(&format!("attention in {dtype}"), RegionKind::Attention, &[z])
}

/// In 16-bit floats, for tensor cores.
pub fn half() -> Vec<Problem> {
    let mut problems = Vec::new();
    for dtype in [DType::F16, DType::BF16] {
        problems.push(plain(dtype, [1, 2, 2, 33, 70, 64, 64], None, 0.0));
        problems.push(masked(dtype, [2, 2, 1, 17, 40, 32, 32], &[2, 1, 17, 40], None));
        problems.push(between_views(dtype, [2, 37, 3, 32]));
    }
    problems.extend([
        plain(DType::F16, [1, 1, 1, 1, 1, 8, 8], None, 0.0),
        plain(DType::F16, [1, 2, 2, 16, 64, 16, 16], None, 0.0),
        plain(DType::F16, [1, 2, 1, 15, 63, 24, 40], None, 0.0),
        plain(DType::F16, [1, 1, 1, 65, 65, 128, 128], Some(0), 0.0),
        plain(DType::F16, [1, 4, 2, 5, 50, 40, 8], Some(45), 2.0),
        plain(DType::F16, [1, 1, 1, 20, 20, 256, 256], Some(-3), 0.0),
        plain(DType::F16, [1, 2, 2, 40, 12, 64, 64], Some(-20), 0.0),
        masked(DType::F16, [2, 2, 2, 49, 49, 32, 32], &[2, 49, 49], None),
        masked(DType::F16, [2, 2, 2, 10, 50, 64, 64], &[50], None),
        masked(DType::F16, [2, 2, 2, 10, 50, 64, 64], &[2, 1, 1, 50], Some(40)),
        between_casts(DType::F16, DType::BF16),
    ]);
    problems
}

/// With depths that groups of warps multiply: tails of rows and of keys, several tiles of both.
pub fn of_groups() -> Vec<Problem> {
    let mut problems = Vec::new();
    for dtype in [DType::F16, DType::BF16] {
        problems.push(plain(dtype, [1, 2, 2, 33, 70, 64, 64], None, 0.0));
        problems.push(masked(dtype, [2, 2, 1, 17, 140, 64, 64], &[2, 1, 17, 140], None));
    }
    problems.extend([
        plain(DType::F16, [1, 1, 1, 150, 200, 128, 128], Some(50), 0.0),
        plain(DType::F16, [1, 2, 2, 40, 12, 64, 64], Some(-20), 0.0),
        plain(DType::F16, [1, 1, 1, 70, 130, 64, 128], None, 2.0),
        plain(DType::F16, [1, 1, 1, 130, 128, 128, 64], None, 0.0),
        between_views(DType::F16, [2, 37, 2, 64]),
    ]);
    problems
}

/// With operands that copies bring: more tiles of keys than are in flight, masks that leave no key of a
/// tile, tails, and heads that share keys.
pub fn streamed() -> Vec<Problem> {
    let mut problems = of_groups();
    problems.extend([
        plain(DType::F16, [2, 4, 2, 130, 330, 64, 64], None, 0.0),
        plain(DType::BF16, [1, 2, 1, 200, 410, 128, 128], Some(210), 0.0),
        plain(DType::F16, [1, 2, 2, 300, 300, 64, 64], Some(0), 0.0),
        masked(DType::F16, [1, 2, 2, 70, 270, 64, 64], &[70, 270], Some(200)),
        between_views(DType::BF16, [2, 150, 2, 128]),
    ]);
    problems
}

/// More tiles of rows than blocks of one group, and of several, at a time.
pub fn of_many_tiles() -> Vec<Problem> {
    vec![
        plain(DType::F16, [27, 15, 5, 40, 60, 64, 64], None, 0.0),
        plain(DType::F16, [67, 2, 2, 100, 100, 64, 64], Some(0), 0.0),
    ]
}

/// In `f16`, which the oldest tensor cores multiply too.
pub fn half_of_one_kind() -> Vec<Problem> {
    vec![
        plain(DType::F16, [1, 2, 2, 33, 70, 64, 64], None, 0.0),
        between_views(DType::F16, [2, 37, 3, 32]),
        plain(DType::F16, [1, 1, 1, 65, 65, 128, 128], Some(0), 0.0),
    ]
}

/// In the kinds that are multiplied outside tensor cores.
pub fn wide() -> Vec<Problem> {
    let mut problems = vec![
        plain(DType::F32, [1, 2, 2, 33, 70, 64, 64], None, 0.0),
        plain(DType::F32, [1, 1, 1, 1, 1, 1, 1], None, 0.0),
        plain(DType::F32, [1, 2, 1, 15, 63, 7, 13], None, 0.0),
        plain(DType::F32, [1, 4, 2, 5, 50, 40, 8], Some(45), 2.0),
        plain(DType::F32, [1, 1, 1, 20, 20, 256, 256], Some(-3), 0.0),
        plain(DType::F32, [1, 1, 1, 9, 20, 130, 66], Some(-20), 0.0),
        masked(DType::F32, [2, 2, 2, 49, 49, 32, 32], &[2, 49, 49], None),
        masked(DType::F32, [2, 2, 1, 17, 40, 32, 32], &[2, 1, 17, 40], None),
        masked(DType::F32, [2, 2, 2, 10, 50, 64, 64], &[2, 1, 1, 50], Some(40)),
        between_views(DType::F32, [2, 37, 3, 32]),
        between_views(DType::F32, [1, 20, 2, 10]),
        plain(DType::F64, [1, 2, 2, 19, 35, 20, 20], None, 0.0),
        masked(DType::F64, [1, 2, 2, 3, 35, 20, 20], &[3, 35], Some(4)),
    ];
    problems.extend([
        between_casts(DType::F32, DType::F16),
        between_casts(DType::F64, DType::F32),
    ]);
    problems
}

/// One query, or a few.
pub fn decode() -> Vec<Problem> {
    let mut problems = Vec::new();
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        problems.push(plain(dtype, [2, 4, 2, 1, 200, 64, 64], None, 0.0));
        problems.push(plain(dtype, [1, 2, 2, 1, 3, 40, 24], None, 0.0));
    }
    problems.extend([
        plain(DType::F16, [1, 2, 2, 1, 77, 128, 128], Some(60), 3.0),
        plain(DType::F16, [1, 2, 1, 3, 30, 10, 14], Some(-1), 0.0),
        masked(DType::F32, [2, 2, 2, 1, 50, 64, 64], &[2, 1, 1, 50], None),
        between_views(DType::F16, [3, 1, 2, 32]),
        plain(DType::F64, [1, 2, 2, 1, 35, 20, 20], None, 0.0),
    ]);
    problems
}

/// Without queries, keys or batches.
pub fn empty(dtype: DType) -> Vec<Problem> {
    [
        [1, 2, 2, 0, 5, 16, 16],
        [1, 2, 2, 5, 0, 16, 16],
        [0, 2, 2, 5, 5, 16, 16],
    ]
    .map(|sizes| plain(dtype, sizes, None, 0.0))
    .to_vec()
}

/// Shapes of models, too large to run on the CPU but not to compile.
pub fn of_models() -> Vec<Problem> {
    vec![
        between_views(DType::F16, [1, 128, 12, 64]),
        between_views(DType::F32, [1, 128, 12, 64]),
        plain(DType::BF16, [1, 8, 2, 256, 256, 128, 128], Some(0), 0.0),
        plain(DType::F16, [1, 1, 1, 256, 256, 256, 256], None, 0.0),
        plain(DType::F16, [1, 32, 8, 1, 1024, 128, 128], Some(1023), 0.0),
        masked(DType::F16, [4, 3, 3, 49, 49, 32, 32], &[3, 49, 49], None),
    ]
}
