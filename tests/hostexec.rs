//! Generated kernels, run on the CPU and compared with the reference interpreter.
//!
//! Every variant of every template that accepts a region is rendered, compiled by g++ behind
//! an emulating prelude and run on drawn data; no GPU takes part. See `hostexec/harness.rs`.

#![cfg(feature = "builder")]

#[path = "hostexec/attention_regions.rs"]
mod attention_regions;
#[path = "hostexec/byte_products.rs"]
mod byte_products;
#[path = "hostexec/family_regions.rs"]
mod family_regions;
#[path = "hostexec/harness.rs"]
mod harness;
#[path = "hostexec/packed_products.rs"]
mod packed_products;
#[path = "hostexec/placed_regions.rs"]
mod placed_regions;
#[path = "hostexec/products.rs"]
mod products;
#[path = "hostexec/quantized_models.rs"]
mod quantized_models;
#[path = "hostexec/regions.rs"]
mod regions;
#[path = "hostexec/translation.rs"]
mod translation;
#[path = "hostexec/window_regions.rs"]
mod window_regions;

use std::cell::Cell;

use harness::{Case, Outcome, have_compiler, run_all};
use placed_regions::in_boxes;
use products::HandedOver;
use regions::Problem;
use rtrt_codegen::ir::{DType, Graph, HostTensor};
use rtrt_codegen::kernel::{self, Arch};
use rtrt_codegen::ops::samples::Draw;
use rtrt_codegen::ops::{Lowering, TileKind};
use rtrt_codegen::pipeline::{self, Settings};
use rtrt_codegen::precision::Kind;
use rtrt_codegen::testing::detectors::{Detector, masked, sparse};
use rtrt_codegen::{reference, rewrite, specialize};
use translation::poison;

const SM_90: Arch = Arch {
    sm: 90,
    specific: true,
};

/// Runs every variant of every problem.
fn check(problems: Vec<Problem>) {
    check_some(problems, usize::MAX);
}

/// Runs the `n_best` variants of every problem, and the indexed one.
fn check_some(problems: Vec<Problem>, n_best: usize) {
    check_picked(&problems, SM_90, 1.0, |variants| {
        let ranks = 0..variants.len();
        ranks
            .filter(|&rank| rank < n_best || variants[rank].template == "indexed")
            .collect()
    });
}

/// Runs `most` variants of `template`, the best ones and others drawn from all ranks. It must
/// offer some.
fn check_template(problems: &[Problem], template: &str, arch: Arch, most: usize) {
    check_sums(problems, template, arch, most, SUMS);
}

fn check_sums(problems: &[Problem], template: &str, arch: Arch, most: usize, slack: f64) {
    check_picked(problems, arch, slack, |variants| {
        let own: Vec<usize> = (0..variants.len())
            .filter(|&rank| variants[rank].template == template)
            .collect();
        assert!(!own.is_empty(), "`{template}` refuses");
        let step = own.len().div_ceil(most).max(1);
        own.into_iter().step_by(step).collect()
    });
}

/// Runs one variant of `template` per problem, another one each time.
fn check_in_turns(problems: &[Problem], template: &str, arch: Arch, slack: f64) {
    let turn = Cell::new(0);
    check_picked(problems, arch, slack, |variants| {
        let own: Vec<usize> = (0..variants.len())
            .filter(|&rank| variants[rank].template == template)
            .collect();
        assert!(!own.is_empty(), "`{template}` refuses");
        turn.set(turn.get() + 5);
        vec![own[turn.get() % own.len()]]
    });
}

/// Runs every variant that any template offers.
fn check_all(problems: &[Problem]) {
    for arch in [SM_90, SM_75] {
        check_picked(problems, arch, SUMS, |variants| (0..variants.len()).collect());
    }
}

/// Sums of products may cancel in an epilogue, and the reference rounds between its ops.
const SUMS: f64 = 3.0;

/// Operands keep 11 bits of 24.
const TF32: f64 = 2000.0;

/// Runs the best variants and the indexed ones; what was rounded to integers may be a step off.
fn check_steps(problems: &[Problem], arch: Arch, n_best: usize) {
    let pick = |variants: &[kernel::Variant]| {
        let ranks = 0..variants.len();
        ranks
            .filter(|&rank| rank < n_best || variants[rank].template == "indexed")
            .collect()
    };
    check_by(problems, arch, pick, Outcome::wrong_by_steps);
}

/// Runs the variants whose ranks `pick` chooses; `slack` widens the tolerance.
fn check_picked(
    problems: &[Problem],
    arch: Arch,
    slack: f64,
    pick: impl Fn(&[kernel::Variant]) -> Vec<usize>,
) {
    check_by(problems, arch, pick, |found, wanted| found.wrong(wanted, slack));
}

/// Runs the variants whose ranks `pick` chooses; `wrong` says what is wrong with what came out.
fn check_by(
    problems: &[Problem],
    arch: Arch,
    pick: impl Fn(&[kernel::Variant]) -> Vec<usize>,
    wrong_with: impl Fn(&Outcome, &[HostTensor]) -> Option<String>,
) {
    check_on(problems, arch, u32::MAX, pick, wrong_with);
}

/// The same with `most_blocks` at most, for kernels whose blocks take as many tiles as are left.
fn check_on(
    problems: &[Problem],
    arch: Arch,
    most_blocks: u32,
    pick: impl Fn(&[kernel::Variant]) -> Vec<usize>,
    wrong_with: impl Fn(&Outcome, &[HostTensor]) -> Option<String>,
) {
    if !have_compiler() {
        return;
    }
    let mut cases = Vec::new();
    let mut wanted = Vec::new();
    for problem in problems {
        let variants = kernel::variants(&problem.spec, arch);
        assert!(!variants.is_empty(), "{} has no kernel", problem.label);
        for rank in pick(&variants) {
            let variant = &variants[rank];
            let mut source = kernel::render(&problem.spec, variant, arch).unwrap();
            source.launch.grid[0] = source.launch.grid[0].min(most_blocks);
            // A device refuses to launch nothing.
            assert!(
                source.launch.grid.iter().all(|&blocks| blocks > 0),
                "{}: {:?}",
                source.name,
                source.launch
            );
            let case = Case {
                label: format!("{} {} {:?}", problem.label, variant.template, variant.knobs),
                source,
                inputs: problem.inputs.clone(),
                weights: problem.spec.weights.clone(),
                outputs: problem.spec.stored_types(),
            };
            let results = reference::run(&problem.spec.body, &problem.inputs).unwrap();
            wanted.push(problem.spec.stored(results, poison(&case)));
            cases.push(case);
        }
    }
    let mut wrong = Vec::new();
    for ((case, found), wanted) in cases.iter().zip(run_all(&cases)).zip(&wanted) {
        if let Some(complaint) = wrong_with(&found, wanted) {
            wrong.push(format!("{}: {complaint}", case.label));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} wrong:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

#[test]
fn pointwise_chains() {
    check(regions::pointwise());
}

#[test]
fn pointwise_in_every_kind_of_number() {
    check_some(regions::numbers(), 2);
}

#[test]
fn tensors_without_elements() {
    check_all(&regions::empty());
    check_all(&window_regions::empty());
    for dtype in [DType::F16, DType::F32] {
        check_all(&attention_regions::empty(dtype));
    }
}

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
fn rows_and_their_reductions() {
    check(regions::rows());
}

#[test]
fn norms_of_groups() {
    check_template(&regions::groups(), "row", SM_90, 3);
    check_template(&regions::groups(), "column", SM_90, 2);
}

#[test]
fn reductions_over_any_axes() {
    check(regions::reductions());
}

#[test]
fn columns_that_blocks_share() {
    check_picked(&regions::shared_columns(), SM_90, 1.0, |variants| {
        let shared = |variant: &kernel::Variant| {
            variant
                .knobs
                .iter()
                .any(|(name, value)| *name == "splits" && *value > 1)
        };
        let own = (0..variants.len())
            .filter(|&rank| variants[rank].template == "column" && shared(&variants[rank]));
        let own: Vec<usize> = own.collect();
        assert!(!own.is_empty(), "no blocks share columns");
        own
    });
}

#[test]
fn views_and_selections() {
    check(regions::moves());
}

#[test]
fn every_map_of_the_op_table() {
    let maps = regions::ops_of_the_table(|def| matches!(def.lower, Lowering::Map(_)));
    check_some(maps, 1);
}

#[test]
fn every_view_and_index_op_of_the_op_table() {
    let moves = regions::ops_of_the_table(|def| {
        matches!(def.lower, Lowering::Tile(TileKind::View | TileKind::Index, _))
    });
    check_some(moves, 2);
}

#[test]
fn every_other_op_of_the_op_table() {
    let others = regions::ops_of_the_table(|def| {
        matches!(
            def.lower,
            Lowering::Tile(
                TileKind::Reduce | TileKind::Dot | TileKind::Window | TileKind::Other,
                _
            ) | Lowering::Loop
        )
    });
    check_some(others, 1);
}

#[test]
fn attention_on_tensor_cores() {
    check_template(&attention_regions::half(), "attention_mma", SM_90, 3);
    check_template(
        &attention_regions::half_of_one_kind(),
        "attention_mma",
        SM_90,
        usize::MAX,
    );
    check_template(&attention_regions::half_of_one_kind(), "attention_mma", SM_75, 2);
}

#[test]
fn attention_by_groups_of_warps() {
    check_template(&attention_regions::of_groups(), "attention_wgmma", SM_90, 4);
}

#[test]
fn attention_of_copied_tiles() {
    check_template(
        &attention_regions::streamed(),
        "attention_stream",
        SM_90,
        usize::MAX,
    );
}

/// Blocks that take several tiles go on in the phases that the one before has left.
#[test]
fn attention_of_blocks_that_stay() {
    check_picked(&attention_regions::of_many_tiles(), SM_90, SUMS, |variants| {
        let stays = |rank: &usize| variants[*rank].knobs.get("stays") == Some(&1);
        let found: Vec<usize> = (0..variants.len()).filter(stays).collect();
        assert!(!found.is_empty(), "no block stays");
        found
    });
}

#[test]
fn attention_outside_tensor_cores() {
    check_template(&attention_regions::wide(), "attention_simt", SM_90, 4);
    check_template(&attention_regions::half_of_one_kind(), "attention_simt", SM_90, 1);
    check_template(&attention_regions::wide()[..2], "attention_simt", SM_75, 1);
}

#[test]
fn attention_of_few_queries() {
    check_template(&attention_regions::decode(), "attention_decode", SM_90, 4);
}

#[test]
fn windows_of_one_channel() {
    check_template(&window_regions::depthwise(), "window_strip", SM_90, 6);
    check_template(&window_regions::depthwise(), "window_taps", SM_90, 2);
}

#[test]
fn transposes_of_vectors() {
    check_template(&regions::turned_vectors(), "transpose_block", SM_90, 4);
}

#[test]
fn windows_of_few_channels() {
    check_template(&window_regions::few_channels(), "window_mma", SM_90, 3);
    check_template(&window_regions::few_channels()[..2], "window_mma", SM_75, 1);
    check_template(&window_regions::few_channels_to_bytes(), "window_mma", SM_90, 2);
    check_template(&window_regions::windows_apart(), "window_wgmma", SM_90, 3);
    check_template(&window_regions::few_channels_to_bytes(), "window_wgmma", SM_90, 2);
}

#[test]
fn windows_whose_channels_lie_in_planes() {
    for dtype in [DType::F16, DType::BF16] {
        check_template(&products::near_convolutions(dtype), "window_planes", SM_90, 4);
    }
    for product in [DType::I32, DType::F32] {
        check_template(
            &byte_products::near_byte_convolutions(product),
            "window_planes",
            SM_90,
            2,
        );
    }
    check_template(
        &in_boxes(products::near_convolutions(DType::F16)),
        "window_planes",
        SM_90,
        1,
    );
}

#[test]
fn windows_that_pool() {
    check_template(&window_regions::pools(true), "window_strip", SM_90, 4);
    check_template(&window_regions::pools(true), "window_taps", SM_90, 1);
    check_template(&window_regions::pools(false), "window_taps", SM_90, 2);
    check_template(&window_regions::pools_of_bytes(), "window_strip", SM_90, 3);
}

#[test]
fn windows_of_groups() {
    check_template(&window_regions::groups(), "window_taps", SM_90, 4);
}

#[test]
fn windows_transposed() {
    check_template(&window_regions::transposed(), "window_taps", SM_90, 4);
}

#[test]
fn windows_of_the_op_table() {
    let windows = regions::ops_of_the_table(|def| matches!(def.lower, Lowering::Tile(TileKind::Window, _)));
    check_template(&windows, "window_taps", SM_90, 3);
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
fn regions_of_quantised_models() {
    for name in quantized_models::NAMES {
        check_some(quantized_models::regions(name), 3);
    }
}

#[test]
fn best_boxes() {
    let problems = [
        regions::best_boxes(DType::F32, 150, 3, 40),
        regions::best_boxes(DType::F16, 130, 1, 130),
        // More than a word of bits per thread.
        regions::best_boxes(DType::F32, 4100, 1, 6),
    ];
    check_template(&problems, "best_boxes", SM_90, usize::MAX);
    check(in_boxes(problems[..1].to_vec()));
}

/// The kernels of models whose outputs are as long as data says: where nothing is kept, some, and all.
#[test]
fn regions_of_detectors() {
    let mut draw = Draw::new(5);
    let detector = |boxes, classes, most, lowest| Detector {
        images: 2,
        boxes,
        classes,
        most,
        lowest,
    };
    for detector in [
        detector(150, 3, 20, Some(0.4)),
        detector(40, 2, 40, None),
        detector(33, 1, 5, Some(2.0)),
    ] {
        check_detector(&detector.graph(), &detector.inputs(&mut draw));
    }
    for share in [0.0, 0.1, 1.1] {
        let mask = sparse(&mut draw, &[37, 30], share);
        let data = draw.floats(DType::F32, &[37, 30, 3], -1.0, 1.0);
        check_detector(&masked(37, 30, 3), &[mask, data]);
    }
}

fn check_detector(model: &Graph, inputs: &[HostTensor]) {
    let settings = Settings::stored_in(DType::F32);
    let core = pipeline::lower(model, &settings).unwrap();
    let fused = pipeline::regions(&core, SM_90, &settings).unwrap();
    let found = rewrite::run_fused(&fused, inputs).unwrap();
    let wanted = reference::run(model, inputs).unwrap();
    assert_eq!(specialize::counted(&core, &found), wanted);
    check_some(quantized_models::problems(&model.name, &fused, inputs), 2);
}

#[test]
fn regions_of_networks_quantised_here() {
    for (name, kind, float) in [
        ("residual", Kind::Int8, DType::F32),
        ("residual", Kind::Int8, DType::F16),
        ("residual", Kind::Fp8, DType::F32),
        ("residual", Kind::Int8Weights, DType::F16),
        ("vit", Kind::Int4Weights { group: 32 }, DType::F16),
        ("vit", Kind::Int8, DType::F32),
    ] {
        check_steps(&quantized_models::network(name, kind, float), SM_90, 2);
    }
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

const SM_75: Arch = Arch {
    sm: 75,
    specific: false,
};

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
fn products_by_groups_of_warps() {
    for dtype in [DType::F16, DType::BF16] {
        check_in_turns(&products::tiled(dtype), "gemm_wgmma", SM_90, SUMS);
        check_template(&products::tiled_convolutions(dtype), "gemm_wgmma", SM_90, 2);
    }
}

#[test]
fn products_by_groups_of_warps_in_every_tile() {
    let [a, b] = [products::Layout::Plain, products::Layout::Turned];
    let all = [(a, a), (b, b)].map(|(a, b)| {
        let epilogue = products::Epilogue::BiasResidualRelu;
        products::matmul(DType::F16, (&[264, 200], a), (&[200, 312], b), epilogue)
    });
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

/// The members of the families that one template makes of a region's sizes, each beside the kernel that it
/// stands for.
fn in_families(sized: &family_regions::Sized, template: &str) -> Vec<(Case, Case)> {
    let problems = sized.sizes.map(sized.of);
    let variants = problems
        .each_ref()
        .map(|problem| kernel::variants(&problem.spec, SM_90));
    let offered = |knobs: &str| {
        let is_own = |own: &&kernel::Variant| own.template == template && own.knobs_text() == knobs;
        let own = variants.each_ref().map(|all| all.iter().find(is_own).cloned());
        let numbers = (0..problems.len()).filter(|&number| own[number].is_some());
        let sources = numbers.map(|number| {
            let variant = own[number].as_ref().expect("it was found");
            (
                number,
                kernel::render(&problems[number].spec, variant, SM_90).unwrap(),
            )
        });
        sources.collect::<Vec<_>>()
    };
    let case = |number: usize, source: kernel::Source| Case {
        label: format!("{} {}", problems[number].label, source.name),
        source,
        inputs: problems[number].inputs.clone(),
        weights: problems[number].spec.weights.clone(),
        outputs: problems[number].spec.stored_types(),
    };
    let own = variants
        .iter()
        .flatten()
        .filter(|variant| variant.template == template);
    for knobs in own.map(kernel::Variant::knobs_text) {
        let (numbers, sources): (Vec<usize>, Vec<kernel::Source>) = offered(&knobs).into_iter().unzip();
        let families = kernel::family::families(&sources);
        let members = families.into_iter().flat_map(|family| family.members);
        let pairs = members.map(|(place, member)| {
            let alone = sources[place].clone();
            (case(numbers[place], member), case(numbers[place], alone))
        });
        let pairs: Vec<(Case, Case)> = pairs.collect();
        if !pairs.is_empty() {
            return pairs;
        }
    }
    panic!("no variant of `{template}` is for several sizes");
}

/// Whose numbers are arguments computes the same bits as whose numbers are in its text.
#[test]
fn families_compute_what_single_kernels_compute() {
    if !have_compiler() {
        return;
    }
    let all = family_regions::all();
    for template in kernel::templates::TEMPLATES {
        let is_tried = all.iter().any(|sized| sized.templates.contains(&template.name));
        assert!(is_tried, "`{}` is in no family", template.name);
    }
    let pairs = all.iter().flat_map(|sized| {
        let templates = sized.templates.iter();
        templates.flat_map(|template| in_families(sized, template))
    });
    let (general, alone): (Vec<Case>, Vec<Case>) = pairs.unzip();
    let n_dims = |case: &Case| {
        let params = case.source.params.iter();
        params
            .filter(|param| matches!(param, kernel::Param::Dim(_)))
            .count()
    };
    assert!(general.iter().all(|case| n_dims(case) > 0));
    let found = run_all(&general).into_iter().zip(run_all(&alone));
    for ((general, alone), case) in found.zip(&general) {
        let bits = |outcome: &Outcome| -> Vec<Vec<u8>> {
            let outputs = outcome.launches.iter().flatten();
            outputs.map(|output| output.bytes().to_vec()).collect()
        };
        assert_eq!(bits(&general), bits(&alone), "{}", case.label);
    }
}
