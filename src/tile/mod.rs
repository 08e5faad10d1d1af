//! Tile expressions: what a kernel computes for one element, as a term over indices.
//!
//! Every operator of the table that has generated code says its meaning once, as a function
//! from output coordinates to an expression ([`TileFn`]). Fusing is then substitution: an
//! operand is either read from memory or replaced by its producer's expression at the
//! coordinates where it is read. All templates are fed from these terms.
//!
//! `tile` knows only `ir`. Start reading at [`expr::Body`], then [`index::Index`].

pub mod expr;
mod ids;
pub mod index;

pub use expr::{Body, Cond, Expr, ReduceOp, Scalar, TileCtx, TileFn};
pub use ids::{ExprId, VarId};
pub use index::{Atom, Extent, Index, Vars};
