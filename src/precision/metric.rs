//! How far the outputs of a changed model are from those of the model as it was given.

use std::path::Path;
use std::process::Command;

use crate::io::{self, IoError};
use crate::ir::HostTensor;
use crate::ops::evaluate::to_vec;

/// A measure of loss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Percentage points of samples whose largest output moves; with labels, of accuracy lost.
    Top1,
    /// Cosine of the angle between all outputs and what they should be.
    Cosine,
    /// Norm of the difference over the norm of what outputs should be.
    Relative,
    /// The number that a program prints, which is given two npz files: what the outputs should be, and
    /// what they are.
    Command(String),
}

/// The loss that is allowed.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    pub metric: Metric,
    /// In the metric's own terms: points, least cosine, greatest error, greatest number.
    pub limit: f64,
}

/// Why a loss cannot be measured.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum MetricError {
    #[error("`{program}` {reason}")]
    #[diagnostic(code(precision::metric))]
    Command { program: String, reason: String },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Io(#[from] IoError),
}

impl Budget {
    /// Reads `top1=0.5`, `cosine=0.999`, `relative=0.02` or `cmd:PROGRAM=3`.
    pub fn from_text(text: &str) -> Option<Budget> {
        let (metric, limit) = text.rsplit_once('=')?;
        let limit: f64 = limit.parse().ok()?;
        let metric = match metric {
            "top1" => Metric::Top1,
            "cosine" => Metric::Cosine,
            "relative" => Metric::Relative,
            _ => Metric::Command(
                metric
                    .strip_prefix("cmd:")
                    .filter(|program| !program.is_empty())?
                    .to_owned(),
            ),
        };
        limit.is_finite().then_some(Budget { metric, limit })
    }

    /// Whether `value` of the metric is good enough.
    pub fn allows(&self, value: f64) -> bool {
        match self.metric {
            Metric::Cosine => value >= self.limit,
            Metric::Top1 | Metric::Relative | Metric::Command(_) => value <= self.limit,
        }
    }
}

impl Metric {
    pub fn name(&self) -> String {
        match self {
            Metric::Top1 => "top1".to_owned(),
            Metric::Cosine => "cosine".to_owned(),
            Metric::Relative => "relative".to_owned(),
            Metric::Command(program) => format!("cmd:{program}"),
        }
    }

    /// Compares outputs, of all batches one behind the other. `labels` are those of the rows of the
    /// first output.
    ///
    /// # Errors
    /// If a program cannot be run, or prints no number.
    pub fn measure(
        &self,
        wanted: &[Outputs],
        found: &[Outputs],
        names: &[String],
        labels: Option<&[i64]>,
    ) -> Result<f64, MetricError> {
        match self {
            Metric::Top1 => Ok(top1_loss(wanted, found, labels)),
            Metric::Cosine => Ok(cosine(wanted, found)),
            Metric::Relative => Ok(relative_error(wanted, found)),
            Metric::Command(program) => ask(program, wanted, found, names),
        }
    }
}

/// The outputs of one batch.
pub type Outputs = Vec<HostTensor>;

/// Position of the largest entry of each row of the first output.
pub fn top1(outputs: &[Outputs]) -> Vec<usize> {
    let largest = |row: &[f64]| {
        let entries = row.iter().enumerate();
        entries
            .max_by(|(m, a), (n, b)| a.total_cmp(b).then(n.cmp(m)))
            .map_or(0, |(n, _)| n)
    };
    outputs
        .iter()
        .filter_map(|batch| batch.first())
        .flat_map(|output| {
            let values: Vec<f64> = to_vec(output);
            let length = output.dims().last().copied().unwrap_or(1).max(1);
            values.chunks_exact(length).map(largest).collect::<Vec<_>>()
        })
        .collect()
}

fn top1_loss(wanted: &[Outputs], found: &[Outputs], labels: Option<&[i64]>) -> f64 {
    let (wanted, found) = (top1(wanted), top1(found));
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    let share = |n: usize| 100.0 * n as f64 / wanted.len().max(1) as f64;
    match labels.filter(|labels| labels.len() == wanted.len()) {
        Some(labels) => {
            let right = |own: &[usize]| {
                let pairs = own.iter().zip(labels);
                pairs
                    .filter(|(own, label)| i64::try_from(**own) == Ok(**label))
                    .count()
            };
            share(right(&wanted)) - share(right(&found))
        }
        None => share(wanted.iter().zip(&found).filter(|(a, b)| a != b).count()),
    }
}

/// Sums over all pairs of entries: of squares of each, of products, and of squared differences.
fn sums(wanted: &[Outputs], found: &[Outputs]) -> [f64; 4] {
    let mut sums = [0.0; 4];
    for (wanted, found) in wanted.iter().flatten().zip(found.iter().flatten()) {
        let (wanted, found): (Vec<f64>, Vec<f64>) = (to_vec(wanted), to_vec(found));
        for (a, b) in wanted.iter().zip(&found) {
            sums[0] += a * a;
            sums[1] += b * b;
            sums[2] += a * b;
            sums[3] += (a - b) * (a - b);
        }
    }
    sums
}

fn cosine(wanted: &[Outputs], found: &[Outputs]) -> f64 {
    let [a, b, ab, difference] = sums(wanted, found);
    if difference == 0.0 {
        1.0
    } else {
        ab / (a * b).sqrt()
    }
}

/// Norm of the difference over the norm of what is wanted; not a number counts as all wrong.
pub fn relative_error(wanted: &[Outputs], found: &[Outputs]) -> f64 {
    let [a, _, _, difference] = sums(wanted, found);
    match difference {
        0.0 => 0.0,
        difference if difference.is_nan() => f64::INFINITY,
        difference => (difference / a).sqrt(),
    }
}

fn ask(program: &str, wanted: &[Outputs], found: &[Outputs], names: &[String]) -> Result<f64, MetricError> {
    let failed = |reason: String| MetricError::Command {
        program: program.to_owned(),
        reason,
    };
    let folder =
        tempfile::tempdir().map_err(|error| failed(format!("has no folder for its inputs: {error}")))?;
    let (reference, own) = (
        folder.path().join("reference.npz"),
        folder.path().join("found.npz"),
    );
    for (path, outputs) in [(&reference, wanted), (&own, found)] {
        write(path, outputs, names)?;
    }
    let done = Command::new(program)
        .args([&reference, &own])
        .output()
        .map_err(|error| failed(format!("cannot be started: {error}")))?;
    let text = String::from_utf8_lossy(&done.stdout);
    if !done.status.success() {
        return Err(failed(format!("ended with {}", done.status)));
    }
    let number = text.split_whitespace().last().and_then(|word| word.parse().ok());
    number.ok_or_else(|| failed(format!("printed `{}`, expected a number", text.trim())))
}

fn write(path: &Path, outputs: &[Outputs], names: &[String]) -> Result<(), MetricError> {
    let joined: Vec<HostTensor> = (0..names.len())
        .map(|output| {
            let parts: Vec<&HostTensor> = outputs.iter().filter_map(|batch| batch.get(output)).collect();
            joined(&parts)
        })
        .collect();
    Ok(io::write_outputs(path, names, &joined)?)
}

/// Tensors one behind the other along their first axis; along a new one if they have none in common.
fn joined(parts: &[&HostTensor]) -> HostTensor {
    let first = parts.first().expect("there are samples");
    let rest = first.dims().get(1..).unwrap_or_default();
    let joins = !first.dims().is_empty() && parts.iter().all(|part| part.dims().get(1..) == Some(rest));
    let dims = if joins {
        let rows = parts.iter().map(|part| part.dims()[0]).sum();
        [&[rows], rest].concat()
    } else {
        [&[parts.len()], first.dims()].concat()
    };
    let bytes: Vec<u8> = parts
        .iter()
        .flat_map(|part| part.bytes().iter().copied())
        .collect();
    HostTensor::from_bytes(first.dtype(), &dims, &bytes).unwrap_or_else(|| (*first).clone())
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "small numbers are exact")]
mod tests {
    use super::*;

    fn outputs(values: &[f32]) -> Vec<Outputs> {
        values
            .chunks(2)
            .map(|row| vec![HostTensor::from_f32(&[1, 2], row)])
            .collect()
    }

    #[test]
    fn budgets_are_read() {
        let budget = Budget::from_text("cmd:./score.py --k=3=0.5").unwrap();
        assert_eq!(budget.metric, Metric::Command("./score.py --k=3".to_owned()));
        assert!(Budget::from_text("cosine=0.99").unwrap().allows(0.995));
        assert!(!Budget::from_text("top1=0.5").unwrap().allows(0.6));
        for wrong in ["", "top1", "top1=", "mean=3", "cmd:=1", "relative=nan"] {
            assert_eq!(Budget::from_text(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn losses_are_what_they_say() {
        let (a, b) = (outputs(&[1.0, 2.0, 3.0, 1.0]), outputs(&[2.0, 1.0, 3.0, 1.0]));
        let measure = |metric: Metric, labels| metric.measure(&a, &b, &["y".to_owned()], labels).unwrap();
        assert_eq!(measure(Metric::Top1, None), 50.0);
        assert_eq!(measure(Metric::Top1, Some(&[0, 0][..])), -50.0);
        assert!((measure(Metric::Relative, None) - (2.0_f64 / 15.0).sqrt()).abs() < 1e-12);
        assert!((measure(Metric::Cosine, None) - 14.0 / 15.0).abs() < 1e-12);
        assert_eq!(relative_error(&a, &a), 0.0);
    }

    #[cfg(unix)]
    #[test]
    fn a_program_is_asked() {
        let (a, b) = (outputs(&[1.0, 2.0]), outputs(&[1.0, 2.0]));
        let names = ["y".to_owned()];
        let ask = |program: &str| Metric::Command(program.to_owned()).measure(&a, &b, &names, None);
        assert!(
            ask("/nonexistent")
                .unwrap_err()
                .to_string()
                .contains("cannot be started")
        );
        assert!(ask("/bin/false").unwrap_err().to_string().contains("ended with"));
        assert!(
            ask("/bin/true")
                .unwrap_err()
                .to_string()
                .contains("expected a number")
        );
    }
}
