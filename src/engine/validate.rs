//! Proofs about an engine before a device sees it.
//!
//! Every index is in range, every span lies within its memory, every launch fits the
//! limits that all supported architectures share, inputs and outputs are as large as
//! their types say, and nothing in the arena is overwritten while it is used. Of a range, what is not of single
//! shapes is checked here, and each program when it is computed. Cubins themselves are code for the GPU and cannot be proved.

use super::{
    ALIGNMENT, ARENA_ALIGNMENT, Arg, Binding, Engine, EngineError, Header, Kernel, Launch, MAX_CONTEXTS,
    Memory, Place, Profile, Program, Shared, Task, arch_number, residents, streams, stripped,
};
use crate::ir::DType;
use crate::ir::types::checked_bytes;

/// Largest grid extents CUDA allows.
const MAX_GRID: [u32; 3] = [i32::MAX as u32, 65_535, 65_535];
const MAX_BLOCK: [u32; 3] = [1024, 1024, 64];
const MAX_THREADS: u32 = 1024;
/// Most dynamic shared memory of any supported architecture.
const MAX_SMEM_BYTES: u32 = 227 * 1024;
/// Bytes of kernel parameters that every driver accepts.
const MAX_ARGS: usize = 512;

/// Checks everything the runtime relies on.
///
/// # Errors
/// The first thing that does not hold.
pub fn validate(engine: &Engine) -> Result<(), EngineError> {
    let header = &engine.header;
    if header.blobs.len() != engine.blobs.len() || header.weights >= engine.blobs.len() {
        return invalid("the weights blob is missing");
    }
    stripped::check(header)?;
    if !(1..=MAX_CONTEXTS).contains(&header.n_contexts()) {
        return invalid(format!("kernels for {} contexts", header.n_contexts()));
    }
    for own in &header.profiles {
        profile(own, &header.profiles[0])?;
    }
    for own in &header.programs {
        let Some(profile) = header.profiles.get(own.profile) else {
            return invalid(format!(
                "program {}: profile {} is not there",
                own.arch, own.profile
            ));
        };
        program(header, own, profile)?;
    }
    header
        .shared
        .as_ref()
        .map_or(Ok(()), |shared| check_shared(header, shared))
}

/// Checks what is not of single shapes: [`program`] proves them when they are computed.
fn check_shared(header: &Header, shared: &Shared) -> Result<(), EngineError> {
    let failed = |reason: String| EngineError::Invalid(format!("the range: {reason}"));
    let Some(first) = header.profiles.first() else {
        return invalid("the range: its usual shape is not listed");
    };
    shared.check(first).map_err(failed)?;
    for own in &shared.archs {
        let kernels = own.kernels.iter().map(|shared| &shared.kernel);
        check_kernels(header, kernels).map_err(failed)?;
        if own
            .kernels
            .iter()
            .any(|shared| shared.smem_bytes > MAX_SMEM_BYTES)
        {
            return invalid("the range: shared memory exceeds what any device allows");
        }
    }
    Ok(())
}

/// Checks one program, which is of `profile`, against what the header says of the rest.
///
/// # Errors
/// The first thing that does not hold.
pub fn program(header: &Header, program: &Program, profile: &Profile) -> Result<(), EngineError> {
    let checker = Checker { header, program };
    checker
        .check(profile)
        .map_err(|reason| EngineError::Invalid(format!("program {}: {reason}", program.arch)))
}

fn check_kernels<'a>(header: &Header, kernels: impl Iterator<Item = &'a Kernel>) -> Result<(), String> {
    for (number, kernel) in kernels.enumerate() {
        let last = kernel.cubin.max(kernel.source).max(kernel.ptx.unwrap_or(0));
        if last >= header.blobs.len() {
            return Err(format!("kernel {number} names a blob that is not there"));
        }
    }
    Ok(())
}

fn invalid<T>(reason: impl Into<String>) -> Result<T, EngineError> {
    Err(EngineError::Invalid(reason.into()))
}

fn binding_bytes(binding: &Binding) -> Result<usize, EngineError> {
    match checked_bytes(binding.dtype, &binding.dims) {
        Some(bytes) => Ok(bytes),
        None => invalid(format!("`{}` is larger than memory", binding.name)),
    }
}

/// Checks a profile: all of them bind the dims of the same inputs and outputs.
///
/// # Errors
/// The first thing that does not hold.
pub fn profile(profile: &Profile, first: &Profile) -> Result<(), EngineError> {
    for binding in profile.inputs.iter().chain(&profile.outputs) {
        binding_bytes(binding)?;
    }
    if let Some(count) = profile
        .counts
        .iter()
        .find(|count| count.dtype != DType::I64 || !count.dims.is_empty())
    {
        return invalid(format!("count `{}` is no i64", count.name));
    }
    for bound in &profile.bounds {
        let output = profile.outputs.get(bound.output);
        if output.is_none_or(|output| bound.axis >= output.dims.len()) || bound.count >= profile.counts.len()
        {
            return invalid("a bound names an output, an axis or a count that is not there");
        }
    }
    if profile
        .limits
        .iter()
        .any(|limit| limit.count >= profile.counts.len())
    {
        return invalid("a limit names a count that is not there");
    }
    let same = |own: &[Binding], others: &[Binding]| {
        own.len() == others.len()
            && own
                .iter()
                .zip(others)
                .all(|(a, b)| a.name == b.name && a.dtype == b.dtype)
    };
    let same_ports = same(&profile.inputs, &first.inputs)
        && same(&profile.outputs, &first.outputs)
        && same(&profile.counts, &first.counts);
    if same_ports && profile.bounds == first.bounds && profile.limits == first.limits {
        Ok(())
    } else {
        invalid("profiles differ in more than dims")
    }
}

struct Checker<'a> {
    header: &'a Header,
    program: &'a Program,
}

impl Checker<'_> {
    fn check(&self, profile: &Profile) -> Result<(), String> {
        match arch_number(&self.program.arch) {
            None => return Err("the architecture has no number".to_owned()),
            Some((sm, _)) if sm < 90 && self.program.kernels_wait => {
                return Err("kernels that wait by themselves need sm_90".to_owned());
            }
            Some(_) => {}
        }
        check_kernels(self.header, self.program.kernels.iter())?;
        for (number, problem) in self.program.problems.iter().enumerate() {
            if problem.graph >= self.header.blobs.len() {
                return Err(format!("problem {number} names a blob that is not there"));
            }
        }
        for (number, launch) in self.program.launches.iter().enumerate() {
            self.check_launch(launch)
                .map_err(|reason| format!("launch {number}: {reason}"))?;
        }
        self.check_bindings("input", &profile.inputs, &self.program.inputs, true)?;
        let outputs = [profile.outputs.as_slice(), &profile.counts].concat();
        self.check_bindings("output", &outputs, &self.program.outputs, false)?;
        residents::check(self.program)
    }

    fn check_bindings(
        &self,
        what: &str,
        bindings: &[Binding],
        places: &[Place],
        written: bool,
    ) -> Result<(), String> {
        if bindings.len() != places.len() {
            return Err(format!("{} places for {} {what}s", places.len(), bindings.len()));
        }
        for (binding, place) in bindings.iter().zip(places) {
            self.check_place(place)
                .map_err(|reason| format!("{what} `{}`: {reason}", binding.name))?;
            let bytes = binding_bytes(binding).map_err(|error| error.to_string())?;
            if place.len != bytes {
                return Err(format!(
                    "{what} `{}` takes {bytes} bytes but has {}",
                    binding.name, place.len
                ));
            }
            if written && place.memory != Memory::Arena {
                return Err(format!("{what} `{}` is outside the arena", binding.name));
            }
        }
        Ok(())
    }

    fn check_launch(&self, launch: &Launch) -> Result<(), String> {
        if launch.kernel >= self.program.kernels.len() {
            return Err(format!("kernel {} is not there", launch.kernel));
        }
        if launch.stream >= streams::MAX_STREAMS {
            return Err(format!("stream {} of {}", launch.stream, streams::MAX_STREAMS));
        }
        let within = |extents: [u32; 3], most: [u32; 3]| {
            extents
                .iter()
                .zip(most)
                .all(|(&extent, most)| (1..=most).contains(&extent))
        };
        let n_threads: u32 = launch
            .block
            .iter()
            .copied()
            .try_fold(1, u32::checked_mul)
            .unwrap_or(u32::MAX);
        if !within(launch.grid, MAX_GRID)
            || !within(launch.block, MAX_BLOCK)
            || n_threads > MAX_THREADS
            || launch.smem_bytes > MAX_SMEM_BYTES
        {
            return Err(format!(
                "grid {:?}, block {:?} or {} bytes of shared memory exceed what any device allows",
                launch.grid, launch.block, launch.smem_bytes
            ));
        }
        if launch.args.len() > MAX_ARGS {
            return Err(format!("{} arguments", launch.args.len()));
        }
        for (number, arg) in launch.args.iter().enumerate() {
            self.check_arg(arg)
                .map_err(|reason| format!("argument {number}: {reason}"))?;
        }
        launch.task.as_ref().map_or(Ok(()), |task| {
            self.check_task(task).map_err(|reason| format!("task: {reason}"))
        })
    }

    /// Operands are somewhere. That their kernels stay within them is proven of the arguments that are
    /// made of them.
    fn check_task(&self, task: &Task) -> Result<(), String> {
        if task.problem >= self.program.problems.len() {
            return Err(format!("problem {} is not there", task.problem));
        }
        let mut places = task.inputs.iter().chain(&task.outputs);
        places.try_for_each(|place| self.check_place(place))
    }

    fn check_arg(&self, arg: &Arg) -> Result<(), String> {
        match arg {
            Arg::Writes(place) if place.memory == Memory::Weights => {
                Err("weights are shared by contexts and cannot be written".to_owned())
            }
            Arg::Reads(place) | Arg::Writes(place) => self.check_place(place),
            Arg::I32(_) => Ok(()),
            Arg::TensorMap(map) => {
                if arch_number(&self.program.arch).is_none_or(|(sm, _)| sm < 90) {
                    return Err("tensor maps need sm_90".to_owned());
                }
                self.check_place(&map.place)?;
                map.view().check(map.place.len)
            }
        }
    }

    fn check_place(&self, place: &Place) -> Result<(), String> {
        let (size, alignment) = match place.memory {
            Memory::Arena => (self.program.arena_bytes, ARENA_ALIGNMENT),
            Memory::Weights => (self.header.weights_bytes(), ALIGNMENT),
            Memory::Workspace => (self.program.workspace_bytes, ALIGNMENT),
        };
        let fits = place.offset.checked_add(place.len).is_some_and(|end| end <= size);
        if !fits || !place.offset.is_multiple_of(alignment) {
            return Err(format!(
                "{} bytes at {} do not fit {:?} of {size} bytes",
                place.len, place.offset, place.memory
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::super::{Bound, Limit, TensorMap};
    use super::*;

    /// Applies one change to a valid engine and expects a complaint that contains `words`.
    fn refuses(words: &str, change: impl FnOnce(&mut Program)) {
        refuses_on("sm_87", words, change);
    }

    fn refuses_on(arch: &str, words: &str, change: impl FnOnce(&mut Program)) {
        let mut engine = example(&[arch]);
        change(&mut engine.header.programs[0]);
        let error = validate(&engine).expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    }

    #[test]
    fn the_example_is_valid() {
        validate(&example(&["sm_87"])).unwrap();
    }

    #[test]
    fn kernels_are_for_a_number_of_contexts_that_may_be() {
        for (n_contexts, is_valid) in [(0, false), (4, true), (MAX_CONTEXTS + 1, false)] {
            let mut engine = example(&["sm_87"]);
            engine.header.n_contexts = Some(n_contexts);
            assert_eq!(validate(&engine).is_ok(), is_valid, "{n_contexts}");
        }
    }

    #[test]
    fn spans_outside_their_memory_are_refused() {
        refuses("argument 1", |program| {
            program.launches[0].args[1] = Arg::Reads(Place {
                memory: Memory::Weights,
                offset: 0,
                len: 17,
            });
        });
        refuses("do not fit", |program| program.arena_bytes = 256);
        refuses("input `x`", |program| program.inputs[0].offset = usize::MAX - 255);
        refuses("takes 16 bytes", |program| program.outputs[0].len = 12);
    }

    #[test]
    fn tasks_name_problems_and_places_that_are_there() {
        let task = |program: &mut Program, change: fn(&mut Task)| {
            change(program.launches[0].task.as_mut().expect("the example has one"));
        };
        refuses("task: problem 1 is not there", |program| {
            task(program, |task| task.problem = 1);
        });
        refuses("task: 512 bytes at 256 do not fit", |program| {
            task(program, |task| task.outputs[0].len = 512);
        });
        refuses("problem 0 names a blob", |program| program.problems[0].graph = 3);
        let mut engine = example(&["sm_87"]);
        engine.header.programs[0].launches[0].task = None;
        engine.header.programs[0].problems.clear();
        validate(&engine).unwrap();
    }

    #[test]
    fn weights_are_not_written() {
        refuses("cannot be written", |program| {
            let Arg::Reads(place) = program.launches[0].args[1] else {
                panic!("the example reads weights there")
            };
            program.launches[0].args[1] = Arg::Writes(place);
        });
    }

    #[test]
    fn profiles_bind_the_same_inputs() {
        refuses("profile 1", |program| program.profile = 1);
        let mut engine = example(&["sm_87"]);
        let mut other = engine.header.profiles[0].clone();
        other.inputs[0].dims = vec![2, 2];
        engine.header.profiles.push(other.clone());
        validate(&engine).unwrap();
        other.inputs[0].name = "z".to_owned();
        engine.header.profiles.push(other);
        let error = validate(&engine).unwrap_err().to_string();
        assert!(error.contains("more than dims"), "{error}");
    }

    #[test]
    fn counts_are_integers_with_a_place_and_bounds_name_them() {
        let counted = |change: fn(&mut Profile)| {
            let mut engine = example(&["sm_87"]);
            let profile = &mut engine.header.profiles[0];
            profile.counts.push(Binding {
                name: "count".to_owned(),
                dtype: DType::I64,
                dims: Vec::new(),
            });
            profile.bounds.push(Bound {
                output: 0,
                axis: 0,
                count: 0,
            });
            change(profile);
            // Files that say what lives in the arena are proven to keep it; this one does not.
            let program = &mut engine.header.programs[0];
            program.tensors = None;
            let place = program.outputs[0];
            program.outputs.push(Place { len: 8, ..place });
            engine
        };
        let refused = |engine: &Engine, words: &str| {
            let error = validate(engine).expect_err(words).to_string();
            assert!(error.contains(words), "{error}");
        };
        let mut engine = counted(|_| {});
        validate(&engine).unwrap();
        refused(
            &counted(|profile| profile.counts[0].dtype = DType::I32),
            "is no i64",
        );
        refused(&counted(|profile| profile.counts[0].dims.push(1)), "is no i64");
        refused(
            &counted(|profile| profile.bounds[0].axis = 2),
            "that is not there",
        );
        refused(
            &counted(|profile| profile.bounds[0].output = 1),
            "that is not there",
        );
        refused(
            &counted(|profile| profile.bounds[0].count = 1),
            "that is not there",
        );
        refused(&counted(|profile| profile.counts.clear()), "that is not there");
        validate(&counted(|profile| {
            profile.limits.push(Limit { count: 0, most: 3 });
        }))
        .unwrap();
        refused(
            &counted(|profile| profile.limits.push(Limit { count: 1, most: 3 })),
            "a limit names a count that is not there",
        );
        engine.header.programs[0].outputs[1].len = 4;
        refused(&engine, "takes 8 bytes but has 4");
        engine.header.programs[0].outputs.pop();
        refused(&engine, "1 places for 2 outputs");
    }

    #[test]
    fn tensor_maps_stay_within_their_tensors() {
        let map = |dims: &[usize], len| {
            Arg::TensorMap(TensorMap {
                place: Place {
                    memory: Memory::Weights,
                    offset: 0,
                    len,
                },
                element_bytes: 2,
                dims: dims.to_vec(),
                strides: vec![16],
                tile: vec![64, 64],
                pixels: None,
            })
        };
        refuses("need sm_90", |program| {
            program.launches[0].args[1] = map(&[8, 1], 16);
        });
        refuses_on("sm_90a", "leaves its 16 bytes", |program| {
            program.launches[0].args[1] = map(&[8, 2], 16);
        });
        refuses_on("sm_90a", "do not fit", |program| {
            program.launches[0].args[1] = map(&[8, 1], 32);
        });
        let mut engine = example(&["sm_90a"]);
        engine.header.programs[0].launches[0].args[1] = map(&[8, 1], 16);
        validate(&engine).unwrap();
    }

    #[test]
    fn impossible_launches_are_refused() {
        refuses("exceed", |program| program.launches[0].block = [1024, 2, 1]);
        refuses("exceed", |program| program.launches[0].grid = [0, 1, 1]);
        refuses("kernel 9", |program| program.launches[0].kernel = 9);
        refuses("blob", |program| program.kernels[0].cubin = 3);
        refuses("need sm_90", |program| program.kernels_wait = true);
    }
}
