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
        let Some(other) = in_strips(&graph, value, n) else {
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

fn window(strides: usize, pads: usize) -> Attrs {
    Attrs::new()
        .with("strides", ints_attr(&[strides, strides]))
        .with("pads", ints_attr(&[pads; 4]))
        .with("dilations", ints_attr(&[1, 1]))
}

/// An expansion, a convolution of every channel alone, or a pooling, of it, and what follows.
fn pictures(strides: usize, pads: usize, pools: bool) -> (GraphBuilder, ValueId) {
    let mut builder = GraphBuilder::new("pictures", 5);
    let x = builder.input(&[1, 3, 13, 11]);
    let w = builder.weight(&[6, 3, 1, 1]);
    let wide = builder.op("conv", &[x, w], window(1, 0));
    let gate = builder.plain("sigmoid", &[wide]);
    let wide = builder.plain("mul", &[wide, gate]);
    builder.graph.value_mut(wide).name = "wide".to_owned();
    let narrow = if pools {
        let attrs = window(strides, pads).with("kernel_shape", ints_attr(&[3, 3]));
        builder.op("max_pool", &[wide], attrs)
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
    for (strides, pads, pools) in [
        (1, 1, false),
        (2, 1, false),
        (2, 0, true),
        (1, 1, true),
        (3, 1, false),
    ] {
        for n in [2, 3, 5] {
            let (mut builder, wide) = pictures(strides, pads, pools);
            let inputs = builder.inputs();
            let Some(cut) = in_strips(&builder.graph, wide, n) else {
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
        assert!(in_strips(&builder.graph, value, 2).is_none());
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
    assert!(in_strips(&builder.graph, doubled, 4).is_none());
}
