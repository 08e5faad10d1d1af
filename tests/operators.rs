//! ONNX forms with worked examples, that they expand into ops that have generated code, and
//! the page of operators.

#![cfg(feature = "builder")]

use rtrt_codegen::ir::{Attr, Attrs, DType, Graph, HostTensor};
use rtrt_codegen::ops::evaluate::to_vec;
use rtrt_codegen::ops::samples::Draw;
use rtrt_codegen::ops::{self, Datum, InferCtx, NEWEST_OPSET, OPSET, OpDef, OpError};
use rtrt_codegen::reference;

/// A use of an operator. The operands in `data` are inputs of a compiled graph, the others
/// are constants.
#[derive(Clone)]
struct Use {
    op: &'static str,
    operands: Vec<Option<HostTensor>>,
    data: Vec<usize>,
    attrs: Attrs,
    n_results: usize,
}

fn node(op: &'static str, operands: Vec<HostTensor>) -> Use {
    Use {
        op,
        data: (0..operands.len()).collect(),
        operands: operands.into_iter().map(Some).collect(),
        attrs: Attrs::new().with(OPSET, Attr::Int(NEWEST_OPSET)),
        n_results: 1,
    }
}

impl Use {
    fn with(mut self, name: &str, attr: Attr) -> Self {
        self.attrs = self.attrs.with(name, attr);
        self
    }

    /// Operands that are data; the others are constants.
    fn data(mut self, data: &[usize]) -> Self {
        self.data = data.to_vec();
        self
    }

    fn results(mut self, n_results: usize) -> Self {
        self.n_results = n_results;
        self
    }

    /// The results, after a check that the op expands into ops with generated code.
    fn run(self) -> Vec<HostTensor> {
        self.check_expansion();
        self.check_extremes();
        self.eval()
    }

    fn eval(self) -> Vec<HostTensor> {
        let operands: Vec<_> = self
            .operands
            .into_iter()
            .map(|operand| operand.map(Datum::Tensor))
            .collect();
        let def = ops::lookup(self.op).expect("the op is listed");
        reference::eval_node(def, &self.attrs, &operands, self.n_results)
            .unwrap()
            .iter()
            .map(|datum| datum.tensor().unwrap().clone())
            .collect()
    }

    fn check_expansion(&self) {
        let graph = self.expanded().unwrap();
        for node in &graph.nodes {
            let def = ops::lookup(node.op).unwrap();
            assert!(def.lower.has_code(), "{} has no generated code", node.op);
        }
    }

    fn expanded(&self) -> Result<Graph, OpError> {
        let mut graph = Graph::new("expansion");
        let operands = self
            .operands
            .iter()
            .enumerate()
            .map(|(n, operand)| {
                operand.as_ref().map(|data| {
                    if self.data.contains(&n) {
                        graph.add_input(&format!("x{n}"), Some(data.ty()))
                    } else {
                        graph.add_weight("", data.clone())
                    }
                })
            })
            .collect();
        let (mut attrs, n) = (self.attrs.clone(), self.n_results);
        attrs.0.remove(OPSET);
        ops::emit(&mut graph, self.op, operands, attrs, n, NEWEST_OPSET, &[])?;
        Ok(graph)
    }

    /// Every whole number of an attribute or a constant becomes an extreme one in turn: an error or an expansion,
    /// and no panic.
    fn check_extremes(&self) {
        for (name, attr) in &self.attrs.0 {
            for extreme in extremes_of_attr(attr).filter(|_| name != OPSET) {
                let _ = Use {
                    attrs: self.attrs.clone().with(name, extreme),
                    ..self.clone()
                }
                .expanded();
            }
        }
        for (position, operand) in self.operands.iter().enumerate() {
            let constant = operand
                .as_ref()
                .filter(|data| data.dtype() == DType::I64 && !self.data.contains(&position));
            let values = constant.map_or_else(Vec::new, to_vec);
            for values in extremes_of(&values) {
                let mut changed = self.clone();
                let dims = operand.as_ref().map_or(&[][..], HostTensor::dims);
                changed.operands[position] = Some(HostTensor::from_i64(dims, &values));
                let _ = changed.expanded();
            }
        }
    }
}

const EXTREMES: [i64; 8] = [0, -1, 1 << 20, 1 << 31, 1 << 40, 1 << 62, i64::MAX, i64::MIN];

/// The numbers with one of them, and with all, made extreme.
fn extremes_of(values: &[i64]) -> impl Iterator<Item = Vec<i64>> + use<'_> {
    EXTREMES.iter().flat_map(move |&extreme| {
        let one = (0..values.len()).map(move |place| {
            let mut changed = values.to_vec();
            changed[place] = extreme;
            changed
        });
        let all = (values.len() > 1).then(|| vec![extreme; values.len()]);
        one.chain(all)
    })
}

fn extremes_of_attr(attr: &Attr) -> impl Iterator<Item = Attr> {
    let ints = match attr {
        Attr::Int(value) => vec![*value],
        Attr::Ints(values) => values.clone(),
        _ => Vec::new(),
    };
    let is_one = matches!(attr, Attr::Int(_));
    let changed: Vec<Vec<i64>> = extremes_of(&ints).collect();
    changed
        .into_iter()
        .filter(|values| !values.is_empty())
        .map(move |values| {
            if is_one {
                Attr::Int(values[0])
            } else {
                Attr::Ints(values)
            }
        })
}

fn floats(dims: &[usize], values: &[f32]) -> HostTensor {
    HostTensor::from_f32(dims, values)
}

fn ints(dims: &[usize], values: &[i64]) -> HostTensor {
    HostTensor::from_i64(dims, values)
}

fn text(value: &str) -> Attr {
    Attr::Str(value.to_owned())
}

#[track_caller]
fn close(found: &HostTensor, dims: &[usize], expected: &[f64]) {
    assert_eq!(found.dims(), dims);
    let found: Vec<f64> = to_vec(found);
    let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-5 * b.abs().max(1.0) || a == b;
    assert!(
        found.iter().zip(expected).all(near),
        "expected {expected:?}, found {found:?}"
    );
}

#[test]
fn top_k_keeps_the_order_of_ties() {
    let x = floats(&[1, 5], &[3.0, 1.0, f32::NAN, 2.0, 3.0]);
    let top = |largest| {
        node("TopK", vec![x.clone(), ints(&[1], &[3])])
            .data(&[0])
            .with("largest", Attr::Int(largest))
            .results(2)
            .run()
    };
    let largest = top(1);
    assert!(to_vec::<f64>(&largest[0])[0].is_nan());
    close(&largest[1], &[1, 3], &[2.0, 0.0, 4.0]);
    let smallest = top(0);
    close(&smallest[0], &[1, 3], &[1.0, 2.0, 3.0]);
    close(&smallest[1], &[1, 3], &[1.0, 3.0, 0.0]);
}

#[test]
fn losses_leave_out_what_is_ignored() {
    let log_prob = floats(&[3, 2], &[-1.0, -2.0, -3.0, -4.0, -5.0, -6.0]);
    let (target, weight) = (ints(&[3], &[1, -7, 0]), floats(&[2], &[1.0, 3.0]));
    let loss = |reduction: &str| {
        node(
            "NegativeLogLikelihoodLoss",
            vec![log_prob.clone(), target.clone(), weight.clone()],
        )
        .with("ignore_index", Attr::Int(-7))
        .with("reduction", text(reduction))
        .run()
    };
    close(&loss("none")[0], &[3], &[6.0, 0.0, 5.0]);
    close(&loss("sum")[0], &[], &[11.0]);
    close(&loss("mean")[0], &[], &[11.0 / 4.0]);
    let scores = floats(&[1, 2], &[0.0, 0.0]);
    let both = node("SoftmaxCrossEntropyLoss", vec![scores, ints(&[1], &[0])])
        .results(2)
        .run();
    close(&both[0], &[], &[2f64.ln()]);
    close(&both[1], &[1, 2], &[-(2f64.ln()), -(2f64.ln())]);
}

#[test]
fn grids_sample_between_and_beyond_pixels() {
    let image = floats(&[1, 1, 2, 2], &[1.0, 2.0, 3.0, 4.0]);
    // x before y: the middle, between the upper pixels, far to the left of the lower row.
    let grid = floats(&[1, 1, 3, 2], &[0.0, 0.0, 0.0, -1.0, -4.0, 1.0]);
    let sample = |mode: &str, padding: &str| {
        node("GridSample", vec![image.clone(), grid.clone()])
            .with("mode", text(mode))
            .with("padding_mode", text(padding))
            .with("align_corners", Attr::Int(1))
            .run()
            .remove(0)
    };
    close(&sample("linear", "zeros"), &[1, 1, 1, 3], &[2.5, 1.5, 0.0]);
    close(&sample("linear", "border"), &[1, 1, 1, 3], &[2.5, 1.5, 3.0]);
    // Pixel -1.5 is pixel 1.5, which is pixel 0.5.
    close(&sample("linear", "reflection"), &[1, 1, 1, 3], &[2.5, 1.5, 3.5]);
    close(&sample("nearest", "border"), &[1, 1, 1, 3], &[1.0, 1.0, 3.0]);
    // Halfway, Keys' cubic weighs neighbours -3/32, 19/32, 19/32, -3/32.
    close(&sample("cubic", "border"), &[1, 1, 1, 3], &[2.5, 1.5, 3.0]);
}

#[test]
fn an_identity_map_samples_the_pixels_themselves() {
    let theta = floats(&[1, 2, 3], &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
    let size = ints(&[4], &[1, 1, 2, 2]);
    let grid = node("AffineGrid", vec![theta, size]).data(&[0]).run();
    let expected = [-0.5, -0.5, 0.5, -0.5, -0.5, 0.5, 0.5, 0.5];
    close(&grid[0], &[1, 2, 2, 2], &expected);
}

#[test]
fn fourier_transforms_invert_each_other() {
    let x = floats(&[1, 4, 1], &[1.0, 2.0, 3.0, 4.0]);
    let axis = ints(&[], &[1]);
    let transform = |x: &HostTensor, inverse, onesided| {
        let mut node = node("DFT", vec![x.clone()]).data(&[0]);
        node.operands.extend([None, Some(axis.clone())]);
        node.with("inverse", Attr::Int(inverse))
            .with("onesided", Attr::Int(onesided))
            .run()
            .remove(0)
    };
    let spectrum = transform(&x, 0, 0);
    close(
        &spectrum,
        &[1, 4, 2],
        &[10.0, 0.0, -2.0, 2.0, -2.0, 0.0, -2.0, -2.0],
    );
    let back = transform(&spectrum, 1, 0);
    close(&back, &[1, 4, 2], &[1.0, 0.0, 2.0, 0.0, 3.0, 0.0, 4.0, 0.0]);
    let half = transform(&x, 0, 1);
    close(&half, &[1, 3, 2], &[10.0, 0.0, -2.0, 2.0, -2.0, 0.0]);
    close(&transform(&half, 1, 1), &[1, 4, 1], &[1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn short_transforms_see_one_frame_each() {
    let signal = floats(&[1, 4, 1], &[1.0, 2.0, 3.0, 4.0]);
    let window = floats(&[2], &[1.0, 0.5]);
    let frames = node("STFT", vec![signal, ints(&[], &[2]), window])
        .data(&[0, 2])
        .run();
    // (1, 1) and (3, 2): sum and difference.
    let expected = [2.0, 0.0, 0.0, 0.0, 5.0, 0.0, 1.0, 0.0];
    close(&frames[0], &[1, 2, 2, 2], &expected);
}

#[test]
fn windows_and_mel_weights_are_constants() {
    let size = ints(&[], &[4]);
    let hann = node("HannWindow", vec![size.clone()]).data(&[]).run();
    close(&hann[0], &[4], &[0.0, 0.5, 1.0, 0.5]);
    let hamming = node("HammingWindow", vec![size.clone()])
        .data(&[])
        .with("periodic", Attr::Int(0));
    close(
        &hamming.run()[0],
        &[4],
        &[0.086_957, 0.771_739, 0.771_739, 0.086_957],
    );
    let blackman = node("BlackmanWindow", vec![size]).data(&[]).run();
    close(&blackman[0], &[4], &[0.0, 0.34, 1.0, 0.34]);
    let operands = vec![
        ints(&[], &[2]),
        ints(&[], &[16]),
        ints(&[], &[8192]),
        floats(&[], &[0.0]),
        floats(&[], &[4096.0]),
    ];
    let mel = to_vec::<f64>(&node("MelWeightMatrix", operands).data(&[]).run()[0]);
    assert_eq!(mel.len(), 18);
    let peaks = [0, 1].map(|bin| mel.iter().skip(bin).step_by(2).copied().fold(0.0, f64::max));
    #[expect(clippy::cast_possible_truncation, reason = "peaks are one")]
    let peaks = peaks.map(|peak| peak as f32);
    close(&floats(&[2], &peaks), &[2], &[1.0, 1.0]);
}

#[test]
fn determinants_choose_their_pivots() {
    let x = floats(
        &[3, 2, 2],
        &[0.0, 2.0, 3.0, 4.0, 1.0, 2.0, 2.0, 4.0, 0.0, 0.0, 0.0, 1.0],
    );
    close(&node("Det", vec![x]).run()[0], &[3], &[-6.0, 0.0, 0.0]);
    let x = floats(&[3, 3], &[2.0, 0.0, 1.0, 1.0, 3.0, 2.0, 1.0, 1.0, 4.0]);
    close(&node("Det", vec![x]).run()[0], &[], &[18.0]);
}

#[test]
fn blocks_add_up_where_they_overlap() {
    let x = floats(&[1, 2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let image = node("Col2Im", vec![x, ints(&[2], &[1, 3]), ints(&[2], &[1, 2])])
        .data(&[0])
        .run();
    close(&image[0], &[1, 1, 1, 3], &[1.0, 5.0, 4.0]);
}

#[test]
fn pooled_values_return_to_their_places() {
    let (x, index) = (floats(&[1, 1, 1, 2], &[5.0, 7.0]), ints(&[1, 1, 1, 2], &[4, 3]));
    let shape = ints(&[4], &[1, 1, 3, 5]);
    let unpooled = node("MaxUnpool", vec![x, index, shape])
        .data(&[0, 1])
        .with("kernel_shape", Attr::Ints(vec![2, 2]))
        .with("strides", Attr::Ints(vec![2, 2]));
    let mut expected = [0.0; 15];
    (expected[3], expected[5]) = (7.0, 5.0);
    close(&unpooled.run()[0], &[1, 1, 3, 5], &expected);
}

#[test]
fn regions_are_pooled_by_points_or_pixels() {
    let image = floats(&[1, 1, 2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let rois = floats(&[1, 4], &[0.0, 0.0, 2.0, 2.0]);
    for ratio in [2, 0] {
        let mut align = node("RoiAlign", vec![image.clone(), rois.clone(), ints(&[1], &[0])])
            .with("sampling_ratio", Attr::Int(ratio));
        if ratio == 0 {
            align = align.data(&[0]);
        }
        close(&align.run()[0], &[1, 1, 1, 1], &[2.5]);
    }
    let rois = floats(&[1, 5], &[0.0, 0.0, 0.0, 1.0, 1.0]);
    let pool = node("MaxRoiPool", vec![image, rois]).with("pooled_shape", Attr::Ints(vec![1, 2]));
    close(&pool.run()[0], &[1, 1, 1, 2], &[3.0, 4.0]);
}

#[test]
fn a_convolution_without_offsets_deforms_nothing() {
    let mut draw = Draw::new(7);
    let x = draw.floats(DType::F32, &[2, 4, 5, 6], -1.0, 1.0);
    let w = draw.floats(DType::F32, &[6, 2, 3, 2], -1.0, 1.0);
    let bias = draw.floats(DType::F32, &[6], -1.0, 1.0);
    let attrs = |node: Use| {
        node.with("group", Attr::Int(2))
            .with("pads", Attr::Ints(vec![1, 0, 1, 1]))
            .with("strides", Attr::Ints(vec![2, 1]))
            .with("dilations", Attr::Ints(vec![1, 2]))
    };
    let plain = attrs(node("Conv", vec![x.clone(), w.clone(), bias.clone()])).eval();
    let places = plain[0].dims()[2..].to_vec();
    let offset = HostTensor::zeros(DType::F32, &[&[2, 2 * 6 * 2], &places[..]].concat());
    let mut mask = HostTensor::zeros(DType::F32, &[&[2, 2 * 6], &places[..]].concat());
    mask.as_mut_slice::<f32>().fill(2.0);
    let deformed = attrs(node("DeformConv", vec![x, w, offset, bias.clone(), mask]))
        .with("offset_group", Attr::Int(2))
        .run();
    // A mask of two doubles everything but the bias.
    let (bias, inner) = (to_vec::<f64>(&bias), places.iter().product::<usize>());
    let expected: Vec<f64> = to_vec::<f64>(&plain[0])
        .into_iter()
        .enumerate()
        .map(|(n, value)| 2.0 * value - bias[n / inner % 6])
        .collect();
    close(&deformed[0], plain[0].dims(), &expected);
}

#[test]
fn linear_attention_corrects_what_it_recalls() {
    let operands = || {
        [[1.0, 2.0], [1.0, 1.0], [3.0, 5.0]]
            .map(|values| floats(&[1, 2, 1], &values))
            .to_vec()
    };
    let attend = |rule: &str, extra: Vec<Option<HostTensor>>| {
        let mut node = node("LinearAttention", operands());
        node.operands.extend(extra);
        node.with("q_num_heads", Attr::Int(1))
            .with("kv_num_heads", Attr::Int(1))
            .with("update_rule", text(rule))
            .results(2)
            .run()
    };
    let linear = attend("linear", vec![]);
    close(&linear[0], &[1, 2, 1], &[3.0, 16.0]);
    close(&linear[1], &[1, 1, 1, 1], &[8.0]);
    let half = floats(&[1, 2, 1], &[0.5, 0.5]);
    let gate = floats(&[1, 2, 1], &[0.0, 0.5f32.ln()]);
    // 1.5, which decays to 0.75 and moves half of the way to 5.
    let delta = attend("gated_delta", vec![None, Some(gate), Some(half)]);
    close(&delta[1], &[1, 1, 1, 1], &[2.875]);
}

#[test]
fn a_causal_convolution_goes_on_from_its_state() {
    let x = floats(&[1, 1, 2], &[3.0, 4.0]);
    let w = floats(&[1, 1, 3], &[1.0, 10.0, 100.0]);
    let mut conv = node("CausalConvWithState", vec![x, w]).results(2);
    conv.operands
        .extend([None, Some(floats(&[1, 1, 2], &[1.0, 2.0]))]);
    let results = conv.run();
    close(&results[0], &[1, 1, 2], &[321.0, 432.0]);
    close(&results[1], &[1, 1, 2], &[3.0, 4.0]);
}

#[test]
fn a_cache_is_written_around_its_end() {
    let cache = floats(&[1, 4, 1], &[1.0, 2.0, 3.0, 4.0]);
    let update = floats(&[1, 2, 1], &[8.0, 9.0]);
    let written = node("TensorScatter", vec![cache, update, ints(&[1], &[3])])
        .with("mode", text("circular"))
        .run();
    close(&written[0], &[1, 4, 1], &[9.0, 2.0, 3.0, 8.0]);
}

#[test]
fn bits_keep_their_pattern() {
    let cast = node("BitCast", vec![floats(&[2], &[1.0, -0.0])]).with("to", Attr::DType(DType::I32));
    close(
        &cast.run()[0],
        &[2],
        &[f64::from(0x3f80_0000), f64::from(i32::MIN)],
    );
    let x = HostTensor::from_slice(DType::I8, &[4], &[-8i8, -8, 8, -8]);
    let by = HostTensor::from_slice(DType::I8, &[4], &[1i8, -1, 9, 8]);
    let shifted = node("BitShift", vec![x, by]).with("direction", text("RIGHT"));
    close(&shifted.run()[0], &[4], &[-4.0, -1.0, 0.0, -1.0]);
}

#[test]
fn running_products_and_gates() {
    let x = floats(&[4], &[1.0, 2.0, 3.0, 4.0]);
    let product = node("CumProd", vec![x.clone(), ints(&[], &[0])])
        .data(&[0])
        .with("exclusive", Attr::Int(1))
        .with("reverse", Attr::Int(1));
    close(&product.run()[0], &[4], &[24.0, 12.0, 4.0, 1.0]);
    let gate = floats(&[4], &[0.0, 0.0, 0.0, 100.0]);
    close(
        &node("SwiGLU", vec![gate, x]).run()[0],
        &[4],
        &[0.0, 0.0, 0.0, 400.0],
    );
}

#[test]
fn ngrams_may_skip_entries() {
    let x = ints(&[6], &[5, 6, 5, 7, 6, 7]);
    let count = |skips| {
        node("TfIdfVectorizer", vec![x.clone()])
            .with("mode", text("TF"))
            .with("min_gram_length", Attr::Int(1))
            .with("max_gram_length", Attr::Int(2))
            .with("max_skip_count", Attr::Int(skips))
            .with("ngram_counts", Attr::Ints(vec![0, 2]))
            .with("ngram_indexes", Attr::Ints(vec![2, 0, 1, 3]))
            .with("pool_int64s", Attr::Ints(vec![5, 9, 5, 6, 6, 7]))
            .run()
            .remove(0)
    };
    // 5 twice, 9 never; (5, 6) once and once across another entry; (6, 7) likewise.
    close(&count(0), &[4], &[0.0, 1.0, 2.0, 1.0]);
    close(&count(1), &[4], &[0.0, 2.0, 2.0, 2.0]);
}

#[test]
fn overlapping_boxes_are_suppressed() {
    let boxes = floats(
        &[1, 3, 4],
        &[0.0, 0.0, 1.0, 1.0, 0.0, 0.1, 1.0, 1.1, 5.0, 5.0, 6.0, 6.0],
    );
    let scores = floats(&[1, 1, 3], &[0.5, 0.9, 0.7]);
    let kept = node(
        "NonMaxSuppression",
        vec![boxes, scores, ints(&[1], &[5]), floats(&[1], &[0.5])],
    );
    close(&kept.eval()[0], &[2, 3], &[0.0, 0.0, 1.0, 0.0, 0.0, 2.0]);
}

#[test]
fn the_page_of_operators_is_current() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operators.md");
    let page = ops::catalogue::page();
    if std::env::var_os("RTRT_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &page).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == page,
        "docs/operators.md is stale; `make bless` rewrites it"
    );
}

/// Attributes of core ops, as of a graph in text form or a rule: an error or a result.
#[test]
fn extreme_attributes_of_core_ops_are_errors_or_results() {
    for def in ops::all() {
        for sample in (0..).map_while(|seed| (def.samples)(seed)) {
            for (name, attr) in &sample.attrs.0 {
                for extreme in extremes_of_attr(attr) {
                    try_core(def, &sample.operands, sample.attrs.clone().with(name, extreme));
                }
            }
        }
    }
}

/// Infers, and evaluates what is not large.
fn try_core(def: &'static OpDef, operands: &[Option<HostTensor>], attrs: Attrs) {
    const LARGE_BYTES: usize = 1 << 20;
    let Ok(attrs) = ops::with_defaults(def, attrs) else {
        return;
    };
    let types: Vec<_> = operands
        .iter()
        .map(|data| data.as_ref().map(HostTensor::ty))
        .collect();
    let inferred = def.result_types(&InferCtx {
        attrs: &attrs,
        operands: &types,
    });
    if inferred.is_ok_and(|types| types.iter().all(|ty| ty.n_bytes() < LARGE_BYTES)) {
        let data: Vec<_> = operands
            .iter()
            .map(|data| data.clone().map(Datum::Tensor))
            .collect();
        let _ = reference::eval_node(def, &attrs, &data, 1);
    }
}
