//! Ops that become others, and nodes of typed graphs.

use std::collections::BTreeMap;

use super::bounded::{Analysis, BoundedCtx, BoundedResults, Counted};
use super::{AttrDefault, InferCtx, Lowering, OpDef, OpError, lookup};
use crate::ir::{Attr, Attrs, Graph, HostTensor, Node, Operand, TensorType, ValueId};

/// Rewrites one use of an op into a few others. Appends nodes to `ExpandCtx::graph` and
/// returns the values that replace the results.
pub type ExpandFn = fn(&mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError>;

/// An op whose results have an extent that depends on data.
pub struct BoundedForm {
    /// Makes results as large as they can become.
    pub expand: fn(&mut BoundedCtx<'_, '_>) -> Result<BoundedResults, OpError>,
    /// The results as they are, where operands that decide their extent are constants.
    pub exact: Option<ExpandFn>,
    /// Why the extent is not known, for messages.
    pub reason: &'static str,
}

/// What an expansion is given: typed operands in a graph under construction.
pub struct ExpandCtx<'a> {
    pub graph: &'a mut Graph,
    pub operands: &'a [Operand],
    /// ONNX attributes, with defaults filled in.
    pub attrs: &'a Attrs,
    /// Version of the operator's domain in the model.
    pub opset: i64,
    pub n_results: usize,
    pub origin: &'a [String],
}

static NO_ATTRS: Attrs = Attrs(BTreeMap::new());

impl<'a> ExpandCtx<'a> {
    /// For nodes that stand for no use of an op: they come from the ONNX nodes `origin`.
    pub fn on(graph: &'a mut Graph, origin: &'a [String]) -> Self {
        ExpandCtx {
            graph,
            operands: &[],
            attrs: &NO_ATTRS,
            opset: NEWEST_OPSET,
            n_results: 1,
            origin,
        }
    }
}

impl ExpandCtx<'_> {
    /// Type of operand `n`.
    ///
    /// # Errors
    /// If the operand is absent.
    pub fn ty(&self, n: usize) -> Result<TensorType, OpError> {
        Ok(self.graph.ty(self.value(n)?).clone())
    }

    /// Operand `n`, which must be present.
    ///
    /// # Errors
    /// If it is absent.
    pub fn value(&self, n: usize) -> Result<ValueId, OpError> {
        self.optional(n)
            .ok_or_else(|| OpError::invalid(format!("operand {n} is missing")))
    }

    pub fn optional(&self, n: usize) -> Operand {
        self.operands.get(n).copied().flatten()
    }

    /// The constant behind operand `n`; `None` if the operand is absent.
    ///
    /// # Errors
    /// If the operand is not a constant: the result depends on run-time data.
    pub fn constant(&self, n: usize) -> Result<Option<HostTensor>, OpError> {
        let Some(value) = self.optional(n) else {
            return Ok(None);
        };
        match self.graph.weight(value) {
            Some(data) => Ok(Some(data.clone())),
            None => Err(OpError::NeedsConstant { operand: n }),
        }
    }

    /// Adds a core op with one result and infers its type.
    ///
    /// # Errors
    /// If the operand types do not fit.
    pub fn emit(&mut self, op: &'static str, operands: &[ValueId], attrs: Attrs) -> Result<ValueId, OpError> {
        let operands = operands.iter().copied().map(Some).collect();
        Ok(self.emit_all(op, operands, attrs, 1)?[0])
    }

    /// Adds an op with any operands and number of results. An op that expands is expanded.
    ///
    /// # Errors
    /// If the operand types do not fit, or the expansion fails.
    pub fn emit_all(
        &mut self,
        op: &'static str,
        operands: Vec<Operand>,
        attrs: Attrs,
        n_results: usize,
    ) -> Result<Vec<ValueId>, OpError> {
        emit(
            self.graph,
            op,
            operands,
            attrs,
            n_results,
            self.opset,
            self.origin,
        )
    }

    /// Adds a constant.
    pub fn weight(&mut self, data: HostTensor) -> ValueId {
        self.graph.add_weight("", data)
    }
}

/// Appends `op` to a typed graph: expands it where its lowering says so, else adds the node
/// with inferred result types.
///
/// # Errors
/// As the op's inference or expansion.
pub fn emit(
    graph: &mut Graph,
    op: &'static str,
    operands: Vec<Operand>,
    attrs: Attrs,
    n_results: usize,
    opset: i64,
    origin: &[String],
) -> Result<Vec<ValueId>, OpError> {
    let def = lookup(op).ok_or_else(|| OpError::invalid(format!("no op is named `{op}`")))?;
    let attrs = with_defaults(def, attrs)?;
    if let Some(expand) = def.lower.exact_expansion() {
        let mut ctx = ExpandCtx {
            graph,
            operands: &operands,
            attrs: &attrs,
            opset,
            n_results,
            origin,
        };
        return expand(&mut ctx);
    }
    if let Lowering::Bounded(form) = &def.lower {
        return Err(OpError::HostOnly(form.reason.to_owned()));
    }
    let types: Vec<Option<TensorType>> = operands
        .iter()
        .map(|operand| operand.map(|value| graph.ty(value).clone()))
        .collect();
    let results = def.result_types(&InferCtx {
        attrs: &attrs,
        operands: &types,
    })?;
    let results: Vec<(&str, Option<TensorType>)> = results.into_iter().map(|ty| ("", Some(ty))).collect();
    let node = graph.add_node(def.name, operands, attrs, &results, origin.to_vec());
    Ok(graph.node(node).results.clone())
}

/// Appends what a node of which data decides an extent becomes, as [`BoundedForm::expand`] says.
///
/// # Errors
/// As the expansion.
pub fn emit_bounded(
    graph: &mut Graph,
    node: &Node,
    form: &BoundedForm,
    operands: &[Operand],
    counted: &[Vec<Counted>],
    analysis: &mut dyn Analysis,
) -> Result<BoundedResults, OpError> {
    let def = lookup(node.op).ok_or_else(|| OpError::invalid(format!("no op is named `{}`", node.op)))?;
    let (attrs, opset) = without_opset(node.attrs.clone());
    let attrs = with_defaults(def, attrs)?;
    let expand = ExpandCtx {
        graph,
        operands,
        attrs: &attrs,
        opset,
        n_results: node.results.len(),
        origin: &node.origin,
    };
    (form.expand)(&mut BoundedCtx {
        expand,
        counted,
        analysis,
    })
}

/// Attributes of an ONNX form without the version of its domain, and that.
pub fn without_opset(mut attrs: Attrs) -> (Attrs, i64) {
    match attrs.0.remove(OPSET) {
        Some(Attr::Int(version)) => (attrs, version),
        _ => (attrs, NEWEST_OPSET),
    }
}

/// Result types of a node that has generated code, as its op infers them.
///
/// # Errors
/// If the op is unknown, only expands, or does not fit.
pub fn types_of(node: &Node, operands: &[Option<TensorType>]) -> Result<Vec<TensorType>, String> {
    let def = lookup(node.op).ok_or_else(|| "no such op".to_owned())?;
    match &def.lower {
        Lowering::Map(_) | Lowering::Tile(..) | Lowering::Loop => {}
        Lowering::Expand(_) | Lowering::Bounded(_) => {
            return Err("an op that only expands is left".to_owned());
        }
        Lowering::Host(reason) => return Err(format!("an op of the host is left: {reason}")),
    }
    def.result_types(&InferCtx {
        attrs: &node.attrs,
        operands,
    })
    .map_err(|error| error.to_string())
}

/// Attribute the importer adds to ONNX forms: the version of the operator's domain.
pub const OPSET: &str = "opset";

/// The newest opset known; assumed where a node does not say.
pub const NEWEST_OPSET: i64 = 28;

/// Attributes with absent ones filled in from the op's declaration.
///
/// # Errors
/// If a required attribute is absent or one is unknown.
pub fn with_defaults(def: &OpDef, mut attrs: Attrs) -> Result<Attrs, OpError> {
    if let Some(name) = attrs
        .0
        .keys()
        .find(|name| *name != OPSET && !def.attrs.iter().any(|attr| attr.name == name.as_str()))
    {
        return Err(OpError::unsupported(format!(
            "attribute `{name}` of `{}`",
            def.name
        )));
    }
    for attr in def.attrs {
        if attrs.get(attr.name).is_some() {
            continue;
        }
        let value = match attr.default {
            AttrDefault::Required => {
                return Err(OpError::invalid(format!(
                    "`{}` needs attribute `{}`",
                    def.name, attr.name
                )));
            }
            AttrDefault::Absent => continue,
            AttrDefault::Int(value) => Attr::Int(value),
            AttrDefault::Float(value) => Attr::Float(value),
            AttrDefault::Str(value) => Attr::Str(value.to_owned()),
        };
        attrs.0.insert(attr.name.to_owned(), value);
    }
    Ok(attrs)
}
