//! Figures of many executions, in trtexec's words and order, which scripts look for.

use std::fmt::Write as _;

use serde::Serialize;

use crate::runtime::Trace;

/// Share of the computing time above which queueing may be what limits.
const ENQUEUE_BOUND: f64 = 0.8;
/// Standard deviation over mean above which times are called unstable.
const UNSTABLE: f64 = 0.01;

/// Where the values of one figure lie, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub min_ms: f64,
    pub max_ms: f64,
    pub mean_ms: f64,
    pub median_ms: f64,
    /// Percentile asked for, and its value.
    pub percentiles: Vec<(f64, f64)>,
    /// Standard deviation over mean.
    pub variation: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>, percentiles: &[f64]) -> Self {
        values.sort_by(f64::total_cmp);
        let n = values.len();
        #[expect(clippy::cast_precision_loss, reason = "a count of executions")]
        let count = n as f64;
        let mean = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        Spread {
            min_ms: values[0],
            max_ms: values[n - 1],
            mean_ms: mean,
            median_ms: f64::midpoint(values[(n - 1) / 2], values[n / 2]),
            percentiles: percentiles
                .iter()
                .map(|&percent| (percent, percentile(&values, percent)))
                .collect(),
            variation: if mean > 0.0 { variance.sqrt() / mean } else { 0.0 },
        }
    }

    fn text(&self) -> String {
        let mut text = format!(
            "min = {} ms, max = {} ms, mean = {} ms, median = {} ms",
            number(self.min_ms),
            number(self.max_ms),
            number(self.mean_ms),
            number(self.median_ms)
        );
        for (percent, value) in &self.percentiles {
            write!(
                text,
                ", percentile({}%) = {} ms",
                number(*percent),
                number(*value)
            )
            .expect("writing to a string succeeds");
        }
        text
    }
}

/// The value that `percent` of the sorted values do not exceed.
fn percentile(sorted: &[f64], percent: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a count of executions")]
    // A tenth of a hundred is ten, whatever the rounding of a tenth.
    let excluded = (1.0 - percent / 100.0) * sorted.len() as f64 + 1e-9;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between zero and the count"
    )]
    let excluded = excluded as usize;
    sorted[(sorted.len() - 1).saturating_sub(excluded)]
}

/// What the executions after the warm-up say.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    pub n_warm_up: usize,
    pub warm_up_ms: f64,
    pub n_queries: usize,
    pub throughput_qps: f64,
    pub latency: Spread,
    pub enqueue: Spread,
    pub upload: Spread,
    pub compute: Spread,
    pub download: Spread,
    pub host_walltime_s: f64,
    pub gpu_compute_s: f64,
}

impl Summary {
    /// Of `traces` in the order of their starts, at least one of which ends after the warm-up.
    pub fn of(traces: &[Trace], warm_up_ms: f64, percentiles: &[f64]) -> Self {
        let timed = timed(traces, warm_up_ms);
        let spread = |value: fn(&Trace) -> f64| Spread::of(timed.iter().map(value).collect(), percentiles);
        let start = timed
            .iter()
            .map(|trace| trace.upload.start)
            .fold(f64::INFINITY, f64::min);
        let end = timed.iter().map(|trace| trace.download.end).fold(0.0, f64::max);
        let host_walltime_s = (end - start) / 1e3;
        #[expect(clippy::cast_precision_loss, reason = "a count of executions")]
        let n_queries = timed.len() as f64;
        Summary {
            n_warm_up: traces.len() - timed.len(),
            warm_up_ms,
            n_queries: timed.len(),
            throughput_qps: n_queries / host_walltime_s,
            latency: spread(Trace::latency),
            enqueue: spread(|trace| trace.enqueue.length()),
            upload: spread(|trace| trace.upload.length()),
            compute: spread(|trace| trace.compute.length()),
            download: spread(|trace| trace.download.length()),
            host_walltime_s,
            gpu_compute_s: timed.iter().map(|trace| trace.compute.length()).sum::<f64>() / 1e3,
        }
    }

    pub fn lines(&self) -> Vec<String> {
        vec![
            "=== Performance summary ===".to_owned(),
            format!("Throughput: {} qps", number(self.throughput_qps)),
            format!("Latency: {}", self.latency.text()),
            format!("Enqueue Time: {}", self.enqueue.text()),
            format!("H2D Latency: {}", self.upload.text()),
            format!("GPU Compute Time: {}", self.compute.text()),
            format!("D2H Latency: {}", self.download.text()),
            format!("Total Host Walltime: {} s", number(self.host_walltime_s)),
            format!("Total GPU Compute Time: {} s", number(self.gpu_compute_s)),
        ]
    }

    pub fn prolog(&self) -> Vec<String> {
        vec![
            format!(
                "Warmup completed {} queries over {} ms",
                self.n_warm_up,
                number(self.warm_up_ms)
            ),
            format!(
                "Timing trace has {} queries over {} s",
                self.n_queries,
                number(self.host_walltime_s)
            ),
        ]
    }

    /// What keeps the figures from saying how fast the device is.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.enqueue.median_ms > ENQUEUE_BOUND * self.compute.median_ms {
            warnings.push(
                "* Throughput may be bound by Enqueue Time rather than GPU Compute and the GPU may be \
                 under-utilized."
                    .to_owned(),
            );
        }
        for (spread, direction) in [
            (&self.upload, "host-to-device transfers for the inputs"),
            (&self.download, "device-to-host transfers for the outputs"),
        ] {
            if spread.median_ms >= self.compute.median_ms {
                warnings.push(format!(
                    "* Throughput may be bound by {direction} rather than GPU Compute and the GPU may be \
                     under-utilized."
                ));
            }
        }
        if self.compute.variation > UNSTABLE {
            warnings.push(format!(
                "* GPU compute time is unstable, with coefficient of variance = {}%.",
                number(self.compute.variation * 100.0)
            ));
            warnings.push("  Locking the clock frequency of the GPU may improve the stability.".to_owned());
        }
        warnings
    }
}

/// The traces that begin to compute after the warm-up; the last one where none does.
fn timed(traces: &[Trace], warm_up_ms: f64) -> &[Trace] {
    let first = traces.iter().position(|trace| trace.compute.start >= warm_up_ms);
    &traces[first.unwrap_or(traces.len() - 1)..]
}

/// One line per `runs` executions after the warm-up.
pub fn averages(traces: &[Trace], warm_up_ms: f64, runs: usize) -> Vec<String> {
    let mut lines = vec![
        "=== Trace details ===".to_owned(),
        format!("Trace averages of {runs} runs:"),
    ];
    for chunk in timed(traces, warm_up_ms).chunks_exact(runs) {
        #[expect(clippy::cast_precision_loss, reason = "a count of executions")]
        let mean = |value: fn(&Trace) -> f64| chunk.iter().map(value).sum::<f64>() / runs as f64;
        lines.push(format!(
            "Average on {runs} runs - GPU latency: {} ms - Host latency: {} ms (enqueue {} ms)",
            number(mean(|trace| trace.compute.length())),
            number(mean(Trace::latency)),
            number(mean(|trace| trace.enqueue.length()))
        ));
    }
    lines
}

/// What the figures mean.
pub const EXPLANATIONS: [&str; 9] = [
    "=== Explanations of the performance metrics ===",
    "Total Host Walltime: from the start of the first query after the warm-up to the end of the last one.",
    "GPU Compute Time: on the device, all kernels of a query.",
    "Total GPU Compute Time: the sum of it over all queries; where it is far below the walltime of one stream, \
     the device waits for the host or for copies.",
    "Throughput: queries over Total Host Walltime.",
    "Enqueue Time: on the host, queueing a query.",
    "H2D Latency: copies of the inputs of a query to the device.",
    "D2H Latency: copies of the outputs of a query to the host.",
    "Latency: H2D Latency, GPU Compute Time and D2H Latency of a query together.",
];

/// Six significant digits without trailing zeros, as C++ streams print numbers.
pub fn number(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value}");
    }
    #[expect(clippy::cast_possible_truncation, reason = "exponents are small")]
    let exponent = value.abs().log10().floor() as i32;
    if !(-5..6).contains(&exponent) {
        return format!("{value:.5e}");
    }
    let decimals = usize::try_from(5 - exponent).unwrap_or(0);
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Span;

    fn trace(start: f64, compute: f64) -> Trace {
        let span = |start: f64, length: f64| Span {
            start,
            end: start + length,
        };
        Trace {
            enqueue: span(start, 0.01),
            upload: span(start, 0.05),
            compute: span(start + 0.05, compute),
            download: span(start + 0.05 + compute, 0.02),
        }
    }

    #[test]
    fn the_summary_is_in_the_words_scripts_look_for() {
        let traces: Vec<Trace> = (0..40u32)
            .map(|n| trace(f64::from(n), 0.5 + f64::from(n % 5) / 100.0))
            .collect();
        let summary = Summary::of(&traces, 20.0, &[90.0, 99.0]);
        let mut text = summary.prolog();
        text.extend(averages(&traces, 20.0, 10));
        text.extend(summary.lines());
        text.extend(summary.warnings());
        insta::with_settings!({snapshot_path => "../../../snapshots/cli", prepend_module_to_snapshot => false}, {
            insta::assert_snapshot!("bench_summary", text.join("\n"));
        });
    }

    #[test]
    fn percentiles_leave_out_the_slowest() {
        let sorted: Vec<f64> = (1..=100u32).map(f64::from).collect();
        assert_eq!(percentile(&sorted, 90.0), 90.0);
        assert_eq!(percentile(&sorted, 100.0), 100.0);
        assert_eq!(percentile(&sorted, 0.0), 1.0);
        assert_eq!(percentile(&[3.0], 50.0), 3.0);
    }

    #[test]
    fn a_run_shorter_than_its_warm_up_counts_its_last_execution() {
        let traces = [trace(0.0, 0.5), trace(1.0, 0.5)];
        assert_eq!(Summary::of(&traces, 200.0, &[]).n_queries, 1);
    }

    #[test]
    fn numbers_have_six_significant_digits() {
        let cases = [
            (0.0, "0"),
            (1_130.013_4, "1130.01"),
            (0.123_456_78, "0.123457"),
            (3.0, "3"),
            (99.0, "99"),
            (0.000_012_345_678, "0.0000123457"),
            (2_345_678.0, "2.34568e6"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }
}
