//! Which program of an engine a device executes, and which code of its kernels.

use super::{Engine, Program};

impl Engine {
    /// The listed program of a profile for a device of compute capability `sm` (times ten), and which code of its
    /// kernels: as [`Engine::program_for`], else the newest older one that has PTX.
    pub fn code_for(&self, sm: u32, profile: usize) -> Option<(&Program, Code)> {
        let has_ptx = |program: &Program| program.kernels.iter().all(|kernel| kernel.ptx.is_some());
        best(sm, self.listed(profile), |program| {
            (program.arch.as_str(), has_ptx(program))
        })
    }

    /// The number of the architecture whose programs of a range such a device executes, and which code of their kernels.
    pub fn shared_code_for(&self, sm: u32) -> Option<(usize, Code)> {
        let archs = &self.header.shared.as_ref()?.archs;
        best(sm, 0..archs.len(), |&number| {
            (archs[number].arch.as_str(), archs[number].has_ptx())
        })
    }

    /// The listed program of a profile for a device of compute capability `sm` (times ten): the exact
    /// architecture, its `a` form first, else the newest older one of the same major
    /// version, whose cubins the device still executes. Tegra devices share binaries with none.
    pub fn program_for(&self, sm: u32, profile: usize) -> Option<&Program> {
        let found = best(sm, self.listed(profile), |program| (program.arch.as_str(), false));
        found.map(|(program, _)| program)
    }

    fn listed(&self, profile: usize) -> impl Iterator<Item = &Program> {
        let programs = self.header.programs.iter();
        programs.filter(move |program| program.profile == profile)
    }
}

/// Of several for the same work, by architecture and whether they have PTX, the one for a device.
fn best<'a, T>(
    sm: u32,
    all: impl Iterator<Item = T>,
    of: impl Fn(&T) -> (&'a str, bool),
) -> Option<(T, Code)> {
    let ranked = all.filter_map(|own| {
        let (name, has_ptx) = of(&own);
        let arch = arch_number(name)?;
        if executes(sm, arch) {
            return Some(((true, arch), own));
        }
        (has_ptx && !arch.1 && arch.0 <= sm).then_some(((false, arch), own))
    });
    let ((has_cubin, _), own) = ranked.max_by_key(|(rank, _)| *rank)?;
    Some((own, if has_cubin { Code::Cubin } else { Code::Ptx }))
}

/// What the driver is given of a program's kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Cubin,
    /// Compiled by the driver when it is loaded.
    Ptx,
}

/// Compute capabilities (times ten) of integrated devices.
const TEGRA: [u32; 2] = [87, 110];

/// Whether a device of compute capability `sm` (times ten) executes cubins for `arch`, as
/// [`arch_number`] gives it.
pub fn executes(sm: u32, arch: (u32, bool)) -> bool {
    let (own, specific) = arch;
    let tegra = TEGRA.contains(&own) || TEGRA.contains(&sm);
    own == sm || (!specific && !tegra && own < sm && own / 10 == sm / 10)
}

/// `sm_90a` as `(90, true)`.
pub fn arch_number(name: &str) -> Option<(u32, bool)> {
    let digits = name.strip_prefix("sm_")?;
    let (digits, specific) = match digits.strip_suffix('a') {
        Some(digits) => (digits, true),
        None => (digits, false),
    };
    Some((digits.parse().ok()?, specific))
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::*;

    #[test]
    fn a_device_gets_its_own_program_or_an_older_one_of_its_family() {
        let engine = example(&["sm_80", "sm_86", "sm_90a", "sm_90"]);
        let arch = |sm| engine.program_for(sm, 0).map(|program| program.arch.as_str());
        assert_eq!(arch(80), Some("sm_80"));
        assert_eq!(arch(89), Some("sm_86"));
        assert_eq!(arch(87), None);
        assert_eq!(arch(90), Some("sm_90a"));
        assert_eq!(arch(100), None);
        assert_eq!(arch(75), None);
    }

    #[test]
    fn newer_devices_get_the_newest_program_with_ptx() {
        let mut engine = example(&["sm_80", "sm_87", "sm_90a"]);
        let code = |engine: &Engine, sm| {
            let found = engine.code_for(sm, 0);
            found.map(|(program, code)| (program.arch.clone(), code))
        };
        assert_eq!(code(&engine, 120), None);
        for program in &mut engine.header.programs {
            program.kernels[0].ptx = Some(2);
        }
        let ptx_of = |arch: &str| Some((arch.to_owned(), Code::Ptx));
        assert_eq!(code(&engine, 120), ptx_of("sm_87"));
        assert_eq!(code(&engine, 75), None);
        assert_eq!(code(&engine, 89), Some(("sm_80".to_owned(), Code::Cubin)));
        assert_eq!(code(&engine, 90), Some(("sm_90a".to_owned(), Code::Cubin)));
    }
}
