//! What a rule file says, as read: blocks, patterns and expressions with their spans.
//!
//! The AST is produced by the rule parser, checked by `rule_check`, and then used twice:
//! the canonicaliser matches `~>` rules against a graph, and the e-graph side compiles the
//! others to searchers and appliers. Names are not resolved here; `rule_check` has made sure
//! that every op, attribute, condition and variable exists.

use crate::ir::{DType, TensorType};

/// Names a rule file of one [`super::set::RuleSet`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u32);

/// Bytes `start..end` of a rule file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    pub file: FileId,
    pub start: u32,
    pub end: u32,
}

impl Span {
    /// From the start of `self` to the end of `last`.
    #[must_use]
    pub fn to(self, last: Span) -> Span {
        Span {
            end: last.end.max(self.end),
            ..self
        }
    }
}

/// A word of the file and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub text: String,
    pub span: Span,
}

/// A block of a rule file.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    Ruleset(Ruleset),
    Rule(Rule),
    Horizontal(Horizontal),
    Kernel(Kernel),
}

/// When rules run. `Model` rules see the model's own operators, before shapes are bound. They,
/// `Canonical`, `Recognize`, `Algebra` and `Layout` may hold destructive (`~>`) rules; the e-graph
/// runs the others, and non-destructive `Algebra` rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    Model,
    /// Where those of `Model` did not fire.
    ModelRest,
    Canonical,
    Recognize,
    Algebra,
    Layout,
    Lower,
    Fuse,
    View,
}

impl Phase {
    /// Every phase, in the order in which they run.
    pub const ALL: [Phase; 9] = [
        Phase::Model,
        Phase::ModelRest,
        Phase::Canonical,
        Phase::Recognize,
        Phase::Algebra,
        Phase::Layout,
        Phase::Lower,
        Phase::Fuse,
        Phase::View,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Phase::Model => "model",
            Phase::ModelRest => "model_rest",
            Phase::Canonical => "canonical",
            Phase::Recognize => "recognize",
            Phase::Algebra => "algebra",
            Phase::Layout => "layout",
            Phase::Lower => "lower",
            Phase::Fuse => "fuse",
            Phase::View => "view",
        }
    }

    pub fn from_name(name: &str) -> Option<Phase> {
        Phase::ALL.into_iter().find(|phase| phase.name() == name)
    }
}

/// How far a rule may move results, from not at all. Ordered by permissiveness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Numerics {
    /// The same bits, but for the sign of zero.
    Exact,
    /// Equal over the reals; rounding differs.
    Reassoc,
    /// Equal over the reals; a quantised result may round to a neighbouring step.
    Step,
    /// Within this many units in the last place.
    Approx(u32),
}

impl std::fmt::Display for Numerics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Numerics::Exact => f.write_str("exact"),
            Numerics::Reassoc => f.write_str("reassoc"),
            Numerics::Step => f.write_str("step"),
            Numerics::Approx(ulps) => write!(f, "approx({ulps})"),
        }
    }
}

/// `ruleset cnn : algebra, default off, numerics(reassoc), tags("cnn")`: defaults for the
/// rules that follow it in its file.
#[derive(Clone, Debug, PartialEq)]
pub struct Ruleset {
    pub name: Name,
    pub phase: Option<Phase>,
    pub numerics: Option<Numerics>,
    pub finite: bool,
    pub default_on: bool,
    pub tags: Vec<String>,
}

/// What all blocks begin with.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    pub name: Name,
    pub phase: Phase,
    pub numerics: Numerics,
    /// Whether the promise is for finite numbers alone: `numerics(reassoc, finite)`.
    pub finite: bool,
    /// Why the rule pays, for people.
    pub doc: String,
    /// The whole block.
    pub span: Span,
    /// Line of the block's first word, from 1.
    pub line: u32,
    pub tags: Vec<String>,
    /// Off in a `default off` ruleset, until it is named.
    pub enabled: bool,
}

/// How the two sides of a rule are related.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrow {
    /// `=>`: add the right side and make it equal.
    Rewrite,
    /// `<=>`: both directions.
    Both,
    /// `=`: merge the two sides' classes; used for boundaries.
    Merge,
    /// `~>`: replace; the left side is gone. Only before the e-graph.
    Replace,
}

/// `rule name : phase numerics(..) { left ARROW right where .. let .. doc ".." test .. }`
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub header: Header,
    pub left: Term,
    pub arrow: Arrow,
    pub right: Term,
    /// In order; a later one may use an earlier one.
    pub lets: Vec<Let>,
    /// All must hold.
    pub conditions: Vec<Expr>,
    /// `test x: f32[2,3], c: f32[] = 0.5, p = [1, 0]`: pinned instances.
    pub tests: Vec<Vec<TestEntry>>,
}

/// What a variable of the left side stands for in a pinned instance.
#[derive(Clone, Debug, PartialEq)]
pub struct TestEntry {
    pub name: Name,
    pub value: TestValue,
}

#[derive(Clone, Debug, PartialEq)]
pub enum TestValue {
    /// `x: f32[2,3]`: an input of this type, drawn.
    Input { ty: TensorType, numbers: Numbers },
    /// `w: const f32[2,3]`: a drawn constant; `c: f32[] = 0.5` a given one.
    Constant {
        ty: TensorType,
        numbers: Numbers,
        value: Option<Expr>,
    },
    /// `xs: {f32[2], f32[3]}`: inputs of a variadic variable.
    Inputs(Vec<TensorType>),
    /// `b: none`: an absent operand.
    Absent,
    /// `p = [1, 0]`: an attribute value.
    Attr(Expr),
    /// `a = {group=2, strides=[1, 1]}`: all attributes of an op.
    Attrs(Vec<(Name, Expr)>),
    /// `f = leaky_relu{alpha=0.5}`: the op of a family.
    Op(Name, Vec<(Name, Expr)>),
}

/// Which numbers a drawn tensor of an instance holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Numbers {
    /// Any.
    #[default]
    Any,
    /// `positive f32[2,3]`: above zero.
    Positive,
    /// `causal f32[4,6]`: zero, but for the keys (inner axis) that lie after a query (the axis before it) by more
    /// than some number, which are hidden by a sum.
    Causal,
}

impl Numbers {
    /// Those with a word of their own.
    pub const NAMED: [Numbers; 2] = [Numbers::Positive, Numbers::Causal];

    /// The word in front of the type.
    pub const fn word(self) -> &'static str {
        match self {
            Numbers::Any => "",
            Numbers::Positive => "positive",
            Numbers::Causal => "causal",
        }
    }
}

/// `let p = compose(q, r)`: a name for an attribute value.
#[derive(Clone, Debug, PartialEq)]
pub struct Let {
    pub name: Name,
    pub value: Expr,
}

/// `siblings y_i = linear[s](x, w_i) where .. => big = ..; y_i = slice[..](big)`
///
/// Names ending in `_i` differ per sibling, others are shared by all. On the right, `w_i..`
/// (in an argument list) stands for all siblings' values in order, and conditions and
/// attribute expressions over `_i` names are evaluated once per sibling.
#[derive(Clone, Debug, PartialEq)]
pub struct Horizontal {
    pub header: Header,
    /// Name of the sibling's result, such as `y_i`.
    pub sibling: Name,
    pub pattern: Term,
    pub lets: Vec<Let>,
    pub conditions: Vec<Expr>,
    /// Pinned siblings: each line is one, and the first gives the shared names too.
    pub tests: Vec<Vec<TestEntry>>,
    /// Right side, in order: shared values first, the sibling's replacement last.
    pub bindings: Vec<(Name, Term)>,
}

/// `kernel gemm { template "gemm.cu.tera" accepts dot where .. limits reads = 12 }`
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    pub name: Name,
    pub template: Option<String>,
    /// Region kinds: `pointwise`, `row`, `reduce`, `dot`, `window`, `attention`, `other`.
    pub accepts: Vec<Name>,
    /// Over the names `reads`, `writes`, `nodes`, `dots`, `row_bytes`, ..
    pub conditions: Vec<Expr>,
    pub limits: Vec<(Name, i64)>,
    pub doc: String,
    pub span: Span,
    pub line: u32,
}

/// A pattern (left) or a construction (right).
#[derive(Clone, Debug, PartialEq)]
pub enum Term {
    /// `x`: any value; the same name twice is the same value.
    Var(Name),
    /// `b?`: a value or an absent operand. On the right, `b ?: 0` gives it a default.
    Optional {
        name: Name,
        default: Option<f64>,
        span: Span,
    },
    /// `x..`: all remaining operands (left); `t(x)..`: `t` for each value of a variadic
    /// variable (right), or all remaining operands match `t` and `x` collects them (left).
    Each(Box<Term>),
    /// `0.5`, or on the right `scalar(expr)`: a constant. On the left it matches a constant
    /// all of whose elements equal it; on the right it has no dims and the kind of its
    /// first sibling operand that is not a scalar.
    Scalar {
        value: Expr,
        span: Span,
    },
    Op(OpTerm),
}

/// `m@conv[group=1, a](x, w, b?)`
#[derive(Clone, Debug, PartialEq)]
pub struct OpTerm {
    /// Name of the value this term matches.
    pub label: Option<Name>,
    pub head: Head,
    pub attrs: Vec<AttrItem>,
    pub operands: Vec<Term>,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Head {
    /// An op of the table, by its name there.
    Op(Name),
    /// `map[f](..)`, `reduce[f](..)`, ..: any op of a tile kind (`map`, `view`, `index`,
    /// `reduce`, `dot`, `window`, `other`). The bare attribute name binds op and attributes;
    /// on the right it stands for the op bound on the left.
    Family { kind: Name, binding: Name },
    /// A form of the tile sort: `store`, `load`, `smap`, `sred`, `sdot`, `swin`, ..
    /// See [`TILE_FORMS`].
    Tile(Name),
}

/// Spellings of the tile sort: (name, operands are tile expressions, result is one).
pub const TILE_FORMS: &[(&str, bool, bool)] = &[
    ("store", true, false),
    ("load", false, true),
    ("smap", true, true),
    ("sred", true, true),
    ("srow", true, true),
    ("sdot", true, true),
    ("swin", true, true),
    ("sview", true, true),
    ("sindex", true, true),
    ("sother", true, true),
    ("reindex", true, true),
    ("rowval", true, true),
];

/// An entry between the brackets after an op.
#[derive(Clone, Debug, PartialEq)]
pub enum AttrItem {
    /// `axis=a` or `axis=1` (left: binds, or must equal); `perm=inverse(p)` (right: sets).
    Named { name: Name, value: Expr },
    /// `a` alone: all attributes of the op; in tile forms a mode word or a variable.
    Bare(Name),
}

/// Expressions of conditions, lets and attributes.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    pub kind: ExprKind,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ExprKind {
    Int(i64),
    Float(f64),
    Str(String),
    /// `f32`, `i64`, ..
    DType(DType),
    /// `[0, 2, 3, 1]`
    List(Vec<Expr>),
    /// A variable, or where no variable has the name a word such as `smap`.
    Name(String),
    Call {
        function: Name,
        args: Vec<Expr>,
    },
    Not(Box<Expr>),
    Negate(Box<Expr>),
    Binary {
        op: BinaryOp,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    /// `kind(t) in {smap, sdot}`
    In {
        value: Box<Expr>,
        set: Vec<Expr>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryOp {
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Add,
    Sub,
    Mul,
    Div,
    Rem,
}

impl Header {
    /// What the rule promises, as it is written: `reassoc, finite`.
    pub fn promise(&self) -> String {
        let finite = if self.finite { ", finite" } else { "" };
        format!("{}{finite}", self.numerics)
    }
}

impl Term {
    pub fn span(&self) -> Span {
        match self {
            Term::Var(name) => name.span,
            Term::Optional { span, .. } | Term::Scalar { span, .. } => *span,
            Term::Each(term) => term.span(),
            Term::Op(op) => op.span,
        }
    }

    /// Calls `visit` on this term and all below it, outermost first.
    pub fn walk<'a>(&'a self, visit: &mut impl FnMut(&'a Term)) {
        visit(self);
        match self {
            Term::Var(_) | Term::Optional { .. } | Term::Scalar { .. } => {}
            Term::Each(term) => term.walk(visit),
            Term::Op(op) => op.operands.iter().for_each(|operand| operand.walk(visit)),
        }
    }
}

impl Head {
    pub fn name(&self) -> &Name {
        match self {
            Head::Op(name) | Head::Tile(name) | Head::Family { kind: name, .. } => name,
        }
    }
}
