//! What is known of numbers before any data is: limits, and how they follow from each other.
//!
//! The numbers of a graph under construction are computed by the tile functions of its ops, with ranges in
//! place of data. Small tensors, which sizes and shapes are, are looked at element by element.

use std::collections::{BTreeMap, HashMap};

use super::super::element::{expression, operand_types};
use super::eval::Eval;
use super::intervals;
use crate::ir::{DType, Graph, HostTensor, Node, Source, TensorType, ValueId};
use crate::ops::bounded::{Amount, Analysis, Linear};
use crate::ops::evaluate::to_vec;
use crate::tile::{Body, Extent, Index};

/// Tensors of so many elements at most are looked at element by element.
const SMALL: usize = 64;
/// Floats are followed through so many nodes, integers too: what lies further back is data.
const DEPTH: usize = 64;

/// What is known of the numbers of a graph.
#[derive(Clone, Default)]
pub(super) struct Amounts {
    elements: HashMap<ValueId, Vec<Amount>>,
    whole: HashMap<ValueId, Amount>,
    /// Limits of what [`Linear`] is made of.
    limits: BTreeMap<(ValueId, usize), (f64, f64)>,
    depth: usize,
}

impl Analysis for Amounts {
    fn elements(&mut self, graph: &Graph, value: ValueId) -> Option<Vec<Amount>> {
        let ty = graph.value(value).ty.as_ref()?;
        if ty.n_elements() > SMALL {
            return None;
        }
        if let Some(known) = self.elements.get(&value) {
            return Some(known.clone());
        }
        let elements = self.computed(graph, value, ty);
        self.elements.insert(value, elements.clone());
        Some(elements)
    }
}

impl Amounts {
    /// Limits of every element of `value`.
    pub fn of(&mut self, graph: &Graph, value: ValueId) -> Amount {
        if let Some(known) = self.whole.get(&value) {
            return known.clone();
        }
        let ty = graph.ty(value);
        let amount = match self.elements(graph, value) {
            Some(elements) => elements
                .into_iter()
                .reduce(|all, one| all.or(&one))
                .unwrap_or_else(|| intervals::any(ty.dtype)),
            None => self.all(graph, value, ty),
        };
        let amount = Amount {
            linear: None,
            ..amount
        };
        self.whole.insert(value, amount.clone());
        amount
    }

    /// Forgets what is known of the elements of values that get another extent.
    pub fn forget_elements<'v>(&mut self, values: impl Iterator<Item = &'v ValueId>) {
        for value in values {
            self.elements.remove(value);
            self.whole.remove(value);
        }
    }

    /// Forgets values from number `first` on.
    pub fn forget(&mut self, first: usize) {
        let stays = |value: ValueId| (value.0 as usize) < first;
        self.elements.retain(|&value, _| stays(value));
        self.whole.retain(|&value, _| stays(value));
        self.limits.retain(|&(value, _), _| stays(value));
    }

    /// States that no element of `value` is above `most`.
    pub fn limit(&mut self, graph: &Graph, value: ValueId, least: f64, most: f64) {
        let Some(mut elements) = self.elements(graph, value) else {
            return;
        };
        for element in &mut elements {
            let single = element.linear.as_ref().and_then(|linear| {
                let mut terms = linear.terms.iter();
                match (terms.next(), terms.next(), linear.constant) {
                    (Some((&of, 1)), None, 0) => Some(of),
                    _ => None,
                }
            });
            element.low = element.low.max(least);
            element.high = element.high.min(most);
            if let Some(of) = single {
                self.limits.insert(of, (element.low, element.high));
            }
        }
        self.whole.remove(&value);
        self.elements.insert(value, elements);
    }

    fn computed(&mut self, graph: &Graph, value: ValueId, ty: &TensorType) -> Vec<Amount> {
        if let Some(data) = graph.weight(value) {
            return constants(data);
        }
        let n = ty.n_elements();
        let dims = ty.dims();
        let mut elements: Vec<Amount> = (0..n)
            .map(|position| {
                let at: Vec<Index> = coordinates(position, &dims)
                    .into_iter()
                    .map(Index::known)
                    .collect();
                self.at(graph, value, &at)
            })
            .collect();
        for (position, element) in elements.iter_mut().enumerate() {
            if element.linear.is_none() && !ty.dtype.is_float() {
                element.linear = Some(Linear::element(value, position));
                self.limits.insert((value, position), (element.low, element.high));
            }
        }
        elements
    }

    /// Limits of the elements of a large tensor.
    fn all(&mut self, graph: &Graph, value: ValueId, ty: &TensorType) -> Amount {
        if let Some(data) = graph.weight(value) {
            let all = constants(data).into_iter().reduce(|all, one| all.or(&one));
            return all.unwrap_or_else(|| intervals::any(ty.dtype));
        }
        let Source::Node(id, number) = graph.value(value).source else {
            return intervals::any(ty.dtype);
        };
        let node = graph.node(id);
        let mut body = Body::new();
        let at: Vec<Index> = ty
            .dims()
            .into_iter()
            .map(|extent| Index::var(body.vars.fresh(Extent::from(extent))))
            .collect();
        self.element(graph, node, number, &at, body)
    }

    fn at(&mut self, graph: &Graph, value: ValueId, at: &[Index]) -> Amount {
        match graph.value(value).source {
            Source::Node(id, number) => self.element(graph, graph.node(id), number, at, Body::new()),
            Source::Input(_) | Source::Weight(_) => intervals::any(graph.ty(value).dtype),
        }
    }

    /// Result `number` of `node` at `at`.
    fn element(&mut self, graph: &Graph, node: &Node, number: usize, at: &[Index], mut body: Body) -> Amount {
        let result = graph.ty(node.results[number]);
        if self.depth > DEPTH {
            return intervals::any(result.dtype);
        }
        let operands = operand_types(graph, node);
        let root = expression((node.op, &node.attrs), &operands, (result, number), at, &mut body);
        let Some(root) = root else {
            return intervals::any(result.dtype);
        };
        self.depth += 1;
        let amount = Eval::new(self, graph, &node.operands, &body).of(root);
        self.depth -= 1;
        amount
    }

    /// Limits of a sum of elements.
    fn range_of(&self, linear: &Linear) -> (f64, f64) {
        #[expect(clippy::cast_precision_loss, reason = "limits may be rounded")]
        let constant = linear.constant as f64;
        linear
            .terms
            .iter()
            .fold((constant, constant), |(low, high), (of, &factor)| {
                let (least, most) = self
                    .limits
                    .get(of)
                    .copied()
                    .unwrap_or((f64::NEG_INFINITY, f64::INFINITY));
                #[expect(clippy::cast_precision_loss, reason = "limits may be rounded")]
                let factor = factor as f64;
                let (a, b) = (least * factor, most * factor);
                (low + a.min(b), high + a.max(b))
            })
    }

    /// Limits of `a - b`.
    pub fn difference(&self, a: &Amount, b: &Amount) -> (f64, f64) {
        // Infinite limits of one sign have no difference: what has them is not beyond what has the other.
        let limit = |difference: f64| if difference.is_nan() { 0.0 } else { difference };
        let plain = (limit(a.low - b.high), limit(a.high - b.low));
        let linear = match (&a.linear, &b.linear) {
            (Some(a), Some(b)) => a.plus(b, -1),
            _ => None,
        };
        match linear.map(|linear| self.range_of(&linear)) {
            Some((low, high)) => (low.max(plain.0), high.min(plain.1)),
            None => plain,
        }
    }
}

fn constants(data: &HostTensor) -> Vec<Amount> {
    if data.dtype().is_float() {
        let values = to_vec::<f64>(data);
        return values.into_iter().map(intervals::float).collect();
    }
    if data.dtype() == DType::U64 {
        let values = to_vec::<u64>(data);
        let known =
            |value: u64| i64::try_from(value).map_or_else(|_| intervals::any(DType::U64), Amount::known);
        return values.into_iter().map(known).collect();
    }
    to_vec::<i64>(data).into_iter().map(Amount::known).collect()
}

/// Coordinates of the element at a row-major position.
pub(super) fn coordinates(mut position: usize, dims: &[usize]) -> Vec<i64> {
    let mut coordinates = vec![0; dims.len()];
    for (coordinate, &extent) in coordinates.iter_mut().zip(dims).rev() {
        *coordinate = i64::try_from(position % extent.max(1)).expect("extents fit in i64");
        position /= extent.max(1);
    }
    coordinates
}
