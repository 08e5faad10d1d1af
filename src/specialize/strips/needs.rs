//! What of its operands a node needs for a strip of its result.

use std::collections::BTreeMap;

use super::Strip;
use crate::ir::{Attr, Attrs, Graph, Node, TensorType, ValueId};
use crate::ops::build::signed;
use crate::ops::samples::ints_attr;
use crate::ops::window::Window;
use crate::ops::{self, InferCtx, Reach};
use crate::specialize::element::{Element, operand_types};
use crate::tile::{Expr, Index, VarId};

/// What a node needs for a strip of its result.
pub(super) struct Need {
    /// Of each operand; it is whole where there is none.
    pub strips: Vec<Option<Strip>>,
    pub attrs: Attrs,
}

impl Need {
    /// Whether it is strips of the values with an axis in `axes` that are needed, along these.
    pub fn follows(&self, node: &Node, axes: &BTreeMap<ValueId, usize>) -> bool {
        let mut pairs = node.operands.iter().zip(&self.strips);
        pairs.all(|(operand, strip)| {
            let axis = operand.and_then(|value| axes.get(&value));
            axis.is_none() || axis == strip.map(|strip| strip.axis).as_ref()
        })
    }
}

pub(super) fn strip_type(ty: &TensorType, strip: Strip) -> TensorType {
    let mut dims = ty.dims();
    dims[strip.axis] = strip.len();
    TensorType::new(ty.dtype, &dims)
}

/// What `node` needs for a strip of its result; none where that is not known.
pub(super) fn need(graph: &Graph, node: &Node, strip: Strip) -> Option<Need> {
    let reach = ops::lookup(node.op)?.reach;
    let own = match reach {
        Reach::Elements => None,
        Reach::Window { first_space } => window_need(graph, node, strip, first_space),
        Reach::Order => order_need(graph, node, strip),
    };
    own.or_else(|| lane_need(graph, node, strip))
}

/// Where each element needs those at the same position of the operands that have the axis.
fn lane_need(graph: &Graph, node: &Node, strip: Strip) -> Option<Need> {
    let &[result] = node.results.as_slice() else {
        return None;
    };
    let types = operand_types(graph, node);
    let element = Element::of(node.op, &node.attrs, &types, graph.ty(result), 0)?;
    let axes = lanes(&element, element.vars[strip.axis], types.len())?;
    let attrs = resized(&node.attrs, graph.ty(result), strip);
    let strips: Vec<Option<Strip>> = axes
        .into_iter()
        .map(|axis| axis.map(|axis| Strip { axis, ..strip }))
        .collect();
    let cut = types.iter().zip(&strips).map(|(ty, strip)| match (ty, strip) {
        (Some(ty), Some(strip)) => Some(strip_type(ty, *strip)),
        (ty, _) => ty.clone(),
    });
    // One element of the strip must be what it is of the whole, of the same operands.
    let cut: Vec<Option<TensorType>> = cut.collect();
    let ty = strip_type(graph.ty(result), strip);
    if strip.len() < 2 || infer(node, &attrs, &cut)? != ty {
        return None;
    }
    let own = Element::of(node.op, &attrs, &cut, &ty, 0)?;
    let is_same = own.body.exprs().eq(element.body.exprs());
    is_same.then_some(Need { strips, attrs })
}

fn infer(node: &Node, attrs: &Attrs, operands: &[Option<TensorType>]) -> Option<TensorType> {
    let types = ops::lookup(node.op)?.result_types(&InferCtx { attrs, operands });
    types.ok()?.pop()
}

/// The axis of each operand that has the same position as the result along the axis of `var`. None where an element
/// needs others along it, or its position itself.
fn lanes(element: &Element, var: VarId, n_operands: usize) -> Option<Vec<Option<usize>>> {
    let depends = |index: &Index| {
        let mut variables = Vec::new();
        index.variables(&mut variables);
        variables.contains(&var)
    };
    let has_other_use = element.body.exprs().any(|(_, expr)| match expr {
        Expr::IndexValue(index) => depends(index),
        Expr::Select { conds, .. } => conds.iter().any(|cond| depends(&cond.index)),
        Expr::Load { .. } | Expr::Const(_) | Expr::Map { .. } | Expr::Reduce { .. } | Expr::Acc { .. } => {
            false
        }
    });
    let mut lanes: Vec<Option<Option<usize>>> = vec![None; n_operands];
    for (operand, index) in element.loads() {
        let mut reading = index.iter().enumerate().filter(|(_, index)| depends(index));
        let lane = match (reading.next(), reading.next()) {
            (None, _) => None,
            (Some((axis, index)), None) if *index == Index::var(var) => Some(axis),
            _ => return None,
        };
        if lanes[operand].is_some_and(|known| known != lane) {
            return None;
        }
        lanes[operand] = Some(lane);
    }
    (!has_other_use).then(|| lanes.into_iter().map(Option::flatten).collect())
}

/// Attributes that state extents of the result, for a strip of it.
fn resized(attrs: &Attrs, result: &TensorType, strip: Strip) -> Attrs {
    let mut attrs = attrs.clone();
    for name in ["shape", "ends"] {
        if let Some(Attr::Ints(extents)) = attrs.0.get_mut(name)
            && extents.len() == result.rank()
        {
            extents[strip.axis] = signed(strip.len());
        }
    }
    attrs
}

/// Where the elements of the operand come in the same order: those of the strip lie side by side in one of its axes, if
/// they are all of what is behind that axis.
fn order_need(graph: &Graph, node: &Node, strip: Strip) -> Option<Need> {
    let (from, to) = (graph.ty(node.operands[0]?), graph.ty(*node.results.first()?));
    let (dims, own) = (from.dims(), to.dims());
    let n_before = |dims: &[usize], axis: usize| dims[..axis].iter().product::<usize>();
    let n_behind = |dims: &[usize], axis: usize| dims[axis + 1..].iter().product::<usize>();
    let n_rows = n_before(&own, strip.axis);
    let mut axes = (0..dims.len()).filter(|&axis| dims[axis] > 1);
    let axis = axes.find(|&axis| n_before(&dims, axis) == n_rows)?;
    let (n_own, n_each) = (n_behind(&own, strip.axis), n_behind(&dims, axis));
    // The axis ends where that of the strip does.
    if own[strip.axis] * n_own != dims[axis] * n_each {
        return None;
    }
    let place = |end: usize| {
        let n_elements = end * n_own;
        n_elements.is_multiple_of(n_each).then_some(n_elements / n_each)
    };
    let (start, end) = (place(strip.start)?, place(strip.end)?);
    Some(Need {
        strips: vec![Some(Strip { axis, start, end })],
        attrs: resized(&node.attrs, to, strip),
    })
}

/// Where each element needs a window of the first operand.
fn window_need(graph: &Graph, node: &Node, strip: Strip, first_space: usize) -> Option<Need> {
    let x = graph.ty(node.operands[0]?).dims();
    let n_space = x.len() - 2;
    let space = strip
        .axis
        .checked_sub(first_space)
        .filter(|&space| space < n_space)?;
    let kernel = match node.attrs.ints("kernel_shape") {
        Some(kernel) => kernel
            .iter()
            .map(|&cells| usize::try_from(cells).ok())
            .collect::<Option<_>>()?,
        None => graph.ty((*node.operands.get(1)?)?).dims()[first_space..first_space + n_space].to_vec(),
    };
    let window = Window::new(&node.attrs, &kernel).ok()?;
    if node.attrs.int("ceil_mode").unwrap_or(0) != 0 {
        return None;
    }
    // In cells of the padded operand.
    let first = strip.start * window.strides[space];
    let last = (strip.end - 1) * window.strides[space] + window.span(space);
    let (pad, extent) = (window.pads_begin[space], x[strip.axis]);
    let start = first.saturating_sub(pad).min(extent);
    let end = last.saturating_sub(pad).min(extent);
    if end <= start {
        return None;
    }
    let mut pads: Vec<usize> = window
        .pads_begin
        .iter()
        .chain(&window.pads_end)
        .copied()
        .collect();
    pads[space] = pad.saturating_sub(first);
    pads[space + n_space] = last.saturating_sub(pad + extent);
    let mut strips = vec![None; node.operands.len()];
    strips[0] = Some(Strip {
        axis: strip.axis,
        start,
        end,
    });
    Some(Need {
        strips,
        attrs: node.attrs.clone().with("pads", ints_attr(&pads)),
    })
}
