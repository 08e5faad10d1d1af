//! Random operands for measuring and checking: never zeros, which hide unwritten results and
//! run faster than real data.

use std::ops::Range;

use super::evaluate::from_values;
use crate::ir::{HostTensor, TensorType};

/// Floats in -1..1 and integers in 0..2, which are booleans and positions in any table too.
/// The same seed gives the same data on every machine.
pub fn drawn(ty: &TensorType, seed: u64) -> HostTensor {
    drawn_within(ty, seed, -1.0..1.0)
}

/// As [`drawn`], with floats within a range.
pub fn drawn_within(ty: &TensorType, seed: u64, range: Range<f32>) -> HostTensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let is_float = ty.dtype.is_float();
    #[expect(clippy::cast_precision_loss, reason = "24 bits fit in f32")]
    let values: Vec<f32> = (0..ty.n_elements())
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let unit = (state >> 40) as f32 / (1u32 << 24) as f32;
            if is_float {
                (range.end - range.start) * unit + range.start
            } else {
                (2.0 * unit).floor()
            }
        })
        .collect();
    from_values(ty.dtype, &ty.dims(), &values)
}
