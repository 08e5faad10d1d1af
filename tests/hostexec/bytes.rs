//! Products of 8-bit elements.

use crate::byte_products;
use crate::checks::{SM_90, check, check_by, check_sums, check_template};
use crate::harness::Outcome;
use crate::regions::Problem;
use rtrt_codegen::ir::DType;
use rtrt_codegen::kernel::{self};

#[test]
fn quantisers_round_and_saturate() {
    check(byte_products::quantisers());
}

#[test]
fn sums_of_bytes_at_the_ends_of_their_range() {
    for template in ["gemm_mma", "gemm_wgmma"] {
        for product in [DType::I32, DType::F32] {
            check_template(&byte_products::extreme_bytes(product), template, SM_90, 1);
        }
        let mut residuals = [DType::I8, DType::U8]
            .map(byte_products::quantised_residual)
            .to_vec();
        residuals.push(byte_products::quantised_residual_relu());
        check_template(&residuals, template, SM_90, 3);
    }
}

#[test]
fn products_of_bytes() {
    for (stored, product) in [
        (DType::I8, DType::I32),
        (DType::I8, DType::F32),
        (DType::I8, DType::F16),
    ] {
        for template in ["gemm_mma", "gemm_wgmma"] {
            check_template(&byte_products::bytes(stored, product), template, SM_90, 2);
            check_template(
                &byte_products::byte_convolutions(stored, product),
                template,
                SM_90,
                1,
            );
        }
    }
}

/// Instructions keep 14 bits of 24 of a sum. Those of 1040 terms would be off by more than this if they
/// were not added to each other as floats every 128 terms.
const SUMS_OF_BYTES: f64 = 1000.0;

#[test]
fn products_of_8_bit_floats() {
    let (stored, product) = (DType::F8E4M3, DType::F32);
    let all = [
        byte_products::bytes(stored, product),
        byte_products::byte_convolutions(stored, product),
    ]
    .concat();
    let (rounded, sums): (Vec<Problem>, Vec<Problem>) = all
        .into_iter()
        .partition(|problem| problem.spec.output_types()[0].dtype.is_int());
    check_sums(&sums, "gemm_wgmma", SM_90, 4, SUMS_OF_BYTES);
    let of_groups = |variants: &[kernel::Variant]| -> Vec<usize> {
        let own = (0..variants.len()).filter(|&rank| variants[rank].template == "gemm_wgmma");
        own.step_by(3).collect()
    };
    check_by(&rounded, SM_90, of_groups, Outcome::wrong_by_steps);
}

#[test]
fn products_of_bytes_by_halves() {
    for narrow in [DType::I8, DType::U8, DType::F8E4M3] {
        check_template(&byte_products::mixed(narrow), "gemm_mma", SM_90, 2);
    }
}
