//! From what an e-graph holds to regions: candidates for kernels, their costs, and the choice among them.

pub mod cones;
pub mod contract;
pub mod cost;
pub mod cutting;
pub mod devices;
pub mod explain;
pub mod extract;
pub mod fold;
pub mod frontier;
pub mod limits;
pub mod net;
pub mod parts;
pub mod regions;
