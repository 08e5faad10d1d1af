//! ONNX bytes to a [`Graph`] of ONNX forms and core ops.
//!
//! Local functions are inlined, initializers and Constant nodes become weights, subgraphs of
//! If, Loop and Scan stay as attributes, dynamic dims become symbols. Files come from
//! strangers: sizes are checked before anything is allocated, and external data is only read
//! from beside the model. Nothing after this module knows protobuf. Start reading at
//! [`import_file`], then [`import`](mod@import).

mod attributes;
mod error;
mod external;
pub mod import;
mod load;
mod order;
pub mod proto;
mod sparse;
pub mod tensor;
mod types;

use std::collections::BTreeMap;
use std::path::Path;

pub use error::{ImportError, Unsupported};
pub use load::{decode, read_tensor};

use crate::ir::Graph;

/// An imported model.
#[derive(Clone, Debug)]
pub struct Model {
    pub graph: Graph,
    /// Version of each operator domain; `""` is the main one.
    pub opsets: BTreeMap<String, i64>,
    pub ir_version: i64,
    /// Program that wrote the model, and its version; for people.
    pub producer: String,
    /// ONNX nodes, those of subgraphs and inlined functions included.
    pub n_nodes: usize,
}

/// Imports the model at `path`; external data is looked for beside it.
///
/// # Errors
/// If the file cannot be read, is not a valid model, or uses what is not supported.
pub fn import_file(path: &Path) -> Result<Model, ImportError> {
    let model = load::read_model(path)?;
    import::import_model(&model, Some(load::folder_of(path)))
}

/// Imports a model from memory; without a `folder`, external data is refused.
///
/// # Errors
/// If the bytes are no valid model, or use what is not supported.
pub fn import(bytes: &[u8], folder: Option<&Path>) -> Result<Model, ImportError> {
    let model = load::decode(bytes.to_vec())?;
    import::import_model(&model, folder)
}
