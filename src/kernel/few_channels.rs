//! Dense convolutions of images with few channels, as the templates that multiply them by matrix instructions see them.

use serde::Serialize;

use super::body::region::tensors_index_type;
use super::error::KernelError;
use super::print::types::storage_type;
use super::spec::KernelSpec;
use super::window::{Window, read_one};
use crate::ir::Node;

/// Extents of the images, and what reads an operand and stores a vector of `width` channels.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FewChannels {
    index_type: &'static str,
    element: &'static str,
    width: usize,
    batch: usize,
    input_height: usize,
    input_width: usize,
    height: usize,
    row_width: usize,
    filters: usize,
    channels: usize,
    kernel_rows: usize,
    taps: usize,
    row_stride: usize,
    stride: usize,
    row_pad: i64,
    pad: i64,
    load_x: String,
    x: String,
    load_filter: String,
    filter: String,
    load_bias: String,
    /// The array of a vector's biases, empty where there are none.
    bias: String,
    store: String,
}

impl FewChannels {
    /// Those of `window`, a thread of whose kernel finishes `width` neighbouring channels at once.
    ///
    /// # Errors
    /// If an op's text could not be filled in; they name `template`.
    pub fn of(
        spec: &KernelSpec,
        window: &Window,
        node: &Node,
        width: usize,
        template: &'static str,
    ) -> Result<Self, KernelError> {
        let [rows, columns] = [window.axes[0], window.axes[1]];
        let pixel = window.input(spec, node, 1)?;
        let (load_x, x) = read_one(spec, &pixel, &["batch", "ih", "iw", "channel", "0"], 5)?;
        let cell = window.filter(spec, node, 1)?;
        let (load_filter, filter) = read_one(spec, &cell, &["tap_row", "tap", "channel", "filter"], 4)?;
        let (load_bias, bias) = window.bias(spec, node, width, 3)?.unwrap_or_default();
        let at = ["batch", "oh", "ow", "chunk"];
        Ok(FewChannels {
            index_type: tensors_index_type(spec),
            element: storage_type(window.dtype),
            width,
            batch: window.batch,
            input_height: rows.input,
            input_width: columns.input,
            height: rows.output,
            row_width: columns.output,
            filters: window.filters,
            channels: window.group_channels,
            kernel_rows: rows.kernel,
            taps: columns.kernel,
            row_stride: rows.stride,
            stride: columns.stride,
            row_pad: rows.pad,
            pad: columns.pad,
            load_x,
            x,
            load_filter,
            filter,
            load_bias,
            bias,
            store: window.store(spec, node, width, &at, "sum", template)?,
        })
    }
}
