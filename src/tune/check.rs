//! Whether a kernel's results are those of the reference.
//!
//! One number decides: the relative error in the 2-norm, on random data. Bounds are per kind:
//! what a kernel rounds once when it stores, and the summation order that it is free to choose.

use crate::ir::{DType, HostTensor};
use crate::ops::evaluate::to_vec;

/// Largest relative error that passes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound(pub f64);

/// The bound for results stored as `dtype`, computed from operands of which the narrowest
/// float is `narrowest`; `tf32` says that products may round their operands to TF32.
pub fn bound(dtype: DType, narrowest: DType, tf32: bool) -> Bound {
    let by_operands = if narrowest.is_float() {
        of_kind(narrowest, tf32)
    } else {
        0.0
    };
    Bound(of_kind(dtype, tf32).max(by_operands))
}

/// Largest relative error of results that are rounded to `dtype` once.
fn of_kind(dtype: DType, tf32: bool) -> f64 {
    match dtype {
        DType::F64 => 1e-12,
        DType::F32 if tf32 => 2e-3,
        DType::F32 => 2e-5,
        DType::F16 => 2e-3,
        DType::BF16 => 1.2e-2,
        DType::F8E4M3 | DType::F8E4M3Fnuz => 6e-2,
        DType::F8E5M2 | DType::F8E5M2Fnuz | DType::F4E2M1 | DType::F8E8M0 => 2e-1,
        // A value on the edge between two integers may fall to either side.
        DType::I64
        | DType::I32
        | DType::I16
        | DType::I8
        | DType::I4
        | DType::I2
        | DType::U64
        | DType::U32
        | DType::U16
        | DType::U8
        | DType::U4
        | DType::U2
        | DType::Bool => 1e-3,
    }
}

/// `|found - wanted| / |wanted|` in the 2-norm. NaN and infinities must stand in the same
/// places; otherwise, and where `found` has another size, the error is infinite.
pub fn error_of(found: &HostTensor, wanted: &HostTensor) -> f64 {
    if found.dims() != wanted.dims() {
        return f64::INFINITY;
    }
    let (found, wanted) = (to_vec::<f64>(found), to_vec::<f64>(wanted));
    let (mut off, mut size) = (0.0, 0.0);
    for (&found, &wanted) in found.iter().zip(&wanted) {
        let same = found == wanted || (found.is_nan() && wanted.is_nan());
        if same && !wanted.is_finite() {
            continue;
        }
        if !found.is_finite() || !wanted.is_finite() {
            return f64::INFINITY;
        }
        off += (found - wanted) * (found - wanted);
        size += wanted * wanted;
    }
    if off == 0.0 { 0.0 } else { (off / size).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(values: &[f32]) -> HostTensor {
        HostTensor::from_f32(&[values.len()], values)
    }

    #[test]
    fn errors_are_relative_and_see_special_values() {
        assert_eq!(error_of(&tensor(&[3.0, 4.0]), &tensor(&[3.0, 4.0])), 0.0);
        assert!((error_of(&tensor(&[3.0, 4.5]), &tensor(&[3.0, 4.0])) - 0.1).abs() < 1e-9);
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        assert_eq!(
            error_of(&tensor(&[nan, inf, 1.0]), &tensor(&[nan, inf, 1.0])),
            0.0
        );
        assert_eq!(
            error_of(&tensor(&[nan, 1.0]), &tensor(&[2.0, 1.0])),
            f64::INFINITY
        );
        assert_eq!(error_of(&tensor(&[1.0]), &tensor(&[1.0, 1.0])), f64::INFINITY);
        assert_eq!(error_of(&tensor(&[1.0]), &tensor(&[0.0])), f64::INFINITY);
    }
}
