//! Geometry of sliding windows: what convolutions and poolings share.
//!
//! Padding lists all leading sides, then all trailing ones, as ONNX does.

use super::{OpError, infer};
use crate::ir::{Attr, Attrs};
use crate::tile::{Cond, Extent, Index};

/// Strides, dilations and padding per spatial axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    pub kernel: Vec<usize>,
    pub strides: Vec<usize>,
    pub dilations: Vec<usize>,
    pub pads_begin: Vec<usize>,
    pub pads_end: Vec<usize>,
}

impl Window {
    /// A window of `kernel` cells with attributes `strides`, `pads` and `dilations`.
    ///
    /// # Errors
    /// If an attribute is absent, has another length, or a stride or dilation is zero.
    pub fn new(attrs: &Attrs, kernel: &[usize]) -> Result<Self, OpError> {
        let rank = kernel.len();
        let list = |name: &str, length: usize| {
            let values = infer::window_sizes(attrs, name)?;
            if values.len() == length {
                return Ok(values);
            }
            Err(OpError::invalid(format!(
                "attribute `{name}` has {} entries for {rank} spatial axes, expected {length}",
                values.len()
            )))
        };
        let (strides, dilations) = (list("strides", rank)?, list("dilations", rank)?);
        if strides.contains(&0) || dilations.contains(&0) || kernel.contains(&0) {
            return Err(OpError::invalid(format!(
                "a window needs sizes above zero, found kernel {kernel:?}, strides {strides:?}, dilations {dilations:?}"
            )));
        }
        let pads = list("pads", 2 * rank)?;
        Ok(Window {
            kernel: kernel.to_vec(),
            strides,
            dilations,
            pads_begin: pads[..rank].to_vec(),
            pads_end: pads[rank..].to_vec(),
        })
    }

    /// Cells from the first to the last of a window along `axis`.
    pub fn span(&self, axis: usize) -> usize {
        (self.kernel[axis] - 1) * self.dilations[axis] + 1
    }

    /// Number of windows along each axis of an input of extents `input`. With `ceil`, a last
    /// window may hang over the end, but not start beyond the input and its leading padding.
    ///
    /// # Errors
    /// If no window fits.
    pub fn output(&self, input: &[usize], ceil: bool) -> Result<Vec<usize>, OpError> {
        (0..input.len())
            .map(|axis| self.output_extent(axis, input[axis], ceil))
            .collect()
    }

    fn output_extent(&self, axis: usize, input: usize, ceil: bool) -> Result<usize, OpError> {
        let padded = input + self.pads_begin[axis] + self.pads_end[axis];
        let stride = self.strides[axis];
        let Some(room) = padded.checked_sub(self.span(axis)) else {
            return Err(OpError::invalid(format!(
                "a window that spans {} does not fit into {padded} cells of spatial axis {axis}",
                self.span(axis)
            )));
        };
        if !ceil {
            return Ok(room / stride + 1);
        }
        let count = room.div_ceil(stride) + 1;
        let starts_inside = (count - 1) * stride < input + self.pads_begin[axis];
        Ok(if starts_inside { count } else { count - 1 })
    }

    /// Input position of cell `cell` of window `window` along `axis`; may lie outside.
    pub fn position(&self, axis: usize, window: usize, cell: usize) -> Option<usize> {
        (window * self.strides[axis] + cell * self.dilations[axis]).checked_sub(self.pads_begin[axis])
    }

    /// Input index of cell `cell` of window `window` along `axis`.
    pub fn index(&self, axis: usize, window: &Index, cell: &Index) -> Index {
        let signed = |value: usize| i64::try_from(value).expect("window sizes fit in i64");
        window
            .times(&Extent::from(self.strides[axis]))
            .plus(&cell.times(&Extent::from(self.dilations[axis])))
            .plus_known(-signed(self.pads_begin[axis]))
    }

    /// Input indices of a cell of a window, and the conditions under which they are inside.
    pub fn indices(&self, windows: &[Index], cells: &[Index], input: &[Extent]) -> (Vec<Index>, Vec<Cond>) {
        let indices: Vec<Index> = (0..self.kernel.len())
            .map(|axis| self.index(axis, &windows[axis], &cells[axis]))
            .collect();
        let conds = indices
            .iter()
            .zip(input)
            .map(|(index, extent)| Cond {
                index: index.clone(),
                extent: extent.clone(),
            })
            .collect();
        (indices, conds)
    }

    /// Attributes `strides`, `pads` and `dilations` of this window.
    pub fn attrs(&self) -> Attrs {
        let pads: Vec<usize> = self.pads_begin.iter().chain(&self.pads_end).copied().collect();
        Attrs::new()
            .with("strides", super::samples::ints_attr(&self.strides))
            .with("pads", super::samples::ints_attr(&pads))
            .with("dilations", super::samples::ints_attr(&self.dilations))
    }

    /// The window that ONNX attributes describe: absent lists are ones or zeros, and
    /// `auto_pad` chooses the padding for an input of extents `input`.
    ///
    /// # Errors
    /// If an attribute has the wrong length or value.
    pub fn from_onnx(attrs: &Attrs, kernel: &[usize], input: &[usize]) -> Result<Self, OpError> {
        let rank = kernel.len();
        let fill = |attrs: Attrs, name: &str, value: i64, length: usize| {
            if attrs.ints(name).is_some_and(|values| !values.is_empty()) {
                attrs
            } else {
                attrs.with(name, Attr::Ints(vec![value; length]))
            }
        };
        let mut full = fill(attrs.clone(), "strides", 1, rank);
        full = fill(full, "dilations", 1, rank);
        let auto_pad = attrs.str("auto_pad").unwrap_or("NOTSET");
        if auto_pad != "NOTSET" {
            full.0.remove("pads");
        }
        let mut window = Window::new(&fill(full, "pads", 0, 2 * rank), kernel)?;
        match auto_pad {
            "NOTSET" | "VALID" => {}
            "SAME_UPPER" => window.pad_same(input, true),
            "SAME_LOWER" => window.pad_same(input, false),
            other => {
                return Err(OpError::invalid(format!(
                    "attribute `auto_pad` must be `NOTSET`, `VALID`, `SAME_UPPER` or `SAME_LOWER`, found `{other}`"
                )));
            }
        }
        Ok(window)
    }

    /// Pads so that there is a window per stride; an odd cell goes to the end if `upper`.
    fn pad_same(&mut self, input: &[usize], upper: bool) {
        for (axis, &extent) in input.iter().enumerate() {
            let count = extent.div_ceil(self.strides[axis]);
            let covered = (count.max(1) - 1) * self.strides[axis] + self.span(axis);
            let total = covered.saturating_sub(extent);
            let (small, large) = (total / 2, total.div_ceil(2));
            (self.pads_begin[axis], self.pads_end[axis]) =
                if upper { (small, large) } else { (large, small) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(pads: [usize; 2], kernel: usize, stride: usize) -> Window {
        Window {
            kernel: vec![kernel],
            strides: vec![stride],
            dilations: vec![1],
            pads_begin: vec![pads[0]],
            pads_end: vec![pads[1]],
        }
    }

    #[test]
    fn a_window_in_the_trailing_padding_is_left_out() {
        assert_eq!(window([0, 0], 3, 2).output(&[6], false), Ok(vec![2]));
        assert_eq!(window([0, 0], 3, 2).output(&[6], true), Ok(vec![3]));
        assert_eq!(window([0, 1], 1, 2).output(&[2], true), Ok(vec![1]));
        assert!(window([0, 0], 3, 1).output(&[2], true).is_err());
    }

    #[test]
    fn same_padding_puts_the_odd_cell_where_asked() {
        let attrs = |pad: &str| Attrs::new().with("auto_pad", Attr::Str(pad.to_owned()));
        let upper = Window::from_onnx(&attrs("SAME_UPPER"), &[4], &[5]).unwrap();
        assert_eq!((upper.pads_begin[0], upper.pads_end[0]), (1, 2));
        let lower = Window::from_onnx(&attrs("SAME_LOWER"), &[4], &[5]).unwrap();
        assert_eq!((lower.pads_begin[0], lower.pads_end[0]), (2, 1));
        assert_eq!(upper.output(&[5], false), Ok(vec![5]));
    }
}
