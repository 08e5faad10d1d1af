//! The greatest common divisor, of any integers.

use std::ops::Rem;

/// The greatest common divisor of `a` and `b`, which are not negative; of 0 and another number, that number.
pub fn common_divisor<N: Copy + Default + PartialEq + Rem<Output = N>>(a: N, b: N) -> N {
    if b == N::default() {
        a
    } else {
        common_divisor(b, a % b)
    }
}
