#!/bin/sh
# Builds the runtime for devices and holds it to its promises: below two megabytes, nothing but
# libc at link time, and a C program that runs an engine with it. Without a GPU the program must
# say which library is missing.
#
#   runtime.sh [ENGINE]
set -eu
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR=target/runtime
features="--no-default-features --features runtime --profile small"
# libgcc's unwinder goes into the program, since devices may lack the library: where the standard
# library asks for the shared one, the linker is told of the static one.
mkdir -p target/runtime/unwinder
echo 'GROUP ( -lgcc_eh -lgcc -lc )' >target/runtime/unwinder/libgcc_s.so
export RUSTFLAGS="-L native=$PWD/target/runtime/unwinder"
cargo build --quiet $features --bin rtrt-run
cargo rustc --quiet $features --lib --crate-type staticlib
program=target/runtime/small/rtrt-run
bytes=$(wc -c <"$program")
echo "rtrt-run: $bytes bytes"
[ "$bytes" -lt 2000000 ] || { echo "rtrt-run is larger than two megabytes" >&2; exit 1; }
foreign=$(ldd "$program" | grep -v -E 'linux-vdso|libc\.so|ld-linux|libm\.so|libdl\.so|libpthread\.so' || true)
[ -z "$foreign" ] || { echo "rtrt-run needs more than libc: $foreign" >&2; exit 1; }
example=target/runtime/example
"${CC:-cc}" -Wall -Wextra -Werror -Iinclude include/example.c target/runtime/small/librtrt_codegen.a \
    -ldl -lpthread -lm -o "$example"
[ $# -gt 0 ] || exit 0
if "$program" "$1" --info && "$example" "$1" 2>target/runtime/example.log; then
    echo "the C example ran $1"
else
    grep -q -E 'libcuda|no CUDA|compiled for' target/runtime/example.log
    echo "the C example says: $(cat target/runtime/example.log)"
fi
