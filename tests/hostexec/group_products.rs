//! Products by instructions of four warps.

use crate::checks::{SM_90, SUMS, check_in_turns, check_on, check_picked, check_sums, check_template};
use crate::harness::Outcome;
use crate::{byte_products, products};
use rtrt_codegen::ir::{DType, HostTensor};
use rtrt_codegen::kernel::{self};

#[test]
fn products_by_groups_of_warps() {
    for dtype in [DType::F16, DType::BF16] {
        check_in_turns(&products::tiled(dtype), "gemm_wgmma", SM_90, SUMS);
        check_template(&products::tiled_convolutions(dtype), "gemm_wgmma", SM_90, 2);
    }
}

#[test]
fn products_by_groups_of_warps_in_every_tile() {
    let [a, b] = [products::Layout::Plain, products::Layout::Turned];
    let (read, narrow) = (products::Epilogue::BiasResidualRelu, products::Epilogue::BiasGelu);
    let all = [(a, a, read), (b, b, read), (a, b, narrow)]
        .map(|(a, b, epilogue)| products::matmul(DType::F16, (&[264, 200], a), (&[200, 312], b), epilogue));
    check_template(&all, "gemm_wgmma", SM_90, usize::MAX);
    let deep = products::matmul(
        DType::F16,
        (&[72, 1032], a),
        (&[1032, 136], a),
        products::Epilogue::Silu,
    );
    check_sums(&[deep], "gemm_wgmma", SM_90, usize::MAX, 4.0 * SUMS);
}

/// Variants whose blocks exchange their sums in clusters.
fn clustered(variants: &[kernel::Variant]) -> Vec<usize> {
    let is_clustered = |variant: &kernel::Variant| variant.knobs.get("clustered").is_some_and(|&is| is > 0);
    let own: Vec<usize> = (0..variants.len())
        .filter(|&rank| is_clustered(&variants[rank]))
        .collect();
    assert!(!own.is_empty(), "no blocks are clustered");
    own
}

#[test]
fn products_by_clusters_of_blocks() {
    let slack = 4.0 * SUMS;
    check_picked(&products::of_clusters(), SM_90, slack, clustered);
}

/// Variants whose groups of warps take turns.
fn in_turn(variants: &[kernel::Variant]) -> Vec<usize> {
    let takes_turns = |variant: &kernel::Variant| variant.knobs.get("turns").is_some_and(|&turns| turns > 1);
    let own: Vec<usize> = (0..variants.len())
        .filter(|&rank| takes_turns(&variants[rank]))
        .collect();
    assert!(!own.is_empty(), "no groups take turns");
    own
}

#[test]
fn products_by_groups_that_take_turns() {
    let wrong = |found: &Outcome, wanted: &[HostTensor]| found.wrong(wanted, 2.0 * SUMS);
    for (dtype, n_blocks) in [(DType::F16, 1), (DType::BF16, 2), (DType::F16, 3)] {
        let problems = products::of_many_tiles(dtype);
        check_on(&problems, SM_90, n_blocks, in_turn, wrong);
    }
    let many = [products::of_more_tiles_than_blocks(DType::F16)];
    check_on(&many, SM_90, u32::MAX, in_turn, wrong);
}

#[test]
fn products_of_bytes_by_groups_that_take_turns() {
    let bytes = &byte_products::bytes(DType::I8, DType::I32)[..1];
    check_on(bytes, SM_90, 1, in_turn, Outcome::wrong_by_steps);
}
