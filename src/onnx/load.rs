//! Files to protobuf messages.

use std::fs;
use std::path::Path;

use prost::Message;
use prost::bytes::Bytes;

use super::error::ImportError;
use super::external::ExternalFiles;
use super::proto::{ModelProto, TensorProto};
use super::tensor;
use crate::ir::HostTensor;

/// Folder a model's external data lies in.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// # Errors
/// If the file cannot be read or is no model.
pub fn read_model(path: &Path) -> Result<ModelProto, ImportError> {
    decode(read(path)?)
}

/// The message in `bytes`; weights stored inside share them.
///
/// # Errors
/// If the bytes are no model.
pub fn decode(bytes: Vec<u8>) -> Result<ModelProto, ImportError> {
    Ok(ModelProto::decode(Bytes::from(bytes))?)
}

/// A file that holds one `TensorProto`, as the `input_0.pb` of ONNX's test data.
///
/// # Errors
/// If the file cannot be read, is no tensor, or of a kind that is not supported.
pub fn read_tensor(path: &Path) -> Result<HostTensor, ImportError> {
    let proto = TensorProto::decode(Bytes::from(read(path)?))?;
    tensor::read(&proto, &mut ExternalFiles::beside(folder_of(path))).map_err(|source| ImportError::Tensor {
        name: path.display().to_string(),
        source,
    })
}

fn read(path: &Path) -> Result<Vec<u8>, ImportError> {
    fs::read(path).map_err(|source| ImportError::File {
        path: path.to_path_buf(),
        source,
    })
}
