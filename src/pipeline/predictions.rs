//! What programs take of time and scratch memory, by prediction, without making their kernels.

use std::collections::HashMap;

use rayon::prelude::*;

use super::Settings;
use super::tactics::problems;
use crate::kernel::Arch;
use crate::plan::Thrift;
use crate::plan::lifetimes::{Storage, padded};
use crate::rewrite::FusedGraph;
use crate::tune::{Prediction, Problem};

/// Predictions of kernel problems.
#[derive(Default)]
pub(super) struct Predictions {
    /// By the keys of problems: with scratch memory and without.
    known: HashMap<String, [Prediction; 2]>,
}

/// The launches of a program.
#[derive(Clone, Debug, Default)]
pub(super) struct Launches {
    /// Bytes of scratch memory that no choice of kernels does without.
    pub scratch_bytes: usize,
    /// Microseconds without any other.
    us: f64,
    /// Microseconds that launches save by scratch memory, and its bytes, by falling gain for each byte.
    gains: Vec<(f64, usize)>,
}

impl Predictions {
    pub fn of(&mut self, fused: &FusedGraph, arch: Arch, settings: &Settings) -> Launches {
        let problems = problems(fused, settings, Thrift::None);
        let steps = Storage::of(fused).steps;
        let key = |region: &usize| format!("{arch:?} {}", problems[*region].spec.key());
        let keys: Vec<String> = steps.par_iter().map(key).collect();
        let mut open: Vec<(&String, &Problem)> = keys
            .iter()
            .zip(&steps)
            .filter(|(key, _)| !self.known.contains_key(*key))
            .map(|(key, &region)| (key, &problems[region]))
            .collect();
        open.sort_by_key(|(key, _)| *key);
        open.dedup_by_key(|(key, _)| *key);
        let found = open.into_par_iter().filter_map(|(key, problem)| {
            let own = problem.predicted(arch)?;
            Some((key.clone(), own))
        });
        let found: Vec<(String, [Prediction; 2])> = found.collect();
        self.known.extend(found);
        let mut launches = Launches::default();
        for [generous, thrifty] in keys.iter().filter_map(|key| self.known.get(key)) {
            launches.scratch_bytes += padded(thrifty.scratch_bytes);
            launches.us += thrifty.us;
            if generous.us < thrifty.us {
                let bytes = padded(generous.scratch_bytes);
                launches.gains.push((thrifty.us - generous.us, bytes));
            }
        }
        let rate = |&(us, bytes): &(f64, usize)| us / as_f64(bytes.max(1));
        launches.gains.sort_by(|a, b| rate(b).total_cmp(&rate(a)));
        launches
    }
}

impl Launches {
    /// All scratch memory that makes launches faster.
    pub fn most_scratch_bytes(&self) -> usize {
        self.gains.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Microseconds of all of them, where those that save most by each byte of scratch memory have it, as far as `left`
    /// bytes go.
    pub fn us(&self, mut left: usize) -> f64 {
        let mut us = self.us;
        for &(gain, bytes) in &self.gains {
            if bytes <= left {
                left -= bytes;
                us -= gain;
            }
        }
        us
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate of them needs no exact count")]
fn as_f64(bytes: usize) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_memory_goes_where_it_saves_most() {
        let launches = Launches {
            scratch_bytes: 0,
            us: 100.0,
            gains: vec![(30.0, 10), (50.0, 40), (5.0, 20)],
        };
        let us = |left| launches.us(left);
        assert_eq!(
            [us(0), us(9), us(10), us(45)].map(f64::to_bits),
            [100.0_f64, 100.0, 70.0, 65.0].map(f64::to_bits)
        );
        assert_eq!(us(launches.most_scratch_bytes()).to_bits(), 15.0_f64.to_bits());
    }
}
