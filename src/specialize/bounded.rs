//! Extents that data decides, in a graph whose extents are constants.
//!
//! `NonZero` and the like become ops whose results are as large as they can be, and a count. What is
//! computed of such results is kept where each element along their axis needs the same element of
//! them alone: then those beyond the count are computed in vain and disturb nothing. This is proven of
//! the tile function of every op that is added, not known of ops by name. That nothing else follows
//! from the extent is tried: the same nodes are made for a larger one, and compared.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use super::error::Problem;
use super::walk::{Lowered, Walk};
use crate::ir::{Attrs, BoundedAxis, Graph, HostTensor, Node, Source, TensorType, ValueId};
use crate::ops::evaluate::to_vec;
use crate::ops::{self, BoundedForm, BoundedResults, NEWEST_OPSET, OpError};
use crate::tile::{Body, Expr, Extent, Index, TileCtx, VarId};

/// Axes of which data decides how many elements there are.
#[derive(Default)]
pub(super) struct Bounds {
    counts: Vec<Count>,
    /// Axes of values, with the number of the count.
    axes: HashMap<ValueId, Vec<(usize, usize)>>,
}

struct Count {
    /// One `i64`.
    value: ValueId,
    /// At most.
    bound: usize,
    /// Who counts, for messages.
    subject: String,
    /// Where it counts the first ones of those that another one counts.
    cut: Option<Cut>,
}

/// The first `extent` of the elements that `count` counts.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Cut {
    count: usize,
    extent: usize,
}

/// What is seen of nodes that were made for larger extents.
pub(super) struct Tried {
    ops: Vec<&'static str>,
    /// Types and constants of the values that were added, in order.
    values: Vec<(TensorType, Option<HostTensor>)>,
    /// For those, how they depend on extents that data decides.
    lanes: Vec<Lanes>,
}

/// For axes of a value the count whose element along the same axis they need, and no other.
type Lanes = Vec<(usize, usize)>;

impl Bounds {
    /// An extent that no other axis has for another reason.
    fn larger(&self, count: usize) -> usize {
        self.counts[count].bound + 1 + count
    }

    /// Gives all axes that data decides a larger extent, or the one that they have.
    fn resize(&self, graph: &mut Graph, larger: bool) {
        for (&value, axes) in &self.axes {
            let (dtype, mut dims) = (graph.ty(value).dtype, graph.ty(value).dims());
            for &(axis, count) in axes {
                dims[axis] = if larger { self.larger(count) } else { self.counts[count].bound };
            }
            graph.value_mut(value).ty = Some(TensorType::new(dtype, &dims));
        }
    }

    /// Forgets values from number `first` on, which were taken back.
    pub(super) fn forget(&mut self, first: usize) {
        let stays = |value: ValueId| (value.0 as usize) < first;
        self.axes.retain(|&value, _| stays(value));
        let n_counts = self.counts.iter().take_while(|count| stays(count.value)).count();
        self.counts.truncate(n_counts);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.axes.is_empty()
    }

    fn subjects(&self, lanes: &[(usize, usize)]) -> String {
        let names = lanes.iter().map(|&(_, count)| self.counts[count].subject.as_str());
        names.collect::<Vec<_>>().join(", ")
    }

    /// Looks at the values of `graph` from number `first` on.
    fn look(&self, graph: &Graph, first_node: usize, first_value: usize) -> Result<Tried, OpError> {
        let mut tried = Tried {
            ops: graph.nodes[first_node..].iter().map(|node| node.op).collect(),
            values: Vec::new(),
            lanes: vec![Lanes::new(); graph.values.len() - first_value],
        };
        for value in &graph.values[first_value..] {
            let constant = match &value.source {
                Source::Weight(data) => Some(data.clone()),
                Source::Input(_) | Source::Node(..) => None,
            };
            let ty = value.ty.clone().expect("every value that is added has a type");
            tried.values.push((ty, constant));
        }
        for node in &graph.nodes[first_node..] {
            let of = |value: ValueId| match (value.0 as usize).checked_sub(first_value) {
                Some(added) => tried.lanes[added].clone(),
                None => self.axes.get(&value).cloned().unwrap_or_default(),
            };
            let operands: Vec<Lanes> = node
                .operands
                .iter()
                .map(|operand| operand.map_or_else(Lanes::new, of))
                .collect();
            if operands.iter().all(Vec::is_empty) {
                continue;
            }
            for (number, &result) in node.results.iter().enumerate() {
                let lanes = lanes(graph, node, number, &operands).map_err(|reason| {
                    let subjects = self.subjects(&operands.concat());
                    OpError::HostOnly(format!("{reason}, whose extent is decided by {subjects}"))
                })?;
                tried.lanes[result.0 as usize - first_value] = lanes;
            }
        }
        Ok(tried)
    }
}

/// Which axes of result `number` are lanes: element `i` along them needs element `i` of operands along the
/// axes in `operands`, and no other element of these.
fn lanes(graph: &Graph, node: &Node, number: usize, operands: &[Lanes]) -> Result<Lanes, String> {
    let def = ops::lookup(node.op).expect("emit() added only ops of the table");
    let types: Vec<Option<TensorType>> = (node.operands.iter())
        .map(|operand| operand.map(|value| graph.ty(value).clone()))
        .collect();
    let result = graph.ty(node.results[number]);
    let mut body = Body::new();
    let extents = result.dims();
    let vars: Vec<VarId> = extents
        .iter()
        .map(|&extent| body.vars.fresh(Extent::from(extent)))
        .collect();
    let at: Vec<Index> = vars.iter().copied().map(Index::var).collect();
    let mut read = |body: &mut Body, n: usize, at: &[Index]| {
        let dtype = types[n].as_ref().expect("tile functions read operands that are present").dtype;
        body.add(Expr::Load {
            input: u32::try_from(n).expect("nodes have few operands"),
            index: at.to_vec(),
            dtype,
        })
    };
    let mut ctx = TileCtx {
        attrs: &node.attrs,
        operands: &types,
        result,
        result_index: number,
        at: &at,
        body: &mut body,
        read: &mut read,
    };
    let mixes = |axis: usize| format!("`{}` mixes elements along axis {axis} of its operand", node.op);
    if def.tile(&mut ctx).is_none() {
        let axis = operands.iter().flatten().map(|&(axis, _)| axis).next();
        return Err(mixes(axis.unwrap_or(0)));
    }
    let loads: Vec<(usize, &[Index])> = body
        .exprs()
        .filter_map(|(_, expr)| match expr {
            Expr::Load { input, index, .. } => Some((*input as usize, index.as_slice())),
            _ => None,
        })
        .collect();
    let mut lanes: Lanes = Vec::new();
    for &(operand, index) in &loads {
        for &(axis, count) in &operands[operand] {
            let own = vars.iter().position(|&var| index[axis] == Index::var(var));
            match own {
                None => return Err(mixes(axis)),
                Some(own) if lanes.contains(&(own, count)) => {}
                Some(own) if lanes.iter().any(|&(other, _)| other == own) => return Err(mixes(axis)),
                Some(own) => lanes.push((own, count)),
            }
        }
    }
    // No other axis may be read along a lane: it would have to be as long as data says.
    for &(operand, index) in &loads {
        for (axis, index) in index.iter().enumerate() {
            let mut read = Vec::new();
            index.variables(&mut read);
            let is_foreign = |&(own, count): &(usize, usize)| {
                read.contains(&vars[own]) && !operands[operand].contains(&(axis, count))
            };
            if lanes.iter().any(is_foreign) {
                return Err(format!("`{}` reads axis {axis} of an operand along that of another", node.op));
            }
        }
    }
    Ok(lanes)
}

impl Walk<'_> {
    /// Adds a node of which data decides an extent, as large as it can be.
    pub(super) fn emit_bounded(
        &mut self,
        node: &Node,
        form: &BoundedForm,
        operands: &[Option<ValueId>],
    ) -> Lowered {
        let bounds = self.bounds.as_ref().expect("the caller looked");
        if let Some(axes) = operands.iter().flatten().find_map(|value| bounds.axes.get(value)) {
            let subjects = bounds.subjects(axes);
            return Err(OpError::HostOnly(format!(
                "its operand is only as long as {subjects} says, and its result depends on that once more"
            )));
        }
        let made = RefCell::new(None);
        let results = self.append(&|target: &mut Graph| {
            let results = ops::emit_bounded(target, node, form, operands)?;
            let values = results.values.clone();
            *made.borrow_mut() = Some(results);
            Ok(values)
        })?;
        let made = made.into_inner().expect("append() has called");
        let subject = Problem::at_node(node, OpError::invalid("")).subject;
        self.count(&made, subject);
        Ok(results)
    }

    /// Remembers which axes of results are counted by `made.count`.
    fn count(&mut self, made: &BoundedResults, subject: String) {
        let bounds = self.bounds.as_mut().expect("only then nodes are bounded");
        let counted = || made.values.iter().zip(&made.axes);
        let Some((value, axis)) = counted().find_map(|(&value, axis)| axis.map(|axis| (value, axis))) else {
            return;
        };
        let number = bounds.counts.len();
        bounds.counts.push(Count {
            value: made.count,
            bound: self.target.ty(value).dims()[axis],
            subject,
            cut: None,
        });
        for (&value, &axis) in counted() {
            bounds.axes.extend(axis.map(|axis| (value, vec![(axis, number)])));
        }
    }

    /// Lets `build` append nodes for larger extents, looks at them and takes them back.
    pub(super) fn try_larger(
        &mut self,
        build: &dyn Fn(&mut Graph) -> Result<Vec<ValueId>, OpError>,
    ) -> Result<Tried, OpError> {
        let (n_nodes, n_values) = (self.target.nodes.len(), self.target.values.len());
        let bounds = self.bounds.as_ref().expect("the caller looked");
        bounds.resize(&mut self.target, true);
        let tried = build(&mut self.target).and_then(|_| bounds.look(&self.target, n_nodes, n_values));
        self.target.nodes.truncate(n_nodes);
        self.target.values.truncate(n_values);
        bounds.resize(&mut self.target, false);
        tried.map_err(|error| match error {
            OpError::HostOnly(_) => error,
            other => OpError::HostOnly(format!("an extent that data decides may not be the largest: {other}")),
        })
    }

    /// Compares the nodes and values from these numbers on with those that were made for larger extents,
    /// and remembers which of their axes data decides.
    pub(super) fn follow(&mut self, tried: &Tried, first_node: usize, first: usize) -> Result<(), OpError> {
        let differs = || OpError::HostOnly("its result depends on an extent that data decides".to_owned());
        let ops = self.target.nodes[first_node..].iter().map(|node| node.op);
        if !ops.eq(tried.ops.iter().copied()) || tried.values.len() != self.target.values.len() - first {
            return Err(differs());
        }
        let bounds = self.bounds.as_ref().expect("the caller looked");
        let mut followed: Vec<(ValueId, usize, Cut)> = Vec::new();
        for (position, (larger, constant)) in tried.values.iter().enumerate() {
            let id = ValueId(u32::try_from(first + position).expect("graphs have under 2^32 values"));
            let value = self.target.value(id);
            if let Source::Weight(data) = &value.source
                && constant.as_ref() != Some(data)
            {
                return Err(differs());
            }
            let extents = self.target.ty(id).dims().into_iter().zip(larger.dims());
            for (axis, (extent, larger)) in extents.enumerate() {
                let lane = tried.lanes[position].iter().find(|&&(lane, _)| lane == axis);
                let Some(&(_, count)) = lane else {
                    if extent == larger {
                        continue;
                    }
                    return Err(differs());
                };
                let bound = bounds.counts[count].bound;
                let follows = (extent, larger) == (bound, bounds.larger(count));
                let is_cut = extent == larger && extent <= bound;
                if !follows && !is_cut {
                    return Err(differs());
                }
                followed.push((id, axis, Cut { count, extent }));
            }
        }
        for (value, axis, cut) in followed {
            let count = self.shorter(cut)?;
            let bounds = self.bounds.as_mut().expect("the caller looked");
            bounds.axes.entry(value).or_default().push((axis, count));
        }
        Ok(())
    }

    /// The count of the first elements of counted ones.
    fn shorter(&mut self, cut: Cut) -> Result<usize, OpError> {
        let bounds = self.bounds.as_ref().expect("the caller looked");
        let own = &bounds.counts[cut.count];
        if own.bound == cut.extent {
            return Ok(cut.count);
        }
        if let Some(known) = bounds.counts.iter().position(|count| count.cut == Some(cut)) {
            return Ok(known);
        }
        let subject = own.subject.clone();
        let most = i64::try_from(cut.extent).expect("extents fit in i64");
        let operands = vec![
            Some(own.value),
            Some(self.target.add_weight("", HostTensor::from_i64(&[], &[most]))),
        ];
        let made = ops::emit(&mut self.target, "min", operands, Attrs::new(), 1, NEWEST_OPSET, &[])?;
        let bounds = self.bounds.as_mut().expect("the caller looked");
        bounds.counts.push(Count {
            value: made[0],
            bound: cut.extent,
            subject,
            cut: Some(cut),
        });
        Ok(bounds.counts.len() - 1)
    }

    /// Lists counts behind the outputs whose extents they decide.
    pub(super) fn add_counts(&mut self) {
        let Some(bounds) = self.bounds.take() else {
            return;
        };
        let outputs = self.target.outputs.clone();
        let mut listed: BTreeMap<usize, usize> = BTreeMap::new();
        for (output, value) in outputs.into_iter().enumerate() {
            for &(axis, count) in bounds.axes.get(&value).into_iter().flatten() {
                let target = &mut self.target;
                let position = *listed.entry(count).or_insert_with(|| {
                    let name = format!("{}.count", target.output_names[output]);
                    target.add_output(&name, bounds.counts[count].value);
                    target.outputs.len() - 1
                });
                target.bounds.push(BoundedAxis {
                    output,
                    axis,
                    count: position,
                });
            }
        }
    }
}

/// The outputs of the model, where those of `graph` are `outputs`: only the elements that counts say are there.
///
/// # Panics
/// If the outputs are not of this graph.
pub fn counted(graph: &Graph, outputs: &[HostTensor]) -> Vec<HostTensor> {
    let own = outputs[..graph.n_own_outputs()].iter().enumerate();
    own.map(|(number, output)| {
        let mut dims = output.dims().to_vec();
        for bound in graph.bounds.iter().filter(|bound| bound.output == number) {
            let count = to_vec::<i64>(&outputs[bound.count])[0];
            dims[bound.axis] = usize::try_from(count).expect("counts are not negative");
        }
        output.first(&dims)
    })
    .collect()
}

#[cfg(test)]
mod tests;
