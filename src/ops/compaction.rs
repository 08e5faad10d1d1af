//! Elements that are kept, one after the other: what ops are made of whose results are as long as
//! data says.
//!
//! Generated code has no writes to other places. Flags are summed up along their axis, and each
//! place of the result looks for the element at which the sum passes its number.

use super::build::{axis_attr, required_attr, signed};
use super::evaluate::{one, to_vec};
use super::samples::{self, Draw};
use super::{
    AttrKind, Datum, EvalCtx, ExpandCtx, InferCtx, Lowering, OpDef, OpError, Operands, Reach, Sample,
    TileKind, Tolerance, infer,
};
use crate::ir::{Attr, Attrs, DType, HostTensor, TensorType, ValueId};
use crate::tile::{Atom, Cond, Expr, ExprId, Extent, Index, TileCtx};

/// For each of 0, 1, .., `extent - 1` the position of the first element of rising `sums` that is larger; 0
/// where none is.
pub static FIRST_ABOVE: OpDef = OpDef {
    name: "first_above",
    onnx: &[],
    operands: Operands::exactly(&["sums"]),
    attrs: &[required_attr("extent", AttrKind::Int)],
    infer: infer_first_above,
    eval: eval_first_above,
    lower: Lowering::Tile(TileKind::Index, tile_first_above),
    samples: sample_first_above,
    tolerance: Tolerance::Exact,
    halves: None,
    reach: Reach::Elements,
};

pub static OPS: &[&OpDef] = &[&FIRST_ABOVE];

/// Elements that one thread adds up: running sums are made of sums of so many.
const BLOCK: usize = 32;

/// Positions of flags that are set, and how many these are.
pub struct Kept {
    /// `i64[most]`, rising; zero beyond the count.
    pub positions: ValueId,
    /// `i64`.
    pub count: ValueId,
}

impl ExpandCtx<'_> {
    /// Where the vector `flags` is set, of which at most `most` are.
    ///
    /// # Errors
    /// If `flags` is no vector of bools.
    pub fn kept(&mut self, flags: ValueId, most: usize) -> Result<Kept, OpError> {
        if most == 0 {
            return Ok(Kept {
                positions: self.integers(&[0], &[]),
                count: self.integers(&[], &[0]),
            });
        }
        let set = self.cast(flags, DType::I64)?;
        let sums = self.running_sums(set)?;
        let last = self.dims_of(sums)[0];
        let count = self.part(sums, 0, last - 1..last)?;
        let count = self.reshape(count, &[])?;
        let attrs = Attrs::new().with("extent", Attr::Int(signed(most)));
        let positions = self.emit(FIRST_ABOVE.name, &[sums], attrs)?;
        Ok(Kept { positions, count })
    }

    /// Coordinate, along an axis of `extent` whose neighbours are `stride` apart, of elements at row-major
    /// `positions`.
    ///
    /// # Errors
    /// If `positions` are no integers.
    pub fn coordinate(
        &mut self,
        positions: ValueId,
        stride: usize,
        extent: usize,
    ) -> Result<ValueId, OpError> {
        let [stride, extent] = [stride.max(1), extent.max(1)].map(|size| self.integers(&[], &[signed(size)]));
        let passed = self.binary("div", positions, stride)?;
        self.binary("mod_floor", passed, extent)
    }

    /// Running sums of a vector, and its sum once more up to a multiple of [`BLOCK`] where it is long.
    ///
    /// # Errors
    /// If `x` is no vector of numbers.
    pub fn running_sums(&mut self, x: ValueId) -> Result<ValueId, OpError> {
        let count = self.dims_of(x)[0];
        if count <= 2 * BLOCK {
            return self.emit("cum_sum", &[x], axis_attr(0));
        }
        let n_blocks = count.div_ceil(BLOCK);
        let attrs = Attrs::new()
            .with("before", Attr::Ints(vec![0]))
            .with("after", Attr::Ints(vec![signed(n_blocks * BLOCK - count)]));
        let padded = if n_blocks * BLOCK == count {
            x
        } else {
            self.emit("pad", &[x], attrs)?
        };
        let blocks = self.reshape(padded, &[n_blocks, BLOCK])?;
        let within = self.emit("cum_sum", &[blocks], axis_attr(1))?;
        let totals = self.part(within, 1, BLOCK - 1..BLOCK)?;
        let totals = self.reshape(totals, &[n_blocks])?;
        let through = self.running_sums(totals)?;
        let through = self.part(through, 0, 0..n_blocks)?;
        let before = self.binary("sub", through, totals)?;
        let before = self.reshape(before, &[n_blocks, 1])?;
        let sums = self.binary("add", within, before)?;
        self.reshape(sums, &[n_blocks * BLOCK])
    }
}

fn infer_first_above(ctx: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
    ctx.expect_operands(1..=1)?;
    let extent = infer::int(ctx.attrs, "extent")?;
    match (ctx.dtype(0)?, ctx.dims(0)?.as_slice(), usize::try_from(extent)) {
        (DType::I64, [_], Ok(extent)) => Ok(vec![TensorType::new(DType::I64, &[extent])]),
        _ => Err(OpError::invalid(format!(
            "sums `{}` for {extent} elements",
            ctx.ty(0)?
        ))),
    }
}

fn eval_first_above(ctx: &EvalCtx<'_>) -> Result<Vec<Datum>, OpError> {
    let sums = to_vec::<i64>(ctx.tensor(0)?);
    let extent = infer::int(ctx.attrs, "extent")?;
    let found = |number: i64| match passed(&sums, number) {
        all if all == sums.len() => 0,
        position => signed(position),
    };
    let positions: Vec<i64> = (0..extent).map(found).collect();
    one(HostTensor::from_i64(&[positions.len()], &positions))
}

/// How many of `sums` are at most `number`, by the steps of the tile function: sums that do not rise, as when
/// kernels are tried on any data, have the same result.
fn passed(sums: &[i64], number: i64) -> usize {
    let mut passed = 0;
    let mut step = if sums.is_empty() {
        0
    } else {
        1 << sums.len().ilog2()
    };
    while step > 0 {
        if sums.get(passed + step - 1).is_some_and(|&sum| sum <= number) {
            passed += step;
        }
        step /= 2;
    }
    passed
}

/// A binary search: each step looks at one sum.
fn tile_first_above(ctx: &mut TileCtx<'_, '_>) -> ExprId {
    let count = ctx.operand(0).dims()[0];
    let extent = Extent::from(count);
    let number = ctx.body.add(Expr::IndexValue(ctx.at[0].clone()));
    let never = ctx.body.constant(DType::Bool, 0.0);
    let integer = |ctx: &mut TileCtx<'_, '_>, value: usize| {
        #[expect(clippy::cast_precision_loss, reason = "extents are below 2^53")]
        ctx.body.constant(DType::I64, value as f64)
    };
    // That many elements are known to be at most `number`.
    let mut passed = integer(ctx, 0);
    let mut step = if count == 0 { 0 } else { 1 << count.ilog2() };
    while step > 0 {
        let probe = Index::atom(Atom::Value(passed)).plus_known(signed(step) - 1);
        let sum = ctx.read(0, std::slice::from_ref(&probe));
        let at_most = ctx.body.map("less_equal", &[sum, number], DType::Bool);
        let conds = vec![Cond {
            index: probe,
            extent: extent.clone(),
        }];
        let at_most = ctx.body.select(conds, at_most, never);
        let size = integer(ctx, step);
        let further = ctx.body.map("add", &[passed, size], DType::I64);
        passed = ctx.body.map("where", &[at_most, further, passed], DType::I64);
        step /= 2;
    }
    let (all, zero) = (integer(ctx, count), integer(ctx, 0));
    let is_there = ctx.body.map("less", &[passed, all], DType::Bool);
    ctx.body.map("where", &[is_there, passed, zero], DType::I64)
}

fn sample_first_above(seed: u64) -> Option<Sample> {
    let mut draw = Draw::for_seed(seed)?;
    let count = [1, 7, 64, 100, 33, 2][usize::try_from(seed).ok()?];
    let mut sum = 0;
    let sums: Vec<i64> = (0..count)
        .map(|_| {
            sum += draw.int(0, 1);
            sum
        })
        .collect();
    let extent = Attr::Int(signed(1 + draw.below(count)));
    let sums = HostTensor::from_i64(&[count], &sums);
    samples::sample(vec![sums], Attrs::new().with("extent", extent))
}
