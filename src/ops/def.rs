//! What an op declares.

use super::{BoundedForm, ExpandFn, OpError};
use crate::ir::{Attrs, Graph, HostTensor, MAX_TENSOR_BYTES, TensorType};
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
    /// What stands for the text of a `Lowering::Map` where all that follows is rounding to 16 bits: less work, and an error
    /// that the rounding hides.
    pub halves: Option<&'static str>,
    /// What a part of the result needs of the operands.
    pub reach: Reach,
    /// How tests draw valid operands and attributes.
    pub samples: SamplesFn,
    /// How closely generated code must follow `eval`.
    pub tolerance: Tolerance,
}

impl OpDef {
    /// Result types for operand types.
    ///
    /// # Errors
    /// If operands or attributes do not fit the op, or a result is larger than [`MAX_TENSOR_BYTES`].
    pub fn result_types(&self, ctx: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
        let types = (self.infer)(ctx)?;
        match types.iter().find(|ty| ty.is_too_large()) {
            Some(ty) => Err(OpError::unsupported(format!(
                "a tensor `{ty}` of more than {MAX_TENSOR_BYTES} bytes"
            ))),
            None => Ok(types),
        }
    }

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

/// Reference meaning. ONNX forms use [`BY_EXPANSION`](super::evaluate::BY_EXPANSION): they are evaluated by
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

/// Draws cases for the property tests; `seed` counts up from zero.
pub type SamplesFn = fn(seed: u64) -> Option<Sample>;

/// One drawn use of an op: operand data and attributes that satisfy its inference.
pub struct Sample {
    pub operands: Vec<Option<HostTensor>>,
    pub attrs: Attrs,
}

/// What a slice of the result along an axis needs of the operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// What the tile functions of its elements read.
    Elements,
    /// Windows of the first operand, whose spatial axes begin with `first_space`. `strides`, `pads` and `dilations` are
    /// attributes, and the kernel's extents are the attribute `kernel_shape` or those of the second operand.
    Window { first_space: usize },
    /// As many elements of the only operand, in the same order.
    Order,
}

/// How closely a result must follow the reference; numbers per element kind are in
/// [`crate::testing::tolerance`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tolerance {
    /// The same bits, but for the sign of zero and the payload of NaN.
    Exact,
    /// A few roundings of sums and products.
    Rounded,
    /// A few units in the last place: transcendental functions, which hardware approximates.
    Close,
    /// Sums of as many products as the reduced extent says.
    Accumulated,
}
