//! Products by threads and by instructions of a warp.

use crate::checks::{
    SM_75, SM_90, SUMS, TF32, check_in_turns, check_on, check_picked, check_some, check_sums, check_template,
};
use crate::harness::Outcome;
use crate::{packed_products, products};
use rtrt_codegen::ir::{DType, HostTensor};
use rtrt_codegen::kernel::{self};

#[test]
fn products_without_elements_or_terms() {
    for dtype in [DType::F16, DType::F32, DType::I32] {
        check_picked(&products::empty(dtype), SM_90, SUMS, |variants| {
            let best = variants.iter().enumerate().take(2);
            let others = variants
                .iter()
                .enumerate()
                .filter(|(_, variant)| variant.template == "indexed");
            best.chain(others).map(|(rank, _)| rank).collect()
        });
    }
}

#[test]
fn skinny_products() {
    for dtype in [DType::F32, DType::F16] {
        check_sums(&products::skinny(dtype), "gemv", SM_90, 3, 2.0 * SUMS);
    }
    for dtype in [DType::BF16, DType::F64, DType::I32, DType::I8] {
        check_template(&products::skinny(dtype)[..6], "gemv", SM_90, 2);
    }
    check_sums(&products::deep(DType::F32), "gemv", SM_90, 6, 2.0 * SUMS);
}

#[test]
fn skinny_products_by_bytes() {
    for narrow in [DType::I8, DType::U8, DType::F8E4M3] {
        check_sums(&products::skinny_by_bytes(narrow), "gemv", SM_90, 3, 2.0 * SUMS);
    }
}

#[test]
fn products_with_packed_weights() {
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        check_sums(&packed_products::skinny(dtype), "gemv", SM_90, 4, 2.0 * SUMS);
    }
    for dtype in [DType::F16, DType::BF16] {
        check_sums(&packed_products::tiles(dtype), "gemm_mma", SM_90, 3, 2.0 * SUMS);
    }
    check_template(&packed_products::tiles(DType::F32), "gemm_simt", SM_90, 3);
    check_template(&packed_products::tiles(DType::F16)[..1], "gemm_mma", SM_75, 1);
    check_some(packed_products::skinny(DType::F32), 0);
}

#[test]
fn simt_products_of_every_kind_and_layout() {
    let kinds = [
        DType::F32,
        DType::F64,
        DType::F16,
        DType::BF16,
        DType::I32,
        DType::I8,
    ];
    for dtype in kinds {
        if dtype.is_float() {
            check_template(&products::layouts(dtype), "gemm_simt", SM_90, 1);
        }
        let plain = (products::Layout::Plain, products::Epilogue::BiasResidualRelu);
        let problem = products::matmul(dtype, (&[40, 72], plain.0), (&[72, 48], plain.0), plain.1);
        check_template(&[problem], "gemm_simt", SM_90, usize::MAX);
    }
}

#[test]
fn simt_products_with_epilogues_tails_and_batches() {
    check_template(&products::epilogues(DType::F32), "gemm_simt", SM_90, 2);
    check_template(&products::tails(DType::F32), "gemm_simt", SM_90, 3);
    check_template(&products::batches(DType::F32), "gemm_simt", SM_90, 1);
    check_sums(&products::deep(DType::F32), "gemm_simt", SM_90, 6, 2.0 * SUMS);
}

#[test]
fn simt_sums_of_integers_that_blocks_share() {
    check_template(&products::deep(DType::I32), "gemm_simt", SM_90, 6);
}

#[test]
fn simt_products_of_other_kinds_with_epilogues_and_tails() {
    for dtype in [DType::F64, DType::F16, DType::BF16, DType::I32] {
        check_in_turns(&products::tails(dtype), "gemm_simt", SM_90, SUMS);
        // Gates and scales are floats.
        if dtype.is_float() {
            check_in_turns(&products::epilogues(dtype), "gemm_simt", SM_90, SUMS);
        }
    }
}

#[test]
fn mma_products_of_other_kinds_with_epilogues_and_tails() {
    let tails = products::tails(DType::BF16);
    check_in_turns(&tails, "gemm_mma", SM_90, SUMS);
    check_in_turns(&products::epilogues(DType::BF16), "gemm_mma", SM_90, SUMS);
    check_in_turns(&products::batches(DType::BF16), "gemm_mma", SM_90, SUMS);
    check_in_turns(&products::tails(DType::F16), "gemm_mma", SM_75, SUMS);
    check_in_turns(&products::epilogues(DType::F16), "gemm_mma", SM_75, SUMS);
    let mut tf32 = [products::tails(DType::F32), products::epilogues(DType::F32)].concat();
    for problem in &mut tf32 {
        problem.spec.options.tf32 = true;
    }
    check_in_turns(&tf32, "gemm_mma", SM_90, TF32);
}

#[test]
fn simt_convolutions() {
    check_template(&products::convolutions(DType::F32, true), "gemm_simt", SM_90, 2);
    check_template(&products::convolutions(DType::F32, false), "gemm_simt", SM_90, 2);
    check_template(&products::convolutions(DType::F16, true), "gemm_simt", SM_90, 1);
}

#[test]
fn mma_products_of_every_layout_and_epilogue() {
    for dtype in [DType::F16, DType::BF16] {
        check_template(&products::layouts(dtype), "gemm_mma", SM_90, 2);
    }
    check_template(&products::epilogues(DType::F16), "gemm_mma", SM_90, 2);
    let plain = (products::Layout::Plain, products::Epilogue::BiasResidualRelu);
    let all = products::matmul(
        DType::F16,
        (&[150, 136], plain.0),
        (&[136, 144], plain.0),
        plain.1,
    );
    check_template(&[all], "gemm_mma", SM_90, usize::MAX);
}

#[test]
fn mma_products_with_tails_batches_and_splits() {
    check_template(&products::tails(DType::F16), "gemm_mma", SM_90, 2);
    check_template(&products::batches(DType::F16), "gemm_mma", SM_90, 1);
    check_sums(&products::deep(DType::F16), "gemm_mma", SM_90, 5, 2.0 * SUMS);
}

#[test]
fn mma_products_without_asynchronous_copies() {
    check_template(&products::layouts(DType::F16), "gemm_mma", SM_75, 1);
    check_template(&products::convolutions(DType::F16, true), "gemm_mma", SM_75, 1);
}

#[test]
fn mma_convolutions() {
    check_template(&products::convolutions(DType::F16, true), "gemm_mma", SM_90, 3);
    check_template(&products::convolutions(DType::F16, false), "gemm_mma", SM_90, 2);
}

#[test]
fn thin_products() {
    for dtype in [DType::F16, DType::BF16] {
        check_sums(&products::thin(dtype), "gemm_direct", SM_90, 4, SUMS);
    }
    check_template(&products::thin(DType::F16)[..4], "gemm_direct", SM_75, 1);
    check_sums(&products::gated(DType::F16), "gemm_direct", SM_90, 3, 2.0 * SUMS);
}

/// The first variants whose rows pass through registers alone and whose warps have so many columns.
fn direct(variants: &[kernel::Variant], columns: std::ops::RangeInclusive<i64>) -> Vec<usize> {
    let is_own = |rank: &usize| {
        let own = &variants[*rank];
        own.template == "gemm_direct" && columns.contains(&own.knobs["tile_n"])
    };
    let own: Vec<usize> = (0..variants.len()).filter(is_own).take(2).collect();
    assert!(!own.is_empty(), "`gemm_direct` refuses");
    own
}

#[test]
fn thin_products_whose_warps_take_several_tiles() {
    let wrong = |found: &Outcome, wanted: &[HostTensor]| found.wrong(wanted, SUMS);
    let any = |variants: &[kernel::Variant]| direct(variants, 8..=128);
    check_on(&products::thin(DType::F16)[..8], SM_90, 1, any, wrong);
    // Two blocks beside each other have the columns.
    let narrow = |variants: &[kernel::Variant]| direct(variants, 32..=48);
    check_on(&[products::thin_and_wide(DType::F16)], SM_90, 2, narrow, wrong);
}

#[test]
fn products_beside_other_executions() {
    let mut tiled = [
        products::tiled(DType::F16),
        products::tiled_convolutions(DType::F16),
    ]
    .concat();
    for problem in &mut tiled {
        problem.spec.options.n_contexts = 4;
    }
    for template in ["gemm_mma", "gemm_wgmma"] {
        check_in_turns(&tiled, template, SM_90, SUMS);
    }
}

#[test]
fn mma_products_in_tf32() {
    let mut problems = products::layouts(DType::F32);
    problems.extend(products::convolutions(DType::F32, true));
    for problem in &mut problems {
        problem.spec.options.tf32 = true;
    }
    check_sums(&problems, "gemm_mma", SM_90, 2, TF32);
}
