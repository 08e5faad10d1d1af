//! What a machine needs for some tests, and what happens where it is missing.

use rtrt_codegen::cuda::Nvrtc;

/// Whether there is an NVRTC. Without one the test says so and does nothing; with
/// `RTRT_REQUIRE_NVRTC=1`, as `make test` sets it after installing one, that is a failure.
///
/// # Panics
/// If NVRTC is required and missing.
pub fn have_nvrtc() -> bool {
    match Nvrtc::get() {
        Ok(_) => true,
        Err(missing) => {
            let required = std::env::var("RTRT_REQUIRE_NVRTC").is_ok_and(|value| value == "1");
            assert!(!required, "{missing}");
            eprintln!("ignored: {missing}");
            false
        }
    }
}
