#!/bin/sh
# GPU tests, real models and timings in one go, on a machine with an NVIDIA GPU, python3 with
# numpy and onnx, and an NVRTC (CUDA_HOME, RTRT_NVRTC or a pip wheel).
#
#   run.sh BIN MODELS OUT [GPU_TEST_EXECUTABLE] [-- arguments for models.py]
#
# BIN is the release binary, MODELS as in models.py, OUT a folder for logs. The test executable
# is what `cargo test --test gpu --no-run` prints; without it the GPU tier is left out.
set -u
bin=$1 models=$2 out=$3
shift 3
mkdir -p "$out"
if [ $# -gt 0 ] && [ "$1" != -- ]; then
    RTRT_TEST_GPU=1 "$1" >"$out/gpu_tests.log" 2>&1
    tail -n 25 "$out/gpu_tests.log"
    shift
fi
[ $# -gt 0 ] && shift
"$bin" doctor
exec python3 "$(dirname "$0")/models.py" --bin "$bin" --models "$models" --out "$out" "$@"
