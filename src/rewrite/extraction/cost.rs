//! The analytic lower bound of a kernel's time: a launch, and the larger of moving its
//! bytes and doing its arithmetic.

use std::collections::BTreeMap;

pub use super::devices::DeviceRates;
use super::net::{Net, NetExpr, NetSource};
use crate::ir::{Attrs, DType, TensorType};
use crate::ops::{TileKind, Tolerance};
use crate::rewrite::egraph::language::{def_of, kind_of};

/// Scalar operations of one element of an op: transcendental functions count as several,
/// moving data as none.
pub fn flops_per_element(op: &'static str) -> f64 {
    match kind_of(op) {
        TileKind::View => 0.0,
        TileKind::Index => 1.0,
        TileKind::Map => match def_of(op).tolerance {
            Tolerance::Exact => 1.0,
            Tolerance::Rounded | Tolerance::Close | Tolerance::Accumulated => 8.0,
        },
        TileKind::Reduce | TileKind::Dot | TileKind::Window | TileKind::Other => 4.0,
    }
}

/// Scalar operations of a whole use of an op whose work is not one element's at a time.
pub fn flops_of_op(
    op: &'static str,
    attrs: &Attrs,
    operands: &[Option<TensorType>],
    result: &TensorType,
) -> f64 {
    let n_results = as_f64(result.n_elements());
    let operand = |n: usize| operands.get(n).and_then(Option::as_ref);
    match kind_of(op) {
        TileKind::Map | TileKind::View | TileKind::Index => n_results * flops_per_element(op),
        TileKind::Reduce => 4.0 * operand(0).map_or(0.0, |ty| as_f64(ty.n_elements())),
        TileKind::Dot => {
            let depth = operand(0).and_then(|ty| ty.dims().last().copied()).unwrap_or(1);
            2.0 * n_results * as_f64(depth)
        }
        TileKind::Window => match operand(1) {
            // The filter's outermost axis is the result's channels.
            Some(filter) => {
                let channels = filter.dims().first().copied().unwrap_or(1).max(1);
                2.0 * n_results * as_f64(filter.n_elements() / channels)
            }
            None => n_results * as_f64(window_size(attrs)),
        },
        TileKind::Other => pairwise_flops(operands, n_results),
    }
}

/// Two products, where the operands look like a query, keys and values; else a few
/// operations per element.
fn pairwise_flops(operands: &[Option<TensorType>], n_results: f64) -> f64 {
    let dims: Vec<Vec<usize>> = operands.iter().take(3).flatten().map(TensorType::dims).collect();
    match dims.as_slice() {
        [query, key, value] if query.len() == 4 && key.len() == 4 && value.len() == 4 => {
            let pairs = as_f64(query[..3].iter().product::<usize>() * key[2]);
            2.0 * pairs * as_f64(query[3] + value[3])
        }
        _ => 4.0 * n_results,
    }
}

fn window_size(attrs: &Attrs) -> usize {
    let sizes = attrs.0.iter().find(|(name, _)| name.starts_with("kernel"));
    let sizes = sizes.and_then(|(name, _)| attrs.ints(name)).unwrap_or(&[]);
    sizes
        .iter()
        .map(|&size| usize::try_from(size).unwrap_or(1))
        .product()
}

#[expect(clippy::cast_precision_loss, reason = "costs are estimates")]
pub fn as_f64(n: usize) -> f64 {
    n as f64
}

/// What a kernel moves and computes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    pub bytes: f64,
    /// Microseconds of moving them.
    pub move_us: f64,
    /// Microseconds of arithmetic at peak rates.
    pub compute_us: f64,
    /// Microseconds of gathering operands in pieces, which nothing hides.
    pub gather_us: f64,
}

impl Work {
    /// Lower bound of the time, in microseconds.
    pub fn bound_us(&self, device: &DeviceRates) -> f64 {
        device.launch_us + self.gather_us + self.move_us.max(self.compute_us)
    }
}

/// The work of computing and writing `outputs` by the inlined expressions: `inlined` maps each
/// tensor that the kernel computes to its expression, of several results one of them;
/// `once` says which of them are computed once per element however often they are read.
pub fn work_of(
    net: &Net,
    outputs: &[usize],
    inlined: &BTreeMap<usize, usize>,
    once: impl Fn(usize) -> bool,
    device: &DeviceRates,
) -> Work {
    let mut reads: BTreeMap<usize, f64> = BTreeMap::new();
    let mut work = Work::default();
    let repeats = statistic_repeats(net, inlined);
    for (&tensor, &expr) in inlined.iter().rev() {
        let own = as_f64(net.tensors[tensor].n_elements);
        let times = if outputs.contains(&tensor) || once(tensor) {
            own
        } else {
            reads.get(&tensor).copied().unwrap_or(own)
        };
        let expr = &net.exprs[expr];
        let is_statistic = expr.kind == TileKind::Reduce;
        let repeats = if is_statistic { repeats } else { 1.0 };
        work.compute_us += repeats * compute_us(net, expr, inlined, times, device);
        for operand in expr.uses() {
            *reads.entry(operand.tensor).or_default() += reads_of(net, expr, operand.tensor, times, own);
        }
    }
    let (mut weights, mut values) = (0.0, 0.0);
    let gathered = gathered(net, inlined);
    for (&number, &times) in reads.iter().filter(|(tensor, _)| !inlined.contains_key(tensor)) {
        let tensor = &net.tensors[number];
        let bytes = times.min(as_f64(tensor.n_elements)) * as_f64(tensor.ty.dtype.size_bytes());
        if gathered.iter().any(|&(_, from)| from == number) {
            work.gather_us += device.move_us(bytes);
        }
        match tensor.source {
            NetSource::Const(_) => weights += bytes,
            NetSource::Input(_) | NetSource::Device => values += bytes,
        }
    }
    let written = outputs
        .iter()
        .map(|&output| as_f64(net.tensors[output].n_bytes()));
    values += written.sum::<f64>();
    work.bytes = weights + values;
    work.move_us = device.move_us(values) + device.weights_us(weights, as_f64(net.weight_bytes));
    work
}

/// Transposed tensors that a product reads with axes put together which are no neighbours in memory, and what they
/// are transposed from: rows of the operand are then pieces, of which no copy brings a tile. Whatever writes the
/// tensor rather writes it in the order that the product reads.
pub fn gathered(net: &Net, inlined: &BTreeMap<usize, usize>) -> Vec<(usize, usize)> {
    // What `tensor` is a view of by `op`, if the kernel computes it so.
    let viewed = |tensor: usize, op: &str| {
        let expr = &net.exprs[*inlined.get(&tensor)?];
        let operand = expr.uses().next()?;
        (expr.op == op).then_some(operand.tensor)
    };
    let products = inlined
        .values()
        .filter(|&&expr| net.exprs[expr].kind == TileKind::Dot);
    let operands = products.flat_map(|&expr| net.exprs[expr].uses());
    let found = operands.filter_map(|operand| {
        let mut tensor = viewed(operand.tensor, "reshape")?;
        while let Some(inner) = viewed(tensor, "reshape") {
            tensor = inner;
        }
        Some((tensor, viewed(tensor, "transpose")?))
    });
    found.collect()
}

/// How often a product takes statistics of its rows: each tile of columns anew.
fn statistic_repeats(net: &Net, inlined: &BTreeMap<usize, usize>) -> f64 {
    const TILE_COLUMNS: usize = 128;
    let mut products = inlined
        .iter()
        .filter(|(_, expr)| net.exprs[**expr].kind == TileKind::Dot);
    let columns = products
        .next()
        .and_then(|(&product, _)| net.tensors[product].ty.dims().last().copied());
    columns.map_or(1.0, |columns| as_f64(columns.div_ceil(TILE_COLUMNS)))
}

fn compute_us(
    net: &Net,
    expr: &NetExpr,
    inlined: &BTreeMap<usize, usize>,
    times: f64,
    device: &DeviceRates,
) -> f64 {
    match expr.kind {
        TileKind::Map | TileKind::View | TileKind::Index => times * expr.flops / device.scalar_rate(),
        TileKind::Reduce => expr.flops / device.scalar_rate(),
        TileKind::Dot | TileKind::Window | TileKind::Other => {
            let first = expr
                .uses()
                .next()
                .map_or(expr.results[0], |operand| operand.tensor);
            expr.flops / device.matrix_rate(kind_in_memory(net, inlined, first))
        }
    }
}

/// The kind that a product reads an operand in: of what it converts while it is staged, where that is
/// a byte, which instructions multiply as it is.
fn kind_in_memory(net: &Net, inlined: &BTreeMap<usize, usize>, operand: usize) -> DType {
    let own = net.tensors[operand].ty.dtype;
    let mut tensor = operand;
    while let Some(&expr) = inlined.get(&tensor) {
        let expr = &net.exprs[expr];
        let passes = expr.op == "cast" || matches!(expr.kind, TileKind::View);
        let Some(source) = expr.uses().next().filter(|_| passes) else {
            break;
        };
        tensor = source.tensor;
    }
    match net.tensors[tensor].ty.dtype {
        byte @ (DType::I8 | DType::F8E4M3) => byte,
        _ => own,
    }
}

/// How often elements of `operand` are read when `times` elements of the result are computed.
fn reads_of(net: &Net, expr: &NetExpr, operand: usize, times: f64, result_elements: f64) -> f64 {
    let own = as_f64(net.tensors[operand].n_elements);
    match expr.kind {
        // Each element of a joined tensor comes from one of its parts.
        TileKind::Index if own < result_elements => times * own / result_elements.max(1.0),
        TileKind::Map | TileKind::View | TileKind::Index => times,
        // Main loops stage their operands: each element is made once.
        TileKind::Reduce | TileKind::Dot | TileKind::Window | TileKind::Other => own,
    }
}
