//! Every measurement ever made, in a text file: one JSON object a line, sorted.
//!
//! A line names everything a time depends on: the machine, the kernel's text and launch, and
//! the knobs for people. Files of several machines can be joined with `sort -u`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};

use super::error::TuneError;
use crate::aside::{check_writable, write_aside};
use crate::compile;
use crate::cuda::DeviceInfo;
use crate::hex::hex;
use crate::kernel::{Source, Variant};

/// What a time depends on beside the kernel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Machine {
    pub device: String,
    pub n_sms: usize,
    /// CUDA version the driver speaks, times 1000.
    pub driver: u32,
    pub nvrtc: String,
    pub arch: String,
    /// Executions that went on at the same time.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub n_contexts: usize,
}

fn one() -> usize {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_one(n: &usize) -> bool {
    *n == 1
}

impl Machine {
    pub fn new(info: &DeviceInfo, nvrtc: String, arch: crate::kernel::Arch) -> Self {
        Machine {
            device: info.name.clone(),
            n_sms: info.n_sms,
            driver: info.driver_version,
            nvrtc,
            arch: compile::arch_name(arch),
            n_contexts: 1,
        }
    }

    /// The same machine while `n_contexts` executions go on.
    pub fn shared_by(self, n_contexts: usize) -> Self {
        Machine { n_contexts, ..self }
    }
}

/// One kernel, or all of a program, on one machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    pub machine: Machine,
    /// Digest of the kernel's text and launch geometry, or of all that a program launches.
    pub kernel: String,
    /// `program` where whole executions were timed.
    pub template: String,
    /// Knobs of the variant, for people.
    pub variant: String,
    pub predicted_us: f64,
    pub outcome: Outcome,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    Timed {
        /// Median over replays of a CUDA graph.
        median_us: f64,
        /// Fastest and slowest replay.
        spread_us: [f64; 2],
        /// Largest relative error of an output, in the 2-norm.
        error: f64,
    },
    /// Right, but so slow that timing stopped early.
    Slow { at_least_us: f64 },
    /// The relative error was above the bound.
    Wrong {
        #[serde(deserialize_with = "or_infinite")]
        error: f64,
    },
    /// NVRTC refused it, or it needs more than the device has.
    Unusable { reason: String },
}

/// JSON has no infinity, which is written as `null`: the error of what is not a number where it should be one.
fn or_infinite<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::INFINITY))
}

impl Outcome {
    /// The time by which a right kernel is compared with others.
    pub fn us(&self) -> Option<f64> {
        match self {
            Outcome::Timed { median_us, .. } => Some(*median_us),
            Outcome::Slow { at_least_us } => Some(*at_least_us),
            Outcome::Wrong { .. } | Outcome::Unusable { .. } => None,
        }
    }
}

impl Outcome {
    /// The same with all times `factor` times as long.
    pub fn scaled(self, factor: f64) -> Outcome {
        match self {
            Outcome::Timed {
                median_us,
                spread_us,
                error,
            } => Outcome::Timed {
                median_us: median_us * factor,
                spread_us: spread_us.map(|us| us * factor),
                error,
            },
            Outcome::Slow { at_least_us } => Outcome::Slow {
                at_least_us: at_least_us * factor,
            },
            other => other,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Timed { median_us, .. } => write!(f, "takes {median_us:.2} us"),
            Outcome::Slow { at_least_us } => write!(f, "takes {at_least_us:.2} us or more"),
            Outcome::Wrong { error } => write!(f, "is off by {error:.2e} in the 2-norm"),
            Outcome::Unusable { reason } => write!(f, "cannot be used: {reason}"),
        }
    }
}

/// Measurements by machine and kernel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Database {
    entries: BTreeMap<(Machine, String), Measurement>,
}

/// The digest under which a kernel's measurements are found.
pub fn kernel_digest(source: &Source) -> String {
    let mut hash = Sha256::new();
    hash.update(source.text.as_bytes());
    hash.update(format!("{:?} {:?}", source.launch, source.params).as_bytes());
    hex(&hash.finalize()[..16])
}

impl Database {
    /// Reads a file; one that does not exist is an empty database.
    ///
    /// # Errors
    /// If the file cannot be read, or a line is no measurement.
    pub fn load(path: &Path) -> Result<Self, TuneError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Database::default()),
            Err(source) => {
                return Err(TuneError::File {
                    action: "read",
                    path: path.to_owned(),
                    source,
                });
            }
        };
        let mut database = Database::default();
        for (number, line) in text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty())
        {
            let measurement = serde_json::from_str(line).map_err(|error| TuneError::Line {
                path: path.to_owned(),
                line: number + 1,
                reason: error.to_string(),
            })?;
            database.add(measurement);
        }
        Ok(database)
    }

    /// Says early whether the file can be written.
    ///
    /// # Errors
    /// If it cannot.
    pub fn check_writable(path: &Path) -> Result<(), TuneError> {
        check_writable(path).map_err(|source| TuneError::File {
            action: "write",
            path: path.to_owned(),
            source,
        })
    }

    /// Writes all measurements, sorted, so that files can be compared line by line.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), TuneError> {
        let mut lines: Vec<String> = self
            .entries
            .values()
            .map(|entry| serde_json::to_string(entry).expect("measurements hold only what JSON has"))
            .collect();
        lines.sort();
        write_aside(path, |into| {
            lines.iter().try_for_each(|line| writeln!(into, "{line}"))
        })
        .map_err(|source| TuneError::File {
            action: "write",
            path: path.to_owned(),
            source,
        })
    }

    /// Adds a measurement; the newer one of the same kernel on the same machine stays.
    pub fn add(&mut self, measurement: Measurement) {
        let key = (measurement.machine.clone(), measurement.kernel.clone());
        self.entries.insert(key, measurement);
    }

    pub fn get(&self, machine: &Machine, source: &Source) -> Option<&Outcome> {
        self.outcome(machine, &kernel_digest(source))
    }

    /// What came of the kernel or program with this digest.
    pub fn outcome(&self, machine: &Machine, digest: &str) -> Option<&Outcome> {
        let key = (machine.clone(), digest.to_owned());
        self.entries.get(&key).map(|entry| &entry.outcome)
    }

    /// Notes what came of `source` on `machine`.
    pub fn note(&mut self, machine: &Machine, source: &Source, variant: &Variant, outcome: Outcome) {
        self.add(Measurement {
            machine: machine.clone(),
            kernel: kernel_digest(source),
            template: variant.template.clone(),
            variant: variant.knobs_text(),
            predicted_us: variant.predicted_us,
            outcome,
        });
    }

    /// The machines that have measurements, without repetition.
    pub fn machines(&self) -> Vec<&Machine> {
        let mut machines: Vec<&Machine> = self.entries.keys().map(|(machine, _)| machine).collect();
        machines.dedup();
        machines
    }

    /// Every measurement, by machine and kernel.
    pub fn measurements(&self) -> impl Iterator<Item = &Measurement> {
        self.entries.values()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(kernel: &str, outcome: Outcome) -> Measurement {
        Measurement {
            machine: Machine {
                device: "H200".to_owned(),
                n_sms: 132,
                driver: 13_000,
                nvrtc: "13.0".to_owned(),
                arch: "sm_90a".to_owned(),
                n_contexts: 1,
            },
            kernel: kernel.to_owned(),
            template: "gemm_mma".to_owned(),
            variant: "stages=3".to_owned(),
            predicted_us: 3.5,
            outcome,
        }
    }

    #[test]
    fn files_are_read_back_and_joined() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("times");
        assert!(Database::load(&path).unwrap().is_empty());
        let mut database = Database::default();
        let timed = Outcome::Timed {
            median_us: 2.25,
            spread_us: [2.2, 2.5],
            error: 1e-4,
        };
        database.add(example("m", Outcome::Wrong { error: f64::INFINITY }));
        database.add(example("b", timed));
        database.add(example("a", Outcome::Wrong { error: 0.5 }));
        database.save(&path).unwrap();
        assert_eq!(Database::load(&path).unwrap(), database);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{text}{text}")).unwrap();
        assert_eq!(Database::load(&path).unwrap().len(), 3);
    }

    #[test]
    fn times_of_several_executions_are_apart() {
        let alone = example("a", Outcome::Slow { at_least_us: 1.0 });
        let mut shared = example("a", Outcome::Slow { at_least_us: 3.0 });
        shared.machine = shared.machine.shared_by(4);
        let text = |measurement: &Measurement| serde_json::to_string(measurement).unwrap();
        assert!(!text(&alone).contains("n_contexts"), "{}", text(&alone));
        let mut database = Database::default();
        for measurement in [&alone, &shared] {
            database.add(serde_json::from_str(&text(measurement)).unwrap());
        }
        let us = |of: &Measurement| database.outcome(&of.machine, "a").and_then(Outcome::us);
        assert_eq!((us(&alone), us(&shared)), (Some(1.0), Some(3.0)));
    }

    #[test]
    fn a_line_that_is_no_measurement_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("times");
        fs::write(&path, "\n{\"kernel\": 3}\n").unwrap();
        let message = Database::load(&path).unwrap_err().to_string();
        assert!(
            message.contains("line 2") && message.contains("times"),
            "{message}"
        );
    }
}
