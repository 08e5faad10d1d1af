//! Every shape of a range, cut as a few of them were: regions compute what the model means, and are as few as a search
//! for the shape alone finds.

#![cfg(feature = "builder")]

use std::path::Path;

use rtrt_codegen::ir::{DType, Graph, HostTensor};
use rtrt_codegen::kernel::Arch;
use rtrt_codegen::ops::evaluate::to_vec;
use rtrt_codegen::ops::random::drawn;
use rtrt_codegen::pipeline::{self, Settings};
use rtrt_codegen::plan::lifetimes::Storage;
use rtrt_codegen::rewrite::{FusedGraph, run_fused};
use rtrt_codegen::specialize::{ShapeRange, Shapes, every_shape};
use rtrt_codegen::{ir, onnx, ops};

const ARCH: Arch = Arch {
    sm: 90,
    specific: true,
};

/// A transformer's block of two heads, for sequences of any length. Its norms are taken by the products from nine rows
/// on, and a head attends to itself alone where there is one row.
fn block() -> Graph {
    let text = "graph block(x: f16[1,length,32]) {
        h = add(mul(standardize[axes=[2], epsilon=1e-5](x), f16[32]{0.9 ..}), f16[32]{0.1 ..})
        q = Transpose[perm=[0,2,1,3]](Reshape(matmul(h, f16[32,32]{0.11 ..}), i64[4]{0, -1, 2, 16}))
        k = Transpose[perm=[0,2,3,1]](Reshape(matmul(h, f16[32,32]{0.07 ..}), i64[4]{0, -1, 2, 16}))
        v = Transpose[perm=[0,2,1,3]](Reshape(matmul(h, f16[32,32]{0.05 ..}), i64[4]{0, -1, 2, 16}))
        p = softmax[axis=3](mul(matmul(q, k), f16[]{0.25}))
        a = Reshape(Transpose[perm=[0,2,1,3]](matmul(p, v)), i64[3]{0, -1, 32})
        r = add(x, matmul(a, f16[32,32]{0.03 ..}))
        n = add(mul(standardize[axes=[2], epsilon=1e-5](r), f16[32]{1.1 ..}), f16[32]{-0.1 ..})
        return add(r, matmul(gelu(add(matmul(n, f16[32,64]{0.04 ..}), f16[64]{0.2 ..})), f16[64,32]{0.02 ..})) as \"y\"
      }";
    ir::text::parse(text, &|name| ops::lookup(name).map(|def| def.name)).unwrap()
}

fn model(path: &str) -> Graph {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    onnx::import_file(&path).unwrap().graph
}

/// Shapes from 1 to `most`, the usual one first.
fn range(graph: &Graph, shape: impl Fn(usize) -> Shapes, usual: usize, most: usize) -> Vec<Shapes> {
    let range = ShapeRange {
        min: shape(1),
        opt: shape(usual),
        max: shape(most),
    };
    every_shape(graph, &range, most).unwrap()
}

fn inputs_of(fused: &FusedGraph) -> Vec<HostTensor> {
    let types = fused.inputs.iter().map(|(_, id)| &fused.tensor(*id).ty);
    types.map(|ty| drawn(ty, 5)).collect()
}

/// Checks the regions of all shapes, and gives them by shape, those of the layout that is predicted fastest first.
fn checked(graph: &Graph, shapes: &[Shapes], settings: &Settings, tolerance: f64) -> Vec<FusedGraph> {
    let all = pipeline::regions_of_range(graph, shapes, ARCH, settings).unwrap();
    assert!(!all.is_empty() && all.len().is_multiple_of(shapes.len()));
    for (fused, shapes) in all.iter().zip(shapes.iter().cycle()) {
        let inputs = inputs_of(fused);
        assert_eq!(inputs[0].dims(), shapes[0].1);
        let wanted = pipeline::run_reference(graph, &inputs, &settings.in_f32()).unwrap();
        let found = run_fused(fused, &inputs).unwrap();
        for (found, wanted) in found.iter().zip(&wanted) {
            assert_eq!(found.ty(), wanted.ty());
            let (found, wanted): (Vec<f64>, Vec<f64>) = (to_vec(found), to_vec(wanted));
            let off = found
                .iter()
                .zip(&wanted)
                .map(|(a, b)| (a - b) * (a - b))
                .sum::<f64>();
            let size = wanted.iter().map(|b| b * b).sum::<f64>();
            assert!(
                off.sqrt() <= tolerance * size.sqrt(),
                "{shapes:?}: {off} of {size}"
            );
        }
    }
    all
}

#[test]
fn every_length_of_a_block_computes_what_it_means_in_no_more_launches() {
    let graph = block();
    let shape = |length: usize| vec![("x".to_owned(), vec![1, length, 32])];
    let shapes = range(&graph, shape, 24, 40);
    let settings = Settings::stored_in(DType::F16);
    let all = checked(&graph, &shapes, &settings, 1e-2);
    let mut n_launches = Vec::new();
    for (fused, shapes) in all.iter().zip(&shapes) {
        let alone = Settings {
            shapes: shapes.clone(),
            ..settings.clone()
        };
        let core = pipeline::lower(&graph, &alone).unwrap();
        let searched = pipeline::regions(&core, ARCH, &settings).unwrap();
        let steps = |fused: &FusedGraph| Storage::of(fused).steps.len();
        assert!(steps(fused) <= steps(&searched), "{shapes:?}");
        n_launches.push(steps(fused));
    }
    // The shapes of this range are not all cut alike.
    n_launches.sort_unstable();
    n_launches.dedup();
    assert!(n_launches.len() > 1, "{n_launches:?}");
}

#[test]
fn every_batch_of_pictures_computes_what_the_model_means() {
    let shape = |batch: usize| vec![("image".to_owned(), vec![batch, 1, 8, 8])];
    for (path, kind, tolerance) in [
        ("tests/models/digits/model.onnx", DType::F32, 1e-5),
        ("tests/precision/vit.onnx", DType::F16, 1e-2),
    ] {
        let graph = model(path);
        let shapes = range(&graph, shape, 8, 12);
        checked(&graph, &shapes, &Settings::stored_in(kind), tolerance);
    }
}
