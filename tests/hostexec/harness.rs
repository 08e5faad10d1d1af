//! Compiles generated kernels with g++ against an emulating prelude, and runs them.
//!
//! A section of a kernel's text (`// ==== name`) for which `prelude/<name>.h` exists is
//! replaced by it: those are the sections with assembly. Everything else, the kernel itself
//! above all, is compiled as it is. What happens when it runs is in `emulator/`.

#![allow(dead_code, reason = "each test crate uses a part of it")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use rtrt_codegen::ir::{DType, HostTensor, TensorType};
use rtrt_codegen::kernel::Source;
use rtrt_codegen::ops::evaluate::to_vec;
use tempfile::TempDir;

use crate::translation::{n_launches, translation_unit};

/// A kernel and what to run it on.
#[derive(Clone)]
pub struct Case {
    pub label: String,
    pub source: Source,
    pub inputs: Vec<HostTensor>,
    /// Inputs that are constant data, by their number.
    pub weights: BTreeSet<usize>,
    pub outputs: Vec<TensorType>,
}

/// Passes of shared memory beyond the first, in one block, by what caused them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conflicts {
    pub ldmatrix: i64,
    pub async_copies: i64,
    pub words: i64,
    pub loads: i64,
    pub stores: i64,
}

/// What a case left behind.
pub struct Outcome {
    /// The outputs of each launch.
    pub launches: Vec<Vec<HostTensor>>,
    pub conflicts: Conflicts,
    template: &'static str,
}

/// Whether there is a compiler; says so where there is none.
pub fn have_compiler() -> bool {
    let found = Command::new("g++").arg("--version").output().is_ok();
    if !found {
        eprintln!("ignored: kernels are run on the CPU by g++, which is not installed");
    }
    found
}

/// Whether a case's text is compiled with the sections of the first case that has them, or
/// with its own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sections {
    Shared,
    Own,
}

/// Cases compiled into one program.
pub struct Program<'a> {
    cases: &'a [Case],
    folder: TempDir,
}

impl<'a> Program<'a> {
    /// # Panics
    /// If the text does not compile.
    pub fn new(cases: &'a [Case], sections: Sections) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(
            folder.path().join("kernels.cpp"),
            translation_unit(cases, sections),
        )
        .unwrap();
        compile(folder.path());
        for (number, case) in cases.iter().enumerate() {
            let data: Vec<u8> = case
                .inputs
                .iter()
                .flat_map(|input| input.bytes().to_vec())
                .collect();
            fs::write(folder.path().join(format!("in{number}")), data).unwrap();
        }
        Program { cases, folder }
    }

    /// Runs every case in one process; outcomes in the order of the cases.
    ///
    /// # Panics
    /// If a kernel hangs or does what the emulator does not allow.
    pub fn run_all(&self) -> Vec<Outcome> {
        let result = self.run(&[]);
        if !result.status.success() {
            let kept = std::env::temp_dir().join("rtrt-hostexec-failed.cpp");
            fs::copy(self.folder.path().join("kernels.cpp"), &kept).unwrap();
            panic!("{} (text in {})", complaint(&result), kept.display());
        }
        (0..self.cases.len()).map(|number| self.outcome(number)).collect()
    }

    /// Runs one case in a process of its own. The error is what the emulator says.
    pub fn run_one(&self, number: usize) -> Result<Outcome, String> {
        let result = self.run(&[number.to_string()]);
        if result.status.success() {
            Ok(self.outcome(number))
        } else {
            Err(complaint(&result))
        }
    }

    fn run(&self, arguments: &[String]) -> Output {
        Command::new(self.folder.path().join("kernels"))
            .current_dir(self.folder.path())
            .args(arguments)
            .output()
            .unwrap()
    }

    fn outcome(&self, number: usize) -> Outcome {
        let bytes = fs::read(self.folder.path().join(format!("out{number}"))).unwrap();
        let mut rest = &bytes[..];
        let case = &self.cases[number];
        let mut output = |ty: &TensorType| {
            let (own, after) = rest.split_at(ty.n_bytes());
            rest = after;
            HostTensor::from_bytes(ty.dtype, &ty.dims(), own).unwrap()
        };
        let launches = (0..n_launches(case))
            .map(|_| case.outputs.iter().map(&mut output).collect())
            .collect();
        let counts: Vec<i64> = rest
            .chunks_exact(8)
            .map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap()))
            .collect();
        let &[ldmatrix, async_copies, words, loads, stores] = &counts[..] else {
            panic!("{} counts", counts.len());
        };
        let conflicts = Conflicts {
            ldmatrix,
            async_copies,
            words,
            loads,
            stores,
        };
        Outcome {
            launches,
            conflicts,
            template: case.source.template,
        }
    }
}

impl Outcome {
    /// Operands of matrix instructions are read without any; tiles of products are swizzled, so
    /// that they are written without any too.
    fn n_unwanted_conflicts(&self) -> i64 {
        let written = if self.template == "gemm_mma" {
            self.conflicts.async_copies
        } else {
            0
        };
        self.conflicts.ldmatrix + self.conflicts.words + written
    }

    /// The first thing that is wrong, in words.
    pub fn wrong(&self, wanted: &[HostTensor], slack: f64) -> Option<String> {
        if self.n_unwanted_conflicts() > 0 {
            return Some(format!("{:?}", self.conflicts));
        }
        let pairs = self
            .launches
            .iter()
            .flat_map(|outputs| outputs.iter().zip(wanted));
        let mut pairs = pairs;
        pairs.find_map(|(found, wanted)| difference(found, wanted, slack * tolerance(wanted.dtype())))
    }
}

/// Share of integers that may be a step off, and of the largest float that floats computed from them
/// may be off.
const ROUNDED: f64 = 0.03;

impl Outcome {
    /// As [`Outcome::wrong`], where numbers near the middle of two steps may be rounded either way.
    pub fn wrong_by_steps(&self, wanted: &[HostTensor]) -> Option<String> {
        if self.n_unwanted_conflicts() > 0 {
            return Some(format!("{:?}", self.conflicts));
        }
        let mut pairs = self
            .launches
            .iter()
            .flat_map(|outputs| outputs.iter().zip(wanted));
        pairs.find_map(|(found, wanted)| off_by_steps(found, wanted))
    }
}

#[expect(clippy::cast_precision_loss, reason = "tensors of tests are small")]
fn off_by_steps(found: &HostTensor, wanted: &HostTensor) -> Option<String> {
    let (found, values): (Vec<f64>, Vec<f64>) = (to_vec(found), to_vec(wanted));
    let off: Vec<f64> = found.iter().zip(&values).map(|(a, b)| (a - b).abs()).collect();
    let worst = off.iter().copied().fold(
        0.0,
        |worst, own| if own > worst || own.is_nan() { own } else { worst },
    );
    let ty = wanted.ty();
    if ty.dtype.is_int() {
        let n_off = off.iter().filter(|own| **own > 0.0).count();
        let most = (off.len() as f64 * ROUNDED).max(1.0);
        return (worst > 1.0 || n_off as f64 > most)
            .then(|| format!("{n_off} elements of {ty} are off, by {worst} at most"));
    }
    let largest = values
        .iter()
        .fold(0.0_f64, |largest, value| largest.max(value.abs()));
    let is_close = worst <= largest * ROUNDED;
    (!is_close).then(|| format!("an element of {ty} is off by {worst}, the largest is {largest}"))
}

/// The last lines of what a program wrote, and how it ended.
fn complaint(result: &Output) -> String {
    let log = String::from_utf8_lossy(&result.stderr);
    let lines: Vec<&str> = log.lines().collect();
    let from = lines
        .iter()
        .rposition(|line| line.starts_with("running "))
        .unwrap_or(0);
    format!("{}\n{}", lines[from..].join("\n"), result.status)
}

/// Runs every case in one process; outputs in the order of the cases.
///
/// # Panics
/// As [`Program::new`] and [`Program::run_all`].
pub fn run_all(cases: &[Case]) -> Vec<Outcome> {
    Program::new(cases, Sections::Shared).run_all()
}

fn folder_of_emulator() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostexec")
}

fn run_compiler(command: &mut Command, what: &Path) {
    let result = command.output().unwrap();
    if !result.status.success() {
        let kept = std::env::temp_dir().join("rtrt-hostexec-failed.cpp");
        let kept = fs::copy(what, &kept).map_or_else(|_| what.to_owned(), |_| kept);
        let log = String::from_utf8_lossy(&result.stderr);
        let head: String = log.lines().take(30).collect::<Vec<_>>().join("\n");
        panic!("g++ refuses {}:\n{head}", kept.display());
    }
}

/// The emulator, compiled once per process.
fn emulator() -> &'static Path {
    static OBJECT: OnceLock<PathBuf> = OnceLock::new();
    OBJECT.get_or_init(|| {
        let object =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("emulator-{}.o", std::process::id()));
        let sources = [
            "fibers",
            "collective",
            "memory",
            "mbarrier",
            "wgmma",
            "cluster",
            "main",
        ]
        .map(|stem| folder_of_emulator().join(format!("emulator/{stem}.cpp")));
        run_compiler(
            Command::new("g++")
                .args(["-std=c++17", "-O2", "-Wall", "-r", "-nostdlib", "-o"])
                .arg(&object)
                .args(&sources),
            &sources[0],
        );
        object
    })
}

/// Kernels call the emulator at every access to memory, and stop at an array's end; neither
/// needs a library.
const CHECKS: [&str; 3] = [
    "-fsanitize=thread",
    "-fsanitize=bounds",
    "-fsanitize-undefined-trap-on-error",
];

fn compile(folder: &Path) {
    let (unit, object) = (folder.join("kernels.cpp"), folder.join("kernels.o"));
    run_compiler(
        Command::new("g++")
            .args([
                "-std=c++17",
                "-O1",
                "-w",
                "-fno-strict-aliasing",
                "-fno-tree-sra",
                "-ffp-contract=off",
                "-c",
            ])
            .args(CHECKS)
            .arg("-I")
            .arg(folder_of_emulator())
            .arg("-o")
            .arg(&object)
            .arg(&unit),
        &unit,
    );
    let mut link = Command::new("g++");
    link.arg("-o")
        .arg(folder.join("kernels"))
        .arg(object)
        .arg(emulator());
    run_compiler(&mut link, &unit);
}

/// How far `found` may be from `wanted`: relative to the larger of the two and to one.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => 1e-11,
        DType::F32 => 2e-5,
        DType::F16 => 5e-3,
        DType::BF16 => 4e-2,
        DType::F8E4M3 | DType::F8E4M3Fnuz | DType::F8E5M2 | DType::F8E5M2Fnuz | DType::F4E2M1 => 0.3,
        _ => 0.0,
    }
}

/// The first difference that is too large, in words.
fn difference(found: &HostTensor, wanted: &HostTensor, tolerance: f64) -> Option<String> {
    if found.ty() != wanted.ty() {
        return Some(format!("found {}, wanted {}", found.ty(), wanted.ty()));
    }
    let (a, b) = (to_vec::<f64>(found), to_vec::<f64>(wanted));
    let wrong = (0..a.len()).find(|&i| {
        let (a, b) = (a[i], b[i]);
        let same = a == b || (a.is_nan() && b.is_nan());
        let close = (a - b).abs() <= tolerance * (1.0 + b.abs());
        !same && !close
    })?;
    Some(format!(
        "element {wrong} of {} is {}, wanted {}",
        wanted.ty(),
        a[wrong],
        b[wrong]
    ))
}
