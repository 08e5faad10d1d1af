//! The functions of `include/rtrt.h`: engines for programs in C.
//!
//! Handles are boxes that the caller owns. Nothing here panics on what a caller passes: null
//! pointers and wrong numbers are errors, whose text [`rtrt_last_error`] gives. Every pointer must
//! be null or what the header says; that is all that C can promise.

#![expect(unsafe_code, reason = "pointers come from C")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::slice;
use std::sync::{Arc, Mutex, PoisonError};

use crate::cuda::{Context, DeviceMemory, Stream};
use crate::engine::{self, Binding, Profile, PublicKey};
use crate::ir::{HostTensor, TensorType};
use crate::runtime::{DeviceEngine, ExecutionContext, RuntimeError};

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

/// An engine on a device.
pub struct RtrtEngine {
    engine: Arc<DeviceEngine>,
    /// Names of inputs and of outputs, for C.
    names: [Vec<CString>; 2],
    /// Profiles that were asked for: C was given pointers into them.
    profiles: Mutex<BTreeMap<usize, Arc<Profile>>>,
}

impl RtrtEngine {
    fn profile(&self, number: usize) -> Result<Arc<Profile>, RuntimeError> {
        let mut known = self.profiles.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(profile) = known.get(&number) {
            return Ok(Arc::clone(profile));
        }
        let profile = Arc::new(self.engine.profile(number)?);
        known.insert(number, Arc::clone(&profile));
        Ok(profile)
    }
}

/// An execution context.
pub struct RtrtContext {
    context: ExecutionContext,
}

/// An input or output of one profile.
#[repr(C)]
pub struct RtrtTensor {
    /// Lives as long as the engine.
    pub name: *const c_char,
    /// Such as `f32`; lives for ever.
    pub kind: *const c_char,
    pub rank: usize,
    /// `rank` extents; live as long as the engine.
    pub dims: *const usize,
    pub bytes: usize,
}

const OK: c_int = 0;
const FAILED: c_int = 1;

fn fail(message: &str) -> c_int {
    let text = CString::new(message.replace('\0', " ")).unwrap_or_default();
    LAST_ERROR.with(|last| *last.borrow_mut() = text);
    FAILED
}

/// Text of this thread's last error; valid until its next one.
#[unsafe(no_mangle)]
pub extern "C" fn rtrt_last_error() -> *const c_char {
    LAST_ERROR.with(|last| last.borrow().as_ptr())
}

/// Reads an engine and puts it on a device; null where that fails.
///
/// # Safety
/// `path` is null or a string that ends with a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rtrt_engine_load(path: *const c_char, device: c_int) -> *mut RtrtEngine {
    if path.is_null() {
        fail("the path is null");
        return std::ptr::null_mut();
    }
    // SAFETY: the caller promised a string.
    engine_or_null(loaded(unsafe { CStr::from_ptr(path) }, None, device))
}

/// As [`rtrt_engine_load`], for an engine that must be signed by the owner of the public key in the file
/// `signer`.
///
/// # Safety
/// `path` and `signer` are each null or a string that ends with a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rtrt_engine_load_signed(
    path: *const c_char,
    signer: *const c_char,
    device: c_int,
) -> *mut RtrtEngine {
    if path.is_null() || signer.is_null() {
        fail("the path or the signer is null");
        return std::ptr::null_mut();
    }
    // SAFETY: the caller promised strings.
    let (path, signer) = unsafe { (CStr::from_ptr(path), CStr::from_ptr(signer)) };
    engine_or_null(loaded(path, Some(signer), device))
}

fn engine_or_null(engine: Result<RtrtEngine, String>) -> *mut RtrtEngine {
    match engine {
        Ok(engine) => Box::into_raw(Box::new(engine)),
        Err(message) => {
            fail(&message);
            std::ptr::null_mut()
        }
    }
}

fn loaded(path: &CStr, signer: Option<&CStr>, device: c_int) -> Result<RtrtEngine, String> {
    let path = utf8_path(path)?;
    let key = signer.map(utf8_path).transpose()?;
    let signer = key
        .map(PublicKey::load)
        .transpose()
        .map_err(|error| error.to_string())?;
    let device = usize::try_from(device).map_err(|_| format!("there is no device {device}"))?;
    let file = engine::load_signed(path, signer.as_ref()).map_err(|error| error.to_string())?;
    let context = Context::new(device).map_err(|error| error.to_string())?;
    let engine = DeviceEngine::load(&file, &context).map_err(|error| error.to_string())?;
    let text = |binding: &Binding| CString::new(binding.name.replace('\0', " ")).unwrap_or_default();
    let first = engine.profile(0).map_err(|error| error.to_string())?;
    let names = [&first.inputs, &first.outputs].map(|bindings| bindings.iter().map(text).collect());
    Ok(RtrtEngine {
        engine,
        names,
        profiles: Mutex::default(),
    })
}

fn utf8_path(path: &CStr) -> Result<&Path, String> {
    let path = path.to_str().map_err(|_| "the path is no UTF-8".to_owned())?;
    Ok(Path::new(path))
}

/// Frees an engine; contexts of it stay usable.
///
/// # Safety
/// `engine` is null or from [`rtrt_engine_load`], and not freed before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rtrt_engine_free(engine: *mut RtrtEngine) {
    if !engine.is_null() {
        // SAFETY: the caller promised that it is a box of ours.
        drop(unsafe { Box::from_raw(engine) });
    }
}

/// Numbers of profiles, inputs and outputs.
///
/// # Safety
/// `engine` is null or alive; the others are null or point to a number each.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rtrt_engine_counts(
    engine: *const RtrtEngine,
    n_profiles: *mut usize,
    n_inputs: *mut usize,
    n_outputs: *mut usize,
) -> c_int {
    // SAFETY: null or alive.
    let Some(own) = (unsafe { engine.as_ref() }) else {
        return fail("the engine is null");
    };
    let counts = [own.engine.n_profiles(), own.names[0].len(), own.names[1].len()];
    for (count, into) in counts.into_iter().zip([n_profiles, n_inputs, n_outputs]) {
        // SAFETY: null or a number.
        if let Some(into) = unsafe { into.as_mut() } {
            *into = count;
        }
    }
    OK
}

/// Describes input (`is_output` zero) or output number `position` of a profile.
///
/// # Safety
/// `engine` is null or alive; `tensor` is null or points to one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rtrt_engine_tensor(
    engine: *const RtrtEngine,
    profile: usize,
    is_output: c_int,
    position: usize,
    tensor: *mut RtrtTensor,
) -> c_int {
    // SAFETY: null or alive.
    let (Some(own), Some(into)) = (unsafe { engine.as_ref() }, unsafe { tensor.as_mut() }) else {
        return fail("the engine or the tensor is null");
    };
    let side = usize::from(is_output != 0);
    let bound = match own.profile(profile) {
        Ok(bound) => bound,
        Err(error) => return fail(&error.to_string()),
    };
    let (Some(binding), Some(name)) = (sides(&bound)[side].get(position), own.names[side].get(position))
    else {
        return fail(&format!("there is no tensor {position} in profile {profile}"));
    };
    *into = RtrtTensor {
        name: name.as_ptr(),
        kind: kind_name(binding).as_ptr(),
        rank: binding.dims.len(),
        dims: binding.dims.as_ptr(),
        bytes: binding.ty().n_bytes(),
    };
    OK
}

/// Tells the number of the profile whose inputs have these dims.
///
/// # Safety
/// `engine` is null or alive; `dims` is null or has a pointer for each input, each null or to as many numbers as the
/// input has axes in the first profile; `profile` is null or points to a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rtrt_engine_profile_for(
    engine: *const RtrtEngine,
    dims: *const *const usize,
    profile: *mut usize,
) -> c_int {
    // SAFETY: null or alive.
    let (Some(own), Some(into)) = (unsafe { engine.as_ref() }, unsafe { profile.as_mut() }) else {
        return fail("the engine or the profile is null");
    };
    if dims.is_null() {
        return fail("the dims are null");
    }
    let inputs = &own.engine.header().profiles[0].inputs;
    // SAFETY: as many pointers as inputs, as the caller promised.
    let dims = unsafe { slice::from_raw_parts(dims, inputs.len()) };
    let mut types = Vec::with_capacity(inputs.len());
    for (input, &own) in inputs.iter().zip(dims) {
        if own.is_null() && !input.dims.is_empty() {
            return fail(&format!("the dims of `{}` are null", input.name));
        }
        let own = match input.dims.len() {
            0 => &[],
            // SAFETY: as many numbers as axes, as the caller promised.
            rank => unsafe { slice::from_raw_parts(own, rank) },
        };
        types.push(TensorType::new(input.dtype, own));
    }
    match own.engine.profile_for(&types) {
        Ok(found) => {
            *into = found;
            OK
        }
        Err(error) => fail(&error.to_string()),
    }
}

fn sides(profile: &Profile) -> [&Vec<Binding>; 2] {
    [&profile.inputs, &profile.outputs]
}

/// The name of the element kind for C: names are made once and kept.
fn kind_name(binding: &Binding) -> &'static CStr {
    static NAMES: Mutex<BTreeMap<&'static str, &'static CStr>> = Mutex::new(BTreeMap::new());
    let name = binding.dtype.name();
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    names
        .entry(name)
        .or_insert_with(|| Box::leak(CString::new(name).unwrap_or_default().into_boxed_c_str()))
}

/// Memory, stream and recorded launches; null where the device has no room.
///
/// # Safety
/// `engine` is null or alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rtrt_context_new(engine: *const RtrtEngine) -> *mut RtrtContext {
    // SAFETY: null or alive.
    let Some(own) = (unsafe { engine.as_ref() }) else {
        fail("the engine is null");
        return std::ptr::null_mut();
    };
    context_or_null(ExecutionContext::new(&own.engine))
}

/// As [`rtrt_context_new`]; everything is queued on `stream`.
///
/// # Safety
/// `engine` is null or alive; `stream` is null, for the default stream, or a stream of the primary
/// context of the engine's device, which lives as long as the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rtrt_context_new_on(
    engine: *const RtrtEngine,
    stream: *mut c_void,
) -> *mut RtrtContext {
    // SAFETY: null or alive.
    let Some(own) = (unsafe { engine.as_ref() }) else {
        fail("the engine is null");
        return std::ptr::null_mut();
    };
    // SAFETY: as the caller promised.
    let stream = unsafe { Stream::borrowed(own.engine.context(), stream) };
    context_or_null(ExecutionContext::on(&own.engine, stream))
}

fn context_or_null(context: Result<ExecutionContext, RuntimeError>) -> *mut RtrtContext {
    match context {
        Ok(context) => Box::into_raw(Box::new(RtrtContext { context })),
        Err(error) => {
            fail(&error.to_string());
            std::ptr::null_mut()
        }
    }
}

/// Frees a context after what it executes is done.
///
/// # Safety
/// `context` is null or from [`rtrt_context_new`], and not freed before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rtrt_context_free(context: *mut RtrtContext) {
    if !context.is_null() {
        // SAFETY: the caller promised that it is a box of ours.
        drop(unsafe { Box::from_raw(context) });
    }
}

/// One execution as C asks for it, with as many pointers as the profile has tensors, none of them null.
struct Call<'a> {
    context: &'a mut ExecutionContext,
    profile: Profile,
    inputs: &'a [*const c_void],
    outputs: &'a [*mut c_void],
}

impl Call<'_> {
    /// # Safety
    /// As [`rtrt_context_run`] says of the same arguments.
    unsafe fn checked(
        context: *mut RtrtContext,
        profile: usize,
        inputs: *const *const c_void,
        outputs: *const *mut c_void,
    ) -> Result<Self, String> {
        // SAFETY: null or alive, and ours alone.
        let Some(own) = (unsafe { context.as_mut() }) else {
            return Err("the context is null".to_owned());
        };
        let bound = own
            .context
            .profile_of(profile)
            .map_err(|error| error.to_string())?;
        if inputs.is_null() || outputs.is_null() {
            return Err("the inputs or outputs are null".to_owned());
        }
        // SAFETY: as many pointers as tensors, as the caller promised.
        let (inputs, outputs) = unsafe {
            (
                slice::from_raw_parts(inputs, bound.inputs.len()),
                slice::from_raw_parts(outputs, bound.outputs.len()),
            )
        };
        if inputs.iter().any(|pointer| pointer.is_null()) || outputs.iter().any(|pointer| pointer.is_null()) {
            return Err("one of the inputs or outputs is null".to_owned());
        }
        Ok(Call {
            context: &mut own.context,
            profile: bound,
            inputs,
            outputs,
        })
    }

    /// Copies host memory to the device, executes, and copies back.
    ///
    /// # Safety
    /// Every pointer is to as many bytes of host memory as its tensor has.
    unsafe fn run(self) -> Result<(), String> {
        let tensors = self
            .profile
            .inputs
            .iter()
            .zip(self.inputs)
            .map(|(binding, &pointer)| {
                // SAFETY: as the caller promised.
                let bytes = unsafe { slice::from_raw_parts(pointer.cast::<u8>(), binding.ty().n_bytes()) };
                HostTensor::from_bytes(binding.dtype, &binding.dims, bytes)
            });
        let tensors = tensors
            .collect::<Option<Vec<_>>>()
            .ok_or("an input is not as large as its type says")?;
        let results = self.context.run(&tensors).map_err(|error| error.to_string())?;
        for (result, &pointer) in results.iter().zip(self.outputs) {
            // SAFETY: as the caller promised.
            unsafe { slice::from_raw_parts_mut(pointer.cast::<u8>(), result.n_bytes()) }
                .copy_from_slice(result.bytes());
        }
        Ok(())
    }

    /// Queues an execution of profile number `profile` on device memory.
    ///
    /// # Safety
    /// Every pointer is to as many bytes of the engine's device as its tensor has, which stay until the
    /// execution is done.
    unsafe fn enqueue(self, profile: usize) -> Result<(), String> {
        let device = Arc::clone(self.context.engine().context());
        // SAFETY: as the caller promised.
        let block = |(binding, address): (&Binding, u64)| unsafe {
            DeviceMemory::borrowed(&device, address, binding.ty().n_bytes())
        };
        let inputs = self.inputs.iter().map(|&pointer| pointer as u64);
        let outputs = self.outputs.iter().map(|&pointer| pointer as u64);
        let from: Vec<DeviceMemory> = self.profile.inputs.iter().zip(inputs).map(block).collect();
        let to: Vec<DeviceMemory> = self.profile.outputs.iter().zip(outputs).map(block).collect();
        let (from, to) = (from.iter().collect::<Vec<_>>(), to.iter().collect::<Vec<_>>());
        self.context
            .enqueue(profile, &from, &to)
            .map_err(|error| error.to_string())
    }
}

fn code(outcome: Result<(), String>) -> c_int {
    outcome.map_or_else(|message| fail(&message), |()| OK)
}

/// Executes one profile: reads `inputs[i]` and writes `outputs[i]`, host memory of the sizes that
/// [`rtrt_engine_tensor`] tells, and returns when the outputs are there.
///
/// # Safety
/// `context` is null or alive and used by this thread alone; `inputs` and `outputs` are null or hold a
/// pointer for each tensor of the profile, each null or to as many bytes as the tensor has.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rtrt_context_run(
    context: *mut RtrtContext,
    profile: usize,
    inputs: *const *const c_void,
    outputs: *const *mut c_void,
) -> c_int {
    // SAFETY: as the caller promised.
    code(unsafe { Call::checked(context, profile, inputs, outputs).and_then(|call| call.run()) })
}

/// Waits for the context's executions, and writes the dims of output `position` of the last one to `dims`, as
/// many as it has axes.
///
/// # Safety
/// `context` is null or alive and used by this thread alone; `dims` is null or points to `rank` numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rtrt_context_output_dims(
    context: *mut RtrtContext,
    position: usize,
    rank: usize,
    dims: *mut usize,
) -> c_int {
    // SAFETY: null or alive, and ours alone.
    let Some(own) = (unsafe { context.as_mut() }) else {
        return fail("the context is null");
    };
    if dims.is_null() {
        return fail("the dims are null");
    }
    let found = match own.context.output_dims() {
        Ok(found) => found,
        Err(error) => return fail(&error.to_string()),
    };
    let Some(found) = found.get(position) else {
        return fail(&format!("there is no output {position}"));
    };
    if found.len() != rank {
        return fail(&format!("output {position} has {} axes, not {rank}", found.len()));
    }
    // SAFETY: as many numbers as the caller said.
    unsafe { slice::from_raw_parts_mut(dims, rank) }.copy_from_slice(found);
    OK
}

/// Queues an execution and returns: reads `inputs[i]` and writes `outputs[i]`, device memory of the sizes
/// that [`rtrt_engine_tensor`] tells.
///
/// # Safety
/// `context` is null or alive and used by this thread alone; `inputs` and `outputs` are null or hold an
/// address for each tensor of the profile, each null or of as many bytes of the engine's device as the
/// tensor has, which stay until the execution is done.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rtrt_context_enqueue(
    context: *mut RtrtContext,
    profile: usize,
    inputs: *const *const c_void,
    outputs: *const *mut c_void,
) -> c_int {
    // SAFETY: as the caller promised.
    code(unsafe { Call::checked(context, profile, inputs, outputs).and_then(|call| call.enqueue(profile)) })
}

#[cfg(test)]
mod tests {
    use std::ptr::null_mut as null;

    use super::*;

    fn last_error() -> String {
        // SAFETY: the text is valid until the next error of this thread.
        let text = unsafe { CStr::from_ptr(rtrt_last_error()) };
        text.to_str().unwrap().to_owned()
    }

    #[test]
    fn null_is_an_error_everywhere() {
        // SAFETY: null is allowed everywhere.
        unsafe {
            assert!(rtrt_engine_load(std::ptr::null(), 0).is_null());
            assert!(last_error().contains("null"));
            let no_key = rtrt_engine_load_signed(c"m.engine".as_ptr(), std::ptr::null(), 0);
            assert!(no_key.is_null());
            assert!(rtrt_context_new(std::ptr::null()).is_null());
            assert_eq!(
                rtrt_engine_counts(std::ptr::null(), null(), null(), null()),
                FAILED
            );
            assert_eq!(rtrt_engine_tensor(std::ptr::null(), 0, 0, 0, null()), FAILED);
            assert_eq!(
                rtrt_engine_profile_for(std::ptr::null(), std::ptr::null(), null()),
                FAILED
            );
            assert_eq!(
                rtrt_context_run(null(), 0, std::ptr::null(), std::ptr::null()),
                FAILED
            );
            assert!(rtrt_context_new_on(std::ptr::null(), null()).is_null());
            assert_eq!(rtrt_context_output_dims(null(), 0, 0, null()), FAILED);
            assert_eq!(
                rtrt_context_enqueue(null(), 0, std::ptr::null(), std::ptr::null()),
                FAILED
            );
            rtrt_engine_free(null());
            rtrt_context_free(null());
        }
    }

    #[test]
    fn a_missing_engine_is_named() {
        // SAFETY: a string that ends with zero.
        let engine = unsafe { rtrt_engine_load(c"nowhere/m.engine".as_ptr(), 0) };
        assert!(engine.is_null());
        assert!(last_error().contains("nowhere/m.engine"), "{}", last_error());
    }
}
