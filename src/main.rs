//! The `rtrt-codegen` program; everything it does is in [`rtrt_codegen::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    rtrt_codegen::cli::main()
}
