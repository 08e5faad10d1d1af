//! The small quantised models beside this file, which `make.py` makes.

#![allow(dead_code, reason = "each test crate uses a part of it")]

use std::path::Path;

use rtrt_codegen::ir::{DType, Graph, HostTensor};
use rtrt_codegen::rewrite::RuleSet;
use rtrt_codegen::rewrite::canonicalize::rewrite_model;
use rtrt_codegen::{io, onnx};

pub const NAMES: [&str; 4] = [
    "qdq_asymmetric",
    "qdq_per_channel",
    "qoperator_asymmetric",
    "qoperator_per_channel",
];

/// A model and what ONNX Runtime computed with it.
pub struct Fixture {
    /// After the rules of the model phase.
    pub graph: Graph,
    pub x: HostTensor,
    pub y: HostTensor,
    /// The scale of `y`.
    pub step: HostTensor,
}

impl Fixture {
    pub fn read(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/quantized");
        let model = onnx::import_file(&folder.join(format!("{name}.onnx"))).unwrap();
        let ports = ["x", "y", "step"].map(|port| io::Port {
            name: port.to_owned(),
            dtype: Some(DType::F32),
        });
        let data = io::read_inputs(&folder.join(format!("{name}.npz")), &ports).unwrap();
        let [x, y, step] = data.try_into().unwrap();
        Fixture {
            graph: rewrite_model(&model.graph, RuleSet::builtin()),
            x,
            y,
            step,
        }
    }
}
