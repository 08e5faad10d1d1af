//! Control flow that constants decide.

use super::scope::{Known, Scope};
use super::walk::{Lowered, Walk};
use crate::ir::{Graph, Node};
use crate::ops::evaluate::to_vec;
use crate::ops::{Datum, OpDef, OpError};
use crate::reference;

impl Walk<'_> {
    /// If: the chosen branch takes the node's place.
    pub(super) fn lower_if(
        &mut self,
        node: &Node,
        _def: &'static OpDef,
        reason: &str,
        operands: &[Option<Known>],
        scope: &Scope<'_>,
    ) -> Lowered {
        let condition = operands.first().and_then(Option::as_ref);
        let condition = condition.ok_or_else(|| OpError::invalid("the condition is missing"))?;
        let Some(datum) = self.look(condition, scope, &[])? else {
            return Err(OpError::HostOnly(reason.to_owned()));
        };
        let branch = if truth(&datum)? {
            "then_branch"
        } else {
            "else_branch"
        };
        let body = body(node, branch)?;
        Ok(self.inline(body, Vec::new(), Some(scope)))
    }

    /// Evaluates a node with a body, if its operands and all the body captures are constants.
    pub(super) fn evaluate_body(
        &mut self,
        node: &Node,
        def: &'static OpDef,
        operands: &[Option<Known>],
        scope: &Scope<'_>,
    ) -> Option<Lowered> {
        let data = self.constants(operands)?;
        let constant = node.bodies().all(|body| self.captures_constants(body, scope));
        if !constant {
            return None;
        }
        let captured = |name: &str| self.constant(&scope.captured(name)?);
        let results = reference::eval_captured(def, &node.attrs, &data, node.results.len(), &captured);
        Some(results.map(|results| self.known(results)))
    }

    /// Whether all that a body and the bodies in it read from around them is constant. A name
    /// that is not found is defined in between.
    fn captures_constants(&self, body: &Graph, scope: &Scope<'_>) -> bool {
        let own = body.captures.iter().all(|(_, name)| match scope.captured(name) {
            Some(known) => self.constant(&known).is_some(),
            None => true,
        });
        let mut inner = body.nodes.iter().flat_map(Node::bodies);
        own && inner.all(|inner| self.captures_constants(inner, scope))
    }
}

/// The subgraph of a node.
pub(super) fn body<'a>(node: &'a Node, name: &str) -> Result<&'a Graph, OpError> {
    let body = node.attrs.graph(name);
    body.ok_or_else(|| OpError::invalid(format!("attribute `{name}` is missing")))
}

/// A condition: one bool element.
pub(super) fn truth(datum: &Datum) -> Result<bool, OpError> {
    let tensor = datum.tensor()?;
    match to_vec::<i64>(tensor).as_slice() {
        [only] => Ok(*only != 0),
        _ => Err(OpError::invalid(format!(
            "a condition must be one bool, found `{}`",
            tensor.ty()
        ))),
    }
}
