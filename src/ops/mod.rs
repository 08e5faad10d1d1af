//! The op table: every operator is declared once, and everything else is derived from it.
//!
//! Two families share the table. **Core ops** (`snake_case`: `add`, `reshape`, `conv_nhwc`)
//! have static attributes and generated code. **ONNX forms** (`CamelCase`: `Reshape`,
//! `Slice`, `LSTM`) keep ONNX's operands and version differences, and expand into core ops
//! as soon as the operands they depend on are constants. An ONNX operator that already is
//! what a core op does (`Relu`, `Add`) is imported as the core op directly.
//!
//! # Adding an operator (ten minutes)
//! 1. Copy the `static` of its nearest relative in the file of its family.
//! 2. Prefer [`Lowering::Expand`]: a few lines over existing ops keep every fusion rule.
//! 3. List it in that file's `OPS`.
//! 4. `cargo test --test hostexec NAME`: its samples are checked against its own inference,
//!    lowering and reference. There is no test to write.
//! 5. `make bless` lists it in `docs/operators.md`; say in [`catalogue`] what restricts it.

pub mod activation;
pub mod arithmetic_forms;
pub mod attention;
pub mod attention_forms;
pub mod build;
pub mod cast;
pub mod catalogue;
pub mod compaction;
pub mod compare;
pub mod control;
pub mod conv;
pub mod conv_eval;
pub mod conv_forms;
pub mod deform_forms;
pub mod detection;
pub mod determinant;
pub mod einsum;
pub mod elementwise;
pub mod evaluate;
pub mod fold_forms;
pub mod grid_forms;
pub mod groups;
pub mod index;
pub mod index_forms;
pub mod infer;
pub mod lanes;
pub mod loss_forms;
pub mod matmul;
pub mod matmul_forms;
pub mod moves;
pub mod narrow;
pub mod ngrams;
pub mod normalize;
pub mod normalize_forms;
pub mod pool;
pub mod pool_forms;
pub mod product;
pub mod quantize;
pub mod quantize_products;
pub mod random;
pub mod recall_forms;
pub mod recurrent;
pub mod recurrent_cells;
pub mod reduce;
pub mod reduce_forms;
pub mod resize;
pub mod resize_taps;
pub mod roi_forms;
pub mod rotary;
pub mod sample_grid;
pub mod samples;
pub mod scatter;
pub mod sequence;
pub mod shape;
pub mod signal_forms;
pub mod softmax;
pub mod top_k;
pub mod view_forms;
pub mod views;
pub mod window;

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::ir::{Attr, Attrs, Graph, HostTensor, Node, Operand, TensorType, ValueId};
use crate::tile::{Expr, ExprId, TileCtx, TileFn};

/// An operator.
pub struct OpDef {
    /// Spelling in text IR, rules, dumps and errors.
    pub name: &'static str,
    /// ONNX operators imported as this op.
    pub onnx: &'static [OnnxOp],
    /// Operands in order.
    pub operands: Operands,
    /// Attributes it knows; the importer refuses others, rule files and text IR too.
    pub attrs: &'static [AttrDef],
    /// Operand types to result types. ONNX forms that only expand have none of their own.
    pub infer: InferFn,
    /// Reference meaning.
    pub eval: EvalFn,
    /// How generated code is obtained.
    pub lower: Lowering,
    /// How tests draw valid operands and attributes.
    pub samples: SamplesFn,
    /// How closely generated code must follow `eval`.
    pub tolerance: Tolerance,
}

impl OpDef {
    /// The expression of one element of a result; `None` for ops that have none of their own.
    pub fn tile(&self, ctx: &mut TileCtx<'_, '_>) -> Option<ExprId> {
        match &self.lower {
            Lowering::Map(_) => Some(self.tile_map(ctx)),
            Lowering::Tile(_, tile) => Some(tile(ctx)),
            Lowering::Expand(_) | Lowering::Bounded(_) | Lowering::Loop | Lowering::Host(_) => None,
        }
    }

    fn tile_map(&self, ctx: &mut TileCtx<'_, '_>) -> ExprId {
        let args = (0..ctx.operands.len()).map(|n| ctx.read_broadcast(n)).collect();
        let attrs = ctx.body.intern_attrs(ctx.attrs);
        ctx.body.add(Expr::Map {
            op: self.name,
            attrs,
            args,
            dtype: ctx.result.dtype,
        })
    }
}

/// An ONNX operator and the opset range (inclusive) in which it has this form.
#[derive(Clone, Copy, Debug)]
pub struct OnnxOp {
    /// `""` is the main domain.
    pub domain: &'static str,
    pub name: &'static str,
    pub since: i64,
    pub until: i64,
}

impl OnnxOp {
    /// An operator of the main domain, from opset 1 on.
    pub const fn new(name: &'static str) -> Self {
        OnnxOp {
            domain: "",
            name,
            since: 1,
            until: i64::MAX,
        }
    }

    /// The same operator in another domain.
    pub const fn of(self, domain: &'static str) -> Self {
        OnnxOp { domain, ..self }
    }

    pub const fn since(self, since: i64) -> Self {
        OnnxOp { since, ..self }
    }

    pub const fn until(self, until: i64) -> Self {
        OnnxOp { until, ..self }
    }
}

/// Names and arity of the operands.
#[derive(Clone, Copy, Debug)]
pub struct Operands {
    /// Leading operands that must be present.
    pub required: &'static [&'static str],
    /// Operands after these that may be absent.
    pub optional: &'static [&'static str],
    /// Whether the last named operand may repeat.
    pub variadic: bool,
    /// Whether the two operands may change places; rules are then tried both ways.
    pub commutative: bool,
}

impl Operands {
    pub const fn exactly(required: &'static [&'static str]) -> Self {
        Operands {
            required,
            optional: &[],
            variadic: false,
            commutative: false,
        }
    }

    /// Two operands that may change places.
    pub const fn commutative(required: &'static [&'static str; 2]) -> Self {
        Operands {
            required,
            optional: &[],
            variadic: false,
            commutative: true,
        }
    }

    pub const fn with_optional(required: &'static [&'static str], optional: &'static [&'static str]) -> Self {
        Operands {
            required,
            optional,
            variadic: false,
            commutative: false,
        }
    }

    pub const fn variadic(required: &'static [&'static str]) -> Self {
        Operands {
            required,
            optional: &[],
            variadic: true,
            commutative: false,
        }
    }
}

/// An attribute: its name, kind, and value when absent.
#[derive(Clone, Copy, Debug)]
pub struct AttrDef {
    pub name: &'static str,
    pub kind: AttrKind,
    pub default: AttrDefault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttrKind {
    Int,
    Float,
    Str,
    Ints,
    Floats,
    Strs,
    DType,
    Tensor,
    Graph,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AttrDefault {
    Required,
    /// Absent is a state of its own.
    Absent,
    Int(i64),
    Float(f64),
    Str(&'static str),
}

/// How generated code is obtained. `match` on this has no `_` arm.
pub enum Lowering {
    /// A scalar function, applied to broadcast operands. The text is a CUDA expression over
    /// `{0}`, `{1}`, .. and attributes `{alpha}`; functions it calls are in
    /// `templates/device/scalar.cuh`, overloaded by C++ type.
    Map(&'static str),
    /// A tile function of the given kind.
    Tile(TileKind, TileFn),
    /// Rewritten into other ops once operand types, and the constants it needs, are known.
    Expand(ExpandFn),
    /// As `Expand`, where an extent of results depends on run-time data: they are as large as they can
    /// become, and a count says how many of their elements there are.
    Bounded(BoundedForm),
    /// Computed by a template of its own alone: elements of the result depend on others of it.
    Loop,
    /// Only the reference executes it. A compiled graph may not contain it: it must have
    /// folded into a constant, otherwise compiling is refused with this reason.
    Host(&'static str),
}

impl Lowering {
    /// What makes other ops of this one without a question left open.
    pub fn exact_expansion(&self) -> Option<ExpandFn> {
        match self {
            Lowering::Expand(expand) => Some(*expand),
            Lowering::Bounded(form) => form.exact,
            Lowering::Map(_) | Lowering::Tile(..) | Lowering::Loop | Lowering::Host(_) => None,
        }
    }

    /// Whether there is generated code for the op itself.
    pub fn has_code(&self) -> bool {
        match self {
            Lowering::Map(_) | Lowering::Tile(..) | Lowering::Loop => true,
            Lowering::Expand(_) | Lowering::Bounded(_) | Lowering::Host(_) => false,
        }
    }
}

/// What fusion rules ask about an op that has a tile function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TileKind {
    /// One scalar function per element.
    Map,
    /// A bijection or repetition of elements: reshape, transpose, slice, expand.
    View,
    /// Elements selected by index or by data: concat, pad, gather, resize.
    Index,
    /// Combines whole axes: reductions, softmax, normalisation.
    Reduce,
    /// Matrix product over the last two axes.
    Dot,
    /// Sliding window: convolution, pooling.
    Window,
    /// Anything else with an expression, evaluated by the indexed kernel alone.
    Other,
}

/// Result types from operand types. Dims of operands are all known.
pub type InferFn = fn(&InferCtx<'_>) -> Result<Vec<TensorType>, OpError>;

pub struct InferCtx<'a> {
    pub attrs: &'a Attrs,
    pub operands: &'a [Option<TensorType>],
}

/// Reference meaning. ONNX forms use [`evaluate::BY_EXPANSION`]: they are evaluated by
/// expanding them with their operands as constants.
pub type EvalFn = fn(&EvalCtx<'_>) -> Result<Vec<Datum>, OpError>;

pub struct EvalCtx<'a> {
    pub attrs: &'a Attrs,
    pub operands: &'a [Option<Datum>],
    /// Number of results the node has.
    pub n_results: usize,
    /// Evaluates a subgraph attribute on operands (captures are already bound).
    pub run_subgraph: &'a dyn Fn(&Graph, &[Datum]) -> Result<Vec<Datum>, OpError>,
}

/// What the reference interpreter computes with. Sequences and optionals exist only here:
/// a compiled graph has tensors alone.
#[derive(Clone, Debug, PartialEq)]
pub enum Datum {
    Tensor(HostTensor),
    Sequence(Vec<HostTensor>),
    Optional(Option<Box<Datum>>),
}

impl Datum {
    /// # Errors
    /// If the datum is a sequence or an optional.
    pub fn tensor(&self) -> Result<&HostTensor, OpError> {
        match self {
            Datum::Tensor(tensor) => Ok(tensor),
            Datum::Sequence(_) | Datum::Optional(_) => Err(OpError::invalid(
                "expected a tensor, found a sequence or an optional",
            )),
        }
    }
}

/// Rewrites one use of an op into a few others. Appends nodes to `ExpandCtx::graph` and
/// returns the values that replace the results.
pub type ExpandFn = fn(&mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError>;

/// An op whose results have an extent that depends on data.
pub struct BoundedForm {
    /// Makes results as large as they can become.
    pub expand: fn(&mut ExpandCtx<'_>) -> Result<BoundedResults, OpError>,
    /// The results as they are, where operands that decide their extent are constants.
    pub exact: Option<ExpandFn>,
    /// Why the extent is not known, for messages.
    pub reason: &'static str,
}

/// Results of which only the first elements along an axis are there.
pub struct BoundedResults {
    pub values: Vec<ValueId>,
    /// For each result the axis whose extent depends on data.
    pub axes: Vec<Option<usize>>,
    /// How many elements there are along these axes: one `i64`. Those beyond are harmless: indices are zero.
    pub count: ValueId,
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
    let results = (def.infer)(&InferCtx {
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
) -> Result<BoundedResults, OpError> {
    let def = lookup(node.op).ok_or_else(|| OpError::invalid(format!("no op is named `{}`", node.op)))?;
    let (attrs, opset) = without_opset(node.attrs.clone());
    let attrs = with_defaults(def, attrs)?;
    (form.expand)(&mut ExpandCtx {
        graph,
        operands,
        attrs: &attrs,
        opset,
        n_results: node.results.len(),
        origin: &node.origin,
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
    (def.infer)(&InferCtx {
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

/// Draws cases for the property tests; `seed` counts up from zero.
pub type SamplesFn = fn(seed: u64) -> Option<Sample>;

/// One drawn use of an op: operand data and attributes that satisfy its inference.
pub struct Sample {
    pub operands: Vec<Option<HostTensor>>,
    pub attrs: Attrs,
}

/// How closely a result must follow the reference; numbers per element kind are in
/// [`crate::testing::tolerance`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tolerance {
    /// The same bits, but for the sign of zero and the payload of NaN.
    Exact,
    /// A few units in the last place: transcendental functions.
    Close,
    /// Sums of as many products as the reduced extent says.
    Accumulated,
}

/// Why an op cannot be inferred, expanded or evaluated. The caller adds the node's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// The model is wrong: exit code 1.
    #[error("{0}")]
    Invalid(String),
    /// The model may be right, but this is not implemented: exit code 3.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// Only the host executes it, on data that is known: exit code 3.
    #[error("not supported: {0}")]
    HostOnly(String),
    /// The op's result type depends on run-time data.
    #[error("operand {operand} must be a constant: the shape of the result depends on it")]
    NeedsConstant { operand: usize },
}

impl OpError {
    pub fn invalid(message: impl Into<String>) -> Self {
        OpError::Invalid(message.into())
    }

    pub fn unsupported(message: impl Into<String>) -> Self {
        OpError::Unsupported(message.into())
    }
}

/// The op spelled `name`.
pub fn lookup(name: &str) -> Option<&'static OpDef> {
    TABLE.by_name.get(name).copied()
}

/// The op that imports ONNX operator `name` of `domain` at `opset`.
pub fn lookup_onnx(domain: &str, name: &str, opset: i64) -> Option<&'static OpDef> {
    TABLE
        .by_onnx
        .get(&(domain, name))?
        .iter()
        .find(|(onnx, _)| (onnx.since..=onnx.until).contains(&opset))
        .map(|(_, def)| *def)
}

/// Every op, by name.
pub fn all() -> impl Iterator<Item = &'static OpDef> {
    FAMILIES.iter().flat_map(|ops| ops.iter().copied())
}

/// The files of the table. A new family is listed here.
static FAMILIES: &[&[&OpDef]] = &[
    activation::OPS,
    arithmetic_forms::OPS,
    attention::OPS,
    attention_forms::OPS,
    cast::OPS,
    compaction::OPS,
    compare::OPS,
    control::OPS,
    conv::OPS,
    conv_forms::OPS,
    deform_forms::OPS,
    determinant::OPS,
    detection::OPS,
    einsum::OPS,
    elementwise::OPS,
    fold_forms::OPS,
    grid_forms::OPS,
    groups::OPS,
    index::OPS,
    index_forms::OPS,
    loss_forms::OPS,
    matmul::OPS,
    matmul_forms::OPS,
    ngrams::OPS,
    normalize::OPS,
    normalize_forms::OPS,
    pool::OPS,
    pool_forms::OPS,
    quantize::OPS,
    quantize_products::OPS,
    recall_forms::OPS,
    recurrent::OPS,
    reduce::OPS,
    resize::OPS,
    roi_forms::OPS,
    scatter::OPS,
    sequence::OPS,
    reduce_forms::OPS,
    rotary::OPS,
    shape::OPS,
    signal_forms::OPS,
    softmax::OPS,
    top_k::OPS,
    view_forms::OPS,
    views::OPS,
];

struct Table {
    by_name: HashMap<&'static str, &'static OpDef>,
    by_onnx: HashMap<(&'static str, &'static str), Vec<(OnnxOp, &'static OpDef)>>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut table = Table {
        by_name: HashMap::new(),
        by_onnx: HashMap::new(),
    };
    for def in all() {
        let earlier = table.by_name.insert(def.name, def);
        assert!(earlier.is_none(), "op `{}` is declared twice", def.name);
        for onnx in def.onnx {
            table
                .by_onnx
                .entry((onnx.domain, onnx.name))
                .or_default()
                .push((*onnx, def));
        }
    }
    table
});
