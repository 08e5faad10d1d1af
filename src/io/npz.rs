//! Several named arrays in `NumPy`'s npz form: a zip of npy files.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::path::Path;

use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::{IoError, Port, bits, npy};
use crate::ir::HostTensor;

/// Reads the array of each port; other arrays are ignored.
///
/// # Errors
/// If the file is no npz, or an array is missing or of another kind than its port.
pub fn read(path: &Path, ports: &[Port]) -> Result<Vec<HostTensor>, IoError> {
    let file = File::open(path).map_err(|source| IoError::Read {
        path: path.to_path_buf(),
        source,
    })?;
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| IoError::NotNpz {
        path: path.to_path_buf(),
        reason: error.to_string(),
    })?;
    ports
        .iter()
        .map(|port| read_one(&mut archive, path, port))
        .collect()
}

fn read_one(
    archive: &mut ZipArchive<BufReader<File>>,
    path: &Path,
    port: &Port,
) -> Result<HostTensor, IoError> {
    let array_error = |reason: String| IoError::Array {
        place: format!("array `{}` of `{}`", port.name, path.display()),
        reason,
    };
    let bytes = match entry(archive, &format!("{}.npy", port.name)) {
        Ok(bytes) => bytes,
        Err(ZipError::FileNotFound) => {
            let mut found: Vec<String> = archive
                .file_names()
                .filter_map(|name| name.strip_suffix(".npy"))
                .map(str::to_owned)
                .collect();
            found.sort();
            return Err(IoError::Missing {
                path: path.to_path_buf(),
                name: port.name.clone(),
                found,
            });
        }
        Err(error) => return Err(array_error(error.to_string())),
    };
    let tensor = npy::read(&bytes).map_err(array_error)?;
    bits::into_kind(tensor, port.dtype).map_err(array_error)
}

fn entry(archive: &mut ZipArchive<BufReader<File>>, name: &str) -> Result<Vec<u8>, ZipError> {
    let mut entry = archive.by_name(name)?;
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes an npz without compression, as `numpy.savez` does. Equal tensors give equal bytes.
///
/// # Errors
/// If `into` cannot be written.
pub fn write(into: &mut (impl Write + Seek), names: &[String], tensors: &[HostTensor]) -> io::Result<()> {
    let mut archive = ZipWriter::new(into);
    for (name, tensor) in names.iter().zip(tensors) {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .large_file(tensor.n_bytes() >= 1 << 31);
        archive.start_file(format!("{name}.npy"), options)?;
        npy::write(&mut archive, tensor)?;
    }
    archive.finish()?;
    Ok(())
}
