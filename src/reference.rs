//! The reference interpreter: runs a graph through `OpDef::eval`.
//!
//! It is the meaning everything else is compared with, and what `--device cpu` runs. Graphs
//! need not be specialised: ONNX forms are expanded with their actual operands as constants,
//! so shapes may depend on data, and control flow and sequences work. A value is freed after
//! its last use. Start reading at [`run_data`].

use std::collections::HashMap;

use crate::ir::{Attr, Attrs, Graph, HostTensor, Node, NodeId, Source, ValueId};
use crate::ops::{
    self, Datum, EvalCtx, ExpandCtx, NEWEST_OPSET, OPSET, OpDef, OpError, lookup, with_defaults,
};

mod constants;
mod limits;

pub use constants::Constants;

/// Why a graph cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    #[error("the graph has {expected} inputs, {found} were given")]
    InputCount { expected: usize, found: usize },
    #[error("output `{name}` is a sequence or an optional, not a tensor")]
    NotATensor { name: String },
    /// A node failed; `operands` lists the types it was given.
    #[error("node {node} `{op}`{origin} on ({operands}): {source}")]
    Node {
        node: NodeId,
        op: &'static str,
        origin: String,
        operands: String,
        source: OpError,
    },
}

/// Runs `graph` on one tensor per input.
///
/// # Errors
/// If inputs are missing, a node fails, or an output is not a tensor.
pub fn run(graph: &Graph, inputs: &[HostTensor]) -> Result<Vec<HostTensor>, ReferenceError> {
    let inputs = inputs.iter().cloned().map(Datum::Tensor).collect();
    tensors(graph, run_data(graph, inputs)?)
}

/// Outputs of `graph`, each of which must be a tensor.
fn tensors(graph: &Graph, outputs: Vec<Datum>) -> Result<Vec<HostTensor>, ReferenceError> {
    outputs
        .into_iter()
        .zip(&graph.output_names)
        .map(|(output, name)| match output {
            Datum::Tensor(tensor) => Ok(tensor),
            Datum::Sequence(_) | Datum::Optional(_) => Err(ReferenceError::NotATensor { name: name.clone() }),
        })
        .collect()
}

/// As [`run`], telling `watch` of every tensor that a node of `graph` itself computes.
///
/// # Errors
/// As [`run`].
pub fn run_watched(
    graph: &Graph,
    inputs: &[HostTensor],
    watch: &dyn Fn(ValueId, &HostTensor),
) -> Result<Vec<HostTensor>, ReferenceError> {
    let inputs = inputs.iter().cloned().map(Datum::Tensor).collect();
    let mut frame = Frame::new(graph, inputs, Around::Nothing)?;
    frame.watch = Some(watch);
    tensors(graph, frame.run()?)
}

/// Runs `graph` on tensors, sequences and optionals.
///
/// # Errors
/// If inputs are missing or a node fails.
pub fn run_data(graph: &Graph, inputs: Vec<Datum>) -> Result<Vec<Datum>, ReferenceError> {
    Frame::new(graph, inputs, Around::Nothing)?.run()
}

/// Evaluates one op on data. ONNX forms are expanded with these operands as constants.
///
/// # Errors
/// If operands or attributes do not fit the op.
pub fn eval_node(
    def: &'static OpDef,
    attrs: &Attrs,
    operands: &[Option<Datum>],
    n_results: usize,
) -> Result<Vec<Datum>, OpError> {
    eval_with(def, attrs, operands, n_results, &|body, data| {
        run_data(body, data.to_vec()).map_err(innermost)
    })
}

/// Like [`eval_node`], for what becomes a weight of an engine.
///
/// # Errors
/// As [`eval_node`], and if a result is too large to be stored.
pub fn eval_constant(
    def: &'static OpDef,
    attrs: &Attrs,
    operands: &[Option<Datum>],
    n_results: usize,
) -> Result<Vec<Datum>, OpError> {
    limits::expect_storable(def, attrs, operands)?;
    eval_node(def, attrs, operands, n_results)
}

/// Like [`eval_node`], for a node whose bodies capture values: `captured` knows these by name.
///
/// # Errors
/// If operands, attributes or a body do not fit the op.
pub fn eval_captured(
    def: &'static OpDef,
    attrs: &Attrs,
    operands: &[Option<Datum>],
    n_results: usize,
    captured: &dyn Fn(&str) -> Option<Datum>,
) -> Result<Vec<Datum>, OpError> {
    eval_with(def, attrs, operands, n_results, &|body, data| {
        Frame::new(body, data.to_vec(), Around::Captured(captured))
            .and_then(Frame::run)
            .map_err(innermost)
    })
}

type RunSubgraph<'a> = &'a dyn Fn(&Graph, &[Datum]) -> Result<Vec<Datum>, OpError>;

fn eval_with(
    def: &'static OpDef,
    attrs: &Attrs,
    operands: &[Option<Datum>],
    n_results: usize,
    run_subgraph: RunSubgraph<'_>,
) -> Result<Vec<Datum>, OpError> {
    let mut attrs = with_defaults(def, attrs.clone())?;
    let opset = attrs.0.remove(OPSET);
    if let Some(expand) = def.lower.exact_expansion() {
        let opset = match opset {
            Some(Attr::Int(version)) => version,
            _ => NEWEST_OPSET,
        };
        return eval_expanded(expand, &attrs, operands, n_results, opset);
    }
    limits::expect_memory(def, &attrs, operands)?;
    (def.eval)(&EvalCtx {
        attrs: &attrs,
        operands,
        n_results,
        run_subgraph,
    })
}

/// Expands an op over constants and runs what it became.
fn eval_expanded(
    expand: ops::ExpandFn,
    attrs: &Attrs,
    operands: &[Option<Datum>],
    n_results: usize,
    opset: i64,
) -> Result<Vec<Datum>, OpError> {
    let mut graph = Graph::new("expansion");
    let operands = operands
        .iter()
        .map(|operand| match operand {
            Some(datum) => Ok(Some(graph.add_weight("", datum.tensor()?.clone()))),
            None => Ok(None),
        })
        .collect::<Result<Vec<_>, OpError>>()?;
    let results = expand(&mut ExpandCtx {
        graph: &mut graph,
        operands: &operands,
        attrs,
        opset,
        n_results,
        origin: &[],
    })?;
    for value in results {
        graph.add_output("", value);
    }
    run_data(&graph, Vec::new()).map_err(innermost)
}

/// The op error behind an error of a nested graph, with the nested node named.
fn innermost(error: ReferenceError) -> OpError {
    let message = error.to_string();
    match error {
        ReferenceError::Node {
            source: OpError::Unsupported(_),
            ..
        } => OpError::Unsupported(message),
        ReferenceError::Node { .. }
        | ReferenceError::InputCount { .. }
        | ReferenceError::NotATensor { .. } => OpError::Invalid(message),
    }
}

/// One execution of a graph, nested in the execution of the graph that holds it.
struct Frame<'a> {
    graph: &'a Graph,
    data: Vec<Option<Datum>>,
    /// Number of the last node that reads each value.
    last_use: Vec<usize>,
    /// Values by name, for captures of subgraphs; empty where no node has one.
    names: HashMap<&'a str, ValueId>,
    around: Around<'a>,
    watch: Option<Watch<'a>>,
}

type Watch<'a> = &'a dyn Fn(ValueId, &HostTensor);

/// Where a graph finds what it captures.
#[derive(Clone, Copy)]
enum Around<'a> {
    Nothing,
    Frame(&'a Frame<'a>),
    Captured(&'a dyn Fn(&str) -> Option<Datum>),
}

impl Around<'_> {
    fn captured(self, name: &str) -> Option<Datum> {
        match self {
            Around::Nothing => None,
            Around::Frame(frame) => frame.captured(name),
            Around::Captured(find) => find(name),
        }
    }
}

impl<'a> Frame<'a> {
    fn new(graph: &'a Graph, inputs: Vec<Datum>, around: Around<'a>) -> Result<Self, ReferenceError> {
        let mut frame = Frame {
            graph,
            data: vec![None; graph.values.len()],
            last_use: Vec::new(),
            names: graph.names_for_bodies(),
            around,
            watch: None,
        };
        frame.last_use = frame.find_last_uses();
        frame.bind(inputs)?;
        Ok(frame)
    }

    /// Gives every input its data: captures from the enclosing graphs, the others in order.
    fn bind(&mut self, inputs: Vec<Datum>) -> Result<(), ReferenceError> {
        let found = inputs.len();
        let expected = self.graph.inputs.len() - self.graph.captures.len();
        let mut given = inputs.into_iter();
        for &input in &self.graph.inputs {
            let capture = self.graph.captures.iter().find(|(own, _)| *own == input);
            let datum = match capture {
                Some((_, name)) => self.around.captured(name),
                None => given.next(),
            };
            self.data[input.0 as usize] = Some(datum.ok_or(ReferenceError::InputCount { expected, found })?);
        }
        if given.next().is_some() {
            return Err(ReferenceError::InputCount { expected, found });
        }
        Ok(())
    }

    fn run(mut self) -> Result<Vec<Datum>, ReferenceError> {
        for (position, node) in self.graph.nodes.iter().enumerate() {
            let results = self.eval(node).map_err(|source| self.failure(position, source))?;
            for (&value, datum) in node.results.iter().zip(results) {
                if let (Some(watch), Datum::Tensor(data)) = (self.watch, &datum) {
                    watch(value, data);
                }
                self.data[value.0 as usize] = Some(datum);
            }
            self.free(node, position);
        }
        let outputs = &self.graph.outputs;
        outputs
            .iter()
            .zip(&self.graph.output_names)
            .map(|(&value, name)| {
                self.datum(value)
                    .ok_or_else(|| ReferenceError::NotATensor { name: name.clone() })
            })
            .collect()
    }

    fn eval(&self, node: &Node) -> Result<Vec<Datum>, OpError> {
        let def = lookup(node.op).ok_or_else(|| OpError::unsupported(format!("op `{}`", node.op)))?;
        let operands = self.operands(node)?;
        eval_with(def, &node.attrs, &operands, node.results.len(), &|body, data| {
            Frame::new(body, data.to_vec(), Around::Frame(self))
                .and_then(Frame::run)
                .map_err(innermost)
        })
    }

    fn operands(&self, node: &Node) -> Result<Vec<Option<Datum>>, OpError> {
        node.operands
            .iter()
            .map(|operand| match operand {
                Some(value) => match self.datum(*value) {
                    Some(datum) => Ok(Some(datum)),
                    None => Err(OpError::invalid(format!("value {value} has no data"))),
                },
                None => Ok(None),
            })
            .collect()
    }

    fn datum(&self, value: ValueId) -> Option<Datum> {
        match &self.graph.value(value).source {
            Source::Weight(data) => Some(Datum::Tensor(data.clone())),
            Source::Input(_) | Source::Node(..) => self.data[value.0 as usize].clone(),
        }
    }

    /// The value a subgraph calls `name`: of this graph, else of those around it.
    fn captured(&self, name: &str) -> Option<Datum> {
        match self.names.get(name) {
            Some(&value) => self.datum(value),
            None => self.around.captured(name),
        }
    }

    fn find_last_uses(&self) -> Vec<usize> {
        let graph = self.graph;
        let mut last = vec![0; graph.values.len()];
        for (position, node) in graph.nodes.iter().enumerate() {
            for value in node.operands.iter().flatten() {
                last[value.0 as usize] = position;
            }
            for body in node.bodies() {
                self.keep_captures(body, position, &mut last);
            }
            for value in &node.results {
                last[value.0 as usize] = position;
            }
        }
        for value in &graph.outputs {
            last[value.0 as usize] = usize::MAX;
        }
        last
    }

    fn keep_captures(&self, body: &Graph, position: usize, last: &mut [usize]) {
        for (_, name) in &body.captures {
            if let Some(value) = self.names.get(name.as_str()) {
                last[value.0 as usize] = position;
            }
        }
        for inner in body.nodes.iter().flat_map(Node::bodies) {
            self.keep_captures(inner, position, last);
        }
    }

    fn free(&mut self, node: &Node, position: usize) {
        for value in node.operands.iter().flatten().chain(&node.results) {
            if self.last_use[value.0 as usize] == position {
                self.data[value.0 as usize] = None;
            }
        }
    }

    fn failure(&self, position: usize, source: OpError) -> ReferenceError {
        let node = &self.graph.nodes[position];
        let operands: Vec<String> = node
            .operands
            .iter()
            .map(|operand| {
                operand
                    .and_then(|value| self.datum(value))
                    .map_or("-".to_owned(), |datum| describe(&datum))
            })
            .collect();
        let origin = match node.origin.as_slice() {
            [] => String::new(),
            names => format!(" (`{}`)", names.join("`, `")),
        };
        ReferenceError::Node {
            node: NodeId(u32::try_from(position).expect("graphs have under 2^32 nodes")),
            op: node.op,
            origin,
            operands: operands.join(", "),
            source,
        }
    }
}

fn describe(datum: &Datum) -> String {
    match datum {
        Datum::Tensor(tensor) => tensor.ty().to_string(),
        Datum::Sequence(tensors) => format!("sequence of {}", tensors.len()),
        Datum::Optional(None) => "empty optional".to_owned(),
        Datum::Optional(Some(inner)) => format!("optional {}", describe(inner)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{DType, TensorType};

    fn relu_twice() -> Graph {
        let mut graph = Graph::new("twice");
        let x = graph.add_input("x", Some(TensorType::new(DType::F32, &[3])));
        let once = graph.add_node(
            "relu",
            vec![Some(x)],
            Attrs::new(),
            &[("a", None)],
            vec!["first".to_owned()],
        );
        let once = graph.node(once).results[0];
        let twice = graph.add_node("relu", vec![Some(once)], Attrs::new(), &[("b", None)], Vec::new());
        let twice = graph.node(twice).results[0];
        graph.add_output("y", twice);
        graph.add_output("same", twice);
        graph
    }

    #[test]
    fn nodes_run_in_order_and_outputs_may_repeat() {
        let input = HostTensor::from_f32(&[3], &[-1.0, 0.5, f32::INFINITY]);
        let outputs = run(&relu_twice(), &[input]).unwrap();
        assert_eq!(outputs[0].as_slice::<f32>(), [0.0, 0.5, f32::INFINITY]);
        assert_eq!(outputs[0], outputs[1]);
    }

    #[test]
    fn errors_name_the_node_and_its_operands() {
        let input = HostTensor::from_slice(DType::Bool, &[1], &[1u8]);
        let Err(error) = run(&relu_twice(), &[]) else {
            panic!("no input was given")
        };
        assert_eq!(error.to_string(), "the graph has 1 inputs, 0 were given");
        let mut graph = relu_twice();
        graph.nodes[0].op = "elu";
        graph.nodes[0].attrs = Attrs::new().with("beta", Attr::Float(1.0));
        let Err(error) = run(&graph, &[input]) else {
            panic!("`beta` is unknown")
        };
        assert_eq!(
            error.to_string(),
            "node n0 `elu` (`first`) on (bool[1]): not supported: attribute `beta` of `elu`"
        );
    }
}
