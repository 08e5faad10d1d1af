//! The verdict on one instance.

use super::compare::{Difference, difference, nan_difference, step_difference, ulps_of};
use super::field;
use super::instance::{Miss, Pair, Values};
use super::show;
use super::vary::{Instance, types};
use crate::ir::{DType, HostTensor, TensorType};
use crate::reference;
use crate::rewrite::rules::ast::{ExprKind, Header, Numerics, Span, TestValue};
use crate::rewrite::rules::error::RuleError;

/// Instances with more elements are not evaluated in the field.
const MAX_FIELD_ELEMENTS: usize = 700;
/// Units in the last place that reordering may cost in a kind where nothing wider is at hand.
const REORDERING_ULPS: f64 = 64.0;
/// From here on a difference is no matter of rounding.
const ROUNDING_ULPS: f64 = 65536.0;

/// What is said of an instance.
pub enum Judgement {
    /// The rule does not fire there.
    Missed(Miss),
    /// The left side has no value there.
    Unfit,
    Right(Praise),
    Wrong(Fault),
}

/// What a right instance showed.
pub struct Praise {
    pub equal_in_field: bool,
    pub drift_ulps: f64,
}

/// What is wrong with a rule on an instance.
pub enum Fault {
    /// The right side cannot be evaluated.
    NoValue(String),
    /// The evaluated right side has another type than the left one.
    Type(Box<(TensorType, TensorType)>),
    /// The results differ.
    Result(Difference),
    /// The results differ in a prime field, at this element.
    Field(usize),
    /// The results differ by more than the class of the rule allows, but as rounding would; the
    /// class that would hold.
    Class(Difference, Numerics),
    /// The results differ where operands are NaN or infinite.
    Special(Difference),
}

/// Both sides of the rule on an instance.
pub type MakePair<'a> = &'a dyn Fn(&Instance, Values, u64) -> Result<Pair, Miss>;

pub struct Judge<'a> {
    pub header: &'a Header,
    pub pair: MakePair<'a>,
}

impl Judge<'_> {
    pub fn judge(&self, instance: &Instance, seed: u64) -> Judgement {
        let pair = match (self.pair)(instance, Values::Plain, seed) {
            Ok(pair) => pair,
            Err(miss) => return Judgement::Missed(miss),
        };
        let Ok(left) = reference::run(&pair.left, &pair.inputs) else {
            return Judgement::Unfit;
        };
        let right = match reference::run(&pair.right, &pair.inputs) {
            Ok(right) => right,
            Err(error) => return Judgement::Wrong(Fault::NoValue(error.to_string())),
        };
        for (left, right) in left.iter().zip(&right) {
            if left.ty() != right.ty() {
                return Judgement::Wrong(Fault::Type(Box::new((left.ty(), right.ty()))));
            }
        }
        let compare: Compare = match self.header.numerics {
            Numerics::Step => step_difference,
            Numerics::Exact | Numerics::Reassoc | Numerics::Approx(_) => difference,
        };
        let worst = worst(&left, &right, compare);
        if let Some(fault) = worst.and_then(|worst| self.numbers(instance, seed, &left, worst)) {
            return Judgement::Wrong(fault);
        }
        let equal_in_field = match in_field(&pair) {
            field::Outcome::Equal => true,
            field::Outcome::Unknown => false,
            field::Outcome::Differs { position, .. } => return Judgement::Wrong(Fault::Field(position)),
        };
        if let Some(fault) = self.special(instance, seed) {
            return Judgement::Wrong(fault);
        }
        let unit = left.iter().map(|left| ulps_of(left.dtype())).fold(1.0, f64::max);
        Judgement::Right(Praise {
            equal_in_field,
            drift_ulps: worst.map_or(0.0, |worst| worst.ulps / unit),
        })
    }

    /// Units in the last place of `f32` by which results may differ over the reals.
    fn allowed_ulps(&self) -> f64 {
        match self.header.numerics {
            Numerics::Exact => 0.0,
            // Constants are written with the digits of `f32`.
            Numerics::Reassoc | Numerics::Step => 1.0,
            Numerics::Approx(ulps) => f64::from(ulps) + 1.0,
        }
    }

    /// What is wrong with results that differ.
    fn numbers(
        &self,
        instance: &Instance,
        seed: u64,
        left: &[HostTensor],
        worst: Difference,
    ) -> Option<Fault> {
        // Over the reals, as far as `f64` is the reals.
        if !left.iter().any(|left| left.dtype().is_float()) {
            return Some(Fault::Result(worst));
        }
        let real = self.over_reals(instance, seed);
        let distance = match real {
            Reals::Equal => 0.0,
            Reals::Differ(real) => real.ulps,
            Reals::Unknown => {
                let unit = left.iter().map(|left| ulps_of(left.dtype())).fold(1.0, f64::max);
                (worst.ulps - REORDERING_ULPS * unit).max(0.0)
            }
        };
        let is_rounding = distance <= ROUNDING_ULPS;
        let is_exact = self.header.numerics == Numerics::Exact;
        if !is_exact && distance <= self.allowed_ulps() {
            return None;
        }
        let shown = match real {
            Reals::Differ(real) => real,
            Reals::Equal | Reals::Unknown => worst,
        };
        Some(match is_rounding {
            true if is_exact && distance <= 1.0 => Fault::Class(worst, Numerics::Reassoc),
            true => Fault::Class(shown, Numerics::Approx(rounded_up(distance))),
            false => Fault::Result(shown),
        })
    }

    /// The two sides computed in `f64`.
    fn over_reals(&self, instance: &Instance, seed: u64) -> Reals {
        let pair = widened(instance).and_then(|wide| (self.pair)(&wide, Values::Plain, seed).ok());
        let Some(pair) = pair else {
            return Reals::Unknown;
        };
        let run = |side| reference::run(side, &pair.inputs);
        let (Ok(left), Ok(right)) = (run(&pair.left), run(&pair.right)) else {
            return Reals::Unknown;
        };
        worst(&left, &right, difference).map_or(Reals::Equal, Reals::Differ)
    }

    /// Exact rules treat NaN and infinity alike on both sides, others keep NaN where it was.
    fn special(&self, instance: &Instance, seed: u64) -> Option<Fault> {
        if self.header.finite {
            return None;
        }
        let (values, compare): (Values, Compare) = match self.header.numerics {
            Numerics::Exact => (Values::Special, difference),
            Numerics::Reassoc | Numerics::Step | Numerics::Approx(_) => (Values::Nan, nan_difference),
        };
        let pair = (self.pair)(instance, values, seed).ok()?;
        let left = reference::run(&pair.left, &pair.inputs).ok()?;
        let right = reference::run(&pair.right, &pair.inputs).ok()?;
        let found = worst(&left, &right, compare)?;
        Some(if found.ulps.is_finite() {
            // Other numbers than before, and these round.
            Fault::Class(found, Numerics::Reassoc)
        } else {
            Fault::Special(found)
        })
    }
}

/// What the reals say of two sides, as far as `f64` is the reals.
#[derive(Clone, Copy)]
enum Reals {
    Equal,
    Differ(Difference),
    /// The instance has no form in `f64`.
    Unknown,
}

type Compare = fn(&HostTensor, &HostTensor) -> Option<Difference>;

fn worst(left: &[HostTensor], right: &[HostTensor], compare: Compare) -> Option<Difference> {
    let all = left
        .iter()
        .zip(right)
        .filter_map(|(left, right)| compare(left, right));
    all.max_by(|a, b| a.ulps.total_cmp(&b.ulps))
}

fn in_field(pair: &Pair) -> field::Outcome {
    let small = |values: &[crate::ir::Value]| {
        let sizes = values.iter().filter_map(|value| value.ty.as_ref());
        sizes.map(TensorType::n_elements).sum::<usize>() <= MAX_FIELD_ELEMENTS
    };
    if small(&pair.left.values) && small(&pair.right.values) {
        field::compare(&pair.left, &pair.right, &pair.inputs)
    } else {
        field::Outcome::Unknown
    }
}

/// The instance with `f64` for all narrower floats; `None` where it has no floats.
fn widened(instance: &Instance) -> Option<Instance> {
    if !types(instance).any(|ty| ty.dtype.is_float()) {
        return None;
    }
    let wide = |ty: &mut TensorType| {
        if ty.dtype.is_float() {
            *ty = TensorType::new(DType::F64, &ty.dims());
        }
    };
    let mut instance = instance.clone();
    for entry in instance.iter_mut().flatten() {
        match &mut entry.value {
            TestValue::Input { ty, .. } | TestValue::Constant { ty, .. } => wide(ty),
            TestValue::Inputs(types) => types.iter_mut().for_each(wide),
            TestValue::Attr(value) => {
                if matches!(value.kind, ExprKind::DType(dtype) if dtype.is_float()) {
                    value.kind = ExprKind::DType(DType::F64);
                }
            }
            TestValue::Absent | TestValue::Attrs(_) | TestValue::Op(..) => {}
        }
    }
    Some(instance)
}

/// The instance as `test` lines.
pub fn lines(instance: &Instance) -> String {
    let lines: Vec<String> = instance.iter().map(|entries| show::line(entries)).collect();
    lines.join(" test ")
}

impl Fault {
    /// As a mistake of a rule that goes wrong on its own instance.
    pub fn on_pinned(&self, header: &Header, right: Span, instance: &Instance) -> RuleError {
        let name = &header.name.text;
        let changed = format!("rule `{name}` changes the result");
        self.mistake(header, right, "rules::result_changed", &changed)
            .unwrap_or_else(|mistake| mistake)
            .help_more(&format!("seen on `test {}`", lines(instance)))
    }

    /// As a mistake of a rule that holds where it was tried, but not everywhere.
    pub fn on_drawn(&self, header: &Header, right: Span, instance: &Instance) -> RuleError {
        let name = &header.name.text;
        let changed = format!("rule `{name}` holds on its `test` lines, but not everywhere");
        let example = lines(instance);
        match self.mistake(header, right, "rules::missing_condition", &changed) {
            Ok(mistake) => mistake.help(format!(
                "`test {example}` is a counter-example: exclude it with `where`, or mend the right side"
            )),
            Err(mistake) => mistake.help_more(&format!("seen on `test {example}`")),
        }
    }

    /// `Ok` for results that are wrong, `Err` for promises that are too strong.
    fn mistake(
        &self,
        header: &Header,
        right: Span,
        code: &'static str,
        changed: &str,
    ) -> Result<RuleError, RuleError> {
        let name = &header.name;
        let label = "differs from the left side";
        match self {
            Fault::NoValue(reason) => Ok(RuleError::new(
                code,
                right,
                format!("{changed}: the right side cannot be evaluated: {reason}"),
                "has no value",
            )),
            Fault::Type(types) => Ok(RuleError::new(
                code,
                right,
                format!(
                    "{changed}: the right side evaluates to `{}`, the left one to `{}`",
                    types.1, types.0
                ),
                label,
            )),
            Fault::Result(difference) => {
                Ok(RuleError::new(code, right, format!("{changed}: {difference}"), label))
            }
            Fault::Field(position) => Ok(RuleError::new(
                code,
                right,
                format!("{changed}: element {position} is another polynomial of the operands"),
                label,
            )),
            Fault::Class(difference, weaker) => Err(RuleError::new(
                "rules::numerics_class",
                name.span,
                format!(
                    "rule `{}` promises `numerics({})`, but moves results by {} ulp: {difference}",
                    name.text,
                    header.promise(),
                    rounded_up(difference.ulps)
                ),
                "promises too much",
            )
            .help(format!("write `numerics({weaker})`"))),
            Fault::Special(difference) => Err(RuleError::new(
                "rules::special_values",
                name.span,
                format!(
                    "rule `{}` promises `numerics({})`, but not where operands are NaN or infinite: {difference}",
                    name.text,
                    header.promise()
                ),
                "promises too much",
            )
            .help(format!(
                "write `numerics({}, finite)` if the promise is for finite numbers",
                header.numerics
            ))),
        }
    }
}

/// Units in the last place as a whole number, at least one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "casts saturate"
)]
fn rounded_up(ulps: f64) -> u32 {
    ulps.ceil().max(1.0) as u32
}
