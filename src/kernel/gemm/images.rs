//! Convolutions as products whose rows are pixels, which the copy engine gathers.

use crate::ir::tiled_view::TILE_ROW_BYTES;
use crate::ir::{DType, PixelBox, Source, TiledView, ValueId};
use crate::kernel::gemm::contraction::{Contraction, Side};
use crate::kernel::gemm::exact::is_exact;
use crate::kernel::gemm::operand::load_of;
use crate::kernel::gemm::tiled::columns_view;
use crate::kernel::spec::KernelSpec;
use crate::kernel::window::{Axis, Combine, Window};

/// Taps may shift a pixel by so much.
const MAX_SHIFT: usize = 255;

/// A convolution over two axes with channels last, both operands inputs of the region.
#[derive(Clone, Debug, PartialEq)]
pub struct Images {
    /// Numbers of the region's inputs.
    pub image: usize,
    pub filter: usize,
    pub channels: usize,
    /// Along x and along y.
    pub axes: [Axis; 2],
    element_bytes: usize,
    pub batch: usize,
    pub n_filters: usize,
}

impl Images {
    /// The convolution of `spec`, where the rows of `contraction` are its pixels and copies can
    /// read both operands as elements of kind `element`.
    pub fn of(spec: &KernelSpec, contraction: &Contraction, element: DType) -> Option<Images> {
        let (window, node) = Window::of(spec)?;
        let &[y, x] = window.axes.as_slice() else {
            return None;
        };
        let is_dense =
            window.combine == Combine::Products && !window.transposed && window.last && window.group == 1;
        let operand =
            |position: usize| input_of_kind(spec, node.operands.get(position).copied().flatten()?, element);
        let (image, filter) = (operand(0)?, operand(1)?);
        let (columns, _) = load_of(contraction, Side::B, element)?;
        let images = Images {
            image,
            filter,
            channels: window.group_channels,
            axes: [x, y],
            element_bytes: element.size_bytes(),
            batch: window.batch,
            n_filters: window.filters,
        };
        let is_tiled = [images.pixels(1), images.filters(1)]
            .iter()
            .all(|view| view.check(usize::MAX).is_ok());
        let is_near = images
            .axes
            .iter()
            .all(|axis| (axis.kernel - 1) * axis.dilation <= MAX_SHIFT);
        (is_dense && columns as usize == filter && is_tiled && is_near).then_some(images)
    }

    pub fn n_taps(&self) -> usize {
        self.axes.iter().map(|axis| axis.kernel).product()
    }

    /// Tiles along the channels of one tap.
    pub fn chunks(&self) -> usize {
        self.channels.div_ceil(self.across())
    }

    fn across(&self) -> usize {
        TILE_ROW_BYTES / self.element_bytes
    }

    /// The images, for copies of `rows` pixels.
    pub fn pixels(&self, rows: usize) -> TiledView {
        let [x, y] = self.axes;
        let row = self.channels * self.element_bytes;
        TiledView {
            element_bytes: self.element_bytes,
            dims: vec![self.channels, x.input, y.input, self.batch],
            strides: vec![row, row * x.input, row * x.input * y.input],
            tile: vec![self.across(), rows],
            pixels: Some(PixelBox {
                lower: [x, y].map(|axis| corner(-axis.pad)),
                upper: [x, y].map(|axis| corner(end(axis))),
                steps: [x.stride, y.stride],
            }),
        }
    }

    /// The filters, for copies of one tap of `rows` of them.
    pub fn filters(&self, rows: usize) -> TiledView {
        let tap = self.channels * self.element_bytes;
        TiledView {
            element_bytes: self.element_bytes,
            dims: vec![self.channels, self.n_taps(), self.n_filters],
            strides: vec![tap, tap * self.n_taps()],
            tile: vec![self.across(), 1, rows],
            pixels: None,
        }
    }

    /// The filters, for copies of one tap of four vectors of `width` of them in the order of [`columns_view`], where
    /// they are whole vectors.
    pub fn columns(&self, width: usize) -> Option<TiledView> {
        let tap = self.channels * self.element_bytes;
        let depth = (self.channels, self.element_bytes, self.across());
        let filters = (self.n_filters, tap * self.n_taps());
        let is_whole = self.n_filters.is_multiple_of(width);
        is_whole.then(|| columns_view(depth, filters, width, (self.n_taps(), tap)))
    }
}

/// Behind the last window's first cell, counted from the end of the input.
fn end(axis: Axis) -> i64 {
    let wide = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
    (wide(axis.output) - 1).saturating_mul(wide(axis.stride)) - axis.pad + 1 - wide(axis.input)
}

/// What is out of range is for the check of the view to refuse.
fn corner(value: i64) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// The input of kind `element` that `value` is, through casts that do not round.
fn input_of_kind(spec: &KernelSpec, value: ValueId, element: DType) -> Option<usize> {
    let mut value = value;
    while let Some((_, node)) = spec.body.producer(value) {
        let from = node.operands.first().copied().flatten()?;
        let [from_kind, kind] = [from, value].map(|value| spec.body.ty(value).dtype);
        if node.op != "cast" || !is_exact(from_kind, kind) {
            return None;
        }
        value = from;
    }
    let is_input = matches!(spec.body.value(value).source, Source::Input(_));
    let number = spec.body.inputs.iter().position(|&input| input == value);
    number.filter(|_| is_input && spec.body.ty(value).dtype == element)
}
