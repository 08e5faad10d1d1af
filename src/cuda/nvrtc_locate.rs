//! Where NVRTC is, on machines that never had a CUDA toolkit.
//!
//! The wheel `nvidia-cuda-nvrtc` is enough, but its folder is on no loader path, so the
//! usual places of wheels and toolkits are looked through in a fixed order. A missing
//! NVRTC is an answer, not a panic: [`NvrtcMissing`] lists every place and the command
//! that installs it.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// The release this project is tested with.
pub const PINNED_WHEEL: &str = "nvidia-cuda-nvrtc==13.0.88";

/// Folder of the project into which `make` installs the wheel.
pub const PROJECT_FOLDER: &str = ".nvrtc";

/// Below a `site-packages` folder or a `pip install --target` one: CUDA 13, then CUDA 12.
const WHEEL_FOLDERS: [&str; 2] = ["nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib"];

/// The part of the process environment the search depends on.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// `$RTRT_NVRTC`: a folder, or the library itself. Where set, nothing else is tried.
    pub explicit: Option<PathBuf>,
    pub exe: Option<PathBuf>,
    pub working_folder: Option<PathBuf>,
    pub cuda_home: Option<PathBuf>,
    pub virtual_env: Option<PathBuf>,
    pub home: Option<PathBuf>,
}

impl Surroundings {
    pub fn of_process() -> Self {
        let variable = |name| {
            env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        Surroundings {
            explicit: variable("RTRT_NVRTC"),
            exe: env::current_exe().ok(),
            working_folder: env::current_dir().ok(),
            cuda_home: variable("CUDA_HOME").or_else(|| variable("CUDA_PATH")),
            virtual_env: variable("VIRTUAL_ENV"),
            home: variable("HOME"),
        }
    }
}

/// An `libnvrtc` on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub library: PathBuf,
    /// Major version its file name promises.
    pub major: u32,
}

impl Found {
    /// The `libnvrtc-builtins` of version `major.minor` beside the library, if there.
    pub fn builtins(&self, major: u32, minor: u32) -> PathBuf {
        self.library
            .with_file_name(format!("libnvrtc-builtins.so.{major}.{minor}"))
    }
}

/// No usable NVRTC: what was tried, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, miette::Diagnostic)]
#[diagnostic(
    code(compile::no_nvrtc),
    help(
        "install it with `python3 -m pip install --target .nvrtc nvidia-cuda-nvrtc==13.0.88`, or set `RTRT_NVRTC` to its folder"
    )
)]
pub struct NvrtcMissing {
    /// Every place looked at, each with what was wrong there.
    pub tried: Vec<String>,
}

impl fmt::Display for NvrtcMissing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NVRTC, the CUDA compiler library, was not found; tried:")?;
        for place in &self.tried {
            write!(f, "\n  {place}")?;
        }
        Ok(())
    }
}

impl std::error::Error for NvrtcMissing {}

/// Every folder to look in, best first, without repetition.
pub fn folders(surroundings: &Surroundings) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Some(explicit) = &surroundings.explicit {
        push_wheel_root(&mut found, explicit);
        return found;
    }
    for start in [&surroundings.working_folder, &surroundings.exe]
        .into_iter()
        .flatten()
    {
        for ancestor in start.ancestors() {
            let project = ancestor.join(PROJECT_FOLDER);
            if project.is_dir() {
                push_wheel_root(&mut found, &project);
            }
        }
    }
    if let Some(working_folder) = &surroundings.working_folder {
        // Named even when absent: it is where the help text installs to.
        push(
            &mut found,
            working_folder.join(PROJECT_FOLDER).join(WHEEL_FOLDERS[0]),
        );
    }
    if let Some(prefix) = surroundings.exe.as_deref().and_then(|exe| exe.parent()?.parent()) {
        push(&mut found, prefix.join("lib"));
    }
    if let Some(cuda_home) = &surroundings.cuda_home {
        push(&mut found, cuda_home.join("lib64"));
    }
    for packages in python_packages(surroundings) {
        for folder in WHEEL_FOLDERS {
            push(&mut found, packages.join(folder));
        }
    }
    push(&mut found, PathBuf::from("/usr/local/cuda/lib64"));
    found
}

/// The newest `libnvrtc.so.N` in `folder`, or why there is none.
pub fn look_in(folder: &Path) -> Result<Found, String> {
    if folder.is_file() {
        return named(folder).ok_or_else(|| format!("{}: not a `libnvrtc.so.N`", folder.display()));
    }
    let entries = fs::read_dir(folder).map_err(|_| format!("{}: no such folder", folder.display()))?;
    entries
        .filter_map(|entry| named(&entry.ok()?.path()))
        .max_by_key(|found| found.major)
        .ok_or_else(|| format!("{}: holds no `libnvrtc.so.N`", folder.display()))
}

/// The library at `path`, if its name is `libnvrtc.so.N`, possibly with a longer version.
fn named(path: &Path) -> Option<Found> {
    let version = path.file_name()?.to_str()?.strip_prefix("libnvrtc.so.")?;
    let major = version.split('.').next()?.parse().ok()?;
    Some(Found {
        library: path.to_path_buf(),
        major,
    })
}

/// `site-packages` folders of the active virtual environment, the user and the system.
fn python_packages(surroundings: &Surroundings) -> Vec<PathBuf> {
    let mut libs = Vec::new();
    libs.extend(surroundings.virtual_env.as_ref().map(|venv| venv.join("lib")));
    libs.extend(surroundings.home.as_ref().map(|home| home.join(".local/lib")));
    libs.push(PathBuf::from("/usr/local/lib"));
    libs.push(PathBuf::from("/usr/lib"));
    let mut packages = Vec::new();
    for lib in libs {
        for python in python_folders(&lib) {
            packages.push(python.join("site-packages"));
            packages.push(python.join("dist-packages"));
        }
    }
    packages.retain(|folder| folder.is_dir());
    packages
}

/// `lib/python3*` below `lib`, in name order.
fn python_folders(lib: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(lib) else {
        return Vec::new();
    };
    let mut folders: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("python3"))
        })
        .collect();
    folders.sort();
    folders
}

/// A folder that is either the library folder or the root of an unpacked wheel.
fn push_wheel_root(found: &mut Vec<PathBuf>, root: &Path) {
    push(found, root.to_path_buf());
    if !root.is_file() {
        for folder in WHEEL_FOLDERS {
            push(found, root.join(folder));
        }
    }
}

fn push(found: &mut Vec<PathBuf>, folder: PathBuf) {
    if !found.contains(&folder) {
        found.push(folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explicit_folder_is_the_only_one() {
        let surroundings = Surroundings {
            explicit: Some(PathBuf::from("/nowhere")),
            working_folder: Some(PathBuf::from("/")),
            ..Surroundings::default()
        };
        assert!(
            folders(&surroundings)
                .iter()
                .all(|folder| folder.starts_with("/nowhere"))
        );
    }

    #[test]
    fn a_project_folder_is_found_from_below() {
        let root = tempfile::tempdir().unwrap();
        let lib = root.path().join(".nvrtc/nvidia/cu13/lib");
        fs::create_dir_all(&lib).unwrap();
        for name in [
            "libnvrtc.so.13",
            "libnvrtc.alt.so.13",
            "libnvrtc-builtins.so.13.0",
        ] {
            fs::write(lib.join(name), "").unwrap();
        }
        let surroundings = Surroundings {
            exe: Some(root.path().join("target/release/rtrt-codegen")),
            ..Surroundings::default()
        };
        let found = folders(&surroundings)
            .iter()
            .find_map(|folder| look_in(folder).ok());
        let found = found.expect("the project folder holds an NVRTC");
        assert_eq!(found.library, lib.join("libnvrtc.so.13"));
        assert_eq!(found.builtins(13, 0), lib.join("libnvrtc-builtins.so.13.0"));
    }

    #[test]
    fn the_message_lists_places_and_the_command() {
        let missing = NvrtcMissing {
            tried: vec!["/a: no such folder".to_owned()],
        };
        assert!(missing.to_string().contains("/a: no such folder"));
        let help = miette::Diagnostic::help(&missing).unwrap().to_string();
        assert!(help.contains(PINNED_WHEEL) && help.contains("pip install"));
    }
}
