//! What is in an engine, for `inspect`, `compile --explain` and `compile --json`.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde::Serialize;

use super::failure::Failure;
use super::memory_report::{self, MemoryReport};
use super::{out, shapes};
use crate::engine::{
    self, Binding, Engine, EngineError, Explanation, Header, Launch, Profile, Program, Rejected,
};

/// Most profiles that something is printed of each.
const MAX_SHOWN: usize = 16;

#[derive(Serialize)]
pub struct EngineReport {
    pub model: String,
    pub producer: String,
    pub precision: String,
    pub nvrtc: String,
    pub archs: Vec<String>,
    /// Contexts at the same time that kernels were chosen for.
    pub n_contexts: usize,
    /// As the first profile binds them.
    pub inputs: Vec<Binding>,
    pub outputs: Vec<Binding>,
    /// Every binding of the dims.
    pub profiles: Vec<Profile>,
    /// Compiled kernels, which programs may share.
    pub n_kernels: usize,
    /// Programs of a range that differ in more than numbers.
    pub n_forms: usize,
    /// Every launch of every profile and architecture, in execution order; of a range, of the usual shape and the one
    /// that needs most memory.
    pub kernels: Vec<KernelReport>,
    /// The largest of the architectures.
    pub arena_bytes: usize,
    /// The largest sum of live tensors at any step: no arena can be smaller.
    pub arena_lower_bound_bytes: usize,
    pub weights_bytes: usize,
    pub workspace_bytes: usize,
    /// Device memory of one execution: weights, and the largest arena and scratch memory of any architecture.
    pub device_bytes: usize,
    /// What the arenas of these programs hold when; empty for engines of versions that do not say.
    pub memory: Vec<MemoryReport>,
}

#[derive(Serialize)]
pub struct KernelReport {
    pub name: String,
    pub template: String,
    pub variant: String,
    /// ONNX nodes it computes.
    pub nodes: Vec<String>,
    /// Rules that shaped it, with file and line.
    pub rules: Vec<String>,
    /// What fusing saved, and the choices that lost.
    pub explanation: Explanation,
    pub arch: String,
    pub profile: usize,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// 0 is the caller's.
    pub stream: u32,
    /// Static and dynamic shared memory.
    pub smem_bytes: u32,
    /// Per thread.
    pub registers: u32,
    /// Local memory per thread.
    pub local_bytes: u32,
    pub predicted_us: f64,
    pub measured_us: Option<f64>,
}

impl EngineReport {
    pub fn of(engine: &Engine) -> Result<Self, EngineError> {
        let header = &engine.header;
        let needs = header.needs(None);
        let profiles = (0..header.n_profiles()).map(|number| Ok(header.profile(number)?.into_owned()));
        let profiles: Vec<Profile> = profiles.collect::<Result<_, EngineError>>()?;
        let programs = told_of(header)?;
        Ok(EngineReport {
            model: header.model.clone(),
            producer: header.producer.clone(),
            precision: header.precision.clone(),
            nvrtc: header.nvrtc.clone(),
            archs: header.archs().into_iter().map(str::to_owned).collect(),
            n_contexts: header.n_contexts(),
            inputs: profiles
                .first()
                .map_or_else(Vec::new, |first| first.inputs.clone()),
            outputs: profiles
                .first()
                .map_or_else(Vec::new, |first| first.outputs.clone()),
            profiles,
            n_kernels: n_kernels(header),
            n_forms: n_forms(header),
            kernels: programs.iter().flat_map(|program| kernels(program)).collect(),
            arena_bytes: needs.arena_bytes,
            arena_lower_bound_bytes: needs.arena_lower_bound_bytes,
            weights_bytes: header.weights_bytes(),
            workspace_bytes: needs.workspace_bytes,
            device_bytes: engine.device_bytes(),
            memory: programs
                .iter()
                .filter_map(|program| MemoryReport::of(program))
                .collect(),
        })
    }

    /// A few lines for people.
    pub fn print_summary(&self) -> Result<(), Failure> {
        out::line(&format!(
            "engine    {} in {}, by {}, NVRTC {}",
            self.model, self.precision, self.producer, self.nvrtc
        ))?;
        for (number, binding) in self.inputs.iter().enumerate() {
            let own = self.shown_type(&|profile| &profile.inputs[number], || binding.ty().to_string());
            out::line(&format!("{:9} {}: {own}", "input", binding.name))?;
        }
        for (number, binding) in self.outputs.iter().enumerate() {
            let usual = || self.profiles[0].shown_output(number);
            let own = self.shown_type(&|profile| &profile.outputs[number], usual);
            out::line(&format!("{:9} {}: {own}", "output", binding.name))?;
        }
        out::line(&format!(
            "memory    weights {}, arena {} (lower bound {}), workspace {}",
            mib(self.weights_bytes),
            mib(self.arena_bytes),
            mib(self.arena_lower_bound_bytes),
            mib(self.workspace_bytes)
        ))?;
        out::line(&format!("peak      {} bytes of device memory", self.device_bytes))?;
        if self.n_contexts > 1 {
            out::line(&format!("streams   {} at the same time", self.n_contexts))?;
        }
        if self.is_wide() {
            let forms = match self.n_forms {
                0 => String::new(),
                n_forms => format!(", launched in {n_forms} forms"),
            };
            out::line(&format!(
                "kernels   {} for {} shapes{forms}",
                self.n_kernels,
                self.profiles.len()
            ))?;
        }
        for (arch, profile) in self.shown_programs() {
            let own = self.kernels_of(arch, profile);
            let predicted: f64 = own.iter().map(|kernel| kernel.predicted_us).sum();
            out::line(&format!(
                "{arch:9} {} kernels, predicted {predicted:.1} us{}",
                own.len(),
                self.shapes_of(profile)
            ))?;
        }
        Ok(())
    }

    /// A line per launch: what the arena holds.
    pub fn print_memory(&self) -> Result<(), Failure> {
        if self.memory.is_empty() {
            return Err(Failure::failed(
                "the engine is of a format that does not say when tensors are alive: compile the model again",
            ));
        }
        self.shown_memory().into_iter().try_for_each(MemoryReport::print)
    }

    /// The same as a page.
    pub fn memory_page(&self) -> String {
        memory_report::page(&self.model, &self.shown_memory())
    }

    /// The memory of every program, or where there are many, of the usual shape and of the one that needs most.
    fn shown_memory(&self) -> Vec<&MemoryReport> {
        if !self.is_wide() {
            return self.memory.iter().collect();
        }
        let largest = self.memory.iter().map(|own| own.arena_bytes).max();
        let most = self
            .memory
            .iter()
            .position(|own| Some(own.arena_bytes) == largest);
        let shown: BTreeSet<usize> = most.into_iter().chain([0]).collect();
        shown
            .into_iter()
            .filter_map(|number| self.memory.get(number))
            .collect()
    }

    fn programs(&self) -> impl Iterator<Item = (&str, usize)> {
        let profiles = 0..self.profiles.len();
        profiles.flat_map(|profile| self.archs.iter().map(move |arch| (arch.as_str(), profile)))
    }

    /// Whether something is printed of the usual profile alone: there are too many, or the others are computed.
    fn is_wide(&self) -> bool {
        self.profiles.len() > MAX_SHOWN || self.n_forms > 0
    }

    /// The types that a tensor has in the profiles where these are many, else the `usual` one.
    fn shown_type(&self, binding: &dyn Fn(&Profile) -> &Binding, usual: impl Fn() -> String) -> String {
        if self.is_wide() {
            engine::spanned(self.profiles.iter().map(binding))
        } else {
            usual()
        }
    }

    /// Those of all profiles, or where there are many, of the first one, which is the usual one.
    fn shown_programs(&self) -> impl Iterator<Item = (&str, usize)> {
        self.programs()
            .filter(|(_, profile)| *profile == 0 || !self.is_wide())
    }

    fn kernels_of(&self, arch: &str, profile: usize) -> Vec<&KernelReport> {
        let own = self
            .kernels
            .iter()
            .filter(|kernel| kernel.arch == arch && kernel.profile == profile);
        own.collect()
    }

    /// Which profile it is, where there are several.
    fn shapes_of(&self, profile: usize) -> String {
        if self.profiles.len() == 1 {
            String::new()
        } else {
            format!(", for {}", shapes::text(&self.profiles[profile]))
        }
    }

    /// A few lines per launch; with `explain` also what fusing saved and what else could have been
    /// launched.
    pub fn print_kernels(&self, explain: bool) -> Result<(), Failure> {
        for (arch, profile) in self.shown_programs() {
            out::line(&format!("\nkernels for {arch}{}", self.shapes_of(profile)))?;
            print_launches(&self.kernels_of(arch, profile), explain)?;
        }
        if self.is_wide() {
            let others = self.profiles.len() - 1;
            out::line(&format!("\n{others} more shapes"))?;
        }
        Ok(())
    }
}

fn print_launches(own: &[&KernelReport], explain: bool) -> Result<(), Failure> {
    let name = own.iter().map(|kernel| kernel.name.len()).max().unwrap_or(0);
    for (position, kernel) in own.iter().enumerate() {
        let stream = match kernel.stream {
            0 => String::new(),
            other => format!(" stream {other}"),
        };
        out::line(&format!(
            "{position:4} {:8.2} us  {:name$}  grid {:>14} block {:>4} smem {:>6} regs {:>3}{stream}",
            kernel.predicted_us,
            kernel.name,
            product(kernel.grid),
            kernel.block.iter().product::<u32>(),
            kernel.smem_bytes,
            kernel.registers
        ))?;
        out::line(&format!("       nodes {}", listed(&kernel.nodes)))?;
        if !kernel.rules.is_empty() {
            out::line(&format!("       rules {}", listed(&kernel.rules)))?;
        }
        if explain {
            print_explanation(&kernel.explanation)?;
        }
    }
    Ok(())
}

fn print_explanation(explanation: &Explanation) -> Result<(), Failure> {
    if explanation.saved_launches > 0 {
        out::line(&format!(
            "       saves {} {}, {}",
            explanation.saved_launches,
            if explanation.saved_launches == 1 {
                "launch"
            } else {
                "launches"
            },
            mib(usize::try_from(explanation.saved_bytes).unwrap_or(usize::MAX))
        ))?;
    }
    for other in &explanation.rejected {
        out::line(&format!(
            "       lost  +{:.2} us {}",
            other.lost_us,
            difference(other)
        ))?;
    }
    Ok(())
}

/// How a choice that lost differs from the launch.
fn difference(other: &Rejected) -> String {
    let parts = [
        ("without", &other.without),
        ("with", &other.with),
        ("in another form, by", &other.rules),
    ];
    let parts = parts.iter().filter(|(_, names)| !names.is_empty());
    let parts: Vec<String> = parts
        .map(|(word, names)| format!("{word} {}", listed(names)))
        .collect();
    if parts.is_empty() {
        "in another form".to_owned()
    } else {
        parts.join("; ")
    }
}

/// The programs of which a report tells: those that are listed, and of a range those that need most memory.
fn told_of(header: &Header) -> Result<Vec<Cow<'_, Program>>, EngineError> {
    let mut programs: Vec<Cow<'_, Program>> = header.programs.iter().map(Cow::Borrowed).collect();
    let shared = header.shared.iter().flat_map(|shared| &shared.archs);
    for (arch, own) in shared.enumerate() {
        let program = header
            .shared_program(arch, header.profiles.len() + own.largest)?
            .program;
        programs.push(Cow::Owned(program));
    }
    Ok(programs)
}

fn n_kernels(header: &Header) -> usize {
    let kernels = header.kernels().flat_map(|(_, kernels)| kernels);
    kernels
        .map(|kernel| kernel.cubin)
        .collect::<BTreeSet<usize>>()
        .len()
}

fn n_forms(header: &Header) -> usize {
    let archs = header.shared.iter().flat_map(|shared| &shared.archs);
    archs.map(|own| own.programs.forms.len()).sum()
}

fn kernels(program: &Program) -> impl Iterator<Item = KernelReport> {
    program.launches.iter().map(|launch| kernel(program, launch))
}

fn kernel(program: &Program, launch: &Launch) -> KernelReport {
    let kernel = &program.kernels[launch.kernel];
    KernelReport {
        name: kernel.name.clone(),
        template: kernel.template.clone(),
        variant: kernel.variant.clone(),
        nodes: launch.nodes.clone(),
        rules: launch.rules.clone(),
        explanation: launch.explanation.clone(),
        arch: program.arch.clone(),
        profile: program.profile,
        grid: launch.grid,
        block: launch.block,
        stream: launch.stream,
        smem_bytes: kernel.static_smem_bytes + launch.smem_bytes,
        registers: kernel.registers,
        local_bytes: kernel.local_bytes,
        predicted_us: launch.predicted_us,
        measured_us: launch.measured_us,
    }
}

fn product(dims: [u32; 3]) -> String {
    format!("{}x{}x{}", dims[0], dims[1], dims[2])
}

fn listed(names: &[String]) -> String {
    names.join(", ")
}

#[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
fn mib(n_bytes: usize) -> String {
    format!("{:.2} MiB", n_bytes as f64 / f64::from(1 << 20))
}
