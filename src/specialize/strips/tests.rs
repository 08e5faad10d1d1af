//! Values in strips compute what whole ones do.

use super::*;
use crate::ir::{Attr, Attrs, HostTensor};
use crate::ops::build::axis_attr;
use crate::ops::samples::ints_attr;
use crate::reference;
use crate::testing::builder::{GraphBuilder, drawn_graph, joined_graph};

/// The graph with each of its values in strips where that can be: how many could.
fn assert_same_in_strips(mut builder: GraphBuilder, n: usize) -> usize {
    let inputs = builder.inputs();
    let graph = builder.graph;
    let wanted = reference::run(&graph, &inputs).unwrap();
    let values: Vec<ValueId> = graph
        .nodes
        .iter()
        .flat_map(|node| &node.results)
        .copied()
        .collect();
    let mut n_cut = 0;
    for value in values {
        let Some(other) = in_strips(&graph, &[value], n) else {
            continue;
        };
        n_cut += 1;
        let found = reference::run(&other, &inputs).unwrap();
        for (found, wanted) in found.iter().zip(&wanted) {
            assert_close(
                found,
                wanted,
                &format!("{value} of `{}` in {n} strips", graph.name),
            );
        }
        let name = &graph.value(value).name;
        assert!(name.is_empty() || other.values.iter().all(|own| own.name != *name));
    }
    n_cut
}

fn assert_close(found: &HostTensor, wanted: &HostTensor, case: &str) {
    assert_eq!(found.dims(), wanted.dims(), "{case}");
    let pairs = found.as_slice::<f32>().iter().zip(wanted.as_slice::<f32>());
    for (a, b) in pairs {
        assert!((a - b).abs() <= 1e-4 * (1.0 + b.abs()), "{case}: {a} is not {b}");
    }
}

#[test]
fn drawn_graphs_compute_the_same_in_strips() {
    let mut n_cut = 0;
    for seed in 0..60 {
        n_cut += assert_same_in_strips(drawn_graph(14, seed), 2 + usize::try_from(seed % 2).unwrap());
        n_cut += assert_same_in_strips(joined_graph(14, seed), 2);
    }
    assert!(n_cut > 300, "{n_cut} values were cut");
}

/// The graph with pairs of its values in strips together: how many could be.
fn assert_same_in_strips_together(mut builder: GraphBuilder, seed: usize) -> usize {
    let inputs = builder.inputs();
    let graph = builder.graph;
    let wanted = reference::run(&graph, &inputs).unwrap();
    let values: Vec<ValueId> = graph.nodes.iter().map(|node| node.results[0]).collect();
    let mut n_cut = 0;
    for (number, &value) in values.iter().enumerate() {
        let other = values[(number + 1 + seed % 4) % values.len()];
        let Some(cut) = in_strips(&graph, &[value, other], 2) else {
            continue;
        };
        n_cut += 1;
        let found = reference::run(&cut, &inputs).unwrap();
        for (found, wanted) in found.iter().zip(&wanted) {
            assert_close(found, wanted, &format!("{value} and {other}, seed {seed}"));
        }
    }
    n_cut
}

#[test]
fn several_values_are_in_strips_together() {
    let n_cut = (0..40).map(|seed| {
        let drawn = drawn_graph(14, u64::try_from(seed).unwrap());
        assert_same_in_strips_together(drawn, seed)
    });
    let n_cut: usize = n_cut.sum();
    assert!(n_cut > 100, "{n_cut} pairs were cut");
}

/// A convolution as a product of rows, as rules make of those of single cells, and one of windows behind it.
#[test]
fn strips_go_on_through_other_shapes_of_the_same_elements() {
    let mut builder = GraphBuilder::new("rows", 3);
    let x = builder.input(&[64, 6]);
    let w = builder.weight(&[6, 8]);
    let rows = builder.plain("matmul", &[x, w]);
    let reshaped = |dims: &[usize]| Attrs::new().with("shape", ints_attr(dims));
    let picture = builder.op("reshape", &[rows], reshaped(&[1, 8, 8, 8]));
    builder.graph.value_mut(picture).name = "picture".to_owned();
    let w = builder.weight(&[4, 3, 3, 8]);
    let filtered = builder.op("conv_nhwc", &[picture, w], window(1, 1));
    let rows = builder.op("reshape", &[filtered], reshaped(&[64, 4]));
    builder.output(rows);
    let inputs = builder.inputs();
    let wanted = reference::run(&builder.graph, &inputs).unwrap();
    let cut = in_strips(&builder.graph, &[picture, filtered], 4).unwrap();
    assert_close(&reference::run(&cut, &inputs).unwrap()[0], &wanted[0], "4 strips");
    // Of 8 rows of pixels two and their neighbours.
    let products = cut.nodes.iter().filter(|node| node.op == "matmul");
    for product in products {
        assert!(cut.ty(product.results[0]).dims()[0] <= 4 * 8);
    }
    // A third of the rows at the end is no whole number of rows of pixels.
    assert!(in_strips(&builder.graph, &[filtered], 3).is_none());
}

fn window(strides: usize, pads: usize) -> Attrs {
    Attrs::new()
        .with("strides", ints_attr(&[strides, strides]))
        .with("pads", ints_attr(&[pads; 4]))
        .with("dilations", ints_attr(&[1, 1]))
}

/// An expansion, a convolution of every channel alone, or a pooling, of it, and what follows.
fn pictures(strides: usize, pads: usize, pool: Option<&'static str>) -> (GraphBuilder, ValueId) {
    let mut builder = GraphBuilder::new("pictures", 5);
    let x = builder.input(&[1, 3, 13, 11]);
    let w = builder.weight(&[6, 3, 1, 1]);
    let wide = builder.op("conv", &[x, w], window(1, 0));
    let gate = builder.plain("sigmoid", &[wide]);
    let wide = builder.plain("mul", &[wide, gate]);
    builder.graph.value_mut(wide).name = "wide".to_owned();
    let narrow = if let Some(pool) = pool {
        let attrs = window(strides, pads).with("kernel_shape", ints_attr(&[3, 3]));
        builder.op(pool, &[wide], attrs)
    } else {
        let w = builder.weight(&[6, 1, 3, 3]);
        let attrs = window(strides, pads).with("group", Attr::Int(6));
        builder.op("conv", &[wide, w], attrs)
    };
    let bias = builder.weight(&[6, 1, 1]);
    let narrow = builder.plain("add", &[narrow, bias]);
    builder.output(narrow);
    (builder, wide)
}

#[test]
fn strips_of_pictures_overlap_by_windows() {
    for (strides, pads, pool) in [
        (1, 1, None),
        (2, 1, None),
        (2, 0, Some("max_pool")),
        (1, 1, Some("max_pool")),
        (1, 1, Some("avg_pool")),
        (3, 1, None),
    ] {
        for n in [2, 3, 5] {
            let (mut builder, wide) = pictures(strides, pads, pool);
            let inputs = builder.inputs();
            let Some(cut) = in_strips(&builder.graph, &[wide], n) else {
                let height = builder.graph.ty(builder.graph.outputs[0]).dims()[2];
                assert!(height < 2 * n, "{height} rows in {n} strips");
                continue;
            };
            let wanted = reference::run(&builder.graph, &inputs).unwrap();
            let found = reference::run(&cut, &inputs).unwrap();
            assert_close(&found[0], &wanted[0], &format!("strides {strides}, {n} strips"));
            // Along the height, or for poolings along the channels.
            let most = builder.graph.ty(wide).n_elements() * (13_usize.div_ceil(n) + 3) / 13;
            for value in cut.values.iter().filter(|value| value.name.starts_with("wide")) {
                let n_elements = value.ty.as_ref().unwrap().n_elements();
                assert!(n_elements <= most, "{n_elements} in {n} strips");
            }
        }
    }
}

#[test]
fn what_is_read_across_stays_whole() {
    let mut builder = GraphBuilder::new("across", 1);
    let x = builder.input(&[1, 16]);
    let w = builder.weight(&[16, 32]);
    let hidden = builder.plain("matmul", &[x, w]);
    let all = builder.op("softmax", &[hidden], axis_attr(1));
    builder.output(all);
    for value in [x, w, hidden, all] {
        assert!(in_strips(&builder.graph, &[value], 2).is_none());
    }
}

#[test]
fn elements_that_know_where_they_are_stay_whole() {
    let mut builder = GraphBuilder::new("sums", 1);
    let x = builder.input(&[8, 4]);
    let doubled = builder.plain("add", &[x, x]);
    let sums = builder.op("cum_sum", &[doubled], axis_attr(0));
    builder.output(sums);
    // Only the other axis could be cut, which has too few elements.
    assert!(in_strips(&builder.graph, &[doubled], 4).is_none());
}
