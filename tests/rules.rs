//! The shipped rules: they load, say why they exist, and keep what they rewrite.

use rtrt_codegen::rewrite::rules::ast::Numerics;
use rtrt_codegen::rewrite::soundness::{self, Effort, Subject};
use rtrt_codegen::rewrite::{RuleErrors, RuleOptions, RuleSet};

/// The embedded rules, and those of the folder that `RTRT_RULES` names: a rule can be tried
/// without building anew.
fn shipped() -> RuleSet {
    let options = RuleOptions {
        dir: std::env::var_os("RTRT_RULES").map(Into::into),
        ..RuleOptions::default()
    };
    match RuleSet::load(&options) {
        Ok(set) => set,
        Err(errors) => panic!("{:?}", miette::Report::new(errors)),
    }
}

#[test]
fn the_shipped_rules_load() {
    assert!(!shipped().rules.is_empty());
}

#[test]
fn every_rule_says_why_it_exists() {
    let set = shipped();
    let silent: Vec<String> = set
        .rules
        .iter()
        .map(|rule| &rule.header)
        .chain(set.horizontals.iter().map(|rule| &rule.header))
        .filter(|header| header.doc.is_empty())
        .map(|header| set.place(header.span))
        .collect();
    assert!(silent.is_empty(), "rules without `doc`: {silent:?}");
}

/// Every rule on its pinned instances and on drawn ones: types, numbers, NaN and infinity, and
/// exact equality in a prime field.
#[test]
fn every_rule_keeps_what_it_rewrites() {
    let set = shipped();
    let reports = soundness::check_all(&Subject::all(&set), Effort::default(), &|| {});
    let mistakes: Vec<_> = reports
        .iter()
        .flat_map(|report| report.mistakes.iter().cloned())
        .collect();
    let report = miette::Report::new(set.mistakes(mistakes.clone()));
    assert!(mistakes.is_empty(), "{report:?}");
    let idle: Vec<&str> = reports
        .iter()
        .filter(|report| !report.is_identity && report.n_drawn < 5)
        .map(|report| report.rule.as_str())
        .collect();
    assert!(
        idle.is_empty(),
        "rules of which hardly an instance is drawn: {idle:?}"
    );
}

#[test]
fn switches_name_rules_that_exist() {
    let mut options = RuleOptions {
        disabled: vec!["fuse_pointwize".to_owned()],
        ..RuleOptions::default()
    };
    assert!(matches!(
        RuleSet::load(&options),
        Err(RuleErrors::NoSuchRule { .. })
    ));
    options.disabled = vec!["mul_one".to_owned()];
    assert!(RuleSet::load(&options).unwrap().rule("mul_one").is_none());
}

#[test]
fn exact_numerics_leave_out_rules_that_move_results() {
    let options = RuleOptions {
        numerics: Numerics::Exact,
        ..RuleOptions::default()
    };
    let set = RuleSet::load(&options).unwrap();
    assert!(
        set.rules
            .iter()
            .all(|rule| rule.header.numerics == Numerics::Exact)
    );
    assert!(!set.rules.is_empty());
}
