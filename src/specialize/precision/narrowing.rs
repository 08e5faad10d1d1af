//! The narrow graph, node by node.

use std::convert::Infallible;

use super::{Island, Reason, Wide};
use crate::ir::{Attr, Attrs, DType, Graph, HostTensor, Node, Operand, TensorType, ValueId};
use crate::ops::evaluate::{from_values, to_vec};
use crate::ops::{self, InferCtx, OpDef, infer};
use crate::reference::Constants;

/// The values of the target that stand for one of the graph.
#[derive(Clone, Default)]
pub struct Form {
    /// In its own kind.
    pub wide: Option<ValueId>,
    pub narrow: Option<ValueId>,
}

pub struct Narrowing<'a> {
    pub graph: &'a Graph,
    pub target: Graph,
    pub forms: Vec<Form>,
    pub pinned: Vec<Option<Reason>>,
    pub integral: Vec<bool>,
    pub wide: &'a Wide,
    pub islands: Vec<Island>,
    pub narrow: DType,
    pub constants: &'a Constants,
}

impl Narrowing<'_> {
    pub fn node(&mut self, position: usize, node: &Node) {
        let def = ops::lookup(node.op).expect("specialize() leaves only ops of the table");
        let reason = self.stays_wide(position, node);
        // An op without a narrow form stays as it was.
        if reason.is_none() && self.try_emit(def, node, true) {
            return;
        }
        if let Some(reason) = reason {
            self.note(node, reason);
        }
        let emitted = self.try_emit(def, node, false);
        assert!(
            emitted,
            "`{}` has the operand types specialize() checked",
            node.op
        );
    }

    fn note(&mut self, node: &Node, reason: Reason) {
        let makes_floats = node.results.iter().any(|&result| self.is_f32(result));
        if makes_floats {
            self.islands.push(Island {
                op: node.op,
                origin: node.origin.clone(),
                reason,
            });
        }
    }

    /// Adds `node` with narrow or own operands; `false` where its inference refuses them.
    fn try_emit(&mut self, def: &OpDef, node: &Node, narrow: bool) -> bool {
        let (n_nodes, n_values) = (self.target.nodes.len(), self.target.values.len());
        let before = self.operand_forms(node);
        let (operands, attrs) = self.operands_and_attrs(node, narrow);
        let types: Vec<Option<TensorType>> = operands
            .iter()
            .map(|operand| operand.map(|value| self.target.ty(value).clone()))
            .collect();
        let inferred = def.result_types(&InferCtx {
            attrs: &attrs,
            operands: &types,
        });
        let Ok(types) = inferred else {
            self.target.nodes.truncate(n_nodes);
            self.target.values.truncate(n_values);
            for (value, form) in before {
                self.forms[value.0 as usize] = form;
            }
            return false;
        };
        self.add(node, operands, attrs, types);
        true
    }

    fn operand_forms(&self, node: &Node) -> Vec<(ValueId, Form)> {
        let operands = node.operands.iter().flatten();
        operands
            .map(|&value| (value, self.forms[value.0 as usize].clone()))
            .collect()
    }

    fn operands_and_attrs(&mut self, node: &Node, narrow: bool) -> (Vec<Operand>, Attrs) {
        if narrow
            && node.op == "batch_norm"
            && let Some(settled) = self.batch_norm(node)
        {
            return settled;
        }
        let is_cast = node.op == "cast";
        let operands = node
            .operands
            .iter()
            .map(|operand| {
                operand.map(|value| match (narrow, self.is_f32(value)) {
                    // A cast takes what there is; going through another kind first helps nobody.
                    (_, true) if is_cast => self.any(value),
                    (true, true) => self.narrow(value),
                    (_, false) | (false, true) => self.wide(value),
                })
            })
            .collect();
        let mut attrs = node.attrs.clone();
        if narrow && attrs.dtype("to") == Some(DType::F32) {
            attrs = attrs.with("to", Attr::DType(self.narrow));
        }
        (operands, attrs)
    }

    /// A batch normalisation whose statistics are constants, with mean 0 and variance 1.
    fn batch_norm(&mut self, node: &Node) -> Option<(Vec<Operand>, Attrs)> {
        let epsilon = infer::float(&node.attrs, "epsilon").ok()?;
        let constant = |n: usize| -> Option<Vec<f64>> {
            let value = node.operands.get(n).copied().flatten()?;
            self.graph.weight(value).map(to_vec)
        };
        let (gain, bias, mean, variance) = (constant(1)?, constant(2)?, constant(3)?, constant(4)?);
        let scale: Vec<f64> = gain
            .iter()
            .zip(&variance)
            .map(|(gain, variance)| gain / (variance + epsilon).sqrt())
            .collect();
        let offset: Vec<f64> = bias
            .iter()
            .zip(mean.iter().zip(&scale))
            .map(|(bias, (mean, scale))| bias - mean * scale)
            .collect();
        let ones = vec![1.0; scale.len()];
        let x = node.operands[0]?;
        let mut operands = vec![Some(self.narrow(x))];
        for values in [&scale, &offset, &vec![0.0; scale.len()], &ones] {
            let data = narrowed(&from_values(DType::F64, &[values.len()], values), self.narrow);
            operands.push(Some(self.target.add_weight("", data)));
        }
        let attrs = node.attrs.clone().with("epsilon", Attr::Float(0.0));
        Some((operands, attrs))
    }

    fn add(&mut self, node: &Node, operands: Vec<Operand>, attrs: Attrs, types: Vec<TensorType>) {
        let results: Vec<(&str, Option<TensorType>)> = node
            .results
            .iter()
            .zip(types)
            .map(|(&result, ty)| (self.graph.value(result).name.as_str(), Some(ty)))
            .collect();
        let id = self
            .target
            .add_node(node.op, operands, attrs, &results, node.origin.clone());
        self.target.nodes[id.0 as usize].rules.clone_from(&node.rules);
        let added = self.target.node(id).results.clone();
        for (&result, value) in node.results.iter().zip(added) {
            let is_own = self.target.ty(value).dtype == self.graph.ty(result).dtype;
            let form = &mut self.forms[result.0 as usize];
            if is_own {
                form.wide = Some(value);
            } else {
                form.narrow = Some(value);
            }
        }
    }

    /// The form a value was made in.
    fn any(&mut self, value: ValueId) -> ValueId {
        let form = &self.forms[value.0 as usize];
        match (form.wide, form.narrow) {
            (Some(wide), Some(narrow)) => wide.min(narrow),
            (Some(only), None) | (None, Some(only)) => only,
            (None, None) => self.wide(value),
        }
    }

    /// A value in its own kind.
    pub fn wide(&mut self, value: ValueId) -> ValueId {
        let form = &self.forms[value.0 as usize];
        if let Some(wide) = form.wide {
            return wide;
        }
        let wide = match (self.graph.weight(value), form.narrow) {
            (Some(data), _) => self
                .target
                .add_weight(&self.graph.value(value).name, data.clone()),
            (None, Some(narrow)) => self.cast(value, narrow, DType::F32),
            (None, None) => unreachable!("operands are made before they are read"),
        };
        self.forms[value.0 as usize].wide = Some(wide);
        wide
    }

    /// An f32 value in the narrow kind.
    fn narrow(&mut self, value: ValueId) -> ValueId {
        let form = &self.forms[value.0 as usize];
        if let Some(narrow) = form.narrow {
            return narrow;
        }
        let narrow = match (self.graph.weight(value), form.wide) {
            (Some(data), _) => {
                let data = self.narrowed(data);
                self.target.add_weight(&self.graph.value(value).name, data)
            }
            (None, Some(wide)) => self.cast(value, wide, self.narrow),
            (None, None) => unreachable!("operands are made before they are read"),
        };
        self.forms[value.0 as usize].narrow = Some(narrow);
        narrow
    }

    fn narrowed(&self, data: &HostTensor) -> HostTensor {
        let to = Attrs::new().with("to", Attr::DType(self.narrow));
        let computed = || Ok::<_, Infallible>(vec![narrowed(data, self.narrow)]);
        let Ok(results) = self.constants.results("narrowed", &to, &[Some(data)], computed);
        results.into_iter().next().expect("a constant is narrowed to one")
    }

    fn cast(&mut self, value: ValueId, from: ValueId, to: DType) -> ValueId {
        let made_by = self.graph.producer(value);
        let origin = made_by.map_or_else(Vec::new, |(_, node)| node.origin.clone());
        let ty = TensorType::new(to, &self.graph.ty(value).dims());
        let attrs = Attrs::new().with("to", Attr::DType(to));
        let node = self
            .target
            .add_node("cast", vec![Some(from)], attrs, &[("", Some(ty))], origin);
        self.target.node(node).results[0]
    }
}

/// Constants in the narrow kind, rounded to nearest; finite ones stay finite.
pub fn narrowed(data: &HostTensor, narrow: DType) -> HostTensor {
    let largest = match narrow {
        DType::F16 => half::f16::MAX.to_f64(),
        DType::BF16 => half::bf16::MAX.to_f64(),
        _ => f64::INFINITY,
    };
    let mut values: Vec<f64> = to_vec(data);
    for value in &mut values {
        if value.is_finite() {
            *value = value.clamp(-largest, largest);
        }
    }
    from_values(narrow, data.dims(), &values)
}
