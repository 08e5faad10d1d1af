//! The profiles and programs of an engine by number, listed or computed.
//!
//! Listed ones come first, in the order of the header. Behind them are those of a range ([`Shared`]): profiles by
//! rising extents, and programs likewise, for one architecture after the other.

use std::borrow::Cow;

use super::shared::Shared;
use super::{Engine, EngineError, Header, Kernel, Needs, Profile, Program, spanned, validate};
use crate::ir::TensorType;

/// A program of a range, and what it takes and gives.
#[derive(Clone, Debug, PartialEq)]
pub struct SharedProgram {
    pub profile: Profile,
    /// Numbers of its kernels in those of the range's architecture.
    pub kernels: Vec<usize>,
    pub program: Program,
}

impl Header {
    pub fn n_profiles(&self) -> usize {
        self.profiles.len() + self.n_shared()
    }

    /// One for each profile and architecture.
    pub fn n_programs(&self) -> usize {
        let n_archs = self.shared.as_ref().map_or(0, |shared| shared.archs.len());
        self.programs.len() + n_archs * self.n_shared()
    }

    /// Profiles that are computed.
    fn n_shared(&self) -> usize {
        self.shared.as_ref().map_or(0, |shared| shared.extents.n_shapes())
    }

    /// A profile by its number, proven.
    ///
    /// # Errors
    /// If there is none, or the engine is damaged.
    pub fn profile(&self, number: usize) -> Result<Cow<'_, Profile>, EngineError> {
        if let Some(profile) = self.profiles.get(number) {
            return Ok(Cow::Borrowed(profile));
        }
        let failed = |reason: String| EngineError::Invalid(format!("profile {number}: {reason}"));
        let (shared, shape) = self
            .shape_of(number)
            .ok_or_else(|| failed("it is not there".to_owned()))?;
        let profile = shared.profile(shape).map_err(failed)?;
        validate::profile(&profile, &self.profiles[0])?;
        Ok(Cow::Owned(profile))
    }

    /// Which shape of the range a profile is of.
    fn shape_of(&self, profile: usize) -> Option<(&Shared, usize)> {
        let shared = self.shared.as_ref()?;
        let shape = profile.checked_sub(self.profiles.len())?;
        (shape < shared.extents.n_shapes()).then_some((shared, shape))
    }

    /// A program by its number, proven.
    ///
    /// # Errors
    /// If there is none, or the engine is damaged.
    pub fn program(&self, number: usize) -> Result<Cow<'_, Program>, EngineError> {
        if let Some(program) = self.programs.get(number) {
            return Ok(Cow::Borrowed(program));
        }
        let behind = number - self.programs.len();
        let (arch, shape) = (behind / self.n_shared().max(1), behind % self.n_shared().max(1));
        let computed = self.shared_program(arch, self.profiles.len() + shape)?;
        Ok(Cow::Owned(computed.program))
    }

    /// The program of a computed profile for an architecture of the range, proven.
    ///
    /// # Errors
    /// If there is none, or the engine is damaged.
    pub fn shared_program(&self, arch: usize, profile: usize) -> Result<SharedProgram, EngineError> {
        let failed =
            |reason: String| EngineError::Invalid(format!("the program of profile {profile}: {reason}"));
        let found = self.shape_of(profile);
        let (shared, shape) = found.ok_or_else(|| failed("it is not there".to_owned()))?;
        let (kernels, mut program) = shared.numbered_program(arch, shape).map_err(failed)?;
        program.profile = profile;
        let profile = self.profile(profile)?.into_owned();
        validate::program(self, &program, &profile)?;
        Ok(SharedProgram {
            profile,
            kernels,
            program,
        })
    }

    /// All programs, one after the other.
    pub fn every_program(&self) -> impl Iterator<Item = Result<Cow<'_, Program>, EngineError>> {
        (0..self.n_programs()).map(|number| self.program(number))
    }

    /// The kernels of each listed program, and those of a range, with their architecture.
    pub fn kernels(&self) -> impl Iterator<Item = (&str, Vec<&Kernel>)> {
        let listed = self.programs.iter();
        let listed = listed.map(|program| (program.arch.as_str(), program.kernels.iter().collect()));
        let shared = self.shared.iter().flat_map(|shared| &shared.archs);
        listed.chain(shared.map(|own| {
            let kernels = own.kernels.iter().map(|shared| &shared.kernel);
            (own.arch.as_str(), kernels.collect())
        }))
    }

    /// The same, to be changed.
    pub fn kernels_mut(&mut self) -> impl Iterator<Item = (&str, Vec<&mut Kernel>)> {
        let listed = self.programs.iter_mut();
        let listed = listed.map(|program| (program.arch.as_str(), program.kernels.iter_mut().collect()));
        let shared = self.shared.iter_mut().flat_map(|shared| &mut shared.archs);
        listed.chain(shared.map(|own| {
            let kernels = own.kernels.iter_mut().map(|shared| &mut shared.kernel);
            (own.arch.as_str(), kernels.collect())
        }))
    }

    /// What every program for an architecture can be executed in; of all of them, where none is named.
    pub fn needs(&self, arch: Option<&str>) -> Needs {
        let is_own = |name: &str| arch.is_none_or(|arch| arch == name);
        let listed = self
            .programs
            .iter()
            .filter(|program| is_own(&program.arch))
            .map(Needs::of);
        let shared = self.shared.iter().flat_map(|shared| &shared.archs);
        let shared = shared.filter(|own| is_own(&own.arch)).map(|own| own.needs);
        listed.chain(shared).fold(Needs::default(), Needs::and)
    }

    /// The number of the profile that takes inputs of these types.
    ///
    /// # Errors
    /// If the engine is damaged.
    pub fn profile_for(&self, inputs: &[TensorType]) -> Result<Option<usize>, EngineError> {
        if let Some(listed) = self.profiles.iter().position(|profile| profile.takes(inputs)) {
            return Ok(Some(listed));
        }
        let shape = self
            .shared
            .as_ref()
            .and_then(|shared| shared.extents.number_for(inputs));
        let Some(number) = shape.map(|shape| self.profiles.len() + shape) else {
            return Ok(None);
        };
        Ok(self.profile(number)?.takes(inputs).then_some(number))
    }

    /// The types of an input in all profiles, for messages.
    pub fn spanned_input(&self, position: usize) -> String {
        match (&self.shared, self.profiles.first()) {
            (Some(shared), Some(usual)) => shared.extents.spanned(position, &usual.inputs[position]),
            _ => spanned(self.profiles.iter().map(|profile| &profile.inputs[position])),
        }
    }
}

impl Engine {
    /// Device memory of one execution: weights, and the largest arena and scratch memory of any
    /// architecture.
    pub fn device_bytes(&self) -> usize {
        let own = |arch: &str| {
            let needs = self.header.needs(Some(arch));
            needs.arena_bytes.saturating_add(needs.workspace_bytes)
        };
        let archs = self.header.archs().into_iter().map(own);
        self.header
            .weights_bytes()
            .saturating_add(archs.max().unwrap_or(0))
    }
}
