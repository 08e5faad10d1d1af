//! The time of each kernel alone.

use serde::Serialize;

use super::super::failure::Failure;
use crate::runtime::ExecutionContext;

/// Times each kernel is timed, and launches in a row of one time.
const TIMES: usize = 5;
const LAUNCHES: usize = 10;

/// How long one kernel takes, its operands warm.
#[derive(Serialize)]
pub struct KernelTime {
    pub name: String,
    pub nodes: Vec<String>,
    pub predicted_us: f64,
    /// Means over launches in a row, sorted.
    pub times_us: Vec<f64>,
    pub alone_us: f64,
}

impl KernelTime {
    pub fn layer(&self) -> String {
        layer_name(&self.name, &self.nodes)
    }

    pub fn median_us(&self) -> f64 {
        self.times_us[self.times_us.len() / 2]
    }

    /// All times together.
    pub fn total_ms(&self) -> f64 {
        self.times_us.iter().sum::<f64>() / 1e3
    }
}

/// A kernel by the nodes it computes.
pub fn layer_name(kernel: &str, nodes: &[String]) -> String {
    if nodes.is_empty() {
        kernel.to_owned()
    } else {
        nodes.join(" + ")
    }
}

/// Times every launch of the engine.
pub fn profile(context: &mut ExecutionContext) -> Result<Vec<KernelTime>, Failure> {
    let program = context.program().clone();
    let mut kernels = Vec::with_capacity(program.launches.len());
    for (number, launch) in program.launches.iter().enumerate() {
        let mut times_us = Vec::with_capacity(TIMES);
        for _ in 0..TIMES {
            times_us.push(context.time_launch_us(number, LAUNCHES)?);
        }
        times_us.sort_by(f64::total_cmp);
        #[expect(clippy::cast_precision_loss, reason = "a small count")]
        let alone_us = times_us.iter().sum::<f64>() / TIMES as f64;
        kernels.push(KernelTime {
            name: program.kernels[launch.kernel].name.clone(),
            nodes: launch.nodes.clone(),
            predicted_us: launch.predicted_us,
            times_us,
            alone_us,
        });
    }
    Ok(kernels)
}

/// A table of one line per kernel.
pub fn lines(kernels: &[KernelTime]) -> Vec<String> {
    let total: f64 = kernels.iter().map(KernelTime::total_ms).sum();
    let mut lines = vec![
        format!("=== Profile ({TIMES} iterations ) ==="),
        "   Time(ms)     Avg.(ms)   Median(ms)   Time(%)   Layer".to_owned(),
    ];
    let row = |time: f64, mean: f64, median: f64, share: f64, name: &str| {
        format!("{time:11.2} {mean:12.4} {median:12.4} {share:9.1}   {name}")
    };
    lines.extend(kernels.iter().map(|kernel| {
        let share = kernel.total_ms() / total * 100.0;
        row(
            kernel.total_ms(),
            kernel.alone_us / 1e3,
            kernel.median_us() / 1e3,
            share,
            &kernel.layer(),
        )
    }));
    let sum = |value: fn(&KernelTime) -> f64| kernels.iter().map(value).sum::<f64>() / 1e3;
    lines.push(row(
        total,
        sum(|kernel| kernel.alone_us),
        sum(KernelTime::median_us),
        100.0,
        "Total",
    ));
    lines
}
