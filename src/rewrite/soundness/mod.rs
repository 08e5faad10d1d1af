//! Whether a rule keeps what it rewrites: the checks behind `rules check` and `tests/rules.rs`.
//!
//! A rule is tried on its pinned instances (its `test` lines), on drawn variations of them,
//! and on request on every small one. Each instance where it fires must keep its type, must
//! give the same numbers to the extent that `numerics(..)` promises, must treat NaN and
//! infinity alike (unless the promise is for finite numbers), and must agree exactly in a
//! prime field where both sides are polynomials. Rules over tile expressions are judged by
//! what they say about tensors. Start reading at [`check`].

pub mod compare;
pub mod field;
pub mod instance;
pub mod joined;
pub mod judge;
pub mod roles;
pub mod scope;
pub mod show;
pub mod tiles;
pub mod vary;

use rayon::prelude::*;

use crate::ops::samples::Draw;
use crate::rewrite::rules::ast::{Arrow, Header, Horizontal, Rule, Span, Term, TestEntry};
use crate::rewrite::rules::error::RuleError;
use crate::rewrite::rules::set::RuleSet;
use instance::{Miss, Pair, Values};
use judge::{Fault, Judge, Judgement};
use roles::Roles;
use vary::Instance;

/// How much is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// Drawn instances on which each pinned one must be joined, where the rule fires.
    pub n_drawn: usize,
    /// Whether every small instance is tried.
    pub small_scope: bool,
}

impl Default for Effort {
    fn default() -> Self {
        Effort {
            n_drawn: 60,
            small_scope: false,
        }
    }
}

/// Draws per instance wanted: most variations do not fit the ops or the conditions.
const DRAWS_PER_INSTANCE: usize = 40;
/// Draws after the first counter-example, in search of a smaller one.
const DRAWS_TO_SHRINK: usize = 200;

/// What was tried of one rule, and what is wrong with it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub rule: String,
    pub n_pinned: usize,
    /// Drawn instances on which the rule fired.
    pub n_drawn: usize,
    /// Drawn instances on which it did not, because its right side had another type.
    pub n_other_type: usize,
    /// Instances on which both sides are equal in the field, for all functions that are no
    /// polynomials.
    pub n_field: usize,
    /// Small instances on which it fired; `None` where they were not asked for.
    pub n_small: Option<usize>,
    /// Whether these were all in scope.
    pub all_small: bool,
    /// Largest difference of the two sides seen, in units in the last place of the stored kind.
    pub drift_ulps: f64,
    /// The rule says nothing about tensors: without the words of tiles both sides are one.
    pub is_identity: bool,
    pub mistakes: Vec<RuleError>,
}

/// A rule of either kind.
#[derive(Clone, Copy)]
pub enum Subject<'a> {
    Rule(&'a Rule),
    Horizontal(&'a Horizontal),
}

impl<'a> Subject<'a> {
    /// Every rule of a set, in file order of its kind.
    pub fn all(set: &'a RuleSet) -> Vec<Subject<'a>> {
        let rules = set.rules.iter().map(Subject::Rule);
        rules
            .chain(set.horizontals.iter().map(Subject::Horizontal))
            .collect()
    }

    pub fn header(&self) -> &'a Header {
        match self {
            Subject::Rule(rule) => &rule.header,
            Subject::Horizontal(rule) => &rule.header,
        }
    }

    fn left(&self) -> &'a Term {
        match self {
            Subject::Rule(rule) => &rule.left,
            Subject::Horizontal(rule) => &rule.pattern,
        }
    }

    /// Where the right side is written.
    fn right_span(&self) -> Span {
        let span = match self {
            Subject::Rule(rule) => rule.right.span(),
            Subject::Horizontal(rule) => rule
                .bindings
                .last()
                .map_or(rule.header.span, |(_, term)| term.span()),
        };
        if span == Span::default() {
            self.header().name.span
        } else {
            span
        }
    }

    /// The pinned instances. The lines of a horizontal are the siblings of one.
    fn pinned(&self) -> Vec<Instance> {
        match self {
            Subject::Rule(rule) => rule.tests.iter().map(|line| vec![line.clone()]).collect(),
            Subject::Horizontal(rule) if rule.tests.is_empty() => Vec::new(),
            Subject::Horizontal(rule) => vec![rule.tests.clone()],
        }
    }

    fn pair(&self, instance: &[Vec<TestEntry>], values: Values, seed: u64) -> Result<Pair, Miss> {
        match self {
            Subject::Rule(rule) => instance::pair(rule, &instance[0], values, seed),
            Subject::Horizontal(rule) => joined::pair(rule, instance, values, seed),
        }
    }
}

/// Checks all of `subjects`, in parallel; reports come in their order.
pub fn check_all(subjects: &[Subject<'_>], effort: Effort, done: &(dyn Fn() + Sync)) -> Vec<Report> {
    let one = |subject: &Subject<'_>| {
        let report = check(*subject, effort);
        done();
        report
    };
    subjects.par_iter().map(one).collect()
}

/// Checks one rule; `<=>` in both directions.
pub fn check(subject: Subject<'_>, effort: Effort) -> Report {
    let name = subject.header().name.text.clone();
    let Subject::Rule(rule) = subject else {
        return Checker::new(subject, effort, name).run();
    };
    let plain = tiles::erased(rule);
    if has_tile_words(rule) && tiles::is_identity(&plain) {
        return Report {
            rule: name,
            is_identity: true,
            ..Report::default()
        };
    }
    let judged = if has_tile_words(rule) { &plain } else { rule };
    let mut report = Checker::new(Subject::Rule(judged), effort, name.clone()).run();
    if rule.arrow == Arrow::Both {
        let mut reverse = judged.clone();
        std::mem::swap(&mut reverse.left, &mut reverse.right);
        let back = Checker::new(Subject::Rule(&reverse), effort, name).run();
        report.n_drawn += back.n_drawn;
        report.n_field += back.n_field;
        report.drift_ulps = report.drift_ulps.max(back.drift_ulps);
        report.mistakes.extend(back.mistakes);
    }
    report
}

fn has_tile_words(rule: &Rule) -> bool {
    let mut found = false;
    for side in [&rule.left, &rule.right] {
        side.walk(&mut |term| {
            if let Term::Op(op) = term {
                found |= matches!(op.head, crate::rewrite::rules::ast::Head::Tile(_));
            }
        });
    }
    found
}

struct Checker<'a> {
    subject: Subject<'a>,
    effort: Effort,
    roles: Roles,
    report: Report,
    seed: u64,
    /// The smallest counter-example so far, by its elements.
    worst: Option<(usize, Fault, Instance)>,
}

impl<'a> Checker<'a> {
    fn new(subject: Subject<'a>, effort: Effort, rule: String) -> Self {
        // Each rule draws its own numbers, whichever others are checked with it.
        let seed = rule.bytes().fold(17u64, |hash, byte| {
            hash.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte)
        });
        Checker {
            roles: Roles::of(subject.left()),
            subject,
            effort,
            seed,
            report: Report {
                rule,
                ..Report::default()
            },
            worst: None,
        }
    }

    fn run(mut self) -> Report {
        let pinned = self.subject.pinned();
        if pinned.is_empty() {
            self.report.mistakes.push(no_instance(self.subject.header()));
        }
        for instance in &pinned {
            self.pinned(instance);
        }
        if self.report.mistakes.is_empty() {
            for instance in &pinned {
                self.drawn(instance);
            }
            if self.effort.small_scope {
                self.small(&pinned);
            }
            if let Some((_, fault, instance)) = self.worst.take() {
                let mistake = fault.on_drawn(self.subject.header(), self.subject.right_span(), &instance);
                self.report.mistakes.push(mistake);
            }
        }
        self.report
    }

    fn judge(&mut self, instance: &Instance) -> Judgement {
        self.seed = self.seed.wrapping_add(1);
        let subject = self.subject;
        let judge = Judge {
            header: subject.header(),
            pair: &|instance: &Instance, values, seed| subject.pair(instance, values, seed),
        };
        judge.judge(instance, self.seed)
    }

    /// A pinned instance must fire, whatever is drawn for its values.
    fn pinned(&mut self, instance: &Instance) {
        for _ in 0..4 {
            let (header, right) = (self.subject.header(), self.subject.right_span());
            match self.judge(instance) {
                Judgement::Missed(miss) => {
                    self.report.mistakes.push(missed(header, right, &miss, instance));
                    return;
                }
                Judgement::Unfit => {
                    let miss = Miss::NotBuilt("the left side cannot be evaluated".to_owned());
                    self.report.mistakes.push(missed(header, right, &miss, instance));
                    return;
                }
                Judgement::Wrong(fault) => {
                    self.report
                        .mistakes
                        .push(fault.on_pinned(header, right, instance));
                    return;
                }
                Judgement::Right(praise) => self.note(&praise),
            }
        }
        self.report.n_pinned += 1;
    }

    fn note(&mut self, praise: &judge::Praise) {
        self.report.n_field += usize::from(praise.equal_in_field);
        self.report.drift_ulps = self.report.drift_ulps.max(praise.drift_ulps);
    }

    fn drawn(&mut self, pinned: &Instance) {
        let mut draw = Draw::new(self.seed);
        let (mut n_fired, mut n_left) = (0, self.effort.n_drawn * DRAWS_PER_INSTANCE);
        while n_fired < self.effort.n_drawn && n_left > 0 {
            n_left -= 1;
            let Some(instance) = vary::varied(pinned, &self.roles, &mut draw) else {
                continue;
            };
            let had_fault = self.worst.is_some();
            n_fired += usize::from(self.try_instance(instance));
            if self.worst.is_some() && !had_fault {
                n_left = n_left.min(DRAWS_TO_SHRINK);
            }
        }
        self.report.n_drawn += n_fired;
    }

    fn small(&mut self, pinned: &[Instance]) {
        let mut n_fired = 0;
        self.report.all_small = true;
        for instance in pinned {
            let (instances, all) = scope::instances(instance, &self.roles);
            self.report.all_small &= all;
            for instance in instances {
                n_fired += usize::from(self.try_instance(instance));
            }
        }
        self.report.n_small = Some(n_fired);
    }

    /// Whether the rule fired.
    fn try_instance(&mut self, instance: Instance) -> bool {
        match self.judge(&instance) {
            Judgement::Missed(Miss::OtherType(_)) => {
                self.report.n_other_type += 1;
                false
            }
            Judgement::Missed(_) | Judgement::Unfit => false,
            Judgement::Right(praise) => {
                self.note(&praise);
                true
            }
            Judgement::Wrong(fault) => {
                let size = vary::types(&instance)
                    .map(crate::ir::TensorType::n_elements)
                    .sum();
                if self.worst.as_ref().is_none_or(|(smallest, ..)| size < *smallest) {
                    self.worst = Some((size, fault, instance));
                }
                true
            }
        }
    }
}

fn no_instance(header: &Header) -> RuleError {
    let name = &header.name;
    let message = format!(
        "rule `{}` has no `test` line, so nothing is known about it",
        name.text
    );
    RuleError::new("rules::no_instance", name.span, message, "never tried")
        .help("add a small instance of its left side, such as `test x: f32[2,3], p = [1, 0]`")
}

/// Why a rule does not fire on a pinned instance.
fn missed(header: &Header, right: Span, miss: &Miss, instance: &Instance) -> RuleError {
    let name = &header.name.text;
    let line = judge::lines(instance);
    let (code, span, message, label) = match miss {
        Miss::NotBuilt(reason) => (
            "rules::instance_not_built",
            header.name.span,
            format!("the left side of rule `{name}` cannot be built from its `test` line: {reason}"),
            "its left side".to_owned(),
        ),
        Miss::NoMatch | Miss::Unchanged => (
            "rules::does_not_fire",
            header.name.span,
            format!("rule `{name}` does not fire on its own `test` line"),
            "a condition does not hold".to_owned(),
        ),
        Miss::NoRight => (
            "rules::right_not_built",
            right,
            format!("the right side of rule `{name}` does not fit: an op does not accept its operands"),
            "cannot be built".to_owned(),
        ),
        Miss::Circular => (
            "rules::circular",
            right,
            format!("the right side of rule `{name}` reads the value that it is to replace"),
            "holds its own left side".to_owned(),
        ),
        Miss::OtherType(types) => (
            "rules::type_changed",
            right,
            format!(
                "the right side of rule `{name}` has type `{}`, the left side has `{}`",
                types.1, types.0
            ),
            format!("is `{}`", types.1),
        ),
    };
    RuleError::new(code, span, message, label).help(format!("on `test {line}`"))
}
