//! Outputs by ONNX Runtime, where its Python package is installed.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use super::super::failure::Failure;
use crate::io;
use crate::ir::{Graph, HostTensor};
use crate::pipeline;

/// Reads model, inputs and place of the outputs from its arguments.
const SCRIPT: &str = "\
import sys
import numpy
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])
inputs = numpy.load(sys.argv[2])
names = [output.name for output in session.get_outputs()]
feeds = {entry.name: inputs[entry.name] for entry in session.get_inputs()}
numpy.savez(sys.argv[3], **dict(zip(names, session.run(names, feeds))))
";

/// Runs `model` by `python3` (or `RTRT_PYTHON`) on the CPU.
///
/// # Errors
/// If Python or the package is missing, or the run fails.
pub fn run(model: &Path, graph: &Graph, inputs: &[HostTensor]) -> Result<Vec<HostTensor>, Failure> {
    let folder =
        tempfile::tempdir().map_err(|error| Failure::failed(format!("no folder for files: {error}")))?;
    let (feeds, results) = (
        folder.path().join("inputs.npz"),
        folder.path().join("outputs.npz"),
    );
    let ports = pipeline::ports(graph);
    let names: Vec<String> = ports.into_iter().map(|port| port.name).collect();
    io::write_outputs(&feeds, &names, inputs)?;
    let python = std::env::var_os("RTRT_PYTHON").unwrap_or_else(|| "python3".into());
    let missing =
        |error: std::io::Error| Failure::failed(format!("cannot start `{}`: {error}", python.display()));
    let mut child = Command::new(&python)
        .arg("-")
        .args([model, &feeds, &results])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(missing)?;
    let mut stdin = child.stdin.take().expect("it was asked for");
    // A Python that ended early says so on stderr.
    let _ = stdin.write_all(SCRIPT.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().map_err(missing)?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let reason = stderr.trim().lines().last().unwrap_or("no message").to_owned();
        return Err(Failure::failed(format!(
            "ONNX Runtime did not run the model: {reason}\nhelp: `pip install onnxruntime`, or name a Python that has \
             it in RTRT_PYTHON"
        )));
    }
    let expected: Vec<io::Port> = super::output_ports(graph);
    Ok(io::read_inputs(&results, &expected)?)
}
