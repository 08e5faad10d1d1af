//! The shipped rules: they load, say why they exist, and keep what they rewrite.

use rtrt_codegen::rewrite::rule_ast::{Arrow, Numerics, Phase};
use rtrt_codegen::rewrite::rule_instance::check_instance;
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

/// Both sides of every rule over tensors are evaluated on its pinned instances.
#[test]
fn both_sides_of_every_rule_agree() {
    let set = shipped();
    let mut failures = Vec::new();
    for rule in &set.rules {
        let is_tile_rule = matches!(rule.header.phase, Phase::Lower | Phase::Fuse | Phase::View);
        if is_tile_rule || rule.arrow == Arrow::Merge {
            continue;
        }
        let place = set.place(rule.header.span);
        let name = &rule.header.name.text;
        if rule.tests.is_empty() {
            failures.push(format!("{place} `{name}` has no `test` line"));
        }
        for entries in &rule.tests {
            for seed in 0..4 {
                if let Err(error) = check_instance(rule, entries, seed) {
                    failures.push(format!("{place} `{name}`: {error}"));
                    break;
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
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
