//! Extents that data decides, in a graph whose extents are constants.
//!
//! `NonZero` and the like become ops whose results are as large as they can be, and a count for each axis that
//! data decides. How large that is follows from the numbers that decide it ([`amounts`]), or is stated.
//!
//! What is computed of such results is kept where each element along their axis needs the same element of them
//! alone: then those beyond the count are computed in vain and disturb nothing. Reductions pass over those
//! beyond, which are given a number that changes nothing ([`masks`], [`replay`]). All this is proven of the tile
//! function of every op that is added, not known of ops by name ([`lanes`]). That nothing else follows from the
//! extent is tried: the same nodes are made for a larger one, and compared ([`follow`]).

mod amounts;
mod counts;
mod eval;
mod follow;
mod formula;
mod intervals;
mod lanes;
mod masks;
mod replay;
mod stated;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use super::error::Problem;
use super::fold;
use super::walk::{Lowered, Walk};
use crate::ir::{Attrs, Graph, HostTensor, Node, Operand, ValueId};
use crate::ops::bounded::{BoundedResults, Counted, Linear};
use crate::ops::evaluate::to_vec;
use crate::ops::{self, BoundedForm, OpError};
use amounts::Amounts;

/// Axes of which data decides how many elements there are.
#[derive(Default)]
pub(super) struct Bounds {
    counts: Vec<Count>,
    /// Axes of values.
    axes: BTreeMap<ValueId, Vec<Lane>>,
    amounts: Amounts,
    /// Multiples of counts.
    scaled: BTreeMap<(usize, usize), ValueId>,
    /// Nodes that were made, so that equal ones have the same counts.
    made: Vec<Made>,
    /// Numbers that data must keep below a limit, or what is computed is wrong.
    limits: Vec<Limit>,
    /// Limits by the names of tensors, and whether they were found.
    stated: BTreeMap<String, Stated>,
    /// For each count an extent that nothing has for another reason.
    larger: Vec<usize>,
}

struct Count {
    /// One `i64`.
    value: ValueId,
    /// At most.
    bound: usize,
    /// Who counts, for messages.
    subject: String,
    /// Where it counts the first ones of those that another one counts.
    cut: Option<(Span, usize)>,
    /// What it is in terms of other numbers.
    linear: Option<Linear>,
}

/// A multiple of a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    count: usize,
    factor: usize,
}

/// An axis that has a multiple of a count of elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lane {
    axis: usize,
    span: Span,
}

struct Made {
    op: &'static str,
    operands: Vec<Operand>,
    attrs: Attrs,
    results: Vec<ValueId>,
}

struct Limit {
    /// One `i64`.
    value: ValueId,
    most: i64,
    name: String,
}

struct Stated {
    most: usize,
    is_found: bool,
}

impl Bounds {
    /// With limits that the user states, by the names of tensors.
    pub fn new(stated: &[(String, usize)]) -> Self {
        let stated = stated.iter().map(|(name, most)| {
            let stated = Stated {
                most: *most,
                is_found: false,
            };
            (name.clone(), stated)
        });
        Bounds {
            stated: stated.collect(),
            ..Bounds::default()
        }
    }

    fn bound(&self, span: Span) -> usize {
        self.counts[span.count].bound * span.factor
    }

    fn larger(&self, span: Span) -> usize {
        self.larger[span.count] * span.factor
    }

    /// Chooses extents that are larger than counts can be, and that nothing has for another reason.
    fn choose_larger(&mut self, graph: &Graph) {
        let types = graph.values.iter().filter_map(|value| value.ty.as_ref());
        let mut taken: BTreeSet<usize> = types.flat_map(crate::ir::TensorType::dims).collect();
        self.larger.clear();
        for count in &self.counts {
            let mut larger = count.bound.max(1) + 1;
            while !taken.insert(larger) {
                larger += 1;
            }
            self.larger.push(larger);
        }
    }

    /// Gives all axes that data decides a larger extent, or the one that they have.
    fn resize(&self, graph: &mut Graph, larger: bool) {
        for (&value, lanes) in &self.axes {
            let (dtype, mut dims) = (graph.ty(value).dtype, graph.ty(value).dims());
            for lane in lanes {
                dims[lane.axis] = if larger {
                    self.larger(lane.span)
                } else {
                    self.bound(lane.span)
                };
            }
            graph.value_mut(value).ty = Some(crate::ir::TensorType::new(dtype, &dims));
        }
    }

    /// Forgets values from number `first` on, which were taken back.
    pub(super) fn forget(&mut self, first: usize) {
        let stays = |value: ValueId| (value.0 as usize) < first;
        self.axes.retain(|&value, _| stays(value));
        let n_counts = self.counts.iter().take_while(|count| stays(count.value)).count();
        self.counts.truncate(n_counts);
        self.axes
            .retain(|_, lanes| lanes.iter().all(|lane| lane.span.count < n_counts));
        self.scaled
            .retain(|&(count, _), &mut value| count < n_counts && stays(value));
        self.made
            .retain(|made| made.results.iter().all(|&result| stays(result)));
        self.limits.retain(|limit| stays(limit.value));
        self.amounts.forget(first);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.axes.is_empty()
    }

    fn subjects(&self, lanes: &[Lane]) -> String {
        let names: BTreeSet<&str> = lanes
            .iter()
            .map(|lane| self.counts[lane.span.count].subject.as_str())
            .collect();
        names.into_iter().collect::<Vec<_>>().join(", ")
    }
}

impl Walk<'_> {
    /// Adds a node of which data decides an extent, as large as it can be.
    pub(super) fn emit_bounded(&mut self, node: &Node, form: &BoundedForm, operands: &[Operand]) -> Lowered {
        let bounds = self.bounds.as_ref().expect("the caller looked");
        let known = bounds.made.iter().find(|made| {
            made.op == node.op
                && made.operands == operands
                && made.attrs == node.attrs
                && made.results.len() >= node.results.len()
        });
        if let Some(made) = known {
            return Ok(made
                .results
                .iter()
                .copied()
                .map(super::scope::Known::Tensor)
                .collect());
        }
        let counted = self.counted(operands)?;
        let (n_nodes, n_values) = (self.target.nodes.len(), self.target.values.len());
        let made = self.expand_bounded(node, form, operands, &counted, n_nodes);
        match made {
            Ok(results) => {
                // What the rules of the model phase made is explained by them.
                for made in &mut self.target.nodes[n_nodes..] {
                    made.rules.clone_from(&node.rules);
                }
                Ok(results.into_iter().map(super::scope::Known::Tensor).collect())
            }
            Err(error) => {
                self.take_back(n_nodes, n_values);
                Err(match error {
                    // Data that is known may have what it takes.
                    OpError::Unsupported(reason) => OpError::HostOnly(reason),
                    other => other,
                })
            }
        }
    }

    fn expand_bounded(
        &mut self,
        node: &Node,
        form: &BoundedForm,
        operands: &[Operand],
        counted: &[Vec<Counted>],
        n_nodes: usize,
    ) -> Result<Vec<ValueId>, OpError> {
        let bounds = self.bounds.as_mut().expect("the caller looked");
        let analysis = &mut bounds.amounts;
        let first = self.target.values.len();
        let made = ops::emit_bounded(&mut self.target, node, form, operands, counted, analysis)?;
        fold::fold_from(&mut self.target, n_nodes, self.folded)?;
        let subject = Problem::at_node(node, OpError::invalid("")).subject;
        let values = self.remember(&made, &subject, first, &node.origin)?;
        let bounds = self.bounds.as_mut().expect("the caller looked");
        bounds.made.push(Made {
            op: node.op,
            operands: operands.to_vec(),
            attrs: node.attrs.clone(),
            results: values.clone(),
        });
        Ok(values)
    }

    /// Remembers which axes of results are counted. Gives what the results are from then on.
    fn remember(
        &mut self,
        made: &BoundedResults,
        subject: &str,
        first: usize,
        origin: &[String],
    ) -> Result<Vec<ValueId>, OpError> {
        let mut values = Vec::new();
        for (&value, counted) in made.values.iter().zip(&made.counted) {
            let mut lanes = Vec::new();
            for &Counted { axis, count } in counted {
                let most = self.target.ty(value).dims()[axis];
                let span = self.span(count, most, subject);
                lanes.push(Lane { axis, span });
            }
            lanes.sort_by_key(|lane| lane.axis);
            values.push(self.shortened(value, lanes, first, origin)?);
        }
        let bounds = self.bounds.as_mut().expect("only then nodes are bounded");
        for (value, meaning) in &made.limits {
            bounds.limits.push(Limit {
                value: *value,
                most: 0,
                name: format!("{subject}: {meaning}"),
            });
        }
        Ok(values)
    }
}

/// The outputs of the model, where those of `graph` are `outputs`: only the elements that counts say are there.
///
/// # Errors
/// If data exceeds a limit: which one.
///
/// # Panics
/// If the outputs are not of this graph.
pub fn counted(graph: &Graph, outputs: &[HostTensor]) -> Result<Vec<HostTensor>, String> {
    let number = |output: usize| to_vec::<i64>(&outputs[output])[0];
    for limit in &graph.limits {
        let found = number(limit.count);
        if found > limit.most {
            let name = &graph.output_names[limit.count];
            return Err(format!("`{name}` is {found}, at most {}", limit.most));
        }
    }
    let own = outputs[..graph.n_own_outputs()].iter().enumerate();
    own.map(|(position, output)| {
        let mut dims = output.dims().to_vec();
        for bound in graph.bounds.iter().filter(|bound| bound.output == position) {
            let count = number(bound.count);
            let most = dims[bound.axis];
            dims[bound.axis] =
                (usize::try_from(count).ok().filter(|&count| count <= most)).ok_or_else(|| {
                    format!(
                        "`{}` has {count} elements along axis {}",
                        graph.output_names[position], bound.axis
                    )
                })?;
        }
        Ok(output.first(&dims))
    })
    .collect()
}
