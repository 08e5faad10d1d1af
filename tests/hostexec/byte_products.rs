//! Products and convolutions of 8-bit elements, and what quantises their sums.

#![allow(dead_code, reason = "each test crate uses a part of it")]

use rtrt_codegen::ir::{Attr, Attrs, DType, ValueId};
use rtrt_codegen::ops::evaluate::from_values;
use rtrt_codegen::rewrite::RegionKind;

use crate::products::{CONV, Conv, Epilogue, Layout, finish, operand, signed};
use crate::regions::{Build, Problem, cast, ints, quantised};

/// A sum scaled per column, rounded, and stored in 8 bits.
fn requantised(b: &mut Build, sum: ValueId) -> ValueId {
    let ty = b.graph.ty(sum).clone();
    let scale = b.input(DType::F32, &ty.dims()[ty.rank() - 1..]);
    let wide = cast(b, sum, DType::F32);
    let scaled = b.op("mul", &[wide, scale]);
    let limits = Attrs::new()
        .with("low", Attr::Float(-128.0))
        .with("high", Attr::Float(127.0));
    let whole = b.op("round", &[scaled]);
    let limited = b.with("clamp", &[whole], limits);
    cast(b, limited, DType::I8)
}

/// A product in kind `product` of 8-bit operands that lie along `k`, requantised.
pub fn byte_product(stored: DType, product: DType, a_dims: &[usize], b_dims: &[usize]) -> Problem {
    finished_byte_product(stored, product, (a_dims, b_dims), requantised)
}

fn finished_byte_product(
    stored: DType,
    product: DType,
    (a_dims, b_dims): (&[usize], &[usize]),
    finish: impl Fn(&mut Build, ValueId) -> ValueId,
) -> Problem {
    let mut b = Build::new(73);
    let left = operand(&mut b, stored, a_dims, Layout::Plain);
    let right = operand(&mut b, stored, b_dims, Layout::Turned);
    let (left, right) = (cast(&mut b, left, product), cast(&mut b, right, product));
    let sum = b.op("matmul", &[left, right]);
    let z = finish(&mut b, sum);
    let label = format!("{stored:?} {a_dims:?} {b_dims:?} in {product:?}");
    b.done(&label, RegionKind::Dot, &[z])
}

/// The largest sums that take no conversion to be floats, of one sign and of both, which saturate when
/// they are stored.
pub fn extreme_bytes(product: DType) -> Vec<Problem> {
    let ends = [(-128.0, -128.0), (-128.0, 127.0), (127.0, 127.0)];
    let problem = |(left, right): (f64, f64)| {
        let mut problem = byte_product(DType::I8, product, &[20, 256], &[256, 24]);
        for (input, value) in problem.inputs.iter_mut().zip([left, right]) {
            let dims = input.dims().to_vec();
            *input = from_values(DType::I8, &dims, &vec![value; input.n_elements()]);
        }
        problem
    };
    ends.into_iter().map(problem).collect()
}

/// A product of bytes in a quantised residual block: scaled, added to bytes with a zero point, and stored
/// as bytes with another one.
pub fn quantised_residual(stored: DType) -> Problem {
    residual_block(stored, 3.0, 7.0, false)
}

/// The same behind a `relu`, without zero points, as residual networks have it.
pub fn quantised_residual_relu() -> Problem {
    residual_block(DType::I8, 0.0, 0.0, true)
}

fn residual_block(stored: DType, zero_in: f64, zero_out: f64, has_relu: bool) -> Problem {
    let mut b = Build::new(83);
    let left = operand(&mut b, DType::I8, &[40, 64], Layout::Plain);
    let right = operand(&mut b, DType::I8, &[64, 48], Layout::Turned);
    let residual = b.input(stored, &[40, 48]);
    let [left, right] = [left, right].map(|side| cast(&mut b, side, DType::I32));
    let sum = b.op("matmul", &[left, right]);
    let wide = cast(&mut b, sum, DType::F32);
    // All steps are exact, so that no two ways of rounding differ.
    let scales: Vec<f64> = (0..48).map(|n| f64::from(1 << (n % 5)) / 4096.0).collect();
    let scale = b.given(from_values(DType::F32, &[48], &scales));
    let product = b.op("mul", &[wide, scale]);
    let residual = cast(&mut b, residual, DType::F32);
    let zero = b.scalar(DType::F32, zero_in);
    let shifted = b.op("sub", &[residual, zero]);
    let step = b.scalar(DType::F32, 0.25);
    let residual = b.op("mul", &[shifted, step]);
    let mut added = b.op("add", &[product, residual]);
    if has_relu {
        added = b.op("relu", &[added]);
    }
    let z = quantised(&mut b, added, 16.0, zero_out, stored);
    b.done(&format!("a residual of {stored:?}"), RegionKind::Dot, &[z])
}

/// Quantisers of values at ties, beyond the bounds and of no size, and all bytes back as floats.
pub fn quantisers() -> Vec<Problem> {
    let mut problems = Vec::new();
    for (stored, low, high) in [
        (DType::I8, -128.0, 127.0),
        (DType::I8, -7.0, 90.0),
        (DType::U8, 0.0, 255.0),
    ] {
        let mut b = Build::new(89);
        let x = b.input(DType::F32, &[1024]);
        let whole = b.op("round", &[x]);
        let limits = Attrs::new()
            .with("low", Attr::Float(low))
            .with("high", Attr::Float(high));
        let limited = b.with("clamp", &[whole], limits);
        let z = cast(&mut b, limited, stored);
        let mut problem = b.done("a quantiser", RegionKind::Pointwise, &[z]);
        let mut values: Vec<f64> = (0..1019).map(|n| f64::from(n) * 0.5 - 200.0).collect();
        values.extend([1e30, -1e30, f64::INFINITY, f64::NEG_INFINITY, f64::NAN]);
        problem.inputs[0] = from_values(DType::F32, &[1024], &values);
        problems.push(problem);
        let mut b = Build::new(97);
        let x = b.input(stored, &[256]);
        let z = cast(&mut b, x, DType::F32);
        let mut problem = b.done("bytes", RegionKind::Pointwise, &[z]);
        let least = if stored == DType::I8 { -128 } else { 0 };
        let values: Vec<f64> = (0..256).map(|n| f64::from(n + least)).collect();
        problem.inputs[0] = from_values(stored, &[256], &values);
        problems.push(problem);
    }
    problems.extend(bounded_quantisers());
    problems
}

/// Quantisers of numbers that a `relu` or a greatest of bytes keeps above a bound, NaN among them.
fn bounded_quantisers() -> Vec<Problem> {
    let mut values: Vec<f64> = (0..1019).map(|n| f64::from(n) * 0.5 - 200.0).collect();
    values.extend([1e30, -1e30, f64::INFINITY, f64::NEG_INFINITY, f64::NAN]);
    let mut problems = Vec::new();
    for (factor, bound) in [
        (0.5, None),
        (-0.5, None),
        (1.0, Some(0.0)),
        (0.5, Some(-9.0)),
        (0.5, Some(6.0)),
    ] {
        let mut b = Build::new(99);
        let x = b.given(from_values(DType::F32, &[1024], &values));
        let kept = if bound.is_none() { b.op("relu", &[x]) } else { x };
        let mut z = quantised(&mut b, kept, factor, 0.0, DType::I8);
        if let Some(bound) = bound {
            let bound = b.scalar(DType::I8, bound);
            z = b.op("max", &[z, bound]);
        }
        problems.push(b.done(
            &format!("a quantiser above {bound:?}, times {factor}"),
            RegionKind::Pointwise,
            &[z],
        ));
    }
    // A tensor of floats beside that of bytes needs the `relu`.
    let mut b = Build::new(100);
    let x = b.given(from_values(DType::F32, &[1024], &values));
    let kept = b.op("relu", &[x]);
    let z = quantised(&mut b, kept, 0.5, 0.0, DType::I8);
    problems.push(b.done("a quantiser beside its relu", RegionKind::Pointwise, &[z, kept]));
    problems
}

/// Products of bytes: tails in every direction, several tiles along `k`, batches.
pub fn bytes(stored: DType, product: DType) -> Vec<Problem> {
    let sizes: [(&[usize], &[usize]); 6] = [
        (&[88, 272], &[272, 136]),
        (&[17, 48], &[48, 40]),
        (&[1, 16], &[16, 8]),
        (&[3, 72, 32], &[3, 32, 40]),
        (&[2, 33, 144], &[144, 72]),
        (&[70, 1040], &[1040, 48]),
    ];
    let each = sizes.into_iter().enumerate();
    each.map(|(number, dims)| {
        finished_byte_product(stored, product, dims, |b, sum| match number % 3 {
            // Rounded to halves before, a value may be on the other side of a step.
            0 if product != DType::F16 => requantised(b, sum),
            1 => finish(b, sum, Epilogue::BiasResidualRelu),
            _ => sum,
        })
    })
    .collect()
}

/// Convolutions of 8-bit images and filters, summed in kind `product`.
pub fn byte_convolutions(stored: DType, product: DType) -> Vec<Problem> {
    let shapes = [
        CONV,
        Conv {
            channels: 144,
            stride: 2,
            ..CONV
        },
    ];
    convolved(stored, product, &shapes)
}

/// Those of `products::near_convolutions` whose channels are whole instructions.
pub fn near_byte_convolutions(product: DType) -> Vec<Problem> {
    let shapes = [
        Conv {
            channels: 32,
            filters: 72,
            ..CONV
        },
        Conv {
            size: [17, 12],
            channels: 64,
            filters: 64,
            ..CONV
        },
    ];
    convolved(DType::I8, product, &shapes)
}

fn convolved(stored: DType, product: DType, shapes: &[Conv]) -> Vec<Problem> {
    let problem = |shape: Conv| {
        let mut b = Build::new(79);
        let [h, w] = shape.size;
        let [r, s] = shape.kernel;
        let x = b.input(stored, &[shape.batch, h, w, shape.channels]);
        let filter = b.input(stored, &[shape.filters, r, s, shape.channels]);
        let bias = b.input(product, &[shape.filters]);
        let (x, filter) = (cast(&mut b, x, product), cast(&mut b, filter, product));
        let attrs = ints("strides", &signed(&[shape.stride; 2]))
            .with("pads", Attr::Ints(signed(&[shape.pad; 4])))
            .with("dilations", Attr::Ints(signed(&[shape.dilation; 2])))
            .with("group", Attr::Int(1));
        let sum = b.with("conv_nhwc", &[x, filter, bias], attrs);
        let z = if product == DType::F16 {
            sum
        } else {
            requantised(&mut b, sum)
        };
        b.done(
            &format!("{stored:?} {shape:?} in {product:?}"),
            RegionKind::Window,
            &[z],
        )
    };
    shapes.iter().copied().map(problem).collect()
}

/// A narrow left or right operand beside one of 16 bits.
pub fn mixed(narrow: DType) -> Vec<Problem> {
    [[narrow, DType::F16], [DType::F16, narrow]]
        .into_iter()
        .map(|[left, right]| {
            let mut b = Build::new(83);
            let (x, w) = (b.input(left, &[40, 72]), b.input(right, &[72, 48]));
            let (x, w) = (cast(&mut b, x, DType::F32), cast(&mut b, w, DType::F32));
            let sum = b.op("matmul", &[x, w]);
            let z = finish(&mut b, sum, Epilogue::BiasResidualRelu);
            b.done(&format!("{left:?} by {right:?}"), RegionKind::Dot, &[z])
        })
        .collect()
}
