//! From a region to CUDA source.
//!
//! A region becomes a [`KernelSpec`]; every template that accepts it offers [`Variant`]s,
//! ranked by an analytic time; [`render`] makes the [`Source`] of one. The pieces in order:
//! [`body`] turns a region's graph into tile expressions, [`mod@print`] writes those as CUDA C++, and
//! [`templates`] place them in kernels. What the templates of one subject share is in [`gemm`],
//! [`row`], [`attention`] and [`window`]. Start reading at [`templates::TEMPLATES`].

pub mod attention;
mod attention_rates;
pub mod body;
pub mod device;
pub mod error;
pub mod family;
pub mod few_channels;
pub mod gemm;
pub mod header;
pub mod prelude;
pub mod print;
pub mod row;
pub mod sharing;
pub mod source;
pub mod spec;
pub mod templates;
pub mod window;

pub use error::KernelError;
pub use source::{Arch, Launch, Param, Source, Variant};
pub use spec::{KernelOptions, KernelSpec, spec};
pub use templates::{render, variants};
