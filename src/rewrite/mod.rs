//! From a core graph to a graph cut into regions.

pub mod canonicalize;
pub mod compact;
pub mod condition_functions;
pub mod conditions;
pub mod construct;
pub mod facts;
pub mod match_graph;
pub mod regions;
pub mod rule_ast;
pub mod rule_check;
pub mod rule_error;
pub mod rule_lexer;
pub mod rule_parser;
pub mod rule_set;
pub mod rule_terms;
pub mod work_graph;

pub use regions::{FusedGraph, Region, RegionKind, RuleUse, Tensor, TensorId, TensorSource};
pub use rule_error::RuleErrors;
pub use rule_set::{RuleOptions, RuleSet};
