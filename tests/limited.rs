//! Engines under a limit of memory compute what the model means: launch by launch, in one block of memory as they say
//! themselves, and every kernel of them on the CPU. Needs NVRTC; without g++ the kernels are not run.

#![cfg(feature = "builder")]

#[path = "hostexec/harness.rs"]
mod harness;
mod tiers;
#[path = "hostexec/translation.rs"]
mod translation;

use std::collections::BTreeMap;

use harness::{Case, have_compiler, run_all};
use rtrt_codegen::engine::{self, Engine, Launch, Memory, Place, Program};
use rtrt_codegen::ir::{Attr, Attrs, DType, Graph, HostTensor, TensorType, ValueId};
use rtrt_codegen::kernel::{self, Arch};
use rtrt_codegen::ops::evaluate::to_vec;
use rtrt_codegen::pipeline::{self, PipelineError, Selection, Settings, Silent};
use rtrt_codegen::testing::builder::{GraphBuilder, ints};
use rtrt_codegen::tune::Problem;
use rtrt_codegen::{plan, reference};
use translation::poison;

const ARCH: Arch = Arch {
    sm: 87,
    specific: false,
};

/// Memory that an engine executes in.
struct Device<'a> {
    program: &'a Program,
    weights: &'a [u8],
    arena: Vec<u8>,
}

impl<'a> Device<'a> {
    fn of(engine: &'a Engine) -> Self {
        let program = &engine.header.programs[0];
        Device {
            program,
            weights: engine.weights(),
            // Nothing is what it was before.
            arena: vec![0xff; program.arena_bytes],
        }
    }

    fn read(&self, place: &Place, ty: &TensorType) -> HostTensor {
        let memory = match place.memory {
            Memory::Arena => &self.arena,
            Memory::Weights => self.weights,
            Memory::Workspace => panic!("no operand is in scratch memory"),
        };
        let bytes = &memory[place.offset..place.offset + place.len];
        HostTensor::from_bytes(ty.dtype, &ty.dims(), bytes).unwrap()
    }

    fn write(&mut self, place: &Place, data: &HostTensor) {
        assert_eq!((place.memory, place.len), (Memory::Arena, data.n_bytes()));
        self.arena[place.offset..place.offset + place.len].copy_from_slice(data.bytes());
    }

    /// Executes a launch, and gives what it read.
    fn launch(&mut self, launch: &Launch, problem: &Problem) -> Vec<HostTensor> {
        let (task, spec) = (launch.task.as_ref().unwrap(), &problem.spec);
        let types = spec.input_types();
        let read = task.inputs.iter().zip(&types);
        let operands: Vec<HostTensor> = read.map(|(place, ty)| self.read(place, ty)).collect();
        let results = reference::run(&spec.body, &operands).unwrap();
        for (output, (result, place)) in results.into_iter().zip(&task.outputs).enumerate() {
            let data = match spec.placements.get(&output) {
                None => result,
                Some(placement) => {
                    let mut whole = self.read(place, &spec.stored_types()[output]);
                    placement.paste(&result, &mut whole);
                    whole
                }
            };
            self.write(place, &data);
        }
        operands
    }
}

/// The outputs of `engine`, and what each of its kernels read where it is launched first.
fn executed(engine: &Engine, inputs: &[HostTensor]) -> (Vec<HostTensor>, Vec<(Problem, Vec<HostTensor>)>) {
    let mut device = Device::of(engine);
    let program = device.program;
    for (place, data) in program.inputs.iter().zip(inputs) {
        device.write(place, data);
    }
    let posed = plan::posed(engine, 0).unwrap();
    let mut kernels: BTreeMap<usize, (Problem, Vec<HostTensor>)> = BTreeMap::new();
    for (launch, problem) in program.launches.iter().zip(posed) {
        let operands = device.launch(launch, &problem);
        kernels.entry(launch.kernel).or_insert((problem, operands));
    }
    let profile = &engine.header.profiles[program.profile];
    let outputs = program.outputs.iter().zip(&profile.outputs);
    let outputs = outputs.map(|(place, output)| device.read(place, &output.ty()));
    (outputs.collect(), kernels.into_values().collect())
}

/// Runs kernels of an engine on the CPU.
fn assert_kernels_are_right(kernels: &[(Problem, Vec<HostTensor>)], tolerance: f64) {
    if !have_compiler() {
        return;
    }
    let (mut cases, mut wanted) = (Vec::new(), Vec::new());
    for (problem, operands) in kernels {
        let variant = problem.variants(ARCH).swap_remove(0);
        let case = Case {
            label: format!("{} {:?}", variant.template, variant.knobs),
            source: kernel::render(&problem.spec, &variant, ARCH).unwrap(),
            inputs: operands.clone(),
            weights: problem.spec.weights.clone(),
            outputs: problem.spec.stored_types(),
        };
        let results = reference::run(&problem.spec.body, operands).unwrap();
        wanted.push(problem.spec.stored(results, poison(&case)));
        cases.push(case);
    }
    for ((case, found), wanted) in cases.iter().zip(run_all(&cases)).zip(&wanted) {
        for (found, wanted) in found
            .launches
            .iter()
            .flat_map(|outputs| outputs.iter().zip(wanted))
        {
            assert_close(found, wanted, tolerance, &case.label);
        }
    }
}

fn assert_close(found: &HostTensor, wanted: &HostTensor, tolerance: f64, case: &str) {
    let pairs = to_vec::<f64>(found).into_iter().zip(to_vec::<f64>(wanted));
    for (a, b) in pairs {
        // What is not written stays no number.
        let is_close = (a - b).abs() <= tolerance * (1.0 + b.abs());
        assert!(is_close || (a.is_nan() && b.is_nan()), "{case}: {a} is not {b}");
    }
}

fn settings(precision: DType, max_memory: Option<usize>) -> Settings {
    Settings {
        max_memory,
        ..Settings::stored_in(precision)
    }
}

fn compiled(graph: &Graph, precision: DType, max_memory: Option<usize>) -> Result<Engine, PipelineError> {
    let settings = settings(precision, max_memory);
    let core = pipeline::lower(graph, &settings)?;
    let selection = Selection::Predicted;
    pipeline::compile(
        std::slice::from_ref(&core),
        &[ARCH],
        &settings,
        &selection,
        &Silent,
    )
}

fn least(graph: &Graph, precision: DType) -> usize {
    match compiled(graph, precision, Some(1)) {
        Err(PipelineError::Memory { least, kept, .. }) => {
            assert!(kept <= least);
            least
        }
        other => panic!("one byte is allowed: {other:?}"),
    }
}

/// Gives what the kernels of `engine` read.
fn assert_right(
    engine: &Engine,
    graph: &Graph,
    inputs: &[HostTensor],
    tolerance: f64,
) -> Vec<(Problem, Vec<HostTensor>)> {
    let wanted = reference::run(graph, inputs).unwrap();
    let (found, kernels) = executed(engine, inputs);
    for (found, wanted) in found.iter().zip(&wanted) {
        assert_close(found, wanted, tolerance, &graph.name);
    }
    kernels
}

fn conv(
    builder: &mut GraphBuilder,
    x: ValueId,
    filter: [usize; 4],
    [strides, pads, group]: [i64; 3],
) -> ValueId {
    let w = builder.weight(&filter);
    let attrs = Attrs::new()
        .with("strides", ints(&[strides; 2]))
        .with("pads", ints(&[pads; 4]))
        .with("dilations", ints(&[1; 2]))
        .with("group", Attr::Int(group));
    builder.op("conv", &[x, w], attrs)
}

/// Pictures that are widened, filtered channel by channel and narrowed, beside a branch that they are joined with.
fn pictures() -> GraphBuilder {
    let mut builder = GraphBuilder::new("pictures", 3);
    let x = builder.input(&[1, 3, 16, 16]);
    let first = conv(&mut builder, x, [8, 3, 3, 3], [1, 1, 1]);
    let first = builder.plain("relu", &[first]);
    let wide = conv(&mut builder, first, [40, 8, 1, 1], [1, 0, 1]);
    let gate = builder.plain("sigmoid", &[wide]);
    let wide = builder.plain("mul", &[wide, gate]);
    let alone = conv(&mut builder, wide, [40, 1, 3, 3], [2, 1, 40]);
    let narrow = conv(&mut builder, alone, [8, 40, 1, 1], [1, 0, 1]);
    let other = conv(&mut builder, first, [8, 8, 3, 3], [2, 1, 1]);
    let joined = builder.op(
        "concat",
        &[narrow, other],
        Attrs::new().with("axis", Attr::Int(1)),
    );
    let last = conv(&mut builder, joined, [4, 16, 1, 1], [1, 0, 1]);
    builder.output(last);
    builder
}

/// Filtered pictures of which two in a row are large, so that strips of one of them leave the other one whole.
fn stacked() -> GraphBuilder {
    let mut builder = GraphBuilder::new("stacked", 4);
    let mut x = builder.input(&[1, 3, 24, 24]);
    for [channels, of, strides] in [[3, 32, 1], [32, 32, 1], [32, 16, 2]] {
        let strides = i64::try_from(strides).unwrap();
        x = conv(&mut builder, x, [of, channels, 3, 3], [strides, 1, 1]);
        x = builder.plain("relu", &[x]);
    }
    let last = conv(&mut builder, x, [4, 16, 1, 1], [1, 0, 1]);
    builder.output(last);
    builder
}

#[test]
fn large_values_come_in_strips_where_they_must() {
    if !tiers::have_nvrtc() {
        return;
    }
    // What is left of the arena, in parts of a hundred.
    for (mut builder, precision, tolerance, left) in [
        (pictures(), DType::F32, 1e-3, 80),
        (pictures(), DType::F16, 3e-2, 80),
        (stacked(), DType::F32, 1e-3, 50),
    ] {
        let inputs = builder.inputs();
        let graph = builder.graph;
        let free = compiled(&graph, precision, None).unwrap();
        let least = least(&graph, precision);
        let engine = compiled(&graph, precision, Some(least)).unwrap();
        let (whole, limited) = (&free.header.programs[0], &engine.header.programs[0]);
        assert_eq!(engine.device_bytes(), least);
        assert!(
            100 * limited.arena_bytes < left * whole.arena_bytes,
            "{} of {} bytes in `{}`",
            limited.arena_bytes,
            whole.arena_bytes,
            graph.name
        );
        assert!(limited.launches.len() > whole.launches.len());
        let kernels = assert_right(&engine, &graph, &inputs, tolerance);
        assert_kernels_are_right(&kernels, tolerance);
        let without = engine::stripped::strip(&engine).unwrap();
        let refitted = pipeline::refit(
            &without,
            &graph,
            &[Vec::new()],
            &[ARCH],
            &settings(precision, Some(least)),
        );
        assert!(refitted.unwrap() == engine, "strips of weights are found again");
        // One byte less is refused, with the same answer.
        match compiled(&graph, precision, Some(least - 1)) {
            Err(PipelineError::Memory { least: still, .. }) => assert_eq!(still, least),
            other => panic!("{other:?}"),
        }
        // Where more is allowed, less is given up.
        let between = usize::midpoint(least, free.device_bytes());
        let engine = compiled(&graph, precision, Some(between)).unwrap();
        assert!(engine.device_bytes() <= between);
        assert!(engine.header.programs[0].launches.len() <= limited.launches.len());
        assert_right(&engine, &graph, &inputs, tolerance);
    }
}

/// Products of a few rows and columns and of many terms, whose sums are split, behind branches of different widths.
fn deep() -> GraphBuilder {
    let mut builder = GraphBuilder::new("deep", 1);
    let x = builder.input(&[16, 64]);
    let wide: Vec<ValueId> = (0..3)
        .map(|_| {
            let weight = builder.weight(&[64, 2048]);
            let product = builder.plain("matmul", &[x, weight]);
            builder.op("softmax", &[product], Attrs::new().with("axis", Attr::Int(1)))
        })
        .collect();
    for value in wide {
        let weight = builder.weight(&[2048, 16]);
        let narrow = builder.plain("matmul", &[value, weight]);
        builder.output(narrow);
    }
    builder
}

#[test]
fn orders_and_scratch_memory_that_are_given_up_change_no_result() {
    if !tiers::have_nvrtc() {
        return;
    }
    let mut builder = deep();
    let inputs = builder.inputs();
    let graph = builder.graph;
    let free = compiled(&graph, DType::F32, None).unwrap();
    let scratch = free.header.programs[0].workspace_bytes;
    assert!(scratch > 0);
    let most = free.device_bytes();
    let mut bytes = Vec::new();
    for limit in [
        most - 1,
        most - scratch / 2,
        most - scratch,
        least(&graph, DType::F32),
    ] {
        let engine = compiled(&graph, DType::F32, Some(limit)).unwrap();
        assert!(engine.device_bytes() <= limit);
        bytes.push(engine.device_bytes());
        assert_right(&engine, &graph, &inputs, 1e-3);
    }
    assert!(
        bytes.is_sorted_by(|a, b| a >= b) && bytes[3] < bytes[0],
        "{bytes:?}"
    );
}
