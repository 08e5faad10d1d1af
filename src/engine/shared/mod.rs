//! Programs of the shapes of a range that share kernels: not listed, but computed from the extents.
//!
//! Such programs are alike: the same launches with other grids, arguments and places. What they have in common is in
//! the file once ([`forms`]), and what differs is a formula of the extents, or a table where none was found
//! ([`column`]). A formula is there only because it gives the number of every shape that was planned; nothing is
//! extrapolated. A program is proven when its shape is first used, as listed ones are when a file is read.

pub mod column;
pub mod extents;
pub mod forms;
pub mod text;

use serde::{Deserialize, Serialize};

use super::{ALIGNMENT, Kernel, Place, Profile, Program, Told, told};
use extents::Extents;
use forms::Forms;

/// What the profiles of a range beside the usual one take and give, and what they launch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shared {
    pub extents: Extents,
    /// What launches refer to.
    pub told: Vec<Told>,
    /// Of a [`Profile`] for each shape.
    pub profiles: Forms,
    /// One per architecture.
    pub archs: Vec<SharedPrograms>,
}

/// The programs of one architecture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedPrograms {
    pub arch: String,
    /// Of all programs, each once.
    pub kernels: Vec<SharedKernel>,
    /// Of a pair for each shape: indices into `kernels`, and the [`Program`] without them.
    pub programs: Forms,
    pub needs: Needs,
    /// The shape whose arena is the largest.
    pub largest: usize,
}

/// A kernel, and the most dynamic shared memory that a launch of it has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedKernel {
    pub kernel: Kernel,
    pub smem_bytes: u32,
}

/// Bytes that a context must have for a program, or for any of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Needs {
    pub arena_bytes: usize,
    pub arena_lower_bound_bytes: usize,
    pub workspace_bytes: usize,
    /// Staging for all inputs, one after the other.
    pub input_bytes: usize,
    /// The same for outputs.
    pub output_bytes: usize,
}

impl Needs {
    pub fn of(program: &Program) -> Self {
        Needs {
            arena_bytes: program.arena_bytes,
            arena_lower_bound_bytes: program.arena_lower_bound_bytes,
            workspace_bytes: program.workspace_bytes,
            input_bytes: staged_bytes(&program.inputs),
            output_bytes: staged_bytes(&program.outputs),
        }
    }

    /// What serves both.
    pub fn and(self, other: Self) -> Self {
        Needs {
            arena_bytes: self.arena_bytes.max(other.arena_bytes),
            arena_lower_bound_bytes: self.arena_lower_bound_bytes.max(other.arena_lower_bound_bytes),
            workspace_bytes: self.workspace_bytes.max(other.workspace_bytes),
            input_bytes: self.input_bytes.max(other.input_bytes),
            output_bytes: self.output_bytes.max(other.output_bytes),
        }
    }
}

fn staged_bytes(places: &[Place]) -> usize {
    let staged = places
        .iter()
        .map(|place| place.len.checked_next_multiple_of(ALIGNMENT));
    staged.fold(0, |sum: usize, bytes| {
        sum.saturating_add(bytes.unwrap_or(usize::MAX))
    })
}

impl Shared {
    /// Checks all that is not of single shapes, where `first` is the usual one.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check(&self, first: &Profile) -> Result<(), String> {
        self.extents.check_for(first)?;
        let (n_extents, n_shapes) = (self.extents.free.len(), self.extents.n_shapes());
        self.profiles.check(n_extents, n_shapes)?;
        for own in &self.archs {
            own.programs
                .check(n_extents, n_shapes)
                .map_err(|reason| format!("{}: {reason}", own.arch))?;
            if own.largest >= n_shapes {
                return Err(format!("shape {} of {n_shapes} is the largest", own.largest));
            }
        }
        Ok(())
    }

    /// The profile of a shape.
    ///
    /// # Errors
    /// If it cannot be computed, or is none.
    pub fn profile(&self, shape: usize) -> Result<Profile, String> {
        let text = self.profiles.text(shape, &self.extents_of(shape)?)?;
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    /// The program of a shape for an architecture, by its number. Which profile it is of, the caller knows.
    ///
    /// # Errors
    /// If it cannot be computed, or is none.
    pub fn program(&self, arch: usize, shape: usize) -> Result<Program, String> {
        Ok(self.numbered_program(arch, shape)?.1)
    }

    /// The same, with the numbers of its kernels in [`SharedPrograms::kernels`].
    ///
    /// # Errors
    /// As [`Shared::program`].
    pub fn numbered_program(&self, arch: usize, shape: usize) -> Result<(Vec<usize>, Program), String> {
        let own = self.archs.get(arch).ok_or("the architecture is not there")?;
        let text = own.programs.text(shape, &self.extents_of(shape)?)?;
        let read: Result<(Vec<usize>, Program), _> = serde_json::from_str(&text);
        let (kernels, mut program) = read.map_err(|error| error.to_string())?;
        for &number in &kernels {
            let kernel = own.kernels.get(number);
            let kernel = kernel.ok_or_else(|| format!("kernel {number} is not there"))?;
            program.kernels.push(kernel.kernel.clone());
        }
        told::unfold(&mut program, &self.told)?;
        own.check(&kernels, &program)?;
        Ok((kernels, program))
    }

    fn extents_of(&self, shape: usize) -> Result<Vec<i64>, String> {
        let extents = self.extents.at(shape).into_iter().map(i64::try_from);
        extents
            .collect::<Result<_, _>>()
            .map_err(|error| error.to_string())
    }
}

impl SharedPrograms {
    /// Checks that what was made for all programs serves this one, whose kernels have these numbers.
    fn check(&self, kernels: &[usize], program: &Program) -> Result<(), String> {
        if program.arch != self.arch || program.kernels.len() != kernels.len() || !program.problems.is_empty()
        {
            let arch = &program.arch;
            return Err(format!("it is of {arch}, or has kernels or problems of its own"));
        }
        if self.needs.and(Needs::of(program)) != self.needs {
            return Err("it needs more memory than the engine states".to_owned());
        }
        for launch in &program.launches {
            let kernel = kernels
                .get(launch.kernel)
                .and_then(|&number| self.kernels.get(number));
            if kernel.is_some_and(|kernel| launch.smem_bytes > kernel.smem_bytes) {
                return Err("it needs more shared memory than the engine states".to_owned());
            }
        }
        Ok(())
    }

    /// Whether all kernels have PTX.
    pub fn has_ptx(&self) -> bool {
        self.kernels.iter().all(|shared| shared.kernel.ptx.is_some())
    }
}
