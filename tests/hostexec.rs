//! Generated kernels, run on the CPU and compared with the reference interpreter.
//!
//! Every variant of every template that accepts a region is rendered, compiled by g++ behind
//! an emulating prelude and run on drawn data; no GPU takes part. See `hostexec/harness.rs`.

#![cfg(feature = "builder")]

#[path = "hostexec/attention_regions.rs"]
mod attention_regions;
#[path = "hostexec/harness.rs"]
mod harness;
#[path = "hostexec/regions.rs"]
mod regions;
#[path = "hostexec/window_regions.rs"]
mod window_regions;

use harness::{Case, difference, have_compiler, run_all, tolerance};
use regions::Problem;
use rtrt_codegen::kernel::{self, Arch};
use rtrt_codegen::ops::{Lowering, TileKind};
use rtrt_codegen::reference;

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
    if !have_compiler() {
        return;
    }
    let mut cases = Vec::new();
    let mut wanted = Vec::new();
    for problem in &problems {
        let variants = kernel::variants(&problem.spec, SM_90);
        assert!(!variants.is_empty(), "{} has no kernel", problem.label);
        let some = variants
            .iter()
            .enumerate()
            .filter(|(rank, variant)| *rank < n_best || variant.template == "indexed");
        for (_, variant) in some {
            let source = kernel::render(&problem.spec, variant, SM_90).unwrap();
            cases.push(Case {
                label: format!("{} {} {:?}", problem.label, variant.template, variant.knobs),
                source,
                inputs: problem.inputs.clone(),
                outputs: problem.spec.output_types(),
            });
            wanted.push(reference::run(&problem.spec.body, &problem.inputs).unwrap());
        }
    }
    let mut wrong = Vec::new();
    for ((case, found), wanted) in cases.iter().zip(run_all(&cases)).zip(&wanted) {
        for (found, wanted) in found.iter().zip(wanted) {
            if let Some(difference) = difference(found, wanted, tolerance(wanted.dtype())) {
                wrong.push(format!("{}: {difference}", case.label));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} wrong:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn pointwise_chains() {
    check(regions::pointwise());
}

#[test]
fn rows_and_their_reductions() {
    check(regions::rows());
}

#[test]
fn reductions_over_any_axes() {
    check(regions::reductions());
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
            Lowering::Tile(TileKind::Reduce | TileKind::Dot | TileKind::Window | TileKind::Other, _)
        )
    });
    check_some(others, 1);
}

#[test]
fn attention_on_tensor_cores() {
    check(attention_regions::half());
}

#[test]
fn attention_outside_tensor_cores() {
    check(attention_regions::wide());
}

#[test]
fn attention_of_few_queries() {
    check(attention_regions::decode());
}

#[test]
fn windows_of_one_channel() {
    check(window_regions::depthwise());
}

#[test]
fn windows_that_pool() {
    check(window_regions::pools());
}

#[test]
fn windows_of_groups() {
    check(window_regions::groups());
}

#[test]
fn windows_transposed() {
    check(window_regions::transposed());
}

#[test]
fn windows_of_the_op_table() {
    check(regions::ops_of_the_table(|def| matches!(def.lower, Lowering::Tile(TileKind::Window, _))));
}
