//! The GPU tier: generated kernels, tuner and runtime on a device.
//!
//! Without `RTRT_TEST_GPU=1` every trial is listed as ignored; with it, a missing device is a
//! failure.

#![cfg(feature = "builder")]

#[path = "gpu/contexts.rs"]
mod contexts;
#[path = "hostexec/products.rs"]
mod products;
#[path = "gpu/rates.rs"]
mod rates;
#[path = "hostexec/regions.rs"]
mod regions;

use std::env;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use libtest_mimic::{Arguments, Failed, Trial};
use regions::Problem;
use rtrt_codegen::compile::Cache;
use rtrt_codegen::cuda::{Context, DeviceMemory, Stream};
use rtrt_codegen::engine;
use rtrt_codegen::io::samples::Samples;
use rtrt_codegen::ir::{Attr, Attrs, DType, Graph, HostTensor, TensorType, ValueId};
use rtrt_codegen::kernel::Arch;
use rtrt_codegen::onnx;
use rtrt_codegen::ops::random::drawn;
use rtrt_codegen::ops::samples::Draw;
use rtrt_codegen::ops::{Lowering, TileKind};
use rtrt_codegen::pipeline::{self, Selection, Settings, Silent, precise};
use rtrt_codegen::precision::{Method, Number, Statistics};
use rtrt_codegen::reference;
use rtrt_codegen::runtime::{DeviceEngine, ExecutionContext, RuntimeError};
use rtrt_codegen::specialize::{ShapeRange, every_shape};
use rtrt_codegen::testing::builder::GraphBuilder;
use rtrt_codegen::testing::detectors::{Detector, masked, sizes, sizes_inputs, sparse};
use rtrt_codegen::testing::graphs;
use rtrt_codegen::tune::{self, Database};

type Problems = fn() -> Vec<Problem>;

fn main() {
    let arguments = Arguments::from_args();
    let on = env::var("RTRT_TEST_GPU").is_ok_and(|value| value == "1");
    // Those take minutes and are for reading: only where they are named.
    let wants_rates = arguments
        .filter
        .as_deref()
        .is_some_and(|name| name.starts_with("rates"));
    let rates = if wants_rates { rates() } else { Vec::new() };
    let trials = trials()
        .into_iter()
        .chain(rates)
        .map(|trial| trial.with_kind("gpu").with_ignored_flag(!on));
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

fn trials() -> Vec<Trial> {
    let mut trials = vec![
        Trial::test("engines_compute_what_graphs_mean", engines),
        Trial::test("contexts_share_an_engine", contexts::contexts),
        Trial::test("profiles_take_turns", contexts::profiles),
        Trial::test("wide_ranges_compute_what_graphs_mean", wide_ranges),
        Trial::test("threads_agree", contexts::threads),
        Trial::test("executions_are_queued", contexts::enqueued),
        Trial::test("outputs_are_as_long_as_data_says", detectors),
        Trial::test("engines_copy_tiles_of_tensors", engines_with_tensor_maps),
        Trial::test("branches_run_at_once", branches),
        Trial::test("wrong_inputs_are_refused", wrong_inputs),
        Trial::test("tuning_keeps_and_reuses_measurements", tuning),
        Trial::test("engines_are_tuned_without_their_models", retuning),
        Trial::test("calibration_counts_what_the_reference_does", calibration),
    ];
    let kernels: [(&str, Problems); 6] = [
        ("pointwise", regions::pointwise),
        ("rows", regions::rows),
        ("reductions", regions::reductions),
        ("moves", regions::moves),
        ("op_table", op_table),
        ("products", products::all),
    ];
    for (name, problems) in kernels {
        trials.push(Trial::test(format!("kernels_{name}"), move || {
            kernels_are_right(problems())
        }));
    }
    // One by one, since a sanitizer takes minutes for all of them.
    for (number, problem) in tiled_products().into_iter().enumerate() {
        trials.push(Trial::test(
            format!("kernels_tiled_products_{number:02}"),
            move || kernels_are_right(vec![problem]),
        ));
    }
    let files = env::var_os("RTRT_TEST_ENGINES").unwrap_or_default();
    // Nothing is one empty path.
    for path in env::split_paths(&files).filter(|path| !path.as_os_str().is_empty()) {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        trials.push(Trial::test(format!("threads_agree_on_{name}"), move || {
            contexts::threads_on_file(&path)
        }));
    }
    trials
}

fn op_table() -> Vec<Problem> {
    regions::ops_of_the_table(|def| match def.lower {
        Lowering::Map(_) | Lowering::Loop => true,
        Lowering::Tile(kind, _) => kind != TileKind::Other,
        Lowering::Expand(_) | Lowering::Bounded(_) | Lowering::Host(_) => false,
    })
}

fn rates() -> Vec<Trial> {
    vec![
        Trial::test("rates_of_products", || rates::products(&context()?, arch()?)),
        Trial::test("rates_of_convolutions", || {
            rates::convolutions(&context()?, arch()?)
        }),
    ]
}

/// What the copy engine reads, several tiles of each block among it.
fn tiled_products() -> Vec<Problem> {
    let [plain, turned] = [products::Layout::Plain, products::Layout::Turned];
    let kinds = [DType::F16, DType::BF16];
    let mut problems = [
        kinds.map(products::tiled),
        kinds.map(products::tiled_convolutions),
    ]
    .concat()
    .concat();
    problems.push(products::matmul(
        DType::F16,
        (&[72, 1032], plain),
        (&[1032, 136], plain),
        products::Epilogue::Silu,
    ));
    for (a, b) in [(plain, plain), (turned, plain), (plain, turned), (turned, turned)] {
        problems.push(products::matmul(
            DType::F16,
            (&[1544, 520], a),
            (&[520, 1224], b),
            products::Epilogue::BiasResidualRelu,
        ));
    }
    problems
}

fn context() -> Result<Arc<Context>, Failed> {
    Ok(Context::new(0)?)
}

fn arch() -> Result<Arch, Failed> {
    Ok(pipeline::arch_of_device(0)?)
}

/// Every variant of every problem, on the device.
fn kernels_are_right(problems: Vec<Problem>) -> Result<(), Failed> {
    let (context, arch, cache) = (context()?, arch()?, Cache::of_user());
    let mut wrong = Vec::new();
    let mut n_run = 0;
    for Problem { label, spec, inputs } in problems {
        let problem = tune::Problem {
            workspace: true,
            incumbent: None,
            spec,
        };
        let findings = tune::survey(&problem, &inputs, arch, &context, &cache)
            .map_err(|error| format!("{label}: {error}"))?;
        n_run += findings.len();
        for finding in findings.into_iter().filter(|finding| !finding.is_right) {
            wrong.push(format!(
                "{label}: {} is off by {:.2e}",
                finding.variant, finding.error
            ));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!("{} of {n_run} wrong:\n{}", wrong.len(), wrong.join("\n")).into())
}

fn settings(precision: DType) -> Settings {
    Settings::stored_in(precision)
}

fn built(graph: &Graph, precision: DType, selection: &Selection) -> Result<engine::Engine, Failed> {
    built_for(std::slice::from_ref(graph), precision, selection)
}

/// An engine for several graphs of one model.
fn built_for(graphs: &[Graph], precision: DType, selection: &Selection) -> Result<engine::Engine, Failed> {
    Ok(pipeline::compile(
        graphs,
        &[arch()?],
        &settings(precision),
        selection,
        &Silent,
    )?)
}

fn inputs_of(graph: &Graph) -> Vec<HostTensor> {
    graph
        .inputs
        .iter()
        .zip(1..)
        .map(|(&input, seed)| drawn(graph.ty(input), seed))
        .collect()
}

fn check_outputs(found: &[HostTensor], wanted: &[HostTensor], bound: f64, case: &str) -> Result<(), Failed> {
    for (number, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        let error = tune::error_of(found, wanted);
        if error > bound {
            return Err(format!("{case}: output {number} is off by {error:.2e}").into());
        }
    }
    Ok(())
}

/// Drawn graphs through the whole pipeline, twice on one context.
fn engines() -> Result<(), Failed> {
    for seed in 0..24 {
        let graph = graphs::core(seed, 3 + usize::try_from(seed).unwrap_or(0));
        let inputs = inputs_of(&graph);
        let wanted = reference::run(&graph, &inputs)?;
        let engine = built(&graph, DType::F32, &Selection::Predicted)?;
        let mut context = pipeline::execution(&engine, 0)?;
        for _ in 0..2 {
            check_outputs(&context.run(&inputs)?, &wanted, 1e-4, &format!("seed {seed}"))?;
        }
    }
    Ok(())
}

/// A convolution and a product that the copy engine reads, from the file to the outputs. Passes
/// where the device has none.
fn engines_with_tensor_maps() -> Result<(), Failed> {
    if arch()?.sm != 90 {
        return Ok(());
    }
    let graph = regions::tiled_graph();
    let inputs = inputs_of(&graph);
    let wanted = reference::run(&graph, &inputs)?;
    let mut file = Vec::new();
    engine::write(&built(&graph, DType::F16, &Selection::Predicted)?, &mut file)?;
    let engine = engine::read(&file)?;
    let launches = engine.header.programs[0].launches.iter();
    let n_maps = launches
        .flat_map(|launch| &launch.args)
        .filter(|arg| matches!(arg, engine::Arg::TensorMap(_)))
        .count();
    if n_maps == 0 {
        return Err("no launch takes a tensor map".into());
    }
    let mut context = pipeline::execution(&engine, 0)?;
    for _ in 0..2 {
        check_outputs(&context.run(&inputs)?, &wanted, 2e-2, "tensor maps")?;
    }
    Ok(())
}

/// The values of a trained network on the device, counted as those of the reference are.
fn calibration() -> Result<(), Failed> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/precision");
    for name in ["residual", "separable", "vit"] {
        let graph = onnx::import_file(&folder.join(format!("{name}.onnx")))?.graph;
        let declared = precise::declared(&graph);
        let mut samples = Samples::open(&folder.join("calibration.npz"), &declared, precise::ROWS)?;
        samples.truncate(4);
        let wanted = precise::statistics(&graph, &samples, None, &Silent)?;
        let found = precise::statistics_on_device(&graph, &samples, None, 0, &Silent)?;
        if found.n_batches != wanted.n_batches || !found.tensors.keys().eq(wanted.tensors.keys()) {
            return Err(format!("{name}: other tensors or batches are counted").into());
        }
        let ranges = |statistics: &Statistics| statistics.ranges(Method::MinMax, Number::Int8);
        for ((tensor, found), wanted) in ranges(&found).into_iter().zip(ranges(&wanted).into_values()) {
            let largest = wanted.0.abs().max(wanted.1);
            let off = (found.0 - wanted.0).abs().max((found.1 - wanted.1).abs());
            if off > 1e-4 * largest {
                return Err(format!("{name}, `{tensor}`: {found:?}, wanted {wanted:?}").into());
            }
        }
    }
    Ok(())
}

/// A model of products, a convolution-free chain long enough for split sums, for `n` rows.
fn rows(n: usize) -> Graph {
    let mut builder = GraphBuilder::new("rows", 1);
    let mut value = builder.input(&[n, 384]);
    for _ in 0..3 {
        let weight = builder.weight(&[384, 384]);
        let product = builder.plain("matmul", &[value, weight]);
        let scale = builder.scalar(0.05);
        let scaled = builder.plain("mul", &[product, scale]);
        value = builder.plain("relu", &[scaled]);
    }
    builder.output(value);
    builder.graph
}

/// More shapes than graphs are kept, which share kernels; some of them, back and forth.
fn wide_ranges() -> Result<(), Failed> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for model in ["tests/models/digits/model.onnx", "tests/precision/vit.onnx"] {
        let graph = onnx::import_file(&root.join(model))?.graph;
        let batch = |n: usize| vec![("image".to_owned(), vec![n, 1, 8, 8])];
        let range = ShapeRange {
            min: batch(1),
            opt: batch(8),
            max: batch(40),
        };
        let shapes = every_shape(&graph, &range, 40)?;
        let settings = settings(DType::F16);
        let engine = pipeline::compile_range(
            &graph,
            &shapes,
            &[arch()?],
            &settings,
            &Selection::Predicted,
            &Silent,
        )?;
        let mut context = pipeline::execution(&engine, 0)?;
        for n in [8, 1, 40, 2, 3, 17, 8, 32, 33, 39, 1, 16, 5] {
            let inputs = [drawn(&TensorType::new(DType::F32, &[n, 1, 8, 8]), 1)];
            let wanted = pipeline::run_reference(&graph, &inputs, &settings.in_f32())?;
            let case = format!("{model} for a batch of {n}");
            check_outputs(&context.run(&inputs)?, &wanted, 1e-2, &case)?;
        }
        let other = HostTensor::zeros(DType::F32, &[41, 1, 8, 8]);
        match context.run(&[other]) {
            Err(RuntimeError::InputType { wanted, .. }) if wanted == "f32[1 to 40,1,8,8]" => {}
            other => return Err(format!("{other:?}").into()),
        }
    }
    Ok(())
}

/// Branches of one execution on several streams give the bits that they give one after the other. Some are
/// joined by a sum, some by a tensor that each writes its box of.
fn branches() -> Result<(), Failed> {
    let mut builder = GraphBuilder::new("branches", 1);
    let x = builder.input(&[16, 256]);
    let ends: Vec<ValueId> = (0..4)
        .map(|_| {
            (0..4).fold(x, |value, _| {
                let weight = builder.weight(&[256, 256]);
                let product = builder.plain("matmul", &[value, weight]);
                builder.op("softmax", &[product], Attrs::new().with("axis", Attr::Int(1)))
            })
        })
        .collect();
    let sum = builder.plain("add", &ends[..2]);
    let parts = [sum, ends[2], ends[3]];
    let joined = builder.op("concat", &parts, Attrs::new().with("axis", Attr::Int(1)));
    builder.output(joined);
    let inputs = inputs_of(&builder.graph);
    let wanted = reference::run(&builder.graph, &inputs)?;
    let engine = built(&builder.graph, DType::F32, &Selection::Predicted)?;
    if engine.header.programs[0]
        .launches
        .iter()
        .all(|launch| launch.stream == 0)
    {
        return Err("no launch is on a stream of its own".into());
    }
    let mut alone = engine.clone();
    for launch in &mut alone.header.programs[0].launches {
        launch.stream = 0;
    }
    let first = pipeline::execution(&alone, 0)?.run(&inputs)?;
    check_outputs(&first, &wanted, 1e-4, "one stream")?;
    let mut context = pipeline::execution(&engine, 0)?;
    for number in 0..500 {
        if context.run(&inputs)? != first {
            return Err(format!("execution {number} differs").into());
        }
    }
    Ok(())
}

/// Models whose outputs data cuts short: on the host, and in the caller's memory with the dims asked for.
fn detectors() -> Result<(), Failed> {
    let mut draw = Draw::new(9);
    let detector = Detector {
        images: 2,
        boxes: 1200,
        classes: 5,
        most: 100,
        lowest: Some(0.2),
    };
    let cases: Vec<Vec<HostTensor>> = (0..3).map(|_| detector.inputs(&mut draw)).collect();
    check_detector(&detector.graph(), &cases)?;
    let masks = [0.0, 0.03, 0.6, 1.1].map(|share| {
        let mask = sparse(&mut draw, &[160, 130], share);
        vec![mask, draw.floats(DType::F32, &[160, 130, 3], -1.0, 1.0)]
    });
    check_detector(&masked(160, 130, 3), &masks)?;
    let kept = [(0.0, 7), (0.4, 0), (0.7, 20), (1.1, 600)]
        .map(|(share, wanted)| sizes_inputs(&mut draw, 600, share, wanted));
    check_detector(&sizes(600), &kept)?;
    a_limit_that_data_exceeds()
}

/// Data beyond a limit is an error, on the host and in the caller's memory.
fn a_limit_that_data_exceeds() -> Result<(), Failed> {
    let mut bounded = settings(DType::F32);
    bounded.bounds = vec![("wanted".to_owned(), 9)];
    let core = pipeline::lower(&sizes(40), &bounded)?;
    let mut context = pipeline::execution(&built(&core, DType::F32, &Selection::Predicted)?, 0)?;
    let mut draw = Draw::new(3);
    let inputs = sizes_inputs(&mut draw, 40, 0.5, 9);
    if context.run(&inputs)? != reference::run(&sizes(40), &inputs)? {
        return Err("what is within its limit differs".into());
    }
    match context.run(&sizes_inputs(&mut draw, 40, 0.5, 10)) {
        Err(RuntimeError::Limit {
            most: 9, found: 10, ..
        }) => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

fn check_detector(model: &Graph, cases: &[Vec<HostTensor>]) -> Result<(), Failed> {
    let core = pipeline::lower(model, &settings(DType::F32))?;
    let mut file = Vec::new();
    engine::write(&built(&core, DType::F32, &Selection::Predicted)?, &mut file)?;
    let engine = engine::read(&file)?;
    let cuda = context()?;
    let mut context = ExecutionContext::new(&DeviceEngine::load(&engine, &cuda)?)?;
    let memory = |bindings: &[engine::Binding]| -> Result<Vec<DeviceMemory>, Failed> {
        let sizes = bindings.iter().map(|binding| binding.ty().n_bytes());
        Ok(sizes
            .map(|size| DeviceMemory::new(&cuda, size))
            .collect::<Result<_, _>>()?)
    };
    let (from, to) = (
        memory(&context.profile().inputs)?,
        memory(&context.profile().outputs)?,
    );
    let uploads = Stream::new(&cuda)?;
    for inputs in cases {
        let wanted = reference::run(model, inputs)?;
        if context.run(inputs)? != wanted {
            return Err(format!("`{}` on the host differs", model.name).into());
        }
        for (memory, input) in from.iter().zip(inputs) {
            uploads.upload_now(memory, 0, input.bytes())?;
        }
        context.enqueue(
            0,
            &from.iter().collect::<Vec<_>>(),
            &to.iter().collect::<Vec<_>>(),
        )?;
        let dims = context.output_dims()?;
        let bindings = &context.profile().outputs;
        for (((memory, binding), dims), wanted) in to.iter().zip(bindings).zip(&dims).zip(&wanted) {
            let mut bytes = vec![0; memory.len()];
            uploads.download_now(&mut bytes, memory, 0)?;
            let whole = HostTensor::from_bytes(binding.dtype, &binding.dims, &bytes);
            if whole.map(|whole| whole.first(dims)).as_ref() != Some(wanted) {
                return Err(format!("`{}` in the caller's memory differs", binding.name).into());
            }
        }
    }
    Ok(())
}

fn wrong_inputs() -> Result<(), Failed> {
    let graph = graphs::core(5, 6);
    let mut context = pipeline::execution(&built(&graph, DType::F32, &Selection::Predicted)?, 0)?;
    let wrong = HostTensor::zeros(DType::I64, &[3, 1, 4]);
    let inputs = vec![wrong; graph.inputs.len()];
    match context.run(&inputs) {
        Err(RuntimeError::InputType { .. }) => {}
        other => return Err(format!("{other:?}").into()),
    }
    match context.run(&[]) {
        Err(RuntimeError::InputCount { .. }) => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

/// An engine with other kernels computes the same, is no slower, and comes from the file alone once more.
fn retuning() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    for (seed, precision, bound) in [(7, DType::F32, 1e-4), (11, DType::F16, 2e-2)] {
        let graph = graphs::core(seed, 16);
        let inputs = inputs_of(&graph);
        let wanted = reference::run(&graph, &inputs)?;
        let database = folder.path().join(seed.to_string());
        let on_device = Selection::OnDevice {
            ordinal: 0,
            max_variants: 6,
            time: true,
            database: Some(database.clone()),
            until: None,
        };
        let before = built(&graph, precision, &Selection::Predicted)?;
        let (tuned, renewals) = pipeline::retune(&before, &on_device, &Silent)?;
        for [before, after] in renewals.iter().filter_map(|own| own.us) {
            if after > before {
                return Err(format!("{after} us instead of {before}").into());
            }
        }
        let outputs = pipeline::execution(&tuned, 0)?.run(&inputs)?;
        check_outputs(&outputs, &wanted, bound, &format!("seed {seed}"))?;
        let noted = Database::load(&database)?;
        if pipeline::retune(&before, &on_device, &Silent)?.0 != tuned || Database::load(&database)? != noted {
            return Err("the second time differs".into());
        }
        let recorded = Selection::Recorded {
            max_variants: 6,
            database,
        };
        if pipeline::retune(&before, &recorded, &Silent)?.0 != tuned {
            return Err("the engine by the file alone differs".into());
        }
    }
    Ok(())
}

/// A second build takes all times from the file, and gives the same engine.
fn tuning() -> Result<(), Failed> {
    let graph = graphs::core(7, 16);
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("times");
    let selection = Selection::OnDevice {
        ordinal: 0,
        max_variants: 4,
        time: true,
        database: Some(path.clone()),
        until: None,
    };
    let first = built(&graph, DType::F32, &selection)?;
    let noted = Database::load(&path)?;
    if noted.is_empty() {
        return Err("nothing was noted".into());
    }
    let second = built(&graph, DType::F32, &selection)?;
    if Database::load(&path)? != noted {
        return Err("the second build measured again".into());
    }
    if first != second {
        return Err("the second build differs".into());
    }
    let recorded = Selection::Recorded {
        max_variants: 4,
        database: path,
    };
    if first != built(&graph, DType::F32, &recorded)? {
        return Err("the engine by the file alone differs".into());
    }
    let hurried = Selection::OnDevice {
        ordinal: 0,
        max_variants: 4,
        time: true,
        database: None,
        until: Some(Instant::now()),
    };
    let hurried = built(&graph, DType::F32, &hurried)?;
    let inputs = inputs_of(&graph);
    let wanted = reference::run(&graph, &inputs)?;
    for (engine, name) in [(first, "tuned"), (hurried, "tuned in no time")] {
        let outputs = pipeline::execution(&engine, 0)?.run(&inputs)?;
        check_outputs(&outputs, &wanted, 1e-4, name)?;
    }
    Ok(())
}
