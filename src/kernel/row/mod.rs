//! Regions of rows: how a region is cut into them ([`plan`]), and what the row templates print
//! alike ([`mod@print`]).

pub mod plan;
pub mod print;
