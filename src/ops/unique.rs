//! `Unique`: the distinct elements of a tensor.

use std::cmp::Ordering;

use super::bounded::{BoundedCtx, BoundedResults, Counted};
use super::build::{FORM, int_attr, optional_attr, signed};
use super::compaction::Kept;
use super::evaluate::to_vec;
use super::shape::data_dependent;
use super::top_k::{inverse, position};
use super::{AttrKind, BoundedForm, Datum, EvalCtx, ExpandCtx, Lowering, OnnxOp, OpDef, OpError, infer};
use crate::ir::{DType, HostTensor, ValueId};

/// `Unique`: the distinct elements or slices, where they first occur and how often.
pub static UNIQUE: OpDef = OpDef {
    name: "Unique",
    onnx: &[OnnxOp::new("Unique")],
    attrs: &[optional_attr("axis", AttrKind::Int), int_attr("sorted", 1)],
    infer: data_dependent,
    eval: eval_unique,
    lower: Lowering::Bounded(BoundedForm {
        expand: expand_unique,
        exact: None,
        reason: "the number of elements `Unique` yields depends on run-time data",
    }),
    ..FORM
};

pub static OPS: &[&OpDef] = &[&UNIQUE];

/// All elements at most: sorted, each that differs from the one before it is the first of its kind.
fn expand_unique(ctx: &mut BoundedCtx<'_, '_>) -> Result<BoundedResults, OpError> {
    let x = ctx.value(0)?;
    let dims = ctx.dims_of(x);
    let is_vector = dims.len() == 1;
    if ctx.attrs.int("axis").is_some() && !is_vector {
        return Err(OpError::unsupported(
            "slices of `Unique`, in an engine: elements only",
        ));
    }
    if !ctx.counted[0].is_empty() {
        return Err(OpError::HostOnly(
            "data decides how long its operand is, and it compares all elements of that".to_owned(),
        ));
    }
    let n = dims.iter().product();
    let x = ctx.reshape(x, &[n])?;
    if n == 0 {
        let none = ctx.integers(&[0], &[]);
        return Ok(results(ctx, vec![x, none, none, none], vec![Vec::new(); 4]));
    }
    let groups = Groups::of(ctx, x, n)?;
    let Kinds {
        first,
        occurs,
        inverse,
        count,
    } = if infer::int(ctx.attrs, "sorted")? == 0 {
        groups.in_order_of_arrival(ctx, n)?
    } else {
        groups.sorted(ctx)?
    };
    let values = vec![ctx.gathered("gather", x, first, 0)?, first, inverse, occurs];
    let of_kind = vec![Counted { axis: 0, count }];
    let counted = vec![of_kind.clone(), of_kind.clone(), Vec::new(), of_kind];
    Ok(results(ctx, values, counted))
}

/// Those that are asked for.
fn results(ctx: &ExpandCtx<'_>, mut values: Vec<ValueId>, mut counted: Vec<Vec<Counted>>) -> BoundedResults {
    values.truncate(ctx.n_results);
    counted.truncate(ctx.n_results);
    BoundedResults {
        values,
        counted,
        limits: Vec::new(),
    }
}

/// Elements in order of their size, cut where they differ.
struct Groups {
    /// Which element is at each place.
    order: ValueId,
    /// At which place each group begins; their number.
    starts: Kept,
    /// How many elements each group has.
    lengths: ValueId,
    /// The number of the group that each element, in the order of the operand, is of.
    group: ValueId,
}

/// The distinct elements.
struct Kinds {
    first: ValueId,
    occurs: ValueId,
    inverse: ValueId,
    count: ValueId,
}

impl Groups {
    fn of(ctx: &mut BoundedCtx<'_, '_>, x: ValueId, n: usize) -> Result<Self, OpError> {
        // Equal elements keep their order, so that each group begins with the one that comes first.
        let place = position(ctx, x, 0, false)?;
        let order = inverse(ctx, place, 0, n)?;
        let values = ctx.gathered("gather", x, order, 0)?;
        let before = ctx.part(values, 0, 0..n - 1)?;
        let after = ctx.part(values, 0, 1..n)?;
        let same = ctx.binary("equal", before, after)?;
        let differs = ctx.plain("not", &[same])?;
        let begins = ctx.weight(HostTensor::from_slice(DType::Bool, &[1], &[1u8]));
        let begins = ctx.joined(&[begins, differs], 0)?;
        let starts = ctx.kept(begins, n)?;
        let lengths = lengths(ctx, &starts, n)?;
        let number = numbers(ctx, begins)?;
        let group = ctx.gathered("gather", number, place, 0)?;
        Ok(Groups {
            order,
            starts,
            lengths,
            group,
        })
    }

    fn sorted(self, ctx: &mut BoundedCtx<'_, '_>) -> Result<Kinds, OpError> {
        Ok(Kinds {
            first: ctx.gathered("gather", self.order, self.starts.positions, 0)?,
            occurs: self.lengths,
            inverse: self.group,
            count: self.starts.count,
        })
    }

    /// Groups in the order of their first elements.
    fn in_order_of_arrival(self, ctx: &mut BoundedCtx<'_, '_>, n: usize) -> Result<Kinds, OpError> {
        let begins = ctx.gathered("gather", self.order, self.starts.positions, 0)?;
        let first_of_own = ctx.gathered("gather", begins, self.group, 0)?;
        let positions = ctx.counted_up(0, 1, &[n])?;
        let is_first = ctx.binary("equal", first_of_own, positions)?;
        let Kept { positions, count } = ctx.kept(is_first, n)?;
        let number = numbers(ctx, is_first)?;
        let group = ctx.gathered("gather", self.group, positions, 0)?;
        Ok(Kinds {
            first: positions,
            occurs: ctx.gathered("gather", self.lengths, group, 0)?,
            inverse: ctx.gathered("gather", number, first_of_own, 0)?,
            count,
        })
    }
}

/// How many flags were set up to each place, but for one.
fn numbers(ctx: &mut ExpandCtx<'_>, flags: ValueId) -> Result<ValueId, OpError> {
    let set = ctx.cast(flags, DType::I64)?;
    let n = ctx.dims_of(flags)[0];
    let sums = ctx.running_sums(set)?;
    let sums = ctx.part(sums, 0, 0..n)?;
    ctx.with_number("sub", sums, 1.0)
}

/// From each start to the next one, or to the end.
fn lengths(ctx: &mut ExpandCtx<'_>, starts: &Kept, n: usize) -> Result<ValueId, OpError> {
    let numbers = ctx.counted_up(1, 1, &[n])?;
    let is_last = ctx.binary("greater_equal", numbers, starts.count)?;
    let end = ctx.integers(&[1], &[signed(n)]);
    let next = ctx.part(starts.positions, 0, 1..n)?;
    let next = ctx.joined(&[next, end], 0)?;
    let next = ctx.select(is_last, end, next)?;
    ctx.binary("sub", next, starts.positions)
}

/// A slice of the operand that occurs for the first time.
struct Distinct {
    first: usize,
    count: i64,
    /// What slices are compared by.
    key: Vec<f64>,
}

fn eval_unique(ctx: &EvalCtx<'_>) -> Result<Vec<Datum>, OpError> {
    let flat;
    let x = ctx.tensor(0)?;
    let (x, axis) = if let Some(axis) = ctx.attrs.int("axis") {
        (x, infer::normalize_axis(axis, x.dims().len())?)
    } else {
        flat = x.reshaped(&[x.n_elements()]);
        (&flat, 0)
    };
    let keys = slice_keys(x, axis);
    let mut distinct: Vec<Distinct> = Vec::new();
    let mut inverse: Vec<usize> = Vec::new();
    for (first, key) in keys.into_iter().enumerate() {
        let known = distinct.iter().position(|own| own.key == key);
        inverse.push(known.unwrap_or(distinct.len()));
        match known {
            Some(position) => distinct[position].count += 1,
            None => distinct.push(Distinct { first, count: 1, key }),
        }
    }
    let mut order: Vec<usize> = (0..distinct.len()).collect();
    if infer::int(ctx.attrs, "sorted")? != 0 {
        order.sort_by(|&a, &b| compare_keys(&distinct[a].key, &distinct[b].key));
    }
    let mut rank = vec![0; order.len()];
    for (place, &position) in order.iter().enumerate() {
        rank[position] = signed(place);
    }
    let sorted = || order.iter().map(|&position| &distinct[position]);
    let mut sources: Vec<Vec<Option<usize>>> = x
        .dims()
        .iter()
        .map(|&extent| (0..extent).map(Some).collect())
        .collect();
    sources[axis] = sorted().map(|own| Some(own.first)).collect();
    let list = |values: Vec<i64>| Datum::Tensor(HostTensor::from_i64(&[values.len()], &values));
    let mut results = vec![
        Datum::Tensor(super::index::pick_per_axis(x, &sources, None)),
        list(sorted().map(|own| signed(own.first)).collect()),
        list(inverse.into_iter().map(|position| rank[position]).collect()),
        list(sorted().map(|own| own.count).collect()),
    ];
    results.truncate(ctx.n_results);
    Ok(results)
}

fn compare_keys(a: &[f64], b: &[f64]) -> Ordering {
    let different = a.iter().zip(b).map(|(a, b)| a.total_cmp(b));
    different
        .into_iter()
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

/// The elements of every slice along `axis`.
fn slice_keys(x: &HostTensor, axis: usize) -> Vec<Vec<f64>> {
    let values = to_vec::<f64>(x);
    let inner: usize = x.dims()[axis + 1..].iter().product();
    let extent = x.dims()[axis];
    let mut keys = vec![Vec::new(); extent];
    for (position, value) in values.into_iter().enumerate() {
        keys[position / inner % extent].push(value);
    }
    keys
}
