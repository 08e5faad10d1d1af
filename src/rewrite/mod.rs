//! From a core graph to a graph cut into regions.

pub mod facts;
pub mod regions;
pub mod rule_ast;

pub use regions::{FusedGraph, Region, RegionKind, RuleUse, Tensor, TensorId, TensorSource};
