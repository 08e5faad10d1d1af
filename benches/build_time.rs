//! The budget of a build without a GPU: from the bytes of a model of 5000 nodes to the chosen
//! kernels in at most ten seconds, two gigabytes and two threads.
//!
//!     cargo bench --bench build_time
//!
//! prints one line per stage, and fails where the budget is exceeded.

use std::time::Instant;

use prost::Message;
use rtrt_codegen::ir::DType;
use rtrt_codegen::kernel::Arch;
use rtrt_codegen::onnx;
use rtrt_codegen::onnx::proto::{
    AttributeProto, DimensionProto, DimensionValue, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, TypeValue, ValueInfoProto,
};
use rtrt_codegen::pipeline::{self, Settings};
use rtrt_codegen::testing::builder::drawn_graph;

const N_NODES: usize = 5000;
const N_THREADS: usize = 2;
const MOST_SECONDS: f64 = 10.0;
const MOST_MIB: u64 = 2048;
const ARCH: Arch = Arch {
    sm: 90,
    specific: true,
};

fn main() {
    rayon::ThreadPoolBuilder::new()
        .num_threads(N_THREADS)
        .build_global()
        .expect("no other pool was built");
    // Deep graphs recurse, as in the command.
    let worker = std::thread::Builder::new().stack_size(256 << 20).spawn(run);
    let seconds = worker
        .expect("threads can be started")
        .join()
        .expect("the build does not panic");
    let mib = peak_mib();
    if let Some(mib) = mib {
        println!("peak memory            {mib:6} MiB of {MOST_MIB}");
    }
    let fits =
        seconds.iter().all(|&seconds| seconds <= MOST_SECONDS) && mib.is_none_or(|mib| mib <= MOST_MIB);
    if !fits {
        println!("over the budget");
        std::process::exit(1);
    }
}

/// Seconds of each model.
fn run() -> Vec<f64> {
    vec![transformer(DType::F32), transformer(DType::F16), tangle()]
}

fn settings(precision: DType) -> Settings {
    Settings::stored_in(precision)
}

/// A transformer in the spelling of exporters, from its bytes.
fn transformer(precision: DType) -> f64 {
    let model = Writer::transformer(N_NODES);
    let n_nodes = model.graph.as_ref().map_or(0, |graph| graph.node.len());
    let bytes = model.encode_to_vec();
    println!("transformer in {}, {n_nodes} nodes", precision.name());
    let mut stages = Stages::new();
    let model = onnx::import(&bytes, None).expect("the model is valid");
    stages.done("import");
    let settings = settings(precision);
    let core = pipeline::lower(&model.graph, &settings).expect("the shapes are static");
    stages.done("specialize");
    finish(&core, &settings, stages)
}

/// Ops drawn at random, each over values of all that came before.
fn tangle() -> f64 {
    let graph = drawn_graph(N_NODES, 1).graph;
    println!("tangle, {} nodes", graph.nodes.len());
    finish(&graph, &settings(DType::F32), Stages::new())
}

fn finish(core: &rtrt_codegen::ir::Graph, settings: &Settings, mut stages: Stages) -> f64 {
    let canonical = pipeline::canonical(core, settings).expect("the embedded rules are right");
    stages.done("canonicalize");
    let rules = rtrt_codegen::rewrite::RuleSet::builtin();
    let rates = rtrt_codegen::rewrite::DeviceRates::for_sm(ARCH.sm);
    let fused = rtrt_codegen::rewrite::fuse_canonical(&canonical, rules, rates).expect("a plan exists");
    stages.done("fuse");
    println!("  kernels              {:6}", fused.regions.len());
    stages.total()
}

struct Stages {
    begun: Instant,
    last: Instant,
}

impl Stages {
    fn new() -> Self {
        let now = Instant::now();
        Stages {
            begun: now,
            last: now,
        }
    }

    fn done(&mut self, name: &str) {
        println!("  {name:20} {:6.2} s", self.last.elapsed().as_secs_f64());
        self.last = Instant::now();
    }

    fn total(&self) -> f64 {
        let total = self.begun.elapsed().as_secs_f64();
        println!("  {:20} {total:6.2} s of {MOST_SECONDS}", "together");
        total
    }
}

/// The most memory this process had at a time, where the system says.
fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024)
}

/// Writes an ONNX graph node by node.
struct Writer {
    graph: GraphProto,
}

const WIDTH: i64 = 64;
const LENGTH: i64 = 16;
const HEADS: i64 = 4;

impl Writer {
    fn transformer(n_nodes: usize) -> ModelProto {
        let mut writer = Writer {
            graph: GraphProto {
                name: "transformer".to_owned(),
                input: vec![value("x", &[1, LENGTH, WIDTH])],
                ..GraphProto::default()
            },
        };
        let mut x = "x".to_owned();
        while writer.graph.node.len() < n_nodes {
            x = writer.layer(&x);
        }
        writer.graph.output = vec![value(&x, &[1, LENGTH, WIDTH])];
        ModelProto {
            ir_version: 10,
            opset_import: vec![OperatorSetIdProto {
                domain: String::new(),
                version: 20,
            }],
            graph: Some(writer.graph),
            ..ModelProto::default()
        }
    }

    fn layer(&mut self, x: &str) -> String {
        let q = self.linear(x, WIDTH, WIDTH);
        let k = self.linear(x, WIDTH, WIDTH);
        let v = self.linear(x, WIDTH, WIDTH);
        let (q, k, v) = (
            self.heads(&q, &[0, 2, 1, 3]),
            self.heads(&k, &[0, 2, 3, 1]),
            self.heads(&v, &[0, 2, 1, 3]),
        );
        let scores = self.node("MatMul", &[&q, &k], &[]);
        let scale = self.scalar(0.25);
        let scores = self.node("Mul", &[&scores, &scale], &[]);
        let weights = self.node("Softmax", &[&scores], &[ints("axis", &[-1])]);
        let mixed = self.node("MatMul", &[&weights, &v], &[]);
        let mixed = self.node("Transpose", &[&mixed], &[ints("perm", &[0, 2, 1, 3])]);
        let shape = self.shape(&[1, LENGTH, WIDTH]);
        let mixed = self.node("Reshape", &[&mixed, &shape], &[]);
        let mixed = self.linear(&mixed, WIDTH, WIDTH);
        let x = self.node("Add", &[x, &mixed], &[]);
        let x = self.norm(&x);
        let h = self.linear(&x, WIDTH, 4 * WIDTH);
        let h = self.gelu(&h);
        let h = self.linear(&h, 4 * WIDTH, WIDTH);
        let x = self.node("Add", &[&x, &h], &[]);
        self.norm(&x)
    }

    fn heads(&mut self, x: &str, perm: &[i64]) -> String {
        let shape = self.shape(&[1, LENGTH, HEADS, WIDTH / HEADS]);
        let split = self.node("Reshape", &[x, &shape], &[]);
        self.node("Transpose", &[&split], &[ints("perm", perm)])
    }

    fn linear(&mut self, x: &str, from: i64, to: i64) -> String {
        let (w, b) = (self.weight(&[from, to]), self.weight(&[to]));
        let product = self.node("MatMul", &[x, &w], &[]);
        self.node("Add", &[&product, &b], &[])
    }

    fn gelu(&mut self, x: &str) -> String {
        let (root, one, half) = (
            self.scalar(std::f32::consts::SQRT_2),
            self.scalar(1.0),
            self.scalar(0.5),
        );
        let inner = self.node("Div", &[x, &root], &[]);
        let inner = self.node("Erf", &[&inner], &[]);
        let inner = self.node("Add", &[&inner, &one], &[]);
        let gated = self.node("Mul", &[x, &inner], &[]);
        self.node("Mul", &[&gated, &half], &[])
    }

    fn norm(&mut self, x: &str) -> String {
        let axes = self.shape(&[-1]);
        let (two, epsilon) = (self.scalar(2.0), self.scalar(1e-5));
        let mean = self.node("ReduceMean", &[x, &axes], &[]);
        let centred = self.node("Sub", &[x, &mean], &[]);
        let squares = self.node("Pow", &[&centred, &two], &[]);
        let variance = self.node("ReduceMean", &[&squares, &axes], &[]);
        let variance = self.node("Add", &[&variance, &epsilon], &[]);
        let deviation = self.node("Sqrt", &[&variance], &[]);
        let unit = self.node("Div", &[&centred, &deviation], &[]);
        let (scale, bias) = (self.weight(&[WIDTH]), self.weight(&[WIDTH]));
        let scaled = self.node("Mul", &[&unit, &scale], &[]);
        self.node("Add", &[&scaled, &bias], &[])
    }

    fn node(&mut self, op: &str, inputs: &[&str], attributes: &[AttributeProto]) -> String {
        let number = self.graph.node.len();
        let output = format!("v{number}");
        self.graph.node.push(NodeProto {
            op_type: op.to_owned(),
            name: format!("{op}_{number}"),
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![output.clone()],
            attribute: attributes.to_vec(),
            ..NodeProto::default()
        });
        output
    }

    fn initializer(&mut self, data_type: i32, dims: &[i64], raw_data: Vec<u8>) -> String {
        let name = format!("w{}", self.graph.initializer.len());
        self.graph.initializer.push(TensorProto {
            dims: dims.to_vec(),
            data_type,
            name: name.clone(),
            raw_data: Some(raw_data.into()),
            ..TensorProto::default()
        });
        name
    }

    /// A constant whose numbers differ from those of every other.
    fn weight(&mut self, dims: &[i64]) -> String {
        let number = i64::try_from(self.graph.initializer.len()).expect("models have under 2^63 constants");
        let n: i64 = dims.iter().product();
        #[expect(clippy::cast_precision_loss, reason = "any numbers will do")]
        let values = (0..n).flat_map(|at| (((at * 37 + 11) % 101 + number) as f32 / 1e4).to_le_bytes());
        self.initializer(1, dims, values.collect())
    }

    fn scalar(&mut self, value: f32) -> String {
        self.initializer(1, &[], value.to_le_bytes().to_vec())
    }

    fn shape(&mut self, dims: &[i64]) -> String {
        let bytes = dims.iter().flat_map(|extent| extent.to_le_bytes());
        self.initializer(
            7,
            &[i64::try_from(dims.len()).expect("shapes are short")],
            bytes.collect(),
        )
    }
}

/// An attribute of integers; one integer where there is one.
fn ints(name: &str, values: &[i64]) -> AttributeProto {
    let mut attribute = AttributeProto {
        name: name.to_owned(),
        ..AttributeProto::default()
    };
    if let [one] = values {
        attribute.i = Some(*one);
        attribute.r#type = 2;
    } else {
        attribute.ints = values.to_vec();
        attribute.r#type = 7;
    }
    attribute
}

fn value(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = dims.iter().map(|&extent| DimensionProto {
        value: Some(DimensionValue::Value(extent)),
    });
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            value: Some(TypeValue::Tensor(TensorTypeProto {
                elem_type: 1,
                shape: Some(TensorShapeProto { dim: dim.collect() }),
            })),
        }),
    }
}
