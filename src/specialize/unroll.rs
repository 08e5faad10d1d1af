//! Loops of a constant number of iterations.
//!
//! A loop over constants alone is evaluated. Any other is unrolled: its body is lowered once
//! per iteration, so that shapes may change from one to the next.

use super::control::{body, truth};
use super::scope::{Known, Scope};
use super::walk::{Lowered, Walk};
use crate::ir::{Attr, Attrs, DType, Graph, HostTensor, Node, Operand, ValueId};
use crate::ops::evaluate::index_list;
use crate::ops::{self, Datum, NEWEST_OPSET, OpDef, OpError, infer};

/// Nodes that unrolling one loop may walk.
const MAX_NODES: usize = 20_000;

/// An unrolled loop: what each iteration hands to the next, and what it leaves behind.
struct Unrolled {
    carried: Vec<Known>,
    /// Per scan output, its element of every iteration.
    scans: Vec<Vec<Known>>,
}

impl Walk<'_> {
    /// Loop: evaluated where all is constant, else unrolled.
    pub(super) fn lower_loop(
        &mut self,
        node: &Node,
        def: &'static OpDef,
        reason: &str,
        operands: &[Option<Known>],
        scope: &Scope<'_>,
    ) -> Lowered {
        if let Some(evaluated) = self.evaluate_body(node, def, operands, scope) {
            return evaluated;
        }
        let body = body(node, "body")?;
        let trips = self.trip_count(operands.first().cloned().flatten(), reason, scope)?;
        let condition = match operands.get(1).cloned().flatten() {
            Some(known) => self.condition(&known, reason, scope, &[])?,
            None => true,
        };
        let carried = present(operands.get(2..).unwrap_or_default())?;
        let unrolled = self.iterate(body, trips, condition, carried, reason, scope)?;
        let mut results = unrolled.carried;
        for scan in unrolled.scans {
            results.push(self.stack(&scan, 0, &node.origin)?);
        }
        Ok(results)
    }

    /// The iterations of a Loop.
    fn iterate(
        &mut self,
        body: &Graph,
        trips: Option<i64>,
        mut condition: bool,
        carried: Vec<Known>,
        reason: &str,
        scope: &Scope<'_>,
    ) -> Result<Unrolled, OpError> {
        let n_scans = expect_outputs(body, 1 + carried.len())?;
        let mut state = Unrolled {
            carried,
            scans: vec![Vec::new(); n_scans],
        };
        let mut iteration = 0;
        let mut is_open = false;
        while condition && trips.is_none_or(|trips| iteration < trips) {
            self.expect_affordable(body, iteration, &state.carried, scope)?;
            let mut inputs = vec![self.counter(iteration, is_open)];
            let go_on = HostTensor::from_slice(DType::Bool, &[], &[1u8]);
            inputs.extend(self.known(vec![Datum::Tensor(go_on)]));
            inputs.append(&mut state.carried);
            let mut outputs = self.inline(body, inputs, Some(scope)).into_iter();
            let again = outputs.next().unwrap_or(Known::Failed);
            advance(&mut state, outputs.collect());
            if failed(&state) || matches!(again, Known::Failed) {
                return Ok(all_failed(&state));
            }
            is_open = self.constant(&again).is_none();
            condition = self.condition(&again, reason, scope, &state.carried)?;
            iteration += 1;
        }
        Ok(state)
    }

    /// The number of an iteration. Where every iteration is a stage of its own, it is data, so that
    /// they are the same stage.
    fn counter(&mut self, iteration: i64, is_open: bool) -> Known {
        let number = HostTensor::from_i64(&[], &[iteration]);
        if is_open && self.sees_data() {
            return Known::Tensor(self.arrived_tensor(number));
        }
        Known::Tensor(self.target.add_weight("", number))
    }

    /// Scan: evaluated where all is constant, else unrolled.
    pub(super) fn lower_scan(
        &mut self,
        node: &Node,
        def: &'static OpDef,
        reason: &str,
        operands: &[Option<Known>],
        scope: &Scope<'_>,
    ) -> Lowered {
        if let Some(evaluated) = self.evaluate_body(node, def, operands, scope) {
            return evaluated;
        }
        if node.attrs.int(ops::OPSET).is_some_and(|opset| opset < 9) {
            return Err(OpError::unsupported("the batched Scan of opset 8"));
        }
        let body = body(node, "body")?;
        let operands = present(operands)?;
        let n_inputs = infer::int(&node.attrs, "num_scan_inputs")?;
        let n_states = usize::try_from(n_inputs)
            .ok()
            .and_then(|n_inputs| operands.len().checked_sub(n_inputs))
            .ok_or_else(|| OpError::invalid(format!("`num_scan_inputs` is {n_inputs}")))?;
        let (states, sequences) = operands.split_at(n_states);
        let unrolled = self.scan(node, body, states.to_vec(), sequences, reason, scope)?;
        let mut results = unrolled.carried;
        for (position, mut scan) in unrolled.scans.into_iter().enumerate() {
            if entry(&node.attrs, "scan_output_directions", position) == 1 {
                scan.reverse();
            }
            let axis = entry(&node.attrs, "scan_output_axes", position);
            results.push(self.stack(&scan, axis, &node.origin)?);
        }
        Ok(results)
    }

    /// The iterations of a Scan.
    fn scan(
        &mut self,
        node: &Node,
        body: &Graph,
        states: Vec<Known>,
        sequences: &[Known],
        reason: &str,
        scope: &Scope<'_>,
    ) -> Result<Unrolled, OpError> {
        let n_scans = expect_outputs(body, states.len())?;
        let mut state = Unrolled {
            carried: states,
            scans: vec![Vec::new(); n_scans],
        };
        let first = sequences
            .first()
            .ok_or_else(|| OpError::invalid("a Scan needs a scan input"))?;
        let first_axis = entry(&node.attrs, "scan_input_axes", 0);
        let length = self.extent(tensor(first, reason)?, first_axis)?;
        for step in 0..length {
            self.expect_affordable(body, step, &state.carried, scope)?;
            let mut inputs = std::mem::take(&mut state.carried);
            for (position, sequence) in sequences.iter().enumerate() {
                let axis = entry(&node.attrs, "scan_input_axes", position);
                let backwards = entry(&node.attrs, "scan_input_directions", position) == 1;
                let at = if backwards { length - 1 - step } else { step };
                inputs.push(self.element(tensor(sequence, reason)?, axis, at, &node.origin)?);
            }
            let outputs = self.inline(body, inputs, Some(scope));
            state.carried = Vec::with_capacity(outputs.len() - n_scans);
            advance_to(&mut state, outputs, body.outputs.len() - n_scans);
            if failed(&state) {
                return Ok(all_failed(&state));
            }
        }
        Ok(state)
    }

    fn trip_count(
        &mut self,
        operand: Option<Known>,
        reason: &str,
        scope: &Scope<'_>,
    ) -> Result<Option<i64>, OpError> {
        let Some(known) = operand else {
            return Ok(None);
        };
        let Some(datum) = self.look(&known, scope, &[])? else {
            return Err(OpError::HostOnly(reason.to_owned()));
        };
        match index_list(datum.tensor()?)?.as_slice() {
            [trips] => Ok(Some(*trips)),
            other => Err(OpError::invalid(format!(
                "a trip count must be one number, found {other:?}"
            ))),
        }
    }

    /// Whether a condition holds; `held` are values that the loop goes on with.
    fn condition(
        &mut self,
        known: &Known,
        reason: &str,
        scope: &Scope<'_>,
        held: &[Known],
    ) -> Result<bool, OpError> {
        match self.look(known, scope, held)? {
            Some(datum) => truth(&datum),
            None => Err(OpError::HostOnly(reason.to_owned())),
        }
    }

    /// Bounds the nodes that are unrolled before any of them runs: `iteration` is the next.
    fn expect_affordable(
        &mut self,
        body: &Graph,
        iteration: i64,
        carried: &[Known],
        scope: &Scope<'_>,
    ) -> Result<(), OpError> {
        let at_once = i64::try_from(MAX_NODES / body.nodes.len().max(1))
            .unwrap_or(i64::MAX)
            .max(1);
        if iteration == 0 || iteration % at_once != 0 {
            return Ok(());
        }
        if self.sees_data() {
            return self.settle(carried, scope);
        }
        Err(OpError::unsupported(format!(
            "a loop that unrolls to more than {MAX_NODES} nodes"
        )))
    }

    fn extent(&self, value: ValueId, axis: i64) -> Result<i64, OpError> {
        let dims = self.target.ty(value).dims();
        let axis = infer::normalize_axis(axis, dims.len())?;
        Ok(i64::try_from(dims[axis]).expect("extents fit in i64"))
    }

    /// Element `at` of a sequence along `axis`, without that axis.
    fn element(&mut self, value: ValueId, axis: i64, at: i64, origin: &[String]) -> Result<Known, OpError> {
        let dims = self.target.ty(value).dims();
        let axis = infer::normalize_axis(axis, dims.len())?;
        let mut starts = vec![0; dims.len()];
        let mut ends: Vec<i64> = dims.iter().map(|&extent| signed(extent)).collect();
        (starts[axis], ends[axis]) = (at, at + 1);
        let attrs = Attrs::new()
            .with("starts", Attr::Ints(starts))
            .with("ends", Attr::Ints(ends))
            .with("steps", Attr::Ints(vec![1; dims.len()]));
        let mut rest = dims;
        rest.remove(axis);
        self.single(|target| {
            let element = emit(target, "slice", vec![Some(value)], attrs.clone(), origin)?;
            reshape(target, element, &rest, origin)
        })
    }

    /// The elements of all iterations along a new `axis`.
    fn stack(&mut self, elements: &[Known], axis: i64, origin: &[String]) -> Result<Known, OpError> {
        let Some(first) = elements.first() else {
            return Err(OpError::unsupported(
                "the scan output of a loop without iterations",
            ));
        };
        if elements.iter().any(|known| matches!(known, Known::Failed)) {
            return Ok(Known::Failed);
        }
        let values: Vec<ValueId> = elements
            .iter()
            .map(|known| tensor(known, "scan outputs are tensors"))
            .collect::<Result<_, _>>()?;
        let mut dims = self.target.ty(tensor(first, "scan outputs are tensors")?).dims();
        let axis = infer::normalize_axis(axis, dims.len() + 1)?;
        dims.insert(axis, 1);
        self.single(|target| {
            let parts: Vec<Operand> = values
                .iter()
                .map(|&value| reshape(target, value, &dims, origin).map(Some))
                .collect::<Result<_, _>>()?;
            let axis = i64::try_from(axis).expect("axes fit in i64");
            emit(
                target,
                "concat",
                parts,
                Attrs::new().with("axis", Attr::Int(axis)),
                origin,
            )
        })
    }

    fn single(&mut self, build: impl Fn(&mut Graph) -> Result<ValueId, OpError>) -> Result<Known, OpError> {
        let mut results = self.append(&|target: &mut Graph| Ok(vec![build(target)?]))?;
        Ok(results.swap_remove(0))
    }
}

fn emit(
    target: &mut Graph,
    op: &'static str,
    operands: Vec<Operand>,
    attrs: Attrs,
    origin: &[String],
) -> Result<ValueId, OpError> {
    Ok(ops::emit(target, op, operands, attrs, 1, NEWEST_OPSET, origin)?[0])
}

fn reshape(
    target: &mut Graph,
    value: ValueId,
    dims: &[usize],
    origin: &[String],
) -> Result<ValueId, OpError> {
    let shape = dims.iter().map(|&extent| signed(extent)).collect();
    let attrs = Attrs::new().with("shape", Attr::Ints(shape));
    emit(target, "reshape", vec![Some(value)], attrs, origin)
}

/// Moves the outputs of an iteration, condition left out, to where they belong.
fn advance(state: &mut Unrolled, outputs: Vec<Known>) {
    let n_carried = outputs.len() - state.scans.len();
    advance_to(state, outputs, n_carried);
}

fn advance_to(state: &mut Unrolled, mut outputs: Vec<Known>, n_carried: usize) {
    let elements = outputs.split_off(n_carried);
    state.carried = outputs;
    for (scan, element) in state.scans.iter_mut().zip(elements) {
        scan.push(element);
    }
}

fn failed(state: &Unrolled) -> bool {
    let last = state.scans.iter().filter_map(|scan| scan.last());
    state
        .carried
        .iter()
        .chain(last)
        .any(|known| matches!(known, Known::Failed))
}

/// After a failure, which has been reported, no later iteration is tried.
fn all_failed(state: &Unrolled) -> Unrolled {
    Unrolled {
        carried: vec![Known::Failed; state.carried.len()],
        scans: vec![vec![Known::Failed]; state.scans.len()],
    }
}

fn present(operands: &[Option<Known>]) -> Result<Vec<Known>, OpError> {
    let present = operands.iter().cloned().collect::<Option<Vec<Known>>>();
    present.ok_or_else(|| OpError::invalid("a carried value is missing"))
}

fn tensor(known: &Known, reason: &str) -> Result<ValueId, OpError> {
    match known {
        Known::Tensor(value) => Ok(*value),
        Known::Constant(_) | Known::Failed => Err(OpError::unsupported(reason)),
    }
}

/// Outputs of a body beyond the first `leading`: its scan outputs.
fn expect_outputs(body: &Graph, leading: usize) -> Result<usize, OpError> {
    let found = body.outputs.len();
    found.checked_sub(leading).ok_or_else(|| {
        OpError::invalid(format!(
            "the body has {found} outputs, at least {leading} are needed"
        ))
    })
}

/// Entry `position` of an integer-list attribute whose absent entries are zero.
fn entry(attrs: &Attrs, name: &str, position: usize) -> i64 {
    attrs
        .ints(name)
        .and_then(|values| values.get(position))
        .copied()
        .unwrap_or(0)
}

fn signed(extent: usize) -> i64 {
    i64::try_from(extent).expect("extents fit in i64")
}
