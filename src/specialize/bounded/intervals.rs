//! Arithmetic of ranges.

use crate::ir::{Attrs, DType};
use crate::ops::bounded::{Amount, Linear};
use crate::ops::reduce::extreme_of;
use crate::tile::{Extent, ReduceOp};

/// Whole numbers up to this are exact in `f64`.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl Amount {
    /// One of two.
    pub fn or(&self, other: &Amount) -> Self {
        Amount {
            low: self.low.min(other.low),
            high: self.high.max(other.high),
            nan: self.nan || other.nan,
            linear: self
                .linear
                .clone()
                .filter(|own| other.linear.as_ref() == Some(own)),
        }
    }
}

fn between(low: f64, high: f64) -> Amount {
    Amount {
        low,
        high,
        nan: false,
        linear: None,
    }
}

/// Any number of a kind.
pub(super) fn any(dtype: DType) -> Amount {
    Amount {
        nan: dtype.is_float(),
        ..between(extreme_of(dtype, false), extreme_of(dtype, true))
    }
}

/// A known float.
pub(super) fn float(value: f64) -> Amount {
    if value.is_nan() {
        return Amount {
            nan: true,
            ..between(f64::INFINITY, f64::NEG_INFINITY)
        };
    }
    exact(value)
}

/// A known number that may be whole.
pub(super) fn exact(value: f64) -> Amount {
    #[expect(clippy::cast_possible_truncation, reason = "it is whole and small")]
    let whole = (value.fract() == 0.0 && value.abs() < EXACT).then_some(value as i64);
    Amount {
        linear: whole.map(Linear::known),
        ..between(value, value)
    }
}

/// An extent as a number; infinite where it is not known.
pub(super) fn whole(extent: &Extent) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "extents are below 2^53")]
    extent.as_known().map_or(f64::INFINITY, |extent| extent as f64)
}

/// Whether a condition holds, where that is known.
pub(super) fn truth(amount: &Amount) -> Option<bool> {
    if amount.low == 0.0 && amount.high == 0.0 && !amount.nan {
        return Some(false);
    }
    (amount.low > 0.0 || amount.high < 0.0).then_some(true)
}

fn flag(known: Option<bool>) -> Amount {
    known.map_or_else(|| between(0.0, 1.0), |known| Amount::known(i64::from(known)))
}

pub(super) fn both(a: &Amount, b: &Amount) -> Amount {
    flag(match (truth(a), truth(b)) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    })
}

pub(super) fn either(a: &Amount, b: &Amount) -> Amount {
    flag(match (truth(a), truth(b)) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), Some(false)) => Some(false),
        _ => None,
    })
}

/// What a comparison says of the difference of its operands.
pub(super) fn comparison(op: &str) -> Option<fn(&Amount) -> Amount> {
    Some(match op {
        "less" => |d| compared(d, d.high < 0.0, d.low >= 0.0),
        "less_equal" => |d| compared(d, d.high <= 0.0, d.low > 0.0),
        "greater" => |d| compared(d, d.low > 0.0, d.high <= 0.0),
        "greater_equal" => |d| compared(d, d.low >= 0.0, d.high < 0.0),
        "equal" => |d| compared(d, d.low == 0.0 && d.high == 0.0, d.low > 0.0 || d.high < 0.0),
        _ => return None,
    })
}

/// What is no number compares as false.
fn compared(difference: &Amount, holds: bool, never: bool) -> Amount {
    flag(if never {
        Some(false)
    } else {
        (holds && !difference.nan).then_some(true)
    })
}

fn linear(a: &Amount, b: &Amount, combine: impl Fn(&Linear, &Linear) -> Option<Linear>) -> Option<Linear> {
    combine(a.linear.as_ref()?, b.linear.as_ref()?)
}

pub(super) fn plus(a: &Amount, b: &Amount) -> Amount {
    let (low, high) = (a.low + b.low, a.high + b.high);
    Amount {
        nan: a.nan || b.nan || opposed(a, b),
        linear: linear(a, b, |a, b| a.plus(b, 1)),
        ..limits(low, high)
    }
}

/// Whether infinite numbers of both signs may meet.
fn opposed(a: &Amount, b: &Amount) -> bool {
    let meet = |a: &Amount, b: &Amount| a.high == f64::INFINITY && b.low == f64::NEG_INFINITY;
    meet(a, b) || meet(b, a)
}

/// A range of which limits may have come out as no numbers.
fn limits(low: f64, high: f64) -> Amount {
    between(
        if low.is_nan() { f64::NEG_INFINITY } else { low },
        if high.is_nan() { f64::INFINITY } else { high },
    )
}

fn negated(a: &Amount) -> Amount {
    Amount {
        low: -a.high,
        high: -a.low,
        nan: a.nan,
        linear: a.linear.as_ref().and_then(|own| Linear::known(0).plus(own, -1)),
    }
}

pub(super) fn times(a: &Amount, b: &Amount) -> Amount {
    let corners = [a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high];
    let is_infinite = |own: &Amount| own.low.is_infinite() || own.high.is_infinite();
    let may_be_zero = |own: &Amount| own.low <= 0.0 && own.high >= 0.0;
    let known = |own: &Amount| own.as_known();
    let linear = match (known(a), known(b)) {
        (Some(factor), _) => b
            .linear
            .as_ref()
            .and_then(|own| Linear::known(0).plus(own, factor)),
        (_, Some(factor)) => a
            .linear
            .as_ref()
            .and_then(|own| Linear::known(0).plus(own, factor)),
        (None, None) => None,
    };
    let finite = corners.iter().copied().filter(|corner| !corner.is_nan());
    let has_none = corners.iter().any(|corner| corner.is_nan());
    let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), corner| {
        (low.min(corner), high.max(corner))
    });
    Amount {
        nan: a.nan || b.nan || is_infinite(a) && may_be_zero(b) || is_infinite(b) && may_be_zero(a),
        linear,
        ..if has_none {
            between(f64::NEG_INFINITY, f64::INFINITY)
        } else {
            between(low, high)
        }
    }
}

/// The quotient rounded towards minus infinity, by a positive number.
pub(super) fn floor_div(a: &Amount, divisor: i64) -> Amount {
    #[expect(clippy::cast_precision_loss, reason = "limits may be rounded")]
    let size = divisor as f64;
    Amount {
        nan: a.nan,
        linear: match a.as_known() {
            Some(known) => known.checked_div_euclid(divisor).map(Linear::known),
            None => a.linear.as_ref().and_then(|own| own.divided_by(divisor)),
        },
        ..between((a.low / size).floor(), (a.high / size).floor())
    }
}

/// What is left of a division by a positive number.
pub(super) fn floor_mod(a: &Amount, divisor: i64) -> Amount {
    #[expect(clippy::cast_precision_loss, reason = "limits may be rounded")]
    let size = divisor as f64;
    if a.low >= 0.0 && a.high < size {
        return a.clone();
    }
    match a.as_known().and_then(|known| known.checked_rem_euclid(divisor)) {
        Some(known) => Amount::known(known),
        None => between(0.0, size - 1.0),
    }
}

/// The larger of two whose difference is within limits.
pub(super) fn larger(a: &Amount, b: &Amount, low: f64, high: f64) -> Amount {
    if !a.nan && !b.nan {
        if low >= 0.0 {
            return a.clone();
        }
        if high <= 0.0 {
            return b.clone();
        }
    }
    Amount {
        nan: a.nan || b.nan,
        ..between(a.low.max(b.low), a.high.max(b.high))
    }
}

/// The smaller of two whose difference is within limits.
pub(super) fn smaller(a: &Amount, b: &Amount, low: f64, high: f64) -> Amount {
    negated(&larger(&negated(a), &negated(b), -high, -low))
}

/// `count` of the same range put together.
pub(super) fn reduced(op: ReduceOp, one: &Amount, count: i64, dtype: DType) -> Amount {
    #[expect(clippy::cast_precision_loss, reason = "limits may be rounded")]
    let n = count as f64;
    match op {
        ReduceOp::Sum => Amount {
            nan: one.nan || one.low == f64::NEG_INFINITY && one.high == f64::INFINITY,
            ..between(one.low * n, one.high * n)
        },
        ReduceOp::Max | ReduceOp::Min => Amount {
            nan: one.nan,
            ..between(one.low, one.high)
        },
        ReduceOp::And | ReduceOp::Or => flag(truth(one)),
        ReduceOp::ArgMax { .. } | ReduceOp::ArgMin { .. } => between(0.0, n - 1.0),
        ReduceOp::Prod => any(dtype),
    }
}

/// A result as its kind holds it: integers wrap, floats are rounded.
pub(super) fn settled(amount: Amount, dtype: DType) -> Amount {
    if !dtype.is_float() {
        let all = any(dtype);
        let fits = amount.low >= all.low && amount.high <= all.high && !amount.nan;
        return if fits { amount } else { all };
    }
    let digits = match dtype {
        DType::F64 => 53,
        DType::F32 => 24,
        DType::F16 => 11,
        _ => 8,
    };
    let whole = f64::from(digits).exp2();
    if amount.linear.is_some() && amount.low >= -whole && amount.high <= whole {
        return amount;
    }
    // Twice the step between neighbours. Infinite limits stay what they are.
    let step = 4.0 / whole;
    let slack = |limit: f64| {
        if limit.is_infinite() {
            0.0
        } else {
            limit.abs() * step
        }
    };
    Amount {
        low: amount.low - slack(amount.low),
        high: amount.high + slack(amount.high),
        nan: amount.nan,
        linear: None,
    }
}

impl Amount {
    fn keeping_linear(&self, change: impl Fn(f64) -> f64) -> Self {
        Amount {
            low: change(self.low),
            high: change(self.high),
            ..self.clone()
        }
    }
}

/// A scalar function of operands of kind `from`, whose result is of kind `dtype`.
pub(super) fn mapped(op: &str, attrs: &Attrs, given: &[Amount], from: DType, dtype: DType) -> Amount {
    match (op, given) {
        ("identity", [x]) => x.clone(),
        ("cast", [x]) => cast(x, from, dtype),
        ("add", [a, b]) => plus(a, b),
        ("sub", [a, b]) => subtracted(a, b),
        ("mul", [a, b]) => times(a, b),
        ("div", [a, b]) => divided(a, b, dtype),
        ("mod_floor", [a, b]) => match b.as_known() {
            Some(divisor) if divisor > 0 && !dtype.is_float() => floor_mod(a, divisor),
            _ => any(dtype),
        },
        ("mod_trunc", [a, b]) => match b.as_known() {
            Some(divisor) if divisor > 0 && !dtype.is_float() && a.low >= 0.0 => floor_mod(a, divisor),
            _ => any(dtype),
        },
        ("neg", [x]) => negated(x),
        ("abs", [x]) if x.low >= 0.0 => x.clone(),
        ("abs", [x]) => Amount {
            nan: x.nan,
            ..between(0.0, x.high.max(-x.low))
        },
        ("sign", [x]) => Amount {
            nan: x.nan,
            ..between(-1.0, 1.0)
        },
        ("floor", [x]) => x.keeping_linear(f64::floor),
        ("ceil", [x]) => x.keeping_linear(f64::ceil),
        ("round", [x]) => x.keeping_linear(f64::round_ties_even),
        ("exp", [x]) => Amount {
            nan: x.nan,
            ..between(x.low.exp(), x.high.exp())
        },
        ("clamp", [x]) => match (attrs.float("low"), attrs.float("high")) {
            (Some(low), Some(high)) if x.low >= low && x.high <= high => x.clone(),
            (Some(low), Some(high)) => Amount {
                nan: x.nan,
                ..between(x.low.max(low).min(high), x.high.min(high).max(low))
            },
            _ => any(dtype),
        },
        ("and", [a, b]) => both(a, b),
        ("or", [a, b]) => either(a, b),
        ("not", [x]) => flag(truth(x).map(|holds| !holds)),
        ("is_nan", [x]) => flag((!x.nan).then_some(false)),
        _ => any(dtype),
    }
}

fn subtracted(a: &Amount, b: &Amount) -> Amount {
    plus(a, &negated(b))
}

fn divided(a: &Amount, b: &Amount, dtype: DType) -> Amount {
    if b.low <= 0.0 && b.high >= 0.0 || b.nan {
        return any(dtype);
    }
    let exact = match (a.as_known(), b.as_known()) {
        (Some(a), Some(b)) if !dtype.is_float() => a.checked_div(b).map(Linear::known),
        (_, Some(divisor)) => a.linear.as_ref().and_then(|own| own.divided_by(divisor)),
        _ => None,
    };
    let corners = [a.low / b.low, a.low / b.high, a.high / b.low, a.high / b.high];
    if corners.iter().any(|corner| corner.is_nan()) {
        return any(dtype);
    }
    let limit = |choose: fn(f64, f64) -> f64, start: f64| {
        let limit = corners.iter().copied().fold(start, choose);
        // Integers round towards zero.
        if dtype.is_float() { limit } else { limit.trunc() }
    };
    Amount {
        nan: a.nan,
        linear: exact,
        ..between(limit(f64::min, f64::INFINITY), limit(f64::max, f64::NEG_INFINITY))
    }
}

fn cast(x: &Amount, from: DType, to: DType) -> Amount {
    if to == DType::Bool {
        return flag(if x.nan { None } else { truth(x) });
    }
    if to.is_float() || !from.is_float() {
        return x.clone();
    }
    let all = any(to);
    if x.nan || x.low < all.low || x.high > all.high {
        return all;
    }
    x.keeping_linear(f64::trunc)
}
