//! From a region to CUDA source.

pub mod source;

pub use source::{Arch, Launch, Param, Source, Variant};
