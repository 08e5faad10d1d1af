//! Bytes that are floats rounded and kept within bounds: less work in one step than in several.

use crate::ir::DType;
use crate::kernel::print::expr::Printer;
use crate::kernel::print::types::float_literal;
use crate::tile::{Body, Expr, ExprId};

/// The integer nearest to `x` within bounds that are integers of a byte's kind; 0 for NaN.
struct Rounded {
    x: ExprId,
    low: f64,
    high: f64,
}

impl Printer<'_> {
    /// The text of a byte that is a float rounded and kept within bounds.
    pub(super) fn rounded(&mut self, id: ExprId) -> Option<String> {
        let arguments = self.rounded_arguments(id)?;
        let kind = self.body.dtype(id).name();
        Some(format!("rt_rounded_{kind}({arguments})"))
    }

    /// The same as the last byte of a word, whose other ones are anything.
    pub fn rounded_bits(&mut self, id: ExprId) -> Option<String> {
        let arguments = self.rounded_arguments(id)?;
        Some(format!("rt_rounded_bits({arguments})"))
    }

    /// Whether [`Printer::rounded_bits`] has an answer.
    pub fn is_rounded(&self, id: ExprId) -> bool {
        Rounded::of(self.body, id).is_some()
    }

    /// What is rounded, and its bounds.
    fn rounded_arguments(&mut self, id: ExprId) -> Option<String> {
        let Rounded { x, low, high } = Rounded::of(self.body, id)?;
        let relu = relu_below(self.body, x).filter(|_| low <= 0.0 && high >= 0.0);
        // Zero as the lower bound makes the same of negative numbers, and of NaN.
        let (x, low) = match relu {
            Some((relu, argument)) => (self.value_with(x, relu, argument), 0.0),
            None => (self.value(x), low),
        };
        let [low, high] = [low, high].map(|bound| float_literal(bound, false));
        Some(format!("{x}, {low}, {high}"))
    }
}

impl Rounded {
    fn of(body: &Body, id: ExprId) -> Option<Rounded> {
        let kind = body.dtype(id);
        let (least, greatest) = match kind {
            DType::I8 => (-128.0, 127.0),
            DType::U8 => (0.0, 255.0),
            _ => return None,
        };
        if let Some((byte, bound)) = with_constant(body, id, "max") {
            let own = Rounded::of(body, byte)?;
            // NaN is 0, which a greater bound would raise.
            return (bound <= own.high.min(0.0)).then_some(Rounded {
                low: own.low.max(bound),
                ..own
            });
        }
        let clamped = argument(body, id, "cast")?;
        let rounded = argument(body, clamped, "clamp")?;
        let x = argument(body, rounded, "round")?;
        let Expr::Map { attrs, .. } = body.expr(clamped) else {
            return None;
        };
        let bound = |name| body.attrs(*attrs).float(name);
        let (low, high) = (bound("low")?, bound("high")?);
        let is_whole = |bound: f64| bound.fract() == 0.0 && (least..=greatest).contains(&bound);
        let fits = body.dtype(x) == DType::F32 && is_whole(low) && is_whole(high);
        fits.then_some(Rounded { x, low, high })
    }
}

/// The `relu`, and its argument, that `id` is a positive multiple of.
fn relu_below(body: &Body, id: ExprId) -> Option<(ExprId, ExprId)> {
    if let Some(inner) = argument(body, id, "relu") {
        return body.dtype(id).is_float().then_some((id, inner));
    }
    // Inside a kernel these do not round.
    if let Some(inner) = argument(body, id, "cast") {
        let keeps = matches!(body.dtype(id), DType::F32 | DType::F16 | DType::BF16);
        return relu_below(body, inner).filter(|_| keeps);
    }
    let (inner, factor) = with_constant(body, id, "mul")?;
    relu_below(body, inner).filter(|_| factor > 0.0 && factor.is_finite())
}

fn argument(body: &Body, id: ExprId, name: &str) -> Option<ExprId> {
    match body.expr(id) {
        Expr::Map { op, args, .. } if *op == name => args.first().copied(),
        _ => None,
    }
}

/// What `id` combines with a constant by the commutative op `name`, and the constant.
fn with_constant(body: &Body, id: ExprId, name: &str) -> Option<(ExprId, f64)> {
    let Expr::Map { op, args, .. } = body.expr(id) else {
        return None;
    };
    let &[a, b] = args.as_slice() else {
        return None;
    };
    let constant = |id: ExprId| match body.expr(id) {
        Expr::Const(scalar) => Some(scalar.as_f64()),
        _ => None,
    };
    match (*op == name, constant(a), constant(b)) {
        (true, Some(value), None) => Some((b, value)),
        (true, None, Some(value)) => Some((a, value)),
        _ => None,
    }
}
