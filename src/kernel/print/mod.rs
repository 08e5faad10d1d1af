//! Tile expressions as CUDA C++: statements in [`expr`], their types and literals in [`types`],
//! and several neighbouring elements at a time in [`vector`].

pub mod expr;
mod rounding;
pub mod store;
pub mod types;
pub mod vector;
