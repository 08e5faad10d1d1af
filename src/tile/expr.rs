//! The expression arena and the interface an operator's tile function sees.

use std::collections::HashMap;

use super::ids::{ExprId, VarId};
use super::index::{Extent, Index, Vars};
use crate::ir::{Attrs, DType, TensorType};

/// A constant; `bits` holds the value as `f64`, `i64` or `u64` bits, by the kind's family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scalar {
    pub dtype: DType,
    pub bits: u64,
}

impl Scalar {
    /// A floating-point constant, kept in `f64` until it is printed.
    pub fn float(dtype: DType, value: f64) -> Self {
        debug_assert!(dtype.is_float());
        Scalar {
            dtype,
            bits: value.to_bits(),
        }
    }

    /// An integer or boolean constant.
    pub fn int(dtype: DType, value: i64) -> Self {
        debug_assert!(!dtype.is_float());
        Scalar {
            dtype,
            bits: value.cast_unsigned(),
        }
    }

    /// `value` in the family of `dtype`: rounded towards zero for integers, `!= 0` for bool.
    pub fn of(dtype: DType, value: f64) -> Self {
        if dtype.is_float() {
            Scalar::float(dtype, value)
        } else if dtype == DType::Bool {
            Scalar::int(dtype, i64::from(value != 0.0))
        } else {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "saturating is what an integer constant wants"
            )]
            Scalar::int(dtype, value as i64)
        }
    }

    pub fn as_f64(self) -> f64 {
        if self.dtype.is_float() {
            f64::from_bits(self.bits)
        } else {
            #[expect(clippy::cast_precision_loss, reason = "callers ask for a float")]
            let value = self.bits.cast_signed() as f64;
            value
        }
    }

    pub fn as_i64(self) -> i64 {
        debug_assert!(!self.dtype.is_float());
        self.bits.cast_signed()
    }
}

/// How a reduction combines elements. `ArgMax`/`ArgMin` yield the first position of the
/// extreme, or the last one, as `i64`; they reduce over exactly one variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReduceOp {
    Sum,
    Prod,
    Max,
    Min,
    And,
    Or,
    ArgMax { last: bool },
    ArgMin { last: bool },
}

/// `0 <= index < extent`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cond {
    pub index: Index,
    pub extent: Extent,
}

/// A term for one element.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expr {
    /// The element of operand number `input` of the region at `index` (one per axis, in bounds).
    Load {
        input: u32,
        index: Vec<Index>,
        dtype: DType,
    },
    Const(Scalar),
    /// A scalar function: `op` names an op-table entry lowered as `Lowering::Map`, with the
    /// node's attributes. Floats narrower than `f32` are computed in `f32`.
    Map {
        op: &'static str,
        attrs: AttrKey,
        args: Vec<ExprId>,
        dtype: DType,
    },
    /// The value of an index, as `i64`.
    IndexValue(Index),
    /// `then` where every condition holds; `otherwise` elsewhere. `then` is not evaluated
    /// where a condition fails, so its loads may be out of bounds there.
    Select {
        conds: Vec<Cond>,
        then: ExprId,
        otherwise: ExprId,
    },
    /// `body` combined over every value of `vars`. Floats narrower than `f32` accumulate in `f32`.
    Reduce {
        op: ReduceOp,
        vars: Vec<VarId>,
        body: ExprId,
        dtype: DType,
    },
    /// The accumulator a template's main loop hands to its epilogue; element type `dtype`.
    Acc {
        slot: u8,
        dtype: DType,
    },
}

/// Number of an attribute set interned in [`Body::attrs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttrKey(pub u32);

/// An arena of hash-consed expressions over shared variables.
#[derive(Clone, Debug, Default)]
pub struct Body {
    pub vars: Vars,
    exprs: Vec<Expr>,
    known: HashMap<Expr, ExprId>,
    attrs: Vec<Attrs>,
}

impl Body {
    pub fn new() -> Self {
        Body::default()
    }

    pub fn expr(&self, id: ExprId) -> &Expr {
        &self.exprs[id.0 as usize]
    }

    pub fn attrs(&self, key: AttrKey) -> &Attrs {
        &self.attrs[key.0 as usize]
    }

    /// All expressions, operands before users.
    pub fn exprs(&self) -> impl Iterator<Item = (ExprId, &Expr)> {
        (0u32..).map(ExprId).zip(&self.exprs)
    }

    /// Adds `expr`, or finds the equal one.
    pub fn add(&mut self, expr: Expr) -> ExprId {
        if let Some(&id) = self.known.get(&expr) {
            return id;
        }
        let id = ExprId(u32::try_from(self.exprs.len()).expect("bodies have under 2^32 expressions"));
        self.exprs.push(expr.clone());
        self.known.insert(expr, id);
        id
    }

    /// Element kind an expression yields.
    pub fn dtype(&self, id: ExprId) -> DType {
        match self.expr(id) {
            Expr::Load { dtype, .. }
            | Expr::Map { dtype, .. }
            | Expr::Reduce { dtype, .. }
            | Expr::Acc { dtype, .. } => *dtype,
            Expr::Const(scalar) => scalar.dtype,
            Expr::IndexValue(_) => DType::I64,
            Expr::Select { then, .. } => self.dtype(*then),
        }
    }

    pub fn constant(&mut self, dtype: DType, value: f64) -> ExprId {
        self.add(Expr::Const(Scalar::of(dtype, value)))
    }

    pub fn intern_attrs(&mut self, attrs: &Attrs) -> AttrKey {
        let position = self.attrs.iter().position(|own| own == attrs).unwrap_or_else(|| {
            self.attrs.push(attrs.clone());
            self.attrs.len() - 1
        });
        AttrKey(u32::try_from(position).expect("bodies have under 2^32 attribute sets"))
    }

    /// A scalar function without attributes.
    pub fn map(&mut self, op: &'static str, args: &[ExprId], dtype: DType) -> ExprId {
        let attrs = self.intern_attrs(&Attrs::new());
        self.add(Expr::Map {
            op,
            attrs,
            args: args.to_vec(),
            dtype,
        })
    }

    /// `then` under `conds` that are not always true; `then` itself where all are.
    pub fn select(&mut self, conds: Vec<Cond>, then: ExprId, otherwise: ExprId) -> ExprId {
        let conds: Vec<Cond> = conds
            .into_iter()
            .filter(|cond| !cond.index.is_within(&cond.extent, &self.vars))
            .collect();
        if conds.is_empty() {
            return then;
        }
        self.add(Expr::Select {
            conds,
            then,
            otherwise,
        })
    }
}

/// Reads operand `n` at coordinates: a load, or the operand's own expression when it is fused.
pub type ReadFn<'a> = dyn FnMut(&mut Body, usize, &[Index]) -> ExprId + 'a;

/// What a tile function is given.
pub struct TileCtx<'a, 'r> {
    pub attrs: &'a Attrs,
    /// Types of the operands, absent ones as `None`. All dims are known.
    pub operands: &'a [Option<TensorType>],
    /// Type of the result that is asked for.
    pub result: &'a TensorType,
    /// Which result is asked for.
    pub result_index: usize,
    /// Coordinates of the wanted element, one per axis of the result.
    pub at: &'a [Index],
    pub body: &'a mut Body,
    pub read: &'r mut ReadFn<'r>,
}

impl TileCtx<'_, '_> {
    /// The expression of operand `n` at `coordinates` (one per axis of that operand).
    pub fn read(&mut self, n: usize, coordinates: &[Index]) -> ExprId {
        (self.read)(self.body, n, coordinates)
    }

    /// A reduction over fresh variables of `extents`; `make` builds the reduced term.
    pub fn reduce(
        &mut self,
        op: ReduceOp,
        extents: &[Extent],
        dtype: DType,
        make: impl FnOnce(&mut Self, &[Index]) -> ExprId,
    ) -> ExprId {
        let vars: Vec<VarId> = extents
            .iter()
            .map(|extent| self.body.vars.fresh(extent.clone()))
            .collect();
        let indices: Vec<Index> = vars.iter().copied().map(Index::var).collect();
        let body = make(self, &indices);
        self.body.add(Expr::Reduce {
            op,
            vars,
            body,
            dtype,
        })
    }

    /// Type of operand `n`.
    ///
    /// # Panics
    /// If the operand is absent.
    pub fn operand(&self, n: usize) -> &TensorType {
        self.operands[n]
            .as_ref()
            .expect("infer() checked that the operand is present")
    }

    /// Dims of operand `n`, as extents.
    pub fn extents(&self, n: usize) -> Vec<Extent> {
        self.operand(n).dims().into_iter().map(Extent::from).collect()
    }

    /// Reads operand `n` at the output coordinates, broadcast as ONNX does: trailing axes
    /// align, extents of one repeat.
    pub fn read_broadcast(&mut self, n: usize) -> ExprId {
        let dims = self.operand(n).dims();
        let skipped = self.at.len() - dims.len();
        let coordinates: Vec<Index> = dims
            .iter()
            .zip(&self.at[skipped..])
            .map(|(&extent, index)| if extent == 1 { Index::zero() } else { index.clone() })
            .collect();
        self.read(n, &coordinates)
    }
}

/// The meaning of an operator for one output element.
pub type TileFn = fn(&mut TileCtx<'_, '_>) -> ExprId;
