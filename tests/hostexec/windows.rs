//! Convolutions and poolings that templates for windows compute.

use crate::checks::{SM_75, SM_90, check_template};
use crate::placed_regions::in_boxes;
use crate::{byte_products, products, regions, window_regions};
use rtrt_codegen::ir::DType;
use rtrt_codegen::ops::{Lowering, TileKind};

#[test]
fn windows_of_one_channel() {
    check_template(&window_regions::depthwise(), "window_strip", SM_90, 6);
    check_template(&window_regions::depthwise(), "window_taps", SM_90, 2);
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
