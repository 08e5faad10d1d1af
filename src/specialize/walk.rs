//! Walks nodes in order and lowers each into the graph under construction.

use super::bounded::Bounds;
use super::error::{Problem, SpecializeError};
use super::scope::{Known, Scope};
use super::stages::Stages;
use super::{fold, tidy};
use crate::ir::{Graph, Node, Operand, ValueId};
use crate::ops::{self, BoundedForm, Datum, Lowering, OpDef, OpError};
use crate::reference::{self, Constants};

/// The graph under construction, and what went wrong so far.
pub(super) struct Walk<'r> {
    pub target: Graph,
    pub problems: Vec<Problem>,
    /// Where parts of the graph are run as soon as their data is asked for.
    pub stages: Option<Stages<'r>>,
    /// Where data may decide extents up to a bound.
    pub bounds: Option<Bounds>,
    /// Constants that other shapes of the model have folded.
    pub folded: Option<&'r Constants>,
}

/// What a node's results have become, or why it has none.
pub(super) type Lowered = Result<Vec<Known>, OpError>;

impl Walk<'_> {
    pub fn new(name: &str) -> Self {
        Walk {
            target: Graph::new(name),
            problems: Vec::new(),
            stages: None,
            bounds: None,
            folded: None,
        }
    }

    /// Lowers all of `graph`, with `inputs` for its inputs that are no captures, and says what
    /// its outputs have become.
    pub fn inline(&mut self, graph: &Graph, inputs: Vec<Known>, parent: Option<&Scope<'_>>) -> Vec<Known> {
        let Some(mut scope) = Scope::new(graph, inputs, parent, &mut self.target) else {
            self.problems.push(Problem {
                subject: format!("graph `{}`", graph.name),
                reason: OpError::invalid("its inputs are not as many as it is given, or one is undefined"),
            });
            return vec![Known::Failed; graph.outputs.len()];
        };
        for (position, node) in graph.nodes.iter().enumerate() {
            scope.position = position;
            let results = self.visit(node, &scope);
            for (&value, known) in node.results.iter().zip(results) {
                let name = &graph.value(value).name;
                let known = self.limited(known, name);
                self.name(&known, name);
                scope.set(value, known);
            }
        }
        graph.outputs.iter().map(|&output| scope.get(output)).collect()
    }

    /// Lists the outputs and drops what they do not need.
    pub fn finish(mut self, graph: &Graph, outputs: &[Known]) -> Result<Graph, SpecializeError> {
        self.expect_limits();
        self.expect_tensors(graph, outputs)?;
        for (known, name) in outputs.iter().zip(&graph.output_names) {
            if let Known::Tensor(value) = known {
                self.target.add_output(name, *value);
            }
        }
        self.add_counts().map_err(|reason| {
            SpecializeError::of(vec![Problem {
                subject: format!("graph `{}`", graph.name),
                reason,
            }])
        })?;
        Ok(tidy::tidy(&self.target))
    }

    /// Reports all problems, those of the outputs too: each must be a tensor.
    pub fn expect_tensors(&mut self, graph: &Graph, outputs: &[Known]) -> Result<(), SpecializeError> {
        for (known, name) in outputs.iter().zip(&graph.output_names) {
            if let Known::Constant(_) = known {
                self.problems.push(Problem {
                    subject: format!("output `{name}`"),
                    reason: OpError::unsupported("it is a sequence or an optional, not a tensor"),
                });
            }
        }
        if self.problems.is_empty() && outputs.iter().any(|known| matches!(known, Known::Failed)) {
            self.problems.push(Problem {
                subject: format!("graph `{}`", graph.name),
                reason: OpError::invalid("an output has no value"),
            });
        }
        match std::mem::take(&mut self.problems) {
            problems if problems.is_empty() => Ok(()),
            problems => Err(SpecializeError::of(problems)),
        }
    }

    fn visit(&mut self, node: &Node, scope: &Scope<'_>) -> Vec<Known> {
        let failed = vec![Known::Failed; node.results.len()];
        let Some(operands) = scope.operands(node) else {
            return failed;
        };
        match self.lower(node, &operands, scope) {
            Ok(results) if results.len() >= node.results.len() => results,
            Ok(results) => {
                let (found, expected) = (results.len(), node.results.len());
                let reason = OpError::unsupported(format!("{expected} results, only {found} are computed"));
                self.problems.push(Problem::at_node(node, reason));
                failed
            }
            Err(reason) => {
                self.problems.push(Problem::at_node(node, reason));
                failed
            }
        }
    }

    fn lower(&mut self, node: &Node, operands: &[Option<Known>], scope: &Scope<'_>) -> Lowered {
        let def = ops::lookup(node.op)
            .ok_or_else(|| OpError::unsupported(format!("no op is named `{}`", node.op)))?;
        match &def.lower {
            Lowering::Host(reason) => match node.op {
                "If" => self.lower_if(node, def, reason, operands, scope),
                "Loop" => self.lower_loop(node, def, reason, operands, scope),
                "Scan" => self.lower_scan(node, def, reason, operands, scope),
                _ => self.evaluate(node, def, reason, operands, scope),
            },
            Lowering::Bounded(form) => self.lower_bounded(node, def, form, operands, scope),
            Lowering::Map(_) | Lowering::Tile(..) | Lowering::Loop | Lowering::Expand(_) => {
                if let Some(values) = values(operands) {
                    return self.emit_or_look(node, def, values, scope);
                }
                // Sequences only pass through ops that mean nothing to generated code.
                let reason = "sequences and optionals must be constants";
                self.evaluate(node, def, reason, operands, scope)
            }
        }
    }

    /// A node of which data decides an extent: as it is, where the data is known, else as large as it can
    /// become, where that is asked for.
    fn lower_bounded(
        &mut self,
        node: &Node,
        def: &'static OpDef,
        form: &BoundedForm,
        operands: &[Option<Known>],
        scope: &Scope<'_>,
    ) -> Lowered {
        let Some(values) = values(operands) else {
            let reason = "sequences and optionals must be constants";
            return self.evaluate(node, def, reason, operands, scope);
        };
        if form.exact.is_some() {
            match self.emit_or_look(node, def, values.clone(), scope) {
                Err(OpError::NeedsConstant { .. } | OpError::HostOnly(_)) if self.bounds.is_some() => {}
                done => return done,
            }
        } else if self.bounds.is_none() || self.constants(operands).is_some() {
            return self.evaluate(node, def, form.reason, operands, scope);
        }
        self.emit_bounded(node, form, &values)
    }

    /// Evaluates a node that generated code cannot express: the data of all operands must be
    /// known.
    fn evaluate(
        &mut self,
        node: &Node,
        def: &'static OpDef,
        reason: &str,
        operands: &[Option<Known>],
        scope: &Scope<'_>,
    ) -> Lowered {
        let n_results = node.results.len();
        if let Some(data) = self.constants(operands) {
            let results = reference::eval_node(def, &node.attrs, &data, n_results)?;
            return Ok(self.known(results));
        }
        let Some(data) = self.look_at_all(operands, scope)? else {
            return Err(OpError::HostOnly(reason.to_owned()));
        };
        let results = reference::eval_node(def, &node.attrs, &data, n_results)?;
        Ok(self.arrived(results))
    }

    /// Adds a node; where run-time data can be looked at, an operand that must be constant
    /// becomes so, and what generated code cannot express is evaluated.
    fn emit_or_look(
        &mut self,
        node: &Node,
        def: &'static OpDef,
        mut operands: Vec<Operand>,
        scope: &Scope<'_>,
    ) -> Lowered {
        loop {
            let reason = match self.emit(node, def, operands.clone()) {
                Err(reason) if self.sees_data() && !matches!(reason, OpError::Invalid(_)) => reason,
                done => return done,
            };
            if let Some((position, constant)) = self.constant_operand(&reason, &operands, scope)? {
                operands[position] = Some(constant);
            } else {
                let operands: Vec<_> = operands.iter().map(|value| value.map(Known::Tensor)).collect();
                return self.evaluate(node, def, &reason.to_string(), &operands, scope);
            }
        }
    }

    /// The operand that `reason` asks to be constant, as a constant; `None` where it asks for
    /// nothing of the kind.
    fn constant_operand(
        &mut self,
        reason: &OpError,
        operands: &[Operand],
        scope: &Scope<'_>,
    ) -> Result<Option<(usize, ValueId)>, OpError> {
        let OpError::NeedsConstant { operand: position } = *reason else {
            return Ok(None);
        };
        let Some(value) = operands.get(position).copied().flatten() else {
            return Ok(None);
        };
        if self.target.weight(value).is_some() {
            // The operand of a node inside the expansion is meant.
            return Ok(None);
        }
        match self.look(&Known::Tensor(value), scope, &[])? {
            Some(Datum::Tensor(data)) => Ok(Some((position, self.target.add_weight("", data)))),
            Some(Datum::Sequence(_) | Datum::Optional(_)) | None => Ok(None),
        }
    }

    /// Adds a node, expanded into core ops, and folds what of it is constant.
    fn emit(&mut self, node: &Node, def: &'static OpDef, operands: Vec<Operand>) -> Lowered {
        let (attrs, opset) = ops::without_opset(node.attrs.clone());
        let n_results = node.results.len();
        let origin = &node.origin;
        let first = self.target.nodes.len();
        let results = self.append(&|target: &mut Graph| {
            let (operands, attrs) = (operands.clone(), attrs.clone());
            ops::emit(target, def.name, operands, attrs, n_results, opset, origin)
        });
        // What the rules of the model phase made is explained by them.
        for made in &mut self.target.nodes[first..] {
            made.rules.clone_from(&node.rules);
        }
        results
    }

    /// Lets `build` append nodes, folds those that are constant; undoes all if it fails.
    pub fn append(&mut self, build: &dyn Fn(&mut Graph) -> Result<Vec<ValueId>, OpError>) -> Lowered {
        let (n_nodes, n_values) = (self.target.nodes.len(), self.target.values.len());
        match self.built(build) {
            Ok(results) => Ok(results.into_iter().map(Known::Tensor).collect()),
            Err(error) => {
                self.take_back(n_nodes, n_values);
                Err(error)
            }
        }
    }

    /// Removes the nodes and values from these numbers on.
    pub(super) fn take_back(&mut self, n_nodes: usize, n_values: usize) {
        self.target.nodes.truncate(n_nodes);
        self.target.values.truncate(n_values);
        if let Some(bounds) = &mut self.bounds {
            bounds.forget(n_values);
        }
    }

    fn built(
        &mut self,
        build: &dyn Fn(&mut Graph) -> Result<Vec<ValueId>, OpError>,
    ) -> Result<Vec<ValueId>, OpError> {
        let (n_nodes, n_values) = (self.target.nodes.len(), self.target.values.len());
        let is_bounded = self.bounds.as_ref().is_some_and(|bounds| !bounds.is_empty());
        let tried = is_bounded.then(|| self.try_larger(build));
        let mut results = build(&mut self.target)?;
        if let Some(tried) = tried {
            results = self.follow(&tried?, n_nodes, n_values, results)?;
        }
        fold::fold_from(&mut self.target, n_nodes, self.folded)?;
        if is_bounded {
            self.fold_known(n_values);
            results = self.all_shortened(results, n_nodes, n_values)?;
        }
        Ok(results)
    }

    /// The constant a known value is, if it is one.
    pub fn constant(&self, known: &Known) -> Option<Datum> {
        match known {
            Known::Tensor(value) => self.target.weight(*value).cloned().map(Datum::Tensor),
            Known::Constant(datum) => Some(datum.clone()),
            Known::Failed => None,
        }
    }

    /// All operands as constants, if all are.
    pub fn constants(&self, operands: &[Option<Known>]) -> Option<Vec<Option<Datum>>> {
        operands
            .iter()
            .map(|operand| match operand {
                Some(known) => self.constant(known).map(Some),
                None => Some(None),
            })
            .collect()
    }

    /// Constants as values of the graph under construction.
    pub fn known(&mut self, data: Vec<Datum>) -> Vec<Known> {
        data.into_iter()
            .map(|datum| match datum {
                Datum::Tensor(tensor) => Known::Tensor(self.target.add_weight("", tensor)),
                Datum::Sequence(_) | Datum::Optional(_) => Known::Constant(datum),
            })
            .collect()
    }

    /// Names a value after the one it stands for, unless it has a name.
    fn name(&mut self, known: &Known, name: &str) {
        if let Known::Tensor(value) = known {
            let own = &mut self.target.value_mut(*value).name;
            if own.is_empty() {
                name.clone_into(own);
            }
        }
    }
}

/// Operands as values of the graph under construction; `None` where one is no tensor.
fn values(operands: &[Option<Known>]) -> Option<Vec<Operand>> {
    operands
        .iter()
        .map(|operand| match operand {
            Some(Known::Tensor(value)) => Some(Some(*value)),
            Some(Known::Constant(_) | Known::Failed) => None,
            None => Some(None),
        })
        .collect()
}
