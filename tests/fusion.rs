//! Blocks of real networks as text, and the regions they become: which mechanisms must work
//! together, and that the meaning stays.

#![cfg(feature = "builder")]

use rtrt_codegen::ir::{Graph, HostTensor};
use rtrt_codegen::ops::evaluate::to_vec;
use rtrt_codegen::ops::random::drawn;
use rtrt_codegen::ops::samples::Draw;
use rtrt_codegen::rewrite::canonicalize::canonicalize_counting;
use rtrt_codegen::rewrite::run_fused;
use rtrt_codegen::rewrite::{DeviceRates, FusedGraph, RegionKind, RuleSet, fuse_canonical};
use rtrt_codegen::{ir, ops, reference, specialize};

/// A static graph from text.
fn parsed(text: &str) -> Graph {
    let graph = ir::text::parse(text, &|name| ops::lookup(name).map(|def| def.name)).unwrap();
    let bindings = specialize::bind(&graph, &[]).unwrap();
    specialize::specialize(&graph, &bindings).unwrap()
}

/// Fuses, checks that `rules` fired and that outputs stay, and gives the regions.
fn fused(text: &str, rules: &[&str]) -> FusedGraph {
    fused_within(text, rules, 1e-4)
}

/// The same, for outputs that may move by `tolerance` of one and of themselves.
fn fused_within(text: &str, rules: &[&str], tolerance: f64) -> FusedGraph {
    let graph = parsed(text);
    let (canonical, fired) = canonicalize_counting(&graph, RuleSet::builtin());
    for rule in rules {
        assert!(fired.contains_key(*rule), "`{rule}` did not fire, but {fired:?}");
    }
    let fused = fuse_canonical(&canonical, RuleSet::builtin(), DeviceRates::for_sm(90)).unwrap();
    let mut draw = Draw::new(7);
    let inputs: Vec<HostTensor> = graph
        .inputs
        .iter()
        .map(|&input| draw.tensor(graph.ty(input).dtype, &graph.ty(input).dims()))
        .collect();
    let expected = reference::run(&graph, &inputs).unwrap();
    let found = run_fused(&fused, &inputs).unwrap();
    for (expected, found) in expected.iter().zip(&found) {
        assert_eq!(expected.ty(), found.ty());
        for (expected, found) in to_vec::<f64>(expected).iter().zip(to_vec::<f64>(found)) {
            assert!(
                (expected - found).abs() <= tolerance * (1.0 + expected.abs()),
                "{found}, expected {expected}"
            );
        }
    }
    fused
}

fn kinds(fused: &FusedGraph) -> Vec<RegionKind> {
    fused.regions.iter().map(|region| region.kind).collect()
}

#[test]
fn a_group_norm_between_convolutions_turns_nothing() {
    let fused = fused(
        "graph g(x: f32[1,8,6,6], a: f32[8,8,3,3], b: f32[8,8,3,3]) {
           y = conv[strides=[1,1], pads=[1,1,1,1], dilations=[1,1]](x, a)
           s = standardize[axes=[2], epsilon=1e-5](reshape[shape=[1,4,72]](y))
           z = relu(reshape[shape=[1,8,6,6]](s))
           return conv[strides=[1,1], pads=[1,1,1,1], dilations=[1,1]](z, b) as \"y\"
         }",
        &["sink_through_group_normalisation"],
    );
    let norm = fused
        .regions
        .iter()
        .find(|region| region.body.nodes.iter().any(|node| node.op == "standardize"))
        .unwrap();
    assert!(
        norm.body.nodes.iter().all(|node| node.op != "transpose"),
        "{norm:?}"
    );
}

#[test]
fn a_residual_block_of_convolutions_is_its_convolutions() {
    let fused = fused(
        "graph g(x: f32[1,8,6,6], a: f32[8,8,3,3], b: f32[8,8,3,3]) {
           y = relu(conv[strides=[1,1], pads=[1,1,1,1], dilations=[1,1]](x, a))
           z = conv[strides=[1,1], pads=[1,1,1,1], dilations=[1,1]](y, b)
           return relu(add(z, y)) as \"y\"
         }",
        &["conv_channels_last", "sink_through_map"],
    );
    let windows = kinds(&fused)
        .iter()
        .filter(|kind| **kind == RegionKind::Window)
        .count();
    assert_eq!(windows, 2);
    // The transposes of the image and of the result are part of the convolutions; those of the
    // filters, which are inputs here, are not.
    assert!(fused.regions.len() <= 4, "{:?}", kinds(&fused));
}

#[test]
fn squeeze_and_excite_is_four_kernels_beside_its_convolution() {
    let fused = fused(
        "graph g(x: f32[1,16,5,5]) {
           m = reduce_mean[axes=[2,3]](x)
           h = relu(conv[strides=[1,1], pads=[0,0,0,0], dilations=[1,1]](m, f32[4,16,1,1]{0.5 ..}, f32[4]{0.1 ..}))
           g = hard_sigmoid(conv[strides=[1,1], pads=[0,0,0,0], dilations=[1,1]](h, f32[16,4,1,1]{0.25 ..}, f32[16]{0.2 ..}))
           return mul(x, g) as \"y\"
         }",
        &["conv_of_points"],
    );
    assert_eq!(fused.regions.len(), 4, "{:?}", kinds(&fused));
    let dots = kinds(&fused)
        .iter()
        .filter(|kind| **kind == RegionKind::Dot)
        .count();
    assert_eq!(dots, 2);
}

/// Both operands scaled by the root, keys transposed through a batch of heads, a mask by
/// selection and a guard against rows that see nothing.
#[test]
fn guarded_attention_is_one_kernel() {
    let fused = fused(
        "graph g(q: f32[1,6,8], k: f32[1,6,8], v: f32[1,6,8], mask: bool[1,1,6,6]) {
           qh = transpose[perm=[0,2,1,3]](reshape[shape=[1,6,2,4]](q))
           kh = transpose[perm=[0,2,1,3]](reshape[shape=[1,6,2,4]](k))
           vh = transpose[perm=[0,2,1,3]](reshape[shape=[1,6,2,4]](v))
           kt = reshape[shape=[1,2,4,6]](transpose[perm=[0,2,1]](reshape[shape=[2,6,4]](kh)))
           s = matmul(mul(qh, f32[]{0.5}), mul(kt, f32[]{0.5}))
           w = softmax[axis=3](add(s, where(mask, f32[]{0.0}, f32[]{-3.4e38})))
           p = matmul(where(is_nan(w), f32[]{0.0}, w), vh)
           return reshape[shape=[1,6,8]](transpose[perm=[0,2,1,3]](p)) as \"y\"
         }",
        &[
            "guarded_attention_biased",
            "scale_of_query",
            "scale_of_key_behind_view",
        ],
    );
    assert_eq!(kinds(&fused), [RegionKind::Attention]);
}

/// The product could not copy tiles of the transposed heads: attention stores them in its order.
#[test]
fn heads_are_stored_as_the_product_behind_them_reads() {
    let fused = fused(
        "graph g(q: f32[1,4,12,8], k: f32[1,4,12,8], v: f32[1,4,12,8], r: f32[12,16]) {
           s = mul(matmul(q, transpose[perm=[0,1,3,2]](k)), f32[]{0.25})
           p = transpose[perm=[0,2,1,3]](matmul(softmax[axis=3](s), v))
           y = add(matmul(reshape[shape=[12,32]](p), f32[32,16]{0.5 ..}), r)
           return y as \"y\"
         }",
        &["attention_scaled"],
    );
    assert_eq!(kinds(&fused), [RegionKind::Attention, RegionKind::Dot]);
    let is_transposed = |number: usize| {
        let nodes = &fused.regions[number].body.nodes;
        nodes.iter().any(|node| node.op == "transpose")
    };
    assert!(is_transposed(0) && !is_transposed(1));
}

#[test]
fn heads_that_share_keys_are_not_repeated() {
    let fused = fused(
        "graph g(q: f32[1,4,6,8], k: f32[1,2,6,8], v: f32[1,2,6,8]) {
           kr = reshape[shape=[1,4,6,8]](expand[shape=[1,2,2,6,8]](reshape[shape=[1,2,1,6,8]](k)))
           vr = reshape[shape=[1,4,6,8]](expand[shape=[1,2,2,6,8]](reshape[shape=[1,2,1,6,8]](v)))
           s = mul(matmul(q, transpose[perm=[0,1,3,2]](kr)), f32[]{0.25})
           return matmul(softmax[axis=3](s), vr) as \"y\"
         }",
        &["attention_scaled", "repeated_heads"],
    );
    assert_eq!(kinds(&fused), [RegionKind::Attention]);
    assert!(fused.regions[0].body.nodes.iter().all(|node| node.op != "expand"));
}

#[test]
fn branches_over_one_picture_are_joined() {
    let fused = fused(
        "graph g(x: f32[1,64,16,16]) {
           a = relu(conv[strides=[1,1], pads=[0,0,0,0], dilations=[1,1]](x, f32[16,64,1,1]{0.5 ..}, f32[16]{0.1 ..}))
           b = relu(conv[strides=[1,1], pads=[0,0,0,0], dilations=[1,1]](x, f32[8,64,1,1]{0.25 ..}, f32[8]{0.2 ..}))
           y = conv[strides=[1,1], pads=[1,1,1,1], dilations=[1,1]](a, f32[8,16,3,3]{0.5 ..})
           z = conv[strides=[1,1], pads=[1,1,1,1], dilations=[1,1]](b, f32[8,8,3,3]{0.5 ..})
           return y as \"y\", z as \"z\"
         }",
        &["conv_of_points"],
    );
    assert_eq!(fused.regions.len(), 3, "{:?}", kinds(&fused));
    let rules: Vec<&str> = fused.regions[0]
        .rules
        .iter()
        .map(|rule| rule.name.as_str())
        .collect();
    assert!(rules.contains(&"join_activated"), "{rules:?}");
}

#[test]
fn upsampling_by_product_stores_in_place() {
    let fused = fused(
        "graph g(x: f32[1,8,4,4]) {
           y = conv_transpose[strides=[2,2], pads=[0,0,0,0], dilations=[1,1], output_padding=[0,0]](
             x, f32[8,4,2,2]{0.5 ..}, f32[4]{0.1 ..})
           return relu(y) as \"y\"
         }",
        &["upsample_by_product"],
    );
    assert_eq!(kinds(&fused), [RegionKind::Dot]);
}

/// A layer of a transformer without its attention; `residual` is added to its result.
fn layer(residual: &str) -> FusedGraph {
    let text = format!(
        "graph g(x: f16[1,16,32]) {{
           s = standardize[axes=[2], epsilon=1e-5](x)
           n = add(mul(s, f16[32]{{1.5 ..}}), f16[32]{{0.25 ..}})
           h = relu(matmul(n, f16[32,64]{{0.02 ..}}))
           return add(matmul(h, f16[64,32]{{0.03 ..}}), {residual}) as \"y\"
         }}"
    );
    fused_within(&text, &["flatten_rows"], 4e-3)
}

/// The norm is a factor of the first product, which takes the statistics of its rows.
#[test]
fn a_norm_before_a_product_is_no_kernel() {
    let fused = layer("x");
    assert_eq!(kinds(&fused), [RegionKind::Dot, RegionKind::Dot]);
    assert_eq!(fused.regions[0].outputs.len(), 1);
}

/// Where the residual is normalised, too, the first product writes what that takes.
#[test]
fn a_norm_of_a_residual_is_no_kernel() {
    let fused = layer("n");
    assert_eq!(kinds(&fused), [RegionKind::Dot, RegionKind::Dot]);
    assert_eq!(fused.regions[0].outputs.len(), 3);
}

/// A layer behind a product with a residual, whose `rows` of `columns` it normalises.
fn layer_behind_product(rows: usize, columns: usize) -> FusedGraph {
    let text = format!(
        "graph g(x: f16[1,{rows},{columns}]) {{
           r = add(matmul(x, f16[{columns},{columns}]{{0.02 ..}}), x)
           s = standardize[axes=[2], epsilon=1e-12](r)
           n = add(mul(s, f16[{columns}]{{1.5 ..}}), f16[{columns}]{{0.25 ..}})
           h = relu(matmul(n, f16[{columns},64]{{0.02 ..}}))
           return add(matmul(h, f16[64,{columns}]{{0.03 ..}}), n) as \"y\"
         }}"
    );
    fused_within(&text, &["flatten_rows"], 4e-3)
}

fn n_outputs(fused: &FusedGraph) -> Vec<usize> {
    fused.regions.iter().map(|region| region.outputs.len()).collect()
}

/// The product that stores the rows has them at hand: it stores sums of them, of which the next one makes the statistics.
#[test]
fn sums_of_rows_come_with_the_rows() {
    let fused = layer_behind_product(16, 32);
    assert_eq!(kinds(&fused), [RegionKind::Dot; 3]);
    assert_eq!(n_outputs(&fused), [2, 3, 1]);
    let sums = fused.regions[0].outputs[1];
    assert_eq!(fused.tensor(sums).ty.dims(), [16, 2, 2]);
    assert!(fused.regions[1].inputs.contains(&sums));
    let ops = fused.regions[1].body.nodes.iter().map(|node| node.op);
    let is_statistic = |op: &str| op == "inverse_deviation" || op == "reduce_mean";
    assert_eq!(ops.filter(|op| is_statistic(op)).count(), 0);
}

/// Variants are compared on drawn operands, and sums that no rows have must not drown all else.
#[test]
fn drawn_sums_of_rows_make_no_infinite_factors() {
    let fused = layer_behind_product(16, 32);
    let body = &fused.regions[1].body;
    let types = body.inputs.iter().zip(1..);
    let operands: Vec<HostTensor> = types.map(|(&input, seed)| drawn(body.ty(input), seed)).collect();
    for result in reference::run(body, &operands).unwrap() {
        let most = to_vec::<f64>(&result)
            .into_iter()
            .map(f64::abs)
            .fold(0.0, f64::max);
        assert!(most < 1e4, "{} holds {most}", result.ty());
    }
}

/// Few rows are for kernels of vectors, and only whole strips are summed.
#[test]
fn sums_of_few_rows_or_broken_strips_are_taken_where_they_are_read() {
    for (rows, columns) in [(4, 32), (16, 24)] {
        let fused = layer_behind_product(rows, columns);
        assert_eq!(n_outputs(&fused)[0], 1, "{rows} x {columns}");
    }
}

/// Halves hide keys by the lowest number of theirs, which a sum would not absorb.
#[test]
fn attention_of_halves_masked_by_selection_is_one_kernel() {
    let fused = fused_within(
        "graph g(q: f16[1,2,6,8], k: f16[1,2,8,6], v: f16[1,2,6,8], mask: bool[1,1,6,6]) {
           s = mul(matmul(q, k), f16[]{0.5})
           w = softmax[axis=3](where(mask, s, f16[]{-65504.0}))
           return matmul(w, v) as \"y\"
         }",
        &["masked_softmax_of_halves_keeps", "attention_scaled_biased_in_f32"],
        4e-3,
    );
    assert_eq!(kinds(&fused), [RegionKind::Attention]);
}

/// The scale of channels is a part of the product that follows it.
#[test]
fn squeeze_and_excite_scales_in_the_product_behind_it() {
    let fused = fused_within(
        "graph g(i: f16[1,16,7,7]) {
           x = conv[strides=[1,1], pads=[0,0,0,0], dilations=[1,1]](i, f16[16,16,3,3]{0.01 ..}, f16[16]{0.1 ..})
           m = reduce_mean[axes=[2,3]](x)
           h = relu(conv[strides=[1,1], pads=[0,0,0,0], dilations=[1,1]](m, f16[4,16,1,1]{0.5 ..}, f16[4]{0.1 ..}))
           g = hard_sigmoid(conv[strides=[1,1], pads=[0,0,0,0], dilations=[1,1]](h, f16[16,4,1,1]{0.25 ..}, f16[16]{0.2 ..}))
           y = conv[strides=[1,1], pads=[0,0,0,0], dilations=[1,1]](mul(x, g), f16[8,16,1,1]{0.25 ..}, f16[8]{0.2 ..})
           return y as \"y\"
         }",
        &["conv_of_points"],
        4e-3,
    );
    let dots = kinds(&fused).into_iter().filter(|kind| *kind == RegionKind::Dot);
    assert_eq!(dots.count(), 3);
    let scaled = fused.regions.iter().filter(|region| {
        let ops: Vec<&str> = region.body.nodes.iter().map(|node| node.op).collect();
        ops.contains(&"mul") && ops.contains(&"matmul")
    });
    assert_eq!(scaled.count(), 1);
}

/// A U: what goes down is kept for the way up, and pooled, too.
#[test]
fn a_skip_connection_is_no_kernel() {
    let fused = fused(
        "graph g(x: f32[1,8,8,8], a: f32[16,8,3,3], b: f32[16,16,3,3], c: f32[8,32,3,3], u: f32[16,16,2,2]) {
           s = relu(conv[strides=[1,1], pads=[1,1,1,1], dilations=[1,1]](x, a))
           p = max_pool[kernel_shape=[2,2], strides=[2,2], pads=[0,0,0,0], dilations=[1,1]](s)
           h = relu(conv[strides=[1,1], pads=[1,1,1,1], dilations=[1,1]](p, b))
           up = conv_transpose[strides=[2,2], pads=[0,0,0,0], dilations=[1,1], output_padding=[0,0]](h, u)
           return conv[strides=[1,1], pads=[1,1,1,1], dilations=[1,1]](concat[axis=1](s, up), c) as \"y\"
         }",
        &["conv_channels_last"],
    );
    assert_eq!(n_concatenations(&fused), 0, "{:?}", kinds(&fused));
    let boxes: usize = fused.regions.iter().map(|region| region.placements.len()).sum();
    assert_eq!(boxes, 2);
}

/// A bottleneck of YOLO: both halves of a split, and what a chain makes of the second.
#[test]
fn split_halves_and_what_follows_them_are_joined_in_place() {
    let fused = fused(
        "graph g(x: f32[1,16,4,4]) {
           t = swish(conv[strides=[1,1], pads=[0,0,0,0], dilations=[1,1]](x, f32[32,16,1,1]{0.1 ..}))
           a = slice[starts=[0,0,0,0], ends=[1,16,4,4], steps=[1,1,1,1]](t)
           b = slice[starts=[0,16,0,0], ends=[1,32,4,4], steps=[1,1,1,1]](t)
           h = swish(conv[strides=[1,1], pads=[1,1,1,1], dilations=[1,1]](b, f32[16,16,3,3]{0.02 ..}))
           c = add(b, swish(conv[strides=[1,1], pads=[1,1,1,1], dilations=[1,1]](h, f32[16,16,3,3]{0.01 ..})))
           return swish(conv[strides=[1,1], pads=[0,0,0,0], dilations=[1,1]](concat[axis=1](a, b, c), f32[8,48,1,1]{0.05 ..})) as \"y\"
         }",
        &["conv_channels_last"],
    );
    assert_eq!(n_concatenations(&fused), 0, "{:?}", kinds(&fused));
    let loops = kinds(&fused)
        .into_iter()
        .filter(|kind| *kind != RegionKind::Pointwise);
    assert_eq!(loops.count(), 4);
    assert!(fused.regions.len() <= 5, "{:?}", kinds(&fused));
}

fn n_concatenations(fused: &FusedGraph) -> usize {
    let nodes = fused.regions.iter().flat_map(|region| &region.body.nodes);
    nodes.filter(|node| node.op == "concat").count()
}
