//! Inputs from files and outputs to files.
//!
//! Tensors come from an npz keyed by input names, or from a folder of `input_<j>.pb` or
//! `input_<j>.npy`; they go to an npz keyed by output names, or to a folder of
//! `output_<j>.npy`. Kinds `NumPy` lacks travel as their bit patterns (`uint8`, `uint16`).
//! Files are written aside and renamed: readers see all of a file or none of it.

mod bits;
mod npy;
mod npz;
pub mod samples;

use std::path::{Path, PathBuf};

use crate::aside::{self, write_aside};
use crate::ir::{DType, HostTensor};
use crate::onnx::{self, ImportError};

/// Why tensors cannot be read or written.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum IoError {
    #[error("cannot read `{}`: {source}", path.display())]
    #[diagnostic(code(io::unreadable))]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write `{}`: {source}", path.display())]
    #[diagnostic(code(io::unwritable))]
    Write { path: PathBuf, source: std::io::Error },
    #[error("`{}` is no npz file: {reason}", path.display())]
    #[diagnostic(code(io::npz))]
    NotNpz { path: PathBuf, reason: String },
    #[error("{place}: {reason}")]
    #[diagnostic(code(io::array))]
    Array { place: String, reason: String },
    #[error("`{}` has no array `{name}`; it has {}", path.display(), quoted(found))]
    #[diagnostic(code(io::missing))]
    Missing {
        path: PathBuf,
        name: String,
        found: Vec<String>,
    },
    #[error("cannot take samples from `{}`: {reason}", path.display())]
    #[diagnostic(code(io::samples))]
    Samples { path: PathBuf, reason: String },
    #[error("`{}` holds neither `{stem}.pb` nor `{stem}.npy`", folder.display())]
    #[diagnostic(code(io::missing))]
    NoFile { folder: PathBuf, stem: String },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Tensor(#[from] ImportError),
}

impl IoError {
    /// Whether the files may be right, and only an element kind is not supported.
    pub fn is_refusal(&self) -> bool {
        matches!(self, IoError::Tensor(error) if error.is_refusal())
    }
}

/// An input as a model declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    pub name: String,
    /// Unknown where the model does not say.
    pub dtype: Option<DType>,
}

/// Says early whether an output can be written.
///
/// # Errors
/// If it cannot.
pub fn check_writable(path: &Path) -> Result<(), IoError> {
    aside::check_writable(path).map_err(|source| IoError::Write {
        path: path.to_path_buf(),
        source,
    })
}

/// Reads one tensor per port.
///
/// # Errors
/// If a file is missing, damaged, or of a kind other than its port's.
pub fn read_inputs(path: &Path, ports: &[Port]) -> Result<Vec<HostTensor>, IoError> {
    if path.is_dir() {
        return ports
            .iter()
            .enumerate()
            .map(|(position, port)| read_numbered(path, position, port))
            .collect();
    }
    npz::read(path, ports)
}

/// Writes one tensor per name: to an npz if `path` ends so, else to a folder.
///
/// # Errors
/// If the files cannot be written.
pub fn write_outputs(path: &Path, names: &[String], tensors: &[HostTensor]) -> Result<(), IoError> {
    let result = if path.extension().is_some_and(|extension| extension == "npz") {
        write_aside(path, |into| npz::write(into, names, tensors))
    } else {
        write_folder(path, tensors)
    };
    result.map_err(|source| IoError::Write {
        path: path.to_path_buf(),
        source,
    })
}

fn read_numbered(folder: &Path, position: usize, port: &Port) -> Result<HostTensor, IoError> {
    let stem = format!("input_{position}");
    let (pb, npy) = (
        folder.join(format!("{stem}.pb")),
        folder.join(format!("{stem}.npy")),
    );
    let (tensor, place) = if pb.is_file() {
        (onnx::read_tensor(&pb)?, pb)
    } else if npy.is_file() {
        let bytes = std::fs::read(&npy).map_err(|source| IoError::Read {
            path: npy.clone(),
            source,
        })?;
        (
            npy::read(&bytes).map_err(|reason| array_error(&npy, reason))?,
            npy,
        )
    } else {
        return Err(IoError::NoFile {
            folder: folder.to_path_buf(),
            stem,
        });
    };
    bits::into_kind(tensor, port.dtype).map_err(|reason| array_error(&place, reason))
}

fn array_error(place: &Path, reason: String) -> IoError {
    IoError::Array {
        place: format!("`{}`", place.display()),
        reason,
    }
}

/// All files are complete before the first gets its name.
fn write_folder(folder: &Path, tensors: &[HostTensor]) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut files = Vec::with_capacity(tensors.len());
    for (position, tensor) in tensors.iter().enumerate() {
        let path = folder.join(format!("output_{position}.npy"));
        files.push(aside::Aside::write(&path, |into| npy::write(into, tensor))?);
    }
    files.into_iter().try_for_each(aside::Aside::keep)
}

fn quoted(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        names => names
            .iter()
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, dtype: DType) -> Port {
        Port {
            name: name.to_owned(),
            dtype: Some(dtype),
        }
    }

    #[test]
    fn every_kind_survives_both_forms() {
        let folder = tempfile::tempdir().unwrap();
        for dtype in DType::ALL {
            let codes: Vec<u8> = (0u8..6)
                .map(|code| if dtype == DType::Bool { code % 2 } else { code })
                .collect();
            let mut tensor = HostTensor::zeros(dtype, &[2, 3]);
            for (element, code) in tensor.bytes_mut().chunks_exact_mut(dtype.size_bytes()).zip(codes) {
                element[0] = match dtype {
                    DType::I4 => code.wrapping_sub(3),
                    DType::I2 | DType::U2 => code % 2,
                    _ => code,
                };
            }
            let names = ["/a b/0".to_owned()];
            let npz = folder.path().join(format!("{dtype}.npz"));
            write_outputs(&npz, &names, std::slice::from_ref(&tensor)).unwrap();
            let back = read_inputs(&npz, &[port("/a b/0", dtype)]).unwrap();
            assert_eq!(back, [tensor.clone()], "{dtype} through npz");
            let plain = folder.path().join(dtype.name());
            write_outputs(&plain, &names, std::slice::from_ref(&tensor)).unwrap();
            std::fs::rename(plain.join("output_0.npy"), plain.join("input_0.npy")).unwrap();
            assert_eq!(
                read_inputs(&plain, &[port("x", dtype)]).unwrap(),
                [tensor],
                "{dtype} through npy"
            );
        }
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.npz");
        let failing = write_aside(&path, |into| {
            use std::io::Write;
            into.write_all(b"half")?;
            Err(std::io::Error::other("interrupted"))
        });
        assert!(failing.is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn mistakes_are_told_with_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let npz = folder.path().join("in.npz");
        write_outputs(&npz, &["a".to_owned()], &[HostTensor::from_i64(&[1], &[1])]).unwrap();
        let message = |ports: &[Port]| read_inputs(&npz, ports).unwrap_err().to_string();
        assert!(message(&[port("x", DType::I64)]).ends_with("has no array `x`; it has `a`"));
        assert!(message(&[port("a", DType::F32)]).ends_with("is i64, expected f32"));
        let missing = read_inputs(folder.path(), &[port("x", DType::F32)])
            .unwrap_err()
            .to_string();
        assert!(
            missing.ends_with("holds neither `input_0.pb` nor `input_0.npy`"),
            "{missing}"
        );
    }
}
