//! From a region to CUDA source.
//!
//! A region becomes a [`KernelSpec`]; every template that accepts it offers [`Variant`]s,
//! ranked by an analytic time; [`render`] makes the [`Source`] of one. The pieces in order:
//! [`compose`] turns the body into tile expressions, [`cuda_expr`] prints those, and
//! [`templates`] place them in kernels. Start reading at [`templates::TEMPLATES`].

pub mod attention_body;
pub mod compose;
pub mod contraction;
pub mod cuda_expr;
pub mod cuda_types;
mod cuda_vector;
pub mod device;
pub mod error;
pub mod free_vars;
pub mod gemm_cost;
pub mod gemm_epilogue;
pub mod gemm_operand;
pub mod header;
pub mod main_loop;
pub mod prelude;
pub mod rebuild;
pub mod region_body;
pub mod row_plan;
pub mod source;
pub mod spec;
pub mod templates;
pub mod window_body;

pub use error::KernelError;
pub use source::{Arch, Launch, Param, Source, Variant};
pub use spec::{KernelOptions, KernelSpec, spec};
pub use templates::{render, variants};
