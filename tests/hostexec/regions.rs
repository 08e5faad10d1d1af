//! Regions to run: bodies of core ops with drawn inputs.

#![allow(dead_code, reason = "each test crate uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};

use rtrt_codegen::ir::{Attr, Attrs, DType, Graph, HostTensor, TensorType, ValueId};
use rtrt_codegen::kernel::{KernelOptions, KernelSpec};
use rtrt_codegen::ops::samples::Draw;
use rtrt_codegen::ops::{self, NEWEST_OPSET, evaluate, random};
use rtrt_codegen::rewrite::RegionKind;

/// A region and data for its inputs.
#[derive(Clone)]
pub struct Problem {
    pub label: String,
    pub spec: KernelSpec,
    pub inputs: Vec<HostTensor>,
}

/// Builds a region's body.
pub struct Build {
    pub graph: Graph,
    draw: Draw,
    inputs: Vec<HostTensor>,
    weights: BTreeSet<usize>,
}

impl Build {
    pub fn new(seed: u64) -> Self {
        Build {
            graph: Graph::new("region"),
            draw: Draw::new(seed),
            inputs: Vec::new(),
            weights: BTreeSet::new(),
        }
    }

    /// An input with drawn data.
    pub fn input(&mut self, dtype: DType, dims: &[usize]) -> ValueId {
        let data = self.draw.tensor(dtype, dims);
        self.given(data)
    }

    /// Constant data of the model, drawn.
    pub fn weight(&mut self, dtype: DType, dims: &[usize]) -> ValueId {
        self.weights.insert(self.inputs.len());
        self.input(dtype, dims)
    }

    /// An input with this data.
    pub fn given(&mut self, data: HostTensor) -> ValueId {
        let value = self.graph.add_input("", Some(data.ty()));
        self.inputs.push(data);
        value
    }

    /// Constant data of the model.
    pub fn given_weight(&mut self, data: HostTensor) -> ValueId {
        self.weights.insert(self.inputs.len());
        self.given(data)
    }

    /// A scalar constant inside the body.
    pub fn scalar(&mut self, dtype: DType, value: f64) -> ValueId {
        self.graph.add_weight("", evaluate::scalar(dtype, value))
    }

    pub fn op(&mut self, op: &'static str, operands: &[ValueId]) -> ValueId {
        self.with(op, operands, Attrs::new())
    }

    pub fn with(&mut self, op: &'static str, operands: &[ValueId], attrs: Attrs) -> ValueId {
        let operands = operands.iter().copied().map(Some).collect();
        ops::emit(
            &mut self.graph,
            op,
            operands,
            attrs,
            1,
            NEWEST_OPSET,
            &["Node_1".to_owned()],
        )
        .unwrap()[0]
    }

    pub fn done(mut self, label: &str, kind: RegionKind, outputs: &[ValueId]) -> Problem {
        for &output in outputs {
            self.graph.add_output("y", output);
        }
        let types: Vec<String> = outputs
            .iter()
            .map(|&output| self.graph.ty(output).to_string())
            .collect();
        Problem {
            label: format!("{label} -> {}", types.join(", ")),
            spec: KernelSpec {
                kind,
                body: self.graph,
                options: KernelOptions::default(),
                placements: BTreeMap::new(),
                weights: self.weights,
            },
            inputs: self.inputs,
        }
    }
}

pub fn ints(name: &str, values: &[i64]) -> Attrs {
    Attrs::new().with(name, Attr::Ints(values.to_vec()))
}

pub fn int(name: &str, value: i64) -> Attrs {
    Attrs::new().with(name, Attr::Int(value))
}

/// `x * factor` as a byte: rounded, moved by `zero`, and saturated.
pub fn quantised(b: &mut Build, x: ValueId, factor: f64, zero: f64, stored: DType) -> ValueId {
    let wide = cast(b, x, DType::F32);
    let factor = b.scalar(DType::F32, factor);
    let scaled = b.op("mul", &[wide, factor]);
    let mut whole = b.op("round", &[scaled]);
    if zero != 0.0 {
        let zero = b.scalar(DType::F32, zero);
        whole = b.op("add", &[whole, zero]);
    }
    let (low, high) = if stored == DType::I8 {
        (-128.0, 127.0)
    } else {
        (0.0, 255.0)
    };
    let limits = Attrs::new()
        .with("low", Attr::Float(low))
        .with("high", Attr::Float(high));
    let limited = b.with("clamp", &[whole], limits);
    cast(b, limited, stored)
}

pub fn cast(build: &mut Build, x: ValueId, to: DType) -> ValueId {
    build.with("cast", &[x], Attrs::new().with("to", Attr::DType(to)))
}

/// Chains of maps with broadcasts, in several kinds and sizes.
pub fn pointwise() -> Vec<Problem> {
    let mut problems = Vec::new();
    for (seed, dtype) in [
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::F64,
        DType::I32,
        DType::I64,
    ]
    .into_iter()
    .enumerate()
    {
        let mut b = Build::new(seed as u64);
        let x = b.input(dtype, &[2, 3, 4, 8]);
        let y = b.input(dtype, &[2, 3, 4, 8]);
        let sum = b.op("add", &[x, y]);
        let z = b.op("relu", &[sum]);
        problems.push(b.done("add relu", RegionKind::Pointwise, &[z]));
    }
    for dims in [&[3usize, 5, 7][..], &[1], &[33], &[6, 40]] {
        let mut b = Build::new(7);
        let x = b.input(DType::F32, dims);
        let last = b.input(DType::F32, &dims[dims.len() - 1..]);
        let half = b.scalar(DType::F32, 0.5);
        let scaled = b.op("mul", &[x, half]);
        let shifted = b.op("add", &[scaled, last]);
        let z = b.op("sigmoid", &[shifted]);
        problems.push(b.done("row broadcast", RegionKind::Pointwise, &[z, shifted]));
    }
    for dims in [[2usize, 16, 4, 6], [1, 3, 5, 7]] {
        let mut b = Build::new(11);
        let x = b.input(DType::F16, &dims);
        let scale = b.input(DType::F16, &[dims[1], 1, 1]);
        let wide = cast(&mut b, x, DType::F32);
        let scale = cast(&mut b, scale, DType::F32);
        let scaled = b.op("mul", &[wide, scale]);
        let z = cast(&mut b, scaled, DType::F16);
        problems.push(b.done("channel broadcast", RegionKind::Pointwise, &[z]));
    }
    problems
}

/// A sum and a maximum in every kind of number, and sizes around those of vectors and blocks.
pub fn numbers() -> Vec<Problem> {
    // ONNX has no arithmetic on integers of less than a byte.
    let without = [DType::Bool, DType::I4, DType::U4, DType::I2, DType::U2];
    let dtypes = DType::ALL.into_iter().filter(|dtype| !without.contains(dtype));
    let sizes = [&[1usize][..], &[255], &[3, 257], &[16, 64]];
    let mut problems = Vec::new();
    for (turn, dtype) in dtypes.enumerate() {
        let dims = sizes[turn % sizes.len()];
        for op in ["add", "max"] {
            let mut b = Build::new(turn as u64);
            let (x, y) = (b.input(dtype, dims), b.input(dtype, dims));
            let operands = vec![Some(x), Some(y)];
            if let Ok(z) = ops::emit(&mut b.graph, op, operands, Attrs::new(), 1, NEWEST_OPSET, &[]) {
                problems.push(b.done(op, RegionKind::Pointwise, &z[..1]));
            }
        }
    }
    problems
}

/// Tensors without elements, and reductions of none.
pub fn empty() -> Vec<Problem> {
    let mut problems = Vec::new();
    for dims in [&[0usize][..], &[3, 0, 8], &[0, 64]] {
        let mut b = Build::new(7);
        let (x, y) = (b.input(DType::F32, dims), b.input(DType::F32, dims));
        let sum = b.op("add", &[x, y]);
        problems.push(b.done("add of nothing", RegionKind::Pointwise, &[sum]));
    }
    for dims in [[0usize, 64], [3, 0], [0, 0]] {
        let mut b = Build::new(8);
        let x = b.input(DType::F16, &dims);
        let z = b.with("softmax", &[x], int("axis", 1));
        problems.push(b.done("softmax of nothing", RegionKind::Row, &[z]));
        let mut b = Build::new(9);
        let x = b.input(DType::F32, &dims);
        let z = b.with("reduce_sum", &[x], ints("axes", &[1]));
        problems.push(b.done("sum of nothing", RegionKind::Reduce, &[z]));
        let mut b = Build::new(10);
        let x = b.input(DType::F32, &dims);
        let z = b.with("reduce_sum", &[x], ints("axes", &[0]));
        problems.push(b.done("sum of no rows", RegionKind::Reduce, &[z]));
        let mut b = Build::new(11);
        let x = b.input(DType::F16, &dims);
        let z = b.with("transpose", &[x], ints("perm", &[1, 0]));
        problems.push(b.done("transpose of nothing", RegionKind::Pointwise, &[z]));
    }
    problems
}

fn layer_norm(b: &mut Build, dtype: DType, dims: &[usize]) -> ValueId {
    let x = b.input(dtype, dims);
    let last = dims[dims.len() - 1];
    let (scale, bias) = (b.input(dtype, &[last]), b.input(dtype, &[last]));
    let axis = i64::try_from(dims.len() - 1).unwrap();
    let attrs = ints("axes", &[axis]).with("epsilon", Attr::Float(1e-5));
    let normal = b.with("standardize", &[x], attrs);
    let scaled = b.op("mul", &[normal, scale]);
    b.op("add", &[scaled, bias])
}

/// Reductions within rows, with work on the same rows.
pub fn rows() -> Vec<Problem> {
    let mut problems = Vec::new();
    for (dtype, dims) in [
        (DType::F32, vec![3, 64]),
        (DType::F16, vec![2, 5, 200]),
        (DType::F32, vec![2, 7]),
        (DType::F16, vec![1, 1000]),
        (DType::BF16, vec![2, 513]),
        (DType::F64, vec![3, 33]),
        (DType::F32, vec![5, 1]),
        (DType::F16, vec![1, 2047]),
        (DType::BF16, vec![130, 31]),
    ] {
        let mut b = Build::new(21);
        let x = b.input(dtype, &dims);
        let axis = i64::try_from(dims.len() - 1).unwrap();
        let z = b.with("softmax", &[x], int("axis", axis));
        problems.push(b.done("softmax", RegionKind::Row, &[z]));
        let mut b = Build::new(22);
        let z = layer_norm(&mut b, dtype, &dims);
        problems.push(b.done("layer norm", RegionKind::Row, &[z]));
    }
    let mut b = Build::new(23);
    let x = b.input(DType::F32, &[2, 3, 4, 6]);
    let attrs = ints("axes", &[2, 3]).with("epsilon", Attr::Float(1e-5));
    let z = b.with("standardize", &[x], attrs);
    problems.push(b.done("instance norm", RegionKind::Row, &[z]));
    let mut b = Build::new(24);
    let x = b.input(DType::F16, &[4, 96]);
    let y = b.input(DType::F16, &[4, 96]);
    let sum = b.op("add", &[x, y]);
    let attrs = ints("axes", &[1]).with("epsilon", Attr::Float(1e-6));
    let z = b.with("rms_standardize", &[sum], attrs);
    problems.push(b.done("residual and rms norm", RegionKind::Row, &[sum, z]));
    let mut b = Build::new(25);
    let x = b.input(DType::F32, &[2, 3, 5, 16]);
    let mask = b.input(DType::F32, &[2, 1, 1, 16]);
    let masked = b.op("add", &[x, mask]);
    let z = b.with("softmax", &[masked], int("axis", 3));
    problems.push(b.done("masked softmax", RegionKind::Row, &[z]));
    let mut b = Build::new(26);
    let x = b.input(DType::F32, &[6, 4096]);
    let z = b.with("log_softmax", &[x], int("axis", 1));
    problems.push(b.done("long log softmax", RegionKind::Row, &[z]));
    let mut b = Build::new(27);
    let x = b.input(DType::F16, &[2, 8, 64]);
    let wide = b.with("softmax", &[x], int("axis", 2));
    let parts = b.with("reshape", &[wide], ints("shape", &[2, 8, 4, 16]));
    let z = b.with("transpose", &[parts], ints("perm", &[0, 2, 1, 3]));
    problems.push(b.done("softmax into heads", RegionKind::Row, &[z]));
    problems
}

/// Norms over groups of channels: statistics of a group see the channel axis only divided.
pub fn groups() -> Vec<Problem> {
    let mut problems = Vec::new();
    for (dtype, [n, h, w, c], group) in [
        (DType::F32, [2, 5, 3, 24], 8),
        (DType::F16, [1, 8, 8, 32], 4),
        (DType::BF16, [2, 3, 3, 12], 12),
    ] {
        let dims = [n, h, w, c].map(|extent| i64::try_from(extent).unwrap());
        let (groups, each) = (i64::from(group), dims[3] / i64::from(group));
        let epsilon = ("epsilon", Attr::Float(1e-5));
        let scaled = |b: &mut Build, y: ValueId, channels: &[usize]| {
            let (scale, bias) = (b.input(dtype, channels), b.input(dtype, channels));
            let y = b.op("mul", &[y, scale]);
            let y = b.op("add", &[y, bias]);
            b.op("swish", &[y])
        };
        // Channels last, of two parts.
        let mut b = Build::new(28);
        let (left, right) = (b.input(dtype, &[n, h, w, c - 4]), b.input(dtype, &[n, h, w, 4]));
        let x = b.with("concat", &[left, right], int("axis", 3));
        let split = b.with(
            "reshape",
            &[x],
            ints("shape", &[dims[0], dims[1], dims[2], groups, each]),
        );
        let y = b.with(
            "standardize",
            &[split],
            ints("axes", &[1, 2, 4]).with(epsilon.0, epsilon.1.clone()),
        );
        let y = b.with("reshape", &[y], ints("shape", &dims));
        let z = scaled(&mut b, y, &[c]);
        problems.push(b.done("group norm, channels last", RegionKind::Reduce, &[z]));
        // Channels second, read from channels last and stored so again.
        let mut b = Build::new(29);
        let x = b.input(dtype, &[n, h, w, c]);
        let turned = b.with("transpose", &[x], ints("perm", &[0, 3, 1, 2]));
        let split = b.with(
            "reshape",
            &[turned],
            ints("shape", &[dims[0], groups, each * dims[1] * dims[2]]),
        );
        let y = b.with(
            "standardize",
            &[split],
            ints("axes", &[2]).with(epsilon.0, epsilon.1),
        );
        let y = b.with(
            "reshape",
            &[y],
            ints("shape", &[dims[0], dims[3], dims[1], dims[2]]),
        );
        let z = scaled(&mut b, y, &[c, 1, 1]);
        let z = b.with("transpose", &[z], ints("perm", &[0, 2, 3, 1]));
        problems.push(b.done("group norm, channels second", RegionKind::Row, &[z]));
    }
    problems
}

/// One reduction over every choice of axes, in several kinds.
pub fn reductions() -> Vec<Problem> {
    let mut problems = Vec::new();
    for op in [
        "reduce_sum",
        "reduce_mean",
        "reduce_max",
        "reduce_min",
        "reduce_prod",
    ] {
        let axes: &[&[i64]] = match op {
            "reduce_sum" => &[&[0], &[1], &[2], &[0, 1], &[0, 2], &[1, 2], &[0, 1, 2]],
            _ => &[&[1], &[2]],
        };
        for axes in axes {
            let mut b = Build::new(31);
            let dtype = if op == "reduce_max" {
                DType::F16
            } else {
                DType::F32
            };
            let x = b.input(dtype, &[4, 6, 40]);
            let y = b.with(op, &[x], ints("axes", axes));
            let z = b.op("relu", &[y]);
            problems.push(b.done(&format!("{op} over {axes:?}"), RegionKind::Reduce, &[z]));
        }
    }
    for dtype in [DType::I32, DType::I64, DType::F64] {
        let mut b = Build::new(32);
        let x = b.input(dtype, &[5, 33]);
        let z = b.with("reduce_sum", &[x], ints("axes", &[1]));
        let w = b.with("reduce_max", &[x], ints("axes", &[1]));
        problems.push(b.done("sum and max", RegionKind::Reduce, &[z, w]));
    }
    for (axis, last) in [(0, 0), (1, 0), (2, 1), (2, 0)] {
        let mut b = Build::new(33);
        let x = b.input(DType::I32, &[3, 20, 36]);
        let attrs = int("axis", axis).with("last", Attr::Int(last));
        let z = b.with("arg_max", &[x], attrs.clone());
        problems.push(b.done("arg_max", RegionKind::Reduce, &[z]));
        let mut b = Build::new(34);
        let x = b.input(DType::F16, &[3, 20, 36]);
        let z = b.with("arg_min", &[x], attrs);
        problems.push(b.done("arg_min", RegionKind::Reduce, &[z]));
    }
    let mut b = Build::new(35);
    let x = b.input(DType::F16, &[2, 7, 7, 64]);
    let z = b.with("reduce_mean", &[x], ints("axes", &[1, 2]));
    problems.push(b.done("global average pool", RegionKind::Reduce, &[z]));
    let mut b = Build::new(36);
    let x = b.input(DType::F32, &[2, 21, 6, 10]);
    let z = b.with("softmax", &[x], int("axis", 1));
    problems.push(b.done("channel softmax", RegionKind::Reduce, &[z]));
    problems
}

/// Few columns over long ranges, which several blocks share.
pub fn shared_columns() -> Vec<Problem> {
    let mut b = Build::new(37);
    let x = b.input(DType::F16, &[2, 61, 37, 24]);
    let z = b.with("reduce_mean", &[x], ints("axes", &[1, 2]));
    let mean = b.done("mean of large images", RegionKind::Reduce, &[z]);
    let mut b = Build::new(38);
    let x = b.input(DType::I64, &[1999, 5]);
    let z = b.with("reduce_sum", &[x], ints("axes", &[0]));
    let w = b.with("reduce_max", &[x], ints("axes", &[0]));
    let two = b.done("long sum and max", RegionKind::Reduce, &[z, w]);
    let mut b = Build::new(39);
    let x = b.input(DType::F16, &[1531, 10]);
    let z = b.with("arg_min", &[x], int("axis", 0).with("last", Attr::Int(0)));
    let place = b.done("long arg_min", RegionKind::Reduce, &[z]);
    vec![mean, two, place]
}

/// The samples of every op that has generated code, each a region of its own.
pub fn ops_of_the_table(kept: impl Fn(&ops::OpDef) -> bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    for def in ops::all().filter(|def| kept(def)) {
        for seed in 0.. {
            let Some(sample) = (def.samples)(seed) else {
                break;
            };
            let mut b = Build::new(seed);
            let operands = sample
                .operands
                .iter()
                .map(|operand| operand.clone().map(|data| b.given(data)))
                .collect();
            let results = ops::emit(
                &mut b.graph,
                def.name,
                operands,
                sample.attrs,
                1,
                NEWEST_OPSET,
                &[],
            );
            let Ok(results) = results else {
                continue;
            };
            if b.graph.ty(results[0]).n_elements() == 0 {
                continue;
            }
            problems.push(b.done(
                &format!("{} sample {seed}", def.name),
                RegionKind::Other,
                &results[..1],
            ));
        }
    }
    problems
}

/// The best boxes of `classes` classes in two images, whose scores often tie.
pub fn best_boxes(dtype: DType, boxes: usize, classes: usize, most: i64) -> Problem {
    let mut b = Build::new(71);
    let corners = b.draw.floats(dtype, &[2, boxes, 4], 0.0, 20.0);
    let scores = b.draw.ints(dtype, &[2, classes, boxes], 0, 40);
    let operands = [b.given(corners), b.given(scores)];
    let attrs = int("extent", most)
        .with("overlap", Attr::Float(0.25))
        .with("lowest", Attr::Float(5.0));
    let best = b.with("best_boxes", &operands, attrs);
    b.done("best boxes", RegionKind::Other, &[best])
}

/// Transposes between whole vectors: blocks that end beside the axes, and work on the way.
pub fn turned_vectors() -> Vec<Problem> {
    let mut problems = Vec::new();
    for (dtype, dims) in [
        (DType::F16, [2usize, 72, 136]),
        (DType::F32, [1, 44, 36]),
        (DType::U8, [3, 24, 40]),
    ] {
        let mut b = Build::new(46);
        let x = b.input(dtype, &dims);
        let z = b.with("transpose", &[x], ints("perm", &[0, 2, 1]));
        problems.push(b.done("transpose of vectors", RegionKind::Pointwise, &[z]));
    }
    let mut b = Build::new(47);
    let x = b.input(DType::F32, &[2, 16, 4, 10]);
    let (mean, other) = (
        b.input(DType::F32, &[16, 1, 1]),
        b.input(DType::F32, &[2, 4, 10, 16]),
    );
    let centred = b.op("sub", &[x, mean]);
    let turned = b.with("transpose", &[centred], ints("perm", &[0, 2, 3, 1]));
    let sum = b.op("add", &[turned, other]);
    let z = cast(&mut b, sum, DType::F16);
    problems.push(b.done("normalise and add to nhwc", RegionKind::Pointwise, &[z]));
    problems
}

/// Views and selections by index inside one kernel.
pub fn moves() -> Vec<Problem> {
    let mut problems = Vec::new();
    for (dtype, dims) in [
        (DType::F16, [2usize, 64, 96]),
        (DType::F32, [1, 70, 33]),
        (DType::I64, [3, 8, 40]),
        (DType::U8, [1, 1, 65]),
        (DType::I8, [1, 65, 129]),
        (DType::BF16, [2, 31, 64]),
        (DType::Bool, [1, 32, 33]),
    ] {
        let mut b = Build::new(41);
        let x = b.input(dtype, &dims);
        let z = b.with("transpose", &[x], ints("perm", &[0, 2, 1]));
        problems.push(b.done("transpose", RegionKind::Pointwise, &[z]));
    }
    let mut b = Build::new(42);
    let x = b.input(DType::F32, &[1, 3, 20, 36]);
    let (mean, scale) = (b.input(DType::F32, &[3, 1, 1]), b.scalar(DType::F32, 0.017));
    let centred = b.op("sub", &[x, mean]);
    let scaled = b.op("mul", &[centred, scale]);
    let turned = b.with("transpose", &[scaled], ints("perm", &[0, 2, 3, 1]));
    let z = cast(&mut b, turned, DType::F16);
    problems.push(b.done("normalise to nhwc", RegionKind::Pointwise, &[z]));
    let mut b = Build::new(43);
    let x = b.input(DType::F16, &[2, 12, 16, 64]);
    let y = b.input(DType::F16, &[2, 16, 768]);
    let turned = b.with("transpose", &[x], ints("perm", &[0, 2, 1, 3]));
    let flat = b.with("reshape", &[turned], ints("shape", &[2, 16, 768]));
    let z = b.op("add", &[flat, y]);
    problems.push(b.done("merge heads", RegionKind::Pointwise, &[z]));
    let mut b = Build::new(44);
    let x = b.input(DType::F16, &[2, 4, 4, 32]);
    let y = b.input(DType::F16, &[2, 4, 4, 16]);
    let one = b.op("relu", &[x]);
    let z = b.with("concat", &[one, y], int("axis", 3));
    problems.push(b.done("concat channels", RegionKind::Pointwise, &[z]));
    let mut b = Build::new(45);
    let table = b.input(DType::F16, &[50, 64]);
    let at = b.given(HostTensor::from_i64(&[2, 3], &[0, 49, 7, 7, -1, 20]));
    let position = b.input(DType::F16, &[3, 64]);
    let rows = b.with("gather", &[table, at], int("axis", 0));
    let z = b.op("add", &[rows, position]);
    problems.push(b.done("embedding", RegionKind::Pointwise, &[z]));
    let mut b = Build::new(46);
    let x = b.input(DType::F32, &[1, 2, 6, 10]);
    let y = b.input(DType::F32, &[1, 2, 6, 10]);
    let sum = b.op("add", &[x, y]);
    let turned = b.with("transpose", &[sum], ints("perm", &[0, 3, 2, 1]));
    let other = b.input(DType::F32, &[1, 10, 6, 2]);
    let z = b.op("mul", &[turned, other]);
    problems.push(b.done("turned sum", RegionKind::Pointwise, &[z]));
    problems
}

/// A convolution and a product with weights that the copy engine reads, as a model has them.
pub fn tiled_graph() -> Graph {
    let mut b = Build::new(7);
    let drawn_as = |dims: &[usize], seed| random::drawn(&TensorType::new(DType::F32, dims), seed);
    let x = b.input(DType::F32, &[8, 28, 28, 128]);
    let filter = b.graph.add_weight("filter", drawn_as(&[128, 3, 3, 128], 11));
    let square = b.graph.add_weight("square", drawn_as(&[128, 128], 13));
    let columns = b.graph.add_weight("columns", drawn_as(&[128, 512], 12));
    let window = ints("strides", &[1, 1])
        .with("pads", Attr::Ints(vec![1; 4]))
        .with("dilations", Attr::Ints(vec![1, 1]))
        .with("group", Attr::Int(1));
    // The first product has its cast from f32 to see to.
    let mixed = b.op("matmul", &[x, square]);
    let pixels = b.with("conv_nhwc", &[mixed, filter], window);
    let gates = b.op("sigmoid", &[pixels]);
    let y = b.op("matmul", &[gates, columns]);
    let mut graph = b.graph;
    graph.add_output("y", y);
    graph
}
