//! `run`: executes a model or an engine on given inputs.

use std::path::Path;

use super::args::RunArgs;
use super::failure::Failure;
use super::manifest::{self, Case};
use super::out;
use crate::ir::HostTensor;
use crate::{io, onnx, ops, pipeline};

pub fn run(args: &RunArgs) -> Result<(), Failure> {
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

fn run_case(_args: &RunArgs, case: &Case) -> Result<Named, Failure> {
    run_model_on_cpu(&case.model, &case.inputs, &case.outputs)
}

fn run_model_on_cpu(model: &Path, inputs: &Path, outputs: &Path) -> Result<Named, Failure> {
    let model = onnx::import_file(model)?;
    let inputs = io::read_inputs(inputs, &pipeline::ports(&model.graph))?;
    let results = pipeline::run_reference(&model.graph, &inputs)?;
    io::write_outputs(outputs, &model.graph.output_names, &results)?;
    Ok(model.graph.output_names.into_iter().zip(results).collect())
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
