//! Small trained networks in narrow kinds: what they lose, and that budgets are kept.
//!
//! `precision/train.py` trains them, `precision/quantise.py` quantises them with ONNX Runtime.

#![cfg(feature = "builder")]
#![expect(clippy::cast_precision_loss, reason = "there are few images")]

#[path = "precision/plant.rs"]
mod plant;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rtrt_codegen::io::samples::{Samples, read_labels};
use rtrt_codegen::io::{self, Port};
use rtrt_codegen::ir::{DType, Graph, HostTensor};
use rtrt_codegen::kernel::Arch;
use rtrt_codegen::onnx;
use rtrt_codegen::ops::evaluate::to_vec;
use rtrt_codegen::pipeline::precise::{self, Calibration, Request};
use rtrt_codegen::pipeline::{self, Settings, Silent};
use rtrt_codegen::precision::metric::{Outputs, top1};
use rtrt_codegen::precision::{Cache, Kind, Method, Plan, Statistics};
use rtrt_codegen::rewrite::TensorSource;

const NETWORKS: [&str; 3] = ["residual", "separable", "vit"];

/// Batches that hold the first hundred samples of calibration.
const HUNDRED: usize = 100_usize.div_ceil(precise::ROWS);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/precision")
}

fn network(name: &str) -> Graph {
    onnx::import_file(&folder().join(format!("{name}.onnx")))
        .unwrap()
        .graph
}

fn samples(graph: &Graph, file: &str) -> Samples {
    Samples::open(&folder().join(file), &precise::declared(graph), precise::ROWS).unwrap()
}

fn settings(precision: DType) -> Settings {
    Settings::stored_in(precision)
}

fn calibrated(graph: &Graph, n_batches: usize) -> Statistics {
    let mut samples = samples(graph, "calibration.npz");
    samples.truncate(n_batches);
    precise::statistics(graph, &samples, None, &Silent).unwrap()
}

fn request(kind: Kind, method: Method, calibration: Calibration) -> Request {
    Request {
        kinds: vec![kind, Kind::Float],
        fixed: Plan::default(),
        asymmetric: false,
        method,
        calibration,
        budget: None,
        held: None,
        labels: None,
        arch: None,
    }
}

/// Outputs for all held-out images.
fn outputs(graph: &Graph, settings: &Settings) -> Vec<Outputs> {
    let held = samples(graph, "held.npz");
    let simulation = pipeline::Simulation::new(graph, settings).unwrap();
    (0..held.len())
        .map(|n| simulation.run(&held.batch(n).unwrap()).unwrap())
        .collect()
}

/// Per cent of the held-out images that are told right.
fn accuracy(graph: &Graph, settings: &Settings) -> f64 {
    let labels = read_labels(&folder().join("held.npz")).unwrap();
    let found = top1(&outputs(graph, settings));
    let pairs = found.iter().zip(&labels);
    let n_right = pairs
        .filter(|(found, label)| i64::try_from(**found) == Ok(**label))
        .count();
    100.0 * n_right as f64 / labels.len() as f64
}

fn quantised_accuracy(graph: &Graph, request: &Request) -> f64 {
    let precise = precise::decide(graph, &settings(DType::F32), request, &Silent).unwrap();
    let n_left = precise
        .report
        .layers
        .iter()
        .filter(|layer| layer.kind == "fp32")
        .count();
    assert_eq!(n_left, 0, "{:?}", precise.report.layers);
    accuracy(&precise.graph, &precise.settings)
}

#[test]
fn halves_lose_nothing() {
    for name in NETWORKS {
        let graph = network(name);
        let exact = accuracy(&graph, &settings(DType::F32));
        assert!(exact > 94.0, "{name} tells {exact} right");
        for precision in [DType::F16, DType::BF16] {
            let found = accuracy(&graph, &settings(precision));
            assert!(exact - found <= 0.1, "{name} in {precision}: {exact} to {found}");
        }
    }
}

#[test]
fn bytes_lose_little_after_a_hundred_samples() {
    for name in NETWORKS {
        let graph = network(name);
        let exact = accuracy(&graph, &settings(DType::F32));
        let statistics = calibrated(&graph, HUNDRED);
        let methods = [
            Method::Entropy,
            Method::MinMax,
            Method::Percentile(99.99),
            Method::Mse,
        ];
        for method in methods {
            let request = request(Kind::Int8, method, Calibration::Statistics(statistics.clone()));
            let found = quantised_accuracy(&graph, &request);
            assert!(
                exact - found <= 0.5,
                "{name}, {}: {exact} to {found}",
                method.name()
            );
        }
        let mut asymmetric = request(
            Kind::Int8,
            Method::MinMax,
            Calibration::Statistics(statistics.clone()),
        );
        asymmetric.asymmetric = true;
        let fp8 = request(Kind::Fp8, Method::MinMax, Calibration::Statistics(statistics));
        for request in [asymmetric, fp8] {
            let found = quantised_accuracy(&graph, &request);
            assert!(
                exact - found <= 0.5,
                "{name} in {:?}: {exact} to {found}",
                request.kinds[0]
            );
        }
    }
}

#[test]
fn halves_and_bytes_go_together() {
    for name in NETWORKS {
        let graph = network(name);
        let exact = accuracy(&graph, &settings(DType::F32));
        let statistics = Calibration::Statistics(calibrated(&graph, HUNDRED));
        let request = request(Kind::Int8, Method::Entropy, statistics);
        let precise = precise::decide(&graph, &settings(DType::F16), &request, &Silent).unwrap();
        let found = accuracy(&precise.graph, &precise.settings);
        assert!(exact - found <= 0.5, "{name}: {exact} to {found}");
        let share = precise.report.weight_bytes as f64 / precise.report.weight_bytes_fp32 as f64;
        assert!(share < 0.31, "{name}: {share} of its bytes");
    }
}

#[test]
fn four_bits_lose_little() {
    for (name, least) in [("residual", 0.5), ("separable", 0.5), ("vit", 1.0)] {
        let graph = network(name);
        let exact = accuracy(&graph, &settings(DType::F32));
        for group in [32, 64, 128] {
            let mut request = request(Kind::Int4Weights { group }, Method::MinMax, Calibration::None);
            request.kinds.insert(1, Kind::Int8Weights);
            let precise = precise::decide(&graph, &settings(DType::F32), &request, &Silent).unwrap();
            let found = accuracy(&precise.graph, &precise.settings);
            println!("{name}, groups of {group}: {exact} to {found}");
            assert!(
                exact - found <= least,
                "{name}, groups of {group}: {exact} to {found}"
            );
        }
    }
}

/// Bytes of the weights of an engine's products, by whether they are packed.
fn bytes_of_products(graph: &Graph, settings: &Settings) -> (usize, usize) {
    let core = pipeline::lower(graph, settings).unwrap();
    let arch = Arch {
        sm: 90,
        specific: true,
    };
    let fused = pipeline::regions(&core, arch, settings).unwrap();
    let (mut packed, mut plain) = (0, 0);
    for region in &fused.regions {
        let is_product = region.body.nodes.iter().any(|node| node.op == "matmul");
        let is_packed = region
            .body
            .nodes
            .iter()
            .any(|node| node.op == "dequantize_groups");
        for &input in region.inputs.iter().filter(|_| is_product) {
            let tensor = fused.tensor(input);
            match tensor.source {
                TensorSource::Weight(_) if tensor.ty.rank() < 2 => {}
                TensorSource::Weight(_) if is_packed => packed += tensor.ty.n_bytes(),
                TensorSource::Weight(_) => plain += tensor.ty.n_bytes(),
                TensorSource::Input(_) | TensorSource::Regions => {}
            }
        }
    }
    (packed, plain)
}

#[test]
fn matrices_in_four_bits_are_stored_so() {
    let graph = network("vit");
    for (float, share) in [(DType::F32, 0.14), (DType::F16, 0.28)] {
        let (_, plain) = bytes_of_products(&graph, &settings(float));
        // Groups of 40 terms: so many there are.
        let kind = Kind::Int4Weights { group: 64 };
        let request = request(kind, Method::MinMax, Calibration::None);
        let precise = precise::decide(&graph, &settings(float), &request, &Silent).unwrap();
        let (packed, rest) = bytes_of_products(&precise.graph, &precise.settings);
        println!("{float}: {plain} to {packed} and {rest}");
        assert!(
            (packed + rest) as f64 <= share * plain as f64,
            "{float}: {plain} to {packed} and {rest}"
        );
    }
}

#[test]
fn a_cache_does_what_its_samples_do() {
    let graph = network("residual");
    let statistics = calibrated(&graph, HUNDRED);
    let number = rtrt_codegen::precision::Number::Int8;
    let written = Cache::of(&statistics.ranges(Method::Mse, number), Method::Mse);
    let read = Cache::parse(&written.print()).unwrap();
    assert_eq!(read, written);
    let by_cache = request(Kind::Int8, Method::Mse, Calibration::Cache(read));
    let by_samples = request(Kind::Int8, Method::Mse, Calibration::Statistics(statistics));
    let of = |request: &Request| {
        let precise = precise::decide(&graph, &settings(DType::F32), request, &Silent).unwrap();
        outputs(&precise.graph, &precise.settings)
    };
    assert_eq!(of(&by_cache), of(&by_samples));
}

// -- An outlier ---------------------------------------------------------------------------------

/// The residual network with one more channel in its stem, which is far larger than the others at one
/// place of one calibration image, and which nothing after it looks at.
fn with_outlier(graph: &Graph, batch: &HostTensor) -> Graph {
    let mut graph = graph.clone();
    plant::widen(&mut graph, batch);
    graph
}

#[test]
fn an_outlier_ruins_minmax_alone() {
    let graph = network("residual");
    let calibration = samples(&graph, "calibration.npz");
    let batches: Vec<HostTensor> = (0..calibration.len())
        .map(|n| calibration.batch(n).unwrap()[0].clone())
        .collect();
    let planted = with_outlier(&graph, &plant::joined(&batches));
    let exact = accuracy(&graph, &settings(DType::F32));
    assert!((accuracy(&planted, &settings(DType::F32)) - exact).abs() < 0.1);
    let statistics = calibrated(&planted, calibration.len());
    let found = |method| {
        let request = request(Kind::Int8, method, Calibration::Statistics(statistics.clone()));
        quantised_accuracy(&planted, &request)
    };
    let ruined = found(Method::MinMax);
    assert!(ruined < exact - 5.0, "minmax keeps {ruined} of {exact}");
    for method in [Method::Entropy, Method::Percentile(99.99), Method::Mse] {
        let rescued = found(method);
        assert!(exact - rescued <= 0.5, "{}: {exact} to {rescued}", method.name());
    }
}

// -- Models of ONNX Runtime's quantiser ---------------------------------------------------------

#[test]
fn quantised_models_agree_with_onnx_runtime() {
    for network in NETWORKS {
        for form in [
            "qdq_symmetric",
            "qdq_asymmetric",
            "qoperator_symmetric",
            "qoperator_asymmetric",
        ] {
            let name = format!("{network}_{form}");
            let folder = folder().join("quantized");
            let model = onnx::import_file(&folder.join(format!("{name}.onnx"))).unwrap();
            let ports = ["image", "logits", "step"].map(|port| Port {
                name: port.to_owned(),
                dtype: Some(DType::F32),
            });
            let data = io::read_inputs(&folder.join(format!("{name}.npz")), &ports).unwrap();
            let found = pipeline::run_reference(&model.graph, &data[..1], &settings(DType::F32)).unwrap();
            let step = to_vec::<f64>(&data[2])[0];
            let (found, wanted) = (to_vec::<f64>(&found[0]), to_vec::<f64>(&data[1]));
            let off = found.iter().zip(&wanted).map(|(a, b)| (a - b).abs() / step);
            let worst = off.fold(0.0, f64::max);
            assert!(worst < 1.01, "{name}: {worst} steps off");
        }
    }
}

// -- The command line -----------------------------------------------------------------------------

fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rtrt-codegen"))
        .current_dir(folder())
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn a_budget_that_cannot_be_kept_saves_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let engine = scratch.path().join("out.engine");
    let report = scratch.path().join("report.json");
    let compile = |budget: &str, layers: &str| {
        program(&[
            "compile",
            "residual.onnx",
            "--arch",
            "sm_80",
            "--int8",
            "--calib",
            "calibration.npz",
            "--held",
            "held.npz",
            "--accuracy-budget",
            budget,
            "--layerPrecisions",
            layers,
            "--precision-report",
            report.to_str().unwrap(),
            "-o",
            engine.to_str().unwrap(),
        ])
    };
    let refused = compile("cosine=0.999999", "*:int8");
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{message}");
    assert!(message.contains("cosine=0.999999 is not kept"), "{message}");
    assert!(message.contains("Conv `stem`, left in int8"), "{message}");
    assert!(!engine.exists());
    assert!(
        std::fs::read_to_string(&report)
            .unwrap()
            .contains("\"is_met\": false")
    );
}

#[test]
fn layers_give_way_until_the_budget_holds() {
    let graph = network("residual");
    let mut request = request(
        Kind::Int8,
        Method::MinMax,
        Calibration::Statistics(calibrated(&graph, HUNDRED)),
    );
    let mut held = samples(&graph, "held.npz");
    held.truncate(6);
    request.held = Some(held);
    let decide = |limit: f64, request: &mut Request| {
        request.budget = rtrt_codegen::precision::Budget::from_text(&format!("relative={limit}"));
        precise::decide(&graph, &settings(DType::F32), request, &Silent)
            .unwrap()
            .report
    };
    let n_int8 = |report: &rtrt_codegen::precision::report::PrecisionReport| {
        report.layers.iter().filter(|layer| layer.kind == "int8").count()
    };
    let loose = decide(0.2, &mut request);
    let tight = decide(0.008, &mut request);
    assert_eq!(n_int8(&loose), loose.layers.len());
    assert!(n_int8(&tight) < n_int8(&loose), "{}", tight.text());
    for report in [&loose, &tight] {
        let budget = report.budget.as_ref().unwrap();
        assert!(budget.is_met && budget.value <= budget.limit, "{}", report.text());
    }
    assert!(
        tight
            .layers
            .iter()
            .any(|layer| layer.reason.contains("costs too much accuracy"))
    );
}

/// How far two calibrations are apart: of each tensor's values by size, the largest share that one has below the end
/// of a bin and the other not below the end of the next: what rounding moves stays within one bin.
fn apart(a: &Statistics, b: &Statistics) -> f64 {
    let names: Vec<&String> = a.tensors.keys().collect();
    assert_eq!(names, b.tensors.keys().collect::<Vec<_>>());
    let of = |name: &String| {
        let (a, b) = (&a.tensors[name], &b.tensors[name]);
        assert_eq!((a.n_values(), a.width()), (b.n_values(), b.width()), "{name}");
        let n_zeros = |sizes: &[u64], n_values: u64| n_values - sizes.iter().sum::<u64>();
        let below = |sizes: Vec<u64>, n_values: u64| -> Vec<u64> {
            let mut so_far = n_zeros(&sizes, n_values);
            let sums = sizes.into_iter().map(|count| {
                so_far += count;
                so_far
            });
            sums.collect()
        };
        let (a, b) = (below(a.sizes(), a.n_values()), below(b.sizes(), b.n_values()));
        let beyond = |own: &[u64], other: &[u64]| {
            let pairs = own.iter().zip(&other[1..]);
            pairs.map(|(own, next)| own.saturating_sub(*next)).max()
        };
        let most = beyond(&a, &b).max(beyond(&b, &a)).unwrap_or(0);
        most as f64 / a.last().copied().unwrap_or(0).max(1) as f64
    };
    names.into_iter().map(of).fold(0.0, f64::max)
}

#[test]
fn what_kernels_compute_is_counted_alike() {
    for name in ["residual", "vit"] {
        let graph = network(name);
        let mut samples = samples(&graph, "calibration.npz");
        samples.truncate(2);
        let wanted = precise::statistics(&graph, &samples, None, &Silent).unwrap();
        let mut n_run = 0;
        let by_regions = &mut |graph: &Graph, inputs: &[HostTensor]| {
            n_run += 1;
            pipeline::run_regions(graph, inputs, &settings(DType::F32))
        };
        let found = precise::statistics_by(&graph, &samples, None, &Silent, by_regions).unwrap();
        assert_eq!((n_run, found.n_batches), (2, 2), "{name}");
        let off = apart(&found, &wanted);
        assert!(
            off < 2e-3,
            "{name}: {off} of some tensor's values are counted elsewhere"
        );
    }
}

#[test]
fn what_cannot_be_executed_is_left_to_the_reference() {
    let graph = network("residual");
    let mut samples = samples(&graph, "calibration.npz");
    samples.truncate(3);
    let wanted = precise::statistics(&graph, &samples, None, &Silent).unwrap();
    let mut n_run = 0;
    let once = &mut |graph: &Graph, inputs: &[HostTensor]| {
        n_run += 1;
        match n_run {
            1 => pipeline::run_regions(graph, inputs, &settings(DType::F32)),
            _ => pipeline::run_regions(graph, &[], &settings(DType::F32)),
        }
    };
    let found = precise::statistics_by(&graph, &samples, None, &Silent, once).unwrap();
    assert_eq!((n_run, found.n_batches), (2, 3));
    assert!(apart(&found, &wanted) < 2e-3);
}

#[test]
fn an_ended_calibration_goes_on() {
    let scratch = tempfile::tempdir().unwrap();
    let many = scratch.path().join("many.npz");
    let port = Port {
        name: "image".to_owned(),
        dtype: Some(DType::F32),
    };
    let images = io::read_inputs(&folder().join("calibration.npz"), &[port]).unwrap();
    let repeated = plant::joined(&vec![images[0].clone(); 40]);
    io::write_outputs(&many, &["image".to_owned()], &[repeated]).unwrap();
    let (output, whole) = (scratch.path().join("a.cache"), scratch.path().join("b.cache"));
    let arguments = |output: &Path| -> Vec<String> {
        [
            "calibrate",
            "residual.onnx",
            "--device",
            "cpu",
            "--calib",
            many.to_str().unwrap(),
            "-o",
            output.to_str().unwrap(),
        ]
        .map(str::to_owned)
        .to_vec()
    };
    let start = |output: &Path| {
        Command::new(env!("CARGO_BIN_EXE_rtrt-codegen"))
            .current_dir(folder())
            .args(arguments(output))
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    };
    let partial = scratch.path().join("a.cache.partial");
    let mut child = start(&output);
    while !partial.exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!output.exists() && partial.exists());
    let resumed = start(&output).wait_with_output().unwrap();
    assert!(resumed.status.success());
    let log = String::from_utf8_lossy(&resumed.stderr).into_owned();
    assert!(log.contains("going on after"), "{log}");
    assert!(!partial.exists());
    assert!(start(&whole).wait_with_output().unwrap().status.success());
    assert_eq!(std::fs::read(&output).unwrap(), std::fs::read(&whole).unwrap());
}
