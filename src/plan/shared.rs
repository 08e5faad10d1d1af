//! The programs of the shapes of a range that share kernels, taken one at a time.

use std::collections::HashMap;

use super::columns::Texts;
use crate::engine::shared::extents::Extents;
use crate::engine::{Kernel, Needs, Profile, Program, Shared, SharedKernel, SharedPrograms, Telling};

/// Programs so far.
pub struct Sharing {
    extents: Extents,
    telling: Telling,
    profiles: Texts,
    archs: Vec<OfArch>,
}

/// Those of one architecture.
struct OfArch {
    arch: String,
    kernels: Vec<SharedKernel>,
    /// By the blob of their text, which has a name and what it is for: numbers of all that are launched of it.
    numbers: HashMap<usize, Vec<usize>>,
    programs: Texts,
    needs: Needs,
    largest: usize,
    n_programs: usize,
}

impl Sharing {
    /// Programs for the shapes of this range.
    pub fn of(extents: Extents) -> Self {
        Sharing {
            extents,
            telling: Telling::default(),
            profiles: Texts::default(),
            archs: Vec::new(),
        }
    }

    /// Adds the program of the next shape, for one architecture after the other.
    pub fn add(&mut self, profile: &Profile, mut program: Program) {
        if self.archs.last().is_none_or(|last| last.arch != program.arch) {
            self.archs.push(OfArch::new(&program.arch));
        }
        if self.archs.len() == 1 {
            self.profiles.add(&written(profile));
        }
        self.telling.fold(&mut program);
        if let Some(own) = self.archs.last_mut() {
            own.add(program);
        }
    }

    pub fn finish(self) -> Shared {
        let extents: Vec<Vec<i64>> = (0..self.extents.n_shapes())
            .map(|shape| signed(&self.extents.at(shape)))
            .collect();
        let archs = self.archs.into_iter().map(|own| SharedPrograms {
            arch: own.arch,
            kernels: own.kernels,
            programs: own.programs.finish(&extents),
            needs: own.needs,
            largest: own.largest,
        });
        Shared {
            archs: archs.collect(),
            told: self.telling.into_table(),
            profiles: self.profiles.finish(&extents),
            extents: self.extents,
        }
    }
}

fn signed(extents: &[usize]) -> Vec<i64> {
    let signed = extents.iter().map(|&extent| i64::try_from(extent));
    signed
        .collect::<Result<_, _>>()
        .expect("tensors have no more elements")
}

fn written<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("programs and profiles are written to files")
}

impl OfArch {
    fn new(arch: &str) -> Self {
        OfArch {
            arch: arch.to_owned(),
            kernels: Vec::new(),
            numbers: HashMap::new(),
            programs: Texts::default(),
            needs: Needs::default(),
            largest: 0,
            n_programs: 0,
        }
    }

    fn add(&mut self, mut program: Program) {
        let needs = Needs::of(&program);
        if needs.arena_bytes > self.needs.arena_bytes {
            self.largest = self.n_programs;
        }
        self.needs = self.needs.and(needs);
        self.n_programs += 1;
        // The profile is known where the program is wanted.
        program.profile = 0;
        let kernels: Vec<usize> = std::mem::take(&mut program.kernels)
            .into_iter()
            .map(|kernel| self.kernel(kernel))
            .collect();
        for launch in &program.launches {
            let own = &mut self.kernels[kernels[launch.kernel]];
            own.smem_bytes = own.smem_bytes.max(launch.smem_bytes);
        }
        self.programs.add(&written(&(kernels, program)));
    }

    /// The number of a kernel.
    fn kernel(&mut self, kernel: Kernel) -> usize {
        let known = self.numbers.entry(kernel.source).or_default();
        let same = known
            .iter()
            .find(|&&number| self.kernels[number].kernel == kernel);
        if let Some(&number) = same {
            return number;
        }
        known.push(self.kernels.len());
        self.kernels.push(SharedKernel {
            kernel,
            smem_bytes: 0,
        });
        self.kernels.len() - 1
    }
}
