//! From kernel problems to tactics: which variant of each goes into the engine.
//!
//! Without a GPU the analytic times decide ([`predict`]). With one, the likeliest variants
//! are compiled, compared with the reference, and the correct ones timed ([`measure`]); every
//! measurement is kept in a [`Database`], a text file that the next build reuses, also one on a
//! machine without that GPU ([`recall`]). Equal problems, as repeated layers pose them, are solved once.

mod buckets;
mod check;
mod choice;
mod database;
mod error;
mod lab;
mod measure;
mod predict;
mod problem;
mod rank;
mod recall;
mod rivals;
mod survey;
mod widen;

pub use buckets::{Bucket, buckets, layers};
pub use check::{Bound, bound, error_of};
pub use choice::fastest;
pub use database::{Database, Machine, Measurement, Outcome};
pub use error::TuneError;
pub use measure::{Effort, Ledger, measure, median};
pub use predict::predict;
pub use problem::{Incumbent, Prediction, Problem, Tactic, distinct};
pub use rank::{Ranked, RankedVariant, TRIED, rank};
pub use recall::recall;
pub use rivals::{Contest, contests};
pub use survey::{Finding, is_right, survey};
