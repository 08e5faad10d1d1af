//! The comparison in polygraphy's words, which scripts look for.

use super::compare::{Comparison, Statistic, Stats, Tolerance};

/// Who is compared with whom.
pub struct Runners<'a> {
    pub subject: &'a str,
    pub baseline: &'a str,
}

/// Every line with the letter of its severity.
pub fn lines(
    runners: &Runners<'_>,
    comparisons: &[Comparison],
    tolerance: Tolerance,
    statistic: Statistic,
) -> Vec<String> {
    let Runners { subject, baseline } = runners;
    let mut lines = vec![format!("[I] Accuracy Comparison | {subject} vs. {baseline}")];
    for comparison in comparisons {
        lines.extend(one(runners, comparison, tolerance, statistic));
    }
    let named = |passed: bool| {
        let names: Vec<String> = comparisons
            .iter()
            .filter(|comparison| comparison.passed == passed)
            .map(|comparison| format!("'{}'", comparison.output))
            .collect();
        names.join(", ")
    };
    let passed = comparisons.iter().all(|comparison| comparison.passed);
    lines.push(if passed {
        format!(
            "[I]     PASSED | All outputs matched | Outputs: [{}]",
            named(true)
        )
    } else {
        format!("[E]     FAILED | Mismatched outputs: [{}]", named(false))
    });
    let (letter, n_passed, rate) = if passed {
        ('I', 1, "100.0")
    } else {
        ('E', 0, "0.0")
    };
    lines.push(format!(
        "[{letter}] Accuracy Summary | {subject} vs. {baseline} | Passed: {n_passed}/1 iterations | Pass Rate: {rate}%"
    ));
    lines
}

fn one(
    runners: &Runners<'_>,
    comparison: &Comparison,
    tolerance: Tolerance,
    statistic: Statistic,
) -> Vec<String> {
    let name = &comparison.output;
    let mut lines = vec![format!("[I]     Comparing Output: '{name}'")];
    if let Some(mismatch) = &comparison.mismatch {
        lines.push(format!("[E]         FAILED | Output: '{name}' | {mismatch}"));
        return lines;
    }
    let Tolerance { absolute, relative } = tolerance;
    lines.push(format!(
        "[I]         Tolerance: [abs={absolute:e}, rel={relative:e}] | Checking {} error",
        statistic.name()
    ));
    for (runner, stats) in [
        (runners.subject, &comparison.found),
        (runners.baseline, &comparison.expected),
    ] {
        if let Some(stats) = stats {
            lines.push(format!(
                "[I]         {runner}: {name} | Stats: {}",
                stats_text(stats)
            ));
        }
    }
    lines.push(format!("[I]         Error Metrics: {name}"));
    lines.push(format!(
        "[I]             Minimum Required Tolerance: {} error | [abs={:.5e}] OR [rel={:.5e}] | relative error in the \
         2-norm {:.3e}",
        statistic.name(),
        comparison.required_absolute,
        comparison.required_relative,
        comparison.relative_norm
    ));
    for (what, stats) in [
        ("Absolute Difference", &comparison.absolute),
        ("Relative Difference", &comparison.relative),
    ] {
        if let Some(stats) = stats {
            lines.push(format!("[I]             {what} | Stats: {}", stats_text(stats)));
        }
    }
    lines.push(if comparison.passed {
        format!(
            "[I]         PASSED | Output: '{name}' | Difference is within tolerance (rel={relative:e}, abs={absolute:e})"
        )
    } else {
        format!(
            "[E]         FAILED | Output: '{name}' | Difference exceeds tolerance (rel={relative:e}, abs={absolute:e})"
        )
    });
    lines
}

fn stats_text(stats: &Stats) -> String {
    format!(
        "mean={:.5}, std-dev={:.5}, median={:.5}, min={:.5} at {}, max={:.5} at {}, avg-magnitude={:.5}",
        Number(stats.mean),
        Number(stats.std_dev),
        Number(stats.median),
        Number(stats.min),
        place(&stats.min_at),
        Number(stats.max),
        place(&stats.max_at),
        Number(stats.avg_magnitude)
    )
}

/// Plain where digits after the point say something, else with an exponent.
struct Number(f64);

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = f.precision().unwrap_or(5);
        let size = self.0.abs();
        if size != 0.0 && !(1e-3..1e7).contains(&size) {
            write!(f, "{:.digits$e}", self.0)
        } else {
            write!(f, "{:.digits$}", self.0)
        }
    }
}

fn place(at: &[usize]) -> String {
    let parts: Vec<String> = at.iter().map(ToString::to_string).collect();
    format!("({})", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::compare::compare;
    use super::*;
    use crate::ir::HostTensor;

    #[test]
    fn reports_are_in_the_words_scripts_look_for() {
        let tolerance = Tolerance {
            absolute: 1e-5,
            relative: 1e-5,
        };
        let tensor = |values: &[f32]| HostTensor::from_f32(&[1, values.len()], values);
        let comparisons = [("y", 1.0f32, 1.0f32), ("z", 1.5, 1.0)].map(|(name, found, expected)| {
            compare(
                name,
                &tensor(&[found, -2.0]),
                &tensor(&[expected, -2.0]),
                tolerance,
                Statistic::Elementwise,
            )
        });
        let runners = Runners {
            subject: "engine",
            baseline: "reference",
        };
        let text = lines(&runners, &comparisons, tolerance, Statistic::Elementwise).join("\n");
        insta::with_settings!({snapshot_path => "../../../snapshots/cli", prepend_module_to_snapshot => false}, {
            insta::assert_snapshot!("verify_report", text);
        });
    }
}
