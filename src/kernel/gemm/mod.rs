//! Matrix products: what one is ([`contraction`]), how its operands are read ([`operand`],
//! [`tiled`], [`images`]), what
//! happens to a finished sum ([`epilogue`]), what it costs ([`cost`]), and the context fields that
//! the matrix templates share ([`parts`]).

pub mod contraction;
pub mod cost;
pub mod epilogue;
pub mod images;
pub mod operand;
pub mod parts;
pub mod tiled;
