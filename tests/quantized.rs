//! Small models quantised by ONNX Runtime compute what ONNX Runtime computes.

#![cfg(feature = "builder")]

#[path = "quantized/fixture.rs"]
mod fixture;

use fixture::{Fixture, NAMES};
use rtrt_codegen::ops::evaluate::to_vec;
use rtrt_codegen::reference;

/// Sums of integers are exact and scaled in ONNX Runtime's order, so not even a step may differ.
#[test]
fn models_compute_what_their_quantiser_computes() {
    for name in NAMES {
        let fixture = Fixture::read(name);
        let found = reference::run(&fixture.graph, &[fixture.x.clone()]).unwrap();
        let step = to_vec::<f64>(&fixture.step)[0];
        let (found, wanted) = (to_vec::<f64>(&found[0]), to_vec::<f64>(&fixture.y));
        let off = found.iter().zip(&wanted).map(|(a, b)| (a - b).abs() / step);
        let worst = off.fold(0.0, f64::max);
        assert!(worst < 0.01, "{name}: {worst} steps off");
        assert!(
            wanted.iter().any(|value| *value != 0.0),
            "{name} computes nothing"
        );
    }
}

/// Every island between DequantizeLinear and QuantizeLinear that the quantiser made of a product,
/// a sum or a mean is computed in integers.
#[test]
fn no_product_stays_in_floats() {
    for name in NAMES {
        let fixture = Fixture::read(name);
        let left = ["Conv", "MatMul", "Gemm", "add"];
        let stays = fixture.graph.nodes.iter().find(|node| left.contains(&node.op));
        assert!(stays.is_none(), "{name}: {stays:?}");
    }
}
