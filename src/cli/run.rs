//! `run`: executes a model or an engine on given inputs.

use super::args::RunArgs;
use super::device::Device;
use super::failure::Failure;
use super::manifest::{self, Case};
use super::{build, inspect, model, out, precision};
use crate::io::Port;
use crate::ir::HostTensor;
use crate::pipeline;
use crate::runtime::ExecutionContext;
use crate::{io, onnx, ops};

pub fn run(args: &RunArgs) -> Result<(), Failure> {
    build::check_rules(&build::settings(&args.build)?)?;
    precision::check(&args.build)?;
    if let Some(path) = &args.manifest {
        return manifest::serve(path, |case| run_case(args, case).map(|_| ()));
    }
    let (Some(model), Some(inputs), Some(outputs)) = (&args.model, &args.inputs, &args.outputs) else {
        return Err(Failure::usage(
            "run needs a model, `--inputs` and `--outputs`, or `--manifest`",
        ));
    };
    let case = Case {
        model: model.clone(),
        inputs: inputs.clone(),
        outputs: outputs.clone(),
    };
    let results = run_case(args, &case)?;
    match args.top {
        Some(n_entries) => results
            .iter()
            .try_for_each(|(name, tensor)| print_top(name, tensor, n_entries)),
        None => Ok(()),
    }
}

type Named = Vec<(String, HostTensor)>;

fn run_case(args: &RunArgs, case: &Case) -> Result<Named, Failure> {
    let device = Device::of(args.device.as_deref())?;
    let (names, results) = if inspect::is_engine(&case.model)? {
        run_engine(args, case, device)?
    } else {
        model::check_unsigned(&case.model, &args.trust)?;
        let model = onnx::import_file(&case.model)?;
        let inputs = io::read_inputs(&case.inputs, &pipeline::ports(&model.graph))?;
        let settings = build::settings(&args.build)?;
        let arch = match device {
            Device::Cpu => None,
            Device::Cuda(ordinal) => Some(pipeline::arch_of_device(ordinal)?),
        };
        let decided = precision::decide(model.graph, &args.build, settings, arch, &pipeline::Silent)?;
        let (graph, settings) = (decided.graph, decided.settings);
        let results = match device {
            Device::Cpu => pipeline::run_reference(&graph, &inputs, &settings)?,
            Device::Cuda(ordinal) => pipeline::run_on_device(&graph, &inputs, &settings, ordinal)?,
        };
        (graph.output_names, results)
    };
    io::write_outputs(&case.outputs, &names, &results)?;
    Ok(names.into_iter().zip(results).collect())
}

/// Names and values of an engine's outputs.
type Outputs = (Vec<String>, Vec<HostTensor>);

fn run_engine(args: &RunArgs, case: &Case, device: Device) -> Result<Outputs, Failure> {
    let Device::Cuda(ordinal) = device else {
        return Err(Failure::refused(
            "an engine on the CPU",
            "run the model with `--device cpu`, or the engine on a GPU",
        ));
    };
    let engine = model::engine(&case.model, &args.trust)?;
    let mut context = pipeline::execution(&engine, ordinal)?;
    let inputs = io::read_inputs(&case.inputs, &engine_ports(&context))?;
    let results = context.run(&inputs)?;
    let names = context
        .profile()
        .outputs
        .iter()
        .map(|binding| binding.name.clone())
        .collect();
    Ok((names, results))
}

fn engine_ports(context: &ExecutionContext) -> Vec<Port> {
    let port = |binding: &crate::engine::Binding| Port {
        name: binding.name.clone(),
        dtype: Some(binding.dtype),
    };
    context.profile().inputs.iter().map(port).collect()
}

/// One line per row of the last axis: its largest entries with their positions.
fn print_top(name: &str, tensor: &HostTensor, n_entries: usize) -> Result<(), Failure> {
    let values: Vec<f64> = ops::evaluate::to_vec(tensor);
    let row_length = tensor.dims().last().copied().unwrap_or(1).max(1);
    for (row, values) in values.chunks_exact(row_length).enumerate() {
        let mut order: Vec<usize> = (0..row_length).collect();
        order.sort_by(|&a, &b| values[b].total_cmp(&values[a]).then(a.cmp(&b)));
        let entries: Vec<String> = order
            .iter()
            .take(n_entries)
            .map(|&entry| format!("{entry} ({:.4})", values[entry]))
            .collect();
        out::line(&format!("{name}[{row}]: {}", entries.join(", ")))?;
    }
    Ok(())
}
