//! What every window kernel shares: sizes, which cells a window visits, and reads of operands.
//!
//! Along each axis, output position `o` visits taps `first + step * j` of the filter, at input
//! positions `start + advance * j`. For convolutions and pooling `first` is zero. A transposed
//! convolution's taps depend on the position's remainder by the stride, its *phase*: a table
//! per axis holds the first tap of each phase, so that taps which do not contribute are never
//! visited.

use super::error::KernelError;
use super::spec::KernelSpec;
use crate::ir::{Attrs, DType, Node, common_divisor};
use crate::kernel::body::main_loop::{After, Before, after, before, main_node};
use crate::kernel::body::region::{lane_index, operands};
use crate::kernel::gemm::parts::conversions;
use crate::kernel::print::expr::Printer;
use crate::kernel::print::types::{literal, value_type};
use crate::kernel::print::vector::Lane;
use crate::ops::{self, infer};
use crate::tile::{Extent, Index, Scalar, VarId};

/// How the cells of a window combine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combine {
    /// Products with a filter, summed.
    Products,
    Max,
    /// Sums over the number of cells that count.
    Mean {
        counts_padding: bool,
    },
}

/// One spatial axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axis {
    pub input: usize,
    pub output: usize,
    pub kernel: usize,
    pub stride: usize,
    pub dilation: usize,
    /// Cells before the input; negative ones are cropped from a transposed convolution.
    pub pad: i64,
    pad_end: i64,
}

/// Sizes of a region's window op.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    pub combine: Combine,
    pub transposed: bool,
    /// Whether channels are the last axis of the input and the result.
    pub last: bool,
    pub dtype: DType,
    pub batch: usize,
    /// Channels of the input that a filter sees; one for pooling.
    pub group_channels: usize,
    /// Channels of the result.
    pub filters: usize,
    pub group: usize,
    pub axes: Vec<Axis>,
}

impl Window {
    /// The window op of `spec`, if it has one whose result has elements.
    pub fn of(spec: &KernelSpec) -> Option<(Window, &Node)> {
        let node = main_node(spec)?;
        let (combine, transposed, last) = match node.op {
            "conv" => (Combine::Products, false, false),
            "conv_nhwc" => (Combine::Products, false, true),
            "conv_transpose" => (Combine::Products, true, false),
            "max_pool" => (Combine::Max, false, false),
            "max_pool_nhwc" => (Combine::Max, false, true),
            "avg_pool" | "avg_pool_nhwc" => (
                Combine::Mean {
                    counts_padding: false,
                },
                false,
                node.op == "avg_pool_nhwc",
            ),
            _ => return None,
        };
        let attrs = ops::with_defaults(ops::lookup(node.op)?, node.attrs.clone()).ok()?;
        let combine = match combine {
            Combine::Mean { .. } => Combine::Mean {
                counts_padding: attrs.int("count_include_pad") == Some(1),
            },
            Combine::Products | Combine::Max => combine,
        };
        let dims = |n: usize| Some(spec.body.ty(node.operands.get(n).copied().flatten()?).dims());
        let (x, y) = (dims(0)?, spec.body.ty(node.results[0]).dims());
        let rank = x.len() - 2;
        let (channel, space) = if last { (rank + 1, 1) } else { (1, 2) };
        let group = match combine {
            Combine::Products => usize::try_from(attrs.int("group")?).ok()?,
            Combine::Max | Combine::Mean { .. } => x[channel],
        };
        let kernel: Vec<usize> = match combine {
            Combine::Products => dims(1)?[space..space + rank].to_vec(),
            Combine::Max | Combine::Mean { .. } => infer::sizes(&attrs, "kernel_shape").ok()?,
        };
        let axes = axes(&attrs, &kernel, &x[space..space + rank], &y[space..space + rank])?;
        let window = Window {
            combine,
            transposed,
            last,
            dtype: spec.body.ty(node.results[0]).dtype,
            batch: x[0],
            group_channels: x[channel] / group,
            filters: y[channel],
            group,
            axes,
        };
        let has_elements = y.iter().chain(&x).all(|&extent| extent > 0);
        has_elements.then_some((window, node))
    }

    /// Channels of the result per group.
    pub fn group_filters(&self) -> usize {
        self.filters / self.group
    }

    /// Number of windows, of all images.
    pub fn n_positions(&self) -> usize {
        self.batch * self.axes.iter().map(|axis| axis.output).product::<usize>()
    }

    pub fn has_filter(&self) -> bool {
        self.combine == Combine::Products
    }

    /// Cells of a window, channels included.
    pub fn n_cells(&self) -> usize {
        self.group_channels * self.axes.iter().map(|axis| axis.kernel).product::<usize>()
    }

    /// What an accumulator starts from, and what a cell outside of the input is.
    pub fn start(&self) -> String {
        match self.combine {
            Combine::Products | Combine::Mean { .. } => literal(Scalar::of(self.dtype, 0.0)),
            Combine::Max => format!("rt_lowest<{}>()", value_type(self.dtype)),
        }
    }

    /// The input at batch, one position per axis, channel of the group, filter chunk and lane.
    ///
    /// # Errors
    /// If an op before the window has no generated code.
    pub fn input(&self, spec: &KernelSpec, node: &Node, width: usize) -> Result<Before, KernelError> {
        let rank = self.axes.len();
        let mut extents = vec![self.batch];
        extents.extend(self.axes.iter().map(|axis| axis.input));
        extents.extend([self.group_channels, self.filters / width, width]);
        let value = node.operands[0].expect("windows have an input");
        before(&spec.body, value, &extents, |body, vars| {
            let filter = filter_index(vars, width);
            let channel = filter
                .div(&Extent::from(self.group_filters()), &body.vars)
                .times(&Extent::from(self.group_channels))
                .plus(&variable(vars[rank + 1], self.group_channels));
            let mut at = vec![Index::var(vars[0])];
            at.extend(vars[1..=rank].iter().map(|&var| Index::var(var)));
            at.insert(if self.last { rank + 1 } else { 1 }, channel);
            at
        })
    }

    /// The filter at one tap per axis, channel of the group, filter chunk and lane.
    ///
    /// # Errors
    /// If an op before the window has no generated code.
    pub fn filter(&self, spec: &KernelSpec, node: &Node, width: usize) -> Result<Before, KernelError> {
        let rank = self.axes.len();
        let mut extents: Vec<usize> = self.axes.iter().map(|axis| axis.kernel).collect();
        extents.extend([self.group_channels, self.filters / width, width]);
        let value = node.operands[1].expect("convolutions have a filter");
        before(&spec.body, value, &extents, |body, vars| {
            let filter = filter_index(vars, width);
            let channel = variable(vars[rank], self.group_channels);
            let taps = self
                .axes
                .iter()
                .zip(vars)
                .map(|(axis, &var)| variable(var, axis.kernel));
            if self.transposed {
                let size = Extent::from(self.group_filters());
                let group = filter.div(&size, &body.vars);
                let channel = group.times(&Extent::from(self.group_channels)).plus(&channel);
                let mut at = vec![channel, filter.modulo(&size, &body.vars)];
                at.extend(taps);
                return at;
            }
            let mut at = vec![filter];
            at.extend(taps);
            at.insert(if self.last { rank + 1 } else { 1 }, channel);
            at
        })
    }

    /// Statements that read the bias of a filter chunk, and the array they name.
    ///
    /// # Errors
    /// If an op before the window has no generated code.
    pub fn bias(
        &self,
        spec: &KernelSpec,
        node: &Node,
        width: usize,
        depth: usize,
    ) -> Result<Option<(String, String)>, KernelError> {
        let Some(value) = node.operands.get(2).copied().flatten() else {
            return Ok(None);
        };
        let part = before(&spec.body, value, &[self.filters / width, width], |_, vars| {
            vec![filter_index(vars, width)]
        })?;
        read(spec, &part, width, &["chunk"], depth).map(Some)
    }

    /// The region's outputs over batch, one position per axis, filter chunk and lane.
    ///
    /// # Errors
    /// If an op behind the window has no generated code.
    pub fn after(&self, spec: &KernelSpec, node: &Node, width: usize) -> Result<Option<After>, KernelError> {
        let rank = self.axes.len();
        let mut extents = vec![self.batch];
        extents.extend(self.axes.iter().map(|axis| axis.output));
        extents.extend([self.filters / width, width]);
        after(spec, node, &extents, |_, vars| {
            let mut at: Vec<Index> = vars[..=rank].iter().map(|&var| Index::var(var)).collect();
            at.insert(if self.last { rank + 1 } else { 1 }, filter_index(vars, width));
            at
        })
    }

    /// Scalar steps of one vector of outputs after the window.
    pub fn after_work(&self, spec: &KernelSpec, width: usize) -> f64 {
        let Some((_, node)) = Window::of(spec) else {
            return 0.0;
        };
        let Ok(Some(after)) = self.after(spec, node, width) else {
            return 0.0;
        };
        #[expect(clippy::cast_precision_loss, reason = "a prediction needs no exact count")]
        let lanes = width as f64;
        let per_lane: f64 = after
            .outputs
            .iter()
            .map(|stored| super::templates::indexed::work(&after.body, stored.value))
            .sum();
        lanes * (per_lane - conversions(&after.body)).max(0.0) * 3.0
    }

    /// Statements that store the lanes of `accumulator`, the name of an array, one level inside
    /// a kernel.
    ///
    /// # Errors
    /// If the region does not store every element to one place.
    pub fn store(
        &self,
        spec: &KernelSpec,
        node: &Node,
        width: usize,
        names: &[&str],
        accumulator: &str,
        template: &'static str,
    ) -> Result<String, KernelError> {
        let after = self
            .after(spec, node, width)?
            .ok_or_else(|| KernelError::NotAccepted {
                template,
                reason: "its views do not give every element one place".to_owned(),
            })?;
        let changing = after.vars.iter().copied().collect();
        after.print_store(spec, width, names, accumulator, &changing)
    }

    /// Number of cells that count in the mean at the output positions that `names` hold, as an
    /// expression of the kind that is computed in.
    pub fn count(&self, counts_padding: bool, names: &[String]) -> String {
        let mut constant = 1;
        let mut factors: Vec<String> = Vec::new();
        for (axis, name) in self.axes.iter().zip(names) {
            let first = axis.count(counts_padding, 0);
            if (1..axis.output).all(|place| axis.count(counts_padding, place) == first) {
                constant *= first;
                continue;
            }
            let (low, high) = axis.counted(counts_padding);
            factors.push(format!(
                "rt_cells<{}, {}>({name} * {} - {}, {low}, {high})",
                axis.kernel, axis.dilation, axis.stride, axis.pad
            ));
        }
        factors.push(constant.to_string());
        format!("{}({})", value_type(self.dtype), factors.join(" * "))
    }
}

/// Statements that read `width` lanes of `part`, and the array they name.
///
/// # Errors
/// If an op of the part has no text.
pub fn read(
    spec: &KernelSpec,
    part: &Before,
    width: usize,
    names: &[&str],
    depth: usize,
) -> Result<(String, String), KernelError> {
    let inputs = operands(spec);
    let mut printer = Printer::new(&part.body, &inputs);
    printer.set_depth(depth);
    for (&var, name) in part.vars.iter().zip(names) {
        printer.bind(var, name);
    }
    let values = printer.lanes(lane_of(&part.vars, width), &[part.value]);
    Ok((printer.finish()?, values[0].clone()))
}

/// Statements that read the one element of `part`, and its value.
///
/// # Errors
/// If an op of the part has no text.
pub fn read_one(
    spec: &KernelSpec,
    part: &Before,
    names: &[&str],
    depth: usize,
) -> Result<(String, String), KernelError> {
    let inputs = operands(spec);
    let mut printer = Printer::new(&part.body, &inputs);
    printer.set_depth(depth);
    for (&var, name) in part.vars.iter().zip(names) {
        printer.bind(var, name);
    }
    let value = printer.value(part.value);
    Ok((printer.finish()?, value))
}

/// The lane is the last variable.
fn lane_of(vars: &[VarId], width: usize) -> Lane {
    Lane {
        var: *vars.last().expect("every part has a lane"),
        width,
    }
}

/// Filter `width * chunk + lane`, the last two variables.
fn filter_index(vars: &[VarId], width: usize) -> Index {
    let [.., chunk, lane] = vars else {
        unreachable!("parts have a chunk and a lane");
    };
    Index::var(*chunk)
        .times(&Extent::from(width))
        .plus(&lane_index(*lane, width))
}

/// A variable of one value is zero.
fn variable(var: VarId, extent: usize) -> Index {
    if extent == 1 {
        Index::zero()
    } else {
        Index::var(var)
    }
}

fn axes(attrs: &Attrs, kernel: &[usize], input: &[usize], output: &[usize]) -> Option<Vec<Axis>> {
    let (strides, dilations) = (
        infer::sizes(attrs, "strides").ok()?,
        infer::sizes(attrs, "dilations").ok()?,
    );
    let pads = infer::ints(attrs, "pads").ok()?;
    let rank = kernel.len();
    (0..rank)
        .map(|axis| {
            Some(Axis {
                input: input[axis],
                output: output[axis],
                kernel: kernel[axis],
                stride: *strides.get(axis)?,
                dilation: *dilations.get(axis)?,
                pad: *pads.get(axis)?,
                pad_end: *pads.get(axis + rank)?,
            })
        })
        .collect()
}

impl Axis {
    /// Input positions whose cells count in a mean: start and end.
    fn counted(&self, counts_padding: bool) -> (i64, i64) {
        let input = signed(self.input);
        if counts_padding {
            (-self.pad, input + self.pad_end)
        } else {
            (0, input)
        }
    }

    fn count(&self, counts_padding: bool, place: usize) -> usize {
        let (low, high) = self.counted(counts_padding);
        let first = signed(place * self.stride) - self.pad;
        (0..self.kernel)
            .filter(|&cell| (low..high).contains(&(first + signed(cell * self.dilation))))
            .count()
    }

    /// Whether every window lies inside the input.
    pub fn is_inside(&self) -> bool {
        let last = signed((self.output - 1) * self.stride + (self.kernel - 1) * self.dilation) - self.pad;
        self.pad <= 0 && last < signed(self.input)
    }

    /// Whether every window that reaches beyond the input holds the cell at that edge.
    pub fn has_edges(&self) -> bool {
        let last = signed((self.output - 1) * self.stride) - self.pad;
        self.dilation == 1 && self.pad < signed(self.kernel) && last < signed(self.input)
    }

    /// Taps from one that contributes to the next, of a transposed convolution.
    pub fn tap_step(&self) -> usize {
        self.stride / common_divisor(self.stride, self.dilation)
    }

    /// Input positions from one contributing tap to the next.
    pub fn advance(&self) -> usize {
        self.tap_step() * self.dilation / self.stride
    }

    /// First tap that contributes in each phase of a transposed convolution; `kernel` where none
    /// does.
    pub fn first_taps(&self) -> Vec<usize> {
        (0..self.stride)
            .map(|phase| {
                (0..self.kernel.min(self.tap_step()))
                    .find(|&tap| {
                        (signed(phase) - signed(tap * self.dilation)).rem_euclid(signed(self.stride)) == 0
                    })
                    .unwrap_or(self.kernel)
            })
            .collect()
    }
}

fn signed(value: usize) -> i64 {
    i64::try_from(value).expect("window sizes fit in i64")
}
