//! CUDA text to cubin, through an NVRTC opened by absolute path.
//!
//! NVRTC opens its `libnvrtc-builtins` by name when it first compiles, and a wheel's
//! folder is on no loader path. Opening that file first, by absolute path, satisfies the
//! lookup; both handles are leaked, because a compiler in use must never be unloaded.
//! Functions are looked up in exactly the library that was opened, so another CUDA on the
//! machine cannot slip in between.

use std::ffi::{CStr, CString, c_char, c_int};
use std::fmt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::OnceLock;

use libloading::Library;

use super::nvrtc_locate::{self, Found, NvrtcMissing, Surroundings};

/// Version of a loaded NVRTC; prints as `13.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NvrtcVersion {
    pub major: u32,
    pub minor: u32,
}

impl fmt::Display for NvrtcVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A compilation that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("NVRTC reports `{status}`")]
pub struct NvrtcFailure {
    /// NVRTC's name of the error, such as `NVRTC_ERROR_COMPILATION`.
    pub status: String,
    /// The compiler's own messages.
    pub log: String,
}

/// What a successful compilation gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    pub cubin: Vec<u8>,
    /// Warnings; usually empty.
    pub log: String,
}

/// Status codes are kept as integers: a newer NVRTC may return codes we do not know.
type Status = c_int;
type Program = *mut std::ffi::c_void;

/// A loaded NVRTC. It is thread-safe, and compiles different programs concurrently.
pub struct Nvrtc {
    path: PathBuf,
    version: NvrtcVersion,
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> Status,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Status,
    destroy: unsafe extern "C" fn(*mut Program) -> Status,
    log_size: unsafe extern "C" fn(Program, *mut usize) -> Status,
    log: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    cubin_size: unsafe extern "C" fn(Program, *mut usize) -> Status,
    cubin: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    ptx_size: unsafe extern "C" fn(Program, *mut usize) -> Status,
    ptx: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    error_string: unsafe extern "C" fn(Status) -> *const c_char,
}

impl Nvrtc {
    /// The NVRTC of this process, searched for and loaded on first use.
    pub fn get() -> Result<&'static Nvrtc, &'static NvrtcMissing> {
        static LOADED: OnceLock<Result<Nvrtc, NvrtcMissing>> = OnceLock::new();
        LOADED
            .get_or_init(|| Nvrtc::search(&Surroundings::of_process()))
            .as_ref()
    }

    /// Loads the first usable NVRTC; see [`nvrtc_locate::folders`] for the order.
    pub fn search(surroundings: &Surroundings) -> Result<Nvrtc, NvrtcMissing> {
        let mut tried = Vec::new();
        for folder in nvrtc_locate::folders(surroundings) {
            match nvrtc_locate::look_in(&folder).and_then(|found| Nvrtc::open(&found)) {
                Ok(nvrtc) => return Ok(nvrtc),
                Err(reason) => tried.push(reason),
            }
        }
        if surroundings.explicit.is_none() {
            for name in ["libnvrtc.so.13", "libnvrtc.so.12"] {
                match Nvrtc::open_by_name(name) {
                    Ok(nvrtc) => return Ok(nvrtc),
                    Err(reason) => tried.push(reason),
                }
            }
        }
        Err(NvrtcMissing { tried })
    }

    pub fn version(&self) -> NvrtcVersion {
        self.version
    }

    /// The library file, or the bare name the system loader resolved.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Compiles `text` with `options`; `file_name` only appears in messages.
    ///
    /// # Errors
    /// With NVRTC's log where the text does not compile.
    pub fn compile(&self, text: &str, file_name: &str, options: &[String]) -> Result<Compiled, NvrtcFailure> {
        let (program, log) = self.compiled(text, file_name, options)?;
        let cubin = program.bytes(self.cubin_size, self.cubin);
        let cubin = cubin.filter(|cubin| !cubin.is_empty());
        let cubin = cubin.ok_or_else(|| nothing_came("cubin", &log))?;
        Ok(Compiled { cubin, log })
    }

    /// Compiles `text` to PTX, with a zero byte at its end, for the virtual architecture of `options`.
    ///
    /// # Errors
    /// With NVRTC's log where the text does not compile.
    pub fn compile_ptx(
        &self,
        text: &str,
        file_name: &str,
        options: &[String],
    ) -> Result<Vec<u8>, NvrtcFailure> {
        let (program, log) = self.compiled(text, file_name, options)?;
        let ptx = program.bytes(self.ptx_size, self.ptx);
        let ptx = ptx.filter(|ptx| ptx.last() == Some(&0));
        ptx.ok_or_else(|| nothing_came("PTX", &log))
    }

    fn compiled(
        &self,
        text: &str,
        file_name: &str,
        options: &[String],
    ) -> Result<(OwnedProgram<'_>, String), NvrtcFailure> {
        let text = c_string(text)?;
        let file_name = c_string(file_name)?;
        let options: Vec<CString> = options
            .iter()
            .map(|option| c_string(option))
            .collect::<Result<_, _>>()?;
        let options: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let program = self.create_program(&text, &file_name)?;
        let n_options = c_int::try_from(options.len()).unwrap_or(c_int::MAX);
        // SAFETY: the program is live and `options` holds `n_options` live strings.
        let status = unsafe { (self.compile)(program.handle, n_options, options.as_ptr()) };
        let log = program.text(self.log_size, self.log);
        self.check(status, &log)?;
        Ok((program, log))
    }

    fn create_program(&self, text: &CStr, file_name: &CStr) -> Result<OwnedProgram<'_>, NvrtcFailure> {
        let mut handle: Program = ptr::null_mut();
        // SAFETY: both strings are live and NUL-terminated; no headers are passed.
        let status = unsafe {
            (self.create)(
                &raw mut handle,
                text.as_ptr(),
                file_name.as_ptr(),
                0,
                ptr::null(),
                ptr::null(),
            )
        };
        self.check(status, "")?;
        Ok(OwnedProgram { nvrtc: self, handle })
    }

    fn check(&self, status: Status, log: &str) -> Result<(), NvrtcFailure> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: NVRTC returns a static string for every code.
        let name = unsafe { (self.error_string)(status) };
        let name = if name.is_null() {
            format!("error {status}")
        } else {
            // SAFETY: not null, static and NUL-terminated.
            unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
        };
        Err(NvrtcFailure {
            status: name,
            log: log.trim_end().to_owned(),
        })
    }

    /// Loads a found library with the builtins of exactly its version.
    fn open(found: &Found) -> Result<Nvrtc, String> {
        let library = open_library(&found.library)?;
        let nvrtc = Nvrtc::bind(library, &found.library)?;
        let NvrtcVersion { major, minor } = nvrtc.version;
        if major != found.major {
            return Err(format!(
                "{}: says it is version {}, which its name contradicts",
                found.library.display(),
                nvrtc.version
            ));
        }
        let builtins = found.builtins(major, minor);
        if !builtins.is_file() {
            return Err(format!(
                "{}: version {} needs `{}` beside it",
                found.library.display(),
                nvrtc.version,
                builtins.file_name().unwrap_or_default().display()
            ));
        }
        std::mem::forget(open_library(&builtins)?);
        Ok(nvrtc)
    }

    /// Leaves finding the library and its builtins to the system loader.
    fn open_by_name(name: &str) -> Result<Nvrtc, String> {
        let library =
            open_library(Path::new(name)).map_err(|_| format!("{name}: not known to the loader"))?;
        Nvrtc::bind(library, Path::new(name))
    }

    fn bind(library: Library, path: &Path) -> Result<Nvrtc, String> {
        type Version = unsafe extern "C" fn(*mut c_int, *mut c_int) -> Status;
        let version: Version = symbol(&library, path, "nvrtcVersion")?;
        let (mut major, mut minor) = (0, 0);
        // SAFETY: both pointers are to live integers.
        unsafe { version(&raw mut major, &raw mut minor) };
        let nvrtc = Nvrtc {
            path: path.to_path_buf(),
            version: NvrtcVersion {
                major: u32::try_from(major).unwrap_or(0),
                minor: u32::try_from(minor).unwrap_or(0),
            },
            create: symbol(&library, path, "nvrtcCreateProgram")?,
            compile: symbol(&library, path, "nvrtcCompileProgram")?,
            destroy: symbol(&library, path, "nvrtcDestroyProgram")?,
            log_size: symbol(&library, path, "nvrtcGetProgramLogSize")?,
            log: symbol(&library, path, "nvrtcGetProgramLog")?,
            cubin_size: symbol(&library, path, "nvrtcGetCUBINSize")?,
            cubin: symbol(&library, path, "nvrtcGetCUBIN")?,
            ptx_size: symbol(&library, path, "nvrtcGetPTXSize")?,
            ptx: symbol(&library, path, "nvrtcGetPTX")?,
            error_string: symbol(&library, path, "nvrtcGetErrorString")?,
        };
        std::mem::forget(library);
        Ok(nvrtc)
    }
}

impl fmt::Debug for Nvrtc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NVRTC {} at {}", self.version, self.path.display())
    }
}

/// A program that is destroyed when dropped.
struct OwnedProgram<'a> {
    nvrtc: &'a Nvrtc,
    handle: Program,
}

impl OwnedProgram<'_> {
    /// Fetches bytes by NVRTC's convention of a size call followed by a content call.
    fn bytes(
        &self,
        size: unsafe extern "C" fn(Program, *mut usize) -> Status,
        content: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    ) -> Option<Vec<u8>> {
        let mut len = 0usize;
        // SAFETY: the program is live and the pointer is to a live integer.
        if unsafe { size(self.handle, &raw mut len) } != 0 {
            return None;
        }
        let mut bytes = vec![0u8; len];
        // SAFETY: NVRTC writes exactly the `len` bytes it announced.
        (unsafe { content(self.handle, bytes.as_mut_ptr().cast()) } == 0).then_some(bytes)
    }

    fn text(
        &self,
        size: unsafe extern "C" fn(Program, *mut usize) -> Status,
        content: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    ) -> String {
        let bytes = self.bytes(size, content).unwrap_or_default();
        String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned()
    }
}

impl Drop for OwnedProgram<'_> {
    fn drop(&mut self) {
        // SAFETY: destroys the program made by `create_program`, once.
        unsafe { (self.nvrtc.destroy)(&raw mut self.handle) };
    }
}

fn nothing_came(what: &str, log: &str) -> NvrtcFailure {
    NvrtcFailure {
        status: format!("no {what}"),
        log: log.to_owned(),
    }
}

fn open_library(path: &Path) -> Result<Library, String> {
    // SAFETY: runs the initialisers of NVIDIA's library, which have no preconditions.
    unsafe { Library::new(path) }.map_err(|error| format!("{}: {error}", path.display()))
}

fn symbol<T: Copy>(library: &Library, path: &Path, name: &str) -> Result<T, String> {
    // SAFETY: the callers name the type that `nvrtc.h` declares for `name`.
    unsafe { library.get::<T>(name.as_bytes()) }
        .map(|symbol| *symbol)
        .map_err(|_| format!("{}: has no `{name}`", path.display()))
}

fn c_string(text: &str) -> Result<CString, NvrtcFailure> {
    CString::new(text).map_err(|_| NvrtcFailure {
        status: "NVRTC_ERROR_INVALID_INPUT".to_owned(),
        log: "the text holds a NUL byte".to_owned(),
    })
}
