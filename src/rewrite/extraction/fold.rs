//! Constants that regions read: weights of the model, or computed from weights on the host.

use std::collections::BTreeMap;

use super::net::{Net, NetSource};
use crate::ir::{Attrs, HostTensor};
use crate::ops::Datum;
use crate::reference::{self, Constants, ReferenceError};
use crate::rewrite::egraph::language::def_of;
use crate::rewrite::error::RewriteError;

/// Evaluates constants when they are first asked for.
pub struct Folder<'a> {
    net: &'a Net,
    weights: &'a [HostTensor],
    /// What other graphs of the model have folded.
    constants: &'a Constants,
    known: BTreeMap<usize, HostTensor>,
}

impl<'a> Folder<'a> {
    pub fn new(net: &'a Net, weights: &'a [HostTensor], constants: &'a Constants) -> Self {
        Folder {
            net,
            weights,
            constants,
            known: BTreeMap::new(),
        }
    }

    /// The data of a constant of the net.
    ///
    /// # Errors
    /// If the reference cannot evaluate it.
    pub fn value(&mut self, place: usize) -> Result<HostTensor, RewriteError> {
        if let Some(data) = self.known.get(&place) {
            return Ok(data.clone());
        }
        let data = match self.net.tensors[place].source {
            NetSource::Const(Some(weight)) => self.weights[weight as usize].clone(),
            NetSource::Const(None) | NetSource::Input(_) | NetSource::Device => self.computed(place)?,
        };
        self.known.insert(place, data.clone());
        Ok(data)
    }

    fn computed(&mut self, place: usize) -> Result<HostTensor, RewriteError> {
        let net = self.net;
        let exprs = &net.tensors[place].exprs;
        let is_below = |&&expr: &&usize| net.exprs[expr].uses().all(|operand| operand.tensor < place);
        let expr = exprs
            .iter()
            .find(is_below)
            .expect("a constant has an expression over earlier ones");
        let expr = &net.exprs[*expr];
        let operands = expr
            .operands
            .iter()
            .map(|operand| {
                operand
                    .as_ref()
                    .map(|operand| self.value(operand.tensor))
                    .transpose()
            })
            .collect::<Result<Vec<_>, RewriteError>>()?;
        let given: Vec<Option<&HostTensor>> = operands.iter().map(Option::as_ref).collect();
        let n_results = expr.results.len();
        let computed = || evaluated(expr.op, &expr.attrs, &operands, n_results);
        let results = self.constants.results(expr.op, &expr.attrs, &given, computed)?;
        let position = expr
            .results
            .iter()
            .position(|&result| result == place)
            .unwrap_or(0);
        results
            .into_iter()
            .nth(position)
            .ok_or_else(|| not_a_tensor(expr.op))
    }
}

/// The results of an op on constants.
fn evaluated(
    op: &'static str,
    attrs: &Attrs,
    operands: &[Option<HostTensor>],
    n_results: usize,
) -> Result<Vec<HostTensor>, RewriteError> {
    let data: Vec<Option<Datum>> = operands
        .iter()
        .map(|own| own.clone().map(Datum::Tensor))
        .collect();
    let results = reference::eval_constant(def_of(op), attrs, &data, n_results)
        .map_err(|source| failure(op, &data, source))?;
    let tensors = results.into_iter().map(|result| match result {
        Datum::Tensor(data) => Ok(data),
        Datum::Sequence(_) | Datum::Optional(_) => Err(not_a_tensor(op)),
    });
    tensors.collect()
}

fn not_a_tensor(op: &'static str) -> RewriteError {
    RewriteError::Constant {
        source: ReferenceError::NotATensor { name: op.to_owned() },
    }
}

fn failure(op: &'static str, operands: &[Option<Datum>], source: crate::ops::OpError) -> RewriteError {
    let types: Vec<String> = operands
        .iter()
        .map(|operand| match operand {
            Some(Datum::Tensor(data)) => data.ty().to_string(),
            Some(Datum::Sequence(_) | Datum::Optional(_)) | None => "-".to_owned(),
        })
        .collect();
    RewriteError::Constant {
        source: ReferenceError::Node {
            node: crate::ir::NodeId(0),
            op,
            origin: String::new(),
            operands: types.join(", "),
            source,
        },
    }
}
