//! Products with something beside them for each row or column: scales, norms, sums that are handed over.

use crate::checks::{SM_75, SM_90, SUMS, check_in_turns, check_sums, check_template};
use crate::products;
use crate::products::HandedOver;
use crate::regions::Problem;
use rtrt_codegen::ir::DType;

#[test]
fn products_of_scaled_columns() {
    for dtype in [DType::F16, DType::BF16] {
        check_sums(&products::scaled(dtype), "gemm_mma", SM_90, 3, 2.0 * SUMS);
    }
    check_sums(&products::scaled(DType::F16), "gemm_mma", SM_75, 2, 2.0 * SUMS);
    check_sums(&products::scaled(DType::F16), "gemm_simt", SM_90, 1, 2.0 * SUMS);
}

#[test]
fn products_of_normalised_rows() {
    for dtype in [DType::F16, DType::BF16] {
        check_in_turns(&products::normalised(dtype), "gemm_mma", SM_90, SUMS);
        check_in_turns(&products::normalised(dtype), "gemm_mma", SM_90, SUMS);
    }
    check_in_turns(&products::normalised(DType::F16), "gemm_mma", SM_75, SUMS);
    let tiled: Vec<Problem> = [DType::F16, DType::BF16]
        .into_iter()
        .flat_map(products::normalised)
        .filter(|problem| !problem.label.contains("33"))
        .collect();
    check_template(&tiled, "gemm_wgmma", SM_90, 4);
}

#[test]
fn products_that_hand_sums_of_rows_over() {
    for dtype in [DType::F16, DType::BF16] {
        check_in_turns(&products::handed_over(dtype), "gemm_mma", SM_90, SUMS);
        check_template(&products::handed_over(dtype), "gemm_wgmma", SM_90, 4);
    }
    check_in_turns(&products::handed_over(DType::F16), "gemm_mma", SM_75, SUMS);
    let deep = |what| products::handing_over(DType::F16, [40, 80, 784], what);
    let shared = [HandedOver::Stored, HandedOver::Read].map(deep);
    check_sums(&shared, "gemm_mma", SM_90, 4, 2.0 * SUMS);
    check_sums(&shared, "gemm_wgmma", SM_90, 20, 2.0 * SUMS);
}
