//! Regions to run: bodies of core ops with drawn inputs.

#![allow(dead_code, reason = "each test crate uses a part of it")]

use rtrt_codegen::ir::{Attr, Attrs, DType, Graph, HostTensor, ValueId};
use rtrt_codegen::kernel::{KernelOptions, KernelSpec};
use rtrt_codegen::ops::samples::Draw;
use rtrt_codegen::ops::{self, NEWEST_OPSET, evaluate};
use rtrt_codegen::rewrite::RegionKind;

/// A region and data for its inputs.
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
}

impl Build {
    pub fn new(seed: u64) -> Self {
        Build {
            graph: Graph::new("region"),
            draw: Draw::new(seed),
            inputs: Vec::new(),
        }
    }

    /// An input with drawn data.
    pub fn input(&mut self, dtype: DType, dims: &[usize]) -> ValueId {
        let data = self.draw.tensor(dtype, dims);
        self.given(data)
    }

    /// An input with this data.
    pub fn given(&mut self, data: HostTensor) -> ValueId {
        let value = self.graph.add_input("", Some(data.ty()));
        self.inputs.push(data);
        value
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
        ops::emit(&mut self.graph, op, operands, attrs, 1, NEWEST_OPSET, &["Node_1".to_owned()]).unwrap()[0]
    }

    pub fn done(mut self, label: &str, kind: RegionKind, outputs: &[ValueId]) -> Problem {
        for &output in outputs {
            self.graph.add_output("y", output);
        }
        let types: Vec<String> = outputs.iter().map(|&output| self.graph.ty(output).to_string()).collect();
        Problem {
            label: format!("{label} -> {}", types.join(", ")),
            spec: KernelSpec {
                kind,
                body: self.graph,
                options: KernelOptions::default(),
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

pub fn cast(build: &mut Build, x: ValueId, to: DType) -> ValueId {
    build.with("cast", &[x], Attrs::new().with("to", Attr::DType(to)))
}

/// Chains of maps with broadcasts, in several kinds and sizes.
pub fn pointwise() -> Vec<Problem> {
    let mut problems = Vec::new();
    for (seed, dtype) in [DType::F32, DType::F16, DType::BF16, DType::F64, DType::I32, DType::I64]
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
