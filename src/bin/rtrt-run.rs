//! `rtrt-run`: executes an engine on a GPU. Needs the NVIDIA driver and nothing else.
//!
//! Inputs and outputs are raw files: elements one after the other, little-endian, in the order of
//! the axes, as `NumPy`'s `tofile` writes them.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use rtrt_codegen::cuda::Context;
use rtrt_codegen::engine::{self, Binding, Engine, EngineError, Header, Profile, PublicKey, Shared};
use rtrt_codegen::ir::{HostTensor, TensorType};
use rtrt_codegen::runtime::{DeviceEngine, ExecutionContext};

const USAGE: &str = "\
Executes an engine on a GPU.

Usage: rtrt-run ENGINE [--input NAME=FILE].. [--output NAME=FILE].. [--profile N | --shape NAME=2x128 ..]
                [--device N] [--times N] [--require-signature PUBKEY]
       rtrt-run ENGINE --info [--require-signature PUBKEY]

Files are raw: elements one after the other, little-endian. Inputs without a file are zero. `--shape` gives
the dims of inputs that are other than in profile 0. `--times N`
executes N times more and prints microseconds. The type of an output is printed where data decides its
extents. With `--require-signature` an engine is used only if it is
signed by the owner of that ed25519 public key (PEM, DER or 32 bytes). Exit codes: 0 done, 1 failed, 2 usage.";

/// Exit code of arguments that cannot be meant.
const WRONG_USAGE: u8 = 2;

struct Arguments {
    engine: String,
    inputs: Vec<(String, String)>,
    outputs: Vec<(String, String)>,
    profile: usize,
    /// Dims of inputs, which tell the profile.
    shapes: Vec<(String, Vec<usize>)>,
    device: usize,
    times: usize,
    info: bool,
    signer: Option<String>,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("error: {message}\n\n{USAGE}");
            return ExitCode::from(WRONG_USAGE);
        }
    };
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// `None` where help is asked for.
fn parse(mut given: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let mut arguments = Arguments {
        engine: String::new(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        profile: 0,
        shapes: Vec::new(),
        device: 0,
        times: 0,
        info: false,
        signer: None,
    };
    while let Some(flag) = given.next() {
        let mut value = || given.next().ok_or_else(|| format!("`{flag}` lacks its value"));
        match flag.as_str() {
            "-h" | "--help" => return Ok(None),
            "--info" => arguments.info = true,
            "--input" => arguments.inputs.push(named(&value()?)?),
            "--output" => arguments.outputs.push(named(&value()?)?),
            "--profile" => arguments.profile = number(&flag, &value()?)?,
            "--shape" => arguments.shapes.push(shape(&flag, &value()?)?),
            "--device" => arguments.device = number(&flag, &value()?)?,
            "--require-signature" => arguments.signer = Some(value()?),
            "--times" => arguments.times = number(&flag, &value()?)?,
            _ if flag.starts_with('-') => return Err(format!("there is no flag `{flag}`")),
            _ if arguments.engine.is_empty() => arguments.engine = flag,
            _ => return Err(format!("`{flag}` is one file too many")),
        }
    }
    if arguments.engine.is_empty() {
        return Err("which engine?".to_owned());
    }
    Ok(Some(arguments))
}

fn named(text: &str) -> Result<(String, String), String> {
    let (name, file) = text
        .split_once('=')
        .ok_or_else(|| format!("`{text}` is not NAME=FILE"))?;
    Ok((name.to_owned(), file.to_owned()))
}

/// `NAME=2x128`.
fn shape(flag: &str, text: &str) -> Result<(String, Vec<usize>), String> {
    let (name, dims) = named(text)?;
    let dims = dims.split('x').map(|dim| number(flag, dim));
    Ok((name, dims.collect::<Result<_, _>>()?))
}

fn number(flag: &str, text: &str) -> Result<usize, String> {
    text.parse()
        .map_err(|_| format!("`{flag} {text}`: expected a number"))
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let started = Instant::now();
    let engine = load(arguments).map_err(|error| error.to_string())?;
    if arguments.info {
        print_info(&engine);
        return Ok(());
    }
    let read_ms = started.elapsed().as_secs_f64() * 1e3;
    let profile = engine.header.profile(profile_number(arguments, &engine.header)?);
    let profile = profile.map_err(|error| error.to_string())?;
    let inputs = read_inputs(arguments, &profile)?;
    check_names(&arguments.outputs, &profile.outputs)?;
    let (mut context, outputs, first_ms) = execute(&engine, arguments.device, &inputs)?;
    println!("engine read in {read_ms:.1} ms, first outputs {first_ms:.1} ms later");
    for (binding, output) in profile.outputs.iter().zip(&outputs) {
        if output.dims() != binding.dims {
            println!("{}: {}", binding.name, output.ty());
        }
        for (_, file) in arguments.outputs.iter().filter(|(name, _)| *name == binding.name) {
            std::fs::write(file, output.bytes())
                .map_err(|error| format!("cannot write `{file}`: {error}"))?;
        }
    }
    if arguments.times > 0 {
        let mut times = context
            .time_us(arguments.times)
            .map_err(|error| error.to_string())?;
        times.sort_by(f64::total_cmp);
        println!(
            "median {:.2} us of {} executions",
            times[times.len() / 2],
            times.len()
        );
    }
    Ok(())
}

/// The profile that is asked for by its number, or by shapes.
fn profile_number(arguments: &Arguments, header: &Header) -> Result<usize, String> {
    let n_profiles = header.n_profiles();
    let usual = header.profiles.first().map_or(&[][..], |usual| &usual.inputs);
    if arguments.shapes.is_empty() {
        let number = arguments.profile;
        return if number < n_profiles {
            Ok(number)
        } else {
            Err(format!("the engine has {n_profiles} profiles"))
        };
    }
    let names = arguments
        .shapes
        .iter()
        .map(|(name, _)| (name.clone(), String::new()));
    check_names(&names.collect::<Vec<_>>(), usual)?;
    let ty = |input: &Binding| {
        let own = arguments.shapes.iter().find(|(name, _)| *name == input.name);
        TensorType::new(input.dtype, own.map_or(&input.dims, |(_, dims)| dims))
    };
    let types: Vec<TensorType> = usual.iter().map(ty).collect();
    let found = header.profile_for(&types).map_err(|error| error.to_string())?;
    found.ok_or_else(|| {
        let inputs = usual.iter().enumerate();
        let known =
            inputs.map(|(position, input)| format!("`{}` is {}", input.name, header.spanned_input(position)));
        format!(
            "the engine has no such profile: {}",
            known.collect::<Vec<_>>().join(", ")
        )
    })
}

/// The engine, of the signer that is required.
fn load(arguments: &Arguments) -> Result<Engine, EngineError> {
    let key = arguments.signer.as_ref().map(Path::new);
    let signer = key.map(PublicKey::load).transpose()?;
    engine::load_signed(Path::new(&arguments.engine), signer.as_ref())
}

/// The first execution, and the milliseconds it took from the engine in host memory and a CUDA context on.
fn execute(
    engine: &Engine,
    device: usize,
    inputs: &[HostTensor],
) -> Result<(ExecutionContext, Vec<HostTensor>, f64), String> {
    let context = Context::new(device).map_err(|error| error.to_string())?;
    let started = Instant::now();
    let loaded: Arc<DeviceEngine> =
        DeviceEngine::load(engine, &context).map_err(|error| error.to_string())?;
    let mut context = ExecutionContext::new(&loaded).map_err(|error| error.to_string())?;
    let outputs = context.run(inputs).map_err(|error| error.to_string())?;
    Ok((context, outputs, started.elapsed().as_secs_f64() * 1e3))
}

fn read_inputs(arguments: &Arguments, profile: &Profile) -> Result<Vec<HostTensor>, String> {
    check_names(&arguments.inputs, &profile.inputs)?;
    let tensor = |binding: &Binding| {
        let file = arguments.inputs.iter().find(|(name, _)| *name == binding.name);
        let Some((_, file)) = file else {
            return Ok(HostTensor::zeros(binding.dtype, &binding.dims));
        };
        let bytes = std::fs::read(file).map_err(|error| format!("cannot read `{file}`: {error}"))?;
        HostTensor::from_bytes(binding.dtype, &binding.dims, &bytes).ok_or_else(|| {
            format!(
                "`{file}` holds {} bytes, input `{}` is {}",
                bytes.len(),
                binding.name,
                binding.ty()
            )
        })
    };
    profile.inputs.iter().map(tensor).collect()
}

fn check_names(given: &[(String, String)], bindings: &[Binding]) -> Result<(), String> {
    let unknown = given
        .iter()
        .find(|(name, _)| bindings.iter().all(|binding| binding.name != *name));
    match unknown {
        Some((name, _)) => Err(format!("the engine has no `{name}`; see --info")),
        None => Ok(()),
    }
}

fn print_info(engine: &Engine) {
    let header = &engine.header;
    println!("{} in {}, by {}", header.model, header.precision, header.producer);
    for program in &header.programs {
        println!(
            "{} profile {}: {} launches, {} bytes of activations",
            program.arch,
            program.profile,
            program.launches.len(),
            program.arena_bytes
        );
    }
    for (number, profile) in header.profiles.iter().enumerate() {
        for binding in &profile.inputs {
            println!("profile {number} input {}: {}", binding.name, binding.ty());
        }
        for (position, binding) in profile.outputs.iter().enumerate() {
            println!(
                "profile {number} output {}: {}",
                binding.name,
                profile.shown_output(position)
            );
        }
    }
    if let Some(shared) = &header.shared {
        print_range(header, shared);
    }
}

/// Of the shapes of a range what they have in common.
fn print_range(header: &Header, shared: &Shared) {
    let profiles = format!(
        "profiles {} to {}",
        header.profiles.len(),
        header.n_profiles() - 1
    );
    for own in &shared.archs {
        println!(
            "{} {profiles}: {} bytes of activations at most",
            own.arch, own.needs.arena_bytes
        );
    }
    let inputs = header.profiles.first().map_or(&[][..], |usual| &usual.inputs);
    for (position, binding) in inputs.iter().enumerate() {
        println!(
            "{profiles} input {}: {}",
            binding.name,
            header.spanned_input(position)
        );
    }
}
