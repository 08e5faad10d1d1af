//! One model with its weights, inputs and expected outputs.

use std::fs;
use std::path::{Path, PathBuf};

use rtrt_codegen::io::{self, Port};
use rtrt_codegen::ir::{Graph, HostTensor};
use rtrt_codegen::ops::evaluate::to_vec;
use rtrt_codegen::rewrite::RuleSet;
use rtrt_codegen::rewrite::canonicalize::rewrite_model;
use rtrt_codegen::{onnx, pipeline, specialize};
use serde_json::Value;

use crate::recipe;

pub struct Case {
    pub name: String,
    pub graph: Graph,
    pub n_nodes: usize,
    folder: PathBuf,
    recipe: Value,
}

/// An expected output: some of its elements.
pub struct Expected {
    /// Flat indices; all of them where there are none.
    indices: Option<Vec<usize>>,
    values: Vec<f64>,
}

/// How far outputs are off.
#[derive(Clone, Copy, Debug, Default)]
pub struct Error {
    /// 2-norm of the difference over that of what was expected.
    pub relative: f64,
    /// Largest difference over what the tolerance allows.
    pub of_tolerance: f64,
}

fn json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

impl Case {
    /// Makes the weights where they are missing, and imports the model.
    pub fn prepare(from: &Path, name: &str) -> Result<Case, String> {
        let recipe = json(&from.join("weights.json")).unwrap_or(Value::Null);
        let folder = match recipe["file"].as_str() {
            Some(file) if !from.join(file).is_file() => filled(from, name, file, &recipe)?,
            _ => from.to_path_buf(),
        };
        let model = onnx::import_file(&folder.join("model.onnx")).map_err(|error| error.to_string())?;
        Ok(Case {
            name: name.to_owned(),
            graph: rewrite_model(&model.graph, RuleSet::builtin()),
            n_nodes: model.n_nodes,
            folder: from.to_path_buf(),
            recipe,
        })
    }

    pub fn n_data_sets(&self) -> usize {
        (0..usize::MAX)
            .take_while(|n| self.folder.join(format!("data_{n}")).is_dir())
            .count()
    }

    pub fn inputs(&self, set: usize) -> Result<Vec<HostTensor>, String> {
        let ports = pipeline::ports(&self.graph);
        let ports = ports.iter().enumerate();
        ports.map(|(n, port)| self.input(set, n, port)).collect()
    }

    fn input(&self, set: usize, n: usize, port: &Port) -> Result<HostTensor, String> {
        let file = format!("data_{set}/input_{n}.pb");
        let path = self.folder.join(&file);
        if path.is_file() {
            return onnx::read_tensor(&path).map_err(|error| error.to_string());
        }
        let entries = self.recipe["inputs"].as_array().into_iter().flatten();
        let entry = entries.into_iter().find(|entry| entry["file"] == file.as_str());
        let data = entry.and_then(recipe::tensor);
        data.ok_or_else(|| format!("no data for input `{}`", port.name))
    }

    /// The static graph for the shapes of a data set.
    pub fn specialized(&self, inputs: &[HostTensor]) -> Result<Graph, String> {
        let bindings = specialize::bind_inputs(&self.graph, inputs).map_err(|error| error.to_string())?;
        specialize::specialize(&self.graph, &bindings).map_err(|error| error.to_string())
    }

    pub fn expected(&self, set: usize) -> Result<Vec<Expected>, String> {
        let folder = self.folder.join(format!("data_{set}"));
        (0..self.graph.outputs.len())
            .map(|n| Expected::read(&folder, n))
            .collect()
    }

    /// `rtol` and `atol` for f32.
    pub fn tolerance(&self) -> (f64, f64) {
        let own = json(&self.folder.join("data.json")).unwrap_or(Value::Null);
        let number = |name: &str, default: f64| own[name].as_f64().unwrap_or(default);
        (number("rtol", 1e-3), number("atol", 1e-7))
    }
}

/// A copy of the model below the target folder, with weights.
fn filled(from: &Path, name: &str, file: &str, recipe: &Value) -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("models").join(name);
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let wanted = recipe["bytes"].as_u64();
    let found = fs::metadata(folder.join(file))
        .ok()
        .map(|metadata| metadata.len());
    if found.is_none() || found != wanted {
        recipe::write_weights(recipe, &folder)?;
    }
    fs::copy(from.join("model.onnx"), folder.join("model.onnx")).map_err(|error| error.to_string())?;
    Ok(folder)
}

impl Expected {
    fn read(folder: &Path, n: usize) -> Result<Expected, String> {
        let whole = folder.join(format!("output_{n}.pb"));
        if whole.is_file() {
            let data = onnx::read_tensor(&whole).map_err(|error| error.to_string())?;
            return Ok(Expected {
                indices: None,
                values: to_vec(&data),
            });
        }
        let ports = ["index", "value"].map(|name| Port {
            name: name.to_owned(),
            dtype: None,
        });
        let sample = folder.join(format!("output_{n}.sample.npz"));
        let arrays = io::read_inputs(&sample, &ports).map_err(|error| error.to_string())?;
        let indices = to_vec::<i64>(&arrays[0]);
        Ok(Expected {
            indices: Some(indices.into_iter().map(position).collect()),
            values: to_vec(&arrays[1]),
        })
    }

    pub fn error(&self, found: &HostTensor, (rtol, atol): (f64, f64)) -> Result<Error, String> {
        let all = to_vec::<f64>(found);
        let found = match &self.indices {
            None => all,
            Some(indices) => {
                let at = |&index: &usize| all.get(index).copied();
                let taken: Option<Vec<f64>> = indices.iter().map(at).collect();
                taken.ok_or("an output is smaller than expected")?
            }
        };
        if found.len() != self.values.len() {
            return Err(format!(
                "an output has {} elements, expected {}",
                found.len(),
                self.values.len()
            ));
        }
        let (mut off, mut norm) = (0.0, 0.0);
        let mut worst: f64 = 0.0;
        for (&found, &expected) in found.iter().zip(&self.values) {
            if found.is_nan() != expected.is_nan() {
                return Err(format!("found {found}, expected {expected}"));
            }
            if expected.is_finite() || found.is_finite() {
                off += (found - expected).powi(2);
                norm += expected.powi(2);
                worst = worst.max((found - expected).abs() / (atol + rtol * expected.abs()));
            }
        }
        Ok(Error {
            relative: (off / norm.max(1e-300)).sqrt(),
            of_tolerance: worst,
        })
    }
}

fn position(index: i64) -> usize {
    usize::try_from(index).expect("positions of elements are not negative")
}
