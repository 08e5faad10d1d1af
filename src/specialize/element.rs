//! One element of a node's result, as its op's tile function says.

use crate::ir::{Attrs, Graph, Node, TensorType};
use crate::ops;
use crate::tile::{Body, Expr, ExprId, Extent, Index, TileCtx, VarId};

/// The expression of an element, and what it reads.
pub(super) struct Element {
    pub body: Body,
    pub root: ExprId,
    /// Its position along each axis of the result.
    pub vars: Vec<VarId>,
}

impl Element {
    /// Of result number `number`, of type `result`. None for ops that have no tile function.
    pub fn of(
        op: &str,
        attrs: &Attrs,
        operands: &[Option<TensorType>],
        result: &TensorType,
        number: usize,
    ) -> Option<Self> {
        let mut body = Body::new();
        let extents = result.dims();
        let vars: Vec<VarId> = extents
            .iter()
            .map(|&extent| body.vars.fresh(Extent::from(extent)))
            .collect();
        // Along an axis of one element there is one position.
        let position = |(&var, &extent): (&VarId, &usize)| match extent {
            1 => Index::zero(),
            _ => Index::var(var),
        };
        let at: Vec<Index> = vars.iter().zip(&extents).map(position).collect();
        let root = expression((op, attrs), operands, (result, number), &at, &mut body)?;
        Some(Element { body, root, vars })
    }

    /// Of result number `number` of a node.
    pub fn of_node(graph: &Graph, node: &Node, number: usize) -> Option<Self> {
        let result = graph.ty(node.results[number]);
        Self::of(node.op, &node.attrs, &operand_types(graph, node), result, number)
    }

    /// What it reads: numbers of operands, with a position along each of their axes.
    pub fn loads(&self) -> Vec<(usize, &[Index])> {
        let loads = self.body.exprs().filter_map(|(_, expr)| match expr {
            Expr::Load { input, index, .. } => Some((*input as usize, index.as_slice())),
            _ => None,
        });
        loads.collect()
    }
}

pub(super) fn operand_types(graph: &Graph, node: &Node) -> Vec<Option<TensorType>> {
    let types = node.operands.iter();
    types
        .map(|operand| operand.map(|value| graph.ty(value).clone()))
        .collect()
}

/// The expression of the element at `at` of a result, its type and number given. None for ops that have no tile function.
pub(super) fn expression(
    (op, attrs): (&str, &Attrs),
    operands: &[Option<TensorType>],
    (result, number): (&TensorType, usize),
    at: &[Index],
    body: &mut Body,
) -> Option<ExprId> {
    let mut read = |body: &mut Body, n: usize, at: &[Index]| {
        let ty = operands[n].as_ref();
        body.add(Expr::Load {
            input: u32::try_from(n).expect("nodes have few operands"),
            index: at.to_vec(),
            dtype: ty.expect("tile functions read operands that are present").dtype,
        })
    };
    ops::lookup(op)?.tile(&mut TileCtx {
        attrs,
        operands,
        result,
        result_index: number,
        at,
        body,
        read: &mut read,
    })
}
