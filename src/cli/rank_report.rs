//! `inspect MODEL --timingCacheFile FILE`: how well the times of a model's kernels are predicted.

use std::path::Path;

use serde::Serialize;

use super::args::InspectArgs;
use super::failure::Failure;
use super::out;
use super::precision::Decided;
use crate::kernel::Arch;
use crate::pipeline;
use crate::tune::{Ranked, RankedVariant};

#[derive(Serialize)]
struct RankReport {
    n_problems: usize,
    /// Time of the variant predicted fastest over the fastest one's: of all problems, the middle and the worst.
    first: [f64; 2],
    /// The same of the best of the eight predicted fastest.
    tried: [f64; 2],
    /// Time of all launches with the variants predicted fastest, and with the fastest.
    launches_us: [f64; 2],
    problems: Vec<ProblemReport>,
}

#[derive(Serialize)]
struct ProblemReport {
    ops: String,
    n_launches: usize,
    first: f64,
    tried: f64,
    variants: Vec<VariantReport>,
}

#[derive(Serialize)]
struct VariantReport {
    name: String,
    place: usize,
    predicted_us: f64,
    measured_us: f64,
}

/// Of the model that `args` name, built as `decided`.
pub fn run(args: &InspectArgs, decided: &Decided, arch: Arch, timings: &Path) -> Result<(), Failure> {
    let core = pipeline::lower(&decided.graph, &decided.settings)?;
    let ranked = pipeline::rank(&core, arch, &decided.settings, timings)?;
    if ranked.is_empty() {
        return Err(Failure::failed(format!(
            "`{}` holds no two times of one kernel of `{}`; `compile --tune --timingCacheFile` makes them, with the \
             same shapes and precision",
            timings.display(),
            args.file.display()
        )));
    }
    let report = report(&ranked);
    if args.json {
        out::json(&report)
    } else {
        print(&report)
    }
}

fn report(ranked: &[Ranked]) -> RankReport {
    let summary = |loss: fn(&Ranked) -> f64| {
        let mut losses: Vec<f64> = ranked.iter().map(loss).collect();
        losses.sort_by(f64::total_cmp);
        [losses[losses.len() / 2], losses[losses.len() - 1]]
    };
    let total = |us: fn(&Ranked) -> f64| {
        #[expect(clippy::cast_precision_loss, reason = "launches are few")]
        let times = ranked.iter().map(|own| us(own) * own.n_launches as f64);
        times.sum::<f64>()
    };
    let fastest = |own: &Ranked| own.variants[0].measured_us / own.loss_of_first();
    RankReport {
        n_problems: ranked.len(),
        first: summary(Ranked::loss_of_first),
        tried: summary(Ranked::loss_of_tried),
        launches_us: [total(|own| own.variants[0].measured_us), total(fastest)],
        problems: ranked.iter().map(problem_report).collect(),
    }
}

fn problem_report(own: &Ranked) -> ProblemReport {
    let variant = |variant: &RankedVariant| VariantReport {
        name: variant.name.clone(),
        place: variant.place,
        predicted_us: variant.predicted_us,
        measured_us: variant.measured_us,
    };
    ProblemReport {
        ops: own.ops.join(" "),
        n_launches: own.n_launches,
        first: own.loss_of_first(),
        tried: own.loss_of_tried(),
        variants: own.variants.iter().map(variant).collect(),
    }
}

fn print(report: &RankReport) -> Result<(), Failure> {
    for problem in &report.problems {
        out::line(&format!(
            "{:6.2} of the fastest, {:.2} among the eight tried, {} x {}",
            problem.first, problem.tried, problem.n_launches, problem.ops
        ))?;
        for variant in &problem.variants {
            out::line(&format!(
                "    {:4} predicted {:8.2} us, measured {:8.2} us  {}",
                variant.place + 1,
                variant.predicted_us,
                variant.measured_us,
                variant.name
            ))?;
        }
    }
    out::line(&format!(
        "{} kernels with times; predicted fastest: {:.2} of the fastest at the median, {:.2} at worst; best of eight: \
         {:.2}, {:.2}; all launches: {:.1} us, {:.1} with the fastest",
        report.n_problems,
        report.first[0],
        report.first[1],
        report.tried[0],
        report.tried[1],
        report.launches_us[0],
        report.launches_us[1]
    ))
}
