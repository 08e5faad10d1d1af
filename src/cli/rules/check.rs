//! `rules check`: whether rules keep what they rewrite.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;

use super::no_such_rule;
use crate::cli::args::RulesCheckArgs;
use crate::cli::build;
use crate::cli::failure::Failure;
use crate::cli::out;
use crate::cli::progress::Progress;
use crate::pipeline::Observer;
use crate::rewrite::rules::set::{RuleOptions, RuleSet};
use crate::rewrite::soundness::{Effort, Report, Subject, check_all};

/// What was tried of one rule.
#[derive(Serialize)]
struct Row {
    rule: String,
    place: String,
    numerics: String,
    /// `test` lines.
    pinned: usize,
    /// Drawn instances on which the rule fired.
    drawn: usize,
    /// Drawn instances on which the right side had another type, so that it did not.
    other_type: usize,
    /// Instances on which both sides are equal in a prime field.
    field: usize,
    /// Small instances on which it fired, and whether these were all.
    small: Option<usize>,
    all_small: bool,
    /// Largest difference of the two sides, in units in the last place.
    drift_ulps: f64,
    /// Whether both sides are one term without the words of tiles.
    identity: bool,
    mistakes: Vec<String>,
}

pub fn run(args: &RulesCheckArgs) -> Result<(), Failure> {
    let (set, names) = loaded(args)?;
    let all = Subject::all(&set);
    let is_wanted = |subject: &Subject<'_>| names.is_empty() || names.contains(&subject.header().name.text);
    let subjects: Vec<Subject<'_>> = all.into_iter().filter(is_wanted).collect();
    let effort = Effort {
        n_drawn: args.instances,
        small_scope: args.small_scope,
    };
    let progress = Progress::new(args.json);
    progress.stage("check rules", subjects.len());
    let n_done = AtomicUsize::new(0);
    let reports = check_all(&subjects, effort, &|| {
        progress.step(1 + n_done.fetch_add(1, Ordering::Relaxed), subjects.len());
    });
    drop(progress);
    let rows: Vec<Row> = subjects
        .iter()
        .zip(&reports)
        .map(|(subject, report)| row(&set, *subject, report))
        .collect();
    if args.json {
        out::json(&rows)?;
    } else {
        print(&rows)?;
    }
    let mistakes: Vec<_> = reports.into_iter().flat_map(|report| report.mistakes).collect();
    if mistakes.is_empty() {
        Ok(())
    } else {
        Err(set.mistakes(mistakes).into())
    }
}

/// The rules, and the names of those to check: all where there are none.
fn loaded(args: &RulesCheckArgs) -> Result<(RuleSet, Vec<String>), Failure> {
    let options = RuleOptions {
        all: true,
        ..build::rule_options(&args.rules)?
    };
    let mut names = Vec::new();
    let mut file: Option<PathBuf> = None;
    for subject in &args.subjects {
        if Path::new(subject)
            .extension()
            .is_none_or(|extension| extension != "rules")
        {
            names.push(subject.clone());
        } else if file.is_some() || options.dir.is_some() {
            return Err(Failure::usage(
                "one file of rules can be checked at a time, and not together with `--rules`",
            ));
        } else {
            file = Some(subject.into());
        }
    }
    let Some(file) = file else {
        let set = RuleSet::load(&options)?;
        for name in &names {
            if !set.headers().any(|header| header.name.text == *name) {
                return Err(no_such_rule(name, &set));
            }
        }
        return Ok((set, names));
    };
    let set = RuleSet::load(&RuleOptions {
        dir: Some(file),
        ..options
    })?;
    let added = set.headers().filter(|header| set.is_added(header.span));
    names.extend(added.map(|header| header.name.text.clone()));
    Ok((set, names))
}

fn row(set: &RuleSet, subject: Subject<'_>, report: &Report) -> Row {
    Row {
        rule: report.rule.clone(),
        place: set.place(subject.header().span),
        numerics: subject.header().promise(),
        pinned: report.n_pinned,
        drawn: report.n_drawn,
        other_type: report.n_other_type,
        field: report.n_field,
        small: report.n_small,
        all_small: report.all_small,
        drift_ulps: report.drift_ulps,
        identity: report.is_identity,
        mistakes: report
            .mistakes
            .iter()
            .map(|mistake| mistake.message.clone())
            .collect(),
    }
}

fn print(rows: &[Row]) -> Result<(), Failure> {
    let name = rows.iter().map(|row| row.rule.len()).max().unwrap_or(0);
    for row in rows {
        out::line(&format!("{:name$}  {}", row.rule, summary(row)))?;
    }
    let n_wrong = rows.iter().filter(|row| !row.mistakes.is_empty()).count();
    let n_drawn: usize = rows.iter().map(|row| row.drawn).sum();
    out::line(&format!(
        "{} rules, {n_drawn} drawn instances, {n_wrong} rules with mistakes",
        rows.len()
    ))
}

fn summary(row: &Row) -> String {
    if !row.mistakes.is_empty() {
        return format!("WRONG ({})", row.numerics);
    }
    if row.identity {
        return "right: both sides are one value".to_owned();
    }
    let mut text = format!(
        "right ({}): {} pinned, {} drawn",
        row.numerics, row.pinned, row.drawn
    );
    if row.field > 0 {
        let _ = write!(text, ", {} equal in the field", row.field);
    }
    if let Some(small) = row.small {
        let _ = write!(text, ", {}{small} small", if row.all_small { "all " } else { "" });
    }
    if row.drift_ulps > 0.0 {
        let _ = write!(text, ", drift {:.1} ulp", row.drift_ulps);
    }
    text
}
