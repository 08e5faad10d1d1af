//! Small models quantised by ONNX Runtime compute what ONNX Runtime computes, and those with weights of four bits
//! what ONNX says.

#![cfg(feature = "builder")]

#[path = "quantized/fixture.rs"]
mod fixture;

use fixture::{Fixture, NAMES};
use rtrt_codegen::ir::DType;
use rtrt_codegen::ops::evaluate::to_vec;
use rtrt_codegen::rewrite::{DeviceRates, RuleSet, TensorSource, fuse, run_fused};
use rtrt_codegen::{reference, specialize};

/// Sums of integers are exact and scaled in ONNX Runtime's order, so not even a step may differ.
#[test]
fn models_compute_what_their_quantiser_computes() {
    for name in NAMES {
        let fixture = Fixture::read(name);
        let found = reference::run(&fixture.graph, std::slice::from_ref(&fixture.x)).unwrap();
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

/// Every island between `DequantizeLinear` and `QuantizeLinear` that the quantiser made of a product,
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

/// Weights that are dequantised block by block stay in four bits, whichever axis their terms lie along.
#[test]
fn blocks_of_four_bits_stay_packed() {
    let fixture = Fixture::read("int4_blocks");
    let inputs = [fixture.x.clone()];
    let bindings = specialize::bind_inputs(&fixture.graph, &inputs).unwrap();
    let core = specialize::specialize(&fixture.graph, &bindings).unwrap();
    let fused = fuse(&core, RuleSet::builtin(), DeviceRates::for_sm(90)).unwrap();
    let weights = fused
        .tensors
        .iter()
        .filter(|tensor| matches!(tensor.source, TensorSource::Weight(_)));
    let matrices: Vec<(DType, Vec<usize>)> = weights
        .filter(|tensor| tensor.ty.dtype == DType::U8)
        .map(|tensor| (tensor.ty.dtype, tensor.ty.dims()))
        .collect();
    assert_eq!(matrices, [(DType::U8, vec![48, 32]), (DType::U8, vec![24, 24])]);
    let found = run_fused(&fused, &inputs).unwrap();
    let (found, wanted) = (to_vec::<f64>(&found[0]), to_vec::<f64>(&fixture.y));
    for (found, wanted) in found.iter().zip(&wanted) {
        assert!(
            (found - wanted).abs() <= 1e-5 * wanted.abs().max(1.0),
            "{found} for {wanted}"
        );
    }
}
