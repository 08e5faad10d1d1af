//! trtexec's JSON files, in its shapes.

use std::io::Write;
use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use super::super::failure::Failure;
use super::profile::KernelTime;
use crate::aside::write_aside;
use crate::engine::{Arg, Binding, Launch, Memory, Place, Profile, Program};
use crate::ir::HostTensor;
use crate::ops::evaluate::to_vec;
use crate::runtime::Trace;

/// Begin, end and length of the parts of every execution.
pub fn times(traces: &[Trace]) -> Value {
    let entry = |trace: &Trace| {
        json!({
            "startEnqMs": trace.enqueue.start, "endEnqMs": trace.enqueue.end,
            "startH2dMs": trace.upload.start, "endH2dMs": trace.upload.end,
            "startComputeMs": trace.compute.start, "endComputeMs": trace.compute.end,
            "startD2hMs": trace.download.start, "endD2hMs": trace.download.end,
            "h2dMs": trace.upload.length(), "computeMs": trace.compute.length(),
            "d2hMs": trace.download.length(), "latencyMs": trace.latency(),
        })
    };
    traces.iter().map(entry).collect()
}

/// The time of each kernel, after the number of times each was timed.
pub fn profile(kernels: &[KernelTime]) -> Value {
    let count = kernels.first().map_or(0, |kernel| kernel.times_us.len());
    let total: f64 = kernels.iter().map(KernelTime::total_ms).sum();
    let entry = |kernel: &KernelTime| {
        json!({
            "name": kernel.layer(),
            "timeMs": kernel.total_ms(),
            "averageMs": kernel.alone_us / 1e3,
            "medianMs": kernel.median_us() / 1e3,
            "percentage": kernel.total_ms() / total * 100.0,
        })
    };
    std::iter::once(json!({ "count": count }))
        .chain(kernels.iter().map(entry))
        .collect()
}

/// Kernels and bindings. Tensors between kernels have no names in an engine: they are told by
/// their memory, offset and size in bytes.
pub fn layers(program: &Program, profile: &Profile) -> Value {
    let Profile { inputs, outputs, .. } = profile;
    let inputs_here = program.inputs.iter().zip(inputs);
    let named: Vec<(&Place, &Binding)> = inputs_here.chain(program.outputs.iter().zip(outputs)).collect();
    let layers: Vec<Value> = program
        .launches
        .iter()
        .map(|launch| layer(program, launch, &named))
        .collect();
    let bindings: Vec<&str> = inputs
        .iter()
        .chain(outputs)
        .map(|binding| &*binding.name)
        .collect();
    json!({ "Layers": layers, "Bindings": bindings })
}

fn layer(program: &Program, launch: &Launch, named: &[(&Place, &Binding)]) -> Value {
    let kernel = &program.kernels[launch.kernel];
    let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
    for arg in &launch.args {
        match arg {
            Arg::Reads(place) => inputs.push(tensor(place, named)),
            Arg::TensorMap(map) => inputs.push(tensor(&map.place, named)),
            Arg::Writes(place) => outputs.push(tensor(place, named)),
            Arg::I32(_) => {}
        }
    }
    json!({
        "Name": super::profile::layer_name(&kernel.name, &launch.nodes),
        "LayerType": kernel.template,
        "Inputs": inputs,
        "Outputs": outputs,
        "ParameterType": kernel.template,
        "TacticName": kernel.name,
        "TacticValue": kernel.variant,
        "StreamId": 0,
        "Metadata": launch.nodes.iter().map(|node| format!("[ONNX Layer: {node}]")).collect::<Vec<_>>().join("\u{1e}"),
    })
}

fn tensor(place: &Place, named: &[(&Place, &Binding)]) -> Value {
    let binding = named.iter().find(|(own, _)| *own == place);
    match binding {
        Some((_, binding)) => json!({
            "Name": binding.name, "Location": "Device", "Dimensions": binding.dims,
            "Format/Datatype": binding.dtype.name(),
        }),
        None => json!({
            "Name": format!("{}+{}", memory_name(place.memory), place.offset), "Location": "Device",
            "Dimensions": [place.len], "Format/Datatype": "bytes",
        }),
    }
}

fn memory_name(memory: Memory) -> &'static str {
    match memory {
        Memory::Arena => "arena",
        Memory::Weights => "weights",
        Memory::Workspace => "workspace",
    }
}

/// Values of the outputs.
pub fn outputs(bindings: &[Binding], tensors: &[HostTensor]) -> Value {
    let entry = |(binding, tensor): (&Binding, &HostTensor)| {
        let dims: Vec<String> = tensor.dims().iter().map(ToString::to_string).collect();
        json!({ "name": binding.name, "dimensions": dims.join("x"), "values": to_vec::<f64>(tensor) })
    };
    bindings.iter().zip(tensors).map(entry).collect()
}

/// Writes a report aside and renames it.
pub fn write(path: &Path, report: &impl Serialize) -> Result<(), Failure> {
    let written = write_aside(path, |into| {
        serde_json::to_writer_pretty(&mut *into, report)?;
        into.write_all(b"\n")
    });
    written.map_err(|error| Failure::failed(format!("cannot write `{}`: {error}", path.display())))
}
