//! The product with both operands in memory, and which shapes it may be multiplied in.

use super::reading::Reading;
use super::shape::{SHAPES, Shape};
use crate::ir::{DType, TiledView};
use crate::kernel::gemm::contraction::{Contraction, Side, Sizes};
use crate::kernel::gemm::element;
use crate::kernel::gemm::epilogue::{best_width, has_whole_strips, reads_elements, result_width, row_bytes};
use crate::kernel::gemm::row_sums;
use crate::kernel::source::Arch;
use crate::kernel::spec::KernelSpec;

/// The product with both operands in memory.
pub struct Problem {
    pub contraction: Contraction,
    pub element: DType,
    pub reading: Reading,
    /// What a thread finishes at once where sums pass through shared memory, and where they stay in registers.
    slabs: Vectors,
    direct: Option<Vectors>,
    /// Whether sums may become results of 16 bits before they pass through shared memory.
    is_narrow: bool,
    /// Bytes of an element's results.
    pub result_bytes: usize,
}

/// Neighbouring columns that a thread finishes at once.
#[derive(Clone, Copy, Debug)]
pub struct Vectors {
    pub width: usize,
    /// Bytes that a thread reads for a vector of columns and no other row does.
    pub row_bytes: usize,
}

impl Problem {
    pub fn of(spec: &KernelSpec, arch: Arch) -> Option<Problem> {
        if !arch.is_hopper() {
            return None;
        }
        let contraction = Contraction::with_row_sums(spec)?;
        let Sizes { batch, m, n, k } = contraction.sizes;
        if batch * m * n * k == 0 {
            return None;
        }
        let mut elements = element::of_groups(&contraction, spec, arch).into_iter();
        let (element, reading) =
            elements.find_map(|element| Some((element, reading(spec, &contraction, element)?)))?;
        let results: Vec<usize> = spec
            .output_types()
            .iter()
            .map(|ty| ty.dtype.size_bytes())
            .collect();
        let vectors = |width| Vectors {
            width,
            row_bytes: row_bytes(&contraction, width, spec),
        };
        Some(Problem {
            slabs: vectors(result_width(&contraction, spec)?),
            direct: direct_width(&contraction, element, &reading, spec).map(vectors),
            is_narrow: is_narrow(&contraction, spec),
            result_bytes: results.iter().sum(),
            contraction,
            element,
            reading,
        })
    }

    /// Whether groups may multiply it as `shape` says. One that takes turns has its warps wait alone: not for
    /// every step's sums, and for what a row reads only where it was asked for early. Sums that leave no
    /// registers for that are a matrix's: those of a convolution spill.
    pub fn may_be(&self, shape: Shape) -> bool {
        let is_plain = matches!(self.reading, Reading::Plain(_));
        let Vectors { width, row_bytes } = self.vectors(shape);
        let has_room = |bytes| shape.rounds_ahead(bytes, width) > 0;
        let asks = row_bytes == 0 || has_room(row_bytes);
        // Lanes of one strip are neighbours in slabs alone.
        let has_strips = if shape.is_direct() {
            self.contraction.strips.is_none()
        } else {
            has_whole_strips(&self.contraction, width, shape.slab)
        };
        has_strips && (shape.turns == 1 || asks && !self.sums_in_steps() && (is_plain || has_room(1)))
    }

    /// What a thread finishes at once.
    ///
    /// # Panics
    /// If sums stay in registers, and may not.
    pub fn vectors(&self, shape: Shape) -> Vectors {
        if shape.is_direct() {
            return self
                .direct
                .expect("only problems with whole vectors have such shapes");
        }
        self.slabs
    }

    /// Bytes of tiles and slabs, then of the sums of rows.
    pub fn smem_bytes(&self, shape: Shape) -> usize {
        shape.smem_bytes() + row_sums::bytes(&self.contraction, shape.rows_in_hand())
    }

    /// Every shape, and the same ones where sums may stay in registers.
    pub fn shapes(&self) -> impl Iterator<Item = Shape> {
        let direct = SHAPES.iter().filter(|_| self.direct.is_some());
        SHAPES.iter().copied().chain(direct.map(|shape| shape.direct()))
    }

    /// The same shape, in which sums are finished where instructions leave them if they may be.
    pub fn finished_early(&self, shape: Shape) -> Shape {
        if self.is_narrow && !shape.clustered && !shape.is_direct() {
            shape.narrow()
        } else {
            shape
        }
    }

    /// The side that is constant data, whose tiles need not wait for earlier kernels.
    pub fn weight(&self, spec: &KernelSpec, shape: Shape) -> Option<Side> {
        let [a, b] = self
            .reading
            .views(shape, self.vectors(shape).width)
            .map(|(input, _)| spec.weights.contains(&input));
        if b { Some(Side::B) } else { a.then_some(Side::A) }
    }

    /// Whether the sums of a step are added to those of others as floats: the instructions keep about 14
    /// bits of a sum of 8-bit floats, which long sums would show.
    pub fn sums_in_steps(&self) -> bool {
        const MOST_STEPS: usize = 2;
        self.element == DType::F8E4M3 && self.contraction.sizes.k > MOST_STEPS * Shape::k(self.element)
    }
}

/// How the operands are copied as elements of kind `element`, if they can be.
fn reading(spec: &KernelSpec, contraction: &Contraction, element: DType) -> Option<Reading> {
    let reading = Reading::of(spec, contraction, element)?;
    // Instructions transpose 16 bits only, and sums of rows are taken from tiles of floats.
    let is_byte = element.size_bytes() == 1;
    if is_byte && !reading.lies_along_k() {
        return None;
    }
    if !contraction.row_sums.terms.is_empty() && (is_byte || !reading.has_rows_along_k()) {
        return None;
    }
    let types = spec.input_types();
    let is_legal = |(input, view): &(usize, TiledView)| view.check(types[*input].n_bytes()).is_ok();
    reading
        .views(SHAPES[0], 1)
        .iter()
        .all(is_legal)
        .then_some(reading)
}

/// Whether a lane may finish two columns of a row at a time, eight apart: of one result of 16 bits that is stored as
/// vectors of 16 bytes, where nothing else is read or summed of a row, which would be read in pieces.
fn is_narrow(contraction: &Contraction, spec: &KernelSpec) -> bool {
    const WIDTH: usize = 8;
    let [result] = &spec.output_types()[..] else {
        return false;
    };
    let is_half = matches!(result.dtype, DType::F16 | DType::BF16);
    is_half
        && contraction.strips.is_none()
        && contraction.row_sums.is_empty()
        && result_width(contraction, spec) == Some(WIDTH)
        && !reads_elements(contraction)
}

/// Neighbouring columns that a thread finishes at once where copies can bring columns in an order in which these are its
/// own sums: 16 bytes of results. Such copies are slower, which products of 16-bit elements lose more by than their
/// epilogues gain, as measured.
fn direct_width(
    contraction: &Contraction,
    element: DType,
    reading: &Reading,
    spec: &KernelSpec,
) -> Option<usize> {
    /// Of narrower vectors, copies would be many.
    const LEAST: usize = 8;
    let least = spec.output_types().iter().map(|ty| ty.dtype.size_bytes()).min()?;
    let width = best_width(contraction, 16 / least);
    let fits = element.size_bytes() == 1 && width >= LEAST && reading.columns(width).is_some();
    fits.then_some(width)
}
