//! `rules`: the rewrite rules, as data to look at, check, try and measure.

mod ablate;
mod check;
mod graph;
mod try_rule;

use serde::Serialize;

use super::args::{RuleArgs, RulesArgs, RulesCommand};
use super::failure::Failure;
use super::{build, out};
use crate::rewrite::RuleErrors;
use crate::rewrite::rules::ast::{Header, Span};
use crate::rewrite::rules::error::closest;
use crate::rewrite::rules::set::RuleSet;

/// One rule as it is listed.
#[derive(Serialize)]
struct Row {
    name: String,
    /// `rule`, `horizontal` or `kernel`.
    kind: &'static str,
    /// Empty for kernels.
    phase: &'static str,
    /// Empty for kernels.
    numerics: String,
    /// File and line.
    place: String,
    doc: String,
    #[serde(skip)]
    span: Span,
}

pub fn run(args: &RulesArgs) -> Result<(), Failure> {
    match &args.command {
        RulesCommand::List(args) => list(&rows(&load(&args.rules)?), args.json),
        RulesCommand::Show(args) => show(&load(&args.rules)?, &args.name, args.json),
        RulesCommand::Check(args) => check::run(args),
        RulesCommand::Try(args) => try_rule::run(args),
        RulesCommand::Ablate(args) => ablate::run(args),
        RulesCommand::Graph(args) => graph::run(args),
    }
}

/// The rules that the arguments leave.
fn load(args: &RuleArgs) -> Result<RuleSet, Failure> {
    Ok(RuleSet::load(&build::rule_options(args)?)?)
}

/// A name that no rule, kernel or tag has.
fn no_such_rule(name: &str, set: &RuleSet) -> Failure {
    let names = set.headers().map(|header| header.name.text.as_str());
    let kernels = set.kernels.iter().map(|kernel| kernel.name.text.as_str());
    let tags = set.headers().flat_map(|header| &header.tags).map(String::as_str);
    let hint = closest(name, names.chain(kernels).chain(tags)).map(str::to_owned);
    RuleErrors::NoSuchRule {
        name: name.to_owned(),
        hint,
    }
    .into()
}

fn rows(set: &RuleSet) -> Vec<Row> {
    let of_header = |kind: &'static str, header: &Header| Row {
        name: header.name.text.clone(),
        kind,
        phase: header.phase.name(),
        numerics: header.promise(),
        place: set.place(header.span),
        doc: header.doc.clone(),
        span: header.span,
    };
    let rules = set.rules.iter().map(|rule| of_header("rule", &rule.header));
    let horizontals = set
        .horizontals
        .iter()
        .map(|rule| of_header("horizontal", &rule.header));
    let kernels = set.kernels.iter().map(|kernel| Row {
        name: kernel.name.text.clone(),
        kind: "kernel",
        phase: "",
        numerics: String::new(),
        place: set.place(kernel.span),
        doc: kernel.doc.clone(),
        span: kernel.span,
    });
    rules.chain(horizontals).chain(kernels).collect()
}

fn list(rows: &[Row], json: bool) -> Result<(), Failure> {
    if json {
        return out::json(&rows);
    }
    let width = |column: fn(&Row) -> usize| rows.iter().map(column).max().unwrap_or(0);
    let (name, place) = (width(|row| row.name.len()), width(|row| row.place.len()));
    for row in rows {
        let phase = if row.phase.is_empty() { row.kind } else { row.phase };
        out::line(&format!(
            "{:name$}  {phase:10}  {:10}  {:place$}  {}",
            row.name, row.numerics, row.place, row.doc
        ))?;
    }
    out::line(&format!("{} rules", rows.len()))
}

/// One rule as `rules show --json` prints it.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    row: &'a Row,
    text: &'a str,
}

fn show(set: &RuleSet, name: &str, json: bool) -> Result<(), Failure> {
    let rows = rows(set);
    let Some(row) = rows.iter().find(|row| row.name == name) else {
        return Err(no_such_rule(name, set));
    };
    let text = set.text(row.span);
    if json {
        return out::json(&Shown { row, text });
    }
    out::line(&format!("# rules/{}", row.place))?;
    out::line(text)
}
