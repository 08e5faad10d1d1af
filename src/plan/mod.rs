//! From regions and tactics to an engine: what is launched in which order, and where every
//! tensor lies.
//!
//! [`plan`] makes the program of one architecture; [`Assembly`] collects programs, weights and
//! blobs into one [`Engine`](crate::engine::Engine). Weights and cubins that several programs
//! use are stored once. The order is that of the regions; [`arena`] packs the lifetimes that
//! [`lifetimes`] finds. Branches that need nothing of each other go to streams of their own where
//! that is predicted to pay. Programs of a range that share kernels go to [`Sharing`], which keeps what differs between
//! them as columns (`columns.rs`) and finds formulas for these (`formulas.rs`).

pub mod arena;
mod assembly;
mod branches;
mod columns;
mod formulas;
mod kernels;
mod launches;
pub mod lifetimes;
pub mod order;
mod peak;
mod rebranch;
mod shared;
mod tasks;

pub use assembly::{Assembly, Identity};
pub use launches::{Freedom, Thrift, plan};
pub use peak::{Step, Usage, WeightBytes};
pub use rebranch::rebranched;
pub use shared::Sharing;
pub use tasks::{posed, renewed};
