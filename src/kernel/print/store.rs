//! Statements that put values into memory.

use crate::kernel::print::expr::{Operand, Printer};
use crate::kernel::print::types::storage_type;
use crate::kernel::print::vector::{Lane, is_aligned};
use crate::tile::{Extent, Index};

/// Whether lanes whose element is at `place` are one aligned vector in memory.
pub fn is_vector(place: &Index, lane: Lane) -> bool {
    place.stride_of(lane.var) == Some(Extent::known(1)) && is_aligned(place, lane)
}

/// How results get to memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stores {
    #[default]
    Cached,
    /// So that caches give them up first, by `templates/device/stream.cuh`.
    Streamed,
}

impl Stores {
    /// Stores `value` at `place` of `output`.
    pub fn one(self, printer: &mut Printer<'_>, output: &Operand, place: &Index, value: &str) {
        if self == Stores::Cached {
            return store_one(printer, output, place, value);
        }
        let position = printer.index(place);
        let ty = storage_type(output.dtype);
        printer.line(&format!(
            "rt_stream({} + ({position}), rt_put<{ty}>({value}));",
            output.name
        ));
    }

    /// The function that stores a vector.
    pub fn of_vectors(self) -> &'static str {
        match self {
            Stores::Cached => "rt_store",
            Stores::Streamed => "rt_stream",
        }
    }
}

/// Stores `value` at `place` of `output`.
pub fn store_one(printer: &mut Printer<'_>, output: &Operand, place: &Index, value: &str) {
    let position = printer.index(place);
    let ty = storage_type(output.dtype);
    printer.line(&format!("{}[{position}] = rt_put<{ty}>({value});", output.name));
}
