//! Generated kernels, run on the CPU and compared with the reference interpreter.
//!
//! Every variant of every template that accepts a region is rendered, compiled by g++ behind
//! an emulating prelude and run on drawn data; no GPU takes part. See `hostexec/harness.rs`.

#![cfg(feature = "builder")]

#[path = "hostexec/attention.rs"]
mod attention;
#[path = "hostexec/attention_regions.rs"]
mod attention_regions;
#[path = "hostexec/boxes.rs"]
mod boxes;
#[path = "hostexec/byte_products.rs"]
mod byte_products;
#[path = "hostexec/bytes.rs"]
mod bytes;
#[path = "hostexec/checks.rs"]
mod checks;
#[path = "hostexec/families.rs"]
mod families;
#[path = "hostexec/family_regions.rs"]
mod family_regions;
#[path = "hostexec/group_products.rs"]
mod group_products;
#[path = "hostexec/harness.rs"]
mod harness;
#[path = "hostexec/matrices.rs"]
mod matrices;
#[path = "hostexec/models.rs"]
mod models;
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
#[path = "hostexec/rows_of_products.rs"]
mod rows_of_products;
#[path = "hostexec/translation.rs"]
mod translation;
#[path = "hostexec/window_regions.rs"]
mod window_regions;
#[path = "hostexec/windows.rs"]
mod windows;

use checks::{SM_90, check, check_all, check_picked, check_some, check_template};
use rtrt_codegen::ir::DType;
use rtrt_codegen::kernel::{self};
use rtrt_codegen::ops::{Lowering, TileKind};

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
fn transposes_of_vectors() {
    check_template(&regions::turned_vectors(), "transpose_block", SM_90, 4);
}
