//! The meaning of a region, as tile expressions over coordinates that a template chooses.
//!
//! [`compose`] substitutes producers for the operands they feed; [`region`] asks it for whole
//! regions, [`main_loop`] for what surrounds an op whose loop a template writes itself.

pub mod compose;
pub mod free_vars;
pub mod main_loop;
pub mod rebuild;
pub mod region;
