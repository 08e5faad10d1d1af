//! `NonMaxSuppression`: the boxes of each class that overlap no better one.

use super::bounded::{BoundedCtx, BoundedResults, Counted};
use super::build::{float_attr, int_attr, optional_attr, required_attr, signed};
use super::compaction::Kept;
use super::evaluate::{Number, one, scalar, to_vec};
use super::samples::{self, Draw};
use super::shape::data_dependent;
use super::{
    AttrKind, BoundedForm, Datum, EvalCtx, ExpandCtx, InferCtx, Lowering, OnnxOp, OpDef, OpError, Operands,
    Reach, Sample, Tolerance, infer,
};
use crate::ir::{Attr, Attrs, DType, HostTensor, TensorType, ValueId};

/// Rows of (batch, class, box), best first within a class.
pub static NON_MAX_SUPPRESSION: OpDef = OpDef {
    name: "NonMaxSuppression",
    onnx: &[OnnxOp::new("NonMaxSuppression")],
    operands: Operands::with_optional(
        &["boxes", "scores"],
        &["max_output_boxes_per_class", "iou_threshold", "score_threshold"],
    ),
    attrs: &[int_attr("center_point_box", 0)],
    infer: data_dependent,
    eval: eval_suppression,
    lower: Lowering::Bounded(BoundedForm {
        expand: expand_suppression,
        exact: None,
        reason: "the number of boxes `NonMaxSuppression` keeps depends on run-time data",
    }),
    ..super::build::FORM
};

/// For each class the positions of its best boxes, at most `extent`, best first: those that share no more
/// than `overlap` with a better one, and whose scores are above `lowest`; -1 beyond them. Boxes are two
/// corners in any order, or with `centred` a centre and a size.
pub static BEST_BOXES: OpDef = OpDef {
    name: "best_boxes",
    onnx: &[],
    operands: Operands::exactly(&["boxes", "scores"]),
    attrs: &[
        required_attr("extent", AttrKind::Int),
        float_attr("overlap", 0.0),
        optional_attr("lowest", AttrKind::Float),
        int_attr("centred", 0),
    ],
    infer: infer_best,
    eval: eval_best,
    lower: Lowering::Loop,
    samples: sample_best,
    tolerance: Tolerance::Exact,
    halves: None,
    reach: Reach::Elements,
};

/// Most boxes of an image: a block of the kernel keeps track of all.
pub const MOST_BOXES: usize = 1 << 16;

pub static OPS: &[&OpDef] = &[&NON_MAX_SUPPRESSION, &BEST_BOXES];

/// A box by its corners.
#[derive(Clone, Copy)]
struct Corners {
    low: [f32; 2],
    high: [f32; 2],
}

impl Corners {
    /// Two corners in any order, or with `centred` a centre and a size.
    fn read(values: &[f32], centred: bool) -> Self {
        let mut corners = Corners {
            low: [0.0; 2],
            high: [0.0; 2],
        };
        for axis in 0..2 {
            let (a, b) = (values[axis], values[axis + 2]);
            let (a, b) = if centred {
                (a - b / 2.0, a + b / 2.0)
            } else {
                (a, b)
            };
            (corners.low[axis], corners.high[axis]) = (a.min(b), a.max(b));
        }
        corners
    }

    fn area(self) -> f32 {
        (self.high[0] - self.low[0]) * (self.high[1] - self.low[1])
    }

    /// Whether the common part is more than `threshold` of both together.
    fn overlaps(self, other: Corners, threshold: f32) -> bool {
        let mut common = 1.0;
        for axis in 0..2 {
            let span = self.high[axis].min(other.high[axis]) - self.low[axis].max(other.low[axis]);
            if span.is_nan() || span <= 0.0 {
                return false;
            }
            common *= span;
        }
        let both = self.area() + other.area() - common;
        self.area() > 0.0 && other.area() > 0.0 && both > 0.0 && common / both > threshold
    }
}

fn first<T: Number>(ctx: &EvalCtx<'_>, n: usize) -> Result<Option<T>, OpError> {
    let operand = ctx.optional_tensor(n)?;
    Ok(operand.and_then(|operand| to_vec::<T>(operand).first().copied()))
}

/// Extents of boxes and scores.
struct Extents {
    batch: usize,
    classes: usize,
    boxes: usize,
}

impl Extents {
    fn of(boxes: &TensorType, scores: &TensorType) -> Result<Self, OpError> {
        match (&boxes.dims()[..], &scores.dims()[..]) {
            (&[batch, own, 4], &[score_batch, classes, scored]) if batch == score_batch && own == scored => {
                Ok(Extents {
                    batch,
                    classes,
                    boxes: own,
                })
            }
            _ => Err(OpError::invalid(format!(
                "boxes `{boxes}` with scores `{scores}`"
            ))),
        }
    }
}

/// What decides whether a box is kept.
struct Limits {
    most: usize,
    overlap: f32,
    lowest: Option<f32>,
    centred: bool,
}

/// For each class of each image the boxes that are kept.
fn best(boxes: &HostTensor, scores: &HostTensor, limits: &Limits) -> Result<Vec<Vec<usize>>, OpError> {
    let Extents {
        batch,
        classes,
        boxes: n_boxes,
    } = Extents::of(&boxes.ty(), &scores.ty())?;
    let corners: Vec<Corners> = to_vec::<f32>(boxes)
        .chunks(4)
        .map(|values| Corners::read(values, limits.centred))
        .collect();
    let scores = to_vec::<f32>(scores);
    let lanes = (0..batch * classes).map(|lane| {
        let scores = &scores[lane * n_boxes..][..n_boxes];
        kept(scores, &corners[lane / classes * n_boxes..][..n_boxes], limits)
    });
    Ok(lanes.collect())
}

fn eval_suppression(ctx: &EvalCtx<'_>) -> Result<Vec<Datum>, OpError> {
    let (boxes, scores) = (ctx.tensor(0)?, ctx.tensor(1)?);
    let most = first::<i64>(ctx, 2)?.and_then(|limit| usize::try_from(limit).ok());
    let limits = Limits {
        most: most.unwrap_or(0),
        overlap: first::<f32>(ctx, 3)?.unwrap_or(0.0),
        lowest: first::<f32>(ctx, 4)?,
        centred: infer::int(ctx.attrs, "center_point_box")? != 0,
    };
    let classes = Extents::of(&boxes.ty(), &scores.ty())?.classes;
    let mut rows: Vec<i64> = Vec::new();
    for (lane, kept) in best(boxes, scores, &limits)?.into_iter().enumerate() {
        for own in kept {
            rows.extend([lane / classes, lane % classes, own].map(signed));
        }
    }
    one(HostTensor::from_i64(&[rows.len() / 3, 3], &rows))
}

/// The number in operand `n`, which must be constant.
fn constant_of<T: Number>(ctx: &ExpandCtx<'_>, n: usize, name: &str) -> Result<Option<T>, OpError> {
    match ctx.constant(n) {
        Ok(data) => Ok(data.and_then(|data| to_vec::<T>(&data).first().copied())),
        Err(_) => Err(OpError::HostOnly(format!(
            "`{name}` of `NonMaxSuppression` must be a constant in an engine"
        ))),
    }
}

/// The boxes of all classes, one after the other without gaps.
fn expand_suppression(ctx: &mut BoundedCtx<'_, '_>) -> Result<BoundedResults, OpError> {
    let (boxes, scores) = (ctx.value(0)?, ctx.value(1)?);
    let Extents {
        batch,
        classes,
        boxes: n_boxes,
    } = Extents::of(&ctx.ty(0)?, &ctx.ty(1)?)?;
    let most = constant_of::<i64>(ctx, 2, "max_output_boxes_per_class")?.unwrap_or(0);
    let most = usize::try_from(most).unwrap_or(0).min(n_boxes);
    let rows = batch * classes * most;
    if rows == 0 {
        let none = ctx.integers(&[0, 3], &[]);
        return Ok(BoundedResults::one(none, Vec::new()));
    }
    let scores = present_scores(ctx, scores)?;
    let overlap = constant_of::<f32>(ctx, 3, "iou_threshold")?.unwrap_or(0.0);
    let mut attrs = Attrs::new()
        .with("extent", Attr::Int(signed(most)))
        .with("overlap", Attr::Float(f64::from(overlap)))
        .with("centred", Attr::Int(infer::int(ctx.attrs, "center_point_box")?));
    if let Some(lowest) = constant_of::<f32>(ctx, 4, "score_threshold")? {
        attrs = attrs.with("lowest", Attr::Float(f64::from(lowest)));
    }
    let best = ctx.emit(BEST_BOXES.name, &[boxes, scores], attrs)?;
    let best = ctx.reshape(best, &[rows])?;
    let zero = ctx.integers(&[], &[0]);
    let mut flags = ctx.binary("greater_equal", best, zero)?;
    for (n, axis) in [(0, 1), (1, 2)] {
        // Boxes that are not there come behind all others, and are none.
        if let Some(count) = ctx.count_along(n, axis) {
            let present = ctx.binary("less", best, count)?;
            flags = ctx.binary("and", flags, present)?;
        }
    }
    let Kept { positions, count } = ctx.kept(flags, rows)?;
    let own = ctx.gathered("gather", best, positions, 0)?;
    let columns = [
        ctx.coordinate(positions, classes * most, batch)?,
        ctx.coordinate(positions, most, classes)?,
        // Rows beyond the count name the first place, where no box may be.
        ctx.binary("max", own, zero)?,
    ];
    let columns = columns.map(|column| ctx.reshape(column, &[rows, 1]));
    let columns = columns.into_iter().collect::<Result<Vec<ValueId>, _>>()?;
    let rows = ctx.joined(&columns, 1)?;
    Ok(BoundedResults::one(rows, vec![Counted { axis: 0, count }]))
}

/// Scores, the lowest for boxes that are not there: data may decide how many boxes there are, and nothing else.
fn present_scores(ctx: &mut BoundedCtx<'_, '_>, scores: ValueId) -> Result<ValueId, OpError> {
    let of_boxes = |n: usize, axis: usize| ctx.counted[n].iter().all(|own| own.axis == axis);
    if !of_boxes(0, 1) || !of_boxes(1, 2) {
        return Err(OpError::HostOnly(
            "data decides the number of images or classes of `NonMaxSuppression`".to_owned(),
        ));
    }
    let lowest = scalar(ctx.dtype_of(scores), f64::NEG_INFINITY);
    let scores = ctx.masked(scores, 1, lowest.clone())?;
    let Some(count) = ctx.count_along(0, 1) else {
        return Ok(scores);
    };
    let n_boxes = ctx.dims_of(scores)[2];
    let present = ctx.present(n_boxes, count)?;
    let lowest = ctx.weight(lowest);
    ctx.select(present, scores, lowest)
}

fn infer_best(ctx: &InferCtx<'_>) -> Result<Vec<TensorType>, OpError> {
    ctx.expect_operands(2..=2)?;
    let extents = Extents::of(ctx.ty(0)?, ctx.ty(1)?)?;
    for n in 0..2 {
        infer::expect_kind(ctx.dtype(n)?, "floats", DType::is_float)?;
    }
    if extents.boxes > MOST_BOXES {
        return Err(OpError::unsupported(format!(
            "{} boxes of an image, in an engine: {MOST_BOXES} at most",
            extents.boxes
        )));
    }
    let most = infer::int(ctx.attrs, "extent")?;
    let most = usize::try_from(most).ok().filter(|&most| most <= extents.boxes);
    let most = most.ok_or_else(|| OpError::invalid("attribute `extent` leaves the boxes"))?;
    let dims = [extents.batch, extents.classes, most];
    Ok(vec![TensorType::new(DType::I64, &dims)])
}

fn eval_best(ctx: &EvalCtx<'_>) -> Result<Vec<Datum>, OpError> {
    let (boxes, scores) = (ctx.tensor(0)?, ctx.tensor(1)?);
    let limits = limits(ctx.attrs)?;
    let mut rows: Vec<i64> = Vec::new();
    for kept in best(boxes, scores, &limits)? {
        let missing = limits.most - kept.len();
        rows.extend(kept.into_iter().map(signed));
        rows.extend(std::iter::repeat_n(-1, missing));
    }
    let dims = [&scores.dims()[..2], &[limits.most]].concat();
    one(HostTensor::from_i64(&dims, &rows))
}

#[expect(clippy::cast_possible_truncation, reason = "attributes come from 32 bits")]
fn limits(attrs: &Attrs) -> Result<Limits, OpError> {
    Ok(Limits {
        most: usize::try_from(infer::int(attrs, "extent")?).unwrap_or(0),
        overlap: infer::float(attrs, "overlap")? as f32,
        lowest: attrs.float("lowest").map(|lowest| lowest as f32),
        centred: infer::int(attrs, "centred")? != 0,
    })
}

/// Boxes that overlap by all there is, scores that tie and some that are none.
fn sample_best(seed: u64) -> Option<Sample> {
    let mut draw = Draw::for_seed(seed)?;
    let n_boxes = [3, 60, 1, 150, 33, 40][usize::try_from(seed).ok()?];
    let (batch, classes) = (1 + draw.below(2), 1 + draw.below(3));
    let dtype = if seed == 4 { DType::F16 } else { DType::F32 };
    let boxes = draw.floats(dtype, &[batch, n_boxes, 4], 0.0, 10.0);
    let dims = [batch, classes, n_boxes];
    let scores = match seed {
        0 => draw.wild_floats(DType::F32, &dims),
        1 => draw.ints(DType::F32, &dims, -2, 2),
        _ => draw.floats(dtype, &dims, 0.0, 1.0),
    };
    let most = 1 + draw.below(n_boxes);
    let mut attrs = Attrs::new()
        .with("extent", Attr::Int(signed(most)))
        .with("overlap", Attr::Float([0.25, 0.5, 0.0][draw.below(3)]))
        .with("centred", Attr::Int(draw.int(0, 1)));
    if seed > 1 {
        attrs = attrs.with("lowest", Attr::Float(0.125));
    }
    samples::sample(vec![boxes, scores], attrs)
}

/// Boxes in the order of their scores, but for those that overlap an earlier one.
fn kept(scores: &[f32], corners: &[Corners], limits: &Limits) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len())
        .filter(|&own| limits.lowest.is_none_or(|lowest| scores[own] > lowest))
        .collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let mut kept: Vec<usize> = Vec::new();
    for own in order {
        if kept.len() >= limits.most {
            break;
        }
        if !kept
            .iter()
            .any(|&other| corners[own].overlaps(corners[other], limits.overlap))
        {
            kept.push(own);
        }
    }
    kept
}
