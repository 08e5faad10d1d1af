//! Wrong models, arguments and machines: each gets a clear message, the right exit code, and
//! leaves nothing half-written.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use prost::Message;
use rtrt_codegen::engine;
use rtrt_codegen::onnx::proto::{
    AttributeProto, DimensionProto, DimensionValue, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, TypeValue,
    ValueInfoProto,
};

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const REFUSED: i32 = 3;

/// A folder of its own in which one command runs.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Place {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn with_model(model: &ModelProto) -> Self {
        let place = Place::new();
        place.write("model.onnx", &model.encode_to_vec());
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn files(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Runs the program here. Its message must be the snapshot, its exit code the given one,
    /// and the folder must hold the same files as before.
    fn expect(&self, snapshot: &str, exit: i32, arguments: &[&str]) {
        self.expect_with(snapshot, exit, arguments, &[]);
    }

    fn expect_with(&self, snapshot: &str, exit: i32, arguments: &[&str], variables: &[(&str, &Path)]) {
        let before = self.files();
        let cache = tempfile::tempdir().unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_rtrt-codegen"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env("RTRT_CACHE_DIR", cache.path())
            .env_remove("RTRT_LOG")
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            output.status.code(),
            Some(exit),
            "exit code of {arguments:?}; stderr:\n{stderr}"
        );
        assert_eq!(self.files(), before, "files after {arguments:?}");
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path("../snapshots/errors");
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!(snapshot, message(&stderr)));
    }
}

/// What is left of stderr without progress, whose times differ from run to run.
fn message(stderr: &str) -> String {
    let lines = stderr.lines().filter(|line| !line.starts_with('['));
    lines.collect::<Vec<_>>().join("\n")
}

fn compile(arguments: &[&'static str]) -> Vec<&'static str> {
    [&["compile", "model.onnx", "--arch", "sm_80"], arguments].concat()
}

fn value(name: &str, dims: &[DimensionValue]) -> ValueInfoProto {
    value_of(name, 1, dims)
}

fn value_of(name: &str, elem_type: i32, dims: &[DimensionValue]) -> ValueInfoProto {
    let dim = dims.iter().map(|dim| DimensionProto {
        value: Some(dim.clone()),
    });
    let tensor = TensorTypeProto {
        elem_type,
        shape: Some(TensorShapeProto { dim: dim.collect() }),
    };
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            value: Some(TypeValue::Tensor(tensor)),
        }),
    }
}

fn node(op: &str, name: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: op.to_owned(),
        name: name.to_owned(),
        input: inputs.iter().map(|&input| input.to_owned()).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    }
}

fn model(nodes: Vec<NodeProto>, weights: Vec<TensorProto>) -> ModelProto {
    let batch = DimensionValue::Param("batch".to_owned());
    ModelProto {
        ir_version: 10,
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: 20,
        }],
        graph: Some(GraphProto {
            name: "main".to_owned(),
            input: vec![value("x", &[batch.clone(), DimensionValue::Value(3)])],
            output: vec![value("y", &[batch, DimensionValue::Value(3)])],
            node: nodes,
            initializer: weights,
            ..GraphProto::default()
        }),
        ..ModelProto::default()
    }
}

/// `y = x + w`.
fn sum(weight: TensorProto) -> ModelProto {
    model(vec![node("Add", "sum", &["x", "w"], "y")], vec![weight])
}

fn weight() -> TensorProto {
    TensorProto {
        name: "w".to_owned(),
        data_type: 1,
        dims: vec![3],
        float_data: vec![1.0, 2.0, 3.0],
        ..TensorProto::default()
    }
}

fn external(location: &str, more: &[(&str, &str)]) -> TensorProto {
    let entries = [&[("location", location)], more].concat();
    TensorProto {
        float_data: Vec::new(),
        data_location: 1,
        external_data: entries
            .into_iter()
            .map(|(key, value)| StringStringEntryProto {
                key: key.to_owned(),
                value: value.to_owned(),
            })
            .collect(),
        ..weight()
    }
}

#[test]
fn what_depends_on_extents_that_data_decides_is_named() {
    let nodes = vec![
        node("NonZero", "places", &["x"], "p"),
        node("Relu", "positive", &["x"], "y"),
        node("NonZero", "others", &["y"], "q"),
        node("Add", "sum", &["p", "q"], "s"),
        node("Unique", "distinct", &["p"], "u"),
        node("CastLike", "whole", &["x", "p"], "i"),
        node("Squeeze", "shape", &["i"], "d"),
        node("ConstantOfShape", "filled", &["d"], "f"),
    ];
    let place = Place::with_model(&model(nodes, Vec::new()));
    place.expect("extent_of_data", REFUSED, &compile(&[]));
}

#[test]
fn a_truncated_model() {
    let bytes = sum(weight()).encode_to_vec();
    let place = Place::new();
    place.write("model.onnx", &bytes[..bytes.len() / 2]);
    place.expect("truncated_model", FAILED, &compile(&[]));
}

/// Cut anywhere, a model is refused without a panic.
#[test]
fn a_model_truncated_anywhere() {
    let bytes = sum(weight()).encode_to_vec();
    for length in 0..bytes.len() {
        let error = rtrt_codegen::onnx::import(&bytes[..length], None);
        assert!(
            error.is_err(),
            "the first {length} of {} bytes are no model",
            bytes.len()
        );
    }
}

#[test]
fn no_model_at_all() {
    let place = Place::new();
    place.expect("missing_model", FAILED, &compile(&[]));
    place.write("model.onnx", b"");
    place.expect("empty_model", FAILED, &compile(&[]));
    place.write("model.onnx", b"version https://git-lfs.github.com/spec/v1\n");
    place.expect("pointer_instead_of_model", FAILED, &compile(&[]));
}

#[test]
fn a_cycle() {
    let nodes = vec![
        node("Add", "first", &["x", "b"], "a"),
        node("Relu", "second", &["a"], "b"),
        node("Relu", "last", &["b"], "y"),
    ];
    Place::with_model(&model(nodes, vec![])).expect("cycle", FAILED, &compile(&[]));
}

#[test]
fn names_that_do_not_fit() {
    let undefined = vec![node("Add", "sum", &["x", "nowhere"], "y")];
    Place::with_model(&model(undefined, vec![])).expect("undefined_value", FAILED, &compile(&[]));
    let twice = vec![node("Relu", "one", &["x"], "y"), node("Relu", "two", &["x"], "y")];
    Place::with_model(&model(twice, vec![])).expect("value_defined_twice", FAILED, &compile(&[]));
}

#[test]
fn an_unknown_element_type() {
    let unknown = TensorProto {
        data_type: 99,
        ..weight()
    };
    Place::with_model(&sum(unknown)).expect("unknown_dtype", REFUSED, &compile(&[]));
    let mut strings = sum(weight());
    let graph = strings.graph.as_mut().unwrap();
    graph.input[0] = value_of("x", 8, &[]);
    Place::with_model(&strings).expect("string_input", REFUSED, &compile(&[]));
}

#[test]
fn an_initializer_whose_size_does_not_fit() {
    let short = TensorProto {
        float_data: vec![1.0, 2.0],
        ..weight()
    };
    Place::with_model(&sum(short)).expect("initializer_too_short", FAILED, &compile(&[]));
    let huge = TensorProto {
        dims: vec![i64::MAX, i64::MAX],
        ..weight()
    };
    Place::with_model(&sum(huge)).expect("initializer_too_large", FAILED, &compile(&[]));
}

/// A few bytes that ask for more memory than there is.
#[test]
fn tensors_that_are_too_large() {
    let filled = |extents: &[i64]| {
        let shape = TensorProto {
            name: "shape".to_owned(),
            data_type: 7,
            dims: vec![i64::try_from(extents.len()).unwrap()],
            int64_data: extents.to_vec(),
            ..TensorProto::default()
        };
        model(
            vec![node("ConstantOfShape", "fill", &["shape"], "y")],
            vec![shape],
        )
    };
    for (name, extents) in [
        ("tensor_of_too_many_elements", &[1 << 40, 1 << 40][..]),
        ("tensor_too_large", &[1 << 40]),
        ("constant_too_large", &[1 << 31]),
    ] {
        Place::with_model(&filled(extents)).expect(name, REFUSED, &compile(&[]));
    }
    let number = |name: &str, value: i64| TensorProto {
        name: name.to_owned(),
        data_type: 7,
        int64_data: vec![value],
        ..TensorProto::default()
    };
    let range = |limit: &str, numbers: Vec<TensorProto>| {
        model(
            vec![node("Range", "range", &["zero", limit, "one"], "y")],
            numbers,
        )
    };
    let known = range(
        "many",
        vec![number("zero", 0), number("many", 1 << 32), number("one", 1)],
    );
    Place::with_model(&known).expect("range_too_large", REFUSED, &compile(&[]));
    let mut computed = range("n", vec![number("zero", 0), number("one", 1)]);
    computed.graph.as_mut().unwrap().input = vec![value_of("n", 7, &[])];
    let bound = compile(&["--bound", "n=2000000000"]);
    Place::with_model(&computed).expect("range_of_data_too_large", REFUSED, &bound);
    let input = ["--shapes", "x:99999999999x3"];
    Place::with_model(&sum(weight())).expect("input_too_large", REFUSED, &compile(&input));
}

#[test]
fn external_data_outside_of_the_folder() {
    let place = Place::with_model(&sum(external("../secret.bin", &[])));
    place.expect("external_data_parent", FAILED, &compile(&[]));
    let place = Place::with_model(&sum(external("/etc/passwd", &[])));
    place.expect("external_data_absolute", FAILED, &compile(&[]));
}

#[test]
fn external_data_that_is_not_there() {
    let place = Place::with_model(&sum(external(
        "weights.bin",
        &[("offset", "8"), ("length", "12")],
    )));
    place.expect("external_data_missing", FAILED, &compile(&[]));
    place.write("weights.bin", &[0; 16]);
    place.expect("external_data_short", FAILED, &compile(&[]));
}

#[test]
fn unsupported_operators_are_all_listed() {
    let mut custom = node("Frobnicate", "custom", &["x"], "a");
    custom.domain = "com.example".to_owned();
    let mut unknown_attribute = node("Relu", "relu", &["a"], "b");
    unknown_attribute.attribute.push(AttributeProto {
        name: "slope".to_owned(),
        r#type: 1,
        f: Some(0.5),
        ..AttributeProto::default()
    });
    let nodes = vec![custom, unknown_attribute, node("NoSuchOp", "", &["b"], "y")];
    Place::with_model(&model(nodes, vec![])).expect("unsupported_ops", REFUSED, &compile(&[]));
}

#[test]
fn a_newer_opset() {
    let mut newer = sum(weight());
    newer.opset_import[0].version = 99;
    Place::with_model(&newer).expect("newer_opset", REFUSED, &compile(&[]));
}

#[test]
fn shapes_that_do_not_fit() {
    let place = Place::with_model(&sum(weight()));
    place.expect("shape_of_no_input", FAILED, &compile(&["--shapes", "z:1x3"]));
    place.expect("shape_with_wrong_dim", FAILED, &compile(&["--shapes", "x:1x4"]));
    place.expect(
        "shape_with_wrong_rank",
        FAILED,
        &compile(&["--shapes", "x:1x3x1"]),
    );
    place.expect("shape_misspelt", USAGE, &compile(&["--shapes", "x=1x3"]));
    let longer = TensorProto {
        dims: vec![4],
        float_data: vec![0.0; 4],
        ..weight()
    };
    Place::with_model(&sum(longer)).expect("shapes_inside_the_model", FAILED, &compile(&[]));
}

#[test]
fn inputs_that_do_not_fit() {
    let place = Place::with_model(&sum(weight()));
    let run = [
        "run",
        "model.onnx",
        "--inputs",
        "in",
        "--outputs",
        "out.npz",
        "--device",
        "cpu",
    ];
    place.expect("inputs_missing", FAILED, &run);
    let input = TensorProto {
        dims: vec![1, 4],
        float_data: vec![0.0; 4],
        ..weight()
    };
    fs::create_dir(place.path("in")).unwrap();
    place.write("in/input_0.pb", &input.encode_to_vec());
    place.expect("input_with_wrong_shape", FAILED, &run);
}

#[test]
fn engines_that_cannot_be_tuned() {
    let place = Place::new();
    let whole = include_bytes!("engines/v3.engine");
    place.write("older.engine", whole);
    let older = engine::read(whole).unwrap();
    engine::save(
        &engine::stripped::strip(&older).unwrap(),
        &place.path("bare.engine"),
    )
    .unwrap();
    place.expect("tune_an_older_engine", REFUSED, &["tune", "older.engine"]);
    place.expect("tune_without_weights", REFUSED, &["tune", "bare.engine"]);
    place.expect("tune_nothing", FAILED, &["tune", "nowhere.engine"]);
    let cache = ["tune", "older.engine", "--errorOnTimingCacheMiss"];
    place.expect("tune_by_no_file", USAGE, &cache);
}

#[test]
fn a_wrong_arch() {
    let place = Place::with_model(&sum(weight()));
    place.expect(
        "wrong_arch",
        USAGE,
        &["compile", "model.onnx", "--arch", "sm_80,sm_1"],
    );
}

#[test]
fn a_missing_nvrtc() {
    let place = Place::with_model(&sum(weight()));
    place.expect_with(
        "missing_nvrtc",
        FAILED,
        &compile(&[]),
        &[("RTRT_NVRTC", Path::new("nowhere"))],
    );
}

#[test]
fn an_output_that_cannot_be_written() {
    let place = Place::with_model(&sum(weight()));
    place.expect(
        "output_in_no_folder",
        FAILED,
        &compile(&["-o", "nowhere/model.engine"]),
    );
    place.expect(
        "output_below_a_file",
        FAILED,
        &compile(&["-o", "model.onnx/model.engine"]),
    );
    fs::create_dir(place.path("folder")).unwrap();
    place.expect("output_is_a_folder", FAILED, &compile(&["-o", "folder"]));
}

#[test]
fn a_timing_cache_that_cannot_be_kept() {
    let place = Place::with_model(&sum(weight()));
    let cache = |path| compile(&["--tune", "--timingCacheFile", path]);
    place.expect(
        "timing_cache_in_no_folder",
        FAILED,
        &cache("nowhere/timings.jsonl"),
    );
    place.write("timings.jsonl", b"{\"kernel\": 3}\n");
    place.expect("timing_cache_is_damaged", FAILED, &cache("timings.jsonl"));
    let alone = ["--timingCacheFile", "timings.jsonl", "--errorOnTimingCacheMiss"];
    place.expect("timing_cache_alone_is_damaged", FAILED, &compile(&alone));
    place.expect("timing_cache_is_not_named", USAGE, &compile(&alone[2..]));
    place.expect(
        "build_budget_is_no_time",
        USAGE,
        &compile(&["--tune", "--build-budget", "5x"]),
    );
}

#[test]
fn precision_that_cannot_be_meant() {
    let place = Place::with_model(&sum(weight()));
    place.expect("int8_without_samples", USAGE, &compile(&["--int8"]));
    let own =
        |arguments: &[&'static str]| compile(&[&["--int8", "--calib", "own.cache"], arguments].concat());
    place.write("own.cache", b"TRT-8510-EntropyCalibration2\nx: 3c010a14\n");
    place.expect("budget_misspelt", USAGE, &own(&["--accuracy-budget", "top1"]));
    place.expect(
        "budget_without_samples",
        USAGE,
        &own(&["--accuracy-budget", "top1=1"]),
    );
    place.expect("method_misspelt", USAGE, &own(&["--calib-method", "entropi"]));
    place.expect("layer_misspelt", USAGE, &own(&["--layerPrecisions", "sun:fp32"]));
    place.write("own.cache", b"TRT-8510-EntropyCalibration2\nx 3c010a14\n");
    place.expect("calibration_cache_is_damaged", FAILED, &own(&[]));
}

#[test]
fn ranges_of_too_many_shapes_are_refused() {
    let place = Place::with_model(&sum(weight()));
    let range = ["--minShapes=x:1x3", "--maxShapes=x:65537x3"];
    place.expect("wide_shape_ranges_are_refused", REFUSED, &compile(&range));
}

#[test]
fn a_damaged_engine() {
    let place = Place::new();
    place.write("model.engine", b"RTRTENG\n\x01\0\0\0");
    place.expect("truncated_engine", FAILED, &["inspect", "model.engine"]);
}
