//! What becomes rows, columns and batches.

use std::collections::{BTreeMap, BTreeSet};

use super::{Contraction, N, Sizes};
use crate::ir::{Attr, Attrs, DType, Graph, TensorType, ValueId};
use crate::kernel::spec::{KernelOptions, KernelSpec};
use crate::ops::{self, NEWEST_OPSET};
use crate::rewrite::RegionKind;
use crate::tile::{Expr, Extent};

struct Build(Graph);

impl Build {
    fn input(&mut self, dims: &[usize]) -> ValueId {
        self.0.add_input("", Some(TensorType::new(DType::F16, dims)))
    }

    fn op(&mut self, op: &'static str, operands: &[ValueId], attrs: Attrs) -> ValueId {
        let operands = operands.iter().copied().map(Some).collect();
        ops::emit(&mut self.0, op, operands, attrs, 1, NEWEST_OPSET, &[]).unwrap()[0]
    }

    fn contraction(mut self, kind: RegionKind, output: ValueId) -> Option<Contraction> {
        self.0.add_output("y", output);
        Contraction::of(&KernelSpec {
            kind,
            body: self.0,
            options: KernelOptions::default(),
            placements: BTreeMap::new(),
            weights: BTreeSet::new(),
        })
    }
}

fn ints(name: &str, values: &[i64]) -> Attrs {
    Attrs::new().with(name, Attr::Ints(values.to_vec()))
}

#[test]
fn axes_are_rows_columns_or_batches_by_what_depends_on_them() {
    let sizes = |a: &[usize], b: &[usize]| {
        let mut build = Build(Graph::new("region"));
        let (a, b) = (build.input(a), build.input(b));
        let y = build.op("matmul", &[a, b], Attrs::new());
        let Sizes { batch, m, n, k } = build.contraction(RegionKind::Dot, y).unwrap().sizes;
        [batch, m, n, k]
    };
    assert_eq!(sizes(&[5, 7], &[7, 3]), [1, 5, 3, 7]);
    assert_eq!(sizes(&[2, 4, 5, 7], &[2, 4, 7, 3]), [8, 5, 3, 7]);
    assert_eq!(sizes(&[2, 4, 5, 7], &[7, 3]), [1, 40, 3, 7]);
    assert_eq!(sizes(&[5, 7], &[6, 7, 3]), [1, 5, 18, 7]);
}

#[test]
fn operands_change_places_where_the_output_is_contiguous_along_rows() {
    let mut build = Build(Graph::new("region"));
    let (a, b) = (build.input(&[5, 7]), build.input(&[7, 3]));
    let y = build.op("matmul", &[a, b], Attrs::new());
    let y = build.op("transpose", &[y], ints("perm", &[1, 0]));
    let turned = build.contraction(RegionKind::Dot, y).unwrap();
    assert_eq!((turned.sizes.m, turned.sizes.n), (3, 5));
    assert_eq!(turned.places[0].stride_of(N), Some(Extent::known(1)));
}

#[test]
fn split_heads_are_a_place_to_store_to() {
    let mut build = Build(Graph::new("region"));
    let (a, b) = (build.input(&[2, 16, 64]), build.input(&[64, 64]));
    let y = build.op("matmul", &[a, b], Attrs::new());
    let y = build.op("reshape", &[y], ints("shape", &[2, 16, 4, 16]));
    let y = build.op("transpose", &[y], ints("perm", &[0, 2, 1, 3]));
    let found = build.contraction(RegionKind::Dot, y).unwrap();
    assert_eq!(
        found.sizes,
        Sizes {
            batch: 1,
            m: 32,
            n: 64,
            k: 64
        }
    );
    // Both factors are plain loads: the views left nothing behind in them.
    assert!(matches!(found.body.expr(found.a), Expr::Load { .. }));
    assert!(matches!(found.body.expr(found.b), Expr::Load { .. }));
}

#[test]
fn a_convolution_in_groups_is_a_batch_of_products() {
    let conv = |group: i64, filter: &[usize]| {
        let mut build = Build(Graph::new("region"));
        let (x, w) = (build.input(&[2, 6, 5, 64]), build.input(filter));
        let attrs = ints("strides", &[1, 1])
            .with("pads", Attr::Ints(vec![1; 4]))
            .with("dilations", Attr::Ints(vec![1, 1]))
            .with("group", Attr::Int(group));
        let y = build.op("conv_nhwc", &[x, w], attrs);
        build.contraction(RegionKind::Window, y)
    };
    let dense = conv(1, &[48, 3, 3, 64]).unwrap().sizes;
    assert_eq!(
        dense,
        Sizes {
            batch: 1,
            m: 60,
            n: 48,
            k: 576
        }
    );
    let grouped = conv(2, &[48, 3, 3, 32]).unwrap().sizes;
    assert_eq!(
        grouped,
        Sizes {
            batch: 2,
            m: 60,
            n: 24,
            k: 288
        }
    );
    assert!(
        conv(64, &[64, 3, 3, 1]).is_none(),
        "depthwise is no matrix product"
    );
}
