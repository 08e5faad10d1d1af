//! Many inputs for one model: samples for calibrating, or held out for judging.
//!
//! They come from an npz whose arrays have a leading axis of samples, or from a folder: of npz files,
//! or of folders with `input_<j>.pb` or `.npy` (as ONNX's `test_data_set_<n>`).

use std::path::{Path, PathBuf};

use super::{IoError, Port, npz, read_inputs};
use crate::ir::{DType, Dim, HostTensor, TensorType};

/// Inputs in batches that a model takes, each read when it is asked for.
#[derive(Debug)]
pub struct Samples {
    ports: Vec<Port>,
    batches: Vec<Batch>,
}

#[derive(Clone, Debug)]
enum Batch {
    Read(Vec<HostTensor>),
    At(PathBuf),
}

/// An input as a model declares it, with its shape where it is known.
#[derive(Clone, Debug)]
pub struct Declared {
    pub port: Port,
    pub ty: Option<TensorType>,
}

impl Samples {
    /// Finds the samples at `path`. Where every input has a free first dim, `rows` samples of an npz
    /// make one batch.
    ///
    /// # Errors
    /// If there are none, or an array does not fit what it is for.
    pub fn open(path: &Path, inputs: &[Declared], rows: usize) -> Result<Self, IoError> {
        let ports: Vec<Port> = inputs.iter().map(|input| input.port.clone()).collect();
        let batches = if path.is_dir() {
            in_folder(path, &ports)?.into_iter().map(Batch::At).collect()
        } else {
            let arrays = npz::read(path, &ports)?;
            split(path, inputs, &arrays, rows)?
                .into_iter()
                .map(Batch::Read)
                .collect()
        };
        let samples = Samples { ports, batches };
        if samples.is_empty() {
            return Err(unfit(path, "it holds no samples"));
        }
        Ok(samples)
    }

    pub fn len(&self) -> usize {
        self.batches.len()
    }

    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// The inputs of batch number `n`.
    ///
    /// # Errors
    /// If its file cannot be read.
    pub fn batch(&self, n: usize) -> Result<Vec<HostTensor>, IoError> {
        match &self.batches[n] {
            Batch::Read(inputs) => Ok(inputs.clone()),
            Batch::At(path) => read_inputs(path, &self.ports),
        }
    }

    /// The first `n` batches alone.
    pub fn truncate(&mut self, n: usize) {
        self.batches.truncate(n);
    }
}

/// An array of an npz that stands beside the inputs, such as labels; `None` where there is none.
pub fn read_labels(path: &Path) -> Option<Vec<i64>> {
    let names = ["label", "labels"];
    names.iter().find_map(|name| {
        let port = Port {
            name: (*name).to_owned(),
            dtype: None,
        };
        let array = npz::read(path, &[port]).ok()?.pop()?;
        integers(&array)
    })
}

fn integers(array: &HostTensor) -> Option<Vec<i64>> {
    match array.dtype() {
        DType::I64 => Some(array.as_slice::<i64>().to_vec()),
        DType::I32 => Some(
            array
                .as_slice::<i32>()
                .iter()
                .map(|&label| i64::from(label))
                .collect(),
        ),
        DType::U8 => Some(
            array
                .as_slice::<u8>()
                .iter()
                .map(|&label| i64::from(label))
                .collect(),
        ),
        _ => None,
    }
}

/// Files or folders of one batch each, by name.
fn in_folder(folder: &Path, ports: &[Port]) -> Result<Vec<PathBuf>, IoError> {
    let entries = std::fs::read_dir(folder).map_err(|source| IoError::Read {
        path: folder.to_path_buf(),
        source,
    })?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_dir() || path.extension().is_some_and(|extension| extension == "npz"))
        .collect();
    found.sort();
    if found.is_empty() && !ports.is_empty() {
        // One sample, whose files lie here.
        read_inputs(folder, ports)?;
        found.push(folder.to_path_buf());
    }
    Ok(found)
}

/// Cuts arrays with a leading axis into batches.
fn split(
    path: &Path,
    inputs: &[Declared],
    arrays: &[HostTensor],
    rows: usize,
) -> Result<Vec<Vec<HostTensor>>, IoError> {
    let joins = inputs.iter().all(|input| first_is_free(input.ty.as_ref()));
    let rows = if joins { rows.max(1) } else { 1 };
    let mut parts: Vec<Vec<HostTensor>> = Vec::with_capacity(inputs.len());
    for (input, array) in inputs.iter().zip(arrays) {
        let reason = |reason: String| unfit(path, &format!("array `{}` {reason}", input.port.name));
        parts.push(split_one(input.ty.as_ref(), array, rows).map_err(reason)?);
    }
    let n_batches = parts.first().map_or(0, Vec::len);
    if let Some((input, own)) = inputs.iter().zip(&parts).find(|(_, own)| own.len() != n_batches) {
        let name = &input.port.name;
        return Err(unfit(
            path,
            &format!(
                "array `{name}` has {} batches, the first one {n_batches}",
                own.len()
            ),
        ));
    }
    Ok((0..n_batches)
        .map(|n| parts.iter().map(|part| part[n].clone()).collect())
        .collect())
}

fn first_is_free(ty: Option<&TensorType>) -> bool {
    ty.and_then(|ty| ty.shape.0.first())
        .is_some_and(|dim| matches!(dim, Dim::Symbol(_)))
}

/// The batches of one array: along its first axis, which is the samples' own where the array has an
/// axis more than the input.
fn split_one(ty: Option<&TensorType>, array: &HostTensor, rows: usize) -> Result<Vec<HostTensor>, String> {
    let dims = array.dims();
    let Some(&n_samples) = dims.first() else {
        return Err("has no axis of samples".to_owned());
    };
    let Some(ty) = ty else {
        return Ok(pieces(array, 1, true));
    };
    if dims.len() == ty.rank() + 1 {
        let joined = rows > 1 && dims[1] == 1;
        return Ok(if joined {
            pieces(&array.reshaped(&[&[n_samples], &dims[2..]].concat()), rows, true)
        } else {
            pieces(array, 1, false)
        });
    }
    if dims.len() != ty.rank() {
        return Err(format!("is {dims:?}, the input is `{ty}`"));
    }
    match &ty.shape.0[0] {
        Dim::Symbol(_) => Ok(pieces(array, rows, true)),
        Dim::Known(extent) if *extent > 0 && n_samples % extent == 0 => Ok(pieces(array, *extent, true)),
        Dim::Known(extent) => Err(format!("has {n_samples} rows, which are no batches of {extent}")),
    }
}

/// `array` in pieces of `rows` along its first axis, which is dropped unless `keeps_axis`.
fn pieces(array: &HostTensor, rows: usize, keeps_axis: bool) -> Vec<HostTensor> {
    let (first, rest) = (array.dims()[0], &array.dims()[1..]);
    let row_bytes = array.n_bytes() / first.max(1);
    (0..first)
        .step_by(rows)
        .map(|start| {
            let end = (start + rows).min(first);
            let dims = if keeps_axis {
                [&[end - start], rest].concat()
            } else {
                rest.to_vec()
            };
            HostTensor::from_bytes(
                array.dtype(),
                &dims,
                &array.bytes()[start * row_bytes..end * row_bytes],
            )
            .expect("a run of rows has the size of its dims")
        })
        .collect()
}

fn unfit(path: &Path, reason: &str) -> IoError {
    IoError::Samples {
        path: path.to_path_buf(),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::Shape;

    fn declared(dims: &[Dim]) -> Declared {
        Declared {
            port: Port {
                name: "x".to_owned(),
                dtype: Some(DType::F32),
            },
            ty: Some(TensorType {
                dtype: DType::F32,
                shape: Shape(dims.iter().cloned().collect()),
            }),
        }
    }

    fn opened(array: &HostTensor, dims: &[Dim], rows: usize) -> Result<Vec<Vec<usize>>, IoError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("samples.npz");
        super::super::write_outputs(&path, &["x".to_owned()], std::slice::from_ref(array)).unwrap();
        let samples = Samples::open(&path, &[declared(dims)], rows)?;
        Ok((0..samples.len())
            .map(|n| samples.batch(n).unwrap()[0].dims().to_vec())
            .collect())
    }

    #[test]
    fn a_leading_axis_becomes_batches() {
        let array = HostTensor::from_f32(&[6, 2], &[0.0; 12]);
        let free = [Dim::Symbol("n".to_owned()), Dim::Known(2)];
        assert_eq!(opened(&array, &free, 4).unwrap(), [vec![4, 2], vec![2, 2]]);
        assert_eq!(
            opened(&array, &[Dim::Known(3), Dim::Known(2)], 4).unwrap(),
            [vec![3, 2], vec![3, 2]]
        );
        assert_eq!(opened(&array, &[Dim::Known(2)], 4).unwrap(), vec![vec![2]; 6]);
        assert!(opened(&array, &[Dim::Known(4), Dim::Known(2)], 1).is_err());
        let wide = HostTensor::from_f32(&[6, 1, 2], &[0.0; 12]);
        assert_eq!(opened(&wide, &free, 4).unwrap(), [vec![4, 2], vec![2, 2]]);
    }

    #[test]
    fn folders_hold_a_batch_in_each_entry() {
        let folder = tempfile::tempdir().unwrap();
        let inputs = [declared(&[Dim::Known(2)])];
        assert!(Samples::open(folder.path(), &inputs, 1).is_err());
        for n in 0..3_u8 {
            let path = folder.path().join(format!("{n}.npz"));
            let data = HostTensor::from_f32(&[2], &[f32::from(n); 2]);
            super::super::write_outputs(&path, &["x".to_owned()], &[data]).unwrap();
        }
        let samples = Samples::open(folder.path(), &inputs, 1).unwrap();
        assert_eq!(samples.len(), 3);
        assert_eq!(samples.batch(2).unwrap()[0].as_slice::<f32>(), [2.0, 2.0]);
    }
}
