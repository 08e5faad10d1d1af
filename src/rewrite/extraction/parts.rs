//! What a `join` is made of: which tensors lie where in it, and what it costs that they do.
//!
//! An operand that is a tensor in memory, or a reshape of one, can be stored into the join by the
//! kernel that computes it. Slices that lie side by side and together are a whole tensor stand for
//! that tensor. What is left is copied by a kernel of its own.

use std::collections::BTreeMap;

use super::cost::as_f64;
use super::devices::DeviceRates;
use super::net::{Net, NetExpr};
use crate::ir::{Attr, Attrs, Placement};
use crate::ops::TileKind;

/// The op whose operands are stored into its result.
pub const JOIN: &str = "join";
/// Most parts that are copied: a kernel that moves all of them takes no more launches than two.
pub const MOST_COPIES: usize = 1;

/// How an operand of a join comes from a tensor in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    Whole,
    Reshaped,
    /// Elements from `start` on of `of` along the axis of the join.
    Slice {
        start: usize,
        of: usize,
    },
    Other,
}

/// An operand of a join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<T> {
    /// The tensor in memory, if there is one.
    pub source: Option<T>,
    pub view: View,
    /// Along the axis of the join.
    pub extent: usize,
}

/// Neighbouring elements of a join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<T> {
    pub piece: Piece<T>,
    /// Where it begins along the axis.
    pub start: usize,
    /// Number of the first operand that it is.
    pub operand: usize,
}

impl<T> Part<T> {
    /// Whether the part is a tensor in memory, whatever its dims.
    pub fn is_tensor(&self) -> bool {
        self.piece.source.is_some() && matches!(self.piece.view, View::Whole | View::Reshaped)
    }
}

/// The axis of a join.
pub fn axis_of(attrs: &Attrs) -> usize {
    let axis = attrs.int("axis").and_then(|axis| usize::try_from(axis).ok());
    axis.expect("a join has an axis")
}

/// What op `op` makes of a tensor of `dims`, on the way to a join along `axis`.
pub fn view_of(op: &str, attrs: &Attrs, dims: &[usize], axis: usize) -> View {
    match op {
        "reshape" => View::Reshaped,
        "slice" => slice_of(attrs, dims, axis).unwrap_or(View::Other),
        _ => View::Other,
    }
}

/// A slice that takes neighbours along `axis`, and everything of all other axes.
fn slice_of(attrs: &Attrs, dims: &[usize], axis: usize) -> Option<View> {
    let list = |name: &str| match attrs.get(name) {
        Some(Attr::Ints(values)) => Some(values.clone()),
        _ => None,
    };
    let (starts, ends, steps) = (list("starts")?, list("ends")?, list("steps")?);
    let whole = |own: usize| starts[own] == 0 && usize::try_from(ends[own]) == Ok(dims[own]);
    let fits = steps.iter().all(|&step| step == 1) && (0..dims.len()).all(|own| own == axis || whole(own));
    let start = usize::try_from(*starts.get(axis)?).ok()?;
    fits.then_some(View::Slice {
        start,
        of: *dims.get(axis)?,
    })
}

/// The parts of a join of `pieces`: slices that are a tensor together become that tensor.
pub fn parts<T: Copy + PartialEq>(pieces: &[Piece<T>]) -> Vec<Part<T>> {
    let mut found: Vec<Part<T>> = Vec::new();
    let mut start = 0;
    let mut operand = 0;
    while operand < pieces.len() {
        let (piece, n_operands) = tensor_of_slices(&pieces[operand..]).unwrap_or((pieces[operand], 1));
        // A part without elements has nothing to place.
        if piece.extent > 0 {
            found.push(Part {
                piece,
                start,
                operand,
            });
        }
        start += piece.extent;
        operand += n_operands;
    }
    found
}

/// The tensor that the first pieces are slices of, one behind the other, and how many they are.
fn tensor_of_slices<T: Copy + PartialEq>(pieces: &[Piece<T>]) -> Option<(Piece<T>, usize)> {
    let source = pieces.first()?.source;
    let mut end = 0;
    for (number, piece) in pieces.iter().enumerate() {
        let View::Slice { start, of } = piece.view else {
            return None;
        };
        if piece.source != source || start != end {
            return None;
        }
        end += piece.extent;
        if end == of {
            let view = View::Whole;
            let extent = of;
            return Some((Piece { source, view, extent }, number + 1));
        }
    }
    None
}

/// Microseconds that it costs to have the parts of the join of `root` in place; `None` where a
/// kernel has to move them anyway. `inlined` are the join and the views of its operands.
pub fn placing_us(
    net: &Net,
    root: usize,
    inlined: &BTreeMap<usize, usize>,
    device: &DeviceRates,
) -> Option<f64> {
    let expr = &net.exprs[*inlined.get(&root)?];
    let axis = axis_of(&expr.attrs);
    let parts = parts(&pieces(net, expr, axis, inlined));
    let mut placed: Vec<usize> = Vec::new();
    let (mut cost, mut n_copies) = (0.0, 0);
    for part in &parts {
        match part.piece.source.filter(|_| part.is_tensor()) {
            Some(tensor) if is_free(net, tensor) && !placed.contains(&tensor) => {
                placed.push(tensor);
                cost += strided_us(net, root, axis, part, device);
            }
            _ => {
                n_copies += 1;
                cost += copy_us(net, root, axis, part, device);
            }
        }
    }
    (n_copies <= MOST_COPIES && !placed.is_empty()).then_some(cost)
}

/// Microseconds that a kernel takes longer for every operand beyond the first of what it joins by
/// itself: each of its elements is looked for in all of them.
pub fn selecting_us(net: &Net, inlined: &BTreeMap<usize, usize>) -> f64 {
    const OPERAND_US: f64 = 0.02;
    let joins = inlined
        .values()
        .map(|&expr| &net.exprs[expr])
        .filter(|expr| expr.op == "concat");
    joins
        .map(|expr| OPERAND_US * as_f64(expr.operands.len().saturating_sub(1)))
        .sum()
}

fn pieces(net: &Net, expr: &NetExpr, axis: usize, inlined: &BTreeMap<usize, usize>) -> Vec<Piece<usize>> {
    let piece = |operand: usize| {
        let extent = net.tensors[operand].ty.dims()[axis];
        let viewed = inlined.get(&operand).map(|&view| &net.exprs[view]);
        let Some((view, source)) = viewed.and_then(|view| Some((view, view.uses().next()?.tensor))) else {
            return Piece {
                source: Some(operand),
                view: View::Whole,
                extent,
            };
        };
        Piece {
            source: Some(source),
            view: view_of(view.op, &view.attrs, &net.tensors[source].ty.dims(), axis),
            extent,
        }
    };
    expr.uses().map(|operand| piece(operand.tensor)).collect()
}

/// Whether a tensor is written by kernels of this net, and may lie anywhere.
fn is_free(net: &Net, tensor: usize) -> bool {
    net.tensors[tensor].is_device() && !net.outputs.contains(&tensor)
}

fn part_bytes(net: &Net, root: usize, axis: usize, part: &Part<usize>) -> f64 {
    let whole = &net.tensors[root];
    let extent = whole.ty.dims()[axis].max(1);
    as_f64(whole.n_bytes()) * as_f64(part.piece.extent) / as_f64(extent)
}

/// A kernel that copies a part.
fn copy_us(net: &Net, root: usize, axis: usize, part: &Part<usize>, device: &DeviceRates) -> f64 {
    device.launch_us + device.move_us(2.0 * part_bytes(net, root, axis, part))
}

/// What the writer of a part and its readers lose, the join's own not among them: pieces of
/// sectors at the ends of runs, and more accesses where vectors are narrow.
fn strided_us(net: &Net, root: usize, axis: usize, part: &Part<usize>, device: &DeviceRates) -> f64 {
    const SECTOR_BYTES: usize = 32;
    const VECTOR_BYTES: usize = 16;
    const STEPS_PER_ACCESS: f64 = 8.0;
    // Main loops read an element several times.
    const READS_OF_LOOPS: f64 = 4.0;
    let whole = &net.tensors[root].ty;
    let mut dims = whole.dims();
    let mut placement = Placement {
        starts: vec![0; dims.len()],
        dims: dims.clone(),
    };
    placement.starts[axis] = part.start;
    dims[axis] = part.piece.extent;
    let size = whole.dtype.size_bytes();
    let run: usize = dims[axis..].iter().product::<usize>() * size;
    let vector = placement.vector(&dims) * size;
    let bytes = part_bytes(net, root, axis, part);
    let torn = if vector.is_multiple_of(SECTOR_BYTES) {
        0.0
    } else {
        bytes * (as_f64(SECTOR_BYTES) / as_f64(run)).min(1.0)
    };
    let narrow = vector.min(VECTOR_BYTES).max(size);
    let accesses = bytes / as_f64(narrow) - bytes / as_f64(VECTOR_BYTES);
    let issue = accesses * STEPS_PER_ACCESS / device.scalar_rate();
    let uses = part.piece.source.map_or(0.0, |tensor| {
        let readers = net.exprs.iter().filter(|expr| {
            let reads = expr.uses().any(|operand| operand.tensor == tensor);
            reads && !expr.results.contains(&root)
        });
        let weight = |expr: &NetExpr| match expr.kind {
            TileKind::Dot | TileKind::Window | TileKind::Other => READS_OF_LOOPS,
            TileKind::Map | TileKind::View | TileKind::Index | TileKind::Reduce => 1.0,
        };
        readers.map(weight).fold(0.0, f64::max)
    });
    (1.0 + uses) * (device.move_us(torn) + issue)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(source: u32, view: View, extent: usize) -> Piece<u32> {
        Piece {
            source: Some(source),
            view,
            extent,
        }
    }

    fn slice(source: u32, start: usize, extent: usize, of: usize) -> Piece<u32> {
        piece(source, View::Slice { start, of }, extent)
    }

    #[test]
    fn slices_in_order_are_their_tensor() {
        let pieces = [slice(7, 0, 3, 5), slice(7, 3, 2, 5), piece(8, View::Whole, 4)];
        let found = parts(&pieces);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].piece, piece(7, View::Whole, 5));
        assert_eq!((found[1].start, found[1].operand), (5, 2));
    }

    #[test]
    fn other_slices_stay_slices() {
        for pieces in [
            [slice(7, 3, 2, 5), slice(7, 0, 3, 5)],
            [slice(7, 0, 3, 6), slice(7, 3, 2, 6)],
            [slice(7, 0, 3, 5), slice(8, 3, 2, 5)],
        ] {
            let found = parts(&pieces);
            assert!(found.iter().all(|part| !part.is_tensor()), "{found:?}");
            assert_eq!(found.len(), 2);
        }
    }

    #[test]
    fn slices_of_other_axes_are_no_parts() {
        let ints = |values: [i64; 2]| Attr::Ints(values.to_vec());
        let attrs = |starts, ends| {
            Attrs::new()
                .with("starts", ints(starts))
                .with("ends", ints(ends))
                .with("steps", ints([1, 1]))
        };
        let view = |starts, ends| view_of("slice", &attrs(starts, ends), &[4, 6], 1);
        assert_eq!(view([0, 2], [4, 5]), View::Slice { start: 2, of: 6 });
        assert_eq!(view([1, 2], [4, 5]), View::Other);
    }
}
