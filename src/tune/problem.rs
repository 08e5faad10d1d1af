//! What is tuned, and what comes out.

use std::collections::HashMap;

use crate::compile::Cubin;
use crate::kernel::{self, Arch, KernelSpec, Source, Variant};

/// A kernel problem as one region poses it.
#[derive(Clone, Debug)]
pub struct Problem {
    pub spec: KernelSpec,
    /// Whether kernels may use scratch memory.
    pub workspace: bool,
    /// The variant that solves it so far; it is tried first, and others must be faster than it.
    pub incumbent: Option<Incumbent>,
}

/// A variant by what an engine says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incumbent {
    pub template: String,
    /// As [`Variant::knobs_text`].
    pub knobs: String,
}

impl Incumbent {
    pub fn is(&self, variant: &Variant) -> bool {
        variant.template == self.template && variant.knobs_text() == self.knobs
    }
}

impl Problem {
    /// Ways to solve it, the incumbent first, the others by rising predicted time. Where only those with
    /// scratch memory do, they are given nevertheless.
    pub fn variants(&self, arch: Arch) -> Vec<Variant> {
        let mut variants = self.allowed(arch);
        if let Some(place) = variants.iter().position(|variant| self.is_incumbent(variant)) {
            variants[..=place].rotate_right(1);
        }
        variants
    }

    /// The variant that is predicted fastest, and the fastest of those without scratch memory; the same where none does
    /// without.
    pub fn predicted(&self, arch: Arch) -> Option<[Prediction; 2]> {
        let mut first = None;
        for variant in kernel::variants(&self.spec, arch) {
            let Ok(source) = kernel::render(&self.spec, &variant, arch) else {
                continue;
            };
            let own = Prediction {
                us: variant.predicted_us,
                scratch_bytes: source.workspace_bytes,
            };
            let fastest = *first.get_or_insert(own);
            if own.scratch_bytes == 0 {
                return Some([fastest, own]);
            }
        }
        first.map(|own| [own; 2])
    }

    /// Whether `variant` solves it so far.
    pub(super) fn is_incumbent(&self, variant: &Variant) -> bool {
        self.incumbent.as_ref().is_some_and(|own| own.is(variant))
    }

    fn allowed(&self, arch: Arch) -> Vec<Variant> {
        let all = kernel::variants(&self.spec, arch);
        if self.workspace {
            return all;
        }
        let needs_none = |variant: &Variant| {
            kernel::render(&self.spec, variant, arch).is_ok_and(|source| source.workspace_bytes == 0)
        };
        let own: Vec<Variant> = all
            .iter()
            .filter(|variant| needs_none(variant))
            .cloned()
            .collect();
        if own.is_empty() { all } else { own }
    }
}

/// What is predicted of a variant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    pub us: f64,
    pub scratch_bytes: usize,
}

/// The variant that won.
#[derive(Clone, Debug)]
pub struct Tactic {
    pub variant: Variant,
    pub source: Source,
    pub cubin: Cubin,
    /// Median time in a CUDA graph, where it was measured.
    pub measured_us: Option<f64>,
}

/// The distinct problems, and for each problem which of them is its own.
pub fn distinct<'a>(problems: impl IntoIterator<Item = &'a Problem>) -> (Vec<&'a Problem>, Vec<usize>) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut distinct = Vec::new();
    let numbers = problems.into_iter().map(|problem| {
        *seen.entry(problem.spec.key()).or_insert_with(|| {
            distinct.push(problem);
            distinct.len() - 1
        })
    });
    let numbers = numbers.collect();
    (distinct, numbers)
}
