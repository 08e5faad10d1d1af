//! Matrix products: what one is ([`contraction`]), in which kinds it is computed ([`element`], [`exact`]), how
//! its operands are read ([`operand`], [`tiled`], [`images`]), what happens to a finished sum
//! ([`epilogue`]), which sums are taken beside it ([`row_sums`]), what scales its rows
//! ([`scale`]), what it costs ([`cost`]), and the context fields that the matrix templates share
//! ([`parts`]).

pub mod contraction;
pub mod cost;
pub mod element;
pub mod epilogue;
pub mod exact;
pub mod grouped;
pub mod images;
pub mod operand;
pub mod parts;
pub mod row_sums;
pub mod scale;
pub mod tiled;
