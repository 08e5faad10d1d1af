//! What is stored narrow, and what stays.

use super::narrowing::narrowed;
use super::{Reason, Wide, lower_except, lower_precision};
use crate::ir::{DType, Graph, HostTensor, TensorType};
use crate::ops::evaluate::to_vec;
use crate::reference::Constants;
use crate::testing::{graphs, verify_core};
use crate::{ops, reference};

/// A graph from text; its ops are typed by their inference.
fn parsed(text: &str) -> Graph {
    let graph = crate::ir::text::parse(text, &|name| ops::lookup(name).map(|def| def.name)).unwrap();
    let bindings = crate::specialize::bind(&graph, &[]).unwrap();
    crate::specialize::specialize(&graph, &bindings).unwrap()
}

fn result_kind(graph: &Graph, op: &str) -> DType {
    let mut nodes = graph.nodes.iter();
    let node = nodes.find(|node| node.op == op).unwrap();
    graph.ty(node.results[0]).dtype
}

#[test]
fn a_variance_is_an_island() {
    let graph = parsed(
        "graph rms(x: f32[4,64], w: f32[64,8]) {
           mean = reduce_mean[axes=[1]](mul(x, x))
           scale = rsqrt(add(mean, f32[]{1e-6}))
           return matmul(mul(x, scale), w) as \"y\"
         }",
    );
    let lowered = lower_precision(&graph, DType::F16);
    assert_eq!(verify_core(&lowered), Ok(()));
    assert_eq!(result_kind(&lowered, "reduce_mean"), DType::F32);
    assert_eq!(result_kind(&lowered, "rsqrt"), DType::F32);
    assert_eq!(result_kind(&lowered, "matmul"), DType::F16);
    assert_eq!(lowered.ty(lowered.outputs[0]).dtype, DType::F32);
    let large = HostTensor::from_f32(&[4, 64], &[900.0; 256]);
    let w = HostTensor::from_f32(&[64, 8], &[0.125; 512]);
    let found = reference::run(&lowered, &[large, w]).unwrap();
    assert!(
        found[0]
            .as_slice::<f32>()
            .iter()
            .all(|value| (value - 8.0).abs() < 0.05)
    );
}

#[test]
fn a_gate_is_computed_wide_and_its_channels_are_narrow() {
    let graph = parsed(
        "graph g(x: f32[1,2,4,4], w: f32[2,2]) {
           mean = reshape[shape=[1,2]](reduce_mean[axes=[2,3]](x))
           gate = reshape[shape=[1,2,1,1]](sigmoid(matmul(mean, f32[2,2]{1.0, 2.0, 3.0, 4.0})))
           return mul(x, gate) as \"y\"
         }",
    );
    let lowered = lower_precision(&graph, DType::F16);
    assert_eq!(result_kind(&lowered, "matmul"), DType::F32);
    assert_eq!(result_kind(&lowered, "sigmoid"), DType::F32);
    assert_eq!(result_kind(&lowered, "mul"), DType::F16);
}

#[test]
fn a_cache_keeps_its_kind() {
    let graph = parsed(
        "graph g(past: f32[1,3,4], x: f32[1,4], w: f32[4,4]) {
           row = reshape[shape=[1,1,4]](matmul(x, w))
           keys = concat[axis=1](past, row)
           return keys, matmul(keys, w) as \"y\"
         }",
    );
    let lowered = lower_precision(&graph, DType::F16);
    assert_eq!(verify_core(&lowered), Ok(()));
    assert_eq!(result_kind(&lowered, "concat"), DType::F32);
    assert_eq!(result_kind(&lowered, "matmul"), DType::F16);
    let kept = lowered.producer(lowered.outputs[0]).unwrap().1;
    assert_eq!(kept.op, "concat");
}

#[test]
fn sums_of_bytes_are_wide_and_what_they_are_scaled_to_is_narrow() {
    let graph = parsed(
        "graph g(x: i8[1,4], w: f32[2,4]) {
           sum = matmul(cast[to=f32](x), f32[4,2]{255.0, 255.0, 255.0, 255.0, 255.0, 255.0, 255.0, 255.0})
           y = relu(add(mul(add(sum, f32[]{3.0}), f32[]{1e-5}), f32[]{1.0}))
           code = cast[to=i8](clamp[low=-128.0, high=127.0](round(div(y, f32[]{0.02}))))
           return code, matmul(y, w) as \"z\"
         }",
    );
    let (lowered, islands) = lower_except(&graph, DType::F16, &Wide::new(), &Constants::default());
    assert_eq!(verify_core(&lowered), Ok(()));
    assert_eq!(result_kind(&lowered, "mul"), DType::F32);
    assert_eq!(result_kind(&lowered, "relu"), DType::F16);
    assert_eq!(result_kind(&lowered, "div"), DType::F32);
    assert_eq!(result_kind(&lowered, "round"), DType::F32);
    assert!(islands.iter().any(|island| island.reason == Reason::Integers));
    let x = HostTensor::from_slice(DType::I8, &[1, 4], &[127_i8; 4]);
    let w = HostTensor::from_f32(&[2, 4], &[0.25; 8]);
    let (expected, found) = (
        reference::run(&graph, &[x.clone(), w.clone()]).unwrap(),
        reference::run(&lowered, &[x, w]).unwrap(),
    );
    assert_eq!(expected[0], found[0]);
}

#[test]
fn what_sums_by_weights_of_bytes_are_scaled_to_is_narrow() {
    let bytes: Vec<String> = (0..256).map(|n| format!("{}.0", n - 128)).collect();
    let graph = parsed(&format!(
        "graph g(x: f32[2,16]) {{
           w = f32[16,16]{{{}}}
           y = relu(mul(reshape[shape=[1, 2, 16]](matmul(x, w)), f32[]{{1e-3}}))
           return matmul(reshape[shape=[2, 16]](y), w) as \"z\"
         }}",
        bytes.join(", ")
    ));
    let lowered = lower_precision(&graph, DType::F16);
    assert_eq!(verify_core(&lowered), Ok(()));
    assert_eq!(result_kind(&lowered, "matmul"), DType::F32);
    assert_eq!(result_kind(&lowered, "mul"), DType::F32);
    assert_eq!(result_kind(&lowered, "relu"), DType::F16);
}

#[test]
fn named_nodes_stay_wide() {
    let mut graph = parsed(
        "graph g(x: f32[2,4], w: f32[4,4]) {
           y = matmul(matmul(x, w), w)
           return y
         }",
    );
    graph.nodes[0].origin = vec!["first".to_owned()];
    let wide = Wide::from(["first".to_owned()]);
    let (lowered, islands) = lower_except(&graph, DType::F16, &wide, &Constants::default());
    assert_eq!(verify_core(&lowered), Ok(()));
    let kinds: Vec<DType> = lowered
        .nodes
        .iter()
        .filter(|node| node.op == "matmul")
        .map(|node| lowered.ty(node.results[0]).dtype)
        .collect();
    assert_eq!(kinds, [DType::F32, DType::F16]);
    assert_eq!(islands[0].reason, Reason::Named);
}

#[test]
fn positions_keep_their_fraction() {
    let graph = parsed(
        "graph g(t: f32[2,1]) {
           return add(sin(matmul(t, f32[1,2]{1.0, 0.37})), f32[]{1.0}) as \"y\"
         }",
    );
    let lowered = lower_precision(&graph, DType::F16);
    assert_eq!(result_kind(&lowered, "matmul"), DType::F32);
    assert_eq!(verify_core(&lowered), Ok(()));
}

#[test]
fn constants_stay_finite_and_infinities_infinite() {
    let mask = HostTensor::from_f32(&[3], &[-3.4e38, f32::NEG_INFINITY, 1.0]);
    let values: Vec<f64> = to_vec(&narrowed(&mask, DType::F16));
    assert_eq!(values, [-65504.0, f64::NEG_INFINITY, 1.0]);
}

#[test]
fn statistics_outside_the_range_of_f16_are_kept() {
    let graph = parsed(
        "graph g(x: f32[1,2]) {
           y = batch_norm[epsilon=1e-5](x, f32[2]{1.0, 2.0}, f32[2]{0.5, 0.5}, f32[2]{1e6, 0.0}, f32[2]{1e10, 1e-9})
           return y
         }",
    );
    let x = [HostTensor::from_f32(&[1, 2], &[10.0, 0.001])];
    let expected = reference::run(&graph, &x).unwrap();
    let found = reference::run(&lower_precision(&graph, DType::F16), &x).unwrap();
    let (expected, found) = (expected[0].as_slice::<f32>(), found[0].as_slice::<f32>());
    for (expected, found) in expected.iter().zip(found) {
        assert!(
            (expected - found).abs() <= 2e-3 * expected.abs(),
            "{expected} {found}"
        );
    }
}

#[test]
fn drawn_graphs_stay_sound_and_keep_their_interface() {
    for seed in 0..100 {
        let graph = graphs::core(seed, 20);
        for narrow in [DType::F16, DType::BF16] {
            let lowered = lower_precision(&graph, narrow);
            assert_eq!(verify_core(&lowered), Ok(()), "seed {seed}");
            assert_eq!(lowered.output_names, graph.output_names);
            let types = |graph: &Graph| -> Vec<TensorType> {
                let ends = graph.inputs.iter().chain(&graph.outputs);
                ends.map(|&value| graph.ty(value).clone()).collect()
            };
            assert_eq!(types(&lowered), types(&graph), "seed {seed}");
        }
    }
}

#[test]
fn mixed_graphs_are_left_alone() {
    let graph = parsed(
        "graph g(x: f16[2]) {
           return cast[to=f16](exp(cast[to=f32](x))) as \"y\"
         }",
    );
    assert_eq!(lower_precision(&graph, DType::BF16), graph);
}
