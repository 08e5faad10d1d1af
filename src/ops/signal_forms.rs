//! Signals: Fourier transforms as products with constant matrices, windows, mel weights.

use std::f64::consts::PI;

use super::build::{FORM, int_attr, optional_attr};
use super::evaluate::to_vec;
use super::infer::MAX_TABLE_ENTRIES;
use super::{AttrDef, AttrKind, ExpandCtx, Lowering, OnnxOp, OpDef, OpError, Operands, infer};
use crate::ir::{DType, ValueId};

/// The discrete Fourier transform along one axis. The last axis holds real and imaginary part.
pub static DFT: OpDef = OpDef {
    name: "DFT",
    onnx: &[OnnxOp::new("DFT")],
    operands: Operands::with_optional(&["x"], &["dft_length", "axis"]),
    attrs: &[
        optional_attr("axis", AttrKind::Int),
        int_attr("inverse", 0),
        int_attr("onesided", 0),
    ],
    lower: Lowering::Expand(dft),
    ..FORM
};

/// Transforms of (weighted) pieces of a signal `[n, length, 1 or 2]`.
pub static STFT: OpDef = OpDef {
    name: "STFT",
    onnx: &[OnnxOp::new("STFT")],
    operands: Operands::with_optional(&["signal", "frame_step"], &["window", "frame_length"]),
    attrs: &[int_attr("onesided", 1)],
    lower: Lowering::Expand(stft),
    ..FORM
};

const WINDOW_ATTRS: &[AttrDef] = &[
    optional_attr("output_datatype", AttrKind::DType),
    int_attr("periodic", 1),
];

pub static HANN_WINDOW: OpDef = OpDef {
    name: "HannWindow",
    onnx: &[OnnxOp::new("HannWindow")],
    operands: Operands::exactly(&["size"]),
    attrs: WINDOW_ATTRS,
    lower: Lowering::Expand(|ctx| cosine_window(ctx, &[0.5, -0.5])),
    ..FORM
};

pub static HAMMING_WINDOW: OpDef = OpDef {
    name: "HammingWindow",
    onnx: &[OnnxOp::new("HammingWindow")],
    operands: Operands::exactly(&["size"]),
    attrs: WINDOW_ATTRS,
    lower: Lowering::Expand(|ctx| cosine_window(ctx, &[25.0 / 46.0, -21.0 / 46.0])),
    ..FORM
};

pub static BLACKMAN_WINDOW: OpDef = OpDef {
    name: "BlackmanWindow",
    onnx: &[OnnxOp::new("BlackmanWindow")],
    operands: Operands::exactly(&["size"]),
    attrs: WINDOW_ATTRS,
    lower: Lowering::Expand(|ctx| cosine_window(ctx, &[0.42, -0.5, 0.08])),
    ..FORM
};

/// How much each frequency counts in each of a number of overlapping triangles.
pub static MEL_WEIGHT_MATRIX: OpDef = OpDef {
    name: "MelWeightMatrix",
    onnx: &[OnnxOp::new("MelWeightMatrix")],
    operands: Operands::exactly(&[
        "num_mel_bins",
        "dft_length",
        "sample_rate",
        "lower_edge_hertz",
        "upper_edge_hertz",
    ]),
    attrs: &[optional_attr("output_datatype", AttrKind::DType)],
    lower: Lowering::Expand(mel_weight_matrix),
    ..FORM
};

pub static OPS: &[&OpDef] = &[
    &DFT,
    &STFT,
    &HANN_WINDOW,
    &HAMMING_WINDOW,
    &BLACKMAN_WINDOW,
    &MEL_WEIGHT_MATRIX,
];

#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
/// One transform: lengths, and what stands for a complex number on either side.
struct Transform {
    length: usize,
    /// Frequencies (forward) or samples (inverse) that are put out.
    n_outputs: usize,
    /// Entries of the input that are read.
    n_inputs: usize,
    complex_input: bool,
    complex_output: bool,
    inverse: bool,
    /// The input holds half of a spectrum whose other half mirrors it.
    mirrored: bool,
}

impl Transform {
    fn new(
        length: usize,
        extent: usize,
        complex_input: bool,
        inverse: bool,
        onesided: bool,
    ) -> Result<Self, OpError> {
        if length == 0 {
            return Err(OpError::invalid("a Fourier transform of length zero"));
        }
        let half = length / 2 + 1;
        let mirrored = inverse && onesided;
        Ok(Transform {
            length,
            n_outputs: if onesided && !inverse { half } else { length },
            n_inputs: extent.min(if mirrored { half } else { length }),
            complex_input,
            complex_output: !mirrored,
            inverse,
            mirrored,
        })
    }

    fn parts(complex: bool) -> usize {
        if complex { 2 } else { 1 }
    }

    /// Times an input vector of (real, imaginary) entries gives such an output vector.
    #[expect(clippy::cast_precision_loss, reason = "lengths are limited")]
    fn matrix(&self) -> Result<Vec<f64>, OpError> {
        let (rows, columns) = (
            self.n_inputs * Self::parts(self.complex_input),
            self.n_outputs * Self::parts(self.complex_output),
        );
        if rows.saturating_mul(columns) > MAX_TABLE_ENTRIES {
            return Err(OpError::unsupported(format!(
                "a Fourier transform of length {}: its matrix has more than {MAX_TABLE_ENTRIES} elements",
                self.length
            )));
        }
        let sign = if self.inverse { 1.0 } else { -1.0 };
        let mut values = Vec::with_capacity(rows * columns);
        for row in 0..rows {
            let (input, input_imaginary) = split(row, self.complex_input);
            let scale = self.scale(input);
            for column in 0..columns {
                let (output, output_imaginary) = split(column, self.complex_output);
                // Reduced as integers, so that the angle is exact.
                let turn = (input * output % self.length) as f64 / self.length as f64;
                let (sine, cosine) = (sign * 2.0 * PI * turn).sin_cos();
                // (a + bi)(cos + i sin)
                values.push(
                    scale
                        * match (input_imaginary, output_imaginary) {
                            (false, false) | (true, true) => cosine,
                            (false, true) => sine,
                            (true, false) => -sine,
                        },
                );
            }
        }
        Ok(values)
    }

    /// Inverse transforms divide by the length; a mirrored entry counts for its mirror too.
    #[expect(clippy::cast_precision_loss, reason = "lengths are limited")]
    fn scale(&self, input: usize) -> f64 {
        if !self.inverse {
            return 1.0;
        }
        let alone = input == 0 || 2 * input == self.length;
        let count = if self.mirrored && !alone { 2.0 } else { 1.0 };
        count / self.length as f64
    }
}

/// Which number, and whether its imaginary part.
fn split(position: usize, complex: bool) -> (usize, bool) {
    if complex {
        (position / 2, position % 2 == 1)
    } else {
        (position, false)
    }
}

fn dft(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let x = ctx.value(0)?;
    let default_axis = if ctx.opset < 20 { 1 } else { -2 };
    let axis = match ctx.constant_int(2)? {
        Some(axis) => axis,
        None => ctx.attrs.int("axis").unwrap_or(default_axis),
    };
    let length = ctx.constant_int(1)?;
    let (inverse, onesided) = (
        infer::int(ctx.attrs, "inverse")? != 0,
        infer::int(ctx.attrs, "onesided")? != 0,
    );
    let rank = ctx.dims_of(x).len();
    let axis = infer::normalize_axis(axis, rank)?;
    if axis + 1 == rank {
        return Err(OpError::invalid(
            "a Fourier transform along the axis of real and imaginary parts",
        ));
    }
    Ok(vec![transformed(ctx, x, axis, length, inverse, onesided)?])
}

fn transformed(
    ctx: &mut ExpandCtx<'_>,
    x: ValueId,
    axis: usize,
    length: Option<i64>,
    inverse: bool,
    onesided: bool,
) -> Result<ValueId, OpError> {
    let dims = ctx.dims_of(x);
    let rank = dims.len();
    let complex = match dims.last() {
        Some(1) => false,
        Some(2) => true,
        _ => {
            return Err(OpError::invalid(format!(
                "the last axis of {dims:?} must hold 1 or 2 parts"
            )));
        }
    };
    let whole = match (length, inverse && onesided) {
        (Some(length), _) => usize::try_from(length).unwrap_or(0),
        (None, true) => 2 * dims[axis].saturating_sub(1),
        (None, false) => dims[axis],
    };
    let transform = Transform::new(whole, dims[axis], complex, inverse, onesided)?;
    // Entries beyond the input are zero and need no row.
    let x = ctx.part(x, axis, 0..transform.n_inputs)?;
    let last: Vec<usize> = (0..rank - 1)
        .filter(|&own| own != axis)
        .chain([axis, rank - 1])
        .collect();
    let x = ctx.transpose(x, &last)?;
    let mut outer: Vec<usize> = last[..rank - 2].iter().map(|&own| dims[own]).collect();
    let (inputs, outputs) = (
        transform.n_inputs * Transform::parts(complex),
        transform.n_outputs * Transform::parts(transform.complex_output),
    );
    let x = ctx.reshape(x, &[outer.iter().product(), inputs])?;
    let matrix = transform.matrix()?;
    // Many frequencies cancel to nothing, which single precision would not show.
    let (own, wide) = (ctx.dtype_of(x), DType::F64);
    let x = ctx.cast(x, wide)?;
    let matrix = ctx.numbers(wide, &[inputs, outputs], &matrix);
    let y = ctx.binary("matmul", x, matrix)?;
    let y = ctx.cast(y, own)?;
    outer.extend([transform.n_outputs, Transform::parts(transform.complex_output)]);
    let y = ctx.reshape(y, &outer)?;
    let mut back = vec![0; rank];
    for (place, &own) in last.iter().enumerate() {
        back[own] = place;
    }
    ctx.transpose(y, &back)
}

fn stft(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let signal = ctx.value(0)?;
    // The last axis may be left out where the signal is real.
    let mut dims = ctx.dims_of(signal);
    if dims.len() == 2 {
        dims.push(1);
    }
    let signal = ctx.reshape(signal, &dims)?;
    let window = ctx.optional(2);
    let own_length = window.map(|window| ctx.dims_of(window).iter().product());
    let (step, length) = (ctx.constant_int(1)?, ctx.constant_int(3)?);
    let step = step.and_then(|step| usize::try_from(step).ok()).unwrap_or(0);
    let length = length
        .and_then(|length| usize::try_from(length).ok())
        .or(own_length)
        .unwrap_or(dims[1]);
    if step == 0 || length == 0 || length > dims[1] || own_length.is_some_and(|own| own != length) {
        return Err(OpError::invalid(format!(
            "frames of {length} samples, {step} apart, from a signal of {} with a window of {own_length:?}",
            dims[1]
        )));
    }
    let n_frames = 1 + (dims[1] - length) / step;
    let positions: Vec<i64> = (0..infer::table_entries(&[n_frames, length])?)
        .map(|n| i64::try_from(n / length * step + n % length).expect("extents fit in i64"))
        .collect();
    let positions = ctx.integers(&[n_frames, length], &positions);
    let mut frames = ctx.gathered("gather", signal, positions, 1)?;
    if let Some(window) = window {
        let window = ctx.reshape(window, &[length, 1])?;
        frames = ctx.binary("mul", frames, window)?;
    }
    let onesided = infer::int(ctx.attrs, "onesided")? != 0;
    Ok(vec![transformed(ctx, frames, 2, None, false, onesided)?])
}

/// A sum of cosines of one, two, .. turns over the window.
#[expect(clippy::cast_precision_loss, reason = "windows are short")]
fn cosine_window(ctx: &mut ExpandCtx<'_>, factors: &[f64]) -> Result<Vec<ValueId>, OpError> {
    let size = ctx
        .constant_int(0)?
        .and_then(|size| usize::try_from(size).ok())
        .filter(|&size| size <= MAX_TABLE_ENTRIES)
        .ok_or_else(|| OpError::invalid("the size of a window must be a number that is not negative"))?;
    let periodic = infer::int(ctx.attrs, "periodic")? != 0;
    let turn = if periodic { size } else { size.saturating_sub(1) };
    let values: Vec<f64> = (0..size)
        .map(|n| {
            let angle = 2.0 * PI * n as f64 / turn.max(1) as f64;
            let terms = factors.iter().enumerate();
            terms
                .map(|(times, factor)| factor * (times as f64 * angle).cos())
                .sum()
        })
        .collect();
    let dtype = ctx.attrs.dtype("output_datatype").unwrap_or(DType::F32);
    Ok(vec![ctx.numbers(dtype, &[size], &values)])
}

/// Operand `n` of a mel matrix, as one number.
fn number(ctx: &ExpandCtx<'_>, n: usize) -> Result<f64, OpError> {
    let data = ctx
        .constant(n)?
        .ok_or_else(|| OpError::invalid(format!("operand {n} is missing")))?;
    match to_vec::<f64>(&data)[..] {
        [only] => Ok(only),
        _ => Err(OpError::invalid(format!(
            "operand {n} must be one number, found `{}`",
            data.ty()
        ))),
    }
}

/// Triangles between neighbouring points that are equally far apart on the mel scale.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts are limited by the size of the result, points to the spectrum"
)]
fn mel_weight_matrix(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let [n_bins, length, rate, low, high] = [0, 1, 2, 3, 4].map(|n| number(ctx, n));
    let (n_bins, length, rate) = (n_bins?, length?, rate?);
    let (low, high) = (hertz_to_mel(low?), hertz_to_mel(high?));
    let (columns, rows) = (n_bins.max(0.0) as usize, (length.max(0.0) / 2.0) as usize + 1);
    if rows.saturating_mul(columns) > MAX_TABLE_ENTRIES || rate <= 0.0 {
        return Err(OpError::invalid(format!(
            "mel weights of {rows} frequencies and {columns} bins at a rate of {rate}"
        )));
    }
    let step = (high - low) / (n_bins + 2.0);
    let points: Vec<usize> = (0..columns + 2)
        .map(|n| {
            let hertz = mel_to_hertz(low + n as f64 * step);
            (((length + 1.0) * hertz / rate).floor().max(0.0) as usize).min(rows)
        })
        .collect();
    let mut values = vec![0.0; rows * columns];
    for bin in 0..columns {
        let (first, centre, end) = (points[bin], points[bin + 1], points[bin + 2]);
        for row in first..end.max(centre + 1).min(rows) {
            values[row * columns + bin] = triangle(row as f64, first as f64, centre as f64, end as f64);
        }
    }
    let dtype = ctx.attrs.dtype("output_datatype").unwrap_or(DType::F32);
    Ok(vec![ctx.numbers(dtype, &[rows, columns], &values)])
}

/// One at the centre, falling to zero at both ends.
fn triangle(x: f64, first: f64, centre: f64, end: f64) -> f64 {
    if x < centre {
        (x - first) / (centre - first)
    } else if end > centre {
        (end - x) / (end - centre)
    } else {
        1.0
    }
}

fn hertz_to_mel(hertz: f64) -> f64 {
    2595.0 * (hertz / 700.0).ln_1p() / 10f64.ln()
}

fn mel_to_hertz(mel: f64) -> f64 {
    700.0 * (mel / 2595.0 * 10f64.ln()).exp_m1()
}
