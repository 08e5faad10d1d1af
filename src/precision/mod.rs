//! Which tensors are stored in fewer bits, and what that costs in accuracy.
//!
//! [`statistics`] runs a model on samples and counts values; a [`Method`] turns counts into ranges, which
//! `TensorRT`'s [`cache`] format keeps. [`quantise`] places `QuantizeLinear` and `DequantizeLinear` around the
//! products that a [`Plan`] names, and the rules of `rules/quantization.rules` take it from there.

mod assignment;
pub mod cache;
pub mod calibrate;
mod copy;
mod histogram;
mod insert;
mod layers;
mod method;
pub mod metric;
mod number;
mod prepare;
mod quantise_groups;
pub mod reconsider;
pub mod report;
pub mod search;
pub mod statistics;

pub use assignment::{Kind, Plan};
pub use cache::{Cache, CacheError};
pub use histogram::Histogram;
pub use insert::{Quantised, QuantisedTensor, RangeOf, Ranges, quantise};
pub use layers::{Layer, layers};
pub use method::Method;
pub use metric::{Budget, Metric};
pub use number::{Number, Scaling};
pub use prepare::prepare;
pub use statistics::{Statistics, observed};
