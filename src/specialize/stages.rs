//! Running a graph whose shapes or control flow depend on data: in stages.
//!
//! [`run_in_stages`] walks a graph as [`specialize`](super::specialize()) does. Where a node needs
//! data that only running can tell (the condition of `If`, the operand that decides a shape, an
//! operator that only the host executes), what that data depends on is cut out of the graph under
//! construction and executed as one stage. Its results are known from then on: to the walk as
//! data, to later stages as inputs. A graph that needs no such look is one stage.
//!
//! A stage also computes what is sure to be needed again, so that no stage repeats another's work.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::error::{Problem, SpecializeError};
use super::scope::{Known, Scope};
use super::walk::Walk;
use super::{add_inputs, bind_inputs, tidy};
use crate::ir::{Graph, HostTensor, Node, NodeId, Source, ValueId};
use crate::ops::{Datum, OpError};
use crate::reference;

/// Integers of so many bytes at most are computed by the reference: they are arithmetic of
/// shapes, which takes less time than a launch.
const HOST_BYTES: usize = 1 << 14;

/// Why a graph cannot be run in stages.
#[derive(Debug, thiserror::Error)]
#[expect(clippy::large_enum_variant, reason = "an error ends a command")]
pub enum StagesError<E> {
    #[error(transparent)]
    Specialize(SpecializeError),
    /// What the given function answered.
    #[error(transparent)]
    Stage(E),
}

/// Runs `graph` on `inputs`: `run` executes one static graph of core ops on its inputs.
///
/// # Errors
/// If the inputs do not fit, nodes cannot be lowered, or `run` fails.
pub fn run_in_stages<E>(
    graph: &Graph,
    inputs: &[HostTensor],
    mut run: impl FnMut(&Graph, &[HostTensor]) -> Result<Vec<HostTensor>, E>,
) -> Result<Vec<HostTensor>, StagesError<E>> {
    let bindings = bind_inputs(graph, inputs).map_err(|error| StagesError::Specialize(error.into()))?;
    let mut failure = None;
    let mut run = |stage: &Graph, data: &[HostTensor]| match run(stage, data) {
        Ok(results) => Some(results),
        Err(error) => {
            failure = Some(error);
            None
        }
    };
    let mut walk = Walk::new(&graph.name);
    let known = add_inputs(&mut walk.target, graph, bindings.types());
    walk.stages = Some(Stages {
        data: walk
            .target
            .inputs
            .iter()
            .copied()
            .zip(inputs.iter().cloned())
            .collect(),
        run: &mut run,
        failed: false,
    });
    let outputs = walk.inline(graph, known, None);
    let results = walk.finish_stages(graph, &outputs);
    match failure {
        Some(error) => Err(StagesError::Stage(error)),
        None => results.map_err(StagesError::Specialize),
    }
}

/// Data of values of the graph under construction, and how to get more.
pub(super) struct Stages<'r> {
    data: HashMap<ValueId, HostTensor>,
    run: &'r mut dyn FnMut(&Graph, &[HostTensor]) -> Option<Vec<HostTensor>>,
    /// A stage failed: nothing more is run.
    failed: bool,
}

/// What a stage computes.
struct Stage {
    graph: Graph,
    /// Values of the graph under construction that are the stage's inputs.
    inputs: Vec<ValueId>,
    /// Values of the graph under construction that its outputs are.
    outputs: Vec<ValueId>,
}

impl Walk<'_> {
    /// Whether run-time data can be looked at.
    pub(super) fn sees_data(&self) -> bool {
        self.stages.as_ref().is_some_and(|stages| !stages.failed)
    }

    /// The data of `known`: a constant, or what running tells, where something is run. `held`
    /// are values beside those of `scope` that will be used again.
    pub(super) fn look(
        &mut self,
        known: &Known,
        scope: &Scope<'_>,
        held: &[Known],
    ) -> Result<Option<Datum>, OpError> {
        if let Some(datum) = self.constant(known) {
            return Ok(Some(datum));
        }
        let Known::Tensor(value) = known else {
            return Ok(None);
        };
        self.observe(&[*value], scope, held)?;
        Ok(self.seen(*value).cloned().map(Datum::Tensor))
    }

    /// Like [`Walk::look`], for all operands of a node; absent ones stay absent.
    pub(super) fn look_at_all(
        &mut self,
        operands: &[Option<Known>],
        scope: &Scope<'_>,
    ) -> Result<Option<Vec<Option<Datum>>>, OpError> {
        let values: Vec<ValueId> = operands.iter().flatten().filter_map(tensor_of).collect();
        self.observe(&values, scope, &[])?;
        let data = operands.iter().map(|operand| match operand {
            Some(known) => self.constant(known).or_else(|| self.seen_of(known)).map(Some),
            None => Some(None),
        });
        Ok(data.collect())
    }

    /// Computes what carries a loop on, so that later stages begin from there.
    pub(super) fn settle(&mut self, carried: &[Known], scope: &Scope<'_>) -> Result<(), OpError> {
        let values: Vec<ValueId> = carried.iter().filter_map(tensor_of).collect();
        self.observe(&values, scope, carried)
    }

    /// Run-time data as values of the graph under construction: inputs of later stages.
    pub(super) fn arrived(&mut self, data: Vec<Datum>) -> Vec<Known> {
        data.into_iter()
            .map(|datum| match datum {
                Datum::Tensor(tensor) => Known::Tensor(self.arrived_tensor(tensor)),
                Datum::Sequence(_) | Datum::Optional(_) => Known::Constant(datum),
            })
            .collect()
    }

    pub(super) fn arrived_tensor(&mut self, tensor: HostTensor) -> ValueId {
        let value = self.target.add_input("", Some(tensor.ty()));
        let stages = self.stages.as_mut().expect("data arrives where something is run");
        stages.data.insert(value, tensor);
        value
    }

    fn seen(&self, value: ValueId) -> Option<&HostTensor> {
        self.stages.as_ref()?.data.get(&value)
    }

    fn seen_of(&self, known: &Known) -> Option<Datum> {
        self.seen(tensor_of(known)?).cloned().map(Datum::Tensor)
    }

    /// Runs a stage for those of `wanted` whose data is not known. Does nothing where nothing
    /// is run.
    fn observe(&mut self, wanted: &[ValueId], scope: &Scope<'_>, held: &[Known]) -> Result<(), OpError> {
        if !self.sees_data() {
            return Ok(());
        }
        let unknown = self.unknown(wanted);
        if unknown.is_empty() {
            return Ok(());
        }
        let needed = self.needed_nodes(&unknown);
        let on_host = self.is_shape_arithmetic(&needed);
        let mut outputs = unknown;
        if !on_host {
            outputs.extend(self.needed_again(&needed, scope, held));
            outputs.sort_unstable();
            outputs.dedup();
        }
        let stage = self.cut(&needed, outputs);
        self.execute(&stage, on_host)
    }

    /// Those of `values` that are neither constant nor have data, each once.
    fn unknown(&self, values: &[ValueId]) -> Vec<ValueId> {
        let unknown = values
            .iter()
            .filter(|&&value| self.target.weight(value).is_none() && self.seen(value).is_none());
        unknown.copied().collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The nodes between data that is known and `values`.
    fn needed_nodes(&self, values: &[ValueId]) -> BTreeSet<NodeId> {
        let mut needed = BTreeSet::new();
        let mut open = values.to_vec();
        while let Some(value) = open.pop() {
            if self.seen(value).is_some() {
                continue;
            }
            if let Some((id, node)) = self.target.producer(value)
                && needed.insert(id)
            {
                open.extend(node.operands.iter().flatten());
            }
        }
        needed
    }

    /// Results of `needed` nodes that nodes outside, the scopes or `held` use later.
    fn needed_again(&self, needed: &BTreeSet<NodeId>, scope: &Scope<'_>, held: &[Known]) -> Vec<ValueId> {
        let mut used: HashSet<ValueId> = scope.used_later().iter().filter_map(tensor_of).collect();
        used.extend(held.iter().filter_map(tensor_of));
        for (id, node) in (0..).map(NodeId).zip(&self.target.nodes) {
            if !needed.contains(&id) && self.is_open(node) {
                used.extend(node.operands.iter().flatten());
            }
        }
        let results = needed.iter().flat_map(|&id| &self.target.node(id).results);
        results
            .copied()
            .filter(|result| used.contains(result) && self.seen(*result).is_none())
            .collect()
    }

    /// Whether a node has a result that is neither constant nor known.
    fn is_open(&self, node: &Node) -> bool {
        node.results
            .iter()
            .any(|&result| self.target.producer(result).is_some() && self.seen(result).is_none())
    }

    /// Whether nodes only compute a few integers.
    fn is_shape_arithmetic(&self, nodes: &BTreeSet<NodeId>) -> bool {
        let values = nodes.iter().flat_map(|&id| {
            let node = self.target.node(id);
            node.results.iter().chain(node.operands.iter().flatten())
        });
        let mut bytes = 0;
        values.map(|&value| self.target.ty(value)).all(|ty| {
            bytes += ty.n_bytes();
            !ty.dtype.is_float() && bytes <= HOST_BYTES
        })
    }

    /// The graph of `nodes` alone.
    fn cut(&self, nodes: &BTreeSet<NodeId>, outputs: Vec<ValueId>) -> Stage {
        let mut cut = Cut {
            target: &self.target,
            graph: Graph::new(&self.target.name),
            inputs: Vec::new(),
            renamed: HashMap::new(),
        };
        for &id in nodes {
            cut.node(self.target.node(id));
        }
        for &output in &outputs {
            let value = cut.value(output);
            cut.graph.add_output(&self.target.value(output).name, value);
        }
        Stage {
            graph: tidy::tidy(&cut.graph),
            inputs: cut.inputs,
            outputs,
        }
    }

    fn execute(&mut self, stage: &Stage, on_host: bool) -> Result<(), OpError> {
        let inputs: Vec<HostTensor> = stage
            .inputs
            .iter()
            .map(|&input| self.seen(input).expect("inputs of a stage have data").clone())
            .collect();
        let stages = self.stages.as_mut().expect("observe() asked");
        let results = if on_host {
            let results = reference::run(&stage.graph, &inputs);
            results.map_err(|error| OpError::invalid(error.to_string()))?
        } else {
            let (n_nodes, n_outputs) = (stage.graph.nodes.len(), stage.outputs.len());
            tracing::debug!(
                n_nodes,
                n_outputs,
                "a stage runs, since data decides what follows"
            );
            let Some(results) = (stages.run)(&stage.graph, &inputs) else {
                stages.failed = true;
                return Err(OpError::invalid("an earlier stage failed"));
            };
            results
        };
        stages.data.extend(stage.outputs.iter().copied().zip(results));
        Ok(())
    }

    /// Runs the last stage and gives the outputs.
    fn finish_stages(mut self, graph: &Graph, outputs: &[Known]) -> Result<Vec<HostTensor>, SpecializeError> {
        self.expect_tensors(graph, outputs)?;
        let values: Vec<ValueId> = outputs.iter().filter_map(tensor_of).collect();
        let unknown = self.unknown(&values);
        if !unknown.is_empty() {
            let stage = self.cut(&self.needed_nodes(&unknown), unknown);
            let done = self.execute(&stage, false);
            done.map_err(|reason| {
                let subject = format!("graph `{}`", graph.name);
                SpecializeError::Nodes(vec![Problem { subject, reason }])
            })?;
        }
        let data = |&value: &ValueId| {
            let constant = self.target.weight(value).or_else(|| self.seen(value));
            constant.expect("every output is computed by now").clone()
        };
        Ok(values.iter().map(data).collect())
    }
}

fn tensor_of(known: &Known) -> Option<ValueId> {
    match known {
        Known::Tensor(value) => Some(*value),
        Known::Constant(_) | Known::Failed => None,
    }
}

/// The graph of a stage under construction.
struct Cut<'a> {
    target: &'a Graph,
    graph: Graph,
    inputs: Vec<ValueId>,
    renamed: HashMap<ValueId, ValueId>,
}

impl Cut<'_> {
    fn node(&mut self, node: &Node) {
        let operands = node
            .operands
            .iter()
            .map(|operand| operand.map(|value| self.value(value)))
            .collect();
        let id = self.graph.copy_node(self.target, node, operands);
        for (&old, &new) in node.results.iter().zip(&self.graph.node(id).results) {
            self.renamed.insert(old, new);
        }
    }

    /// What a value is in the stage: what a node of it makes, a weight, or an input.
    fn value(&mut self, value: ValueId) -> ValueId {
        if let Some(&renamed) = self.renamed.get(&value) {
            return renamed;
        }
        let own = self.target.value(value);
        let renamed = match &own.source {
            Source::Weight(data) => self.graph.add_weight(&own.name, data.clone()),
            Source::Input(_) | Source::Node(..) => {
                self.inputs.push(value);
                self.graph.add_input(&own.name, own.ty.clone())
            }
        };
        self.renamed.insert(value, renamed);
        renamed
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::add;
    use super::*;
    use crate::ir::{Attr, Attrs, DType, TensorType};
    use crate::reference::ReferenceError;

    /// Runs in stages on the reference; gives the number of stages too.
    fn staged(graph: &Graph, inputs: &[HostTensor]) -> (Vec<HostTensor>, usize) {
        let mut n_stages = 0;
        let outputs = run_in_stages(graph, inputs, |stage, data| {
            assert!(stage.nodes.iter().all(|node| node.bodies().next().is_none()));
            n_stages += 1;
            reference::run(stage, data)
        });
        (outputs.unwrap(), n_stages)
    }

    fn input(graph: &mut Graph, name: &str, dtype: DType, dims: &[usize]) -> ValueId {
        graph.add_input(name, Some(TensorType::new(dtype, dims)))
    }

    #[test]
    fn a_static_graph_is_one_stage() {
        let mut graph = Graph::new("g");
        let x = input(&mut graph, "x", DType::F32, &[2]);
        let y = add(&mut graph, "relu", &[x], Attrs::new());
        graph.add_output("y", y);
        graph.add_output("x_again", x);
        let x = HostTensor::from_f32(&[2], &[-1.0, 2.0]);
        let (outputs, n_stages) = staged(&graph, std::slice::from_ref(&x));
        assert_eq!(outputs, [HostTensor::from_f32(&[2], &[0.0, 2.0]), x]);
        assert_eq!(n_stages, 1);
    }

    #[test]
    fn a_shape_that_is_an_input_needs_no_stage_of_its_own() {
        let mut graph = Graph::new("g");
        let x = input(&mut graph, "x", DType::F32, &[6]);
        let shape = input(&mut graph, "shape", DType::I64, &[2]);
        let doubled = add(&mut graph, "add", &[shape, shape], Attrs::new());
        let halved = graph.add_weight("two", HostTensor::from_i64(&[], &[2]));
        let shape = add(&mut graph, "div", &[doubled, halved], Attrs::new());
        let y = add(&mut graph, "Reshape", &[x, shape], Attrs::new());
        graph.add_output("y", y);
        let inputs = [
            HostTensor::from_f32(&[6], &[0.0; 6]),
            HostTensor::from_i64(&[2], &[3, 2]),
        ];
        let (outputs, n_stages) = staged(&graph, &inputs);
        assert_eq!(outputs[0].dims(), [3, 2]);
        assert_eq!(n_stages, 1);
    }

    #[test]
    fn what_only_the_host_executes_parts_two_stages() {
        let mut graph = Graph::new("g");
        let x = input(&mut graph, "x", DType::F32, &[4]);
        let positive = add(&mut graph, "relu", &[x], Attrs::new());
        let places = add(&mut graph, "NonZero", &[positive], Attrs::new());
        let picked = add(&mut graph, "Gather", &[positive, places], Attrs::new());
        let y = add(&mut graph, "neg", &[picked], Attrs::new());
        graph.add_output("y", y);
        let (outputs, n_stages) = staged(&graph, &[HostTensor::from_f32(&[4], &[-1.0, 2.0, 0.0, 5.0])]);
        assert_eq!(outputs, [HostTensor::from_f32(&[1, 2], &[-2.0, -5.0])]);
        assert_eq!(n_stages, 2);
    }

    /// A body of Loop that doubles its state while that is below a bound, and scans it with the
    /// number of the iteration added.
    fn doubling() -> Graph {
        let mut body = Graph::new("body");
        let iteration = input(&mut body, "iteration", DType::I64, &[]);
        body.add_input("before", Some(TensorType::new(DType::Bool, &[])));
        let state = input(&mut body, "state", DType::F32, &[]);
        let bound = input(&mut body, "bound", DType::F32, &[]);
        body.captures.push((bound, "bound".to_owned()));
        let next = add(&mut body, "add", &[state, state], Attrs::new());
        let again = add(&mut body, "less", &[next, bound], Attrs::new());
        let attrs = Attrs::new().with("to", Attr::DType(DType::F32));
        let number = add(&mut body, "cast", &[iteration], attrs);
        let scanned = add(&mut body, "add", &[state, number], Attrs::new());
        for (name, value) in [("again", again), ("next", next), ("scanned", scanned)] {
            body.add_output(name, value);
        }
        body
    }

    #[test]
    fn a_loop_goes_on_as_long_as_its_data_says() {
        let mut graph = Graph::new("g");
        let x = input(&mut graph, "x", DType::F32, &[]);
        let bound = input(&mut graph, "bound", DType::F32, &[]);
        let start = add(&mut graph, "relu", &[x], Attrs::new());
        let go = add(&mut graph, "less", &[start, bound], Attrs::new());
        let attrs = Attrs::new().with("body", Attr::Graph(Box::new(doubling())));
        let node = graph.add_node(
            "Loop",
            vec![None, Some(go), Some(start)],
            attrs,
            &[("last", None), ("all", None)],
            vec!["loop".to_owned()],
        );
        let results = graph.node(node).results.clone();
        graph.add_output("last", results[0]);
        graph.add_output("all", results[1]);
        let scalar = |value| HostTensor::from_f32(&[], &[value]);
        let inputs = [scalar(1.0), scalar(12.0)];
        let (outputs, n_stages) = staged(&graph, &inputs);
        assert_eq!(outputs[0], scalar(16.0));
        assert_eq!(outputs[1], HostTensor::from_f32(&[4], &[1.0, 3.0, 6.0, 11.0]));
        // One to begin with, one per iteration, and the scans.
        assert_eq!(n_stages, 6);
        let mut stages = Vec::new();
        let again = run_in_stages(&graph, &inputs, |stage, data| {
            stages.push(stage.clone());
            reference::run(stage, data)
        });
        assert_eq!(again.unwrap(), outputs);
        assert_eq!(stages[2], stages[3], "iterations are one stage");
    }

    #[test]
    fn failures_of_stages_come_out_as_they_are() {
        let mut graph = Graph::new("g");
        let x = input(&mut graph, "x", DType::F32, &[4]);
        let positive = add(&mut graph, "relu", &[x], Attrs::new());
        let places = add(&mut graph, "NonZero", &[positive], Attrs::new());
        graph.add_output("y", places);
        let failed = run_in_stages(&graph, &[HostTensor::from_f32(&[4], &[0.0; 4])], |_, _| {
            Err("no device")
        });
        assert!(matches!(failed, Err(StagesError::Stage("no device"))));
        let missing = run_in_stages(&graph, &[], |_, _| Ok::<_, ReferenceError>(Vec::new()));
        assert!(matches!(
            missing,
            Err(StagesError::Specialize(SpecializeError::Bind(_)))
        ));
    }
}
