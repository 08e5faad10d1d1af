//! Attention, by every template for it.

use crate::attention_regions;
use crate::checks::{SM_75, SM_90, SUMS, check_picked, check_template};

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
