//! From a core graph to a graph cut into regions.

pub mod canonicalize;
pub mod conditions;
pub mod derivation;
pub mod egraph;
pub mod error;
pub mod extraction;
pub mod fuse;
mod groups;
mod hand_over;
mod place;
mod prepack;
pub mod probe;
pub mod rules;
pub mod run_fused;
pub mod soundness;
pub mod splice;

pub use derivation::Derivations;
pub use error::RewriteError;
pub use extraction::cost::DeviceRates;
pub use extraction::cutting::Cutting;
pub use extraction::parts::JOIN;
pub use extraction::regions::{
    Explanation, FusedGraph, Region, RegionKind, Rejected, RuleUse, Tensor, TensorId, TensorSource,
};
pub use fuse::{Cutter, fuse, fuse_canonical, placed};
pub use prepack::{WeightOrders, weight_orders};
pub use rules::error::RuleErrors;
pub use rules::set::{RuleOptions, RuleSet};
pub use run_fused::run_fused;
pub use splice::{Origin, Part, spliced};
