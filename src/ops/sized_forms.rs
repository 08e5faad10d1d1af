//! Forms whose sizes data decides: slices, ranges and shapes that are computed.
//!
//! Each is as large as its sizes can become. What is cut or repeated by a number that is known only on the
//! device is picked by indices that are computed there.

use super::arguments::ints_of;
use super::bounded::{BoundedCtx, BoundedResults, Counted, Size};
use super::build::signed;
use super::evaluate::{scalar, to_vec};
use super::views::AxisSlice;
use super::{OpError, infer};
use crate::ir::{DType, ValueId};

/// Most elements of what is as large as it may become.
const LARGEST: usize = 1 << 31;

fn without_limit(dims: &[usize]) -> OpError {
    OpError::HostOnly(format!(
        "its result may have the dims {dims:?}; `--bound TENSOR=N` limits the tensor that its size is computed from"
    ))
}

/// `Shape`: counts among constants.
pub fn shape(ctx: &mut BoundedCtx<'_, '_>) -> Result<BoundedResults, OpError> {
    let rank = ctx.ty(0)?.rank();
    let limited = |position: i64| {
        let from_front = if position < 0 {
            position + signed(rank)
        } else {
            position
        };
        usize::try_from(from_front.clamp(0, signed(rank))).expect("it is limited to the rank")
    };
    let start = limited(infer::int(ctx.attrs, "start")?);
    let end = ctx.attrs.int("end").map_or(rank, limited);
    let mut extents = Vec::new();
    for axis in start..end {
        let extent = ctx.extent(0, axis)?;
        extents.push(ctx.reshape(extent.value, &[1])?);
    }
    let shape = match extents[..] {
        [] => ctx.integers(&[0], &[]),
        _ => ctx.joined(&extents, 0)?,
    };
    Ok(BoundedResults::one(shape, Vec::new()))
}

/// `Size`: the product of what [`shape`] gives.
pub fn size(ctx: &mut BoundedCtx<'_, '_>) -> Result<BoundedResults, OpError> {
    let mut size = ctx.known_size(1);
    for axis in 0..ctx.ty(0)?.rank() {
        let extent = ctx.extent(0, axis)?;
        size = ctx.combined("mul", &size, &extent)?;
    }
    Ok(BoundedResults::one(size.value, Vec::new()))
}

/// What is taken of one axis.
struct Cut {
    start: Size,
    count: Size,
    step: i64,
}

impl BoundedCtx<'_, '_> {
    /// A position of an axis: negative ones count from its end, and none leaves `low..=extent + beyond`.
    fn position(&mut self, position: &Size, extent: &Size, low: i64, beyond: i64) -> Result<Size, OpError> {
        let zero = self.known_size(0);
        let from_front = if position.amount.low >= 0.0 {
            position.clone()
        } else {
            let from_end = self.combined("add", position, extent)?;
            if position.amount.high < 0.0 {
                from_end
            } else {
                let is_negative = self.binary("less", position.value, zero.value)?;
                let value = self.select(is_negative, from_end.value, position.value)?;
                self.sized(value)
            }
        };
        let (low, beyond) = (self.known_size(low), self.known_size(beyond));
        let high = self.combined("add", extent, &beyond)?;
        let raised = self.combined("max", &from_front, &low)?;
        self.combined("min", &raised, &high)
    }

    /// What a slice takes of an axis that has `extent` elements.
    fn cut(&mut self, range: &Sliced, extent: &Size) -> Result<Cut, OpError> {
        let step = range.step;
        let known = [extent, &range.start, &range.end].map(|size| size.amount.as_known());
        if let [Some(extent), Some(start), Some(end)] = known {
            let extent = usize::try_from(extent).map_err(|_| OpError::invalid("an extent is negative"))?;
            let slice = AxisSlice { start, end, step }.normalized(extent)?;
            return Ok(Cut {
                start: self.known_size(slice.start),
                count: self.known_size(signed(slice.count())),
                step: slice.step,
            });
        }
        let (low, beyond) = if step > 0 { (0, 0) } else { (-1, -1) };
        let start = self.position(&range.start, extent, low, beyond)?;
        let end = self.position(&range.end, extent, low, beyond)?;
        let span = if step > 0 {
            self.combined("sub", &end, &start)?
        } else {
            self.combined("sub", &start, &end)?
        };
        let count = self.steps(&span, step)?;
        Ok(Cut { start, count, step })
    }

    /// In how many steps a span is passed; none where it is negative.
    fn steps(&mut self, span: &Size, step: i64) -> Result<Size, OpError> {
        let zero = self.known_size(0);
        let span = self.combined("max", span, &zero)?;
        let size = i64::try_from(step.unsigned_abs()).map_err(|_| OpError::invalid("a step is too large"))?;
        if size == 1 {
            return Ok(span);
        }
        let (rest, size) = (self.known_size(size - 1), self.known_size(size));
        let rounded = self.combined("add", &span, &rest)?;
        self.combined("div", &rounded, &size)
    }

    /// The elements of one axis of `x` that `cut` takes.
    fn taken(&mut self, x: ValueId, axis: usize, cut: &Cut, most: usize) -> Result<ValueId, OpError> {
        let extent = self.dims_of(x)[axis];
        if let (Some(start), 1) = (cut.start.amount.as_known(), cut.step)
            && let Ok(start) = usize::try_from(start)
            && start + most <= extent
        {
            return self.part(x, axis, start..start + most);
        }
        let steps = self.counted_up(0, cut.step, &[most])?;
        let index = self.binary("add", steps, cut.start.value)?;
        let index = self.within(index, extent)?;
        self.gathered("gather", x, index, axis)
    }

    /// Indices beyond a count, which may leave the axis, as some that do not.
    fn within(&mut self, index: ValueId, extent: usize) -> Result<ValueId, OpError> {
        let [first, last] = [0, signed(extent) - 1].map(|end| self.integers(&[], &[end]));
        let raised = self.binary("max", index, first)?;
        self.binary("min", raised, last)
    }
}

/// `Slice` with starts or ends that are computed, or of an axis that is as long as data says.
pub fn slice(ctx: &mut BoundedCtx<'_, '_>) -> Result<BoundedResults, OpError> {
    let mut x = ctx.value(0)?;
    let dims = ctx.dims_of(x);
    let mut counted = ctx.counted.first().cloned().unwrap_or_default();
    for (axis, range) in sliced(ctx, dims.len())? {
        let extent = ctx.extent(0, axis)?;
        let cut = ctx.cut(&range, &extent)?;
        let most = ctx.most(&cut.count, "the end of the slice")?.min(dims[axis]);
        x = ctx.taken(x, axis, &cut, most)?;
        counted.retain(|own| own.axis != axis);
        counted.extend(ctx.axis_of(axis, &cut.count));
    }
    Ok(BoundedResults::one(x, counted))
}

/// What is asked of one axis.
struct Sliced {
    start: Size,
    end: Size,
    step: i64,
}

/// The axes of a slice with what is asked of them.
fn sliced(ctx: &mut BoundedCtx<'_, '_>, rank: usize) -> Result<Vec<(usize, Sliced)>, OpError> {
    let missing = |what: &str| OpError::invalid(format!("the {what} of the slice are missing"));
    let starts = ctx.sizes("starts", 1)?.ok_or_else(|| missing("starts"))?;
    let ends = ctx.sizes("ends", 2)?.ok_or_else(|| missing("ends"))?;
    let all: Vec<i64> = (0..signed(starts.len())).collect();
    let axes = ints_of(ctx, "axes", 3)?.unwrap_or(all);
    let steps = ints_of(ctx, "", 4)?.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return Err(OpError::invalid("starts, ends, axes and steps differ in length"));
    }
    if steps.contains(&0) {
        return Err(OpError::invalid("a slice has a step of zero"));
    }
    let ranges = starts.into_iter().zip(ends).zip(axes).zip(steps);
    let one = |(((start, end), axis), step)| {
        let axis = infer::normalize_axis(axis, rank)?;
        Ok((axis, Sliced { start, end, step }))
    };
    ranges.map(one).collect()
}

/// `Range` whose ends are computed.
pub fn range(ctx: &mut BoundedCtx<'_, '_>) -> Result<BoundedResults, OpError> {
    let dtype = ctx.ty(0)?.dtype;
    let delta = ctx
        .constant(2)?
        .ok_or_else(|| OpError::invalid("the step is missing"))?;
    let delta = to_vec::<f64>(&delta).first().copied().unwrap_or(0.0);
    if delta == 0.0 {
        return Err(OpError::invalid("a range has a step of zero"));
    }
    let [start, limit] = [ctx.value(0)?, ctx.value(1)?].map(|end| ctx.reshape(end, &[]));
    let start = start?;
    let count = steps_between(ctx, start, limit?, delta)?;
    let most = ctx.most(&count, "the range")?;
    infer::table_entries(&[most]).map_err(|_| without_limit(&[most]))?;
    #[expect(clippy::cast_precision_loss, reason = "counts are below 2^53")]
    let offsets = |first: f64| -> Vec<f64> { (0..most).map(|n| first + n as f64 * delta).collect() };
    let values = match ctx.graph.weight(start).map(|start| to_vec::<f64>(start)[0]) {
        Some(first) => ctx.numbers(dtype, &[most], &offsets(first)),
        None if dtype.is_float() => {
            return Err(OpError::HostOnly(
                "a range of floats must start at a constant in an engine".to_owned(),
            ));
        }
        None => {
            let offsets = ctx.numbers(dtype, &[most], &offsets(0.0));
            ctx.binary("add", offsets, start)?
        }
    };
    let counted = ctx.axis_of(0, &count);
    Ok(BoundedResults::one(values, counted))
}

/// How many steps of `delta` there are from `start` until `limit` is reached.
fn steps_between(
    ctx: &mut BoundedCtx<'_, '_>,
    start: ValueId,
    limit: ValueId,
    delta: f64,
) -> Result<Size, OpError> {
    if ctx.dtype_of(start).is_float() {
        let span = ctx.binary("sub", limit, start)?;
        let steps = ctx.with_number("div", span, delta)?;
        let steps = ctx.plain("ceil", &[steps])?;
        let steps = ctx.with_number("max", steps, 0.0)?;
        let count = ctx.cast(steps, DType::I64)?;
        return Ok(ctx.sized(count));
    }
    let [start, limit] = [ctx.cast(start, DType::I64)?, ctx.cast(limit, DType::I64)?];
    let (start, limit) = (ctx.sized(start), ctx.sized(limit));
    #[expect(clippy::cast_possible_truncation, reason = "steps of integers are integers")]
    let delta = delta as i64;
    let span = if delta > 0 {
        ctx.combined("sub", &limit, &start)?
    } else {
        ctx.combined("sub", &start, &limit)?
    };
    ctx.steps(&span, delta)
}

impl BoundedCtx<'_, '_> {
    /// An axis with its count, where that is not known.
    pub fn axis_of(&self, axis: usize, count: &Size) -> Vec<Counted> {
        match count.amount.as_known() {
            Some(_) => Vec::new(),
            None => vec![Counted {
                axis,
                count: count.value,
            }],
        }
    }

    /// The most of each size, and the axes that are not known.
    fn limited(&self, sizes: &[Size], what: &str) -> Result<(Vec<usize>, Vec<Counted>), OpError> {
        let (mut dims, mut counted) = (Vec::new(), Vec::new());
        for (axis, size) in sizes.iter().enumerate() {
            if size.amount.as_known().is_some_and(|size| size < 0) {
                return Err(OpError::invalid(format!("{what} has a negative entry")));
            }
            dims.push(self.most(size, what)?);
            counted.extend(self.axis_of(axis, size));
        }
        match infer::n_elements(&dims) {
            Some(total) if total <= LARGEST => Ok((dims, counted)),
            _ => Err(without_limit(&dims)),
        }
    }
}

/// `ConstantOfShape` with a shape that is computed.
pub fn constant_of_shape(ctx: &mut BoundedCtx<'_, '_>) -> Result<BoundedResults, OpError> {
    let sizes = ctx
        .sizes("", 0)?
        .ok_or_else(|| OpError::invalid("the shape is missing"))?;
    let (dims, counted) = ctx.limited(&sizes, "the shape")?;
    let value = ctx.attrs.tensor("value").cloned();
    let value = value.unwrap_or_else(|| scalar(DType::F32, 0.0));
    let value = ctx.weight(value.reshaped(&vec![1; dims.len()]));
    Ok(BoundedResults::one(ctx.expand(value, &dims)?, counted))
}

/// `Expand` to a shape that is computed.
pub fn expand(ctx: &mut BoundedCtx<'_, '_>) -> Result<BoundedResults, OpError> {
    let x = ctx.value(0)?;
    let dims = ctx.dims_of(x);
    let wanted = ctx
        .sizes("", 1)?
        .ok_or_else(|| OpError::invalid("the shape is missing"))?;
    let rank = dims.len().max(wanted.len());
    let mut sizes = Vec::new();
    for axis in 0..rank {
        let own = match (axis + dims.len()).checked_sub(rank) {
            Some(own) => ctx.extent(0, own)?,
            None => ctx.known_size(1),
        };
        let wanted = match (axis + wanted.len()).checked_sub(rank) {
            Some(position) => wanted[position].clone(),
            None => ctx.known_size(1),
        };
        sizes.push(repeated(own, wanted)?);
    }
    let (limits, counted) = ctx.limited(&sizes, "the shape")?;
    Ok(BoundedResults::one(ctx.expand(x, &limits)?, counted))
}

/// The extent of what is repeated from `own` to `wanted`.
fn repeated(own: Size, wanted: Size) -> Result<Size, OpError> {
    if own.amount.as_known() == Some(1)
        || own.amount.linear.is_some() && own.amount.linear == wanted.amount.linear
    {
        return Ok(wanted);
    }
    match (own.amount.as_known(), wanted.amount.as_known()) {
        // What is not known is one or the same, or the model is wrong.
        (_, Some(1)) | (Some(_), None) => Ok(own),
        (Some(own), Some(wanted)) => Err(OpError::invalid(format!(
            "an extent of {own} does not repeat to {wanted}"
        ))),
        (None, _) => Err(OpError::HostOnly(
            "two extents that data decides may differ, or one of them may be one".to_owned(),
        )),
    }
}

/// `Concat` along an axis that is as long as data says.
pub fn concat(ctx: &mut BoundedCtx<'_, '_>) -> Result<BoundedResults, OpError> {
    let axis = infer::axis(ctx.attrs, ctx.ty(0)?.rank())?;
    let operands = (0..ctx.operands.len())
        .map(|n| ctx.value(n))
        .collect::<Result<Vec<_>, _>>()?;
    let others = same_counts(ctx, axis)?;
    let joined = ctx.joined(&operands, axis)?;
    let total = ctx.dims_of(joined)[axis];
    let positions = ctx.counted_up(0, 1, &[total])?;
    let mut index = positions;
    let (mut count, mut offset) = (ctx.known_size(0), 0);
    for (n, &operand) in operands.iter().enumerate() {
        // Elements of this operand and of those behind it lie further back than they should.
        if count.amount.as_known() != Some(offset) {
            let offset = ctx.known_size(offset);
            let distance = ctx.combined("sub", &offset, &count)?;
            let shifted = ctx.binary("add", positions, distance.value)?;
            let is_here = ctx.binary("greater_equal", positions, count.value)?;
            index = ctx.select(is_here, shifted, index)?;
        }
        offset += signed(ctx.dims_of(operand)[axis]);
        let extent = ctx.extent(n, axis)?;
        count = ctx.combined("add", &count, &extent)?;
    }
    let index = ctx.within(index, total)?;
    let value = ctx.gathered("gather", joined, index, axis)?;
    let counted = [ctx.axis_of(axis, &count), others].concat();
    Ok(BoundedResults::one(value, counted))
}

/// The counts of all axes but `axis`, which must be those of every operand.
fn same_counts(ctx: &mut BoundedCtx<'_, '_>, axis: usize) -> Result<Vec<Counted>, OpError> {
    let first = ctx.other_counts(0, axis);
    for n in 1..ctx.operands.len() {
        let own = ctx.other_counts(n, axis);
        let mut same = own.len() == first.len();
        for (a, b) in own.iter().zip(&first) {
            let [x, y] = [a, b].map(|counted| ctx.amount(counted.count).linear);
            same &= a.axis == b.axis && (a.count == b.count || x.is_some() && x == y);
        }
        if !same {
            return Err(OpError::HostOnly(
                "extents that data decides may differ between operands".to_owned(),
            ));
        }
    }
    Ok(first)
}

/// `Gather` and `GatherElements` of an axis that is as long as data says: negative indices count from there.
pub fn gather(ctx: &mut BoundedCtx<'_, '_>, op: &'static str) -> Result<BoundedResults, OpError> {
    let (x, index) = (ctx.value(0)?, ctx.value(1)?);
    let rank = ctx.dims_of(x).len();
    let axis = infer::axis(ctx.attrs, rank)?;
    let extent = ctx.extent(0, axis)?;
    let index = ctx.cast(index, DType::I64)?;
    let zero = ctx.integers(&[], &[0]);
    let is_negative = ctx.binary("less", index, zero)?;
    let from_end = ctx.binary("add", index, extent.value)?;
    let from_front = ctx.select(is_negative, from_end, index)?;
    let size = ctx.dims_of(x)[axis];
    let from_front = ctx.within(from_front, size)?;
    let value = ctx.gathered(op, x, from_front, axis)?;
    let index_rank = ctx.dims_of(index).len();
    let of_index = ctx.counted[1].clone();
    if op == "gather_elements" {
        return Ok(BoundedResults::one(value, of_index));
    }
    let mut counted = ctx.other_counts(0, axis);
    for own in &mut counted {
        own.axis += if own.axis > axis { index_rank } else { 1 } - 1;
    }
    counted.extend(of_index.into_iter().map(|own| Counted {
        axis: own.axis + axis,
        ..own
    }));
    Ok(BoundedResults::one(value, counted))
}

/// The reason of forms whose sizes may be computed.
pub const COMPUTED: &str = "its size depends on run-time data";
