//! The graph every stage speaks about: types, values, nodes, constant data.
//!
//! `ir` knows no other module but `hex`. A [`Graph`] holds nodes in topological order; its
//! invariants are listed in [`verify`] and checked there. Start reading at [`graph`].

mod divisor;
pub mod graph;
pub mod host_tensor;
pub mod placement;
pub mod text;
pub mod tiled_view;
pub mod types;
pub mod verify;

pub use divisor::common_divisor;
pub use graph::{Attr, Attrs, BoundedAxis, CountLimit, Graph, Node, NodeId, Operand, Source, Value, ValueId};
pub use host_tensor::HostTensor;
pub use placement::Placement;
pub use tiled_view::{PixelBox, TiledView};
pub use types::{DType, Dim, MAX_TENSOR_BYTES, Shape, TensorType};
