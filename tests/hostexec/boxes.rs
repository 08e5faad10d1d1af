//! Results in boxes of larger tensors.

use crate::checks::{SM_90, SUMS, check_in_turns, check_some, check_sums, check_template};
use crate::placed_regions::in_boxes;
use crate::{attention_regions, placed_regions, products, regions, window_regions};
use rtrt_codegen::ir::DType;

#[test]
fn elements_and_rows_in_boxes() {
    check_some(in_boxes(regions::pointwise()), 3);
    check_some(in_boxes(regions::moves()), 2);
    check_some(in_boxes(regions::turned_vectors()), 3);
    check_some(in_boxes(regions::rows()), 2);
    check_template(&in_boxes(regions::groups()), "column", SM_90, 1);
    check_some(in_boxes(regions::reductions()), 2);
}

#[test]
fn products_in_boxes() {
    check_in_turns(
        &in_boxes(products::epilogues(DType::F16)),
        "gemm_mma",
        SM_90,
        SUMS,
    );
    check_in_turns(&in_boxes(products::tails(DType::F16)), "gemm_mma", SM_90, SUMS);
    check_in_turns(&in_boxes(products::batches(DType::F16)), "gemm_mma", SM_90, SUMS);
    check_in_turns(&in_boxes(products::tails(DType::F32)), "gemm_simt", SM_90, SUMS);
    check_in_turns(&in_boxes(products::tiled(DType::F16)), "gemm_wgmma", SM_90, SUMS);
    check_in_turns(
        &in_boxes(products::normalised(DType::F16)),
        "gemm_mma",
        SM_90,
        SUMS,
    );
    check_in_turns(&in_boxes(products::skinny(DType::F16)), "gemv", SM_90, 2.0 * SUMS);
    let deep = in_boxes(products::deep(DType::F16));
    check_sums(&deep, "gemm_mma", SM_90, 2, 2.0 * SUMS);
}

#[test]
fn windows_and_attention_in_boxes() {
    let convolutions = |last| in_boxes(products::convolutions(DType::F16, last));
    check_in_turns(&convolutions(true), "gemm_mma", SM_90, SUMS);
    check_in_turns(&convolutions(false), "gemm_mma", SM_90, SUMS);
    let tiled = in_boxes(products::tiled_convolutions(DType::F16));
    check_in_turns(&tiled, "gemm_wgmma", SM_90, SUMS);
    check_template(&in_boxes(window_regions::depthwise()), "window_strip", SM_90, 1);
    check_template(&in_boxes(window_regions::few_channels()), "window_mma", SM_90, 1);
    check_template(
        &in_boxes(window_regions::windows_apart()),
        "window_wgmma",
        SM_90,
        1,
    );
    check_template(&in_boxes(window_regions::pools(true)), "window_strip", SM_90, 1);
    check_template(&in_boxes(window_regions::pools(false)), "window_taps", SM_90, 1);
    check_template(&in_boxes(window_regions::transposed()), "window_taps", SM_90, 1);
    check_template(&in_boxes(attention_regions::half()), "attention_mma", SM_90, 1);
    check_template(
        &in_boxes(attention_regions::of_groups()),
        "attention_wgmma",
        SM_90,
        1,
    );
    check_template(
        &in_boxes(attention_regions::of_groups()),
        "attention_stream",
        SM_90,
        1,
    );
    check_template(&in_boxes(attention_regions::wide()), "attention_simt", SM_90, 1);
    check_template(
        &in_boxes(attention_regions::decode()),
        "attention_decode",
        SM_90,
        1,
    );
}

#[test]
fn regions_of_joined_graphs() {
    check_some(placed_regions::of_graphs(0..40), 2);
}
