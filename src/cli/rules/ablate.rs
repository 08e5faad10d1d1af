//! `rules ablate`: what each rule is worth in a model.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::Serialize;

use super::no_such_rule;
use crate::cli::args::RulesAblateArgs;
use crate::cli::failure::Failure;
use crate::cli::progress::Progress;
use crate::cli::{build, model, out};
use crate::ir::Graph;
use crate::kernel::Arch;
use crate::pipeline::layouts::Times;
use crate::pipeline::{self, Observer, Settings};
use crate::plan::lifetimes::Storage;
use crate::reference::Constants;
use crate::rewrite::canonicalize::{canonicalize_counting, rewrite_model_watched};
use crate::rewrite::fuse::fired_in_terms;
use crate::rewrite::rules::set::RuleSet;

/// Between tags that are left out together.
const JOINED: char = '+';

/// Kernels of a plan and the time that is predicted for them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Worth {
    kernels: usize,
    predicted_us: f64,
}

#[derive(Serialize)]
struct Report {
    model: String,
    arch: String,
    all: Worth,
    /// By falling time that is lost without them.
    without: Vec<Row>,
    /// Rules that never fire in the model, so that nothing changes without them.
    idle: usize,
}

#[derive(Serialize)]
struct Row {
    /// A rule, or tags.
    name: String,
    /// File and line of a rule.
    place: Option<String>,
    /// None where nothing can be built without it.
    without: Option<Worth>,
    /// More kernels without it than with it.
    kernels: Option<i64>,
    /// More time without it than with it.
    predicted_us: Option<f64>,
    error: Option<String>,
}

pub fn run(args: &RulesAblateArgs) -> Result<(), Failure> {
    let settings = build::settings(&args.build)?;
    let rules = RuleSet::load(&settings.rules)?;
    let names = tags(&args.tag, &rules)?;
    let arch = build::archs(&args.arch)?[0];
    let progress = Progress::new(false);
    progress.stage("import", 0);
    let graph = model::graph(&args.model)?;
    let bench = Bench {
        graph: &graph,
        arch,
        settings: &settings,
        times: Times::default(),
    };
    progress.stage("all rules", 0);
    let all = bench.worth(&[])?;
    let (names, idle) = match names {
        Some(tags) => (tags, 0),
        None => bench.fired(&rules)?,
    };
    progress.stage("leave one out", names.len());
    let n_done = AtomicUsize::new(0);
    let mut without: Vec<Row> = names
        .par_iter()
        .map(|name| {
            let parts: Vec<&str> = name.split(JOINED).collect();
            let row = row(name, all, bench.worth(&parts), &rules);
            progress.step(1 + n_done.fetch_add(1, Ordering::Relaxed), names.len());
            row
        })
        .collect();
    drop(progress);
    let loss = |row: &Row| row.predicted_us.unwrap_or(f64::INFINITY);
    without.sort_by(|a, b| loss(b).total_cmp(&loss(a)).then_with(|| a.name.cmp(&b.name)));
    let report = Report {
        model: graph.name.clone(),
        arch: crate::compile::arch_name(arch),
        all,
        without,
        idle,
    };
    if args.json {
        out::json(&report)
    } else {
        print(&report)
    }
}

/// The groups of tags asked for; none where rules are left out one by one.
fn tags(asked: &[String], rules: &RuleSet) -> Result<Option<Vec<String>>, Failure> {
    let known: BTreeSet<&str> = rules
        .headers()
        .flat_map(|header| header.tags.iter().map(String::as_str))
        .collect();
    let mut all = asked.iter().flat_map(|group| group.split(JOINED));
    match all.find(|tag| !known.contains(tag)) {
        Some(unknown) => Err(no_such_rule(unknown, rules)),
        None => Ok((!asked.is_empty()).then(|| asked.to_vec())),
    }
}

/// A model that is fused again and again.
struct Bench<'a> {
    graph: &'a Graph,
    arch: Arch,
    settings: &'a Settings,
    times: Times,
}

impl Bench<'_> {
    fn worth(&self, disabled: &[&str]) -> Result<Worth, Failure> {
        let mut settings = self.settings.clone();
        settings
            .rules
            .disabled
            .extend(disabled.iter().map(|&name| name.to_owned()));
        let core = pipeline::lower(self.graph, &settings)?;
        let fused = pipeline::regions_timed(&core, self.arch, &settings, &self.times)?;
        let options = settings.kernel_options();
        Ok(Worth {
            kernels: Storage::of(&fused).steps.len(),
            predicted_us: self.times.plan_us(&fused, self.arch, options),
        })
    }

    /// Rules that fire in the model, in file order, and how many do not.
    fn fired(&self, rules: &RuleSet) -> Result<(Vec<String>, usize), Failure> {
        let in_model = rewrite_model_watched(self.graph, rules, None).1;
        let mut fired: BTreeSet<String> = in_model.into_keys().collect();
        let core = pipeline::lower(self.graph, self.settings)?;
        let canonical = pipeline::canonical_by(&core, self.settings, &Constants::default(), |graph| {
            let (graph, counts) = canonicalize_counting(graph, rules);
            fired.extend(counts.into_keys());
            graph
        });
        fired.extend(fired_in_terms(&canonical, rules)?);
        let names = rules.headers().map(|header| header.name.text.clone());
        let (fired, idle): (Vec<String>, Vec<String>) = names.partition(|name| fired.contains(name));
        Ok((fired, idle.len()))
    }
}

#[expect(clippy::cast_possible_wrap, reason = "plans have few kernels")]
fn row(name: &str, all: Worth, without: Result<Worth, Failure>, rules: &RuleSet) -> Row {
    let place = rules.headers().find(|header| header.name.text == name);
    let (without, error) = match without {
        Ok(worth) => (Some(worth), None),
        Err(failure) => (None, Some(failure.message())),
    };
    Row {
        name: name.to_owned(),
        place: place.map(|header| rules.place(header.span)),
        kernels: without.map(|worth| worth.kernels as i64 - all.kernels as i64),
        predicted_us: without.map(|worth| worth.predicted_us - all.predicted_us),
        without,
        error,
    }
}

fn print(report: &Report) -> Result<(), Failure> {
    out::line(&format!(
        "{} on {}: {} kernels, {:.1} us predicted",
        report.model, report.arch, report.all.kernels, report.all.predicted_us
    ))?;
    out::line("without it:")?;
    let name = report.without.iter().map(|row| row.name.len()).max().unwrap_or(0);
    for row in &report.without {
        let place = row.place.as_deref().unwrap_or("tag");
        let text = match (row.kernels, row.predicted_us, &row.error) {
            (Some(kernels), Some(time), _) => format!("{kernels:+5} kernels {time:+10.2} us"),
            (_, _, error) => format!("cannot build: {}", error.as_deref().unwrap_or_default()),
        };
        out::line(&format!("  {:name$}  {text}  {place}", row.name))?;
    }
    if report.idle > 0 {
        out::line(&format!("{} other rules do not fire in this model", report.idle))?;
    }
    Ok(())
}
