//! Constants that regions read: weights of the model, or computed from weights on the host.

use std::collections::BTreeMap;

use super::error::RewriteError;
use super::language::def_of;
use super::net::{Net, NetSource};
use crate::ir::HostTensor;
use crate::ops::Datum;
use crate::reference::{self, ReferenceError};

/// Evaluates constants when they are first asked for.
pub struct Folder<'a> {
    net: &'a Net,
    weights: &'a [HostTensor],
    known: BTreeMap<usize, HostTensor>,
}

impl<'a> Folder<'a> {
    pub fn new(net: &'a Net, weights: &'a [HostTensor]) -> Self {
        Folder {
            net,
            weights,
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
            .map(|operand| match operand {
                Some(operand) => Ok(Some(Datum::Tensor(self.value(operand.tensor)?))),
                None => Ok(None),
            })
            .collect::<Result<Vec<_>, RewriteError>>()?;
        let results = reference::eval_node(def_of(expr.op), &expr.attrs, &operands, expr.results.len())
            .map_err(|source| failure(expr.op, &operands, source))?;
        let position = expr
            .results
            .iter()
            .position(|&result| result == place)
            .unwrap_or(0);
        match results.into_iter().nth(position) {
            Some(Datum::Tensor(data)) => Ok(data),
            _ => Err(RewriteError::Constant {
                source: ReferenceError::NotATensor {
                    name: expr.op.to_owned(),
                },
            }),
        }
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
