//! ONNX's Einsum, as transposes, matrix products and sums.
//!
//! Operands are contracted from left to right. Each keeps one label per axis; the axes that an
//! ellipsis stands for get labels of their own, counted from the right.

use super::build::{FORM, required_attr};
use super::samples::ints_attr;
use super::{AttrKind, ExpandCtx, Lowering, OnnxOp, OpDef, OpError, Operands};
use crate::ir::{Attrs, ValueId};

/// Sums of products over labelled axes, as numpy's `einsum`.
pub static EINSUM: OpDef = OpDef {
    name: "Einsum",
    onnx: &[OnnxOp::new("Einsum")],
    operands: Operands::variadic(&["x"]),
    attrs: &[required_attr("equation", AttrKind::Str)],
    lower: Lowering::Expand(einsum),
    ..FORM
};

pub static OPS: &[&OpDef] = &[&EINSUM];

/// What one axis is called. Axes of an ellipsis sort before letters, outermost first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    /// Counted from the last axis of the ellipsis, negated.
    Ellipsis(i64),
    Letter(char),
}

/// A value with a label for each axis.
#[derive(Clone)]
struct Term {
    value: ValueId,
    labels: Vec<Label>,
}

impl Term {
    fn axis(&self, label: Label) -> Option<usize> {
        self.labels.iter().position(|&own| own == label)
    }

    fn extent(&self, ctx: &ExpandCtx<'_>, label: Label) -> usize {
        self.axis(label).map_or(1, |axis| ctx.dims_of(self.value)[axis])
    }
}

fn einsum(ctx: &mut ExpandCtx<'_>) -> Result<Vec<ValueId>, OpError> {
    let equation: String = match ctx.attrs.str("equation") {
        Some(equation) => equation.chars().filter(|c| !c.is_whitespace()).collect(),
        None => return Err(OpError::invalid("attribute `equation` is missing")),
    };
    let (left, right) = match equation.split_once("->") {
        Some((left, right)) => (left, Some(right)),
        None => (equation.as_str(), None),
    };
    let written: Vec<&str> = left.split(',').collect();
    if written.len() != ctx.operands.len() {
        return Err(OpError::invalid(format!(
            "equation `{equation}` for {} operands",
            ctx.operands.len()
        )));
    }
    let mut terms = Vec::new();
    for (n, written) in written.iter().enumerate() {
        let value = ctx.value(n)?;
        let labels = labels(written, Some(ctx.dims_of(value).len()), 0)?;
        terms.push(diagonal(ctx, Term { value, labels })?);
    }
    let n_ellipsis = terms
        .iter()
        .map(|term| {
            term.labels
                .iter()
                .filter(|label| matches!(label, Label::Ellipsis(_)))
                .count()
        })
        .max()
        .unwrap_or(0);
    let output = match right {
        Some(right) => labels(right, None, n_ellipsis)?,
        None => implicit_output(left, &terms),
    };
    Ok(vec![contracted(ctx, terms, &output)?])
}

/// Labels of one operand of rank `rank`, or of the result with `n_ellipsis` axes in an ellipsis.
fn labels(written: &str, rank: Option<usize>, n_ellipsis: usize) -> Result<Vec<Label>, OpError> {
    let (before, after) = written.split_once("...").unwrap_or((written, ""));
    let letters = before.chars().count() + after.chars().count();
    let wrong = || {
        OpError::invalid(format!(
            "labels `{written}` for an operand of rank {}",
            rank.unwrap_or(0)
        ))
    };
    if before
        .chars()
        .chain(after.chars())
        .any(|letter| !letter.is_ascii_alphabetic())
    {
        return Err(OpError::invalid(format!("labels `{written}` of an einsum")));
    }
    let hidden = match rank {
        Some(rank) => rank.checked_sub(letters).ok_or_else(wrong)?,
        None => n_ellipsis,
    };
    if !written.contains("...") && rank.is_some() && hidden != 0 {
        return Err(wrong());
    }
    let hidden = if written.contains("...") { hidden } else { 0 };
    let ellipsis = (1..=i64::try_from(hidden).expect("ranks are small"))
        .rev()
        .map(|n| Label::Ellipsis(-n));
    Ok(before
        .chars()
        .map(Label::Letter)
        .chain(ellipsis)
        .chain(after.chars().map(Label::Letter))
        .collect())
}

/// Labels written once, in order; the ellipsis first.
fn implicit_output(left: &str, terms: &[Term]) -> Vec<Label> {
    let mut output: Vec<Label> = terms
        .iter()
        .flat_map(|term| term.labels.iter().copied())
        .filter(|label| match label {
            Label::Ellipsis(_) => true,
            Label::Letter(letter) => left.chars().filter(|c| c == letter).count() == 1,
        })
        .collect();
    output.sort_unstable();
    output.dedup();
    output
}

/// Takes the diagonal of axes that carry one label.
fn diagonal(ctx: &mut ExpandCtx<'_>, mut term: Term) -> Result<Term, OpError> {
    while let Some((first, second)) = repeated(&term.labels) {
        let dims = ctx.dims_of(term.value);
        let extent = dims[first];
        if dims[second] != extent {
            return Err(OpError::invalid(format!(
                "one label for axes of extents {extent} and {}",
                dims[second]
            )));
        }
        let mut order: Vec<usize> = (0..dims.len())
            .filter(|axis| ![first, second].contains(axis))
            .collect();
        let mut shape: Vec<usize> = order.iter().map(|&axis| dims[axis]).collect();
        let mut labels: Vec<Label> = order.iter().map(|&axis| term.labels[axis]).collect();
        labels.push(term.labels[first]);
        order.extend([first, second]);
        shape.push(extent * extent);
        let turned = ctx.transpose(term.value, &order)?;
        let flat = ctx.reshape(turned, &shape)?;
        // Every (extent + 1)-th element of a square matrix is on its diagonal.
        let mut steps = vec![1; shape.len()];
        steps[shape.len() - 1] = extent + 1;
        let attrs = Attrs::new()
            .with("starts", ints_attr(&vec![0; shape.len()]))
            .with("ends", ints_attr(&shape))
            .with("steps", ints_attr(&steps));
        let value = ctx.emit("slice", &[flat], attrs)?;
        term = Term { value, labels };
    }
    Ok(term)
}

fn repeated(labels: &[Label]) -> Option<(usize, usize)> {
    (0..labels.len()).find_map(|first| {
        let second = labels[first + 1..]
            .iter()
            .position(|&label| label == labels[first])?;
        Some((first, first + 1 + second))
    })
}

fn contracted(ctx: &mut ExpandCtx<'_>, terms: Vec<Term>, output: &[Label]) -> Result<ValueId, OpError> {
    let mut rest = terms.into_iter();
    let Some(mut sum) = rest.next() else {
        return Err(OpError::invalid("an einsum without operands"));
    };
    while let Some(next) = rest.next() {
        let needed: Vec<Label> = output
            .iter()
            .copied()
            .chain(
                rest.as_slice()
                    .iter()
                    .flat_map(|term| term.labels.iter().copied()),
            )
            .collect();
        sum = pair(ctx, sum, next, &needed)?;
    }
    let sum = summed(ctx, sum, output)?;
    let mut order = Vec::new();
    for &label in output {
        match sum.axis(label) {
            Some(axis) => order.push(axis),
            None => {
                return Err(OpError::invalid(format!(
                    "label {label:?} of the result is on no operand"
                )));
            }
        }
    }
    ctx.transpose(sum.value, &order)
}

/// `term` summed over the labels that are not `needed`.
fn summed(ctx: &mut ExpandCtx<'_>, term: Term, needed: &[Label]) -> Result<Term, OpError> {
    let axes: Vec<usize> = (0..term.labels.len())
        .filter(|&axis| !needed.contains(&term.labels[axis]))
        .collect();
    if axes.is_empty() {
        return Ok(term);
    }
    let sum = ctx.reduce("reduce_sum", term.value, &axes)?;
    let labels: Vec<Label> = term
        .labels
        .iter()
        .copied()
        .filter(|label| needed.contains(label))
        .collect();
    let dims: Vec<usize> = labels.iter().map(|&label| term.extent(ctx, label)).collect();
    let value = ctx.reshape(sum, &dims)?;
    Ok(Term { value, labels })
}

/// `term` without axes of extent one that broadcast to `other`.
fn without_broadcast(ctx: &mut ExpandCtx<'_>, term: &Term, other: &Term) -> Result<Term, OpError> {
    let labels: Vec<Label> = term
        .labels
        .iter()
        .copied()
        .filter(|&label| term.extent(ctx, label) != 1 || other.extent(ctx, label) == 1)
        .collect();
    let dims: Vec<usize> = labels.iter().map(|&label| term.extent(ctx, label)).collect();
    let value = ctx.reshape(term.value, &dims)?;
    Ok(Term { value, labels })
}

/// The product of two terms, summed over what neither the result nor later terms need.
fn pair(ctx: &mut ExpandCtx<'_>, a: Term, b: Term, needed: &[Label]) -> Result<Term, OpError> {
    let shrunk = without_broadcast(ctx, &a, &b)?;
    let b = without_broadcast(ctx, &b, &a)?;
    let with = |labels: &[Label]| [needed, labels].concat();
    let a = summed(ctx, shrunk, &with(&b.labels))?;
    let b = summed(ctx, b, &with(&a.labels))?;
    let shared = |label: &&Label| b.labels.contains(label);
    let batch: Vec<Label> = a
        .labels
        .iter()
        .filter(shared)
        .filter(|label| needed.contains(label))
        .copied()
        .collect();
    let inner: Vec<Label> = a
        .labels
        .iter()
        .filter(shared)
        .filter(|label| !needed.contains(label))
        .copied()
        .collect();
    let rows: Vec<Label> = a
        .labels
        .iter()
        .filter(|label| !b.labels.contains(label))
        .copied()
        .collect();
    let columns: Vec<Label> = b
        .labels
        .iter()
        .filter(|label| !a.labels.contains(label))
        .copied()
        .collect();
    for &label in batch.iter().chain(&inner) {
        if a.extent(ctx, label) != b.extent(ctx, label) {
            return Err(OpError::invalid(format!(
                "label {label:?} has extents {} and {}",
                a.extent(ctx, label),
                b.extent(ctx, label)
            )));
        }
    }
    let left = arranged(ctx, &a, [&batch, &rows, &inner])?;
    let right = arranged(ctx, &b, [&batch, &inner, &columns])?;
    // An outer product needs no sum.
    let op = if inner.is_empty() { "mul" } else { "matmul" };
    let product = ctx.binary(op, left, right)?;
    let dims: Vec<usize> = [&batch, &rows]
        .into_iter()
        .flatten()
        .map(|&label| a.extent(ctx, label))
        .chain(columns.iter().map(|&label| b.extent(ctx, label)))
        .collect();
    let value = ctx.reshape(product, &dims)?;
    let labels = [batch, rows, columns].concat();
    Ok(Term { value, labels })
}

/// `term` as a batch of matrices: `groups` are the batch, the row and the column labels.
fn arranged(ctx: &mut ExpandCtx<'_>, term: &Term, groups: [&[Label]; 3]) -> Result<ValueId, OpError> {
    let order: Vec<usize> = groups
        .concat()
        .iter()
        .filter_map(|&label| term.axis(label))
        .collect();
    let extents = |labels: &[Label]| {
        labels
            .iter()
            .map(|&label| term.extent(ctx, label))
            .collect::<Vec<usize>>()
    };
    let mut dims = extents(groups[0]);
    dims.push(extents(groups[1]).iter().product());
    dims.push(extents(groups[2]).iter().product());
    let turned = ctx.transpose(term.value, &order)?;
    ctx.reshape(turned, &dims)
}
