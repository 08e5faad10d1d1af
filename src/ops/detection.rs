//! `NonMaxSuppression`: the boxes of each class that overlap no better one.

use super::build::int_attr;
use super::evaluate::{one, to_vec};
use super::shape::data_dependent;
use super::{Datum, EvalCtx, Lowering, OnnxOp, OpDef, OpError, Operands, infer};
use crate::ir::HostTensor;

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
    lower: Lowering::Host("the number of boxes `NonMaxSuppression` keeps depends on run-time data"),
    ..super::build::FORM
};

pub static OPS: &[&OpDef] = &[&NON_MAX_SUPPRESSION];

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

fn first<T: super::evaluate::Number>(ctx: &EvalCtx<'_>, n: usize) -> Result<Option<T>, OpError> {
    let operand = ctx.optional_tensor(n)?;
    Ok(operand.and_then(|operand| to_vec::<T>(operand).first().copied()))
}

fn eval_suppression(ctx: &EvalCtx<'_>) -> Result<Vec<Datum>, OpError> {
    let (boxes, scores) = (ctx.tensor(0)?, ctx.tensor(1)?);
    let (&[batch, n_boxes, 4], &[score_batch, classes, n_scores]) = (boxes.dims(), scores.dims()) else {
        return Err(OpError::invalid(format!(
            "boxes `{}` with scores `{}`",
            boxes.ty(),
            scores.ty()
        )));
    };
    if batch != score_batch || n_boxes != n_scores {
        return Err(OpError::invalid(format!(
            "boxes `{}` with scores `{}`",
            boxes.ty(),
            scores.ty()
        )));
    }
    let limit = first::<i64>(ctx, 2)?.and_then(|limit| usize::try_from(limit).ok());
    let overlap = first::<f32>(ctx, 3)?.unwrap_or(0.0);
    let lowest = first::<f32>(ctx, 4)?;
    let centred = infer::int(ctx.attrs, "center_point_box")? != 0;
    let corners: Vec<Corners> = to_vec::<f32>(boxes)
        .chunks(4)
        .map(|values| Corners::read(values, centred))
        .collect();
    let scores = to_vec::<f32>(scores);
    let mut rows: Vec<i64> = Vec::new();
    for lane in 0..batch * classes {
        let scores = &scores[lane * n_boxes..][..n_boxes];
        let corners = &corners[lane / classes * n_boxes..][..n_boxes];
        for kept in kept(scores, corners, limit.unwrap_or(0), overlap, lowest) {
            rows.extend([lane / classes, lane % classes, kept].map(signed));
        }
    }
    one(HostTensor::from_i64(&[rows.len() / 3, 3], &rows))
}

fn signed(position: usize) -> i64 {
    i64::try_from(position).expect("extents fit in i64")
}

/// Boxes in the order of their scores, but for those that overlap an earlier one.
fn kept(scores: &[f32], corners: &[Corners], limit: usize, overlap: f32, lowest: Option<f32>) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len())
        .filter(|&own| lowest.is_none_or(|lowest| scores[own] > lowest))
        .collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let mut kept: Vec<usize> = Vec::new();
    for own in order {
        if kept.len() >= limit {
            break;
        }
        if !kept
            .iter()
            .any(|&other| corners[own].overlaps(corners[other], overlap))
        {
            kept.push(own);
        }
    }
    kept
}
