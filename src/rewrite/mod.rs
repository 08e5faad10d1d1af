//! From a core graph to a graph cut into regions.

pub mod analysis;
pub mod canonicalize;
pub mod compact;
pub mod condition_functions;
pub mod conditions;
pub mod cones;
pub mod construct;
pub mod contract;
pub mod cost;
pub mod devices;
pub mod ebuild;
pub mod ematch;
pub mod enabling;
pub mod error;
pub mod explain;
pub mod extract;
pub mod facts;
pub mod fold;
pub mod frontier;
pub mod fuse;
pub mod language;
pub mod limits;
pub mod match_graph;
pub mod net;
mod parts;
mod place;
mod prepack;
pub mod probe;
mod ranges;
pub mod regions;
pub mod rule_ast;
pub mod rule_check;
pub mod rule_error;
pub mod rule_lexer;
pub mod rule_parser;
pub mod rule_set;
pub mod rule_terms;
pub mod run_fused;
pub mod saturate;
pub mod siblings;
pub mod sinking;
pub mod soundness;
pub mod tabulate;
pub mod term_facts;
pub mod term_graph;
pub mod unmet;
pub mod work_graph;

pub use cost::DeviceRates;
pub use error::RewriteError;
pub use fuse::{fuse, fuse_canonical};
pub use regions::{
    Explanation, FusedGraph, Region, RegionKind, Rejected, RuleUse, Tensor, TensorId, TensorSource,
};
pub use rule_error::RuleErrors;
pub use rule_set::{RuleOptions, RuleSet};
pub use run_fused::run_fused;
