//! Regions of whole models, quantised ones and detectors.

use crate::checks::{SM_90, check, check_some, check_steps, check_template};
use crate::placed_regions::in_boxes;
use crate::{quantized_models, regions};
use rtrt_codegen::ir::{DType, Graph, HostTensor};
use rtrt_codegen::ops::samples::Draw;
use rtrt_codegen::pipeline::{self, Settings};
use rtrt_codegen::precision::Kind;
use rtrt_codegen::testing::detectors::{Detector, masked, sizes, sizes_inputs, sparse};
use rtrt_codegen::{reference, rewrite, specialize};

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

#[test]
fn sizes_that_data_decides() {
    let mut draw = Draw::new(7);
    for (share, wanted) in [(0.0, 5), (0.4, 8), (1.1, 45)] {
        check_detector(&sizes(45), &sizes_inputs(&mut draw, 45, share, wanted));
    }
}

fn check_detector(model: &Graph, inputs: &[HostTensor]) {
    let settings = Settings::stored_in(DType::F32);
    let core = pipeline::lower(model, &settings).unwrap();
    let fused = pipeline::regions(&core, SM_90, &settings).unwrap();
    let found = rewrite::run_fused(&fused, inputs).unwrap();
    let wanted = reference::run(model, inputs).unwrap();
    assert_eq!(specialize::counted(&core, &found).unwrap(), wanted);
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
