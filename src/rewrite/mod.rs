//! From a core graph to a graph cut into regions.

pub mod regions;

pub use regions::{FusedGraph, Region, RegionKind, RuleUse, Tensor, TensorId, TensorSource};
