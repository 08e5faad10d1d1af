//! Shared evaluators of the reference: reading elements, writing them, mapping over
//! broadcast operands.
//!
//! Scalars are computed as one of three [`Number`] types: `f64` for every float kind, `i64`
//! for signed integers and bool, `u64` where an unsigned 64-bit value must keep its sign bit.
//! Large tensors are worked on in parallel chunks.

use bytemuck::Pod;
use half::{bf16, f16};
use rayon::prelude::*;

use super::narrow::{self, Overflow};
use super::{Datum, EvalCtx, EvalFn, OpError, infer};
use crate::ir::{DType, HostTensor, TensorType};

/// Elements one task works on; below it, a tensor is not worth a second thread.
const CHUNK: usize = 8192;

impl EvalCtx<'_> {
    /// Operand `n`, which must be a tensor.
    ///
    /// # Errors
    /// If it is absent, a sequence or an optional.
    pub fn tensor(&self, n: usize) -> Result<&HostTensor, OpError> {
        self.operands
            .get(n)
            .and_then(Option::as_ref)
            .ok_or_else(|| OpError::invalid(format!("operand {n} is missing")))?
            .tensor()
    }

    /// Operand `n`, where it is present.
    ///
    /// # Errors
    /// If it is a sequence or an optional.
    pub fn optional_tensor(&self, n: usize) -> Result<Option<&HostTensor>, OpError> {
        match self.operands.get(n).and_then(Option::as_ref) {
            Some(datum) => datum.tensor().map(Some),
            None => Ok(None),
        }
    }
}

/// The results of an op with one tensor result.
pub fn one(tensor: HostTensor) -> Result<Vec<Datum>, OpError> {
    Ok(vec![Datum::Tensor(tensor)])
}

/// Evaluation of ONNX forms: `reference::eval_node` expands them with their operands as
/// constants and never calls this.
pub const BY_EXPANSION: EvalFn = |_| Err(OpError::unsupported("evaluating an op that only expands"));

/// A type scalars are computed in.
pub trait Number: Copy + Default + Send + Sync + 'static {
    /// Reads as many elements of kind `dtype` as `into` holds. Conversions are those of `as`.
    fn decode(dtype: DType, bytes: &[u8], into: &mut [Self]);

    /// Writes elements of kind `dtype`: floats round to nearest (narrow kinds saturate),
    /// integers keep their low bits.
    fn encode(values: &[Self], dtype: DType, bytes: &mut [u8]);
}

fn spread<T: Pod, R>(bytes: &[u8], into: &mut [R], convert: impl Fn(T) -> R) {
    for (to, &from) in into.iter_mut().zip(bytemuck::cast_slice::<u8, T>(bytes)) {
        *to = convert(from);
    }
}

fn gather<T: Pod, R: Copy>(values: &[R], bytes: &mut [u8], convert: impl Fn(R) -> T) {
    for (to, &from) in bytemuck::cast_slice_mut::<u8, T>(bytes).iter_mut().zip(values) {
        *to = convert(from);
    }
}

macro_rules! impl_number {
    ($own:ty) => {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_possible_wrap,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            clippy::cast_lossless,
            clippy::unnecessary_cast,
            reason = "the conversions of `as` are what the trait promises, and each kind of number has other ones"
        )]
        impl Number for $own {
            fn decode(dtype: DType, bytes: &[u8], into: &mut [Self]) {
                match dtype {
                    DType::F64 => spread(bytes, into, |value: f64| value as $own),
                    DType::F32 => spread(bytes, into, |value: f32| value as $own),
                    DType::F16 => spread(bytes, into, |value: f16| value.to_f32() as $own),
                    DType::BF16 => spread(bytes, into, |value: bf16| value.to_f32() as $own),
                    DType::F8E4M3
                    | DType::F8E4M3Fnuz
                    | DType::F8E5M2
                    | DType::F8E5M2Fnuz
                    | DType::F8E8M0
                    | DType::F4E2M1 => spread(bytes, into, |code: u8| narrow::decode(dtype, code) as $own),
                    DType::I64 => spread(bytes, into, |value: i64| value as $own),
                    DType::I32 => spread(bytes, into, |value: i32| value as $own),
                    DType::I16 => spread(bytes, into, |value: i16| value as $own),
                    DType::I8 | DType::I4 | DType::I2 => spread(bytes, into, |value: i8| value as $own),
                    DType::U64 => spread(bytes, into, |value: u64| value as $own),
                    DType::U32 => spread(bytes, into, |value: u32| value as $own),
                    DType::U16 => spread(bytes, into, |value: u16| value as $own),
                    DType::U8 | DType::U4 | DType::U2 => spread(bytes, into, |value: u8| value as $own),
                    DType::Bool => spread(bytes, into, |value: u8| u8::from(value != 0) as $own),
                }
            }

            fn encode(values: &[Self], dtype: DType, bytes: &mut [u8]) {
                match dtype {
                    DType::F64 => gather(values, bytes, |value| value as f64),
                    DType::F32 => gather(values, bytes, |value| value as f32),
                    DType::F16 => gather(values, bytes, |value| f16::from_f64(value as f64)),
                    DType::BF16 => gather(values, bytes, |value| bf16::from_f64(value as f64)),
                    DType::F8E4M3
                    | DType::F8E4M3Fnuz
                    | DType::F8E5M2
                    | DType::F8E5M2Fnuz
                    | DType::F8E8M0
                    | DType::F4E2M1 => {
                        gather(values, bytes, |value| {
                            narrow::encode(dtype, value as f64, Overflow::Saturate)
                        });
                    }
                    DType::I64 => gather(values, bytes, |value| value as i64),
                    DType::I32 => gather(values, bytes, |value| value as i64 as i32),
                    DType::I16 => gather(values, bytes, |value| value as i64 as i16),
                    DType::I8 => gather(values, bytes, |value| value as i64 as i8),
                    DType::I4 => gather(values, bytes, |value| (value as i64 as i8) << 4 >> 4),
                    DType::I2 => gather(values, bytes, |value| (value as i64 as i8) << 6 >> 6),
                    DType::U64 => gather(values, bytes, |value| value as u64),
                    DType::U32 => gather(values, bytes, |value| value as i64 as u32),
                    DType::U16 => gather(values, bytes, |value| value as i64 as u16),
                    DType::U8 => gather(values, bytes, |value| value as i64 as u8),
                    DType::U4 => gather(values, bytes, |value| value as i64 as u8 & 0xf),
                    DType::U2 => gather(values, bytes, |value| value as i64 as u8 & 0x3),
                    DType::Bool => gather(values, bytes, |value| u8::from(value as f64 != 0.0)),
                }
            }
        }
    };
}

impl_number!(f64);
impl_number!(f32);
impl_number!(i64);
impl_number!(u64);

/// Every element, row-major.
pub fn to_vec<T: Number>(tensor: &HostTensor) -> Vec<T> {
    let mut values = vec![T::default(); tensor.n_elements()];
    let size = tensor.dtype().size_bytes();
    values
        .par_chunks_mut(CHUNK)
        .zip(tensor.bytes().par_chunks(CHUNK * size))
        .for_each(|(into, bytes)| T::decode(tensor.dtype(), bytes, into));
    values
}

/// A tensor of kind `dtype` from row-major values.
///
/// # Panics
/// If there are more or fewer values than `dims` ask for.
pub fn from_values<T: Number>(dtype: DType, dims: &[usize], values: &[T]) -> HostTensor {
    let mut tensor = HostTensor::zeros(dtype, dims);
    assert_eq!(
        tensor.n_elements(),
        values.len(),
        "as many values as dims ask for"
    );
    let size = dtype.size_bytes();
    tensor
        .bytes_mut()
        .par_chunks_mut(CHUNK * size)
        .zip(values.par_chunks(CHUNK))
        .for_each(|(bytes, from)| T::encode(from, dtype, bytes));
    tensor
}

/// A tensor that holds `value` everywhere.
pub fn filled(dtype: DType, dims: &[usize], value: f64) -> HostTensor {
    from_values(dtype, dims, &vec![value; dims.iter().product()])
}

/// A scalar.
pub fn scalar(dtype: DType, value: f64) -> HostTensor {
    filled(dtype, &[], value)
}

/// Integers of a shape operand: any integer kind, rank zero or one.
///
/// # Errors
/// If the tensor is of another kind or rank.
pub fn index_list(tensor: &HostTensor) -> Result<Vec<i64>, OpError> {
    if !tensor.dtype().is_int() || tensor.dims().len() > 1 {
        return Err(OpError::invalid(format!(
            "expected a list of integers, found `{}`",
            tensor.ty()
        )));
    }
    Ok(to_vec(tensor))
}

/// Applies `f` to every element of operands broadcast to the dims of `result`.
///
/// # Panics
/// If an operand does not broadcast to these dims.
pub fn map<A: Number, R: Number, const N: usize>(
    operands: [&HostTensor; N],
    result: &TensorType,
    f: impl Fn([A; N]) -> R + Sync,
) -> HostTensor {
    let dims = result.dims();
    let sources = operands.map(|operand| Broadcast::new(operand, &dims));
    let mut output = HostTensor::zeros(result.dtype, &dims);
    let size = result.dtype.size_bytes();
    let work = |(chunk, bytes): (usize, &mut [u8])| {
        let count = bytes.len() / size;
        let mut buffers = [(); N].map(|()| vec![A::default(); count]);
        for (source, buffer) in sources.iter().zip(&mut buffers) {
            source.read(chunk * CHUNK, buffer);
        }
        let values: Vec<R> = (0..count)
            .map(|position| f(std::array::from_fn(|n| buffers[n][position])))
            .collect();
        R::encode(&values, result.dtype, bytes);
    };
    output
        .bytes_mut()
        .par_chunks_mut(CHUNK * size)
        .enumerate()
        .for_each(work);
    output
}

/// An operand seen under larger dims.
struct Broadcast<'a> {
    tensor: &'a HostTensor,
    /// Trailing output elements that are consecutive in the operand, or all one element.
    run: usize,
    /// Elements the operand moves by within a run: 0 or 1.
    step: usize,
    /// Extents and operand strides of the axes before the run, innermost first.
    outer: Vec<(usize, usize)>,
}

impl<'a> Broadcast<'a> {
    fn new(tensor: &'a HostTensor, dims: &[usize]) -> Self {
        let own = tensor.dims();
        let skipped = dims
            .len()
            .checked_sub(own.len())
            .expect("infer() checked the ranks");
        let (mut run, mut step, mut stride) = (1, None, 1);
        let mut outer: Vec<(usize, usize)> = Vec::new();
        for axis in (0..dims.len()).rev() {
            let extent = axis.checked_sub(skipped).map_or(1, |axis| own[axis]);
            let moves = usize::from(extent != 1);
            if dims[axis] != 1 {
                if outer.is_empty() && step.is_none_or(|step| step == moves) {
                    run *= dims[axis];
                    step = Some(moves);
                } else {
                    outer.push((dims[axis], stride * moves));
                }
            }
            stride *= extent;
        }
        Broadcast {
            tensor,
            run,
            step: step.unwrap_or(0),
            outer,
        }
    }

    /// Reads the output elements from `start` on.
    fn read<T: Number>(&self, start: usize, into: &mut [T]) {
        let (mut position, mut rest) = (start, into);
        while !rest.is_empty() {
            let offset = position % self.run;
            let count = (self.run - offset).min(rest.len());
            let (now, later) = rest.split_at_mut(count);
            let base = self.base(position / self.run) + offset * self.step;
            if self.step == 0 {
                self.decode(base, &mut now[..1]);
                let value = now[0];
                now.fill(value);
            } else {
                self.decode(base, now);
            }
            position += count;
            rest = later;
        }
    }

    fn base(&self, mut run: usize) -> usize {
        let mut base = 0;
        for &(extent, stride) in &self.outer {
            base += run % extent * stride;
            run /= extent;
        }
        base
    }

    fn decode<T: Number>(&self, from: usize, into: &mut [T]) {
        let size = self.tensor.dtype().size_bytes();
        let bytes = &self.tensor.bytes()[from * size..(from + into.len()) * size];
        T::decode(self.tensor.dtype(), bytes, into);
    }
}

/// A float function of operand 0.
///
/// # Errors
/// If the operand is missing.
pub fn float1(ctx: &EvalCtx<'_>, f: impl Fn(f64) -> f64 + Sync) -> Result<Vec<Datum>, OpError> {
    let x = ctx.tensor(0)?;
    one(map([x], &x.ty(), |[x]: [f64; 1]| f(x)))
}

/// A function of operand 0, given for floats and for integers (unsigned ones wrap through `i64`).
///
/// # Errors
/// If the operand is missing.
pub fn number1(
    ctx: &EvalCtx<'_>,
    float: impl Fn(f64) -> f64 + Sync,
    int: impl Fn(i64) -> i64 + Sync,
) -> Result<Vec<Datum>, OpError> {
    let x = ctx.tensor(0)?;
    if x.dtype().is_float() {
        float1(ctx, float)
    } else {
        one(map([x], &x.ty(), |[x]: [i64; 1]| int(x)))
    }
}

/// A function of two broadcast operands, given for floats, signed and unsigned integers.
/// Bool counts as signed.
///
/// # Errors
/// If an operand is missing or shapes do not broadcast.
pub fn number2(
    ctx: &EvalCtx<'_>,
    float: impl Fn(f64, f64) -> f64 + Sync,
    signed: impl Fn(i64, i64) -> i64 + Sync,
    unsigned: impl Fn(u64, u64) -> u64 + Sync,
) -> Result<Vec<Datum>, OpError> {
    let (a, b) = (ctx.tensor(0)?, ctx.tensor(1)?);
    let ty = TensorType::new(a.dtype(), &infer::broadcast(a.dims(), b.dims())?);
    one(if a.dtype().is_float() {
        map([a, b], &ty, |[a, b]: [f64; 2]| float(a, b))
    } else if a.dtype().is_int() && !a.dtype().is_signed_int() {
        map([a, b], &ty, |[a, b]: [u64; 2]| unsigned(a, b))
    } else {
        map([a, b], &ty, |[a, b]: [i64; 2]| signed(a, b))
    })
}

/// Whether the elements of a weight are whole numbers that a byte holds, and make use of it: what a
/// quantised weight is, in whatever kind.
pub fn holds_bytes(elements: &[f64]) -> bool {
    /// Elements from which a constant counts as a weight.
    const LEAST_WEIGHT: usize = 256;
    let largest = elements
        .iter()
        .fold(0.0_f64, |largest, value| largest.max(value.abs()));
    elements.len() >= LEAST_WEIGHT
        && (64.0..=255.0).contains(&largest)
        && elements.iter().all(|value| value.fract() == 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_repeat_along_extents_of_one() {
        let row = HostTensor::from_i64(&[3], &[1, 2, 3]);
        let column = HostTensor::from_i64(&[2, 1, 1], &[10, 20]);
        let ty = TensorType::new(DType::I64, &[2, 2, 3]);
        let sum = map([&row, &column], &ty, |[a, b]: [i64; 2]| a + b);
        assert_eq!(
            sum.as_slice::<i64>(),
            [11, 12, 13, 11, 12, 13, 21, 22, 23, 21, 22, 23]
        );
        let nothing = map(
            [&row, &column],
            &TensorType::new(DType::I64, &[2, 0, 3]),
            |[a, b]: [i64; 2]| a + b,
        );
        assert_eq!(nothing.n_elements(), 0);
    }

    #[test]
    fn chunks_join_without_a_seam() {
        let n = 3 * CHUNK + 5;
        let values: Vec<i64> = (0..).take(n).collect();
        let x = HostTensor::from_i64(&[1, n], &values);
        let twice = map([&x], &TensorType::new(DType::I32, &[2, n]), |[x]: [i64; 1]| 2 * x);
        let expected: Vec<i32> = (0..).step_by(2).take(n).collect();
        assert_eq!(twice.as_slice::<i32>()[..n], expected);
        assert_eq!(twice.as_slice::<i32>()[n..], expected);
    }

    #[test]
    fn integers_keep_their_low_bits() {
        let x = from_values(DType::I4, &[3], &[7i64, 8, -9]);
        assert_eq!(to_vec::<i64>(&x), [7, -8, 7]);
        let big = from_values(DType::U64, &[1], &[u64::MAX]);
        assert_eq!(to_vec::<u64>(&big), [u64::MAX]);
    }
}
