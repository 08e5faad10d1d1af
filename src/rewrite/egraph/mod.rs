//! The e-graph: its terms, what is known of them, matching, building, and running rules on it.

pub mod analysis;
pub mod asking;
pub mod ebuild;
pub mod ematch;
pub mod language;
pub mod record;
pub mod saturate;
pub mod siblings;
pub mod tabulate;
pub mod term_facts;
pub mod term_graph;
pub mod unite;
